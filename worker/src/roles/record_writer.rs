//! Cuts packed bytes into records and appends them to the stream.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::consume::HandlerError;
use crate::message::Records;
use crate::message::record::{RecordOwner, header_bytes};
use crate::message::trace_context::TraceContext;
use crate::telemetry::metrics::Meter;
use streampress_transport::{ChunkStream, Position, Record};

/// A larger list of records goes to the stream, and the message names the list's records: SQS takes 1 MiB, less the
/// attributes, and some services in between still have the older limit of 256 KiB.
const LARGEST_LIST_BYTES: usize = 200 * 1024;
/// Records are put to the stream in batches of about this many bytes.
const BATCH_BYTES: usize = 4 << 20;

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
    /// `trace`.
    pub(crate) async fn append(
        &self,
        mut packed: mpsc::Receiver<Bytes>,
        owner: &RecordOwner,
        mut trace: Option<TraceContext>,
        meter: &Meter,
    ) -> Result<Vec<Position>, HandlerError> {
        let (mut positions, mut waiting, mut index) = (Vec::new(), BytesMut::new(), 0u32);
        loop {
            let frame = packed.recv().await;
            let ended = frame.is_none();
            meter.moved();
            waiting.extend_from_slice(&frame.unwrap_or_default());
            if waiting.len() < BATCH_BYTES && !ended {
                continue;
            }
            let mut records = Vec::new();
            while waiting.len() >= self.payload_bytes(trace) || (ended && !waiting.is_empty()) {
                let payload = waiting.split_to(self.payload_bytes(trace).min(waiting.len()));
                records.push(record(owner.seal(index, &payload, trace.take())));
                index += 1;
            }
            if !records.is_empty() {
                positions.extend(self.stream.append(records).await?);
            }
            if ended {
                return Ok(positions);
            }
        }
    }

    /// As [`Self::append`], of bytes that are all there.
    pub(crate) async fn append_all(
        &self,
        packed: Vec<u8>,
        owner: &RecordOwner,
        trace: Option<TraceContext>,
        meter: &Meter,
    ) -> Result<Vec<Position>, HandlerError> {
        let (frames, received) = mpsc::channel(1);
        let appending = self.append(received, owner, trace, meter);
        let sending = async move {
            // The receiver is gone only after an error, which it returns.
            let _ = frames.send(Bytes::from(packed)).await;
        };
        tokio::join!(appending, sending).0
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
            .chunks(self.payload_bytes(None))
            .zip(0u32..)
            .map(|(part, index)| record(owner.seal(index, part, None)))
            .collect();
        Ok(Records::Indirect(self.stream.append(records).await?))
    }

    /// What fits a record beside its header.
    fn payload_bytes(&self, trace: Option<TraceContext>) -> usize {
        self.record_bytes
            .min(self.stream.max_record_bytes())
            .saturating_sub(header_bytes(trace))
            .max(1)
    }
}

/// A record for any shard.
fn record(data: Bytes) -> Record {
    Record {
        key: String::new(),
        data,
    }
}
