//! The program `streampress` in a folder of its own, with a pipeline's YAML, credentials and an AWS endpoint.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::eventually_blocking;

/// A folder and an environment in which the program runs.
#[derive(Debug)]
pub struct Sandbox {
    program: &'static str,
    folder: tempfile::TempDir,
    name: String,
    /// The program's whole environment.
    variables: Vec<(String, String)>,
}

impl Sandbox {
    /// `program` is `env!("CARGO_BIN_EXE_streampress-program")`, which only a test knows; `spec` is YAML below `spec:`,
    /// indented by two spaces. The pipeline, its queues and its stream are named after `name`.
    pub fn new(program: &'static str, url: &str, name: &str, spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: {name}}}\nspec:\n\
             \x20 aws: {{endpointURL: \"{url}\"}}\n\
             \x20 transport:\n\
             \x20   filesQueue: {{name: {name}-files.fifo}}\n\
             \x20   chunksQueue: {{name: {name}-chunks.fifo}}\n\
             \x20   receiptsQueue: {{name: {name}-receipts.fifo}}\n\
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

    /// Replaces the environment, the credentials included.
    pub fn with_variables(self, variables: &[(&str, &str)]) -> Self {
        Self {
            variables: owned(variables),
            ..self
        }
    }

    /// The environment of the Python original's container: no YAML, only variables.
    pub fn legacy(program: &'static str, variables: &[(&str, &str)]) -> Self {
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

    /// A path in the folder that /data stands for with `--aws`.
    pub fn data(&self, name: &str) -> PathBuf {
        self.path("streampress-data").join(&self.name).join(name)
    }

    /// Writes a file and creates the folders above it.
    pub fn write(&self, path: &Path, content: impl AsRef<[u8]>) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders can be created");
        fs::write(path, content).expect("a file can be written");
    }

    /// The files of a folder of the data, by name, without unfinished ones.
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

    /// A command with the sandbox's environment and nothing of the machine's.
    pub fn command(&self, args: &[&str]) -> Command {
        self.prepare(Command::new(self.program), args)
    }

    fn prepare(&self, mut command: Command, args: &[&str]) -> Command {
        command
            .current_dir(self.folder.path())
            .args(args)
            .env_clear()
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> CommandOutput {
        let output = self.command(args).output().expect("the program starts");
        CommandOutput::of(output)
    }

    /// Starts a command; its log is `<log>` in the folder.
    pub fn start(&self, log: &str, args: &[&str]) -> RunningProgram {
        self.start_command(log, self.command(args))
    }

    /// Starts a command within a cgroup, by the path of its `cgroup.procs`: its limits hold from the first byte.
    pub fn start_within(&self, cgroup: &Path, log: &str, args: &[&str]) -> RunningProgram {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(cgroup)
            .arg(self.program);
        self.start_command(log, self.prepare(shell, args))
    }

    /// Starts a command of [`Sandbox::command`].
    pub fn start_command(&self, log: &str, mut command: Command) -> RunningProgram {
        let path = self.path(log);
        let file = fs::File::create(&path).expect("a log file");
        let child = command
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the program starts");
        RunningProgram { child, log: path }
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
pub struct CommandOutput {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandOutput {
    fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Standard output of a command that must have ended with 0.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct RunningProgram {
    child: Child,
    log: PathBuf,
}

impl RunningProgram {
    /// Its log so far.
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
        assert!(sent.expect("kill runs").success(), "the signal was refused");
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        let ended = self.child.try_wait().expect("our own child can be asked");
        ended.is_none()
    }

    /// Waits for its end and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// Sends SIGTERM, waits and returns the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.wait()
    }

    /// Its HTTP response at `path`, if it was started with `--listen 127.0.0.1:0`.
    pub fn get(&self, path: &str) -> String {
        let address = eventually_blocking("it logs its address", || {
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
        let mut response = String::new();
        connection
            .read_to_string(&mut response)
            .expect("a response");
        response
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a metric over its labels; 0 if the page has none.
pub fn metric(page: &str, name: &str) -> f64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
