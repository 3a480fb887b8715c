//! The order of a file's versions.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Sequence;

/// Which version of a file a message is about: the place of its first announcement in the queue that took it. A queue
/// that is deleted and made again has a later epoch, so its messages count as later.
///
/// Versions of two queues have no order: neither is less than the other. As text it is `QUEUE:EPOCH:SEQUENCE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileVersion {
    queue: String,
    epoch: u64,
    sequence: Sequence,
}

impl FileVersion {
    /// The longest queue name in bytes.
    const MAX_QUEUE_BYTES: usize = 128;

    /// The version of a message: the queue's name, when the queue was created in seconds since 1970, and the sequence
    /// number that the queue gave to the message.
    pub fn new(queue: &str, epoch: u64, sequence: Sequence) -> Self {
        Self {
            queue: queue.to_owned(),
            epoch,
            sequence,
        }
    }

    /// The queue's name.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The sequence number that the queue gave to the message.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// When the queue was created, in seconds since 1970.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl PartialOrd for FileVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let place = |version: &Self| (version.epoch, version.sequence.clone());
        (self.queue == other.queue).then(|| place(self).cmp(&place(other)))
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.queue,
            self.epoch,
            self.sequence.as_str()
        )
    }
}

impl FromStr for FileVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, sequence) = text.rsplit_once(':')?;
            let (queue, epoch) = rest.rsplit_once(':')?;
            let is_name = (1..=Self::MAX_QUEUE_BYTES).contains(&queue.len())
                && queue.bytes().all(|byte| byte.is_ascii_graphic());
            let epoch = epoch.parse().ok().filter(|_| is_name)?;
            Some(Self::new(queue, epoch, Sequence::parse(sequence)?))
        };
        parse().ok_or_else(|| format!("{text:?} is not a file version: QUEUE:EPOCH:SEQUENCE"))
    }
}

impl TryFrom<String> for FileVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FileVersion> for String {
    fn from(version: FileVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> FileVersion {
        text.parse().expect("a version")
    }

    #[test]
    fn versions_of_one_queue_are_ordered_by_epoch_and_then_by_number() {
        let ascending = ["q:5:9", "q:5:10", "q:5:18849496460467696128", "q:6:1"].map(version);
        for pair in ascending.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }

    #[test]
    fn versions_of_two_queues_have_no_order() {
        let (one, other) = (version("files:5:1"), version("chunks:5:2"));
        assert_eq!(one.partial_cmp(&other), None);
    }

    #[test]
    fn a_version_is_read_as_it_was_written_and_anything_else_is_refused() {
        for text in ["orders.fifo:1732780000:18849496460467696128", "a:b:0:0"] {
            assert_eq!(version(text).to_string(), text);
        }
        for text in ["", "1:2", ":1:2", "q:1:x", "q:-1:2", "q q:1:2", "q:1:"] {
            assert!(text.parse::<FileVersion>().is_err(), "{text:?}");
        }
    }
}
