//! What is known of one pipeline in the cluster at one moment, as the decisions need it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use streampress_crds::api::status::SlotStatus;
use streampress_crds::{Resolved, Role};

use super::cache::PipelineKey;
use super::ledger::{self, Ledgers, RetiredSlots};
use super::live_object::{DeploymentState, Details, LeaseState, LiveObject};
use crate::decide::drain::DrainFacts;
use crate::decide::status::RoleState;
use crate::resources::{ObjectKind, Replicas, names};

/// A pipeline's objects.
pub(crate) struct ClusterState {
    /// The pipeline.
    pub(crate) pipeline: PipelineKey,
    objects: BTreeMap<(ObjectKind, Arc<str>), LiveObject>,
}

impl ClusterState {
    /// Objects by kind and name.
    pub(crate) fn new(
        pipeline: PipelineKey,
        objects: BTreeMap<(ObjectKind, Arc<str>), LiveObject>,
    ) -> Self {
        Self { pipeline, objects }
    }

    /// Whether there are no objects.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// One object.
    pub(crate) fn get(&self, kind: ObjectKind, name: &str) -> Option<&LiveObject> {
        self.objects.get(&(kind, Arc::from(name)))
    }

    /// All objects, in the order of their kinds.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (ObjectKind, &Arc<str>, &LiveObject)> {
        self.objects
            .iter()
            .map(|((kind, name), object)| (*kind, name, object))
    }

    /// All Leases.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (&LiveObject, &LeaseState)> + Clone {
        self.objects
            .values()
            .filter_map(|object| match &object.details {
                Details::Lease(lease) => Some((object, lease)),
                Details::Deployment(_) | Details::Other => None,
            })
    }

    fn deployment(&self, role: Role) -> Option<&DeploymentState> {
        let name = names::of_role(&self.pipeline.name, role);
        match &self.get(ObjectKind::Deployment, &name)?.details {
            Details::Deployment(deployment) => Some(deployment),
            Details::Lease(_) | Details::Other => None,
        }
    }

    fn lease(&self, name: &str) -> Option<&LeaseState> {
        match &self.get(ObjectKind::Lease, name)?.details {
            Details::Lease(lease) => Some(lease),
            Details::Deployment(_) | Details::Other => None,
        }
    }

    /// Pods that a role's Deployment asks for.
    pub(crate) fn replicas(&self, role: Role) -> Option<i32> {
        Some(self.deployment(role)?.desired)
    }

    /// What deleted slots have counted, from the Lease that notes it.
    pub(crate) fn retired(&self) -> RetiredSlots {
        let keeper = names::slot(&self.pipeline.name, Role::Compressor, 0);
        let retired = self
            .lease(&keeper)
            .and_then(|lease| lease.retired.as_deref());
        retired.cloned().unwrap_or_default()
    }

    /// What has been counted.
    pub(crate) fn ledgers(&self) -> Ledgers {
        let leases = self
            .leases()
            .filter_map(|(object, lease)| Some((object.uid.as_str(), lease.role?, lease.counted)));
        ledger::sum(leases, &self.retired())
    }

    /// How many slots are held.
    pub(crate) fn held_slots(&self) -> usize {
        let leases = self.leases();
        leases
            .filter(|(_, lease)| lease.role.is_some() && lease.holder.is_some())
            .count()
    }

    /// Pods of generator and compressor, wanted or still there.
    fn intake_pods(&self) -> i32 {
        let pods = |role| {
            self.deployment(role)
                .map_or(0, |deployment| deployment.desired.max(deployment.pods))
        };
        pods(Role::Generator) + pods(Role::Compressor)
    }

    /// The facts for [`drain`](crate::decide::drain::drain) that the cluster knows.
    pub(crate) fn drain_facts(&self, suspend: bool, was_drained: bool) -> DrainFacts {
        DrainFacts {
            suspend,
            was_drained,
            intake_pods: self.intake_pods(),
            held_slots: self.held_slots(),
            unaccounted: ledger::unaccounted(&self.ledgers()),
            chunks: None,
        }
    }

    /// The workers of each role, as the status needs them.
    pub(crate) fn roles(&self, resolved: &Resolved, planned: &Replicas) -> Vec<RoleState> {
        let name = &self.pipeline.name;
        let mut roles = Vec::new();
        for role in Role::ALL {
            if !resolved.has_role(role) {
                continue;
            }
            let slots = names::slots(name, role, resolved.slots(role));
            let slots = slots.into_iter().map(|name| SlotStatus {
                holder: self
                    .lease(&name)
                    .and_then(|lease| lease.holder.as_deref())
                    .map(pod_of),
                name,
            });
            let desired = planned.get(&role).copied().unwrap_or(1);
            // Where there is no Deployment, none is needed for no pods.
            let missing = DeploymentState {
                desired,
                rolled_out: desired == 0,
                ..DeploymentState::default()
            };
            let deployment = self.deployment(role).cloned().unwrap_or(missing);
            roles.push(RoleState {
                role,
                desired: deployment.desired,
                ready: deployment.ready,
                rolled_out: deployment.rolled_out,
                stuck: deployment.stuck,
                image: deployment.image,
                selector: names::selector_text(name, role),
                slots: slots.collect(),
            });
        }
        roles
    }
}

/// A holder is a pod and, after `_`, which of its processes.
fn pod_of(holder: &str) -> String {
    holder.split('_').next().unwrap_or(holder).to_owned()
}
