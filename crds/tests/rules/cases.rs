//! Pipelines that keep and break the rules across fields: checked offline here, and by a real API server in the
//! operator's tests.

use serde_json::{Value, json};
use streampress_crds::rules::{RULES, Rule};

/// A rule by its field and wording, with a spec that keeps it and one that breaks it.
pub struct Case {
    pub field: &'static str,
    pub rule: &'static str,
    pub keeps: Value,
    pub breaks: Value,
}

fn case(field: &'static str, rule: &'static str, keeps: Value, breaks: Value) -> Case {
    Case {
        field,
        rule,
        keeps,
        breaks,
    }
}

/// For every rule about one pipeline.
pub fn spec_cases() -> Vec<Case> {
    let strict = |role: &str, worker: Value| json!({"ordering": "Strict", role: worker});
    let scaled = |max: u32| json!({"autoscaling": {"mode": "Internal", "max": max}});
    let generator = |generator: Value| {
        let mut whole = json!({"schema": {"example": "stock-market"}});
        whole
            .as_object_mut()
            .expect("an object")
            .extend(generator.as_object().cloned().unwrap_or_default());
        json!({ "generator": whole })
    };
    let schema = |schema: Value| json!({"generator": {"schema": schema}});
    let places = |source: &str, destination: &str| json!({"source": {"location": source}, "destination": {"location": destination}});
    let queue = |length: usize| format!("{}.fifo", "q".repeat(length - ".fifo".len()));
    let seed = |mut spec: Value| {
        spec["codec"] = json!({"format": "Seed"});
        spec
    };
    let adopt = |without: &str| {
        let mut transport = json!({
            "policy": "Adopt",
            "filesQueue": {"name": "files.fifo"},
            "chunksQueue": {"name": "chunks.fifo"},
            "stream": {"name": "stream"}
        });
        if let Some(part) = transport.get_mut(without).and_then(Value::as_object_mut) {
            part.remove("name");
        }
        json!({ "transport": transport })
    };
    let mut cases = vec![
        case(
            "spec.volume",
            "must be given when a location begins with file://",
            json!({"volume": null, "source": {"location": "s3://aaa/in"}, "destination": {"location": "s3://aaa/out"}, "report": {"enabled": false}}),
            json!({"volume": null, "source": {"location": "s3://aaa/in"}, "destination": {"location": "s3://aaa/out"}}),
        ),
        case(
            "spec.destination.location",
            "must not be the source's location, nor inside it, nor around it",
            places("file:///data/in", "file:///data/in2"),
            places("file:///data/in", "file:///data/in/"),
        ),
        case(
            "spec.destination.location",
            "must not be the source's location, nor inside it, nor around it",
            places("s3://aaa/in", "s3://bbb/in"),
            places("s3://aaa/", "s3://aaa/out"),
        ),
        case(
            "spec.destination.location",
            "must not be the source's location, nor inside it, nor around it",
            places("s3://aaa/in", "file:///data/in"),
            places("file:///data/x/in", "file:///data/x"),
        ),
        case(
            "spec.report.location",
            "must not be inside source.location or destination.location",
            json!({"report": {"location": "file:///data/in2/results.html"}}),
            json!({"report": {"location": "file:///data/in/results.html"}}),
        ),
        case(
            "spec.report.location",
            "must not be inside source.location or destination.location",
            json!({"report": {"enabled": false, "location": "file:///data/out/results.html"}}),
            json!({"report": {"location": "file:///data/out/results.html"}}),
        ),
        case(
            "spec.source.settleSeconds",
            "must be at least 60 where scanned files are renamed or deleted",
            json!({"source": {"scanSeconds": 1, "settleSeconds": 60, "onCompressed": "Rename"}}),
            json!({"source": {"scanSeconds": 1, "settleSeconds": 59, "onCompressed": "Rename"}}),
        ),
        case(
            "spec.source.settleSeconds",
            "must be at least 60 where scanned files are renamed or deleted",
            json!({"source": {"scanSeconds": 1, "settleSeconds": 0}}),
            json!({"source": {"scanSeconds": 1, "settleSeconds": 0, "onCompressed": "Delete"}}),
        ),
        case(
            "spec.generator.format",
            "must be among source.formats (ndjson counts as json)",
            json!({"source": {"formats": ["json"]}, "generator": {"schema": {"example": "iot-sensors"}, "format": "ndjson"}}),
            json!({"source": {"formats": ["csv", "txt"]}, "generator": {"schema": {"example": "iot-sensors"}}}),
        ),
        case(
            "spec.generator.format",
            "must not be ndjson with codec.format Seed",
            seed(generator(json!({"format": "csv"}))),
            seed(generator(json!({"format": "ndjson"}))),
        ),
        case(
            "spec.source.onCompressed",
            "must not be Delete with codec.format Seed",
            json!({"source": {"onCompressed": "Delete"}}),
            seed(json!({"source": {"onCompressed": "Delete"}})),
        ),
        case(
            "spec.transport.chunksQueue.name",
            "must not be filesQueue's name",
            json!({"transport": {"filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "b.fifo"}}}),
            json!({"transport": {"filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "a.fifo"}}}),
        ),
        case(
            "spec.codec.blockSize",
            "must be from 64Ki to 64Mi",
            json!({"codec": {"blockSize": "64Mi"}}),
            json!({"codec": {"blockSize": "65Mi"}}),
        ),
        case(
            "spec.codec.blockSize",
            "must be from 64Ki to 64Mi",
            json!({"codec": {"blockSize": 65536, "recordSize": "64Ki"}}),
            json!({"codec": {"blockSize": 65535, "recordSize": "4Ki"}}),
        ),
        case(
            "spec.codec.recordSize",
            "must be from 4Ki to 1023Ki",
            json!({"codec": {"recordSize": "1023Ki"}}),
            json!({"codec": {"recordSize": "1Mi"}}),
        ),
        case(
            "spec.codec.recordSize",
            "must be from 4Ki to 1023Ki",
            json!({"codec": {"recordSize": 4096}}),
            json!({"codec": {"recordSize": "4k"}}),
        ),
        case(
            "spec.codec.recordSize",
            "must not be more than blockSize",
            json!({"codec": {"recordSize": "64Ki", "blockSize": "64Ki"}}),
            json!({"codec": {"blockSize": "0.25Mi"}}),
        ),
        case(
            "spec.generator.fileSize",
            "must be from 1Ki to 1Gi",
            generator(json!({"fileSize": "1Gi"})),
            generator(json!({"fileSize": "1.1Gi"})),
        ),
        case(
            "spec.generator.fileSize",
            "must be from 1Ki to 1Gi",
            generator(json!({"fileSize": 1024})),
            generator(json!({"fileSize": "1k"})),
        ),
        case(
            "spec.generator.schema",
            "is missing",
            json!({"source": {"scanSeconds": 1}, "generator": {"resources": {"limits": {"cpu": 1}}}}),
            json!({"generator": {"resources": {"limits": {"cpu": 1}}}}),
        ),
        case(
            "spec.generator.schema",
            "must have exactly one of example, configMap and inline",
            schema(json!({"inline": {"id": "uuid"}})),
            schema(json!({})),
        ),
        case(
            "spec.generator.schema",
            "must have exactly one of example, configMap and inline",
            schema(json!({"configMap": "a"})),
            schema(json!({"inline": {}, "example": "iot-sensors"})),
        ),
        case(
            "spec.generator.schema.key",
            "must stand beside configMap",
            schema(json!({"configMap": "a", "key": "b.json"})),
            schema(json!({"example": "iot-sensors", "key": "b.json"})),
        ),
        case(
            "spec.generator.schema.inline",
            "must be at most 64 KiB as JSON",
            schema(json!({"inline": {"a": "x".repeat(60_000)}})),
            schema(json!({"inline": {"a": "x".repeat(66_000)}})),
        ),
    ];
    for (role, slots, max, min) in [
        (
            "compressor",
            "spec.compressor.slots",
            "spec.compressor.autoscaling.max",
            "spec.compressor.autoscaling.min",
        ),
        (
            "decompressor",
            "spec.decompressor.slots",
            "spec.decompressor.autoscaling.max",
            "spec.decompressor.autoscaling.min",
        ),
    ] {
        cases.extend([
            case(
                slots,
                "must be 1 with ordering Strict",
                strict(role, json!({"slots": 1, "replicas": 3})),
                strict(role, json!({"slots": 2})),
            ),
            case(
                max,
                "must be 1 with ordering Strict",
                strict(role, scaled(1)),
                strict(role, scaled(2)),
            ),
            case(
                min,
                "must not be more than max",
                json!({role: {"autoscaling": {"min": 4}}}),
                json!({role: {"autoscaling": {"min": 5}}}),
            ),
        ]);
    }
    let restored = |mut spec: Value, action: &str| {
        spec["source"] = json!({"onRestored": action, "writersRename": true});
        spec
    };
    let mut adopted_receipts = adopt("");
    adopted_receipts["transport"]["receiptsQueue"] = json!({"name": "receipts.fifo"});
    for (keeps, breaks) in [
        (
            restored(json!({}), "Rename"),
            restored(seed(json!({})), "Rename"),
        ),
        (
            restored(adopted_receipts, "Delete"),
            restored(adopt(""), "Delete"),
        ),
    ] {
        cases.push(case(
            "spec.source.onRestored",
            "must be Keep without receipts",
            keeps,
            breaks,
        ));
    }
    cases.push(case(
        "spec.source.onRestored",
        "must be Keep where onCompressed renames or deletes",
        json!({"source": {"onRestored": "Rename"}}),
        json!({"source": {"onRestored": "Rename", "onCompressed": "Rename"}}),
    ));
    cases.push(case(
        "spec.source.writersRename",
        "must be true with onRestored Delete on a volume",
        json!({"source": {"onRestored": "Rename"}}),
        json!({"source": {"onRestored": "Delete"}}),
    ));
    cases.push(case(
        "spec.source.settleSeconds",
        "must be at least 60 where scanned files are renamed or deleted",
        json!({"source": {"onRestored": "Rename", "scanSeconds": 5, "settleSeconds": 60}}),
        json!({"source": {"onRestored": "Rename", "scanSeconds": 5, "settleSeconds": 59}}),
    ));
    for other in ["filesQueue", "chunksQueue"] {
        let named = |receipts: &str| json!({"transport": {other: {"name": "a.fifo"}, "receiptsQueue": {"name": receipts}}});
        cases.push(case(
            "spec.transport.receiptsQueue.name",
            "must not be filesQueue's or chunksQueue's name",
            named("b.fifo"),
            named("a.fifo"),
        ));
    }
    for (part, field) in [
        ("filesQueue", "spec.transport.filesQueue.name"),
        ("chunksQueue", "spec.transport.chunksQueue.name"),
        ("stream", "spec.transport.stream.name"),
    ] {
        cases.push(case(
            field,
            "must be given with policy Adopt",
            adopt(""),
            adopt(part),
        ));
    }
    for (part, field) in [
        ("filesQueue", "spec.transport.filesQueue.name"),
        ("chunksQueue", "spec.transport.chunksQueue.name"),
        ("receiptsQueue", "spec.transport.receiptsQueue.name"),
    ] {
        let named = |length| json!({"transport": {part: {"name": queue(length)}}});
        cases.push(case(
            field,
            "must be at most 76 characters with policy Create",
            named(76),
            named(77),
        ));
    }
    cases
}

/// Fields that are immutable: the field, the rule, a spec before, one after that keeps the rule, and one that breaks it.
pub fn change_cases() -> Vec<(&'static str, &'static str, Value, Value, Value)> {
    let named = |part: &str, name: &str| json!({"transport": {part: {"name": name}}});
    let never = "cannot be changed, set or removed later";
    let adopted = |receipts: Option<&str>| {
        let mut transport = json!({"policy": "Adopt", "filesQueue": {"name": "f.fifo"}, "chunksQueue": {"name": "c.fifo"}, "stream": {"name": "s"}});
        if let Some(name) = receipts {
            transport["receiptsQueue"] = json!({ "name": name });
        }
        json!({ "transport": transport })
    };
    let receipts =
        "cannot be changed or removed later; with policy Create, it cannot be set later either";
    let region = |region: &str| json!({"aws": {"region": region}});
    let endpoint =
        |url: &str| json!({"aws": {"endpointURL": url, "credentialsSecretRef": {"name": "keys"}}});
    vec![
        (
            "spec.aws.region",
            "cannot be changed",
            region("eu-west-1"),
            region("eu-west-1"),
            json!({}),
        ),
        (
            "spec.aws.endpointURL",
            "cannot be set or removed later",
            endpoint("http://localstack:4566"),
            endpoint("http://elsewhere:4566"),
            json!({}),
        ),
        (
            "spec.transport.policy",
            "cannot be changed",
            json!({"transport": {"deletionPolicy": "Retain"}}),
            json!({"transport": {"deletionPolicy": "Delete"}}),
            json!({"transport": {"policy": "Adopt", "filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "b.fifo"}, "stream": {"name": "c"}}}),
        ),
        (
            "spec.transport.filesQueue.name",
            never,
            named("filesQueue", "a.fifo"),
            named("filesQueue", "a.fifo"),
            named("filesQueue", "b.fifo"),
        ),
        (
            "spec.transport.chunksQueue.name",
            never,
            json!({}),
            json!({"suspend": true}),
            named("chunksQueue", "b.fifo"),
        ),
        (
            "spec.transport.receiptsQueue.name",
            receipts,
            adopted(Some("a.fifo")),
            adopted(Some("a.fifo")),
            adopted(Some("b.fifo")),
        ),
        (
            "spec.transport.receiptsQueue.name",
            receipts,
            adopted(None),
            adopted(Some("a.fifo")),
            json!({"transport": {"receiptsQueue": {"name": "b.fifo"}}}),
        ),
        (
            "spec.transport.stream.name",
            never,
            named("stream", "a"),
            named("stream", "a"),
            json!({}),
        ),
    ]
}

/// A whole object around a spec, with a volume unless the spec says `volume: null`.
pub fn object(spec: &Value) -> Value {
    let mut spec = spec.clone();
    match spec.get("volume") {
        Some(Value::Null) => drop(spec.as_object_mut().and_then(|spec| spec.remove("volume"))),
        _ => spec["volume"] = json!({"persistentVolumeClaim": {"claimName": "data"}}),
    }
    json!({
        "apiVersion": "streampress.dev/v1alpha1",
        "kind": "CompressionPipeline",
        "metadata": {"name": "shop", "namespace": "sales"},
        "spec": spec
    })
}

/// The rule of this wording at this field.
pub fn find(field: &str, words: &str) -> &'static Rule {
    let blames = |rule: &&Rule| {
        rule.rule == words
            && rule
                .at
                .iter()
                .any(|at| [at, rule.field].join(".").trim_matches('.') == field)
    };
    RULES
        .iter()
        .find(blames)
        .unwrap_or_else(|| panic!("no rule {words:?} at {field}"))
}
