//! The operator's process: its arguments, its log, its end.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use streampress_operator::apply::election::Times;
use streampress_operator::controller::release::{Place, release_pipelines};
use streampress_operator::http::metrics::Metrics;
use streampress_operator::http::{Pulses, router};
use streampress_operator::resources::Platform;
use streampress_operator::run::{Options, run};
use streampress_operator::transport::aws::Aws;
use streampress_operator::transport::manager::DeskOptions;
use streampress_transport::is_safe_to_log;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs CompressionPipelines on Kubernetes: their workers, queues, stream and status.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Look after this namespace only; all namespaces where left out
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the leader's Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the leader's Lease
    #[arg(long, default_value = "streampress-operator")]
    lease_name: String,
    /// This process, among all operators
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Image of the workers where a pipeline names none
    #[arg(long, env = "STREAMPRESS_WORKER_IMAGE", default_value = concat!("ghcr.io/streampress/streampress:", env!("CARGO_PKG_VERSION")))]
    worker_image: String,
    /// Make no NetworkPolicies
    #[arg(long)]
    no_network_policies: bool,
    /// An endpoint that the operator's own AWS identity may be used with, besides AWS's own; may be given several times
    #[arg(
        long = "allow-endpoint",
        env = "STREAMPRESS_ALLOW_ENDPOINTS",
        value_delimiter = ','
    )]
    allow_endpoints: Vec<String>,
    /// Where health and metrics are served
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Pipelines looked at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Stop the operator and take its finalizer off all pipelines, keeping their queues and streams; then end
    ReleasePipelines {
        /// The operator's Deployment, in the namespace of the leader's Lease
        #[arg(long)]
        deployment: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .finish()
        .with(filter_fn(is_safe_to_log))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime
        .context("starting the async runtime")
        .and_then(|runtime| runtime.block_on(operate(args)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn operate(args: Args) -> Result<()> {
    let client = kube::Client::try_default()
        .await
        .context("finding the API server: is there a kubeconfig or a service account?")?;
    let identity = args
        .identity
        .unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    if let Some(Command::ReleasePipelines { deployment }) = args.command {
        let place = Place {
            lease_namespace: args.lease_namespace,
            lease_name: args.lease_name,
            deployment,
            namespace: args.namespace,
            identity,
        };
        return release_pipelines(client, place).await;
    }
    let shutdown = shutdown_on_signal()?;
    let (metrics, pulses) = (Metrics::default(), Pulses::default());
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    let pages = axum::serve(listener, router(pulses.clone(), metrics.clone()));
    let pages = tokio::spawn(async move { pages.await });
    info!(identity, version = env!("CARGO_PKG_VERSION"), "Started.");
    let options = Options {
        namespace: args.namespace.filter(|namespace| !namespace.is_empty()),
        lease_namespace: args.lease_namespace,
        lease_name: args.lease_name,
        identity,
        times: Times::default(),
        platform: Platform {
            worker_image: args.worker_image,
            network_policies: !args.no_network_policies,
        },
        desk: DeskOptions {
            own_identity_endpoints: args.allow_endpoints,
            ..DeskOptions::default()
        },
        at_once: args.concurrency,
        debounce: Duration::from_millis(4),
    };
    run(
        client,
        Arc::new(Aws::default()),
        options,
        metrics,
        pulses,
        shutdown,
    )
    .await;
    pages.abort();
    // Kubernetes starts it again; a process that lost the lead begins from nothing.
    info!("Ended.");
    Ok(())
}

fn host() -> String {
    std::fs::read_to_string("/etc/hostname")
        .map_or_else(|_| "operator".into(), |name| name.trim().to_owned())
}

fn shutdown_on_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("Stopping: finishing what is in hand.");
        cancelled.cancel();
    });
    Ok(token)
}
