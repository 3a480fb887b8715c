//! The columns that a column may lean on: those before it with as many values, seen through the
//! rows that the column at hand still covers.

use std::sync::Arc;

use super::super::values::Values;

/// Columns of the same table, row by row.
#[derive(Debug, Clone, Default)]
pub struct Refs<'a> {
    table: &'a [Values],
    /// Distinct-value numbers of the table's columns; while encoding only.
    ids: &'a [(Vec<u32>, usize)],
    /// The table's columns with as many rows as this one.
    usable: Arc<[u32]>,
    /// Which row of the table each value stands in; all of them in order if none.
    rows: Option<Arc<[u32]>>,
}

impl<'a> Refs<'a> {
    /// The columns of `table` before `column`, which has `count` rows.
    pub fn before(
        column: usize,
        count: usize,
        table: &'a [Values],
        ids: &'a [(Vec<u32>, usize)],
    ) -> Self {
        let usable = (0..column.min(table.len()))
            .filter(|&other| table[other].len() == count)
            .map(|other| other as u32)
            .collect();
        Self {
            table,
            ids,
            usable,
            rows: None,
        }
    }

    /// The same columns through some of the rows.
    pub fn select(&self, picks: &[u32]) -> Self {
        let rows = match &self.rows {
            Some(rows) => picks.iter().map(|&pick| rows[pick as usize]).collect(),
            None => picks.into(),
        };
        Self {
            rows: Some(rows),
            ..self.clone()
        }
    }

    /// The columns that may be used.
    pub fn usable(&self) -> &[u32] {
        &self.usable
    }

    /// Whether a column that a packed file names may be used.
    pub fn has(&self, column: u32) -> bool {
        self.usable.contains(&column)
    }

    fn row(&self, index: usize) -> usize {
        self.rows
            .as_ref()
            .map_or(index, |rows| rows[index] as usize)
    }

    /// The value of `column` in the row of the value at `index`.
    pub fn value(&self, column: u32, index: usize) -> &'a [u8] {
        self.table[column as usize].get(self.row(index))
    }

    /// The number of that value among the distinct ones, where known.
    pub fn id(&self, column: u32, index: usize) -> Option<u32> {
        self.ids
            .get(column as usize)?
            .0
            .get(self.row(index))
            .copied()
    }

    /// How many distinct values a column has in all its rows, where known.
    pub fn distinct(&self, column: u32) -> Option<usize> {
        self.ids.get(column as usize).map(|ids| ids.1)
    }
}
