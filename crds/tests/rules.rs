//! Every rule across fields, with one pipeline that keeps it and one that breaks it: asked in Rust, as
//! workers and `validate` do, and in CEL, as an API server does. A rule without both fails here.

use std::collections::BTreeSet;

use kube_cel::Validator;
use serde_json::{Value, json};
use streampress_crds::rules::{RULES, Rule, Scope, broken, changed};
use streampress_crds::{CompressionPipeline, crd, resolve, resolve_in_cluster};

/// A rule by the field it blames and its words, with a spec that keeps it and one that breaks it.
struct Case {
    field: &'static str,
    rule: &'static str,
    keeps: Value,
    breaks: Value,
}

fn case(field: &'static str, rule: &'static str, keeps: Value, breaks: Value) -> Case {
    Case {
        field,
        rule,
        keeps,
        breaks,
    }
}

fn spec_cases() -> Vec<Case> {
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
    for (role, slots, max, min, template) in [
        (
            "compressor",
            "spec.compressor.slots",
            "spec.compressor.autoscaling.max",
            "spec.compressor.autoscaling.min",
            "spec.compressor.podTemplate",
        ),
        (
            "decompressor",
            "spec.decompressor.slots",
            "spec.decompressor.autoscaling.max",
            "spec.decompressor.autoscaling.min",
            "spec.decompressor.podTemplate",
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
            case(
                template,
                "must be a pod template",
                json!({role: {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}}}),
                json!({role: {"podTemplate": {"spec": {"nodeSelector": ["a"]}}}}),
            ),
        ]);
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

/// Names that may not change: the field, the rule, a spec before, the same kept, and broken.
fn change_cases() -> Vec<(&'static str, &'static str, Value, Value, Value)> {
    let named = |part: &str, name: &str| json!({"transport": {part: {"name": name}}});
    let never = "cannot be changed, set or taken away later";
    vec![
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
            "spec.transport.stream.name",
            never,
            named("stream", "a"),
            named("stream", "a"),
            json!({}),
        ),
    ]
}

/// A whole object around a spec, with a volume unless the spec says `volume: null`.
fn object(spec: &Value) -> Value {
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

fn pipeline(object: &Value) -> CompressionPipeline {
    serde_json::from_value(object.clone()).expect("a readable pipeline")
}

fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The rules an object breaks, as an API server's CEL sees it.
fn broken_in_cel(object: &Value, old: Option<&Value>) -> BTreeSet<String> {
    let outcome = Validator::new().validate(&schema(), object, old);
    let errors = outcome
        .err()
        .map(|errors| errors.into_vec())
        .unwrap_or_default();
    errors.into_iter().map(|error| error.rule).collect()
}

fn find(field: &str, words: &str) -> &'static Rule {
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

#[test]
fn a_pipeline_that_keeps_a_rule_is_accepted_in_rust_and_in_cel() {
    for case in spec_cases() {
        let object = object(&case.keeps);
        let resolved = resolve_in_cluster(&pipeline(&object));
        assert!(
            resolved.is_ok(),
            "{}: {}: {object}\n{resolved:?}",
            case.field,
            case.rule
        );
        assert_eq!(
            broken_in_cel(&object, None),
            BTreeSet::new(),
            "{}: {}: {object}",
            case.field,
            case.rule
        );
    }
}

#[test]
fn a_pipeline_that_breaks_a_rule_is_refused_in_rust_and_in_cel_with_the_same_words() {
    for case in spec_cases() {
        let rule = find(case.field, case.rule);
        let object = object(&case.breaks);
        let invalid = resolve_in_cluster(&pipeline(&object)).expect_err(case.field);
        let said: Vec<_> = invalid
            .iter()
            .map(|invalid| (invalid.field.as_str(), invalid.rule.as_str()))
            .collect();
        assert_eq!(said, [(case.field, case.rule)], "{object}");
        let expected: BTreeSet<String> = Some(rule.cel.to_owned())
            .filter(|cel| !cel.is_empty())
            .into_iter()
            .collect();
        assert_eq!(
            broken_in_cel(&object, None),
            expected,
            "{}: {}: {object}",
            case.field,
            case.rule
        );
    }
}

#[test]
fn names_and_policy_of_the_transport_cannot_change() {
    for (field, words, old, keeps, breaks) in change_cases() {
        let rule = find(field, words);
        let (old, keeps, breaks) = (object(&old), object(&keeps), object(&breaks));
        let spec = |object: &Value| pipeline(object).spec;
        assert_eq!(changed(&spec(&old), &spec(&keeps)), vec![], "{field}");
        let invalid = changed(&spec(&old), &spec(&breaks));
        assert!(
            invalid
                .iter()
                .any(|invalid| invalid.field == field && invalid.rule == words),
            "{field}: {invalid:?}"
        );
        assert_eq!(
            broken_in_cel(&keeps, Some(&old)),
            BTreeSet::new(),
            "{field}"
        );
        assert!(
            broken_in_cel(&breaks, Some(&old)).contains(rule.cel),
            "{field}"
        );
    }
}

#[test]
fn a_name_that_objects_cannot_carry_is_refused() {
    for (name, fits) in [
        ("shop-2", true),
        ("2", true),
        (&*"a".repeat(50), true),
        (&*"a".repeat(51), false),
        ("shop.eu", false),
    ] {
        let mut object = object(&json!({}));
        object["metadata"]["name"] = name.into();
        assert_eq!(resolve(&pipeline(&object)).is_ok(), fits, "{name}");
        assert_eq!(broken_in_cel(&object, None).is_empty(), fits, "{name}");
    }
    // The API server refuses these by itself.
    for name in ["Shop", "-shop", "shop-", "a b", ""] {
        let mut object = object(&json!({}));
        object["metadata"]["name"] = name.into();
        assert!(resolve(&pipeline(&object)).is_err(), "{name}");
    }
}

#[test]
fn every_rule_has_a_case() {
    let mut with_case: BTreeSet<(String, &str)> = spec_cases()
        .into_iter()
        .map(|case| (case.field.to_owned(), case.rule))
        .collect();
    with_case.extend(
        change_cases()
            .into_iter()
            .map(|(field, rule, ..)| (field.to_owned(), rule)),
    );
    with_case.insert((
        "metadata.name".into(),
        "must be at most 50 characters of a-z, 0-9 and -",
    ));
    let all: BTreeSet<(String, &str)> = RULES
        .iter()
        .flat_map(|rule| {
            rule.at.iter().map(|at| {
                (
                    [at, rule.field].join(".").trim_matches('.').to_owned(),
                    rule.rule,
                )
            })
        })
        .collect();
    assert_eq!(with_case, all);
}

#[test]
fn a_laptop_needs_no_volume() {
    let mut object = object(&json!({}));
    object["spec"]
        .as_object_mut()
        .expect("an object")
        .remove("volume");
    let pipeline = pipeline(&object);
    assert!(resolve(&pipeline).is_ok());
    assert!(resolve_in_cluster(&pipeline).is_err());
    let said: Vec<_> = broken(&pipeline, Scope::Cluster)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "spec.volume: must be given when a location begins with file://; add volume: {persistentVolumeClaim: {claimName: …}}, or use s3:// locations"
        ]
    );
}
