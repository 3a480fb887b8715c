//! References to other columns: those before the current column with as many values, through the rows
//! that the current column covers.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use crate::{hash::IdentityState, transform::values::ColumnValues};

/// What an encoder knows about the columns of a table besides their values.
#[derive(Debug)]
pub(crate) struct TableLookup {
    keys: Vec<u64>,
    numbers: HashMap<u64, u32, IdentityState>,
    /// For each column the distinct-value numbers and how many there are, computed on demand.
    ids: Vec<OnceLock<(Vec<u32>, usize)>>,
    with_ids: bool,
}

impl TableLookup {
    /// A lookup of columns with these keys, with distinct-value numbers or without.
    pub(crate) fn new(keys: &[u64], with_ids: bool) -> Self {
        Self {
            keys: keys.to_vec(),
            numbers: keys
                .iter()
                .enumerate()
                .map(|(number, &key)| (key, number as u32))
                .collect(),
            ids: keys.iter().map(|_| OnceLock::new()).collect(),
            with_ids,
        }
    }
}

/// Columns of the same table, row by row.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnRefs<'a> {
    table: &'a [ColumnValues],
    /// Only for encoding.
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

    fn ids(&self, column: u32) -> Option<&'a (Vec<u32>, usize)> {
        let lookup = self.lookup.filter(|lookup| lookup.with_ids)?;
        let ids = lookup.ids.get(column as usize)?;
        Some(ids.get_or_init(|| self.table[column as usize].ids()))
    }

    /// The distinct-value number of that value, while encoding.
    pub(crate) fn id(&self, column: u32, index: usize) -> Option<u32> {
        self.ids(column)?.0.get(self.row(index)).copied()
    }

    /// The number of distinct values of a column, while encoding.
    pub(crate) fn distinct(&self, column: u32) -> Option<usize> {
        self.ids(column).map(|ids| ids.1)
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
