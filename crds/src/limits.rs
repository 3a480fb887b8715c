//! Bounds that the schema, the rules and the workers share.

use std::ops::RangeInclusive;

/// What a record may hold: Kinesis takes 1 MiB with the partition key, and our header needs its place.
pub const RECORD_BYTES: RangeInclusive<u64> = (4 << 10)..=(1023 << 10);
/// The same, in words.
pub const RECORD_TEXT: &str = "from 4Ki to 1023Ki";

/// What may be packed at once: below, packing gains little; above, a decompressor needs too much memory.
pub const BLOCK_BYTES: RangeInclusive<u64> = (64 << 10)..=(64 << 20);
/// The same, in words.
pub const BLOCK_TEXT: &str = "from 64Ki to 64Mi";

/// What a generated file may be.
pub const FILE_BYTES: RangeInclusive<u64> = (1 << 10)..=(1 << 30);
/// The same, in words.
pub const FILE_TEXT: &str = "from 1Ki to 1Gi";

/// The longest pipeline name: `<name>-decompressor` must fit a label's 63 characters.
pub const NAME_CHARS: usize = 50;

/// An inline schema travels in an environment variable, which Linux bounds at 128 KiB.
pub const INLINE_SCHEMA_BYTES: usize = 64 << 10;

/// The longest queue name SQS takes.
pub const QUEUE_CHARS: usize = 80;

/// What `-dlq` adds to a queue's name.
pub const DEAD_LETTER_CHARS: usize = 4;
