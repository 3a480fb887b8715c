//! The decompressor when another one is at work on the same file.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use streampress::consume::{Handler, MessageContext, Threads};
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::compress::{Compressor, OnCompressed};
use streampress::roles::decompress::Decompressor;
use streampress::roles::scan::SourceFilter;
use streampress::telemetry::metrics::Meter;
use streampress_codec::hybrid;
use streampress_crds::api::pipeline::SourceFormat;
use streampress_transport::Deadline;
use streampress_transport::{
    ChunkStream, FileName, Files, Position, Queue, Record, SlotLock, StreamCounts, TransportResult,
};
use tokio_util::sync::CancellationToken;

#[path = "support/bench.rs"]
mod bench;

use bench::Bench;

/// A stream that takes its time: before it gives records back, another worker has restored the next version.
#[derive(Debug)]
struct Late {
    stream: Arc<dyn ChunkStream>,
    destination: Arc<dyn Files>,
    next_version: SystemTime,
}

fn name() -> FileName {
    FileName::parse("a.txt").expect("a good name")
}

#[async_trait]
impl ChunkStream for Late {
    fn max_record_bytes(&self) -> usize {
        self.stream.max_record_bytes()
    }

    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        self.stream.append(records).await
    }

    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let mut file = self.destination.create(&name()).expect("begun");
        file.write_all(b"version two").expect("written");
        file.commit(self.next_version).expect("made visible");
        self.stream.fetch(positions).await
    }

    fn counts(&self) -> StreamCounts {
        self.stream.counts()
    }
}

/// Has the next message of `queue` worked on.
async fn handle(handler: &dyn Handler, queue: &dyn Queue, lock: &dyn SlotLock) {
    let mut deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    let delivery = deliveries.pop().expect("a message");
    let held = lock.try_acquire().await.expect("asked").expect("free");
    let job = MessageContext {
        delivery: &delivery,
        visibility_deadline: &Deadline::new(delivery.visibility_deadline),
        held: &held,
        threads: &Threads::new(1),
        stop: &CancellationToken::new(),
        meter: &Meter::default(),
    };
    handler.handle(job).await.expect("done");
}

#[tokio::test]
async fn a_newer_version_that_appears_while_an_older_one_is_unpacked_is_not_overwritten() {
    let bench = Bench::open();
    let (local, destination) = (&bench.local, bench.place("out"));
    let announcer = bench.announcer(AnnouncementFormat::Native);
    let entry = bench.write("a.txt", b"version one");
    announcer.announce(&entry).await.expect("announced");
    let compressor = Compressor {
        announcer,
        stream: local.stream(),
        chunks_queue: local.chunks_queue(),
        options: hybrid::CodecOptions::default(),
        record_bytes: 64 * 1024,
        on_compressed: OnCompressed::Keep,
        filter: SourceFilter {
            formats: vec![SourceFormat::Txt, SourceFormat::Json, SourceFormat::Csv],
            put_aside: false,
        },
        journal: None,
    };
    let lock = local.lock("compressor", 1);
    handle(&compressor, &*local.files_queue(), &*lock).await;
    let decompressor = Decompressor {
        destination: destination.clone(),
        stream: Arc::new(Late {
            stream: local.stream(),
            destination: destination.clone(),
            next_version: entry.modified + Duration::from_secs(1),
        }),
        limits: hybrid::Limits::default(),
        threads: 1,
        block_bytes: 1 << 20,
        report: None,
        journal: None,
    };
    let lock = local.lock("decompressor", 1);
    handle(&decompressor, &*local.chunks_queue(), &*lock).await;
    let (mut restored, mut reading) = (Vec::new(), destination.read(&name()).expect("restored"));
    reading.read_to_end(&mut restored).expect("read");
    assert_eq!(restored, b"version two");
}
