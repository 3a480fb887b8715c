//! The AWS identity that a pipeline's queues and stream are used with.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use streampress_crds::Reason;
use streampress_transport::aws::AwsCredentials;

use super::TransportPlan;
use super::problem::{Problem, Retry};

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
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    AwsCredentials::from_variables(text)
        .map(Some)
        .map_err(unusable)
}

fn is_allowed(endpoint: &str, allowed: &[String]) -> bool {
    let endpoint = endpoint.trim_end_matches('/');
    allowed
        .iter()
        .any(|allowed| allowed.trim_end_matches('/') == endpoint)
}
