//! When a store is resized, cleaned and compacted, and when that rests.

use super::*;

/// An index that is being built belongs to no commit, so a rollback does not affect it.
#[test]
fn a_rollback_leaves_a_resize_alone() {
    let engine = in_memory();
    nearly_full(&engine);
    let turn = engine.turn().unwrap();
    let mut writing = turn.write();
    writing.begin_resize(DEFAULT_MAP, 3, Tombstones::Kept).unwrap();
    let target = engine.resize_target().unwrap().unwrap();
    writing.abandon().unwrap();
    assert_eq!(writing.writer.space.extent(target).map(|extent| extent.kind), Some(ExtentKind::Index));
}

/// Closing takes bounded time: a large store is not moved for it.
#[test]
fn only_a_small_store_is_compacted_when_it_is_closed() {
    let (_folder, path) = scratch();
    for (values, len, is_small) in [(400, 4 << 10, true), (400, 64 << 10, false)] {
        let _ = fs::remove_file(&path);
        // The limit is a little above what is dead here, so that nothing is cleaned before.
        let engine = Engine::open(&path, Settings { auto_compact: Some(0.6), ..Settings::default() }).unwrap();
        for number in 0..values {
            engine.put(DEFAULT_MAP, format!("{number}").as_bytes(), &vec![1; len], None).unwrap();
        }
        for number in 0..values / 2 {
            engine.remove(DEFAULT_MAP, format!("{number}").as_bytes()).unwrap();
        }
        let file_len = engine.mapping.file_len().unwrap();
        assert_eq!(engine.head().unwrap().bytes, 0, "nothing was cleaned yet");
        engine.close().unwrap();
        let passed = engine.head().unwrap().bytes;
        let live = (values / 2 * len) as u64;
        assert_eq!(passed > 0, is_small, "{passed} bytes were passed");
        assert!(!is_small || engine.mapping.file_len().unwrap() < live * 3 / 2);
        assert!(engine.mapping.file_len().unwrap() <= file_len);
        let engine = Engine::open(&path, Settings::default()).unwrap();
        assert_eq!(content(&engine).len(), values / 2);
        assert!(engine.verify().unwrap().is_clean());
    }
}

/// Overwrites a few keys again and again, and returns the errors of a full store.
fn overwrite_full(engine: &Engine, times: u32) -> Vec<Error> {
    let put = |number: u32| engine.put(DEFAULT_MAP, &key(number % 200), &[number as u8; 1000], None);
    let refused: Vec<Error> = (0..times).filter_map(|number| put(number).err()).collect();
    assert!(refused.iter().all(|error| matches!(error, Error::Full { .. })), "{refused:?}");
    refused
}

/// The superblock lock is held for a while, as by a stopped opener. A full store is cleaned again once it is released.
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
