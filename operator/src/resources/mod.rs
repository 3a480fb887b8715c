//! Everything a pipeline consists of in the cluster, from its spec. Pure: the same pipeline and replicas give the same
//! objects, field by field, so that nothing rolls without a reason. `deployment.rs` makes the pods, `access.rs` what
//! workers may do and who may reach them, `slots.rs` the Leases; `compare.rs` says whether an object in the cluster is
//! as it should be.

mod access;
pub(crate) mod compare;
mod deployment;
pub mod names;
mod object;
mod slots;
mod template;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;
use streampress_crds::{CheckedPipeline, CompressionPipeline, Resolved, Role};

pub(crate) use deployment::{PROGRESS_SECONDS, WORKER};
pub use object::{ObjectKind, OwnedObject, RoleDeployment};

/// How many pods each role shall have at the moment. A role that is left out keeps what it has: others scale it.
pub type Replicas = BTreeMap<Role, i32>;

/// The operator's own settings for workers.
#[derive(Clone, Debug)]
pub struct WorkerDefaults {
    /// Image of the workers where the pipeline names none, with its tag.
    pub image: String,
    /// Whether NetworkPolicies are made.
    pub network_policies: bool,
}

/// What all builders read.
struct BuildInput<'a> {
    pipeline: &'a CompressionPipeline,
    resolved: &'a Resolved,
    replicas: &'a Replicas,
    defaults: &'a WorkerDefaults,
    name: &'a str,
}

/// Lists every object of a pipeline, in the order they are to be applied.
pub fn build(
    checked: &CheckedPipeline,
    replicas: &Replicas,
    defaults: &WorkerDefaults,
) -> Vec<OwnedObject> {
    let pipeline = checked.pipeline();
    let input = BuildInput {
        pipeline,
        resolved: checked.resolved(),
        replicas,
        defaults,
        name: pipeline.metadata.name.as_deref().unwrap_or_default(),
    };
    let mut objects = access::objects(&input);
    objects.extend(slots::leases(&input));
    objects.extend(deployment::objects(&input));
    objects.sort_by(|a, b| (a.kind(), a.name()).cmp(&(b.kind(), b.name())));
    objects
}

impl BuildInput<'_> {
    /// Name, labels and owner of an object.
    fn metadata(&self, name: String, component: &str) -> ObjectMeta {
        let meta = &self.pipeline.metadata;
        ObjectMeta {
            name: Some(name),
            namespace: meta.namespace.clone(),
            labels: Some(names::labels(self.name, component)),
            owner_references: Some(vec![OwnerReference {
                api_version: CompressionPipeline::api_version(&()).into_owned(),
                kind: CompressionPipeline::kind(&()).into_owned(),
                name: self.name.to_owned(),
                uid: meta.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests;
