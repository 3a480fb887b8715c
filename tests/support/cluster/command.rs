//! Runs a program to its end or to a deadline: a test that fails says why, one that hangs does not.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct ToolOutput {
    /// The command line.
    pub command: String,
    /// True for exit code 0.
    pub ok: bool,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl ToolOutput {
    /// Standard output if it succeeded; otherwise an error with the command and everything it printed.
    pub fn success(self) -> Result<String> {
        if self.ok {
            return Ok(self.stdout);
        }
        bail!(
            "{} failed: {}{}",
            self.command,
            self.stderr.trim_end(),
            self.stdout.trim_end()
        )
    }
}

/// Runs `program` with `input` on its standard input, and kills it if it takes longer than `limit`.
pub(super) fn run(
    program: &str,
    args: &[Cow<'_, str>],
    input: Option<&str>,
    limit: Duration,
) -> Result<ToolOutput> {
    let command = format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args.iter().map(|a| a.as_ref()))
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!("starting {program}; `tests/cluster exec` puts it into the path")
        })?;
    // In threads, because a full pipe would block the program.
    let feed = input.zip(child.stdin.take()).map(|(text, mut pipe)| {
        let text = text.to_owned();
        thread::spawn(move || drop(pipe.write_all(text.as_bytes())))
    });
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let ended = wait_until(&mut child, Instant::now() + limit)
        .with_context(|| format!("waiting for {command}"))?;
    if let Some(feed) = feed {
        let _ = feed.join();
    }
    let (stdout, stderr) = (
        stdout.join().unwrap_or_default(),
        stderr.join().unwrap_or_default(),
    );
    match ended {
        Some(ok) => Ok(ToolOutput {
            command,
            ok,
            stdout,
            stderr,
        }),
        None => bail!(
            "{command} did not end within {} s; so far it printed: {stderr}{stdout}",
            limit.as_secs()
        ),
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // Output before an error is worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether it succeeded, or `None` if it was killed at the deadline.
fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // The standard library has no wait with a limit.
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: Option<&str>, limit_ms: u64) -> Result<ToolOutput> {
        run(
            "sh",
            &["-c".into(), script.into()],
            input,
            Duration::from_millis(limit_ms),
        )
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_output_is_kept() {
        // It sleeps longer than any test may take, and begins within the limit on a busy machine too.
        let error = sh("echo half-way; exec sleep 100000", None, 10_000)
            .expect_err("it hangs")
            .to_string();
        assert!(
            error.contains("did not end") && error.contains("half-way"),
            "{error}"
        );
    }

    #[test]
    fn more_output_than_a_pipe_holds_is_read_completely() {
        let input = "x".repeat(1 << 20);
        let output = sh("cat", Some(&input), 30_000).expect("cat runs");
        assert_eq!(output.stdout.len(), input.len());
    }

    #[test]
    fn a_failure_names_the_command_and_its_output() {
        let output = sh("echo because >&2; exit 3", None, 30_000).expect("sh runs");
        let error = output.success().expect_err("exit code 3").to_string();
        assert!(
            error.contains("exit 3") && error.contains("because"),
            "{error}"
        );
    }
}
