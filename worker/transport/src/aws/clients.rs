//! Clients and credentials: the SDK's default chain (environment, profile, web identity, container, IMDS), or the keys that
//! the original's variables give. Keys are never logged.

use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::Credentials;
use aws_smithy_http_client::tls;

/// For calls that answer at once. A put of 5 MB over a thin line takes its time.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A long poll lasts 20 s; its connection must last longer.
const POLL_TIMEOUT: Duration = Duration::from_secs(35);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where AWS is and who we are there.
#[derive(Clone, Default)]
pub struct AwsOptions {
    /// As `us-east-1`; else the chain's.
    pub region: Option<String>,
    /// In place of AWS's own endpoints, as `http://localhost:4566`.
    pub endpoint: Option<String>,
    /// Else the chain's.
    pub keys: Option<Keys>,
}

/// Who we are, as it was told; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The access key's id.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// What temporary keys have besides.
    pub session_token: Option<String>,
}

impl Keys {
    /// Keys that last.
    pub fn new(access_key: &str, secret_key: &str) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: None,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}

impl fmt::Debug for AwsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsOptions")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("keys", &self.keys)
            .finish()
    }
}

impl AwsOptions {
    /// What the environment says, in the original's names: AWS_REGION, AWS_ENDPOINT_OVERRIDE, AWS_ACCESS_KEY and
    /// AWS_SECRET_KEY, with AWS_SESSION_TOKEN where these are temporary. The SDK's own names (AWS_ACCESS_KEY_ID,
    /// AWS_ENDPOINT_URL …) win where both are set.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let keys = set("AWS_ACCESS_KEY").zip(set("AWS_SECRET_KEY"));
        let ours = keys.map(|(access_key, secret_key)| Keys {
            access_key,
            secret_key,
            session_token: set("AWS_SESSION_TOKEN"),
        });
        Self {
            region: set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")),
            endpoint: set("AWS_ENDPOINT_URL").or_else(|| set("AWS_ENDPOINT_OVERRIDE")),
            keys: if set("AWS_ACCESS_KEY_ID").is_some() {
                None
            } else {
                ours
            },
        }
    }
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
    /// Makes the clients. Nothing is asked of AWS yet: wrong credentials show at the first call.
    pub async fn connect(options: &AwsOptions) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(CALL_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(5));
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(keys) = options.keys.clone() {
            loader = loader.credentials_provider(Credentials::new(
                keys.access_key,
                keys.secret_key,
                keys.session_token,
                None,
                "settings",
            ));
        }
        let mut sdk = loader.load().await;
        if sdk.region().is_none() {
            // Only where neither settings nor chain name one; the original's default.
            sdk = sdk.into_builder().region(Region::new("us-east-1")).build();
        }
        let poll_timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(POLL_TIMEOUT)
            .build();
        // A poll is tried again by who started it: at the end of the process a next try must not take new messages.
        let polls = aws_sdk_sqs::config::Builder::from(&sdk)
            .timeout_config(poll_timeouts)
            .retry_config(RetryConfig::disabled())
            .build();
        // Puts and reads have their own patience and their own pace: a hidden second try would be neither counted nor paced.
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

    /// Where the services are, for messages to people.
    pub fn place(&self) -> String {
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
        let seed = options(&[
            ("AWS_ACCESS_KEY", "k"),
            ("AWS_SECRET_KEY", "s"),
            ("AWS_ENDPOINT_OVERRIDE", "http://l"),
            ("AWS_REGION", "r"),
        ]);
        assert_eq!(seed.keys, Some(Keys::new("k", "s")));
        assert_eq!(
            (seed.endpoint.as_deref(), seed.region.as_deref()),
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
            (sdk.keys, sdk.endpoint.as_deref()),
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
        let keys = temporary.keys.expect("set");
        assert_eq!(keys.session_token.as_deref(), Some("t"));
        // Without them it is the chain's.
        let chained = options(&[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SESSION_TOKEN", "t")]);
        assert_eq!(chained.keys, None);
    }

    #[test]
    fn keys_are_not_in_what_is_logged() {
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
