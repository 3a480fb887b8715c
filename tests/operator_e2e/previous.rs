//! Operator and workers of this release and of the one before beside each other, and a rolling update with files under way.
//! Ignored by default: `tests/run --long` builds the programs of before (`tests/previous --all`) and gives their image to the
//! cluster. Both use the chart with its default values, of their own release, so these tests run alone.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::buckets::TestBucket;
use crate::life::{restored, role, uids};
use crate::{CRD_NAME, LONG, OperatorFixture, SOON, check_restored, status};

#[derive(Clone, Copy, Debug, PartialEq)]
enum ChartRelease {
    Before,
    This,
}

impl ChartRelease {
    fn chart(self) -> Result<String> {
        if self == ChartRelease::This {
            return crate::chart();
        }
        let kept = std::env::var("STREAMPRESS_PREVIOUS_ALL")
            .context("STREAMPRESS_PREVIOUS_ALL=$(tests/previous --all)")?;
        let chart = PathBuf::from(kept).join("charts/streampress");
        Ok(chart.to_string_lossy().into_owned())
    }

    /// `tests/cluster load-image --bin-dir "$(tests/previous --all)" --image …:previous` gave it to the cluster.
    fn image(self, fixture: &OperatorFixture) -> Result<(String, String)> {
        let image = fixture.cluster.project_image()?;
        let (repository, tag) = image.rsplit_once(':').context("the image has a tag")?;
        let tag = match self {
            ChartRelease::This => tag,
            ChartRelease::Before => "previous",
        };
        Ok((repository.to_owned(), tag.to_owned()))
    }
}

/// Installs or upgrades to an operator of one release that starts workers of another.
fn deploy(fixture: &OperatorFixture, operator: ChartRelease, workers: ChartRelease) -> Result<()> {
    let (repository, tag) = operator.image(fixture)?;
    let (workers, workers_tag) = workers.image(fixture)?;
    let images = format!(
        "image.repository={repository},image.tag={tag},image.pullPolicy=Never,worker.image={workers}:{workers_tag}"
    );
    let chart = operator.chart()?;
    let upgrade = ["upgrade", "--install", "streampress", &chart];
    let options = ["--set", &images, "--wait", "--timeout=300s"];
    fixture.helm(&[&upgrade[..], &options].concat()).map(drop)
}

/// Two workers of each kind, and so many files, two a second; `places` has where they are, where that is not the volume.
fn pipeline(fixture: &OperatorFixture, files: usize, places: Value) -> Result<()> {
    let generator = json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 120, "files": files});
    let workers = json!({"replicas": 2, "slots": 2});
    let mut spec = places;
    spec["generator"] = generator;
    spec["compressor"] = workers.clone();
    spec["decompressor"] = workers;
    fixture.apply_example("stock-market", spec)
}

/// The status says that every file was restored, and none is a dead letter.
fn all_are_restored(fixture: &OperatorFixture, files: usize) -> Result<()> {
    let done = fixture.wait_phase("stock-market", "Completed", LONG)?;
    let restored = status(&done, "/progress/filesRestored");
    ensure!(restored == files, "{:#}", done["status"]);
    ensure!(status(&done, "/backlog/dead") == 0, "{:#}", done["status"]);
    println!("{}", status(&done, "/progress"));
    Ok(())
}

/// The image that all pods of a role run, and that none of the pods of before is left.
fn runs(fixture: &OperatorFixture, which: &str, workers: ChartRelease) -> Result<()> {
    let (repository, tag) = workers.image(fixture)?;
    let image = format!("{repository}:{tag}");
    fixture.wait(&format!("each {which} to run {image}"), SOON, || {
        let pods = fixture.pods(&role(which))?;
        let of = |pod: &Value| pod["spec"]["containers"][0]["image"] == *image;
        ensure!(
            !pods.is_empty() && pods.iter().all(of),
            "pods are {:?}",
            uids(&pods)
        );
        Ok(())
    })
}

fn uninstall(fixture: &OperatorFixture) -> Result<()> {
    fixture.kubectl(&["delete", "cpl/stock-market", "--timeout=150s"])?;
    fixture.helm(&["uninstall", "streampress", "--wait", "--timeout=300s"])?;
    let delete = ["delete", "crd", CRD_NAME, "--timeout=170s"];
    fixture.cluster.kubectl(&delete).map(drop)
}

fn pipeline_of_both(operator: ChartRelease, workers: ChartRelease) -> Result<()> {
    let fixture = OperatorFixture::alone("op-both")?;
    deploy(&fixture, operator, workers)?;
    pipeline(&fixture, 60, json!({}))?;
    restored(&fixture, 5)?;
    runs(&fixture, "compressor", workers)?;
    // The settings of a role change, and its pods are renewed.
    fixture.patch("stock-market", &json!({"codec": {"effort": "Fast"}}))?;
    all_are_restored(&fixture, 60)?;
    check_restored(&fixture.volume("stock-market")?, 60)?;
    fixture.patch("stock-market", &json!({"suspend": true}))?;
    fixture.wait_phase("stock-market", "Suspended", SOON * 2)?;
    uninstall(&fixture)
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn an_operator_of_this_release_runs_workers_of_the_one_before() -> Result<()> {
    pipeline_of_both(ChartRelease::This, ChartRelease::Before)
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn an_operator_of_the_release_before_runs_workers_of_this_one() -> Result<()> {
    pipeline_of_both(ChartRelease::Before, ChartRelease::This)
}

/// From the release before to this one and back, with files under way all the time.
fn update_and_return(fixture: &OperatorFixture, files: usize, places: Value) -> Result<()> {
    deploy(fixture, ChartRelease::Before, ChartRelease::Before)?;
    pipeline(fixture, files, places)?;
    restored(fixture, 20)?;
    for (release, at_least) in [(ChartRelease::This, 120), (ChartRelease::Before, 180)] {
        deploy(fixture, release, release)?;
        for which in ["generator", "compressor", "decompressor"] {
            runs(fixture, which, release)?;
        }
        restored(fixture, at_least)?;
    }
    let so_far = fixture.pipeline("stock-market")?;
    ensure!(
        status(&so_far, "/progress/filesRestored").as_u64() < Some(files as u64),
        "no file was under way any more"
    );
    all_are_restored(fixture, files)
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn an_update_and_a_return_to_the_release_before_restore_every_file_under_way() -> Result<()> {
    let fixture = OperatorFixture::alone("op-renewal")?;
    update_and_return(&fixture, 300, json!({}))?;
    check_restored(&fixture.volume("stock-market")?, 300)?;
    uninstall(&fixture)
}

#[test]
#[ignore = "needs tests/previous --all: tests/run --long"]
fn an_update_and_a_return_restore_every_object_of_a_bucket() -> Result<()> {
    let fixture = OperatorFixture::alone("op-renewal-s3")?;
    let bucket = TestBucket::create(&fixture)?;
    update_and_return(&fixture, 300, bucket.places())?;
    bucket.check_restored(300)?;
    uninstall(&fixture)
}
