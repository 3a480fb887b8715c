//! One block: the smallest lossless representation that the effort allows, and its decoder.

use std::sync::Arc;

use rayon::prelude::*;

use crate::{
    Codec, Damage, Effort, FormatVersion, StreamInfo, Transform,
    entropy::{self, Coded, Coder, EncodeOptions, LzmaProps, Search},
    transform::{
        self, EncodedTable, Structure, TableLayout, TableSettings,
        plan::{
            BlockLen, FileNumber, PlanCheck, PlanUse, Representation, SchemaPlan, most_similar,
        },
    },
};

/// How a block's payload is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCoding {
    /// How the bytes were rearranged before coding.
    pub transform: Transform,
    /// How the payload is coded.
    pub codec: Codec,
    /// The codec's parameter byte.
    pub params: u8,
}

/// A packed block, before its header.
#[derive(Debug, Clone)]
pub struct EncodedBlock {
    /// How the payload is coded.
    pub coding: BlockCoding,
    /// The coded bytes.
    pub payload: Vec<u8>,
    /// The size of each stream in the payload.
    pub streams: Vec<StreamInfo>,
    /// The candidates that were coded, one line each.
    pub tried: Vec<String>,
    /// What this block adds to its plan, if anything.
    pub(crate) learned: Option<SchemaPlan>,
    /// The plan that was used.
    pub(crate) base: Option<Arc<SchemaPlan>>,
    /// How a plan was used.
    pub plan_use: PlanUse,
}

/// Packs one block without a plan. It cannot fail: bytes that nothing shrinks are stored.
pub fn encode(raw: &[u8], effort: Effort) -> EncodedBlock {
    encode_planned(
        raw,
        EncodeOptions::new(effort, FormatVersion::V1),
        &[],
        None,
    )
}

/// Packs one block with the plan among `plans` that fits it, if any. The first block of a file of a store of plans has the `file`'s
/// number, by which some of it is searched again.
pub(crate) fn encode_planned(
    raw: &[u8],
    options: EncodeOptions,
    plans: &[Arc<SchemaPlan>],
    file: Option<FileNumber>,
) -> EncodedBlock {
    BlockEncoder {
        raw,
        options,
        plans,
        file,
        tried: Vec::new(),
    }
    .run()
}

/// Tries the representations of one block.
struct BlockEncoder<'a> {
    raw: &'a [u8],
    options: EncodeOptions,
    plans: &'a [Arc<SchemaPlan>],
    file: Option<FileNumber>,
    tried: Vec<String>,
}

/// A block as a table, with the plan that was used.
struct TableBlock {
    layout: TableLayout,
    encoded: EncodedTable,
    base: Option<Arc<SchemaPlan>>,
}

/// A layout, and what a sample says of it.
struct SizedLayout {
    layout: TableLayout,
    /// The bytes of the block in it, if all of the block is like the sample.
    expected: usize,
    /// The streams of the sample in it.
    streams: usize,
    /// Its table, if the sample was the whole block.
    encoded: Option<EncodedTable>,
}

impl SizedLayout {
    /// A layout without a sample.
    fn unknown(layout: TableLayout) -> Self {
        Self {
            layout,
            expected: usize::MAX,
            streams: 0,
            encoded: None,
        }
    }
}

impl BlockEncoder<'_> {
    fn run(mut self) -> EncodedBlock {
        if self.raw.len() < MIN_TABLE_BYTES {
            return self.plain_only();
        }
        let mut structure = Structure::of(self.raw);
        let len = BlockLen(self.raw.len() as u64);
        let (effort, version) = (self.options.effort, self.options.version);
        let plans = self.plans.iter();
        let plans = plans.filter(|plan| plan.is_for(effort, version));
        let base = most_similar(plans, len, &structure.sketch).cloned();
        let (is_table, is_text) = (structure.is_table, !self.raw.contains(&0));
        let base = base.filter(|plan| plan.is_for_form(is_table, is_text));
        let sketch = structure.sketch.clone();
        let of_schema = |mut block: EncodedBlock| {
            if let Some(learned) = &mut block.learned {
                (learned.sketch, learned.len) = (sketch, len);
                (learned.effort, learned.version) = (effort, version);
                (learned.is_table, learned.is_text) = (is_table, is_text);
            }
            block
        };
        if let Some(plan) = &base
            && let Some(block) = self.planned(plan, &mut structure)
        {
            return of_schema(self.checked(plan, block));
        }
        let Some(table) = self.searched(structure, base) else {
            return self.plain_only();
        };
        let mut block = of_schema(self.table_or_plain(table));
        if let (Some(file), Some(learned)) = (self.file, &mut block.learned) {
            learned.check = PlanCheck::default().after(file);
        }
        block
    }

    /// The block as planned, or as a search finds it if the plan is due to be checked and that is smaller.
    fn checked(&mut self, plan: &SchemaPlan, mut planned: EncodedBlock) -> EncodedBlock {
        let Some(file) = self.file.filter(|file| plan.check.is_due(*file)) else {
            return planned;
        };
        // Without a plan it was searched already.
        if planned.base.is_some()
            && let Some(table) = self.searched(Structure::of(self.raw), None)
        {
            let found = self.table_or_plain(table);
            if found.payload.len() < planned.payload.len() {
                planned = found;
            }
        }
        let learned = planned.learned.get_or_insert_with(|| {
            let mut learned = SchemaPlan::default();
            learned.take_representation(plan);
            learned
        });
        learned.check = plan.check.after(file);
        planned
    }

    /// The block as the plan says, if its size is as planned.
    fn planned(
        &mut self,
        plan: &Arc<SchemaPlan>,
        structure: &mut Structure,
    ) -> Option<EncodedBlock> {
        match plan.representation {
            Representation::Plain(coder) => {
                let plain = match coder {
                    // Bytes that were random may be a run now, and no size would tell.
                    Coder::Stored => self.plain(usize::MAX),
                    _ => entropy::encode_as(self.raw, coder, self.options),
                };
                let planned = plan.is_as_planned(plain.bytes.len(), self.raw.len());
                planned.then(|| EncodedBlock {
                    base: Some(Arc::clone(plan)),
                    ..self.plain_block(plain)
                })
            }
            Representation::Table(layout) => {
                let table = structure.split(layout, self.raw)?;
                let base = Some(Arc::clone(plan));
                let mut table = self.encode_table(layout, table, base)?;
                let table_len = table.encoded.payload.len();
                let used = table.encoded.plan_use;
                let has_changed = used.drifted_columns + used.searched_columns > 0;
                let raw_len = self.raw.len();
                if table_len >= raw_len
                    || !plan.is_as_planned(table_len, raw_len)
                    || (has_changed && !plan.is_close(table_len, raw_len))
                {
                    // Where nothing is smaller, the plan takes the size of now: further such blocks are not searched again.
                    let fresh = self.searched(Structure::of(self.raw), None);
                    let smaller = fresh.filter(|fresh| fresh.encoded.payload.len() < table_len);
                    return Some(self.table_or_plain(smaller.unwrap_or(table)));
                }
                self.tried.push("none: excluded by the plan".into());
                if let Some(learned) = &mut table.encoded.learned {
                    learned.take_representation(plan);
                }
                Some(self.table_block(table))
            }
        }
    }

    /// The table of the best layout. A plan that did not fit only lends its choices.
    fn searched(
        &mut self,
        mut structure: Structure,
        base: Option<Arc<SchemaPlan>>,
    ) -> Option<TableBlock> {
        let layouts = structure.layouts.clone();
        // A sample of a small table shows too little of what follows from what, and the whole takes too long to compare.
        let is_clear = structure.is_table
            && self.raw.len() <= SMALL_TABLE_BYTES
            && self.options.effort != Effort::Max;
        let layouts = match layouts.len() {
            2.. if !is_clear => self.by_sample(layouts),
            _ => layouts.into_iter().map(SizedLayout::unknown).collect(),
        };
        let mut best: Option<TableBlock> = None;
        for SizedLayout {
            layout,
            expected,
            streams,
            encoded,
        } in layouts
        {
            let found = match encoded.filter(|_| base.is_none()) {
                Some(encoded) => Some(self.table(layout, encoded, None)),
                None => structure
                    .split(layout, self.raw)
                    .and_then(|table| self.encode_table(layout, table, base.clone())),
            };
            let Some(found) = found else {
                continue;
            };
            let (len, found_streams) = (found.encoded.payload.len(), found.encoded.streams.len());
            let smallest = best.as_ref().map(|best| best.encoded.payload.len());
            if smallest.is_none_or(|smallest| len < smallest) {
                best = Some(found);
            }
            // The rest of the block may be unlike the sample, so that a coding does not fit: then the next layout is tried, too.
            if len <= expected.saturating_add(expected / UNEXPECTED_SHARE)
                && found_streams * 2 >= streams
            {
                break;
            }
        }
        best.or_else(|| {
            let lines = Structure::of_lines(self.raw).layouts;
            lines.into_iter().find_map(|layout| {
                let table = transform::split_lines(layout, self.raw)?;
                self.encode_table(layout, table, None)
            })
        })
    }

    /// The layouts of lines in the order of their size on a sample, with their tables if the sample is the whole block.
    fn by_sample(&self, layouts: Vec<TableLayout>) -> Vec<SizedLayout> {
        let sample = line_sample(self.raw, self.options.effort);
        let is_whole = sample.len() == self.raw.len();
        let of_layout = |layout| {
            let encoded = transform::split_lines(layout, sample).and_then(|table| {
                transform::encode_table(layout, table, sample, self.settings(None))
            });
            let size = encoded
                .as_ref()
                .map_or(usize::MAX, |encoded| encoded.payload.len());
            // Rows are faster than templates, both ways.
            let handicap = match layout {
                TableLayout::Lines => size / LINES_SHARE + LINES_BYTES,
                _ => 0,
            };
            let sized = SizedLayout {
                layout,
                expected: size.saturating_mul(self.raw.len()) / sample.len().max(1),
                streams: encoded.as_ref().map_or(0, |encoded| encoded.streams.len()),
                encoded: encoded.filter(|_| is_whole),
            };
            (size.saturating_add(handicap), sized)
        };
        let mut sized: Vec<(usize, SizedLayout)> = layouts.into_par_iter().map(of_layout).collect();
        sized.sort_by_key(|(size, _)| *size);
        sized.into_iter().map(|(_, sized)| sized).collect()
    }

    fn encode_table(
        &mut self,
        layout: TableLayout,
        table: transform::ColumnTable,
        base: Option<Arc<SchemaPlan>>,
    ) -> Option<TableBlock> {
        let settings = TableSettings {
            refresh: self.file.and_then(FileNumber::refreshed_column),
            ..self.settings(base.as_deref())
        };
        let encoded = transform::encode_table(layout, table, self.raw, settings)?;
        Some(self.table(layout, encoded, base))
    }

    fn table(
        &mut self,
        layout: TableLayout,
        encoded: EncodedTable,
        base: Option<Arc<SchemaPlan>>,
    ) -> TableBlock {
        self.tried.push(format!(
            "{}: {} streams, {} bytes",
            layout.transform().name(),
            encoded.streams.len(),
            encoded.payload.len()
        ));
        TableBlock {
            layout,
            encoded,
            base,
        }
    }

    fn settings<'s>(&self, base: Option<&'s SchemaPlan>) -> TableSettings<'s> {
        TableSettings {
            options: self.options,
            base,
            refresh: None,
        }
    }

    /// The table, or the bytes without a transform if they are smaller. The plan learns which.
    fn table_or_plain(&mut self, mut table: TableBlock) -> EncodedBlock {
        let (raw_len, table_len) = (self.raw.len(), table.encoded.payload.len());
        let mut learned = table.encoded.learned.take().unwrap_or_default();
        if plain_cannot_win(self.raw, table_len, self.options.effort) {
            self.tried.push("none: excluded by a probe".into());
        } else {
            let plain = self.plain(table_len);
            if plain.bytes.len() <= table_len {
                learned.set_representation(
                    Representation::Plain(plain.coder),
                    plain.bytes.len(),
                    raw_len,
                );
                return EncodedBlock {
                    learned: Some(learned),
                    ..self.plain_block(plain)
                };
            }
        }
        learned.set_representation(Representation::Table(table.layout), table_len, raw_len);
        table.encoded.learned = Some(learned);
        self.table_block(table)
    }

    fn plain_only(&mut self) -> EncodedBlock {
        let plain = self.plain(usize::MAX);
        self.plain_block(plain)
    }

    fn plain(&mut self, table_len: usize) -> Coded {
        let plain = code_plain(self.raw, table_len, self.options);
        self.tried.push(format!(
            "none: {} {} bytes",
            plain.codec.name(),
            plain.bytes.len()
        ));
        plain
    }

    fn table_block(&mut self, table: TableBlock) -> EncodedBlock {
        EncodedBlock {
            coding: BlockCoding {
                transform: table.layout.transform(),
                codec: match self.options.version {
                    FormatVersion::V1 => Codec::Columns,
                    FormatVersion::V2 => Codec::CompactColumns,
                },
                params: 0,
            },
            payload: table.encoded.payload,
            streams: table.encoded.streams,
            tried: std::mem::take(&mut self.tried),
            learned: table.encoded.learned,
            base: table.base,
            plan_use: table.encoded.plan_use,
        }
    }

    fn plain_block(&mut self, plain: Coded) -> EncodedBlock {
        let plain = verified(plain, self.raw, self.options.version);
        EncodedBlock {
            coding: BlockCoding {
                transform: Transform::None,
                codec: plain.codec,
                params: plain.params,
            },
            streams: vec![plain_stream(plain.codec, self.raw.len(), plain.bytes.len())],
            payload: plain.bytes,
            tried: std::mem::take(&mut self.tried),
            learned: None,
            base: None,
            plan_use: PlanUse::default(),
        }
    }
}

/// Lines must be smaller than rows by this share and these bytes.
const LINES_SHARE: usize = 64;
const LINES_BYTES: usize = 32;
/// Rows that are a table of at most so many bytes are not compared with lines, but at effort max.
const SMALL_TABLE_BYTES: usize = 96 << 10;
/// A block that is larger than its sample lets expect by more than this share is tried in the next layout, too.
const UNEXPECTED_SHARE: usize = 3;
/// The size of a sample of lines in bytes: this share of a block, within these limits; at effort max the larger limit.
const SAMPLE_SHARE: usize = 4;
const LEAST_SAMPLE_BYTES: usize = 8 << 10;
const MOST_SAMPLE_BYTES: usize = 48 << 10;

/// Whole lines from the middle of a block.
fn line_sample(raw: &[u8], effort: Effort) -> &[u8] {
    let len = match effort {
        Effort::Fast | Effort::Balanced => {
            (raw.len() / SAMPLE_SHARE).clamp(LEAST_SAMPLE_BYTES, MOST_SAMPLE_BYTES)
        }
        Effort::Max => MOST_SAMPLE_BYTES,
    };
    if raw.len() <= 2 * len {
        return raw;
    }
    let newline_after = |at: usize| {
        let newline = raw[at..].iter().position(|&byte| byte == b'\n');
        newline.map_or(raw.len(), |newline| at + newline + 1)
    };
    let start = newline_after((raw.len() - len) / 2);
    let end = newline_after((start + len).min(raw.len()));
    &raw[start..end]
}

/// Up to so many bytes all settings of LZMA are tried.
const SMALL_BYTES: usize = 32 << 10;

/// Codes the bytes without a transform. The second LZMA setting runs only if it could win.
fn code_plain(raw: &[u8], table_len: usize, options: EncodeOptions) -> Coded {
    let props = match raw.len() {
        ..=SMALL_BYTES if options.effort != Effort::Fast => &LzmaProps::SMALL[..],
        _ => &[LzmaProps::TEXT],
    };
    let first = entropy::encode(raw, options, props, Search::Preset);
    if options.effort != Effort::Max || first.bytes.len() > table_len.saturating_add(table_len / 20)
    {
        return first;
    }
    let prose = Coder::Lzma(LzmaProps::PROSE, Search::Preset);
    let second = entropy::encode_as(raw, prose, options);
    if second.bytes.len() < first.bytes.len() {
        second
    } else {
        first
    }
}

/// The coded bytes if they decode to `raw`, and `raw` itself otherwise: what does not is never written.
fn verified(coded: Coded, raw: &[u8], version: FormatVersion) -> Coded {
    let decoded = entropy::decode(coded.codec, coded.params, &coded.bytes, raw.len(), version);
    match decoded.as_deref() == Ok(raw) {
        true => coded,
        false => Coded::stored(raw),
    }
}

/// Smaller blocks do not repay a directory.
const MIN_TABLE_BYTES: usize = 200;

/// Whether a sample from the middle shows that the block without a transform is larger than
/// `table_len`. The margin allows for matches that are longer than the sample.
fn plain_cannot_win(raw: &[u8], table_len: usize, effort: Effort) -> bool {
    const PROBE: usize = 64 << 10;
    const MARGIN: f64 = 0.9;
    if effort == Effort::Max || raw.len() < 2 * PROBE {
        return false;
    }
    let start = (raw.len() - PROBE) / 2;
    let probe = entropy::bz2(&raw[start..start + PROBE]).map_or(PROBE, |coded| coded.bytes.len());
    let expected = probe as f64 / PROBE as f64 * raw.len() as f64;
    (table_len as f64) < expected * MARGIN
}

fn plain_stream(codec: Codec, raw_len: usize, packed_len: usize) -> StreamInfo {
    StreamInfo {
        name: "block".into(),
        coding: "as is".into(),
        codec,
        raw_bytes: raw_len as u64,
        packed_bytes: packed_len as u64,
    }
}

/// Restores one block of `raw_len` bytes. The caller compares its hash.
pub(crate) fn decode(
    version: FormatVersion,
    coding: BlockCoding,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<u8>, Damage> {
    match coding.transform {
        Transform::None => entropy::decode(coding.codec, coding.params, payload, raw_len, version),
        transform => transform::decode(transform, version, payload, raw_len),
    }
}

/// The streams of a payload, by decoding it.
pub(crate) fn inspect(
    version: FormatVersion,
    coding: BlockCoding,
    payload: &[u8],
    raw_len: usize,
) -> Result<Vec<StreamInfo>, Damage> {
    match coding.transform {
        Transform::None => Ok(vec![plain_stream(coding.codec, raw_len, payload.len())]),
        transform => transform::inspect(transform, version, payload, raw_len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log whose lines are of one kind, but for a share of others.
    fn log(random: &mut fastrand::Rng, others: f64) -> Vec<u8> {
        let mut log = String::new();
        for second in 0..1500 {
            let time = format!("12:{:02}:{:02}", second / 60 % 60, second % 60);
            let level = random.choice(["INFO", "WARN", "ERROR"]).expect("one");
            let kind = match random.f64() < others {
                true => random.u8(1..6),
                false => 0,
            };
            let (host, port) = (random.u8(11..43), random.u16(30_000..60_000));
            let message = match kind {
                0 => format!("Notification time out: {}", 3200 << random.u8(..4)),
                1 => format!("Received connection request /10.10.34.{host}:{port}"),
                2 => "Interrupted while waiting for message on queue".to_owned(),
                3 => format!("Connection broken for id {port}, my id = {host}, error ="),
                4 => format!(
                    "Established session {:x} with negotiated timeout 3000 for client /10.10.34.{host}:{port}",
                    random.u32(..)
                ),
                _ => format!(
                    "Cannot open channel to {host} at election address /10.10.34.{host}:3888"
                ),
            };
            let worker = random.u8(..9);
            log += &format!("2024-05-14 {time} {level} [worker:{worker}] - {message}\n");
        }
        log.into_bytes()
    }

    #[test]
    fn a_block_that_drifted_and_is_larger_than_planned_is_searched_anew() {
        let options = EncodeOptions::new(Effort::Balanced, FormatVersion::V1);
        let mut random = fastrand::Rng::with_seed(5);
        let (first, second) = (log(&mut random, 0.6), log(&mut random, 1.0));
        let fresh = encode_planned(&second, options, &[], None);
        let mut plan = encode_planned(&first, options, &[], None)
            .learned
            .expect("a table");
        let mut planned_for = |share: f64| {
            let bytes = fresh.payload.len() as f64 * share;
            plan.ratio = (bytes * 65536.0) as u64 / second.len() as u64;
            encode_planned(&second, options, &[Arc::new(plan.clone())], None)
        };
        // As large as planned: it is packed as the plan says.
        assert!(planned_for(1.2).base.is_some());
        let block = planned_for(0.8);
        assert!(block.payload.len() <= fresh.payload.len());
        // The plan takes the size of now: the next block is not searched for the same.
        let learned = block.learned.expect("it was searched");
        assert!(learned.is_close(block.payload.len(), second.len()));
    }

    #[test]
    fn a_plan_that_is_due_gives_way_to_a_search_that_finds_less() {
        let options = EncodeOptions::new(Effort::Balanced, FormatVersion::V1);
        let raw = log(&mut fastrand::Rng::with_seed(6), 0.6);
        let found = encode_planned(&raw, options, &[], None);
        let mut plan = found.learned.expect("a table");
        let coder = Coder::Lzma(LzmaProps::TEXT, Search::Preset);
        let plain = entropy::encode_as(&raw, coder, options).bytes.len();
        plan.set_representation(Representation::Plain(coder), plain, raw.len());
        plan.check = PlanCheck::default().after(FileNumber(1));
        let packed = |file| {
            let plans = [Arc::new(plan.clone())];
            encode_planned(&raw, options, &plans, Some(FileNumber(file)))
        };
        assert_eq!(packed(1).payload.len(), plain);
        assert!(found.payload.len() < plain);
        let second = packed(2);
        assert_eq!(second.payload, found.payload);
        let learned = second.learned.expect("it was searched");
        assert!(!learned.check.is_due(FileNumber(3)));
    }

    #[test]
    fn bytes_that_do_not_decode_to_the_block_are_not_written() {
        let raw = b"a text that is coded, a text that is decoded".repeat(20);
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let options = EncodeOptions::new(Effort::Balanced, version);
            let whole = code_plain(&raw, usize::MAX, options);
            assert_ne!(whole.codec, Codec::Stored);
            let bytes = whole.bytes.clone();
            assert_eq!(verified(whole, &raw, version).bytes, bytes);

            let mut altered = code_plain(&raw, usize::MAX, options);
            altered.bytes[bytes.len() / 2] ^= 0x40;
            assert_eq!(verified(altered, &raw, version).codec, Codec::Stored);
            let other = code_plain(b"another text", usize::MAX, options);
            assert_eq!(verified(other, &raw, version).bytes, raw);
        }
    }
}
