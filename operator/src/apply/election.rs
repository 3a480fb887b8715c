//! Which operator may write: of several the one that holds the Lease, by the rules that the workers' slots have too. Checked
//! before every write.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Error};
use parking_lot::Mutex;
use streampress_transport::Deadline;
use streampress_transport::lease::{
    HeldLease, LeaseCandidate, LossCause, Observation, Renewal, Times,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

/// Whether this process leads, as all of its tasks see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leadership {
    until: Arc<Mutex<Option<Deadline>>>,
}

impl Leadership {
    /// Whether a write may begin now.
    pub(crate) fn may_write(&self) -> bool {
        self.left().is_some()
    }

    /// How long a write that begins now may take; `None` when it may not begin.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = self.until.lock().as_ref().map(Deadline::get);
        let left = until?.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }

    fn set(&self, until: Option<Instant>) {
        // Time that the machine sleeps counts: another operator may lead by then.
        *self.until.lock() = until.map(Deadline::new);
    }
}

/// The longest wait for a release, at the end of the process.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// One candidate.
pub(crate) struct Election {
    candidate: LeaseCandidate,
    /// The Lease's name.
    name: String,
    leadership: Leadership,
    observed: Option<Observation>,
    held: Option<HeldLease>,
}

impl Election {
    /// A candidate for the Lease `name` under a name of its own.
    pub(crate) fn new(
        api: Api<Lease>,
        name: String,
        identity: String,
        times: Times,
        leadership: Leadership,
    ) -> Self {
        Self {
            candidate: LeaseCandidate::new(api, identity, times),
            name,
            leadership,
            observed: None,
            held: None,
        }
    }

    /// Waits until it leads.
    pub(crate) async fn win(&mut self) {
        loop {
            match self.try_win().await {
                Ok(Some(held)) => {
                    self.leadership.set(Some(held.deadline()));
                    info!(identity = self.candidate.identity(), "This operator leads.");
                    self.held = Some(held);
                    return;
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "The leader's Lease could not be read or written; trying again.")
                }
            }
            sleep(self.candidate.times().period).await;
        }
    }

    /// Renews for as long as it can; returns when it does not lead any more.
    pub(crate) async fn keep(&mut self) {
        while let Some(held) = &mut self.held {
            sleep_until(held.next_renewal()).await;
            match held.renew(|_| {}).await {
                Renewal::Renewed => self.leadership.set(Some(held.deadline())),
                Renewal::Failed => {}
                Renewal::Lost(cause) => {
                    self.held = None;
                    match cause {
                        LossCause::Taken => warn!("Another operator leads now."),
                        LossCause::Deadline => warn!(
                            "The leader's Lease could not be renewed by the deadline; this operator does not lead any more."
                        ),
                    }
                }
            }
        }
        self.leadership.set(None);
    }

    /// Releases the Lease, after all work has ended.
    pub(crate) async fn release(&mut self) {
        self.leadership.set(None);
        if let Some(held) = self.held.take() {
            // When this takes too long, others wait until the lease runs out.
            let _ = timeout(RELEASE_DEADLINE, held.release(|_| {})).await;
        }
    }

    async fn try_win(&mut self) -> Result<Option<HeldLease>, Error> {
        let Some(lease) = self.candidate.get(&self.name).await? else {
            return self.candidate.create(&self.name).await;
        };
        let observed = match &mut self.observed {
            Some(observed) => {
                observed.update(lease);
                observed
            }
            none => none.insert(Observation::new(lease)),
        };
        let is_own = observed.is_held_by(self.candidate.identity());
        if !is_own && !observed.is_free(self.candidate.times()) {
            return Ok(None);
        }
        self.candidate.take(observed.lease().clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_may_last_as_long_as_the_lead_and_none_begins_after_it() {
        let leadership = Leadership::default();
        assert_eq!(leadership.left(), None);
        let hour = Duration::from_secs(3600);
        leadership.set(Some(Instant::now() + hour));
        assert!(leadership.left().is_some_and(|left| left <= hour));
        assert!(leadership.may_write());
        leadership.set(Some(Instant::now()));
        assert_eq!(leadership.left(), None);
        assert!(!leadership.may_write());
    }
}
