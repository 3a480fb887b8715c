//! Small files that share a block, on the fake AWS: what several decompressors read and unpack of it.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use streampress_codec::FormatVersion;
use streampress_tests::aws::Cloud;
use streampress_tests::eventually;
use streampress_tests::pipeline::{Role, STREAM, TestPipeline, TestWorker};

const FILES: u64 = 300;

/// Rows of about 4 KiB whose values differ from file to file.
fn content(number: u64) -> String {
    let row = |row: u64| {
        let id = number * 1000 + row;
        let amount = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
        format!("{{\"id\":{id},\"place\":\"north\",\"amount\":{amount}}}\n")
    };
    (0..90).map(row).collect()
}

/// What it took to restore all files.
struct Restored {
    /// Bytes of all records in the stream.
    bytes_in: u64,
    /// Bytes of records that decompressors read.
    bytes_out: u64,
    bundled: u64,
    bundles: u64,
    unpacked: u64,
    /// Processor time of everything between the last announcement and the end of packing, and from there to the last restored file.
    packing: Duration,
    unpacking: Duration,
}

/// The processor time of this process, the fake AWS's included.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `None`: each file is packed alone.
async fn restore(bundles: Option<FormatVersion>, decompressors: usize) -> Restored {
    let cloud = Cloud::start().await;
    cloud.make_queue("files", 20);
    cloud.make_queue("chunks", 20);
    cloud.make_stream(STREAM, 2);
    let root = tempfile::tempdir().expect("a folder");
    let mut pipeline = TestPipeline::new(root.path(), &cloud.fake_aws.url, Duration::from_secs(60))
        .expect("folders");
    pipeline.bundles = bundles.is_some();
    pipeline.format_version = bundles.unwrap_or_default();
    let announcer = pipeline.announcer(&cloud.aws).await;
    for number in 0..FILES {
        let name = format!("{number}.json");
        let content = content(number);
        let entry = pipeline.write(&name, content.as_bytes(), SystemTime::now());
        announcer
            .announce(&entry.expect("written"))
            .await
            .expect("announced");
    }
    let announced = processor_time();
    let compressor = TestWorker::start(&pipeline, Role::Compressor, 2);
    eventually("all files are packed", async || {
        pipeline.meter.counts().acknowledged >= FILES
    })
    .await;
    compressor.drain().await;
    let packed = processor_time();
    let workers: Vec<_> = (0..decompressors)
        .map(|_| TestWorker::start(&pipeline, Role::Decompressor, 2))
        .collect();
    eventually("all files are restored", async || {
        pipeline.commits().len() as u64 >= FILES
    })
    .await;
    let restored = processor_time();
    workers.into_iter().for_each(TestWorker::kill);
    for number in 0..FILES {
        let restored = std::fs::read_to_string(root.path().join(format!("out/{number}.json")));
        assert_eq!(restored.expect("restored"), content(number));
    }
    let (counts, stream) = (pipeline.meter.counts(), cloud.fake_aws.kinesis().counts);
    Restored {
        bytes_in: stream.bytes_in,
        bytes_out: stream.bytes_out,
        bundled: counts.bundled_files,
        bundles: counts.bundles_packed,
        unpacked: counts.bundles_unpacked,
        packing: packed - announced,
        unpacking: restored - packed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_share_blocks_are_restored_by_any_number_of_decompressors() {
    let per_file = |time: Duration| time.as_secs_f64() * 1e3 / FILES as f64;
    let print = |what: &str, it: &Restored| {
        println!(
            "FIGURE {FILES} files of 4 KiB {what}: {} bytes a file in the stream, {} read; processor time a file, the fake AWS's included: {:.2} ms to pack, {:.2} ms to restore",
            it.bytes_in / FILES,
            it.bytes_out / FILES,
            per_file(it.packing),
            per_file(it.unpacking)
        );
    };
    let alone = restore(None, 1).await;
    assert_eq!((alone.bundled, alone.unpacked), (0, 0));
    print("alone", &alone);
    for (decompressors, version) in [
        (1, FormatVersion::V1),
        (2, FormatVersion::V1),
        (4, FormatVersion::V1),
        (2, FormatVersion::V2),
    ] {
        let together = restore(Some(version), decompressors).await;
        print(
            &format!(
                "in {} bundles of version {}, {decompressors} decompressors, {:.2} unpackings of a bundle",
                together.bundles,
                version.number(),
                together.unpacked as f64 / together.bundles.max(1) as f64
            ),
            &together,
        );
        assert!(together.bundled > FILES / 2, "{}", together.bundled);
        assert!(2 * together.bytes_in < alone.bytes_in);
        // A queue deals the files of a bundle to several workers, by the ten.
        let most = together.bundles * decompressors as u64 + FILES / 10;
        assert!(together.unpacked <= most, "{}", together.unpacked);
    }
}
