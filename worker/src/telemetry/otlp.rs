//! Traces for an OpenTelemetry collector, where OTEL_EXPORTER_OTLP_ENDPOINT names one. A build with the feature `otlp` sends
//! them (`export`); a build without it says so.

#[cfg(feature = "otlp")]
mod export;

use tracing_subscriber::{Layer, Registry};

#[cfg(feature = "otlp")]
pub(crate) use self::export::exported_context;

/// The variables that name a collector; the second is for traces alone and takes precedence.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

/// Whether the variables switch the export of traces on.
pub(super) fn is_wanted(lookup: impl Fn(&str) -> Option<String>) -> bool {
    let says = |name: &str, word: &str| {
        lookup(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let named = |name: &&str| lookup(name).is_some_and(|value| !value.trim().is_empty());
    ENDPOINTS.iter().any(named)
        && !says("OTEL_SDK_DISABLED", "true")
        && !says("OTEL_TRACES_EXPORTER", "none")
}

/// A layer of the log's subscriber.
pub(super) type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The export of traces, or why there is none.
pub(super) struct Traces {
    /// What a person should know of it, once.
    pub(super) notice: Option<String>,
    #[cfg(feature = "otlp")]
    exporter: Option<export::TraceExport>,
}

impl Traces {
    /// No export, and no notice.
    pub(super) fn none() -> Self {
        Self {
            notice: None,
            #[cfg(feature = "otlp")]
            exporter: None,
        }
    }

    /// Sends what is still queued, for a few seconds at most. Call it once the work has ended.
    pub(super) fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.end();
        }
    }
}

/// Starts the export as the variables say. Errors in them become a notice and stop nothing else.
#[cfg(feature = "otlp")]
pub(super) fn start() -> (Option<LogLayer>, Traces) {
    match export::start(|name| std::env::var(name).ok()) {
        Ok((layer, exporter, notice)) => {
            let exporter = Some(exporter);
            (Some(layer), Traces { notice, exporter })
        }
        Err(error) => {
            let notice = format!(
                "no traces are exported: {error:#}; correct the OTEL_EXPORTER_OTLP_ variables, or unset them"
            );
            let notice = Some(notice);
            (
                None,
                Traces {
                    notice,
                    ..Traces::none()
                },
            )
        }
    }
}

/// Says that nothing is exported.
#[cfg(not(feature = "otlp"))]
pub(super) fn start() -> (Option<LogLayer>, Traces) {
    let notice = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this program was built without the export of traces; in a checkout of Streampress, `cargo install --path worker --features otlp` installs one with it";
    let notice = Some(notice.to_owned());
    (None, Traces { notice })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(set: &[(&str, &str)]) -> bool {
        is_wanted(|name| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn traces_are_exported_only_where_a_collector_is_named_and_not_switched_off() {
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(wanted(&[named]));
        assert!(wanted(&[(ENDPOINTS[1], "http://collector:4318/v1/traces")]));
        assert!(!wanted(&[]));
        assert!(!wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
        assert!(!wanted(&[named, ("OTEL_SDK_DISABLED", "TRUE")]));
        assert!(!wanted(&[named, ("OTEL_TRACES_EXPORTER", "none")]));
    }
}
