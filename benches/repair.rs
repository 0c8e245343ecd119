//! How long a repair takes, beside reading the file.
//!
//! `cargo bench --bench repair -- [keys]`

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::time::Instant;

use slotlog::{RepairOptions, Store};

fn main() {
    let keys: u64 = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let (path, repaired) = (folder.path().join("store"), folder.path().join("repaired"));
    println!("{:>10} {:>10} {:>10} {:>12} {:>12} {:>12}", "value", "keys", "MB", "read MB/s", "repair MB/s", "damaged");
    for len in [100, 1000, 10_000] {
        let store = Store::options().initial_capacity(keys).open(&path).unwrap();
        let count = keys.min(keys * 300 / len as u64);
        for key in 0..count {
            store.insert(key.to_be_bytes(), vec![key as u8; len]).unwrap();
        }
        store.close_last().unwrap();
        let megabytes = fs::metadata(&path).unwrap().len() as f64 / 1e6;
        let start = Instant::now();
        assert!(fs::read(&path).unwrap().len() > 1);
        let read = megabytes / start.elapsed().as_secs_f64();
        let start = Instant::now();
        let report = slotlog::repair_with(&path, &repaired, RepairOptions::new().overwrite(true)).unwrap();
        let whole = megabytes / start.elapsed().as_secs_f64();
        assert!(report.is_whole() && report.keys() == count);

        let mut bytes = fs::read(&path).unwrap();
        let at = 65536 + bytes.len() / 3;
        bytes[..8192].fill(0);
        bytes[at..at + 4096].fill(0);
        fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        let report = slotlog::repair_with(&path, &repaired, RepairOptions::new().overwrite(true)).unwrap();
        let damaged = megabytes / start.elapsed().as_secs_f64();
        assert!(report.keys() + 200 > count);
        println!("{len:>10} {count:>10} {megabytes:>10.0} {read:>12.0} {whole:>12.0} {damaged:>12.0}");
        fs::remove_file(&path).unwrap();
    }
}
