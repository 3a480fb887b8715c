//! What is kept of an object in the cluster: what decisions are made from, and a digest of the fields that are ours.
//! Read once, when the object arrives. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStatus};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::{
    Container, ContainerStateWaiting, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ObjectMeta};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use streampress_crds::ledger::{LEDGER, Ledger};
use streampress_crds::settings::{Settings, VARIABLE};
use streampress_crds::slot_health::{HEALTH, SlotHealth};
use streampress_crds::{CompressionPipeline, Role};

use super::ledger::RetiredSlots;
use crate::resources::compare::FieldsDigest;
use crate::resources::{ObjectKind, WORKER, names};

/// How long a Lease without a duration is held. Workers' Leases are made with this duration.
const LEASE: Duration = Duration::from_secs(15);
/// Why the kubelet does not start a container where waiting alone does not help. Source: pkg/kubelet/images/types.go and
/// pkg/kubelet/kuberuntime of Kubernetes.
const NOT_STARTED: [&str; 7] = [
    PULL_FAILED,
    PULL_WAITS,
    "ErrImageNeverPull",
    "ImageInspectError",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
];
/// An image could not be pulled.
const PULL_FAILED: &str = "ErrImagePull";
/// It could not be pulled, and will be tried again.
const PULL_WAITS: &str = "ImagePullBackOff";
/// The most characters of a pod's problem that are kept.
const PROBLEM_CHARS: usize = 300;

/// One object in the cluster.
#[derive(Clone, Debug)]
pub(crate) struct LiveObject {
    /// Its UID.
    pub(crate) uid: String,
    /// The UID of the pipeline in its owner reference.
    pub(crate) owner_uid: Option<String>,
    /// Whether it is being deleted.
    is_deleting: bool,
    /// The fields that this operator applied and still owns.
    pub(crate) fields: FieldsDigest,
    /// What else is read of it.
    pub(crate) details: Details,
}

/// What is read of an object of one kind.
#[derive(Clone, Debug)]
pub(crate) enum Details {
    /// A role's pods.
    Deployment(DeploymentState),
    /// A slot.
    Lease(LeaseState),
    /// A worker.
    Pod(PodState),
    /// Nothing is read of the other kinds.
    Other,
}

/// A Deployment's spec and status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeploymentState {
    /// Pods in its spec.
    pub(crate) desired: i32,
    /// Pods that exist, ready or not.
    pub(crate) pods: i32,
    /// Pods of its latest spec.
    pub(crate) updated: i32,
    /// Pods ready.
    pub(crate) ready: i32,
    /// It has dealt with its latest spec, and all pods run it.
    pub(crate) rolled_out: bool,
    /// Its pods only take receipts, and pods that do more are gone.
    pub(crate) takes_receipts_only: bool,
    /// Why its pods do not come up, in the cluster's words.
    pub(crate) stuck: Option<String>,
    /// Since when pods have been missing that stay up.
    pub(crate) unavailable_since: Option<Timestamp>,
    /// Image of the pods.
    pub(crate) image: Option<String>,
}

/// A pod, as far as it says why it does not start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodState {
    /// Its role, by its label.
    pub(crate) role: Option<Role>,
    /// Image of its worker.
    pub(crate) image: Option<String>,
    /// Why a container does not start, in the kubelet's words.
    pub(crate) problem: Option<String>,
    /// Why no node takes it, in the scheduler's words. That may pass, as when a node is added.
    pub(crate) unscheduled: Option<String>,
}

/// A Lease's spec and annotations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LeaseState {
    /// The role whose slot it is, by its label.
    pub(crate) role: Option<Role>,
    /// The worker that holds it.
    pub(crate) holder: Option<String>,
    /// How long it is held without a renewal.
    duration: Duration,
    /// The UID of the pipeline that it was made for, by its annotation.
    pipeline_uid: Option<String>,
    /// What its holders have counted.
    pub(crate) counted: Ledger,
    /// What they know of the services that they need.
    pub(crate) health: SlotHealth,
    /// What deleted slots have counted.
    pub(crate) retired: Option<Box<RetiredSlots>>,
}

impl LiveObject {
    /// Reads an object.
    pub(crate) fn of(kind: ObjectKind, object: &DynamicObject) -> Self {
        let meta = &object.metadata;
        let pipeline = CompressionPipeline::kind(&());
        let owner = object
            .owner_references()
            .iter()
            .find(|owner| owner.kind == pipeline);
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            owner_uid: owner.map(|owner| owner.uid.clone()),
            is_deleting: meta.deletion_timestamp.is_some(),
            fields: FieldsDigest::of_live(object),
            details: match kind {
                ObjectKind::Deployment => Details::Deployment(DeploymentState::of(object)),
                ObjectKind::Lease => Details::Lease(LeaseState::of(object)),
                ObjectKind::Pod => Details::Pod(PodState::of(object)),
                _ => Details::Other,
            },
        }
    }

    /// Whether it was made for another pipeline than the one of this UID: an earlier one of the same name.
    pub(crate) fn is_of_another(&self, uid: &str) -> bool {
        let noted = match &self.details {
            Details::Lease(lease) => lease.pipeline_uid.as_deref(),
            Details::Deployment(_) | Details::Pod(_) | Details::Other => None,
        };
        let of = self.owner_uid.as_deref().or(noted);
        of.is_some_and(|of| of != uid)
    }

    /// Whether there is a reason to reconcile. A Lease's renewals and counters are none.
    pub(super) fn differs_from(&self, before: &Self) -> bool {
        let same = |a: &Self, b: &Self| {
            a.uid == b.uid
                && a.owner_uid == b.owner_uid
                && a.is_deleting == b.is_deleting
                && a.fields == b.fields
        };
        let same_details = match (&self.details, &before.details) {
            (Details::Deployment(now), Details::Deployment(before)) => now == before,
            (Details::Pod(now), Details::Pod(before)) => now == before,
            (Details::Lease(now), Details::Lease(before)) => {
                now.holder == before.holder && now.health.outage == before.health.outage
            }
            _ => true,
        };
        !same(self, before) || !same_details
    }

    /// The object when it has not changed for so long. A Lease that was not renewed for its own time has no holder any
    /// more, though it still names one: a killed worker cannot remove its name. The time is measured here from the last
    /// change seen, as the workers that want the Lease do, since clocks differ.
    pub(super) fn after(&self, unchanged_for: Duration) -> Self {
        let mut object = self.clone();
        if let Details::Lease(lease) = &mut object.details
            && unchanged_for > lease.duration
        {
            lease.holder = None;
        }
        object
    }
}

impl DeploymentState {
    fn of(object: &DynamicObject) -> Self {
        let spec: DeploymentSpec = part(object, "spec");
        let status: DeploymentStatus = part(object, "status");
        let desired = spec.replicas.unwrap_or(0);
        let pods = status.replicas.unwrap_or(0);
        let updated = status.updated_replicas.unwrap_or(0);
        let containers = spec
            .template
            .spec
            .into_iter()
            .flat_map(|pod| pod.containers);
        let worker = containers
            .into_iter()
            .find(|container| container.name == WORKER);
        let has_latest = status.observed_generation == object.metadata.generation;
        Self {
            desired,
            pods,
            updated,
            ready: status.ready_replicas.unwrap_or(0),
            rolled_out: has_latest && updated >= desired && pods <= updated,
            takes_receipts_only: (pods == 0 || (has_latest && pods <= updated))
                && worker.as_ref().is_some_and(takes_receipts_only),
            stuck: stuck(&status),
            unavailable_since: unavailable_since(&status),
            image: worker.and_then(|container| container.image),
        }
    }
}

/// Whether the settings in the worker's environment say so.
fn takes_receipts_only(worker: &Container) -> bool {
    let mut variables = worker.env.iter().flatten();
    let settings = variables.find(|variable| variable.name == VARIABLE);
    let json = settings.and_then(|variable| variable.value.as_deref());
    let settings = json.and_then(|json| streampress_crds::settings::read(json).ok());
    matches!(settings, Some((Settings::Compressor(compressor), _)) if compressor.receipts_only)
}

/// What is wrong, in the Deployment's own words.
fn stuck(status: &DeploymentStatus) -> Option<String> {
    let find = |type_: &str, holds: &str, reason: Option<&str>| {
        status.conditions.iter().flatten().find(|condition| {
            condition.type_ == type_
                && condition.status == holds
                && reason.is_none_or(|reason| condition.reason.as_deref() == Some(reason))
        })
    };
    let condition = find("ReplicaFailure", "True", None)
        .or_else(|| find("Progressing", "False", Some("ProgressDeadlineExceeded")))?;
    let message = condition.message.as_deref();
    Some(
        message
            .unwrap_or("its pods cannot be made")
            .trim_end_matches('.')
            .to_owned(),
    )
}

/// Since when the Deployment has had fewer available pods than it needs. A pod that ends again and again is ready for moments,
/// and never available.
fn unavailable_since(status: &DeploymentStatus) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions
        .find(|condition| condition.type_ == "Available" && condition.status == "False")?;
    condition.last_transition_time.as_ref().map(|since| since.0)
}

impl PodState {
    fn of(object: &DynamicObject) -> Self {
        // Labels are easily copied: a worker's pod belongs to a Deployment's ReplicaSet, and one that is deleted is no problem.
        let owners = object.owner_references();
        let is_worker = owners.iter().any(|owner| owner.kind == "ReplicaSet")
            && object.metadata.deletion_timestamp.is_none();
        if !is_worker {
            return Self::default();
        }
        let spec: PodSpec = part(object, "spec");
        let status: PodStatus = part(object, "status");
        let mut conditions = status.conditions.iter().flatten();
        let unscheduled = conditions.find_map(not_scheduled);
        let containers = status.init_container_statuses.into_iter().flatten();
        let mut containers = containers.chain(status.container_statuses.into_iter().flatten());
        let worker = spec.containers.into_iter().find(|it| it.name == WORKER);
        Self {
            role: role_of(&object.metadata),
            image: worker.and_then(|worker| worker.image),
            problem: containers.find_map(|it| not_started(&it.state?.waiting?)),
            unscheduled,
        }
    }
}

/// Why the scheduler finds no node for a pod. What it says of preemption differs from one attempt to the next.
fn not_scheduled(condition: &PodCondition) -> Option<String> {
    if condition.type_ != "PodScheduled" || condition.status != "False" {
        return None;
    }
    let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
    let message = condition.message.as_deref().unwrap_or_default();
    let message = message.split(" preemption: ").next().unwrap_or_default();
    Some(quoted(reason, message))
}

/// A reason and a message as one clause without a full stop.
fn quoted(reason: &str, message: &str) -> String {
    let message: String = message.chars().take(PROBLEM_CHARS).collect();
    let said = format!("{reason}: {}", message.trim_end_matches('.'));
    said.trim_end_matches([':', ' ']).to_owned()
}

/// Why the kubelet does not start a container; nothing while it is about to. A failed pull and the wait after it say the same,
/// so that a status does not change with each attempt.
fn not_started(waiting: &ContainerStateWaiting) -> Option<String> {
    let reason = waiting.reason.as_deref();
    let reason = reason.filter(|reason| NOT_STARTED.contains(reason))?;
    let message = waiting.message.as_deref().unwrap_or_default();
    let failed_pull = format!("{PULL_FAILED}: ");
    let (reason, message) = match message.split_once(&failed_pull) {
        Some((_, cause)) if reason == PULL_WAITS => (PULL_FAILED, cause),
        _ => (reason, message),
    };
    Some(quoted(reason, message))
}

/// The role of a pipeline's object, by its label.
fn role_of(meta: &ObjectMeta) -> Option<Role> {
    meta.labels.as_ref()?.get(names::COMPONENT)?.parse().ok()
}

impl LeaseState {
    fn of(object: &DynamicObject) -> Self {
        let spec: LeaseSpec = part(object, "spec");
        let meta = &object.metadata;
        let seconds = spec.lease_duration_seconds;
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            role: role_of(meta),
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: seconds.map_or(LEASE, Duration::from_secs),
            pipeline_uid: text(meta, names::PIPELINE_UID).cloned(),
            counted: annotation(meta, LEDGER).unwrap_or_default(),
            health: annotation(meta, HEALTH).unwrap_or_default(),
            retired: annotation(meta, names::RETIRED).map(Box::new),
        }
    }
}

/// A part of an object as its type has it; what cannot be read counts as empty.
fn part<T: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> T {
    T::deserialize(&object.data[name]).unwrap_or_default()
}

fn text<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    meta.annotations
        .as_ref()
        .and_then(|notes: &BTreeMap<_, _>| notes.get(name))
}

/// An annotation in JSON; one that cannot be read counts as missing.
fn annotation<T: DeserializeOwned>(meta: &ObjectMeta, name: &str) -> Option<T> {
    serde_json::from_str(text(meta, name)?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(object: Value) -> DeploymentState {
        DeploymentState::of(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn a_deployment_is_rolled_out_when_it_dealt_with_its_latest_spec_on_all_pods() {
        let deployment = |observed: i64, updated: i64, all: i64| {
            deployment(json!({
                "metadata": {"generation": 2}, "spec": {"replicas": 2},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": all, "readyReplicas": 2},
            }))
        };
        assert!(deployment(2, 2, 2).rolled_out);
        assert!(!deployment(1, 2, 2).rolled_out);
        assert!(!deployment(2, 1, 2).rolled_out);
        assert!(!deployment(2, 2, 3).rolled_out);
    }

    #[test]
    fn compressors_take_receipts_only_once_all_that_pack_are_gone() {
        let spec = json!({"source": {"location": "file:///data/in"}, "destination": {"location": "file:///data/out"}});
        let pipeline = json!({
            "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
            "metadata": {"name": "stock"}, "spec": spec,
        });
        let pipeline = serde_json::from_value(pipeline).expect("a pipeline");
        let checked = streampress_crds::CheckedPipeline::new(pipeline).expect("valid");
        let compressor = checked.resolved().compressor_settings();
        let takes_receipts_only = |receipts_only, observed: i64, updated: i64, all: i64| {
            let compressor = match receipts_only {
                true => compressor.clone().of_receipts_only(),
                false => compressor.clone(),
            };
            let settings = Settings::Compressor(compressor);
            let variable = json!({"name": VARIABLE, "value": settings.to_json()});
            let container = json!({"name": WORKER, "env": [variable]});
            let object = json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": [container]}}},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": all},
            });
            deployment(object).takes_receipts_only
        };
        assert!(takes_receipts_only(true, 2, 1, 1));
        assert!(takes_receipts_only(true, 1, 0, 0));
        assert!(!takes_receipts_only(true, 1, 1, 1));
        assert!(!takes_receipts_only(true, 2, 1, 2));
        assert!(!takes_receipts_only(false, 2, 1, 1));
    }

    #[test]
    fn a_deployment_that_says_why_it_is_stuck_is_quoted() {
        let stuck = |condition: Value| {
            let object = json!({"metadata": {}, "spec": {}, "status": {"conditions": [condition]}});
            deployment(object).stuck
        };
        let quota =
            json!({"type": "ReplicaFailure", "status": "True", "message": "exceeded quota."});
        assert_eq!(stuck(quota).as_deref(), Some("exceeded quota"));
        let fine =
            json!({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"});
        assert_eq!(stuck(fine), None);
    }

    #[test]
    fn a_deployment_knows_since_when_its_pods_have_not_stayed_up() {
        let since = |status: &str| {
            let condition = json!({"type": "Available", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let object = json!({"metadata": {}, "spec": {}, "status": {"readyReplicas": 1, "conditions": [condition]}});
            deployment(object)
                .unavailable_since
                .map(|since| since.to_string())
        };
        assert_eq!(since("False").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(since("True"), None);
    }

    fn pod(waiting: Value, more: Value) -> PodState {
        let mut object = json!({
            "metadata": {"labels": {names::COMPONENT: "compressor"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "stock-compressor-1", "uid": "r"}
            ]},
            "spec": {"containers": [{"name": WORKER, "image": "r/s:1"}]},
            "status": {"containerStatuses": [
                {"name": WORKER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": waiting}}
            ]},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            object["metadata"][name] = value.clone();
        }
        PodState::of(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn a_pod_says_why_the_kubelet_does_not_start_it_and_nothing_while_it_is_about_to() {
        let says = |reason: &str, message: &str| {
            let pod = pod(json!({"reason": reason, "message": message}), json!({}));
            (pod.role, pod.problem)
        };
        let said = |problem: &str| (Some(Role::Compressor), Some(problem.to_owned()));
        assert_eq!(
            says("ErrImagePull", "r/s:1: not found."),
            said("ErrImagePull: r/s:1: not found")
        );
        assert_eq!(
            says(
                "ImagePullBackOff",
                r#"Back-off pulling image "r/s:1": ErrImagePull: r/s:1: not found"#
            ),
            said("ErrImagePull: r/s:1: not found")
        );
        assert_eq!(
            says("ImagePullBackOff", r#"Back-off pulling image "r/s:1""#),
            said(r#"ImagePullBackOff: Back-off pulling image "r/s:1""#)
        );
        assert_eq!(says("InvalidImageName", ""), said("InvalidImageName"));
        assert_eq!(
            says("CreateContainerConfigError", r#"secret "keys" not found"#),
            said(r#"CreateContainerConfigError: secret "keys" not found"#)
        );
        for normal in ["ContainerCreating", "PodInitializing", "CrashLoopBackOff"] {
            assert_eq!(says(normal, "").1, None, "{normal}");
        }
    }

    #[test]
    fn a_pod_that_no_node_takes_is_quoted_with_the_schedulers_words() {
        let says = |type_: &str, status: &str, message: &str| {
            let condition = json!({"type": type_, "status": status, "reason": "Unschedulable", "message": message});
            let object = json!({
                "metadata": {"labels": {names::COMPONENT: "compressor"}, "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "stock-compressor-1", "uid": "r"}
                ]},
                "spec": {"containers": [{"name": WORKER, "image": "r/s:1"}]},
                "status": {"phase": "Pending", "conditions": [condition]},
            });
            PodState::of(&serde_json::from_value(object).expect("an object")).unscheduled
        };
        assert_eq!(
            says(
                "PodScheduled",
                "False",
                r#"0/1 nodes are available: persistentvolumeclaim "files" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."#
            )
            .as_deref(),
            Some(r#"Unschedulable: 0/1 nodes are available: persistentvolumeclaim "files" not found"#)
        );
        assert_eq!(
            says("PodScheduled", "False", "").as_deref(),
            Some("Unschedulable")
        );
        assert_eq!(says("PodScheduled", "True", ""), None);
        assert_eq!(says("Ready", "False", ""), None);
    }

    #[test]
    fn a_pod_that_is_deleted_or_that_no_deployment_made_says_nothing() {
        let waiting = json!({"reason": "ErrImagePull", "message": "not found"});
        for more in [
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!({"ownerReferences": []}),
        ] {
            assert_eq!(pod(waiting.clone(), more), PodState::default());
        }
    }

    #[test]
    fn a_lease_is_read_with_its_counters_and_what_cannot_be_read_counts_as_nothing() {
        let lease = |ledger: &str| {
            let health = r#"{"workedAt":5}"#;
            let object = json!({
                "metadata": {"uid": "u", "labels": {names::COMPONENT: "decompressor"}, "annotations": {LEDGER: ledger, HEALTH: health}},
                "spec": {"holderIdentity": "pod_1", "leaseDurationSeconds": 3},
            });
            LeaseState::of(&serde_json::from_value(object).expect("an object"))
        };
        let whole = lease(r#"{"files":2}"#);
        assert_eq!(
            (whole.role, whole.counted.files, whole.health.worked_at),
            (Some(Role::Decompressor), 2, 5)
        );
        assert_eq!(
            (whole.holder.as_deref(), whole.duration),
            (Some("pod_1"), Duration::from_secs(3))
        );
        assert_eq!(lease("not json").counted, Ledger::default());
    }
}
