//! A pipeline as the API server has it. One that this release cannot read is followed too: it must be reported, can be
//! deleted, and holds up no other.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use kube::api::{ApiResource, ObjectMeta};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use streampress_crds::api::pipeline::CompressionPipeline;
use streampress_crds::api::status::CompressionPipelineStatus;

use crate::resources::names;

/// What `kubectl apply` without server-side apply writes on every object: the object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A pipeline's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PipelineKey {
    /// Its namespace.
    pub(crate) namespace: Arc<str>,
    /// Its name.
    pub(crate) name: Arc<str>,
}

impl PipelineKey {
    /// Of a pipeline's metadata.
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
        }
    }
}

impl fmt::Display for PipelineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pipeline, without what nothing here reads (managed fields, what kubectl noted down).
#[derive(Clone, Debug)]
pub(crate) enum WatchedPipeline {
    /// As its type has it.
    Readable(Box<CompressionPipeline>),
    /// What can be read of it.
    Unreadable(Box<UnreadablePipeline>),
}

/// A pipeline that was written for another version of the CustomResourceDefinition.
#[derive(Clone, Debug)]
pub(crate) struct UnreadablePipeline {
    metadata: ObjectMeta,
    status: CompressionPipelineStatus,
    error: String,
}

impl WatchedPipeline {
    /// The pipeline as its type has it; else a sentence for its owner.
    pub(crate) fn read(&self) -> Result<&CompressionPipeline, String> {
        match self {
            Self::Readable(pipeline) => Ok(pipeline),
            Self::Unreadable(pipeline) => Err(format!(
                "the pipeline cannot be read ({}): it was written for another version of the CustomResourceDefinition",
                pipeline.error
            )),
        }
    }

    /// The status that was written last, as far as it can be read.
    pub(crate) fn status(&self) -> CompressionPipelineStatus {
        match self {
            Self::Readable(pipeline) => pipeline.status.clone().unwrap_or_default(),
            Self::Unreadable(pipeline) => pipeline.status.clone(),
        }
    }

    /// Its namespace and name.
    pub(crate) fn key(&self) -> PipelineKey {
        PipelineKey::of(self.meta())
    }

    /// Its UID.
    pub(crate) fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub(crate) fn is_deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Whether it has the finalizer of this operator.
    pub(crate) fn has_finalizer(&self) -> bool {
        has_finalizer(self)
    }
}

/// Whether a pipeline has the finalizer of this operator.
pub(crate) fn has_finalizer(pipeline: &impl ResourceExt) -> bool {
    let finalizers = pipeline.finalizers();
    finalizers
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER)
}

impl<'de> Deserialize<'de> for WatchedPipeline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let mut pipeline = match CompressionPipeline::deserialize(&object) {
            Ok(pipeline) => Self::Readable(Box::new(pipeline)),
            Err(error) => Self::Unreadable(Box::new(UnreadablePipeline {
                metadata: ObjectMeta::deserialize(&object["metadata"])
                    .map_err(serde::de::Error::custom)?,
                status: CompressionPipelineStatus::deserialize(&object["status"])
                    .unwrap_or_default(),
                error: error.to_string(),
            })),
        };
        let meta = pipeline.meta_mut();
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            annotations.remove(LAST_APPLIED);
        }
        Ok(pipeline)
    }
}

impl Resource for WatchedPipeline {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        CompressionPipeline::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        CompressionPipeline::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        CompressionPipeline::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        CompressionPipeline::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Readable(pipeline) => &pipeline.metadata,
            Self::Unreadable(pipeline) => &pipeline.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable(pipeline) => &mut pipeline.metadata,
            Self::Unreadable(pipeline) => &mut pipeline.metadata,
        }
    }
}

/// The API resource of pipelines.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<CompressionPipeline>(&())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watched(spec: Value) -> WatchedPipeline {
        serde_json::from_value(json!({
            "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "finalizers": [names::FINALIZER],
                "annotations": {LAST_APPLIED: "{}", "team": "a"}, "managedFields": [{"manager": "x"}],
            },
            "spec": spec,
            "status": {"phase": "Running", "backlog": {"files": 3}},
        }))
        .expect("an object")
    }

    #[test]
    fn a_pipeline_comes_without_what_is_not_read() {
        let pipeline = watched(json!({"suspend": true}));
        let read = pipeline.read().expect("readable");
        assert!(read.spec.suspend);
        assert_eq!(read.metadata.managed_fields, None);
        assert_eq!(
            pipeline.annotations(),
            &[("team".to_owned(), "a".to_owned())].into()
        );
    }

    #[test]
    fn one_that_cannot_be_read_keeps_its_metadata_and_status_and_says_why() {
        let pipeline = watched(json!({"compressor": ["what is this?"]}));
        let why = pipeline.read().expect_err("not readable");
        assert!(
            why.contains("cannot be read") && why.contains("another version"),
            "{why}"
        );
        assert!(pipeline.has_finalizer());
        assert_eq!(
            (pipeline.key().to_string().as_str(), pipeline.uid()),
            ("n/a", "u")
        );
        assert_eq!(
            pipeline.status().backlog.and_then(|backlog| backlog.files),
            Some(3)
        );
    }
}
