//! A small HTTP stand-in for the dozen calls of SQS and Kinesis that Streampress makes. It enforces AWS's limits,
//! which LocalStack does not, and does what AWS does on bad days: throttles, fails in part, loses answers, delivers
//! twice, reshards. Time is controllable; what goes wrong follows from a seed.

pub mod clock;
pub mod faults;
pub mod kinesis;
pub mod rate;
pub mod sqs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use clock::Clock;
use faults::{Faults, Mischief};
use kinesis::Kinesis;
use sqs::Sqs;

const LARGEST_BODY: usize = 64 << 20;
const LONG_POLL_STEP: Duration = Duration::from_millis(10);

/// A refusal as AWS words it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The error's name.
    pub kind: String,
    /// For people.
    pub message: String,
    /// SQS's second name for the error, which its JSON protocol carries in a header.
    pub query_code: Option<String>,
}

impl Refusal {
    /// The caller's fault.
    pub fn client(kind: &str, message: &str) -> Self {
        Self {
            status: 400,
            kind: kind.into(),
            message: message.into(),
            query_code: None,
        }
    }

    fn queried(mut self, code: &str) -> Self {
        self.query_code = Some(code.into());
        self
    }
}

/// Who signed a request, as it says itself: the stand-in does not check signatures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signer {
    /// `sqs`, `kinesis` or `s3`.
    pub service: String,
    /// The access key's id.
    pub access_key: String,
    /// What temporary keys have besides.
    pub session_token: Option<String>,
}

impl Signer {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let signature = text("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let (_, scope) = signature.split_once("Credential=")?;
        // Key, day, region, service, and what it is for.
        let mut parts = scope.split(',').next()?.split('/');
        Some(Self {
            access_key: parts.next()?.to_owned(),
            service: parts.nth(2)?.to_owned(),
            session_token: text("x-amz-security-token").map(str::to_owned),
        })
    }
}

/// What a stand-in is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What goes wrong.
    pub faults: Faults,
    /// For what goes wrong.
    pub seed: u64,
    /// Whether AWS's rates are enforced; sizes always are.
    pub rates: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            seed: 1,
            rates: true,
        }
    }
}

/// A running stand-in; it ends when dropped.
#[derive(Debug)]
pub struct FakeAws {
    /// Where it listens.
    pub url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    base: String,
    clock: Clock,
    mischief: Mischief,
    sqs: Mutex<Sqs>,
    kinesis: Mutex<Kinesis>,
    calls: Mutex<BTreeMap<String, u64>>,
    refused_calls: Mutex<BTreeMap<String, u64>>,
    to_lose: Mutex<BTreeSet<String>>,
    denied: Mutex<BTreeSet<(String, String)>>,
    signers: Mutex<BTreeSet<Signer>>,
}

impl FakeAws {
    /// Starts one on a free port of the loopback.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            base: url.clone(),
            clock: Clock::default(),
            mischief: Mischief::new(options.faults, options.seed),
            sqs: Mutex::new(Sqs::new(options.rates)),
            kinesis: Mutex::new(Kinesis::new(options.rates)),
            calls: Mutex::default(),
            refused_calls: Mutex::default(),
            to_lose: Mutex::default(),
            denied: Mutex::default(),
            signers: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move {
            // Ends only when aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            url,
            shared,
            server,
        })
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.mischief.set(faults);
    }

    /// The queues.
    pub fn sqs(&self) -> MutexGuard<'_, Sqs> {
        self.shared
            .sqs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams.
    pub fn kinesis(&self) -> MutexGuard<'_, Kinesis> {
        self.shared
            .kinesis
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of SQS without the wire and its faults, for preparing a test.
    pub fn ask_sqs(&self, action: &str, ask: &Value) -> Result<Value, Refusal> {
        let (now, quiet) = (self.shared.clock.now(), Mischief::new(Faults::default(), 0));
        self.sqs().call(action, ask, now, &quiet, &self.url)
    }

    /// A call of Kinesis without the wire and its faults.
    pub fn ask_kinesis(&self, action: &str, ask: &Value) -> Result<Value, Refusal> {
        let (now, quiet) = (self.shared.clock.now(), Mischief::new(Faults::default(), 0));
        self.kinesis().call(action, ask, now, &quiet)
    }

    /// How often an action was called.
    pub fn calls(&self, action: &str) -> u64 {
        self.shared
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(action)
            .copied()
            .unwrap_or(0)
    }

    /// Every action that was called.
    pub fn called(&self) -> Vec<String> {
        let calls = self
            .shared
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        calls.keys().cloned().collect()
    }

    /// How often an action was refused.
    pub fn refused(&self, action: &str) -> u64 {
        self.shared
            .refused_calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(action)
            .copied()
            .unwrap_or(0)
    }

    /// The next answer to this action is lost on the way, once; what was asked is done.
    pub fn lose_next(&self, action: &str) {
        self.shared
            .to_lose
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(action.to_owned());
    }

    /// The credentials may not make this call on the queue or stream of this name any more, nor its batch.
    pub fn deny(&self, action: &str, resource: &str) {
        self.lock_denied()
            .insert((action.to_owned(), resource.to_owned()));
    }

    /// The credentials may do everything again.
    pub fn allow_all(&self) {
        self.lock_denied().clear();
    }

    fn lock_denied(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.shared
            .denied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who signed a request.
    pub fn signers(&self) -> BTreeSet<Signer> {
        self.shared.lock_signers().clone()
    }

    /// How many messages of a queue are hidden now.
    pub fn hidden(&self, queue: &str) -> usize {
        let now = self.shared.clock.now();
        self.sqs().hidden(queue, now)
    }

    /// Splits or merges a stream's shards.
    pub fn reshard(&self, stream: &str, target: usize) -> Result<(), Refusal> {
        let now = self.shared.clock.now();
        self.kinesis().reshard(stream, target, now)
    }
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let signer = Signer::of(&parts.headers);
    if let Some(signer) = &signer {
        shared.lock_signers().insert(signer.clone());
    }
    if signer.as_ref().is_some_and(|signer| signer.service == "s3") {
        return empty_bucket(&parts.method, parts.uri.query().unwrap_or_default());
    }
    let Some((service, action)) = target.split_once('.') else {
        return refuse(&Refusal::client(
            "UnknownOperationException",
            "no X-Amz-Target",
        ));
    };
    let Ok(bytes) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        return broken();
    };
    let ask: Value = match serde_json::from_slice(&bytes) {
        Ok(ask) => ask,
        Err(error) => {
            return refuse(&Refusal::client(
                "SerializationException",
                &error.to_string(),
            ));
        }
    };
    if signer.is_none() {
        return refuse(&Refusal::client(
            "MissingAuthenticationToken",
            "the request is not signed",
        ));
    }
    *shared
        .calls
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(action.to_owned())
        .or_default() += 1;
    tokio::time::sleep(shared.mischief.delay()).await;
    if shared.mischief.strikes(|faults| faults.lost_request) {
        return broken();
    }
    let outcome = if shared.mischief.strikes(|faults| faults.server_error) {
        Err(Refusal {
            status: 500,
            kind: "InternalFailure".into(),
            message: "injected".into(),
            query_code: None,
        })
    } else {
        shared.perform(service, action, &ask).await
    };
    let lost = shared
        .to_lose
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(action);
    if lost || shared.mischief.strikes(|faults| faults.lost_response) {
        return broken();
    }
    match outcome {
        Ok(value) => json_response(200, &value, None),
        Err(refusal) => {
            *shared
                .refused_calls
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(action.to_owned())
                .or_default() += 1;
            refuse(&refusal)
        }
    }
}

impl Shared {
    /// As IAM does it: before anything else is looked at, and a batch needs what its entries need.
    fn may(&self, action: &str, ask: &Value) -> Result<(), Refusal> {
        let resource = resource(ask);
        let allowed = (
            action.trim_end_matches("Batch").to_owned(),
            resource.clone(),
        );
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if !denied.contains(&allowed) {
            return Ok(());
        }
        let message = format!("User is not authorized to perform {action} on {resource}");
        Err(Refusal::client("AccessDeniedException", &message))
    }

    async fn perform(&self, service: &str, action: &str, ask: &Value) -> Result<Value, Refusal> {
        self.may(action, ask)?;
        if service == "AmazonSQS" {
            if self.mischief.strikes(|faults| faults.throttle) {
                return Err(Refusal::client("RequestThrottled", "injected"));
            }
            if action == "ReceiveMessage" {
                return self.receive(ask).await;
            }
            return self
                .lock_sqs()
                .call(action, ask, self.clock.now(), &self.mischief, &self.base);
        }
        // Puts are throttled by record, which their part of the stand-in draws.
        if action != "PutRecords" && self.mischief.strikes(|faults| faults.throttle) {
            return Err(Refusal::client(
                "ProvisionedThroughputExceededException",
                "injected",
            ));
        }
        let mut kinesis = self.kinesis.lock().unwrap_or_else(PoisonError::into_inner);
        kinesis.call(action, ask, self.clock.now(), &self.mischief)
    }

    /// The long poll.
    async fn receive(&self, ask: &Value) -> Result<Value, Refusal> {
        let until = self.clock.now() + ask["WaitTimeSeconds"].as_u64().unwrap_or(0).min(20) * 1000;
        let mut first_try = true;
        loop {
            let received = self.lock_sqs().receive(ask, self.clock.now(), first_try)?;
            first_try = false;
            if let Some(answer) = received {
                return Ok(answer);
            }
            if self.clock.now() >= until {
                return Ok(json!({}));
            }
            tokio::time::sleep(LONG_POLL_STEP).await;
        }
    }

    fn lock_signers(&self) -> MutexGuard<'_, BTreeSet<Signer>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sqs(&self) -> MutexGuard<'_, Sqs> {
        self.sqs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the queue or stream that a call is about.
fn resource(ask: &Value) -> String {
    let text = |field: &str| ask[field].as_str().map(str::to_owned);
    let queue = || {
        let url = text("QueueUrl")?;
        Some(url.rsplit('/').next().unwrap_or_default().to_owned())
    };
    let read = || kinesis::stream_of_iterator(ask["ShardIterator"].as_str()?);
    text("QueueName")
        .or_else(queue)
        .or_else(|| text("StreamName"))
        .or_else(read)
        .unwrap_or_default()
}

/// A bucket that has nothing and keeps nothing: enough to see who asks.
fn empty_bucket(method: &Method, query: &str) -> Response {
    let (status, body) = match (method.as_str(), query.contains("list-type=2")) {
        ("GET", true) => (
            200,
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
        ),
        ("PUT", _) => (200, ""),
        _ => (404, "<Error><Code>NoSuchKey</Code></Error>"),
    };
    Response::builder()
        .status(status)
        .header("etag", "\"e\"")
        .body(Body::from(body))
        .expect("a well-formed response")
}

fn refuse(refusal: &Refusal) -> Response {
    let body = json!({"__type": refusal.kind, "message": refusal.message});
    json_response(refusal.status, &body, refusal.query_code.as_deref())
}

fn json_response(status: u16, body: &Value, query_code: Option<&str>) -> Response {
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amzn-requestid", "stand-in");
    if let Some(code) = query_code {
        response = response.header("x-amzn-query-error", format!("{code};Sender"));
    }
    response
        .body(Body::from(body.to_string()))
        .expect("a well-formed response")
}

/// An answer that breaks off: the client sees a broken connection and cannot know what was done.
fn broken() -> Response {
    let cut = futures::stream::once(async {
        Err::<axum::body::Bytes, _>(std::io::Error::other("the connection broke"))
    });
    Response::new(Body::from_stream(cut))
}

/// MD5, as Kinesis hashes partition keys.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// MD5 as hex, as SQS answers it.
pub fn md5_hex(text: &str) -> String {
    md5(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
