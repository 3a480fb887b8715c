//! Journals that keep nothing: they accept every record and answer that they know nothing.

use std::time::SystemTime;

use async_trait::async_trait;
use streampress_transport::{Failure, TransportResult};

use super::{
    CheckedFile, FileJournal, FileStatus, JournalFile, JournalProgress, OpenFile, SourceJournal,
    SourceReceipt, SourceRecord,
};

/// A journal of sources that keeps nothing of what became of files.
pub trait KeepsNoFiles: SourceJournal {}

/// The journal of a worker that keeps none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJournal;

impl KeepsNoFiles for NoJournal {}

#[async_trait]
impl SourceJournal for NoJournal {
    async fn sources(&self, _: &str) -> TransportResult<Vec<SourceRecord>> {
        Ok(Vec::new())
    }

    async fn source(&self, _: &str, _: &str) -> TransportResult<Option<SourceRecord>> {
        Ok(None)
    }

    async fn record_announcements(&self, _: &[SourceRecord]) -> TransportResult<()> {
        Ok(())
    }

    async fn record_sent(&self, _: &[SourceRecord]) -> TransportResult<()> {
        Ok(())
    }

    async fn record_sources(&self, _: &[SourceRecord]) -> TransportResult<()> {
        Ok(())
    }

    async fn record_read_again(&self, _: &SourceRecord) -> TransportResult<bool> {
        Ok(true)
    }

    async fn forget_sources(&self, _: &[SourceRecord]) -> TransportResult<()> {
        Ok(())
    }

    async fn record_receipt(&self, _: &SourceReceipt) -> TransportResult<()> {
        Ok(())
    }

    async fn take_in(&self) -> TransportResult<Vec<SourceRecord>> {
        Ok(Vec::new())
    }

    async fn may_have_unconfirmed(&self) -> TransportResult<bool> {
        Ok(false)
    }

    async fn flush_sources(&self) -> TransportResult<()> {
        Ok(())
    }

    async fn get(&self, _: &str) -> TransportResult<Option<String>> {
        Ok(None)
    }

    async fn set(&self, _: &str, _: &str) -> TransportResult<()> {
        Ok(())
    }
}

#[async_trait]
impl<J: KeepsNoFiles> FileJournal for J {
    async fn record_announced(&self, _: &JournalFile) -> TransportResult<()> {
        Ok(())
    }

    async fn record_compressed(&self, _: &str, _: u64) -> TransportResult<()> {
        Ok(())
    }

    async fn record_received(&self, _: &str, _: u64) -> TransportResult<()> {
        Ok(())
    }

    async fn record_restored(&self, _: &str, _: u64) -> TransportResult<()> {
        Ok(())
    }

    async fn record_superseded(&self, _: &str) -> TransportResult<()> {
        Ok(())
    }

    async fn record_failed(&self, _: &str, _: &Failure) -> TransportResult<()> {
        Ok(())
    }

    async fn record_redriven(&self, _: &str) -> TransportResult<()> {
        Ok(())
    }

    async fn record_recovered(&self, _: &str) -> TransportResult<()> {
        Ok(())
    }

    async fn record_discarded(&self, _: &str) -> TransportResult<()> {
        Ok(())
    }

    async fn was_announced(&self, _: &str, _: u64, _: SystemTime) -> TransportResult<Option<bool>> {
        Ok(None)
    }

    async fn was_content_announced(&self, _: &str, _: &str) -> TransportResult<Option<bool>> {
        Ok(None)
    }

    async fn was_name_announced(&self, _: &str) -> TransportResult<Option<bool>> {
        Ok(None)
    }

    async fn locations(&self) -> TransportResult<Vec<String>> {
        Ok(Vec::new())
    }

    async fn was_restored(&self, _: &str, _: &str) -> TransportResult<bool> {
        Ok(false)
    }

    async fn was_replaced(&self, _: &str) -> TransportResult<bool> {
        Ok(false)
    }

    async fn file_status(&self, _: &str) -> TransportResult<Option<FileStatus>> {
        Ok(None)
    }

    async fn open_files(&self) -> TransportResult<Vec<OpenFile>> {
        Ok(Vec::new())
    }

    async fn progress(&self) -> TransportResult<JournalProgress> {
        Ok(JournalProgress::default())
    }

    async fn oldest_packed_millis(&self) -> TransportResult<Option<u64>> {
        Ok(None)
    }

    async fn failures(&self, _: u32) -> TransportResult<Vec<(String, Failure)>> {
        Ok(Vec::new())
    }

    async fn failed_ids(&self, _: u32) -> TransportResult<Vec<String>> {
        Ok(Vec::new())
    }

    async fn checked_files(&self, _: &str) -> TransportResult<Vec<CheckedFile>> {
        Ok(Vec::new())
    }

    async fn record_checked(&self, _: &str, _: Vec<CheckedFile>) -> TransportResult<()> {
        Ok(())
    }
}
