//! Why provisioning failed, with what a caller needs to say what to do.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use crate::aws::ServiceError;

/// Why provisioning failed.
#[derive(Debug)]
pub enum ProvisionError {
    /// A call was refused, or not answered.
    Call {
        /// The step that failed, as `creating the queue orders.fifo`.
        step: String,
        /// The permission that the call takes, as `sqs:CreateQueue`.
        permission: &'static str,
        /// What AWS answered.
        error: ServiceError,
    },
    /// A queue or stream exists and is another owner's, and the plan refuses that.
    NotOwned {
        /// Its name.
        name: String,
        /// Its tags.
        tags: BTreeMap<String, String>,
    },
    /// It is being created or deleted at the moment: trying again may help.
    InTransition {
        /// As `the queue orders.fifo is being created or deleted`.
        what: String,
    },
    /// An answer lacks something, or what exists cannot be read.
    Unusable {
        /// What is wrong, and what to do about it.
        why: String,
    },
}

/// What provisioning answers.
pub type ProvisionResult<T> = Result<T, ProvisionError>;

impl fmt::Display for ProvisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call {
                step,
                permission,
                error,
            } => {
                f.write_str(step)?;
                if error.is_denied() {
                    write!(f, " (the credentials lack the permission {permission})")
                } else if error.code.contains("QueueDeletedRecently") {
                    f.write_str(" (it was deleted less than 60 seconds ago; try again in a minute)")
                } else {
                    Ok(())
                }
            }
            Self::NotOwned { name, .. } => write!(
                f,
                "{name} exists and does not carry our tag; choose another name"
            ),
            Self::InTransition { what } => write!(f, "{what}; try again in a minute"),
            Self::Unusable { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for ProvisionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call { error, .. } => Some(error),
            Self::NotOwned { .. } | Self::InTransition { .. } | Self::Unusable { .. } => None,
        }
    }
}

/// An answer of AWS to one call.
pub(super) trait ProvisionStep<T> {
    /// Names the step in an error, and the permission that it takes.
    fn step(self, permission: &'static str, step: impl FnOnce() -> String) -> ProvisionResult<T>;
}

impl<T> ProvisionStep<T> for Result<T, ServiceError> {
    fn step(self, permission: &'static str, step: impl FnOnce() -> String) -> ProvisionResult<T> {
        self.map_err(|error| ProvisionError::Call {
            step: step(),
            permission,
            error,
        })
    }
}

impl<T, E, R> ProvisionStep<T> for Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug,
{
    fn step(self, permission: &'static str, step: impl FnOnce() -> String) -> ProvisionResult<T> {
        self.map_err(|error| ServiceError::from_sdk(&error))
            .step(permission, step)
    }
}
