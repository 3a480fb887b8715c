//! Writes to the API server: server-side apply with one field manager, only where what is there differs, and only
//! while this process leads.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use streampress_transport::error_chain;
use tokio::time::{Instant, timeout, timeout_at};

use crate::apply::election::Leadership;
use crate::http::metrics::Metrics;
use crate::resources::names;
use crate::resources::owned_object::{Child, Kind, projection};
use crate::state::cache::{Key, Store};
use crate::state::cluster_state::owner_uid;

/// How long one write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// On every object: a hash of what was applied, so that a field that is no longer ours is taken away even when the
/// operator was not there at the time.
const APPLIED: &str = "streampress.dev/applied";

/// Who owns the replicas that we gave up, until somebody scales.
const HANDED_OVER: &str = "streampress-operator-handed-over";

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// This process leads no more.
    #[error("this operator leads no more")]
    NotLeading,
    /// No answer.
    #[error("the API server did not answer in time")]
    NoAnswer,
    /// It is there already and belongs to somebody else.
    #[error(
        "there is already a {kind} {name} that is not this pipeline's; delete or rename it, or rename the pipeline"
    )]
    Taken {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The server refused or failed.
    #[error("{what}: {}", said(.answer))]
    Refused {
        /// What was done to what.
        what: String,
        /// What the server said.
        answer: Box<kube::Error>,
    },
}

/// The server's own sentence, since kube's has the whole Status object behind it; or why there is none.
fn said(answer: &kube::Error) -> String {
    match answer {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => error_chain(other),
    }
}

impl WriteError {
    /// Whether trying the same again can help.
    pub fn is_lasting(&self) -> bool {
        match self {
            WriteError::Taken { .. } => true,
            WriteError::Refused { answer, .. } => {
                matches!(&**answer, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
            }
            WriteError::NotLeading | WriteError::NoAnswer => false,
        }
    }

    /// Whether the object is gone. A conflict is not that: the next look, with what the watch has brought by then, tells
    /// whether it is another object of the same name.
    pub fn is_gone(&self) -> bool {
        matches!(self, WriteError::Refused { answer, .. } if matches!(&**answer, kube::Error::Api(status) if status.code == 404))
    }
}

/// The only way to write.
pub struct Hands {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
    /// What the server made of what we applied, where it wrote it otherwise than we did (500m for 0.5). Hashes of both,
    /// since there may be thousands.
    settled: Mutex<HashMap<Key, (String, String)>>,
}

/// The API resource of a kind.
pub fn resource(kind: Kind) -> ApiResource {
    let (group, version, plural) = kind.resource();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.name()), plural)
}

/// The API resource of pipelines.
pub fn pipelines() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("streampress.dev", "v1alpha1", "CompressionPipeline"),
        "compressionpipelines",
    )
}

impl Hands {
    /// Hands that move only under this leadership.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics) -> Self {
        Self {
            client,
            leadership,
            metrics,
            settled: Mutex::default(),
        }
    }

    /// Makes an object as it should be; whether that took a write.
    pub async fn apply(
        &self,
        child: &Child,
        live: Option<&Value>,
        store: &Store,
    ) -> Result<bool, WriteError> {
        let (desired, hash) = stamped(child);
        let namespace = desired["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let key = Key {
            kind: child.kind,
            namespace: namespace.as_str().into(),
            name: child.name.as_str().into(),
        };
        if live.is_some_and(|live| self.is_so(&key, &hash, live, &desired)) {
            return Ok(false);
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &resource(child.kind));
        // What we have not seen is not ours yet: without force a foreign object of the same name stays as it is.
        let params = PatchParams {
            force: live.is_some(),
            ..PatchParams::apply(names::MANAGER)
        };
        let what = format!("{} {}", child.kind.name(), child.name);
        // These say so little that applying them never conflicts: somebody else's would become ours without a word, and
        // go with the pipeline.
        if live.is_none() && matches!(child.kind, Kind::ServiceAccount | Kind::Lease) {
            self.assert_not_taken(child, &api, &desired, &what).await?;
        }
        if child.kind == Kind::Deployment
            && live.is_some()
            && desired["spec"].get("replicas").is_none()
        {
            self.hand_replicas_over(&api, child, &what).await?;
        }
        let written = match self
            .write(
                &what,
                api.patch(&child.name, &params, &Patch::Apply(&desired)),
            )
            .await
        {
            Err(WriteError::Refused { answer, .. }) if live.is_none() && is_conflict(&answer) => {
                self.take_over(child, &api, &desired, &what).await?
            }
            written => written?,
        };
        self.metrics.wrote(child.kind.name());
        let as_written = serde_json::to_value(&written).unwrap_or_default();
        let made_of_it = projection(&as_written, &desired);
        if made_of_it == desired {
            self.settled().remove(&key);
        } else {
            self.settled().insert(key, (hash, digest(&made_of_it)));
        }
        store.wrote(child.kind, written);
        Ok(true)
    }

    /// What we applied and apply no more, the API server takes away: pods would fall back to one at the moment somebody
    /// else begins to scale them. So the number goes to a manager of its own first, of whom whoever scales takes it.
    /// Source: Kubernetes' "Server-Side Apply", "Transferring ownership".
    async fn hand_replicas_over(
        &self,
        api: &Api<DynamicObject>,
        child: &Child,
        what: &str,
    ) -> Result<(), WriteError> {
        let Some(live) = read(what, api.get_opt(&child.name)).await? else {
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
        let patch = json!({
            "apiVersion": child.kind.api_version(),
            "kind": child.kind.name(),
            "metadata": {"name": child.name, "uid": live.metadata.uid},
            "spec": {"replicas": live.data["spec"]["replicas"]},
        });
        let params = PatchParams::apply(HANDED_OVER).force();
        self.write(what, api.patch(&child.name, &params, &Patch::Apply(&patch)))
            .await?;
        self.metrics.wrote(child.kind.name());
        Ok(())
    }

    /// It is there although we had not seen it: ours from before (a missed event, a lost label) or somebody else's.
    async fn take_over(
        &self,
        child: &Child,
        api: &Api<DynamicObject>,
        desired: &Value,
        what: &str,
    ) -> Result<DynamicObject, WriteError> {
        self.assert_not_taken(child, api, desired, what).await?;
        let params = PatchParams::apply(names::MANAGER).force();
        self.write(
            what,
            api.patch(&child.name, &params, &Patch::Apply(desired)),
        )
        .await
    }

    /// Fails when there is an object of this name that was not made for this pipeline.
    async fn assert_not_taken(
        &self,
        child: &Child,
        api: &Api<DynamicObject>,
        desired: &Value,
        what: &str,
    ) -> Result<(), WriteError> {
        let found = read(what, api.get_metadata_opt(&child.name)).await?;
        let uid = owner_uid(desired);
        let is_ours = |found: &PartialObjectMeta<DynamicObject>| {
            let owners = found.owner_references();
            owners.iter().any(|owner| Some(owner.uid.as_str()) == uid)
        };
        match found {
            Some(found) if !is_ours(&found) => Err(WriteError::Taken {
                kind: child.kind.name(),
                name: child.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn is_so(&self, key: &Key, hash: &str, live: &Value, desired: &Value) -> bool {
        let there = projection(live, desired);
        there == *desired
            || self
                .settled()
                .get(key)
                .is_some_and(|(settled, made)| settled == hash && *made == digest(&there))
    }

    /// Deletes exactly this object, not one that came after it.
    pub async fn delete(&self, key: &Key, live: &Value, store: &Store) -> Result<(), WriteError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource(key.kind));
        let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
        let params = DeleteParams::background().preconditions(Preconditions {
            uid,
            resource_version: None,
        });
        let what = format!("{} {}", key.kind.name(), key.name);
        match self.write(&what, api.delete(&key.name, &params)).await {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
        self.metrics.wrote(key.kind.name());
        self.settled().remove(key);
        store.deleted(key);
        Ok(())
    }

    /// Puts one annotation on a Lease, leaving everything else of it alone.
    pub async fn annotate_lease(
        &self,
        namespace: &str,
        name: &str,
        annotation: &str,
        value: &str,
        store: &Store,
    ) -> Result<(), WriteError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource(Kind::Lease));
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let written = self
            .write(
                &format!("Lease {name}"),
                api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)),
            )
            .await?;
        self.metrics.wrote(Kind::Lease.name());
        store.wrote(Kind::Lease, written);
        Ok(())
    }

    /// Takes the finalizer. The UID keeps it off a later pipeline of the same name.
    pub async fn take_finalizer(&self, pipeline: &DynamicObject) -> Result<(), WriteError> {
        let mut patch = identity(pipeline);
        patch["metadata"]["finalizers"] = json!([names::FINALIZER]);
        let api = self.pipelines(pipeline);
        let name = pipeline.metadata.name.as_deref().unwrap_or_default();
        self.write(
            "the finalizer",
            api.patch(
                name,
                &PatchParams::apply(names::MANAGER).force(),
                &Patch::Apply(&patch),
            ),
        )
        .await?;
        self.metrics.wrote("CompressionPipeline");
        Ok(())
    }

    /// Gives the finalizer back, whoever else has written it: an exported pipeline that was created again has it from there,
    /// and what two managers apply is not taken away by one of them.
    pub async fn give_finalizer_back(&self, pipeline: &DynamicObject) -> Result<(), WriteError> {
        let Some(found) = self.metadata_of(pipeline).await? else {
            return Ok(());
        };
        let patch = without_finalizer(&found);
        let api = self.pipelines(pipeline);
        let name = pipeline.metadata.name.as_deref().unwrap_or_default();
        let given = self
            .write(
                "the finalizer",
                api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)),
            )
            .await;
        match given {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
        self.metrics.wrote("CompressionPipeline");
        Ok(())
    }

    /// Writes the status; gives the version it has now.
    pub async fn status(
        &self,
        pipeline: &DynamicObject,
        status: &Value,
    ) -> Result<Option<String>, WriteError> {
        let mut patch = identity(pipeline);
        patch["status"] = status.clone();
        let api = self.pipelines(pipeline);
        let name = pipeline.metadata.name.as_deref().unwrap_or_default();
        let written = self
            .write(
                "the status",
                api.patch_status(
                    name,
                    &PatchParams::apply(names::MANAGER).force(),
                    &Patch::Apply(&patch),
                ),
            )
            .await?;
        self.metrics.wrote("CompressionPipeline/status");
        Ok(written.metadata.resource_version)
    }

    /// Whether the API server still has this pipeline, and nobody has deleted it.
    pub async fn is_there(&self, pipeline: &DynamicObject) -> Result<bool, WriteError> {
        let found = self.metadata_of(pipeline).await?;
        Ok(found.is_some_and(|found| found.metadata.deletion_timestamp.is_none()))
    }

    /// What the API server has of exactly this pipeline.
    async fn metadata_of(
        &self,
        pipeline: &DynamicObject,
    ) -> Result<Option<PartialObjectMeta<DynamicObject>>, WriteError> {
        let api = self.pipelines(pipeline);
        let name = pipeline.metadata.name.as_deref().unwrap_or_default();
        let found = read("the pipeline", api.get_metadata_opt(name)).await?;
        Ok(found.filter(|found| found.metadata.uid == pipeline.metadata.uid))
    }

    fn pipelines(&self, pipeline: &DynamicObject) -> Api<DynamicObject> {
        let namespace = pipeline.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced_with(self.client.clone(), namespace, &pipelines())
    }

    async fn write<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let Some(left) = self.leadership.left() else {
            return Err(WriteError::NotLeading);
        };
        // One that is still under way when the lead ends would land among the writes of the next leader. A process that was
        // frozen meanwhile must not go on with it when it wakes, so the clock is asked before each step: the timer may fire
        // after the step only.
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

    fn settled(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (String, String)>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read<T>(
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

/// Takes our finalizer off exactly this version of a pipeline, and leaves those of others.
pub fn without_finalizer(found: &impl ResourceExt) -> Value {
    let is_others = |finalizer: &&String| *finalizer != names::FINALIZER;
    let others: Vec<_> = found.finalizers().iter().filter(is_others).collect();
    json!({"metadata": {"finalizers": others, "resourceVersion": found.resource_version(), "uid": found.uid()}})
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn identity(pipeline: &DynamicObject) -> Value {
    json!({
        "apiVersion": "streampress.dev/v1alpha1",
        "kind": "CompressionPipeline",
        "metadata": {"name": pipeline.metadata.name, "namespace": pipeline.metadata.namespace, "uid": pipeline.metadata.uid},
    })
}

/// The object with the hash of itself on it.
fn stamped(child: &Child) -> (Value, String) {
    let hash = digest(&child.object);
    let mut object = child.object.clone();
    object["metadata"]["annotations"][APPLIED] = hash.clone().into();
    (object, hash)
}

/// FNV-1a: the same in every release, which the standard library's hash does not promise.
fn digest(value: &Value) -> String {
    let text = value.to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
