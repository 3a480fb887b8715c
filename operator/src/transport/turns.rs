//! Whose turn it is to be served: calls that run at once are bounded for each endpoint, and fairly. A namespace whose calls all
//! hang holds at most its own share, and a few calls of every namespace wait for those of no other.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::TransportPlan;

/// Of a namespace's calls so many wait for those of no other namespace.
const OWN: usize = 2;
/// All further calls of an endpoint are at most so many times what one namespace may have.
const NAMESPACES: usize = 3;

/// What shares a bound. Removing does not wait for maintenance that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Maintain,
    Remove,
}

/// Region, endpoint and operation.
type EndpointKey = (String, Option<String>, Operation);

/// The turns of all pipelines.
pub(super) struct Turns {
    /// Calls of a namespace that run at once at an endpoint.
    of_namespace: usize,
    endpoints: Mutex<HashMap<EndpointKey, Arc<Semaphore>>>,
    namespaces: Mutex<HashMap<(String, EndpointKey), Arc<NamespaceShare>>>,
}

/// What a namespace may do at an endpoint.
struct NamespaceShare {
    /// First come, first served.
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// A call may run for as long as this exists.
pub(super) struct Turn {
    _of_namespace: OwnedSemaphorePermit,
    /// One of the namespace's own, or one that all namespaces share.
    _call: OwnedSemaphorePermit,
    /// Kept in the map while it is used.
    _share: Arc<NamespaceShare>,
}

impl Turns {
    pub(super) fn new(of_namespace: usize) -> Self {
        Self {
            of_namespace,
            endpoints: Mutex::default(),
            namespaces: Mutex::default(),
        }
    }

    /// Waits until this pipeline may be served.
    pub(super) async fn take(&self, plan: &TransportPlan, operation: Operation) -> Option<Turn> {
        let endpoint = (plan.region.clone(), plan.endpoint.clone(), operation);
        let shared = entry(&self.endpoints, endpoint.clone(), || {
            Arc::new(Semaphore::new(self.of_namespace * NAMESPACES))
        });
        let share = entry(&self.namespaces, (plan.namespace.clone(), endpoint), || {
            Arc::new(NamespaceShare {
                all: Arc::new(Semaphore::new(self.of_namespace)),
                own: Arc::new(Semaphore::new(OWN)),
            })
        });
        let of_namespace = Arc::clone(&share.all).acquire_owned().await.ok()?;
        let call = tokio::select! {
            biased;
            own = Arc::clone(&share.own).acquire_owned() => own,
            shared = shared.acquire_owned() => shared,
        };
        Some(Turn {
            _of_namespace: of_namespace,
            _call: call.ok()?,
            _share: share,
        })
    }
}

/// The value of a key; values that are used no more are removed.
fn entry<K: Eq + Hash, V>(
    map: &Mutex<HashMap<K, Arc<V>>>,
    key: K,
    new: impl FnOnce() -> Arc<V>,
) -> Arc<V> {
    let mut map = map.lock();
    map.retain(|_, value| Arc::strong_count(value) > 1);
    Arc::clone(map.entry(key).or_insert_with(new))
}
