//! Every reason that Streampress gives, once: why a message became a dead letter, and why a pipeline's condition or
//! Event says what it says. Documentation tables, metrics and alert rules are made from these enums or checked
//! against them. The names are stable: users filter by them.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// Why a message is in a dead-letter queue: the message attribute `streampress-reason`, and the label `reason` of the
/// metric `streampress_messages_dead_total`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
pub enum DeadLetterReason {
    /// The body is no message of any format that is known, or contradicts itself.
    UnreadableMessage,
    /// The file's name would leave its folder or prefix, or cannot be a file's name.
    BadName,
    /// The file is not at the source.
    SourceMissing,
    /// The file's content is not what was announced.
    SourceChanged,
    /// A record of the file is not in the stream.
    RecordMissing,
    /// A record of the file is older than the stream's retention.
    Expired,
    /// A record of the file is not what was sent.
    RecordDamaged,
    /// The records are whole, but what they hold cannot be unpacked.
    BadFrame,
    /// The unpacked file has another hash than the packed one.
    HashMismatch,
    /// The file is larger than its format allows.
    TooLarge,
    /// The file's extension is none that codec.format Seed packs.
    UnknownFormat,
    /// The file is not written as codec.format Seed needs it.
    NotSeedFormat,
    /// AWS or the file system refuses the request itself.
    Refused,
    /// Every attempt failed for a cause that might have passed.
    GaveUp,
    /// The message was received more often than its queue allows, without a result.
    ReceivedTooOften,
}

impl DeadLetterReason {
    /// All reasons.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The reason as messages, metrics and reports write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it says that the file's records cannot be used, so that packing the file again helps.
    pub const fn is_of_records(self) -> bool {
        match self {
            Self::RecordMissing
            | Self::Expired
            | Self::RecordDamaged
            | Self::BadFrame
            | Self::HashMismatch => true,
            Self::UnreadableMessage
            | Self::BadName
            | Self::SourceMissing
            | Self::SourceChanged
            | Self::TooLarge
            | Self::UnknownFormat
            | Self::NotSeedFormat
            | Self::Refused
            | Self::GaveUp
            | Self::ReceivedTooOften => false,
        }
    }

    /// Whether the same record may be good when it is read again: of one that was damaged on its way, or not found yet.
    pub const fn may_pass(self) -> bool {
        match self {
            Self::RecordDamaged | Self::RecordMissing | Self::BadFrame => true,
            Self::UnreadableMessage
            | Self::BadName
            | Self::SourceMissing
            | Self::SourceChanged
            | Self::Expired
            | Self::HashMismatch
            | Self::TooLarge
            | Self::UnknownFormat
            | Self::NotSeedFormat
            | Self::Refused
            | Self::GaveUp
            | Self::ReceivedTooOften => false,
        }
    }

    /// What it means, in one clause without a full stop.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::UnreadableMessage => {
                "the message is not one of Streampress's formats, or contradicts itself"
            }
            Self::BadName => {
                "the file's name would leave its folder or prefix, or cannot name a file"
            }
            Self::SourceMissing => "the announced file is not at the source",
            Self::SourceChanged => {
                "the file changed after it was announced; its present content was announced anew"
            }
            Self::RecordMissing => "a record of the file is not in the stream",
            Self::Expired => "a record of the file is older than the stream's retention",
            Self::RecordDamaged => "a record of the file is not what was sent",
            Self::BadFrame => "the records are whole, but their content cannot be unpacked",
            Self::HashMismatch => {
                "the unpacked file differs from the packed one; nothing was written"
            }
            Self::TooLarge => "the file is larger than codec.format Seed takes",
            Self::UnknownFormat => "codec.format Seed does not take files of this extension",
            Self::NotSeedFormat => "the file's content is not what codec.format Seed can pack",
            Self::Refused => "AWS or the file system refuses the request itself",
            Self::GaveUp => "every attempt failed; the detail names the cause of the last one",
            Self::ReceivedTooOften => {
                "the message was received maxReceiveCount times without a result, for example because workers were killed"
            }
        }
    }

    /// What to do about it, as a clause without a full stop.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::UnreadableMessage => {
                "find out who sent it to the queue; where no file depends on it, delete the message in the dead-letter queue"
            }
            Self::BadName => "rename the file at the source and announce it again",
            Self::SourceMissing => "put the file back and run `streampress redrive`",
            Self::SourceChanged => "none needed; `streampress redrive` removes it",
            Self::RecordMissing
            | Self::Expired
            | Self::RecordDamaged
            | Self::BadFrame
            | Self::HashMismatch => {
                "run `streampress redrive` while the file is still at the source: it is packed and sent again"
            }
            Self::TooLarge | Self::UnknownFormat | Self::NotSeedFormat => {
                "use codec.format Hybrid, then run `streampress redrive`"
            }
            Self::Refused => {
                "correct the setting that the detail names, then run `streampress redrive`"
            }
            Self::GaveUp => {
                "remove the cause that the detail names, then run `streampress redrive`"
            }
            Self::ReceivedTooOften => {
                "look at the workers' logs and memory limits, then run `streampress redrive`"
            }
        }
    }
}

/// Why a condition or an Event of a pipeline says what it says.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
pub enum Reason {
    /// Workers, queues and stream are in order.
    Ready,
    /// The pipeline works, or is ready for work.
    Running,
    /// Every file of a finite generator is restored.
    Completed,
    /// Everything is as the spec says.
    Settled,
    /// No problem requires a change by a user.
    NotStalled,
    /// `spec.suspend` is not set.
    NotSuspended,
    /// The pipeline changed in another way.
    Changed,
    /// The spec contradicts itself.
    InvalidSpec,
    /// Queues and stream are being created.
    MakingTransport,
    /// Pods are starting.
    WaitingForWorkers,
    /// A pod cannot start.
    WorkersNotStarting,
    /// The API server fails repeatedly.
    NotApplied,
    /// The API server refuses an object.
    Refused,
    /// Nothing answers at the endpoint.
    EndpointUnreachable,
    /// The operator's own AWS identity is not allowed for the endpoint.
    EndpointNotAllowed,
    /// The Secret, or a key in it, is missing or of no use.
    CredentialsMissing,
    /// AWS refuses a call.
    AccessDenied,
    /// A queue or the stream to adopt does not exist.
    TransportMissing,
    /// A queue to adopt does not fit.
    TransportUnfit,
    /// A queue or stream of this name belongs to another owner.
    TransportNotOurs,
    /// AWS answered with another error.
    TransportFailed,
    /// A queue's depth cannot be read.
    DepthUnknown,
    /// Some files could not be processed.
    DeadLetters,
    /// A service that workers need is down.
    ServiceDown,
    /// The destination belongs to another pipeline.
    DestinationNotOurs,
    /// The source belongs to another pipeline.
    SourceNotOurs,
    /// What waits may outlast the stream's retention.
    RetentionAtRisk,
    /// What waits is younger than half of the stream's retention.
    WithinRetention,
    /// Suspending: generator and compressors finish their present work.
    StoppingIntake,
    /// Suspending: packed files are still being restored, or their receipts taken.
    RestoringFiles,
    /// Suspending: waiting to be sure that nothing is in flight.
    Settling,
    /// Suspended with nothing in flight.
    Drained,
    /// The pipeline is being deleted.
    Deleting,
    /// Queues or a stream still exist after the pipeline's deletion.
    TransportLeftBehind,
}

impl Reason {
    /// All reasons.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The reason as conditions and Events write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What it means, in one clause without a full stop.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "workers, queues and stream are in order",
            Self::Running => "the pipeline works, or is ready for work",
            Self::Completed => "every file of the generator is restored",
            Self::Settled => "everything is as the spec says",
            Self::NotStalled => "no problem requires a change by a user",
            Self::NotSuspended => "the pipeline is not suspended",
            Self::Changed => "the pipeline's state changed; the message says how",
            Self::InvalidSpec => "the spec contradicts itself; what ran before keeps running",
            Self::MakingTransport => "queues and stream are being created",
            Self::WaitingForWorkers => "pods are starting",
            Self::WorkersNotStarting => "a pod cannot start: image, volume, quota or crash",
            Self::NotApplied => {
                "the API server fails repeatedly at one object, or the operator lacks a permission; it tries again"
            }
            Self::Refused => {
                "the API server refuses an object: quota, admission, a field that `podTemplate` must not have, or an object of the same name with another owner"
            }
            Self::EndpointUnreachable => "nothing answers at `spec.aws.endpointURL`",
            Self::EndpointNotAllowed => {
                "the operator uses its own AWS identity only for AWS and for endpoints that its settings allow"
            }
            Self::CredentialsMissing => {
                "the Secret or one of its keys does not exist, or a value has a newline or another character that no key has"
            }
            Self::AccessDenied => "AWS refuses the call that the message names",
            Self::TransportMissing => {
                "the policy is `Adopt`, but a queue or the stream does not exist"
            }
            Self::TransportUnfit => {
                "the policy is `Adopt`, but a queue is not FIFO, has no dead-letter queue or takes too small messages"
            }
            Self::TransportNotOurs => {
                "a queue or stream of this name lacks this pipeline's tag, carries that of another one, or is used by another one"
            }
            Self::TransportFailed => "AWS answered with another error; the operator retries",
            Self::DepthUnknown => {
                "a queue cannot be read at the moment; nothing is scaled down meanwhile"
            }
            Self::DeadLetters => "some files could not be processed; the others go on",
            Self::ServiceDown => {
                "workers cannot use the source, the destination, the stream or a queue; they receive nothing meanwhile"
            }
            Self::DestinationNotOurs => {
                "the destination belongs to another pipeline; decompressors restore nothing there"
            }
            Self::SourceNotOurs => {
                "another pipeline scans the source, and what that announced would count as announced by this one; the generator makes and announces nothing there"
            }
            Self::RetentionAtRisk => {
                "packed files or their dead letters have waited for half of the stream's retention or longer"
            }
            Self::WithinRetention => "no packed file has waited for half of the stream's retention",
            Self::StoppingIntake => {
                "suspending: generator and compressors finish their present work"
            }
            Self::RestoringFiles => {
                "suspending: the last packed files are being restored, or their receipts are being taken"
            }
            Self::Settling => {
                "suspending: the queues of packed files and receipts are empty, and the operator waits until that is certain"
            }
            Self::Drained => "suspended, with nothing in flight",
            Self::Deleting => "workers stop, then queues and stream are handled by deletionPolicy",
            Self::TransportLeftBehind => {
                "after the pipeline's deletion, queues or a stream still exist"
            }
        }
    }

    /// What to do about it, as a clause without a full stop.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Ready
            | Self::Running
            | Self::Completed
            | Self::Settled
            | Self::NotStalled
            | Self::NotSuspended
            | Self::WithinRetention
            | Self::Changed => "none needed",
            Self::InvalidSpec => "correct the field that the message names",
            Self::MakingTransport => "wait; a stream takes up to a minute on AWS",
            Self::WaitingForWorkers => {
                "wait; if it lasts, see `kubectl describe pod` and `kubectl logs`"
            }
            Self::WorkersNotStarting => {
                "the message quotes the kubelet or the Deployment's condition; `kubectl describe pod` and `kubectl logs` have the rest"
            }
            Self::NotApplied => {
                "the message quotes the API server's answer: a webhook that fails, or a permission of the operator that was removed; apply its chart or manifest again"
            }
            Self::Refused => {
                "as the message says: correct the field that it names, rename the pipeline, or remove the other owner's object"
            }
            Self::EndpointUnreachable => {
                "check that LocalStack runs and that its name resolves in the pipeline's namespace"
            }
            Self::EndpointNotAllowed => {
                "name a Secret in `spec.aws.credentialsSecretRef`, or add the endpoint to the chart's `aws.allowEndpoints`"
            }
            Self::CredentialsMissing => {
                "create the Secret in the pipeline's namespace, or correct the value that the message names"
            }
            Self::AccessDenied => "add the permission to the role",
            Self::TransportMissing => "create it (`streampress setup`), or use `Create`",
            Self::TransportUnfit => "as the message says; `streampress validate --live` says more",
            Self::TransportNotOurs => {
                "choose another name; `Adopt` takes only what no other pipeline has, and the message says how to free what one that is gone left behind"
            }
            Self::TransportFailed => "see the message",
            Self::DepthUnknown => "see the condition `TransportReady`",
            Self::DeadLetters => {
                "`streampress redrive --list` shows the reasons, `streampress redrive` sends the files again"
            }
            Self::ServiceDown => {
                "remove the cause that the message names; workers continue by themselves"
            }
            Self::DestinationNotOurs => {
                "choose another destination; or, where the pipeline that the message names restores nothing there any more, remove the file that it names"
            }
            Self::SourceNotOurs => {
                "choose another source; or, where the pipeline that the message names is gone, remove the folder that it names: every file is announced anew then"
            }
            Self::RetentionAtRisk => {
                "let decompressors run and redrive dead letters before the records expire; `transport.stream.retentionHours` may be raised meanwhile"
            }
            Self::StoppingIntake | Self::RestoringFiles | Self::Settling => "wait",
            Self::Drained => "set `spec.suspend` to false to go on",
            Self::Deleting => {
                "wait; a finalizer holds the pipeline until its transport is handled, for ten minutes where AWS does not do it"
            }
            Self::TransportLeftBehind => {
                "delete what the Event names, unless its content is still needed"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_dead_letter_reason_reads_back_from_its_text_and_its_json() {
        for reason in DeadLetterReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert_eq!(reason.to_string(), reason.as_str());
            let json = serde_json::to_value(reason).expect("JSON");
            assert_eq!(json, reason.as_str());
            assert_eq!(serde_json::from_value(json).ok(), Some(*reason));
        }
        assert!("Unknown".parse::<DeadLetterReason>().is_err());
    }

    #[test]
    fn a_reason_reads_back_from_its_text_and_its_json() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert_eq!(reason.to_string(), reason.as_str());
            let json = serde_json::to_value(reason).expect("JSON");
            assert_eq!(json, reason.as_str());
            assert_eq!(serde_json::from_value(json).ok(), Some(*reason));
        }
    }

    #[test]
    fn the_names_of_dead_letter_reasons_are_stable() {
        let names: Vec<&str> = DeadLetterReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "UnreadableMessage",
                "BadName",
                "SourceMissing",
                "SourceChanged",
                "RecordMissing",
                "Expired",
                "RecordDamaged",
                "BadFrame",
                "HashMismatch",
                "TooLarge",
                "UnknownFormat",
                "NotSeedFormat",
                "Refused",
                "GaveUp",
                "ReceivedTooOften",
            ]
        );
    }

    /// Kubernetes takes CamelCase reasons alone; a table's cell holds no line break, no bar and no full stop.
    #[test]
    fn every_reason_fits_kubernetes_and_a_table() {
        let dead = DeadLetterReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), reason.meaning(), reason.remedy()));
        let pipeline = Reason::ALL
            .iter()
            .map(|reason| (reason.as_str(), reason.meaning(), reason.remedy()));
        for (name, meaning, remedy) in dead.chain(pipeline) {
            assert!(name.chars().all(|c| c.is_ascii_alphabetic()), "{name}");
            assert!(name.starts_with(char::is_uppercase), "{name}");
            for text in [meaning, remedy] {
                assert!(text.len() > 3, "{name}: {text}");
                assert!(!text.contains(['\n', '|']), "{name}: {text}");
                assert!(!text.ends_with('.'), "{name}: {text}");
            }
        }
        let meanings: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.meaning()).collect();
        assert_eq!(meanings.len(), Reason::ALL.len());
    }
}
