//! Workers that are told to stop while the stream takes its time: what they have in hand is given back, whatever of it is
//! done already.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use streampress::consume::{Fault, Handler, MessageContext, Threads};
use streampress::message::record::Owner;
use streampress::message::{FileRef, Manifest, Records, VERSION};
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::compress::{Compressor, OnCompressed};
use streampress::roles::decompress::Decompressor;
use streampress::roles::scan::SourceFilter;
use streampress::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_crds::api::pipeline::SourceFormat;
use streampress_transport::Deadline;
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::{
    ChunkStream, Delivery, Outgoing, Position, Queue, Record, SlotLock, StreamCounts,
    TransportResult,
};
use tokio_util::sync::CancellationToken;

#[path = "support/bench.rs"]
mod bench;

use bench::Bench;

/// A stream that answers once, if it has an answer, and then never.
#[derive(Debug, Default)]
struct Stalled {
    first: Mutex<Option<Bytes>>,
    waits: AtomicBool,
}

impl Stalled {
    async fn never<T>(&self) -> T {
        self.waits.store(true, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[async_trait]
impl ChunkStream for Stalled {
    fn max_record_bytes(&self) -> usize {
        1 << 20
    }

    async fn append(&self, _records: Vec<Record>) -> TransportResult<Vec<Position>> {
        self.never().await
    }

    async fn fetch(&self, _positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let first = self.first.lock().expect("no panic").take();
        match first {
            Some(record) => Ok(vec![record]),
            None => self.never().await,
        }
    }

    fn counts(&self) -> StreamCounts {
        StreamCounts::default()
    }
}

/// Has the only message worked on until the stream is waited for, and a moment longer; then it is told to stop.
async fn stop_while_it_waits(handler: &dyn Handler, stream: &Stalled, queue: &dyn Queue) {
    let mut deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    let delivery: Delivery = deliveries.pop().expect("a message");
    let held = InProcessLock::new("test", 1).try_acquire().await;
    let (held, stop) = (
        held.expect("asked").expect("free"),
        CancellationToken::new(),
    );
    let job = MessageContext {
        delivery: &delivery,
        visibility_deadline: &Deadline::new(delivery.visibility_deadline),
        held: &held,
        threads: &Threads::new(1),
        stop: &stop,
        meter: &Meter::default(),
    };
    let stopping = async {
        while !stream.waits.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    };
    let both = async { tokio::join!(handler.handle(job), stopping).0 };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    assert!(matches!(ended, Ok(Err(Fault::Interrupted))), "{ended:?}");
}

#[tokio::test]
async fn a_packed_file_that_the_stream_does_not_take_is_given_back() {
    let bench = Bench::open();
    let announcer = bench.announcer(AnnouncementFormat::Native);
    let entry = bench.write("a.txt", b"soon packed");
    announcer.announce(&entry).await.expect("announced");
    let stream = Arc::new(Stalled::default());
    let compressor = Compressor {
        announcer,
        stream: stream.clone(),
        chunks_queue: bench.local.chunks_queue(),
        options: hybrid::CodecOptions::default(),
        record_bytes: 64 * 1024,
        on_compressed: OnCompressed::Keep,
        filter: SourceFilter {
            formats: vec![SourceFormat::Txt],
            put_aside: false,
        },
        journal: None,
    };
    stop_while_it_waits(&compressor, &stream, &*bench.local.files_queue()).await;
}

/// Has a file restored whose first record is damaged, and which has so many in all.
async fn restore(records: usize) {
    let bench = Bench::open();
    let entry = bench.write("a.txt", b"whatever");
    let file: FileRef = bench
        .announcer(AnnouncementFormat::Native)
        .look(&entry)
        .await
        .expect("read");
    let position = |number: u64| Position {
        shard: "0".into(),
        sequence: number.into(),
        bytes: 4 << 20,
    };
    let first = Owner::new(&file.id(), "attempt").seal(0, &[7; 4096], None);
    let manifest = Manifest {
        version: VERSION,
        file,
        attempt: "attempt".into(),
        records: Records::Inline((0..records as u64).map(position).collect()),
        packed_bytes: 0,
        stages: Vec::new(),
        shares: Vec::new(),
        announced_millis: 0,
        compressed_millis: 0,
        traceparent: None,
    };
    let queue = bench.local.chunks_queue();
    let message = Outgoing {
        group: "a".into(),
        dedup_id: "a".into(),
        body: manifest.to_json(),
        attributes: Default::default(),
    };
    queue.send(vec![message]).await.expect("sent");
    let stream = Arc::new(Stalled {
        first: Mutex::new((records > 1).then_some(first)),
        ..Stalled::default()
    });
    let decompressor = Decompressor {
        destination: bench.place("out"),
        stream: stream.clone(),
        limits: hybrid::Limits::default(),
        threads: 1,
        block_bytes: 1 << 20,
        report: None,
        journal: None,
    };
    stop_while_it_waits(&decompressor, &stream, &*queue).await;
}

#[tokio::test]
async fn a_small_file_whose_record_does_not_come_is_given_back() {
    restore(1).await;
}

#[tokio::test]
async fn a_file_that_is_found_damaged_before_all_its_records_came_is_given_back() {
    restore(2).await;
}
