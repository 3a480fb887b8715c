//! What is wrong with a schema.

/// What is wrong with a schema, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema {schema}: {}{problem}; {remedy}", path(.field))]
pub struct SchemaError {
    /// The schema's name as it was given.
    pub schema: String,
    /// Path of the field, such as `fields[3].weights`; empty for the document as a whole.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl SchemaError {
    /// An error at a field of a schema whose name is not known yet.
    pub(crate) fn at(field: &str, problem: String, remedy: impl Into<String>) -> Self {
        Self {
            schema: String::new(),
            field: field.to_owned(),
            problem,
            remedy: remedy.into(),
        }
    }

    /// The same error, with the schema's name.
    pub(crate) fn of(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.schema);
        self
    }
}

impl From<SchemaError> for Vec<SchemaError> {
    fn from(error: SchemaError) -> Self {
        vec![error]
    }
}

fn path(field: &str) -> String {
    if field.is_empty() {
        String::new()
    } else {
        format!("{field}: ")
    }
}
