//! The command line on the fake AWS: setup, validate, run, the roles, their output and their exit codes.

use std::time::Duration;

use serde_json::json;
use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::sandbox::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const GENERATOR: &str =
    "  generator: {schema: {example: stock-market}, fileSize: 64Ki, filesPerMinute: 0, files: 6}";

fn sandbox(cloud: &Cloud, spec: &str) -> Sandbox {
    Sandbox::new(PROGRAM, &cloud.fake_aws.url, "cli", spec)
}

fn setup(sandbox: &Sandbox) -> String {
    sandbox.run(&["setup", "pipeline.yaml"]).success()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_twice_creates_everything_once() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let first = setup(&sandbox);
    for what in [
        "queue cli-files.fifo: created",
        "queue cli-files-dlq.fifo: created",
        "queue cli-chunks.fifo: created",
        "queue cli-chunks-dlq.fifo: created",
        "queue cli-receipts.fifo: created",
        "queue cli-receipts-dlq.fifo: created",
        "stream cli-stream: created",
    ] {
        assert!(first.contains(what), "{what}\n{first}");
    }
    let second = setup(&sandbox);
    assert_eq!(second.matches(": exists already").count(), 7, "{second}");
    assert_eq!(cloud.fake_aws.calls("CreateStream"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_delete_removes_only_what_setup_created() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    cloud.make_queue("cli-chunks", 20);
    let made = setup(&sandbox);
    assert!(
        made.contains("queue cli-chunks.fifo: does not carry our tag, left as it is"),
        "{made}"
    );
    let gone = sandbox
        .run(&["setup", "pipeline.yaml", "--delete"])
        .success();
    assert_eq!(gone.matches(": deleted").count(), 5, "{gone}");
    assert_eq!(gone.matches("left as it is").count(), 2, "{gone}");
    let there = |name: &str| {
        let request = json!({"QueueName": name});
        cloud.fake_aws.ask_sqs("GetQueueUrl", &request).is_ok()
    };
    assert!(there("cli-chunks.fifo") && there("cli-chunks-dlq.fifo"));
    assert!(!there("cli-files.fifo") && !there("cli-files-dlq.fifo"));
    let again = sandbox
        .run(&["setup", "pipeline.yaml", "--delete"])
        .success();
    assert_eq!(again.matches(": does not exist").count(), 5, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_live_names_what_to_change_and_exits_with_64() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let live = || sandbox.run(&["validate", "pipeline.yaml", "--live"]);
    let before = live();
    assert_eq!(before.code, Some(64));
    for what in [
        "queue cli-files.fifo",
        "queue cli-chunks.fifo",
        "stream cli-stream",
    ] {
        let line = format!("pipeline.yaml: {what}: does not exist; run 'streampress setup'");
        assert!(before.stderr.contains(&line), "{line}\n{}", before.stderr);
    }
    setup(&sandbox);
    assert!(live().success().contains("pipeline.yaml: good"));
    let policy = json!({"deadLetterTargetArn": streampress_tests::fake_aws::sqs::arn("cli-files-dlq.fifo"), "maxReceiveCount": 1});
    let request =
        json!({"QueueUrl": "cli-files.fifo", "Attributes": {"RedrivePolicy": policy.to_string()}});
    cloud
        .fake_aws
        .ask_sqs("SetQueueAttributes", &request)
        .expect("changed");
    let after = live();
    assert_eq!(after.code, Some(64));
    assert!(
        after
            .stderr
            .contains("queue cli-files.fifo: maxReceiveCount is 1")
            && after.stderr.contains("set at least 2"),
        "{}",
        after.stderr
    );
    setup(&sandbox);
    live().success();
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_live_names_the_field_of_a_bucket_that_cannot_be_listed() {
    let cloud = Cloud::start().await;
    cloud.fake_aws.s3().missing_bucket = Some("no-such-bucket".to_owned());
    let destination = "  destination: {location: \"s3://no-such-bucket/out\"}";
    let sandbox = sandbox(&cloud, destination);
    setup(&sandbox);
    let said = sandbox.run(&["validate", "pipeline.yaml", "--live"]);
    assert_eq!(said.code, Some(64), "{}", said.stderr);
    let line = "pipeline.yaml: spec.destination.location: ";
    assert!(said.stderr.contains(line), "{}", said.stderr);
    let remedy = "NoSuchBucket: fake; make the bucket, or correct the location";
    assert!(said.stderr.contains(remedy), "{}", said.stderr);
    assert!(!said.stdout.contains("good"), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_were_set_up_for_another_pipeline_are_refused() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    setup(&sandbox);
    let yaml = std::fs::read_to_string(sandbox.path("pipeline.yaml")).expect("readable");
    let other = yaml.replace("metadata: {name: cli}", "metadata: {name: other}");
    sandbox.write(&sandbox.path("other.yaml"), other);
    let problem = "belongs to the pipeline cli, and two would take each other's messages";
    for command in [
        &["setup", "other.yaml"][..],
        &["validate", "other.yaml", "--live"],
    ] {
        let said = sandbox.run(command);
        assert_ne!(said.code, Some(0), "{command:?}");
        assert!(said.stderr.contains(problem), "{}", said.stderr);
    }
    setup(&sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_newline_is_named_and_not_shown() {
    for (name, key) in [
        ("AWS_ACCESS_KEY_ID", "test\n"),
        ("AWS_SECRET_ACCESS_KEY", "se\rcret"),
        ("AWS_SESSION_TOKEN", "\ttoken"),
    ] {
        let variables: Vec<_> = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]
        .into_iter()
        .filter(|(other, _)| *other != name)
        .chain([(name, key)])
        .collect();
        let sandbox =
            Sandbox::new(PROGRAM, "http://127.0.0.1:1", "cli", "").with_variables(&variables);
        for command in [
            &["setup", "pipeline.yaml"][..],
            &["validate", "pipeline.yaml", "--live"],
            &["compress", "pipeline.yaml", "--aws"],
        ] {
            let said = sandbox.run(command);
            assert_eq!(said.code, Some(64), "{command:?}: {}", said.stderr);
            assert!(said.stderr.contains(name), "{}", said.stderr);
            assert!(!said.stderr.contains(key.trim()), "{}", said.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environments_endpoint_is_named_where_it_replaces_the_pipelines() {
    let cloud = Cloud::start().await;
    let sandbox = Sandbox::new(PROGRAM, "http://127.0.0.1:1", "cli", "").with_variables(&[
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", &cloud.fake_aws.url),
    ]);
    let said = sandbox.run(&["setup", "pipeline.yaml"]);
    let notice = "is used in place of spec.aws.endpointURL http://127.0.0.1:1";
    assert!(said.stderr.contains(notice), "{}", said.stderr);
    said.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn run_on_aws_warns_once_packed_files_have_waited_for_half_of_the_retention() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, GENERATOR);
    setup(&sandbox);
    // Nothing is restored.
    cloud.fake_aws.deny("ReceiveMessage", "cli-chunks.fifo");
    let run = ["run", "pipeline.yaml", "--aws"];
    let running = sandbox.start("first", &run);
    eventually_blocking("all files are packed", || {
        running.log().contains("compressed 6")
    });
    assert!(!running.log().contains("have waited"), "{}", running.log());
    assert_eq!(running.stop(), Some(1));
    let database = rusqlite::Connection::open(sandbox.data("streampress.db")).expect("opens");
    let aged = database.execute(
        "UPDATE files SET compressed_at = compressed_at - 13 * 3600 * 1000",
        [],
    );
    assert_eq!(aged.expect("changed"), 6);
    drop(database);
    let mut running = sandbox.start("second", &run);
    eventually_blocking("the run warns", || {
        running.log().contains(
            "packed files have waited for 13 hours, and the stream cli-stream keeps records for 24",
        )
    });
    cloud.fake_aws.allow_all();
    assert_eq!(running.wait(), Some(0), "{}", running.log());
    assert_eq!(running.log().matches("have waited").count(), 1);
    assert_eq!(sandbox.files("in"), sandbox.files("out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn run_on_aws_restores_every_file_and_exits_with_0() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, GENERATOR);
    setup(&sandbox);
    let output = sandbox
        .run(&["run", "pipeline.yaml", "--aws", "--json"])
        .success();
    let summary: serde_json::Value = serde_json::from_str(&output).expect("a summary as JSON");
    assert_eq!(summary["filesRestored"], 6, "{summary}");
    assert_eq!(sandbox.files("in").len(), 6);
    assert_eq!(sandbox.files("in"), sandbox.files("out"));
    assert!(cloud.fake_aws.calls("PutRecords") > 0, "AWS was not used");
    assert!(sandbox.data("reports/results.html").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_setup_a_role_exits_with_1_and_names_the_command_that_creates_the_queue() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, GENERATOR);
    for role in ["run", "generate", "compress", "decompress"] {
        let output = sandbox.run(&[role, "pipeline.yaml", "--aws"]);
        assert_eq!(output.code, Some(1), "{role}: {}", output.stderr);
        assert!(
            output
                .stderr
                .contains("it does not exist; create it with 'streampress setup'"),
            "{role}: {}",
            output.stderr
        );
    }
    let both = sandbox.run(&["compress", "pipeline.yaml", "--aws", "--data", "x"]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_restore_generated_and_submitted_files_and_exit_with_0() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, GENERATOR);
    setup(&sandbox);
    let compress = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let decompress = sandbox.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    sandbox
        .run(&["generate", "pipeline.yaml", "--aws", "--files", "6"])
        .success();
    sandbox.write(&sandbox.path("mine/note.txt"), "a note\n");
    let submit = ["submit", "mine/note.txt", "-p", "pipeline.yaml", "--aws"];
    for _ in 0..2 {
        let output = sandbox.run(&submit).success();
        assert!(
            output.contains("copied to the source and announced as note.txt")
                || output.contains("announced as note.txt"),
            "{output}"
        );
    }
    eventually_blocking("all files are restored", || sandbox.files("out").len() == 7);
    assert_eq!(sandbox.files("in"), sandbox.files("out"));
    // The second submission is an announcement of its own: the file is packed again.
    eventually_blocking("each announcement is packed", || {
        compress.log().matches("File compressed.").count() == 8
    });
    let log = compress.log();
    assert!(
        log.contains("file_id=") && log.contains("attempt=1"),
        "{log}"
    );
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_queues_and_stream_were_made_anew_are_announced_again_and_restored() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, GENERATOR);
    setup(&sandbox);
    let generate = sandbox.start("generate.log", &["generate", "pipeline.yaml", "--aws"]);
    let waiting = || cloud.fake_aws.sqs().len("cli-files.fifo");
    // It knows the queues and the stream of now.
    let asks = || cloud.fake_aws.calls("DescribeStreamSummary");
    let before = asks();
    eventually_blocking("all files wait, and a check was made", || {
        waiting() == 6 && asks() > before + 1
    });
    let refused = sandbox.run(&["setup", "pipeline.yaml", "--delete"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("nothing was deleted: queue cli-files.fifo has 6 message(s)"),
        "{}",
        refused.stderr
    );
    assert_eq!(waiting(), 6);
    sandbox
        .run(&["setup", "pipeline.yaml", "--delete", "--force"])
        .success();
    // SQS makes no queue of the same name within a minute.
    cloud.fake_aws.advance(Duration::from_secs(65));
    setup(&sandbox);
    assert_eq!(waiting(), 0);
    eventually_blocking("all files wait again", || waiting() == 6);
    let compress = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let decompress = sandbox.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    eventually_blocking("all files are restored", || sandbox.files("out").len() == 6);
    assert_eq!(sandbox.files("in"), sandbox.files("out"));
    eventually_blocking("the receipts are taken", || {
        cloud.fake_aws.sqs().len("cli-receipts.fifo") == 0
    });
    let stopped = [generate.stop(), compress.stop(), decompress.stop()];
    assert_eq!(stopped, [Some(0); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_redriven_and_then_restored() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    setup(&sandbox);
    let late = sandbox.data("in/late.csv");
    sandbox.write(&late, "a,b\n1,2\n");
    let late_path = late.to_str().expect("UTF-8");
    sandbox
        .run(&["submit", late_path, "-p", "pipeline.yaml", "--aws"])
        .success();
    std::fs::rename(&late, sandbox.path("aside")).expect("moved away");
    let compress = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    eventually_blocking("it is a dead letter", || {
        compress.log().contains("SourceMissing")
    });
    let list = ["redrive", "pipeline.yaml", "--aws", "--list"];
    for _ in 0..2 {
        let output = sandbox.run(&list).success();
        assert!(
            output.contains("late.csv: dead (SourceMissing: late.csv is not in"),
            "{output}"
        );
    }
    std::fs::rename(sandbox.path("aside"), &late).expect("moved back");
    let output = sandbox
        .run(&["redrive", "pipeline.yaml", "--aws"])
        .success();
    assert!(output.contains("late.csv: sent again"), "{output}");
    let decompress = sandbox.start("decompress.log", &["decompress", "pipeline.yaml", "--aws"]);
    eventually_blocking("it is restored", || {
        sandbox.files("out").contains_key("late.csv")
    });
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
    assert_eq!(cloud.fake_aws.sqs().len("cli-files-dlq.fifo"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_redrive_policy_causes_one_warning_that_names_setup() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    setup(&sandbox);
    let request = json!({"QueueUrl": "cli-files.fifo", "Attributes": {"RedrivePolicy": ""}});
    cloud
        .fake_aws
        .ask_sqs("SetQueueAttributes", &request)
        .expect("changed");
    let compress = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    eventually_blocking("it waits for messages", || {
        cloud.fake_aws.calls("ReceiveMessage") > 0
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
async fn an_event_rule_given_to_setup_may_send_and_keeps_its_permission() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let rule = "arn:aws:events:us-east-1:111122223333:rule/bucket";
    sandbox
        .run(&["setup", "pipeline.yaml", "--event-rule", rule])
        .success();
    setup(&sandbox);
    let request = json!({"QueueUrl": "cli-files.fifo"});
    let there = cloud.fake_aws.ask_sqs("GetQueueAttributes", &request);
    let there = &there.expect("there")["Attributes"];
    assert_eq!(there["ContentBasedDeduplication"], "true");
    assert!(
        there["Policy"]
            .as_str()
            .is_some_and(|policy| policy.contains(rule)),
        "{there}"
    );
    let bad = sandbox.run(&["setup", "pipeline.yaml", "--event-rule", "bucket"]);
    assert_eq!(bad.code, Some(2), "{}", bad.stderr);
}
