//! The fate of a source in the original's format once it is packed.

use std::sync::Arc;

use async_trait::async_trait;
use streampress::journal::NoJournal;
use streampress::legacy::READ_LOCATION;
use streampress::legacy::compressor::LegacyCompressor;
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::source::{SettleTime, SourceFilter};
use streampress_crds::api::pipeline::{OnCompressed, SourceFormat};
use streampress_transport::contract_tests::{QueueTap, TappedQueue};
use streampress_transport::{Outgoing, TransportResult};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, RunningConsumer};

/// Overwrites the source while the packed file is being announced.
#[derive(Debug)]
struct OverwrittenSource {
    path: std::path::PathBuf,
    content: Option<&'static [u8]>,
}

#[async_trait]
impl QueueTap for OverwrittenSource {
    async fn before_send(&self, _messages: &[Outgoing]) -> TransportResult<()> {
        if let Some(content) = self.content {
            std::fs::write(&self.path, content).expect("written");
        }
        Ok(())
    }
}

/// Packs `a.txt`, while `written_meanwhile` is written there; returns the source's files.
async fn packed(
    on_compressed: OnCompressed,
    written_meanwhile: Option<&'static [u8]>,
) -> Vec<(String, Vec<u8>)> {
    let fixture = Fixture::open();
    let (local, folder) = (&fixture.local, fixture.folder());
    let announcer = fixture.announcer(AnnouncementFormat::Legacy);
    let entry = fixture.write("a.txt", b"as announced");
    announcer.announce(&entry).await.expect("announced");
    let overwritten = OverwrittenSource {
        path: folder.join("a.txt"),
        content: written_meanwhile,
    };
    let chunks_queue = TappedQueue::new(local.chunks_queue(), overwritten);
    let handler = LegacyCompressor {
        announcer,
        stream: local.stream(),
        chunks_queue,
        break_bytes: 400 * 1024,
        read_location: READ_LOCATION.to_owned(),
        on_compressed,
        settle: SettleTime::default(),
        filter: SourceFilter {
            formats: vec![SourceFormat::Txt],
            skips_renamed: on_compressed == OnCompressed::Rename,
        },
        keeps_single_chunk_files: false,
        push: true,
        report: None,
        dead_letter_report: None,
        journal: Arc::new(NoJournal),
    };
    let lock = local.lock("compressor", 1);
    let consumer = RunningConsumer::start(local.files_queue(), lock, Arc::new(handler), 1, false);
    consumer.conclude(1).await;
    consumer.stop().await;
    let entries = std::fs::read_dir(&folder).expect("listed").flatten();
    let read = |path: std::path::PathBuf| std::fs::read(path).expect("read");
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                read(entry.path()),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_source_overwritten_while_it_was_packed_is_neither_deleted_nor_renamed() {
    for on_compressed in [OnCompressed::Delete, OnCompressed::Rename] {
        let left = packed(on_compressed, Some(b"a later version, never packed")).await;
        let expected = (
            "a.txt".to_owned(),
            b"a later version, never packed".to_vec(),
        );
        assert_eq!(left, [expected], "{on_compressed:?}");
    }
}

#[tokio::test]
async fn a_source_that_did_not_change_is_deleted_or_renamed() {
    let left = packed(OnCompressed::Delete, None).await;
    assert!(left.is_empty(), "{left:?}");
    let left = packed(OnCompressed::Rename, None).await;
    assert_eq!(
        left,
        [("a_delete.txt".to_owned(), b"as announced".to_vec())]
    );
}
