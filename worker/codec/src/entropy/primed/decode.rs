//! A decoder of short streams.

use super::super::literals::{ADAPT_SHIFT, SCALE_BITS};
use super::model::{BitCoder, LzmaModel, LzmaStep, StepSource};
use crate::Damage;

/// The range decoder of LZMA. After the last byte it reads zeros, and counts them.
struct RangeDecoder<'a> {
    range: u32,
    code: u32,
    bytes: &'a [u8],
    missing: usize,
}

/// The bytes that a range decoder begins with, without the first one, which is always 0.
const FIRST_BYTES: usize = 4;

impl<'a> RangeDecoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            range: u32::MAX,
            code: 0,
            bytes,
            missing: 0,
        };
        (0..FIRST_BYTES).for_each(|_| decoder.read());
        decoder
    }

    fn read(&mut self) {
        let byte = match self.bytes.split_first() {
            Some((&byte, rest)) => {
                self.bytes = rest;
                byte
            }
            None => {
                self.missing += 1;
                0
            }
        };
        self.code = self.code << 8 | u32::from(byte);
    }

    fn normalize(&mut self) {
        if self.range < 1 << 24 {
            self.range <<= 8;
            self.read();
        }
    }

    fn is_finished(&self) -> bool {
        self.code == 0 && self.missing == 0 && self.bytes.is_empty()
    }
}

impl BitCoder for RangeDecoder<'_> {
    fn bit(&mut self, chance: &mut u16, _: u32) -> u32 {
        self.normalize();
        let bound = (self.range >> SCALE_BITS) * u32::from(*chance);
        if self.code < bound {
            self.range = bound;
            *chance += ((1 << SCALE_BITS) - *chance) >> ADAPT_SHIFT;
            0
        } else {
            self.code -= bound;
            self.range -= bound;
            *chance -= *chance >> ADAPT_SHIFT;
            1
        }
    }

    fn even_bit(&mut self, _: u32) -> u32 {
        self.normalize();
        self.range >>= 1;
        let bit = u32::from(self.code >= self.range);
        self.code -= self.range * bit;
        bit
    }
}

/// Appends exactly `raw_len` bytes to `out`, what `model` has seen, and returns the model.
pub(super) fn decode(
    mut model: LzmaModel,
    packed: &[u8],
    raw_len: usize,
    out: &mut Vec<u8>,
) -> Result<LzmaModel, Damage> {
    let end = out.len() + raw_len;
    let mut decoder = RangeDecoder::new(packed);
    while out.len() < end {
        let (step, byte) = model.code(&mut decoder, out, (LzmaStep::default(), 0));
        let distance = match step.from {
            StepSource::Literal => {
                out.push(byte);
                continue;
            }
            StepSource::Repeat(_) | StepSource::Distance(_) => model.past.distances[0] as usize,
        };
        let from = out.len().checked_sub(1 + distance);
        let from = from.ok_or_else(|| Damage::new("LZMA: a match before the first byte"))?;
        if step.len > end - out.len() {
            return Err(Damage::new("LZMA: a match beyond the last byte"));
        }
        for at in from..from + step.len {
            out.push(out[at]);
        }
    }
    decoder.normalize();
    match decoder.is_finished() {
        true => Ok(model),
        false => Err(Damage::new("LZMA: the stream does not end with its bytes")),
    }
}
