//! SIGTERM to the program on the stand-in: what is in hand is given back at the next block, nothing stays hidden, another
//! worker goes on at once, and the end is a good one.

use std::time::Instant;

use streampress_tests::aws::Cloud;
use streampress_tests::desk::{Desk, Running, eventually, figure};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const COMPRESS: [&str; 5] = [
    "compress",
    "pipeline.yaml",
    "--aws",
    "--listen",
    "127.0.0.1:0",
];

/// Small blocks, so that an unoptimised build comes past their boundaries as often as a real one does past large ones.
fn desk(cloud: &Cloud, more: &str) -> Desk {
    let spec = format!("  codec: {{effort: Fast, blockSize: 256Ki, recordSize: 128Ki}}\n{more}");
    let desk = Desk::new(PROGRAM, &cloud.fake_aws.url, "drain", &spec);
    desk.run(&["setup", "pipeline.yaml"]).well();
    desk
}

fn in_hand(worker: &Running) -> f64 {
    figure(&worker.ask("/metrics"), "streampress_messages_in_hand")
}

fn takes_up_work(worker: &Running) {
    eventually("a worker has a message in hand", || {
        (in_hand(worker) >= 1.0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_the_middle_of_a_file_gives_it_back_and_another_goes_on() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "  ordering: Strict");
    let mut random = fastrand::Rng::with_seed(1);
    let row = |random: &mut fastrand::Rng| {
        format!(
            "{{\"symbol\":\"S{:03}\",\"cents\":{}}}\n",
            random.u32(0..300),
            random.u32(..)
        )
    };
    let rows: String = (0..1_500_000).map(|_| row(&mut random)).collect();
    desk.write(&desk.path("large.json"), rows);
    desk.run(&["submit", "large.json", "-p", "pipeline.yaml", "--aws"])
        .well();
    let mut first = desk.start("first.log", &COMPRESS);
    takes_up_work(&first);
    let second = desk.start("second.log", &COMPRESS);
    assert!(second.ask("/livez").starts_with("HTTP/1.1 200"));
    assert_eq!(
        in_hand(&second),
        0.0,
        "its group is in the first one's hand"
    );

    let began = Instant::now();
    first.terminate();
    takes_up_work(&second);
    let taken_over = began.elapsed();
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    println!(
        "FIGURE drain in the middle of a file: another worker has it {:.2} s after SIGTERM, the process ended after {:.2} s",
        taken_over.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    assert!(!first.log().contains("ERROR"), "{}", first.log());

    assert_eq!(second.stop(), Some(0));
    assert_eq!(cloud.fake_aws.hidden("drain-files.fifo"), 0);
    assert_eq!(
        cloud.fake_aws.sqs().len("drain-files.fifo"),
        1,
        "it is still there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_idle_workers_last_long_poll_brings_is_given_to_another() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    let mut first = desk.start("first.log", &COMPRESS);
    eventually("it is in its long poll", || {
        (cloud.fake_aws.calls("ReceiveMessage") > 0).then_some(())
    });
    first.terminate();
    eventually("it has heard", || {
        first.log().contains("Stopping").then_some(())
    });
    // Its poll is open and takes the message before anybody else is there to ask for one.
    desk.write(&desk.path("late.txt"), "a line\n");
    desk.run(&["submit", "late.txt", "-p", "pipeline.yaml", "--aws"])
        .well();
    let began = Instant::now();
    let second = desk.start("second.log", &COMPRESS);
    eventually("the other one packs it", || {
        second.log().contains("File compressed.").then_some(())
    });
    println!(
        "FIGURE drain while idle: another worker had the file {:.2} s after it was announced to the old one's poll",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    assert!(!first.log().contains("stays hidden"), "{}", first.log());
    assert_eq!(second.stop(), Some(0));
    assert_eq!(cloud.fake_aws.hidden("drain-files.fifo"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_whose_answer_is_lost_at_the_end_is_asked_again_for_what_it_took() {
    let cloud = Cloud::start().await;
    let desk = desk(&cloud, "");
    let mut first = desk.start("first.log", &COMPRESS);
    eventually("it is in its long poll", || {
        (cloud.fake_aws.calls("ReceiveMessage") > 0).then_some(())
    });
    first.terminate();
    eventually("it has heard", || {
        first.log().contains("Stopping").then_some(())
    });
    desk.write(&desk.path("late.txt"), "a line\n");
    cloud.fake_aws.lose_next("ReceiveMessage");
    desk.run(&["submit", "late.txt", "-p", "pipeline.yaml", "--aws"])
        .well();
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    assert!(!first.log().contains("stays hidden"), "{}", first.log());
    assert_eq!(
        (
            cloud.fake_aws.hidden("drain-files.fifo"),
            cloud.fake_aws.sqs().len("drain-files.fifo")
        ),
        (0, 1)
    );
}
