//! Which version of a file stays at the destination: the one that was announced last, whatever its modification time
//! says and whatever others do to the restored copy. Each case holds with the journal of a data folder and with the one
//! that a shared destination keeps itself.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use streampress::consume::HandlerError;
use streampress::destination::{
    DatabaseJournal, Destination, DestinationJournal, EntryState, FilesJournal, JournalEntry,
};
use streampress::journal::{FileJournal, JournalFile, SqliteJournal};
use streampress::message::{Digest, Manifest, Message};
use streampress::roles::announce::AnnouncementFormat;
use streampress_transport::contract_tests::{FilesTap, StreamTap, TappedFiles, TappedStream};
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{
    ChunkStream, DeadLetterReason, Failure, FileEntry, FileName, Files, Outgoing, PendingFile,
    Position, SlotLock, TransportResult,
};
use tokio_util::sync::CancellationToken;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, complete_next, handle_next};

const NAME: &str = "folder/a.txt";

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

/// A pipeline whose roles are stepped by the test.
struct Pipeline {
    fixture: Fixture,
    destination: Destination,
    /// Distinguishes messages that are sent again.
    repeats: Mutex<u32>,
}

impl Pipeline {
    fn with_database() -> Self {
        let fixture = Fixture::open();
        let journal = SqliteJournal::open(&fixture.local).expect("opens");
        let files = fixture.files("out");
        let journal = DatabaseJournal::new(journal, fixture.local.dir(), files.location());
        let destination = Destination::new(files, Arc::new(journal));
        Self::new(fixture, destination)
    }

    fn with_own_journal() -> Self {
        let fixture = Fixture::open();
        let destination = fixture.destination("out");
        Self::new(fixture, destination)
    }

    fn both() -> [Self; 2] {
        [Self::with_database(), Self::with_own_journal()]
    }

    fn new(fixture: Fixture, destination: Destination) -> Self {
        std::fs::create_dir(fixture.folder().join("folder")).expect("made");
        Self {
            fixture,
            destination,
            repeats: Mutex::new(0),
        }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.fixture.folder().with_file_name("out").join(name)
    }

    /// The restored file's content.
    fn restored(&self) -> Option<String> {
        std::fs::read_to_string(self.out(NAME)).ok()
    }

    /// Contents of the files that were moved out of the way.
    fn displaced(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.out(".streampress/displaced")) else {
            return Vec::new();
        };
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(entry.expect("listed").path()).expect("read")
        };
        entries.map(read).collect()
    }

    /// Writes a version at the source, announces and compresses it; returns its manifest, taken from the queue.
    async fn pack(&self, content: &str, modified: SystemTime) -> Manifest {
        let entry = self.fixture.write(NAME, content.as_bytes());
        std::fs::File::options()
            .write(true)
            .open(self.fixture.folder().join(NAME))
            .and_then(|file| file.set_modified(modified))
            .expect("its time is set");
        let entry = self.fixture.source.stat(&entry.name);
        let announcer = self.fixture.announcer(AnnouncementFormat::Native);
        let entry = entry.expect("read").expect("there");
        announcer.announce(&entry).await.expect("announced");
        let local = &self.fixture.local;
        let compressor = self.fixture.compressor(local.stream());
        complete_next(&compressor, &*local.files_queue())
            .await
            .expect("compressed");
        let chunks = local.chunks_queue();
        let deliveries = chunks.receive(1, Duration::ZERO).await.expect("received");
        chunks
            .delete(&deliveries[0].receipt)
            .await
            .expect("deleted");
        match Message::parse(&deliveries[0].body) {
            Ok(Message::Manifest(manifest)) => manifest,
            other => panic!("{other:?}"),
        }
    }

    async fn restore(&self, manifest: &Manifest) {
        self.try_restore(manifest).await.expect("handled");
    }

    async fn try_restore(&self, manifest: &Manifest) -> Result<(), HandlerError> {
        self.restore_from(manifest, self.fixture.local.stream())
            .await
    }

    /// Sends the manifest and has a decompressor handle it.
    async fn restore_from(
        &self,
        manifest: &Manifest,
        stream: Arc<dyn ChunkStream>,
    ) -> Result<(), HandlerError> {
        let number = {
            let mut repeats = self.repeats.lock();
            *repeats += 1;
            *repeats
        };
        let local = &self.fixture.local;
        let chunks = local.chunks_queue();
        let message = Outgoing {
            group: format!("group-{number}"),
            dedup_id: format!("dedup-{number}"),
            body: manifest.to_json(),
            attributes: Default::default(),
        };
        chunks.send(vec![message]).await.expect("sent");
        let decompressor = self.fixture.decompressor(self.destination.clone(), stream);
        complete_next(&decompressor, &*chunks).await.map(drop)
    }
}

#[tokio::test]
async fn a_later_announcement_with_an_older_modification_time_is_restored() {
    for pipeline in Pipeline::both() {
        let first = pipeline.pack("day 1", time(100)).await;
        pipeline.restore(&first).await;
        let second = pipeline.pack("day 0, rolled back", time(0)).await;
        pipeline.restore(&second).await;
        assert_eq!(pipeline.restored().as_deref(), Some("day 0, rolled back"));
        let modified = std::fs::metadata(pipeline.out(NAME))
            .expect("there")
            .modified();
        assert_eq!(modified.expect("known"), time(0));
        assert!(pipeline.displaced().is_empty());
    }
}

#[tokio::test]
async fn other_content_of_the_same_size_and_modification_time_is_restored() {
    for pipeline in Pipeline::both() {
        let first = pipeline.pack("one", time(5)).await;
        let second = pipeline.pack("two", time(5)).await;
        for (manifest, content) in [(&first, "one"), (&second, "two")] {
            pipeline.restore(manifest).await;
            assert_eq!(pipeline.restored().as_deref(), Some(content));
        }
    }
}

#[tokio::test]
async fn content_that_returns_to_an_earlier_one_is_restored() {
    for pipeline in Pipeline::both() {
        for (content, seconds) in [("A", 3), ("B", 2), ("A", 1)] {
            let manifest = pipeline.pack(content, time(seconds)).await;
            pipeline.restore(&manifest).await;
            assert_eq!(pipeline.restored().as_deref(), Some(content));
        }
        assert!(pipeline.displaced().is_empty());
    }
}

#[tokio::test]
async fn a_touched_copy_is_replaced_by_the_next_version_and_left_alone_by_the_same() {
    for pipeline in Pipeline::both() {
        let first = pipeline.pack("first", time(0)).await;
        pipeline.restore(&first).await;
        let touched = SystemTime::now() + Duration::from_secs(3600);
        let copy = std::fs::File::options()
            .write(true)
            .open(pipeline.out(NAME));
        copy.and_then(|file| file.set_modified(touched))
            .expect("touched");
        pipeline.restore(&first).await;
        let modified = std::fs::metadata(pipeline.out(NAME))
            .expect("there")
            .modified();
        assert_eq!(modified.expect("known"), touched);
        let second = pipeline.pack("second", time(1)).await;
        pipeline.restore(&second).await;
        assert_eq!(pipeline.restored().as_deref(), Some("second"));
        assert!(pipeline.displaced().is_empty(), "our own copy was kept");
    }
}

#[tokio::test]
async fn an_edited_copy_is_left_alone_by_the_same_version_and_set_aside_by_the_next() {
    for pipeline in Pipeline::both() {
        let first = pipeline.pack("first", time(0)).await;
        pipeline.restore(&first).await;
        std::fs::write(pipeline.out(NAME), "edited").expect("written");
        pipeline.restore(&first).await;
        assert_eq!(pipeline.restored().as_deref(), Some("edited"));
        let second = pipeline.pack("second", time(1)).await;
        pipeline.restore(&second).await;
        assert_eq!(pipeline.restored().as_deref(), Some("second"));
        assert_eq!(pipeline.displaced(), ["edited"]);
    }
}

#[tokio::test]
async fn a_file_of_another_program_in_the_way_is_set_aside_and_not_listed() {
    for pipeline in Pipeline::both() {
        let manifest = pipeline.pack("ours", time(0)).await;
        std::fs::create_dir_all(pipeline.out("folder")).expect("made");
        std::fs::write(pipeline.out(NAME), "newer, from elsewhere").expect("written");
        pipeline.restore(&manifest).await;
        assert_eq!(pipeline.restored().as_deref(), Some("ours"));
        assert_eq!(pipeline.displaced(), ["newer, from elsewhere"]);
        let listed = pipeline.fixture.files("out").list().expect("listed").files;
        assert_eq!(listed.len(), 1, "{listed:?}");
    }
}

#[tokio::test]
async fn the_same_bytes_of_another_program_are_adopted_with_their_time() {
    for pipeline in Pipeline::both() {
        let manifest = pipeline.pack("the same", time(7)).await;
        std::fs::create_dir_all(pipeline.out("folder")).expect("made");
        std::fs::write(pipeline.out(NAME), "the same").expect("written");
        pipeline.restore(&manifest).await;
        let modified = std::fs::metadata(pipeline.out(NAME))
            .expect("there")
            .modified();
        assert_eq!(modified.expect("known"), time(7));
        assert!(pipeline.displaced().is_empty());
        let next = pipeline.pack("the next", time(8)).await;
        pipeline.restore(&next).await;
        assert!(pipeline.displaced().is_empty(), "it counts as ours");
    }
}

#[tokio::test]
async fn a_restored_file_that_was_removed_is_restored_by_a_repeat() {
    for pipeline in Pipeline::both() {
        let manifest = pipeline.pack("again", time(0)).await;
        pipeline.restore(&manifest).await;
        std::fs::remove_dir_all(pipeline.out("folder")).expect("removed");
        pipeline.restore(&manifest).await;
        assert_eq!(pipeline.restored().as_deref(), Some("again"));
    }
}

#[tokio::test]
async fn a_late_manifest_of_an_older_version_is_superseded_even_where_the_newer_was_moved_away() {
    for pipeline in Pipeline::both() {
        let (older, newer) = (
            pipeline.pack("older", time(9)).await,
            pipeline.pack("newer", time(1)).await,
        );
        pipeline.restore(&newer).await;
        pipeline.restore(&older).await;
        assert_eq!(pipeline.restored().as_deref(), Some("newer"));
        std::fs::remove_file(pipeline.out(NAME)).expect("moved away");
        pipeline.restore(&older).await;
        assert_eq!(pipeline.restored(), None);
    }
}

/// A slow stream: before it answers, another worker restores the next version.
#[derive(Debug)]
struct RestoredMeanwhile {
    restoring: Mutex<Option<tokio::sync::oneshot::Sender<()>>>,
    restored: tokio::sync::Mutex<Option<tokio::sync::oneshot::Receiver<()>>>,
}

#[async_trait]
impl StreamTap for RestoredMeanwhile {
    async fn before_fetch(&self, _positions: &[Position]) -> TransportResult<()> {
        let restoring = self.restoring.lock().take();
        if let Some(restoring) = restoring {
            restoring.send(()).expect("the other worker waits");
        }
        let restored = self.restored.lock().await.take();
        if let Some(restored) = restored {
            restored.await.expect("the other worker restores");
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_newer_version_that_appears_while_an_older_one_is_unpacked_is_not_overwritten() {
    for pipeline in Pipeline::both() {
        let older = pipeline.pack("version one", time(9)).await;
        let newer = pipeline.pack("version two", time(1)).await;
        let (restoring, starts) = tokio::sync::oneshot::channel();
        let (ends, restored) = tokio::sync::oneshot::channel();
        let meanwhile = RestoredMeanwhile {
            restoring: Mutex::new(Some(restoring)),
            restored: tokio::sync::Mutex::new(Some(restored)),
        };
        let late = TappedStream::new(pipeline.fixture.local.stream(), meanwhile);
        let another_worker = async {
            starts.await.expect("the first worker fetches");
            pipeline.restore(&newer).await;
            ends.send(()).expect("the first worker waits");
        };
        let first_worker = pipeline.restore_from(&older, late);
        tokio::join!(first_worker, another_worker)
            .0
            .expect("handled");
        assert_eq!(pipeline.restored().as_deref(), Some("version two"));
    }
}

#[tokio::test]
async fn a_manifest_of_a_release_without_versions_counts_by_its_own_place_in_the_queue() {
    for pipeline in Pipeline::both() {
        for (content, keeps_version) in [("1", false), ("2", false), ("3", true), ("4", false)] {
            let mut manifest = pipeline.pack(content, time(0)).await;
            if !keeps_version {
                manifest.file_version = None;
            }
            pipeline.restore(&manifest).await;
            assert_eq!(pipeline.restored().as_deref(), Some(content));
        }
    }
}

#[tokio::test]
async fn a_worker_that_ended_before_its_file_was_visible_leaves_the_older_one_known_as_ours() {
    for pipeline in Pipeline::both() {
        let first = pipeline.pack("first", time(0)).await;
        pipeline.restore(&first).await;
        let second = pipeline.pack("second", time(1)).await;
        let journal = pipeline.destination.journal();
        let name = FileName::parse(NAME).expect("a valid name");
        let stored = journal.load(&name).await.expect("read").expect("there");
        let intent = JournalEntry {
            version: second.file_version.clone(),
            hash: second.file.hash.clone(),
            bytes: second.file.bytes,
            state: EntryState::Intent,
            fingerprint: None,
            replaces: Some(Digest::of(b"first")),
            written_millis: 0,
            original: None,
        };
        journal
            .store(&name, &intent, Some(&stored))
            .await
            .expect("stored");
        pipeline.restore(&second).await;
        assert_eq!(pipeline.restored().as_deref(), Some("second"));
        assert!(pipeline.displaced().is_empty());
    }
}

/// The calls of a file being written before which a test does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallStep {
    Prepare,
    CommitOver,
}

/// What a test does.
type Act = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Does something right before a call of each file being written.
#[derive(Clone)]
struct BeforeCall {
    step: CallStep,
    act: Act,
}

impl BeforeCall {
    fn new(step: CallStep, act: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        let act = Arc::new(act);
        Self { step, act }
    }

    fn reach(&self, step: CallStep) -> io::Result<()> {
        match self.step == step {
            true => (self.act)(),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for BeforeCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BeforeCall").field(&self.step).finish()
    }
}

struct PendingBefore {
    pending: Box<dyn PendingFile>,
    before: BeforeCall,
}

impl FilesTap for BeforeCall {
    fn create(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        Ok(Box::new(PendingBefore {
            pending: files.create(name)?,
            before: self.clone(),
        }))
    }
}

impl Write for PendingBefore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pending.flush()
    }
}

impl PendingFile for PendingBefore {
    fn prepare(&mut self) -> io::Result<()> {
        self.before.reach(CallStep::Prepare)?;
        self.pending.prepare()
    }

    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.pending.commit(modified)
    }

    fn commit_over(
        self: Box<Self>,
        modified: SystemTime,
        seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry> {
        self.before.reach(CallStep::CommitOver)?;
        self.pending.commit_over(modified, seen)
    }
}

#[tokio::test]
async fn a_restored_file_that_is_away_for_a_moment_is_not_set_aside_when_it_is_back() {
    for (number, mut pipeline) in Pipeline::both().into_iter().enumerate() {
        let first = pipeline.pack("first", time(0)).await;
        pipeline.restore(&first).await;
        let (name, held) = (pipeline.out(NAME), pipeline.out("held"));
        std::fs::rename(&name, &held).expect("taken away");
        let back = BeforeCall::new(CallStep::CommitOver, move || match held.exists() {
            true => std::fs::rename(&held, &name),
            false => Ok(()),
        });
        let files = pipeline.fixture.files("out");
        let tapped = TappedFiles::new(files.clone(), back);
        pipeline.destination = match number {
            0 => {
                let local = &pipeline.fixture.local;
                let journal = SqliteJournal::open(local).expect("opens");
                let journal = DatabaseJournal::new(journal, local.dir(), files.location());
                Destination::new(tapped, Arc::new(journal))
            }
            _ => Destination::new(tapped, Arc::new(FilesJournal::new(files, None))),
        };
        let second = pipeline.pack("second", time(1)).await;
        let outcome = pipeline.try_restore(&second).await;
        assert!(
            matches!(outcome, Err(HandlerError::Transient(_))),
            "{outcome:?}"
        );
        assert_eq!(pipeline.restored().as_deref(), Some("first"));
        pipeline.restore(&second).await;
        assert_eq!(pipeline.restored().as_deref(), Some("second"));
        assert!(pipeline.displaced().is_empty(), "the first is our own");
    }
}

#[tokio::test]
async fn a_worker_that_is_stopped_while_it_uploads_makes_nothing_visible() {
    let pipeline = Pipeline::with_own_journal();
    let manifest = pipeline.pack("content", time(0)).await;
    let (local, files) = (&pipeline.fixture.local, pipeline.fixture.files("out"));
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let stopped = BeforeCall::new(CallStep::Prepare, move || {
        stopping.cancel();
        Ok(())
    });
    let tapped = TappedFiles::new(files.clone(), stopped);
    let destination = Destination::new(tapped, Arc::new(FilesJournal::new(files, None)));
    let decompressor = pipeline.fixture.decompressor(destination, local.stream());
    let chunks = local.chunks_queue();
    let message = Outgoing {
        group: "group".into(),
        dedup_id: "dedup".into(),
        body: manifest.to_json(),
        attributes: Default::default(),
    };
    chunks.send(vec![message]).await.expect("sent");
    let slot = InProcessLock::new("test", 1).try_acquire().await;
    let slot = slot.expect("asked").expect("free");
    let outcome = handle_next(&decompressor, &*chunks, &slot, &stop).await;
    assert!(
        matches!(outcome, Err(HandlerError::Interrupted)),
        "{outcome:?}"
    );
    assert_eq!(pipeline.restored(), None);
    pipeline.restore(&manifest).await;
    assert_eq!(pipeline.restored().as_deref(), Some("content"));
}

#[tokio::test]
async fn a_name_that_cannot_be_had_is_a_dead_letter_that_says_why() {
    for pipeline in Pipeline::both() {
        let manifest = pipeline.pack("content", time(0)).await;
        let mut reserved = manifest.clone();
        reserved.file.name = FileName::parse(".streampress/journal/a.json").expect("valid");
        let refused = |outcome: Result<(), HandlerError>, why: &str| match outcome {
            Err(HandlerError::Permanent(Failure { reason, detail })) => {
                assert_eq!(reason, DeadLetterReason::BadName);
                assert!(detail.contains(why), "{detail}");
            }
            other => panic!("{other:?}"),
        };
        refused(pipeline.try_restore(&reserved).await, "reserved");
        std::fs::create_dir_all(pipeline.out(NAME)).expect("a folder in the way");
        refused(pipeline.try_restore(&manifest).await, "not a file");
        std::fs::remove_dir_all(pipeline.out("folder")).expect("removed");
        std::fs::write(pipeline.out("folder"), "a file in the way").expect("written");
        refused(pipeline.try_restore(&manifest).await, "folder");
    }
}

#[tokio::test]
async fn files_that_an_earlier_release_restored_are_replaced_and_not_set_aside() {
    let root = tempfile::tempdir().expect("a folder");
    let open = || Local::open(root.path(), LocalOptions::default()).expect("opens");
    let local = open();
    let journal = SqliteJournal::open(&local).expect("opens");
    let file = JournalFile {
        file_id: "id".into(),
        name: NAME.into(),
        raw_bytes: 3,
        modified: time(0),
        hash: Digest::of(b"old").as_str().to_owned(),
    };
    journal.record_announced(&file).await.expect("recorded");
    journal.record_restored("id", 2).await.expect("recorded");
    drop((journal, local));
    // As a release without the table left it.
    let database = rusqlite::Connection::open(root.path().join("streampress.db")).expect("opens");
    database
        .execute_batch(
            "DROP TABLE destination; UPDATE modules SET version = 1 WHERE module = 'journal';
             DELETE FROM modules WHERE module = 'destinations'",
        )
        .expect("changed");
    drop(database);
    let local = open();
    let journal = SqliteJournal::open(&local).expect("opens");
    let journal = DatabaseJournal::new(journal, local.dir(), "file:///data/out");
    let name = FileName::parse(NAME).expect("a valid name");
    let stored = journal.load(&name).await.expect("read").expect("adopted");
    assert_eq!(stored.entry.hash, Digest::of(b"old"));
    assert_eq!(stored.entry.version, None);
    assert_eq!(stored.entry.state, EntryState::Visible);
}
