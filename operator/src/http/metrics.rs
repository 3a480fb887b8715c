//! The operator's own metrics, for Prometheus. Names begin with `streampress_operator_`; those of one pipeline carry the
//! labels `namespace` and `pipeline`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use streampress_crds::CompressionPipelineStatus;
use streampress_crds::api::status::Phase;

type MetricLabels = Vec<(&'static str, String)>;

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub struct OperatorMetrics {
    registry: Arc<Registry>,
    writes: Family<MetricLabels, Counter>,
    reconciles: Family<MetricLabels, Counter>,
    seconds: Histogram,
    leads: Gauge,
    pipelines: Gauge,
    phases: Family<MetricLabels, Gauge>,
    pipeline_phase: Family<MetricLabels, Gauge>,
    backlog: Family<MetricLabels, Gauge>,
    dead_letters: Family<MetricLabels, Gauge>,
    waiting_since: Family<MetricLabels, Gauge>,
    at_risk: Family<MetricLabels, Gauge>,
}

/// All phases: a pipeline has the metric of one of them.
const PHASES: [Phase; 8] = [
    Phase::Pending,
    Phase::Running,
    Phase::Suspending,
    Phase::Suspended,
    Phase::Completed,
    Phase::Degraded,
    Phase::Failed,
    Phase::Deleting,
];

/// The queues of the metric of backlogs.
const QUEUES: [&str; 3] = ["files", "chunks", "receipts"];

impl Default for OperatorMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("streampress_operator");
        let writes = Family::<MetricLabels, Counter>::default();
        let reconciles = Family::<MetricLabels, Counter>::default();
        let seconds = Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0]);
        let (leads, pipelines) = (Gauge::default(), Gauge::default());
        let phases = Family::<MetricLabels, Gauge>::default();
        registry.register(
            "writes",
            "Writes to the API server, by kind",
            writes.clone(),
        );
        registry.register(
            "reconciles",
            "Reconciles of a pipeline, by outcome",
            reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile",
            "Duration of one reconcile",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("leads", "1 while this operator leads", leads.clone());
        registry.register("pipelines", "Pipelines followed", pipelines.clone());
        registry.register("phases", "Pipelines, by phase", phases.clone());
        let pipeline_phase = Family::<MetricLabels, Gauge>::default();
        registry.register(
            "pipeline_phase",
            "1 for the phase that the pipeline is in",
            pipeline_phase.clone(),
        );
        let backlog = Family::<MetricLabels, Gauge>::default();
        registry.register(
            "pipeline_backlog",
            "Messages that wait or are in flight, by queue; left out while their number is not known",
            backlog.clone(),
        );
        let dead_letters = Family::<MetricLabels, Gauge>::default();
        registry.register(
            "pipeline_dead_letters",
            "Dead letters of all queues; left out while their number is not known",
            dead_letters.clone(),
        );
        let waiting_since = Family::<MetricLabels, Gauge>::default();
        registry.register_with_unit(
            "pipeline_waiting_since_timestamp",
            "Unix time since which the oldest packed file or dead letter has waited; left out while none does",
            Unit::Seconds,
            waiting_since.clone(),
        );
        let at_risk = Family::<MetricLabels, Gauge>::default();
        registry.register(
            "pipeline_retention_at_risk",
            "1 while packed files or dead letters have waited for half of the stream's retention or longer",
            at_risk.clone(),
        );
        Self {
            registry: Arc::new(registry),
            writes,
            reconciles,
            seconds,
            leads,
            pipelines,
            phases,
            pipeline_phase,
            backlog,
            dead_letters,
            waiting_since,
            at_risk,
        }
    }
}

impl OperatorMetrics {
    /// Counts a write that succeeded.
    pub fn wrote(&self, kind: &str) {
        self.writes
            .get_or_create(&vec![("kind", kind.to_owned())])
            .inc();
    }

    /// All writes so far of one kind.
    pub fn writes(&self, kind: &str) -> u64 {
        self.writes
            .get_or_create(&vec![("kind", kind.to_owned())])
            .get()
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, outcome: &str, took: Duration) {
        self.reconciles
            .get_or_create(&vec![("outcome", outcome.to_owned())])
            .inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Sets whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// Sets how many pipelines there are.
    pub fn pipelines(&self, count: usize) {
        self.pipelines.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Moves a pipeline from one phase to another; `None` stands for a pipeline that is new or gone.
    pub fn phase(&self, from: Option<Phase>, to: Option<Phase>) {
        let gauge = |phase: Phase| {
            self.phases
                .get_or_create(&vec![("phase", format!("{phase:?}"))])
                .clone()
        };
        if from == to {
            return;
        }
        if let Some(from) = from {
            gauge(from).dec();
        }
        if let Some(to) = to {
            gauge(to).inc();
        }
    }

    /// Sets the metrics of one pipeline to the figures of its status. What is not known is left out, never 0.
    pub fn pipeline(&self, namespace: &str, name: &str, status: &CompressionPipelineStatus) {
        let backlog = status.backlog.clone().unwrap_or_default();
        for (queue, depth) in
            QUEUES
                .into_iter()
                .zip([backlog.files, backlog.chunks, backlog.receipts])
        {
            let mut labels = labels_of(namespace, name);
            labels.push(("queue", queue.to_owned()));
            set(&self.backlog, labels, depth);
        }
        for phase in PHASES {
            let mut labels = labels_of(namespace, name);
            labels.push(("phase", format!("{phase:?}")));
            let is_in = status.phase == Some(phase);
            set(&self.pipeline_phase, labels, is_in.then_some(1));
        }
        let labels = || labels_of(namespace, name);
        set(&self.dead_letters, labels(), backlog.dead);
        let since = backlog.waiting_since.and_then(|since| since.parse().ok());
        let since = since.map(|since: Timestamp| since.as_second());
        set(&self.waiting_since, labels(), since);
        let at_risk = status.retention.as_ref().map(|it| it.at_risk.into());
        set(&self.at_risk, labels(), at_risk);
    }

    /// Removes the metrics of a pipeline that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.pipeline(namespace, name, &CompressionPipelineStatus::default());
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn labels_of(namespace: &str, pipeline: &str) -> MetricLabels {
    vec![
        ("namespace", namespace.to_owned()),
        ("pipeline", pipeline.to_owned()),
    ]
}

fn set(family: &Family<MetricLabels, Gauge>, labels: MetricLabels, value: Option<i64>) {
    match value {
        Some(value) => {
            family.get_or_create(&labels).set(value);
        }
        None => {
            family.remove(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use streampress_crds::api::status::{BacklogStatus, RetentionStatus};

    use super::*;

    #[test]
    fn a_pipeline_has_the_metric_of_the_phase_that_it_is_in_and_of_no_other() {
        let metrics = OperatorMetrics::default();
        let lines = || -> Vec<String> {
            let text = metrics.text();
            let lines = text
                .lines()
                .filter(|line| line.contains("_pipeline_phase{"));
            lines.map(str::to_owned).collect()
        };
        let line = |phase: Phase| {
            format!(
                "streampress_operator_pipeline_phase{{namespace=\"shop\",pipeline=\"orders\",phase=\"{phase:?}\"}} 1"
            )
        };
        for phase in PHASES {
            let status = CompressionPipelineStatus {
                phase: Some(phase),
                ..CompressionPipelineStatus::default()
            };
            metrics.pipeline("shop", "orders", &status);
            assert_eq!(lines(), [line(phase)]);
        }
        metrics.forget("shop", "orders");
        assert!(lines().is_empty(), "{:?}", lines());
    }

    #[test]
    fn the_metrics_of_a_pipeline_carry_its_name_and_leave_out_what_is_not_known() {
        let metrics = OperatorMetrics::default();
        let mut status = CompressionPipelineStatus {
            backlog: Some(BacklogStatus {
                files: Some(3),
                chunks: None,
                receipts: None,
                dead: Some(2),
                waiting_since: Some("2023-11-14T22:13:20Z".into()),
            }),
            retention: Some(RetentionStatus {
                at_risk: true,
                ..RetentionStatus::default()
            }),
            ..CompressionPipelineStatus::default()
        };
        metrics.pipeline("shop", "orders", &status);
        let page = metrics.text();
        let of = "namespace=\"shop\",pipeline=\"orders\"";
        for line in [
            format!("streampress_operator_pipeline_backlog{{{of},queue=\"files\"}} 3"),
            format!("streampress_operator_pipeline_dead_letters{{{of}}} 2"),
            format!(
                "streampress_operator_pipeline_waiting_since_timestamp_seconds{{{of}}} 1700000000"
            ),
            format!("streampress_operator_pipeline_retention_at_risk{{{of}}} 1"),
        ] {
            assert!(page.lines().any(|is| is == line), "{line}\n{page}");
        }
        assert!(!page.contains("queue=\"chunks\""), "{page}");
        status.backlog = None;
        metrics.pipeline("shop", "orders", &status);
        let page = metrics.text();
        assert!(!page.contains("pipeline_dead_letters{"), "{page}");
        metrics.forget("shop", "orders");
        assert!(!metrics.text().contains("orders"), "{}", metrics.text());
    }
}
