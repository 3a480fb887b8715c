//! Requests to a bucket that object_store does not make. A listing (ListObjectsV2): object_store gives up a whole listing for
//! one key that it cannot hold, as one with an empty part, `.` or `..`; here every key is told as it is. And a deletion of
//! exactly one object, under the condition of its tag.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::IF_MATCH;
use ::http::request::Builder;
use ::http::{Method, Request, StatusCode};
use object_store::ClientOptions;
use object_store::CredentialProvider;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

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

/// What became of an object that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    Done,
    /// Another object has its key, or none has.
    Changed,
    /// The service knows no deletions under a condition; nothing was done.
    Unsupported,
}

/// Makes requests to one bucket.
pub(super) struct BucketRequests {
    client: HttpClient,
    credentials: Option<Arc<Chain>>,
    region: String,
    /// Endpoint and bucket.
    url: String,
}

/// S3's answer, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    contents: Vec<AnsweredObject>,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
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
            url: format!("{endpoint}/{bucket}"),
        })
    }

    /// Every object whose key begins with `prefix`.
    pub(super) async fn all(&self, prefix: &str) -> io::Result<Vec<ListedObject>> {
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let answer = self.page(prefix, token.as_deref()).await?;
            let is_encoded = answer.encoding_type.as_deref() == Some("url");
            objects.extend(answer.contents.into_iter().map(|object| ListedObject {
                key: match is_encoded {
                    true => decoded(&object.key),
                    false => object.key,
                },
                size: object.size,
                tag: object.e_tag.unwrap_or_default(),
            }));
            token = answer.next_continuation_token;
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Deletes the object with this key if it still has this tag.
    pub(super) async fn delete_exact(&self, key: &str, tag: &str) -> io::Result<Deletion> {
        let url = format!("{}/{}", self.url, utf8_percent_encode(key, PATH));
        let request = || {
            Request::builder()
                .method(Method::DELETE)
                .uri(&url)
                .header(IF_MATCH, tag)
        };
        let mut attempt = 1;
        loop {
            let (status, body) = match self.send(request()).await {
                // Of a lost answer to a deletion that was made, the next one says that there is no such object.
                Err(error) if is_transient(&error) && attempt < ATTEMPTS => {
                    tokio::time::sleep(BACKOFF.equal_jitter(attempt)).await;
                    attempt += 1;
                    continue;
                }
                answer => answer?,
            };
            return match status {
                status if status.is_success() => Ok(Deletion::Done),
                StatusCode::NOT_FOUND if attempt > 1 => Ok(Deletion::Done),
                StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
                    Ok(Deletion::Changed)
                }
                StatusCode::NOT_IMPLEMENTED => Ok(Deletion::Unsupported),
                status => {
                    let error = refused(status, &body);
                    if is_transient(&error) && attempt < ATTEMPTS {
                        tokio::time::sleep(BACKOFF.equal_jitter(attempt)).await;
                        attempt += 1;
                        continue;
                    }
                    Err(error)
                }
            };
        }
    }

    /// One page; requested again where the cause of a failure may pass.
    async fn page(&self, prefix: &str, token: Option<&str>) -> io::Result<Answer> {
        let mut attempt = 1;
        loop {
            match self.request(prefix, token).await {
                Err(error) if is_transient(&error) && attempt < ATTEMPTS => {
                    tokio::time::sleep(BACKOFF.equal_jitter(attempt)).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn request(&self, prefix: &str, token: Option<&str>) -> io::Result<Answer> {
        let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let mut url = format!(
            "{}?encoding-type=url&list-type=2&prefix={}",
            self.url,
            encoded(prefix)
        );
        if let Some(token) = token {
            url.push_str("&continuation-token=");
            url.push_str(&encoded(token));
        }
        let (status, text) = self.send(Request::builder().uri(url)).await?;
        match status.is_success() {
            true => quick_xml::de::from_str(&text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            false => Err(refused(status, &text)),
        }
    }

    /// Signs and sends a request without a body; answers the status and the answer's body.
    async fn send(&self, request: Builder) -> io::Result<(StatusCode, String)> {
        let request = request.body(HttpRequestBody::empty());
        let mut request = request.map_err(io::Error::other)?;
        if let Some(credentials) = &self.credentials {
            let credential = credentials.get_credential().await;
            let credential =
                credential.map_err(|error| super::said(&error, "cannot reach", &self.url))?;
            AwsAuthorizer::new(&credential, "s3", &self.region)
                .try_authorize(&mut request, None)
                .map_err(io::Error::other)?;
        }
        let late = |error| io::Error::new(io::ErrorKind::TimedOut, error);
        let response = self.client.execute(request).await.map_err(late)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(late)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// S3's refusal with its code and message.
fn refused(status: StatusCode, body: &str) -> io::Error {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
    };
    let kind = match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => io::ErrorKind::PermissionDenied,
        StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
        status if status.is_server_error() => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    let code = element("Code").unwrap_or_default();
    let message = element("Message").unwrap_or_default();
    io::Error::new(kind, format!("{status} {code}: {message}"))
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
            Deletion::Done,
            Deletion::Changed,
            Deletion::Changed,
            Deletion::Changed,
            Deletion::Unsupported,
            // The request before may have deleted it.
            Deletion::Done,
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
