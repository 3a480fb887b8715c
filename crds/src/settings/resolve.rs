//! Turns a pipeline, as written, into the settings of its roles: checks first, then every default and name filled in.

use crate::api::pipeline::{
    AutoscalingMode, CompressionPipeline, Generator, GeneratorSchema, Ordering, Queue, Worker,
};
use crate::defaults;
use crate::document::structure;
use crate::invalid::Invalid;
use crate::limits;
use crate::location::Location;
use crate::quantity::ByteSize;
use crate::rules::{self, Scope};
use crate::settings::{
    AwsSettings, CodecSettings, CompressorSettings, CompressorTransport, DecompressorSettings,
    DecompressorTransport, GeneratorJob, GeneratorSettings, GeneratorTransport, Identity, Place,
    QueueSettings, Role, SCHEMA_MOUNT, SchemaSource, Settings, SourceSettings, StreamSettings,
    VERSION,
};

/// A pipeline with every default and name filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The generator's settings, where the pipeline has one.
    pub generator: Option<GeneratorSettings>,
    /// The compressors' settings; their `transport` is all of it.
    pub compressor: CompressorSettings,
    /// The decompressors' settings.
    pub decompressor: DecompressorSettings,
}

/// Checks a pipeline and fills it in; the errors are all that is wrong with it anywhere.
pub fn resolve(pipeline: &CompressionPipeline) -> Result<Resolved, Vec<Invalid>> {
    match check(pipeline, &[Scope::Everywhere]) {
        invalid if invalid.is_empty() => Builder::new(pipeline).build(),
        invalid => Err(invalid),
    }
}

/// The same, with the rules that hold only in a cluster, such as the volume behind file:// locations.
pub fn resolve_in_cluster(pipeline: &CompressionPipeline) -> Result<Resolved, Vec<Invalid>> {
    match check(pipeline, &[Scope::Everywhere, Scope::Cluster]) {
        invalid if invalid.is_empty() => Builder::new(pipeline).build(),
        invalid => Err(invalid),
    }
}

/// All that is wrong: first with single fields, then across them.
fn check(pipeline: &CompressionPipeline, scopes: &[Scope]) -> Vec<Invalid> {
    let document = serde_json::to_value(pipeline).unwrap_or_default();
    let findings = structure::check(&document);
    let mut invalid: Vec<Invalid> = findings
        .into_iter()
        .map(|finding| finding.invalid)
        .collect();
    for broken in scopes
        .iter()
        .flat_map(|scope| rules::broken(pipeline, *scope))
    {
        // A field that is wrong by itself needs no second complaint.
        if invalid.iter().all(|earlier| earlier.field != broken.field) {
            invalid.push(broken);
        }
    }
    invalid
}

impl Resolved {
    /// One role's settings; nothing for a generator that is not asked for.
    pub fn for_role(&self, role: Role) -> Option<Settings> {
        match role {
            Role::Generator => self.generator.clone().map(Settings::Generator),
            Role::Compressor => Some(Settings::Compressor(self.compressor.clone())),
            Role::Decompressor => Some(Settings::Decompressor(self.decompressor.clone())),
        }
    }
}

/// Which queue or stream a default name is for.
#[derive(Clone, Copy)]
enum Part {
    Files,
    Chunks,
    Stream,
}

/// Fills in a pipeline, collecting what turns out to be wrong on the way.
struct Builder<'a> {
    pipeline: &'a CompressionPipeline,
    invalid: Vec<Invalid>,
}

impl<'a> Builder<'a> {
    fn new(pipeline: &'a CompressionPipeline) -> Self {
        Builder {
            pipeline,
            invalid: Vec::new(),
        }
    }

    fn build(mut self) -> Result<Resolved, Vec<Invalid>> {
        let resolved = Resolved {
            generator: self.generator(),
            compressor: self.compressor(),
            decompressor: self.decompressor(),
        };
        match self.invalid.is_empty() {
            true => Ok(resolved),
            false => Err(self.invalid),
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

    fn aws(&self) -> AwsSettings {
        let aws = &self.pipeline.spec.aws;
        AwsSettings {
            region: aws.region.clone(),
            endpoint_url: aws.endpoint_url.clone(),
        }
    }

    fn generator(&mut self) -> Option<GeneratorSettings> {
        let spec = self.pipeline.spec.generator.as_ref()?;
        Some(GeneratorSettings {
            identity: self.identity(),
            aws: self.aws(),
            transport: GeneratorTransport {
                files_queue: self.files_queue(),
            },
            source: Place {
                location: self.source_location(),
            },
            generator: self.job(spec),
            codec_format: self.pipeline.spec.codec.format,
        })
    }

    fn compressor(&mut self) -> CompressorSettings {
        let spec = &self.pipeline.spec;
        let worker = &spec.compressor;
        CompressorSettings {
            identity: self.identity(),
            slots: self.slots(worker, "spec.compressor"),
            interval_seconds: self
                .count("spec.compressor.intervalSeconds", worker.interval_seconds),
            aws: self.aws(),
            transport: CompressorTransport {
                files_queue: self.files_queue(),
                chunks_queue: self.chunks_queue(),
                stream: self.stream(),
            },
            source: SourceSettings {
                location: self.source_location(),
                formats: spec.source.formats.clone(),
                scan_seconds: self.count("spec.source.scanSeconds", spec.source.scan_seconds),
                on_compressed: spec.source.on_compressed,
            },
            codec: CodecSettings {
                format: spec.codec.format,
                effort: spec.codec.effort,
                block_bytes: self.bytes("spec.codec.blockSize", &spec.codec.block_size) as usize,
                record_bytes: self.bytes("spec.codec.recordSize", &spec.codec.record_size) as usize,
            },
        }
    }

    fn decompressor(&mut self) -> DecompressorSettings {
        let spec = &self.pipeline.spec;
        let worker = &spec.decompressor;
        DecompressorSettings {
            identity: self.identity(),
            slots: self.slots(worker, "spec.decompressor"),
            interval_seconds: self
                .count("spec.decompressor.intervalSeconds", worker.interval_seconds),
            aws: self.aws(),
            transport: DecompressorTransport {
                chunks_queue: self.chunks_queue(),
                stream: self.stream(),
            },
            destination: Place {
                location: self.location("spec.destination.location", &spec.destination.location),
            },
            report: spec.report.enabled.then(|| Place {
                location: self.location("spec.report.location", &spec.report.location),
            }),
        }
    }

    fn job(&mut self, spec: &Generator) -> GeneratorJob {
        GeneratorJob {
            schema: self.schema(&spec.schema),
            file_bytes: self.bytes("spec.generator.fileSize", &spec.file_size),
            files_per_minute: self.count("spec.generator.filesPerMinute", spec.files_per_minute),
            files: self.count("spec.generator.files", spec.files),
            format: spec.format,
            seed: self.count("spec.generator.seed", spec.seed),
        }
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

    fn source_location(&mut self) -> Location {
        self.location("spec.source.location", &self.pipeline.spec.source.location)
    }

    fn files_queue(&mut self) -> QueueSettings {
        self.queue(
            "spec.transport.filesQueue",
            Part::Files,
            &self.pipeline.spec.transport.files_queue,
        )
    }

    fn chunks_queue(&mut self) -> QueueSettings {
        self.queue(
            "spec.transport.chunksQueue",
            Part::Chunks,
            &self.pipeline.spec.transport.chunks_queue,
        )
    }

    fn queue(&mut self, field: &str, part: Part, queue: &Queue) -> QueueSettings {
        let name = queue
            .name
            .clone()
            .unwrap_or_else(|| self.default_name(part));
        QueueSettings {
            dead_letter_name: dead_letter_name(&name),
            name,
            visibility_timeout_seconds: self.count(
                &format!("{field}.visibilityTimeoutSeconds"),
                queue.visibility_timeout_seconds,
            ),
            max_receive_count: self
                .count(&format!("{field}.maxReceiveCount"), queue.max_receive_count),
        }
    }

    fn stream(&mut self) -> StreamSettings {
        let stream = &self.pipeline.spec.transport.stream;
        StreamSettings {
            name: stream
                .name
                .clone()
                .unwrap_or_else(|| self.default_name(Part::Stream)),
            shards: self.count("spec.transport.stream.shards", stream.shards),
            retention_hours: self.count(
                "spec.transport.stream.retentionHours",
                stream.retention_hours,
            ),
        }
    }

    /// Workers that may be at work at once.
    fn slots(&mut self, worker: &Worker, field: &str) -> u32 {
        let slots = match (worker.slots, worker.autoscaling.mode) {
            (Some(slots), _) => slots,
            (None, _) if self.pipeline.spec.ordering == Ordering::Strict => defaults::SLOTS,
            (None, AutoscalingMode::None) => defaults::SLOTS,
            (None, AutoscalingMode::Internal | AutoscalingMode::External) => worker.autoscaling.max,
        };
        self.count(&format!("{field}.slots"), slots)
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

    /// `<namespace>-<name>-<uid8>-files.fifo` and the like. The beginning is cut where AWS allows
    /// less; the UID keeps such names apart. Outside a cluster there is no UID.
    fn default_name(&self, part: Part) -> String {
        let end = match part {
            Part::Files => "-files.fifo",
            Part::Chunks => "-chunks.fifo",
            Part::Stream => "-stream",
        };
        let uid = self.pipeline.metadata.uid.as_deref().unwrap_or_default();
        let uid: String = uid
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(8)
            .collect();
        let uid = if uid.is_empty() {
            uid
        } else {
            format!("-{uid}")
        };
        let owner = format!("{}-{}", self.namespace(), self.name());
        let room = limits::QUEUE_CHARS - limits::DEAD_LETTER_CHARS - end.len() - uid.len();
        let owner: String = owner.chars().take(room).collect();
        format!("{}{uid}{end}", owner.trim_end_matches('-'))
    }

    /// A number that the rules keep from being negative.
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

/// The queue of a queue's dead letters: `-dlq` before `.fifo`.
fn dead_letter_name(queue: &str) -> String {
    format!("{}-dlq.fifo", queue.strip_suffix(".fifo").unwrap_or(queue))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        resolve(&pipeline).unwrap_or_else(|invalid| panic!("{invalid:#?}"))
    }

    const ROLES: [Role; 3] = [Role::Generator, Role::Compressor, Role::Decompressor];

    /// The roles whose settings two specs tell apart.
    fn roles_told_apart(one: Value, other: Value) -> Vec<Role> {
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
    fn an_empty_spec_is_filled_in_whole() {
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
            "transport": {"filesQueue": queue("files"), "chunksQueue": queue("chunks"), "stream": stream},
            "source": {"location": "file:///data/in", "formats": ["json", "csv", "txt"], "scanSeconds": 0, "onCompressed": "Keep"},
            "codec": {"format": "Hybrid", "effort": "Balanced", "blockBytes": 4_194_304, "recordBytes": 409_600}
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
            "transport": {"chunksQueue": queue("chunks"), "stream": stream},
            "destination": {"location": "file:///data/out"},
            "report": {"location": "file:///data/reports/results.html"}
        });
        assert_eq!(decompressor, expected);
    }

    #[test]
    fn what_matters_to_no_role_changes_no_settings() {
        for spec in [
            json!({"suspend": true}),
            json!({"image": {"tag": "2"}}),
            json!({"compressor": {"replicas": 7, "resources": {"limits": {"cpu": 1}}, "podTemplate": {"metadata": {}}}}),
            json!({"decompressor": {"autoscaling": {"scaleUpSeconds": 1}}}),
            json!({"aws": {"credentialsSecretRef": {"name": "a"}, "serviceAccountName": "b"}}),
            json!({"transport": {"deletionPolicy": "Retain"}}),
            json!({"volume": {"persistentVolumeClaim": {"claimName": "a"}}}),
            json!({"codec": {"blockSize": 4_194_304}}),
        ] {
            assert_eq!(roles_told_apart(json!({}), spec.clone()), [], "{spec}");
        }
    }

    #[test]
    fn what_matters_to_one_role_changes_no_other() {
        for (spec, roles) in [
            (json!({"ordering": "Strict"}), &ROLES[..]),
            (json!({"aws": {"region": "eu-west-1"}}), &ROLES),
            (json!({"generator": {"files": 3}}), &ROLES[..1]),
            (
                json!({"transport": {"filesQueue": {"maxReceiveCount": 3}}}),
                &ROLES[..2],
            ),
            (json!({"codec": {"effort": "Max"}}), &ROLES[1..2]),
            (json!({"source": {"scanSeconds": 3}}), &ROLES[1..2]),
            (json!({"compressor": {"slots": 3}}), &ROLES[1..2]),
            (json!({"transport": {"stream": {"shards": 3}}}), &ROLES[1..]),
            (json!({"decompressor": {"intervalSeconds": 3}}), &ROLES[2..]),
            (json!({"report": {"enabled": false}}), &ROLES[2..]),
            (
                json!({"destination": {"location": "file:///data/elsewhere"}}),
                &ROLES[2..],
            ),
        ] {
            assert_eq!(roles_told_apart(json!({}), spec.clone()), roles, "{spec}");
        }
    }

    #[test]
    fn slots_follow_autoscaling_unless_written_or_strict() {
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
    fn default_names_fit_what_aws_takes_and_stay_apart() {
        let name = "n".repeat(50);
        let metadata = json!({"name": name, "namespace": "s".repeat(63), "uid": "0f1c2d3e-aaaa"});
        let transport = resolved_as(metadata, json!({})).compressor.transport;
        for queue in [&transport.files_queue, &transport.chunks_queue] {
            assert!(
                queue.dead_letter_name.len() <= limits::QUEUE_CHARS,
                "{}",
                queue.dead_letter_name
            );
            assert!(queue.name.contains("-0f1c2d3e-"), "{}", queue.name);
            assert!(
                queue.dead_letter_name.ends_with("-dlq.fifo"),
                "{}",
                queue.dead_letter_name
            );
        }
        assert!(transport.stream.name.len() <= 128);
        // Outside a cluster there is neither namespace nor UID.
        let transport = resolved_as(json!({"name": "shop"}), json!({}))
            .compressor
            .transport;
        assert_eq!(transport.files_queue.name, "default-shop-files.fifo");
    }

    #[test]
    fn given_names_are_kept() {
        let transport = resolved(json!({"transport": {
            "policy": "Adopt",
            "filesQueue": {"name": "a.fifo"},
            "chunksQueue": {"name": "b.fifo"},
            "stream": {"name": "c"}
        }}))
        .compressor
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
    fn a_schema_comes_from_where_the_pipeline_says() {
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
                serde_json::to_value(generator.generator.schema).expect("JSON"),
                expected
            );
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut pipeline = CompressionPipeline::new("shop", Default::default());
        pipeline.spec.codec.record_size = ByteSize::written("1 MB");
        pipeline.spec.transport.stream.shards = -1;
        pipeline.spec.destination.location = "file:///data/in/below".into();
        let said: Vec<String> = resolve(&pipeline)
            .expect_err("wrong")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "spec.codec.recordSize: 1 MB: must be a byte size; write 1M (powers of 1000) or 1Mi (powers of 1024)",
                "spec.transport.stream.shards: -1: must be from 1 to 500; use a number in that range",
                "spec.destination.location: file:///data/in/below: must not be the source's location, nor inside it, nor around it; restore to another folder or prefix, or restored files would be taken for new ones",
            ]
        );
    }
}
