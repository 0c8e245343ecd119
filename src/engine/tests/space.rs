//! When space is used again, and what a store does that has none left.

use std::sync::atomic::AtomicU64;

use super::*;

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
