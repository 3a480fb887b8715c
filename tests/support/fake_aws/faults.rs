//! What goes wrong on purpose. Every decision comes from one seeded generator, so a run can be told again as far as the
//! order of calls can.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Probabilities from 0 to 1, per call unless said otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The call is refused with the service's throttling error; Kinesis puts: per record.
    pub throttle: f64,
    /// The call fails with a 500 before anything was done.
    pub server_error: f64,
    /// The connection breaks before anything was done.
    pub lost_request: f64,
    /// All is done, then the connection breaks instead of an answer.
    pub lost_response: f64,
    /// What is done is done twice: a put writes a second record, a deleted message is delivered once more.
    pub duplicate: f64,
    /// Per entry of a batch: it fails inside a call that succeeds.
    pub entry_failure: f64,
    /// GetRecords answers nothing although there are records.
    pub empty_read: f64,
    /// GetRecords does not see the newest records yet and says that it is at the tip.
    pub unseen_record: f64,
    /// The call takes `delay_for` longer.
    pub delay: f64,
    /// See `delay`.
    pub delay_for: Duration,
}

/// The faults in force and the generator behind them.
#[derive(Debug)]
pub struct Mischief {
    state: Mutex<(Faults, fastrand::Rng)>,
}

impl Mischief {
    /// Faults drawn from `seed`.
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            state: Mutex::new((faults, fastrand::Rng::with_seed(seed))),
        }
    }

    /// Other faults from now on.
    pub fn set(&self, faults: Faults) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = faults;
    }

    /// Draws: does the fault that `pick` names happen now?
    pub fn strikes(&self, pick: impl Fn(&Faults) -> f64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let chance = pick(&state.0);
        chance > 0.0 && state.1.f64() < chance
    }

    /// How long this call is held up.
    pub fn delay(&self) -> Duration {
        let delay_for = self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .delay_for;
        if self.strikes(|faults| faults.delay) {
            delay_for
        } else {
            Duration::ZERO
        }
    }
}
