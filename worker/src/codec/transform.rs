//! The lossless rearrangements that a block may go through before it is coded.

/// Which rearrangement. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transform {
    /// The bytes as they are.
    None = 0,
}

impl Transform {
    /// Every transform, by number.
    pub const ALL: [Self; 1] = [Self::None];

    /// The transform of a format byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|&transform| transform as u8 == byte)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
        }
    }
}
