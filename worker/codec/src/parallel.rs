//! Several blocks at once, handed on in order, with a bounded number in hand.

use std::{
    collections::BTreeMap,
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Error;

/// The pool of `threads` threads, made once and kept: packing many small files starts no threads.
pub fn pool(threads: usize) -> Result<Arc<ThreadPool>, Error> {
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
        .map_err(|error| Error::Options(format!("starting {threads} codec threads: {error}")))?;
    let pool = Arc::new(pool);
    pools.insert(threads, Arc::clone(&pool));
    Ok(pool)
}

/// Takes values from `next` until it has none, does `work` on them in the pool and gives the results
/// to `emit` in their order. At most one more than the pool's threads are in hand. `next` and `emit`
/// run on the caller's thread; the first error of either ends it.
pub fn in_order<T: Send, R: Send>(
    pool: &ThreadPool,
    mut next: impl FnMut() -> Result<Option<T>, Error>,
    work: impl Fn(T) -> R + Sync,
    mut emit: impl FnMut(R) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(first) = next()? else { return Ok(()) };
    let Some(second) = next()? else {
        // One value: nothing to overlap with, but its own work may still spread over the pool.
        return emit(pool.install(|| work(first)));
    };
    let window = pool.current_num_threads() + 1;
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
                // The receiver outlives every task unless an error ended the loop: then nobody cares.
                scope.spawn(move |_| drop(sender.send((number, work(value)))));
                started += 1;
            }
            if emitted == started {
                return Ok(());
            }
            while !done.contains_key(&emitted) {
                let Ok((number, result)) = receiver.recv() else {
                    return Err(Error::Options(
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
    fn results_come_in_order_whatever_the_work_takes() -> Result<(), Error> {
        for count in [0, 1, 2, 3, 50] {
            let mut numbers = 0..count;
            let mut seen = Vec::new();
            in_order(
                &*pool(3)?,
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
    fn an_error_ends_it() -> Result<(), Error> {
        let mut left = 100;
        let result = in_order(
            &*pool(2)?,
            || {
                left -= 1;
                Ok(Some(left))
            },
            |n| n,
            |n| {
                if n == 90 {
                    Err(Error::Cancelled)
                } else {
                    Ok(())
                }
            },
        );
        assert!(matches!(result, Err(Error::Cancelled)));
        assert!(left >= 80, "{left}");
        Ok(())
    }
}
