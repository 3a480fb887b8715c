//! Unpacked bundles of small files. A queue deals the files of a bundle to a worker one after another: the first of them
//! has the bundle fetched and unpacked, and the others take their part of it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::consume::HandlerError;
use crate::message::{BundlePlace, Manifest, Records};

/// The bundles used last, up to some bytes.
#[derive(Debug)]
pub(crate) struct BundleCache {
    most_bytes: u64,
    /// The one used last is the first.
    bundles: Mutex<VecDeque<CachedBundle>>,
}

#[derive(Debug)]
struct CachedBundle {
    place: BundlePlace,
    records: Records,
    /// Files that were not taken yet.
    files_left: u32,
    content: Arc<OnceCell<Bytes>>,
}

impl CachedBundle {
    fn holds(&self, manifest: &Manifest, place: &BundlePlace) -> bool {
        self.place.id == place.id
            && self.place.bytes == place.bytes
            && self.records == manifest.records
    }
}

impl BundleCache {
    /// Keeps up to `most_bytes` unpacked bytes, and always the bundle used last.
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self {
            most_bytes,
            bundles: Mutex::default(),
        }
    }

    /// The unpacked bundle of the manifest's file, whose place in it is `place`. `unpack` is run where it is not here;
    /// of several files that want it at the same time one runs it and the others wait. Where that one fails or is dropped, the
    /// next one runs its own.
    pub(crate) async fn content(
        &self,
        manifest: &Manifest,
        place: &BundlePlace,
        unpack: impl Future<Output = Result<Bytes, HandlerError>>,
    ) -> Result<Bytes, HandlerError> {
        let bundle = self.bundle(manifest, place);
        let content = bundle.get_or_try_init(|| unpack).await?.clone();
        self.took(manifest, place);
        Ok(content)
    }

    fn bundle(&self, manifest: &Manifest, place: &BundlePlace) -> Arc<OnceCell<Bytes>> {
        let mut bundles = self.bundles.lock();
        let at = bundles.iter().position(|it| it.holds(manifest, place));
        let bundle = at.and_then(|at| bundles.remove(at));
        let bundle = bundle.unwrap_or_else(|| CachedBundle {
            place: place.clone(),
            records: manifest.records.clone(),
            files_left: place.files,
            content: Arc::default(),
        });
        let content = bundle.content.clone();
        bundles.push_front(bundle);
        let mut bytes = 0u64;
        let fits = bundles.iter().take_while(|it| {
            bytes = bytes.saturating_add(it.place.bytes);
            bytes <= self.most_bytes
        });
        let kept = fits.count().max(1);
        bundles.truncate(kept);
        content
    }

    /// A bundle is dropped with the last of its files.
    fn took(&self, manifest: &Manifest, place: &BundlePlace) {
        let mut bundles = self.bundles.lock();
        let Some(at) = bundles.iter().position(|it| it.holds(manifest, place)) else {
            return;
        };
        let bundle = &mut bundles[at];
        bundle.files_left = bundle.files_left.saturating_sub(1);
        if bundle.files_left == 0 {
            bundles.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use streampress_transport::Position;

    use super::*;
    use crate::message::{BUNDLED_VERSION, Digest, FileRef};

    fn manifest(bundle: u64, files: u32, bytes: u64) -> Manifest {
        Manifest {
            version: BUNDLED_VERSION,
            file: FileRef::with_content("a.txt", b"1"),
            file_version: None,
            observed: None,
            repeats: 0,
            attempt: "attempt".into(),
            records: Records::Inline(vec![Position {
                shard: "0".into(),
                sequence: bundle.into(),
                bytes: 1,
            }]),
            bundle: Some(BundlePlace {
                id: Digest::of(&bundle.to_be_bytes()),
                files,
                bytes,
                prefix: 0,
                offset: 0,
            }),
            packed_bytes: 1,
            effort: None,
            stages: Vec::new(),
            shares: Vec::new(),
            announced_millis: 0,
            compressed_millis: 0,
            traceparent: None,
        }
    }

    /// A cache that counts what is unpacked.
    struct CountedCache {
        cache: BundleCache,
        unpacked: Cell<u32>,
    }

    impl CountedCache {
        fn new(most_bytes: u64) -> Self {
            Self {
                cache: BundleCache::new(most_bytes),
                unpacked: Cell::new(0),
            }
        }

        async fn take(&self, manifest: &Manifest, fails: bool) -> Result<Bytes, HandlerError> {
            let place = manifest.bundle.as_ref().expect("a bundle");
            let unpack = async {
                tokio::task::yield_now().await;
                self.unpacked.set(self.unpacked.get() + 1);
                match fails {
                    true => Err(HandlerError::Interrupted),
                    false => Ok(Bytes::from_static(b"content")),
                }
            };
            self.cache.content(manifest, place, unpack).await
        }

        fn kept(&self) -> usize {
            self.cache.bundles.lock().len()
        }
    }

    #[tokio::test]
    async fn files_that_come_together_have_their_bundle_unpacked_once() {
        let (counted, manifest) = (CountedCache::new(100), manifest(1, 3, 10));
        let take = || counted.take(&manifest, false);
        let (first, second) = tokio::join!(take(), take());
        assert_eq!(first.expect("unpacked"), second.expect("unpacked"));
        assert_eq!((counted.unpacked.get(), counted.kept()), (1, 1));
        take().await.expect("unpacked");
        assert_eq!((counted.unpacked.get(), counted.kept()), (1, 0));
        // A file that is received again after the others.
        take().await.expect("unpacked");
        assert_eq!(counted.unpacked.get(), 2);
    }

    #[tokio::test]
    async fn a_file_whose_work_fails_or_stops_leaves_the_bundle_to_the_next() {
        let (counted, manifest) = (CountedCache::new(100), manifest(1, 3, 10));
        let (failed, taken) = tokio::join!(
            counted.take(&manifest, true),
            counted.take(&manifest, false)
        );
        failed.expect_err("failed");
        taken.expect("unpacked");
        assert_eq!(counted.unpacked.get(), 2);
        let counted = CountedCache::new(100);
        {
            let mut stopped = std::pin::pin!(counted.take(&manifest, false));
            assert!(futures::poll!(&mut stopped).is_pending());
        }
        counted.take(&manifest, false).await.expect("unpacked");
        assert_eq!(counted.unpacked.get(), 1);
    }

    #[tokio::test]
    async fn only_so_many_bytes_are_kept_and_always_the_bundle_used_last() {
        let counted = CountedCache::new(25);
        let bundles = [1, 2, 3].map(|number| manifest(number, 9, 10));
        for bundle in &bundles {
            counted.take(bundle, false).await.expect("unpacked");
        }
        assert_eq!(counted.kept(), 2);
        counted.take(&bundles[2], false).await.expect("unpacked");
        assert_eq!(counted.unpacked.get(), 3);
        counted.take(&bundles[0], false).await.expect("unpacked");
        assert_eq!(counted.unpacked.get(), 4);
        let large = manifest(4, 9, 1000);
        counted.take(&large, false).await.expect("unpacked");
        assert_eq!(counted.kept(), 1);
    }

    #[tokio::test]
    async fn other_records_are_another_bundle() {
        let counted = CountedCache::new(100);
        let first = manifest(1, 9, 10);
        let mut other = manifest(2, 9, 10);
        other.bundle = first.bundle.clone();
        for manifest in [&first, &other] {
            counted.take(manifest, false).await.expect("unpacked");
        }
        assert_eq!(counted.unpacked.get(), 2);
    }
}
