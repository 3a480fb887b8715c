//! The API server's errors as text.

use streampress_transport::error_chain;

/// The API server's own sentence, since kube's has the whole Status object behind it; or why there is none.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => error_chain(other),
    }
}
