//! A bucket that announces its files itself, in both formats: which events are taken, which are skipped, and that a
//! pipeline which renames its sources does not announce them again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use streampress::consume::Handler;
use streampress::journal::NoJournal;
use streampress::legacy::READ_LOCATION;
use streampress::legacy::compressor::LegacyCompressor;
use streampress::message::Message;
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::compress::Compressor;
use streampress::roles::source::{SettleTime, SourceFilter};
use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
use streampress_transport::Outgoing;
use streampress_transport::contract_tests::eventually;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, RunningConsumer};

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

/// Takes JSON only; packed sources are renamed.
fn filter() -> SourceFilter {
    SourceFilter {
        formats: vec![SourceFormat::Json],
        skips_renamed: true,
    }
}

fn hybrid_compressor(fixture: &Fixture) -> Arc<dyn Handler> {
    Arc::new(Compressor {
        on_compressed: OnCompressed::Rename,
        settle: SettleTime::default(),
        filter: filter(),
        ..fixture.compressor(fixture.local.stream())
    })
}

fn legacy_compressor(fixture: &Fixture) -> Arc<dyn Handler> {
    Arc::new(LegacyCompressor {
        announcer: fixture.announcer(AnnouncementFormat::Legacy),
        stream: fixture.local.stream(),
        chunks_queue: fixture.local.chunks_queue(),
        break_bytes: 400 * 1024,
        read_location: READ_LOCATION.to_owned(),
        on_compressed: OnCompressed::Rename,
        settle: SettleTime::default(),
        filter: filter(),
        keeps_single_chunk_files: false,
        push: true,
        report: None,
        dead_letter_report: None,
        journal: Arc::new(NoJournal),
    })
}

/// What a compressor did with the bucket's events.
struct BucketOutcome {
    /// Messages of the files queue: events, and the announcements that follow from them.
    acknowledged: u64,
    dead: u64,
    left_on_files_queue: usize,
    /// Bodies on the chunks queue.
    packed: Vec<String>,
    source: Vec<String>,
}

/// Two objects at the source, one more that was renamed before, and an event of each; then the event of the object that is
/// renamed meanwhile.
async fn with_events_of_a_bucket(
    compressor: impl Fn(&Fixture) -> Arc<dyn Handler>,
) -> BucketOutcome {
    let fixture = Fixture::with_source("s3://bucket/in");
    for name in ["a.json", "b.csv", "x_delete.json"] {
        fixture.write(name, TRADES);
    }
    let local = &fixture.local;
    let files_queue = local.files_queue();
    let consumer = RunningConsumer::start(
        files_queue.clone(),
        local.lock("compressor", 1),
        compressor(&fixture),
        1,
        false,
    );
    let events = ["in/b.csv", "in/x_delete.json", "in/a.json"].map(created);
    files_queue.send(events.into()).await.expect("sent");
    consumer.conclude(4).await;
    eventually("the source is gone", async || {
        !fixture.folder().join("a.json").exists()
    })
    .await;
    // A rename in a bucket is a copy, which has an event too.
    let renamed = vec![created("in/a_delete.json")];
    files_queue.send(renamed).await.expect("sent");
    consumer.conclude(5).await;
    let counts = consumer.meter.counts();
    consumer.stop().await;
    let mut packed = Vec::new();
    let chunks = local.chunks_queue();
    while chunks.depth().await.expect("known").total() > packed.len() as u64 {
        let received = chunks.receive(10, Duration::from_secs(1)).await;
        packed.extend(received.expect("received").into_iter().map(|it| it.body));
    }
    let listed = fixture.source.list().expect("listed");
    BucketOutcome {
        acknowledged: counts.acknowledged,
        dead: counts.dead.values().sum(),
        left_on_files_queue: files_queue.depth().await.expect("known").total() as usize,
        packed,
        source: listed
            .files
            .iter()
            .map(|entry| entry.name.to_string())
            .collect(),
    }
}

#[tokio::test]
async fn events_of_a_renamed_file_or_of_another_kind_are_acknowledged_and_announce_nothing() {
    let outcome = with_events_of_a_bucket(hybrid_compressor).await;
    assert_eq!((outcome.acknowledged, outcome.dead), (5, 0));
    assert_eq!(outcome.left_on_files_queue, 0);
    assert_eq!(outcome.packed.len(), 1, "{:?}", outcome.packed);
    assert_eq!(outcome.source, ["a_delete.json", "b.csv", "x_delete.json"]);
}

#[tokio::test]
async fn a_bucket_announces_files_to_a_pipeline_of_the_originals_format_too() {
    let outcome = with_events_of_a_bucket(legacy_compressor).await;
    assert_eq!((outcome.acknowledged, outcome.dead), (5, 0));
    assert_eq!(outcome.left_on_files_queue, 0);
    let [packed] = &outcome.packed[..] else {
        panic!("one file was packed: {:?}", outcome.packed);
    };
    match Message::parse(packed) {
        Ok(Message::LegacyManifest(message)) => {
            assert_eq!(message.file_name, format!("{READ_LOCATION}/a.json"));
        }
        other => panic!("not the original's message: {other:?}"),
    }
    assert_eq!(outcome.source, ["a_delete.json", "b.csv", "x_delete.json"]);
}
