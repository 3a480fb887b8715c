//! Whether what a process is about to do fits its limit of address space (`ulimit -v`). An allocation beyond it ends the
//! process at once and without a word, so it is compared before anything begins.

use streampress_crds::api::pipeline::CodecEffort;

use super::memory_limit;
use super::process_limits::soft_limit;

/// A heap reserves so much, of which it may use little (glibc's HEAP_MAX_SIZE).
const HEAP_BYTES: u64 = 64 << 20;
/// Threads that allocate have heaps of their own, up to so many for each core (glibc's M_ARENA_MAX).
const HEAPS_OF_A_CORE: u64 = 8;
/// Threads that wait for files at the same time, as where many small ones share a block.
const WAITING_THREADS: u64 = 16;
/// The stacks of all threads.
const STACK_BYTES: u64 = 128 << 20;
/// Of a command without an async runtime: its threads share what is left where a heap of their own does not fit.
const PLAIN_BYTES: u64 = 24 << 20;

/// What a program has in use at its start differs from start to start, by less than this.
const START_SPREAD_BYTES: u64 = 4 << 20;

/// The seed format's encoder of LZMA takes so much whatever the file (94 MiB at preset 6), and its copies of the file so many
/// times its size.
const SEED_BYTES: u64 = 128 << 20;
const SEED_SHARE: u64 = 12;

/// What a process does with its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryUse {
    /// It packs or unpacks one file.
    OneFile,
    /// It runs roles, with an async runtime of so many threads.
    Roles { runtime_threads: usize },
}

/// A process's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressSpace {
    /// Its limit, in bytes.
    pub(crate) limit: u64,
    /// What it has in use already: the program itself.
    pub(crate) used: u64,
}

/// The limit does not hold even one block in progress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may take {} KiB of address space (ulimit -v), and one block of {block_bytes} bytes in progress needs {}: set 'ulimit -v {}' or unlimited, or use smaller blocks",
    limit.div_ceil(1024), needed.div_ceil(1024), advised_kib(*needed)
)]
pub(crate) struct LowAddressSpace {
    limit: u64,
    needed: u64,
    block_bytes: usize,
}

impl AddressSpace {
    /// That of this process; `None` without a limit, or where it cannot be read.
    pub(crate) fn of_this_process() -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        Some(Self {
            limit: limit(&read("limits")?)?,
            used: used(&read("status")?)?,
        })
    }

    /// Of the `wanted` threads that pack or unpack those that fit; an error where none does.
    pub(crate) fn threads(
        self,
        wanted: usize,
        block_bytes: usize,
        effort: CodecEffort,
        memory_use: MemoryUse,
    ) -> Result<usize, LowAddressSpace> {
        let block = (block_bytes as u64).saturating_mul(memory_limit::share(effort));
        let (fixed, each) = match memory_use {
            MemoryUse::OneFile => (PLAIN_BYTES, block),
            MemoryUse::Roles { runtime_threads } => {
                let cores = runtime_threads as u64;
                let heaps = (HEAPS_OF_A_CORE * cores).min(WAITING_THREADS + 2 * cores);
                (heaps * HEAP_BYTES + STACK_BYTES, block)
            }
        };
        let fixed = self.used.saturating_add(fixed);
        let needed = fixed.saturating_add(each);
        if self.limit < needed {
            return Err(LowAddressSpace {
                limit: self.limit,
                needed,
                block_bytes,
            });
        }
        let fit = (self.limit - fixed) / each.max(1);
        Ok(wanted.min(usize::try_from(fit).unwrap_or(usize::MAX)))
    }

    /// The largest block of which one can be unpacked.
    pub(crate) fn largest_block(self) -> usize {
        let free = self.limit.saturating_sub(self.used + PLAIN_BYTES);
        let share = memory_limit::share(CodecEffort::Balanced);
        usize::try_from(free / share).unwrap_or(usize::MAX)
    }

    /// The limit in KiB with which a file of so many bytes can be packed into the seed format, which has no blocks.
    pub(crate) fn enough_kib_for_seed(self, raw_bytes: u64) -> u64 {
        let file = raw_bytes.saturating_mul(SEED_SHARE);
        advised_kib((self.used + PLAIN_BYTES + SEED_BYTES).saturating_add(file))
    }

    /// The limit in KiB with which a block of so many bytes can be unpacked.
    pub(crate) fn enough_kib_for(self, block_bytes: u64) -> u64 {
        let block = block_bytes.saturating_mul(memory_limit::share(CodecEffort::Balanced));
        advised_kib((self.used + PLAIN_BYTES).saturating_add(block))
    }
}

/// The limit in KiB that holds so many bytes at the next start too.
fn advised_kib(needed: u64) -> u64 {
    needed.saturating_add(START_SPREAD_BYTES).div_ceil(1024)
}

/// The limit, from the text of `/proc/self/limits`; `None` where it is unlimited.
fn limit(limits: &str) -> Option<u64> {
    soft_limit(limits, "Max address space")
}

/// The address space in use, from the text of `/proc/self/status`.
fn used(status: &str) -> Option<u64> {
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn threads(limit_mib: u64, memory_use: MemoryUse) -> Result<usize, LowAddressSpace> {
        let space = AddressSpace {
            limit: limit_mib * MIB,
            used: 40 * MIB,
        };
        space.threads(4, 4 << 20, CodecEffort::Balanced, memory_use)
    }

    #[test]
    fn as_many_threads_are_used_as_fit_and_a_limit_that_holds_no_block_is_an_error() {
        let one_file = MemoryUse::OneFile;
        assert_eq!(threads(1 << 20, one_file), Ok(4));
        assert_eq!(threads(40 + 24 + 4 * 32, one_file), Ok(4));
        assert_eq!(threads(40 + 24 + 4 * 32 - 1, one_file), Ok(3));
        assert_eq!(threads(40 + 24 + 32, one_file), Ok(1));
        let low = threads(40 + 24 + 31, one_file).expect_err("no block fits");
        let said = low.to_string();
        assert!(said.contains("may take 97280 KiB"), "{said}");
        assert!(
            said.contains("needs 98304: set 'ulimit -v 102400'"),
            "{said}"
        );
        let roles = MemoryUse::Roles { runtime_threads: 2 };
        assert_eq!(threads(40 + 16 * 64 + 128 + 32, roles), Ok(1));
        assert!(threads(40 + 16 * 64 + 128 + 31, roles).is_err());
        assert_eq!(threads(1 << 20, roles), Ok(4));
    }

    #[test]
    fn the_limit_and_the_space_in_use_are_read() {
        let status = "Name:\tstreampress\nVmPeak:\t  9 kB\nVmSize:\t    3892 kB\n";
        assert_eq!(used(status), Some(3892 << 10));
        assert_eq!(used("Name:\tx\n"), None);
        let of = |soft: &str| {
            limit(&format!(
                "Limit  Soft  Hard  Units\nMax stack size  1  2  bytes\nMax address space   {soft}   unlimited   bytes\n"
            ))
        };
        assert_eq!((of("409600"), of("unlimited")), (Some(409_600), None));
    }
}
