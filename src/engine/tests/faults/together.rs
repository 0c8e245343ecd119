//! Writers of one file who take turns, and one of whom is killed: the others go on with what they knew of the file
//! before he changed it.
//!
//! All of them are in this process. One dies by a picture: at some store that he makes, all of the file is read, and
//! when he is gone, it is put back as it was then, at the same place, so that the others have the same memory as
//! before. (With processes that are killed at random moments: `tests/processes`.)

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::lengthen_tables;
use super::support::{self, Random, setting};
use super::upkeep::tiny;
use super::{Content, NAMED, batch_of, check, content, content_at, drop_named, key, map_of, put, rename};
use crate::engine::Engine;
use crate::engine::read::pins::Pin;
use crate::engine::settings::{Access, Durability, Settings};
use crate::engine::upkeep::clean::{Aim, Portion};
use crate::engine::upkeep::resize::Step;
use crate::engine::write::slots::Tombstones;
use crate::file::index;
use crate::file::layout::{BLOCK, DEFAULT_MAP, extent_word, live};
use crate::file::witness::{self, Recorder};

/// Takes a picture of the file before one of the stores that are made to it.
struct Camera {
    path: PathBuf,
    /// Stores until then; none if it is zero.
    left: AtomicU64,
    picture: Mutex<Option<Vec<u8>>>,
}

impl Camera {
    fn new(path: &Path) -> Arc<Camera> {
        Arc::new(Camera { path: path.to_owned(), left: AtomicU64::new(0), picture: Mutex::new(None) })
    }

    /// It is to be taken before the nth store from now on.
    fn arm(&self, stores: u64) {
        self.left.store(stores, Ordering::Relaxed);
    }

    /// The picture, if there were as many stores.
    fn develop(&self) -> Option<Vec<u8>> {
        self.arm(0);
        self.picture.lock().unwrap().take()
    }

    /// Whether there is no picture, and will be none.
    fn is_idle(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 && self.picture.lock().unwrap().is_none()
    }

    fn count(&self) {
        match self.left.load(Ordering::Relaxed) {
            0 => {}
            left => {
                self.arm(left - 1);
                if left == 1 {
                    *self.picture.lock().unwrap() = Some(fs::read(&self.path).unwrap());
                }
            }
        }
    }
}

impl Recorder for Camera {
    fn write(&self, _offset: u64, _bytes: &[u8]) {
        self.count();
    }
    fn store(&self, _offset: u64, _value: u64) {
        self.count();
    }
    fn flush(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.count();
        Ok(())
    }
    fn set_len(&self, _len: u64) {
        self.count();
    }
}

/// Opens the store as one who can be killed.
fn open_before(camera: &Arc<Camera>, settings: &Settings) -> Arc<Engine> {
    let _standing = witness::stand(camera.clone());
    open(&camera.path, settings)
}

fn open(path: &Path, settings: &Settings) -> Arc<Engine> {
    Arc::new(Engine::open(path, settings.clone()).unwrap())
}

/// Puts the file back as it was, while others have it open.
fn put_back(path: &Path, picture: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.set_len(picture.len() as u64).unwrap();
    file.write_all(picture).unwrap();
}

/// Kills one of two at each store of a change; the other one goes on.
fn killed_at_every_store(
    settings: &Settings,
    prepare: impl Fn(&Arc<Engine>, &Arc<Engine>),
    change: impl Fn(&Arc<Engine>),
) {
    let folder = support::folder();
    // With a snapshot of the other one, and without.
    let (mut stores, mut were_made) = (1u64, [false; 2]);
    loop {
        let path = folder.path().join(stores.to_string());
        let camera = Camera::new(&path);
        let (dying, other) = (open_before(&camera, settings), open(&path, settings));
        prepare(&dying, &other);
        let (before, seen) = (content(&other).unwrap(), other.visible().unwrap());
        let held = stores.is_multiple_of(2).then(|| Pin::take(Arc::clone(&other)).unwrap());
        let was_made = &mut were_made[usize::from(held.is_some())];
        camera.arm(stores);
        change(&dying);
        let after = content(&dying).unwrap();
        let picture = camera.develop();
        drop(dying);
        let Some(picture) = picture else { break };
        put_back(&path, &picture);
        let note = |what: &str| format!("killed before store {stores}: {what}");
        let first = content(&other).unwrap();
        assert!(first == before || first == after, "{}", note("seen beside the dead one"));
        drop(other.turn().unwrap());
        let found = content(&other).unwrap();
        assert!(found == before || found == after, "{}", note("seen behind the dead one"));
        assert!(found == first || found == after, "{}", note("it was there before"));
        assert!(found == after || !*was_made, "{}", note("it was committed some stores ago"));
        *was_made |= found == after && before != after;
        check(&other).map_err(|what| note(&what)).unwrap();
        if before != after {
            let is_told = other.wait_for_change(seen, Duration::ZERO).unwrap();
            assert_eq!(is_told, found == after, "{}", note("told as a change or not"));
        }
        // What the dead one left behind must not come back, nor what was known before be wrong.
        let mut expected = found;
        for (number, len) in [(9, 30), (9, 3000), (10, 90_000), (11, 12)] {
            put(&other, number, (77, len)).unwrap();
            expected.insert(number, (77, len));
            assert_eq!(content(&other).unwrap(), expected, "{}", note("after a put"));
            check(&other).map_err(|what| note(&what)).unwrap();
        }
        other.compact(&mut |_| ControlFlow::Continue(())).unwrap();
        if let Some(pin) = held {
            assert_eq!(content_at(&other, pin.seq()).unwrap(), before, "{}", note("a snapshot from before"));
        }
        drop(other);
        let again = open(&path, settings);
        assert_eq!(content(&again).unwrap(), expected, "{}", note("closed and opened again"));
        check(&again).map_err(|what| note(&what)).unwrap();
        drop(again);
        fs::remove_file(&path).unwrap();
        stores += 1;
    }
    println!("{} stores", stores - 1);
    assert!(stores > 4);
}

/// Both have written, so that each knows extents and counters; the log ends where the other one has made it longer.
fn some_keys(dying: &Arc<Engine>, other: &Arc<Engine>) {
    for number in 0..30 {
        put(dying, number, (1, 40)).unwrap();
    }
    put(dying, NAMED | 1, (1, 40)).unwrap();
    put(other, 31, (1, 20_000)).unwrap();
    put(dying, 32, (1, 20)).unwrap();
    put(other, 33, (1, 20)).unwrap();
    other.remove(DEFAULT_MAP, &key(7)).unwrap();
}

/// Extents at whose head there is of everything, and an index that is three quarters full.
fn some_log(dying: &Arc<Engine>, other: &Arc<Engine>) {
    some_keys(dying, other);
    for number in 0..260 {
        put(dying, 100 + number, (2, 4)).unwrap();
    }
    for number in 0..30 {
        put(if number % 3 == 0 { other } else { dying }, number % 11, (u32::from(number), 300)).unwrap();
        dying.remove(DEFAULT_MAP, &key(100 + number)).unwrap();
    }
}

#[test]
fn one_who_dies_in_a_commit_is_no_harm_to_another() {
    let changes: [fn(&Arc<Engine>); 9] = [
        |engine| put(engine, 99, (5, 30)).unwrap(),
        |engine| put(engine, 3, (5, 900)).unwrap(),
        |engine| put(engine, 7, (5, 30)).unwrap(),
        |engine| assert!(engine.remove(DEFAULT_MAP, &key(4)).unwrap()),
        // Into an extent that the file has to grow for.
        |engine| put(engine, 4, (5, 200_000)).unwrap(),
        |engine| engine.clear(DEFAULT_MAP).unwrap(),
        |engine| {
            let changes = [(5, Some((5, 50_000))), (6, None), (200, Some((5, 70_000))), (NAMED | 1, Some((5, 9)))];
            batch_of(engine, changes).unwrap().commit(Durability::Buffered).unwrap();
        },
        |engine| {
            drop(batch_of(engine, [(5, Some((5, 50_000))), (200, Some((5, 70_000)))]).unwrap());
            put(engine, 5, (6, 10)).unwrap();
        },
        |engine| drop_named(engine).unwrap(),
    ];
    for change in changes {
        killed_at_every_store(&Settings::default(), some_keys, change);
    }
}

#[test]
fn one_who_dies_in_a_synced_commit_is_no_harm_to_another() {
    let settings = Settings { durability: Durability::Synced, ..Settings::default() };
    killed_at_every_store(&settings, some_keys, |engine| put(engine, 4, (5, 200_000)).unwrap());
}

#[test]
fn one_who_dies_in_upkeep_is_no_harm_to_another() {
    let changes: [fn(&Arc<Engine>); 6] = [
        |engine| {
            let turn = engine.turn().unwrap();
            for _ in 0..6 {
                turn.write().clean_and_reclaim(Portion { bytes: 2000, aim: Aim::Upkeep }).unwrap();
            }
        },
        |engine| {
            let turn = engine.turn().unwrap();
            let mut writing = turn.write();
            writing.begin_resize(DEFAULT_MAP, index::blocks_for(900), Tombstones::Dropped).unwrap();
            for _ in 0..4 {
                writing.step_resize(Step { blocks: 9, lines: 9 }).unwrap();
            }
        },
        |engine| put(engine, 99, (5, 300)).unwrap(),
        |engine| assert!(engine.remove(DEFAULT_MAP, &key(4)).unwrap()),
        |engine| engine.checkpoint().unwrap(),
        |engine| lengthen_tables(engine, 2),
    ];
    let settings = Settings { checkpoint_every: 16 << 10, ..tiny() };
    for change in changes {
        killed_at_every_store(&settings, some_log, change);
    }
}

/// Several writers, with what each of them was set to.
struct Together {
    path: PathBuf,
    settings: Vec<Settings>,
    cameras: Vec<Arc<Camera>>,
    engines: Vec<Option<Arc<Engine>>>,
    /// Snapshots, whose they are, and what they have to show.
    held: Vec<(usize, Pin<Arc<Engine>>, Content)>,
    reader: Option<Arc<Engine>>,
    /// Who has acted last, and how many puts to the default map follow before anybody does anything else.
    last: usize,
    puts: u64,
    expected: Content,
    random: Random,
    kills: BTreeMap<&'static str, u64>,
}

impl Together {
    fn new(path: &Path, settings: Vec<Settings>, seed: u64) -> Together {
        let cameras: Vec<_> = settings.iter().map(|_| Camera::new(path)).collect();
        let engines = cameras.iter().zip(&settings).map(|(camera, settings)| Some(open_before(camera, settings)));
        Together {
            path: path.to_owned(),
            engines: engines.collect(),
            settings,
            cameras,
            held: Vec::new(),
            reader: None,
            last: 0,
            puts: 0,
            expected: Content::new(),
            random: Random(seed),
            kills: BTreeMap::new(),
        }
    }

    fn engine(&self, who: usize) -> Arc<Engine> {
        self.engines[who].clone().unwrap()
    }

    fn come_back(&mut self, who: usize) {
        self.engines[who] = Some(open_before(&self.cameras[who], &self.settings[who]));
    }

    fn a_key(&mut self) -> u16 {
        // Enough for the index to grow.
        let number = self.random.below(500) as u16;
        if number.is_multiple_of(4) { number | NAMED } else { number }
    }

    fn a_value(&mut self, step: u32) -> (u32, u32) {
        let most = [30, 30, 400, 400, 6000, 60_000][self.random.below(6) as usize];
        (step + 1, 4 + self.random.below(most) as u32)
    }

    /// Does something at random, and says what. What it makes of the content is expected from then on.
    fn act(&mut self, who: usize, step: u32) -> &'static str {
        let engine = self.engine(who);
        let (mut number, new) = (self.a_key(), self.a_value(step));
        let chosen = if self.puts > 0 { u64::MAX } else { self.random.below(40) };
        match chosen {
            0 => {
                self.expected.retain(|number, _| number & NAMED != 0);
                engine.clear(DEFAULT_MAP).unwrap();
                "clear"
            }
            1 => {
                self.expected.retain(|number, _| number & NAMED == 0);
                drop_named(&engine).unwrap();
                "drop"
            }
            2 => {
                rename(&engine).unwrap();
                "rename"
            }
            3 | 4 => {
                let mut left = self.random.below(20);
                let mut go_on = |_| {
                    left = left.saturating_sub(1);
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                engine.compact(&mut go_on).unwrap();
                "compact"
            }
            5 | 6 => {
                engine.maintain(Duration::from_millis(1), Duration::from_secs(9)).unwrap();
                "maintain"
            }
            7 => {
                engine.checkpoint().unwrap();
                "checkpoint"
            }
            8 => {
                engine.sync().unwrap();
                "sync"
            }
            9..=14 => {
                self.transaction(&engine, who, new);
                "transaction"
            }
            15..=20 => {
                let was_there = self.expected.remove(&number).is_some();
                assert_eq!(engine.remove(map_of(&engine, number).unwrap(), &key(number)).unwrap(), was_there);
                "remove"
            }
            _ => {
                if self.puts > 0 {
                    number &= !NAMED;
                    self.puts -= 1;
                } else if self.random.one_in(6) {
                    self.puts = self.random.below(20);
                }
                self.expected.insert(number, new);
                put(&engine, number, new).unwrap();
                "put"
            }
        }
    }

    /// Makes a transaction. Meanwhile the others see nothing of it.
    fn transaction(&mut self, engine: &Arc<Engine>, who: usize, (value, len): (u32, u32)) {
        let mut changes = Vec::new();
        for _ in 0..1 + self.random.below(12) {
            let number = self.a_key();
            changes.push((number, (!self.random.one_in(4)).then(|| (value, 4 + (len + u32::from(number)) % 9000))));
        }
        let batch = batch_of(engine, changes.clone()).unwrap();
        // What they have seen when the file is put back would be yet to come.
        if self.cameras[who].is_idle() {
            for other in self.engines.iter().flatten().chain(&self.reader) {
                assert_eq!(content(other).unwrap(), self.expected, "it is not committed");
            }
        }
        if self.random.one_in(4) {
            return;
        }
        for (number, new) in changes {
            match new {
                Some(new) => drop(self.expected.insert(number, new)),
                None => drop(self.expected.remove(&number)),
            }
        }
        batch.commit([Durability::Buffered, Durability::Synced][self.random.below(2) as usize]).unwrap();
    }

    /// One of them acts, and may be killed at it.
    fn turn(&mut self, step: u32) -> Result<(), String> {
        // A put knows more if it follows another one of the same process.
        if self.puts == 0 {
            self.last = self.random.below(self.engines.len() as u64) as usize;
        }
        let who = self.last;
        let before = self.expected.clone();
        if self.random.one_in(6) {
            let most = [10, 100, 1000][self.random.below(3) as usize];
            self.cameras[who].arm(1 + self.random.below(most));
        }
        let done = self.act(who, step);
        let Some(picture) = self.cameras[who].develop() else { return Ok(()) };
        *self.kills.entry(done).or_default() += 1;
        self.held.retain(|(whose, ..)| *whose != who);
        self.engines[who] = None;
        put_back(&self.path, &picture);
        let other = self.engine((who + 1) % self.engines.len());
        let seen = content(&other)?;
        drop(other.turn().map_err(|error| error.to_string())?);
        let found = content(&other)?;
        if found != before && found != self.expected || seen != before && seen != found {
            return Err(format!("killed in a {done}: {seen:?}, then {found:?}, and not {before:?}"));
        }
        self.expected = found;
        check(&other)?;
        self.come_back(who);
        Ok(())
    }

    /// Snapshots come and go, so do openers, and everybody sees the same.
    fn look(&mut self) -> Result<(), String> {
        let who = self.random.below(self.engines.len() as u64) as usize;
        match self.random.below(12) {
            0 => self.held.push((who, Pin::take(self.engine(who)).unwrap(), self.expected.clone())),
            1 if self.held.len() > 2 => drop(self.held.remove(0)),
            // Where nobody looks back, versions need no shortcuts.
            5 | 6 => self.held.clear(),
            2 => {
                self.held.retain(|(whose, ..)| *whose != who);
                self.engines[who] = None;
                self.come_back(who);
            }
            3 => {
                let settings = Settings { access: Access::ReadOnly, ..Settings::default() };
                self.reader = if self.random.one_in(2) { Some(open(&self.path, &settings)) } else { None };
            }
            4 if self.random.one_in(4) => {
                self.held.clear();
                self.engines.iter_mut().for_each(|engine| *engine = None);
                self.reader = None;
                (0..self.engines.len()).for_each(|who| self.come_back(who));
            }
            _ => {}
        }
        for engine in self.engines.iter().flatten().chain(&self.reader) {
            let found = content(engine)?;
            if found != self.expected {
                return Err(format!("found {found:?}, expected {:?}", self.expected));
            }
        }
        // It takes a turn.
        if self.puts == 0 || self.random.one_in(4) {
            check(&self.engine(who))?;
        }
        for (_, pin, expected) in &self.held {
            if content_at(pin.engine(), pin.seq())? != *expected {
                return Err("a snapshot shows something else than it was taken of".into());
            }
        }
        Ok(())
    }
}

#[test]
fn some_who_write_in_turns_and_are_killed_are_no_harm_to_the_others() {
    let seed = setting("SLOTLOG_TEST_SEED", 1);
    for seed in seed..seed + setting("SLOTLOG_TEST_ROUNDS", 6) {
        let settings = vec![
            Settings::default(),
            Settings { checkpoint_every: 16 << 10, ..tiny() },
            Settings { durability: Durability::Synced, auto_compact: Some(0.2), ..tiny() },
        ];
        let folder = support::folder();
        let mut together = Together::new(&folder.path().join("store"), settings, seed);
        for step in 0..1500 {
            let done = together.turn(step).and_then(|()| together.look());
            done.map_err(|what| format!("SLOTLOG_TEST_SEED={seed}, step {step}: {what}")).unwrap();
        }
        println!("seed {seed}: killed {:?}", together.kills);
        assert!(together.kills.values().sum::<u64>() > 50);
    }
}

/// Nobody else counts his turns.
#[test]
fn one_who_has_the_store_alone_knows_what_he_has_done_himself() {
    let seed = setting("SLOTLOG_TEST_SEED", 1);
    for seed in seed..seed + setting("SLOTLOG_TEST_ROUNDS", 8) {
        let settings = vec![Settings { exclusive: true, ..tiny() }];
        let folder = support::folder();
        let mut alone = Together::new(&folder.path().join("store"), settings, seed);
        for step in 0..1500 {
            alone.act(0, step);
            let found = content(&alone.engine(0)).unwrap();
            assert_eq!(found, alone.expected, "SLOTLOG_TEST_SEED={seed}, step {step}");
            if alone.puts == 0 {
                let what = format!("SLOTLOG_TEST_SEED={seed}, step {step}");
                check(&alone.engine(0)).map_err(|found| format!("{what}: {found}")).unwrap();
            }
        }
    }
}

/// Until it has the lock, another one may make the file shorter at any time.
#[test]
fn a_put_looks_at_nothing_before_it_has_the_lock() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let (waiting, other) = (open(&path, &Settings::default()), open(&path, &Settings::default()));
    put(&waiting, 1, (1, 4 << 20)).unwrap();
    put(&waiting, 1, (2, 10)).unwrap();
    let longer = waiting.mapping.len();
    other.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    assert!(other.mapping.len() < longer && waiting.mapping.len() == longer, "it does not know yet");
    let turn = other.turn().unwrap();
    let before = other.mapping.live(live::MAP_TABLE).unwrap();
    // The map table is where the file has been cut off.
    let gone = extent_word(longer - BLOCK, 1);
    other.mapping.store_live(live::MAP_TABLE, gone, Ordering::Relaxed).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| put(&waiting, 3, (3, 10)));
        std::thread::sleep(Duration::from_millis(100));
        other.mapping.store_live(live::MAP_TABLE, before, Ordering::Relaxed).unwrap();
        drop(turn);
        waits.join().unwrap().unwrap();
    });
    assert_eq!(content(&other).unwrap(), Content::from([(1, (2, 10)), (3, (3, 10))]));
}
