//! `streampress validate`: checks a pipeline's YAML, and with `--live` its queues and stream on AWS.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use streampress_crds::CheckedPipeline;
use streampress_crds::document::{self, Documents, FieldPlaces};
use streampress_crds::settings::Resolved;
use streampress_transport::local::Local;

use super::args::ValidateArgs;
use super::output;
use crate::config::settings;
use crate::roles::context::{inline_schema_problems, schema_problems};

pub(super) fn command(args: ValidateArgs) -> Result<ExitCode> {
    let (mut valid, mut names) = (true, PlacesByName::new());
    for file in &args.files {
        valid &= match settings::read_text(file) {
            Ok(text) => validate((file, &text), args.live, &mut names)?,
            Err(error) => {
                output::say(&format!("{error:#}"));
                false
            }
        };
    }
    Ok(ExitCode::from(if valid { 0 } else { 64 }))
}

/// Where the pipeline of each namespace and name is written.
type PlacesByName = BTreeMap<(String, String), String>;

fn validate((file, text): (&Path, &str), live: bool, names: &mut PlacesByName) -> Result<bool> {
    match document::load(text, &file.display().to_string()) {
        Ok(loaded) if loaded.pipelines.is_empty() => {
            output::say(&settings::no_pipeline(file, &loaded.in_place));
            Ok(false)
        }
        Ok(loaded) => {
            let are_names_new = are_names_new(file, &loaded, names);
            let mut are_schemas_good = true;
            for (pipeline, places) in loaded.pipelines.iter().zip(&loaded.places) {
                let problems = schema_problems(pipeline.resolved());
                are_schemas_good &= problems.is_empty();
                say_problems(file, places, problems);
            }
            if !are_names_new || !are_schemas_good {
                return Ok(false);
            }
            for notice in &loaded.notices {
                output::note(&notice.to_string());
            }
            for (pipeline, places) in loaded.pipelines.iter().zip(&loaded.places) {
                note_kept_folders(file, places, pipeline.resolved());
            }
            let valid = !live || validate_live(file, loaded.pipelines)?;
            if valid {
                output::print(&format!("{}: good\n", file.display()))?;
            }
            Ok(valid)
        }
        Err(problems) => {
            for problem in &problems {
                output::say(&problem.to_string());
            }
            for (schema, places) in document::inline_schemas(text) {
                say_problems(file, &places, inline_schema_problems(&schema));
            }
            Ok(false)
        }
    }
}

fn say_problems(file: &Path, places: &FieldPlaces, problems: Vec<(String, String)>) {
    for (field, problem) in problems {
        let (line, column) = places.of(&field);
        output::say(&format!("{}:{line}:{column}: {problem}", file.display()));
    }
}

/// Says which locations are fine in a cluster and refused in a data folder, where the transport keeps its own there.
fn note_kept_folders(file: &Path, places: &FieldPlaces, resolved: &Resolved) {
    let report = resolved.report.as_ref();
    let locations = [
        ("spec.source.location", Some(&resolved.source.location)),
        (
            "spec.destination.location",
            Some(&resolved.destination.location),
        ),
        ("spec.report.location", report.map(|it| &it.location)),
    ];
    for (field, location) in locations {
        let Some((location, below)) = location.and_then(|it| Some((it, it.below_data()?))) else {
            continue;
        };
        if Local::keeps(Path::new(below)) {
            let (line, column) = places.of(field);
            output::note(&format!(
                "{}:{line}:{column}: {field}: {location}: `streampress run` and roles with --data keep their queues and their stream there and refuse it; choose another folder",
                file.display()
            ));
        }
    }
}

/// Whether no pipeline has the name of one before it, which it would replace; says which do.
fn are_names_new(file: &Path, loaded: &Documents, names: &mut PlacesByName) -> bool {
    let mut are_new = true;
    for (pipeline, places) in loaded.pipelines.iter().zip(&loaded.places) {
        let (line, column) = places.of("metadata.name");
        let identity = &pipeline.resolved().identity;
        let (namespace, name) = (identity.namespace.clone(), identity.pipeline.clone());
        let place = format!("{}:{line}:{column}", file.display());
        match names.entry((namespace, name.clone())) {
            Entry::Vacant(free) => {
                free.insert(place);
            }
            Entry::Occupied(first) => {
                are_new = false;
                output::say(&format!(
                    "{place}: metadata.name: {name}: is the name of the pipeline at {} too; give one of them another name, or another namespace",
                    first.get()
                ));
            }
        }
    }
    are_new
}

/// Whether the existing queues and streams fit the pipelines; says what to change where they do not.
#[cfg(feature = "aws")]
fn validate_live(file: &Path, pipelines: Vec<CheckedPipeline>) -> Result<bool> {
    use super::runtime;
    use crate::config::Config;

    runtime()?.block_on(async {
        let mut all_fit = true;
        for pipeline in pipelines {
            let (_, resolved) = pipeline.into_parts();
            let record_bytes = resolved.codec.record_bytes;
            let config = Config::File(Box::new(resolved));
            all_fit &= fits_what_exists(file, &config, record_bytes).await?;
        }
        Ok(all_fit)
    })
}

#[cfg(feature = "aws")]
async fn fits_what_exists(
    file: &Path,
    config: &crate::config::Config,
    record_bytes: usize,
) -> Result<bool> {
    use anyhow::Context;
    use streampress_transport::aws::provision;

    use crate::roles::connect::{connect, provision_plan, those_of_others};

    let Some(plan) = provision_plan(config) else {
        return Ok(true);
    };
    let aws = connect(config, output::note).await?;
    let checked = provision::check(&aws, &plan, record_bytes).await;
    let findings = checked.with_context(|| {
        format!(
            "checking the transport of {} on {}",
            config.identity().pipeline,
            aws.describe_endpoint()
        )
    })?;
    for finding in &findings {
        output::say(&format!(
            "{}: {}: {}",
            file.display(),
            finding.resource,
            finding.problem
        ));
    }
    let of_others = match those_of_others(&aws, &plan, config.identity()).await {
        Ok(of_others) => of_others,
        // Workers need no such permission.
        Err(error) => {
            output::note(&format!(
                "whether another pipeline owns the queues is not known: {error}"
            ));
            Vec::new()
        }
    };
    for (what, problem) in &of_others {
        output::say(&format!("{}: {what}: {problem}", file.display()));
    }
    let are_buckets_there = are_buckets_there(file, config, &aws).await;
    Ok(are_buckets_there && of_others.is_empty() && !findings.iter().any(|finding| finding.fatal))
}

/// Lists each location in a bucket, and says what cannot be listed.
#[cfg(feature = "aws")]
async fn are_buckets_there(
    file: &Path,
    config: &crate::config::Config,
    aws: &streampress_transport::aws::Aws,
) -> bool {
    use streampress_crds::location::Location;
    use streampress_transport::Files;

    let source = config.compressor().map(|settings| settings.source.location);
    let destination = config
        .decompressor()
        .map(|settings| settings.destination.location);
    let locations = [
        ("spec.source.location", source.ok()),
        ("spec.destination.location", destination.ok()),
    ];
    let mut are_there = true;
    for (field, location) in locations {
        let Some(location) = location else { continue };
        let Location::S3 { bucket, prefix } = &location else {
            continue;
        };
        let listed = match aws.files(&location.to_string(), bucket, prefix) {
            Ok(files) => crate::runtime::blocking(move || files.sample(1).map(drop)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = listed {
            output::say(&format!("{}: {field}: {error}", file.display()));
            are_there = false;
        }
    }
    are_there
}

#[cfg(not(feature = "aws"))]
fn validate_live(_: &Path, _: Vec<CheckedPipeline>) -> Result<bool> {
    anyhow::bail!(crate::roles::connect::HOW_TO_GET_AWS)
}
