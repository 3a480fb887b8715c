//! What AWS says, in our words: which faults may pass, which never will.

use std::fmt;

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use crate::TransportError;

/// What a service answered, or why there was no answer.
#[derive(Debug, Clone)]
pub struct Said {
    /// The service's name for it, as `AccessDeniedException`; empty when nothing was answered.
    pub code: String,
    /// The service's sentence, or what happened to the connection.
    pub text: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            f.write_str(&self.text)
        } else {
            write!(f, "{}: {}", self.code, self.text)
        }
    }
}

impl std::error::Error for Said {}

/// How the SDK says that no provider had any, and that one of them failed.
const NO_CREDENTIALS: [&str; 2] = ["no credentials found in chain", "while loading credentials"];

/// What to do about a fault whose causes are these, where it is for want of credentials.
pub fn no_credentials(causes: &str) -> Option<String> {
    let why = NO_CREDENTIALS
        .iter()
        .find_map(|mark| Some(causes.split_once(mark)?.1))?;
    // Nothing anywhere is a list of all providers; a fault of one is a sentence worth reading.
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

impl Said {
    /// From whatever the SDK returned.
    pub fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
    {
        if let SdkError::ServiceError(service) = error {
            let (code, message) = (service.err().code(), service.err().message());
            if let Some(code) = code {
                return Self {
                    code: short(code).to_owned(),
                    text: message.unwrap_or("no message").to_owned(),
                };
            }
        }
        let text = crate::error::with_causes(error);
        Self {
            code: String::new(),
            text: no_credentials(&text).unwrap_or(text),
        }
    }

    /// Whether the code is one of these.
    pub fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// The service asks us to slow down.
    pub fn is_throttling(&self) -> bool {
        self.code.contains("Throttl")
            || self.is(&[
                "ProvisionedThroughputExceededException",
                "LimitExceededException",
                "SlowDown",
                "KMSThrottlingException",
            ])
    }

    /// The request can never succeed as it is.
    pub fn is_refusal(&self) -> bool {
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

    /// Nothing there by this name.
    pub fn is_absent(&self) -> bool {
        self.code.contains("NonExistentQueue")
            || self.is(&["QueueDoesNotExist", "ResourceNotFoundException"])
    }

    /// The credentials lack a permission.
    pub fn is_denied(&self) -> bool {
        self.code.contains("AccessDenied")
            || self.is(&["UnauthorizedOperation", "AccessDeniedException"])
    }

    /// The receipt is of a delivery that is over, or that has lasted for the 12 hours that SQS allows.
    pub fn is_stale_receipt(&self) -> bool {
        let about_receipt = ["ReceiptHandle", "receipt handle", "Total VisibilityTimeout"]
            .iter()
            .any(|words| self.text.contains(words));
        self.code.contains("MessageNotInflight")
            || self.code.contains("ReceiptHandleIsInvalid")
            || (self.code.contains("InvalidParameterValue") && about_receipt)
    }

    /// As a door's fault. `step` names what was tried, as `sending to orders.fifo`.
    pub fn fault(self, step: impl Into<String>) -> TransportError {
        let step = step.into();
        if self.is_stale_receipt() {
            return TransportError::Stale;
        }
        if self.is_refusal() {
            return TransportError::Invalid(format!("{step}: {self}"));
        }
        let way_out = if self.is_absent() {
            " (it does not exist; make it with 'streampress setup')"
        } else if self.is_denied() {
            " (the credentials lack the permission)"
        } else {
            ""
        };
        TransportError::unavailable(format!("{step}{way_out}"), self)
    }
}

/// Wraps what the SDK returned as a door's fault.
pub fn fault<E, R>(step: impl Into<String>, error: &SdkError<E, R>) -> TransportError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: fmt::Debug,
{
    Said::of(error).fault(step)
}

/// `com.amazonaws.sqs#QueueDoesNotExist` is `QueueDoesNotExist`.
fn short(code: &str) -> &str {
    code.rsplit(['#', '.']).next().unwrap_or(code)
}
