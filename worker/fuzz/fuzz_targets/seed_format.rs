//! The seed format: normalising is idempotent, packing comes back, hostile records give an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streampress::codec::seed::{Format, Packed, Stages, normalise, pack, unpack};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, raw)) = data.split_first() else {
        return;
    };
    for format in [Format::Json, Format::Txt] {
        if let Ok(once) = normalise(format, raw) {
            assert_eq!(normalise(format, &once).as_deref(), Ok(&once[..]));
        }
    }
    let _ = normalise(Format::Csv, raw);
    let packed = pack(raw, 64 + 16 * usize::from(choice)).expect("packs");
    assert_eq!(unpack(&packed, raw.len()).as_deref(), Ok(raw));
    for stages in [Stages::One, Stages::Two] {
        let records = raw
            .split(|&byte| byte == choice)
            .map(<[u8]>::to_vec)
            .collect();
        let _ = unpack(&Packed { stages, records }, 1 << 20);
    }
});
