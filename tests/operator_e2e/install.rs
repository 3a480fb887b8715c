//! The chart as it comes: with the CRD, for every namespace; upgraded, rolled back, uninstalled and installed again while
//! a pipeline runs.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::life::{restored, role, uids};
use crate::{CRD_NAME, SOON, Site, WORKERS, status};

/// All workers that were there still run.
fn same_workers(site: &Site, before: &BTreeSet<String>, after_what: &str) -> Result<()> {
    let now = uids(&site.pods(WORKERS)?);
    ensure!(
        now.is_superset(before),
        "after {after_what} there are {now:?}; before there were {before:?}"
    );
    Ok(())
}

/// Which shows that an operator is at work.
fn scaled(site: &Site, which: &str, replicas: usize) -> Result<()> {
    site.patch("stock-market", &json!({which: {"replicas": replicas}}))?;
    site.wait(&format!("{replicas} {which}s"), SOON, || {
        let pods = site.pods(&role(which))?;
        ensure!(pods.len() == replicas, "there are {}", pods.len());
        Ok(())
    })
}

fn restored_so_far(site: &Site) -> Result<u64> {
    let found = site.pipeline("stock-market")?;
    Ok(status(&found, "/progress/filesRestored")
        .as_u64()
        .unwrap_or(0))
}

#[test]
fn the_chart_as_it_comes_serves_every_namespace_and_its_upgrades_roll_no_worker() -> Result<()> {
    let site = Site::alone("op-install")?;
    site.helm_install(&[])?;
    let generator =
        json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 60});
    site.apply_example("stock-market", json!({"generator": generator}))?;
    site.wait_ready("stock-market")?;
    restored(&site, 2)?;

    let chart = crate::chart()?;
    let before = uids(&site.pods(WORKERS)?);
    ensure!(before.len() == 3, "{before:?}");
    site.helm(&[
        "upgrade",
        "streampress",
        &chart,
        "--reuse-values",
        "--set",
        "log=debug,replicas=2",
        "--wait",
        "--timeout=120s",
    ])?;
    scaled(&site, "compressor", 2)?;
    same_workers(&site, &before, "the upgrade")?;
    site.helm(&["rollback", "streampress", "1", "--wait", "--timeout=120s"])?;
    scaled(&site, "decompressor", 2)?;
    same_workers(&site, &before, "the way back")?;
    let so_far = restored_so_far(&site)?;
    restored(&site, so_far + 2)?;

    // Without an operator the workers go on, and with the next one too.
    let workers = uids(&site.pods(WORKERS)?);
    site.helm(&["uninstall", "streampress", "--wait", "--timeout=120s"])?;
    site.cluster.kubectl(&["get", "crd", CRD_NAME])?;
    same_workers(&site, &workers, "the operator has gone")?;
    site.helm_install(&[])?;
    scaled(&site, "decompressor", 3)?;
    same_workers(&site, &workers, "the next operator has come")?;
    let so_far = restored_so_far(&site)?;
    restored(&site, so_far + 2)?;

    site.kubectl(&["delete", "cpl/stock-market", "--timeout=50s"])?;
    site.wait("its workers to be gone", SOON, || {
        let left = site.pods(WORKERS)?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })?;
    site.helm(&["uninstall", "streampress", "--wait", "--timeout=120s"])?;
    site.cluster
        .kubectl(&["delete", "crd", CRD_NAME, "--timeout=50s"])
        .map(drop)
}
