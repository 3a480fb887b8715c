//! The names and labels of everything the operator makes, in one place. Names are `<pipeline>-<what>`; labels are
//! Kubernetes' recommended ones, and the selector is the part of them that never changes.

use serde_json::{Value, json};
use streampress_crds::settings::Role;

/// The field manager of every write, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "streampress-operator";
/// Holds deletion back until the transport is dealt with.
pub const FINALIZER: &str = "streampress.dev/transport";
/// On the first compressor slot's Lease: counters of slots that are no more, as JSON.
pub const RETIRED: &str = "streampress.dev/retired";
/// On a slot's Lease: the UID of its pipeline. Owner references may be taken away, and then another pipeline of the same
/// name must not go on counting where this one ended.
pub const PIPELINE_UID: &str = "streampress.dev/uid";
/// On every object the operator makes: which role it belongs to, or `pipeline`.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// On every object the operator makes: the pipeline's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// What every watch of children selects.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The component of objects that all roles share.
pub const SHARED: &str = "pipeline";

/// All roles, in the order files pass them.
pub const ROLES: [Role; 3] = [Role::Generator, Role::Compressor, Role::Decompressor];

/// A role's Deployment and PodDisruptionBudget.
pub fn of_role(pipeline: &str, role: Role) -> String {
    format!("{pipeline}-{role}")
}

/// The Lease of a slot, counted from 0.
pub fn slot(pipeline: &str, role: Role, number: u32) -> String {
    format!("{pipeline}-{role}-{number}")
}

/// The ServiceAccount, Role, RoleBinding and NetworkPolicy of a pipeline's workers.
pub fn workers(pipeline: &str) -> String {
    format!("{pipeline}-worker")
}

/// The Service through which metrics are found.
pub fn metrics(pipeline: &str) -> String {
    format!("{pipeline}-metrics")
}

/// What selects the pods of a role, or of all roles. Never changes: a Deployment's selector cannot.
pub fn selector(pipeline: &str, role: Option<Role>) -> Value {
    let mut labels = json!({"app.kubernetes.io/name": "streampress", INSTANCE: pipeline});
    if let Some(role) = role {
        labels[COMPONENT] = role.as_str().into();
    }
    labels
}

/// A selector as the scale subresource wants it.
pub fn selector_text(pipeline: &str, role: Role) -> String {
    format!("{COMPONENT}={role},{INSTANCE}={pipeline},app.kubernetes.io/name=streampress")
}

/// All labels of an object.
pub fn labels(pipeline: &str, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "streampress",
        INSTANCE: pipeline,
        COMPONENT: component,
        MANAGED_BY: MANAGER,
        "app.kubernetes.io/part-of": "streampress",
    })
}
