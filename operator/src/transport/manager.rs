//! All calls to AWS, outside the reconcile path: one task per pipeline makes its transport, reads the depths again and
//! again, and checks all of it every few minutes. Reconciling only reads the latest result. Concurrent calls are bounded
//! for each endpoint and namespace, each has a deadline, and a call that hangs delays neither another endpoint's nor another
//! namespace's.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use parking_lot::Mutex;
use streampress_crds::Reason;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_transport::aws::AwsCredentials;
use streampress_transport::{Backoff, COUNTED_LATE, EmptyQueues};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::problem::{Problem, Retry};
use super::turns::{Operation, Turns};
use super::{
    Contents, Depths, Provisioner, ReadyTransport, TransportPlan, TransportState, credentials,
};

/// The pauses after failures.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// After so many reads in a row that gave nothing of a queue, the whole transport is looked up again.
const UNREADABLE: u32 = 3;
/// After so many reads in a row without a change, depths are read less often.
const QUIET: u32 = 30;

/// Between two checks of queues that are to be deleted when they are empty.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How the manager works.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// Time between two reads of the depths while they change.
    pub busy_interval: Duration,
    /// The same while nothing has changed for a while.
    pub quiet_interval: Duration,
    /// Time between two checks of all parts, in case one was deleted or changed.
    pub verify_interval: Duration,
    /// How long making or reading may take.
    pub call_deadline: Duration,
    /// How long deleting is tried while AWS does not do it, before what is left is named and the pipeline's deletion ends.
    pub removal_deadline: Duration,
    /// For how long queues must have been seen empty before `WhenEmpty` deletes them: SQS counts up to a minute late.
    pub empty_for: Duration,
    /// Pipelines of one namespace and endpoint that are maintained at once, and as many that are removed.
    pub concurrency: usize,
    /// Endpoints that the operator's own identity may be used with, besides AWS's own.
    pub own_identity_endpoints: Vec<String>,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self {
            busy_interval: Duration::from_secs(2),
            quiet_interval: Duration::from_secs(10),
            verify_interval: Duration::from_secs(300),
            call_deadline: Duration::from_secs(30),
            removal_deadline: Duration::from_secs(600),
            empty_for: COUNTED_LATE,
            concurrency: 16,
            own_identity_endpoints: Vec::new(),
        }
    }
}

/// Called with namespace and name of a pipeline whose transport has changed.
pub(crate) type Notify = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What is known of one pipeline's transport.
#[derive(Clone, Debug, Default)]
pub(crate) struct TransportSnapshot {
    /// The queues and the stream.
    pub(crate) state: TransportState,
    /// How many messages the queues have.
    pub(crate) depths: Depths,
    /// AWS has answered to the present plan: what is not known now cannot be read.
    pub(crate) is_answered: bool,
}

/// How far a removal has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Not done yet; what AWS answered last, where it was no help.
    InProgress(Option<String>),
    /// Done; what was left behind, a sentence each.
    Done(Vec<String>),
}

/// Maintains the pipelines' transports.
pub(crate) struct TransportManager {
    inner: Arc<ManagerInner>,
}

struct ManagerInner {
    provisioner: Arc<dyn Provisioner>,
    client: Client,
    turns: Turns,
    options: ManagerOptions,
    notify: Notify,
    /// By the pipeline's UID.
    entries: Mutex<HashMap<String, Entry>>,
    /// The keys that were used last, by the pipeline's UID: a Secret may be deleted before the pipeline that names it.
    last_keys: Mutex<HashMap<String, AwsCredentials>>,
}

/// State kept for one pipeline's queues and stream.
struct Entry {
    plan: Arc<TransportPlan>,
    snapshot: TransportSnapshot,
    removal: Option<Removal>,
    _task: AbortOnDropHandle<()>,
}

impl TransportManager {
    /// Without pipelines yet.
    pub(crate) fn new(
        provisioner: Arc<dyn Provisioner>,
        client: Client,
        options: ManagerOptions,
        notify: Notify,
    ) -> Self {
        Self {
            inner: Arc::new(ManagerInner {
                provisioner,
                client,
                turns: Turns::new(options.concurrency),
                options,
                notify,
                entries: Mutex::default(),
                last_keys: Mutex::default(),
            }),
        }
    }

    /// What is known of the transport. Maintaining it begins, or begins anew when the plan is another.
    pub(crate) fn maintain(&self, plan: &TransportPlan) -> TransportSnapshot {
        let mut entries = self.inner.entries.lock();
        match entries.get(&plan.uid) {
            Some(entry) if *entry.plan == *plan && entry.removal.is_none() => {
                entry.snapshot.clone()
            }
            before => {
                // What was known of the same queues and stream stays true until they are looked up again.
                let snapshot = before
                    .filter(|entry| entry.plan.names() == plan.names())
                    .map(|entry| TransportSnapshot {
                        is_answered: entry.snapshot.is_answered && entry.plan.parts == plan.parts,
                        ..entry.snapshot.clone()
                    })
                    .unwrap_or_default();
                let plan = Arc::new(plan.clone());
                let task = tokio::spawn(maintain(Arc::clone(&self.inner), Arc::clone(&plan)));
                let entry = Entry {
                    plan: Arc::clone(&plan),
                    snapshot: snapshot.clone(),
                    removal: None,
                    _task: AbortOnDropHandle::new(task),
                };
                entries.insert(plan.uid.clone(), entry);
                snapshot
            }
        }
    }

    /// Ends maintaining the transport of the pipeline of this UID, and forgets what is known of it.
    pub(crate) fn stop(&self, uid: &str) {
        let mut entries = self.inner.entries.lock();
        if entries
            .get(uid)
            .is_some_and(|entry| entry.removal.is_none())
        {
            entries.remove(uid);
        }
    }

    /// Begins to delete the transport, or reports how far that has come.
    pub(crate) fn remove(&self, plan: &TransportPlan, policy: DeletionPolicy) -> Removal {
        let mut entries = self.inner.entries.lock();
        if let Some(removal) = entries
            .get(&plan.uid)
            .and_then(|entry| entry.removal.clone())
        {
            return removal;
        }
        let plan = Arc::new(plan.clone());
        let task = tokio::spawn(remove(Arc::clone(&self.inner), Arc::clone(&plan), policy));
        let snapshot = entries
            .remove(&plan.uid)
            .map(|entry| entry.snapshot)
            .unwrap_or_default();
        let entry = Entry {
            plan: Arc::clone(&plan),
            snapshot,
            removal: Some(Removal::InProgress(None)),
            _task: AbortOnDropHandle::new(task),
        };
        entries.insert(plan.uid.clone(), entry);
        Removal::InProgress(None)
    }

    /// Forgets all pipelines but these UIDs.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.inner.entries.lock().retain(|uid, _| exists(uid));
        self.inner.last_keys.lock().retain(|uid, _| exists(uid));
    }
}

/// An operator that has ended maintains nothing: the next leader may be deleting it.
impl Drop for TransportManager {
    fn drop(&mut self) {
        self.inner.entries.lock().clear();
    }
}

impl ManagerInner {
    /// Changes what is known; notifies when that made a difference, and returns whether it did.
    fn update(&self, plan: &TransportPlan, change: impl FnOnce(&mut Entry)) -> bool {
        let known = |entry: &Entry| {
            let snapshot = &entry.snapshot;
            (
                snapshot.state.clone(),
                snapshot.depths,
                snapshot.is_answered,
                entry.removal.clone(),
            )
        };
        let changed = self.entries.lock().get_mut(&plan.uid).is_some_and(|entry| {
            let before = known(entry);
            change(entry);
            before != known(entry)
        });
        if changed {
            (self.notify)(&plan.namespace, &plan.name);
        }
        changed
    }

    async fn credentials(&self, plan: &TransportPlan) -> Result<Option<AwsCredentials>, Problem> {
        let own = &self.options.own_identity_endpoints;
        let found = credentials::find(&self.client, plan, own).await?;
        let mut last_keys = self.last_keys.lock();
        match &found {
            Some(keys) => last_keys.insert(plan.uid.clone(), keys.clone()),
            None => last_keys.remove(&plan.uid),
        };
        Ok(found)
    }

    /// The same for a removal, which may use the keys of a Secret that is gone.
    async fn credentials_for_removal(
        &self,
        plan: &TransportPlan,
    ) -> Result<Option<AwsCredentials>, Problem> {
        let found = self.credentials(plan).await;
        found.or_else(|problem| {
            let last = self.last_keys.lock().get(&plan.uid).cloned();
            last.map(Some).ok_or(problem)
        })
    }

    async fn provide(
        &self,
        plan: &TransportPlan,
    ) -> Result<(Option<AwsCredentials>, ReadyTransport), Problem> {
        let call = async {
            let credentials = self.credentials(plan).await?;
            let ready = self.provisioner.provide(plan, credentials.as_ref()).await?;
            Ok((credentials, ready))
        };
        self.call(plan, call).await
    }

    async fn depths(&self, plan: &TransportPlan, credentials: Option<&AwsCredentials>) -> Depths {
        let call = async { Ok(self.provisioner.depths(plan, credentials).await) };
        self.call(plan, call).await.unwrap_or_default()
    }

    /// Awaits a call until its deadline. One that panics has failed like any other: its pipeline is tried again, and can be
    /// deleted.
    async fn call<T>(
        &self,
        plan: &TransportPlan,
        call: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let deadline = self.options.call_deadline;
        match timeout(deadline, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(panicked()),
            Err(_) => Err(no_answer(plan, deadline)),
        }
    }
}

impl ManagerInner {
    fn not_removed_yet(&self, plan: &TransportPlan, problem: &Problem) {
        self.update(plan, |entry| {
            entry.removal = Some(Removal::InProgress(Some(problem.message.clone())));
        });
    }

    /// The turn is kept for one read only: hundreds of pipelines may be watched at once.
    async fn contents(&self, plan: &TransportPlan) -> Result<Contents, Problem> {
        let _turn = self.turns.take(plan, Operation::Remove).await;
        let call = async {
            let credentials = self.credentials_for_removal(plan).await?;
            self.provisioner.contents(plan, credentials.as_ref()).await
        };
        self.call(plan, call).await
    }
}

fn no_answer(plan: &TransportPlan, after: Duration) -> Problem {
    let endpoint = plan
        .endpoint
        .clone()
        .unwrap_or_else(|| format!("AWS in {}", plan.region));
    Problem {
        reason: Reason::EndpointUnreachable,
        message: format!(
            "{endpoint} did not answer within {} s; trying again. See spec.aws.endpointURL and region.",
            after.as_secs()
        ),
        retry: Retry::Transient,
    }
}

fn panicked() -> Problem {
    Problem {
        reason: Reason::TransportFailed,
        message: "The operator panicked in a call to AWS, which is a fault of its own: its log says where. Trying again."
            .to_owned(),
        retry: Retry::Transient,
    }
}

fn unreadable() -> Problem {
    Problem {
        reason: Reason::DepthUnknown,
        message: format!(
            "The queues could not be read {UNREADABLE} times in a row; looking them up again. Is sqs:GetQueueAttributes allowed?"
        ),
        retry: Retry::AfterCorrection,
    }
}

/// Makes the transport, with longer and longer pauses while that fails, and reads its depths for as long as the pipeline
/// exists.
async fn maintain(inner: Arc<ManagerInner>, plan: Arc<TransportPlan>) {
    let (mut failures, mut quiet) = (0, 0);
    let mut readable = true;
    loop {
        let provided = {
            let Some(_turn) = inner.turns.take(&plan, Operation::Maintain).await else {
                return;
            };
            // On the heap: the task lives as long as its pipeline, and is as large as all that it ever awaits.
            Box::pin(inner.provide(&plan)).await
        };
        match provided {
            Ok((credentials, ready)) => {
                let state = TransportState::Ready(ready);
                // Queues that exist and cannot be read are no better than before.
                if readable && inner.update(&plan, |entry| entry.snapshot.state = state.clone()) {
                    info!(pipeline = %plan.pipeline(), "Queues and stream are ready.");
                }
                readable =
                    read_depths(&inner, &plan, credentials.as_ref(), state, &mut quiet).await;
                if readable {
                    failures = 0;
                    continue;
                }
                inner.update(&plan, |entry| {
                    entry.snapshot.state = TransportState::Failed(unreadable());
                    entry.snapshot.is_answered = true;
                });
            }
            Err(problem) if problem.retry == Retry::InProgress => {
                debug!(pipeline = %plan.pipeline(), "{}", problem.message);
                inner.update(&plan, |entry| {
                    entry.snapshot.is_answered = true;
                    // What can be used stays so while it is changed.
                    if !matches!(entry.snapshot.state, TransportState::Ready(_)) {
                        entry.snapshot.state = TransportState::Failed(problem);
                    }
                });
            }
            Err(problem) => {
                warn!(pipeline = %plan.pipeline(), reason = %problem.reason, "{}", problem.message);
                inner.update(&plan, |entry| {
                    entry.snapshot.state = TransportState::Failed(problem);
                    entry.snapshot.depths = Depths::default();
                    entry.snapshot.is_answered = true;
                });
            }
        }
        failures += 1;
        sleep(PAUSES.delay(failures)).await;
    }
}

/// Reads the depths until all parts are to be checked again. False when a queue could not be read several times in a row:
/// endpoint, queues or credentials have changed. `quiet` counts the reads in a row that changed nothing.
async fn read_depths(
    inner: &ManagerInner,
    plan: &TransportPlan,
    credentials: Option<&AwsCredentials>,
    state: TransportState,
    quiet: &mut u32,
) -> bool {
    let began = Instant::now();
    let mut unreadable = 0;
    while began.elapsed() < inner.options.verify_interval {
        let depths = {
            let Some(_turn) = inner.turns.take(plan, Operation::Maintain).await else {
                return true;
            };
            inner.depths(plan, credentials).await
        };
        let is_known =
            depths.files.is_some() && depths.chunks.is_some() && depths.receipts.is_some();
        let changed = inner.update(plan, |entry| {
            entry.snapshot.depths = depths;
            entry.snapshot.is_answered = true;
            if is_known {
                entry.snapshot.state = state.clone();
            }
        });
        unreadable = if is_known { 0 } else { unreadable + 1 };
        if unreadable >= UNREADABLE {
            return false;
        }
        *quiet = if changed { 0 } else { quiet.saturating_add(1) };
        let interval = if plan.eager || *quiet < QUIET {
            inner.options.busy_interval
        } else {
            inner.options.quiet_interval
        };
        sleep(interval).await;
    }
    true
}

/// Deletes the transport, once.
async fn remove(inner: Arc<ManagerInner>, plan: Arc<TransportPlan>, policy: DeletionPolicy) {
    let watched = match (plan.policy, policy) {
        (TransportPolicy::Create, DeletionPolicy::WhenEmpty) => stay_empty(&inner, &plan).await,
        _ => Ok(None),
    };
    let left = match watched {
        Ok(Some(left)) => left,
        Ok(None) => remove_now(&inner, &plan, policy).await,
        Err(problem) => left_behind(&plan, &problem),
    };
    inner.update(&plan, |entry| entry.removal = Some(Removal::Done(left)));
}

/// Watches queues that may be deleted only when they are empty. What is left, as soon as one is not; `None` once all were
/// seen empty again and again for long enough, or do not exist.
async fn stay_empty(
    inner: &ManagerInner,
    plan: &TransportPlan,
) -> Result<Option<Vec<String>>, Problem> {
    let mut queues = EmptyQueues::default();
    let mut answered_at = Instant::now();
    loop {
        match inner.contents(plan).await {
            Ok(Contents::Absent) => return Ok(None),
            Ok(Contents::Filled(left)) => return Ok(Some(left)),
            Ok(Contents::Empty) => {
                answered_at = Instant::now();
                if queues.observe(true, answered_at) >= Some(inner.options.empty_for) {
                    return Ok(None);
                }
            }
            Err(problem) => {
                // What came in meanwhile was not seen.
                queues = EmptyQueues::default();
                let patience = inner.options.removal_deadline;
                if !problem.retry.helps() || answered_at.elapsed() >= patience {
                    return Err(problem);
                }
                inner.not_removed_yet(plan, &problem);
            }
        }
        sleep(CHECK_INTERVAL.min(inner.options.empty_for)).await;
    }
}

fn left_behind(plan: &TransportPlan, problem: &Problem) -> Vec<String> {
    let names: Vec<_> = plan.parts.queue_names().collect();
    vec![format!(
        "{} and {} may be left behind: {}",
        names.join(", "),
        plan.parts.stream.name,
        problem.message
    )]
}

/// What AWS cannot do at the moment is tried again until the deadline.
async fn remove_now(
    inner: &ManagerInner,
    plan: &TransportPlan,
    policy: DeletionPolicy,
) -> Vec<String> {
    let (mut began, mut failures) = (None, 0);
    loop {
        let attempt = {
            // Not while it waits for the next: hundreds may be deleted at once.
            let _turn = inner.turns.take(plan, Operation::Remove).await;
            began.get_or_insert_with(Instant::now);
            let call = async {
                let credentials = inner.credentials_for_removal(plan).await?;
                let provisioner = &inner.provisioner;
                provisioner.remove(plan, policy, credentials.as_ref()).await
            };
            inner.call(plan, call).await
        };
        match attempt {
            Ok(left) => return left,
            Err(problem) => {
                let is_late =
                    began.is_some_and(|began| began.elapsed() >= inner.options.removal_deadline);
                if is_late || !problem.retry.helps() {
                    return left_behind(plan, &problem);
                }
                inner.not_removed_yet(plan, &problem);
            }
        }
        failures += 1;
        sleep(PAUSES.delay(failures)).await;
    }
}

#[cfg(test)]
mod tests;
