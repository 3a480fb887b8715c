//! The program's export of traces to a collector that decodes them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use streampress_tests::eventually_blocking;
use streampress_tests::sandbox::{RunningProgram, Sandbox};
use tokio::net::{TcpListener, TcpSocket};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const KEY: &str = "a-key-that-must-not-be-logged";
const GENERATOR: &str = "  generator: {schema: {example: iot-sensors}, fileSize: 64Ki, files: 2}\n  report: {enabled: false}";

/// The spans that a collector received, with their services.
#[derive(Clone, Default)]
struct ReceivedSpans(Arc<Mutex<Vec<(String, Span)>>>);

impl ReceivedSpans {
    fn add(&self, request: ExportTraceServiceRequest) {
        for of_service in request.resource_spans {
            let attributes = of_service.resource.expect("a resource").attributes;
            let service = attributes.iter().find(|pair| pair.key == "service.name");
            let value = service.and_then(|pair| pair.value.clone()?.value);
            let Some(Value::StringValue(service)) = value else {
                panic!("no service.name: {attributes:?}");
            };
            let spans = of_service.scope_spans.into_iter().flat_map(|s| s.spans);
            let named = spans.map(|span| (service.clone(), span));
            self.0.lock().expect("not poisoned").extend(named);
        }
    }

    fn all(&self) -> Vec<(String, Span)> {
        self.0.lock().expect("not poisoned").clone()
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn collector() -> (SocketAddr, ReceivedSpans) {
    let received = ReceivedSpans::default();
    let receiving = received.clone();
    let receive = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        if headers.get("x-api-key").map(|key| key.as_bytes()) != Some(KEY.as_bytes()) {
            return StatusCode::UNAUTHORIZED;
        }
        receiving.add(ExportTraceServiceRequest::decode(body).expect("a request"));
        StatusCode::OK
    };
    (
        serve(Router::new().route("/v1/traces", post(receive))).await,
        received,
    )
}

/// Starts one role in the folder `d` with a collector configured.
fn start(
    sandbox: &Sandbox,
    role: &str,
    collector: SocketAddr,
    more: &[(&str, &str)],
) -> RunningProgram {
    let args: &[&str] = match role {
        "generate" => &["generate", "pipeline.yaml", "--data", "d", "--files", "2"],
        "compress" => &["compress", "pipeline.yaml", "--data", "d"],
        _ => &["decompress", "pipeline.yaml", "--data", "d"],
    };
    let mut command = sandbox.command(args);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"))
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-api-key={KEY}"))
        .envs(more.iter().copied());
    sandbox.start_command(&format!("{role}.log"), command)
}

/// Generates, compresses and restores two files; returns the logs of the three programs, which must exit with 0.
fn process_two_files(
    sandbox: &Sandbox,
    collector: SocketAddr,
    more: &[(&str, &str)],
) -> [String; 3] {
    let mut generate = start(sandbox, "generate", collector, more);
    let workers = ["compress", "decompress"].map(|role| start(sandbox, role, collector, more));
    eventually_blocking("both files are restored", || {
        let restored = workers[1].log().matches("File restored.").count();
        restored == 2
    });
    assert_eq!(generate.wait(), Some(0), "{}", generate.log());
    for worker in workers {
        assert_eq!(worker.stop(), Some(0));
    }
    ["generate", "compress", "decompress"].map(|role| {
        let log = std::fs::read_to_string(sandbox.path(&format!("{role}.log")));
        log.expect("a log")
    })
}

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    let value = span.attributes.iter().find(|pair| pair.key == key);
    match value.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => panic!("no {key}: {span:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generating_compressing_and_restoring_a_file_are_spans_of_one_trace() {
    let (address, received) = collector().await;
    let sandbox = Sandbox::new(PROGRAM, "http://endpoint.invalid", "traced", GENERATOR);
    let logs = process_two_files(&sandbox, address, &[("OTEL_SERVICE_NAME", "press")]);
    assert!(logs.iter().all(|log| !log.contains(KEY)), "{logs:?}");
    let mut by_file: BTreeMap<String, BTreeMap<String, Span>> = BTreeMap::new();
    for (service, span) in received.all() {
        assert_eq!(service, "press");
        let of_file = by_file
            .entry(text(&span, "file_name").to_owned())
            .or_default();
        let before = of_file.insert(span.name.clone(), span);
        assert_eq!(before, None, "each span is exported once");
    }
    assert_eq!(by_file.len(), 2, "{by_file:?}");
    let mut traces = Vec::new();
    for (name, spans) in &by_file {
        let [compress, decompress, generate] =
            [&spans["compress"], &spans["decompress"], &spans["generate"]];
        assert_eq!(spans.len(), 3, "{spans:?}");
        assert_eq!(compress.trace_id, generate.trace_id, "{name}");
        assert_eq!(decompress.trace_id, generate.trace_id, "{name}");
        assert!(generate.parent_span_id.is_empty());
        assert_eq!(compress.parent_span_id, generate.span_id);
        assert_eq!(decompress.parent_span_id, compress.span_id);
        assert_eq!(text(compress, "file_id"), text(decompress, "file_id"));
        assert_eq!(text(generate, "file_id"), text(compress, "file_id"));
        assert!(
            decompress
                .events
                .iter()
                .any(|event| event.name == "File restored.")
        );
        // The log lines carry the trace id.
        let shown: String = generate
            .trace_id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for log in &logs[1..] {
            let line = log
                .lines()
                .find(|line| line.contains(name) && line.contains("File "));
            assert!(
                line.is_some_and(|line| line.contains(&shown)),
                "{shown} {log}"
            );
        }
        traces.push(&generate.trace_id);
    }
    assert_ne!(traces[0], traces[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_continues_when_the_collector_refuses_is_down_or_never_responds() {
    let refuses = serve(Router::new().fallback(|| async { StatusCode::FORBIDDEN })).await;
    // Bound for as long as the test runs, so that no other program can listen there, and not listening itself.
    let closed = TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    closed.bind(any).expect("a free port");
    let down = closed.local_addr().expect("bound");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = listener.local_addr().expect("bound");
    // Small intervals between batches, so that more than one fails.
    let often = ("OTEL_BSP_SCHEDULE_DELAY", "20");
    // A collector that answers has the time to do so, on a busy machine too.
    for (address, timeout_millis, says) in [
        (refuses, "60000", "403"),
        (down, "60000", "refused"),
        (silent, "300", "no answer"),
    ] {
        let sandbox = Sandbox::new(PROGRAM, "http://endpoint.invalid", "traced", GENERATOR);
        let logs = process_two_files(
            &sandbox,
            address,
            &[often, ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout_millis)],
        );
        for log in &logs {
            assert!(!log.contains(KEY), "{log}");
            assert_eq!(log.matches("Cannot deliver traces").count(), 1, "{log}");
            assert!(log.to_lowercase().contains(says), "{says}: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_collector_address_is_logged_and_work_continues() {
    let sandbox = Sandbox::new(PROGRAM, "http://endpoint.invalid", "traced", GENERATOR);
    let mut command =
        sandbox.command(&["generate", "pipeline.yaml", "--data", "d", "--files", "1"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "not an address");
    let mut generate = sandbox.start_command("generate.log", command);
    assert_eq!(generate.wait(), Some(0), "{}", generate.log());
    assert_eq!(
        generate.log().matches("no traces are exported").count(),
        1,
        "{}",
        generate.log()
    );
}
