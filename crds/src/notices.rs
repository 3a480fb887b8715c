//! Notices about a valid pipeline: deliberate risks, and what a cluster requires in addition.

use crate::api::pipeline::{CodecFormat, CompressionPipeline, OnCompressed};
use crate::invalid::Invalid;
use crate::rules::{self, RuleScope};

/// The notices of a valid pipeline.
pub(crate) fn notices(pipeline: &CompressionPipeline) -> Vec<Invalid> {
    let spec = &pipeline.spec;
    let mut notices = Vec::new();
    if spec.source.on_compressed == OnCompressed::Delete {
        notices.push(Invalid::new(
            "spec.source.onCompressed",
            "Delete",
            "leaves the stream with the only copy until a file is restored",
            "use Keep or Rename to keep a copy",
        ));
    }
    if spec.codec.format == CodecFormat::Seed {
        notices.push(Invalid::new(
            "spec.codec.format",
            "Seed",
            "restores the normalised file, as the Python original does (spacing of JSON, quotes of CSV and white space of text change)",
            "use Hybrid to get every byte back",
        ));
    }
    let schema = spec.generator.as_ref().map(|generator| &generator.schema);
    if let Some(name) = schema.and_then(|schema| schema.config_map.as_ref()) {
        notices.push(Invalid::new(
            "spec.generator.schema.configMap",
            name,
            "can be read in a cluster only",
            "use example or inline for `streampress run`",
        ));
    }
    for broken in rules::broken(pipeline, RuleScope::Cluster) {
        let rule = format!(
            "{} (in a cluster; `streampress run` has its own folder)",
            broken.rule
        );
        notices.push(Invalid { rule, ..broken });
    }
    notices
}
