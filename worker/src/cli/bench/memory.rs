//! This process's resident memory, as Linux reports it; unknown on other systems.

/// Resets the peak; returns the bytes resident now.
pub(super) fn reset_peak() -> Option<u64> {
    // Section 3.4 of the kernel's proc documentation: 5 resets the peak.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    field("VmRSS:")
}

/// The most bytes resident since then.
pub(super) fn peak() -> Option<u64> {
    field("VmHWM:")
}

fn field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
