//! Ctrl-C and SIGTERM: the first one starts an orderly shutdown, the second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::output;

/// A token that the first signal cancels. Must be called within a runtime.
pub(super) fn shutdown_on_signal(on_first: impl FnOnce() + Send + 'static) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        wait().await;
        on_first();
        cancelled.cancel();
        wait().await;
        // Messages in progress are redelivered: none is acknowledged before its effect is safe.
        std::process::exit(130);
    });
    token
}

async fn wait() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// How long work without a runtime may take to notice a signal: longer waits for a pipe without a writer, or a disk.
const LONGEST_END: Duration = Duration::from_secs(8);

/// A flag that the first signal sets, for work without a runtime: it ends at the next block, and what it wrote of a file is
/// removed. What waits for its input or output is ended as the second signal would: then the temporary file stays.
pub(super) fn cancel_on_signal() -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            else {
                return;
            };
            runtime.block_on(async {
                shutdown_on_signal(|| {}).cancelled().await;
                flag.store(true, Ordering::Relaxed);
                tokio::time::sleep(LONGEST_END).await;
                output::error("stopped: it did not end in time, as where it waits for a pipe");
                std::process::exit(130);
            });
        })?;
    Ok(cancel)
}
