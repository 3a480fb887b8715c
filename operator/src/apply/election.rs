//! Who may write: of several operators the one that holds the Lease. Client-go's rules: expiry is judged by the
//! observer's monotonic clock alone, every update carries the resource version, and a holder that cannot renew stops
//! by the renew deadline, before anybody may follow. Asked before every write.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Error};
pub(crate) use streampress_crds::lease::Times;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// Whether this process leads, as known to everybody in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Leadership {
    /// Whether a write may begin now.
    pub(crate) fn may_write(&self) -> bool {
        self.left().is_some()
    }

    /// How long a write that begins now may take; nothing when it may not begin.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = *self.until();
        let left = until?.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }

    fn until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until() = until;
    }
}

/// One candidate.
pub(crate) struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
    leadership: Leadership,
    /// The record as last seen, and since when it has looked like that.
    seen: Option<(String, Instant)>,
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
            api,
            name,
            identity,
            times,
            leadership,
            seen: None,
        }
    }

    /// Waits until it leads; gives the Lease as written.
    pub(crate) async fn win(&mut self) -> Lease {
        loop {
            let asked = Instant::now();
            match timeout(self.times.request(), self.try_win()).await {
                Ok(Ok(Some(lease))) => {
                    self.leadership.set(Some(asked + self.times.deadline));
                    info!(identity = %self.identity, "This operator leads.");
                    return lease;
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    warn!(%error, "The leader's Lease could not be read or written; trying again.")
                }
                Err(_) => warn!(
                    "The API server did not answer in time about the leader's Lease; trying again."
                ),
            }
            sleep(self.times.period).await;
        }
    }

    /// Renews for as long as it can; returns when it leads no more.
    pub(crate) async fn keep(&mut self, mut lease: Lease) {
        let mut renewed = Instant::now();
        loop {
            sleep(self.times.period).await;
            let asked = Instant::now();
            match timeout(self.times.request(), self.write(&lease, false)).await {
                Ok(Ok(written)) => {
                    lease = written;
                    renewed = asked;
                    self.leadership.set(Some(renewed + self.times.deadline));
                }
                Ok(Err(Error::Api(status))) if status.code == 409 || status.code == 404 => {
                    match self.still_ours().await {
                        Some(current) => lease = current,
                        None => {
                            warn!("Another operator leads now.");
                            break;
                        }
                    }
                }
                Ok(Err(error)) => {
                    warn!(%error, "The leader's Lease could not be renewed; trying again.")
                }
                Err(_) => warn!("The leader's Lease could not be renewed in time; trying again."),
            }
            if renewed.elapsed() >= self.times.deadline {
                warn!(
                    "The leader's Lease could not be renewed by the deadline; this operator leads no more."
                );
                break;
            }
        }
        self.leadership.set(None);
    }

    /// Gives the Lease up, after all work has ended.
    pub(crate) async fn release(&mut self) {
        self.leadership.set(None);
        let release = async {
            if let Some(lease) = self.still_ours().await {
                let _ = self.write(&lease, true).await;
            }
        };
        let _ = timeout(Duration::from_secs(2), release).await;
    }

    async fn still_ours(&self) -> Option<Lease> {
        let lease = timeout(self.times.request(), self.api.get_opt(&self.name))
            .await
            .ok()?
            .ok()??;
        let holder = lease.spec.as_ref()?.holder_identity.as_deref();
        (holder == Some(&self.identity)).then_some(lease)
    }

    async fn try_win(&mut self) -> Result<Option<Lease>, Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return match self.create().await {
                Err(Error::Api(status)) if status.code == 409 => Ok(None),
                created => created.map(Some),
            };
        };
        if !self.is_free(&lease) {
            return Ok(None);
        }
        match self.write(&lease, false).await {
            Err(Error::Api(status)) if status.code == 409 => Ok(None),
            written => written.map(Some),
        }
    }

    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        if holder.is_none_or(|holder| holder == self.identity) {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let theirs = u64::try_from(spec.lease_duration_seconds.unwrap_or(15)).unwrap_or(15);
        now.duration_since(since) >= Duration::from_secs(theirs)
    }

    async fn create(&self) -> Result<Lease, Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.record(None)),
        };
        self.api.create(&PostParams::default(), &lease).await
    }

    /// With the resource version that was read: only one of several writers succeeds.
    async fn write(&self, lease: &Lease, release: bool) -> Result<Lease, Error> {
        let mut lease = lease.clone();
        lease.metadata.managed_fields = None;
        let mut record = self.record(lease.spec.as_ref());
        if release {
            record.holder_identity = None;
            record.lease_duration_seconds = Some(1);
        }
        lease.spec = Some(record);
        self.api
            .replace(&self.name, &PostParams::default(), &lease)
            .await
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours =
            before.is_some_and(|before| before.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before
            .and_then(|before| before.lease_transitions)
            .unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.times.lease_seconds()),
            acquire_time: before
                .filter(|_| ours)
                .and_then(|before| before.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
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
