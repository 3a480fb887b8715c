//! Follows one kind of objects: a list, then a watch from there on, for ever. Each watch has its own back-off, so that
//! one that fails holds up no other, and ends by itself within half a minute, so that a healthy one always has a fresh
//! sign of life: that is what `/livez` means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Error};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

/// How long the server keeps one watch open.
const WATCH_SECONDS: u32 = 25;
/// What may pass beyond that before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(8);
/// Objects per page of a list.
const PAGE: u32 = 500;
/// How long a page may take.
const PAGE_DEADLINE: Duration = Duration::from_secs(20);
/// A watch that ends sooner than this is not asked for again at once: some server or proxy in between lets none live.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What happened to the objects.
pub enum Change {
    /// These are all there are.
    All(Vec<DynamicObject>),
    /// One is new or different.
    Put(DynamicObject),
    /// One is gone.
    Gone(DynamicObject),
}

#[derive(Debug)]
struct State {
    moved: Instant,
    /// What went wrong last, and since when nothing has gone well.
    trouble: Option<(String, Instant)>,
    listed: bool,
}

/// The sign of life of one watch.
#[derive(Debug)]
pub struct Pulse {
    name: String,
    state: Mutex<State>,
}

impl Pulse {
    /// A watch that begins now.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            state: Mutex::new(State {
                moved: Instant::now(),
                trouble: None,
                listed: false,
            }),
        })
    }

    /// A watch that has not moved for so long.
    #[cfg(test)]
    pub fn still_for(name: &str, time: Duration) -> Arc<Self> {
        let pulse = Self::new(name);
        if let Some(then) = Instant::now().checked_sub(time) {
            pulse.state().moved = then;
        }
        pulse
    }

    /// What is watched.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Since when nothing has moved.
    pub fn age(&self) -> Duration {
        self.state().moved.elapsed()
    }

    /// Whether the first list is complete.
    pub fn is_listed(&self) -> bool {
        self.state().listed
    }

    /// What went wrong last, and for how long nothing has gone well.
    pub fn trouble(&self) -> Option<(String, Duration)> {
        let state = self.state();
        let (why, since) = state.trouble.as_ref()?;
        Some((why.clone(), since.elapsed()))
    }

    pub(crate) fn moved(&self, listed: bool) {
        let mut state = self.state();
        *state = State {
            moved: Instant::now(),
            trouble: None,
            listed: state.listed || listed,
        };
    }

    /// Asking was answered, if only by a refusal: the watch is not stuck, the server is in trouble.
    pub(crate) fn failed(&self, why: &str) {
        let mut state = self.state();
        state.moved = Instant::now();
        let since = state
            .trouble
            .as_ref()
            .map_or(state.moved, |(_, since)| *since);
        state.trouble = Some((why.to_owned(), since));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows until dropped.
pub async fn follow(
    api: Api<DynamicObject>,
    labels: Option<String>,
    pulse: Arc<Pulse>,
    mut on: impl FnMut(Change),
) {
    let mut pause = Duration::from_millis(500);
    loop {
        let outcome = match list(&api, labels.as_deref()).await {
            Ok((all, version)) => {
                // First taken in, then called listed: whoever waits for the list acts on what it brought.
                on(Change::All(all));
                pulse.moved(true);
                pause = Duration::from_millis(500);
                watch(&api, labels.as_deref(), version, &pulse, &mut on).await
            }
            Err(error) => error,
        };
        match outcome {
            Stop::Expired => debug!(watch = pulse.name(), "The watch is too old; listing again."),
            Stop::Failed(why) => {
                warn!(watch = pulse.name(), error = %why, "Watching failed; trying again.");
                pulse.failed(&why);
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why a list is needed again.
enum Stop {
    Expired,
    Failed(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(status) if status.code == 410 => Stop::Expired,
            _ => Stop::Failed(error.to_string()),
        }
    }
}

async fn list(
    api: &Api<DynamicObject>,
    labels: Option<&str>,
) -> Result<(Vec<DynamicObject>, String), Stop> {
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = labels.map(str::to_owned);
    let mut all = Vec::new();
    loop {
        let page = timeout(PAGE_DEADLINE, api.list(&params)).await;
        let page = page.map_err(|_| Stop::Failed("the list did not come in time".into()))??;
        all.extend(page.items);
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok((all, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// One watch after another from `version` on, for as long as the server knows it.
async fn watch(
    api: &Api<DynamicObject>,
    labels: Option<&str>,
    mut version: String,
    pulse: &Pulse,
    on: &mut impl FnMut(Change),
) -> Stop {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.label_selector = labels.map(str::to_owned);
    let mut pause = Duration::from_millis(500);
    let mut failures = 0;
    loop {
        let began = Instant::now();
        match watch_once(api, &params, &mut version, pulse, on).await {
            Ok(()) => {
                failures = 0;
                pause = Duration::from_millis(500);
                if began.elapsed() < SHORTEST {
                    sleep(jittered(SHORTEST)).await;
                }
            }
            Err(Stop::Expired) => return Stop::Expired,
            Err(Stop::Failed(why)) => {
                failures += 1;
                // A server that does not take the version any more may say so in many ways: list again now and then.
                if failures >= 5 {
                    return Stop::Failed(why);
                }
                warn!(watch = pulse.name(), error = %why, "The watch broke; going on from where it was.");
                pulse.failed(&why);
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn watch_once(
    api: &Api<DynamicObject>,
    params: &WatchParams,
    version: &mut String,
    pulse: &Pulse,
    on: &mut impl FnMut(Change),
) -> Result<(), Stop> {
    let limit = Duration::from_secs(WATCH_SECONDS.into()) + GRACE;
    let silent = || Stop::Failed(format!("nothing came within {} s", limit.as_secs()));
    let stream = timeout(GRACE, api.watch(params, version))
        .await
        .map_err(|_| silent())??;
    pulse.moved(false);
    futures::pin_mut!(stream);
    while let Some(event) = timeout(limit, stream.next()).await.map_err(|_| silent())? {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                advance(version, object.metadata.resource_version.as_deref());
                on(Change::Put(object));
            }
            WatchEvent::Deleted(object) => {
                advance(version, object.metadata.resource_version.as_deref());
                on(Change::Gone(object));
            }
            WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
            WatchEvent::Error(status) if status.code == 410 => return Err(Stop::Expired),
            WatchEvent::Error(status) => return Err(Stop::Failed(status.message.clone())),
        }
        pulse.moved(false);
    }
    Ok(())
}

fn advance(version: &mut String, to: Option<&str>) {
    if let Some(to) = to {
        to.clone_into(version);
    }
}

/// Between half and all of it, so that many watches do not come back at once.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0_u8) % 512;
    pause.mul_f64(0.5 + f64::from(u16::try_from(random).unwrap_or(0)) / 1024.0)
}
