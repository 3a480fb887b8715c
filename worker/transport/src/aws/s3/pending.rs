//! An object being written. Small ones are uploaded at once when they are committed; larger ones in parts while they are
//! written, which S3 shows only when the upload is completed. An upload that is dropped is aborted.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use object_store::path::Path;
use object_store::{
    Attributes, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, UpdateVersion,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::warn;

use super::requests::{Completion, UploadedPart};
use super::uploads::{BucketUpload, PutCondition, Uploads};
use super::{said, with_version};
use crate::{FileEntry, FileName, PendingFile};

/// S3 takes parts from 5 MiB on.
const PART_BYTES: usize = 8 << 20;
/// S3 takes 10,000 parts; after each so many they double, so that 5 TiB fit.
const PARTS_OF_A_SIZE: usize = 1000;
/// Parts being uploaded; together with the one being filled they bound memory.
const CONCURRENT_PARTS: usize = 2;

/// Where an object is written.
#[derive(Clone)]
pub(super) struct ObjectPlace {
    pub(super) store: Arc<dyn ObjectStore>,
    /// How large objects are uploaded to a bucket; without, as well as the store can.
    pub(super) uploads: Option<Arc<Uploads>>,
    pub(super) runtime: Handle,
    pub(super) name: FileName,
    pub(super) path: Path,
}

/// See the module.
pub(super) struct PendingObject {
    place: ObjectPlace,
    /// The version, where it is known from the start: parts can only carry it from the start.
    modified: Option<SystemTime>,
    /// What else it carries.
    attributes: Attributes,
    filling: Vec<u8>,
    /// All bytes that were written.
    bytes: u64,
    parts: usize,
    upload: Option<Upload>,
    under_way: JoinSet<object_store::Result<Option<UploadedPart>>>,
    uploaded: Vec<UploadedPart>,
}

/// An upload in parts.
enum Upload {
    Bucket(BucketUpload),
    Store(Box<dyn MultipartUpload>),
}

impl PendingObject {
    /// Begins an object that carries `attributes` and, where it is known already, its version.
    pub(super) fn new(
        place: ObjectPlace,
        modified: Option<SystemTime>,
        attributes: Attributes,
    ) -> Self {
        Self {
            place,
            modified,
            attributes,
            filling: Vec::new(),
            bytes: 0,
            parts: 0,
            upload: None,
            under_way: JoinSet::new(),
            uploaded: Vec::new(),
        }
    }

    fn part_bytes(&self) -> usize {
        PART_BYTES << (self.parts / PARTS_OF_A_SIZE).min(9)
    }

    fn said(&self, error: &object_store::Error) -> io::Error {
        said(error, "cannot write", &self.place.name)
    }

    fn explained(&self, error: &io::Error) -> io::Error {
        let text = format!("cannot write {}: {error}", self.place.name);
        io::Error::new(error.kind(), text)
    }

    fn begin_upload(&self) -> io::Result<Upload> {
        let attributes = match self.modified {
            Some(modified) => with_version(self.attributes.clone(), modified),
            None => self.attributes.clone(),
        };
        let ObjectPlace { runtime, path, .. } = &self.place;
        if let Some(uploads) = &self.place.uploads {
            let begun = runtime.block_on(uploads.begin(path, &attributes));
            let begun = begun.map_err(|error| self.explained(&error))?;
            return Ok(Upload::Bucket(begun));
        }
        let options = PutMultipartOptions {
            attributes,
            ..PutMultipartOptions::default()
        };
        let begun = runtime.block_on(self.place.store.put_multipart_opts(path, options));
        Ok(Upload::Store(begun.map_err(|error| self.said(&error))?))
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            self.upload = Some(self.begin_upload()?);
        }
        while self.under_way.len() >= CONCURRENT_PARTS {
            self.await_one_part()?;
        }
        let part = PutPayload::from(std::mem::take(&mut self.filling));
        self.parts += 1;
        let (number, runtime) = (self.parts, &self.place.runtime);
        match &mut self.upload {
            Some(Upload::Bucket(upload)) => {
                let upload = upload.clone();
                let putting = async move { upload.put(number, part).await.map(Some) };
                self.under_way.spawn_on(putting, runtime);
            }
            Some(Upload::Store(upload)) => {
                let putting = upload.put_part(part);
                let putting = async move { putting.await.map(|()| None) };
                self.under_way.spawn_on(putting, runtime);
            }
            None => {}
        }
        Ok(())
    }

    fn await_one_part(&mut self) -> io::Result<()> {
        match self.place.runtime.block_on(self.under_way.join_next()) {
            Some(Ok(Ok(part))) => {
                self.uploaded.extend(part);
                Ok(())
            }
            None => Ok(()),
            Some(Ok(Err(error))) => Err(self.said(&error)),
            Some(Err(stopped)) => Err(io::Error::other(stopped)),
        }
    }

    /// Uploads what is left of an upload in parts.
    fn upload_rest(&mut self) -> io::Result<()> {
        if self.upload.is_some() && !self.filling.is_empty() {
            self.send_part()?;
        }
        while !self.under_way.is_empty() {
            self.await_one_part()?;
        }
        Ok(())
    }

    /// Uploads what is left and makes the object visible under the condition; answers its tag. Not every service knows one for
    /// an upload in parts: what is there is looked at right before, too.
    fn complete(&mut self, modified: SystemTime, condition: &PutCondition) -> io::Result<String> {
        if self.upload.is_none() {
            let bytes = PutPayload::from(std::mem::take(&mut self.filling));
            let options = PutOptions {
                attributes: with_version(std::mem::take(&mut self.attributes), modified),
                mode: put_mode(condition),
                ..PutOptions::default()
            };
            let ObjectPlace { store, path, .. } = &self.place;
            let put = store.put_opts(path, bytes, options);
            let put = self.place.runtime.block_on(put);
            let put = put.map_err(|error| self.said(&error))?;
            return Ok(put.e_tag.unwrap_or_default());
        }
        if self.modified.is_some_and(|begun_as| begun_as != modified) {
            let text = format!(
                "{} was begun as another version than it is finished as",
                self.place.name
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.upload_rest()?;
        self.check(condition)?;
        self.uploaded.sort_by_key(|part| part.number);
        let runtime = &self.place.runtime;
        let completed = match &mut self.upload {
            Some(Upload::Bucket(upload)) => {
                let completed = runtime.block_on(upload.complete(&self.uploaded, condition));
                completed.map_err(|error| self.explained(&error))
            }
            Some(Upload::Store(upload)) => {
                let completed = runtime.block_on(upload.complete());
                let completed = completed.map_err(|error| self.said(&error));
                completed.map(|put| Completion::Done(put.e_tag.unwrap_or_default()))
            }
            // See above.
            None => return Err(io::Error::other("the upload was not begun")),
        };
        match completed? {
            Completion::Done(tag) => {
                self.upload = None;
                Ok(tag)
            }
            Completion::Changed => Err(self.changed()),
            Completion::Unsupported => {
                let text = format!(
                    "cannot write {}: the service knows no uploads in parts",
                    self.place.name
                );
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        }
    }

    fn changed(&self) -> io::Error {
        let text = format!("{} was changed by another writer", self.place.name);
        io::Error::new(io::ErrorKind::AlreadyExists, text)
    }

    fn check(&self, condition: &PutCondition) -> io::Result<()> {
        let found = match condition {
            PutCondition::None => return Ok(()),
            PutCondition::Absent | PutCondition::Tag(_) => self.tag()?,
        };
        match (condition, found) {
            (PutCondition::Absent, None) => Ok(()),
            (PutCondition::Tag(tag), Some(found)) if *tag == found => Ok(()),
            _ => Err(self.changed()),
        }
    }

    /// The object's present tag.
    fn tag(&self) -> io::Result<Option<String>> {
        let ObjectPlace { store, path, .. } = &self.place;
        match self.place.runtime.block_on(store.head(path)) {
            Ok(meta) => Ok(Some(meta.e_tag.unwrap_or_default())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.said(&error)),
        }
    }
}

fn put_mode(condition: &PutCondition) -> PutMode {
    match condition {
        PutCondition::None => PutMode::Overwrite,
        PutCondition::Absent => PutMode::Create,
        PutCondition::Tag(tag) => PutMode::Update(UpdateVersion {
            e_tag: Some(tag.clone()),
            version: None,
        }),
    }
}

impl Write for PendingObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let free = self.part_bytes().saturating_sub(self.filling.len());
        let taken = free.min(bytes.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.filling.len() >= self.part_bytes() {
            self.send_part()?;
        }
        Ok(taken)
    }

    /// Written bytes stay invisible in any case, and are uploaded by whole parts.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PendingFile for PendingObject {
    fn prepare(&mut self) -> io::Result<()> {
        self.upload_rest()
    }

    fn commit(mut self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.complete(modified, &PutCondition::None).map(drop)
    }

    fn commit_over(
        mut self: Box<Self>,
        modified: SystemTime,
        seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry> {
        let condition = match seen {
            None => PutCondition::Absent,
            Some(entry) => PutCondition::Tag(entry.fingerprint.clone()),
        };
        // Of the object that was written, whatever has its name by now.
        let fingerprint = self.complete(modified, &condition)?;
        Ok(FileEntry {
            name: self.place.name.clone(),
            size: self.bytes,
            modified,
            fingerprint,
            changed: None,
        })
    }
}

impl Drop for PendingObject {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else {
            return;
        };
        self.under_way.abort_all();
        let name = self.place.name.clone();
        self.place.runtime.spawn(async move {
            let aborted = match upload {
                Upload::Bucket(upload) => upload.abort().await,
                Upload::Store(mut upload) => upload.abort().await,
            };
            if let Err(error) = aborted {
                warn!(%name, %error, "Could not abort an unfinished upload; a lifecycle rule of the bucket should remove it.");
            }
        });
    }
}
