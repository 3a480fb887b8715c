//! What somebody types who works on AWS, from the program itself against the stand-in: setup, validate, run, the roles,
//! and what each of them says and ends with.

use serde_json::json;
use streampress_tests::aws::Cloud;
use streampress_tests::desk::{Desk, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const GENERATOR: &str =
    "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 0, files: 6}";

fn desk(cloud: &Cloud, spec: &str) -> Desk {
    Desk::new(PROGRAM, &cloud.fake_aws.url, "cli", spec)
}

fn setup(desk: &Desk) -> String {
    desk.run(&["setup", "pipeline.yaml"]).well()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_twice_makes_everything_once() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    let first = setup(&desk);
    for what in [
        "queue cli-files.fifo: created",
        "queue cli-files-dlq.fifo: created",
        "queue cli-chunks.fifo: created",
        "queue cli-chunks-dlq.fifo: created",
        "stream cli-stream: created",
    ] {
        assert!(first.contains(what), "{what}\n{first}");
    }
    let second = setup(&desk);
    assert_eq!(second.matches(": exists already").count(), 5, "{second}");
    assert_eq!(cloud.fake_aws.calls("CreateStream"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_takes_only_what_setup_made() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    cloud.make_queue("cli-chunks", 20);
    let made = setup(&desk);
    assert!(
        made.contains("queue cli-chunks.fifo: does not carry our tag, left as it is"),
        "{made}"
    );
    let gone = desk.run(&["setup", "pipeline.yaml", "--delete"]).well();
    assert_eq!(gone.matches(": deleted").count(), 3, "{gone}");
    assert_eq!(gone.matches("left as it is").count(), 2, "{gone}");
    let there = |name: &str| {
        let ask = json!({"QueueName": name});
        cloud.fake_aws.ask_sqs("GetQueueUrl", &ask).is_ok()
    };
    assert!(there("cli-chunks.fifo") && there("cli-chunks-dlq.fifo"));
    assert!(!there("cli-files.fifo") && !there("cli-files-dlq.fifo"));
    let again = desk.run(&["setup", "pipeline.yaml", "--delete"]).well();
    assert_eq!(again.matches(": does not exist").count(), 3, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_live_says_what_to_change_and_ends_with_64() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    let live = || desk.run(&["validate", "pipeline.yaml", "--live"]);
    let before = live();
    assert_eq!(before.code, Some(64));
    for what in [
        "queue cli-files.fifo",
        "queue cli-chunks.fifo",
        "stream cli-stream",
    ] {
        let line = format!("pipeline.yaml: {what}: does not exist; run 'streampress setup'");
        assert!(before.err.contains(&line), "{line}\n{}", before.err);
    }
    setup(&desk);
    assert!(live().well().contains("pipeline.yaml: good"));
    let policy = json!({"deadLetterTargetArn": streampress_tests::fake_aws::sqs::arn("cli-files-dlq.fifo"), "maxReceiveCount": 1});
    let ask =
        json!({"QueueUrl": "cli-files.fifo", "Attributes": {"RedrivePolicy": policy.to_string()}});
    cloud
        .fake_aws
        .ask_sqs("SetQueueAttributes", &ask)
        .expect("changed");
    let after = live();
    assert_eq!(after.code, Some(64));
    assert!(
        after
            .err
            .contains("queue cli-files.fifo: maxReceiveCount is 1")
            && after.err.contains("set at least 2"),
        "{}",
        after.err
    );
    setup(&desk);
    live().well();
}

#[tokio::test(flavor = "multi_thread")]
async fn run_on_aws_restores_every_file_and_ends_with_0() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, GENERATOR);
    setup(&desk);
    let said = desk
        .run(&["run", "pipeline.yaml", "--aws", "--json"])
        .well();
    let summary: serde_json::Value = serde_json::from_str(&said).expect("a summary as JSON");
    assert_eq!(summary["filesRestored"], 6, "{summary}");
    assert_eq!(desk.files("in").len(), 6);
    assert_eq!(desk.files("in"), desk.files("out"));
    assert!(cloud.fake_aws.calls("PutRecords") > 0, "AWS was not used");
    assert!(desk.data("reports/results.html").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_setup_a_role_ends_with_1_and_says_what_makes_the_queue() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, GENERATOR);
    for role in ["run", "generate", "compress", "decompress"] {
        let said = desk.run(&[role, "pipeline.yaml", "--aws"]);
        assert_eq!(said.code, Some(1), "{role}: {}", said.err);
        assert!(
            said.err
                .contains("if it is not there yet, 'streampress setup' makes it"),
            "{role}: {}",
            said.err
        );
    }
    let both = desk.run(&["compress", "pipeline.yaml", "--aws", "--data", "x"]);
    assert_eq!(both.code, Some(2), "{}", both.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_bring_generated_and_submitted_files_through_and_stop_with_0() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, GENERATOR);
    setup(&desk);
    let compress = desk.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let decompress = desk.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    desk.run(&["generate", "pipeline.yaml", "--aws", "--files", "6"])
        .well();
    desk.write(&desk.path("mine/note.txt"), "a note\n");
    let submit = ["submit", "mine/note.txt", "-p", "pipeline.yaml", "--aws"];
    for _ in 0..2 {
        let said = desk.run(&submit).well();
        assert!(
            said.contains("copied to the source and announced as note.txt")
                || said.contains("announced as note.txt"),
            "{said}"
        );
    }
    eventually("all files are restored", || {
        (desk.files("out").len() == 7).then_some(())
    });
    assert_eq!(desk.files("in"), desk.files("out"));
    let log = compress.log();
    assert_eq!(log.matches("File compressed.").count(), 7, "{log}");
    assert!(
        log.contains("file_id=") && log.contains("attempt=1"),
        "{log}"
    );
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_redriven_and_then_restored() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    setup(&desk);
    let late = desk.data("in/late.csv");
    desk.write(&late, "a,b\n1,2\n");
    let late_path = late.to_str().expect("UTF-8");
    desk.run(&["submit", late_path, "-p", "pipeline.yaml", "--aws"])
        .well();
    std::fs::rename(&late, desk.path("aside")).expect("moved away");
    let compress = desk.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    eventually("it is a dead letter", || {
        compress.log().contains("SourceMissing").then_some(())
    });
    let list = ["redrive", "pipeline.yaml", "--aws", "--list"];
    for _ in 0..2 {
        let said = desk.run(&list).well();
        assert!(
            said.contains("late.csv: dead (SourceMissing: late.csv is not in"),
            "{said}"
        );
    }
    std::fs::rename(desk.path("aside"), &late).expect("moved back");
    let said = desk.run(&["redrive", "pipeline.yaml", "--aws"]).well();
    assert!(said.contains("late.csv: sent again"), "{said}");
    let decompress = desk.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    eventually("it is restored", || {
        desk.files("out").contains_key("late.csv").then_some(())
    });
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
    assert_eq!(cloud.fake_aws.sqs().len("cli-files-dlq.fifo"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_dead_letters_is_warned_of_once_with_the_way_out() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    setup(&desk);
    let ask = json!({"QueueUrl": "cli-files.fifo", "Attributes": {"RedrivePolicy": ""}});
    cloud
        .fake_aws
        .ask_sqs("SetQueueAttributes", &ask)
        .expect("changed");
    let compress = desk.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    eventually("it waits for messages", || {
        (cloud.fake_aws.calls("ReceiveMessage") > 0).then_some(())
    });
    let log = compress.log();
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("The queue has no redrive policy"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("cli-files.fifo") && warnings[0].contains("streampress setup"),
        "{log}"
    );
    assert_eq!(compress.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_named_to_setup_may_send_and_stays_allowed() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    let rule = "arn:aws:events:us-east-1:111122223333:rule/bucket";
    desk.run(&["setup", "pipeline.yaml", "--event-rule", rule])
        .well();
    setup(&desk);
    let ask = json!({"QueueUrl": "cli-files.fifo"});
    let there = cloud.fake_aws.ask_sqs("GetQueueAttributes", &ask);
    let there = &there.expect("there")["Attributes"];
    assert_eq!(there["ContentBasedDeduplication"], "true");
    assert!(
        there["Policy"]
            .as_str()
            .is_some_and(|policy| policy.contains(rule)),
        "{there}"
    );
    let bad = desk.run(&["setup", "pipeline.yaml", "--event-rule", "bucket"]);
    assert_eq!(bad.code, Some(2), "{}", bad.err);
}
