//! When a store is resized, cleaned and compacted, and when that rests.

use std::collections::HashMap;

use super::faults::support::{Random, setting};
use super::*;
use crate::file::layout::KeyHash;

/// Keys of which each has the same hash as another one as far as a slot and a line of the smallest index can tell, and
/// more than a line has slots for that begin in the same line.
fn keys_that_collide(engine: &Engine) -> Vec<Vec<u8>> {
    let lines = engine.index(DEFAULT_MAP).unwrap().unwrap().lines();
    let mut found: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let (mut pairs, mut of_a_line) = (Vec::new(), Vec::new());
    for number in 0..400_000u32 {
        let key = number.to_le_bytes().to_vec();
        let hash = KeyHash::of(&key, engine.seed);
        if hash.line(lines) == 5 && of_a_line.len() < 40 {
            of_a_line.push(key.clone());
        }
        if let Some(other) = found.insert((hash.tag(), hash.line(lines)), key.clone()) {
            pairs.extend([key, other]);
        }
    }
    assert!(pairs.len() > 20, "{} keys", pairs.len());
    pairs.extend(of_a_line);
    pairs.sort();
    pairs.dedup();
    pairs
}

/// Where many keys have the same hash, each is moved by cleaning as long as it is alive, and no longer.
#[test]
fn keys_that_collide_are_told_apart_by_cleaning() {
    let seed = setting("SLOTLOG_TEST_SEED", 1);
    for seed in seed..seed + setting("SLOTLOG_TEST_ROUNDS", 4) {
        let mut random = Random(seed);
        let (_folder, path) = scratch();
        let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
        let engine = Arc::new(Engine::open(&path, settings).unwrap());
        let keys = keys_that_collide(&engine);
        let (mut expected, mut held) = (Content::new(), Vec::new());
        for step in 0..4000u32 {
            let key = &keys[random.below(keys.len() as u64) as usize];
            if random.one_in(3) {
                assert_eq!(engine.remove(DEFAULT_MAP, key).unwrap(), expected.remove(key).is_some());
            } else {
                let value = vec![step as u8; random.below(90) as usize];
                engine.put(DEFAULT_MAP, key, &value, None).unwrap();
                expected.insert(key.clone(), value);
            }
            if random.one_in(300) {
                held.push(engine.pin().unwrap());
            }
            if held.len() > 2 {
                held.clear();
            }
            if step % 50 == 0 {
                assert_eq!(content(&engine), expected, "seed {seed}, step {step}");
                let report = engine.verify().unwrap();
                assert!(report.is_clean(), "seed {seed}, step {step}: {:?}", report.findings());
            }
        }
        assert!(engine.head().unwrap().bytes > 20_000, "the log was cleaned");
    }
}

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
