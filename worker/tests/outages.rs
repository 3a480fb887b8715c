//! What a consumer does while a location takes no file at all: nothing becomes a dead letter, and it goes on by itself.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use streampress::destination::Destination;
use streampress::journal::{FileJournal, SqliteJournal};
use streampress::roles::announce::AnnouncementFormat;
use streampress::telemetry::metrics::NeededService;
use streampress_transport::contract_tests::{FilesTap, TappedFiles, eventually};
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::{FileEntry, FileName, Files, PendingFile, SlotLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, RunningConsumer, complete_next, handle_next};

const FILES: usize = 12;
const HOUR: Duration = Duration::from_secs(3600);

/// A location on a disk that has space only from a moment on.
#[derive(Debug)]
struct FullDisk {
    full_until: Instant,
}

struct FullFile;

impl Write for FullFile {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl PendingFile for FullFile {
    fn commit(self: Box<Self>, _modified: SystemTime) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn commit_over(
        self: Box<Self>,
        _modified: SystemTime,
        _seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl FilesTap for FullDisk {
    fn create(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        if Instant::now() < self.full_until {
            return Ok(Box::new(FullFile));
        }
        files.create(name)
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_for_an_hour_makes_no_dead_letter_and_everything_is_restored_afterwards() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    for number in 0..FILES {
        let entry = fixture.write(
            &format!("{number}.txt"),
            format!("words {number}").as_bytes(),
        );
        announcer.announce(&entry).await.expect("announced");
    }
    let compressing = RunningConsumer::start(
        fixture.local.files_queue(),
        Arc::new(InProcessLock::new("compressor", 1)),
        Arc::new(fixture.compressor(fixture.local.stream())),
        2,
        false,
    );
    compressing.conclude(FILES as u64).await;
    compressing.stop().await;

    let (restored, full_until) = (fixture.files("out"), Instant::now() + HOUR);
    let full = TappedFiles::new(restored.clone(), FullDisk { full_until });
    let folder = fixture.folder().with_file_name("out");
    let destination = Destination::with_own_journal(full, Some(&folder));
    let restoring = RunningConsumer::start(
        fixture.local.chunks_queue(),
        Arc::new(InProcessLock::new("decompressor", 1)),
        Arc::new(fixture.decompressor(destination, fixture.local.stream())),
        2,
        false,
    );
    let counts = || restoring.meter.counts();
    eventually("the outage is counted", async || {
        counts().outages.get(&NeededService::Destination) == Some(&1)
    })
    .await;
    eventually("nothing is in flight", async || counts().in_flight == 0).await;
    let received = counts().received;
    tokio::time::sleep_until(full_until - Duration::from_secs(1)).await;
    assert_eq!(counts().received, received, "nothing is received meanwhile");

    restoring.conclude(FILES as u64).await;
    let after = counts();
    assert_eq!((after.acknowledged, after.dead.len()), (FILES as u64, 0));
    assert_eq!(after.outages.get(&NeededService::Destination), Some(&0));
    restoring.stop().await;
    for number in 0..FILES {
        let name = FileName::parse(&format!("{number}.txt")).expect("a valid name");
        let mut content = String::new();
        let mut reader = restored.read(&name).expect("restored");
        reader.read_to_string(&mut content).expect("read");
        assert_eq!(content, format!("words {number}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_folder_is_missing_for_an_hour_makes_no_dead_letter() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    for number in 0..FILES {
        let entry = fixture.write(&format!("{number}.txt"), b"words");
        announcer.announce(&entry).await.expect("announced");
    }
    let unmounted = fixture.folder().with_file_name("unmounted");
    std::fs::rename(fixture.folder(), &unmounted).expect("renamed");
    let compressing = RunningConsumer::start(
        fixture.local.files_queue(),
        Arc::new(InProcessLock::new("compressor", 1)),
        Arc::new(fixture.compressor(fixture.local.stream())),
        2,
        false,
    );
    eventually("the outage is counted", async || {
        compressing
            .meter
            .counts()
            .outages
            .get(&NeededService::Source)
            == Some(&1)
    })
    .await;
    // In simulated time: longer than any file's attempts last.
    tokio::time::sleep(HOUR).await;
    std::fs::rename(&unmounted, fixture.folder()).expect("renamed back");
    compressing.conclude(FILES as u64).await;
    let after = compressing.meter.counts();
    assert_eq!((after.acknowledged, after.dead.len()), (FILES as u64, 0));
    compressing.stop().await;
}

#[tokio::test]
async fn a_file_that_was_packed_while_the_journals_disk_was_full_counts_as_packed_once_it_is_restored()
 {
    let fixture = Fixture::open();
    let entry = fixture.write("a.txt", b"words and words and words");
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    announcer.announce(&entry).await.expect("announced");
    let mut compressor = fixture.compressor(fixture.local.stream());
    let journal = Arc::new(SqliteJournal::open(&fixture.local).expect("opens"));
    compressor.journal = journal.clone();
    let database = rusqlite::Connection::open(fixture.database()).expect("opens");
    // As a full disk: nothing can be recorded of a packed file.
    database
        .execute_batch(
            "CREATE TRIGGER full_disk BEFORE UPDATE OF compressed_at ON files
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
        )
        .expect("made");
    let slot = InProcessLock::new("compressor", 1).try_acquire().await;
    let slot = slot.expect("asked").expect("free");
    let (files, chunks) = (fixture.local.files_queue(), fixture.local.chunks_queue());
    let stop = CancellationToken::new();
    let packed = handle_next(&compressor, &*files, &slot, &stop).await;
    assert!(packed.is_err(), "the message comes again: {packed:?}");
    database
        .execute_batch("DROP TRIGGER full_disk")
        .expect("dropped");

    let mut decompressor = fixture.decompressor(fixture.destination("out"), fixture.local.stream());
    decompressor.journal = journal.clone();
    complete_next(&decompressor, &*chunks)
        .await
        .expect("restored");
    let progress = journal.progress().await.expect("read");
    assert_eq!((progress.restored, progress.compressed), (1, 1));
    assert!(progress.bytes_packed > 0, "{progress:?}");
}
