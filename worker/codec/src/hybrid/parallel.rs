//! Parallel work with results in order and a bounded number of values in flight.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::CodecError;

/// The shared pool of `threads` threads. It is started once, so that many small files start no threads.
pub(super) fn pool(threads: usize) -> Result<Arc<ThreadPool>, CodecError> {
    static POOLS: OnceLock<Mutex<HashMap<usize, Arc<ThreadPool>>>> = OnceLock::new();
    let mut pools = POOLS
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&threads) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("codec-{n}"))
        .build()
        .map_err(|error| {
            CodecError::Options(format!("starting {threads} codec threads: {error}"))
        })?;
    let pool = Arc::new(pool);
    pools.insert(threads, Arc::clone(&pool));
    Ok(pool)
}

/// What may be in flight at once, besides one value more than the pool has threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Values.
    pub(super) values: usize,
    /// Their bytes together; a single value may have more.
    pub(super) bytes: usize,
}

/// Applies `work` in the pool to every value of `next`, which comes with its bytes, and passes the results to `emit` in order.
/// `next` and `emit` run on the caller's thread; the first error of either ends the run, as a panic in `work` does.
pub(super) fn in_order<T: Send, R: Send>(
    pool: &ThreadPool,
    window: Window,
    mut next: impl FnMut() -> Result<Option<(T, usize)>, CodecError>,
    work: impl Fn(T) -> R + Sync,
    mut emit: impl FnMut(R) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let Some((first, first_bytes)) = next()? else {
        return Ok(());
    };
    let Some(second) = next()? else {
        // A single value overlaps with nothing, but its own work may use the whole pool.
        return emit(pool.install(|| work(first)));
    };
    let most_values = (pool.current_num_threads() + 1).min(window.values);
    let mut waiting = VecDeque::from([(first, first_bytes), second]);
    let (work, sender) = (&work, mpsc::channel());
    let (sender, receiver) = sender;
    pool.in_place_scope(|scope| {
        let mut done: BTreeMap<usize, R> = BTreeMap::new();
        // The bytes of each value in flight, the oldest first.
        let mut in_flight = VecDeque::new();
        let (mut emitted, mut ended) = (0, false);
        loop {
            while in_flight.len() < most_values {
                if waiting.is_empty() && !ended {
                    waiting.extend(next()?);
                    ended = waiting.is_empty();
                }
                let bytes = in_flight.iter().sum::<usize>();
                let fits = |(_, more): &mut (T, usize)| {
                    in_flight.is_empty() || bytes.saturating_add(*more) <= window.bytes
                };
                let Some((value, bytes)) = waiting.pop_front_if(fits) else {
                    break;
                };
                let (sender, number) = (sender.clone(), emitted + in_flight.len());
                scope.spawn(move |_| {
                    let result = catch_unwind(AssertUnwindSafe(|| work(value)));
                    // Sending fails only after an error ended the loop; the result is then not needed.
                    drop(sender.send((number, result)));
                });
                in_flight.push_back(bytes);
            }
            if in_flight.is_empty() {
                return Ok(());
            }
            while !done.contains_key(&emitted) {
                let Ok((number, result)) = receiver.recv() else {
                    unreachable!("a sender is held here");
                };
                // The caller that waits for the result must not wait for ever: the panic goes on in this thread.
                done.insert(number, result.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            if let Some(result) = done.remove(&emitted) {
                emit(result)?;
                emitted += 1;
                in_flight.pop_front();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const ANY: Window = Window {
        values: 100,
        bytes: usize::MAX,
    };

    #[test]
    fn results_arrive_in_order_for_any_duration_of_the_work() -> Result<(), CodecError> {
        for count in [0, 1, 2, 3, 50] {
            let mut numbers = 0..count;
            let mut seen = Vec::new();
            in_order(
                &*pool(3)?,
                ANY,
                || Ok(numbers.next().map(|n| (n, 1))),
                |n| (0..(50 - n) * 1000).fold(n, |sum, x| std::hint::black_box(sum + x) - x),
                |n| {
                    seen.push(n);
                    Ok(())
                },
            )?;
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
        Ok(())
    }

    #[test]
    fn an_error_ends_the_run() -> Result<(), CodecError> {
        let mut left = 100;
        let result = in_order(
            &*pool(2)?,
            ANY,
            || {
                left -= 1;
                Ok(Some((left, 1)))
            },
            |n| n,
            |n| {
                if n == 90 {
                    Err(CodecError::Cancelled)
                } else {
                    Ok(())
                }
            },
        );
        assert!(matches!(result, Err(CodecError::Cancelled)));
        assert!(left >= 80, "{left}");
        Ok(())
    }

    #[test]
    fn values_in_flight_have_no_more_bytes_than_allowed_but_for_a_single_one()
    -> Result<(), CodecError> {
        for (bytes, most) in [(0, 1), (100, 1), (199, 1), (200, 2), (usize::MAX, 4)] {
            let (at_once, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut numbers = 0..20;
            let mut emitted = 0;
            in_order(
                &*pool(3)?,
                Window { values: 100, bytes },
                || {
                    let next = numbers.next().map(|n| (n, 100));
                    if next.is_some() {
                        let now = at_once.fetch_add(1, Ordering::Relaxed);
                        peak.fetch_max(now, Ordering::Relaxed);
                    }
                    Ok(next)
                },
                |n| n,
                |n| {
                    assert_eq!(n, emitted);
                    emitted += 1;
                    at_once.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                },
            )?;
            assert_eq!(emitted, 20);
            // One more is read, to see whether it fits.
            assert!(peak.into_inner() <= most, "{bytes}");
        }
        Ok(())
    }

    #[test]
    fn a_panic_of_the_work_goes_on_in_the_calling_thread() {
        for count in [1, 2, 10] {
            let mut numbers = 0..count;
            let run = catch_unwind(AssertUnwindSafe(|| {
                in_order(
                    &*pool(2)?,
                    ANY,
                    || Ok(numbers.next().map(|n| (n, 1))),
                    |n| assert_ne!(n, count - 1, "the last one panics"),
                    Ok,
                )
            }));
            assert!(run.is_err(), "{count}");
        }
    }
}
