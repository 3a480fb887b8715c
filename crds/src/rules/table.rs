//! Every rule across fields: its objects, CEL, wording and remedy, and the same check in Rust.

use super::{Rule, RuleCheck, RuleScope};
use crate::api::pipeline::{
    AutoscalingMode, CodecFormat, CompressionPipeline, CompressionPipelineSpec, GeneratedFormat,
    GeneratorSchema, GeneratorSpec, OnCompressed, OnRestored, Ordering, QueueSpec, TransportPolicy,
    TransportSpec, WorkerSpec,
};
use crate::limits;
use crate::location::Location;
use crate::quantity::ByteSize;

const WORKERS: &[&str] = &["spec.compressor", "spec.decompressor"];
const QUEUES: &[&str] = &["spec.transport.filesQueue", "spec.transport.chunksQueue"];

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule {
        at: &[""],
        field: "metadata.name",
        cel: "self.metadata.name.size() <= 50 && !self.metadata.name.contains('.')",
        rule: "must be at most 50 characters of a-z, 0-9 and -",
        help: "choose such a name; objects and queues are named after it",
        holds: RuleCheck::Pipeline(name_fits),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "volume",
        cel: "has(self.volume) || !(self.source.location.startsWith('file://') || self.destination.location.startsWith('file://') || (self.report.enabled && self.report.location.startsWith('file://')))",
        rule: "must be given when a location begins with file://",
        help: "add volume: {persistentVolumeClaim: {claimName: …}}, or use s3:// locations",
        holds: RuleCheck::Spec(volume_is_there),
        scope: RuleScope::Cluster,
    },
    Rule {
        at: &["spec"],
        field: "destination.location",
        cel: "!(self.destination.location.endsWith('/') ? self.destination.location : self.destination.location + '/').startsWith(self.source.location.endsWith('/') ? self.source.location : self.source.location + '/') && !(self.source.location.endsWith('/') ? self.source.location : self.source.location + '/').startsWith(self.destination.location.endsWith('/') ? self.destination.location : self.destination.location + '/')",
        rule: "must not be the source's location, nor inside it, nor around it",
        help: "restore to another folder or prefix; otherwise restored files would be announced as new ones",
        holds: RuleCheck::Spec(locations_are_apart),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "report.location",
        cel: "!self.report.enabled || (!self.report.location.startsWith(self.source.location.endsWith('/') ? self.source.location : self.source.location + '/') && !self.report.location.startsWith(self.destination.location.endsWith('/') ? self.destination.location : self.destination.location + '/'))",
        rule: "must not be inside source.location or destination.location",
        help: "write the report to another folder or prefix; otherwise its own files would be taken for the source's or the restored ones",
        holds: RuleCheck::Spec(report_is_apart),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "source.settleSeconds",
        cel: "!has(self.source.settleSeconds) || self.source.settleSeconds >= 60 || self.source.scanSeconds == 0 || (self.source.onCompressed == 'Keep' && self.source.onRestored == 'Keep')",
        rule: "must be at least 60 where scanned files are renamed or deleted",
        help: "leave it out or set 60 or more: a writer that pauses would go on with a file that has no name any more; or use onCompressed: Keep and onRestored: Keep",
        holds: RuleCheck::Spec(files_not_kept_hold_still),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "compressor.slots",
        cel: "self.ordering != 'Strict' || !has(self.compressor.slots) || self.compressor.slots == 1",
        rule: "must be 1 with ordering Strict",
        help: "leave slots out (further replicas are on standby), or use ordering PerName",
        holds: RuleCheck::Spec(|spec| one_slot(spec.ordering, &spec.compressor)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "decompressor.slots",
        cel: "self.ordering != 'Strict' || !has(self.decompressor.slots) || self.decompressor.slots == 1",
        rule: "must be 1 with ordering Strict",
        help: "leave slots out (further replicas are on standby), or use ordering PerName",
        holds: RuleCheck::Spec(|spec| one_slot(spec.ordering, &spec.decompressor)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "compressor.autoscaling.max",
        cel: "self.ordering != 'Strict' || self.compressor.autoscaling.mode == 'None' || self.compressor.autoscaling.max <= 1",
        rule: "must be 1 with ordering Strict",
        help: "set max: 1 (to scale between 0 and 1), or use ordering PerName",
        holds: RuleCheck::Spec(|spec| one_at_most(spec.ordering, &spec.compressor)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "decompressor.autoscaling.max",
        cel: "self.ordering != 'Strict' || self.decompressor.autoscaling.mode == 'None' || self.decompressor.autoscaling.max <= 1",
        rule: "must be 1 with ordering Strict",
        help: "set max: 1 (to scale between 0 and 1), or use ordering PerName",
        holds: RuleCheck::Spec(|spec| one_at_most(spec.ordering, &spec.decompressor)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "generator.schema",
        cel: "!has(self.generator) || has(self.generator.schema) || self.source.scanSeconds > 0",
        rule: "is missing",
        help: "add schema: {example: stock-market}, or let its pod scan the source with source.scanSeconds",
        holds: RuleCheck::Spec(|spec| {
            let generator = spec.generator.as_ref();
            generator.is_none_or(|generator| generator.schema.is_some())
                || spec.source.scan_seconds > 0
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "generator.format",
        cel: "!has(self.generator) || !has(self.generator.schema) || (self.generator.format == 'ndjson' ? 'json' : self.generator.format) in self.source.formats",
        rule: "must be among source.formats (ndjson counts as json)",
        help: "add the format to source.formats; otherwise generated files would not be processed",
        holds: RuleCheck::Spec(generated_files_are_taken),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "generator.format",
        cel: "self.codec.format != 'Seed' || !has(self.generator) || !has(self.generator.schema) || self.generator.format != 'ndjson'",
        rule: "must not be ndjson with codec.format Seed",
        help: "use json: the Python original reads one JSON document per file; or use codec.format Hybrid",
        holds: RuleCheck::Spec(seed_reads_it),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "source.onCompressed",
        cel: "self.codec.format != 'Seed' || self.source.onCompressed != 'Delete'",
        rule: "must not be Delete with codec.format Seed",
        help: "use Keep or Rename: Seed restores the normalised file, so the file itself would be lost; or use codec.format Hybrid",
        holds: RuleCheck::Spec(|spec| {
            spec.codec.format != CodecFormat::Seed
                || spec.source.on_compressed != OnCompressed::Delete
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "source.onRestored",
        cel: "self.source.onRestored == 'Keep' || (self.codec.format == 'Hybrid' && (self.transport.policy == 'Create' || has(self.transport.receiptsQueue.name)))",
        rule: "must be Keep without receipts",
        help: "with policy Adopt, name an existing queue in transport.receiptsQueue; codec.format Seed has no receipts",
        holds: RuleCheck::Spec(restored_files_have_receipts),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "source.onRestored",
        cel: "self.source.onRestored == 'Keep' || self.source.onCompressed == 'Keep'",
        rule: "must be Keep where onCompressed renames or deletes",
        help: "use onCompressed: Keep, so that the file is there until it was restored",
        holds: RuleCheck::Spec(|spec| {
            spec.source.on_restored == OnRestored::Keep
                || spec.source.on_compressed == OnCompressed::Keep
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec"],
        field: "source.writersRename",
        cel: "self.source.onRestored != 'Delete' || self.source.writersRename || !self.source.location.startsWith('file://')",
        rule: "must be true with onRestored Delete on a volume",
        help: "set it if all writers write a file elsewhere and rename it into the source: what is written to a deleted file would be lost; or use onRestored: Rename",
        holds: RuleCheck::Spec(|spec| {
            spec.source.on_restored != OnRestored::Delete
                || spec.source.writers_rename
                || !spec.source.location.starts_with("file://")
        }),
        scope: RuleScope::Cluster,
    },
    Rule {
        at: &["spec.transport"],
        field: "filesQueue.name",
        cel: "self.policy != 'Adopt' || has(self.filesQueue.name)",
        rule: "must be given with policy Adopt",
        help: "name the existing queue, or use policy Create",
        holds: RuleCheck::Transport(|t| {
            t.policy != TransportPolicy::Adopt || t.files_queue.name.is_some()
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "chunksQueue.name",
        cel: "self.policy != 'Adopt' || has(self.chunksQueue.name)",
        rule: "must be given with policy Adopt",
        help: "name the existing queue, or use policy Create",
        holds: RuleCheck::Transport(|t| {
            t.policy != TransportPolicy::Adopt || t.chunks_queue.name.is_some()
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "stream.name",
        cel: "self.policy != 'Adopt' || has(self.stream.name)",
        rule: "must be given with policy Adopt",
        help: "name the existing stream, or use policy Create",
        holds: RuleCheck::Transport(|t| {
            t.policy != TransportPolicy::Adopt || t.stream.name.is_some()
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "filesQueue.name",
        cel: "self.policy == 'Adopt' || !has(self.filesQueue.name) || self.filesQueue.name.size() <= 76",
        rule: "must be at most 76 characters with policy Create",
        help: "use a shorter name: its dead-letter queue adds -dlq, and SQS takes 80 characters",
        holds: RuleCheck::Transport(|t| {
            t.policy == TransportPolicy::Adopt || dead_letters_fit(&t.files_queue)
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "chunksQueue.name",
        cel: "self.policy == 'Adopt' || !has(self.chunksQueue.name) || self.chunksQueue.name.size() <= 76",
        rule: "must be at most 76 characters with policy Create",
        help: "use a shorter name: its dead-letter queue adds -dlq, and SQS takes 80 characters",
        holds: RuleCheck::Transport(|t| {
            t.policy == TransportPolicy::Adopt || dead_letters_fit(&t.chunks_queue)
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "receiptsQueue.name",
        cel: "self.policy == 'Adopt' || !has(self.receiptsQueue.name) || self.receiptsQueue.name.size() <= 76",
        rule: "must be at most 76 characters with policy Create",
        help: "use a shorter name: its dead-letter queue adds -dlq, and SQS takes 80 characters",
        holds: RuleCheck::Transport(|t| {
            t.policy == TransportPolicy::Adopt || dead_letters_fit(&t.receipts_queue)
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "receiptsQueue.name",
        cel: "!has(self.receiptsQueue.name) || ((!has(self.filesQueue.name) || self.receiptsQueue.name != self.filesQueue.name) && (!has(self.chunksQueue.name) || self.receiptsQueue.name != self.chunksQueue.name))",
        rule: "must not be filesQueue's or chunksQueue's name",
        help: "use three queues; otherwise each role would receive the other's messages",
        holds: RuleCheck::Transport(receipts_are_apart),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.transport"],
        field: "chunksQueue.name",
        cel: "!has(self.filesQueue.name) || !has(self.chunksQueue.name) || self.filesQueue.name != self.chunksQueue.name",
        rule: "must not be filesQueue's name",
        help: "use two queues; otherwise each role would receive the other's messages",
        holds: RuleCheck::Transport(|t| {
            t.files_queue.name.is_none() || t.files_queue.name != t.chunks_queue.name
        }),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.codec"],
        field: "blockSize",
        cel: "quantity(string(self.blockSize)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self.blockSize)).compareTo(quantity('64Mi')) <= 0",
        rule: "must be from 64Ki to 64Mi",
        help: "use 4Mi if in doubt",
        holds: RuleCheck::Codec(|codec| within(&codec.block_size, &limits::BLOCK_BYTES)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.codec"],
        field: "recordSize",
        cel: "quantity(string(self.recordSize)).compareTo(quantity('4Ki')) >= 0 && quantity(string(self.recordSize)).compareTo(quantity('1023Ki')) <= 0",
        rule: "must be from 4Ki to 1023Ki",
        help: "use 400Ki if in doubt; Kinesis takes 1Mi with the header",
        holds: RuleCheck::Codec(|codec| within(&codec.record_size, &limits::RECORD_BYTES)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.codec"],
        field: "recordSize",
        cel: "quantity(string(self.recordSize)).compareTo(quantity(string(self.blockSize))) <= 0",
        rule: "must not be more than blockSize",
        help: "make recordSize smaller or blockSize larger",
        holds: RuleCheck::Codec(|codec| no_more(&codec.record_size, &codec.block_size)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.generator"],
        field: "fileSize",
        cel: "quantity(string(self.fileSize)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self.fileSize)).compareTo(quantity('1Gi')) <= 0",
        rule: "must be from 1Ki to 1Gi",
        help: "use 1Mi if in doubt",
        holds: RuleCheck::Generator(|generator| within(&generator.file_size, &limits::FILE_BYTES)),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.generator.schema"],
        field: "",
        cel: "(has(self.example) ? 1 : 0) + (has(self.configMap) ? 1 : 0) + (has(self.inline) ? 1 : 0) == 1",
        rule: "must have exactly one of example, configMap and inline",
        help: "write {example: stock-market} to begin with",
        holds: RuleCheck::Schema(one_schema),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.generator.schema"],
        field: "key",
        cel: "!has(self.key) || has(self.configMap)",
        rule: "must stand beside configMap",
        help: "add configMap, or leave key out",
        holds: RuleCheck::Schema(|schema| schema.key.is_none() || schema.config_map.is_some()),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.generator.schema"],
        field: "inline",
        // CEL cannot see the content of an untyped object.
        cel: "",
        rule: "must be at most 64 KiB as JSON",
        help: "put the schema into a ConfigMap and name it in configMap",
        holds: RuleCheck::Schema(inline_is_small),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: WORKERS,
        field: "autoscaling.min",
        cel: "self.autoscaling.min <= self.autoscaling.max",
        rule: "must not be more than max",
        help: "make min smaller or max larger",
        holds: RuleCheck::Worker(|worker| worker.autoscaling.min <= worker.autoscaling.max),
        scope: RuleScope::Everywhere,
    },
    Rule {
        at: &["spec.aws"],
        field: "region",
        cel: "self.region == oldSelf.region",
        rule: "cannot be changed",
        help: "create a new pipeline; otherwise messages in the old region's queues would be lost",
        holds: RuleCheck::ApiServer,
        scope: RuleScope::Change,
    },
    // One service may move to another URL.
    Rule {
        at: &["spec.aws"],
        field: "endpointURL",
        cel: "has(self.endpointURL) == has(oldSelf.endpointURL)",
        rule: "cannot be set or removed later",
        help: "create a new pipeline; otherwise messages in the old queues would be lost",
        holds: RuleCheck::ApiServer,
        scope: RuleScope::Change,
    },
    Rule {
        at: &["spec.transport"],
        field: "policy",
        cel: "self.policy == oldSelf.policy",
        rule: "cannot be changed",
        help: "create a new pipeline; otherwise messages in the old queues would be lost",
        holds: RuleCheck::ApiServer,
        scope: RuleScope::Change,
    },
    Rule {
        at: QUEUES,
        field: "name",
        cel: "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
        rule: "cannot be changed, set or removed later",
        help: "create a new pipeline; otherwise messages in the old queue would be lost",
        holds: RuleCheck::ApiServer,
        scope: RuleScope::Change,
    },
    Rule {
        at: &["spec.transport"],
        field: "receiptsQueue.name",
        cel: "has(oldSelf.receiptsQueue.name) ? has(self.receiptsQueue.name) && self.receiptsQueue.name == oldSelf.receiptsQueue.name : self.policy == 'Adopt' || !has(self.receiptsQueue.name)",
        rule: "cannot be changed or removed later; with policy Create, it cannot be set later either",
        help: "create a new pipeline; otherwise receipts in the old queue would be lost",
        holds: RuleCheck::ApiServer,
        scope: RuleScope::Change,
    },
    Rule {
        at: &["spec.transport.stream"],
        field: "name",
        cel: "has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
        rule: "cannot be changed, set or removed later",
        help: "create a new pipeline; otherwise records in the old stream would be lost",
        holds: RuleCheck::ApiServer,
        scope: RuleScope::Change,
    },
];

fn name_fits(pipeline: &CompressionPipeline) -> bool {
    // The schema reports a missing name.
    let Some(name) = pipeline.metadata.name.as_deref() else {
        return true;
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=limits::NAME_CHARS).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn volume_is_there(spec: &CompressionPipelineSpec) -> bool {
    let report = spec.report.enabled.then_some(&spec.report.location);
    let mut locations = [&spec.source.location, &spec.destination.location]
        .into_iter()
        .chain(report);
    spec.volume.is_some() || !locations.any(|location| location.starts_with("file://"))
}

fn locations_are_apart(spec: &CompressionPipelineSpec) -> bool {
    match (
        Location::parse(&spec.source.location),
        Location::parse(&spec.destination.location),
    ) {
        (Ok(source), Ok(destination)) => {
            !source.contains(&destination) && !destination.contains(&source)
        }
        _ => true,
    }
}

fn report_is_apart(spec: &CompressionPipelineSpec) -> bool {
    let Ok(report) = Location::parse(&spec.report.location) else {
        return true;
    };
    let around = |location: &str| Location::parse(location).is_ok_and(|it| it.contains(&report));
    !spec.report.enabled || !(around(&spec.source.location) || around(&spec.destination.location))
}

fn files_not_kept_hold_still(spec: &CompressionPipelineSpec) -> bool {
    let source = &spec.source;
    source.settle_seconds.is_none_or(|seconds| {
        i64::from(seconds) >= i64::from(limits::NOT_KEPT_SETTLE_SECONDS)
            || source.scan_seconds == 0
            || (source.on_compressed == OnCompressed::Keep
                && source.on_restored == OnRestored::Keep)
    })
}

fn one_slot(ordering: Ordering, worker: &WorkerSpec) -> bool {
    ordering != Ordering::Strict || worker.slots.is_none_or(|slots| slots == 1)
}

fn one_at_most(ordering: Ordering, worker: &WorkerSpec) -> bool {
    ordering != Ordering::Strict
        || worker.autoscaling.mode == AutoscalingMode::None
        || worker.autoscaling.max <= 1
}

fn generated_files_are_taken(spec: &CompressionPipelineSpec) -> bool {
    generating(spec).is_none_or(|generator| spec.source.formats.contains(&generator.format.kind()))
}

fn seed_reads_it(spec: &CompressionPipelineSpec) -> bool {
    let ndjson = |generator: &GeneratorSpec| generator.format == GeneratedFormat::Ndjson;
    spec.codec.format != CodecFormat::Seed || !generating(spec).is_some_and(ndjson)
}

/// The generator, where it generates: without a schema it only scans.
fn generating(spec: &CompressionPipelineSpec) -> Option<&GeneratorSpec> {
    let generator = spec.generator.as_ref();
    generator.filter(|generator| generator.schema.is_some())
}

fn restored_files_have_receipts(spec: &CompressionPipelineSpec) -> bool {
    let transport = &spec.transport;
    let has_queue =
        transport.policy == TransportPolicy::Create || transport.receipts_queue.name.is_some();
    spec.source.on_restored == OnRestored::Keep
        || (spec.codec.format == CodecFormat::Hybrid && has_queue)
}

fn receipts_are_apart(transport: &TransportSpec) -> bool {
    let others = [&transport.files_queue, &transport.chunks_queue];
    let name = &transport.receipts_queue.name;
    name.is_none() || others.iter().all(|other| other.name != *name)
}

fn dead_letters_fit(queue: &QueueSpec) -> bool {
    let longest = limits::QUEUE_CHARS - limits::DEAD_LETTER_CHARS;
    queue
        .name
        .as_ref()
        .is_none_or(|name| name.chars().count() <= longest)
}

fn within(size: &ByteSize, bounds: &std::ops::RangeInclusive<u64>) -> bool {
    size.bytes().is_ok_and(|bytes| bounds.contains(&bytes)) || size.bytes().is_err()
}

fn no_more(smaller: &ByteSize, larger: &ByteSize) -> bool {
    match (smaller.bytes(), larger.bytes()) {
        (Ok(smaller), Ok(larger)) => smaller <= larger,
        _ => true,
    }
}

fn one_schema(schema: &GeneratorSchema) -> bool {
    let given = [
        schema.example.is_some(),
        schema.config_map.is_some(),
        schema.inline.is_some(),
    ];
    given.into_iter().filter(|given| *given).count() == 1
}

fn inline_is_small(schema: &GeneratorSchema) -> bool {
    let bytes = |inline| serde_json::to_string(inline).map_or(0, |text| text.len());
    schema
        .inline
        .as_ref()
        .is_none_or(|inline| bytes(inline) <= limits::INLINE_SCHEMA_BYTES)
}
