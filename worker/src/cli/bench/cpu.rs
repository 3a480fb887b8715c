//! This process's processor time.

use std::sync::OnceLock;
use std::time::Instant;

/// Ticks of the kernel's counters in a second, the same on every Linux.
const TICKS: f64 = 100.0;

/// Seconds that this process's threads have run, ended ones included; where the system does not say, seconds that have
/// passed.
pub(super) fn seconds() -> f64 {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    let started = STARTED.get_or_init(Instant::now);
    by_the_kernel().unwrap_or_else(|| started.elapsed().as_secs_f64())
}

fn by_the_kernel() -> Option<f64> {
    let line = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold spaces. 12 and 13 fields after it: user and system time.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let before = seconds();
        let mut hash = blake3::hash(b"");
        while seconds() < before + 0.03 {
            hash = blake3::hash(hash.as_bytes());
        }
        assert!(seconds() > before);
    }
}
