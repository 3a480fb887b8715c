//! Dead letters that cannot be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use streampress::journal::{FileJournal, FileStatus, SourceJournal, SqliteJournal};
use streampress::message::{Manifest, Message, Records, STRICT_GROUP, VERSION};
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::connect::CompressorConnections;
use streampress::roles::redrive::{
    RedriveAction, RedriveRequest, RedriveTask, RedrivenLetter, redrive,
};
use streampress_transport::contract_tests::{StreamTap, TappedStream};
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ChunkStream, DeadLetterReason, Delivery, Failure,
    FileName, FileVersion, Outgoing, Position, Queue, Sequence, TransportError, TransportResult,
};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, complete_next};

/// A stream that cannot be reached.
#[derive(Debug)]
struct OutOfReach;

#[async_trait]
impl StreamTap for OutOfReach {
    async fn before_fetch(&self, _positions: &[Position]) -> TransportResult<()> {
        Err(TransportError::unavailable("fetching", "out of reach"))
    }
}

fn connections(fixture: &Fixture, stream: Arc<dyn ChunkStream>) -> CompressorConnections {
    CompressorConnections {
        files_queue: fixture.local.files_queue(),
        chunks_queue: fixture.local.chunks_queue(),
        receipts_queue: None,
        stream,
    }
}

#[tokio::test]
async fn letters_whose_records_cannot_be_read_are_left_each_with_the_cause() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    let queue = fixture.local.chunks_queue();
    for name in ["a.txt", "b.txt"] {
        let entry = fixture.write(name, name.as_bytes());
        let file = announcer.identify(&entry).await.expect("read");
        let manifest = Manifest {
            version: VERSION,
            file_version: None,
            observed: None,
            repeats: 0,
            attempt: "compressor-0/a/1".into(),
            records: Records::Inline(vec![Position {
                shard: "0".into(),
                sequence: Sequence::parse("1").expect("a number"),
                bytes: 1,
            }]),
            bundle: None,
            packed_bytes: 1,
            effort: None,
            stages: Vec::new(),
            shares: Vec::new(),
            announced_millis: 0,
            compressed_millis: 0,
            traceparent: None,
            file: file.clone(),
        };
        let message = Outgoing {
            group: file.group(),
            dedup_id: file.id().as_str().to_owned(),
            body: manifest.to_json(),
            attributes: BTreeMap::new(),
        };
        queue.send(vec![message]).await.expect("sent");
    }
    let deliveries = queue.receive(10, Duration::ZERO).await.expect("received");
    for delivery in &deliveries {
        queue
            .dead_letter(
                delivery,
                &Failure::new(DeadLetterReason::GaveUp, "to be redriven"),
            )
            .await
            .expect("dead-lettered");
    }
    // Whether the records still exist cannot be determined.
    let connections = connections(
        &fixture,
        TappedStream::new(fixture.local.stream(), OutOfReach),
    );
    let redriven = redrive(&connections, &announcer, &RedriveRequest::default())
        .await
        .all();
    let redriven = redriven.expect("all were looked at");
    let is_left = |letter: &RedrivenLetter| matches!(&letter.action, RedriveAction::Left(why) if why.contains("out of reach"));
    assert!(
        redriven.len() == 2 && redriven.iter().all(is_left),
        "{redriven:?}"
    );
    let dead = queue.dead_letters().expect("there is one");
    let letters = dead.receive(10, Duration::ZERO).await.expect("received");
    assert_eq!(letters.len(), 2, "some are in flight");
}

#[tokio::test]
async fn what_was_done_before_an_error_is_answered_with_it() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    let reason = DeadLetterReason::GaveUp;
    dead_announcement(&fixture, &announcer, "a.txt", reason).await;
    let whole = connections(&fixture, fixture.local.stream());
    let broken = CompressorConnections {
        // A dead-letter queue has none itself.
        chunks_queue: whole.chunks_queue.dead_letters().expect("there is one"),
        ..whole
    };
    let redriven = redrive(&broken, &announcer, &RedriveRequest::default()).await;
    let error = redriven.error.expect("the other queue cannot be redriven");
    assert!(
        error.to_string().contains("no dead-letter queue"),
        "{error}"
    );
    let [letter] = &redriven.letters[..] else {
        panic!("{:?}", redriven.letters);
    };
    assert_eq!(letter.action, RedriveAction::SentAgain);
}

/// Announces a file and makes a dead letter of its message.
async fn dead_announcement(
    fixture: &Fixture,
    announcer: &Announcer,
    name: &str,
    reason: DeadLetterReason,
) {
    let entry = fixture.write(name, name.as_bytes());
    announcer.announce(&entry).await.expect("announced");
    let queue = fixture.local.files_queue();
    let deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    let failure = Failure::new(reason, "as the test wants it");
    let dead_lettered = queue.dead_letter(&deliveries[0], &failure).await;
    dead_lettered.expect("dead-lettered");
    let id = Message::parse(&deliveries[0].body).expect("readable");
    let id = id.file().expect("a file").id();
    let recorded = announcer.journal.record_failed(id.as_str(), &failure).await;
    recorded.expect("recorded");
}

#[tokio::test]
async fn a_list_says_what_the_journal_has_of_the_file_of_a_dead_letter() {
    let fixture = Fixture::open();
    let journal = Arc::new(SqliteJournal::open(&fixture.local).expect("opens"));
    let announcer = Announcer {
        journal: journal.clone(),
        ..fixture.announcer(AnnouncementFormat::Native)
    };
    let reason = DeadLetterReason::GaveUp;
    dead_announcement(&fixture, &announcer, "a.txt", reason).await;
    let connections = connections(&fixture, fixture.local.stream());
    let listed = async || {
        let request = RedriveRequest::all(RedriveTask::List);
        let letters = redrive(&connections, &announcer, &request).await.all();
        letters.expect("listed").remove(0).action
    };
    let open = journal.open_files().await.expect("read");
    let id = open[0].file_id.as_str();
    let state = |state| RedriveAction::Listed(Some(state));
    assert_eq!(listed().await, state(FileStatus::Failed));
    journal.record_redriven(id).await.expect("recorded");
    assert_eq!(listed().await, state(FileStatus::UnderWay));
    journal.record_superseded(id).await.expect("recorded");
    assert_eq!(listed().await, state(FileStatus::Superseded));
    journal.record_restored(id, 1).await.expect("recorded");
    assert_eq!(listed().await, RedriveAction::RestoredSince);
}

#[tokio::test]
async fn a_discarded_dead_letter_ends_its_file_and_others_stay() {
    let fixture = Fixture::open();
    let journal = Arc::new(SqliteJournal::open(&fixture.local).expect("opens"));
    let announcer = Announcer {
        journal: journal.clone(),
        ..fixture.announcer(AnnouncementFormat::Native)
    };
    for (name, reason) in [
        ("a.txt", DeadLetterReason::SourceMissing),
        ("b.txt", DeadLetterReason::SourceMissing),
        ("c.txt", DeadLetterReason::GaveUp),
    ] {
        dead_announcement(&fixture, &announcer, name, reason).await;
    }
    let connections = connections(&fixture, fixture.local.stream());
    let discarded = async |reason, names: &[&str]| {
        let request = RedriveRequest {
            task: RedriveTask::Discard,
            reason,
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        let letters = redrive(&connections, &announcer, &request).await.all();
        let letters = letters.expect("discarded").into_iter();
        letters
            .filter(|it| it.action != RedriveAction::NotChosen)
            .map(|it| (it.name, it.action))
            .collect::<Vec<_>>()
    };
    let progress = async || journal.progress().await.expect("progress");
    let reason = Some(DeadLetterReason::SourceMissing);
    assert_eq!(discarded(reason, &["c.txt"]).await, []);
    assert_eq!(
        (progress().await.announced, progress().await.failed),
        (3, 3)
    );
    assert_eq!(
        discarded(reason, &["a.txt", "c.txt"]).await,
        [("a.txt".to_owned(), RedriveAction::Discarded)]
    );
    assert_eq!(
        discarded(None, &["b.txt"]).await,
        [("b.txt".to_owned(), RedriveAction::Discarded)]
    );
    let left = progress().await;
    assert_eq!(
        (left.announced, left.failed, left.bytes_announced),
        (1, 1, 5)
    );
    let source = journal.source("file:///data/in", "a.txt").await;
    assert_eq!(source.expect("read"), None);
    let all = RedriveRequest::all(RedriveTask::List);
    let listed = redrive(&connections, &announcer, &all).await.all();
    let names = listed.expect("listed").into_iter().map(|it| it.name);
    assert_eq!(names.collect::<Vec<_>>(), ["c.txt"]);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_sent_again_does_not_block_others_of_its_group() {
    let fixture = Fixture::open();
    let queue = fixture.local.files_queue();
    let journal = SqliteJournal::open(&fixture.local).expect("opens");
    let announcer = Announcer {
        strict: true,
        journal: Arc::new(journal),
        ..fixture.announcer(AnnouncementFormat::Native)
    };
    // The source of the first is removed below.
    for (name, reason) in [
        ("a.txt", DeadLetterReason::SourceChanged),
        ("b.txt", DeadLetterReason::GaveUp),
        ("c.txt", DeadLetterReason::GaveUp),
    ] {
        dead_announcement(&fixture, &announcer, name, reason).await;
    }
    std::fs::remove_file(fixture.folder().join("a.txt")).expect("removed");
    let connections = connections(&fixture, fixture.local.stream());
    let listed = redrive(
        &connections,
        &announcer,
        &RedriveRequest::all(RedriveTask::List),
    )
    .await
    .all()
    .expect("listed");
    let names: Vec<&str> = listed.iter().map(|letter| letter.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "b.txt", "c.txt"]);
    let redriven = redrive(&connections, &announcer, &RedriveRequest::default())
        .await
        .all()
        .expect("redriven");
    for letter in &redriven {
        match letter.name.as_str() {
            "a.txt" => assert!(
                matches!(letter.action, RedriveAction::Left(_)),
                "{letter:?}"
            ),
            _ => assert_eq!(letter.action, RedriveAction::SentAgain, "{letter:?}"),
        }
    }
    assert_eq!(redriven.len(), 3);
    // They are received one after another again, without the attributes of a dead letter.
    for _ in 0..2 {
        let deliveries = queue.receive(10, Duration::ZERO).await.expect("received");
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].group, STRICT_GROUP);
        for of_dead_letter in [ATTR_REASON, ATTR_DETAIL, ATTR_GROUP] {
            assert!(!deliveries[0].attributes.contains_key(of_dead_letter));
        }
        // A repeat is as old as the first announcement.
        assert!(deliveries[0].version() < deliveries[0].sent_as);
        queue.delete(&deliveries[0].receipt).await.expect("deleted");
    }
}

/// Packs a file and makes a dead letter of its manifest. With `loses_records` the stream does not hold them.
async fn dead_manifest(
    fixture: &Fixture,
    announcer: &Announcer,
    loses_records: bool,
) -> FileVersion {
    let entry = fixture.write("a.txt", b"content");
    announcer.announce(&entry).await.expect("announced");
    let local = &fixture.local;
    let compressor = fixture.compressor(local.stream());
    complete_next(&compressor, &*local.files_queue())
        .await
        .expect("compressed");
    let queue = local.chunks_queue();
    let deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    let mut manifest = match Message::parse(&deliveries[0].body) {
        Ok(Message::Manifest(manifest)) => manifest,
        other => panic!("{other:?}"),
    };
    let version = manifest.file_version.clone().expect("a version");
    if loses_records {
        manifest.records = Records::Inline(vec![Position {
            shard: "gone".into(),
            sequence: 1.into(),
            bytes: 1,
        }]);
        queue.delete(&deliveries[0].receipt).await.expect("deleted");
        let again = Outgoing {
            group: deliveries[0].group.clone(),
            dedup_id: "without-records".into(),
            body: manifest.to_json(),
            attributes: BTreeMap::new(),
        };
        queue.send(vec![again]).await.expect("sent");
    } else {
        queue
            .release(&deliveries[0].receipt)
            .await
            .expect("released");
    }
    let deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    queue
        .dead_letter(
            &deliveries[0],
            &Failure::new(DeadLetterReason::BadFrame, "not readable"),
        )
        .await
        .expect("dead-lettered");
    version
}

async fn redrive_one(fixture: &Fixture, announcer: &Announcer) -> RedriveAction {
    let connections = connections(fixture, fixture.local.stream());
    let mut letters = redrive(&connections, announcer, &RedriveRequest::default())
        .await
        .all()
        .expect("redriven");
    assert_eq!(letters.len(), 1);
    letters.remove(0).action
}

async fn next(queue: &dyn Queue) -> Delivery {
    let mut deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
    deliveries.pop().expect("a message")
}

#[tokio::test]
async fn good_records_are_sent_again_whatever_the_reason_and_without_a_source() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    let version = dead_manifest(&fixture, &announcer, false).await;
    std::fs::remove_file(fixture.folder().join("a.txt")).expect("removed");
    assert_eq!(
        redrive_one(&fixture, &announcer).await,
        RedriveAction::SentAgain
    );
    let local = &fixture.local;
    let decompressor = fixture.decompressor(fixture.destination("out"), local.stream());
    complete_next(&decompressor, &*local.chunks_queue())
        .await
        .expect("restored");
    let destination = fixture.destination("out");
    let name = FileName::parse("a.txt").expect("a valid name");
    let stored = destination.journal().load(&name).await.expect("read");
    let entry = stored.expect("restored").entry;
    assert_eq!(entry.version, Some(version));
}

#[tokio::test]
async fn lost_records_are_announced_from_a_copy_that_was_put_aside_as_a_repeat() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    let version = dead_manifest(&fixture, &announcer, true).await;
    let folder = fixture.folder();
    std::fs::rename(folder.join("a.txt"), folder.join("a_delete.txt")).expect("put aside");
    assert_eq!(
        redrive_one(&fixture, &announcer).await,
        RedriveAction::AnnouncedAgain
    );
    let local = &fixture.local;
    let compressor = fixture.compressor(local.stream());
    complete_next(&compressor, &*local.files_queue())
        .await
        .expect("compressed from the copy");
    let delivery = next(&*local.chunks_queue()).await;
    let Ok(Message::Manifest(manifest)) = Message::parse(&delivery.body) else {
        panic!("{delivery:?}");
    };
    assert_eq!(manifest.file.name.as_str(), "a.txt");
    assert_eq!(manifest.file_version, Some(version));
}

#[tokio::test]
async fn a_source_that_changed_takes_the_place_of_a_version_whose_records_are_lost() {
    let fixture = Fixture::open();
    let journal = Arc::new(SqliteJournal::open(&fixture.local).expect("opens"));
    let announcer = Announcer {
        journal: journal.clone(),
        ..fixture.announcer(AnnouncementFormat::Native)
    };
    let version = dead_manifest(&fixture, &announcer, true).await;
    fixture.write("a.txt", b"other content by now");
    assert_eq!(
        redrive_one(&fixture, &announcer).await,
        RedriveAction::ReplacementAnnounced
    );
    let announced = next(&*fixture.local.files_queue()).await;
    assert!(announced.version() > version);
    let progress = journal.progress().await.expect("known");
    assert_eq!((progress.superseded, progress.failed), (1, 0));
    assert_eq!(
        progress.unfinished(),
        1,
        "only the new content is under way"
    );
}

#[tokio::test]
async fn a_letter_whose_newer_version_was_restored_is_removed_as_superseded() {
    let fixture = Fixture::open();
    let journal = Arc::new(SqliteJournal::open(&fixture.local).expect("opens"));
    let announcer = Announcer {
        journal: journal.clone(),
        ..fixture.announcer(AnnouncementFormat::Native)
    };
    dead_manifest(&fixture, &announcer, true).await;
    let entry = fixture.write("a.txt", b"other content by now");
    let newer = announcer.announce(&entry).await.expect("announced").id();
    let restored = journal.record_restored(newer.as_str(), 5).await;
    restored.expect("recorded");
    // Nothing has the old content any more.
    std::fs::remove_file(fixture.folder().join("a.txt")).expect("removed");
    let connections = connections(&fixture, fixture.local.stream());
    let all = async |task| {
        let letters = redrive(&connections, &announcer, &RedriveRequest::all(task))
            .await
            .all();
        let letters = letters.expect("done").into_iter();
        letters.map(|it| it.action).collect::<Vec<_>>()
    };
    let superseded = [RedriveAction::SupersededSince];
    for task in [RedriveTask::List, RedriveTask::Send] {
        assert_eq!(all(task).await, superseded, "{task:?}");
    }
    assert_eq!(all(RedriveTask::List).await, []);
    let progress = journal.progress().await.expect("known");
    assert_eq!(
        (progress.restored, progress.superseded, progress.failed),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_letter_without_records_and_source_stays_with_both_reasons() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    dead_manifest(&fixture, &announcer, true).await;
    std::fs::remove_file(fixture.folder().join("a.txt")).expect("removed");
    for _ in 0..2 {
        match redrive_one(&fixture, &announcer).await {
            RedriveAction::Left(why) => {
                assert!(
                    why.contains("record") && why.contains("a.txt is not in"),
                    "{why}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
