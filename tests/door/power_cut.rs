//! Power cuts, simulated sector by sector.
//!
//! A *history* is a store's life: operations, with a power cut after each of its two to four *generations*, and kills in
//! between. It runs on the real engine, over a real file, with a [medium] behind the door that knows what a disk may hold at
//! each moment. From each generation a few dozen *images* are taken: at random stores, before, inside and after flushes, in
//! recoveries, checkpoints with writers going on, growth, clears. Every image is opened by the real recovery, and must come
//! out as the content after some commit that began, and not one before the last that was acknowledged as durable;
//! with its counters right and nothing for `verify` to find. The next generation goes on from one of them. So what an
//! earlier life has left behind the end of the log is there to be mistaken for a part of a later one.
//!
//! `SLOTLOG_TEST_IMAGES` says how many images to try, `SLOTLOG_TEST_SEED` with which seed. A history that fails is shrunk
//! by proptest, and printed.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::medium::{Cuts, Image, Medium};
use super::support::{self, Random};
use super::{Content, check, content, key, setting, value};
use crate::engine::Engine;
use crate::engine::batch::Batch;
use crate::engine::recovery::Opened;
use crate::engine::settings::{Access, Durability, Settings};
use crate::error::{Error, Result};
use crate::file::door::{self, Recorder};
use crate::file::layout::{BLOCK, CREATION_MAGIC, DEFAULT_MAP, live};

/// What a history consists of.
#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u16,
        len: u32,
    },
    Remove {
        key: u16,
    },
    /// Keys to put (with the length of the value) or to remove, all in one commit, or given up in the end.
    Transaction {
        changes: Vec<(u16, Option<u32>)>,
        durability: Durability,
        commit: bool,
    },
    Clear,
    Sync,
    Checkpoint,
    /// The store is closed and opened again.
    Reopen,
    /// The process is killed after so many stores of what follows.
    Kill {
        after: u64,
    },
    /// The next flush fails.
    FlushFails,
    /// A put is made while the next flush is going on.
    DuringNextFlush {
        key: u16,
        len: u32,
    },
}

/// How the steps of a history are chosen.
#[derive(Clone, Copy)]
struct Taste {
    keys: u16,
    /// Lengths of most values, and of a few.
    usual: u32,
    long: u32,
    /// Most changes of a transaction.
    changes: usize,
    checkpoint_every: u64,
    durability: Durability,
    flushes_fail: bool,
}

impl Taste {
    fn lengths(self) -> impl Strategy<Value = u32> + Clone {
        prop_oneof![6 => 4..=self.usual, 1 => 4..=self.long]
    }

    fn step(self) -> impl Strategy<Value = Step> + Clone {
        let (key, len) = (0..self.keys, self.lengths());
        let change = (key.clone(), prop_oneof![3 => len.clone().prop_map(Some), 1 => Just(None)]);
        let durability = prop_oneof![Just(Durability::Buffered), Just(Durability::Synced)];
        let transaction = (prop::collection::vec(change, 1..=self.changes), durability, prop::bool::weighted(0.85));
        prop_oneof![
            12 => (key.clone(), len.clone()).prop_map(|(key, len)| Step::Put { key, len }),
            4 => key.clone().prop_map(|key| Step::Remove { key }),
            5 => transaction.prop_map(|(changes, durability, commit)| Step::Transaction { changes, durability, commit }),
            1 => Just(Step::Clear),
            4 => Just(Step::Sync),
            2 => Just(Step::Checkpoint),
            1 => Just(Step::Reopen),
            2 => (0..60u64).prop_map(|after| Step::Kill { after }),
            u32::from(self.flushes_fail) => Just(Step::FlushFails),
            2 => (key, len).prop_map(|(key, len)| Step::DuringNextFlush { key, len }),
        ]
    }

    /// Generations, and a seed for everything that the disk leaves to chance.
    fn history(self) -> impl Strategy<Value = (Vec<Vec<Step>>, u64)> {
        (prop::collection::vec(prop::collection::vec(self.step(), 1..12), 2..=4), any::<u64>())
    }

    fn settings(self) -> Settings {
        let (checkpoint_every, durability) = (self.checkpoint_every, self.durability);
        // Nobody holds anything for long here.
        let lock_timeout = Duration::from_secs(2);
        Settings { checkpoint_every, durability, lock_timeout, ..Settings::default() }
    }
}

/// A disk that forgets nothing: for a look at an image.
struct Faultless;

impl Recorder for Faultless {
    fn write(&self, _offset: u64, _bytes: &[u8]) {}
    fn store(&self, _offset: u64, _value: u64) {}
    fn flush(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _len: u64) {}
}

/// A folder with the file of the history, and one for looking at images.
struct Place {
    _folder: tempfile::TempDir,
    store: PathBuf,
    image: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = support::folder();
        let (store, image) = (folder.path().join("store"), folder.path().join("image"));
        Place { _folder: folder, store, image }
    }
}

/// Opens an image, and says what is in it, after checking all that can be checked.
fn look(path: &Path, image: &Image, settings: &Settings, random: &mut Random) -> std::result::Result<Content, String> {
    let text = |error: Error| error.to_string();
    let _standing = door::stand(Arc::new(Faultless));
    fs::write(path, &image.bytes).unwrap();
    if random.one_in(16) {
        look_only(path, image, settings)?;
    }
    let engine = Engine::open(path, settings.clone()).map_err(text)?;
    if !matches!(engine.opened, Opened::AfterPowerCut { .. } | Opened::Clean | Opened::Created) {
        return Err(format!("a disk after a power cut was opened as {:?}", engine.opened));
    }
    let found = content(&engine)?;
    if !image.accepted.iter().any(|accepted| **accepted == found) {
        let opened = engine.opened;
        return Err(format!("{opened:?}: found {found:?}, which is none of {:?}", image.accepted));
    }
    check(&engine)?;
    // A new life begins with nothing of an old one.
    if random.one_in(4) {
        let mut expected = found.clone();
        expected.insert(9, (u32::MAX, 40));
        engine.put(DEFAULT_MAP, &key(9), &value((u32::MAX, 40))).map_err(text)?;
        if content(&engine)? != expected {
            return Err("a put after the recovery did not come out right".into());
        }
        check(&engine)?;
    }
    Ok(found)
}

/// Opens an image for reading: the same content, and not a byte of the file changes.
fn look_only(path: &Path, image: &Image, settings: &Settings) -> std::result::Result<(), String> {
    let settings = Settings { access: Access::ReadOnly, ..settings.clone() };
    match Engine::open(path, settings) {
        Ok(engine) => {
            let found = content(&engine)?;
            if !image.accepted.iter().any(|accepted| **accepted == found) {
                return Err(format!("a reader found {found:?}, which is none of {:?}", image.accepted));
            }
            check(&engine)?;
        }
        // A creation that was cut short holds nothing to be read.
        Err(Error::NotAStore { .. }) if image.accepted[0].is_empty() => {}
        Err(error) => return Err(error.to_string()),
    }
    if fs::read(path).unwrap() == image.bytes { Ok(()) } else { Err("a reader has changed the file".into()) }
}

/// A store that lives on a [`Medium`].
struct Life<'p> {
    path: &'p Path,
    settings: Settings,
    medium: Arc<Medium>,
    engine: Option<Arc<Engine>>,
    /// Values are numbered, so that no two are the same.
    values: u32,
}

impl Life<'_> {
    /// Puts the file as the system shows it in place, and opens it.
    fn open(&mut self) -> std::result::Result<(), String> {
        let _standing = door::stand(self.medium.clone());
        loop {
            fs::write(self.path, &self.medium.state().cache).unwrap();
            let opened = Engine::open(self.path, self.settings.clone());
            if self.medium.state().dead {
                // Killed while it opened. Another one comes.
                drop(opened);
                self.medium.state().dead = false;
                continue;
            }
            let mut state = self.medium.state();
            let was_told = std::mem::take(&mut state.flush_failed);
            drop(state);
            match opened {
                Ok(engine) => {
                    self.engine = Some(Arc::new(engine));
                    return Ok(());
                }
                Err(Error::Io { .. }) if was_told => {}
                Err(error) => return Err(format!("opening: {error}")),
            }
        }
    }

    fn engine(&self) -> Arc<Engine> {
        self.engine.clone().unwrap()
    }

    fn newest(&self) -> Content {
        (**self.medium.state().contents.last().unwrap()).clone()
    }

    /// Everything that was committed until now is durable.
    fn all_durable(&self) {
        let mut state = self.medium.state();
        state.durable_commits = state.contents.len() - 1;
    }

    /// The process is dead. Opens the store anew, and finds what became of the commit that it was about to make, if it
    /// was (`begun`).
    fn come_back(&mut self, begun: bool) -> std::result::Result<(), String> {
        self.engine = None;
        let poisoned = {
            let mut state = self.medium.state();
            (state.dead, state.dies_in, state.flush_failed) = (false, None, false);
            // If it died before it could say so, a flush that failed has another mark.
            let at = live::STATE as usize;
            state.cache.get(at).is_some_and(|bits| u64::from(*bits) & live::STATE_POISONED != 0)
        };
        self.open()?;
        let engine = self.engine();
        let recovered = match engine.opened {
            Opened::AfterKill if !poisoned => false,
            Opened::Clean | Opened::AfterPowerCut { .. } => true,
            other => return Err(format!("after a kill the store was opened as {other:?}")),
        };
        let found = content(&engine)?;
        let mut state = self.medium.state();
        if begun && state.contents.len() > 1 && *state.contents[state.contents.len() - 2] == found {
            state.contents.pop();
        }
        if *state.contents[state.contents.len() - 1] != found {
            return Err(format!("after a kill: found {found:?}, and not {:?}", state.contents.last()));
        }
        drop(state);
        if recovered {
            // What this comes out with is durable.
            self.all_durable();
        }
        Ok(())
    }

    /// Makes a commit that changes the content to `next`, if it does.
    fn commit(
        &mut self,
        next: Content,
        durability: Durability,
        make: impl FnOnce(&Arc<Engine>) -> Result<()>,
    ) -> std::result::Result<(), String> {
        let changes = next != self.newest();
        if changes {
            self.medium.state().contents.push(Arc::new(next));
        }
        let engine = self.engine();
        let mine = self.medium.state().contents.len() - 1;
        let made = make(&engine);
        if self.medium.state().dead {
            drop(engine);
            let others = self.medium.state().contents.len() - 1 > mine;
            return self.come_back(changes || others);
        }
        match made {
            Ok(()) => {
                // If nothing was changed, nothing was flushed.
                if durability == Durability::Synced && changes {
                    self.medium.state().durable_commits = mine;
                }
                Ok(())
            }
            // Did it happen all the same?
            Err(error @ (Error::Poisoned { .. } | Error::Io { .. })) if engine.is_poisoned() => {
                let found = content(&engine)?;
                let mut state = self.medium.state();
                if changes && found == *state.contents[state.contents.len() - 2] {
                    state.contents.pop();
                } else if found != *state.contents[state.contents.len() - 1] {
                    return Err(format!("after {error}: found {found:?}"));
                }
                Ok(())
            }
            Err(error) => Err(format!("a commit was refused: {error}")),
        }
    }

    fn next_value(&mut self, len: u32) -> (u32, u32) {
        self.values += 1;
        (self.values, len)
    }

    /// Does what makes everything durable, if it succeeds.
    fn make_durable(&mut self, make: impl FnOnce(&Engine) -> Result<()>) -> std::result::Result<(), String> {
        let engine = self.engine();
        let known = self.medium.state().contents.len() - 1;
        let made = make(&engine);
        let mut state = self.medium.state();
        if state.dead {
            let others = state.contents.len() - 1 > known;
            drop(state);
            drop(engine);
            return self.come_back(others);
        }
        match made {
            // What was committed meanwhile may be durable or not.
            Ok(()) if !state.flush_failed => state.durable_commits = state.durable_commits.max(known),
            Ok(()) if known == state.durable_commits => {}
            Ok(()) => return Err("durability was claimed after a flush had failed".into()),
            Err(Error::Poisoned { .. } | Error::Io { .. }) if engine.is_poisoned() => {}
            Err(error) => return Err(format!("it was not made durable: {error}")),
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> std::result::Result<(), String> {
        match step {
            Step::Put { key: number, len } => {
                let new = self.next_value(*len);
                let mut next = self.newest();
                next.insert(*number, new);
                self.commit(next, self.settings.durability, |engine| {
                    engine.put(DEFAULT_MAP, &key(*number), &value(new))
                })
            }
            Step::Remove { key: number } => {
                let mut next = self.newest();
                let there = next.remove(number).is_some();
                let wrong = Cell::new(false);
                let done = self.commit(next, self.settings.durability, |engine| {
                    wrong.set(engine.remove(DEFAULT_MAP, &key(*number))? != there);
                    Ok(())
                });
                if done.is_ok() && wrong.get() {
                    Err("a removal said wrongly whether the key was there".into())
                } else {
                    done
                }
            }
            Step::Transaction { changes, durability, commit } => {
                let mut next = self.newest();
                let mut new = Vec::new();
                for &(key, len) in changes {
                    let value = len.map(|len| self.next_value(len));
                    match value {
                        Some(value) => drop(next.insert(key, value)),
                        None => drop(next.remove(&key)),
                    }
                    new.push((key, value));
                }
                let next = if *commit { next } else { self.newest() };
                self.commit(next, *durability, |engine| {
                    let mut batch = Batch::begin(Arc::clone(engine), DEFAULT_MAP)?;
                    for &(number, new) in &new {
                        match new {
                            Some(new) => batch.put(&key(number), &value(new))?,
                            None => drop(batch.remove(&key(number))?),
                        }
                    }
                    if *commit { batch.commit(*durability) } else { Ok(()) }
                })
            }
            Step::Clear => self.commit(Content::new(), self.settings.durability, |engine| engine.clear(DEFAULT_MAP)),
            Step::Sync => self.make_durable(Engine::sync),
            Step::Checkpoint => self.make_durable(Engine::checkpoint),
            Step::Reopen => {
                self.make_durable(Engine::close)?;
                let poisoned = self.engine().is_poisoned();
                self.engine = None;
                self.medium.state().flush_failed = false;
                self.open()?;
                let found = content(&self.engine())?;
                if found != self.newest() {
                    return Err(format!("after closing: found {found:?}"));
                }
                // A store may be clean after a failed flush: if that was to take the clean flag away, before any change.
                match self.engine().opened {
                    Opened::Clean | Opened::AfterPowerCut { .. } => self.all_durable(),
                    other if poisoned => return Err(format!("after a failed flush it was opened as {other:?}")),
                    _ => {}
                }
                Ok(())
            }
            Step::Kill { after } => {
                self.medium.state().dies_in = Some(*after);
                Ok(())
            }
            Step::FlushFails => {
                self.medium.state().flush_fails = true;
                Ok(())
            }
            Step::DuringNextFlush { key: number, len } => {
                let new = self.next_value(*len);
                let (engine, medium) = (Arc::downgrade(&self.engine()), Arc::downgrade(&self.medium));
                let number = *number;
                self.medium.during_next_flush(move || {
                    let (Some(engine), Some(medium)) = (engine.upgrade(), medium.upgrade()) else { return };
                    // A commit that waits for this flush is not complete, and the one that flushes holds the lock.
                    if engine.settings.durability == Durability::Synced || engine.settings.checkpoint_every < 1 << 20 {
                        return;
                    }
                    let mut next = (**medium.state().contents.last().unwrap()).clone();
                    next.insert(number, new);
                    medium.state().contents.push(Arc::new(next));
                    if engine.put(DEFAULT_MAP, &key(number), &value(new)).is_err() {
                        // The thread that flushes has the writer lock.
                        medium.state().contents.pop();
                    }
                });
                Ok(())
            }
        }
    }

    /// Lives through the steps of a generation, to its end.
    fn live(&mut self, steps: &[Step]) -> std::result::Result<(), String> {
        for step in steps {
            self.step(step).map_err(|what| format!("{step:?}: {what}"))?;
        }
        let engine = self.engine();
        self.medium.state().dies_in = None;
        if content(&engine)? != self.newest() {
            return Err("the store holds something else than what was committed".into());
        }
        check(&engine)?;
        self.medium.cut_now();
        // Whatever closing does, the power is gone.
        self.medium.state().dead = true;
        drop(engine);
        self.engine = None;
        Ok(())
    }
}

/// How many images were looked at, in all tests.
static IMAGES: AtomicU64 = AtomicU64::new(0);

/// The file of a creation that has begun: see `Opening::create`.
fn mark() -> Vec<u8> {
    let mut mark = vec![0; BLOCK as usize];
    mark[..CREATION_MAGIC.len()].copy_from_slice(&CREATION_MAGIC);
    mark
}

/// Recovers what a cut has left, lives through the steps, and returns the images that were taken meanwhile.
fn generation_of(
    place: &Place,
    settings: &Settings,
    start: &Image,
    cuts: Cuts,
    steps: &[Step],
    random: &mut Random,
    values: &mut u32,
) -> std::result::Result<Vec<Image>, String> {
    let medium = Medium::of_image(start, cuts, random.next());
    let (path, settings) = (place.store.as_path(), settings.clone());
    let mut life = Life { path, settings, medium: medium.clone(), engine: None, values: *values };
    life.open().map_err(|what| format!("{}: {what}", start.cut))?;
    // Cut again while it is recovered, it comes out the same.
    let found = Arc::new(content(&life.engine())?);
    {
        let mut state = medium.state();
        if !state.contents.contains(&found) {
            return Err(format!("{}: found {found:?}, which is none of {:?}", start.cut, state.contents));
        }
        state.images.iter_mut().for_each(|image| image.accepted = vec![found.clone()]);
        state.contents = vec![found];
        state.durable_commits = 0;
    }
    life.live(steps)?;
    *values = life.values;
    Ok(std::mem::take(&mut medium.state().images))
}

/// Runs a history. Says how many images were looked at.
fn run(place: &Place, taste: Taste, generations: &[Vec<Step>], seed: u64) -> std::result::Result<u64, String> {
    let mut random = Random(seed);
    let settings = taste.settings();
    let mut start = Image::blank(mark());
    let (mut looked, mut values) = (0, 0);
    for steps in generations {
        let mut images = generation_of(place, &settings, &start, Cuts::Sampled, steps, &mut random, &mut values)?;
        for image in &images {
            look(&place.image, image, &settings, &mut random).map_err(|what| format!("{}: {what}", image.cut))?;
            looked += 1;
        }
        let next = random.below(images.len() as u64) as usize;
        start = images.swap_remove(next);
    }
    Ok(looked)
}

/// Tries histories until a share of all images has been looked at.
fn explore(share: u64, taste: Taste) {
    let images = setting("SLOTLOG_TEST_IMAGES", 100_000) * share / 100;
    let seed = setting("SLOTLOG_TEST_SEED", u64::from(std::process::id()) << 16 ^ crate::engine::now());
    println!("SLOTLOG_TEST_SEED={seed}");
    let place = Place::new();
    let (mut tried, mut round) = (0, seed);
    while tried < images {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        let config = Config { cases: 64, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let looked = AtomicU64::new(0);
        let outcome = runner.run(&taste.history(), |(generations, seed)| {
            looked.fetch_add(run(&place, taste, &generations, seed).map_err(TestCaseError::fail)?, Ordering::Relaxed);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, history)) => {
                panic!("SLOTLOG_TEST_SEED={round}\n{why}\nin the history {history:#?}")
            }
            Err(TestError::Abort(why)) => panic!("given up: {why}"),
        }
        tried += looked.into_inner();
        round = round.wrapping_add(1);
    }
    let all = IMAGES.fetch_add(tried, Ordering::Relaxed) + tried;
    println!("{tried} images, {all} in all");
}

const SMALL: Taste = Taste {
    keys: 12,
    usual: 120,
    long: 1500,
    changes: 4,
    checkpoint_every: 64 << 20,
    durability: Durability::Buffered,
    flushes_fail: false,
};

#[test]
fn small_commits() {
    explore(30, SMALL);
}

#[test]
fn commits_that_are_synced_each() {
    explore(10, Taste { durability: Durability::Synced, ..SMALL });
}

#[test]
fn checkpoints_all_the_time() {
    explore(20, Taste { checkpoint_every: 512, usual: 200, ..SMALL });
}

#[test]
fn flushes_that_fail() {
    explore(15, Taste { flushes_fail: true, ..SMALL });
}

#[test]
fn a_log_that_moves_from_extent_to_extent() {
    explore(15, Taste { usual: 9000, long: 80_000, ..SMALL });
}

#[test]
fn an_index_that_grows() {
    explore(10, Taste { keys: 900, usual: 12, long: 40, changes: 250, ..SMALL });
}

/// Short histories, in which the power is cut before every flush and at the end in all the ways that there are; the next
/// one goes on from one of them.
#[test]
fn small_windows_in_all_ways() {
    use Step::*;

    let put = |key, len| Put { key, len };
    let buffered =
        |changes: Vec<(u16, Option<u32>)>, commit| Transaction { changes, durability: Durability::Buffered, commit };
    let several = || buffered(vec![(1, Some(300)), (2, Some(20)), (3, None)], true);
    let filled = |last: Step| vec![put(1, 50), put(3, 60), Sync, last];
    let histories = [
        filled(put(2, 50)),
        filled(put(2, 700)),
        filled(put(1, 20)),
        filled(Remove { key: 1 }),
        filled(several()),
        filled(Clear),
        filled(Checkpoint),
        vec![put(1, 50), Checkpoint, put(2, 30), Checkpoint, put(3, 4), put(1, 5)],
        vec![put(1, 50), Reopen, put(2, 50), Reopen],
        // The rest of the first extent, and a commit that jumps.
        vec![put(1, 57_000), Sync, put(2, 7_000), Sync, put(3, 3_000)],
        vec![put(1, 50), Sync, buffered(vec![(1, Some(9)), (2, Some(900))], false), put(2, 12)],
        vec![put(1, 50), Sync, Kill { after: 4 }, several(), put(4, 10)],
        vec![put(1, 50), Sync, Kill { after: 9 }, put(2, 600), put(4, 10)],
    ];
    let place = Place::new();
    let mut random = Random(setting("SLOTLOG_TEST_SEED", 7));
    let mut looked = 0;
    for (number, steps) in histories.iter().enumerate() {
        let mut start = Image::blank(mark());
        for generation in 0..3 {
            let note = |what: String| format!("history {number}, generation {generation}, {steps:?}: {what}");
            let settings = SMALL.settings();
            let images = generation_of(&place, &settings, &start, Cuts::Exhaustive, steps, &mut random, &mut 0);
            let mut images = images.map_err(note).unwrap();
            for image in &images {
                look(&place.image, image, &settings, &mut random)
                    .map_err(|what| note(format!("{}: {what}", image.cut)))
                    .unwrap();
            }
            looked += images.len();
            let next = random.below(images.len() as u64) as usize;
            start = images.swap_remove(next);
        }
    }
    println!("{looked} images");
    assert!(looked > 10_000, "the windows were enumerated");
}
