//! The checks of the fuzz targets, one function for each. The workspace's `tests/fuzz` runs them on the
//! committed corpus.

use std::{io::Cursor, sync::atomic::AtomicBool};

use streampress_codec::{
    Codec, FormatVersion, Transform,
    hybrid::{Blocks, CodecOptions, Effort, Limits, Packer, unpack, unpack_keep_going},
    internals::{
        decode_stream, decode_table, encode_table, file_header, inspect_table, put_varint,
    },
    legacy,
};

/// Any bytes round-trip at any effort, as a whole and block by block.
pub fn round_trip(data: &[u8]) {
    let Some((&choice, raw)) = data.split_first() else {
        return;
    };
    let effort = Effort::ALL[usize::from(choice) % 3];
    for transform in Transform::ALL {
        table_round_trip(transform, raw, effort);
    }
    let options = CodecOptions {
        effort,
        block_size: 4096,
        threads: 1,
    };
    for version in [FormatVersion::V1, FormatVersion::V2] {
        file_round_trip(raw, Packer::new(options).with_version(version));
    }
}

fn file_round_trip(raw: &[u8], packer: Packer<'_>) {
    let cancel = AtomicBool::new(false);
    let (mut packed, mut back) = (Vec::new(), Vec::new());
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    packer.pack(raw, sink, &cancel).expect("packs");
    unpack(&packed[..], &mut back, &Limits::default(), 1, &cancel).expect("unpacks");
    assert_eq!(back, raw);
    let mut blocks = Blocks::open(Cursor::new(&packed), &Limits::default()).expect("opens");
    let joined: Vec<u8> = (0..blocks.count())
        .flat_map(|number| blocks.read(number).expect("reads"))
        .collect();
    assert_eq!(joined, raw);
}

/// Any text that the transform accepts round-trips, also if the block encoder would not choose it.
pub fn transform(transform: Transform, data: &[u8]) {
    if let Some((&choice, raw)) = data.split_first() {
        table_round_trip(transform, raw, Effort::ALL[usize::from(choice) % 3]);
    }
}

fn table_round_trip(transform: Transform, raw: &[u8], effort: Effort) {
    for version in [FormatVersion::V1, FormatVersion::V2] {
        if let Some(encoded) = encode_table(transform, raw, effort, version) {
            let back = decode_table(transform, version, &encoded.payload, raw.len());
            assert_eq!(back.as_deref(), Ok(raw));
            assert!(inspect_table(transform, version, &encoded.payload, raw.len()).is_ok());
        }
    }
}

/// Any bytes are unpacked or refused: no panic, no hang, no large allocation.
pub fn hostile_file(data: &[u8]) {
    let limits = Limits {
        block_bytes: 1 << 20,
        total_bytes: 4 << 20,
        ..Limits::default()
    };
    let cancel = AtomicBool::new(false);
    let with_header = [&file_header(4096)[..], data].concat();
    let with_compact_header = [b"\x89SPK\x02", data].concat();
    for bytes in [data, &with_header, &with_compact_header] {
        let _ = unpack(bytes, std::io::sink(), &limits, 1, &cancel);
        let _ = unpack_keep_going(bytes, std::io::sink(), &limits, 1, &cancel);
        if let Ok(mut blocks) = Blocks::open(Cursor::new(bytes), &limits) {
            for number in 0..blocks.count().min(8) {
                let _ = blocks.read(number);
            }
        }
    }
}

/// Any payload is decoded or refused, and restores no more than the header allows. The check of the
/// header, which no fuzzer can guess, is bypassed.
pub fn hostile_block(data: &[u8]) {
    let Some((&[choice, params, a, b], payload)) = data.split_first_chunk::<4>() else {
        return;
    };
    let raw_len = usize::from(u16::from_le_bytes([a, b]));
    for version in [FormatVersion::V1, FormatVersion::V2] {
        if let Some(codec) = Codec::from_byte(choice % 5)
            && let Ok(raw) = decode_stream(codec, params, payload, raw_len, version)
        {
            assert_eq!(raw.len(), raw_len);
        }
    }
    let transform = Transform::ALL[usize::from(choice / 5) % Transform::ALL.len()];
    for version in [FormatVersion::V1, FormatVersion::V2] {
        if let Ok(raw) = decode_table(transform, version, payload, raw_len) {
            assert!(raw.len() <= raw_len);
        }
    }
    // A stored directory, so that the fuzzer reaches the plan without a codec.
    let mut stored = vec![0, 0];
    put_varint(&mut stored, payload.len() as u64);
    put_varint(&mut stored, payload.len() as u64);
    stored.extend_from_slice(payload);
    let _ = decode_table(transform, FormatVersion::V1, &stored, raw_len);
    let mut compact = vec![0];
    put_varint(&mut compact, payload.len() as u64);
    compact.extend_from_slice(payload);
    let _ = decode_table(transform, FormatVersion::V2, &compact, raw_len);
    hostile_plan(transform, payload, raw_len);
}

/// The payload as a plan with stored streams, which reaches the column decoders directly. The first byte
/// is the number of streams, the next bytes are their lengths.
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
    let payload = stored_payload(rest, &streams);
    hostile_compact_plan(transform, rest, &streams, raw_len);
    if let Ok(raw) = decode_table(transform, FormatVersion::V1, &payload, raw_len) {
        assert!(raw.len() <= raw_len);
    }
}

/// The payload of a block of version 1 with this plan, whose directory and streams are stored.
pub fn stored_payload(plan: &[u8], streams: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let lens = || streams.iter().map(|stream| stream.as_ref().len() as u64);
    let mut directory = Vec::new();
    put_varint(&mut directory, plan.len() as u64);
    directory.extend_from_slice(plan);
    put_varint(&mut directory, streams.len() as u64);
    for len in lens() {
        directory.extend([0, 0]);
        put_varint(&mut directory, len);
    }
    put_varint(&mut directory, streams.len() as u64);
    for (number, len) in lens().enumerate() {
        put_varint(&mut directory, number as u64);
        put_varint(&mut directory, len);
    }
    let mut payload = vec![0, 0];
    put_varint(&mut payload, directory.len() as u64);
    put_varint(&mut payload, directory.len() as u64);
    payload.extend(directory);
    for stream in streams {
        payload.extend_from_slice(stream.as_ref());
    }
    payload
}

/// The legacy format: normalising is idempotent, packing round-trips, hostile records are refused.
pub fn legacy_format(data: &[u8]) {
    let Some((&choice, raw)) = data.split_first() else {
        return;
    };
    for format in [legacy::LegacyFormat::Json, legacy::LegacyFormat::Txt] {
        if let Ok(once) = legacy::normalise(format, raw) {
            assert_eq!(legacy::normalise(format, &once).as_deref(), Ok(&once[..]));
        }
    }
    let _ = legacy::normalise(legacy::LegacyFormat::Csv, raw);
    let packed = legacy::pack(raw, 64 + 16 * usize::from(choice)).expect("packs");
    assert_eq!(legacy::unpack(&packed, raw.len()).as_deref(), Ok(raw));
    for stages in [legacy::StageCount::One, legacy::StageCount::Two] {
        let records = raw
            .split(|&byte| byte == choice)
            .map(<[u8]>::to_vec)
            .collect();
        let _ = legacy::unpack(&legacy::PackedRecords { stages, records }, 1 << 20);
    }
}

/// As [`hostile_plan`] with a compact directory, whose shared groups are the first streams.
fn hostile_compact_plan(transform: Transform, plan: &[u8], streams: &[&[u8]], raw_len: usize) {
    let kinds = streams.len().min(7);
    let mut directory = vec![(1u8 << kinds) - 1];
    for stream in &streams[..kinds] {
        directory.push(0);
        put_varint(&mut directory, stream.len() as u64);
    }
    directory.push(0);
    directory.extend_from_slice(plan);
    let mut payload = vec![0];
    put_varint(&mut payload, directory.len() as u64);
    payload.extend(directory);
    payload.extend(streams[..kinds].concat());
    if let Ok(raw) = decode_table(transform, FormatVersion::V2, &payload, raw_len) {
        assert!(raw.len() <= raw_len);
    }
}
