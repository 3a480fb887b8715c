//! The pods of each role, under the restricted pod security standard, and how many of them may be away at once.

use serde_json::{Value, json};
use streampress_crds::api::pipeline::{AutoscalingMode, PullPolicy, WorkerSpec};
use streampress_crds::settings::{self, Role, SCHEMA_MOUNT, SchemaSource, Settings};

use super::access::{METRICS_PORT, service_account};
use super::{Platform, Site};
use crate::resources::names;
use crate::resources::owned_object::{Child, Kind, merge};

/// The user and group of the image; the volume is given to this group.
const USER: i64 = 65_532;
/// Time for a worker to stop at the next block, give its message back and release its slot.
const GRACE_SECONDS: i64 = 60;
/// The keys of a credentials Secret; only the session token may be missing.
const CREDENTIALS: [(&str, bool); 3] = [
    ("AWS_ACCESS_KEY_ID", false),
    ("AWS_SECRET_ACCESS_KEY", false),
    ("AWS_SESSION_TOKEN", true),
];

pub(super) fn children(site: &Site<'_>) -> Vec<Child> {
    let roles = Role::ALL
        .into_iter()
        .filter_map(|role| site.resolved.for_role(role));
    roles
        .flat_map(|settings| {
            [
                Some(deployment(site, &settings)),
                disruption_budget(site, settings.role()),
            ]
        })
        .flatten()
        .collect()
}

fn deployment(site: &Site<'_>, settings: &Settings) -> Child {
    let role = settings.role();
    let mut spec = json!({
        "selector": {"matchLabels": names::selector(site.name, Some(role))},
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 300,
        // The new worker is warm before the old one gives its slot up.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": pod_template(site, settings),
    });
    if let Some(replicas) = site.replicas.get(&role) {
        spec["replicas"] = (*replicas).into();
    }
    site.child(
        Kind::Deployment,
        names::of_role(site.name, role),
        role.as_str(),
        json!({"spec": spec}),
    )
}

/// Only for roles with more than one pod: on a single one it would only keep nodes from being drained.
fn disruption_budget(site: &Site<'_>, role: Role) -> Option<Child> {
    let worker = worker(site, role)?;
    let most = match worker.autoscaling.mode {
        AutoscalingMode::None => worker.replicas,
        AutoscalingMode::Internal | AutoscalingMode::External => worker.autoscaling.max,
    };
    (most > 1).then(|| {
        let content = json!({"spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names::selector(site.name, Some(role))},
        }});
        site.child(
            Kind::PodDisruptionBudget,
            names::of_role(site.name, role),
            role.as_str(),
            content,
        )
    })
}

fn worker<'a>(site: &Site<'a>, role: Role) -> Option<&'a WorkerSpec> {
    match role {
        Role::Generator => None,
        Role::Compressor => Some(&site.pipeline.spec.compressor),
        Role::Decompressor => Some(&site.pipeline.spec.decompressor),
    }
}

/// Our template, the user's laid over it, and on top what must not be changed: the labels that the selector needs.
fn pod_template(site: &Site<'_>, settings: &Settings) -> Value {
    let role = settings.role();
    let spec = &site.pipeline.spec;
    let mut template = json!({"spec": {
        "serviceAccountName": service_account(site),
        "imagePullSecrets": spec.image.pull_secrets.iter().map(|secret| json!({"name": secret.name})).collect::<Vec<_>>(),
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(site, settings)],
        "volumes": volumes(site, settings),
    }});
    if let Some(over) = worker(site, role).and_then(|worker| worker.pod_template.clone()) {
        merge(&mut template, &Value::Object(over));
    }
    merge(
        &mut template,
        &json!({"metadata": {"labels": names::labels(site.name, role.as_str())}}),
    );
    template
}

fn container(site: &Site<'_>, settings: &Settings) -> Value {
    let role = settings.role();
    let resources = worker(site, role).map(|worker| &worker.resources);
    // Asked at the very first moment, every pod's life would begin with a warning.
    let probe = |path: &str, period: i32, failures: i32| json!({"httpGet": {"path": path, "port": "metrics", "scheme": "HTTP"}, "initialDelaySeconds": 1, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures});
    json!({
        "name": "worker",
        "image": image(site.pipeline, site.platform),
        "imagePullPolicy": match site.pipeline.spec.image.pull_policy {
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Always => "Always",
            PullPolicy::Never => "Never",
        },
        "command": ["streampress"],
        "args": [match role {
            Role::Generator => "generate",
            Role::Compressor => "compress",
            Role::Decompressor => "decompress",
        }],
        "env": env(site, settings),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "readinessProbe": probe("/readyz", 5, 3),
        "livenessProbe": probe("/livez", 10, 6),
        "resources": resources.map(|resources| json!({"requests": resources.requests, "limits": resources.limits})),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts(settings),
    })
}

/// The image of a pipeline's workers.
pub(super) fn image(
    pipeline: &streampress_crds::CompressionPipeline,
    platform: &Platform,
) -> String {
    let given = &pipeline.spec.image;
    let (default_repository, default_tag) = match platform.worker_image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (platform.worker_image.as_str(), "latest"),
    };
    let repository = given.repository.as_deref().unwrap_or(default_repository);
    match given.tag.as_deref().unwrap_or(default_tag) {
        digest if digest.starts_with("sha256:") => format!("{repository}@{digest}"),
        tag => format!("{repository}:{tag}"),
    }
}

fn env(site: &Site<'_>, settings: &Settings) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let mut env = vec![
        json!({"name": settings::VARIABLE, "value": settings.to_json()}),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        json!({"name": "TMPDIR", "value": "/tmp"}),
    ];
    if let Some(secret) = &site.pipeline.spec.aws.credentials_secret_ref {
        env.extend(CREDENTIALS.map(|(key, optional)| {
            let mut from = json!({"name": secret.name, "key": key});
            if optional {
                from["optional"] = true.into();
            }
            json!({"name": key, "valueFrom": {"secretKeyRef": from}})
        }));
    }
    env
}

fn volumes(site: &Site<'_>, settings: &Settings) -> Vec<Value> {
    let data = match &site.pipeline.spec.volume {
        Some(volume) => {
            json!({"name": "data", "persistentVolumeClaim": {"claimName": volume.persistent_volume_claim.claim_name}})
        }
        None => json!({"name": "data", "emptyDir": {}}),
    };
    let mut volumes = vec![data, json!({"name": "tmp", "emptyDir": {}})];
    if let Some((name, key)) = schema_config_map(site, settings) {
        volumes.push(json!({"name": "schema", "configMap": {"name": name, "items": [{"key": key, "path": key}]}}));
    }
    volumes
}

fn mounts(settings: &Settings) -> Vec<Value> {
    let mut mounts = vec![
        json!({"name": "data", "mountPath": "/data"}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    if schema_file(settings).is_some() {
        mounts.push(json!({"name": "schema", "mountPath": SCHEMA_MOUNT, "readOnly": true}));
    }
    mounts
}

fn schema_file(settings: &Settings) -> Option<&str> {
    match settings {
        Settings::Generator(generator) => match &generator.generator.schema {
            SchemaSource::File(path) => Some(path),
            SchemaSource::Example(_) | SchemaSource::Inline(_) => None,
        },
        Settings::Compressor(_) | Settings::Decompressor(_) => None,
    }
}

fn schema_config_map(site: &Site<'_>, settings: &Settings) -> Option<(String, String)> {
    let key = schema_file(settings)?.rsplit('/').next()?.to_owned();
    let schema = &site.pipeline.spec.generator.as_ref()?.schema;
    Some((schema.config_map.clone()?, key))
}
