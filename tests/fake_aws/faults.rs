//! Injected faults. Every decision comes from one seeded generator, so a run repeats as far as the order of calls
//! repeats.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Probabilities from 0 to 1, per call unless said otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The call is refused with the service's throttling error; for PutRecords, per record.
    pub throttle: f64,
    /// The call fails with status 500 and has no effect.
    pub server_error: f64,
    /// The connection breaks before the call has an effect.
    pub lost_request: f64,
    /// The call has its effect, then the connection breaks before the response.
    pub lost_response: f64,
    /// The effect happens twice: a put writes a second record, a deleted message is delivered once more.
    pub duplicate: f64,
    /// Per entry of a batch: it fails within a call that succeeds.
    pub entry_failure: f64,
    /// GetRecords returns no records although there are some.
    pub empty_read: f64,
    /// GetRecords does not see the newest records yet and reports that it is at the tip.
    pub unseen_record: f64,
    /// The call takes `delay_for` longer.
    pub delay: f64,
    /// See `delay`.
    pub delay_for: Duration,
}

/// The faults in force and the random generator that draws them.
#[derive(Debug)]
pub struct FaultInjector {
    state: Mutex<(Faults, fastrand::Rng)>,
}

impl FaultInjector {
    /// Draws `faults` from `seed`.
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            state: Mutex::new((faults, fastrand::Rng::with_seed(seed))),
        }
    }

    /// Replaces the faults from now on.
    pub fn set(&self, faults: Faults) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = faults;
    }

    /// Draws whether the fault that `pick` selects happens now.
    pub fn draw(&self, pick: impl Fn(&Faults) -> f64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let chance = pick(&state.0);
        chance > 0.0 && state.1.f64() < chance
    }

    /// Draws by how much this call is delayed.
    pub fn delay(&self) -> Duration {
        let delay_for = self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .delay_for;
        if self.draw(|faults| faults.delay) {
            delay_for
        } else {
            Duration::ZERO
        }
    }
}
