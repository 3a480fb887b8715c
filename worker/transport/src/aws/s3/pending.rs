//! An object being written. Small ones are uploaded at once when they are committed; larger ones in parts while they are
//! written, which S3 shows only when the upload is completed. An upload that is dropped is aborted.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use object_store::path::Path;
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, UpdateVersion,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::warn;

use super::{attributes_of, said};
use crate::{FileEntry, FileName, PendingFile};

/// S3 takes parts from 5 MiB on.
const PART_BYTES: usize = 8 << 20;
/// S3 takes 10,000 parts; after each so many they double, so that 5 TiB fit.
const PARTS_OF_A_SIZE: usize = 1000;
/// Parts being uploaded; together with the one being filled they bound memory.
const CONCURRENT_PARTS: usize = 2;

/// See the module.
pub(super) struct PendingObject {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    name: FileName,
    path: Path,
    /// The version, where it is known from the start: parts can only carry it from the start.
    modified: Option<SystemTime>,
    filling: Vec<u8>,
    parts: usize,
    upload: Option<Box<dyn MultipartUpload>>,
    under_way: JoinSet<object_store::Result<()>>,
}

impl PendingObject {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        runtime: Handle,
        name: FileName,
        path: Path,
        modified: Option<SystemTime>,
    ) -> Self {
        Self {
            store,
            runtime,
            name,
            path,
            modified,
            filling: Vec::new(),
            parts: 0,
            upload: None,
            under_way: JoinSet::new(),
        }
    }

    fn part_bytes(&self) -> usize {
        PART_BYTES << (self.parts / PARTS_OF_A_SIZE).min(9)
    }

    fn said(&self, error: &object_store::Error) -> io::Error {
        said(error, "cannot write", &self.name)
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            let attributes = self.modified.map(attributes_of).unwrap_or_default();
            let options = PutMultipartOptions {
                attributes,
                ..PutMultipartOptions::default()
            };
            let begun = self
                .runtime
                .block_on(self.store.put_multipart_opts(&self.path, options));
            self.upload = Some(begun.map_err(|error| self.said(&error))?);
        }
        while self.under_way.len() >= CONCURRENT_PARTS {
            self.await_one_part()?;
        }
        let part = PutPayload::from(std::mem::take(&mut self.filling));
        self.parts += 1;
        if let Some(upload) = &mut self.upload {
            self.under_way
                .spawn_on(upload.put_part(part), &self.runtime);
        }
        Ok(())
    }

    fn await_one_part(&mut self) -> io::Result<()> {
        match self.runtime.block_on(self.under_way.join_next()) {
            Some(Ok(Ok(()))) | None => Ok(()),
            Some(Ok(Err(error))) => Err(self.said(&error)),
            Some(Err(stopped)) => Err(io::Error::other(stopped)),
        }
    }

    /// Uploads what is left and makes the object visible. Only a put in one request can have a condition at S3; for an
    /// upload in parts it is checked right before.
    fn complete(&mut self, modified: SystemTime, condition: PutCondition) -> io::Result<()> {
        if self.upload.is_none() {
            let bytes = PutPayload::from(std::mem::take(&mut self.filling));
            let options = PutOptions {
                attributes: attributes_of(modified),
                mode: condition.put_mode(),
                ..PutOptions::default()
            };
            let put = self
                .runtime
                .block_on(self.store.put_opts(&self.path, bytes, options));
            return put.map(drop).map_err(|error| self.said(&error));
        }
        if self.modified.is_some_and(|begun_as| begun_as != modified) {
            let text = format!(
                "{} was begun as another version than it is finished as",
                self.name
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !self.filling.is_empty() {
            self.send_part()?;
        }
        while !self.under_way.is_empty() {
            self.await_one_part()?;
        }
        self.check(&condition)?;
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        let completed = self.runtime.block_on(upload.complete());
        completed.map_err(|error| self.said(&error))?;
        self.upload = None;
        Ok(())
    }

    fn check(&self, condition: &PutCondition) -> io::Result<()> {
        let found = match condition {
            PutCondition::None => return Ok(()),
            PutCondition::Absent | PutCondition::Tag(_) => self.tag()?,
        };
        match (condition, found) {
            (PutCondition::Absent, None) => Ok(()),
            (PutCondition::Tag(tag), Some(found)) if *tag == found => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} was changed by another writer", self.name),
            )),
        }
    }

    /// The object's present tag.
    fn tag(&self) -> io::Result<Option<String>> {
        match self.runtime.block_on(self.store.head(&self.path)) {
            Ok(meta) => Ok(Some(meta.e_tag.unwrap_or_default())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.said(&error)),
        }
    }
}

/// What must be in the object's place for it to become visible.
enum PutCondition {
    /// Anything.
    None,
    /// No object.
    Absent,
    /// The object with this tag.
    Tag(String),
}

impl PutCondition {
    fn put_mode(&self) -> PutMode {
        match self {
            Self::None => PutMode::Overwrite,
            Self::Absent => PutMode::Create,
            Self::Tag(tag) => PutMode::Update(UpdateVersion {
                e_tag: Some(tag.clone()),
                version: None,
            }),
        }
    }
}

impl Write for PendingObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let free = self.part_bytes().saturating_sub(self.filling.len());
        let taken = free.min(bytes.len());
        self.filling.extend_from_slice(&bytes[..taken]);
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
    fn commit(mut self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.complete(modified, PutCondition::None)
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
        self.complete(modified, condition)?;
        let head = self.runtime.block_on(self.store.head(&self.path));
        let meta = head.map_err(|error| self.said(&error))?;
        Ok(FileEntry {
            name: self.name.clone(),
            size: meta.size,
            modified,
            fingerprint: meta.e_tag.unwrap_or_default(),
            changed: None,
        })
    }
}

impl Drop for PendingObject {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        self.under_way.abort_all();
        let name = self.name.clone();
        self.runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
                warn!(%name, %error, "Could not abort an unfinished upload; a lifecycle rule of the bucket should remove it.");
            }
        });
    }
}
