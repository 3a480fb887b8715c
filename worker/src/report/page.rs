//! The page as a whole: one HTML file that loads nothing and needs no script to be read.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{Chart, bar};
use super::figures::{self, count, count_files, duration, quotient, ratio, saving, shown, size};
use super::state::ReportState;
use super::{JournalCounts, LastRun, tables};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The page's icon, a drawing of a press. Without one, browsers request it from the server.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='7' fill='%230b7285'/%3E%3Cpath d='M7 8h18M10 14h12M13 20h6M15 26h2' stroke='%23fff' stroke-width='3' stroke-linecap='round'/%3E%3C/svg%3E";

/// What the page says beside the figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportMeta {
    /// The pipeline's name.
    pub pipeline: String,
    /// When the page was made, in milliseconds since 1970.
    pub generated_at_millis: u64,
    /// How the last `run` ended.
    pub last_run: LastRun,
    /// The counts, where the rows are those of a data folder.
    pub counts: Option<JournalCounts>,
}

/// Makes the page. It stays under 300 kB however many files there were.
pub fn render(state: &ReportState, meta: &ReportMeta) -> String {
    let counted = meta.counts.as_ref().map(|counts| state.counted_by(counts));
    let state = counted.as_ref().unwrap_or(state);
    let nonce = nonce(state, meta);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'"
    );
    let pipeline = shown(&meta.pipeline, 80);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                link rel="icon" href=(ICON);
                title { (pipeline) " · Streampress report" }
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body {
                (header(state, meta, &pipeline))
                main { (content(state, meta)) }
                footer {
                    p {
                        "1 MB is 1,000,000 bytes. Every file counted as identical was compared "
                        "with the hash taken before it was compressed."
                        @if state.files_normalised > 0 {
                            " The original's format keeps a normal form of a file: that form was compared."
                        }
                        @if meta.last_run.sources > 1 {
                            " The figures are of all " (meta.last_run.sources) " sources whose files the data folder has."
                        }
                    }
                    p {
                        "Pipeline " (pipeline) (efforts(state)) ". Made by Streampress " (env!("CARGO_PKG_VERSION")) " at "
                        (time_element(meta.generated_at_millis)) " UTC."
                    }
                }
                script nonce=(nonce) { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string() + "\n"
}

/// `, packed with effort balanced`, where that is known.
fn efforts(state: &ReportState) -> String {
    let efforts: Vec<&str> = state.efforts.iter().map(String::as_str).collect();
    match efforts.is_empty() {
        true => String::new(),
        false => format!(", packed with effort {}", efforts.join(" and ")),
    }
}

/// Only style and script with this value run. A file name cannot contain it, since it depends on all names.
fn nonce(state: &ReportState, meta: &ReportMeta) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(state).unwrap_or_default());
    hasher.update(format!("{meta:?}").as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

fn header(state: &ReportState, meta: &ReportMeta, pipeline: &str) -> Markup {
    let (class, verdict) = verdict(state, meta);
    html! {
        header {
            div.brand {
                svg viewBox="0 0 32 32" aria-hidden="true" {
                    rect width="32" height="32" rx="7" {}
                    path d="M7 8h18M10 14h12M13 20h6M15 26h2" {}
                }
                span { "Streampress" }
            }
            h1 { (pipeline) }
            p class={ "verdict " (class) } role="status" { (verdict) }
            dl.facts {
                @if let (Some(first), Some(last)) = (state.first_at_millis, state.last_at_millis) {
                    div { dt { "Began" } dd { (time_element(first)) " UTC" } }
                    div { dt { "Took" } dd { (duration(last.saturating_sub(first) as f64 / 1e3)) } }
                }
            }
        }
    }
}

/// The page's headline, the worst that is known: its class, and the text.
fn verdict(state: &ReportState, meta: &ReportMeta) -> (&'static str, String) {
    let last_run = &meta.last_run;
    let under_way = match &meta.counts {
        // A page that is made while files come says how many have.
        Some(counts) if !last_run.is_running => counts.progress.unfinished(),
        Some(_) | None => 0,
    };
    let unfinished = unfinished(state, last_run).max(under_way);
    let differing = state.differing(last_run).files();
    if state.files_failed > 0 {
        return ("bad", format!("{} failed", count_files(state.files_failed)));
    }
    if last_run.left_out.count > 0 {
        return (
            "bad",
            format!("{} left out", count(last_run.left_out.count)),
        );
    }
    if unfinished > 0 {
        return (
            "wait",
            format!("{} not restored yet", count_files(unfinished)),
        );
    }
    if differing > 0 {
        let text = format!("{} changed or gone since", count_files(differing));
        return ("wait", text);
    }
    let restored = count_files(restored(state, last_run));
    if last_run.is_running && state.files() > 0 {
        return ("wait", format!("{restored} came back so far"));
    }
    match (state.files(), state.files_normalised) {
        (0, _) => ("wait", "Waiting for the first file".to_owned()),
        (_, 0) => ("ok", format!("{restored} came back identical")),
        _ => ("ok", format!("{restored} came back, normalised")),
    }
}

/// Files that were restored and are, as far as is known, still at the destination as they were.
fn restored(state: &ReportState, last_run: &LastRun) -> u64 {
    let differing = state.differing(last_run).files();
    state.files_restored.saturating_sub(differing)
}

/// Files that the last run had not restored when it ended. Unknown, and not said, once other work followed.
fn unfinished(state: &ReportState, last_run: &LastRun) -> u64 {
    let followed = state.last_at_millis > Some(last_run.ended_at_millis);
    match followed {
        true => 0,
        false => last_run.unfinished + last_run.waiting,
    }
}

fn content(state: &ReportState, meta: &ReportMeta) -> Markup {
    html! {
        @if state.files_failed > 0 { (tables::failures(state)) }
        @if meta.last_run.left_out.count > 0 { (tables::left_out(&meta.last_run.left_out)) }
        (since(state, &meta.last_run))
        (tiles(state, meta))
        @if state.files() == 0 {
            section class="card empty" {
                h2 { "No files yet" }
                p { "The first one shows up here as soon as it is restored." }
            }
        } @else {
            (charts(state))
            (shares(state))
            (tables::steps(state))
            (tables::latest(state, &meta.last_run))
        }
    }
}

/// What the last run found at its end, where that is not that every file is at its destination.
fn since(state: &ReportState, last_run: &LastRun) -> Markup {
    let differing = state.differing(last_run);
    let elsewhere = last_run.elsewhere.min(differing.gone);
    let found = [
        (
            unfinished(state, last_run),
            "not restored yet; the same command goes on with them",
        ),
        (
            differing.altered,
            "changed by others at the destination after they were restored; remove such a file there, and the next run restores it if its source still has it",
        ),
        (
            differing.gone - elsewhere,
            "no longer at the destination, and the source of this run does not have them",
        ),
        (
            elsewhere,
            "restored at another destination and not at this one, and the source of this run does not have them",
        ),
    ];
    html! {
        @if found.iter().any(|(files, _)| *files > 0) {
            section.card aria-labelledby="since-title" {
                h2 #since-title { "When the last run ended, at " (time_element(last_run.ended_at_millis)) " UTC" }
                ul {
                    @for (files, what) in found.iter().filter(|(files, _)| *files > 0) {
                        li { (count_files(*files)) ": " (what) "." }
                    }
                }
            }
        }
    }
}

fn tiles(state: &ReportState, meta: &ReportMeta) -> Markup {
    let saved = saving(state.raw_bytes, state.packed_bytes);
    let (saved, times) = match quotient(state.raw_bytes, state.packed_bytes) {
        // Files of a few bytes become larger.
        Some(_) if state.packed_bytes > state.raw_bytes => {
            let more = size(state.packed_bytes - state.raw_bytes);
            ("none".to_owned(), format!("{more} larger"))
        }
        Some(_) => {
            let times = ratio(state.raw_bytes, state.packed_bytes);
            (format!("{saved} %"), format!("{times} times smaller"))
        }
        None => (saved, "nothing compressed yet".to_owned()),
    };
    let records = format!("{} stream records", count(state.records));
    let differing = state.differing(&meta.last_run).files();
    let failed_hint = match (state.files_failed, differing, state.files_normalised) {
        (0, 0, 0) => "nothing lost, nothing altered",
        (0, 0, _) => "nothing lost",
        (0, ..) => "but not all as they were restored",
        _ => "see the reasons above",
    };
    let packed = format!("of {}, before compression", count_files(state.files_packed));
    let restored = count(restored(state, &meta.last_run));
    html! {
        ul.tiles aria-label="Summary" {
            (tile("Files restored", &restored, &records, false))
            (tile("Original size", &size(state.raw_bytes), &packed, false))
            (tile("Packed", &size(state.packed_bytes), "without the headers of records", false))
            (tile("Space saved", &saved, &times, false))
            (tile("Throughput", &throughput(state), "while files were worked on", false))
            @if state.files_superseded > 0 {
                (tile("Superseded", &count(state.files_superseded), "a newer version was restored", false))
            }
            @if differing > 0 {
                (tile("Changed or gone since", &count(differing), "see above", false))
            }
            @if meta.last_run.left_out.count > 0 {
                (tile("Left out", &count(meta.last_run.left_out.count), "see the reasons above", true))
            }
            (tile("Failed", &count(state.files_failed), failed_hint, state.files_failed > 0))
        }
    }
}

fn tile(label: &str, value: &str, hint: &str, is_bad: bool) -> Markup {
    html! {
        li class={ "card tile" @if is_bad { " bad" } } {
            span.label { (label) }
            span.value { (value) }
            span.hint { (hint) }
        }
    }
}

/// Over the time in which files were worked on.
fn throughput(state: &ReportState) -> String {
    let ends = state.first_at_millis.zip(state.last_at_millis);
    let whole = ends.map_or(0, |(first, last)| last.saturating_sub(first));
    let millis = state.series.working_millis().min(whole);
    figures::speed(state.restored_raw_bytes, millis as f64 / 1e3)
}

fn charts(state: &ReportState) -> Markup {
    let seconds = state.series.width_millis as f64 / 1e3;
    let throughput = Chart {
        id: "throughput",
        title: "Throughput",
        overall: throughput(state),
        unit: "MB/s",
        axis_unit: "MB/s",
        value: &|bucket| bucket.map(|b| b.raw_bytes as f64 / 1e6 / seconds),
    };
    let ratio = Chart {
        id: "ratio",
        title: "Compression ratio",
        overall: ratio(state.raw_bytes, state.packed_bytes),
        unit: "times smaller",
        axis_unit: "times",
        value: &|bucket| bucket.and_then(|b| quotient(b.raw_bytes, b.packed_bytes)),
    };
    html! {
        div.charts {
            (throughput.render(&state.series))
            (ratio.render(&state.series))
        }
    }
}

/// The packed bytes by transform and codec, the largest first.
fn shares(state: &ReportState) -> Markup {
    let add = |sum: u64, bytes: &u64| sum.saturating_add(*bytes);
    let sum = state.shares.values().fold(0, add);
    let mut shares: Vec<_> = state.shares.iter().collect();
    shares.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    html! {
        @if sum > 0 {
            section.card aria-labelledby="shares-title" {
                h2 #shares-title { "Where the bytes went" }
                ul.shares {
                    @for (label, bytes) in shares {
                        @let share = quotient(*bytes, sum).unwrap_or(0.0);
                        li {
                            span.label { (shown(&share_name(label), 80)) }
                            (bar(share))
                            span.n { (size(*bytes)) " · " (format!("{:.1}", share * 100.0)) " %" }
                        }
                    }
                }
            }
        }
    }
}

/// What a share of the packed bytes holds: manifests name it by transform and codec, as `json · lzma`.
fn share_name(label: &str) -> String {
    let Some((transform, codec)) = label.split_once(" · ") else {
        return label.to_owned();
    };
    let values = match transform {
        "json" => "JSON values",
        "csv" => "Values of tables",
        "text" => "Values of log lines",
        "none" => "Bytes without a structure",
        _ => return label.to_owned(),
    };
    match codec {
        "stored" => format!("{values}, kept as they are: random identifiers and the like"),
        "lzma" => format!("{values}, packed with LZMA"),
        "bz2" => format!("{values}, packed with BZ2"),
        "fill" => format!("{values}, one byte repeated"),
        "columns" | "compact columns" => format!("Structure of the {}", structure(transform)),
        _ => label.to_owned(),
    }
}

fn structure(transform: &str) -> &'static str {
    match transform {
        "json" => "JSON",
        "csv" => "tables",
        _ => "lines",
    }
}

/// A time that programs can read too.
fn time_element(millis: u64) -> Markup {
    let time = figures::time(millis);
    html! { time datetime={ (time.replace(' ', "T")) "Z" } { (time) } }
}
