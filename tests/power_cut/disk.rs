//! A disk in a model: what of it is durable, and what a power cut may take. POSIX promises no more than this: the bytes of
//! a file are durable once the file was synced, a folder's entries once the folder was, and nothing else is in any order.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::trace::{Descriptor, SystemCall, TracedCall};

/// What is lost of a write is lost by these units.
const SECTOR_BYTES: usize = 512;

type Inode = usize;

/// Everything below one folder.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    inodes: Vec<Content>,
    /// The entries of all folders as the program sees them, and as they are durable.
    seen: Entries,
    durable: Entries,
    /// Entries that are not durable yet, oldest first.
    entry_changes: Vec<EntryChange>,
    descriptors: HashMap<Descriptor, usize>,
    opened: Vec<OpenedFile>,
    /// Calls so far, and the line in which the last one ended.
    calls: usize,
    ended: usize,
}

type Entries = BTreeMap<(Inode, OsString), Inode>;

#[derive(Debug, Clone)]
enum Content {
    Folder,
    File {
        durable: Vec<u8>,
        /// As the program sees it, in bytes.
        length: u64,
        changes: Vec<ByteChange>,
    },
}

#[derive(Debug, Clone)]
struct ByteChange {
    call: usize,
    ended: usize,
    kind: ByteChangeKind,
}

#[derive(Debug, Clone)]
enum ByteChangeKind {
    Write { at: u64, bytes: Vec<u8> },
    SetLength(u64),
    Allocate(u64),
}

/// One change of entries; it happens as a whole or not at all.
#[derive(Debug, Clone)]
struct EntryChange {
    call: usize,
    ended: usize,
    entries: Vec<((Inode, OsString), Option<Inode>)>,
}

#[derive(Debug, Clone)]
struct OpenedFile {
    /// `None` outside the folder, and for what was gone when its opening ended.
    inode: Option<Inode>,
    is_inside: bool,
    position: u64,
    appends: bool,
}

/// Which of the changes that are not durable a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None.
    Synced,
    /// All.
    All,
    /// Those up to a random one, whose write may be cut.
    Oldest,
    /// Any.
    Any,
}

const ROOT: Inode = 0;

impl Disk {
    /// The folder as it is, all of it durable.
    pub fn load(root: &Path) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            inodes: vec![Content::Folder],
            seen: Entries::new(),
            durable: Entries::new(),
            entry_changes: Vec::new(),
            descriptors: HashMap::new(),
            opened: Vec::new(),
            calls: 0,
            ended: 0,
        };
        disk.load_folder(ROOT, root);
        disk.durable = disk.seen.clone();
        disk
    }

    fn load_folder(&mut self, folder: Inode, path: &Path) {
        for entry in fs::read_dir(path).expect("a readable folder") {
            let entry = entry.expect("a readable folder");
            let is_folder = entry.file_type().expect("a file's type").is_dir();
            let inode = self.add(match is_folder {
                true => Content::Folder,
                false => {
                    let durable = fs::read(entry.path()).expect("a readable file");
                    Content::File {
                        length: durable.len() as u64,
                        durable,
                        changes: Vec::new(),
                    }
                }
            });
            self.seen.insert((folder, entry.file_name()), inode);
            if is_folder {
                self.load_folder(inode, &entry.path());
            }
        }
    }

    fn add(&mut self, content: Content) -> Inode {
        self.inodes.push(content);
        self.inodes.len() - 1
    }

    /// Carries out one call.
    pub fn apply(&mut self, traced: &TracedCall) {
        self.calls += 1;
        self.ended = traced.ended;
        match &traced.call {
            SystemCall::Create(path) => drop(self.open(path, true)),
            SystemCall::Open {
                descriptor,
                path,
                truncates,
                appends,
                ..
            } => {
                let inode = self.open(path, false);
                if let Some(inode) = inode.filter(|_| *truncates) {
                    self.change(inode, ByteChangeKind::SetLength(0));
                }
                self.opened.push(OpenedFile {
                    inode,
                    is_inside: path.starts_with(&self.root),
                    position: 0,
                    appends: *appends,
                });
                self.descriptors.insert(*descriptor, self.opened.len() - 1);
            }
            SystemCall::Duplicate(old, new) => match self.descriptors.get(old).copied() {
                Some(opened) => drop(self.descriptors.insert(*new, opened)),
                None => drop(self.descriptors.remove(new)),
            },
            SystemCall::Seek(descriptor, position) => {
                if let Some(opened) = self.descriptors.get(descriptor) {
                    self.opened[*opened].position = *position;
                }
            }
            SystemCall::Write {
                descriptor,
                at,
                bytes,
            } => self.write(*descriptor, *at, bytes),
            SystemCall::SetLength(descriptor, length) => {
                if let Some(inode) = self.inode(*descriptor) {
                    self.change(inode, ByteChangeKind::SetLength(*length));
                }
            }
            SystemCall::Allocate(descriptor, length) => {
                if let Some(inode) = self.inode(*descriptor) {
                    self.change(inode, ByteChangeKind::Allocate(*length));
                }
            }
            SystemCall::Sync(descriptor) => {
                if let Some(inode) = self.inode(*descriptor) {
                    self.sync(inode, traced.began);
                }
            }
            SystemCall::Rename(from, to) => {
                if let (Some(from), Some(to)) = (self.entry(from), self.entry(to)) {
                    let moved = self.seen[&from];
                    self.change_entries(vec![(from, None), (to, Some(moved))]);
                }
            }
            SystemCall::Exchange(first, second) => {
                if let (Some(first), Some(second)) = (self.entry(first), self.entry(second)) {
                    let (a, b) = (self.seen[&first], self.seen[&second]);
                    self.change_entries(vec![(first, Some(b)), (second, Some(a))]);
                }
            }
            SystemCall::Link(from, to) => {
                if let (Some(from), Some(to)) = (self.entry(from), self.entry(to)) {
                    let linked = self.seen[&from];
                    self.change_entries(vec![(to, Some(linked))]);
                }
            }
            SystemCall::Remove(path) => {
                if let Some(entry) = self.entry(path) {
                    self.change_entries(vec![(entry, None)]);
                }
            }
            SystemCall::MakeFolder(path) => {
                if let Some(entry) = self.entry(path) {
                    let made = self.add(Content::Folder);
                    self.change_entries(vec![(entry, Some(made))]);
                }
            }
        }
    }

    /// The folder and name of a path; `None` outside the root.
    fn entry(&self, path: &Path) -> Option<(Inode, OsString)> {
        let inner = path.strip_prefix(&self.root).ok()?;
        let found = self.find(inner);
        Some(found.unwrap_or_else(|| panic!("the folder of {} is not there", path.display())))
    }

    /// The folder and name of a path relative to the root; `None` where the folder is not there.
    fn find(&self, inner: &Path) -> Option<(Inode, OsString)> {
        let name = inner.file_name()?.to_owned();
        let mut folder = ROOT;
        for part in inner.parent()?.components() {
            let Component::Normal(part) = part else {
                panic!("{} is not a plain path", inner.display());
            };
            folder = *self.seen.get(&(folder, part.to_owned()))?;
        }
        Some((folder, name))
    }

    /// `None` for what is outside, and for what another thread removed while it was opened, as a reader may.
    fn open(&mut self, path: &Path, creates: bool) -> Option<Inode> {
        if path == self.root {
            return Some(ROOT);
        }
        if !creates {
            let entry = self.find(path.strip_prefix(&self.root).ok()?)?;
            return self.seen.get(&entry).copied();
        }
        let entry = self.entry(path)?;
        if let Some(known) = self.seen.get(&entry) {
            return Some(*known);
        }
        let inode = self.add(Content::File {
            durable: Vec::new(),
            length: 0,
            changes: Vec::new(),
        });
        self.change_entries(vec![(entry, Some(inode))]);
        Some(inode)
    }

    fn inode(&self, descriptor: Descriptor) -> Option<Inode> {
        self.opened[*self.descriptors.get(&descriptor)?].inode
    }

    fn write(&mut self, descriptor: Descriptor, at: Option<u64>, bytes: &[u8]) {
        let Some(&opened) = self.descriptors.get(&descriptor) else {
            return;
        };
        let Some(inode) = self.opened[opened].inode else {
            assert!(
                !self.opened[opened].is_inside,
                "a write to a file that was gone"
            );
            return;
        };
        let Content::File { length, .. } = &self.inodes[inode] else {
            panic!("a folder was written to");
        };
        let end = *length;
        let opened = &mut self.opened[opened];
        let start = match at {
            _ if opened.appends => end,
            Some(at) => at,
            None => opened.position,
        };
        if at.is_none() {
            opened.position = start + bytes.len() as u64;
        }
        let bytes = bytes.to_vec();
        self.change(inode, ByteChangeKind::Write { at: start, bytes });
    }

    fn change(&mut self, inode: Inode, kind: ByteChangeKind) {
        let (call, ended) = (self.calls, self.ended);
        let Content::File {
            length, changes, ..
        } = &mut self.inodes[inode]
        else {
            panic!("a folder was written to");
        };
        *length = match &kind {
            ByteChangeKind::Write { at, bytes } => (*length).max(at + bytes.len() as u64),
            ByteChangeKind::SetLength(new) => *new,
            ByteChangeKind::Allocate(least) => (*length).max(*least),
        };
        changes.push(ByteChange { call, ended, kind });
    }

    fn change_entries(&mut self, entries: Vec<((Inode, OsString), Option<Inode>)>) {
        set_entries(&mut self.seen, &entries);
        self.entry_changes.push(EntryChange {
            call: self.calls,
            ended: self.ended,
            entries,
        });
    }

    /// Makes durable what was done to a file's bytes or a folder's entries by calls that had ended when this one began.
    fn sync(&mut self, inode: Inode, began: usize) {
        match &mut self.inodes[inode] {
            Content::File {
                durable, changes, ..
            } => changes.retain(|change| {
                let is_synced = change.ended < began;
                if is_synced {
                    change.kind.apply(durable, usize::MAX);
                }
                !is_synced
            }),
            Content::Folder => {
                let durable = &mut self.durable;
                self.entry_changes.retain(|change| {
                    let is_of_folder = change.entries.iter().any(|((of, _), _)| *of == inode);
                    let is_synced = is_of_folder && change.ended < began;
                    if is_synced {
                        set_entries(durable, &change.entries);
                    }
                    !is_synced
                });
            }
        }
    }

    /// The changes that are not durable, for people.
    pub fn not_durable(&self) -> Vec<String> {
        let entries = self.entry_changes.iter().map(|change| {
            let names = change
                .entries
                .iter()
                .map(|((folder, name), inode)| format!("{folder}/{} = {inode:?}", name.display()));
            (change.call, names.collect::<Vec<_>>().join(", "))
        });
        let bytes = self.inodes.iter().enumerate().flat_map(|(inode, content)| {
            let changes = match content {
                Content::File { changes, .. } => &changes[..],
                Content::Folder => &[],
            };
            changes.iter().map(move |change| {
                let what = match &change.kind {
                    ByteChangeKind::Write { at, bytes } => format!("{} bytes at {at}", bytes.len()),
                    ByteChangeKind::SetLength(length) => format!("length {length}"),
                    ByteChangeKind::Allocate(length) => format!("length of at least {length}"),
                };
                (change.call, format!("inode {inode}: {what}"))
            })
        });
        let mut all: Vec<(usize, String)> = entries.chain(bytes).collect();
        all.sort();
        let lines = all.into_iter();
        lines
            .map(|(call, what)| format!("call {call}: {what}"))
            .collect()
    }

    /// A state that a power cut now may leave: every file with its bytes, every folder with `None`.
    pub fn after_power_cut(
        &self,
        survivors: Survivors,
        random: &mut fastrand::Rng,
    ) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        // Calls that have changes which are not durable.
        let bytes = self.inodes.iter().flat_map(|content| match content {
            Content::File { changes, .. } => changes.iter().map(|it| it.call).collect(),
            Content::Folder => Vec::new(),
        });
        let mut open: Vec<usize> = bytes
            .chain(self.entry_changes.iter().map(|it| it.call))
            .collect();
        open.sort_unstable();
        let last = match open.len() {
            0 => 0,
            some => open[random.usize(..some)],
        };
        let share = [0.2, 0.5, 0.8][random.usize(..3)];
        let mut survives = |call: usize| match survivors {
            Survivors::Synced => false,
            Survivors::All => true,
            Survivors::Oldest => call <= last,
            Survivors::Any => random.f64() < share,
        };
        let mut entries = self.durable.clone();
        for change in &self.entry_changes {
            if survives(change.call) {
                set_entries(&mut entries, &change.entries);
            }
        }
        let mut contents = HashMap::new();
        for (inode, content) in self.inodes.iter().enumerate() {
            let Content::File {
                durable, changes, ..
            } = content
            else {
                continue;
            };
            let mut left = durable.clone();
            for change in changes {
                if survives(change.call) {
                    let is_cut = match survivors {
                        Survivors::Oldest => change.call == last,
                        Survivors::Any => change.call % 3 == 0,
                        Survivors::Synced | Survivors::All => false,
                    };
                    let sectors = match is_cut {
                        true => (change.call * 7919) % 9,
                        false => usize::MAX / SECTOR_BYTES,
                    };
                    change.kind.apply(&mut left, sectors * SECTOR_BYTES);
                }
            }
            contents.insert(inode, left);
        }
        let mut tree = BTreeMap::new();
        collect_tree(&entries, &contents, ROOT, Path::new(""), &mut tree);
        tree
    }
}

impl ByteChangeKind {
    /// Of a write at most the first `most` bytes.
    fn apply(&self, content: &mut Vec<u8>, most: usize) {
        let index = |position: &u64| usize::try_from(*position).expect("a position in memory");
        match self {
            Self::Write { at, bytes } => {
                let bytes = &bytes[..bytes.len().min(most)];
                let (start, end) = (index(at), index(at) + bytes.len());
                if content.len() < end && !bytes.is_empty() {
                    content.resize(end, 0);
                }
                if !bytes.is_empty() {
                    content[start..end].copy_from_slice(bytes);
                }
            }
            Self::SetLength(length) => content.resize(index(length), 0),
            Self::Allocate(length) => content.resize(content.len().max(index(length)), 0),
        }
    }
}

fn set_entries(entries: &mut Entries, changes: &[((Inode, OsString), Option<Inode>)]) {
    for (entry, inode) in changes {
        match inode {
            Some(inode) => drop(entries.insert(entry.clone(), *inode)),
            None => drop(entries.remove(entry)),
        }
    }
}

fn collect_tree(
    entries: &Entries,
    contents: &HashMap<Inode, Vec<u8>>,
    folder: Inode,
    path: &Path,
    tree: &mut BTreeMap<PathBuf, Option<Vec<u8>>>,
) {
    let first = (folder, OsString::new());
    for ((of, name), inode) in entries.range(first..) {
        if *of != folder {
            break;
        }
        let path = path.join(name);
        match contents.get(inode) {
            Some(content) => drop(tree.insert(path, Some(content.clone()))),
            None => {
                tree.insert(path.clone(), None);
                collect_tree(entries, contents, *inode, &path, tree);
            }
        }
    }
}
