//! What both sides refuse, keep and delete, and what they say of it.

use std::collections::BTreeMap;

use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::queue_check::mismatches;

use super::Plan;
use crate::decide::status::Trouble;

/// A queue's attributes, as SQS words them.
pub(super) type Attributes = BTreeMap<String, String>;

/// Whether a pipeline can work with what is there: attributes of the queues in the order of [`Plan::queues`], nothing for one
/// that is missing. All that is wrong is said at once, so that nobody mends one after the other. What merely differs from
/// the spec is used as it is, as `streampress validate --live` has it.
pub(super) fn adoptable(
    plan: &Plan,
    queues: [Option<&Attributes>; 4],
    has_stream: bool,
) -> Result<(), Trouble> {
    let there = plan.queues().into_iter().zip(queues.map(|it| it.is_some()));
    let missing: Vec<&str> = there
        .chain([(&*plan.parts.stream.name, has_stream)])
        .filter_map(|(name, is_there)| (!is_there).then_some(name))
        .collect();
    if !missing.is_empty() {
        return Err(lasting(
            "TransportMissing",
            format!(
                "There is no {}: make what is missing ('streampress setup' does), correct the name in spec.transport, or use policy Create in a new pipeline.",
                missing.join(", no ")
            ),
        ));
    }
    let [files, files_dead, chunks, chunks_dead] = queues;
    let mut unfit = Vec::new();
    for (queue, there, dead) in [
        (&plan.parts.files_queue, files, files_dead),
        (&plan.parts.chunks_queue, chunks, chunks_dead),
    ] {
        let nothing = Attributes::new();
        let there = there.unwrap_or(&nothing);
        for mismatch in mismatches(queue, there, dead) {
            if mismatch.fatal {
                unfit.push(format!("{}: {}", mismatch.resource, mismatch.problem));
            }
        }
    }
    if unfit.is_empty() {
        return Ok(());
    }
    Err(lasting(
        "TransportUnfit",
        format!("What is to be adopted does not fit. {}.", unfit.join(". ")),
    ))
}

/// Under `Create`, something of that name is somebody else's.
pub(super) fn not_ours(name: &str, pipeline: Option<&str>) -> Trouble {
    let of = pipeline
        .map(|pipeline| format!(" (it belongs to {pipeline})"))
        .unwrap_or_default();
    lasting(
        "TransportNotOurs",
        format!(
            "{name} is there and does not carry this pipeline's tag{of}: choose another name, or set transport.policy to Adopt in a new pipeline."
        ),
    )
}

fn lasting(reason: &str, message: String) -> Trouble {
    Trouble {
        reason: reason.into(),
        message,
        lasting: true,
    }
}

/// What is kept without a look at it: everything, or it is to be looked at.
pub(super) fn kept(plan: &Plan, policy: DeletionPolicy) -> Option<Vec<String>> {
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

/// What was not deleted for want of our tag.
pub(super) fn untagged(name: &str) -> String {
    format!("{name} does not carry this pipeline's tag")
}

/// Why nothing is deleted under `WhenEmpty`: each queue by how much waits in it, or that nobody knows. Nothing when all are
/// empty. What waits refers to the stream, and a redrive needs both queues: all or nothing.
pub(super) fn filled(plan: &Plan, queues: &[(&str, Option<u64>)]) -> Option<Vec<String>> {
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
        return None;
    }
    let stream = &plan.parts.stream.name;
    left.push(format!(
        "the other queues and the stream {stream} are kept with it"
    ));
    Some(left)
}
