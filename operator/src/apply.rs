//! Writes to the API server: server-side apply with one field manager, only where what is there differs, and only
//! while this process leads.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::child::{Child, Kind, projection};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::names;
use crate::store::{Key, Store};

/// How long one write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// On every object: a hash of what was applied, so that a field that is no longer ours is taken away even when the
/// operator was not there at the time.
const APPLIED: &str = "streampress.dev/applied";

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
        other => chain(other),
    }
}

/// An error with all that led to it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
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

    /// It is there although we had not seen it: ours from before (a missed event, a lost label) or somebody else's.
    async fn take_over(
        &self,
        child: &Child,
        api: &Api<DynamicObject>,
        desired: &Value,
        what: &str,
    ) -> Result<DynamicObject, WriteError> {
        let live = timeout(WRITE_DEADLINE, api.get_metadata(&child.name))
            .await
            .map_err(|_| WriteError::NoAnswer)?;
        let live = live.map_err(|answer| WriteError::Refused {
            what: format!("reading {what}"),
            answer: Box::new(answer),
        })?;
        let uid = desired["metadata"]["ownerReferences"][0]["uid"].as_str();
        let ours = live
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| Some(owner.uid.as_str()) == uid);
        if !ours {
            return Err(WriteError::Taken {
                kind: child.kind.name(),
                name: child.name.clone(),
            });
        }
        let params = PatchParams::apply(names::MANAGER).force();
        self.write(
            what,
            api.patch(&child.name, &params, &Patch::Apply(desired)),
        )
        .await
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

    /// Takes the finalizer, or gives it back. The UID keeps it off a later pipeline of the same name.
    pub async fn finalizer(&self, pipeline: &DynamicObject, hold: bool) -> Result<(), WriteError> {
        let mut patch = identity(pipeline);
        patch["metadata"]["finalizers"] = if hold {
            json!([names::FINALIZER])
        } else {
            json!([])
        };
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
        let api = self.pipelines(pipeline);
        let name = pipeline.metadata.name.as_deref().unwrap_or_default();
        let found = timeout(WRITE_DEADLINE, api.get_metadata_opt(name))
            .await
            .map_err(|_| WriteError::NoAnswer)?;
        let found = found.map_err(|answer| WriteError::Refused {
            what: "reading the pipeline".into(),
            answer: Box::new(answer),
        })?;
        Ok(found.is_some_and(|found| {
            found.metadata.uid == pipeline.metadata.uid
                && found.metadata.deletion_timestamp.is_none()
        }))
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
        // One that is still under way when the lead ends would land among the writes of the next leader.
        let answer = timeout(WRITE_DEADLINE.min(left), call)
            .await
            .map_err(|_| WriteError::NoAnswer)?;
        answer.map_err(|answer| WriteError::Refused {
            what: format!("writing {what}"),
            answer: Box::new(answer),
        })
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (String, String)>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
