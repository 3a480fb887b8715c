//! How the values of a record stand in a file of one format: constant bytes with slots between.

use super::FileFormat;
use super::draw::Values;
use super::fields::{Document, Leaf, Node};
use super::kinds::{Class, Part};
use super::text::{self, JsonStyle};

/// A record's bytes, prepared as far as they are the same for every record.
#[derive(Debug)]
pub(super) struct Layout {
    parts: Vec<Part>,
    quoting: Quoting,
}

/// How a value is written into its slot.
#[derive(Debug, Clone, Copy)]
enum Quoting {
    Json(JsonStyle),
    Csv,
    /// As it is, in a log line that a template describes.
    Line,
    /// The value of `key=value`.
    Pair,
}

impl Layout {
    pub(super) fn new(document: &Document, format: FileFormat) -> Self {
        match (format, &document.line) {
            (FileFormat::Json, _) => Self::json(document, JsonStyle::Python, b""),
            (FileFormat::Ndjson, _) => Self::json(document, JsonStyle::Compact, b"\n"),
            (FileFormat::Csv, _) => Self::listed(document, Quoting::Csv, b",", |_| Vec::new()),
            (FileFormat::Txt, None) => Self::listed(document, Quoting::Pair, b" ", |leaf| {
                let mut key = Vec::new();
                text::pair_text(&mut key, leaf.path.as_bytes());
                key.push(b'=');
                key
            }),
            (FileFormat::Txt, Some(line)) => {
                let mut parts = line.0.clone();
                parts.push(Part::Literal(b"\n".to_vec()));
                Self {
                    parts,
                    quoting: Quoting::Line,
                }
            }
        }
    }

    fn json(document: &Document, style: JsonStyle, end: &[u8]) -> Self {
        let mut parts = Vec::new();
        json_members(&document.shape, style, &mut parts);
        literal(&mut parts, end);
        Self {
            parts,
            quoting: Quoting::Json(style),
        }
    }

    /// One value after another, each with something before it.
    fn listed(
        document: &Document,
        quoting: Quoting,
        separator: &[u8],
        before: impl Fn(&Leaf) -> Vec<u8>,
    ) -> Self {
        let mut parts = Vec::new();
        for (n, (index, leaf)) in visible(document).into_iter().enumerate() {
            if n > 0 {
                literal(&mut parts, separator);
            }
            literal(&mut parts, &before(leaf));
            parts.push(Part::Leaf(index));
        }
        literal(&mut parts, b"\n");
        Self { parts, quoting }
    }

    /// Appends one record.
    pub(super) fn write(&self, values: &Values, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.extend_from_slice(literal),
                Part::Leaf(leaf) => {
                    let (text, class) = values.get(*leaf);
                    self.quoting.write(text, class, out);
                }
            }
        }
    }
}

impl Quoting {
    fn write(self, text: &[u8], class: Class, out: &mut Vec<u8>) {
        match (self, class) {
            (Self::Json(_), Class::Null) => out.extend_from_slice(b"null"),
            (Self::Json(_), Class::Plain) => {
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            (Self::Json(style), Class::Text) => text::json_string(out, text, style),
            (Self::Csv, Class::Null) => {}
            // Lists are JSON with commas and quotes in it.
            (Self::Csv, Class::Raw | Class::Plain | Class::Text) => text::csv_cell(out, text),
            (Self::Line | Self::Pair, Class::Null) => out.push(b'-'),
            (Self::Pair, Class::Raw | Class::Plain | Class::Text) => text::pair_text(out, text),
            (Self::Line, Class::Text) => text::line_text(out, text),
            (Self::Json(_), Class::Raw) | (Self::Line, Class::Raw | Class::Plain) => {
                out.extend_from_slice(text);
            }
        }
    }
}

/// The header line of a CSV file.
pub(super) fn csv_header(document: &Document) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, (_, leaf)) in visible(document).into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        text::csv_cell(&mut out, leaf.path.as_bytes());
    }
    out.push(b'\n');
    out
}

/// The values that are not hidden, in their order.
fn visible(document: &Document) -> Vec<(usize, &Leaf)> {
    fn collect(nodes: &[Node], found: &mut Vec<usize>) {
        for node in nodes {
            match node {
                Node::Leaf { leaf, .. } => found.push(*leaf),
                Node::Object { members, .. } => collect(members, found),
            }
        }
    }
    let mut found = Vec::new();
    collect(&document.shape, &mut found);
    let leaf = |index: usize| document.leaves.get(index).map(|leaf| (index, leaf));
    found.into_iter().filter_map(leaf).collect()
}

fn json_members(nodes: &[Node], style: JsonStyle, parts: &mut Vec<Part>) {
    literal(parts, b"{");
    for (n, node) in nodes.iter().enumerate() {
        if n > 0 {
            literal(parts, style.comma().as_bytes());
        }
        let (Node::Leaf { name, .. } | Node::Object { name, .. }) = node;
        let mut key = Vec::new();
        text::json_string(&mut key, name.as_bytes(), style);
        literal(parts, &key);
        literal(parts, style.colon().as_bytes());
        match node {
            Node::Leaf { leaf, .. } => parts.push(Part::Leaf(*leaf)),
            Node::Object { members, .. } => json_members(members, style, parts),
        }
    }
    literal(parts, b"}");
}

/// Appends constant bytes to those already at the end.
fn literal(parts: &mut Vec<Part>, bytes: &[u8]) {
    match parts.last_mut() {
        Some(Part::Literal(last)) => last.extend_from_slice(bytes),
        _ => parts.push(Part::Literal(bytes.to_vec())),
    }
}
