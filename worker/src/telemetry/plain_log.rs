//! Warnings and errors as plain lines for a person at a terminal: which file, what happened, why. Each line once, however
//! often it happens.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::Write;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Lines that are remembered so as not to be repeated.
const REMEMBERED: usize = 10_000;

/// Writes events as plain lines.
pub(super) struct PlainLines {
    /// Makes the writer of one line.
    writer: fn() -> Box<dyn Write>,
    written: Mutex<HashSet<String>>,
}

impl PlainLines {
    pub(super) fn new(writer: fn() -> Box<dyn Write>) -> Self {
        Self {
            writer,
            written: Mutex::default(),
        }
    }

    fn write(&self, line: String) {
        let mut written = self.written.lock();
        if written.len() >= REMEMBERED {
            written.clear();
        }
        if written.insert(line.clone()) {
            // A closed standard error cannot be reported.
            let _ = writeln!((self.writer)(), "{line}");
        }
    }
}

/// The fields that a line is made of.
#[derive(Default)]
struct LineFields {
    message: String,
    file_name: Option<String>,
    /// Service, cause, reason, detail and error, in the order of the event's fields.
    causes: Vec<String>,
}

impl Visit for LineFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "file_name" => self.file_name = Some(value.to_owned()),
            "service" | "cause" | "reason" | "detail" | "error" => {
                self.causes.push(value.to_owned())
            }
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A span's file name.
struct SpanFileName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PlainLines {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = LineFields::default();
        attributes.record(&mut fields);
        if let (Some(span), Some(name)) = (context.span(id), fields.file_name) {
            span.extensions_mut().insert(SpanFileName(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = LineFields::default();
        event.record(&mut fields);
        let of_span = || {
            let mut spans = context.event_scope(event)?.from_root();
            spans.find_map(|span| Some(span.extensions().get::<SpanFileName>()?.0.clone()))
        };
        let name = fields.file_name.take().or_else(of_span);
        self.write(line(*event.metadata().level(), name.as_deref(), &fields));
    }
}

fn line(level: Level, file_name: Option<&str>, fields: &LineFields) -> String {
    let mut line = match level {
        Level::ERROR => "failed",
        Level::WARN => "warning",
        _ => "note",
    }
    .to_owned();
    let file_name = file_name.map(printable_name);
    let parts = file_name
        .as_deref()
        .into_iter()
        .chain([fields.message.trim_end_matches('.')])
        .chain(fields.causes.iter().map(String::as_str));
    for part in parts.filter(|part| !part.is_empty()) {
        let _ = write!(line, ": {}", printable(part));
    }
    line
}

/// A text with its control characters escaped, so that a file's name cannot write to the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::new(), |mut escaped, c| {
        match is_unsafe(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
        escaped
    });
    Cow::Owned(escaped)
}

/// A name as it is shown everywhere, and taken by `redrive --name`: no two names are shown alike.
pub(crate) fn printable_name(name: &str) -> String {
    printable(&name.replace('\\', "\\\\")).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing::{error, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    thread_local! {
        static WRITTEN: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    struct ToWritten;

    impl Write for ToWritten {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            WRITTEN.with_borrow_mut(|written| written.extend_from_slice(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_shows_a_name_as_lists_do() {
        let fields = LineFields::default();
        let names = ["a\nb", "a\\nb"].map(|name| line(Level::ERROR, Some(name), &fields));
        assert_eq!(names, ["failed: a\\nb", "failed: a\\\\nb"]);
    }

    #[test]
    fn a_line_names_the_file_and_every_cause_and_is_written_once() {
        let lines = PlainLines::new(|| Box::new(ToWritten));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(Arc::new(subscriber), || {
            for _ in 0..2 {
                warn!(
                    file_name = "in/a\u{1b}[2J.csv",
                    reason = "is no file",
                    "Left out."
                );
                let span = info_span!("file", file_name = "b.csv");
                span.in_scope(|| {
                    error!(
                        message_id = "7",
                        reason = "Expired",
                        detail = "too old",
                        "Dead letter."
                    );
                });
            }
        });
        let written = WRITTEN.with_borrow(|written| String::from_utf8_lossy(written).into_owned());
        assert_eq!(
            written,
            "warning: in/a\\u{1b}[2J.csv: Left out: is no file\nfailed: b.csv: Dead letter: Expired: too old\n"
        );
    }
}
