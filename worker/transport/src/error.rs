//! What can go wrong at a queue, a stream, a slot or a file, and how an error is told with its causes.

use crate::Position;

/// Why a door could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The other side did not answer or refused for now; the same call may succeed later.
    #[error("{step}")]
    Unavailable {
        /// The step that failed, in words.
        step: String,
        /// What the other side said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The receipt is no longer valid: the message was hidden too long and belongs to somebody else now.
    #[error("the message is no longer ours: its hiding time ran out")]
    Stale,
    /// The stream no longer holds the record (older than its retention).
    #[error("the stream no longer holds record {0}: it is older than the retention time")]
    Expired(Position),
    /// The position was never written, or its bytes are damaged.
    #[error("no intact record at {0} of the stream")]
    Missing(Position),
    /// The request itself can never succeed (too large, bad name).
    #[error("{0}")]
    Invalid(String),
}

impl TransportError {
    /// Wraps what the other side said as a fault that may pass.
    pub fn unavailable(
        step: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable {
            step: step.into(),
            source: source.into(),
        }
    }
}

/// What doors answer.
pub type TransportResult<T> = Result<T, TransportError>;

/// An error with all that led to it, in one line; the innermost often says most ("connection refused"). What an outer one
/// has already said of it is not said twice.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}
