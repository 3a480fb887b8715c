//! UUIDs in their usual spelling: sixteen bytes each.

use super::{Damage, Known, Node, RawStream, Reader, Source, Tag, Values};
use crate::codec::transform::streams::Kind;

const TEXT_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// Whether a look at some values says UUIDs.
pub fn fits(values: &Values) -> bool {
    let upper = is_upper(values);
    values.iter().all(|value| parse(value, upper).is_some())
}

fn is_upper(values: &Values) -> bool {
    values
        .iter()
        .any(|value| value.iter().any(u8::is_ascii_uppercase))
}

fn parse(text: &[u8], upper: bool) -> Option<[u8; 16]> {
    if text.len() != TEXT_LEN || DASHES.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut bytes = [0; 16];
    let mut digits = text
        .iter()
        .enumerate()
        .filter(|(at, _)| !DASHES.contains(at))
        .map(|(_, &byte)| byte);
    for byte in &mut bytes {
        *byte = hex(digits.next()?, upper)? << 4 | hex(digits.next()?, upper)?;
    }
    Some(bytes)
}

fn hex(byte: u8, upper: bool) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' if !upper => Some(byte - b'a' + 10),
        b'A'..=b'F' if upper => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Fits where every value is a UUID of the same case.
pub fn encode(values: &Values) -> Option<Node> {
    let mut node = Node::of(Tag::Uuid);
    let upper = is_upper(values);
    node.plan.push(u8::from(upper));
    let mut bytes = Vec::with_capacity(values.len() * 16);
    for value in values.iter() {
        bytes.extend(parse(value, upper)?);
    }
    node.streams.push(RawStream {
        coding: "uuid",
        kind: Kind::Rows(8),
        bytes,
    });
    Some(node)
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let digits: &[u8; 16] = if plan.byte()? == 1 {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let bytes = source.next("uuid")?;
    if bytes.len() != count * 16 {
        return Err(Damage::new(
            "UUIDs are not as many as their column's values",
        ));
    }
    let mut values = Values::default();
    let mut text = Vec::with_capacity(TEXT_LEN);
    for uuid in bytes.chunks_exact(16) {
        text.clear();
        for byte in uuid {
            if DASHES.contains(&text.len()) {
                text.push(b'-');
            }
            text.extend([
                digits[usize::from(byte >> 4)],
                digits[usize::from(byte & 15)],
            ]);
        }
        values.push_bounded(&text, known.limit)?;
    }
    Ok(values)
}
