//! Any text that the JSON transform accepts round-trips.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/checks.rs"]
#[allow(dead_code, reason = "each target is one of the checks")]
mod checks;

fuzz_target!(|data: &[u8]| checks::transform(streampress_codec::Transform::Json, data));
