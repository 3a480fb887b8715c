//! The rules that reach across fields, and how they are asked. Each stands once, in `rules/table.rs`: the
//! CEL expression for the API server beside the Rust test for files and workers, with one wording for
//! both. Rules about one field alone (range, pattern, choice) are plain schema, checked by `structure.rs`.

mod table;

use serde_json::{Value, json};

use crate::api::pipeline::{
    CodecSpec, CompressionPipeline, CompressionPipelineSpec, GeneratorSchema, GeneratorSpec,
    QueueSpec, StreamSpec, TransportSpec, WorkerSpec,
};
use crate::invalid::Invalid;

pub use table::RULES;

/// A rule across fields.
pub struct Rule {
    /// The objects it speaks of, as paths from the root of the document; empty for the root.
    pub at: &'static [&'static str],
    /// The field to blame, below the object.
    pub field: &'static str,
    /// The rule for the API server; empty where CEL cannot say it.
    pub cel: &'static str,
    /// The rule, in words.
    pub rule: &'static str,
    /// The way out.
    pub help: &'static str,
    /// Whether it holds; `true` where the values cannot be read, which is another finding.
    holds: RuleCheck,
    /// Where it counts.
    pub scope: RuleScope,
}

/// Where a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleScope {
    /// In a cluster and outside.
    Everywhere,
    /// Only in a cluster: `run` on a laptop has its own folder in place of the volume.
    Cluster,
    /// Only when an existing pipeline is changed.
    Change,
}

/// The Rust side of a rule, by the object it speaks of.
enum RuleCheck {
    Pipeline(fn(&CompressionPipeline) -> bool),
    Spec(fn(&CompressionPipelineSpec) -> bool),
    Transport(fn(&TransportSpec) -> bool),
    Codec(fn(&CodecSpec) -> bool),
    Generator(fn(&GeneratorSpec) -> bool),
    Schema(fn(&GeneratorSchema) -> bool),
    Worker(fn(&WorkerSpec) -> bool),
    TransportChange(fn(&TransportSpec, &TransportSpec) -> bool),
    QueueChange(fn(&QueueSpec, &QueueSpec) -> bool),
    StreamChange(fn(&StreamSpec, &StreamSpec) -> bool),
}

/// The rules of this scope that the pipeline breaks.
pub fn broken(pipeline: &CompressionPipeline, scope: RuleScope) -> Vec<Invalid> {
    let value = serde_json::to_value(pipeline).unwrap_or_default();
    let rules = RULES.iter().filter(|rule| rule.scope == scope);
    rules
        .flat_map(|rule| rule.at.iter().map(move |at| (rule, *at)))
        .filter(|(rule, at)| !rule.holds_at(pipeline, at))
        .map(|(rule, at)| rule.invalid(at, &value))
        .collect()
}

/// What may not be changed of an existing pipeline, and is.
pub fn changed(old: &CompressionPipelineSpec, new: &CompressionPipelineSpec) -> Vec<Invalid> {
    let value = json!({"spec": new});
    let rules = RULES.iter().filter(|rule| rule.scope == RuleScope::Change);
    rules
        .flat_map(|rule| rule.at.iter().map(move |at| (rule, *at)))
        .filter(|(rule, at)| !rule.holds_between(&old.transport, &new.transport, at))
        .map(|(rule, at)| rule.invalid(at, &value))
        .collect()
}

impl Rule {
    fn invalid(&self, at: &str, document: &Value) -> Invalid {
        let field = [at, self.field]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(".");
        let found = document.pointer(&format!("/{}", field.replace('.', "/")));
        let value = match found {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(_) | Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        Invalid::new(field, value, self.rule, self.help)
    }

    fn holds_at(&self, pipeline: &CompressionPipeline, at: &str) -> bool {
        let spec = &pipeline.spec;
        match self.holds {
            RuleCheck::Pipeline(holds) => holds(pipeline),
            RuleCheck::Spec(holds) => holds(spec),
            RuleCheck::Transport(holds) => holds(&spec.transport),
            RuleCheck::Codec(holds) => holds(&spec.codec),
            RuleCheck::Generator(holds) => spec.generator.as_ref().is_none_or(holds),
            RuleCheck::Schema(holds) => spec
                .generator
                .as_ref()
                .is_none_or(|generator| holds(&generator.schema)),
            RuleCheck::Worker(holds) if at == "spec.decompressor" => holds(&spec.decompressor),
            RuleCheck::Worker(holds) => holds(&spec.compressor),
            // These compare two pipelines: `changed` asks them.
            RuleCheck::TransportChange(_)
            | RuleCheck::QueueChange(_)
            | RuleCheck::StreamChange(_) => true,
        }
    }

    fn holds_between(&self, old: &TransportSpec, new: &TransportSpec, at: &str) -> bool {
        match self.holds {
            RuleCheck::TransportChange(holds) => holds(old, new),
            RuleCheck::QueueChange(holds) if at == "spec.transport.chunksQueue" => {
                holds(&old.chunks_queue, &new.chunks_queue)
            }
            RuleCheck::QueueChange(holds) => holds(&old.files_queue, &new.files_queue),
            RuleCheck::StreamChange(holds) => holds(&old.stream, &new.stream),
            _ => true,
        }
    }
}
