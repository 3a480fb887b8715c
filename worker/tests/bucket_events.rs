//! A bucket that tells of its files itself, in both formats: what is taken, what is passed over, and that a pipeline which
//! renames its sources does not feed itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use streampress::consume::{Consumer, Handler};
use streampress::legacy::messages::LegacyManifest;
use streampress::legacy::{
    READ_LOCATION,
    compressor::{LegacyCompressor, PackedSources},
};
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::compress::{Compressor, OnCompressed};
use streampress::roles::scan::SourceFilter;
use streampress::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_crds::api::pipeline::SourceFormat;
use streampress_transport::{Outgoing, Queue};
use tokio_util::sync::CancellationToken;

#[path = "support/bench.rs"]
mod bench;

use bench::Bench;

const TRADES: &[u8] = br#"[{"price":1.5}]"#;

fn created(key: &str) -> Outgoing {
    let event = json!({
        "version": "0", "detail-type": "Object Created", "source": "aws.s3",
        "detail": {"version": "0", "bucket": {"name": "bucket"}, "object": {"key": key, "size": 5}, "reason": "PutObject"},
    });
    Outgoing {
        group: "bucket-events".into(),
        dedup_id: format!("event of {key}").replace([' ', '/'], "-"),
        body: event.to_string(),
        attributes: Default::default(),
    }
}

/// Takes JSON only, and puts aside what is packed.
fn filter() -> SourceFilter {
    SourceFilter {
        formats: vec![SourceFormat::Json],
        put_aside: true,
    }
}

fn hybrid_compressor(bench: &Bench) -> Arc<dyn Handler> {
    Arc::new(Compressor {
        announcer: bench.announcer(AnnouncementFormat::Native),
        stream: bench.local.stream(),
        chunks_queue: bench.local.chunks_queue(),
        options: hybrid::CodecOptions {
            effort: hybrid::Effort::Fast,
            block_size: 1 << 20,
            threads: 1,
        },
        record_bytes: 400 * 1024,
        on_compressed: OnCompressed::Rename,
        filter: filter(),
        journal: None,
    })
}

fn legacy_compressor(bench: &Bench) -> Arc<dyn Handler> {
    Arc::new(LegacyCompressor {
        announcer: bench.announcer(AnnouncementFormat::Legacy),
        stream: bench.local.stream(),
        chunks_queue: bench.local.chunks_queue(),
        break_bytes: 400 * 1024,
        read_location: READ_LOCATION.to_owned(),
        on_compressed: OnCompressed::Rename,
        filter: filter(),
        tidy_only_multi: false,
        push: true,
        report: None,
        journal: None,
        packed: PackedSources::default(),
    })
}

/// What a compressor did about the bucket's events.
struct Outcome {
    /// Messages it took off the files queue: events, and announcements it made of them.
    acknowledged: u64,
    dead: u64,
    left_on_files_queue: usize,
    /// Bodies on the chunks queue.
    packed: Vec<String>,
    source: Vec<String>,
}

/// Two objects that lie at the source, one more that was put aside before, and an event of each; then the event of the one
/// that is put aside meanwhile.
async fn fed_by_a_bucket(compressor: impl Fn(&Bench) -> Arc<dyn Handler>) -> Outcome {
    let bench = Bench::with_source("s3://bucket/in");
    let (local, handler) = (&bench.local, compressor(&bench));
    for name in ["a.json", "b.csv", "x_delete.json"] {
        bench.write(name, TRADES);
    }
    let files_queue: Arc<dyn Queue> = local.files_queue();
    let (meter, shutdown) = (Meter::default(), CancellationToken::new());
    let consumer = Consumer {
        role: "compressor",
        queue: files_queue.clone(),
        lock: local.lock("compressor", 1),
        handler,
        threads: 1,
        strict: false,
        interval: Duration::from_secs(1),
        linger: Duration::from_secs(1),
        max_receive_count: 20,
        meter: meter.clone(),
        shutdown: shutdown.clone(),
    };
    let working = tokio::spawn(async move { consumer.run().await });
    let dead = || meter.counts().dead.values().sum::<u64>();
    let settled = async |messages: u64| {
        while meter.counts().acknowledged + dead() < messages {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let events = ["in/b.csv", "in/x_delete.json", "in/a.json"].map(created);
    files_queue.send(events.into()).await.expect("sent");
    settled(4).await;
    while bench.folder().join("a.json").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A rename in a bucket is a copy, of which the bucket tells too.
    let renamed = vec![created("in/a_delete.json")];
    files_queue.send(renamed).await.expect("sent");
    settled(5).await;
    shutdown.cancel();
    working.await.expect("no panic");
    let mut packed = Vec::new();
    let chunks = local.chunks_queue();
    while chunks.depth().await.expect("known").total() > packed.len() as u64 {
        let got = chunks.receive(10, Duration::from_secs(1)).await;
        packed.extend(got.expect("received").into_iter().map(|got| got.body));
    }
    let listed = bench.source.list().expect("listed");
    Outcome {
        acknowledged: meter.counts().acknowledged,
        dead: dead(),
        left_on_files_queue: files_queue.depth().await.expect("known").total() as usize,
        packed,
        source: listed.iter().map(|entry| entry.name.to_string()).collect(),
    }
}

#[tokio::test]
async fn events_of_a_file_put_aside_or_of_another_kind_are_acknowledged_and_announce_nothing() {
    let outcome = fed_by_a_bucket(hybrid_compressor).await;
    assert_eq!((outcome.acknowledged, outcome.dead), (5, 0));
    assert_eq!(outcome.left_on_files_queue, 0);
    assert_eq!(outcome.packed.len(), 1, "{:?}", outcome.packed);
    assert_eq!(outcome.source, ["a_delete.json", "b.csv", "x_delete.json"]);
}

#[tokio::test]
async fn a_bucket_feeds_a_pipeline_of_the_originals_format_too() {
    let outcome = fed_by_a_bucket(legacy_compressor).await;
    assert_eq!((outcome.acknowledged, outcome.dead), (5, 0));
    assert_eq!(outcome.left_on_files_queue, 0);
    let [packed] = &outcome.packed[..] else {
        panic!("one file was packed: {:?}", outcome.packed);
    };
    let message = LegacyManifest::parse(packed).expect("the original's message");
    assert_eq!(message.file_name, format!("{READ_LOCATION}/a.json"));
    assert_eq!(outcome.source, ["a_delete.json", "b.csv", "x_delete.json"]);
}
