//! Parallel work with results in order and a bounded number of values in flight.

use std::{
    collections::BTreeMap,
    collections::HashMap,
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

/// Applies `work` in the pool to every value of `next` and passes the results to `emit` in order.
/// At most one value more than the pool has threads, and at most `max_in_flight` values, are in flight. `next` and `emit` run on the
/// caller's thread; the first error of either ends the run.
pub(super) fn in_order<T: Send, R: Send>(
    pool: &ThreadPool,
    max_in_flight: usize,
    mut next: impl FnMut() -> Result<Option<T>, CodecError>,
    work: impl Fn(T) -> R + Sync,
    mut emit: impl FnMut(R) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let Some(first) = next()? else { return Ok(()) };
    let Some(second) = next()? else {
        // A single value overlaps with nothing, but its own work may use the whole pool.
        return emit(pool.install(|| work(first)));
    };
    let window = (pool.current_num_threads() + 1).min(max_in_flight);
    let mut waiting = [first, second].into_iter();
    let (work, sender) = (&work, mpsc::channel());
    let (sender, receiver) = sender;
    pool.in_place_scope(|scope| {
        let mut done: BTreeMap<usize, R> = BTreeMap::new();
        let (mut started, mut emitted, mut ended) = (0, 0, false);
        loop {
            while !ended && started - emitted < window {
                let value = match waiting.next() {
                    Some(value) => Some(value),
                    None => next()?,
                };
                let Some(value) = value else {
                    ended = true;
                    break;
                };
                let (sender, number) = (sender.clone(), started);
                // Sending fails only after an error ended the loop; the result is then not needed.
                scope.spawn(move |_| drop(sender.send((number, work(value)))));
                started += 1;
            }
            if emitted == started {
                return Ok(());
            }
            while !done.contains_key(&emitted) {
                let Ok((number, result)) = receiver.recv() else {
                    return Err(CodecError::Options(
                        "a codec thread ended without a result".into(),
                    ));
                };
                done.insert(number, result);
            }
            if let Some(result) = done.remove(&emitted) {
                emit(result)?;
                emitted += 1;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_arrive_in_order_for_any_duration_of_the_work() -> Result<(), CodecError> {
        for count in [0, 1, 2, 3, 50] {
            let mut numbers = 0..count;
            let mut seen = Vec::new();
            in_order(
                &*pool(3)?,
                100,
                || Ok(numbers.next()),
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
            100,
            || {
                left -= 1;
                Ok(Some(left))
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
}
