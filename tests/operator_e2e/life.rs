//! A pipeline is edited, scaled, suspended, resumed and deleted; and an operator is uninstalled before its pipelines.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streampress_tests::cluster::condition_is_true;

use crate::{LONG, OperatorFixture, SOON, WORKERS, files, status};

pub(crate) fn uids(pods: &[Value]) -> BTreeSet<String> {
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
    pods.iter().filter_map(uid).collect()
}

pub(crate) fn role(role: &str) -> String {
    format!("app.kubernetes.io/component={role}")
}

pub(crate) fn restored(fixture: &OperatorFixture, at_least: u64) -> Result<()> {
    fixture.wait(&format!("{at_least} files to be restored"), SOON, || {
        let found = fixture.pipeline("stock-market")?;
        let count = status(&found, "/progress/filesRestored").as_u64();
        ensure!(
            count >= Some(at_least),
            "its status is {:#}",
            found["status"]
        );
        Ok(())
    })
}

#[test]
fn a_pipeline_is_edited_scaled_suspended_resumed_and_deleted_without_losing_a_file() -> Result<()> {
    let fixture = OperatorFixture::install("op-life")?;
    // Without a limit, so that files are in progress at every step.
    let generator =
        json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 60});
    fixture.apply_example("stock-market", json!({"generator": generator}))?;
    fixture.wait_ready("stock-market")?;
    restored(&fixture, 3)?;
    fixture.list_dead_letters("stock-market")?;

    let others = [
        fixture.pods(&role("generator"))?,
        fixture.pods(&role("decompressor"))?,
    ]
    .concat();
    let compressor = uids(&fixture.pods(&role("compressor"))?);
    fixture.patch("stock-market", &json!({"codec": {"effort": "Fast"}}))?;
    fixture.wait("the compressor to be replaced", SOON, || {
        let now = uids(&fixture.pods(&role("compressor"))?);
        ensure!(
            now.len() == 1 && now.is_disjoint(&compressor),
            "its pods are {now:?}"
        );
        Ok(())
    })?;
    let now = [
        fixture.pods(&role("generator"))?,
        fixture.pods(&role("decompressor"))?,
    ]
    .concat();
    ensure!(
        uids(&now) == uids(&others),
        "an edit of the codec rolled generator or decompressor"
    );

    fixture.kubectl(&["scale", "cpl/stock-market", "--replicas=2"])?;
    fixture.wait("two compressors", SOON, || {
        let deployment = fixture.cluster.get(
            &fixture.namespace.name,
            "deployment/stock-market-compressor",
        )?;
        ensure!(
            deployment["status"]["readyReplicas"] == 2,
            "{:#}",
            deployment["status"]
        );
        Ok(())
    })?;

    fixture.patch("stock-market", &json!({"suspend": true}))?;
    let suspended = fixture.wait_phase("stock-market", "Suspended", SOON * 2)?;
    println!("{}", status(&suspended, "/message"));
    ensure!(
        condition_is_true(&suspended, "Drained"),
        "{:#}",
        suspended["status"]
    );
    ensure!(
        status(&suspended, "/backlog/chunks") == 0,
        "{:#}",
        suspended["status"]
    );
    fixture.wait("all workers to be gone", SOON, || {
        let left = fixture.pods(WORKERS)?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })?;
    let folder = fixture.volume("stock-market")?;
    let (sources, out) = (files(&folder.join("in"))?, files(&folder.join("out"))?);
    for (name, bytes) in &out {
        ensure!(sources.get(name) == Some(bytes), "{name} was altered");
    }
    let waiting = status(&suspended, "/backlog/files")
        .as_u64()
        .context("files that wait are counted")?;
    ensure!(
        sources.len() as u64 <= out.len() as u64 + waiting,
        "{} files were generated, {} restored, {waiting} wait",
        sources.len(),
        out.len()
    );

    fixture.patch("stock-market", &json!({"suspend": false}))?;
    restored(&fixture, out.len() as u64 + 3)?;
    fixture.kubectl(&["delete", "cpl/stock-market", "--timeout=150s"])?;
    // A worker alone may take a minute to end.
    fixture.wait("everything of the pipeline to be gone", SOON * 2, || {
        let left = fixture.kubectl(&[
            "get",
            "deployments,leases,configmaps,services,pods,roles",
            "-l",
            "app.kubernetes.io/instance=stock-market",
            "-o",
            "name",
        ])?;
        ensure!(left.trim().is_empty(), "there is still {left}");
        Ok(())
    })
}

#[test]
fn uninstalling_the_operator_first_leaves_pipelines_that_can_be_deleted() -> Result<()> {
    let fixture = OperatorFixture::install("op-first")?;
    let generator =
        json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 60});
    fixture.apply_example(
        "stock-market",
        json!({"generator": generator, "transport": {"deletionPolicy": "Retain"}}),
    )?;
    fixture.wait_ready("stock-market")?;
    restored(&fixture, 1)?;
    fixture.helm(&["uninstall", "streampress", "--wait", "--timeout=300s"])?;
    let found = fixture.pipeline("stock-market")?;
    ensure!(
        found["metadata"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "{:#}",
        found["metadata"]
    );
    // Without an operator and without a finalizer it is deleted at once.
    fixture.kubectl(&["delete", "cpl/stock-market", "--timeout=30s"])?;
    fixture.wait("its workers to be gone", LONG, || {
        let left = fixture.pods(WORKERS)?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })
}
