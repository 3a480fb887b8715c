//! The generator as other packages use it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::*;

const FORMATS: [FileFormat; 4] = [
    FileFormat::Json,
    FileFormat::Ndjson,
    FileFormat::Csv,
    FileFormat::Txt,
];

fn options(format: FileFormat, file_size_bytes: u64) -> GeneratorOptions {
    GeneratorOptions {
        format,
        file_size_bytes,
        seed: 7,
    }
}

fn generator(schema: &str, format: FileFormat, file_size_bytes: u64) -> Generator {
    let schema = Schema::example(schema).unwrap();
    Generator::new(&schema, options(format, file_size_bytes)).unwrap()
}

fn inline(json: &str, format: FileFormat) -> Generator {
    let schema = Schema::parse(json.as_bytes(), "inline").unwrap();
    Generator::new(&schema, options(format, 2_000)).unwrap()
}

fn file(generator: &Generator, index: u64) -> String {
    let mut out = b"bytes of an earlier file".to_vec();
    generator.file(index, &mut out);
    String::from_utf8(out).unwrap()
}

fn every_generator(file_size_bytes: u64) -> impl Iterator<Item = (String, Generator)> {
    Schema::example_names().flat_map(move |name| {
        FORMATS.into_iter().map(move |format| {
            let what = format!("{name} as {format:?}");
            (what, generator(name, format, file_size_bytes))
        })
    })
}

/// A strict CSV reader that shares no code with the writer. `None` is a cell without quotes and without text.
fn read_csv(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut rows, mut row, mut rest) = (Vec::new(), Vec::new(), text);
    while !rest.is_empty() {
        let cell = if let Some(after) = rest.strip_prefix('"') {
            let mut cell = String::new();
            rest = after;
            loop {
                let quote = rest.find('"').expect("a closing quote");
                cell.push_str(&rest[..quote]);
                rest = &rest[quote + 1..];
                match rest.strip_prefix('"') {
                    Some(after) => rest = after,
                    None => break Some(cell),
                }
                cell.push('"');
            }
        } else {
            let end = rest.find([',', '\n', '"']).expect("an end");
            let cell = &rest[..end];
            rest = &rest[end..];
            (!cell.is_empty()).then(|| cell.to_owned())
        };
        row.push(cell);
        let end = rest.chars().next().expect("a comma or line end");
        assert!(end == ',' || end == '\n', "a cell ends in {end:?}");
        rest = &rest[1..];
        if end == '\n' {
            rows.push(std::mem::take(&mut row));
        }
    }
    assert!(row.is_empty(), "the last line is whole");
    rows
}

#[test]
fn the_same_seed_makes_the_same_file_alone_or_in_a_row() {
    for ((what, made_in_a_row), (_, alone)) in every_generator(20_000).zip(every_generator(20_000))
    {
        let in_a_row: Vec<_> = (0..5).map(|index| file(&made_in_a_row, index)).collect();
        assert_eq!(in_a_row[3], file(&alone, 3), "{what}");
        let different: HashSet<_> = in_a_row.iter().collect();
        assert_eq!(different.len(), 5, "{what}: every index makes another file");
    }
}

#[test]
fn another_seed_makes_another_file() {
    let schema = Schema::example("iot-sensors").unwrap();
    let make = |seed| {
        let options = GeneratorOptions {
            seed,
            ..options(FileFormat::Json, 5_000)
        };
        file(&Generator::new(&schema, options).unwrap(), 0)
    };
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn the_bytes_never_change_from_version_to_version() {
    let hashes: BTreeMap<_, _> = every_generator(4_096)
        .map(|(what, generator)| {
            let hash = blake3::hash(file(&generator, 3).as_bytes());
            (what, hash.to_hex()[..16].to_owned())
        })
        .collect();
    let golden: BTreeMap<_, _> = include_str!("golden.txt")
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(what, hash)| (what.to_owned(), hash.to_owned()))
        .collect();
    assert_eq!(
        hashes, golden,
        "files of earlier versions cannot be made again; if that is intended, write these into golden.txt"
    );
}

#[test]
fn files_end_within_one_record_of_the_wanted_size() {
    for (what, generator) in every_generator(100_000) {
        for index in [0, 1, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            let records = generator.file(index, &mut out);
            assert!(records > 50, "{what}: {records} records");
            assert!(out.len() <= 100_000, "{what}: {} bytes", out.len());
            assert!(out.len() > 98_000, "{what}: {} bytes", out.len());
        }
    }
}

#[test]
fn a_file_holds_at_least_one_record() {
    for (what, generator) in every_generator(1) {
        let mut out = Vec::new();
        assert_eq!(generator.file(5, &mut out), 1, "{what}");
        assert!(out.len() > 20, "{what}");
    }
}

#[test]
fn json_and_ndjson_parse_back_to_the_same_records() {
    for name in Schema::example_names() {
        let mut out = Vec::new();
        let records = generator(name, FileFormat::Json, 50_000).file(2, &mut out);
        assert!(out.is_ascii(), "{name}: as the original writes it");
        let array: Vec<Value> = serde_json::from_slice(&out).unwrap();
        assert_eq!(array.len() as u64, records);
        let lines = file(&generator(name, FileFormat::Ndjson, 50_000), 2);
        let mut shared = 0;
        for (line, element) in lines.lines().zip(&array) {
            let record: Value = serde_json::from_str(line).unwrap();
            assert!(record.is_object());
            // Ids of later files depend on how many records fit, so the shapes are compared.
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect();
            let (ours, theirs): (Vec<_>, Vec<_>) = (keys(&record), keys(element));
            assert_eq!(ours, theirs, "{name}");
            shared += 1;
        }
        assert!(shared > 50, "{name}");
    }
}

#[test]
fn csv_rows_have_every_column_for_any_cell_content() {
    for name in Schema::example_names() {
        let text = file(&generator(name, FileFormat::Csv, 50_000), 1);
        let rows = read_csv(&text);
        assert!(rows.len() > 50);
        for row in &rows {
            assert_eq!(row.len(), rows[0].len(), "{name}: {row:?}");
        }
    }
    let header = file(&generator("stock-market", FileFormat::Csv, 1), 0);
    assert!(header.starts_with("trade_id,symbol,company_name,date,time,open,"));
    assert!(header.contains(",quote.bid,quote.ask,"), "{header}");
}

#[test]
fn csv_cells_are_read_back_as_the_values_of_the_json() {
    let samples = r#"[{"a": {"b": "x, \"y\"\nz"}, "n": null, "e": "", "l": [1, "two"]},
                      {"n": 1.50, "late": " padded "}]"#;
    let csv = file(&inline(samples, FileFormat::Csv), 0);
    let rows = read_csv(&csv);
    let text = |text: &str| Some(text.to_owned());
    let header = ["a.b", "n", "e", "l", "late"].map(text);
    assert_eq!(rows[0], header);
    let first = [
        text("x, \"y\"\nz"),
        None,
        text(""),
        text("[1,\"two\"]"),
        None,
    ];
    let second = [None, text("1.50"), None, None, text(" padded ")];
    assert!(rows[1..].iter().all(|row| *row == first || *row == second));
    assert!(rows.contains(&first.to_vec()) && rows.contains(&second.to_vec()));
}

#[test]
fn sample_records_are_written_as_they_are_in_the_schema() {
    let samples = r#"[{"z": 1.10, "a": "é"}, {"z": 12345678901234567890123, "a": null}]"#;
    let json = file(&inline(samples, FileFormat::Json), 0);
    let (first, second) = (
        r#"{"z": 1.10, "a": "\u00e9"}"#,
        r#"{"z": 12345678901234567890123, "a": null}"#,
    );
    let inner = json.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    let rest = inner.replace(first, "").replace(second, "");
    assert!(inner.contains(first) && inner.contains(second));
    assert!(rest.split(", ").all(str::is_empty), "nothing else: {rest}");
    let txt = file(&inline(samples, FileFormat::Txt), 0);
    assert!(txt.contains("z=1.10 a=é\n"), "{txt}");
}

#[test]
fn a_features_object_keeps_its_other_members() {
    let features = r#"{"type": "FeatureCollection", "features": [
        {"id": 1, "properties": {"name": "Amber"}, "geometry": {"type": "Point", "coordinates": [1, 2.5]}}
    ], "crs": null}"#;
    let json = file(&inline(features, FileFormat::Json), 0);
    assert!(
        json.starts_with(r#"{"type": "FeatureCollection", "crs": null, "features": [{"id": 1"#)
    );
    let parsed: Value = serde_json::from_str(&json).unwrap();
    assert!(parsed["features"].as_array().unwrap().len() > 3);
    let csv = file(&inline(features, FileFormat::Csv), 0);
    let expected =
        "id,properties.name,geometry.type,geometry.coordinates\n1,Amber,Point,\"[1,2.5]\"\n";
    assert!(csv.starts_with(expected), "{csv}");
}

#[test]
fn ids_and_times_go_on_from_file_to_file() {
    let generator = generator("iot-sensors", FileFormat::Json, 60_000);
    let (mut last_id, mut last_time) = (0, String::new());
    for index in 0..20 {
        let records: Vec<Value> = serde_json::from_str(&file(&generator, index)).unwrap();
        let id = |record: &Value| record["message_id"].as_u64().unwrap();
        let time = |record: &Value| record["measured_at"].as_str().unwrap().to_owned();
        for record in &records {
            assert!(id(record) > last_id, "ids only grow");
            assert!(time(record) > last_time, "times only grow");
            (last_id, last_time) = (id(record), time(record));
        }
    }
}

#[test]
fn prices_follow_a_random_walk_that_continues_from_file_to_file() {
    let generator = generator("stock-market", FileFormat::Json, 200_000);
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    let mut lows_and_highs: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for index in 0..40 {
        let records: Vec<Value> = serde_json::from_str(&file(&generator, index)).unwrap();
        let mut seen = HashSet::new();
        for record in records {
            let number = |key: &str| record[key].as_f64().unwrap();
            let symbol = record["symbol"].as_str().unwrap().to_owned();
            let (open, high, low, close) = (
                number("open"),
                number("high"),
                number("low"),
                number("close"),
            );
            assert!(
                low <= open.min(close) && high >= open.max(close),
                "{record}"
            );
            if let Some(&before) = last.get(&symbol) {
                let jump = (open - before).abs() / before;
                let limit = if seen.contains(&symbol) { 1e-9 } else { 0.06 };
                assert!(jump <= limit, "file {index}, {symbol}: {before} to {open}");
            }
            let range = lows_and_highs.entry(symbol.clone()).or_insert((low, high));
            *range = (range.0.min(low), range.1.max(high));
            seen.insert(symbol.clone());
            last.insert(symbol, close);
        }
    }
    assert_eq!(last.len(), 32);
    let moved = |(low, high): &&(f64, f64)| high / low > 1.05;
    assert!(
        lows_and_highs.values().filter(moved).count() > 16,
        "prices move"
    );
}

#[test]
fn access_log_lines_are_in_the_combined_format() {
    let text = file(&generator("access-log", FileFormat::Txt, 100_000), 4);
    for line in text.lines() {
        let quoted: Vec<_> = line.split('"').collect();
        assert_eq!(quoted.len(), 7, "{line}");
        let head: Vec<_> = quoted[0].split_whitespace().collect();
        assert_eq!(head.len(), 5, "{line}");
        assert!(head[0].parse::<std::net::Ipv4Addr>().is_ok(), "{line}");
        assert!(head[3].starts_with("[") && head[4] == "+0000]", "{line}");
        assert_eq!(quoted[1].split(' ').count(), 3, "{line}");
        let status: Vec<_> = quoted[2].split_whitespace().collect();
        assert!(
            status.iter().all(|number| number.parse::<u32>().is_ok()),
            "{line}"
        );
    }
}

#[test]
fn every_kind_of_value_is_written_as_documented() {
    let schema = r#"{
        "clock": {"start": "2026-01-05T00:00:00Z", "stepMillis": 1000},
        "tables": {"t": {"columns": ["a", "b"], "rows": [["one \"quoted\"", 1.5]]}},
        "fields": [
            {"name": "seq", "kind": "sequence", "start": 5, "step": 5, "prefix": "A-", "width": 4},
            {"name": "when", "kind": "timestamp", "format": "unix", "offsetMillis": -1000},
            {"name": "cell", "kind": "column", "table": "t", "column": "a"},
            {"name": "none", "kind": "uuid", "nullRatio": 1},
            {"name": "pick", "kind": "enum", "values": ["never", true], "weights": [0, 1]},
            {"name": "text", "kind": "template", "text": "{{{cell}}} is {none}"},
            {"name": "list", "kind": "array", "min": 2, "max": 2, "item":
                {"kind": "object", "fields": [{"name": "w", "kind": "words", "min": 1, "max": 1}]}},
            {"name": "deep", "kind": "object", "fields": [{"name": "x", "kind": "float", "min": 2, "max": 2}]},
            {"name": "secret", "kind": "int", "max": 9, "hidden": true}
        ]}"#;
    let ndjson = file(&inline(schema, FileFormat::Ndjson), 0);
    let first: Value = serde_json::from_str(ndjson.lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], "A-0005");
    assert_eq!(first["when"], 1_767_571_199);
    assert_eq!(first["cell"], "one \"quoted\"");
    assert_eq!(first["none"], Value::Null);
    assert_eq!(first["pick"], true);
    assert_eq!(first["text"], "{one \"quoted\"} is -");
    assert_eq!(first["list"].as_array().unwrap().len(), 2);
    assert!(first["list"][0]["w"].is_string());
    assert_eq!(first["deep"]["x"], 2.0);
    assert_eq!(first.get("secret"), None);
    let second: Value = serde_json::from_str(ndjson.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second["seq"], "A-0010");
    let txt = file(&inline(schema, FileFormat::Txt), 0);
    let expected = "seq=A-0005 when=1767571199 cell=\"one \\\"quoted\\\"\" none=- pick=true ";
    assert!(txt.starts_with(expected), "{txt}");
    let csv = file(&inline(schema, FileFormat::Csv), 0);
    assert_eq!(read_csv(&csv)[1][7].as_deref(), Some("2.00"));
}

#[test]
fn the_schema_in_the_readme_is_valid() {
    let readme = include_str!("../schemas/README.md");
    let json = readme.split("```json\n").nth(1).unwrap();
    let json = json.split("```").next().unwrap();
    let txt = file(&inline(json, FileFormat::Txt), 0);
    assert!(txt.starts_with("2026-01-05T14:30:00.000Z hall 1"), "{txt}");
    for name in Schema::example_names() {
        assert!(
            readme.contains(&format!("`{name}.json`")),
            "{name} is not in the readme"
        );
    }
}

#[test]
fn uuids_are_valid_and_all_different() {
    let schema = r#"{"fields": [{"name": "id", "kind": "uuid"}]}"#;
    let ndjson = file(&inline(schema, FileFormat::Csv), 0);
    let ids: Vec<_> = ndjson.lines().skip(1).collect();
    for id in &ids {
        let parsed: uuid::Uuid = id.parse().unwrap();
        assert_eq!(parsed.get_version_num(), 4);
        assert_eq!(parsed.get_variant(), uuid::Variant::RFC4122);
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}

#[test]
fn file_names_sort_by_number() {
    let generator = generator("access-log", FileFormat::Txt, 1);
    assert_eq!(generator.file_name("web", 1), "web-000001.txt");
    assert_eq!(generator.file_name("web", 12_345_678), "web-12345678.txt");
}

fn fault(json: &str) -> String {
    match Schema::parse(json.as_bytes(), "mine.json") {
        Ok(_) => format!("no fault found in {json}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn all_mistakes_of_a_schema_are_named_at_once() {
    let schema = r#"{
        "desciption": "x",
        "clock": {"every": 0, "start": "soon"},
        "tables": {"t": {"columns": ["a"], "rows": [["x", "y"]]}, "u": {"count": 2, "order": "up", "fields": [
            {"name": "c", "kind": "uid"}, {"name": "d", "kind": "int", "maximum": 5}]}},
        "walks": {"w": {"base": 1, "step": -1}, "v": 3},
        "fields": [
            {"name": "a", "kind": "int", "maxx": 5},
            {"name": "b", "kind": "float", "max": true, "decimals": 99},
            {"name": "a", "kind": "uuid"},
            {"name": "o", "kind": "object", "fields": [{"name": "i", "kind": "hex", "digits": 0}, 7]},
            {"name": "x", "kind": "column", "table": "t", "column": "a"},
            {"name": "y", "kind": "walk", "walk": "w"},
            {"name": "z", "kind": "array", "item": {"kind": "name", "pool": "x"}},
            {"name": "t", "kind": "template", "text": "{a} {b} {o.i} {nothing}"}
        ],
        "line": "{a} {none}"
    }"#;
    let errors =
        Schema::parse_all(schema.as_bytes(), "mine.json").expect_err("it is full of mistakes");
    let mut fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "clock.every",
            "clock.start",
            "desciption",
            "fields[0].max",
            "fields[1].decimals",
            "fields[1].max",
            "fields[2].name",
            "fields[3].fields[0].digits",
            "fields[3].fields[1]",
            "fields[6].item.pool",
            "fields[7].text",
            "line",
            "tables.t.rows[0]",
            "tables.u.fields[0].kind",
            "tables.u.fields[1].max",
            "tables.u.order",
            "walks.v",
            "walks.w.step",
        ]
    );
    let misspelt = errors.iter().find(|error| error.field == "fields[0].max");
    let remedy = misspelt.map(|error| error.remedy.as_str());
    assert_eq!(remedy, Some("add it, or rename maxx, which stands there"));
}

#[test]
fn a_document_whose_fields_are_misspelt_has_its_other_mistakes_named_too() {
    let schema =
        r#"{"feilds": [{"name": "a", "kind": "uuid"}], "clock": {"every": 0}, "other": 1}"#;
    let errors = Schema::parse_all(schema.as_bytes(), "mine.json").expect_err("it is wrong");
    let mut fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["clock.every", "feilds", "fields", "other"]);
    let missing = errors.iter().find(|error| error.field == "fields");
    let remedy = missing.map(|error| error.remedy.as_str());
    assert_eq!(remedy, Some("add it, or rename feilds, which stands there"));
}

#[test]
fn an_unknown_member_is_answered_with_each_known_name_once() {
    let schema = r#"{
        "clock": {"every": 0, "start": "soon", "a": 1},
        "tables": {
            "given": {"columns": ["c"], "rows": [[1]], "order": "none", "b": 1},
            "made": {"count": 0, "fields": [{"name": "w", "kind": "uuid", "nullRatio": 2, "c": 1}], "d": 1}
        },
        "walks": {"w": {"base": 1, "step": -1, "e": 1}},
        "fields": [
            {"name": "i", "kind": "int", "min": 1, "max": "x", "f": 1},
            {"name": "o", "kind": "object", "fields": [{"name": "p", "kind": "hex", "digits": 0, "g": 1}], "h": 1}
        ],
        "j": 1
    }"#;
    let errors = Schema::parse_all(schema.as_bytes(), "mine.json").expect_err("it is wrong");
    let remedies = errors.iter().map(|error| error.remedy.as_str());
    let known: Vec<_> = remedies
        .filter_map(|it| it.split_once("known here: "))
        .collect();
    assert_eq!(known.len(), 5, "{errors:#?}");
    for (_, names) in known {
        let names: Vec<_> = names.split(", ").collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }
}

#[test]
fn errors_in_a_schema_name_the_field_and_the_remedy() {
    let field = |field: &str| format!(r#"{{"fields": [{{"name": "x", {field}}}]}}"#);
    for (json, expected) in [
        ("[1,".to_owned(), "schema mine.json: not valid JSON: EOF"),
        ("[]".to_owned(), "no sample records; give at least one"),
        ("7".to_owned(), "a number that is no schema; give an object with `fields`"),
        (r#"{"a": 1}"#.to_owned(), "an object that is no schema"),
        (r#"{"features": 1}"#.to_owned(), "features: a number where a list belongs"),
        (r#"{"fields": []}"#.to_owned(), "fields: no visible field"),
        (r#"{"fields": [{"kind": "uuid"}]}"#.to_owned(), "fields[0].name: missing; add it"),
        (field(r#""kind": "uuids""#), r#"fields[0].kind: "uuids" is not known; use one of: sequence"#),
        (field(r#""kind": "uuid", "mim": 3"#), "fields[0].mim: unknown; remove it; known here: name, kind, hidden, nullRatio"),
        (field(r#""kind": "int""#), "fields[0].max: missing; add it"),
        (field(r#""kind": "int", "min": 9, "max": 3"#), "fields[0].max: 3 is not a whole number in range; use 9 to"),
        (field(r#""kind": "enum", "values": [1, 2], "weights": [1]"#), "fields[0].weights: 1 weights for 2 values"),
        (field(r#""kind": "enum", "values": [1], "weights": [0]"#), "fields[0].weights: all weights are zero"),
        (field(r#""kind": "enum", "values": [[1]]"#), "fields[0].values: a list where a text, number"),
        (field(r#""kind": "uuid", "nullRatio": 1.5"#), "fields[0].nullRatio: 1.5 is out of range; use 0 to 1"),
        (field(r#""kind": "column", "table": "t", "column": "c""#), r#"fields[0].table: "t" is not defined; define it first"#),
        (field(r#""kind": "walk", "walk": "w""#), r#"fields[0].walk: "w" is not defined"#),
        (field(r#""kind": "template", "text": "{y}""#), "fields[0].text: {y} is no field before this one"),
        (field(r#""kind": "template", "text": "{y""#), "fields[0].text: {y} is no field"),
        (field(r#""kind": "ipv4", "range": "10.0.0.0/99""#), "fields[0].range: \"10.0.0.0/99\" is not a range"),
        (field(r#""kind": "object", "fields": [{"name": "y", "kind": "hex", "digits": 0}]"#), "fields[0].fields[0].digits: 0 is not a whole number in range; use 1 to"),
        (r#"{"clock": {"start": "soon"}, "fields": []}"#.to_owned(), "clock.start: \"soon\" is not a time from 1970-01-01T00:00:00Z to 9999-12-30T22:00:00Z; write it like 2026-"),
        (r#"{"clock": {"start": "9999-12-31T23:59:59Z"}, "fields": []}"#.to_owned(), "is not a time from 1970-01-01T00:00:00Z to 9999-12-30T22:00:00Z"),
        (r#"{"walks": {"w": {"base": 1}}, "fields": []}"#.to_owned(), "walks.w.step: missing"),
        (r#"{"tables": {"t": {"columns": ["a"], "rows": [[1, 2]]}}, "fields": []}"#.to_owned(), "tables.t.rows[0]: 2 cells for 1 columns"),
        (r#"{"tables": {"t": {"count": 2, "fields": [{"name": "w", "kind": "timestamp"}]}}, "fields": []}"#.to_owned(), "tables.t.fields[0].kind: rows of a table are made once"),
    ] {
        let message = fault(&json);
        assert!(message.contains(expected), "{json}\n  says {message}\n  not  {expected}");
    }
    let unknown = Schema::example("stocks")
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("use one of: stock-market, iot-sensors, access-log"),
        "{unknown}"
    );
}

#[test]
fn the_limits_of_the_start_that_are_named_are_those_that_are_taken() {
    let start = |time: &str| {
        let json = format!(
            r#"{{"clock": {{"start": "{time}"}}, "fields": [{{"name": "x", "kind": "uuid"}}]}}"#
        );
        Schema::parse(json.as_bytes(), "inline").is_ok()
    };
    for (time, is_taken) in [
        ("1969-12-31T23:59:59Z", false),
        ("1970-01-01T00:00:00Z", true),
        ("9999-12-30T22:00:00Z", true),
        ("9999-12-30T22:00:01Z", false),
    ] {
        assert_eq!(start(time), is_taken, "{time}");
    }
}

#[test]
fn hostile_schemas_are_refused_before_they_use_memory() {
    let nested = |item: &str, depth: usize| {
        let open = r#"{"kind": "array", "min": 1000, "max": 1000, "item": "#.repeat(depth);
        let closed = format!("{open}{item}{}", "}".repeat(depth));
        format!(r#"{{"fields": [{{"name": "x", {}]}}"#, &closed[1..])
    };
    assert!(fault(&nested(r#"{"kind": "uuid"}"#, 3)).contains("stay within 1048576"));
    assert!(fault(&nested(r#"{"kind": "uuid"}"#, 3000)).contains("nested deeper than 32"));
    let mut doubling = r#"{"name": "a0", "kind": "hex", "digits": 1000}"#.to_owned();
    for n in 1..60 {
        let text = format!("{{a{}}}{{a{}}}", n - 1, n - 1);
        doubling += &format!(r#", {{"name": "a{n}", "kind": "template", "text": "{text}"}}"#);
    }
    let message = fault(&format!(r#"{{"fields": [{doubling}]}}"#));
    assert!(message.contains("a record may have"), "{message}");
    let many: Vec<_> = (0..501)
        .map(|n| format!(r#"{{"name": "f{n}", "kind": "uuid"}}"#))
        .collect();
    let message = fault(&format!(r#"{{"fields": [{}]}}"#, many.join(",")));
    assert!(message.contains("more than 500 values"), "{message}");
    let table = r#"{"tables": {"t": {"count": 10000, "fields": [{"name": "x", "kind": "words", "min": 999, "max": 1000}]}}, "fields": []}"#;
    assert!(
        fault(table).contains("tables.t.count: 10000 rows of up to"),
        "{}",
        fault(table)
    );
    let columns: Vec<_> = (0..5_000).map(|n| format!(r#"{{"c{n}": 1}}"#)).collect();
    let wide = format!("[{}]", columns.join(","));
    let schema = Schema::parse(wide.as_bytes(), "wide").unwrap();
    let refused = Generator::new(&schema, options(FileFormat::Csv, 1_000)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("use the format json or ndjson"),
        "{refused}"
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        let _ = Schema::parse(&bytes, "noise");
    }

    #[test]
    fn damaged_examples_never_make_it_panic(
        at in 0_usize..6_000, byte in 0_u8.., example in 0_usize..3,
    ) {
        let names = ["stock-market", "iot-sensors", "access-log"];
        let path = format!("{}/schemas/{}.json", env!("CARGO_MANIFEST_DIR"), names[example]);
        let mut json = std::fs::read(path).unwrap();
        let at = at % json.len();
        json[at] = byte;
        if let Ok(schema) = Schema::parse(&json, "damaged")
            && let Ok(generator) = Generator::new(&schema, options(FileFormat::Json, 3_000))
        {
            let mut out = Vec::new();
            generator.file(1, &mut out);
            let parsed: Result<Value, _> = serde_json::from_slice(&out);
            assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(&out));
        }
    }
}
