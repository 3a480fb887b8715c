//! What becomes of a source in the original's format once it is packed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use streampress::consume::Consumer;
use streampress::legacy::{
    READ_LOCATION,
    compressor::{LegacyCompressor, PackedSources},
};
use streampress::roles::announce::AnnouncementFormat;
use streampress::roles::compress::OnCompressed;
use streampress::roles::scan::SourceFilter;
use streampress::telemetry::metrics::Meter;
use streampress_crds::api::pipeline::SourceFormat;
use streampress_transport::{Delivery, Depth, Outgoing, Queue, Receipt, TransportResult};
use tokio_util::sync::CancellationToken;

#[path = "support/bench.rs"]
mod bench;

use bench::Bench;

/// A chunks queue that writes the source anew while the packed file is being announced.
#[derive(Debug)]
struct Overtaken {
    inner: Arc<dyn Queue>,
    source: std::path::PathBuf,
    content: Option<&'static [u8]>,
}

#[async_trait]
impl Queue for Overtaken {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn visibility_timeout(&self) -> Duration {
        self.inner.visibility_timeout()
    }
    async fn send(&self, messages: Vec<Outgoing>) -> TransportResult<()> {
        if let Some(content) = self.content {
            std::fs::write(&self.source, content).expect("written");
        }
        self.inner.send(messages).await
    }
    async fn receive(&self, max: usize, wait: Duration) -> TransportResult<Vec<Delivery>> {
        self.inner.receive(max, wait).await
    }
    async fn extend(&self, receipt: &Receipt, visibility_timeout: Duration) -> TransportResult<()> {
        self.inner.extend(receipt, visibility_timeout).await
    }
    async fn delete(&self, receipt: &Receipt) -> TransportResult<()> {
        self.inner.delete(receipt).await
    }
    async fn release(&self, receipt: &Receipt) -> TransportResult<()> {
        self.inner.release(receipt).await
    }
    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: &str,
        detail: &str,
    ) -> TransportResult<()> {
        self.inner.dead_letter(delivery, reason, detail).await
    }
    async fn drain(&self, patience: Duration) -> bool {
        self.inner.drain(patience).await
    }
    async fn depth(&self) -> TransportResult<Depth> {
        self.inner.depth().await
    }
    fn dead_letters(&self) -> Option<Arc<dyn Queue>> {
        self.inner.dead_letters()
    }
}

/// Packs `a.txt` and says what then lies at the source; `written_meanwhile` is written there in between.
async fn packed(
    on_compressed: OnCompressed,
    written_meanwhile: Option<&'static [u8]>,
) -> Vec<(String, Vec<u8>)> {
    let bench = Bench::open();
    let (local, folder) = (&bench.local, bench.folder());
    let announcer = bench.announcer(AnnouncementFormat::Legacy);
    let entry = bench.write("a.txt", b"as announced");
    announcer.announce(&entry).await.expect("announced");
    let chunks_queue = Arc::new(Overtaken {
        inner: local.chunks_queue(),
        source: folder.join("a.txt"),
        content: written_meanwhile,
    });
    let handler = LegacyCompressor {
        announcer,
        stream: local.stream(),
        chunks_queue,
        break_bytes: 400 * 1024,
        read_location: READ_LOCATION.to_owned(),
        on_compressed,
        filter: SourceFilter {
            formats: vec![SourceFormat::Txt],
            put_aside: on_compressed == OnCompressed::Rename,
        },
        tidy_only_multi: false,
        push: true,
        report: None,
        journal: None,
        packed: PackedSources::default(),
    };
    let (meter, shutdown) = (Meter::default(), CancellationToken::new());
    let consumer = Consumer {
        role: "compressor",
        queue: local.files_queue(),
        lock: local.lock("compressor", 1),
        handler: Arc::new(handler),
        threads: 1,
        strict: false,
        interval: Duration::from_secs(1),
        linger: Duration::from_secs(1),
        max_receive_count: 20,
        meter: meter.clone(),
        shutdown: shutdown.clone(),
    };
    let working = tokio::spawn(async move { consumer.run().await });
    while meter.counts().acknowledged == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Orderly: what follows the acknowledgement is seen to its end.
    shutdown.cancel();
    working.await.expect("no panic");
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
async fn a_source_written_anew_while_it_was_packed_is_neither_deleted_nor_renamed() {
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
async fn a_source_that_stayed_is_deleted_or_renamed() {
    let left = packed(OnCompressed::Delete, None).await;
    assert!(left.is_empty(), "{left:?}");
    let left = packed(OnCompressed::Rename, None).await;
    assert_eq!(
        left,
        [("a_delete.txt".to_owned(), b"as announced".to_vec())]
    );
}
