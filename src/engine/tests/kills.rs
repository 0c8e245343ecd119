//! A process is killed before each store of a change: the next one finds the content from before it or after it.

use std::ops::Range;

use super::faults::seal_agrees;
use super::*;
use crate::file::layout::KeyHash;

/// Kills the process before each store that `change` makes, and once more after the last, and takes over. Then the
/// content must be that before or after the change, the latter for sure once the commit point is stored; the store must
/// verify clean and accept another change.
fn killed_at_every_store(prepare: impl Fn(&Engine), change: impl Fn(&Arc<Engine>)) {
    let (before, after, seen_before, seen_after) = killed_with(&Settings::default(), prepare, change);
    assert_ne!(before, after, "the change changes something");
    assert!(seen_before && seen_after);
}

/// The same with other settings. Returns the contents before and after, and whether each was seen.
fn killed_with(
    settings: &Settings,
    prepare: impl Fn(&Engine),
    change: impl Fn(&Arc<Engine>),
) -> (Content, Content, bool, bool) {
    killed_before(settings, prepare, change, |engine, expected| {
        engine.put(DEFAULT_MAP, b"next", b"one", None).unwrap();
        expected.insert(b"next".to_vec(), b"one".to_vec());
    })
}

/// The same, where the one who takes over begins with what `next` does.
fn killed_before(
    settings: &Settings,
    prepare: impl Fn(&Engine),
    change: impl Fn(&Arc<Engine>),
    next: impl Fn(&Arc<Engine>, &mut Content),
) -> (Content, Content, bool, bool) {
    let (_folder, path) = scratch();
    let open = |path: &Path| Engine::open(path, settings.clone()).unwrap();
    let engine = Arc::new(open(&path));
    prepare(&engine);
    let (before, seen) = (content(&engine), engine.visible().unwrap());
    let base = fs::read(&path).unwrap();
    let tape = Arc::new(Tape::default());
    engine.mapping.set_recorder(tape.clone());
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
                // A copy is another file: only its log is believed.
                fs::copy(&killed, path.with_extension("copy")).unwrap();
                fs::rename(path.with_extension("copy"), &killed).unwrap();
            }
            let in_doubt = !seal_agrees(&image);
            // The doubt lasts for one store, or for those that move the seal or put a superblock in force.
            let seal_is_stored = number > 0
                && match events[number - 1] {
                    Event::SetLen(_) => true,
                    Event::Write(at, _) => {
                        at >= EXTENTS && at % BLOCK <= seal::CLOSED
                            || [live::SEAL_AT, live::SUPERBLOCK, live::DURABLE_HEAD].contains(&at)
                    }
                    _ => false,
                };
            assert!(!in_doubt || seal_is_stored, "{note}: the seal is not what was last stored");
            let engine = Arc::new(open(&killed));
            match engine.opened {
                Opened::AfterKill => assert!(!power_cut && !in_doubt, "{note}"),
                Opened::AfterPowerCut { .. } => {
                    assert!(power_cut || in_doubt || engine.mapping.identity().is_none(), "{note}");
                }
                other => panic!("{note}: {other:?}"),
            }
            let found = content(&engine);
            assert!(found == before || found == after, "{note}: {found:?}");
            assert!(!committed || found == after, "{note}: the commit point was stored, and the commit is lost");
            seen_before |= found == before;
            seen_after |= found == after;
            if engine.opened == Opened::AfterKill {
                let is_told = engine.wait_for_change(seen, Duration::ZERO).unwrap();
                assert_eq!(is_told, found != before, "{note}: told as a change or not");
            }
            let report = engine.verify().unwrap();
            assert!(report.is_clean(), "{note}: {:?}", report.findings());
            // Leftovers of the dead writer must not come back with the next commit.
            let mut expected = found;
            next(&engine, &mut expected);
            assert_eq!(content(&engine), expected, "{note}");
            let report = engine.verify().unwrap();
            assert!(report.is_clean(), "{note}, and then: {:?}", report.findings());
        }
        if let Some(event) = events.get(number) {
            replay(&mut image, event);
            // Giving up stores that word too, with the old end, to skip a number.
            committed |= matches!(event, Event::Write(live::COMMIT_POINT, bytes) if end(word(bytes)) != old_end);
        }
    }
    (before, after, seen_before, seen_after)
}

/// Kills a store with tiny steps of upkeep at every store of a change that leaves the content as it is.
fn killed_in_upkeep(prepare: impl Fn(&Engine), change: impl Fn(&Arc<Engine>)) {
    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let (before, after, ..) = killed_with(&settings, prepare, change);
    assert_eq!(before, after);
}

#[test]
fn a_kill_at_any_store_of_a_resize() {
    killed_in_upkeep(nearly_full, |engine| {
        let turn = engine.turn().unwrap();
        let mut writing = turn.write();
        let blocks = crate::file::index::blocks_for(600);
        writing.begin_resize(DEFAULT_MAP, blocks, Tombstones::Dropped).unwrap();
        let mut steps = 1;
        while writing.step_resize(Step { blocks: 1, lines: 8 }).unwrap() != Stepped::Switched {
            steps += 1;
        }
        writing.skip_number().unwrap();
        assert!(steps > 8);
    });
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
        engine.lend_writing().give_tables_back_at_last().unwrap();
        assert_eq!(kinds(engine, ExtentKind::Live), 0);
    });
    // As an opener does it, without a turn.
    killed_in_upkeep(prepare, |engine| {
        engine.lend_writing().give_tables_back().unwrap();
        assert_eq!(kinds(engine, ExtentKind::Live), 0);
    });
}

/// A live key of a store that is [`nearly_full`], whose slot lies in `lines`.
fn key_of_lines(engine: &Engine, lines: &Range<u64>) -> Vec<u8> {
    let index = engine.index(DEFAULT_MAP).unwrap().unwrap();
    let line_of = |key: &[u8]| {
        let slot = engine.probe(&index, DEFAULT_MAP, KeyHash::of(key, engine.seed), key).unwrap();
        slot.unwrap().at().line()
    };
    (9..279).map(key).find(|key| lines.contains(&line_of(key))).unwrap()
}

#[test]
fn a_kill_at_any_store_of_changes_during_a_resize() {
    // The lines of the last step. Those before them were moved, those after them were not.
    const LAST_STEP: Range<u64> = 16..32;
    const NOT_MOVED: Range<u64> = 40..u64::MAX;

    let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
    let prepare = |engine: &Engine| {
        nearly_full(engine);
        let mut writing = engine.lend_writing();
        let blocks = crate::file::index::blocks_for(600);
        writing.begin_resize(DEFAULT_MAP, blocks, Tombstones::Dropped).unwrap();
        // All zeroed, and half of the lines moved.
        writing.step_resize(Step { blocks: 99, lines: 0 }).unwrap();
        writing.step_resize(Step { blocks: 0, lines: LAST_STEP.end }).unwrap();
    };
    // The same, after a last step that was cut short before it could record its progress.
    let prepare_half_a_step = |engine: &Engine| {
        prepare(engine);
        let cursor = crate::file::layout::resize_cursor(DEFAULT_MAP, LAST_STEP.start, true);
        engine.mapping.store_live(live::RESIZE_CURSOR, cursor, Ordering::Release).unwrap();
    };
    let changes: [fn(&Engine); 6] = [
        |engine| engine.put(DEFAULT_MAP, &key_of_lines(engine, &LAST_STEP), b"another", None).unwrap(),
        |engine| engine.put(DEFAULT_MAP, &key_of_lines(engine, &NOT_MOVED), b"another", None).unwrap(),
        |engine| engine.put(DEFAULT_MAP, b"new", b"value", None).unwrap(),
        |engine| engine.put(DEFAULT_MAP, &key(3), b"over a tombstone that may be left out", None).unwrap(),
        |engine| assert!(engine.remove(DEFAULT_MAP, &key_of_lines(engine, &LAST_STEP)).unwrap()),
        |engine| assert!(engine.remove(DEFAULT_MAP, &key_of_lines(engine, &NOT_MOVED)).unwrap()),
    ];
    for change in changes {
        for prepare in [&prepare as &dyn Fn(&Engine), &prepare_half_a_step] {
            let (before, after, seen_before, seen_after) = killed_with(&settings, prepare, |engine| change(engine));
            assert_ne!(before, after);
            assert!(seen_before && seen_after);
        }
    }
}

/// Puts so many new keys at once.
fn put_many(engine: &Arc<Engine>, keys: Range<u32>, expected: &mut Content) {
    let mut batch = Batch::begin(Arc::clone(engine)).unwrap();
    for number in keys {
        batch.put(DEFAULT_MAP, &key(number), b"one of many", None).unwrap();
        expected.insert(key(number), b"one of many".to_vec());
    }
    batch.commit(Durability::Buffered).unwrap();
}

/// Whoever takes over begins with a transaction that needs an index of its own, which may come to lie where the one lay
/// that a resize had begun with.
#[test]
fn a_kill_at_any_store_of_a_clear_during_a_resize() {
    let prepare = |engine: &Engine| {
        for number in 0..1000 {
            engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
        }
        let mut writing = engine.lend_writing();
        writing.begin_resize(DEFAULT_MAP, crate::file::index::blocks_for(1300), Tombstones::Kept).unwrap();
        writing.step_resize(Step { blocks: 99, lines: 0 }).unwrap();
        writing.step_resize(Step { blocks: 0, lines: 100 }).unwrap();
    };
    for many in [300, 500, 700] {
        let clear = |engine: &Arc<Engine>| engine.clear(DEFAULT_MAP).unwrap();
        killed_before(&Settings::default(), prepare, clear, |engine, expected| {
            put_many(engine, 10_000..10_000 + many, expected);
            // Until what is being built is in force.
            for _ in 0..40 {
                engine.put(DEFAULT_MAP, b"next", b"one", None).unwrap();
            }
            expected.insert(b"next".to_vec(), b"one".to_vec());
        });
    }
}

#[test]
fn a_kill_at_any_store_of_cleaning() {
    killed_in_upkeep(some_log, |engine| {
        let before = engine.head().unwrap();
        let turn = engine.turn().unwrap();
        let mut writing = engine.lend_writing();
        for _ in 0..8 {
            let portion = clean::Portion { bytes: 2000, aim: clean::Aim::Upkeep };
            writing.clean_and_reclaim(portion).unwrap();
        }
        drop(writing);
        drop(turn);
        let after = engine.head().unwrap();
        assert!(before.head.at + BLOCK < after.head.at);
        assert!(kinds(engine, ExtentKind::Emptied) > 0);
    });
}

#[test]
fn a_kill_at_any_store_of_cleaning_with_checkpoints_and_reuse() {
    killed_in_upkeep(some_log, |engine| {
        let before = engine.mapping.len();
        for _ in 0..5 {
            let turn = engine.turn().unwrap();
            let mut writing = engine.lend_writing();
            let portion = clean::Portion { bytes: 3000, aim: clean::Aim::Upkeep };
            writing.clean_and_reclaim(portion).unwrap();
            drop(writing);
            drop(turn);
            engine.checkpoint().unwrap();
        }
        assert!(engine.mapping.len() <= before + 8192, "what was emptied is used again");
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
