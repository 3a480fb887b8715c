//! From live objects to what the pure parts ask for. Pure itself: reads JSON, asks nobody.

use std::collections::HashMap;

use serde_json::Value;
use streampress_crds::api::status::SlotStatus;
use streampress_crds::settings::{Resolved, Role};

use crate::decide::drain;
use crate::decide::status::RoleView;
use crate::resources::names;
use crate::resources::owned_object::Kind;
use crate::resources::slot_names;
use crate::state::cache::{Key, Owner};
use crate::state::ledger::{self, Ledgers, Retired};

/// A pipeline's live objects.
pub struct Live<'a> {
    /// The pipeline's name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The objects.
    pub objects: &'a HashMap<Key, Value>,
}

impl<'a> Live<'a> {
    /// What the store has of a pipeline.
    pub fn of((namespace, name): &'a Owner, objects: &'a HashMap<Key, Value>) -> Self {
        Self {
            name,
            namespace,
            objects,
        }
    }

    /// One object.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&Key {
            kind,
            namespace: self.namespace.into(),
            name: name.into(),
        })
    }

    /// A role's Deployment.
    pub fn deployment(&self, role: Role) -> Option<&Value> {
        self.get(Kind::Deployment, &names::of_role(self.name, role))
    }

    /// Pods that a role's Deployment asks for.
    pub fn replicas(&self, role: Role) -> Option<i32> {
        Some(int(&self.deployment(role)?["spec"]["replicas"]))
    }

    /// The Lease on which retired slots are noted.
    pub fn retired(&self) -> Retired {
        let lease = self.get(Kind::Lease, &names::slot(self.name, Role::Compressor, 0));
        lease.map(Retired::of).unwrap_or_default()
    }

    /// All Leases, by role.
    pub fn leases(&self) -> Vec<(Role, &Key, &Value)> {
        let role_of = |lease: &Value| {
            Role::ALL
                .into_iter()
                .find(|role| lease["metadata"]["labels"][names::COMPONENT] == role.as_str())
        };
        let leases = self
            .objects
            .iter()
            .filter(|(key, _)| key.kind == Kind::Lease);
        leases
            .filter_map(|(key, lease)| Some((role_of(lease)?, key, lease)))
            .collect()
    }

    /// What has been counted.
    pub fn ledgers(&self) -> Ledgers {
        let leases = self.leases();
        ledger::sum(
            leases.iter().map(|(role, _, lease)| (*role, *lease)),
            &self.retired(),
        )
    }

    /// How many slots somebody holds.
    pub fn held_slots(&self) -> usize {
        self.leases()
            .iter()
            .filter(|(_, _, lease)| holder(lease).is_some())
            .count()
    }

    /// What suspending goes by.
    pub fn intake_pods(&self) -> i32 {
        let pods = |role| {
            self.deployment(role).map_or(0, |deployment| {
                int(&deployment["spec"]["replicas"]).max(int(&deployment["status"]["replicas"]))
            })
        };
        pods(Role::Generator) + pods(Role::Compressor)
    }

    /// The facts for [`drain::drain`] that live objects hold.
    pub fn drain_facts(&self, suspend: bool, was_drained: bool) -> drain::Facts {
        drain::Facts {
            suspend,
            was_drained,
            intake_pods: self.intake_pods(),
            held_slots: self.held_slots(),
            unaccounted: ledger::unaccounted(&self.ledgers()),
            chunks: None,
        }
    }

    /// The workers of each role, as the status wants them.
    pub fn roles(
        &self,
        resolved: &Resolved,
        planned: &crate::resources::Replicas,
    ) -> Vec<RoleView> {
        let slots = slot_names(self.name, resolved);
        let roles = Role::ALL
            .into_iter()
            .filter(|role| resolved.has_role(*role));
        roles
            .map(|role| {
                let of_role = slots.iter().filter(|(of, _)| *of == role);
                let slots = of_role
                    .map(|(_, name)| SlotStatus {
                        name: name.clone(),
                        holder: self.get(Kind::Lease, name).and_then(holder).map(pod_of),
                    })
                    .collect();
                let planned = planned.get(&role).copied();
                role_view(
                    role,
                    self.deployment(role),
                    planned,
                    names::selector_text(self.name, role),
                    slots,
                )
            })
            .collect()
    }
}

fn role_view(
    role: Role,
    deployment: Option<&Value>,
    planned: Option<i32>,
    selector: String,
    slots: Vec<SlotStatus>,
) -> RoleView {
    let Some(deployment) = deployment else {
        let desired = planned.unwrap_or(1);
        return RoleView {
            role,
            desired,
            ready: 0,
            rolled_out: desired == 0,
            stuck: None,
            image: None,
            selector,
            slots,
        };
    };
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let desired = int(&spec["replicas"]);
    let generation = &deployment["metadata"]["generation"];
    let rolled_out = status["observedGeneration"] == *generation
        && int(&status["updatedReplicas"]) >= desired
        && int(&status["replicas"]) <= int(&status["updatedReplicas"]);
    let image = spec["template"]["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|container| container["name"] == "worker");
    RoleView {
        role,
        desired,
        ready: int(&status["readyReplicas"]),
        rolled_out,
        stuck: stuck(status),
        image: image
            .and_then(|container| container["image"].as_str())
            .map(str::to_owned),
        selector,
        slots,
    }
}

/// What the Deployment itself says is wrong.
fn stuck(status: &Value) -> Option<String> {
    let says = |type_: &str, holds: &str, reason: Option<&str>| {
        status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| {
                condition["type"] == type_
                    && condition["status"] == holds
                    && reason.is_none_or(|reason| condition["reason"] == reason)
            })
    };
    let condition = says("ReplicaFailure", "True", None)
        .or_else(|| says("Progressing", "False", Some("ProgressDeadlineExceeded")))?;
    Some(
        condition["message"]
            .as_str()
            .unwrap_or("its pods cannot be made")
            .trim_end_matches('.')
            .to_owned(),
    )
}

/// Who holds a Lease.
pub fn holder(lease: &Value) -> Option<&str> {
    lease["spec"]["holderIdentity"]
        .as_str()
        .filter(|holder| !holder.is_empty())
}

/// The pipeline that an object was made for.
pub fn owner_uid(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners
        .iter()
        .find(|owner| owner["kind"] == "CompressionPipeline")?["uid"]
        .as_str()
}

/// Whether an object was made for another pipeline than the one of this UID: an earlier one of the same name.
pub fn is_of_another(object: &Value, uid: Option<&str>) -> bool {
    let noted = object["metadata"]["annotations"][names::PIPELINE_UID].as_str();
    let of = owner_uid(object).or(noted);
    of.is_some() && of != uid
}

/// A holder is a pod and, after `_`, which of its processes.
fn pod_of(holder: &str) -> String {
    holder.split('_').next().unwrap_or(holder).to_owned()
}

fn int(value: &Value) -> i32 {
    value
        .as_i64()
        .and_then(|n| i32::try_from(n).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(deployment: Value) -> RoleView {
        role_view(
            Role::Compressor,
            Some(&deployment),
            None,
            "s".into(),
            Vec::new(),
        )
    }

    #[test]
    fn a_deployment_is_rolled_out_when_it_dealt_with_its_latest_spec_on_all_pods() {
        let deployment = |observed: i64, updated: i64, all: i64| json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": all, "readyReplicas": 2}});
        assert!(view(deployment(2, 2, 2)).rolled_out);
        assert!(!view(deployment(1, 2, 2)).rolled_out);
        assert!(!view(deployment(2, 1, 2)).rolled_out);
        assert!(!view(deployment(2, 2, 3)).rolled_out);
    }

    #[test]
    fn a_deployment_that_says_why_it_is_stuck_is_quoted() {
        let quota = json!({"spec": {}, "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota."}]}});
        assert_eq!(view(quota).stuck.as_deref(), Some("exceeded quota"));
        let fine = json!({"spec": {}, "status": {"conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]}});
        assert_eq!(view(fine).stuck, None);
    }
}
