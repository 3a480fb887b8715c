//! The names, labels and annotations of everything the operator makes, in one place. Names are `<pipeline>-<what>`;
//! labels are Kubernetes' recommended ones, and the selector is the part of them that never changes.

use std::collections::BTreeMap;

use streampress_crds::Role;
pub(crate) use streampress_crds::names::{
    COMPONENT, INSTANCE, metrics, of_role, selector as selector_text, slot, slots, workers,
};

/// The field manager of every write, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "streampress-operator";
/// The finalizer that holds a pipeline's deletion back until its transport is dealt with.
pub(crate) const FINALIZER: &str = "streampress.dev/transport";
/// On the first compressor slot's Lease: counters of deleted slots, as JSON.
pub(crate) const RETIRED: &str = "streampress.dev/retired";
/// On a slot's Lease: the UID of its pipeline. Owner references may be removed, and then another pipeline of the same
/// name must not go on counting where this one ended.
pub(crate) const PIPELINE_UID: &str = "streampress.dev/uid";
/// What every watch of owned objects selects.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The component of objects that all roles share.
pub(crate) const SHARED: &str = "pipeline";

const NAME: (&str, &str) = ("app.kubernetes.io/name", "streampress");

/// Labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// What selects the pods of a role, or of all roles. Never changes: a Deployment's selector cannot.
pub(crate) fn selector(pipeline: &str, role: Option<Role>) -> Labels {
    let shared = [NAME, (INSTANCE, pipeline)];
    let component = role.map(|role| (COMPONENT, role.as_str()));
    owned(shared.into_iter().chain(component))
}

/// All labels of an object.
pub(crate) fn labels(pipeline: &str, component: &str) -> Labels {
    owned([
        NAME,
        (INSTANCE, pipeline),
        (COMPONENT, component),
        (MANAGED_BY, MANAGER),
        ("app.kubernetes.io/part-of", "streampress"),
    ])
}

fn owned<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    labels
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
