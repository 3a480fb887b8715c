//! Follows one kind of objects with kube's watcher: a list, then watches from there on, for ever. Added to it here:
//! each watch has its own back-off, so that one that fails holds up no other; each answer of the API server is a sign
//! of life, which is what `/livez` means; no answer may be waited for without end; and a server or proxy that ends
//! watches at once is not asked again at once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use streampress_transport::Backoff;
use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep, timeout};
use tower::BoxError;
use tracing::{debug, warn};

use crate::errors::api_message;

/// How long the server keeps one watch open, in seconds. kube's watcher gives a silent one up five seconds later.
const WATCH_SECONDS: u32 = 25;
/// How long the server may take to begin a watch.
const BEGIN_DEADLINE: Duration = Duration::from_secs(8);
/// How long it may take for one page of a list.
const PAGE_DEADLINE: Duration = Duration::from_secs(20);
/// The shortest time between the beginnings of two watches.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// The pauses after failures.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// After so many failures in a row everything is listed again: the error of a server that does not know a version
/// any more has many forms.
const FAILURES_BEFORE_LIST: u32 = 5;
/// A failure that comes this long after the last one is a first failure. Longer than any pause and deadline.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct HealthState {
    answered: Instant,
    /// What went wrong last, and since when nothing has gone well.
    failure: Option<(String, Instant)>,
}

/// Whether one watch works.
#[derive(Debug)]
pub(crate) struct WatchHealth {
    name: String,
    state: Mutex<HealthState>,
    listed: SetOnce<()>,
}

impl WatchHealth {
    /// Of a watch that begins now.
    pub(crate) fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            state: Mutex::new(HealthState {
                answered: Instant::now(),
                failure: None,
            }),
            listed: SetOnce::new(),
        })
    }

    /// Of a watch that got no answer for so long.
    #[cfg(test)]
    pub(crate) fn silent_for(name: &str, time: Duration) -> Arc<Self> {
        let health = Self::new(name);
        if let Some(then) = Instant::now().checked_sub(time) {
            health.state.lock().answered = then;
        }
        health
    }

    /// What is watched.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Time since the last answer.
    pub(crate) fn age(&self) -> Duration {
        self.state.lock().answered.elapsed()
    }

    /// Whether the first list is complete.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.initialized()
    }

    /// What went wrong last, and for how long nothing has gone well.
    pub(crate) fn failure(&self) -> Option<(String, Duration)> {
        let state = self.state.lock();
        let (error, since) = state.failure.as_ref()?;
        Some((error.clone(), since.elapsed()))
    }

    pub(crate) fn answered(&self) {
        let mut state = self.state.lock();
        state.answered = Instant::now();
        state.failure = None;
    }

    /// Waits until the first list is complete.
    pub(crate) async fn wait_until_listed(&self) {
        self.listed.wait().await;
    }

    pub(crate) fn listed(&self) {
        // A later list changes nothing.
        let _ = self.listed.set(());
    }

    /// The watch is not stuck: asking ended, if only in an error.
    pub(crate) fn failed(&self, error: &str) {
        let mut state = self.state.lock();
        state.answered = Instant::now();
        let since = state
            .failure
            .as_ref()
            .map_or(state.answered, |(_, since)| *since);
        state.failure = Some((error.to_owned(), since));
    }
}

/// Follows until dropped. `api` makes the API from the client that it is to use.
pub(crate) async fn follow<K>(
    client: Client,
    api: impl FnOnce(Client) -> Api<K>,
    labels: Option<&str>,
    health: Arc<WatchHealth>,
    mut on: impl FnMut(Event<K>),
) where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let api = api(observed(client, Arc::clone(&health)));
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    config.label_selector = labels.map(str::to_owned);
    let start = || watcher(api.clone(), config.clone()).boxed();
    let mut events = start();
    let (mut failures, mut failed_at) = (0, Instant::now());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that begins has not succeeded yet: without the permission to list, the pauses would stay short.
                if !matches!(event, Event::Init) {
                    failures = 0;
                }
                let is_list = matches!(event, Event::InitDone);
                on(event);
                // Only now: those that wait for the list act on what it brought.
                if is_list {
                    health.listed();
                }
            }
            Err(error) => {
                let first = failures == 0 || failed_at.elapsed() > FORGIVEN_AFTER;
                failures = if first { 1 } else { failures + 1 };
                failed_at = Instant::now();
                if is_expired(&error) {
                    debug!(
                        watch = health.name(),
                        "The watch is too old; listing again."
                    );
                } else {
                    let error = message(&error);
                    warn!(
                        watch = health.name(),
                        error, "Watching failed; trying again."
                    );
                    health.failed(&error);
                }
                if failures % FAILURES_BEFORE_LIST == 0 {
                    events = start();
                }
                sleep(PAUSES.equal_jitter(failures)).await;
            }
        }
    }
}

/// 410: the server has no changes from that version on any more.
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 410,
        _ => false,
    }
}

/// What went wrong, without what the watcher was doing: that changes from one try to the next.
fn message(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => api_message(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// A client whose answers are signs of life of one watch. Waits for no answer without end, and begins no watch at once
/// after the last one.
fn observed(client: Client, health: Arc<WatchHealth>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let begun = Arc::new(tokio::sync::Mutex::new(None));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, health, begun) = (client.clone(), Arc::clone(&health), Arc::clone(&begun));
        async move {
            let answer = if is_watch(&request) {
                begin_watch(&client, request, &begun).await?
            } else {
                timeout(PAGE_DEADLINE, whole(&client, request))
                    .await
                    .map_err(|_| no_answer(PAGE_DEADLINE))??
            };
            if answer.status().is_success() {
                health.answered();
            }
            Ok::<_, BoxError>(answer)
        }
    });
    Client::new(service, namespace)
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|part| part.starts_with("watch="))
}

async fn begin_watch(
    client: &Client,
    request: Request<Body>,
    begun: &tokio::sync::Mutex<Option<Instant>>,
) -> Result<Response<Body>, BoxError> {
    let mut begun = begun.lock().await;
    if let Some(last) = *begun
        && let Some(left) = SHORTEST_WATCH.checked_sub(Instant::now() - last)
    {
        sleep(left).await;
    }
    *begun = Some(Instant::now());
    let answer = timeout(BEGIN_DEADLINE, client.send(request)).await;
    Ok(answer.map_err(|_| no_answer(BEGIN_DEADLINE))??)
}

/// An answer with all of its body.
async fn whole(client: &Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = client.send(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn no_answer(after: Duration) -> BoxError {
    format!("no answer within {} s", after.as_secs()).into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_forbidden_is_tried_less_and_less_often() {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        let forbidden = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Relaxed);
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "networkpolicies.networking.k8s.io is forbidden",
            });
            let answer = Response::builder().status(403);
            let answer = answer.body(Body::from(status.to_string().into_bytes()));
            async { answer.map_err(BoxError::from) }
        });
        let client = Client::new(forbidden, "default");
        let health = WatchHealth::new("NetworkPolicy");
        let following = follow::<NetworkPolicy>(client, Api::all, None, Arc::clone(&health), drop);
        assert!(timeout(Duration::from_secs(600), following).await.is_err());
        // The longest pause is 15 s, and a jittered one at least half of that.
        let requests = requests.load(Relaxed);
        assert!((40..=90).contains(&requests), "{requests} in ten minutes");
        assert_eq!(
            health.failure().map(|(error, _)| error).as_deref(),
            Some("networkpolicies.networking.k8s.io is forbidden")
        );
    }
}
