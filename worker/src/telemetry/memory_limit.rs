//! How many blocks may be packed at once where memory is limited, as in a pod: each takes many times its size, and the
//! number of a node's cores does not depend on a pod's memory. Without a limit all cores are used.

use std::path::Path;

use streampress_codec::hybrid;
use streampress_crds::api::pipeline::CodecEffort;

/// For the program itself, records being sent, answers being read, and the kernel's buffers of the process.
const BESIDES_BYTES: u64 = 40 << 20;

/// Memory of a block being packed, in multiples of its size (FORMAT.md, "Memory of a packer").
pub(super) fn share(effort: CodecEffort) -> u64 {
    match effort {
        CodecEffort::Fast | CodecEffort::Balanced => 8,
        CodecEffort::Max => 10,
    }
}

/// Small files that wait for a bundle, or unpacked bundles that are kept, take the memory of so many blocks.
const BUNDLE_BLOCKS: u64 = 2;

/// What one block at a time takes at most, in bytes.
pub(crate) fn least_bytes(block_bytes: usize, effort: CodecEffort) -> u64 {
    let block = (block_bytes as u64).max(1);
    besides(block) + block * share(effort)
}

/// The largest block of which one at a time fits the limit, while unpacking.
pub(crate) fn largest_block(limit: u64) -> u64 {
    limit.saturating_sub(besides(0)) / (share(CodecEffort::Balanced) + BUNDLE_BLOCKS)
}

fn besides(block: u64) -> u64 {
    BESIDES_BYTES + hybrid::PlanStore::MAX_BYTES as u64 + BUNDLE_BLOCKS * block
}

/// Threads out of `cores` that fit the limit; at least one.
pub(crate) fn threads_within(
    limit: Option<u64>,
    cores: usize,
    block_bytes: usize,
    effort: CodecEffort,
) -> usize {
    let Some(limit) = limit else {
        return cores.max(1);
    };
    let block = (block_bytes as u64).max(1);
    let fit = limit.saturating_sub(besides(block)) / (block * share(effort));
    usize::try_from(fit)
        .unwrap_or(usize::MAX)
        .clamp(1, cores.max(1))
}

/// Raw bytes of the blocks of one file that may be unpacked at once within this process's limit. The size of its blocks is
/// known only when the file is read: it may be many times the usual one.
pub(crate) fn unpacked_bytes_at_once() -> usize {
    limit().map_or(usize::MAX, unpacked_bytes_within)
}

fn unpacked_bytes_within(limit: u64) -> usize {
    let bytes = limit.saturating_sub(besides(hybrid::DEFAULT_BLOCK_BYTES as u64));
    usize::try_from(bytes / share(CodecEffort::Balanced)).unwrap_or(usize::MAX)
}

/// The lowest limit of this process's control groups, in bytes; `None` without any limit or without control groups.
pub(crate) fn limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    least(&groups, Path::new("/sys/fs/cgroup"), &read)
}

/// Of either version of control groups, in the process's own group and all above it. In a container the path may be the
/// node's; the top of the mount is then the container's group.
fn least(groups: &str, mount: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let (top, file) = if controllers.is_empty() {
            (mount.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        let group = Path::new(path.trim_start_matches('/')).to_owned();
        let limits = group.ancestors().filter_map(|group| {
            let text = read(&top.join(group).join(file))?;
            // Without a limit the file says `max`, or a number near 2^63.
            let bytes = text.trim().parse::<u64>().ok()?;
            (bytes < 1 << 62).then_some(bytes)
        });
        limits.min()
    };
    groups.lines().filter_map(of_line).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn threads(
        limit_mib: Option<u64>,
        cores: usize,
        block_mib: usize,
        effort: CodecEffort,
    ) -> usize {
        let limit = limit_mib.map(|limit| limit * MIB);
        threads_within(limit, cores, block_mib << 20, effort)
    }

    #[test]
    fn blocks_that_are_unpacked_at_once_fit_the_memory_whatever_their_size() {
        let at_once = |limit: u64, block: usize| unpacked_bytes_within(limit * MIB) / (block << 20);
        assert_eq!(at_once(512, 4), 14);
        // A single one is always unpacked.
        assert_eq!(at_once(512, 64), 0);
        assert_eq!(at_once(1200, 64), 2);
        assert_eq!(unpacked_bytes_within(0), 0);
    }

    #[test]
    fn the_largest_block_that_fits_a_limit_is_the_one_that_needs_it() {
        let limit = 100 * MIB;
        let largest = largest_block(limit) as usize;
        let least = |block| least_bytes(block, CodecEffort::Balanced);
        assert!(least(largest) <= limit && least(largest + 1) > limit);
        assert!(least(64 << 20) > limit);
    }

    #[test]
    fn as_many_threads_are_used_as_the_memory_holds_and_at_least_one() {
        use CodecEffort::{Balanced, Max};
        assert_eq!(threads(None, 8, 4, Balanced), 8);
        assert_eq!(threads(Some(4096), 8, 4, Balanced), 8);
        // 44 MiB, 2 blocks, and 8 for each thread.
        assert_eq!(threads(Some(128), 8, 4, Balanced), 2);
        assert_eq!(threads(Some(70), 8, 1, Balanced), 3);
        assert_eq!(threads(Some(69), 8, 1, Balanced), 2);
        assert_eq!(threads(Some(256), 8, 4, Balanced), 6);
        assert_eq!(threads(Some(256), 8, 4, Max), 5);
        assert_eq!(threads(Some(16), 8, 4, Balanced), 1);
        assert_eq!(threads(Some(4096), 0, 4, Balanced), 1);
    }

    fn limited(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        least(groups, Path::new("/m"), &|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_lowest_limit_of_the_group_and_those_above_counts_in_both_versions() {
        let files = [
            ("/m/memory.max", "max\n"),
            ("/m/pods/memory.max", "3000\n"),
            ("/m/pods/one/memory.max", "5000\n"),
            ("/m/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/m/memory/a/memory.limit_in_bytes", "7000\n"),
        ];
        assert_eq!(limited("0::/pods/one\n", &files), Some(3000));
        assert_eq!(limited("9:cpu,memory:/a\n8:pids:/a\n", &files), Some(7000));
        assert_eq!(limited("9:memory:/\n8:pids:/a\n", &files), None);
        // A path of the node's, as a container sees it.
        let inside = [("/m/memory.max", "4000\n")];
        assert_eq!(limited("0::/kubepods/pod1/c2\n", &inside), Some(4000));
        assert_eq!(limited("", &files), None);
    }
}
