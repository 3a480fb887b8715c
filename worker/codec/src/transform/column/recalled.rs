//! Values as places in a list of those that rows with the same keys had before, the most frequent first. Few values of a
//! key are learned faster so than by a coder that adapts slowly.

use super::{
    context::{DecodeContext, EncodeContext, EncodedColumn, Tag},
    decode_rows, encode_rows,
    number::{put_integers, read_integers},
    references::ColumnRefs,
    sorted,
};
use crate::{
    Damage,
    bytes::FieldReader,
    transform::{streams::StreamSource, values::ColumnValues},
};

/// The most values in a list.
const MAX_LIST: usize = 255;
/// The integer of a value that is not in the list. Others are places in it, from 1.
const NEW: i64 = 0;

/// The values of a key, the most frequent first.
#[derive(Debug, Default)]
struct RecallList {
    entries: Vec<ListedValue>,
}

#[derive(Debug, Clone, Copy)]
struct ListedValue {
    value: u32,
    count: u32,
}

impl RecallList {
    fn place_of(&self, value: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.value == value)
    }

    /// Adds a value at the end, if need be in place of the last one.
    fn add(&mut self, value: u32) {
        self.entries.truncate(MAX_LIST - 1);
        self.entries.push(ListedValue { value, count: 1 });
    }

    /// Counts the value at a place, and moves it before those that are not more frequent.
    fn recall(&mut self, place: usize) -> Option<u32> {
        let entry = self.entries.get_mut(place)?;
        entry.count = entry.count.saturating_add(1);
        let entry = *entry;
        let before = self.entries[..place].iter();
        let less = before.rev().take_while(|other| other.count <= entry.count);
        let to = place - less.count();
        self.entries[to..=place].rotate_right(1);
        Some(entry.value)
    }
}

/// The rows in the order of the keys, and which of them are the first with their keys.
fn grouped_rows(keys: &[u32], count: usize, refs: &ColumnRefs<'_>) -> (Vec<u32>, Vec<bool>) {
    let rows = refs.order(keys, count);
    let mut firsts = vec![false; count];
    firsts.iter_mut().take(1).for_each(|first| *first = true);
    for &key in keys {
        let (groups, _) = refs.groups(key, count);
        for (first, pair) in firsts.iter_mut().skip(1).zip(rows.windows(2)) {
            *first |= groups[pair[0] as usize] != groups[pair[1] as usize];
        }
    }
    (rows, firsts)
}

/// Fits any column after its keys.
pub(super) fn encode(
    values: &ColumnValues,
    keys: &[u32],
    context: &EncodeContext<'_>,
) -> Option<EncodedColumn> {
    let (rows, firsts) = grouped_rows(keys, values.len(), &context.refs);
    let (ids, _) = values.ids();
    let (mut places, mut new_rows) = (Vec::new(), Vec::new());
    let mut list = RecallList::default();
    for (&row, first) in rows.iter().zip(firsts) {
        if first {
            list.entries.clear();
        }
        let value = ids[row as usize];
        match list.place_of(value) {
            Some(place) => {
                places.push(place as i64 + 1);
                list.recall(place);
            }
            None => {
                if !first {
                    places.push(NEW);
                }
                list.add(value);
                new_rows.push(row);
            }
        }
    }
    let mut column = EncodedColumn::of(Tag::Recalled);
    sorted::put_keys(keys, &mut column.plan);
    put_integers(&places, context, &mut column);
    column.append(encode_rows(Tag::Recalled, 0, values, &new_rows, context));
    Some(column)
}

/// Reads `count` values.
pub(super) fn decode(
    count: usize,
    plan: &mut FieldReader<'_>,
    source: &mut StreamSource,
    context: &DecodeContext<'_>,
) -> Result<ColumnValues, Damage> {
    let keys = sorted::read_keys(plan, context)?;
    let (rows, firsts) = grouped_rows(&keys, count, &context.refs);
    let listed = firsts.iter().filter(|first| !**first).count();
    let mut places = read_integers(listed, plan, source)?.into_iter();
    let (mut list, mut new_rows) = (RecallList::default(), Vec::new());
    // For each row the number of its value among the new ones.
    let mut numbers = vec![0u32; count];
    for (&row, first) in rows.iter().zip(firsts) {
        if first {
            list.entries.clear();
        }
        let place = if first {
            NEW
        } else {
            places.next().unwrap_or(NEW)
        };
        let number = match place {
            NEW => {
                list.add(new_rows.len() as u32);
                new_rows.push(row);
                new_rows.len() as u32 - 1
            }
            _ => usize::try_from(place - 1)
                .ok()
                .and_then(|place| list.recall(place))
                .ok_or_else(|| Damage::new("a value that its list does not have"))?,
        };
        numbers[row as usize] = number;
    }
    let new = decode_rows(&new_rows, plan, source, context)?;
    let mut values = ColumnValues::with_capacity(count, count * 4);
    for number in numbers {
        values.push_bounded(new.get(number as usize), context.limit)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_values_come_first_and_of_equal_ones_the_latest() {
        let mut list = RecallList::default();
        [7, 8, 9].into_iter().for_each(|value| list.add(value));
        assert_eq!(list.recall(2), Some(9));
        assert_eq!(list.recall(2), Some(8));
        assert_eq!(
            [8, 9, 7].map(|value| list.place_of(value)),
            [Some(0), Some(1), Some(2)]
        );
        assert_eq!(list.recall(3), None);
    }

    #[test]
    fn a_full_list_loses_its_last_value() {
        let mut list = RecallList::default();
        (0..300).for_each(|value| list.add(value));
        assert_eq!(list.entries.len(), MAX_LIST);
        assert_eq!(list.place_of(298), None);
        assert_eq!(list.place_of(299), Some(MAX_LIST - 1));
    }
}
