//! Every rule across fields, with one pipeline that keeps it and one that breaks it: checked in Rust, as workers and
//! `validate` do, and in CEL, as an API server does. A rule without both cases fails here.

mod cases;

use std::collections::BTreeSet;

use kube_cel::Validator;
use serde_json::{Value, json};
use streampress_crds::rules::{RULES, RuleScope, broken};
use streampress_crds::{CheckedPipeline, CompressionPipeline, crd};

use self::cases::{change_cases, find, object, spec_cases};

fn pipeline(object: &Value) -> CompressionPipeline {
    serde_json::from_value(object.clone()).expect("a readable pipeline")
}

fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The rules that an object breaks by an API server's CEL.
fn broken_in_cel(object: &Value, old: Option<&Value>) -> BTreeSet<String> {
    let schema = schema();
    // The validator does not fill in what a default of its own has added, as an API server does.
    let filled = |object| kube_cel::apply_defaults(&schema, object);
    let outcome = Validator::new().validate(&schema, &filled(object), old.map(filled).as_ref());
    let errors = outcome
        .err()
        .map(|errors| errors.into_vec())
        .unwrap_or_default();
    errors.into_iter().map(|error| error.rule).collect()
}

#[test]
fn a_pipeline_that_keeps_a_rule_is_accepted_in_rust_and_in_cel() {
    for case in spec_cases() {
        let object = object(&case.keeps);
        let checked = CheckedPipeline::in_cluster(pipeline(&object));
        assert!(
            checked.is_ok(),
            "{}: {}: {object}\n{checked:?}",
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
        let invalid = CheckedPipeline::in_cluster(pipeline(&object)).expect_err(case.field);
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
        assert_eq!(
            CheckedPipeline::new(pipeline(&object)).is_ok(),
            fits,
            "{name}"
        );
        assert_eq!(broken_in_cel(&object, None).is_empty(), fits, "{name}");
    }
    // The API server refuses these by itself.
    for name in ["Shop", "-shop", "shop-", "a b", ""] {
        let mut object = object(&json!({}));
        object["metadata"]["name"] = name.into();
        assert!(CheckedPipeline::new(pipeline(&object)).is_err(), "{name}");
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
    assert!(CheckedPipeline::new(pipeline.clone()).is_ok());
    assert!(CheckedPipeline::in_cluster(pipeline.clone()).is_err());
    let said: Vec<_> = broken(&pipeline, RuleScope::Cluster)
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
