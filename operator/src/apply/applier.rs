//! Writes owned objects: server-side apply with one field manager, only where the object in the cluster differs, and only
//! while this process leads.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::election::Leadership;
use super::write_error::{WriteError, gone_is_done};
use crate::http::metrics::OperatorMetrics;
use crate::resources::compare::FieldsDigest;
use crate::resources::{ObjectKind, OwnedObject, RoleDeployment, names};
use crate::state::cache::{ObjectCache, ObjectKey};
use crate::state::live_object::LiveObject;

/// How long one write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Objects that the server stores otherwise than applied; above so many, those are forgotten that are no more.
const MANY_NORMALIZED: usize = 1024;
/// The field manager that owns the replicas that this operator gave up, until others scale.
const HANDED_OVER: &str = "streampress-operator-handed-over";

/// The only way to write.
pub(crate) struct Applier {
    pub(super) client: Client,
    leadership: Leadership,
    metrics: OperatorMetrics,
    cache: Arc<ObjectCache>,
    /// What was applied and what the server stored for it, where it writes that otherwise (500m for 0.5).
    normalized: Mutex<HashMap<ObjectKey, (FieldsDigest, FieldsDigest)>>,
}

impl Applier {
    /// Writes only under this leadership, and puts what it wrote into the cache.
    pub(crate) fn new(
        client: Client,
        leadership: Leadership,
        metrics: OperatorMetrics,
        cache: Arc<ObjectCache>,
    ) -> Self {
        Self {
            client,
            leadership,
            metrics,
            cache,
            normalized: Mutex::default(),
        }
    }

    /// Makes an object as it should be; whether that took a write.
    pub(crate) async fn apply(
        &self,
        desired: &OwnedObject,
        live: Option<&LiveObject>,
    ) -> Result<bool, WriteError> {
        let (kind, name) = (desired.kind(), desired.name());
        let key = ObjectKey {
            kind,
            namespace: desired.namespace().into(),
            name: name.into(),
        };
        let digest = FieldsDigest::of_desired(desired);
        if live.is_some_and(|live| self.is_applied(&key, digest, live.fields)) {
            return Ok(false);
        }
        let api = self.api(&key);
        let what = described(desired);
        // What was not seen is not ours yet: without force a foreign object of the same name stays as it is.
        let params = PatchParams {
            force: live.is_some(),
            ..PatchParams::apply(names::MANAGER)
        };
        // These have so few fields that applying them never conflicts: another owner's object would become ours without a
        // warning, and be deleted with the pipeline.
        if live.is_none() && matches!(kind, ObjectKind::ServiceAccount | ObjectKind::Lease) {
            self.assert_not_taken(desired, &api, &what).await?;
        }
        if let OwnedObject::Deployment(deployment) = desired
            && live.is_some()
            && deployment
                .object
                .spec
                .as_ref()
                .is_some_and(|spec| spec.replicas.is_none())
        {
            self.hand_replicas_over(&api, deployment, name, &what)
                .await?;
        }
        let written = self
            .write(&what, api.patch(name, &params, &Patch::Apply(desired)))
            .await
            .map_err(|error| error.of_template(desired));
        let written = match written {
            // It exists although it was not seen: ours from before (a missed event, a removed label) or another owner's.
            Err(error) if live.is_none() && error.is_conflict() => {
                self.assert_not_taken(desired, &api, &what).await?;
                self.write(
                    &what,
                    api.patch(name, &params.force(), &Patch::Apply(desired)),
                )
                .await?
            }
            written => written?,
        };
        self.metrics.wrote(kind.name());
        let stored = FieldsDigest::of_live(&written);
        self.cache.wrote(kind, &written);
        let mut normalized = self.normalized.lock();
        if stored == digest {
            normalized.remove(&key);
        } else {
            // A deleted pipeline's objects are removed by the API server, not here.
            if normalized.len() >= MANY_NORMALIZED {
                normalized.retain(|key, _| self.cache.has(key));
            }
            normalized.insert(key, (digest, stored));
        }
        Ok(true)
    }

    fn is_applied(&self, key: &ObjectKey, desired: FieldsDigest, live: FieldsDigest) -> bool {
        live == desired || self.normalized.lock().get(key) == Some(&(desired, live))
    }

    /// A field that is applied no more is removed by the API server: pods would fall back to one at the moment others begin
    /// to scale them. So the number goes to a manager of its own first, from which the one that scales takes it.
    /// Source: Kubernetes' "Server-Side Apply", "Transferring ownership".
    async fn hand_replicas_over(
        &self,
        api: &Api<DynamicObject>,
        deployment: &RoleDeployment,
        name: &str,
        what: &str,
    ) -> Result<(), WriteError> {
        let Some(live) = read(what, api.get_opt(name)).await? else {
            return Ok(());
        };
        let is_ours = live.managed_fields().iter().any(|entry| {
            entry.manager.as_deref() == Some(names::MANAGER)
                && entry.operation.as_deref() == Some("Apply")
                && entry
                    .fields_v1
                    .as_ref()
                    .is_some_and(|fields| fields.0["f:spec"].get("f:replicas").is_some())
        });
        if !is_ours {
            return Ok(());
        }
        let kind = ObjectKind::Deployment;
        // Kept at zero, no HPA would ever scale it, and a pipeline without an autoscaler would have no pod for ever.
        let replicas = match live.data["spec"]["replicas"].as_i64() {
            None | Some(0) => i64::from(deployment.first_replicas),
            Some(replicas) => replicas,
        };
        // A typed Deployment would have a selector and a template, and so would claim them.
        let patch = json!({
            "apiVersion": kind.resource().api_version,
            "kind": kind.name(),
            "metadata": {"name": name, "uid": live.metadata.uid},
            "spec": {"replicas": replicas},
        });
        let params = PatchParams::apply(HANDED_OVER).force();
        self.write(what, api.patch(name, &params, &Patch::Apply(&patch)))
            .await?;
        self.metrics.wrote(kind.name());
        Ok(())
    }

    /// Fails when there is an object of this name that was not made for this pipeline.
    async fn assert_not_taken(
        &self,
        desired: &OwnedObject,
        api: &Api<DynamicObject>,
        what: &str,
    ) -> Result<(), WriteError> {
        let found = read(what, api.get_metadata_opt(desired.name())).await?;
        let ours = desired.pipeline_uid();
        let is_ours = |owners: &[_]| {
            owners
                .iter()
                .any(|owner: &OwnerReference| owner.uid == ours)
        };
        match found {
            Some(found) if !is_ours(found.owner_references()) => Err(WriteError::Taken {
                kind: desired.kind(),
                name: desired.name().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Deletes exactly this object, not one that came after it.
    pub(crate) async fn delete(&self, key: &ObjectKey, uid: &str) -> Result<(), WriteError> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let what = format!("{} {}", key.kind.name(), key.name);
        let api = self.api(key);
        gone_is_done(self.write(&what, api.delete(&key.name, &params)).await)?;
        self.metrics.wrote(key.kind.name());
        self.normalized.lock().remove(key);
        self.cache.deleted(key);
        Ok(())
    }

    /// Puts one annotation on a Lease and leaves everything else of it alone.
    pub(crate) async fn annotate_lease(
        &self,
        namespace: &str,
        name: &str,
        annotation: &str,
        value: &str,
    ) -> Result<(), WriteError> {
        let kind = ObjectKind::Lease;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        let write = api.patch(name, &params, &patch);
        let written = self.write(&format!("Lease {name}"), write).await?;
        self.metrics.wrote(kind.name());
        self.cache.wrote(kind, &written);
        Ok(())
    }

    fn api(&self, key: &ObjectKey) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &key.namespace, &key.kind.resource())
    }

    pub(super) fn wrote(&self, kind: &str) {
        self.metrics.wrote(kind);
    }

    pub(super) async fn write<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let Some(left) = self.leadership.left() else {
            return Err(WriteError::NotLeading);
        };
        // A request that is still under way when the lead ends would land among the writes of the next leader. A process that
        // was frozen meanwhile must not go on with it when it wakes, so the clock is read before each step: the timer may fire
        // only after the step.
        let deadline = Instant::now() + WRITE_DEADLINE.min(left);
        let mut call = pin!(call);
        let in_time = poll_fn(|context| match Instant::now() < deadline {
            true => call.as_mut().poll(context).map(Some),
            false => Poll::Ready(None),
        });
        let answer = timeout_at(deadline, in_time).await.ok().flatten();
        answer
            .ok_or(WriteError::NoAnswer)?
            .map_err(|answer| WriteError::Refused {
                what: format!("writing {what}"),
                answer: Box::new(answer),
            })
    }
}

/// Kind and name of an object, and the user's part of it.
fn described(object: &OwnedObject) -> String {
    let (kind, name) = (object.kind().name(), object.name());
    match object {
        OwnedObject::Deployment(deployment) => match &deployment.users_template {
            Some(field) => format!("{kind} {name} (with {field})"),
            None => format!("{kind} {name}"),
        },
        _ => format!("{kind} {name}"),
    }
}

pub(super) async fn read<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    let answer = timeout(WRITE_DEADLINE, call)
        .await
        .map_err(|_| WriteError::NoAnswer)?;
    answer.map_err(|answer| WriteError::Refused {
        what: format!("reading {what}"),
        answer: Box::new(answer),
    })
}
