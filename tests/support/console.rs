//! The console blocks of README.md and docs/ as tests: their commands run in bash as written.
//!
//! A block is fenced with three backticks and `console`. In it, `$ ` begins a command, `> ` continues it, `? 64` below it
//! says that it exits with 64 instead of 0, and `^C` that it runs until it is interrupted. All other lines are the
//! expected output, in which `...` stands for any lines and `[..]` for any text; without any, the output is not compared.
//!
//! A word after `console,` says where a block runs: nothing in a checkout, `aws` with a fake AWS, `kind` on the cluster
//! of `tests/cluster`, `ignore` nowhere; then the line above the fence is a comment `<!-- not run: … -->` with the reason.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use snapbox::Data;

/// Separates the output of commands; it occurs in no output.
const MARK: char = '\u{1e}';

/// A console block.
#[derive(Debug, PartialEq, Eq)]
pub struct ConsoleBlock {
    /// The line of its fence, from 1.
    pub line: usize,
    /// Where it runs: empty, `aws`, `kind` or `ignore`.
    pub place: String,
    /// The reason why it is not run.
    pub reason: Option<String>,
    commands: Vec<ConsoleCommand>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ConsoleCommand {
    line: usize,
    text: String,
    exit_code: i32,
    interrupted: bool,
    expected: Vec<String>,
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.expect("the tests are in the repository")
}

/// README.md of the repository and of its packages, and all pages of docs/src.
pub fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_skipped = name.starts_with('.') || name == "target";
            if path.is_dir() && !is_skipped && name != "streampress-data" {
                folders.push(path);
            } else if name == "README.md"
                || (path.starts_with(repository().join("docs/src")) && name.ends_with(".md"))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The console blocks of a page; a panic names the line of a malformed one.
pub fn blocks(page: &Path) -> Vec<ConsoleBlock> {
    let text = fs::read_to_string(page).expect("a readable page");
    parse(&text).unwrap_or_else(|problem| panic!("{}:{problem}", page.display()))
}

fn parse(text: &str) -> Result<Vec<ConsoleBlock>, String> {
    let mut found = Vec::new();
    let mut lines = text.lines().zip(1..);
    let mut above = "";
    while let Some((line, number)) = lines.next() {
        let fence: String = line.chars().take_while(|c| *c == '`').collect();
        if fence.len() < 3 {
            above = if line.trim().is_empty() { above } else { line };
            continue;
        }
        let mut body = Vec::new();
        for (inner, number) in lines.by_ref() {
            if inner.trim_end() == fence {
                break;
            }
            body.push((inner, number));
        }
        let (language, place) = line[fence.len()..]
            .split_once(',')
            .unwrap_or((&line[fence.len()..], ""));
        match language.trim() {
            "console" => found.push(ConsoleBlock {
                line: number,
                place: place.trim().to_owned(),
                reason: reason(above),
                commands: commands(&body)?,
            }),
            "sh" | "bash" | "shell" => {
                return Err(format!("{number}: commands belong into a console block"));
            }
            _ => {}
        }
        above = "";
    }
    Ok(found)
}

fn reason(comment: &str) -> Option<String> {
    let inner = comment
        .trim()
        .strip_prefix("<!-- not run:")?
        .strip_suffix("-->")?;
    Some(inner.trim().to_owned()).filter(|reason| !reason.is_empty())
}

fn commands(body: &[(&str, usize)]) -> Result<Vec<ConsoleCommand>, String> {
    let mut commands: Vec<ConsoleCommand> = Vec::new();
    for (line, number) in body {
        if let Some(text) = line.strip_prefix("$ ") {
            commands.push(ConsoleCommand {
                line: *number,
                text: text.to_owned(),
                ..ConsoleCommand::default()
            });
            continue;
        }
        let command = commands.last_mut();
        let command =
            command.ok_or_else(|| format!("{number}: a console block begins with `$ `"))?;
        if let Some(text) = line
            .strip_prefix("> ")
            .filter(|_| command.expected.is_empty())
        {
            command.text = format!("{}\n{text}", command.text);
        } else if let Some(code) = line.strip_prefix("? ") {
            command.exit_code = code
                .parse()
                .map_err(|_| format!("{number}: {code} is no exit code"))?;
        } else if *line == "^C" {
            command.interrupted = true;
        } else {
            command.expected.push((*line).to_owned());
        }
    }
    Ok(commands)
}

/// A bash that runs the blocks of one page, one after the other, in one folder.
#[derive(Debug)]
pub struct Console {
    bash: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Console {
    /// Starts it; `command` has the folder and the environment.
    pub fn start(mut bash: Command) -> Self {
        let mut bash = bash
            .args(["--noprofile", "--norc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let (sender, lines) = mpsc::channel();
        let stdout = bash.stdout.take().expect("piped");
        // Read on while a command runs: a full pipe would block it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdin = bash.stdin.take();
        let mut console = Self { bash, stdin, lines };
        console.feed("exec 2>&1; set -o pipefail");
        console
    }

    /// Runs a block's commands; panics at the first that does not behave as written.
    pub fn run(&mut self, page: &Path, block: &ConsoleBlock) {
        for command in &block.commands {
            let at = format!("{}:{}: {}", page.display(), command.line, command.text);
            println!("{at}");
            let (output, exit_code) = if command.interrupted {
                self.interrupt(command)
            } else {
                self.feed(&format!(
                    "{{ {}\n}} </dev/null\nprintf '\\n{MARK}%d\\n' $?",
                    command.text
                ));
                self.until_mark()
            };
            assert_eq!(exit_code, command.exit_code, "{at}\n{output}");
            assert!(
                matches(command, &output),
                "{at}\nexpected:\n{}\nprinted:\n{output}",
                command.expected.join("\n")
            );
        }
    }

    /// Ends the commands that run in the background; each must exit with 0.
    pub fn finish(mut self) {
        self.feed(&format!(
            "failed=0; for job in $(jobs -p); do kill -TERM $job; wait $job || {{ failed=$?; jobs -l; }}; done; printf '\\n{MARK}%d\\n' $failed"
        ));
        let (output, failed) = self.until_mark();
        assert_eq!(failed, 0, "a command in the background failed:\n{output}");
    }

    /// Runs a command until it has printed what is expected, or anything, then ends it.
    fn interrupt(&mut self, command: &ConsoleCommand) -> (String, i32) {
        self.feed(&format!("{} </dev/null &", command.text));
        let mut output = String::new();
        while output.is_empty() || !matches(command, &output) {
            output += &self.lines.recv().expect("bash runs");
            output.push('\n');
        }
        self.feed(&format!(
            "kill -TERM $!; wait $!; printf '\\n{MARK}%d\\n' {}",
            command.exit_code
        ));
        (output, self.until_mark().1)
    }

    fn feed(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open until it is dropped");
        writeln!(stdin, "{text}").expect("bash reads");
    }

    /// The output up to the next mark, and the exit code in the mark.
    fn until_mark(&mut self) -> (String, i32) {
        let mut output = String::new();
        loop {
            let Ok(line) = self.lines.recv() else {
                panic!("bash has ended:\n{output}");
            };
            if let Some(code) = line.strip_prefix(MARK) {
                return (output, code.parse().expect("an exit code"));
            }
            output += &line;
            output.push('\n');
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = writeln!(stdin, "kill -KILL $(jobs -p) 2>/dev/null; exit");
        }
        let _ = self.bash.wait();
    }
}

fn matches(command: &ConsoleCommand, output: &str) -> bool {
    if command.expected.is_empty() {
        return true;
    }
    let expected = command.expected.join("\n");
    let (actual, expected) = (
        Data::text(output.trim_end()),
        Data::text(expected.trim_end()),
    );
    snapbox::Assert::new()
        .try_eq(None, actual, expected)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title\n\n```text\n$ no command\n```\n\n```console\n$ echo a\n> echo b\na\n...\n$ false\n? 1\n```\n\n<!-- not run: takes an hour -->\n```console,ignore\n$ sleep 3600\n```\n";

    fn bash() -> Console {
        Console::start(Command::new("bash"))
    }

    #[test]
    fn a_page_is_split_into_blocks_and_commands() {
        let blocks = parse(PAGE).expect("well-formed");
        assert_eq!(blocks.len(), 2);
        let command = &blocks[0].commands[0];
        assert_eq!((blocks[0].line, command.line), (7, 8));
        assert_eq!(command.text, "echo a\necho b");
        assert_eq!(command.expected, ["a", "..."]);
        assert_eq!(blocks[0].commands[1].exit_code, 1);
        assert_eq!(blocks[1].place, "ignore");
        assert_eq!(blocks[1].reason.as_deref(), Some("takes an hour"));
    }

    #[test]
    fn a_block_that_does_not_begin_with_a_command_is_malformed() {
        assert!(parse("```console\nls\n```\n").is_err());
        assert!(parse("```sh\nls\n```\n").is_err());
    }

    #[test]
    fn commands_share_a_shell_and_their_output_is_compared() {
        let mut console = bash();
        console.run(Path::new("page"), &parse(PAGE).expect("well-formed")[0]);
        let next = "```console\n$ cd /; x=1\n$ echo $x $PWD\n1 /\n$ sleep 1000 & echo started at $(date)\nstarted at [..]\n```";
        console.run(Path::new("page"), &parse(next).expect("well-formed")[0]);
    }

    #[test]
    fn a_command_that_runs_until_it_is_interrupted_is_ended_after_its_output() {
        let block = "```console\n$ sh -c 'echo one; echo two; exec sleep 1000'\none\ntwo\n^C\n$ echo on\non\n```";
        let mut console = bash();
        console.run(Path::new("page"), &parse(block).expect("well-formed")[0]);
        console.finish();
    }

    #[test]
    #[should_panic(expected = "echo a")]
    fn other_output_than_expected_fails() {
        let block = "```console\n$ echo a\nb\n```";
        bash().run(Path::new("page"), &parse(block).expect("well-formed")[0]);
    }

    #[test]
    #[should_panic(expected = "exit 3")]
    fn another_exit_code_than_expected_fails() {
        let block = "```console\n$ (exit 3)\n```";
        bash().run(Path::new("page"), &parse(block).expect("well-formed")[0]);
    }

    #[test]
    #[should_panic(expected = "a command in the background failed")]
    fn a_command_in_the_background_that_fails_is_noticed() {
        let block = "```console\n$ (exit 4) &\n```";
        let mut console = bash();
        console.run(Path::new("page"), &parse(block).expect("well-formed")[0]);
        console.finish();
    }
}
