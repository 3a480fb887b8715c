//! The order in which columns are coded: a column may only use columns before it, and some say more of the columns before
//! them than the other way round.

use std::collections::HashSet;

use super::{
    ColumnTable,
    choices::{Choice, ChoiceKey, Choices},
    column::adaptive_bits,
    values::ColumnValues,
};
use crate::{
    Damage, Effort,
    bytes::{FieldReader, put_varint},
};

/// A column moves from one position to one before it, after the moves before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColumnMove {
    from: usize,
    to: usize,
}

impl ColumnMove {
    pub(super) fn apply<T>(self, list: &mut [T]) {
        if let Some(between) = list.get_mut(self.to..=self.from) {
            between.rotate_right(1);
        }
    }

    fn undo<T>(self, list: &mut [T]) {
        if let Some(between) = list.get_mut(self.to..=self.from) {
            between.rotate_left(1);
        }
    }
}

/// Applies the moves to the columns of a table.
pub(super) fn arrange(moves: &[ColumnMove], table: &mut ColumnTable) {
    for step in moves {
        step.apply(&mut table.columns);
        step.apply(&mut table.names);
        step.apply(&mut table.keys);
    }
}

/// Undoes the moves.
pub(super) fn restore<T>(moves: &[ColumnMove], list: &mut [T]) {
    moves.iter().rev().for_each(|step| step.undo(list));
}

/// Appends moves, if there are any.
pub(super) fn put(moves: &[ColumnMove], plan: &mut Vec<u8>) {
    if moves.is_empty() {
        return;
    }
    put_varint(plan, moves.len() as u64);
    for step in moves {
        put_varint(plan, step.from as u64);
        put_varint(plan, step.to as u64);
    }
}

/// The most moves of a table.
const MAX_MOVES: usize = 64;

/// Reads the moves of `columns` columns.
pub(super) fn read(plan: &mut FieldReader<'_>, columns: usize) -> Result<Vec<ColumnMove>, Damage> {
    let last = columns.saturating_sub(1);
    let count = plan.size(MAX_MOVES, "the number of moved columns")?;
    let moves = (0..count).map(|_| {
        let from = plan.size(last, "a moved column")?;
        let to = plan.size(from, "the place of a moved column")?;
        Ok(ColumnMove { from, to })
    });
    moves.collect()
}

/// The place of the choice of the order.
const ORDER: ChoiceKey = ChoiceKey(4);

/// The moves that were chosen before, as far as the table has the columns.
pub(super) fn known(table: &ColumnTable, choices: &Choices<'_>) -> Vec<ColumnMove> {
    let Some(Choice::Order(pairs)) = choices.get(ORDER) else {
        return Vec::new();
    };
    let mut keys = table.keys.clone();
    let mut moves = Vec::new();
    for [moved, before] in pairs {
        let place = |key| keys.iter().position(|other| other == key);
        if let (Some(from), Some(to)) = (place(moved), place(before))
            && to < from
        {
            let step = ColumnMove { from, to };
            step.apply(&mut keys);
            moves.push(step);
        }
    }
    moves
}

/// The choice of moves in a table that was not arranged yet.
pub(super) fn choice(table: &ColumnTable, moves: &[ColumnMove]) -> Option<(ChoiceKey, Choice)> {
    let mut keys = table.keys.clone();
    let pairs = moves.iter().map(|step| {
        let pair = [keys[step.from], keys[step.to]];
        step.apply(&mut keys);
        pair
    });
    let pairs: Vec<[u64; 2]> = pairs.collect();
    (!pairs.is_empty()).then_some((ORDER, Choice::Order(pairs)))
}

/// Tables of fewer rows do not repay a search.
const MIN_ROWS: usize = 256;
/// The most columns whose order is searched.
const MAX_SEARCHED: usize = 20;
/// The most moves that are searched, and the share of the size that each must gain.
const SEARCHED_MOVES: usize = 6;
const MIN_GAIN: f64 = 0.01;

/// The moves that make the largest table inside smaller by an estimate on a sample.
pub(super) fn best(table: &ColumnTable, effort: Effort) -> Vec<ColumnMove> {
    let sampled = match effort {
        Effort::Fast => 1000,
        Effort::Balanced => 2000,
        Effort::Max => 8000,
    };
    let (mut columns, mut keys) = categories(table, sampled);
    let mut moves = Vec::new();
    if columns.len() < 2 {
        return moves;
    }
    let costs = PairCosts::of(&columns);
    let follows = pairs_that_follow(&columns);
    let mut order: Vec<usize> = (0..columns.len()).collect();
    let mut smallest = costs.total(&order);
    while moves.len() < SEARCHED_MOVES {
        let steps = (1..order.len()).flat_map(|from| (0..from).map(move |to| (from, to)));
        let passes_no_key = |&(from, to): &(usize, usize)| {
            let passed = columns[to].position..columns[from].position;
            let passes_none = !keys.iter().any(|key| passed.contains(key));
            passes_none && !order[to..from].iter().any(|&key| follows[order[from]][key])
        };
        let tried = steps.filter(passes_no_key).map(|(from, to)| {
            let step = ColumnMove { from, to };
            let mut other = order.clone();
            step.apply(&mut other);
            (costs.total(&other), step)
        });
        let best = tried.min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((bits, step)) = best.filter(|(bits, _)| *bits < smallest * (1.0 - MIN_GAIN))
        else {
            break;
        };
        smallest = bits;
        step.apply(&mut order);
        // The position of each column of the table: those between move, too.
        let (from, to) = (columns[step.from].position, columns[step.to].position);
        let others = columns.iter_mut().map(|column| &mut column.position);
        for position in others.chain(&mut keys) {
            if (to..from).contains(position) {
                *position += 1;
            }
        }
        columns[step.from].position = to;
        step.apply(&mut columns);
        moves.push(ColumnMove { from, to });
    }
    moves
}

/// A column whose values are few has more rows than so many times its distinct values. Of one with more values the estimate says
/// too little, since first occurrences decide.
const FEW: usize = 8;
/// The same where values repeat often enough that another column may follow from them.
const REPEATING: usize = 3;

/// A column whose values repeat.
struct CategoryColumn {
    position: usize,
    ids: Vec<u32>,
    distinct: usize,
}

/// The columns of the largest table inside whose values repeat, in some of their rows; and the positions of those whose values
/// are many and still repeat, such as addresses: what follows from them must not move before them.
fn categories(table: &ColumnTable, sampled: usize) -> (Vec<CategoryColumn>, Vec<usize>) {
    let rows = table.columns.iter().map(ColumnValues::len);
    let Some(rows) = most_frequent(rows.filter(|&rows| rows >= MIN_ROWS)) else {
        return Default::default();
    };
    let sampled = sampled.min(rows);
    let start = ((rows - sampled) / 2) as u32;
    let sample: Vec<u32> = (start..start + sampled as u32).collect();
    let columns = table.columns.iter().enumerate();
    let columns = columns.filter(|(_, column)| column.len() == rows);
    let (mut repeating, mut keys) = (Vec::new(), Vec::new());
    for (position, column) in columns {
        let (ids, distinct) = column.select(&sample).ids();
        if distinct > 1 && distinct * FEW < sampled && repeating.len() < MAX_SEARCHED {
            repeating.push(CategoryColumn {
                position,
                ids,
                distinct,
            });
        } else if distinct * FEW >= sampled && distinct * REPEATING < sampled {
            keys.push(position);
        }
    }
    (repeating, keys)
}

fn most_frequent(counts: impl Iterator<Item = usize>) -> Option<usize> {
    let mut sorted: Vec<usize> = counts.collect();
    sorted.sort_unstable();
    let runs = sorted.chunk_by(|a, b| a == b);
    runs.max_by_key(|run| run.len()).map(|run| run[0])
}

/// For each column and each other one, whether the first follows from the second: to code it before can gain nothing, since
/// then the second takes what the first would not have taken, and that is what the estimate is not exact enough to see.
fn pairs_that_follow(columns: &[CategoryColumn]) -> Vec<Vec<bool>> {
    let follows = |column: &CategoryColumn, key: &CategoryColumn| {
        let pairs = key.ids.iter().zip(&column.ids).collect::<HashSet<_>>();
        pairs.len() == key.distinct && key.distinct > column.distinct
    };
    let of_column = |column| columns.iter().map(|key| follows(column, key)).collect();
    columns.iter().map(of_column).collect()
}

/// The sizes of columns in bits, alone and after another one.
struct PairCosts {
    alone: Vec<f64>,
    after: Vec<Vec<f64>>,
}

impl PairCosts {
    fn of(columns: &[CategoryColumn]) -> Self {
        let after = |column: &CategoryColumn, contexts: &[u32]| {
            adaptive_bits(&column.ids, column.distinct, contexts)
        };
        let none = vec![0; columns.first().map_or(0, |column| column.ids.len())];
        let of_column = |column| {
            let others = columns.iter().map(|other| after(column, &other.ids));
            others.collect()
        };
        Self {
            alone: columns.iter().map(|column| after(column, &none)).collect(),
            after: columns.iter().map(of_column).collect(),
        }
    }

    /// The size of all columns, each after the best of those before it.
    fn total(&self, order: &[usize]) -> f64 {
        let sizes = order.iter().enumerate().map(|(place, &column)| {
            let before = order[..place].iter();
            let after = before.map(|&other| self.after[column][other]);
            after.fold(self.alone[column], f64::min)
        });
        sizes.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of columns of numbers, of which `row` makes one row.
    fn table_of<const COLUMNS: usize>(
        names: [&str; COLUMNS],
        mut row: impl FnMut(&mut fastrand::Rng) -> [u32; COLUMNS],
    ) -> ColumnTable {
        let mut random = fastrand::Rng::with_seed(1);
        let rows: Vec<[u32; COLUMNS]> = (0..4000).map(|_| row(&mut random)).collect();
        let column = |number: usize| {
            let mut values = ColumnValues::default();
            rows.iter()
                .for_each(|row| values.push_number(row[number] as usize));
            values
        };
        ColumnTable {
            head: Vec::new(),
            columns: (0..COLUMNS).map(column).collect(),
            names: names.map(String::from).to_vec(),
            keys: (11..).take(COLUMNS).collect(),
        }
    }

    /// A table of a key, of a column that depends on nothing, and of one that follows from the key.
    fn table() -> ColumnTable {
        table_of(["model", "size", "maker"], |random| {
            let kind = random.u32(0..12);
            [kind * 20 + random.u32(0..20), random.u32(0..9), kind]
        })
    }

    #[test]
    fn moves_are_kept_in_plans_and_undone() {
        let moves = [ColumnMove { from: 2, to: 0 }, ColumnMove { from: 2, to: 1 }];
        let plain = table();
        let mut arranged = table();
        arrange(&moves, &mut arranged);
        assert_eq!(arranged.names, ["maker", "size", "model"]);
        assert_eq!(arranged.keys, [13, 12, 11]);
        let choice = choice(&plain, &moves).expect("there are moves");
        let mut choices = Choices::default();
        choices.extend([choice]);
        assert_eq!(known(&plain, &choices), moves);
        restore(&moves, &mut arranged.names);
        assert_eq!(arranged.names, plain.names);
        let mut plan = Vec::new();
        put(&moves, &mut plan);
        assert_eq!(
            read(&mut FieldReader::new(&plan), 3).as_deref(),
            Ok(&moves[..])
        );
        assert!(read(&mut FieldReader::new(&plan), 2).is_err());
    }

    #[test]
    fn columns_that_say_nothing_of_each_other_stay() {
        let mut table = table();
        table.columns.swap_remove(0);
        table.names.swap_remove(0);
        table.keys.swap_remove(0);
        assert_eq!(best(&table, Effort::Balanced), []);
    }
    #[test]
    fn no_column_moves_before_one_that_it_follows_from() {
        let names = ["order", "customer", "city", "item", "price"];
        let table = table_of(names, |random| {
            let order = random.u32(0..240);
            [
                order,
                order * 7 % 240 / 16,
                order * 7 % 240 / 48,
                order * 11 % 16,
                order * 13 % 200,
            ]
        });
        assert_eq!(best(&table, Effort::Balanced), []);
    }
}
