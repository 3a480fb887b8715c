//! Dead letters that cannot be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use streampress::journal::SqliteJournal;
use streampress::message::{Manifest, Records, STRICT_GROUP, VERSION};
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::connect::CompressorConnections;
use streampress::roles::redrive::{RedriveAction, redrive};
use streampress_transport::{
    ATTR_DETAIL, ATTR_GROUP, ATTR_REASON, ChunkStream, DeadLetterReason, Outgoing, Position,
    Record, Sequence, StreamCounts, TransportError, TransportResult,
};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::Fixture;

/// A stream that cannot be reached.
#[derive(Debug)]
struct UnreachableStream;

#[async_trait]
impl ChunkStream for UnreachableStream {
    fn max_record_bytes(&self) -> usize {
        1 << 20
    }

    async fn append(&self, _records: Vec<Record>) -> TransportResult<Vec<Position>> {
        Err(TransportError::unavailable("appending", "out of reach"))
    }

    async fn fetch(&self, _positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        Err(TransportError::unavailable("fetching", "out of reach"))
    }

    fn counts(&self) -> StreamCounts {
        StreamCounts::default()
    }
}

fn connections(fixture: &Fixture, stream: Arc<dyn ChunkStream>) -> CompressorConnections {
    CompressorConnections {
        files_queue: fixture.local.files_queue(),
        chunks_queue: fixture.local.chunks_queue(),
        stream,
    }
}

#[tokio::test]
async fn a_redrive_that_fails_in_the_middle_leaves_no_letter_hidden() {
    let fixture = Fixture::open();
    let announcer = fixture.announcer(AnnouncementFormat::Native);
    let queue = fixture.local.chunks_queue();
    for name in ["a.txt", "b.txt"] {
        let entry = fixture.write(name, name.as_bytes());
        let file = announcer.identify(&entry).await.expect("read");
        let manifest = Manifest {
            version: VERSION,
            file_version: None,
            attempt: "compressor-0/a/1".into(),
            records: Records::Inline(vec![Position {
                shard: "0".into(),
                sequence: Sequence::parse("1").expect("a number"),
                bytes: 1,
            }]),
            packed_bytes: 1,
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
            .dead_letter(delivery, DeadLetterReason::GaveUp, "to be redriven")
            .await
            .expect("dead-lettered");
    }
    // Whether the records still exist cannot be determined.
    let connections = connections(&fixture, Arc::new(UnreachableStream));
    redrive(&connections, &announcer, false)
        .await
        .expect_err("the stream cannot be reached");
    let dead = queue.dead_letters().expect("there is one");
    let letters = dead.receive(10, Duration::ZERO).await.expect("received");
    assert_eq!(letters.len(), 2, "some are hidden");
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
        let entry = fixture.write(name, name.as_bytes());
        announcer.announce(&entry).await.expect("announced");
        let deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
        queue
            .dead_letter(&deliveries[0], reason, "to be redriven")
            .await
            .expect("dead-lettered");
    }
    std::fs::remove_file(fixture.folder().join("a.txt")).expect("removed");
    let connections = connections(&fixture, fixture.local.stream());
    let listed = redrive(&connections, &announcer, true)
        .await
        .expect("listed");
    let names: Vec<&str> = listed.iter().map(|letter| letter.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "b.txt", "c.txt"]);
    let redriven = redrive(&connections, &announcer, false)
        .await
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
