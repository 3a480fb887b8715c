//! How many messages a consumer receives and has in progress: pure functions of numbers and messages.
//!
//! Small files mostly wait for the transport. They are received by the ten, so that one request brings what ten would, and
//! files that follow each other on the stream are in one process and read in one call.

use crate::message::{FileRef, Manifest, Message, Records};

/// SQS's most in one receive.
pub(crate) const MAX_RECEIVE: usize = 10;
/// Small files in progress at most: what two receives bring, and what is not done of those before.
pub(crate) const MAX_SMALL_IN_PROGRESS: usize = 25;
/// A small file to pack is this part of a block or less: it is packed sooner than its records and its message are answered.
const SMALL_PART: u64 = 16;
/// Most of a small file's record, a little more than the usual `recordSize`.
const MAX_SMALL_PACKED_BYTES: u64 = 512 << 10;

/// A consumer's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batching {
    /// Files in progress at once, unless they are small.
    pub(crate) threads: usize,
    /// One file after another, however small.
    pub(crate) strict: bool,
    /// Small files in progress at most.
    pub(crate) most_small: usize,
}

impl Batching {
    /// Messages to receive while none is in progress.
    pub(crate) fn first_receive(self) -> usize {
        self.threads.clamp(1, MAX_RECEIVE)
    }

    /// Messages to receive next; `small` says whether those received last were all small.
    pub(crate) fn next_receive(self, in_progress: usize, small: bool) -> usize {
        let limit = self.threads.max(1);
        if self.strict || !small {
            return limit.saturating_sub(in_progress).min(MAX_RECEIVE);
        }
        if in_progress + MAX_RECEIVE <= limit.max(self.most_small) {
            MAX_RECEIVE
        } else {
            0
        }
    }

    /// Whether a received message may start now. `all_small` says whether all messages of its receive are small: a large
    /// file among small ones waits for a thread in the queue.
    pub(crate) fn may_start(self, in_progress: usize, all_small: bool, is_small: bool) -> bool {
        all_small || is_small || in_progress < self.threads.max(1)
    }
}

/// Whether a receive that brought so many messages shows that more wait: a queue may answer with fewer than it has. One
/// message alone never does.
pub(crate) fn is_backlog(received: usize, requested: usize) -> bool {
    received > 1 && 2 * received >= requested
}

/// Whether the message is small work for a compressor or decompressor whose blocks have `block_bytes`.
pub(crate) fn is_small(message: &Message, block_bytes: u64) -> bool {
    match message {
        Message::Announcement(it) => is_small_source(&it.file, block_bytes),
        Message::Manifest(it) => is_small_packed(it, block_bytes),
        Message::Receipt(_) => true,
        Message::LegacyAnnouncement(_) | Message::LegacyManifest(_) | Message::S3Event(_) => false,
    }
}

/// Whether the file is a small part of a block.
pub(crate) fn is_small_source(file: &FileRef, block_bytes: u64) -> bool {
    file.bytes <= block_bytes / SMALL_PART
}

/// Whether the file is one block in one record that may wait in memory: it is unpacked sooner than the record is read. A
/// file in a bundle is as small as its source was.
pub(crate) fn is_small_packed(manifest: &Manifest, block_bytes: u64) -> bool {
    if manifest.bundle.is_some() {
        return is_small_source(&manifest.file, block_bytes);
    }
    let Records::Inline(positions) = &manifest.records else {
        return false;
    };
    let packed_bytes: u64 = positions.iter().map(|at| u64::from(at.bytes)).sum();
    positions.len() <= 1
        && packed_bytes <= MAX_SMALL_PACKED_BYTES
        && manifest.file.bytes <= block_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAXED: Batching = Batching {
        threads: 2,
        strict: false,
        most_small: MAX_SMALL_IN_PROGRESS,
    };

    #[test]
    fn large_files_are_received_for_free_threads_only() {
        for (in_progress, receive) in [(0, 2), (1, 1), (2, 0), (9, 0)] {
            assert_eq!(RELAXED.next_receive(in_progress, false), receive);
        }
        let many = Batching {
            threads: 64,
            ..RELAXED
        };
        assert_eq!(
            (many.first_receive(), many.next_receive(3, false)),
            (10, 10)
        );
    }

    #[test]
    fn small_files_are_received_by_the_ten_or_not_at_all() {
        for (in_progress, receive) in [(0, 10), (15, 10), (16, 0), (25, 0)] {
            assert_eq!(RELAXED.next_receive(in_progress, true), receive);
        }
        let bundles = Batching {
            most_small: 74,
            ..RELAXED
        };
        for (in_progress, receive) in [(60, 10), (64, 10), (65, 0)] {
            assert_eq!(bundles.next_receive(in_progress, true), receive);
        }
    }

    #[test]
    fn a_receive_that_is_almost_full_shows_a_backlog_and_a_lone_message_never_does() {
        for (received, requested, shows) in [
            (0, 10, false),
            (1, 1, false),
            (1, 2, false),
            (2, 2, true),
            (4, 10, false),
            (5, 10, true),
            (10, 10, true),
        ] {
            assert_eq!(is_backlog(received, requested), shows, "{received}");
        }
    }

    #[test]
    fn strict_ordering_receives_for_free_threads_however_small_the_files() {
        let strict = Batching {
            threads: 1,
            strict: true,
            ..RELAXED
        };
        assert_eq!(strict.first_receive(), 1);
        assert_eq!(
            (strict.next_receive(0, true), strict.next_receive(1, true)),
            (1, 0)
        );
    }

    #[test]
    fn a_large_file_among_small_ones_waits_for_a_thread() {
        assert!(RELAXED.may_start(1, false, false));
        assert!(!RELAXED.may_start(2, false, false));
        assert!(RELAXED.may_start(2, false, true));
        assert!(RELAXED.may_start(9, true, true));
    }
}
