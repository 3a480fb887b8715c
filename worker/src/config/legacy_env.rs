//! The Python original's environment variables, with their names and defaults, so that ours can replace one of its
//! containers. The original takes some values literally (`"False"` is true); ours are read by their meaning, and the
//! command prints what was read.

use std::fmt;

/// Reads a variable; tests pass a map.
pub(crate) type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a variable cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("variable {name} is {value:?}: {rule}")]
pub(crate) struct BadVariable {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) value: String,
    /// What it must be.
    pub(crate) rule: &'static str,
}

/// The settings of a `compress_service` or `decompress_service` of the original, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LegacyWorker {
    /// `STREAM_FILE_BREAK_SIZE_KB`, in bytes.
    pub(crate) break_bytes: usize,
    /// `READ_LOCATION`: folder of the source, and the folder before names in messages.
    pub(crate) read_location: String,
    /// `RESULT_FILE_NAME`: the report.
    pub(crate) result_file_name: String,
    /// `ENABLE_DATA_PUSH`.
    pub(crate) push: bool,
    /// `ENABLE_REPORT` and `COMPRESSED_REPORT`.
    pub(crate) report: bool,
    /// `SCHEDULAR_TRIGGER_INTERVAL`, in seconds.
    pub(crate) interval_seconds: u32,
    /// `STREAM_NAME`.
    pub(crate) stream_name: String,
    /// `FILE_SQS_FIFO_QUEUE`: the files queue's URL.
    pub(crate) files_queue_url: String,
    /// `SQS_FIFO_QUEUE`: the chunks queue's URL.
    pub(crate) chunks_queue_url: String,
    /// Where AWS is.
    pub(crate) aws: LegacyAws,
}

/// The settings of a `data_generator` of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LegacyGenerator {
    /// `FILE_NAME_PREFIX`.
    pub(crate) file_name_prefix: String,
    /// `SCHEMA_REF_NUMBER`: `json_schema_ref/schema_<n>.json` under the data folder.
    pub(crate) schema_ref_number: u32,
    /// `MAX_FILE_SIZE`: no file gets larger than so many megabytes, here in bytes.
    pub(crate) max_file_bytes: u64,
    /// `SQS_FIFO_QUEUE`: for the generator, this is the files queue's URL.
    pub(crate) files_queue_url: String,
}

/// Where the original finds AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LegacyAws {
    /// `AWS_ENDPOINT_OVERRIDE`.
    pub(crate) endpoint_url: String,
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub(crate) region: String,
}

const QUEUES: &str = "http://sqs.us-east-1.localhost.localstack.cloud:4566/000000000000";

const FILES_QUEUE: &str = "aws-file-sqs.fifo";
const CHUNKS_QUEUE: &str = "aws-stream-compressor-sqs.fifo";

/// Reads the variables of a compressor or decompressor.
pub(crate) fn worker(read: Read<'_>) -> Result<LegacyWorker, BadVariable> {
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
        stream_name: text(read, "STREAM_NAME", "aws-stream-compressor-kinesis-service"),
        files_queue_url: queue(read, "FILE_SQS_FIFO_QUEUE", FILES_QUEUE),
        chunks_queue_url: queue(read, "SQS_FIFO_QUEUE", CHUNKS_QUEUE),
        aws: LegacyAws {
            endpoint_url: text(read, "AWS_ENDPOINT_OVERRIDE", "http://localhost:4566"),
            region: text(
                read,
                "AWS_REGION",
                &text(read, "AWS_DEFAULT_REGION", "us-east-1"),
            ),
        },
    })
}

/// Reads the variables of a generator.
pub(crate) fn generator(read: Read<'_>) -> Result<LegacyGenerator, BadVariable> {
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
        files_queue_url: queue(read, "SQS_FIFO_QUEUE", FILES_QUEUE),
    })
}

fn queue(read: Read<'_>, variable: &str, default: &str) -> String {
    text(read, variable, &format!("{QUEUES}/{default}"))
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

/// True, False, 1 or 0, in any case.
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
    fn with_no_variable_set_the_originals_defaults_hold() {
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
        assert!(read.chunks_queue_url.ends_with(CHUNKS_QUEUE));
        assert!(read.files_queue_url.ends_with(FILES_QUEUE));
        let made = generator(&of(&[])).expect("defaults are good");
        assert_eq!(
            (made.schema_ref_number, made.max_file_bytes),
            (2, 25_000_000)
        );
        assert_eq!(made.file_name_prefix, "stock_market_data");
        assert_eq!(made.files_queue_url, read.files_queue_url);
    }

    #[test]
    fn flags_are_read_in_any_case() {
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
    fn an_invalid_value_is_named_with_its_rule() {
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
