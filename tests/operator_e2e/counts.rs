//! The status, the metrics of the pods, the list of dead letters and the report page count the same files.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Result, ensure};
use serde_json::json;
use streampress_tests::cluster::PortForward;
use streampress_tests::sandbox::metric;

use crate::life::role;
use crate::{LONG, OperatorFixture, SOON, status};

/// The port of a pod's metrics.
const METRICS: u16 = 8080;

/// The sum of a metric over the pods of a role.
fn counted(fixture: &OperatorFixture, of: &str, name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for pod in fixture.pods(&role(of))? {
        let target = format!(
            "pod/{}",
            pod["metadata"]["name"].as_str().unwrap_or_default()
        );
        let forward =
            PortForward::open(&fixture.cluster, &fixture.namespace.name, &target, METRICS)?;
        let mut connection = TcpStream::connect(("127.0.0.1", forward.port))?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        connection.read_to_string(&mut page)?;
        sum += metric(&page, name);
    }
    Ok(sum)
}

#[test]
fn status_metrics_dead_letters_and_page_have_the_same_counts() -> Result<()> {
    let fixture = OperatorFixture::install("op-counts")?;
    let generator = json!({"schema": {"example": "stock-market"}, "fileSize": "64Ki", "filesPerMinute": 300, "files": 6});
    fixture.apply_example(
        "stock-market",
        json!({"generator": generator, "source": {"scanSeconds": 1, "settleSeconds": 0}}),
    )?;
    fixture.wait_ready("stock-market")?;
    let folder = fixture.volume("stock-market")?;
    // One file cannot be written, another cannot be taken.
    std::fs::create_dir_all(folder.join("out/obstructed.csv/inside"))?;
    std::fs::create_dir_all(folder.join("in"))?;
    std::fs::write(folder.join("in/obstructed.csv"), "a,b\n1,2\n")?;
    std::os::unix::fs::symlink("nowhere", folder.join("in/broken.csv"))?;
    let settled = fixture.wait("every file to have its end", LONG, || {
        let found = fixture.pipeline("stock-market")?;
        ensure!(
            status(&found, "/progress/filesRestored") == 6
                && status(&found, "/progress/filesFailed") == 1
                && status(&found, "/backlog/dead") == 1
                && status(&found, "/backlog/chunks") == 0,
            "its status is {:#}",
            found["status"]
        );
        Ok(found)
    })?;
    let progress = |name: &str| {
        let count = status(&settled, &format!("/progress/{name}"));
        count.as_f64().unwrap_or_default()
    };

    ensure!(progress("filesCompressed") == 7.0 && progress("filesGenerated") == 6.0);
    let restored = counted(&fixture, "decompressor", "streampress_files_total")?;
    let packed = counted(&fixture, "compressor", "streampress_files_total")?;
    let dead = counted(&fixture, "decompressor", "streampress_messages_dead_total")?;
    let left_out = counted(&fixture, "generator", "streampress_files_left_out")?;
    ensure!(
        (restored, packed, dead, left_out) == (6.0, 7.0, 1.0, 1.0),
        "the pods count {restored} restored, {packed} packed, {dead} dead, {left_out} left out"
    );

    let list = fixture.list_dead_letters("stock-market")?;
    ensure!(
        list.matches("BadName").count() == 1 && list.contains("obstructed.csv"),
        "the list is {list}"
    );
    fixture.wait("the page to have all files", SOON, || {
        let page = std::fs::read_to_string(folder.join("reports/results.html"))?;
        for said in [
            "1 file failed",
            "1 file did not come back",
            "obstructed.csv",
            "BadName",
        ] {
            ensure!(page.contains(said), "the page does not say {said}");
        }
        Ok(())
    })?;
    fixture.wait("the status to count what is left out", SOON, || {
        let found = fixture.pipeline("stock-market")?;
        let message = status(&found, "/message").as_str().unwrap_or_default();
        ensure!(
            message.contains("1 left out of the source") && message.contains("1 dead letters"),
            "its message is {message}"
        );
        Ok(())
    })
}
