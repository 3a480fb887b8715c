//! The operator's own metrics, for Prometheus. Names begin with `streampress_operator_`; those of one
//! pipeline carry `namespace` and `pipeline`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use streampress_crds::CompressionPipelineStatus;
use streampress_crds::api::status::Phase;

type Labels = Vec<(&'static str, String)>;

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub struct OperatorMetrics {
    registry: Arc<Registry>,
    writes: Family<Labels, Counter>,
    reconciles: Family<Labels, Counter>,
    seconds: Histogram,
    leads: Gauge,
    pipelines: Gauge,
    phases: Family<Labels, Gauge>,
    backlog: Family<Labels, Gauge>,
    dead_letters: Family<Labels, Gauge>,
    oldest: Family<Labels, Gauge>,
    at_risk: Family<Labels, Gauge>,
}

/// The queues of the metric of backlogs.
const QUEUES: [&str; 2] = ["files", "chunks"];

impl Default for OperatorMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("streampress_operator");
        let writes = Family::<Labels, Counter>::default();
        let reconciles = Family::<Labels, Counter>::default();
        let seconds = Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0]);
        let (leads, pipelines) = (Gauge::default(), Gauge::default());
        let phases = Family::<Labels, Gauge>::default();
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
        let pipeline = || Family::<Labels, Gauge>::default();
        let (backlog, dead_letters, oldest, at_risk) =
            (pipeline(), pipeline(), pipeline(), pipeline());
        registry.register(
            "pipeline_backlog",
            "Messages that wait or are in flight, by queue; missing while it is not known",
            backlog.clone(),
        );
        registry.register(
            "pipeline_dead_letters",
            "Dead letters of both queues; missing while their number is not known",
            dead_letters.clone(),
        );
        registry.register_with_unit(
            "pipeline_oldest",
            "For how long packed files have waited or been dead letters at most",
            Unit::Seconds,
            oldest.clone(),
        );
        registry.register(
            "pipeline_retention_at_risk",
            "1 while packed files or dead letters have needed the stream for half of its retention or longer",
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
            backlog,
            dead_letters,
            oldest,
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

    /// Sets the figures of one pipeline to those of its status; what is not known is left out, never 0.
    pub fn pipeline(&self, namespace: &str, name: &str, status: &CompressionPipelineStatus) {
        let backlog = status.backlog.clone().unwrap_or_default();
        for (queue, depth) in QUEUES.into_iter().zip([backlog.files, backlog.chunks]) {
            set(&self.backlog, of_queue(namespace, name, queue), depth);
        }
        let labels = || of_pipeline(namespace, name);
        set(&self.dead_letters, labels(), backlog.dead);
        set(&self.oldest, labels(), backlog.oldest_seconds);
        let at_risk = status.retention.as_ref().map(|it| it.at_risk.into());
        set(&self.at_risk, labels(), at_risk);
    }

    /// Forgets the figures of a pipeline that is gone.
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

fn of_pipeline(namespace: &str, name: &str) -> Labels {
    vec![
        ("namespace", namespace.to_owned()),
        ("pipeline", name.to_owned()),
    ]
}

fn of_queue(namespace: &str, name: &str, queue: &str) -> Labels {
    let mut labels = of_pipeline(namespace, name);
    labels.push(("queue", queue.to_owned()));
    labels
}

fn set(family: &Family<Labels, Gauge>, labels: Labels, value: Option<i64>) {
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
    fn a_pipelines_figures_carry_its_name_and_unknown_ones_are_left_out() {
        let metrics = OperatorMetrics::default();
        let mut status = CompressionPipelineStatus {
            backlog: Some(BacklogStatus {
                files: Some(3),
                chunks: None,
                dead: Some(2),
                oldest_seconds: Some(120),
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
            format!("streampress_operator_pipeline_oldest_seconds{{{of}}} 120"),
            format!("streampress_operator_pipeline_retention_at_risk{{{of}}} 1"),
        ] {
            assert!(page.lines().any(|is| is == line), "{line}\n{page}");
        }
        assert!(!page.contains("queue=\"chunks\""), "{page}");
        status.backlog = None;
        metrics.pipeline("shop", "orders", &status);
        assert!(
            !metrics.text().contains("dead_letters{"),
            "{}",
            metrics.text()
        );
        metrics.forget("shop", "orders");
        assert!(!metrics.text().contains("orders"), "{}", metrics.text());
    }
}
