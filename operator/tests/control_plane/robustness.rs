//! A failure of one thing delays nothing else, and is reported.

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use streampress_operator::resources::ObjectKind;
use tokio::time::Instant;

use crate::support::cluster::pipeline;
use crate::support::proxy::ProxiedRequest;
use crate::support::{Fault, Proxy, TestCluster, condition, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_fails_is_named_and_delays_no_other_once_all_was_listed() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    let failing = |seen: &ProxiedRequest| match seen.path.contains("networkpolicies")
        && seen.method == http::Method::GET
    {
        true => Fault::Answer(500),
        false => Fault::None,
    };
    proxy.rule(failing);
    cluster.start_through(proxy.client());
    cluster.create("stock", json!({})).await;
    eventually("the failing watch is named", async || {
        cluster
            .health
            .ready()
            .is_err_and(|why| why.contains("networkpolicies: ") && why.contains("injected"))
    })
    .await;
    // From a half-filled cache one would conclude that objects are missing.
    assert_eq!(cluster.writes(), 0);
    assert_eq!(cluster.health.live(), Ok(()));
    proxy.rule(|_| Fault::None);
    cluster.settled("stock").await;
    cluster.has_deployments(2).await;
    assert_eq!(cluster.health.ready(), Ok(()));
    proxy.rule(failing);
    let began = Instant::now();
    cluster
        .edit("stock", json!({"compressor": {"replicas": 3}}))
        .await;
    eventually("the edit is carried out", async || {
        cluster.replicas("stock-compressor").await == 3
    })
    .await;
    println!(
        "with one watch failing an edit was carried out after {:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_at_once_are_not_begun_again_at_once() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(|seen| match seen.watches() {
        true => Fault::Empty,
        false => Fault::None,
    });
    cluster.start_through(proxy.client());
    eventually("it is ready", async || cluster.health.ready().is_ok()).await;
    proxy.take_log();
    let (kinds, began) = (ObjectKind::ALL.len() + 1, Instant::now());
    let mut watches = 0;
    eventually("several watches of each kind", async || {
        let log = proxy.take_log();
        watches += log.iter().filter(|seen| seen.watches()).count();
        watches >= 4 * kinds
    })
    .await;
    // Each of them at most once in a second; the first may have been due.
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(
        watches <= kinds * (seconds + 1),
        "{watches} watches of {kinds} kinds in {seconds} s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_custom_resource_definition_is_named() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(|seen| match seen.path.contains("/compressionpipelines") {
        true => Fault::Answer(404),
        false => Fault::None,
    });
    cluster.start_through(proxy.client());
    eventually("it is named", async || {
        cluster
            .health
            .ready()
            .is_err_and(|why| why.contains("compressionpipelines.streampress.dev"))
    })
    .await;
    assert_eq!(cluster.health.live(), Ok(()));
    proxy.rule(|_| Fault::None);
    eventually("it is ready", async || cluster.health.ready().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_writes_hang_delays_no_other_and_is_finished_later() {
    let mut cluster = TestCluster::empty().await;
    let proxy = Proxy::start().await;
    proxy.rule(|seen| match seen.writes() && seen.path.contains("/bad") {
        true => Fault::Hang,
        false => Fault::None,
    });
    cluster.options.concurrency = 4;
    cluster.start_through(proxy.client());
    for name in ["bad-1", "bad-2", "bad-3", "good"] {
        cluster.create(name, json!({})).await;
    }
    cluster.settled("good").await;
    assert_eq!(
        cluster.names(ObjectKind::Deployment).await,
        ["good-compressor", "good-decompressor"]
    );
    proxy.rule(|_| Fault::None);
    for name in ["bad-1", "bad-2", "bad-3"] {
        cluster.settled(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_be_read_is_reported_and_can_be_deleted() {
    let cluster = TestCluster::new().await;
    cluster.create("stock", json!({})).await;
    cluster.create("other", json!({})).await;
    cluster.settled("stock").await;
    allow_another_ordering(&cluster).await;
    cluster.edit("stock", json!({"ordering": "Sideways"})).await;
    let stock = cluster
        .until("stock", "to be reported", |pipeline| {
            condition(pipeline, "Stalled") == "True"
        })
        .await;
    let message = stock["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("cannot be read") && message.contains("another version"),
        "{message}"
    );
    cluster
        .edit("other", json!({"compressor": {"slots": 2}}))
        .await;
    cluster.settled("other").await;
    cluster.delete("stock").await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    eventually("an Event says what may be left", async || {
        let events = events.list(&Default::default()).await.unwrap();
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("TransportLeftBehind"))
    })
    .await;
}

/// Makes the API server take an `ordering` that this release does not know, as a later release's definition would.
async fn allow_another_ordering(cluster: &TestCluster) {
    let mut crd = serde_json::to_value(streampress_crds::crd()).unwrap();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let ordering = &mut schema["properties"]["spec"]["properties"]["ordering"]["enum"];
    ordering.as_array_mut().unwrap().push("Sideways".into());
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let params = PatchParams::apply("tests").force();
    let name = "compressionpipelines.streampress.dev";
    api.patch(name, &params, &Patch::Apply(&crd)).await.unwrap();
    // The server takes a new schema a moment later.
    let mut odd = pipeline("odd", json!({"ordering": "Sideways"}));
    odd.metadata.generate_name = Some("odd-".into());
    odd.metadata.name = None;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the new schema is in force", async || {
        cluster.pipelines().create(&params, &odd).await.is_ok()
    })
    .await;
}
