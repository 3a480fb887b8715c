//! `streampress submit`: announces files that the command line names.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use streampress_crds::location::Location;
use streampress_transport::{FileEntry, FileName, Files, RESERVED_FOLDER};
use tokio_util::sync::CancellationToken;

use super::args::{PipelineArgs, SubmitArgs};
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::message::FileRef;
use crate::roles::announce::{Announcer, hash};
use crate::runtime::blocking;
use crate::telemetry::plain_log::printable;

pub(super) fn command(args: SubmitArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(PipelineArgs {
        file: args.pipeline,
        data: args.data,
        aws: args.aws,
    })?;
    let settings = role.config.compressor()?;
    runtime()?.block_on(async {
        let context = role.context(1, CancellationToken::new()).await?;
        let queue = &settings.transport.files_queue;
        let files_queue = context.backend.files_queue(queue).await?;
        let submitter = Submitter {
            announcer: context.announcer(&settings, files_queue)?,
            folder: local_path(&role.data, &settings.source.location),
            source: settings.source.location,
        };
        let submissions = submitter.plan(&args.files)?;
        let mut failed = false;
        for submission in submissions {
            let shown = submission.path.display().to_string();
            match submitter.submit(submission).await {
                Ok(text) => {
                    let text = format!("{shown}: {text}");
                    if let Err(error) = output::print(&format!("{}\n", printable(&text))) {
                        failed = true;
                        output::error(&format!("{error:#}"));
                    }
                }
                Err(error) => {
                    failed = true;
                    let text = format!("{shown}: {error:#}");
                    output::error(&printable(&text));
                }
            }
        }
        Ok(match failed {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    })
}

struct Submitter {
    announcer: Announcer,
    source: Location,
    /// The source's folder; none for a bucket.
    folder: Option<PathBuf>,
}

/// A file to be announced.
struct Submission {
    /// As it was typed.
    path: PathBuf,
    /// The file's name at the source, or why it has none.
    name: Result<FileName>,
    /// The file to be copied to the source first; `None` for one that is there.
    copied_from: Option<PathBuf>,
}

impl Submitter {
    /// Finds each file's name at the source before anything is copied. A file that is named twice is submitted once; an
    /// error where two files would have one name.
    fn plan(&self, paths: &[PathBuf]) -> Result<Vec<Submission>> {
        let mut planned: Vec<Submission> = Vec::new();
        for path in paths {
            let submission = self.submission(path);
            let twin = planned
                .iter()
                .find(|other| match (&other.name, &submission.name) {
                    (Ok(one), Ok(another)) => one == another,
                    _ => false,
                });
            match twin {
                Some(twin) if twin.copied_from == submission.copied_from => {}
                Some(twin) => bail!(
                    "{} and {} would have the same name at the source; nothing was submitted: rename one of them",
                    printable(&twin.path.display().to_string()),
                    printable(&path.display().to_string())
                ),
                None => planned.push(submission),
            }
        }
        Ok(planned)
    }

    fn submission(&self, path: &Path) -> Submission {
        let found = match path.to_str().filter(|text| text.starts_with("s3://")) {
            Some(url) => self.object_name(url).map(|name| (name, None)),
            None => self.file_name(path),
        };
        let (name, copied_from) = match found {
            Ok((name, copied_from)) => (Ok(name), copied_from),
            Err(error) => (Err(error), None),
        };
        Submission {
            path: path.to_owned(),
            name,
            copied_from,
        }
    }

    /// The name of an object of the source, from a URL such as `s3://bucket/prefix/name`.
    fn object_name(&self, url: &str) -> Result<FileName> {
        let source = &self.source;
        let below = url.strip_prefix(&format!("{source}/")).with_context(|| {
            format!("it is not at the source {source}; name an object below it, or a file of this machine")
        })?;
        FileName::parse(below).map_err(anyhow::Error::msg)
    }

    /// The name of a file of the source; for a file from elsewhere its own name, and where it is copied from.
    fn file_name(&self, path: &Path) -> Result<(FileName, Option<PathBuf>)> {
        let full = path.canonicalize().context("opening it")?;
        if !full.is_file() {
            bail!("it is not a file; name files, or use 'streampress run --input' for a folder");
        }
        let inside = self.name_inside(&full);
        let name = match &inside {
            Some(name) => name.as_path(),
            None => Path::new(path.file_name().context("it has no name")?),
        };
        let name = name.to_str().context("its name is not UTF-8; rename it")?;
        let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
        Ok((name, inside.is_none().then_some(full)))
    }

    /// The path below the source's folder, for a file inside it.
    fn name_inside(&self, full: &Path) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?.canonicalize().ok()?;
        full.strip_prefix(folder).ok().map(Path::to_owned)
    }

    /// Announces the file, each time it is asked to; a file from elsewhere is copied to the source first and replaces no
    /// other.
    async fn submit(&self, submission: Submission) -> Result<String> {
        let name = submission.name?;
        if name.is_reserved() {
            bail!(
                "it lies in Streampress's own folder {RESERVED_FOLDER}; copy it elsewhere and submit the copy"
            );
        }
        let (files, at) = (self.announcer.source.clone(), name.clone());
        let copied_from = submission.copied_from;
        let (entry, how) = blocking(move || -> Result<(FileEntry, &'static str)> {
            let how = match copied_from {
                Some(from) => copy(&from, &*files, &at)?,
                None => "announced",
            };
            let entry = files.stat(&at)?.context("it is not at the source")?;
            Ok((entry, how))
        })
        .await?;
        let read = self.announcer.read(&entry).await?;
        self.announcer
            .announce_all(std::slice::from_ref(&read))
            .await?;
        Ok(format!("{how} as {name}, file {}", short_id(&read.file)))
    }
}

/// Copies the file to a free name of the source; a file of equal content that is there already stays as it is.
fn copy(from: &Path, files: &dyn Files, name: &FileName) -> Result<&'static str> {
    let mut pending = files.create(name)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut pending)?;
    match pending.commit_over(from.metadata()?.modified()?, None) {
        Ok(_) => Ok("copied to the source and announced"),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let here = hash(std::fs::File::open(from)?)?;
            if here != hash(files.read(name)?)? {
                bail!(
                    "another file is at the source under the name {name}; it was not replaced: rename yours, or copy it into a folder of the source"
                );
            }
            Ok("found at the source and announced")
        }
        Err(error) => Err(error.into()),
    }
}

fn short_id(file: &FileRef) -> String {
    file.id().as_str()[..12].to_owned()
}
