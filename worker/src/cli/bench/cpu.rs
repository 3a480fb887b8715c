//! This process's processor time.

use rustix::time::{ClockId, clock_gettime};

/// Seconds that this process's threads have run, ended ones included.
pub(super) fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
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
