//! `/livez`: watches move. `/readyz`: everything has been listed once and is followed; what is not is named. `/metrics`.

pub mod metrics;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;

use crate::http::metrics::OperatorMetrics;
use crate::state::watch::WatchHealth;

/// A watch that got no answer for so long hangs: a healthy one begins anew before.
const SILENT: Duration = Duration::from_secs(60);

/// A watch that is refused for so long is no longer assumed to see what happens.
const REFUSED: Duration = Duration::from_secs(60);

/// The health of all watches of this process; there are none while another operator leads.
#[derive(Clone, Default)]
pub struct OperatorHealth {
    watches: Arc<Mutex<Vec<Arc<WatchHealth>>>>,
    /// Why this process does nothing although it leads.
    refused: Arc<Mutex<Option<String>>>,
}

impl OperatorHealth {
    /// From now on these watches count.
    pub(crate) fn set(&self, watches: Vec<Arc<WatchHealth>>) {
        *self.watches.lock() = watches;
        *self.refused.lock() = None;
    }

    /// This process does nothing, and why.
    pub(crate) fn refused(&self, why: String) {
        *self.refused.lock() = Some(why);
    }

    /// Whether all watches move; else which does not, a line each.
    pub fn live(&self) -> Result<(), String> {
        all_well(&self.watches.lock(), |watch| {
            let age = watch.age();
            (age > SILENT).then(|| {
                format!(
                    "the watch of {} has had no answer for {} s",
                    watch.name(),
                    age.as_secs()
                )
            })
        })
    }

    /// Whether everything has been listed once and can be followed; else what cannot and why, a line each.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(why) = &*self.refused.lock() {
            return Err(format!("{why}\n"));
        }
        all_well(&self.watches.lock(), |watch| {
            let why = match watch.failure() {
                Some((why, since)) if since > REFUSED || !watch.is_listed() => why,
                None if !watch.is_listed() => "not listed yet".into(),
                _ => return None,
            };
            Some(format!("{}: {why}", watch.name()))
        })
    }
}

fn all_well(
    watches: &[Arc<WatchHealth>],
    problem: impl Fn(&WatchHealth) -> Option<String>,
) -> Result<(), String> {
    let problems: Vec<String> = watches.iter().filter_map(|watch| problem(watch)).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n") + "\n")
    }
}

/// The pages.
pub fn router(health: OperatorHealth, metrics: OperatorMetrics) -> Router {
    let answer = |result: Result<(), String>| match result {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let live = health.clone();
    Router::new()
        .route("/livez", get(async move || answer(live.live())))
        .route("/readyz", get(async move || answer(health.ready())))
        .route("/metrics", get(async move || metrics.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_does_not_move_is_named_and_one_that_does_is_not() {
        let health = OperatorHealth::default();
        assert_eq!(health.live(), Ok(()), "a process that stands by is well");
        health.set(vec![
            WatchHealth::new("leases"),
            WatchHealth::silent_for("roles", SILENT + Duration::from_secs(1)),
        ]);
        let why = health.live().expect_err("one is silent");
        assert!(why.contains("roles") && !why.contains("leases"), "{why}");
        let why = health.ready().expect_err("none was listed");
        assert_eq!(why, "leases: not listed yet\nroles: not listed yet\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_for_long_is_named_until_it_goes_on() {
        let (health, watch) = (OperatorHealth::default(), WatchHealth::new("leases"));
        health.set(vec![Arc::clone(&watch)]);
        watch.answered();
        watch.listed();
        for _ in 0..3 {
            watch.failed("leases is forbidden");
            assert_eq!(health.ready(), Ok(()), "it may pass");
            tokio::time::advance(REFUSED / 2).await;
        }
        assert_eq!(health.ready(), Err("leases: leases is forbidden\n".into()));
        watch.answered();
        assert_eq!(health.ready(), Ok(()));
    }
}
