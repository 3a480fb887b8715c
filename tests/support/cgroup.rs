//! Control groups with a memory limit. Making them needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sandbox::RunningProgram;

/// A control group whose processes the kernel kills above a limit of memory; removed when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates it below the root of the memory controller, in either version of control groups.
    pub fn new(name: &str, limit_bytes: u64) -> Self {
        let name = format!("streampress-memory-{}-{name}", std::process::id());
        let (path, limit) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max")
        } else {
            let path = Path::new("/sys/fs/cgroup/memory").join(name);
            (path, "memory.limit_in_bytes")
        };
        fs::create_dir(&path).expect("a control group can be created; run this as root");
        let group = Self(path);
        fs::write(group.0.join(limit), limit_bytes.to_string()).expect("limits can be set");
        group
    }

    /// Where a process writes its id to enter.
    pub fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may need a moment to remove its processes.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            // Between two attempts.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The peak resident memory of a process in bytes. Panics where it has ended, as when its control group's limit was reached.
pub fn peak_memory(process: &RunningProgram) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
    let peak = status.ok().and_then(|status| peak_in(&status));
    peak.unwrap_or_else(|| panic!("the process was killed:\n{}", process.log()))
}

/// The peak of resident memory in the text of `/proc/PID/status`, in bytes; none of a process that has ended.
pub fn peak_in(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
