//! What a worker counts, for `/metrics`: messages, files, bytes, the stream, its slot, and how long each stage took. One
//! meter a process; counting takes a lock for one addition, and a page is one consistent snapshot.
//!
//! At any time received = acknowledged + retried + dead + in flight, since a message moves from one to another in one
//! step: [`InFlight`] is concluded once, however its work ends.

mod page;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use strum::VariantArray;
use tokio::time::Instant;

use crate::message::DeadLetterReason;
use crate::runtime;
use streampress_codec::hybrid::PlanUse;
pub use streampress_crds::slot_health::NeededService;
use streampress_transport::{ChunkStream, StreamCounts};

/// Upper bounds of the stages' histogram, in seconds: a small file's milliseconds to a large one's minutes.
const STAGE_SECONDS: [f64; 12] = [
    0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
];
/// The longest time between two ticks of a healthy scheduler: one call of the transport with all its attempts (5 of 30 s
/// each), and what a slow machine adds.
const LONGEST_TICK: Duration = Duration::from_secs(240);
/// The longest time without progress on any message in flight: calls of a stream that is down end after two minutes, and
/// every read of a file is progress.
pub(crate) const LONGEST_STANDSTILL: Duration = Duration::from_secs(1800);

/// A step of the work on a file, as the label `stage` of its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Stage {
    /// In the queue, and for a thread.
    Wait,
    /// A generator makes a file.
    Make,
    /// A compressor packs a file into the stream.
    Pack,
    /// Sending the message that follows.
    Announce,
    /// A decompressor fetches and unpacks a file.
    Unpack,
    /// Making a restored file visible.
    Commit,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Make => "make",
            Self::Pack => "pack",
            Self::Announce => "announce",
            Self::Unpack => "unpack",
            Self::Commit => "commit",
        }
    }
}

/// Why a message will be redelivered, as the label `cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum RetryCause {
    /// No slot was free.
    NoSlot,
    /// No thread was free.
    NoThread,
    /// An error that may not occur again.
    Fault,
    /// It was too early for it: a file must hold still before it is deleted.
    NotYet,
    /// A service that every message needs was down.
    Outage,
    /// The worker stopped, or lost its slot or the message.
    Interrupted,
    /// The work succeeded, but the message could not be deleted.
    NotDeleted,
    /// The message could not be moved to the dead-letter queue.
    NotDeadLettered,
    /// Its task ended before it was concluded, as when a process is torn down.
    Dropped,
}

impl RetryCause {
    fn label(self) -> &'static str {
        match self {
            Self::NoSlot => "no_slot",
            Self::NoThread => "no_thread",
            Self::Fault => "fault",
            Self::NotYet => "not_yet",
            Self::Outage => "outage",
            Self::Interrupted => "interrupted",
            Self::NotDeleted => "not_deleted",
            Self::NotDeadLettered => "not_dead_lettered",
            Self::Dropped => "dropped",
        }
    }
}

type StageLabel = [(&'static str, &'static str); 1];
type Stages = Family<StageLabel, Histogram, fn() -> Histogram>;

/// The metrics of one worker. Cheap to clone.
#[derive(Clone)]
pub struct Meter {
    shared: Arc<MetricsShared>,
    stages: Stages,
}

#[derive(Default)]
struct MetricsShared {
    counts: Mutex<Counts>,
    liveness: Mutex<Option<Liveness>>,
    stream: OnceLock<Arc<dyn ChunkStream>>,
}

/// What was counted so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Messages received, redeliveries too.
    pub received: u64,
    /// Messages done and deleted.
    pub acknowledged: u64,
    /// Messages to be redelivered, by cause.
    pub retried: BTreeMap<RetryCause, u64>,
    /// Messages moved to the dead-letter queue, by reason.
    pub dead: BTreeMap<DeadLetterReason, u64>,
    /// Messages being worked on.
    pub in_flight: u64,
    /// Files done.
    pub files: u64,
    /// Versions of files that were not restored because a newer version had been.
    pub superseded: u64,
    /// Files of other programs that were moved out of the way.
    pub displaced: u64,
    /// Files announced again because nothing was known of what became of them.
    pub announced_again: u64,
    /// Files and folders of the source that the last scan could not take.
    pub left_out: u64,
    /// Bytes of the files done, unpacked.
    pub raw_bytes: u64,
    /// Their bytes packed.
    pub packed_bytes: u64,
    /// Columns of packed blocks whose coding came from a plan.
    pub plan_hits: u64,
    /// Columns of packed blocks that were searched because no plan had them.
    pub plan_searches: u64,
    /// Columns of packed blocks that were searched again because their size differed from the plan.
    pub plan_drift: u64,
    /// Blocks with several files that were packed.
    pub bundles_packed: u64,
    /// Files in them.
    pub bundled_files: u64,
    /// Blocks with several files that were unpacked: each once for the files that a worker has at the same time.
    pub bundles_unpacked: u64,
    /// Slots held now.
    pub slots_held: u64,
    /// Slots that were lost while held.
    pub slots_lost: u64,
    /// When a message or a file was last done, seconds since 1970.
    pub last_success: Option<f64>,
    /// Whether queues and stream are open.
    pub ready: bool,
    /// Services that are down, by how many consumers of this process found so.
    pub outages: BTreeMap<NeededService, u32>,
}

/// When the worker last showed progress.
#[derive(Debug, Clone, Copy)]
struct Liveness {
    ticked: Instant,
    moved: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            shared: Arc::default(),
            stages: Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS)),
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Meter {
    /// A message was received; the caller concludes it.
    pub(crate) fn received(&self) -> InFlight {
        self.change(|counts| {
            counts.received += 1;
            counts.in_flight += 1;
        });
        self.moved();
        InFlight {
            meter: Some(self.clone()),
        }
    }

    /// A file is done.
    pub(crate) fn file(&self, raw_bytes: u64, packed_bytes: u64) {
        self.change(|counts| {
            counts.files += 1;
            counts.raw_bytes += raw_bytes;
            counts.packed_bytes += packed_bytes;
            counts.last_success = Some(now_secs());
        });
        self.moved();
    }

    /// A version of a file was not restored because a newer one had been.
    pub(crate) fn superseded(&self) {
        self.change(|counts| {
            counts.superseded += 1;
            counts.last_success = Some(now_secs());
        });
        self.moved();
    }

    /// A file of another program was moved out of the way of a restored one.
    pub(crate) fn displaced(&self) {
        self.change(|counts| counts.displaced += 1);
    }

    /// So many files were announced again because nothing was known of what became of them.
    pub(crate) fn announced_again(&self, files: u64) {
        self.change(|counts| counts.announced_again += files);
    }

    /// A file was packed with this use of plans.
    pub(crate) fn planned(&self, used: PlanUse) {
        self.change(|counts| {
            counts.plan_hits += u64::from(used.planned_columns);
            counts.plan_searches += u64::from(used.searched_columns);
            counts.plan_drift += u64::from(used.drifted_columns);
        });
    }

    /// So many files and folders of the source cannot be taken.
    pub(crate) fn left_out(&self, count: u64) {
        self.change(|counts| counts.left_out = count);
    }

    /// So many files were packed into one block.
    pub(crate) fn bundle_packed(&self, files: u64) {
        self.change(|counts| {
            counts.bundles_packed += 1;
            counts.bundled_files += files;
        });
    }

    /// A block with several files is unpacked.
    pub(crate) fn bundle_unpacked(&self) {
        self.change(|counts| counts.bundles_unpacked += 1);
    }

    /// A stage of the work on a file took so long.
    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        self.stages
            .get_or_create(&[("stage", stage.label())])
            .observe(took.as_secs_f64());
        self.moved();
    }

    /// A slot was taken.
    pub(crate) fn slot_taken(&self) {
        self.change(|counts| counts.slots_held += 1);
    }

    /// A slot was released, or lost to another worker.
    pub(crate) fn slot_left(&self, lost: bool) {
        self.change(|counts| {
            counts.slots_held = counts.slots_held.saturating_sub(1);
            counts.slots_lost += u64::from(lost);
        });
    }

    /// A service is down: nothing is received meanwhile.
    pub(crate) fn outage_began(&self, service: NeededService) {
        self.change(|counts| *counts.outages.entry(service).or_default() += 1);
    }

    /// The service answers again.
    pub(crate) fn outage_ended(&self, service: NeededService) {
        self.change(|counts| {
            let found = counts.outages.entry(service).or_default();
            *found = found.saturating_sub(1);
        });
    }

    /// Queues and stream are open.
    pub fn ready(&self) {
        self.change(|counts| counts.ready = true);
    }

    /// Counts this stream's records too.
    pub fn watch(&self, stream: &Arc<dyn ChunkStream>) {
        // A process has one stream; a second role in it has the same one.
        let _ = self.shared.stream.set(stream.clone());
    }

    /// The scheduler is alive. From the first call on it is expected to tick.
    pub(crate) fn ticked(&self) {
        let now = Instant::now();
        let mut liveness = self.shared.liveness.lock();
        match &mut *liveness {
            Some(liveness) => liveness.ticked = now,
            None => {
                *liveness = Some(Liveness {
                    ticked: now,
                    moved: now,
                })
            }
        }
    }

    /// Work on a message in flight made progress.
    pub(crate) fn moved(&self) {
        if let Some(liveness) = &mut *self.shared.liveness.lock() {
            liveness.moved = Instant::now();
        }
    }

    /// Nothing more is expected: all is done, and the process idles.
    pub(crate) fn rests(&self) {
        *self.shared.liveness.lock() = None;
    }

    /// What makes no progress although it should, as a sentence; `None` when all is well.
    pub(crate) fn stuck(&self) -> Option<String> {
        if self.shared.stream.get().is_some_and(|s| s.has_ended()) {
            return Some("the task that writes to the stream has ended".to_owned());
        }
        let liveness = (*self.shared.liveness.lock())?;
        if liveness.ticked.elapsed() > LONGEST_TICK {
            return Some(format!(
                "the scheduler has not ticked for {} s",
                liveness.ticked.elapsed().as_secs()
            ));
        }
        let in_flight = self.counts().in_flight;
        (in_flight > 0 && liveness.moved.elapsed() > LONGEST_STANDSTILL).then(|| {
            format!(
                "{in_flight} message(s) in flight without progress for {} s",
                liveness.moved.elapsed().as_secs()
            )
        })
    }

    /// A consistent snapshot of what was counted so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts.lock().clone()
    }

    /// Whether a message will be redelivered, or was, for this cause.
    pub(crate) fn was_retried(&self, cause: RetryCause) -> bool {
        let counts = self.shared.counts.lock();
        counts.retried.get(&cause).is_some_and(|count| *count > 0)
    }

    /// The metrics in the OpenMetrics text format, with `labels` on every line. Names begin with `streampress_`.
    pub fn page(&self, labels: &[(&'static str, String)]) -> String {
        let stream = self.shared.stream.get().map(|stream| stream.counts());
        page::render(labels, self.stages.clone(), self.counts(), stream)
    }

    /// A page with every metric and every value of its labels, for the documentation.
    pub fn complete_page() -> String {
        let meter = Self::default();
        for stage in Stage::VARIANTS {
            meter.stage(*stage, Duration::ZERO);
        }
        let counts = Counts {
            retried: RetryCause::VARIANTS
                .iter()
                .map(|cause| (*cause, 0))
                .collect(),
            dead: DeadLetterReason::ALL
                .iter()
                .map(|reason| (*reason, 0))
                .collect(),
            last_success: Some(0.0),
            ..Counts::default()
        };
        page::render(&[], meter.stages, counts, Some(StreamCounts::default()))
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.shared.counts.lock());
    }
}

fn now_secs() -> f64 {
    runtime::now_millis() as f64 / 1000.0
}

/// A message in flight. Dropped without a conclusion, it counts as one to be redelivered.
#[derive(Debug)]
pub(crate) struct InFlight {
    meter: Option<Meter>,
}

impl InFlight {
    /// Done, and deleted.
    pub(crate) fn acknowledged(mut self) {
        self.conclude(|counts| {
            counts.acknowledged += 1;
            counts.last_success = Some(now_secs());
        });
    }

    /// It is in the dead-letter queue now.
    pub(crate) fn dead(mut self, reason: DeadLetterReason) {
        self.conclude(|counts| *counts.dead.entry(reason).or_default() += 1);
    }

    /// It will be redelivered.
    pub(crate) fn retried(mut self, cause: RetryCause) {
        self.conclude(|counts| *counts.retried.entry(cause).or_default() += 1);
    }

    fn conclude(&mut self, outcome: impl FnOnce(&mut Counts)) {
        if let Some(meter) = self.meter.take() {
            meter.change(|counts| {
                counts.in_flight -= 1;
                outcome(counts);
            });
            meter.moved();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conclude(|counts| *counts.retried.entry(RetryCause::Dropped).or_default() += 1);
    }
}

#[cfg(test)]
mod tests {
    use streampress_transport::{Position, Record, StreamCounts, TransportError, TransportResult};

    use super::*;

    fn labels() -> [(&'static str, String); 1] {
        [("pipeline", "trades".to_owned())]
    }

    #[test]
    fn a_message_is_counted_once_however_its_work_ends() {
        let meter = Meter::default();
        meter.received().acknowledged();
        meter.received().dead(DeadLetterReason::HashMismatch);
        meter.received().retried(RetryCause::Fault);
        drop(meter.received());
        let in_flight = meter.received();
        let counts = meter.counts();
        let retried: u64 = counts.retried.values().sum();
        let dead: u64 = counts.dead.values().sum();
        assert_eq!((counts.received, counts.in_flight), (5, 1));
        assert_eq!((counts.acknowledged, retried, dead), (1, 2, 1));
        drop(in_flight);
    }

    #[test]
    fn a_page_has_units_help_and_labels() {
        let meter = Meter::default();
        meter.file(100, 40);
        meter.superseded();
        meter.displaced();
        meter.announced_again(3);
        meter.planned(PlanUse {
            planned_columns: 7,
            searched_columns: 2,
            drifted_columns: 1,
        });
        meter.bundle_packed(5);
        meter.bundle_unpacked();
        meter.received().dead(DeadLetterReason::HashMismatch);
        meter.stage(Stage::Pack, Duration::from_millis(30));
        meter.outage_began(NeededService::Destination);
        let page = meter.page(&labels());
        for line in [
            "streampress_files_raw_bytes_total{pipeline=\"trades\"} 100",
            "streampress_files_packed_bytes_total{pipeline=\"trades\"} 40",
            "streampress_messages_dead_total{pipeline=\"trades\",reason=\"HashMismatch\"} 1",
            "streampress_files_superseded_total{pipeline=\"trades\"} 1",
            "streampress_files_displaced_total{pipeline=\"trades\"} 1",
            "streampress_files_announced_again_total{pipeline=\"trades\"} 3",
            "streampress_plan_hits_total{pipeline=\"trades\"} 7",
            "streampress_plan_searches_total{pipeline=\"trades\"} 2",
            "streampress_plan_drift_total{pipeline=\"trades\"} 1",
            "streampress_bundles_packed_total{pipeline=\"trades\"} 1",
            "streampress_bundled_files_total{pipeline=\"trades\"} 5",
            "streampress_bundles_unpacked_total{pipeline=\"trades\"} 1",
            "streampress_slot_held{pipeline=\"trades\"} 0.0",
            "streampress_service_down{pipeline=\"trades\",service=\"destination\"} 1.0",
            "streampress_service_down{pipeline=\"trades\",service=\"stream\"} 0.0",
            "streampress_stage_duration_seconds_count{pipeline=\"trades\",stage=\"pack\"} 1",
            "# UNIT streampress_files_raw_bytes bytes",
        ] {
            assert!(page.lines().any(|is| is == line), "{line}\n{page}");
        }
        let without_help = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .find(|name| !page.contains(&format!("# HELP {name} ")));
        assert_eq!(without_help, None, "{page}");
    }

    #[test]
    fn every_reason_and_cause_is_a_series_before_the_first_message() {
        let page = Meter::default().page(&labels());
        let is_there = |line: &str| page.lines().any(|is| is == line);
        for reason in DeadLetterReason::ALL {
            let line = format!(
                "streampress_messages_dead_total{{pipeline=\"trades\",reason=\"{reason}\"}} 0"
            );
            assert!(is_there(&line), "{line}\n{page}");
        }
        for cause in RetryCause::VARIANTS {
            let line = format!(
                "streampress_messages_retried_total{{pipeline=\"trades\",cause=\"{}\"}} 0",
                cause.label()
            );
            assert!(is_there(&line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_label_cannot_break_out_of_its_line() {
        let hostile = [("pipeline", "a\"} 1\nx{y=\"\\".to_owned())];
        let page = Meter::default().page(&hostile);
        assert!(
            page.contains("streampress_files_total{pipeline=\"a\\\"} 1\\nx{y=\\\"\\\\\"} 0"),
            "{page}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_scheduler_that_does_not_tick_is_stuck_and_one_that_never_started_is_not() {
        let meter = Meter::default();
        tokio::time::advance(2 * LONGEST_TICK).await;
        assert_eq!(meter.stuck(), None);
        meter.ticked();
        tokio::time::advance(LONGEST_TICK).await;
        assert_eq!(meter.stuck(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(
            meter
                .stuck()
                .is_some_and(|text| text.contains("has not ticked for 241 s"))
        );
        meter.ticked();
        assert_eq!(meter.stuck(), None);
        meter.rests();
        tokio::time::advance(2 * LONGEST_TICK).await;
        assert_eq!(meter.stuck(), None);
    }

    /// A stream whose writer has ended.
    #[derive(Debug)]
    struct EndedStream;

    #[async_trait::async_trait]
    impl ChunkStream for EndedStream {
        fn max_record_bytes(&self) -> usize {
            1
        }
        async fn append(&self, _: Vec<Record>) -> TransportResult<Vec<Position>> {
            Err(TransportError::Stale)
        }
        async fn fetch(&self, _: &[Position]) -> TransportResult<Vec<bytes::Bytes>> {
            Err(TransportError::Stale)
        }
        fn has_ended(&self) -> bool {
            true
        }
        fn counts(&self) -> StreamCounts {
            StreamCounts::default()
        }
    }

    #[test]
    fn a_worker_whose_streams_writer_has_ended_is_not_alive() {
        let meter = Meter::default();
        assert_eq!(meter.stuck(), None);
        let ended: Arc<dyn ChunkStream> = Arc::new(EndedStream);
        meter.watch(&ended);
        assert!(meter.stuck().is_some_and(|text| text.contains("has ended")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_in_flight_must_make_progress() {
        let meter = Meter::default();
        meter.ticked();
        let in_flight = meter.received();
        tokio::time::advance(LONGEST_STANDSTILL + Duration::from_secs(1)).await;
        meter.ticked();
        assert!(meter.stuck().is_some_and(|text| text.contains("1 message")));
        in_flight.retried(RetryCause::Fault);
        assert_eq!(meter.stuck(), None);
    }
}
