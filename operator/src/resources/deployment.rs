//! The pods of each role, under the restricted pod security standard, and how many of them may be evicted at once.
//! `template.rs` lays the user's pod template over ours.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};
use streampress_crds::Role;
use streampress_crds::api::pipeline::{
    AutoscalingMode, PullPolicy, ResourceAmount, ResourcesSpec, WorkerSpec,
};
use streampress_crds::settings::{self, SCHEMA_MOUNT, SchemaSource, Settings};

use super::access::{METRICS, METRICS_PORT, service_account};
use super::object::{OwnedObject, RoleDeployment};
use super::template::{laid_over, merge};
use super::{BuildInput, names};

/// The user and group of the image; the volume is given to this group.
const USER: i64 = 65_532;
/// Seconds for a worker to stop at the next block, release its message and then its slot.
const GRACE_SECONDS: i64 = 60;
/// Seconds in which pods must come up; then they count as not starting.
pub(crate) const PROGRESS_SECONDS: i32 = 300;
/// Seconds for which a pod must have been ready to count as available: one that ends at once, again and again, never is.
const STABLE_SECONDS: i32 = 10;
/// The keys of a credentials Secret; only the session token may be missing.
const CREDENTIALS: [(&str, Option<bool>); 3] = [
    ("AWS_ACCESS_KEY_ID", None),
    ("AWS_SECRET_ACCESS_KEY", None),
    ("AWS_SESSION_TOKEN", Some(true)),
];
/// The name of the worker's container.
pub(crate) const WORKER: &str = "worker";

pub(super) fn objects(input: &BuildInput<'_>) -> Vec<OwnedObject> {
    let mut objects = Vec::new();
    for role in Role::ALL {
        if let Some(settings) = settings_of(input, role) {
            objects.push(deployment(input, &settings));
            objects.extend(disruption_budget(input, role));
        }
    }
    objects
}

/// While a pipeline is suspended, compressors pack nothing; they take the receipts of what is still restored.
fn settings_of(input: &BuildInput<'_>, role: Role) -> Option<Settings> {
    let mut settings = input.resolved.for_role(role)?;
    if let Settings::Compressor(compressor) = &mut settings {
        let has_receipts = compressor.transport.receipts_queue.is_some();
        if input.pipeline.spec.suspend && has_receipts {
            *compressor = compressor.clone().of_receipts_only();
        }
    }
    Some(settings)
}

fn deployment(input: &BuildInput<'_>, settings: &Settings) -> OwnedObject {
    let role = settings.role();
    let object = Deployment {
        metadata: input.metadata(names::of_role(input.name, role), role.as_str()),
        spec: Some(DeploymentSpec {
            replicas: input.replicas.get(&role).copied(),
            selector: selector(input, role),
            revision_history_limit: Some(2),
            progress_deadline_seconds: Some(PROGRESS_SECONDS),
            min_ready_seconds: Some(STABLE_SECONDS),
            // The new worker is ready before the old one releases its slot.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let has_template = users_template(input, role).is_some();
    OwnedObject::Deployment(Box::new(RoleDeployment {
        object,
        first_replicas: match worker(input, role) {
            // One is enough for what a suspended pipeline still has to do.
            Some(worker) if !input.pipeline.spec.suspend => worker.autoscaling.min.max(1),
            Some(_) | None => 1,
        },
        users_template: has_template.then(|| format!("spec.{role}.podTemplate")),
        template: pod_template(input, settings),
    }))
}

fn selector(input: &BuildInput<'_>, role: Role) -> LabelSelector {
    LabelSelector {
        match_labels: Some(names::selector(input.name, Some(role))),
        ..LabelSelector::default()
    }
}

/// Only for roles with more than one pod: with a single one it would only keep nodes from being drained.
fn disruption_budget(input: &BuildInput<'_>, role: Role) -> Option<OwnedObject> {
    let worker = worker(input, role)?;
    let most = match worker.autoscaling.mode {
        AutoscalingMode::None => worker.replicas,
        AutoscalingMode::Internal | AutoscalingMode::External => worker.autoscaling.max,
    };
    (most > 1).then(|| {
        OwnedObject::PodDisruptionBudget(PodDisruptionBudget {
            metadata: input.metadata(names::of_role(input.name, role), role.as_str()),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(selector(input, role)),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        })
    })
}

fn worker<'a>(input: &BuildInput<'a>, role: Role) -> Option<&'a WorkerSpec> {
    match role {
        Role::Generator => None,
        Role::Compressor => Some(&input.pipeline.spec.compressor),
        Role::Decompressor => Some(&input.pipeline.spec.decompressor),
    }
}

/// CPU and memory of a role's pods.
fn amounts<'a>(input: &BuildInput<'a>, role: Role) -> Option<&'a ResourcesSpec> {
    match worker(input, role) {
        Some(worker) => Some(&worker.resources),
        None => Some(&input.pipeline.spec.generator.as_ref()?.resources),
    }
}

/// What the user wants merged into a role's pod template.
pub(super) fn users_template<'a>(
    input: &BuildInput<'a>,
    role: Role,
) -> Option<&'a Map<String, Value>> {
    match worker(input, role) {
        Some(worker) => worker.pod_template.as_ref(),
        None => input
            .pipeline
            .spec
            .generator
            .as_ref()?
            .pod_template
            .as_ref(),
    }
}

/// Our template, the user's laid over it, and on top the labels that the selector needs.
fn pod_template(input: &BuildInput<'_>, settings: &Settings) -> Value {
    let role = settings.role();
    let secrets = &input.pipeline.spec.image.pull_secrets;
    let secrets: Vec<_> = secrets
        .iter()
        .map(|secret| LocalObjectReference {
            name: secret.name.clone(),
        })
        .collect();
    let ours = PodTemplateSpec {
        metadata: None,
        spec: Some(PodSpec {
            service_account_name: Some(service_account(input)),
            image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(input, settings)],
            volumes: Some(volumes(input, settings)),
            ..PodSpec::default()
        }),
    };
    let mut template = laid_over(&ours, users_template(input, role));
    let labels = names::labels(input.name, role.as_str());
    merge(&mut template, &json!({"metadata": {"labels": labels}}));
    template
}

fn container(input: &BuildInput<'_>, settings: &Settings) -> Container {
    let role = settings.role();
    Container {
        name: WORKER.into(),
        image: Some(image(input)),
        image_pull_policy: Some(
            match input.pipeline.spec.image.pull_policy {
                PullPolicy::IfNotPresent => "IfNotPresent",
                PullPolicy::Always => "Always",
                PullPolicy::Never => "Never",
            }
            .into(),
        ),
        command: Some(vec!["streampress".into()]),
        args: Some(vec![
            match role {
                Role::Generator => "generate",
                Role::Compressor => "compress",
                Role::Decompressor => "decompress",
            }
            .into(),
        ]),
        env: Some(env(input, settings)),
        ports: Some(vec![ContainerPort {
            name: Some(METRICS.into()),
            container_port: METRICS_PORT,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(probe("/readyz", 5, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        resources: amounts(input, role).and_then(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(settings)),
        ..Container::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(METRICS.into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        // A worker does not listen in its first moment: without this every pod's life would begin with a warning.
        initial_delay_seconds: Some(1),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn resources(given: &ResourcesSpec) -> Option<ResourceRequirements> {
    let quantities = |given: &BTreeMap<String, ResourceAmount>| {
        let quantities = given.iter().map(|(name, amount)| {
            let amount = match amount {
                ResourceAmount::Number(number) => number.to_string(),
                ResourceAmount::Text(text) => text.clone(),
            };
            (name.clone(), Quantity(amount))
        });
        (!given.is_empty()).then(|| quantities.collect())
    };
    let requirements = ResourceRequirements {
        requests: quantities(&given.requests),
        limits: quantities(&given.limits),
        claims: None,
    };
    (requirements != ResourceRequirements::default()).then_some(requirements)
}

/// The image of a pipeline's workers.
fn image(input: &BuildInput<'_>) -> String {
    let given = &input.pipeline.spec.image;
    let default = &input.defaults.image;
    // A digest has a colon too; a tag before it says nothing more.
    let repository = without_tag(default.split('@').next().unwrap_or_default());
    let default_tag = match default.split_once('@') {
        Some((_, digest)) => digest,
        None => default[repository.len()..]
            .strip_prefix(':')
            .unwrap_or("latest"),
    };
    let repository = given.repository.as_deref().unwrap_or(repository);
    match given.tag.as_deref().unwrap_or(default_tag) {
        digest if digest.starts_with("sha256:") => format!("{repository}@{digest}"),
        tag => format!("{repository}:{tag}"),
    }
}

/// The repository of an image's name, which may have a port.
fn without_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

fn env(input: &BuildInput<'_>, settings: &Settings) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar {
        name: name.into(),
        value: Some(value),
        value_from: None,
    };
    let from = |name: &str, source: EnvVarSource| EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(source),
    };
    let field = |name: &str, path: &str| {
        let field = ObjectFieldSelector {
            api_version: Some("v1".into()),
            field_path: path.into(),
        };
        from(
            name,
            EnvVarSource {
                field_ref: Some(field),
                ..EnvVarSource::default()
            },
        )
    };
    let mut env = vec![
        value(settings::VARIABLE, settings.to_json()),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        value("TMPDIR", "/tmp".into()),
    ];
    if let Some(secret) = &input.pipeline.spec.aws.credentials_secret_ref {
        env.extend(CREDENTIALS.map(|(key, optional)| {
            let key_ref = SecretKeySelector {
                name: secret.name.clone(),
                key: key.into(),
                optional,
            };
            from(
                key,
                EnvVarSource {
                    secret_key_ref: Some(key_ref),
                    ..EnvVarSource::default()
                },
            )
        }));
    }
    env
}

fn volumes(input: &BuildInput<'_>, settings: &Settings) -> Vec<Volume> {
    let empty = |name: &str| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let data = match &input.pipeline.spec.volume {
        Some(volume) => Volume {
            name: "data".into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: volume.persistent_volume_claim.claim_name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        },
        None => empty("data"),
    };
    let mut volumes = vec![data, empty("tmp")];
    if let Some((name, key)) = schema_config_map(input, settings) {
        volumes.push(Volume {
            name: "schema".into(),
            config_map: Some(ConfigMapVolumeSource {
                name,
                items: Some(vec![KeyToPath {
                    path: key.clone(),
                    key,
                    mode: None,
                }]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    volumes
}

fn mounts(settings: &Settings) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("data", "/data"), mount("tmp", "/tmp")];
    if schema_file(settings).is_some() {
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..mount("schema", SCHEMA_MOUNT)
        });
    }
    mounts
}

fn schema_file(settings: &Settings) -> Option<&str> {
    match settings {
        Settings::Generator(generator) => match &generator.generator.as_ref()?.schema {
            SchemaSource::File(path) => Some(path),
            SchemaSource::Example(_) | SchemaSource::Inline(_) => None,
        },
        Settings::Compressor(_) | Settings::Decompressor(_) => None,
    }
}

fn schema_config_map(input: &BuildInput<'_>, settings: &Settings) -> Option<(String, String)> {
    let key = schema_file(settings)?.rsplit('/').next()?.to_owned();
    let schema = input.pipeline.spec.generator.as_ref()?.schema.as_ref()?;
    Some((schema.config_map.clone()?, key))
}
