//! The values of one column in one buffer.

use std::collections::HashMap;

use crate::{Damage, hash::SeededState};

/// A sequence of byte strings: one column of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ColumnValues {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl ColumnValues {
    /// No values, with space for this many values and bytes.
    pub(crate) fn with_capacity(values: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(values),
        }
    }

    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no values.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The number of bytes in all values.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// All values without separators.
    pub(super) fn joined(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a value.
    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Appends a number as decimal text.
    pub(super) fn push_number(&mut self, number: usize) {
        if number < 10 {
            self.bytes.push(b'0' + number as u8);
            self.ends.push(self.bytes.len() as u32);
        } else {
            self.push(number.to_string().as_bytes());
        }
    }

    /// The value at `index`, or an empty value after the end.
    pub(super) fn get(&self, index: usize) -> &[u8] {
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// All values in order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The values at `rows`, in that order.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        rows.iter().map(|&row| self.get(row as usize)).collect()
    }

    /// For every value the number of its distinct value, in order of first appearance, and the number
    /// of distinct values.
    pub(super) fn ids(&self) -> (Vec<u32>, usize) {
        let mut known: HashMap<&[u8], u32, SeededState> = HashMap::default();
        let ids = self
            .iter()
            .map(|value| {
                let next = known.len() as u32;
                *known.entry(value).or_insert(next)
            })
            .collect();
        (ids, known.len())
    }

    /// Appends a value of a decoded column.
    ///
    /// # Errors
    /// If the column then holds more than `limit` bytes.
    pub(super) fn push_bounded(&mut self, value: &[u8], limit: usize) -> Result<(), Damage> {
        if self.bytes.len() + value.len() > limit {
            return Err(Damage::new("a column holds more bytes than its block"));
        }
        self.push(value);
        Ok(())
    }
}

impl ColumnValues {
    /// Appends a value of a decoded column, which `write` appends to the bytes.
    ///
    /// # Errors
    /// If writing fails, or the column then holds more than `limit` bytes.
    pub(crate) fn push_with(
        &mut self,
        limit: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        write(&mut self.bytes)?;
        if self.bytes.len() > limit {
            return Err(Damage::new("a column holds more bytes than its block"));
        }
        self.ends.push(self.bytes.len() as u32);
        Ok(())
    }
}

impl<'a> FromIterator<&'a [u8]> for ColumnValues {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut all = Self::default();
        for value in values {
            all.push(value);
        }
        all
    }
}
