//! The shortest history that still breaks the promise.

use super::history::History;
use super::run::{Outcome, run};

/// Runs that shrinking may take.
const MOST_RUNS: usize = 400;

/// Leaves out steps as long as something stays wrong; answers the history, as a test to paste, and what is wrong.
pub(super) fn shrink(history: &History, outcome: &Outcome) -> String {
    let (mut history, mut wrong) = (history.clone(), outcome.violations.clone());
    let mut runs = 0;
    let mut length = history.steps.len().div_ceil(2);
    while length > 0 && runs < MOST_RUNS {
        let mut at = 0;
        let mut is_shorter = false;
        while at < history.steps.len() && runs < MOST_RUNS {
            let mut fewer = history.clone();
            let end = (at + length).min(fewer.steps.len());
            // The time that passed stays the same for what follows.
            let millis: u64 = fewer.steps.drain(at..end).map(|(millis, _)| millis).sum();
            if let Some((next, _)) = fewer.steps.get_mut(at) {
                *next += millis;
            }
            runs += 1;
            let found = run(&fewer).violations;
            match found.is_empty() {
                true => at += length,
                false => {
                    (history, wrong, is_shorter) = (fewer, found, true);
                }
            }
        }
        if length > 1 || !is_shorter {
            length /= 2;
        }
    }
    format!("{}\n\n{history}", wrong.join("\n"))
}
