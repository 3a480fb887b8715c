//! A fake AWS in which every queue and stream exists already and is empty, for pipelines that adopt their transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:queue";

/// Ends when dropped.
pub struct Adopted {
    port: u16,
    requests: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Adopted {
    /// Listens on loopback.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let pages = Router::new().fallback(async move |headers: HeaderMap, body: String| {
            counted.fetch_add(1, Ordering::Relaxed);
            let action = headers
                .get("x-amz-target")
                .and_then(|target| target.to_str().ok());
            let action = action
                .and_then(|target| target.split('.').next_back())
                .unwrap_or_default();
            let asked: Value = serde_json::from_str(&body).unwrap_or_default();
            (
                [(CONTENT_TYPE, "application/json")],
                answer(action, &asked, port).to_string(),
            )
        });
        let task = tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
        Self {
            port,
            requests,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The number of requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn answer(action: &str, asked: &Value, port: u16) -> Value {
    let queue = asked["QueueName"].as_str().unwrap_or_default();
    match action {
        "GetQueueUrl" => {
            json!({"QueueUrl": format!("http://127.0.0.1:{port}/000000000000/{queue}")})
        }
        // All queues are one, and that is its own dead-letter queue.
        "GetQueueAttributes" => json!({"Attributes": {
            "FifoQueue": "true",
            "RedrivePolicy": json!({"deadLetterTargetArn": QUEUE, "maxReceiveCount": 20}).to_string(),
            "QueueArn": QUEUE,
            "ApproximateNumberOfMessages": "0",
            "ApproximateNumberOfMessagesNotVisible": "0",
            "ApproximateNumberOfMessagesDelayed": "0",
        }}),
        "DescribeStreamSummary" => json!({"StreamDescriptionSummary": {
            "StreamName": asked["StreamName"],
            "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/adopted",
            "StreamStatus": "ACTIVE",
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 1_700_000_000,
            "EnhancedMonitoring": [],
            "OpenShardCount": 1,
        }}),
        "ListQueueTags" => json!({"Tags": {}}),
        "ListTagsForStream" => json!({"Tags": [], "HasMoreTags": false}),
        other => panic!("unexpected action {other}"),
    }
}
