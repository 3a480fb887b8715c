//! The short forms of version 2: LZMA and BZ2 streams without what a decoder knows.
//!
//! A short stream is a single chunk or block, so that its headers follow from the length of the raw
//! bytes. The hash of the block replaces the checksums of BZ2.

use super::literals::FIRST_CHUNK;
use super::{Coded, Coder, bz2, lzma, primed};
use crate::{Codec, Damage};

/// LZMA of more raw bytes keeps the chunks of LZMA2.
const MAX_LZMA_BYTES: usize = 64 << 10;
/// BZ2 of more raw bytes keeps the stream around its blocks.
const MAX_BZ2_BYTES: usize = 512 << 10;

/// The short form of `coded`, which codes `raw_len` bytes; `None` if it should have one, but is no
/// single chunk or block.
pub(super) fn shorten(coded: Coded, raw_len: usize) -> Option<Coded> {
    if coded.coder == Coder::Primed {
        return Some(coded);
    }
    let bytes = match coded.codec {
        Codec::Lzma if raw_len <= MAX_LZMA_BYTES => without_chunk(&coded, raw_len)?,
        Codec::Bz2 if raw_len <= MAX_BZ2_BYTES => bz2::without_stream(&coded.bytes)?,
        _ => return Some(coded),
    };
    Some(Coded { bytes, ..coded })
}

/// The bytes before the data of a chunk: control, raw and packed length less one, properties; then
/// the first byte of the range coder, which is always 0.
fn chunk_header(raw_len: usize, data_len: usize, params: u8) -> Option<[u8; 7]> {
    let [raw_high, raw_low] = u16::try_from(raw_len.checked_sub(1)?).ok()?.to_be_bytes();
    let [high, low] = u16::try_from(data_len).ok()?.to_be_bytes();
    Some([FIRST_CHUNK, raw_high, raw_low, high, low, params, 0])
}

fn without_chunk(coded: &Coded, raw_len: usize) -> Option<Vec<u8>> {
    let (header, rest) = coded.bytes.split_first_chunk::<7>()?;
    let data = rest.strip_suffix(&[0])?;
    (chunk_header(raw_len, data.len(), coded.params)? == *header).then(|| data.to_vec())
}

/// Restores exactly `raw_len` bytes from LZMA of version 2.
pub(super) fn decode_lzma(params: u8, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    if params == primed::PARAMS {
        return primed::decode(packed, raw_len);
    }
    if raw_len > MAX_LZMA_BYTES {
        return lzma::decode(params, packed, raw_len);
    }
    let header = chunk_header(raw_len, packed.len(), params)
        .ok_or_else(|| Damage::new("LZMA: a chunk without bytes, or a long one"))?;
    lzma::decode(params, &[&header[..], packed, &[0]].concat(), raw_len)
}

/// Restores exactly `raw_len` bytes from BZ2 of version 2.
pub(super) fn decode_bz2(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    if raw_len > MAX_BZ2_BYTES {
        return bz2::decode(packed, raw_len);
    }
    bz2::decode_block(packed, raw_len)
}

#[cfg(test)]
mod tests {
    use super::super::{Coder, EncodeOptions, decode, encode_as};
    use super::*;
    use crate::{Effort, FormatVersion};

    #[test]
    fn short_forms_round_trip_at_their_limits() {
        let text = b"some text with some words in some order, ".repeat(20_000);
        for len in [1, 12, 300, 65_535, 65_536, 65_537, 524_288, 524_289] {
            let raw = &text[..len];
            for coder in [
                Coder::Bz2,
                Coder::Literals(2),
                Coder::Lzma(lzma::LzmaProps::TEXT, lzma::Search::Preset),
            ] {
                let sizes = [FormatVersion::V1, FormatVersion::V2].map(|version| {
                    let options = EncodeOptions::new(Effort::Balanced, version);
                    let coded = encode_as(raw, coder, options);
                    let back = decode(coded.codec, coded.params, &coded.bytes, len, version);
                    assert_eq!(back.as_deref(), Ok(raw), "{len} {coder:?}");
                    coded.bytes.len()
                });
                assert!(sizes[1] <= sizes[0], "{len} {coder:?} {sizes:?}");
            }
        }
    }

    #[test]
    fn bytes_that_bzip2_makes_longer_before_it_sorts_them_have_a_short_form() {
        let version = FormatVersion::V2;
        for len in [90_000, 180_000, MAX_BZ2_BYTES] {
            let raw: Vec<u8> = (0..len).map(|at| (at / 4 % 251) as u8).collect();
            let options = EncodeOptions::new(Effort::Balanced, version);
            let coded = encode_as(&raw, Coder::Bz2, options);
            let back = decode(coded.codec, coded.params, &coded.bytes, len, version);
            assert!(back.as_deref() == Ok(&raw[..]), "{len}");
            assert_eq!(coded.codec, crate::Codec::Bz2);
        }
    }

    #[test]
    fn a_short_form_without_its_last_byte_is_damage() {
        let raw = b"some text some text some more text".repeat(30);
        for coder in [Coder::Bz2, Coder::Literals(0)] {
            let version = FormatVersion::V2;
            let coded = encode_as(&raw, coder, EncodeOptions::new(Effort::Balanced, version));
            let decode = |bytes: &[u8], len| decode(coded.codec, coded.params, bytes, len, version);
            let whole = &coded.bytes[..];
            assert!(decode(whole, raw.len()).is_ok());
            assert!(decode(whole, raw.len() + 1).is_err());
            assert!(decode(whole, raw.len() - 1).is_err());
            assert!(decode(&whole[..whole.len() - 1], raw.len()).is_err());
            assert!(decode(&[whole, b"x"].concat(), raw.len()).is_err());
        }
    }
}
