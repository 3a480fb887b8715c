//! Workers and the operator are killed at random while files are being processed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{LONG, OperatorFixture, check_restored, status};

/// For how long pods are killed; minutes with `tests/run --long`.
fn time() -> Result<Duration> {
    let seconds = std::env::var("STREAMPRESS_KILL_SECONDS").unwrap_or_else(|_| "30".into());
    let seconds = seconds
        .parse()
        .context("STREAMPRESS_KILL_SECONDS is a number of seconds")?;
    Ok(Duration::from_secs(seconds))
}

#[test]
fn files_are_restored_whichever_pods_are_killed_meanwhile() -> Result<()> {
    let fixture = OperatorFixture::install("op-kills")?;
    let time = time()?;
    // Two files a second, for as long as pods are killed.
    let count = usize::try_from(time.as_secs() * 2)?;
    let generator = json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 120, "files": count});
    fixture.apply_example("stock-market", json!({"generator": generator}))?;
    fixture.wait_ready("stock-market")?;
    let victims = [
        "app.kubernetes.io/component=generator",
        "app.kubernetes.io/component=compressor",
        "app.kubernetes.io/component=decompressor",
        "app.kubernetes.io/name=streampress-operator",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < time {
        // Lets pods restart and make progress between kills.
        std::thread::sleep(Duration::from_millis(random.u64(500..5000)));
        fixture.kill(victims[random.usize(..victims.len())])?;
        kills += 1;
    }
    let done = fixture.wait_phase("stock-market", "Completed", LONG)?;
    println!(
        "{kills} kills in {} s, all restored after {} s",
        time.as_secs(),
        began.elapsed().as_secs()
    );
    println!("{}", fixture.kubectl(&["get", "cpl", "-o", "wide"])?);
    // What a killed compressor knew of receipts is lost: such a file is announced once more, and then counted once more.
    let restored = status(&done, "/progress/filesRestored").as_u64();
    ensure!(
        restored.is_some_and(|restored| restored >= count as u64),
        "{:#}",
        done["status"]
    );
    ensure!(status(&done, "/backlog/dead") == 0, "{:#}", done["status"]);
    check_restored(&fixture.volume("stock-market")?, count)
}
