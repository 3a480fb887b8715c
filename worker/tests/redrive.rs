//! Dead letters when sending them again goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use streampress::announce::{Announcer, Dialect};
use streampress::doors::files::LocalFiles;
use streampress::doors::local::{Local, LocalOptions};
use streampress::doors::{FileName, Files, Outgoing, Position, Sequence};
use streampress::redrive::{Done, redrive};
use streampress::roles::Transport;
use streampress::wire::{Manifest, Records, STRICT_GROUP, VERSION};

#[tokio::test]
async fn a_redrive_that_ends_in_the_middle_leaves_no_letter_hidden() {
    let root = tempfile::tempdir().expect("a folder");
    let local = Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
    let folder = root.path().join("in");
    let source: Arc<dyn Files> =
        Arc::new(LocalFiles::open("file:///data/in", &folder).expect("opens"));
    let announcer = Announcer {
        source: source.clone(),
        files_queue: local.files_queue(),
        strict: false,
        dialect: Dialect::Ours,
        index: None,
    };
    let queue = local.chunks_queue();
    for name in ["a.txt", "b.txt"] {
        std::fs::write(folder.join(name), name).expect("written");
        let name = FileName::parse(name).expect("a good name");
        let entry = source.stat(&name).expect("looked").expect("there");
        let file = announcer.look(&entry).await.expect("read");
        let manifest = Manifest {
            version: VERSION,
            attempt: "compressor-0/a/1".into(),
            records: Records::Here(vec![Position {
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
            .bury(delivery, "Test", "to be redriven")
            .await
            .expect("buried");
    }
    // Whether its records are still there cannot be found out: there is no stream.
    let transport = Transport {
        stream: None,
        ..Transport::embedded(&local)
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
    let root = tempfile::tempdir().expect("a folder");
    let local = Local::open(&root.path().join("data"), LocalOptions::default()).expect("opens");
    let folder = root.path().join("in");
    let source: Arc<dyn Files> =
        Arc::new(LocalFiles::open("file:///data/in", &folder).expect("opens"));
    let queue = local.files_queue();
    let announcer = Announcer {
        source: source.clone(),
        files_queue: queue.clone(),
        strict: true,
        dialect: Dialect::Ours,
        index: Some(local.index()),
    };
    // The first has no source any more.
    for (name, reason) in [
        ("a.txt", "SourceChanged"),
        ("b.txt", "Test"),
        ("c.txt", "Test"),
    ] {
        std::fs::write(folder.join(name), name).expect("written");
        let name = FileName::parse(name).expect("a good name");
        let entry = source.stat(&name).expect("looked").expect("there");
        announcer.announce(&entry).await.expect("announced");
        let deliveries = queue.receive(1, Duration::ZERO).await.expect("received");
        queue
            .bury(&deliveries[0], reason, "to be redriven")
            .await
            .expect("buried");
    }
    std::fs::remove_file(folder.join("a.txt")).expect("removed");
    let transport = Transport::embedded(&local);
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
