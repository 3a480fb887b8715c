//! Uploads in parts whose completion has a condition: object_store completes one under no condition. It uploads the parts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Attributes, PutPayload};
use serde::Deserialize;

use super::requests::{BucketRequests, Completion, UploadedPart};

/// What must be in an object's place for it to become visible.
#[derive(Debug, Clone)]
pub(super) enum PutCondition {
    /// Anything.
    None,
    /// No object.
    Absent,
    /// The object with this tag.
    Tag(String),
}

impl PutCondition {
    fn header(&self) -> Option<(HeaderName, &str)> {
        match self {
            Self::None => None,
            Self::Absent => Some((IF_NONE_MATCH, "*")),
            Self::Tag(tag) => Some((IF_MATCH, tag)),
        }
    }
}

/// Begins uploads to one bucket.
pub(super) struct Uploads {
    requests: Arc<BucketRequests>,
    store: Arc<dyn MultipartStore>,
    /// Whether the service has refused to complete one under a condition.
    completes_blindly: AtomicBool,
}

impl Uploads {
    pub(super) fn new(requests: Arc<BucketRequests>, store: Arc<dyn MultipartStore>) -> Arc<Self> {
        Arc::new(Self {
            requests,
            store,
            completes_blindly: AtomicBool::new(false),
        })
    }

    /// Begins one of an object with these attributes.
    pub(super) async fn begin(
        self: &Arc<Self>,
        path: &Path,
        attributes: &Attributes,
    ) -> io::Result<BucketUpload> {
        let id = self.requests.begin_upload(path.as_ref(), attributes);
        Ok(BucketUpload {
            id: id.await?,
            uploads: Arc::clone(self),
            path: path.clone(),
        })
    }
}

/// An upload that was begun.
#[derive(Clone)]
pub(super) struct BucketUpload {
    uploads: Arc<Uploads>,
    path: Path,
    id: String,
}

/// What object_store tells of a part, as it writes it.
#[derive(Debug, Deserialize)]
struct PartMetadata {
    e_tag: String,
    checksum_sha256: Option<String>,
}

impl BucketUpload {
    /// Uploads the part with this number, the first being 1.
    pub(super) async fn put(
        &self,
        number: usize,
        bytes: PutPayload,
    ) -> object_store::Result<UploadedPart> {
        let index = number.saturating_sub(1);
        let store = &self.uploads.store;
        let part = store.put_part(&self.path, &self.id, index, bytes).await?;
        Ok(uploaded(number, part))
    }

    /// Makes the object visible from its parts, in their order, if the condition is met. A service that does not know
    /// conditions here completes it without: the check before is all that protects what is there.
    pub(super) async fn complete(
        &self,
        parts: &[UploadedPart],
        condition: &PutCondition,
    ) -> io::Result<Completion> {
        let Uploads {
            requests,
            completes_blindly,
            ..
        } = &*self.uploads;
        let complete =
            |condition| requests.complete_upload(self.path.as_ref(), &self.id, parts, condition);
        let header = condition
            .header()
            .filter(|_| !completes_blindly.load(Relaxed));
        let has_condition = header.is_some();
        match complete(header).await? {
            Completion::Unsupported if has_condition => {
                completes_blindly.store(true, Relaxed);
                complete(None).await
            }
            outcome => Ok(outcome),
        }
    }

    /// Gives it up, with its parts.
    pub(super) async fn abort(&self) -> object_store::Result<()> {
        let store = &self.uploads.store;
        store.abort_multipart(&self.path, &self.id).await
    }
}

/// A part with a checksum is told as XML, one without by its tag alone.
fn uploaded(number: usize, part: PartId) -> UploadedPart {
    let metadata = quick_xml::de::from_str::<PartMetadata>(&part.content_id);
    let (tag, sha256) = match metadata {
        Ok(metadata) => (metadata.e_tag, metadata.checksum_sha256),
        Err(_) => (part.content_id, None),
    };
    UploadedPart {
        tag,
        number,
        sha256,
    }
}
