//! Which log lines may be written at all, whatever the settings say.

use tracing::{Level, Metadata};

/// Whether a line may be logged. Trace lines of other crates show whole requests, with the tokens in them by which AWS
/// knows an instance or a container: no setting brings them out.
pub fn is_safe_to_log(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::DEBUG || line.target().starts_with("streampress")
}
