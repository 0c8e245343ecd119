//! Histories of calls, compared with a `BTreeMap` for each map.
//!
//! A history continues through closing, killing, copying and several openings of the file: after each the store must
//! hold exactly what was committed, and verify clean. Snapshots are kept and read later, and compared with the maps at
//! the time they were taken.
//!
//! An input: four bytes of a head (the bits of [`bits`], limit of the size, capacity) and steps of four bytes. While a
//! transaction is open, changes go to it.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use slotlog::{Access, Durability, Error, Map, Opened, Options, Result, Snapshot, Store, Transaction};
use slotlog_fuzz::scratch::{self, write};
use slotlog_fuzz::{head, instructions};

/// Bits of the first byte.
mod bits {
    /// Resize and compaction go in the smallest steps.
    pub const TINY: u8 = 1;
    pub const OFTEN: u8 = 2;
    pub const VERIFY_READS: u8 = 4;
    /// The size of the file is limited: the second byte is the number of blocks beyond an empty store.
    pub const LIMIT: u8 = 8;
    pub const SYNCED: u8 = 16;
    pub const NOT_COMPACTED: u8 = 32;
}

/// The most steps.
const STEPS: usize = 120;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// The default map and two named ones.
const MAPS: usize = 3;
const NAMES: [&str; MAPS] = ["", "one", "two"];

/// The committed content.
#[derive(Clone, Default)]
struct Model {
    content: [Content; MAPS],
    /// Keys that were written with a deadline in the past: counted until they are removed.
    expired: [BTreeSet<Vec<u8>>; MAPS],
}

impl Model {
    fn put(&mut self, map: usize, key: Vec<u8>, value: Vec<u8>) {
        self.expired[map].remove(&key);
        self.content[map].insert(key, value);
    }

    fn put_expired(&mut self, map: usize, key: Vec<u8>) {
        self.content[map].remove(&key);
        self.expired[map].insert(key);
    }

    fn remove(&mut self, map: usize, key: &[u8]) -> bool {
        self.content[map].remove(key).is_some()
    }

    fn clear(&mut self, map: usize) {
        self.content[map].clear();
        self.expired[map].clear();
    }

    /// Whether a map may count `len` keys.
    fn counts(&self, map: usize, len: u64) {
        let least = self.content[map].len() as u64;
        let most = least + self.expired[map].len() as u64;
        assert!((least..=most).contains(&len), "map {map} counts {len} keys, and has {least} to {most}");
    }
}

/// The current path of the file, and that of its next copy.
static PATHS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let folder = scratch::folder();
    [folder.join("a.slotlog"), folder.join("b.slotlog")]
});

type Bytes = Map<[u8], [u8]>;

/// One opening of the file, and its map handles.
struct Opening {
    store: Store,
    maps: [Option<Bytes>; MAPS],
}

impl Opening {
    fn new(store: Store) -> Opening {
        Opening { store, maps: [None, None, None] }
    }

    /// A named map, which is created if it is missing.
    fn map(&mut self, map: usize) -> Result<Bytes> {
        if self.maps[map].is_none() {
            self.maps[map] = Some(self.store.map(NAMES[map])?);
        }
        Ok(self.maps[map].clone().expect("it was just made"))
    }
}

struct Run {
    options: Options,
    limited: bool,
    openings: Vec<Opening>,
    /// Which of the two paths is in use.
    at: usize,
    model: Model,
    snapshots: Vec<(Snapshot, [Option<Bytes>; MAPS], Model)>,
    /// An open transaction, its opening, and the maps as they will be when it commits.
    transaction: Option<(Transaction, usize, Model)>,
}

/// The key that a byte stands for: many keys of a map are in a row, and some are long.
fn key(number: u8) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        1..=3 => vec![number; usize::from(number) * 5_000],
        number => vec![b'k', number],
    }
}

fn value(len: u8, fill: u8) -> Vec<u8> {
    match len {
        0..200 => vec![fill; usize::from(len)],
        200..250 => vec![fill; usize::from(len - 199) * 500],
        // Longer than the usual extent of the log.
        _ => vec![fill; usize::from(len - 249) * 30_000],
    }
}

/// The keys of a row.
fn row(first: u8, count: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..u16::from(count) * 3).map(move |number| [b"row ", &(u16::from(first) * 4 + number).to_be_bytes()[..]].concat())
}

impl Run {
    /// Whether a change was made. Only a store with a limit may refuse one.
    fn made<T>(&self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Full { .. }) if self.limited => None,
            Err(error) => panic!("a change was refused: {error}"),
        }
    }

    /// Makes one change of a map in the store or the open transaction.
    fn change<T>(
        &mut self,
        number: usize,
        map: usize,
        in_store: impl FnOnce(&Store, Option<&Bytes>) -> Result<T>,
        in_transaction: impl FnOnce(&mut Transaction, Option<&Bytes>) -> Result<T>,
        in_model: impl FnOnce(&mut Model, T),
    ) {
        let number = self.transaction.as_ref().map_or(number, |(_, number, _)| *number);
        let opening = &mut self.openings[number];
        if map > 0 && self.transaction.is_some() && opening.maps[map].is_none() {
            // It would wait for the transaction.
            return;
        }
        if map > 0 {
            let made = self.openings[number].map(map);
            if self.made(made).is_none() {
                return;
            }
        }
        let opening = &self.openings[number];
        let handle = opening.maps[map].as_ref();
        let result = match &mut self.transaction {
            Some((transaction, ..)) => in_transaction(transaction, handle),
            None => in_store(&opening.store, handle),
        };
        if let Some(found) = self.made(result) {
            in_model(self.transaction.as_mut().map_or(&mut self.model, |(.., model)| model), found);
        }
    }

    fn insert(&mut self, number: usize, map: usize, key: Vec<u8>, value: Vec<u8>) {
        self.change(
            number,
            map,
            |store, handle| match handle {
                Some(handle) => handle.insert(&key[..], &value[..]),
                None => store.insert(&key, &value),
            },
            |transaction, handle| match handle {
                Some(handle) => transaction.of(handle).insert(&key[..], &value[..]),
                None => transaction.insert(&key, &value),
            },
            |model, ()| model.put(map, key.clone(), value.clone()),
        );
    }

    fn remove(&mut self, number: usize, map: usize, key: &[u8]) {
        self.change(
            number,
            map,
            |store, handle| handle.map_or_else(|| store.remove(key), |handle| handle.remove(key)),
            |transaction, handle| match handle {
                Some(handle) => transaction.of(handle).remove(key),
                None => transaction.remove(key),
            },
            |model, removed| assert_eq!(removed, model.remove(map, key), "whether {key:?} of map {map} was there"),
        );
    }

    fn step(&mut self, [what, a, b, c]: [u8; 4]) {
        let number = usize::from(what / 64) % self.openings.len();
        let map = usize::from(c) % MAPS;
        let idle = self.transaction.is_none();
        match what % 32 {
            0 | 1 => self.insert(number, map, key(a), value(b, c)),
            2 => self.remove(number, map, &key(a)),
            3 => row(a, b).for_each(|key| self.insert(number, map, key, vec![b; usize::from(c / 3)])),
            4 => row(a, b).for_each(|key| self.remove(number, map, &key)),
            // In a transaction, only named maps can be cleared.
            5 if idle || map > 0 => self.change(
                number,
                map,
                |store, handle| handle.map_or_else(|| store.clear(), Bytes::clear),
                |transaction, handle| handle.map_or(Ok(()), |handle| transaction.of(handle).clear()),
                |model, ()| model.clear(map),
            ),
            6 => {
                let (key, at) = (key(a), SystemTime::UNIX_EPOCH);
                self.change(
                    number,
                    map,
                    |store, handle| match handle {
                        Some(handle) => handle.insert_with_expiry(&key[..], b"expired", at),
                        None => store.insert_with_expiry(&key, "expired", at),
                    },
                    |transaction, handle| match handle {
                        Some(handle) => transaction.of(handle).insert_with_expiry(&key[..], b"expired", at),
                        None => transaction.insert_with_expiry(&key, "expired", at),
                    },
                    |model, ()| model.put_expired(map, key.clone()),
                );
            }
            7 if idle && map > 0 => self.update(number, map, &key(a), b),
            8 if idle && map > 0 => {
                if let Ok(Some((key, value))) = self.openings[number].map(map).and_then(|map| map.pop()) {
                    assert_eq!(self.model.content[map].remove(&key), Some(value), "what was popped");
                }
            }
            9 if idle && map > 0 => {
                let made = self.openings[number].map(map).and_then(|map| map.retain(|key, _| key.last() > Some(&a)));
                if self.made(made).is_some() {
                    self.model.content[map].retain(|key, _| key.last() > Some(&a));
                }
            }
            10 | 11 => self.get(number, map, &key(a)),
            12 if idle => {
                if let Some(transaction) = self.made(self.openings[number].store.begin()) {
                    self.transaction = Some((transaction, number, self.model.clone()));
                }
            }
            13 | 14 => self.end_transaction(a),
            15 if self.snapshots.len() < 8 => {
                let opening = &self.openings[number];
                let maps = opening.maps.clone();
                self.snapshots.push((opening.store.snapshot().unwrap(), maps, self.model.clone()));
            }
            16 | 17 => {
                if let Some((snapshot, maps, model)) = self.snapshots.get(usize::from(a)) {
                    compare(snapshot, maps, model);
                    if what % 32 == 17 {
                        self.snapshots.swap_remove(usize::from(a));
                    }
                }
            }
            18 => self.openings[number].store.sync().unwrap(),
            19 if idle => self.openings[number].store.checkpoint().unwrap(),
            20 if idle => verify(&self.openings[number].store),
            21 if idle => {
                let mut left = a;
                let compacted = self.openings[number].store.compact_with(|_| {
                    left = left.saturating_sub(1);
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                self.made(compacted);
            }
            22 | 23 if idle => drop(self.made(self.openings[number].store.maintain(Duration::from_millis(1)))),
            24 if idle && self.openings.len() < 3 => {
                let another = self.options.clone().open(&PATHS[self.at]).unwrap();
                assert_eq!(another.opened(), Opened::Attached);
                self.openings.push(Opening::new(another));
            }
            25 if idle && self.openings.len() > 1 => {
                // A snapshot keeps its opening.
                drop(self.openings.swap_remove(number));
            }
            26 if idle => {
                self.close();
                self.open(|opened| matches!(opened, Opened::Clean));
            }
            27 => {
                // An open transaction is not in it.
                let image = self.image();
                self.close();
                write(&PATHS[self.at], &image);
                self.open(|opened| !matches!(opened, Opened::Created));
            }
            28 => {
                let image = self.image();
                self.close();
                self.at = 1 - self.at;
                write(&PATHS[self.at], &image);
                self.open(|opened| !matches!(opened, Opened::Created | Opened::AfterKill));
            }
            29 => self.look(a),
            30 if idle && map > 0 => self.drop_or_rename(number, map, a),
            _ => {}
        }
    }

    fn update(&mut self, number: usize, map: usize, key: &[u8], add: u8) {
        let made = self.openings[number].map(map).and_then(|handle| {
            handle.update(key, |value| {
                let mut value = value.map(|value| value.to_vec()).unwrap_or_default();
                value.truncate(100);
                value.push(add);
                (add != 0).then_some(value)
            })
        });
        if self.made(made).is_some() {
            let mut value = self.model.content[map].get(key).cloned().unwrap_or_default();
            value.truncate(100);
            value.push(add);
            if add == 0 {
                self.model.remove(map, key);
            } else {
                self.model.put(map, key.to_vec(), value);
            }
        }
    }

    fn get(&mut self, number: usize, map: usize, key: &[u8]) {
        let opening = &mut self.openings[number];
        // Others do not see changes of the transaction.
        let expected = self.model.content[map].get(key);
        if map == 0 {
            assert_eq!(opening.store.get(key).unwrap().as_ref(), expected);
            assert_eq!(opening.store.contains_key(key).unwrap(), expected.is_some());
        } else if let Some(handle) = &opening.maps[map] {
            assert_eq!(handle.get(key).unwrap().as_ref(), expected);
            assert_eq!(handle.get_ref(key).unwrap().as_deref(), expected.map(Vec::as_slice));
        }
        if let Some((transaction, owner, model)) = &mut self.transaction {
            let expected = model.content[map].get(key);
            match &self.openings[*owner].maps[map] {
                _ if map == 0 => assert_eq!(transaction.get(key).unwrap().as_ref(), expected),
                Some(handle) => assert_eq!(transaction.of(handle).get(key).unwrap().as_ref(), expected),
                None => {}
            }
        }
    }

    fn end_transaction(&mut self, how: u8) {
        let Some((transaction, _, model)) = self.transaction.take() else { return };
        model.counts(0, transaction.len());
        let committed = match how % 4 {
            0 => {
                transaction.rollback();
                return;
            }
            1 => transaction.commit_with(Durability::Synced),
            _ => transaction.commit(),
        };
        if self.made(committed).is_some() {
            self.model = model;
        }
    }

    /// Closes the store, unless a copy can be checked beside it, and checks it without a way to change it.
    fn look(&mut self, how: u8) {
        let access = if how & 1 == 0 { Access::ReadOnly } else { Access::CopyOnWrite };
        let beside = access == Access::ReadOnly && how & 2 != 0 && self.transaction.is_none();
        if !beside {
            self.close();
        }
        let store = self.options.clone().access(access).open(&PATHS[self.at]).unwrap();
        verify(&store);
        let maps = [1, 2].map(|map| store.map::<[u8], [u8]>(NAMES[map]).ok());
        let [one, two] = maps;
        compare(&store.snapshot().unwrap(), &[None, one, two], &self.model);
        if access == Access::ReadOnly {
            assert!(matches!(store.insert("key", ""), Err(Error::ReadOnly { .. })));
        } else {
            let inserted = store.insert("aside", "");
            self.made(inserted);
        }
        drop(store);
        if !beside {
            self.open(|_| true);
        }
    }

    fn drop_or_rename(&mut self, number: usize, map: usize, how: u8) {
        if how & 1 == 0 {
            let dropped = self.openings[number].store.drop_map(NAMES[map]);
            if self.made(dropped).is_some() {
                self.model.clear(map);
            }
        } else {
            // Renamed and back, or not at all.
            let store = &self.openings[number].store;
            if let Some(true) = self.made(store.rename_map(NAMES[map], "elsewhere")) {
                while self.made(store.rename_map("elsewhere", NAMES[map])).is_none() {
                    // Full: the room for one more name may be missing.
                    return self.lost_a_name(map);
                }
            }
        }
        self.openings.iter_mut().for_each(|opening| opening.maps[map] = None);
    }

    /// A map could not get its name back: the history continues without it.
    fn lost_a_name(&mut self, map: usize) {
        let dropped = self.openings[0].store.drop_map("elsewhere");
        self.made(dropped);
        self.model.clear(map);
        self.openings.iter_mut().for_each(|opening| opening.maps[map] = None);
    }

    /// The file in its current state.
    fn image(&self) -> Vec<u8> {
        fs::read(&PATHS[self.at]).unwrap()
    }

    fn close(&mut self) {
        self.transaction = None;
        for (snapshot, maps, model) in self.snapshots.drain(..) {
            compare(&snapshot, &maps, &model);
        }
        for opening in self.openings.drain(..) {
            drop(opening.maps);
            opening.store.close().unwrap();
        }
    }

    fn open(&mut self, as_expected: impl Fn(&Opened) -> bool) {
        let store = self.options.clone().open(&PATHS[self.at]).unwrap();
        assert!(as_expected(&store.opened()), "{:?}", store.opened());
        verify(&store);
        let mut opening = Opening::new(store);
        for map in 1..MAPS {
            // A look must not create a dropped map again.
            if opening.store.maps().unwrap().iter().any(|info| info.name == NAMES[map]) {
                opening.map(map).unwrap();
            } else {
                assert!(self.model.content[map].is_empty(), "map {map} is gone");
            }
        }
        compare(&opening.store.snapshot().unwrap(), &opening.maps, &self.model);
        self.openings.push(opening);
    }
}

fn verify(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings());
}

/// Checks that a snapshot sees exactly the model.
fn compare(snapshot: &Snapshot, maps: &[Option<Bytes>; MAPS], model: &Model) {
    model.counts(0, snapshot.len());
    let mut found = Content::new();
    for entry in snapshot {
        let (key, value) = entry.unwrap();
        assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "{key:?} comes twice");
    }
    same(&found, &model.content[0], 0);
    let keys: Vec<&Vec<u8>> = model.content[0].keys().collect();
    for (key, value) in keys.iter().zip(snapshot.get_many(&keys).unwrap()) {
        assert_eq!(value, model.content[0].get(*key).map(Vec::as_slice), "of the key {key:?}");
    }
    for (number, map) in maps.iter().enumerate().skip(1) {
        let Some(map) = map else { continue };
        let map = snapshot.of(map);
        let found = map.iter().unwrap().map(|entry| entry.unwrap()).collect();
        same(&found, &model.content[number], number);
        model.counts(number, map.len().unwrap());
    }
}

fn same(found: &Content, model: &Content, map: usize) {
    let differs = found.keys().chain(model.keys()).find(|key| found.get(*key) != model.get(*key));
    assert!(differs.is_none(), "map {map}: the value of {differs:?} is another: {} and {}", found.len(), model.len());
}

fuzz_target!(|input: &[u8]| {
    let Some(([bits, blocks, capacity @ ..], steps)) = head::<4>(input) else { return };
    let path = &PATHS[0];
    // An empty file is one in which a store is created.
    write(path, &[]);
    let has = |bit| bits & bit != 0;
    let mut options = Store::options().initial_capacity(u64::from(u16::from_le_bytes(capacity)) % 2048);
    options = options.verify_reads(has(bits::VERIFY_READS)).lock_timeout(Duration::from_secs(5));
    if has(bits::OFTEN) {
        options = options.checkpoint_every(4096);
    }
    if has(bits::TINY) {
        options = options.tiny_steps();
    }
    if has(bits::SYNCED) {
        options = options.durability(Durability::Synced);
    }
    if has(bits::NOT_COMPACTED) {
        options = options.auto_compact(None);
    }
    let limited = has(bits::LIMIT);
    if limited {
        // An empty store has at least 38 blocks; with a capacity it has more, and may not be created then.
        options = options.max_size((38 + u64::from(blocks)) * slotlog::format::BLOCK);
    }
    let store = match options.clone().open(path) {
        Ok(store) => store,
        Err(Error::Full { .. }) if limited => return,
        Err(error) => panic!("an empty file was refused: {error}"),
    };
    let (openings, model) = (vec![Opening::new(store)], Model::default());
    let mut run = Run { options, limited, openings, at: 0, model, snapshots: Vec::new(), transaction: None };
    instructions(steps).take(STEPS).for_each(|step| run.step(*step));
    run.close();
    run.open(|opened| *opened == Opened::Clean);
    run.close();
});
