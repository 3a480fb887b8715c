use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use parking_lot::Mutex;
use streampress_transport::local::files::LocalFiles;
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::{FileVersion, Record, StreamCounts, StreamScan, TransportResult};

use super::*;
use crate::journal::{NoJournal, SegmentJournal, SourceJournal, SourceReceipt, SourceRecord};
use crate::message::{FileRef, Message, Records};
use crate::roles::record_writer::PackedPart;
use crate::telemetry::metrics::Meter;

const RECORD_BYTES: usize = 1 << 10;

/// Keeps what is appended, by number.
#[derive(Debug, Default)]
struct KeptStream(Mutex<BTreeMap<u64, Bytes>>);

fn position(number: u64, data: &Bytes) -> Position {
    Position {
        shard: "0".into(),
        sequence: number.into(),
        bytes: u32::try_from(data.len()).expect("small"),
    }
}

#[async_trait]
impl ChunkStream for KeptStream {
    fn max_record_bytes(&self) -> usize {
        1 << 20
    }
    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        let mut kept = self.0.lock();
        let append = |record: Record| {
            let number = kept.len() as u64;
            let at = position(number, &record.data);
            kept.insert(number, record.data);
            at
        };
        Ok(records.into_iter().map(append).collect())
    }
    async fn fetch(&self, _: &[Position]) -> TransportResult<Vec<Bytes>> {
        Ok(Vec::new())
    }
    fn scan(&self) -> StreamScan {
        let kept = self.0.lock();
        let stored = kept.iter().map(|(number, data)| ScannedRecord {
            position: position(*number, data),
            data: Some(data.clone()),
        });
        stream::iter([Ok(stored.collect())]).boxed()
    }
    fn counts(&self) -> StreamCounts {
        StreamCounts::default()
    }
}

struct RecoveryFixture {
    root: tempfile::TempDir,
    local: Local,
    stream: Arc<KeptStream>,
    journal: Arc<dyn FileJournal>,
}

impl RecoveryFixture {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let local = Local::open(&root.path().join("data"), LocalOptions::default());
        Self {
            local: local.expect("opens"),
            stream: Arc::default(),
            journal: Arc::new(NoJournal),
            root,
        }
    }

    fn files(&self, name: &str) -> Arc<dyn Files> {
        let folder = self.root.path().join(name);
        let location = format!("file:///data/{name}");
        Arc::new(LocalFiles::open(&location, &folder).expect("opens"))
    }

    /// Packs "content" of so many bytes as the version of this number; answers the numbers of its records.
    async fn pack(&self, content: &DescribedContent, bytes: usize) -> Vec<u64> {
        let writer = RecordWriter {
            stream: self.stream.clone(),
            record_bytes: RECORD_BYTES,
        };
        let owner = content.record_owner().expect("has files");
        let first = (None, content);
        let packed = vec![7; bytes];
        let meter = Meter::default();
        let appended = writer.append_all(packed, &owner, first, &meter);
        let positions = appended.await.expect("appended");
        let number = |at: &Position| at.sequence.as_str().parse().expect("a number");
        positions.iter().map(number).collect()
    }

    /// Makes a journal at the source that has the files as restored, each with its version where it is known.
    async fn note_restored(&mut self, files: &[(FileRef, Option<FileVersion>)]) {
        let journal = SegmentJournal::new(self.files("in"), true);
        for (file, version) in files {
            let record = SourceRecord {
                location: file.location.clone(),
                name: file.name.as_str().into(),
                announcement: "1".into(),
                file_id: file.id().as_str().into(),
                hash: file.hash.as_str().into(),
                bytes: file.bytes,
                modified_nanos: file.modified_nanos,
                fingerprint: String::new(),
                is_settled: false,
                wants_reply: false,
                state: SourceState::Sent,
                version: version.clone(),
                awaits_receipt: true,
                is_gone: false,
            };
            let receipt = SourceReceipt {
                location: record.location.clone(),
                name: record.name.clone(),
                file_id: record.file_id.clone(),
                announcement: record.announcement.clone(),
                state: SourceState::Restored,
                fingerprint: None,
            };
            journal.record_announcements(&[record]).await.expect("kept");
            journal.record_receipt(&receipt).await.expect("kept");
        }
        journal.flush_sources().await.expect("written");
        self.journal = Arc::new(SegmentJournal::new(self.files("in"), false));
    }

    fn lose(&self, record: u64) {
        let lost = self
            .stream
            .0
            .lock()
            .insert(record, Bytes::from_static(b"gone"));
        lost.expect("it was there");
    }

    async fn recover(&self) -> (RecoveryReport, Vec<Manifest>) {
        self.recover_or_list(false).await
    }

    async fn recover_or_list(&self, list_only: bool) -> (RecoveryReport, Vec<Manifest>) {
        let recovery = Recovery {
            stream: self.stream.clone(),
            chunks_queue: self.local.chunks_queue(),
            strict: false,
            journal: self.journal.clone(),
            record_bytes: RECORD_BYTES,
            destination: Some(self.files("out")),
            with_gone: false,
            list_only,
        };
        let report = recovery.run().await.expect("recovered");
        let chunks = self.local.chunks_queue();
        let mut manifests = Vec::new();
        loop {
            let received = chunks.receive(10, Duration::ZERO).await.expect("received");
            if received.is_empty() {
                return (report, manifests);
            }
            for delivery in received {
                match Message::parse(&delivery.body) {
                    Ok(Message::Manifest(manifest)) => manifests.push(manifest),
                    other => panic!("{other:?}"),
                }
                chunks.delete(&delivery.receipt).await.expect("deleted");
            }
        }
    }
}

fn described(name: &str, version: u64) -> DescribedFile {
    let content = format!("{name} of version {version}");
    DescribedFile {
        file: FileRef {
            modified_nanos: version,
            ..FileRef::with_content(name, content.as_bytes())
        },
        version: FileVersion::new("files", 5, version.into()),
        observed: None,
        announced_millis: version,
    }
}

fn alone(name: &str, version: u64) -> DescribedContent {
    DescribedContent::Alone {
        attempt: format!("compressor-0/a/1/{version}"),
        file: Box::new(described(name, version)),
    }
}

fn outcomes(report: &RecoveryReport) -> Vec<(&str, &RecoveryOutcome)> {
    let files = report.files.iter();
    files
        .map(|file| (file.name.as_str(), &file.outcome))
        .collect()
}

fn incomplete(report: &RecoveryReport) -> (&str, bool) {
    match &report.files[0].outcome {
        RecoveryOutcome::Incomplete {
            cause,
            sent_earlier,
        } => (cause, *sent_earlier),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_manifest_of_a_file_is_made_as_it_was() {
    for bytes in [1, 500, 5000] {
        let pipeline = RecoveryFixture::new();
        let records = pipeline.pack(&alone("a.txt", 7), bytes).await;
        let (report, manifests) = pipeline.recover().await;
        assert_eq!(outcomes(&report), [("a.txt", &RecoveryOutcome::Sent)]);
        assert!(!report.is_partial());
        let [manifest] = &manifests[..] else {
            panic!("{manifests:?}");
        };
        let expected = described("a.txt", 7);
        assert_eq!(manifest.file, expected.file);
        assert_eq!(manifest.file_version, Some(expected.version));
        assert_eq!(manifest.attempt, "compressor-0/a/1/7");
        assert_eq!(manifest.packed_bytes, bytes as u64);
        let Records::Inline(positions) = &manifest.records else {
            panic!("{manifest:?}");
        };
        let numbers = positions
            .iter()
            .map(|at| at.sequence.as_str().parse::<u64>());
        assert_eq!(numbers.collect::<Result<Vec<_>, _>>(), Ok(records));
    }
}

#[tokio::test]
async fn the_records_of_a_source_that_changed_while_it_was_packed_are_no_file() {
    let pipeline = RecoveryFixture::new();
    pipeline.pack(&alone("a.txt", 1), 500).await;
    let writer = RecordWriter {
        stream: pipeline.stream.clone(),
        record_bytes: 1 << 20,
    };
    let content = alone("a.txt", 2);
    let owner = content.record_owner().expect("has files");
    let (parts, received) = tokio::sync::mpsc::channel(1);
    let frame = PackedPart::Frame(Bytes::from(vec![7; 6 << 20]));
    parts.send(frame).await.expect("received");
    drop(parts);
    let meter = Meter::default();
    let appended = writer.append(received, &owner, (None, &content), &meter);
    assert_eq!(appended.await.expect("appended"), None);
    assert!(pipeline.stream.0.lock().len() > 5, "records of both");
    let (report, manifests) = pipeline.recover().await;
    let (cause, sent_earlier) = incomplete(&report);
    assert!(cause.contains("packing it did not end"), "{cause}");
    assert!(sent_earlier);
    assert_eq!(manifests[0].file, described("a.txt", 1).file);
}

#[tokio::test]
async fn each_file_of_a_bundle_gets_its_manifest_with_its_place_and_version() {
    let pipeline = RecoveryFixture::new();
    let place = |offset| BundlePlace {
        id: Digest::of(b"bundle"),
        files: 3,
        bytes: 1000,
        prefix: 0,
        offset,
    };
    let names = ["a.txt", "b.txt", "c.txt"];
    let files = (1u64..)
        .zip(names)
        .map(|(number, name)| (described(name, number), place(100 * number)));
    let content = DescribedContent::Bundle(files.collect());
    pipeline.pack(&content, 3000).await;
    let (listed, manifests) = pipeline.recover_or_list(true).await;
    assert_eq!(manifests, []);
    let (report, manifests) = pipeline.recover().await;
    assert_eq!(report, listed);
    assert!(!report.is_partial());
    let versions = report
        .files
        .iter()
        .map(|it| (it.version.clone(), it.others));
    let expected = (1u64..)
        .zip(names)
        .map(|(number, name)| (described(name, number).version, 2));
    assert!(versions.eq(expected), "{report:?}");
    for (number, name) in (1u64..).zip(names) {
        let found = manifests.iter().find(|it| it.file.name.as_str() == name);
        let manifest = found.expect("sent");
        assert_eq!(manifest.file_version, Some(described(name, number).version));
        assert_eq!(manifest.bundle, Some(place(100 * number)));
    }
    let packed: u64 = manifests.iter().map(|it| it.packed_bytes).sum();
    assert_eq!(packed, 3000);
}

#[tokio::test]
async fn of_several_versions_only_the_newest_is_sent() {
    let pipeline = RecoveryFixture::new();
    for version in [9, 10, 8] {
        pipeline.pack(&alone("a.txt", version), 10).await;
    }
    let (report, manifests) = pipeline.recover().await;
    assert_eq!(outcomes(&report), [("a.txt", &RecoveryOutcome::Sent)]);
    let versions: Vec<_> = manifests.iter().map(|it| it.file.modified_nanos).collect();
    assert_eq!(versions, [10]);
}

#[tokio::test]
async fn a_file_with_missing_records_is_named_and_the_version_before_it_is_sent() {
    let pipeline = RecoveryFixture::new();
    pipeline.pack(&alone("a.txt", 1), 10).await;
    let records = pipeline.pack(&alone("a.txt", 2), 5000).await;
    pipeline.lose(records[1]);
    let (report, manifests) = pipeline.recover().await;
    let (cause, sent_earlier) = incomplete(&report);
    assert!(cause.contains("number 1, counted from 0"), "{cause}");
    assert!(sent_earlier && report.is_partial());
    assert_eq!(manifests.len(), 1);
    assert_eq!(manifests[0].file.modified_nanos, 1);
}

#[tokio::test]
async fn no_version_before_the_restored_one_is_sent_although_its_records_are_gone() {
    let pipeline = RecoveryFixture::new();
    pipeline.pack(&alone("a.txt", 1), 10).await;
    let records = pipeline.pack(&alone("a.txt", 2), 5000).await;
    pipeline.lose(records[1]);
    pipeline.files("out");
    let restored = pipeline.root.path().join("out/a.txt");
    std::fs::write(restored, "a.txt of version 2").expect("written");
    let (report, manifests) = pipeline.recover().await;
    assert_eq!(outcomes(&report), [("a.txt", &RecoveryOutcome::Restored)]);
    assert_eq!(manifests, []);
}

#[tokio::test]
async fn a_file_that_the_journal_of_the_source_has_as_restored_is_left_out() {
    let mut pipeline = RecoveryFixture::new();
    pipeline.pack(&alone("a.txt", 1), 10).await;
    pipeline.pack(&alone("b.txt", 2), 10).await;
    pipeline
        .note_restored(&[
            (described("a.txt", 1).file, None),
            (described("b.txt", 3).file, None),
        ])
        .await;
    let (report, _) = pipeline.recover().await;
    // Of the other name, other content was restored.
    let expected = [
        ("a.txt", &RecoveryOutcome::RestoredAndGone),
        ("b.txt", &RecoveryOutcome::Sent),
    ];
    assert_eq!(outcomes(&report), expected);
}

#[tokio::test]
async fn content_that_was_restored_before_other_content_is_sent_where_the_journal_was_put_back_to_then()
 {
    for (known, expected) in [
        (1, RecoveryOutcome::Sent),
        (3, RecoveryOutcome::RestoredAndGone),
    ] {
        let mut pipeline = RecoveryFixture::new();
        let first = described("a.txt", 1);
        let third = DescribedFile {
            version: described("a.txt", 3).version,
            ..first.clone()
        };
        let attempt = "compressor-0/a/1/3".to_owned();
        let file = Box::new(third);
        pipeline.pack(&alone("a.txt", 2), 10).await;
        pipeline
            .pack(&DescribedContent::Alone { attempt, file }, 10)
            .await;
        let version = described("a.txt", known).version;
        pipeline.note_restored(&[(first.file, Some(version))]).await;
        let (report, _) = pipeline.recover().await;
        assert_eq!(outcomes(&report), [("a.txt", &expected)]);
    }
}

#[tokio::test]
async fn what_was_packed_to_no_end_is_incomplete_and_what_has_no_first_record_is_counted() {
    let pipeline = RecoveryFixture::new();
    let records = pipeline.pack(&alone("a.txt", 1), 5000).await;
    pipeline.lose(*records.last().expect("several"));
    let headless = pipeline.pack(&alone("b.txt", 2), 5000).await;
    pipeline.lose(headless[0]);
    let (report, manifests) = pipeline.recover().await;
    let (cause, sent_earlier) = incomplete(&report);
    assert!(cause.contains("not the last"), "{cause}");
    assert!(!sent_earlier);
    assert_eq!((report.files.len(), report.without_first), (1, 1));
    assert_eq!(manifests, []);
}

#[tokio::test]
async fn records_of_two_packings_of_one_attempt_are_never_mixed() {
    let pipeline = RecoveryFixture::new();
    let first = pipeline.pack(&alone("a.txt", 1), 5000).await;
    let second = pipeline.pack(&alone("a.txt", 1), 5000).await;
    pipeline.lose(first[2]);
    pipeline.lose(second[1]);
    let (report, manifests) = pipeline.recover().await;
    incomplete(&report);
    assert_eq!(manifests, []);
    let third = pipeline.pack(&alone("a.txt", 1), 5000).await;
    let (report, manifests) = pipeline.recover().await;
    assert_eq!(outcomes(&report), [("a.txt", &RecoveryOutcome::Sent)]);
    let first = manifests[0].records.positions()[0].sequence.as_str();
    assert_eq!(first, third[0].to_string());
}

#[tokio::test]
async fn records_of_an_earlier_release_and_of_others_are_counted_and_left() {
    let pipeline = RecoveryFixture::new();
    let owner = RecordOwner::new(&Digest::of(b"file"), "attempt");
    let records = [
        owner.seal(0, b"a"),
        owner.seal(1, b"b"),
        Bytes::from_static(b"other"),
    ];
    let records = records.map(|data| Record {
        key: String::new(),
        data,
    });
    pipeline
        .stream
        .append(records.to_vec())
        .await
        .expect("kept");
    let (report, manifests) = pipeline.recover().await;
    assert_eq!((report.undescribed, report.files.len()), (1, 0));
    assert!(report.is_partial());
    assert_eq!(manifests, []);
}
