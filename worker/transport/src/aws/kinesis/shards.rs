//! Which shards a stream has, and which of them takes a hash. Only a guess that limits the rate of puts: the shard that
//! an answer names is the truth.

use aws_sdk_kinesis::Client;

use crate::TransportResult;
use crate::aws::service_error::transport_error;

/// A shard that takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenShard {
    pub(super) id: String,
    /// First and last hash, both inclusive.
    pub(super) hashes: (u128, u128),
}

impl OpenShard {
    /// A hash in its middle: stays within the shard, or goes to one of its halves after a split.
    pub(super) fn middle(&self) -> u128 {
        self.hashes.0 + (self.hashes.1 - self.hashes.0) / 2
    }
}

/// All shards of a stream that take records, and the ids of those that can be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Shards {
    pub(super) open: Vec<OpenShard>,
    pub(super) readable: Vec<String>,
}

impl Shards {
    /// Lists all pages.
    pub(super) async fn list(client: &Client, stream: &str) -> TransportResult<Self> {
        let mut all = Self::default();
        let mut next: Option<String> = None;
        loop {
            let request = match &next {
                // With a token the name must not be given.
                Some(token) => client.list_shards().next_token(token),
                None => client.list_shards().stream_name(stream),
            };
            let answer = request.send().await.map_err(|error| {
                transport_error(format!("listing the shards of {stream}"), &error)
            })?;
            for shard in answer.shards() {
                all.readable.push(shard.shard_id().to_owned());
                let closed = shard
                    .sequence_number_range()
                    .is_some_and(|range| range.ending_sequence_number().is_some());
                let hashes = shard.hash_key_range().and_then(|range| {
                    Some((
                        range.starting_hash_key().parse().ok()?,
                        range.ending_hash_key().parse().ok()?,
                    ))
                });
                if let (false, Some(hashes)) = (closed, hashes) {
                    all.open.push(OpenShard {
                        id: shard.shard_id().to_owned(),
                        hashes,
                    });
                }
            }
            next = answer.next_token;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// The shard a hash belongs to.
    pub(super) fn of(&self, hash: u128) -> Option<usize> {
        self.open
            .iter()
            .position(|shard| shard.hashes.0 <= hash && hash <= shard.hashes.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_its_shard() {
        let half = u128::MAX / 2;
        let open = vec![
            OpenShard {
                id: "a".into(),
                hashes: (0, half),
            },
            OpenShard {
                id: "b".into(),
                hashes: (half + 1, u128::MAX),
            },
        ];
        let shards = Shards {
            open,
            readable: Vec::new(),
        };
        assert_eq!(
            (
                shards.of(0),
                shards.of(half),
                shards.of(half + 1),
                shards.of(u128::MAX)
            ),
            (Some(0), Some(0), Some(1), Some(1))
        );
        assert!(
            shards
                .open
                .iter()
                .zip(0..)
                .all(|(shard, index)| shards.of(shard.middle()) == Some(index))
        );
    }
}
