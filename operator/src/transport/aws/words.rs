//! What AWS answered in error, in words for a pipeline's owner.

use std::error::Error;

use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata};

use crate::status::Trouble;

/// An answer of AWS.
pub(super) trait Step<T> {
    /// What was being done goes before what went wrong.
    fn step(self, doing: impl FnOnce() -> String) -> Result<T, Trouble>;
}

impl<T, E: ProvideErrorMetadata + Error + 'static> Step<T> for Result<T, E> {
    fn step(self, doing: impl FnOnce() -> String) -> Result<T, Trouble> {
        self.map_err(|error| trouble(&doing(), error.code(), &error))
    }
}

/// Whether a code is one of these, whatever stands before it.
pub(super) fn is_one_of(code: Option<&str>, codes: &[&str]) -> bool {
    code.is_some_and(|code| codes.iter().any(|known| code.ends_with(known)))
}

/// Something adopted is not there.
pub(super) fn missing(name: &str) -> Trouble {
    Trouble {
        reason: "TransportMissing".into(),
        message: format!(
            "There is no {name}: make it, correct the name in spec.transport, or use policy Create in a new pipeline."
        ),
        lasting: true,
    }
}

/// An answer that cannot be used.
pub(super) fn odd(what: &str) -> Trouble {
    Trouble {
        reason: "TransportFailed".into(),
        message: format!("AWS answered oddly: {what}."),
        lasting: false,
    }
}

fn trouble(step: &str, code: Option<&str>, error: &(dyn Error + 'static)) -> Trouble {
    let code = code.unwrap_or_default();
    let denied = is_one_of(
        Some(code),
        &[
            "AccessDenied",
            "AccessDeniedException",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
        ],
    );
    let (reason, way_out) = if denied {
        (
            "AccessDenied",
            " Give the identity of spec.aws the permissions that the README lists.",
        )
    } else if code.is_empty() {
        (
            "EndpointUnreachable",
            " See spec.aws.endpointURL and region; trying again.",
        )
    } else {
        ("TransportFailed", " Trying again.")
    };
    Trouble {
        reason: reason.into(),
        message: format!(
            "{}{} failed: {}.{way_out}",
            step[..1].to_uppercase(),
            &step[1..],
            DisplayErrorContext(error)
        ),
        lasting: false,
    }
}
