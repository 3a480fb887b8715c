//! What a worker serves over HTTP: `/livez` (its scheduler ticks and its work makes progress), `/readyz` (its queues and
//! stream are open) and `/metrics`. A pod of the operator serves on port 8080, any other worker where `--listen` says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use streampress_crds::Role;
use streampress_crds::settings::Identity;
use tokio::net::TcpListener;
use tracing::info;

use crate::telemetry::metrics::Meter;

/// The address that the operator's probes and monitors request.
pub(crate) const IN_POD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// The content type of what `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels of every metric of a worker.
pub(crate) fn labels(identity: &Identity, role: Role) -> Vec<(&'static str, String)> {
    vec![
        ("pipeline", identity.pipeline.clone()),
        ("namespace", identity.namespace.clone()),
        ("role", role.to_string()),
    ]
}

/// Serves until the process ends. With port 0 the system chooses a port, which is in the log.
pub(crate) async fn serve(
    address: SocketAddr,
    labels: Vec<(&'static str, String)>,
    meter: Meter,
) -> Result<()> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    let (listener, address) = listening
        .await
        .with_context(|| format!("listening on {address} for health and metrics"))?;
    info!(%address, "Health and metrics are served.");
    let router = router(labels, meter);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn router(labels: Vec<(&'static str, String)>, meter: Meter) -> Router {
    let (live, ready) = (meter.clone(), meter.clone());
    Router::new()
        .route(
            "/livez",
            get(async move || match live.stuck() {
                None => (StatusCode::OK, "ok\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }),
        )
        .route(
            "/readyz",
            get(async move || {
                if ready.counts().ready {
                    (StatusCode::OK, "ok\n")
                } else {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "queues and stream are not open yet\n",
                    )
                }
            }),
        )
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], meter.page(&labels))),
        )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use streampress_crds::api::pipeline::Ordering;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Status line and body of one answer.
    async fn ask(address: SocketAddr, path: &str) -> (String, String) {
        let mut connection = tokio::net::TcpStream::connect(address)
            .await
            .expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection
            .write_all(request.as_bytes())
            .await
            .expect("sent");
        let mut answer = String::new();
        connection
            .read_to_string(&mut answer)
            .await
            .expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.lines().next().unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }

    fn identity() -> Identity {
        Identity {
            version: 1,
            pipeline: "trades".into(),
            namespace: "default".into(),
            ordering: Ordering::PerName,
        }
    }

    async fn served(meter: &Meter) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let router = router(labels(&identity(), Role::Compressor), meter.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn a_worker_is_ready_once_its_transport_is_open() {
        let meter = Meter::default();
        let address = served(&meter).await;
        assert!(ask(address, "/readyz").await.0.contains("503"));
        assert!(ask(address, "/livez").await.0.contains("200"));
        meter.ready();
        assert!(ask(address, "/readyz").await.0.contains("200"));
        let page = ask(address, "/metrics").await.1;
        let line = "streampress_worker_ready{pipeline=\"trades\",namespace=\"default\",role=\"compressor\"} 1.0";
        assert!(page.contains(line), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[tokio::test]
    async fn a_worker_whose_scheduler_does_not_tick_is_not_alive() {
        let meter = Meter::default();
        let address = served(&meter).await;
        meter.ticked();
        assert!(ask(address, "/livez").await.0.contains("200"));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::resume();
        let (status, why) = ask(address, "/livez").await;
        assert!(status.contains("503"), "{status}");
        assert!(why.contains("the scheduler has not ticked"), "{why}");
    }
}
