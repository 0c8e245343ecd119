//! Whether anything stops the world: the time of single inserts, one by one, while a store grows from nothing to five
//! million keys (`SLOTLOG_BENCH_KEYS`) with values of 100 bytes, and then the time of single overwrites, twice as many,
//! during compaction.
//!
//! For comparison there are a standard `HashMap`, and a loop that only reads the clock and counts: *its* waits are the
//! machine's. All three take turns, chunk by chunk, so that they see the same machine. The file is in the usual folder
//! for temporary files, or in `SLOTLOG_BENCH_DIR`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use common::{Key, folder, key_count, keys, shuffled, value};
use slotlog::Store;

/// Operations of one kind in a row.
const CHUNK: usize = 50_000;

/// How long each of many operations took, in nanoseconds.
#[derive(Default)]
struct Times(Vec<u32>);

impl Times {
    #[inline]
    fn take(&mut self, operation: impl FnOnce()) {
        let start = Instant::now();
        operation();
        self.0.push(start.elapsed().as_nanos().min(u32::MAX.into()) as u32);
    }

    fn print(mut self, name: &str) {
        self.0.sort_unstable();
        let at = |share: f64| f64::from(self.0[((self.0.len() - 1) as f64 * share) as usize]) / 1000.0;
        println!("{name:<28} {:>10.2} {:>10.2} {:>10.2} {:>12.2}", at(0.5), at(0.99), at(0.9999), at(1.0));
    }
}

/// Takes about as long as an insert, and waits for nothing.
#[inline]
fn idle(seed: u64) {
    let mut sum = seed;
    for step in 0..300 {
        sum = black_box(sum.rotate_left(5) ^ step);
    }
}

struct Run {
    store: Store,
    map: HashMap<Vec<u8>, Vec<u8>>,
}

impl Run {
    /// Sets the values of keys, in the store and in the map, and prints the times of each.
    fn set_all(&mut self, what: &str, keys: &[Key], version: u8) {
        let (mut of_store, mut of_map, mut of_nothing) = (Times::default(), Times::default(), Times::default());
        for chunk in keys.chunks(CHUNK) {
            for key in chunk {
                let value = value(key, version);
                of_store.take(|| self.store.insert(key, value).unwrap());
            }
            for key in chunk {
                let value = value(key, version);
                of_map.take(|| drop(self.map.insert(key.to_vec(), value.to_vec())));
            }
            for (number, _) in chunk.iter().enumerate() {
                of_nothing.take(|| idle(number as u64));
            }
        }
        println!("\n{:<28} {:>10} {:>10} {:>10} {:>12}", format!("{what}, µs"), "p50", "p99", "p99.99", "max");
        of_store.print("slotlog");
        of_map.print("std HashMap");
        of_nothing.print("a loop that does nothing");
    }
}

fn main() {
    let count = key_count(5_000_000);
    let folder = folder();
    let store = Store::open(folder.path().join("stall.slotlog")).unwrap();
    let mut run = Run { store, map: HashMap::new() };
    let keys = keys(0, count);
    println!("{count} keys of 16 bytes with values of 100");
    run.set_all("insert", &keys, 1);
    let again = [shuffled(&keys), keys].concat();
    run.set_all("overwrite", &again, 2);
    let upkeep = run.store.stats().unwrap().upkeep;
    println!();
    for (what, all, most) in [
        ("lines of the index moved", upkeep.lines, upkeep.most_lines),
        ("blocks of 4 KiB zeroed", upkeep.blocks, upkeep.most_blocks),
        ("bytes of the log moved", upkeep.moved_bytes, upkeep.most_moved_bytes),
        ("bytes handed to the disk", upkeep.flushed_bytes, upkeep.most_flushed_bytes),
    ] {
        println!("{what:<28} {all:>12} in all, at most {most:>9} by one write");
    }
}
