//! The symbols of a bzip2 block: move-to-front positions with run lengths of zero in base two.

use super::{MAX_RUN_COUNT, RUN_LEN};

/// The digits of the length of a run of zeros, as bijective numbers of base two.
pub(super) const RUN_A: u16 = 0;
pub(super) const RUN_B: u16 = 1;

/// A block as symbols.
pub(super) struct Symbols {
    /// Whether each byte value occurs in the block.
    pub(super) used: [bool; 256],
    /// The symbols with the end symbol.
    pub(super) list: Vec<u16>,
    /// The number of symbols in the alphabet: two digits, positions from 1, the end symbol.
    pub(super) alphabet: usize,
}

/// Encodes the bytes of a sorted block.
pub(super) fn symbols(last_bytes: &[u8]) -> Symbols {
    let mut used = [false; 256];
    for &byte in last_bytes {
        used[usize::from(byte)] = true;
    }
    let mut recent: Vec<u8> = (0..=255u8)
        .filter(|&byte| used[usize::from(byte)])
        .collect();
    let mut list = Vec::with_capacity(last_bytes.len() / 2 + 16);
    let mut zeros = 0usize;
    for &byte in last_bytes {
        let front = recent[0];
        if front == byte {
            zeros += 1;
            continue;
        }
        put_zeros(&mut list, zeros);
        zeros = 0;
        // The bytes before the wanted one move back by one place while it is searched.
        let mut position = 0;
        let mut carried = front;
        loop {
            position += 1;
            std::mem::swap(&mut carried, &mut recent[position]);
            if carried == byte {
                break;
            }
        }
        recent[0] = byte;
        list.push(position as u16 + 1);
    }
    put_zeros(&mut list, zeros);
    let alphabet = recent.len() + 2;
    list.push(alphabet as u16 - 1);
    Symbols {
        used,
        list,
        alphabet,
    }
}

fn put_zeros(list: &mut Vec<u16>, mut zeros: usize) {
    while zeros > 0 {
        list.push(if zeros & 1 == 1 { RUN_A } else { RUN_B });
        zeros = (zeros - 1) >> 1;
    }
}

/// Appends raw bytes with runs of four and more shortened, up to `limit` bytes, and returns how many
/// raw bytes were taken.
pub(super) fn shorten_runs(raw: &[u8], limit: usize, block: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while at < raw.len() {
        let byte = raw[at];
        let most = raw.len().min(at + RUN_LEN + MAX_RUN_COUNT);
        let mut end = at + 1;
        while end < most && raw[end] == byte {
            end += 1;
        }
        let run = end - at;
        let needed = if run >= RUN_LEN { RUN_LEN + 1 } else { run };
        if block.len() + needed > limit {
            break;
        }
        block.extend(std::iter::repeat_n(byte, run.min(RUN_LEN)));
        if run >= RUN_LEN {
            block.push((run - RUN_LEN) as u8);
        }
        at = end;
    }
    at
}
