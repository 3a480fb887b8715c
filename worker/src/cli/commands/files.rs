//! Where commands read from and write to: `-` is standard input or output; a file appears whole or
//! not at all, and never in place of another unless forced.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

/// Whether a path stands for standard input or output.
pub fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens a file, or standard input for `-`.
pub fn open(path: &Path) -> Result<Box<dyn Read>> {
    if is_stream(path) {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    if file.metadata().is_ok_and(|data| data.is_dir()) {
        bail!("{} is a folder: name a file", path.display());
    }
    Ok(Box::new(BufReader::new(file)))
}

/// An output that becomes visible when it is finished.
pub enum Output {
    /// Standard output: visible at once.
    Stream(io::StdoutLock<'static>),
    /// A temporary file in the folder of the final one.
    File {
        /// The temporary file.
        temporary: BufWriter<NamedTempFile>,
        /// Its name in the end.
        path: PathBuf,
        /// Whether it may replace a file of that name.
        force: bool,
    },
}

impl Output {
    /// Prepares to write `path`, or standard output for `-`.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        if is_stream(path) {
            return Ok(Self::Stream(io::stdout().lock()));
        }
        if !force && path.symlink_metadata().is_ok() {
            bail!(
                "{} exists already: choose another name with -o, or overwrite it with --force",
                path.display()
            );
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".streampress-")
            .tempfile_in(folder)
            .with_context(|| format!("creating a file in {}", folder.display()))?;
        Ok(Self::File {
            temporary: BufWriter::with_capacity(256 << 10, temporary),
            path: path.to_owned(),
            force,
        })
    }

    /// Makes the output visible under its name.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Stream(mut stream) => stream.flush().context("writing to standard output"),
            Self::File {
                temporary,
                path,
                force,
            } => {
                let naming = || format!("writing {}", path.display());
                let file = temporary
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .with_context(naming)?;
                file.as_file().sync_all().with_context(naming)?;
                open_up(file.as_file()).with_context(naming)?;
                if force {
                    file.persist(&path).with_context(naming)?;
                } else {
                    file.persist_noclobber(&path).with_context(naming)?;
                }
                Ok(())
            }
        }
    }
}

/// Temporary files are private; a finished one gets the rights that a new file usually has.
#[cfg(unix)]
fn open_up(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn open_up(_: &File) -> io::Result<()> {
    Ok(())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::File { temporary, .. } => temporary.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::File { temporary, .. } => temporary.flush(),
        }
    }
}
