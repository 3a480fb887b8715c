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
    let generator = spec.generator.as_ref();
    if generator.is_some_and(|generator| generator.schema.is_none()) {
        notices.push(Invalid::new(
            "spec.generator.schema",
            "",
            "is left out, so that nothing is generated: the generator's pod only scans the source",
            "add schema: {example: stock-market} to generate files",
        ));
    }
    let schema = generator.and_then(|generator| generator.schema.as_ref());
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
