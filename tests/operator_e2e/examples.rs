//! The other examples for kind: the original's format, and autoscaled workers.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{LONG, OperatorFixture, SOON, files, status};

#[test]
fn the_originals_format_restores_the_normalised_form() -> Result<()> {
    let fixture = OperatorFixture::install("op-seed")?;
    let generator = json!({"schema": {"example": "iot-sensors"}, "fileSize": "64Ki", "filesPerMinute": 120, "files": 10});
    fixture.apply_example("seed-format", json!({"generator": generator}))?;
    let done = fixture.wait_phase("seed-format", "Completed", LONG)?;
    ensure!(
        status(&done, "/progress/filesRestored") == 10,
        "{:#}",
        done["status"]
    );
    let folder = fixture.volume("seed-format")?;
    let (sources, restored) = (files(&folder.join("in"))?, files(&folder.join("out"))?);
    ensure!(
        sources.len() == 10 && restored.len() == 10,
        "{} of {}",
        restored.len(),
        sources.len()
    );
    for (name, bytes) in sources {
        let normalised = streampress_codec::legacy::normalise(
            streampress_codec::legacy::LegacyFormat::Json,
            &bytes,
        )?;
        ensure!(
            restored.get(&name) == Some(&normalised),
            "{name} is not the normalised form"
        );
    }
    Ok(())
}

#[test]
fn workers_scale_up_with_the_backlog_and_down_to_zero() -> Result<()> {
    let fixture = OperatorFixture::install("op-scale")?;
    let worker = json!({"autoscaling": {"mode": "Internal", "min": 0, "max": 2, "targetBacklogPerReplica": 5, "scaleDownSeconds": 10}});
    let generator = json!({"schema": {"example": "access-log"}, "fileSize": "64Ki", "format": "txt", "filesPerMinute": 600, "files": 15});
    fixture.apply_example(
        "autoscaled",
        json!({"generator": generator, "compressor": worker, "decompressor": worker}),
    )?;
    let done = fixture.wait_phase("autoscaled", "Completed", LONG)?;
    ensure!(
        status(&done, "/progress/filesRestored") == 15,
        "{:#}",
        done["status"]
    );
    fixture.wait("the workers to be removed", SOON, || {
        for role in ["compressor", "decompressor"] {
            let left = fixture.pods(&format!("app.kubernetes.io/component={role}"))?;
            ensure!(left.is_empty(), "{} {role} pods are left", left.len());
        }
        Ok(())
    })?;
    crate::check_restored(&fixture.volume("autoscaled")?, 15)
}
