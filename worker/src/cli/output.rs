//! What commands print, and the files they read and write: `-` is standard input or output; a file appears whole or not at
//! all, and replaces another only with --force.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;
use clap::builder::styling::{AnsiColor, Style};
use serde_json::json;
use tempfile::NamedTempFile;

use super::args::ColourChoice;
use super::signals;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();

/// Prints to standard output. A closed pipe is not an error: its reader has what it wanted.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}

/// Whether the reader of standard output has what it wanted.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Takes `--color` from the command line before clap reads it, since clap's own help and errors must follow it too. What cannot
/// be read is left to clap, which names it.
pub(super) fn choose_colour(args: impl IntoIterator<Item = OsString>) {
    let mut args = args.into_iter().take_while(|arg| arg != "--");
    let mut given = None;
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--color") => given = args.next(),
            Some(arg) => given = arg.strip_prefix("--color=").map(Into::into).or(given),
            None => {}
        }
    }
    let given = given.as_deref().and_then(OsStr::to_str);
    match given.and_then(|given| ColourChoice::from_str(given, false).ok()) {
        Some(ColourChoice::Always) => ColorChoice::Always,
        Some(ColourChoice::Never) => ColorChoice::Never,
        Some(ColourChoice::Auto) | None => ColorChoice::Auto,
    }
    .write_global();
}

/// Whether what goes to standard error has colours: as `--color` says, else on a terminal unless NO_COLOR is set.
pub(super) fn has_colour() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Whether what commands say is JSON, as their log is.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on lines on standard error are JSON, in the form of the log.
pub(super) fn use_json() {
    IS_JSON.store(true, Relaxed);
}

/// Prints a line to standard error. A line that cannot be written is lost: it must not end the work that it tells of.
pub(super) fn say(text: &str) {
    write("INFO", text, text);
}

fn write(level: &str, text: &str, styled: &str) {
    let _ = match IS_JSON.load(Relaxed) {
        true => {
            let timestamp = jiff::Timestamp::now();
            let line = json!({
                "timestamp": format!("{timestamp:.6}"), "level": level,
                "fields": {"message": text}, "target": "streampress",
            });
            writeln!(io::stderr(), "{line}")
        }
        false => writeln!(anstream::stderr(), "{styled}"),
    };
}

/// Prints an error to standard error.
pub(super) fn error(text: &str) {
    write("ERROR", text, &format!("{ERROR}error:{ERROR:#} {text}"));
}

/// Prints a notice to standard error.
pub(super) fn note(text: &str) {
    write("INFO", text, &format!("{NOTE}note:{NOTE:#} {text}"));
}

/// Prints the result of a command that wrote `output`, unless the data itself went to standard output.
pub(super) fn result(output: &Path, text: &str) {
    if !is_stream(output) {
        say(&format!("{}: {text}", output.display()));
    }
}

/// Fails where the output would replace the input, which may be the only copy.
pub(super) fn ensure_differ(output: &Path, input: &Path) -> Result<()> {
    match (output.canonicalize(), input.canonicalize()) {
        (Ok(out), Ok(found)) if out == found => bail!(
            "{} is the input too: choose another name with -o",
            output.display()
        ),
        _ => Ok(()),
    }
}

/// Whether a path stands for standard input or output.
pub(super) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Fails for a folder where a file is to be read.
pub(super) fn ensure_no_folder(path: &Path) -> Result<()> {
    match path.is_dir() {
        true => bail!("{} is a folder: name a file", path.display()),
        false => Ok(()),
    }
}

/// Opens a file, or standard input for `-`.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if is_stream(path) {
        return Ok(Box::new(WaitingReader(io::stdin().lock())));
    }
    ensure_no_folder(path)?;
    let opening = || File::open(path).with_context(|| format!("opening {}", path.display()));
    Ok(match path.metadata().is_ok_and(|data| !data.is_file()) {
        true => Box::new(WaitingReader(BufReader::new(signals::waiting(opening)?))),
        false => Box::new(BufReader::new(opening()?)),
    })
}

/// Reads what another process writes: a signal does not wait for it.
struct WaitingReader<R>(R);

impl<R: Read> Read for WaitingReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        signals::waiting(|| self.0.read(bytes))
    }
}

/// An output that becomes visible when it is finished.
pub(super) enum Output {
    /// Standard output, a device or a pipe: visible at once.
    Stream(Box<dyn Write>),
    /// A file in the folder of the final one.
    File {
        unfinished: BufWriter<Unfinished>,
        path: PathBuf,
        /// Whether it may replace a file of that name.
        force: bool,
    },
}

impl Output {
    /// Prepares to write `path`, or standard output for `-`. The file gets no more permissions than `input` has, where that
    /// is a file, and than the umask leaves.
    pub(super) fn create(path: &Path, force: bool, input: &Path) -> Result<Self> {
        if is_stream(path) {
            return Ok(Self::Stream(Box::new(io::stdout().lock())));
        }
        if path
            .metadata()
            .is_ok_and(|data| !data.is_file() && !data.is_dir())
        {
            // A device or a pipe is written into, not replaced.
            let device = signals::waiting(|| File::options().write(true).open(path));
            let device = device.with_context(|| format!("opening {}", path.display()))?;
            return Ok(Self::Stream(Box::new(device)));
        }
        if path.is_dir() {
            bail!("{} is a folder: name a file with -o", path.display());
        }
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            bail!(
                "{} is no folder and cannot be a file's name: leave out the / at its end, or make the folder and name a file in it with -o",
                path.display()
            );
        }
        if !force && path.symlink_metadata().is_ok() {
            bail!(
                "{} exists already: choose another name with -o, or overwrite it with --force",
                path.display()
            );
        }
        ensure_differ(path, input)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if !folder.is_dir() {
            bail!(
                "there is no folder {} for {}: make it first",
                folder.display(),
                path.display()
            );
        }
        let unfinished = Unfinished::create(folder, input)
            .with_context(|| format!("creating a file in {}", folder.display()))?;
        Ok(Self::File {
            unfinished: BufWriter::with_capacity(256 << 10, unfinished),
            path: path.to_owned(),
            force,
        })
    }

    /// Makes the output visible under its name.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::Stream(mut stream) => stream.flush().context("writing to standard output"),
            Self::File {
                unfinished,
                path,
                force,
            } => {
                let finishing = || {
                    let file = unfinished
                        .into_inner()
                        .map_err(io::IntoInnerError::into_error)?;
                    file.finish(&path, force)
                };
                finishing().with_context(|| format!("writing {}", path.display()))
            }
        }
    }
}

/// A file that does not have its final name yet.
pub(super) enum Unfinished {
    /// It has none at all: nothing is left of it however the process ends, as by a signal that cannot be handled.
    #[cfg(target_os = "linux")]
    Unnamed(File),
    /// On file systems that have no such files.
    Named(NamedTempFile),
}

impl Unfinished {
    /// With the permissions of `input`, less what the umask takes.
    fn create(folder: &Path, input: &Path) -> io::Result<Self> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let of_input = input.metadata().ok().filter(|data| data.is_file());
        let mode = of_input.map_or(0o666, |data| data.mode() & 0o666 | 0o600);
        #[cfg(target_os = "linux")]
        if let Some(file) = unnamed(folder, mode) {
            return Ok(Self::Unnamed(file));
        }
        let named = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(mode))
            .prefix(streampress_transport::TEMPORARY_PREFIX)
            .tempfile_in(folder)?;
        Ok(Self::Named(named))
    }

    fn file(&mut self) -> &mut File {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => file,
            Self::Named(named) => named.as_file_mut(),
        }
    }

    /// Makes the content durable and gives it its name; `force`: in place of another file.
    fn finish(mut self, path: &Path, force: bool) -> io::Result<()> {
        self.file().sync_all()?;
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) if force => {
                // Only a rename replaces a file.
                let (folder, prefix) = (path.parent(), streampress_transport::TEMPORARY_PREFIX);
                let between = folder
                    .unwrap_or(Path::new(""))
                    .join(format!("{prefix}{:016x}", crate::runtime::random_u64()));
                link(&file, &between)?;
                std::fs::rename(&between, path).inspect_err(|_| {
                    let _ = std::fs::remove_file(&between);
                })
            }
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => link(&file, path),
            Self::Named(named) if force => named.persist(path).map(drop).map_err(io::Error::from),
            Self::Named(named) => named
                .persist_noclobber(path)
                .map(drop)
                .map_err(io::Error::from),
        }
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// A new file without a name; `None` where it could not get one later.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path, mode: u32) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::from_raw_mode(mode)).ok()?;
    let file = File::from(opened);
    place_of(&file).exists().then_some(file)
}

#[cfg(target_os = "linux")]
fn place_of(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Gives a file its name, unless that is taken.
#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    let linked = rustix::fs::linkat(CWD, place_of(file), CWD, path, AtFlags::SYMLINK_FOLLOW);
    Ok(linked?)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => signals::waiting(|| stream.write(bytes)),
            Self::File { unfinished, .. } => unfinished.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => signals::waiting(|| stream.flush()),
            Self::File { unfinished, .. } => unfinished.flush(),
        }
    }
}
