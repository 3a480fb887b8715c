//! Clients and credentials: the SDK's default chain (environment, profile, web identity, container, IMDS), or the
//! credentials of the settings. Credentials are never logged.

use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::tls;

/// A long poll lasts 20 s; its connection must last longer.
const POLL_TIMEOUT: Duration = Duration::from_secs(35);

/// Region, endpoint and credentials, and the limits of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AwsOptions {
    /// As `us-east-1`; else the SDK's default chain.
    pub region: Option<String>,
    /// In place of AWS's own endpoints, as `http://localhost:4566`.
    pub endpoint: Option<String>,
    /// Else the SDK's default chain.
    pub credentials: Option<AwsCredentials>,
    /// Deadlines and attempts.
    pub calls: CallLimits,
}

/// Deadlines and attempts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallLimits {
    /// For the connection.
    pub connect_timeout: Duration,
    /// For one attempt, the connection included.
    pub attempt_timeout: Duration,
    /// How often it is tried, once at least.
    pub attempts: u32,
}

impl Default for CallLimits {
    /// A put of 5 MB over a slow line takes its time.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(30),
            attempts: 5,
        }
    }
}

/// Access keys as given; never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AwsCredentials {
    /// AWS_ACCESS_KEY_ID.
    pub access_key_id: String,
    /// AWS_SECRET_ACCESS_KEY.
    pub secret_access_key: String,
    /// AWS_SESSION_TOKEN, which only temporary credentials have.
    pub session_token: Option<String>,
}

impl AwsCredentials {
    /// Credentials that do not end.
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            session_token: None,
        }
    }

    /// From variables of the SDK's names; the error names the one that is missing or empty.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let need = |name: &str| set(name).ok_or_else(|| format!("it has no {name}"));
        Ok(Self {
            access_key_id: need("AWS_ACCESS_KEY_ID")?,
            secret_access_key: need("AWS_SECRET_ACCESS_KEY")?,
            session_token: set("AWS_SESSION_TOKEN"),
        })
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

impl AwsOptions {
    /// What the environment says, in the original's names: AWS_REGION, AWS_ENDPOINT_OVERRIDE, AWS_ACCESS_KEY and
    /// AWS_SECRET_KEY, with AWS_SESSION_TOKEN where these are temporary. The SDK's own names (AWS_ACCESS_KEY_ID,
    /// AWS_ENDPOINT_URL …) win where both are set.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let keys = set("AWS_ACCESS_KEY").zip(set("AWS_SECRET_KEY"));
        let legacy = keys.map(|(access_key_id, secret_access_key)| AwsCredentials {
            access_key_id,
            secret_access_key,
            session_token: set("AWS_SESSION_TOKEN"),
        });
        Self {
            region: set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")),
            endpoint: set("AWS_ENDPOINT_URL").or_else(|| set("AWS_ENDPOINT_OVERRIDE")),
            credentials: if set("AWS_ACCESS_KEY_ID").is_some() {
                None
            } else {
                legacy
            },
            calls: CallLimits::default(),
        }
    }
}

/// The HTTP client of all SDK clients: hyper with rustls on ring, which kube uses too, and the system's certificates.
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https()
}

/// Clients of all services used, over one HTTP client.
#[derive(Debug, Clone)]
pub struct Aws {
    pub(crate) sdk: SdkConfig,
    pub(crate) endpoint: Option<String>,
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) sqs_polls: aws_sdk_sqs::Client,
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) kinesis_admin: aws_sdk_kinesis::Client,
}

impl Aws {
    /// Builds the clients. No call is made yet: wrong credentials show at the first.
    pub async fn connect(options: &AwsOptions) -> Self {
        let limits = options.calls;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits.connect_timeout)
            .operation_attempt_timeout(limits.attempt_timeout)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http_client())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(limits.attempts.max(1)));
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(keys) = options.credentials.clone() {
            loader = loader.credentials_provider(Credentials::new(
                keys.access_key_id,
                keys.secret_access_key,
                keys.session_token,
                None,
                "settings",
            ));
        }
        let mut sdk = loader.load().await;
        if sdk.region().is_none() {
            // The original's default, where neither settings nor chain name one.
            sdk = sdk.into_builder().region(Region::new("us-east-1")).build();
        }
        let poll_timeouts = TimeoutConfig::builder()
            .connect_timeout(limits.connect_timeout)
            .operation_attempt_timeout(POLL_TIMEOUT)
            .build();
        // The caller repeats a poll itself: at the end of the process another attempt must not take new messages.
        let polls = aws_sdk_sqs::config::Builder::from(&sdk)
            .timeout_config(poll_timeouts)
            .retry_config(RetryConfig::disabled())
            .build();
        // Puts and reads have retries and a rate limit of their own: an attempt of the SDK's would be neither counted nor limited.
        let data = aws_sdk_kinesis::config::Builder::from(&sdk)
            .retry_config(RetryConfig::disabled())
            .build();
        Self {
            endpoint: sdk.endpoint_url().map(str::to_owned),
            sqs: aws_sdk_sqs::Client::new(&sdk),
            sqs_polls: aws_sdk_sqs::Client::from_conf(polls),
            kinesis: aws_sdk_kinesis::Client::from_conf(data),
            kinesis_admin: aws_sdk_kinesis::Client::new(&sdk),
            sdk,
        }
    }

    /// The endpoint, or the region of AWS's own, for messages.
    pub fn describe_endpoint(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self
                .sdk
                .region()
                .map_or_else(|| "AWS".to_owned(), |region| format!("AWS {region}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(set: &'static [(&'static str, &'static str)]) -> AwsOptions {
        AwsOptions::from_env(|name| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_originals_variables_are_taken_and_the_sdks_win() {
        let legacy = options(&[
            ("AWS_ACCESS_KEY", "k"),
            ("AWS_SECRET_KEY", "s"),
            ("AWS_ENDPOINT_OVERRIDE", "http://l"),
            ("AWS_REGION", "r"),
        ]);
        assert_eq!(legacy.credentials, Some(AwsCredentials::new("k", "s")));
        assert_eq!(
            (legacy.endpoint.as_deref(), legacy.region.as_deref()),
            (Some("http://l"), Some("r"))
        );
        let sdk = options(&[
            ("AWS_ACCESS_KEY", "k"),
            ("AWS_SECRET_KEY", "s"),
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_ENDPOINT_URL", "http://m"),
            ("AWS_ENDPOINT_OVERRIDE", "http://l"),
        ]);
        assert_eq!(
            (sdk.credentials, sdk.endpoint.as_deref()),
            (None, Some("http://m"))
        );
    }

    #[test]
    fn a_session_token_goes_with_the_originals_keys() {
        let temporary = options(&[
            ("AWS_ACCESS_KEY", "k"),
            ("AWS_SECRET_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t"),
        ]);
        let keys = temporary.credentials.expect("set");
        assert_eq!(keys.session_token.as_deref(), Some("t"));
        // Without them the token belongs to the chain.
        let chained = options(&[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SESSION_TOKEN", "t")]);
        assert_eq!(chained.credentials, None);
    }

    #[test]
    fn credentials_are_never_logged() {
        let text = format!(
            "{:?}",
            options(&[
                ("AWS_ACCESS_KEY", "AKIA123"),
                ("AWS_SECRET_KEY", "hush"),
                ("AWS_SESSION_TOKEN", "passing"),
            ])
        );
        for secret in ["hush", "AKIA123", "passing"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
