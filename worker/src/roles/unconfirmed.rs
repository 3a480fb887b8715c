//! Announces again what was announced and is lost: a queue or the stream was deleted and made again, or purged, and with it the
//! messages of files that wait. Only where there is a journal that receipts are recorded in, and by the process that holds the
//! generator's slot.
//!
//! A file is announced again where nothing is known of what became of it, and
//! - a queue or the stream has another incarnation than when files were last seen under way; or
//! - the queues of files, manifests and receipts have been empty for a minute.
//!
//! A backlog that is slow is neither. A file whose message is a dead letter is known. A repeat carries the version of its first
//! announcement, so that it replaces nothing later; where that version lies at the destination already, only its receipt is sent
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::journal::{SourceRecord, SourceState};
use crate::message::Digest;
use crate::roles::announce::{Announcer, file_of, random_id};
use crate::roles::connect::CompressorConnections;
use crate::roles::copies::find_put_aside;
use crate::roles::redrive::{RedriveRequest, RedriveTask, redrive};
use crate::runtime::blocking;
use crate::telemetry::metrics::Meter;
use streampress_transport::{COUNTED_LATE, EmptyQueues, FileEntry, FileName, Queue};

/// Between two checks.
const INTERVAL: Duration = Duration::from_secs(10);
/// A file that was announced again in vain waits twice as long each time, up to 64 times as long.
const MOST_DOUBLINGS: u32 = 6;
/// So many vain repeats are said as a warning.
const MANY_REPEATS: u32 = 3;
/// Files are announced again in batches of at most this many.
const BATCH_FILES: usize = 64;
/// The journal's key for the incarnations of queues and stream.
const INCARNATIONS: &str = "incarnations";

/// Announces again what is lost.
pub(crate) struct UnconfirmedFiles {
    /// How files are announced, with the journal of what was.
    pub(crate) announcer: Announcer,
    /// The queues and the stream that files pass through.
    pub(crate) connections: CompressorConnections,
    /// Whether nothing else takes in what other processes recorded.
    pub(crate) takes_in: bool,
    /// What it counts.
    pub(crate) meter: Meter,
}

/// What it remembers from one check to the next.
#[derive(Debug, Default)]
struct LossWatch {
    /// Whether files were under way at the last check; `None` at the first.
    had_unconfirmed: Option<bool>,
    /// Since when all queues have been empty.
    empty: EmptyQueues,
    /// Announcements that were unconfirmed while all queues were empty, by id.
    suspects: BTreeMap<String, Suspect>,
    /// Whether the last check failed, which was said.
    has_failed: bool,
}

/// An announcement that may be lost.
#[derive(Debug)]
struct Suspect {
    /// When it counts as lost, unless the queues hold something.
    due: Instant,
    /// How often it was found to be lost or dead.
    findings: u32,
    /// How often it was announced again.
    repeats: u32,
    /// Whether it was said that its source is gone.
    is_gone: bool,
}

impl Suspect {
    fn new() -> Self {
        Self {
            due: Instant::now() + COUNTED_LATE,
            findings: 0,
            repeats: 0,
            is_gone: false,
        }
    }

    /// It is checked again after twice the time.
    fn postpone(&mut self) {
        self.findings += 1;
        self.due = Instant::now() + COUNTED_LATE * 2_u32.pow(self.findings.min(MOST_DOUBLINGS));
    }
}

impl UnconfirmedFiles {
    /// Checks every some seconds, until it is shut down, or nothing more will come and nothing is lost. Errors are logged and
    /// retried.
    pub(crate) async fn run(&self, shutdown: &CancellationToken, all_made: &CancellationToken) {
        let mut watch = LossWatch::default();
        while !shutdown.is_cancelled() {
            self.meter.ticked();
            let nothing_comes = all_made.is_cancelled();
            match self.check(&mut watch).await {
                Ok(is_done) => {
                    watch.has_failed = false;
                    if is_done && nothing_comes {
                        return;
                    }
                }
                Err(error) => {
                    // An unknown depth is not zero.
                    watch.empty = EmptyQueues::default();
                    if !std::mem::replace(&mut watch.has_failed, true) {
                        warn!(
                            error = format!("{error:#}"),
                            "Could not find out whether announced files are lost; retrying."
                        );
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// True where nothing is under way.
    async fn check(&self, watch: &mut LossWatch) -> Result<bool> {
        let journal = &self.announcer.journal;
        if self.takes_in {
            let mut done = journal.take_in().await?;
            // Nothing scans the source: what is known of a file is of no use once it is done.
            done.retain(SourceRecord::is_done);
            match done.is_empty() {
                true => journal.flush_sources().await?,
                false => journal.forget_sources(&done).await?,
            }
        }
        if !journal.may_have_unconfirmed().await? {
            *watch = LossWatch {
                had_unconfirmed: Some(false),
                ..LossWatch::default()
            };
            return Ok(true);
        }
        let had_unconfirmed = watch.had_unconfirmed.replace(true);
        let incarnations = self.incarnations().await?;
        let before = journal.get(INCARNATIONS).await?;
        if before.as_deref() != Some(&*incarnations) {
            watch.empty = EmptyQueues::default();
            // What was announced since nothing was under way is in the queues of now.
            if before.is_some() && had_unconfirmed != Some(false) {
                warn!("A queue or the stream was made anew: files under way are announced again.");
                let digest = Digest::of(incarnations.as_bytes());
                let lost = self.without_dead(self.sent().await?).await?;
                self.announce(lost, &digest.as_str()[..16], watch).await?;
            }
            journal.set(INCARNATIONS, &incarnations).await?;
            return Ok(false);
        }
        let are_empty = self.are_queues_empty().await?;
        if watch.empty.observe(are_empty, Instant::now()).is_none() {
            return Ok(false);
        }
        let sent = self.sent().await?;
        let ids: BTreeSet<_> = sent.iter().map(|record| &*record.announcement).collect();
        watch.suspects.retain(|id, _| ids.contains(&**id));
        for id in ids {
            watch
                .suspects
                .entry(id.to_owned())
                .or_insert_with(Suspect::new);
        }
        if !watch.empty.are_certain(Instant::now()) {
            return Ok(false);
        }
        let now = Instant::now();
        let mut due = sent;
        due.retain(|record| {
            let suspect = watch.suspects.get(&record.announcement);
            suspect.is_some_and(|suspect| suspect.due <= now)
        });
        let due_ids: Vec<_> = due.iter().map(|it| it.announcement.clone()).collect();
        let lost = self.without_dead(due).await?;
        self.announce(lost, &random_id(), watch).await?;
        for id in due_ids {
            if let Some(suspect) = watch.suspects.get_mut(&id) {
                suspect.postpone();
            }
        }
        // What is left was looked for, and is dead or gone.
        let suspects = watch.suspects.values();
        Ok(suspects
            .clone()
            .all(|it| it.findings > 0 && it.repeats == 0))
    }

    /// Which queues and which stream these are, as one text.
    async fn incarnations(&self) -> Result<String> {
        let mut all = Vec::new();
        for queue in self.queues() {
            all.push(queue.incarnation().await?);
        }
        all.push(self.connections.stream.incarnation().await?);
        Ok(all.join(" "))
    }

    async fn are_queues_empty(&self) -> Result<bool> {
        for queue in self.queues() {
            if queue.depth().await?.total() > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn queues(&self) -> impl Iterator<Item = &dyn Queue> {
        let connections = &self.connections;
        [&connections.files_queue, &connections.chunks_queue]
            .into_iter()
            .chain(&connections.receipts_queue)
            .map(|queue| &**queue)
    }

    /// What was sent and is not known to have become anything; dead letters too.
    async fn sent(&self) -> Result<Vec<SourceRecord>> {
        let location = self.announcer.source.location();
        let mut records = self.announcer.journal.unconfirmed(location).await?;
        // What may not have been sent is sent by the scan, or when its file is made again.
        records.retain(|record| record.state != SourceState::Writing);
        Ok(records)
    }

    /// Leaves out what is a dead letter.
    async fn without_dead(&self, mut records: Vec<SourceRecord>) -> Result<Vec<SourceRecord>> {
        if records.is_empty() {
            return Ok(records);
        }
        let list = RedriveRequest::all(RedriveTask::List);
        let letters = redrive(&self.connections, &self.announcer, &list).await;
        let letters = letters.all().context("reading the dead letters")?;
        let dead: BTreeSet<_> = letters
            .into_iter()
            .map(|letter| letter.announcement.ok_or(letter.name))
            .collect();
        records.retain(|record| {
            !dead.contains(&Ok(record.announcement.clone()))
                && !dead.contains(&Err(record.name.clone()))
        });
        Ok(records)
    }

    async fn announce(
        &self,
        lost: Vec<SourceRecord>,
        id: &str,
        watch: &mut LossWatch,
    ) -> Result<()> {
        for batch in lost.chunks(BATCH_FILES) {
            let (mut repeats, mut present) = (Vec::new(), Vec::new());
            for record in batch {
                let suspect = watch.suspects.entry(record.announcement.clone());
                let suspect = suspect.or_insert_with(Suspect::new);
                match self.find(record).await? {
                    Some(FoundSource::Announced) => repeats.push(record.clone()),
                    Some(FoundSource::Present(entry)) => present.push(entry),
                    None => {
                        if !std::mem::replace(&mut suspect.is_gone, true) {
                            warn!(
                                file_name = record.name,
                                "Nothing is known of what became of this file, and it is no longer at the source."
                            );
                        }
                        continue;
                    }
                }
                suspect.repeats += 1;
                if suspect.repeats >= MANY_REPEATS {
                    warn!(
                        file_name = record.name,
                        repeats = suspect.repeats,
                        "Announced again several times, and nothing is known of what became of it; it waits longer each time."
                    );
                }
            }
            let announcer = &self.announcer;
            announcer.announce_unconfirmed(&repeats, id).await?;
            for dead in repeats.iter().filter(|it| it.state == SourceState::Dead) {
                announcer.journal.record_redriven(&dead.file_id).await?;
            }
            let mut read = Vec::new();
            for entry in present {
                // One that cannot be read is said by the scan.
                read.extend(announcer.read(&entry).await.ok());
            }
            announcer.announce_all(&read).await?;
            let announced = repeats.len() + read.len();
            if announced > 0 {
                watch.empty = EmptyQueues::default();
                self.meter.announced_again(announced as u64);
                info!(files = announced, "Announced again what was lost.");
            }
        }
        Ok(())
    }

    /// What the source holds of the announced file; nothing where it is gone, and was not put aside either.
    async fn find(&self, record: &SourceRecord) -> Result<Option<FoundSource>> {
        let name = FileName::parse(&record.name).map_err(anyhow::Error::msg)?;
        let source = self.announcer.source.clone();
        // A repeat needs its version, so that it replaces nothing later; else the file is announced as it is now.
        let repeated = file_of(record).filter(|_| record.version.is_some());
        match blocking(move || source.stat(&name)).await {
            Ok(Some(entry)) => Ok(Some(match repeated {
                Some(_) => FoundSource::Announced,
                None => FoundSource::Present(entry),
            })),
            // A folder took its place.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
                Err(error).with_context(|| format!("looking for {}", record.name))
            }
            Ok(None) | Err(_) => match repeated {
                Some(file) => {
                    let copy = find_put_aside(&self.announcer, &file).await?;
                    Ok(copy.map(|_| FoundSource::Announced))
                }
                None => Ok(None),
            },
        }
    }
}

/// What the source holds of a file that is to be announced again.
enum FoundSource {
    /// Possibly what was announced; the compressor announces other content in its place.
    Announced,
    /// A file whose announcement cannot be repeated.
    Present(FileEntry),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use streampress_crds::api::pipeline::OnCompressed;
    use streampress_transport::ATTR_VERSION;
    use streampress_transport::sim::{
        QueueOptions, SimDisk, SimProcess, SimQueues, SimStreams, World, Write,
    };

    use super::*;
    use crate::journal::SegmentJournal;
    use crate::roles::announce::AnnouncementFormat;
    use crate::roles::source::apply_on_compressed;
    use crate::runtime::simulated;

    struct Services {
        source: SimDisk,
        files_queue: SimQueues,
        lost: UnconfirmedFiles,
        watch: LossWatch,
    }

    impl Services {
        fn new(world: &World) -> Self {
            let options = QueueOptions {
                visibility_timeout: Duration::from_secs(30),
                max_receive_count: 1000,
                retention: Duration::from_secs(86_400),
            };
            let process = SimProcess::new("generator");
            let queue = |name| SimQueues::new(world, name, options);
            let (files_queue, source) =
                (queue("files"), SimDisk::new(world, Duration::from_nanos(1)));
            let connections = CompressorConnections {
                files_queue: Arc::new(files_queue.open(&process)),
                chunks_queue: Arc::new(queue("chunks").open(&process)),
                receipts_queue: Some(Arc::new(queue("receipts").open(&process))),
                stream: Arc::new(
                    SimStreams::new(world, "stream", 1, Duration::from_secs(86_400)).open(&process),
                ),
            };
            let files = Arc::new(source.open("file:///source", &process));
            let announcer = Announcer {
                journal: Arc::new(SegmentJournal::new(files.clone(), true)),
                source: files,
                files_queue: connections.files_queue.clone(),
                strict: false,
                format: AnnouncementFormat::Native,
            };
            Self {
                source,
                files_queue,
                lost: UnconfirmedFiles {
                    announcer,
                    connections,
                    takes_in: false,
                    meter: Meter::default(),
                },
                watch: LossWatch::default(),
            }
        }

        async fn announce(&self, content: &'static str) -> SourceRecord {
            let content = Write::Replace(content.as_bytes().into());
            self.source.write("a.txt", content, None);
            let name = FileName::parse("a.txt").expect("a valid name");
            let announcer = &self.lost.announcer;
            let entry = announcer.source.stat(&name).expect("read");
            let read = announcer.read(&entry.expect("there")).await.expect("read");
            let announced = announcer.announce_all(&[read]).await;
            announced.expect("announced").remove(0)
        }

        /// Checks for so long, every ten seconds.
        async fn check_for(&mut self, seconds: u64) {
            for _ in 0..seconds / 10 {
                self.lost.check(&mut self.watch).await.expect("checked");
                tokio::time::advance(INTERVAL).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_purged_announcement_is_repeated_with_its_version_and_each_time_later() {
        let world = World::new(1);
        let _entered = simulated::enter(&world, 1);
        let mut services = Services::new(&world);
        let record = services.announce("words").await;
        services.check_for(300).await;
        assert_eq!(services.files_queue.messages().len(), 1);
        let version = record.version.expect("told").to_string();
        let mut waited = Vec::new();
        for _ in 0..4 {
            services.files_queue.purge();
            let purged = Instant::now();
            while services.files_queue.messages().is_empty() {
                services.check_for(10).await;
            }
            waited.push(purged.elapsed().as_secs());
            let message = services.files_queue.messages().remove(0).message;
            assert_eq!(message.attributes[ATTR_VERSION], version);
            assert!(message.body.contains(&record.announcement));
        }
        assert!(waited[0] <= 70, "{waited:?}");
        assert!(waited.is_sorted_by(|one, next| one < next), "{waited:?}");
        assert_eq!(services.lost.meter.counts().announced_again, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_was_put_aside_is_announced_again_and_one_that_is_gone_is_not() {
        for (on_compressed, announced) in [(OnCompressed::Rename, 1), (OnCompressed::Delete, 0)] {
            let world = World::new(1);
            let _entered = simulated::enter(&world, 1);
            let mut services = Services::new(&world);
            let record = services.announce("words").await;
            let file = file_of(&record).expect("a file");
            apply_on_compressed(&services.lost.announcer, &file, on_compressed).await;
            assert!(services.source.node("a.txt").is_none());
            services.check_for(20).await;
            services.files_queue.purge();
            services.check_for(600).await;
            let messages = services.files_queue.messages().len();
            assert_eq!(messages, announced, "{on_compressed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_without_a_version_is_made_anew_with_what_the_source_has_now() {
        let world = World::new(1);
        let _entered = simulated::enter(&world, 1);
        let mut services = Services::new(&world);
        let record = services.announce("words").await;
        // Its answer was lost.
        let unknown = SourceRecord {
            announcement: "unknown".into(),
            version: None,
            ..record
        };
        let journal = services.lost.announcer.journal.clone();
        let recorded = journal.record_announcements(&[unknown]).await;
        recorded.expect("recorded");
        let other = Write::Replace("other".into());
        services.source.write("a.txt", other, None);
        services.check_for(20).await;
        services.files_queue.purge();
        services.check_for(200).await;
        let messages = services.files_queue.messages();
        assert_eq!(messages.len(), 1);
        assert!(!messages[0].message.attributes.contains_key(ATTR_VERSION));
        assert!(messages[0].message.body.contains("\"bytes\":5"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_remade_queue_is_noticed_at_once_also_after_a_restart() {
        let world = World::new(1);
        let _entered = simulated::enter(&world, 1);
        let mut services = Services::new(&world);
        services.announce("words").await;
        services.check_for(20).await;
        services.watch = LossWatch::default();
        services.files_queue.remake();
        services.check_for(10).await;
        assert_eq!(services.files_queue.messages().len(), 1);
        // The new one is remembered.
        services.watch = LossWatch::default();
        services.check_for(100).await;
        assert_eq!(services.files_queue.traffic().0, 1);
    }
}
