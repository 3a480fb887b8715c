//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP, unless `nohup` has the process ignore it): the first one starts an orderly
//! shutdown, the second one ends the process at once. What follows within half a second of the first is the same request:
//! `timeout` sends SIGTERM to its child and then to the child's group.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::output;

/// Signals that come so soon after the first one are the same request.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// A token that the first signal cancels. Must be called within a runtime.
pub(super) fn shutdown_on_signal(on_first: impl FnOnce() + Send + 'static) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let Ok(mut signals) = Signals::listen() else {
        return token;
    };
    tokio::spawn(async move {
        poll_fn(|context| signals.poll(context)).await;
        on_first();
        cancelled.cancel();
        another_request(|context| signals.poll(context)).await;
        // Messages in progress are redelivered: none is acknowledged before its effect is safe.
        std::process::exit(130);
    });
    token
}

/// The signals from one moment on: one that comes while the one before is acted on is not lost.
struct Signals(Vec<Signal>);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        // A limit of file sizes (ulimit -f) is then an error of the write, and not the end of the process.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        if !ignores_hangup() {
            kinds.push(SignalKind::hangup());
        }
        Ok(Self(
            kinds.into_iter().map(signal).collect::<Result<_, _>>()?,
        ))
    }

    /// Ready with each signal.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut polled = self.0.iter_mut().map(|signal| signal.poll_recv(context));
        match polled.any(|it| it.is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Whether the process was started to outlive its terminal. To listen to the signal would end that; so it counts as ignored where
/// the system does not tell.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & 1 != 0)
}

/// Waits, right after the first signal, for one that is another request.
async fn another_request(mut signal: impl FnMut(&mut Context<'_>) -> Poll<()>) {
    let first = Instant::now();
    loop {
        poll_fn(&mut signal).await;
        if first.elapsed() >= SAME_REQUEST {
            return;
        }
    }
}

/// How long work without a runtime may take to notice a signal: longer waits for a pipe without a writer, or a disk.
const LONGEST_END: Duration = Duration::from_secs(8);

/// What has waited at so many checks in a row is ended.
const CHECKS: u32 = 3;
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// Whether the one thread that reads and writes waits for a pipe, a terminal or standard input.
static WAITS: AtomicBool = AtomicBool::new(false);

/// Does what may wait for another process without end.
pub(super) fn waiting<T>(work: impl FnOnce() -> T) -> T {
    WAITS.store(true, Ordering::Relaxed);
    let done = work();
    WAITS.store(false, Ordering::Relaxed);
    done
}

/// True once the work waits for another process, false after [`LONGEST_END`].
async fn waits_or_time_is_over() -> bool {
    let (first, mut waited) = (Instant::now(), 0);
    while first.elapsed() < LONGEST_END {
        tokio::time::sleep(BETWEEN_CHECKS).await;
        waited = match WAITS.load(Ordering::Relaxed) {
            true => waited + 1,
            false => 0,
        };
        if waited == CHECKS {
            return true;
        }
    }
    false
}

/// A flag that the first signal sets, for work without a runtime: it ends at the next block. What waits for its input or output is
/// ended as the second signal would. Of a file that it wrote nothing is left, where the file system has files without a name.
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
                output::error(match waits_or_time_is_over().await {
                    true => "stopped while it waited for its input or output",
                    false => "stopped: it did not end in time",
                });
                std::process::exit(130);
            });
        })?;
    Ok(cancel)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_signal_right_after_the_first_is_the_same_request_and_a_later_one_is_another() {
        let (send, mut sent) = mpsc::unbounded_channel();
        let first = Instant::now();
        let signals = async {
            for pause in [0, 1, 400] {
                sleep(Duration::from_millis(pause)).await;
                send.send(()).expect("it still waits");
            }
            sleep(Duration::from_millis(200)).await;
            send.send(()).expect("it still waits");
            first.elapsed()
        };
        let waiting = async {
            another_request(|context| sent.poll_recv(context).map(drop)).await;
            first.elapsed()
        };
        let (last, ended) = tokio::join!(signals, waiting);
        assert_eq!(ended, last);
    }
}
