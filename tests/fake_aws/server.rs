//! The HTTP side: who signed a request, whether it is permitted, which faults strike it, and long polls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::FakeAwsOptions;
use super::clock::FakeClock;
use super::error::FakeError;
use super::faults::FaultInjector;
use super::kinesis::{self, Kinesis};
use super::s3::S3;
use super::sqs::Sqs;

const LARGEST_BODY: usize = 64 << 20;
const LONG_POLL_STEP: Duration = Duration::from_millis(10);

/// The identity that a request claims to be signed with; signatures are not checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signer {
    /// `sqs`, `kinesis` or `s3`.
    pub service: String,
    /// The access key's id.
    pub access_key: String,
    /// The session token, which temporary keys have.
    pub session_token: Option<String>,
}

impl Signer {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let signature = text("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let (_, scope) = signature.split_once("Credential=")?;
        // Key, day, region, service, terminator.
        let mut parts = scope.split(',').next()?.split('/');
        Some(Self {
            access_key: parts.next()?.to_owned(),
            service: parts.nth(2)?.to_owned(),
            session_token: text("x-amz-security-token").map(str::to_owned),
        })
    }
}

/// The state that requests and the test share.
#[derive(Debug)]
pub(super) struct ServerShared {
    base_url: String,
    pub(super) clock: FakeClock,
    pub(super) faults: FaultInjector,
    pub(super) sqs: Mutex<Sqs>,
    pub(super) kinesis: Mutex<Kinesis>,
    pub(super) s3: Mutex<S3>,
    pub(super) calls: Mutex<BTreeMap<String, u64>>,
    pub(super) refused_calls: Mutex<BTreeMap<String, u64>>,
    pub(super) responses_to_lose: Mutex<BTreeSet<String>>,
    /// Actions whose calls wait, and how many calls wait.
    pub(super) held: Mutex<BTreeSet<String>>,
    pub(super) waiting: AtomicU64,
    pub(super) denied: Mutex<BTreeSet<(String, String)>>,
    pub(super) signers: Mutex<BTreeSet<Signer>>,
}

/// Locks; a panic in one test's request must not hide the state from the test.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn router(shared: Arc<ServerShared>) -> Router {
    Router::new().fallback(respond).with_state(shared)
}

async fn respond(State(shared): State<Arc<ServerShared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let signer = Signer::of(&parts.headers);
    if let Some(signer) = &signer {
        lock(&shared.signers).insert(signer.clone());
    }
    if signer.as_ref().is_some_and(|signer| signer.service == "s3") {
        return match axum::body::to_bytes(body, LARGEST_BODY).await {
            Ok(body) => lock(&shared.s3).respond(&parts, body),
            Err(_) => broken_connection(),
        };
    }
    let Some((service, action)) = target.split_once('.') else {
        return error_response(&FakeError::client(
            "UnknownOperationException",
            "no X-Amz-Target",
        ));
    };
    let Ok(bytes) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        return broken_connection();
    };
    let request: Value = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => {
            return error_response(&FakeError::client(
                "SerializationException",
                &error.to_string(),
            ));
        }
    };
    if signer.is_none() {
        return error_response(&FakeError::client(
            "MissingAuthenticationToken",
            "the request is not signed",
        ));
    }
    *lock(&shared.calls).entry(action.to_owned()).or_default() += 1;
    wait_while_held(&shared, action).await;
    tokio::time::sleep(shared.faults.delay()).await; // The injected delay.
    if shared.faults.draw(|faults| faults.lost_request) {
        return broken_connection();
    }
    let outcome = if shared.faults.draw(|faults| faults.server_error) {
        Err(FakeError::server("InternalFailure"))
    } else {
        shared.perform(service, action, &request).await
    };
    let lost = lock(&shared.responses_to_lose).remove(action);
    if lost || shared.faults.draw(|faults| faults.lost_response) {
        return broken_connection();
    }
    match outcome {
        Ok(value) => json_response(200, &value, None),
        Err(error) => {
            let mut refused = lock(&shared.refused_calls);
            *refused.entry(action.to_owned()).or_default() += 1;
            error_response(&error)
        }
    }
}

/// Waits until the action is no longer held; a client that gives up ends it.
async fn wait_while_held(shared: &ServerShared, action: &str) {
    struct HeldCall<'a>(&'a AtomicU64);
    impl Drop for HeldCall<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let is_held = || lock(&shared.held).contains(action);
    if is_held() {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = HeldCall(&shared.waiting);
        while is_held() {
            tokio::time::sleep(LONG_POLL_STEP).await; // Until the test lets it go.
        }
    }
}

impl ServerShared {
    pub(super) fn new(base_url: String, options: FakeAwsOptions) -> Self {
        Self {
            base_url,
            clock: FakeClock::default(),
            faults: FaultInjector::new(options.faults, options.seed),
            sqs: Mutex::new(Sqs::new(options.rates)),
            kinesis: Mutex::new(Kinesis::new(options.rates)),
            s3: Mutex::default(),
            calls: Mutex::default(),
            refused_calls: Mutex::default(),
            responses_to_lose: Mutex::default(),
            held: Mutex::default(),
            waiting: AtomicU64::new(0),
            denied: Mutex::default(),
            signers: Mutex::default(),
        }
    }

    /// Checks the permission first, as IAM does; a batch needs the permission of its entries.
    fn authorize(&self, action: &str, request: &Value) -> Result<(), FakeError> {
        let resource = resource(request);
        let permission = (
            action.trim_end_matches("Batch").to_owned(),
            resource.clone(),
        );
        if !lock(&self.denied).contains(&permission) {
            return Ok(());
        }
        let message = format!("User is not authorized to perform {action} on {resource}");
        Err(FakeError::client("AccessDeniedException", &message))
    }

    async fn perform(
        &self,
        service: &str,
        action: &str,
        request: &Value,
    ) -> Result<Value, FakeError> {
        self.authorize(action, request)?;
        if service == "AmazonSQS" {
            if self.faults.draw(|faults| faults.throttle) {
                return Err(FakeError::client("RequestThrottled", "injected"));
            }
            if action == "ReceiveMessage" {
                return self.long_poll(request).await;
            }
            let now = self.clock.now();
            return lock(&self.sqs).call(action, request, now, &self.faults, &self.base_url);
        }
        // PutRecords is throttled per record, which `Kinesis` draws.
        if action != "PutRecords" && self.faults.draw(|faults| faults.throttle) {
            return Err(FakeError::client(
                "ProvisionedThroughputExceededException",
                "injected",
            ));
        }
        lock(&self.kinesis).call(action, request, self.clock.now(), &self.faults)
    }

    /// Answers ReceiveMessage once there are messages or its wait time is over.
    async fn long_poll(&self, request: &Value) -> Result<Value, FakeError> {
        let wait_secs = request["WaitTimeSeconds"].as_u64().unwrap_or(0).min(20);
        let until = self.clock.now() + wait_secs * 1000;
        let mut first_try = true;
        loop {
            let received = lock(&self.sqs).receive(request, self.clock.now(), first_try)?;
            first_try = false;
            if let Some(answer) = received {
                return Ok(answer);
            }
            if self.clock.now() >= until {
                return Ok(json!({}));
            }
            // Polled, because visibility also ends when a test moves the clock.
            tokio::time::sleep(LONG_POLL_STEP).await;
        }
    }
}

/// The name of the queue or stream that a call is about.
fn resource(request: &Value) -> String {
    let text = |field: &str| request[field].as_str().map(str::to_owned);
    let queue = || {
        let url = text("QueueUrl")?;
        Some(url.rsplit('/').next().unwrap_or_default().to_owned())
    };
    let read = || kinesis::stream_of_iterator(request["ShardIterator"].as_str()?);
    text("QueueName")
        .or_else(queue)
        .or_else(|| text("StreamName"))
        .or_else(read)
        .unwrap_or_default()
}

fn error_response(error: &FakeError) -> Response {
    let body = json!({"__type": error.code, "message": error.message});
    json_response(error.status, &body, error.query_code.as_deref())
}

fn json_response(status: u16, body: &Value, query_code: Option<&str>) -> Response {
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amzn-requestid", "fake-aws");
    if let Some(code) = query_code {
        response = response.header("x-amzn-query-error", format!("{code};Sender"));
    }
    response
        .body(Body::from(body.to_string()))
        .expect("a well-formed response")
}

/// A response that breaks off: the client sees a broken connection and cannot know whether the call had its effect.
fn broken_connection() -> Response {
    let cut = futures::stream::once(async {
        Err::<axum::body::Bytes, _>(std::io::Error::other("the connection broke"))
    });
    Response::new(Body::from_stream(cut))
}
