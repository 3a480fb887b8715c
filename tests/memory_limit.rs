//! Packing and restoring take no more memory than FORMAT.md says ("Memory of a packer"), whatever the files look like.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use streampress_tests::cgroup::{Cgroup, peak_in, peak_memory};
use streampress_tests::sandbox::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const MIB: usize = 1 << 20;
/// The default of `codec.blockSize`.
const BLOCK_BYTES: usize = 4 * MIB;
/// What the program takes besides its block, built as for tests: text, allocator, thread stacks, in bytes.
const PROGRAM_BYTES: usize = 32 * MIB;
/// What a role takes besides its blocks: records, the kernel's buffers, and plans.
const ROLE_BYTES: usize = 44 * MIB;
/// What waits to be packed together, or is kept unpacked for its other files, in blocks.
const WAITING_BLOCKS: usize = 2;
/// The shapes of effort max: with the others it would take as long as all else together.
const WORST_SHAPES: [&str; 3] = ["digits.csv", "bytes.txt", "empty fields.csv"];

/// Multiples of its size that a block in work may take.
fn blocks_in_work(effort: &str) -> usize {
    match effort {
        "max" => 10,
        _ => 8,
    }
}

/// The shapes that took the most memory of a search over tables of tiny values, lines, JSON and bytes without structure.
fn shapes(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut filled = |part: &mut dyn FnMut(&mut fastrand::Rng, &mut Vec<u8>)| {
        let mut shape = Vec::with_capacity(bytes + 4096);
        while shape.len() < bytes {
            part(&mut random, &mut shape);
        }
        shape
    };
    let tiny: [&[u8]; 3] = [b"", b"1", b"x"];
    vec![
        ("empty fields.csv", filled(&mut |_, out| out.extend(b",\n"))),
        (
            "fields of one letter or none.csv",
            filled(&mut |random, out| {
                out.extend(tiny[random.usize(0..3)]);
                out.push(b',');
                out.extend(tiny[random.usize(0..3)]);
                out.push(b'\n');
            }),
        ),
        (
            "digits.csv",
            filled(&mut |random, out| {
                let row = format!("{},{}\n", random.u8(0..10), random.u8(0..100));
                out.extend(row.into_bytes());
            }),
        ),
        (
            "short lines.txt",
            filled(&mut |random, out| {
                out.extend(tiny[random.usize(0..3)]);
                out.push(b'\n');
            }),
        ),
        (
            "array of digits.json",
            filled(&mut |random, out| {
                out.push(if out.is_empty() { b'[' } else { b',' });
                out.push(random.u8(b'0'..=b'9'));
            }),
        ),
        (
            "empty objects.json",
            filled(&mut |_, out| out.extend(b"{}\n")),
        ),
        (
            "hexadecimal lines.txt",
            filled(&mut |random, out| out.extend(format!("{:08x}\n", random.u32(..)).into_bytes())),
        ),
        (
            "words.txt",
            filled(&mut |random, out| {
                (0..random.usize(2..9)).for_each(|_| out.push(random.u8(b'a'..=b'l')));
                out.push(b' ');
            }),
        ),
        (
            "bytes.txt",
            filled(&mut |random, out| out.push(random.u8(..))),
        ),
    ]
}

/// Packs a file and answers the peak of its resident memory in bytes.
fn peak_of_packing(folder: &Path, name: &str, effort: &str, version: &str) -> u64 {
    let mut child = Command::new(PROGRAM)
        .args([
            "pack",
            "--threads",
            "1",
            "--block-size",
            "4Mi",
            "--effort",
            effort,
            "--format-version",
            version,
        ])
        .args(["-f", "-o", "packed"])
        .arg(name)
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn()
        .expect("streampress starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("waited").is_none() {
        // The line is missing once the process has ended and was not waited for.
        let text = fs::read_to_string(&status).unwrap_or_default();
        peak = peak.max(peak_in(&text).unwrap_or(0));
        // Nothing tells when a process has taken more memory.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("ended").success(), "{name}");
    peak
}

/// Packs shapes one after another and compares the peak with what is documented.
fn pack_shapes(effort: &str, wanted: impl Fn(&str) -> bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let most = PROGRAM_BYTES + blocks_in_work(effort) * BLOCK_BYTES;
    for (name, bytes) in shapes(BLOCK_BYTES) {
        if wanted(name) {
            fs::write(folder.path().join(name), &bytes).expect("written");
            for version in ["1", "2"] {
                let peak = peak_of_packing(folder.path(), name, effort, version);
                let is_within = peak > 0 && peak <= most as u64;
                assert!(
                    is_within,
                    "{name} at {effort}, version {version}: {peak} bytes of {most}"
                );
            }
        }
    }
}

#[test]
fn packing_takes_no_more_memory_than_documented() {
    for effort in ["fast", "balanced"] {
        pack_shapes(effort, |_| true);
    }
}

#[test]
fn packing_at_effort_max_takes_no_more_memory_than_documented() {
    pack_shapes("max", |name| WORST_SHAPES.contains(&name));
}

/// A compressor and a decompressor, each in a control group with the memory that is documented for so many blocks at once,
/// restore the shapes. The kernel kills a process above the limit. What it can drop at any time, such as the program's
/// text, counts in the printed peaks and not in the limit.
fn restore_within_the_limit(
    effort: &str,
    version: u8,
    block_bytes: usize,
    threads: usize,
    wanted: impl Fn(&str) -> bool,
) {
    let block = block_bytes / MIB;
    let what = format!("{effort}-{version}-{block}-{threads}");
    let spec = format!(
        "  codec: {{effort: {effort}, blockSize: {block}Mi, formatVersion: {version}}}\n  report: {{enabled: false}}"
    );
    // Nothing of AWS is called.
    let sandbox = Sandbox::new(PROGRAM, "http://127.0.0.1:9", "memory", &spec);
    let blocks = WAITING_BLOCKS + threads * blocks_in_work(&effort.to_ascii_lowercase());
    let limit_bytes = ROLE_BYTES + blocks * block_bytes;
    let groups = ["compress", "decompress"]
        .map(|role| Cgroup::new(&format!("{what}-{role}"), limit_bytes as u64));
    let [compress, decompress] = [("compress", 0), ("decompress", 1)].map(|(role, group)| {
        let processes = groups[group].processes();
        let args = [role, "pipeline.yaml"];
        sandbox.start_within(&processes, &format!("{role}.log"), &args)
    });

    let began = Instant::now();
    let shapes = shapes(block_bytes * threads);
    for (name, bytes) in shapes.iter().filter(|(name, _)| wanted(name)) {
        sandbox.write(&sandbox.path(name), bytes);
        sandbox
            .run(&["submit", "-p", "pipeline.yaml", name])
            .success();
        let restored = sandbox.data("out").join(name);
        let mut peaks = [0, 0];
        while !restored.exists() {
            peaks = [&compress, &decompress].map(peak_memory);
            // Nothing tells when a process has taken more memory.
            std::thread::sleep(Duration::from_millis(100));
        }
        let is_same = fs::read(&restored).expect("readable") == *bytes;
        assert!(is_same, "{name} is restored byte for byte");
        println!(
            "FIGURE memory, {effort}, version {version}, {block} MiB blocks, {threads} at once, up to {name}: compressor {} MiB, decompressor {} MiB of {} MiB, {:.0} s",
            peaks[0] >> 20,
            peaks[1] >> 20,
            limit_bytes / MIB,
            began.elapsed().as_secs_f64()
        );
        fs::remove_file(&restored).expect("removed");
    }
    assert_eq!((compress.stop(), decompress.stop()), (Some(0), Some(0)));
}

/// At every effort, one block at once and two, in both versions of the format.
fn roles_restore_every_shape(block_bytes: usize) {
    for (threads, version) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        for effort in ["Fast", "Balanced"] {
            restore_within_the_limit(effort, version, block_bytes, threads, |_| true);
        }
        restore_within_the_limit("Max", version, block_bytes, threads, |name| {
            WORST_SHAPES.contains(&name)
        });
    }
}

#[test]
#[ignore = "minutes, root and an optimised build; tests/run --long runs it"]
fn roles_restore_every_shape_within_the_memory_that_is_documented() {
    roles_restore_every_shape(BLOCK_BYTES);
}

#[test]
#[ignore = "an hour, root and an optimised build; tests/run --long runs it"]
fn roles_restore_every_shape_of_large_blocks_within_the_memory_that_is_documented() {
    roles_restore_every_shape(64 * MIB);
}
