//! The tables of the page: steps in the original's columns, files, failures.

use std::fmt::Write as _;

use super::html::{count, duration, escape, megabytes, none, ratio, saving, speed};
use super::state::{ReportState, StageTotal};
use super::{Outcome, ReportRow};

/// Shown of a name; the rest is cut out of its middle.
const NAME_CHARS: usize = 64;
const SLOT_CHARS: usize = 24;
const REASON_CHARS: usize = 220;
/// Failures shown; the page says how many there are in all.
const SHOWN_FAILURES: usize = 20;

/// Failures first, with reason and way out.
pub(super) fn failures(state: &ReportState, out: &mut String) {
    if state.files_failed == 0 {
        return;
    }
    let _ = write!(
        out,
        "<section class=\"card failed\" aria-labelledby=\"failed-title\"><h2 id=\"failed-title\">\
         {} did not come back</h2><p>Nothing is lost: each waits among the dead letters. \
         Put right what is named here, then <code>streampress redrive</code>.</p><ul>",
        files(state.files_failed)
    );
    for (outcome, names) in by_reason(state) {
        let Outcome::Failed { reason, way_out } = outcome else {
            continue;
        };
        let names: Vec<_> = names
            .into_iter()
            .map(|name| escape(name, NAME_CHARS))
            .collect();
        let _ = write!(
            out,
            "<li><p><strong>{}</strong></p><p class=\"way\">{}</p><p class=\"names\"><bdi>{}</bdi></p></li>",
            escape(reason, REASON_CHARS),
            escape(way_out, REASON_CHARS),
            names.join("</bdi><bdi>")
        );
    }
    out.push_str("</ul>");
    let left = state
        .files_failed
        .saturating_sub(state.failures.len().min(SHOWN_FAILURES) as u64);
    if left > 0 {
        let _ = write!(out, "<p>{} more.</p>", count(left));
    }
    out.push_str("</section>");
}

/// The latest failures, those of the same reason together.
fn by_reason(state: &ReportState) -> Vec<(&Outcome, Vec<&str>)> {
    let mut groups: Vec<(&Outcome, Vec<&str>)> = Vec::new();
    for row in state.failures.iter().rev().take(SHOWN_FAILURES) {
        match groups
            .iter_mut()
            .find(|(outcome, _)| *outcome == &row.outcome)
        {
            Some((_, names)) => names.push(&row.name),
            None => groups.push((&row.outcome, vec![&row.name])),
        }
    }
    groups
}

/// The original's table, over all files: each step, the total, and what the later steps added.
pub(super) fn steps(state: &ReportState, out: &mut String) {
    out.push_str(
        "<section class=\"card\" aria-labelledby=\"steps-title\"><h2 id=\"steps-title\">Step by step</h2>\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"steps-title\"><table class=\"steps\"><thead><tr>\
         <th scope=\"col\">Stage</th><th scope=\"col\">Name</th><th scope=\"col\" class=\"n\">File Size (MB)</th>\
         <th scope=\"col\" class=\"n\">Compressed (MB)</th><th scope=\"col\" class=\"n\">Time</th><th scope=\"col\" class=\"n\">Ratio</th>\
         <th scope=\"col\" class=\"n\">Space saving %</th><th scope=\"col\" class=\"n\">Speed</th></tr></thead><tbody>",
    );
    for (name, total) in &state.stages {
        let (stage, what) = split_stage(name);
        step_row(&escape(stage, 24), &escape(what, 48), total, "", out);
    }
    let total = StageTotal {
        files: state.files_restored,
        bytes_in: state.raw_bytes,
        bytes_out: state.packed_bytes,
        seconds: state.seconds_compress,
    };
    let whole = files(state.files_restored);
    step_row("Total", &whole, &total, "total", out);
    improvement_row(state, &total, out);
    let restored = StageTotal {
        bytes_in: state.raw_bytes,
        seconds: state.seconds_restore,
        ..total
    };
    step_row("Restore", &whole, &restored, "restore", out);
    out.push_str(
        "</tbody></table></div><p class=\"note\">Improvement is the total against the first step alone. \
         Times are added up over all workers.</p></section>",
    );
}

/// `Step 01 columns+LZMA` is the stage `Step 01` named `columns+LZMA`.
fn split_stage(name: &str) -> (&str, &str) {
    let numbered = name
        .strip_prefix("Step ")
        .and_then(|rest| rest.split_once(' '));
    match numbered {
        Some((number, what)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (&name[..name.len() - what.len() - 1], what)
        }
        _ => (name, "–"),
    }
}

fn step_row(stage: &str, name: &str, total: &StageTotal, class: &str, out: &mut String) {
    let _ = write!(
        out,
        "<tr class=\"{class}\"><th scope=\"row\">{stage}</th><td>{name}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        megabytes(total.bytes_in as f64),
        megabytes(total.bytes_out as f64),
        duration(total.seconds),
        ratio(total.bytes_in, total.bytes_out),
        saving(total.bytes_in, total.bytes_out),
        speed(total.bytes_in, total.seconds)
    );
}

fn improvement_row(state: &ReportState, total: &StageTotal, out: &mut String) {
    let first = state.stages.values().next();
    let comparable = first.filter(|first| {
        let all = [
            first.bytes_in,
            first.bytes_out,
            total.bytes_in,
            total.bytes_out,
        ];
        state.stages.len() > 1 && all.iter().all(|bytes| *bytes > 0)
    });
    let (mut compressed, mut better, mut points) = (none(), none(), none());
    if let Some(first) = comparable {
        let share = |total: &StageTotal| total.bytes_out as f64 / total.bytes_in as f64;
        compressed = signed(megabytes(total.bytes_out as f64 - first.bytes_out as f64));
        better = signed(format!(
            "{:.1} %",
            100.0 * (share(first) / share(total) - 1.0)
        ));
        points = signed(format!("{:.1}", 100.0 * (share(first) - share(total))));
    }
    let _ = write!(
        out,
        "<tr class=\"improvement\"><th scope=\"row\">Improvement</th><td>over the first step</td><td class=\"n\">–</td>\
         <td class=\"n\">{compressed}</td><td class=\"n\">–</td><td class=\"n\">{better}</td><td class=\"n\">{points}</td><td class=\"n\">–</td></tr>"
    );
}

/// With its sign, and a true minus.
fn signed(figure: String) -> String {
    match figure.strip_prefix('-') {
        Some(figure) => format!("−{figure}"),
        None => format!("+{figure}"),
    }
}

/// The latest files, the last one first.
pub(super) fn latest(state: &ReportState, out: &mut String) {
    let shown = state.recent.len() as u64;
    let note = if shown < state.files() {
        format!("The latest {} of {}.", count(shown), files(state.files()))
    } else {
        format!("{}.", capital(&files(shown)))
    };
    let _ = write!(
        out,
        "<section class=\"card\" aria-labelledby=\"files-title\"><div class=\"head\"><h2 id=\"files-title\">Files</h2>\
         <p class=\"note\" id=\"files-note\">{note}</p></div>\
         <div class=\"scroll tall\" role=\"region\" tabindex=\"0\" aria-labelledby=\"files-title\"><table id=\"files\"><thead><tr>"
    );
    for (name, class) in COLUMNS {
        let _ = write!(out, "<th scope=\"col\" class=\"{class}\">{name}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for row in state.recent.iter().rev() {
        file_row(row, out);
    }
    out.push_str("</tbody></table></div></section>");
}

const COLUMNS: [(&str, &str); 12] = [
    ("Name", ""),
    ("Outcome", ""),
    ("File Size (MB)", "n"),
    ("Compressed (MB)", "n"),
    ("Ratio", "n"),
    ("Space saving %", "n"),
    ("Time", "n"),
    ("Speed", "n"),
    ("Restore", "n"),
    ("Records", "n"),
    ("Slot", ""),
    ("Done (UTC)", ""),
];

fn file_row(row: &ReportRow, out: &mut String) {
    let (mark, outcome) = match row.outcome {
        Outcome::Restored => ("ok", "identical"),
        Outcome::Failed { .. } => ("bad", "failed"),
        Outcome::Skipped => ("same", "already there"),
    };
    let _ = write!(
        out,
        "<tr><th scope=\"row\"><bdi>{}</bdi></th><td><span class=\"mark {mark}\">{outcome}</span></td>",
        escape(&row.name, NAME_CHARS)
    );
    let (raw, packed) = (row.raw_bytes, row.packed_bytes);
    let figure = |shown: &str| format!("<td class=\"n\">{shown}</td>");
    // Times come in several units: the number to sort them by stands beside them.
    let time = |seconds: f64| {
        format!(
            "<td class=\"n\" data-v=\"{seconds:.4}\">{}</td>",
            duration(seconds)
        )
    };
    out.push_str(&figure(&megabytes(raw as f64)));
    out.push_str(&figure(&megabytes(packed as f64)));
    out.push_str(&figure(&ratio(raw, packed)));
    out.push_str(&figure(&saving(raw, packed)));
    out.push_str(&time(row.seconds_compress));
    out.push_str(&figure(&speed(raw, row.seconds_compress)));
    out.push_str(&time(row.seconds_restore));
    out.push_str(&figure(&row.records.to_string()));
    let done = row.restored_at_millis.map_or_else(none, super::html::time);
    let slot = escape(&row.slot, SLOT_CHARS);
    let _ = write!(out, "<td>{slot}</td><td>{done}</td></tr>");
}

/// `1 file`, `2,000 files`.
pub(super) fn files(number: u64) -> String {
    format!(
        "{} file{}",
        count(number),
        if number == 1 { "" } else { "s" }
    )
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}
