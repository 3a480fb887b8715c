//! Plans: files of a known schema are packed without a search, about as small as with one, whatever
//! comes between them; the restored bytes never depend on a plan.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::atomic::AtomicBool;

use fastrand::Rng;
use streampress_codec::FormatVersion;
use streampress_codec::hybrid::{
    CodecOptions, Effort, Limits, Packer, Plan, PlanStore, Summary, unpack,
};

static RUN: AtomicBool = AtomicBool::new(false);

const OPTIONS: CodecOptions = CodecOptions {
    effort: Effort::Balanced,
    block_size: 1 << 20,
    threads: 1,
};

fn pack(packer: &Packer<'_>, raw: &[u8]) -> (Vec<u8>, Summary) {
    let mut packed = Vec::new();
    let sink = |frame: &[u8]| {
        packed.extend_from_slice(frame);
        Ok(())
    };
    let summary = packer.pack(raw, sink, &RUN).expect("packs");
    let mut back = Vec::new();
    unpack(&packed[..], &mut back, &Limits::default(), 1, &RUN).expect("unpacks");
    assert!(back == raw);
    (packed, summary)
}

/// The bytes of all files with a store from file to file, and with a search for each.
fn with_and_without_store(files: &[Vec<u8>]) -> (usize, usize) {
    with_and_without_store_as(files, OPTIONS, FormatVersion::V1)
}

fn with_and_without_store_as(
    files: &[Vec<u8>],
    options: CodecOptions,
    version: FormatVersion,
) -> (usize, usize) {
    let store = PlanStore::default();
    let fresh = Packer::new(options).with_version(version);
    let stored = fresh.clone().with_store(&store);
    files.iter().fold((0, 0), |(with, without), raw| {
        (
            with + pack(&stored, raw).0.len(),
            without + pack(&fresh, raw).0.len(),
        )
    })
}

fn orders(rng: &mut Rng, rows: usize) -> Vec<u8> {
    let mut text = String::from("id,placed,customer,price,quantity,state\n");
    let mut id = rng.u32(1000..9999);
    for _ in 0..rows {
        id += rng.u32(1..4);
        text += &format!(
            "{id},2026-03-{:02}T{:02}:{:02}:{:02}Z,{},{}.{:02},{},{}\n",
            rng.u32(1..29),
            rng.u32(0..24),
            rng.u32(0..60),
            rng.u32(0..60),
            rng.choice(["Ada", "Priya", "Chen", "Omar", "Lena"])
                .expect("some"),
            rng.u32(1..500),
            rng.u32(0..100),
            rng.u32(1..9),
            rng.choice(["open", "paid", "sent"]).expect("some"),
        );
    }
    text.into_bytes()
}

/// Identifiers and padded numbers in JSON.
fn documents(rng: &mut Rng, rows: usize) -> Vec<u8> {
    let row = |rng: &mut Rng| {
        let (id, number) = (rng.u128(..), rng.u32(..1_000_000));
        format!(
            "{{\"id\":\"{id:032x}\",\"number\":\"{number:08}\",\"free\":{}}}\n",
            rng.bool()
        )
    };
    let rows = (0..rows).map(|_| row(rng));
    rows.collect::<String>().into_bytes()
}

/// One column of identifiers.
fn identifiers(rng: &mut Rng, rows: usize) -> Vec<u8> {
    let row = |rng: &mut Rng| {
        let (high, low) = (rng.u64(..), rng.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}\n",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    };
    let rows = (0..rows).map(|_| row(rng));
    let rows: String = rows.collect();
    format!("uuid\n{rows}").into_bytes()
}

fn readings(rng: &mut Rng, rows: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut celsius = 200i32;
    for row in 0..rows {
        celsius += rng.i32(-3..4);
        text += &format!(
            "{{\"sensor\":\"s-{:03}\",\"seconds\":{},\"celsius\":{}.{},\"ok\":{}}}\n",
            rng.u32(0..40),
            1_700_000_000 + row * 15,
            celsius / 10,
            celsius.rem_euclid(10),
            rng.u32(0..50) > 0,
        );
    }
    text.into_bytes()
}

#[test]
fn a_known_schema_needs_no_search_and_is_as_small() {
    let mut rng = Rng::with_seed(1);
    let files: Vec<Vec<u8>> = (0..5).map(|_| orders(&mut rng, 2000)).collect();
    let store = PlanStore::default();
    let stored = Packer::new(OPTIONS).with_store(&store);
    let first = pack(&stored, &files[0]).1.plan_use;
    assert!(first.searched_columns > 0 && first.planned_columns == 0);
    // The second file of a schema is searched, too: the first one may have been unlike all others.
    pack(&stored, &files[1]);
    let mut sizes = (0, 0);
    for raw in &files[2..] {
        let (packed, summary) = pack(&stored, raw);
        assert_eq!(summary.plan_use.searched_columns, 0);
        assert!(summary.plan_use.planned_columns >= 6);
        sizes.0 += packed.len();
        sizes.1 += pack(&Packer::new(OPTIONS), raw).0.len();
    }
    assert!(sizes.0 * 1000 <= sizes.1 * 1005, "{sizes:?}");
}

#[test]
fn small_files_of_a_known_schema_are_as_small_in_version_2() {
    let mut rng = Rng::with_seed(8);
    for rows in [40, 300, 1200] {
        let files: Vec<Vec<u8>> = (0..5).map(|_| orders(&mut rng, rows)).collect();
        let new = Packer::new(OPTIONS).with_version(FormatVersion::V2);
        let fresh: usize = files[1..].iter().map(|raw| pack(&new, raw).0.len()).sum();
        let store = PlanStore::default();
        pack(&new.clone().with_store(&store), &files[0]);
        let plan = Plan::from_bytes(&store.plan().to_bytes()).expect("reads");
        let known = new.clone().with_plan(plan);
        let sizes = files[1..].iter().map(|raw| {
            let (packed, summary) = pack(&known, raw);
            assert_eq!(summary.plan_use.searched_columns, 0);
            packed.len()
        });
        let sum: usize = sizes.sum();
        assert!(sum * 100 <= fresh * 102, "{rows} {sum} {fresh}");
    }
}

#[test]
fn bytes_without_a_structure_teach_nothing_about_others() {
    let mut rng = Rng::with_seed(5);
    let random: Vec<u8> = (0..50_000).map(|_| rng.u8(..)).collect();
    let wide: Vec<u8> = "h\u{e9}llo "
        .repeat(9000)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let files = [random.clone(), vec![0; 300_000], wide, random];
    let (with, without) = with_and_without_store(&files);
    assert!(with <= without + 8, "{with} {without}");
    // The blocks of one file, too.
    let mut mixed: Vec<u8> = (0..OPTIONS.block_size).map(|_| rng.u8(..)).collect();
    mixed.resize(3 * OPTIONS.block_size, 0);
    let packed = pack(&Packer::new(OPTIONS), &mixed).0;
    assert!(
        packed.len() < OPTIONS.block_size + OPTIONS.block_size / 50,
        "{}",
        packed.len()
    );
}

#[test]
fn alternating_schemas_lose_at_most_two_per_cent() {
    let mut rng = Rng::with_seed(2);
    let files: Vec<Vec<u8>> = (0..8)
        .map(|number| match number % 2 {
            0 => orders(&mut rng, 1500),
            _ => readings(&mut rng, 1500),
        })
        .collect();
    let (with, without) = with_and_without_store(&files);
    assert!(with * 100 <= without * 102, "{with} {without}");
}

/// Of each effort and version.
fn loses_at_most_two_per_cent(files: &[Vec<u8>], block_size: usize) {
    for effort in Effort::ALL {
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let options = CodecOptions {
                effort,
                block_size,
                threads: 1,
            };
            let (with, without) = with_and_without_store_as(files, options, version);
            let what = format!("{effort:?}, {version:?}: {with} and {without} bytes");
            assert!(with * 100 <= without * 102, "{what}");
        }
    }
}

#[test]
fn files_whose_last_block_has_a_few_rows_lose_at_most_two_per_cent() {
    let mut rng = Rng::with_seed(11);
    let files: Vec<_> = (0..3).map(|_| orders(&mut rng, 1400)).collect();
    loses_at_most_two_per_cent(&files, 60 << 10);
    let files: Vec<_> = (0..3).map(|_| readings(&mut rng, 1100)).collect();
    loses_at_most_two_per_cent(&files, 68 << 10);
}

#[test]
fn small_and_large_files_of_a_schema_lose_at_most_two_per_cent() {
    let mut rng = Rng::with_seed(12);
    let files: Vec<_> = [5, 2000, 5, 200, 2000, 40]
        .into_iter()
        .flat_map(|rows| [orders(&mut rng, rows), readings(&mut rng, rows)])
        .collect();
    loses_at_most_two_per_cent(&files, 1 << 20);
}

fn measured(rng: &mut Rng, rows: usize, mut bytes: impl FnMut(&mut Rng, usize) -> u32) -> Vec<u8> {
    let mut text = String::from("id,bytes,zone\n");
    for row in 0..rows {
        text += &format!("{},{},{}\n", 7000 + row, bytes(rng, row), rng.u8(..4));
    }
    text.into_bytes()
}

#[test]
fn columns_whose_values_become_easier_lose_at_most_five_per_cent() {
    let mut rng = Rng::with_seed(15);
    let random = |rng: &mut Rng, _| rng.u32(200..40_000);
    let few = |rng: &mut Rng, row| match rng.u8(..10) {
        0 => random(rng, row),
        _ => 512,
    };
    let counting = |rng: &mut Rng, row: usize| 20_000 + row as u32 * 3 + rng.u32(..3);
    let files = [
        measured(&mut rng, 6000, random),
        measured(&mut rng, 6000, few),
        measured(&mut rng, 6000, counting),
        measured(&mut rng, 6000, random),
        measured(&mut rng, 6000, few),
    ];
    for effort in Effort::ALL {
        for version in [FormatVersion::V1, FormatVersion::V2] {
            let options = CodecOptions { effort, ..OPTIONS };
            let (with, without) = with_and_without_store_as(&files, options, version);
            let what = format!("{effort:?}, {version:?}: {with} and {without} bytes");
            assert!(with * 100 <= without * 105, "{what}");
        }
    }
}

#[test]
fn a_store_learns_what_its_first_files_could_not_show() {
    // In the first files the columns have nothing to do with each other, and no sample of one column shows that they have later.
    // Of two columns that are small beside the others: large ones are looked at in each block.
    const OTHERS: usize = 26;
    let file = |rng: &mut Rng, related: bool| {
        let names: Vec<_> = (0..OTHERS).map(|number| format!(",c{number}")).collect();
        let mut text = format!("a,b{}\n", names.concat());
        for _ in 0..300 {
            let a = rng.u32(10_000..90_000);
            let b = match related {
                true => a + 7,
                false => rng.u32(10_000..90_000),
            };
            let others: Vec<_> = (0..OTHERS)
                .map(|_| format!(",{}", rng.u32(10_000..90_000)))
                .collect();
            text += &format!("{a},{b}{}\n", others.concat());
        }
        text.into_bytes()
    };
    let mut rng = Rng::with_seed(17);
    let store = PlanStore::default();
    let stored = Packer::new(OPTIONS).with_store(&store);
    // The next whole search is due at the 74th file.
    for _ in 0..10 {
        pack(&stored, &file(&mut rng, false));
    }
    let raw = file(&mut rng, true);
    let fresh = pack(&Packer::new(OPTIONS), &raw).0.len();
    let now = pack(&stored, &raw).0.len();
    assert!(now > fresh + fresh / 40, "{now} {fresh}");
    for _ in 0..60 {
        pack(&stored, &file(&mut rng, true));
    }
    let last = pack(&stored, &raw).0.len();
    assert!(last <= fresh + fresh / 100, "{last} {fresh}");
}

#[test]
fn what_was_found_with_less_effort_makes_no_file_larger() {
    let mut rng = Rng::with_seed(18);
    let (first, second) = (orders(&mut rng, 1500), readings(&mut rng, 1500));
    let store = PlanStore::default();
    let packer = |effort| Packer::new(CodecOptions { effort, ..OPTIONS });
    for effort in Effort::ALL {
        for raw in [&first, &second] {
            let fresh = pack(&packer(effort), raw).0;
            let stored = packer(effort).with_store(&store);
            assert!(pack(&stored, raw).0 == fresh, "{effort:?}");
            // The second file of a schema is searched, too: the first one may have been unlike all others.
            assert!(pack(&stored, raw).0.len() <= fresh.len(), "{effort:?}");
            let known = pack(&stored, raw).1.plan_use;
            assert_eq!(known.searched_columns, 0, "{effort:?}");
        }
    }
    assert_eq!(store.plan().schema_count(), 6);
}

#[test]
fn a_column_that_begins_to_follow_from_another_loses_at_most_five_per_cent() {
    let mut rng = Rng::with_seed(20);
    let mut words = |follows: bool| {
        let mut text = String::from("number,one,other\n");
        for number in 0..3000 {
            let one = rng.u32(..300);
            let other = if follows {
                one * 7 % 300
            } else {
                rng.u32(..300)
            };
            text += &format!("{number},w{:05},w{:05}\n", one * 7919, other * 7919);
        }
        text.into_bytes()
    };
    let (first, second) = (words(false), words(true));
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let packer = Packer::new(OPTIONS).with_version(version);
        let store = PlanStore::default();
        pack(&packer.clone().with_store(&store), &first);
        let fresh = pack(&packer, &second).0.len();
        let planned = pack(&packer.with_plan(store.plan()), &second).0.len();
        assert!(planned <= fresh + fresh / 20, "{planned} and {fresh} bytes");
    }
}

/// Rows of columns that follow from one number each.
fn computed(rng: &mut Rng, rows: usize) -> Vec<u8> {
    let mut text = String::from("base,next,double,tenth,rest,name,price\n");
    for _ in 0..rows {
        let base = rng.u32(..1_000_000);
        let (next, double, tenth, rest) = (base + 7, base * 2, base / 10, base % 1000);
        let price = f64::from(base) / 100.0;
        text += &format!("{base},{next},{double},{tenth},{rest},k{base},{price:.2}\n");
    }
    text.into_bytes()
}

#[test]
fn columns_that_are_ratios_of_another_take_no_bytes_of_their_own_in_version_2() {
    let mut rng = Rng::with_seed(30);
    let packer = Packer::new(OPTIONS).with_version(FormatVersion::V2);
    let files: Vec<Vec<u8>> = (0..4).map(|_| computed(&mut rng, 1500)).collect();
    for raw in &files {
        // The number itself takes 20 bits of each row, and the rest 10.
        assert!(pack(&packer, raw).0.len() < 1500 * 30 / 8 + 700);
    }
    // The search finds the same in each file: a plan of any fits the others.
    for first in &files {
        let store = PlanStore::default();
        pack(&packer.clone().with_store(&store), first);
        for raw in &files {
            let fresh = pack(&packer, raw).0.len();
            let planned = pack(&packer.clone().with_plan(store.plan()), raw).0.len();
            assert!(planned <= fresh + fresh / 50, "{planned} and {fresh} bytes");
        }
    }
}

#[test]
fn files_whose_columns_say_the_same_lose_at_most_five_per_cent_with_the_plan_of_any_of_them() {
    let mut rng = Rng::with_seed(32);
    let mut file = || {
        let rows = (0..1500).map(|_| {
            let base = rng.u32(..5000);
            let (tripled, part) = (base * 3 + 1, base / 7);
            format!(
                "{base},{tripled},{},u-{base:05},{base:x},{part}\n",
                base % 97
            )
        });
        rows.collect::<String>().into_bytes()
    };
    let files: Vec<Vec<u8>> = (0..4).map(|_| file()).collect();
    for version in [FormatVersion::V1, FormatVersion::V2] {
        let packer = Packer::new(OPTIONS).with_version(version);
        let fresh: Vec<usize> = files.iter().map(|raw| pack(&packer, raw).0.len()).collect();
        for first in &files {
            let store = PlanStore::default();
            pack(&packer.clone().with_store(&store), first);
            let planned = packer.clone().with_plan(store.plan());
            for (raw, fresh) in files.iter().zip(&fresh) {
                let planned = pack(&planned, raw).0.len();
                assert!(planned <= fresh + fresh / 20, "{planned} and {fresh} bytes");
            }
        }
    }
}

#[test]
fn a_column_that_becomes_a_ratio_of_another_loses_at_most_five_per_cent() {
    let mut rng = Rng::with_seed(31);
    let mut amounts = |follows: bool| {
        let mut text = String::from("number,net,gross\n");
        for number in 0..4000 {
            let net = rng.u32(100..900_000);
            let gross = if follows { net } else { rng.u32(100..900_000) };
            let (net, gross) = (f64::from(net) / 100.0, f64::from(gross) / 100.0 * 1.19);
            text += &format!("{number},{net:.2},{gross:.2}\n");
        }
        text.into_bytes()
    };
    let (first, second) = (amounts(false), amounts(true));
    let packer = Packer::new(OPTIONS).with_version(FormatVersion::V2);
    let store = PlanStore::default();
    pack(&packer.clone().with_store(&store), &first);
    let fresh = pack(&packer, &second).0.len();
    let planned = pack(&packer.with_plan(store.plan()), &second).0.len();
    assert!(planned <= fresh + fresh / 20, "{planned} and {fresh} bytes");
    assert!(fresh * 3 < second.len());
}

#[test]
fn what_was_found_for_one_version_makes_no_file_of_the_other_larger() {
    // A column repeats the one beside it, one row later: only version 2 can say so.
    let mut rng = Rng::with_seed(19);
    let mut chained = |rows: usize| {
        let mut text = String::from("number,next\n");
        let mut next = rng.u64(..);
        for _ in 0..rows {
            let number = next;
            next = rng.u64(..);
            text += &format!("{number:x},{next:x}\n");
        }
        text.into_bytes()
    };
    let (first, second) = (chained(3000), chained(3000));
    for (before, after) in [
        (FormatVersion::V1, FormatVersion::V2),
        (FormatVersion::V2, FormatVersion::V1),
    ] {
        let store = PlanStore::default();
        let of = |version| Packer::new(OPTIONS).with_version(version);
        pack(&of(before).with_store(&store), &first);
        let fresh = pack(&of(after), &second).0.len();
        let planned = pack(&of(after).with_plan(store.plan()), &second).0.len();
        assert!(planned <= fresh + fresh / 50, "{planned} and {fresh} bytes");
    }
}

#[test]
fn a_plan_of_version_1_makes_no_small_file_of_version_2_larger() {
    let mut rng = Rng::with_seed(16);
    for rows in [4, 8, 12, 20] {
        let (first, second) = (readings(&mut rng, rows), readings(&mut rng, rows));
        let store = PlanStore::default();
        pack(&Packer::new(OPTIONS).with_store(&store), &first);
        let fresh = Packer::new(OPTIONS).with_version(FormatVersion::V2);
        let with = pack(&fresh.clone().with_plan(store.plan()), &second)
            .0
            .len();
        let without = pack(&fresh, &second).0.len();
        assert!(
            with <= without + without / 20,
            "{rows} rows: {with} and {without} bytes"
        );
    }
}

#[test]
fn a_file_that_a_plan_does_not_fit_is_no_larger_than_itself_and_its_headers() {
    // Hardly smaller than their bytes, and of one schema.
    let file = |rng: &mut Rng, rows: usize| {
        let mut text = String::from("key,value\n");
        for _ in 0..rows {
            let mut word = || -> String { (0..40).map(|_| rng.char('!'..='~')).collect() };
            text += &format!(
                "{},{}\n",
                word().replace(',', "_"),
                word().replace(',', "_")
            );
        }
        text.into_bytes()
    };
    let mut rng = Rng::with_seed(13);
    let store = PlanStore::default();
    for rows in [4000, 2, 3, 4, 5, 6, 8, 12, 20, 40, 200, 2] {
        for effort in Effort::ALL {
            let options = CodecOptions { effort, ..OPTIONS };
            let packer = Packer::new(options)
                .with_version(FormatVersion::V2)
                .with_store(&store);
            let raw = file(&mut rng, rows);
            let packed = pack(&packer, &raw).0.len();
            assert!(
                packed <= raw.len() + 48,
                "{rows} rows: {packed} of {}",
                raw.len()
            );
        }
    }
}

#[test]
fn drifting_data_loses_at_most_five_per_cent() {
    // Each file has the columns of the first, but other values in one more of them.
    let drifted = |rng: &mut Rng, changed: usize| {
        let raw = orders(rng, 2000);
        let text = String::from_utf8(raw).expect("text");
        let mut out = String::new();
        for (row, line) in text.lines().enumerate() {
            let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
            if row > 0 {
                for (at, field) in fields.iter_mut().enumerate().skip(1).take(changed) {
                    *field = match at {
                        1 => (1_700_000_000 + row * 30).to_string(),
                        2 => format!("{:016x}", rng.u64(..)),
                        3 => format!("{}", row / 7 * 100),
                        4 => format!("box {} of {}", rng.u32(1..4), rng.u32(4..9)),
                        _ => format!("{:02}:{:02}", rng.u32(0..24), rng.u32(0..60)),
                    };
                }
            }
            out += &fields.join(",");
            out.push('\n');
        }
        out.into_bytes()
    };
    let mut rng = Rng::with_seed(3);
    let files: Vec<Vec<u8>> = [0, 0, 1, 2, 3, 4, 5, 5, 0, 3]
        .map(|changed| drifted(&mut rng, changed))
        .to_vec();
    let (with, without) = with_and_without_store(&files);
    assert!(with * 100 <= without * 105, "{with} {without}");
}

#[test]
fn a_first_file_that_says_nothing_of_the_others_costs_them_at_most_five_per_cent() {
    // All rows equal, then few values, then many.
    let file = |rng: &mut Rng, most: u64| {
        let mut text = String::from("key,value,note\n");
        for _ in 0..4000 {
            text += &format!(
                "{},{},n{}\n",
                rng.u64(0..most),
                rng.u64(0..most * 100),
                rng.u64(0..most)
            );
        }
        text.into_bytes()
    };
    let mut rng = Rng::with_seed(4);
    let files: Vec<Vec<u8>> = [1, 1, 4, 1000, 1_000_000, 20]
        .map(|most| file(&mut rng, most))
        .to_vec();
    let (with, without) = with_and_without_store(&files);
    assert!(with * 100 <= without * 105, "{with} {without}");
}

/// Half of `raw` as random bytes, as of a file that was damaged, then the rest.
fn half_random(rng: &mut Rng, raw: &[u8]) -> Vec<u8> {
    let half = raw.len() / 2;
    let random = (0..half).map(|_| rng.u8(..));
    random.chain(raw[half..].iter().copied()).collect()
}

/// One byte of a line is 0, so that its lines are no text.
fn with_byte_zero(raw: &[u8]) -> Vec<u8> {
    let mut raw = raw.to_vec();
    let middle = raw.len() / 2;
    raw[middle] = 0;
    raw
}

/// One letter of the middle is in upper case.
fn with_odd_value(raw: &[u8]) -> Vec<u8> {
    let mut raw = raw.to_vec();
    let middle = raw.len() / 2;
    if let Some(letter) = raw[middle..].iter_mut().find(|it| it.is_ascii_lowercase()) {
        letter.make_ascii_uppercase();
    }
    raw
}

#[test]
fn the_plan_of_a_faulty_file_makes_the_others_at_most_five_per_cent_larger() {
    let mut rng = Rng::with_seed(29);
    for version in [FormatVersion::V1, FormatVersion::V2] {
        for rows in [100, 400, 1500] {
            for kind in [orders, readings, documents] {
                let files: Vec<_> = (0..6).map(|_| kind(&mut rng, rows)).collect();
                let fresh = Packer::new(OPTIONS).with_version(version);
                let sizes = |packer: &Packer<'_>| -> Vec<usize> {
                    files.iter().map(|raw| pack(packer, raw).0.len()).collect()
                };
                let without: usize = sizes(&fresh).iter().sum();
                let faulty = [
                    half_random(&mut rng, &files[0]),
                    with_byte_zero(&files[0]),
                    with_odd_value(&files[0]),
                    files[0][..files[0].len() * 3 / 4].to_vec(),
                ];
                for (fault, first) in faulty.iter().enumerate() {
                    let store = PlanStore::default();
                    let stored = fresh.clone().with_store(&store);
                    pack(&stored, first);
                    let planned = fresh.clone().with_plan(store.plan());
                    for (how, sizes) in [("plan", sizes(&planned)), ("store", sizes(&stored))] {
                        let with: usize = sizes.iter().sum();
                        assert!(
                            with * 100 <= without * 105,
                            "{version:?}, {rows} rows, fault {fault}, {how}: {with} {without}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_plan_of_a_file_with_a_byte_zero_is_not_used_for_those_without() {
    let mut rng = Rng::with_seed(30);
    let (first, raw) = (identifiers(&mut rng, 2000), identifiers(&mut rng, 2000));
    let store = PlanStore::default();
    pack(
        &Packer::new(OPTIONS).with_store(&store),
        &with_byte_zero(&first),
    );
    let planned = Packer::new(OPTIONS).with_plan(store.plan());
    assert!(pack(&planned, &raw).0 == pack(&Packer::new(OPTIONS), &raw).0);
}

#[test]
fn the_packed_bytes_follow_from_input_options_and_plan() {
    let mut rng = Rng::with_seed(5);
    let (first, second) = (orders(&mut rng, 1000), orders(&mut rng, 3000));
    let store = PlanStore::default();
    pack(&Packer::new(OPTIONS).with_store(&store), &first);
    let plan = store.plan();
    let read = Plan::from_bytes(&plan.to_bytes()).expect("a plan file");
    assert_eq!(read.to_bytes(), plan.to_bytes());
    assert_eq!(read.schema_count(), 1);
    let options = CodecOptions {
        block_size: 16 << 10,
        ..OPTIONS
    };
    let planned = |plan: &Plan, threads| {
        let options = CodecOptions { threads, ..options };
        pack(&Packer::new(options).with_plan(plan.clone()), &second).0
    };
    let packed = planned(&plan, 1);
    assert!(packed == planned(&plan, 4) && packed == planned(&read, 1));
}

#[test]
fn a_damaged_or_foreign_plan_is_refused() {
    let store = PlanStore::default();
    let raw = orders(&mut Rng::with_seed(6), 300);
    pack(&Packer::new(OPTIONS).with_store(&store), &raw);
    let good = store.plan().to_bytes();
    assert!(Plan::is_plan_file(&good) && !Plan::is_plan_file(&raw));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        assert!(Plan::from_bytes(&bad).is_err(), "byte {at}");
        assert!(Plan::from_bytes(&good[..at]).is_err(), "{at} bytes");
    }
    let said = |bytes: &[u8]| Plan::from_bytes(bytes).expect_err("refused").to_string();
    assert!(said(&raw).contains("'streampress train' makes one"));
    assert!(said(&good[..good.len() - 1]).contains("train it again"));
    let of_before = [&good[..4], &[good[4] - 1], &good[5..]].concat();
    assert!(said(&of_before).contains("plan version"));
}

#[test]
fn a_plan_of_another_schema_does_no_harm() {
    let mut rng = Rng::with_seed(7);
    let store = PlanStore::default();
    let packer = Packer::new(OPTIONS).with_store(&store);
    pack(&packer, &orders(&mut rng, 1000));
    let other = readings(&mut rng, 2000);
    let planned = Packer::new(OPTIONS).with_plan(store.plan());
    assert!(pack(&planned, &other).0 == pack(&Packer::new(OPTIONS), &other).0);
}

#[test]
fn a_store_keeps_the_schemas_that_were_used_last_and_is_bounded() {
    let mut rng = Rng::with_seed(8);
    let store = PlanStore::default();
    let fast = CodecOptions {
        effort: Effort::Fast,
        ..OPTIONS
    };
    let packer = Packer::new(fast).with_store(&store);
    let mut schema = |number: usize| {
        let names: Vec<String> = (0..30)
            .map(|field| format!("\"f{number}x{field}\""))
            .collect();
        let row = |rng: &mut Rng| {
            let fields = names.iter().map(|name| format!("{name}:{}", rng.u16(..)));
            format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","))
        };
        (0..60)
            .map(|_| row(&mut rng))
            .collect::<String>()
            .into_bytes()
    };
    let known = |summary: &Summary| summary.plan_use.planned_columns > 30;
    // The second file of a schema is searched, too.
    pack(&packer, &schema(0));
    pack(&packer, &schema(0));
    for number in 1..80 {
        pack(&packer, &schema(number));
        // Used again and again, so that it stays. Now and then its plan is compared with a search.
        let of_first = [(); 2].map(|()| known(&pack(&packer, &schema(0)).1));
        assert!(of_first.contains(&true), "{number}");
    }
    pack(&packer, &schema(79));
    let plan = store.plan();
    assert!(plan.schema_count() <= 64);
    assert!(plan.memory_bytes() <= PlanStore::MAX_BYTES);
    assert!(known(&pack(&packer, &schema(79)).1));
    assert!(!known(&pack(&packer, &schema(1)).1));
}
