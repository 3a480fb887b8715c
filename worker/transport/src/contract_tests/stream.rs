//! The contract of [`ChunkStream`](crate::ChunkStream).
#![expect(clippy::unwrap_used, reason = "checks end by panicking")]

use bytes::Bytes;
use futures::TryStreamExt;

use super::Implementation;
use crate::{Position, Record, ScannedRecord, Sequence, TransportError};

/// Everything that a stream promises.
pub async fn all(implementation: &dyn Implementation) {
    futures::join!(
        records_come_back_in_any_order_requested(implementation),
        many_appends_at_once_keep_apart(implementation),
        the_largest_record_fits_and_a_larger_is_refused(implementation),
        what_was_never_written_is_missing(implementation),
        nothing_in_is_nothing_out(implementation),
        every_record_is_found_without_its_position(implementation),
    );
}

/// A record of `bytes` bytes that no other seed makes.
pub fn record(seed: u64, bytes: usize) -> Record {
    let mut data = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    Record {
        key: format!("key-{seed}"),
        data: data.into(),
    }
}

fn data(records: &[Record]) -> Vec<Bytes> {
    records.iter().map(|r| r.data.clone()).collect()
}

/// Positions are index-aligned, and so are fetched records.
pub async fn records_come_back_in_any_order_requested(implementation: &dyn Implementation) {
    let stream = implementation.stream().await;
    let sizes = [1, 7, 400 * 1024, 1000, 65_536, 2];
    let records: Vec<Record> = (0u64..)
        .zip(sizes)
        .map(|(seed, n)| record(seed, n))
        .collect();
    let mut positions = stream.append(records.clone()).await.unwrap();
    let lengths: Vec<usize> = positions.iter().map(|p| p.bytes as usize).collect();
    assert_eq!(lengths, sizes);
    assert!(stream.fetch(&positions).await.unwrap() == data(&records));
    positions.reverse();
    let mut backwards = data(&records);
    backwards.reverse();
    assert!(stream.fetch(&positions).await.unwrap() == backwards);
    let twice = [positions[0].clone(), positions[0].clone()];
    let same = [backwards[0].clone(), backwards[0].clone()];
    assert!(stream.fetch(&twice).await.unwrap() == same);
}

/// Each caller gets its own bytes.
pub async fn many_appends_at_once_keep_apart(implementation: &dyn Implementation) {
    let stream = implementation.stream().await;
    let appends = (0..20u64).map(|seed| {
        let stream = &stream;
        async move {
            let records = vec![record(seed, 5000), record(seed + 1000, 300)];
            let positions = stream.append(records.clone()).await.unwrap();
            (records, positions)
        }
    });
    for (records, positions) in futures::future::join_all(appends).await {
        assert!(stream.fetch(&positions).await.unwrap() == data(&records));
    }
}

/// The limit is the one it names.
pub async fn the_largest_record_fits_and_a_larger_is_refused(implementation: &dyn Implementation) {
    let stream = implementation.stream().await;
    let most = stream.max_record_bytes();
    let largest = vec![record(1, most)];
    let positions = stream.append(largest.clone()).await.unwrap();
    assert!(stream.fetch(&positions).await.unwrap() == data(&largest));
    let refused = stream.append(vec![record(2, most + 1)]).await;
    assert!(
        matches!(refused, Err(TransportError::Invalid(_))),
        "{refused:?}"
    );
}

/// Neither another record's bytes nor a piece of one.
pub async fn what_was_never_written_is_missing(implementation: &dyn Implementation) {
    let stream = implementation.stream().await;
    let records = vec![record(1, 5000), record(2, 5000)];
    let written = stream.append(records).await.unwrap();
    let after = format!("{}9", written[1].sequence.as_str());
    let beyond = Position {
        sequence: Sequence::parse(&after).unwrap(),
        ..written[1].clone()
    };
    let elsewhere = Position {
        shard: "nowhere".into(),
        ..written[0].clone()
    };
    for never in [beyond, elsewhere] {
        let outcome = stream.fetch(&[written[0].clone(), never]).await;
        assert!(
            matches!(
                outcome,
                Err(TransportError::Missing(_) | TransportError::Expired(_))
            ),
            "{outcome:?}"
        );
    }
}

/// Without an error.
pub async fn nothing_in_is_nothing_out(implementation: &dyn Implementation) {
    let stream = implementation.stream().await;
    assert!(stream.append(Vec::new()).await.unwrap().is_empty());
    assert!(stream.fetch(&[]).await.unwrap().is_empty());
}

/// With the position that it was appended at, and those of a shard in their order.
pub async fn every_record_is_found_without_its_position(implementation: &dyn Implementation) {
    let stream = implementation.stream().await;
    let sizes = [1, 300 * 1024, 70, 65_536, 0];
    let records: Vec<Record> = (0u64..)
        .zip(sizes.into_iter().cycle().take(40))
        .map(|(seed, n)| record(100 + seed, n + 8))
        .collect();
    let positions = stream.append(records.clone()).await.unwrap();
    let pages: Vec<_> = stream.scan().try_collect().await.unwrap();
    let found = pages.concat();
    for (position, record) in positions.iter().zip(&records) {
        let at = found.iter().find(|found| found.position == *position);
        assert!(
            at.is_some_and(|at| at.data.as_ref() == Some(&record.data)),
            "{position}"
        );
    }
    let mut last = std::collections::HashMap::new();
    for ScannedRecord { position, .. } in found {
        let before = last.insert(position.shard.clone(), position.sequence.clone());
        assert!(before.is_none_or(|before| before < position.sequence));
    }
}
