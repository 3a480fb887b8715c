//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use tokio_util::sync::CancellationToken;

/// A token that the first signal cancels. Must be called inside the runtime.
pub fn shutdown_on_signal(on_first: impl FnOnce() + Send + 'static) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        wait().await;
        on_first();
        cancelled.cancel();
        wait().await;
        // What is in hand comes back by itself: nothing is acknowledged before its effect is safe.
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
