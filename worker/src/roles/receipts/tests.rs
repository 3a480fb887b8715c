//! Receipts from a decompressor to the source and back.

use std::path::Path;

use async_trait::async_trait;
use streampress_codec::hybrid;
use streampress_crds::Role;
use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
use streampress_transport::contract_tests::{QueueTap, StreamTap, TappedQueue, TappedStream};
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::local::files::LocalFiles;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{FileName, Files, Position};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::consume::joined::JoinedQueue;
use crate::consume::{Consumer, Handler};
use crate::destination::Destination;
use crate::journal::{NoJournal, SourceJournal, SqliteJournal};
use crate::message::{Message, parse_count};
use crate::roles::announce::AnnouncementFormat;
use crate::roles::compress::Compressor;
use crate::roles::decompress::Decompressor;
use crate::roles::source::{SettleTime, SourceFilter, apply_on_compressed};
use crate::telemetry::metrics::{Meter, RetryCause};

/// Files, chunks and receipts of one data folder; the two sides share no journal.
struct Sides {
    root: tempfile::TempDir,
    local: Local,
    journal: SqliteJournal,
    announcer: Announcer,
    is_stream_lost: Arc<Mutex<bool>>,
    on_compressed: OnCompressed,
    on_restored: OnRestored,
    settle: SettleTime,
}

/// All records have expired while this is true.
#[derive(Debug)]
struct LostRecords(Arc<Mutex<bool>>);

#[async_trait]
impl StreamTap for LostRecords {
    async fn before_fetch(&self, positions: &[Position]) -> TransportResult<()> {
        match *self.0.lock() {
            true => Err(TransportError::Expired(positions[0].clone())),
            false => Ok(()),
        }
    }
}

/// Refuses what is sent while it is down, and counts calls of `send`.
#[derive(Debug)]
struct Outage {
    is_down: Mutex<bool>,
    sends: Mutex<usize>,
    refused: Mutex<usize>,
    gate: tokio::sync::Semaphore,
}

/// A queue that may be down.
fn unreliable(inner: Arc<dyn Queue>) -> Arc<TappedQueue<Outage>> {
    let outage = Outage {
        is_down: Mutex::new(false),
        sends: Mutex::new(0),
        refused: Mutex::new(0),
        gate: tokio::sync::Semaphore::new(1_000_000),
    };
    TappedQueue::new(inner, outage)
}

#[async_trait]
impl QueueTap for Outage {
    async fn before_send(&self, _messages: &[Outgoing]) -> TransportResult<()> {
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
        *self.sends.lock() += 1;
        if *self.is_down.lock() {
            *self.refused.lock() += 1;
            return Err(TransportError::unavailable("sending", "the queue is down"));
        }
        Ok(())
    }
}

fn files(folder: &Path) -> Arc<dyn Files> {
    Arc::new(LocalFiles::open("file:///data/in", folder).expect("opens"))
}

impl Sides {
    /// With `a.txt` packed and restored, and its receipt under way.
    async fn that_restored(on_restored: OnRestored) -> Self {
        let sides = Self {
            on_restored,
            ..Self::open()
        };
        sides.announce("a.txt", "one").await;
        sides.pack().await;
        sides.restore().await;
        sides
    }

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
            on_compressed: OnCompressed::Keep,
            on_restored: OnRestored::Keep,
            settle: SettleTime::default(),
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
            bundler: None,
            record_bytes: 400 << 10,
            on_compressed: self.on_compressed,
            on_restored: self.on_restored,
            spared: None,
            report: None,
            settle: self.settle,
            filter: SourceFilter {
                formats: vec![SourceFormat::Txt],
                skips_renamed: false,
            },
            journal: Arc::new(self.journal.clone()),
        }
    }

    /// Works as a compressor until the condition holds.
    async fn compress_until(&self, holds: impl AsyncFnMut() -> bool) {
        let queue = JoinedQueue::new(self.local.files_queue(), self.local.receipts_queue());
        let handler = Arc::new(self.compressor());
        consume_until(Role::Compressor, Arc::new(queue), handler, holds).await;
    }

    /// Works as a decompressor that has no journal of the source until the condition holds.
    async fn restore_until(&self, receipts: Arc<dyn Queue>, holds: impl AsyncFnMut() -> bool) {
        let out = self.root.path().join("out");
        let destination = Destination::with_own_journal(files(&out), Some(&out));
        let lost = LostRecords(self.is_stream_lost.clone());
        let stream = TappedStream::new(self.local.stream(), lost);
        let journal = Arc::new(NoJournal);
        let mut decompressor = Decompressor::new(destination, stream, 1, None, journal);
        decompressor.receipts = Some(ReceiptSender::new(receipts, false));
        let queue = self.local.chunks_queue();
        consume_until(Role::Decompressor, queue, Arc::new(decompressor), holds).await;
    }

    /// Packs the one file that waits.
    async fn pack(&self) {
        self.compress_until(async || self.waiting().await == [0, 1, 0])
            .await;
    }

    /// Handles the one manifest that waits; its receipt waits then.
    async fn restore(&self) {
        let receipts = self.local.receipts_queue();
        self.restore_until(receipts, async || self.waiting().await == [0, 0, 1])
            .await;
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
        self.restore().await;
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
    holds: impl AsyncFnMut() -> bool,
) {
    consume_counting(role, queue, handler, Meter::default(), holds).await;
}

async fn consume_counting(
    role: Role,
    queue: Arc<dyn Queue>,
    handler: Arc<dyn Handler>,
    meter: Meter,
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
        meter,
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
    sides.pack().await;
    assert_eq!(sides.state("a.txt").await, SourceState::Sent);
    sides.restore().await;
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
    sides.pack().await;
    sides.restore().await;
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
    sides.restore().await;
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
    assert!(dead[0].2.contains("3 times without success"), "{dead:?}");
    assert_eq!(sides.state("a.txt").await, SourceState::Dead);
}

#[tokio::test]
async fn a_receipt_is_parsed_once_also_where_it_becomes_a_dead_letter() {
    let sides = Sides::open();
    sides.announce("a.txt", "words").await;
    sides.pack().await;
    assert_eq!(parse_count::get(), 1, "the announcement");
    std::fs::remove_file(sides.root.path().join("in/a.txt")).expect("removed");
    *sides.is_stream_lost.lock() = true;
    sides.restore().await;
    assert_eq!(parse_count::get(), 2, "the manifest");
    sides
        .compress_until(async || sides.waiting().await == [0, 0, 0])
        .await;
    assert_eq!(parse_count::get(), 3, "the receipt");
    assert_eq!(sides.dead().await.len(), 1);
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
    sides.pack().await;
    sides.restore().await;
    let folder = sides.root.path().join("in");
    change(&folder.join("a.txt"));
    // Content that took its place is announced and packed.
    sides
        .compress_until(async || sides.waiting().await[2] == 0)
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

/// Works as a compressor until a message was put off.
async fn put_off(sides: &Sides) {
    let queue = JoinedQueue::new(sides.local.files_queue(), sides.local.receipts_queue());
    let handler = Arc::new(sides.compressor());
    let meter = Meter::default();
    let watched = meter.clone();
    let was_put_off = async || watched.was_retried(RetryCause::NotYet);
    consume_counting(
        Role::Compressor,
        Arc::new(queue),
        handler,
        meter,
        was_put_off,
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_still_written_is_not_packed_where_it_would_be_deleted_then() {
    let mut sides = Sides {
        on_compressed: OnCompressed::Delete,
        settle: SettleTime(Duration::from_secs(3600)),
        ..Sides::open()
    };
    sides.announce("a.txt", "one").await;
    put_off(&sides).await;
    assert_eq!(sides.waiting().await, [1, 0, 0]);
    let path = sides.root.path().join("in/a.txt");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "one");
    // Once it has held still it is packed and deleted.
    sides.settle = SettleTime::default();
    let handler = sides.compressor();
    sides.announce("b.txt", "two").await;
    let queue = sides.local.files_queue();
    let is_done = async || !sides.root.path().join("in/b.txt").exists();
    consume_until(Role::Compressor, queue, Arc::new(handler), is_done).await;
    assert_eq!(sides.waiting().await, [1, 1, 0]);
}

#[tokio::test]
async fn what_a_worker_that_was_killed_after_packing_did_not_take_away_is_taken_away_once_it_is_restored()
 {
    for (on_compressed, left) in [
        (OnCompressed::Rename, vec!["a_delete.txt"]),
        (OnCompressed::Delete, Vec::new()),
    ] {
        // Packed by a compressor that ended before it could act on that.
        let mut sides = Sides::open();
        sides.announce("a.txt", "one").await;
        sides.pack().await;
        sides.on_compressed = on_compressed;
        sides.restore().await;
        let is_done = async || sides.waiting().await == [0, 0, 0];
        sides.compress_until(is_done).await;
        let names = std::fs::read_dir(sides.root.path().join("in")).expect("a folder");
        let names = names.map(|entry| entry.expect("readable").file_name());
        let names: Vec<_> = names.filter(|it| it != ".streampress").collect();
        assert_eq!(names, left, "{on_compressed:?}");
        assert_eq!(sides.restored("a.txt").as_deref(), Some("one"));
    }
}

#[tokio::test]
async fn a_file_whose_source_lies_in_its_place_is_a_dead_letter_and_is_not_deleted() {
    let sides = Sides {
        on_restored: OnRestored::Delete,
        ..Sides::open()
    };
    let [source, copy] = ["in", "out"].map(|folder| sides.root.path().join(folder).join("a.txt"));
    std::fs::create_dir(sides.root.path().join("out")).expect("made");
    std::fs::write(&source, "one").expect("written");
    // As where both folders are one, by a mount.
    std::fs::hard_link(&source, &copy).expect("linked");
    let name = FileName::parse("a.txt").expect("a valid name");
    let announced = sides.announcer.announce_current(&name).await;
    announced.expect("announced");
    sides.pack().await;
    let is_handled = async || sides.waiting().await == [0, 0, 0];
    sides
        .restore_until(sides.local.receipts_queue(), is_handled)
        .await;
    let dead = sides.local.chunks_queue().dead_letters();
    assert_eq!(total(&*dead.expect("kept")).await, 1);
    assert!(source.exists());
}

#[tokio::test]
async fn a_file_whose_manifest_could_not_be_sent_is_not_taken_for_packed() {
    let sides = Sides::open();
    sides.announce("a.txt", "one").await;
    let chunks = unreliable(sides.local.chunks_queue());
    *chunks.tap.is_down.lock() = true;
    let handler = Compressor {
        chunks_queue: chunks.clone(),
        ..sides.compressor()
    };
    let queue = sides.local.files_queue();
    let is_refused = async || *chunks.tap.refused.lock() > 0;
    consume_until(Role::Compressor, queue, Arc::new(handler), is_refused).await;
    assert_eq!(sides.waiting().await, [1, 0, 0]);
    sides.pack().await;
}

#[tokio::test]
async fn what_is_appended_after_a_file_was_packed_stays_and_is_announced() {
    let sides = Sides {
        on_compressed: OnCompressed::Delete,
        ..Sides::open()
    };
    let path = sides.root.path().join("in/a.txt");
    std::fs::write(&path, "one").expect("written");
    let name = FileName::parse("a.txt").expect("a valid name");
    let entry = sides.announcer.source_entry(&name).await.expect("there");
    let packed = sides.announcer.identify(&entry).await.expect("read");
    std::fs::write(&path, "one, and more").expect("written");
    apply_on_compressed(&sides.announcer, &packed, OnCompressed::Delete).await;
    assert!(path.exists());
    assert_eq!(sides.waiting().await, [1, 0, 0]);
    sides.pack().await;
    sides.restore().await;
    assert_eq!(sides.restored("a.txt").as_deref(), Some("one, and more"));
}

#[tokio::test]
async fn a_restored_file_that_changed_a_short_time_ago_is_not_deleted_yet() {
    let mut sides = Sides {
        on_restored: OnRestored::Delete,
        settle: SettleTime(Duration::from_secs(3600)),
        ..Sides::open()
    };
    sides.announce("a.txt", "one").await;
    sides.pack().await;
    sides.restore().await;
    put_off(&sides).await;
    assert_eq!(sides.waiting().await, [0, 0, 1], "its receipt");
    assert!(sides.root.path().join("in/a.txt").exists());
    sides.settle = SettleTime::default();
    sides.announce("b.txt", "two").await;
    let is_packed = async || sides.waiting().await == [0, 1, 1];
    sides.compress_until(is_packed).await;
    let both = async || sides.waiting().await == [0, 0, 2];
    sides
        .restore_until(sides.local.receipts_queue(), both)
        .await;
    let is_deleted = async || !sides.root.path().join("in/b.txt").exists();
    sides.compress_until(is_deleted).await;
}

#[tokio::test]
async fn a_link_or_a_folder_in_the_place_of_a_restored_source_stays_and_its_receipt_is_done() {
    for is_link in [true, false] {
        let sides = Sides::that_restored(OnRestored::Delete).await;
        let path = sides.root.path().join("in/a.txt");
        let target = sides.root.path().join("in/b.txt");
        std::fs::rename(&path, &target).expect("renamed");
        match is_link {
            true => std::os::unix::fs::symlink("b.txt", &path).expect("linked"),
            false => std::fs::create_dir(&path).expect("made"),
        }
        sides
            .compress_until(async || sides.waiting().await == [0, 0, 0])
            .await;
        assert!(path.exists() && target.exists());
    }
}

#[tokio::test]
async fn a_source_that_changed_before_its_receipt_came_is_announced_again() {
    let sides = Sides::that_restored(OnRestored::Delete).await;
    std::fs::write(sides.root.path().join("in/a.txt"), "one, and more").expect("written");
    sides.pack().await;
    sides.restore().await;
    assert_eq!(sides.restored("a.txt").as_deref(), Some("one, and more"));
    sides
        .compress_until(async || sides.waiting().await == [0, 0, 0])
        .await;
    assert!(!sides.root.path().join("in/a.txt").exists());
}

#[tokio::test]
async fn a_late_receipt_deletes_no_source_that_was_announced_again() {
    let sides = Sides::that_restored(OnRestored::Delete).await;
    // The same file with the same content is announced again: nothing at the source tells the two apart.
    let name = FileName::parse("a.txt").expect("a valid name");
    let announced = sides.announcer.announce_current(&name).await;
    announced.expect("announced");
    sides.pack().await;
    assert!(sides.root.path().join("in/a.txt").exists());
}

#[tokio::test]
async fn a_source_that_a_killed_worker_had_set_aside_is_renamed_or_deleted_by_the_next() {
    let set_aside = |path: &Path| {
        let aside = path.with_file_name(".streampress-0123456789abcdef.aside");
        std::fs::create_dir(&aside).expect("made");
        std::fs::rename(path, aside.join("a.txt")).expect("set aside");
    };
    // By a listing, before the receipt comes again.
    let put_back = |path: &Path| {
        set_aside(path);
        let folder = path.parent().expect("a folder");
        let files = LocalFiles::open("file:///data/in", folder).expect("opens");
        files.list().expect("listed");
        assert!(path.exists());
    };
    for (on_restored, left) in [
        (OnRestored::Rename, &["a_delete.txt"][..]),
        (OnRestored::Delete, &[]),
    ] {
        for change in [&set_aside as &dyn Fn(&Path), &put_back] {
            let names = left_at_the_source(on_restored, "words", change).await;
            assert_eq!(names, left, "{on_restored:?}");
        }
    }
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
    let receipts = unreliable(sides.local.receipts_queue());
    *receipts.tap.is_down.lock() = true;
    let (watched, mut was_down) = (receipts.clone(), false);
    sides
        .restore_until(receipts.clone(), async || {
            let waiting = sides.waiting().await;
            if !was_down && waiting == [0, 0, 0] {
                was_down = true;
                *watched.tap.is_down.lock() = false;
            }
            waiting == [0, 0, 3]
        })
        .await;
    assert!(was_down && *receipts.tap.refused.lock() > 0);
    for name in ["a.txt", "b.txt", "c.txt"] {
        assert_eq!(sides.restored(name).as_deref(), Some(name));
    }
}

#[tokio::test]
async fn while_the_receipts_queue_is_down_the_message_of_an_unusable_file_waits() {
    let sides = Sides::open();
    sides.announce("a.txt", "words").await;
    sides.pack().await;
    *sides.is_stream_lost.lock() = true;
    let receipts = unreliable(sides.local.receipts_queue());
    *receipts.tap.is_down.lock() = true;
    let watched = receipts.clone();
    sides
        .restore_until(receipts, async || *watched.tap.refused.lock() > 0)
        .await;
    assert_eq!(sides.waiting().await, [0, 1, 0]);
    assert!(sides.dead().await.is_empty());
}

#[tokio::test]
async fn receipts_of_files_that_are_done_together_are_one_batch() {
    let sides = Sides::open();
    let queue = unreliable(sides.local.receipts_queue());
    let permits = queue.tap.gate.available_permits();
    queue.tap.gate.forget_permits(permits);
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
        queue.tap.gate.add_permits(2);
    });
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(*queue.tap.sends.lock(), 2);
    assert_eq!(total(&*queue).await, 9);
}
