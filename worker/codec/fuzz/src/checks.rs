//! What each fuzz target asserts. Each target is one of these; `worker/tests/fuzz_corpus.rs` runs them
//! over the committed corpus with every `cargo test`.

use std::{io::Cursor, sync::atomic::AtomicBool};

use streampress_codec::{
    bytes::put_varint,
    entropy::{self, Codec},
    frame,
    hybrid::{Blocks, Effort, Limits, Options, pack, unpack, unpack_keep_going},
    legacy,
    transform::{self, Transform},
};

/// Any bytes, packed with any effort and block size, come back, in one piece and block by block.
pub fn round_trip(data: &[u8]) {
    let Some((&choice, raw)) = data.split_first() else {
        return;
    };
    let effort = Effort::ALL[usize::from(choice) % 3];
    for transform in Transform::ALL {
        there_and_back(transform, raw, effort);
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
    let mut blocks = Blocks::open(Cursor::new(&packed), &Limits::default()).expect("opens");
    let joined: Vec<u8> = (0..blocks.count())
        .flat_map(|number| blocks.read(number).expect("reads"))
        .collect();
    assert_eq!(joined, raw);
}

/// What a transform takes comes back, also where the block would not be given to it.
pub fn transform(transform: Transform, data: &[u8]) {
    if let Some((&choice, raw)) = data.split_first() {
        there_and_back(transform, raw, Effort::ALL[usize::from(choice) % 3]);
    }
}

fn there_and_back(transform: Transform, raw: &[u8], effort: Effort) {
    if let Some(encoded) = transform::encode(transform, raw, effort) {
        let back = transform::decode(transform, &encoded.payload, raw.len());
        assert_eq!(back.as_deref(), Ok(raw));
        assert!(transform::inspect(transform, &encoded.payload, raw.len()).is_ok());
    }
}

/// Whatever the bytes, unpacking ends with an answer: no panic, no hang, no large allocation.
pub fn hostile_file(data: &[u8]) {
    let limits = Limits {
        block_bytes: 1 << 20,
        total_bytes: 4 << 20,
    };
    let go = AtomicBool::new(false);
    let with_header = [&frame::file_header(4096)[..], data].concat();
    for bytes in [data, &with_header] {
        let _ = unpack(bytes, std::io::sink(), &limits, 1, &go);
        let _ = unpack_keep_going(bytes, std::io::sink(), &limits, 1, &go);
        if let Ok(mut blocks) = Blocks::open(Cursor::new(bytes), &limits) {
            for number in 0..blocks.count().min(8) {
                let _ = blocks.read(number);
            }
        }
    }
}

/// Whatever a payload says of itself, decoding it ends with an answer, and what it restores is no
/// longer than the header allows. Goes past the header's check, which no fuzzer guesses.
pub fn hostile_block(data: &[u8]) {
    let Some((&[choice, params, a, b], payload)) = data.split_first_chunk::<4>() else {
        return;
    };
    let raw_len = usize::from(u16::from_le_bytes([a, b]));
    if let Some(codec) = Codec::from_byte(choice % 5)
        && let Ok(raw) = entropy::decode(codec, params, payload, raw_len)
    {
        assert_eq!(raw.len(), raw_len);
    }
    let transform = Transform::ALL[usize::from(choice / 5) % Transform::ALL.len()];
    if let Ok(raw) = transform::decode(transform, payload, raw_len) {
        assert!(raw.len() <= raw_len);
    }
    // The directory as it stands, so that the fuzzer need not learn a codec to reach the plan.
    let mut stored = vec![0, 0];
    put_varint(&mut stored, payload.len() as u64);
    put_varint(&mut stored, payload.len() as u64);
    stored.extend_from_slice(payload);
    let _ = transform::decode(transform, &stored, raw_len);
    hostile_plan(transform, payload, raw_len);
}

/// The payload as a plan with all its streams stored: past everything but the columns themselves.
/// The first byte says how many streams, the next ones how long they are.
fn hostile_plan(transform: Transform, data: &[u8], raw_len: usize) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let Some((lengths, mut rest)) = rest.split_at_checked(usize::from(count % 24)) else {
        return;
    };
    let streams: Vec<&[u8]> = lengths
        .iter()
        .map(|&length| {
            let (stream, left) = rest.split_at(usize::from(length).min(rest.len()));
            rest = left;
            stream
        })
        .collect();
    let mut directory = Vec::new();
    put_varint(&mut directory, rest.len() as u64);
    directory.extend_from_slice(rest);
    put_varint(&mut directory, streams.len() as u64);
    for stream in &streams {
        directory.extend([0, 0]);
        put_varint(&mut directory, stream.len() as u64);
    }
    put_varint(&mut directory, streams.len() as u64);
    for (number, stream) in streams.iter().enumerate() {
        put_varint(&mut directory, number as u64);
        put_varint(&mut directory, stream.len() as u64);
    }
    let mut payload = vec![0, 0];
    put_varint(&mut payload, directory.len() as u64);
    put_varint(&mut payload, directory.len() as u64);
    payload.extend(directory);
    payload.extend(streams.concat());
    if let Ok(raw) = transform::decode(transform, &payload, raw_len) {
        assert!(raw.len() <= raw_len);
    }
}

/// The seed format: normalising is idempotent, packing comes back, hostile records give an answer.
pub fn seed_format(data: &[u8]) {
    let Some((&choice, raw)) = data.split_first() else {
        return;
    };
    for format in [legacy::Format::Json, legacy::Format::Txt] {
        if let Ok(once) = legacy::normalise(format, raw) {
            assert_eq!(legacy::normalise(format, &once).as_deref(), Ok(&once[..]));
        }
    }
    let _ = legacy::normalise(legacy::Format::Csv, raw);
    let packed = legacy::pack(raw, 64 + 16 * usize::from(choice)).expect("packs");
    assert_eq!(legacy::unpack(&packed, raw.len()).as_deref(), Ok(raw));
    for stages in [legacy::Stages::One, legacy::Stages::Two] {
        let records = raw
            .split(|&byte| byte == choice)
            .map(<[u8]>::to_vec)
            .collect();
        let _ = legacy::unpack(&legacy::Packed { stages, records }, 1 << 20);
    }
}
