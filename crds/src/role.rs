//! The roles of a pipeline's workers.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumCount, EnumString, IntoStaticStr};

/// A worker's part in the pipeline.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    EnumCount,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Makes files and announces them.
    Generator,
    /// Packs files and sends them.
    Compressor,
    /// Receives files and restores them.
    Decompressor,
}

impl Role {
    /// All roles, in the order that files pass them.
    pub const ALL: [Self; Self::COUNT] = [Self::Generator, Self::Compressor, Self::Decompressor];

    /// The role as objects, labels and logs write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_reads_back_from_its_text_and_its_json() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(role.to_string(), role.as_str());
            assert_eq!(serde_json::to_value(role).expect("JSON"), role.as_str());
        }
    }
}
