//! Packs a file in memory, unpacks it, compares, and prints the sizes:
//! `cargo run --release -p streampress-codec --example pack_file -- FILE [fast|balanced|max] [1|2]`, the last the
//! version of the format.

use std::{error::Error, sync::atomic::AtomicBool};

use streampress_codec::FormatVersion;
use streampress_codec::hybrid::{CodecOptions, Effort, Limits, Packer, unpack};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .ok_or("usage: pack_file FILE [EFFORT [VERSION]]")?;
    let effort = match args.next() {
        None => Effort::default(),
        Some(name) => Effort::ALL
            .into_iter()
            .find(|effort| effort.name() == name)
            .ok_or("the efforts are fast, balanced and max")?,
    };
    let version = match args.next().as_deref() {
        None | Some("1") => FormatVersion::V1,
        Some("2") => FormatVersion::V2,
        Some(_) => return Err("the versions of the format are 1 and 2".into()),
    };
    let raw = std::fs::read(path)?;
    let cancel = AtomicBool::new(false);

    let options = CodecOptions {
        effort,
        ..CodecOptions::default()
    };
    let mut packed = Vec::new();
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    let packer = Packer::new(options).with_version(version);
    let summary = packer.pack(&raw[..], sink, &cancel)?;

    let mut restored = Vec::new();
    unpack(&packed[..], &mut restored, &Limits::default(), 0, &cancel)?;
    if restored != raw {
        return Err("the restored bytes differ".into());
    }

    println!(
        "{} -> {} bytes in {} blocks",
        raw.len(),
        packed.len(),
        summary.blocks
    );
    for ((transform, codec), share) in &summary.shares {
        println!(
            "  {} {}: {} streams, {} -> {} bytes",
            transform.name(),
            codec.name(),
            share.streams,
            share.raw_bytes,
            share.packed_bytes
        );
    }
    Ok(())
}
