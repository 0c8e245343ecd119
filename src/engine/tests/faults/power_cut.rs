//! Power cuts, simulated sector by sector.
//!
//! A *history* is a store's life: operations, with a power cut after each of its two to four *generations*, and kills
//! in between. It runs on the real engine, over a real file, with a [medium] as witness that knows what a disk may hold
//! at each moment. From each generation a few dozen *images* are taken: at random stores, before, inside and after
//! flushes, in recoveries, checkpoints beside writers, growth, clears. Every image is opened by the real recovery, and
//! must have the content after some commit that began, and not one before the last that was acknowledged as durable;
//! with correct counters and no findings of `verify`. The next generation continues from one of them. So the leftovers
//! of an earlier life past the end of the log can be mistaken for a part of a later one.
//!
//! `SLOTLOG_TEST_IMAGES` is the number of images to try, `SLOTLOG_TEST_SEED` the seed. A history that fails is shrunk
//! by proptest, and printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::life::{Life, Step};
use super::medium::{Cuts, Image, MOST_IMAGES, Medium};
use super::support::{self, Random, setting};
use super::{Content, NAMED, Version, check, content, evicted_by, expires, key, lacks_at_most, value};
use crate::engine::Engine;
use crate::engine::settings::{Access, Durability, Limits, Opened, Policy, Settings};
use crate::error::Error;
use crate::file::layout::{BLOCK, CREATION_MAGIC, DEFAULT_MAP};
use crate::file::witness::{self, Recorder};

/// How the steps of a history are chosen.
#[derive(Clone, Copy)]
struct Taste {
    keys: u16,
    /// Every other key belongs to a named map.
    maps: bool,
    /// Lengths of values: the least, the usual one, and that of a few.
    short: u32,
    usual: u32,
    long: u32,
    /// Most changes of a transaction.
    changes: usize,
    checkpoint_every: u64,
    durability: Durability,
    flushes_fail: bool,
    /// Almost only puts, few in a generation.
    again: bool,
    /// Resize and compaction in the smallest steps, with more operations that advance them.
    upkeep: bool,
    /// With `upkeep`, extents of the log are this many blocks long: several pieces are cut off each.
    extent: u64,
    /// Many records that end near the end of a block, of a slice, or of an extent.
    edges: bool,
    /// Now and then superblocks cannot be written for a while.
    held_up: bool,
    /// The store evicts, and what is written in a generation is about as much as it holds.
    evict: Option<Policy>,
}

/// The limit of a store that evicts: the least that there is.
const CACHE: u64 = 1 << 20;

/// A recovery may exceed it by this, as `docs/limits.md` says: by a few blocks of an index.
const EXCESS: u64 = 4 * BLOCK;

/// The most that a transaction of a store that evicts may take to find room for certain is a 128th of its limit.
const SURE_TO_FIT: u32 = (CACHE / 128) as u32;

impl Taste {
    fn key(self) -> impl Strategy<Value = u16> + Clone {
        (0..self.keys).prop_map(move |number| if self.maps && number % 2 == 1 { number | NAMED } else { number })
    }

    fn lengths(self) -> impl Strategy<Value = u32> + Clone {
        let near = |size: u32| (1..=16u32, 0..160u32).prop_map(move |(blocks, less)| blocks * size - less);
        let edges = prop_oneof![3 => near(BLOCK as u32), 2 => Just(65_464), 1 => near(16 << 10)];
        let weight = if self.edges { 7 } else { 0 };
        prop_oneof![6 => self.short..=self.usual, 1 => self.short..=self.long, weight => edges]
    }

    fn step(self) -> impl Strategy<Value = Step> + Clone {
        let (key, len) = (self.key(), self.lengths());
        let most = if self.evict.is_some() { SURE_TO_FIT / self.changes as u32 - 100 } else { u32::MAX };
        let of_change = len.clone().prop_map(move |len| Some(len.min(most)));
        let change = (key.clone(), prop_oneof![3 => of_change, 1 => Just(None)]);
        let durability = prop_oneof![Just(Durability::Buffered), Just(Durability::Synced)];
        let transaction = (prop::collection::vec(change, 1..=self.changes), durability, prop::bool::weighted(0.85))
            .prop_map(|(changes, durability, commit)| Step::Transaction { changes, durability, commit });
        let upkeep = prop_oneof![
            2 => (1..30u32).prop_map(|stop| Step::Compact { stop }),
            2 => Just(Step::Maintain),
            // While snapshots fill a store that evicts, it refuses changes.
            if self.evict.is_some() { 0 } else { 2 } => Just(Step::Hold),
        ];
        // Few, again and again: they are spared.
        let read = key.clone().prop_map(|key| Step::Read { key: (key % 64) | (key & NAMED) });
        // With long values, much waits for a checkpoint, which in turn waits for the flush.
        let waits = self.edges || self.evict.is_some();
        let usual = prop_oneof![
            12 => (key.clone(), len.clone()).prop_map(|(key, len)| Step::Put { key, len }),
            4 => key.clone().prop_map(|key| Step::Remove { key }),
            5 => transaction,
            1 => Just(Step::Clear),
            4 => Just(Step::Sync),
            2 => Just(Step::Checkpoint),
            1 => Just(Step::Reopen),
            2 => (0..60u64).prop_map(|after| Step::Kill { after }),
            u32::from(self.flushes_fail) => Just(Step::FlushFails),
            if waits { 0 } else { 2 } => (key, len).prop_map(|(key, len)| Step::DuringNextFlush { key, len }),
        ];
        // It copies the map in one transaction, which may be too large for a store that evicts.
        let rename = if self.evict.is_some() { 0 } else { 1 };
        let maps = prop_oneof![1 => Just(Step::Drop), rename => Just(Step::Rename)];
        let superblock = prop_oneof![Just(Step::HoldUp), Just(Step::LetGo)];
        let weight = |has: bool, weight: u32| if has { weight } else { 0 };
        prop_oneof![
            33 => usual,
            weight(self.upkeep, 7) => upkeep,
            weight(self.maps, 3) => maps,
            weight(self.held_up, 5) => superblock,
            weight(self.evict == Some(Policy::SecondChance), 90) => read,
        ]
    }

    /// Generations, and a seed for all that is random on the disk.
    fn history(self) -> impl Strategy<Value = (Vec<Vec<Step>>, u64)> {
        let put = (self.key(), self.lengths()).prop_map(|(key, len)| Step::Put { key, len });
        let (puts, most) = match self {
            Taste { again: true, .. } => (100, 4),
            Taste { evict: Some(_), .. } => (100, 300),
            Taste { upkeep: true, .. } => (60, 60),
            Taste { edges: true, .. } => (60, 60),
            _ => (0, 12),
        };
        let step = prop_oneof![puts => put, 33 => self.step()];
        (prop::collection::vec(prop::collection::vec(step, 1..most), 2..=4), any::<u64>())
    }

    fn settings(self) -> Settings {
        let (checkpoint_every, durability) = (self.checkpoint_every, self.durability);
        // No lock is held for long here.
        let lock_timeout = Duration::from_secs(2);
        let smallest_log = self.extent * BLOCK;
        let limits = if self.upkeep { Limits { smallest_log, ..Limits::tiny() } } else { Limits::default() };
        let (evict, max_size) = (self.evict, if self.evict.is_some() { CACHE } else { u64::MAX });
        Settings { checkpoint_every, durability, lock_timeout, limits, evict, max_size, ..Settings::default() }
    }
}

/// A disk that forgets nothing, for checking an image.
struct Faultless;

impl Recorder for Faultless {}

/// A folder with the file of the history, and one for checking images.
struct Place {
    _folder: tempfile::TempDir,
    store: PathBuf,
    image: PathBuf,
    /// How many entries were evicted, and in how many generations some were spared.
    evicted: AtomicU64,
    sparing: AtomicU64,
}

impl Place {
    fn new() -> Place {
        let folder = support::folder();
        let (store, image) = (folder.path().join("store"), folder.path().join("image"));
        Place { _folder: folder, store, image, evicted: AtomicU64::new(0), sparing: AtomicU64::new(0) }
    }
}

/// Checks that the content found in an image is right, and that nothing about it is wrong.
fn check_found(engine: &Engine, image: &Image) -> std::result::Result<Content, String> {
    let found = content(engine)?;
    if !image.accepted.iter().any(|accepted| accepted.admits(&found)) {
        let opened = engine.opened;
        return Err(format!("{opened:?}: found {found:?}, which is none of {:?}", image.accepted));
    }
    check(engine)?;
    Ok(found)
}

/// Checks that a store that evicts is as long as its limit allows after a recovery.
fn check_len(engine: &Engine) -> std::result::Result<(), String> {
    let (len, limit) = (engine.mapping.len(), engine.settings.max_size);
    if len <= limit.saturating_add(EXCESS) { Ok(()) } else { Err(format!("{len} bytes, and the limit is {limit}")) }
}

/// Opens an image, and runs all checks.
fn look(path: &Path, image: &Image, settings: &Settings, random: &mut Random) -> std::result::Result<(), String> {
    let text = |error: Error| error.to_string();
    let _standing = witness::stand(Arc::new(Faultless));
    fs::write(path, &image.bytes).unwrap();
    if random.one_in(16) {
        look_only(path, image, settings)?;
    }
    let engine = Engine::open(path, settings.clone()).map_err(text)?;
    if !matches!(engine.opened, Opened::AfterPowerCut { .. } | Opened::Clean | Opened::Created) {
        return Err(format!("a disk after a power cut was opened as {:?}", engine.opened));
    }
    let mut expected = check_found(&engine, image)?;
    check_len(&engine)?;
    // A new life begins with nothing of an old one.
    if random.one_in(4) {
        expected.insert(9, (u32::MAX, 40));
        engine.put(DEFAULT_MAP, &key(9), &value((u32::MAX, 40)), expires(9)).map_err(text)?;
        let found = content(&engine)?;
        if !found.contains_key(&9) || !lacks_at_most(&found, &expected, evicted_by(&engine)) {
            return Err("a put after the recovery did not come out right".into());
        }
        check(&engine)?;
    }
    Ok(())
}

/// Opens an image for reading: the same content, and not a byte of the file changes.
fn look_only(path: &Path, image: &Image, settings: &Settings) -> std::result::Result<(), String> {
    let settings = Settings { access: Access::ReadOnly, ..settings.clone() };
    match Engine::open(path, settings) {
        Ok(engine) => drop(check_found(&engine, image).map_err(|what| format!("for reading: {what}"))?),
        // A creation that was cut short holds nothing to read.
        Err(Error::NotAStore { .. }) if image.accepted[0].content.is_empty() => {}
        Err(error) => return Err(error.to_string()),
    }
    if fs::read(path).unwrap() == image.bytes { Ok(()) } else { Err("a reader has changed the file".into()) }
}

/// How many images were checked, in all tests.
static IMAGES: AtomicU64 = AtomicU64::new(0);

/// The file of a creation that has begun: see `Opening::create`.
fn mark() -> Vec<u8> {
    let mut mark = vec![0; BLOCK as usize];
    mark[..CREATION_MAGIC.len()].copy_from_slice(&CREATION_MAGIC);
    mark
}

/// Recovers the image of a cut, lives through the steps, and returns the images taken meanwhile.
fn generation_of(
    place: &Place,
    settings: &Settings,
    start: &Image,
    (cuts, most_images): (Cuts, usize),
    steps: &[Step],
    random: &mut Random,
) -> std::result::Result<Vec<Image>, String> {
    let medium = Medium::of_image(start, cuts, random.next());
    medium.state().most_images = most_images;
    let (path, settings) = (place.store.as_path(), settings.clone());
    let mut life = Life::new(path, settings, medium.clone());
    life.open().map_err(|what| format!("{}: {what}", start.cut))?;
    check_len(&life.engine())?;
    // After another cut during recovery, the result is the same.
    let found = content(&life.engine())?;
    {
        let mut state = medium.state();
        if !state.contents.iter().any(|version| version.admits(&found)) {
            return Err(format!("{}: found {found:?}, which is none of {:?}", start.cut, state.contents));
        }
        let found = Version::new(found);
        state.images.iter_mut().for_each(|image| image.accepted = vec![found.clone()]);
        state.contents = vec![found];
        state.durable_commits = 0;
    }
    life.live(steps)?;
    place.evicted.fetch_add(life.evicted, Ordering::Relaxed);
    place.sparing.fetch_add(u64::from(life.spared), Ordering::Relaxed);
    Ok(std::mem::take(&mut medium.state().images))
}

/// Runs a history. Returns the number of images checked.
fn run(
    place: &Place,
    taste: Taste,
    generations: &[Vec<Step>],
    most_images: usize,
    seed: u64,
) -> std::result::Result<u64, String> {
    let mut random = Random(seed);
    let settings = taste.settings();
    let mut start = Image::blank(mark());
    let mut looked = 0;
    for steps in generations {
        let mut images = generation_of(place, &settings, &start, (Cuts::Sampled, most_images), steps, &mut random)?;
        for image in &images {
            look(&place.image, image, &settings, &mut random).map_err(|what| format!("{}: {what}", image.cut))?;
            looked += 1;
        }
        // Rather a late one: it has something to lose.
        let next = random.below(images.len() as u64).max(random.below(images.len() as u64));
        start = images.swap_remove(next as usize);
    }
    Ok(looked)
}

/// The least entries that have to be evicted for a search to have shown anything.
const LEAST_EVICTED: u64 = 100;

/// Tries histories until a share of all images has been checked. Returns how many entries were evicted, and in
/// how many generations some were spared.
fn explore(share: u64, taste: Taste) -> (u64, u64) {
    let images = setting("SLOTLOG_TEST_IMAGES", 100_000) * share / 100;
    let seed = setting("SLOTLOG_TEST_SEED", u64::from(std::process::id()) << 16 ^ crate::engine::clock::now());
    println!("SLOTLOG_TEST_SEED={seed}");
    let place = Place::new();
    let (mut tried, mut round) = (0, seed);
    // A few histories may evict nothing, or spare nothing; many do.
    let has_seen = |tried: u64| {
        let (evicted, sparing) = (place.evicted.load(Ordering::Relaxed), place.sparing.load(Ordering::Relaxed));
        let is_enough = match taste.evict {
            None => true,
            Some(Policy::SecondChance) => evicted > LEAST_EVICTED && sparing > 0,
            Some(_) => evicted > LEAST_EVICTED,
        };
        is_enough || tried > 20_000
    };
    while tried < images || !has_seen(tried) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        let config = Config {
            // The histories of a store that evicts are long.
            cases: if taste.evict.is_some() { 4 } else { 64 },
            failure_persistence: None,
            max_shrink_iters: if taste.edges || taste.evict.is_some() { 40 } else { 2000 },
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let looked = AtomicU64::new(0);
        let outcome = runner.run(&taste.history(), |(generations, seed)| {
            looked.fetch_add(
                run(&place, taste, &generations, MOST_IMAGES, seed).map_err(TestCaseError::fail)?,
                Ordering::Relaxed,
            );
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, history)) => {
                let looked = tried + looked.into_inner();
                panic!("SLOTLOG_TEST_SEED={round}, after {looked} images\n{why}\nin the history {history:#?}")
            }
            Err(TestError::Abort(why)) => panic!("given up: {why}"),
        }
        tried += looked.into_inner();
        round = round.wrapping_add(1);
    }
    let all = IMAGES.fetch_add(tried, Ordering::Relaxed) + tried;
    let (evicted, sparing) = (place.evicted.into_inner(), place.sparing.into_inner());
    println!("{tried} images, {all} in all; {evicted} entries were evicted, and some spared {sparing} times");
    (evicted, sparing)
}

const SMALL: Taste = Taste {
    keys: 12,
    maps: false,
    short: 4,
    usual: 120,
    long: 1500,
    changes: 4,
    checkpoint_every: 64 << 20,
    durability: Durability::Buffered,
    flushes_fail: false,
    again: false,
    upkeep: false,
    extent: 1,
    edges: false,
    held_up: false,
    evict: None,
};

const AGAIN: Taste = Taste { keys: 1, short: 480, usual: 480, long: 480, again: true, ..SMALL };

/// Runs the same histories each time, each with another seed for all that is random on the disk.
fn scripted(taste: Taste, histories: u64, most_images: usize, history: impl Fn(u64) -> Vec<Vec<Step>>) {
    let place = Place::new();
    for number in 0..histories {
        let generations = history(number);
        if let Err(what) = run(&place, taste, &generations, most_images, number) {
            panic!("history {number}: {what}\nin {generations:?}");
        }
    }
}

/// Kills at each store of a close, and syncs what follows.
#[test]
fn a_kill_while_closing() {
    let put = |key| Step::Put { key, len: 50 };
    // Each place twenty times: only at one of them is the flag on its way, and a cut there shows it one time in three.
    scripted(SMALL, 1200, MOST_IMAGES, |number| {
        let kill = Step::Kill { after: number / 2 % 60 };
        let before = if number % 2 == 0 { vec![put(1), Step::Sync] } else { Vec::new() };
        let after = [kill, Step::Reopen, Step::Sync, put(2), Step::Sync, put(3)];
        vec![before.into_iter().chain(after).collect(), vec![put(4)]]
    });
}

/// A flush fails, and the process that gets the error is killed before it can pass it on.
#[test]
fn a_kill_when_a_flush_has_failed() {
    let put = |key| Step::Put { key, len: 50 };
    scripted(SMALL, 200, MOST_IMAGES, |number| {
        let kill = Step::Kill { after: number % 10 };
        let last = if number % 20 < 10 { Step::Sync } else { Step::Reopen };
        vec![vec![put(1), Step::Sync, put(2), Step::FlushFails, kill, Step::Sync, put(3), last], vec![put(4)]]
    });
}

#[test]
fn small_commits() {
    explore(20, SMALL);
}

/// Lost records are written again, byte by byte the same, and what followed them then still lies after them.
#[test]
fn the_same_again_after_a_cut() {
    let put = || Step::Put { key: 0, len: 480 };
    let lives = [vec![put(), put()], vec![put(), put()], vec![put()], vec![put()]];
    // Many histories with few images each: the defect needs several cuts in certain places.
    scripted(AGAIN, 1500, 3, |_| lives.to_vec());
    explore(10, AGAIN);
}

#[test]
fn commits_that_are_synced_each() {
    explore(10, Taste { durability: Durability::Synced, ..SMALL });
}

#[test]
fn maps_that_come_and_go() {
    explore(10, Taste { maps: true, ..SMALL });
}

#[test]
fn checkpoints_all_the_time() {
    explore(20, Taste { checkpoint_every: 512, usual: 200, maps: true, ..SMALL });
}

#[test]
fn flushes_that_fail() {
    explore(15, Taste { flushes_fail: true, maps: true, ..SMALL });
}

#[test]
fn a_log_that_moves_from_extent_to_extent() {
    explore(15, Taste { usual: 9000, long: 80_000, ..SMALL });
}

/// Everything moves all the time: the log is cleaned and its extents are reused, the index is resized, the file gets
/// shorter.
#[test]
fn a_log_that_is_compacted() {
    explore(15, Taste { upkeep: true, usual: 700, long: 3000, maps: true, ..SMALL });
    explore(5, Taste { upkeep: true, usual: 700, checkpoint_every: 2048, flushes_fail: true, ..SMALL });
}

/// With the limits of real stores, long values are overwritten in turn: cleaning cuts extents that are not yet durable
/// as a whole.
#[test]
fn a_log_that_is_cut_where_it_is_not_durable() {
    explore(1, Taste { keys: 6, edges: true, ..SMALL });
    explore(1, Taste { keys: 6, edges: true, held_up: true, ..SMALL });
}

/// The same with everything that waits for a superblock: in small steps, and without one for a while.
#[test]
fn a_log_that_is_compacted_without_superblocks() {
    explore(10, Taste { keys: 8, upkeep: true, extent: 8, usual: 700, long: 3000, held_up: true, ..SMALL });
    explore(1, Taste { keys: 6, upkeep: true, edges: true, held_up: true, ..SMALL });
}

#[test]
fn an_index_that_is_resized_line_by_line() {
    explore(10, Taste { upkeep: true, keys: 900, usual: 12, long: 40, changes: 120, ..SMALL });
}

#[test]
fn an_index_that_grows() {
    explore(10, Taste { keys: 900, usual: 12, long: 40, changes: 250, ..SMALL });
}

const CACHED: Taste = Taste { keys: 120, usual: 20_000, long: 32_000, evict: Some(Policy::Oldest), ..SMALL };

/// A store that evicts: what is gone was evicted, what is there is what was last written, and nothing comes back.
#[test]
fn a_store_that_evicts() {
    let (evicted, _) = explore(1, CACHED);
    assert!(evicted > LEAST_EVICTED, "{evicted} entries were evicted");
}

/// The same, where entries that were read are moved beside those that are evicted, in small steps, with several maps.
#[test]
fn a_store_that_spares_what_was_read() {
    let evict = Some(Policy::SecondChance);
    let (keys, usual, checkpoint_every) = (600, 6000, 128 << 10);
    let taste = Taste { evict, keys, usual, checkpoint_every, upkeep: true, maps: true, ..CACHED };
    let (evicted, sparing) = explore(1, taste);
    assert!(evicted > LEAST_EVICTED && sparing > 0, "{evicted} entries were evicted, some were spared {sparing} times");
}

/// Short histories, in which the power is cut before every flush and at the end in all possible ways; the next one
/// continues from one of them.
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
            let images = generation_of(&place, &settings, &start, (Cuts::Exhaustive, 0), steps, &mut random);
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
