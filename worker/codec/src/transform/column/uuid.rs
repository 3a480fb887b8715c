//! UUIDs in their usual spelling, and other hexadecimal numbers of one length: two digits a byte, or
//! only the bits that are not the same in all of them.

use super::{Damage, Known, Node, RawStream, Reader, Source, Tag, Values};
use crate::{
    bits::{BitReader, BitWriter},
    bytes::put_varint,
    hybrid::Effort,
    transform::streams::Kind,
};

const TEXT_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// The longest run of digits that counts as one number.
const LONGEST: usize = 128;
/// In the plan: capital digits.
const UPPER: u8 = 1;
/// In the plan: digits without dashes, behind their count.
const PLAIN: u8 = 2;
/// In the plan: only some bits are in the stream.
const MASKED: u8 = 4;

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
pub fn encode(values: &Values, effort: Effort) -> Option<Node> {
    let spelling = spelling(values)?;
    let flags = if spelling.upper { UPPER } else { 0 } | if spelling.dashes { 0 } else { PLAIN };
    let mut bytes = Vec::with_capacity(values.byte_len() / 2);
    for value in values.iter() {
        parse(value, spelling, &mut bytes)?;
    }
    let node = |flags: u8, masks: &[u8], stream: RawStream| {
        let mut node = Node::of(Tag::Uuid);
        node.plan.push(flags);
        if !spelling.dashes {
            put_varint(&mut node.plan, spelling.len as u64);
        }
        node.plan.extend_from_slice(masks);
        node.streams.push(stream);
        node
    };
    let (varying, first) = varying_bits(&bytes, bytes.len() / values.len());
    let bits = BitsOf {
        varying: &varying,
        first: &first,
    };
    let masked = node(
        flags | MASKED,
        &[&varying[..], &first].concat(),
        RawStream::new("hex bits", Kind::Packed, bits.pack(&bytes)),
    );
    let whole = node(flags, &[], RawStream::new("hex", Kind::Rows(8), bytes));
    Some(if masked.cost(effort) < whole.cost(effort) {
        masked
    } else {
        whole
    })
}

/// The bits in which any number differs from the first, and the first.
fn varying_bits(bytes: &[u8], width: usize) -> (Vec<u8>, Vec<u8>) {
    let first = bytes[..width].to_vec();
    let mut varying = vec![0; width];
    for number in bytes.chunks_exact(width) {
        for (varying, (byte, first)) in varying.iter_mut().zip(number.iter().zip(&first)) {
            *varying |= byte ^ first;
        }
    }
    (varying, first)
}

/// Numbers of which only some bits vary.
struct BitsOf<'a> {
    varying: &'a [u8],
    /// The other bits.
    first: &'a [u8],
}

impl BitsOf<'_> {
    fn pack(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bits = BitWriter::default();
        for number in bytes.chunks_exact(self.varying.len()) {
            for (&byte, &varying) in number.iter().zip(self.varying) {
                if varying == u8::MAX {
                    bits.put(u128::from(byte), 8);
                    continue;
                }
                for bit in (0..8).rev().filter(|bit| varying >> bit & 1 == 1) {
                    bits.put(u128::from(byte >> bit & 1), 1);
                }
            }
        }
        bits.finish()
    }

    fn unpack(&self, count: usize, packed: &[u8]) -> Result<Vec<u8>, Damage> {
        let per_number: usize = self
            .varying
            .iter()
            .map(|byte| byte.count_ones() as usize)
            .sum();
        if packed.len() != (count * per_number).div_ceil(8) {
            return Err(not_as_many());
        }
        let mut bits = BitReader::new(packed);
        let mut bytes = Vec::with_capacity(count * self.varying.len());
        for _ in 0..count {
            for (&varying, &first) in self.varying.iter().zip(self.first) {
                let mut byte = first & !varying;
                if varying == u8::MAX {
                    byte = bits.take(8)? as u8;
                } else {
                    for bit in (0..8).rev().filter(|bit| varying >> bit & 1 == 1) {
                        byte |= (bits.take(1)? as u8) << bit;
                    }
                }
                bytes.push(byte);
            }
        }
        Ok(bytes)
    }
}

fn not_as_many() -> Damage {
    Damage::new("digits are not as many as their column's values need")
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let flags = plan.byte()?;
    if flags > UPPER | PLAIN | MASKED {
        return Err(Damage::new("an unknown spelling of digits"));
    }
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
    if width == 0 || count * width > known.limit {
        return Err(not_as_many());
    }
    let bytes = if flags & MASKED == 0 {
        source.next("hex")?
    } else {
        let bits = BitsOf {
            varying: plan.take(width)?,
            first: plan.take(width)?,
        };
        bits.unpack(count, &source.next("hex bits")?)?
    };
    if bytes.len() != count * width {
        return Err(not_as_many());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::column::Refs;

    fn check(values: &[String], stream: &str) {
        let values: Values = values.iter().map(String::as_bytes).collect();
        assert!(fits(&values));
        let node = encode(&values, Effort::Max).expect("fits");
        assert_eq!(node.streams[0].coding, stream);
        let known = Known {
            limit: values.byte_len(),
            refs: Refs::default(),
            depth: 0,
        };
        let mut source = Source::of_raw(&[], &node.streams);
        let mut plan = Reader::new(&node.plan[1..]);
        let back = decode(values.len(), &mut plan, &mut source, &known);
        assert_eq!(back, Ok(values));
    }

    #[test]
    fn digits_come_back_with_and_without_bits_in_common() {
        let mut dice = fastrand::Rng::with_seed(4);
        let version4 = |dice: &mut fastrand::Rng| {
            let (high, low) = (dice.u64(..), dice.u64(..));
            format!(
                "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
                high >> 32,
                high >> 16 & 0xffff,
                high & 0xfff,
                0x8000 | low >> 48 & 0x3fff,
                low & 0xffff_ffff_ffff
            )
        };
        let of = |count: u64, text: &mut dyn FnMut(u64) -> String| {
            (0..count).map(text).collect::<Vec<String>>()
        };
        check(&of(500, &mut |_| version4(&mut dice)), "hex bits");
        check(&of(500, &mut |_| format!("{:016X}", dice.u64(..))), "hex");
        check(
            &of(100, &mut |_| format!("{:016x}ab", dice.u64(..))),
            "hex bits",
        );
    }
}
