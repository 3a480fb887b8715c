//! Values unchanged in sequence, each with a newline; if a value holds a newline, with a stream of
//! lengths.

use super::context::{DecodeContext, EncodedColumn, Tag};
use crate::{
    Damage,
    bytes::{FieldReader, put_varint},
    transform::{
        streams::{RawStream, StreamKind, StreamSource},
        values::ColumnValues,
    },
};

const LINES: u8 = 0;
const LENGTHS: u8 = 1;

/// Always fits.
pub(super) fn encode(values: &ColumnValues) -> EncodedColumn {
    let mut column = EncodedColumn::of(Tag::Text);
    let mut stream = |coding, kind, bytes| column.streams.push(RawStream::new(coding, kind, bytes));
    if values.joined().contains(&b'\n') {
        let mut lengths = Vec::new();
        values
            .iter()
            .for_each(|value| put_varint(&mut lengths, value.len() as u64));
        lengths.push(LENGTHS);
        stream("lengths", StreamKind::Bytes, lengths);
        stream("text", StreamKind::Text, values.joined().to_vec());
    } else {
        let mut lines = Vec::with_capacity(values.byte_len() + values.len() + 1);
        lines.push(LINES);
        for value in values.iter() {
            lines.extend_from_slice(value);
            lines.push(b'\n');
        }
        // The mark is last so that the lines align with equal lines of other columns.
        lines.rotate_left(1);
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
    let first = source.next("text")?;
    let lengths = match first.split_last() {
        Some((&LINES, lines)) => return decode_lines(count, lines, context),
        Some((&LENGTHS, lengths)) => lengths,
        _ => return Err(Damage::new("text is neither lines nor lengths")),
    };
    let mut lengths = FieldReader::new(lengths);
    let bytes = source.next("text")?;
    let mut rest = FieldReader::new(&bytes);
    let mut values = ColumnValues::default();
    for _ in 0..count {
        let len = lengths.size(rest.remaining(), "a value")?;
        values.push_bounded(rest.take(len)?, context.limit)?;
    }
    if lengths.remaining() + rest.remaining() > 0 {
        return Err(Damage::new("unread text remains"));
    }
    Ok(values)
}

fn decode_lines(
    count: usize,
    lines: &[u8],
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
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
            let column = encode(&values);
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
