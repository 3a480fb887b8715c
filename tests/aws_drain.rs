//! SIGTERM to the program on the fake AWS: it releases the message in progress at the next block, leaves nothing in
//! flight, another worker continues, and the exit code is 0.

use std::time::Instant;

use streampress_crds::document;
use streampress_crds::settings::{Settings, VARIABLE};
use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::sandbox::{RunningProgram, Sandbox, metric};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const COMPRESS: [&str; 5] = [
    "compress",
    "pipeline.yaml",
    "--aws",
    "--listen",
    "127.0.0.1:0",
];

/// Small blocks, so that an unoptimised build reaches a block boundary as often as a release build with large blocks.
fn sandbox(cloud: &Cloud, more: &str) -> Sandbox {
    let spec = format!("  codec: {{effort: Fast, blockSize: 256Ki, recordSize: 128Ki}}\n{more}");
    let sandbox = Sandbox::new(PROGRAM, &cloud.fake_aws.url, "drain", &spec);
    sandbox.run(&["setup", "pipeline.yaml"]).success();
    sandbox
}

/// The variable of an operator's compressor while the pipeline is suspended.
fn receipts_only(sandbox: &Sandbox) -> String {
    let yaml = std::fs::read_to_string(sandbox.path("pipeline.yaml")).expect("readable");
    let (pipeline, _) = document::load_one(&yaml, "pipeline.yaml").expect("valid");
    let settings = pipeline.resolved().compressor_settings();
    Settings::Compressor(settings.of_receipts_only()).to_json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressor_of_a_suspended_pipeline_takes_the_receipt_and_leaves_the_file() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let submit = |name: &str| {
        sandbox.write(&sandbox.path(name), name);
        let submitted = sandbox.run(&["submit", name, "-p", "pipeline.yaml", "--aws"]);
        submitted.success();
    };
    let waiting = |queue: &str| cloud.fake_aws.sqs().len(queue);
    submit("restored.txt");
    let packs = sandbox.start("packs.log", &COMPRESS);
    eventually_blocking("it is packed", || waiting("drain-chunks.fifo") == 1);
    assert_eq!(packs.stop(), Some(0));
    let restores = sandbox.start("restores.log", &["decompress", "pipeline.yaml", "--aws"]);
    eventually_blocking("its receipt waits", || {
        waiting("drain-chunks.fifo") == 0 && waiting("drain-receipts.fifo") == 1
    });
    assert_eq!(restores.stop(), Some(0));
    submit("waiting.txt");

    let mut command = sandbox.command(&["compress", "--listen", "127.0.0.1:0"]);
    command.env(VARIABLE, receipts_only(&sandbox));
    let suspended = sandbox.start_command("suspended.log", command);
    let counted = |name: &str| metric(&suspended.get("/metrics"), name);
    eventually_blocking("it takes the receipt", || {
        waiting("drain-receipts.fifo") == 0
            && counted("streampress_messages_acknowledged_total") == 1.0
    });
    assert!(suspended.get("/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(counted("streampress_messages_received_total"), 1.0);
    assert_eq!(suspended.stop(), Some(0));
    assert_eq!(waiting("drain-files.fifo"), 1);
}

fn in_progress(worker: &RunningProgram) -> f64 {
    metric(&worker.get("/metrics"), "streampress_messages_in_flight")
}

fn wait_for_work(worker: &RunningProgram) {
    eventually_blocking("a worker processes a message", || {
        in_progress(worker) >= 1.0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_releases_its_file_and_another_worker_continues() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "  ordering: Strict");
    // It cannot be packed smaller, and two shards take 2 MB a second: half a minute of work on any machine.
    let mut content = vec![0; 60 << 20];
    fastrand::Rng::with_seed(1).fill(&mut content);
    sandbox.write(&sandbox.path("large.txt"), content);
    sandbox
        .run(&["submit", "large.txt", "-p", "pipeline.yaml", "--aws"])
        .success();
    let mut first = sandbox.start("first.log", &COMPRESS);
    wait_for_work(&first);
    let second = sandbox.start("second.log", &COMPRESS);
    assert!(second.get("/livez").starts_with("HTTP/1.1 200"));
    assert_eq!(in_progress(&second), 0.0, "the first holds the group");

    let began = Instant::now();
    first.terminate();
    wait_for_work(&second);
    let taken_over = began.elapsed();
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    println!(
        "FIGURE drain in the middle of a file: another worker has it {:.2} s after SIGTERM, the process ended after {:.2} s",
        taken_over.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    assert!(!first.log().contains("ERROR"), "{}", first.log());

    assert_eq!(second.stop(), Some(0));
    assert_eq!(cloud.fake_aws.in_flight("drain-files.fifo"), 0);
    assert_eq!(
        cloud.fake_aws.sqs().len("drain-files.fifo"),
        1,
        "it is still there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_received_by_the_last_long_poll_is_released_to_another_worker() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let mut first = sandbox.start("first.log", &COMPRESS);
    eventually_blocking("it is in its long poll", || {
        cloud.fake_aws.calls("ReceiveMessage") > 0
    });
    first.terminate();
    eventually_blocking("it is stopping", || first.log().contains("Stopping"));
    // Its open poll receives the message before the second worker starts.
    sandbox.write(&sandbox.path("late.txt"), "a line\n");
    sandbox
        .run(&["submit", "late.txt", "-p", "pipeline.yaml", "--aws"])
        .success();
    let began = Instant::now();
    let second = sandbox.start("second.log", &COMPRESS);
    eventually_blocking("the second worker compresses it", || {
        second.log().contains("File compressed.")
    });
    println!(
        "FIGURE drain while idle: another worker had the file {:.2} s after it was announced to the old one's poll",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    assert!(!first.log().contains("stays in flight"), "{}", first.log());
    assert_eq!(second.stop(), Some(0));
    assert_eq!(cloud.fake_aws.in_flight("drain-files.fifo"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_poll_whose_response_is_lost_is_repeated_and_its_message_released() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let mut first = sandbox.start("first.log", &COMPRESS);
    eventually_blocking("it is in its long poll", || {
        cloud.fake_aws.calls("ReceiveMessage") > 0
    });
    first.terminate();
    eventually_blocking("it is stopping", || first.log().contains("Stopping"));
    sandbox.write(&sandbox.path("late.txt"), "a line\n");
    cloud.fake_aws.lose_next("ReceiveMessage");
    sandbox
        .run(&["submit", "late.txt", "-p", "pipeline.yaml", "--aws"])
        .success();
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    assert!(!first.log().contains("stays in flight"), "{}", first.log());
    assert_eq!(
        (
            cloud.fake_aws.in_flight("drain-files.fifo"),
            cloud.fake_aws.sqs().len("drain-files.fifo")
        ),
        (0, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_waits_on_aws_ends_with_the_receipt() {
    let cloud = Cloud::start().await;
    let sandbox = sandbox(&cloud, "");
    let submit = ["submit", "a.txt", "-p", "pipeline.yaml", "--aws", "--wait"];
    sandbox.write(&sandbox.path("a.txt"), "a line\n");
    let workers = ["compress", "decompress"].map(|role| {
        let args = [role, "pipeline.yaml", "--aws", "--listen", "127.0.0.1:0"];
        sandbox.start(&format!("{role}.log"), &args)
    });
    let said = sandbox.run(&submit).success();
    assert!(said.contains("a.txt: restored"), "{said}");
    let replies = sandbox.data("in").join(".streampress/replies");
    let left = std::fs::read_dir(replies).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the reply was taken");
    for mut worker in workers {
        worker.terminate();
        assert_eq!(worker.wait(), Some(0), "{}", worker.log());
    }
}
