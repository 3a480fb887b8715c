//! Which shard a waiting record goes to, and when: by its key's hash, or where there is capacity.
//!
//! Records of several small files lie behind each other in one shard, so that a worker with some of these files reads them
//! in one call. Then the next shard follows.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use super::limits::{REQUEST_BYTES, REQUEST_RECORDS};
use super::rate_limit::RateLimit;
use super::shards::{OpenShard, Shards};
use super::waiting_record::WaitingRecord;

/// How far into the waiting records to look for some whose shard has capacity.
const LOOK_AHEAD: usize = 4096;
/// The end of a run: a few times what one receive brings.
const RUN_RECORDS: usize = 32;
const RUN_BYTES: usize = 1 << 20;
/// A run begins where this part of a burst is free, or it would end at once while all shards are at their limit. A record
/// that has waited so long for that goes anywhere: others may leave no shard idle.
const FREE_FOR_A_RUN: f64 = 0.5;
const WAIT_FOR_A_RUN: Duration = Duration::from_millis(250);

/// Where records without a key went last.
#[derive(Debug, Clone)]
pub(super) struct ShardRun {
    /// By the place in the list of open shards.
    shard: usize,
    records: usize,
    bytes: usize,
}

impl ShardRun {
    /// After another record went to a shard.
    fn with(before: Option<Self>, shard: usize, bytes: usize) -> Self {
        let goes_on = before.filter(|run| run.shard == shard && !run.is_full());
        let (records_before, bytes_before) = goes_on.map_or((0, 0), |run| (run.records, run.bytes));
        Self {
            shard,
            records: records_before + 1,
            bytes: bytes_before + bytes,
        }
    }

    fn is_full(&self) -> bool {
        self.records >= RUN_RECORDS || self.bytes >= RUN_BYTES
    }
}

/// The open shards, and what may go to each.
#[derive(Debug)]
pub(super) struct Placement {
    shards: Shards,
    limits: HashMap<String, RateLimit>,
    run: Option<ShardRun>,
}

/// Records that may go in one request now.
pub(super) struct PutSelection {
    /// Their indexes in the waiting records, ascending, with their targets.
    pub(super) chosen: Vec<(usize, Target)>,
    /// When another record may go.
    pub(super) next_at: Option<Instant>,
    /// The run that they continue.
    pub(super) run: Option<ShardRun>,
}

/// Where a record is to go.
#[derive(Debug)]
pub(super) struct Target {
    /// An index of the open shards; `None` where none takes its hash.
    shard: Option<usize>,
    /// Whether by a hash key of our choice.
    explicit: bool,
}

impl Placement {
    pub(super) fn new(shards: Shards) -> Self {
        Self {
            shards,
            limits: HashMap::new(),
            run: None,
        }
    }

    /// Chooses from the waiting records; the rate limits are not touched yet.
    pub(super) fn choose<'a>(
        &mut self,
        waiting: impl Iterator<Item = &'a WaitingRecord>,
        now: Instant,
    ) -> PutSelection {
        let mut trial: Vec<RateLimit> = Vec::with_capacity(self.shards.open.len());
        for shard in &self.shards.open {
            let limit = self
                .limits
                .entry(shard.id.clone())
                .or_insert_with(|| RateLimit::new(now));
            trial.push(limit.clone());
        }
        let (mut chosen, mut bytes, mut next_at) = (Vec::new(), 0, None::<Instant>);
        let mut run = self.run.clone();
        let mut later = |at: Instant| next_at = Some(next_at.map_or(at, |next| next.min(at)));
        for (index, item) in waiting.enumerate().take(LOOK_AHEAD) {
            if item.not_before > now {
                later(item.not_before);
                continue;
            }
            let full = chosen.len() == REQUEST_RECORDS
                || (bytes + item.weight() > REQUEST_BYTES && !chosen.is_empty());
            if full || (item.alone && !chosen.is_empty()) {
                break;
            }
            let shard = match item.hash {
                Some(hash) => self.shards.of(hash).map(|shard| (shard, 0.0)),
                None => next_shard(&mut trial, run.as_ref(), item, now),
            };
            if let Some((shard, burst)) = shard {
                let wait = trial[shard].seconds_until(now, burst);
                if wait > 0.0 {
                    later(now + Duration::from_secs_f64(wait));
                    continue;
                }
                trial[shard].take(item.data.len());
                if item.hash.is_none() {
                    run = Some(ShardRun::with(run.take(), shard, item.data.len()));
                }
            }
            bytes += item.weight();
            let target = Target {
                shard: shard.map(|(shard, _)| shard),
                explicit: item.hash.is_none(),
            };
            chosen.push((index, target));
            if item.alone {
                break;
            }
        }
        PutSelection {
            chosen,
            next_at,
            run,
        }
    }

    /// A choice is sent that continued this run.
    pub(super) fn go_on(&mut self, run: Option<ShardRun>) {
        self.run = run;
    }

    /// A record of so many bytes is sent to its target: the shard's id, and the hash key that leads there.
    pub(super) fn send(&mut self, target: &Target, bytes: usize) -> (Option<String>, Option<u128>) {
        let shard = target.shard.and_then(|shard| self.shards.open.get(shard));
        let Some(shard) = shard else {
            return (None, None);
        };
        if let Some(limit) = self.limits.get_mut(&shard.id) {
            limit.take(bytes);
        }
        let hash = target.explicit.then(|| OpenShard::middle(shard));
        (Some(shard.id.clone()), hash)
    }

    /// A shard refused a record for its rate.
    pub(super) fn throttled(&mut self, shard: &str, now: Instant) {
        if let Some(limit) = self.limits.get_mut(shard) {
            limit.throttled(now);
        }
    }

    /// The shards as listed now; true when others are open than before.
    pub(super) fn replace(&mut self, shards: Shards) -> bool {
        let ids = |shards: &Shards| {
            let ids = shards.open.iter().map(|shard| shard.id.clone());
            ids.collect::<Vec<_>>()
        };
        let changed = ids(&shards) != ids(&self.shards);
        self.limits
            .retain(|id, _| shards.open.iter().any(|shard| shard.id == *id));
        self.shards = shards;
        self.run = None;
        changed
    }
}

/// The shard of a record without a key, and which part of a burst must be free there: a single one continues a run while
/// that lasts. Else it is the shard with the most capacity; among several, the next in turn.
fn next_shard(
    limits: &mut [RateLimit],
    run: Option<&ShardRun>,
    item: &WaitingRecord,
    now: Instant,
) -> Option<(usize, f64)> {
    if let Some(run) = run.filter(|run| item.single && !run.is_full())
        && limits[run.shard].seconds_until(now, 0.0) <= 0.0
    {
        return Some((run.shard, 0.0));
    }
    let count = limits.len();
    let first = run.map_or_else(|| fastrand::usize(..count.max(1)), |run| run.shard + 1);
    let in_turn = (first..first + count).map(|place| place % count);
    let waits = in_turn.map(|shard| (shard, limits[shard].seconds_until(now, 0.0)));
    let (shard, _) = waits.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let for_a_run = item.single && now < item.since + WAIT_FOR_A_RUN;
    Some((shard, if for_a_run { FREE_FOR_A_RUN } else { 0.0 }))
}
