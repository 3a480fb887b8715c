//! Whether the values of a column follow from those of another, on a sample: cheap enough for each block. A plan that was made
//! where they did not has a coding that does not see it, and the column's own values are as hard to predict as before.

use std::collections::HashMap;

use super::ratio::Ratio;
use super::sampled_entropy::{entropy, number};
use super::values::ColumnValues;
use crate::FormatVersion;
use crate::hash::{IdentityState, hash_bytes};

/// The rows of a sample: of values that hardly repeat, many show whether they always go with the same one.
const ROWS: usize = 1024;
/// So many values of the sample must have come before.
const LEAST_REPEATS: usize = 24;
/// What differences must save of each value, in 1/256 of a bit.
const LEAST_GAIN: u64 = 2 * 256;

/// The values of a column at the rows of the sample.
pub(super) struct ColumnSample {
    /// The number of each value among the distinct ones.
    ids: Vec<u32>,
    distinct: usize,
    /// All values as numbers, where all are.
    numbers: Option<Vec<u64>>,
}

impl ColumnSample {
    pub(super) fn of(values: &ColumnValues) -> Self {
        let start = (values.len().saturating_sub(ROWS)) / 2;
        let rows = start..values.len().min(start + ROWS);
        let mut known: HashMap<u64, u32, IdentityState> = HashMap::default();
        let ids = rows.clone().map(|row| {
            let next = known.len() as u32;
            *known.entry(hash_bytes(values.get(row))).or_insert(next)
        });
        let ids = ids.collect();
        Self {
            ids,
            distinct: known.len(),
            numbers: rows.map(|row| number(values.get(row))).collect(),
        }
    }

    /// Whether each value goes with one value of `other` only.
    fn decides(&self, other: &Self) -> bool {
        if self.ids.len() < self.distinct + LEAST_REPEATS {
            return false;
        }
        let mut goes_with = vec![u32::MAX; self.distinct];
        self.ids.iter().zip(&other.ids).all(|(id, with)| {
            let known = &mut goes_with[*id as usize];
            let is_same = *known == *with || *known == u32::MAX;
            *known = *with;
            is_same
        })
    }

    /// The entropy of the differences from numbers of `other`, in 1/256 of a bit.
    fn differences(&self, other: &Self) -> Option<u64> {
        let (ours, theirs) = (self.numbers.as_ref()?, other.numbers.as_ref()?);
        let both = ours.iter().zip(theirs);
        Some(entropy(both.map(|(a, b)| b.wrapping_sub(*a)).collect()))
    }

    /// The entropy of the differences from a ratio of the numbers of `other`, in 1/256 of a bit.
    fn differences_from_ratio(&self, other: &Self) -> Option<u64> {
        let (ours, theirs) = (self.numbers.as_ref()?, other.numbers.as_ref()?);
        let point = |row: usize| Some((ours[row] as i64 as f64, theirs[row] as i64 as f64));
        let ratio = Ratio::fit(0..ours.len(), point)?;
        let both = ours.iter().zip(theirs);
        let left = both.map(|(a, b)| b.wrapping_sub(ratio.of((*a as i64).into()) as u64));
        Some(entropy(left.collect()))
    }
}

/// How much less the values of `of` may take beside those of `from`, in 1/256 of a bit a value, if their own entropy is `own`.
pub(super) fn gain(
    from: &ColumnSample,
    of: &ColumnSample,
    own: u64,
    version: FormatVersion,
) -> u64 {
    if from.ids.len() != of.ids.len() {
        return 0;
    }
    if from.decides(of) {
        return own;
    }
    let mut differences = from.differences(of).unwrap_or(own);
    if version == FormatVersion::V2
        && differences + LEAST_GAIN > own
        && let Some(fewer) = from.differences_from_ratio(of)
    {
        differences = differences.min(fewer);
    }
    own.saturating_sub(differences + LEAST_GAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: impl Iterator<Item = String>) -> ColumnSample {
        let values: Vec<_> = values.map(String::into_bytes).collect();
        ColumnSample::of(&values.iter().map(Vec::as_slice).collect())
    }

    #[test]
    fn what_another_column_decides_or_is_near_to_needs_no_bits_of_its_own() {
        let mut random = fastrand::Rng::with_seed(3);
        let keys: Vec<u32> = (0..2000).map(|_| random.u32(..300)).collect();
        let key = sample(keys.iter().map(|key| format!("key {key}")));
        let word = sample(keys.iter().map(|key| format!("word {}", key * 7 % 300)));
        let other = sample((0..2000).map(|_| format!("word {}", random.u32(..300))));
        assert_eq!(gain(&key, &word, 2000, FormatVersion::V2), 2000);
        assert_eq!(gain(&key, &other, 2000, FormatVersion::V2), 0);
        let times: Vec<u64> = (0..2000).map(|_| random.u64(..1 << 40)).collect();
        let begun = sample(times.iter().map(u64::to_string));
        let ended = sample(times.iter().map(|time| (time + time % 5).to_string()));
        assert!(gain(&begun, &ended, 2500, FormatVersion::V2) > 1000);
        let cents = sample(
            times
                .iter()
                .map(|time| (time % 100_000 * 100 + 7).to_string()),
        );
        let euros = sample(times.iter().map(|time| (time % 100_000).to_string()));
        assert!(gain(&euros, &cents, 2500, FormatVersion::V2) > 1000);
        assert_eq!(gain(&euros, &cents, 2500, FormatVersion::V1), 0);
        assert_eq!(gain(&begun, &word, 2000, FormatVersion::V2), 0);
        assert_eq!(
            gain(&sample(std::iter::empty()), &word, 2000, FormatVersion::V2),
            0
        );
    }
}
