//! `streampress run` as a user meets it: from the first file to the last, interrupted, killed and resumed.

mod support;

use std::time::Duration;

use support::{Place, eventually, text};

#[test]
fn a_run_restores_every_generated_file_and_says_so() {
    let place = Place::with_generator(6);
    let summary = place.run_summary(&[]);
    assert_eq!(summary["filesGenerated"], 6, "{summary}");
    assert_eq!(summary["filesCompressed"], 6, "{summary}");
    assert_eq!(summary["filesRestored"], 6, "{summary}");
    assert_eq!(summary["filesFailed"], 0, "{summary}");
    assert_eq!(place.files("data/in"), place.files("data/out"));
    assert!(
        summary["bytesCompressed"].as_u64() < summary["bytesRaw"].as_u64(),
        "{summary}"
    );
    let report = summary["report"].as_str().expect("a report");
    assert!(
        text(&std::fs::read(place.path(report)).expect("the page is there"))
            .contains("test-000005.json")
    );
}

#[test]
fn a_second_run_finds_all_done_and_files_n_asks_for_more() {
    let place = Place::with_generator(2);
    place.run_summary(&[]);
    assert_eq!(place.run_summary(&[])["filesRestored"], 2);
    assert_eq!(place.run_summary(&["--files", "4"])["filesRestored"], 4);
    assert_eq!(place.files("data/out").len(), 4);
}

#[test]
fn the_same_seed_makes_the_same_files() {
    let (one, other) = (Place::with_generator(3), Place::with_generator(3));
    one.run_summary(&[]);
    other.run_summary(&[]);
    assert_eq!(one.files("data/out"), other.files("data/out"));
}

#[test]
fn the_users_own_files_come_back_under_their_names_and_are_left_alone() {
    let place = Place::with_spec("  source: {onCompressed: Delete}");
    let long = format!("in/{}.csv", "n".repeat(251));
    place.write("in/plain.json", b"{\"a\":  1}\n");
    place.write(
        "in/deep/er/Ordner \u{e4} #%&?.txt",
        b"\xff\xfe not utf-8 \x00\n",
    );
    place.write("in/empty.log", b"");
    place.write(&long, b"a,b\r\n1,\"x\ny\"\n");
    let before = place.files("in");
    place.write("in/picture.png", b"not ours");
    let summary = place.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesRestored"], 4, "{summary}");
    assert_eq!(place.files("data/out"), before);
    assert_eq!(place.files("in").len(), 5);
}

#[test]
fn an_input_folder_without_files_to_take_is_an_error_with_a_way_out() {
    let place = Place::with_spec("  suspend: false");
    place.write("in/picture.png", b"not ours");
    let output = place.run(&["run", "pipeline.yaml", "--data", "data", "--input", "in"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("no file to take"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_stopped_run_goes_on_where_it_stopped() {
    let place = Place::with_generator(60);
    let running = place.start(&["run", "pipeline.yaml", "--data", "data"]);
    eventually("a file is restored", || !place.files("data/out").is_empty());
    assert_eq!(running.stop(), Some(1));
    assert!(
        place.log().contains("goes on where it stopped"),
        "{}",
        place.log()
    );
    assert_eq!(place.run_summary(&[])["filesRestored"], 60);
    assert_eq!(place.files("data/in"), place.files("data/out"));
}

#[test]
fn a_run_killed_at_any_moment_loses_and_alters_nothing() {
    let place = Place::with_generator(60);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..12 {
        let running = place.start(&["run", "pipeline.yaml", "--data", "data"]);
        std::thread::sleep(Duration::from_millis(random.u64(20..900)));
        running.kill();
        // Whatever is visible is whole.
        let made = place.files("data/in");
        for (name, content) in place.files("data/out") {
            assert_eq!(made.get(&name), Some(&content), "{name} was altered");
        }
    }
    let summary = place.run_summary(&[]);
    assert_eq!(
        (&summary["filesRestored"], &summary["filesFailed"]),
        (&60.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(place.files("data/in"), place.files("data/out"));
    let leftovers = std::fs::read_dir(place.path("data/out"))
        .expect("out")
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(".streampress")
            })
        });
    assert_eq!(leftovers.count(), 0, "unfinished files were left behind");
}

#[test]
fn a_seed_pipeline_restores_the_normalised_form() {
    let place = Place::with_spec("  codec: {format: Seed, recordSize: 8Ki}");
    place.write("in/a.json", b"{\"a\" :  1.50, \"b\": \"\xc3\xa9\"}\n");
    place.write("in/b.txt", b"two  spaces\n and\ta tab ");
    place.write("in/c.csv", b"a,\"b\"\r\n1,2\r\n");
    place.write(
        "in/large.txt",
        "words and more words of all kinds ".repeat(4000),
    );
    let summary = place.run_summary(&["--input", "in"]);
    assert_eq!(summary["filesRestored"], 4, "{summary}");
    let restored = place.files("data/out");
    assert_eq!(text(&restored["a.json"]), "{\"a\":1.5,\"b\":\"\\u00e9\"}");
    assert_eq!(text(&restored["b.txt"]), "two spaces and a tab");
    assert_eq!(
        text(&restored["large.txt"]),
        "words and more words of all kinds ".repeat(4000).trim_end()
    );
}

#[test]
fn the_report_of_a_seed_pipeline_has_both_steps_and_what_the_second_brought() {
    let place = Place::with_spec("  codec: {format: Seed, recordSize: 4Ki}");
    let mut random = fastrand::Rng::with_seed(3);
    let words: String = (0..20_000)
        .map(|_| format!("{:x} ", random.u32(..)))
        .collect();
    place.write("in/long.txt", words);
    let summary = place.run_summary(&["--input", "in"]);
    let report = summary["report"].as_str().expect("a report");
    let page = text(&std::fs::read(place.path(report)).expect("the page is there"));
    for row in [
        "<th scope=\"row\">Step 01</th><td>LZMA</td>",
        "<th scope=\"row\">Step 02</th><td>BZ2</td>",
        "<th scope=\"row\">Improvement</th>",
    ] {
        assert!(page.contains(row), "{row} is missing from the page");
    }
}

#[test]
fn strict_ordering_restores_all_files_too() {
    let place = Place::with_spec(
        "  ordering: Strict\n  generator: {schema: {example: iot-sensors}, format: csv, fileSize: 16Ki, filesPerMinute: 0, files: 8}\n  source: {formats: [csv]}",
    );
    assert_eq!(place.run_summary(&[])["filesRestored"], 8);
}

#[test]
fn bad_yaml_ends_with_code_64_and_names_line_and_field() {
    let place = Place::with_spec("  codec: {blocksize: 4Mi}");
    let output = place.run(&["run", "pipeline.yaml"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.contains("pipeline.yaml:5:") && said.contains("blockSize"),
        "{said}"
    );
}

#[test]
fn a_mistyped_command_ends_with_code_2() {
    let place = Place::with_generator(1);
    assert_eq!(place.run(&["runn", "pipeline.yaml"]).status.code(), Some(2));
    assert_eq!(
        place
            .run(&["run", "pipeline.yaml", "--files", "0"])
            .status
            .code(),
        Some(2)
    );
}
