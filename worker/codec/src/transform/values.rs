//! The values of one column, one behind the other in one buffer.

use std::collections::HashMap;

use crate::Damage;

/// Byte strings in order; each column of a block is one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Values {
    /// How many values.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all values together.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// All values without any border.
    pub fn joined(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a value.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Appends a number as decimal text.
    pub fn push_number(&mut self, number: usize) {
        self.push(number.to_string().as_bytes());
    }

    /// The value at `index`; empty where there is none.
    pub fn get(&self, index: usize) -> &[u8] {
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// All values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The values at `rows`, in that order.
    pub fn select(&self, rows: &[u32]) -> Self {
        rows.iter().map(|&row| self.get(row as usize)).collect()
    }

    /// For every value the number of its first equal one among the distinct values, and how many
    /// distinct values there are.
    pub fn ids(&self) -> (Vec<u32>, usize) {
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        let ids = self
            .iter()
            .map(|value| {
                let next = known.len() as u32;
                *known.entry(value).or_insert(next)
            })
            .collect();
        (ids, known.len())
    }

    /// Appends a value of a decoded column, unless that makes it larger than any honest one.
    pub fn push_bounded(&mut self, value: &[u8], limit: usize) -> Result<(), Damage> {
        if self.bytes.len() + value.len() > limit {
            return Err(Damage::new("a column holds more bytes than its block"));
        }
        self.push(value);
        Ok(())
    }
}

impl<'a> FromIterator<&'a [u8]> for Values {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut all = Self::default();
        for value in values {
            all.push(value);
        }
        all
    }
}
