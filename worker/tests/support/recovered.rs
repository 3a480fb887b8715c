//! What `streampress recover` prints. `tests/aws_recover.rs` has it too.

use serde_json::Value;

/// The line about the file of a manifest that is in the stream and not restored.
pub fn line_of(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let bundle = match manifest["bundle"]["files"].as_u64() {
        Some(files) => format!(", packed with {} other(s)", files - 1),
        None => String::new(),
    };
    let (name, version) = (&manifest["file"]["name"], &manifest["fileVersion"]);
    format!("{}: sent (version {}{bundle})\n", text(name), text(version))
}
