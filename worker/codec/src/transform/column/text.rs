//! Values as they are, each behind the last, with a newline after each; where a value holds a
//! newline itself, lengths stand apart.

use super::{Damage, Known, Node, RawStream, Source, Tag, Values};
use crate::{
    bytes::{Reader, put_varint},
    transform::streams::Kind,
};

const LINES: u8 = 0;
const LENGTHS: u8 = 1;

/// Always fits.
pub fn encode(values: &Values) -> Node {
    let mut node = Node::of(Tag::Text);
    let mut stream = |coding, kind, bytes| node.streams.push(RawStream::new(coding, kind, bytes));
    if values.joined().contains(&b'\n') {
        let mut lengths = Vec::new();
        values
            .iter()
            .for_each(|value| put_varint(&mut lengths, value.len() as u64));
        lengths.push(LENGTHS);
        stream("lengths", Kind::Bytes, lengths);
        stream("text", Kind::Text, values.joined().to_vec());
    } else {
        let mut lines = Vec::with_capacity(values.byte_len() + values.len() + 1);
        lines.push(LINES);
        for value in values.iter() {
            lines.extend_from_slice(value);
            lines.push(b'\n');
        }
        // The mark goes last so that the lines stay aligned with other columns' lines.
        lines.rotate_left(1);
        stream("text", Kind::Text, lines);
    }
    node
}

/// Reads `count` values.
pub fn decode(count: usize, source: &mut Source, known: &Known<'_>) -> Result<Values, Damage> {
    let first = source.next("text")?;
    let lengths = match first.split_last() {
        Some((&LINES, lines)) => return decode_lines(count, lines, known),
        Some((&LENGTHS, lengths)) => lengths,
        _ => return Err(Damage::new("text is neither lines nor lengths")),
    };
    let mut lengths = Reader::new(lengths);
    let bytes = source.next("text")?;
    let mut rest = Reader::new(&bytes);
    let mut values = Values::default();
    for _ in 0..count {
        let len = lengths.size(rest.remaining(), "a value")?;
        values.push_bounded(rest.take(len)?, known.limit)?;
    }
    if lengths.remaining() + rest.remaining() > 0 {
        return Err(Damage::new("text is left over"));
    }
    Ok(values)
}

fn decode_lines(count: usize, lines: &[u8], known: &Known<'_>) -> Result<Values, Damage> {
    let Some(lines) = lines.strip_suffix(b"\n") else {
        return Err(Damage::new("text does not end in a newline"));
    };
    let mut values = Values::default();
    for line in lines.split(|&byte| byte == b'\n') {
        values.push_bounded(line, known.limit)?;
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
    use crate::transform::column::Refs;

    #[test]
    fn values_with_newlines_come_back_whatever_the_last_one_is() {
        for texts in [
            &["\n", ""][..],
            &["", "a\nb", "a", ""],
            &["a", ""],
            &["\n"],
            &[""],
        ] {
            let values: Values = texts.iter().map(|text| text.as_bytes()).collect();
            let node = encode(&values);
            let known = Known {
                limit: 100,
                refs: Refs::default(),
                depth: 0,
            };
            let mut source = Source::of_raw(&[], &node.streams);
            assert_eq!(decode(values.len(), &mut source, &known), Ok(values));
            assert_eq!(source.finish(), Ok(()));
        }
    }
}
