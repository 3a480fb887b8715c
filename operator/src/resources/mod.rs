//! Everything a pipeline consists of in the cluster, from its spec. Pure: the same pipeline and plan give the same
//! objects, field by field, so that nothing rolls without a reason. `deployment.rs` makes the pods, `access.rs` what
//! workers may do and who may reach them; slots are made here.

mod access;
mod deployment;
pub mod names;
pub mod owned_object;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use streampress_crds::api::pipeline::CompressionPipeline;
use streampress_crds::settings::{Resolved, Role};

use crate::resources::owned_object::{Child, Kind, without_empty};

/// How many pods each role shall have at the moment; a role that is left out keeps what it has (somebody else scales it).
pub type Replicas = BTreeMap<Role, i32>;

/// What the operator itself is told about workers.
#[derive(Clone, Debug)]
pub struct Platform {
    /// Image of the workers where the pipeline names none, with its tag.
    pub worker_image: String,
    /// Whether NetworkPolicies are made.
    pub network_policies: bool,
}

/// What all builders look at.
struct Site<'a> {
    pipeline: &'a CompressionPipeline,
    resolved: &'a Resolved,
    replicas: &'a Replicas,
    platform: &'a Platform,
    name: &'a str,
}

/// Lists every object of a pipeline, in the order they are to be applied.
pub fn build(
    pipeline: &CompressionPipeline,
    resolved: &Resolved,
    replicas: &Replicas,
    platform: &Platform,
) -> Vec<Child> {
    let name = pipeline.metadata.name.as_deref().unwrap_or_default();
    let site = Site {
        pipeline,
        resolved,
        replicas,
        platform,
        name,
    };
    let mut children = access::children(&site);
    children.extend(slots(&site));
    children.extend(deployment::children(&site));
    children.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    children
}

/// The names of all slots of a pipeline.
pub fn slot_names(pipeline: &str, resolved: &Resolved) -> Vec<(Role, String)> {
    let of_role = |role| {
        (0..resolved.slots(role)).map(move |number| (role, names::slot(pipeline, role, number)))
    };
    Role::ALL.into_iter().flat_map(of_role).collect()
}

/// One Lease per slot. The holder's fields belong to the workers and are never ours.
fn slots(site: &Site<'_>) -> Vec<Child> {
    slot_names(site.name, site.resolved)
        .into_iter()
        .map(|(role, name)| {
            let mut slot = site.child(Kind::Lease, name, role.as_str(), json!({}));
            slot.object["metadata"]["annotations"] =
                json!({names::PIPELINE_UID: site.pipeline.metadata.uid});
            slot
        })
        .collect()
}

impl Site<'_> {
    /// An object with its identity, labels and owner, and what else it says.
    fn child(&self, kind: Kind, name: String, component: &str, content: Value) -> Child {
        let meta = &self.pipeline.metadata;
        let mut object = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {
                "name": name,
                "namespace": meta.namespace,
                "labels": names::labels(self.name, component),
                "ownerReferences": [{
                    "apiVersion": "streampress.dev/v1alpha1",
                    "kind": "CompressionPipeline",
                    "name": self.name,
                    "uid": meta.uid,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
        });
        if let (Some(object), Value::Object(content)) = (object.as_object_mut(), content) {
            object.extend(content);
        }
        Child {
            kind,
            name,
            object: without_empty(object),
        }
    }
}

#[cfg(test)]
mod tests;
