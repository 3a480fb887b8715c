//! `streampress bench`: codecs side by side on the same bytes in the same process. Every result is unpacked again and
//! compared; sizes include every header. Speeds are raw bytes per second of wall time; the peak is this process's resident
//! memory above what it had before, of the first codec alone: those after it use again what it has freed.

mod codecs;
mod cpu;
mod memory;
mod records;
mod workload;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::codecs::{BenchCodec, REFERENCE, codecs};
use super::args::BenchArgs;
use super::{output, threads};
use crate::telemetry::plain_log::printable;

pub(super) fn command(args: BenchArgs) -> Result<ExitCode> {
    let options = BenchOptions {
        files: args.files,
        threads: threads(args.threads),
        codecs: args.codec,
        rounds: args.rounds.into(),
    };
    match bench(&options, &mut std::io::stdout()) {
        Err(error) if output::is_closed_pipe(&error) => return Ok(ExitCode::SUCCESS),
        done => done?,
    }
    if !cfg!(feature = "bench") {
        output::note(
            "this program was built without zstd, brotli and PPMd; `--features bench` builds them for this comparison",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Larger inputs would not fit beside their packed and restored copies on a small machine.
const LARGEST_FILE_BYTES: u64 = 2 << 30;

/// What to compare, and on what.
#[derive(Debug)]
struct BenchOptions {
    /// The files; the workload of a pipeline where there are none.
    files: Vec<PathBuf>,
    /// Threads for the codecs that use several.
    threads: usize,
    /// Only codecs whose names start so; all where there are none.
    codecs: Vec<String>,
    /// Each codec packs and unpacks so often, and its best time counts.
    rounds: usize,
}

/// One codec's result with one file.
struct CodecResult {
    packed_bytes: u64,
    pack_seconds: f64,
    unpack_seconds: f64,
    peak_bytes: Option<u64>,
}

/// One codec's results with all files.
struct CodecTotal {
    name: String,
    threads: usize,
    /// For each file: its number, its bytes, and the result.
    rows: Vec<(usize, u64, CodecResult)>,
}

/// Prints a table for every file, and one over all of them.
fn bench(options: &BenchOptions, out: &mut dyn Write) -> Result<()> {
    if options.files.is_empty() {
        return workload::bench(&options.codecs, options.threads, out);
    }
    let mut totals: Vec<CodecTotal> = Vec::new();
    let mut unread = 0;
    for (number, path) in options.files.iter().enumerate() {
        let name = &path.display().to_string();
        let raw = match read(path) {
            Ok(raw) => raw,
            Err(error) => {
                output::error(&format!("{error:#}"));
                unread += 1;
                continue;
            }
        };
        let all = codecs(name, options.threads);
        ensure_known(&all, &options.codecs)?;
        writeln!(out, "{}: {} bytes", printable(name), raw.len())?;
        writeln!(
            out,
            "  {:<26} {:>7} {:>12} {:>8} {:>10} {:>12} {:>10}",
            "codec", "threads", "bytes", "ratio", "pack MB/s", "unpack MB/s", "peak MiB"
        )?;
        for codec in all {
            if !wanted(&codec.name, &options.codecs) {
                continue;
            }
            match measure(&codec, &raw, options.rounds) {
                Ok(mut row) => {
                    row.peak_bytes = row.peak_bytes.filter(|_| totals.is_empty());
                    writeln!(out, "{}", line(&codec, raw.len() as u64, &row))?;
                    add(&mut totals, codec, number, raw.len() as u64, row);
                }
                Err(error) => {
                    writeln!(out, "  {:<26} cannot pack this file: {error:#}", codec.name)?;
                }
            }
            out.flush()?;
        }
    }
    if let [measured, _, ..] = &totals[..] {
        writeln!(
            out,
            "The peak is that of packing with {} alone; of another codec: --codec NAME",
            measured.name
        )?;
    }
    if !totals.is_empty() {
        show_totals(&totals, &options.files, out)?;
    }
    ensure!(unread == 0, "{unread} file(s) could not be read");
    Ok(())
}

/// Fails where a codec was requested by a name that none has.
fn ensure_known(all: &[BenchCodec], asked: &[String]) -> Result<()> {
    let is_unknown = |asked: &&String| {
        let one = std::slice::from_ref(*asked);
        !all.iter().any(|codec| wanted(&codec.name, one))
    };
    match asked.iter().find(is_unknown) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<&str> = all.iter().map(|codec| codec.name.as_str()).collect();
            bail!(
                "--codec {unknown}: no codec's name starts so; there are {}",
                names.join(", ")
            )
        }
    }
}

fn wanted(name: &str, asked: &[String]) -> bool {
    asked.is_empty() || asked.iter().any(|asked| name.starts_with(asked.as_str()))
}

fn add(
    totals: &mut Vec<CodecTotal>,
    codec: BenchCodec,
    file: usize,
    raw_bytes: u64,
    row: CodecResult,
) {
    let row = (file, raw_bytes, row);
    match totals.iter_mut().find(|total| total.name == codec.name) {
        Some(total) => total.rows.push(row),
        None => totals.push(CodecTotal {
            name: codec.name,
            threads: codec.threads,
            rows: vec![row],
        }),
    }
}

/// All of a file, or of standard input for `-`.
fn read(path: &Path) -> Result<Vec<u8>> {
    let reading = || format!("reading {}", path.display());
    if output::is_stream(path) {
        let mut bytes = Vec::new();
        let input = std::io::stdin().lock();
        let mut bounded = input.take(LARGEST_FILE_BYTES + 1);
        bounded
            .read_to_end(&mut bytes)
            .context("reading standard input")?;
        ensure!(
            bytes.len() as u64 <= LARGEST_FILE_BYTES,
            "standard input has more than 2 GiB, which bench would hold in memory"
        );
        return Ok(bytes);
    }
    let bytes = path.metadata().with_context(reading)?.len();
    ensure!(
        bytes <= LARGEST_FILE_BYTES,
        "{} has {bytes} bytes; bench holds files in memory, up to 2 GiB",
        path.display()
    );
    std::fs::read(path).with_context(reading)
}

fn line(codec: &BenchCodec, raw_bytes: u64, row: &CodecResult) -> String {
    let peak = row.peak_bytes.map_or("-".to_owned(), |bytes| {
        format!("{:.0}", bytes as f64 / f64::from(1 << 20))
    });
    format!(
        "  {:<26} {:>7} {:>12} {:>8.3} {:>10.1} {:>12.1} {:>10}",
        codec.name,
        codec.threads,
        row.packed_bytes,
        raw_bytes as f64 / row.packed_bytes.max(1) as f64,
        speed(raw_bytes, row.pack_seconds),
        speed(raw_bytes, row.unpack_seconds),
        peak
    )
}

fn speed(raw_bytes: u64, seconds: f64) -> f64 {
    raw_bytes as f64 / 1e6 / seconds.max(1e-9)
}

/// Sizes in relation to the reference, and speeds over all files together.
fn show_totals(totals: &[CodecTotal], inputs: &[PathBuf], out: &mut dyn Write) -> Result<()> {
    let reference = totals.iter().find(|total| total.name == REFERENCE);
    writeln!(
        out,
        "all {} file(s); sizes in relation to {REFERENCE}, speeds of all files together",
        inputs.len()
    )?;
    writeln!(
        out,
        "  {:<26} {:>7} {:>7} {:>7} {:>7} {:>10} {:>12}  worst file",
        "codec", "threads", "mean", "sum", "worst", "pack MB/s", "unpack MB/s"
    )?;
    for total in totals {
        let pairs: Vec<(usize, u64, u64)> = reference
            .map(|reference| pairs(total, reference))
            .unwrap_or_default();
        let ratio = |&(_, ours, theirs): &(usize, u64, u64)| ours as f64 / theirs.max(1) as f64;
        let logs: f64 = pairs.iter().map(|pair| ratio(pair).ln()).sum();
        let (ours, theirs) = pairs
            .iter()
            .fold((0, 0), |sum, pair| (sum.0 + pair.1, sum.1 + pair.2));
        let worst = pairs.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let sum =
            |of: &dyn Fn(&CodecResult) -> f64| total.rows.iter().map(|(_, _, row)| of(row)).sum();
        let raw_bytes: u64 = total.rows.iter().map(|(_, raw, _)| raw).sum();
        let (packing, unpacking): (f64, f64) =
            (sum(&|row| row.pack_seconds), sum(&|row| row.unpack_seconds));
        let part = if total.rows.len() == inputs.len() {
            String::new()
        } else {
            format!(" ({} files only)", total.rows.len())
        };
        writeln!(
            out,
            "  {:<26} {:>7} {:>7} {:>7} {:>7} {:>10.1} {:>12.1}  {}{part}",
            total.name,
            total.threads,
            three((logs / pairs.len() as f64).exp()),
            three(ours as f64 / theirs as f64),
            three(worst.map_or(f64::NAN, ratio)),
            speed(raw_bytes, packing),
            speed(raw_bytes, unpacking),
            worst.map_or("-".into(), |&(file, ..)| {
                printable(&inputs[file].display().to_string()).into_owned()
            }),
        )?;
    }
    Ok(())
}

/// Of every file that both packed: which, the bytes of one and of the other.
fn pairs(total: &CodecTotal, reference: &CodecTotal) -> Vec<(usize, u64, u64)> {
    let of = |file: usize| {
        let mut rows = reference.rows.iter();
        rows.find_map(|(other, _, row)| (*other == file).then_some(row.packed_bytes))
    };
    let rows = total.rows.iter();
    rows.filter_map(|(file, _, row)| Some((*file, row.packed_bytes, of(*file)?)))
        .collect()
}

fn three(number: f64) -> String {
    if number.is_finite() {
        format!("{number:.3}")
    } else {
        "-".into()
    }
}

fn measure(codec: &BenchCodec, raw: &[u8], rounds: usize) -> Result<CodecResult> {
    let mut best: Option<CodecResult> = None;
    for _ in 0..rounds {
        let row = measure_once(codec, raw)?;
        best = Some(match best {
            None => row,
            Some(best) => CodecResult {
                pack_seconds: best.pack_seconds.min(row.pack_seconds),
                unpack_seconds: best.unpack_seconds.min(row.unpack_seconds),
                ..best
            },
        });
    }
    best.context("no round was run")
}

fn measure_once(codec: &BenchCodec, raw: &[u8]) -> Result<CodecResult> {
    let before = memory::reset_peak();
    let started = Instant::now();
    let packed = (codec.pack)(raw)?;
    let pack_seconds = started.elapsed().as_secs_f64();
    let peak_bytes = before.and_then(|before| Some(memory::peak()?.saturating_sub(before)));
    let started = Instant::now();
    let restored = (codec.unpack)(&packed)?;
    let unpack_seconds = started.elapsed().as_secs_f64();
    ensure!(
        restored == (codec.expected)(raw)?,
        "{} did not restore the file",
        codec.name
    );
    Ok(CodecResult {
        packed_bytes: packed.len() as u64,
        pack_seconds,
        unpack_seconds,
        peak_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_restores_a_small_file_and_is_in_both_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("small.csv");
        std::fs::write(
            &file,
            "id,name\n".to_owned() + &"1,abc\n2,def\n".repeat(500),
        )
        .expect("written");
        let options = BenchOptions {
            files: vec![file],
            threads: 2,
            codecs: Vec::new(),
            rounds: 1,
        };
        let mut out = Vec::new();
        bench(&options, &mut out).expect("it runs");
        let table = String::from_utf8(out).expect("text");
        let (one, all) = table.split_once("all 1 file(s)").expect("two tables");
        for name in [
            "hybrid fast",
            "hybrid balanced",
            "hybrid max",
            "hybrid max, version 2",
            "seed",
            "xz -6 ",
            "xz -6 -T 4MiB",
            "xz -9e",
            "bzip2 -9",
        ]
        .into_iter()
        .chain(cfg!(feature = "bench").then_some("zstd -19"))
        .chain(cfg!(feature = "bench").then_some("brotli -11"))
        .chain(cfg!(feature = "bench").then_some("PPMd"))
        {
            assert!(
                one.contains(name) && all.contains(name),
                "{name} is missing\n{table}"
            );
        }
        assert!(!table.contains("cannot pack"), "{table}");
    }

    #[test]
    fn only_the_codecs_named_are_run() {
        let asked = ["hybrid".to_owned(), "xz -9".to_owned()];
        assert!(wanted("hybrid fast", &asked) && wanted("xz -9e", &asked));
        assert!(!wanted("xz -6", &asked) && wanted("xz -6", &[]));
        let all = codecs("a.json", 1);
        ensure_known(&all, &asked).expect("both exist");
        let unknown = ensure_known(&all, &["nope".to_owned()]).expect_err("none starts so");
        assert!(unknown.to_string().contains("xz -6"), "{unknown}");
    }
}
