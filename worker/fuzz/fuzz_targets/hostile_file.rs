//! Whatever the bytes, unpacking ends with an answer: no panic, no hang, no large allocation.
#![no_main]

use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use streampress::codec::{
    frame,
    hybrid::{Limits, unpack, unpack_keep_going},
};

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        block_bytes: 1 << 20,
        total_bytes: 4 << 20,
    };
    let go = AtomicBool::new(false);
    let with_header = [&frame::file_header(4096)[..], data].concat();
    for bytes in [data, &with_header] {
        let _ = unpack(bytes, std::io::sink(), &limits, 1, &go);
        let _ = unpack_keep_going(bytes, std::io::sink(), &limits, 1, &go);
    }
});
