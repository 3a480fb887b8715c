//! What `validate` reports about files: no problem in the examples, and every mistake with its position and a remedy.

use std::path::Path;

use streampress_crds::{CheckedPipeline, Diagnostic, load, load_one};

const HEAD: &str =
    "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {name: shop}\n";

fn problems(text: &str) -> Vec<String> {
    let problems = load(text, "shop.yaml").expect_err(text);
    problems.iter().map(Diagnostic::to_string).collect()
}

/// The problems of a spec that begins in line 4.
fn spec_problems(spec: &str) -> Vec<String> {
    problems(&format!("{HEAD}{spec}"))
}

fn assert_says(said: &[String], expected: &[&str]) {
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said}\nlacks\n{expected}");
    }
}

#[test]
fn every_example_is_valid_in_a_cluster_and_without_notices() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut seen = 0;
    for entry in folder.read_dir().expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("an example");
        let name = path.display().to_string();
        let documents = load(&text, &name).unwrap_or_else(|problems| panic!("{problems:#?}"));
        for pipeline in &documents.pipelines {
            let pipeline = pipeline.pipeline().clone();
            assert!(CheckedPipeline::in_cluster(pipeline).is_ok(), "{name}");
            seen += 1;
        }
        assert_eq!(documents.notices, vec![], "{name}");
    }
    assert!(seen >= 4, "{seen} examples");
}

#[test]
fn an_example_that_is_to_be_applied_brings_the_claims_and_secrets_that_it_names() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut applied = 0;
    for folder in [examples.clone(), examples.join("kind")] {
        for entry in folder.read_dir().expect("the examples") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.ends_with(".yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("an example");
            let says_apply = text
                .lines()
                .any(|line| line.contains("kubectl apply -f") && line.ends_with(&*name));
            if !says_apply {
                continue;
            }
            applied += 1;
            for (key, kind) in [
                ("claimName: ", "PersistentVolumeClaim"),
                ("credentialsSecretRef: {name: ", "Secret"),
            ] {
                for named in text.split(key).skip(1) {
                    let named = named.split(['}', ',', '\n']).next().unwrap_or_default();
                    let brought = format!("kind: {kind}\nmetadata:\n  name: {named}\n");
                    assert!(text.contains(&brought), "{name} lacks the {kind} {named}");
                }
            }
        }
    }
    assert!(applied >= 2, "{applied} examples say 'kubectl apply -f'");
}

#[test]
fn all_problems_of_a_file_are_reported_at_once_in_their_order() {
    let said = spec_problems(
        "spec:\n\
         \x20 ordring: Strict\n\
         \x20 codec:\n\
         \x20   recordSize: 2Mi\n\
         \x20   blocksize: 4Mi\n\
         \x20   effort: balanced\n\
         \x20 source:\n\
         \x20   formats: [json, jsn, json]\n\
         \x20 compressor: {replicas: two, intervalSeconds: 0}\n\
         \x20 suspend: yes\n\
         \x20 decompressor:\n",
    );
    assert_says(
        &said,
        &[
            "shop.yaml:5:3: spec.ordring: is not a field; did you mean ordering?",
            "shop.yaml:7:17: spec.codec.recordSize: 2Mi: must be from 4Ki to 1023Ki; use 400Ki",
            "shop.yaml:8:5: spec.codec.blocksize: is not a field; did you mean blockSize?",
            "shop.yaml:9:13: spec.codec.effort: balanced: must be one of Fast, Balanced, Max; did you mean Balanced?",
            "shop.yaml:11:14: spec.source.formats: [\"json\",\"jsn\",\"json\"]: must not contain a value twice; write json once",
            "shop.yaml:11:21: spec.source.formats[1]: jsn: must be one of json, csv, txt; did you mean json?",
            "shop.yaml:12:26: spec.compressor.replicas: two: must be a whole number; write only digits",
            "shop.yaml:12:48: spec.compressor.intervalSeconds: 0: must be from 1 to 3600",
            "shop.yaml:13:12: spec.suspend: yes: must be true or false; write true or false",
            "shop.yaml:14:15: spec.decompressor: has no value; give it one, or remove the line",
        ],
    );
}

#[test]
fn single_fields_are_bounded() {
    for (spec, expected) in [
        (
            "transport: {stream: {shards: 0}}",
            "shards: 0: must be from 1 to 500",
        ),
        (
            "transport: {stream: {shards: 501}}",
            "shards: 501: must be from 1 to 500",
        ),
        (
            "transport: {stream: {retentionHours: 23}}",
            "retentionHours: 23: must be from 24 to 8760",
        ),
        (
            "transport: {filesQueue: {visibilityTimeoutSeconds: 0}}",
            "visibilityTimeoutSeconds: 0: must be from 10 to 43200",
        ),
        (
            "transport: {chunksQueue: {maxReceiveCount: 1}}",
            "maxReceiveCount: 1: must be from 2 to 1000",
        ),
        (
            "transport: {filesQueue: {name: shop}}",
            "name: shop: must be the name of a FIFO queue; use up to 75",
        ),
        (
            "transport: {stream: {name: 'a b'}}",
            "stream.name: a b: must be the name of a stream",
        ),
        (
            "source: {formats: []}",
            "formats: []: must have at least 1 item",
        ),
        (
            "source: {location: /data/in}",
            "location: /data/in: must be a folder below /data or a prefix in a bucket",
        ),
        (
            "source: {location: 'file:///data'}",
            "must be a folder below /data",
        ),
        (
            "source: {location: 'file:///etc/x'}",
            "must be a folder below /data",
        ),
        (
            "source: {location: 'file:///data/../etc'}",
            "must be a folder below /data",
        ),
        (
            "source: {location: 'file:///data/a%20b'}",
            "must be a folder below /data",
        ),
        (
            "report: {location: 'file:///data/out'}",
            "must be an HTML file below /data",
        ),
        (
            "source: {scanSeconds: -1}",
            "scanSeconds: -1: must be from 0 to 86400",
        ),
        (
            "generator: {schema: {example: stock-market}, filesPerMinute: -1}",
            "filesPerMinute: -1: must be from 0",
        ),
        (
            "generator: {schema: {example: stockmarket}}",
            "did you mean stock-market?",
        ),
        (
            "generator: {files: 3}",
            "spec.generator.schema: is missing; add schema: {example: stock-market}, or let its pod scan the source with source.scanSeconds",
        ),
        (
            "generator: {schema: {example: access-log}, fileSize: 1mb}",
            "fileSize: 1mb: must be a byte size; write 1M (powers of 1000) or 1Mi",
        ),
        ("compressor: {slots: 0}", "slots: 0: must be from 1 to 500"),
        (
            "compressor: {slots: '2'}",
            "slots: 2: must be a whole number; leave the quotes out",
        ),
        (
            "compressor: {podTemplate: {spec: {nodeSelector: [a]}}}",
            "spec.compressor.podTemplate.spec.nodeSelector: [\"a\"]: must be a group of fields",
        ),
        (
            "decompressor: {podTemplate: {spec: {containers: [{env: [{name: a, value: 1}]}]}}}",
            "podTemplate.spec.containers[0].env[0].value: 1: must be text; write it in quotes",
        ),
        (
            "compressor: {podTemplate: [a]}",
            "spec.compressor.podTemplate: [\"a\"]: must be a group of fields",
        ),
        (
            "compressor: {podTemplate: {spec: {containers: [{name: worker, securityContext: {privileged: true}}]}}}",
            "spec.compressor.podTemplate.spec.containers[0].securityContext.privileged: true: must not be true; remove it",
        ),
        (
            "decompressor: {podTemplate: {spec: {volumes: [{name: a, hostPath: {path: /}}]}}}",
            "volumes[0].hostPath: must not be given; use a PersistentVolumeClaim",
        ),
        (
            "compressor: {resources: {limits: {cpu: lots}}}",
            "limits.cpu: lots: must be an amount of a resource",
        ),
        (
            "compressor: {resources: {limits: {cpu: 0.5}}}",
            "limits.cpu: 0.5: must be a whole number or text; write it in quotes",
        ),
        (
            "aws: {endpointURL: 'http://me:secret@host'}",
            "without credentials",
        ),
        ("aws: {region: US East}", "must be an AWS region"),
        (
            "volume: {persistentVolumeClaim: {}}",
            "claimName: is missing",
        ),
        (
            "image: {repository: 'a b'}",
            "must be an image's repository without a tag",
        ),
        (
            "codec: [4Mi]",
            "spec.codec: [\"4Mi\"]: must be a group of fields",
        ),
        (
            "codec: {effort: 3}",
            "effort: 3: must be one of Fast, Balanced, Max",
        ),
        (
            "colour: red",
            "spec.colour: is not a field; known here: aws,",
        ),
    ] {
        let said = spec_problems(&format!("spec:\n  {spec}\n"));
        assert_eq!(said.len(), 1, "{spec}: {said:#?}");
        assert!(said[0].starts_with("shop.yaml:5:"), "{}", said[0]);
        assert!(said[0].contains(expected), "{}\nlacks\n{expected}", said[0]);
    }
}

#[test]
fn good_values_of_every_form_are_accepted() {
    for spec in [
        "{}",
        "{codec: {blockSize: 4194304, recordSize: 500k}}",
        "{codec: {blockSize: \"4Mi\"}}",
        "{source: {location: \"s3://my-bucket/in/\"}, destination: {location: \"s3://my-bucket/out\"}}",
        "{source: {location: \"file:///data/Sales 2024/in\"}}",
        "{compressor: {resources: {limits: {cpu: 2, memory: 1.5Gi, nvidia.com/gpu: 1}}}}",
        "{compressor: {podTemplate: {metadata: {labels: {a: b}}, spec: {tolerations: [{operator: Exists}]}}}}",
        "{aws: {endpointURL: \"http://localstack.test:4566\", credentialsSecretRef: {name: aws}}}",
        "{image: {repository: registry.test:5000/a/b, tag: v1, pullSecrets: [{name: pull}]}}",
        "{generator: {schema: {inline: {anything: [1, {goes: here}]}}}}",
    ] {
        let text = format!("{HEAD}spec: {spec}\n");
        let (pipeline, _) =
            load_one(&text, "shop.yaml").unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert_eq!(pipeline.pipeline().metadata.name.as_deref(), Some("shop"));
    }
}

#[test]
fn the_head_of_a_document_is_checked() {
    for (text, expected) in [
        (
            "kind: CompressionPipeline\nmetadata: {name: a}\nspec: {}\n",
            "f:1:1: apiVersion: is missing; write streampress.dev/v1alpha1",
        ),
        (
            "apiVersion: streampress.dev/v1\nkind: CompressionPipeline\n",
            "f:1:13: apiVersion: streampress.dev/v1: is not known",
        ),
        (
            "apiVersion: streampress.dev/v1alpha1\nkind: CompresionPipeline\nmetadata: {name: a}\nspec: {}\n",
            "f:2:7: kind: CompresionPipeline: is not known; did you mean CompressionPipeline?",
        ),
        (
            "spec: {}\n",
            "f:1:1: kind: is missing; begin with apiVersion: streampress.dev/v1alpha1",
        ),
        ("- a\n", "must be a group of fields"),
        (
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {}\nspec: {}\n",
            "f:3:11: metadata.name: is missing",
        ),
        (
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {name: a.b}\nspec: {}\n",
            "f:3:18: metadata.name: a.b: must be at most 50 characters",
        ),
        (
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {name: a, lables: {}}\nspec: {}\n",
            "did you mean labels?",
        ),
        (
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {name: a, labels: {v: 1}}\nspec: {}\n",
            "metadata.labels.v: 1: must be text; write it in quotes",
        ),
        (
            "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata: {name: a}\n",
            "spec: is missing",
        ),
        ("", "f:1:1: contains 0 pipelines"),
    ] {
        let said: Vec<String> = load_one(text, "f")
            .expect_err(text)
            .iter()
            .map(Diagnostic::to_string)
            .collect();
        assert_says(&said, &[expected]);
    }
}

#[test]
fn a_misspelt_kind_hides_no_other_mistake() {
    let text = "apiVersion: streampress.dev/v1alpha1\nkind: compressionpipeline\nmetadata: {name: a.b}\nspec: {codec: {effort: Fst}}\n";
    assert_says(
        &problems(text),
        &[
            "2:7: kind: compressionpipeline: is not known; did you mean CompressionPipeline?",
            "3:18: metadata.name: a.b: must be",
            "4:24: spec.codec.effort: Fst: must be one of",
        ],
    );
}

#[test]
fn a_misspelt_field_beside_the_right_one_is_not_to_be_given_its_name() {
    let said = spec_problems("spec: {codec: {effort: Fast}, Codec: {effort: Max}}\n");
    let expected =
        "spec.Codec: is not a field; codec is there too: keep one of them, under that name";
    assert_says(&said, &[expected]);
}

#[test]
fn the_advice_for_a_number_with_a_zero_in_front_keeps_its_sign() {
    let inline =
        "generator: {schema: {inline: {fields: [{name: a, kind: int, min: -010, max: 010}]}}}";
    let said = spec_problems(&format!("spec:\n  {inline}\n"));
    assert_says(
        &said,
        &[
            "which kubectl reads as -8; write -10; where text is meant, \"-010\" in quotes",
            "which kubectl reads as 8; write 10; where text is meant, \"010\" in quotes",
        ],
    );
}

#[test]
fn documents_of_other_kinds_are_ignored_with_a_notice() {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n---\n{HEAD}spec: {{}}\n---\n"
    );
    let documents = load(&text, "shop.yaml").expect("valid");
    assert_eq!(documents.pipelines.len(), 1);
    let said: Vec<String> = documents
        .notices
        .iter()
        .map(Diagnostic::to_string)
        .collect();
    assert_says(
        &said,
        &[
            "shop.yaml:2:7: kind: ConfigMap: is ignored; only CompressionPipeline is read here",
            "spec.volume: must be given when a location begins with file:// (in a cluster; `streampress run` has its own folder)",
        ],
    );
    let twice = format!("{HEAD}spec: {{}}\n---\n{HEAD}spec: {{}}\n");
    assert_eq!(load(&twice, "f").expect("valid").pipelines.len(), 2);
    assert_says(
        &[load_one(&twice, "f").expect_err("two")[0].to_string()],
        &["contains 2 pipelines, must contain one; write each"],
    );
}

#[test]
fn a_deliberate_risk_is_noticed() {
    let text = format!(
        "{HEAD}spec: {{source: {{onCompressed: Delete}}, generator: {{schema: {{configMap: a}}}}}}\n"
    );
    let said: Vec<String> = load(&text, "f")
        .expect("valid")
        .notices
        .iter()
        .map(Diagnostic::to_string)
        .collect();
    assert_says(
        &said,
        &[
            "onCompressed: Delete: leaves the stream with the only copy",
            "configMap: a: can be read in a cluster only",
            "spec.volume",
        ],
    );
}

#[test]
fn a_copy_from_a_cluster_is_read_with_what_the_cluster_added() {
    let text = "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\nmetadata:\n  name: shop\n  namespace: sales\n  uid: 0f1c\n  generation: 2\n  creationTimestamp: \"2026-01-01T00:00:00Z\"\n  managedFields: [{manager: kubectl}]\nspec: {}\nstatus: {phase: Whatever, progress: 3}\n";
    let (pipeline, _) = load_one(text, "f").unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(
        pipeline.pipeline().metadata.namespace.as_deref(),
        Some("sales")
    );
    assert_eq!(pipeline.pipeline().status, None);
}

#[test]
fn the_pipelines_of_a_list_are_read_and_their_mistakes_have_their_own_positions() {
    let item = |name: &str, effort: &str| {
        format!(
            "- apiVersion: streampress.dev/v1alpha1\n\
             \x20 kind: CompressionPipeline\n\
             \x20 metadata: {{name: {name}}}\n\
             \x20 spec:\n\
             \x20   codec: {{effort: {effort}}}\n"
        )
    };
    for head in [
        "apiVersion: v1\nkind: List\n",
        "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipelineList\n",
    ] {
        let text = format!("{head}items:\n{}{}", item("a", "Max"), item("b", "Fast"));
        let documents = load(&text, "list.yaml").expect("two pipelines");
        let names = documents.pipelines.iter();
        let names = names.map(|it| it.pipeline().metadata.name.as_deref());
        assert_eq!(names.collect::<Vec<_>>(), [Some("a"), Some("b")]);
        assert_eq!(documents.places[1].of("spec.codec.effort"), (13, 21));
        let text = format!("{head}items:\n{}{}", item("a", "Max"), item("b", "fast"));
        assert_says(
            &problems(&text),
            &["shop.yaml:13:21: spec.codec.effort: fast"],
        );
        let empty = load(&format!("{head}items: []\n"), "list.yaml").expect("no problem");
        assert!(empty.pipelines.is_empty());
    }
}

#[test]
fn broken_yaml_is_reported_with_its_position_and_later_documents_are_still_read() {
    let text = format!("a: [1, 2\nb: c\n---\n{HEAD}spec: {{codec: {{effort: Fst}}}}\n");
    let said = problems(&text);
    assert_says(&said, &["is not YAML", "spec.codec.effort: Fst"]);
    assert!(
        said[0].starts_with("shop.yaml:2:") || said[0].starts_with("shop.yaml:1:"),
        "{}",
        said[0]
    );
    assert!(said[1].starts_with("shop.yaml:7:"), "{}", said[1]);
}

#[test]
fn a_name_written_twice_is_reported_with_both_lines() {
    let said = spec_problems("spec:\n  suspend: true\n  suspend: false\n");
    assert_says(
        &said,
        &["shop.yaml:6:3: suspend: is written twice, first in line 5; keep one of the two"],
    );
}

/// Comments were once read as values if the Kubernetes client was in the build, as in the image.
#[test]
fn comments_may_be_wherever_yaml_allows_them() {
    let text = "# top\napiVersion: streampress.dev/v1alpha1 # version\nkind: CompressionPipeline\nmetadata: # head\n  # inside\n  name: shop # name\nspec: # spec\n  source: {location: \"file:///data/in\", # place\n    formats: [json, # one\n      csv]} # end\n  # before a field\n  destination: # empty so far\n    location: file:///data/out\n# bottom\n";
    let (pipeline, _) = load_one(text, "f").unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(pipeline.pipeline().spec.source.formats.len(), 2);
}

#[test]
fn anchors_and_merges_are_followed() {
    let text = format!(
        "{HEAD}spec:\n  compressor: &worker {{replicas: 2, slots: 2}}\n  decompressor:\n    <<: *worker\n    replicas: 3\n"
    );
    let (pipeline, _) = load_one(&text, "f").unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(
        (
            pipeline.pipeline().spec.decompressor.replicas,
            pipeline.pipeline().spec.decompressor.slots
        ),
        (3, Some(2))
    );
}

#[test]
fn no_damage_to_a_file_makes_reading_it_panic() {
    let example = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/stock-market.yaml"),
    );
    let example = example.expect("an example");
    let bits = b"{}[]:,-&*!|>'\"%@#?\n\t \\~0a\xf0\x9f\x00";
    let mut random = 1u64;
    let mut next = |below: usize| {
        // Numerical Recipes' generator: the same damage at every run.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut read, mut refused) = (0, 0);
    for _ in 0..1_500 {
        let mut damaged = example.clone();
        for _ in 0..=next(4) {
            let at = next(damaged.len());
            match next(3) {
                0 => damaged[at] = bits[next(bits.len())],
                1 => damaged.insert(at, bits[next(bits.len())]),
                _ => damaged.truncate(at.max(1)),
            }
        }
        match load(&String::from_utf8_lossy(&damaged), "f") {
            Ok(_) => read += 1,
            Err(problems) => {
                assert!(
                    problems
                        .iter()
                        .all(|problem| problem.line >= 1 && problem.column >= 1),
                    "{problems:#?}"
                );
                refused += 1;
            }
        }
    }
    assert!(read > 50 && refused > 500, "{read} read, {refused} refused");
}

#[test]
fn hostile_files_are_refused() {
    let bomb = (1..40).fold(
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(),
        |text, level| {
            let below = format!("*a{}, ", level - 1).repeat(9);
            format!("{text}a{level}: &a{level} [{below}]\n")
        },
    );
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_blocks: String = (0..5_000)
        .map(|level| format!("{}a:\n", " ".repeat(level.min(200))))
        .collect();
    let long = format!("a: {}", "x".repeat(2 << 20));
    let many = format!("a: [{}]", "1,".repeat(200_000));
    let names: String = (0..20_000).map(|name| format!("a{name}: 1\n")).collect();
    let unknown = format!("{HEAD}spec:\n  {}: 1\n", "y".repeat(1_000));
    let crowded: String = (0..15_000)
        .map(|name| format!("  unknown{name}: 1\n"))
        .collect();
    let crowded = format!("{HEAD}spec:\n{crowded}");
    let long_name = format!("{HEAD}spec:\n  ? {}\n  : 1\n", "z".repeat(900_000));
    let tagged = "a: !python/object:os.system rm\n".to_owned();
    let own = "a: &a [*a]\n".to_owned();
    let controls = format!("{HEAD}spec:\n  ordering: \"\\e[31mred\\0\"\n");
    for text in [
        bomb,
        deep,
        deep_blocks,
        crowded,
        long_name,
        long,
        many,
        names,
        unknown,
        tagged,
        own,
        controls.clone(),
    ] {
        let problems = load(&text, "f").expect_err(&text[..text.len().min(80)]);
        assert!(problems.len() <= 101, "{}", problems.len());
        for problem in problems {
            let said = problem.to_string();
            assert!(said.len() < 1_000, "{said}");
            assert!(!said.contains(char::is_control), "{said:?}");
        }
    }
}

#[test]
fn what_must_be_there_and_is_not_is_named_with_what_to_write() {
    let head = "apiVersion: streampress.dev/v1alpha1\nkind: CompressionPipeline\n";
    for spec in ["spec:\n", "spec: ~\n"] {
        let said = problems(&format!("{head}metadata: {{name: shop}}\n{spec}"));
        assert_says(&said, &["spec: has no value; write spec: {}"]);
    }
    let said = problems(&format!("{head}metadata: {{name: Shop_1}}\n"));
    assert_says(
        &said,
        &["spec: is missing; add spec: {}", "metadata.name: Shop_1"],
    );
    let said = problems(&format!("{head}metadata: {{}}\nspec: {{}}\n"));
    assert_says(&said, &["metadata.name: is missing; add name: my-pipeline"]);
}
