//! A stream of records in simulated time: shards that can be resharded, retention that can be changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::process::SimProcess;
use super::world::{SimService, World};
use crate::{
    ChunkStream, Position, Record, ScannedRecord, Sequence, StreamCounts, StreamScan,
    TransportError, TransportResult,
};

/// The largest record, as Kinesis has it.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// A stream as the service has it. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct SimStreams {
    service: SimService,
    state: Arc<Mutex<StreamState>>,
}

#[derive(Debug)]
struct StreamState {
    retention: Duration,
    shards: Vec<String>,
    next_shard: u64,
    next_sequence: u64,
    records: BTreeMap<(String, Sequence), SimRecord>,
    appended: u64,
    appended_bytes: u64,
    /// How often it was made.
    incarnation: u64,
}

#[derive(Debug)]
struct SimRecord {
    data: Bytes,
    at: Instant,
}

impl SimStreams {
    /// An empty stream.
    pub fn new(world: &World, name: &str, shards: u64, retention: Duration) -> Self {
        let mut state = StreamState {
            retention,
            shards: Vec::new(),
            next_shard: 0,
            next_sequence: 1,
            records: BTreeMap::new(),
            appended: 0,
            appended_bytes: 0,
            incarnation: 1,
        };
        state.reshard(shards);
        Self {
            service: SimService::new(world, name),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The stream as a process sees it.
    pub fn open(&self, process: &SimProcess) -> SimStream {
        SimStream {
            stream: self.clone(),
            process: process.clone(),
            counts: Mutex::default(),
        }
    }

    /// Its faults.
    pub fn service(&self) -> &SimService {
        &self.service
    }

    /// How long records are kept.
    pub fn retention(&self) -> Duration {
        self.state.lock().retention
    }

    /// Changes how long records are kept, those of before too.
    pub fn set_retention(&self, retention: Duration) {
        self.state.lock().retention = retention;
    }

    /// From now on records go to other shards; those of before can still be read.
    pub fn reshard(&self, shards: u64) {
        self.state.lock().reshard(shards);
    }

    /// Deletes the stream and makes it anew, under the same name: its records are gone.
    pub fn remake(&self) {
        let mut state = self.state.lock();
        state.records.clear();
        state.incarnation += 1;
    }

    /// Records appended so far, by whatever attempt.
    pub fn appended(&self) -> u64 {
        self.state.lock().appended
    }

    /// Their bytes.
    pub fn appended_bytes(&self) -> u64 {
        self.state.lock().appended_bytes
    }
}

impl StreamState {
    fn reshard(&mut self, shards: u64) {
        let first = self.next_shard;
        self.next_shard += shards.max(1);
        let name = |number| format!("shardId-{number:012}");
        self.shards = (first..self.next_shard).map(name).collect();
    }

    fn append(&mut self, record: &Record) -> Position {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.appended += 1;
        self.appended_bytes += record.data.len() as u64;
        let spread = match record.key.is_empty() {
            true => sequence,
            false => u64::from(blake3::hash(record.key.as_bytes()).as_bytes()[0]),
        };
        let index = spread % self.shards.len().max(1) as u64;
        let shard = usize::try_from(index)
            .ok()
            .and_then(|at| self.shards.get(at));
        let position = Position {
            shard: shard.cloned().unwrap_or_default(),
            sequence: sequence.into(),
            bytes: u32::try_from(record.data.len()).unwrap_or(u32::MAX),
        };
        let stored = SimRecord {
            data: record.data.clone(),
            at: Instant::now(),
        };
        let key = (position.shard.clone(), position.sequence.clone());
        self.records.insert(key, stored);
        position
    }

    /// All records that are not too old.
    fn readable(&self) -> Vec<ScannedRecord> {
        let kept = self
            .records
            .iter()
            .filter(|(_, stored)| stored.at.elapsed() < self.retention);
        kept.map(|((shard, sequence), stored)| ScannedRecord {
            position: Position {
                shard: shard.clone(),
                sequence: sequence.clone(),
                bytes: u32::try_from(stored.data.len()).unwrap_or(u32::MAX),
            },
            data: Some(stored.data.clone()),
        })
        .collect()
    }

    fn read(&self, position: &Position) -> TransportResult<Bytes> {
        let key = (position.shard.clone(), position.sequence.clone());
        match self.records.get(&key) {
            None => Err(TransportError::Missing(position.clone())),
            Some(stored) if stored.at.elapsed() >= self.retention => {
                Err(TransportError::Expired(position.clone()))
            }
            Some(stored) => Ok(stored.data.clone()),
        }
    }
}

/// A stream as one process sees it.
#[derive(Debug)]
pub struct SimStream {
    stream: SimStreams,
    process: SimProcess,
    counts: Mutex<StreamCounts>,
}

#[async_trait]
impl ChunkStream for SimStream {
    fn max_record_bytes(&self) -> usize {
        MAX_RECORD_BYTES
    }

    async fn append(&self, records: Vec<Record>) -> TransportResult<Vec<Position>> {
        if let Some(large) = records.iter().find(|it| it.data.len() > MAX_RECORD_BYTES) {
            return Err(TransportError::Invalid(format!(
                "a record has {} bytes; {MAX_RECORD_BYTES} fit",
                large.data.len()
            )));
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let count = records.len() as u64;
        self.counts.lock().sent += count;
        let append = || {
            let mut state = self.stream.state.lock();
            Ok(records.iter().map(|record| state.append(record)).collect())
        };
        let service = &self.stream.service;
        let answer = service.call(&self.process, "appending to", append).await;
        let mut counts = self.counts.lock();
        match answer {
            Ok(_) => counts.acknowledged += count,
            Err(_) => counts.dead += count,
        }
        answer
    }

    async fn fetch(&self, positions: &[Position]) -> TransportResult<Vec<Bytes>> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let read = || {
            let state = self.stream.state.lock();
            positions.iter().map(|at| state.read(at)).collect()
        };
        let service = &self.stream.service;
        let records: Vec<Bytes> = service.call(&self.process, "reading from", read).await?;
        let bytes: u64 = records.iter().map(|record| record.len() as u64).sum();
        let mut counts = self.counts.lock();
        counts.reads += 1;
        counts.bytes_read += bytes;
        counts.bytes_served += bytes;
        Ok(records)
    }

    fn scan(&self) -> StreamScan {
        let (stream, process) = (self.stream.clone(), self.process.clone());
        let reading = async move {
            let read = || Ok(stream.state.lock().readable());
            stream.service.call(&process, "reading from", read).await
        };
        stream::once(reading).boxed()
    }

    async fn incarnation(&self) -> TransportResult<String> {
        let tell = || Ok(self.stream.state.lock().incarnation.to_string());
        let service = &self.stream.service;
        service.call(&self.process, "describing", tell).await
    }

    fn counts(&self) -> StreamCounts {
        *self.counts.lock()
    }
}
