//! Resize and compaction, with the smallest steps possible, so that some upkeep is always under way.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::support::{self, Random, setting};
use super::{Content, batch_of, check, content, key, put, value};
use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::read::pins::Pin;
use crate::engine::settings::{Durability, Limits, Settings};
use crate::file::layout::{DEFAULT_MAP, ExtentKind, Kind, live};
use crate::file::log;
use crate::file::witness::{self, Recorder};

pub(super) fn tiny() -> Settings {
    Settings { limits: Limits::tiny(), ..Settings::default() }
}

fn open(path: &Path, settings: &Settings) -> Arc<Engine> {
    Arc::new(Engine::open(path, settings.clone()).unwrap())
}

/// A snapshot, and the content it must show as long as it is held.
struct Held {
    pin: Pin<Arc<Engine>>,
    mapping: u64,
    content: Content,
}

impl Held {
    fn take(engine: &Arc<Engine>, content: &Content) -> Held {
        let (pin, mapping, _) = Pin::with_totals(Arc::clone(engine), DEFAULT_MAP).unwrap();
        Held { pin, mapping: mapping.unwrap(), content: content.clone() }
    }

    fn check(&self) {
        let engine = self.pin.engine();
        let index = crate::file::index::Index::of_extent(&engine.mapping, self.mapping).unwrap();
        let mut found = Content::new();
        for slot in index.iter() {
            let Some(offset) = slot.unwrap().record else { continue };
            let newest = log::record(&engine.mapping, offset).unwrap();
            let Some(record) = engine.version_at(newest, self.pin.seq(), Moment::NOW).unwrap() else { continue };
            assert_eq!(record.kind(), Some(Kind::Put));
            let number = u16::from_le_bytes(*record.key().first_chunk().unwrap()) & 0x7fff;
            let of = (u32::from_le_bytes(*record.value().first_chunk().unwrap()), record.value().len() as u32);
            assert_eq!(record.value(), value(of), "a value of a snapshot has changed");
            found.insert(number, of);
        }
        assert_eq!(found, self.content, "a snapshot has changed");
        for (&number, &of) in self.content.iter().take(20) {
            let lines = engine.lines_at(DEFAULT_MAP, self.pin.seq()).unwrap().unwrap();
            let wanted = log::Wanted { map: DEFAULT_MAP, key: &key(number), seq: self.pin.seq() };
            let seen = engine.value_of(lines, wanted, Moment::NOW).unwrap();
            assert_eq!(seen.map(<[u8]>::to_vec), Some(value(of)));
            let record = engine.lookup(lines, wanted, Moment::NOW).unwrap();
            assert_eq!(record.map(|record| record.value().to_vec()), Some(value(of)), "the long way");
        }
    }
}

/// Changes of all kinds at random, with snapshots held across them, and everything checked again and again.
fn churn(settings: &Settings, keys: u16, longest: u32, steps: u64, seed: u64) {
    let folder = support::folder();
    let path = folder.path().join("store");
    let mut random = Random(seed);
    let mut engine = open(&path, settings);
    let mut expected = Content::new();
    let mut held: Vec<Held> = Vec::new();
    let mut most: BTreeMap<&'static str, u64> = BTreeMap::new();
    for step in 0..steps {
        let number = random.below(u64::from(keys)) as u16;
        let new = (step as u32 + 1, 4 + random.below(u64::from(longest)) as u32);
        match random.below(200) {
            0 if random.one_in(4) => {
                engine.clear(DEFAULT_MAP).unwrap();
                expected.clear();
            }
            1..=8 => {
                held.push(Held::take(&engine, &expected));
                if random.one_in(2) {
                    engine.maintain(Duration::from_millis(1), Duration::from_secs(9)).unwrap();
                }
            }
            9..=20 if !held.is_empty() => {
                let old = held.swap_remove(random.below(held.len() as u64) as usize);
                old.check();
            }
            21 | 22 => {
                for old in held.drain(..) {
                    old.check();
                }
                drop(engine);
                engine = open(&path, settings);
                assert_eq!(content(&engine).unwrap(), expected, "step {step}, seed {seed}");
            }
            23 => {
                let stop = random.below(20);
                let mut asked = 0;
                engine
                    .compact(&mut |_| {
                        asked += 1;
                        if asked > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                    .unwrap();
            }
            24 | 25 => drop(engine.maintain(Duration::from_millis(1), Duration::from_secs(9)).unwrap()),
            26 | 27 => engine.checkpoint().unwrap(),
            28..=60 => {
                assert_eq!(
                    engine.remove(DEFAULT_MAP, &key(number)).unwrap(),
                    expected.remove(&number).is_some(),
                    "step {step}, seed {seed}"
                );
            }
            61..=70 => {
                let mut changes = Vec::new();
                for _ in 0..random.below(40) {
                    let number = random.below(u64::from(keys)) as u16;
                    let change = if random.one_in(4) { None } else { Some((new.0, 4 + number as u32 % longest)) };
                    changes.push((number, change));
                }
                let batch = batch_of(&engine, changes.clone()).unwrap();
                if random.one_in(5) {
                    drop(batch);
                } else {
                    batch.commit(Durability::Buffered).unwrap();
                    for (number, change) in changes {
                        match change {
                            Some(new) => drop(expected.insert(number, new)),
                            None => drop(expected.remove(&number)),
                        }
                    }
                }
            }
            _ => {
                put(&engine, number, new).unwrap();
                expected.insert(number, new);
            }
        }
        if held.len() > 3 {
            let old = held.remove(0);
            old.check();
        }
        if step % 16 == 0 || steps - step < 100 {
            assert_eq!(content(&engine).unwrap(), expected, "step {step}, seed {seed}");
            check(&engine).map_err(|what| format!("step {step}, seed {seed}: {what}")).unwrap();
            held.iter().for_each(|held| held.check());
        }
        let kinds = [(ExtentKind::Emptied, "emptied"), (ExtentKind::Retired, "retired")];
        for (kind, name) in kinds {
            let count = engine.extents().unwrap().iter().filter(|extent| extent.kind == kind).count() as u64;
            most.entry(name).and_modify(|most| *most = count.max(*most)).or_insert(count);
        }
        let resizing = u64::from(engine.resize_cursor().unwrap() != 0);
        *most.entry("resizing").or_default() += resizing;
    }
    let done = engine.upkeep.done();
    println!("seed {seed}: {most:?}, {:?} lines, {:?} bytes", done.lines, done.moved);
}

/// Lets many puts come in between when a certain thread writes to the file, as far as they can: a system call may take
/// any time.
struct Slow {
    thread: std::thread::ThreadId,
    puts: AtomicU32,
}

impl Recorder for Slow {
    fn write(&self, _offset: u64, _bytes: &[u8]) {
        if std::thread::current().id() != self.thread {
            return;
        }
        let goal = self.puts.load(Ordering::Relaxed) + 300;
        for _ in 0..1000 {
            if self.puts.load(Ordering::Relaxed) >= goal {
                break;
            }
            std::thread::yield_now();
        }
    }
}

/// A process was killed in the middle of a flush, so the log is written once more, while others commit, clean it and
/// reuse its extents.
#[test]
fn the_log_is_written_once_more_while_others_change_it() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let settings = Settings { checkpoint_every: 16 << 10, lock_timeout: Duration::from_secs(60), ..tiny() };
    let slow = Arc::new(Slow { thread: std::thread::current().id(), puts: AtomicU32::new(0) });
    let engine = {
        let _standing = witness::stand(slow.clone());
        Arc::new(Engine::open(&path, settings.clone()).unwrap())
    };
    // As in another process.
    let other = Arc::new(Engine::open(&path, settings).unwrap());
    let puts = setting("SLOTLOG_TEST_PUTS", 5000) as u32;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut expected, mut random) = (Content::new(), Random(1));
            for number in 0..puts {
                let (key, new) = (random.below(100) as u16, (number, 200 + random.below(600) as u32));
                put(&other, key, new).unwrap();
                expected.insert(key, new);
                slow.puts.store(number, Ordering::Relaxed);
            }
            expected
        });
        let mut syncs = 0;
        while !writer.is_finished() {
            engine.note_unsure(live::STATE_LOG_UNSURE).unwrap();
            engine.sync().unwrap();
            syncs += 1;
        }
        let expected = writer.join().unwrap();
        assert!(syncs > 10, "{syncs} syncs");
        assert_eq!(content(&engine).unwrap(), expected, "after {syncs} syncs");
        check(&engine).unwrap();
    });
}

#[test]
fn changes_of_all_kinds_with_upkeep_all_the_time() {
    let seed = setting("SLOTLOG_TEST_SEED", 1);
    for round in 0..setting("SLOTLOG_TEST_ROUNDS", 6) {
        let seed = seed + round;
        churn(&tiny(), 60, 300, 3000, seed);
        churn(&tiny(), 2000, 40, 6000, seed);
        churn(&Settings { checkpoint_every: 4096, ..tiny() }, 300, 2000, 3000, seed);
    }
}
