//! The cost of keys chosen by a reader of the file: it contains the seed of the key hash, so keys can be found that all
//! begin their search at one place of the index, however large that is. `SLOTLOG_BENCH_KEYS` of them are inserted and
//! read, beside as many ordinary ones.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use common::{is_try, key_count};
use slotlog::Store;
use slotlog::format::{KeyHash, MAGIC, SUPERBLOCK_A, SUPERBLOCK_B, Superblock};
use slotlog::zerocopy::FromBytes;

/// The chosen keys begin in one of this many parts of the index.
const PARTS: u64 = 1 << 14;

/// The hash seed, which every reader of the file can see.
fn seed(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let superblocks =
        [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| Superblock::read_from_prefix(&bytes[at as usize..]).unwrap().0);
    superblocks.iter().find(|superblock| superblock.magic == MAGIC).unwrap().hash_seed.get()
}

/// Nanoseconds per insert of the last tenth of these keys, and per read of any.
fn measure(store: &Store, keys: &[u64]) -> (f64, f64) {
    let (first, last) = keys.split_at(keys.len() / 10 * 9);
    let insert = |keys: &[u64]| keys.iter().for_each(|key| store.insert(key.to_le_bytes(), [7; 16]).unwrap());
    insert(first);
    let start = Instant::now();
    insert(last);
    let inserts = start.elapsed().as_secs_f64() * 1e9 / last.len() as f64;
    let start = Instant::now();
    let read = keys.iter().step_by(10);
    let reads = read.len() as f64;
    read.for_each(|key| drop(black_box(store.get(key.to_le_bytes()).unwrap())));
    (inserts, start.elapsed().as_secs_f64() * 1e9 / reads)
}

fn main() {
    let count = key_count(if is_try() { 500 } else { 100_000 });
    let folder = tempfile::tempdir().unwrap();
    println!("{:>12} {:>10} {:>14} {:>14}", "keys", "number", "insert ns", "get ns");
    for chosen in [false, true] {
        let path = folder.path().join(if chosen { "chosen" } else { "any" });
        let store = Store::open(&path).unwrap();
        let seed = seed(&path);
        let is_wanted = |key: &u64| !chosen || KeyHash::of(&key.to_le_bytes(), seed).line(PARTS) == 0;
        let keys: Vec<u64> = (0..).filter(is_wanted).take(count).collect();
        let (insert, get) = measure(&store, &keys);
        println!("{:>12} {count:>10} {insert:>14.0} {get:>14.0}", if chosen { "chosen" } else { "any" });
    }
}
