//! The page at `/metrics`, in the OpenMetrics text format.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use streampress_crds::slot_health::NeededService;
use streampress_transport::StreamCounts;
use strum::VariantArray;

use super::{Counts, RetryCause, Stages};
use crate::message::DeadLetterReason;

/// Renders the page, with `labels` on every line. Names begin with `streampress_`.
pub(super) fn render(
    labels: &[(&'static str, String)],
    stages: Stages,
    counts: Counts,
    stream: Option<StreamCounts>,
) -> String {
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).into(), value.clone().into()));
    let mut registry = Registry::with_prefix_and_labels("streampress", labels);
    registry.register_with_unit(
        "stage_duration",
        "Duration of each stage of processing a file",
        Unit::Seconds,
        stages,
    );
    registry.register_collector(Box::new(Page { counts, stream }));
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// A snapshot of everything.
#[derive(Debug)]
struct Page {
    counts: Counts,
    stream: Option<StreamCounts>,
}

/// Writes lines of one page.
struct MetricLines<'a>(DescriptorEncoder<'a>);

impl MetricLines<'_> {
    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        let line = self
            .0
            .encode_descriptor(name, help, unit, metric.metric_type())?;
        metric.encode(line)
    }

    /// All of a label's values, those at 0 too: the first increase of a series that appears with it is seen by no alert.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let kind = ConstCounter::new(0u64).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in values {
            let labels = [(label, value)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        let line = self
            .0
            .encode_descriptor(name, help, unit, metric.metric_type())?;
        metric.encode(line)
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut lines = MetricLines(encoder);
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
    fn worker(&self, lines: &mut MetricLines<'_>) -> fmt::Result {
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
            "Slots that were lost to another worker while held",
            None,
            counts.slots_lost,
        )?;
        let kind = ConstGauge::new(0.0).metric_type();
        let help = "1 while the service is down and the worker therefore receives nothing";
        let mut down = lines
            .0
            .encode_descriptor("service_down", help, None, kind)?;
        for &service in NeededService::ALL {
            let is_down = counts.outages.get(&service).is_some_and(|n| *n > 0);
            let labels = [("service", service.label())];
            ConstGauge::new(f64::from(u8::from(is_down))).encode(down.encode_family(&labels)?)?;
        }
        match counts.last_success {
            None => Ok(()),
            Some(secs) => lines.gauge(
                "last_success_timestamp",
                "Unix time at which a message or a file was last processed",
                Some(&Unit::Seconds),
                secs,
            ),
        }
    }

    fn messages(&self, lines: &mut MetricLines<'_>) -> fmt::Result {
        let counts = &self.counts;
        lines.counter(
            "messages_received",
            "Messages received, redeliveries too; the sum of acknowledged, retried, dead and in flight",
            None,
            counts.received,
        )?;
        lines.counter(
            "messages_acknowledged",
            "Messages processed and deleted",
            None,
            counts.acknowledged,
        )?;
        lines.counters(
            "messages_retried",
            "Messages to be redelivered, by cause",
            "cause",
            RetryCause::VARIANTS.iter().map(|cause| {
                (
                    cause.label(),
                    counts.retried.get(cause).copied().unwrap_or(0),
                )
            }),
        )?;
        lines.counters(
            "messages_dead",
            "Messages moved to the dead-letter queue, by reason",
            "reason",
            DeadLetterReason::ALL.iter().map(|reason| {
                (
                    reason.as_str(),
                    counts.dead.get(reason).copied().unwrap_or(0),
                )
            }),
        )?;
        lines.gauge(
            "messages_in_flight",
            "Messages being worked on",
            None,
            counts.in_flight as f64,
        )
    }

    fn files(&self, lines: &mut MetricLines<'_>) -> fmt::Result {
        let counts = &self.counts;
        lines.counter("files", "Files processed", None, counts.files)?;
        lines.counter(
            "files_superseded",
            "Versions of files that were not restored because a newer version had been",
            None,
            counts.superseded,
        )?;
        lines.counter(
            "files_displaced",
            "Files that were not as restored last, moved out of the way of a restored file",
            None,
            counts.displaced,
        )?;
        lines.counter(
            "files_announced_again",
            "Files announced again because nothing was known of what became of them",
            None,
            counts.announced_again,
        )?;
        lines.gauge(
            "files_left_out",
            "Files and folders of the source that the last scan could not take; the log has the reasons",
            None,
            counts.left_out as f64,
        )?;
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
        )?;
        for (name, help, value) in [
            (
                "plan_hits",
                "Columns that were packed as a plan says, without a search",
                counts.plan_hits,
            ),
            (
                "plan_searches",
                "Columns whose coding was searched because no plan had it",
                counts.plan_searches,
            ),
            (
                "plan_drift",
                "Columns that were searched again because their size differed from the plan",
                counts.plan_drift,
            ),
            (
                "bundles_packed",
                "Blocks that hold several small files and were packed",
                counts.bundles_packed,
            ),
            (
                "bundled_files",
                "Files in the blocks that hold several",
                counts.bundled_files,
            ),
            (
                "bundles_unpacked",
                "Blocks that hold several small files and were unpacked, once for the files that a worker had at the time",
                counts.bundles_unpacked,
            ),
        ] {
            lines.counter(name, help, None, value)?;
        }
        Ok(())
    }
}

/// The stream's metrics.
fn records(stream: &StreamCounts, lines: &mut MetricLines<'_>) -> fmt::Result {
    for (name, help, value) in [
        (
            "stream_records_sent",
            "Records in put requests, each attempt counted; the sum of acknowledged, resent, dead and under way",
            stream.sent,
        ),
        (
            "stream_records_acknowledged",
            "Records that the stream accepted",
            stream.acknowledged,
        ),
        (
            "stream_records_resent",
            "Records that failed and were or will be put again",
            stream.retried,
        ),
        (
            "stream_records_throttled",
            "Of the records that failed, those refused because of their shard's rate limit",
            stream.throttled,
        ),
        (
            "stream_records_dead",
            "Records given up after all attempts; their file's message is redelivered",
            stream.dead,
        ),
        (
            "stream_reads",
            "Reads of a shard that were answered",
            stream.reads,
        ),
        (
            "stream_seeks",
            "Requests for a shard iterator",
            stream.seeks,
        ),
        (
            "stream_reads_throttled",
            "Reads and seeks refused because of their shard's rate limit",
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
        "Bytes of all records read",
        Some(&Unit::Bytes),
        stream.bytes_read,
    )?;
    lines.counter(
        "stream_served",
        "Bytes of records read that a decompressor needed",
        Some(&Unit::Bytes),
        stream.bytes_served,
    )
}
