//! Commands that a user is told to type: with the pipeline and the place of its data that the command before had.

use std::path::Path;

use streampress_transport::local::shell_word;

use super::args::{PipelineArgs, RunArgs};
use crate::message::REDRIVE_COMMAND;

/// The arguments that name a pipeline and the place of its data, quoted for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PipelineWords(String);

impl PipelineWords {
    pub(super) fn of(args: &PipelineArgs) -> Self {
        Self::new(args.file.as_deref(), args.data.as_deref(), args.aws)
    }

    /// With AWS the queues are there; the data folder of a run is not theirs.
    pub(super) fn of_run(args: &RunArgs) -> Self {
        let data = args.data.as_deref().filter(|_| !args.aws);
        Self::new(Some(&args.file), data, args.aws)
    }

    fn new(file: Option<&Path>, data: Option<&Path>, aws: bool) -> Self {
        let mut words = Vec::new();
        words.extend(file.map(shell_word));
        if let Some(data) = data {
            words.extend(["--data".to_owned(), shell_word(data)]);
        }
        if aws {
            words.push("--aws".to_owned());
        }
        Self(words.join(" "))
    }

    /// The text, with the command that sends dead letters again as it can be typed.
    pub(super) fn typed(&self, text: &str) -> String {
        text.replace(REDRIVE_COMMAND, &self.command("redrive"))
    }

    /// The command, as it can be typed; `words` are its name and its other options.
    pub(super) fn command(&self, words: &str) -> String {
        format!("streampress {words} {}", self.0)
            .trim_end()
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_pipeline_and_its_data_as_a_shell_takes_them() {
        let words = PipelineWords::of(&PipelineArgs {
            file: Some("it's mine.yaml".into()),
            data: Some("my data".into()),
            aws: false,
        });
        let command = words.command("recover --gone");
        let expected = [
            "streampress",
            "recover",
            "--gone",
            "it's mine.yaml",
            "--data",
            "my data",
        ];
        assert_eq!(shlex::split(&command).expect("words"), expected);
        let variable = PipelineWords::of(&PipelineArgs {
            file: None,
            data: None,
            aws: true,
        });
        assert_eq!(variable.command("redrive"), "streampress redrive --aws");
        let advice = format!("put it back, then {REDRIVE_COMMAND}");
        assert_eq!(
            variable.typed(&advice),
            "put it back, then streampress redrive --aws"
        );
    }
}
