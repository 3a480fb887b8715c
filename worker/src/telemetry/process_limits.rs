//! The limits of this process, from the text of `/proc/self/limits`.

/// The soft limit with this name, such as `Max open files`; `None` where it is unlimited or missing.
pub(super) fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let columns = limits.lines().find_map(|line| line.strip_prefix(name))?;
    columns.split_whitespace().next()?.parse().ok()
}
