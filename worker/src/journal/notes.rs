//! What processes other than the generator role's have to say about the source: what they announce, and the receipts that they
//! take. Each leaves small files of its own for the process that keeps the journal ([`super::SegmentJournal`]), which takes
//! them in and removes them. It reads nothing and knows nothing, so its memory does not grow with the source.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use streampress_transport::{FileName, Files, TransportError, TransportResult};

use super::source_lines::{self, Head, Line};
use super::{KeepsNoFiles, SourceJournal, SourceReceipt, SourceRecord};
use crate::runtime::{self, blocking};

/// The notes' folder, below that of the journal.
const FOLDER: &str = "notes";
/// So many lines are kept in memory at most.
const MOST_WAITING: usize = 1000;

/// Leaves notes for the process that keeps the source's journal.
#[derive(Debug)]
pub struct NoteJournal {
    files: Arc<dyn Files>,
    /// Lines that are written with the next note.
    waiting: Mutex<Vec<Line>>,
    writer: tokio::sync::Mutex<NoteWriter>,
}

/// Writes notes whose names are in the order written.
#[derive(Debug)]
struct NoteWriter {
    /// Of this process alone.
    id: u64,
    /// Milliseconds since 1970 of the last note.
    last_millis: u64,
    number: u64,
}

/// The parts of a note's name: when it was written, in milliseconds since 1970, its writer, and its number there.
pub(super) fn parse_name(base: &str) -> Option<(u64, u64, u64)> {
    let mut parts = base.split('-');
    let millis = parts.next().filter(|part| part.len() == 16)?.parse().ok()?;
    let writer = u64::from_str_radix(parts.next()?, 16).ok()?;
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((millis, writer, number))
}

/// The folder of the notes.
pub(super) fn folder() -> io::Result<FileName> {
    source_lines::name(FOLDER)
}

/// The file of a note.
pub(super) fn file_name(base: &str) -> io::Result<FileName> {
    source_lines::name(&format!("{FOLDER}/{base}"))
}

impl NoteJournal {
    /// Leaves notes at these files' location.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self {
            files,
            waiting: Mutex::default(),
            writer: tokio::sync::Mutex::new(NoteWriter {
                id: runtime::random_u64(),
                last_millis: 0,
                number: 0,
            }),
        }
    }

    /// Writes all that waits, then `new`, in order. On an error what waited waits on.
    async fn write(&self, new: Vec<Line>) -> TransportResult<()> {
        let mut writer = self.writer.lock().await;
        let waited = std::mem::take(&mut *self.waiting.lock());
        let lines = [&waited[..], &new[..]].concat();
        if lines.is_empty() {
            return Ok(());
        }
        // The clock may be set back; the order of this writer's notes stays.
        let millis = runtime::now_millis().max(writer.last_millis);
        let base = format!("{millis:016}-{:016x}-{}", writer.id, writer.number);
        let files = self.files.clone();
        let outcome = blocking(move || {
            let pending = source_lines::write(&*files, &file_name(&base)?, &Head::new(0), &lines)?;
            pending.commit(runtime::now())
        });
        match outcome.await {
            Ok(()) => {
                writer.last_millis = millis;
                writer.number += 1;
                Ok(())
            }
            Err(error) => {
                // The note may be there all the same: lines that are taken in twice change nothing.
                let mut waiting = self.waiting.lock();
                let later = std::mem::replace(&mut *waiting, waited);
                waiting.extend(later);
                Err(TransportError::unavailable(
                    "writing down what is announced",
                    error,
                ))
            }
        }
    }

    /// Lets the lines wait for the next note, which is written first where it is full.
    async fn add(&self, lines: Vec<Line>) -> TransportResult<()> {
        if self.waiting.lock().len() >= MOST_WAITING {
            self.write(Vec::new()).await?;
        }
        self.waiting.lock().extend(lines);
        Ok(())
    }
}

impl KeepsNoFiles for NoteJournal {}

#[async_trait]
impl SourceJournal for NoteJournal {
    async fn record_announcements(&self, records: &[SourceRecord]) -> TransportResult<()> {
        self.write(records.iter().cloned().map(Line::Put).collect())
            .await
    }

    async fn record_sent(&self, records: &[SourceRecord]) -> TransportResult<()> {
        self.add(records.iter().map(Line::sent).collect()).await
    }

    async fn record_receipt(&self, receipt: &SourceReceipt) -> TransportResult<()> {
        // A loss of this with the process only leaves the file unconfirmed: its repeat brings another receipt.
        self.add(vec![Line::Receipt {
            name: receipt.name.clone(),
            announcement: receipt.announcement.clone(),
            state: receipt.state,
            fingerprint: receipt.fingerprint.clone(),
        }])
        .await
    }

    async fn flush_sources(&self) -> TransportResult<()> {
        self.write(Vec::new()).await
    }

    // It reads nothing; the process that keeps the journal is the one that asks.

    async fn sources(&self, _: &str) -> TransportResult<Vec<SourceRecord>> {
        Ok(Vec::new())
    }

    async fn source(&self, _: &str, _: &str) -> TransportResult<Option<SourceRecord>> {
        Ok(None)
    }

    async fn take_in(&self) -> TransportResult<Vec<SourceRecord>> {
        Ok(Vec::new())
    }

    async fn may_have_unconfirmed(&self) -> TransportResult<bool> {
        Ok(false)
    }

    async fn get(&self, _: &str) -> TransportResult<Option<String>> {
        Ok(None)
    }

    // The process that scans, which keeps the journal itself, reads files again and forgets those that are gone. Nothing here
    // reads a value, so none is kept.

    async fn record_sources(&self, _: &[SourceRecord]) -> TransportResult<()> {
        Ok(())
    }

    async fn record_read_again(&self, _: &SourceRecord) -> TransportResult<bool> {
        Ok(true)
    }

    async fn forget_sources(&self, _: &[SourceRecord]) -> TransportResult<()> {
        Ok(())
    }

    async fn set(&self, _: &str, _: &str) -> TransportResult<()> {
        Ok(())
    }
}
