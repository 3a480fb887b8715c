//! The slots of a pipeline: one Lease each. A worker works only while it holds one.

use k8s_openapi::api::coordination::v1::Lease;
use streampress_crds::{Resolved, Role};

use super::object::OwnedObject;
use super::{BuildInput, names};

/// The names of all slots of a pipeline, role by role.
pub(super) fn slot_names(pipeline: &str, resolved: &Resolved) -> Vec<(Role, String)> {
    let of_role = |role| {
        let slots = names::slots(pipeline, role, resolved.slots(role));
        slots.into_iter().map(move |name| (role, name))
    };
    Role::ALL.into_iter().flat_map(of_role).collect()
}

/// One Lease per slot. The holder's fields belong to the workers and are never ours.
pub(super) fn leases(input: &BuildInput<'_>) -> Vec<OwnedObject> {
    slot_names(input.name, input.resolved)
        .into_iter()
        .map(|(role, name)| {
            let mut metadata = input.metadata(name, role.as_str());
            let uid = input.pipeline.metadata.uid.clone().unwrap_or_default();
            metadata.annotations = Some([(names::PIPELINE_UID.to_owned(), uid)].into());
            OwnedObject::Lease(Lease {
                metadata,
                spec: None,
            })
        })
        .collect()
}
