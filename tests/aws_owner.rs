//! Buckets on the fake AWS: whose a destination is, and deletions that come at a bad moment.

use std::sync::Arc;

use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::sandbox::Sandbox;
use streampress_transport::{ExactFile, ExactOutcome, FileName, Files};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const SPEC: &str = "  destination: {location: \"s3://shared/out\"}\n  report: {location: \"file:///data/reports/page.html\"}\n  source: {location: \"file:///data/in\"}";
const OWNER: &str = "shared/out/.streampress/owner.json";

fn pipeline(cloud: &Cloud, name: &str) -> Sandbox {
    let sandbox = Sandbox::new(PROGRAM, &cloud.fake_aws.url, name, SPEC);
    sandbox.run(&["setup", "pipeline.yaml"]).success();
    sandbox.write(&sandbox.data("in/a.json"), format!("[\"{name}\"]\n"));
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_pipeline_is_refused_and_what_waits_is_restored_once_it_is_free() {
    let cloud = Cloud::start().await;
    let read = |object: &str| cloud.fake_aws.s3().read(object);
    let run = ["run", "pipeline.yaml", "--aws"];
    let one = pipeline(&cloud, "one");
    one.run(&run).success();
    let first = read("shared/out/a.json").expect("restored");
    assert_eq!(first, "[\"one\"]\n");
    assert_eq!(
        read(OWNER).expect("written"),
        "{\"pipeline\":\"default/one\"}\n"
    );

    let two = pipeline(&cloud, "two");
    let refused = two.run(&[&run[..], &["--json"]].concat());
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    for said in [
        "s3://shared/out belongs to the pipeline default/one",
        "aws s3 rm 's3://shared/out/.streampress/owner.json'",
    ] {
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        assert!(refused.stdout.contains(said), "{}", refused.stdout);
    }
    assert_eq!(read("shared/out/a.json").expect("still there"), first);

    // The roles keep what waits, and continue by themselves.
    let submit = ["submit", "-p", "pipeline.yaml", "--aws"];
    let file = two.data("in/a.json").display().to_string();
    two.run(&[&submit[..], &[&file]].concat()).success();
    let compressing = two.start("compress", &["compress", "pipeline.yaml", "--aws"]);
    let decompressing = two.start("decompress", &["decompress", "pipeline.yaml", "--aws"]);
    eventually_blocking("the decompressor says whose it is", || {
        decompressing
            .log()
            .contains("belongs to the pipeline default/one")
    });
    assert_eq!(read("shared/out/a.json").expect("still there"), first);
    cloud.fake_aws.s3().remove(OWNER);
    eventually_blocking("the second pipeline's file is restored", || {
        read("shared/out/a.json").is_some_and(|bytes| bytes == "[\"two\"]\n")
    });
    assert_eq!(compressing.stop(), Some(0));
    assert_eq!(decompressing.stop(), Some(0));
    assert_eq!(
        read(OWNER).expect("written"),
        "{\"pipeline\":\"default/two\"}\n"
    );
}

/// Removes an object that was seen, while another program replaces it.
async fn remove_raced(cloud: &Cloud, object: &'static str) -> ExactOutcome {
    let files: Arc<dyn Files> = Arc::new(
        cloud
            .aws
            .files("s3://shared/in", "shared", "in")
            .expect("opens"),
    );
    cloud
        .fake_aws
        .s3()
        .write(&format!("shared/in/{object}"), b"seen");
    let name = FileName::parse(object).expect("a valid name");
    let looking = tokio::task::spawn_blocking({
        let (files, name) = (files.clone(), name.clone());
        move || files.stat(&name)
    });
    let entry = looking.await.expect("no panic").expect("read");
    let entry = entry.expect("there");
    let raced = format!("shared/in/{object}");
    cloud
        .fake_aws
        .s3()
        .write_before_deletion(&raced, b"came since");
    let removing = tokio::task::spawn_blocking(move || {
        let exact = ExactFile {
            entry: &entry,
            hash: None,
        };
        files.remove_exact(&exact)
    });
    removing.await.expect("no panic").expect("answered")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_between_look_and_deletion_stays() {
    let cloud = Cloud::start().await;
    let read = |object: &str| cloud.fake_aws.s3().read(object);
    let name = "a file+1 (ü).csv";
    assert_eq!(remove_raced(&cloud, name).await, ExactOutcome::Changed);
    let left = read(&format!("shared/in/{name}"));
    assert_eq!(left.expect("it stays"), "came since");
    // A service that knows no such condition deletes what it has; nothing there can tell.
    cloud.fake_aws.s3().without_conditional_deletes = true;
    assert_eq!(remove_raced(&cloud, "b.csv").await, ExactOutcome::Done);
    assert_eq!(read("shared/in/b.csv"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_reads_no_restored_object_again_and_notices_one_that_others_replaced() {
    let cloud = Cloud::start().await;
    let one = pipeline(&cloud, "one");
    let run = || -> serde_json::Value {
        let output = one.run(&["run", "pipeline.yaml", "--aws", "--json"]);
        serde_json::from_str(&output.success()).expect("a summary")
    };
    assert_eq!(run()["filesRestored"], 1);
    assert_eq!(run()["filesAltered"], 0);
    let reads = cloud.fake_aws.s3().reads("shared/out/a.json");
    assert_eq!(run()["filesAltered"], 0);
    assert_eq!(cloud.fake_aws.s3().reads("shared/out/a.json"), reads);
    cloud
        .fake_aws
        .s3()
        .write("shared/out/a.json", b"[\"two\"]\n");
    assert_eq!(run()["filesAltered"], 1);
    assert_eq!(run()["filesAltered"], 1);
}
