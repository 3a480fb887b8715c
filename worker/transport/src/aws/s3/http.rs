//! HTTP client and credentials of object_store: the same hyper and rustls as the AWS SDK, and the SDK's own credential chain,
//! so that S3 takes credentials from everywhere that SQS and Kinesis do.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_kinesis::config::ProvideCredentials;
use aws_sdk_kinesis::config::SharedCredentialsProvider;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::TokioExecutor;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::sync::Mutex;
use tokio::time::Sleep;
use tracing::warn;

use crate::aws::service_error::no_credentials;

/// Until the head of an answer; a part of 8 MiB over a slow line takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Until the next piece of an answer's body, however long all of it takes: without it, a connection whose other end is
/// gone would block its reader for ever.
pub(super) const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// Credentials are renewed so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Makes HTTP clients.
#[derive(Debug)]
pub(super) struct Connector {
    /// See [`PIECE_WITHIN`].
    pub(super) piece_within: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: Box::new(error),
            })?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(HttpClient::new(Hyper {
            client: Client::builder(TokioExecutor::new()).build(tls),
            piece_within: self.piece_within,
        }))
    }
}

#[derive(Debug)]
struct Hyper {
    client: Client<HttpsConnector<Tcp>, HttpRequestBody>,
    piece_within: Duration,
}

#[async_trait]
impl HttpService for Hyper {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.client.request(request)).await;
        let answer = answer.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
        let answer = answer.map_err(|error| {
            let kind = if error.is_connect() {
                HttpErrorKind::Connect
            } else {
                HttpErrorKind::Request
            };
            HttpError::new(kind, error)
        })?;
        Ok(answer.map(|body| {
            HttpResponseBody::new(WatchedBody {
                body,
                piece_within: self.piece_within,
                waiting: None,
            })
        }))
    }
}

/// A body that ends with an error when it stalls; object_store then requests the rest. Only waiting counts, not the time
/// that the reader takes between pieces.
struct WatchedBody {
    body: Incoming,
    piece_within: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let within = self.piece_within;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        waiting.as_mut().poll(context).map(|()| {
            let text = format!("nothing more came for {} s", within.as_secs_f32());
            let late = io::Error::new(io::ErrorKind::TimedOut, text);
            Some(Err(HttpError::new(HttpErrorKind::Timeout, late)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The SDK's credentials, kept until shortly before they end.
#[derive(Debug)]
pub(super) struct Chain {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<(Arc<AwsCredential>, Option<SystemTime>)>>,
}

impl Chain {
    /// `None` when the configuration has no credentials at all.
    pub(super) fn of(sdk: &SdkConfig) -> Option<Arc<Self>> {
        let provider = sdk.credentials_provider()?;
        Some(Arc::new(Self {
            provider,
            kept: Mutex::new(None),
        }))
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        let good_for = |time: Duration| {
            kept.as_ref().and_then(|(credential, ends)| {
                let is_good = ends.is_none_or(|ends| ends > SystemTime::now() + time);
                is_good.then(|| credential.clone())
            })
        };
        if let Some(credential) = good_for(RENEW_BEFORE) {
            return Ok(credential);
        }
        let fresh = match self.provider.provide_credentials().await {
            Ok(fresh) => fresh,
            Err(error) => {
                let causes = crate::error::error_chain(&error);
                let why = no_credentials(&causes).unwrap_or(causes);
                let Some(credential) = good_for(Duration::ZERO) else {
                    return Err(object_store::Error::Unauthenticated {
                        path: String::new(),
                        source: why.into(),
                    });
                };
                warn!(error = %why, "Credentials could not be renewed; the present ones are still valid for a while.");
                return Ok(credential);
            }
        };
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        });
        *kept = Some((credential.clone(), fresh.expiry()));
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use aws_config::credential_process::CredentialProcessProvider;

    use super::*;

    /// Writes credentials that are valid for so long into a file.
    fn issue(file: &Path, access_key: &str, valid_for: Duration) {
        let ends = jiff::Timestamp::now() + valid_for;
        let json = serde_json::json!({
            "Version": 1, "AccessKeyId": access_key, "SecretAccessKey": "s", "SessionToken": "t",
            "Expiration": ends,
        });
        std::fs::write(file, json.to_string()).expect("written");
    }

    #[tokio::test]
    async fn credentials_are_renewed_in_time_and_used_to_their_end_where_that_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.json");
        let command = format!("cat {}", file.display());
        let chain = Chain {
            provider: SharedCredentialsProvider::new(CredentialProcessProvider::new(command)),
            kept: Mutex::default(),
        };
        let key = async || chain.get_credential().await.map(|it| it.key_id.clone());
        assert!(key().await.is_err(), "there are none");

        issue(&file, "short", RENEW_BEFORE / 2);
        assert_eq!(key().await.expect("issued"), "short");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(key().await.expect("still valid"), "short");

        issue(&file, "long", RENEW_BEFORE * 2);
        assert_eq!(key().await.expect("renewed"), "long");
        issue(&file, "longer", RENEW_BEFORE * 2);
        assert_eq!(key().await.expect("kept"), "long");
    }
}
