//! Varints, zigzag numbers, and a bounds-checked reader of fields.

use crate::Damage;

/// Appends `value` in LEB128: seven bits a byte, lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps numbers near zero to small unsigned numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Reads fields from untrusted bytes and checks every length.
#[derive(Debug, Clone)]
pub(crate) struct FieldReader<'a> {
    left: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// A reader at the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// The number of bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.left.len()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8, Damage> {
        let (&first, rest) = self
            .left
            .split_first()
            .ok_or_else(|| Damage::new("a field ends too early"))?;
        self.left = rest;
        Ok(first)
    }

    /// The next varint; at most 64 bits.
    pub(crate) fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::new("a number is longer than 64 bits"))
    }

    /// The next varint as a size of at most `limit`.
    pub(crate) fn size(&mut self, limit: usize, what: &str) -> Result<usize, Damage> {
        let value = self.varint()?;
        usize::try_from(value)
            .ok()
            .filter(|&size| size <= limit)
            .ok_or_else(|| Damage::new(format!("{what} is {value}, more than {limit}")))
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        if count > self.left.len() {
            return Err(Damage::new("a field is longer than its container"));
        }
        let (head, rest) = self.left.split_at(count);
        self.left = rest;
        Ok(head)
    }

    /// All bytes not read yet.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(FieldReader::new(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        assert!(FieldReader::new(&[0xff; 11]).varint().is_err());
        assert!(
            FieldReader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2])
                .varint()
                .is_err()
        );
    }

    #[test]
    fn zigzag_round_trips() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
