//! How fast files are made, by example schema and format: `cargo bench -p streampress-generator`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use streampress_generator::{FileFormat, Generator, GeneratorOptions, Schema};

const FILE_SIZE_BYTES: u64 = 1 << 20;

fn make_files(c: &mut Criterion) {
    let mut group = c.benchmark_group("generator");
    group.throughput(Throughput::Bytes(FILE_SIZE_BYTES));
    group.sample_size(20);
    for name in Schema::example_names() {
        let schema = Schema::example(name).expect("the examples are good schemas");
        for format in [
            FileFormat::Json,
            FileFormat::Ndjson,
            FileFormat::Csv,
            FileFormat::Txt,
        ] {
            let options = GeneratorOptions {
                format,
                file_size_bytes: FILE_SIZE_BYTES,
                seed: 1,
            };
            let generator = Generator::new(&schema, options).expect("every format is possible");
            let mut out = Vec::new();
            let mut index = 0;
            group.bench_function(BenchmarkId::new(name, format.extension()), |b| {
                b.iter(|| {
                    index += 1;
                    generator.file(index, &mut out)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, make_files);
criterion_main!(benches);
