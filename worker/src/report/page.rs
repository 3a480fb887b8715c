//! The page as a whole: one HTML file that loads nothing and needs no script to be read.

use std::fmt::Write as _;

use super::chart::{self, Chart};
use super::html::{self, count, duration, escape, quotient, ratio, saving, size};
use super::state::ReportState;
use super::tables::{self, files};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// A small drawing of the press, as the page's icon: without one, browsers ask the server for it.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='7' fill='%230b7285'/%3E%3Cpath d='M7 8h18M10 14h12M13 20h6M15 26h2' stroke='%23fff' stroke-width='3' stroke-linecap='round'/%3E%3C/svg%3E";

/// What the page says about where its figures come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportMeta {
    /// The pipeline's name.
    pub pipeline: String,
    /// When the page was made, in milliseconds since 1970.
    pub generated_at_millis: u64,
    /// Facts for the top of the page, such as `("Codec", "Hybrid, balanced")`.
    pub facts: Vec<(String, String)>,
}

/// Makes the page. It stays under 300 kB however many files there were.
pub fn render(state: &ReportState, meta: &ReportMeta) -> String {
    let nonce = nonce(state, meta);
    let pipeline = escape(&meta.pipeline, 80);
    let mut out = String::with_capacity(128 << 10);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'nonce-{nonce}'; \
         script-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\">\
         <link rel=\"icon\" href=\"{ICON}\"><title>{pipeline} · Streampress report</title>\
         <style nonce=\"{nonce}\">{STYLE}</style></head><body>"
    );
    header(state, meta, &pipeline, &mut out);
    out.push_str("<main>");
    tables::failures(state, &mut out);
    tiles(state, &mut out);
    if state.files() == 0 {
        out.push_str(
            "<section class=\"card empty\"><h2>No files yet</h2><p>The first one shows up here \
             as soon as it is restored.</p></section>",
        );
    } else {
        charts(state, &mut out);
        shares(state, &mut out);
        tables::steps(state, &mut out);
        tables::latest(state, &mut out);
    }
    let _ = write!(
        out,
        "</main><footer><p>1 MB is 1,000,000 bytes. Every file counted as identical was compared \
         with the hash taken before it was compressed.</p><p>Made by Streampress at {} UTC.</p></footer>\
         <script nonce=\"{nonce}\">{SCRIPT}</script></body></html>",
        html::time_element(Some(meta.generated_at_millis))
    );
    out.push('\n');
    out
}

/// Only style and script of our own run: what a file name may smuggle in cannot know this.
fn nonce(state: &ReportState, meta: &ReportMeta) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(state).unwrap_or_default());
    hasher.update(format!("{meta:?}").as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

fn header(state: &ReportState, meta: &ReportMeta, pipeline: &str, out: &mut String) {
    let (class, verdict) = match (state.files(), state.files_failed) {
        (0, _) => ("wait", "Waiting for the first file".to_owned()),
        (_, 0) if state.files_restored == 0 => ("ok", "Nothing new to restore".to_owned()),
        (_, 0) => (
            "ok",
            format!("{} came back identical", all(state.files_restored)),
        ),
        (_, failed) => ("bad", format!("{} failed", files(failed))),
    };
    let _ = write!(
        out,
        "<header><div class=\"brand\"><svg viewBox=\"0 0 32 32\" aria-hidden=\"true\"><rect width=\"32\" height=\"32\" rx=\"7\"/>\
         <path d=\"M7 8h18M10 14h12M13 20h6M15 26h2\"/></svg><span>Streampress</span></div>\
         <h1>{pipeline}</h1><p class=\"verdict {class}\" role=\"status\">{verdict}</p><dl class=\"facts\">"
    );
    if let (Some(first), Some(last)) = (state.first_at_millis, state.last_at_millis) {
        let seconds = last.saturating_sub(first) as f64 / 1e3;
        let _ = write!(
            out,
            "<div><dt>Began</dt><dd>{} UTC</dd></div><div><dt>Took</dt><dd>{}</dd></div>",
            html::time_element(Some(first)),
            duration(seconds)
        );
    }
    for (name, value) in meta.facts.iter().take(8) {
        let (name, value) = (escape(name, 40), escape(value, 120));
        let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl></header>");
}

fn all(restored: u64) -> String {
    match restored {
        1 => "The file".to_owned(),
        many => format!("All {} files", count(many)),
    }
}

fn tiles(state: &ReportState, out: &mut String) {
    let saved = saving(state.raw_bytes, state.packed_bytes);
    let skipped = match state.files_skipped {
        0 => format!("{} stream records", count(state.records)),
        some => format!("{} more were already there", count(some)),
    };
    let times = ratio(state.raw_bytes, state.packed_bytes);
    let (saved, times) = match quotient(state.raw_bytes, state.packed_bytes) {
        Some(_) => (format!("{saved} %"), format!("{times} times smaller")),
        None => (saved, "nothing compressed yet".to_owned()),
    };
    let tiles = [
        ("Files restored", count(state.files_restored), skipped),
        (
            "Original size",
            size(state.raw_bytes),
            "before compression".to_owned(),
        ),
        (
            "On the stream",
            size(state.packed_bytes),
            "what is stored and paid for".to_owned(),
        ),
        ("Space saved", saved, times),
        (
            "Throughput",
            throughput(state),
            "from announced to restored".to_owned(),
        ),
        (
            "Failed",
            count(state.files_failed),
            failed_hint(state.files_failed),
        ),
    ];
    out.push_str("<ul class=\"tiles\" aria-label=\"Summary\">");
    for (label, value, hint) in tiles {
        let bad = if label == "Failed" && value != "0" {
            " bad"
        } else {
            ""
        };
        let _ = write!(
            out,
            "<li class=\"card tile{bad}\"><span class=\"label\">{label}</span>\
             <span class=\"value\">{value}</span><span class=\"hint\">{hint}</span></li>"
        );
    }
    out.push_str("</ul>");
}

fn failed_hint(failed: u64) -> String {
    let hint = if failed == 0 {
        "nothing lost, nothing altered"
    } else {
        "see the reasons above"
    };
    hint.to_owned()
}

/// Over the whole time, waiting included.
fn throughput(state: &ReportState) -> String {
    let ends = state.first_at_millis.zip(state.last_at_millis);
    let millis = ends.map_or(0, |(first, last)| last.saturating_sub(first));
    html::speed(state.raw_bytes, millis as f64 / 1e3)
}

fn charts(state: &ReportState, out: &mut String) {
    let seconds = state.series.width_millis as f64 / 1e3;
    out.push_str("<div class=\"charts\">");
    Chart {
        id: "throughput",
        title: "Throughput",
        overall: throughput(state),
        unit: "MB/s",
        value: &|bucket| Some(bucket.map_or(0.0, |b| b.raw_bytes as f64 / 1e6 / seconds)),
    }
    .render(&state.series, out);
    Chart {
        id: "ratio",
        title: "Compression ratio",
        overall: ratio(state.raw_bytes, state.packed_bytes),
        unit: "times smaller",
        value: &|bucket| bucket.and_then(|b| quotient(b.raw_bytes, b.packed_bytes)),
    }
    .render(&state.series, out);
    out.push_str("</div>");
}

/// Where the bytes went: the packed bytes by the way they were packed, the largest first.
fn shares(state: &ReportState, out: &mut String) {
    let sum: u64 = state
        .shares
        .values()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes));
    if sum == 0 {
        return;
    }
    let mut shares: Vec<_> = state.shares.iter().collect();
    shares.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    out.push_str(
        "<section class=\"card\" aria-labelledby=\"shares-title\"><h2 id=\"shares-title\">Where the bytes went</h2><ul class=\"shares\">",
    );
    for (label, bytes) in shares {
        let share = quotient(*bytes, sum).unwrap_or(0.0);
        let _ = write!(
            out,
            "<li><span class=\"label\">{}</span>",
            escape(label, 60)
        );
        chart::bar(share, out);
        let _ = write!(
            out,
            "<span class=\"n\">{} · {:.1} %</span></li>",
            size(*bytes),
            share * 100.0
        );
    }
    out.push_str("</ul></section>");
}
