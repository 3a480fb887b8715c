//! How predictable the values of a column are, on a sample: cheap enough for each block. A coding that was chosen for other data
//! may take as many bytes as before where another would take a few.

use super::values::ColumnValues;
use crate::hash::hash_bytes;

/// The sections of a sample, and the consecutive values of each.
const SECTIONS: usize = 3;
const SECTION_VALUES: usize = 256;

/// The entropy of the values of a sample, or of the differences of numbers in a row where that is less, in 1/256 of a bit a value.
/// A sample has no more than ten bits: of values that hardly repeat it says only that.
pub(super) fn sampled_entropy(values: &ColumnValues) -> u64 {
    let len = values.len();
    // Of a short column the sections are shorter.
    let each = SECTION_VALUES.min(len / SECTIONS);
    let gap = (len - SECTIONS * each) / (SECTIONS - 1);
    let start = |section: usize| section * (gap + each);
    let sections: Vec<_> = (0..SECTIONS).map(start).map(|at| at..at + each).collect();
    let rows = || sections.iter().flat_map(Clone::clone);
    let hashes = rows().map(|row| hash_bytes(values.get(row)));
    let of_values = entropy(hashes.collect());
    let mut differences = Vec::new();
    for section in &sections {
        let mut numbers = section.clone().map(|row| number(values.get(row)));
        let Some(Some(mut before)) = numbers.next() else {
            return of_values;
        };
        for number in numbers {
            let Some(number) = number else {
                return of_values;
            };
            differences.push(number.wrapping_sub(before));
            before = number;
        }
    }
    of_values.min(entropy(differences))
}

/// The digits of a number as one number, whatever its point is.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    const MOST_DIGITS: usize = 19;
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    let mut number = 0u64;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            b'.' => {}
            _ => return None,
        }
    }
    Some(match digits.len() == text.len() {
        true => number,
        false => number.wrapping_neg(),
    })
}

/// The entropy of symbols, in 1/256 of a bit each.
pub(super) fn entropy(mut symbols: Vec<u64>) -> u64 {
    symbols.sort_unstable();
    let all = symbols.len() as f64;
    let equal = symbols.chunk_by(|a, b| a == b);
    let bits: f64 = equal
        .map(|equal| equal.len() as f64)
        .map(|count| count * (all / count).log2())
        .sum();
    (bits * 256.0 / all.max(1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = String>) -> u64 {
        sampled_entropy(
            &values
                .map(String::into_bytes)
                .collect::<Vec<_>>()
                .iter()
                .map(Vec::as_slice)
                .collect(),
        )
    }

    #[test]
    fn values_that_repeat_or_count_up_have_less_entropy_than_random_ones() {
        let mut rng = fastrand::Rng::with_seed(1);
        let random = of((0..9000).map(|_| rng.u32(..).to_string()));
        assert!(random > 2400, "{random}");
        let few = of((0..9000).map(|_| ["open", "paid"][rng.usize(..2)].to_owned()));
        assert!((200..=256).contains(&few), "{few}");
        assert_eq!(of((0..9000).map(|_| "open".to_owned())), 0);
        let counting = of((0..9000).map(|row| format!("{}.{:02}", row / 100, row % 100)));
        assert!(counting < 8, "{counting}");
        assert_eq!(of(std::iter::empty()), 0);
        assert_eq!(of(std::iter::once("7".to_owned())), 0);
    }
}
