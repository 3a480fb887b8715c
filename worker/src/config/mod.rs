//! Where a command's settings come from. First wins: the FILE on the command line, `STREAMPRESS_PIPELINE`, the Python
//! original's variables. Everything after this file works on settings, and does not know where they came from.

pub mod legacy_env;

use std::fmt;
use std::path::{Path, PathBuf};

use streampress_crds::api::pipeline::{
    CodecFormat, CompressionPipeline, Example, GeneratedFormat, OnCompressed, Ordering,
    SourceFormat,
};
use streampress_crds::location::Location;
use streampress_crds::settings::Resolved;
use streampress_crds::settings::{self, GeneratorJob, SchemaSource, Settings, VARIABLE};
use streampress_crds::{CheckedPipeline, CompressionPipelineSpec, document};

use legacy_env::{LegacyGenerator, LegacyWorker};

/// The configuration cannot be used; the exit code is 64.
#[derive(Debug)]
pub struct BadConfiguration(pub String);

impl fmt::Display for BadConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfiguration {}

fn bad(text: impl fmt::Display) -> BadConfiguration {
    BadConfiguration(text.to_string())
}

/// Reads a pipeline's YAML and checks it. Notices go to `notice`.
pub fn load(
    file: &Path,
    notice: &mut dyn FnMut(&str),
) -> Result<CheckedPipeline, BadConfiguration> {
    let text = read_text(file)?;
    let loaded = document::load(&text, &file.display().to_string()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bad(lines.join("\n"))
    })?;
    // What only a cluster asks for is of no use to somebody who works on a folder; `validate` says it.
    let here = loaded
        .notices
        .iter()
        .filter(|problem| problem.invalid.field != "spec.volume");
    here.for_each(|problem| notice(&problem.to_string()));
    let mut pipelines = loaded.pipelines.into_iter();
    match (pipelines.next(), pipelines.next()) {
        (Some(pipeline), None) => Ok(pipeline),
        (None, _) => Err(bad(format!(
            "{}: no CompressionPipeline in it; see deploy/examples",
            file.display()
        ))),
        (Some(_), Some(_)) => Err(bad(format!(
            "{}: more than one CompressionPipeline in it; give each a file of its own",
            file.display()
        ))),
    }
}

/// The text of a file, or of standard input for `-`.
pub fn read_text(file: &Path) -> Result<String, BadConfiguration> {
    let read = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| bad(format!("{}: cannot be read: {error}", file.display())))
}

/// Reads a pipeline's YAML, checks it and fills it in.
pub fn load_resolved(
    file: &Path,
    notice: &mut dyn FnMut(&str),
) -> Result<Resolved, BadConfiguration> {
    let (_, resolved) = load(file, notice)?.into_parts();
    Ok(resolved)
}

fn resolve_all(pipeline: CompressionPipeline, name: &str) -> Result<Resolved, BadConfiguration> {
    let checked = CheckedPipeline::new(pipeline).map_err(|invalid| {
        let lines: Vec<String> = invalid
            .iter()
            .map(|problem| format!("{name}: {problem}"))
            .collect();
        bad(lines.join("\n"))
    })?;
    Ok(checked.into_parts().1)
}

/// What a role works by.
#[derive(Debug, Clone)]
pub enum Config {
    /// A pipeline's YAML: all roles.
    File(Box<Resolved>),
    /// `STREAMPRESS_PIPELINE`: one role.
    Variable(Box<Settings>),
    /// The original's variables.
    Legacy(Box<SeedConfig>),
}

/// The original's variables, read.
#[derive(Debug, Clone)]
pub struct SeedConfig {
    /// As compressor or decompressor.
    pub worker: LegacyWorker,
    /// As generator.
    pub generator: LegacyGenerator,
    /// The same as a pipeline of ours.
    pub resolved: Resolved,
}

impl Config {
    /// Finds the settings. Without any, the original's variables hold with their defaults.
    pub fn find(
        file: Option<&Path>,
        notice: &mut dyn FnMut(&str),
    ) -> Result<Self, BadConfiguration> {
        if let Some(file) = file {
            return Ok(Self::File(Box::new(load_resolved(file, notice)?)));
        }
        let read = |name: &str| std::env::var(name).ok();
        let Some(json) = read(VARIABLE) else {
            return Self::seed(&read);
        };
        let (settings, ignored) = settings::read(&json).map_err(bad)?;
        for path in ignored {
            notice(&format!(
                "{VARIABLE} field {path} is unknown to this release and ignored"
            ));
        }
        Ok(Self::Variable(Box::new(settings)))
    }

    fn seed(read: legacy_env::Read<'_>) -> Result<Self, BadConfiguration> {
        let worker = legacy_env::worker(read).map_err(bad)?;
        let generator = legacy_env::generator(read).map_err(bad)?;
        let resolved = as_pipeline(&worker)?;
        Ok(Self::Legacy(Box::new(SeedConfig {
            worker,
            generator,
            resolved,
        })))
    }

    /// The pipeline's namespace.
    pub fn namespace(&self) -> &str {
        match self {
            Self::File(resolved) => &resolved.identity.namespace,
            Self::Variable(settings) => &settings.identity().namespace,
            Self::Legacy(seed) => &seed.resolved.identity.namespace,
        }
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        match self {
            Self::File(resolved) => &resolved.identity.pipeline,
            Self::Variable(settings) => &settings.identity().pipeline,
            Self::Legacy(_) => "seed",
        }
    }
}

/// The original's settings in the words of a pipeline of ours.
fn as_pipeline(worker: &LegacyWorker) -> Result<Resolved, BadConfiguration> {
    let mut spec = CompressionPipelineSpec {
        ordering: Ordering::PerName,
        ..Default::default()
    };
    spec.codec.format = CodecFormat::Seed;
    spec.source.location = format!("file:///data/{}", worker.read_location);
    spec.source.formats = vec![SourceFormat::Json, SourceFormat::Csv, SourceFormat::Txt];
    spec.source.on_compressed = OnCompressed::Rename;
    spec.destination.location = "file:///data/decompressed_data".into();
    spec.report.enabled = worker.report;
    let mut resolved = resolve_all(
        CompressionPipeline::new("seed", spec),
        "the original's variables",
    )?;
    resolved.codec.record_bytes = worker.break_bytes;
    resolved.compressor.interval_seconds = worker.interval_seconds;
    resolved.decompressor.interval_seconds = worker.interval_seconds;
    if let Some(report) = &mut resolved.report {
        report.location = Location::parse(&format!("file:///data/{}", worker.result_file_name))
            .map_err(|way_out| {
                bad(format!(
                    "variable RESULT_FILE_NAME is {:?}: {way_out}",
                    worker.result_file_name
                ))
            })?;
    }
    Ok(resolved)
}

/// What the original's generator makes: files of 5,000 records, about 1 MB, one a second.
pub fn seed_job(
    generator: &LegacyGenerator,
    data: &Path,
    files: Option<u64>,
) -> (GeneratorJob, Option<String>) {
    let schema = data
        .join("json_schema_ref")
        .join(format!("schema_{}.json", generator.schema_ref_number));
    let (schema, notice) = match schema.to_str() {
        Some(path) if schema.is_file() => (SchemaSource::File(path.to_owned()), None),
        _ => (
            SchemaSource::Example(Example::StockMarket),
            Some(format!(
                "{} is not there; files are made like the example stock-market",
                schema.display()
            )),
        ),
    };
    let job = GeneratorJob {
        schema,
        file_bytes: generator.max_file_bytes.min(1_000_000),
        files_per_minute: 60,
        files: files.unwrap_or(0),
        format: GeneratedFormat::Json,
        seed: 0,
    };
    (job, notice)
}

/// The data folder: as given, or one beside where the command is run.
pub fn data_folder(given: Option<PathBuf>, pipeline: &str) -> PathBuf {
    given.unwrap_or_else(|| Path::new("streampress-data").join(pipeline))
}
