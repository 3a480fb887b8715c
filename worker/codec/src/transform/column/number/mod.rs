//! Numbers: the differences from a prediction, in the integer layout with the smallest size.

mod layout;
mod predict;
mod ratio;

use self::predict::{OtherColumns, Prediction};
pub(super) use self::{
    layout::{put as put_integers, read as read_integers},
    predict::{OtherReading, best_key},
};
use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decimal,
    references::ColumnRefs,
};
use crate::{
    Damage,
    bytes::FieldReader,
    transform::{
        streams::{Extent, RawStream, StreamKind, StreamSource},
        values::ColumnValues,
    },
};

/// Fits if all values are numbers in one notation.
pub(super) fn encode(values: &ColumnValues, context: &EncodeContext<'_>) -> Option<EncodedColumn> {
    let scaled = decimal::scale(values, context.version)?;
    let mut column = EncodedColumn::of(Tag::Number);
    scaled.format.put(context.version, &mut column.plan);
    if scaled.format.is_listed() {
        column.streams.push(RawStream::new(
            "decimals or noise",
            StreamKind::Bytes,
            scaled.listed,
        ));
    }
    let reading = OtherReading {
        at_scale: &|text| decimal::at_scale(text, scaled.format),
        decimals: scaled.format.decimals(),
    };
    encode_numbers(&scaled.numbers, context, reading, &mut column);
    Some(column)
}

/// Appends integers with the best prediction and layout.
pub(super) fn encode_numbers(
    numbers: &[i64],
    context: &EncodeContext<'_>,
    reading: OtherReading<'_>,
    column: &mut EncodedColumn,
) {
    let mut others = OtherColumns::new(&context.refs, numbers.len(), reading);
    let left = predict::differences(numbers, context, &mut others, column);
    put_integers(&left, context, column);
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let format = decimal::NumberFormat::read(source.version, plan)?;
    let listed = if format.is_listed() {
        Some(source.next("decimals or noise", StreamKind::Bytes, Extent::Bytes(count))?)
    } else {
        None
    };
    let reading = OtherReading {
        at_scale: &|text| decimal::at_scale(text, format),
        decimals: format.decimals(),
    };
    let numbers = decode_numbers(count, plan, source, &context.refs, reading)?;
    let mut values = ColumnValues::with_capacity(count, count * 4);
    for (row, number) in numbers.into_iter().enumerate() {
        let decimals = match &listed {
            Some(listed) => Some(
                *listed
                    .get(row)
                    .ok_or_else(|| Damage::new("a number without its decimals"))?,
            ),
            None => None,
        };
        values.push_with(context.limit, |out| {
            decimal::write(format, number, decimals, out)
        })?;
    }
    Ok(values)
}

/// Reads `count` integers.
pub(super) fn decode_numbers(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    refs: &ColumnRefs<'_>,
    reading: OtherReading<'_>,
) -> Result<Vec<i64>, Damage> {
    let prediction = Prediction::read(source.version, plan, refs)?;
    let left = read_integers(count, plan, source)?;
    Ok(prediction.restore(left, &mut OtherColumns::new(refs, count, reading)))
}
