//! The operator's process: its log, its signals, its end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use streampress_operator::args::{OperatorArgs, Task};
use streampress_operator::http::metrics::OperatorMetrics;
use streampress_operator::http::{OperatorHealth, router};
use streampress_operator::release::release_pipelines;
use streampress_operator::run::run;
use streampress_operator::transport::aws::AwsProvisioner;
use streampress_transport::is_safe_to_log;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let args = OperatorArgs::parse();
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
        .and_then(|runtime| runtime.block_on(start(args)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: OperatorArgs) -> Result<()> {
    let client = kube::Client::try_default()
        .await
        .context("finding the API server: is there a kubeconfig or a service account?")?;
    let listen = args.listen;
    let options = match args.into_task() {
        Task::Operate(options) => *options,
        Task::Release(installation) => return release_pipelines(client, installation).await,
    };
    let shutdown = shutdown_on_signal()?;
    let (metrics, health) = (OperatorMetrics::default(), OperatorHealth::default());
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen}"))?;
    let pages = axum::serve(listener, router(health.clone(), metrics.clone()));
    let pages = tokio::spawn(async move { pages.await });
    info!(
        identity = options.identity,
        version = env!("CARGO_PKG_VERSION"),
        "Started."
    );
    let provisioner = Arc::new(AwsProvisioner::default());
    run(client, provisioner, options, metrics, health, shutdown).await;
    pages.abort();
    // Kubernetes starts it again: a process that lost the lead begins from nothing.
    info!("Ended.");
    Ok(())
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
        info!("Stopping: finishing the reconciles that have begun.");
        cancelled.cancel();
    });
    Ok(token)
}
