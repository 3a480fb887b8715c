//! Files in a bucket, and a file that a user submits from outside the cluster.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streampress_tests::aws;
use streampress_tests::cluster::PortForward;
use streampress_transport::aws::{Aws, S3Files};
use streampress_transport::{FileName, Files};
use tokio::runtime::Runtime;

use crate::{LONG, OperatorFixture, SOON, status};

/// The program that was built with this test.
fn streampress() -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    let program = path.join("streampress");
    ensure!(
        program.exists(),
        "{} is not built: cargo build -p streampress",
        program.display()
    );
    Ok(program)
}

fn read(files: &dyn Files, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
    files.read(&name)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A bucket on the cluster's LocalStack, and a client of it.
pub(crate) struct TestBucket {
    /// Where LocalStack answers outside the cluster's pods.
    url: String,
    name: String,
    cloud: Aws,
    runtime: Runtime,
    _forward: PortForward,
}

impl TestBucket {
    /// Creates it, named after the namespace.
    pub(crate) fn create(fixture: &OperatorFixture) -> Result<Self> {
        let forward =
            PortForward::open(&fixture.cluster, "localstack", "service/localstack", 4566)?;
        let url = format!("http://127.0.0.1:{}", forward.port);
        let name = fixture.namespace.name.clone();
        let runtime = Runtime::new()?;
        let cloud: Aws = runtime.block_on(aws::connect(&url));
        runtime.block_on(aws::make_bucket(&url, &name))?;
        Ok(Self {
            url,
            name,
            cloud,
            runtime,
            _forward: forward,
        })
    }

    /// The parts of a spec by which a pipeline's files are in the bucket.
    pub(crate) fn places(&self) -> Value {
        let at = |folder: &str| format!("s3://{}/{folder}", self.name);
        json!({
            "source": {"location": at("in"), "formats": ["json", "txt", "csv"]},
            "destination": {"location": at("out")},
            "report": {"location": at("reports/results.html")},
        })
    }

    fn files(&self, folder: &str) -> Result<S3Files> {
        let _guard = self.runtime.enter();
        let location = format!("s3://{}/{folder}", self.name);
        Ok(self.cloud.files(&location, &self.name, folder)?)
    }

    /// Every object of the source was restored unchanged.
    pub(crate) fn check_restored(&self, expected: usize) -> Result<()> {
        let _guard = self.runtime.enter();
        let (sources, restored) = (self.files("in")?, self.files("out")?);
        let names = sources.list()?.files;
        ensure!(
            names.len() == expected,
            "{} objects are at the source",
            names.len()
        );
        for entry in names {
            let name = entry.name.as_str();
            ensure!(
                read(&sources, name)? == read(&restored, name)?,
                "{name} was altered"
            );
        }
        Ok(())
    }
}

#[test]
fn objects_of_a_bucket_are_restored_and_so_is_a_file_submitted_from_outside() -> Result<()> {
    let fixture = OperatorFixture::install("op-s3")?;
    let bucket = TestBucket::create(&fixture)?;
    let mut spec = bucket.places();
    spec["generator"] = json!({"schema": {"example": "access-log"}, "format": "txt", "fileSize": "256Ki", "filesPerMinute": 300, "files": 8});
    fixture.apply_example("bucket", spec)?;
    fixture.wait_phase("bucket", "Completed", LONG)?;

    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("sales.csv"), "item,price\npen,1.20\n")?;
    let live = fixture.kubectl(&["get", "cpl/bucket", "-o", "yaml"])?;
    std::fs::write(folder.path().join("bucket.yaml"), live)?;
    let output = Command::new(streampress()?)
        .current_dir(folder.path())
        .args(["submit", "sales.csv", "-p", "bucket.yaml", "--aws"])
        .env_clear()
        .envs([
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_OVERRIDE", &bucket.url),
        ])
        .output()
        .context("starting streampress")?;
    ensure!(
        output.status.success(),
        "submit ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    fixture.wait("the submitted file to be counted", SOON, || {
        let found = fixture.pipeline("bucket")?;
        ensure!(
            status(&found, "/progress/filesRestored") == 9,
            "its status is {:#}",
            found["status"]
        );
        Ok(())
    })?;

    bucket.check_restored(9)?;
    let _guard = bucket.runtime.enter();
    let reports = bucket.files("reports")?;
    fixture.wait("the report to have the submitted file", SOON, || {
        let page = String::from_utf8(read(&reports, "results.html")?)?;
        ensure!(page.contains("sales.csv"), "it is not in the page");
        Ok(())
    })
}
