//! When space is reused, and how a store without free space behaves.

use std::collections::BTreeSet;

use super::*;
use crate::file::layout::{CATALOGUE, MapId, Offset};
use crate::file::mapping::FOLIO;

#[test]
fn space_is_not_reused_below_the_pin_of_a_snapshot() {
    let engine = in_memory();
    some_keys(&engine);
    let pin = engine.pin().unwrap();
    let old = engine.index(DEFAULT_MAP).unwrap().unwrap();
    grow_index(&engine, 0..2000);
    assert!(retired(&engine) >= 2, "the index grew, and the pin holds what it was");
    let seen = |slot: Result<crate::file::index::Slot>| {
        let newest = log::record(&engine.mapping, slot.unwrap().record.unwrap()).unwrap();
        engine.version_at(newest, pin.seq(), Moment::NOW).unwrap().is_some()
    };
    assert_eq!(old.iter().map(seen).filter(|&seen| seen).count(), 19, "what the pin holds is still there");
    drop(pin);
    grow_index(&engine, 2000..8000);
    assert!(retired(&engine) <= 1, "without the pin the space is used again");
}

/// In an extent that the log has entered, until its end.
#[test]
fn each_write_finds_the_folio_prepared_that_it_appends_to() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(&folder.path().join("store")));
    let (mut key, mut prepared) = (0u64, 0);
    for round in 0..1500 {
        let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
        for _ in 0..100 {
            key += 1;
            batch.put(DEFAULT_MAP, &key.to_le_bytes(), &[7; 100], None).unwrap();
        }
        batch.commit_as_usual().unwrap();
        engine.put(DEFAULT_MAP, b"single", &[7; 100], None).unwrap();
        let (writer, tail) = (engine.writer(), engine.mapping.live_offset(live::TAIL).unwrap());
        // The first extent was entered before the store was opened.
        if round > 100 {
            assert!(writer.prepared >= tail && (writer.prepared == Offset::MAX || writer.prepared <= writer.extent.1));
            assert!(
                writer.prepared < Offset::MAX || writer.extent.1 - tail <= FOLIO,
                "{tail:?} of {:?}",
                writer.extent
            );
            prepared += 1;
        }
    }
    assert!(prepared > 500, "{prepared}");
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
fn space_is_not_reused_below_a_short_read_and_is_behind_it() {
    let engine = in_memory();
    some_keys(&engine);
    let held = |work: &dyn Fn()| engine.read(DEFAULT_MAP, &key(1), |_, _| work()).unwrap().unwrap();
    // From now on the thread keeps a pin.
    held(&|| {});
    held(&|| {
        grow_index(&engine, 0..8000);
        assert!(retired(&engine) >= 2, "the index grew, and the read holds what it was");
    });
    grow_index(&engine, 20_000..80_000);
    assert!(retired(&engine) <= 1, "the pin that the thread keeps holds nothing");
}

#[test]
fn tombstones_that_nobody_needs_make_room_without_end() {
    let max_size = 256 << 10;
    let engine = Arc::new(Engine::in_memory(Settings { max_size, ..Settings::default() }).unwrap());
    // The index cannot grow when the file cannot; but there is always room for one key at a time.
    for number in 0..20_000 {
        engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
        assert!(engine.remove(DEFAULT_MAP, &key(number)).unwrap());
    }
    assert!(engine.verify().unwrap().is_clean());
}

/// A table that a write has moved stays where it is when the write itself fails, and readers may still be in the one
/// before.
#[test]
fn a_table_stays_in_force_when_the_write_that_moved_it_comes_to_nothing() {
    let (_folder, path) = scratch();
    let engine = Arc::new(Engine::open(&path, Settings { limits: Limits::tiny(), ..Settings::default() }).unwrap());
    for (word, rounds) in [(live::SPACE_TABLE, 400), (live::MAP_TABLE, 300)] {
        let before = engine.mapping.live(word).unwrap();
        let pin = engine.pin().unwrap();
        let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
        for number in 0..rounds {
            if word == live::SPACE_TABLE {
                batch.put(DEFAULT_MAP, &key(number), &[7; 5000], None).unwrap();
            } else if engine.map_table().unwrap().has_room(&BTreeSet::from([CATALOGUE])).unwrap() {
                let entry = engine.index_in_force(DEFAULT_MAP).unwrap().extent();
                engine.map_table().unwrap().set_region(MapId(1000 + number), entry).unwrap();
            }
        }
        if word == live::MAP_TABLE {
            engine.lend_writing().make_map_room(&BTreeSet::from([MapId(2000)])).unwrap();
            for entry in engine.map_table().unwrap().iter().unwrap().filter(|entry| entry.map >= MapId(1000)) {
                engine.map_table().unwrap().remove(entry).unwrap();
            }
        }
        let after = engine.mapping.live(word).unwrap();
        assert_ne!(after, before, "it has moved");
        drop(batch);
        let kind = |word| {
            let at = Offset::of_extent_word(word);
            engine.extents().unwrap().into_iter().find(|extent| extent.offset == at).map(|extent| extent.kind)
        };
        assert_eq!(kind(after), Some(ExtentKind::Table));
        assert_eq!(kind(before), Some(ExtentKind::Retired), "whoever reads may be in it");
        drop(pin);
        engine.put(DEFAULT_MAP, b"key", &[7; 50_000], None).unwrap();
        assert!(engine.verify().unwrap().is_clean(), "{:?}", engine.verify().unwrap().findings());
    }
}
