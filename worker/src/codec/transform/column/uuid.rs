//! UUIDs in their usual spelling, and other hexadecimal numbers of one length: two digits a byte.

use super::{Damage, Known, Node, RawStream, Reader, Source, Tag, Values};
use crate::codec::{bytes::put_varint, transform::streams::Kind};

const TEXT_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// The longest run of digits that counts as one number.
const LONGEST: usize = 128;
/// In the plan: capital digits.
const UPPER: u8 = 1;
/// In the plan: digits without dashes, behind their count.
const PLAIN: u8 = 2;

/// How all of a column's values are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spelling {
    upper: bool,
    /// Letters of a value.
    len: usize,
    dashes: bool,
}

/// Whether every value is a UUID, or digits enough that a byte for two of them pays.
pub fn fits(values: &Values) -> bool {
    spelling(values).is_some_and(|spelling| {
        let mut bytes = Vec::new();
        let letters = values
            .iter()
            .any(|value| value.iter().any(u8::is_ascii_alphabetic));
        letters
            && values
                .iter()
                .all(|value| parse(value, spelling, &mut bytes).is_some())
    })
}

fn spelling(values: &Values) -> Option<Spelling> {
    let len = values.get(0).len();
    let dashes = len == TEXT_LEN && values.get(0)[DASHES[0]] == b'-';
    let upper = values
        .iter()
        .any(|value| value.iter().any(u8::is_ascii_uppercase));
    (dashes || (len >= 8 && len.is_multiple_of(2) && len <= LONGEST)).then_some(Spelling {
        upper,
        len,
        dashes,
    })
}

/// Appends a value's bytes.
fn parse(text: &[u8], spelling: Spelling, bytes: &mut Vec<u8>) -> Option<()> {
    if text.len() != spelling.len || (spelling.dashes && DASHES.iter().any(|&at| text[at] != b'-'))
    {
        return None;
    }
    let is_dash = |at: &usize| spelling.dashes && DASHES.contains(at);
    let mut digits = text
        .iter()
        .enumerate()
        .filter(|(at, _)| !is_dash(at))
        .map(|(_, &byte)| byte);
    while let Some(high) = digits.next() {
        bytes.push(hex(high, spelling.upper)? << 4 | hex(digits.next()?, spelling.upper)?);
    }
    Some(())
}

fn hex(byte: u8, upper: bool) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' if !upper => Some(byte - b'a' + 10),
        b'A'..=b'F' if upper => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Fits where every value is spelled alike.
pub fn encode(values: &Values) -> Option<Node> {
    let spelling = spelling(values)?;
    let mut node = Node::of(Tag::Uuid);
    node.plan
        .push(if spelling.upper { UPPER } else { 0 } | if spelling.dashes { 0 } else { PLAIN });
    if !spelling.dashes {
        put_varint(&mut node.plan, spelling.len as u64);
    }
    let mut bytes = Vec::with_capacity(values.byte_len() / 2);
    for value in values.iter() {
        parse(value, spelling, &mut bytes)?;
    }
    node.streams.push(RawStream {
        coding: "hex",
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
    let flags = plan.byte()?;
    let digits: &[u8; 16] = if flags & UPPER != 0 {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let dashes = flags & PLAIN == 0;
    let width = if dashes {
        16
    } else {
        plan.size(LONGEST, "digits")? / 2
    };
    let bytes = source.next("hex")?;
    if width == 0 || bytes.len() != count * width {
        return Err(Damage::new(
            "digits are not as many as their column's values need",
        ));
    }
    let mut values = Values::default();
    let mut text = Vec::with_capacity(TEXT_LEN);
    for number in bytes.chunks_exact(width) {
        text.clear();
        for byte in number {
            if dashes && DASHES.contains(&text.len()) {
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
