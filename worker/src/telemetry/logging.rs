//! Log lines on standard error, and traces for a collector.

use std::io::Write;

use streampress_transport::is_safe_to_log;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::otlp::{self, Traces};
use super::plain_log::PlainLines;

/// How a command logs.
pub(crate) struct LogOptions {
    /// The form of the lines.
    pub(crate) form: LogForm,
    /// The level without RUST_LOG.
    pub(crate) default: Level,
    /// Whether the command starts or continues traces, which are exported where a collector is named.
    pub(crate) has_traces: bool,
    /// Whether lines for people have colours.
    pub(crate) has_colour: bool,
    /// Makes the writer of one line.
    pub(crate) writer: fn() -> Box<dyn Write>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogForm {
    /// Time, level and every field.
    Text,
    /// The same as JSON.
    Json,
    /// Only what happened to which file, each line once; with RUST_LOG as [`LogForm::Text`].
    Plain,
}

/// The log of this process. Call [`Logging::end`] once the work has ended.
pub(crate) struct Logging {
    traces: Traces,
}

impl Logging {
    /// What a person should know of the export of traces.
    pub(crate) fn notice(&self) -> Option<&str> {
        self.traces.notice.as_deref()
    }

    /// Sends the traces that are still queued, for a few seconds at most.
    pub(crate) fn end(self) {
        self.traces.end();
    }
}

/// Starts logging; RUST_LOG, such as `info` or `streampress=debug,warn`, overrides the default level.
pub(crate) fn start(options: LogOptions) -> Logging {
    let rust_log = std::env::var("RUST_LOG").ok();
    let filter = targets(rust_log.as_deref(), options.default);
    let filter = filter.and(filter_fn(is_safe_to_log));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(options.writer)
        .with_target(false)
        .with_ansi(options.has_colour);
    let lines = match options.form {
        LogForm::Plain if rust_log.is_none() => {
            let plain = PlainLines::new(options.writer);
            plain.with_filter(plain_filter(options.default)).boxed()
        }
        LogForm::Text | LogForm::Plain => lines.with_filter(filter).boxed(),
        LogForm::Json => lines.json().with_filter(filter).boxed(),
    };
    let exports = options.has_traces && otlp::is_wanted(|name| std::env::var(name).ok());
    let (export, traces) = match exports {
        true => otlp::start(),
        false => (None, Traces::none()),
    };
    let layers: Vec<otlp::LogLayer> = export.into_iter().chain([lines]).collect();
    tracing_subscriber::registry().with(layers).init();
    Logging { traces }
}

/// Events up to `level`, and all spans: they name the file.
fn plain_filter<S>(level: Level) -> impl Filter<S> {
    filter_fn(move |metadata| {
        (metadata.is_span() || *metadata.level() <= level) && is_safe_to_log(metadata)
    })
}

/// What RUST_LOG lets through; `default` for all where it is not set or cannot be read.
fn targets(rust_log: Option<&str>, default: Level) -> Targets {
    rust_log
        .filter(|text| !text.trim().is_empty())
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::from_level(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_overrides_the_default_level_where_it_can_be_read() {
        for (rust_log, debug) in [
            (None, false),
            (Some(""), false),
            (Some("info"), false),
            (Some("debug"), true),
            (Some("streampress=debug,warn"), true),
            (Some("other=debug"), false),
            (Some("streampress=loud"), false),
        ] {
            let targets = targets(rust_log, Level::INFO);
            let enabled = targets.would_enable("streampress::consume", &Level::DEBUG);
            assert_eq!(enabled, debug, "{rust_log:?}");
        }
        assert!(targets(None, Level::INFO).would_enable("streampress", &Level::INFO));
    }
}
