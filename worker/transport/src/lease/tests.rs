//! The contract over Leases of a real API server, and what only this side promises: times, ledgers, silence.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::contract_tests::{self, Side, eventually};
use crate::{ChunkStream, Queue};

/// Short, in client-go's proportions as far as whole seconds allow.
const FAST: Times = Times {
    lease: Duration::from_secs(2),
    deadline: Duration::from_millis(1300),
    period: Duration::from_millis(250),
};

async fn client() -> Client {
    Client::try_default()
        .await
        .expect("an API server: run this inside `tests/cluster exec`")
}

/// New Leases, as the operator makes them: without a holder.
async fn slots(count: u32) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(
        "t{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let names = slot_names(&unique, "compressor", count);
    for name in &names {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        api.create(&PostParams::default(), &lease).await.unwrap();
    }
    names
}

async fn lock(slots: &[String], times: Times) -> LeaseLock {
    LeaseLock::new(client().await, "default", slots.to_vec(), "pod", times)
}

struct Cluster;

#[async_trait]
impl Side for Cluster {
    fn short(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn queue(&self, _: Duration, _: u32) -> Arc<dyn Queue> {
        unreachable!("only locks are tested here")
    }

    async fn stream(&self) -> Arc<dyn ChunkStream> {
        unreachable!("only locks are tested here")
    }

    async fn locks(&self, participants: usize, count: u32) -> Vec<Arc<dyn SlotLock>> {
        let names = slots(count).await;
        let mut locks: Vec<Arc<dyn SlotLock>> = Vec::new();
        for _ in 0..participants {
            locks.push(Arc::new(lock(&names, Times::default()).await));
        }
        locks
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_keep_the_contract_of_locks() {
    contract_tests::lock::all(&Cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_died_is_followed_after_its_lease_and_not_before() {
    let names = slots(1).await;
    let (first, second) = (lock(&names, FAST).await, lock(&names, FAST).await);
    let held = first.try_acquire().await.unwrap().unwrap();
    let attempt = held.attempt().to_owned();
    eventually("the slot is seen to be held", || async {
        second.all_held_by_others().await.unwrap()
    })
    .await;
    // As after kill -9: nobody renews and nobody releases.
    let died = Instant::now();
    let dead = die(held);
    assert!(second.try_acquire().await.unwrap().is_none());
    let mut next = None;
    while next.is_none() && died.elapsed() < Duration::from_secs(10) {
        next = second.try_acquire().await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    let took = died.elapsed();
    let next = next.expect("the slot should be free again");
    assert!(took >= FAST.lease - FAST.period, "{took:?}");
    assert!(took < FAST.lease + Duration::from_secs(2), "{took:?}");
    assert_ne!(next.attempt(), attempt);
    assert!(next.release().await);
    drop(dead);
}

/// Ends the renewing task without a release, at the latest after one more renewal.
fn die(held: SlotGuard) -> SlotGuard {
    held.lost().cancel();
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_slot_is_followed_within_a_moment() {
    let names = slots(1).await;
    let (first, second) = (
        lock(&names, Times::default()).await,
        lock(&names, Times::default()).await,
    );
    let held = first.try_acquire().await.unwrap().unwrap();
    eventually("the slot is seen to be held", || async {
        second.all_held_by_others().await.unwrap()
    })
    .await;
    assert!(held.release().await);
    let released = Instant::now();
    eventually("the release is seen", || async {
        !second.all_held_by_others().await.unwrap()
    })
    .await;
    let next = second
        .try_acquire()
        .await
        .unwrap()
        .expect("the slot is free");
    assert!(
        released.elapsed() < Duration::from_secs(3),
        "{:?}",
        released.elapsed()
    );
    assert!(next.release().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_slot_was_taken_is_told() {
    let names = slots(1).await;
    let lock = lock(&names, FAST).await;
    let held = lock.try_acquire().await.unwrap().unwrap();
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let mut lease = api.get(&names[0]).await.unwrap();
    lease.metadata.managed_fields = None;
    lease.spec.as_mut().unwrap().holder_identity = Some("other".into());
    while api
        .replace(&names[0], &PostParams::default(), &lease)
        .await
        .is_err()
    {
        lease.metadata.resource_version =
            api.get(&names[0]).await.unwrap().metadata.resource_version;
    }
    timeout(Duration::from_secs(2), held.lost().cancelled())
        .await
        .expect("told at the next renewal");
    assert!(!held.release().await);
    let holder = api
        .get(&names[0])
        .await
        .unwrap()
        .spec
        .unwrap()
        .holder_identity;
    assert_eq!(holder.as_deref(), Some("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_may_annotate_a_held_lease_without_harm() {
    let names = slots(1).await;
    let lock = lock(&names, FAST).await;
    let held = lock.try_acquire().await.unwrap().unwrap();
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let patch =
        serde_json::json!({"metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}}});
    api.patch(
        &names[0],
        &Default::default(),
        &kube::api::Patch::Merge(&patch),
    )
    .await
    .unwrap();
    held.count(|ledger| ledger.files = 3);
    assert!(held.flush().await);
    let lease = api.get(&names[0]).await.unwrap();
    assert_eq!(lease.metadata.annotations.unwrap()["x"], "y");
    assert_eq!(lock.ledger().await.unwrap().files, 3);
    assert!(!held.lost().is_cancelled());
    assert!(held.release().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_without_an_api_server_stops_by_the_deadline() {
    let names = slots(1).await;
    let gate = gate::Gate::open().await;
    let behind_gate = LeaseLock::new(gate.client().await, "default", names.clone(), "pod", FAST);
    let other = lock(&names, FAST).await;
    let held = behind_gate.try_acquire().await.unwrap().unwrap();
    sleep(FAST.period * 3).await;
    assert!(held.ensure_owner());
    gate.close();
    let closed = Instant::now();
    timeout(Duration::from_secs(5), held.lost().cancelled())
        .await
        .expect("stops by itself");
    let stopped = closed.elapsed();
    assert!(!held.ensure_owner());
    assert!(
        stopped <= FAST.deadline + Duration::from_millis(200),
        "{stopped:?}"
    );
    eventually("another may follow", || async {
        !other.all_held_by_others().await.unwrap()
    })
    .await;
    let followed = closed.elapsed();
    assert!(followed > stopped, "{followed:?} after {stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_began_while_the_api_server_was_silent_sees_its_slot_once_it_speaks() {
    let names = slots(1).await;
    let gate = gate::Gate::open().await;
    gate.close();
    let lock = LeaseLock::new(gate.client().await, "default", names, "pod", FAST);
    lock.all_held_by_others().await.unwrap_err();
    // What was asked through the shut gate is never answered.
    gate.reopen();
    eventually("the slot can be taken", || async {
        lock.try_acquire().await.is_ok_and(|held| held.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_writes_nothing() {
    let names = slots(2).await;
    let lock = lock(&names, FAST).await;
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let before = api.get(&names[0]).await.unwrap().metadata.resource_version;
    for _ in 0..20 {
        assert!(!lock.all_held_by_others().await.unwrap());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        api.get(&names[0]).await.unwrap().metadata.resource_version,
        before
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_lease_says_who_makes_it() {
    let lock = lock(&["nobody-made-this-0".to_owned()], FAST).await;
    let error = lock.all_held_by_others().await.unwrap_err();
    let why = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(why.contains("the operator makes it"), "{error}: {why}");
}

/// A door to the API server that can be shut in the middle of everything.
mod gate {
    use std::sync::{Arc, Mutex};

    use kube::{Client, Config};
    use tokio::io::copy_bidirectional;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    pub struct Gate {
        port: u16,
        /// Of the connections made from now on.
        shut: Arc<Mutex<CancellationToken>>,
    }

    impl Gate {
        pub async fn open() -> Self {
            let config = Config::infer().await.expect("a kubeconfig");
            let (host, behind) = (
                config.cluster_url.host().unwrap().to_owned(),
                config.cluster_url.port_u16().unwrap_or(443),
            );
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let shut = Arc::new(Mutex::new(CancellationToken::new()));
            let gate = Arc::clone(&shut);
            tokio::spawn(async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let (host, gate) = (host.clone(), gate.lock().unwrap().clone());
                    tokio::spawn(async move {
                        let Ok(mut far) = TcpStream::connect((host.as_str(), behind)).await else {
                            return;
                        };
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            // Neither closed nor answered: the connection hangs, as behind a dead network.
                            () = gate.cancelled() => std::future::pending().await,
                        }
                    });
                }
            });
            Self { port, shut }
        }

        pub async fn client(&self) -> Client {
            let mut config = Config::infer().await.expect("a kubeconfig");
            config.cluster_url = format!("https://127.0.0.1:{}", self.port).parse().unwrap();
            Client::try_from(config).expect("a client")
        }

        pub fn close(&self) {
            self.shut.lock().unwrap().cancel();
        }

        /// For new connections; those of before stay as they are.
        pub fn reopen(&self) {
            *self.shut.lock().unwrap() = CancellationToken::new();
        }
    }
}
