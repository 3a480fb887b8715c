//! The column transforms: any text round-trips, golden files stay readable, and each kind of table gets
//! its transform and is smaller than without.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{path::PathBuf, sync::atomic::AtomicBool};

use proptest::prelude::*;
use streampress_codec::{
    FormatVersion, Transform,
    hybrid::{self, CodecOptions, Effort, Limits},
    internals::{bz2, decode_table, encode_block, encode_table, inspect_table},
};

fn check(raw: &[u8]) {
    for effort in Effort::ALL {
        for transform in Transform::ALL {
            for version in [FormatVersion::V1, FormatVersion::V2] {
                let Some(encoded) = encode_table(transform, raw, effort, version) else {
                    continue;
                };
                let back = decode_table(transform, version, &encoded.payload, raw.len());
                assert_eq!(back.as_deref(), Ok(raw), "{transform:?} {effort:?}");
                let streams = inspect_table(transform, version, &encoded.payload, raw.len())
                    .expect("inspects");
                let sum: u64 = streams.iter().map(|stream| stream.packed_bytes).sum();
                assert_eq!(sum, encoded.payload.len() as u64);
            }
        }
    }
}

fn table(rows: usize, row: impl FnMut(usize) -> String) -> Vec<u8> {
    (0..rows).map(row).collect::<String>().into_bytes()
}

fn json_rows() -> Vec<u8> {
    table(400, |n| {
        let note = if n % 5 == 0 {
            "null".into()
        } else {
            format!("\"note {}\"", n % 7)
        };
        format!(
            "{{\"id\":{n},\"at\":\"2024-03-{:02}T10:00:00Z\",\"price\":{}.{},\"note\":{note},\"at2\":[{n},{}]}}\n",
            n % 28 + 1,
            n * 7 % 90,
            n % 10,
            n * 2
        )
    })
}

fn csv_rows() -> Vec<u8> {
    let mut csv = b"id,city,when,amount,hash\r\n".to_vec();
    csv.extend(table(400, |n| {
        format!(
            "{n:05},\"City {}, X\",{:02}/{:02}/2020,{}.{:02},{:016x}\r\n",
            n % 9,
            n % 12 + 1,
            n % 28 + 1,
            n * 3 % 50,
            n % 100,
            (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
    }));
    csv
}

fn log_lines() -> Vec<u8> {
    table(400, |n| {
        let minute = n / 60;
        format!(
            "2024-05-01 10:{minute:02}:{:02}.{:03} INFO [worker-{}] sent block_{} to 10.0.{}.{}:80 in {}ms\n",
            n % 60,
            n * 37 % 1000,
            n % 4,
            n * 7919,
            n % 3,
            n % 250,
            n * 13 % 97
        )
    })
}

#[test]
fn each_kind_of_table_gets_its_transform_and_is_smaller_than_without() {
    let cases = [
        (json_rows(), Transform::Json),
        (csv_rows(), Transform::Csv),
        (log_lines(), Transform::Text),
    ];
    for (raw, expected) in cases {
        check(&raw);
        for effort in Effort::ALL {
            let packed = encode_block(&raw, effort);
            assert_eq!(
                packed.coding.transform, expected,
                "{effort:?}: {:?}",
                packed.tried
            );
            let plain = bz2(&raw).expect("packs").bytes.len();
            assert!(
                packed.payload.len() * 4 < plain * 3,
                "{expected:?} {effort:?}: {} of {plain}",
                packed.payload.len()
            );
        }
    }
}

#[test]
fn odd_tables_round_trip() {
    for text in [
        "{\"a\" : [ ] , \"b\":{ } }\n\n\n[1,2,\n3]x{\"a\":1}{\"a\":2,}\n[[[[]]]] \"q\" -1.5e+9",
        "[{\"a\":1,\"a\":2,\"\\u0061\":3},{\"b\":tru},{\"b\":NaN} ,\t{}]",
        "{\"open\": [ {\"a\":1},{\"a\":2},{\"a\":3}, {\"a\":",
        "a,b\n1\n2,3,4\n\"x\n\"\"y\",\"\n5,6",
        "a;b;c\r\n1;2;3\r\n4;5\r\n\r\n;;;\r\n",
        "a\tb\n\"1\t2\"\t3\n4\t5\n6\t7\n",
        "one 1\ntwo 2\n\nthree -3\r\nfour 4.5\n 00 00:00:00 x",
        "\n\n\n\n\n\n",
        ",,,\n,,,\n,,,\n,,,\n",
    ] {
        check(text.as_bytes());
        check(text.repeat(40).as_bytes());
    }
}

#[test]
fn a_map_with_many_keys_is_one_path() {
    let raw = format!(
        "{{{}}}",
        (0..500)
            .map(|n| format!("\"k{}\": {{\"v\": {n}}}", n * 31))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let encoded = encode_table(
        Transform::Json,
        raw.as_bytes(),
        Effort::Balanced,
        FormatVersion::V1,
    )
    .expect("fits");
    assert!(encoded.streams.len() < 12, "{:?}", encoded.streams);
    check(raw.as_bytes());
}

/// Rows of a model, its maker, a place, numbers of single precision, and doubles with the noise of a subtraction.
fn measured_rows() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(9);
    let mut csv = b"model,maker,place,price,longitude\n".to_vec();
    csv.extend(table(3000, |_| {
        let maker = random.u32(0..12);
        let model = maker * 20 + random.u32(0..20).min(random.u32(0..20));
        let place = model * 7 % 31 + random.u32(0..2);
        let price = random.u32(4000..9000) as f32 / 100.0;
        let longitude = f64::from(random.u32(0..90_000)) / 1000.0 + 300.0 - 400.0;
        format!("Model {model},Maker {maker},Place {place},{price:.6},{longitude}\n")
    }));
    csv
}

#[test]
fn version_2_is_smaller_where_columns_depend_on_each_other() {
    let raw = measured_rows();
    check(&raw);
    for effort in Effort::ALL {
        let [old, new] = [FormatVersion::V1, FormatVersion::V2].map(|version| {
            let encoded = encode_table(Transform::Csv, &raw, effort, version);
            encoded.expect("fits").payload.len()
        });
        assert!(new * 50 < old * 49, "{effort:?} {old} {new}");
    }
}

#[test]
fn golden_files_stay_readable() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/hybrid");
    for (name, transform) in [
        ("rows.ndjson", 1),
        ("rows.csv", 2),
        ("lines.log", 3),
        ("words.txt", 0),
    ] {
        let raw = std::fs::read(folder.join(name)).expect("raw file");
        let packed = std::fs::read(folder.join(format!("{name}.spk"))).expect("packed file");
        assert_eq!(packed[16 + 5], transform, "{name}");
        let mut back = Vec::new();
        hybrid::unpack(
            &packed[..],
            &mut back,
            &Limits::default(),
            1,
            &AtomicBool::new(false),
        )
        .expect("unpacks");
        assert!(back == raw, "{name}");
    }
}

#[test]
fn golden_files_of_version_2_stay_readable() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/hybrid");
    for name in [
        "rows.ndjson",
        "rows.csv",
        "lines.log",
        "words.txt",
        "blocks.csv",
        "few.json",
        "few.csv",
        "measured.csv",
        "ratios.csv",
    ] {
        let raw = std::fs::read(folder.join(name)).expect("raw file");
        let packed = std::fs::read(folder.join(format!("{name}.v2.spk"))).expect("packed file");
        assert_eq!(packed[4], 2, "{name}");
        let (mut back, cancel) = (Vec::new(), AtomicBool::new(false));
        let summary = hybrid::unpack(&packed[..], &mut back, &Limits::default(), 1, &cancel)
            .expect("unpacks");
        assert!(back == raw, "{name}");
        assert_eq!(summary.blocks > 1, name == "blocks.csv");
    }
}

#[test]
fn a_table_over_several_blocks_round_trips() {
    let raw = json_rows().repeat(4);
    let options = CodecOptions {
        effort: Effort::Balanced,
        block_size: 16 << 10,
        threads: 2,
    };
    let mut packed = Vec::new();
    let cancel = AtomicBool::new(false);
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    let summary = hybrid::pack(&raw[..], sink, &options, &cancel).expect("packs");
    assert!(
        summary.blocks > 5
            && summary
                .shares
                .keys()
                .any(|(transform, _)| *transform == Transform::Json)
    );
    let mut back = Vec::new();
    hybrid::unpack(&packed[..], &mut back, &Limits::default(), 2, &cancel).expect("unpacks");
    assert!(back == raw);
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("true".to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n}")),
        "[-+.eE0-9]{1,6}",
        "[a-z0-9 é\\\\n]{0,8}".prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\"))),
    ];
    leaf.prop_recursive(4, 60, 6, |inner| {
        let space = prop_oneof![Just(""), Just(" "), Just("\n  ")];
        prop_oneof![
            (
                proptest::collection::vec(inner.clone(), 0..6),
                space.clone()
            )
                .prop_map(|(items, space)| format!(
                    "[{space}{}{space}]",
                    items.join(&format!(",{space}"))
                )),
            (
                proptest::collection::vec(("[a-c]{1,2}", inner), 0..5),
                space
            )
                .prop_map(|(items, space)| {
                    let items: Vec<_> = items
                        .iter()
                        .map(|(key, value)| format!("\"{key}\":{space}{value}"))
                        .collect();
                    format!("{{{}}}", items.join(&format!("{space},")))
                }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_json_round_trips(documents in proptest::collection::vec(json(), 1..12), cut in 0usize..40) {
        let text = documents.join("\n");
        check(text.as_bytes());
        check(&text.as_bytes()[cut.min(text.len())..]);
    }

    #[test]
    fn arbitrary_csv_round_trips(rows in proptest::collection::vec(proptest::collection::vec("[a-b0-9.\"\r -]{0,6}", 1..5), 1..40)) {
        for delimiter in [",", ";", "\t"] {
            let text = rows.iter().map(|row| row.join(delimiter)).collect::<Vec<_>>().join("\n");
            check(text.as_bytes());
        }
    }

    #[test]
    fn arbitrary_lines_round_trip(text in "([a-c0-9:./ \n-]|[0-9]{4}-[0-9]{2}-[0-9]{2}|INFO|\n){0,200}") {
        check(text.as_bytes());
    }
}
