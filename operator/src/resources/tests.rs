//! What is built for which pipeline.

use serde_json::{Value, json};
use streampress_crds::api::pipeline::CompressionPipeline;
use streampress_crds::{CheckedPipeline, Role};

use super::{ObjectKind, OwnedObject, Replicas, WorkerDefaults, build};

fn pipeline(spec: Value) -> CompressionPipeline {
    let object = json!({
        "apiVersion": "streampress.dev/v1alpha1",
        "kind": "CompressionPipeline",
        "metadata": {"name": "stock", "namespace": "demo", "uid": "0b8a7a6e-0000-0000-0000-000000000001"},
        "spec": spec,
    });
    serde_json::from_value(object).expect("a pipeline")
}

fn with_volume(mut spec: Value) -> Value {
    spec["volume"] = json!({"persistentVolumeClaim": {"claimName": "files"}});
    spec
}

fn built_with(spec: Value, replicas: &Replicas) -> Vec<OwnedObject> {
    built_from("registry:5000/streampress:1.2", spec, replicas)
}

/// From an operator with this default image of workers.
fn built_from(image: &str, spec: Value, replicas: &Replicas) -> Vec<OwnedObject> {
    let checked = CheckedPipeline::in_cluster(pipeline(with_volume(spec)));
    let checked = checked.expect("a valid pipeline");
    let defaults = WorkerDefaults {
        image: image.into(),
        network_policies: true,
    };
    build(&checked, replicas, &defaults)
}

fn built(spec: Value) -> Vec<OwnedObject> {
    let replicas = [
        (Role::Generator, 1),
        (Role::Compressor, 2),
        (Role::Decompressor, 1),
    ]
    .into();
    built_with(spec, &replicas)
}

fn find(objects: &[OwnedObject], kind: ObjectKind, name: &str) -> Value {
    let object = objects
        .iter()
        .find(|object| object.kind() == kind && object.name() == name);
    json(object.unwrap_or_else(|| panic!("no {kind:?} {name}")))
}

fn json(object: &OwnedObject) -> Value {
    serde_json::to_value(object).expect("JSON")
}

fn names(objects: &[OwnedObject]) -> Vec<String> {
    objects
        .iter()
        .map(|object| format!("{} {}", object.kind().name(), object.name()))
        .collect()
}

#[test]
fn a_pipeline_is_these_objects_in_this_order() {
    let expected = [
        "ServiceAccount stock-worker",
        "Role stock-worker",
        "RoleBinding stock-worker",
        "Lease stock-compressor-0",
        "Lease stock-compressor-1",
        "Lease stock-decompressor-0",
        "Lease stock-generator-0",
        "Service stock-metrics",
        "NetworkPolicy stock-worker",
        "PodDisruptionBudget stock-compressor",
        "Deployment stock-compressor",
        "Deployment stock-decompressor",
        "Deployment stock-generator",
    ];
    let spec = json!({"generator": {"schema": {"example": "stock-market"}}, "compressor": {"replicas": 2, "slots": 2}});
    assert_eq!(names(&built(spec)), expected);
    let scanned = names(&built(json!({"source": {"scanSeconds": 5}})));
    for object in ["Lease stock-generator-0", "Deployment stock-generator"] {
        assert!(scanned.iter().any(|name| name == object), "{scanned:?}");
    }
    let without = names(&built(json!({})));
    assert!(
        !without.iter().any(|name| name.contains("generator")),
        "{without:?}"
    );
}

#[test]
fn every_object_belongs_to_its_pipeline() {
    for object in built(json!({})) {
        let meta = &json(&object)["metadata"];
        assert_eq!(meta["namespace"], "demo", "{}", object.name());
        assert_eq!(
            meta["ownerReferences"][0]["uid"],
            "0b8a7a6e-0000-0000-0000-000000000001"
        );
        assert_eq!(meta["ownerReferences"][0]["controller"], true);
        assert_eq!(
            meta["labels"]["app.kubernetes.io/managed-by"],
            "streampress-operator"
        );
    }
}

#[test]
fn workers_may_write_their_own_leases_see_those_of_the_namespace_and_nothing_else() {
    let objects = built(json!({"compressor": {"slots": 2}}));
    let rules = &find(&objects, ObjectKind::Role, "stock-worker")["rules"];
    let expected = json!([
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["stock-compressor-0", "stock-compressor-1", "stock-decompressor-0"],
            "verbs": ["get", "update"],
        },
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["list", "watch"],
        },
    ]);
    assert_eq!(*rules, expected);
}

#[test]
fn a_role_gets_its_own_settings_and_rolls_only_for_them() {
    let of = |spec| {
        find(&built(spec), ObjectKind::Deployment, "stock-decompressor")["spec"]["template"].clone()
    };
    let before = of(json!({}));
    let variable = before["spec"]["containers"][0]["env"][0].clone();
    assert_eq!(variable["name"], "STREAMPRESS_PIPELINE");
    assert!(
        variable["value"]
            .as_str()
            .is_some_and(|json| json.contains(r#""role":"decompressor""#)),
        "{variable}"
    );
    assert_eq!(
        before,
        of(json!({"codec": {"effort": "Max"}, "compressor": {"replicas": 7}, "suspend": true}))
    );
    assert_ne!(
        before,
        of(json!({"destination": {"location": "file:///data/elsewhere"}}))
    );
}

#[test]
fn compressors_of_a_suspended_pipeline_only_take_receipts_where_there_are_any() {
    let settings = |spec| {
        let compressor = find(&built(spec), ObjectKind::Deployment, "stock-compressor");
        let value = &compressor["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"];
        let json = value.as_str().expect("text");
        let settings: Value = serde_json::from_str(json).expect("JSON");
        (
            settings["receiptsOnly"].clone(),
            settings["version"].clone(),
        )
    };
    let packs = (Value::Null, json!(1));
    assert_eq!(settings(json!({})), packs);
    // An earlier release's worker would ignore the field, and pack: it refuses the version.
    assert_eq!(settings(json!({"suspend": true})), (json!(true), json!(2)));
    let original = json!({"suspend": true, "codec": {"format": "Seed"}});
    assert_eq!(settings(original), packs);
}

#[test]
fn pods_meet_the_restricted_standard() {
    let objects = built(json!({}));
    let pod =
        &find(&objects, ObjectKind::Deployment, "stock-compressor")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    assert_eq!(container["image"], "registry:5000/streampress:1.2");
}

#[test]
fn secrets_are_referred_to_and_never_written_down() {
    let objects = built(json!({"aws": {"credentialsSecretRef": {"name": "keys"}}}));
    let env = find(&objects, ObjectKind::Deployment, "stock-compressor")["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let keys: Vec<_> = env
        .as_array()
        .into_iter()
        .flatten()
        .filter(|var| var["valueFrom"]["secretKeyRef"]["name"] == "keys")
        .collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[2]["valueFrom"]["secretKeyRef"]["optional"], true);
}

#[test]
fn replicas_are_left_out_where_others_scale() {
    let objects = built_with(json!({}), &[(Role::Decompressor, 0)].into());
    assert_eq!(
        find(&objects, ObjectKind::Deployment, "stock-compressor")["spec"].get("replicas"),
        None
    );
    assert_eq!(
        find(&objects, ObjectKind::Deployment, "stock-decompressor")["spec"]["replicas"],
        0
    );
}

#[test]
fn the_users_template_is_laid_over_but_cannot_lose_the_selectors_labels() {
    let template = json!({
        "metadata": {"labels": {"team": "a", "app.kubernetes.io/instance": "other"}},
        "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "worker", "env": [{"name": "RUST_LOG", "value": "debug"}]}]},
    });
    let objects = built(json!({"compressor": {"podTemplate": template}}));
    let deployment = find(&objects, ObjectKind::Deployment, "stock-compressor");
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    for (key, value) in deployment["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        assert_eq!(pod["metadata"]["labels"][key], *value);
    }
    assert_eq!(pod["spec"]["tolerations"][0]["operator"], "Exists");
    let env = pod["spec"]["containers"][0]["env"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(env, 5);
}

#[test]
fn the_pods_of_every_role_have_the_amounts_and_the_template_of_its_spec() {
    let of_role = json!({
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi"}},
        "podTemplate": {"metadata": {"labels": {"team": "a"}}, "spec": {"nodeSelector": {"disk": "fast"}}},
    });
    let mut generator = of_role.clone();
    generator["schema"] = json!({"example": "stock-market"});
    let generates = json!({"generator": generator, "compressor": of_role, "decompressor": of_role});
    // Where nothing is generated, the same pod scans.
    let scans = json!({"source": {"scanSeconds": 5}, "generator": of_role, "compressor": of_role, "decompressor": of_role});
    for spec in [generates, scans] {
        let objects = built(spec);
        let deployments = objects
            .iter()
            .filter(|object| object.kind() == ObjectKind::Deployment);
        let deployments: Vec<Value> = deployments.map(json).collect();
        assert_eq!(deployments.len(), Role::ALL.len());
        for deployment in deployments {
            let pod = &deployment["spec"]["template"];
            let (name, container) = (
                &deployment["metadata"]["name"],
                &pod["spec"]["containers"][0],
            );
            assert_eq!(container["resources"], of_role["resources"], "{name}");
            assert_eq!(pod["metadata"]["labels"]["team"], "a", "{name}");
            assert_eq!(pod["spec"]["nodeSelector"]["disk"], "fast", "{name}");
        }
    }
}

#[test]
fn a_users_own_service_account_is_used_and_not_made() {
    let objects = built(json!({"aws": {"serviceAccountName": "irsa"}}));
    assert!(!names(&objects).contains(&"ServiceAccount stock-worker".to_owned()));
    assert_eq!(
        find(&objects, ObjectKind::RoleBinding, "stock-worker")["subjects"][0]["name"],
        "irsa"
    );
    assert_eq!(
        find(&objects, ObjectKind::Deployment, "stock-compressor")["spec"]["template"]["spec"]["serviceAccountName"],
        "irsa"
    );
}

#[test]
fn an_account_of_a_pod_template_may_hold_slots_as_the_others_do() {
    let objects =
        built(json!({"compressor": {"podTemplate": {"spec": {"serviceAccountName": "scanner"}}}}));
    let binding = find(&objects, ObjectKind::RoleBinding, "stock-worker");
    let subjects = binding["subjects"].as_array().expect("subjects").iter();
    let names: Vec<_> = subjects.map(|subject| &subject["name"]).collect();
    assert_eq!(names, ["stock-worker", "scanner"]);
}

#[test]
fn a_config_map_schema_is_mounted_where_the_generator_looks() {
    let objects =
        built(json!({"generator": {"schema": {"configMap": "schemas", "key": "a.json"}}}));
    let pod =
        &find(&objects, ObjectKind::Deployment, "stock-generator")["spec"]["template"]["spec"];
    assert_eq!(
        pod["volumes"][2]["configMap"],
        json!({"name": "schemas", "items": [{"key": "a.json", "path": "a.json"}]})
    );
    assert_eq!(
        pod["containers"][0]["volumeMounts"][2]["mountPath"],
        "/etc/streampress/schema"
    );
}

#[test]
fn a_digest_is_no_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let objects = built(json!({"image": {"repository": "r/s", "tag": digest}}));
    let image = &find(&objects, ObjectKind::Deployment, "stock-compressor")["spec"]["template"]["spec"]
        ["containers"][0]["image"];
    assert_eq!(*image, format!("r/s@{digest}"));
}

#[test]
fn an_image_is_the_pipelines_repository_and_tag_or_the_operators() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = format!("host:5000/r/s@{digest}");
    let tagged_and_pinned = format!("host:5000/r/s:v1@{digest}");
    for (default, given, expected) in [
        ("host:5000/r/s:v1", json!({}), "host:5000/r/s:v1".to_owned()),
        (
            "host:5000/r/s",
            json!({}),
            "host:5000/r/s:latest".to_owned(),
        ),
        (
            "host:5000/r/s:v1",
            json!({"tag": "v2"}),
            "host:5000/r/s:v2".to_owned(),
        ),
        (
            "r/s:v1",
            json!({"repository": "h/other"}),
            "h/other:v1".to_owned(),
        ),
        (&pinned, json!({}), pinned.clone()),
        (&tagged_and_pinned, json!({}), pinned.clone()),
        (&pinned, json!({"tag": "v2"}), "host:5000/r/s:v2".to_owned()),
        (
            &pinned,
            json!({"repository": "h/mirror"}),
            format!("h/mirror@{digest}"),
        ),
    ] {
        let replicas = [(Role::Compressor, 1)].into();
        let objects = built_from(default, json!({"image": given}), &replicas);
        let image = &find(&objects, ObjectKind::Deployment, "stock-compressor")["spec"]["template"]
            ["spec"]["containers"][0]["image"];
        assert_eq!(*image, expected, "{default} {given}");
    }
}
