//! Taking, renewing and releasing one Lease at the API server, by the rules.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Error};
use streampress_crds::lease::Times;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use super::rules::{self, Hold};
use crate::Moment;

/// Attempts of one write while others change the same object.
const CONFLICTS: usize = 5;
/// Between two attempts to release.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// One that may hold Leases, under an identity of its own.
#[derive(Clone)]
pub struct LeaseCandidate {
    api: Api<Lease>,
    identity: String,
    times: Times,
}

/// A Lease that this process holds.
pub struct HeldLease {
    candidate: LeaseCandidate,
    /// As last written.
    lease: Lease,
    hold: Hold,
}

/// How a renewal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Written.
    Renewed,
    /// Not written; it may succeed later.
    Failed,
    /// The deadline passed, or another holds it: all effects must stop.
    Lost(LossCause),
}

/// Why a Lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// It could not be renewed by the deadline.
    Deadline,
    /// Another candidate holds it, or it was deleted.
    Taken,
}

impl LeaseCandidate {
    /// A candidate for Leases of `api`.
    pub fn new(api: Api<Lease>, identity: String, times: Times) -> Self {
        Self {
            api,
            identity,
            times,
        }
    }

    /// The name that it holds Leases under.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its times.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// The Leases' API.
    pub fn api(&self) -> &Api<Lease> {
        &self.api
    }

    /// The Lease of this name; `None` when there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Lease>, Error> {
        self.in_time(self.api.get_opt(name)).await
    }

    /// Takes a Lease as it was read; `None` when another was faster (409).
    pub async fn take(&self, mut lease: Lease) -> Result<Option<HeldLease>, Error> {
        lease.spec = Some(rules::taken(
            lease.spec.as_ref(),
            &self.identity,
            &self.times,
        ));
        let requested_at = Moment::now();
        let written = self.in_time(self.replace(&lease)).await;
        self.held(written, requested_at)
    }

    /// Creates a Lease and takes it; `None` when another was faster (409).
    pub async fn create(&self, name: &str) -> Result<Option<HeldLease>, Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(rules::taken(None, &self.identity, &self.times)),
        };
        let requested_at = Moment::now();
        let params = PostParams::default();
        let written = self.in_time(self.api.create(&params, &lease)).await;
        self.held(written, requested_at)
    }

    fn held(
        &self,
        written: Result<Lease, Error>,
        requested_at: Moment,
    ) -> Result<Option<HeldLease>, Error> {
        match written {
            Ok(lease) => Ok(Some(HeldLease {
                candidate: self.clone(),
                lease,
                hold: Hold::new(self.times, requested_at),
            })),
            Err(error) if is_code(&error, 409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// With the resource version that was read: only one of several writers succeeds.
    async fn replace(&self, lease: &Lease) -> Result<Lease, Error> {
        let mut lease = lease.clone();
        lease.metadata.managed_fields = None;
        let name = lease.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        self.api.replace(&name, &params, &lease).await
    }

    /// A connection on which nothing arrives would be waited for without end.
    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(self.times.request(), request)
            .await
            .unwrap_or_else(|late| Err(Error::Service(late.into())))
    }
}

impl HeldLease {
    /// As last written.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.lease.metadata.name.as_deref().unwrap_or_default()
    }

    /// All effects must stop by then.
    pub fn deadline(&self) -> Instant {
        self.hold.deadline()
    }

    /// When to renew next, after an attempt now.
    pub fn next_renewal(&self) -> Instant {
        self.hold.next_renewal()
    }

    /// Renews, with what `change` does to the object; gives up at the deadline, even in the middle of a request.
    pub async fn renew(&mut self, change: impl Fn(&mut Lease)) -> Renewal {
        let (requested_at, deadline) = (Moment::now(), self.deadline());
        let write = self.write(|lease| {
            lease.spec = Some(rules::renewed(lease.spec.take().unwrap_or_default()));
            change(lease);
        });
        match timeout_at(deadline, write).await {
            Ok(WriteOutcome::Done) => {
                self.hold.renew(requested_at);
                Renewal::Renewed
            }
            Ok(WriteOutcome::NotOurs) => Renewal::Lost(LossCause::Taken),
            Ok(WriteOutcome::Failed) if !self.hold.is_expired() => Renewal::Failed,
            Ok(WriteOutcome::Failed) | Err(_) => Renewal::Lost(LossCause::Deadline),
        }
    }

    /// Releases, with what `change` does to the object; tries until the deadline. Answers the Lease as written; `None` when
    /// it was lost before, or when others have to wait until the lease runs out.
    pub async fn release(mut self, change: impl Fn(&mut Lease)) -> Option<Lease> {
        let deadline = self.deadline();
        let release = async {
            loop {
                let written = self
                    .write(|lease| {
                        lease.spec = Some(rules::released(lease.spec.take().unwrap_or_default()));
                        change(lease);
                    })
                    .await;
                match written {
                    WriteOutcome::Done => return true,
                    WriteOutcome::NotOurs => return false,
                    WriteOutcome::Failed => sleep(RELEASE_AGAIN_AFTER).await,
                }
            }
        };
        let released = timeout_at(deadline, release).await.unwrap_or(false);
        released.then_some(self.lease)
    }

    /// Writes the Lease as last written with a change. A conflict is not yet a loss: labels may have been changed.
    async fn write(&mut self, change: impl Fn(&mut Lease)) -> WriteOutcome {
        for _ in 0..CONFLICTS {
            let mut lease = self.lease.clone();
            change(&mut lease);
            let written = self.candidate.in_time(self.candidate.replace(&lease)).await;
            match written {
                Ok(written) => {
                    self.lease = written;
                    return WriteOutcome::Done;
                }
                Err(error) if is_code(&error, 404) => return WriteOutcome::NotOurs,
                Err(error) if is_code(&error, 409) => match self.candidate.get(self.name()).await {
                    Ok(Some(now)) if rules::is_same_holding(&self.lease, &now) => self.lease = now,
                    Ok(_) => return WriteOutcome::NotOurs,
                    Err(error) => return self.failed(&error),
                },
                Err(error) => return self.failed(&error),
            }
        }
        WriteOutcome::Failed
    }

    fn failed(&self, error: &Error) -> WriteOutcome {
        warn!(lease = self.name(), %error, "Could not write the Lease; trying again.");
        WriteOutcome::Failed
    }
}

/// How one write ended.
enum WriteOutcome {
    Done,
    /// It may succeed later.
    Failed,
    /// Another holds the Lease, or it is gone.
    NotOurs,
}

/// Whether the API server answered with this status.
pub(super) fn is_code(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}
