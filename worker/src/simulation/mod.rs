//! Whole pipelines in simulated time, judged by a checker that knows only what was done to files and what lies at the end.
//!
//! - [`history`]: what happens: to files, processes, clocks and services, as a list of steps that can be pasted into a
//!   test; and its generator.
//! - [`pipeline`]: a pipeline of the roles' own types on services in simulated time.
//! - [`run`]: runs a history, makes the world well again, waits until all is done.
//! - [`record`]: what is known of a run: contents at the source, changes at the destination.
//! - [`check`]: the promise, as checks of that record; [`ends`]: of every announced version; [`letters`]: of dead letters;
//!   [`counts`]: of what was counted.
//! - [`shrink`]: the shortest history that still breaks it.
//! - [`named`]: histories that once broke it. [`bundled`]: histories of files that share a block. [`pairs`]: histories of
//!   two pipelines.
//!
//! One thread, the paused clock and seeded random numbers make a run repeatable. STREAMPRESS_HISTORIES says how many
//! histories are tried (`tests/run --long`: many), STREAMPRESS_HISTORY_SEED where their seeds begin.

mod bundled;
mod check;
mod check_tests;
mod counts;
mod ends;
mod history;
mod letters;
mod named;
mod pairs;
mod pipeline;
mod record;
mod run;
mod shrink;

use self::history::History;
use self::run::{HistoryFigures, run};
use self::shrink::shrink;

/// How many histories are tried, unless the environment says.
const HISTORIES: u64 = 2000;
/// Steps of a history.
const STEPS: usize = 200;

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs the histories of every second seed from `first` on; two tests share the machine's cores.
fn the_promise_holds(first: u64) {
    let wanted = number_of("STREAMPRESS_HISTORIES").unwrap_or(HISTORIES);
    let start = number_of("STREAMPRESS_HISTORY_SEED").unwrap_or(1);
    let seeds = (start + first..start + wanted).step_by(2);
    let mut most = HistoryFigures::default();
    for seed in seeds {
        let history = History::generate(seed, STEPS);
        let outcome = run(&history);
        most = most.max(outcome.figures());
        if !outcome.violations.is_empty() {
            let shrunk = shrink(&history, &outcome);
            panic!("seed {seed}:\n{shrunk}");
        }
    }
    println!("{wanted} histories from {start} on, every second one: at most {most:?}");
}

#[test]
fn the_promise_holds_in_histories_with_odd_seeds() {
    the_promise_holds(0);
}

#[test]
fn the_promise_holds_in_histories_with_even_seeds() {
    the_promise_holds(1);
}

#[test]
fn the_same_history_runs_the_same_way_twice() {
    for seed in 1..=4 {
        let history = History::generate(seed, STEPS);
        let [one, other] = [(); 2].map(|()| run(&history).without_times());
        assert_eq!(one, other, "seed {seed}");
    }
}
