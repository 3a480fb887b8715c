//! Packed bytes, valid and changed, go to our unpacker and to the decoder in Python, which was written from FORMAT.md alone
//! (`worker/codec/python-reference`). Both give the same bytes, or both refuse. Where they differ, FORMAT.md says which is right.
//!
//! The inputs of `corpus/blocks` and `corpus/streams` are made by `tests/parts.py` beside that decoder.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastrand::Rng;
use streampress_codec::hybrid::{CodecOptions, Effort, Limits, Packer, unpack};
use streampress_codec::internals::{decode_stream, decode_table, put_varint};
use streampress_codec::{Codec, FormatVersion, Transform};
use streampress_transport::contract_tests::{kind_of_error, read_corpus};

use super::checks::stored_payload;
use super::{below_root, corpus};

/// The largest block that both take, as `tests/answer.py` has it.
const LARGEST_BLOCK: usize = 1 << 20;
/// So many inputs with a new outcome are kept at most.
const MOST_KEPT: usize = 4096;
/// Longer parts of an input are cut: the decoder in Python is slow.
const MOST_BYTES: usize = 1 << 14;
/// Between the parts of an input in the corpus.
const SEPARATOR: &[u8] = b"\xff\xfe\xff\xfe";
/// Shared groups of version 2.
const GROUPS: usize = 7;

/// What an unpacker makes of packed bytes: the raw ones, or why there are none.
type Unpacked = Result<Vec<u8>, String>;
/// Parts that are changed each on its own. The first one says what the others are.
type Input = Vec<Vec<u8>>;
/// How an unpacker of ours and the one in Python differ.
type Difference = String;

/// The decoder in Python: one process for all inputs.
struct PythonDecoder {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
    /// What it took so far.
    cpu_time: Duration,
}

/// A request but for the packed bytes.
#[derive(Clone, Copy)]
struct Request {
    kind: u8,
    version: FormatVersion,
    /// The number of the transform or the codec.
    what: u8,
    parameter: u8,
    raw_len: usize,
}

const WHOLE_FILE: Request = Request {
    kind: b'f',
    version: FormatVersion::V1,
    what: 0,
    parameter: 0,
    raw_len: 0,
};

impl PythonDecoder {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-m", "tests.answer"])
            .current_dir(below_root("worker/codec/python-reference"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        Self {
            requests: child.stdin.take().expect("piped"),
            answers: child.stdout.take().expect("piped"),
            child,
            cpu_time: Duration::ZERO,
        }
    }

    /// An error where it fails in another way than by refusing the bytes.
    fn request(&mut self, request: Request, packed: &[u8]) -> Result<Unpacked, Difference> {
        let number = |length: usize| u32::try_from(length).expect("small").to_le_bytes();
        let version = match request.version {
            FormatVersion::V1 => 1,
            FormatVersion::V2 => 2,
        };
        let mut bytes = vec![request.kind, version, request.what, request.parameter];
        bytes.extend(number(request.raw_len));
        bytes.extend(number(packed.len()));
        bytes.extend(packed);
        self.requests.write_all(&bytes).expect("it reads on");
        let (mut outcome, mut length, mut nanos) = ([0; 1], [0; 4], [0; 8]);
        self.answers.read_exact(&mut outcome).expect("it answers");
        self.answers.read_exact(&mut length).expect("it answers");
        self.answers.read_exact(&mut nanos).expect("it answers");
        self.cpu_time = Duration::from_nanos(u64::from_le_bytes(nanos));
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.answers.read_exact(&mut content).expect("it answers");
        let text = || String::from_utf8_lossy(&content).into_owned();
        match outcome {
            [0] => Ok(Err(text())),
            [1] => Ok(Ok(content)),
            _ => Err(format!("Python fails: {}", text())),
        }
    }
}

impl Drop for PythonDecoder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of the bytes in a few words, where both agree.
fn compare(ours: &Unpacked, theirs: &Unpacked) -> Result<String, Difference> {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => {
            // The length stands for what was read.
            Ok(format!("{} bytes", ours.len() / 16))
        }
        (Err(ours), Err(theirs)) => {
            let kinds = [ours, theirs].map(|error| kind_of_error(error));
            Ok(kinds.join("; "))
        }
        (ours, theirs) => {
            let at = match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    ours.iter().zip(theirs).take_while(|(a, b)| a == b).count()
                }
                _ => 0,
            };
            let shown = |outcome: &Unpacked| match outcome {
                Ok(bytes) => {
                    let from = at.saturating_sub(40);
                    let some = &bytes[from..bytes.len().min(from + 120)];
                    format!(
                        "{} bytes, from {from}: \"{}\"",
                        bytes.len(),
                        some.escape_ascii()
                    )
                }
                Err(error) => format!("refused: {error}"),
            };
            Err(format!("ours {}\nPython's {}", shown(ours), shown(theirs)))
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// Tries the inputs and changes of them, until the decoder in Python has used its seconds. An input with a new outcome is changed
/// further.
///
/// # Panics
/// At its end, with an input for each kind of difference.
fn fuzz_beside_python(
    target: &str,
    mut kept: Vec<Input>,
    check: impl Fn(&mut PythonDecoder, &mut Rng, &Input) -> Result<String, Difference>,
) {
    assert!(!kept.is_empty(), "{target} has no input");
    let seed = setting("STREAMPRESS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{target}: STREAMPRESS_SEED={seed}");
    let end = Duration::from_secs(setting("STREAMPRESS_FUZZ_SECONDS").unwrap_or(5));
    let (mut random, mut python) = (Rng::with_seed(seed), PythonDecoder::start());
    let (mut outcomes, mut differences) = (HashSet::new(), BTreeMap::new());
    let (mut tried, unchanged) = (0, kept.len());
    while tried < unchanged || python.cpu_time < end {
        let input = match tried < unchanged {
            true => kept[tried].clone(),
            false => changed(&mut random, &kept),
        };
        match check(&mut python, &mut random, &input) {
            Ok(outcome) => {
                let is_new = outcomes.insert(outcome) && tried >= unchanged;
                if is_new && kept.len() < MOST_KEPT {
                    kept.push(input);
                }
            }
            Err(difference) => {
                let kind = kind_of_error(&difference);
                let known: &mut (Difference, Input) = differences
                    .entry(kind)
                    .or_insert((difference.clone(), input.clone()));
                if input.concat().len() < known.1.concat().len() {
                    *known = (difference, input);
                }
            }
        }
        tried += 1;
    }
    println!("{target}: {tried} inputs, {} outcomes", outcomes.len());
    for (difference, input) in differences.values() {
        let parts = input
            .iter()
            .map(|part| format!("b\"{}\"", part.escape_ascii()));
        println!(
            "{difference}\n  of {}",
            parts.collect::<Vec<_>>().join(", ")
        );
    }
    assert!(differences.is_empty(), "{} differences", differences.len());
}

/// One of the inputs with a few changes, most often of the second part.
fn changed(random: &mut Rng, kept: &[Input]) -> Input {
    let mut input = random.choice(kept).cloned().unwrap_or_default();
    for _ in 0..random.u8(1..=4) {
        let other = random.choice(kept).map_or(&[][..], Vec::as_slice);
        let number = match random.u8(..10) {
            0 => 0,
            1..6 => 1,
            _ => random.usize(1..input.len()),
        };
        let other = other.get(number).map_or(&[][..], Vec::as_slice);
        change(random, &mut input[number], other);
        // What the first part says stays as long.
        let most = if number == 0 { 8 } else { MOST_BYTES };
        input[number].truncate(most);
    }
    input
}

/// Changes some bytes; `other` is taken from.
fn change(random: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.usize(..=bytes.len());
    let from = random.usize(..=other.len());
    let most = if random.bool() { 4 } else { other.len() };
    let part = &other[from..from + random.usize(..=most.min(other.len() - from))];
    let end = at + random.usize(..=4.min(bytes.len() - at));
    match random.u8(..8) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                let most = if random.bool() { 17 } else { 255 };
                *byte = random.u8(..most);
            }
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(if random.bool() { 1 } else { 255 });
            }
        }
        4 => drop(bytes.drain(at..end)),
        5 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        6 => drop(bytes.splice(at..end, part.iter().copied())),
        _ => drop(bytes.splice(at..at, part.iter().copied())),
    }
}

/// The inputs of a folder of the corpus.
fn inputs(target: &str) -> Vec<Input> {
    let files = read_corpus(&corpus(target)).into_values();
    files.map(|file| parts(&file)).collect()
}

fn parts(mut file: &[u8]) -> Input {
    let mut parts = Vec::new();
    while let Some(end) = file.windows(SEPARATOR.len()).position(|it| it == SEPARATOR) {
        parts.push(file[..end].to_vec());
        file = &file[end + SEPARATOR.len()..];
    }
    parts.push(file.to_vec());
    parts
}

/// The version, the number of transform or codec, the raw length, and a codec's parameter.
fn read_head(head: &[u8], kind: u8) -> Request {
    let byte = |at: usize| head.get(at).copied().unwrap_or_default();
    Request {
        kind,
        version: match byte(0) % 2 {
            1 => FormatVersion::V1,
            _ => FormatVersion::V2,
        },
        what: byte(1),
        raw_len: u32::from_le_bytes([byte(2), byte(3), byte(4), 0]) as usize,
        parameter: byte(5),
    }
}

/// The payload of a block: plan and streams as they are, none of them packed.
fn payload(version: FormatVersion, plan: &[u8], streams: &[Vec<u8>]) -> Vec<u8> {
    if version == FormatVersion::V1 {
        return stored_payload(plan, streams);
    }
    let groups = &streams[..streams.len().min(GROUPS)];
    let used = groups
        .iter()
        .enumerate()
        .filter(|(_, group)| !group.is_empty());
    let mut directory = vec![used.clone().map(|(number, _)| 1 << number).sum()];
    for (_, group) in used {
        directory.push(0);
        put_varint(&mut directory, group.len() as u64);
    }
    directory.push(0);
    directory.extend(plan);
    let mut payload = vec![0];
    put_varint(&mut payload, directory.len() as u64);
    payload.extend(directory);
    payload.extend(streams.concat());
    payload
}

fn decode_block(request: Request, transform: Transform, payload: &[u8]) -> Unpacked {
    match decode_table(transform, request.version, payload, request.raw_len) {
        Ok(raw) => Ok(raw),
        Err(damage) => Err(damage.to_string()),
    }
}

#[test]
fn any_block_is_decoded_as_in_python_or_refused_by_both() {
    fuzz_beside_python("blocks", inputs("blocks"), |python, _, input| {
        let [head, plan, streams @ ..] = &input[..] else {
            return Ok("no block".into());
        };
        let mut request = read_head(head, b'b');
        request.what = 1 + request.what % 3;
        let transform = Transform::from_byte(request.what).expect("one of three");
        let payload = payload(request.version, plan, streams);
        // A change seldom keeps the length: the one that comes out is then requested.
        let longer = Request {
            raw_len: 2 * request.raw_len,
            ..request
        };
        if let Ok(raw) = decode_block(longer, transform, &payload) {
            request.raw_len = raw.len();
        }
        let ours = |request: Request| match decode_block(request, transform, &payload) {
            Ok(raw) if raw.len() != request.raw_len => Err("another length".into()),
            outcome => outcome,
        };
        let theirs = python.request(request, &payload)?;
        if is_stricter(request.version, &theirs) {
            return Ok("stricter".into());
        }
        let said = theirs.as_ref().err().and_then(|error| made(error));
        match said.filter(|&length| length > 0 && length < LARGEST_BLOCK) {
            None => compare(&ours(request), &theirs),
            Some(length) => {
                let other = Request {
                    raw_len: length,
                    ..request
                };
                let theirs = python.request(other, &payload)?;
                match ours(request) {
                    Ok(ours) => compare(&Ok(ours), &theirs),
                    Err(_) => compare(&ours(other), &theirs),
                }
            }
        }
    });
}

/// Whether the decoder in Python refuses what ours may take. It keeps less in memory. It refuses times outside of the years of
/// FORMAT.md, and reads all of a stream, as FORMAT.md demands: in version 1, ours does not look behind the decimals of numbers.
fn is_stricter(version: FormatVersion, theirs: &Unpacked) -> bool {
    theirs.as_ref().err().is_some_and(|error| {
        let is_left_over = error.starts_with("stream ") && error.ends_with("are left over");
        let is_large = error.ends_with("the columns hold far more than the block");
        let is_outside = error.ends_with("a time is not in the years 0 to 9999");
        is_large || is_outside || is_left_over && version == FormatVersion::V1
    })
}

/// How many bytes the decoder in Python made where others were requested.
fn made(error: &str) -> Option<usize> {
    let (_, made) = error.split_once("the columns make ")?;
    made.split_once(' ')?.0.parse().ok()
}

#[test]
fn any_stream_of_a_codec_is_decoded_as_in_python_or_refused_by_both() {
    fuzz_beside_python("streams", inputs("streams"), |python, _, input| {
        let [head, packed, ..] = &input[..] else {
            return Ok("no stream".into());
        };
        let mut request = read_head(head, b's');
        let codecs = [Codec::Stored, Codec::Lzma, Codec::Bz2, Codec::Fill];
        let codec = codecs[usize::from(request.what) % codecs.len()];
        request.what = codec as u8;
        request.raw_len = request.raw_len.min(LARGEST_BLOCK);
        let (length, version) = (request.raw_len, request.version);
        let ours = decode_stream(codec, request.parameter, packed, length, version);
        let ours = ours.map_err(|damage| damage.to_string());
        compare(&ours, &python.request(request, packed)?)
    });
}

fn unpack_file(packed: &[u8]) -> Unpacked {
    let limits = Limits {
        block_bytes: LARGEST_BLOCK,
        ..Limits::default()
    };
    let mut raw = Vec::new();
    match unpack(packed, &mut raw, &limits, 1, &AtomicBool::new(false)) {
        Ok(_) => Ok(raw),
        Err(error) => Err(error.to_string()),
    }
}

/// The corpus has raw files. They are packed in either version at any effort, and the packed files are changed.
#[test]
fn any_packed_file_is_unpacked_as_in_python_or_refused_by_both() {
    let folders = [
        "round_trip",
        "transform_json",
        "transform_csv",
        "transform_text",
    ];
    let files = folders.map(|target| {
        let folder = below_root("worker/codec/testdata/fuzz").join(target);
        read_corpus(&folder).into_values()
    });
    // The first part has no meaning.
    let files = files.into_iter().flatten();
    let files = files.map(|file| vec![Vec::new(), file]).collect();
    fuzz_beside_python("files", files, |python, random, input| {
        let raw = &input[1];
        let options = CodecOptions {
            effort: Effort::ALL[random.usize(..3)],
            block_size: 4096,
            threads: 1,
        };
        let version = [FormatVersion::V1, FormatVersion::V2][random.usize(..2)];
        let packer = Packer::new(options).with_version(version);
        let mut packed = Vec::new();
        let sink = |frame: &[u8]| {
            packed.extend_from_slice(frame);
            Ok(())
        };
        let never = AtomicBool::new(false);
        packer.pack(&raw[..], sink, &never).expect("packs");
        let theirs = python.request(WHOLE_FILE, &packed)?;
        let outcome = compare(&Ok(raw.clone()), &theirs)?;
        for _ in 0..4 {
            let mut other = packed.clone();
            change(random, &mut other, &packed);
            if random.bool() {
                mend_checks(&mut other);
            }
            compare(&unpack_file(&other), &python.request(WHOLE_FILE, &other)?).map_err(
                |difference| format!("{difference}\n  of b\"{}\"", other.escape_ascii()),
            )?;
        }
        Ok(outcome)
    });
}

/// Makes the checks of headers right after a change, as far as the headers can be found: what they say is then read.
fn mend_checks(packed: &mut [u8]) {
    let version = packed.get(4).copied();
    if version == Some(1) && packed.len() >= 16 {
        mend_check(packed, 0, 12, 4);
        let mut at = 16;
        while packed.len() >= at + 40 && packed[at..at + 4] == *b"SPKB" {
            mend_check(packed, at, at + 36, 4);
            let length = packed[at + 16..at + 20].try_into().map(u32::from_le_bytes);
            at = (at + 40).saturating_add(length.map_or(0, |length| length as usize));
        }
        if packed.len() >= at + 12 {
            mend_check(packed, at, packed.len() - 12, 4);
        }
    }
    if version == Some(2) {
        let mut at = 5;
        while let Some((end, length)) = compact_header(packed, at) {
            if end + 3 > packed.len() {
                return;
            }
            mend_check(packed, at, end, 3);
            at = (end + 3).saturating_add(length);
        }
        if packed.get(at) == Some(&64) && packed.len() >= at + 5 {
            mend_check(packed, at, packed.len() - 5, 4);
        }
    }
}

fn mend_check(packed: &mut [u8], from: usize, to: usize, bytes: usize) {
    let hash = blake3::hash(&packed[from..to]);
    packed[to..to + bytes].copy_from_slice(&hash.as_bytes()[..bytes]);
}

/// Where the header of a block of version 2 ends before its check, and the length of the payload.
fn compact_header(packed: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *packed.get(at)?;
    if first < 128 {
        return None;
    }
    let codec = first >> 1 & 7;
    let mut place = at + 1 + usize::from(codec == 1 || codec == 4);
    let mut varint = || {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = *packed.get(place)?;
            number |= usize::from(byte & 127).checked_shl(shift)?;
            (place, shift) = (place + 1, shift + 7);
            if byte < 128 {
                return Some(number);
            }
        }
    };
    let raw_len = varint()?;
    let length = match codec {
        0 => raw_len,
        4 => 0,
        _ => varint()?,
    };
    let hash = if first & 64 == 0 { 8 } else { 16 };
    Some((place + hash, length))
}
