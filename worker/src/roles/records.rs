//! Reads the records of a packed file: exactly those that its manifest names, in batches, each checked.

use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::consume::HandlerError;
use crate::message::record::{RecordError, RecordOwner};
use crate::message::{BundlePlace, DeadLetterReason, Digest, FileRef, Manifest, Records};
use crate::runtime::{self, blocking};
use crate::telemetry::metrics::Meter;
use streampress_codec::{CodecError, hybrid};
use streampress_transport::{ChunkStream, FileName, Position};

/// Records are fetched in batches of about this many bytes.
const BATCH_BYTES: u64 = 4 << 20;
/// And of no more than this many, in case a manifest says that they are smaller than they are.
const BATCH_RECORDS: usize = 64;
/// What a record is taken to have whose position does not say it, which none of ours does.
const UNKNOWN_BYTES: u64 = BATCH_BYTES;
/// The longest list of records in bytes; 64 MiB name some 800,000 records, at 400 KiB each 300 GiB packed.
const LONGEST_LIST_BYTES: u64 = 64 << 20;
/// A packed bundle is at most so many bytes larger than the bundle.
const PACKED_OVERHEAD_BYTES: u64 = 1 << 10;
/// Payloads that wait to be unpacked.
pub(crate) const WAITING_PAYLOADS: usize = 16;

/// The positions of the file's records, from the message or from the list that the message names.
pub(crate) async fn positions(
    stream: &dyn ChunkStream,
    manifest: &Manifest,
    owner: &RecordOwner,
) -> Result<Vec<Position>, HandlerError> {
    let list = match &manifest.records {
        Records::Inline(positions) => return Ok(positions.clone()),
        Records::Indirect(list) => list,
    };
    let too_long = || {
        HandlerError::permanent(
            DeadLetterReason::UnreadableMessage,
            "the list of records is longer than 64 MiB",
        )
    };
    let list_bytes: u64 = list.iter().map(|at| u64::from(at.bytes)).sum();
    if list_bytes > LONGEST_LIST_BYTES {
        return Err(too_long());
    }
    let (mut json, mut index) = (Vec::new(), 0);
    let mut rest = list.as_slice();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_len(rest));
        rest = after;
        for record in stream.fetch(batch).await? {
            json.extend_from_slice(&open(owner, index, &record)?);
            index += 1;
        }
        // Positions may say that their records are smaller than they are.
        if json.len() as u64 > LONGEST_LIST_BYTES {
            return Err(too_long());
        }
    }
    serde_json::from_slice(&json).map_err(|error| {
        let detail = format!("the list of records: {error}");
        HandlerError::permanent(DeadLetterReason::RecordDamaged, detail)
    })
}

/// Fetches the records in batches and sends their payloads. Ends early without an error when the receiver is gone: then
/// unpacking ended and has the error.
pub(crate) async fn fetch_all(
    stream: &dyn ChunkStream,
    owner: &RecordOwner,
    positions: Vec<Position>,
    payloads: mpsc::Sender<Bytes>,
    meter: &Meter,
) -> Result<(), HandlerError> {
    let mut index = 0;
    let mut rest = positions.as_slice();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_len(rest));
        rest = after;
        for record in stream.fetch(batch).await? {
            meter.moved();
            let payload = open(owner, index, &record)?;
            index += 1;
            if payloads.send(payload).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether the records that the manifest names hold the file: reads and unpacks all of them, and writes nothing.
pub(crate) async fn verify(
    stream: &dyn ChunkStream,
    manifest: &Manifest,
) -> Result<(), HandlerError> {
    let file = &manifest.file;
    if let Some(place) = &manifest.bundle {
        let fetched = fetch_bundle(stream, manifest, place, &Meter::default()).await?;
        let (name, of_bundle) = (file.name.clone(), place.clone());
        let bundle = blocking(move || unpack_bundle(&name, &of_bundle, &fetched)).await?;
        return bundled_content(file, &bundle, place).map(drop);
    }
    let owner = manifest.record_owner();
    let positions = positions(stream, manifest, &owner).await?;
    let (payloads, fetched) = mpsc::channel(WAITING_PAYLOADS);
    let bytes = file.bytes;
    let unpacking = blocking(move || {
        let reader = PayloadReader::new(fetched);
        let (limits, never) = (
            limits_of(bytes, hybrid::Limits::default()),
            AtomicBool::new(false),
        );
        hybrid::unpack(reader, &mut io::sink(), &limits, 1, &never)
    });
    let meter = Meter::default();
    let is_short = positions.len() <= WAITING_PAYLOADS;
    let fetching = fetch_all(stream, &owner, positions, payloads, &meter);
    // What fits the channel is fetched before it takes a thread, so that no thread waits for the stream.
    let (fetched, unpacked) = match is_short {
        true => (fetching.await, unpacking.await),
        false => tokio::join!(fetching, unpacking),
    };
    fetched?;
    let summary = unpacked.map_err(|error| unpack_error(file, error))?;
    check_content(file, &summary)
}

/// The packed bundle. No more bytes than one of its size can have.
pub(crate) async fn fetch_bundle(
    stream: &dyn ChunkStream,
    manifest: &Manifest,
    place: &BundlePlace,
    meter: &Meter,
) -> Result<Vec<u8>, HandlerError> {
    let owner = place.record_owner();
    let positions = positions(stream, manifest, &owner).await?;
    let most_bytes = place.bytes.saturating_add(PACKED_OVERHEAD_BYTES);
    let (payloads, mut received) = mpsc::channel::<Bytes>(1);
    let collecting = async move {
        let mut packed = Vec::new();
        // Dropping the receiver ends fetching.
        while let Some(payload) = received.recv().await {
            packed.extend_from_slice(&payload);
            if packed.len() as u64 > most_bytes {
                break;
            }
        }
        packed
    };
    let fetching = fetch_all(stream, &owner, positions, payloads, meter);
    let (fetched, packed) = tokio::join!(fetching, collecting);
    fetched?;
    if packed.len() as u64 > most_bytes {
        let name = &manifest.file.name;
        let detail = format!("{name}: its bundle is larger than the manifest says");
        let reason = DeadLetterReason::RecordDamaged;
        return Err(HandlerError::permanent(reason, detail));
    }
    Ok(packed)
}

/// Unpacks the bundle of the file `name`.
pub(crate) fn unpack_bundle(
    name: &FileName,
    place: &BundlePlace,
    packed: &[u8],
) -> Result<Bytes, HandlerError> {
    let limits = limits_of(place.bytes, hybrid::Limits::default());
    let mut content = Vec::new();
    let unpacked = hybrid::unpack(packed, &mut content, &limits, 1, &AtomicBool::new(false));
    unpacked.map_err(|error| damage(name, error))?;
    if content.len() as u64 == place.bytes {
        return Ok(content.into());
    }
    let detail = format!(
        "{name}: its bundle has {} bytes and not {}, as the manifest says",
        content.len(),
        place.bytes
    );
    let reason = DeadLetterReason::BadFrame;
    Err(HandlerError::permanent(reason, detail))
}

/// The file's two parts in its unpacked bundle, if they are what was announced.
pub(crate) fn bundled_content<'b>(
    file: &FileRef,
    bundle: &'b [u8],
    place: &BundlePlace,
) -> Result<[&'b [u8]; 2], HandlerError> {
    let parts = place.parts(bundle, file.bytes);
    let is_right = |parts: &[&[u8]; 2]| {
        let mut hasher = blake3::Hasher::new();
        parts.iter().for_each(|part| {
            hasher.update(part);
        });
        Digest::from(hasher.finalize()) == file.hash
    };
    parts.filter(is_right).ok_or_else(|| other_content(file))
}

/// Refuses content that is not what was announced.
pub(crate) fn check_content(file: &FileRef, summary: &hybrid::Summary) -> Result<(), HandlerError> {
    if summary.raw_bytes == file.bytes && Digest::from(summary.hash) == file.hash {
        return Ok(());
    }
    Err(other_content(file))
}

fn other_content(file: &FileRef) -> HandlerError {
    let detail = format!(
        "{} has another hash after unpacking than it was announced with; nothing was written; redrive announces the source again",
        file.name
    );
    HandlerError::permanent(DeadLetterReason::HashMismatch, detail)
}

/// No more bytes are written than were announced, whatever the records unpack to.
pub(crate) fn limits_of(bytes: u64, limits: hybrid::Limits) -> hybrid::Limits {
    hybrid::Limits {
        total_bytes: limits.total_bytes.min(bytes),
        ..limits
    }
}

/// Why the file's records could not be unpacked within [`limits_of`] it.
pub(crate) fn unpack_error(file: &FileRef, error: CodecError) -> HandlerError {
    match error {
        CodecError::TooLarge { limit, .. } if limit == file.bytes => other_content(file),
        error => damage(&file.name, error),
    }
}

fn damage(name: &FileName, error: CodecError) -> HandlerError {
    match error {
        CodecError::Cancelled => HandlerError::Interrupted,
        // A worker of a newer release can read it.
        error @ CodecError::Version { .. } => {
            HandlerError::Newer(anyhow::Error::new(error).context(format!("unpacking {name}")))
        }
        error => HandlerError::permanent(DeadLetterReason::BadFrame, format!("{name}: {error:#}")),
    }
}

/// How many of the next records are fetched in one call; at least one.
fn batch_len(positions: &[Position]) -> usize {
    let mut bytes = 0;
    let fits = positions.iter().take_while(|position| {
        bytes += match position.bytes {
            0 => UNKNOWN_BYTES,
            known => u64::from(known),
        };
        bytes <= BATCH_BYTES
    });
    fits.count().clamp(1, BATCH_RECORDS)
}

fn open(owner: &RecordOwner, index: u32, record: &Bytes) -> Result<Bytes, HandlerError> {
    owner.open(index, record).map_err(|error| match error {
        // A worker of a newer release can read it.
        RecordError::Newer { .. } => HandlerError::Newer(anyhow::Error::new(error)),
        error => HandlerError::permanent(DeadLetterReason::RecordDamaged, error),
    })
}

/// Reads payloads as one stream of bytes, on a blocking thread; ends when the fetching side is done or failed.
pub(crate) struct PayloadReader {
    payloads: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl PayloadReader {
    pub(crate) fn new(payloads: mpsc::Receiver<Bytes>) -> Self {
        Self {
            payloads,
            current: Bytes::new(),
        }
    }
}

impl Read for PayloadReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match runtime::wait_blocking(self.payloads.recv()) {
                Some(payload) => self.current = payload,
                None => return Ok(0),
            }
        }
        let bytes = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use streampress_transport::{Record, StreamCounts, TransportError, TransportResult};

    use super::*;

    fn position(bytes: u32) -> Position {
        Position {
            shard: "0".into(),
            sequence: 1.into(),
            bytes,
        }
    }

    /// Answers every position with a record of a list, and notes how many were fetched at once.
    #[derive(Debug)]
    struct ListStream {
        owner: RecordOwner,
        payload: Vec<u8>,
        fetched: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl ChunkStream for ListStream {
        fn max_record_bytes(&self) -> usize {
            1 << 20
        }
        async fn append(&self, _: Vec<Record>) -> TransportResult<Vec<Position>> {
            Err(TransportError::Stale)
        }
        async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
            let mut fetched = self.fetched.lock();
            let first = fetched.iter().sum::<usize>();
            fetched.push(positions.len());
            let indices = (first..first + positions.len()).map(|i| u32::try_from(i).expect("few"));
            Ok(indices
                .map(|index| self.owner.seal(index, &self.payload))
                .collect())
        }
        fn counts(&self) -> StreamCounts {
            StreamCounts::default()
        }
    }

    /// Why a list of `count` records of `payload_bytes` bytes, of which the message says `said_bytes`, cannot be used; and
    /// what was fetched of it.
    async fn list_error(
        count: usize,
        said_bytes: u32,
        payload_bytes: usize,
    ) -> (DeadLetterReason, Vec<usize>) {
        let file = FileRef::with_content("a.txt", b"1");
        let manifest = Manifest {
            version: crate::message::VERSION,
            file: file.clone(),
            file_version: None,
            observed: None,
            repeats: 0,
            attempt: "attempt".into(),
            records: Records::Indirect(vec![position(said_bytes); count]),
            bundle: None,
            packed_bytes: 1,
            effort: None,
            stages: Vec::new(),
            shares: Vec::new(),
            announced_millis: 0,
            compressed_millis: 0,
            traceparent: None,
        };
        let owner = manifest.record_owner();
        let stream = ListStream {
            owner: owner.clone(),
            payload: vec![b' '; payload_bytes],
            fetched: Mutex::default(),
        };
        match positions(&stream, &manifest, &owner).await {
            Err(HandlerError::Permanent(failure)) => (failure.reason, stream.fetched.into_inner()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_list_of_records_is_fetched_in_batches_and_no_longer_than_a_list_may_be() {
        let (reason, fetched) = list_error(600, 100, 100).await;
        assert_eq!(
            reason,
            DeadLetterReason::RecordDamaged,
            "spaces are no list"
        );
        assert_eq!(fetched.iter().sum::<usize>(), 600);
        assert!(
            fetched.iter().all(|batch| *batch <= BATCH_RECORDS),
            "{fetched:?}"
        );
        // Its positions say that it is short.
        let (reason, fetched) = list_error(600, 1, 1 << 20).await;
        assert_eq!(reason, DeadLetterReason::UnreadableMessage);
        assert_eq!(fetched, [BATCH_RECORDS, BATCH_RECORDS]);
    }

    #[test]
    fn records_are_fetched_in_batches_of_bounded_bytes_and_number() {
        for (bytes, count, batch) in [
            (1 << 20, 9, 4),
            (5 << 20, 3, 1),
            (1, 100, BATCH_RECORDS),
            (0, 100, 1),
            (u32::MAX, 2, 1),
        ] {
            assert_eq!(batch_len(&vec![position(bytes); count]), batch, "{bytes}");
        }
    }
}
