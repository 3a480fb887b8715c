//! The command line: parses, runs a command, and turns its outcome into an exit code: 0 done, 1 failed, 2 usage or a limit of
//! the process that is too low, 64 bad configuration.
//!
//! - [`args`]: what can be typed. One file a command; `role`: what the commands that are one role share.
//! - [`output`], [`progress`], [`signals`]: the terminal.

mod advice;
mod args;
mod bench;
mod compress;
mod decompress;
mod generate;
mod inspect;
mod output;
mod pack;
mod progress;
mod recover;
mod redrive;
mod report;
mod role;
mod run;
mod setup;
mod signals;
mod submit;
mod train;
mod unpack;
mod validate;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use streampress_crds::api::pipeline::CodecEffort;
use tracing::{Level, warn};

use self::args::{Cli, Command, LogFormat};
use crate::config::BadConfiguration;
use crate::telemetry::address_space::{AddressSpace, LowAddressSpace, MemoryUse};
use crate::telemetry::logging::{self, LogForm, LogOptions, Logging};
use crate::telemetry::open_files::{FileUse, LowFileLimit, OpenFiles};

/// Parses the arguments, runs the command, and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    output::choose_colour(std::env::args_os());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(other) if other.use_stderr() => other.exit(),
        Err(help) => return print_help(&help),
    };
    if cli.log_format == LogFormat::Json {
        output::use_json();
    }
    match ensured(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&format!("{error:#}"));
            let bad_configuration = error.chain().any(|cause| cause.is::<BadConfiguration>());
            let low_limit = error
                .chain()
                .any(|cause| cause.is::<LowAddressSpace>() || cause.is::<LowFileLimit>());
            ExitCode::from(match (bad_configuration, low_limit) {
                (true, _) => 64,
                (false, true) => 2,
                (false, false) => 1,
            })
        }
    }
}

/// Prints what `--help` or `--version` asks for.
fn print_help(help: &clap::Error) -> ExitCode {
    match help.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            output::error(&format!("writing to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Runs the command if the process may open what it needs.
fn ensured(cli: Cli) -> Result<ExitCode> {
    if let Some(file_use) = file_use(&cli.command)
        && let Some(files) = OpenFiles::of_this_process()
        && let Err(error) = files.ensure(file_use)
    {
        return match cli.command {
            Command::Run(args) => run::failed(&args, anyhow::Error::from(error).into()),
            _ => Err(error.into()),
        };
    }
    let logging = start_logging(&cli);
    let outcome = dispatch(cli.command);
    logging.end();
    outcome
}

/// What a command opens; `None` where it is next to nothing.
fn file_use(command: &Command) -> Option<FileUse> {
    let roles = |threads| Some(FileUse::Roles { threads });
    match command {
        Command::Run(args) => roles(threads(args.threads)),
        Command::Compress(args) | Command::Decompress(args) => roles(threads(args.threads)),
        Command::Generate(_) => roles(1),
        Command::Submit(_)
        | Command::Redrive(_)
        | Command::Recover(_)
        | Command::Report(_)
        | Command::Setup(_) => Some(FileUse::Transport),
        Command::Pack(_) | Command::Unpack(_) | Command::Train(_) => Some(FileUse::OneFile),
        Command::Validate(_)
        | Command::Inspect(_)
        | Command::Bench(_)
        | Command::Completion { .. }
        | Command::Man { .. } => None,
    }
}

/// The command line as clap has it, for the documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::command(args),
        Command::Generate(args) => generate::command(args),
        Command::Compress(args) => compress::command(args),
        Command::Decompress(args) => decompress::command(args),
        Command::Submit(args) => submit::command(args),
        Command::Redrive(args) => redrive::command(args),
        Command::Recover(args) => recover::command(args),
        Command::Report(args) => report::command(args),
        Command::Setup(args) => setup::command(args),
        Command::Validate(args) => validate::command(args),
        Command::Pack(args) => pack::command(args),
        Command::Unpack(args) => unpack::command(args),
        Command::Train(args) => train::command(args),
        Command::Inspect(args) => inspect::command(args),
        Command::Bench(args) => bench::command(args),
        Command::Completion { shell } => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "streampress", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            output::print(&manual_page(command.as_deref())?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The manual page of a command, or of the program.
fn manual_page(command: Option<&str>) -> Result<String> {
    let mut program = Cli::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name);
            found
                .with_context(|| {
                    format!("streampress has no command {name}; 'streampress help' lists them")
                })?
                .clone()
        }
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut roff)
        .context("writing the manual page")?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

/// A role logs what it does; `run` says in plain lines what went wrong with which file; other commands log only errors.
/// Commands that start or continue a file's trace export it too, where a collector is named.
fn start_logging(cli: &Cli) -> Logging {
    let is_role = matches!(
        cli.command,
        Command::Generate(_) | Command::Compress(_) | Command::Decompress(_)
    );
    let has_traces = is_role || matches!(cli.command, Command::Run(_) | Command::Submit(_));
    let (form, default) = match (&cli.command, is_role) {
        (_, true) => (LogForm::Text, Level::INFO),
        (Command::Run(_), false) => (LogForm::Plain, Level::WARN),
        (_, false) => (LogForm::Text, Level::ERROR),
    };
    let logging = logging::start(LogOptions {
        form: match cli.log_format {
            LogFormat::Json => LogForm::Json,
            LogFormat::Text => form,
        },
        default,
        has_traces,
        has_colour: output::has_colour(),
        writer: progress::log_writer,
    });
    match logging.notice() {
        Some(notice) if is_role => warn!("{notice}"),
        Some(notice) => output::note(notice),
        None => {}
    }
    logging
}

/// Blocking work that a command has given up, such as a large block being packed, is waited for this long at the end.
const ABANDONED_WORK: Duration = Duration::from_secs(1);

/// The async runtime of a command.
struct CommandRuntime(tokio::runtime::Runtime);

impl CommandRuntime {
    /// Runs the command. What it does not wait for does not keep the process.
    fn block_on<F: Future>(self, command: F) -> F::Output {
        let outcome = self.0.block_on(command);
        self.0.shutdown_timeout(ABANDONED_WORK);
        outcome
    }
}

fn runtime() -> Result<CommandRuntime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    Ok(CommandRuntime(runtime))
}

/// What roles and their runtime do with memory.
fn roles_memory() -> MemoryUse {
    MemoryUse::Roles {
        runtime_threads: threads(None),
    }
}

/// As given, or one for each core; and no more than the process's limit of address space holds.
fn threads_that_fit(
    given: Option<u16>,
    block_bytes: usize,
    effort: CodecEffort,
    memory_use: MemoryUse,
) -> Result<usize, LowAddressSpace> {
    let wanted = threads(given);
    let Some(space) = AddressSpace::of_this_process() else {
        return Ok(wanted);
    };
    let fitting = space.threads(wanted, block_bytes, effort, memory_use)?;
    if fitting < wanted {
        output::note(&format!(
            "using {fitting} of {wanted} threads: more do not fit the address space that this process may take (ulimit -v)"
        ));
    }
    Ok(fitting)
}

/// As given, or one for each core.
fn threads(given: Option<u16>) -> usize {
    given.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    )
}
