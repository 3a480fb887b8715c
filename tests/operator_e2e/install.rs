//! The chart with its default values, which include the CRD and all namespaces: upgraded, rolled back, uninstalled and
//! installed again while a pipeline runs.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::life::{restored, role, uids};
use crate::{CRD_NAME, OperatorFixture, SOON, WORKERS, status};

/// All workers from before still run.
fn same_workers(
    fixture: &OperatorFixture,
    before: &BTreeSet<String>,
    after_what: &str,
) -> Result<()> {
    let now = uids(&fixture.pods(WORKERS)?);
    ensure!(
        now.is_superset(before),
        "after {after_what} there are {now:?}; before there were {before:?}"
    );
    Ok(())
}

/// Scales a role and waits for its pods, which shows that an operator is running.
fn scaled(fixture: &OperatorFixture, which: &str, replicas: usize) -> Result<()> {
    fixture.patch("stock-market", &json!({which: {"replicas": replicas}}))?;
    fixture.wait(&format!("{replicas} {which}s"), SOON, || {
        let pods = fixture.pods(&role(which))?;
        ensure!(pods.len() == replicas, "there are {}", pods.len());
        Ok(())
    })
}

fn restored_so_far(fixture: &OperatorFixture) -> Result<u64> {
    let found = fixture.pipeline("stock-market")?;
    Ok(status(&found, "/progress/filesRestored")
        .as_u64()
        .unwrap_or(0))
}

#[test]
fn the_default_chart_serves_every_namespace_and_its_upgrades_roll_no_worker() -> Result<()> {
    let fixture = OperatorFixture::alone("op-install")?;
    fixture.helm_install(&[])?;
    let generator =
        json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 60});
    fixture.apply_example("stock-market", json!({"generator": generator}))?;
    fixture.wait_ready("stock-market")?;
    restored(&fixture, 2)?;

    let chart = crate::chart()?;
    let before = uids(&fixture.pods(WORKERS)?);
    ensure!(before.len() == 3, "{before:?}");
    fixture.helm(&[
        "upgrade",
        "streampress",
        &chart,
        "--reuse-values",
        "--set",
        "log=debug,replicas=2",
        "--wait",
        "--timeout=300s",
    ])?;
    scaled(&fixture, "compressor", 2)?;
    same_workers(&fixture, &before, "the upgrade")?;
    fixture.helm(&["rollback", "streampress", "1", "--wait", "--timeout=300s"])?;
    scaled(&fixture, "decompressor", 2)?;
    same_workers(&fixture, &before, "the rollback")?;
    let so_far = restored_so_far(&fixture)?;
    restored(&fixture, so_far + 2)?;

    // The workers continue without an operator, and with the next one.
    let workers = uids(&fixture.pods(WORKERS)?);
    fixture.helm(&["uninstall", "streampress", "--wait", "--timeout=300s"])?;
    fixture.cluster.kubectl(&["get", "crd", CRD_NAME])?;
    same_workers(&fixture, &workers, "uninstalling the operator")?;
    fixture.helm_install(&[])?;
    scaled(&fixture, "decompressor", 3)?;
    same_workers(&fixture, &workers, "installing it again")?;
    let so_far = restored_so_far(&fixture)?;
    restored(&fixture, so_far + 2)?;

    fixture.kubectl(&["delete", "cpl/stock-market", "--timeout=150s"])?;
    fixture.wait("its workers to be gone", SOON, || {
        let left = fixture.pods(WORKERS)?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })?;
    fixture.helm(&["uninstall", "streampress", "--wait", "--timeout=300s"])?;
    fixture
        .cluster
        .kubectl(&["delete", "crd", CRD_NAME, "--timeout=170s"])
        .map(drop)
}
