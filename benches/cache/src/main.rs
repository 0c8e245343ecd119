//! slotlog as a cache of bounded size, beside moka: the same accesses for each of them, in turn, slice by slice. Prints
//! tables of hit rates, of what is held, and of speed. `--quick`: fewer keys and accesses.
//!
//! The limit is the length of the file for slotlog, with index and free space; for moka, in memory, it is the bytes of
//! keys and values alone. slotlog reads values in place and moka hands out an `Arc`; both check what they read.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use slotlog::{Policy, Store};
use tempfile::TempDir;

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

/// What is measured, in the order of the columns.
const KINDS: [Kind; 4] =
    [Kind::Store(Some(Policy::Oldest)), Kind::Store(Some(Policy::SecondChance)), Kind::Moka, Kind::Store(None)];

/// The columns of those with a limit.
const CACHES: &str = "oldest | second chance | moka";

const STREAMS: [Stream; 3] = [
    Stream { name: "zipfian 0.99", exponent: 0.99, scan: false },
    Stream { name: "zipfian 0.8", exponent: 0.8, scan: false },
    Stream { name: "zipfian 0.99 and a scan", exponent: 0.99, scan: true },
];

type Key = [u8; 16];
/// Millions of accesses a second, of each kind.
type Speeds = [f64; KINDS.len()];
type Outcome<T> = Result<T, Box<dyn Error>>;

/// How much is measured.
struct Scale {
    keys: u64,
    accesses: usize,
    inserts: u64,
}

/// Which keys are accessed. In a scan, every tenth is one that was never seen before.
struct Stream {
    name: &'static str,
    exponent: f64,
    scan: bool,
}

impl Stream {
    fn numbers(&self, scale: &Scale) -> Outcome<Vec<u64>> {
        let (zipf, mut random) = (Zipf::new(scale.keys as f64, self.exponent)?, StdRng::seed_from_u64(SEED));
        let number = |at: usize| match self.scan && at % 10 == 9 {
            true => ONCE + at as u64,
            false => zipf.sample(&mut random) as u64,
        };
        Ok((0..scale.accesses).map(number).collect())
    }
}

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

/// What a cache is made of: a store with that policy, or without one and without a limit; or moka.
#[derive(Clone, Copy)]
enum Kind {
    Store(Option<Policy>),
    Moka,
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
    fn new(kind: Kind, limit: u64, folder: &Path) -> Outcome<Cache> {
        let (place, limit) = match kind {
            Kind::Store(Some(policy)) => {
                let path = folder.join(format!("{policy:?}"));
                (Place::Store(Store::options().max_size(limit).evict(policy).open(&path)?, path), limit)
            }
            Kind::Store(None) => {
                let path = folder.join("unlimited");
                (Place::Store(Store::open(&path)?, path), u64::MAX)
            }
            Kind::Moka => {
                let weigh = |key: &Key, value: &Arc<[u8]>| (key.len() + value.len()) as u32;
                (Place::Moka(moka::sync::Cache::builder().weigher(weigh).max_capacity(limit).build()), limit)
            }
        };
        Ok(Cache { place, limit, refused: 0, longest: 0 })
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

    /// Accesses entries, and inserts what is not there: how many are, and the seconds that it took. `is_fresh`: none is
    /// there, so they are only inserted.
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
        let seconds = start.elapsed().as_secs_f64();
        if let Place::Store(_, path) = &self.place {
            self.longest = self.longest.max(fs::metadata(path)?.len());
        }
        Ok((hits, seconds))
    }

    fn len(&self) -> Outcome<u64> {
        match &self.place {
            Place::Store(store, _) => Ok(store.len()?),
            Place::Moka(cache) => Ok(cache.entry_count()),
        }
    }

    /// Closes the store. What was odd about it goes to the others of that.
    fn end(self, row: &str, odd: &mut Vec<String>) -> Outcome<()> {
        let Place::Store(store, path) = self.place else { return Ok(()) };
        let (clears, name) =
            (store.stats()?.eviction.clears, path.file_name().unwrap_or_default().display().to_string());
        store.close()?;
        let longest = self.longest.max(fs::metadata(&path)?.len());
        let mut note = |is_odd, what: String| {
            if is_odd {
                odd.push(format!("{row} {name}: {what}"))
            }
        };
        note(longest > self.limit, format!("a file of {longest} bytes, with a limit of {}", self.limit));
        note(self.refused > 0, format!("{} inserts failed with `Full`", self.refused));
        note(clears > 0, format!("all maps were cleared {clears} times"));
        Ok(())
    }
}

/// In memory, if there is such a folder.
fn folder() -> Outcome<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The median speed of each cache in millions a second, and the medians of the ratios of each turn.
fn speeds(turns: &[Speeds]) -> String {
    let speed = |kind: usize| median(turns.iter().map(|turn| turn[kind]).collect());
    let ratio = |one: usize, other: usize| median(turns.iter().map(|turn| turn[one] / turn[other]).collect());
    let [a, b, c, d] = [0, 1, 2, 3].map(speed);
    let [e, f, g] = [(0, 3), (1, 3), (1, 2)].map(|(one, other)| ratio(one, other));
    format!("{a:.2} | {b:.2} | {c:.2} | {d:.2} | {e:.2} | {f:.2} | {g:.2} |")
}

/// Prints the head of a table, whose first columns are always the same.
fn head(title: &str, columns: &str) {
    println!("\n### {title}\n\n| values | limit | stream | {columns} |");
    println!("| ---: | ---: | --- |{}", " ---: |".repeat(columns.split('|').count()));
}

/// What is measured with values of one length and one limit.
struct Case<'s> {
    scale: &'s Scale,
    value: Vec<u8>,
    limit: u64,
}

impl Case<'_> {
    fn entry(&self) -> u64 {
        (size_of::<Key>() + self.value.len()) as u64
    }

    /// The caches, and the folder of those that have a file.
    fn caches(&self) -> Outcome<(Vec<Cache>, TempDir)> {
        let folder = folder()?;
        let caches = KINDS.iter().map(|&kind| Cache::new(kind, self.limit, folder.path())).collect::<Outcome<_>>()?;
        Ok((caches, folder))
    }

    /// Each cache has the slice in turn; another one begins each time. Hits, and millions of accesses a second.
    fn turn(
        &mut self,
        caches: &mut [Cache],
        turn: usize,
        slice: &[u64],
        is_fresh: bool,
    ) -> Outcome<([usize; KINDS.len()], Speeds)> {
        let (mut hits, mut speeds) = ([0; KINDS.len()], [0.0; KINDS.len()]);
        for kind in (0..KINDS.len()).map(|kind| (kind + turn) % KINDS.len()) {
            let (found, seconds) = caches[kind].run(slice, &mut self.value, is_fresh)?;
            (hits[kind], speeds[kind]) = (found, slice.len() as f64 / seconds / 1e6);
        }
        Ok((hits, speeds))
    }

    /// The hit rates, the entries held, and the speeds of a stream: cells of three tables.
    fn stream(&mut self, stream: &Stream, row: &str, odd: &mut Vec<String>) -> Outcome<[String; 3]> {
        let (mut caches, _folder) = self.caches()?;
        let (mut hits, mut counted, mut turns) = ([0; KINDS.len()], 0, Vec::new());
        for (turn, slice) in stream.numbers(self.scale)?.chunks(self.scale.accesses / SLICES).enumerate() {
            let (found, speeds) = self.turn(&mut caches, turn, slice, false)?;
            if turn >= SLICES / 3 {
                (0..KINDS.len()).for_each(|kind| hits[kind] += found[kind]);
                counted += slice.len();
                turns.push(speeds);
            }
        }
        let [oldest, second, moka, all] = hits.map(|hits| hits as f64 / counted as f64 * 100.0);
        let rates = format!(
            "{oldest:.1} | {second:.1} | {moka:.1} | {all:.1} | {:.2} | {:.2} | {:.2} |",
            oldest / moka,
            second / moka,
            second / oldest
        );
        let mut held = String::new();
        for cache in &caches[..KINDS.len() - 1] {
            held += &format!("{:.0} | ", (cache.len()? * self.entry()) as f64 / self.limit as f64 * 100.0);
        }
        caches.into_iter().try_for_each(|cache| cache.end(row, odd))?;
        Ok([rates, held, speeds(&turns)])
    }

    /// The speeds of inserts of fresh keys, once the caches are full: cells of a table.
    fn inserts(&mut self, row: &str, odd: &mut Vec<String>) -> Outcome<String> {
        let ((mut caches, _folder), mut turns) = (self.caches()?, Vec::new());
        let mut fresh = 0..;
        let mut take = |count: u64| fresh.by_ref().take(count as usize).collect::<Vec<u64>>();
        self.turn(&mut caches, 0, &take(self.limit / self.entry()), true)?;
        for round in 0..ROUNDS {
            turns.push(self.turn(&mut caches, round, &take(self.scale.inserts), true)?.1);
        }
        caches.into_iter().try_for_each(|cache| cache.end(row, odd))?;
        Ok(speeds(&turns))
    }
}

fn main() -> Outcome<ExitCode> {
    let scale = match env::args().nth(1).as_deref() {
        None => Scale { keys: 1_000_000, accesses: 2_100_000, inserts: 300_000 },
        Some("--quick") => Scale { keys: 100_000, accesses: 300_000, inserts: 50_000 },
        Some(_) => return Err("usage: slotlog-cache-bench [--quick]".into()),
    };
    println!("{} keys of 16 bytes, {} accesses a stream, seed {SEED}.", scale.keys, scale.accesses);
    println!("Limits are shares of the bytes of all keys and values. Speeds are medians, as are their ratios.");
    let (mut held, mut speed, mut inserts, mut odd) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    head(
        "Hit rate, %",
        &format!("{CACHES} | no limit | oldest / moka | second chance / moka | second chance / oldest"),
    );
    for (value_len, percent) in [(100, 2), (100, 10), (1000, 2), (1000, 10)] {
        let mut case = Case { scale: &scale, value: vec![7; value_len], limit: 0 };
        let all = scale.keys * case.entry();
        case.limit = (all * percent / 100).max(LEAST_LIMIT);
        let share = case.limit as f64 / all as f64 * 100.0;
        let start = format!("| {value_len} B | {share:.0} %, {:.1} MB |", case.limit as f64 / 1e6);
        for stream in &STREAMS {
            let row = format!("{start} {} |", stream.name);
            let [rates, kept, speeds] = case.stream(stream, &row, &mut odd)?;
            println!("{row} {rates}");
            held.push(format!("{row} {kept}"));
            speed.push(format!("{row} {speeds}"));
        }
        let row = format!("{start} fresh keys |");
        inserts.push(format!("{row} {}", case.inserts(&row, &mut odd)?));
    }
    head("Keys and values held at the end, % of the limit", CACHES);
    held.iter().for_each(|row| println!("{row}"));
    let ratios = "no limit | oldest / no limit | second chance / no limit | second chance / moka";
    head("Millions of accesses a second; a miss inserts", &format!("{CACHES} | {ratios}"));
    speed.iter().for_each(|row| println!("{row}"));
    head("Millions of inserts a second, when full", &format!("{CACHES} | {ratios}"));
    inserts.iter().for_each(|row| println!("{row}"));
    println!();
    odd.iter().for_each(|what| println!("ODD: {what}"));
    if !odd.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    println!("No insert was refused, no file was longer than its limit, and no cache was cleared.");
    Ok(ExitCode::SUCCESS)
}
