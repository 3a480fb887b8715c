//! The calls of S3 that Streampress makes, on objects of any bucket: list, look, read, write, copy and delete, with S3's
//! conditions. No uploads in parts.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Metadata of an object begins so.
const METADATA: &str = "x-amz-meta-";

/// An object.
#[derive(Debug, Clone, Default)]
struct StoredObject {
    bytes: Bytes,
    /// Its metadata, by header.
    metadata: BTreeMap<String, String>,
    /// Each write has its own, as no two writes of a bucket with a KMS key have the same.
    tag: String,
}

/// S3's state: objects by bucket and key, as `bucket/key`.
#[derive(Debug, Default)]
pub struct S3 {
    objects: BTreeMap<String, StoredObject>,
    writes: u64,
    /// Whether it knows no deletions under a condition, as S3 before September 2025 and some servers.
    pub without_conditional_deletes: bool,
    reads: BTreeMap<String, u64>,
    /// What another program writes right before the next deletion, by object.
    raced: BTreeMap<String, Bytes>,
}

/// A request's answer: status, headers, body.
type S3Answer = (StatusCode, Vec<(String, String)>, Bytes);

impl S3 {
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

    /// Another program replaces the object at the moment in which it is to be deleted.
    pub fn write_before_deletion(&mut self, object: &str, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.raced.insert(object.to_owned(), bytes);
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
        let (status, headers, body) = match request.method.as_str() {
            "GET" if query.contains("list-type=2") => self.list(&path, query),
            "GET" | "HEAD" => self.get(&path, request),
            "PUT" => self.put_object(&path, &request.headers, body),
            "DELETE" => self.delete(&path, &request.headers),
            "POST" if query == "delete" => self.delete_all(&path, &body),
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
        let mut xml = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        for (object, found) in &self.objects {
            let Some(key) = object.strip_prefix(&bucket) else {
                continue;
            };
            if key.starts_with(&prefix) {
                let (size, tag) = (found.bytes.len(), found.tag.replace('"', "&quot;"));
                let modified = "2026-01-01T00:00:00.000Z";
                let key = key.replace('&', "&amp;").replace('<', "&lt;");
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
                match self.objects.get(&source) {
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
    keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.replace("&amp;", "&")))
        .collect()
}

/// Whether the request is about another object than the one with this tag.
fn is_other(headers: &HeaderMap, tag: &str) -> bool {
    let condition = headers.get("if-match");
    condition.is_some_and(|wanted| wanted.as_bytes() != tag.as_bytes())
}

fn metadata_of(headers: &HeaderMap) -> BTreeMap<String, String> {
    let metadata = headers.iter().filter_map(|(name, value)| {
        let is_metadata = name.as_str().starts_with(METADATA);
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
