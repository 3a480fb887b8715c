//! How the values of a record are written in one format: constant bytes with fields between them.

use crate::document::{RecordMember, SchemaDocument, ValueField};
use crate::draw::RecordValues;
use crate::kinds::{TemplatePart, TextClass};
use crate::options::FileFormat;
use crate::text::{self, JsonStyle};

/// The bytes of a record that are the same for every record, with the fields between them.
#[derive(Debug)]
pub(crate) struct RecordLayout {
    parts: Vec<TemplatePart>,
    quoting: Quoting,
}

/// How a value is quoted.
#[derive(Debug, Clone, Copy)]
enum Quoting {
    Json(JsonStyle),
    Csv,
    /// Unquoted, in a log line that a template describes.
    Line,
    /// The value of `key=value`.
    Pair,
}

impl RecordLayout {
    pub(crate) fn new(document: &SchemaDocument, format: FileFormat) -> Self {
        match (format, &document.line) {
            (FileFormat::Json, _) => Self::json(document, JsonStyle::Python, b""),
            (FileFormat::Ndjson, _) => Self::json(document, JsonStyle::Compact, b"\n"),
            (FileFormat::Csv, _) => Self::listed(document, Quoting::Csv, b",", |_| Vec::new()),
            (FileFormat::Txt, None) => Self::listed(document, Quoting::Pair, b" ", |field| {
                let mut key = Vec::new();
                text::pair_text(&mut key, field.path.as_bytes());
                key.push(b'=');
                key
            }),
            (FileFormat::Txt, Some(line)) => {
                let mut parts = line.0.clone();
                parts.push(TemplatePart::Literal(b"\n".to_vec()));
                Self {
                    parts,
                    quoting: Quoting::Line,
                }
            }
        }
    }

    fn json(document: &SchemaDocument, style: JsonStyle, end: &[u8]) -> Self {
        let mut parts = Vec::new();
        json_members(&document.members, style, &mut parts);
        literal(&mut parts, end);
        Self {
            parts,
            quoting: Quoting::Json(style),
        }
    }

    /// One value after another, each with constant bytes before it.
    fn listed(
        document: &SchemaDocument,
        quoting: Quoting,
        separator: &[u8],
        before: impl Fn(&ValueField) -> Vec<u8>,
    ) -> Self {
        let mut parts = Vec::new();
        for (n, (index, field)) in visible(document).into_iter().enumerate() {
            if n > 0 {
                literal(&mut parts, separator);
            }
            literal(&mut parts, &before(field));
            parts.push(TemplatePart::Field(index));
        }
        literal(&mut parts, b"\n");
        Self { parts, quoting }
    }

    /// Appends one record.
    pub(crate) fn write(&self, values: &RecordValues, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                TemplatePart::Literal(literal) => out.extend_from_slice(literal),
                TemplatePart::Field(field) => {
                    let (text, class) = values.get(*field);
                    self.quoting.write(text, class, out);
                }
            }
        }
    }
}

impl Quoting {
    fn write(self, text: &[u8], class: TextClass, out: &mut Vec<u8>) {
        match (self, class) {
            (Self::Json(_), TextClass::Null) => out.extend_from_slice(b"null"),
            (Self::Json(_), TextClass::Plain) => {
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            (Self::Json(style), TextClass::Text) => text::json_string(out, text, style),
            (Self::Csv, TextClass::Null) => {}
            // Lists are JSON with commas and quotes in it.
            (Self::Csv, TextClass::Raw | TextClass::Plain | TextClass::Text) => {
                text::csv_cell(out, text)
            }
            (Self::Line | Self::Pair, TextClass::Null) => out.push(b'-'),
            (Self::Pair, TextClass::Raw | TextClass::Plain | TextClass::Text) => {
                text::pair_text(out, text)
            }
            (Self::Line, TextClass::Text) => text::line_text(out, text),
            (Self::Json(_), TextClass::Raw) | (Self::Line, TextClass::Raw | TextClass::Plain) => {
                out.extend_from_slice(text);
            }
        }
    }
}

/// The header line of a CSV file.
pub(crate) fn csv_header(document: &SchemaDocument) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, (_, field)) in visible(document).into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        text::csv_cell(&mut out, field.path.as_bytes());
    }
    out.push(b'\n');
    out
}

/// The fields that are not hidden, with their numbers, in their order.
fn visible(document: &SchemaDocument) -> Vec<(usize, &ValueField)> {
    fn collect(members: &[RecordMember], found: &mut Vec<usize>) {
        for member in members {
            match member {
                RecordMember::Value { field, .. } => found.push(*field),
                RecordMember::Object { members, .. } => collect(members, found),
            }
        }
    }
    let mut found = Vec::new();
    collect(&document.members, &mut found);
    let field = |index: usize| document.fields.get(index).map(|field| (index, field));
    found.into_iter().filter_map(field).collect()
}

fn json_members(members: &[RecordMember], style: JsonStyle, parts: &mut Vec<TemplatePart>) {
    literal(parts, b"{");
    for (n, member) in members.iter().enumerate() {
        if n > 0 {
            literal(parts, style.comma().as_bytes());
        }
        let (RecordMember::Value { name, .. } | RecordMember::Object { name, .. }) = member;
        let mut key = Vec::new();
        text::json_string(&mut key, name.as_bytes(), style);
        literal(parts, &key);
        literal(parts, style.colon().as_bytes());
        match member {
            RecordMember::Value { field, .. } => parts.push(TemplatePart::Field(*field)),
            RecordMember::Object { members, .. } => json_members(members, style, parts),
        }
    }
    literal(parts, b"}");
}

/// Appends constant bytes to those already at the end.
fn literal(parts: &mut Vec<TemplatePart>, bytes: &[u8]) {
    match parts.last_mut() {
        Some(TemplatePart::Literal(last)) => last.extend_from_slice(bytes),
        _ => parts.push(TemplatePart::Literal(bytes.to_vec())),
    }
}
