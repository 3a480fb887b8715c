//! Fast hashing: fixed for the keys of plans, seeded for the values of the input.

use std::{
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    sync::OnceLock,
};

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Combines a hash with a number.
pub(crate) fn mix(hash: u64, number: u64) -> u64 {
    let product = u128::from(hash ^ FACTOR) * u128::from(number ^ 0xd6e8_feb8_6659_fd93);
    (product as u64 ^ (product >> 64) as u64).wrapping_add(hash.rotate_left(23))
}

/// A hash of some bytes that is as good as unique, unless an input was made to collide.
pub(crate) fn wide_hash(start: u64, bytes: &[u8]) -> u128 {
    let other = mix(start, FACTOR);
    u128::from(hash_from(start, bytes)) << 64 | u128::from(hash_from(other, bytes))
}

/// The hash of some bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    hash_from(bytes.len() as u64, bytes)
}

fn hash_from(mut hash: u64, bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        hash = mix(hash, u64::from_le_bytes(*chunk));
    }
    let mut last = 0u64;
    for &byte in rest {
        last = last << 8 | u64::from(byte);
    }
    mix(hash, last)
}

/// A map state for byte strings of the input, with a seed that the input cannot know.
#[derive(Debug, Clone)]
pub(crate) struct SeededState(u64);

impl Default for SeededState {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        Self(*SEED.get_or_init(|| RandomState::new().hash_one(0)))
    }
}

impl BuildHasher for SeededState {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

/// Hashes with the seed as start value.
#[derive(Debug, Clone)]
pub(crate) struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_from(self.0, bytes);
    }

    fn write_usize(&mut self, number: usize) {
        self.0 = mix(self.0, number as u64);
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = mix(self.0, number.into());
    }
}

/// A map state for keys that are hashes already.
pub(crate) type IdentityState = BuildHasherDefault<IdentityHasher>;

/// Passes the hash of a key on.
#[derive(Debug, Default, Clone)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = mix(self.0, hash_bytes(bytes));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
