//! The workload of a pipeline: many files of one schema, of four sizes, and a few large ones, on one thread; and files side by
//! side on all. A file is *known* if a file of its schema was packed before. Speeds of one thread are raw bytes per second of
//! processor time, so that other programs on the machine hardly change them; sizes are in relation to `xz -9e` of the same file.
//! The tables are Markdown.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use streampress_codec::FormatVersion;
use streampress_codec::hybrid::{Effort, Limits, Packer, Plan, PlanStore, unpack};
use streampress_generator::{FileFormat, Generator, GeneratorOptions, Schema};
use streampress_transport::FileName;

use super::codecs::{BenchCodec, REFERENCE, hybrid_packers, hybrid_with, options, rivals};
use super::{cpu, ensure_known, records, wanted};
use crate::roles::bundler::joined;

/// Bytes of a file, and how many files of each set are measured.
const SIZES: [(u64, &str, u64); 4] = [
    (1 << 20, "1 MiB", 1),
    (64 << 10, "64 KiB", 2),
    (10 << 10, "10 KiB", 4),
    (4 << 10, "4 KiB", 4),
];
const FORMATS: [FileFormat; 4] = [
    FileFormat::Json,
    FileFormat::Ndjson,
    FileFormat::Csv,
    FileFormat::Txt,
];
/// Bytes of a large file. There is one of each format, each of another schema.
const LARGE: (u64, &str) = (8 << 20, "8 MiB");
/// Work is repeated until it has taken this long.
const LEAST_SECONDS: f64 = 0.03;
/// Of so many measurements the median counts, where one is shorter than a second: a longer one is hardly disturbed.
const MEASUREMENTS: usize = 3;
const LONG_SECONDS: f64 = 1.0;

/// Files of one schema and format.
struct FileSet {
    /// The file before the others.
    first: Vec<u8>,
    files: Vec<(FileName, Vec<u8>)>,
}

/// One codec's results.
#[derive(Default)]
struct WorkloadRow {
    name: String,
    raw_bytes: u64,
    packed_bytes: u64,
    pack_seconds: f64,
    unpack_seconds: f64,
    /// For a raw byte, of the file that took the most.
    most_pack_seconds: f64,
    /// Packed bytes of each file.
    sizes: Vec<u64>,
}

/// Prints a table for each size of files.
pub(super) fn bench(codecs: &[String], threads: usize, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "# Benchmarks of the workload")?;
    writeln!(
        out,
        "`streampress bench` {} on files of its example schemas (JSON, lines of JSON, CSV, text), on one thread but for the last but one table. *Known*: a file of the\nschema was packed before. Sizes count every header and are in relation to `{REFERENCE}` of the same file: the geometric mean\nand the worst. Speeds are raw MB per second of processor time; every result was unpacked and compared.",
        env!("CARGO_PKG_VERSION")
    )?;
    for (bytes, name, files) in SIZES {
        let sets = sets(bytes, files)?;
        table(name, &sets, codecs, out)?;
    }
    let (bytes, name) = LARGE;
    table(name, &one_of_each_format(sets(bytes, 1)?), codecs, out)?;
    let (bytes, name, _) = SIZES[0];
    side_by_side(name, &sets(bytes, 1)?, (codecs, threads), out)?;
    let is_ours = |name: &String| name.starts_with("hybrid");
    match codecs.is_empty() || codecs.iter().any(is_ours) {
        true => bundles(&BUNDLES, out),
        false => Ok(()),
    }
}

/// Bytes of small files, and how many are packed together.
const BUNDLES: [(u64, &str, u64); 5] = [
    (4 << 10, "4 KiB", 16),
    (4 << 10, "4 KiB", 64),
    (10 << 10, "10 KiB", 16),
    (10 << 10, "10 KiB", 64),
    (64 << 10, "64 KiB", 16),
];

/// Prints what known small files take alone and in one block, as a compressor packs those that it has at the same time.
fn bundles(bundles: &[(u64, &str, u64)], out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "\n## Small files in one block: effort balanced, known\nIn relation to `{REFERENCE}` of each file: the geometric mean of the schemas and formats, and the worst. *In the stream*: with the\nheaders of records and the descriptions of the files.\n| files | together | version | alone | in one block | worst | alone in the stream | in one block in the stream |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    let of_versions = bundles
        .iter()
        .flat_map(|bundle| [FormatVersion::V1, FormatVersion::V2].map(|version| (bundle, version)));
    for (&(file_bytes, name, together), version) in of_versions {
        let mut alone = Vec::new();
        let mut in_one_block = Vec::new();
        let (mut alone_in_stream, mut in_stream) = (Vec::new(), Vec::new());
        for set in sets(file_bytes, 2 * together)? {
            // The first bundle is packed before the other.
            let (first, files) = set.files.split_at(usize::try_from(together)?);
            let packer = Packer::new(options(Effort::Balanced, 1)).with_version(version);
            let known = packer
                .clone()
                .with_plan(learned(packer.clone(), &set.first)?);
            let bundle = joined(files);
            let of_bundle = packer.clone().with_plan(learned(packer, &joined(first))?);
            let (xz, mut each) = (reference()?, 0);
            let mut reference_bytes = 0;
            for (_, file) in files {
                reference_bytes += (xz.pack)(file)?.len();
                each += packed_bytes(&known, file)?;
            }
            let ratio = |bytes: usize| bytes as f64 / reference_bytes as f64;
            alone.push(ratio(each));
            alone_in_stream.push(ratio(each + records::alone(files)));
            let together = packed_bytes(&of_bundle, &bundle)?;
            in_one_block.push(ratio(together));
            in_stream.push(ratio(together + records::bundled(files, bundle.len())));
        }
        let worst = in_one_block.iter().copied().fold(0.0, f64::max);
        writeln!(
            out,
            "| {name} | {together} | {} | {:.3} | {:.3} | {worst:.3} | {:.3} | {:.3} |",
            version.number(),
            geometric_mean(&alone),
            geometric_mean(&in_one_block),
            geometric_mean(&alone_in_stream),
            geometric_mean(&in_stream)
        )?;
        out.flush()?;
    }
    Ok(())
}

fn reference() -> Result<BenchCodec> {
    let found = rivals().into_iter().find(|codec| codec.name == REFERENCE);
    found.context("the reference is among the codecs")
}

/// Packed bytes of `raw`, which was unpacked and compared.
fn packed_bytes(packer: &Packer<'_>, raw: &[u8]) -> Result<usize> {
    let mut packed = Vec::new();
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    packer.pack(raw, sink, &false.into())?;
    let mut restored = Vec::new();
    unpack(
        &packed[..],
        &mut restored,
        &Limits::default(),
        1,
        &false.into(),
    )?;
    ensure!(restored == raw, "a file was not restored");
    Ok(packed.len())
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (logs / ratios.len().max(1) as f64).exp()
}

fn sets(file_bytes: u64, files: u64) -> Result<Vec<FileSet>> {
    let mut sets = Vec::new();
    for schema in Schema::example_names() {
        for format in FORMATS {
            let options = GeneratorOptions {
                format,
                file_size_bytes: file_bytes,
                seed: 1,
            };
            let generator = Generator::new(&Schema::example(schema)?, options)?;
            let file = |index| {
                let mut bytes = Vec::new();
                generator.file(index, &mut bytes);
                bytes
            };
            let named = |index| -> Result<_> {
                let name = format!("{index}.{}", format.extension());
                let name = FileName::parse(&name).map_err(Error::msg)?;
                Ok((name, file(index)))
            };
            sets.push(FileSet {
                first: file(0),
                files: (1..=files).map(named).collect::<Result<_>>()?,
            });
        }
    }
    Ok(sets)
}

/// Of sets by schema and format, one of each format, each of another schema.
fn one_of_each_format(sets: Vec<FileSet>) -> Vec<FileSet> {
    sets.into_iter().step_by(FORMATS.len() + 1).collect()
}

/// Prints how fast files are packed and unpacked side by side, as many at a time as there are threads. Ours share the threads, as
/// the files of a worker do.
fn side_by_side(
    size: &str,
    sets: &[FileSet],
    (only, threads): (&[String], usize),
    out: &mut dyn Write,
) -> Result<()> {
    let all = sets.iter().map(|set| contenders(set, threads));
    let all: Vec<_> = all.collect::<Result<_>>()?;
    let raw: Vec<_> = sets.iter().flat_map(|set| &set.files).collect();
    writeln!(
        out,
        "\n## Files of {size} side by side: {threads} threads\nRaw MB per second of time, of all threads together.\n| codec | pack MB/s | unpack MB/s |\n|---|---:|---:|"
    )?;
    let names = all.first().into_iter().flatten().map(|codec| &codec.name);
    for (number, name) in names.enumerate().filter(|(_, name)| wanted(name, only)) {
        let pack = |set: usize| (all[set][number].pack)(&raw[set].1);
        let (packed, pack_seconds) = in_parallel(threads, sets.len(), pack)?;
        let unpack = |set: usize| (all[set][number].unpack)(&packed[set]);
        let (restored, unpack_seconds) = in_parallel(threads, sets.len(), unpack)?;
        let is_restored = restored.iter().zip(&raw).all(|(it, (_, raw))| it == raw);
        ensure!(is_restored, "{name} did not restore a file");
        let bytes: usize = restored.iter().map(Vec::len).sum();
        let speed = |seconds: f64| bytes as f64 / 1e6 / seconds.max(1e-9);
        writeln!(
            out,
            "| {name} | {:.1} | {:.1} |",
            speed(pack_seconds),
            speed(unpack_seconds)
        )?;
        out.flush()?;
    }
    Ok(())
}

/// The results of `work` on the numbers below `jobs`, and the seconds that they took.
fn in_parallel(
    threads: usize,
    jobs: usize,
    work: impl Fn(usize) -> Result<Vec<u8>> + Sync,
) -> Result<(Vec<Vec<u8>>, f64)> {
    let started = Instant::now();
    let mut rounds = 0.0;
    loop {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let job = next.fetch_add(1, Ordering::Relaxed);
                        if job >= jobs {
                            return;
                        }
                        let result = work(job);
                        if let Ok(mut done) = done.lock() {
                            done.push((job, result));
                        }
                    }
                });
            }
        });
        rounds += 1.0;
        let seconds = started.elapsed().as_secs_f64();
        if seconds >= LEAST_SECONDS {
            let mut done = done
                .into_inner()
                .map_err(|_| Error::msg("a thread panicked"))?;
            done.sort_by_key(|(job, _)| *job);
            let results: Result<_> = done.into_iter().map(|(_, result)| result).collect();
            return Ok((results?, seconds / rounds));
        }
    }
}

fn table(size: &str, sets: &[FileSet], only: &[String], out: &mut dyn Write) -> Result<()> {
    let mut rows: Vec<WorkloadRow> = Vec::new();
    for set in sets {
        let all = contenders(set, 1)?;
        ensure_known(&all, only)?;
        for (number, codec) in all
            .iter()
            .filter(|codec| codec.name == REFERENCE || wanted(&codec.name, only))
            .enumerate()
        {
            if rows.len() == number {
                rows.push(WorkloadRow {
                    name: codec.name.clone(),
                    ..WorkloadRow::default()
                });
            }
            for (_, raw) in &set.files {
                measure(codec, raw, &mut rows[number])?;
            }
        }
    }
    let reference: Vec<u64> = rows
        .iter()
        .find(|row| row.name == REFERENCE)
        .map(|row| row.sizes.clone())
        .unwrap_or_default();
    writeln!(
        out,
        "\n## Files of {size}: {} schemas and formats, {} files\n| codec | bytes | mean | worst | pack MB/s | slowest | unpack MB/s |\n|---|---:|---:|---:|---:|---:|---:|",
        sets.len(),
        reference.len()
    )?;
    for row in &rows {
        let ratios: Vec<f64> = row
            .sizes
            .iter()
            .zip(&reference)
            .map(|(&ours, &theirs)| ours as f64 / theirs as f64)
            .collect();
        let mean = geometric_mean(&ratios);
        let worst = ratios.iter().copied().fold(0.0, f64::max);
        let speed = |seconds: f64| row.raw_bytes as f64 / 1e6 / seconds.max(1e-9);
        writeln!(
            out,
            "| {} | {} | {mean:.3} | {worst:.3} | {:.1} | {:.1} | {:.1} |",
            row.name,
            row.packed_bytes,
            speed(row.pack_seconds),
            1.0 / 1e6 / row.most_pack_seconds.max(1e-15),
            speed(row.unpack_seconds)
        )?;
        out.flush()?;
    }
    Ok(())
}

/// Ours with and without a plan of the first file, on so many threads, then the others.
fn contenders(set: &FileSet, threads: usize) -> Result<Vec<BenchCodec>> {
    let mut all = Vec::new();
    for (name, packer) in hybrid_packers(threads) {
        all.push(hybrid_with(name.clone(), packer.clone(), threads));
        let known = packer.clone().with_plan(learned(packer, &set.first)?);
        all.push(hybrid_with(format!("{name}, known"), known, threads));
    }
    all.extend(rivals());
    Ok(all)
}

/// What `packer` learns from a file.
fn learned(packer: Packer<'_>, first: &[u8]) -> Result<Plan> {
    let store = PlanStore::default();
    let packer = packer.with_store(&store);
    packer.pack(first, |_| Ok(()), &false.into())?;
    Ok(store.plan())
}

fn measure(codec: &BenchCodec, raw: &[u8], row: &mut WorkloadRow) -> Result<()> {
    let (packed, pack_seconds) = repeated(|| (codec.pack)(raw))?;
    let (restored, unpack_seconds) = repeated(|| (codec.unpack)(&packed))?;
    ensure!(restored == raw, "{} did not restore a file", codec.name);
    row.raw_bytes += raw.len() as u64;
    row.packed_bytes += packed.len() as u64;
    row.pack_seconds += pack_seconds;
    row.unpack_seconds += unpack_seconds;
    let of_a_byte = pack_seconds / raw.len().max(1) as f64;
    row.most_pack_seconds = row.most_pack_seconds.max(of_a_byte);
    row.sizes.push(packed.len() as u64);
    Ok(())
}

/// The result of `work`, and its processor time in seconds: the median of some measurements.
fn repeated(work: impl Fn() -> Result<Vec<u8>>) -> Result<(Vec<u8>, f64)> {
    let (result, first) = repeated_once(&work)?;
    let mut all = vec![first];
    while first < LONG_SECONDS && all.len() < MEASUREMENTS {
        all.push(repeated_once(&work)?.1);
    }
    all.sort_by(f64::total_cmp);
    Ok((result, all[all.len() / 2]))
}

fn repeated_once(work: impl Fn() -> Result<Vec<u8>>) -> Result<(Vec<u8>, f64)> {
    let started = cpu::seconds();
    let mut rounds = 0.0;
    loop {
        let result = work()?;
        rounds += 1.0;
        let seconds = cpu::seconds() - started;
        if seconds >= LEAST_SECONDS {
            return Ok((result, seconds / rounds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_take_half_the_bytes_in_one_block() {
        let mut out = Vec::new();
        bundles(&[(2 << 10, "2 KiB", 8)], &mut out).expect("measured");
        let text = String::from_utf8(out).expect("text");
        let row = text.lines().find(|line| line.starts_with("| 2 KiB"));
        let cells: Vec<&str> = row.expect("a row").split('|').map(str::trim).collect();
        let share = |cell: &str| cell.parse::<f64>().expect("a number");
        assert!(2.0 * share(cells[5]) < share(cells[4]), "{text}");
    }

    #[test]
    fn files_are_packed_and_unpacked_side_by_side() {
        let sets = one_of_each_format(sets(4 << 10, 1).expect("made"));
        assert_eq!(sets.len(), FORMATS.len());
        let mut out = Vec::new();
        let only = (&["xz -6".to_owned(), "hybrid fast".to_owned()][..], 3);
        side_by_side("4 KiB", &sets, only, &mut out).expect("measured");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("side by side: 3 threads"), "{text}");
        for name in ["hybrid fast", "hybrid fast, known", "xz -6"] {
            assert!(text.contains(&format!("\n| {name} | ")), "{text}");
        }
    }

    #[test]
    fn a_table_has_every_codec_and_a_known_file_is_packed_as_small() {
        let sets = &sets(8 << 10, 1).expect("made")[..1];
        let mut out = Vec::new();
        table("8 KiB", sets, &["hybrid balanced".to_owned()], &mut out).expect("measured");
        let text = String::from_utf8(out).expect("text");
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| hybrid") || line.starts_with("| xz"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        let names: Vec<&str> = rows.iter().map(|row| row[1]).collect();
        assert_eq!(
            names,
            [
                "hybrid balanced",
                "hybrid balanced, known",
                "hybrid balanced, version 2",
                "hybrid balanced, version 2, known",
                REFERENCE
            ],
            "{text}"
        );
        let bytes: Vec<f64> = rows
            .iter()
            .map(|row| row[2].parse().expect("a number"))
            .collect();
        assert!(bytes[1] <= bytes[0] * 1.05 && bytes[2] < bytes[0], "{text}");
    }
}
