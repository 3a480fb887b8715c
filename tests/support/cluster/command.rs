//! A program run to its end, but never past a deadline: a test that hangs says nothing, one that fails says why.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// The command as one would type it.
    pub command: String,
    /// True for exit code 0.
    pub ok: bool,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Standard output if it went well; otherwise an error with the command and all that it said.
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

/// Runs `program` with `input` on its standard input, and ends it when it takes longer than `limit`.
pub(super) fn run(
    program: &str,
    args: &[Cow<'_, str>],
    input: Option<&str>,
    limit: Duration,
) -> Result<Output> {
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
    // Threads of their own, because a full pipe would stop the program, and a stopped program never ends.
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
        Some(ok) => Ok(Output {
            command,
            ok,
            stdout,
            stderr,
        }),
        None => bail!(
            "{command} did not end within {} s; so far it said: {stderr}{stdout}",
            limit.as_secs()
        ),
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether it went well, or none if it had to be ended.
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
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: Option<&str>, limit_ms: u64) -> Result<Output> {
        run(
            "sh",
            &["-c".into(), script.into()],
            input,
            Duration::from_millis(limit_ms),
        )
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_its_words_are_kept() {
        let began = Instant::now();
        let error = sh("echo half-way; exec sleep 60", None, 200)
            .expect_err("it hangs")
            .to_string();
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(
            error.contains("did not end") && error.contains("half-way"),
            "{error}"
        );
    }

    #[test]
    fn more_output_than_a_pipe_holds_comes_through_whole() {
        let input = "x".repeat(1 << 20);
        let output = sh("cat", Some(&input), 30_000).expect("cat runs");
        assert_eq!(output.stdout.len(), input.len());
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let output = sh("echo because >&2; exit 3", None, 30_000).expect("sh runs");
        let error = output.success().expect_err("exit code 3").to_string();
        assert!(
            error.contains("exit 3") && error.contains("because"),
            "{error}"
        );
    }
}
