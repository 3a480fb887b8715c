//! Finds and reads a command's settings.

use std::io::Read;
use std::path::{Path, PathBuf};

use streampress_crds::api::pipeline::{
    CodecFormat, CompressionPipeline, Example, GeneratedFormat, OnCompressed, Ordering,
    SourceFormat,
};
use streampress_crds::document::Diagnostic;
use streampress_crds::location::Location;
use streampress_crds::settings::{
    self, AwsSettings, CompressorSettings, DecompressorSettings, GeneratorJob, GeneratorSettings,
    GeneratorTransport, Identity, LocationSettings, QueueSettings, Resolved, SchemaSource,
    Settings, StreamSettings, VARIABLE,
};
use streampress_crds::{CheckedPipeline, CompressionPipelineSpec, Role, document};

use super::BadConfiguration;
use super::legacy_env::{self, LegacyGenerator, LegacyWorker};

/// The settings of a command.
#[derive(Debug, Clone)]
pub(crate) enum Config {
    /// A pipeline's YAML: all roles.
    File(Box<Resolved>),
    /// `STREAMPRESS_PIPELINE`: one role.
    Variable(Box<Settings>),
    /// The original's variables.
    Legacy(Box<LegacyConfig>),
}

/// The original's variables, read.
#[derive(Debug, Clone)]
pub(crate) struct LegacyConfig {
    /// As compressor or decompressor.
    pub(crate) worker: LegacyWorker,
    /// As generator.
    pub(crate) generator: LegacyGenerator,
    /// The same as a pipeline.
    pub(crate) resolved: Resolved,
}

impl Config {
    /// Finds the settings. Without any, the original's variables hold with their defaults.
    pub(crate) fn find(
        file: Option<&Path>,
        notice: &mut dyn FnMut(&str),
    ) -> Result<Self, BadConfiguration> {
        if let Some(file) = file {
            return Ok(Self::File(Box::new(load_pipeline(file, notice)?)));
        }
        let read = |name: &str| std::env::var(name).ok();
        let Some(json) = read(VARIABLE) else {
            return Self::legacy(&read, notice);
        };
        let (settings, ignored) = settings::read(&json).map_err(BadConfiguration::new)?;
        for path in ignored {
            notice(&format!(
                "{VARIABLE} field {path} is unknown to this release and ignored"
            ));
        }
        Ok(Self::Variable(Box::new(settings)))
    }

    fn legacy(
        read: legacy_env::Read<'_>,
        notice: &mut dyn FnMut(&str),
    ) -> Result<Self, BadConfiguration> {
        let worker = legacy_env::worker(read).map_err(BadConfiguration::new)?;
        let generator = legacy_env::generator(read).map_err(BadConfiguration::new)?;
        let resolved = legacy_pipeline(&worker)?;
        notice(&format!(
            "the Python original's variables are used: {worker}"
        ));
        Ok(Self::Legacy(Box::new(LegacyConfig {
            worker,
            generator,
            resolved,
        })))
    }

    /// The pipeline's name, namespace and order.
    pub(crate) fn identity(&self) -> &Identity {
        match self {
            Self::File(resolved) => &resolved.identity,
            Self::Variable(settings) => settings.identity(),
            Self::Legacy(legacy) => &legacy.resolved.identity,
        }
    }

    /// Where AWS is.
    #[cfg(feature = "aws")]
    pub(crate) fn aws(&self) -> &AwsSettings {
        match self {
            Self::File(resolved) => &resolved.aws,
            Self::Variable(settings) => settings.aws(),
            Self::Legacy(legacy) => &legacy.resolved.aws,
        }
    }

    /// What a generator needs. The original's schema is looked for below `data`.
    pub(crate) fn generator(
        &self,
        data: &Path,
        notice: &mut dyn FnMut(&str),
    ) -> Result<GeneratorSettings, BadConfiguration> {
        match self {
            Self::File(resolved) => resolved.generator_settings(),
            Self::Variable(settings) => match &**settings {
                Settings::Generator(settings) => Some(settings.clone()),
                Settings::Compressor(_) | Settings::Decompressor(_) => None,
            },
            Self::Legacy(legacy) => Some(legacy.generator_settings(data, notice)),
        }
        .ok_or_else(|| self.no_role(Role::Generator))
    }

    /// What a compressor needs.
    pub(crate) fn compressor(&self) -> Result<CompressorSettings, BadConfiguration> {
        match self {
            Self::File(resolved) => Some(resolved.compressor_settings()),
            Self::Variable(settings) => match &**settings {
                Settings::Compressor(settings) => Some(settings.clone()),
                Settings::Generator(_) | Settings::Decompressor(_) => None,
            },
            Self::Legacy(legacy) => Some(legacy.resolved.compressor_settings()),
        }
        .ok_or_else(|| self.no_role(Role::Compressor))
    }

    /// What a decompressor needs.
    pub(crate) fn decompressor(&self) -> Result<DecompressorSettings, BadConfiguration> {
        match self {
            Self::File(resolved) => Some(resolved.decompressor_settings()),
            Self::Variable(settings) => match &**settings {
                Settings::Decompressor(settings) => Some(settings.clone()),
                Settings::Generator(_) | Settings::Compressor(_) => None,
            },
            Self::Legacy(legacy) => Some(legacy.resolved.decompressor_settings()),
        }
        .ok_or_else(|| self.no_role(Role::Decompressor))
    }

    /// The report page, as far as the settings have one.
    pub(crate) fn report(&self) -> Option<LocationSettings> {
        self.decompressor().ok()?.report
    }

    /// The queue whose limits the embedded transport takes, and the stream as far as the settings have one.
    pub(crate) fn embedded_limits(&self) -> (&QueueSettings, Option<&StreamSettings>) {
        match self {
            Self::File(resolved) => (
                &resolved.transport.files_queue,
                Some(&resolved.transport.stream),
            ),
            Self::Legacy(legacy) => (
                &legacy.resolved.transport.files_queue,
                Some(&legacy.resolved.transport.stream),
            ),
            Self::Variable(settings) => match &**settings {
                Settings::Generator(settings) => (&settings.transport.files_queue, None),
                Settings::Compressor(settings) => (
                    &settings.transport.files_queue,
                    Some(&settings.transport.stream),
                ),
                Settings::Decompressor(settings) => (
                    &settings.transport.chunks_queue,
                    Some(&settings.transport.stream),
                ),
            },
        }
    }

    fn no_role(&self, role: Role) -> BadConfiguration {
        let pipeline = &self.identity().pipeline;
        BadConfiguration(match self {
            // Every YAML has the other roles.
            Self::File(_) | Self::Legacy(_) => format!(
                "pipeline {pipeline} has nothing to generate and nothing to scan: add spec.generator or spec.source.scanSeconds"
            ),
            Self::Variable(_) => format!(
                "STREAMPRESS_PIPELINE has pipeline {pipeline} without its {role}: in a cluster, type this in a pod of the {role}, of which there is one while it is not scaled to zero or suspended; else give the pipeline's FILE.yaml"
            ),
        })
    }
}

/// Reads a pipeline's YAML and checks it. Notices go to `notice`.
pub(crate) fn load_pipeline(
    file: &Path,
    notice: &mut dyn FnMut(&str),
) -> Result<Resolved, BadConfiguration> {
    let text = read_text(file)?;
    let loaded = document::load(&text, &file.display().to_string()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        BadConfiguration(lines.join("\n"))
    })?;
    // A work folder needs no volume; `validate` says what a cluster needs.
    for problem in &loaded.notices {
        if problem.invalid.field != "spec.volume" {
            notice(&problem.to_string());
        }
    }
    let mut pipelines = loaded.pipelines.into_iter();
    match (pipelines.next(), pipelines.next()) {
        (Some(pipeline), None) => {
            let (pipeline, resolved) = pipeline.into_parts();
            if pipeline.spec.suspend {
                notice("spec.suspend is ignored: only the operator suspends a pipeline");
            }
            Ok(resolved)
        }
        (None, _) => Err(BadConfiguration(no_pipeline(file, &loaded.in_place))),
        (Some(_), Some(_)) => Err(BadConfiguration(format!(
            "{}: has more than one CompressionPipeline; put each into a file of its own",
            file.display()
        ))),
    }
}

/// What is wrong with a file in which there is no pipeline, but perhaps something `in_place` of one.
pub(crate) fn no_pipeline(file: &Path, in_place: &[Diagnostic]) -> String {
    if !in_place.is_empty() {
        let lines: Vec<String> = in_place.iter().map(ToString::to_string).collect();
        return lines.join("\n");
    }
    format!(
        "{}: has no CompressionPipeline; add a document with apiVersion streampress.dev/v1alpha1 and that kind",
        file.display()
    )
}

/// The text of a file, or of standard input for `-`.
pub(crate) fn read_text(file: &Path) -> Result<String, BadConfiguration> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    let shown = file.display();
    read.map_err(|error| BadConfiguration(format!("{shown}: cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let before = String::from_utf8_lossy(bytes.get(..offset).unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let byte = bytes.get(offset).copied().unwrap_or_default();
        BadConfiguration(format!(
            "{shown}:{line}:{column}: the byte {byte:#04x} at offset {offset} is not UTF-8; save the file as UTF-8"
        ))
    })
}

/// The data folder: as given, or one below the working folder.
pub(crate) fn data_folder(given: Option<PathBuf>, pipeline: &str) -> PathBuf {
    given.unwrap_or_else(|| Path::new("streampress-data").join(pipeline))
}

/// The original's settings as a pipeline. Its queues go by their URLs.
fn legacy_pipeline(worker: &LegacyWorker) -> Result<Resolved, BadConfiguration> {
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
    let checked = CheckedPipeline::new(CompressionPipeline::new("seed", spec));
    let checked = checked.map_err(|invalid| {
        let lines: Vec<String> = invalid
            .iter()
            .map(|problem| format!("the original's variables: {problem}"))
            .collect();
        BadConfiguration(lines.join("\n"))
    })?;
    let (_, mut resolved) = checked.into_parts();
    resolved.codec.record_bytes = worker.break_bytes;
    resolved.compressor.interval_seconds = worker.interval_seconds;
    resolved.decompressor.interval_seconds = worker.interval_seconds;
    resolved.aws = AwsSettings {
        region: worker.aws.region.clone(),
        endpoint_url: Some(worker.aws.endpoint_url.clone()),
    };
    let transport = &mut resolved.transport;
    transport.files_queue.name = worker.files_queue_url.clone();
    transport.chunks_queue.name = worker.chunks_queue_url.clone();
    transport.stream.name = worker.stream_name.clone();
    if let Some(report) = &mut resolved.report {
        let location = format!("file:///data/{}", worker.result_file_name);
        report.location = Location::parse(&location).map_err(|remedy| {
            let value = &worker.result_file_name;
            BadConfiguration(format!("variable RESULT_FILE_NAME is {value:?}: {remedy}"))
        })?;
    }
    Ok(resolved)
}

impl LegacyConfig {
    /// The original's generator: files of 5,000 records, about 1 MB, one a second.
    fn generator_settings(&self, data: &Path, notice: &mut dyn FnMut(&str)) -> GeneratorSettings {
        let generator = &self.generator;
        let schema = data
            .join("json_schema_ref")
            .join(format!("schema_{}.json", generator.schema_ref_number));
        let schema = match schema.to_str() {
            Some(path) if schema.is_file() => SchemaSource::File(path.to_owned()),
            _ => {
                notice(&format!(
                    "{} does not exist; files are made by the example schema stock-market",
                    schema.display()
                ));
                SchemaSource::Example(Example::StockMarket)
            }
        };
        GeneratorSettings {
            identity: Identity {
                pipeline: generator.file_name_prefix.clone(),
                ..self.resolved.identity.clone()
            },
            aws: self.resolved.aws.clone(),
            transport: GeneratorTransport {
                files_queue: QueueSettings {
                    name: generator.files_queue_url.clone(),
                    ..self.resolved.transport.files_queue.clone()
                },
                onward: None,
            },
            source: LocationSettings {
                location: self.resolved.source.location.clone(),
            },
            scan: None,
            generator: Some(GeneratorJob {
                schema,
                file_bytes: generator.max_file_bytes.min(1_000_000),
                files_per_minute: 60,
                files: 0,
                format: GeneratedFormat::Json,
                seed: 0,
            }),
            codec_format: CodecFormat::Seed,
        }
    }
}
