//! Every call to the system fails once, the first, the second and so on: allocations, truncations, mappings, flushes,
//! locks.
//!
//! Each failure yields a typed error and no corruption: an operation that fails has not happened, with one exception. A
//! synced commit that could not be flushed is there and not durable; then, and after any failed flush, the store is
//! poisoned: it claims no durability until all processes have closed it, and then recovers in full.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Content, NAMED, batch_of, check, content, drop_named, key, map_of, put, rename, support};
use crate::engine::Engine;
use crate::engine::settings::{Durability, Limits, Opened, Settings};
use crate::error::{Error, Result};
use crate::file::layout::DEFAULT_MAP;
use crate::file::witness::{self, Call, Recorder};

/// Makes calls fail.
pub(super) struct Faults {
    pub(super) kind: Call,
    /// The first call that fails, and how many do, which covers a caller's attempts with smaller requests.
    pub(super) first: u64,
    pub(super) count: u64,
    /// Undoing the failed operation fails as well.
    pub(super) truncate_too: bool,
    pub(super) calls: AtomicU64,
    pub(super) failed: AtomicBool,
}

impl Recorder for Faults {
    fn call(&self, call: Call) -> io::Result<()> {
        let fails = if call == self.kind {
            let number = self.calls.fetch_add(1, Ordering::SeqCst);
            (self.first..self.first + self.count).contains(&number)
        } else {
            call == Call::Truncate && self.truncate_too && self.failed.load(Ordering::SeqCst)
        };
        if !fails {
            return Ok(());
        }
        self.failed.store(true, Ordering::SeqCst);
        Err(io::Error::from_raw_os_error(match call {
            Call::Allocate => libc::ENOSPC,
            Call::Map => libc::ENOMEM,
            Call::Lock => libc::ENOLCK,
            _ => libc::EIO,
        }))
    }
}

/// A step in the life of a store.
enum Step {
    Open,
    Put(u16, u32),
    Remove(u16),
    /// Puts of all these keys.
    Transaction(std::ops::Range<u16>, u32),
    Clear,
    Drop,
    Rename,
    Sync,
    Checkpoint,
    Compact,
    Maintain,
    Verify,
    Close,
}

/// A bit of everything: a store is created, grows beyond its mapping, its index grows, it is cleared, closed, opened.
const LIFE: [Step; 30] = [
    Step::Open,
    Step::Put(1, 100),
    Step::Put(2, 70_000),
    Step::Sync,
    Step::Transaction(0..300, 20),
    Step::Remove(3),
    Step::Checkpoint,
    Step::Transaction(0..8, 90_000),
    Step::Transaction(4..9, 120_000),
    Step::Put(400, 200_000),
    Step::Verify,
    Step::Close,
    Step::Open,
    Step::Put(3, 40),
    Step::Clear,
    Step::Transaction(100..900, 10),
    Step::Put(5, 700_000),
    Step::Checkpoint,
    Step::Put(6, 10),
    Step::Put(NAMED | 6, 10),
    Step::Rename,
    Step::Put(NAMED | 7, 90_000),
    Step::Close,
    Step::Open,
    Step::Verify,
    Step::Remove(6),
    Step::Drop,
    Step::Put(NAMED | 6, 10),
    Step::Verify,
    Step::Close,
];

/// The life of a store that is compacted and resized in the smallest steps: its extents are reused, and its file gets
/// shorter.
const UPKEEP: [Step; 24] = [
    Step::Open,
    Step::Transaction(0..40, 300),
    Step::Transaction(0..30, 200),
    Step::Put(3, 4000),
    Step::Checkpoint,
    Step::Transaction(10..40, 300),
    Step::Put(3, 400),
    Step::Maintain,
    Step::Transaction(300..600, 8),
    Step::Put(4, 40),
    Step::Close,
    Step::Open,
    Step::Put(5, 4000),
    Step::Compact,
    Step::Verify,
    Step::Transaction(300..500, 20),
    Step::Clear,
    Step::Put(6, 500),
    Step::Maintain,
    Step::Transaction(0..20, 500),
    Step::Compact,
    Step::Put(7, 70_000),
    Step::Verify,
    Step::Close,
];

/// A life with more slices of the log than may be under way to the disk.
const MANY_SLICES: [Step; 24] = [
    Step::Open,
    Step::Put(1, 300_000),
    Step::Put(2, 300_000),
    Step::Put(3, 300_000),
    Step::Put(4, 300_000),
    Step::Put(5, 300_000),
    Step::Put(6, 300_000),
    Step::Put(7, 300_000),
    Step::Put(8, 300_000),
    Step::Put(9, 300_000),
    Step::Put(10, 300_000),
    Step::Put(11, 300_000),
    Step::Put(12, 300_000),
    Step::Put(13, 300_000),
    Step::Put(14, 300_000),
    Step::Put(15, 300_000),
    Step::Put(16, 300_000),
    Step::Put(17, 300_000),
    Step::Put(18, 300_000),
    Step::Put(19, 300_000),
    Step::Put(20, 300_000),
    Step::Sync,
    Step::Verify,
    Step::Close,
];

/// A life in which calls fail.
struct Life<'a> {
    path: &'a Path,
    settings: Settings,
    faults: &'a Faults,
    engine: Option<Arc<Engine>>,
    content: Content,
    /// A flush has failed since the store was opened.
    poisoned: bool,
    values: u32,
    errors: BTreeSet<String>,
}

impl Life<'_> {
    /// Opens the store, repeatedly if necessary: the fault passes.
    fn open(&mut self) -> Arc<Engine> {
        if let Some(engine) = &self.engine {
            return Arc::clone(engine);
        }
        loop {
            match Engine::open(self.path, self.settings.clone()) {
                Ok(engine) => {
                    let whole = matches!(engine.opened, Opened::AfterPowerCut { .. });
                    assert!(whole || !self.poisoned, "after a failed flush: {:?}", engine.opened);
                    // A flush that fails in the last step of an opening poisons the store.
                    self.poisoned = engine.is_poisoned();
                    assert_eq!(content(&engine).unwrap(), self.content);
                    let engine = Arc::new(engine);
                    self.engine = Some(Arc::clone(&engine));
                    return engine;
                }
                Err(error) => self.expect(error),
            }
        }
    }

    fn expect(&mut self, error: Error) {
        assert!(self.faults.failed.load(Ordering::SeqCst), "for no reason: {error}");
        let name = match &error {
            Error::Io { .. } => "Io",
            Error::Full { .. } => "Full",
            Error::Poisoned { .. } => "Poisoned",
            other => panic!("{:?} failed, and the error was {other:?}", self.faults.kind),
        };
        self.errors.insert(name.into());
    }

    /// Makes a commit that leads to `next`.
    fn commit(&mut self, next: Content, make: impl FnOnce(&Arc<Engine>) -> Result<()>) {
        let engine = self.open();
        let poisoned = engine.is_poisoned();
        let made = make(&engine);
        let found = content(&engine).unwrap();
        match made {
            Ok(()) => {
                assert_eq!(found, next);
                let claims = self.settings.durability == Durability::Synced && next != self.content;
                assert!(!claims || !poisoned, "durability was claimed after a flush had failed");
                self.content = next;
            }
            Err(error) => {
                self.expect(error);
                if found != self.content {
                    assert!(found == next && engine.is_poisoned(), "an operation that fails has not happened");
                    assert_eq!(self.settings.durability, Durability::Synced);
                    self.content = next;
                }
            }
        }
    }

    fn value(&mut self, len: u32) -> (u32, u32) {
        self.values += 1;
        (self.values, len)
    }

    fn step(&mut self, step: &Step) {
        let mut next = self.content.clone();
        match step {
            Step::Open => drop(self.open()),
            &Step::Put(number, len) => {
                let new = self.value(len);
                next.insert(number, new);
                self.commit(next, |engine| put(engine, number, new));
            }
            &Step::Remove(number) => {
                next.remove(&number);
                self.commit(next, |engine| engine.remove(map_of(engine, number)?, &key(number)).map(drop));
            }
            Step::Transaction(keys, len) => {
                for number in keys.clone() {
                    next.insert(number, self.value(*len));
                }
                let durability = self.settings.durability;
                let new = next.clone();
                self.commit(next, |engine| {
                    batch_of(engine, keys.clone().map(|number| (number, Some(new[&number]))))?.commit(durability)
                });
            }
            Step::Clear => {
                next.retain(|number, _| number & NAMED != 0);
                self.commit(next, |engine| engine.clear(DEFAULT_MAP));
            }
            Step::Drop => {
                next.retain(|number, _| number & NAMED == 0);
                self.commit(next, drop_named);
            }
            Step::Rename => self.commit(next, rename),
            Step::Sync => self.care(Engine::sync),
            Step::Checkpoint => self.care(Engine::checkpoint),
            Step::Compact => self.care(|engine| engine.compact(&mut |_| ControlFlow::Continue(())).map(drop)),
            Step::Maintain => self.care(|engine| {
                while engine.maintain(Duration::ZERO, Duration::from_secs(9))? {}
                Ok(())
            }),
            Step::Verify => self.care(|engine| {
                let report = engine.verify()?;
                assert!(report.is_clean(), "{:?}", report.findings());
                Ok(())
            }),
            Step::Close => {
                self.care(Engine::close);
                self.poisoned = self.engine.take().is_some_and(|engine| engine.is_poisoned());
            }
        }
        // From a failed flush on, no commit is called durable.
        if let Some(engine) = self.engine.clone().filter(|engine| engine.is_poisoned()) {
            assert!(matches!(engine.sync(), Err(Error::Poisoned { .. })));
            assert!(engine.checkpoint().is_err());
        }
    }

    fn care(&mut self, take: impl FnOnce(&Engine) -> Result<()>) {
        let engine = self.open();
        if let Err(error) = take(&engine) {
            self.expect(error);
        }
    }
}

/// Makes each call of this kind fail in turn, in a whole life. Returns the number of calls, and the errors.
fn each_fails(kind: Call, count: u64, truncate_too: bool, durability: Durability) -> (u64, BTreeSet<String>) {
    let settings = Settings { durability, checkpoint_every: 300_000, ..Settings::default() };
    each_fails_in(&LIFE, &settings, kind, count, truncate_too)
}

/// The same in a life of upkeep.
fn each_fails_in_upkeep(kind: Call, count: u64, truncate_too: bool) -> (u64, BTreeSet<String>) {
    let settings = Settings { checkpoint_every: 20_000, limits: Limits::tiny(), ..Settings::default() };
    each_fails_in(&UPKEEP, &settings, kind, count, truncate_too)
}

fn each_fails_in(
    steps: &[Step],
    settings: &Settings,
    kind: Call,
    count: u64,
    truncate_too: bool,
) -> (u64, BTreeSet<String>) {
    let folder = support::folder();
    let path = folder.path().join("store");
    let mut errors = BTreeSet::new();
    let mut first = 0;
    loop {
        let (calls, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let faults = Arc::new(Faults { kind, first, count, truncate_too, calls, failed });
        let (settings, expected) = {
            let _standing = witness::stand(faults.clone());
            let mut life = Life {
                path: &path,
                settings: settings.clone(),
                faults: &faults,
                engine: None,
                content: Content::new(),
                poisoned: false,
                values: 0,
                errors,
            };
            steps.iter().for_each(|step| life.step(step));
            errors = life.errors;
            (life.settings, life.content)
        };
        let engine = Engine::open(&path, settings).unwrap();
        assert_eq!(content(&engine).unwrap(), expected, "{kind:?} {first}");
        check(&engine).unwrap();
        drop(engine);
        std::fs::remove_file(&path).unwrap();
        if !faults.failed.load(Ordering::SeqCst) {
            return (first, errors);
        }
        first += 1;
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn allocations_fail() {
    let (number, errors) = each_fails(Call::Allocate, 1, false, Durability::Buffered);
    assert!(number > 15, "{number}");
    assert_eq!(errors, names(&["Full"]));
}

#[test]
fn truncations_fail() {
    let (number, errors) = each_fails(Call::Allocate, 1, true, Durability::Buffered);
    assert!(number > 15 && errors.contains("Full"), "{number} {errors:?}");
}

#[test]
fn mappings_fail() {
    for truncate_too in [false, true] {
        // A refused mapping is requested again: with less room, and in another place.
        let (number, errors) = each_fails(Call::Map, 40, truncate_too, Durability::Buffered);
        assert!(number > 9, "{number}");
        // A file that cannot be made shorter again gives another error than a full one.
        assert_eq!(errors, names(if truncate_too { &["Io"] } else { &["Full", "Io"] }));
    }
}

#[test]
fn flushes_fail() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let (number, errors) = each_fails(Call::Flush, 1, false, durability);
        assert!(number > 15, "{number}");
        assert_eq!(errors, names(&["Io", "Poisoned"]));
    }
}

#[test]
fn writing_back_fails() {
    // With this many slices, some are not only started but waited for.
    let settings = Settings { checkpoint_every: 8 << 20, ..Settings::default() };
    let (number, errors) = each_fails_in(&MANY_SLICES, &settings, Call::WriteBack, 1, false);
    assert!(number > 20, "{number}");
    // Closing writes back as well, and reports what has failed.
    assert_eq!(errors, names(&["Io", "Poisoned"]));
}

#[test]
fn appends_fail() {
    let (number, errors) = each_fails(Call::Append, 1, false, Durability::Synced);
    assert!(number > 100, "{number}");
    assert_eq!(errors, names(&["Io"]));
}

#[test]
fn locks_fail() {
    let (number, errors) = each_fails(Call::Lock, 1, false, Durability::Buffered);
    assert!(number > 30, "{number}");
    assert_eq!(errors, names(&["Io"]));
}

#[test]
fn calls_of_upkeep_fail() {
    let (number, errors) = each_fails_in_upkeep(Call::Allocate, 1, false);
    assert!(number > 15 && errors == names(&["Full"]), "{number} {errors:?}");
    let (number, errors) = each_fails_in_upkeep(Call::Allocate, 3, true);
    assert!(number > 15 && errors.contains("Full"), "{number} {errors:?}");
    let (number, errors) = each_fails_in_upkeep(Call::Truncate, 1, false);
    assert!(number > 1 && errors == names(&["Io"]), "{number} {errors:?}");
    let (number, errors) = each_fails_in_upkeep(Call::Flush, 1, false);
    assert!(number > 15 && errors == names(&["Io", "Poisoned"]), "{number} {errors:?}");
    let (number, errors) = each_fails_in_upkeep(Call::Lock, 1, false);
    assert!(number > 30 && errors == names(&["Io"]), "{number} {errors:?}");
    let (number, errors) = each_fails_in_upkeep(Call::WriteBack, 1, false);
    assert!(number > 10 && errors.contains("Poisoned"), "{number} {errors:?}");
}
