//! Whether what a process is about to do fits its limit of open files (`ulimit -n`). Without some of them a command ends in the
//! middle, and a role leaves files out or tries them again and again, so that it is compared before anything begins.

use std::fs;

use super::process_limits::soft_limit;

/// What a process opens beside what was open when it began. Measured with the most that was seen open at once on Linux, and with
/// a margin where that depends on how the work of many threads meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileUse {
    /// It packs or unpacks one file: input, output and its folder, and the signals' runtime (seen: 8).
    OneFile,
    /// It opens a pipeline's transport for a moment (seen: 15).
    Transport,
    /// It runs roles: transport, report, and the files in progress (seen: 76 with small files, and 2 for each thread).
    Roles { threads: usize },
}

impl FileUse {
    fn files(self) -> u64 {
        match self {
            Self::OneFile => 8,
            Self::Transport => 24,
            Self::Roles { threads } => 128 + 2 * threads as u64,
        }
    }
}

/// A process's open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    limit: u64,
    open: u64,
}

/// The limit does not hold what a command needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have {limit} files open at once (ulimit -n), and needs {needed}: set 'ulimit -n {needed}' or more"
)]
pub(crate) struct LowFileLimit {
    limit: u64,
    needed: u64,
}

impl OpenFiles {
    /// Those of this process; `None` without a limit, or where it cannot be read.
    pub(crate) fn of_this_process() -> Option<Self> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let entries = fs::read_dir("/proc/self/fd").ok()?;
        Some(Self {
            limit: limit(&limits)?,
            // The folder itself is one.
            open: (entries.count() as u64).saturating_sub(1),
        })
    }

    /// An error where the limit does not hold them.
    pub(crate) fn ensure(self, file_use: FileUse) -> Result<(), LowFileLimit> {
        let Self { limit, open } = self;
        let needed = open.saturating_add(file_use.files());
        match limit < needed {
            true => Err(LowFileLimit { limit, needed }),
            false => Ok(()),
        }
    }
}

/// The limit, from the text of `/proc/self/limits`; `None` where it is unlimited.
fn limit(limits: &str) -> Option<u64> {
    soft_limit(limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_does_not_hold_what_is_needed_is_an_error_with_a_value_that_does() {
        let ensure = |limit, file_use| OpenFiles { limit, open: 3 }.ensure(file_use);
        assert_eq!(ensure(11, FileUse::OneFile), Ok(()));
        let low = ensure(10, FileUse::OneFile).expect_err("too low");
        let said = low.to_string();
        assert!(said.contains("may have 10 files"), "{said}");
        assert!(said.contains("set 'ulimit -n 11'"), "{said}");
        let roles = FileUse::Roles { threads: 2 };
        assert_eq!(ensure(135, roles), Ok(()));
        assert!(ensure(134, roles).is_err());
    }

    #[test]
    fn the_limit_is_read() {
        let of = |soft: &str| {
            limit(&format!(
                "Limit  Soft  Hard  Units\nMax open files   {soft}  4096  files\n"
            ))
        };
        assert_eq!((of("1024"), of("unlimited")), (Some(1024), None));
    }
}
