//! `streampress submit`: announces files by hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use streampress_crds::location::Location;
use streampress_transport::{FileEntry, FileName, Files};
use tokio_util::sync::CancellationToken;

use super::args::{PipelineArgs, SubmitArgs};
use super::role::{RoleCommand, local_path};
use super::{output, runtime};
use crate::message::FileRef;
use crate::roles::announce::Announcer;
use crate::runtime::blocking;

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
        let mut failed = false;
        for path in &args.files {
            match submitter.submit(path).await {
                Ok(text) => output::print(&format!("{text}\n")),
                Err(error) => {
                    failed = true;
                    output::error(&format!("{error:#}"));
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

impl Submitter {
    async fn submit(&self, path: &Path) -> Result<String> {
        match path.to_str().filter(|text| text.starts_with("s3://")) {
            Some(url) => self.announce_object(self.object_name(url)?).await,
            None => self.submit_file(path).await,
        }
    }

    /// The name of an object of the source, from a URL such as `s3://bucket/prefix/name`.
    fn object_name(&self, url: &str) -> Result<FileName> {
        let source = &self.source;
        let below = url.strip_prefix(&format!("{source}/")).with_context(|| {
            format!("{url} is not at the source {source}; name an object below it, or a file of this machine")
        })?;
        FileName::parse(below).map_err(anyhow::Error::msg)
    }

    async fn announce_object(&self, name: FileName) -> Result<String> {
        let (files, wanted) = (self.announcer.source.clone(), name.clone());
        let entry = blocking(move || files.stat(&wanted)).await?;
        let entry = entry.with_context(|| format!("{name} is not in {}", self.source))?;
        let file = self.announcer.announce(&entry).await?;
        Ok(format!("{name}: announced, file {}", short_id(&file)))
    }

    /// Announces a file of the source; a file from elsewhere is copied there first, under its own name.
    async fn submit_file(&self, path: &Path) -> Result<String> {
        let full = path
            .canonicalize()
            .with_context(|| format!("opening {}", path.display()))?;
        if !full.is_file() {
            bail!(
                "{} is not a file; name files, or use 'streampress run --input' for a folder",
                path.display()
            );
        }
        let inside = self.name_inside(&full);
        let name = match &inside {
            Some(name) => name.as_path(),
            None => Path::new(full.file_name().context("the file has no name")?),
        };
        let name = name
            .to_str()
            .with_context(|| format!("{} is not UTF-8; rename it", path.display()))?;
        let name = FileName::parse(name).map_err(anyhow::Error::msg)?;
        let (files, at) = (self.announcer.source.clone(), name.clone());
        let copies = inside.is_none();
        let entry = blocking(move || {
            if copies {
                copy(&full, &*files, &at)?;
            }
            entry(&*files, &at)
        })
        .await
        .with_context(|| format!("submitting {}", path.display()))?;
        let file = self.announcer.announce(&entry).await?;
        let how = match copies {
            true => "copied to the source and announced",
            false => "announced",
        };
        Ok(format!(
            "{}: {how} as {name}, file {}",
            path.display(),
            short_id(&file)
        ))
    }

    /// The path below the source's folder, for a file inside it.
    fn name_inside(&self, full: &Path) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?.canonicalize().ok()?;
        full.strip_prefix(folder).ok().map(Path::to_owned)
    }
}

fn copy(from: &Path, files: &dyn Files, name: &FileName) -> Result<()> {
    let mut pending = files.create(name)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut pending)?;
    pending.commit(from.metadata()?.modified()?)?;
    Ok(())
}

fn entry(files: &dyn Files, name: &FileName) -> Result<FileEntry> {
    files.stat(name)?.context("it is no longer at the source")
}

fn short_id(file: &FileRef) -> String {
    file.id().as_str()[..12].to_owned()
}
