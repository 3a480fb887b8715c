//! Bounds that the schema, the rules and the workers share.

use std::ops::RangeInclusive;

/// Bytes of a record: Kinesis takes 1 MiB with the partition key, of which the header needs a part.
pub(crate) const RECORD_BYTES: RangeInclusive<u64> = (4 << 10)..=(1023 << 10);
/// The same, in words.
pub(crate) const RECORD_TEXT: &str = "from 4Ki to 1023Ki";

/// Bytes of a block: smaller ones pack badly, larger ones need too much memory in a decompressor.
pub const BLOCK_BYTES: RangeInclusive<u64> = (64 << 10)..=(64 << 20);
/// The same, in words.
pub(crate) const BLOCK_TEXT: &str = "from 64Ki to 64Mi";

/// Bytes of a generated file.
pub(crate) const FILE_BYTES: RangeInclusive<u64> = (1 << 10)..=(1 << 30);

/// Characters of the longest pipeline name: `<name>-decompressor` must fit a label's 63 characters.
pub(crate) const NAME_CHARS: usize = 50;

/// Bytes of the longest inline schema: it is part of an environment variable, which Linux limits to 128 KiB.
pub(crate) const INLINE_SCHEMA_BYTES: usize = 64 << 10;

/// Characters of the longest queue name that SQS takes.
pub(crate) const QUEUE_CHARS: usize = 80;

/// Characters that `-dlq` adds to a queue's name.
pub(crate) const DEAD_LETTER_CHARS: usize = 4;

/// Seconds that a scanned file must hold still: a writer that flushes its lines pauses for less.
pub(crate) const SETTLE_SECONDS: u32 = 10;

/// The same for a file that will be renamed or deleted, which takes it from its writer.
pub(crate) const NOT_KEPT_SETTLE_SECONDS: u32 = 60;
