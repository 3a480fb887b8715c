//! Traces for an OpenTelemetry collector, where OTEL_EXPORTER_OTLP_ENDPOINT names one. Built with the feature `otlp` the
//! program sends them ([`export`]); built without, it says so.

#[cfg(feature = "otlp")]
mod export;

use tracing_subscriber::{Layer, Registry};

#[cfg(feature = "otlp")]
pub(crate) use self::export::place;

/// Where a collector is named; the second is for traces alone and wins.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];

/// Whether the variables ask for traces.
pub fn is_wanted(lookup: impl Fn(&str) -> Option<String>) -> bool {
    let says = |name: &str, word: &str| {
        lookup(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let named = |name: &&str| lookup(name).is_some_and(|value| !value.trim().is_empty());
    ENDPOINTS.iter().any(named)
        && !says("OTEL_SDK_DISABLED", "true")
        && !says("OTEL_TRACES_EXPORTER", "none")
}

/// A part of the log's subscriber.
pub type Part = Box<dyn Layer<Registry> + Send + Sync>;

/// Traces on their way, or why there are none.
pub struct Traces {
    /// What a person should know of it, once.
    pub notice: Option<String>,
    #[cfg(feature = "otlp")]
    sending: Option<export::Sending>,
}

impl Traces {
    /// None, and nothing to say about it.
    pub fn none() -> Self {
        Self {
            notice: None,
            #[cfg(feature = "otlp")]
            sending: None,
        }
    }

    /// Sends what is still queued, for moments only. Call it once the work has ended.
    pub fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(sending) = self.sending {
            sending.end();
        }
    }
}

/// Begins to export as the variables say. Faults in them are told and stop nothing else.
#[cfg(feature = "otlp")]
pub fn start() -> (Option<Part>, Traces) {
    match export::start(|name| std::env::var(name).ok()) {
        Ok((part, sending, notice)) => {
            let sending = Some(sending);
            (Some(part), Traces { notice, sending })
        }
        Err(error) => {
            let notice = format!(
                "no traces are exported: {error:#}; mend the OTEL_EXPORTER_OTLP_ variables, or unset them"
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
pub fn start() -> (Option<Part>, Traces) {
    let notice = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this program was built without the export of traces: build it with `--features otlp`, as deploy/Dockerfile does";
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
