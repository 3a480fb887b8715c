//! An error response as AWS words it.

/// What a call is refused with.
#[derive(Debug, Clone)]
pub struct FakeError {
    /// HTTP status.
    pub status: u16,
    /// The error code, such as `QueueDoesNotExist`.
    pub code: String,
    /// The message for people.
    pub message: String,
    /// The code of SQS's older query protocol, which its JSON protocol carries in a header.
    pub query_code: Option<String>,
}

impl FakeError {
    /// The caller made the mistake: status 400.
    pub fn client(code: &str, message: &str) -> Self {
        Self {
            status: 400,
            code: code.into(),
            message: message.into(),
            query_code: None,
        }
    }

    /// The service failed: status 500.
    pub fn server(code: &str) -> Self {
        Self {
            status: 500,
            code: code.into(),
            message: "injected".into(),
            query_code: None,
        }
    }

    pub(super) fn with_query_code(mut self, code: &str) -> Self {
        self.query_code = Some(code.into());
        self
    }
}
