//! The transport's contract tests over SQS and Kinesis, on the fake AWS with AWS's limits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use streampress_tests::aws::Cloud;
use streampress_transport::contract_tests::{self, Implementation};
use streampress_transport::{ChunkStream, Queue, SlotLock};

#[async_trait]
impl Implementation for OnFakeAws {
    fn short(&self) -> Duration {
        // SQS counts whole seconds.
        Duration::from_secs(1)
    }

    async fn queue(&self, visibility: Duration, max_receive_count: u32) -> Arc<dyn Queue> {
        Arc::new(self.0.queue(visibility, max_receive_count).await)
    }

    async fn stream(&self) -> Arc<dyn ChunkStream> {
        Arc::new(self.0.stream(2).await)
    }

    async fn locks(&self, _participants: usize, _slots: u32) -> Vec<Arc<dyn SlotLock>> {
        // AWS has no slots: a Kubernetes Lease or the embedded transport grants them.
        Vec::new()
    }
}

struct OnFakeAws(Cloud);

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_sqs_keeps_the_contract() {
    contract_tests::queue::all(&OnFakeAws(Cloud::start().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_kinesis_keeps_the_contract() {
    contract_tests::stream::all(&OnFakeAws(Cloud::start().await)).await;
}
