//! A process of a simulation: it can be frozen, as by a debugger or a suspended machine, and killed, as by `kill -9`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A process; its clones are the same one. Services ask it before each call, so that a killed process has no effect any
/// more, whatever its tasks still do while they are dropped.
#[derive(Debug, Clone)]
pub struct SimProcess(Arc<ProcessState>);

#[derive(Debug)]
struct ProcessState {
    name: String,
    killed: CancellationToken,
    thawed: Notify,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    frozen_until: Instant,
    /// Effects that it may still have before it is killed.
    effects_left: Option<u64>,
}

impl SimProcess {
    /// A process that runs.
    pub fn new(name: &str) -> Self {
        let life = Life {
            frozen_until: Instant::now(),
            effects_left: None,
        };
        Self(Arc::new(ProcessState {
            name: name.to_owned(),
            killed: CancellationToken::new(),
            thawed: Notify::new(),
            life: Mutex::new(life),
        }))
    }

    /// Its name, which is part of the attempts of its slots.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Kills it now.
    pub fn kill(&self) {
        self.0.killed.cancel();
    }

    /// Kills it right before the effect after so many: calls of services that change something, and changes of files.
    pub fn kill_after(&self, effects: u64) {
        self.0.life.lock().effects_left = Some(effects);
    }

    /// Cancelled when it is killed: its tasks are then to be dropped.
    pub fn killed(&self) -> &CancellationToken {
        &self.0.killed
    }

    /// Freezes it for this long: no call of it begins or ends meanwhile.
    pub fn freeze(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut life = self.0.life.lock();
        life.frozen_until = life.frozen_until.max(until);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.0.life.lock().frozen_until = Instant::now();
        self.0.thawed.notify_waiters();
    }

    /// Waits while it is frozen, and for ever once it is killed.
    pub(super) async fn gate(&self) {
        loop {
            if self.0.killed.is_cancelled() {
                return std::future::pending().await;
            }
            let until = self.0.life.lock().frozen_until;
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                biased;
                () = self.0.thawed.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Counts an effect that follows now; false when the process is dead and none may follow.
    pub(super) fn has_effect(&self) -> bool {
        let mut life = self.0.life.lock();
        match &mut life.effects_left {
            Some(0) => self.0.killed.cancel(),
            Some(left) => *left -= 1,
            None => {}
        }
        !self.0.killed.is_cancelled()
    }
}
