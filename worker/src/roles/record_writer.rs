//! Cuts packed bytes into records and appends them to the stream.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::consume::HandlerError;
use crate::message::record::{PLAIN_HEADER_BYTES, RecordHead, RecordOwner};
use crate::message::trace_context::TraceContext;
use crate::message::{DescribedContent, Records};
use crate::runtime;
use crate::telemetry::metrics::Meter;
use streampress_transport::{ChunkStream, Position, Record};

/// A larger list of records goes to the stream, and the message names the list's records: SQS takes 1 MiB, less the
/// attributes, and some services in between still have the older limit of 256 KiB.
const LARGEST_LIST_BYTES: usize = 200 * 1024;
/// Records are put to the stream in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// A part of what is packed.
#[derive(Debug)]
pub(crate) enum PackedPart {
    /// Bytes after those before.
    Frame(Bytes),
    /// Nothing follows, and all of it is what was announced.
    End,
}

/// Writes records of one size to a stream.
#[derive(Debug, Clone)]
pub(crate) struct RecordWriter {
    /// Where records go.
    pub(crate) stream: Arc<dyn ChunkStream>,
    /// Largest record with its header, in bytes.
    pub(crate) record_bytes: usize,
}

impl RecordWriter {
    /// Appends what comes, in batches; returns the positions once all records are durable. The first record also carries
    /// `trace` and `content`; the last says that it is the last. `None` where the parts stop without an end: no record is then
    /// the last, so that nothing takes them for a whole file.
    pub(crate) async fn append(
        &self,
        mut packed: mpsc::Receiver<PackedPart>,
        owner: &RecordOwner,
        (trace, content): (Option<TraceContext>, &DescribedContent),
        meter: &Meter,
    ) -> Result<Option<Vec<Position>>, HandlerError> {
        let (mut positions, mut waiting, mut index) = (Vec::new(), BytesMut::new(), 0u32);
        let mut head = self.first_head(trace, content);
        loop {
            let Some(part) = packed.recv().await else {
                return Ok(None);
            };
            meter.moved();
            let ended = match part {
                PackedPart::Frame(bytes) => {
                    waiting.extend_from_slice(&bytes);
                    false
                }
                PackedPart::End => true,
            };
            if waiting.len() < BATCH_BYTES && !ended {
                continue;
            }
            let mut records = Vec::new();
            // Of what may end there something is kept back, so that the last record is known.
            while waiting.len() > self.payload_bytes(head.bytes()) || (ended && !waiting.is_empty())
            {
                let bytes = self.payload_bytes(head.bytes()).min(waiting.len());
                let payload = waiting.split_to(bytes);
                head.is_last = ended && waiting.is_empty();
                records.push(record(owner.seal_packed(index, &payload, &head)));
                head = head.following();
                index += 1;
            }
            if !records.is_empty() {
                positions.extend(self.stream.append(records).await?);
            }
            if ended {
                return Ok(Some(positions));
            }
        }
    }

    /// As [`Self::append`], of bytes that are all there.
    pub(crate) async fn append_all(
        &self,
        packed: Vec<u8>,
        owner: &RecordOwner,
        first: (Option<TraceContext>, &DescribedContent),
        meter: &Meter,
    ) -> Result<Vec<Position>, HandlerError> {
        let (parts, received) = mpsc::channel(2);
        let appending = self.append(received, owner, first, meter);
        let sending = async move {
            // The receiver is gone only after an error, which it returns.
            let _ = parts.send(PackedPart::Frame(Bytes::from(packed))).await;
            let _ = parts.send(PackedPart::End).await;
        };
        Ok(tokio::join!(appending, sending).0?.unwrap_or_default())
    }

    /// The records as a manifest names them. Their list goes to the stream itself when it is too long for a message.
    pub(crate) async fn list(
        &self,
        positions: Vec<Position>,
        owner: &RecordOwner,
    ) -> Result<Records, HandlerError> {
        let json = serde_json::to_vec(&positions)
            .map_err(|error| HandlerError::transient(error, "writing the list of records"))?;
        if json.len() <= LARGEST_LIST_BYTES {
            return Ok(Records::Inline(positions));
        }
        let records = json
            .chunks(self.payload_bytes(PLAIN_HEADER_BYTES))
            .zip(0u32..)
            .map(|(part, index)| record(owner.seal(index, part)))
            .collect();
        Ok(Records::Indirect(self.stream.append(records).await?))
    }

    /// The head of a file's first record. A description for which the record is too small is left out: such a file can be
    /// restored, and not be recovered.
    fn first_head(&self, trace: Option<TraceContext>, content: &DescribedContent) -> RecordHead {
        let description = Some(Bytes::from(content.to_bytes()));
        let fits = |it: &Bytes| it.len() <= self.largest_record() / 2;
        RecordHead {
            // Of a random number, any part is one.
            packing: (runtime::random_u64() >> 32) as u32,
            is_last: false,
            trace,
            description: description.filter(fits),
        }
    }

    /// What fits a record beside its header.
    fn payload_bytes(&self, header_bytes: usize) -> usize {
        self.largest_record().saturating_sub(header_bytes).max(1)
    }

    fn largest_record(&self) -> usize {
        self.record_bytes.min(self.stream.max_record_bytes())
    }
}

/// A record for any shard.
fn record(data: Bytes) -> Record {
    Record {
        key: String::new(),
        data,
    }
}
