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
    /// Access key and secret; else the chain's.
    pub keys: Option<(String, String)>,
}

impl fmt::Debug for AwsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsOptions")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("keys", &self.keys.as_ref().map(|_| "set"))
            .finish()
    }
}

impl AwsOptions {
    /// What the environment says, in the original's names: AWS_REGION, AWS_ENDPOINT_OVERRIDE, AWS_ACCESS_KEY and
    /// AWS_SECRET_KEY. The SDK's own names (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …) win where both are set.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let ours = set("AWS_ACCESS_KEY").zip(set("AWS_SECRET_KEY"));
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
        if let Some((key, secret)) = &options.keys {
            loader =
                loader.credentials_provider(Credentials::new(key, secret, None, None, "settings"));
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
        assert_eq!(seed.keys, Some(("k".into(), "s".into())));
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
    fn keys_are_not_in_what_is_logged() {
        let text = format!(
            "{:?}",
            options(&[("AWS_ACCESS_KEY", "AKIA123"), ("AWS_SECRET_KEY", "hush")])
        );
        assert!(
            !text.contains("hush") && !text.contains("AKIA123"),
            "{text}"
        );
    }
}
