//! The doors: where another process may stand on the other side. Each trait speaks our words, never an
//! SDK's, and its documentation is the contract that one test suite proves on every side
//! (`contract_tests`). Nothing in here knows what a file's bytes mean.
//!
//! - [`Queue`] and [`ChunkStream`]: SQS FIFO and Kinesis, or embedded (`local`).
//! - [`SlotLock`]: a Kubernetes Lease, or embedded.
//! - [`Files`]: a folder, or a bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(any(test, feature = "testing"))]
pub mod contract_tests;
pub mod error;
#[cfg(feature = "kubernetes")]
pub mod lease;
#[cfg(feature = "local")]
pub mod local;
pub mod slot_guard;
pub mod solo;

pub use error::{TransportError, TransportResult};
pub use slot_guard::{Ledger, SlotGuard};

/// A message on its way into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Messages of one group are handled one after another, in the order sent. At most 128 characters of
    /// `[A-Za-z0-9!-/:-@[-`{-~]`, as SQS has it.
    pub group: String,
    /// A second message with the same id within five minutes is accepted and dropped. Same limits as `group`.
    pub dedup_id: String,
    /// Text of at most 1 MiB.
    pub body: String,
    /// At most [`Outgoing::MAX_ATTRIBUTES`], none empty.
    pub attributes: BTreeMap<String, String>,
}

impl Outgoing {
    /// The largest message: body and attributes together, in bytes.
    pub const MAX_BYTES: usize = 1024 * 1024;
    /// The most characters of a group or a deduplication id.
    pub const MAX_ID_CHARS: usize = 128;
    /// The most attributes. Three of SQS's ten are left for a dead letter's reason, detail and group.
    pub const MAX_ATTRIBUTES: usize = 7;

    /// Refuses what no side could take, so that both sides refuse the same.
    pub fn check(&self) -> TransportResult<()> {
        let refuse = |why: String| Err(TransportError::Invalid(why));
        for (what, id) in [("group", &self.group), ("deduplication id", &self.dedup_id)] {
            let fits = (1..=Self::MAX_ID_CHARS).contains(&id.len());
            if !fits || !id.bytes().all(|b| b.is_ascii_graphic()) {
                return refuse(format!(
                    "the message's {what} {id:?} is not 1 to 128 printable ASCII characters without spaces"
                ));
            }
        }
        if self.attributes.len() > Self::MAX_ATTRIBUTES {
            return refuse(format!(
                "the message has more than {} attributes",
                Self::MAX_ATTRIBUTES
            ));
        }
        let attributes = self
            .attributes
            .iter()
            .flat_map(|(name, value)| [name, value]);
        if attributes.clone().any(String::is_empty) {
            return refuse("the message has an attribute with an empty name or value".into());
        }
        let texts = || attributes.clone().chain([&self.body]);
        let bytes: usize = texts().map(String::len).sum();
        if self.body.is_empty() || bytes > Self::MAX_BYTES {
            return refuse(format!(
                "the message has {bytes} bytes; 1 to {} fit",
                Self::MAX_BYTES
            ));
        }
        let unfit = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
        if texts().any(|text| text.contains(unfit)) {
            return refuse("the message has a control character, which SQS does not take".into());
        }
        Ok(())
    }
}

/// A message in hand: hidden from everybody else until its hiding time runs out.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Stays the same over redeliveries.
    pub message_id: String,
    /// See [`Outgoing::group`].
    pub group: String,
    /// See [`Outgoing::dedup_id`].
    pub dedup_id: String,
    /// See [`Outgoing::body`].
    pub body: String,
    /// See [`Outgoing::attributes`].
    pub attributes: BTreeMap<String, String>,
    /// How often it has been received, this time included: 1 at the first.
    pub receive_count: u32,
    /// When it was received, or a little before. SQS hides a message for 12 hours from then at most.
    pub received_at: Instant,
    /// Until when it is surely hidden, as of its being handed out.
    pub hidden_until: Instant,
    /// What extend, delete and release ask for.
    pub receipt: Receipt,
}

impl Delivery {
    /// The group that it was sent to: a dead letter carries it along.
    pub fn original_group(&self) -> &str {
        self.attributes.get(ATTR_GROUP).unwrap_or(&self.group)
    }
}

/// Stands for one delivery of one message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

/// How much waits in a queue. Unknown is an error of [`Queue::depth`], never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Can be received now, or once their group is free.
    pub visible: u64,
    /// In somebody's hands.
    pub in_flight: u64,
    /// Not yet visible.
    pub delayed: u64,
}

impl Depth {
    /// All messages that are not yet done.
    pub fn total(&self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
}

/// Attribute of a dead letter: the reason, one word (`HashMismatch`).
pub const ATTR_REASON: &str = "streampress-reason";
/// Attribute of a dead letter: one sentence for a person.
pub const ATTR_DETAIL: &str = "streampress-detail";
/// The message attribute that carries the W3C trace context, named as the recommendation names the header.
pub const ATTR_TRACEPARENT: &str = "traceparent";
/// Attribute of a dead letter: the group that it had.
pub const ATTR_GROUP: &str = "streampress-group";

/// The [`ATTR_REASON`] of a message that was received more often than its queue allows.
pub const REASON_RECEIVED_TOO_OFTEN: &str = "ReceivedTooOften";

/// A FIFO queue: at least once, in order per group, hidden while held, dead-letter after N receives.
///
/// Contract, both sides:
/// - While one message of a group is hidden, none of that group is received, and a group's messages come in
///   the order sent.
/// - A received message is hidden for [`Queue::visibility`]; [`Queue::extend`] counts from now. When the time runs
///   out it is received again with `receive_count` one higher and a new receipt; the old receipt is
///   [`TransportError::Stale`] for delete, extend and release.
/// - A message received more than `max_receive_count` times goes to the dead-letter queue instead; SQS leaves it in its
///   group there.
/// - What `send` accepted survives the end of this process and of the machine.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug {
    /// A name for logs.
    fn name(&self) -> &str;
    /// How long a received message stays hidden.
    fn visibility(&self) -> Duration;
    /// Sends all of `messages`, in order. On an error some may have been sent: sending the same again is
    /// harmless, since deduplication ids follow from content.
    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()>;
    /// Up to `max` messages (1 to 10); waits up to `wait` for the first. Empty when there is none.
    /// Dropping the future takes no message along.
    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>>;
    /// Hides the message for `hidden_for` from now.
    async fn extend(&self, receipt: &Receipt, hidden_for: Duration) -> TransportResult<()>;
    /// The message is done.
    async fn delete(&self, receipt: &Receipt) -> TransportResult<()>;
    /// Gives the message back: it can be received again at once, its `receive_count` one higher. Whether the receive
    /// also counts towards `max_receive_count` is the side's: SQS counts it, embedded does not.
    async fn release(&self, receipt: &Receipt) -> TransportResult<()>;
    /// Puts the message on the dead-letter queue with [`ATTR_REASON`] and [`ATTR_DETAIL`], then deletes it here. There it
    /// is a group of its own, so that none keeps others from being received; [`ATTR_GROUP`] says which it had.
    /// A crash between the two leaves both: burying twice is one dead letter (deduplicated).
    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: &str,
        detail: &str,
    ) -> TransportResult<()>;
    /// Waits, at the end of a process, until nothing that was received but not handed out is in our hands, at most
    /// `patience`. False when that took longer: it then stays hidden for its time. Sides that hold nothing answer at once.
    async fn drain(&self, patience: Duration) -> bool {
        let _ = patience;
        true
    }
    /// How much waits here.
    async fn depth(&self) -> TransportResult<Depth>;
    /// The queue that dead letters go to; `None` on a dead-letter queue itself.
    fn dead_letters(&self) -> Option<Arc<dyn Queue>>;
}

/// A record on its way into the stream.
#[derive(Debug, Clone)]
pub struct Record {
    /// Records are spread over the shards by a hash of this; empty is any shard.
    pub key: String,
    /// At most [`ChunkStream::max_record_bytes`].
    pub data: Bytes,
}

/// A sequence number: a decimal number of up to 129 digits, ordered as a number, not as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Sequence(String);

impl Sequence {
    /// `None` unless it is 1 to 129 decimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=129).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let trimmed = text.trim_start_matches('0');
        fits.then(|| {
            Self(if trimmed.is_empty() {
                "0".into()
            } else {
                trimmed.into()
            })
        })
    }

    /// The digits, without leading zeros.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for Sequence {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a sequence number is 1 to 129 decimal digits"))
    }
}

/// Where a record lies in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The shard that took the record, as the stream named it.
    pub shard: String,
    /// Its place there.
    #[serde(rename = "seq")]
    pub sequence: Sequence,
    /// How many bytes the record has; 0 where that is not known, as in the Python original's messages.
    pub bytes: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shard, self.sequence.as_str())
    }
}

/// A metered stream of records that keeps them for a time.
///
/// Contract, both sides: what `append` answered is durable and `fetch` gives the same bytes back until the
/// retention time has passed, then [`TransportError::Expired`]. A record may be written twice after a lost response:
/// only the position answered counts. Limits, batches, retries, iterators and resharding stay inside.
#[async_trait]
pub trait ChunkStream: Send + Sync + fmt::Debug {
    /// The largest record it takes, in bytes.
    fn max_record_bytes(&self) -> usize;
    /// Writes all records; the answer is index-aligned.
    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>>;
    /// Reads records back; the answer is index-aligned.
    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>>;
    /// What went through this handle so far.
    fn counts(&self) -> StreamCounts;
}

/// What went through a stream so far. At any time: sent = acknowledged + retried + dead + under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Records in put requests, however often.
    pub sent: u64,
    /// Records taken.
    pub acknowledged: u64,
    /// Records that failed and were or will be sent again.
    pub retried: u64,
    /// Of the failed, refused for their shard's rate.
    pub throttled: u64,
    /// Records given up.
    pub dead: u64,
    /// Records in requests that are not answered yet.
    pub under_way: u64,
    /// Answers to reads of a shard.
    pub reads: u64,
    /// Times a place in a shard was looked for.
    pub seeks: u64,
    /// Bytes of all records read.
    pub bytes_read: u64,
    /// Bytes of records that somebody asked for.
    pub bytes_served: u64,
    /// Reads and seeks refused for their shard's rate.
    pub reads_throttled: u64,
}

/// The slots of one role: a worker acts only while it holds one of them, and holds it only while there is work.
///
/// Contract, both sides: at most one holder per slot believes itself to be one, but for the residue that
/// no lease can exclude (handlers are idempotent); a holder that cannot renew is told by [`SlotGuard::lost`] before
/// anyone else may take over; a holder that died is followed within the lease time (embedded: at once, since
/// its file lock falls with its process); expiry is judged by the observer's monotonic clock only.
#[async_trait]
pub trait SlotLock: Send + Sync + fmt::Debug {
    /// Takes a free slot, if there is one now.
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>>;
    /// Whether all slots are held by others, as far as seen; standbys wait while this is so, without polling a queue.
    async fn all_held_by_others(&self) -> TransportResult<bool>;
    /// The sum of all slots' ledgers.
    async fn ledger(&self) -> TransportResult<Ledger>;
}

/// A file at a location, as far as a listing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to its location, `/` between folders.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// The version: the file's modification time.
    pub modified: SystemTime,
}

/// A file's name below its location: relative, `/` between folders, never leaving the location.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct FileName(String);

impl FileName {
    /// The longest name in bytes: what Linux takes as a path, less room for the location.
    pub const MAX_BYTES: usize = 3072;

    /// Refuses what could leave the location or cannot be a file: empty, absolute, `.`, `..`, empty parts, NUL,
    /// parts over 255 bytes.
    pub fn parse(name: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            Err(format!(
                "file name {name:?} {why}; give a name inside the location"
            ))
        };
        if name.is_empty() || name.len() > Self::MAX_BYTES {
            return refuse("is empty or longer than 3072 bytes");
        }
        if name.contains('\0') {
            return refuse("has a NUL byte");
        }
        for part in name.split('/') {
            match part {
                "" => return refuse("is absolute or has an empty part"),
                "." | ".." => return refuse("has a '.' or '..' part"),
                _ if part.len() > 255 => return refuse("has a part over 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A location that holds files: a folder, or a bucket with a prefix. Blocking: call it from a blocking thread.
///
/// Contract, both sides: a write is visible whole or not at all, and survives power loss once `commit` returned;
/// odd names (spaces, `#`, `%`, unicode, 255 bytes a part) are kept; our own unfinished files are never listed.
pub trait Files: Send + Sync + fmt::Debug {
    /// The location as the user wrote it.
    fn location(&self) -> &str;
    /// All files below the location, folders within included, in name order.
    fn list(&self) -> io::Result<Vec<FileEntry>>;
    /// `None` when there is no such file.
    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>>;
    /// Reads from the start.
    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>>;
    /// Begins a new version of the file; nothing is visible before [`PendingFile::commit`].
    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>>;
    /// As [`Files::create`], when the modification time that `commit` will be given is known already. A large file in
    /// a bucket can carry it only from its start; without, it has the bucket's own time.
    fn create_version(
        &self,
        name: &FileName,
        modified: SystemTime,
    ) -> io::Result<Box<dyn PendingFile>> {
        let _ = modified;
        self.create(name)
    }
    /// Removes the file; no error when it is gone already.
    fn remove(&self, name: &FileName) -> io::Result<()>;
    /// Renames within the location; replaces what is there.
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()>;
}

/// A file being written, invisible until committed. Dropping it takes everything back.
pub trait PendingFile: Write + Send {
    /// Makes the file visible as a whole, with this modification time.
    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()>;
}
