//! Whole hybrid files: any bytes round-trip, damage is named, memory and order are bounded.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    io::{self, Cursor, Read},
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use streampress_codec::{
    CodecError, FormatVersion,
    hybrid::{self, Blocks, CodecOptions, Effort, Limits, Packer, Summary},
};

static RUN: AtomicBool = AtomicBool::new(false);

fn options(effort: Effort, block_size: usize, threads: usize) -> CodecOptions {
    CodecOptions {
        effort,
        block_size,
        threads,
    }
}

fn pack(raw: &[u8], options: CodecOptions) -> (Vec<u8>, Summary) {
    let mut packed = Vec::new();
    let summary = hybrid::pack(
        raw,
        |frame| {
            packed.extend_from_slice(frame);
            Ok(())
        },
        &options,
        &RUN,
    )
    .expect("packs");
    (packed, summary)
}

fn unpack(packed: &[u8]) -> Result<(Vec<u8>, Summary), CodecError> {
    let mut raw = Vec::new();
    let summary = hybrid::unpack(packed, &mut raw, &Limits::default(), 2, &RUN)?;
    Ok((raw, summary))
}

fn check(raw: &[u8], options: CodecOptions) -> Vec<u8> {
    check_version_2(raw, options);
    let (packed, summary) = pack(raw, options);
    let (back, unpacked) = unpack(&packed).expect("unpacks");
    assert!(back == raw, "{options:?}");
    assert_eq!(summary.raw_bytes, raw.len() as u64);
    assert_eq!(summary.packed_bytes, packed.len() as u64);
    assert_eq!(summary.hash, blake3::hash(raw));
    assert_eq!(
        (unpacked.hash, unpacked.blocks, unpacked.packed_bytes),
        (summary.hash, summary.blocks, summary.packed_bytes)
    );
    packed
}

fn pack_as(version: FormatVersion, raw: &[u8], options: CodecOptions) -> (Vec<u8>, Summary) {
    let packer = Packer::new(options).with_version(version);
    let mut packed = Vec::new();
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    let summary = packer.pack(raw, sink, &RUN).expect("packs");
    (packed, summary)
}

/// Version 2 round-trips as a whole and block by block, and adds few bytes to any input.
fn check_version_2(raw: &[u8], options: CodecOptions) {
    let (packed, summary) = pack_as(FormatVersion::V2, raw, options);
    let (back, unpacked) = unpack(&packed).expect("unpacks");
    assert!(back == raw, "{options:?}");
    assert_eq!(
        (unpacked.hash, unpacked.blocks, unpacked.packed_bytes),
        (summary.hash, summary.blocks, packed.len() as u64)
    );
    let further = (summary.blocks as usize).saturating_sub(1);
    let most = raw.len() + 48 + 16 * further;
    assert!(packed.len() <= most, "{} of {most}", packed.len());
    let mut blocks = Blocks::open(io::Cursor::new(&packed), &Limits::default()).expect("opens");
    let joined: Vec<u8> = (0..blocks.count())
        .flat_map(|number| blocks.read(number).expect("reads"))
        .collect();
    assert!(joined == raw);
}

fn rows(bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for row in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.extend(
            format!(
                "{{\"id\":{row},\"name\":\"name {}\",\"price\":{}.5}}\n",
                row % 17,
                row * 7 % 1000
            )
            .bytes(),
        );
    }
    text
}

#[test]
fn files_of_all_sizes_round_trip() {
    for effort in Effort::ALL {
        for len in [0, 1, 2, 4095, 4096, 4097, 8192, 50_000] {
            check(&rows(60_000)[..len], options(effort, 4096, 2));
            check(&vec![b'x'; len], options(effort, 4096, 1));
        }
        check(&rows(300_000), options(effort, 64 << 10, 3));
    }
}

#[test]
fn the_same_file_packs_to_the_same_bytes_on_any_number_of_threads() {
    let raw = rows(200_000);
    let one = check(&raw, options(Effort::Balanced, 16 << 10, 1));
    assert!(one == check(&raw, options(Effort::Balanced, 16 << 10, 4)));
}

#[test]
fn a_block_that_is_unlike_its_sample_is_tried_in_other_layouts() {
    let mut random = fastrand::Rng::with_seed(9);
    let mut log = |rows: usize| -> String {
        let row = |row: usize| {
            let (taken, size, thread) = (random.u32(..1000), random.u32(..65_536), random.u8(..8));
            let word = ["retry, again", "done", "late, by far"][random.usize(..3)];
            let (minute, second) = (row / 60 % 60, row % 60);
            format!(
                "2026-11-14 22:{minute:02}:{second:02},{taken:03} INFO [thr-{thread}] {word}, took {taken} ms, size={size}\n"
            )
        };
        (0..rows).map(row).collect()
    };
    // Templates cannot hold a byte 0, and the sample from the middle has none.
    let with_zeros = log(100) + "bad \0\0 line\n" + &log(400);
    let len_at = |effort: Effort| {
        let options = options(effort, 4 << 20, 1);
        let (packed, _) = pack_as(FormatVersion::V2, with_zeros.as_bytes(), options);
        assert!(unpack(&packed).expect("unpacks").0 == with_zeros.as_bytes());
        packed.len()
    };
    let fast = len_at(Effort::Fast);
    for effort in [Effort::Balanced, Effort::Max] {
        let len = len_at(effort);
        assert!(
            len <= fast + fast / 20,
            "{effort:?}: {len}, fast: {fast} bytes"
        );
    }
}

#[test]
fn blocks_end_after_rows() {
    let raw = rows(100_000);
    let mut ends = Vec::new();
    let mut at = 0;
    hybrid::pack_observed(
        &raw[..],
        |_| Ok(()),
        &options(Effort::Fast, 10_000, 1),
        &RUN,
        |block| {
            at += block.header.raw_len as usize;
            ends.push(raw[at - 1]);
        },
    )
    .expect("packs");
    assert!(ends.len() >= 10 && ends.iter().all(|&end| end == b'\n'));
}

#[test]
fn every_truncation_is_an_error_with_an_offset() {
    for (version, bytes) in [
        (FormatVersion::V1, 30_000),
        (FormatVersion::V2, 30_000),
        (FormatVersion::V2, 3000),
    ] {
        let (packed, _) = pack_as(version, &rows(bytes), options(Effort::Fast, 8 << 10, 2));
        for len in (0..packed.len())
            .step_by(7)
            .chain(packed.len() - 80..packed.len())
        {
            match unpack(&packed[..len]) {
                Err(CodecError::Damaged { offset, .. }) => assert!(offset <= len as u64),
                Err(CodecError::NotPacked) => assert_eq!(len, 0),
                other => panic!("{len}: {other:?}"),
            }
            assert!(Blocks::open(io::Cursor::new(&packed[..len]), &Limits::default()).is_err());
        }
    }
}

#[test]
fn every_flipped_byte_is_an_error() {
    for (version, bytes) in [
        (FormatVersion::V1, 12_000),
        (FormatVersion::V2, 12_000),
        (FormatVersion::V2, 5000),
    ] {
        let (packed, _) = pack_as(version, &rows(bytes), options(Effort::Balanced, 8 << 10, 2));
        for at in 0..packed.len() {
            let mut bad = packed.clone();
            bad[at] ^= 0x10;
            // A bit that only completes a byte has no meaning.
            let back = unpack(&bad).ok().map(|(back, _)| back);
            let harmless = version == FormatVersion::V2 && back == Some(rows(bytes));
            assert!(back.is_none() || harmless, "{version:?}, byte {at}");
        }
    }
}

#[test]
fn a_damaged_block_loses_only_itself_and_is_named() {
    let raw = rows(40_000);
    let (packed, summary) = pack(&raw, options(Effort::Fast, 8 << 10, 2));
    assert!(summary.blocks >= 5);
    let starts: Vec<usize> = (0..packed.len())
        .filter(|&at| packed[at..].starts_with(b"SPKB"))
        .collect();
    for at in [starts[2] + 60, starts[2] + 13, starts[2] + 1] {
        let mut bad = packed.clone();
        bad[at] ^= 0x10;
        let mut back = Vec::new();
        let summary = hybrid::unpack_keep_going(&bad[..], &mut back, &Limits::default(), 2, &RUN)
            .expect("continues");
        assert_eq!(summary.damaged.len(), 1, "{:?}", summary.damaged);
        assert!(
            summary.damaged[0].contains(&format!("at byte {}", starts[2])),
            "{:?}",
            summary.damaged
        );
        let lost = raw.len() - back.len();
        assert!((4000..=8192).contains(&lost), "{lost}");
        assert!(raw.starts_with(&back[..8000]) && raw.ends_with(&back[back.len() - 8000..]));
    }
}

#[test]
fn a_damaged_block_of_version_2_loses_only_itself() {
    let raw = rows(40_000);
    let (packed, summary) = pack_as(FormatVersion::V2, &raw, options(Effort::Fast, 8 << 10, 2));
    assert!(summary.blocks >= 5);
    let header_and_payload = packed.len() / summary.blocks as usize;
    for at in header_and_payload..2 * header_and_payload {
        let mut bad = packed.clone();
        bad[at] ^= 0x10;
        let mut back = Vec::new();
        let summary = hybrid::unpack_keep_going(&bad[..], &mut back, &Limits::default(), 2, &RUN)
            .expect("continues");
        if back == raw {
            continue;
        }
        assert_eq!(summary.damaged.len(), 1, "{:?}", summary.damaged);
        let lost = raw.len() - back.len();
        assert!((4000..=8192).contains(&lost), "{lost}");
        assert!(raw.ends_with(&back[back.len() - 8000..]));
    }
}

#[test]
fn bytes_that_follow_a_file_are_named_and_its_blocks_are_kept() {
    for version in [FormatVersion::V1, FormatVersion::V2] {
        for raw in [rows(3000), rows(40_000)] {
            let (packed, _) = pack_as(version, &raw, options(Effort::Fast, 8 << 10, 2));
            let longer = [&packed[..], b"\n more\n"].concat();
            let followed = unpack(&longer).map(drop).expect_err("more than a file");
            let place = format!("at byte {}", packed.len());
            assert!(followed.to_string().contains(&place), "{followed}");
            let mut back = Vec::new();
            let limits = Limits::default();
            let summary = hybrid::unpack_keep_going(&longer[..], &mut back, &limits, 2, &RUN)
                .expect("continues");
            assert!(back == raw, "{version:?}");
            assert_eq!(summary.damaged.len(), 1, "{:?}", summary.damaged);
            assert!(
                summary.damaged[0].starts_with(&place),
                "{:?}",
                summary.damaged
            );
        }
    }
}

#[test]
fn a_second_packed_file_behind_the_first_is_named_with_its_place() {
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let (packed, _) = pack_as(version, &rows(3000), options(Effort::Fast, 8 << 10, 2));
        let error = unpack(&[&packed[..], &packed].concat()).map(drop);
        let said = error.expect_err("two files").to_string();
        let place = format!("at byte {}: another packed file", packed.len());
        assert!(said.contains(&place), "{said}");
    }
}

#[test]
fn a_damaged_file_header_is_listed_where_reading_goes_on() {
    let raw = rows(3000);
    let (mut packed, _) = pack(&raw, options(Effort::Fast, 8 << 10, 2));
    packed[9] ^= 1;
    let mut back = Vec::new();
    let limits = Limits::default();
    let summary = hybrid::unpack_keep_going(&packed[..], &mut back, &limits, 2, &RUN);
    let damaged = summary.expect("continues").damaged;
    assert!(back == raw);
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(damaged[0].starts_with("at byte 0"), "{damaged:?}");
}

#[test]
fn a_file_that_was_cut_or_grew_says_so_where_one_block_is_wanted() {
    let raw = rows(40_000);
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let (packed, _) = pack_as(version, &raw, options(Effort::Fast, 8 << 10, 2));
        let half = &packed[..packed.len() / 2];
        let longer = [&packed[..], b"\n"].concat();
        for (bytes, says) in [(half, "was cut short"), (&longer[..], "bytes follow")] {
            let error = Blocks::open(Cursor::new(bytes), &Limits::default());
            match error.map(drop).expect_err("not a whole file") {
                CodecError::Damaged { offset, reason, .. } => {
                    assert!(offset <= bytes.len() as u64, "{version:?} {offset}");
                    assert!(reason.contains(says), "{version:?} {reason}");
                }
                error => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_newer_version_is_an_error_of_its_own_even_in_a_short_file() {
    for tail in [0, 1, 60] {
        let file = [b"\x89SPK\x03", &vec![7; tail][..]].concat();
        let is_newer =
            |error: CodecError| matches!(error, CodecError::Version { found: 3, known: 2 });
        assert!(unpack(&file).is_err_and(is_newer));
        assert!(Blocks::open(io::Cursor::new(&file), &Limits::default()).is_err_and(is_newer));
    }
}

#[test]
fn limits_are_checked_before_memory_is_allocated() {
    let (packed, _) = pack(&rows(40_000), options(Effort::Fast, 8 << 10, 1));
    let small = |block_bytes, total_bytes| {
        let limits = Limits {
            block_bytes,
            total_bytes,
            ..hybrid::Limits::default()
        };
        hybrid::unpack(&packed[..], io::sink(), &limits, 1, &RUN)
    };
    assert!(matches!(
        small(4 << 10, u64::MAX),
        Err(CodecError::TooLarge { .. })
    ));
    assert!(matches!(
        small(8 << 10, 20_000),
        Err(CodecError::TooLarge { .. })
    ));
}

#[test]
fn the_cancel_flag_ends_packing_and_unpacking() {
    let raw = rows(100_000);
    let stop = AtomicBool::new(false);
    let mut frames = 0;
    let sink = |_: &[u8]| {
        frames += 1;
        stop.store(frames == 3, Ordering::Relaxed);
        Ok(())
    };
    let result = hybrid::pack(&raw[..], sink, &options(Effort::Fast, 4096, 2), &stop);
    assert!(matches!(result, Err(CodecError::Cancelled)));
    assert_eq!(frames, 3);
    let (packed, _) = pack(&raw, options(Effort::Fast, 4096, 2));
    let result = hybrid::unpack(
        &packed[..],
        io::sink(),
        &Limits::default(),
        2,
        &AtomicBool::new(true),
    );
    assert!(matches!(result, Err(CodecError::Cancelled)));
}

#[test]
fn errors_of_reader_and_sink_are_distinct() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let options = CodecOptions::default();
    assert!(matches!(
        hybrid::pack(Broken, |_| Ok(()), &options, &RUN),
        Err(CodecError::Read(_))
    ));
    let full = |_: &[u8]| Err(io::Error::other("full"));
    assert!(matches!(
        hybrid::pack(&b"x"[..], full, &options, &RUN),
        Err(CodecError::Write(_))
    ));
    assert!(matches!(
        unpack(b"plain text, not packed"),
        Err(CodecError::NotPacked)
    ));
}

#[test]
fn a_block_size_out_of_range_is_refused() {
    for size in [0, 4095, 65 << 20] {
        let result = hybrid::pack(&b"x"[..], |_| Ok(()), &options(Effort::Fast, size, 1), &RUN);
        assert!(matches!(result, Err(CodecError::Options(_))), "{size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_round_trip(raw in proptest::collection::vec(any::<u8>(), 0..6000)) {
        for effort in Effort::ALL {
            check(&raw, options(effort, 4096, 1));
        }
    }

    #[test]
    fn arbitrary_packed_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for (version, header_bytes) in [(FormatVersion::V1, 16), (FormatVersion::V2, 5)] {
            let (mut packed, _) = pack_as(version, b"a,b\n1,2\n", CodecOptions::default());
            packed.truncate(header_bytes);
            packed.extend(&tail);
            prop_assert!(unpack(&packed).is_err());
        }
    }
}
