//! Transactions with maps that they make, rename and drop, and with savepoints, checked step by step against a model of
//! plain maps. What is committed is the same for a snapshot, after a kill, after a power cut, in a follower, and after
//! compaction; what is rolled back has never been.
//!
//! `SLOTLOG_TRANSACTION_CASES` sets the number of cases, `SLOTLOG_TRANSACTION_SEED` the first seed.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use slotlog::{Durability, Error, FeedChangeKind, Map, Savepoint, Seq, Store, Transaction};
use support::{Random, assert_clean, folder, setting};

/// The maps of a store, by their names. The default map has none.
type Model = BTreeMap<String, BTreeMap<u32, Vec<u8>>>;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What is in a store.
fn found_in(store: &Store) -> Model {
    let mut found = Model::from([(String::new(), BTreeMap::new())]);
    found.extend(store.maps().unwrap().into_iter().map(|map| (map.name, BTreeMap::new())));
    let number = |key: &[u8]| u32::from_le_bytes(key.try_into().unwrap());
    for (name, entries) in &mut found {
        for entry in store.map_as_bytes(name).unwrap().iter().unwrap() {
            let (key, value) = entry.unwrap();
            assert!(entries.insert(number(&key), value).is_none());
        }
    }
    found
}

/// A transaction and what it should see.
struct Case<'r> {
    random: &'r mut Random,
    transaction: Transaction,
    model: Model,
    /// Savepoints, and what is to be seen after going back to each.
    saved: Vec<(Savepoint, Model)>,
    /// Names that may be of another map by now than before the transaction.
    touched: BTreeSet<String>,
    /// Handles of maps that this transaction has dropped.
    dropped: Vec<Map<[u8], [u8]>>,
}

impl Case<'_> {
    fn name(&mut self) -> &'static str {
        NAMES[self.random.below(NAMES.len() as u64) as usize]
    }

    /// A map that is there: an empty name for the default map.
    fn known(&mut self) -> String {
        let at = self.random.below(self.model.len() as u64) as usize;
        self.model.keys().nth(at).unwrap().clone()
    }

    fn key(&mut self) -> u32 {
        self.random.below(60) as u32
    }

    fn step(&mut self, store: &Store) {
        match self.random.below(24) {
            0..=8 => self.put(1),
            // More than a first region has room for.
            9 => self.put(2_000),
            10..=12 => self.remove(),
            13..=15 => {
                let name = self.name();
                self.transaction.map::<[u8], [u8]>(name).unwrap();
                if !self.model.contains_key(name) {
                    self.touched.insert(name.to_owned());
                    self.model.insert(name.to_owned(), BTreeMap::new());
                }
            }
            16 => {
                let name = self.name();
                let handle = store.map_as_bytes(name).ok();
                assert_eq!(self.transaction.drop_map(name).unwrap(), self.model.remove(name).is_some());
                self.dropped.extend(handle.filter(|_| self.touched.insert(name.to_owned())));
            }
            17 => self.rename(),
            18 | 19 => self.saved.push((self.transaction.savepoint().unwrap(), self.model.clone())),
            20 => self.roll_back(),
            21 => {
                let name = self.known();
                let all = self.model.get_mut(&name).unwrap();
                let count = std::mem::take(all).len();
                let mut map = self.map(&name);
                assert_eq!(map.len().unwrap(), count as u64);
                map.clear().unwrap();
            }
            _ => self.check(),
        }
    }

    fn map(&mut self, name: &str) -> slotlog::TransactionMap<'_, [u8], [u8]> {
        match name {
            "" => self.transaction.bytes(),
            name => self.transaction.map(name).unwrap(),
        }
    }

    fn put(&mut self, count: u32) {
        let (name, first, len) = (self.known(), self.key(), self.random.below(40) as usize);
        for number in first..first + count {
            let value = self.random.bytes(len);
            self.map(&name).insert(&number.to_le_bytes()[..], &value[..]).unwrap();
            self.model.get_mut(&name).unwrap().insert(number, value);
        }
    }

    fn remove(&mut self) {
        let (name, key) = (self.known(), self.key());
        let was_there = self.map(&name).remove(&key.to_le_bytes()[..]).unwrap();
        assert_eq!(was_there, self.model.get_mut(&name).unwrap().remove(&key).is_some());
    }

    fn rename(&mut self) {
        let (from, to) = (self.name(), self.name());
        let renamed = self.transaction.rename_map(from, to).unwrap();
        assert_eq!(renamed, self.model.contains_key(from));
        if let Some(map) = self.model.remove(from) {
            self.model.insert(to.to_owned(), map);
            self.touched.extend([from, to].map(str::to_owned));
        }
    }

    fn roll_back(&mut self) {
        if self.saved.is_empty() {
            return;
        }
        let at = self.random.below(self.saved.len() as u64) as usize;
        self.transaction.rollback_to(&self.saved[at].0).unwrap();
        self.model = self.saved[at].1.clone();
        for (gone, _) in self.saved.drain(at + 1..) {
            let refused = self.transaction.rollback_to(&gone);
            assert!(matches!(refused, Err(Error::NoSuchSavepoint { .. })), "{refused:?}");
        }
        // Maps that were dropped since may be there again.
        self.dropped.clear();
        self.touched.extend(NAMES.map(str::to_owned));
        self.check();
    }

    fn check(&mut self) {
        for (name, expected) in self.model.clone() {
            let map = self.map(&name);
            assert_eq!(map.len().unwrap(), expected.len() as u64, "{name:?}");
            let entries = map.iter().unwrap().map(|entry| {
                let (key, value) = entry.unwrap();
                (u32::from_le_bytes(key.try_into().unwrap()), value)
            });
            assert_eq!(entries.collect::<BTreeMap<_, _>>(), expected, "{name:?}");
        }
        for handle in &self.dropped {
            let refused = self.transaction.of(handle).insert(b"key!", b"value");
            assert!(matches!(refused, Err(Error::NoSuchMap { .. })), "{refused:?}");
            let refused = self.transaction.of(handle).get(b"key!");
            assert!(matches!(refused, Err(Error::NoSuchMap { .. })), "{refused:?}");
        }
    }
}

/// Opens a copy of a store's file, which is what a power cut leaves.
fn check_copy(path: &Path, expected: &Model) {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    let store = Store::options().auto_compact(None).open(&copy).unwrap();
    assert_eq!(found_in(&store), *expected, "after a power cut");
    assert_clean(&store);
    drop(store);
    fs::remove_file(copy).unwrap();
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let folder = folder();
    let path = folder.path().join("store");
    let options = || match seed % 3 {
        0 => Store::options(),
        1 => Store::options().tiny_steps(),
        _ => Store::options().auto_compact(None),
    };
    let mut store = options().open(&path).unwrap();
    let follower = Store::in_memory().unwrap();
    let mut seen = Seq::ZERO;
    let mut committed = found_in(&store);
    for _ in 0..12 {
        let (snapshot, before) = (store.snapshot().unwrap(), committed.clone());
        let transaction = store.begin().unwrap();
        let model = committed.clone();
        let (saved, touched, dropped) = Default::default();
        let mut case = Case { random: &mut random, transaction, model, saved, touched, dropped };
        for _ in 0..case.random.below(60) {
            case.step(&store);
        }
        case.check();
        let Case { transaction, model, .. } = case;
        match random.below(8) {
            0 => transaction.rollback(),
            1 => drop(transaction),
            2 => {
                transaction.commit_with(Durability::Synced).unwrap();
                committed = model;
            }
            _ => {
                transaction.commit().unwrap();
                committed = model;
            }
        }
        assert_eq!(found_in(&store), committed, "seed {seed}");
        assert_clean(&store);
        assert_eq!(snapshot.bytes().len().unwrap(), before[""].len() as u64, "a snapshot stays as it is");
        drop(snapshot);
        check_copy(&path, &committed);
        if seed % 3 == 2 {
            let mut feed = store.changes(seen).unwrap();
            while let Some(commit) = feed.next_commit().unwrap() {
                commit.apply(&follower).unwrap();
            }
            // Before the first commit, a copy follows from the beginning only.
            seen = if follower.origin().unwrap().is_some() { feed.seq() } else { Seq::ZERO };
            assert_eq!(found_in(&follower), committed, "seed {seed}: a follower");
            assert_clean(&follower);
        }
        match random.below(5) {
            0 if seed % 3 != 2 => drop(store.compact().unwrap()),
            1 => {
                store.close().unwrap();
                store = options().open(&path).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn transactions_with_maps_and_savepoints_are_like_their_model() {
    let first = setting("SLOTLOG_TRANSACTION_SEED", 1);
    for seed in first..first + setting("SLOTLOG_TRANSACTION_CASES", 24) {
        run(seed);
    }
}

/// An index is a map's own: a map gets as large a one as it needs, however many maps one transaction makes.
#[test]
fn many_maps_in_one_transaction() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let mut setup = store.begin().unwrap();
    for number in 0..600_u32 {
        let mut map = setup.map::<u32, u32>(&format!("map {number}")).unwrap();
        for key in 0..number {
            map.insert(key, number).unwrap();
        }
    }
    setup.commit().unwrap();
    assert_clean(&store);
    check_all(&store);
    fs::copy(&path, path.with_extension("copy")).unwrap();
    check_all(&Store::open(path.with_extension("copy")).unwrap());

    fn check_all(store: &Store) {
        assert_eq!(store.maps().unwrap().len(), 600);
        for number in [0, 1, 300, 599] {
            let map = store.map::<u32, u32>(&format!("map {number}")).unwrap();
            assert_eq!(map.len().unwrap(), u64::from(number));
            assert!((0..number).all(|key| map.get(key).unwrap() == Some(number)));
        }
    }
}

/// What is taken back leaves no space behind, and the number of a transaction that changes nothing is skipped.
#[test]
fn what_is_taken_back_takes_no_space() {
    let store = Store::in_memory().unwrap();
    store.insert("key", "value").unwrap();
    let mut transaction = store.begin().unwrap();
    let start = transaction.savepoint().unwrap();
    for _ in 0..200 {
        for number in 0..100_u32 {
            transaction.insert(number.to_le_bytes(), [7; 1_000]).unwrap();
        }
        for number in 0..20 {
            transaction.map::<u32, u32>(&format!("map {number}")).unwrap();
        }
        transaction.rollback_to(&start).unwrap();
    }
    transaction.insert("other", "value").unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.len().unwrap(), 2);
    assert!(store.stats().unwrap().file_len < 4 << 20, "{}", store.stats().unwrap().file_len);
    assert_clean(&store);

    let before = store.seq().unwrap();
    let mut transaction = store.begin().unwrap();
    let start = transaction.savepoint().unwrap();
    transaction.insert("key", "another").unwrap();
    transaction.rollback_to(&start).unwrap();
    transaction.commit().unwrap();
    assert!(store.seq().unwrap() > before, "its number is skipped: what lies in the log has it");
    assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(store.changes_since(before).unwrap().iter().count(), 0);
    assert_clean(&store);
}

#[test]
fn a_savepoint_is_of_one_transaction() {
    let (one, other) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    let (mut of_one, mut of_other) = (one.begin().unwrap(), other.begin().unwrap());
    let saved = of_one.savepoint().unwrap();
    of_other.savepoint().unwrap();
    of_other.insert("key", "value").unwrap();
    assert!(matches!(of_other.rollback_to(&saved), Err(Error::NoSuchSavepoint { .. })));
    of_other.commit().unwrap();
    assert_eq!(other.len().unwrap(), 1);
}

/// A map that is made anew and takes the name of the one before, again and again: dropped maps do not pile up.
#[test]
fn maps_that_are_replaced_in_transactions_leave_no_space_behind() {
    let store = Store::in_memory().unwrap();
    let mut lengths = Vec::new();
    for round in 0..8_000_u32 {
        let mut exchange = store.begin().unwrap();
        exchange.map::<u32, u32>("new").unwrap().insert(round, round).unwrap();
        exchange.rename_map("new", "now").unwrap();
        exchange.commit().unwrap();
        if round % 500 == 499 {
            lengths.push(store.stats().unwrap().file_len);
        }
    }
    assert_clean(&store);
    assert!(lengths[15] < lengths[7] * 3 / 2, "{lengths:?}");
}

/// What a feed tells goes by the names of that time, so a reader can go by names as well as by numbers.
#[test]
fn a_feed_names_a_map_as_it_was_named_then() {
    let store = Store::in_memory().unwrap();
    store.map::<[u8], [u8]>("b").unwrap().insert(b"old", b"b").unwrap();
    let mut feed = store.changes(store.seq().unwrap()).unwrap();
    let mut exchange = store.begin().unwrap();
    exchange.map::<[u8], [u8]>("a").unwrap().insert(b"new", b"a").unwrap();
    exchange.rename_map("a", "b").unwrap();
    exchange.commit().unwrap();
    let commit = feed.next_commit().unwrap().unwrap();
    let told = commit.iter().map(|change| {
        let change = change.unwrap();
        let what = match change.kind {
            FeedChangeKind::Create { .. } => "made".to_owned(),
            FeedChangeKind::Insert { key, .. } => format!("has {}", String::from_utf8_lossy(key)),
            FeedChangeKind::Rename { from } => format!("was {from}"),
            FeedChangeKind::Drop => "dropped".to_owned(),
            other => panic!("{other:?}"),
        };
        format!("{} {what}", change.name)
    });
    assert_eq!(told.collect::<Vec<_>>(), ["a made", "a has new", "b dropped", "b was a"]);
}

/// A map for which there is no room leaves nothing behind, not even its number: followers count as their leader does.
#[test]
fn a_map_without_room_uses_no_number() {
    let store = Store::options().max_size(1 << 20).auto_compact(None).in_memory().unwrap();
    let mut count = 0_u32;
    while store.insert(count.to_le_bytes(), [7; 10_000]).is_ok() {
        count += 1;
    }
    // There is room for a small record, and none for a large one.
    let mut transaction = store.begin().unwrap();
    let refused = transaction.map::<u32, u32>(&"n".repeat(60_000)).map(drop);
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    transaction.insert("done", "1").unwrap();
    transaction.commit().unwrap();
    for number in 0..count {
        store.remove(number.to_le_bytes()).unwrap();
    }
    store.map::<u32, u32>("map").unwrap().insert(1, 1).unwrap();
    let follower = Store::in_memory().unwrap();
    let mut feed = store.changes(Seq::ZERO).unwrap();
    while let Some(commit) = feed.next_commit().unwrap() {
        commit.apply(&follower).unwrap();
    }
    assert_eq!(follower.maps().unwrap(), store.maps().unwrap());
}

/// A renaming that finds no room was not made, and the transaction goes on.
#[test]
fn a_renaming_without_room_leaves_all_as_it_was() {
    let store = Store::options().max_size(1 << 20).auto_compact(None).in_memory().unwrap();
    store.map::<u32, u32>("a").unwrap().insert(1, 1).unwrap();
    let mut count = 0_u32;
    while store.insert(count.to_le_bytes(), vec![7; 20_000]).is_ok() {
        count += 1;
    }
    let mut transaction = store.begin().unwrap();
    let refused = transaction.rename_map("a", &"n".repeat(60_000));
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert_eq!(transaction.map::<u32, u32>("a").unwrap().get(1).unwrap(), Some(1));
    transaction.remove(0_u32.to_le_bytes()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.map::<u32, u32>("a").unwrap().get(1).unwrap(), Some(1));
    assert_clean(&store);
}
