//! Values unchanged in sequence, each with a newline; if a value holds a newline, with a stream of
//! lengths.

use super::context::{DecodeContext, EncodedColumn, Tag};
use crate::{
    Damage, FormatVersion,
    bytes::{FieldReader, put_varint},
    transform::{
        streams::{Extent, RawStream, StreamKind, StreamSource},
        values::ColumnValues,
    },
};

const LINES: u8 = 0;
const LENGTHS: u8 = 1;

/// Always fits.
pub(super) fn encode(values: &ColumnValues, version: FormatVersion) -> EncodedColumn {
    let long = values.joined().contains(&b'\n');
    let tag = match version {
        FormatVersion::V2 if long => Tag::LongText,
        _ => Tag::Text,
    };
    let mut column = EncodedColumn::of(tag);
    let mut stream = |coding, kind, bytes| column.streams.push(RawStream::new(coding, kind, bytes));
    // The mark of version 1 is last so that lines align with equal lines of other columns.
    let mark = |bytes: &mut Vec<u8>, mark| {
        if version == FormatVersion::V1 {
            bytes.push(mark);
        }
    };
    if long {
        let mut lengths = Vec::new();
        values
            .iter()
            .for_each(|value| put_varint(&mut lengths, value.len() as u64));
        mark(&mut lengths, LENGTHS);
        stream("lengths", StreamKind::Bytes, lengths);
        stream("text", StreamKind::Text, values.joined().to_vec());
    } else {
        let mut lines = Vec::with_capacity(values.byte_len() + values.len() + 1);
        for value in values.iter() {
            lines.extend_from_slice(value);
            lines.push(b'\n');
        }
        mark(&mut lines, LINES);
        stream("text", StreamKind::Text, lines);
    }
    column
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let first = source.next("text", StreamKind::Text, Extent::Lines(count))?;
    if source.version == FormatVersion::V2 {
        return decode_lines(count, &first, context);
    }
    match first.split_last() {
        Some((&LINES, lines)) => decode_lines(count, lines, context),
        Some((&LENGTHS, lengths)) => decode_lengths(count, lengths, source, context),
        _ => Err(Damage::new("text is neither lines nor lengths")),
    }
}

/// Reads `count` values with lengths, of version 2.
pub(super) fn decode_long(
    count: usize,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let lengths = source.next("lengths", StreamKind::Bytes, Extent::Varints(count))?;
    decode_lengths(count, &lengths, source, context)
}

fn decode_lengths(
    count: usize,
    lengths: &[u8],
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let mut fields = FieldReader::new(lengths);
    let lengths = (0..count)
        .map(|_| fields.size(context.limit, "a value"))
        .collect::<Result<Vec<_>, _>>()?;
    let sum = lengths
        .iter()
        .fold(0usize, |sum, len| sum.saturating_add(*len));
    let bytes = source.next("text", StreamKind::Text, Extent::Bytes(sum))?;
    let mut rest = FieldReader::new(&bytes);
    let mut values = ColumnValues::default();
    for len in lengths {
        values.push_bounded(rest.take(len)?, context.limit)?;
    }
    if fields.remaining() + rest.remaining() > 0 {
        return Err(Damage::new("unread text remains"));
    }
    Ok(values)
}

fn decode_lines(
    count: usize,
    lines: &[u8],
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    if count == 0 && lines.is_empty() {
        return Ok(ColumnValues::default());
    }
    let Some(lines) = lines.strip_suffix(b"\n") else {
        return Err(Damage::new("text does not end in a newline"));
    };
    let mut values = ColumnValues::default();
    for line in lines.split(|&byte| byte == b'\n') {
        values.push_bounded(line, context.limit)?;
    }
    if values.len() != count {
        return Err(Damage::new(format!(
            "text holds {} values instead of {count}",
            values.len()
        )));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::column::ColumnRefs;

    #[test]
    fn values_with_newlines_round_trip_with_any_last_value() {
        for texts in [
            &["\n", ""][..],
            &["", "a\nb", "a", ""],
            &["a", ""],
            &["\n"],
            &[""],
        ] {
            let values: ColumnValues = texts.iter().map(|text| text.as_bytes()).collect();
            let column = encode(&values, FormatVersion::V1);
            let known = DecodeContext {
                limit: 100,
                refs: ColumnRefs::default(),
                depth: 0,
            };
            let mut source = StreamSource::of_raw(&[], &column.streams);
            assert_eq!(decode(values.len(), &mut source, &known), Ok(values));
            assert_eq!(source.finish(), Ok(()));
        }
    }
}
