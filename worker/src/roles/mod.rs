//! The roles: what each does with files and messages, and how `run` puts them together.

pub mod announce;
pub mod aws;
pub mod compress;
pub mod context;
pub mod decompress;
pub mod generate;
pub mod redrive;
mod restorer;
pub mod run;
pub mod scan;
