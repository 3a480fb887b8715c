//! The operator's command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use streampress_crds::lease::Times;

use crate::apply::claim::OVER_AFTER;
use crate::controller::release::Installation;
use crate::resources::WorkerDefaults;
use crate::run::OperatorOptions;
use crate::transport::manager::ManagerOptions;

/// Runs CompressionPipelines on Kubernetes: their workers, queues, stream and status.
#[derive(Debug, Parser)]
#[command(version)]
pub struct OperatorArgs {
    /// The only namespace whose pipelines are run [default: all namespaces]
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the leader's Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the leader's Lease
    #[arg(long, default_value = "streampress-operator")]
    lease_name: String,
    /// Name of this process, unique among all operators [default: HOST-PROCESS ID]
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Image of the workers where a pipeline names none
    #[arg(long, env = "STREAMPRESS_WORKER_IMAGE", default_value = concat!("ghcr.io/streampress/streampress:", env!("CARGO_PKG_VERSION")))]
    worker_image: String,
    /// Do not create NetworkPolicies
    #[arg(long)]
    no_network_policies: bool,
    /// An endpoint that the operator's own AWS identity may be used with, besides AWS's own; may be given several times
    #[arg(
        long = "allow-endpoint",
        env = "STREAMPRESS_ALLOW_ENDPOINTS",
        value_delimiter = ','
    )]
    allow_endpoints: Vec<String>,
    /// Address of health and metrics
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Pipelines reconciled at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    #[command(subcommand)]
    command: Option<OperatorCommand>,
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Stop the operator and remove its finalizer from all pipelines. Their queues and streams are kept
    ReleasePipelines {
        /// The operator's Deployment, in the namespace of the leader's Lease
        #[arg(long)]
        deployment: String,
    },
}

/// The selected command.
pub enum Task {
    /// Run pipelines.
    Operate(Box<OperatorOptions>),
    /// Release all pipelines, then end.
    Release(Installation),
}

impl OperatorArgs {
    /// The selected command.
    pub fn into_task(self) -> Task {
        let namespace = self.namespace.filter(|namespace| !namespace.is_empty());
        let process = || format!("{}-{}", host(), std::process::id());
        let identity = self.identity.unwrap_or_else(process);
        match self.command {
            Some(OperatorCommand::ReleasePipelines { deployment }) => Task::Release(Installation {
                lease_namespace: self.lease_namespace,
                lease_name: self.lease_name,
                deployment,
                namespace,
                identity,
            }),
            None => Task::Operate(Box::new(OperatorOptions {
                namespace,
                lease_namespace: self.lease_namespace,
                lease_name: self.lease_name,
                identity,
                times: Times::default(),
                over_after: OVER_AFTER,
                defaults: WorkerDefaults {
                    image: self.worker_image,
                    network_policies: !self.no_network_policies,
                },
                transport: ManagerOptions {
                    own_identity_endpoints: self.allow_endpoints,
                    ..ManagerOptions::default()
                },
                concurrency: self.concurrency,
                debounce: Duration::from_millis(4),
            })),
        }
    }
}

fn host() -> String {
    std::fs::read_to_string("/etc/hostname")
        .map_or_else(|_| "operator".into(), |name| name.trim().to_owned())
}
