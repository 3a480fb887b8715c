//! UUIDs and other hexadecimal numbers of one length: two digits a byte, or only the bits that vary.

use super::context::{DecodeContext, EncodeContext, EncodedColumn, Tag};
use crate::transform::choices::Choice;
use crate::{
    Damage, FormatVersion,
    bits::{BitReader, BitWriter},
    bytes::{FieldReader, put_varint},
    transform::{
        streams::{Extent, RawStream, StreamKind, StreamSource},
        values::ColumnValues,
    },
};

const TEXT_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// The largest number of digits.
const MAX_DIGITS: usize = 128;
/// Plan flag: upper-case digits.
const UPPER: u8 = 1;
/// Plan flag: digits without dashes, after their number.
const PLAIN: u8 = 2;
/// Plan flag: the stream holds only the bits that vary.
const MASKED: u8 = 4;

/// The notation of all values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HexFormat {
    upper: bool,
    /// The length of a value in characters.
    len: usize,
    dashes: bool,
}

/// Whether every value is a UUID or a hexadecimal number of the same length with letters.
pub(super) fn fits(values: &ColumnValues) -> bool {
    format_of(values).is_some_and(|format| {
        let mut bytes = Vec::new();
        let letters = values
            .iter()
            .any(|value| value.iter().any(u8::is_ascii_alphabetic));
        letters
            && values
                .iter()
                .all(|value| parse(value, format, &mut bytes).is_some())
    })
}

fn format_of(values: &ColumnValues) -> Option<HexFormat> {
    let len = values.get(0).len();
    let dashes = len == TEXT_LEN && values.get(0)[DASHES[0]] == b'-';
    let upper = values
        .iter()
        .any(|value| value.iter().any(u8::is_ascii_uppercase));
    (dashes || (len >= 8 && len.is_multiple_of(2) && len <= MAX_DIGITS)).then_some(HexFormat {
        upper,
        len,
        dashes,
    })
}

/// Appends the bytes of a value.
fn parse(text: &[u8], format: HexFormat, bytes: &mut Vec<u8>) -> Option<()> {
    if text.len() != format.len || (format.dashes && DASHES.iter().any(|&at| text[at] != b'-')) {
        return None;
    }
    let is_dash = |at: &usize| format.dashes && DASHES.contains(at);
    let mut digits = text
        .iter()
        .enumerate()
        .filter(|(at, _)| !is_dash(at))
        .map(|(_, &byte)| byte);
    while let Some(high) = digits.next() {
        bytes.push(hex(high, format.upper)? << 4 | hex(digits.next()?, format.upper)?);
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

/// Fits if every value has the same notation.
pub(super) fn encode(values: &ColumnValues, context: &EncodeContext<'_>) -> Option<EncodedColumn> {
    let format = format_of(values)?;
    let flags = if format.upper { UPPER } else { 0 } | if format.dashes { 0 } else { PLAIN };
    let mut bytes = Vec::with_capacity(values.byte_len() / 2);
    for value in values.iter() {
        parse(value, format, &mut bytes)?;
    }
    let column = |flags: u8, masks: &[u8], stream: RawStream| {
        let mut column = EncodedColumn::of(Tag::Hex);
        column.plan.push(flags);
        if !format.dashes {
            put_varint(&mut column.plan, format.len as u64);
        }
        column.plan.extend_from_slice(masks);
        column.streams.push(stream);
        column
    };
    let (varying, mut first) = varying_bits(&bytes, bytes.len() / values.len());
    if context.version == FormatVersion::V2 {
        // Readers ignore the bits that vary here.
        first
            .iter_mut()
            .zip(&varying)
            .for_each(|(first, varying)| *first &= !varying);
    }
    let bits = VaryingBits {
        varying: &varying,
        first: &first,
    };
    let masked = |bytes: &[u8]| {
        column(
            flags | MASKED,
            &[&varying[..], &first].concat(),
            RawStream::new("hex bits", StreamKind::Packed, bits.pack(bytes)),
        )
    };
    let whole = |bytes| {
        column(
            flags,
            &[],
            RawStream::new("hex", StreamKind::Rows(8), bytes),
        )
    };
    match context.choice(MASK) {
        Some(Choice::Hex(true)) => return Some(masked(&bytes)),
        Some(Choice::Hex(false)) => return Some(whole(bytes)),
        _ => {}
    }
    let (masked, whole) = (masked(&bytes), whole(bytes));
    let smaller = masked.cost(context.cost_basis()) < whole.cost(context.cost_basis());
    let mut column = if smaller { masked } else { whole };
    column
        .choices
        .push((context.key.child(MASK), Choice::Hex(smaller)));
    Some(column)
}

/// The place of the choice between all bits and those that vary.
const MASK: u64 = u64::MAX - 1;

/// The bits in which any number differs from the first, and the first number.
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

/// The bits that vary, and the value of the others.
struct VaryingBits<'a> {
    varying: &'a [u8],
    /// The other bits.
    first: &'a [u8],
}

impl VaryingBits<'_> {
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

    /// The bytes of `count` numbers.
    fn packed_len(&self, count: usize) -> usize {
        let per_number: u32 = self.varying.iter().map(|byte| byte.count_ones()).sum();
        (count * per_number as usize).div_ceil(8)
    }

    fn unpack(&self, count: usize, packed: &[u8]) -> Result<Vec<u8>, Damage> {
        if packed.len() != self.packed_len(count) {
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
    Damage::new("the number of digits does not match the column")
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let flags = plan.byte()?;
    if flags > UPPER | PLAIN | MASKED {
        return Err(Damage::new("unknown flags of hexadecimal numbers"));
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
        plan.size(MAX_DIGITS, "digits")? / 2
    };
    if width == 0 || count * width > context.limit {
        return Err(not_as_many());
    }
    let bytes = if flags & MASKED == 0 {
        source.next("hex", StreamKind::Rows(8), Extent::Bytes(count * width))?
    } else {
        let bits = VaryingBits {
            varying: plan.take(width)?,
            first: plan.take(width)?,
        };
        let extent = Extent::Bytes(bits.packed_len(count));
        bits.unpack(count, &source.next("hex bits", StreamKind::Packed, extent)?)?
    };
    if bytes.len() != count * width {
        return Err(not_as_many());
    }
    let mut values = ColumnValues::default();
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
        values.push_bounded(&text, context.limit)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Effort, FormatVersion,
        entropy::cost::MeasuredSizes,
        transform::{
            choices::{ChoiceKey, Choices},
            column::ColumnRefs,
        },
    };

    fn check(values: &[String], stream: &str) {
        let values: ColumnValues = values.iter().map(String::as_bytes).collect();
        assert!(fits(&values));
        let measured = MeasuredSizes::default();
        let choices = Choices::default();
        let refs = ColumnRefs::default();
        let context = EncodeContext::new(
            Effort::Max,
            FormatVersion::V1,
            refs,
            ChoiceKey(0),
            &choices,
            &measured,
        );
        let column = encode(&values, &context).expect("fits");
        assert_eq!(column.streams[0].coding, stream);
        let known = DecodeContext {
            limit: values.byte_len(),
            refs: ColumnRefs::default(),
            depth: 0,
        };
        let mut source = StreamSource::of_raw(&[], &column.streams);
        let mut plan = FieldReader::new(&column.plan[1..]);
        let back = decode(values.len(), &mut plan, &mut source, &known);
        assert_eq!(back, Ok(values));
    }

    #[test]
    fn numbers_with_and_without_constant_bits_round_trip() {
        let mut rng = fastrand::Rng::with_seed(4);
        let version4 = |rng: &mut fastrand::Rng| {
            let (high, low) = (rng.u64(..), rng.u64(..));
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
        check(&of(500, &mut |_| version4(&mut rng)), "hex bits");
        check(&of(500, &mut |_| format!("{:016X}", rng.u64(..))), "hex");
        check(
            &of(100, &mut |_| format!("{:016x}ab", rng.u64(..))),
            "hex bits",
        );
    }
}
