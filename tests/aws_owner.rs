//! Buckets on the fake AWS: the contract of files, whose a destination is, and changes that come at a bad moment.

use std::io;
use std::sync::Arc;

use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::sandbox::Sandbox;
use streampress_transport::contract_tests::files as contract;
use streampress_transport::{ExactFile, ExactOutcome, FileEntry, Files, ReservedEntry};

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

fn open(cloud: &Cloud) -> Arc<dyn Files> {
    let files = cloud.aws.files("s3://shared/in", "shared", "in");
    Arc::new(files.expect("opens"))
}

/// Runs blocking calls.
async fn on<T: Send + 'static>(
    files: &Arc<dyn Files>,
    calls: impl FnOnce(&dyn Files) -> T + Send + 'static,
) -> T {
    let files = files.clone();
    let called = tokio::task::spawn_blocking(move || calls(&*files));
    called.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract_of_files() {
    let cloud = Cloud::start().await;
    let files = open(&cloud);
    on(&files, contract::all).await;
    on(&files, |files| {
        contract::a_large_file_is_visible_only_as_a_whole_and_carries_its_version(files);
        contract::a_large_file_is_replaced_only_if_it_is_the_one_that_was_seen(files);
    })
    .await;
    // Uploads are given up beside the work.
    eventually_blocking("nothing is left, no unfinished upload either", || {
        cloud.fake_aws.s3().kept("shared/") == (Vec::new(), 0)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_file_can_have_hides_nothing() {
    let cloud = Cloud::start().await;
    for odd in ["a//b.csv", "../c.csv", "d/./e.csv"] {
        for folder in ["", ".streampress/replies/"] {
            let object = format!("shared/in/{folder}{odd}");
            cloud.fake_aws.s3().write(&object, b"odd");
        }
    }
    on(&open(&cloud), |files| {
        contract::what_has_no_name_hides_no_file(files, &[ReservedEntry::Replies]);
        let left_out = files.list().expect("listed").left_out;
        let dots = "has a '.' or '..' part";
        let expected = [
            ("../c.csv", dots),
            (".streampress/replies/../c.csv", dots),
            (".streampress/replies/a//b.csv", "has an empty part"),
            (".streampress/replies/d/./e.csv", dots),
            ("a//b.csv", "has an empty part"),
            ("d/./e.csv", dots),
        ];
        assert_eq!(left_out.len(), expected.len(), "{left_out:?}");
        for (left, (name, why)) in left_out.iter().zip(expected) {
            assert_eq!(left.name, name);
            assert!(left.reason.contains(why), "{left:?}");
            let remedy = "copy the object to another key";
            assert!(left.reason.contains(remedy), "{left:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_begins_with_a_slash_is_named_with_the_reason_and_hides_nothing() {
    let cloud = Cloud::start().await;
    for key in ["/leading.csv", "good.csv", "in//leading.csv"] {
        let object = format!("shared/{key}");
        cloud.fake_aws.s3().write(&object, b"words");
    }
    for (prefix, leading, good) in [
        (
            "",
            vec!["/leading.csv", "in//leading.csv"],
            vec!["good.csv"],
        ),
        ("in", vec!["/leading.csv"], vec![]),
    ] {
        let location = format!("s3://shared/{prefix}");
        let files = cloud.aws.files(&location, "shared", prefix);
        let files: Arc<dyn Files> = Arc::new(files.expect("opens"));
        let listing = on(&files, |files| files.list().expect("listed")).await;
        let listed: Vec<&str> = listing
            .files
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        assert_eq!(listed, good, "{location}");
        let left_out: Vec<&str> = listing.left_out.iter().map(|left| &*left.name).collect();
        assert_eq!(left_out, leading, "{location}");
        for left in &listing.left_out {
            let expected = format!(
                "has a key that cannot be a file's name (file name {:?} is absolute or has an empty part; give a name inside the location): copy the object to another key",
                left.name
            );
            assert_eq!(left.reason, expected);
        }
    }
}

/// Begins a large object over the one that is there; another program replaces that at the moment of the commit.
async fn commit_raced(cloud: &Cloud, over_one: bool) -> io::Result<FileEntry> {
    const OBJECT: &str = "shared/in/large.bin";
    let files = open(cloud);
    match over_one {
        true => cloud.fake_aws.s3().write(OBJECT, b"seen"),
        false => cloud.fake_aws.s3().remove(OBJECT),
    }
    let begin = |files: &dyn Files| {
        let name = contract::name("large.bin");
        let seen = files.stat(&name).expect("read");
        let version = contract::version(1);
        let mut pending = files.create_version(&name, version).expect("begun");
        pending.write_all(&vec![7; 9 << 20]).expect("written");
        pending.prepare().expect("uploaded");
        (pending, seen)
    };
    let (pending, seen) = on(&files, begin).await;
    cloud.fake_aws.s3().write_before_change(OBJECT, b"newer");
    on(&files, move |_| {
        pending.commit_over(contract::version(1), seen.as_ref())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_never_replaces_one_that_came_at_the_moment_of_its_commit() {
    let cloud = Cloud::start().await;
    let read = || cloud.fake_aws.s3().read("shared/in/large.bin");
    for over_one in [true, false] {
        let refused = commit_raced(&cloud, over_one).await.expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read().expect("it stays"), "newer");
    }
    eventually_blocking("what was uploaded is given up", || {
        cloud.fake_aws.s3().kept("shared/in/").1 == 0
    });
    // A service that knows no such condition replaces what it has; nothing there can tell.
    cloud.fake_aws.s3().without_conditional_completions = true;
    let entry = commit_raced(&cloud, true).await.expect("completed");
    assert_eq!(read().map(|bytes| bytes.len() as u64), Some(entry.size));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_object_is_what_was_copied_and_one_that_comes_meanwhile_stays() {
    let cloud = Cloud::start().await;
    let files = open(&cloud);
    let read = |object: &str| cloud.fake_aws.s3().read(&format!("shared/in/{object}"));
    cloud
        .fake_aws
        .s3()
        .write_as("shared/in/a b.csv", b"theirs", "text/csv");
    let rename = |files: &dyn Files| {
        let (from, to) = (contract::name("a b.csv"), contract::name("aside/ü.csv"));
        files.rename(&from, &to)
    };
    on(&files, rename).await.expect("renamed");
    assert_eq!(read("aside/ü.csv").expect("renamed"), "theirs");
    assert_eq!(read("a b.csv"), None);
    let content_type = cloud.fake_aws.s3().content_type("shared/in/aside/ü.csv");
    assert_eq!(content_type.as_deref(), Some("text/csv"));

    cloud.fake_aws.s3().write("shared/in/a b.csv", b"second");
    cloud
        .fake_aws
        .s3()
        .write_before_change("shared/in/a b.csv", b"third");
    let error = on(&files, rename).await.expect_err("it changed");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read("a b.csv").expect("it stays"), "third");
    assert_eq!(read("aside/ü.csv").expect("the copy stays"), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_is_read_to_learn_that_its_new_name_is_taken_and_one_keeps_its_type() {
    let cloud = Cloud::start().await;
    let files = open(&cloud);
    for object in ["a.csv", "a_delete.csv"] {
        let object = format!("shared/in/{object}");
        cloud.fake_aws.s3().write_as(&object, b"words", "text/csv");
    }
    let rename = |to: &'static str| {
        move |files: &dyn Files| {
            let entry = files.stat(&contract::name("a.csv")).expect("read");
            let hash = blake3::hash(b"words").to_hex();
            let exact = ExactFile {
                entry: &entry.expect("there"),
                hash: Some(hash.as_str()),
                on_read: &|| {},
            };
            files.rename_exact(&exact, &contract::name(to))
        }
    };
    let taken = on(&files, rename("a_delete.csv")).await.expect("answered");
    assert_eq!(taken, ExactOutcome::NameTaken);
    assert_eq!(cloud.fake_aws.s3().reads("shared/in/a.csv"), 0);
    let done = on(&files, rename("a-1_delete.csv")).await.expect("renamed");
    assert_eq!(done, ExactOutcome::Done);
    let content_type = cloud.fake_aws.s3().content_type("shared/in/a-1_delete.csv");
    assert_eq!(content_type.as_deref(), Some("text/csv"));
}

/// Removes an object that was seen, while another program replaces it.
async fn remove_raced(cloud: &Cloud, object: &'static str) -> ExactOutcome {
    let files = open(cloud);
    cloud
        .fake_aws
        .s3()
        .write(&format!("shared/in/{object}"), b"seen");
    let looking = on(&files, |files| files.stat(&contract::name(object))).await;
    let entry = looking.expect("read").expect("there");
    let raced = format!("shared/in/{object}");
    cloud
        .fake_aws
        .s3()
        .write_before_change(&raced, b"came since");
    let removed = on(&files, move |files| {
        let exact = ExactFile {
            entry: &entry,
            hash: None,
            on_read: &|| {},
        };
        files.remove_exact(&exact)
    });
    removed.await.expect("answered")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_between_look_and_deletion_stays() {
    let cloud = Cloud::start().await;
    let read = |object: &str| cloud.fake_aws.s3().read(object);
    let name = "a file+1 (ü).csv";
    assert_eq!(remove_raced(&cloud, name).await, ExactOutcome::Changed);
    let left = read(&format!("shared/in/{name}"));
    assert_eq!(left.expect("it stays"), "came since");
    // A service that knows no such condition refuses it, and what came meanwhile is found by another look.
    cloud.fake_aws.s3().without_conditional_deletes = true;
    let outcome = remove_raced(&cloud, "b.csv").await;
    assert_eq!(outcome, ExactOutcome::Changed);
    let left = read("shared/in/b.csv");
    assert_eq!(left.expect("it stays"), "came since");
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
