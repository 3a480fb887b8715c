//! The files that a source's journal consists of: JSON lines in the reserved folder, after a first line with their version.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use streampress_transport::{FileName, FileVersion, Files, PendingFile, ReservedEntry};

use super::{SourceRecord, SourceState};

/// The version of the files' form. Version 1 had no receipts, versions and values.
const VERSION: u32 = 2;

/// The first line of every file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    version: u32,
    /// In the merged file: the number of the first file that it does not contain.
    #[serde(default)]
    pub(super) next: u64,
}

impl Head {
    pub(super) fn new(next: u64) -> Self {
        Self {
            version: VERSION,
            next,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line {
    /// The newest announcement of its name.
    Put(SourceRecord),
    /// The name's announcement was sent, as this version where the queue told it.
    Sent {
        name: String,
        announcement: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<FileVersion>,
    },
    /// What became of the name's announcement.
    Receipt {
        name: String,
        announcement: String,
        state: SourceState,
        /// As the announcement observed the file; nothing from earlier releases.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
    },
    /// The name's file is no longer at the source.
    Forget { name: String },
    /// A small value under a key.
    Value { key: String, value: String },
}

impl Line {
    pub(super) fn sent(record: &SourceRecord) -> Self {
        Self::Sent {
            name: record.name.clone(),
            announcement: record.announcement.clone(),
            version: record.version.clone(),
        }
    }
}

/// The name of a file of the journal.
pub(super) fn name(base: &str) -> io::Result<FileName> {
    ReservedEntry::Sources.file(base)
}

/// The file's lines; `None` when there is none.
pub(super) fn read(files: &dyn Files, name: &FileName) -> io::Result<Option<(Head, Vec<Line>)>> {
    let mut bytes = Vec::new();
    match files.read(name) {
        Ok(mut reader) => reader.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8(bytes).map_err(|error| damaged(name, &error))?;
    parse(&text, name).map(Some)
}

fn damaged(name: &FileName, error: &dyn std::error::Error) -> io::Error {
    let why = format!(
        "{name} at the source is damaged: {error}; remove the folder {} there, and every file is announced again",
        ReservedEntry::Sources.path()
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn parse(text: &str, name: &FileName) -> io::Result<(Head, Vec<Line>)> {
    let damaged = |error: serde_json::Error| damaged(name, &error);
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(damaged)?;
    if head.version > VERSION {
        let why = format!("{name} was written by a newer streampress; use that version");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let lines = lines.map(serde_json::from_str).collect::<Result<_, _>>();
    Ok((head, lines.map_err(damaged)?))
}

/// Writes a file that is not visible yet.
pub(super) fn write(
    files: &dyn Files,
    name: &FileName,
    head: &Head,
    lines: &[Line],
) -> io::Result<Box<dyn PendingFile>> {
    let mut pending = files.create(name)?;
    let mut text = serde_json::to_vec(head)?;
    for line in lines {
        // One write for a line.
        text.push(b'\n');
        serde_json::to_writer(&mut text, line)?;
        pending.write_all(&text)?;
        text.clear();
    }
    pending.write_all(&text)?;
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use streampress_transport::contract_tests::{fuzz, kind_of_error};

    use super::*;

    #[test]
    fn any_file_of_the_journal_is_read_or_refused() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/journal");
        let name = name("merged").expect("a name");
        fuzz(&corpus, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return "no text".into();
            };
            match parse(text, &name) {
                Ok((_, lines)) => check_written_as_read(&lines),
                Err(error) => kind_of_error(&error.to_string()),
            }
        });
    }

    fn check_written_as_read(lines: &[Line]) -> String {
        for line in lines {
            let written = serde_json::to_string(line).expect("JSON");
            let read: Line = serde_json::from_str(&written).expect("read as written");
            assert_eq!(&read, line);
        }
        format!("{} lines", lines.len().min(20))
    }
}
