//! The Burrows-Wheeler transform of bzip2, which sorts the rotations of a block.

use libsais::{SuffixArrayConstruction, context::Context, typestate::SingleThreaded};

thread_local! {
    /// The suffix array library keeps its tables here between calls.
    static CONTEXT: std::cell::RefCell<Context<u8, i32, SingleThreaded>> =
        std::cell::RefCell::new(Context::new_single_threaded());
}

/// A transformed block.
pub(super) struct SortedBlock {
    /// The last byte of every rotation, in the order of the rotations.
    pub(super) last_bytes: Vec<u8>,
    /// The position of the block itself among the rotations.
    pub(super) origin: u32,
}

/// Transforms a block of at least one byte. `None` if the suffix array library fails.
pub(super) fn sort_rotations(block: &[u8]) -> Option<SortedBlock> {
    let len = block.len();
    // The suffixes of the least rotation have the same order as its rotations, so that a suffix
    // array of the block itself is enough. Only the rotations of a repeated part are equal to each
    // other, and their order has no effect.
    let start = least_rotation(block);
    let rotated: Vec<u8> = [&block[start..], &block[..start]].concat();
    let mut order = vec![0i32; len];
    CONTEXT.with_borrow_mut(|context| {
        SuffixArrayConstruction::for_text(&rotated)
            .in_borrowed_buffer(&mut order)
            .single_threaded()
            .with_context(context)
            .run()
            .ok()
            .map(drop)
    })?;
    let itself = ((len - start) % len) as i32;
    let mut origin = 0;
    let last_bytes = order
        .iter()
        .enumerate()
        .map(|(position, &rotation)| {
            if rotation == itself {
                origin = position as u32;
            }
            let before = if rotation == 0 {
                len
            } else {
                rotation as usize
            } - 1;
            rotated[before]
        })
        .collect();
    Some(SortedBlock { last_bytes, origin })
}

/// The start of the least rotation, in linear time: two candidates advance, and each mismatch
/// excludes all starts that one of them has passed.
fn least_rotation(block: &[u8]) -> usize {
    let len = block.len();
    let at = |index: usize| block[if index >= len { index - len } else { index }];
    let (mut first, mut second, mut equal) = (0, 1, 0);
    while first < len && second < len && equal < len {
        let (a, b) = (at(first + equal), at(second + equal));
        match a.cmp(&b) {
            std::cmp::Ordering::Equal => equal += 1,
            std::cmp::Ordering::Greater => {
                first += equal + 1;
                first += usize::from(first == second);
                equal = 0;
            }
            std::cmp::Ordering::Less => {
                second += equal + 1;
                second += usize::from(first == second);
                equal = 0;
            }
        }
    }
    first.min(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: &[u8]) {
        let len = block.len();
        let rotation = |start: usize| [&block[start..], &block[..start]].concat();
        let mut rotations: Vec<Vec<u8>> = (0..len).map(rotation).collect();
        rotations.sort();
        let expected: Vec<u8> = rotations.iter().map(|rotation| rotation[len - 1]).collect();
        let sorted = sort_rotations(block).expect("sorts");
        assert_eq!(sorted.last_bytes, expected, "{block:?}");
        assert_eq!(rotations[sorted.origin as usize], block);
    }

    #[test]
    fn rotations_are_sorted_also_if_they_repeat() {
        for text in [
            &b"a"[..],
            b"ab",
            b"ba",
            b"aaaa",
            b"abab",
            b"banana",
            b"nanaba",
            b"\0\xff\0",
        ] {
            check(text);
            check(&text.repeat(7));
        }
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..500 {
            let letters = rng.u8(1..4);
            let len = rng.usize(1..40);
            let block: Vec<u8> = (0..len).map(|_| rng.u8(0..letters)).collect();
            check(&block);
        }
    }
}
