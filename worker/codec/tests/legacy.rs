//! The legacy format against bytes of the Python original, and against Python's `json`, `csv`, `lzma`
//! and `bz2` (needs python3).

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use streampress_codec::legacy::{
    self, DEFAULT_CHUNK_BYTES, LegacyFormat, PackedRecords, StageCount,
};

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/legacy")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases() -> Vec<Value> {
    let manifest: Value = serde_json::from_slice(&golden("manifest.json")).expect("manifest");
    manifest["cases"].as_array().expect("cases").clone()
}

fn normalised(case: &Value) -> Vec<u8> {
    let input = case["input"].as_str().expect("input");
    let format = LegacyFormat::of_name(input).expect("format");
    legacy::normalise(format, &golden(input)).expect("normalises")
}

fn python(script: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for this test");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(input)
        .expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "python failed");
    output.stdout
}

fn sha256(bytes: &[u8]) -> String {
    let script =
        "import hashlib,sys;sys.stdout.write(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())";
    String::from_utf8(python(script, bytes)).expect("hex")
}

#[test]
fn inputs_are_normalised_as_by_the_original() {
    let cases = cases();
    assert!(cases.len() >= 6);
    for case in cases {
        assert_eq!(
            sha256(&normalised(&case)),
            case["normalised_sha256"],
            "{}",
            case["input"]
        );
    }
}

#[test]
fn the_originals_records_restore_to_the_normalised_input() {
    for case in cases() {
        let records: Vec<_> = case["records"]
            .as_array()
            .expect("records")
            .iter()
            .collect();
        let stages = if case["codecs_in_compress_order"]
            .as_array()
            .expect("codecs")
            .len()
            == 2
        {
            StageCount::Two
        } else {
            StageCount::One
        };
        let packed = PackedRecords {
            stages,
            records: records
                .iter()
                .map(|record| golden(record["file"].as_str().expect("file")))
                .collect(),
        };
        let raw = normalised(&case);
        assert!(
            legacy::unpack(&packed, raw.len()).as_deref() == Ok(&raw[..]),
            "{}",
            case["input"]
        );
    }
}

#[test]
fn records_and_stages_are_those_of_the_original() {
    for case in cases() {
        let packed = legacy::pack(&normalised(&case), DEFAULT_CHUNK_BYTES).expect("packs");
        let stages = if packed.stages == StageCount::Two {
            2
        } else {
            1
        };
        assert_eq!(
            case["codecs_in_compress_order"]
                .as_array()
                .expect("codecs")
                .len(),
            stages
        );
        let theirs: Vec<_> = case["records"]
            .as_array()
            .expect("records")
            .iter()
            .collect();
        assert_eq!(packed.records.len(), theirs.len(), "{}", case["input"]);
        for (ours, theirs) in packed.records.iter().zip(theirs) {
            let head = |bytes: &[u8]| bytes[..4].to_vec();
            assert_eq!(
                head(ours),
                head(&golden(theirs["file"].as_str().expect("file")))
            );
        }
    }
}

#[test]
fn python_decodes_packed_records() {
    let script = r#"
import base64, bz2, lzma, struct, sys
data, parts = sys.stdin.buffer.read(), []
while data:
    n = struct.unpack(">I", data[:4])[0]
    parts.append(data[4:4 + n]); data = data[4 + n:]
if parts[0] == b"2":
    joined = b"".join(bz2.decompress(p) for p in parts[1:])
    out = b"".join(lzma.decompress(base64.b64decode(p)) for p in joined.split(b"|"))
else:
    out = b"".join(lzma.decompress(p) for p in parts[1:])
sys.stdout.buffer.write(out)
"#;
    for case in cases() {
        let raw = normalised(&case);
        let packed = legacy::pack(&raw, DEFAULT_CHUNK_BYTES).expect("packs");
        let stages: &[u8] = if packed.stages == StageCount::Two {
            b"2"
        } else {
            b"1"
        };
        let mut framed = Vec::new();
        for part in std::iter::once(stages).chain(packed.records.iter().map(Vec::as_slice)) {
            framed.extend((part.len() as u32).to_be_bytes());
            framed.extend(part);
        }
        assert!(python(script, &framed) == raw, "{}", case["input"]);
    }
}

/// Unusual JSON, one document in each line.
const ODD_JSON: &str = r#"[1.0,1e5,1E+2,123456789.123456789,1e22,1e23,0.1,1e-7,5e-324,1.7976931348623157e308,1e309,-1e309]
[0.1e1,100000000000000000.0,9007199254740993.0,1e15,1e16,123456789012345680.0,0.00001,0.0001,-0.0,-0,0e0]
{"a":1,"b":{"c":[],"d":{}},"a":[null,true,false]}
{"\u0061":1,"a":2,"é":"\u00e9","\ud83d\ude00":"😀"}
"\ud800 \udc00 \ud83d\ude00 \u0000 \u007f \b\f\n\r\t\/\\\""
[NaN,Infinity,-Infinity,12345678901234567890123456789012345678901234567890]
 [ 1 , { "k" : "v" } ] 
"#;

#[test]
fn unusual_json_is_dumped_as_by_python() {
    let script = r#"
import json, sys
for line in sys.stdin.buffer.read().decode().split("\n"):
    if line: sys.stdout.write(json.dumps(json.loads(line), separators=(",", ":")) + "\n")
"#;
    let theirs = String::from_utf8(python(script, ODD_JSON.as_bytes())).expect("ASCII");
    let ours: String = ODD_JSON
        .lines()
        .map(|line| legacy::json::redump(line).expect("parses") + "\n")
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn random_floats_are_dumped_as_by_python() {
    let mut rng = fastrand::Rng::with_seed(7);
    let numbers: Vec<String> = std::iter::repeat_with(|| (f64::from_bits(rng.u64(..)), rng.bool()))
        .take(20_000)
        .filter(|(number, _)| number.is_finite())
        .map(|(number, short)| {
            if short {
                format!("{:.3}", number % 1e6)
            } else {
                format!("{number:e}")
            }
        })
        .collect();
    let json = format!("[{}]", numbers.join(","));
    let script =
        "import json,sys;sys.stdout.write(json.dumps(json.load(sys.stdin),separators=(',',':')))";
    let theirs = String::from_utf8(python(script, json.as_bytes())).expect("ASCII");
    let ours = legacy::json::redump(&json).expect("parses");
    assert_eq!(ours.split(',').count(), theirs.split(',').count());
    for ((ours, theirs), text) in ours.split(',').zip(theirs.split(',')).zip(&numbers) {
        assert_eq!(ours, theirs, "{text}");
    }
}

#[test]
fn unusual_csv_and_text_are_read_as_by_python() {
    let script = r#"
import csv, io, sys
data = sys.stdin.buffer.read()
rows = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
sys.stdout.buffer.write("\n".join(",".join(r) for r in rows).encode())
"#;
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..20 {
        let letters = ['a', 'b', ',', '"', '\n', '\r', ' ', 'é'];
        let csv: String = (0..rng.usize(..60))
            .map(|_| letters[rng.usize(..letters.len())])
            .collect();
        let ours = legacy::normalise(LegacyFormat::Csv, csv.as_bytes()).expect("normalises");
        assert_eq!(ours, python(script, csv.as_bytes()), "{csv:?}");
    }
    let script = "import sys;sys.stdout.buffer.write(' '.join(sys.stdin.buffer.read().decode().split()).encode())";
    let text: String = (0..0x3100)
        .filter_map(char::from_u32)
        .flat_map(|letter| [letter, 'x'])
        .collect();
    assert!(
        legacy::normalise(LegacyFormat::Txt, text.as_bytes()).expect("normalises")
            == python(script, text.as_bytes())
    );
}
