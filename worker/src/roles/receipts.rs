//! Receipts: what became of a file, sent by decompressors ([`ReceiptSender`]) and taken by compressors ([`take`]).
//!
//! A decompressor sends a file's receipt between the effect and the deletion of its message. A restored file's receipt that
//! cannot be sent is kept and sent later, so that restoring goes on while the receipts queue is down. The request to send a
//! file again is never kept: its message waits instead, since nothing else says that the file is missing.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use crate::consume::{HandlerError, MessageContext};
use crate::journal::{SourceReceipt, SourceState};
use crate::message::{
    DeadLetterReason, Digest, FileReceipt, Manifest, Message, ReceiptFile, SourceObservation,
    VERSION, Verdict,
};
use crate::roles::announce::{self, Announcer, Repeat, trace_attributes};
use crate::roles::source::retire_restored;
use crate::roles::{copies, replies};
use crate::telemetry::trace;
use streampress_crds::api::pipeline::OnRestored;
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ATTR_VERSION, Backoff, Delivery, Depth, FileVersion,
    Outgoing, Queue, Receipt, TransportError, TransportResult, error_chain,
};

/// A version is announced again because of its records at most so many times; then its manifest is a dead letter.
const MOST_REPEATS: u32 = 3;
/// Receipts that are kept while the queue is down.
const MOST_UNSENT: usize = 10_000;
/// Kept receipts that are sent at once.
const BATCH: usize = 10;
/// Between two attempts to send what was kept.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long the end of a process waits for the receipts queue.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest part of a manifest's deduplication id in a receipt's: SQS takes 128 characters.
const LONGEST_STEM: usize = 116;

/// Sends receipts: those of files that are done at the same time in one batch.
#[derive(Debug)]
pub struct ReceiptSender {
    queue: Arc<dyn Queue>,
    strict: bool,
    waiting: Mutex<Vec<WaitingReceipt>>,
    sending: tokio::sync::Mutex<()>,
    unsent: Mutex<VecDeque<Outgoing>>,
    kept: Notify,
}

#[derive(Debug)]
struct WaitingReceipt {
    message: Outgoing,
    sent: oneshot::Sender<Result<(), String>>,
}

impl ReceiptSender {
    /// Sends to `queue`. `strict`: all files go one after another.
    pub fn new(queue: Arc<dyn Queue>, strict: bool) -> Self {
        Self {
            queue,
            strict,
            waiting: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            unsent: Mutex::default(),
            kept: Notify::default(),
        }
    }

    /// Tells that the manifest's file was restored or superseded; `context` is that of the manifest's message. `Ok` where the
    /// receipt was sent, or is kept to be sent.
    pub(crate) async fn report(
        &self,
        manifest: &Manifest,
        version: FileVersion,
        is_restored: bool,
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let file = ReceiptFile {
            file: manifest.file.clone(),
            file_version: version,
            observed: manifest.observed.clone(),
        };
        let verdict = match is_restored {
            true => Verdict::Restored(file),
            false => Verdict::Superseded(file),
        };
        let message = self.message(verdict, context.delivery);
        // What is kept comes first: a file's receipts stay in order.
        let is_down = !self.unsent.lock().is_empty();
        let failed = match is_down {
            true => None,
            false => match self.send(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(cause) => Some(cause),
            },
        };
        let mut unsent = self.unsent.lock();
        if unsent.len() >= MOST_UNSENT {
            return Err(HandlerError::Waiting(anyhow::anyhow!(
                "the receipts queue {} is down and {MOST_UNSENT} receipts wait for it",
                self.queue.name()
            )));
        }
        if let Some(cause) = failed.filter(|_| unsent.is_empty()) {
            warn!(
                cause,
                "Could not send a receipt; files are restored meanwhile, and their receipts are kept."
            );
        }
        unsent.push_back(message);
        self.kept.notify_one();
        Ok(())
    }

    /// Asks for the manifest's file to be sent again. An error where that could not be sent.
    pub(crate) async fn ask_again(
        &self,
        manifest: &Manifest,
        version: FileVersion,
        (reason, detail): (DeadLetterReason, String),
        context: MessageContext<'_>,
    ) -> Result<(), HandlerError> {
        let manifest = Manifest {
            file_version: Some(version),
            ..manifest.clone()
        };
        let verdict = Verdict::SendAgain {
            manifest: Box::new(manifest),
            reason,
            detail: detail.clone(),
        };
        let message = self.message(verdict, context.delivery);
        context.ensure_owner()?;
        self.send(message).await.map_err(|cause| {
            HandlerError::Waiting(anyhow::anyhow!(
                "{reason}: {detail}; and the file could not be requested again: {cause}"
            ))
        })?;
        info!(
            reason = reason.as_str(),
            detail, "The file's records cannot be used; it is requested again."
        );
        Ok(())
    }

    fn message(&self, verdict: Verdict, delivery: &Delivery) -> Outgoing {
        let stem = delivery.dedup_id.get(..LONGEST_STEM);
        let stem = stem.unwrap_or(&delivery.dedup_id);
        let dedup_id = format!("{stem}-{}", verdict.as_str());
        let receipt = FileReceipt {
            version: VERSION,
            verdict,
            traceparent: trace::current().map(|context| context.to_string()),
        };
        Outgoing {
            group: announce::group(receipt.file(), self.strict),
            dedup_id,
            body: receipt.to_json(),
            attributes: trace_attributes(),
        }
    }

    /// Sends the message together with others that wait; the cause where that failed.
    async fn send(&self, message: Outgoing) -> Result<(), String> {
        message.check().map_err(|error| error_chain(&error))?;
        let (sent, outcome) = oneshot::channel();
        self.waiting.lock().push(WaitingReceipt { message, sent });
        {
            let _sending = self.sending.lock().await;
            let batch = std::mem::take(&mut *self.waiting.lock());
            if !batch.is_empty() {
                let messages = batch.iter().map(|it| it.message.clone()).collect();
                let result = self.queue.send(messages).await;
                let result = result.map_err(|error| error_chain(&error));
                for waiting in batch {
                    // Its task may have ended meanwhile.
                    let _ = waiting.sent.send(result.clone());
                }
            }
        }
        outcome
            .await
            .unwrap_or_else(|_| Err("the worker stopped".to_owned()))
    }

    /// Sends what is kept, for ever.
    pub(crate) async fn send_kept(&self) -> Infallible {
        let mut failures = 0;
        loop {
            if self.unsent.lock().is_empty() {
                failures = 0;
                self.kept.notified().await;
            }
            if failures > 0 {
                tokio::time::sleep(BACKOFF.equal_jitter(failures)).await;
            }
            match self.send_kept_batch().await {
                Ok(true) => {
                    failures = 0;
                    info!(
                        "The receipts queue answers again; all receipts that were kept are sent."
                    );
                }
                Ok(false) => failures = 0,
                Err(_) => failures += 1,
            }
        }
    }

    /// Sends the first of what is kept; true where those were the last.
    async fn send_kept_batch(&self) -> TransportResult<bool> {
        let batch: Vec<_> = self.unsent.lock().iter().take(BATCH).cloned().collect();
        if batch.is_empty() {
            return Ok(false);
        }
        let count = batch.len();
        self.queue.send(batch).await?;
        let mut unsent = self.unsent.lock();
        unsent.drain(..count);
        Ok(unsent.is_empty())
    }

    /// Tries to send what is kept before the process ends. What then is left is lost; the file itself is not.
    pub(crate) async fn end(&self) {
        let sending = async {
            while !self.unsent.lock().is_empty() {
                self.send_kept_batch().await?;
            }
            Ok::<(), TransportError>(())
        };
        if !matches!(tokio::time::timeout(END_TIMEOUT, sending).await, Ok(Ok(()))) {
            warn!(
                receipts = self.unsent.lock().len(),
                "The process ends while the receipts queue is down: the source will not learn that these files were restored."
            );
        }
    }
}

/// Acts on a receipt, at the source's side.
pub(crate) async fn take(
    announcer: &Announcer,
    on_restored: OnRestored,
    receipt: &FileReceipt,
    context: MessageContext<'_>,
) -> Result<(), HandlerError> {
    match &receipt.verdict {
        Verdict::Restored(file) => {
            note(announcer, file, SourceState::Restored).await?;
            replies::leave(announcer, file.observed.as_ref(), SourceState::Restored).await?;
            if on_restored == OnRestored::Keep {
                return Ok(());
            }
            context.ensure_owner()?;
            retire_restored(announcer, file, on_restored).await
        }
        Verdict::Superseded(file) => {
            note(announcer, file, SourceState::Superseded).await?;
            replies::leave(announcer, file.observed.as_ref(), SourceState::Superseded).await
        }
        Verdict::SendAgain {
            manifest,
            reason,
            detail,
        } => send_again(announcer, manifest, (*reason, detail), context).await,
    }
}

/// Notes in the journal what became of the announcement.
async fn note(
    announcer: &Announcer,
    receipt: &ReceiptFile,
    state: SourceState,
) -> Result<(), HandlerError> {
    let Some(SourceObservation { announcement, .. }) = &receipt.observed else {
        return Ok(());
    };
    let file = &receipt.file;
    let receipt = SourceReceipt {
        location: file.location.clone(),
        name: file.name.as_str().to_owned(),
        file_id: file.id().as_str().to_owned(),
        announcement: announcement.clone(),
        state,
    };
    Ok(announcer.journal.record_receipt(&receipt).await?)
}

/// Announces the manifest's file again with its version, if the source still has its content. Other content that took its
/// place is announced instead.
async fn send_again(
    announcer: &Announcer,
    manifest: &Manifest,
    (reason, detail): (DeadLetterReason, &str),
    context: MessageContext<'_>,
) -> Result<(), HandlerError> {
    let file = &manifest.file;
    let give_up = |why: &str| Err(HandlerError::permanent(reason, format!("{detail}; {why}")));
    if manifest.repeats >= MOST_REPEATS {
        return give_up(&format!("it was packed again {MOST_REPEATS} times in vain"));
    }
    let announcer = announcer
        .for_location_of(file)
        .map_err(HandlerError::Transient)?;
    let version = manifest.file_version.clone();
    let has_content = copies::source_has(&announcer, file, version.as_ref())
        .await
        .map_err(HandlerError::Transient)?;
    if has_content {
        context.ensure_owner()?;
        let attempt = Digest::of(manifest.attempt.as_bytes());
        let repeat = Repeat {
            // The same receipt received twice makes one announcement.
            id: format!("{}-again", &attempt.as_str()[..16]),
            observed: manifest.observed.clone(),
            repeats: manifest.repeats + 1,
        };
        let id = file.id();
        announcer.journal.record_redriven(id.as_str()).await?;
        return announcer
            .announce_repeat(file, version, repeat)
            .await
            .map_err(HandlerError::Transient);
    }
    match announcer.announce_successor(file).await {
        Ok(()) => {
            context.count_superseded();
            let id = file.id();
            announcer.journal.record_superseded(id.as_str()).await?;
            let observed = manifest.observed.as_ref();
            replies::leave(&announcer, observed, SourceState::Superseded).await?;
            info!(
                "The source has other content by now, which is announced in this version's place."
            );
            Ok(())
        }
        Err(HandlerError::Permanent { detail, .. }) => give_up(&detail),
        Err(error) => Err(error),
    }
}

/// The receipts queue as compressors see it: a request to send a file again that cannot be met becomes a dead letter of the
/// chunks queue, as the manifest that it holds, so that a redrive finds it like any other.
#[derive(Debug)]
pub(crate) struct SourceSideReceipts {
    receipts: Arc<dyn Queue>,
    chunks: Arc<dyn Queue>,
}

impl SourceSideReceipts {
    pub(crate) fn new(receipts: Arc<dyn Queue>, chunks: Arc<dyn Queue>) -> Self {
        Self { receipts, chunks }
    }
}

/// The dead letter of a manifest whose file cannot be sent again.
fn manifest_letter(
    manifest: &Manifest,
    delivery: &Delivery,
    (reason, detail): (DeadLetterReason, &str),
) -> Outgoing {
    let version = manifest.file_version.as_ref().map(ToString::to_string);
    let all = [
        (ATTR_REASON, Some(reason.to_string())),
        (ATTR_DETAIL, Some(sendable(detail))),
        (ATTR_GROUP, Some(delivery.original_group().to_owned())),
        (ATTR_VERSION, version),
    ];
    let attributes: BTreeMap<String, String> = all
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), text?)))
        .collect();
    Outgoing {
        group: delivery.message_id.clone(),
        dedup_id: format!("dead-{}", delivery.message_id),
        body: manifest.to_json(),
        attributes,
    }
}

/// Text that an attribute can hold: bounded, and without control characters.
fn sendable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(500)
        .collect()
}

#[async_trait]
impl Queue for SourceSideReceipts {
    fn name(&self) -> &str {
        self.receipts.name()
    }

    fn visibility_timeout(&self) -> Duration {
        self.receipts.visibility_timeout()
    }

    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        self.receipts.send(messages).await
    }

    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        self.receipts.receive(max, wait).await
    }

    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        self.receipts.extend(receipt, visibility_timeout).await
    }

    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        self.receipts.delete(receipt).await
    }

    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        self.receipts.release(receipt).await
    }

    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: DeadLetterReason,
        detail: &str,
    ) -> TransportResult<()> {
        if let Ok(Message::Receipt(FileReceipt {
            verdict: Verdict::SendAgain { manifest, .. },
            ..
        })) = Message::parse(&delivery.body)
            && let Some(dead) = self.chunks.dead_letters()
        {
            let letter = manifest_letter(&manifest, delivery, (reason, detail));
            dead.send(vec![letter]).await?;
            return match self.receipts.delete(&delivery.receipt).await {
                // Another worker has it by now and makes the same dead letter of it.
                Err(TransportError::Stale) => Ok(()),
                other => other,
            };
        }
        self.receipts.dead_letter(delivery, reason, detail).await
    }

    async fn drain(&self, patience: Duration) -> bool {
        self.receipts.drain(patience).await
    }

    async fn depth(&self) -> TransportResult<Depth> {
        self.receipts.depth().await
    }

    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.receipts.dead_letters()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use streampress_codec::hybrid;
    use streampress_crds::Role;
    use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};
    use streampress_transport::{ChunkStream, FileName, Files, Position, Record, StreamCounts};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::consume::joined::JoinedQueue;
    use crate::consume::{Consumer, Handler};
    use crate::destination::Destination;
    use crate::journal::{FileJournal, NoJournal, SqliteJournal};
    use crate::roles::announce::AnnouncementFormat;
    use crate::roles::compress::Compressor;
    use crate::roles::decompress::Decompressor;
    use crate::roles::source::SourceFilter;
    use crate::telemetry::metrics::Meter;

    /// Files, chunks and receipts of one data folder; the two sides share no journal.
    struct Sides {
        root: tempfile::TempDir,
        local: Local,
        journal: SqliteJournal,
        announcer: Announcer,
        is_stream_lost: Arc<Mutex<bool>>,
        on_restored: OnRestored,
    }

    /// A stream whose records have all expired while it is lost.
    #[derive(Debug)]
    struct LosableStream {
        inner: Arc<dyn ChunkStream>,
        is_lost: Arc<Mutex<bool>>,
    }

    #[async_trait]
    impl ChunkStream for LosableStream {
        fn max_record_bytes(&self) -> usize {
            self.inner.max_record_bytes()
        }
        async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
            self.inner.append(records).await
        }
        async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
            let is_lost = *self.is_lost.lock();
            if is_lost {
                return Err(TransportError::Expired(positions[0].clone()));
            }
            self.inner.fetch(positions).await
        }
        fn counts(&self) -> StreamCounts {
            self.inner.counts()
        }
    }

    /// A queue that refuses what is sent while it is down, and counts calls of `send`.
    #[derive(Debug)]
    struct Flaky {
        inner: Arc<dyn Queue>,
        is_down: Mutex<bool>,
        sends: Mutex<usize>,
        refused: Mutex<usize>,
        gate: tokio::sync::Semaphore,
    }

    impl Flaky {
        fn new(inner: Arc<dyn Queue>) -> Arc<Self> {
            Arc::new(Self {
                inner,
                is_down: Mutex::new(false),
                sends: Mutex::new(0),
                refused: Mutex::new(0),
                gate: tokio::sync::Semaphore::new(1_000_000),
            })
        }
    }

    #[async_trait]
    impl Queue for Flaky {
        fn name(&self) -> &str {
            self.inner.name()
        }
        fn visibility_timeout(&self) -> Duration {
            self.inner.visibility_timeout()
        }
        async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
            if let Ok(permit) = self.gate.acquire().await {
                permit.forget();
            }
            *self.sends.lock() += 1;
            if *self.is_down.lock() {
                *self.refused.lock() += 1;
                return Err(TransportError::unavailable("sending", "the queue is down"));
            }
            self.inner.send(messages).await
        }
        async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
            self.inner.receive(max, wait).await
        }
        async fn extend(&self, receipt: &Receipt, hidden_for: Duration) -> TransportResult<()> {
            self.inner.extend(receipt, hidden_for).await
        }
        async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
            self.inner.delete(receipt).await
        }
        async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
            self.inner.release(receipt).await
        }
        async fn dead_letter(
            &self,
            delivery: &Delivery,
            reason: DeadLetterReason,
            detail: &str,
        ) -> TransportResult<()> {
            self.inner.dead_letter(delivery, reason, detail).await
        }
        async fn depth(&self) -> TransportResult<Depth> {
            self.inner.depth().await
        }
        fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
            self.inner.dead_letters()
        }
    }

    fn files(folder: &Path) -> Arc<dyn Files> {
        Arc::new(LocalFiles::open("file:///data/in", folder).expect("opens"))
    }

    impl Sides {
        fn open() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            let folder = root.path().join("data");
            let local = Local::open(&folder, LocalOptions::default()).expect("opens");
            let journal = SqliteJournal::open(&local).expect("opens");
            let announcer = Announcer {
                source: files(&root.path().join("in")),
                files_queue: local.files_queue(),
                strict: false,
                format: AnnouncementFormat::Native,
                journal: Arc::new(journal.clone()),
            };
            Self {
                root,
                local,
                journal,
                announcer,
                is_stream_lost: Arc::default(),
                on_restored: OnRestored::Keep,
            }
        }

        async fn announce(&self, name: &str, content: &str) {
            std::fs::write(self.root.path().join("in").join(name), content).expect("written");
            let name = FileName::parse(name).expect("a valid name");
            self.announcer
                .announce_current(&name)
                .await
                .expect("announced");
        }

        fn restored(&self, name: &str) -> Option<String> {
            std::fs::read_to_string(self.root.path().join("out").join(name)).ok()
        }

        async fn state(&self, name: &str) -> SourceState {
            let source = self.journal.source("file:///data/in", name).await;
            source.expect("read").expect("announced").state
        }

        fn compressor(&self) -> Compressor {
            Compressor {
                announcer: self.announcer.clone(),
                stream: self.local.stream(),
                chunks_queue: self.local.chunks_queue(),
                options: hybrid::CodecOptions {
                    effort: hybrid::Effort::Fast,
                    ..hybrid::CodecOptions::default()
                },
                format_version: Default::default(),
                plans: Arc::default(),
                record_bytes: 400 << 10,
                on_compressed: OnCompressed::Keep,
                on_restored: self.on_restored,
                report: None,
                filter: SourceFilter {
                    formats: vec![SourceFormat::Txt],
                    skips_renamed: false,
                },
                journal: Arc::new(self.journal.clone()),
            }
        }

        /// Works as a compressor until the condition holds.
        async fn compress_until(&self, holds: impl AsyncFnMut() -> bool) {
            let (receipts, chunks) = (self.local.receipts_queue(), self.local.chunks_queue());
            let receipts = SourceSideReceipts::new(receipts, chunks);
            let queue = JoinedQueue::new(self.local.files_queue(), Arc::new(receipts));
            let handler = Arc::new(self.compressor());
            consume_until(Role::Compressor, Arc::new(queue), handler, holds).await;
        }

        /// Works as a decompressor that has no journal of the source until the condition holds.
        async fn restore_until(&self, receipts: Arc<dyn Queue>, holds: impl AsyncFnMut() -> bool) {
            let out = self.root.path().join("out");
            let destination = Destination::with_own_journal(files(&out), Some(&out));
            let stream = Arc::new(LosableStream {
                inner: self.local.stream(),
                is_lost: self.is_stream_lost.clone(),
            });
            let journal = Arc::new(NoJournal);
            let mut decompressor = Decompressor::new(destination, stream, 1, None, journal);
            decompressor.receipts = Some(ReceiptSender::new(receipts, false));
            let queue = self.local.chunks_queue();
            consume_until(Role::Decompressor, queue, Arc::new(decompressor), holds).await;
        }

        async fn waiting(&self) -> [u64; 3] {
            let mut waiting = [0; 3];
            let queues = [
                self.local.files_queue(),
                self.local.chunks_queue(),
                self.local.receipts_queue(),
            ];
            for (queue, waiting) in queues.iter().zip(&mut waiting) {
                *waiting = total(&**queue).await;
            }
            waiting
        }

        /// How often the file of the manifest that waits was sent again, and its version.
        async fn waiting_manifest(&self) -> (u32, String) {
            let chunks = self.local.chunks_queue();
            let deliveries = chunks.receive(1, Duration::ZERO).await.expect("received");
            let Ok(Message::Manifest(manifest)) = Message::parse(&deliveries[0].body) else {
                panic!("no manifest: {}", deliveries[0].body);
            };
            let released = chunks.release(&deliveries[0].receipt).await;
            released.expect("released");
            let version = manifest.file_version.expect("known");
            (manifest.repeats, version.to_string())
        }

        /// Restores while the stream holds no record.
        async fn fail_to_restore(&self) {
            *self.is_stream_lost.lock() = true;
            let receipts = self.local.receipts_queue();
            let failed = async || self.waiting().await == [0, 0, 1];
            self.restore_until(receipts, failed).await;
            *self.is_stream_lost.lock() = false;
        }

        /// The dead letters of the chunks queue: the file's name, the reason and the detail of each.
        async fn dead(&self) -> Vec<(String, String, String)> {
            let dead = self.local.chunks_queue().dead_letters();
            let letters = dead
                .expect("dead letters")
                .receive(10, Duration::ZERO)
                .await;
            let letters = letters.expect("received");
            let describe = |letter: &Delivery| {
                let message = Message::parse(&letter.body).expect("readable");
                assert_eq!(message.kind(), "manifest");
                let attribute = |name| letter.attributes[name].clone();
                assert!(letter.attributes.contains_key(ATTR_VERSION));
                let name = message.subject().file_name.expect("named");
                (name, attribute(ATTR_REASON), attribute(ATTR_DETAIL))
            };
            letters.iter().map(describe).collect()
        }
    }

    async fn total(queue: &dyn Queue) -> u64 {
        queue.depth().await.expect("known").total()
    }

    async fn consume_until(
        role: Role,
        queue: Arc<dyn Queue>,
        handler: Arc<dyn Handler>,
        mut holds: impl AsyncFnMut() -> bool,
    ) {
        let shutdown = CancellationToken::new();
        let consumer = Consumer {
            role,
            queue,
            lock: Arc::new(InProcessLock::new(role.as_str(), 1)),
            handler,
            threads: 1,
            strict: false,
            interval: Duration::from_millis(10),
            linger: Duration::from_millis(1),
            max_receive_count: 20,
            meter: Meter::default(),
            shutdown: shutdown.clone(),
        };
        let watching = async {
            while !holds().await {
                // Between two checks of the condition.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            shutdown.cancel();
        };
        tokio::join!(consumer.run(), watching);
    }

    #[tokio::test]
    async fn a_receipt_tells_the_sources_journal_that_its_file_was_restored() {
        let sides = Sides::open();
        sides.announce("a.txt", "words").await;
        sides
            .compress_until(async || sides.waiting().await == [0, 1, 0])
            .await;
        assert_eq!(sides.state("a.txt").await, SourceState::Sent);
        let receipts = sides.local.receipts_queue();
        sides
            .restore_until(receipts, async || sides.waiting().await == [0, 0, 1])
            .await;
        assert_eq!(sides.restored("a.txt").as_deref(), Some("words"));
        assert_eq!(sides.state("a.txt").await, SourceState::Sent, "not yet");
        sides
            .compress_until(async || sides.waiting().await == [0, 0, 0])
            .await;
        assert_eq!(sides.state("a.txt").await, SourceState::Restored);
    }

    #[tokio::test]
    async fn a_late_receipt_says_nothing_of_a_later_announcement_of_the_same_content() {
        let sides = Sides::open();
        sides.announce("a.txt", "one").await;
        sides
            .compress_until(async || sides.waiting().await == [0, 1, 0])
            .await;
        let receipts = sides.local.receipts_queue();
        sides
            .restore_until(receipts, async || sides.waiting().await == [0, 0, 1])
            .await;
        // The source goes to other content and back before the receipt arrives.
        sides.announce("a.txt", "two").await;
        sides.announce("a.txt", "one").await;
        sides
            .compress_until(async || sides.waiting().await[2] == 0)
            .await;
        assert_eq!(sides.state("a.txt").await, SourceState::Sent);
    }

    #[tokio::test]
    async fn a_file_whose_records_are_gone_is_packed_again_with_its_version() {
        let sides = Sides::open();
        sides.announce("a.txt", "words").await;
        let is_packed = async || sides.waiting().await == [0, 1, 0];
        sides.compress_until(is_packed).await;
        let (repeats, version) = sides.waiting_manifest().await;
        assert_eq!(repeats, 0);
        sides.fail_to_restore().await;
        assert_eq!(sides.restored("a.txt"), None);
        sides.compress_until(is_packed).await;
        assert_eq!(sides.waiting_manifest().await, (1, version));
        let receipts = sides.local.receipts_queue();
        sides
            .restore_until(receipts, async || sides.waiting().await == [0, 0, 1])
            .await;
        assert_eq!(sides.restored("a.txt").as_deref(), Some("words"));
        assert!(sides.dead().await.is_empty());
    }

    #[tokio::test]
    async fn after_three_repeats_the_manifest_is_a_dead_letter_with_its_reason() {
        let sides = Sides::open();
        sides.announce("a.txt", "words").await;
        for repeats in 0..=MOST_REPEATS {
            let is_packed = async || sides.waiting().await == [0, 1, 0];
            sides.compress_until(is_packed).await;
            assert_eq!(sides.waiting_manifest().await.0, repeats);
            sides.fail_to_restore().await;
        }
        sides
            .compress_until(async || sides.waiting().await == [0, 0, 0])
            .await;
        let dead = sides.dead().await;
        let (name, reason) = (&*dead[0].0, &*dead[0].1);
        assert_eq!((dead.len(), name, reason), (1, "a.txt", "Expired"));
        assert!(dead[0].2.contains("3 times in vain"), "{dead:?}");
        assert_eq!(sides.state("a.txt").await, SourceState::Dead);
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_a_dead_letter_and_changed_content_takes_its_place() {
        for (change, announced, dead) in [(None, 0, 1), (Some("other"), 1, 0)] {
            let sides = Sides::open();
            sides.announce("a.txt", "words").await;
            sides
                .compress_until(async || sides.waiting().await == [0, 1, 0])
                .await;
            let path = sides.root.path().join("in/a.txt");
            match change {
                None => std::fs::remove_file(path).expect("removed"),
                Some(content) => std::fs::write(path, content).expect("written"),
            }
            sides.fail_to_restore().await;
            // What is announced in its place is packed at once.
            sides
                .compress_until(async || sides.waiting().await == [0, announced, 0])
                .await;
            assert_eq!(sides.dead().await.len(), dead, "{change:?}");
        }
    }

    /// Restores the file, then changes the source, then lets the receipt arrive; the names at the source afterwards.
    async fn left_at_the_source(
        on_restored: OnRestored,
        content: &str,
        change: impl FnOnce(&Path),
    ) -> Vec<String> {
        let sides = Sides {
            on_restored,
            ..Sides::open()
        };
        sides.announce("a.txt", content).await;
        sides
            .compress_until(async || sides.waiting().await == [0, 1, 0])
            .await;
        let receipts = sides.local.receipts_queue();
        sides
            .restore_until(receipts, async || sides.waiting().await == [0, 0, 1])
            .await;
        let folder = sides.root.path().join("in");
        change(&folder.join("a.txt"));
        sides
            .compress_until(async || sides.waiting().await == [0, 0, 0])
            .await;
        let listed = std::fs::read_dir(folder).expect("listed");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.expect("listed").file_name();
            name.into_string().expect("UTF-8")
        };
        let mut names: Vec<String> = listed.map(name).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_restored_file_is_renamed_or_deleted_only_where_that_is_wanted() {
        for (on_restored, left) in [
            (OnRestored::Keep, &["a.txt"][..]),
            (OnRestored::Rename, &["a_delete.txt"]),
            (OnRestored::Delete, &[]),
        ] {
            let names = left_at_the_source(on_restored, "words", |_| {}).await;
            assert_eq!(names, left, "{on_restored:?}");
        }
    }

    #[tokio::test]
    async fn a_source_that_changed_after_its_announcement_stays() {
        let overwrite = |path: &Path| std::fs::write(path, "worms").expect("written");
        let same_time = |path: &Path| {
            let modified = path.metadata().and_then(|it| it.modified());
            std::fs::write(path, "worms").expect("written");
            let file = std::fs::File::options().write(true).open(path);
            let set = file.expect("opened").set_modified(modified.expect("known"));
            set.expect("set");
        };
        let replace = |path: &Path| {
            let other = path.with_file_name("other");
            std::fs::write(&other, "words").expect("written");
            std::fs::rename(other, path).expect("renamed");
        };
        for on_restored in [OnRestored::Rename, OnRestored::Delete] {
            for change in [&overwrite as &dyn Fn(&Path), &same_time, &replace] {
                let names = left_at_the_source(on_restored, "words", change).await;
                assert_eq!(names, ["a.txt"], "{on_restored:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_late_receipt_deletes_no_source_that_was_announced_again() {
        let sides = Sides {
            on_restored: OnRestored::Delete,
            ..Sides::open()
        };
        sides.announce("a.txt", "one").await;
        sides
            .compress_until(async || sides.waiting().await == [0, 1, 0])
            .await;
        let receipts = sides.local.receipts_queue();
        sides
            .restore_until(receipts, async || sides.waiting().await == [0, 0, 1])
            .await;
        // The same file with the same content is announced again: nothing at the source tells the two apart.
        let name = FileName::parse("a.txt").expect("a valid name");
        let announced = sides.announcer.announce_current(&name).await;
        announced.expect("announced");
        sides
            .compress_until(async || sides.waiting().await == [0, 1, 0])
            .await;
        assert!(sides.root.path().join("in/a.txt").exists());
    }

    #[tokio::test]
    async fn while_the_receipts_queue_is_down_files_are_restored_and_their_receipts_follow() {
        let sides = Sides::open();
        for name in ["a.txt", "b.txt", "c.txt"] {
            sides.announce(name, name).await;
        }
        sides
            .compress_until(async || sides.waiting().await == [0, 3, 0])
            .await;
        let receipts = Flaky::new(sides.local.receipts_queue());
        *receipts.is_down.lock() = true;
        let (watched, mut was_down) = (receipts.clone(), false);
        sides
            .restore_until(receipts.clone(), async || {
                let waiting = sides.waiting().await;
                if !was_down && waiting == [0, 0, 0] {
                    was_down = true;
                    *watched.is_down.lock() = false;
                }
                waiting == [0, 0, 3]
            })
            .await;
        assert!(was_down && *receipts.refused.lock() > 0);
        for name in ["a.txt", "b.txt", "c.txt"] {
            assert_eq!(sides.restored(name).as_deref(), Some(name));
        }
    }

    #[tokio::test]
    async fn while_the_receipts_queue_is_down_the_message_of_an_unusable_file_waits() {
        let sides = Sides::open();
        sides.announce("a.txt", "words").await;
        sides
            .compress_until(async || sides.waiting().await == [0, 1, 0])
            .await;
        *sides.is_stream_lost.lock() = true;
        let receipts = Flaky::new(sides.local.receipts_queue());
        *receipts.is_down.lock() = true;
        let watched = receipts.clone();
        sides
            .restore_until(receipts, async || *watched.refused.lock() > 0)
            .await;
        assert_eq!(sides.waiting().await, [0, 1, 0]);
        assert!(sides.dead().await.is_empty());
    }

    #[tokio::test]
    async fn receipts_of_files_that_are_done_together_are_one_batch() {
        let sides = Sides::open();
        let queue = Flaky::new(sides.local.receipts_queue());
        let permits = queue.gate.available_permits();
        queue.gate.forget_permits(permits);
        let sender = ReceiptSender::new(queue.clone(), false);
        let message = |number: usize| Outgoing {
            group: format!("g{number}"),
            dedup_id: format!("d{number}"),
            body: "{}".into(),
            attributes: BTreeMap::new(),
        };
        let sends = (0..9).map(|number| sender.send(message(number)));
        let (outcomes, ()) = tokio::join!(futures::future::join_all(sends), async {
            // The first is on its way, and the others wait for it.
            while sender.waiting.lock().len() < 8 {
                tokio::task::yield_now().await;
            }
            queue.gate.add_permits(2);
        });
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(*queue.sends.lock(), 2);
        assert_eq!(total(&*queue).await, 9);
    }
}
