//! Whether what happened explains a dead letter.

use streampress_transport::sim::StoredMessage;
use streampress_transport::{ATTR_REASON, DeadLetterReason};

use super::check::file_of;
use super::history::{self, HistoryStep, ServiceKind};
use super::record::RunRecord;

/// A dead letter has a reason, and what happened to the file or to the services explains it.
pub(super) fn what_a_letter_says(record: &RunRecord, letter: &StoredMessage) -> Option<String> {
    let reason = letter.message.attributes.get(ATTR_REASON);
    let Some(reason) = reason.and_then(|reason| reason.parse::<DeadLetterReason>().ok()) else {
        return Some(format!(
            "a dead letter without a reason: {}",
            letter.message.body
        ));
    };
    let (name, _) = file_of(letter)?;
    let mut steps = record.steps.iter();
    let mut taken_away = record.renamed_or_deleted.iter();
    let is_explained = steps.any(|(_, step)| explains(step, reason, &name))
        || (reason == DeadLetterReason::SourceMissing
            && taken_away.any(|change| change.name == name));
    (!is_explained).then(|| {
        format!(
            "{name}: nothing that happened explains a dead letter: {:?}",
            letter.message.attributes
        )
    })
}

/// Whether what happened can make a file of this name a dead letter with this reason. The reasons that are not here are of faults
/// that no history has.
fn explains(step: &HistoryStep, reason: DeadLetterReason, about: &str) -> bool {
    use HistoryStep as Step;
    let is_it = |name: u8| history::at(name) == about;
    match reason {
        DeadLetterReason::SourceMissing => match *step {
            Step::Delete { name } | Step::RenameOver { from: name, .. } => is_it(name),
            _ => false,
        },
        DeadLetterReason::BadName => matches!(*step, Step::Obstruct { name, .. } if is_it(name)),
        DeadLetterReason::GaveUp => match *step {
            Step::Protect { name, .. } | Step::Deny { name, .. } => is_it(name),
            _ => false,
        },
        DeadLetterReason::RecordMissing => matches!(
            step,
            Step::RemakeAll
                | Step::Remake {
                    service: ServiceKind::Stream
                }
        ),
        DeadLetterReason::Expired => keeps_waiting(step),
        _ => false,
    }
}

/// Whether manifests may wait because of it for longer than the stream keeps records.
fn keeps_waiting(step: &HistoryStep) -> bool {
    use HistoryStep as Step;
    matches!(
        step,
        Step::Obstruct { .. }
            | Step::Deny { .. }
            | Step::Protect { .. }
            | Step::Recover
            | Step::Redrive
            | Step::Kill { .. }
            | Step::Freeze { .. }
            | Step::Stop { .. }
            | Step::Suspend { .. }
            | Step::Stall { .. }
            | Step::Down { .. }
            | Step::Lossy { .. }
            | Step::Slow { .. }
            | Step::DiskDown { .. }
            | Step::ReadOnly { .. }
            | Step::Full { .. }
            | Step::LoseSlots
    )
}
