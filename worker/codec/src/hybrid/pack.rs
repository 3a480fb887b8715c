//! From a raw file to frames.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Read},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use super::{
    CodecOptions, Plan, PlanStore, Summary,
    boundary::BoundaryFinder,
    compact_frame, frame,
    header::{BlockHeader, EndFrame, HashPrefix},
    parallel::{self, Window},
    stop_if, thread_count,
};
use crate::{
    CodecError, FormatVersion, StreamInfo, block,
    entropy::EncodeOptions,
    transform::plan::{FileNumber, PlanUse, SchemaPlan},
};

/// One packed block.
#[derive(Debug, Clone)]
pub struct PackedBlock {
    /// Its header.
    pub header: BlockHeader,
    /// The bytes after the header.
    pub payload: Vec<u8>,
    /// The size of each stream in the payload.
    pub streams: Vec<StreamInfo>,
    /// The candidates that were coded, one line each.
    pub tried: Vec<String>,
    /// How a plan was used.
    pub plan_use: PlanUse,
}

/// Packs all of `reader`. `sink` receives whole frames in order, each at most a block and its header.
///
/// # Errors
/// If reading or writing fails, an option is out of range, or `cancel` is set, which is checked
/// between blocks.
pub fn pack(
    reader: impl Read,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &CodecOptions,
    cancel: &AtomicBool,
) -> Result<Summary, CodecError> {
    Packer::new(*options).pack(reader, sink, cancel)
}

/// As [`pack`]; `observe` receives every packed block, e.g. to explain it.
///
/// # Errors
/// As [`pack`].
pub fn pack_observed(
    reader: impl Read,
    sink: impl FnMut(&[u8]) -> io::Result<()>,
    options: &CodecOptions,
    cancel: &AtomicBool,
    observe: impl FnMut(&PackedBlock),
) -> Result<Summary, CodecError> {
    Packer::new(*options).pack_observed(reader, sink, cancel, observe)
}

/// Packs files, with a plan or a store of plans.
///
/// Without a plan, the first block of a file is searched and the others use its choices. The packed
/// bytes are determined by input, options and plan; with a store they depend on the files before.
///
/// ```
/// use std::sync::atomic::AtomicBool;
/// use streampress_codec::hybrid::{CodecOptions, Packer, Plan, PlanStore};
///
/// # fn main() -> Result<(), streampress_codec::CodecError> {
/// let rows = |first: u32| -> String { (first..first + 500).map(|id| format!("{id},open,{}\n", id * 7 % 90)).collect() };
/// let cancel = AtomicBool::new(false);
/// // What the first files teach, the others use. The second one of a schema is searched, too: the first may have been an odd one.
/// let store = PlanStore::default();
/// let packer = Packer::new(CodecOptions::default()).with_store(&store);
/// let first = packer.pack(rows(1).as_bytes(), |_frame| Ok(()), &cancel)?;
/// packer.pack(rows(800).as_bytes(), |_frame| Ok(()), &cancel)?;
/// let third = packer.pack(rows(1500).as_bytes(), |_frame| Ok(()), &cancel)?;
/// assert_eq!(first.plan_use.planned_columns, 0);
/// assert!(third.plan_use.planned_columns > 0);
/// // A plan can be kept, and used for files whose packed bytes shall not depend on each other.
/// let plan = Plan::from_bytes(&store.plan().to_bytes())?;
/// let packer = Packer::new(CodecOptions::default()).with_plan(plan);
/// assert!(packer.pack(rows(9000).as_bytes(), |_frame| Ok(()), &cancel)?.plan_use.planned_columns > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Packer<'p> {
    options: CodecOptions,
    version: FormatVersion,
    plans: PlanSource<'p>,
}

/// Where the plan of a file comes from.
#[derive(Debug, Clone)]
enum PlanSource<'p> {
    Fixed(Plan),
    Store(&'p PlanStore),
}

impl<'p> Packer<'p> {
    /// A packer without a plan.
    pub fn new(options: CodecOptions) -> Self {
        Self {
            options,
            version: FormatVersion::default(),
            plans: PlanSource::Fixed(Plan::default()),
        }
    }

    /// Writes this version of the format; version 1 by default.
    pub fn with_version(self, version: FormatVersion) -> Self {
        Self { version, ..self }
    }

    /// Starts every file with `plan`.
    pub fn with_plan(self, plan: Plan) -> Self {
        Self {
            plans: PlanSource::Fixed(plan),
            ..self
        }
    }

    /// Starts every file with the plan of `store` and adds to it what the file learned.
    pub fn with_store(self, store: &'p PlanStore) -> Self {
        Self {
            plans: PlanSource::Store(store),
            ..self
        }
    }

    /// Packs all of `reader`. `sink` receives whole frames in order, each at most a block and its
    /// header.
    ///
    /// # Errors
    /// If reading or writing fails, an option is out of range, or `cancel` is set, which is checked
    /// between blocks.
    pub fn pack(
        &self,
        reader: impl Read,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
        cancel: &AtomicBool,
    ) -> Result<Summary, CodecError> {
        self.pack_observed(reader, sink, cancel, |_| {})
    }

    /// As [`Self::pack`]; `observe` receives every packed block, e.g. to explain it.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn pack_observed(
        &self,
        reader: impl Read,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
        cancel: &AtomicBool,
        observe: impl FnMut(&PackedBlock),
    ) -> Result<Summary, CodecError> {
        let started = Instant::now();
        check_options(&self.options)?;
        let pool = parallel::pool(thread_count(self.options.threads))?;
        let mut source = BlockSource::new(reader, self.options.block_size);
        let (plan, mut file) = match &self.plans {
            PlanSource::Fixed(plan) => (plan.clone(), None),
            PlanSource::Store(store) => (store.plan(), Some(store.next_file())),
        };
        let plans = RefCell::new(PlanVersions::new(plan));
        let mut output = FrameOutput {
            sink,
            observe,
            version: self.version,
            is_single: false,
            summary: Summary::new(),
            index: Vec::new(),
        };
        match self.version {
            FormatVersion::V1 => output.write(&frame::file_header(self.options.block_size as u32)),
            FormatVersion::V2 => output.write(&compact_frame::file_header()),
        }?;
        let encode_options = EncodeOptions::new(self.options.effort, self.version)
            .for_blocks(self.options.block_size);
        let work = |job: BlockJob| {
            let started = Instant::now();
            (pack_block(&job, encode_options), started.elapsed())
        };
        let mut emit = |(packed, code_time): (PlannedBlock, Duration)| {
            stop_if(cancel)?;
            if let PlanSource::Store(store) = &self.plans {
                store.update(packed.base.as_ref(), packed.learned.as_ref());
            }
            plans.borrow_mut().add(packed.learned.as_ref());
            output.add_block(packed, code_time)
        };
        let mut next = || -> Result<Option<(BlockJob, usize)>, CodecError> {
            stop_if(cancel)?;
            let Some(SourceBlock {
                number,
                raw,
                is_single,
            }) = source.next_block()?
            else {
                return Ok(None);
            };
            let (bytes, plan) = (raw.len(), plans.borrow_mut().of_block(number));
            let job = BlockJob {
                number,
                raw,
                is_single,
                plan,
                file: file.take(),
            };
            Ok(Some((job, bytes)))
        };
        // The other blocks use what the first one learned.
        if let Some((first, _)) = next()? {
            emit(pool.install(|| work(first)))?;
            parallel::in_order(&pool, WINDOW, next, work, emit)?;
        }
        let mut summary = output.finish(&source)?;
        summary.wall_time = started.elapsed();
        Ok(summary)
    }
}

/// The largest number of blocks in flight on any number of threads.
const MAX_BLOCKS_IN_FLIGHT: usize = 16;
const WINDOW: Window = Window {
    values: MAX_BLOCKS_IN_FLIGHT,
    bytes: usize::MAX,
};

/// The plan after each block. A block uses the plan of a fixed number of blocks before it, which are
/// complete whatever the number of threads, so that the packed bytes do not depend on it.
struct PlanVersions {
    /// The plan before the first block, then after each; the older ones are dropped.
    versions: VecDeque<Arc<Plan>>,
    /// The number of blocks before the first version.
    dropped: usize,
}

impl PlanVersions {
    fn new(plan: Plan) -> Self {
        Self {
            versions: VecDeque::from([Arc::new(plan)]),
            dropped: 0,
        }
    }

    /// The plan for a block.
    fn of_block(&mut self, number: u32) -> Arc<Plan> {
        let number = number as usize;
        let complete = number
            .saturating_sub(MAX_BLOCKS_IN_FLIGHT)
            .max(number.min(1));
        while self.dropped < complete && self.versions.len() > 1 {
            self.versions.pop_front();
            self.dropped += 1;
        }
        self.versions.front().map(Arc::clone).unwrap_or_default()
    }

    /// Adds what the next block learned.
    fn add(&mut self, learned: Option<&SchemaPlan>) {
        let mut plan = self.versions.back().map(Arc::clone).unwrap_or_default();
        if let Some(learned) = learned {
            Arc::make_mut(&mut plan).merge(learned);
        }
        self.versions.push_back(plan);
    }
}

/// One block to pack.
struct BlockJob {
    number: u32,
    raw: Vec<u8>,
    is_single: bool,
    plan: Arc<Plan>,
    /// Of the first block of a file that has a store.
    file: Option<FileNumber>,
}

/// A packed block and what it learned.
struct PlannedBlock {
    block: PackedBlock,
    base: Option<Arc<SchemaPlan>>,
    learned: Option<SchemaPlan>,
}

fn pack_block(job: &BlockJob, options: EncodeOptions) -> PlannedBlock {
    let (raw, version) = (&job.raw[..], options.version);
    let encoded = block::encode_planned(raw, options, job.plan.schemas(), job.file);
    PlannedBlock {
        block: PackedBlock {
            header: BlockHeader {
                version,
                is_single: job.is_single && version == FormatVersion::V2,
                coding: encoded.coding,
                index: job.number,
                raw_len: raw.len() as u32,
                packed_len: encoded.payload.len() as u32,
                hash: match version {
                    FormatVersion::V1 => frame::block_hash(raw),
                    FormatVersion::V2 => compact_frame::block_hash(raw, job.is_single),
                },
            },
            payload: encoded.payload,
            streams: encoded.streams,
            tried: encoded.tried,
            plan_use: encoded.plan_use,
        },
        base: encoded.base,
        learned: encoded.learned,
    }
}

/// Writes frames and counts.
struct FrameOutput<S, O> {
    sink: S,
    observe: O,
    version: FormatVersion,
    is_single: bool,
    summary: Summary,
    index: Vec<(u32, u32)>,
}

impl<S: FnMut(&[u8]) -> io::Result<()>, O: FnMut(&PackedBlock)> FrameOutput<S, O> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let started = Instant::now();
        self.summary.packed_bytes += bytes.len() as u64;
        (self.sink)(bytes).map_err(CodecError::Write)?;
        self.summary.write_time += started.elapsed();
        Ok(())
    }

    fn add_block(&mut self, packed: PlannedBlock, code_time: Duration) -> Result<(), CodecError> {
        let block = packed.block;
        (self.observe)(&block);
        self.summary.code_time += code_time;
        self.summary.plan_use.add(block.plan_use);
        for stream in &block.streams {
            self.summary.count(
                block.header.coding.transform,
                stream.codec,
                stream.raw_bytes,
                stream.packed_bytes,
            );
        }
        self.index
            .push((block.header.raw_len, block.header.packed_len));
        self.is_single = block.header.is_single;
        let mut bytes = block.header.to_bytes();
        bytes.extend(block.payload);
        self.write(&bytes)
    }

    fn finish<R>(mut self, source: &BlockSource<R>) -> Result<Summary, CodecError> {
        self.summary.raw_bytes = source.raw_bytes;
        self.summary.hash = source.hasher.finalize();
        self.summary.read_time = source.read_time;
        self.summary.blocks = self.index.len() as u32;
        if self.is_single {
            return Ok(self.summary);
        }
        let end = EndFrame {
            version: self.version,
            raw_bytes: self.summary.raw_bytes,
            hash: match self.version {
                FormatVersion::V1 => HashPrefix::from_bytes(self.summary.hash.as_bytes()),
                FormatVersion::V2 => compact_frame::file_hash(&self.summary.hash),
            },
            index: std::mem::take(&mut self.index),
        };
        self.write(&end.to_bytes())?;
        Ok(self.summary)
    }
}

fn check_options(options: &CodecOptions) -> Result<(), CodecError> {
    let (min, max) = (frame::MIN_BLOCK_BYTES, frame::MAX_BLOCK_BYTES);
    if !(min..=max).contains(&options.block_size) {
        return Err(CodecError::Options(format!(
            "block size {} is outside {min} to {max} bytes (4Ki to 64Mi)",
            options.block_size
        )));
    }
    Ok(())
}

/// A block of the raw file.
struct SourceBlock {
    number: u32,
    raw: Vec<u8>,
    /// It is the whole file.
    is_single: bool,
}

/// How many bytes are wanted. In runs whose count fits a byte, so that a compiler counts many at once.
fn count(window: &[u8], is_wanted: impl Fn(u8) -> bool) -> usize {
    let of_run = |run: &[u8]| {
        run.iter()
            .map(|&byte| u8::from(is_wanted(byte)))
            .sum::<u8>()
    };
    let runs = window.chunks(u8::MAX.into());
    runs.map(|run| usize::from(of_run(run))).sum()
}

/// How many times smaller a block of such bytes is. A table takes memory for each value whatever its length, so the more of
/// the bytes end a value, the smaller the block. Spaces count less: they end a value in some tables, and words in prose.
fn density(window: &[u8]) -> usize {
    let values = count(window, |byte| {
        matches!(byte, b',' | b'\n' | b'\t' | b';' | b'|' | b']' | b'}')
    });
    let words = count(window, |byte| byte == b' ');
    let len = window.len();
    match values + words {
        all if all > len / 2 => 4,
        all if all > len / 4 || values > len / 6 => 2,
        _ => 1,
    }
}

/// The raw file, split into blocks and hashed while it is read.
struct BlockSource<R> {
    reader: R,
    block_size: usize,
    /// Bytes that were read and belong to the next block.
    carry: Vec<u8>,
    boundaries: BoundaryFinder,
    hasher: blake3::Hasher,
    raw_bytes: u64,
    read_time: Duration,
    blocks: u32,
}

impl<R: Read> BlockSource<R> {
    fn new(reader: R, block_size: usize) -> Self {
        Self {
            reader,
            block_size,
            carry: Vec::new(),
            boundaries: BoundaryFinder::default(),
            hasher: blake3::Hasher::new(),
            raw_bytes: 0,
            read_time: Duration::ZERO,
            blocks: 0,
        }
    }

    fn next_block(&mut self) -> Result<Option<SourceBlock>, CodecError> {
        let started = Instant::now();
        let mut window = std::mem::take(&mut self.carry);
        // One byte more than a block shows whether another block follows.
        let wanted = (self.block_size + 1 - window.len()) as u64;
        (&mut self.reader)
            .take(wanted)
            .read_to_end(&mut window)
            .map_err(CodecError::Read)?;
        let limit = self.block_size / density(&window);
        let is_last = window.len() <= limit;
        if !is_last {
            let end = self.boundaries.find(&window[..limit]);
            self.carry = window.split_off(end);
        }
        if window.is_empty() {
            return Ok(None);
        }
        self.hasher.update(&window);
        self.raw_bytes += window.len() as u64;
        self.read_time += started.elapsed();
        let number = self.blocks;
        self.blocks = number.checked_add(1).ok_or_else(|| {
            CodecError::Options("more than 4 billion blocks: use a larger block size".into())
        })?;
        Ok(Some(SourceBlock {
            number,
            raw: window,
            is_single: is_last && number == 0,
        }))
    }
}
