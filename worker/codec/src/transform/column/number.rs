//! Numbers: what remains after the best of several predictions, in the layout that takes the fewest
//! bytes.

mod layout;
mod predict;

use super::{Damage, Known, Node, RawStream, Reader, Refs, Scope, Source, Tag, Values, decimal};
use crate::transform::streams::Kind;
pub use layout::{put as put_integers, read as read_integers};
pub use predict::best_key;
use predict::{Others, Prediction};

/// Fits where every value is a number in one spelling.
pub fn encode(values: &Values, scope: &Scope<'_>) -> Option<Node> {
    let scaled = decimal::scale(values)?;
    let mut node = Node::of(Tag::Number);
    scaled.form.put(&mut node.plan);
    if scaled.form.is_listed() {
        node.streams.push(RawStream::new(
            "decimals or noise",
            Kind::Bytes,
            scaled.listed,
        ));
    }
    let read = |text: &[u8]| decimal::at_scale(text, scaled.form);
    encode_numbers(&scaled.numbers, scope, &read, &mut node);
    Some(node)
}

/// Appends integers with the best prediction and layout. `read` makes integers of other columns'
/// texts.
pub fn encode_numbers(
    numbers: &[i64],
    scope: &Scope<'_>,
    read: &dyn Fn(&[u8]) -> Option<i64>,
    node: &mut Node,
) {
    let mut others = Others::new(&scope.refs, numbers.len(), read);
    let left = predict::best(numbers, scope, &mut others, &mut node.plan);
    put_integers(&left, scope.effort, node);
}

/// Reads `count` values.
pub fn decode(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    known: &Known<'_>,
) -> Result<Values, Damage> {
    let form = decimal::Form::read(plan)?;
    let listed = if form.is_listed() {
        Some(source.next("decimals or noise")?)
    } else {
        None
    };
    let read = |text: &[u8]| decimal::at_scale(text, form);
    let numbers = decode_numbers(count, plan, source, &known.refs, &read)?;
    let mut values = Values::default();
    for (row, number) in numbers.into_iter().enumerate() {
        let decimals = match &listed {
            Some(listed) => Some(
                *listed
                    .get(row)
                    .ok_or_else(|| Damage::new("a number without its decimals"))?,
            ),
            None => None,
        };
        values.push_bounded(
            decimal::write(form, number, decimals)?.as_bytes(),
            known.limit,
        )?;
    }
    Ok(values)
}

/// Reads `count` integers.
pub fn decode_numbers(
    count: usize,
    plan: &mut Reader<'_>,
    source: &mut Source,
    refs: &Refs<'_>,
    read: &dyn Fn(&[u8]) -> Option<i64>,
) -> Result<Vec<i64>, Damage> {
    let prediction = Prediction::read(plan, refs)?;
    let left = read_integers(count, plan, source)?;
    Ok(prediction.restore(left, &mut Others::new(refs, count, read)))
}
