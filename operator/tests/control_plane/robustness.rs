//! One thing that fails holds up nothing else, and says what it is.

use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::json;
use streampress_operator::apply::applier::Hands;
use streampress_operator::apply::election::Leadership;
use streampress_operator::apply::events::Events;
use streampress_operator::controller::{Context, reconcile};
use streampress_operator::http::metrics::Metrics;
use streampress_operator::resources::owned_object::Kind;
use streampress_operator::state::cache::Store;
use streampress_operator::transport::manager::Desk;
use tokio::time::Instant;

use crate::support::proxy::Seen;
use crate::support::{Fault, Proxy, Site, condition, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_fails_is_named_and_holds_up_no_other_once_all_was_listed() {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    let failing = |seen: &Seen| match seen.path.contains("networkpolicies")
        && seen.method == http::Method::GET
    {
        true => Fault::Answer(500),
        false => Fault::None,
    };
    proxy.rule(failing);
    site.start_through(proxy.client());
    site.create("stock", json!({})).await;
    eventually("the failing watch is named", async || {
        site.pulses
            .ready()
            .is_err_and(|why| why.contains("networkpolicies: ") && why.contains("made up"))
    })
    .await;
    // From a half-filled store one would conclude that things are missing.
    assert_eq!(site.writes(), 0);
    assert_eq!(site.pulses.live(), Ok(()));
    proxy.rule(|_| Fault::None);
    site.settled("stock").await;
    site.has_deployments(2).await;
    assert_eq!(site.pulses.ready(), Ok(()));
    proxy.rule(failing);
    let began = Instant::now();
    site.edit("stock", json!({"compressor": {"replicas": 3}}))
        .await;
    eventually("the edit is carried out", async || {
        site.replicas("stock-compressor").await == 3
    })
    .await;
    println!(
        "with one watch failing an edit was carried out after {:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_at_once_are_not_asked_for_in_a_rush() {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(|seen| match seen.watches() {
        true => Fault::Nothing,
        false => Fault::None,
    });
    site.start_through(proxy.client());
    eventually("it is ready", async || site.pulses.ready().is_ok()).await;
    proxy.take_log();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let asked = proxy
        .take_log()
        .iter()
        .filter(|seen| seen.watches())
        .count();
    let kinds = Kind::ALL.len() + 1;
    // Each of them at most once in half a second, which is the shortest pause.
    assert!(
        asked <= kinds * 9,
        "{asked} watches of {kinds} kinds in 4 s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_custom_resource_definition_is_named() {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(|seen| match seen.path.contains("/compressionpipelines") {
        true => Fault::Answer(404),
        false => Fault::None,
    });
    site.start_through(proxy.client());
    eventually("it is named", async || {
        site.pulses
            .ready()
            .is_err_and(|why| why.contains("compressionpipelines.streampress.dev"))
    })
    .await;
    assert_eq!(site.pulses.live(), Ok(()));
    proxy.rule(|_| Fault::None);
    eventually("it is ready", async || site.pulses.ready().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_writes_hang_holds_up_no_other_and_is_finished_later() {
    let mut site = Site::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(|seen| match seen.writes() && seen.path.contains("/bad") {
        true => Fault::Hang,
        false => Fault::None,
    });
    site.options.at_once = 4;
    site.start_through(proxy.client());
    for name in ["bad-1", "bad-2", "bad-3", "good"] {
        site.create(name, json!({})).await;
    }
    site.settled("good").await;
    assert_eq!(
        site.names(Kind::Deployment).await,
        ["good-compressor", "good-decompressor"]
    );
    proxy.rule(|_| Fault::None);
    for name in ["bad-1", "bad-2", "bad-3"] {
        site.settled(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_be_read_is_reported_and_can_be_deleted() {
    let mut site = Site::new().await;
    site.create("stock", json!({})).await;
    site.settled("stock").await;
    site.stop().await;
    let metrics = Metrics::default();
    let (client, leads) = (site.client.clone(), Leadership::always());
    let notify = Arc::new(|_: &str, _: &str| {});
    let context = Arc::new(Context {
        hands: Hands::new(client.clone(), leads.clone(), metrics.clone()),
        store: Store::default(),
        desk: Desk::new(
            site.transport.clone(),
            client.clone(),
            site.options.desk.clone(),
            notify,
        ),
        events: Events::new(client.clone(), "test".into(), leads),
        metrics,
        platform: site.options.platform.clone(),
        memories: Default::default(),
        began: Instant::now(),
    });
    // As from a server with another version of the definition.
    let unreadable = async || {
        let mut object: DynamicObject = site.pipelines().get("stock").await.unwrap();
        object.data["spec"]["compressor"] = json!(["what is this?"]);
        Arc::new(object)
    };
    reconcile(unreadable().await, context.clone())
        .await
        .unwrap();
    let stock = site
        .until("stock", "to be reported", |pipeline| {
            condition(pipeline, "Stalled") == "True"
        })
        .await;
    let said = stock["status"]["message"].as_str().unwrap();
    assert!(
        said.contains("cannot be read") && said.contains("another version"),
        "{said}"
    );
    site.pipelines()
        .delete("stock", &Default::default())
        .await
        .unwrap();
    reconcile(unreadable().await, context).await.unwrap();
    site.gone("stock").await;
    let events: kube::Api<k8s_openapi::api::events::v1::Event> =
        kube::Api::namespaced(client, &site.namespace);
    eventually("an Event says what may be left", async || {
        let events = events.list(&Default::default()).await.unwrap();
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("TransportLeftBehind"))
    })
    .await;
}
