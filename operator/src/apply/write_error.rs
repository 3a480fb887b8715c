//! Why a write to the API server failed.

use streampress_crds::Reason;

use crate::errors::api_message;
use crate::resources::{ObjectKind, OwnedObject};
use crate::transport::problem::{Problem, Retry};

/// How the API server begins its answer to an object that does not have its kind's fields.
const NOT_TYPED: &str = "failed to create typed patch object";

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// This process does not lead any more.
    #[error("this operator does not lead any more")]
    NotLeading,
    /// No answer.
    #[error("the API server did not answer in time")]
    NoAnswer,
    /// The object exists and was not made for this pipeline.
    #[error(
        "there is already a {} {name} that is not this pipeline's; delete or rename it, or rename the pipeline",
        .kind.name()
    )]
    Taken {
        /// Its kind.
        kind: ObjectKind,
        /// Its name.
        name: String,
    },
    /// The user's pod template is not one.
    #[error("{field} is not what a pod template takes: {}", api_message(.answer))]
    Template {
        /// The field of the spec.
        field: String,
        /// What the server said.
        answer: Box<kube::Error>,
    },
    /// The server refused or failed.
    #[error("{what}: {}", api_message(.answer))]
    Refused {
        /// What was done to what.
        what: String,
        /// What the server said.
        answer: Box<kube::Error>,
    },
}

impl WriteError {
    /// Whether the same write may succeed later.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            WriteError::Taken { .. } | WriteError::Template { .. } => Retry::AfterChange,
            WriteError::Refused { .. } if self.lacks_permission() => Retry::AfterCorrection,
            WriteError::Refused { .. } => match self.code() {
                Some(400 | 403 | 422) => Retry::AfterChange,
                _ => Retry::Transient,
            },
            WriteError::NotLeading | WriteError::NoAnswer => Retry::Transient,
        }
    }

    /// Whether the object does not exist any more. A conflict is not that: the next reconcile, with what the watch has
    /// brought by then, shows whether it is another object of the same name.
    pub(crate) fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether another manager owns a field that was to be written.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    fn code(&self) -> Option<u16> {
        match self {
            WriteError::Refused { answer, .. } => match &**answer {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            WriteError::Taken { .. }
            | WriteError::Template { .. }
            | WriteError::NotLeading
            | WriteError::NoAnswer => None,
        }
    }

    /// Whether this operator may not do it. Quotas and admission answer with 403 too: only RBAC names user, verb and resource.
    fn lacks_permission(&self) -> bool {
        let WriteError::Refused { answer, .. } = self else {
            return false;
        };
        let said = api_message(answer);
        let is_rbac = (said.contains("User \"") && said.contains("\" cannot "))
            || said.contains("is attempting to grant RBAC permissions not currently held");
        self.code() == Some(403) && is_rbac
    }

    /// What it means for the pipeline until the write succeeds; nothing where the same may pass by itself.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let (reason, message) = match self.retry() {
            Retry::Transient | Retry::InProgress => return None,
            Retry::AfterChange => (Reason::Refused, format!("The API server refused: {self}.")),
            Retry::AfterCorrection => (
                Reason::NotApplied,
                format!(
                    "The operator lacks a permission: {self}. Give it back: apply the operator's chart or manifest again; it tries again every minute."
                ),
            ),
        };
        Some(Problem {
            reason,
            message,
            retry: self.retry(),
        })
    }

    /// The same error, or the one that names the user's field where the object's pod template is not one. Only that part of
    /// an object is not typed here.
    pub(crate) fn of_template(self, object: &OwnedObject) -> Self {
        let users = match object {
            OwnedObject::Deployment(deployment) => deployment.users_template.as_deref(),
            _ => None,
        };
        match (self, users) {
            (WriteError::Refused { answer, .. }, Some(users))
                if api_message(&answer).starts_with(NOT_TYPED) =>
            {
                let field = users_field(users, &api_message(&answer));
                WriteError::Template { field, answer }
            }
            (error, _) => error,
        }
    }
}

/// The field of the spec that became the one that the API server names.
fn users_field(users: &str, said: &str) -> String {
    let path = said
        .split_once(".spec.template")
        .and_then(|(_, path)| path.split_once(": "))
        .map_or("", |(path, _)| path);
    format!("{users}{path}")
}

/// Deleting what does not exist any more has succeeded.
pub(super) fn gone_is_done<T>(result: Result<T, WriteError>) -> Result<(), WriteError> {
    match result {
        Err(error) if !error.is_gone() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16, said: &str) -> WriteError {
        let status = Status::failure(said, "").with_code(code);
        WriteError::Refused {
            what: "writing NetworkPolicy stock-worker".into(),
            answer: Box::new(kube::Error::Api(Box::new(status))),
        }
    }

    #[test]
    fn a_permission_that_the_operator_lacks_is_told_from_what_quota_and_admission_refuse() {
        for (code, said, reason) in [
            (
                403,
                r#"networkpolicies.networking.k8s.io "stock-worker" is forbidden: User "system:serviceaccount:streampress:operator" cannot patch resource "networkpolicies" in API group "networking.k8s.io" in the namespace "demo""#,
                Some(Reason::NotApplied),
            ),
            (
                403,
                r#"roles.rbac.authorization.k8s.io "stock-worker" is forbidden: user "operator" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held"#,
                Some(Reason::NotApplied),
            ),
            (
                403,
                r#"deployments.apps "stock-compressor" is forbidden: exceeded quota: few"#,
                Some(Reason::Refused),
            ),
            (
                403,
                r#"admission webhook "policy" denied the request: no"#,
                Some(Reason::Refused),
            ),
            (500, "etcdserver: request timed out", None),
        ] {
            let problem = refused(code, said).problem();
            assert_eq!(problem.as_ref().map(|it| it.reason), reason, "{said}");
            if let Some(problem) = problem {
                assert!(problem.message.contains(said), "{}", problem.message);
            }
        }
    }

    #[test]
    fn the_users_field_is_named_as_the_spec_has_it() {
        let said = "failed to create typed patch object (demo/stock-compressor; apps/v1, Kind=Deployment): .spec.template.spec.nodeSelecter: field not declared in schema";
        assert_eq!(
            users_field("spec.compressor.podTemplate", said),
            "spec.compressor.podTemplate.spec.nodeSelecter"
        );
        assert_eq!(
            users_field("spec.compressor.podTemplate", "failed to create it"),
            "spec.compressor.podTemplate"
        );
    }
}
