//! Small files that share a block, from the source to the destination.

mod support;

#[path = "support/fixture.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use streampress::consume::HandlerError;
use streampress::message::record::FoundRecord;
use streampress::message::{DESCRIBED_VERSION, DeadLetterReason, Manifest, Message, Verdict};
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::bundler::Bundler;
use streampress::roles::compress::Compressor;
use streampress::roles::decompress::Decompressor;
use streampress::roles::receipts::ReceiptSender;
use streampress_codec::FormatVersion;
use streampress_transport::SlotLock;
use streampress_transport::contract_tests::{StreamTap, TappedStream, eventually};
use streampress_transport::in_process_lock::InProcessLock;
use tokio_util::sync::CancellationToken;

use fixture::{Fixture, RunningConsumer, complete_next};
use support::WorkFolder;

/// A compressor whose small files share blocks.
fn compressor(fixture: &Fixture) -> Compressor {
    Compressor {
        bundler: Some(Bundler::new(1 << 20)),
        ..fixture.compressor(fixture.local.stream())
    }
}

/// Rows, documents and lines, each file with its own values.
fn files(count: usize) -> BTreeMap<String, String> {
    let file = |number: usize| {
        let rows = 20 + number * 7 % 200;
        let values = (0..rows).map(|row| (number * 1000 + row, row * 37 % 101));
        match number % 3 {
            0 => {
                let row = |(id, amount)| format!("{id},north,{amount}\n");
                let rows: String = values.map(row).collect();
                (format!("{number}.csv"), format!("id,place,amount\n{rows}"))
            }
            1 => {
                let row = |(id, amount)| format!("{{\"id\": {id}, \"amount\": {amount}}}");
                let rows: Vec<String> = values.map(row).collect();
                (format!("{number}.json"), format!("[{}]", rows.join(", ")))
            }
            _ => {
                let row = |(id, amount)| format!("2024-05-01 INFO job {id} took {amount} ms\n");
                (format!("{number}.txt"), values.map(row).collect())
            }
        }
    };
    (0..count).map(file).collect()
}

async fn announce(fixture: &Fixture, files: &BTreeMap<String, String>) {
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    for (name, content) in files {
        let entry = fixture.write(name, content.as_bytes());
        announcer.announce(&entry).await.expect("announced");
    }
}

/// Packs everything that is announced; answers how many files shared a block.
async fn pack_all(fixture: &Fixture, files: u64, format_version: FormatVersion) -> u64 {
    let packing = RunningConsumer::start(
        fixture.local.files_queue(),
        Arc::new(InProcessLock::new("compressor", 1)),
        Arc::new(Compressor {
            format_version,
            ..compressor(fixture)
        }),
        2,
        false,
    );
    packing.conclude(files).await;
    let bundled = packing.meter.counts().bundled_files;
    packing.stop().await;
    bundled
}

fn restored(fixture: &Fixture) -> BTreeMap<String, String> {
    let out = fixture.files("out");
    let listed = out.list().expect("listed").files;
    let content = |name| {
        let mut content = String::new();
        let mut reader = out.read(name).expect("opens");
        std::io::Read::read_to_string(&mut reader, &mut content).expect("text");
        content
    };
    let files = listed
        .iter()
        .map(|it| (it.name.to_string(), content(&it.name)));
    files.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_small_files_share_blocks_and_are_restored_byte_for_byte() {
    for format_version in [FormatVersion::V1, FormatVersion::V2] {
        hundreds_of_small_files_share_blocks(format_version).await;
    }
}

async fn hundreds_of_small_files_share_blocks(format_version: FormatVersion) {
    let fixture = Fixture::open();
    let files = files(400);
    announce(&fixture, &files).await;
    let bundled = pack_all(&fixture, 400, format_version).await;
    assert!(bundled >= 300, "{bundled}");
    let destination = fixture.destination("out");
    let lock = Arc::new(InProcessLock::new("decompressor", 2));
    let restoring: Vec<RunningConsumer> = (0..2)
        .map(|_| {
            let decompressor = fixture.decompressor(destination.clone(), fixture.local.stream());
            RunningConsumer::start(
                fixture.local.chunks_queue(),
                lock.clone(),
                Arc::new(decompressor),
                2,
                false,
            )
        })
        .collect();
    eventually("both files are restored", async || {
        restoring
            .iter()
            .map(RunningConsumer::concluded)
            .sum::<u64>()
            >= 400
    })
    .await;
    let unpacked: u64 = restoring
        .iter()
        .map(|it| it.meter.counts().bundles_unpacked)
        .sum();
    assert!(
        unpacked > 0 && unpacked < bundled / 2,
        "{unpacked} for {bundled} files"
    );
    for consumer in restoring {
        consumer.stop().await;
    }
    assert!(restored(&fixture) == files);
}

/// The manifests that wait, and the packed bytes of all records in the stream.
async fn manifests(fixture: &Fixture) -> Vec<Manifest> {
    let chunks = fixture.local.chunks_queue();
    let mut all = Vec::new();
    loop {
        let deliveries = chunks.receive(10, Duration::ZERO).await.expect("received");
        if deliveries.is_empty() {
            return all;
        }
        for delivery in deliveries {
            match Message::parse(&delivery.body) {
                Ok(Message::Manifest(manifest)) => all.push(manifest),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packed_bytes_of_files_add_up_to_what_is_in_the_stream() {
    for format_version in [FormatVersion::V1, FormatVersion::V2] {
        packed_bytes_add_up(format_version).await;
    }
}

async fn packed_bytes_add_up(format_version: FormatVersion) {
    let fixture = Fixture::open();
    announce(&fixture, &files(60)).await;
    pack_all(&fixture, 60, format_version).await;
    let manifests = manifests(&fixture).await;
    assert_eq!(manifests.len(), 60);
    let stream = fixture.local.stream();
    // By the first record: what the files say, and what the records hold.
    let mut packed: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for manifest in &manifests {
        assert_eq!(manifest.version, DESCRIBED_VERSION);
        let records = manifest.records.positions();
        let fetched = stream.fetch(records).await.expect("fetched");
        let payload = |record: &Bytes| FoundRecord::read(record).expect("a record").payload;
        let held: u64 = fetched
            .iter()
            .map(|record| payload(record).len() as u64)
            .sum();
        let sums = packed.entry(records[0].to_string()).or_default();
        *sums = (sums.0 + manifest.packed_bytes, held);
    }
    for (said, held) in packed.values() {
        assert_eq!(said, held);
    }
    assert!(packed.len() < 30, "{}", packed.len());
}

/// The folder of a bundle that was written once: streams and queues hold such ones.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/bundle");

/// Writes the golden bundle where it is missing: `UPDATE_GOLDEN=1` in an empty folder.
async fn write_golden() {
    let fixture = Fixture::open();
    let header = "id,place,amount\n";
    let files = [
        (
            "one.csv",
            format!("{header}1,north,17\n2,south,4\n3,\"west, far\",0"),
        ),
        ("two.csv", format!("{header}4,north,9\n5,north,12\n")),
    ];
    let files = files.map(|(name, content)| (name.to_owned(), content));
    announce(&fixture, &files.clone().into()).await;
    pack_two(&fixture).await;
    std::fs::create_dir_all(GOLDEN).expect("a folder");
    for manifest in manifests(&fixture).await {
        let stream = fixture.local.stream();
        let fetched = stream.fetch(manifest.records.positions()).await;
        let record = fetched.expect("fetched").remove(0);
        let place = manifest.bundle.as_ref().expect("a bundle");
        let packed = place.record_owner().open(0, &record).expect("its own");
        std::fs::write(format!("{GOLDEN}/bundle.spk"), packed).expect("written");
        let name = format!("{GOLDEN}/{}.manifest.json", manifest.file.name);
        std::fs::write(name, manifest.to_json() + "\n").expect("written");
    }
    for (name, content) in files {
        std::fs::write(format!("{GOLDEN}/{name}"), content).expect("written");
    }
}

#[tokio::test]
async fn a_bundle_of_an_earlier_release_is_readable() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !std::path::Path::new(GOLDEN).exists() {
        write_golden().await;
    }
    let read = |name: &str| std::fs::read(format!("{GOLDEN}/{name}")).expect("a golden file");
    let mut bundle = Vec::new();
    let never = std::sync::atomic::AtomicBool::new(false);
    let limits = streampress_codec::hybrid::Limits::default();
    let packed = read("bundle.spk");
    streampress_codec::hybrid::unpack(&packed[..], &mut bundle, &limits, 1, &never).expect("whole");
    for name in ["one.csv", "two.csv"] {
        let manifest = String::from_utf8(read(&format!("{name}.manifest.json"))).expect("text");
        let Ok(Message::Manifest(manifest)) = Message::parse(&manifest) else {
            panic!("not a manifest: {manifest}");
        };
        let place = manifest.bundle.as_ref().expect("a bundle");
        assert_eq!(place.bytes, bundle.len() as u64);
        let parts = place.parts(&bundle, manifest.file.bytes).expect("inside");
        assert_eq!(parts.concat(), read(name));
        assert_eq!(
            manifest.file.hash,
            streampress::message::Digest::of(&read(name))
        );
    }
}

/// So many fetches bring records without their last byte.
#[derive(Debug)]
struct DamagedFetches(AtomicUsize);

impl StreamTap for DamagedFetches {
    fn fetched(&self, records: &mut [Bytes]) {
        let left = self.0.load(Ordering::Relaxed);
        if left > 0 {
            self.0.store(left - 1, Ordering::Relaxed);
            for record in records {
                record.truncate(record.len() - 1);
            }
        }
    }
}

/// Packs two announced files at the same time.
async fn pack_two(fixture: &Fixture) {
    let (queue, compressor) = (fixture.local.files_queue(), compressor(fixture));
    let deliveries = queue.receive(2, Duration::ZERO).await.expect("received");
    let slot = InProcessLock::new("compressor", 1).try_acquire().await;
    let (slot, stop) = (
        slot.expect("asked").expect("free"),
        CancellationToken::new(),
    );
    let handle = |delivery| fixture::handle(&compressor, delivery, &slot, &stop);
    let (one, other) = tokio::join!(handle(&deliveries[0]), handle(&deliveries[1]));
    one.expect("packed");
    other.expect("packed");
    for delivery in &deliveries {
        queue.delete(&delivery.receipt).await.expect("deleted");
    }
}

/// Two files in one bundle, and the decompressor that is to restore them from a stream of which so many fetches fail.
async fn bundle_of_two(damaged_fetches: usize) -> (Fixture, Decompressor) {
    let fixture = Fixture::open();
    let two = [("a.txt", "one line\n"), ("b.txt", "two lines\nof text\n")];
    let files = two.map(|(name, content)| (name.to_owned(), content.to_owned()));
    announce(&fixture, &files.into()).await;
    pack_two(&fixture).await;
    let damaged = DamagedFetches(AtomicUsize::new(damaged_fetches));
    let stream = TappedStream::new(fixture.local.stream(), damaged);
    let mut decompressor = fixture.decompressor(fixture.destination("out"), stream);
    decompressor.receipts = Some(ReceiptSender::new(fixture.local.receipts_queue(), false));
    (fixture, decompressor)
}

/// Handles the next manifest until that neither fails nor has to be received again; answers how often it was received.
async fn handle_until_done(fixture: &Fixture, decompressor: &Decompressor) -> u32 {
    let chunks = fixture.local.chunks_queue();
    let mut deliveries = chunks.receive(1, Duration::ZERO).await.expect("received");
    let delivery = deliveries.pop().expect("a manifest");
    let slot = InProcessLock::new("decompressor", 1).try_acquire().await;
    let slot = slot.expect("asked").expect("free");
    for receives in 1.. {
        let stop = CancellationToken::new();
        match fixture::handle(decompressor, &delivery, &slot, &stop).await {
            Ok(_) => {
                chunks.delete(&delivery.receipt).await.expect("deleted");
                return receives;
            }
            Err(HandlerError::Transient(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    0
}

#[tokio::test]
async fn a_damaged_bundle_is_requested_again_once_for_each_of_its_files() {
    let (fixture, decompressor) = bundle_of_two(8).await;
    for _ in 0..2 {
        // Another receive might have found it whole.
        assert_eq!(handle_until_done(&fixture, &decompressor).await, 4);
    }
    let receipts = fixture.local.receipts_queue();
    let deliveries = receipts
        .receive(10, Duration::ZERO)
        .await
        .expect("received");
    let names = deliveries
        .iter()
        .map(|delivery| match Message::parse(&delivery.body) {
            Ok(Message::Receipt(receipt)) => match receipt.verdict {
                Verdict::SendAgain {
                    manifest, reason, ..
                } => {
                    assert_eq!(
                        (receipt.version, reason),
                        (DESCRIBED_VERSION, DeadLetterReason::RecordDamaged)
                    );
                    manifest.file.name.to_string()
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["a.txt", "b.txt"]);
    for delivery in &deliveries {
        receipts.release(&delivery.receipt).await.expect("released");
    }
    for _ in 0..2 {
        complete_next(&compressor(&fixture), &*receipts)
            .await
            .expect("announced again");
    }
    pack_two(&fixture).await;
    for _ in 0..2 {
        assert_eq!(handle_until_done(&fixture, &decompressor).await, 1);
    }
    assert_eq!(restored(&fixture).len(), 2);
}

#[tokio::test]
async fn a_bundle_that_is_damaged_for_a_moment_is_restored_by_another_receive() {
    let (fixture, decompressor) = bundle_of_two(1).await;
    assert_eq!(handle_until_done(&fixture, &decompressor).await, 2);
    assert_eq!(handle_until_done(&fixture, &decompressor).await, 1);
    assert_eq!(restored(&fixture).len(), 2);
}

#[tokio::test]
async fn a_stopped_decompressor_leaves_the_bundle_to_the_next() {
    let (fixture, decompressor) = bundle_of_two(0).await;
    let slot = InProcessLock::new("decompressor", 1).try_acquire().await;
    let (slot, stop) = (
        slot.expect("asked").expect("free"),
        CancellationToken::new(),
    );
    stop.cancel();
    let chunks = fixture.local.chunks_queue();
    let mut deliveries = chunks.receive(1, Duration::ZERO).await.expect("received");
    let delivery = deliveries.pop().expect("a manifest");
    let stopped = fixture::handle(&decompressor, &delivery, &slot, &stop).await;
    assert!(
        matches!(stopped, Err(HandlerError::Interrupted)),
        "{stopped:?}"
    );
    chunks.release(&delivery.receipt).await.expect("released");
    for _ in 0..2 {
        assert_eq!(handle_until_done(&fixture, &decompressor).await, 1);
    }
    assert_eq!(restored(&fixture).len(), 2);
}

#[test]
fn a_run_with_bundles_restores_every_file_in_fewer_bytes() {
    let files = files(240);
    let packed_bytes = |bundle: &str| {
        let folder = WorkFolder::with_spec(&format!("  codec: {{bundle: {bundle}}}"));
        for (name, content) in &files {
            folder.write(&format!("in/{name}"), content);
        }
        let summary = folder.run_summary(&["--input", "in"]);
        assert_eq!(summary["filesRestored"], 240, "{summary}");
        assert!(folder.files("data/out") == folder.files("in"));
        summary["bytesCompressed"].as_u64().expect("a number")
    };
    let (together, alone) = (packed_bytes("Auto"), packed_bytes("Off"));
    assert!(together < alone / 2, "{together} and {alone}");
}
