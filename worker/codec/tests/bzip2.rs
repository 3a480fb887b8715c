//! The bzip2 coder against two other implementations: the `bzip2` crate and Python's `bz2`, which is
//! libbz2 (needs python3).

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    cell::RefCell,
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use proptest::{prelude::*, test_runner::TestRunner};
use streampress_codec::{
    Codec, FormatVersion,
    internals::{bz2, decode_stream},
};

fn by_the_crate(packed: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    bzip2::read::BzDecoder::new(packed)
        .read_to_end(&mut raw)
        .expect("the crate decodes");
    raw
}

fn packed_by_the_crate(raw: &[u8], level: u32) -> Vec<u8> {
    let mut packed = Vec::new();
    bzip2::read::BzEncoder::new(raw, bzip2::Compression::new(level))
        .read_to_end(&mut packed)
        .expect("the crate encodes");
    packed
}

fn check(raw: &[u8]) {
    let packed = bz2(raw).expect("packs").bytes;
    assert!(by_the_crate(&packed) == raw, "{} bytes", raw.len());
    let decode = |packed: &[u8]| decode_stream(Codec::Bz2, 0, packed, raw.len(), FormatVersion::V1);
    assert!(decode(&packed).as_deref() == Ok(raw), "{} bytes", raw.len());
    for level in [1, 9] {
        let theirs = packed_by_the_crate(raw, level);
        assert!(decode(&theirs).as_deref() == Ok(raw), "{} bytes", raw.len());
    }
}

/// Inputs with long runs, repeats, all byte values, several blocks, and no structure.
fn samples() -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut samples = vec![
        Vec::new(),
        b"a".to_vec(),
        b"ab".repeat(700),
        (0..=255).collect(),
        (0..250_000).map(|_| rng.u8(..)).collect(),
        (0..250_000).map(|_| rng.u8(b'a'..b'd')).collect(),
        (0..9000)
            .flat_map(|row| format!("{row},{}\n", row % 37).into_bytes())
            .collect(),
    ];
    for run in [3, 4, 5, 254, 255, 256, 259, 1000, 950_000] {
        samples.push(vec![7; run]);
        samples.push([vec![1; run], vec![2; 5], vec![1; run]].concat());
    }
    samples
}

#[test]
fn streams_of_each_implementation_are_decoded_by_the_other() {
    samples().iter().for_each(|raw| check(raw));
}

/// Python's `bz2`, with one process for any number of streams.
struct Libbz2 {
    process: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Libbz2 {
    /// Reads pairs of raw bytes and our stream, each after its length; answers with 1 and its own stream, or with 0 if ours is not
    /// of those bytes.
    const SCRIPT: &str = r#"
import bz2, struct, sys
given, out = sys.stdin.buffer, sys.stdout.buffer
def read():
    size = given.read(4)
    return given.read(struct.unpack(">I", size)[0]) if size else None
while (raw := read()) is not None:
    is_equal = bz2.decompress(read()) == raw
    theirs = bz2.compress(raw)
    out.write(struct.pack(">?I", is_equal, len(theirs)) + theirs)
    out.flush()
"#;

    fn start() -> Self {
        let mut process = Command::new("python3")
            .args(["-c", Self::SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed for this test");
        Self {
            input: process.stdin.take().expect("stdin"),
            output: process.stdout.take().expect("stdout"),
            process,
        }
    }

    /// Each decodes what the other made.
    fn check(&mut self, raw: &[u8]) {
        let packed = bz2(raw).expect("packs").bytes;
        for part in [raw, &packed] {
            let len = (part.len() as u32).to_be_bytes();
            self.input.write_all(&len).expect("python reads");
            self.input.write_all(part).expect("python reads");
        }
        let mut head = [0; 5];
        self.output.read_exact(&mut head).expect("python answers");
        let [is_equal, len @ ..] = head;
        assert_eq!(is_equal, 1, "{} bytes", raw.len());
        let mut theirs = vec![0; u32::from_be_bytes(len) as usize];
        self.output.read_exact(&mut theirs).expect("its stream");
        let back = decode_stream(Codec::Bz2, 0, &theirs, raw.len(), FormatVersion::V1);
        assert!(back.as_deref() == Ok(raw), "{} bytes", raw.len());
    }
}

impl Drop for Libbz2 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn libbz2_and_this_coder_decode_the_streams_of_each_other() {
    let mut libbz2 = Libbz2::start();
    samples().iter().for_each(|raw| libbz2.check(raw));
}

#[test]
fn libbz2_and_this_coder_decode_arbitrary_streams_of_each_other() {
    let libbz2 = RefCell::new(Libbz2::start());
    let runs = proptest::collection::vec((0u8..5, 1usize..600), 0..40).prop_map(|runs| {
        runs.into_iter()
            .flat_map(|(byte, len)| vec![byte; len])
            .collect()
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..3000);
    let letters = proptest::collection::vec(b'a'..=b'e', 0..20_000);
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let checked =
        TestRunner::new(config).run(&prop_oneof![runs, bytes, letters], |raw: Vec<u8>| {
            libbz2.borrow_mut().check(&raw);
            Ok(())
        });
    checked.expect("each decodes the other's");
}

#[test]
fn every_flipped_bit_of_a_stream_is_detected_or_harmless() {
    let raw: Vec<u8> = (0..400)
        .flat_map(|row| format!("{row},{}\n", row % 37).into_bytes())
        .collect();
    let packed = bz2(&raw).expect("packs").bytes;
    for bit in 0..packed.len() * 8 {
        let mut bad = packed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(restored) = decode_stream(Codec::Bz2, 0, &bad, raw.len(), FormatVersion::V1) {
            // A larger level, an unused code length or a padding bit changes no byte.
            assert!(restored == raw, "bit {bit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_round_trip(raw in proptest::collection::vec(any::<u8>(), 0..3000)) {
        check(&raw);
    }

    #[test]
    fn arbitrary_runs_round_trip(runs in proptest::collection::vec((0u8..4, 1usize..600), 0..40)) {
        let raw: Vec<u8> = runs.iter().flat_map(|&(byte, len)| vec![byte; len]).collect();
        check(&raw);
    }

    #[test]
    fn arbitrary_streams_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..400), level in 1u8..10) {
        let mut packed = vec![b'B', b'Z', b'h', b'0' + level];
        packed.extend(0x3141_5926_5359u64.to_be_bytes()[2..].iter());
        packed.extend(tail);
        let _ = decode_stream(Codec::Bz2, 0, &packed, 5000, FormatVersion::V1);
    }
}
