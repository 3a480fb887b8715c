//! Dead letters when sending them again goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use streampress::message::{Manifest, Records, STRICT_GROUP, VERSION};
use streampress::roles::announce::{AnnouncementFormat, Announcer};
use streampress::roles::context::Transport;
use streampress::roles::redrive::{Done, redrive};
use streampress_transport::{Outgoing, Position, Sequence};

#[path = "support/bench.rs"]
mod bench;

use bench::{Bench, journal};

#[tokio::test]
async fn a_redrive_that_ends_in_the_middle_leaves_no_letter_hidden() {
    let bench = Bench::open();
    let (local, announcer) = (&bench.local, bench.announcer(AnnouncementFormat::Native));
    let queue = local.chunks_queue();
    for name in ["a.txt", "b.txt"] {
        let entry = bench.write(name, name.as_bytes());
        let file = announcer.look(&entry).await.expect("read");
        let manifest = Manifest {
            version: VERSION,
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
            .dead_letter(delivery, "Test", "to be redriven")
            .await
            .expect("buried");
    }
    // Whether its records are still there cannot be found out: there is no stream.
    let transport = Transport {
        stream: None,
        ..Transport::embedded(local, journal(local))
    };
    redrive(&transport, &announcer, false)
        .await
        .expect_err("no stream to look at");
    let dead = queue.dead_letters().expect("there is one");
    let letters = dead.receive(10, Duration::ZERO).await.expect("received");
    assert_eq!(letters.len(), 2, "some are hidden");
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_mended_keeps_no_other_of_its_group_back() {
    let bench = Bench::open();
    let (local, queue) = (&bench.local, bench.local.files_queue());
    let announcer = Announcer {
        strict: true,
        journal: Some(journal(local)),
        ..bench.announcer(AnnouncementFormat::Native)
    };
    // The first has no source any more.
    for (name, reason) in [
        ("a.txt", "SourceChanged"),
        ("b.txt", "Test"),
        ("c.txt", "Test"),
    ] {
        let entry = bench.write(name, name.as_bytes());
        announcer.announce(&entry).await.expect("announced");
        let deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
        queue
            .dead_letter(&deliveries[0], reason, "to be redriven")
            .await
            .expect("buried");
    }
    std::fs::remove_file(bench.folder().join("a.txt")).expect("removed");
    let transport = Transport::embedded(local, journal(local));
    let listed = redrive(&transport, &announcer, true).await.expect("listed");
    let names: Vec<&str> = listed.iter().map(|letter| letter.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "b.txt", "c.txt"]);
    let redriven = redrive(&transport, &announcer, false)
        .await
        .expect("redriven");
    for letter in &redriven {
        match letter.name.as_str() {
            "a.txt" => assert!(matches!(letter.done, Done::Left(_)), "{letter:?}"),
            _ => assert_eq!(letter.done, Done::SentAgain, "{letter:?}"),
        }
    }
    assert_eq!(redriven.len(), 3);
    // One after another again, with nothing left of their death.
    for _ in 0..2 {
        let deliveries = queue.receive(10, Duration::ZERO).await.expect("received");
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].group, STRICT_GROUP);
        let of_its_death = |name: &String| name.starts_with("streampress-");
        assert!(!deliveries[0].attributes.keys().any(of_its_death));
        queue.delete(&deliveries[0].receipt).await.expect("deleted");
    }
}
