//! `streampress recover` on the fake AWS: the queues are deleted and made again, and the stream has all there is.

#[path = "../worker/tests/support/recovered.rs"]
mod recovered;

use std::collections::BTreeMap;

use recovered::line_of;
use serde_json::{Value, json};
use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::sandbox::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const FILES: usize = 40;

fn content(number: usize) -> String {
    // Some share a block, some are packed alone, and one has several records.
    let rows = match number {
        0 => 60_000,
        1..10 => 4_000,
        _ => 50 + number,
    };
    let row = |row: usize| format!("{},north,{}\n", number * 100_000 + row, row * row % 9973);
    (0..rows).map(row).collect()
}

/// The manifests in the queue, by the names of their files.
fn manifests(cloud: &Cloud) -> BTreeMap<String, Value> {
    let messages = cloud.fake_aws.sqs().peek("lost-chunks.fifo");
    let named = |(body, _): (String, Value)| {
        let manifest: Value = serde_json::from_str(&body).expect("JSON");
        let name = manifest["file"]["name"].as_str().expect("a name");
        (name.to_owned(), manifest)
    };
    messages.into_iter().map(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packed_file_is_restored_after_the_queues_are_deleted() {
    let cloud = Cloud::start().await;
    let spec = "  codec: {effort: Fast, blockSize: 256Ki, recordSize: 64Ki}";
    let sandbox = Sandbox::new(PROGRAM, &cloud.fake_aws.url, "lost", spec);
    sandbox.run(&["setup", "pipeline.yaml"]).success();
    let names: Vec<_> = (0..FILES).map(|number| format!("{number}.csv")).collect();
    for (number, name) in names.iter().enumerate() {
        sandbox.write(&sandbox.path(name), content(number));
    }
    let submit = |names: &[String]| {
        let mut args = vec!["submit", "-p", "pipeline.yaml", "--aws"];
        args.extend(names.iter().map(String::as_str));
        sandbox.run(&args).success();
    };
    let compress = |log: &str, files: usize| {
        let compressor = sandbox.start(log, &["compress", "pipeline.yaml", "--aws"]);
        eventually_blocking("all files are packed", || {
            compressor.log().matches("File compressed.").count() == files
        });
        assert_eq!(compressor.stop(), Some(0));
    };
    submit(&names[..FILES / 2]);
    compress("first.log", FILES / 2);
    cloud.fake_aws.reshard("lost-stream", 3).expect("resharded");
    submit(&names[FILES / 2..]);
    compress("second.log", FILES / 2);
    let packed = manifests(&cloud);
    assert_eq!(packed.len(), FILES);
    for name in ["lost-files.fifo", "lost-chunks.fifo", "lost-receipts.fifo"] {
        let request = json!({"QueueUrl": name});
        let deleted = cloud.fake_aws.ask_sqs("DeleteQueue", &request);
        deleted.expect("deleted");
    }
    sandbox.run(&["setup", "pipeline.yaml"]).success();
    assert_eq!(cloud.fake_aws.sqs().len("lost-chunks.fifo"), 0);

    let recovered = sandbox.run(&["recover", "pipeline.yaml", "--aws"]);
    let expected = format!("{FILES} file(s) in the stream: {FILES} sent to the chunks queue");
    assert!(recovered.stderr.contains(&expected), "{}", recovered.stderr);
    let said = recovered.success();
    for manifest in packed.values() {
        let line = line_of(manifest);
        assert!(said.contains(&line), "{line}{said}");
    }
    let alone = ["0.csv", "1.csv"];
    assert!(alone.iter().all(|name| packed[*name]["bundle"].is_null()));
    let bundled = packed.values().filter(|it| it["bundle"].is_object());
    assert!(bundled.count() > 2, "no files were packed together: {said}");
    // The manifests of now are those of before, each with its version and its place in the bundle.
    let recovered = manifests(&cloud);
    assert_eq!(recovered.len(), FILES);
    for (name, before) in &packed {
        for field in ["file", "fileVersion", "records", "bundle"] {
            assert_eq!(recovered[name][field], before[field], "{name}: {field}");
        }
    }
    let decompressor = sandbox.start("restores.log", &["decompress", "pipeline.yaml", "--aws"]);
    eventually_blocking("all files are restored", || {
        sandbox.files("out").len() == FILES
    });
    assert_eq!(decompressor.stop(), Some(0));
    assert_eq!(sandbox.files("in"), sandbox.files("out"));
}
