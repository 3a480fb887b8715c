//! The matches of short streams: for each place the nearest one of each length.

use super::model::{MAX_MATCH, MIN_MATCH};

/// A match as long as this is taken without looking for a better one.
pub(super) const GOOD_MATCH: usize = 96;
/// So many earlier places are compared.
const MAX_COMPARED: usize = 128;
const HASH_BITS: u32 = 14;
/// No place.
const NONE: u32 = u32::MAX;

/// A length and a distance, which counts from 0.
pub(super) type Match = (usize, u32);

/// Places by hashes of their first bytes.
#[derive(Debug, Clone)]
pub(super) struct MatchFinder {
    /// The last place of two bytes.
    pairs: Vec<u32>,
    /// The last place of three bytes, and for each place the one before.
    triples: Vec<u32>,
    before: Vec<u32>,
}

impl MatchFinder {
    /// Finds matches in the places of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut finder = Self {
            pairs: vec![NONE; 1 << HASH_BITS],
            triples: vec![NONE; 1 << HASH_BITS],
            before: Vec::with_capacity(bytes.len()),
        };
        (0..bytes.len()).for_each(|at| {
            finder.add(bytes, at);
        });
        finder
    }

    /// Adds the place `at` without looking for its matches.
    pub(super) fn skip(&mut self, bytes: &[u8], at: usize) {
        self.add(bytes, at);
    }

    /// Adds a place, and returns the ones before of two and three equal bytes.
    fn add(&mut self, bytes: &[u8], at: usize) -> [u32; 2] {
        let Some(&[first, second, ref rest @ ..]) = bytes.get(at..) else {
            self.before.push(NONE);
            return [NONE; 2];
        };
        let pair = u32::from(first) << 8 | u32::from(second);
        let nearest = std::mem::replace(&mut self.pairs[slot(pair)], at as u32);
        let place = rest.first().map_or(NONE, |&third| {
            let triple = pair << 8 | u32::from(third);
            std::mem::replace(&mut self.triples[slot(triple)], at as u32)
        });
        self.before.push(place);
        [nearest, place]
    }

    /// Adds the place `at`, and appends its matches, the shortest first.
    pub(super) fn find(&mut self, bytes: &[u8], at: usize, found: &mut Vec<Match>) {
        let [nearest, mut place] = self.add(bytes, at);
        let mut longest = MIN_MATCH - 1;
        let mut compare = |place: u32| {
            // Only a longer match is of use: its last byte decides first.
            if bytes.get(place as usize + longest) != bytes.get(at + longest) {
                return true;
            }
            let len = common(bytes, place as usize, at);
            if len > longest {
                longest = len;
                found.push((len, (at - place as usize - 1) as u32));
            }
            longest < GOOD_MATCH
        };
        if nearest != NONE && !compare(nearest) {
            return;
        }
        for _ in 0..MAX_COMPARED {
            if place == NONE || !compare(place) {
                return;
            }
            place = self.before[place as usize];
        }
    }
}

/// The number of equal bytes at two places, at most those of the longest match.
pub(super) fn common(bytes: &[u8], place: usize, at: usize) -> usize {
    let (here, there) = (&bytes[at..], &bytes[place..]);
    let here = &here[..here.len().min(MAX_MATCH)];
    let (mut eights, rest) = here.as_chunks::<8>();
    let mut len = 0;
    while let ([first, others @ ..], Some(other)) = (eights, there[len..].first_chunk()) {
        let unequal = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*other);
        if unequal != 0 {
            return len + unequal.trailing_zeros() as usize / 8;
        }
        (eights, len) = (others, len + 8);
    }
    let equal = rest.iter().zip(&there[len..]).take_while(|(a, b)| a == b);
    len + equal.count()
}

fn slot(bytes: u32) -> usize {
    (bytes.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}
