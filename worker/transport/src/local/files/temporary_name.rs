//! Names of files and folders that are there only for a while: a prefix, random digits, and a suffix that says what it is.

use std::ffi::OsStr;

use crate::files::TEMPORARY_PREFIX;

const RANDOM_DIGITS: usize = 16;

/// A new name with this suffix.
pub(super) fn random(suffix: &str) -> String {
    format!("{TEMPORARY_PREFIX}{:016x}{suffix}", fastrand::u64(..))
}

/// Whether the name is one that [`random`] makes with this suffix.
pub(super) fn is_random(name: &OsStr, suffix: &str) -> bool {
    let digits = name
        .to_str()
        .and_then(|name| name.strip_prefix(TEMPORARY_PREFIX)?.strip_suffix(suffix));
    digits.is_some_and(|digits| {
        digits.len() == RANDOM_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}
