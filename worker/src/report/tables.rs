//! The tables of the page: steps in the original's columns, files, failures.

use maud::{Markup, html};

use super::figures::{
    count, count_files, duration, megabytes, none, ratio, saving, shown, speed, time,
};
use super::state::{ReportState, StageTotal};
use super::{FileOutcome, LastRun, LeftOutSummary, ReportRow, RestoredCopy};

/// Shown of a name; the middle of a longer one is cut out.
const NAME_CHARS: usize = 64;
const SLOT_CHARS: usize = 24;
const REASON_CHARS: usize = 220;
/// Failures shown; the page also has the number of all.
const SHOWN_FAILURES: usize = 20;

/// Failures with reason and detail.
pub(super) fn failures(state: &ReportState) -> Markup {
    let listed = state.failures.len().min(SHOWN_FAILURES) as u64;
    let more = state.files_failed.saturating_sub(listed);
    html! {
        section class="card failed" aria-labelledby="failed-title" {
            h2 #failed-title { (count_files(state.files_failed)) " did not come back" }
            p {
                "Each is in the dead-letter queue. "
                "Put right what is named here, then " code { "streampress redrive" } "."
            }
            ul {
                @for (reason, detail, names) in by_reason(state) {
                    li {
                        p { strong { (shown(reason, REASON_CHARS)) } }
                        p.way { (shown(detail, REASON_CHARS)) }
                        p.names { @for name in names { bdi { (shown(name, NAME_CHARS)) } } }
                    }
                }
            }
            @if more > 0 { p { (count(more)) " more." } }
        }
    }
}

/// What could not be taken from the source.
pub(super) fn left_out(left_out: &LeftOutSummary) -> Markup {
    let more = left_out
        .count
        .saturating_sub(left_out.listed.len().min(SHOWN_FAILURES) as u64);
    html! {
        section class="card failed" aria-labelledby="left-out-title" {
            h2 #left-out-title { (count(left_out.count)) " left out" }
            p { "These files and folders of the source were not taken. Correct what is named here, then the same command again." }
            ul {
                @for (name, reason) in left_out.listed.iter().take(SHOWN_FAILURES) {
                    li {
                        p.names { bdi { (shown(name, NAME_CHARS)) } }
                        p { (shown(reason, REASON_CHARS)) }
                    }
                }
            }
            @if more > 0 { p { (count(more)) " more." } }
        }
    }
}

/// The latest failures, those of the same reason and detail together.
fn by_reason(state: &ReportState) -> Vec<(&str, &str, Vec<&str>)> {
    let mut groups: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for row in state.failures.iter().rev().take(SHOWN_FAILURES) {
        let FileOutcome::Failed { reason, detail } = &row.outcome else {
            continue;
        };
        let group = groups
            .iter_mut()
            .find(|group| group.0 == reason && group.1 == detail);
        match group {
            Some((_, _, names)) => names.push(&row.name),
            None => groups.push((reason, detail, vec![&row.name])),
        }
    }
    groups
}

/// The original's table, over all files: each step, the total, and what the later steps added.
pub(super) fn steps(state: &ReportState) -> Markup {
    let total = StageTotal {
        files: state.files_packed,
        bytes_in: state.raw_bytes,
        bytes_out: state.packed_bytes,
        seconds: state.seconds_compress,
    };
    let restored = StageTotal {
        files: state.files_restored,
        bytes_in: state.restored_raw_bytes,
        bytes_out: state.restored_packed_bytes,
        seconds: state.seconds_restore,
    };
    html! {
        section.card aria-labelledby="steps-title" {
            h2 #steps-title { "Step by step" }
            div.scroll role="region" tabindex="0" aria-labelledby="steps-title" {
                table.steps {
                    (head(&STEP_COLUMNS))
                    tbody {
                        @for (name, stage_total) in &state.stages {
                            @let (stage, what) = split_stage(name);
                            (step_row(&shown(stage, 24), &shown(what, 48), stage_total, ""))
                        }
                        (step_row("Total", &count_files(total.files), &total, "total"))
                        @if let Some(figures) = improvement(state, &total) { (improvement_row(figures)) }
                        (step_row("Restore", &count_files(restored.files), &restored, "restore"))
                    }
                }
            }
            p.note {
                @if state.stages.len() > 1 { "Improvement is the total against the first step alone. " }
                "Times are added up over all workers. A file that was packed again counts with its last packing."
            }
        }
    }
}

/// Columns of figures have the class `n`.
const STEP_COLUMNS: [(&str, &str); 8] = [
    ("Stage", ""),
    ("Name", ""),
    ("File Size (MB)", "n"),
    ("Compressed (MB)", "n"),
    ("Time", "n"),
    ("Ratio", "n"),
    ("Space saving %", "n"),
    ("Speed", "n"),
];

fn head(columns: &[(&str, &str)]) -> Markup {
    html! {
        thead { tr { @for (name, class) in columns { th scope="col" class=(class) { (name) } } } }
    }
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

fn step_row(stage: &str, name: &str, total: &StageTotal, class: &str) -> Markup {
    html! {
        tr class=(class) {
            th scope="row" { (stage) }
            td { (name) }
            td.n { (megabytes(total.bytes_in as f64)) }
            td.n { (megabytes(total.bytes_out as f64)) }
            td.n { (duration(total.seconds)) }
            td.n { (ratio(total.bytes_in, total.bytes_out)) }
            td.n { (saving(total.bytes_in, total.bytes_out)) }
            td.n { (speed(total.bytes_in, total.seconds)) }
        }
    }
}

fn improvement_row([compressed, better, points]: [String; 3]) -> Markup {
    html! {
        tr.improvement {
            th scope="row" { "Improvement" }
            td { "over the first step" }
            td.n { (none()) }
            td.n { (compressed) }
            td.n { (none()) }
            td.n { (better) }
            td.n { (points) }
            td.n { (none()) }
        }
    }
}

/// What the later steps added to the first: bytes, ratio, and percentage points of the saving.
fn improvement(state: &ReportState, total: &StageTotal) -> Option<[String; 3]> {
    let first = state.stages.values().next().filter(|first| {
        let all = [
            first.bytes_in,
            first.bytes_out,
            total.bytes_in,
            total.bytes_out,
        ];
        state.stages.len() > 1 && all.iter().all(|bytes| *bytes > 0)
    })?;
    let share = |total: &StageTotal| total.bytes_out as f64 / total.bytes_in as f64;
    Some([
        signed(megabytes(total.bytes_out as f64 - first.bytes_out as f64)),
        signed(format!(
            "{:.1} %",
            100.0 * (share(first) / share(total) - 1.0)
        )),
        signed(format!("{:.1}", 100.0 * (share(first) - share(total)))),
    ])
}

/// With its sign, and a typographic minus.
fn signed(figure: String) -> String {
    match figure.strip_prefix('-') {
        Some(figure) => format!("−{figure}"),
        None => format!("+{figure}"),
    }
}

/// The latest files, the last one first.
pub(super) fn latest(state: &ReportState, last_run: &LastRun) -> Markup {
    let listed = state.recent.len() as u64;
    let note = match listed < state.files() {
        true => format!(
            "The latest {} of {}.",
            count(listed),
            count_files(state.files())
        ),
        false => format!("{}.", count_files(listed)),
    };
    html! {
        section.card aria-labelledby="files-title" {
            div.head { h2 #files-title { "Files" } p.note #files-note { (note) } }
            div class="scroll tall" role="region" tabindex="0" aria-labelledby="files-title" {
                table #files {
                    (head(&FILE_COLUMNS))
                    tbody { @for row in state.recent.iter().rev() { (file_row(row, last_run)) } }
                }
            }
        }
    }
}

/// As [`STEP_COLUMNS`].
const FILE_COLUMNS: [(&str, &str); 12] = [
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

fn file_row(row: &ReportRow, last_run: &LastRun) -> Markup {
    let (mark, outcome) = match row.outcome {
        FileOutcome::Restored => match last_run.copy_of(row) {
            RestoredCopy::Same if row.is_normalised => ("ok", "normalised"),
            RestoredCopy::Same => ("ok", "identical"),
            RestoredCopy::Altered => ("same", "changed since"),
            RestoredCopy::Gone => ("same", "gone since"),
            RestoredCopy::Unknown => ("same", "restored"),
        },
        FileOutcome::Superseded => ("same", "superseded"),
        FileOutcome::Discarded => ("same", "discarded"),
        FileOutcome::Failed { .. } => ("bad", "failed"),
    };
    let (raw, packed) = (row.raw_bytes, row.packed_bytes);
    html! {
        tr {
            th scope="row" { bdi { (shown(&row.name, NAME_CHARS)) } }
            td { span class={ "mark " (mark) } { (outcome) } }
            td.n { (megabytes(raw as f64)) }
            td.n { (megabytes(packed as f64)) }
            td.n { (ratio(raw, packed)) }
            td.n { (saving(raw, packed)) }
            (time_cell(row.seconds_compress))
            td.n { (speed(raw, row.seconds_compress)) }
            (time_cell(row.seconds_restore))
            (records_cell(row))
            td { (shown(&row.slot, SLOT_CHARS)) }
            td { (row.restored_at_millis.map_or_else(none, time)) }
        }
    }
}

/// Small files may share records with others.
fn records_cell(row: &ReportRow) -> Markup {
    html! {
        td.n data-v=(row.records) {
            @match row.packed_with {
                0 => (row.records),
                1 => { (row.records) ", with 1 other file" },
                others => { (row.records) ", with " (others) " others" },
            }
        }
    }
}

/// Times have several units, so the cell carries the seconds to sort by.
fn time_cell(seconds: f64) -> Markup {
    html! { td.n data-v=(format!("{seconds:.4}")) { (duration(seconds)) } }
}
