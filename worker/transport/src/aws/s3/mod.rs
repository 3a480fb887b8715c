//! Files in a bucket, below a prefix. Calls block, as those of [`Files`] do, and run on a runtime.
//!
//! An object is visible whole or not at all by S3's own rules. Its version (the file's modification time) goes with
//! it as metadata; objects of others have S3's time. Bytes are checked by S3 part by part (SHA-256).

mod http;
mod keys;
mod pending;
mod requests;
mod uploads;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, GetResult, ObjectMeta, ObjectStore,
    ObjectStoreExt,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::warn;

use self::keys::{key, name};
use self::pending::{ObjectPlace, PendingObject};
use self::requests::{BucketRequests, Conditional, ListedObject};
use self::uploads::Uploads;
use super::Aws;
use crate::files::NOT_OURS;
use crate::{
    ExactFile, ExactOutcome, FileEntry, FileName, Files, LeftOut, Listing, PendingFile,
    ReservedEntry,
};

/// Metadata that carries a file's version, in nanoseconds since 1970.
const VERSION_KEY: &str = "streampress-modified-nanos";
/// What a probe writes.
const PROBE_BODY: &str = "written by streampress to see whether the bucket takes objects";
/// S3 copies no object within itself that is larger: 5 GB.
const MOST_COPIED_BYTES: u64 = 5_000_000_000;
/// Concurrent requests for objects' metadata, in a listing.
const CONCURRENT_HEADS: usize = 16;

/// A location in a bucket.
pub struct S3Files {
    location: String,
    prefix: String,
    store: Arc<dyn ObjectStore>,
    /// What the store does not do; without, it lists and deletes as well as it can.
    requests: Option<Arc<BucketRequests>>,
    /// The same for uploads in parts.
    uploads: Option<Arc<Uploads>>,
    /// Whether the service has refused to delete under a condition.
    deletes_blindly: AtomicBool,
    runtime: Handle,
    /// Versions from earlier listings, by key and with S3's tag: an object's metadata is requested once.
    versions: Mutex<HashMap<String, (String, SystemTime)>>,
}

impl fmt::Debug for S3Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Files")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl Aws {
    /// Opens `prefix` of `bucket`; `location` is the text that the user wrote for it. Call it within a runtime, on
    /// which the blocking calls then run.
    pub fn files(&self, location: &str, bucket: &str, prefix: &str) -> io::Result<S3Files> {
        let region = self
            .sdk
            .region()
            .map_or("us-east-1", |region| region.as_ref());
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_http_connector(http::Connector {
                piece_within: http::PIECE_WITHIN,
            });
        let chain = http::Chain::of(&self.sdk);
        if let Some(chain) = &chain {
            builder = builder.with_credentials(chain.clone());
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        let connector = http::Connector {
            piece_within: http::PIECE_WITHIN,
        };
        let endpoint = self.endpoint.as_deref();
        let requests = BucketRequests::new(&connector, chain, region, endpoint, bucket);
        let fault = |error| said(&error, "cannot open", location);
        let store = Arc::new(builder.build().map_err(fault)?);
        let requests = Arc::new(requests.map_err(fault)?);
        Ok(S3Files {
            uploads: Some(Uploads::new(requests.clone(), store.clone())),
            requests: Some(requests),
            ..S3Files::over(store, location, prefix)
        })
    }
}

impl S3Files {
    /// Over any object store; tests use one in memory.
    fn over(store: Arc<dyn ObjectStore>, location: &str, prefix: &str) -> Self {
        Self {
            location: location.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            store,
            requests: None,
            uploads: None,
            deletes_blindly: AtomicBool::new(false),
            runtime: Handle::current(),
            versions: Mutex::default(),
        }
    }

    fn path(&self, name: &FileName) -> io::Result<Path> {
        let key = key(&self.prefix, name)?;
        Path::parse(&key).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} cannot be a key of a bucket: {error}"),
            )
        })
    }

    /// The name of the object with this key; an error with the cause where that is no file's key.
    fn named(&self, key: &str) -> Result<(FileName, Path), String> {
        let name = name(&self.prefix, key)?;
        let path = self.path(&name).map_err(|error| error.to_string())?;
        Ok((name, path))
    }

    async fn head(&self, path: &Path) -> object_store::Result<(ObjectMeta, SystemTime)> {
        let answer = self
            .store
            .get_opts(
                path,
                GetOptions {
                    head: true,
                    ..GetOptions::default()
                },
            )
            .await?;
        let version =
            version_of(&answer.attributes).unwrap_or_else(|| answer.meta.last_modified.into());
        Ok((answer.meta, version))
    }

    /// The object as a listing shows it, or why it cannot be handled; `None` for what is no file, or is gone again.
    async fn entry(
        &self,
        object: ListedObject,
    ) -> object_store::Result<Option<Result<FileEntry, LeftOut>>> {
        let below = match self.prefix.is_empty() {
            true => Some(object.key.as_str()),
            false => object
                .key
                .strip_prefix(&self.prefix)
                .and_then(|below| below.strip_prefix('/')),
        };
        // A folder's marker has no content and ends with a slash.
        let Some(below) = below.filter(|below| !below.ends_with('/') || object.size > 0) else {
            return Ok(None);
        };
        let leave_out = |reason: String| {
            Ok(Some(Err(LeftOut {
                name: below.to_owned(),
                reason,
                is_folder: false,
            })))
        };
        let (name, path) = match self.named(&object.key) {
            Ok(named) => named,
            Err(cause) => {
                return leave_out(format!(
                    "has a key that cannot be a file's name ({cause}): copy the object to another key"
                ));
            }
        };
        if name.is_reserved() {
            return match name.is_ours() {
                true => Ok(None),
                false => leave_out(NOT_OURS.to_owned()),
            };
        }
        let seen = self.versions.lock().get(&object.key).cloned();
        if let Some((tag, modified)) = seen
            && tag == object.tag
            && !tag.is_empty()
        {
            return Ok(Some(Ok(FileEntry {
                name,
                size: object.size,
                modified,
                fingerprint: tag,
                changed: None,
            })));
        }
        match self.head(&path).await {
            Ok((now, modified)) => {
                let tag = now.e_tag.clone().unwrap_or_default();
                self.versions.lock().insert(object.key, (tag, modified));
                Ok(Some(Ok(described(name, now, modified))))
            }
            // Removed since it was listed.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error @ object_store::Error::PermissionDenied { .. }) => {
                leave_out(format!("cannot be read: {error}; allow it"))
            }
            Err(error) => Err(error),
        }
    }

    /// The objects whose keys begin with that of a folder: all of them, or as many as are told at once.
    async fn objects(&self, folder: &str, extent: ListingExtent) -> io::Result<Vec<ListedObject>> {
        if let Some(requests) = &self.requests {
            let prefix = match folder {
                "" => String::new(),
                folder => format!("{folder}/"),
            };
            let listed = match extent {
                ListingExtent::All => requests.all(&prefix).await,
                ListingExtent::OnePage => requests.first(&prefix).await,
            };
            return listed.map_err(|error| {
                let text = format!("cannot list {}: {error}", self.location);
                io::Error::new(error.kind(), text)
            });
        }
        let prefix = Path::parse(folder).map_err(io::Error::other)?;
        let listed = self.store.list(Some(&prefix)).map_ok(|meta| ListedObject {
            key: meta.location.to_string(),
            size: meta.size,
            tag: meta.e_tag.unwrap_or_default(),
        });
        let listed: object_store::Result<Vec<_>> = listed.try_collect().await;
        listed.map_err(|error| said(&error, "cannot list", &self.location))
    }

    async fn list_all(&self) -> io::Result<Listing> {
        let objects = stream::iter(self.objects(&self.prefix, ListingExtent::All).await?);
        let entries = objects
            .map(|object| self.entry(object))
            .buffer_unordered(CONCURRENT_HEADS);
        let entries: Vec<_> = entries
            .try_collect()
            .await
            .map_err(|error: object_store::Error| said(&error, "cannot list", &self.location))?;
        let mut listing = Listing::default();
        for entry in entries.into_iter().flatten() {
            match entry {
                Ok(entry) => listing.files.push(entry),
                Err(left_out) => listing.left_out.push(left_out),
            }
        }
        listing.files.sort_by(|a, b| a.name.cmp(&b.name));
        listing.left_out.sort_by(|a, b| a.name.cmp(&b.name));
        let mut versions = self.versions.lock();
        if versions.len() > 2 * listing.files.len() + 1000 {
            versions.clear();
        }
        Ok(listing)
    }
}

impl Files for S3Files {
    fn location(&self) -> &str {
        &self.location
    }

    fn list(&self) -> io::Result<Listing> {
        self.runtime.block_on(self.list_all())
    }

    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        let path = self.path(name)?;
        match self.runtime.block_on(self.head(&path)) {
            Ok((meta, modified)) => Ok(Some(described(name.clone(), meta, modified))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(said(&error, "cannot read the metadata of", name)),
        }
    }

    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        let path = self.path(name)?;
        let answer = self
            .runtime
            .block_on(self.store.get(&path))
            .map_err(|error| said(&error, "cannot read", name))?;
        Ok(Box::new(self.reading(name, answer)))
    }

    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        let pending = PendingObject::new(self.place(name)?, None, Attributes::new());
        Ok(Box::new(pending))
    }

    fn create_version(
        &self,
        name: &FileName,
        modified: SystemTime,
    ) -> io::Result<Box<dyn PendingFile>> {
        let pending = PendingObject::new(self.place(name)?, Some(modified), Attributes::new());
        Ok(Box::new(pending))
    }

    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>> {
        let key = key(&self.prefix, folder)?;
        let objects = self
            .runtime
            .block_on(self.objects(&key, ListingExtent::All))?;
        let mut names: Vec<String> = objects
            .iter()
            .filter_map(|object| {
                let (name, _) = self.named(&object.key).ok()?;
                let below = name.as_str().strip_prefix(folder.as_str())?;
                let base = below.strip_prefix('/')?;
                (!base.contains('/')).then(|| base.to_owned())
            })
            .collect();
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        let path = self.path(name)?;
        match self.runtime.block_on(self.store.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(said(&error, "cannot remove", name)),
        }
    }

    /// Copies, then deletes what was copied: where another writer replaced it meanwhile, its object stays, and the copy too.
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        let Some(entry) = self.stat(from)? else {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(io::Error::new(
                error.kind(),
                format!("cannot rename {from}: {error}"),
            ));
        };
        if self.copy(&entry, to)? && self.delete_exact(&entry)? == ExactOutcome::Done {
            return Ok(());
        }
        let text = format!("cannot rename {from}: another program changes it at this moment");
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    }

    /// A bucket is never full. The object stays where it may not be removed, always under the same key.
    fn probe(&self, _bytes: u64) -> io::Result<()> {
        let name = ReservedEntry::Probe.file("")?;
        let path = self.path(&name)?;
        let put = self.store.put(&path, PROBE_BODY.into());
        self.runtime
            .block_on(put)
            .map_err(|error| said(&error, "cannot write", &name))?;
        let _ = self.runtime.block_on(self.store.delete(&path));
        Ok(())
    }

    fn sample(&self, most: usize) -> io::Result<Vec<FileName>> {
        let listing = self.objects(&self.prefix, ListingExtent::OnePage);
        let objects = self.runtime.block_on(listing)?;
        let named = objects
            .iter()
            .filter_map(|object| self.named(&object.key).ok());
        Ok(named.map(|(name, _)| name).take(most).collect())
    }

    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
        match self.is_exact(file)? {
            true => self.delete_exact(file.entry),
            false => Ok(ExactOutcome::Changed),
        }
    }

    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome> {
        // Nothing is read for a name that is taken already.
        if self.stat(to)?.is_some() {
            return Ok(ExactOutcome::NameTaken);
        }
        if !self.is_exact(file)? {
            return Ok(ExactOutcome::Changed);
        }
        match self.copy_new(file.entry, to) {
            Ok(()) => self.remove_exact(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(ExactOutcome::NameTaken)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ExactOutcome::Changed),
            Err(error) => Err(error),
        }
    }
}

/// How much of a listing is requested.
#[derive(Clone, Copy)]
enum ListingExtent {
    All,
    OnePage,
}

impl S3Files {
    fn place(&self, name: &FileName) -> io::Result<ObjectPlace> {
        Ok(ObjectPlace {
            store: self.store.clone(),
            uploads: self.uploads.clone(),
            runtime: self.runtime.clone(),
            name: name.clone(),
            path: self.path(name)?,
        })
    }

    fn is_exact(&self, file: &ExactFile<'_>) -> io::Result<bool> {
        if self.stat(&file.entry.name)?.as_ref() != Some(file.entry) {
            return Ok(false);
        }
        file.has_bytes(|| self.read(&file.entry.name))
    }

    /// Deletes the object that was just seen under its name. Where the service knows conditions (S3 does since 2025) nothing that
    /// came since is deleted; elsewhere the look before is all that protects it.
    fn delete_exact(&self, entry: &FileEntry) -> io::Result<ExactOutcome> {
        let requests = self.requests.as_ref();
        if let Some(requests) = requests.filter(|_| !self.deletes_blindly.load(Relaxed)) {
            let path = self.path(&entry.name)?;
            let deleting = requests.delete_exact(path.as_ref(), &entry.fingerprint);
            let deletion = self.runtime.block_on(deleting).map_err(|error| {
                let text = format!("cannot remove {}: {error}", entry.name);
                io::Error::new(error.kind(), text)
            });
            match deletion? {
                Conditional::Done => return Ok(ExactOutcome::Done),
                Conditional::Changed => return Ok(ExactOutcome::Changed),
                Conditional::Unsupported => self.deletes_blindly.store(true, Relaxed),
            }
            // The refusal took its time: the look before is not right before any more.
            if self.stat(&entry.name)?.as_ref() != Some(entry) {
                return Ok(ExactOutcome::Changed);
            }
        }
        self.remove(&entry.name).map(|()| ExactOutcome::Done)
    }

    /// Copies exactly this object to a free name: an error of kind `AlreadyExists` where it is taken, and of kind `NotFound`
    /// where the object is another one by now.
    fn copy_new(&self, from: &FileEntry, to: &FileName) -> io::Result<()> {
        let pending = self.read_into(from, to)?;
        pending.commit_over(from.modified, None).map(drop)
    }

    /// Reads exactly this object, with what else it carries, into one to be written under another name: of any size. An error of
    /// kind `NotFound` where it is another one by now.
    fn read_into(&self, from: &FileEntry, to: &FileName) -> io::Result<Box<PendingObject>> {
        let source = self.path(&from.name)?;
        let options = GetOptions {
            if_match: Some(from.fingerprint.clone()),
            ..GetOptions::default()
        };
        let answer = match self.runtime.block_on(self.store.get_opts(&source, options)) {
            Err(object_store::Error::Precondition { .. }) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            answer => answer.map_err(|error| said(&error, "cannot read", &from.name))?,
        };
        let attributes = answer.attributes.clone();
        let mut reading = self.reading(&from.name, answer);
        let place = self.place(to)?;
        let mut pending = Box::new(PendingObject::new(place, Some(from.modified), attributes));
        io::copy(&mut reading, &mut pending)?;
        Ok(pending)
    }

    /// Copies exactly this object, whatever has the new name; false where it is another one by now.
    fn copy(&self, from: &FileEntry, to: &FileName) -> io::Result<bool> {
        let requests = self.requests.as_ref();
        if let Some(requests) = requests.filter(|_| from.size <= MOST_COPIED_BYTES) {
            let (source, target) = (self.path(&from.name)?, self.path(to)?);
            let copying = requests.copy_exact(source.as_ref(), &from.fingerprint, target.as_ref());
            let copied = self.runtime.block_on(copying).map_err(|error| {
                let text = format!("cannot copy {} to {to}: {error}", from.name);
                io::Error::new(error.kind(), text)
            });
            match copied? {
                Conditional::Done => return Ok(true),
                Conditional::Changed => return Ok(false),
                Conditional::Unsupported => {}
            }
        }
        match self.read_into(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            copy => copy?.commit(from.modified).map(|()| true),
        }
    }

    fn reading(&self, name: &FileName, answer: GetResult) -> Reading {
        Reading {
            name: name.clone(),
            left: answer.meta.size,
            chunks: answer.into_stream(),
            buffered: Bytes::new(),
            runtime: self.runtime.clone(),
        }
    }
}

fn described(name: FileName, meta: ObjectMeta, modified: SystemTime) -> FileEntry {
    FileEntry {
        name,
        size: meta.size,
        modified,
        fingerprint: meta.e_tag.unwrap_or_default(),
        changed: None,
    }
}

/// An object being read. Ends with an error, never short, when the connection breaks.
struct Reading {
    name: FileName,
    left: u64,
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    buffered: Bytes,
    runtime: Handle,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.buffered.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                Some(chunk) => {
                    self.buffered =
                        chunk.map_err(|error| said(&error, "cannot read on in", &self.name))?
                }
                None if self.left > 0 => {
                    let text = format!("{} ended {} bytes early", self.name, self.left);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                None => return Ok(0),
            }
        }
        let bytes = buffer.len().min(self.buffered.len());
        self.buffered.copy_to_slice(&mut buffer[..bytes]);
        self.left = self.left.saturating_sub(bytes as u64);
        Ok(bytes)
    }
}

/// These attributes with the metadata that carries a version.
fn with_version(mut attributes: Attributes, modified: SystemTime) -> Attributes {
    let nanos = modified
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    attributes.insert(
        Attribute::Metadata(VERSION_KEY.into()),
        AttributeValue::from(nanos.to_string()),
    );
    attributes
}

fn version_of(attributes: &Attributes) -> Option<SystemTime> {
    let nanos = attributes
        .get(&Attribute::Metadata(VERSION_KEY.into()))?
        .as_ref()
        .parse::<u64>();
    match nanos {
        Ok(nanos) => Some(UNIX_EPOCH + Duration::from_nanos(nanos)),
        Err(error) => {
            warn!(%error, "An object's version cannot be read; taking S3's time.");
            None
        }
    }
}

fn said(error: &object_store::Error, step: &str, what: impl fmt::Display) -> io::Error {
    use object_store::Error;
    let kind = match error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        Error::InvalidPath { .. } => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    };
    let why = match error {
        // There is no path yet where there are no credentials.
        Error::Unauthenticated { path, source } if path.is_empty() => source.to_string(),
        error => {
            let text = error.to_string();
            requests::told(&text).unwrap_or(text)
        }
    };
    io::Error::new(kind, format!("{step} {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use object_store::memory::InMemory;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::contract_tests::files as contract_files;

    /// Runs blocking checks on a bucket in memory.
    async fn check(checks: impl FnOnce(&S3Files) + Send + 'static) {
        let files = S3Files::over(
            Arc::new(InMemory::new()),
            "s3://bucket/some/prefix",
            "some/prefix",
        );
        tokio::task::spawn_blocking(move || checks(&files))
            .await
            .expect("the checks hold");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bucket_keeps_the_contract_of_files() {
        check(|files| contract_files::all(files)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_file_goes_up_in_parts_and_carries_its_version() {
        check(|files| {
            contract_files::a_large_file_is_visible_only_as_a_whole_and_carries_its_version(files);
            contract_files::a_large_file_is_replaced_only_if_it_is_the_one_that_was_seen(files);
        })
        .await;
    }

    /// Reads a request's head.
    async fn asked(connection: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.expect("a request"));
        }
        String::from_utf8_lossy(&head).to_lowercase()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_stalls_continues_where_it_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serving = tokio::spawn(async move {
            let dated = "ETag: \"e\"\r\nLast-Modified: Wed, 12 Nov 2025 00:00:00 GMT\r\n";
            let (mut stalled, _) = listener.accept().await.expect("a client");
            asked(&mut stalled).await;
            let half = format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{dated}\r\nfirst");
            stalled.write_all(half.as_bytes()).await.expect("sent");
            // It stays open, and nothing more is sent.
            let (mut next, _) = listener.accept().await.expect("a second connection");
            let head = asked(&mut next).await;
            let rest = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/10\r\n{dated}\r\nlast."
            );
            next.write_all(rest.as_bytes()).await.expect("sent");
            (head, stalled, next)
        });
        let store = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_region("us-east-1")
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_endpoint(format!("http://{address}"))
            .with_allow_http(true)
            .with_http_connector(http::Connector {
                // The second connection must answer within it, on a busy machine too.
                piece_within: Duration::from_secs(3),
            })
            .build()
            .expect("a store");
        let files = S3Files::over(Arc::new(store), "s3://bucket/in", "in");
        let reading = tokio::task::spawn_blocking(move || {
            contract_files::read(&files, &contract_files::name("a.txt"))
        });
        let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert_eq!(read.expect("it ends").expect("no panic"), b"firstlast.");
        let (head, ..) = serving.await.expect("no panic");
        assert!(head.contains("range: bytes=5-9"), "{head}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_file_that_is_given_up_leaves_nothing() {
        check(|files| {
            let name = contract_files::name("given-up.bin");
            let mut pending = files
                .create_version(&name, contract_files::version(7))
                .expect("begun");
            pending.write_all(&vec![1; 20 << 20]).expect("written");
            drop(pending);
            assert_eq!(files.list().expect("listed"), Listing::default());
        })
        .await;
    }
}
