//! The space that a store takes for its content, and the cost of getting space back.
//!
//! First the life of a store of 200,000 keys (`SLOTLOG_BENCH_KEYS`) with values of 100 bytes: it is loaded, its keys
//! are overwritten twenty times, nine tenths of them are removed, the rest is overwritten some more, and it is
//! compacted. For each stage it prints the length of the file per byte of readable keys and values, and the greatest
//! length since the stage before.
//!
//! Then write amplification: bytes appended to the log per byte that the overwrites themselves append, in steady state,
//! with uniform and with zipfian keys (exponent 0.99), for different dead shares.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::{Key, folder, is_try, key_count, keys, value};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use slotlog::{Store, format};

/// Bytes of a key and its value.
const PAYLOAD: u64 = 16 + 100;

/// Which keys are overwritten.
#[derive(Clone, Copy)]
enum Choice {
    Uniform,
    Zipfian,
}

/// Overwrites keys, and keeps track of the longest file.
struct Writer<'a> {
    store: &'a Store,
    path: &'a Path,
    keys: &'a [Key],
    random: SmallRng,
    longest: u64,
}

impl Writer<'_> {
    fn overwrite(&mut self, count: usize, choice: Choice) {
        let zipf = Zipf::new(self.keys.len() as f64, 0.99).unwrap();
        for number in 0..count {
            let chosen = match choice {
                Choice::Uniform => self.random.random_range(0..self.keys.len()),
                // The keys are in random order, so rank and place are independent.
                Choice::Zipfian => zipf.sample(&mut self.random) as usize - 1,
            };
            let key = &self.keys[chosen];
            self.store.insert(key, value(key, number as u8)).unwrap();
            if number % 1000 == 0 {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        self.longest = self.longest.max(fs::metadata(self.path).unwrap().len());
    }

    /// Prints a row, and resets the longest file.
    fn stage(&mut self, name: &str) {
        self.look();
        let len = fs::metadata(self.path).unwrap().len();
        let payload = (self.store.len().unwrap() * PAYLOAD) as f64;
        let dead = 100.0 * self.store.stats().unwrap().dead_share;
        let (ratio, most) = (len as f64 / payload, self.longest as f64 / payload);
        println!("{name:<34} {:>9.2} {ratio:>16.2} {most:>16.2} {dead:>7.1} %", len as f64 / (1 << 20) as f64);
        self.longest = len;
    }
}

fn life(count: usize) {
    let (folder, keys) = (folder(), keys(0, count));
    let path = folder.path().join("space.slotlog");
    let store = Store::open(&path).unwrap();
    let random = SmallRng::seed_from_u64(1);
    let mut writer = Writer { store: &store, path: &path, keys: &keys, random, longest: 0 };
    println!("{:<34} {:>9} {:>16} {:>16} {:>9}", "stage", "MiB", "bytes per byte", "at the longest", "dead");
    println!("{:<34} {:>9.2}", "empty", fs::metadata(&path).unwrap().len() as f64 / (1 << 20) as f64);
    for key in &keys {
        store.insert(key, value(key, 0)).unwrap();
    }
    writer.stage("loaded");
    let mut done = 0;
    for times in [1, 2, 5, 10, 20] {
        writer.overwrite((times - done) * count, Choice::Uniform);
        done = times;
        writer.stage(&format!("overwritten {times} times"));
    }
    let left = (count / 10).max(1);
    for key in &keys[left..] {
        store.remove(key).unwrap();
    }
    writer.longest = 0;
    writer.keys = &keys[..left];
    writer.stage("nine tenths removed");
    for times in [1, 5] {
        writer.overwrite(times * left, Choice::Uniform);
        writer.longest = 0;
        writer.stage(if times == 1 { "the rest overwritten once" } else { "… and five times more" });
    }
    let report = store.compact().unwrap();
    writer.longest = 0;
    writer.stage("compacted");
    println!("compact() moved {} bytes, and the file is shorter by {}", report.moved_bytes, report.freed_bytes);
}

/// Bytes appended per byte of the overwrites, once the log has its full length; and the longest file meanwhile.
fn amplification(count: usize, share: f64, choice: Choice) -> (f64, f64) {
    let (folder, keys) = (folder(), keys(0, count));
    let path = folder.path().join("amplification.slotlog");
    let store = Store::options().auto_compact(Some(share)).open(&path).unwrap();
    for key in &keys {
        store.insert(key, value(key, 0)).unwrap();
    }
    let random = SmallRng::seed_from_u64(2);
    let mut writer = Writer { store: &store, path: &path, keys: &keys, random, longest: 0 };
    let rounds = if is_try() { 1 } else { 6 };
    writer.overwrite(rounds * count, choice);
    let before = store.stats().unwrap().upkeep.moved_bytes;
    writer.longest = 0;
    writer.overwrite(rounds * count, choice);
    let moved = (store.stats().unwrap().upkeep.moved_bytes - before) as f64;
    let written = (rounds * count) as f64 * format::record_len(16, 100) as f64;
    (1.0 + moved / written, writer.longest as f64 / (count as u64 * PAYLOAD) as f64)
}

fn main() {
    let count = key_count(200_000);
    println!("{count} keys of 16 bytes with values of 100\n");
    life(count);
    println!("\n{:<34} {:>20} {:>20}", "dead share", "uniform", "zipfian");
    for share in [0.25, 0.5, 0.7] {
        let [uniform, zipfian] = [Choice::Uniform, Choice::Zipfian].map(|choice| {
            let (amplification, ratio) = amplification(count, share, choice);
            format!("{amplification:.2} ({ratio:.2})")
        });
        let name = if share == 0.5 { format!("{share} (the default)") } else { share.to_string() };
        println!("{name:<34} {uniform:>20} {zipfian:>20}");
    }
    println!("bytes appended per byte written (bytes of file per byte of keys and values, at the longest)");
}
