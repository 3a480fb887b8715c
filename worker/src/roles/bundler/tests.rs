use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use streampress_transport::{
    ChunkStream, DeadLetterReason, FileVersion, Position, Record, StreamCounts, TransportError,
    TransportResult,
};

use super::*;
use crate::message::FileRef;
use crate::message::record::FoundRecord;

const ATTEMPT: &str = "compressor-0/a/1/m";

/// Keeps what is appended, once it is let through.
#[derive(Debug)]
struct GatedStream {
    gate: Semaphore,
    fails: AtomicBool,
    records: Mutex<Vec<Bytes>>,
}

impl Default for GatedStream {
    fn default() -> Self {
        Self {
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            fails: AtomicBool::new(false),
            records: Mutex::default(),
        }
    }
}

#[async_trait]
impl ChunkStream for GatedStream {
    fn max_record_bytes(&self) -> usize {
        1 << 20
    }
    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        let passed = self
            .gate
            .acquire()
            .await
            .map_err(|_| TransportError::Stale)?;
        passed.forget();
        if self.fails.load(Ordering::Relaxed) {
            return Err(TransportError::Invalid("refused".into()));
        }
        let mut kept = self.records.lock();
        let positions = (kept.len() as u64..)
            .zip(&records)
            .map(|(number, record)| Position {
                shard: "0".into(),
                sequence: number.into(),
                bytes: u32::try_from(record.data.len()).expect("small"),
            });
        let positions = positions.collect();
        kept.extend(records.into_iter().map(|record| record.data));
        Ok(positions)
    }
    async fn fetch(&self, _: &[Position]) -> TransportResult<Vec<Bytes>> {
        Err(TransportError::Stale)
    }
    fn counts(&self) -> StreamCounts {
        StreamCounts::default()
    }
}

/// A bundler of 64 KiB with what it packs to.
struct BundlerFixture {
    bundler: Bundler,
    stream: Arc<GatedStream>,
    packer: BlockPacker,
}

fn options() -> hybrid::CodecOptions {
    hybrid::CodecOptions {
        effort: hybrid::Effort::Fast,
        block_size: 64 << 10,
        threads: 1,
    }
}

/// Rows that differ from file to file.
fn rows(number: usize, bytes: usize) -> Vec<u8> {
    let mut text = b"id,place,amount\n".to_vec();
    let mut row = number * 1000;
    while text.len() < bytes {
        row += 1;
        text.extend_from_slice(format!("{row},north,{}\n", row * 7 % 100).as_bytes());
    }
    text.truncate(bytes);
    text
}

impl BundlerFixture {
    fn new() -> Self {
        let stream = Arc::new(GatedStream::default());
        Self {
            bundler: Bundler::new(64 << 10),
            packer: BlockPacker {
                options: options(),
                version: FormatVersion::default(),
                plans: Arc::default(),
                writer: RecordWriter {
                    stream: stream.clone(),
                    record_bytes: 400 << 10,
                },
                threads: ThreadBudget::new(2),
                meter: Meter::default(),
            },
            stream,
        }
    }

    async fn pack(&self, name: &str, content: &[u8]) -> Result<PackedSource, HandlerError> {
        let reading = self.bundler.begin_reading();
        // Others begin to be read meanwhile.
        tokio::task::yield_now().await;
        let bytes = content.len() as u64;
        let memory = self.bundler.reserve(bytes, &reading).await?;
        let file = FileRef::with_content(name, content);
        let described = DescribedFile {
            version: FileVersion::new("files", 1, 1.into()),
            observed: None,
            announced_millis: 0,
            file,
        };
        let member = Member::new(described, ATTEMPT, content.to_vec(), memory, None);
        let packing = self.bundler.pack(member, self.packer.clone());
        drop(reading);
        packing.await
    }

    async fn pack_all(&self, files: &[(String, Vec<u8>)]) -> Vec<PackedSource> {
        let packing = files.iter().map(|(name, content)| self.pack(name, content));
        let packed = join_all(packing).await;
        packed
            .into_iter()
            .map(|packed| packed.expect("packed"))
            .collect()
    }

    /// Unpacks the file from the stream as a decompressor does.
    fn restore(&self, name: &str, content: &[u8], packed: &PackedSource) -> Vec<u8> {
        let file = FileRef::with_content(name, content);
        let owner = match &packed.bundle {
            Some(place) => place.record_owner(),
            None => RecordOwner::new(&file.id(), ATTEMPT),
        };
        let mut payloads = Vec::new();
        for (index, position) in (0..).zip(packed.records.positions()) {
            let at: usize = position.sequence.as_str().parse().expect("a number");
            let record = self.stream.records.lock()[at].clone();
            payloads.extend_from_slice(&owner.open(index, &record).expect("its own"));
        }
        let mut raw = Vec::new();
        let never = AtomicBool::new(false);
        hybrid::unpack(
            &payloads[..],
            &mut raw,
            &hybrid::Limits::default(),
            1,
            &never,
        )
        .expect("whole");
        match &packed.bundle {
            Some(place) => {
                assert_eq!(raw.len() as u64, place.bytes);
                place.parts(&raw, file.bytes).expect("inside").concat()
            }
            None => raw,
        }
    }

    fn check(&self, files: &[(String, Vec<u8>)], packed: &[PackedSource]) {
        for ((name, content), packed) in files.iter().zip(packed) {
            assert!(self.restore(name, content, packed) == *content, "{name}");
        }
    }

    /// Waits until a bundle is being appended.
    async fn until_appending(&self) {
        while self.stream.gate.available_permits() > 0 || self.bundler.turn.available_permits() > 0
        {
            tokio::task::yield_now().await;
        }
    }
}

fn files(count: usize, bytes: usize) -> Vec<(String, Vec<u8>)> {
    let file = |number| (format!("{number:03}.csv"), rows(number, bytes));
    (0..count).map(file).collect()
}

fn ids(packed: &[PackedSource]) -> BTreeSet<String> {
    let id = |packed: &PackedSource| Some(packed.bundle.as_ref()?.id.as_str().to_owned());
    packed.iter().filter_map(id).collect()
}

#[tokio::test]
async fn a_lone_file_is_packed_as_without_a_bundler() {
    let fixture = BundlerFixture::new();
    let content = rows(1, 5000);
    let packed = fixture.pack("a.csv", &content).await.expect("packed");
    assert_eq!(packed.bundle, None);
    assert_eq!(fixture.restore("a.csv", &content, &packed), content);
    let mut alone = Vec::new();
    let sink = |frame: &[u8]| {
        alone.extend_from_slice(frame);
        Ok(())
    };
    let summary = hybrid::pack(&content[..], sink, &options(), &AtomicBool::new(false));
    let summary = summary.expect("packed");
    assert_eq!(packed.packed_bytes, summary.packed_bytes);
    let record = fixture.stream.records.lock()[0].clone();
    let owner = RecordOwner::new(&FileRef::with_content("a.csv", &content).id(), ATTEMPT);
    assert_eq!(owner.open(0, &record).expect("its own"), alone);
}

#[tokio::test]
async fn files_that_are_read_at_the_same_time_share_a_block() {
    let fixture = BundlerFixture::new();
    let files = files(10, 1200);
    let packed = fixture.pack_all(&files).await;
    assert_eq!(ids(&packed).len(), 1);
    assert_eq!(fixture.stream.records.lock().len(), 1);
    fixture.check(&files, &packed);
    let places: Vec<&BundlePlace> = packed.iter().filter_map(|it| it.bundle.as_ref()).collect();
    assert!(
        places.iter().all(|it| it.files == 10 && it.prefix == 16),
        "{places:?}"
    );
    let counts = fixture.packer.meter.counts();
    assert_eq!((counts.bundles_packed, counts.bundled_files), (1, 10));
}

#[tokio::test]
async fn the_shares_of_files_add_up_to_the_bundle() {
    let fixture = BundlerFixture::new();
    let mut files = files(7, 1000);
    for (number, (_, content)) in files.iter_mut().enumerate() {
        content.truncate(40 + number * 150);
    }
    let packed = fixture.pack_all(&files).await;
    let record = FoundRecord::read(&fixture.stream.records.lock()[0]).expect("a record");
    let sum: u64 = packed.iter().map(|packed| packed.packed_bytes).sum();
    assert_eq!(sum, record.payload.len() as u64);
    let described = record.head.and_then(|head| head.description);
    let described = described.and_then(|bytes| DescribedContent::from_bytes(&bytes));
    let Some(DescribedContent::Bundle(described)) = described else {
        panic!("{described:?}");
    };
    // The record says of each file what its manifest says.
    for ((name, content), packed) in files.iter().zip(&packed) {
        let same = described
            .iter()
            .find(|(it, _)| it.file == FileRef::with_content(name, content));
        let place = same.map(|(_, place)| place);
        assert_eq!(place, packed.bundle.as_ref(), "{name}");
    }
    assert!(packed[1].packed_bytes < packed[6].packed_bytes);
    let stages: u64 = packed.iter().map(|packed| packed.stages[0].bytes_out).sum();
    assert_eq!(stages, sum);
}

#[tokio::test]
async fn files_that_come_while_a_bundle_is_appended_become_the_next() {
    let fixture = BundlerFixture::new();
    let files = files(9, 1500);
    fixture.stream.gate.forget_permits(Semaphore::MAX_PERMITS);
    let later = async {
        fixture.until_appending().await;
        let packing = fixture.pack_all(&files[1..]);
        let opening = async {
            // All eight have joined by then.
            while fixture.bundler.intake.borrow().next < 9
                || !fixture.bundler.intake.borrow().reading.is_empty()
            {
                tokio::task::yield_now().await;
            }
            fixture.stream.gate.add_permits(2);
        };
        tokio::join!(packing, opening).0
    };
    let (first, later) = tokio::join!(fixture.pack(&files[0].0, &files[0].1), later);
    assert_eq!(first.expect("packed").bundle, None);
    assert_eq!(ids(&later).len(), 1);
    assert_eq!(later[0].bundle.as_ref().expect("a bundle").files, 8);
    fixture.check(&files[1..], &later);
}

#[tokio::test(start_paused = true)]
async fn a_file_waits_for_those_that_are_received_meanwhile_and_not_for_long() {
    let fixture = BundlerFixture::new();
    let files = files(6, 1500);
    fixture.bundler.expect_more(true);
    let receiving = async {
        // Two receives take a while.
        for received in [2..4, 4..6] {
            tokio::time::sleep(Duration::from_millis(60)).await;
            fixture.bundler.expect_more(received.end < 6);
            let packed = fixture.pack_all(&files[received]);
            assert!(futures::poll!(std::pin::pin!(packed)).is_pending());
        }
    };
    let (_, first) = tokio::join!(receiving, fixture.pack(&files[0].0, &files[0].1));
    first.expect("packed");
    // None comes although more are expected.
    fixture.bundler.expect_more(true);
    let began = tokio::time::Instant::now();
    let alone = fixture.pack(&files[0].0, &files[0].1).await;
    assert_eq!(alone.expect("packed").bundle, None);
    assert!(began.elapsed() <= 2 * LONGEST_PAUSE, "of the paused clock");
    fixture.bundler.expect_more(false);
    let began = tokio::time::Instant::now();
    fixture
        .pack(&files[0].0, &files[0].1)
        .await
        .expect("packed");
    assert!(began.elapsed() < LONGEST_PAUSE / 2, "of the paused clock");
}

#[tokio::test]
async fn a_file_whose_work_is_stopped_harms_no_other() {
    let fixture = BundlerFixture::new();
    let files = files(4, 1500);
    fixture.stream.gate.forget_permits(Semaphore::MAX_PERMITS);
    {
        let mut stopped: Vec<_> = files
            .iter()
            .map(|(name, content)| Box::pin(fixture.pack(name, content)))
            .collect();
        let mut all = Box::pin(async {
            loop {
                for work in &mut stopped {
                    assert!(futures::poll!(work).is_pending());
                }
                if fixture.bundler.turn.available_permits() == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        all.as_mut().await;
        drop(all);
        // The first file began the bundle.
        drop(stopped.remove(0));
        fixture.stream.gate.add_permits(1);
        let packed: Vec<PackedSource> = join_all(stopped)
            .await
            .into_iter()
            .map(|packed| packed.expect("packed"))
            .collect();
        assert_eq!(packed[0].bundle.as_ref().expect("a bundle").files, 4);
        fixture.check(&files[1..], &packed);
    }
    // Where all of them are stopped, nothing is left of their bundle.
    {
        let mut stopped = Box::pin(fixture.pack_all(&files));
        while fixture.bundler.turn.available_permits() > 0 {
            assert!(futures::poll!(&mut stopped).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(fixture.bundler.turn.available_permits(), 1);
    fixture.stream.gate.add_permits(1);
    let packed = fixture.pack(&files[0].0, &files[0].1).await;
    assert_eq!(packed.expect("packed").bundle, None);
}

#[tokio::test]
async fn an_error_of_the_stream_is_that_of_each_file() {
    let fixture = BundlerFixture::new();
    fixture.stream.fails.store(true, Ordering::Relaxed);
    let files = files(3, 500);
    let packing = files
        .iter()
        .map(|(name, content)| fixture.pack(name, content));
    for packed in join_all(packing).await {
        let error = packed.expect_err("refused");
        assert!(
            matches!(&error, HandlerError::Permanent(it) if it.reason == DeadLetterReason::Refused),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_bundle_has_no_more_files_and_bytes_than_it_may() {
    let fixture = BundlerFixture::new();
    let many = files(100, 60);
    let packed = fixture.pack_all(&many).await;
    fixture.check(&many, &packed);
    let sizes = packed
        .iter()
        .filter_map(|it| it.bundle.as_ref())
        .map(|it| it.files);
    assert!(ids(&packed).len() >= 2 && sizes.max() == Some(64));
    let large = files(60, 4000);
    let packed = fixture.pack_all(&large).await;
    fixture.check(&large, &packed);
    assert!(ids(&packed).len() >= 4);
    let bytes = packed
        .iter()
        .filter_map(|it| it.bundle.as_ref())
        .map(|it| it.bytes);
    assert!(bytes.max() <= Some(64 << 10));
    assert_eq!(fixture.bundler.memory.available_permits(), 64 << 10);
}

#[tokio::test]
async fn files_of_another_structure_are_in_another_bundle() {
    let fixture = BundlerFixture::new();
    let mut all = files(4, 1500);
    for number in 0..4 {
        let name = format!("{number}.json");
        all.push((
            name,
            format!("{{\"id\": {number}}}\n").repeat(50).into_bytes(),
        ));
    }
    let packed = fixture.pack_all(&all).await;
    fixture.check(&all, &packed);
    assert_eq!((ids(&packed[..4]).len(), ids(&packed[4..]).len()), (1, 1));
    assert_eq!(ids(&packed).len(), 2);
}
