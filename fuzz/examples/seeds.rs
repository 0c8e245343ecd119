//! Writes the seeds of the fuzz targets: programs that reach what a blind search takes hours to come across.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds -- fuzz/seeds`

use std::path::Path;
use std::{env, fs};

type Step = [u8; 4];

/// Programs of `operations`: bits of the head, blocks, and steps.
fn operations() -> Vec<(&'static str, Vec<u8>)> {
    const FILL: u8 = 3;
    let fill = |map: u8| [FILL, 1, 60, map];
    let program = |bits: u8, blocks: u8, steps: &[Step]| [&[bits, blocks, 0, 0][..], &steps.concat()].concat();
    let transaction = [[12, 0, 0, 0], [0, 9, 40, 0], [0, 9, 40, 1], [2, 9, 0, 0], [10, 9, 0, 1], [14, 2, 0, 0]];
    let maps = [[0, 4, 10, 1], [0, 5, 10, 2], [0, 6, 10, 0]];
    let churn: Vec<Step> = (0..12).map(|round| [FILL, round % 4, 40, 90 + round % 3]).collect();
    let all = |parts: &[&[Step]]| parts.concat();
    vec![
        ("transaction", program(0, 0, &all(&[&maps, &transaction, &[[26, 0, 0, 0]]]))),
        ("transaction-killed", program(1, 0, &all(&[&maps, &transaction[..4], &[[27, 0, 0, 0], [10, 9, 0, 0]]]))),
        ("transaction-copied", program(3, 0, &all(&[&maps, &transaction[..4], &[[28, 0, 0, 0], [10, 9, 0, 0]]]))),
        ("grow", program(1, 0, &[fill(0), fill(1), fill(2), [27, 0, 0, 0], fill(0), [28, 0, 0, 0]])),
        ("drain", program(1, 0, &[fill(0), [4, 1, 60, 0], [21, 9, 0, 0], [20, 0, 0, 0]])),
        (
            "snapshots",
            program(3, 0, &all(&[&maps, &[[15, 0, 0, 0], fill(1), [5, 0, 0, 1], [15, 0, 0, 0], [16, 0, 0, 0]]])),
        ),
        ("churn", program(3, 0, &all(&[&churn, &[[21, 200, 0, 0], [27, 0, 0, 0]], &churn, &[[28, 0, 0, 0]]]))),
        ("full", program(11, 20, &all(&[&churn, &[[0, 9, 255, 0], [4, 1, 60, 0]], &churn, &[[21, 200, 0, 0]]]))),
        (
            "openings",
            program(
                1,
                0,
                &all(&[&[[24, 0, 0, 0]], &maps, &[[64, 7, 20, 1], [0, 8, 20, 1], [74, 8, 0, 1], [89, 0, 0, 0]]]),
            ),
        ),
        (
            "expired",
            program(3, 0, &[[6, 5, 0, 0], [6, 6, 0, 1], [0, 7, 9, 1], [22, 0, 0, 0], [27, 0, 0, 0], [8, 0, 0, 1]]),
        ),
        (
            "dropped",
            program(1, 0, &all(&[&maps, &[[30, 0, 0, 1], [30, 1, 0, 2], [28, 0, 0, 0], fill(1), [21, 90, 0, 0]]])),
        ),
        ("looked-at", program(0, 0, &all(&[&maps, &[[29, 0, 0, 0], [29, 1, 0, 0], [29, 2, 0, 0], [18, 0, 0, 0]]]))),
        ("long", program(16, 0, &[[0, 2, 251, 0], [0, 3, 255, 1], [27, 0, 0, 0], [0, 1, 240, 0], [28, 0, 0, 0]])),
        ("update", program(0, 0, &[[7, 4, 1, 1], [7, 4, 2, 1], [7, 4, 0, 1], [9, 200, 0, 1], [8, 0, 0, 1]])),
    ]
}

/// Everything that can be done, in two programs.
fn uses() -> [Vec<u8>; 2] {
    let reads: &[Step] = &[[0, 1, 0, 0], [7, 0, 0, 0], [8, 0, 0, 0], [11, 3, 4, 0], [17, 2, 0, 0], [18, 0, 0, 0]];
    let writes: &[Step] = &[
        [1, 3, 9, 0],
        [3, 40, 1, 0],
        [4, 5, 0, 0],
        [6, 8, 9, 0],
        [9, 1, 0, 0],
        [10, 2, 7, 0],
        [12, 9, 9, 1],
        [13, 2, 3, 1],
        [16, 1, 7, 0],
        [1, 60, 255, 8],
        [19, 0, 0, 0],
        [20, 60, 0, 0],
        [21, 0, 0, 0],
        [22, 0, 0, 0],
        [5, 0, 0, 0],
        [14, 0, 0, 0],
    ];
    [reads.concat(), writes.concat()]
}

/// Changes of twelve bytes: place, number, offset, kind of the value, value.
fn changes() -> Vec<(String, Vec<u8>)> {
    let mut changes = Vec::new();
    let mut add = |name: String, [place, number, offset, kind]: [u8; 4], value: u64| {
        changes.push((name, [&[place, number, offset, kind][..], &value.to_le_bytes()].concat()));
    };
    // The words of a superblock that say something of the log, one more and one less than they were.
    for field in (48..160).step_by(8) {
        add(format!("superblock-{field}"), [0, 0, field, 4], if field % 16 == 0 { 1 } else { 255 });
    }
    for (name, word) in [("horizon", 8), ("map-table", 9), ("space-table", 10), ("lock", 16), ("visible", 32)] {
        add(format!("live-{name}"), [2, word, 0, 11], 1);
        add(format!("live-{name}-zero"), [2, word, 0, 0], 0);
    }
    for (field, offset) in [("value-len", 8), ("kind", 14), ("seq", 16), ("prev", 24)] {
        add(format!("record-{field}"), [4, 20, offset, 11], 1);
    }
    add("slot-elsewhere".into(), [9, 5, 0, 5], 30);
    add("region-lines".into(), [7, 0, 16, 11], 30);
    add("region-since".into(), [7, 0, 32, 4], 9);
    add("map-entry".into(), [12, 1, 8, 11], 8);
    add("space-entry".into(), [14, 1, 0, 3], 3);
    changes
}

fn open_image() -> Vec<(String, Vec<u8>)> {
    let [reads, writes] = uses();
    let mut seeds = Vec::new();
    for base in [0x00, 0x10, 0x20, 0x01, 0x12, 0x02, 0x13, 0x03] {
        seeds.push((format!("whole-{base:02x}"), [&[base, 0, 0, 0, 0][..], &reads, &writes].concat()));
    }
    for (number, (name, change)) in changes().into_iter().enumerate() {
        let base = if name.starts_with("live") { 0x10 } else { [0x00, 0x13, 0x20][number % 3] };
        let uses = if number % 2 == 0 { &writes } else { &reads };
        seeds.push((name, [&[base, 3, 0, 0, 1][..], &change, uses].concat()));
    }
    seeds
}

fn concurrent_image() -> Vec<(String, Vec<u8>)> {
    let changes = changes().into_iter().enumerate();
    changes
        .map(|(number, (name, change))| {
            // Each comes and goes, then stays.
            let base = [0x00, 0x10, 0x13, 0x12][number % 4];
            (name, [&[base, 0, 0, 0, 1][..], &change, &change].concat())
        })
        .collect()
}

/// Records of `record_header`, 16 bytes each.
fn record_header() -> Vec<(&'static str, Vec<u8>)> {
    const COMMIT: u8 = 1;
    let record = |kind: u8, flags: u8, key: u8, odd: u8, len: u32, map: u16, rest: [u8; 4]| {
        let [prev, block, incarnations, fill] = rest;
        let seq = u16::from(flags & COMMIT);
        let (len, seq, map) = (len.to_le_bytes(), seq.to_le_bytes(), map.to_le_bytes());
        [&[kind, flags, key, odd][..], &len, &seq, &map, &[prev, block, incarnations, fill]].concat()
    };
    let put = |key| record(1, 3, key, 0, 20, 1, [0, 0, 0, key]);
    let remove = |key| record(2, COMMIT, key, 0, 0, 1, [1, 0, 0, 0]);
    let jump = |block| record(4, 0, 0, 0, 0, 0, [0, block, 0, 0]);
    let program = |bits: u8, checkpoint: u8, records: &[Vec<u8>]| [&[bits, checkpoint][..], &records.concat()].concat();
    vec![
        ("puts", program(0, 0, &[put(1), put(2), put(3), remove(2), put(1)])),
        ("until-the-checkpoint", program(8, 2, &[put(1), put(2), put(3)])),
        ("jump", program(0, 0, &[put(1), jump(9), put(2), jump(3), put(3)])),
        ("circle", program(0, 0, &[put(1), jump(0)])),
        ("map", program(0, 0, &[record(1, 3, 4, 0, 30, 0, [0; 4]), record(1, 3, 5, 0, 30, 2, [0; 4])])),
        ("clear", program(0, 0, &[put(1), record(3, COMMIT, 0, 0, 8, 1, [0; 4]), put(2)])),
        ("incarnation", program(0, 0, &[put(1), record(5, COMMIT, 0, 4, 0, 0, [0, 0, 1, 0]), put(2)])),
        ("expires", program(1, 0, &[record(1, 11, 1, 0, 9, 1, [0; 4]), record(1, 11, 2, 0, 9, 1, [0, 0, 0, 255])])),
        ("large", program(0, 0, &[record(1, 3, 1, 0, 70_000, 1, [0; 4]), put(2)])),
        ("short", program(0, 0, &[put(1), record(1, 3, 2, 4, u32::MAX, 1, [0; 4])])),
        ("one-commit", program(16, 0, &[record(1, 2, 1, 0, 9, 1, [0; 4]), record(1, 2, 2, 0, 9, 1, [0; 4]), put(3)])),
        ("unaligned", program(0, 0, &[put(1), record(4, 0, 0, 16, 0, 0, [0, 9, 0, 0]), put(2)])),
    ]
}

fn write(folder: &Path, target: &str, seeds: Vec<(impl AsRef<str>, Vec<u8>)>) {
    let folder = folder.join(target);
    fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in seeds {
        fs::write(folder.join(name.as_ref()), bytes).unwrap();
    }
}

fn main() {
    let folder = env::args_os().nth(1).expect("the folder to write to");
    let folder = Path::new(&folder);
    write(folder, "operations", operations());
    write(folder, "open_image", open_image());
    write(folder, "concurrent_image", concurrent_image());
    write(folder, "record_header", record_header());
}
