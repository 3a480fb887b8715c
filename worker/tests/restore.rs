//! The decompressor while another worker restores the same file.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use streampress::consume::Handler;
use streampress::roles::announce::AnnouncementFormat;
use streampress_transport::{
    ChunkStream, FileName, Files, Position, Queue, Record, SlotLock, StreamCounts, TransportResult,
};
use tokio_util::sync::CancellationToken;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, handle_next};

/// A stream that is slow: before it returns records, another worker has restored the next version.
#[derive(Debug)]
struct LateStream {
    stream: Arc<dyn ChunkStream>,
    destination: Arc<dyn Files>,
    next_version: SystemTime,
}

fn name() -> FileName {
    FileName::parse("a.txt").expect("a valid name")
}

#[async_trait]
impl ChunkStream for LateStream {
    fn max_record_bytes(&self) -> usize {
        self.stream.max_record_bytes()
    }

    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        self.stream.append(records).await
    }

    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let mut file = self.destination.create(&name()).expect("created");
        file.write_all(b"version two").expect("written");
        file.commit(self.next_version).expect("made visible");
        self.stream.fetch(positions).await
    }

    fn counts(&self) -> StreamCounts {
        self.stream.counts()
    }
}

async fn handle(handler: &dyn Handler, queue: &dyn Queue, lock: &dyn SlotLock) {
    let slot = lock.try_acquire().await.expect("asked").expect("free");
    handle_next(handler, queue, &slot, &CancellationToken::new())
        .await
        .expect("done");
}

#[tokio::test]
async fn a_newer_version_that_appears_while_an_older_one_is_unpacked_is_not_overwritten() {
    let fixture = Fixture::open();
    let (local, destination) = (&fixture.local, fixture.files("out"));
    let entry = fixture.write("a.txt", b"version one");
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    announcer.announce(&entry).await.expect("announced");
    let compressor = fixture.compressor(local.stream());
    let lock = local.lock("compressor", 1);
    handle(&compressor, &*local.files_queue(), &*lock).await;
    let late = LateStream {
        stream: local.stream(),
        destination: destination.clone(),
        next_version: entry.modified + Duration::from_secs(1),
    };
    let decompressor = fixture.decompressor(destination.clone(), Arc::new(late));
    let lock = local.lock("decompressor", 1);
    handle(&decompressor, &*local.chunks_queue(), &*lock).await;
    let (mut restored, mut reading) = (Vec::new(), destination.read(&name()).expect("restored"));
    reading.read_to_end(&mut restored).expect("read");
    assert_eq!(restored, b"version two");
}
