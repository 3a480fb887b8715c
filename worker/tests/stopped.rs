//! Workers that are stopped while they pack or wait for the stream: they release their message, whatever part of the work is done.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use streampress::consume::{Handler, HandlerError};
use streampress::message::record::RecordOwner;
use streampress::message::{FileRef, Manifest, Records, VERSION};
use streampress::roles::announce::AnnouncementFormat;
use streampress_transport::contract_tests::{FilesTap, TappedFiles, eventually};
use streampress_transport::in_process_lock::InProcessLock;
use streampress_transport::{
    ChunkStream, FileName, Files, Outgoing, Position, Queue, Record, SlotLock, StreamCounts,
    TransportResult,
};
use tokio_util::sync::CancellationToken;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, handle_next};

/// A stream that answers once, if it has an answer, and then never.
#[derive(Debug, Default)]
struct StalledStream {
    first: Mutex<Option<Bytes>>,
    waits: AtomicBool,
}

impl StalledStream {
    async fn never<T>(&self) -> T {
        self.waits.store(true, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[async_trait]
impl ChunkStream for StalledStream {
    fn max_record_bytes(&self) -> usize {
        1 << 20
    }

    async fn append(&self, _records: Vec<Record>) -> TransportResult<Vec<Position>> {
        self.never().await
    }

    async fn fetch(&self, _positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        let first = self.first.lock().take();
        match first {
            Some(record) => Ok(vec![record]),
            None => self.never().await,
        }
    }

    fn counts(&self) -> StreamCounts {
        StreamCounts::default()
    }
}

/// Handles the only message until the handler waits for the stream, and a moment longer; then stops it.
async fn stop_while_it_waits(handler: &dyn Handler, stream: &StalledStream, queue: &dyn Queue) {
    let slot = InProcessLock::new("test", 1).try_acquire().await;
    let (slot, stop) = (
        slot.expect("asked").expect("free"),
        CancellationToken::new(),
    );
    let stopping = async {
        eventually("the handler waits", async || {
            stream.waits.load(Ordering::SeqCst)
        })
        .await;
        // Lets the blocking thread get on, so that both orders occur; the result is the same for either.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    };
    let ended = tokio::join!(handle_next(handler, queue, &slot, &stop), stopping).0;
    assert!(matches!(ended, Err(HandlerError::Interrupted)), "{ended:?}");
}

#[tokio::test]
async fn a_packed_file_that_the_stream_does_not_accept_is_released() {
    let fixture = Fixture::open();
    let entry = fixture.write("a.txt", b"soon packed");
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    announcer.announce(&entry).await.expect("announced");
    let stream = Arc::new(StalledStream::default());
    let compressor = fixture.compressor(stream.clone());
    stop_while_it_waits(&compressor, &stream, &*fixture.local.files_queue()).await;
}

/// Files of another location whose content does not come before its sender is dropped.
#[derive(Debug)]
struct SlowFiles {
    gate: Mutex<Option<mpsc::Receiver<()>>>,
    is_read: Arc<AtomicBool>,
}

/// The content of such a file.
struct SlowContent {
    gate: mpsc::Receiver<()>,
    is_read: Arc<AtomicBool>,
}

impl Read for SlowContent {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        self.is_read.store(true, Ordering::SeqCst);
        let _ = self.gate.recv();
        Ok(0)
    }
}

impl FilesTap for SlowFiles {
    fn read(&self, _files: &dyn Files, _name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        let gate = self.gate.lock().take().ok_or(io::ErrorKind::NotFound)?;
        let is_read = self.is_read.clone();
        Ok(Box::new(SlowContent { gate, is_read }))
    }
}

#[tokio::test]
async fn a_block_that_is_being_packed_is_given_up() {
    let fixture = Fixture::open();
    let entry = fixture.write("a.txt", b"long in coming");
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    announcer.announce(&entry).await.expect("announced");
    let mut compressor = fixture.compressor(fixture.local.stream());
    let (goes_on, gate) = mpsc::channel();
    let is_read = Arc::new(AtomicBool::new(false));
    let slow = SlowFiles {
        gate: Mutex::new(Some(gate)),
        is_read: is_read.clone(),
    };
    compressor.announcer.source = TappedFiles::new(fixture.source.clone(), slow);
    let slot = InProcessLock::new("test", 1).try_acquire().await;
    let (slot, stop) = (
        slot.expect("asked").expect("free"),
        CancellationToken::new(),
    );
    let stopping = async {
        eventually("the file is read", async || is_read.load(Ordering::SeqCst)).await;
        stop.cancel();
    };
    let queue = fixture.local.files_queue();
    let ended = tokio::join!(handle_next(&compressor, &*queue, &slot, &stop), stopping).0;
    assert!(matches!(ended, Err(HandlerError::Interrupted)), "{ended:?}");
    // Only now could packing end.
    drop(goes_on);
}

/// Restores a file of so many records, the first of which is damaged.
async fn restore(records: usize) {
    let fixture = Fixture::open();
    let entry = fixture.write("a.txt", b"any content");
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    let file: FileRef = announcer.identify(&entry).await.expect("read");
    let position = |number: u64| Position {
        shard: "0".into(),
        sequence: number.into(),
        bytes: 4 << 20,
    };
    let first = RecordOwner::new(&file.id(), "attempt").seal(0, &[7; 4096]);
    let manifest = Manifest {
        version: VERSION,
        file_version: None,
        observed: None,
        repeats: 0,
        file,
        attempt: "attempt".into(),
        records: Records::Inline((0..records as u64).map(position).collect()),
        bundle: None,
        packed_bytes: 0,
        effort: None,
        stages: Vec::new(),
        shares: Vec::new(),
        announced_millis: 0,
        compressed_millis: 0,
        traceparent: None,
    };
    let queue = fixture.local.chunks_queue();
    let message = Outgoing {
        group: "a".into(),
        dedup_id: "a".into(),
        body: manifest.to_json(),
        attributes: Default::default(),
    };
    queue.send(vec![message]).await.expect("sent");
    let stream = Arc::new(StalledStream {
        first: Mutex::new((records > 1).then_some(first)),
        ..StalledStream::default()
    });
    let decompressor = fixture.decompressor(fixture.destination("out"), stream.clone());
    stop_while_it_waits(&decompressor, &stream, &*queue).await;
}

#[tokio::test]
async fn a_small_file_whose_record_does_not_arrive_is_released() {
    restore(1).await;
}

#[tokio::test]
async fn a_file_that_is_found_damaged_before_all_its_records_arrived_is_released() {
    restore(2).await;
}
