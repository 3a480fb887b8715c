//! The operator's own metrics, for Prometheus. Names begin with `streampress_operator_`; no metric has a pipeline as label.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
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
}

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
        Self {
            registry: Arc::new(registry),
            writes,
            reconciles,
            seconds,
            leads,
            pipelines,
            phases,
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

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
