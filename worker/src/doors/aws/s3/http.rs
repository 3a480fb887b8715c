//! How object_store speaks HTTP and gets its credentials: the same hyper and rustls as the AWS SDK, and the SDK's own
//! credential chain, so that S3 knows all the ways that SQS and Kinesis know.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_kinesis::config::ProvideCredentials;
use aws_sdk_kinesis::config::SharedCredentialsProvider;
use http_body_util::BodyExt;
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

/// Until the head of an answer; a part of 8 MiB over a thin line takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Credentials are asked for anew so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Makes HTTP clients.
#[derive(Debug)]
pub(super) struct Connector;

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
        Ok(HttpClient::new(Hyper(
            Client::builder(TokioExecutor::new()).build(tls),
        )))
    }
}

#[derive(Debug)]
struct Hyper(Client<HttpsConnector<Tcp>, HttpRequestBody>);

#[async_trait]
impl HttpService for Hyper {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.0.request(request)).await;
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
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
            )
        }))
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
        if let Some((credential, ends)) = &*kept
            && ends.is_none_or(|ends| ends > SystemTime::now() + RENEW_BEFORE)
        {
            return Ok(credential.clone());
        }
        let fresh = self.provider.provide_credentials().await;
        let fresh = fresh.map_err(|error| object_store::Error::Unauthenticated {
            path: String::new(),
            source: Box::new(error),
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().to_owned(),
            secret_key: fresh.secret_access_key().to_owned(),
            token: fresh.session_token().map(str::to_owned),
        });
        *kept = Some((credential.clone(), fresh.expiry()));
        Ok(credential)
    }
}
