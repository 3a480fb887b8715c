//! The export to the collector: OTLP as http/protobuf, over the same hyper and rustls as the transport.
//!
//! Work never waits for it: spans are queued, dropped where the queue is full, and sent from a thread with a runtime of
//! its own, so that they are sent also after the worker's runtime has ended. A collector that is down causes one log line.
//! The headers may hold keys and are never logged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanProcessor};
use tokio::runtime::Runtime;
use tracing::{Span, info, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::LogLayer;
use crate::message::trace_context::TraceContext;

/// The service's name where the variables give none.
const SERVICE: &str = "streampress";
/// One export, where OTEL_EXPORTER_OTLP_TIMEOUT does not say otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// At the end of the process; a pod has 30 s in all.
const LAST_FLUSH: Duration = Duration::from_secs(3);
/// The answer to an export is a few bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// The export in progress.
pub(super) struct TraceExport(SdkTracerProvider);

impl TraceExport {
    pub(super) fn end(self) {
        // The client has logged what it could not send.
        let _ = self.0.shutdown_with_timeout(LAST_FLUSH);
    }
}

/// The layer for the subscriber, the export to end later, and a notice.
pub(super) fn start(
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<(LogLayer, TraceExport, Option<String>)> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(Post::new(timeout(&lookup))?)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(NamedByRole)
        .with_batch_exporter(exporter)
        .with_resource(resource(&lookup))
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target("streampress", LevelFilter::INFO))
        .boxed();
    Ok((layer, TraceExport(provider), other_protocol(&lookup)))
}

fn timeout(lookup: impl Fn(&str) -> Option<String>) -> Duration {
    let millis = lookup("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| lookup("OTEL_EXPORTER_OTLP_TIMEOUT"))
        .and_then(|text| text.trim().parse().ok());
    millis.map_or(EXPORT_TIMEOUT, Duration::from_millis)
}

/// A notice where the variables name another protocol: its collector may listen at another port.
fn other_protocol(lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    let protocol = lookup("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| lookup("OTEL_EXPORTER_OTLP_PROTOCOL"))?;
    (protocol != "http/protobuf").then(|| {
        format!("traces are sent as http/protobuf, not as {protocol}; name a collector's endpoint for that (usually port 4318)")
    })
}

fn resource(lookup: impl Fn(&str) -> Option<String>) -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    let is_named = lookup("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty())
        || lookup("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    match is_named {
        true => resource.build(),
        false => resource.with_service_name(SERVICE).build(),
    }
}

/// The exported span's context; `carried` becomes its parent. `None` where the span is not exported.
pub(crate) fn exported_context(span: &Span, carried: Option<TraceContext>) -> Option<TraceContext> {
    if let Some(carried) = carried {
        let parent = SpanContext::new(
            TraceId::from(carried.trace),
            SpanId::from(carried.span),
            TraceFlags::new(carried.flags),
            true,
            TraceState::NONE,
        );
        let parent = Context::new().with_remote_span_context(parent);
        // Fails without this layer in the subscriber; then the context below is invalid.
        let _ = span.set_parent(parent);
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| TraceContext {
        trace: u128::from_be_bytes(context.trace_id().to_bytes()),
        span: u64::from_be_bytes(context.span_id().to_bytes()),
        flags: context.trace_flags().to_u8(),
    })
}

/// Names each span by its role or its message: a span within `tracing` has a fixed name, and collectors group by name.
#[derive(Debug)]
struct NamedByRole;

impl SpanProcessor for NamedByRole {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {
        let Some(data) = span.exported_data() else {
            return;
        };
        let attribute = |name: &str| {
            let mut all = data.attributes.iter();
            let found = all.find(|attribute| attribute.key.as_str() == name);
            found.map(|attribute| attribute.value.as_str().into_owned())
        };
        // A compressor also takes receipts.
        match attribute("kind").or_else(|| attribute("role")).as_deref() {
            Some("receipt") => span.update_name("receipt"),
            Some("generator") => span.update_name("generate"),
            Some("compressor") => span.update_name("compress"),
            Some("decompressor") => span.update_name("decompress"),
            _ => {}
        }
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Posts batches; logs the first failure, and the first success after failures.
#[derive(Debug)]
struct Post {
    runtime: Runtime,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    is_failing: AtomicBool,
}

impl Post {
    fn new(timeout: Duration) -> Result<Self> {
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .context("reading the system's certificates")?
            .https_or_http()
            .enable_http1()
            .build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .context("starting the thread that sends traces")?;
        Ok(Self {
            runtime,
            client: Client::builder(TokioExecutor::new()).build(tls),
            timeout,
            is_failing: AtomicBool::new(false),
        })
    }

    fn log(&self, collector: &str, answered: &Result<Response<Bytes>, HttpError>) {
        let why = match answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(error) => Some(streampress_transport::error_chain(&**error)),
        };
        match (why, self.is_failing.load(Ordering::Relaxed)) {
            (Some(why), false) => {
                self.is_failing.store(true, Ordering::Relaxed);
                warn!(
                    collector,
                    error = why,
                    "Cannot deliver traces; they are dropped while this lasts, and work continues."
                );
            }
            (None, true) => {
                self.is_failing.store(false, Ordering::Relaxed);
                info!(collector, "Traces are delivered again.");
            }
            (Some(_), true) | (None, false) => {}
        }
    }
}

#[async_trait]
impl HttpClient for Post {
    /// Called from a thread outside of any runtime.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let collector = shown(request.uri());
        let (client, timeout) = (self.client.clone(), self.timeout);
        let sending = self.runtime.spawn(async move {
            let asked = async {
                let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, LONGEST_ANSWER).collect().await?;
                Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
            };
            tokio::time::timeout(timeout, asked)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {timeout:?}").into()))
        });
        let answered = sending.await.unwrap_or_else(|error| Err(error.into()));
        self.log(&collector, &answered);
        answered
    }
}

/// The address without user, password and query.
fn shown(address: &http::Uri) -> String {
    format!(
        "{}://{}{}{}",
        address.scheme_str().unwrap_or("http"),
        address.host().unwrap_or_default(),
        address
            .port()
            .map_or_else(String::new, |port| format!(":{port}")),
        address.path()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collectors_address_in_the_log_has_no_password() {
        let address = "http://me:hush@collector:4318/v1/traces?key=hush".parse();
        let shown = shown(&address.expect("an address"));
        assert_eq!(shown, "http://collector:4318/v1/traces");
    }

    #[test]
    fn another_protocol_leads_to_a_notice() {
        let said = other_protocol(|name| {
            (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| "grpc".to_owned())
        });
        assert!(said.expect("a notice").contains("not as grpc"));
        assert_eq!(other_protocol(|_| None), None);
    }
}
