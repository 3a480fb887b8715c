//! Any bytes, packed with any effort and block size, come back.
#![no_main]

use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use streampress::codec::{
    hybrid::{Effort, Limits, Options, pack, unpack},
    transform::{self, Transform},
};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, raw)) = data.split_first() else {
        return;
    };
    let effort = Effort::ALL[usize::from(choice) % 3];
    // Every transform by itself, also where the block would not be given to it.
    for transform in Transform::ALL {
        if let Some(encoded) = transform::encode(transform, raw, effort) {
            let back = transform::decode(transform, &encoded.payload, raw.len());
            assert_eq!(back.as_deref(), Ok(raw));
            assert!(transform::inspect(transform, &encoded.payload, raw.len()).is_ok());
        }
    }
    let options = Options {
        effort,
        block_size: 4096,
        threads: 1,
    };
    let go = AtomicBool::new(false);
    let (mut packed, mut back) = (Vec::new(), Vec::new());
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    pack(raw, sink, &options, &go).expect("packs");
    unpack(&packed[..], &mut back, &Limits::default(), 1, &go).expect("unpacks");
    assert_eq!(back, raw);
});
