//! A store that is full most of the time still behaves like a map: what does not fit is refused and harms nothing, and
//! the rest can be read.
//!
//! Each case draws its limit, its lengths of keys and values and its steps from a seed. `SLOTLOG_FULL_CASES` sets the
//! number of cases per test, `SLOTLOG_FULL_SEED` the first seed.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::HashMap;

use slotlog::format::BLOCK;
use slotlog::{Error, FullReason, Opened, Options, Store};
use support::{Random, assert_clean, folder, setting};
use tempfile::TempDir;

/// A case, with its store.
struct Case {
    seed: u64,
    random: Random,
    /// `None` for a store in memory.
    folder: Option<TempDir>,
    max_size: u64,
    /// The limit, or the size that a recovery has made of it.
    longest_file: u64,
    tiny: bool,
    longest_key: u64,
    longest_value: u64,
    /// `None` only while it is being reopened.
    store: Option<Store>,
    map: HashMap<Vec<u8>, Vec<u8>>,
    keys: Vec<Vec<u8>>,
    /// Inserts that were refused.
    refused: u64,
}

impl Case {
    /// A case whose store could be created: the limit may be too low for that.
    fn new(seed: u64, in_file: bool) -> Option<Case> {
        let mut random = Random(seed);
        // Odd limits, from less than an empty store needs to some MiB.
        let largest = [400 << 10, 1 << 20, 8 << 20, 32 << 20][random.below(4) as usize];
        let max_size = (128 << 10) + random.below(largest);
        let tiny = random.one_in(3);
        let longest_key = [8, 300, 5_000, 60_000][random.below(4) as usize];
        let longest_value = [1, 100, 8_100, 200_000][random.below(4) as usize];
        // Otherwise it takes too many steps until it is full.
        let longest_value = if max_size > 1 << 20 { longest_value.max(8_100) } else { longest_value };
        let mut case = Case {
            seed,
            random,
            folder: in_file.then(folder),
            max_size,
            longest_file: max_size,
            tiny,
            longest_key,
            longest_value,
            store: None,
            map: HashMap::new(),
            keys: Vec::new(),
            refused: 0,
        };
        match case.open() {
            Ok(store) => case.store = Some(store),
            Err(Error::Full { why: FullReason::MaxSize(_) | FullReason::AddressSpace(_), .. }) => return None,
            Err(error) => panic!("seed {seed}: {error}"),
        }
        Some(case)
    }

    fn options(&self) -> Options {
        let options = Store::options().max_size(self.max_size);
        if self.tiny { options.tiny_steps() } else { options }
    }

    fn open(&self) -> slotlog::Result<Store> {
        match &self.folder {
            Some(folder) => self.options().open(folder.path().join("store")),
            None => self.options().in_memory(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Says whether a change took place.
    #[track_caller]
    fn took_place(&mut self, what: &str, done: slotlog::Result<()>) -> bool {
        match done {
            Ok(()) => true,
            Err(Error::Full { .. }) => {
                self.refused += 1;
                false
            }
            Err(error) => panic!("seed {}: {what}: {error}", self.seed),
        }
    }

    fn a_key(&mut self) -> Vec<u8> {
        let len = self.random.below(self.longest_key + 1) as usize;
        self.random.bytes(len)
    }

    fn a_value(&mut self, longest: u64) -> Vec<u8> {
        let len = self.random.below(longest + 1) as usize;
        self.random.bytes(len)
    }

    fn known_key(&mut self) -> Option<Vec<u8>> {
        let count = self.keys.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize).map(|at| self.keys[at].clone())
    }

    fn put(&mut self, key: Vec<u8>, longest: u64) -> bool {
        let value = self.a_value(longest);
        let done = self.store().insert(&key, &value);
        let took_place = self.took_place("insert", done);
        if took_place {
            if self.map.insert(key.clone(), value).is_none() {
                self.keys.push(key);
            }
        } else {
            assert_eq!(self.store().get(&key).unwrap().as_ref(), self.map.get(&key), "seed {}", self.seed);
        }
        took_place
    }

    /// Inserts until `refusals` inserts were refused.
    fn fill(&mut self, refusals: u64, longest: u64) {
        let until = self.refused + refusals;
        while self.refused < until {
            let known = if self.random.one_in(4) { self.known_key() } else { None };
            let key = known.unwrap_or_else(|| self.a_key());
            if !self.put(key, longest) && self.random.one_in(8) {
                self.check();
            }
        }
    }

    fn remove_a_share(&mut self, of_ten: u64) {
        for key in std::mem::take(&mut self.keys) {
            if self.random.below(10) >= of_ten {
                self.keys.push(key);
                continue;
            }
            match self.store().remove(&key) {
                Ok(was_there) => assert_eq!(was_there, self.map.remove(&key).is_some(), "seed {}", self.seed),
                Err(error) => panic!("seed {}: remove: {error}", self.seed),
            }
        }
    }

    /// Many changes at once, which are given up if they do not fit.
    fn transaction(&mut self) {
        let mut map = self.map.clone();
        let store = self.store().clone();
        let mut transaction = store.begin().unwrap();
        let mut fits = true;
        // Now and then enough to move the space table.
        let most = if self.random.one_in(4) { 400 } else { 30 };
        for _ in 0..self.random.below(most) {
            let known = if self.random.one_in(2) { self.known_key() } else { None };
            let key = known.unwrap_or_else(|| self.a_key());
            let value = self.a_value(self.longest_value);
            let done = transaction.insert(&key, &value);
            fits = self.took_place("insert in a transaction", done);
            if !fits {
                break;
            }
            map.insert(key, value);
        }
        if !fits || self.random.one_in(3) {
            transaction.rollback();
            return;
        }
        let done = transaction.commit();
        if self.took_place("commit", done) {
            self.keys = map.keys().cloned().collect();
            self.keys.sort_unstable();
            self.map = map;
        }
    }

    /// Creates a map, or drops it.
    fn other_map(&mut self) {
        let name = format!("map {}", self.random.below(40));
        if self.random.one_in(3) {
            let done = self.store().drop_map(&name).map(drop);
            self.took_place("drop a map", done);
        } else {
            let done = self.store().map::<u32, u32>(&name).map(drop);
            self.took_place("make a map", done);
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=4 => {
                let (refusals, longest) = (1 + self.random.below(60), self.longest_value);
                self.fill(refusals, longest);
            }
            // A smaller one still fits.
            5..=7 => {
                let longest = self.longest_value / 10;
                self.fill(3, longest);
            }
            8 | 9 => {
                let share = 1 + self.random.below(10);
                self.remove_a_share(share);
            }
            10 => self.transaction(),
            11 => {
                let done = self.store().compact().map(drop);
                assert!(self.took_place("compact", done), "seed {}", self.seed);
            }
            12 => self.reopen(),
            13 => {
                if self.random.one_in(4) {
                    let done = self.store().clear();
                    assert!(self.took_place("clear", done), "seed {}", self.seed);
                    self.map.clear();
                    self.keys.clear();
                }
            }
            _ => self.other_map(),
        }
        self.check();
    }

    fn reopen(&mut self) {
        if self.folder.is_none() {
            return;
        }
        let cut = self.random.one_in(3);
        self.reopen_after(cut);
    }

    /// Opens the store again, after a close or an apparent power cut.
    fn reopen_after(&mut self, cut: bool) {
        let path = self.folder.as_ref().unwrap().path().join("store");
        if cut {
            // The copy of an open store is recovered from its log.
            let copy = path.with_extension("copy");
            std::fs::copy(&path, &copy).unwrap();
            self.store = None;
            std::fs::rename(&copy, &path).unwrap();
        } else {
            self.store.take().unwrap().close().unwrap();
        }
        let store = self.open().unwrap_or_else(|error| panic!("seed {}: reopen: {error}", self.seed));
        assert!(matches!(store.opened(), Opened::Clean | Opened::AfterPowerCut { .. }), "seed {}", self.seed);
        if store.opened() != Opened::Clean {
            // Indexes are rebuilt where there is room for them: that may take more than before.
            let stats = store.stats().unwrap();
            let index: u64 = stats.maps.iter().map(|map| map.index_bytes).sum();
            let most = self.longest_file + self.excess() + 2 * (index + 20 * BLOCK);
            assert!(stats.file_len <= most, "seed {}: {} of {most} bytes", self.seed, stats.file_len);
            self.longest_file = self.longest_file.max(stats.file_len);
        }
        self.store = Some(store);
    }

    /// By how much operations that make a full store smaller may exceed the limit.
    fn excess(&self) -> u64 {
        self.max_size / 2 + (512 << 10) + 2 * self.longest_value
    }

    fn check(&self) {
        let report = self.store().verify().unwrap();
        assert!(report.is_clean(), "seed {}: {:#?}", self.seed, report.findings());
        let snapshot = self.store().snapshot().unwrap();
        assert_eq!(snapshot.len(), self.map.len() as u64, "seed {}", self.seed);
        for entry in &snapshot {
            let (key, value) = entry.unwrap();
            assert_eq!(self.map.get(key).map(Vec::as_slice), Some(value), "seed {}", self.seed);
        }
        assert!(self.store().stats().unwrap().file_len <= self.longest_file + self.excess(), "seed {}", self.seed);
    }

    fn run(mut self) {
        let longest = self.longest_value;
        self.fill(1, longest);
        self.check();
        for _ in 0..12 {
            self.step();
        }
        self.reopen();
        self.check();
    }
}

/// A rebuild after a power cut uses other places than before, which may be too few.
#[test]
fn a_full_store_is_recovered_within_its_limit() {
    let first = setting("SLOTLOG_FULL_SEED", 1);
    for seed in first..first + setting("SLOTLOG_FULL_CASES", 16) {
        let Some(mut case) = Case::new(seed, true) else { continue };
        let longest = case.longest_value / 10;
        for share in [0, 3, 1, 5] {
            case.remove_a_share(share);
            case.fill(40, longest);
            case.reopen_after(true);
            case.check();
        }
    }
}

/// Operations that do not make a store smaller keep to its limit, however often it is cleaned for them.
#[test]
fn a_full_store_that_is_overwritten_keeps_to_its_limit() {
    for (seed, longest, keys) in
        [(1, 100, 9_000), (2, 3_000, 850), (3, 20_000, 130), (4, 100_000, 25), (5, 100, 20_000)]
    {
        let folder = folder();
        let mut random = Random(seed);
        let max_size = 2 << 20;
        let store = Store::options().max_size(max_size).open(folder.path().join("store")).unwrap();
        for number in 0..20_000u64 {
            let key = if number < keys { number } else { random.below(keys) };
            let len = random.below(longest) as usize;
            match store.insert(key.to_le_bytes(), random.bytes(len)) {
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            let len = store.stats().unwrap().file_len;
            assert!(len <= max_size, "seed {seed}: {len} bytes after {number} writes");
        }
    }
}

/// Removals succeed, though their space is missing at first, and then the store is as small as before.
#[test]
fn a_full_store_is_emptied() {
    for in_file in [false, true] {
        let mut random = Random(1);
        let folder = folder();
        let max_size = 8 << 20;
        let options = Store::options().max_size(max_size);
        let store = if in_file { options.open(folder.path().join("store")) } else { options.in_memory() }.unwrap();
        let mut keys = Vec::new();
        for longest in std::iter::once(8_000).chain([800; 60]) {
            loop {
                let key = (keys.len() as u64).to_le_bytes();
                let len = 100 + random.below(longest) as usize;
                match store.insert(key, random.bytes(len)) {
                    Ok(()) => keys.push(key),
                    Err(Error::Full { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(store.stats().unwrap().file_len <= max_size);
        let all = keys.len() as u64;
        keys.retain(|key| random.below(10) >= 7 || !store.remove(key).unwrap());
        assert_eq!(store.len().unwrap(), keys.len() as u64);
        assert!(keys.len() as u64 * 2 < all);
        store.compact().unwrap();
        assert!(store.stats().unwrap().file_len <= max_size / 2);
        assert_clean(&store);
        store.insert("more", vec![0; 1 << 20]).unwrap();
    }
}

/// A transaction that removes a third of the keys needs more than what is held back for removals; nothing is cleaned
/// while it goes on.
#[test]
fn a_full_store_is_emptied_by_one_transaction() {
    for seed in 1..=setting("SLOTLOG_FULL_CASES", 12) {
        let mut random = Random(seed);
        let max_size = (2 << 20) + random.below(6 << 20);
        let store = Store::options().max_size(max_size).in_memory().unwrap();
        let longest = 100 + random.below(2_000);
        let mut keys = Vec::new();
        let mut refused = 0;
        while refused < 20 {
            let key = (keys.len() as u64).to_le_bytes();
            let len = random.below(longest) as usize;
            match store.insert(key, random.bytes(len)) {
                Ok(()) => keys.push(key),
                Err(Error::Full { .. }) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        let mut removals = store.begin().unwrap();
        let (removed, kept) = keys.split_at(keys.len() / 3);
        for key in removed {
            assert!(removals.remove(key).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
        }
        removals.commit().unwrap();
        assert_eq!(store.len().unwrap(), kept.len() as u64);
        store.compact().unwrap();
        assert!(store.stats().unwrap().file_len <= max_size, "seed {seed}");
        assert_clean(&store);
    }
}

fn run(in_file: bool, cases: u64) {
    let first = setting("SLOTLOG_FULL_SEED", 1);
    let mut tried = 0;
    for seed in first..first + setting("SLOTLOG_FULL_CASES", cases) {
        if let Some(case) = Case::new(seed, in_file) {
            case.run();
            tried += 1;
        }
    }
    assert!(tried > 0, "with none of these limits a store can be made");
}

#[test]
fn a_full_store_in_memory_is_like_a_map() {
    run(false, 12);
}

#[test]
fn a_full_store_in_a_file_is_like_a_map() {
    run(true, 12);
}
