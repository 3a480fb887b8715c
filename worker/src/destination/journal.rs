//! The contract of a destination's journal.

use std::collections::HashMap;
use std::fmt;
use std::io;

use async_trait::async_trait;

use super::decide::JournalEntry;
use super::locks::NameLock;
use streampress_transport::{FileEntry, FileName, TransportResult};

/// An entry as it was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The entry.
    pub entry: JournalEntry,
    /// The file that holds it, for a journal whose writes are conditional.
    pub file: Option<FileEntry>,
}

/// What is kept of every name at a destination. It outlives the restored file.
///
/// Contract: an entry that was stored survives the end of this process at once, and power loss before the message that
/// led to it is acknowledged. Entries are never removed.
#[async_trait]
pub trait DestinationJournal: Send + Sync + fmt::Debug {
    /// Waits until no other worker changes what is under this name. Dropping the lock, or the end of the process, releases it.
    async fn lock(&self, name: &FileName) -> io::Result<NameLock>;
    /// The name's entry.
    async fn load(&self, name: &FileName) -> TransportResult<Option<StoredEntry>>;
    /// All entries by name, where they can be read at once.
    async fn entries(&self) -> TransportResult<Option<HashMap<String, JournalEntry>>> {
        Ok(None)
    }
    /// Stores an entry in place of the one that was read. An error when another worker has stored one since.
    async fn store(
        &self,
        name: &FileName,
        entry: &JournalEntry,
        over: Option<&StoredEntry>,
    ) -> TransportResult<StoredEntry>;
}
