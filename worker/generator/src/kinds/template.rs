//! Reads the templates of texts and log lines.

use super::{BoundedName, MAX_TEXT_BYTES, TemplatePart, TextTemplate};
use crate::error::SchemaError;

impl TextTemplate {
    /// Reads `{path}` as the value of one of `fields`; `{{` and `}}` are braces.
    pub(crate) fn read(
        path: &str,
        text: &str,
        fields: &[BoundedName],
    ) -> Result<Self, SchemaError> {
        if text.len() > MAX_TEXT_BYTES {
            let problem = format!("a template of {} bytes", text.len());
            return Err(SchemaError::at(
                path,
                problem,
                format!("use at most {MAX_TEXT_BYTES}"),
            ));
        }
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            if (c == '{' || c == '}') && after.starts_with(c) {
                literal.push(c as u8);
                rest = &after[1..];
            } else if c == '{' {
                let end = after.find('}');
                let (name, then) =
                    end.map_or((after, ""), |end| (&after[..end], &after[end + 1..]));
                let field = fields.iter().position(|field| field.name == name);
                let field = field.filter(|_| end.is_some()).ok_or_else(|| {
                    let problem = format!("{{{name}}} is no field before this one");
                    let remedy = "use the dotted path of an earlier field, or {{ for a brace";
                    SchemaError::at(path, problem, remedy)
                })?;
                parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
                parts.push(TemplatePart::Field(field));
                rest = then;
            } else {
                literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
        }
        parts.push(TemplatePart::Literal(literal));
        Ok(Self(parts))
    }
}
