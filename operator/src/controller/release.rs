//! Before the operator is uninstalled: it is stopped and its finalizer taken off all pipelines, so that none hangs in
//! deletion without an operator. Queues and streams are kept, and so are the pipelines and their workers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use streampress_crds::CompressionPipeline;
use streampress_crds::lease::Times;
use tokio::time::timeout;
use tracing::info;

use crate::apply::claim::{InstallationClaim, OVER_AFTER};
use crate::apply::election::{Election, Leadership};
use crate::apply::without_finalizer;
use crate::state::pipeline::has_finalizer;

/// How long the operator may take to end and release the lead.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// An operator that is installed.
pub struct Installation {
    /// Namespace of its Deployment and Lease.
    pub lease_namespace: String,
    /// Its Lease.
    pub lease_name: String,
    /// Its Deployment.
    pub deployment: String,
    /// The only namespace whose pipelines it runs; all where left out.
    pub namespace: Option<String>,
    /// This process.
    pub identity: String,
}

/// Stops the operator, takes the lead, and releases every pipeline.
pub async fn release_pipelines(client: Client, installation: Installation) -> Result<()> {
    let deployments: Api<Deployment> =
        Api::namespaced(client.clone(), &installation.lease_namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments
        .patch(&installation.deployment, &PatchParams::default(), &none)
        .await
    {
        Ok(_) => info!(
            deployment = installation.deployment,
            "Stopped the operator."
        ),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("stopping the operator"),
    }
    let claim = InstallationClaim::new(
        client.clone(),
        installation.namespace.clone(),
        (&installation.lease_namespace, &installation.lease_name),
        OVER_AFTER,
    );
    let other = claim.held_by_another().await;
    if let Some(other) = other.context("reading whose the pipelines are")? {
        info!(
            other,
            "The pipelines are another installation's; they keep its finalizer."
        );
        return Ok(());
    }
    // Only the leader writes: no operator adds a finalizer again after this.
    let leases = Api::namespaced(client.clone(), &installation.lease_namespace);
    let mut election = Election::new(
        leases,
        installation.lease_name,
        installation.identity,
        Times::default(),
        Leadership::default(),
    );
    if timeout(END_DEADLINE, election.win()).await.is_err() {
        bail!(
            "the operator did not end within {} s",
            END_DEADLINE.as_secs()
        );
    }
    let released = tokio::select! {
        released = release_all(client, installation.namespace.as_deref()) => released,
        () = election.keep() => bail!("another operator took the lead; stop it first"),
    };
    let claim = claim.release().await;
    election.release().await;
    claim.context("giving up the claim on the pipelines")?;
    info!(pipelines = released?, "Released the pipelines.");
    Ok(())
}

async fn release_all(client: Client, namespace: Option<&str>) -> Result<usize> {
    let all: Api<CompressionPipeline> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let listed = match all.list_metadata(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        listed => listed.context("listing pipelines")?,
    };
    let mut released = 0;
    for pipeline in listed {
        if !has_finalizer(&pipeline) {
            continue;
        }
        let patch = Patch::Merge(without_finalizer(&pipeline));
        let namespace = pipeline.namespace().unwrap_or_default();
        let api: Api<CompressionPipeline> = Api::namespaced(client.clone(), &namespace);
        match api
            .patch_metadata(&pipeline.name_any(), &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => released += 1,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(error).with_context(|| format!("releasing {}", pipeline.name_any()));
            }
        }
    }
    Ok(released)
}
