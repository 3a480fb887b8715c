//! What one simulation shares: the wall clock, the random numbers, and the faults of a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::process::SimProcess;
use crate::{TransportError, TransportResult};

/// The wall-clock time at which every simulation starts, in seconds since 1970.
const START_SECONDS: u64 = 1_700_000_000;

/// One simulation. Clones share it.
#[derive(Debug, Clone)]
pub struct World(Arc<SharedWorld>);

#[derive(Debug)]
struct SharedWorld {
    started: Instant,
    /// Milliseconds that the wall clock is ahead of the monotonic one; negative when it is behind.
    skew_millis: Mutex<i64>,
    random: Mutex<fastrand::Rng>,
    stalls: Mutex<Stalls>,
    calls: AtomicU64,
}

/// How often blocking work stalls, of 1, and for how long at most.
type Stalls = (f64, Duration);

impl World {
    /// A simulation that starts now, with random numbers from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(SharedWorld {
            started: Instant::now(),
            skew_millis: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            stalls: Mutex::default(),
            calls: AtomicU64::new(0),
        }))
    }

    /// The wall-clock time: it follows tokio's clock, and jumps with [`World::jump`].
    pub fn now(&self) -> SystemTime {
        let elapsed = i64::try_from(self.elapsed().as_nanos()).unwrap_or(i64::MAX / 2);
        let start = i64::try_from(START_SECONDS).unwrap_or_default() * 1_000_000_000;
        let skew = self.0.skew_millis.lock().saturating_mul(1_000_000);
        let nanos = start.saturating_add(elapsed).saturating_add(skew);
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }

    /// The time by the clock of services, which never jumps.
    pub(super) fn service_now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(START_SECONDS) + self.elapsed()
    }

    /// How long the simulation has run, by its monotonic clock.
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Sets the wall clock forward, or back when `millis` is negative.
    pub fn jump(&self, millis: i64) {
        let mut skew = self.0.skew_millis.lock();
        *skew = skew.saturating_add(millis);
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&self, end: u64) -> u64 {
        match end {
            0 => 0,
            end => self.0.random.lock().u64(..end),
        }
    }

    /// True with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.random.lock().f64() < probability
    }

    /// From now on blocking work stalls as often, of 1, and for as long at most: a machine that swaps, a process that is
    /// frozen between a check and what follows it.
    pub fn set_stalls(&self, probability: f64, longest: Duration) {
        *self.0.stalls.lock() = (probability, longest);
    }

    /// Waits before blocking work, where it stalls.
    pub async fn stall(&self) {
        let (probability, longest) = *self.0.stalls.lock();
        if self.chance(probability) {
            tokio::time::sleep(self.between((Duration::ZERO, longest))).await;
        }
    }

    /// Calls of services that arrived so far.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// A duration between both, in whole milliseconds.
    fn between(&self, (least, most): (Duration, Duration)) -> Duration {
        let range = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or_default();
        least + Duration::from_millis(self.below(range + 1))
    }
}

/// How a service fails.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ServiceFaults {
    /// Every call fails.
    pub down: bool,
    /// Calls that fail without an effect, of 1.
    pub lost_requests: f64,
    /// Calls that have their effect and fail all the same, of 1.
    pub lost_answers: f64,
    /// Messages of a queue that are delivered again after they were deleted, of 1.
    pub duplicates: f64,
    /// How long a call takes before its effect, and again until its answer: at least and at most.
    pub latency: (Duration, Duration),
}

/// A service's faults, which can be changed at any time. Clones share them.
#[derive(Debug, Clone)]
pub struct SimService {
    world: World,
    name: String,
    faults: Arc<Mutex<ServiceFaults>>,
}

impl SimService {
    /// A service without faults.
    pub fn new(world: &World, name: &str) -> Self {
        Self {
            world: world.clone(),
            name: name.to_owned(),
            faults: Arc::default(),
        }
    }

    /// The simulation that it belongs to.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Its name, for errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it fails now.
    pub fn faults(&self) -> ServiceFaults {
        *self.faults.lock()
    }

    /// Changes how it fails from now on.
    pub fn set_faults(&self, change: impl FnOnce(&mut ServiceFaults)) {
        change(&mut self.faults.lock());
    }

    /// Until a request of this process arrives; an error where it does not.
    pub(super) async fn arrive(&self, process: &SimProcess, step: &str) -> TransportResult<()> {
        process.gate().await;
        let ServiceFaults { latency, .. } = self.faults();
        self.pause(latency).await;
        process.gate().await;
        let faults = self.faults();
        if faults.down || self.world.chance(faults.lost_requests) {
            return Err(self.lost(step, "no answer"));
        }
        if !process.has_effect() {
            process.gate().await;
        }
        self.world.0.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One call: its request arrives or not, then it has its effect, then its answer arrives or not.
    pub(super) async fn call<T>(
        &self,
        process: &SimProcess,
        step: &str,
        effect: impl FnOnce() -> TransportResult<T>,
    ) -> TransportResult<T> {
        self.arrive(process, step).await?;
        let answer = effect();
        let faults = self.faults();
        let is_lost = self.world.chance(faults.lost_answers);
        self.pause(faults.latency).await;
        process.gate().await;
        match is_lost {
            true => Err(self.lost(step, "the answer was lost")),
            false => answer,
        }
    }

    /// Whether an answer is lost now.
    pub(super) fn loses_answer(&self) -> bool {
        self.world.chance(self.faults().lost_answers)
    }

    /// Whether a deleted message is delivered again.
    pub(super) fn duplicates(&self) -> bool {
        self.world.chance(self.faults().duplicates)
    }

    pub(super) fn lost(&self, step: &str, why: &str) -> TransportError {
        TransportError::unavailable(format!("{step} {}", self.name), why.to_owned())
    }

    async fn pause(&self, latency: (Duration, Duration)) {
        if !latency.1.is_zero() {
            tokio::time::sleep(self.world.between(latency)).await;
        }
    }
}
