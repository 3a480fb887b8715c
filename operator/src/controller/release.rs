//! Before the operator is uninstalled: it is stopped and its finalizer taken off all pipelines, so that none hangs in
//! deletion when nobody is left to deal with it. Queues and streams are kept, and so are the pipelines and their workers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::timeout;
use tracing::info;

use crate::apply::applier::{pipelines, without_finalizer};
use crate::apply::election::{Election, Leadership, Times};
use crate::resources::names;

/// How long the operator may take to end and give the lead up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the operator is.
pub struct Place {
    /// Namespace of its Deployment and Lease.
    pub lease_namespace: String,
    /// Its Lease.
    pub lease_name: String,
    /// Its Deployment.
    pub deployment: String,
    /// The only namespace it looks after.
    pub namespace: Option<String>,
    /// This process.
    pub identity: String,
}

/// Stops the operator, takes the lead, and releases every pipeline.
pub async fn release_pipelines(client: Client, place: Place) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &place.lease_namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments
        .patch(&place.deployment, &PatchParams::default(), &none)
        .await
    {
        Ok(_) => info!(deployment = place.deployment, "Stopped the operator."),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("stopping the operator"),
    }
    // Only the leader writes: no operator puts a finalizer back after this.
    let leases = Api::namespaced(client.clone(), &place.lease_namespace);
    let mut election = Election::new(
        leases,
        place.lease_name,
        place.identity,
        Times::default(),
        Leadership::default(),
    );
    if timeout(PATIENCE, election.win()).await.is_err() {
        bail!("the operator did not end within {} s", PATIENCE.as_secs());
    }
    let released = tokio::select! {
        released = release_all(client, place.namespace.as_deref()) => released,
        () = election.keep() => bail!("another operator took the lead; stop it first"),
    };
    election.release().await;
    info!(pipelines = released?, "Released the pipelines.");
    Ok(())
}

async fn release_all(client: Client, namespace: Option<&str>) -> Result<usize> {
    let all: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &pipelines()),
        None => Api::all_with(client.clone(), &pipelines()),
    };
    let listed = match all.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        listed => listed.context("listing pipelines")?,
    };
    let mut released = 0;
    for pipeline in listed {
        if !pipeline
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == names::FINALIZER)
        {
            continue;
        }
        let patch = Patch::Merge(without_finalizer(&pipeline));
        let api: Api<DynamicObject> = Api::namespaced_with(
            client.clone(),
            &pipeline.namespace().unwrap_or_default(),
            &pipelines(),
        );
        match api
            .patch(&pipeline.name_any(), &PatchParams::default(), &patch)
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
