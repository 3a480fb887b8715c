//! Figures of the AWS transport on the fake AWS at AWS's limits: rates, latency, bytes read. Times are printed with their
//! goals and not asserted, because they depend on the machine; run it by itself on a quiet one, as `tests/run --long`
//! does.

use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use streampress_tests::aws::Cloud;
use streampress_tests::eventually;
use streampress_tests::fake_aws::FakeAwsOptions;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::pipeline::{Role, STREAM, TestPipeline, TestWorker};
use streampress_transport::{ChunkStream, Record};

const SHARDS: usize = 10;

/// Records without a key, as the compressor appends them, so that they go to the shard with capacity.
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
async fn appending_at_the_quota_is_hardly_throttled() {
    let cloud = Cloud::start().await;
    let stream = cloud.stream(SHARDS).await;
    let began = Instant::now();
    // Sixteen compressors with batches of four records for at least ten seconds.
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
        "FIGURE append: {:.2} MB/s over {SHARDS} shards, {:.1} % of 1 MB/s a shard (goal: 90 %), {:.2} % of records throttled (under 1 %)",
        counts.bytes_in as f64 / seconds / 1e6,
        share * 100.0,
        throttled * 100.0
    );
    assert!(throttled < 0.01);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_causes_few_resends_beyond_the_refused_records() {
    let cloud = Cloud::with(FakeAwsOptions {
        faults: Faults {
            throttle: 0.2,
            ..Faults::default()
        },
        ..FakeAwsOptions::default()
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
async fn files_announced_on_an_idle_system_are_restored() {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 2);
    let root = tempfile::tempdir().expect("a folder");
    let pipeline = TestPipeline::new(root.path(), &cloud.fake_aws.url, Duration::from_secs(60))
        .expect("folders");
    let workers =
        [Role::Compressor, Role::Decompressor].map(|role| TestWorker::start(&pipeline, role, 2));
    let announcer = pipeline.announcer(&cloud.aws).await;
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
        let entry = pipeline
            .write(&name, rows.as_bytes(), SystemTime::now())
            .expect("written");
        let began = Instant::now();
        announcer.announce(&entry).await.expect("announced");
        eventually("it is restored", async || {
            pipeline.commits().contains_key(&name)
        })
        .await;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    println!(
        "FIGURE announced to restored, 1 MiB, idle, fake AWS: median {:.3} s (goal: 0.15), slowest {:.3} s",
        times[7], times[14]
    );
    workers.into_iter().for_each(TestWorker::kill);
}

/// Random characters of 6 bits each, which cannot be compressed further than four characters to three bytes.
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
            let pipeline =
                TestPipeline::new(root.path(), &cloud.fake_aws.url, Duration::from_secs(60))
                    .expect("folders");
            let announcer = pipeline.announcer(&cloud.aws).await;
            for number in 0..files {
                let content = content(number, bytes * 4 / 3);
                let entry = pipeline
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
                .map(|role| TestWorker::start(&pipeline, role, 2))
                .collect();
            for number in 1..=files {
                eventually("one more file is restored", async || {
                    pipeline.commits().len() as u64 >= number
                })
                .await;
            }
            let seconds = began.elapsed().as_secs_f64();
            workers.into_iter().for_each(TestWorker::kill);
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
