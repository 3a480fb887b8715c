//! How often a status is written.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use streampress_operator::resources::ObjectKind;
use tokio::time::sleep;

use crate::support::{Proxy, TestCluster};

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_at_most_once_in_ten_seconds_and_not_at_all_when_nothing_changed() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    cluster.start_through(proxy.client());
    let spec = json!({"generator": {"schema": {"example": "stock-market"}}});
    cluster.create("stock", spec).await;
    let stock = cluster.settled("stock").await;
    let queue = stock["status"]["transport"]["chunksQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    let (mut written, mut round) = (Vec::new(), 0_u64);
    let mut take_writes = || {
        let log = proxy.take_log().into_iter();
        written.extend(log.filter(|seen| seen.path.contains("/stock/status")));
        written.len()
    };
    // Everything that a status contains changes all the time.
    while take_writes() < 4 {
        round += 1;
        cluster.transport.put(&queue, round);
        cluster
            .edit("stock", json!({"suspend": round.is_multiple_of(2)}))
            .await;
        let counted = json!({"metadata": {"annotations": {"streampress.dev/ledger": json!({"files": round}).to_string()}}});
        let _ = cluster
            .of(ObjectKind::Lease)
            .patch(
                "stock-generator-0",
                &PatchParams::default(),
                &Patch::Merge(counted),
            )
            .await;
        // Not more changes than the API server takes.
        sleep(Duration::from_millis(300)).await;
    }
    cluster.transport.put(&queue, 0);
    cluster.edit("stock", json!({"suspend": false})).await;
    cluster.settled("stock").await;
    // The last change is written too, and then nothing more.
    cluster.rest(Duration::from_secs(15)).await;
    take_writes();
    for pair in written.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(
            apart >= Duration::from_secs(10),
            "two writes {apart:?} apart"
        );
    }
    println!("{} status writes of {round} changes", written.len());
}
