//! What can fail at a queue, a stream, a slot or a file, and how an error is shown with its causes.

use crate::Position;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The service did not answer or refused for now; the same call may succeed later.
    #[error("{step}")]
    Unavailable {
        /// The step that failed, as `sending to orders.fifo`.
        step: String,
        /// What the service answered.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The receipt is no longer valid: the visibility timeout ran out, and another worker may have the message.
    #[error("the message's visibility timeout ran out, and another worker may have received it")]
    Stale,
    /// The stream no longer holds the record (older than its retention).
    #[error(
        "the stream no longer holds record {0}: it is older than the retention time, or the stream was made anew"
    )]
    Expired(Position),
    /// The position was never written, or its bytes are damaged.
    #[error("no intact record at {0} of the stream")]
    Missing(Position),
    /// The request itself can never succeed (too large, bad name).
    #[error("{0}")]
    Invalid(String),
}

impl TransportError {
    /// Wraps the answer of a service as a fault that may pass.
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

/// What transport calls answer.
pub type TransportResult<T> = Result<T, TransportError>;

/// An error with its causes in one line, outermost first; the innermost often says most ("connection refused"). A cause
/// that an outer error has already quoted is left out.
pub fn error_chain(error: &dyn std::error::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_every_cause_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = TransportError::unavailable("sending to orders.fifo", refused);
        assert_eq!(
            error_chain(&error),
            "sending to orders.fifo: connection refused"
        );
        let quoting = TransportError::unavailable("sending: connection refused", error);
        assert_eq!(
            error_chain(&quoting),
            "sending: connection refused: sending to orders.fifo"
        );
    }
}
