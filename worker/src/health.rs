//! What a pod is asked on port 8080: `/livez`, `/readyz` (its doors are open) and `/metrics`. What a worker has done stands in
//! its slot's ledger; here is only which worker this is and whether it can work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use streampress_crds::settings::Settings;
use tokio::net::TcpListener;

/// The port that the operator's probes and monitors ask.
pub const PORT: u16 = 8080;

/// Whether the doors are open.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on they are.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until the process ends.
pub async fn serve(settings: &Settings) -> Result<Ready> {
    let ready = Ready::default();
    let address = SocketAddr::from(([0, 0, 0, 0], PORT));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} for health and metrics"))?;
    let router = router(settings, ready.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(ready)
}

fn router(settings: &Settings, ready: Ready) -> Router {
    let identity = settings.identity();
    let labels = format!(
        "{{pipeline=\"{}\",namespace=\"{}\",role=\"{}\",version=\"{}\"}}",
        identity.pipeline,
        identity.namespace,
        settings.role(),
        env!("CARGO_PKG_VERSION")
    );
    let asked = ready.clone();
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || {
                if asked.get() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "queues and stream are not open yet\n",
                    )
                }
            }),
        )
        .route("/metrics", get(async move || metrics(&labels, ready.get())))
}

fn metrics(labels: &str, ready: bool) -> String {
    format!(
        "# HELP streampress_worker_ready 1 once the worker's queues and stream are open\n# TYPE streampress_worker_ready gauge\nstreampress_worker_ready{labels} {}\n",
        u8::from(ready)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_figure_with_its_worker() {
        let text = metrics("{role=\"compressor\"}", true);
        assert!(
            text.ends_with("streampress_worker_ready{role=\"compressor\"} 1\n"),
            "{text}"
        );
    }
}
