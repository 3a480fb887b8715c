//! Finds sleeps of tests that do not say why they are there.

use super::source::TextFile;

/// A test that sleeps is slow, or breaks on a busy machine: it waits for a condition (`eventually`) or has a paused clock. A
/// sleep that stays has a comment, on its line or above it.
pub fn unexplained(file: &TextFile) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let Some(first) = first_line_of_tests(file, &lines) else {
        return Vec::new();
    };
    let is_unexplained = |at: usize| {
        let line = lines[at].trim_start();
        let has_comment = line.contains("//") || at > 0 && lines[at - 1].contains("//");
        let sleeps = line.contains("sleep(") || line.contains("sleep_until(");
        let is_definition = line.contains("fn sleep");
        sleeps && !is_definition && !has_comment && !has_paused_clock(&lines[..at])
    };
    (first..lines.len())
        .filter(|at| is_unexplained(*at))
        .map(|at| format!("{}:{}: a sleep without a reason", file.path, at + 1))
        .collect()
}

/// Where the tests of a file begin; `None` where it has none.
pub fn first_line_of_tests(file: &TextFile, lines: &[&str]) -> Option<usize> {
    let path = format!("/{}", file.path);
    let is_test = ["/tests/", "/tests.rs", "/contract_tests/"];
    if is_test.iter().any(|part| path.contains(part)) {
        return Some(0);
    }
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{'))
}

/// Whether the function that these lines end in is a test with a paused clock.
fn has_paused_clock(before: &[&str]) -> bool {
    let is_function = |line: &&str| {
        let line = line.trim_start().trim_start_matches("pub ");
        line.trim_start_matches("async ").starts_with("fn ")
    };
    let Some(function) = before.iter().rposition(is_function) else {
        return false;
    };
    let attributes = before[..function].iter().rev();
    attributes
        .take_while(|line| line.trim_start().starts_with(['#', '/']))
        .any(|line| line.contains("start_paused"))
}
