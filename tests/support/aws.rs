//! Queues and streams on a fake AWS, created as a test needs them, and clients of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use serde_json::json;
use streampress_transport::aws::{Aws, AwsCredentials, AwsOptions, KinesisStream, SqsQueue};
use streampress_transport::slot_lock::HolderRequest;
use streampress_transport::{Ledger, SharedLedger, SlotGuard, SlotLock, TransportResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fake_aws::{FakeAws, FakeAwsOptions};

/// A fake AWS and clients of it.
#[derive(Debug)]
pub struct Cloud {
    /// The server.
    pub fake_aws: FakeAws,
    /// Clients of it.
    pub aws: Aws,
    created: AtomicU32,
}

impl Cloud {
    /// Starts one with AWS's limits and without faults.
    pub async fn start() -> Self {
        Self::with(FakeAwsOptions::default()).await
    }

    /// Starts one with `options`.
    pub async fn with(options: FakeAwsOptions) -> Self {
        let fake_aws = FakeAws::start(options).await.expect("a free port");
        let aws = connect(&fake_aws.url).await;
        Self {
            fake_aws,
            aws,
            created: AtomicU32::new(0),
        }
    }

    /// Creates a queue with its dead-letter queue and opens it.
    pub async fn queue(&self, visibility: Duration, max_receive_count: u32) -> SqsQueue {
        let name = format!("queue-{}", self.created.fetch_add(1, Ordering::Relaxed));
        self.make_queue(&name, max_receive_count);
        self.aws
            .queue(&format!("{name}.fifo"), visibility)
            .await
            .expect("the queue opens")
    }

    /// Creates `<name>.fifo` and `<name>-dlq.fifo`.
    pub fn make_queue(&self, name: &str, max_receive_count: u32) {
        let (queue, dead) = (format!("{name}.fifo"), format!("{name}-dlq.fifo"));
        let policy = json!({"deadLetterTargetArn": crate::fake_aws::sqs::arn(&dead), "maxReceiveCount": max_receive_count});
        for (name, attributes) in [
            (&dead, json!({"FifoQueue": "true"})),
            (
                &queue,
                json!({"FifoQueue": "true", "RedrivePolicy": policy.to_string()}),
            ),
        ] {
            let request = json!({"QueueName": name, "Attributes": attributes});
            self.fake_aws
                .ask_sqs("CreateQueue", &request)
                .expect("the queue is created");
        }
    }

    /// Creates a stream with `shards` shards and opens it.
    pub async fn stream(&self, shards: usize) -> KinesisStream {
        let name = format!("stream-{}", self.created.fetch_add(1, Ordering::Relaxed));
        self.make_stream(&name, shards);
        self.aws.stream(&name).await.expect("the stream opens")
    }

    /// Creates a stream.
    pub fn make_stream(&self, name: &str, shards: usize) {
        let request = json!({"StreamName": name, "ShardCount": shards});
        self.fake_aws
            .ask_kinesis("CreateStream", &request)
            .expect("the stream is created");
    }
}

/// Clients of the server at `url`.
pub async fn connect(url: &str) -> Aws {
    let options = AwsOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(url.into()),
        credentials: Some(AwsCredentials::new("test", "test")),
        ..AwsOptions::default()
    };
    Aws::connect(&options).await
}

/// Creates a bucket on LocalStack, which accepts an unsigned PUT. Buckets belong to users: the product creates none.
pub async fn make_bucket(url: &str, name: &str) -> anyhow::Result<()> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = tokio::net::TcpStream::connect(address)
        .await
        .with_context(|| format!("creating a bucket on LocalStack at {url}"))?;
    let authorization = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let request = format!(
        "PUT /{name} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    anyhow::ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "no bucket {name}: {answer}"
    );
    Ok(())
}

/// Grants a slot whenever one is requested, for tests that are not about slots.
#[derive(Debug)]
pub struct UnlimitedSlots;

#[async_trait]
impl SlotLock for UnlimitedSlots {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let (requests, mut received) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(request) = received.recv().await {
                let (HolderRequest::Flush(answer) | HolderRequest::Release(answer)) = request;
                let _ = answer.send(true);
            }
        });
        let attempt = format!("attempt-{:x}", fastrand::u64(..));
        Ok(Some(SlotGuard::new(
            "slot".into(),
            attempt,
            CancellationToken::new(),
            SharedLedger::default(),
            requests,
        )))
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        Ok(false)
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        Ok(Ledger::default())
    }
}
