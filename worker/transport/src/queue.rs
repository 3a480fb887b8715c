//! The contract of a FIFO queue.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use streampress_crds::DeadLetterReason;
use tokio::time::Instant;

use crate::{FileVersion, TransportError, TransportResult};

/// A message to be sent.
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
    pub(crate) const MAX_ID_CHARS: usize = 128;
    /// The most attributes. Four of SQS's ten are left for a dead letter's reason, detail, group and version.
    pub const MAX_ATTRIBUTES: usize = 6;

    /// Refuses what SQS would refuse, so that all implementations refuse the same.
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

/// A received message: invisible to other receivers until its visibility timeout runs out.
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
    /// The queue's name and creation time, and the sequence number that the queue gave to the message. Stays the same
    /// over redeliveries, and grows in the order sent.
    pub sent_as: FileVersion,
    /// When it was sent, milliseconds since 1970.
    pub sent_millis: u64,
    /// How often it has been received, this time included: 1 at the first.
    pub receive_count: u32,
    /// When it was received, or a little before. SQS keeps a message invisible for 12 hours from then at most.
    pub received_at: Instant,
    /// Until when it is certainly invisible, as of its delivery.
    pub visibility_deadline: Instant,
    /// What extend, delete and release require.
    pub receipt: Receipt,
}

impl Delivery {
    /// The group that it was sent to: a dead letter carries it in an attribute.
    pub fn original_group(&self) -> &str {
        self.attributes.get(ATTR_GROUP).unwrap_or(&self.group)
    }

    /// The version of the file that it is about: as [`ATTR_VERSION`] says, or the message's own place in its queue.
    pub fn version(&self) -> FileVersion {
        let carried = self.attributes.get(ATTR_VERSION);
        carried
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| self.sent_as.clone())
    }
}

/// Identifies one delivery of one message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub String);

/// How many messages a queue holds. Unknown is an error of [`Queue::depth`], never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Can be received now, or once the messages before them in their group are done.
    pub visible: u64,
    /// Received and not yet deleted.
    pub in_flight: u64,
    /// Not yet visible.
    pub delayed: u64,
}

impl Depth {
    /// All messages that are not yet done.
    pub fn total(self) -> u64 {
        self.visible
            .saturating_add(self.in_flight)
            .saturating_add(self.delayed)
    }
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of fault it is.
    pub reason: DeadLetterReason,
    /// One sentence for a person.
    pub detail: String,
}

impl Failure {
    /// A failure for this reason.
    pub fn new(reason: DeadLetterReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// Attribute of a dead letter: the [`DeadLetterReason`].
pub const ATTR_REASON: &str = "streampress-reason";
/// Attribute of a dead letter: one sentence for a person.
pub const ATTR_DETAIL: &str = "streampress-detail";
/// The message attribute that carries the W3C trace context, named as the recommendation names the header.
pub const ATTR_TRACEPARENT: &str = "traceparent";
/// Attribute of a dead letter: the group that it had.
pub const ATTR_GROUP: &str = "streampress-group";
/// Attribute of a repeated message, a dead letter too: the [`FileVersion`] of the first announcement. A message without it
/// is its own first announcement.
pub const ATTR_VERSION: &str = "streampress-version";

/// A FIFO queue: at least once, in order per group, with visibility timeout and dead-letter queue.
///
/// Contract of every implementation:
/// - While one message of a group is in flight, none of that group is received, and a group's messages come in the order
///   sent.
/// - A received message is invisible for [`Queue::visibility_timeout`]; [`Queue::extend`] counts from now. When the time
///   runs out it is received again with `receive_count` one higher and a new receipt; the old receipt is
///   [`TransportError::Stale`] for delete, extend and release.
/// - A message received more than `max_receive_count` times goes to the dead-letter queue instead; SQS leaves it in its
///   group there.
/// - What `send` accepted survives the end of this process and of the machine.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug {
    /// A name for logs.
    fn name(&self) -> &str;
    /// How long a received message stays invisible.
    fn visibility_timeout(&self) -> Duration;
    /// Sends all of `messages`, in order. On an error some may have been sent: sending the same again is harmless,
    /// since deduplication ids follow from content.
    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()>;
    /// As [`Queue::send`]; answers also which version each message announces, index-aligned, where the service tells it:
    /// not for every message that it dropped as a duplicate.
    async fn send_numbered(
        &self,
        messages: Vec<Outgoing>,
    ) -> TransportResult<Vec<Option<FileVersion>>> {
        let count = messages.len();
        self.send(messages).await?;
        Ok(vec![None; count])
    }
    /// Up to `max` messages (1 to 10); waits up to `wait` for the first. Empty when there is none. Dropping the future loses
    /// no message.
    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>>;
    /// Keeps the message invisible for `visibility_timeout` from now.
    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()>;
    /// The message is done.
    async fn delete(&self, receipt: &Receipt) -> TransportResult<()>;
    /// Makes the message visible at once: it is received again with `receive_count` one higher. Whether the receive also
    /// counts towards `max_receive_count` depends on the implementation: SQS counts it, embedded does not.
    async fn release(&self, receipt: &Receipt) -> TransportResult<()>;
    /// Sends the message to the dead-letter queue with [`ATTR_REASON`], [`ATTR_DETAIL`] and [`ATTR_VERSION`], then deletes
    /// it here. There it is a group of its own, so that no dead letter blocks another; [`ATTR_GROUP`] says which it had. A
    /// crash between
    /// the two leaves both; doing it twice makes one dead letter (deduplicated).
    async fn dead_letter(&self, delivery: &Delivery, failure: &Failure) -> TransportResult<()>;
    /// At the end of a process, waits until every message that was received and not delivered is released, at most
    /// `patience`. False when that took longer: such a message then stays invisible for its visibility timeout. An
    /// implementation without messages of that kind answers at once.
    async fn drain(&self, patience: Duration) -> bool {
        let _ = patience;
        true
    }
    /// How many messages it holds.
    async fn depth(&self) -> TransportResult<Depth>;
    /// Another text once the queue was deleted and made again, and its messages with it. Asked of the service at each call;
    /// always the same from an implementation whose queues cannot be made again.
    async fn incarnation(&self) -> TransportResult<String> {
        Ok(String::new())
    }
    /// The dead-letter queue; `None` on a dead-letter queue itself.
    fn dead_letters(&self) -> Option<Arc<dyn Queue>>;
}
