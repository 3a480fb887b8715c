//! Writes to pipelines: the finalizer and the status.

use kube::Api;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt, Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};
use streampress_crds::{CompressionPipeline, CompressionPipelineStatus};

use super::applier::{Applier, read};
use super::write_error::{WriteError, gone_is_done};
use crate::resources::names;
use crate::state::pipeline::{WatchedPipeline, resource};

/// A pipeline's status, to be applied.
#[derive(Debug, Serialize)]
struct StatusPatch<'a> {
    #[serde(flatten)]
    identity: PartialObjectMeta<CompressionPipeline>,
    status: &'a CompressionPipelineStatus,
}

impl Applier {
    /// Adds the finalizer. The UID keeps it off a later pipeline of the same name.
    pub(crate) async fn add_finalizer(&self, pipeline: &WatchedPipeline) -> Result<(), WriteError> {
        let mut patch = identity(pipeline);
        patch.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
        let patch = Patch::Apply(patch);
        let params = PatchParams::apply(names::MANAGER).force();
        let api = self.pipelines(pipeline);
        let name = pipeline.name_any();
        let write = api.patch_metadata(&name, &params, &patch);
        self.write("the finalizer", write).await?;
        self.wrote(&resource().kind);
        Ok(())
    }

    /// Removes the finalizer, whichever manager wrote it: an exported pipeline that was created again has it from there, and
    /// what two managers apply is not removed by one of them.
    pub(crate) async fn remove_finalizer(
        &self,
        pipeline: &WatchedPipeline,
    ) -> Result<(), WriteError> {
        let Some(found) = self.metadata_of(pipeline).await? else {
            return Ok(());
        };
        let patch = Patch::Merge(without_finalizer(&found));
        let params = PatchParams::default();
        let api = self.pipelines(pipeline);
        let name = pipeline.name_any();
        let write = api.patch_metadata(&name, &params, &patch);
        gone_is_done(self.write("the finalizer", write).await)?;
        self.wrote(&resource().kind);
        Ok(())
    }

    /// Writes the status; gives the resource version that the pipeline has then.
    pub(crate) async fn write_status(
        &self,
        pipeline: &WatchedPipeline,
        status: &CompressionPipelineStatus,
    ) -> Result<Option<String>, WriteError> {
        let patch = Patch::Apply(StatusPatch {
            identity: identity(pipeline),
            status,
        });
        let params = PatchParams::apply(names::MANAGER).force();
        let api = self.pipelines(pipeline);
        let name = pipeline.name_any();
        let write = api.patch_status(&name, &params, &patch);
        let written = self.write("the status", write).await?;
        self.wrote(&format!("{}/status", resource().kind));
        Ok(written.resource_version())
    }

    /// Whether the API server still has this pipeline, and it is not being deleted.
    pub(crate) async fn exists(&self, pipeline: &WatchedPipeline) -> Result<bool, WriteError> {
        let found = self.metadata_of(pipeline).await?;
        Ok(found.is_some_and(|found| found.metadata.deletion_timestamp.is_none()))
    }

    /// What the API server has of exactly this pipeline.
    async fn metadata_of(
        &self,
        pipeline: &WatchedPipeline,
    ) -> Result<Option<PartialObjectMeta<WatchedPipeline>>, WriteError> {
        let api = self.pipelines(pipeline);
        let name = pipeline.name_any();
        let found = read("the pipeline", api.get_metadata_opt(&name)).await?;
        Ok(found.filter(|found| found.uid().as_deref() == Some(pipeline.uid())))
    }

    fn pipelines(&self, pipeline: &WatchedPipeline) -> Api<WatchedPipeline> {
        let namespace = pipeline.namespace().unwrap_or_default();
        Api::namespaced(self.client.clone(), &namespace)
    }
}

/// Exactly this pipeline, without any field of it.
fn identity(pipeline: &WatchedPipeline) -> PartialObjectMeta<CompressionPipeline> {
    ObjectMeta {
        name: Some(pipeline.name_any()),
        namespace: pipeline.namespace(),
        uid: Some(pipeline.uid().to_owned()),
        ..ObjectMeta::default()
    }
    .into_request_partial()
}

/// A patch that takes this operator's finalizer off exactly this version of a pipeline, and leaves those of others.
pub(crate) fn without_finalizer(found: &impl ResourceExt) -> Value {
    let is_others = |finalizer: &&String| *finalizer != names::FINALIZER;
    let others: Vec<_> = found.finalizers().iter().filter(is_others).collect();
    json!({"metadata": {"finalizers": others, "resourceVersion": found.resource_version(), "uid": found.uid()}})
}
