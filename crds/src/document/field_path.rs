//! Paths of fields, such as `spec.codec.effort`.

/// The path of a field below another.
pub(crate) fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}
