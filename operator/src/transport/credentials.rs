//! The AWS identity that a pipeline's queues and stream are used with.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use streampress_crds::Reason;
use streampress_transport::aws::AwsCredentials;

use super::TransportPlan;
use super::problem::{Problem, Retry};

/// The keys of a Secret that are read.
const NAMES: [&str; 3] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// The identity to use. Without a Secret it is the operator's own (`None`), which is used with AWS's own endpoints and with
/// those in `allowed` only.
pub(super) async fn find(
    client: &Client,
    plan: &TransportPlan,
    allowed: &[String],
) -> Result<Option<AwsCredentials>, Problem> {
    let Some(name) = &plan.secret else {
        return match &plan.endpoint {
            Some(endpoint) if !is_allowed(endpoint, allowed) => Err(Problem {
                reason: Reason::EndpointNotAllowed,
                message: format!(
                    "The operator's own identity is not used with {endpoint}: name a Secret in spec.aws.credentialsSecretRef, or start the operator with this endpoint allowed."
                ),
                retry: Retry::AfterChange,
            }),
            _ => Ok(None),
        };
    };
    let unusable = |why: String| Problem {
        reason: Reason::CredentialsMissing,
        message: format!(
            "The Secret {name} of spec.aws.credentialsSecretRef cannot be used: {why}."
        ),
        retry: Retry::AfterCorrection,
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &plan.namespace);
    let secret = secrets
        .get_opt(name)
        .await
        .map_err(|error| unusable(error.to_string()))?
        .ok_or_else(|| unusable("it does not exist".into()))?;
    keys(&secret.data.unwrap_or_default())
        .map(Some)
        .map_err(unusable)
}

/// The keys that a Secret holds; else why not, without any value.
fn keys(data: &BTreeMap<String, ByteString>) -> Result<AwsCredentials, String> {
    for name in NAMES {
        if let Some(flaw) = data.get(name).and_then(|value| flaw(&value.0)) {
            return Err(format!(
                "{name} in it {flaw}; write it with printf in place of echo, or with kubectl create secret generic --from-literal"
            ));
        }
    }
    AwsCredentials::from_variables(|name| String::from_utf8(data.get(name)?.0.clone()).ok())
}

/// What no key has, and what the SDK takes into no request: it panics.
fn flaw(value: &[u8]) -> Option<&'static str> {
    if value.last() == Some(&b'\n') {
        Some("ends with a newline")
    } else if !value.iter().all(u8::is_ascii_graphic) {
        Some("has a space, a control character or a character that is not ASCII")
    } else {
        None
    }
}

fn is_allowed(endpoint: &str, allowed: &[String]) -> bool {
    let endpoint = endpoint.trim_end_matches('/');
    allowed
        .iter()
        .any(|allowed| allowed.trim_end_matches('/') == endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(token: &str) -> BTreeMap<String, ByteString> {
        let values = ["id", "secret", token].map(|value| ByteString(value.into()));
        NAMES.map(str::to_owned).into_iter().zip(values).collect()
    }

    #[test]
    fn a_secret_whose_value_ends_with_a_newline_is_refused_with_the_name_and_without_the_value() {
        for name in NAMES {
            for (value, says) in [
                ("hush\n", "ends with a newline"),
                ("hush\r\n", "ends with a newline"),
                ("hu\0sh", "has a space, a control character"),
                ("hu sh", "has a space, a control character"),
                ("hush\u{e9}", "has a space, a control character"),
            ] {
                let mut data = secret("token");
                data.insert(name.to_owned(), ByteString(value.into()));
                let why = keys(&data).expect_err("refused");
                assert!(why.starts_with(&format!("{name} in it {says}")), "{why}");
                assert!(!why.contains("hu"), "{why}");
            }
        }
    }

    #[test]
    fn a_secret_with_keys_is_taken_and_one_without_is_named() {
        let keys_of = keys(&secret("")).expect("taken");
        assert_eq!(keys_of.session_token, None);
        assert!(keys(&secret("a/b+c==")).is_ok());
        let mut data = secret("token");
        data.remove("AWS_SECRET_ACCESS_KEY");
        let why = keys(&data).expect_err("refused");
        assert_eq!(why, "it has no AWS_SECRET_ACCESS_KEY");
    }
}
