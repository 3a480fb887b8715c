//! The trace of the work in progress. A trace starts with a file's announcement. It is passed on with the file's messages,
//! as the attribute `traceparent` and in bodies of our own, and with the file's first record. The other records do not
//! carry it: each names its file and attempt as the first does, and Kinesis charges for every byte of a header.
//!
//! Work on a message runs within [`scope`]; what it sends belongs to the same trace.

use std::collections::BTreeMap;

use streampress_transport::ATTR_TRACEPARENT;

use crate::message::trace_context::TraceContext;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The context of the work that `span` is about: the next after `carried`, or the first of a trace. Where the span is
/// exported, it has the exported span's id. Records the trace in the span's field `trace_id`, which must be empty.
pub(crate) fn enter(span: &tracing::Span, carried: Option<TraceContext>) -> TraceContext {
    let context = exported(span, carried)
        .unwrap_or_else(|| carried.map_or_else(TraceContext::start, TraceContext::child));
    span.record("trace_id", context.trace_id());
    context
}

#[cfg(feature = "otlp")]
fn exported(span: &tracing::Span, carried: Option<TraceContext>) -> Option<TraceContext> {
    crate::telemetry::otlp::exported_context(span, carried)
}

#[cfg(not(feature = "otlp"))]
fn exported(_: &tracing::Span, _: Option<TraceContext>) -> Option<TraceContext> {
    None
}

/// The message attributes that carry a context.
pub fn attributes(context: TraceContext) -> BTreeMap<String, String> {
    [(ATTR_TRACEPARENT.to_owned(), context.to_string())].into()
}

/// Does `work` as a part of the trace.
pub async fn scope<F: Future>(context: TraceContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// The context of the work in progress; `None` outside of [`scope`].
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_within_a_scope_knows_its_trace() {
        let context = TraceContext::start();
        assert_eq!(scope(context, async { current() }).await, Some(context));
        assert_eq!(current(), None);
    }
}
