//! Figures of the AWS side on the stand-in at AWS's limits. Run it by itself on a quiet machine:
//! `cargo test -p streampress-tests --features aws --test aws_figures -- --nocapture --test-threads 1`.

use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use streampress_tests::aws::Cloud;
use streampress_tests::fake_aws::Options;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::pipeline::{Place, Role, STREAM, Worker};
use streampress_transport::{ChunkStream, Record};

const SHARDS: usize = 10;

/// As the compressor hands them over: no key, so that they go where there is room.
fn prepared(count: usize, bytes: usize) -> Vec<Record> {
    let mut data = vec![0; bytes];
    fastrand::Rng::with_seed(1).fill(&mut data);
    let data = bytes::Bytes::from(data);
    (0..count)
        .map(|_| Record {
            key: String::new(),
            data: data.clone(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_filled_to_nine_tenths_of_its_quota() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(SHARDS).await;
    let began = Instant::now();
    // Sixteen compressors with batches of ten records, for ten seconds and a bit.
    let appends = (0..16).map(|_| {
        let stream = &stream;
        async move {
            while began.elapsed() < Duration::from_secs(10) {
                let batch = prepared(4, 400 * 1024);
                stream.append(batch).await.expect("put");
            }
        }
    });
    join_all(appends).await;
    let seconds = began.elapsed().as_secs_f64();
    let counts = cloud.fake_aws.kinesis().counts;
    let share = counts.bytes_in as f64 / seconds / (SHARDS as f64 * 1e6);
    let throttled = counts.over_rate as f64 / counts.offered as f64;
    println!(
        "FIGURE append: {:.2} MB/s over {SHARDS} shards, {:.1} % of 1 MB/s a shard (at least 90 %), {:.2} % of records throttled (under 1 %)",
        counts.bytes_in as f64 / seconds / 1e6,
        share * 100.0,
        throttled * 100.0
    );
    assert!(throttled < 0.01);
    assert!(share >= 0.9);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_costs_little_more_than_what_it_refuses() {
    let cloud = Cloud::with(Options {
        faults: Faults {
            throttle: 0.2,
            ..Faults::default()
        },
        ..Options::default()
    })
    .await;
    let stream = cloud.stream(SHARDS).await;
    let batches = (0..50).map(|_| stream.append(prepared(40, 20_000)));
    for put in join_all(batches).await {
        put.expect("put in the end");
    }
    let counts = cloud.fake_aws.kinesis().counts;
    let amplification = counts.offered as f64 / counts.taken as f64;
    println!("FIGURE amplification under 20 % throttling: {amplification:.3} (at most 1.3)");
    assert!(amplification <= 1.3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_announced_on_an_idle_system_is_restored_soon() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 2);
    let root = tempfile::tempdir().expect("a folder");
    let place =
        Place::new(root.path(), &cloud.fake_aws.url, Duration::from_secs(60)).expect("folders");
    let workers = [Role::Compressor, Role::Decompressor].map(|role| Worker::start(&place, role, 2));
    let announcer = place.announcer(&cloud.aws).await;
    let mut times = Vec::new();
    for number in 0..15u64 {
        let name = format!("one-mib-{number}.json");
        let mut random = fastrand::Rng::with_seed(number);
        let row = |random: &mut fastrand::Rng| {
            format!(
                "{{\"symbol\":\"S{:03}\",\"cents\":{},\"volume\":{}}}\n",
                random.u32(0..300),
                random.u32(100..90_000),
                random.u32(1..100_000)
            )
        };
        let rows: String = (0..22_000).map(|_| row(&mut random)).collect();
        let entry = place
            .write(&name, rows.as_bytes(), SystemTime::now())
            .expect("written");
        let began = Instant::now();
        announcer.announce(&entry).await.expect("announced");
        while !place.commits().contains_key(&name) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    println!(
        "FIGURE announced to restored, 1 MiB, idle, stand-in: median {:.3} s (at most 0.5), slowest {:.3} s",
        times[7], times[14]
    );
    workers.into_iter().for_each(Worker::kill);
    assert!(times[7] <= 0.5, "{times:?}");
}

/// Of so many characters, four of which make three bytes; it cannot be packed any smaller.
fn content(seed: u64, characters: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| char::from(b'0' + random.u8(0..64)))
        .take(characters)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_decompressors_read_a_stream_once() {
    for (files, bytes) in [(600u64, 10_000), (100, 100_000)] {
        for decompressors in [2, 4] {
            let cloud = Cloud::start().await;
            cloud.make_queue("files", 20);
            cloud.make_queue("chunks", 20);
            cloud.make_stream(STREAM, 4);
            let root = tempfile::tempdir().expect("a folder");
            let place = Place::new(root.path(), &cloud.fake_aws.url, Duration::from_secs(60))
                .expect("folders");
            let announcer = place.announcer(&cloud.aws).await;
            for number in 0..files {
                let content = content(number, bytes * 4 / 3);
                let entry = place
                    .write(
                        &format!("{number}.txt"),
                        content.as_bytes(),
                        SystemTime::now(),
                    )
                    .expect("written");
                announcer.announce(&entry).await.expect("announced");
            }
            let began = Instant::now();
            let roles = [(Role::Compressor, 2), (Role::Decompressor, decompressors)];
            let workers: Vec<_> = roles
                .into_iter()
                .flat_map(|(role, count)| (0..count).map(move |_| role))
                .map(|role| Worker::start(&place, role, 2))
                .collect();
            while (place.commits().len() as u64) < files {
                assert!(
                    began.elapsed() < Duration::from_secs(300),
                    "it does not end"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let seconds = began.elapsed().as_secs_f64();
            workers.into_iter().for_each(Worker::kill);
            let counts = cloud.fake_aws.kinesis().counts;
            let ratio = counts.bytes_out as f64 / counts.bytes_in as f64;
            println!(
                "FIGURE bytes read over bytes put, {files} files of {bytes} packed, {decompressors} decompressors: {ratio:.2} in {seconds:.1} s with {} reads and {} seeks",
                cloud.fake_aws.calls("GetRecords"),
                cloud.fake_aws.calls("GetShardIterator"),
            );
            assert!(ratio <= 1.5, "{ratio}");
        }
    }
}
