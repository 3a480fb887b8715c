//! Runs a history, makes the world well again, and waits until all is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use streampress_crds::api::pipeline::OnCompressed;
use streampress_transport::FileName;
use streampress_transport::sim::{SimDisk, SimProcess, SimQueues, Write};
use tokio::time::{sleep, timeout};

use super::check::{Rest, check};
use super::history::{History, HistoryStep, How, NAMES, ServiceKind, Side, Time, at, content};
use super::pipeline::{SimPipeline, Supervised};
use super::record::RunRecord;
use crate::roles::redrive::{RedriveAction, RedriveRequest, RedrivenLetter, redrive};
use crate::runtime::simulated;

/// How long a well world may need for everything that waits.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// All is done when nothing waited for so long.
const REST: Duration = Duration::from_secs(120);
/// And for so long where files are announced and unconfirmed: one that was announced again in vain waits longer each time.
const LONG_REST: Duration = Duration::from_secs(3600 + 600);
/// A command that takes longer is given up.
const COMMAND: Duration = Duration::from_secs(600);

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// What the pipeline did wrong.
    pub(super) violations: Vec<String>,
    /// Files that shared a block with others, each attempt counted.
    pub(super) bundled_files: u64,
    record: RunRecord,
    rest: Rest,
}

/// How much was done in a history for each version that was announced, and one more.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct HistoryFigures {
    /// Messages that the queues of files and manifests took.
    pub(super) messages: f64,
    /// Bytes that were appended to the stream.
    pub(super) bytes: f64,
    /// Calls of services, each second.
    pub(super) calls: f64,
}

impl HistoryFigures {
    /// The larger of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            messages: self.messages.max(other.messages),
            bytes: self.bytes.max(other.bytes),
            calls: self.calls.max(other.calls),
        }
    }
}

impl Outcome {
    /// Messages that the queues of files and manifests took, dead letters too.
    pub(super) fn sends(&self) -> u64 {
        self.rest.sends
    }

    /// How much was done.
    pub(super) fn figures(&self) -> HistoryFigures {
        let versions = self.record.announced.len() as f64 + 1.0;
        HistoryFigures {
            messages: self.rest.sends as f64 / versions,
            bytes: self.rest.appended_bytes as f64 / versions,
            calls: self.rest.calls as f64 / self.rest.elapsed.as_secs_f64(),
        }
    }

    /// Whether the pipeline does not know what became of every announced file.
    pub(super) fn has_unconfirmed(&self) -> bool {
        !self.rest.unconfirmed.is_empty()
    }

    /// Without what was measured by the machine's clock: how long packing took, in manifests.
    pub(super) fn without_times(mut self) -> Self {
        const FIELD: &str = "\"seconds\":";
        for letter in &mut self.rest.dead_letters {
            let mut parts = letter.message.body.split(FIELD);
            let mut body = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let number = |c: char| c.is_ascii_digit() || ".e-".contains(c);
                body += FIELD;
                body += part.trim_start_matches(number);
            }
            letter.message.body = body;
        }
        self
    }

    /// Files that were moved out of the way at the destination.
    pub(super) fn displaced(&self) -> usize {
        let names = self.rest.destination.keys();
        names
            .filter(|name| name.starts_with(".streampress/displaced/"))
            .count()
    }

    /// When, since the start, the pipeline made the first file of this name visible.
    pub(super) fn first_restored(&self, name: &str) -> Option<Duration> {
        let events = self.record.destination.get(name)?;
        let restored = events.iter().find(|event| event.by_pipeline);
        restored.map(|event| event.at)
    }

    /// Whether a file of this name is at the destination.
    pub(super) fn has(&self, name: &str) -> bool {
        self.rest.destination.contains_key(name)
    }

    /// Reason and detail of each dead letter that is left.
    pub(super) fn dead_letters(&self) -> Vec<String> {
        let letters = self.rest.dead_letters.iter();
        letters
            .map(|letter| format!("{:?}", letter.message.attributes))
            .collect()
    }
}

/// Runs the history from its start to the rest after it.
pub(super) fn run(history: &History) -> Outcome {
    runtime().block_on(async {
        let pipeline = Arc::new(SimPipeline::new(history.seed, history.settings));
        let _entered = simulated::enter(&pipeline.world, history.seed);
        let mut run = HistoryRun {
            roles: pipeline.start(),
            pipeline,
            record: RunRecord::default(),
        };
        for (millis, step) in &history.steps {
            sleep(Duration::from_millis(*millis)).await;
            run.apply(*step).await;
        }
        let is_done = run.come_to_rest().await;
        let unconfirmed = run.pipeline.unconfirmed().await;
        run.outcome(is_done, unconfirmed)
    })
}

/// One thread and a paused clock.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime")
}

struct HistoryRun {
    pipeline: Arc<SimPipeline>,
    roles: Vec<Arc<Supervised>>,
    record: RunRecord,
}

impl HistoryRun {
    async fn apply(&mut self, step: HistoryStep) {
        let pipeline = self.pipeline.clone();
        self.record.observe_source(&pipeline);
        self.record.observe_destination(&pipeline);
        let now = pipeline.world.elapsed();
        self.record.steps.push((now, step));
        match step {
            HistoryStep::Write {
                name,
                content: number,
                bytes,
                how,
                time,
            } => {
                let bytes = content(number, bytes).into();
                let write = match how {
                    How::Replace => Write::Replace(bytes),
                    How::InPlace => Write::InPlace(bytes),
                };
                let modified = self.modified(&pipeline.source, name, time);
                pipeline.source.write(at(name), write, modified);
            }
            HistoryStep::Append {
                name,
                content: number,
                bytes,
            } => {
                let write = Write::Append(content(number, bytes.into()).into());
                pipeline.source.write(at(name), write, None);
            }
            HistoryStep::Truncate { name, bytes } => {
                if pipeline.source.node(at(name)).is_some() {
                    let write = Write::Truncate(bytes.into());
                    pipeline.source.write(at(name), write, None);
                }
            }
            HistoryStep::Copy {
                from,
                to,
                keeps_time,
            } => {
                if let Some(node) = pipeline.source.node(at(from)) {
                    let modified = keeps_time.then_some(node.modified);
                    pipeline
                        .source
                        .write(at(to), Write::InPlace(node.bytes), modified);
                }
            }
            HistoryStep::RenameOver { from, to } => {
                if from != to {
                    pipeline.source.rename(at(from), at(to));
                }
            }
            HistoryStep::CopyTruncate { from, to } => {
                if let Some(node) = pipeline.source.node(at(from)).filter(|_| from != to) {
                    let (source, log) = (&pipeline.source, node.bytes);
                    source.write(at(to), Write::Replace(log), None);
                    self.record.observe_source(&pipeline);
                    source.write(at(from), Write::Truncate(0), None);
                }
            }
            HistoryStep::Touch { name, time } => self.touch(&pipeline.source, name, time),
            HistoryStep::Delete { name } => pipeline.source.remove(at(name)),
            HistoryStep::Protect { name, seconds } => {
                pipeline
                    .source
                    .touch(at(name), |node| node.is_readable = false);
                self.after(seconds, move |pipeline| {
                    pipeline
                        .source
                        .touch(at(name), |node| node.is_readable = true);
                });
            }
            HistoryStep::Submit { name } => self.submit(name).await,
            HistoryStep::Redrive => self.redrive().await,
            HistoryStep::Recover => self.recover().await,
            step => self.change_destination(step),
        }
        self.record.observe_source(&pipeline);
    }

    /// What other programs do at the destination.
    fn change_destination(&mut self, step: HistoryStep) {
        let pipeline = self.pipeline.clone();
        match step {
            HistoryStep::TouchCopy { name, time } => {
                self.touch(&pipeline.destination, name, time);
            }
            HistoryStep::WriteCopy {
                name,
                content: number,
                bytes,
                how,
            } => {
                // Numbers of their own: no source has such content.
                let bytes: Bytes = content(number.saturating_add(30_000), bytes.into()).into();
                let write = match how {
                    How::Replace => Write::Replace(bytes),
                    How::InPlace => Write::InPlace(bytes),
                };
                if !pipeline.destination.is_folder(at(name)) {
                    self.record.change_copy(&pipeline, at(name), || {
                        pipeline.destination.write(at(name), write, None);
                    });
                }
            }
            HistoryStep::DeleteCopy { name } => {
                self.record.change_copy(&pipeline, at(name), || {
                    pipeline.destination.remove(at(name));
                });
            }
            HistoryStep::Obstruct { name, seconds } => {
                if pipeline.destination.node(at(name)).is_none() {
                    let file = Write::Replace(Bytes::new());
                    pipeline.destination.write(&inside(name), file, None);
                    self.after(seconds, move |pipeline| {
                        pipeline.destination.remove(&inside(name));
                    });
                }
            }
            HistoryStep::Deny { name, seconds } => {
                let denied = Some(at(name));
                pipeline
                    .destination
                    .set_faults(|faults| faults.denied = denied);
                self.after(seconds, |pipeline| {
                    pipeline
                        .destination
                        .set_faults(|faults| faults.denied = None);
                });
            }
            step => self.disturb(step),
        }
    }

    /// What happens to processes and services.
    fn disturb(&mut self, step: HistoryStep) {
        let pipeline = self.pipeline.clone();
        match step {
            HistoryStep::Kill { role, effects } => {
                self.role(role).process().kill_after(effects.into())
            }
            HistoryStep::Freeze { role, seconds } => {
                self.role(role).process().freeze(secs(seconds))
            }
            HistoryStep::Restart { role } => self.role(role).terminate(),
            HistoryStep::Stop { role, seconds } => {
                let role = self.role(role);
                role.want(false);
                self.after(seconds, move |_| role.want(true));
            }
            HistoryStep::Suspend { seconds } => {
                let sending: Vec<_> = self
                    .roles
                    .iter()
                    .filter(|role| role.sends())
                    .cloned()
                    .collect();
                sending.iter().for_each(|role| role.want(false));
                self.after(seconds, move |_| {
                    sending.iter().for_each(|role| role.want(true))
                });
            }
            HistoryStep::Clock { millis } => pipeline.world.jump(millis),
            HistoryStep::Stall {
                longest_seconds,
                seconds,
            } => {
                pipeline.world.set_stalls(0.1, secs(longest_seconds));
                self.after(seconds, |pipeline| {
                    pipeline.world.set_stalls(0.0, Duration::ZERO)
                });
            }
            step => self.disturb_service(step),
        }
    }

    /// What happens to services.
    fn disturb_service(&mut self, step: HistoryStep) {
        let pipeline = self.pipeline.clone();
        match step {
            HistoryStep::Down { service, seconds } => {
                for it in services(&pipeline, service) {
                    it.set_faults(|faults| faults.down = true);
                }
                self.after(seconds, move |pipeline| {
                    for it in services(pipeline, service) {
                        it.set_faults(|faults| faults.down = false);
                    }
                });
            }
            HistoryStep::Lossy {
                service,
                percent,
                seconds,
            } => {
                let share = f64::from(percent) / 100.0;
                let lose = move |pipeline: &SimPipeline, share: f64| {
                    for it in services(pipeline, service) {
                        it.set_faults(|faults| {
                            (faults.lost_requests, faults.lost_answers) =
                                (share / 2.0, share / 2.0);
                        });
                    }
                };
                lose(&pipeline, share);
                self.after(seconds, move |pipeline| lose(pipeline, 0.0));
            }
            HistoryStep::Slow {
                service,
                millis,
                seconds,
            } => {
                let slow = move |pipeline: &SimPipeline, most: u64| {
                    for it in services(pipeline, service) {
                        it.set_faults(|faults| faults.latency.1 = Duration::from_millis(most));
                    }
                };
                slow(&pipeline, millis.into());
                self.after(seconds, move |pipeline| slow(pipeline, 20));
            }
            HistoryStep::Duplicates {
                service,
                percent,
                seconds,
            } => {
                let repeat = move |pipeline: &SimPipeline, share: f64| {
                    for it in services(pipeline, service) {
                        it.set_faults(|faults| faults.duplicates = share);
                    }
                };
                repeat(&pipeline, f64::from(percent) / 100.0);
                self.after(seconds, move |pipeline| repeat(pipeline, 0.0));
            }
            step => self.disturb_disk(step),
        }
    }

    /// What happens to disks.
    fn disturb_disk(&mut self, step: HistoryStep) {
        let pipeline = self.pipeline.clone();
        match step {
            HistoryStep::LostAnswers {
                side,
                percent,
                seconds,
            } => {
                let share = f64::from(percent) / 100.0;
                disk(&pipeline, side).set_faults(|faults| faults.lost_answers = share);
                self.after(seconds, move |pipeline| {
                    disk(pipeline, side).set_faults(|faults| faults.lost_answers = 0.0);
                });
            }
            HistoryStep::DiskDown { side, seconds } => {
                disk(&pipeline, side).set_faults(|faults| faults.is_down = true);
                self.after(seconds, move |pipeline| {
                    disk(pipeline, side).set_faults(|faults| faults.is_down = false);
                });
            }
            HistoryStep::ReadOnly { side, seconds } => {
                disk(&pipeline, side).set_faults(|faults| faults.is_read_only = true);
                self.after(seconds, move |pipeline| {
                    disk(pipeline, side).set_faults(|faults| faults.is_read_only = false);
                });
            }
            HistoryStep::Full {
                side,
                free_bytes,
                seconds,
            } => {
                let capacity = disk(&pipeline, side).used_bytes() + u64::from(free_bytes);
                disk(&pipeline, side).set_faults(|faults| faults.capacity_bytes = Some(capacity));
                self.after(seconds, move |pipeline| {
                    disk(pipeline, side).set_faults(|faults| faults.capacity_bytes = None);
                });
            }
            step => lose(&pipeline, step),
        }
    }

    fn role(&self, number: u8) -> Arc<Supervised> {
        self.roles[usize::from(number) % self.roles.len()].clone()
    }

    fn modified(&self, disk: &SimDisk, name: u8, time: Time) -> Option<SystemTime> {
        let now = self.pipeline.world.now();
        match time {
            Time::Now => None,
            Time::Same => disk.node(at(name)).map(|node| node.modified),
            Time::Past(seconds) => Some(now.checked_sub(secs(seconds)).unwrap_or(UNIX_EPOCH)),
            Time::Future(seconds) => Some(now + secs(seconds)),
        }
    }

    fn touch(&self, disk: &SimDisk, name: u8, time: Time) {
        let modified = self.modified(disk, name, time);
        let modified = modified.unwrap_or_else(|| self.pipeline.world.now());
        disk.touch(at(name), |node| node.modified = modified);
    }

    /// Ends a disturbance, unless the whole world was made well before.
    fn after(&self, seconds: u32, end: impl FnOnce(&SimPipeline) + Send + 'static) {
        let pipeline = self.pipeline.clone();
        tokio::spawn(async move {
            sleep(secs(seconds)).await;
            end(&pipeline);
        });
    }

    /// `streampress submit` of a file that lies at the source.
    async fn submit(&mut self, name: u8) {
        let process = SimProcess::new("submit");
        let announcer = self.pipeline.announcer(&process);
        let Ok(name) = FileName::parse(at(name)) else {
            return;
        };
        let Ok(Some(entry)) = announcer.source.stat(&name) else {
            return;
        };
        let began = self.pipeline.world.elapsed();
        let announcing = async {
            let read = announcer.read(&entry).await?;
            let announced = announcer.announce_all(&[read]).await;
            announcer.journal.flush_sources().await?;
            announced
        };
        let announced = timeout(COMMAND, announcing).await;
        process.kill();
        if let Ok(Ok(_)) = announced {
            // The content that it read was there then or later.
            self.record
                .submitted
                .insert(name.as_str().to_owned(), began);
        }
    }

    /// `streampress redrive`.
    async fn redrive(&mut self) {
        let process = SimProcess::new("redrive");
        let connections = self.pipeline.connections(&process);
        let announcer = self.pipeline.announcer(&process);
        let request = RedriveRequest::default();
        let redriving = timeout(COMMAND, redrive(&connections, &announcer, &request));
        match redriving.await {
            // What it does not reach now it finds the next time.
            Ok(redriven) => {
                let replaced = redriven.letters.iter().filter(|letter| is_replaced(letter));
                self.record.replaced += replaced.count() as u64;
            }
            // What it did before is not known.
            Err(_) => self.record.replaced += u64::from(u32::MAX),
        }
        let _ = timeout(COMMAND, announcer.journal.flush_sources()).await;
        process.kill();
    }

    /// `streampress recover`.
    async fn recover(&mut self) {
        let process = SimProcess::new("recover");
        let recovering = async {
            let recovery = self.pipeline.recovery(&process).await;
            recovery.run().await
        };
        // What it does not reach now it finds the next time.
        let _ = timeout(COMMAND, recovering).await;
        process.kill();
    }

    /// Makes the world well, waits until nothing waits any more, and redrives what became a dead letter meanwhile.
    async fn come_to_rest(&mut self) -> bool {
        let pipeline = self.pipeline.clone();
        for redrives_left in (0..=pipeline.settings.redrives).rev() {
            self.make_well();
            let is_done = timeout(PATIENCE, self.nothing_waits()).await.is_ok();
            let dead = [&pipeline.files_queue, &pipeline.chunks_queue];
            let all_alive = dead.iter().all(|queue| queue.dead_letters().is_empty());
            if !is_done || all_alive || redrives_left == 0 {
                return is_done;
            }
            self.redrive().await;
        }
        true
    }

    fn make_well(&self) {
        let pipeline = &self.pipeline;
        pipeline.heal();
        for role in &self.roles {
            role.process().thaw();
            role.want(true);
        }
        for number in (0..).take(NAMES.len()) {
            let name = at(number);
            pipeline.destination.remove(&inside(number));
            if pipeline
                .source
                .node(name)
                .is_some_and(|node| !node.is_readable)
            {
                pipeline.source.touch(name, |node| node.is_readable = true);
            }
        }
    }

    /// Longer while the pipeline does not know what became of a file that has waited in vain before.
    async fn nothing_waits(&self) {
        let mut calm = Duration::ZERO;
        while calm < REST || (calm < LONG_REST && !self.pipeline.unconfirmed().await.is_empty()) {
            sleep(Duration::from_secs(5)).await;
            match self.pipeline.waiting() {
                0 => calm += Duration::from_secs(5),
                _ => calm = Duration::ZERO,
            }
        }
    }

    fn outcome(mut self, is_done: bool, unconfirmed: Vec<String>) -> Outcome {
        let pipeline = &self.pipeline;
        self.record.observe_source(pipeline);
        self.record.observe_destination(pipeline);
        self.record.observe_announcements(pipeline);
        let rest = Rest {
            is_done,
            source: pipeline.source.nodes(),
            destination: pipeline.destination.nodes(),
            dead_letters: [&pipeline.files_queue, &pipeline.chunks_queue]
                .into_iter()
                .flat_map(|queue| queue.dead_letters())
                .collect(),
            sends: pipeline.files_queue.traffic().0 + pipeline.chunks_queue.traffic().0,
            is_scanned: pipeline.settings.scan_seconds.is_some(),
            is_redriven: pipeline.settings.redrives > 0,
            renames: pipeline.settings.renames(),
            keeps_until_restored: pipeline.settings.on_compressed == OnCompressed::Keep,
            unconfirmed,
            counts: pipeline.counts(),
            calls: pipeline.world.calls(),
            appended_bytes: pipeline.stream.appended_bytes(),
            elapsed: pipeline.world.elapsed(),
        };
        Outcome {
            violations: check(&self.record, &rest),
            bundled_files: pipeline.packing.counts().bundled_files,
            record: self.record,
            rest,
        }
    }
}

/// The file in a folder that has a file's name.
fn inside(name: u8) -> String {
    format!("{}/in-the-way", at(name))
}

/// What services lose.
fn lose(pipeline: &SimPipeline, step: HistoryStep) {
    match step {
        HistoryStep::LoseSlots => {
            pipeline.compressor_slots.take_away();
            pipeline.decompressor_slots.take_away();
        }
        HistoryStep::Reshard { shards } => pipeline.stream.reshard(shards.into()),
        HistoryStep::Purge { service } => {
            if let Some(queue) = queue(pipeline, service) {
                queue.purge();
            }
        }
        HistoryStep::Remake {
            service: ServiceKind::Stream,
        } => pipeline.stream.remake(),
        HistoryStep::Remake { service } => {
            if let Some(queue) = queue(pipeline, service) {
                queue.remake();
            }
        }
        HistoryStep::RemakeAll => {
            pipeline.files_queue.remake();
            pipeline.chunks_queue.remake();
            pipeline.receipts_queue.remake();
            pipeline.stream.remake();
        }
        // Steps that `apply` and `disturb` have taken.
        _ => {}
    }
}

/// The queue that a service is. What is no queue cannot be purged.
fn queue(pipeline: &SimPipeline, service: ServiceKind) -> Option<&SimQueues> {
    match service {
        ServiceKind::FilesQueue => Some(&pipeline.files_queue),
        ServiceKind::ChunksQueue => Some(&pipeline.chunks_queue),
        ServiceKind::ReceiptsQueue => Some(&pipeline.receipts_queue),
        ServiceKind::Stream | ServiceKind::Slots => None,
    }
}

/// Whether a later version takes the place of the letter's.
fn is_replaced(letter: &RedrivenLetter) -> bool {
    use RedriveAction::{ReplacementAnnounced, SupersededSince};
    matches!(letter.action, ReplacementAnnounced | SupersededSince)
}

fn secs(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn disk(pipeline: &SimPipeline, side: Side) -> &SimDisk {
    match side {
        Side::Source => &pipeline.source,
        Side::Destination => &pipeline.destination,
    }
}

fn services(
    pipeline: &SimPipeline,
    service: ServiceKind,
) -> Vec<&streampress_transport::sim::SimService> {
    let all = pipeline.services();
    let range = match service {
        ServiceKind::FilesQueue => 0..2,
        ServiceKind::ChunksQueue => 2..4,
        ServiceKind::Stream => 4..5,
        ServiceKind::Slots => 5..7,
        ServiceKind::ReceiptsQueue => 7..9,
    };
    all[range].to_vec()
}
