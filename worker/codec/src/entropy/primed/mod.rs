//! LZMA that has seen the primer before: short streams end before LZMA has learned what text, numbers and plans look like.
//! Encoder and decoder begin with what it leaves, and nothing of it is written. Its encoder is one of its own, since that
//! of liblzma would code the primer again for each stream, which takes longer than the stream.

mod decode;
mod encode;
mod matches;
mod model;
mod prices;

use std::sync::LazyLock;

use self::{encode::MatchedBytes, matches::MatchFinder, model::LzmaModel};
use super::{Coded, Coder};
use crate::{Codec, Damage};

/// The parameter byte of primed LZMA. LZMA's own parameters are smaller.
pub(super) const PARAMS: u8 = 225;
/// The primer as the first chunk of LZMA2: directories and streams of files of common shapes, and common words. It is part
/// of the format.
const CHUNK: &[u8] = include_bytes!("../../../primer.lzma2");
/// The bytes before the data of that chunk: control, raw and packed length less one, parameter; then the first byte of
/// the range coder, which is always 0.
const CHUNK_HEADER: usize = 7;

/// The most raw bytes, and the most packed bytes of one chunk of LZMA2 without its first byte.
const MAX_RAW: usize = 2 << 20;
const MAX_PACKED: usize = u16::MAX as usize;

/// The primer, and what LZMA has learned from it.
struct Primer {
    bytes: Vec<u8>,
    finder: MatchFinder,
    model: LzmaModel,
}

static PRIMER: LazyLock<Result<Primer, Damage>> = LazyLock::new(|| {
    let broken = || Damage::new("LZMA: the primer is broken");
    let (header, data) = CHUNK
        .split_first_chunk::<CHUNK_HEADER>()
        .ok_or_else(broken)?;
    let [_, high, low, _, _, lc, _] = *header;
    let raw_len = usize::from(u16::from_be_bytes([high, low])) + 1;
    let mut bytes = Vec::new();
    let model = decode::decode(LzmaModel::new(lc), data, raw_len, &mut bytes)?;
    Ok(Primer {
        finder: MatchFinder::of(&bytes),
        bytes,
        model,
    })
});

/// `raw` as LZMA after the primer, without what a decoder knows.
pub(super) fn encode(raw: &[u8]) -> Option<Coded> {
    let primer = PRIMER.as_ref().ok()?;
    let matched = MatchedBytes::new(&primer.bytes, &primer.finder, raw);
    let bytes = matched.encode(primer.model.clone());
    let data = bytes.strip_prefix(&[0])?;
    (data.len() <= MAX_PACKED).then(|| Coded {
        coder: Coder::Primed,
        codec: Codec::Lzma,
        params: PARAMS,
        bytes: data.to_vec(),
    })
}

/// Restores exactly `raw_len` bytes.
pub(super) fn decode(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
    let primer = PRIMER.as_ref().map_err(Clone::clone)?;
    if raw_len == 0 || raw_len > MAX_RAW || packed.len() > MAX_PACKED {
        return Err(Damage::new("LZMA: a chunk without bytes, or a long one"));
    }
    let mut bytes = Vec::with_capacity(primer.bytes.len() + raw_len);
    bytes.extend_from_slice(&primer.bytes);
    decode::decode(primer.model.clone(), packed, raw_len, &mut bytes)?;
    Ok(bytes.split_off(primer.bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::super::lzma;
    use super::*;

    /// What liblzma makes of a stream, as the format says.
    fn by_liblzma(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Damage> {
        let primer = PRIMER.as_ref().expect("the primer is right");
        let len_of = |len: usize| (len as u16).to_be_bytes();
        let control = 0x80 | ((raw_len - 1) >> 16) as u8;
        let whole = [
            CHUNK,
            &[control],
            &len_of(raw_len - 1),
            &len_of(packed.len()),
            &[0],
            packed,
            &[0],
        ];
        let bytes = lzma::decode(CHUNK[5], &whole.concat(), primer.bytes.len() + raw_len)?;
        assert!(bytes.starts_with(&primer.bytes));
        Ok(bytes[primer.bytes.len()..].to_vec())
    }

    fn samples() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(3);
        let mut letters =
            |len: usize, top: u8| -> Vec<u8> { (0..len).map(|_| random.u8(..=top)).collect() };
        let text = b"{\"id\": 17, \"name\": \"some text with some words\"}, ".repeat(1300);
        let far = [&letters(20_000, 255)[..], &vec![7; 20_000]].concat();
        let mut samples: Vec<Vec<u8>> = [1, 2, 3, 12, 300, 511, 513, 32_768]
            .into_iter()
            .flat_map(|len| [text[..len].to_vec(), vec![0; len], letters(len, 3)])
            .collect();
        samples.push([&far[..], &far[..20_000]].concat());
        samples.push(letters(50_000, 30));
        samples.push(text.repeat(3));
        samples
    }

    #[test]
    fn liblzma_and_the_decoder_restore_what_the_encoder_writes() {
        for raw in samples() {
            let coded = encode(&raw).expect("encodes");
            assert!(by_liblzma(&coded.bytes, raw.len()).as_deref() == Ok(&raw[..]));
            assert!(decode(&coded.bytes, raw.len()).as_deref() == Ok(&raw[..]));
        }
    }

    #[test]
    fn the_primer_is_what_liblzma_unpacks_and_the_encoder_writes() {
        let primer = PRIMER.as_ref().expect("the primer is right");
        let whole = [CHUNK, &[0]].concat();
        let bytes = lzma::decode(CHUNK[5], &whole, primer.bytes.len());
        assert!(bytes.as_ref() == Ok(&primer.bytes));
        let nothing = MatchFinder::of(&[]);
        let matched = MatchedBytes::new(&[], &nothing, &primer.bytes);
        let again = matched.encode(LzmaModel::new(CHUNK[5]));
        assert!(again.len() <= CHUNK.len());
    }

    #[test]
    fn damaged_streams_are_errors_or_other_bytes() {
        let mut random = fastrand::Rng::with_seed(4);
        for raw in samples() {
            let good = encode(&raw).expect("encodes").bytes;
            assert!(decode(&good[..good.len() - 1], raw.len()).is_err());
            assert!(decode(&[&good[..], &[0]].concat(), raw.len()).is_err());
            // One byte more may be coded without a bit more.
            let longer = raw.len() + 1;
            assert!(decode(&good, longer).ok() == by_liblzma(&good, longer).ok());
            for _ in 0..20 {
                let mut bad = good.clone();
                let at = random.usize(..bad.len());
                bad[at] ^= random.u8(1..);
                let ours = decode(&bad, raw.len());
                let theirs = by_liblzma(&bad, raw.len());
                assert!(ours.ok() == theirs.ok());
            }
        }
    }

    #[test]
    fn short_streams_are_a_fifth_smaller_than_without_the_primer() {
        let raw = b"[{\"name\":\"Ada\",\"active\":true},{\"name\":\"Lena\",\"active\":false}]";
        let primed = encode(raw).expect("encodes").bytes.len();
        let nothing = MatchFinder::of(&[]);
        let alone = MatchedBytes::new(&[], &nothing, raw).encode(LzmaModel::new(3));
        assert!(primed * 5 < alone.len() * 4, "{primed} {}", alone.len());
    }
}
