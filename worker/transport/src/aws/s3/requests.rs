//! Requests to a bucket that object_store does not make. A listing (ListObjectsV2): object_store gives up a whole listing for
//! one key that it cannot hold, as one with an empty part, `.` or `..`; here every key is told as it is. A deletion and a copy
//! of exactly one object, under the condition of its tag. And the completion of an upload in parts under a condition.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
};
use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use object_store::CredentialProvider;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody};
use object_store::{Attribute, Attributes, ClientOptions};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::http::{Chain, Connector};
use crate::Backoff;

/// What a query's value keeps as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What a path keeps as it is.
const PATH: &AsciiSet = &QUERY.remove(b'/');
/// A request that fails for a cause that may pass is made so often in all.
const ATTEMPTS: u32 = 6;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const COPY_IF_MATCH: HeaderName = HeaderName::from_static("x-amz-copy-source-if-match");
const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
const STORAGE_CLASS: HeaderName = HeaderName::from_static("x-amz-storage-class");

/// An object as a listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedObject {
    /// The whole key; what is not UTF-8 is replaced.
    pub(super) key: String,
    /// Bytes.
    pub(super) size: u64,
    /// S3's tag; empty where it tells none.
    pub(super) tag: String,
}

/// What became of a request under a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditional {
    Done,
    /// The condition is not met: another object has the key, or none has.
    Changed,
    /// The service does not know the condition; nothing was done.
    Unsupported,
}

/// What became of an upload that was to be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Completion {
    /// The object is visible, with this tag.
    Done(String),
    /// The condition is not met.
    Changed,
    /// The service does not know the condition; nothing was done.
    Unsupported,
}

/// A part of an upload that is on the bucket's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct UploadedPart {
    #[serde(rename = "ETag")]
    pub(super) tag: String,
    #[serde(rename = "PartNumber")]
    pub(super) number: usize,
    #[serde(rename = "ChecksumSHA256", skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
}

/// All parts of an upload, as the request to complete it has them.
#[derive(Debug, Serialize)]
#[serde(rename = "CompleteMultipartUpload")]
struct PartList<'a> {
    #[serde(rename = "Part")]
    parts: &'a [UploadedPart],
}

/// The answer to the request to complete an upload.
#[derive(Debug, Deserialize)]
struct CompletedUpload {
    #[serde(rename = "ETag")]
    tag: String,
}

/// The answer to the request to begin an upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BegunUpload {
    upload_id: String,
}

/// Makes requests to one bucket.
pub(super) struct BucketRequests {
    client: HttpClient,
    credentials: Option<Arc<Chain>>,
    region: String,
    bucket: String,
    /// Endpoint and bucket.
    url: String,
}

/// A page of a listing, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListingPage {
    #[serde(default)]
    contents: Vec<AnsweredObject>,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
}

impl ListingPage {
    fn into_objects(self) -> (Vec<ListedObject>, Option<String>) {
        let is_encoded = self.encoding_type.as_deref() == Some("url");
        let objects = self.contents.into_iter().map(|object| ListedObject {
            key: match is_encoded {
                true => decoded(&object.key),
                false => object.key,
            },
            size: object.size,
            tag: object.e_tag.unwrap_or_default(),
        });
        (objects.collect(), self.next_continuation_token)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AnsweredObject {
    key: String,
    size: u64,
    #[serde(rename = "ETag")]
    e_tag: Option<String>,
}

impl BucketRequests {
    /// For the bucket at an endpoint; without one, at AWS.
    pub(super) fn new(
        connector: &Connector,
        credentials: Option<Arc<Chain>>,
        region: &str,
        endpoint: Option<&str>,
        bucket: &str,
    ) -> object_store::Result<Self> {
        let aws = format!("https://s3.{region}.amazonaws.com");
        let endpoint = endpoint.unwrap_or(&aws).trim_end_matches('/');
        Ok(Self {
            client: connector.connect(&ClientOptions::default())?,
            credentials,
            region: region.to_owned(),
            bucket: bucket.to_owned(),
            url: format!("{endpoint}/{bucket}"),
        })
    }

    /// Every object whose key begins with `prefix`.
    pub(super) async fn all(&self, prefix: &str) -> io::Result<Vec<ListedObject>> {
        let (mut objects, mut token) = self.page(prefix, None).await?;
        while let Some(next) = token.take() {
            let (more, after) = self.page(prefix, Some(&next)).await?;
            objects.extend(more);
            token = after;
        }
        Ok(objects)
    }

    /// The first of them, up to a thousand: as many as S3 tells at once.
    pub(super) async fn first(&self, prefix: &str) -> io::Result<Vec<ListedObject>> {
        Ok(self.page(prefix, None).await?.0)
    }

    /// Deletes the object with this key if it still has this tag.
    pub(super) async fn delete_exact(&self, key: &str, tag: &str) -> io::Result<Conditional> {
        let condition = [(IF_MATCH, value(tag)?)];
        let request = self.request(Method::DELETE, key, "", condition);
        let (answer, attempts) = self.ask(request, Bytes::new()).await?;
        match answer {
            // Of a lost answer to a deletion that was made, the next one says that there is no such object.
            Answer::Refused(StatusCode::NOT_FOUND, _) if attempts > 1 => Ok(Conditional::Done),
            answer => conditional(answer),
        }
    }

    /// Copies the object with this key if it has this tag, within the bucket and with its metadata; replaces what is at `to`.
    pub(super) async fn copy_exact(
        &self,
        key: &str,
        tag: &str,
        to: &str,
    ) -> io::Result<Conditional> {
        let source = format!("{}/{}", self.bucket, utf8_percent_encode(key, PATH));
        let headers = [(COPY_SOURCE, value(&source)?), (COPY_IF_MATCH, value(tag)?)];
        let request = self.request(Method::PUT, to, "", headers);
        conditional(self.ask(request, Bytes::new()).await?.0)
    }

    /// Begins an upload in parts of an object with these attributes; answers its id.
    pub(super) async fn begin_upload(
        &self,
        key: &str,
        attributes: &Attributes,
    ) -> io::Result<String> {
        let mut headers = headers_of(attributes)?;
        headers.push((CHECKSUM_ALGORITHM, HeaderValue::from_static("SHA256")));
        let request = self.request(Method::POST, key, "?uploads=", headers);
        match self.ask(request, Bytes::new()).await?.0 {
            Answer::Done(text) => {
                let begun: BegunUpload = quick_xml::de::from_str(&text).map_err(invalid)?;
                Ok(begun.upload_id)
            }
            Answer::Refused(status, body) => Err(refused(status, &body)),
        }
    }

    /// Makes the object of an upload visible, under a condition if there is one.
    pub(super) async fn complete_upload(
        &self,
        key: &str,
        id: &str,
        parts: &[UploadedPart],
        condition: Option<(HeaderName, &str)>,
    ) -> io::Result<Completion> {
        let body = quick_xml::se::to_string(&PartList { parts }).map_err(invalid)?;
        let query = format!("?uploadId={}", utf8_percent_encode(id, QUERY));
        let condition = condition.map(|(name, text)| Ok::<_, io::Error>((name, value(text)?)));
        let request = self.request(Method::POST, key, &query, condition.transpose()?);
        match self.ask(request, body.into()).await?.0 {
            // Of the upload, not of an object: an earlier attempt may have completed it.
            Answer::Refused(status, body) if code(&body) == "NoSuchUpload" => {
                Err(refused(status, &body))
            }
            Answer::Done(text) => {
                let completed: CompletedUpload = quick_xml::de::from_str(&text).map_err(invalid)?;
                Ok(Completion::Done(completed.tag))
            }
            answer => Ok(match conditional(answer)? {
                Conditional::Unsupported => Completion::Unsupported,
                Conditional::Done | Conditional::Changed => Completion::Changed,
            }),
        }
    }

    /// One page, and the token of the next one.
    async fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
    ) -> io::Result<(Vec<ListedObject>, Option<String>)> {
        let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let mut uri = format!(
            "{}?encoding-type=url&list-type=2&prefix={}",
            self.url,
            encoded(prefix)
        );
        if let Some(token) = token {
            uri.push_str("&continuation-token=");
            uri.push_str(&encoded(token));
        }
        let request = BucketRequest {
            method: Method::GET,
            uri,
            headers: HeaderMap::new(),
        };
        match self.ask(request, Bytes::new()).await?.0 {
            Answer::Done(text) => {
                let page: ListingPage = quick_xml::de::from_str(&text).map_err(invalid)?;
                Ok(page.into_objects())
            }
            Answer::Refused(status, body) => Err(refused(status, &body)),
        }
    }

    fn request(
        &self,
        method: Method,
        key: &str,
        query: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> BucketRequest {
        BucketRequest {
            method,
            uri: format!("{}/{}{query}", self.url, utf8_percent_encode(key, PATH)),
            headers: headers.into_iter().collect(),
        }
    }

    /// Sends a request, and again where the cause of a failure may pass; answers how often, too.
    async fn ask(&self, request: BucketRequest, body: Bytes) -> io::Result<(Answer, u32)> {
        let mut attempt = 1;
        loop {
            let error = match self.send(&request, body.clone()).await {
                Ok(Answer::Refused(status, body)) => match refused(status, &body) {
                    error if is_transient(&error) => error,
                    _ => return Ok((Answer::Refused(status, body), attempt)),
                },
                Ok(answer) => return Ok((answer, attempt)),
                Err(error) if is_transient(&error) => error,
                Err(error) => return Err(error),
            };
            if attempt >= ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(BACKOFF.equal_jitter(attempt)).await;
            attempt += 1;
        }
    }

    /// Signs and sends a request.
    async fn send(&self, request: &BucketRequest, body: Bytes) -> io::Result<Answer> {
        let sent = Request::builder()
            .method(&request.method)
            .uri(&request.uri)
            .body(HttpRequestBody::from(body));
        let mut sent = sent.map_err(io::Error::other)?;
        *sent.headers_mut() = request.headers.clone();
        if sent.body().is_empty() && [Method::PUT, Method::POST].contains(&request.method) {
            // S3 wants it of these, and the client leaves it out.
            let none = HeaderValue::from_static("0");
            sent.headers_mut().insert(CONTENT_LENGTH, none);
        }
        if let Some(credentials) = &self.credentials {
            let credential = credentials.get_credential().await;
            let credential =
                credential.map_err(|error| super::said(&error, "cannot reach", &self.url))?;
            AwsAuthorizer::new(&credential, "s3", &self.region)
                .try_authorize(&mut sent, None)
                .map_err(io::Error::other)?;
        }
        let late = |error| io::Error::new(io::ErrorKind::TimedOut, error);
        let response = self.client.execute(sent).await.map_err(late)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(late)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        // Copies and completions are begun to be answered before it is known how they end.
        let is_refused = !status.is_success() || body.contains("<Error>");
        Ok(match is_refused {
            true => Answer::Refused(status, body),
            false => Answer::Done(body),
        })
    }
}

/// A request, as it is sent once or several times.
struct BucketRequest {
    method: Method,
    uri: String,
    headers: HeaderMap,
}

/// How a bucket answered.
enum Answer {
    /// With this body.
    Done(String),
    /// With this status and body.
    Refused(StatusCode, String),
}

fn conditional(answer: Answer) -> io::Result<Conditional> {
    let (status, body) = match answer {
        Answer::Done(_) => return Ok(Conditional::Done),
        Answer::Refused(status, body) => (status, body),
    };
    match (status, code(&body).as_str()) {
        (status, "NoSuchBucket") => Err(refused(status, &body)),
        (_, "PreconditionFailed" | "ConditionalRequestConflict")
        | (StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT | StatusCode::NOT_FOUND, _) => {
            Ok(Conditional::Changed)
        }
        (StatusCode::NOT_IMPLEMENTED, _) => Ok(Conditional::Unsupported),
        (status, _) => Err(refused(status, &body)),
    }
}

fn value(text: &str) -> io::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn headers_of(attributes: &Attributes) -> io::Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    for (attribute, text) in attributes {
        let name = match attribute {
            Attribute::CacheControl => CACHE_CONTROL,
            Attribute::ContentDisposition => CONTENT_DISPOSITION,
            Attribute::ContentEncoding => CONTENT_ENCODING,
            Attribute::ContentLanguage => CONTENT_LANGUAGE,
            Attribute::ContentType => CONTENT_TYPE,
            Attribute::StorageClass => STORAGE_CLASS,
            Attribute::Metadata(key) => {
                HeaderName::try_from(format!("x-amz-meta-{key}")).map_err(invalid)?
            }
            // One that a later object_store knows; nothing here makes it.
            _ => continue,
        };
        headers.push((name, value(text)?));
    }
    Ok(headers)
}

/// S3's refusal with its code and message.
fn refused(status: StatusCode, body: &str) -> io::Error {
    let kind = match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => io::ErrorKind::PermissionDenied,
        StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
        status if is_server_fault(status, body) => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{status} {}", told(body).unwrap_or_default()))
}

/// What S3 says in the text of an answer or of an error that quotes it: code and message, and for a bucket that does not exist
/// what to do. `None` where it says nothing.
pub(super) fn told(text: &str) -> Option<String> {
    let code = element(text, "Code")?;
    let message = element(text, "Message").unwrap_or_default();
    Some(match code.as_str() {
        "NoSuchBucket" => format!("{code}: {message}; make the bucket, or correct the location"),
        _ => format!("{code}: {message}"),
    })
}

fn code(body: &str) -> String {
    element(body, "Code").unwrap_or_default()
}

fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
}

/// A fault of the service that may pass: also one that it tells in an answer whose status is success.
fn is_server_fault(status: StatusCode, body: &str) -> bool {
    let is_fault = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    is_fault || (status.is_success() && ["InternalError", "SlowDown"].contains(&&*code(body)))
}

fn is_transient(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

/// As forms are encoded: a space is a plus.
fn decoded(key: &str) -> String {
    percent_decode_str(&key.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const FIRST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>in%2F</Prefix>
<NextContinuationToken>a+b/c=</NextContinuationToken><KeyCount>2</KeyCount><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>
<Contents><Key>in%2Fa+file%2B1.csv</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e1&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>in%2F%2F..%2Fodd%0A.csv</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e2&quot;</ETag><Size>8</Size></Contents>
</ListBucketResult>"#;
    const LAST: &str = r#"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated></ListBucketResult>"#;
    const BUSY: &str =
        "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";

    /// Answers one request after another; returns their first lines.
    async fn serve(listener: TcpListener, answers: Vec<(u16, &'static str)>) -> Vec<String> {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut connection, _) = listener.accept().await.expect("a client");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await.expect("a request"));
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            asked.push(head.lines().next().unwrap_or_default().to_owned());
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(answer.as_bytes()).await.expect("sent");
        }
        asked
    }

    #[tokio::test]
    async fn every_key_is_told_as_it_is_over_all_pages_and_a_busy_bucket_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let answers = vec![(200, FIRST), (503, BUSY), (200, LAST), (403, DENIED)];
        let serving = tokio::spawn(serve(listener, answers));
        let connector = Connector {
            piece_within: Duration::from_secs(30),
        };
        let lister = BucketRequests::new(&connector, None, "us-east-1", Some(&endpoint), "b");
        let lister = lister.expect("made");
        let listed = lister.all("in/").await.expect("listed");
        let shown: Vec<_> = listed
            .iter()
            .map(|object| (object.key.as_str(), object.size, object.tag.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("in/a file+1.csv", 7, "\"e1\""),
                ("in//../odd\n.csv", 8, "\"e2\"")
            ]
        );
        let error = lister.all("in/").await.expect_err("denied");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("AccessDenied"), "{error}");
        let asked = serving.await.expect("no panic");
        assert!(asked[0].contains("prefix=in%2F"), "{asked:?}");
        assert!(
            asked[2].contains("continuation-token=a%2Bb%2Fc%3D"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_fault_that_comes_in_an_answer_of_success_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let fault = "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
        let unmet = "<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>";
        let no_upload = "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>";
        let completed = "<CompleteMultipartUploadResult><Key>in/a</Key><ETag>&quot;e2&quot;</ETag></CompleteMultipartUploadResult>";
        let done = "<CopyObjectResult><ETag>&quot;e2&quot;</ETag></CopyObjectResult>";
        let answers = vec![
            (200, fault),
            (200, done),
            (412, unmet),
            (404, ""),
            (200, unmet),
            (501, ""),
            (200, completed),
            (404, no_upload),
        ];
        let serving = tokio::spawn(serve(listener, answers));
        let connector = Connector {
            piece_within: Duration::from_secs(30),
        };
        let requests = BucketRequests::new(&connector, None, "us-east-1", Some(&endpoint), "b");
        let requests = requests.expect("made");
        let copy = async || requests.copy_exact("in/a", "\"e1\"", "in/b c").await;
        for outcome in [
            Conditional::Done,
            Conditional::Changed,
            Conditional::Changed,
        ] {
            assert_eq!(copy().await.expect("answered"), outcome);
        }
        let part = UploadedPart {
            tag: "\"p\"".into(),
            number: 1,
            sha256: None,
        };
        let complete = async || {
            let parts = std::slice::from_ref(&part);
            let condition = Some((IF_MATCH, "\"e1\""));
            requests
                .complete_upload("in/a", "i+d", parts, condition)
                .await
        };
        for outcome in [
            Completion::Changed,
            Completion::Unsupported,
            Completion::Done("\"e2\"".into()),
        ] {
            assert_eq!(complete().await.expect("answered"), outcome);
        }
        let error = complete().await.expect_err("the upload is gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let asked = serving.await.expect("no panic");
        assert!(asked[0].starts_with("PUT /b/in/b%20c "), "{asked:?}");
        assert!(
            asked[4].starts_with("POST /b/in/a?uploadId=i%2Bd "),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_deletion_is_of_exactly_the_object_with_the_tag() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let answers = vec![
            (204, ""),
            (412, ""),
            (409, ""),
            (404, ""),
            (501, ""),
            (503, BUSY),
            (404, ""),
            (403, DENIED),
        ];
        let serving = tokio::spawn(serve(listener, answers));
        let connector = Connector {
            piece_within: Duration::from_secs(30),
        };
        let requests = BucketRequests::new(&connector, None, "us-east-1", Some(&endpoint), "b");
        let requests = requests.expect("made");
        let delete = async || requests.delete_exact("in/a file+1.csv", "\"e1\"").await;
        for outcome in [
            Conditional::Done,
            Conditional::Changed,
            Conditional::Changed,
            Conditional::Changed,
            Conditional::Unsupported,
            // The request before may have deleted it.
            Conditional::Done,
        ] {
            assert_eq!(delete().await.expect("answered"), outcome);
        }
        let error = delete().await.expect_err("denied");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let asked = serving.await.expect("no panic");
        assert!(
            asked[0].starts_with("DELETE /b/in/a%20file%2B1.csv "),
            "{asked:?}"
        );
    }
}
