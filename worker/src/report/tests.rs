//! The report through its public functions.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::state::{self, FoldedRows, fold_jsonl};
use super::*;

const START: u64 = 1_767_605_400_000;

fn row(n: u64) -> ReportRow {
    ReportRow {
        file_id: format!("id-{n}"),
        name: format!("stock-market-{n:06}.json"),
        format: "json".to_owned(),
        raw_bytes: 1_000_000,
        packed_bytes: 200_000,
        records: 2,
        packed_with: 0,
        effort: Some("balanced".to_owned()),
        stages: vec![
            stage("Step 01 columns+LZMA", 1_000_000, 250_000, 0.2),
            stage("Step 02 BZ2", 250_000, 200_000, 0.05),
        ],
        codec_shares: vec![share("columns + LZMA", 150_000), share("stored", 50_000)],
        announced_at_millis: Some(START + n * 500),
        compressed_at_millis: Some(START + n * 500 + 300),
        restored_at_millis: Some(START + n * 500 + 400),
        seconds_compress: 0.25,
        seconds_restore: 0.04,
        outcome: FileOutcome::Restored,
        is_normalised: false,
        slot: "decompressor-0".to_owned(),
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

fn failed(n: u64) -> ReportRow {
    let outcome = FileOutcome::Failed {
        reason: "chunk 3: hash differs".to_owned(),
        detail: "announce the source again".to_owned(),
    };
    ReportRow { outcome, ..row(n) }
}

fn folded(rows: impl IntoIterator<Item = ReportRow>) -> ReportState {
    let mut state = ReportState::default();
    rows.into_iter().for_each(|row| state.fold(&row));
    state
}

fn page(state: &ReportState) -> String {
    let meta = ReportMeta {
        pipeline: "stock-market".to_owned(),
        generated_at_millis: START,
        last_run: LastRun::default(),
    };
    render(state, &meta)
}

#[test]
fn a_row_delivered_twice_is_counted_once() {
    let once = folded((0..10).map(row));
    let twice = folded((0..10).chain(0..10).map(row));
    assert_eq!(once, twice);
    assert_eq!(once.files_restored, 10);
    assert_eq!(once.raw_bytes, 10_000_000);
}

#[test]
fn a_failed_file_that_is_restored_later_is_no_failure() {
    let failing = folded([row(0), failed(1)]);
    assert_eq!((failing.files_restored, failing.files_failed), (1, 1));
    assert!(page(&failing).contains("hash differs"));
    let healed = folded([row(0), failed(1), failed(1), row(1), row(1)]);
    assert_eq!((healed.files_restored, healed.files_failed), (2, 0));
    assert_eq!(healed.raw_bytes, 2_000_000);
    let page = page(&healed);
    assert!(!page.contains("hash differs") && page.contains("2 files came back identical"));
    assert_eq!(page.matches("stock-market-000001.json").count(), 1);
}

#[test]
fn a_superseded_version_is_shown_as_such_until_the_same_content_is_restored() {
    let superseded = |number| ReportRow {
        outcome: FileOutcome::Superseded,
        ..row(number)
    };
    let state = folded([row(0), superseded(1), superseded(1)]);
    assert_eq!((state.files_restored, state.files_superseded), (1, 1));
    // It was packed all the same.
    assert_eq!((state.files_packed, state.raw_bytes), (2, 2_000_000));
    assert_eq!(
        (state.files_failed, state.restored_raw_bytes),
        (0, 1_000_000)
    );
    assert!(page(&state).contains("a newer version was restored"));
    assert!(!page(&folded([row(0)])).contains("Superseded"));
    let restored = folded([superseded(1), row(1), superseded(1)]);
    assert_eq!((restored.files_restored, restored.files_superseded), (1, 0));
}

#[test]
fn ten_thousand_files_leave_state_and_page_small() {
    let mut state = folded((0..10_000).map(row));
    state.fold(&failed(20_000));
    let json = serde_json::to_vec(&state).unwrap();
    assert!(json.len() < 1_200_000, "{} bytes of state", json.len());
    let again: ReportState = serde_json::from_slice(&json).unwrap();
    assert_eq!(again, state);
    let page = page(&state);
    assert!(page.len() < 300_000, "{} bytes of page", page.len());
    assert!(page.contains("The latest 200 of 10,001 files."));
    assert!(state.series.span() <= state::MAX_BUCKETS);
    let files: u64 = state
        .series
        .buckets
        .values()
        .map(|bucket| bucket.files)
        .sum();
    assert_eq!(files, 10_000, "widening loses nothing");
}

#[test]
fn the_largest_names_and_reasons_leave_the_page_small() {
    let state = folded((0..1_000).map(|n| {
        ReportRow {
            name: "\"".repeat(5_000),
            slot: "'".repeat(5_000),
            stages: (0..50)
                .map(|s| stage(&format!("{n}-{s}").repeat(500), 1, 1, 0.0))
                .collect(),
            codec_shares: (0..50)
                .map(|s| share(&format!("<{n}-{s}>").repeat(500), 1))
                .collect(),
            outcome: match n % 2 {
                0 => FileOutcome::Restored,
                _ => FileOutcome::Failed {
                    reason: "<".repeat(9_000),
                    detail: "&".repeat(9_000),
                },
            },
            ..row(n)
        }
    }));
    let bytes = serde_json::to_vec(&state).unwrap().len();
    assert!(bytes < 2_000_000, "{bytes}");
    let page = page(&state);
    assert!(page.len() < 300_000, "{} bytes", page.len());
}

#[test]
fn the_states_of_several_writers_add_up() {
    let (even, odd) = ((0..600).step_by(2), (1..600).step_by(2));
    let merged = ReportState::merge([folded(even.map(row)), folded(odd.map(row))]);
    let together = folded((0..600).map(row));
    assert_eq!(merged.series, together.series);
    assert_eq!(merged.recent, together.recent);
    assert_eq!(merged.files_restored, 600);
    assert_eq!(
        merged.stages.get("Step 02 BZ2").unwrap().bytes_in,
        600 * 250_000
    );
    assert_eq!(merged.shares, together.shares);
    assert_eq!(merged.first_at_millis, Some(START));
}

#[test]
fn a_row_log_is_read_up_to_its_last_whole_line() {
    let line = |n| serde_json::to_string(&row(n)).unwrap();
    let log = format!(
        "{}\nnot a row\n{{}}\n\n{}\n{}",
        line(0),
        line(1),
        &line(2)[..40]
    );
    let mut state = ReportState::default();
    let folded = fold_jsonl(&mut state, log.as_bytes());
    assert_eq!((folded.rows, folded.unreadable), (2, 2));
    assert_eq!(&log[folded.bytes..], &line(2)[..40]);
    assert_eq!(state.files_restored, 2);
    assert_eq!(fold_jsonl(&mut state, b""), FoldedRows::default());
}

#[test]
fn a_row_of_another_version_is_still_read() {
    let mut state = ReportState::default();
    let log = b"{\"fileId\":\"a\",\"name\":\"b\",\"rawBytes\":5,\"later\":true,\"outcome\":\"restored\"}\n";
    assert_eq!(fold_jsonl(&mut state, log).rows, 1);
    assert_eq!(state.raw_bytes, 5);
}

#[test]
fn wrong_clocks_and_sizes_spoil_no_totals() {
    let odd = |n: u64| ReportRow {
        raw_bytes: u64::MAX,
        packed_bytes: 0,
        seconds_compress: f64::NAN,
        seconds_restore: -1.0,
        announced_at_millis: Some(u64::MAX),
        restored_at_millis: [None, Some(0), Some(u64::MAX)][n as usize % 3],
        ..row(n)
    };
    let state = folded((0..9).map(odd));
    assert!(state.series.span() <= state::MAX_BUCKETS);
    let html = page(&ReportState::merge([state.clone(), state]));
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
}

#[test]
fn the_page_has_the_columns_and_rows_of_the_original() {
    let page = page(&folded((0..4).map(row)));
    let columns = [
        "Stage",
        "Name",
        "File Size (MB)",
        "Compressed (MB)",
        "Time",
        "Ratio",
        "Space saving %",
        "Speed",
    ];
    let steps = page.split("class=\"steps\"").nth(1).unwrap();
    let steps = steps.split("</table>").next().unwrap();
    let mut rest = steps;
    for column in columns {
        rest = rest.split_once(&format!(">{column}</th>")).expect(column).1;
    }
    for row in ["Step 01", "Step 02", "Total", "Improvement"] {
        rest = rest
            .split_once(&format!("<th scope=\"row\">{row}</th>"))
            .expect(row)
            .1;
    }
    let total = steps.split("class=\"total\"").nth(1).unwrap();
    for figure in [
        "4 files", "4.000", "0.800", "1.00 s", "5.00", "80.0", "4.0 MB/s",
    ] {
        assert!(
            total.contains(&format!(">{figure}</td>")),
            "{figure} in {total}"
        );
    }
    let improvement = total.split("class=\"improvement\"").nth(1).unwrap();
    for figure in ["−0.200", "+25.0 %", "+5.0"] {
        assert!(
            improvement.contains(&format!(">{figure}</td>")),
            "{figure} in {improvement}"
        );
    }
}

#[test]
fn the_page_loads_nothing_and_runs_no_foreign_script() {
    let hostile = ReportRow {
        name: "</td><script>alert(1)</script><img src=\"https://example.com/x\" onerror='x'>.json"
            .to_owned(),
        ..row(1)
    };
    let mut state = folded([hostile.clone()]);
    state.fold(&ReportRow {
        file_id: "other".to_owned(),
        ..hostile.clone()
    });
    let meta = ReportMeta {
        pipeline: hostile.name.clone(),
        ..ReportMeta::default()
    };
    let html = render(&state, &meta);
    assert_eq!(html.matches("<script").count(), 1);
    assert!(!html.contains("<img") && !html.contains("@import") && !html.contains("url("));
    for attribute in [" src=", " href=", " style=", " onerror="] {
        for tag in html.split('<').filter_map(|piece| piece.split('>').next()) {
            if let Some((_, value)) = tag.split_once(attribute) {
                assert!(value.starts_with("\"data:"), "<{tag}>");
            }
        }
    }
    assert!(html.contains("default-src 'none'"));
    let other = render(&folded([row(2)]), &ReportMeta::default());
    let nonce = |html: &str| html.split("nonce=\"").nth(1).unwrap()[..32].to_owned();
    assert_ne!(nonce(&html), nonce(&other), "each page has its own");
}

#[test]
fn what_was_left_out_is_on_the_page_and_makes_it_red() {
    let meta = ReportMeta {
        last_run: LastRun {
            left_out: LeftOutSummary {
                count: 2,
                listed: vec![
                    (
                        "odd\u{1b}.json".to_owned(),
                        "has a name that is not UTF-8: rename it".to_owned(),
                    ),
                    ("pipe.json".to_owned(), "is no regular file".to_owned()),
                ],
            },
            ..LastRun::default()
        },
        ..ReportMeta::default()
    };
    for state in [folded([row(1)]), ReportState::default()] {
        let html = render(&state, &meta);
        assert!(html.contains("verdict bad") && html.contains("2 left out"));
        assert!(html.contains("is no regular file") && html.contains("odd\u{fffd}.json"));
        assert!(!html.contains("came back identical"));
    }
}

#[test]
fn files_that_a_run_left_unfinished_or_found_changed_are_in_the_headline() {
    let state = folded([row(1)]);
    let ended = state.last_at_millis.expect("a row has a time");
    let headline = |last_run: LastRun| {
        let meta = ReportMeta {
            last_run,
            ..ReportMeta::default()
        };
        let html = render(&state, &meta);
        let verdict = html
            .split("<p class=\"verdict ")
            .nth(1)
            .expect("a headline");
        verdict.split('<').next().expect("its text").to_owned()
    };
    let unfinished = LastRun {
        ended_at_millis: ended,
        unfinished: 2,
        waiting: 1,
        ..LastRun::default()
    };
    assert!(
        headline(unfinished.clone()).starts_with("wait")
            && headline(unfinished.clone()).ends_with("3 files not restored yet")
    );
    // Work that followed may have restored them.
    let followed = LastRun {
        ended_at_millis: ended - 1,
        ..unfinished
    };
    assert!(headline(followed).ends_with("1 file came back identical"));
    let differing = LastRun {
        ended_at_millis: ended,
        ..LastRun::default()
    };
    let differing = differing.with_differing([].into_iter(), ["id-1"].into_iter());
    assert!(headline(differing).ends_with("1 file changed or gone since"));
}

#[test]
fn a_discarded_file_is_no_failure_and_counts_anew_when_it_is_restored() {
    let discarded = ReportRow {
        outcome: FileOutcome::Discarded,
        ..row(1)
    };
    let state = folded([row(0), failed(1), discarded.clone()]);
    assert_eq!((state.files_failed, state.files()), (0, 1));
    assert!(!page(&state).contains("hash differs"));
    let again = folded([row(0), failed(1), discarded, row(1)]);
    assert_eq!((again.files_failed, again.files_restored), (0, 2));
}

#[test]
fn the_last_outcome_counts_in_whatever_order_rows_are_read() {
    let at = |row: ReportRow, millis| ReportRow {
        restored_at_millis: Some(START + millis),
        ..row
    };
    let discarded = ReportRow {
        outcome: FileOutcome::Discarded,
        ..row(1)
    };
    let rows = [at(failed(1), 1), at(discarded, 2)];
    for order in [[0, 1], [1, 0]] {
        let state = folded(order.map(|n: usize| rows[n].clone()));
        assert_eq!((state.files_failed, state.files()), (0, 0));
    }
    let rows = [at(row(1), 1), at(failed(1), 2)];
    for order in [[0, 1], [1, 0]] {
        let state = folded(order.map(|n: usize| rows[n].clone()));
        assert_eq!((state.files_failed, state.files_restored), (1, 0));
        assert!(page(&state).contains("1 file failed"));
    }
}

/// The file of [`row`], packed again into other records, and restored.
fn packed_again(n: u64, later_millis: u64) -> ReportRow {
    let again = |millis: Option<u64>| millis.map(|millis| millis + later_millis);
    let first = row(n);
    ReportRow {
        packed_bytes: 123_456,
        records: 1,
        stages: vec![stage("Step 01 columns+LZMA", 1_000_000, 123_456, 0.5)],
        codec_shares: vec![share("stored", 123_456)],
        seconds_compress: 0.5,
        compressed_at_millis: again(first.compressed_at_millis),
        restored_at_millis: again(first.restored_at_millis),
        ..first
    }
}

/// All that is summed up, without the times of the work.
fn totals(state: &ReportState) -> impl PartialEq + std::fmt::Debug {
    let counts = [
        state.files_restored,
        state.files_failed,
        state.files_superseded,
        state.files_packed,
        state.raw_bytes,
        state.packed_bytes,
        state.records,
        state.restored_raw_bytes,
        state.restored_packed_bytes,
    ];
    let tenths = |seconds: f64| (seconds * 1e6).round() as u64;
    let stages: Vec<_> = (state.stages.iter())
        .map(|(name, it)| {
            (
                name.clone(),
                it.files,
                it.bytes_in,
                it.bytes_out,
                tenths(it.seconds),
            )
        })
        .collect();
    let seconds = [state.seconds_compress, state.seconds_restore].map(tenths);
    (counts, stages, state.shares.clone(), seconds)
}

#[test]
fn a_file_that_is_packed_again_counts_once_with_its_last_packing_in_whatever_order_rows_are_read() {
    // In between it fails, its first message comes again, and the last finds the file in place.
    let later = |row: ReportRow, millis: u64| ReportRow {
        restored_at_millis: Some(START + millis),
        ..row
    };
    let in_place = ReportRow {
        seconds_restore: 0.0,
        ..later(packed_again(1, 9_000), 12_000)
    };
    let first_again = ReportRow {
        seconds_restore: 0.0,
        ..later(row(1), 20_000)
    };
    let rows = [
        row(1),
        later(failed(1), 3_000),
        packed_again(1, 9_000),
        in_place,
        first_again,
    ];
    let once = folded([row(0), packed_again(1, 9_000)]);
    assert_eq!((once.files_restored, once.packed_bytes), (2, 323_456));
    for first in 0..rows.len() {
        for step in 1..rows.len() {
            let order = (0..rows.len()).map(|n| rows[(first + n * step) % rows.len()].clone());
            let state = folded([row(0)].into_iter().chain(order));
            assert_eq!(totals(&state), totals(&once), "from {first} by {step}");
            assert_eq!(state.recent.len(), 2);
            let page = page(&state);
            assert!(page.contains(">323 kB<") && page.contains(">2.00 MB<"));
        }
    }
    // Of several writers, too.
    let (one, other) = (folded([row(0), row(1)]), folded([packed_again(1, 9_000)]));
    for merged in [[one.clone(), other.clone()], [other, one]] {
        let merged = ReportState::merge(merged);
        assert_eq!(totals(&merged), totals(&once));
        assert_eq!(merged.recent.len(), 2);
    }
}

#[test]
fn every_packed_file_is_in_the_sizes_whatever_became_of_it() {
    let state = folded([row(0), failed(1)]);
    assert_eq!((state.files_packed, state.packed_bytes), (2, 400_000));
    let unpacked = ReportRow {
        compressed_at_millis: None,
        packed_bytes: 0,
        ..failed(2)
    };
    let state = folded([row(0), failed(1), unpacked]);
    assert_eq!((state.files_failed, state.files_packed), (2, 2));
    assert!(page(&state).contains("of 2 files, before compression"));
}

#[test]
fn restored_files_that_others_changed_or_took_away_are_not_called_identical() {
    let state = folded((0..4).map(row));
    let ended = state.last_at_millis.expect("a row has a time");
    let page = |state: &ReportState, last_run: LastRun| {
        let meta = ReportMeta {
            last_run,
            ..ReportMeta::default()
        };
        render(state, &meta)
    };
    let row_of = |html: &str, n: u64| {
        let name = format!("stock-market-{n:06}.json");
        html.split("<tr>")
            .find(|row| row.contains(&name))
            .expect("a row")
            .to_owned()
    };
    let last_run = LastRun {
        ended_at_millis: ended,
        ..LastRun::default()
    };
    let last_run = last_run.with_differing(["id-1"].into_iter(), ["id-2"].into_iter());
    let html = page(&state, last_run.clone());
    for (n, outcome) in [
        (0, "identical"),
        (1, "gone since"),
        (2, "changed since"),
        (3, "identical"),
    ] {
        assert!(row_of(&html, n).contains(&format!(">{outcome}<")), "{n}");
    }
    assert!(html.contains("2 files changed or gone since"));
    assert!(!html.contains("nothing altered") && !html.contains("nothing lost"));
    let restored = html.split(">Files restored<").nth(1).expect("a tile");
    assert!(
        restored.starts_with("/span><span class=\"value\">2</span>"),
        "{restored}"
    );

    // Packed and restored again since.
    let mut again = state.clone();
    again.fold(&packed_again(2, 60_000));
    let html = page(&again, last_run.clone());
    assert!(html.contains("1 file changed or gone since"));
    assert!(row_of(&html, 2).contains(">identical<"));

    // Of too many that differ none is called identical unless it was packed since.
    let many: Vec<String> = (100..100 + LISTED_DIFFERING as u64 + 1)
        .map(|n| format!("id-{n}"))
        .collect();
    let last_run = last_run.with_differing([].into_iter(), many.iter().map(String::as_str));
    let html = page(&again, last_run);
    assert!(row_of(&html, 0).contains(">restored<") && row_of(&html, 2).contains(">identical<"));
}

#[test]
fn files_of_the_originals_format_are_called_normalised_and_not_identical() {
    let html = page(&folded([ReportRow {
        is_normalised: true,
        ..row(1)
    }]));
    assert!(html.contains("1 file came back, normalised"));
    assert!(!html.contains("nothing altered") && !html.contains(">identical<"));
}

#[test]
fn a_file_that_shares_records_says_with_how_many() {
    for (packed_with, text) in [
        (0, ">2<"),
        (1, ">2, with 1 other file<"),
        (42, ">2, with 42 others<"),
    ] {
        let html = page(&folded([ReportRow {
            packed_with,
            ..row(1)
        }]));
        assert!(html.contains(text), "{html}");
    }
}

#[test]
fn rates_count_the_time_in_which_files_were_worked_on() {
    // Two files, each worked on for 290 ms, an hour apart.
    let later = ReportRow {
        announced_at_millis: Some(START + 3_600_000),
        restored_at_millis: Some(START + 3_600_400),
        ..row(2)
    };
    let state = folded([row(0), later]);
    let (busy, whole) = (state.series.working_millis(), 3_600_400);
    assert!(
        busy <= 2 * state.series.width_millis * 2 && busy < whole / 20,
        "{busy}"
    );
    let bytes: u64 = state
        .series
        .buckets
        .values()
        .map(|bucket| bucket.raw_bytes)
        .sum();
    assert_eq!(bytes, 2_000_000);
    assert!(!page(&state).contains(">0.0 MB/s<"));
}

#[test]
fn the_bytes_of_a_long_work_are_spread_over_it() {
    let slow = ReportRow {
        announced_at_millis: Some(START),
        restored_at_millis: Some(START + 60_000),
        seconds_compress: 50.0,
        seconds_restore: 3.0,
        ..row(0)
    };
    let state = folded([slow.clone()]);
    let buckets = &state.series.buckets;
    assert_eq!(buckets.len(), 54);
    assert_eq!(buckets.values().map(|bucket| bucket.files).sum::<u64>(), 1);
    assert_eq!(
        buckets
            .values()
            .map(|bucket| bucket.packed_bytes)
            .sum::<u64>(),
        200_000
    );
    assert!(buckets.values().all(|bucket| bucket.raw_bytes > 18_000));
    // A wrong figure makes no bucket wider than a day's work needs.
    let wrong = ReportRow {
        announced_at_millis: None,
        seconds_compress: 1e300,
        ..slow
    };
    assert!(folded([wrong]).series.width_millis <= 512_000);
}

#[test]
fn a_page_without_files_says_so() {
    let html = page(&ReportState::default());
    assert!(html.contains("Waiting for the first file") && html.contains("No files yet"));
}
