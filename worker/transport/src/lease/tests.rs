//! One holder against an API server of one Lease in memory, on the paused clock.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{HeldLease, LeaseCandidate, LossCause, Renewal, Times};

const NAME: &str = "slot-0";

/// How the server treats requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mood {
    #[default]
    Answers,
    Fails,
    Hangs,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<ServerState>>);

#[derive(Default)]
struct ServerState {
    lease: Option<Lease>,
    version: u64,
    mood: Mood,
    writes: u32,
}

impl Server {
    /// With a Lease as the operator makes it: without a holder.
    fn start() -> Self {
        let server = Self::default();
        server.put(Lease {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                uid: Some("uid".into()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        server
    }

    fn put(&self, mut lease: Lease) -> Lease {
        let mut state = self.0.lock();
        state.version += 1;
        lease.metadata.resource_version = Some(state.version.to_string());
        state.lease = Some(lease.clone());
        lease
    }

    fn lease(&self) -> Lease {
        self.0.lock().lease.clone().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Lease)) {
        let mut lease = self.lease();
        change(&mut lease);
        self.put(lease);
    }

    fn set_mood(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let mood = self.0.lock().mood;
        match mood {
            Mood::Answers => {}
            Mood::Fails => return Ok(status(StatusCode::INTERNAL_SERVER_ERROR)),
            Mood::Hangs => std::future::pending().await,
        }
        let is_write = request.method() == Method::PUT;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let Some(now) = self.0.lock().lease.clone() else {
            return Ok(status(StatusCode::NOT_FOUND));
        };
        if !is_write {
            return Ok(object(&now));
        }
        let lease: Lease = serde_json::from_slice(&body).unwrap();
        if lease.metadata.resource_version != now.metadata.resource_version {
            return Ok(status(StatusCode::CONFLICT));
        }
        self.0.lock().writes += 1;
        Ok(object(&self.put(lease)))
    }

    fn candidate(&self, identity: &str) -> LeaseCandidate {
        let server = self.clone();
        let service = tower::service_fn(move |request| server.clone().answer(request));
        let client = Client::new(service, "default");
        let times = Times::default();
        LeaseCandidate::new(Api::default_namespaced(client), identity.into(), times)
    }

    async fn held(&self) -> HeldLease {
        let candidate = self.candidate("us");
        candidate.take(self.lease()).await.unwrap().unwrap()
    }
}

fn object(lease: &Lease) -> Response<Full<Bytes>> {
    Response::new(Full::from(serde_json::to_vec(lease).unwrap()))
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "message": "", "reason": "", "metadata": {},
    });
    let mut answer = Response::new(Full::from(status.to_string()));
    *answer.status_mut() = code;
    answer
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_that_read_the_same_one_takes_the_lease() {
    let server = Server::start();
    let read = server.lease();
    let (first, second) = (server.candidate("first"), server.candidate("second"));
    assert!(first.take(read.clone()).await.unwrap().is_some());
    assert!(second.take(read).await.unwrap().is_none());
    let spec = server.lease().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("first"));
    assert_eq!(spec.lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_moves_the_deadline_and_writes_what_it_is_given() {
    let server = Server::start();
    let mut held = server.held().await;
    let first = held.deadline();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let renewal = held.renew(|lease| {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("ledger".into(), "7".into());
    });
    assert_eq!(renewal.await, Renewal::Renewed);
    assert_eq!(held.deadline(), first + Duration::from_secs(5));
    assert_eq!(server.lease().metadata.annotations.unwrap()["ledger"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_a_changed_label_is_no_loss() {
    let server = Server::start();
    let mut held = server.held().await;
    server.change(|lease| {
        let labels = lease.metadata.labels.get_or_insert_default();
        labels.insert("team".into(), "a".into());
    });
    assert_eq!(held.renew(|_| {}).await, Renewal::Renewed);
    assert_eq!(server.lease().metadata.labels.unwrap()["team"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_or_that_was_deleted_is_lost_at_once() {
    let server = Server::start();
    let mut held = server.held().await;
    server.change(|lease| {
        lease.spec.get_or_insert_default().holder_identity = Some("other".into());
    });
    let lost = Renewal::Lost(LossCause::Taken);
    assert_eq!(held.renew(|_| {}).await, lost);
    assert!(held.release(|_| {}).await.is_none());
    let holder = server.lease().spec.unwrap().holder_identity;
    assert_eq!(holder.as_deref(), Some("other"));

    let server = Server::start();
    let mut held = server.held().await;
    server.0.lock().lease = None;
    assert_eq!(held.renew(|_| {}).await, lost);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_at_its_deadline_and_not_before() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let server = Server::start();
        let mut held = server.held().await;
        server.set_mood(mood);
        let deadline = held.deadline();
        let mut failures = 0;
        loop {
            tokio::time::sleep_until(held.next_renewal()).await;
            match held.renew(|_| {}).await {
                Renewal::Failed => {
                    assert!(Instant::now() < deadline, "{mood:?}");
                    failures += 1;
                }
                lost => {
                    assert_eq!(lost, Renewal::Lost(LossCause::Deadline), "{mood:?}");
                    break;
                }
            }
        }
        assert_eq!(Instant::now(), deadline, "{mood:?}");
        assert!(failures > 0, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_again_in_time_is_no_loss() {
    let server = Server::start();
    let mut held = server.held().await;
    server.set_mood(Mood::Hangs);
    assert_eq!(held.renew(|_| {}).await, Renewal::Failed);
    server.set_mood(Mood::Answers);
    assert_eq!(held.renew(|_| {}).await, Renewal::Renewed);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_tried_until_it_is_written_and_frees_the_lease() {
    let server = Server::start();
    let held = server.held().await;
    server.set_mood(Mood::Fails);
    let again = server.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        again.set_mood(Mood::Answers);
    });
    let released = held.release(|_| {}).await.unwrap();
    assert_eq!(released.spec.unwrap().holder_identity, None);
    let next = server.candidate("next").take(server.lease()).await;
    assert!(next.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_release_that_cannot_be_written_ends_at_the_deadline() {
    let server = Server::start();
    let held = server.held().await;
    server.set_mood(Mood::Hangs);
    let deadline = held.deadline();
    assert!(held.release(|_| {}).await.is_none());
    assert_eq!(Instant::now(), deadline);
    assert_eq!(server.0.lock().writes, 1);
}
