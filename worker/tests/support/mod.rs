//! Runs the built `streampress` as a user does, in a folder of its own.
#![expect(dead_code, reason = "each test program uses some of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A folder with a pipeline's YAML in it.
pub struct WorkFolder {
    folder: tempfile::TempDir,
}

impl WorkFolder {
    /// `spec` is the YAML below `spec:`, indented by two spaces.
    pub fn with_spec(spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let yaml = format!(
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {{name: test}}\nspec:\n{spec}\n"
        );
        fs::write(folder.path().join("pipeline.yaml"), yaml).expect("the YAML can be written");
        Self { folder }
    }

    /// A generator of small files, as fast as it can.
    pub fn with_generator(files: u32) -> Self {
        Self::with_spec(&format!(
            "  generator: {{schema: {{example: stock-market}}, fileSize: 64Ki, filesPerMinute: 0, files: {files}}}"
        ))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in the folder, without the machine's environment variables.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_under(&[], args)
    }

    /// The same under another program, such as `nice`.
    pub fn command_under(&self, outer: &[&str], args: &[&str]) -> Command {
        let all = [outer, &[env!("CARGO_BIN_EXE_streampress")], args].concat();
        let mut command = Command::new(all[0]);
        command
            .current_dir(self.folder.path())
            .args(&all[1..])
            .env_clear()
            // Tells the program of tests/mutations which mutation is in effect.
            .envs(std::env::var_os("STREAMPRESS_MUTATION").map(|it| ("STREAMPRESS_MUTATION", it)))
            .stdin(Stdio::null());
        command
    }

    /// The same as a user who may not read every file: the superuser gives that power up.
    pub fn ordinary_command(&self, args: &[&str]) -> Command {
        if !rustix::process::geteuid().is_root() {
            return self.command(args);
        }
        let powers = "-dac_override,-dac_read_search";
        let setpriv = [
            "/usr/bin/setpriv",
            "--bounding-set",
            powers,
            "--inh-caps",
            powers,
        ];
        self.command_under(&setpriv, args)
    }

    /// Runs to the end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("streampress starts")
    }

    /// Types the last command that a program printed.
    pub fn type_last(&self, printed: &str) -> Output {
        const NAME: &str = ": streampress ";
        let lines = printed.lines().rev();
        let command = lines.filter_map(|line| line.rsplit_once(NAME)).next();
        let (_, words) = command.unwrap_or_else(|| panic!("no command in {printed}"));
        let program = Path::new(env!("CARGO_BIN_EXE_streampress"));
        Command::new("/bin/sh")
            .current_dir(self.folder.path())
            .args(["-c", &format!("streampress {words}")])
            .env_clear()
            .env("PATH", program.parent().expect("a folder"))
            .stdin(Stdio::null())
            .output()
            .expect("the shell starts")
    }

    /// Runs to the end and must succeed.
    pub fn run_well(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?} ended with {}\n{}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// `run --json`, read.
    pub fn run_summary(&self, args: &[&str]) -> Value {
        let all = [&["run", "pipeline.yaml", "--data", "data", "--json"], args].concat();
        serde_json::from_str(&self.run_well(&all)).expect("the summary is JSON")
    }

    /// Starts and returns at once.
    pub fn start(&self, args: &[&str]) -> Running {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("a log file");
        let child = self
            .command(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("streampress starts");
        Running { child }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders can be made");
        fs::write(path, content).expect("a file can be written");
    }

    pub fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.path(folder), "", &mut found);
        found
    }
}

/// Every file below `folder` with its content; unfinished files of Streampress are left out.
fn collect(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(|entry| entry.expect("a readable folder")) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else if !name.contains(".streampress-") {
            found.insert(name, fs::read(entry.path()).expect("a readable file"));
        }
    }
}

/// A process that ends with the test.
pub struct Running {
    child: Child,
}

impl Running {
    /// As `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("and waited for");
    }

    /// As Ctrl-C, or a pod's end; returns the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success(), "the signal was not taken");
        self.child.wait().expect("it ends").code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("our own child can be asked")
            .is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
