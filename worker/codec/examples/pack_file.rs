//! Packs a file in memory, unpacks it, compares, and prints the sizes:
//! `cargo run --release -p streampress-codec --example pack_file -- FILE [fast|balanced|max]`.

use std::{error::Error, sync::atomic::AtomicBool};

use streampress_codec::hybrid::{CodecOptions, Effort, Limits, pack, unpack};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: pack_file FILE [EFFORT]")?;
    let effort = match args.next() {
        None => Effort::default(),
        Some(name) => Effort::ALL
            .into_iter()
            .find(|effort| effort.name() == name)
            .ok_or("the efforts are fast, balanced and max")?,
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
    let summary = pack(&raw[..], sink, &options, &cancel)?;

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
