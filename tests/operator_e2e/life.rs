//! A pipeline's life: edited, scaled, suspended, resumed, deleted; and the operator uninstalled before its pipelines.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streampress_tests::cluster::condition_is_true;

use crate::{LONG, SOON, Site, WORKERS, files, status};

pub(crate) fn uids(pods: &[Value]) -> BTreeSet<String> {
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
    pods.iter().filter_map(uid).collect()
}

pub(crate) fn role(role: &str) -> String {
    format!("app.kubernetes.io/component={role}")
}

pub(crate) fn restored(site: &Site, at_least: u64) -> Result<()> {
    site.wait(&format!("{at_least} files to be restored"), SOON, || {
        let found = site.pipeline("stock-market")?;
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
    let site = Site::install("op-life")?;
    // Endless: what is on its way at each step must come through it.
    let generator =
        json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 60});
    site.apply_example("stock-market", json!({"generator": generator}))?;
    site.wait_ready("stock-market")?;
    restored(&site, 3)?;

    let others = [
        site.pods(&role("generator"))?,
        site.pods(&role("decompressor"))?,
    ]
    .concat();
    let compressor = uids(&site.pods(&role("compressor"))?);
    site.patch("stock-market", &json!({"codec": {"effort": "Fast"}}))?;
    site.wait("the compressor to be replaced", SOON, || {
        let now = uids(&site.pods(&role("compressor"))?);
        ensure!(
            now.len() == 1 && now.is_disjoint(&compressor),
            "its pods are {now:?}"
        );
        Ok(())
    })?;
    let now = [
        site.pods(&role("generator"))?,
        site.pods(&role("decompressor"))?,
    ]
    .concat();
    ensure!(
        uids(&now) == uids(&others),
        "an edit of the codec rolled generator or decompressor"
    );

    site.kubectl(&["scale", "cpl/stock-market", "--replicas=2"])?;
    site.wait("two compressors", SOON, || {
        let deployment = site
            .cluster
            .get(&site.namespace.name, "deployment/stock-market-compressor")?;
        ensure!(
            deployment["status"]["readyReplicas"] == 2,
            "{:#}",
            deployment["status"]
        );
        Ok(())
    })?;

    site.patch("stock-market", &json!({"suspend": true}))?;
    let suspended = site.wait_phase("stock-market", "Suspended", SOON * 2)?;
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
    site.wait("all workers to be gone", SOON, || {
        let left = site.pods(WORKERS)?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })?;
    let folder = site.volume("stock-market")?;
    let (sources, out) = (files(&folder.join("in"))?, files(&folder.join("out"))?);
    for (name, bytes) in &out {
        ensure!(sources.get(name) == Some(bytes), "{name} was altered");
    }
    let waiting = status(&suspended, "/backlog/files")
        .as_u64()
        .context("files that wait are counted")?;
    ensure!(
        sources.len() as u64 <= out.len() as u64 + waiting,
        "{} files were made, {} restored, {waiting} wait",
        sources.len(),
        out.len()
    );

    site.patch("stock-market", &json!({"suspend": false}))?;
    restored(&site, out.len() as u64 + 3)?;
    site.kubectl(&["delete", "cpl/stock-market", "--timeout=50s"])?;
    site.wait(
        "everything of the pipeline to be gone",
        Duration::from_secs(60),
        || {
            let left = site.kubectl(&[
                "get",
                "deployments,leases,configmaps,services,pods,roles",
                "-l",
                "app.kubernetes.io/instance=stock-market",
                "-o",
                "name",
            ])?;
            ensure!(left.trim().is_empty(), "there is still {left}");
            Ok(())
        },
    )
}

#[test]
fn an_operator_that_goes_first_leaves_nothing_hanging_and_the_next_one_goes_on() -> Result<()> {
    let site = Site::install("op-first")?;
    let generator =
        json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 60});
    site.apply_example(
        "stock-market",
        json!({"generator": generator, "transport": {"deletionPolicy": "Retain"}}),
    )?;
    site.wait_ready("stock-market")?;
    restored(&site, 1)?;
    site.helm(&["uninstall", "streampress", "--wait", "--timeout=120s"])?;
    let found = site.pipeline("stock-market")?;
    ensure!(
        found["metadata"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "{:#}",
        found["metadata"]
    );
    // Nobody is there to ask: it goes by itself.
    site.kubectl(&["delete", "cpl/stock-market", "--timeout=30s"])?;
    site.wait("its workers to be gone", LONG, || {
        let left = site.pods(WORKERS)?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })
}
