//! The other examples for kind: the original's format, and workers that come and go with the work.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{LONG, SOON, Site, files, status};

#[test]
fn the_originals_format_restores_the_normalised_form() -> Result<()> {
    let site = Site::install("op-seed")?;
    let generator = json!({"schema": {"example": "iot-sensors"}, "fileSize": "64Ki", "filesPerMinute": 120, "files": 10});
    site.apply_example("seed-format", json!({"generator": generator}))?;
    let done = site.wait_phase("seed-format", "Completed", LONG)?;
    ensure!(
        status(&done, "/progress/filesRestored") == 10,
        "{:#}",
        done["status"]
    );
    let folder = site.volume("seed-format")?;
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
fn workers_come_with_the_work_and_go_with_it() -> Result<()> {
    let site = Site::install("op-scale")?;
    let worker = json!({"autoscaling": {"mode": "Internal", "min": 0, "max": 2, "targetBacklogPerReplica": 5, "scaleDownSeconds": 10}});
    let generator = json!({"schema": {"example": "access-log"}, "fileSize": "64Ki", "format": "txt", "filesPerMinute": 600, "files": 15});
    site.apply_example(
        "autoscaled",
        json!({"generator": generator, "compressor": worker, "decompressor": worker}),
    )?;
    let done = site.wait_phase("autoscaled", "Completed", LONG)?;
    ensure!(
        status(&done, "/progress/filesRestored") == 15,
        "{:#}",
        done["status"]
    );
    site.wait("the workers to go", SOON, || {
        for role in ["compressor", "decompressor"] {
            let left = site.pods(&format!("app.kubernetes.io/component={role}"))?;
            ensure!(left.is_empty(), "{} {role} pods are left", left.len());
        }
        Ok(())
    })?;
    crate::check_restored(&site.volume("autoscaled")?, 15)
}
