//! Histories of calls, held against a `HashMap`.
//!
//! A history goes on through closing, killing and copying: after each the store has to hold exactly what was committed,
//! and to verify clean. Snapshots are kept and read later, against what the map was when they were taken.
#![no_main]

mod scratch;

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slotlog::{Access, Durability, Error, Opened, Options, Snapshot, Store};

#[derive(Arbitrary, Debug)]
struct History {
    /// Limits the size of the file, to so many blocks more than an empty store has.
    blocks: Option<u8>,
    capacity: u16,
    often: bool,
    /// Resize and compaction go in the smallest steps.
    tiny: bool,
    verify_reads: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Change(Change),
    Get(Key),
    Clear,
    Transaction(Vec<Change>, Ending),
    Snapshot,
    ReadSnapshot(u8),
    DropSnapshot(u8),
    Sync,
    Checkpoint,
    Verify,
    /// Compacts, and stops when that has asked so often whether to go on.
    Compact(u8),
    Maintain,
    Release,
    /// Closes the store and opens it again.
    Close,
    /// The process is killed, and another one opens the store.
    Kill,
    /// The file is copied while it is open, and the history goes on with the copy.
    Copy,
    /// Closes the store and looks at it through a read-only opening.
    ReadOnly,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Insert(Key, Value),
    Remove(Key),
    /// Many keys in a row, so that index and log grow.
    Fill {
        first: u16,
        count: u16,
        len: u8,
    },
    Drain {
        first: u16,
        count: u16,
    },
}

#[derive(Arbitrary, Debug)]
enum Ending {
    Commit,
    Synced,
    Rollback,
    Kill,
    Copy,
}

#[derive(Arbitrary, Debug)]
enum Key {
    Short(u8),
    Filled(u16),
    Empty,
    Long(u16),
}

#[derive(Arbitrary, Debug)]
enum Value {
    Short(Vec<u8>),
    Long(u16, u8),
    /// Longer than the usual extent of the log.
    Huge(u16, u8),
}

impl Key {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Key::Short(key) => vec![key % 32],
            Key::Filled(number) => filled(number),
            Key::Empty => Vec::new(),
            Key::Long(len) => vec![7; usize::from(len)],
        }
    }
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Short(bytes) => bytes.clone(),
            Value::Long(len, fill) => vec![*fill; usize::from(*len) % 8192],
            Value::Huge(len, fill) => vec![*fill; usize::from(*len) * 8],
        }
    }
}

/// The key with this number in a row of keys.
fn filled(number: u16) -> Vec<u8> {
    [b"key ", &(number % 4096).to_be_bytes()[..]].concat()
}

/// The keys of a row, of moderate length.
fn row(first: u16, count: u16) -> impl Iterator<Item = Vec<u8>> {
    (0..count % 700).map(move |number| filled(first.wrapping_add(number)))
}

type Model = HashMap<Vec<u8>, Vec<u8>>;

/// What the file is called now, and what its next copy will be called.
static PATHS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let folder = scratch::folder();
    [folder.join("a.slotlog"), folder.join("b.slotlog")]
});

/// Something to change keys in: the store itself or a transaction.
trait Target {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> slotlog::Result<()>;
    fn remove(&mut self, key: &[u8]) -> slotlog::Result<bool>;
}

impl Target for Store {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> slotlog::Result<()> {
        Store::insert(self, key, value)
    }

    fn remove(&mut self, key: &[u8]) -> slotlog::Result<bool> {
        let removed = Store::remove(self, key);
        if let Err(Error::Full { .. }) = removed {
            // That is what the reserve is for.
            let reserve = self.stats().unwrap().extents.iter().any(|extents| extents.kind == "Reserve");
            assert!(!reserve, "a removal was refused, and there was a reserve for it");
        }
        removed
    }
}

impl Target for slotlog::Transaction {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> slotlog::Result<()> {
        slotlog::Transaction::insert(self, key, value)
    }

    fn remove(&mut self, key: &[u8]) -> slotlog::Result<bool> {
        slotlog::Transaction::remove(self, key)
    }
}

struct Run {
    options: Options,
    limited: bool,
    store: Option<Store>,
    /// Which of the two paths is in use.
    at: usize,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
}

impl Run {
    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is taken only to be opened again")
    }

    /// Whether a change was made. Only a store with a limit may refuse one.
    fn made<T>(limited: bool, result: slotlog::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Full { .. }) if limited => None,
            Err(error) => panic!("a change was refused: {error}"),
        }
    }

    fn change(limited: bool, target: &mut impl Target, model: &mut Model, change: &Change) {
        match change {
            Change::Insert(key, value) => {
                let (key, value) = (key.bytes(), value.bytes());
                if Run::made(limited, target.insert(&key, &value)).is_some() {
                    model.insert(key, value);
                }
            }
            Change::Remove(key) => Run::remove(limited, target, model, &key.bytes()),
            &Change::Fill { first, count, len } => {
                for key in row(first, count) {
                    let value = vec![key[5]; usize::from(len)];
                    if Run::made(limited, target.insert(&key, &value)).is_some() {
                        model.insert(key, value);
                    }
                }
            }
            &Change::Drain { first, count } => {
                row(first, count).for_each(|key| Run::remove(limited, target, model, &key));
            }
        }
    }

    fn remove(limited: bool, target: &mut impl Target, model: &mut Model, key: &[u8]) {
        if let Some(removed) = Run::made(limited, target.remove(key)) {
            assert_eq!(removed, model.remove(key).is_some(), "whether {key:?} was there");
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change(change) => {
                let mut store = self.store().clone();
                Run::change(self.limited, &mut store, &mut self.model, change);
            }
            Step::Get(key) => {
                let key = key.bytes();
                assert_eq!(self.store().get(&key).unwrap().as_ref(), self.model.get(&key));
                assert_eq!(self.store().contains_key(&key).unwrap(), self.model.contains_key(&key));
            }
            Step::Clear => {
                if Run::made(self.limited, self.store().clear()).is_some() {
                    self.model.clear();
                }
            }
            Step::Transaction(changes, ending) => self.transaction(changes, ending),
            Step::Snapshot => {
                if self.snapshots.len() < 8 {
                    self.snapshots.push((self.store().snapshot().unwrap(), self.model.clone()));
                }
            }
            Step::ReadSnapshot(number) => {
                if let Some((snapshot, model)) = self.snapshots.get(usize::from(*number)) {
                    compare(snapshot, model);
                }
            }
            Step::DropSnapshot(number) => {
                if usize::from(*number) < self.snapshots.len() {
                    self.snapshots.swap_remove(usize::from(*number));
                }
            }
            Step::Sync => self.store().sync().unwrap(),
            Step::Checkpoint => self.store().checkpoint().unwrap(),
            Step::Verify => verify(self.store()),
            Step::Compact(times) => {
                let mut left = *times;
                let compacted = self.store().compact_with(|_| {
                    left = left.saturating_sub(1);
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                Run::made(self.limited, compacted);
            }
            Step::Maintain => drop(Run::made(self.limited, self.store().maintain(Duration::from_millis(1)))),
            Step::Release => drop(Run::made(self.limited, self.store().release_free_space())),
            Step::Close => {
                self.close();
                self.open();
                assert_eq!(self.store().opened(), Opened::Clean);
            }
            Step::Kill => {
                let image = self.image();
                self.killed(&image);
            }
            Step::Copy => {
                let image = self.image();
                self.copied(&image);
            }
            Step::ReadOnly => {
                self.close();
                let store = self.options.clone().access(Access::ReadOnly).open(&PATHS[self.at]).unwrap();
                verify(&store);
                compare(&store.snapshot().unwrap(), &self.model);
                assert!(matches!(store.insert("key", ""), Err(Error::ReadOnly { .. })));
                drop(store);
                self.open();
            }
        }
    }

    fn transaction(&mut self, changes: &[Change], ending: &Ending) {
        let mut model = self.model.clone();
        let mut transaction = self.store().begin().unwrap();
        for change in changes {
            Run::change(self.limited, &mut transaction, &mut model, change);
        }
        assert_eq!(transaction.len(), model.len() as u64);
        for key in changes.iter().filter_map(Change::a_key) {
            assert_eq!(transaction.get(&key).unwrap().as_ref(), model.get(&key), "a transaction sees its own changes");
            assert_eq!(self.store().get(&key).unwrap().as_ref(), self.model.get(&key), "and nobody else does");
        }
        let committed = match ending {
            Ending::Commit => Run::made(self.limited, transaction.commit()).is_some(),
            Ending::Synced => Run::made(self.limited, transaction.commit_with(Durability::Synced)).is_some(),
            Ending::Rollback => {
                transaction.rollback();
                false
            }
            Ending::Kill | Ending::Copy => {
                let image = self.image();
                drop(transaction);
                match ending {
                    Ending::Kill => self.killed(&image),
                    _ => self.copied(&image),
                }
                false
            }
        };
        if committed {
            self.model = model;
        }
    }

    /// The file as it is now.
    fn image(&self) -> Vec<u8> {
        fs::read(&PATHS[self.at]).unwrap()
    }

    fn close(&mut self) {
        for (snapshot, model) in self.snapshots.drain(..) {
            compare(&snapshot, &model);
        }
        self.store.take().expect("it is open").close().unwrap();
    }

    fn open(&mut self) {
        let store = self.options.clone().open(&PATHS[self.at]).unwrap();
        verify(&store);
        compare(&store.snapshot().unwrap(), &self.model);
        self.store = Some(store);
    }

    /// Puts back the file as it was before it was closed. It is the same file in the same page cache, so the opener has
    /// to think that whoever had it open before was killed.
    fn killed(&mut self, image: &[u8]) {
        self.close();
        write(&PATHS[self.at], image);
        self.open();
        assert!(!matches!(self.store().opened(), Opened::Created));
    }

    /// Goes on with a copy of the file as it was while it was open.
    fn copied(&mut self, image: &[u8]) {
        self.close();
        self.at = 1 - self.at;
        write(&PATHS[self.at], image);
        self.open();
        assert!(!matches!(self.store().opened(), Opened::Created | Opened::AfterKill));
    }
}

impl Change {
    /// A key that the change is about.
    fn a_key(&self) -> Option<Vec<u8>> {
        match self {
            Change::Insert(key, _) | Change::Remove(key) => Some(key.bytes()),
            &Change::Fill { first, .. } | &Change::Drain { first, .. } => Some(filled(first)),
        }
    }
}

/// Writes a file without making a new one.
fn write(path: &PathBuf, image: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all(image).unwrap();
    file.set_len(image.len() as u64).unwrap();
}

fn verify(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings());
}

/// Whether a snapshot sees what the model has, no more and no less.
fn compare(snapshot: &Snapshot, model: &Model) {
    assert_eq!(snapshot.len(), model.len() as u64);
    let mut count = 0;
    for entry in snapshot {
        let (key, value) = entry.unwrap();
        assert_eq!(Some(value), model.get(key).map(Vec::as_slice), "of the key {key:?}");
        count += 1;
    }
    assert_eq!(count, model.len());
    let keys: Vec<&Vec<u8>> = model.keys().collect();
    for (key, value) in keys.iter().zip(snapshot.get_many(&keys).unwrap()) {
        assert_eq!(value, model.get(*key).map(Vec::as_slice), "of the key {key:?}");
    }
}

fuzz_target!(|history: History| {
    let path = &PATHS[0];
    // An empty file is one in which a store is created.
    write(path, &[]);
    let mut options = Store::options().initial_capacity(u64::from(history.capacity) % 2048);
    options = options.verify_reads(history.verify_reads);
    if history.often {
        options = options.checkpoint_every(4096);
    }
    if history.tiny {
        options = options.tiny_steps();
    }
    if let Some(blocks) = history.blocks {
        // An empty store has at least 38 blocks; with a capacity it has more, and then may not come to be.
        options = options.max_size((38 + u64::from(blocks)) * slotlog::format::BLOCK);
    }
    let limited = history.blocks.is_some();
    let store = match options.clone().open(path) {
        Ok(store) => store,
        Err(Error::Full { .. }) if limited => return,
        Err(error) => panic!("an empty file was refused: {error}"),
    };
    let mut run = Run { options, limited, store: Some(store), at: 0, model: Model::new(), snapshots: Vec::new() };
    history.steps.iter().for_each(|step| run.step(step));
    run.close();
    run.open();
});
