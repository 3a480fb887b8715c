//! The histories of the simulation with real files: the program's own processes, on a data folder and on the fake AWS.
//!
//! A test that takes seconds cannot have what takes hours or a machine of its own: clocks that jump, days, disks that are full or
//! read-only, files that root cannot read, queues that are made anew. Those steps are left out; [`life`] says which. Sources that
//! are renamed or deleted are left out too: they must hold still for a minute.
//!
//! STREAMPRESS_REAL_HISTORIES says how many of each kind are tried, STREAMPRESS_HISTORY_SEED where their seeds begin.

#[path = "../../worker/src/simulation/history.rs"]
#[expect(dead_code, reason = "the simulation uses the rest")]
mod history;
mod life;
mod seen;

use streampress_crds::api::pipeline::{OnCompressed, OnRestored};
use streampress_tests::aws::Cloud;

use self::history::{History, SimSettings};
use self::life::RealPipeline;

/// How many histories of each kind are tried, unless the environment says.
const HISTORIES: u64 = 3;
/// Steps of a history, before some are left out.
const STEPS: usize = 60;

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seeds of the histories to try.
fn seeds() -> impl Iterator<Item = u64> {
    let first = number_of("STREAMPRESS_HISTORY_SEED").unwrap_or(1);
    let wanted = number_of("STREAMPRESS_REAL_HISTORIES").unwrap_or(HISTORIES);
    let all = (first..).filter(|seed| keeps_sources(&History::generate(*seed, 0).settings));
    all.take(usize::try_from(wanted).unwrap_or(usize::MAX))
}

fn keeps_sources(settings: &SimSettings) -> bool {
    settings.on_compressed == OnCompressed::Keep && settings.on_restored == OnRestored::Keep
}

/// Runs the history, and panics with what was done where the promise was broken.
fn run(seed: u64, cloud: Option<&Cloud>) {
    let history = History::generate(seed, STEPS);
    println!("seed {seed}: {history}");
    let mut pipeline = RealPipeline::begin(&history.settings, cloud, &format!("seed-{seed}"));
    for (millis, step) in &history.steps {
        pipeline.pause(*millis);
        pipeline.apply(*step);
    }
    pipeline.end();
}

#[test]
fn the_promise_holds_on_a_data_folder() {
    for seed in seeds() {
        run(seed, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promise_holds_on_aws() {
    for seed in seeds() {
        let cloud = Cloud::start().await;
        tokio::task::block_in_place(|| run(seed, Some(&cloud)));
    }
}
