//! Tests that stand behind the door: they see every store and stop the world between two of them.

mod beside;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::batch::Batch;
use super::expiry::Moment;
use super::head::LogHead;
use super::*;
use crate::door::seal_agrees;
use crate::engine::live_tables::Lengthened;
use crate::engine::pins::Pin;
use crate::engine::settings::{Access, Durability, Limits};
use crate::error::{Error, HeldBy};
use crate::file::door::{self, Recorder};
use crate::file::layout::{
    BLOCK, COUNT_MASK, DEFAULT_MAP, EXTENTS, ExtentKind, Kind, PIN_TABLE, PROCESSES, extent_word, seal,
};
use crate::file::live_table::{PIN, PROCESS};
use crate::file::log::{self, Entry};
use crate::file::space::Extent;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(path: &Path) -> Engine {
    Engine::open(path, Settings::default()).unwrap()
}

fn content(engine: &Engine) -> Content {
    let mut content = Content::new();
    let (pin, extent, totals) = Pin::with_totals(engine, DEFAULT_MAP).unwrap();
    for slot in Index::of_extent(&engine.region, extent.unwrap()).unwrap().iter() {
        let Some(offset) = slot.unwrap().record else { continue };
        let newest = log::record(&engine.region, offset).unwrap();
        if let Some(record) = engine.version_at(newest, pin.seq(), Moment::NOW).unwrap() {
            content.insert(record.key().to_vec(), record.value().to_vec());
        }
    }
    assert_eq!(content.len() as u64, totals.keys, "the counter of keys");
    content
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// One change of the file, as it went through the door.
#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Flush,
    SetLen(u64),
    Punch(u64, u64),
}

#[derive(Default)]
struct Tape(Mutex<Vec<Event>>);

impl Recorder for Tape {
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().unwrap().push(Event::Write(offset, bytes.to_vec()));
    }
    fn store(&self, offset: u64, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
    fn flush(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().push(Event::Flush);
        Ok(())
    }
    fn set_len(&self, len: u64) {
        self.0.lock().unwrap().push(Event::SetLen(len));
    }
    fn punch(&self, offset: u64, len: u64) {
        self.0.lock().unwrap().push(Event::Punch(offset, len));
    }
}

fn replay(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write(offset, bytes) => {
            image[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
        }
        Event::Flush => {}
        Event::SetLen(len) => image.resize(*len as usize, 0),
        Event::Punch(offset, len) => image[*offset as usize..(*offset + *len) as usize].fill(0),
    }
}

/// Puts an image in place of the file, as the page cache of this file: as if a process had been killed at that moment.
fn put_back(path: &Path, image: &[u8]) {
    let mut image = image.to_vec();
    fs::write(path, &image).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let identity = Region::of_file(file, path.to_owned(), true, u64::MAX).unwrap().identity();
    for (word, at) in identity.unwrap_or_default().into_iter().zip((live::IDENTITY as usize..).step_by(8)) {
        image[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    fs::write(path, &image).unwrap();
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    // Many flushes of no interest; a file system in memory makes them cheap.
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let path = folder.path().join("store");
    (folder, path)
}

/// Kills the process before each store that `change` makes, and once more after the last, and takes over. Then the
/// content must be the one before the change or the one after it, the latter for sure once the commit point is stored;
/// the store must verify clean and take another change.
fn killed_at_every_store(prepare: impl Fn(&Engine), change: impl Fn(&Arc<Engine>)) {
    let (before, after, seen_before, seen_after) = killed_with(&Settings::default(), prepare, change);
    assert_ne!(before, after, "the change changes something");
    assert!(seen_before && seen_after);
}

/// The same for a store that is opened so. Returns the contents before and after, and whether each was seen.
fn killed_with(
    settings: &Settings,
    prepare: impl Fn(&Engine),
    change: impl Fn(&Arc<Engine>),
) -> (Content, Content, bool, bool) {
    let (_folder, path) = scratch();
    let open = |path: &Path| Engine::open(path, settings.clone()).unwrap();
    let engine = Arc::new(open(&path));
    prepare(&engine);
    let before = content(&engine);
    let base = fs::read(&path).unwrap();
    let tape = Arc::new(Tape::default());
    engine.region.set_recorder(tape.clone());
    change(&engine);
    let events = tape.0.lock().unwrap().clone();
    let after = content(&engine);
    drop(engine);

    let killed = path.with_extension("killed");
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let end = |word| crate::file::layout::commit_end(word);
    let at = live::COMMIT_POINT as usize;
    let old_end = end(word(&base[at..at + 8]));
    let (mut image, mut committed) = (base, false);
    let (mut seen_before, mut seen_after) = (false, false);
    for number in 0..=events.len() {
        let note = format!("killed before store {number} of {}: {:?}", events.len(), events.get(number));
        for power_cut in [false, true] {
            put_back(&killed, &image);
            if power_cut {
                // A copy is another file: nothing but its log is believed.
                fs::copy(&killed, path.with_extension("copy")).unwrap();
                fs::rename(path.with_extension("copy"), &killed).unwrap();
            }
            let in_doubt = !seal_agrees(&image);
            // That lasts for one store, or for those that move the seal; and between those that put a superblock in
            // force.
            let seal_is_stored = number > 0
                && match events[number - 1] {
                    Event::SetLen(_) => true,
                    Event::Write(at, _) => {
                        at >= EXTENTS && at % BLOCK <= seal::CLOSED || [live::SEAL_AT, live::SUPERBLOCK].contains(&at)
                    }
                    _ => false,
                };
            assert!(!in_doubt || seal_is_stored, "{note}: the seal is not what was last stored");
            let engine = open(&killed);
            match engine.opened {
                Opened::AfterKill => assert!(!power_cut && !in_doubt, "{note}"),
                Opened::AfterPowerCut { .. } => {
                    assert!(power_cut || in_doubt || engine.region.identity().is_none(), "{note}");
                }
                other => panic!("{note}: {other:?}"),
            }
            let found = content(&engine);
            assert!(found == before || found == after, "{note}: {found:?}");
            assert!(!committed || found == after, "{note}: the commit point was stored, and the commit is lost");
            seen_before |= found == before;
            seen_after |= found == after;
            let report = engine.verify().unwrap();
            assert!(report.is_clean(), "{note}: {:?}", report.findings());
            // What the dead writer left behind must not come back with the next commit.
            let mut expected = found;
            engine.put(DEFAULT_MAP, b"next", b"one", None).unwrap();
            expected.insert(b"next".to_vec(), b"one".to_vec());
            assert_eq!(content(&engine), expected, "{note}");
            assert!(engine.verify().unwrap().is_clean(), "{note}");
        }
        if let Some(event) = events.get(number) {
            replay(&mut image, event);
            // Giving up stores that word too, with the old end, to skip a number.
            committed |= matches!(event, Event::Write(live::COMMIT_POINT, bytes) if end(word(bytes)) != old_end);
        }
    }
    (before, after, seen_before, seen_after)
}

/// Kills a store with tiny steps of upkeep at every store of a change that does not change what is in it.
fn killed_in_upkeep(prepare: impl Fn(&Engine), change: impl Fn(&Arc<Engine>)) {
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let (before, after, ..) = killed_with(&settings, prepare, change);
    assert_eq!(before, after);
}

fn kinds(engine: &Engine, kind: ExtentKind) -> usize {
    engine.extents().unwrap().iter().filter(|extent| extent.kind == kind).count()
}

/// So many keys that the smallest index is three quarters full, and a few tombstones.
fn nearly_full(engine: &Engine) {
    for number in 0..279 {
        engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
    }
    for number in 0..9 {
        engine.remove(DEFAULT_MAP, &key(number)).unwrap();
    }
}

#[test]
fn a_kill_at_any_store_of_a_resize() {
    killed_in_upkeep(nearly_full, |engine| {
        let _turn = engine.turn().unwrap();
        let mut writer = engine.writer();
        let blocks = crate::file::index::blocks_for(600);
        engine.begin_resize(&mut writer, DEFAULT_MAP, blocks, true, engine.next_seq().unwrap()).unwrap();
        let (mut steps, mut switched) = (0, false);
        while !switched {
            engine.step_resize(&mut writer, (1, 8), engine.next_seq().unwrap(), &mut switched).unwrap();
            steps += 1;
        }
        engine.skip_number().unwrap();
        assert!(steps > 8);
    });
}

/// Makes both tables of the live area longer by so many extents.
fn lengthen_tables(engine: &Engine, times: u32) {
    for number in 0..times {
        for table in [&PIN, &PROCESS] {
            let done = engine.lengthen(table, table.first() << number, Duration::ZERO).unwrap();
            assert_eq!(done, Lengthened::Done);
        }
    }
}

#[test]
fn a_kill_at_any_store_while_the_tables_grow() {
    killed_in_upkeep(some_keys, |engine| {
        lengthen_tables(engine, 2);
        assert_eq!(kinds(engine, ExtentKind::Live), 4);
        assert!(engine.verify().unwrap().is_clean());
    });
}

#[test]
fn a_kill_at_any_store_while_the_tables_are_given_back() {
    let prepare = |engine: &Engine| {
        some_keys(engine);
        lengthen_tables(engine, 2);
    };
    killed_in_upkeep(prepare, |engine| {
        let _turn = engine.turn_to_look(Duration::ZERO).unwrap();
        engine.give_tables_back_at_last().unwrap();
        assert_eq!(kinds(engine, ExtentKind::Live), 0);
    });
    // As one who opens the store, without a turn.
    killed_in_upkeep(prepare, |engine| {
        engine.give_tables_back().unwrap();
        assert_eq!(kinds(engine, ExtentKind::Live), 0);
    });
}

/// A reader may be the writer itself, in the middle of a transaction, and has no turn to wait for then.
#[test]
fn tables_grow_under_a_transaction() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    some_keys(&engine);
    for commits in [false, true] {
        let before = content(&engine);
        let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
        batch.put(DEFAULT_MAP, b"before", b"value", None).unwrap();
        let entries = PIN.parts(&engine.region).unwrap().entries();
        assert_eq!(engine.lengthen(&PIN, entries, Duration::ZERO).unwrap(), Lengthened::Done);
        batch.put(DEFAULT_MAP, b"after", b"value", None).unwrap();
        let elsewhere = std::thread::scope(|scope| {
            scope.spawn(|| engine.lengthen(&PIN, 2 * entries, Duration::from_millis(5)).unwrap()).join().unwrap()
        });
        assert_eq!(elsewhere, Lengthened::Busy, "another thread has to wait");
        if commits {
            batch.commit(Durability::Buffered).unwrap();
            assert_eq!(content(&engine).len(), before.len() + 2);
        } else {
            drop(batch);
            assert_eq!(content(&engine), before);
        }
        assert_eq!(PIN.parts(&engine.region).unwrap().entries(), 2 * entries);
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// What a power cut leaves of the live area is not believed, nor where its tables went on.
#[test]
fn tables_are_small_again_when_nobody_is_there() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    lengthen_tables(&engine, 1);
    let expected = content(&engine);
    let image = fs::read(&path).unwrap();
    let small = |engine: &Engine, opened: &str| {
        assert!(format!("{:?}", engine.opened).starts_with(opened), "{:?}", engine.opened);
        assert_eq!((kinds(engine, ExtentKind::Live), content(engine)), (0, expected.clone()), "{opened}");
        assert_eq!(PIN.parts(&engine.region).unwrap().entries(), PIN.first());
        assert!(engine.verify().unwrap().is_clean());
    };
    if engine.region.identity().is_some() {
        let killed = folder.path().join("killed");
        put_back(&killed, &image);
        small(&open(&killed), "AfterKill");
    }
    let copy = folder.path().join("copy");
    fs::write(&copy, &image).unwrap();
    small(&open(&copy), "AfterPowerCut");
    drop(engine);
    small(&open(&path), "Clean");
    fs::copy(&path, &copy).unwrap();
    small(&open(&copy), "Clean");
}

/// Who opens a store that was killed may have to pin something before the dead are swept away, and there may be no free
/// pin but where the table went on.
#[test]
fn a_table_in_which_a_pin_is_kept_is_not_given_back() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    lengthen_tables(&engine, 1);
    for place in PIN.parts(&engine.region).unwrap().places().take(PIN.first() as usize) {
        engine.region.store_live(place, crate::file::layout::pin::claim(5, 1), Ordering::Relaxed).unwrap();
    }
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    for pins_early in [false, true] {
        let engine = open(&killed);
        if !pins_early && engine.opened != Opened::AfterKill {
            // There every opener recovers.
            return;
        }
        if pins_early {
            // As if it had been so in the recovery.
            let _view = engine.view().unwrap();
            lengthen_tables(&engine, 1);
            let place = PIN.parts(&engine.region).unwrap().places().last().unwrap();
            let claim = crate::file::layout::pin::claim(0, COUNT_MASK);
            engine.region.store(place, claim, Ordering::Relaxed).unwrap();
        }
        engine.give_tables_of_the_dead_back().unwrap();
        assert_eq!(kinds(&engine, ExtentKind::Live), if pins_early { 2 } else { 0 });
        assert_eq!(engine.pins_in_use().unwrap().0, 0);
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// One whose entry is where the table went on cannot give that back; whoever comes next does.
#[test]
fn the_last_one_may_have_an_entry_where_the_table_went_on() {
    let (folder, path) = scratch();
    let first = open(&path);
    some_keys(&first);
    let expected = content(&first);
    let others: Vec<Engine> = (0..PROCESSES).map(|_| open(&path)).collect();
    drop(first);
    let mut others = others;
    let last = others.pop().unwrap();
    drop(others);
    assert_eq!((last.processes().unwrap().len(), kinds(&last, ExtentKind::Live)), (1, 1));
    drop(last);
    // In the same page cache, and in another.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    for path in [&path, &copy] {
        let engine = open(path);
        assert_eq!(engine.opened, Opened::Clean);
        assert_eq!((kinds(&engine, ExtentKind::Live), content(&engine)), (0, expected.clone()));
        assert!(engine.verify().unwrap().is_clean());
    }
}

#[test]
fn a_kill_at_any_store_of_changes_during_a_resize() {
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let prepare = |engine: &Engine| {
        nearly_full(engine);
        let mut writer = engine.writer();
        let blocks = crate::file::index::blocks_for(600);
        let seq = engine.next_seq().unwrap();
        engine.begin_resize(&mut writer, DEFAULT_MAP, blocks, true, seq).unwrap();
        // All zeroed, and half of the lines moved.
        engine.step_resize(&mut writer, (99, 0), seq, &mut false).unwrap();
        engine.step_resize(&mut writer, (0, 31), seq, &mut false).unwrap();
    };
    // The same, of which the last step was cut short before it could say so.
    let prepare_half_a_step = |engine: &Engine| {
        prepare(engine);
        let cursor = crate::file::layout::resize_cursor(DEFAULT_MAP, 4, true);
        engine.region.store_live(live::RESIZE_CURSOR, cursor, Ordering::Release).unwrap();
    };
    let changes: [fn(&Engine); 4] = [
        |engine| engine.put(DEFAULT_MAP, &key(100), b"another", None).unwrap(),
        |engine| engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap(),
        |engine| engine.put(DEFAULT_MAP, &key(3), b"over a tombstone that may be left out", None).unwrap(),
        |engine| assert!(engine.remove(DEFAULT_MAP, &key(200)).unwrap()),
    ];
    for change in changes {
        for prepare in [&prepare as &dyn Fn(&Engine), &prepare_half_a_step] {
            let (before, after, seen_before, seen_after) = killed_with(&settings, prepare, |engine| change(engine));
            assert_ne!(before, after);
            assert!(seen_before && seen_after);
        }
    }
}

/// What is being built belongs to no commit, so a commit that comes to nothing does not take it along.
#[test]
fn a_rollback_leaves_a_resize_alone() {
    let engine = in_memory();
    nearly_full(&engine);
    let _turn = engine.turn().unwrap();
    let mut writer = engine.writer();
    engine.begin_resize(&mut writer, DEFAULT_MAP, 3, false, engine.next_seq().unwrap()).unwrap();
    let target = engine.resize_target().unwrap().unwrap();
    engine.abandon(&mut writer).unwrap();
    assert_eq!(writer.space.extent(target).map(|extent| extent.kind), Some(ExtentKind::Index));
}

/// Some extents of log at whose head there is of everything: values, replaced values, tombstones.
fn some_log(engine: &Engine) {
    for number in 0..40 {
        engine.put(DEFAULT_MAP, &key(number % 30), &[number as u8; 300], None).unwrap();
    }
    engine.put(DEFAULT_MAP, &key(50), b"alive", None).unwrap();
    engine.remove(DEFAULT_MAP, &key(3)).unwrap();
    engine.put(DEFAULT_MAP, &key(51), b"alive", None).unwrap();
    for number in 0..20 {
        engine.put(DEFAULT_MAP, &key(number % 10 + 4), &[number as u8; 500], None).unwrap();
    }
}

#[test]
fn a_kill_at_any_store_of_cleaning() {
    killed_in_upkeep(some_log, |engine| {
        let before = engine.head().unwrap();
        let turn = engine.turn().unwrap();
        let mut writer = engine.writer();
        for _ in 0..8 {
            let portion = clean::Portion { bytes: 2000, leave_tail: false };
            engine.clean_and_reclaim(&mut writer, portion).unwrap();
        }
        drop(writer);
        drop(turn);
        let after = engine.head().unwrap();
        assert!(before.head.at + BLOCK < after.head.at);
        assert!(kinds(engine, ExtentKind::Emptied) > 0);
    });
}

#[test]
fn a_kill_at_any_store_of_cleaning_with_checkpoints_and_reuse() {
    killed_in_upkeep(some_log, |engine| {
        let before = engine.region.len();
        for _ in 0..5 {
            let turn = engine.turn().unwrap();
            let mut writer = engine.writer();
            let portion = clean::Portion { bytes: 3000, leave_tail: false };
            engine.clean_and_reclaim(&mut writer, portion).unwrap();
            drop(writer);
            drop(turn);
            engine.checkpoint().unwrap();
        }
        assert!(engine.region.len() <= before + 8192, "what was emptied is used again");
    });
}

#[test]
fn a_kill_at_any_store_of_a_compaction() {
    killed_in_upkeep(some_log, |engine| {
        let report = engine.compact(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert!(report.finished && report.freed_bytes > 0, "{report:?}");
    });
}

#[test]
fn a_kill_at_any_store_while_holes_are_punched_and_filled() {
    let prepare = |engine: &Engine| {
        some_log(engine);
        engine.compact(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        for number in 0..60 {
            engine.put(DEFAULT_MAP, &key(number), &[7; 400], None).unwrap();
        }
        engine.clear(DEFAULT_MAP).unwrap();
        engine.put(DEFAULT_MAP, b"left", b"over", None).unwrap();
        while engine.maintain(Duration::ZERO, Duration::from_secs(9)).unwrap() {}
        engine.checkpoint().unwrap();
    };
    killed_in_upkeep(prepare, |engine| {
        engine.release_free_space().unwrap();
        assert!(kinds(engine, ExtentKind::Hole) > 0);
        let _turn = engine.turn().unwrap();
        let mut writer = engine.writer();
        engine.begin_resize(&mut writer, DEFAULT_MAP, 3, false, engine.next_seq().unwrap()).unwrap();
    });
}

fn some_keys(engine: &Engine) {
    for number in 0..20 {
        engine.put(DEFAULT_MAP, &key(number), b"old", None).unwrap();
    }
    engine.remove(DEFAULT_MAP, &key(7)).unwrap();
}

#[test]
fn a_kill_at_any_store_of_an_insert() {
    killed_at_every_store(some_keys, |engine| engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap());
}

#[test]
fn a_kill_at_any_store_of_an_overwrite() {
    killed_at_every_store(some_keys, |engine| engine.put(DEFAULT_MAP, &key(3), b"another value", None).unwrap());
}

#[test]
fn a_kill_at_any_store_of_an_insert_over_a_tombstone() {
    killed_at_every_store(some_keys, |engine| engine.put(DEFAULT_MAP, &key(7), b"back", None).unwrap());
}

#[test]
fn a_kill_at_any_store_of_a_removal() {
    killed_at_every_store(some_keys, |engine| assert!(engine.remove(DEFAULT_MAP, &key(3)).unwrap()));
}

#[test]
fn a_kill_at_any_store_of_a_clear() {
    killed_at_every_store(some_keys, |engine| engine.clear(DEFAULT_MAP).unwrap());
}

#[test]
fn a_kill_at_any_store_of_a_transaction() {
    killed_at_every_store(some_keys, |engine| {
        let mut batch = Batch::begin(Arc::clone(engine)).unwrap();
        batch.put(DEFAULT_MAP, b"new", b"first", None).unwrap();
        batch.put(DEFAULT_MAP, b"new", b"second", None).unwrap();
        batch.put(DEFAULT_MAP, &key(1), b"overwritten", None).unwrap();
        assert!(batch.remove(DEFAULT_MAP, &key(2)).unwrap());
        batch.put(DEFAULT_MAP, &key(2), b"and back", None).unwrap();
        assert!(batch.remove(DEFAULT_MAP, &key(4)).unwrap());
        batch.put(DEFAULT_MAP, &key(7), b"over a tombstone", None).unwrap();
        batch.commit(Durability::Buffered).unwrap();
    });
}

#[test]
fn a_kill_at_any_store_while_the_log_moves_to_another_extent() {
    killed_at_every_store(some_keys, |engine| engine.put(DEFAULT_MAP, b"long", &[7; 70_000], None).unwrap());
}

#[test]
fn a_kill_at_any_store_of_a_transaction_over_several_extents() {
    killed_at_every_store(some_keys, |engine| {
        let mut batch = Batch::begin(Arc::clone(engine)).unwrap();
        for number in 0..3 {
            batch.put(DEFAULT_MAP, &key(number), &[7; 50_000], None).unwrap();
        }
        batch.commit(Durability::Buffered).unwrap();
    });
}

#[test]
fn a_kill_at_any_store_while_the_index_grows() {
    // The smallest index takes 279 keys.
    let fill = |engine: &Engine| {
        for number in 0..279 {
            engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
        }
    };
    let lines = |engine: &Engine| engine.index(DEFAULT_MAP).unwrap().unwrap().lines();
    killed_at_every_store(fill, |engine| {
        let before = lines(engine);
        engine.put(DEFAULT_MAP, b"one more", b"", None).unwrap();
        assert!(lines(engine) > before, "the index was to grow");
    });
}

#[test]
fn a_kill_at_any_store_of_a_transaction_that_is_given_up_and_one_that_follows() {
    killed_at_every_store(some_keys, |engine| {
        let mut batch = Batch::begin(Arc::clone(engine)).unwrap();
        batch.put(DEFAULT_MAP, &key(1), b"never", None).unwrap();
        batch.put(DEFAULT_MAP, b"never", &[7; 70_000], None).unwrap();
        drop(batch);
        engine.put(DEFAULT_MAP, &key(1), b"seen", None).unwrap();
    });
}

/// Sees the store from outside at each of its own stores: a reader in another thread could.
struct Onlooker {
    engine: OnceLock<Weak<Engine>>,
    seen: Mutex<Vec<Content>>,
    looking: AtomicBool,
}

impl Onlooker {
    fn look(&self) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        // Looking pins, which is a store as well.
        if !self.looking.swap(true, Ordering::SeqCst) {
            self.seen.lock().unwrap().push(content(&engine));
            self.looking.store(false, Ordering::SeqCst);
        }
    }
}

impl Recorder for Onlooker {
    fn write(&self, _offset: u64, _bytes: &[u8]) {
        self.look();
    }
    fn store(&self, _offset: u64, _value: u64) {
        self.look();
    }
}

#[test]
fn a_reader_between_any_two_stores_sees_all_of_a_commit_or_nothing() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    some_keys(&engine);
    let before = content(&engine);
    let onlooker =
        Arc::new(Onlooker { engine: OnceLock::new(), seen: Mutex::default(), looking: AtomicBool::new(false) });
    engine.region.set_recorder(onlooker.clone());
    onlooker.engine.set(Arc::downgrade(&engine)).unwrap();
    let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
    for number in 0..300 {
        batch.put(DEFAULT_MAP, &key(number), b"new", None).unwrap();
    }
    assert!(batch.remove(DEFAULT_MAP, &key(5)).unwrap());
    batch.commit(Durability::Buffered).unwrap();
    let mut after = before.clone();
    after.extend((0..300).map(|number| (key(number), b"new".to_vec())));
    after.remove(&key(5));

    let seen = onlooker.seen.lock().unwrap();
    let turn = seen.iter().position(|content| *content != before).unwrap();
    assert!(seen[turn..].iter().all(|content| *content == after), "half a commit was seen");
    assert!(turn > 1000 && turn < seen.len(), "the reader looked before and after");
}

/// The live area must not vanish under those who have read in it since before the store was closed.
#[test]
fn a_reader_who_stays_sees_all_of_it_at_every_store_of_the_next_opening() {
    let (_folder, path) = scratch();
    let writer = open(&path);
    some_keys(&writer);
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Arc::new(Engine::open(&path, settings).unwrap());
    let expected = content(&reader);
    drop(writer);
    let onlooker =
        Arc::new(Onlooker { engine: OnceLock::new(), seen: Mutex::default(), looking: AtomicBool::new(false) });
    onlooker.engine.set(Arc::downgrade(&reader)).unwrap();
    let standing = door::stand(onlooker.clone());
    let next = open(&path);
    drop(standing);
    assert_eq!((next.opened, content(&next)), (Opened::Clean, expected.clone()));
    let seen = onlooker.seen.lock().unwrap();
    assert!(seen.len() > 5 && seen.iter().all(|content| *content == expected));
}

/// The live area of a closed store is what the disk happens to have of it. A reader takes it for that of a writer only
/// once there is one.
#[test]
fn a_reader_of_a_closed_store_does_not_believe_its_live_area() {
    let (folder, path) = scratch();
    let writer = open(&path);
    some_keys(&writer);
    let expected = content(&writer);
    drop(writer);
    let mut image = fs::read(&path).unwrap();
    image[live::IDENTITY as usize..EXTENTS as usize].fill(0x55);
    image[live::VERSION_WORD as usize..][..8].copy_from_slice(&live::VERSION.to_le_bytes());
    let cut = folder.path().join("cut");
    fs::write(&cut, image).unwrap();
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Engine::open(&cut, settings).unwrap();
    assert_eq!((reader.opened, content(&reader)), (Opened::Clean, expected.clone()));
    let writer = open(&cut);
    writer.put(DEFAULT_MAP, &key(1), b"new", None).unwrap();
    assert_eq!(content(&reader), content(&writer));
    assert_ne!(content(&reader), expected);
}

/// Does something at the moment when a reader has written its first pin and looked at nothing yet.
struct AtFirstPin {
    engine: OnceLock<Weak<Engine>>,
    action: fn(&Engine),
    done: AtomicBool,
}

impl AtFirstPin {
    fn watch(engine: &Arc<Engine>, action: fn(&Engine)) -> Arc<AtFirstPin> {
        let watch = Arc::new(AtFirstPin { engine: OnceLock::new(), action, done: AtomicBool::new(false) });
        engine.region.set_recorder(watch.clone());
        watch.engine.set(Arc::downgrade(engine)).unwrap();
        watch
    }
}

impl Recorder for AtFirstPin {
    fn store(&self, offset: u64, _value: u64) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        if (PIN_TABLE..EXTENTS).contains(&offset) && !self.done.swap(true, Ordering::SeqCst) {
            (self.action)(&engine);
        }
    }
}

fn in_memory() -> Arc<Engine> {
    Arc::new(Engine::in_memory(Settings { max_size: 1 << 30, ..Settings::default() }).unwrap())
}

#[test]
fn a_reader_that_is_overtaken_by_the_horizon_takes_a_newer_view() {
    let engine = in_memory();
    some_keys(&engine);
    // As if a commit had been made and space reclaimed after it, with no pin yet in sight.
    let watch = AtFirstPin::watch(&engine, |engine| {
        let newer = engine.region.live(live::VISIBLE).unwrap() + 1;
        engine.region.store_live(live::VISIBLE, newer, Ordering::SeqCst).unwrap();
        engine.region.store_live(live::HORIZON, newer, Ordering::SeqCst).unwrap();
    });
    let pin = engine.pin().unwrap();
    assert!(watch.done.load(Ordering::SeqCst));
    assert!(pin.seq() >= engine.region.live(live::HORIZON).unwrap(), "a reader below the horizon");
}

#[test]
fn a_reader_that_is_overtaken_by_a_clear_reads_the_region_of_its_time() {
    let engine = in_memory();
    some_keys(&engine);
    let before = content(&engine);
    let watch = AtFirstPin::watch(&engine, |engine| engine.clear(DEFAULT_MAP).unwrap());
    assert_eq!(content(&engine), before);
    assert!(watch.done.load(Ordering::SeqCst));
    assert!(content(&engine).is_empty());
}

/// What the live area of a closed store says of who writes and reads is not believed: nobody does.
#[test]
fn a_closed_store_has_no_writer_and_no_readers_whatever_it_says() {
    for damage in [7 << 32, 0x1234_5678 << 32, u64::MAX] {
        let (_folder, path) = scratch();
        drop(open(&path));
        let mut image = fs::read(&path).unwrap();
        let tables = [live::PIN_EXTENTS, live::PROCESS_EXTENTS];
        for at in [live::WRITER_LOCK, live::NEXT_TURN, live::SPACE_CHANGES, PIN_TABLE].into_iter().chain(tables) {
            image[at as usize..at as usize + 8].copy_from_slice(&u64::to_le_bytes(damage));
        }
        put_back(&path, &image);
        let start = std::time::Instant::now();
        let engine = open(&path);
        grow_index(&engine, 0..2000);
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "it waited for nobody");
        assert!(retired(&engine) <= 1, "a pin of nobody holds nothing");
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// Where the tables of the live area go on is no place to write to because a damaged word says so.
#[test]
fn a_table_that_cannot_be_there_costs_a_walk_of_the_log() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let image = fs::read(&path).unwrap();
    let expected = content(&engine);
    let len = image.len() as u64;
    for at in [live::PIN_EXTENTS, live::PROCESS_EXTENTS] {
        let blocks = if at == live::PIN_EXTENTS { 11 } else { 2 };
        // No such length, in front of the extents, beyond the end of the file.
        for word in [extent_word(EXTENTS, 5), extent_word(BLOCK, blocks), extent_word(len, blocks), u64::MAX] {
            let mut image = image.clone();
            image[at as usize..at as usize + 8].copy_from_slice(&word.to_le_bytes());
            let killed = folder.path().join("killed");
            put_back(&killed, &image);
            let engine = open(&killed);
            assert!(matches!(engine.opened, Opened::AfterPowerCut { .. }), "{word:x}: {:?}", engine.opened);
            assert_eq!(content(&engine), expected);
            assert!(engine.verify().unwrap().is_clean());
        }
    }
}

/// In a mount namespace of its own, a reader may have to recover what a writer elsewhere goes on with. Of what the
/// reader has not changed in its memory, it sees the file.
#[test]
fn a_writer_goes_on_beside_a_reader_that_has_recovered_for_itself() {
    let (folder, path) = scratch();
    let store = open(&path);
    some_keys(&store);
    if store.region.identity().is_none() {
        // There every opener would recover.
        return;
    }
    let expected = content(&store);
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    let mount = live::IDENTITY + 40;
    let turn = || {
        let mut file = File::options().read(true).write(true).open(&killed).unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(mount)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(mount)).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    };
    turn();
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Engine::open(&killed, settings).unwrap();
    assert!(matches!(reader.opened, Opened::AfterPowerCut { .. }) && reader.is_aside(), "{:?}", reader.opened);
    turn();
    assert!(reader.follow().is_none());
    let alone = Engine::open(&killed, Settings { exclusive: true, ..Settings::default() }).err().unwrap();
    assert!(matches!(alone, Error::Locked { by: HeldBy::Private, .. }), "{alone}");
    let writer = open(&killed);
    assert_eq!((writer.opened, content(&writer)), (Opened::AfterKill, expected.clone()));
    for round in 0..50 {
        for number in 0..40 {
            writer.put(DEFAULT_MAP, &key(number), &[round; 300], None).unwrap();
        }
        writer.compact(&mut |_| ControlFlow::Continue(())).unwrap();
        assert!(content(&reader) == expected);
        let report = reader.verify().unwrap();
        assert!(report.is_clean(), "{:?}", report.findings());
    }
    // By now the log begins elsewhere, so whoever builds everything anew from it would take what the reader sees for
    // free.
    writer.checkpoint().unwrap();
    drop(writer);
    let refused = Engine::open(&killed, Settings { untrusted: true, ..Settings::default() }).err().unwrap();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    assert!(content(&reader) == expected);
    let writer = open(&killed);
    let next = reader.follow().unwrap();
    assert_eq!(next.origin, reader.origin);
    assert!(!next.is_aside() && content(&next) == content(&writer));
    let len = writer.region.len();
    drop(reader);
    writer.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    drop(next);
    writer.release_free_space().unwrap();
    assert!(writer.region.len() < len / 2, "{} of {len} bytes", writer.region.len());
}

/// Its writer was killed when the file had become longer and the seal was still where the file had ended.
#[test]
fn a_growth_that_was_cut_short_is_completed() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let mut image = fs::read(&path).unwrap();
    let (before, expected) = (image.len() as u64, content(&engine));
    image.resize(image.len() + 20 * BLOCK as usize, 0);
    let killed = folder.path().join("killed");
    put_back(&killed, &image);
    let engine = open(&killed);
    let is_known = engine.region.identity().is_some();
    assert!(!is_known || engine.opened == Opened::AfterKill, "{:?}", engine.opened);
    engine.put(DEFAULT_MAP, b"more", b"value", None).unwrap();
    assert!(engine.verify().unwrap().is_clean());
    // Beside a reader, what was taken for nothing is not given back.
    let reader = Engine::open(&killed, Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap();
    engine.close().unwrap();
    assert!(engine.region.len() > before);
    drop(reader);
    // Of the live area nothing is believed in another page cache.
    let mut image = fs::read(&killed).unwrap();
    image[live::IDENTITY as usize] ^= 1;
    fs::write(&killed, &image).unwrap();
    let engine = open(&killed);
    assert_eq!((engine.opened, content(&engine).len()), (Opened::Clean, expected.len() + 1));
}

/// It may have taken for a commit what its writer did not come to commit, and what a recovery after the kill undoes.
#[test]
fn what_a_reader_has_recovered_is_not_undone() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let tape = Arc::new(Tape::default());
    let mut image = fs::read(&path).unwrap();
    engine.region.set_recorder(tape.clone());
    engine.put(DEFAULT_MAP, b"appended", b"value", None).unwrap();
    // All that comes before the seal and the commit point.
    for event in &*tape.0.lock().unwrap() {
        if matches!(event, Event::Write(at, _) if *at >= EXTENTS && *at + BLOCK >= image.len() as u64) {
            break;
        }
        replay(&mut image, event);
    }
    let killed = folder.path().join("killed");
    // Of another page cache, as far as one knows.
    fs::write(&killed, &image).unwrap();
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Engine::open(&killed, settings).unwrap();
    assert!(content(&reader).contains_key(&b"appended"[..]));
    let mut file = File::options().read(true).write(true).open(&killed).unwrap();
    let region = Region::of_file(file.try_clone().unwrap(), killed.clone(), true, u64::MAX).unwrap();
    let Some(identity) = region.identity() else { return };
    file.seek(SeekFrom::Start(live::IDENTITY)).unwrap();
    identity.into_iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    let refused = Engine::open(&killed, Settings::default()).err().unwrap();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    drop(reader);
    let writer = open(&killed);
    assert_eq!(writer.opened, Opened::AfterKill);
    assert!(!content(&writer).contains_key(&b"appended"[..]));
}

/// Nobody else can be in a private copy, so nothing of those who were killed is left in it.
#[test]
fn a_private_copy_forgets_the_dead() {
    let (folder, path) = scratch();
    let (store, other) = (open(&path), open(&path));
    some_keys(&store);
    other.put(DEFAULT_MAP, b"of the other", b"value", None).unwrap();
    let pin = other.pin().unwrap();
    if store.region.identity().is_none() {
        // There every opener would recover.
        return;
    }
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    let before = fs::read(&killed).unwrap();
    let entries = |region: &Region| -> Vec<u64> {
        (0..PROCESSES).filter(|&entry| processes::read(region, entry).unwrap().is_some()).collect()
    };
    assert_eq!(entries(&store.region), [0, 1]);
    let settings = Settings { access: settings::Access::CopyOnWrite, ..Settings::default() };
    let copy = Engine::open(&killed, settings).unwrap();
    assert_eq!((copy.opened, entries(&copy.region)), (Opened::AfterKill, vec![0]), "only its own");
    assert_eq!(copy.pins_in_use().unwrap().0, 0);
    assert_eq!(content(&copy), content(&store));
    copy.close().unwrap();
    assert!(fs::read(&killed).unwrap() == before);
    drop(pin);
}

#[test]
fn damage_of_either_superblock_is_found() {
    for place in [crate::file::layout::SUPERBLOCK_A, crate::file::layout::SUPERBLOCK_B] {
        let (_folder, path) = scratch();
        let engine = open(&path);
        for number in 0..2 {
            engine.put(DEFAULT_MAP, &key(number), b"value", None).unwrap();
            engine.checkpoint().unwrap();
        }
        assert!(engine.verify().unwrap().is_clean());
        engine.region.write(place + 200, b"damage").unwrap();
        let report = engine.verify().unwrap();
        assert_eq!(report.findings().iter().map(|finding| finding.offset).collect::<Vec<_>>(), [place]);
    }
}

/// A read-only store cannot write a pin, so its reads look afterwards whether they were overtaken.
#[test]
fn a_copy_that_is_overtaken_by_reuse_is_made_again() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let reader = Engine::open(&path, Settings { access: settings::Access::ReadOnly, ..Settings::default() }).unwrap();
    // Between the sequence number that a read begins with and its end, a writer comes in.
    let looks = std::cell::Cell::new(0);
    let seen = reader.unpinned(|seq| {
        looks.set(looks.get() + 1);
        // The writer comes each time, but the second one has a lock against that.
        engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap();
        let unread_below = engine.raise_horizon().unwrap();
        assert_eq!(unread_below < engine.visible().unwrap() & COUNT_MASK, looks.get() == 2);
        Ok(seq)
    });
    assert_eq!((seen.unwrap(), looks.get()), (engine.visible().unwrap() - 1, 2));
    // A commit alone does not disturb: what it replaces is still there.
    looks.set(0);
    let before = engine.visible().unwrap();
    let seen = reader.unpinned(|seq| {
        looks.set(looks.get() + 1);
        engine.put(DEFAULT_MAP, b"new", b"newer", None).unwrap();
        Ok(seq)
    });
    assert_eq!((seen.unwrap(), looks.get()), (before, 1));
}

/// Superblocks are read without a lock.
#[test]
fn a_superblock_is_read_whole_while_others_take_checkpoints() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    let reader = Engine::open(&path, Settings { access: settings::Access::ReadOnly, ..Settings::default() }).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..40_000 {
                engine.put(DEFAULT_MAP, &key(number % 10), b"", None).unwrap();
                engine.checkpoint().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut last = 0;
        while !done.load(Ordering::Acquire) {
            let generation = reader.superblock().unwrap().generation.get();
            assert!(generation >= last, "{generation} after {last}");
            last = generation;
        }
    });
}

fn retired(engine: &Engine) -> usize {
    kinds(engine, ExtentKind::Retired)
}

/// Inserts so many keys that the index grows several times.
fn grow_index(engine: &Engine, numbers: std::ops::Range<u32>) {
    for number in numbers {
        engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
    }
}

#[test]
fn space_is_not_reused_below_the_pin_of_a_snapshot() {
    let engine = in_memory();
    some_keys(&engine);
    let pin = engine.pin().unwrap();
    let old = engine.index(DEFAULT_MAP).unwrap().unwrap();
    grow_index(&engine, 0..2000);
    assert!(retired(&engine) >= 2, "the index grew, and the pin holds what it was");
    let seen = |slot: Result<crate::file::index::Slot>| {
        let newest = log::record(&engine.region, slot.unwrap().record.unwrap()).unwrap();
        engine.version_at(newest, pin.seq(), Moment::NOW).unwrap().is_some()
    };
    assert_eq!(old.iter().map(seen).filter(|&seen| seen).count(), 19, "what the pin holds is still there");
    drop(pin);
    grow_index(&engine, 2000..8000);
    assert!(retired(&engine) <= 1, "without the pin the space is used again");
}

#[test]
fn space_is_not_reused_below_a_read_and_is_behind_it() {
    let engine = in_memory();
    some_keys(&engine);
    let view = engine.view().unwrap();
    let inner = engine.view().unwrap();
    drop(inner);
    grow_index(&engine, 0..8000);
    assert!(retired(&engine) >= 2, "the index grew, and the read holds what it was");
    drop(view);
    grow_index(&engine, 20_000..80_000);
    assert!(retired(&engine) <= 1, "the pin that the thread keeps holds nothing");
}

#[test]
fn tombstones_that_nobody_needs_make_room_in_a_full_store() {
    let max_size = 256 << 10;
    let engine = Arc::new(Engine::in_memory(Settings { max_size, ..Settings::default() }).unwrap());
    let mut number = 0;
    // The index cannot grow when the file cannot; but there is always room for one key at a time.
    let full = loop {
        match engine.put(DEFAULT_MAP, &key(number), b"", None) {
            Ok(()) => {
                assert!(engine.remove(DEFAULT_MAP, &key(number)).unwrap());
                number += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert!(number > 279, "more keys came and went than the index has slots: {number}");
    assert!(engine.verify().unwrap().is_clean());
}

/// A record that is whole and has the right number, but follows another one than that before it, is from another life.
#[test]
fn a_walk_stops_at_a_record_of_another_chain() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let expected = content(&engine);
    let seq = engine.next_seq().unwrap();
    let mut tail = engine.tail(&engine.writer()).unwrap();
    tail.chain ^= 1;
    let (key, value) = (&b"stale"[..], &b"stale"[..]);
    let flags = crate::file::layout::flags::COMMIT | crate::file::layout::flags::NEW;
    let stale =
        Entry { kind: Kind::Put, flags, seq, prev: 0, map: DEFAULT_MAP, expires: None, shortcut: None, key, value };
    tail.append(&engine.region, &stale).unwrap();
    fs::copy(&path, path.with_extension("copy")).unwrap();
    let copy = open(&path.with_extension("copy"));
    assert_eq!(content(&copy), expected);
}

/// Records of a transaction that did not come to its end are whole, in their order, and of no account.
#[test]
fn a_walk_needs_the_end_of_a_commit() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    some_keys(&engine);
    let expected = content(&engine);
    let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
    for number in 100..110 {
        batch.put(DEFAULT_MAP, &key(number), b"uncommitted", None).unwrap();
    }
    fs::copy(&path, path.with_extension("copy")).unwrap();
    let copy = open(&path.with_extension("copy"));
    assert_eq!(content(&copy), expected);
}

/// The flag of a clean close says that the index can be believed. It has to be gone before that stops to be true.
#[test]
fn a_change_takes_the_clean_flag_from_the_disk_first() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    drop(engine);
    let engine = open(&path);
    assert_eq!(engine.opened, Opened::Clean);
    let tape = Arc::new(Tape::default());
    engine.region.set_recorder(tape.clone());
    engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap();
    let events = tape.0.lock().unwrap().clone();
    let flush = events.iter().position(|event| matches!(event, Event::Flush)).unwrap();
    let before_seal = EXTENTS..fs::metadata(&path).unwrap().len() - BLOCK;
    let is_append = |event: &Event| matches!(event, Event::Write(at, _) if before_seal.contains(at));
    let record = events.iter().position(is_append).unwrap();
    assert!(flush < record, "the flag has to be flushed away before anything is appended");
    fs::copy(&path, path.with_extension("copy")).unwrap();
    let copy = open(&path.with_extension("copy"));
    assert!(matches!(copy.opened, Opened::AfterPowerCut { .. }), "{:?}", copy.opened);
    assert_eq!(content(&copy), content(&engine));
}

/// A writer that died just before its commit point leaves a commit that is whole; nobody may ever see it.
#[test]
fn what_a_dead_writer_left_is_never_taken_for_a_commit() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let expected = content(&engine);
    let turn = engine.turn().unwrap();
    let mut tail = engine.tail(&engine.writer()).unwrap();
    let flags = crate::file::layout::flags::COMMIT | crate::file::layout::flags::NEW;
    let seq = engine.next_seq().unwrap();
    let dead = Entry {
        kind: Kind::Put,
        flags,
        seq,
        prev: 0,
        map: DEFAULT_MAP,
        expires: None,
        shortcut: None,
        key: b"dead",
        value: b"dead",
    };
    tail.append(&engine.region, &dead).unwrap();
    // The lock word says what it says when somebody has cleaned up behind a dead one; the lock of this process goes on.
    engine.left_something.store(true, Ordering::SeqCst);
    drop(turn);

    assert!(!engine.remove(DEFAULT_MAP, b"dead").unwrap(), "the next writer comes, and goes without a commit");
    fs::copy(&path, path.with_extension("copy")).unwrap();
    let copy = open(&path.with_extension("copy"));
    assert_eq!(content(&copy), expected, "the power is cut after that");
    engine.put(DEFAULT_MAP, b"next", b"", None).unwrap();
    let index = engine.index(DEFAULT_MAP).unwrap().unwrap();
    let next = engine.lookup(&index, DEFAULT_MAP, u64::MAX, b"next", Moment::NOW).unwrap().unwrap();
    assert!(next.seq() > seq, "the number of the dead one is skipped");
}

/// Reads take the size of a region from the map table, so `verify` has to hold that against the region.
#[test]
fn verify_finds_a_region_of_another_size_than_the_map_table_says() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    assert!(engine.verify().unwrap().is_clean());
    let table = crate::file::layout::extent_offset(engine.region.live(live::MAP_TABLE).unwrap());
    // The entry of the default map, its second word, the block count.
    let word = table + crate::file::layout::TABLE_HEADER + crate::file::layout::MAP_ENTRY + 8;
    let damaged = engine.region.load(word).unwrap() + (1 << 32);
    engine.region.store(word, damaged, Ordering::Release).unwrap();
    assert!(!engine.verify().unwrap().is_clean());
}

/// A commit behind a chain that is wrong would be lost to every later walk, and all that follows it.
#[test]
fn verify_finds_a_chain_that_the_next_commit_would_break() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    assert!(engine.verify().unwrap().is_clean(), "an empty log");
    some_keys(&engine);
    assert!(engine.verify().unwrap().is_clean());
    let chain = engine.region.live(live::CHAIN).unwrap();
    engine.region.store_live(live::CHAIN, chain ^ 1, Ordering::Release).unwrap();
    assert!(!engine.verify().unwrap().is_clean());
}

/// A copy that is opened for reading has nothing but the superblock to say that an index is being built.
#[test]
fn a_store_that_was_closed_while_an_index_was_built_is_in_order() {
    let (_folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let engine = Engine::open(&path, settings).unwrap();
    for number in 0.. {
        engine.put(DEFAULT_MAP, &key(number), b"value", None).unwrap();
        if engine.resize_cursor().unwrap() != 0 {
            break;
        }
    }
    engine.close().unwrap();
    drop(engine);
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let engine = Engine::open(&copy, Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap();
    assert!(!engine.is_live().unwrap());
    let report = engine.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.findings());
}

/// Which ranges are flushed.
#[derive(Default)]
struct Flushes(Mutex<Vec<(u64, u64)>>);

impl Recorder for Flushes {
    fn flush(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().push((offset, offset + len));
        Ok(())
    }
}

/// Of two processes, one has synced up to a place in an extent which the other one has emptied, freed and taken again
/// since.
#[test]
fn a_sync_flushes_an_extent_that_was_taken_again_from_its_beginning() {
    let (_folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let (one, other) = (open(&path), Engine::open(&path, settings).unwrap());
    let flushes = Arc::new(Flushes::default());
    one.region.set_recorder(flushes.clone());
    one.put(DEFAULT_MAP, b"key", &[1; 2000], None).unwrap();
    one.sync().unwrap();
    let (ended, seq) = (one.region.live(live::TAIL).unwrap(), one.visible().unwrap());
    let mut number = 0;
    let again = loop {
        other.put(DEFAULT_MAP, &key(number % 5), &[2; 100], None).unwrap();
        other.checkpoint().unwrap();
        number += 1;
        let tail = other.region.live(live::TAIL).unwrap();
        let extent = *other.space_now().unwrap().unwrap().log_extent_of(tail).unwrap();
        if extent.count > seq & crate::file::layout::COUNT_MASK && extent.contains(ended) && tail > ended {
            break extent;
        }
        assert!(number < 100_000, "the extent is taken again");
    };
    flushes.0.lock().unwrap().clear();
    one.put(DEFAULT_MAP, b"key", b"value", None).unwrap();
    one.sync().unwrap();
    let flushed = flushes.0.lock().unwrap().clone();
    assert!(flushed.iter().any(|&(start, end)| start <= again.offset && end > ended), "{again:?}: {flushed:?}");
}

/// Cleans the log while a checkpoint is being flushed.
struct CleansInFlush {
    engine: OnceLock<Weak<Engine>>,
    done: AtomicBool,
}

impl Recorder for CleansInFlush {
    fn flush(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return Ok(()) };
        if !self.done.swap(true, Ordering::SeqCst) {
            let _turn = engine.turn().unwrap();
            let mut writer = engine.writer();
            for _ in 0..5 {
                engine.clean(&mut writer, clean::Portion { bytes: 2000, leave_tail: false }).unwrap();
            }
        }
        Ok(())
    }
}

/// A superblock whose head lies behind records that were moved to where it does not vouch for anything would lose them.
#[test]
fn a_checkpoint_vouches_for_all_that_was_moved_from_before_its_head() {
    let (_folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), auto_compact: None, ..Settings::default() };
    let engine = Arc::new(Engine::open(&path, settings).unwrap());
    some_log(&engine);
    let (head, tail) = (engine.head().unwrap(), engine.region.live(live::TAIL).unwrap());
    let recorder = Arc::new(CleansInFlush { engine: OnceLock::new(), done: AtomicBool::new(false) });
    engine.region.set_recorder(recorder.clone());
    recorder.engine.set(Arc::downgrade(&engine)).unwrap();
    engine.checkpoint().unwrap();
    assert_ne!(engine.head().unwrap(), head, "it was cleaned meanwhile");
    let superblock = engine.superblock().unwrap();
    assert_eq!(superblock.log_end.get(), tail);
    assert_eq!(head::LogHead::of_superblock(&superblock).head, head.head);
}

/// Counts how often space is allocated for real.
#[derive(Default)]
struct Allocations(AtomicU64);

impl Recorder for Allocations {
    fn call(&self, call: door::Call) -> std::io::Result<()> {
        self.0.fetch_add(u64::from(call == door::Call::Allocate), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_hole_gets_real_space_before_it_is_used() {
    let (_folder, path) = scratch();
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let engine = Engine::open(&path, settings).unwrap();
    some_log(&engine);
    engine.clear(DEFAULT_MAP).unwrap();
    engine.put(DEFAULT_MAP, b"left", b"over", None).unwrap();
    for _ in 0..3 {
        while engine.maintain(Duration::ZERO, Duration::from_secs(9)).unwrap() {}
        engine.checkpoint().unwrap();
    }
    engine.release_free_space().unwrap();
    let hole = engine.extents().unwrap().into_iter().find(|extent| extent.kind == ExtentKind::Hole).unwrap();
    let counter = Arc::new(Allocations::default());
    let _standing = door::stand(counter.clone());
    let _turn = engine.turn().unwrap();
    let mut writer = engine.writer();
    let taken = engine.allocate(&mut writer, 1, ExtentKind::Reserve, engine.next_seq().unwrap()).unwrap();
    assert_eq!(taken.offset, hole.offset, "the lowest place");
    assert_eq!(counter.0.load(Ordering::SeqCst), 1);
}

/// Says that the disk is full.
struct FullDisk;

impl Recorder for FullDisk {
    fn call(&self, call: door::Call) -> std::io::Result<()> {
        let refused = call == door::Call::Allocate;
        if refused { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// However small the store is when its disk gets full, what is held back suffices for a tombstone, whichever key it is.
/// Nothing is cleaned here, which could use that up before.
#[test]
fn any_key_can_be_removed_when_the_disk_is_full() {
    for seed in 1..=150u64 {
        let mut state = seed;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (_folder, path) = scratch();
        let engine = Engine::open(&path, Settings { auto_compact: None, ..Settings::default() }).unwrap();
        let longest = [8, 300, 4_024, 20_000, 65_000][below(5)];
        let (before, with_pin) = (below(60) * below(2), below(2) == 0);
        let mut pin = None;
        let mut disk = None;
        let mut keys = Vec::new();
        for number in 0.. {
            if number == before {
                // Then a record that replaces one has a shortcut, and so has a tombstone.
                pin = with_pin.then(|| engine.pin().unwrap());
                disk = Some(door::stand(Arc::new(FullDisk)));
            }
            let key = if keys.is_empty() || below(4) > 0 {
                vec![number as u8; longest - below(longest) / [1, 1_000][below(2)]]
            } else {
                let key: &Vec<u8> = &keys[below(keys.len())];
                key.clone()
            };
            match engine.put(DEFAULT_MAP, &key, &vec![0; below(2) * below(50)], None) {
                Ok(()) => keys.push(key),
                Err(Error::Full { .. }) if disk.is_some() => break,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        if let Some(key) = (!keys.is_empty()).then(|| keys[below(keys.len())].clone()) {
            let removed = engine.remove(DEFAULT_MAP, &key);
            assert!(matches!(removed, Ok(true)), "seed {seed}: a key of {} bytes: {removed:?}", key.len());
        }
        drop((pin, disk));
        assert!(engine.verify().unwrap().is_clean(), "seed {seed}");
    }
}

/// Recovered when its last extent had no room for it, a store has the record that begins its new life at the beginning
/// of another extent, and nothing behind it. What was cut off the extent that the log begins in is used again, by the
/// log itself as well.
#[test]
fn what_lies_before_the_head_is_not_the_logs() {
    let (_folder, path) = scratch();
    let limits = Limits { smallest_log: 64 << 10, usual_log: 64 << 10, ..Limits::tiny() };
    let settings = Settings { limits, auto_compact: None, ..Settings::default() };
    let engine = Engine::open(&path, settings.clone()).unwrap();
    for number in 0..40 {
        engine.put(DEFAULT_MAP, &key(number % 5), &[number as u8; 3_000], None).unwrap();
    }
    {
        let _turn = engine.turn().unwrap();
        while engine.head().unwrap().head.at < EXTENTS + (40 << 10) {
            let portion = clean::Portion { bytes: 1_000, leave_tail: false };
            engine.clean_and_reclaim(&mut engine.writer(), portion).unwrap();
        }
    }
    engine.checkpoint().unwrap();
    drop(engine);
    // Now the log goes on in extents that are as long as the record, and takes the lowest place that one fits into.
    let engine = Engine::open(&path, Settings { limits: Limits::tiny(), ..settings.clone() }).unwrap();
    let head = LogHead::of_superblock(&engine.superblock().unwrap());
    let begins = head.head.at / BLOCK * BLOCK;
    let is_used = |extent: &Extent| extent.is_log() && extent.ordinal > head.ordinal && extent.end() == begins;
    let value = vec![7; (begins - EXTENTS) as usize - 200];
    for number in 0..3 {
        engine.put(DEFAULT_MAP, &key(number), &value, None).unwrap();
    }
    assert!(engine.extents().unwrap().iter().any(is_used), "the log ends where it begins: {:?}", engine.extents());
    engine.sync().unwrap();
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let recovered = Engine::open(&copy, Settings { untrusted: true, ..settings }).unwrap();
    assert!(matches!(recovered.opened, recovery::Opened::AfterPowerCut { .. }), "{:?}", recovered.opened);
    assert!(content(&recovered) == content(&engine));
    assert!(recovered.verify().unwrap().is_clean());
}

#[test]
fn the_log_may_begin_with_a_new_life() {
    let (folder, path) = scratch();
    let limits = Limits { smallest_log: 64 << 10, usual_log: 64 << 10, ..Limits::tiny() };
    let settings = Settings { limits, auto_compact: None, ..Settings::default() };
    let engine = Engine::open(&path, settings.clone()).unwrap();
    some_log(&engine);
    let tail = engine.region.live(live::TAIL).unwrap();
    // So that 48 bytes are left of a block behind the record of the clear, which has 40.
    let filler = (4096 - 48 - 40 - 40 + 4096 - tail % 4096) % 4096;
    engine.put(DEFAULT_MAP, b"filler", &vec![1; filler as usize], None).unwrap();
    engine.clear(DEFAULT_MAP).unwrap();
    assert_eq!(engine.region.live(live::TAIL).unwrap() % 4096, 4048);
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let engine = Engine::open(&copy, settings.clone()).unwrap();
    {
        let _turn = engine.turn().unwrap();
        let mut writer = engine.writer();
        let portion = clean::Portion { bytes: 1 << 20, leave_tail: false };
        while engine.clean(&mut writer, portion).unwrap().passed > 0 {}
    }
    let first = log::record(&engine.region, engine.head().unwrap().head.at).unwrap();
    assert_eq!(first.kind(), Some(Kind::Incarnation));
    engine.checkpoint().unwrap();
    assert!(engine.verify().unwrap().is_clean(), "{:?}", engine.verify().unwrap().findings());
    let again = folder.path().join("again");
    fs::copy(&copy, &again).unwrap();
    let engine = Engine::open(&again, settings).unwrap();
    assert!(matches!(engine.opened, Opened::AfterPowerCut { .. }));
    engine.put(DEFAULT_MAP, b"key", b"value", None).unwrap();
    assert_eq!(content(&engine).len(), 1);
    assert!(engine.verify().unwrap().is_clean());
}

/// Closing takes bounded time: what is large is not moved for it.
#[test]
fn only_a_small_store_is_compacted_when_it_is_closed() {
    let (_folder, path) = scratch();
    for (values, len, is_small) in [(400, 4 << 10, true), (400, 64 << 10, false)] {
        let _ = fs::remove_file(&path);
        // A little more may be dead than is here, so that nothing is cleaned before.
        let engine = Engine::open(&path, Settings { auto_compact: Some(0.6), ..Settings::default() }).unwrap();
        for number in 0..values {
            engine.put(DEFAULT_MAP, format!("{number}").as_bytes(), &vec![1; len], None).unwrap();
        }
        for number in 0..values / 2 {
            engine.remove(DEFAULT_MAP, format!("{number}").as_bytes()).unwrap();
        }
        let file_len = engine.region.file_len().unwrap();
        assert_eq!(engine.head().unwrap().bytes, 0, "nothing was cleaned yet");
        engine.close().unwrap();
        let passed = engine.head().unwrap().bytes;
        let live = (values / 2 * len) as u64;
        assert_eq!(passed > 0, is_small, "{passed} bytes were passed");
        assert!(!is_small || engine.region.file_len().unwrap() < live * 3 / 2);
        assert!(engine.region.file_len().unwrap() <= file_len);
        let engine = Engine::open(&path, Settings::default()).unwrap();
        assert_eq!(content(&engine).len(), values / 2);
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// A time in a damaged file may be later than the system has times; Windows has fewer than others.
#[test]
fn any_number_is_some_time() {
    assert_eq!(time(1500).duration_since(UNIX_EPOCH).unwrap(), Duration::from_millis(1500));
    let _ = time(u64::MAX);
}

/// The number of a map that was dropped is not given to another: whoever still has a handle would write to that.
#[test]
fn map_numbers_end_and_everything_else_goes_on() {
    use crate::error::Numbers;
    use crate::file::layout::{CATALOGUE, MAX_MAP};

    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    let old = engine.create_named("old", 0, "types").unwrap().id;
    engine.put(CATALOGUE, b"", &MAX_MAP.to_le_bytes(), None).unwrap();
    let last = engine.create_named("last", 0, "types").unwrap().id;
    assert_eq!(last, MAX_MAP);
    engine.put(last, b"key", b"value", None).unwrap();
    assert!(engine.drop_named("old").unwrap());
    engine.sweep_dropped_maps().unwrap();
    let refused = |engine: &Arc<Engine>| {
        let refused = engine.create_named("one more", 0, "types");
        assert!(matches!(refused, Err(Error::NumbersExhausted { what: Numbers::Maps, .. })), "{refused:?}");
    };
    refused(&engine);
    assert!(matches!(engine.put(old, b"key", b"value", None), Err(Error::NoSuchMap { .. })));
    assert!(engine.rename_map("last", "renamed").unwrap());
    drop(engine);
    let engine = Arc::new(open(&path));
    refused(&engine);
    assert_eq!(engine.find_map("renamed").unwrap().unwrap().id, last);
    engine.put(last, b"key", b"newer", None).unwrap();
    assert!(engine.verify().unwrap().is_clean(), "{:?}", engine.verify().unwrap().findings());
}

/// A table that a write has moved stays where it is when the write itself comes to nothing, and readers may still be in
/// the one before.
#[test]
fn a_table_stays_in_force_when_the_write_that_moved_it_comes_to_nothing() {
    let (_folder, path) = scratch();
    let engine = Arc::new(Engine::open(&path, Settings { limits: Limits::tiny(), ..Settings::default() }).unwrap());
    for (word, rounds) in [(live::SPACE_TABLE, 400), (live::MAP_TABLE, 300)] {
        let before = engine.region.live(word).unwrap();
        let pin = engine.pin().unwrap();
        let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
        for number in 0..rounds {
            if word == live::SPACE_TABLE {
                batch.put(DEFAULT_MAP, &key(number), &[7; 5000], None).unwrap();
            } else if engine.map_table().unwrap().has_room(0).unwrap() {
                let entry = engine.index_in_force(DEFAULT_MAP).unwrap().extent();
                engine.map_table().unwrap().set_region(1000 + number, entry).unwrap();
            }
        }
        if word == live::MAP_TABLE {
            batch.first_region(2000).unwrap();
            for entry in engine.map_table().unwrap().iter().unwrap().filter(|entry| entry.map >= 1000) {
                engine.map_table().unwrap().remove(entry).unwrap();
            }
        }
        let after = engine.region.live(word).unwrap();
        assert_ne!(after, before, "it has moved");
        drop(batch);
        let kind = |word| {
            let at = crate::file::layout::extent_offset(word);
            engine.extents().unwrap().into_iter().find(|extent| extent.offset == at).map(|extent| extent.kind)
        };
        assert_eq!(kind(after), Some(ExtentKind::Table));
        assert_eq!(kind(before), Some(ExtentKind::Retired), "whoever reads may be in it");
        drop(pin);
        engine.put(DEFAULT_MAP, b"key", &[7; 50_000], None).unwrap();
        assert!(engine.verify().unwrap().is_clean(), "{:?}", engine.verify().unwrap().findings());
    }
}

/// Overwrites a few keys again and again, and says how many were refused since the store was full.
fn overwrite_full(engine: &Engine, times: u32) -> Vec<Error> {
    let put = |number: u32| engine.put(DEFAULT_MAP, &key(number % 200), &[number as u8; 1000], None);
    let refused: Vec<Error> = (0..times).filter_map(|number| put(number).err()).collect();
    assert!(refused.iter().all(|error| matches!(error, Error::Full { .. })), "{refused:?}");
    refused
}

/// Somebody holds the superblock for a while, like an opener who was stopped. A full store is cleaned again when he
/// goes on.
#[test]
fn upkeep_goes_on_when_the_superblock_is_free_again() {
    let (_folder, path) = scratch();
    let settings = Settings { max_size: 1 << 20, lock_timeout: Duration::from_millis(10), ..Settings::default() };
    let engine = Engine::open(&path, settings.clone()).unwrap();
    let other = Engine::open(&path, settings).unwrap();
    assert!(overwrite_full(&engine, 5000).is_empty());
    let held = other.lock_superblock(Duration::ZERO).unwrap();
    let rested = (0..100).any(|_| {
        overwrite_full(&engine, 10);
        engine.upkeep.rest.resting().is_some_and(|rest| rest.left().is_some() && rest.why.contains("checkpoint"))
    });
    assert!(rested);
    assert!(!overwrite_full(&engine, 300).is_empty());
    drop(held);
    while engine.upkeep.rest.goes_on() {
        std::thread::yield_now();
    }
    assert!(overwrite_full(&engine, 5000).is_empty());
    assert!(engine.upkeep.rest.resting().is_none());
}

/// A checkpoint takes as long as a flush. Whoever comes to one that is due and finds another at it goes on.
#[test]
fn nobody_who_writes_waits_for_the_checkpoint_of_another() {
    let (_folder, path) = scratch();
    let settings = Settings { checkpoint_every: 4096, ..Settings::default() };
    let engine = Arc::new(Engine::open(&path, settings).unwrap());
    let checkpoint = engine.lock_superblock(Duration::ZERO).unwrap();
    let (done, told) = std::sync::mpsc::channel();
    let of_thread = Arc::clone(&engine);
    let writer = std::thread::spawn(move || {
        for number in 0..100 {
            of_thread.put(DEFAULT_MAP, &key(number), &[1; 1000], None).unwrap();
        }
        done.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(60)).expect("the writer waits for the checkpoint");
    let generation = checkpoint.generation.get();
    drop(checkpoint);
    writer.join().unwrap();
    engine.put(DEFAULT_MAP, b"one more", &[1; 5000], None).unwrap();
    assert!(engine.superblock().unwrap().generation.get() > generation, "the next one takes it");
}

/// A map of the log whose number was never given out would become the next one that is made.
#[test]
fn a_log_with_records_of_a_map_that_was_never_made_is_refused() {
    let (_folder, path) = scratch();
    let engine = Arc::new(open(&path));
    let made = engine.create_named("made", 0, "types").unwrap().id;
    for (map, is_refused) in [(made, false), (made + 1, true)] {
        if is_refused {
            let _turn = engine.turn().unwrap();
            engine.create_map(&mut engine.writer(), map, 1, engine.next_seq().unwrap()).unwrap();
        }
        engine.put(map, b"key", b"value", None).unwrap();
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        let recovered = Engine::open(&copy, Settings::default());
        let refused = matches!(&recovered, Err(Error::Corrupt { what, .. }) if what.contains("records of map"));
        assert_eq!(refused, is_refused, "map {map}: {:?}", recovered.err());
    }
}

/// What a damaged map table calls a region is not gone over line by line.
#[test]
fn a_region_without_its_header_is_not_built_anew() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let of_log = crate::file::layout::extent_word(EXTENTS, 16);
    engine.map_table().unwrap().set_region(DEFAULT_MAP, of_log).unwrap();
    let _turn = engine.turn().unwrap();
    let mut writer = engine.writer();
    let refused = engine.rebuild_at_once(&mut writer, DEFAULT_MAP, 100, engine.next_seq().unwrap(), false);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{:?}", refused.err());
    let refused = engine.begin_resize(&mut writer, DEFAULT_MAP, 4, false, engine.next_seq().unwrap());
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

/// One opener makes the maps, and another drops them.
#[test]
fn maps_that_another_drops_do_not_pile_up() {
    let (_folder, path) = scratch();
    let (makes, drops) = (Arc::new(open(&path)), Arc::new(open(&path)));
    for number in 0..300 {
        let name = format!("map {number}");
        makes.create_named(&name, 0, "types").unwrap();
        assert!(drops.drop_named(&name).unwrap());
        let entries = drops.map_table().unwrap().iter().unwrap().count();
        assert!(entries <= 5, "{entries} maps are listed after {number} were dropped");
    }
}

/// A superblock can vouch for a commit that its writer has not shown yet, and then he is stopped, or killed.
#[test]
fn a_superblock_may_say_more_than_is_visible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let engine = open(&path);
    engine.put(DEFAULT_MAP, b"key", b"old", None).unwrap();
    let visible = engine.visible().unwrap();
    engine.put(DEFAULT_MAP, b"key", b"new", None).unwrap();
    engine.region.store_live(live::VISIBLE, visible, Ordering::SeqCst).unwrap();
    engine.checkpoint().unwrap();
    assert_eq!(engine.superblock().unwrap().next_seq.get(), visible + 2);

    let other = open(&path);
    assert_eq!(other.opened, Opened::Attached);
    let reader = Settings { access: Access::ReadOnly, ..Settings::default() };
    assert_eq!(Engine::open(&path, reader).unwrap().opened, Opened::Attached);
    other.put(DEFAULT_MAP, b"other", b"x", None).unwrap();
    assert_eq!(content(&other).len(), 2);
    assert_eq!(content(&engine), content(&other));
    assert!(other.verify().unwrap().is_clean());
}
