//! References to other columns: those before the current column with as many values, through the rows
//! that the current column covers.

use std::sync::Arc;

use crate::transform::values::ColumnValues;

/// Columns of the same table, row by row.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnRefs<'a> {
    table: &'a [ColumnValues],
    /// The distinct-value numbers of the table's columns; only for encoding.
    ids: &'a [(Vec<u32>, usize)],
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
        self.usable.contains(&column)
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

    /// The distinct-value number of that value, while encoding.
    pub(crate) fn id(&self, column: u32, index: usize) -> Option<u32> {
        self.ids
            .get(column as usize)?
            .0
            .get(self.row(index))
            .copied()
    }

    /// The number of distinct values of a column, while encoding.
    pub(crate) fn distinct(&self, column: u32) -> Option<usize> {
        self.ids.get(column as usize).map(|ids| ids.1)
    }
}
