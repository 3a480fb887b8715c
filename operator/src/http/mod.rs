//! `/livez`: watches move. `/readyz`: everything has been listed once and is followed; what is not is named. `/metrics`.

pub mod metrics;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::http::metrics::Metrics;
use crate::state::watch::Pulse;

/// A watch that did not move for so long hangs: a healthy one ends and begins anew before.
const STALLED: Duration = Duration::from_secs(60);

/// A watch that is refused for so long is no longer believed to see what happens.
const REFUSED: Duration = Duration::from_secs(60);

/// The watches of this process; none while another operator leads.
#[derive(Clone, Default)]
pub struct Pulses {
    all: Arc<Mutex<Vec<Arc<Pulse>>>>,
}

impl Pulses {
    /// From now on these count.
    pub fn set(&self, pulses: Vec<Arc<Pulse>>) {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner) = pulses;
    }

    fn get(&self) -> Vec<Arc<Pulse>> {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether all watches move; else which does not.
    pub fn live(&self) -> Result<(), String> {
        let hanging = |pulse: &Arc<Pulse>| {
            (pulse.age() > STALLED).then(|| {
                format!(
                    "the watch of {} has not moved for {} s",
                    pulse.name(),
                    pulse.age().as_secs()
                )
            })
        };
        all_well(self.get().iter().filter_map(hanging).collect())
    }

    /// Whether everything has been listed once and can be followed; else what cannot, and why.
    pub fn ready(&self) -> Result<(), String> {
        let missing = |pulse: &Arc<Pulse>| {
            let why = match pulse.trouble() {
                Some((why, since)) if since > REFUSED || !pulse.is_listed() => why,
                None if !pulse.is_listed() => "not listed yet".into(),
                _ => return None,
            };
            Some(format!("{}: {why}", pulse.name()))
        };
        all_well(self.get().iter().filter_map(missing).collect())
    }
}

fn all_well(faults: Vec<String>) -> Result<(), String> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n") + "\n")
    }
}

/// The pages.
pub fn router(pulses: Pulses, metrics: Metrics) -> Router {
    let answer = |result: Result<(), String>| match result {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let live = pulses.clone();
    Router::new()
        .route("/livez", get(async move || answer(live.live())))
        .route("/readyz", get(async move || answer(pulses.ready())))
        .route("/metrics", get(async move || metrics.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_does_not_move_is_named_and_one_that_does_is_not() {
        let pulses = Pulses::default();
        assert_eq!(pulses.live(), Ok(()), "a process that stands by is well");
        pulses.set(vec![
            Pulse::new("leases"),
            Pulse::still_for("roles", STALLED + Duration::from_secs(1)),
        ]);
        let why = pulses.live().expect_err("one stands still");
        assert!(why.contains("roles") && !why.contains("leases"), "{why}");
        let why = pulses.ready().expect_err("none was listed");
        assert_eq!(why, "leases: not listed yet\nroles: not listed yet\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_for_long_is_named_until_it_goes_on() {
        let (pulses, pulse) = (Pulses::default(), Pulse::new("leases"));
        pulses.set(vec![Arc::clone(&pulse)]);
        pulse.moved(true);
        for _ in 0..3 {
            pulse.failed("leases is forbidden");
            assert_eq!(pulses.ready(), Ok(()), "it may pass");
            tokio::time::advance(REFUSED / 2).await;
        }
        assert_eq!(pulses.ready(), Err("leases: leases is forbidden\n".into()));
        pulse.moved(false);
        assert_eq!(pulses.ready(), Ok(()));
    }
}
