//! A damaged or closed file's claims about itself are not believed, and `verify` finds them.

use super::*;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::file::index::Probe;
use crate::file::layout::{KeyHash, MapId, Offset, extent_word};

/// The live area of a closed store is whatever the disk has of it. A reader takes it for a writer's only once there is
/// a writer.
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

/// The live area of a closed store may name writers and readers; there are none.
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

/// A damaged word must not make a write go to the wrong place as part of a table.
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
        // No such length, before the extents, beyond the end of the file.
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
        engine.mapping.write(Offset(place + 200), b"damage").unwrap();
        let report = engine.verify().unwrap();
        assert_eq!(report.findings().iter().map(|finding| finding.offset).collect::<Vec<_>>(), [place]);
    }
}

/// Reads take the size of a region from the map table, so `verify` must compare that with the region.
#[test]
fn verify_finds_a_region_of_another_size_than_the_map_table_says() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    assert!(engine.verify().unwrap().is_clean());
    let table = crate::file::layout::extent_offset(engine.mapping.live(live::MAP_TABLE).unwrap());
    // The second word in the entry of the default map: the block count.
    let word = table + crate::file::layout::TABLE_HEADER + crate::file::layout::MAP_ENTRY + 8;
    let damaged = engine.mapping.load(word).unwrap() + (1 << 32);
    engine.mapping.store(word, damaged, Ordering::Release).unwrap();
    assert!(!engine.verify().unwrap().is_clean());
}

/// A commit after a wrong chain would be lost to every later walk, with all that follows it.
#[test]
fn verify_finds_a_chain_that_the_next_commit_would_break() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    assert!(engine.verify().unwrap().is_clean(), "an empty log");
    some_keys(&engine);
    assert!(engine.verify().unwrap().is_clean());
    let chain = engine.mapping.live(live::CHAIN).unwrap();
    engine.mapping.store_live(live::CHAIN, chain ^ 1, Ordering::Release).unwrap();
    assert!(!engine.verify().unwrap().is_clean());
}

/// A time in a damaged file may be later than any that the system can represent; Windows has fewer than others.
#[test]
fn any_number_is_some_time() {
    assert_eq!(time(1500).duration_since(UNIX_EPOCH).unwrap(), Duration::from_millis(1500));
    let _ = time(u64::MAX);
}

/// An alleged region in a damaged map table is not rebuilt line by line.
#[test]
fn a_region_without_its_header_is_not_built_anew() {
    let (_folder, path) = scratch();
    let engine = open(&path);
    some_keys(&engine);
    let of_log = crate::file::layout::extent_word(EXTENTS, 16);
    engine.map_table().unwrap().set_region(DEFAULT_MAP, of_log).unwrap();
    let turn = engine.turn().unwrap();
    let mut writing = turn.write();
    let refused = writing.rebuild_at_once(DEFAULT_MAP, 100, writing.seq().unwrap(), Tombstones::Kept);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{:?}", refused.err());
    let refused = writing.begin_resize(DEFAULT_MAP, 4, Tombstones::Kept);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

/// The record of a slot is compared with the key and with the map, on the short path as well.
#[test]
fn a_slot_that_points_at_another_key_or_into_another_map_shows_none_of_it() {
    let engine = in_memory();
    let other = engine.create_named("other", 0, "types").unwrap().id;
    let slot = |map: MapId, key: &[u8]| {
        let index = engine.index_in_force(map).unwrap();
        let hash = KeyHash::of(key, engine.seed);
        let Some(Probe::Found(at, record)) = engine.probe(&index, map, hash, key).unwrap() else {
            panic!("the key has a slot")
        };
        (index, at, hash, record)
    };
    for (map, key) in [(DEFAULT_MAP, b"mine"), (DEFAULT_MAP, b"next"), (other, b"mine")] {
        engine.put(map, key, map.to_string().as_bytes(), None).unwrap();
    }
    for record in [slot(DEFAULT_MAP, b"next").3, slot(other, b"mine").3] {
        let (index, at, hash, own) = slot(DEFAULT_MAP, b"mine");
        index.publish(at, hash, record).unwrap();
        // The first read of a thread takes the long path.
        for _ in 0..2 {
            assert_eq!(engine.read(DEFAULT_MAP, b"mine", |value, _| value.to_vec()).unwrap(), None);
        }
        let pinned = Pinned::here(&engine).unwrap();
        let index = pinned.index(DEFAULT_MAP).unwrap().unwrap();
        assert!(pinned.value_of(index.as_lines(), DEFAULT_MAP, b"mine").unwrap().is_none());
        let mut found = Vec::new();
        let keys: [&[u8]; 2] = [b"mine", b"next"];
        let lines = Some(index.as_lines());
        let note = |value: Option<&[u8]>| {
            found.push(value.is_some());
            Ok(())
        };
        pinned.values_of(lines, DEFAULT_MAP, &keys, note).unwrap();
        assert_eq!(found, [false, true]);
        let mut cursor = Cursor::new(DEFAULT_MAP, Some(&index));
        let entries: Vec<_> = std::iter::from_fn(|| pinned.next_entry(&mut cursor)).collect();
        let refused = entries.iter().filter(|entry| matches!(entry, Err(Error::Corrupt { .. }))).count();
        assert_eq!((entries.len(), refused), (2, 1));
        index.publish(at, hash, own).unwrap();
    }
}

/// A commit that clears a map with damaged counters is past its commit point when it reads them.
#[test]
fn damaged_counters_of_a_map_hold_up_no_commit_that_drops_it() {
    let engine = in_memory();
    some_keys(&engine);
    let expected = content(&engine);
    let other = engine.create_named("other", 0, "types").unwrap().id;
    engine.put(other, b"key", b"value", None).unwrap();
    let index = engine.index_in_force(other).unwrap();
    let totals = index.totals().unwrap();
    index.set_totals(crate::file::index::Totals { seq: totals.seq.next(), bytes: u64::MAX, ..totals }).unwrap();
    assert_eq!(engine.index_in_force(other).unwrap().totals().unwrap().bytes, u64::MAX);
    assert!(engine.drop_named("other").unwrap());
    assert_eq!(content(&engine), expected);
}
