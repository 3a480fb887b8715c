//! The rules of client-go's leader election, without any request: when a Lease is free, what a candidate writes into it,
//! and until when a holder may act. One implementation for the operator's lead and the workers' slots.
//!
//! Expiry is judged by the observer's monotonic clock alone, from the moment at which it saw the record change last: clocks of
//! other machines do not matter. A holder judges its own deadline by a clock that also runs while its machine sleeps; an
//! observer that slept has seen nothing meanwhile and does not count it. Every update carries the resource version that was read, so of several writers one
//! succeeds.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use streampress_crds::lease::Times;
use tokio::time::Instant;

use crate::Moment;

/// A Lease as one candidate saw it last, and since when its record has not changed.
#[derive(Debug, Clone)]
pub struct Observation {
    lease: Lease,
    unchanged_since: Instant,
}

impl Observation {
    /// Seen for the first time, now.
    pub fn new(lease: Lease) -> Self {
        Self {
            lease,
            unchanged_since: Instant::now(),
        }
    }

    /// Seen again, now. A record that has not changed keeps its age, whatever else of the object has; an older version than
    /// the one seen before is ignored.
    pub fn update(&mut self, lease: Lease) {
        let is_same_object = self.lease.metadata.uid == lease.metadata.uid;
        if is_same_object && version(&self.lease) > version(&lease) {
            return;
        }
        if !is_same_object || self.lease.spec != lease.spec {
            self.unchanged_since = Instant::now();
        }
        self.lease = lease;
    }

    /// The Lease as seen last.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether it may be taken: it has no holder, or its holder gave no sign of life for a whole lease.
    pub fn is_free(&self, times: &Times) -> bool {
        let Some(spec) = self.lease.spec.as_ref() else {
            return true;
        };
        if holder(spec).is_none() {
            return true;
        }
        let lease = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(times.lease, Duration::from_secs);
        self.unchanged_since.elapsed() >= lease
    }

    /// Whether its record names `identity` as the holder.
    pub fn is_held_by(&self, identity: &str) -> bool {
        self.lease.spec.as_ref().and_then(holder) == Some(identity)
    }
}

/// The API server orders an object's versions as numbers.
fn version(lease: &Lease) -> u64 {
    lease
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

/// The record of a candidate that takes a Lease. The number of transitions counts holdings: it grows also where a holder takes
/// its own Lease again, which it did not renew in time, for work and records are named after the holding.
pub fn taken(before: Option<&LeaseSpec>, identity: &str, times: &Times) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let transitions = before
        .and_then(|before| before.lease_transitions)
        .unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(times.lease_seconds()),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions.saturating_add(1)),
        ..LeaseSpec::default()
    }
}

/// The record of a holder that renews.
pub fn renewed(mut record: LeaseSpec) -> LeaseSpec {
    record.renew_time = Some(MicroTime(Timestamp::now()));
    record
}

/// The record of a holder that releases: free at once, also for a candidate that only goes by the lease.
pub fn released(record: LeaseSpec) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        ..renewed(record)
    }
}

/// Whether both are the same holding: the same Lease object, the same holder, no other in between.
pub(crate) fn is_same_holding(a: &Lease, b: &Lease) -> bool {
    let record = |lease: &Lease| {
        let spec = lease.spec.as_ref()?;
        Some((spec.holder_identity.clone(), spec.lease_transitions))
    };
    a.metadata.uid == b.metadata.uid && record(a) == record(b)
}

/// Until when a holder may act, and when it renews.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    times: Times,
    renewed_at: Moment,
}

impl Hold {
    /// Held by a write that was requested at `requested_at`: never later than what others count from.
    pub fn new(times: Times, requested_at: Moment) -> Self {
        Self {
            times,
            renewed_at: requested_at,
        }
    }

    /// Renewed by a write that was requested at `requested_at`.
    pub fn renew(&mut self, requested_at: Moment) {
        self.renewed_at = requested_at;
    }

    /// The holder stops by then, before another may follow. Time that the machine slept has brought it nearer.
    pub fn deadline(&self) -> Instant {
        self.renewed_at.after(self.times.deadline)
    }

    /// Whether the deadline has passed.
    pub fn is_expired(&self) -> bool {
        self.renewed_at.elapsed() >= self.times.deadline
    }

    /// The next attempt to renew, after one now: soon, also after a failure, and never later than the deadline.
    pub fn next_renewal(&self) -> Instant {
        (Instant::now() + self.times.period).min(self.deadline())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use tokio::time::advance;

    use super::*;

    const TIMES: Times = Times {
        lease: Duration::from_secs(15),
        deadline: Duration::from_secs(10),
        period: Duration::from_secs(2),
    };

    fn lease(version: u32, spec: Option<LeaseSpec>) -> Lease {
        Lease {
            metadata: ObjectMeta {
                uid: Some("uid".into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            spec,
        }
    }

    fn held(version: u32) -> Lease {
        lease(version, Some(taken(None, "other", &TIMES)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_free_without_a_holder_and_after_a_whole_lease_without_a_change() {
        assert!(Observation::new(lease(1, None)).is_free(&TIMES));
        let observed = Observation::new(held(1));
        advance(TIMES.lease - Duration::from_millis(1)).await;
        assert!(!observed.is_free(&TIMES));
        advance(Duration::from_millis(1)).await;
        assert!(observed.is_free(&TIMES));
        let released = released(held(1).spec.unwrap_or_default());
        assert!(Observation::new(lease(2, Some(released))).is_free(&TIMES));
    }

    #[tokio::test(start_paused = true)]
    async fn the_holders_own_lease_duration_counts() {
        let mut record = taken(None, "other", &TIMES);
        record.lease_duration_seconds = Some(60);
        let observed = Observation::new(lease(1, Some(record)));
        advance(TIMES.lease).await;
        assert!(!observed.is_free(&TIMES));
        advance(Duration::from_secs(45)).await;
        assert!(observed.is_free(&TIMES));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_starts_the_lease_anew_and_another_change_does_not() {
        let first = held(1);
        let mut observed = Observation::new(first.clone());
        advance(TIMES.lease / 2).await;
        // As when the operator sets a label.
        let mut labelled = first.clone();
        labelled.metadata.resource_version = Some("2".into());
        labelled
            .metadata
            .labels
            .get_or_insert_default()
            .insert("team".into(), "a".into());
        observed.update(labelled);
        advance(TIMES.lease / 2).await;
        assert!(observed.is_free(&TIMES));
        let mut renewed = first.spec.unwrap_or_default();
        renewed.renew_time = Some(MicroTime(Timestamp::UNIX_EPOCH));
        observed.update(lease(3, Some(renewed)));
        assert!(!observed.is_free(&TIMES));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_version_is_ignored_and_another_object_is_not() {
        let mut observed = Observation::new(held(10));
        observed.update(lease(9, None));
        assert!(observed.is_held_by("other"));
        let mut other = lease(1, None);
        other.metadata.uid = Some("another".into());
        observed.update(other);
        assert!(observed.is_free(&TIMES));
    }

    #[test]
    fn transitions_count_holdings_also_of_the_same_holder() {
        let first = taken(None, "a", &TIMES);
        assert_eq!(first.lease_transitions, Some(1));
        // Not renewed in time, and not taken by another.
        let again = taken(Some(&first), "a", &TIMES);
        assert_eq!(again.lease_transitions, Some(2));
        let second = taken(Some(&again), "b", &TIMES);
        assert_eq!(second.lease_transitions, Some(3));
        assert_eq!(second.holder_identity.as_deref(), Some("b"));
        let third = taken(Some(&released(second)), "b", &TIMES);
        assert_eq!(third.lease_transitions, Some(4));
    }

    #[test]
    fn a_holding_ends_with_its_holder_its_transition_or_its_object() {
        let holding = held(1);
        let mut labelled = held(2);
        labelled.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
        assert!(is_same_holding(&holding, &labelled));
        let mut again = held(2);
        again.spec.get_or_insert_default().lease_transitions = Some(2);
        assert!(!is_same_holding(&holding, &again));
        let mut other = held(2);
        other.spec.get_or_insert_default().holder_identity = Some("b".into());
        assert!(!is_same_holding(&holding, &other));
        let mut recreated = held(2);
        recreated.metadata.uid = Some("another".into());
        assert!(!is_same_holding(&holding, &recreated));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_stops_by_its_deadline_which_a_renewal_moves() {
        let mut hold = Hold::new(TIMES, Moment::now());
        advance(Duration::from_secs(9)).await;
        assert!(!hold.is_expired());
        // A failed attempt is repeated by the deadline.
        assert_eq!(hold.next_renewal(), hold.deadline());
        hold.renew(Moment::now());
        assert_eq!(hold.next_renewal(), Instant::now() + TIMES.period);
        advance(TIMES.deadline).await;
        assert!(hold.is_expired());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn a_holder_whose_machine_slept_past_its_deadline_knows_it_on_waking() {
        let hold = Hold::new(TIMES, Moment::now());
        let observed = Observation::new(held(1));
        crate::clock::tests::sleep_machine(TIMES.lease);
        assert!(hold.is_expired() && hold.deadline() <= Instant::now());
        assert!(!observed.is_free(&TIMES), "it could not see a renewal");
    }
}
