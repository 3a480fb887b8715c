//! Features of a block by which the plan of its schema is found.

use std::collections::HashMap;

use super::csv::RowLayout;
use crate::hash::{IdentityState, hash_bytes, mix};

/// The number of lines that a sketch covers.
const SKETCH_LINES: usize = 400;
/// A run of letters in at least one of this many lines is a feature of the schema.
const FEATURE_LINES: usize = 16;
/// Blocks of numbers agree in delimiter and number of columns only.
const MIN_SHAPE_WEIGHT: usize = 4;
/// One line may hold millions of fields.
const MAX_SHAPE_WEIGHT: usize = 4096;

/// The features of lines: runs of letters in many lines, the runs of a header, and the delimiters.
pub(super) fn of_lines(raw: &[u8], layouts: &[RowLayout], fields: usize) -> Vec<u64> {
    let mut counts: HashMap<u64, usize, IdentityState> = HashMap::default();
    let mut in_line = Vec::new();
    let mut lines = 0;
    let mut sketch = Vec::new();
    for (number, line) in raw
        .split(|&byte| byte == b'\n')
        .take(SKETCH_LINES)
        .enumerate()
    {
        lines += 1;
        runs_of_letters(line, &mut in_line);
        if number == 0 && !line.iter().any(u8::is_ascii_digit) {
            sketch.extend_from_slice(&in_line);
        }
        for &run in &in_line {
            *counts.entry(run).or_default() += 1;
        }
    }
    counts.retain(|_, count| *count * FEATURE_LINES >= lines);
    sketch.extend(counts.into_keys());
    for layout in layouts.iter().filter(|layout| layout.delimiter != b' ') {
        let shape = mix(layout.delimiter.into(), fields as u64);
        let weight = fields.clamp(MIN_SHAPE_WEIGHT, MAX_SHAPE_WEIGHT) as u64;
        sketch.extend((0..weight).map(|copy| mix(shape, copy)));
    }
    sketch.sort_unstable();
    sketch.dedup();
    sketch
}

/// The hashes of the distinct runs of letters of a line.
fn runs_of_letters(line: &[u8], found: &mut Vec<u64>) {
    found.clear();
    found.extend(
        line.split(|byte| !byte.is_ascii_alphabetic())
            .filter(|run| run.len() > 1)
            .take(SKETCH_LINES)
            .map(hash_bytes),
    );
    found.sort_unstable();
    found.dedup();
}
