//! What is known of one pipeline in the cluster at one moment, as the decisions need it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use streampress_crds::api::status::SlotStatus;
use streampress_crds::slot_health::{NeededService, ReportedOutage};
use streampress_crds::{Resolved, Role};

use super::ledger::{self, Ledgers, RetiredSlots};
use super::live_object::{DeploymentState, Details, LeaseState, LiveObject, PodState};
use super::pipeline::PipelineKey;
use crate::decide::drain::DrainFacts;
use crate::decide::status::{RoleOutage, RoleState};
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
                Details::Deployment(_) | Details::Pod(_) | Details::Other => None,
            })
    }

    fn deployment(&self, role: Role) -> Option<&DeploymentState> {
        let name = names::of_role(&self.pipeline.name, role);
        match &self.get(ObjectKind::Deployment, &name)?.details {
            Details::Deployment(deployment) => Some(deployment),
            Details::Lease(_) | Details::Pod(_) | Details::Other => None,
        }
    }

    fn lease(&self, name: &str) -> Option<&LeaseState> {
        match &self.get(ObjectKind::Lease, name)?.details {
            Details::Lease(lease) => Some(lease),
            Details::Deployment(_) | Details::Pod(_) | Details::Other => None,
        }
    }

    /// Pods that a role's Deployment asks for.
    pub(crate) fn replicas(&self, role: Role) -> Option<i32> {
        Some(self.deployment(role)?.desired)
    }

    /// The Leases of the pipeline of this UID: those of an earlier one of the same name may still be there.
    fn leases_of(&self, uid: &str) -> impl Iterator<Item = (&LiveObject, &LeaseState)> + Clone {
        let leases = self.leases();
        leases.filter(move |(object, _)| !object.is_of_another(uid))
    }

    /// What deleted slots of the pipeline of this UID have counted, from the Lease that notes it.
    pub(crate) fn retired(&self, uid: &str) -> RetiredSlots {
        let mut leases = self.leases_of(uid);
        let retired = leases.find_map(|(_, lease)| lease.retired.as_deref());
        retired.cloned().unwrap_or_default()
    }

    /// What has been counted for the pipeline of this UID.
    pub(crate) fn ledgers(&self, uid: &str) -> Ledgers {
        let leases = self
            .leases_of(uid)
            .filter_map(|(object, lease)| Some((object.uid.as_str(), lease.role?, lease.counted)));
        ledger::sum(leases, &self.retired(uid))
    }

    /// The services that are down for a role: those that holders of its slots reported last, where no message of the role was
    /// done since.
    pub(crate) fn outages(&self) -> Vec<RoleOutage> {
        let mut worked = BTreeMap::<Role, u64>::new();
        let mut reported = BTreeMap::<(Role, NeededService), &ReportedOutage>::new();
        for (role, health) in self
            .leases()
            .filter_map(|(_, lease)| Some((lease.role?, &lease.health)))
        {
            let worked = worked.entry(role).or_default();
            *worked = health.worked_at.max(*worked);
            if let Some(outage) = &health.outage {
                let latest = reported.entry((role, outage.service)).or_insert(outage);
                if outage.at > latest.at {
                    *latest = outage;
                }
            }
        }
        let present = reported.into_iter().filter(|((role, _), outage)| {
            worked.get(role).is_none_or(|worked| outage.at >= *worked)
        });
        present
            .map(|((role, service), outage)| RoleOutage {
                role,
                service,
                kind: outage.kind,
                cause: outage.cause.clone(),
            })
            .collect()
    }

    /// Files and folders of the source that the scan could not take.
    pub(crate) fn left_out(&self) -> u64 {
        self.leases().map(|(_, lease)| lease.health.left_out).sum()
    }

    /// How many slots are held.
    pub(crate) fn held_slots(&self) -> usize {
        let leases = self.leases();
        leases
            .filter(|(_, lease)| lease.role.is_some() && lease.holder.is_some())
            .count()
    }

    /// Pods of generator and compressor, wanted or still there, which make or pack files.
    fn intake_pods(&self) -> i32 {
        let pods = |role| match self.deployment(role) {
            Some(deployment) if !deployment.takes_receipts_only => {
                deployment.desired.max(deployment.pods)
            }
            Some(_) | None => 0,
        };
        pods(Role::Generator) + pods(Role::Compressor)
    }

    /// The facts for [`drain`](crate::decide::drain::drain) that the cluster knows.
    pub(crate) fn drain_facts(&self, uid: &str, suspend: bool, was_drained: bool) -> DrainFacts {
        DrainFacts {
            suspend,
            was_drained,
            intake_pods: self.intake_pods(),
            held_slots: self.held_slots(),
            unaccounted: ledger::unaccounted(&self.ledgers(uid)),
            chunks: None,
            receipts: None,
        }
    }

    /// What is wrong with a pod of a role with this image. Pods of a spec before this one leave when those of this one run.
    fn pod_problem(
        &self,
        role: Role,
        image: Option<&String>,
        problem: impl Fn(&PodState) -> Option<&String>,
    ) -> Option<String> {
        let mut pods = self
            .objects
            .values()
            .filter_map(|object| match &object.details {
                Details::Pod(pod) => Some(pod),
                Details::Deployment(_) | Details::Lease(_) | Details::Other => None,
            });
        pods.find_map(|pod| {
            let is_ours = pod.role == Some(role) && pod.image.as_ref() == image;
            problem(pod).filter(|_| is_ours).cloned()
        })
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
            let image = deployment.image.as_ref();
            let of_pod =
                |problem: fn(&PodState) -> Option<&String>| self.pod_problem(role, image, problem);
            roles.push(RoleState {
                role,
                desired: deployment.desired,
                pods: deployment.pods,
                updated: deployment.updated,
                ready: deployment.ready,
                rolled_out: deployment.rolled_out,
                stuck: deployment.stuck,
                pod_problem: of_pod(|pod| pod.problem.as_ref()),
                unscheduled: of_pod(|pod| pod.unscheduled.as_ref()),
                unavailable_since: deployment.unavailable_since,
                image: deployment.image,
                namespace: self.pipeline.namespace.to_string(),
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

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::json;
    use streampress_crds::slot_health::{HEALTH, OutageKind, SlotHealth};

    use super::*;

    fn outages(slots: &[(Role, SlotHealth)]) -> Vec<(Role, NeededService)> {
        let lease = |(number, (role, health)): (usize, &(Role, SlotHealth))| {
            let object: DynamicObject = serde_json::from_value(json!({"metadata": {
                "uid": number.to_string(),
                "labels": {names::COMPONENT: role.to_string()},
                "annotations": {HEALTH: serde_json::to_string(health).expect("has a JSON form")},
            }}))
            .expect("an object");
            let key = (ObjectKind::Lease, Arc::from(number.to_string()));
            (key, LiveObject::of(ObjectKind::Lease, &object))
        };
        let key = PipelineKey::of(&kube::api::ObjectMeta::default());
        let state = ClusterState::new(key, slots.iter().enumerate().map(lease).collect());
        let outages = state.outages().into_iter();
        outages.map(|it| (it.role, it.service)).collect()
    }

    fn down(service: NeededService, at: u64, worked_at: u64) -> SlotHealth {
        let mut health = SlotHealth::default();
        health.worked(worked_at);
        health.is_down(service, OutageKind::Down, "full", at);
        health
    }

    fn worked(at: u64) -> SlotHealth {
        let mut health = SlotHealth::default();
        health.worked(at);
        health
    }

    #[test]
    fn a_service_is_down_for_a_role_until_one_of_its_slots_works_again() {
        use NeededService::{Destination, Source, Stream};
        use Role::{Compressor, Decompressor};
        assert_eq!(outages(&[(Compressor, worked(5))]), []);
        let full = (Decompressor, down(Destination, 10, 5));
        let found = [(Decompressor, Destination)];
        assert_eq!(outages(std::slice::from_ref(&full)), found);
        assert_eq!(
            outages(&[full.clone(), (Decompressor, worked(9))]),
            found,
            "another worked before"
        );
        assert_eq!(outages(&[full.clone(), (Decompressor, worked(11))]), []);
        assert_eq!(
            outages(&[full.clone(), (Compressor, worked(11))]),
            found,
            "another role does not need the destination"
        );
        assert_eq!(
            outages(&[
                full,
                (Compressor, down(Source, 1, 0)),
                (Compressor, down(Stream, 2, 0)),
            ]),
            [
                (Compressor, Source),
                (Compressor, Stream),
                (Decompressor, Destination)
            ]
        );
    }
}
