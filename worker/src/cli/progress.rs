//! Shows a run's progress: bars on a terminal, plain lines elsewhere, a table at the end. Everything but the summary goes to
//! standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::output;
use crate::journal::JournalProgress;
use crate::report::saved_percent;
use crate::roles::run::{RunObserver, RunSummary};
use crate::telemetry::plain_log::{printable, printable_name};

/// The shortest time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Bars if standard error is a terminal, lines otherwise.
pub(super) fn observer() -> Box<dyn RunObserver> {
    if io::stderr().is_terminal() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines::new())
    }
}

/// The bars on the terminal, if there are any: they must not overwrite log lines.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Where log lines go: standard error, above the bars.
pub(super) fn log_writer() -> Box<dyn Write> {
    Box::new(LogLine(Vec::new()))
}

struct LogLine(Vec<u8>);

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.0);
        match BARS.get() {
            Some(bars) => bars.suspend(|| io::stderr().write_all(&line)),
            None => io::stderr().write_all(&line),
        }
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        // A closed standard error cannot be reported.
        let _ = self.flush();
    }
}

struct Bars {
    all: MultiProgress,
    announced: ProgressBar,
    packed: ProgressBar,
    restored: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let all = BARS.get_or_init(MultiProgress::new).clone();
        let bar = |name: &'static str| {
            let colours = if output::has_colour() {
                ".cyan/blue"
            } else {
                ""
            };
            let style = ProgressStyle::with_template(&format!(
                "{{prefix:>10}} {{bar:32{colours}}} {{pos:>6}}/{{len:<6}} {{msg}}"
            ));
            let bar = ProgressBar::new(0).with_prefix(name);
            all.add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        };
        Self {
            announced: bar("announced"),
            packed: bar("compressed"),
            restored: bar("restored"),
            all: all.clone(),
        }
    }
}

impl RunObserver for Bars {
    fn started(&self, data: &Path, resumed: JournalProgress) {
        let _ = self.all.println(start_line(data, resumed));
    }

    fn notice(&self, text: &str) {
        let _ = self.all.println(format!("note: {text}"));
    }

    fn progress(&self, progress: JournalProgress, total: Option<u64>) {
        let length = total.unwrap_or(progress.announced).max(progress.announced);
        for (bar, position) in [
            (&self.announced, progress.announced),
            (&self.packed, progress.compressed),
            (&self.restored, progress.restored + progress.superseded),
        ] {
            bar.set_length(length);
            bar.set_position(position);
        }
        self.announced
            .set_message(DecimalBytes(progress.bytes_announced).to_string());
        self.packed
            .set_message(saved(progress.bytes_raw, progress.bytes_packed));
        let failed = if progress.failed > 0 {
            format!(", {} failed", progress.failed)
        } else {
            String::new()
        };
        self.restored
            .set_message(format!("{}{failed}", DecimalBytes(progress.bytes_restored)));
    }

    fn finished(&self) {
        for bar in [&self.announced, &self.packed, &self.restored] {
            bar.abandon();
        }
    }
}

struct Lines {
    last: Mutex<Option<(Instant, JournalProgress)>>,
}

impl Lines {
    fn new() -> Self {
        Self {
            last: Mutex::new(None),
        }
    }
}

impl RunObserver for Lines {
    fn started(&self, data: &Path, resumed: JournalProgress) {
        output::say(&start_line(data, resumed));
    }

    fn notice(&self, text: &str) {
        output::note(text);
    }

    fn progress(&self, progress: JournalProgress, total: Option<u64>) {
        let mut last = self.last.lock();
        let has_news = match *last {
            None => true,
            Some((at, shown)) => {
                shown != progress
                    && (at.elapsed() >= LINE_INTERVAL || Some(progress.restored) == total)
            }
        };
        if has_news {
            *last = Some((Instant::now(), progress));
            output::say(&progress_line(progress, total));
        }
    }

    fn finished(&self) {}
}

fn progress_line(progress: JournalProgress, total: Option<u64>) -> String {
    // A folder that has files of earlier runs has more than this one makes.
    let total = total.filter(|total| *total >= progress.announced);
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    let JournalProgress {
        announced,
        compressed,
        restored,
        failed,
        ..
    } = progress;
    format!(
        "announced {announced}{of}, compressed {compressed} ({}), restored {restored}, failed {failed}",
        saved(progress.bytes_raw, progress.bytes_packed)
    )
}

fn start_line(data: &Path, resumed: JournalProgress) -> String {
    let begun = match resumed.announced {
        0 => String::new(),
        files => format!(
            "; continuing: {files} files are known, {} of them restored",
            resumed.restored
        ),
    };
    format!("data folder: {}{begun}", data.display())
}

fn saved(raw: u64, packed: u64) -> String {
    if raw == 0 || packed == 0 {
        return format!("{} to {}", DecimalBytes(raw), DecimalBytes(packed));
    }
    let percent = 100.0 * (1.0 - packed as f64 / raw as f64);
    format!(
        "{} to {}, {}",
        DecimalBytes(raw),
        DecimalBytes(packed),
        saved_text(percent)
    )
}

/// Files of a few bytes become larger.
fn saved_text(percent: f64) -> String {
    match percent < 0.0 {
        true => format!("{:.1} % larger", -percent),
        false => format!("{} % saved", saved_percent(percent)),
    }
}

/// The table at the end of a run.
pub(super) fn summary_table(summary: &RunSummary) -> String {
    let mut table = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(table, "  {name:<12} {value}");
    };
    row("files", files_line(summary));
    row("raw", DecimalBytes(summary.bytes_raw).to_string());
    let percent = summary.saved_percent().map_or(String::new(), |saved| {
        format!(
            ", {}, ratio {:.2}",
            saved_text(saved),
            summary.bytes_raw as f64 / summary.bytes_compressed.max(1) as f64
        )
    });
    row(
        "compressed",
        format!("{}{percent}", DecimalBytes(summary.bytes_compressed)),
    );
    row("time", format!("{:.1} s", summary.seconds));
    row("restored to", summary.output.display().to_string());
    if let Some(report) = &summary.report {
        row("report", report.display().to_string());
    }
    for (what, files, count) in [
        ("failed", &summary.failures, summary.files_failed),
        ("left out", &summary.left_out, summary.files_left_out),
    ] {
        for (name, reason) in files {
            let (name, reason) = (printable_name(name), printable(reason));
            let _ = writeln!(table, "  {what}: {name}: {reason}");
        }
        let more = count.saturating_sub(files.len() as u64);
        if more > 0 {
            let _ = writeln!(table, "  {what}: and {more} more");
        }
    }
    table
}

fn files_line(summary: &RunSummary) -> String {
    let RunSummary {
        files_generated,
        files_restored,
        files_failed,
        files_superseded,
        files_left_out,
        files_waiting,
        files_not_taken,
        files_gone,
        files_elsewhere,
        files_altered,
        sources,
        normalised,
        ..
    } = summary;
    let how = match normalised {
        true => "restored in the original's normal form",
        false => "restored identical",
    };
    let mut line = format!("{files_generated} announced, {files_restored} {how}");
    if *files_superseded > 0 {
        let _ = write!(line, ", {files_superseded} superseded by a newer version");
    }
    let files_gone = files_gone.saturating_sub(*files_elsewhere);
    if *files_elsewhere > 0 {
        let _ = write!(line, ", {files_elsewhere} restored at another destination");
    }
    if files_gone > 0 {
        let _ = write!(line, ", {files_gone} restored before and gone since");
    }
    if *files_altered > 0 {
        let _ = write!(line, ", {files_altered} changed at the destination since");
    }
    let _ = write!(line, ", {files_failed} failed");
    if *files_left_out > 0 {
        let _ = write!(line, ", {files_left_out} left out");
    }
    if *files_waiting > 0 {
        let _ = write!(
            line,
            ", {files_waiting} not announced yet (changed a short time ago)"
        );
    }
    if *files_not_taken > 0 {
        let _ = write!(line, ", {files_not_taken} of other kinds not taken");
    }
    if *sources > 1 {
        let _ = write!(line, "; of the {sources} sources of this data folder");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_never_all_saved() {
        for (raw, packed, line) in [
            (15_000_000, 819, "15.00 MB to 819 B, 99.9 % saved"),
            (1000, 250, "1.00 kB to 250 B, 75.0 % saved"),
            (10, 20, "10 B to 20 B, 100.0 % larger"),
        ] {
            assert_eq!(saved(raw, packed), line);
        }
    }

    #[test]
    fn a_run_never_says_that_more_files_are_announced_than_there_are() {
        let progress = JournalProgress {
            announced: 3,
            compressed: 3,
            ..JournalProgress::default()
        };
        for (total, line) in [
            (Some(3), "announced 3 of 3, compressed 3 ("),
            (Some(2), "announced 3, compressed 3 ("),
            (None, "announced 3, compressed 3 ("),
        ] {
            let said = progress_line(progress, total);
            assert!(said.starts_with(line), "{said}");
        }
    }
}
