//! How many requests a worker needs to see its role's slots, against an API server of many Leases in memory.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streampress_crds::{Role, names};

use super::{LeaseLock, RoleSlots, Times};
use crate::SlotLock;
use crate::contract_tests::eventually;

type LeasesAnswer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone, Default)]
struct LeasesServer(Arc<Mutex<LeasesState>>);

#[derive(Default)]
struct LeasesState {
    leases: BTreeMap<String, Lease>,
    version: u64,
    /// As with the Role of an earlier operator: only requests that name a Lease are allowed.
    forbids_lists: bool,
    watches: Vec<UnboundedSender<Value>>,
    requests: Requests,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Requests {
    lists: usize,
    watches: usize,
    gets: usize,
}

impl LeasesServer {
    fn with_slots(count: u32, forbids_lists: bool) -> Self {
        let server = Self::default();
        server.0.lock().forbids_lists = forbids_lists;
        for name in names::slots("stock", Role::Compressor, count) {
            server.put(&name, None);
        }
        server
    }

    /// Creates or changes a Lease, and tells those who watch.
    fn put(&self, name: &str, holder: Option<&str>) {
        let mut state = self.0.lock();
        state.version += 1;
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(name.into()),
                resource_version: Some(state.version.to_string()),
                ..ObjectMeta::default()
            },
            spec: holder.map(|holder| LeaseSpec {
                holder_identity: Some(holder.into()),
                ..LeaseSpec::default()
            }),
        };
        state.leases.insert(name.into(), lease.clone());
        let event = json!({"type": "MODIFIED", "object": lease});
        state
            .watches
            .retain(|watch| watch.unbounded_send(event.clone()).is_ok());
    }

    fn delete(&self, name: &str) {
        let mut state = self.0.lock();
        let lease = state.leases.remove(name).unwrap();
        let event = json!({"type": "DELETED", "object": lease});
        state
            .watches
            .retain(|watch| watch.unbounded_send(event.clone()).is_ok());
    }

    fn requests(&self) -> Requests {
        self.0.lock().requests
    }

    async fn answer(self, request: Request<Body>) -> Result<LeasesAnswer, Infallible> {
        assert_eq!(request.method(), Method::GET);
        let query = request.uri().query().unwrap_or_default();
        let name = request.uri().path().split("/leases/").nth(1);
        let is_watch = query.contains("watch=true");
        let names_one = name.is_some() || query.contains("fieldSelector=metadata.name");
        let mut state = self.0.lock();
        match (name, is_watch) {
            (Some(_), _) => state.requests.gets += 1,
            (None, true) => state.requests.watches += 1,
            (None, false) => state.requests.lists += 1,
        }
        if state.forbids_lists && !names_one {
            return Ok(status(StatusCode::FORBIDDEN));
        }
        let of_role = "app.kubernetes.io%2Finstance%3Dstock";
        assert!(names_one || query.contains(of_role), "{query}");
        if is_watch {
            let (sender, events) = unbounded();
            state.watches.push(sender);
            let frames = events.map(|event: Value| {
                let line = format!("{event}\n");
                Ok(hyper::body::Frame::data(Bytes::from(line)))
            });
            return Ok(Response::new(StreamBody::new(frames).boxed_unsync()));
        }
        Ok(match name.map(|name| state.leases.get(name)) {
            Some(Some(lease)) => object(&json!(lease)),
            Some(None) => status(StatusCode::NOT_FOUND),
            None => object(&json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
                "metadata": {"resourceVersion": state.version.to_string()},
                "items": state.leases.values().collect::<Vec<_>>(),
            })),
        })
    }

    fn lock(&self, count: u32) -> LeaseLock {
        let server = self.clone();
        let service = tower::service_fn(move |request| server.clone().answer(request));
        let client = Client::new(service, "default");
        let slots = RoleSlots::new("stock", Role::Compressor, count);
        LeaseLock::new(client, "default", slots, "pod", Times::default())
    }
}

fn object(object: &Value) -> LeasesAnswer {
    Response::new(Full::from(object.to_string()).boxed_unsync())
}

fn status(code: StatusCode) -> LeasesAnswer {
    let mut answer = object(&json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "message": "", "reason": "", "metadata": {},
    }));
    *answer.status_mut() = code;
    answer
}

#[tokio::test]
async fn thousands_of_slots_cost_one_list_and_one_watch() {
    const SLOTS: u32 = 2000;
    let server = LeasesServer::with_slots(SLOTS, false);
    let lock = server.lock(SLOTS);
    assert!(!lock.all_held_by_others().await.unwrap());
    for name in names::slots("stock", Role::Compressor, SLOTS) {
        server.put(&name, Some("other"));
    }
    eventually("every slot is seen to be held", || async {
        lock.all_held_by_others().await.unwrap()
    })
    .await;
    let requests = Requests {
        lists: 1,
        watches: 1,
        gets: 0,
    };
    assert_eq!(server.requests(), requests);
    // Before it is sure that there is none, it looks once more.
    assert!(lock.try_acquire().await.unwrap().is_none());
    let lists = requests.lists + 1;
    assert_eq!(server.requests(), Requests { lists, ..requests });
}

#[tokio::test]
async fn where_leases_may_not_be_listed_each_slot_is_watched() {
    let server = LeasesServer::with_slots(3, true);
    let lock = server.lock(3);
    assert!(!lock.all_held_by_others().await.unwrap());
    eventually("each slot is watched", || async {
        server.requests().watches == 3
    })
    .await;
    for name in names::slots("stock", Role::Compressor, 3) {
        server.put(&name, Some("other"));
    }
    eventually("every slot is seen to be held", || async {
        lock.all_held_by_others().await.unwrap()
    })
    .await;
    assert_eq!(server.requests().lists, 1);
    assert!(lock.try_acquire().await.unwrap().is_none());
    assert_eq!(lock.ledger().await.unwrap().files, 0);
}

#[tokio::test(start_paused = true)]
async fn once_leases_may_be_listed_one_watch_remains() {
    let server = LeasesServer::with_slots(3, true);
    let lock = server.lock(3);
    assert!(!lock.all_held_by_others().await.unwrap());
    eventually("each slot is watched", || async {
        server.requests().watches == 3
    })
    .await;
    server.0.lock().forbids_lists = false;
    // Simulated: the worker asks every hour.
    tokio::time::sleep(std::time::Duration::from_secs(3700)).await;
    for name in names::slots("stock", Role::Compressor, 3) {
        server.put(&name, Some("other"));
    }
    assert_eq!(server.0.lock().watches.len(), 1);
    eventually("every slot is seen to be held", || async {
        lock.all_held_by_others().await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_is_deleted_is_named_and_seen_when_it_comes_again() {
    for forbids_lists in [false, true] {
        let server = LeasesServer::with_slots(2, forbids_lists);
        let lock = server.lock(2);
        assert!(!lock.all_held_by_others().await.unwrap());
        eventually("the slots are watched", || async {
            server.requests().watches > usize::from(forbids_lists)
        })
        .await;
        server.delete("stock-compressor-1");
        let error = eventually("the slot is missed", || async {
            // Otherwise each look would wait for the slot to be seen.
            let look = lock.all_held_by_others();
            tokio::time::timeout(std::time::Duration::from_secs(10), look)
                .await
                .ok()?
                .err()
        })
        .await;
        let why = crate::error_chain(&error);
        assert!(why.contains("no Lease stock-compressor-1"), "{why}");
        server.put("stock-compressor-1", None);
        eventually("it is seen again", || async {
            lock.all_held_by_others().await.is_ok()
        })
        .await;
    }
}
