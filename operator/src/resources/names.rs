//! The names and labels of everything the operator makes, in one place. Names are `<pipeline>-<what>`; labels are
//! Kubernetes' recommended ones, and the selector is the part of them that never changes.

use serde_json::{Value, json};
pub use streampress_crds::names::{metrics, of_role, slot, workers};
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
