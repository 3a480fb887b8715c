//! What a worker counts, for `/metrics`: messages, files, bytes, the stream, its slot, and how long each stage took. One
//! meter a process; counting costs a lock that is held for an addition, and a page is one consistent look.
//!
//! At any time received = acknowledged + retried + dead + in hand, since a message is moved from one to another in one
//! step: [`InHand`] is concluded once, however its work ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::clock;
use streampress_transport::{ChunkStream, StreamCounts};

/// Upper bounds of the stages' histogram, in seconds: a small file's milliseconds to a large one's minutes.
const STAGE_SECONDS: [f64; 12] = [
    0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
];
/// The longest time between two ticks of a healthy scheduler: one call of a door with all its tries (5 of 30 s each),
/// and what the machine may take on top.
const LONGEST_TICK: Duration = Duration::from_secs(240);
/// The longest time in which nothing happens to any message in hand: a stream that is down is waited for two minutes, and
/// a file of a hundred gigabytes is hashed in less.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(1800);

type StageLabel = [(&'static str, &'static str); 1];
type Stages = Family<StageLabel, Histogram, fn() -> Histogram>;

/// The figures of one worker. Cheap to copy.
#[derive(Clone)]
pub struct Meter {
    shared: Arc<Shared>,
    stages: Stages,
}

#[derive(Default)]
struct Shared {
    counts: Mutex<Counts>,
    pulse: Mutex<Option<Pulse>>,
    stream: OnceLock<Arc<dyn ChunkStream>>,
}

/// What was counted so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Messages handed to this worker by its queue, redeliveries too.
    pub received: u64,
    /// Done, and deleted.
    pub acknowledged: u64,
    /// Will be seen again, by why.
    pub retried: BTreeMap<&'static str, u64>,
    /// Set aside as dead letters, by reason.
    pub dead: BTreeMap<&'static str, u64>,
    /// Being worked on now.
    pub in_hand: u64,
    /// Files done.
    pub files: u64,
    /// Their bytes unpacked.
    pub raw_bytes: u64,
    /// Their bytes packed.
    pub packed_bytes: u64,
    /// Slots held now.
    pub slots_held: u64,
    /// Slots that were lost while held.
    pub slots_lost: u64,
    /// When something last succeeded, seconds since 1970.
    pub last_success: Option<f64>,
    /// Whether queues and stream are open.
    pub ready: bool,
}

/// Signs of life.
#[derive(Debug, Clone, Copy)]
struct Pulse {
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
    /// A message came; whoever has the answer concludes it.
    pub fn received(&self) -> InHand {
        self.change(|counts| {
            counts.received += 1;
            counts.in_hand += 1;
        });
        self.moved();
        InHand {
            meter: Some(self.clone()),
        }
    }

    /// A file is done.
    pub fn file(&self, raw_bytes: u64, packed_bytes: u64) {
        self.change(|counts| {
            counts.files += 1;
            counts.raw_bytes += raw_bytes;
            counts.packed_bytes += packed_bytes;
            counts.last_success = Some(now_secs());
        });
        self.moved();
    }

    /// A stage of the work on a file took so long.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stages
            .get_or_create(&[("stage", stage)])
            .observe(took.as_secs_f64());
        self.moved();
    }

    /// A slot was taken.
    pub fn slot_taken(&self) {
        self.change(|counts| counts.slots_held += 1);
    }

    /// A slot was given up, or lost to somebody else.
    pub fn slot_left(&self, lost: bool) {
        self.change(|counts| {
            counts.slots_held = counts.slots_held.saturating_sub(1);
            counts.slots_lost += u64::from(lost);
        });
    }

    /// Queues and stream are open.
    pub fn ready(&self) {
        self.change(|counts| counts.ready = true);
    }

    /// The stream whose records are counted too.
    pub fn watch(&self, stream: &Arc<dyn ChunkStream>) {
        // A process has one stream; a second role in it has the same.
        let _ = self.shared.stream.set(stream.clone());
    }

    /// The scheduler is alive. From the first time on it is expected to stay so.
    pub fn ticked(&self) {
        self.ticked_at(Instant::now());
    }

    pub(crate) fn ticked_at(&self, now: Instant) {
        let mut pulse = lock(&self.shared.pulse);
        match &mut *pulse {
            Some(pulse) => pulse.ticked = now,
            None => {
                *pulse = Some(Pulse {
                    ticked: now,
                    moved: now,
                })
            }
        }
    }

    /// Work in hand went on.
    pub fn moved(&self) {
        if let Some(pulse) = &mut *lock(&self.shared.pulse) {
            pulse.moved = Instant::now();
        }
    }

    /// Nothing more is expected: all is done, and the process idles.
    pub fn rests(&self) {
        *lock(&self.shared.pulse) = None;
    }

    /// What stands still although it should not, in words; `None` when all is well.
    pub fn stuck(&self) -> Option<String> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Option<String> {
        let pulse = (*lock(&self.shared.pulse))?;
        let since = |time: Instant| now.saturating_duration_since(time);
        if since(pulse.ticked) > LONGEST_TICK {
            return Some(format!(
                "the scheduler has not ticked for {} s",
                since(pulse.ticked).as_secs()
            ));
        }
        let in_hand = self.counts().in_hand;
        (in_hand > 0 && since(pulse.moved) > LONGEST_STANDSTILL).then(|| {
            format!(
                "{in_hand} message(s) in hand and nothing has happened to them for {} s",
                since(pulse.moved).as_secs()
            )
        })
    }

    /// What was counted so far, as of one moment.
    pub fn counts(&self) -> Counts {
        lock(&self.shared.counts).clone()
    }

    /// As Prometheus reads it, with labels on every line. Names begin with `streampress_`.
    pub fn page(&self, labels: &[(&'static str, String)]) -> String {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone().into()));
        let mut registry = Registry::with_prefix_and_labels("streampress", labels);
        registry.register_with_unit(
            "stage_duration",
            "How long the stages of the work on a file took",
            Unit::Seconds,
            self.stages.clone(),
        );
        registry.register_collector(Box::new(Page {
            counts: self.counts(),
            stream: self.shared.stream.get().map(|stream| stream.counts()),
        }));
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.shared.counts));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_secs() -> f64 {
    clock::now_millis() as f64 / 1000.0
}

/// A message in hand. Dropped without a word, as when its worker is torn down, it counts as one that is seen again.
#[derive(Debug)]
pub struct InHand {
    meter: Option<Meter>,
}

impl InHand {
    /// Done, and deleted.
    pub fn acknowledged(mut self) {
        self.conclude(|counts| {
            counts.acknowledged += 1;
            counts.last_success = Some(now_secs());
        });
    }

    /// It is a dead letter now.
    pub fn dead(mut self, reason: &'static str) {
        self.conclude(|counts| *counts.dead.entry(reason).or_default() += 1);
    }

    /// It will be seen again.
    pub fn retried(mut self, why: &'static str) {
        self.conclude(|counts| *counts.retried.entry(why).or_default() += 1);
    }

    fn conclude(&mut self, outcome: impl FnOnce(&mut Counts)) {
        if let Some(meter) = self.meter.take() {
            meter.change(|counts| {
                counts.in_hand -= 1;
                outcome(counts);
            });
            meter.moved();
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.conclude(|counts| *counts.retried.entry("dropped").or_default() += 1);
    }
}

/// One look at everything.
#[derive(Debug)]
struct Page {
    counts: Counts,
    stream: Option<StreamCounts>,
}

type Written = Result<(), fmt::Error>;

/// Writes lines of one page.
struct Lines<'a>(DescriptorEncoder<'a>);

impl Lines<'_> {
    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> Written {
        let metric = ConstCounter::new(value);
        let line = self
            .0
            .encode_descriptor(name, help, unit, metric.metric_type())?;
        metric.encode(line)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &BTreeMap<&'static str, u64>,
    ) -> Written {
        let kind = ConstCounter::new(0u64).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in values {
            let labels = [(label, *value)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> Written {
        let metric = ConstGauge::new(value);
        let line = self
            .0
            .encode_descriptor(name, help, unit, metric.metric_type())?;
        metric.encode(line)
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut lines = Lines(encoder);
        self.worker(&mut lines)?;
        self.messages(&mut lines)?;
        self.files(&mut lines)?;
        match &self.stream {
            Some(stream) => records(stream, &mut lines),
            None => Ok(()),
        }
    }
}

impl Page {
    fn worker(&self, lines: &mut Lines<'_>) -> Written {
        let counts = &self.counts;
        lines.gauge(
            "worker_ready",
            "1 once the worker's queues and stream are open",
            None,
            f64::from(u8::from(counts.ready)),
        )?;
        lines.gauge(
            "slot_held",
            "1 while the worker holds a slot of its role",
            None,
            counts.slots_held as f64,
        )?;
        lines.counter(
            "slots_lost",
            "Slots that were lost to somebody else while held",
            None,
            counts.slots_lost,
        )?;
        match counts.last_success {
            None => Ok(()),
            Some(secs) => lines.gauge(
                "last_success_timestamp",
                "When a message or a file was last done, since 1970",
                Some(&Unit::Seconds),
                secs,
            ),
        }
    }

    fn messages(&self, lines: &mut Lines<'_>) -> Written {
        let counts = &self.counts;
        lines.counter(
            "messages_received",
            "Messages received, redeliveries too: acknowledged, retried, dead and in hand together",
            None,
            counts.received,
        )?;
        lines.counter(
            "messages_acknowledged",
            "Messages done and deleted",
            None,
            counts.acknowledged,
        )?;
        lines.counters(
            "messages_retried",
            "Messages that will be seen again, by why",
            "cause",
            &counts.retried,
        )?;
        lines.counters(
            "messages_dead",
            "Messages set aside as dead letters, by reason",
            "reason",
            &counts.dead,
        )?;
        lines.gauge(
            "messages_in_hand",
            "Messages being worked on",
            None,
            counts.in_hand as f64,
        )
    }

    fn files(&self, lines: &mut Lines<'_>) -> Written {
        let counts = &self.counts;
        lines.counter("files", "Files done", None, counts.files)?;
        lines.counter(
            "files_raw",
            "Bytes of the files done, unpacked",
            Some(&Unit::Bytes),
            counts.raw_bytes,
        )?;
        lines.counter(
            "files_packed",
            "Bytes of the files done, packed",
            Some(&Unit::Bytes),
            counts.packed_bytes,
        )
    }
}

/// The stream's part.
fn records(stream: &StreamCounts, lines: &mut Lines<'_>) -> Written {
    for (name, help, value) in [
        (
            "stream_records_sent",
            "Records in put requests, however often: acknowledged, resent, dead and under way together",
            stream.sent,
        ),
        (
            "stream_records_acknowledged",
            "Records that the stream took",
            stream.acknowledged,
        ),
        (
            "stream_records_resent",
            "Records that failed and were or will be put again",
            stream.retried,
        ),
        (
            "stream_records_throttled",
            "Of the records that failed, those refused for their shard's rate",
            stream.throttled,
        ),
        (
            "stream_records_dead",
            "Records given up; the message behind them comes again",
            stream.dead,
        ),
        (
            "stream_reads",
            "Reads of a shard that were answered",
            stream.reads,
        ),
        (
            "stream_seeks",
            "Times a shard's iterator was asked for",
            stream.seeks,
        ),
        (
            "stream_reads_throttled",
            "Reads and seeks refused for their shard's rate",
            stream.reads_throttled,
        ),
    ] {
        lines.counter(name, help, None, value)?;
    }
    lines.gauge(
        "stream_records_under_way",
        "Records in put requests without an answer yet",
        None,
        stream.under_way as f64,
    )?;
    lines.counter(
        "stream_read",
        "Bytes of records read, wanted or not",
        Some(&Unit::Bytes),
        stream.bytes_read,
    )?;
    lines.counter(
        "stream_served",
        "Bytes of records that were wanted",
        Some(&Unit::Bytes),
        stream.bytes_served,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> [(&'static str, String); 1] {
        [("pipeline", "trades".to_owned())]
    }

    #[test]
    fn a_message_is_counted_once_however_its_work_ends() {
        let meter = Meter::default();
        meter.received().acknowledged();
        meter.received().dead("HashMismatch");
        meter.received().retried("fault");
        drop(meter.received());
        let held = meter.received();
        let counts = meter.counts();
        let seen_again: u64 = counts.retried.values().sum();
        let dead: u64 = counts.dead.values().sum();
        assert_eq!((counts.received, counts.in_hand), (5, 1));
        assert_eq!((counts.acknowledged, seen_again, dead), (1, 2, 1));
        drop(held);
    }

    #[test]
    fn a_page_has_units_help_and_labels() {
        let meter = Meter::default();
        meter.file(100, 40);
        meter.received().dead("HashMismatch");
        meter.stage("pack", Duration::from_millis(30));
        let page = meter.page(&labels());
        for line in [
            "streampress_files_raw_bytes_total{pipeline=\"trades\"} 100",
            "streampress_files_packed_bytes_total{pipeline=\"trades\"} 40",
            "streampress_messages_dead_total{pipeline=\"trades\",reason=\"HashMismatch\"} 1",
            "streampress_slot_held{pipeline=\"trades\"} 0.0",
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
    fn a_label_cannot_break_out_of_its_line() {
        let hostile = [("pipeline", "a\"} 1\nx{y=\"\\".to_owned())];
        let page = Meter::default().page(&hostile);
        assert!(
            page.contains("streampress_files_total{pipeline=\"a\\\"} 1\\nx{y=\\\"\\\\\"} 0"),
            "{page}"
        );
    }

    #[test]
    fn a_scheduler_that_does_not_tick_is_stuck_and_one_that_was_never_started_is_not() {
        let (meter, start) = (Meter::default(), Instant::now());
        let later = |secs| start + LONGEST_TICK + Duration::from_secs(secs);
        assert_eq!(meter.stuck_at(later(1)), None);
        meter.ticked_at(start);
        assert_eq!(meter.stuck_at(later(0)), None);
        assert!(
            meter
                .stuck_at(later(1))
                .is_some_and(|said| said.contains("has not ticked for 241 s"))
        );
        meter.ticked_at(later(1));
        assert_eq!(meter.stuck_at(later(1)), None);
        meter.rests();
        assert_eq!(meter.stuck_at(later(3600)), None);
    }

    #[test]
    fn work_in_hand_must_go_on() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.ticked_at(start);
        let held = meter.received();
        let later = Instant::now() + LONGEST_STANDSTILL + Duration::from_secs(1);
        meter.ticked_at(later);
        assert!(
            meter
                .stuck_at(later)
                .is_some_and(|said| said.contains("1 message"))
        );
        held.retried("fault");
        assert_eq!(meter.stuck_at(later), None);
    }
}
