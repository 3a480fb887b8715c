//! The generator role: makes files at the source and announces them, scans the source for files of others, and announces again
//! what is lost. It has one
//! slot, so that one process scans at a time; the next file's number is in the slot's ledger.
//!
//! File number n has the same bytes whichever process makes it. A generator that was killed is followed by one that makes
//! its last files again, finds them at the source, and continues.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field, info, info_span, warn};

use crate::destination::{LocationOwner, OwnerError};
use crate::message::{Digest, FileRef};
use crate::roles::announce::{self, Announcer, ReadSource};
use crate::roles::outage_report::{Activity, OutageReport};
use crate::roles::scan::Scanner;
use crate::roles::unconfirmed::UnconfirmedFiles;
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::{Meter, Stage};
use crate::telemetry::trace;
use streampress_crds::Role;
use streampress_generator::Generator;
use streampress_transport::error_chain;
use streampress_transport::{Backoff, FileEntry, FileName, Files, SlotGuard, SlotLock};

/// Without a rate, the generator waits while so many files wait to be compressed: the disk is not endless.
const MAX_WAITING: u64 = 64;
/// Between two attempts to take a slot or to send to a full queue.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two attempts to make a file that failed.
const RETRY: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
/// Between two checks of a source that belongs to another pipeline.
const OWNER_RETRY: Duration = Duration::from_secs(10);
/// After so many of these attempts the log says what the generator waits for: 5 s.
const ATTEMPTS_BEFORE_LOG: u32 = 50;

/// The generator's work: to make files, to scan the source, or both, under one slot.
pub(crate) struct GeneratorRole {
    /// Makes files.
    pub(crate) maker: Option<FileMaker>,
    /// Announces files of others.
    pub(crate) scan: Option<SourceScan>,
    /// Announces again what is lost, where receipts are recorded.
    pub(crate) unconfirmed: Option<UnconfirmedFiles>,
    /// The pipeline that a source must belong to whose journal lies there; where it is scanned.
    pub(crate) owner: Option<LocationOwner>,
    /// The generator's one slot.
    pub(crate) lock: Arc<dyn SlotLock>,
    /// What it counts.
    pub(crate) meter: Meter,
    /// Cancelled when the process shall end.
    pub(crate) shutdown: CancellationToken,
}

/// A scan of the source that is repeated.
pub(crate) struct SourceScan {
    /// Scans once.
    pub(crate) scanner: Scanner,
    /// Between two scans.
    pub(crate) interval: Duration,
}

/// Makes files and announces them.
pub(crate) struct FileMaker {
    /// Makes the bytes.
    pub(crate) generator: Arc<Generator>,
    /// Begins every file's name.
    pub(crate) prefix: String,
    /// Where files go and how they are announced.
    pub(crate) announcer: Announcer,
    /// Held from before a file is made until it is announced, so that a scan does not announce it as well.
    pub(crate) making: Arc<Mutex<()>>,
    /// Files to make in all; 0 is endless.
    pub(crate) files: u64,
    /// Files a minute; 0 is as fast as possible.
    pub(crate) files_per_minute: u32,
    /// What it counts.
    pub(crate) meter: Meter,
    /// Cancelled when the process shall end.
    pub(crate) shutdown: CancellationToken,
}

impl GeneratorRole {
    /// Works until all files are made, where nothing else is to be done, or it is shut down. Errors are logged and retried.
    pub(crate) async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            self.meter.ticked();
            let Some(slot) = self.try_acquire().await else {
                pause(&self.shutdown, PAUSE * 10).await;
                continue;
            };
            self.meter.slot_taken();
            let stop = self.shutdown.child_token();
            // A scan has no end.
            let all_made = CancellationToken::new();
            let report = OutageReport::new(&slot, &self.meter);
            let making = async {
                let is_done = self.make(&slot, &report, &stop).await;
                if is_done && self.scan.is_none() {
                    all_made.cancel();
                }
                is_done
            };
            let working = async {
                self.wait_for_ownership(&report, &stop).await;
                let unconfirmed = self.announce_unconfirmed(&stop, &all_made);
                let (is_done, (), ()) =
                    tokio::join!(making, self.scan(&report, &stop), unconfirmed);
                is_done
            };
            let is_done = tokio::select! {
                biased;
                is_done = working => is_done,
                never = stop_when_lost(&slot, &stop) => match never {},
            };
            drop(report);
            self.meter.slot_left(slot.lost().is_cancelled());
            slot.release().await;
            if is_done && all_made.is_cancelled() && !stop.is_cancelled() {
                self.meter.rests();
                return;
            }
        }
    }

    /// True when all files are made; false when stopped before.
    async fn make(
        &self,
        slot: &SlotGuard,
        report: &OutageReport<'_>,
        stop: &CancellationToken,
    ) -> bool {
        let Some(maker) = &self.maker else {
            return true;
        };
        let (mut failures, mut failed_at) = (0, None);
        while !stop.is_cancelled() && !slot.lost().is_cancelled() {
            match maker.make_all(slot, report).await {
                Ok(is_done) => return is_done,
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "Could not make a file; retrying."
                    );
                    // A file that was made since ends the row of failures.
                    let number = slot.ledger().index;
                    failures = match failed_at.replace(number) == Some(number) {
                        true => failures + 1,
                        false => 1,
                    };
                    report.failed(Activity::Making, &maker.announcer).await;
                    pause(stop, RETRY.equal_jitter(failures)).await;
                }
            }
        }
        false
    }

    /// Waits while the source belongs to another pipeline.
    async fn wait_for_ownership(&self, report: &OutageReport<'_>, stop: &CancellationToken) {
        let (Some(owner), Some(scan)) = (&self.owner, &self.scan) else {
            return;
        };
        let files = &scan.scanner.announcer.source;
        let mut was_said = false;
        while !stop.is_cancelled() {
            self.meter.ticked();
            match owner.confirm(files).await {
                // Whether the source can be used is what the scan says.
                Ok(()) | Err(OwnerError::Io(_)) => return,
                Err(error) => {
                    let outage = owner.outage(&**files, &error);
                    if !was_said {
                        warn!(cause = outage.cause, "The source cannot be used.");
                        was_said = true;
                    }
                    report.is_down(Activity::Scanning, outage);
                }
            }
            pause(stop, OWNER_RETRY).await;
        }
    }

    async fn scan(&self, report: &OutageReport<'_>, stop: &CancellationToken) {
        if let Some(scan) = &self.scan {
            scan.scanner.run(scan.interval, Some(report), stop).await;
        }
    }

    async fn announce_unconfirmed(&self, stop: &CancellationToken, all_made: &CancellationToken) {
        if let Some(unconfirmed) = &self.unconfirmed {
            unconfirmed.run(stop, all_made).await;
        }
    }

    async fn try_acquire(&self) -> Option<SlotGuard> {
        match self.lock.try_acquire().await {
            Ok(slot) => slot,
            Err(error) => {
                warn!(
                    error = error_chain(&error),
                    "Cannot take the generator's slot; retrying."
                );
                None
            }
        }
    }
}

/// All work must end with the slot. What is under way then may still announce a file or write to the journal beside the next
/// holder's, which harms nothing: a compressor packs what lies at the source then, a repeat has its first announcement's
/// version, a journal at the source takes no file of a holder that is not the last one, and what the next scan finds recorded
/// otherwise than it lies there is announced again.
async fn stop_when_lost(slot: &SlotGuard, stop: &CancellationToken) -> Infallible {
    slot.lost().cancelled().await;
    stop.cancel();
    std::future::pending().await
}

async fn pause(stop: &CancellationToken, time: Duration) {
    tokio::select! {
       biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

impl FileMaker {
    /// True when all files are made, false when stopped before.
    async fn make_all(&self, slot: &SlotGuard, report: &OutageReport<'_>) -> Result<bool> {
        let first = slot.ledger().index;
        let started = Instant::now();
        while self.files == 0 || slot.ledger().index < self.files {
            let number = slot.ledger().index;
            self.meter.ticked();
            if !self.wait_for_turn(slot, started, number - first).await {
                return Ok(false);
            }
            let file = self.make_and_announce(number).await?;
            report.succeeded(Activity::Making);
            self.meter.file(file.bytes, 0);
            slot.count(|ledger| {
                ledger.index = number + 1;
                ledger.files += 1;
                ledger.bytes_out += file.bytes;
            });
        }
        info!(files = self.files, "All files are made.");
        Ok(true)
    }

    /// Makes a file and announces it, unless the journal says that this was done; its trace starts here.
    async fn make_and_announce(&self, number: u64) -> Result<FileRef> {
        let name = self.generator.file_name(&self.prefix, number);
        let span = info_span!(
            "file",
            role = Role::Generator.as_str(),
            file_id = field::Empty,
            file_name = name,
            trace_id = field::Empty,
        );
        let context = trace::enter(&span, None);
        let current_span = span.clone();
        let work = async move {
            let _making = self.making.lock().await;
            let started = Instant::now();
            let made = self
                .make(number, &name)
                .await
                .with_context(|| format!("making file {number}"))?;
            current_span.record("file_id", made.file.id().as_str());
            self.meter.stage(Stage::Make, started.elapsed());
            let announcing = Instant::now();
            self.announcer.announce_once(&made).await?;
            self.meter.stage(Stage::Announce, announcing.elapsed());
            Ok(made.file)
        };
        trace::scope(context, work).instrument(span).await
    }

    /// Waits for the rate, or until few enough files wait in the queue; false when stopped.
    async fn wait_for_turn(&self, slot: &SlotGuard, started: Instant, made: u64) -> bool {
        if self.files_per_minute > 0 {
            let due = started
                + Duration::from_secs_f64(made as f64 * 60.0 / f64::from(self.files_per_minute));
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {}
                () = slot.lost().cancelled() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        } else {
            self.wait_for_queue(slot).await;
        }
        !self.is_stopped(slot)
    }

    async fn wait_for_queue(&self, slot: &SlotGuard) {
        let mut attempts = 0;
        // An unknown depth is not zero: without an answer it waits.
        while !self.is_stopped(slot)
            && !matches!(self.announcer.files_queue.depth().await, Ok(depth) if depth.total() < MAX_WAITING)
        {
            attempts += 1;
            if attempts == ATTEMPTS_BEFORE_LOG {
                info!(
                    max_waiting = MAX_WAITING,
                    "The files queue holds enough messages; the generator waits."
                );
            }
            self.meter.ticked();
            pause(&self.shutdown, PAUSE).await;
        }
    }

    fn is_stopped(&self, slot: &SlotGuard) -> bool {
        self.shutdown.is_cancelled() || slot.lost().is_cancelled()
    }

    /// Makes the file visible at the source, unless it exists already.
    async fn make(&self, number: u64, name: &str) -> Result<ReadSource> {
        let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
        let (generator, source) = (self.generator.clone(), self.announcer.source.clone());
        blocking(move || -> Result<ReadSource> {
            let mut bytes = Vec::new();
            generator.file(number, &mut bytes);
            let hash = Digest::of(&bytes);
            let observed_at = runtime::now();
            let entry = match find_same(&*source, &name, &bytes)? {
                Some(entry) => entry,
                None => write(&*source, &name, &bytes)?,
            };
            Ok(ReadSource {
                file: FileRef {
                    location: source.location().to_owned(),
                    name,
                    bytes: bytes.len() as u64,
                    hash,
                    modified_nanos: runtime::nanos(entry.modified),
                },
                is_settled: announce::is_settled(&entry, observed_at),
                fingerprint: entry.fingerprint,
            })
        })
        .await
    }
}

/// Writes the file; returns it as it then is.
fn write(source: &dyn Files, name: &FileName, content: &[u8]) -> Result<FileEntry> {
    let mut pending = source.create(name)?;
    pending.write_all(content)?;
    pending.commit(runtime::now())?;
    let entry = source.stat(name)?;
    entry.context("the file was removed as soon as it was written")
}

/// The file that has exactly this content already.
fn find_same(source: &dyn Files, name: &FileName, content: &[u8]) -> Result<Option<FileEntry>> {
    let Some(entry) = source.stat(name)? else {
        return Ok(None);
    };
    if entry.size != content.len() as u64 {
        return Ok(None);
    }
    let (hash, _) = announce::hash(source.read(name)?)?;
    Ok((hash == Digest::of(content)).then_some(entry))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use streampress_crds::api::pipeline::SourceFormat;
    use streampress_crds::slot_health::NeededService;
    use streampress_generator::{FileFormat, GeneratorOptions, Schema};
    use streampress_transport::Listing;
    use streampress_transport::contract_tests::{FilesTap, TappedFiles, eventually};
    use streampress_transport::in_process_lock::InProcessLock;
    use streampress_transport::local::files::LocalFiles;
    use streampress_transport::local::{Local, LocalOptions};

    use super::*;
    use crate::journal::SqliteJournal;
    use crate::roles::announce::AnnouncementFormat;

    /// Says whether the source was listed while a file was read, and gives a listing time for it.
    #[derive(Debug, Default, Clone)]
    struct ReadsAndListings {
        is_reading: Arc<AtomicBool>,
        was_listed_then: Arc<AtomicBool>,
    }

    impl FilesTap for ReadsAndListings {
        fn list(&self, files: &dyn Files) -> io::Result<Listing> {
            if self.is_reading.load(Relaxed) {
                self.was_listed_then.store(true, Relaxed);
            }
            files.list()
        }

        fn read(&self, files: &dyn Files, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
            self.is_reading.store(true, Relaxed);
            for _ in 0..20 {
                if !self.was_listed_then.load(Relaxed) {
                    // A scan that does not wait lists the source meanwhile.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            self.is_reading.store(false, Relaxed);
            files.read(name)
        }
    }

    struct Made {
        root: tempfile::TempDir,
        tap: ReadsAndListings,
        maker: FileMaker,
        scanner: Scanner,
    }

    impl Made {
        /// A source with file number 0, which is not announced yet.
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            let local = Local::open(root.path(), LocalOptions::default()).expect("opens");
            let source = LocalFiles::open("file:///data/in", &root.path().join("in"));
            let tap = ReadsAndListings::default();
            let announcer = Announcer {
                source: TappedFiles::new(Arc::new(source.expect("opens")), tap.clone()),
                files_queue: local.files_queue(),
                strict: false,
                format: AnnouncementFormat::Native,
                journal: Arc::new(SqliteJournal::open(&local).expect("opens")),
            };
            let schema = Schema::example("stock-market").expect("an example");
            let options = GeneratorOptions {
                format: FileFormat::Csv,
                file_size_bytes: 4096,
                seed: 1,
            };
            let making = Arc::<Mutex<()>>::default();
            let maker = FileMaker {
                generator: Arc::new(Generator::new(&schema, options).expect("compiles")),
                prefix: "made".into(),
                announcer: announcer.clone(),
                making: making.clone(),
                files: 1,
                files_per_minute: 0,
                meter: Meter::default(),
                shutdown: CancellationToken::new(),
            };
            let scanner = Scanner {
                making,
                ..Scanner::of_format(announcer, SourceFormat::Csv)
            };
            let mut content = Vec::new();
            maker.generator.file(0, &mut content);
            let path = root
                .path()
                .join("in")
                .join(maker.generator.file_name("made", 0));
            std::fs::write(path, content).expect("written");
            Self {
                root,
                tap,
                maker,
                scanner,
            }
        }

        async fn messages(&self) -> u64 {
            let depth = self.maker.announcer.files_queue.depth().await;
            depth.expect("known").total()
        }
    }

    #[tokio::test]
    async fn a_source_that_another_pipeline_scans_is_not_scanned_until_it_is_free() {
        let made = Made::new();
        let files = made.scanner.announcer.source.clone();
        let owner = |name| {
            let place = made.root.path().join("in").display().to_string();
            LocationOwner::new(NeededService::Source, ("sales", name), &place)
        };
        owner("shop").confirm(&files).await.expect("free");
        let messages = made.scanner.announcer.files_queue.clone();
        let lock = Arc::new(InProcessLock::new("generator", 1));
        let role = GeneratorRole {
            maker: None,
            scan: Some(SourceScan {
                scanner: made.scanner,
                interval: Duration::from_millis(10),
            }),
            unconfirmed: None,
            owner: Some(owner("other")),
            lock: lock.clone(),
            meter: Meter::default(),
            shutdown: CancellationToken::new(),
        };
        let shutdown = role.shutdown.clone();
        let meter = role.meter.clone();
        let working = tokio::spawn(async move { role.run().await });
        eventually("the outage to be counted", async || {
            let outages = meter.counts().outages;
            outages
                .get(&NeededService::Source)
                .is_some_and(|count| *count > 0)
        })
        .await;
        assert_eq!(messages.depth().await.expect("known").total(), 0);
        shutdown.cancel();
        working.await.expect("it ends");
        let refused = owner("other").confirm(&files).await;
        let refused = refused.expect_err("it is another's");
        let said = owner("other").outage(&*files, &refused).cause;
        assert!(said.contains("the pipeline sales/shop"), "{said}");
        let command = said.rsplit(": ").next().expect("a command");
        let typed = std::process::Command::new("sh")
            .args(["-c", command])
            .status();
        assert!(typed.expect("runs").success(), "{command}");
        owner("other").confirm(&files).await.expect("free");
    }

    #[tokio::test]
    async fn a_scan_waits_until_a_file_that_is_being_made_is_announced() {
        let made = Made::new();
        let scanned = async {
            eventually("the maker to look at the file", async || {
                made.tap.is_reading.load(Relaxed)
            })
            .await;
            made.scanner.once(&CancellationToken::new()).await
        };
        let (file, scanned) = tokio::join!(made.maker.make_and_announce(0), scanned);
        file.expect("announced");
        let scanned = scanned.expect("scanned");
        assert!(!made.tap.was_listed_then.load(Relaxed));
        assert_eq!((scanned.announced, scanned.known), (0, 1));
        assert_eq!(made.messages().await, 1);
    }

    #[tokio::test]
    async fn a_file_that_was_announced_is_not_announced_by_a_maker_that_makes_it_again() {
        let made = Made::new();
        let scanned = made.scanner.once(&CancellationToken::new()).await;
        assert_eq!(scanned.expect("scanned").announced, 1);
        made.maker.make_and_announce(0).await.expect("made");
        assert_eq!(made.messages().await, 1);
    }
}
