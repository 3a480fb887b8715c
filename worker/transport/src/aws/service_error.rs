//! What AWS answers in error: which faults may pass, and which never will.

use std::fmt;

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use crate::{TransportError, error_chain};

/// What a service answered, or why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// The service's error code, as `AccessDeniedException`; empty when nothing was answered.
    pub code: String,
    /// The service's message, or what happened to the connection.
    pub message: String,
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.code, self.message)
        }
    }
}

impl std::error::Error for ServiceError {}

/// How the SDK says that no provider had any, and that one of them failed.
const NO_CREDENTIALS: [&str; 2] = ["no credentials found in chain", "while loading credentials"];

/// What to do about an error chain that comes from missing credentials.
pub(crate) fn no_credentials(causes: &str) -> Option<String> {
    let why = NO_CREDENTIALS
        .iter()
        .find_map(|mark| Some(causes.split_once(mark)?.1))?;
    // When no provider has any, the text is a list of all providers; a fault of one is a sentence worth reading.
    let why = why
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches([':', '.', ' ']);
    let last = match std::env::var("AWS_PROFILE") {
        _ if !why.starts_with("Attempted") => format!(" ({why})"),
        Ok(profile) => format!(" (AWS_PROFILE is {profile:?}, and there are none by that name)"),
        Err(_) => String::new(),
    };
    Some(format!(
        "no AWS credentials{last}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where there is a role"
    ))
}

impl ServiceError {
    /// Without a code, as where the answer itself makes no sense.
    pub(crate) fn without_code(message: impl Into<String>) -> Self {
        Self {
            code: String::new(),
            message: message.into(),
        }
    }

    /// From an error of the SDK. The request's id and time are left out, so that the same refusal reads the same each time.
    pub(crate) fn from_sdk<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
    {
        if let SdkError::ServiceError(service) = error {
            let (code, message) = (service.err().code(), service.err().message());
            if let Some(code) = code {
                return Self {
                    code: short(code).to_owned(),
                    message: message.unwrap_or("no message").to_owned(),
                };
            }
        }
        let text = error_chain(error);
        Self::without_code(no_credentials(&text).unwrap_or(text))
    }

    /// Whether the code is one of these.
    pub fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// The service asks us to slow down.
    pub(crate) fn is_throttling(&self) -> bool {
        self.code.contains("Throttl")
            || self.is(&[
                "ProvisionedThroughputExceededException",
                "LimitExceededException",
                "SlowDown",
                "KMSThrottlingException",
            ])
    }

    /// The request can never succeed as it is.
    pub(crate) fn is_refusal(&self) -> bool {
        self.is(&[
            "ValidationException",
            "InvalidArgumentException",
            "InvalidParameterValue",
            "InvalidMessageContents",
            "BatchRequestTooLong",
            "InvalidAttributeValue",
            "SerializationException",
        ])
    }

    /// There is no queue or stream of this name.
    pub(crate) fn is_absent(&self) -> bool {
        self.code.contains("NonExistentQueue")
            || self.is(&["QueueDoesNotExist", "ResourceNotFoundException"])
    }

    /// The stream is being created or changed, or exists already.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is(&["ResourceInUseException"])
    }

    /// The credentials lack a permission.
    pub fn is_denied(&self) -> bool {
        self.code.contains("AccessDenied")
            || self.is(&["UnauthorizedOperation", "AccessDeniedException"])
    }

    /// AWS does not know the credentials.
    pub fn is_unauthenticated(&self) -> bool {
        self.is(&[
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
        ])
    }

    /// The service does not know the call, as an emulator that has only some of them.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.is(&[
            "UnknownOperationException",
            "InvalidAction",
            "NotImplemented",
            "NotImplementedException",
        ])
    }

    /// Nothing was answered: the endpoint could not be reached, or there are no credentials.
    pub fn is_unanswered(&self) -> bool {
        self.code.is_empty()
    }

    /// The receipt is of a delivery that has ended, or that has lasted for the 12 hours that SQS allows.
    pub(crate) fn is_stale_receipt(&self) -> bool {
        let about_receipt = ["ReceiptHandle", "receipt handle", "Total VisibilityTimeout"]
            .iter()
            .any(|part| self.message.contains(part));
        self.code.contains("MessageNotInflight")
            || self.code.contains("ReceiptHandleIsInvalid")
            || (self.code.contains("InvalidParameterValue") && about_receipt)
    }

    /// As a fault of the transport. `step` names what was tried, as `sending to orders.fifo`.
    pub(crate) fn into_transport_error(self, step: impl Into<String>) -> TransportError {
        let step = step.into();
        if self.is_stale_receipt() {
            return TransportError::Stale;
        }
        if self.is_refusal() {
            return TransportError::Invalid(format!("{step}: {self}"));
        }
        let remedy = if self.is_absent() {
            " (it does not exist; create it with 'streampress setup')"
        } else if self.is_denied() {
            " (the credentials lack the permission)"
        } else {
            ""
        };
        TransportError::unavailable(format!("{step}{remedy}"), self)
    }
}

/// Wraps an error of the SDK as a fault of the transport.
pub(crate) fn transport_error<E, R>(
    step: impl Into<String>,
    error: &SdkError<E, R>,
) -> TransportError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug,
{
    ServiceError::from_sdk(error).into_transport_error(step)
}

/// `com.amazonaws.sqs#QueueDoesNotExist` is `QueueDoesNotExist`.
fn short(code: &str) -> &str {
    code.rsplit(['#', '.']).next().unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::error::ErrorMetadata;
    use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlError;

    use super::*;

    #[test]
    fn the_same_refusal_reads_the_same_whatever_else_the_answer_has() {
        let refused = |request: &'static str| {
            let metadata = ErrorMetadata::builder()
                .code("com.amazonaws.sqs#AccessDenied")
                .message("not authorized to perform: sqs:GetQueueUrl")
                .custom("aws_request_id", request)
                .build();
            let error = SdkError::service_error(GetQueueUrlError::generic(metadata), request);
            ServiceError::from_sdk(&error)
        };
        let (first, second) = (refused("request 1"), refused("request 2"));
        assert_eq!(first, second);
        assert!(first.is_denied());
        assert_eq!(
            first.to_string(),
            "AccessDenied: not authorized to perform: sqs:GetQueueUrl"
        );
    }
}
