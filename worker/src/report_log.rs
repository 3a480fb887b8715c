//! The report on disk: one line of JSON for every file in `<page>.d/<writer>.jsonl`, and the page rendered from all
//! writers' lines. A line is appended when its file is done and survives a killed process; the page is rendered at most
//! every two seconds while files come, and once more at the end.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracing::warn;

use crate::blocking;
use crate::report::{self, ReportMeta, ReportRow, ReportState};

/// Between two renderings while files come.
const RENDER_EVERY: Duration = Duration::from_secs(2);
/// A writer's lines are folded into one state line above this size, so that an endless pipeline's report stays small.
const COMPACT_ABOVE_BYTES: u64 = 8 << 20;

/// Where one writer's rows go.
#[derive(Debug)]
pub struct ReportLog {
    shared: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    page: PathBuf,
    title: String,
    writer: String,
    lines: Option<File>,
    /// What has been read so far of every writer's lines.
    read: HashMap<PathBuf, (u64, ReportState)>,
    rendered: Option<Instant>,
    changed: bool,
}

impl ReportLog {
    /// A report at `page`; `writer` keeps several processes apart.
    pub fn open(page: &Path, title: &str, writer: &str) -> Self {
        let inner = Inner {
            page: page.to_owned(),
            title: title.to_owned(),
            writer: writer.to_owned(),
            lines: None,
            read: HashMap::new(),
            rendered: None,
            changed: false,
        };
        Self { shared: Arc::new(Mutex::new(inner)) }
    }

    /// Notes a row, and renders the page if that was some time ago. A report that cannot be written never holds up
    /// the files: it is logged.
    pub async fn add(&self, row: ReportRow) {
        self.with(move |inner| {
            inner.append(&row)?;
            if inner.rendered.is_none_or(|at| at.elapsed() >= RENDER_EVERY) { inner.render() } else { Ok(()) }
        })
        .await;
    }

    /// Renders the page if anything came since; called when work pauses and at the end.
    pub async fn finish(&self) {
        self.with(|inner| if inner.changed { inner.render() } else { Ok(()) }).await;
    }

    async fn with(&self, work: impl FnOnce(&mut Inner) -> Result<()> + Send + 'static) {
        let shared = self.shared.clone();
        let done = blocking(move || work(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))).await;
        if let Err(error) = done {
            warn!(error = %format!("{error:#}"), "Could not write the report; files go on.");
        }
    }
}

/// Renders the page from the lines that are there. Returns how many files it tells of.
pub fn render_stored(page: &Path, title: &str) -> Result<u64> {
    let log = ReportLog::open(page, title, "");
    let mut inner = log.shared.lock().unwrap_or_else(PoisonError::into_inner);
    inner.render()?;
    Ok(inner.merged().files())
}

impl Inner {
    fn folder(&self) -> PathBuf {
        let mut name = self.page.clone().into_os_string();
        name.push(".d");
        name.into()
    }

    fn append(&mut self, row: &ReportRow) -> Result<()> {
        if self.lines.is_none() {
            let folder = self.folder();
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let path = folder.join(format!("{}.jsonl", self.writer));
            self.lines = Some(OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("opening {}", path.display()))?);
        }
        let mut line = serde_json::to_vec(row).context("writing a report row as JSON")?;
        line.push(b'\n');
        if let Some(lines) = &mut self.lines {
            lines.write_all(&line).context("adding a row to the report")?;
        }
        self.changed = true;
        Ok(())
    }

    /// Reads what came since, merges all writers and writes the page.
    fn render(&mut self) -> Result<()> {
        self.catch_up()?;
        self.compact()?;
        let meta = ReportMeta { title: self.title.clone(), rendered_millis: crate::clock::now_millis() };
        let html = report::render(&self.merged(), &meta);
        write_whole(&self.page, html.as_bytes()).with_context(|| format!("writing {}", self.page.display()))?;
        self.rendered = Some(Instant::now());
        self.changed = false;
        Ok(())
    }

    fn merged(&self) -> ReportState {
        report::merge(self.read.values().map(|(_, state)| state))
    }

    fn catch_up(&mut self) -> Result<()> {
        let folder = self.folder();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let (offset, state) = self.read.entry(path.clone()).or_default();
                read_on(&path, offset, state).with_context(|| format!("reading {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Replaces our own lines by one line that holds their sum.
    fn compact(&mut self) -> Result<()> {
        let path = self.folder().join(format!("{}.jsonl", self.writer));
        let Some((offset, state)) = self.read.get_mut(&path) else { return Ok(()) };
        if *offset < COMPACT_ABOVE_BYTES || self.lines.is_none() {
            return Ok(());
        }
        let mut line = report::state_line(state);
        line.push(b'\n');
        write_whole(&path, &line)?;
        *offset = line.len() as u64;
        self.lines = Some(OpenOptions::new().append(true).open(&path)?);
        Ok(())
    }
}

/// Folds the lines behind `offset` into `state`; a torn last line waits for its end. A file that became shorter was
/// compacted by its writer and is read anew.
fn read_on(path: &Path, offset: &mut u64, state: &mut ReportState) -> io::Result<()> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *offset {
        (*offset, *state) = (0, ReportState::default());
    }
    file.seek(SeekFrom::Start(*offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    state.fold_jsonl(&bytes[..whole]);
    *offset += whole as u64;
    Ok(())
}

fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut pending = tempfile::Builder::new().prefix(".streampress-").tempfile_in(folder)?;
    pending.write_all(content)?;
    #[cfg(unix)]
    pending.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    pending.persist(path).map(drop).map_err(|error| error.error)
}
