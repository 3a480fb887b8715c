//! Somebody at a command line: a folder with a pipeline's YAML, the program, and queues and stream at some address.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long something may take before a test gives up on it; a bound on a hang, not a measure of speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug)]
pub struct Desk {
    program: &'static str,
    folder: tempfile::TempDir,
    name: String,
    /// What the program is told in its environment.
    variables: Vec<(String, String)>,
}

impl Desk {
    /// `program` is `env!("CARGO_BIN_EXE_streampress-program")`, which only a test knows; `spec` is YAML below `spec:`,
    /// indented by two spaces. The pipeline's queues and stream are called after `name`.
    pub fn new(program: &'static str, url: &str, name: &str, spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: {name}}}\nspec:\n\
             \x20 aws: {{endpointURL: \"{url}\"}}\n\
             \x20 transport:\n\
             \x20   filesQueue: {{name: {name}-files.fifo}}\n\
             \x20   chunksQueue: {{name: {name}-chunks.fifo}}\n\
             \x20   stream: {{name: {name}-stream}}\n{spec}\n"
        );
        fs::write(folder.path().join("pipeline.yaml"), yaml).expect("the YAML can be written");
        let credentials = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        Self {
            program,
            folder,
            name: name.to_owned(),
            variables: owned(&credentials),
        }
    }

    /// Of somebody whom other variables make known, in place of the credentials that a desk has.
    pub fn known_by(self, variables: &[(&str, &str)]) -> Self {
        Self {
            variables: owned(variables),
            ..self
        }
    }

    /// In the place of a container of the original: no YAML, only variables.
    pub fn of_the_original(program: &'static str, variables: &[(&str, &str)]) -> Self {
        Self {
            program,
            folder: tempfile::tempdir().expect("a temporary folder"),
            name: "seed".to_owned(),
            variables: owned(variables),
        }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What stands for /data with `--aws`.
    pub fn data(&self, name: &str) -> PathBuf {
        self.path("streampress-data").join(&self.name).join(name)
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, path: &Path, content: impl AsRef<[u8]>) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders can be made");
        fs::write(path, content).expect("a file can be written");
    }

    /// The files of a folder of the data, by name; unfinished ones left out.
    pub fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.data(folder)).into_iter().flatten();
        entries
            .map(|entry| entry.expect("a readable folder"))
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                (
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.path(),
                )
            })
            .filter(|(name, _)| !name.contains(".streampress-"))
            .map(|(name, path)| (name, fs::read(path).expect("a readable file")))
            .collect()
    }

    /// A command with the desk's variables and none of the machine's own settings.
    pub fn command(&self, args: &[&str]) -> Command {
        self.dressed(Command::new(self.program), args)
    }

    fn dressed(&self, mut command: Command, args: &[&str]) -> Command {
        command
            .current_dir(self.folder.path())
            .args(args)
            .env_clear()
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, args: &[&str]) -> Said {
        let output = self.command(args).output().expect("the program starts");
        Said::of(output)
    }

    /// Starts and goes on; its log is `<log>` in the folder.
    pub fn start(&self, log: &str, args: &[&str]) -> Running {
        self.start_command(log, self.command(args))
    }

    /// The same within a cgroup, by the path of its `cgroup.procs`: its limits hold from the first byte.
    pub fn start_within(&self, group: &Path, log: &str, args: &[&str]) -> Running {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(group)
            .arg(self.program);
        self.start_command(log, self.dressed(shell, args))
    }

    /// The same with a command that was given more.
    pub fn start_command(&self, log: &str, mut command: Command) -> Running {
        let path = self.path(log);
        let file = fs::File::create(&path).expect("a log file");
        let child = command
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Running { child, log: path }
    }
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Standard output of a command that must have ended well.
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(
            sent.expect("kill runs").success(),
            "the signal was not taken"
        );
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// SIGTERM, then its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.wait()
    }

    /// What it answers at `path`, where it was started with `--listen 127.0.0.1:0`.
    pub fn ask(&self, path: &str) -> String {
        let address = eventually("it says where it listens", || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| line.contains("are served"))?
                .to_owned();
            let (_, after) = line.split_once("address=")?;
            Some(after.split(' ').next().unwrap_or_default().to_owned())
        });
        let mut connection = TcpStream::connect(&address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("answered");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until there is an answer.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The sum of a figure over its labels; 0 where the page has none.
pub fn figure(page: &str, name: &str) -> f64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
