//! Bit fields in a sequence of bytes, most significant bit first.

use crate::Damage;

/// Writes bit fields.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// The lowest `held` bits are not in `bytes` yet.
    pending: u32,
    held: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `value`, the highest first; at most 128.
    pub(crate) fn put(&mut self, value: u128, count: u32) {
        let mut left = count.min(128);
        while left > 0 {
            let step = left.min(8 - self.held);
            let part = (value >> (left - step)) as u32 & ((1 << step) - 1);
            self.pending = self.pending << step | part;
            self.held += step;
            left -= step;
            if self.held == 8 {
                self.bytes.push(self.pending as u8);
                (self.pending, self.held) = (0, 0);
            }
        }
    }

    /// The bytes; zero bits complete the last one.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.held > 0 {
            self.put(0, 8 - self.held);
        }
        self.bytes
    }
}

/// Reads bit fields.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The number of bits read.
    at: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 64.
    pub(crate) fn take(&mut self, count: u32) -> Result<u64, Damage> {
        Ok(self.take_wide(count.min(64))? as u64)
    }

    /// The next `count` bits, at most 128.
    pub(crate) fn take_wide(&mut self, count: u32) -> Result<u128, Damage> {
        let mut left = count.min(128);
        let mut value = 0u128;
        while left > 0 {
            let byte = *self
                .bytes
                .get(self.at / 8)
                .ok_or_else(|| Damage::new("packed bits end too early"))?;
            let free = 8 - (self.at % 8) as u32;
            let step = left.min(free);
            let part = (u32::from(byte) >> (free - step)) & ((1 << step) - 1);
            value = value << step | u128::from(part);
            self.at += step as usize;
            left -= step;
        }
        Ok(value)
    }

    /// Checks that less than a byte remains.
    pub(crate) fn finish(&self) -> Result<(), Damage> {
        if self.at.div_ceil(8) == self.bytes.len() {
            Ok(())
        } else {
            Err(Damage::new("unread packed bits remain"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_fields_of_every_width_round_trip() {
        let mut rng = fastrand::Rng::with_seed(3);
        let written: Vec<(u128, u32)> = (0..2000)
            .map(|_| {
                let count = rng.u32(0..=128);
                let mask = if count == 128 {
                    u128::MAX
                } else {
                    (1 << count) - 1
                };
                (rng.u128(..) & mask, count)
            })
            .collect();
        let mut writer = BitWriter::default();
        written
            .iter()
            .for_each(|&(value, count)| writer.put(value, count));
        let bytes = writer.finish();
        let total: u32 = written.iter().map(|(_, count)| count).sum();
        assert_eq!(bytes.len(), total.div_ceil(8) as usize);
        let mut reader = BitReader::new(&bytes);
        for (value, count) in written {
            assert_eq!(reader.take_wide(count), Ok(value));
        }
        assert_eq!(reader.finish(), Ok(()));
        assert!(reader.take(8).is_err());
    }
}
