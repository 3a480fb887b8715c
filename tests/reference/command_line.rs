use clap::{Command, CommandFactory};
use streampress_operator::args::OperatorArgs;

/// The help of every command, as the programs print it.
pub fn page() -> String {
    let worker = streampress::cli::command();
    let operator = OperatorArgs::command().name("streampress-operator");
    format!("{}{}", sections(worker), sections(operator))
}

fn sections(command: Command) -> String {
    // The width of the help must not depend on a terminal, nor its text on variables that are set.
    let mut command = command
        .term_width(100)
        .disable_help_subcommand(true)
        .mut_args(|argument| argument.hide_env_values(true));
    command.build();
    let mut text = section(&mut command.clone());
    for subcommand in command.get_subcommands() {
        text += &section(&mut subcommand.clone().term_width(100));
    }
    text
}

fn section(command: &mut Command) -> String {
    let name = command
        .get_bin_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    format!("## {name}\n\n```text\n{}\n```\n\n", lines.join("\n"))
}
