//! What the operator says of a pipeline: phase, message, conditions and figures, all from one look, so that they never
//! contradict each other. Pure; the same look at the same former status gives the same status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use streampress_crds::api::status::{
    BacklogStatus, CompressionPipelineStatus, Phase, ProgressStatus, RoleStatus, RolesStatus,
    SlotStatus, TransportStatus,
};
use streampress_crds::settings::Role;

use crate::decide::drain::Drain;
use crate::transport::Depths;

/// What is seen of a pipeline at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The generation of the spec that was looked at.
    pub generation: Option<i64>,
    /// It is being deleted; what is still being done, in words.
    pub deleting: Option<String>,
    /// What is wrong with the spec, a sentence each.
    pub invalid: Vec<String>,
    /// What the API server refused.
    pub refused: Option<Trouble>,
    /// The queues and the stream.
    pub transport: TransportView,
    /// What waits in them.
    pub depths: Depths,
    /// The workers.
    pub roles: Vec<RoleView>,
    /// What has been done.
    pub progress: ProgressStatus,
    /// Files that were packed, by the ledgers, and neither restored nor given up.
    pub unaccounted: u64,
    /// Files the generator shall make in all; nothing when it is endless or there is none.
    pub files_wanted: Option<i64>,
    /// How far suspending has come.
    pub drain: Option<Drain>,
}

/// Something wrong: one word, and a sentence with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One word.
    pub reason: String,
    /// One sentence, with the way out.
    pub message: String,
    /// Whether only a change by somebody mends it.
    pub lasting: bool,
}

/// How the transport is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TransportView {
    /// Being made or looked up.
    #[default]
    Making,
    /// There.
    Ready(TransportStatus),
    /// Not there; it may have been before.
    Trouble(Trouble),
}

/// The workers of one role, as seen.
#[derive(Clone, Debug)]
pub struct RoleView {
    /// Which.
    pub role: Role,
    /// Pods asked for.
    pub desired: i32,
    /// Pods ready.
    pub ready: i32,
    /// The Deployment has dealt with its latest spec, and all pods run it.
    pub rolled_out: bool,
    /// Pods do not come up, in the cluster's words.
    pub stuck: Option<String>,
    /// Image of the pods.
    pub image: Option<String>,
    /// Selector of the pods.
    pub selector: String,
    /// Slots, and who holds them.
    pub slots: Vec<SlotStatus>,
}

/// What one look comes to.
struct Verdict {
    phase: Phase,
    reason: String,
    message: String,
    ready: bool,
    reconciling: bool,
    stalled: bool,
}

/// The status that this look makes of the former one.
pub fn status(
    seen: &Observed,
    former: &CompressionPipelineStatus,
    now: Time,
) -> CompressionPipelineStatus {
    let verdict = verdict(seen);
    let conditions = conditions(seen, &verdict, former, now);
    CompressionPipelineStatus {
        observed_generation: seen.generation,
        phase: Some(verdict.phase),
        message: Some(clip(verdict.message, 1024)),
        conditions,
        roles: Some(roles(seen)),
        progress: Some(seen.progress.clone()),
        backlog: Some(backlog(&seen.depths)),
        transport: match &seen.transport {
            TransportView::Ready(transport) => Some(transport.clone()),
            // What was made is still there while nobody can look.
            TransportView::Making | TransportView::Trouble(_) => former.transport.clone(),
        },
    }
}

/// The most important thing first.
fn verdict(seen: &Observed) -> Verdict {
    let say = |phase, reason: &str, message: String| Verdict {
        phase,
        reason: reason.to_owned(),
        message,
        ready: false,
        reconciling: false,
        stalled: false,
    };
    if let Some(doing) = &seen.deleting {
        return Verdict {
            reconciling: true,
            ..say(Phase::Deleting, "Deleting", doing.clone())
        };
    }
    if !seen.invalid.is_empty() {
        let message = format!(
            "{}. What ran before keeps running.",
            seen.invalid.join("; ")
        );
        return Verdict {
            stalled: true,
            ..say(Phase::Failed, "InvalidSpec", message)
        };
    }
    if let Some(trouble) = &seen.refused {
        return troubled(trouble);
    }
    match &seen.transport {
        TransportView::Making => {
            let message = "Queues and stream are being made.".to_owned();
            return Verdict {
                reconciling: true,
                ..say(Phase::Pending, "MakingTransport", message)
            };
        }
        TransportView::Trouble(trouble) => return troubled(trouble),
        TransportView::Ready(_) => {}
    }
    if let Some((drain, verdict)) = seen
        .drain
        .and_then(|drain| Some((drain, suspended(drain, seen)?)))
    {
        return match drain {
            Drain::Drained => Verdict {
                ready: true,
                ..verdict
            },
            _ => Verdict {
                reconciling: true,
                ..verdict
            },
        };
    }
    if let Some(role) = seen.roles.iter().find(|role| role.stuck.is_some()) {
        let why = role.stuck.as_deref().unwrap_or_default();
        let message = format!(
            "The {} does not start: {why}. See `kubectl describe pod -l {}`.",
            role.role, role.selector
        );
        return Verdict {
            stalled: true,
            ..say(Phase::Degraded, "WorkersNotStarting", message)
        };
    }
    if let Some(role) = seen
        .roles
        .iter()
        .find(|role| !role.rolled_out || role.ready < role.desired)
    {
        let message = format!(
            "Waiting for the {}: {} of {} pods are ready. Where that lasts, `kubectl describe pod -l {selector}` and `kubectl logs -l {selector}` say why.",
            role.role,
            role.ready,
            role.desired,
            selector = role.selector
        );
        return Verdict {
            reconciling: true,
            ..say(Phase::Pending, "WaitingForWorkers", message)
        };
    }
    at_work(seen)
}

fn troubled(trouble: &Trouble) -> Verdict {
    Verdict {
        phase: if trouble.lasting {
            Phase::Failed
        } else {
            Phase::Degraded
        },
        reason: trouble.reason.clone(),
        message: trouble.message.clone(),
        ready: false,
        reconciling: !trouble.lasting,
        stalled: trouble.lasting,
    }
}

fn suspended(drain: Drain, seen: &Observed) -> Option<Verdict> {
    let (phase, reason, message) = match drain {
        Drain::NotAsked => return None,
        Drain::Stopping => (Phase::Suspending, "StoppingIntake", "Generator and compressors are finishing what they have in hand.".to_owned()),
        Drain::Emptying(Some(0)) => (Phase::Suspending, "RestoringFiles", "The last files are being restored.".to_owned()),
        Drain::Emptying(Some(left)) => (Phase::Suspending, "RestoringFiles", format!("{left} packed files are still to be restored.")),
        Drain::Emptying(None) => (
            Phase::Suspending,
            "DepthUnknown",
            "How many packed files are left is not known: the queue cannot be read, see condition TransportReady.".to_owned(),
        ),
        Drain::Settling(_) if seen.unaccounted > 0 => (
            Phase::Suspending,
            "Settling",
            format!("The queue is empty, but {} packed files are not counted as restored; waiting up to three minutes for them.", seen.unaccounted),
        ),
        Drain::Settling(_) => (Phase::Suspending, "Settling", "Nothing is in flight as far as seen; making sure for a minute.".to_owned()),
        Drain::Drained => {
            let waiting = match seen.depths.files.map(|depth| depth.total()) {
                Some(0) => "no files wait".to_owned(),
                Some(files) => format!("{files} files wait to be compressed"),
                None => "how many files wait is not known".to_owned(),
            };
            let uncounted = match seen.unaccounted {
                0 => String::new(),
                files => format!("; {files} packed files were not counted as restored (a worker that is killed loses its last counts): look for them where they belong"),
            };
            (Phase::Suspended, "Drained", format!("Suspended with nothing in flight; {waiting}{uncounted}. Set spec.suspend to false to go on."))
        }
    };
    Some(Verdict {
        phase,
        reason: reason.to_owned(),
        message,
        ready: false,
        reconciling: false,
        stalled: false,
    })
}

fn at_work(seen: &Observed) -> Verdict {
    let ProgressStatus {
        files_restored,
        saved_percent,
        ..
    } = &seen.progress;
    let left =
        [seen.depths.files, seen.depths.chunks].map(|depth| depth.map(|depth| depth.total()));
    let idle = left == [Some(0); 2]
        && seen
            .roles
            .iter()
            .all(|role| role.slots.iter().all(|slot| slot.holder.is_none()));
    let saved = saved_percent
        .as_ref()
        .map(|saved| format!(", {saved} % of the bytes saved"))
        .unwrap_or_default();
    let done = format!("{files_restored} files restored{saved}");
    let dead = seen.depths.dead.unwrap_or(0);
    let finished = seen.files_wanted.is_some_and(|wanted| {
        seen.progress.files_generated >= wanted
            && files_restored + seen.progress.files_failed >= wanted
    });
    let (phase, reason, message) = if dead > 0 {
        let message = format!(
            "{done}; {dead} dead letters need attention: see them with `streampress redrive --list`, send them again with `streampress redrive`."
        );
        (Phase::Degraded, "DeadLetters", message)
    } else if finished && idle {
        (
            Phase::Completed,
            "Completed",
            format!("All files of the generator are restored: {done}."),
        )
    } else {
        (Phase::Running, "Running", format!("{done}."))
    };
    Verdict {
        phase,
        reason: reason.to_owned(),
        message,
        ready: true,
        reconciling: false,
        stalled: false,
    }
}

fn conditions(
    seen: &Observed,
    verdict: &Verdict,
    former: &CompressionPipelineStatus,
    now: Time,
) -> Vec<Condition> {
    let make = |type_: &str, holds: Option<bool>, reason: &str, message: &str| {
        let status = match holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = former
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: clip(message.to_owned(), 4096),
            observed_generation: seen.generation,
            last_transition_time: before.map_or_else(
                || now.clone(),
                |condition| condition.last_transition_time.clone(),
            ),
        }
    };
    // Sentences with figures stand in `message` alone: conditions change only when something happens.
    let why = if verdict.ready {
        "Workers, queues and stream are in order."
    } else {
        &verdict.message
    };
    let settled = "Everything is as the spec asks.";
    let (transport, transport_reason, transport_message) = match &seen.transport {
        TransportView::Making => (
            None,
            "MakingTransport",
            "Queues and stream are being made.".to_owned(),
        ),
        TransportView::Ready(_) => (
            Some(true),
            "Ready",
            "Queues and stream are there.".to_owned(),
        ),
        TransportView::Trouble(trouble) => (
            Some(false),
            trouble.reason.as_str(),
            trouble.message.clone(),
        ),
    };
    let drained = match seen.drain {
        None | Some(Drain::NotAsked) => (false, "NotSuspended", "The pipeline is not suspended."),
        Some(Drain::Drained) => (true, "Drained", "Nothing is in flight."),
        Some(_) => (false, verdict.reason.as_str(), verdict.message.as_str()),
    };
    let or = |holds: bool, reason: &str, message: &str| {
        if holds {
            (verdict.reason.clone(), verdict.message.clone())
        } else {
            (reason.to_owned(), message.to_owned())
        }
    };
    let (reconciling_reason, reconciling_message) = or(verdict.reconciling, "Settled", settled);
    let (stalled_reason, stalled_message) = or(
        verdict.stalled,
        "NotStalled",
        "Nothing needs a change by hand.",
    );
    let ready_reason = if verdict.ready && verdict.phase != Phase::Suspended {
        "Ready"
    } else {
        &verdict.reason
    };
    vec![
        make("Ready", Some(verdict.ready), ready_reason, why),
        make(
            "Reconciling",
            Some(verdict.reconciling),
            &reconciling_reason,
            &reconciling_message,
        ),
        make(
            "Stalled",
            Some(verdict.stalled),
            &stalled_reason,
            &stalled_message,
        ),
        make(
            "TransportReady",
            transport,
            transport_reason,
            &transport_message,
        ),
        make("Drained", Some(drained.0), drained.1, drained.2),
    ]
}

fn roles(seen: &Observed) -> RolesStatus {
    let of = |role| {
        seen.roles
            .iter()
            .find(|view| view.role == role)
            .map(|view| RoleStatus {
                desired: view.desired,
                ready: view.ready,
                image: view.image.clone(),
                selector: Some(view.selector.clone()),
                slots: view.slots.clone(),
            })
    };
    RolesStatus {
        generator: of(Role::Generator),
        compressor: of(Role::Compressor),
        decompressor: of(Role::Decompressor),
    }
}

fn backlog(depths: &Depths) -> BacklogStatus {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    BacklogStatus {
        files: depths.files.map(|depth| signed(depth.total())),
        chunks: depths.chunks.map(|depth| signed(depth.total())),
        dead: depths.dead.map(signed),
    }
}

fn clip(mut text: String, chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars - 1) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
