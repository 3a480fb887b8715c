//! What every provisioner refuses, keeps and deletes, and the messages about it.

use std::collections::{BTreeMap, BTreeSet};

use streampress_crds::Reason;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::queue_check::mismatches;

use super::problem::{Problem, Retry};
use super::{Contents, OWNER_TAG, PIPELINE_TAG, TransportPlan};

/// A queue's attributes, by SQS's names.
pub(super) type Attributes = BTreeMap<String, String>;

/// Whether a pipeline can work with what exists: attributes of the queues in the order of [`TransportPlan::queues`], `None` for a
/// missing one. The message names all problems at once, so that they can be corrected together. What merely differs from
/// the spec is used as it is, as with `streampress validate --live`.
pub(super) fn adoptable(
    plan: &TransportPlan,
    queues: &[Option<&Attributes>],
    has_stream: bool,
) -> Result<(), Problem> {
    let there = plan
        .queues()
        .into_iter()
        .zip(queues.iter().map(Option::is_some));
    let missing: Vec<&str> = there
        .chain([(&*plan.parts.stream.name, has_stream)])
        .filter_map(|(name, is_there)| (!is_there).then_some(name))
        .collect();
    if !missing.is_empty() {
        return Err(permanent_problem(
            Reason::TransportMissing,
            format!(
                "There is no {}: create what is missing ('streampress setup' does), correct the name in spec.transport, or use policy Create in a new pipeline.",
                missing.join(", no ")
            ),
        ));
    }
    let mut unfit = Vec::new();
    for (queue, pair) in plan.parts.queues().zip(queues.chunks(2)) {
        let nothing = Attributes::new();
        let there = pair[0].unwrap_or(&nothing);
        let dead = pair.get(1).copied().flatten();
        for mismatch in mismatches(queue, there, dead) {
            if mismatch.fatal {
                unfit.push(format!("{}: {}", mismatch.resource, mismatch.problem));
            }
        }
    }
    if unfit.is_empty() {
        return Ok(());
    }
    Err(permanent_problem(
        Reason::TransportUnfit,
        format!("What is to be adopted does not fit. {}.", unfit.join(". ")),
    ))
}

/// A queue or stream that exists, and its tags.
pub(super) struct Tagged<'a> {
    pub(super) name: &'a str,
    /// A queue's URL; `None` for the stream.
    pub(super) url: Option<&'a str>,
    pub(super) tags: &'a BTreeMap<String, String>,
}

impl Tagged<'_> {
    /// The pipeline that it was made for, as its tags say.
    fn pipeline(&self, plan: &TransportPlan) -> Option<String> {
        let uid = self.tags.get(OWNER_TAG)?;
        Some(match self.tags.get(PIPELINE_TAG) {
            Some(pipeline) if *pipeline == plan.pipeline() => {
                format!("an earlier one of this name, {pipeline} (UID {uid})")
            }
            Some(pipeline) => format!("{pipeline} (UID {uid})"),
            None => format!("the one with the UID {uid}"),
        })
    }

    /// The command that takes the tags of its pipeline away.
    fn untag_command(&self, plan: &TransportPlan) -> String {
        let endpoint = match &plan.endpoint {
            Some(endpoint) => format!(" --endpoint-url {endpoint}"),
            None => String::new(),
        };
        let call = match self.url {
            Some(url) => format!("sqs untag-queue --queue-url {url}"),
            None => format!(
                "kinesis remove-tags-from-stream --stream-name {}",
                self.name
            ),
        };
        format!(
            "`aws {call} --tag-keys {OWNER_TAG} {PIPELINE_TAG} --region {}{endpoint}`",
            plan.region
        )
    }
}

/// Under `Create`, a queue or stream of that name is not this pipeline's.
pub(super) fn not_ours(plan: &TransportPlan, found: &Tagged<'_>) -> Problem {
    let name = found.name;
    let message = match found.pipeline(plan) {
        None => format!(
            "{name} exists and does not carry this pipeline's tag: choose another name, or set transport.policy to Adopt in a new pipeline."
        ),
        Some(pipeline) => format!(
            "{name} exists and carries the tag of another pipeline, {pipeline}: choose another name in a new pipeline. Where that pipeline is gone, {} frees it for a new pipeline with transport.policy Adopt.",
            found.untag_command(plan)
        ),
    };
    permanent_problem(Reason::TransportNotOurs, message)
}

/// Under `Adopt`, what was made for another pipeline is refused: both would take each other's messages.
pub(super) fn not_of_another(plan: &TransportPlan, found: &[Tagged<'_>]) -> Result<(), Problem> {
    let others: Vec<_> = found
        .iter()
        .filter(|it| it.tags.get(OWNER_TAG).is_some_and(|uid| *uid != plan.uid))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = others.iter().map(|it| it.name).collect();
    let pipelines: BTreeSet<_> = others.iter().filter_map(|it| it.pipeline(plan)).collect();
    let pipelines: Vec<_> = pipelines.into_iter().collect();
    let commands: Vec<_> = others.iter().map(|it| it.untag_command(plan)).collect();
    Err(permanent_problem(
        Reason::TransportNotOurs,
        format!(
            "What is to be adopted carries the tag of another pipeline, {}: {}. Name other queues and another stream in a new pipeline; or, where that pipeline is gone, remove its tag: {}.",
            pipelines.join(" and "),
            names.join(", "),
            commands.join("; ")
        ),
    ))
}

fn permanent_problem(reason: Reason, message: String) -> Problem {
    Problem {
        reason,
        message,
        retry: Retry::AfterChange,
    }
}

/// What is kept whatever it holds: everything, or `None` where that is to be decided.
pub(super) fn kept(plan: &TransportPlan, policy: DeletionPolicy) -> Option<Vec<String>> {
    let why = if plan.policy == TransportPolicy::Adopt {
        "was adopted, and is never deleted"
    } else if policy == DeletionPolicy::Retain {
        "is kept by deletionPolicy Retain"
    } else {
        return None;
    };
    let names = plan.queues().into_iter().chain([&*plan.parts.stream.name]);
    Some(names.map(|name| format!("{name} {why}")).collect())
}

/// What was not deleted since it lacks our tag.
pub(super) fn untagged(name: &str) -> String {
    format!("{name} does not carry this pipeline's tag")
}

/// What the existing queues hold, as `WhenEmpty` takes it. Messages refer to the stream, and a redrive needs all queues: all
/// or nothing.
pub(super) fn contents(plan: &TransportPlan, queues: &[(&str, Option<u64>)]) -> Contents {
    if queues.is_empty() {
        return Contents::Absent;
    }
    let mut left: Vec<String> = queues
        .iter()
        .filter_map(|(name, waiting)| match waiting {
            Some(0) => None,
            Some(_) => Some(format!("{name} is not empty")),
            None => Some(format!(
                "whether {name} is empty is not known: it cannot be read"
            )),
        })
        .collect();
    if left.is_empty() {
        return Contents::Empty;
    }
    let stream = &plan.parts.stream.name;
    left.push(format!(
        "the other queues and the stream {stream} are kept with it"
    ));
    Contents::Filled(left)
}
