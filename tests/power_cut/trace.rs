//! What a program did to files, as strace(1) saw it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The calls that change files, folders or positions in files, and those that make changes durable. Times and extended
/// attributes are left out: they count as lost.
const CALLS: &str = "openat,open,creat,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,\
    ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,\
    rmdir,copy_file_range,sendfile,splice";

/// A file descriptor of the program; its threads share them.
pub type Descriptor = u64;

/// A call that succeeded, with the lines of the log in which it began and ended. Calls of several threads overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedCall {
    pub call: SystemCall,
    pub began: usize,
    pub ended: usize,
}

impl TracedCall {
    /// The path that is there from this call on.
    fn made(&self) -> Option<&Path> {
        match &self.call {
            SystemCall::Create(path)
            | SystemCall::MakeFolder(path)
            | SystemCall::Rename(_, path)
            | SystemCall::Link(_, path) => Some(path),
            _ => None,
        }
    }

    /// The line from which on others may have seen what it did. Other threads use a name before its call has ended.
    fn seen_from(&self) -> usize {
        match &self.call {
            SystemCall::Create(_)
            | SystemCall::Rename(..)
            | SystemCall::Exchange(..)
            | SystemCall::Link(..)
            | SystemCall::MakeFolder(_) => self.began,
            SystemCall::Open { .. }
            | SystemCall::Duplicate(..)
            | SystemCall::Seek(..)
            | SystemCall::Write { .. }
            | SystemCall::SetLength(..)
            | SystemCall::Allocate(..)
            | SystemCall::Sync(_)
            | SystemCall::Remove(_) => self.ended,
        }
    }
}

/// What a call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemCall {
    /// There is a file of this path from now on. Part of an opening: until that has ended, its descriptor may be another
    /// thread's, who is just closing it.
    Create(PathBuf),
    /// The descriptor is `path` from now on.
    Open {
        descriptor: Descriptor,
        path: PathBuf,
        creates: bool,
        truncates: bool,
        appends: bool,
    },
    /// The second descriptor shares the first one's position.
    Duplicate(Descriptor, Descriptor),
    /// The position of a descriptor is this one now.
    Seek(Descriptor, u64),
    /// Bytes at a position, or at the descriptor's own.
    Write {
        descriptor: Descriptor,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    /// The file has this length now.
    SetLength(Descriptor, u64),
    /// The file has at least this length now.
    Allocate(Descriptor, u64),
    /// What had ended when it began is durable: of a file its bytes, of a folder its entries.
    Sync(Descriptor),
    /// The first path is the second from now on, and what was there is gone.
    Rename(PathBuf, PathBuf),
    /// The two paths have changed places.
    Exchange(PathBuf, PathBuf),
    /// The second path is one more name of the first.
    Link(PathBuf, PathBuf),
    /// The file or the empty folder is gone.
    Remove(PathBuf),
    /// A new, empty folder.
    MakeFolder(PathBuf),
}

/// Runs `command` under strace, whose log goes to `log`; answers how it ended, and what it did, in order.
pub fn record(command: &Command, log: &Path) -> (ExitStatus, Vec<TracedCall>) {
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-y", "-xx", "-s", "16777216", "--seccomp-bpf", "-o"])
        .arg(log)
        .arg(format!("--trace={CALLS}"))
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    if let Some(folder) = command.get_current_dir() {
        traced.current_dir(folder);
    }
    let output = traced
        .output()
        .expect("strace starts: install the package strace");
    let text = std::fs::read_to_string(log).expect("strace writes a log");
    (output.status, calls(&text))
}

/// The calls of a log.
fn calls(log: &str) -> Vec<TracedCall> {
    let mut calls = Vec::new();
    // By thread: the beginning of a call that another thread's line interrupted, and its line.
    let mut unfinished: HashMap<&str, (String, usize)> = HashMap::new();
    for (ended, line) in log.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else {
            continue;
        };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (begun.to_owned(), ended));
            continue;
        }
        let (whole, began) = match text.strip_prefix("<... ") {
            Some(resumed) => {
                let (begun, began) = unfinished.remove(thread).expect("a call that began");
                let (_, rest) = resumed.split_once(" resumed>").expect("a resumed call");
                (begun + rest, began)
            }
            None => (text.to_owned(), ended),
        };
        if let Some(call) = parse(&whole) {
            if let SystemCall::Open {
                path,
                creates: true,
                ..
            } = &call
            {
                let call = SystemCall::Create(path.clone());
                calls.push(TracedCall { call, began, ended });
            }
            calls.push(TracedCall { call, began, ended });
        }
    }
    let mut calls: Vec<_> = calls
        .iter()
        .map(|call| (place(call, &calls), call.clone()))
        .collect();
    calls.sort_by_key(|(place, _)| *place);
    calls.into_iter().map(|(_, call)| call).collect()
}

/// The place of a call in the order: the line from which on its effect is seen, then the depth of a path that waited for its
/// folder. Where another thread made the folder while the call was under way, the call took effect after that.
fn place(call: &TracedCall, calls: &[TracedCall]) -> (usize, usize) {
    let from = call.seen_from();
    let Some(path) = call.made() else {
        return (from, 0);
    };
    let folders = calls.iter().filter(|other| {
        let during = (from + 1..=call.ended).contains(&other.began);
        match &other.call {
            SystemCall::MakeFolder(folder) => during && path != folder && path.starts_with(folder),
            _ => false,
        }
    });
    match folders.map(|folder| folder.began).max() {
        Some(folder) => (folder, path.components().count()),
        None => (from, 0),
    }
}

/// The call of a line `name(arguments) = result`, if it succeeded and changed something.
fn parse(line: &str) -> Option<SystemCall> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| {
        let (arguments, result) = rest.rsplit_once(" = ")?;
        Some((arguments.trim_end().strip_suffix(')')?, result))
    })?;
    let result: u64 = result
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())?;
    let arguments: Vec<&str> = arguments.split(", ").collect();
    let descriptor = |index: usize| descriptor(arguments[index]);
    let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
    let path = |index: usize| PathBuf::from(OsString::from_vec(quoted(arguments[index])));
    let below = |folder: usize| folder_of(arguments[folder]).join(path(folder + 1));
    let opened = |path: PathBuf, flags: &str| SystemCall::Open {
        descriptor: result,
        path,
        creates: flags.contains("O_CREAT"),
        truncates: flags.contains("O_TRUNC"),
        appends: flags.contains("O_APPEND"),
    };
    Some(match name {
        "openat" => opened(below(0), arguments[2]),
        "open" => opened(path(0), arguments[1]),
        "creat" => opened(path(0), "O_CREAT|O_TRUNC"),
        "dup" | "dup2" | "dup3" => SystemCall::Duplicate(descriptor(0), result),
        "fcntl" if arguments[1].starts_with("F_DUPFD") => {
            SystemCall::Duplicate(descriptor(0), result)
        }
        "fcntl" => return None,
        "lseek" => SystemCall::Seek(descriptor(0), result),
        "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => {
            let mut bytes: Vec<u8> = arguments.iter().flat_map(|text| quoted(text)).collect();
            assert!(bytes.len() as u64 >= result, "strace cut a string: {name}");
            bytes.truncate(usize::try_from(result).expect("a length"));
            SystemCall::Write {
                descriptor: descriptor(0),
                at: match name {
                    "pwrite64" => Some(number(3)),
                    // The position stands behind the list of buffers and their number.
                    "pwritev" => Some(number(arguments.len() - 1)),
                    "pwritev2" => Some(number(arguments.len() - 2)),
                    _ => None,
                },
                bytes,
            }
        }
        "fsync" | "fdatasync" => SystemCall::Sync(descriptor(0)),
        "ftruncate" => SystemCall::SetLength(descriptor(0), number(1)),
        "fallocate" => {
            assert_eq!(arguments[1], "0", "only plain allocation is known");
            SystemCall::Allocate(descriptor(0), number(2) + number(3))
        }
        "rename" => SystemCall::Rename(path(0), path(1)),
        "renameat" => SystemCall::Rename(below(0), below(2)),
        "renameat2" if arguments[4].contains("EXCHANGE") => {
            SystemCall::Exchange(below(0), below(2))
        }
        "renameat2" => SystemCall::Rename(below(0), below(2)),
        "link" => SystemCall::Link(path(0), path(1)),
        "linkat" => SystemCall::Link(below(0), below(2)),
        "unlink" | "rmdir" => SystemCall::Remove(path(0)),
        "unlinkat" => SystemCall::Remove(below(0)),
        "mkdir" => SystemCall::MakeFolder(path(0)),
        "mkdirat" => SystemCall::MakeFolder(below(0)),
        other => panic!("the program calls {other}, which this test does not know"),
    })
}

/// The number of `7<path>`.
fn descriptor(argument: &str) -> Descriptor {
    let digits = argument.split('<').next().unwrap_or_default();
    digits.parse().expect("a descriptor")
}

/// The folder of `AT_FDCWD<path>` or `7<path>`.
fn folder_of(argument: &str) -> PathBuf {
    let (_, path) = argument.split_once('<').expect("strace -y names the path");
    PathBuf::from(OsString::from_vec(unescape(path.trim_end_matches('>'))))
}

/// What stands between quotes, all as `\x0a`.
fn quoted(argument: &str) -> Vec<u8> {
    let inner = argument.split('"').nth(1);
    assert!(!argument.contains("\"..."), "strace cut a string");
    inner.map(unescape).unwrap_or_default()
}

fn unescape(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits
        .map(|digits| u8::from_str_radix(digits, 16).expect("two hexadecimal digits"))
        .collect()
}

#[test]
fn a_log_of_strace_is_read_with_interrupted_calls_and_without_failed_ones() {
    let log = r#"10 openat(AT_FDCWD<\x2f\x77>, "\x61", O_WRONLY|O_CREAT|O_APPEND|O_CLOEXEC, 0666) = 3<\x2f\x77\x2f\x61>
10 openat(AT_FDCWD<\x2f\x77>, "\x62", O_RDONLY) = -1 ENOENT (No such file or directory)
11 fsync(3<\x2f\x77\x2f\x61> <unfinished ...>
10 pwrite64(3<\x2f\x77\x2f\x61>, "\x41\x42\x43", 3, 7 <unfinished ...>
11 <... fsync resumed>)                    = 0
10 <... pwrite64 resumed>)                 = 2
10 writev(3<\x2f\x77\x2f\x61>, [{iov_base="\x41", iov_len=1}, {iov_base="\x42", iov_len=1}], 2) = 2
11 openat(AT_FDCWD<\x2f\x77>, "\x63", O_WRONLY|O_CREAT, 0666 <unfinished ...>
10 write(4<\x2f\x77\x2f\x64>, "\x44", 1) = 1
11 <... openat resumed>) = 4<\x2f\x77\x2f\x63>
10 renameat2(AT_FDCWD<\x2f\x77>, "\x61", 5<\x2f\x77\x2f\x73>, "\x62", RENAME_NOREPLACE) = 0
10 +++ exited with 0 +++
"#;
    let write = |descriptor, at, bytes: &[u8]| SystemCall::Write {
        descriptor,
        at,
        bytes: bytes.to_vec(),
    };
    let traced = |began, ended, call| TracedCall { call, began, ended };
    let open = |descriptor, path: &str, appends| SystemCall::Open {
        descriptor,
        path: path.into(),
        creates: true,
        truncates: false,
        appends,
    };
    let expected = [
        traced(0, 0, SystemCall::Create("/w/a".into())),
        traced(0, 0, open(3, "/w/a", true)),
        traced(2, 4, SystemCall::Sync(3)),
        traced(3, 5, write(3, Some(7), b"AB")),
        traced(6, 6, write(3, None, b"AB")),
        traced(7, 9, SystemCall::Create("/w/c".into())),
        // Of the file that had the descriptor before.
        traced(8, 8, write(4, None, b"D")),
        traced(7, 9, open(4, "/w/c", false)),
        traced(10, 10, SystemCall::Rename("/w/a".into(), "/w/s/b".into())),
    ];
    assert_eq!(calls(log), expected);
}

#[test]
fn what_is_made_in_a_folder_follows_the_folder_though_it_began_before() {
    let log = r#"10 openat(AT_FDCWD<\x2f\x77>, "\x61\x2f\x62\x2f\x63", O_WRONLY|O_CREAT, 0666 <unfinished ...>
11 mkdir("\x2f\x77\x2f\x61\x2f\x62", 0777 <unfinished ...>
12 mkdir("\x2f\x77\x2f\x61", 0777 <unfinished ...>
13 unlink("\x2f\x77\x2f\x64") = 0
12 <... mkdir resumed>) = 0
11 <... mkdir resumed>) = 0
10 <... openat resumed>) = 4<\x2f\x77\x2f\x61\x2f\x62\x2f\x63>
"#;
    let made: Vec<_> = calls(log)
        .into_iter()
        .filter_map(|call| call.made().map(Path::to_owned))
        .collect();
    assert_eq!(made, ["/w/a", "/w/a/b", "/w/a/b/c"].map(PathBuf::from));
}
