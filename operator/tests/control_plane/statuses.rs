//! How often a status is written.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use streampress_operator::resources::owned_object::Kind;
use tokio::time::{Instant, sleep};

use crate::support::{Proxy, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_at_most_once_in_ten_seconds_and_not_at_all_when_nothing_changed() {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    site.start_through(proxy.client());
    let spec = json!({"generator": {"schema": {"example": "stock-market"}}});
    site.create("stock", spec).await;
    let stock = site.settled("stock").await;
    let queue = stock["status"]["transport"]["chunksQueueURL"]
        .as_str()
        .unwrap()
        .replace("memory://", "");
    // Everything that a status speaks of changes all the time.
    let began = Instant::now();
    let mut round = 0_u64;
    while began.elapsed() < Duration::from_secs(25) {
        round += 1;
        site.transport.put(&queue, round);
        site.edit("stock", json!({"suspend": round.is_multiple_of(2)}))
            .await;
        let counted = json!({"metadata": {"annotations": {"streampress.dev/ledger": json!({"files": round}).to_string()}}});
        let _ = site
            .of(Kind::Lease)
            .patch(
                "stock-generator-0",
                &PatchParams::default(),
                &Patch::Merge(counted),
            )
            .await;
        sleep(Duration::from_millis(300)).await;
    }
    site.transport.put(&queue, 0);
    site.edit("stock", json!({"suspend": false})).await;
    site.settled("stock").await;
    // What was last is said too, and then nothing more.
    sleep(Duration::from_secs(11)).await;
    let writes = || {
        let log = proxy.take_log();
        log.into_iter()
            .filter(|seen| seen.path.contains("/stock/status"))
            .collect::<Vec<_>>()
    };
    let written = writes();
    assert!(written.len() >= 3, "{written:?}");
    for pair in written.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(
            apart >= Duration::from_secs(10),
            "two writes {apart:?} apart"
        );
    }
    println!(
        "{} status writes in {:?} of {round} changes",
        written.len(),
        began.elapsed()
    );
    sleep(Duration::from_secs(15)).await;
    assert_eq!(writes().len(), 0, "writes at rest");
}
