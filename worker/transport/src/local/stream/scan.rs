//! Reads all segments of a folder from their first record on, without a position.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures::stream::{self, StreamExt};

use super::segment::{self, read_on};
use super::{MAX_RECORD_BYTES, SUFFIX, is_of_earlier_database, path_of, session_of};
use crate::local::session::begun_at;
use crate::{Position, ScannedRecord, Sequence, StreamScan, TransportError, TransportResult};

/// Records are read in pages of about this many bytes.
const PAGE_BYTES: usize = 4 << 20;

/// Which segments are read.
#[derive(Clone, Copy)]
pub(super) enum ScannedSegments {
    All,
    /// Those that were appended to after this time, also where their files' times were set back.
    AppendedAfter(SystemTime),
    /// Those that were written before the database of this epoch was made.
    OfEarlierDatabases(u64),
}

/// Reads segments of `folder`, those of the process that began first before others.
pub(super) fn scan(folder: &Path, wanted: ScannedSegments) -> StreamScan {
    let reader = SegmentsReader {
        folder: folder.to_owned(),
        wanted,
        segments: None,
        current: None,
    };
    stream::try_unfold(reader, |mut reader| async move {
        let reading = tokio::task::spawn_blocking(move || {
            let page = reader.page();
            (page, reader)
        });
        let (page, reader) = reading
            .await
            .map_err(|error| TransportError::unavailable("reading the stream", error))?;
        Ok(page?.map(|page| (page, reader)))
    })
    .boxed()
}

struct SegmentsReader {
    folder: PathBuf,
    wanted: ScannedSegments,
    /// What is still to be read, the last first; `None` until it is listed.
    segments: Option<Vec<String>>,
    current: Option<OpenSegment>,
}

struct OpenSegment {
    shard: String,
    file: File,
    file_bytes: u64,
    offset: u64,
}

impl SegmentsReader {
    /// The next records; `None` after the last.
    fn page(&mut self) -> TransportResult<Option<Vec<ScannedRecord>>> {
        let mut page = Vec::new();
        let mut bytes = 0;
        while bytes < PAGE_BYTES {
            let Some(segment) = &mut self.current else {
                self.current = match self.next_segment()? {
                    Some(next) => Some(next),
                    None => break,
                };
                continue;
            };
            match segment.next().map_err(|error| fault(&self.folder, error))? {
                Some(record) => {
                    let data = record.data.as_ref().map_or(0, bytes::Bytes::len);
                    bytes += data + segment::FRAME_BYTES;
                    page.push(record);
                }
                None => self.current = None,
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }

    fn next_segment(&mut self) -> TransportResult<Option<OpenSegment>> {
        let segments = match &mut self.segments {
            Some(segments) => segments,
            none => {
                let listed =
                    list(&self.folder, self.wanted).map_err(|error| fault(&self.folder, error))?;
                none.insert(listed)
            }
        };
        while let Some(shard) = segments.pop() {
            let opened = File::open(path_of(&self.folder, &shard));
            match opened.and_then(|file| Ok((file.metadata()?.len(), file))) {
                Ok((file_bytes, file)) => {
                    return Ok(Some(OpenSegment {
                        shard,
                        file,
                        file_bytes,
                        offset: 0,
                    }));
                }
                // Its age ended since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fault(&self.folder, error)),
            }
        }
        Ok(None)
    }
}

impl OpenSegment {
    /// The next record, or what is damaged before it.
    fn next(&mut self) -> io::Result<Option<ScannedRecord>> {
        let begin = self.offset.max(segment::FIRST_OFFSET);
        let Some((data, end)) = read_on(&self.file, self.file_bytes, &self.shard, self.offset)?
        else {
            return self.rest(begin);
        };
        let data = data.filter(|data| data.len() <= MAX_RECORD_BYTES);
        let Some(data) = data else {
            self.offset = end;
            return Ok(Some(self.damaged(begin, end)));
        };
        let record = end - (segment::FRAME_BYTES + data.len()) as u64;
        if record > begin {
            self.offset = record;
            return Ok(Some(self.damaged(begin, record)));
        }
        self.offset = end;
        let position = self.position(record, data.len() as u64);
        let data = Some(data);
        Ok(Some(ScannedRecord { position, data }))
    }

    /// What no record follows: the end, more that was written since the file was opened, or an end that is damaged.
    fn rest(&mut self, begin: u64) -> io::Result<Option<ScannedRecord>> {
        let file_bytes = self.file.metadata()?.len();
        if begin >= file_bytes {
            return Ok(None);
        }
        if file_bytes > self.file_bytes {
            self.file_bytes = file_bytes;
            return self.next();
        }
        self.offset = file_bytes;
        Ok(Some(self.damaged(begin, file_bytes)))
    }

    fn damaged(&self, begin: u64, end: u64) -> ScannedRecord {
        ScannedRecord {
            position: self.position(begin, end - begin),
            data: None,
        }
    }

    fn position(&self, begin: u64, bytes: u64) -> Position {
        Position {
            shard: self.shard.clone(),
            sequence: Sequence::from(begin),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
}

/// The segments that were appended to `since`, the last first.
fn list(folder: &Path, wanted: ScannedSegments) -> io::Result<Vec<String>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let appended = || entry.metadata().and_then(|meta| meta.modified());
        let name = entry.file_name();
        let shard = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(shard) = shard
            && let Some(session) = session_of(shard)
            && match wanted {
                ScannedSegments::All => true,
                ScannedSegments::AppendedAfter(since) => {
                    begun_at(session).is_some_and(|begun| begun > since)
                        || appended().is_ok_and(|it| it > since)
                }
                ScannedSegments::OfEarlierDatabases(epoch) => is_of_earlier_database(shard, epoch),
            }
        {
            let number = super::number_of(shard);
            segments.push((begun_at(session), number, shard.to_owned()));
        }
    }
    segments.sort();
    Ok(segments
        .into_iter()
        .rev()
        .map(|(_, _, shard)| shard)
        .collect())
}

fn fault(folder: &Path, error: io::Error) -> TransportError {
    TransportError::unavailable(format!("reading the stream in {}", folder.display()), error)
}
