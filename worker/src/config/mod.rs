//! What a command works by, and where it comes from. First wins: the FILE on the command line, `STREAMPRESS_PIPELINE`, the
//! Python original's variables. Everything after this module works on settings and does not know their origin.
//!
//! - [`settings`]: finds and reads settings. [`legacy_env`]: the original's variables.

pub(crate) mod legacy_env;
pub(crate) mod settings;

use std::fmt;

pub(crate) use self::settings::Config;

/// The configuration cannot be used; the exit code is 64.
#[derive(Debug)]
pub(crate) struct BadConfiguration(pub(crate) String);

impl BadConfiguration {
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}

impl fmt::Display for BadConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfiguration {}
