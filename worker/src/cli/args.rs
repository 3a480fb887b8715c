//! The command line's arguments, as clap reads them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use streampress_codec::FormatVersion;
use streampress_crds::api::pipeline::{CodecEffort, CodecFormat};
use streampress_crds::{BLOCK_BYTES, ByteSize, DeadLetterReason};

/// A pipeline that runs as it is, for a first try.
const AFTER_HELP: &str = "\
First try: save these lines as pipeline.yaml, then run 'streampress run pipeline.yaml'.

  apiVersion: streampress.dev/v1alpha1
  kind: CompressionPipeline
  metadata: {name: first}
  spec:
    generator: {schema: {example: stock-market}, filesPerMinute: 0, files: 20}";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold());

/// Moves JSON, CSV and text files through queues and a stream, as small as they can be made, and puts them back byte for
/// byte.
#[derive(Debug, Parser)]
#[command(name = "streampress", version, styles = STYLES, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The form of log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "STREAMPRESS_LOG_FORMAT", hide_env = true)]
    pub(crate) log_format: LogFormat,
    /// Whether what people read has colours; `auto`: on a terminal, unless NO_COLOR is set
    // Read by `output::choose_colour` before anything is parsed, so that it holds for help and errors too.
    #[arg(long, global = true, value_enum, default_value_t = ColourChoice::Auto, value_name = "WHEN")]
    pub(crate) color: ColourChoice,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColourChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    Auto,
    /// Also in a file or a pipe.
    Always,
    /// Nowhere.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole pipeline in this process: generate, compress, stream, restore, verify, report
    Run(RunArgs),
    /// Generate files and announce them, and scan the source (`scanSeconds`), as the generator's pod does
    Generate(GenerateArgs),
    /// Compress announced files, as a compressor's pod does
    Compress(RoleArgs),
    /// Restore compressed files, as a decompressor's pod does
    Decompress(RoleArgs),
    /// Announce existing files; files outside the source are copied there first
    Submit(SubmitArgs),
    /// Send dead letters again
    Redrive(RedriveArgs),
    /// Make lost queues anew: send the newest version of each packed file in the stream to be restored (hybrid format)
    Recover(RecoverArgs),
    /// Render the report page from the stored rows
    Report(PipelineArgs),
    /// Create a pipeline's queues and stream on AWS
    Setup(SetupArgs),
    /// Check a pipeline's YAML; lists every problem with line and field
    Validate(ValidateArgs),
    /// Pack one file
    Pack(PackArgs),
    /// Unpack one file
    Unpack(UnpackArgs),
    /// Make a plan from files, with which further files of their schemas are packed many times faster
    Train(TrainArgs),
    /// Show the blocks and streams of a packed file, or the schemas of a plan
    ///
    /// Nothing is unpacked, so damaged content is not found: 'streampress unpack FILE -o /dev/null' verifies every byte.
    Inspect(InspectArgs),
    /// Compare codecs on files: size, speed, memory
    Bench(BenchArgs),
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page, for example for 'man -l -'
    Man {
        /// The command; without it, the program
        command: Option<String>,
    },
}

/// Which pipeline, and which transport.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline's YAML; without it, STREAMPRESS_PIPELINE or the Python original's variables
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// The data folder of the embedded transport, in place of /data [default: ./streampress-data/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Use AWS; this is the default when neither FILE.yaml nor --data is given
    #[arg(long, conflicts_with = "data")]
    pub(crate) aws: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// The pipeline's YAML
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The data folder, in place of /data [default: ./streampress-data/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Files to generate, instead of generator.files
    #[arg(long, value_name = "N", conflicts_with = "input", allow_negative_numbers = true, value_parser = whole::<u64>(1, u64::MAX))]
    pub(crate) files: Option<u64>,
    /// Take the files of this folder instead of generating, of the kinds in source.formats (unless given: json, csv, txt and
    /// log); they are only read
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) input: Option<PathBuf>,
    /// Use the pipeline's queues and stream on AWS; slots and journal stay in the data folder
    #[arg(long)]
    pub(crate) aws: bool,
    /// Print the summary as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads for packing and unpacking [default: all cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 1024))]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Threads for packing and unpacking [default: all cores, or as many as fit a pod's memory limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 1024))]
    pub(crate) threads: Option<u16>,
    /// Address of /livez, /readyz and /metrics, such as 127.0.0.1:9090 [default in a cluster's pod: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR", env = "STREAMPRESS_LISTEN", hide_env = true, value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Files to generate, instead of generator.files; the command then ends instead of idling
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>(1, u64::MAX))]
    pub(crate) files: Option<u64>,
    /// Address of /livez, /readyz and /metrics, such as 127.0.0.1:9090 [default in a cluster's pod: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR", env = "STREAMPRESS_LISTEN", hide_env = true, value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The files
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// The pipeline's YAML; without it, STREAMPRESS_PIPELINE or the Python original's variables
    #[arg(short, long, value_name = "FILE.yaml", value_hint = ValueHint::FilePath)]
    pub(crate) pipeline: Option<PathBuf>,
    /// The data folder of the embedded transport, in place of /data [default: ./streampress-data/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Use AWS; this is the default when neither -p nor --data is given
    #[arg(long, conflicts_with = "data")]
    pub(crate) aws: bool,
    /// Wait until every file is restored, superseded or a dead letter; exit code 1 if one is a dead letter
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait for so many seconds at most; exit code 1 if a file is still under way then
    #[arg(long, value_name = "SECONDS", requires = "wait", allow_negative_numbers = true, value_parser = whole::<u32>(0, u32::MAX.into()))]
    pub(crate) timeout: Option<u32>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("chosen").multiple(true)))]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Only list the dead letters with their reasons
    #[arg(long)]
    pub(crate) list: bool,
    /// Only dead letters with this reason
    #[arg(long, group = "chosen", value_parser = dead_letter_reason(), hide_possible_values = true)]
    pub(crate) reason: Option<DeadLetterReason>,
    /// Only the dead letters of this file, named as --list names it; may be given several times
    #[arg(
        long,
        group = "chosen",
        value_name = "NAME",
        allow_hyphen_values = true
    )]
    pub(crate) name: Vec<String>,
    /// Delete the chosen dead letters (--reason, --name) instead of sending them again: their files are no longer expected at the destination
    #[arg(long, requires = "chosen", conflicts_with = "list")]
    pub(crate) discard: bool,
}

/// Takes the name of a reason.
fn dead_letter_reason() -> impl TypedValueParser<Value = DeadLetterReason> {
    let names = DeadLetterReason::ALL.iter().map(|reason| reason.as_str());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<DeadLetterReason>())
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Send also files that were restored and are not at the destination any more; only with --data
    #[arg(long)]
    pub(crate) gone: bool,
    /// Only list the files with their versions, and send nothing
    #[arg(long)]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Delete what setup created, and nothing else; refused while messages or dead letters wait
    #[arg(long)]
    pub(crate) delete: bool,
    /// With --delete: also what waits, which may be the only trace of packed files
    #[arg(long, requires = "delete")]
    pub(crate) force: bool,
    /// Allow this EventBridge rule to send a bucket's events to the files queue, so that they announce its new objects
    #[arg(long, value_name = "ARN", conflicts_with = "delete", value_parser = rule_arn)]
    pub(crate) event_rule: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The pipeline's YAML; - is standard input
    #[arg(required = true, value_name = "FILE.yaml", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Also check the existing queues and stream on AWS
    #[arg(long)]
    pub(crate) live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// The file; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) input: PathBuf,
    /// The output [default: IN.spk or IN.seed]
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// The packed format
    #[arg(long, default_value = "hybrid", value_parser = format_parser())]
    pub(crate) format: CodecFormat,
    /// How much time packing may take
    #[arg(long, default_value = "balanced", value_parser = effort_parser())]
    pub(crate) effort: CodecEffort,
    /// Bytes packed at once, from 64Ki to 64Mi
    #[arg(long, value_name = "SIZE", default_value = "4Mi", allow_hyphen_values = true, value_parser = block_size)]
    pub(crate) block_size: usize,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 1024))]
    pub(crate) threads: Option<u16>,
    /// The version of the hybrid format: 2 is smaller, but programs before it cannot read it
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = format_version)]
    pub(crate) format_version: FormatVersion,
    /// A plan made by 'streampress train' from files like this one: packing is then many times faster (hybrid format)
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath)]
    pub(crate) plan: Option<PathBuf>,
    /// Show for every block what was tried and what was chosen
    #[arg(long)]
    pub(crate) explain: bool,
    /// Overwrite OUT
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Files like those to be packed with the plan
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// The plan
    #[arg(short, long, value_name = "PLAN", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// How much time the search may take
    #[arg(long, default_value = "balanced", value_parser = effort_parser())]
    pub(crate) effort: CodecEffort,
    /// Bytes packed at once, from 64Ki to 64Mi
    #[arg(long, value_name = "SIZE", default_value = "4Mi", allow_hyphen_values = true, value_parser = block_size)]
    pub(crate) block_size: usize,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 1024))]
    pub(crate) threads: Option<u16>,
    /// Overwrite PLAN
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// The packed file; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) input: PathBuf,
    /// The output [default: IN without .spk or .seed; standard output for a single block]
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Only block N, counted from 0; the blocks before it are not read
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with = "keep_going",
        value_parser = whole::<u32>(0, u32::MAX.into())
    )]
    pub(crate) block: Option<u32>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 1024))]
    pub(crate) threads: Option<u16>,
    /// Leave out damaged blocks and list them, instead of stopping at the first
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Overwrite OUT
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The packed file or plan; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The files [default: small and large files of the example schemas, new and known, by processor time]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 1024))]
    pub(crate) threads: Option<u16>,
    /// Only codecs whose names start with NAME, such as hybrid or "xz -9e"; can be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) codec: Vec<String>,
    /// Pack and unpack N times; the best time counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u16>(1, 100))]
    pub(crate) rounds: u16,
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

fn format_parser() -> impl TypedValueParser<Value = CodecFormat> {
    let hybrid = PossibleValue::new("hybrid").help("Streampress's own: smallest, byte for byte");
    let seed = PossibleValue::new("seed").help("The Python original's, which normalises");
    PossibleValuesParser::new([hybrid, seed]).map(|name| match name.as_str() {
        "seed" => CodecFormat::Seed,
        _ => CodecFormat::Hybrid,
    })
}

/// A version of the hybrid format.
fn format_version(text: &str) -> Result<FormatVersion, String> {
    let number = text.parse::<u8>().ok();
    let version = number.and_then(|number| FormatVersion::try_from(number).ok());
    version.ok_or_else(|| "write 1 or 2".to_owned())
}

fn effort_parser() -> impl TypedValueParser<Value = CodecEffort> {
    let fast = PossibleValue::new("fast").help("Least time");
    let balanced = PossibleValue::new("balanced").help("Small at a fair speed");
    let max = PossibleValue::new("max").help("Smallest");
    PossibleValuesParser::new([fast, balanced, max]).map(|name| match name.as_str() {
        "fast" => CodecEffort::Fast,
        "max" => CodecEffort::Max,
        _ => CodecEffort::Balanced,
    })
}

/// A block size as Kubernetes writes sizes.
fn block_size(text: &str) -> Result<usize, String> {
    let bytes = ByteSize::written(text).bytes_within(&BLOCK_BYTES)?;
    usize::try_from(bytes).map_err(|error| error.to_string())
}

/// A whole number from `least` to `most`.
fn whole<N: TryFrom<u64>>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok();
        let number = number.filter(|number| (least..=most).contains(number));
        number
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| match most >= u32::MAX.into() {
                true => format!("write a whole number, {least} or more"),
                false => format!("write a whole number from {least} to {most}"),
            })
    }
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port, such as 127.0.0.1:9090, or 0.0.0.0:9090 for all interfaces".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use streampress_crds::load_one;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_pipeline_in_the_help_is_valid_and_help_names_no_file_of_a_checkout() {
        let (_, yaml) = AFTER_HELP.split_once("\n\n").expect("an example");
        let yaml: Vec<&str> = yaml.lines().map(|line| &line[2..]).collect();
        let loaded = load_one(&yaml.join("\n"), "help");
        assert!(loaded.is_ok(), "{loaded:?}");
        let mut command = Cli::command();
        let mut help = command.render_long_help().to_string();
        for subcommand in command.get_subcommands_mut() {
            help += &subcommand.render_long_help().to_string();
        }
        for folder in ["deploy/", "worker/", "tests/", "docs/", "crds/"] {
            assert!(!help.contains(folder), "{folder} in {help}");
        }
    }
}
