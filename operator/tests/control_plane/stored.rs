//! Pipelines that the API server stored under the CRD of an earlier build, read and run under this one.
//! Every test here replaces the CRD, which all namespaces share: no other test may run meanwhile, and `.config/nextest.toml`
//! sees to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::api::{Api, ListParams, Patch, PatchParams, ValidationDirective};
use serde_json::{Value, json};
use streampress_crds::CompressionPipeline;

use crate::support::cluster::install_crd;
use crate::support::{TestCluster, condition, eventually};

/// Commits whose CRD is kept in `tests/stored`: the first from before receipts, bundles and `settleSeconds`.
const COMMITS: [&str; 2] = ["abe66f2", "3b30624"];

fn stored(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored");
    folder.join(file)
}

fn kubectl(args: &[&str]) {
    let output = Command::new("kubectl")
        .args(args)
        .output()
        .expect("kubectl on the PATH: run this inside `tests/cluster exec`");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
}

fn server_side_apply(manager: &str, more: &[&str], file: &Path) {
    let manager = format!("--field-manager={manager}");
    let apply = ["apply", "--server-side", "--force-conflicts", &manager];
    let file = file.to_string_lossy();
    kubectl(&[&apply, more, &["-f", &file]].concat());
}

/// Whether the server's schema has the field that only the CRD of [`serve_earlier_crd`] has: it takes a moment to change.
async fn serves_earlier_crd(cluster: &TestCluster) -> bool {
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("tests")
    };
    let probe = json!({
        "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline", "marker": "earlier",
        "metadata": {"name": "probe"},
        "spec": {"source": {"location": "s3://shop/in"}, "destination": {"location": "s3://shop/out"}, "report": {"location": "s3://shop/page.html"}},
    });
    let answer = cluster
        .pipelines()
        .patch("probe", &params, &Patch::Apply(probe))
        .await;
    match answer {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("marker"), "{error}");
            false
        }
    }
}

async fn serve_earlier_crd(cluster: &TestCluster, commit: &str) {
    let yaml = std::fs::read_to_string(stored(&format!("{commit}-crd.yaml"))).unwrap();
    let root = "        properties:\n          spec:\n";
    assert!(yaml.contains(root), "the schema's root is where it was");
    let marked = "        properties:\n          marker: {type: string}\n          spec:\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crd.yaml");
    std::fs::write(&file, yaml.replacen(root, marked, 1)).unwrap();
    server_side_apply("tests", &[], &file);
    eventually("the server has the earlier schema", async || {
        serves_earlier_crd(cluster).await
    })
    .await;
}

async fn serve_this_crd(cluster: &TestCluster) {
    install_crd(cluster.client.clone()).await;
    eventually("the server has the schema of now", async || {
        !serves_earlier_crd(cluster).await
    })
    .await;
}

/// All pipelines by name, as the server shows them.
async fn pipelines(cluster: &TestCluster) -> BTreeMap<String, Value> {
    let found = cluster.pipelines().list(&ListParams::default()).await;
    let items = found.unwrap().items.into_iter();
    items
        .map(|item| {
            (
                item.metadata.name.clone().unwrap(),
                serde_json::to_value(item).unwrap(),
            )
        })
        .collect()
}

/// Everything of `before` is in `now`, which may have more fields.
fn holds(now: &Value, before: &Value) -> bool {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => before
            .iter()
            .all(|(key, value)| now.get(key).is_some_and(|now| holds(now, value))),
        _ => now == before,
    }
}

/// The server's answer to a change, in a dry run.
async fn change(cluster: &TestCluster, name: &str, patch: Value) -> Result<(), String> {
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let (api, patch) = (cluster.pipelines(), Patch::Merge(patch));
    let answer = api.patch(name, &params, &patch).await;
    answer.map(drop).map_err(|error| error.to_string())
}

/// As users and the operator of then wrote them; gives them as the server showed them then.
async fn store(cluster: &TestCluster) -> BTreeMap<String, Value> {
    let namespace = ["--namespace", &cluster.namespace, "--validate=strict"];
    server_side_apply("user", &namespace, &stored("objects.yaml"));
    let progress = json!({"filesRestored": 7, "filesFailed": 1, "bytesRaw": 700, "bytesCompressed": 70, "savedPercent": "90.0"});
    let status =
        json!({"status": {"phase": "Running", "observedGeneration": 1, "progress": progress}});
    let (api, params, patch) = (
        cluster.pipelines(),
        PatchParams::default(),
        Patch::Merge(&status),
    );
    for name in pipelines(cluster).await.keys() {
        api.patch_status(name, &params, &patch).await.unwrap();
    }
    pipelines(cluster).await
}

async fn every_field_is_kept(cluster: &TestCluster, before: &BTreeMap<String, Value>) {
    let now = pipelines(cluster).await;
    assert_eq!(now.len(), before.len());
    for (name, before) in before {
        let now = &now[name];
        for part in ["spec", "status"] {
            assert!(
                holds(&now[part], &before[part]),
                "{name}: {:#} is no longer {:#}",
                now[part],
                before[part]
            );
        }
    }
    let typed: Api<CompressionPipeline> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
    typed.list(&ListParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_stored_under_an_earlier_crd_keep_every_field_and_are_reconciled() {
    for commit in COMMITS {
        let mut cluster = TestCluster::empty().await;
        serve_earlier_crd(&cluster, commit).await;
        let before = store(&cluster).await;
        serve_this_crd(&cluster).await;
        every_field_is_kept(&cluster, &before).await;
        cluster.start();
        for name in before.keys() {
            let edited = change(&cluster, name, json!({"spec": {"suspend": true}})).await;
            assert_eq!(edited, Ok(()), "{name}");
            cluster.settled(name).await;
        }
        every_field_is_kept(&cluster, &only_specs(&before)).await;
        for name in before.keys() {
            cluster.delete(name).await;
        }
    }
}

/// Without what the operator writes.
fn only_specs(all: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let spec = |(name, pipeline): (&String, &Value)| {
        let kept = json!({"spec": pipeline["spec"], "status": {}});
        (name.clone(), kept)
    };
    all.iter().map(spec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_pipeline_that_a_later_rule_refuses_says_why_and_keeps_its_workers() {
    let mut cluster = TestCluster::new().await;
    let places = json!({"source": {"location": "s3://shop/in"}, "destination": {"location": "s3://shop/out"}, "report": {"location": "s3://shop/page.html"}});
    cluster.create("shop", places).await;
    cluster.settled("shop").await;
    cluster.has_deployments(2).await;
    cluster.stop().await;
    let before = cluster.generations().await;
    // Of the CRDs that are kept, only the first has no rule against it.
    serve_earlier_crd(&cluster, COMMITS[0]).await;
    let among_files = json!({"report": {"location": "s3://shop/out/page.html"}});
    cluster.edit("shop", among_files).await;
    serve_this_crd(&cluster).await;
    cluster.start();
    let stalled = cluster
        .until("shop", "to be stalled", |pipeline| {
            condition(pipeline, "Stalled") == "True"
        })
        .await;
    let message = stalled["status"]["message"].as_str().unwrap();
    assert!(message.contains("spec.report.location"), "{message}");
    let labelled = json!({"metadata": {"labels": {"team": "shop"}}});
    assert_eq!(change(&cluster, "shop", labelled).await, Ok(()));
    let edited = change(&cluster, "shop", json!({"spec": {"suspend": true}})).await;
    let message = edited.expect_err("the report is still among the files");
    let words = "report.location must not be inside source.location or destination.location; write the report to another folder";
    assert!(message.contains(words), "{message}");
    assert_eq!(cluster.generations().await, before);
    cluster.delete("shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_crd_drops_later_fields_with_the_next_write_and_keeps_all_others() {
    let cluster = TestCluster::empty().await;
    let spec = json!({"source": {"settleSeconds": 30, "scanSeconds": 5}, "codec": {"bundle": "Off", "effort": "Max"}});
    cluster.create("shop", spec.clone()).await;
    let shown = async || cluster.pipelines().get("shop").await.unwrap().data["spec"].clone();
    serve_earlier_crd(&cluster, COMMITS[0]).await;
    let earlier = shown().await;
    assert_eq!(earlier["source"]["settleSeconds"], Value::Null);
    assert_eq!(earlier["codec"]["bundle"], Value::Null);
    serve_this_crd(&cluster).await;
    assert!(holds(&shown().await, &spec), "a read alone drops nothing");
    serve_earlier_crd(&cluster, COMMITS[0]).await;
    cluster.edit("shop", json!({"suspend": true})).await;
    serve_this_crd(&cluster).await;
    let now = shown().await;
    let kept = json!({"source": {"scanSeconds": 5}, "codec": {"effort": "Max"}, "suspend": true});
    assert!(holds(&now, &kept), "{now:#}");
    assert_eq!(now["source"]["settleSeconds"], Value::Null);
    assert_eq!(now["codec"]["bundle"], "Auto", "its default");
}
