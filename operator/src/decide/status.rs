//! What the operator reports of a pipeline: phase, message, conditions and figures, all from one observation, so that they
//! never contradict each other. Pure; the same observation of the same former status gives the same status.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use streampress_crds::api::status::{
    BacklogStatus, CompressionPipelineStatus, Phase, ProgressStatus, RoleStatus, RolesStatus,
    SlotStatus,
};
use streampress_crds::slot_health::{NeededService, OutageKind};
use streampress_crds::{Reason, Role};

use crate::decide::drain::Drain;
use crate::decide::retention::RetentionReport;
use crate::resources::PROGRESS_SECONDS;
use crate::transport::problem::{Problem, Retry};
use crate::transport::{Depths, TransportState};

/// The type of the condition that says whether queues and stream can be used.
const TRANSPORT_READY: &str = "TransportReady";
/// The type of the condition that says whether what waits may outlast the stream's retention.
pub(crate) const RETENTION_AT_RISK: &str = "RetentionAtRisk";
/// Added to `status.message` while that is so.
const RECORDS_MAY_EXPIRE: &str = "Records may expire, see condition RetentionAtRisk.";
/// The most characters that the schema takes in `status.message`.
const MESSAGE_CHARS: usize = 1024;
/// The most characters in a condition's message, well below what the API server takes.
const CONDITION_CHARS: usize = 4096;

/// A pipeline that worked may be without a ready pod of a role for so long before it counts as not working: pods that are
/// made from zero, or again, need about this time.
pub(crate) const SCALING_TIME: Duration = Duration::from_secs(120);

/// For so long a Deployment may be without all of its pods, as when it makes its first ones.
const LONGEST_START: SignedDuration = SignedDuration::from_secs(PROGRESS_SECONDS as i64);

/// What is known of a pipeline at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct PipelineObservation {
    /// The generation of the spec that was read.
    pub(crate) generation: Option<i64>,
    /// The pipeline is being deleted; what is still being done, in a sentence.
    pub(crate) deleting: Option<String>,
    /// What is wrong with the spec, a sentence each.
    pub(crate) invalid: Vec<String>,
    /// Why the spec could not be carried out.
    pub(crate) not_applied: Option<Problem>,
    /// The queues and the stream.
    pub(crate) transport: TransportState,
    /// AWS has not answered yet, so that less is known than may have been.
    pub(crate) is_looking_up: bool,
    /// How many messages the queues have.
    pub(crate) depths: Depths,
    /// The workers.
    pub(crate) roles: Vec<RoleState>,
    /// What has been done.
    pub(crate) progress: ProgressStatus,
    /// Files that were packed, by the ledgers, and neither restored nor put into the dead-letter queue.
    pub(crate) unaccounted: u64,
    /// Files the generator shall make in all; `None` when it is endless or there is no generator.
    pub(crate) files_wanted: Option<i64>,
    /// How far suspending has come.
    pub(crate) drain: Option<Drain>,
    /// The services that workers reported to be down; `None` where that was not read.
    pub(crate) outages: Option<Vec<RoleOutage>>,
    /// Files and folders of the source that the scan could not take.
    pub(crate) left_out: u64,
    /// The stream's retention; `None` where it was not read.
    pub(crate) retention: Option<RetentionReport>,
}

/// A service is down that a role's workers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleOutage {
    /// The role.
    pub(crate) role: Role,
    /// The service.
    pub(crate) service: NeededService,
    /// Why it cannot be used.
    pub(crate) kind: OutageKind,
    /// What it answered.
    pub(crate) cause: String,
}

impl RoleOutage {
    fn message(&self) -> String {
        let (role, service) = (self.role, self.service.label());
        let cause = self.cause.trim_end_matches('.');
        format!("The {role} cannot use the {service}: {cause}.")
    }

    /// The message of its condition.
    fn details(&self) -> String {
        let message = self.message();
        let until = match self.kind {
            OutageKind::Down => "until it answers again",
            OutageKind::OwnedByAnother => "until that is changed",
        };
        match self.role {
            Role::Generator => format!(
                "{message} It makes and announces no files {until}, and then continues by itself."
            ),
            Role::Compressor | Role::Decompressor => format!(
                "{message} Workers receive nothing {until}, and then continue by themselves; no file is lost."
            ),
        }
    }

    fn reason(&self) -> Reason {
        match (self.kind, self.service) {
            (OutageKind::Down, _) => Reason::ServiceDown,
            (OutageKind::OwnedByAnother, NeededService::Source) => Reason::SourceNotOurs,
            (OutageKind::OwnedByAnother, _) => Reason::DestinationNotOurs,
        }
    }
}

/// The workers of one role.
#[derive(Clone, Debug)]
pub(crate) struct RoleState {
    /// The role.
    pub(crate) role: Role,
    /// Pods that the Deployment should have.
    pub(crate) desired: i32,
    /// Pods that exist, ready or not.
    pub(crate) pods: i32,
    /// Of these, pods of the latest spec.
    pub(crate) updated: i32,
    /// Pods ready, of whatever spec.
    pub(crate) ready: i32,
    /// The Deployment has dealt with its latest spec, and all pods run it.
    pub(crate) rolled_out: bool,
    /// Why pods do not come up, in the cluster's words.
    pub(crate) stuck: Option<String>,
    /// Why the kubelet does not start a pod, in its words.
    pub(crate) pod_problem: Option<String>,
    /// Why no node takes a pod, in the scheduler's words.
    pub(crate) unscheduled: Option<String>,
    /// Since when pods have been missing that stay up.
    pub(crate) unavailable_since: Option<Timestamp>,
    /// Image of the pods.
    pub(crate) image: Option<String>,
    /// Namespace of the pods.
    pub(crate) namespace: String,
    /// Selector of the pods.
    pub(crate) selector: String,
    /// Slots, and what holds them.
    pub(crate) slots: Vec<SlotStatus>,
}

impl RoleState {
    /// Pods are missing, or do not run the latest spec.
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.rolled_out || self.ready < self.desired
    }

    /// What is waited for while it is incomplete.
    fn awaited(&self) -> String {
        let Self {
            desired,
            pods,
            updated,
            ready,
            ..
        } = *self;
        let have = |number: i32| if number == 1 { "has" } else { "have" };
        if ready < desired {
            format!("{ready} of {desired} pods are ready")
        } else if updated < desired {
            let have = have(updated);
            format!("rolling out: {updated} of {desired} pods {have} the new spec")
        } else if pods > updated {
            let (left, have) = (pods - updated, have(pods - updated));
            format!("rolling out: {left} of {pods} pods still {have} the former spec")
        } else {
            "its Deployment is being changed".to_owned()
        }
    }

    /// The same, or pods do not stay up: time alone may change what that means.
    pub(crate) fn is_unsteady(&self) -> bool {
        self.is_incomplete() || self.unavailable_since.is_some()
    }

    /// Why its pods do not start, or end again and again.
    fn not_starting(&self, now: &Time) -> Option<String> {
        let crashing = || {
            let since = self.unavailable_since.filter(|_| self.desired > 0)?;
            let is_late = now.0.duration_since(since) > LONGEST_START;
            is_late.then(|| format!("since {since} too few of its pods have been available"))
        };
        let why = self.stuck.clone().or_else(crashing)?;
        // The Deployment says only that it took too long.
        Some(self.pod_problem().cloned().unwrap_or(why))
    }

    /// Why a pod does not start.
    fn pod_problem(&self) -> Option<&String> {
        self.pod_problem.as_ref().or(self.unscheduled.as_ref())
    }

    /// The arguments of kubectl that select its pods.
    fn kubectl_selector(&self) -> String {
        format!("-n {} -l {}", self.namespace, self.selector)
    }

    /// Pods that only stand by, since there is no slot for them.
    fn standby(&self) -> usize {
        let desired = usize::try_from(self.desired).unwrap_or(0);
        desired.saturating_sub(self.slots.len())
    }
}

/// The most important thing about a pipeline.
struct StatusSummary {
    phase: Phase,
    reason: Reason,
    /// One sentence that fits a line of `kubectl get`.
    message: String,
    /// What to do about it, for the conditions; empty where the message says all.
    advice: String,
    readiness: Readiness,
    /// What is still being done to a pipeline that works, for the condition Reconciling.
    scaling: Option<String>,
}

/// What the conditions Ready, Reconciling and Stalled say together.
#[derive(Clone, Copy, PartialEq)]
enum Readiness {
    /// The pipeline does what the spec says.
    Ready,
    /// The operator or the cluster is at work on it.
    Reconciling,
    /// A user must change the spec or another object.
    Stalled,
}

impl StatusSummary {
    fn new(phase: Phase, reason: Reason, message: impl Into<String>, readiness: Readiness) -> Self {
        Self {
            phase,
            reason,
            message: message.into(),
            advice: String::new(),
            readiness,
            scaling: None,
        }
    }

    fn with_advice(self, advice: String) -> Self {
        Self { advice, ..self }
    }

    /// Also names the pod of a role that does not start, where there is one.
    fn with_problem(mut self, role: &RoleState) -> Self {
        if let Some(why) = role.pod_problem() {
            let problem = format!(" A pod of the {} does not start: {why}.", role.role);
            self.message.push_str(&problem);
        }
        self
    }

    /// Message and advice.
    fn details(&self) -> String {
        [self.message.as_str(), &self.advice]
            .join(" ")
            .trim_end()
            .to_owned()
    }
}

/// Whether the former status is left as it is: it knew the queues and the stream, and they are only being looked up again, after
/// an operator has started or the spec has changed.
pub(crate) fn stands(seen: &PipelineObservation, former: &CompressionPipelineStatus) -> bool {
    let was_known = written(former, TRANSPORT_READY).is_some_and(|it| it.status != "Unknown");
    // What such a status says is over.
    let over = [Reason::InvalidSpec, Reason::NotApplied, Reason::Refused].map(Reason::as_str);
    let is_over = written(former, "Ready").is_none_or(|it| over.contains(&&*it.reason));
    seen.is_looking_up
        && seen.deleting.is_none()
        && seen.invalid.is_empty()
        && seen.not_applied.is_none()
        && was_known
        && !is_over
}

/// The status that an observation makes of the former one.
pub(crate) fn status(
    seen: &PipelineObservation,
    former: &CompressionPipelineStatus,
    now: Time,
) -> CompressionPipelineStatus {
    let summary = summary(seen, former, &now);
    let conditions = conditions(seen, &summary, former, now);
    let message = match &seen.retention {
        Some(retention) if retention.status.at_risk => {
            &format!("{} {RECORDS_MAY_EXPIRE}", summary.message)
        }
        _ => &summary.message,
    };
    let retention = seen.retention.as_ref();
    CompressionPipelineStatus {
        observed_generation: seen.generation,
        phase: Some(summary.phase),
        message: Some(clip(message, MESSAGE_CHARS)),
        conditions,
        roles: unless_empty(roles(seen)),
        progress: Some(seen.progress.clone()),
        backlog: unless_empty(BacklogStatus {
            waiting_since: match retention {
                Some(retention) => retention.waiting_since.map(|since| since.to_string()),
                None => former
                    .backlog
                    .as_ref()
                    .and_then(|backlog| backlog.waiting_since.clone()),
            },
            ..backlog(seen)
        }),
        retention: match retention {
            Some(retention) => Some(retention.status.clone()),
            None => former.retention.clone(),
        },
        transport: match &seen.transport {
            TransportState::Ready(ready) => unless_empty(ready.status.clone()),
            // What was made still exists while it cannot be looked up.
            TransportState::Pending | TransportState::Failed(_) => former.transport.clone(),
        },
    }
}

/// An object of which nothing is known is left out: applied as `{}` it would be null once its former members are taken away,
/// and the API server refuses the whole status.
fn unless_empty<T: Default + PartialEq>(part: T) -> Option<T> {
    (part != T::default()).then_some(part)
}

fn summary(
    seen: &PipelineObservation,
    former: &CompressionPipelineStatus,
    now: &Time,
) -> StatusSummary {
    if let Some(doing) = &seen.deleting {
        return StatusSummary::new(
            Phase::Deleting,
            Reason::Deleting,
            doing,
            Readiness::Reconciling,
        );
    }
    if !seen.invalid.is_empty() {
        let message = format!(
            "{}. What ran before keeps running.",
            seen.invalid.join("; ")
        );
        return StatusSummary::new(
            Phase::Failed,
            Reason::InvalidSpec,
            message,
            Readiness::Stalled,
        );
    }
    if let Some(problem) = &seen.not_applied {
        return failed(problem);
    }
    match &seen.transport {
        TransportState::Pending => {
            return StatusSummary::new(
                Phase::Pending,
                Reason::MakingTransport,
                making_transport(former),
                Readiness::Reconciling,
            );
        }
        TransportState::Failed(problem) => return failed(problem),
        TransportState::Ready(_) => {}
    }
    if let Some(suspended) = seen.drain.and_then(|drain| suspended(drain, seen)) {
        return suspended;
    }
    if let Some(not_starting) = seen.roles.iter().find_map(|role| not_starting(role, now)) {
        return not_starting;
    }
    let incomplete = || seen.roles.iter().filter(|role| role.is_incomplete());
    let has_problem = incomplete()
        .find(|role| role.pod_problem.is_some())
        .or_else(|| incomplete().find(|role| role.unscheduled.is_some()));
    let Some(incomplete) = has_problem.or_else(|| incomplete().next()) else {
        return working(seen);
    };
    let waiting = waiting(incomplete);
    if keeps_working(seen, former, now) {
        return StatusSummary {
            scaling: Some(waiting.details()),
            ..working(seen)
        }
        .with_problem(incomplete);
    }
    match &incomplete.pod_problem {
        Some(why) if incomplete.ready == 0 => does_not_start(incomplete, why),
        _ => waiting,
    }
}

/// A pipeline that worked, and whose pods are only being made, renewed or removed, still works.
fn keeps_working(
    seen: &PipelineObservation,
    former: &CompressionPipelineStatus,
    now: &Time,
) -> bool {
    let worked = matches!(
        former.phase,
        Some(Phase::Running | Phase::Completed | Phase::Degraded)
    ) && is_true(former, "Ready").is_some();
    let without_pods = seen
        .roles
        .iter()
        .any(|role| role.desired > 0 && role.ready == 0);
    // Since when pods are missing.
    let since = is_true(former, "Reconciling").map_or(now.0, |since| since.0);
    worked && (!without_pods || now.0.duration_since(since).unsigned_abs() < SCALING_TIME)
}

/// Since when a condition holds.
fn is_true<'a>(status: &'a CompressionPipelineStatus, type_: &str) -> Option<&'a Time> {
    let condition = written(status, type_).filter(|condition| condition.status == "True");
    condition.map(|condition| &condition.last_transition_time)
}

/// The condition of a type that a status has.
fn written<'a>(status: &'a CompressionPipelineStatus, type_: &str) -> Option<&'a Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == type_)
}

fn failed(problem: &Problem) -> StatusSummary {
    let (phase, readiness) = match problem.retry {
        Retry::AfterChange => (Phase::Failed, Readiness::Stalled),
        Retry::InProgress => (Phase::Pending, Readiness::Reconciling),
        Retry::Transient | Retry::AfterCorrection => (Phase::Degraded, Readiness::Reconciling),
    };
    StatusSummary::new(phase, problem.reason, &problem.message, readiness)
}

fn making_transport(former: &CompressionPipelineStatus) -> &'static str {
    match former.transport {
        Some(_) => "Queues and stream are being looked up.",
        None => "Queues and stream are being created.",
    }
}

fn not_starting(role: &RoleState, now: &Time) -> Option<StatusSummary> {
    role.not_starting(now).map(|why| does_not_start(role, &why))
}

fn does_not_start(role: &RoleState, why: &str) -> StatusSummary {
    let message = format!("The {} does not start: {why}.", role.role);
    let summary = StatusSummary::new(
        Phase::Degraded,
        Reason::WorkersNotStarting,
        message,
        Readiness::Stalled,
    );
    summary.with_advice(format!(
        "See `kubectl describe pod {pods}` and `kubectl logs {pods}`.",
        pods = role.kubectl_selector()
    ))
}

fn waiting(role: &RoleState) -> StatusSummary {
    let problem = match role.pod_problem() {
        Some(why) => format!("; one does not start: {why}"),
        None => String::new(),
    };
    let message = format!(
        "Waiting for the {}: {}{problem}.",
        role.role,
        role.awaited(),
    );
    let summary = StatusSummary::new(
        Phase::Pending,
        Reason::WaitingForWorkers,
        message,
        Readiness::Reconciling,
    );
    summary.with_advice(format!(
        "If this persists, `kubectl describe pod {pods}` and `kubectl logs {pods}` show why.",
        pods = role.kubectl_selector()
    ))
}

/// Nothing when the pipeline is not suspended.
fn suspended(drain: Drain, seen: &PipelineObservation) -> Option<StatusSummary> {
    let (reason, message) = match drain {
        Drain::NotSuspended => return None,
        Drain::Stopping => (
            Reason::StoppingIntake,
            "Generator and compressors are finishing the files that they have begun.".to_owned(),
        ),
        Drain::Emptying(Some(0)) => (
            Reason::RestoringFiles,
            "The last files are being restored.".to_owned(),
        ),
        Drain::Emptying(Some(left)) => (
            Reason::RestoringFiles,
            format!("{left} packed files are still to be restored."),
        ),
        Drain::Emptying(None) => (
            Reason::DepthUnknown,
            "How many packed files are left is not known: the queue cannot be read, see condition TransportReady.".to_owned(),
        ),
        Drain::TakingReceipts(Some(left)) => (
            Reason::RestoringFiles,
            format!("The queue of packed files is empty; {left} receipts are still to be taken."),
        ),
        Drain::TakingReceipts(None) => (
            Reason::DepthUnknown,
            "How many receipts are left is not known: the queue cannot be read, see condition TransportReady.".to_owned(),
        ),
        Drain::Settling(_) if seen.unaccounted > 0 => (
            Reason::Settling,
            format!("The queues of packed files and receipts are empty, but {} packed files are not counted as restored; waiting up to three minutes for them.", seen.unaccounted),
        ),
        Drain::Settling(_) => (
            Reason::Settling,
            "The queues of packed files and receipts are empty; waiting a minute, since SQS counts late.".to_owned(),
        ),
        Drain::Drained => (Reason::Drained, drained(seen)),
    };
    let (phase, readiness) = match drain {
        Drain::Drained => (Phase::Suspended, Readiness::Ready),
        _ => (Phase::Suspending, Readiness::Reconciling),
    };
    Some(StatusSummary::new(phase, reason, message, readiness))
}

fn drained(seen: &PipelineObservation) -> String {
    let waiting = match seen.depths.files.map(|depth| depth.total()) {
        // Where a queue was lost, files may wait all the same.
        Some(0) => "the files queue is empty".to_owned(),
        Some(files) => format!("{files} files wait to be compressed"),
        None => "how many files wait is not known".to_owned(),
    };
    let uncounted = match seen.unaccounted {
        0 => String::new(),
        files => format!(
            "; {files} packed files were not counted as restored (the last counts of a killed worker are lost): check that they were restored"
        ),
    };
    format!(
        "Suspended with nothing in flight; {waiting}{uncounted}. Set spec.suspend to false to go on."
    )
}

fn working(seen: &PipelineObservation) -> StatusSummary {
    let ProgressStatus {
        files_restored,
        saved_percent,
        ..
    } = &seen.progress;
    let depths = [seen.depths.files, seen.depths.chunks, seen.depths.receipts];
    let left = depths.map(|depth| depth.map(|depth| depth.total()));
    let idle = left == [Some(0); 3]
        && seen
            .roles
            .iter()
            .all(|role| role.slots.iter().all(|slot| slot.holder.is_none()));
    let saved = saved_percent
        .as_ref()
        .map(|saved| match saved.strip_prefix('-') {
            Some(more) => format!(", packed {more} % larger than they are"),
            None => format!(", {saved} % of the bytes saved"),
        })
        .unwrap_or_default();
    let left_out = match seen.left_out {
        0 => String::new(),
        count => format!(", {count} left out of the source"),
    };
    let done = format!("{files_restored} files restored{saved}{left_out}");
    let dead = seen.depths.dead.unwrap_or(0);
    let finished = seen.files_wanted.is_some_and(|wanted| {
        seen.progress.files_generated >= wanted
            && files_restored + seen.progress.files_failed + seen.progress.files_superseded
                >= wanted
    });
    let (phase, reason, message) = if let Some(outage) = outages(seen).next() {
        (Phase::Degraded, outage.reason(), outage.message())
    } else if dead > 0 {
        let message = format!("{dead} dead letters: see `streampress redrive --list`; {done}.");
        (Phase::Degraded, Reason::DeadLetters, message)
    } else if finished && idle {
        let message = format!("All files of the generator are restored: {done}.");
        (Phase::Completed, Reason::Completed, message)
    } else {
        (Phase::Running, Reason::Running, format!("{done}."))
    };
    StatusSummary::new(phase, reason, message, Readiness::Ready)
}

/// The outages that concern something: a role whose queue is empty, or that is stopped, needs no service.
fn outages(seen: &PipelineObservation) -> impl Iterator<Item = &RoleOutage> {
    seen.outages.iter().flatten().filter(|outage| {
        let depth = match outage.role {
            Role::Generator => {
                let mut roles = seen.roles.iter();
                return roles.any(|role| role.role == Role::Generator && role.desired > 0);
            }
            Role::Compressor => seen.depths.files,
            Role::Decompressor => seen.depths.chunks,
        };
        depth.is_none_or(|depth| depth.total() > 0)
    })
}

fn conditions(
    seen: &PipelineObservation,
    summary: &StatusSummary,
    former: &CompressionPipelineStatus,
    now: Time,
) -> Vec<Condition> {
    let condition = |type_: &str, holds: Option<bool>, (reason, message): (Reason, &str)| {
        let status = match holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = written(former, type_).filter(|condition| condition.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_string(),
            message: clip(message, CONDITION_CHARS),
            observed_generation: seen.generation,
            last_transition_time: before.map_or_else(
                || now.clone(),
                |condition| condition.last_transition_time.clone(),
            ),
        }
    };
    let details = summary.details();
    let summarized = (summary.reason, details.as_str());
    let is = |readiness| summary.readiness == readiness;
    let ready = match is(Readiness::Ready) {
        // Sentences with figures stand in `message` alone: conditions change only when something happens.
        true => {
            let reason = match summary.phase {
                Phase::Suspended => summary.reason,
                _ => Reason::Ready,
            };
            let message = match outages(seen).next() {
                None => format!(
                    "Workers, queues and stream are in order.{}",
                    standby(&seen.roles)
                ),
                Some(_) => {
                    "Workers run; a service that they need cannot be used, see status.message."
                        .to_owned()
                }
            };
            (reason, message)
        }
        false => (summary.reason, details.clone()),
    };
    let is_reconciling = is(Readiness::Reconciling) || summary.scaling.is_some();
    let reconciling = match &summary.scaling {
        Some(scaling) => (Reason::WaitingForWorkers, scaling.as_str()),
        None if is_reconciling => summarized,
        None => (Reason::Settled, "Everything is as the spec says."),
    };
    let stalled = match is(Readiness::Stalled) {
        true => summarized,
        false => (
            Reason::NotStalled,
            "No problem requires a change by a user.",
        ),
    };
    let down = |service| {
        let outage = outages(seen).find(|outage| outage.service == service);
        outage.map(|outage| (outage.reason(), outage.details()))
    };
    let transport_outage = down(NeededService::Stream).or_else(|| down(NeededService::Queue));
    // What was not read stays as it was seen last.
    let kept = |type_: &str| written(former, type_).cloned();
    let available = |type_, service, fine| match (&seen.outages, down(service)) {
        (None, _) => kept(type_),
        (_, None) => Some(condition(type_, Some(true), (Reason::Ready, fine))),
        (_, Some((reason, message))) => Some(condition(type_, Some(false), (reason, &message))),
    };
    let (has_transport, transport) = match &seen.transport {
        TransportState::Pending => (None, (Reason::MakingTransport, making_transport(former))),
        TransportState::Ready(_) => match &transport_outage {
            None => (Some(true), (Reason::Ready, "Queues and stream exist.")),
            Some((reason, message)) => (Some(false), (*reason, message.as_str())),
        },
        TransportState::Failed(problem) => (
            (problem.retry != Retry::InProgress).then_some(false),
            (problem.reason, &*problem.message),
        ),
    };
    let (is_drained, drained) = match seen.drain {
        None | Some(Drain::NotSuspended) => (
            false,
            (Reason::NotSuspended, "The pipeline is not suspended."),
        ),
        Some(Drain::Drained) => (true, (Reason::Drained, "Nothing is in flight.")),
        Some(_) => (false, summarized),
    };
    let is_not_looked_up = seen.deleting.is_some() || !seen.invalid.is_empty();
    let transport_ready = kept(TRANSPORT_READY).filter(|_| is_not_looked_up);
    let mut conditions = vec![
        condition("Ready", Some(is(Readiness::Ready)), (ready.0, &ready.1)),
        condition("Reconciling", Some(is_reconciling), reconciling),
        condition("Stalled", Some(is(Readiness::Stalled)), stalled),
        transport_ready.unwrap_or_else(|| condition(TRANSPORT_READY, has_transport, transport)),
        condition("Drained", Some(is_drained), drained),
    ];
    let left_out = match seen.left_out {
        0 => String::new(),
        count => format!(
            " {count} of its files and folders cannot be taken: the generator's log names each with the reason."
        ),
    };
    let source = format!("No generator or compressor reports that the source is down.{left_out}");
    conditions.extend(available("SourceAvailable", NeededService::Source, &source));
    conditions.extend(available(
        "DestinationAvailable",
        NeededService::Destination,
        "No decompressor reports that the destination is down.",
    ));
    conditions.extend(match &seen.retention {
        Some(retention) => {
            let (at_risk, why) = retention_at_risk(retention);
            Some(condition(RETENTION_AT_RISK, at_risk, why))
        }
        None => kept(RETENTION_AT_RISK),
    });
    conditions
}

/// Names the pods that are more than the slots of their role.
fn standby(roles: &[RoleState]) -> String {
    let standing_by = roles.iter().filter(|role| role.standby() > 0);
    let sentences = standing_by.map(|role| {
        format!(
            " {} of {} pods of the {role} stand by: spec.{role}.slots allows {} to work at the same time.",
            role.standby(),
            role.desired,
            role.slots.len(),
            role = role.role,
        )
    });
    sentences.collect()
}

fn retention_at_risk(retention: &RetentionReport) -> (Option<bool>, (Reason, &str)) {
    match &retention.status {
        status if status.at_risk => (Some(true), (Reason::RetentionAtRisk, &retention.message)),
        status if status.hours.is_some() => (
            Some(false),
            (
                Reason::WithinRetention,
                "No packed file has waited for half of the stream's retention.",
            ),
        ),
        _ => (
            None,
            (
                Reason::MakingTransport,
                "For how long the stream keeps records is not known yet.",
            ),
        ),
    }
}

fn roles(seen: &PipelineObservation) -> RolesStatus {
    let of = |role| {
        seen.roles
            .iter()
            .find(|state| state.role == role)
            .map(|state| RoleStatus {
                desired: state.desired,
                ready: state.ready,
                image: state.image.clone(),
                selector: Some(state.selector.clone()),
                slots: state.slots.clone(),
            })
    };
    RolesStatus {
        generator: of(Role::Generator),
        compressor: of(Role::Compressor),
        decompressor: of(Role::Decompressor),
    }
}

fn backlog(seen: &PipelineObservation) -> BacklogStatus {
    let depths = &seen.depths;
    let has_receipts = match &seen.transport {
        TransportState::Ready(transport) => transport.status.receipts_queue_url.is_some(),
        TransportState::Pending | TransportState::Failed(_) => false,
    };
    let receipts = depths.receipts.filter(|_| has_receipts);
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    BacklogStatus {
        files: depths.files.map(|depth| signed(depth.total())),
        chunks: depths.chunks.map(|depth| signed(depth.total())),
        receipts: receipts.map(|depth| signed(depth.total())),
        dead: depths.dead.map(signed),
        waiting_since: None,
    }
}

fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars - 1) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
