//! The embedded transport: messages a second (a message is one sent, received and deleted; sends and deletes are durable
//! before they are answered), and stream bytes a second beside plain sequential writes with the same syncs, in turns.
#![expect(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{ChunkStream, Outgoing, Queue, Record};

const WORKERS: usize = 16;
const RECORD_BYTES: usize = 400 * 1024;
/// Records that share one append and one sync: 4 MiB, the default block.
const RECORDS_PER_SYNC: usize = 10;
const SYNCS: usize = 8;
const ROUNDS: usize = 11;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// On the disk that holds the project: a temporary folder may be memory, which needs no sync.
fn open() -> (tempfile::TempDir, Local) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let local = Local::open(folder.path(), LocalOptions::default()).unwrap();
    (folder, local)
}

fn message(number: usize) -> Outgoing {
    Outgoing {
        group: format!("group-{}", number % 64),
        dedup_id: format!("{}-{number}", fastrand::u64(..)),
        body: "x".repeat(400),
        attributes: BTreeMap::new(),
    }
}

async fn pass_messages(queue: &Arc<dyn Queue>, count: usize, at_once: usize) {
    let senders = (0..WORKERS).map(|worker| {
        let queue = Arc::clone(queue);
        tokio::spawn(async move {
            let own: Vec<usize> = (worker..count).step_by(WORKERS).collect();
            for batch in own.chunks(at_once) {
                queue
                    .send(batch.iter().map(|&n| message(n)).collect())
                    .await
                    .unwrap();
            }
        })
    });
    let left = Arc::new(tokio::sync::Semaphore::new(count));
    let receivers = (0..WORKERS).map(|_| {
        let (queue, left) = (Arc::clone(queue), Arc::clone(&left));
        tokio::spawn(async move {
            while left.available_permits() > 0 {
                let deliveries = queue
                    .receive(at_once, Duration::from_millis(100))
                    .await
                    .unwrap();
                let deletes = deliveries.iter().map(|d| queue.delete(&d.receipt));
                for outcome in futures::future::join_all(deletes).await {
                    outcome.unwrap();
                    left.forget_permits(1);
                }
            }
        })
    });
    let tasks: Vec<_> = senders.chain(receivers).collect();
    futures::future::try_join_all(tasks).await.unwrap();
}

fn messages(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("messages");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    const COUNT: usize = 2000;
    group.throughput(Throughput::Elements(COUNT as u64));
    for at_once in [1, 10] {
        let (_folder, local) = open();
        let queue = local.files_queue();
        group.bench_function(
            format!("send, receive, delete, {at_once} at once, {WORKERS} workers"),
            |b| {
                b.iter(|| runtime.block_on(pass_messages(&queue, COUNT, at_once)));
            },
        );
    }
    group.finish();
}

fn records() -> Vec<Record> {
    let mut data = vec![0; RECORD_BYTES];
    fastrand::fill(&mut data);
    let data = Bytes::from(data);
    (0..RECORDS_PER_SYNC)
        .map(|n| Record {
            key: n.to_string(),
            data: data.clone(),
        })
        .collect()
}

async fn append(stream: &Arc<dyn ChunkStream>, records: &[Record]) {
    for _ in 0..SYNCS {
        stream.append(records.to_vec()).await.unwrap();
    }
}

fn write_plainly(file: &mut File, records: &[Record]) {
    for _ in 0..SYNCS {
        for record in records {
            file.write_all(&record.data).unwrap();
        }
        file.sync_data().unwrap();
    }
}

fn plain_file(folder: &Path) -> File {
    File::create(folder.join(format!("plain-{}", fastrand::u64(..)))).unwrap()
}

fn stream(c: &mut Criterion) {
    let runtime = runtime();
    let (folder, local) = open();
    let (stream, records) = (local.stream(), records());
    in_turns(&runtime, folder.path(), &stream, &records);
    let mut group = c.benchmark_group("stream");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Bytes(
        (SYNCS * RECORDS_PER_SYNC * RECORD_BYTES) as u64,
    ));
    group.bench_function("append", |b| {
        b.iter(|| runtime.block_on(append(&stream, &records)));
    });
    group.bench_function("append, 4 callers share the syncs", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let quarter = records.len().div_ceil(4);
                let calls = records
                    .chunks(quarter)
                    .map(|records| append(&stream, records));
                futures::future::join_all(calls).await;
            });
        });
    });
    group.bench_function("plain writes, same syncs", |b| {
        let mut file = plain_file(folder.path());
        b.iter(|| write_plainly(&mut file, &records));
    });
    let positions = runtime.block_on(stream.append(records.clone())).unwrap();
    group.throughput(Throughput::Bytes((RECORDS_PER_SYNC * RECORD_BYTES) as u64));
    group.bench_function("fetch, in the page cache", |b| {
        b.iter(|| runtime.block_on(stream.fetch(&positions)).unwrap());
    });
    group.finish();
}

/// The disk is shared and its speed changes by the second: both are measured in turns, and the medians compared.
fn in_turns(
    runtime: &tokio::runtime::Runtime,
    folder: &Path,
    stream: &Arc<dyn ChunkStream>,
    records: &[Record],
) {
    let megabytes = (SYNCS * RECORDS_PER_SYNC * RECORD_BYTES) as f64 / 1e6;
    let speed = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        megabytes / began.elapsed().as_secs_f64()
    };
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    let mut file = plain_file(folder);
    for _ in 0..ROUNDS {
        ours.push(speed(&mut || runtime.block_on(append(stream, records))));
        plain.push(speed(&mut || write_plainly(&mut file, records)));
    }
    for speeds in [&mut ours, &mut plain] {
        speeds.sort_by(f64::total_cmp);
    }
    let (ours, plain) = (ours[ROUNDS / 2], plain[ROUNDS / 2]);
    println!(
        "stream in turns: append {ours:.0} MB/s, plain writes with the same syncs {plain:.0} MB/s, ratio {:.2}",
        ours / plain
    );
}

criterion_group!(benches, messages, stream);
criterion_main!(benches);
