//! The speed of packing at each effort, of a new schema and of a known one, and of unpacking, in both versions of the format:
//! `cargo bench -p streampress-codec`. One file of 1 MiB of each of three example schemas, on all cores.

use std::{sync::atomic::AtomicBool, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use streampress_codec::FormatVersion;
use streampress_codec::hybrid::{CodecOptions, Effort, Limits, Packer, PlanStore, unpack};
use streampress_generator::{FileFormat, Generator, GeneratorOptions, Schema};

const FILE_SIZE_BYTES: u64 = 1 << 20;
static RUN: AtomicBool = AtomicBool::new(false);

fn packer(effort: Effort, version: FormatVersion) -> Packer<'static> {
    let options = CodecOptions {
        effort,
        ..CodecOptions::default()
    };
    Packer::new(options).with_version(version)
}

fn packed(raw: &[u8], packer: &Packer<'_>) -> Vec<u8> {
    let mut packed = Vec::new();
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    packer.pack(raw, sink, &RUN).expect("packs");
    packed
}

fn both_ways(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_millis(500));
    for (example, format) in [
        ("stock-market", FileFormat::Json),
        ("iot-sensors", FileFormat::Csv),
        ("access-log", FileFormat::Txt),
    ] {
        let schema = Schema::example(example).expect("the examples are good schemas");
        let options = GeneratorOptions {
            format,
            file_size_bytes: FILE_SIZE_BYTES,
            seed: 1,
        };
        let mut raw = Vec::new();
        Generator::new(&schema, options)
            .expect("every format is possible")
            .file(0, &mut raw);
        group.throughput(Throughput::Bytes(raw.len() as u64));
        let name = format!("{example}.{}", format.extension());
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let what = |what: &str| {
                BenchmarkId::new(format!("{what}, version {}", version.number()), &name)
            };
            for effort in Effort::ALL {
                let new = packer(effort, version);
                let store = PlanStore::default();
                packed(&raw, &new.clone().with_store(&store));
                let known = new.clone().with_plan(store.plan());
                for (schema, packer) in [("new", &new), ("known", &known)] {
                    let id = what(&format!("pack {} {schema}", effort.name()));
                    group.bench_function(id, |b| b.iter(|| packed(&raw, packer)));
                }
            }
            let file = packed(&raw, &packer(Effort::Balanced, version));
            group.bench_function(what("unpack"), |b| {
                b.iter(|| {
                    unpack(&file[..], std::io::sink(), &Limits::default(), 0, &RUN)
                        .expect("unpacks")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, both_ways);
criterion_main!(benches);
