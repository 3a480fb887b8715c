//! Fuzzing as a test: inputs made from a corpus by mutation, tried for some seconds. It needs no special build, so it runs with
//! all other tests; what a fuzzer guided by coverage finds goes into the corpus.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// How many seconds of CPU time each target gets; 0 tries the corpus alone.
const SECONDS: &str = "STREAMPRESS_FUZZ_SECONDS";
/// Where the random numbers begin.
const SEED: &str = "STREAMPRESS_SEED";
/// Longer inputs are cut.
const MOST_BYTES: usize = 1 << 16;
/// So many inputs that had a new outcome are kept at most.
const MOST_KEPT: usize = 4096;
/// An input that takes longer is printed, since the test may be ended for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What stands in for a word or a number.
const WORDS: [&[u8]; 20] = [
    b"",
    b"0",
    b"-1",
    b"1.5",
    b"1e999",
    b"255",
    b"65536",
    b"4294967295",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"..",
    b"\\u0000",
    b"\xff",
    "\u{2028}".as_bytes(),
];

/// Tries every file of the folder `corpus` and then mutations of them. `check` panics where something is wrong, and answers what
/// became of the input in a few words: an input with a new outcome is mutated further.
///
/// # Panics
/// Where `check` does; the input is printed as bytes to paste.
pub fn fuzz(corpus: &Path, check: impl Fn(&[u8]) -> String) {
    let target = corpus.file_name().unwrap_or_default().to_string_lossy();
    let seed = setting(SEED).unwrap_or_else(|| fastrand::u64(..));
    println!("{target}: {SEED}={seed}");
    let watched = watch(&target);
    let attempt = |input: &[u8]| {
        note(&mut watched.lock(), input);
        catch_unwind(AssertUnwindSafe(|| check(input))).unwrap_or_else(|panic| {
            println!("{target} fails with b\"{}\"", input.escape_ascii());
            resume_unwind(panic)
        })
    };
    let mut kept: Vec<_> = read_corpus(corpus).into_values().collect();
    let mut outcomes: HashSet<String> = kept.iter().map(|input| attempt(input)).collect();
    let (mut random, mut tried) = (Rng::with_seed(seed), 0_u64);
    let end = cpu_time() + Duration::from_secs(setting(SECONDS).unwrap_or(5));
    while cpu_time() < end {
        let input = mutated(&mut random, &kept);
        let is_new = outcomes.insert(attempt(&input));
        if is_new && kept.len() < MOST_KEPT {
            kept.push(input);
        }
        tried += 1;
    }
    println!("{target}: {tried} inputs, {} outcomes", outcomes.len());
}

/// An error's text without what it quotes, as the outcome of an input.
pub fn kind_of_error(text: &str) -> String {
    let unquoted = text.split(['"', '`', '\'']).step_by(2);
    let letters = unquoted.flat_map(str::chars);
    let letters = letters.filter(|c| c.is_ascii_alphabetic() || *c == ' ');
    letters.take(100).collect()
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// Of this process, which nextest starts for each test: a busy machine tries as many inputs as a calm one.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).expect("below a second"),
    )
}

/// The input that is tried, and how many were before it.
type Tried = Arc<Mutex<(u64, Vec<u8>)>>;

/// Prints an input that is not done for long.
fn watch(target: &str) -> Tried {
    let tried = Tried::default();
    let (watched, target) = (Arc::downgrade(&tried), target.to_owned());
    std::thread::spawn(move || {
        let mut before = 0;
        loop {
            // Between two checks.
            std::thread::sleep(PATIENCE);
            let Some(tried) = watched.upgrade() else {
                return;
            };
            let (number, input) = &*tried.lock();
            if *number == before {
                println!("{target} is long at b\"{}\"", input.escape_ascii());
            }
            before = *number;
        }
    });
    tried
}

fn note((number, noted): &mut (u64, Vec<u8>), input: &[u8]) {
    *number += 1;
    noted.clear();
    noted.extend_from_slice(input);
}

/// The files of a folder, by name.
///
/// # Panics
/// If there is none.
pub fn read_corpus(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder of inputs");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("readable"));
    let inputs: BTreeMap<_, _> = paths.map(read).collect();
    assert!(!inputs.is_empty(), "{} has no input", folder.display());
    inputs
}

fn mutated(random: &mut Rng, kept: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.choice(kept).cloned().unwrap_or_default();
    for _ in 0..random.u8(1..=4) {
        let other = random.choice(kept).map_or(&[][..], Vec::as_slice);
        mutate(random, &mut input, other);
    }
    input.truncate(MOST_BYTES);
    input
}

/// Changes the input once; `other` is another one to take from.
fn mutate(random: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let at = random.usize(..=input.len());
    match random.u8(..8) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                let bytes = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', random.u8(..)];
                *byte = bytes[random.usize(..bytes.len())];
            }
        }
        2 => drop(input.drain(part(random, input))),
        3 => {
            let again = input[part(random, input)].to_vec();
            input.splice(at..at, again);
        }
        4 => drop(input.splice(at..at, other[part(random, other)].iter().copied())),
        5 => drop(input.splice(
            part(random, input),
            other[part(random, other)].iter().copied(),
        )),
        6 => {
            let word = random.choice(WORDS).unwrap_or_default();
            drop(input.splice(word_at(input, at), word.iter().copied()));
        }
        _ => {
            let word = word_at(other, random.usize(..=other.len()));
            drop(input.splice(word_at(input, at), other[word].iter().copied()));
        }
    }
}

/// A part, most often a short one.
fn part(random: &mut Rng, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = random.usize(..=bytes.len());
    let most = if random.bool() { 8 } else { bytes.len() };
    from..from + random.usize(..=most.min(bytes.len() - from))
}

/// The letters and digits around a place.
fn word_at(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let is_word = |byte: &&u8| byte.is_ascii_alphanumeric();
    let before = bytes[..at].iter().rev().take_while(is_word).count();
    let after = bytes[at..].iter().take_while(is_word).count();
    at - before..at + after
}
