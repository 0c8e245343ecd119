//! slotlog as a cache of bounded size, beside moka: the same accesses for each of them, in turn, slice by slice. Prints
//! tables of hit rates, of what is held, and of speed. `--quick`: fewer keys and accesses.
//!
//! The limit is the length of the file for slotlog, with index and free space. For moka, in memory, it is the bytes of
//! keys and values alone, as users set it; and, for a second moka, all memory that it allocates, which is measured.
//! slotlog reads values in place and moka hands out an `Arc`; both check what they read.

use std::alloc::System;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use slotlog::{Options, Policy, Store};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of the accesses. The hashes of slotlog and moka have their own seeds, which differ from run to run.
const SEED: u64 = 42;
/// The accesses of a stream go to the caches in so many slices. Those of the first third warm up.
const SLICES: usize = 30;
/// Rounds of inserts.
const ROUNDS: usize = 5;
/// Numbers from here on belong to keys that are accessed once.
const ONCE: u64 = 1 << 40;
/// moka does its upkeep after so many accesses at the latest.
const MOKA_UPKEEP: usize = 1024;
/// The least limit of a store that evicts.
const LEAST_LIMIT: u64 = 1 << 20;
/// Name, exponent, and whether every tenth key is one that was never seen before.
const STREAMS: [(&str, f64, bool); 3] =
    [("zipfian 0.99", 0.99, false), ("zipfian 0.8", 0.8, false), ("zipfian 0.99 and a scan", 0.99, true)];
/// The columns of those with a limit.
const CACHES: &str = "oldest | second chance | moka, keys and values | moka, all memory";
const HITS: &str = "no limit | second chance - moka, keys and values | second chance - moka, all memory";
const SPEEDS: &str = "no limit | oldest / no limit | second chance / no limit | second chance / moka";
/// Entries with which the memory of one is measured.
const MEASURED: u64 = 100_000;

type Key = [u8; 16];
type Outcome<T> = Result<T, Box<dyn Error>>;

/// The key of a number: different numbers have different keys (SplitMix64: Steele, Lea and Flood, 2014).
fn key(number: u64) -> Key {
    let scrambled = |number: u64| {
        let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scrambled(number).to_le_bytes());
    key[8..].copy_from_slice(&scrambled(!number).to_le_bytes());
    key
}

/// Where the entries are.
enum Place {
    Store(Store, PathBuf),
    Moka(moka::sync::Cache<Key, Arc<[u8]>>),
}

/// A cache, and what went wrong with it.
struct Cache {
    place: Place,
    limit: u64,
    refused: u64,
    longest: u64,
}

impl Cache {
    fn store(options: Options, path: PathBuf, limit: u64) -> Outcome<Cache> {
        Ok(Cache { place: Place::Store(options.open(&path)?, path), limit, refused: 0, longest: 0 })
    }

    /// `besides`: bytes that count for each entry, besides key and value.
    fn moka(limit: u64, besides: u32) -> Cache {
        let weigh = move |key: &Key, value: &Arc<[u8]>| (key.len() + value.len()) as u32 + besides;
        let cache = moka::sync::Cache::builder().weigher(weigh).max_capacity(limit).build();
        Cache { place: Place::Moka(cache), limit, refused: 0, longest: 0 }
    }

    /// Whether the entry is there.
    fn get(&self, key: &Key) -> Outcome<bool> {
        let is_right = match &self.place {
            Place::Store(store, _) => store.get_with(key, |value| value.starts_with(key))?,
            Place::Moka(cache) => cache.get(key).map(|value| value.starts_with(key)),
        };
        assert_ne!(is_right, Some(false), "the value of another key");
        Ok(is_right.is_some())
    }

    fn insert(&mut self, key: &Key, value: &mut [u8]) -> Outcome<()> {
        value[..key.len()].copy_from_slice(key);
        match &self.place {
            Place::Store(store, _) => match store.insert(key, &*value) {
                Err(slotlog::Error::Full { .. }) => self.refused += 1,
                outcome => outcome?,
            },
            Place::Moka(cache) => cache.insert(*key, Arc::from(&*value)),
        }
        Ok(())
    }

    /// Accesses entries, and inserts what is not there: how many are, and millions of accesses a second. `is_fresh`:
    /// none is there, so they are only inserted.
    fn run(&mut self, numbers: &[u64], value: &mut [u8], is_fresh: bool) -> Outcome<(usize, f64)> {
        let (mut hits, start) = (0, Instant::now());
        for numbers in numbers.chunks(MOKA_UPKEEP) {
            for &number in numbers {
                let key = key(number);
                match !is_fresh && self.get(&key)? {
                    true => hits += 1,
                    false => self.insert(&key, value)?,
                }
            }
            if let Place::Moka(cache) = &self.place {
                cache.run_pending_tasks();
            }
        }
        let speed = numbers.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
        if let Place::Store(_, path) = &self.place {
            self.longest = self.longest.max(fs::metadata(path)?.len());
        }
        Ok((hits, speed))
    }

    /// Closes the store: how many entries there were. What was odd is added to the rest of that.
    fn end(mut self, row: &str, odd: &mut Vec<String>) -> Outcome<u64> {
        let (store, path) = match self.place {
            Place::Moka(cache) => return Ok(cache.entry_count()),
            Place::Store(store, path) => (store, path),
        };
        let (clears, len) = (store.stats()?.eviction.clears, store.len()?);
        store.close()?;
        self.longest = self.longest.max(fs::metadata(&path)?.len());
        if self.longest > self.limit || self.refused > 0 || clears > 0 {
            let (longest, limit, refused) = (self.longest, self.limit, self.refused);
            odd.push(format!("{row} {path:?}: {longest} of {limit} bytes, {refused} times `Full`, {clears} clears"));
        }
        Ok(len)
    }
}

/// Bytes of memory that moka takes for an entry besides its key and its value.
fn besides(value_len: usize) -> Outcome<u32> {
    let mut cache = Cache::moka(u64::MAX, 0);
    let numbers: Vec<u64> = (0..MEASURED).collect();
    let mut value = vec![7; value_len];
    // What it takes however few there are.
    cache.run(&[u64::MAX], &mut value, true)?;
    let region = Region::new(ALLOCATOR);
    cache.run(&numbers, &mut value, true)?;
    let change = region.change();
    let taken = (change.bytes_allocated as isize + change.bytes_reallocated - change.bytes_deallocated as isize) as u64;
    Ok((taken / MEASURED) as u32 - (size_of::<Key>() + value_len) as u32)
}

/// Caches of each kind: both policies, moka twice, and a store without a limit.
const KINDS: usize = 5;

/// One of each kind.
struct Caches {
    caches: [Cache; KINDS],
    value: Vec<u8>,
    turns: usize,
    _folder: TempDir,
}

impl Caches {
    fn new(value_len: usize, limit: u64, besides: u32) -> Outcome<Caches> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let cache = |policy: Policy| {
            let options = Store::options().max_size(limit).evict(policy);
            Cache::store(options, folder.path().join(format!("{policy:?}")), limit)
        };
        let unlimited = Cache::store(Store::options(), folder.path().join("unlimited"), u64::MAX)?;
        let [by_content, by_memory] = [0, besides].map(|besides| Cache::moka(limit, besides));
        let caches = [cache(Policy::Oldest)?, cache(Policy::SecondChance)?, by_content, by_memory, unlimited];
        Ok(Caches { caches, value: vec![7; value_len], turns: 0, _folder: folder })
    }

    /// Each cache has the slice in turn; another one begins each time. See [`Cache::run`].
    fn turn(&mut self, slice: &[u64], is_fresh: bool) -> Outcome<([usize; KINDS], [f64; KINDS])> {
        let (mut hits, mut speeds) = ([0; KINDS], [0.0; KINDS]);
        for place in (0..KINDS).map(|place| (place + self.turns) % KINDS) {
            (hits[place], speeds[place]) = self.caches[place].run(slice, &mut self.value, is_fresh)?;
        }
        self.turns += 1;
        Ok((hits, speeds))
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Median speeds, and the medians of the ratios of each turn.
fn speeds(turns: &[[f64; KINDS]]) -> String {
    let of_each = [0, 1, 2, 3, 4].map(|place| median(turns.iter().map(|turn| turn[place])));
    let ratios = [(0, 4), (1, 4), (1, 2)].map(|(one, to)| median(turns.iter().map(|turn| turn[one] / turn[to])));
    of_each.iter().chain(&ratios).map(|figure| format!("{figure:.2} |")).collect::<Vec<_>>().join(" ")
}

/// Prints a table, whose first columns are always the same.
fn print(title: &str, columns: &str, rows: &[String]) {
    println!("\n### {title}\n\n| values | limit | stream | {columns} |");
    println!("| ---: | ---: | --- |{}\n{}", " ---: |".repeat(columns.split('|').count()), rows.join("\n"));
}

fn main() -> Outcome<ExitCode> {
    let (keys, accesses, inserts) = match env::args().nth(1).as_deref() {
        None => (1_000_000, 2_100_000, 300_000),
        Some("--quick") => (100_000, 300_000, 50_000),
        Some(_) => return Err("usage: slotlog-cache-bench [--quick]".into()),
    };
    println!("{keys} keys of 16 bytes, {accesses} accesses a stream, {ROUNDS} x {inserts} inserts, seed {SEED}.");
    println!("Limits are shares of the bytes of all keys and values. Speeds are medians, as are their ratios.");
    let [mut rates, mut held, mut speed, mut fresh, mut odd] = [const { Vec::new() }; 5];
    for (value_len, percent) in [(100, 2), (100, 10), (1000, 2), (1000, 10)] {
        let entry = (size_of::<Key>() + value_len) as u64;
        let limit = (keys * entry * percent / 100).max(LEAST_LIMIT);
        let (share, megabytes) = (limit as f64 / (keys * entry) as f64 * 100.0, limit as f64 / 1e6);
        let besides = besides(value_len)?;
        let start = format!("| {value_len} B | {share:.0} %, {megabytes:.1} MB |");
        for (name, exponent, is_scan) in STREAMS {
            let (zipf, mut random) = (Zipf::new(keys as f64, exponent)?, StdRng::seed_from_u64(SEED));
            let number = |at: usize| match is_scan && at % 10 == 9 {
                true => ONCE + at as u64,
                false => zipf.sample(&mut random) as u64,
            };
            let (numbers, row) = ((0..accesses).map(number).collect::<Vec<u64>>(), format!("{start} {name} |"));
            let (mut caches, mut hits, mut turns) = (Caches::new(value_len, limit, besides)?, [0; KINDS], Vec::new());
            for (turn, slice) in numbers.chunks(accesses / SLICES).enumerate() {
                let (found, speeds) = caches.turn(slice, false)?;
                if turn >= SLICES / 3 {
                    (0..KINDS).for_each(|place| hits[place] += found[place]);
                    turns.push(speeds);
                }
            }
            let rate = hits.map(|hits| (hits * 100) as f64 / (turns.len() * accesses / SLICES) as f64);
            let beside = [rate[1] - rate[2], rate[1] - rate[3]];
            let columns = rate.iter().chain(&beside).map(|figure| format!("{figure:.1} |")).collect::<Vec<_>>();
            rates.push(format!("{row} {}", columns.join(" ")));
            speed.push(format!("{row} {}", speeds(&turns)));
            let mut shares = [0; KINDS];
            for (cache, share) in caches.caches.into_iter().zip(&mut shares) {
                *share = cache.end(&row, &mut odd)? * entry * 100 / limit;
            }
            held.push(format!("{row} {} | {} | {} | {} |", shares[0], shares[1], shares[2], shares[3]));
        }
        let (mut caches, mut turns, mut next, row) =
            (Caches::new(value_len, limit, besides)?, Vec::new(), 0, start + " fresh |");
        for (round, count) in [limit / entry].into_iter().chain([inserts; ROUNDS]).enumerate() {
            let (_, speeds) = caches.turn(&(next..next + count).collect::<Vec<u64>>(), true)?;
            next += count;
            turns.extend((round > 0).then_some(speeds)); // in the first one, the caches fill
        }
        fresh.push(format!("{row} {}", speeds(&turns)));
        caches.caches.into_iter().try_for_each(|cache| cache.end(&row, &mut odd).map(drop))?;
    }
    print("Hit rate, %", &format!("{CACHES} | {HITS}"), &rates);
    print("Keys and values held at the end, % of the limit", CACHES, &held);
    print("Millions of accesses a second; a miss inserts", &format!("{CACHES} | {SPEEDS}"), &speed);
    print("Millions of inserts a second, when full", &format!("{CACHES} | {SPEEDS}"), &fresh);
    odd.iter().for_each(|what| println!("\nODD: {what}"));
    if odd.is_empty() {
        println!("\nNo insert was refused, no file was longer than its limit, and no cache was cleared.");
    }
    Ok(if odd.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
