//! The calls of S3 that Streampress makes, on objects of any bucket: list, look, read, write, copy and delete, and uploads in
//! parts, with S3's conditions.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Metadata of an object begins so.
const METADATA: &str = "x-amz-meta-";

/// An object.
#[derive(Debug, Clone, Default)]
struct StoredObject {
    bytes: Bytes,
    /// Its metadata and the type of its content, by header.
    metadata: BTreeMap<String, String>,
    /// Each write has its own, as no two writes of a bucket with a KMS key have the same.
    tag: String,
}

/// An upload in parts.
#[derive(Debug, Clone, Default)]
struct StoredUpload {
    object: String,
    metadata: BTreeMap<String, String>,
    parts: BTreeMap<usize, Bytes>,
}

/// S3's state: objects by bucket and key, as `bucket/key`.
#[derive(Debug, Default)]
pub struct S3 {
    objects: BTreeMap<String, StoredObject>,
    writes: u64,
    /// Whether it knows no deletions under a condition, as S3 before September 2025 and some servers.
    pub without_conditional_deletes: bool,
    /// Whether it knows no condition of a completed upload, as S3 before November 2024 and some servers.
    pub without_conditional_completions: bool,
    /// The bucket that does not exist; all others do.
    pub missing_bucket: Option<String>,
    reads: BTreeMap<String, u64>,
    uploads: BTreeMap<String, StoredUpload>,
    /// What another program writes right before the next deletion or completed upload, by object.
    raced: BTreeMap<String, Bytes>,
}

/// A request's answer: status, headers, body.
type S3Answer = (StatusCode, Vec<(String, String)>, Bytes);

impl S3 {
    /// Writes an object of a type as another program does.
    pub fn write_as(&mut self, object: &str, bytes: &[u8], content_type: &str) {
        let metadata = [("content-type".to_owned(), content_type.to_owned())];
        self.put(object, Bytes::copy_from_slice(bytes), metadata.into());
    }

    /// The type of an object's content.
    pub fn content_type(&self, object: &str) -> Option<String> {
        self.objects
            .get(object)?
            .metadata
            .get("content-type")
            .cloned()
    }

    /// Writes an object as another program does.
    pub fn write(&mut self, object: &str, bytes: &[u8]) {
        self.put(object, Bytes::copy_from_slice(bytes), BTreeMap::new());
    }

    /// The bytes of an object.
    pub fn read(&self, object: &str) -> Option<Bytes> {
        self.objects.get(object).map(|found| found.bytes.clone())
    }

    /// Removes an object as another program does.
    pub fn remove(&mut self, object: &str) {
        self.objects.remove(object);
    }

    /// How often the object's bytes were read.
    pub fn reads(&self, object: &str) -> u64 {
        self.reads.get(object).copied().unwrap_or(0)
    }

    /// Another program replaces the object at the moment in which it is to be deleted, or an upload of it completed.
    pub fn write_before_change(&mut self, object: &str, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.raced.insert(object.to_owned(), bytes);
    }

    /// The keys of all objects that begin with this text, and the uploads that are neither completed nor given up.
    pub fn kept(&self, prefix: &str) -> (Vec<String>, usize) {
        let objects = self.objects.keys().filter(|key| key.starts_with(prefix));
        (objects.cloned().collect(), self.uploads.len())
    }

    fn put(&mut self, object: &str, bytes: Bytes, metadata: BTreeMap<String, String>) -> String {
        self.writes += 1;
        let tag = format!("\"{:032x}\"", self.writes);
        let written = StoredObject {
            bytes,
            metadata,
            tag: tag.clone(),
        };
        self.objects.insert(object.to_owned(), written);
        tag
    }

    /// Answers a request.
    pub(super) fn respond(&mut self, request: &Parts, body: Bytes) -> Response {
        let path = decoded(request.uri.path().trim_start_matches('/'));
        let query = request.uri.query().unwrap_or_default();
        let bucket = path.split('/').next();
        let is_missing = bucket.is_some() && bucket == self.missing_bucket.as_deref();
        let (status, headers, body) = match request.method.as_str() {
            _ if is_missing => refusal(StatusCode::NOT_FOUND, "NoSuchBucket"),
            "GET" if query.contains("list-type=2") => self.list(&path, query),
            "GET" | "HEAD" => self.get(&path, request),
            "PUT" if query.contains("uploadId=") => self.put_part(query, body),
            "PUT" => self.put_object(&path, &request.headers, body),
            "DELETE" if query.contains("uploadId=") => self.abort(query),
            "DELETE" => self.delete(&path, &request.headers),
            "POST" if query == "delete" => self.delete_all(&path, &body),
            "POST" if query == "uploads=" || query == "uploads" => self.begin(&path, request),
            "POST" if query.contains("uploadId=") => self.complete(query, &request.headers, &body),
            _ => refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let response = response.body(Body::from(body));
        response.expect("a well-formed response")
    }

    fn list(&self, bucket: &str, query: &str) -> S3Answer {
        let prefix = query
            .split('&')
            .find_map(|part| part.strip_prefix("prefix="))
            .map(decoded)
            .unwrap_or_default();
        let bucket = format!("{}/", bucket.trim_end_matches('/'));
        let is_encoded = query.contains("encoding-type=url");
        let mut xml = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        if is_encoded {
            xml.push_str("<EncodingType>url</EncodingType>");
        }
        for (object, found) in &self.objects {
            let Some(key) = object.strip_prefix(&bucket) else {
                continue;
            };
            if key.starts_with(&prefix) {
                let (size, tag) = (found.bytes.len(), found.tag.replace('"', "&quot;"));
                let modified = "2026-01-01T00:00:00.000Z";
                let key = match is_encoded {
                    true => encoded(key),
                    false => key.replace('&', "&amp;").replace('<', "&lt;"),
                };
                xml.push_str(&format!(
                    "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>"
                ));
            }
        }
        xml.push_str("</ListBucketResult>");
        (StatusCode::OK, Vec::new(), xml.into())
    }

    fn get(&mut self, object: &str, request: &Parts) -> S3Answer {
        let Some(found) = self.objects.get(object) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        if is_other(&request.headers, &found.tag) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let mut headers = vec![
            ("etag".to_owned(), found.tag.clone()),
            (
                "last-modified".to_owned(),
                "Thu, 01 Jan 2026 00:00:00 GMT".to_owned(),
            ),
            ("content-length".to_owned(), found.bytes.len().to_string()),
        ];
        headers.extend(found.metadata.clone());
        let body = match request.method.as_str() {
            "HEAD" => Bytes::new(),
            _ => {
                *self.reads.entry(object.to_owned()).or_default() += 1;
                found.bytes.clone()
            }
        };
        (StatusCode::OK, headers, body)
    }

    fn put_object(&mut self, object: &str, headers: &HeaderMap, body: Bytes) -> S3Answer {
        let present = self.objects.get(object);
        let has = |name: &str| headers.contains_key(name);
        let is_met = match present {
            None => !has("if-match"),
            Some(found) => !has("if-none-match") && !is_other(headers, &found.tag),
        };
        if !is_met {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let source = headers.get("x-amz-copy-source");
        let (bytes, metadata) = match source.and_then(|source| source.to_str().ok()) {
            Some(source) => {
                let source = decoded(source.trim_start_matches('/'));
                let condition = headers.get("x-amz-copy-source-if-match");
                match self.objects.get(&source) {
                    Some(found) if is_unlike(condition, &found.tag) => {
                        return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                    }
                    Some(found) => (found.bytes.clone(), found.metadata.clone()),
                    None => return refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
                }
            }
            None => (body, metadata_of(headers)),
        };
        let is_copy = source.is_some();
        let checksum = BASE64_STANDARD.encode(sha256(&bytes));
        let tag = self.put(object, bytes, metadata);
        let body = match is_copy {
            true => format!(
                "<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>",
                tag.replace('"', "&quot;")
            ),
            false => String::new(),
        };
        let headers = vec![
            ("etag".to_owned(), tag),
            ("x-amz-checksum-sha256".to_owned(), checksum),
        ];
        (StatusCode::OK, headers, body.into())
    }

    fn delete(&mut self, object: &str, headers: &HeaderMap) -> S3Answer {
        if let Some(bytes) = self.raced.remove(object) {
            self.put(object, bytes, BTreeMap::new());
        }
        let has_condition = headers.contains_key("if-match");
        if has_condition && self.without_conditional_deletes {
            return refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
        }
        match self.objects.get(object) {
            None if has_condition => return refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
            Some(found) if is_other(headers, &found.tag) => {
                return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
            }
            None | Some(_) => {}
        }
        self.objects.remove(object);
        (StatusCode::NO_CONTENT, Vec::new(), Bytes::new())
    }

    fn begin(&mut self, object: &str, request: &Parts) -> S3Answer {
        self.writes += 1;
        let id = format!("upload+{}", self.writes);
        let upload = StoredUpload {
            object: object.to_owned(),
            metadata: metadata_of(&request.headers),
            parts: BTreeMap::new(),
        };
        self.uploads.insert(id.clone(), upload);
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        (StatusCode::OK, Vec::new(), body.into())
    }

    fn put_part(&mut self, query: &str, bytes: Bytes) -> S3Answer {
        let number = parameter(query, "partNumber").parse();
        let upload = self.uploads.get_mut(&parameter(query, "uploadId"));
        let (Some(upload), Ok(number)) = (upload, number) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let checksum = BASE64_STANDARD.encode(sha256(&bytes));
        let headers = vec![
            ("etag".to_owned(), part_tag(&bytes)),
            ("x-amz-checksum-sha256".to_owned(), checksum),
        ];
        upload.parts.insert(number, bytes);
        (StatusCode::OK, headers, Bytes::new())
    }

    /// The parts must be named in their order, each with its tag.
    fn complete(&mut self, query: &str, headers: &HeaderMap, body: &[u8]) -> S3Answer {
        let id = parameter(query, "uploadId");
        let Some(upload) = self.uploads.get(&id).cloned() else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        if let Some(bytes) = self.raced.remove(&upload.object) {
            self.put(&upload.object, bytes, BTreeMap::new());
        }
        let has = |name: &str| headers.contains_key(name);
        if self.without_conditional_completions && (has("if-match") || has("if-none-match")) {
            return refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
        }
        match self.objects.get(&upload.object) {
            None if has("if-match") => return refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
            Some(found) if has("if-none-match") || is_other(headers, &found.tag) => {
                return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
            }
            None | Some(_) => {}
        }
        let named = String::from_utf8_lossy(body).replace("&quot;", "\"");
        let expected: String = upload
            .parts
            .iter()
            .map(|(number, bytes)| {
                let (tag, checksum) = (part_tag(bytes), BASE64_STANDARD.encode(sha256(bytes)));
                format!("<Part><ETag>{tag}</ETag><PartNumber>{number}</PartNumber><ChecksumSHA256>{checksum}</ChecksumSHA256></Part>")
            })
            .collect();
        if named != format!("<CompleteMultipartUpload>{expected}</CompleteMultipartUpload>") {
            return refusal(StatusCode::BAD_REQUEST, "InvalidPart");
        }
        let bytes: Vec<u8> = upload.parts.values().flatten().copied().collect();
        let tag = self.put(&upload.object, bytes.into(), upload.metadata);
        self.uploads.remove(&id);
        let body = format!(
            "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
            tag.replace('"', "&quot;")
        );
        (StatusCode::OK, Vec::new(), body.into())
    }

    fn abort(&mut self, query: &str) -> S3Answer {
        self.uploads.remove(&parameter(query, "uploadId"));
        (StatusCode::NO_CONTENT, Vec::new(), Bytes::new())
    }

    fn delete_all(&mut self, bucket: &str, body: &[u8]) -> S3Answer {
        let mut xml = String::from("<DeleteResult>");
        for key in keys(body) {
            let object = format!("{}/{key}", bucket.trim_end_matches('/'));
            self.delete(&object, &HeaderMap::new());
            xml.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
        xml.push_str("</DeleteResult>");
        (StatusCode::OK, Vec::new(), xml.into())
    }
}

/// The keys in the body of a request to delete several objects.
fn keys(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body).into_owned();
    let keys = text.split("<Key>").skip(1);
    let marks = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    keys.filter_map(|rest| {
        let key = rest.split_once("</Key>")?.0.to_owned();
        let unescaped = marks
            .iter()
            .fold(key, |key, (mark, plain)| key.replace(mark, plain));
        Some(unescaped)
    })
    .collect()
}

/// Whether the request is about another object than the one with this tag.
fn is_other(headers: &HeaderMap, tag: &str) -> bool {
    is_unlike(headers.get("if-match"), tag)
}

fn is_unlike(condition: Option<&HeaderValue>, tag: &str) -> bool {
    condition.is_some_and(|wanted| wanted.as_bytes() != tag.as_bytes())
}

/// The value of a query's parameter.
fn parameter(query: &str, name: &str) -> String {
    let mut parts = query.split('&');
    let value = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    value.map(decoded).unwrap_or_default()
}

fn part_tag(bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{}\"", &hex[..32])
}

fn metadata_of(headers: &HeaderMap) -> BTreeMap<String, String> {
    let metadata = headers.iter().filter_map(|(name, value)| {
        let is_metadata = name.as_str().starts_with(METADATA) || name == "content-type";
        is_metadata.then_some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    metadata.collect()
}

fn refusal(status: StatusCode, code: &str) -> S3Answer {
    let body = format!("<Error><Code>{code}</Code><Message>fake</Message></Error>");
    (status, Vec::new(), body.into())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

/// As S3 encodes keys in a listing: a space is a plus.
fn encoded(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() || b"/-._*".contains(&byte) => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// Without percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
