//! A store behaves like a `HashMap<Vec<u8>, Vec<u8>>`: long random sequences of all operations, checked step by step
//! against that map.
//!
//! The keys are few, so that they are overwritten, removed and inserted again, and there are bursts of many new ones,
//! so that file and index have to grow. Snapshots are held over all that follows, and must keep showing the map as it
//! was; so are changes since a commit, which must stay the same. A power cut is simulated by copying the file while the
//! store is open: a copy is recovered from its log alone. Several openings of one file, which act towards each other
//! like processes, take turns at all this.
//!
//! `PROPTEST_CASES` sets the number of sequences. The last test runs for `SLOTLOG_SOAK_SECONDS`; run it with `cargo
//! test --release --test model -- --ignored --nocapture`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use slotlog::{Access, ChangeKind, Changes, Durability, Error, Opened, Options, Seq, Snapshot, Store};
use support::{Random, folder};
use tempfile::TempDir;

type Map = HashMap<Vec<u8>, Vec<u8>>;

/// A key, in a form that shrinks well.
#[derive(Clone, Copy, Debug)]
enum Key {
    Empty,
    Few(u8),
    /// One of a few long ones.
    Long(u8, u16),
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        match self {
            Key::Empty => Vec::new(),
            // Of different lengths, and some are prefixes of others.
            Key::Few(number) => {
                format!("key {}", "x".repeat(number as usize % 9)).into_bytes().into_iter().chain([number]).collect()
            }
            Key::Long(number, len) => vec![number; len as usize],
        }
    }
}

/// A value.
#[derive(Clone, Copy, Debug)]
struct Value {
    seed: u8,
    len: u32,
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        Random(self.seed.into()).bytes(self.len as usize)
    }
}

/// One step within a transaction.
#[derive(Clone, Debug)]
enum Change {
    Insert(Key, Value),
    Remove(Key),
    Get(Key),
    /// This many new keys, or keys of an earlier burst.
    Burst(u8, u16),
}

#[derive(Clone, Debug)]
enum Operation {
    Insert(Key, Value),
    Remove(Key),
    Get(Key),
    /// This many inserts of keys that belong to burst number `.0`, each a commit of its own.
    Burst(u8, u16),
    /// This many removals of the keys of a burst.
    BurstGone(u8, u16),
    Clear,
    /// Changes at once; committed, or given up.
    Transaction(Vec<Change>, Ending),
    /// Takes a snapshot to be checked much later; at most a few are held.
    TakeSnapshot,
    /// Checks a held snapshot, and drops it.
    CheckSnapshot(u8),
    /// Takes the changes since the earliest commit that the log reaches back to, to be checked much later.
    TakeChanges,
    /// Checks changes that are held, and drops them.
    CheckChanges(u8),
    /// Checks everything.
    Iterate,
    Sync,
    Checkpoint,
    Reopen,
    /// Copies the file and continues with the copy; perhaps in the middle of a transaction that is then lost.
    PowerCut(bool),
    Verify,
    /// Compacts, and stops after this many progress calls.
    Compact(u8),
    /// Does pending upkeep.
    Maintain,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Commit,
    CommitSynced,
    Rollback,
    Drop,
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![
        1 => Just(Key::Empty),
        40 => any::<u8>().prop_map(|number| Key::Few(number % 200)),
        1 => (0..3_u8, prop_oneof![Just(65_535), 200..65_535_u16]).prop_map(|(number, len)| Key::Long(number, len)),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let len = prop_oneof![
        2 => Just(0),
        20 => 0..200_u32,
        // Around the length up to which records are assembled in one piece.
        3 => 900..1100_u32,
        2 => 1000..20_000_u32,
        // Longer than the smallest extent of the log.
        1 => 60_000..300_000_u32,
    ];
    (any::<u8>(), len).prop_map(|(seed, len)| Value { seed, len })
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (keys(), values()).prop_map(|(key, value)| Change::Insert(key, value)),
        5 => keys().prop_map(Change::Remove),
        3 => keys().prop_map(Change::Get),
        1 => (0..6_u8, 0..600_u16).prop_map(|(burst, keys)| Change::Burst(burst, keys)),
    ]
}

fn endings() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Commit),
        1 => Just(Ending::CommitSynced),
        1 => Just(Ending::Rollback),
        1 => Just(Ending::Drop),
    ]
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        30 => (keys(), values()).prop_map(|(key, value)| Operation::Insert(key, value)),
        20 => keys().prop_map(Operation::Remove),
        10 => keys().prop_map(Operation::Get),
        3 => (0..6_u8, 0..700_u16).prop_map(|(burst, keys)| Operation::Burst(burst, keys)),
        2 => (0..6_u8, 0..700_u16).prop_map(|(burst, keys)| Operation::BurstGone(burst, keys)),
        1 => Just(Operation::Clear),
        8 => (prop::collection::vec(changes(), 0..20), endings())
            .prop_map(|(changes, ending)| Operation::Transaction(changes, ending)),
        4 => Just(Operation::TakeSnapshot),
        3 => any::<u8>().prop_map(Operation::CheckSnapshot),
        3 => Just(Operation::TakeChanges),
        2 => any::<u8>().prop_map(Operation::CheckChanges),
        2 => Just(Operation::Iterate),
        1 => Just(Operation::Sync),
        1 => Just(Operation::Checkpoint),
        2 => Just(Operation::Reopen),
        2 => any::<bool>().prop_map(Operation::PowerCut),
        1 => Just(Operation::Verify),
        2 => any::<u8>().prop_map(Operation::Compact),
        2 => Just(Operation::Maintain),
    ]
}

/// Key number `number` of a burst.
fn burst_key(burst: u8, number: u16) -> Vec<u8> {
    format!("burst {burst} key {number}").into_bytes()
}

/// The place of a store, if it has one.
struct Place {
    folder: TempDir,
    copies: u32,
}

impl Place {
    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("store {}", self.copies))
    }
}

/// A store and the map that it must be like.
struct Pair {
    /// `None` only while it is being reopened.
    store: Option<Store>,
    /// Other openings of the same file for writing, and one for reading; none, or all of them.
    beside: Vec<Store>,
    reader: Option<Store>,
    place: Option<Place>,
    map: Map,
    held: Vec<(Snapshot, Map)>,
    told: Vec<(Changes, History)>,
    /// What was visible after each operation.
    seqs: Vec<Seq>,
    operations: u64,
    /// Resize and compaction go in the smallest steps, so some is always under way.
    tiny: bool,
}

impl Pair {
    fn on_disk(tiny: bool) -> Pair {
        let place = Place { folder: folder(), copies: 0 };
        let pair = Pair { tiny, ..Pair::empty() };
        let store = pair.options().open(place.path()).unwrap();
        Pair { store: Some(store), place: Some(place), ..pair }
    }

    /// The options for writing, with automatic checkpoints now and then.
    fn options(&self) -> Options {
        let options = Store::options().checkpoint_every(1 << 20);
        if self.tiny { options.tiny_steps() } else { options }
    }

    /// With other openings of the same file.
    fn among_others(tiny: bool) -> Pair {
        let mut pair = Pair::on_disk(tiny);
        pair.invite();
        pair
    }

    fn empty() -> Pair {
        Pair {
            store: None,
            beside: Vec::new(),
            reader: None,
            place: None,
            map: Map::new(),
            held: Vec::new(),
            told: Vec::new(),
            seqs: Vec::new(),
            operations: 0,
            tiny: false,
        }
    }

    fn invite(&mut self) {
        let path = self.place.as_ref().unwrap().path();
        self.beside = (0..2).map(|_| self.options().open(&path).unwrap()).collect();
        self.reader = Some(Store::options().access(Access::ReadOnly).open(&path).unwrap());
    }

    fn in_memory() -> Pair {
        Pair { store: Some(Store::in_memory().unwrap()), ..Pair::empty() }
    }

    /// The opening whose turn it is to write.
    fn store(&self) -> &Store {
        let turn = self.operations as usize % (self.beside.len() + 1);
        self.beside.get(turn).unwrap_or_else(|| self.store.as_ref().unwrap())
    }

    /// The opening whose turn it is to read.
    fn seen_by(&self) -> &Store {
        let reads = self.reader.as_ref().filter(|_| self.operations.is_multiple_of(2));
        reads.unwrap_or_else(|| self.store.as_ref().unwrap())
    }

    fn run(&mut self, operation: &Operation) {
        self.operations += 1;
        match operation {
            Operation::Insert(key, value) => {
                let (key, value) = (key.bytes(), value.bytes());
                self.store().insert(&key, &value).unwrap();
                assert_eq!(self.store().get(&key).unwrap().as_ref(), Some(&value), "what was just written");
                self.map.insert(key, value);
            }
            Operation::Remove(key) => {
                let key = key.bytes();
                assert_eq!(self.store().remove(&key).unwrap(), self.map.remove(&key).is_some());
                assert_eq!(self.store().get(&key).unwrap(), None, "what was just removed");
            }
            Operation::Get(key) => {
                let key = key.bytes();
                let expected = self.map.get(&key);
                assert_eq!(self.seen_by().get(&key).unwrap().as_ref(), expected);
                assert_eq!(self.seen_by().contains_key(&key).unwrap(), expected.is_some());
                assert_eq!(self.seen_by().get_with(&key, <[u8]>::len).unwrap(), expected.map(Vec::len));
            }
            Operation::Burst(burst, keys) => {
                for number in 0..*keys {
                    self.store().insert(burst_key(*burst, number), number.to_le_bytes()).unwrap();
                    self.map.insert(burst_key(*burst, number), number.to_le_bytes().to_vec());
                }
            }
            Operation::BurstGone(burst, keys) => {
                for number in 0..*keys {
                    let key = burst_key(*burst, number);
                    assert_eq!(self.store().remove(&key).unwrap(), self.map.remove(&key).is_some());
                }
            }
            Operation::Clear => {
                self.store().clear().unwrap();
                self.map.clear();
                assert!(self.store().is_empty().unwrap());
            }
            Operation::Transaction(changes, ending) => self.transaction(changes, *ending),
            Operation::TakeSnapshot => {
                if self.held.len() < 6 {
                    self.held.push((self.seen_by().snapshot().unwrap(), self.map.clone()));
                }
            }
            Operation::CheckSnapshot(number) => {
                if !self.held.is_empty() {
                    let (snapshot, map) = self.held.swap_remove(*number as usize % self.held.len());
                    compare(&snapshot, &map);
                }
            }
            Operation::TakeChanges => {
                if self.told.len() < 4 {
                    self.told.extend(self.oldest_changes().map(|changes| {
                        let history = history(&changes);
                        (changes, history)
                    }));
                }
            }
            Operation::CheckChanges(number) => {
                if !self.told.is_empty() {
                    let (changes, expected) = self.told.swap_remove(*number as usize % self.told.len());
                    assert!(history(&changes) == expected, "the log tells another history now");
                }
            }
            Operation::Iterate => compare(&self.seen_by().snapshot().unwrap(), &self.map),
            Operation::Sync => self.store().sync().unwrap(),
            Operation::Checkpoint => self.store().checkpoint().unwrap(),
            Operation::Reopen => self.reopen(),
            Operation::PowerCut(in_transaction) => self.cut_power(*in_transaction),
            Operation::Verify => self.verify(),
            Operation::Compact(times) => {
                let mut left = u16::from(*times) + 1;
                let report = self.store().compact_with(|_| {
                    left = left.saturating_sub(1);
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                let report = report.unwrap();
                assert_eq!(report.file_len, self.store().stats().unwrap().file_len);
                assert!(left > 0 || !report.finished);
            }
            Operation::Maintain => drop(self.store().maintain(Duration::from_millis(2)).unwrap()),
        }
        assert_eq!(self.seen_by().len().unwrap(), self.map.len() as u64);
        self.seqs.push(self.store().seq().unwrap());
        if self.seqs.len() > 500 {
            self.seqs.remove(0);
        }
    }

    /// The changes since the earliest operation that the log reaches back to.
    fn oldest_changes(&self) -> Option<Changes> {
        self.seqs.iter().find_map(|&seq| match self.seen_by().changes_since(seq) {
            Err(Error::HistoryTruncated { .. }) => None,
            changes => Some(changes.unwrap()),
        })
    }

    fn transaction(&mut self, changes: &[Change], ending: Ending) {
        let mut map = self.map.clone();
        let mut transaction = self.store().begin().unwrap();
        for change in changes {
            match change {
                Change::Insert(key, value) => {
                    let (key, value) = (key.bytes(), value.bytes());
                    transaction.insert(&key, &value).unwrap();
                    assert_eq!(transaction.get(&key).unwrap().as_ref(), Some(&value), "its own write");
                    assert_eq!(self.store().get(&key).unwrap().as_ref(), self.map.get(&key), "nobody else sees it");
                    map.insert(key, value);
                }
                Change::Remove(key) => {
                    let key = key.bytes();
                    assert_eq!(transaction.remove(&key).unwrap(), map.remove(&key).is_some());
                    assert_eq!(self.store().get(&key).unwrap().as_ref(), self.map.get(&key), "nobody else sees it");
                }
                Change::Get(key) => {
                    let key = key.bytes();
                    assert_eq!(transaction.get(&key).unwrap().as_ref(), map.get(&key));
                    assert_eq!(transaction.contains_key(&key).unwrap(), map.contains_key(&key));
                }
                Change::Burst(burst, keys) => {
                    for number in 0..*keys {
                        let key = burst_key(*burst, number);
                        transaction.insert(&key, b"from a transaction").unwrap();
                        map.insert(key, b"from a transaction".to_vec());
                    }
                }
            }
            assert_eq!(transaction.len(), map.len() as u64);
        }
        assert_eq!(self.store().len().unwrap(), self.map.len() as u64, "nobody else counts it");
        match ending {
            Ending::Commit => transaction.commit().unwrap(),
            Ending::CommitSynced => transaction.commit_with(Durability::Synced).unwrap(),
            Ending::Rollback => return transaction.rollback(),
            Ending::Drop => return drop(transaction),
        }
        self.map = map;
    }

    /// Closes the store, explicitly or by dropping it, and opens it again.
    fn reopen(&mut self) {
        let Some(path) = self.place.as_ref().map(Place::path) else { return };
        self.check_held();
        let store = self.store.take().unwrap();
        if self.operations.is_multiple_of(2) {
            store.close().unwrap()
        } else {
            drop(store)
        }
        if self.operations.is_multiple_of(3) {
            // The others as well, but not the reader.
            self.beside.clear();
        }
        let store = self.options().open(path).unwrap();
        assert_eq!(store.opened(), if self.beside.is_empty() { Opened::Clean } else { Opened::Attached });
        self.store = Some(store);
        if self.reader.is_some() && self.beside.is_empty() {
            let reader = self.reader.take();
            self.invite();
            assert_eq!(reader.unwrap().len().unwrap(), self.map.len() as u64, "who stayed open goes on");
        }
        self.verify();
    }

    /// Continues with a copy of the file, made while the store was open, perhaps with a transaction half done.
    fn cut_power(&mut self, in_transaction: bool) {
        let Some(place) = &mut self.place else { return };
        let old = place.path();
        place.copies += 1;
        let new = place.path();
        let store = self.store.take().unwrap();
        if in_transaction {
            let mut transaction = store.begin().unwrap();
            for number in 0..100 {
                transaction.insert(burst_key(1, number), vec![1; 50 * number as usize]).unwrap();
            }
            std::fs::copy(&old, &new).unwrap();
            transaction.rollback();
        } else {
            std::fs::copy(&old, &new).unwrap();
        }
        self.check_held();
        drop(store);
        let invited = self.reader.is_some();
        self.beside.clear();
        self.reader = None;
        std::fs::remove_file(old).unwrap();
        let store = self.options().open(new).unwrap();
        // Right after reopening, the copy is one of a closed store, and needs no recovery.
        assert!(in_transaction || matches!(store.opened(), Opened::AfterPowerCut { .. } | Opened::Clean));
        self.store = Some(store);
        if invited {
            self.invite();
        }
        compare(&self.store().snapshot().unwrap(), &self.map);
        self.verify();
    }

    /// Checks all held snapshots and changes, and drops them.
    fn check_held(&mut self) {
        for (snapshot, map) in self.held.drain(..) {
            compare(&snapshot, &map);
        }
        for (changes, expected) in self.told.drain(..) {
            assert!(history(&changes) == expected, "the log tells another history now");
        }
    }

    fn verify(&self) {
        let report = self.store().verify().unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings());
        assert_eq!(report.keys(), self.map.len() as u64);
        let stats = self.store().stats().unwrap();
        let record =
            |(key, value): (&Vec<u8>, &Vec<u8>)| slotlog::format::record_len(key.len() as u64, value.len() as u64);
        let live: u64 = self.map.iter().map(record).sum();
        let map = &stats.maps[1];
        assert_eq!((stats.live_bytes, map.live_bytes, map.entries), (live, live, self.map.len() as u64));
        assert_eq!(stats.log_bytes, stats.live_bytes + stats.dead_bytes);
        assert_eq!(stats.log_records, report.records());
        // One pin for each commit.
        let pins = self.held.iter().map(|(snapshot, _)| snapshot.seq());
        let pins = pins.chain(self.told.iter().map(|(changes, _)| changes.seq())).collect::<BTreeSet<_>>().len() as u64;
        // The snapshots of a reader are locks, not pins.
        assert!(stats.pins == pins || self.reader.is_some() && stats.pins < pins, "{} pins", stats.pins);
        assert!(map.used_slots >= map.entries && map.used_slots < map.slots, "{map:?}");
        let extents: u64 = stats.extents.iter().map(|extent| extent.bytes).sum();
        // The last block of a file is its seal.
        let seal = if self.place.is_some() { slotlog::format::BLOCK } else { 0 };
        assert_eq!(extents + slotlog::format::EXTENTS + seal, stats.file_len, "every block is accounted for");
        let probes: u64 = self.store().probe_lengths().unwrap().iter().sum();
        assert!(probes >= map.entries && probes <= map.used_slots, "{probes} slots are reached: {map:?}");
    }

    fn finish(mut self) {
        compare(&self.store().snapshot().unwrap(), &self.map);
        self.check_held();
        self.verify();
        self.reopen();
        compare(&self.store().snapshot().unwrap(), &self.map);
    }
}

/// What the log has told: of each change its number, the key, and the value if it has got one; neither for a clear.
type History = Vec<(Seq, Option<Vec<u8>>, Option<Vec<u8>>)>;

fn history(changes: &Changes) -> History {
    let told = changes.iter().map(|change| {
        let change = change.unwrap();
        let (key, value) = match change.kind {
            ChangeKind::Insert { key, value } => (Some(key), Some(value)),
            ChangeKind::Remove { key } => (Some(key), None),
            _ => (None, None),
        };
        (change.seq, key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec))
    });
    told.collect()
}

/// Checks that a snapshot shows exactly this map, by every method.
fn compare(snapshot: &Snapshot, map: &Map) {
    assert_eq!(snapshot.len(), map.len() as u64);
    let mut count = 0;
    for entry in snapshot {
        let (key, value) = entry.unwrap();
        assert_eq!(map.get(key).map(Vec::as_slice), Some(value), "{:?}", String::from_utf8_lossy(key));
        count += 1;
    }
    // With the comparisons above: each key once.
    assert_eq!(count, map.len());
    let keys: Vec<&Vec<u8>> = map.keys().collect();
    for (key, found) in keys.iter().zip(snapshot.get_many(&keys).unwrap()) {
        assert_eq!(map.get(*key).map(Vec::as_slice), found);
    }
    for number in 0..=u8::MAX {
        let key = Key::Few(number).bytes();
        assert_eq!(snapshot.get(&key).unwrap(), map.get(&key).map(Vec::as_slice));
    }
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 32;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_store_in_a_file_is_like_a_map(operations in prop::collection::vec(operations(), 1..250)) {
        let mut pair = Pair::on_disk(false);
        operations.iter().for_each(|operation| pair.run(operation));
        pair.finish();
    }

    #[test]
    fn a_store_that_several_have_open_is_like_a_map(operations in prop::collection::vec(operations(), 1..250)) {
        let mut pair = Pair::among_others(false);
        operations.iter().for_each(|operation| pair.run(operation));
        pair.finish();
    }

    #[test]
    fn a_store_with_upkeep_all_the_time_is_like_a_map(operations in prop::collection::vec(operations(), 1..250)) {
        let mut pair = Pair::on_disk(true);
        operations.iter().for_each(|operation| pair.run(operation));
        pair.finish();
    }

    #[test]
    fn a_store_with_upkeep_by_several_is_like_a_map(operations in prop::collection::vec(operations(), 1..250)) {
        let mut pair = Pair::among_others(true);
        operations.iter().for_each(|operation| pair.run(operation));
        pair.finish();
    }

    #[test]
    fn a_store_in_memory_is_like_a_map(operations in prop::collection::vec(operations(), 1..250)) {
        let mut pair = Pair::in_memory();
        operations.iter().for_each(|operation| pair.run(operation));
        pair.finish();
    }
}

/// One long life instead of many short ones, for defects that show only after hours of growth, churn and reopening.
#[test]
#[ignore = "takes as long as SLOTLOG_SOAK_SECONDS says, 60 by default"]
fn a_store_is_like_a_map_for_a_long_time() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let seconds = number("SLOTLOG_SOAK_SECONDS").unwrap_or(60);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("SLOTLOG_SOAK_SEED").unwrap_or(now);
    eprintln!("SLOTLOG_SOAK_SEED={seed}");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(ProptestConfig::default(), random);
    let strategy = operations();
    let mut pair = Pair::on_disk(seed.is_multiple_of(2));
    while Instant::now() < end {
        let operation = strategy.new_tree(&mut runner).unwrap().current();
        pair.run(&operation);
        if pair.operations.is_multiple_of(5000) {
            let stats = pair.store().stats().unwrap();
            eprintln!("{} operations, {} keys, {} MiB", pair.operations, pair.map.len(), stats.file_len >> 20);
            assert!(stats.file_len < 1 << 30, "space does not come back");
        }
    }
    pair.finish();
}
