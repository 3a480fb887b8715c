//! The command line: what can be typed, and which part of the library does it. Exit codes: 0 done, 1 failed, 2 usage,
//! 64 bad configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub mod commands;
mod files;
mod pipeline;
pub mod progress;
mod roles;
mod signals;

use crate::config::BadConfiguration;
use crate::telemetry::otlp::{self, Traces};
use streampress_codec::hybrid;
use streampress_transport::is_safe_to_log;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold());

/// Moves JSON, CSV and text files through queues and a stream, as small as they can be made, and puts them back byte for
/// byte.
#[derive(Debug, Parser)]
#[command(name = "streampress", version, styles = STYLES, propagate_version = true, after_help = "Start here:  streampress run deploy/examples/stock-market.yaml")]
struct Cli {
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "STREAMPRESS_LOG_FORMAT", hide_env = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole pipeline in this process: generate, compress, stream, restore, verify, report
    Run(RunArgs),
    /// Make files and announce them, as the generator's pod does
    Generate(GenerateArgs),
    /// Compress announced files, as a compressor's pod does
    Compress(RoleArgs),
    /// Restore compressed files, as a decompressor's pod does
    Decompress(RoleArgs),
    /// Announce files that exist already; files from elsewhere are copied to the source first
    Submit(SubmitArgs),
    /// Give dead letters another go
    Redrive(RedriveArgs),
    /// Render the report page from what is stored
    Report(PlaceArgs),
    /// Make the queues and the stream of a pipeline
    Setup(SetupArgs),
    /// Check a pipeline's YAML: every problem with line and field
    Validate(ValidateArgs),
    /// Pack one file
    Pack(PackArgs),
    /// Unpack one file
    Unpack(UnpackArgs),
    /// Show what a packed file is made of
    Inspect(InspectArgs),
    /// Compare codecs on files: size, speed, memory
    Bench(BenchArgs),
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which pipeline, and where its data is.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// The pipeline's YAML; without it, STREAMPRESS_PIPELINE or the Python original's variables
    #[arg(value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The data folder of the embedded transport; stands for /data [default: ./streampress-data/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// Use the pipeline's queues and stream on AWS; so it is without a FILE.yaml and without --data
    #[arg(long, conflicts_with = "data")]
    aws: bool,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The pipeline's YAML
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The data folder; stands for /data [default: ./streampress-data/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// Files to generate, instead of generator.files
    #[arg(long, value_name = "N", conflicts_with = "input", value_parser = clap::value_parser!(u64).range(1..))]
    files: Option<u64>,
    /// Take the files of this folder (json, csv, txt, log) instead of generating; they are only read
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    input: Option<PathBuf>,
    /// Use the pipeline's queues and stream on AWS; what is known of the files stays in the data folder
    #[arg(long)]
    aws: bool,
    /// Print the summary as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Threads for packing and unpacking [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Debug, Args)]
struct RoleArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Threads for packing and unpacking [default: all cores, or as many as fit a pod's memory limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Where to serve /livez, /readyz and /metrics, as 127.0.0.1:9090; in a cluster's pod 0.0.0.0:8080
    #[arg(long, value_name = "ADDR", env = "STREAMPRESS_LISTEN", hide_env = true)]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Files to generate, instead of generator.files; it then ends instead of idling
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    files: Option<u64>,
    /// Where to serve /livez, /readyz and /metrics, as 127.0.0.1:9090; in a cluster's pod 0.0.0.0:8080
    #[arg(long, value_name = "ADDR", env = "STREAMPRESS_LISTEN", hide_env = true)]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct SubmitArgs {
    /// The files
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// The pipeline's YAML; without it, STREAMPRESS_PIPELINE or the Python original's variables
    #[arg(short, long, value_name = "FILE.yaml", value_hint = ValueHint::FilePath)]
    pipeline: Option<PathBuf>,
    /// The data folder of the embedded transport; stands for /data [default: ./streampress-data/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// Use the pipeline's queues on AWS; so it is without -p and without --data
    #[arg(long, conflicts_with = "data")]
    aws: bool,
}

#[derive(Debug, Args)]
struct RedriveArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Only list the dead letters and why they died
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct SetupArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Delete what setup made, and nothing else
    #[arg(long)]
    delete: bool,
    /// Let this EventBridge rule send a bucket's events to the files queue: the bucket then announces its files itself
    #[arg(long, value_name = "ARN", conflicts_with = "delete", value_parser = rule_arn)]
    event_rule: Option<String>,
}

#[derive(Debug, Args)]
struct ValidateArgs {
    /// The pipeline's YAML; - is standard input
    #[arg(required = true, value_name = "FILE.yaml", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Also check that the queues and the stream that exist fit
    #[arg(long)]
    live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EffortArg {
    /// Least time.
    Fast,
    /// Small at a fair speed.
    Balanced,
    /// Smallest.
    Max,
}

impl From<EffortArg> for hybrid::Effort {
    fn from(effort: EffortArg) -> Self {
        match effort {
            EffortArg::Fast => Self::Fast,
            EffortArg::Balanced => Self::Balanced,
            EffortArg::Max => Self::Max,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Streampress's own: smallest, byte for byte.
    Hybrid,
    /// The Python original's, which normalises.
    Seed,
}

#[derive(Debug, Args)]
struct PackArgs {
    /// The file; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Where to [default: IN.spk or IN.seed]
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// The packed form
    #[arg(long, value_enum, default_value_t = FormatArg::Hybrid)]
    format: FormatArg,
    /// How much time packing may take
    #[arg(long, value_enum, default_value_t = EffortArg::Balanced)]
    effort: EffortArg,
    /// Bytes packed at once, from 64Ki to 64Mi
    #[arg(long, value_name = "SIZE", default_value = "4Mi", value_parser = files::block_size)]
    block_size: usize,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Say for every block what was tried and what won
    #[arg(long)]
    explain: bool,
    /// Overwrite OUT
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct UnpackArgs {
    /// The packed file; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Where to [default: IN without .spk or .seed; a single block to standard output]
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Only block N, counted from 0, read by the index without the blocks before it
    #[arg(long, value_name = "N", conflicts_with = "keep_going")]
    block: Option<u32>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Leave damaged blocks out and name them, instead of giving up
    #[arg(long)]
    keep_going: bool,
    /// Overwrite OUT
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The packed file; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// The files [default: files made from the example schemas]
    #[arg(value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Only codecs whose names begin so, such as hybrid or "xz -9e"; may be given again
    #[arg(long, value_name = "NAME")]
    codec: Vec<String>,
    /// Pack and unpack so often, the best time counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

fn rule_arn(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts[..] {
        ["arn", _, "events", _, _, rule] if rule.starts_with("rule/") => Ok(text.to_owned()),
        _ => Err(
            "write the rule's ARN, as arn:aws:events:eu-central-1:123456789012:rule/name".into(),
        ),
    }
}

/// Parses, runs, and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let traces = start_logging(&cli);
    let ended = dispatch(cli.command);
    traces.end();
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let bad_configuration = error.chain().any(|cause| cause.is::<BadConfiguration>());
            ExitCode::from(if bad_configuration { 64 } else { 1 })
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => pipeline::run(args),
        Command::Generate(args) => roles::generate(args),
        Command::Compress(args) => roles::compress(args),
        Command::Decompress(args) => roles::decompress(args),
        Command::Submit(args) => roles::submit(args),
        Command::Redrive(args) => roles::redrive(args),
        Command::Report(args) => pipeline::report(args),
        Command::Setup(args) => pipeline::setup(args),
        Command::Validate(args) => pipeline::validate(args),
        Command::Pack(args) => files::pack(args),
        Command::Unpack(args) => files::unpack(args),
        Command::Inspect(args) => files::inspect(args),
        Command::Bench(args) => files::bench(args),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "streampress",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Logs go to standard error. A role says what it does; other commands only what went wrong. RUST_LOG overrules.
/// Commands that begin or continue a file's trace export it too, where a collector is named.
fn start_logging(cli: &Cli) -> Traces {
    let is_role = matches!(
        cli.command,
        Command::Generate(_) | Command::Compress(_) | Command::Decompress(_)
    );
    let default = if is_role { "info" } else { "error" };
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    let filter = filter.and(filter_fn(is_safe_to_log));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(crate::cli::progress::log_writer)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let lines = match cli.log_format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let has_traces = is_role || matches!(cli.command, Command::Run(_) | Command::Submit(_));
    let (export, traces) = match has_traces && otlp::is_wanted(|name| std::env::var(name).ok()) {
        true => otlp::start(),
        false => (None, Traces::none()),
    };
    let parts: Vec<otlp::Part> = export.into_iter().chain([lines]).collect();
    tracing_subscriber::registry().with(parts).init();
    match &traces.notice {
        Some(notice) if is_role => tracing::warn!("{notice}"),
        Some(notice) => roles::notice(notice),
        None => {}
    }
    traces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
