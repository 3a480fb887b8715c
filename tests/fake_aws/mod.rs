//! An HTTP server that imitates the dozen calls of SQS, Kinesis and S3 that Streampress makes. It enforces AWS's limits,
//! which LocalStack does not, and injects the faults of AWS: throttling, partial failures, lost responses,
//! duplicates, resharding. A test controls its time; a seed determines the faults.
//!
//! - [`sqs`], [`kinesis`], [`s3`]: the services as plain state, without HTTP.
//! - [`faults`]: injected faults. [`rate`]: token buckets. [`clock`]: the controllable clock. [`error`]: error responses.
//! - `server`: HTTP, permissions, long polls.

pub mod clock;
pub mod error;
pub mod faults;
pub mod kinesis;
pub mod rate;
pub mod s3;
mod server;
pub mod sqs;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use md5::{Digest, Md5};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use error::FakeError;
use faults::{FaultInjector, Faults};
use kinesis::Kinesis;
use s3::S3;
pub use server::Signer;
use server::{ServerShared, lock};
use sqs::Sqs;

/// How the server behaves.
#[derive(Debug, Clone, Copy)]
pub struct FakeAwsOptions {
    /// Which faults to inject.
    pub faults: Faults,
    /// The seed of the faults.
    pub seed: u64,
    /// Whether AWS's rates are enforced; limits of sizes and counts always are.
    pub rates: bool,
}

impl Default for FakeAwsOptions {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            seed: 1,
            rates: true,
        }
    }
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct FakeAws {
    /// Where it listens.
    pub url: String,
    shared: Arc<ServerShared>,
    server: JoinHandle<()>,
}

impl FakeAws {
    /// Starts one on a free port of the loopback.
    pub async fn start(options: FakeAwsOptions) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(ServerShared::new(url.clone(), options));
        let router = server::router(shared.clone());
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

    /// Moves the server's clock forward.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// Replaces the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.faults.set(faults);
    }

    /// The state of SQS.
    pub fn sqs(&self) -> MutexGuard<'_, Sqs> {
        lock(&self.shared.sqs)
    }

    /// The state of Kinesis.
    pub fn kinesis(&self) -> MutexGuard<'_, Kinesis> {
        lock(&self.shared.kinesis)
    }

    /// The state of S3.
    pub fn s3(&self) -> MutexGuard<'_, S3> {
        lock(&self.shared.s3)
    }

    /// Makes a call of SQS without HTTP and without faults, to prepare a test.
    pub fn ask_sqs(&self, action: &str, request: &Value) -> Result<Value, FakeError> {
        let now = self.shared.clock.now();
        let no_faults = FaultInjector::new(Faults::default(), 0);
        self.sqs().call(action, request, now, &no_faults, &self.url)
    }

    /// Makes a call of Kinesis without HTTP and without faults.
    pub fn ask_kinesis(&self, action: &str, request: &Value) -> Result<Value, FakeError> {
        let now = self.shared.clock.now();
        let no_faults = FaultInjector::new(Faults::default(), 0);
        self.kinesis().call(action, request, now, &no_faults)
    }

    /// How often an action was called.
    pub fn calls(&self, action: &str) -> u64 {
        lock(&self.shared.calls).get(action).copied().unwrap_or(0)
    }

    /// Every action that was called.
    pub fn called(&self) -> Vec<String> {
        lock(&self.shared.calls).keys().cloned().collect()
    }

    /// How often a call of an action was refused.
    pub fn refused(&self, action: &str) -> u64 {
        let refused = lock(&self.shared.refused_calls);
        refused.get(action).copied().unwrap_or(0)
    }

    /// Loses the next response to this action, once; the call has its effect.
    pub fn lose_next(&self, action: &str) {
        lock(&self.shared.responses_to_lose).insert(action.to_owned());
    }

    /// Lets calls of this action wait, or go on.
    pub fn hold(&self, action: &str, is_held: bool) {
        let mut held = lock(&self.shared.held);
        match is_held {
            true => held.insert(action.to_owned()),
            false => held.remove(action),
        };
    }

    /// How many calls wait because their action is held.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::SeqCst)
    }

    /// Takes the permission for this call, and its batch, on the queue or stream of this name away.
    pub fn deny(&self, action: &str, resource: &str) {
        lock(&self.shared.denied).insert((action.to_owned(), resource.to_owned()));
    }

    /// Restores all permissions.
    pub fn allow_all(&self) {
        lock(&self.shared.denied).clear();
    }

    /// Every identity that signed a request.
    pub fn signers(&self) -> BTreeSet<Signer> {
        lock(&self.shared.signers).clone()
    }

    /// How many messages of a queue are in flight now.
    pub fn in_flight(&self, queue: &str) -> usize {
        let now = self.shared.clock.now();
        self.sqs().in_flight(queue, now)
    }

    /// Splits or merges a stream's shards.
    pub fn reshard(&self, stream: &str, target: usize) -> Result<(), FakeError> {
        let now = self.shared.clock.now();
        self.kinesis().reshard(stream, target, now)
    }
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// MD5, which Kinesis hashes partition keys with.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// MD5 in hex, as SQS returns it.
pub fn md5_hex(text: &str) -> String {
    md5(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A text field of a request; empty if it is missing.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
