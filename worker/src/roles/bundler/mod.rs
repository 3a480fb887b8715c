//! Packs small files that are in progress at the same time into one block: a group commit. While one bundle is packed and
//! appended, the files that arrive wait and become the next one. A file that is alone in progress is packed at once, alone;
//! only files of a backlog wait for those that are received and read meanwhile.
//!
//! A bundle only shares bytes: each file was compared with its announcement before it joins, and has its own manifest. A
//! file whose work is stopped leaves bytes in the bundle that no manifest names.

mod layout;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use streampress_codec::{CodecError, FormatVersion, hybrid};
use streampress_transport::{Failure, FileName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::layout::share;
use self::layout::{BundleLayout, BundleStructure, lay_out, most_bytes};
use crate::consume::batching::MAX_RECEIVE;
use crate::consume::{HandlerError, ServiceOutage, ThreadBudget};
use crate::message::record::RecordOwner;
use crate::message::trace_context::TraceContext;
use crate::message::{BundlePlace, DescribedContent, DescribedFile, Digest, Records, Share};
use crate::roles::packed_source::{PackedSource, pack_stage, shares};
use crate::roles::record_writer::RecordWriter;
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Meter;

/// Files of one bundle.
const MOST_FILES: usize = 64;
/// Small files in progress at most: one bundle that is appended, one that forms, and what one receive brings.
pub(crate) const MOST_IN_PROGRESS: usize = 2 * MOST_FILES + MAX_RECEIVE;
/// A bundle of this part of a block or more does not wait for the one before it.
const LARGE_PART: usize = 4;
/// A bundle waits for files that are being received or read, so that the files of a backlog are packed together: no longer
/// than this in all,
const LONGEST_GATHER: Duration = Duration::from_millis(500);
/// and no longer than this while nothing comes.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Forms bundles of small files.
#[derive(Debug)]
pub struct Bundler {
    block_bytes: usize,
    /// Bytes of files that are read and not packed yet.
    memory: Arc<Semaphore>,
    /// Held while a bundle is packed and appended.
    turn: Arc<Semaphore>,
    intake: watch::Sender<Intake>,
    forming: Mutex<Vec<FormingBundle>>,
}

/// Files that are on their way to a bundle.
#[derive(Debug, Default)]
struct Intake {
    /// Those that are being read, by the order in which they began.
    reading: BTreeSet<u64>,
    /// The number of the next one.
    next: u64,
    /// More are being received.
    is_more_expected: bool,
}

/// A file that is being read. A bundle that forms meanwhile waits for it.
#[derive(Debug)]
pub(crate) struct MemberReading<'b> {
    intake: &'b watch::Sender<Intake>,
    number: u64,
}

impl Drop for MemberReading<'_> {
    fn drop(&mut self) {
        self.intake.send_modify(|intake| {
            intake.reading.remove(&self.number);
        });
    }
}

/// A file that was read and compared with its announcement.
#[derive(Debug)]
pub(crate) struct Member {
    described: DescribedFile,
    attempt: String,
    content: Vec<u8>,
    trace: Option<TraceContext>,
    _memory: OwnedSemaphorePermit,
}

impl Member {
    pub(crate) fn new(
        described: DescribedFile,
        attempt: &str,
        content: Vec<u8>,
        memory: OwnedSemaphorePermit,
        trace: Option<TraceContext>,
    ) -> Self {
        Self {
            described,
            attempt: attempt.to_owned(),
            content,
            trace,
            _memory: memory,
        }
    }

    fn name(&self) -> &FileName {
        &self.described.file.name
    }

    fn id(&self) -> Digest {
        self.described.file.id()
    }
}

type Packing = BoxFuture<'static, Result<Arc<PackedBundle>, BundleFault>>;

/// A bundle that takes more files. It is dropped with the last of the files that wait for it.
#[derive(Debug)]
struct FormingBundle {
    structure: BundleStructure,
    members: Arc<BundleMembers>,
    packing: WeakShared<Packing>,
}

/// The files of a bundle, until it is packed.
#[derive(Debug)]
struct BundleMembers {
    block_bytes: usize,
    /// `None` once it takes no more.
    members: Mutex<Option<Vec<Member>>>,
    is_large: CancellationToken,
}

impl BundleMembers {
    fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            members: Mutex::new(Some(Vec::new())),
            is_large: CancellationToken::new(),
        }
    }

    /// Adds the file and answers its number, or the file where the bundle takes it not.
    fn add(&self, member: Box<Member>) -> Result<usize, Box<Member>> {
        let mut members = self.members.lock();
        let Some(members) = &mut *members else {
            return Err(member);
        };
        let sizes = members
            .iter()
            .map(|member| most_bytes(member.content.len()));
        let bytes = sizes.sum::<usize>() + most_bytes(member.content.len());
        let is_first = members.is_empty();
        if !is_first && (bytes > self.block_bytes || members.len() >= MOST_FILES) {
            return Err(member);
        }
        members.push(*member);
        if bytes >= self.block_bytes / LARGE_PART || members.len() >= MOST_FILES {
            self.is_large.cancel();
        }
        Ok(members.len() - 1)
    }

    /// Takes the files; no more are added.
    fn close(&self) -> Vec<Member> {
        self.members.lock().take().unwrap_or_default()
    }

    fn is_open(&self) -> bool {
        self.members.lock().is_some()
    }
}

impl Bundler {
    /// Forms bundles of up to `block_bytes` bytes. So many more may wait in memory.
    pub fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            memory: Arc::new(Semaphore::new(block_bytes)),
            turn: Arc::new(Semaphore::new(1)),
            intake: watch::Sender::default(),
            forming: Mutex::default(),
        }
    }

    /// A file begins to be read: bundles that form before that ends wait for it.
    pub(crate) fn begin_reading(&self) -> MemberReading<'_> {
        let mut number = 0;
        self.intake.send_modify(|intake| {
            number = intake.next;
            intake.next += 1;
            intake.reading.insert(number);
        });
        MemberReading {
            intake: &self.intake,
            number,
        }
    }

    /// Whether more files will follow at once: bundles that form wait for them.
    pub(crate) fn expect_more(&self, is_expected: bool) {
        self.intake.send_if_modified(|intake| {
            let was_expected = std::mem::replace(&mut intake.is_more_expected, is_expected);
            was_expected != is_expected
        });
    }

    /// Waits for the memory for a file of `bytes` bytes.
    pub(crate) async fn reserve(
        &self,
        bytes: u64,
        reading: &MemberReading<'_>,
    ) -> Result<OwnedSemaphorePermit, HandlerError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(memory) = self.memory.clone().try_acquire_many_owned(permits) {
            return Ok(memory);
        }
        // The memory is released by bundles, which must not wait for this file.
        self.intake.send_modify(|intake| {
            intake.reading.remove(&reading.number);
        });
        let acquired = self.memory.clone().acquire_many_owned(permits).await;
        acquired.map_err(|_| HandlerError::Interrupted)
    }

    /// Packs the file, alone or together with others that are in progress.
    pub(crate) fn pack(
        &self,
        member: Member,
        packer: BlockPacker,
    ) -> impl Future<Output = Result<PackedSource, HandlerError>> + use<> {
        let (packing, number) = self.join(member, packer);
        async move { Ok(packing.await?.file(number)) }
    }

    /// Adds the file to a bundle that forms, or to a new one.
    fn join(&self, member: Member, packer: BlockPacker) -> (Shared<Packing>, usize) {
        let structure = BundleStructure::of(member.name(), &member.content);
        let mut member = Box::new(member);
        let mut forming = self.forming.lock();
        forming.retain(|it| it.members.is_open() && it.packing.upgrade().is_some());
        for bundle in forming.iter().filter(|it| it.structure == structure) {
            let Some(packing) = bundle.packing.upgrade() else {
                continue;
            };
            match bundle.members.add(member) {
                Ok(number) => return (packing, number),
                Err(refused) => member = refused,
            }
        }
        let members = Arc::new(BundleMembers::new(self.block_bytes));
        // A new bundle takes any first file.
        let number = members.add(member).unwrap_or_default();
        let due = DueBundle {
            structure: structure.clone(),
            members: members.clone(),
            intake: self.intake.subscribe(),
            began_before: self.intake.borrow().next,
            turn: self.turn.clone(),
        };
        let packing = due.pack(packer).boxed().shared();
        forming.extend(packing.downgrade().map(|packing| FormingBundle {
            structure,
            members,
            packing,
        }));
        (packing, number)
    }
}

/// A bundle and what it waits for.
struct DueBundle {
    structure: BundleStructure,
    members: Arc<BundleMembers>,
    intake: watch::Receiver<Intake>,
    /// Files whose reading has a lower number are waited for.
    began_before: u64,
    turn: Arc<Semaphore>,
}

impl DueBundle {
    async fn pack(mut self, packer: BlockPacker) -> Result<Arc<PackedBundle>, BundleFault> {
        let is_large = self.members.is_large.clone();
        tokio::select! {
            biased;
            () = is_large.cancelled() => {}
            () = self.gather() => {}
        }
        let _turn = tokio::select! {
            biased;
            turn = self.turn.acquire_owned() => turn.ok(),
            () = self.members.is_large.cancelled() => None,
        };
        let thread = packer.threads.acquire(1).await;
        let members = self.members.close();
        let packed = packer.pack(members, self.structure, thread).await;
        Ok(Arc::new(packed?))
    }
}

impl DueBundle {
    /// Waits for the files that are on their way; what comes later becomes part of another bundle.
    async fn gather(&mut self) {
        let began_before = self.began_before;
        let gathering = async {
            loop {
                let is_complete = {
                    let intake = self.intake.borrow_and_update();
                    let first = intake.reading.first();
                    first.is_none_or(|first| *first >= began_before) && !intake.is_more_expected
                };
                let changing = self.intake.changed();
                if is_complete || timeout(LONGEST_PAUSE, changing).await.is_err() {
                    return;
                }
            }
        };
        // Nothing is lost where it took too long.
        let _ = timeout(LONGEST_GATHER, gathering).await;
    }
}

/// Packs a bundle and appends it to the stream.
#[derive(Debug, Clone)]
pub(crate) struct BlockPacker {
    pub(crate) options: hybrid::CodecOptions,
    pub(crate) version: FormatVersion,
    pub(crate) plans: Arc<hybrid::PlanStore>,
    pub(crate) writer: RecordWriter,
    pub(crate) threads: ThreadBudget,
    pub(crate) meter: Meter,
}

impl BlockPacker {
    async fn pack(
        self,
        members: Vec<Member>,
        structure: BundleStructure,
        thread: OwnedSemaphorePermit,
    ) -> Result<PackedBundle, HandlerError> {
        let (owner, id) = match &members[..] {
            [alone] => (RecordOwner::new(&alone.id(), &alone.attempt), None),
            several => {
                let place = BundlePlace {
                    id: bundle_id(several),
                    files: u32::try_from(several.len()).unwrap_or(u32::MAX),
                    bytes: 0,
                    prefix: 0,
                    offset: 0,
                };
                (place.record_owner(), Some(place))
            }
        };
        let trace = members.first().and_then(|member| member.trace);
        let described = members.iter().map(|it| it.described.clone()).collect();
        let attempt = members
            .first()
            .map_or_else(String::new, |it| it.attempt.clone());
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_when_dropped = runtime::SetOnDrop(cancel.clone());
        let (options, version, plans) = (self.options, self.version, self.plans.clone());
        let (packed, places) = blocking(move || {
            let _thread = thread;
            let (raw, places) = lay_out_by_name(members, &structure);
            let mut packed = Vec::new();
            let sink = |frame: &[u8]| {
                packed.extend_from_slice(frame);
                Ok(())
            };
            let summary = hybrid::Packer::new(options)
                .with_version(version)
                .with_store(&plans)
                .pack(&raw[..], sink, &cancel);
            (summary.map(|summary| (summary, packed)), places)
        })
        .await;
        let (summary, packed) = packed.map_err(|error| match error {
            CodecError::Cancelled => HandlerError::Interrupted,
            error => HandlerError::transient(error, "packing files together"),
        })?;
        self.meter.planned(summary.plan_use);
        if id.is_some() {
            self.meter.bundle_packed(places.len() as u64);
        }
        let bundle = id.map(|place| BundlePlace {
            bytes: summary.raw_bytes,
            ..place
        });
        let content = describe(bundle.as_ref(), described, attempt, &places);
        let first = (trace, &content);
        let appending = self.writer.append_all(packed, &owner, first, &self.meter);
        let records = self.writer.list(appending.await?, &owner).await?;
        Ok(PackedBundle {
            records,
            bundle,
            packed_bytes: summary.packed_bytes,
            seconds: summary.wall_time.as_secs_f64(),
            shares: shares(&summary),
            places,
        })
    }
}

/// What the records hold, in the order in which the files lie in the bundle. Without a bundle it is one file.
fn describe(
    bundle: Option<&BundlePlace>,
    mut described: Vec<DescribedFile>,
    attempt: String,
    places: &[MemberPlace],
) -> DescribedContent {
    let Some(bundle) = bundle else {
        return match described.pop().map(Box::new) {
            Some(file) => DescribedContent::Alone { attempt, file },
            None => DescribedContent::Bundle(Vec::new()),
        };
    };
    let files = described.into_iter().zip(places);
    let mut files: Vec<_> = files
        .map(|(file, place)| (file, place.within(bundle)))
        .collect();
    files.sort_by_key(|(_, place)| place.offset);
    DescribedContent::Bundle(files)
}

/// Files of one structure as they lie in a bundle, for comparisons of sizes.
pub(crate) fn joined(files: &[(FileName, Vec<u8>)]) -> Vec<u8> {
    let structure = files
        .first()
        .map(|(name, content)| BundleStructure::of(name, content));
    let contents: Vec<&[u8]> = files.iter().map(|(_, content)| &content[..]).collect();
    lay_out(&contents, &structure.unwrap_or(BundleStructure::Text)).raw
}

/// The same files in the same attempts have the same id.
fn bundle_id(members: &[Member]) -> Digest {
    let each = members.iter();
    let names: Vec<_> = each
        .map(|it| format!("{} {}\n", it.id().as_str(), it.attempt))
        .collect();
    Digest::of(names.concat().as_bytes())
}

/// Lays the files out by name, since files of neighbouring names often have neighbouring values; answers the place of each
/// in the order of `members`.
fn lay_out_by_name(
    members: Vec<Member>,
    structure: &BundleStructure,
) -> (Vec<u8>, Vec<MemberPlace>) {
    let mut numbers: Vec<usize> = (0..members.len()).collect();
    numbers.sort_by_key(|number| members[*number].name().as_str());
    let files: Vec<&[u8]> = numbers
        .iter()
        .map(|number| &members[*number].content[..])
        .collect();
    let BundleLayout {
        raw,
        prefix,
        offsets,
    } = lay_out(&files, structure);
    let mut before = 0;
    let mut places: Vec<(usize, MemberPlace)> = Vec::with_capacity(members.len());
    for ((number, file), offset) in numbers.iter().zip(&files).zip(offsets) {
        let place = MemberPlace {
            bytes: file.len() as u64,
            before,
            prefix: prefix as u64,
            offset: offset as u64,
        };
        before += place.bytes;
        places.push((*number, place));
    }
    places.sort_by_key(|(number, _)| *number);
    (raw, places.into_iter().map(|(_, place)| place).collect())
}

/// Where a file lies in a bundle.
#[derive(Debug, Clone, Copy)]
struct MemberPlace {
    bytes: u64,
    /// Bytes of the files before it.
    before: u64,
    prefix: u64,
    offset: u64,
}

impl MemberPlace {
    /// The file's place in this bundle.
    fn within(&self, bundle: &BundlePlace) -> BundlePlace {
        BundlePlace {
            prefix: self.prefix,
            offset: self.offset,
            ..bundle.clone()
        }
    }
}

/// What a bundle became.
#[derive(Debug)]
struct PackedBundle {
    records: Records,
    /// `None` for a file that was packed alone.
    bundle: Option<BundlePlace>,
    packed_bytes: u64,
    seconds: f64,
    shares: Vec<Share>,
    /// In the order in which the files joined.
    places: Vec<MemberPlace>,
}

impl PackedBundle {
    /// One of the files. Its packed bytes are its share in proportion to its size, so that those of all files add up to the
    /// bundle's.
    fn file(&self, number: usize) -> PackedSource {
        let place = self.places[number];
        let all: u64 = self.places.iter().map(|place| place.bytes).sum();
        let part = |whole| share(whole, (place.before, place.bytes), all);
        let packed_bytes = part(self.packed_bytes);
        let seconds = self.seconds * place.bytes as f64 / all.max(1) as f64;
        let shares = self.shares.iter().map(|share| Share {
            label: share.label.clone(),
            bytes: part(share.bytes),
        });
        PackedSource {
            records: self.records.clone(),
            bundle: self.bundle.as_ref().map(|bundle| place.within(bundle)),
            packed_bytes,
            stages: vec![pack_stage(place.bytes, packed_bytes, seconds)],
            shares: shares.collect(),
        }
    }
}

/// Why a bundle could not be packed, for each of its files.
#[derive(Debug, Clone)]
enum BundleFault {
    Permanent(Failure),
    Transient(String),
    Outage(ServiceOutage),
    Interrupted,
}

impl From<HandlerError> for BundleFault {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Permanent(failure) => Self::Permanent(failure),
            HandlerError::Transient(cause)
            | HandlerError::Newer(cause)
            | HandlerError::Waiting(cause)
            | HandlerError::NotYet(cause, _) => Self::Transient(format!("{cause:#}")),
            HandlerError::Outage(outage) => Self::Outage(outage),
            HandlerError::Interrupted => Self::Interrupted,
        }
    }
}

impl From<BundleFault> for HandlerError {
    fn from(fault: BundleFault) -> Self {
        match fault {
            BundleFault::Permanent(failure) => Self::Permanent(failure),
            BundleFault::Transient(cause) => Self::Transient(anyhow::Error::msg(cause)),
            BundleFault::Outage(outage) => Self::Outage(outage),
            BundleFault::Interrupted => Self::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests;
