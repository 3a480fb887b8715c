//! The pages below docs/src/reference are generated from the program; this compares them with what is committed. With
//! UPDATE_GOLDEN=1 it writes them.

mod command_line;
mod metrics;
mod pipeline;
mod reasons;

use std::fs;

use streampress_tests::console::repository;

const COMMAND: &str = "UPDATE_GOLDEN=1 cargo test --workspace --all-features --test reference";

#[track_caller]
fn check(page: &str, title: &str, body: &str) {
    let path = repository().join("docs/src/reference").join(page);
    let body = body.trim_end();
    let generated =
        format!("<!-- Generated; refresh it with: {COMMAND} -->\n# {title}\n\n{body}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &generated).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{page} is out of date; refresh it with: {COMMAND}"
    );
}

/// A table in Markdown.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| cell.replace('|', "\\|").replace('\n', " "))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = line(&head);
    text += &format!("|{}\n", "---|".repeat(head.len()));
    for row in rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        text += &line(&row);
    }
    text
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[test]
fn the_page_of_the_pipeline_is_current() {
    check("pipeline.md", "CompressionPipeline", &pipeline::page());
}

#[test]
fn the_page_of_the_command_line_is_current() {
    check("command-line.md", "Command line", &command_line::page());
}

#[test]
fn the_page_of_the_metrics_is_current() {
    check("metrics.md", "Metrics", &metrics::page());
}

#[test]
fn the_page_of_the_reasons_is_current() {
    check("reasons.md", "Reasons", &reasons::page());
}
