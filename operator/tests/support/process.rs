//! The operator as its own program, which can be killed, frozen and ended.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::cluster::LEASE;

/// A running operator; killed when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts one for a namespace (all where left out) that reaches the API server by this kubeconfig. Its log is
    /// `<identity>.log` in the folder.
    pub fn start(
        dir: &Path,
        identity: &str,
        kubeconfig: &str,
        namespace: Option<&str>,
        more: &[&str],
    ) -> Self {
        let config = dir.join(format!("{identity}.kubeconfig"));
        std::fs::write(&config, kubeconfig).unwrap();
        let log = File::create(dir.join(format!("{identity}.log"))).unwrap();
        let lease_namespace = namespace.unwrap_or("default");
        // STREAMPRESS_OPERATOR names another build.
        let program = std::env::var("STREAMPRESS_OPERATOR");
        let program =
            program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_streampress-operator").to_owned());
        let mut command = Command::new(program);
        command
            .args(["--lease-name", LEASE, "--lease-namespace", lease_namespace])
            .args(["--identity", identity, "--worker-image", "streampress:test"])
            .args(more)
            .env("KUBECONFIG", config)
            .envs([
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if let Some(namespace) = namespace {
            command.args(["--namespace", namespace]);
        }
        Self {
            child: command.spawn().unwrap(),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Resident memory in KiB: now, and at most so far.
    pub fn resident_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// Processor time so far, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
