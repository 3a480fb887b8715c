//! The kinds of objects that belong to a pipeline, and one such object as it should be.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ObjectMeta;
use kube::core::ApiResource;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The kinds of a pipeline's objects. Applied in this order: what a worker needs comes before the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// The identity of the workers.
    ServiceAccount,
    /// What the workers may do.
    Role,
    /// Gives the Role to the ServiceAccount.
    RoleBinding,
    /// A slot.
    Lease,
    /// Where metrics are found.
    Service,
    /// Who may reach the workers.
    NetworkPolicy,
    /// How many pods a drained node may evict at once.
    PodDisruptionBudget,
    /// The pods of a role.
    Deployment,
    /// A worker. Deployments make them; the operator only reads why one does not start.
    Pod,
}

impl ObjectKind {
    /// Those that the operator makes, in order.
    pub const ALL: [Self; 8] = [
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::Lease,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::Deployment,
    ];

    /// The kind as YAML writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::Lease => "Lease",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Deployment => "Deployment",
            Self::Pod => "Pod",
        }
    }

    /// The API resource.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Role => ApiResource::erase::<Role>(&()),
            Self::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
            Self::Lease => ApiResource::erase::<Lease>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
        }
    }
}

/// An object as it should be, ready to be applied: it has only the fields that are ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OwnedObject {
    /// The identity of the workers.
    ServiceAccount(ServiceAccount),
    /// What the workers may do.
    Role(Role),
    /// Gives the Role to the ServiceAccount.
    RoleBinding(RoleBinding),
    /// A slot.
    Lease(Lease),
    /// Where metrics are found.
    Service(Box<Service>),
    /// Who may reach the workers.
    NetworkPolicy(NetworkPolicy),
    /// How many pods a drained node may evict at once.
    PodDisruptionBudget(PodDisruptionBudget),
    /// The pods of a role.
    Deployment(Box<RoleDeployment>),
}

/// A role's Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleDeployment {
    /// The Deployment, without its pod template.
    pub object: Deployment,
    /// The pods that others begin to scale from where there are none: an HPA leaves a Deployment without pods alone.
    pub first_replicas: i32,
    /// The field of the spec that is laid over the pod template, where the user has one.
    pub users_template: Option<String>,
    /// The pod template. It is JSON because the user's part of it may have fields of a later Kubernetes.
    pub template: Value,
}

impl Serialize for RoleDeployment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serde_json::to_value(&self.object).map_err(S::Error::custom)?;
        object["spec"]["template"] = self.template.clone();
        object.serialize(serializer)
    }
}

impl OwnedObject {
    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::ServiceAccount(_) => ObjectKind::ServiceAccount,
            Self::Role(_) => ObjectKind::Role,
            Self::RoleBinding(_) => ObjectKind::RoleBinding,
            Self::Lease(_) => ObjectKind::Lease,
            Self::Service(_) => ObjectKind::Service,
            Self::NetworkPolicy(_) => ObjectKind::NetworkPolicy,
            Self::PodDisruptionBudget(_) => ObjectKind::PodDisruptionBudget,
            Self::Deployment(_) => ObjectKind::Deployment,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ServiceAccount(object) => &object.metadata,
            Self::Role(object) => &object.metadata,
            Self::RoleBinding(object) => &object.metadata,
            Self::Lease(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
            Self::Deployment(deployment) => &deployment.object.metadata,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// The UID of the pipeline that owns it.
    pub(crate) fn pipeline_uid(&self) -> &str {
        let owners = self.metadata().owner_references.as_deref();
        owners
            .and_then(<[_]>::first)
            .map_or("", |owner| owner.uid.as_str())
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
}
