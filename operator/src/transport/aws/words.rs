//! What AWS answered in error, in words for a pipeline's owner.

use std::error::Error;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use streampress_crds::Reason;
use streampress_transport::error_chain;

use crate::transport::problem::{Problem, Retry};

/// An answer of AWS.
pub(super) trait Step<T> {
    /// What was being done goes before what went wrong, and the permission it takes behind a refusal.
    fn step(self, permission: &str, doing: impl FnOnce() -> String) -> Result<T, Problem>;
}

impl<T, E: ProvideErrorMetadata + Error + 'static> Step<T> for Result<T, E> {
    fn step(self, permission: &str, doing: impl FnOnce() -> String) -> Result<T, Problem> {
        self.map_err(|error| {
            // The same words at every try: the answer as a whole has ids and times, and would be news each time.
            let said = match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(code), None) => code.to_owned(),
                (None, _) => error_chain(&error),
            };
            problem(
                permission,
                &doing(),
                error.code(),
                said.trim_end_matches('.'),
            )
        })
    }
}

/// Whether a code is one of these, whatever stands before it.
pub(super) fn is_one_of(code: Option<&str>, codes: &[&str]) -> bool {
    code.is_some_and(|code| codes.iter().any(|known| code.ends_with(known)))
}

/// An answer that cannot be used.
pub(super) fn odd(what: &str) -> Problem {
    passing(format!("AWS answered oddly: {what}."))
}

/// What another try may find mended.
pub(super) fn passing(message: String) -> Problem {
    Problem {
        reason: Reason::TransportFailed,
        message,
        retry: Retry::Transient,
    }
}

fn problem(permission: &str, step: &str, code: Option<&str>, said: &str) -> Problem {
    let code = code.unwrap_or_default();
    let is = |codes: &[&str]| is_one_of(Some(code), codes);
    let (reason, retry, way_out) = if is(&["AccessDenied", "AccessDeniedException"]) {
        (
            Reason::AccessDenied,
            Retry::AfterCorrection,
            format!(
                "Give the identity of spec.aws the permission {permission}; the README has all that it needs."
            ),
        )
    } else if is(&[
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
    ]) {
        (
            Reason::AccessDenied,
            Retry::AfterCorrection,
            "AWS does not know these keys: correct the Secret of spec.aws.credentialsSecretRef, or the operator's own identity.".into(),
        )
    } else if code.is_empty() {
        (
            Reason::EndpointUnreachable,
            Retry::Transient,
            "See spec.aws.endpointURL and region; trying again.".into(),
        )
    } else {
        (
            Reason::TransportFailed,
            Retry::Transient,
            "Trying again.".into(),
        )
    };
    Problem {
        reason,
        message: format!(
            "{}{} failed: {said}. {way_out}",
            step[..1].to_uppercase(),
            &step[1..],
        ),
        retry,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::error::{ErrorMetadata, SdkError};
    use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlError;

    use super::*;

    #[test]
    fn the_same_refusal_is_told_in_the_same_words_whatever_else_the_answer_has() {
        let refused = |request: &'static str| {
            let metadata = ErrorMetadata::builder()
                .code("AccessDenied")
                .message("not authorized to perform: sqs:GetQueueUrl")
                .custom("aws_request_id", request)
                .build();
            let error = SdkError::service_error(GetQueueUrlError::generic(metadata), request);
            Err::<(), _>(error).step("sqs:GetQueueUrl", || "looking for the queue a.fifo".into())
        };
        let (first, second) = (refused("request 1"), refused("request 2"));
        assert_eq!(first, second);
        let problem = first.expect_err("refused");
        assert_eq!(problem.reason, Reason::AccessDenied);
        assert!(
            problem.message.starts_with(
                "Looking for the queue a.fifo failed: AccessDenied: not authorized to perform: sqs:GetQueueUrl. Give"
            ),
            "{}",
            problem.message
        );
    }
}
