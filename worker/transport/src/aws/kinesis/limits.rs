//! Kinesis's limits, and the sizes that follow from them.

/// Kinesis takes five reads and five seeks a second and shard, from all readers together.
pub(super) const CALLS_PER_SECOND: f64 = 5.0;
/// One answer should hold about this much: what a shard gives out in a second.
pub(super) const ANSWER_BYTES: usize = 2 << 20;
/// The most records in one answer.
pub(super) const ANSWER_RECORDS: f64 = 10_000.0;
/// Kinesis takes partition keys of at most this many characters, and counts them with the record.
pub(super) const MAX_KEY_CHARS: usize = 256;
/// The largest record of a stream that says nothing else, in bytes.
pub(super) const DEFAULT_RECORD_BYTES: usize = 1 << 20;
/// Kinesis takes 500 records in one put request.
pub(super) const REQUEST_RECORDS: usize = 500;
/// And 10 MiB since 2025, 5 MiB before; half of that keeps memory small and costs no throughput.
pub(super) const REQUEST_BYTES: usize = 4 << 20;
