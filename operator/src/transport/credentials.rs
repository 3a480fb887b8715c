//! The AWS identity that a pipeline's queues and stream are used with.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use streampress_crds::Reason;

use super::Plan;
use super::problem::{Problem, Retry};

/// Keys of an AWS identity, from a pipeline's Secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// AWS_ACCESS_KEY_ID.
    pub access_key_id: String,
    /// AWS_SECRET_ACCESS_KEY.
    pub secret_access_key: String,
    /// AWS_SESSION_TOKEN.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// Reads a Secret's data; the error names the key that is missing.
    pub fn of(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, String> {
        let text = |key: &str| {
            data.get(key)
                .and_then(|bytes| String::from_utf8(bytes.clone()).ok())
        };
        let need = |key: &str| {
            text(key)
                .filter(|text| !text.is_empty())
                .ok_or_else(|| format!("it has no {key}"))
        };
        Ok(Credentials {
            access_key_id: need("AWS_ACCESS_KEY_ID")?,
            secret_access_key: need("AWS_SECRET_ACCESS_KEY")?,
            session_token: text("AWS_SESSION_TOKEN").filter(|text| !text.is_empty()),
        })
    }
}

/// The identity to use. Without a Secret it is the operator's own (`None`), which is used with AWS's own endpoints and with
/// those in `allowed` only.
pub(super) async fn find(
    client: &Client,
    plan: &Plan,
    allowed: &[String],
) -> Result<Option<Credentials>, Problem> {
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
    let data = secret.data.unwrap_or_default();
    let data = data.into_iter().map(|(key, bytes)| (key, bytes.0));
    Credentials::of(&data.collect()).map(Some).map_err(unusable)
}

fn is_allowed(endpoint: &str, allowed: &[String]) -> bool {
    let endpoint = endpoint.trim_end_matches('/');
    allowed
        .iter()
        .any(|allowed| allowed.trim_end_matches('/') == endpoint)
}
