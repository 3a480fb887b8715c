//! Whatever a payload says of itself, decoding it ends with an answer, and what it restores is no
//! longer than the header allows. Goes past the header's check, which no fuzzer guesses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streampress::codec::{
    entropy::{self, Codec},
    transform::{self, Transform},
};

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, params, a, b], payload)) = data.split_first_chunk::<4>() else {
        return;
    };
    let raw_len = usize::from(u16::from_le_bytes([a, b]));
    if let Some(codec) = Codec::from_byte(choice % 5) {
        if let Ok(raw) = entropy::decode(codec, params, payload, raw_len) {
            assert_eq!(raw.len(), raw_len);
        }
    }
    let transform = Transform::ALL[usize::from(choice / 5) % Transform::ALL.len()];
    if let Ok(raw) = transform::decode(transform, payload, raw_len) {
        assert!(raw.len() <= raw_len);
    }
    // The directory as it stands, so that the fuzzer need not learn a codec to reach the plan.
    let mut stored = vec![0, 0];
    streampress::codec::bytes::put_varint(&mut stored, payload.len() as u64);
    streampress::codec::bytes::put_varint(&mut stored, payload.len() as u64);
    stored.extend_from_slice(payload);
    let _ = transform::decode(transform, &stored, raw_len);
});
