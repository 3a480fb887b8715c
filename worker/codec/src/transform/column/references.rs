//! References to other columns: those before the current column with as many values, through the rows
//! that the current column covers.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use crate::{
    hash::{IdentityState, SeededState},
    transform::values::ColumnValues,
};

/// What is known about the columns of a table besides their values. Columns are indexed on demand.
#[derive(Debug)]
pub(crate) struct TableLookup {
    /// Only for encoding.
    keys: Vec<u64>,
    numbers: HashMap<u64, u32, IdentityState>,
    indexes: Vec<OnceLock<ColumnIndex>>,
    /// Searches may use the indexes.
    for_searches: bool,
}

/// The distinct values of a column.
#[derive(Debug)]
struct ColumnIndex {
    /// For every row the number of its distinct value, in order of first appearance.
    ids: Vec<u32>,
    distinct: usize,
    /// For every row the rank of its value in the order of bytes.
    ranks: OnceLock<Vec<u32>>,
}

impl TableLookup {
    /// A lookup of columns with these keys, for encoding.
    pub(crate) fn new(keys: &[u64], for_searches: bool) -> Self {
        Self {
            keys: keys.to_vec(),
            numbers: keys
                .iter()
                .enumerate()
                .map(|(number, &key)| (key, number as u32))
                .collect(),
            indexes: keys.iter().map(|_| OnceLock::new()).collect(),
            for_searches,
        }
    }

    /// A lookup of this many columns, for decoding.
    pub(crate) fn of_columns(count: usize) -> Self {
        Self {
            keys: Vec::new(),
            numbers: HashMap::default(),
            indexes: (0..count).map(|_| OnceLock::new()).collect(),
            for_searches: false,
        }
    }
}

impl ColumnIndex {
    fn of(values: &ColumnValues) -> Self {
        let (ids, distinct) = values.ids();
        Self {
            ids,
            distinct,
            ranks: OnceLock::new(),
        }
    }

    fn ranks(&self, values: &ColumnValues) -> &[u32] {
        self.ranks.get_or_init(|| {
            let mut firsts: Vec<u32> = Vec::with_capacity(self.distinct);
            for (row, &id) in self.ids.iter().enumerate() {
                if id as usize == firsts.len() {
                    firsts.push(row as u32);
                }
            }
            let mut order: Vec<u32> = (0..firsts.len() as u32).collect();
            let value = |id: u32| values.get(firsts[id as usize] as usize);
            order.sort_unstable_by(|&a, &b| value(a).cmp(value(b)));
            let mut ranks = vec![0; firsts.len()];
            for (rank, &id) in order.iter().enumerate() {
                ranks[id as usize] = rank as u32;
            }
            self.ids.iter().map(|&id| ranks[id as usize]).collect()
        })
    }
}

/// A table of all distinct values does not pay for rows that are fewer by this factor.
const FEW_ROWS: usize = 8;

fn few_groups(count: usize, id: impl Fn(usize) -> u32) -> (Vec<u32>, Vec<u32>) {
    let mut numbers: HashMap<u32, u32, SeededState> = HashMap::default();
    let mut firsts = Vec::new();
    let groups = (0..count)
        .map(|at| {
            *numbers.entry(id(at)).or_insert_with(|| {
                firsts.push(at as u32);
                firsts.len() as u32 - 1
            })
        })
        .collect();
    (groups, firsts)
}

/// Columns of the same table, row by row.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnRefs<'a> {
    table: &'a [ColumnValues],
    lookup: Option<&'a TableLookup>,
    /// The table's columns with as many rows as this one.
    usable: Arc<[u32]>,
    /// The row of the table of each value; `None` for all rows in order.
    rows: Option<Arc<[u32]>>,
}

impl<'a> ColumnRefs<'a> {
    /// The columns of `table` before `column`, which has `count` rows.
    pub(crate) fn before(
        column: usize,
        count: usize,
        table: &'a [ColumnValues],
        lookup: Option<&'a TableLookup>,
    ) -> Self {
        let usable = (0..column.min(table.len()))
            .filter(|&other| table[other].len() == count)
            .map(|other| other as u32)
            .collect();
        Self {
            table,
            lookup,
            usable,
            rows: None,
        }
    }

    /// The same columns through some of the rows.
    pub(crate) fn select(&self, picks: &[u32]) -> Self {
        if self.usable.is_empty() {
            // No row is ever read.
            return self.clone();
        }
        let rows = match &self.rows {
            Some(rows) => picks.iter().map(|&pick| rows[pick as usize]).collect(),
            None => picks.into(),
        };
        Self {
            rows: Some(rows),
            ..self.clone()
        }
    }

    /// The columns that may be referenced.
    pub(crate) fn usable(&self) -> &[u32] {
        &self.usable
    }

    /// Whether `column` may be referenced.
    pub(crate) fn has(&self, column: u32) -> bool {
        self.usable.binary_search(&column).is_ok()
    }

    fn row(&self, index: usize) -> usize {
        self.rows
            .as_ref()
            .map_or(index, |rows| rows[index] as usize)
    }

    /// The value of `column` in the row of the value at `index`.
    pub(crate) fn value(&self, column: u32, index: usize) -> &'a [u8] {
        self.table[column as usize].get(self.row(index))
    }

    /// The same without double quotes around it.
    pub(crate) fn unquoted(&self, column: u32, index: usize) -> &'a [u8] {
        match self.value(column, index) {
            [b'"', inner @ .., b'"'] => inner,
            text => text,
        }
    }

    fn index(&self, column: u32) -> Option<&'a ColumnIndex> {
        let index = self.lookup?.indexes.get(column as usize)?;
        Some(index.get_or_init(|| ColumnIndex::of(&self.table[column as usize])))
    }

    fn searched_index(&self, column: u32) -> Option<&'a ColumnIndex> {
        self.lookup.filter(|lookup| lookup.for_searches)?;
        self.index(column)
    }

    /// The distinct-value number of that value, for searches.
    pub(crate) fn id(&self, column: u32, index: usize) -> Option<u32> {
        let ids = &self.searched_index(column)?.ids;
        ids.get(self.row(index)).copied()
    }

    /// The number of distinct values of a column, for searches.
    pub(crate) fn distinct(&self, column: u32) -> Option<usize> {
        self.searched_index(column).map(|index| index.distinct)
    }

    /// For each of `count` values the number of its distinct value in `column`, in order of first
    /// appearance, and the first of each.
    pub(crate) fn groups(&self, column: u32, count: usize) -> (Vec<u32>, Vec<u32>) {
        let Some(index) = self.index(column) else {
            return (Vec::new(), Vec::new());
        };
        let id = |at: usize| index.ids[self.row(at)];
        if count < index.distinct / FEW_ROWS {
            return few_groups(count, id);
        }
        let mut numbers = vec![u32::MAX; index.distinct];
        let mut firsts = Vec::new();
        let groups = (0..count)
            .map(|at| {
                let number = &mut numbers[id(at) as usize];
                if *number == u32::MAX {
                    *number = firsts.len() as u32;
                    firsts.push(at as u32);
                }
                *number
            })
            .collect();
        (groups, firsts)
    }

    /// The order of `count` values by the bytes of `columns`; equal ones stay in order.
    pub(crate) fn order(&self, columns: &[u32], count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        // The last column first: each sort keeps the order of equal values.
        for &column in columns.iter().rev() {
            if let Some(index) = self.index(column) {
                let ranks = index.ranks(&self.table[column as usize]);
                order = self.sorted_by_rank(order, ranks, index.distinct);
            }
        }
        order
    }

    fn sorted_by_rank(&self, mut order: Vec<u32>, ranks: &[u32], distinct: usize) -> Vec<u32> {
        let rank = |at: u32| ranks[self.row(at as usize)] as usize;
        if order.len() < distinct / FEW_ROWS {
            order.sort_by_key(|&at| rank(at));
            return order;
        }
        let mut starts = vec![0u32; distinct + 1];
        for &at in &order {
            starts[rank(at) + 1] += 1;
        }
        for value in 1..starts.len() {
            starts[value] += starts[value - 1];
        }
        let mut sorted = vec![0; order.len()];
        for at in order {
            let next = &mut starts[rank(at)];
            sorted[*next as usize] = at;
            *next += 1;
        }
        sorted
    }

    /// The key of a column, while encoding.
    pub(crate) fn key(&self, column: u32) -> Option<u64> {
        self.lookup?.keys.get(column as usize).copied()
    }

    /// The column with this key, if it may be referenced.
    pub(crate) fn column(&self, key: u64) -> Option<u32> {
        let number = *self.lookup?.numbers.get(&key)?;
        self.has(number).then_some(number)
    }
}
