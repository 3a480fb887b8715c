//! `streampress bench`: codecs side by side on the same bytes in the same process. Every result is unpacked again and
//! compared; sizes hold every header. Speeds are of raw bytes per second of wall time; the peak is this process's
//! resident memory above what it had before.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use xz2::stream::{Check, LzmaOptions, MtStreamBuilder, PRESET_EXTREME, Stream};

use crate::codec::{hybrid, seed};
use crate::generator::{FileFormat, Generator, GeneratorOptions, Schema};

/// Larger inputs would not fit beside their packed and restored copies on a small machine.
const LARGEST_FILE_BYTES: u64 = 2 << 30;
/// Size of the files made when none are named.
const EXAMPLE_BYTES: u64 = 4 << 20;

/// From bytes to bytes.
type Way = Box<dyn Fn(&[u8]) -> Result<Vec<u8>>>;

/// One way to pack.
struct Codec {
    name: String,
    threads: usize,
    pack: Way,
    unpack: Way,
    /// What must come back; the seed format normalises.
    expected: Way,
}

/// What one codec did with one file.
struct Row {
    packed_bytes: usize,
    pack_seconds: f64,
    unpack_seconds: f64,
    peak_bytes: Option<u64>,
}

/// Prints a table for every file, or for made ones where none are named; 0 threads is all cores.
pub fn bench(files: &[PathBuf], threads: usize, out: &mut dyn Write) -> Result<()> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let inputs: Vec<(String, Option<PathBuf>)> = match files {
        [] => examples(),
        files => files
            .iter()
            .map(|file| (file.display().to_string(), Some(file.clone())))
            .collect(),
    };
    let mut ratios: Vec<(String, Vec<f64>)> = Vec::new();
    for (name, path) in &inputs {
        let raw = match path {
            Some(path) => read(path)?,
            None => example(name)?,
        };
        bench_one(name, &raw, threads, &mut ratios, out)?;
    }
    means(&ratios, inputs.len(), out)?;
    Ok(())
}

fn examples() -> Vec<(String, Option<PathBuf>)> {
    let formats = ["json", "ndjson", "csv", "txt"];
    let all = Schema::example_names()
        .flat_map(|schema| formats.map(|format| (format!("{schema}.{format}"), None)));
    all.collect()
}

fn example(name: &str) -> Result<Vec<u8>> {
    let (schema, format) = name
        .split_once('.')
        .context("an example is a schema and a format")?;
    let format = match format {
        "json" => FileFormat::Json,
        "ndjson" => FileFormat::Ndjson,
        "csv" => FileFormat::Csv,
        _ => FileFormat::Txt,
    };
    let options = GeneratorOptions {
        format,
        file_size_bytes: EXAMPLE_BYTES,
        seed: 1,
    };
    let mut bytes = Vec::new();
    Generator::new(&Schema::example(schema)?, options)?.file(0, &mut bytes);
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let reading = || format!("reading {}", path.display());
    let bytes = path.metadata().with_context(reading)?.len();
    ensure!(
        bytes <= LARGEST_FILE_BYTES,
        "{} has {bytes} bytes; bench holds files in memory, up to 2 GiB",
        path.display()
    );
    std::fs::read(path).with_context(reading)
}

fn bench_one(
    name: &str,
    raw: &[u8],
    threads: usize,
    ratios: &mut Vec<(String, Vec<f64>)>,
    out: &mut dyn Write,
) -> Result<()> {
    writeln!(out, "{name}: {} bytes", raw.len())?;
    writeln!(
        out,
        "  {:<18} {:>7} {:>12} {:>8} {:>10} {:>12} {:>10}",
        "codec", "threads", "bytes", "ratio", "pack MB/s", "unpack MB/s", "peak MiB"
    )?;
    let mut sizes = Vec::new();
    for codec in codecs(name, threads) {
        match measure(&codec, raw) {
            Ok(row) => {
                writeln!(out, "{}", line(&codec, raw.len(), &row))?;
                sizes.push((codec.name, row.packed_bytes));
            }
            Err(error) => writeln!(out, "  {:<18} cannot pack this file: {error:#}", codec.name)?,
        }
        out.flush()?;
    }
    let reference = sizes
        .iter()
        .find(|(name, _)| name == "xz -9e")
        .map(|(_, bytes)| *bytes as f64);
    for (name, bytes) in sizes {
        let ratio = bytes as f64 / reference.unwrap_or(f64::NAN);
        match ratios.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => list.push(ratio),
            None => ratios.push((name, vec![ratio])),
        }
    }
    Ok(())
}

fn line(codec: &Codec, raw_bytes: usize, row: &Row) -> String {
    let speed = |seconds: f64| raw_bytes as f64 / 1e6 / seconds.max(1e-9);
    let peak = row.peak_bytes.map_or("-".to_owned(), |bytes| {
        format!("{:.0}", bytes as f64 / f64::from(1 << 20))
    });
    format!(
        "  {:<18} {:>7} {:>12} {:>8.3} {:>10.1} {:>12.1} {:>10}",
        codec.name,
        codec.threads,
        row.packed_bytes,
        raw_bytes as f64 / row.packed_bytes.max(1) as f64,
        speed(row.pack_seconds),
        speed(row.unpack_seconds),
        peak
    )
}

/// The geometric mean of sizes in relation to whole-file xz -9e.
fn means(ratios: &[(String, Vec<f64>)], files: usize, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "size in relation to xz -9e, geometric mean over {files} file(s)"
    )?;
    for (name, list) in ratios {
        let mean = (list.iter().map(|ratio| ratio.ln()).sum::<f64>() / list.len() as f64).exp();
        let part = if list.len() == files {
            String::new()
        } else {
            format!(" (of {} files)", list.len())
        };
        writeln!(out, "  {name:<18} {mean:.3}{part}")?;
    }
    Ok(())
}

fn measure(codec: &Codec, raw: &[u8]) -> Result<Row> {
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
        "{} did not give the file back",
        codec.name
    );
    Ok(Row {
        packed_bytes: packed.len(),
        pack_seconds,
        unpack_seconds,
        peak_bytes,
    })
}

fn codecs(name: &str, threads: usize) -> Vec<Codec> {
    let mut all: Vec<Codec> = hybrid::Effort::ALL
        .iter()
        .map(|effort| hybrid_codec(*effort, threads))
        .collect();
    if let Some(format) = seed::Format::of_name(name) {
        all.push(seed_codec(format));
    }
    all.push(xz("xz -6", 1, 6));
    all.push(xz("xz -6 -T", threads, 6));
    all.push(xz("xz -9e", 1, 9 | PRESET_EXTREME));
    all.push(simple(
        "bzip2 -9",
        |raw| drain(bzip2::read::BzEncoder::new(raw, bzip2::Compression::best())),
        |packed| drain(bzip2::read::MultiBzDecoder::new(packed)),
    ));
    all.push(simple(
        "zstd -19",
        |raw| Ok(zstd::bulk::compress(raw, 19)?),
        |packed| drain(zstd::stream::read::Decoder::new(packed)?),
    ));
    all
}

fn hybrid_codec(effort: hybrid::Effort, threads: usize) -> Codec {
    let options = hybrid::Options {
        effort,
        threads,
        ..Default::default()
    };
    Codec {
        name: format!("hybrid {}", effort.name()),
        threads,
        pack: Box::new(move |raw| {
            let mut packed = Vec::new();
            let sink = |frame: &[u8]| -> io::Result<()> {
                packed.extend_from_slice(frame);
                Ok(())
            };
            hybrid::pack(raw, sink, &options, &AtomicBool::new(false))?;
            Ok(packed)
        }),
        unpack: Box::new(move |packed| {
            let mut raw = Vec::new();
            hybrid::unpack(
                packed,
                &mut raw,
                &hybrid::Limits::default(),
                threads,
                &AtomicBool::new(false),
            )?;
            Ok(raw)
        }),
        expected: Box::new(|raw| Ok(raw.to_vec())),
    }
}

/// The records behind each other, with one byte that says how many stages; the message is not counted.
fn seed_codec(format: seed::Format) -> Codec {
    Codec {
        name: "seed".to_owned(),
        threads: 1,
        pack: Box::new(move |raw| {
            let packed = seed::pack(&seed::normalise(format, raw)?, seed::DEFAULT_BREAK_BYTES)?;
            let mut bytes = vec![u8::from(packed.stages == seed::Stages::Two)];
            for record in &packed.records {
                bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
                bytes.extend_from_slice(record);
            }
            Ok(bytes)
        }),
        unpack: Box::new(|packed| {
            let (stages, mut rest) = packed.split_first().context("empty")?;
            let mut records = Vec::new();
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (record, next) = after
                    .split_at_checked(u32::from_be_bytes(*length) as usize)
                    .context("cut off")?;
                records.push(record.to_vec());
                rest = next;
            }
            let stages = if *stages == 1 {
                seed::Stages::Two
            } else {
                seed::Stages::One
            };
            seed::unpack(
                &seed::Packed { stages, records },
                LARGEST_FILE_BYTES as usize,
            )
            .map_err(|damage| anyhow!("{damage}"))
        }),
        expected: Box::new(move |raw| Ok(seed::normalise(format, raw)?)),
    }
}

/// The whole file as one stream, or in blocks over several threads, as the xz program does.
fn xz(name: &str, threads: usize, preset: u32) -> Codec {
    let pack = move |raw: &[u8]| -> Result<Vec<u8>> {
        let stream = match threads {
            1 => Stream::new_stream_encoder(&filters(preset)?, Check::Crc64)?,
            threads => MtStreamBuilder::new()
                .threads(u32::try_from(threads)?)
                .preset(preset)
                .block_size(4 << 20)
                .check(Check::Crc64)
                .encoder()?,
        };
        drain(xz2::read::XzEncoder::new_stream(raw, stream))
    };
    Codec {
        threads,
        ..simple(name, pack, |packed| {
            drain(xz2::read::XzDecoder::new(packed))
        })
    }
}

fn filters(preset: u32) -> Result<xz2::stream::Filters> {
    let mut filters = xz2::stream::Filters::new();
    filters.lzma2(&LzmaOptions::new_preset(preset)?);
    Ok(filters)
}

fn simple(
    name: &str,
    pack: impl Fn(&[u8]) -> Result<Vec<u8>> + 'static,
    unpack: impl Fn(&[u8]) -> Result<Vec<u8>> + 'static,
) -> Codec {
    Codec {
        name: name.to_owned(),
        threads: 1,
        pack: Box::new(pack),
        unpack: Box::new(unpack),
        expected: Box::new(|raw| Ok(raw.to_vec())),
    }
}

fn drain(mut reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// This process's resident memory, as Linux tells it; elsewhere unknown.
mod memory {
    /// Starts a new peak; gives what is resident now.
    pub fn reset_peak() -> Option<u64> {
        // Section 3.4 of the kernel's proc documentation: 5 resets the peak.
        std::fs::write("/proc/self/clear_refs", "5").ok()?;
        field("VmRSS:")
    }

    /// The most that was resident since.
    pub fn peak() -> Option<u64> {
        field("VmHWM:")
    }

    fn field(name: &str) -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kib * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_a_small_file_back_and_stands_in_the_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("small.csv");
        std::fs::write(
            &file,
            "id,name\n".to_owned() + &"1,abc\n2,def\n".repeat(500),
        )
        .expect("written");
        let mut out = Vec::new();
        bench(&[file], 2, &mut out).expect("it runs");
        let table = String::from_utf8(out).expect("text");
        for name in [
            "hybrid fast",
            "hybrid balanced",
            "hybrid max",
            "seed",
            "xz -6 ",
            "xz -9e",
            "bzip2 -9",
            "zstd -19",
        ] {
            assert!(table.contains(name), "{name} is missing\n{table}");
        }
        assert!(!table.contains("cannot pack"), "{table}");
    }
}
