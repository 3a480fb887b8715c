//! The Python original's environment variables, with their names and defaults, so that one of its containers can be
//! swapped for ours. Its values are text and it trips over some of them; ours are read for what they mean, and what was
//! read is said.

use std::fmt;

/// Reads a variable; tests hand in a map.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a variable cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("variable {name} is {value:?}: {rule}")]
pub struct BadVariable {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

/// What a `compress_service` or `decompress_service` of the original is told. Secrets are not among it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyWorker {
    /// `STREAM_FILE_BREAK_SIZE_KB`, in bytes.
    pub break_bytes: usize,
    /// `READ_LOCATION`: folder of the source, and what stands before names in messages.
    pub read_location: String,
    /// `RESULT_FILE_NAME`: the report.
    pub result_file_name: String,
    /// `ENABLE_DATA_PUSH`.
    pub push: bool,
    /// `ENABLE_REPORT` and `COMPRESSED_REPORT`.
    pub report: bool,
    /// `SCHEDULAR_TRIGGER_INTERVAL`, in seconds.
    pub interval_seconds: u32,
    /// Where AWS is.
    pub aws: LegacyAws,
}

/// What a `data_generator` of the original is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyGenerator {
    /// `FILE_NAME_PREFIX`.
    pub file_name_prefix: String,
    /// `SCHEMA_REF_NUMBER`: `json_schema_ref/schema_<n>.json` under the data folder.
    pub schema_ref_number: u32,
    /// `MAX_FILE_SIZE`: no file gets larger than so many megabytes, here in bytes.
    pub max_file_bytes: u64,
    /// `READ_LOCATION`, where the compressor will look for them.
    pub read_location: String,
    /// Where AWS is.
    pub aws: LegacyAws,
}

/// Where the original finds AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyAws {
    /// `AWS_ENDPOINT_OVERRIDE`.
    pub endpoint_url: String,
    /// `AWS_REGION`.
    pub region: String,
    /// `STREAM_NAME`.
    pub stream_name: String,
    /// The chunks queue's URL (`SQS_FIFO_QUEUE`; for the generator that variable is the files queue).
    pub chunks_queue_url: String,
    /// The files queue's URL (`FILE_SQS_FIFO_QUEUE`).
    pub files_queue_url: String,
}

const QUEUES: &str = "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000";

/// Reads what a compressor or decompressor is told.
pub fn worker(read: Read<'_>) -> Result<LegacyWorker, BadVariable> {
    let chunks_queue_url = text(
        read,
        "SQS_FIFO_QUEUE",
        &format!("{QUEUES}/aws-stream-compressor-sqs.fifo"),
    );
    let files_queue_url = text(
        read,
        "FILE_SQS_FIFO_QUEUE",
        &format!("{QUEUES}/aws-file-sqs.fifo"),
    );
    let break_kb = number(
        read,
        "STREAM_FILE_BREAK_SIZE_KB",
        400,
        1..=1024,
        "a number of KiB from 1 to 1024",
    )?;
    let interval = number(
        read,
        "SCHEDULAR_TRIGGER_INTERVAL",
        1,
        1..=3600,
        "a number of seconds from 1 to 3600",
    )?;
    Ok(LegacyWorker {
        break_bytes: break_kb as usize * 1024,
        read_location: folder(read)?,
        result_file_name: text(read, "RESULT_FILE_NAME", "reports/results.html"),
        push: flag(read, "ENABLE_DATA_PUSH", false)?,
        report: flag(read, "ENABLE_REPORT", true)? && flag(read, "COMPRESSED_REPORT", true)?,
        interval_seconds: u32::try_from(interval).unwrap_or(1),
        aws: aws(read, chunks_queue_url, files_queue_url),
    })
}

/// Reads what a generator is told.
pub fn generator(read: Read<'_>) -> Result<LegacyGenerator, BadVariable> {
    let files_queue_url = text(
        read,
        "SQS_FIFO_QUEUE",
        &format!("{QUEUES}/aws-file-sqs.fifo"),
    );
    let schema = number(
        read,
        "SCHEMA_REF_NUMBER",
        2,
        0..=9999,
        "a number from 0 to 9999",
    )?;
    Ok(LegacyGenerator {
        file_name_prefix: text(read, "FILE_NAME_PREFIX", "stock_market_data"),
        schema_ref_number: u32::try_from(schema).unwrap_or(2),
        max_file_bytes: number(
            read,
            "MAX_FILE_SIZE",
            25,
            1..=1024,
            "a number of megabytes from 1 to 1024",
        )? * 1_000_000,
        read_location: folder(read)?,
        aws: aws(read, String::new(), files_queue_url),
    })
}

/// Whether any variable of the original's is set that says a container of it was meant.
pub fn is_meant(read: Read<'_>) -> bool {
    [
        "STREAM_FILE_BREAK_SIZE_KB",
        "READ_LOCATION",
        "STREAM_NAME",
        "SQS_FIFO_QUEUE",
        "FILE_SQS_FIFO_QUEUE",
        "FILE_NAME_PREFIX",
        "SCHEMA_REF_NUMBER",
        "ENABLE_DATA_PUSH",
    ]
    .iter()
    .any(|name| read(name).is_some())
}

fn aws(read: Read<'_>, chunks_queue_url: String, files_queue_url: String) -> LegacyAws {
    LegacyAws {
        endpoint_url: text(read, "AWS_ENDPOINT_OVERRIDE", "http://localhost:4566"),
        region: text(read, "AWS_REGION", "us-east-1"),
        stream_name: text(read, "STREAM_NAME", "aws-stream-compressor-kinesis-service"),
        chunks_queue_url,
        files_queue_url,
    }
}

fn folder(read: Read<'_>) -> Result<String, BadVariable> {
    let value = text(read, "READ_LOCATION", "test_location");
    let plain = value.trim_end_matches('/');
    if plain.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(BadVariable {
            name: "READ_LOCATION",
            value,
            rule: "a folder below the data folder, without '..'",
        });
    }
    Ok(plain.to_owned())
}

fn text(read: Read<'_>, name: &str, default: &str) -> String {
    read(name)
        .filter(|value| !value.trim().is_empty())
        .unwrap_or_else(|| default.to_owned())
}

/// As the original means it: True, False, 1, 0, in any case.
fn flag(read: Read<'_>, name: &'static str, default: bool) -> Result<bool, BadVariable> {
    let Some(value) = read(name) else {
        return Ok(default);
    };
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        "" => Ok(default),
        _ => Err(BadVariable {
            name,
            value,
            rule: "True, False, 1 or 0, in any case",
        }),
    }
}

fn number(
    read: Read<'_>,
    name: &'static str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
    rule: &'static str,
) -> Result<u64, BadVariable> {
    let Some(value) = read(name).filter(|value| !value.trim().is_empty()) else {
        return Ok(default);
    };
    match value.trim().parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(BadVariable { name, value, rule }),
    }
}

impl fmt::Display for LegacyWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            break_bytes,
            read_location,
            result_file_name,
            push,
            report,
            interval_seconds,
            ..
        } = self;
        write!(
            f,
            "break size {} KiB, read location {read_location}, push {push}, report {report} to {result_file_name}, every {interval_seconds} s",
            break_bytes / 1024
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn with_nothing_set_the_originals_defaults_hold() {
        let read = worker(&of(&[])).expect("defaults are good");
        assert_eq!(
            (
                read.break_bytes,
                read.push,
                read.report,
                read.interval_seconds
            ),
            (409_600, false, true, 1)
        );
        assert_eq!(read.read_location, "test_location");
        assert!(
            read.aws
                .chunks_queue_url
                .ends_with("/aws-stream-compressor-sqs.fifo")
        );
        let made = generator(&of(&[])).expect("defaults are good");
        assert_eq!(
            (made.schema_ref_number, made.max_file_bytes),
            (2, 25_000_000)
        );
        assert_eq!(made.file_name_prefix, "stock_market_data");
    }

    #[test]
    fn flags_mean_what_they_say_in_any_case() {
        for (value, meant) in [
            ("False", false),
            ("false", false),
            ("0", false),
            ("TRUE", true),
            ("1", true),
        ] {
            let read = worker(&of(&[("ENABLE_DATA_PUSH", value)])).expect("a flag");
            assert_eq!(read.push, meant, "{value}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_named_with_its_rule() {
        for (name, value) in [
            ("STREAM_FILE_BREAK_SIZE_KB", "0"),
            ("STREAM_FILE_BREAK_SIZE_KB", "4e2"),
            ("ENABLE_DATA_PUSH", "maybe"),
            ("READ_LOCATION", "../etc"),
        ] {
            let error = worker(&of(&[(name, value)]))
                .expect_err("refused")
                .to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
