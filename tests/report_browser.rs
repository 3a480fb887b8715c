//! The report page in a real headless browser: `cargo test -p streampress-tests --features browser`.
//!
//! Each test opens the report in a frame of a given width inside a page of its own, evaluates JavaScript in it, and
//! writes the findings where `--dump-dom` prints them.
//! With `STREAMPRESS_SCREENSHOTS` set to a folder, the tests save screenshots there.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use streampress::message::{Share, StageNumbers};
use streampress::report::{FileOutcome, ReportMeta, ReportRow, ReportState, render};

const START: u64 = 1_767_605_400_000;

const HOSTILE: [&str; 8] = [
    "<script>top.pwned = window.pwned = 1</script>.json",
    "\"><img src=x onerror=\"window.pwned=1\">.csv",
    "</title></style></table><h1 id=injected>hello</h1>.txt",
    "javascript:window.pwned=1//.json",
    "a-very-long-name-without-any-place-to-break-it-at-all-that-goes-on-and-on-and-on-and-on-and-on.json",
    "\u{202e}nosj.evil\u{202d}.json",
    "ünïcödé 文件 📈 with spaces & ampersand's.json",
    "../../etc/passwd\0\n.txt",
];

/// JavaScript expressions over `w` (window) and `d` (document) that the probe evaluates.
const LOOK: &str = r##"{
  enhanced: d.documentElement.dataset.enhanced,
  pwned: w.pwned || window.pwned || 0,
  injected: !!d.getElementById("injected"),
  overflow: d.documentElement.scrollWidth - w.innerWidth,
  wide: [...d.querySelectorAll("body *")].filter((e) => !e.closest("svg, .scroll") && e.getBoundingClientRect().right > w.innerWidth + 1).map((e) => e.tagName + "." + e.className),
  background: w.getComputedStyle(d.body).backgroundColor,
  ink: w.getComputedStyle(d.body).color,
  tiles: [...d.querySelectorAll(".tile .value")].map((e) => e.textContent),
  verdict: d.querySelector(".verdict").textContent,
  failures: d.querySelectorAll(".failed .names bdi").length,
  failedFirst: d.querySelector("main").firstElementChild.classList.contains("failed"),
  steps: [...d.querySelectorAll(".steps tbody th")].map((e) => e.textContent),
  rows: d.querySelectorAll("#files tbody tr").length,
  names: [...d.querySelectorAll("#files tbody th")].map((e) => e.textContent),
  lines: [...d.querySelectorAll(".chart .line")].map((e) => e.getBoundingClientRect().width > 200 && e.getBoundingClientRect().height >= 0),
  bars: [...d.querySelectorAll(".shares .fill")].map((e) => e.getBoundingClientRect().width),
  external: [...d.querySelectorAll("[src],[href]")].map((e) => e.getAttribute("src") || e.getAttribute("href")).filter((u) => !u.startsWith("data:")),
  requests: w.performance.getEntriesByType("resource").length,
  unnamed: [...d.querySelectorAll("svg, [role=region], input, button")].filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.getAttribute("aria-hidden") || e.textContent.trim())).length,
}"##;

fn chromium() -> PathBuf {
    if let Some(path) = std::env::var_os("STREAMPRESS_CHROMIUM") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let candidates = std::env::split_paths(&path);
    let mut candidates = candidates.flat_map(|folder| names.map(|name| folder.join(name)));
    let found = candidates.find(|candidate| candidate.is_file());
    found.expect("no Chromium found: install the package chromium or set STREAMPRESS_CHROMIUM")
}

/// Runs the browser once, with its own profile.
fn browse(page: &Path, flags: &[&str]) -> Output {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    assert!(output.status.success(), "{output:?}");
    output
}

fn dark_flag(dark: bool) -> &'static str {
    if dark {
        "--blink-settings=preferredColorScheme=0"
    } else {
        "--blink-settings=preferredColorScheme=1"
    }
}

/// Opens the report in a frame of `width` and returns what `look` evaluates to after `act` has run.
fn probe(report: &str, width: u32, dark: bool, act: &str, look: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("probe.html");
    let report = report.replace('&', "&amp;").replace('"', "&quot;");
    let probe = format!(
        "<!DOCTYPE html><meta charset=utf-8><pre id=found></pre><iframe id=f width={width} height=900 \
         style=\"border:0\" srcdoc=\"{report}\"></iframe><script>document.getElementById('f').onload = (e) => {{\
         const w = e.target.contentWindow, d = w.document; let found;\
         try {{ {act}; found = {look}; }} catch (error) {{ found = {{ error: String(error) }}; }}\
         document.getElementById('found').textContent = '@@' + encodeURIComponent(JSON.stringify(found)) + '@@'; }}</script>"
    );
    std::fs::write(&page, probe).unwrap();
    let flags = ["--dump-dom", "--virtual-time-budget=5000", dark_flag(dark)];
    let output = browse(&page, &flags);
    let errors = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = errors
        .lines()
        .filter(|line| line.contains(":CONSOLE"))
        .collect();
    assert!(complaints.is_empty(), "the page complains: {complaints:#?}");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = dom
        .split("@@")
        .nth(1)
        .unwrap_or_else(|| panic!("no findings in {dom:.2000}"));
    let found: Value = serde_json::from_str(&decoded(found)).unwrap();
    assert_eq!(found.get("error"), None, "{found}");
    found
}

/// Undoes `encodeURIComponent`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn screenshot(name: &str, report: &str, width: u32, height: u32, dark: bool) {
    let Some(folder) = std::env::var_os("STREAMPRESS_SCREENSHOTS") else {
        return;
    };
    let folder = std::path::absolute(folder).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let page = temporary.path().join("page.html");
    let report = report.replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!(
        "<!DOCTYPE html><meta charset=utf-8><body style=\"margin:0\"><iframe width={width} height={height} \
         style=\"border:0\" srcdoc=\"{report}\"></iframe>"
    );
    std::fs::write(&page, frame).unwrap();
    let picture = format!("--screenshot={}", folder.join(name).display());
    let window = format!("--window-size={},{height}", width.max(500));
    browse(
        &page,
        &[
            &picture,
            &window,
            "--virtual-time-budget=5000",
            dark_flag(dark),
        ],
    );
}

/// A long run: 5,000 files, speeds and ratios that vary, and a few failures among the last.
fn long_run() -> ReportState {
    let mut state = ReportState::default();
    for n in 0..5_000_u64 {
        let wave = ((n as f64 / 160.0).sin() + 1.2) * (1.0 + (n % 7) as f64 / 30.0);
        let raw_bytes = 1_000_000 + n * 37 % 48_576;
        let packed_bytes = raw_bytes / (6 + n / 900 + n % 2);
        let first = packed_bytes * 5 / 4;
        let hostile = HOSTILE.get((n % 613) as usize).filter(|_| n > 4_800);
        let name = hostile.map_or(format!("stock-market-{n:06}.json"), |name| {
            (*name).to_owned()
        });
        let failed = n % 1_900 == 1_100 || n == 4_990;
        state.fold(&ReportRow {
            file_id: format!("id-{n}"),
            name,
            format: "json".to_owned(),
            raw_bytes,
            packed_bytes,
            records: 1 + packed_bytes / 409_600,
            packed_with: 0,
            stages: vec![
                stage("Step 01 columns+LZMA", raw_bytes, first, 0.21),
                stage("Step 02 BZ2", first, packed_bytes, 0.03),
            ],
            codec_shares: vec![
                share("columns + LZMA", packed_bytes * 6 / 10),
                share("text + BZ2", packed_bytes * 3 / 10),
                share("stored", packed_bytes / 10),
            ],
            announced_at_millis: Some(START + n * 180),
            compressed_at_millis: Some(START + n * 180 + 300),
            restored_at_millis: Some(START + (n as f64 * 180.0 + wave * 20_000.0) as u64),
            seconds_compress: 0.24 * wave,
            seconds_restore: 0.04,
            outcome: if failed {
                failure()
            } else {
                FileOutcome::Restored
            },
            slot: format!("decompressor-{}", n % 2),
            is_normalised: false,
        });
    }
    for (n, name) in HOSTILE.into_iter().enumerate() {
        let outcome = if n == 0 {
            failure()
        } else {
            FileOutcome::Restored
        };
        state.fold(&ReportRow {
            file_id: format!("hostile-{n}"),
            name: name.to_owned(),
            raw_bytes: 52_311,
            packed_bytes: 8_120,
            records: 1,
            restored_at_millis: Some(START + 930_000),
            seconds_compress: 0.011,
            seconds_restore: 0.002,
            slot: "<b>slot</b>".to_owned(),
            outcome,
            ..ReportRow::default()
        });
    }
    state
}

fn failure() -> FileOutcome {
    FileOutcome::Failed {
        reason: "record 3 of 5: the hash of its bytes is not the one it was announced with <b>"
            .to_owned(),
        detail:
            "check the stream's retention, then run streampress redrive to announce the file again"
                .to_owned(),
    }
}

fn stage(name: &str, bytes_in: u64, bytes_out: u64, seconds: f64) -> StageNumbers {
    StageNumbers {
        name: name.to_owned(),
        bytes_in,
        bytes_out,
        seconds,
    }
}

fn share(label: &str, bytes: u64) -> Share {
    Share {
        label: label.to_owned(),
        bytes,
    }
}

fn page() -> String {
    let meta = ReportMeta {
        pipeline: "stock-market".to_owned(),
        generated_at_millis: START + 935_000,
        ..ReportMeta::default()
    };
    render(&long_run(), &meta)
}

/// The channels of `rgb(1, 2, 3)` added up.
fn brightness(color: &Value) -> u32 {
    let digits = color
        .as_str()
        .unwrap()
        .trim_start_matches("rgb(")
        .trim_end_matches(')');
    digits
        .split(", ")
        .map(|channel| channel.parse::<u32>().unwrap())
        .sum()
}

#[test]
fn a_long_run_is_shown_whole_and_harmless() {
    let report = page();
    assert!(report.len() < 300_000, "{} bytes", report.len());
    let found = probe(&report, 1280, false, "", LOOK);
    screenshot("report-light.png", &report, 1280, 2300, false);
    assert_eq!(found["enhanced"], "yes", "the script finished");
    assert_eq!(found["pwned"], 0);
    assert_eq!(found["injected"], false);
    assert_eq!(found["external"], json!([]));
    assert_eq!(found["requests"], 0, "nothing is fetched");
    assert_eq!(
        found["unnamed"], 0,
        "everything has a name for screen readers"
    );
    assert_eq!(found["tiles"].as_array().unwrap().len(), 6);
    assert_eq!(found["tiles"][0], "5,003");
    assert_eq!(found["tiles"][5], "5");
    assert_eq!(found["verdict"], "5 files failed");
    assert_eq!(
        (&found["failures"], &found["failedFirst"]),
        (&json!(5), &json!(true))
    );
    let steps = json!(["Step 01", "Step 02", "Total", "Improvement", "Restore"]);
    assert_eq!(found["steps"], steps);
    assert_eq!(found["rows"], 200);
    assert_eq!(found["names"][7], HOSTILE[0], "names are shown unchanged");
    assert_eq!(found["names"][1], HOSTILE[6]);
    // Both charts break before the last files, which came after a pause: a long line and a short one each.
    assert_eq!(found["lines"], json!([true, false, true, false]));
    assert_eq!(found["bars"].as_array().unwrap().len(), 3);
    assert!(brightness(&found["background"]) > 700, "{found}");
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways() {
    let report = page();
    for dark in [false, true] {
        let found = probe(&report, 360, dark, "", LOOK);
        assert_eq!(found["overflow"], 0, "{found}");
        assert_eq!(found["wide"], json!([]));
    }
    screenshot("report-phone.png", &report, 360, 3000, false);
}

#[test]
fn dark_mode_is_dark_and_readable() {
    let report = page();
    let found = probe(&report, 1280, true, "", LOOK);
    screenshot("report-dark.png", &report, 1280, 2300, true);
    assert!(brightness(&found["background"]) < 100, "{found}");
    assert!(brightness(&found["ink"]) > 600, "{found}");
}

#[test]
fn the_table_of_files_sorts_and_filters() {
    let report = page();
    let names = "[...d.querySelectorAll('#files tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[0].textContent)";
    let sizes =
        "[...d.querySelectorAll('#files tbody tr')].map((r) => parseFloat(r.cells[2].textContent))";
    let click = "d.querySelectorAll('#files thead button')[2].click()";
    let down = probe(
        &report,
        1280,
        false,
        click,
        &format!("({{ sizes: {sizes} }})"),
    );
    let twice = format!("{click}; {click}");
    let up = probe(
        &report,
        1280,
        false,
        &twice,
        &format!("({{ sizes: {sizes} }})"),
    );
    let sorted = |found: &Value| -> Vec<f64> {
        let list = found["sizes"].as_array().unwrap();
        list.iter().map(|size| size.as_f64().unwrap()).collect()
    };
    assert!(sorted(&down).is_sorted_by(|a, b| a >= b) && sorted(&down).len() == 200);
    assert!(sorted(&up).is_sorted());
    let filter = "const i = d.querySelector('input'); i.value = 'failed'; i.dispatchEvent(new w.Event('input'))";
    let look = format!("({{ names: {names}, note: d.getElementById('files-note').textContent }})");
    let found = probe(&report, 1280, false, filter, &look);
    assert_eq!(found["names"].as_array().unwrap().len(), 3);
    assert_eq!(found["note"], "3 shown of 200.");
}

#[test]
fn a_short_run_fills_its_charts_and_needs_no_failures() {
    let mut state = ReportState::default();
    for n in 0..3 {
        state.fold(&ReportRow {
            file_id: format!("id-{n}"),
            name: format!("iot-sensors-{n:06}.csv"),
            raw_bytes: 1_048_570,
            packed_bytes: 131_072,
            records: 1,
            stages: vec![stage("Step 01 columns+LZMA", 1_048_570, 131_072, 0.3)],
            announced_at_millis: Some(START),
            restored_at_millis: Some(START + 900),
            seconds_compress: 0.3,
            seconds_restore: 0.02,
            slot: "decompressor-0".to_owned(),
            ..ReportRow::default()
        });
    }
    let meta = ReportMeta {
        pipeline: "iot-sensors".to_owned(),
        generated_at_millis: START + 1_000,
        ..ReportMeta::default()
    };
    let report = render(&state, &meta);
    let found = probe(&report, 1280, false, "", LOOK);
    assert_eq!(found["verdict"], "3 files came back identical");
    assert_eq!((&found["rows"], &found["failures"]), (&json!(3), &json!(0)));
    assert_eq!(
        found["lines"],
        json!([true, true]),
        "one point is a line too"
    );
    assert_eq!(found["steps"], json!(["Step 01", "Total", "Restore"]));
    screenshot("report-short.png", &report, 1280, 1300, false);
}

#[test]
fn a_page_without_files_is_a_page_too() {
    let meta = ReportMeta {
        pipeline: "empty".to_owned(),
        ..ReportMeta::default()
    };
    let report = render(&ReportState::default(), &meta);
    let look = "({ verdict: d.querySelector('.verdict').textContent, enhanced: d.documentElement.dataset.enhanced })";
    let found = probe(&report, 360, false, "", look);
    assert_eq!(found["verdict"], "Waiting for the first file");
    assert_eq!(found["enhanced"], "yes");
    screenshot("report-empty.png", &report, 1280, 700, false);
}
