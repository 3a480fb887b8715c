//! Why a write to the API server failed.

use crate::errors::api_message;
use crate::resources::ObjectKind;
use crate::transport::problem::Retry;

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
            WriteError::Taken { .. } => Retry::AfterChange,
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
            WriteError::Taken { .. } | WriteError::NotLeading | WriteError::NoAnswer => None,
        }
    }
}

/// Deleting what does not exist any more has succeeded.
pub(super) fn gone_is_done<T>(result: Result<T, WriteError>) -> Result<(), WriteError> {
    match result {
        Err(error) if !error.is_gone() => Err(error),
        _ => Ok(()),
    }
}
