//! The names of everything that belongs to a pipeline, made in one place: Kubernetes objects `<pipeline>-<role>`,
//! the Leases of slots, and the default names of queues and stream.

use crate::limits;
use crate::role::Role;

/// A role's Deployment and PodDisruptionBudget: `<pipeline>-<role>`.
pub fn of_role(pipeline: &str, role: Role) -> String {
    format!("{pipeline}-{role}")
}

/// A slot's Lease: `<pipeline>-<role>-<number>`, counted from 0.
pub fn slot(pipeline: &str, role: Role, number: u32) -> String {
    format!("{pipeline}-{role}-{number}")
}

/// The Leases of a role's slots, in their order.
pub fn slots(pipeline: &str, role: Role, count: u32) -> Vec<String> {
    (0..count)
        .map(|number| slot(pipeline, role, number))
        .collect()
}

/// On every queue and stream that the operator makes: `namespace/name` of the pipeline.
pub const PIPELINE_TAG: &str = "streampress.dev/pipeline";

/// On every object of a pipeline: the role it belongs to.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// On every object of a pipeline: the pipeline's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

/// The labels that select a role's pods and its slots' Leases.
pub fn selector(pipeline: &str, role: Role) -> String {
    format!("{COMPONENT}={role},{INSTANCE}={pipeline},app.kubernetes.io/name=streampress")
}

/// The ServiceAccount, Role, RoleBinding and NetworkPolicy of a pipeline's workers.
pub fn workers(pipeline: &str) -> String {
    format!("{pipeline}-worker")
}

/// The Service that a pipeline's metrics are found through.
pub fn metrics(pipeline: &str) -> String {
    format!("{pipeline}-metrics")
}

/// A queue or stream that is created under a default name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TransportPart {
    FilesQueue,
    ChunksQueue,
    ReceiptsQueue,
    Stream,
}

/// The default name of a queue or stream: `<namespace>-<pipeline>-<uid8>-files.fifo` and the like.
///
/// The beginning is cut where AWS allows fewer characters; the UID keeps such names apart. Outside a cluster there is
/// no UID, and the name has none.
pub(crate) fn transport(namespace: &str, pipeline: &str, uid: &str, part: TransportPart) -> String {
    let end = match part {
        TransportPart::FilesQueue => "-files.fifo",
        TransportPart::ChunksQueue => "-chunks.fifo",
        TransportPart::ReceiptsQueue => "-receipts.fifo",
        TransportPart::Stream => "-stream",
    };
    let uid: String = uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(UID_CHARS)
        .collect();
    let uid = if uid.is_empty() {
        uid
    } else {
        format!("-{uid}")
    };
    let most = limits::QUEUE_CHARS - limits::DEAD_LETTER_CHARS - end.len() - uid.len();
    let owner: String = format!("{namespace}-{pipeline}")
        .chars()
        .take(most)
        .collect();
    format!("{}{uid}{end}", owner.trim_end_matches('-'))
}

/// The dead-letter queue of a queue: `-dlq` before `.fifo`.
pub fn dead_letter_queue(queue: &str) -> String {
    format!("{}-dlq.fifo", queue.strip_suffix(".fifo").unwrap_or(queue))
}

/// Characters of a UID that names contain: enough to keep two pipelines of one name apart.
const UID_CHARS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_after_the_pipeline_and_the_role() {
        assert_eq!(of_role("shop", Role::Compressor), "shop-compressor");
        assert_eq!(
            slots("shop", Role::Decompressor, 2),
            ["shop-decompressor-0", "shop-decompressor-1"]
        );
        assert_eq!(slots("shop", Role::Generator, 0), Vec::<String>::new());
    }

    /// Both are object names, and a Deployment's name is also a label's value.
    #[test]
    fn the_longest_pipeline_name_gives_names_that_kubernetes_takes() {
        let pipeline = "p".repeat(limits::NAME_CHARS);
        for role in Role::ALL {
            assert!(of_role(&pipeline, role).len() <= 63);
        }
        assert!(slot(&pipeline, Role::Decompressor, 499).len() <= 253);
    }

    #[test]
    fn default_names_fit_what_aws_takes_and_stay_apart() {
        let (namespace, pipeline) = ("s".repeat(63), "n".repeat(50));
        let name = |part| transport(&namespace, &pipeline, "0f1c2d3e-aaaa", part);
        for part in [
            TransportPart::FilesQueue,
            TransportPart::ChunksQueue,
            TransportPart::ReceiptsQueue,
        ] {
            let dead = dead_letter_queue(&name(part));
            assert!(dead.len() <= limits::QUEUE_CHARS, "{dead}");
            assert!(dead.contains("-0f1c2d3e-"), "{dead}");
            assert!(dead.ends_with("-dlq.fifo"), "{dead}");
        }
        assert!(name(TransportPart::Stream).len() <= 128);
        assert_eq!(
            transport("default", "shop", "", TransportPart::FilesQueue),
            "default-shop-files.fifo"
        );
    }
}
