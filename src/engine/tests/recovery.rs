//! What the next opener makes of a file whose writer was killed, or after a power cut.

use super::*;
use crate::engine::state::head::{self, LogHead};
use crate::file::layout::{Kind, Offset, Seq};
use crate::file::log::Entry;
use crate::file::space::Extent;

/// Its writer was killed when the file had become longer and the seal was still at its old end.
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
    let is_known = engine.mapping.identity().is_some();
    assert!(!is_known || engine.opened == Opened::AfterKill, "{:?}", engine.opened);
    engine.put(DEFAULT_MAP, b"more", b"value", None).unwrap();
    assert!(engine.verify().unwrap().is_clean());
    // Beside a reader, the space that was taken for nothing is not given back.
    let reader = Engine::open(&killed, Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap();
    engine.close().unwrap();
    assert!(engine.mapping.len() > before);
    drop(reader);
    // In another page cache, the live area is not believed.
    let mut image = fs::read(&killed).unwrap();
    image[live::IDENTITY as usize] ^= 1;
    fs::write(&killed, &image).unwrap();
    let engine = open(&killed);
    assert_eq!((engine.opened, content(&engine).len()), (Opened::Clean, expected.len() + 1));
}

/// The reader may have taken for a commit what its writer did not commit, and what a recovery after the kill undoes.
#[test]
fn what_a_reader_has_recovered_is_not_undone() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let tape = Arc::new(Tape::default());
    let mut image = fs::read(&path).unwrap();
    engine.mapping.set_recorder(tape.clone());
    engine.put(DEFAULT_MAP, b"appended", b"value", None).unwrap();
    // Everything before the seal and the commit point.
    for event in &*tape.0.lock().unwrap() {
        if matches!(event, Event::Write(at, _) if *at >= EXTENTS && *at + BLOCK >= image.len() as u64) {
            break;
        }
        replay(&mut image, event);
    }
    let killed = folder.path().join("killed");
    // Another page cache, as far as an opener can tell.
    fs::write(&killed, &image).unwrap();
    let settings = Settings { access: settings::Access::ReadOnly, ..Settings::default() };
    let reader = Engine::open(&killed, settings).unwrap();
    assert!(content(&reader).contains_key(&b"appended"[..]));
    let mut file = File::options().read(true).write(true).open(&killed).unwrap();
    let again = file.try_clone().unwrap();
    let mapping = Mapping::of_file(again, killed.clone(), Protection::ReadOnly, u64::MAX).unwrap();
    let Some(identity) = mapping.identity() else { return };
    file.seek(SeekFrom::Start(live::IDENTITY)).unwrap();
    identity.into_iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    let refused = Engine::open(&killed, Settings::default()).err().unwrap();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    drop(reader);
    let writer = open(&killed);
    assert_eq!(writer.opened, Opened::AfterKill);
    assert!(!content(&writer).contains_key(&b"appended"[..]));
}

/// No other process can be in a private copy, so all traces of dead ones are removed from it.
#[test]
fn a_private_copy_forgets_the_dead() {
    let (folder, path) = scratch();
    let (store, other) = (open(&path), open(&path));
    some_keys(&store);
    other.put(DEFAULT_MAP, b"of the other", b"value", None).unwrap();
    let pin = other.pin().unwrap();
    if store.mapping.identity().is_none() {
        // Without an identity every opener would recover.
        return;
    }
    let killed = folder.path().join("killed");
    put_back(&killed, &fs::read(&path).unwrap());
    let before = fs::read(&killed).unwrap();
    let entries = |mapping: &Mapping| -> Vec<u64> {
        (0..PROCESSES).filter(|&entry| entries::read(mapping, entry).unwrap().is_some()).collect()
    };
    assert_eq!(entries(&store.mapping), [0, 1]);
    let settings = Settings { access: settings::Access::CopyOnWrite, ..Settings::default() };
    let copy = Engine::open(&killed, settings).unwrap();
    assert_eq!((copy.opened, entries(&copy.mapping)), (Opened::AfterKill, vec![0]), "only its own");
    assert_eq!(copy.pins_in_use().unwrap().0, 0);
    assert_eq!(content(&copy), content(&store));
    copy.close().unwrap();
    assert!(fs::read(&killed).unwrap() == before);
    drop(pin);
}

/// An intact record with the right number, but another chain than that of the record before it, is from another life.
#[test]
fn a_walk_stops_at_a_record_of_another_chain() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let expected = content(&engine);
    let seq = engine.lend_writing().seq().unwrap();
    let mut tail = engine.lend_writing().tail().unwrap();
    tail.chain ^= 1;
    let (key, value) = (&b"stale"[..], &b"stale"[..]);
    let flags = crate::file::layout::flags::COMMIT | crate::file::layout::flags::NEW;
    let stale = Entry {
        kind: Kind::Put,
        flags,
        seq,
        prev: Offset::NONE,
        map: DEFAULT_MAP,
        expires: None,
        shortcut: None,
        key,
        value,
    };
    tail.append(&engine.mapping, &stale).unwrap();
    let copy = open(&copied(&path));
    assert_eq!(content(&copy), expected);
}

/// The records of an incomplete transaction are intact and in order, but do not count.
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
    let copy = open(&copied(&path));
    assert_eq!(content(&copy), expected);
}

/// The clean flag says that the index can be trusted. It must be gone before that stops being true.
#[test]
fn a_change_takes_the_clean_flag_from_the_disk_first() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    drop(engine);
    let engine = open(&path);
    assert_eq!(engine.opened, Opened::Clean);
    let tape = Arc::new(Tape::default());
    engine.mapping.set_recorder(tape.clone());
    engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap();
    let events = tape.0.lock().unwrap().clone();
    let flush = events.iter().position(|event| matches!(event, Event::Flush)).unwrap();
    let before_seal = EXTENTS..fs::metadata(&path).unwrap().len() - BLOCK;
    let is_append = |event: &Event| matches!(event, Event::Write(at, _) if before_seal.contains(at));
    let record = events.iter().position(is_append).unwrap();
    assert!(flush < record, "the flag has to be flushed away before anything is appended");
    let copy = open(&copied(&path));
    assert!(matches!(copy.opened, Opened::AfterPowerCut { .. }), "{:?}", copy.opened);
    assert_eq!(content(&copy), content(&engine));
}

/// A writer that died just before its commit point leaves an intact commit, which must never be seen.
#[test]
fn what_a_dead_writer_left_is_never_taken_for_a_commit() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let expected = content(&engine);
    let turn = engine.turn().unwrap();
    let mut tail = engine.lend_writing().tail().unwrap();
    let flags = crate::file::layout::flags::COMMIT | crate::file::layout::flags::NEW;
    let seq = engine.lend_writing().seq().unwrap();
    let dead = Entry {
        kind: Kind::Put,
        flags,
        seq,
        prev: Offset::NONE,
        map: DEFAULT_MAP,
        expires: None,
        shortcut: None,
        key: b"dead",
        value: b"dead",
    };
    tail.append(&engine.mapping, &dead).unwrap();
    // The lock word is as after clearing up behind a dead writer; the lock of this process continues.
    engine.left_something.store(true, Ordering::SeqCst);
    drop(turn);

    assert!(!engine.remove(DEFAULT_MAP, b"dead").unwrap(), "the next writer comes, and goes without a commit");
    let copy = open(&copied(&path));
    assert_eq!(content(&copy), expected, "the power is cut after that");
    engine.put(DEFAULT_MAP, b"next", b"", None).unwrap();
    let lines = engine.lines_at(DEFAULT_MAP, Seq::MAX).unwrap().unwrap();
    let wanted = log::Wanted { map: DEFAULT_MAP, key: b"next", seq: Seq::MAX };
    let next = engine.lookup(lines, wanted, Moment::NOW).unwrap().unwrap();
    assert!(next.seq() > seq, "the number of the dead one is skipped");
}

/// A copy that is opened for reading has only the superblock to say that an index is being built.
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
    let engine = Engine::open(&copied(&path), Settings { access: Access::ReadOnly, ..Settings::default() }).unwrap();
    assert!(!engine.is_live().unwrap());
    let report = engine.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.findings());
}

/// The part that was cut off the first extent of the log is reused, by the log itself as well.
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
        while engine.head().unwrap().head.at < Offset::EXTENTS + (40 << 10) {
            let portion = clean::Portion { bytes: 1_000, aim: clean::Aim::Upkeep };
            engine.lend_writing().clean_and_reclaim(portion).unwrap();
        }
    }
    engine.checkpoint().unwrap();
    drop(engine);
    // Now the log continues in extents as long as the record, at the lowest place that one fits into.
    let engine = Engine::open(&path, Settings { limits: Limits::tiny(), ..settings.clone() }).unwrap();
    let head = LogHead::of_superblock(&engine.superblock().unwrap());
    let begins = head.head.at.align_down(BLOCK);
    let is_used = |extent: &Extent| extent.is_log() && extent.ordinal > head.ordinal && extent.end() == begins;
    let value = vec![7; (begins - Offset::EXTENTS) as usize - 200];
    for number in 0..3 {
        engine.put(DEFAULT_MAP, &key(number), &value, None).unwrap();
    }
    assert!(engine.extents().unwrap().iter().any(is_used), "the log ends where it begins: {:?}", engine.extents());
    engine.sync().unwrap();
    let recovered = Engine::open(&copied(&path), Settings { untrusted: true, ..settings }).unwrap();
    assert!(matches!(recovered.opened, Opened::AfterPowerCut { .. }), "{:?}", recovered.opened);
    assert!(content(&recovered) == content(&engine));
    assert!(recovered.verify().unwrap().is_clean());
}

/// Its index would be too large if moved or replaced records were counted again.
#[test]
fn a_recovery_counts_a_key_once() {
    const KEYS: u32 = 2_000;

    let (_folder, path) = scratch();
    let engine = open(&path);
    for number in (0..KEYS).chain(0..KEYS / 2) {
        engine.put(DEFAULT_MAP, &key(number), b"value", None).unwrap();
    }
    {
        let turn = engine.turn().unwrap();
        let mut writing = turn.write();
        let (end, head) = (engine.mapping.live_offset(live::TAIL).unwrap(), engine.head().unwrap().head.at);
        let portion = clean::Portion { bytes: 1 << 20, aim: clean::Aim::Compaction };
        while (head..end).contains(&engine.head().unwrap().head.at) {
            writing.clean(portion).unwrap();
        }
    }
    let recovered = open(&copied(&path));
    // Put, replaced and moved: the superblock still has the log begin at the old place.
    let all = u64::from(KEYS + KEYS / 2 + KEYS);
    assert!(matches!(recovered.opened, Opened::AfterPowerCut { records, .. } if records >= all));
    let index = recovered.index(DEFAULT_MAP).unwrap().unwrap();
    assert_eq!(index.totals().unwrap().keys, u64::from(KEYS));
    assert_eq!(index.blocks(), crate::file::index::blocks_for(u64::from(KEYS)));
}

/// Recovered when its last extent had no room for it, a store has the record that begins its new life at the beginning
/// of another extent, and nothing after it.
#[test]
fn the_log_may_begin_with_a_new_life() {
    let (folder, path) = scratch();
    let limits = Limits { smallest_log: 64 << 10, usual_log: 64 << 10, ..Limits::tiny() };
    let settings = Settings { limits, auto_compact: None, ..Settings::default() };
    let engine = Engine::open(&path, settings.clone()).unwrap();
    some_log(&engine);
    let tail = engine.mapping.live(live::TAIL).unwrap();
    // Leaves 48 bytes of a block after the record of the clear, which has 40.
    let filler = (4096 - 48 - 40 - 40 + 4096 - tail % 4096) % 4096;
    engine.put(DEFAULT_MAP, b"filler", &vec![1; filler as usize], None).unwrap();
    engine.clear(DEFAULT_MAP).unwrap();
    assert_eq!(engine.mapping.live(live::TAIL).unwrap() % 4096, 4048);
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let engine = Engine::open(&copy, settings.clone()).unwrap();
    {
        let turn = engine.turn().unwrap();
        let mut writing = turn.write();
        let portion = clean::Portion { bytes: 1 << 20, aim: clean::Aim::Upkeep };
        while writing.clean(portion).unwrap().passed > 0 {}
    }
    let first = log::record(&engine.mapping, engine.head().unwrap().head.at).unwrap();
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

/// A superblock can vouch for a commit that its writer has not shown yet when it is stopped, or killed.
#[test]
fn a_superblock_may_say_more_than_is_visible() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let engine = open(&path);
    engine.put(DEFAULT_MAP, b"key", b"old", None).unwrap();
    let visible = engine.visible().unwrap();
    engine.put(DEFAULT_MAP, b"key", b"new", None).unwrap();
    engine.mapping.store_live(live::VISIBLE, visible.0, Ordering::SeqCst).unwrap();
    engine.checkpoint().unwrap();
    assert_eq!(engine.superblock().unwrap().next_seq(), visible.next().next());

    let other = open(&path);
    assert_eq!(other.opened, Opened::Attached);
    let reader = Settings { access: Access::ReadOnly, ..Settings::default() };
    assert_eq!(Engine::open(&path, reader).unwrap().opened, Opened::Attached);
    other.put(DEFAULT_MAP, b"other", b"x", None).unwrap();
    assert_eq!(content(&other).len(), 2);
    assert_eq!(content(&engine), content(&other));
    assert!(other.verify().unwrap().is_clean());
}

/// Whatever the live area says, no superblock is written that no opening would accept.
#[test]
fn a_superblock_that_contradicts_itself_is_not_written() {
    let (folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let expected = content(&engine);
    let head = engine.head().unwrap();
    let damaged = LogHead { head: log::Head { seq: Seq(1), ..head.head }, ..head };
    head::publish(&engine.mapping, &damaged).unwrap();
    let error = engine.checkpoint().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let engine = open(&copy);
    assert_eq!(content(&engine), expected);
    assert!(engine.verify().unwrap().is_clean());
}
