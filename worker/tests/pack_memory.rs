//! Packing takes no more memory than FORMAT.md says ("Memory of a packer"), whatever the file looks like.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const BLOCK_BYTES: usize = 4 << 20;
/// What the program takes besides its block, built as for tests: text, allocator, thread stacks, in bytes.
const PROGRAM_BYTES: usize = 32 << 20;

/// The shapes that took the most memory of a search over tables of tiny values, lines, JSON and bytes without structure.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut filled = |part: &mut dyn FnMut(&mut fastrand::Rng, &mut Vec<u8>)| {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES + 4096);
        while bytes.len() < BLOCK_BYTES {
            part(&mut random, &mut bytes);
        }
        bytes
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
fn peak_of_packing(folder: &Path, name: &str, effort: &str) -> usize {
    let mut child = Command::new(env!("CARGO_BIN_EXE_streampress"))
        .args([
            "pack",
            "--threads",
            "1",
            "--block-size",
            "4Mi",
            "--effort",
            effort,
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
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        // Nothing tells when a process has taken more memory.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("ended").success(), "{name}");
    peak
}

#[test]
fn packing_takes_no_more_memory_than_documented() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in shapes() {
        fs::write(folder.path().join(name), &bytes).expect("written");
        for (effort, blocks) in [("fast", 8), ("balanced", 8)] {
            let peak = peak_of_packing(folder.path(), name, effort);
            let most = PROGRAM_BYTES + blocks * BLOCK_BYTES;
            assert!(peak > 0, "{name}");
            assert!(peak <= most, "{name} at {effort}: {peak} bytes of {most}");
        }
    }
}

#[test]
fn packing_at_effort_max_takes_no_more_memory_than_documented() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in shapes() {
        // The others take as long as all of the test above.
        if !matches!(name, "digits.csv" | "bytes.txt" | "empty fields.csv") {
            continue;
        }
        fs::write(folder.path().join(name), &bytes).expect("written");
        let peak = peak_of_packing(folder.path(), name, "max");
        let most = PROGRAM_BYTES + 10 * BLOCK_BYTES;
        assert!(peak > 0 && peak <= most, "{name}: {peak} bytes of {most}");
    }
}
