//! The contract of slots over Leases of a real API server, and what only this implementation promises: ledgers, takeover,
//! no write while idle. When a lease expires is tested without a server, in `lease::rules` and `lease::holder`.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use streampress_crds::slot_health::{HEALTH, NeededService, OutageKind, SlotHealth};
use streampress_crds::{Role, names};
use streampress_transport::contract_tests::{self, Implementation, PATIENCE, eventually};
use streampress_transport::lease::{LeaseLock, RoleSlots, Times};
use streampress_transport::{ChunkStream, Queue, SlotGuard, SlotLock};
use tokio::time::{sleep, timeout};

/// A lease that runs out within the patience of a test.
const SHORT_LEASE: Times = Times {
    lease: Duration::from_secs(5),
    deadline: Duration::from_secs(3),
    period: Duration::from_millis(250),
};
/// A lease that does not run out within the patience of a test, whatever the machine has to do.
const LONG_LEASE: Times = Times {
    lease: Duration::from_secs(3600),
    deadline: Duration::from_secs(3000),
    period: Duration::from_millis(250),
};

async fn client() -> Client {
    Client::try_default()
        .await
        .expect("an API server: run this inside `tests/cluster exec`")
}

/// New Leases, as the operator makes them: labelled, without a holder.
struct NewSlots {
    names: Vec<String>,
    pipeline: String,
}

impl std::ops::Index<usize> for NewSlots {
    type Output = String;

    fn index(&self, slot: usize) -> &String {
        &self.names[slot]
    }
}

impl NewSlots {
    fn of_role(&self) -> RoleSlots {
        let count = u32::try_from(self.names.len()).unwrap();
        RoleSlots::new(&self.pipeline, Role::Compressor, count)
    }
}

async fn slots(count: u32) -> NewSlots {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let pipeline = format!(
        "t{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let labels = [
        (names::COMPONENT, "compressor"),
        (names::INSTANCE, &*pipeline),
        ("app.kubernetes.io/name", "streampress"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let names = names::slots(&pipeline, Role::Compressor, count);
    for name in &names {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.clone().into()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        api.create(&PostParams::default(), &lease).await.unwrap();
    }
    NewSlots { names, pipeline }
}

async fn lock(slots: &NewSlots, times: Times) -> LeaseLock {
    LeaseLock::new(client().await, "default", slots.of_role(), "pod", times)
}

struct ApiServer;

#[async_trait]
impl Implementation for ApiServer {
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
            locks.push(Arc::new(lock(&names, LONG_LEASE).await));
        }
        locks
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_keep_the_contract_of_locks() {
    contract_tests::lock::all(&ApiServer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_died_is_followed_after_its_lease_and_not_before() {
    let names = slots(1).await;
    let first = lock(&names, LONG_LEASE).await;
    let held = first.try_acquire().await.unwrap().unwrap();
    let _dead = die(held);
    // A lease that others have to wait for cannot run out here.
    let second = lock(&names, SHORT_LEASE).await;
    assert!(second.try_acquire().await.unwrap().is_none());

    let names = slots(1).await;
    let first = lock(&names, SHORT_LEASE).await;
    let held = first.try_acquire().await.unwrap().unwrap();
    let attempt = held.attempt().to_owned();
    let _dead = die(held);
    let next = next_holder(&lock(&names, SHORT_LEASE).await).await;
    assert_ne!(next.attempt(), attempt);
    assert!(next.release().await);
}

async fn next_holder(lock: &LeaseLock) -> SlotGuard {
    let trying = async {
        loop {
            if let Some(guard) = lock.try_acquire().await.unwrap() {
                return guard;
            }
            // Between two attempts, as a worker that has work; each asks the API server.
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, trying).await.expect("the slot is free")
}

/// As after kill -9: ends the renewing task without a release, at the latest after one more renewal.
fn die(held: SlotGuard) -> SlotGuard {
    held.lost().cancel();
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_slot_is_followed_long_before_its_lease_ends() {
    let names = slots(1).await;
    let (first, second) = (
        lock(&names, LONG_LEASE).await,
        lock(&names, LONG_LEASE).await,
    );
    let held = first.try_acquire().await.unwrap().unwrap();
    eventually("the slot is seen to be held", || async {
        second.all_held_by_others().await.unwrap()
    })
    .await;
    assert!(held.release().await);
    eventually("the release is seen", || async {
        !second.all_held_by_others().await.unwrap()
    })
    .await;
    let next = second
        .try_acquire()
        .await
        .unwrap()
        .expect("the slot is free");
    assert!(next.release().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_slot_was_taken_is_told() {
    let names = slots(1).await;
    let lock = lock(&names, LONG_LEASE).await;
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
    timeout(PATIENCE, held.lost().cancelled())
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
    let lock = lock(&names, LONG_LEASE).await;
    let held = lock.try_acquire().await.unwrap().unwrap();
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let patch = json!({"metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}}});
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
async fn an_outage_is_shown_by_the_lease_until_a_holder_works_again() {
    let names = slots(1).await;
    let lock = lock(&names, LONG_LEASE).await;
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let shown = || async {
        let lease = api.get(&names[0]).await.unwrap();
        let text = lease.metadata.annotations.unwrap()[HEALTH].clone();
        serde_json::from_str::<SlotHealth>(&text).unwrap()
    };
    let held = lock.try_acquire().await.unwrap().unwrap();
    held.change_health(|health| {
        health.is_down(NeededService::Destination, OutageKind::Down, "disk full", 7)
    });
    assert!(held.release().await);
    let after = shown().await;
    assert_eq!(
        after.outage.map(|outage| outage.cause),
        Some("disk full".into())
    );
    // The next holder does not know better yet.
    let held = lock.try_acquire().await.unwrap().unwrap();
    assert!(held.flush().await);
    assert!(shown().await.outage.is_some());
    held.change_health(|health| health.worked(9));
    assert!(held.flush().await);
    let last = shown().await;
    assert_eq!((last.worked_at, last.outage), (9, None));
    assert!(held.release().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_without_an_api_server_stops_before_another_may_follow() {
    let names = slots(1).await;
    let proxy = proxy::HangingProxy::start().await;
    // Others wait far longer than the holder does, so that the order shows on any machine.
    let times = Times {
        lease: Duration::from_secs(20),
        ..SHORT_LEASE
    };
    let behind_proxy = LeaseLock::new(
        proxy.client().await,
        "default",
        names.of_role(),
        "pod",
        times,
    );
    let other = lock(&names, times).await;
    let held = behind_proxy.try_acquire().await.unwrap().unwrap();
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let renewed = || async { api.get(&names[0]).await.unwrap().spec.unwrap().renew_time };
    let taken_at = renewed().await;
    eventually("the slot is renewed", || async {
        renewed().await != taken_at
    })
    .await;
    assert!(held.ensure_owner());
    proxy.hang();
    timeout(PATIENCE, held.lost().cancelled())
        .await
        .expect("stops by itself");
    assert!(!held.ensure_owner());
    assert!(other.all_held_by_others().await.unwrap());
    eventually("another may follow", || async {
        !other.all_held_by_others().await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_began_while_the_api_server_was_silent_sees_its_slot_once_it_answers() {
    let names = slots(1).await;
    let proxy = proxy::HangingProxy::start().await;
    proxy.hang();
    let lock = LeaseLock::new(
        proxy.client().await,
        "default",
        names.of_role(),
        "pod",
        SHORT_LEASE,
    );
    lock.all_held_by_others().await.unwrap_err();
    // Requests on the connections that hang are never answered.
    proxy.reopen();
    eventually("the slot can be taken", || async {
        lock.try_acquire().await.is_ok_and(|held| held.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_writes_nothing() {
    let names = slots(2).await;
    let lock = lock(&names, SHORT_LEASE).await;
    let api: Api<Lease> = Api::namespaced(client().await, "default");
    let before = api.get(&names[0]).await.unwrap().metadata.resource_version;
    for _ in 0..20 {
        assert!(!lock.all_held_by_others().await.unwrap());
        // That nothing is written shows only over a time in which a holder would renew four times.
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        api.get(&names[0]).await.unwrap().metadata.resource_version,
        before
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_lease_says_who_makes_it() {
    let missing = NewSlots {
        names: vec!["missing-compressor-0".into()],
        pipeline: "missing".into(),
    };
    let lock = lock(&missing, SHORT_LEASE).await;
    let error = lock.all_held_by_others().await.unwrap_err();
    let why = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(why.contains("the operator makes it"), "{error}: {why}");
}

/// A client with the permissions of a worker: these rules for Leases, and nothing else.
async fn worker_client(name: &str, rules: serde_json::Value) -> Client {
    let admin = client().await;
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::namespaced(admin.clone(), "default");
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let role = serde_json::from_value(role).unwrap();
    roles.create(&PostParams::default(), &role).await.unwrap();
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(admin, "default");
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    });
    let binding = serde_json::from_value(binding).unwrap();
    let params = PostParams::default();
    bindings.create(&params, &binding).await.unwrap();
    let mut config = kube::Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:default:{name}"));
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_taken_under_the_role_of_this_operator_and_under_that_of_an_earlier_one() {
    for is_earlier in [false, true] {
        let slots = slots(2).await;
        let rule = |names: Option<&[String]>, verbs: &[&str]| {
            let mut rule = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs});
            if let Some(names) = names {
                rule["resourceNames"] = json!(names);
            }
            rule
        };
        let names = Some(&*slots.names);
        let rules = match is_earlier {
            true => json!([rule(names, &["get", "watch", "update"])]),
            false => json!([
                rule(names, &["get", "update"]),
                rule(None, &["list", "watch"])
            ]),
        };
        let worker = worker_client(&slots.pipeline, rules).await;
        let leases: Api<Lease> = Api::namespaced(worker.clone(), "default");
        eventually("the API server knows the Role", || async {
            leases.get(&slots[0]).await.is_ok()
        })
        .await;
        assert_eq!(leases.list(&Default::default()).await.is_err(), is_earlier);
        let lock = LeaseLock::new(worker, "default", slots.of_role(), "pod", LONG_LEASE);
        let first = lock.try_acquire().await.unwrap().expect("a free slot");
        let second = lock.try_acquire().await.unwrap().expect("a free slot");
        assert!(lock.try_acquire().await.unwrap().is_none());
        assert!(first.release().await && second.release().await);
        eventually("the release is seen", || async {
            !lock.all_held_by_others().await.unwrap()
        })
        .await;
    }
}

/// A TCP proxy to the API server whose connections can be made to hang.
mod proxy {
    use std::sync::{Arc, Mutex};

    use kube::{Client, Config};
    use tokio::io::copy_bidirectional;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    pub struct HangingProxy {
        port: u16,
        /// For the connections made from now on.
        hang: Arc<Mutex<CancellationToken>>,
    }

    impl HangingProxy {
        pub async fn start() -> Self {
            let config = Config::infer().await.expect("a kubeconfig");
            let (host, behind) = (
                config.cluster_url.host().unwrap().to_owned(),
                config.cluster_url.port_u16().unwrap_or(443),
            );
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let hang = Arc::new(Mutex::new(CancellationToken::new()));
            let of_next = Arc::clone(&hang);
            tokio::spawn(async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let (host, hang) = (host.clone(), of_next.lock().unwrap().clone());
                    tokio::spawn(async move {
                        let Ok(mut far) = TcpStream::connect((host.as_str(), behind)).await else {
                            return;
                        };
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            // Neither closed nor answered, as behind a dead network.
                            () = hang.cancelled() => std::future::pending().await,
                        }
                    });
                }
            });
            Self { port, hang }
        }

        pub async fn client(&self) -> Client {
            let mut config = Config::infer().await.expect("a kubeconfig");
            config.cluster_url = format!("https://127.0.0.1:{}", self.port).parse().unwrap();
            Client::try_from(config).expect("a client")
        }

        pub fn hang(&self) {
            self.hang.lock().unwrap().cancel();
        }

        /// For new connections; those of before go on hanging.
        pub fn reopen(&self) {
            *self.hang.lock().unwrap() = CancellationToken::new();
        }
    }
}
