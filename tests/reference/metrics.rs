use std::collections::BTreeSet;
use std::time::Duration;

use streampress::telemetry::metrics::Meter;
use streampress_crds::CompressionPipelineStatus;
use streampress_crds::api::status::{BacklogStatus, Phase, RetentionStatus};
use streampress_operator::http::metrics::OperatorMetrics;

use crate::{code, table};

pub fn page() -> String {
    let operator = OperatorMetrics::default();
    operator.wrote("Deployment");
    operator.reconciled("settled", Duration::ZERO);
    operator.phase(None, Some(Phase::Pending));
    let status = CompressionPipelineStatus {
        phase: Some(Phase::Pending),
        backlog: Some(BacklogStatus {
            files: Some(1),
            chunks: Some(1),
            receipts: None,
            dead: Some(1),
            waiting_since: Some("2026-01-01T00:00:00Z".into()),
        }),
        retention: Some(RetentionStatus::default()),
        ..CompressionPipelineStatus::default()
    };
    operator.pipeline("default", "stock", &status);
    format!(
        "In the OpenMetrics text format, at `/metrics`.\n\n## Of a worker\n\nEvery metric also has the labels `pipeline`, `namespace` and \
         `role`.\n\n{}\n## Of the operator\n\nThose of one pipeline, `streampress_operator_pipeline_…`, also have the labels `namespace` and \
         `pipeline`.\n\n{}",
        metrics(&Meter::complete_page(), true),
        metrics(&operator.text(), false),
    )
}

/// A row for each metric of a page; `has_all_values` says whether the page has every value of every label.
fn metrics(page: &str, has_all_values: bool) -> String {
    let mut rows = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|text| text.split_once(' '))
        else {
            continue;
        };
        let mut kind = "";
        let mut labels = BTreeSet::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("# HELP")) {
            if let Some(text) = line.strip_prefix("# TYPE ") {
                kind = text.split(' ').nth(1).expect("a type");
            } else if !line.starts_with('#') {
                labels.extend(label(line));
            }
        }
        let total = if kind == "counter" { "_total" } else { "" };
        rows.push(vec![
            code(&format!("{name}{total}")),
            kind.to_owned(),
            describe(&labels, has_all_values),
            // The registry ends help texts with a full stop, collectors do not.
            help.trim_end_matches('.').to_owned(),
        ]);
    }
    assert!(rows.len() > 4, "{page}");
    table(&["metric", "type", "label", "meaning"], rows)
}

/// The label of a line and its value; the bounds of histograms are none, nor is what names the pipeline.
fn label(line: &str) -> Option<(String, String)> {
    let labels = line.split_once('{')?.1.split_once('}')?.0;
    let mut found = labels.split(',').filter_map(|label| label.split_once('='));
    let (name, value) =
        found.find(|(name, _)| !matches!(*name, "le" | "namespace" | "pipeline"))?;
    Some((name.to_owned(), value.trim_matches('"').to_owned()))
}

fn describe(labels: &BTreeSet<(String, String)>, has_all_values: bool) -> String {
    let Some((name, _)) = labels.first() else {
        return String::new();
    };
    match name.as_str() {
        "reason" => "`reason`, see [Reasons](reasons.md)".to_owned(),
        _ if has_all_values => {
            let values: Vec<String> = labels.iter().map(|(_, value)| code(value)).collect();
            format!("`{name}`: {}", values.join(", "))
        }
        _ => code(name),
    }
}
