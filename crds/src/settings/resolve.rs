//! Turns a pipeline, as written, into settings with every default and name filled in.

use crate::api::pipeline::{
    AutoscalingMode, CodecFormat, CompressionPipeline, GeneratorSchema, GeneratorSpec,
    OnCompressed, OnRestored, Ordering, QueueSpec, TransportPolicy, WorkerSpec,
};
use crate::defaults;
use crate::invalid::Invalid;
use crate::limits;
use crate::location::Location;
use crate::names::{self, TransportPart};
use crate::quantity::ByteSize;
use crate::settings::{
    AwsSettings, CodecSettings, CompressorSettings, DecompressorSettings, DecompressorTransport,
    GeneratorJob, GeneratorSettings, GeneratorTransport, Identity, LocationSettings,
    OnwardTransport, QueueSettings, Role, SCHEMA_MOUNT, SchemaSource, Settings, SourceSettings,
    StreamSettings, TransportSettings, VERSION,
};

/// A pipeline with every default and name filled in, arranged as the spec is.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The pipeline's name, namespace and ordering.
    pub identity: Identity,
    /// Where AWS is.
    pub aws: AwsSettings,
    /// The queues and the stream.
    pub transport: TransportSettings,
    /// Where files are found, and what becomes of them.
    pub source: SourceSettings,
    /// Where restored files go.
    pub destination: LocationSettings,
    /// How files are packed.
    pub codec: CodecSettings,
    /// What the generator makes, where the pipeline has one.
    pub generator: Option<GeneratorJob>,
    /// The compressors' slots and poll interval.
    pub compressor: WorkerSettings,
    /// The decompressors' slots and poll interval.
    pub decompressor: WorkerSettings,
    /// Where the report goes; none is written where left out.
    pub report: Option<LocationSettings>,
}

/// How many workers of a role work at once, and how often they poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Workers that may work at once.
    pub slots: u32,
    /// Seconds between two polls of an empty queue.
    pub interval_seconds: u32,
}

impl Resolved {
    /// Whether the pipeline has workers of this role.
    pub fn has_role(&self, role: Role) -> bool {
        match role {
            Role::Generator => self.generator.is_some() || self.source.scan_seconds > 0,
            Role::Compressor | Role::Decompressor => true,
        }
    }

    /// Workers of this role that may work at once: one generator where the pipeline has a generator or scans its source.
    pub fn slots(&self, role: Role) -> u32 {
        match role {
            Role::Generator => u32::from(self.has_role(role)),
            Role::Compressor => self.compressor.slots,
            Role::Decompressor => self.decompressor.slots,
        }
    }

    /// What one worker of this role needs; nothing for a role that the pipeline does not have.
    pub fn for_role(&self, role: Role) -> Option<Settings> {
        match role {
            Role::Generator => self.generator_settings().map(Settings::Generator),
            Role::Compressor => Some(Settings::Compressor(self.compressor_settings())),
            Role::Decompressor => Some(Settings::Decompressor(self.decompressor_settings())),
        }
    }

    /// What the generator role needs, where the pipeline has a generator or scans its source.
    pub fn generator_settings(&self) -> Option<GeneratorSettings> {
        self.has_role(Role::Generator).then(|| GeneratorSettings {
            identity: self.identity.clone(),
            aws: self.aws.clone(),
            transport: GeneratorTransport {
                files_queue: self.transport.files_queue.clone(),
                onward: self
                    .transport
                    .receipts_queue
                    .as_ref()
                    .map(|receipts| OnwardTransport {
                        chunks_queue: self.transport.chunks_queue.clone(),
                        receipts_queue: receipts.clone(),
                        stream: self.transport.stream.name.clone(),
                    }),
            },
            source: LocationSettings {
                location: self.source.location.clone(),
            },
            generator: self.generator.clone(),
            scan: (self.source.scan_seconds > 0).then(|| self.source.clone()),
            codec_format: self.codec.format,
        })
    }

    /// What a compressor needs.
    pub fn compressor_settings(&self) -> CompressorSettings {
        CompressorSettings {
            identity: self.identity.clone(),
            slots: self.compressor.slots,
            interval_seconds: self.compressor.interval_seconds,
            aws: self.aws.clone(),
            transport: self.transport.clone(),
            source: self.source.clone(),
            codec: self.codec,
            keeps_journal: self.has_role(Role::Generator)
                && self.transport.receipts_queue.is_some(),
            receipts_only: false,
        }
    }

    /// What a decompressor needs.
    pub fn decompressor_settings(&self) -> DecompressorSettings {
        DecompressorSettings {
            identity: self.identity.clone(),
            slots: self.decompressor.slots,
            interval_seconds: self.decompressor.interval_seconds,
            aws: self.aws.clone(),
            transport: DecompressorTransport {
                chunks_queue: self.transport.chunks_queue.clone(),
                receipts_queue: self.transport.receipts_queue.clone(),
                stream: self.transport.stream.clone(),
            },
            destination: self.destination.clone(),
            report: self.report.clone(),
        }
    }
}

/// Fills in a pipeline that was checked. The errors are values that cannot be read; the checks find them earlier.
pub(crate) fn resolve(pipeline: &CompressionPipeline) -> Result<Resolved, Vec<Invalid>> {
    let mut resolver = Resolver {
        pipeline,
        invalid: Vec::new(),
    };
    let resolved = resolver.resolved();
    match resolver.invalid.is_empty() {
        true => Ok(resolved),
        false => Err(resolver.invalid),
    }
}

/// Fills in a pipeline, and collects values that cannot be read.
struct Resolver<'a> {
    pipeline: &'a CompressionPipeline,
    invalid: Vec<Invalid>,
}

impl Resolver<'_> {
    fn resolved(&mut self) -> Resolved {
        let spec = &self.pipeline.spec;
        Resolved {
            identity: self.identity(),
            aws: AwsSettings {
                region: spec.aws.region.clone(),
                endpoint_url: spec.aws.endpoint_url.clone(),
            },
            transport: self.transport(),
            source: SourceSettings {
                location: self.location("spec.source.location", &spec.source.location),
                formats: spec.source.formats.clone(),
                scan_seconds: self.count("spec.source.scanSeconds", spec.source.scan_seconds),
                settle_seconds: self.settle_seconds(),
                on_compressed: spec.source.on_compressed,
                on_restored: spec.source.on_restored,
                writers_rename: spec.source.writers_rename,
            },
            destination: LocationSettings {
                location: self.location("spec.destination.location", &spec.destination.location),
            },
            codec: CodecSettings {
                format: spec.codec.format,
                format_version: self
                    .count::<_, u32>("spec.codec.formatVersion", spec.codec.format_version)
                    .try_into()
                    .unwrap_or_default(),
                bundle: spec.codec.bundle,
                effort: spec.codec.effort,
                block_bytes: self.bytes("spec.codec.blockSize", &spec.codec.block_size) as usize,
                record_bytes: self.bytes("spec.codec.recordSize", &spec.codec.record_size) as usize,
            },
            generator: spec
                .generator
                .as_ref()
                .and_then(|generator| self.job(generator)),
            compressor: self.worker("spec.compressor", &spec.compressor),
            decompressor: self.worker("spec.decompressor", &spec.decompressor),
            report: spec.report.enabled.then(|| LocationSettings {
                location: self.location("spec.report.location", &spec.report.location),
            }),
        }
    }

    /// A file that will be renamed or deleted must hold still for longer: its writer would go on with a file that has no name.
    fn settle_seconds(&mut self) -> u32 {
        let source = &self.pipeline.spec.source;
        let is_kept =
            source.on_compressed == OnCompressed::Keep && source.on_restored == OnRestored::Keep;
        match (source.settle_seconds, is_kept) {
            (Some(seconds), _) => self.count("spec.source.settleSeconds", seconds),
            (None, true) => limits::SETTLE_SECONDS,
            (None, false) => limits::NOT_KEPT_SETTLE_SECONDS,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            version: VERSION,
            pipeline: self.name().to_owned(),
            namespace: self.namespace().to_owned(),
            ordering: self.pipeline.spec.ordering,
        }
    }

    fn transport(&mut self) -> TransportSettings {
        let spec = &self.pipeline.spec.transport;
        TransportSettings {
            files_queue: self.queue(
                "spec.transport.filesQueue",
                TransportPart::FilesQueue,
                &spec.files_queue,
            ),
            chunks_queue: self.queue(
                "spec.transport.chunksQueue",
                TransportPart::ChunksQueue,
                &spec.chunks_queue,
            ),
            receipts_queue: self.receipts_queue(&spec.receipts_queue),
            stream: StreamSettings {
                name: self.name_or_default(&spec.stream.name, TransportPart::Stream),
                shards: self.count("spec.transport.stream.shards", spec.stream.shards),
                retention_hours: self.count(
                    "spec.transport.stream.retentionHours",
                    spec.stream.retention_hours,
                ),
            },
        }
    }

    /// The original's format has no receipts, and of existing queues only those that are named are used.
    fn receipts_queue(&mut self, queue: &QueueSpec) -> Option<QueueSettings> {
        let spec = &self.pipeline.spec;
        let is_named = queue.name.is_some() || spec.transport.policy == TransportPolicy::Create;
        (is_named && spec.codec.format == CodecFormat::Hybrid).then(|| {
            self.queue(
                "spec.transport.receiptsQueue",
                TransportPart::ReceiptsQueue,
                queue,
            )
        })
    }

    fn queue(&mut self, field: &str, part: TransportPart, queue: &QueueSpec) -> QueueSettings {
        let name = self.name_or_default(&queue.name, part);
        QueueSettings {
            dead_letter_name: names::dead_letter_queue(&name),
            name,
            visibility_timeout_seconds: self.count(
                &format!("{field}.visibilityTimeoutSeconds"),
                queue.visibility_timeout_seconds,
            ),
            max_receive_count: self
                .count(&format!("{field}.maxReceiveCount"), queue.max_receive_count),
        }
    }

    fn name_or_default(&self, given: &Option<String>, part: TransportPart) -> String {
        let uid = self.pipeline.metadata.uid.as_deref().unwrap_or_default();
        given
            .clone()
            .unwrap_or_else(|| names::transport(self.namespace(), self.name(), uid, part))
    }

    /// Nothing for a generator without a schema, which only scans.
    fn job(&mut self, spec: &GeneratorSpec) -> Option<GeneratorJob> {
        Some(GeneratorJob {
            schema: self.schema(spec.schema.as_ref()?),
            file_bytes: self.bytes("spec.generator.fileSize", &spec.file_size),
            files_per_minute: self.count("spec.generator.filesPerMinute", spec.files_per_minute),
            files: self.count("spec.generator.files", spec.files),
            format: spec.format,
            seed: self.count("spec.generator.seed", spec.seed),
        })
    }

    fn schema(&mut self, schema: &GeneratorSchema) -> SchemaSource {
        match schema {
            GeneratorSchema {
                example: Some(example),
                ..
            } => SchemaSource::Example(*example),
            GeneratorSchema {
                inline: Some(inline),
                ..
            } => SchemaSource::Inline(inline.clone().into()),
            GeneratorSchema { key, .. } => {
                let key = key.as_deref().unwrap_or(defaults::SCHEMA_KEY);
                SchemaSource::File(format!("{SCHEMA_MOUNT}/{key}"))
            }
        }
    }

    fn worker(&mut self, field: &str, worker: &WorkerSpec) -> WorkerSettings {
        let slots = match (worker.slots, worker.autoscaling.mode) {
            (Some(slots), _) => slots,
            (None, _) if self.pipeline.spec.ordering == Ordering::Strict => defaults::SLOTS,
            (None, AutoscalingMode::None) => defaults::SLOTS,
            (None, AutoscalingMode::Internal | AutoscalingMode::External) => worker.autoscaling.max,
        };
        WorkerSettings {
            slots: self.count(&format!("{field}.slots"), slots),
            interval_seconds: self
                .count(&format!("{field}.intervalSeconds"), worker.interval_seconds),
        }
    }

    fn name(&self) -> &str {
        self.pipeline.metadata.name.as_deref().unwrap_or("pipeline")
    }

    fn namespace(&self) -> &str {
        self.pipeline
            .metadata
            .namespace
            .as_deref()
            .unwrap_or("default")
    }

    /// A number that the schema keeps from being negative.
    fn count<N: Copy + std::fmt::Display, C: TryFrom<N> + Default>(
        &mut self,
        field: &str,
        number: N,
    ) -> C {
        C::try_from(number).unwrap_or_else(|_| {
            self.invalid.push(Invalid::new(
                field,
                number,
                "must not be negative",
                "use 0 or more",
            ));
            C::default()
        })
    }

    fn bytes(&mut self, field: &str, size: &ByteSize) -> u64 {
        size.bytes().unwrap_or_else(|error| {
            self.invalid.push(Invalid::new(
                field,
                &error.text,
                "must be a byte size",
                error.help,
            ));
            0
        })
    }

    fn location(&mut self, field: &str, text: &str) -> Location {
        Location::parse(text).unwrap_or_else(|help| {
            self.invalid
                .push(Invalid::new(field, text, "must be a location", help));
            Location::File {
                path: String::new(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checked::CheckedPipeline;
    use serde_json::{Value, json};

    fn resolved(spec: Value) -> Resolved {
        resolved_as(
            json!({"name": "shop", "namespace": "sales", "uid": "0f1c2d3e-aaaa"}),
            spec,
        )
    }

    fn resolved_as(metadata: Value, spec: Value) -> Resolved {
        let pipeline = json!({
            "apiVersion": "streampress.dev/v1alpha1",
            "kind": "CompressionPipeline",
            "metadata": metadata,
            "spec": spec
        });
        let pipeline: CompressionPipeline = serde_json::from_value(pipeline).expect("a pipeline");
        let checked = CheckedPipeline::new(pipeline);
        checked
            .unwrap_or_else(|invalid| panic!("{invalid:#?}"))
            .into_parts()
            .1
    }

    const ROLES: [Role; 3] = Role::ALL;

    /// The roles whose settings differ between two specs.
    fn roles_that_differ(one: Value, other: Value) -> Vec<Role> {
        let generator = json!({"schema": {"example": "stock-market"}});
        let [one, other] = [one, other].map(|mut spec| {
            let given = spec["generator"].take();
            let mut whole = generator.clone();
            whole
                .as_object_mut()
                .expect("fields")
                .extend(given.as_object().cloned().unwrap_or_default());
            spec["generator"] = whole;
            resolved(spec)
        });
        let json = |resolved: &Resolved, role| resolved.for_role(role).expect("settings").to_json();
        ROLES
            .into_iter()
            .filter(|role| json(&one, *role) != json(&other, *role))
            .collect()
    }

    #[test]
    fn an_empty_spec_is_filled_in_completely() {
        let resolved = resolved(json!({}));
        assert_eq!(resolved.for_role(Role::Generator), None);
        let compressor = serde_json::to_value(resolved.for_role(Role::Compressor)).expect("JSON");
        let queue = |name: &str| {
            json!({
                "name": format!("sales-shop-0f1c2d3e-{name}.fifo"),
                "deadLetterName": format!("sales-shop-0f1c2d3e-{name}-dlq.fifo"),
                "visibilityTimeoutSeconds": 60,
                "maxReceiveCount": 20
            })
        };
        let stream =
            json!({"name": "sales-shop-0f1c2d3e-stream", "shards": 2, "retentionHours": 24});
        let expected = json!({
            "role": "compressor",
            "version": 1,
            "pipeline": "shop",
            "namespace": "sales",
            "ordering": "PerName",
            "slots": 1,
            "intervalSeconds": 1,
            "aws": {"region": "us-east-1"},
            "transport": {"filesQueue": queue("files"), "chunksQueue": queue("chunks"), "receiptsQueue": queue("receipts"), "stream": stream},
            "source": {"location": "file:///data/in", "formats": ["json", "csv", "txt"], "scanSeconds": 0, "onCompressed": "Keep"},
            "codec": {"format": "Hybrid", "bundle": "Auto", "effort": "Balanced", "blockBytes": 4_194_304, "recordBytes": 409_600}
        });
        assert_eq!(compressor, expected);
        let decompressor =
            serde_json::to_value(resolved.for_role(Role::Decompressor)).expect("JSON");
        let expected = json!({
            "role": "decompressor",
            "version": 1,
            "pipeline": "shop",
            "namespace": "sales",
            "ordering": "PerName",
            "slots": 1,
            "intervalSeconds": 1,
            "aws": {"region": "us-east-1"},
            "transport": {"chunksQueue": queue("chunks"), "receiptsQueue": queue("receipts"), "stream": stream},
            "destination": {"location": "file:///data/out"},
            "report": {"location": "file:///data/reports/results.html"}
        });
        assert_eq!(decompressor, expected);
    }

    #[test]
    fn a_field_that_no_role_needs_changes_no_settings() {
        for spec in [
            json!({"suspend": true}),
            json!({"image": {"tag": "2"}}),
            json!({"compressor": {"replicas": 7, "resources": {"limits": {"cpu": 1}}, "podTemplate": {"metadata": {}}}}),
            json!({"decompressor": {"autoscaling": {"scaleUpSeconds": 1}}}),
            json!({"generator": {"resources": {"limits": {"cpu": 1}}, "podTemplate": {"metadata": {}}}}),
            json!({"aws": {"credentialsSecretRef": {"name": "a"}, "serviceAccountName": "b"}}),
            json!({"transport": {"deletionPolicy": "Retain"}}),
            json!({"volume": {"persistentVolumeClaim": {"claimName": "a"}}}),
            json!({"codec": {"blockSize": 4_194_304}}),
        ] {
            assert_eq!(roles_that_differ(json!({}), spec.clone()), [], "{spec}");
        }
    }

    #[test]
    fn a_field_that_one_role_needs_changes_no_other_role() {
        for (spec, roles) in [
            (json!({"ordering": "Strict"}), &ROLES[..]),
            (json!({"aws": {"region": "eu-west-1"}}), &ROLES),
            (json!({"generator": {"files": 3}}), &ROLES[..1]),
            (
                json!({"transport": {"filesQueue": {"maxReceiveCount": 3}}}),
                &ROLES[..2],
            ),
            (json!({"codec": {"effort": "Max"}}), &ROLES[1..2]),
            (json!({"codec": {"formatVersion": 2}}), &ROLES[1..2]),
            (json!({"codec": {"bundle": "Off"}}), &ROLES[1..2]),
            (json!({"source": {"scanSeconds": 3}}), &ROLES[..2]),
            (json!({"source": {"onRestored": "Rename"}}), &ROLES[1..2]),
            (json!({"compressor": {"slots": 3}}), &ROLES[1..2]),
            (json!({"transport": {"stream": {"shards": 3}}}), &ROLES[1..]),
            (json!({"decompressor": {"intervalSeconds": 3}}), &ROLES[2..]),
            (json!({"report": {"enabled": false}}), &ROLES[2..]),
            (
                json!({"destination": {"location": "file:///data/elsewhere"}}),
                &ROLES[2..],
            ),
        ] {
            assert_eq!(roles_that_differ(json!({}), spec.clone()), roles, "{spec}");
        }
    }

    #[test]
    fn slots_follow_autoscaling_unless_given_or_strict() {
        for (worker, ordering, slots) in [
            (json!({"replicas": 5}), "PerName", 1),
            (json!({"autoscaling": {"mode": "Internal"}}), "PerName", 4),
            (
                json!({"autoscaling": {"mode": "External", "max": 9}}),
                "PerName",
                9,
            ),
            (
                json!({"slots": 2, "autoscaling": {"mode": "Internal"}}),
                "PerName",
                2,
            ),
            (
                json!({"autoscaling": {"mode": "Internal", "max": 1}}),
                "Strict",
                1,
            ),
            (json!({}), "Strict", 1),
        ] {
            let resolved = resolved(json!({"compressor": worker, "ordering": ordering}));
            assert_eq!(resolved.compressor.slots, slots, "{worker}");
        }
    }

    #[test]
    fn given_names_are_kept() {
        let transport = resolved(json!({"transport": {
            "policy": "Adopt",
            "filesQueue": {"name": "a.fifo"},
            "chunksQueue": {"name": "b.fifo"},
            "stream": {"name": "c"}
        }}))
        .transport;
        assert_eq!(
            (
                &*transport.files_queue.name,
                &*transport.files_queue.dead_letter_name
            ),
            ("a.fifo", "a-dlq.fifo")
        );
        assert_eq!(
            (&*transport.chunks_queue.name, &*transport.stream.name),
            ("b.fifo", "c")
        );
    }

    #[test]
    fn there_are_receipts_unless_existing_queues_lack_them_or_the_format_has_none() {
        let seed = json!({"format": "Seed"});
        let adopted = json!({"policy": "Adopt", "filesQueue": {"name": "a.fifo"}, "chunksQueue": {"name": "b.fifo"}, "stream": {"name": "c"}});
        let mut named = adopted.clone();
        named["receiptsQueue"] = json!({"name": "r.fifo"});
        for (spec, receipts) in [
            (json!({}), Some("sales-shop-0f1c2d3e-receipts.fifo")),
            (json!({"codec": &seed}), None),
            (json!({"transport": &adopted}), None),
            (json!({"transport": &named}), Some("r.fifo")),
            (json!({"transport": &named, "codec": &seed}), None),
        ] {
            let resolved = resolved(spec.clone());
            let of_decompressor = resolved.decompressor_settings().transport.receipts_queue;
            let queue = resolved.transport.receipts_queue;
            assert_eq!(queue.as_ref().map(|it| &*it.name), receipts, "{spec}");
            assert_eq!(of_decompressor, queue);
        }
    }

    #[test]
    fn a_schema_comes_from_an_example_a_config_map_or_the_spec() {
        for (schema, expected) in [
            (
                json!({"example": "access-log"}),
                json!({"example": "access-log"}),
            ),
            (
                json!({"configMap": "a"}),
                json!({"file": "/etc/streampress/schema/schema.json"}),
            ),
            (
                json!({"configMap": "a", "key": "b.json"}),
                json!({"file": "/etc/streampress/schema/b.json"}),
            ),
            (json!({"inline": {"id": 1}}), json!({"inline": {"id": 1}})),
        ] {
            let generator = resolved(json!({"generator": {"schema": schema}}))
                .generator
                .expect("a generator");
            assert_eq!(
                serde_json::to_value(generator.schema).expect("JSON"),
                expected
            );
        }
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let mut pipeline = CompressionPipeline::new("shop", Default::default());
        pipeline.spec.codec.record_size = ByteSize::written("1 MB");
        pipeline.spec.transport.stream.shards = -1;
        pipeline.spec.destination.location = "file:///data/in/below".into();
        let said: Vec<String> = CheckedPipeline::new(pipeline)
            .expect_err("wrong")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "spec.codec.recordSize: 1 MB: must be a byte size; write 1M (powers of 1000)",
                "spec.transport.stream.shards: -1: must be from 1 to 500; use a number in that range",
                "spec.destination.location: file:///data/in/below: must not be the source's location, nor inside it, nor around it; restore to another folder or prefix; otherwise restored files would be announced as new ones",
            ]
        );
    }
}
