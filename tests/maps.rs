//! A `Map` behaves like a `std::collections::HashMap`: long random sequences of all operations on a few maps of one
//! store, alone and in transactions, checked step by step against `HashMap`s, with snapshots, reopening, power cuts,
//! renaming and dropping in between. `PROPTEST_CASES` sets the number of sequences.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use slotlog::{Expiry, Map, Options, Snapshot, Store};
use support::{assert_clean, folder};
use tempfile::TempDir;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// The expected content of a map.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: HashMap<String, u32>,
    /// Keys that have expired, and that `len` may still count.
    ghosts: HashSet<String>,
}

impl Model {
    fn set(&mut self, key: &str, value: Option<u32>) {
        self.ghosts.remove(key);
        match value {
            Some(value) => self.entries.insert(key.to_owned(), value),
            None => self.entries.remove(key),
        };
    }

    fn get(&self, key: &str) -> Option<u32> {
        self.entries.get(key).copied()
    }
}

#[derive(Clone, Copy, Debug)]
enum Deadline {
    Never,
    Past,
    Future,
}

/// An operation on one map, alone or in a transaction.
#[derive(Clone, Debug)]
enum Change {
    Insert(u8, u32, Deadline),
    Remove(u8),
    Replace(u8, u32),
    Take(u8),
    Get(u8),
    RetainOdd,
    /// This many keys, more than fit into a small index.
    Burst(u16),
    Clear,
    Iterate,
}

#[derive(Clone, Debug)]
enum Operation {
    Change(Change),
    /// Adds to a value, or makes one; removes it if there was one and the sum is divisible by three.
    Update(u8, u32),
    /// The expected value: the current one plus this. Zero of an absent key stands for `None`.
    CompareExchange(u8, Option<u32>, Option<u32>),
    OrInsert(u8, u32),
    OrInsertWith(u8, u32),
    OrDefault(u8),
    AndModify(u8, u32, u32),
    AndModifyOnly(u8, u32),
    GetMany(Vec<u8>),
    Extend(u8, u8),
    ExtendInBatches(u8, u8, u8),
    Drain,
    Pop,
    /// Changes of any of the maps, and whether they are committed.
    Transaction(Vec<(u8, Change)>, bool),
    TakeSnapshot,
    CheckSnapshot,
    Rename(u8),
    Drop,
    Reopen,
    PowerCut,
    Verify,
    Compact,
    Maintain,
}

fn deadlines() -> impl Strategy<Value = Deadline> {
    prop_oneof![4 => Just(Deadline::Never), 1 => Just(Deadline::Past), 1 => Just(Deadline::Future)]
}

fn changes() -> impl Strategy<Value = Change> {
    let key = 0..40_u8;
    prop_oneof![
        12 => (key.clone(), any::<u32>(), deadlines()).prop_map(|(key, value, at)| Change::Insert(key, value, at)),
        4 => key.clone().prop_map(Change::Remove),
        4 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Change::Replace(key, value)),
        4 => key.clone().prop_map(Change::Take),
        4 => key.prop_map(Change::Get),
        1 => Just(Change::RetainOdd),
        1 => (0..900_u16).prop_map(Change::Burst),
        1 => Just(Change::Clear),
        1 => Just(Change::Iterate),
    ]
}

fn operations() -> impl Strategy<Value = Operation> {
    let key = || 0..40_u8;
    let some = || proptest::option::of(0..4_u32);
    prop_oneof![
        30 => changes().prop_map(Operation::Change),
        4 => (key(), 0..9_u32).prop_map(|(key, add)| Operation::Update(key, add)),
        6 => (key(), some(), some()).prop_map(|(key, current, new)| Operation::CompareExchange(key, current, new)),
        3 => (key(), any::<u32>()).prop_map(|(key, value)| Operation::OrInsert(key, value)),
        3 => (key(), any::<u32>()).prop_map(|(key, value)| Operation::OrInsertWith(key, value)),
        3 => key().prop_map(Operation::OrDefault),
        3 => (key(), 0..9_u32, any::<u32>()).prop_map(|(key, add, new)| Operation::AndModify(key, add, new)),
        3 => (key(), 0..9_u32).prop_map(|(key, add)| Operation::AndModifyOnly(key, add)),
        2 => proptest::collection::vec(key(), 0..40).prop_map(Operation::GetMany),
        2 => (key(), 0..200_u8).prop_map(|(from, count)| Operation::Extend(from, count)),
        2 => (key(), 0..200_u8, 0..30_u8).prop_map(|(from, count, size)| Operation::ExtendInBatches(from, count, size)),
        1 => Just(Operation::Drain),
        4 => Just(Operation::Pop),
        6 => (proptest::collection::vec((0..3_u8, changes()), 0..12), any::<bool>())
            .prop_map(|(changes, commit)| Operation::Transaction(changes, commit)),
        2 => Just(Operation::TakeSnapshot),
        3 => Just(Operation::CheckSnapshot),
        1 => (0..3_u8).prop_map(Operation::Rename),
        1 => Just(Operation::Drop),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::PowerCut),
        1 => Just(Operation::Verify),
        1 => Just(Operation::Compact),
        2 => Just(Operation::Maintain),
    ]
}

fn key(number: u8) -> String {
    format!("key {}{number}", "x".repeat(number as usize % 11))
}

/// A snapshot, the maps that had the names when it was taken, and their contents at that time.
type Held = (Snapshot, [Map<str, u32>; 3], [Model; 3]);

/// A store that is compared with maps in memory.
struct World {
    folder: TempDir,
    path: PathBuf,
    copies: u32,
    options: Options,
    store: Option<Store>,
    models: [Model; 3],
    snapshots: Vec<Held>,
}

impl World {
    fn new(options: Options) -> World {
        let folder = folder();
        let path = folder.path().join("0");
        let store = Some(options.clone().open(&path).unwrap());
        World { folder, path, copies: 0, options, store, models: Default::default(), snapshots: Vec::new() }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn map(&self, number: usize) -> Map<str, u32> {
        self.store().map(NAMES[number]).unwrap()
    }

    fn step(&mut self, which: u8, operation: &Operation) {
        let which = which as usize % 3;
        let map = self.map(which);
        match operation {
            Operation::Change(change) => self.change(which, change),
            Operation::Update(number, add) => {
                let expected = match self.models[which].get(&key(*number)) {
                    None => Some(*add),
                    Some(old) => Some(old.wrapping_add(*add)).filter(|sum| sum % 3 != 0),
                };
                let new = map
                    .update(key(*number), |old| match old {
                        None => Some(*add),
                        Some(old) => Some(old.wrapping_add(*add)).filter(|sum| sum % 3 != 0),
                    })
                    .unwrap();
                assert_eq!(new, expected);
                self.models[which].set(&key(*number), expected);
            }
            Operation::CompareExchange(number, current, new) => {
                let there = self.models[which].get(&key(*number));
                let current = current.map(|add| there.unwrap_or(0).wrapping_add(add));
                let new = new.map(|new| new + 7);
                let result = map.compare_exchange(key(*number), current.as_ref(), new.as_ref()).unwrap();
                if there == current {
                    assert_eq!(result, Ok(()));
                    // An expired entry may be gone by now.
                    if there.is_some() || new.is_some() {
                        self.models[which].set(&key(*number), new);
                    }
                } else {
                    assert_eq!(result, Err(there));
                }
            }
            Operation::OrInsert(number, value) => {
                let expected = *self.models[which].entries.entry(key(*number)).or_insert(*value);
                assert_eq!(map.entry(key(*number)).or_insert(*value).unwrap(), expected);
            }
            Operation::OrInsertWith(number, value) => {
                let expected = *self.models[which].entries.entry(key(*number)).or_insert_with(|| *value);
                assert_eq!(map.entry(key(*number)).or_insert_with(|| *value).unwrap(), expected);
            }
            Operation::OrDefault(number) => {
                let expected = *self.models[which].entries.entry(key(*number)).or_default();
                assert_eq!(map.entry(key(*number)).or_default().unwrap(), expected);
            }
            Operation::AndModify(number, add, new) => {
                let entry = self.models[which].entries.entry(key(*number));
                let expected = *entry.and_modify(|value| *value = value.wrapping_add(*add)).or_insert(*new);
                let entry = map.entry(key(*number)).and_modify(|value| *value = value.wrapping_add(*add));
                assert_eq!(entry.or_insert(*new).unwrap(), expected);
            }
            Operation::AndModifyOnly(number, add) => {
                let value = self.models[which].entries.get_mut(&key(*number));
                let expected = value.map(|value| {
                    *value = value.wrapping_add(*add).wrapping_mul(3);
                    *value
                });
                let entry = map.entry(key(*number)).and_modify(|value| *value = value.wrapping_add(*add));
                assert_eq!(entry.and_modify(|value| *value = value.wrapping_mul(3)).commit().unwrap(), expected);
            }
            Operation::GetMany(numbers) => {
                let keys: Vec<String> = numbers.iter().map(|number| key(*number)).collect();
                let expected: Vec<_> = keys.iter().map(|key| self.models[which].get(key)).collect();
                assert_eq!(map.get_many(&keys).unwrap(), expected);
                for (key, expected) in keys.iter().zip(expected) {
                    assert_eq!(map.get(key.as_str()).unwrap(), expected);
                    assert_eq!(map.contains_key(key.as_str()).unwrap(), expected.is_some());
                }
            }
            Operation::Extend(from, count) => {
                let entries = (0..*count).map(|number| (key(number.wrapping_add(*from)), u32::from(number)));
                map.extend(entries.clone()).unwrap();
                entries.for_each(|(key, value)| self.models[which].set(&key, Some(value)));
            }
            Operation::ExtendInBatches(from, count, size) => {
                let entries = (0..*count).map(|number| (key(number.wrapping_add(*from)), u32::from(number)));
                let inserted = map.extend_in_batches(entries.clone(), u64::from(*size)).unwrap();
                assert_eq!(inserted, u64::from(*count));
                entries.for_each(|(key, value)| self.models[which].set(&key, Some(value)));
            }
            Operation::Drain => {
                let drained: HashMap<_, _> = map.drain().unwrap().map(Result::unwrap).collect();
                assert_eq!(drained, std::mem::take(&mut self.models[which]).entries);
                assert!(map.is_empty().unwrap());
            }
            Operation::Pop => match map.pop().unwrap() {
                Some((key, value)) => assert_eq!(self.models[which].entries.remove(&key), Some(value)),
                None => assert!(self.models[which].entries.is_empty()),
            },
            Operation::Transaction(changes, commit) => self.transaction(changes, *commit),
            Operation::TakeSnapshot => {
                if self.snapshots.len() < 4 {
                    let maps = [0, 1, 2].map(|number| self.map(number));
                    self.snapshots.push((self.store().snapshot().unwrap(), maps, self.models.clone()));
                }
            }
            Operation::CheckSnapshot => {
                if let Some((snapshot, maps, models)) = self.snapshots.pop() {
                    for (map, model) in maps.iter().zip(&models) {
                        check_snapshot(&snapshot, map, model);
                    }
                }
            }
            Operation::Rename(to) => {
                let to = *to as usize;
                assert!(self.store().rename_map(NAMES[which], NAMES[to]).unwrap());
                if to != which {
                    self.models[to] = std::mem::take(&mut self.models[which]);
                    assert!(!self.store().rename_map(NAMES[which], NAMES[to]).unwrap(), "it has another name now");
                }
            }
            Operation::Drop => {
                assert!(self.store().drop_map(NAMES[which]).unwrap());
                assert!(!self.store().drop_map(NAMES[which]).unwrap());
                assert_eq!(map.get(key(1)).unwrap(), None);
                assert!(matches!(map.insert(key(1), 1), Err(slotlog::Error::NoSuchMap { .. })));
                assert!(matches!(map.update(key(1), |_| Some(1)), Err(slotlog::Error::NoSuchMap { .. })));
                self.models[which] = Model::default();
            }
            Operation::Reopen => {
                drop(map);
                self.snapshots.clear();
                self.store.take().unwrap().close().unwrap();
                self.store = Some(self.options.clone().open(&self.path).unwrap());
            }
            Operation::PowerCut => {
                drop(map);
                self.copies += 1;
                let copy = self.folder.path().join(self.copies.to_string());
                std::fs::copy(&self.path, &copy).unwrap();
                self.path = copy;
                self.snapshots.clear();
                self.store = Some(self.options.clone().open(&self.path).unwrap());
            }
            Operation::Verify => {
                assert_clean(self.store());
            }
            Operation::Compact => drop(self.store().compact().unwrap()),
            Operation::Maintain => drop(self.store().maintain(Duration::from_millis(1)).unwrap()),
        }
    }

    fn change(&mut self, which: usize, change: &Change) {
        let map = self.map(which);
        let model = &mut self.models[which];
        match change {
            Change::Insert(number, value, Deadline::Never) => {
                map.insert(key(*number), *value).unwrap();
                model.set(&key(*number), Some(*value));
                assert_eq!(map.expiry(key(*number)).unwrap(), Some(Expiry::Never));
            }
            Change::Insert(number, value, Deadline::Future) => {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36);
                map.insert_with_expiry(key(*number), *value, at).unwrap();
                model.set(&key(*number), Some(*value));
                assert_eq!(map.expiry(key(*number)).unwrap(), Some(Expiry::At(at)));
            }
            Change::Insert(number, value, Deadline::Past) => {
                map.insert_with_expiry(key(*number), *value, SystemTime::now()).unwrap();
                model.set(&key(*number), None);
                model.ghosts.insert(key(*number));
                assert_eq!(map.expiry(key(*number)).unwrap(), None);
            }
            Change::Remove(number) => {
                assert_eq!(map.remove(key(*number)).unwrap(), model.get(&key(*number)).is_some());
                model.set(&key(*number), None);
            }
            Change::Replace(number, value) => {
                assert_eq!(map.replace(key(*number), *value).unwrap(), model.get(&key(*number)));
                model.set(&key(*number), Some(*value));
            }
            Change::Take(number) => {
                assert_eq!(map.take(key(*number)).unwrap(), model.get(&key(*number)));
                model.entries.remove(&key(*number));
            }
            Change::Get(number) => assert_eq!(map.get(key(*number)).unwrap(), model.get(&key(*number))),
            Change::RetainOdd => {
                let before = model.entries.len();
                model.entries.retain(|_, value| *value % 2 == 1);
                let removed = map.retain(|_, value| value % 2 == 1).unwrap();
                assert_eq!(removed, (before - model.entries.len()) as u64);
            }
            Change::Burst(count) => {
                for number in 0..*count {
                    map.insert(format!("burst {number}"), u32::from(number)).unwrap();
                    model.set(&format!("burst {number}"), Some(u32::from(number)));
                }
            }
            Change::Clear => {
                map.clear().unwrap();
                *model = Model::default();
                assert!(map.is_empty().unwrap());
            }
            Change::Iterate => self.check(which),
        }
    }

    fn check(&self, which: usize) {
        let (map, model) = (self.map(which), &self.models[which]);
        let entries: Vec<(String, u32)> = map.iter().unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), model.entries.len(), "no key comes twice");
        assert_eq!(entries.into_iter().collect::<HashMap<_, _>>(), model.entries);
        let keys: HashSet<String> = map.keys().unwrap().map(Result::unwrap).collect();
        assert_eq!(keys, model.entries.keys().cloned().collect());
        let mut values: Vec<u32> = map.values().unwrap().map(Result::unwrap).collect();
        let mut expected: Vec<u32> = model.entries.values().copied().collect();
        values.sort_unstable();
        expected.sort_unstable();
        assert_eq!(values, expected);
        let (len, least) = (map.len().unwrap(), model.entries.len() as u64);
        assert!((least..=least + model.ghosts.len() as u64).contains(&len), "{len} of {least}");
    }

    fn transaction(&mut self, changes: &[(u8, Change)], commit: bool) {
        let maps: Vec<Map<str, u32>> = (0..3).map(|number| self.map(number)).collect();
        let mut models = self.models.clone();
        let mut transaction = self.store().begin().unwrap();
        for (which, change) in changes {
            let which = *which as usize;
            let model = &mut models[which];
            let mut map = transaction.of(&maps[which]);
            match change {
                Change::Insert(number, value, Deadline::Never) => {
                    map.insert(key(*number), *value).unwrap();
                    model.set(&key(*number), Some(*value));
                }
                Change::Insert(number, value, Deadline::Future) => {
                    let at = SystemTime::now() + Duration::from_secs(1 << 20);
                    map.insert_with_expiry(key(*number), *value, at).unwrap();
                    model.set(&key(*number), Some(*value));
                }
                Change::Insert(number, value, Deadline::Past) => {
                    map.insert_with_expiry(key(*number), *value, SystemTime::UNIX_EPOCH).unwrap();
                    model.set(&key(*number), None);
                    model.ghosts.insert(key(*number));
                }
                Change::Remove(number) => {
                    assert_eq!(map.remove(key(*number)).unwrap(), model.get(&key(*number)).is_some());
                    model.set(&key(*number), None);
                }
                Change::Replace(number, value) => {
                    assert_eq!(map.replace(key(*number), *value).unwrap(), model.get(&key(*number)));
                    model.set(&key(*number), Some(*value));
                }
                Change::Take(number) => {
                    assert_eq!(map.take(key(*number)).unwrap(), model.get(&key(*number)));
                    model.set(&key(*number), None);
                }
                Change::Get(number) => {
                    assert_eq!(map.get(key(*number)).unwrap(), model.get(&key(*number)));
                    assert_eq!(map.contains_key(key(*number)).unwrap(), model.get(&key(*number)).is_some());
                }
                Change::RetainOdd => {
                    map.retain(|_, value| value % 2 == 1).unwrap();
                    model.entries.retain(|_, value| *value % 2 == 1);
                }
                Change::Burst(count) => {
                    for number in 0..*count {
                        map.insert(format!("burst {number}"), u32::from(number)).unwrap();
                        model.set(&format!("burst {number}"), Some(u32::from(number)));
                    }
                }
                Change::Clear => {
                    map.clear().unwrap();
                    model.entries.clear();
                }
                Change::Iterate => {
                    let entries: Vec<(String, u32)> = map.iter().unwrap().map(Result::unwrap).collect();
                    assert_eq!(entries.len(), model.entries.len());
                    assert_eq!(entries.into_iter().collect::<HashMap<_, _>>(), model.entries);
                    let (len, least) = (map.len().unwrap(), model.entries.len() as u64);
                    assert!((least..=least + model.ghosts.len() as u64).contains(&len), "{len} of {least}");
                }
            }
        }
        if commit {
            transaction.commit().unwrap();
            self.models = models;
        } else {
            transaction.rollback();
        }
    }
}

fn check_snapshot(snapshot: &Snapshot, map: &Map<str, u32>, model: &Model) {
    let view = snapshot.of(map);
    let entries: HashMap<_, _> = view.iter().unwrap().map(Result::unwrap).collect();
    assert_eq!(entries, model.entries);
    assert_eq!(view.len().unwrap(), model.entries.len() as u64);
    assert_eq!(view.is_empty().unwrap(), model.entries.is_empty());
    assert_eq!(view.keys().unwrap().count(), model.entries.len());
    assert_eq!(view.values().unwrap().count(), model.entries.len());
    let keys: Vec<String> = (0..40).map(key).collect();
    let expected: Vec<_> = keys.iter().map(|key| model.get(key)).collect();
    assert_eq!(view.get_many(&keys).unwrap(), expected);
    for (key, expected) in keys.iter().zip(expected) {
        assert_eq!(view.get(key.as_str()).unwrap(), expected);
        assert_eq!(view.contains_key(key.as_str()).unwrap(), expected.is_some());
    }
}

fn play(options: Options, steps: &[(u8, Operation)]) {
    let mut world = World::new(options);
    for (which, operation) in steps {
        world.step(*which, operation);
    }
    for which in 0..3 {
        world.check(which);
    }
    let report = world.store().verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.findings());
}

fn cases(default: u32) -> ProptestConfig {
    let cases = support::setting("PROPTEST_CASES", default.into()) as u32;
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn maps_are_like_std_maps(steps in proptest::collection::vec((0..3_u8, operations()), 1..120)) {
        play(Store::options(), &steps);
    }

    #[test]
    fn with_upkeep_all_the_time(steps in proptest::collection::vec((0..3_u8, operations()), 1..120)) {
        play(Store::options().tiny_steps(), &steps);
    }
}

#[test]
fn an_iterator_is_not_asked_again_after_its_end() {
    let store = Store::in_memory().unwrap();
    let map = store.map::<u32, u32>("map").unwrap();
    // It begins anew after each end, as that of a channel does.
    let mut asked = 0;
    let mut next = || {
        asked += 1;
        (asked % 6 != 0).then_some((asked, asked))
    };
    map.extend(std::iter::from_fn(&mut next)).unwrap();
    assert_eq!(map.len().unwrap(), 5);
    assert_eq!(map.extend_in_batches(std::iter::from_fn(&mut next), 100).unwrap(), 5);
    assert_eq!((map.len().unwrap(), asked), (10, 12));
}
