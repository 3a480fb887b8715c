//! The rules across fields. Each is defined once, in `table.rs`: the CEL expression for the API server beside the Rust
//! check for files and workers, with one wording for both. Rules about a single field (range, pattern, choice) are
//! plain schema, which `document/structure.rs` checks.

mod table;

use serde_json::Value;

use crate::api::pipeline::{
    CodecSpec, CompressionPipeline, CompressionPipelineSpec, GeneratorSchema, GeneratorSpec,
    TransportSpec, WorkerSpec,
};
use crate::invalid::Invalid;

pub use table::RULES;

/// A rule across fields.
pub struct Rule {
    /// The objects that it applies to, as paths from the root of the document; empty for the root.
    pub at: &'static [&'static str],
    /// The field that breaks it, below the object.
    pub field: &'static str,
    /// The rule for the API server; empty where CEL cannot express it.
    pub cel: &'static str,
    /// The rule, in words.
    pub rule: &'static str,
    /// What to do about it.
    pub help: &'static str,
    /// Whether it holds; true where the values cannot be read, which the schema reports.
    holds: RuleCheck,
    /// Where it applies.
    pub scope: RuleScope,
}

/// Where a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleScope {
    /// In a cluster and outside.
    Everywhere,
    /// Only in a cluster: outside, `run` uses its own folder instead of the volume.
    Cluster,
    /// Only when an existing pipeline is changed.
    Change,
}

/// The Rust side of a rule, by the object that it applies to.
enum RuleCheck {
    Pipeline(fn(&CompressionPipeline) -> bool),
    Spec(fn(&CompressionPipelineSpec) -> bool),
    Transport(fn(&TransportSpec) -> bool),
    Codec(fn(&CodecSpec) -> bool),
    Generator(fn(&GeneratorSpec) -> bool),
    Schema(fn(&GeneratorSchema) -> bool),
    Worker(fn(&WorkerSpec) -> bool),
    /// Only the API server can: it knows the pipeline as it was.
    ApiServer,
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
                .and_then(|generator| generator.schema.as_ref())
                .is_none_or(holds),
            RuleCheck::Worker(holds) if at == "spec.decompressor" => holds(&spec.decompressor),
            RuleCheck::Worker(holds) => holds(&spec.compressor),
            RuleCheck::ApiServer => true,
        }
    }
}
