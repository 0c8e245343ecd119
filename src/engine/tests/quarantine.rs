//! Damage in the log: compaction gets past it, the keys that it hits are not forgotten, and nothing else is lost.

#![allow(clippy::print_stderr)]

use super::faults::seal_agrees;
use super::faults::support::{self, Random};
use super::*;
use crate::engine::lookup::keys::WAS_DAMAGED;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::engine::upkeep::clean::{Aim, Portion};
use crate::file::index::Probe;
use crate::file::layout::{CATALOGUE, KeyHash, MapId, RECORD_HEADER};
use crate::file::log::{Record, Scan};

/// What the maps should hold; nothing for a key that was removed.
type Expected = BTreeMap<(MapId, Vec<u8>), Option<Vec<u8>>>;

/// Keys that are hit.
type Keys = Vec<(MapId, Vec<u8>)>;

fn try_tiny(path: &Path) -> Result<Engine> {
    // Nothing is cleaned except on request.
    Engine::open(path, Settings { limits: Limits::tiny(), auto_compact: None, ..Settings::default() })
}

fn open_tiny(path: &Path) -> Arc<Engine> {
    Arc::new(try_tiny(path).unwrap())
}

/// Keys in one map, or in three which share some, among dead records of all kinds.
fn fill(engine: &Arc<Engine>, random: &mut Random) -> (Vec<MapId>, Expected) {
    let mut maps = vec![DEFAULT_MAP];
    let names: &[&str] = if random.below(2) == 0 { &["one", "two"] } else { &[] };
    maps.extend(names.iter().map(|name| engine.create_named(name, 0, "types").unwrap().id));
    let mut expected = Expected::new();
    for _ in 0..300 {
        let map = maps[random.below(maps.len() as u64) as usize];
        let key = key(random.below(60) as u32);
        if random.below(6) == 0 {
            engine.remove(map, &key).unwrap();
            expected.insert((map, key), None);
            continue;
        }
        let value = vec![random.below(256) as u8; random.below(60) as usize];
        let expires = (random.below(5) == 0).then_some(u64::MAX / 2);
        engine.put(map, &key, &value, expires).unwrap();
        expected.insert((map, key), Some(value));
    }
    (maps, expected)
}

/// Cleans the whole log as it is now, however dense it is, and compacts the rest.
fn compact(engine: &Engine) {
    let goal = engine.end_of_log().unwrap();
    while engine.head().unwrap().bytes < goal {
        let turn = engine.turn().unwrap();
        let cleaned = turn.write().clean(Portion { bytes: 2 << 10, aim: Aim::Compaction }).unwrap();
        if cleaned.passed == 0 {
            break;
        }
    }
    engine.compact(&mut |_| ControlFlow::Continue(())).unwrap();
    engine.checkpoint().unwrap();
}

/// The newest record of a key, if it has one.
fn newest<'e>(engine: &'e Engine, map: MapId, key: &[u8]) -> Option<Record<'e>> {
    let index = engine.index_in_force(map).unwrap();
    match engine.probe(&index, map, KeyHash::of(key, engine.seed), key).unwrap() {
        Some(Probe::Found(_, offset)) => Some(log::record(&engine.mapping, offset).unwrap()),
        _ => None,
    }
}

/// Checks that what was not hit is there, and that what was hit is there or is an error in every way of reading, and
/// returns how much of it is.
fn check(engine: &Arc<Engine>, maps: &[MapId], expected: &Expected, hit: &Keys) -> u64 {
    let (mut damaged, mut alive) = (0, BTreeMap::new());
    for ((map, key), value) in expected {
        let read = || engine.read(*map, key, |value, _| value.to_vec());
        // The first read of a thread takes the long path.
        _ = read();
        let is_there = match read() {
            Ok(found) => {
                assert_eq!(found, *value, "{map} {}", String::from_utf8_lossy(key));
                found.is_some()
            }
            Err(Error::Corrupt { what, .. }) if hit.contains(&(*map, key.clone())) && what == WAS_DAMAGED => {
                damaged += 1;
                true
            }
            other => panic!("{map} {}: {other:?}", String::from_utf8_lossy(key)),
        };
        *alive.entry(*map).or_insert(0) += usize::from(is_there);
    }
    let (mut errors, pinned) = (0, Pinned::here(engine).unwrap());
    for &map in maps {
        let keys = alive.get(&map).copied().unwrap_or(0);
        assert_eq!(engine.len(map).unwrap(), keys as u64, "the counter of map {map}");
        let index = pinned.index(map).unwrap();
        let mut cursor = Cursor::new(map, index.as_ref());
        let entries: Vec<_> = std::iter::from_fn(|| pinned.next_entry(&mut cursor)).collect();
        assert_eq!(entries.len(), keys);
        errors += entries.iter().filter(|entry| entry.is_err()).count() as u64;
        let batch = Batch::begin(Arc::clone(engine)).unwrap();
        let mut cursor = batch.cursor(map).unwrap();
        let results: Vec<bool> = std::iter::from_fn(|| batch.next(&mut cursor).map(|next| next.map(drop)).transpose())
            .map(|next| next.is_ok())
            .collect();
        assert_eq!(results.len(), keys);
        drop(batch);
    }
    assert_eq!(errors, damaged);
    let report = engine.verify().unwrap();
    let others: Vec<_> = report.findings().iter().filter(|finding| finding.what != WAS_DAMAGED).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(report.finding_count(), damaged);
    damaged
}

/// Damages part of the log from a record on, and returns which keys have a record there. Spares the catalogue.
fn damage(engine: &Engine, expected: &Expected, random: &mut Random) -> Option<(String, Keys)> {
    let (head, tail) = (engine.head().unwrap().head.at, engine.mapping.live_offset(live::TAIL).unwrap());
    let records: Vec<Record<'_>> = Scan::new(&engine.mapping, head, tail).map(Result::unwrap).collect();
    let number = random.below(records.len() as u64) as usize;
    let victim = records[number];
    // As far as records follow each other in one extent.
    let behind = records[number..].windows(2).find(|pair| pair[0].end() != pair[1].offset);
    let limit = behind.map_or(records[records.len() - 1].end(), |pair| pair[0].end());
    let most = |len: u64| len.min(limit.bytes_since(victim.offset));
    let (from, len) = match random.below(5) {
        0 => (random.below(victim.len()), 1),
        1 => (random.below(RECORD_HEADER / 4) * 4, 4),
        2 => (random.below(victim.len()), most(1 + random.below(8))),
        3 => (random.below(RECORD_HEADER), most(1 + random.below(300))),
        _ => (0, most(random.below(2000).max(RECORD_HEADER))),
    };
    let start = victim.offset + from;
    let end = (start + len).min(limit);
    let is_hit = |record: &Record<'_>| record.offset < end && start < record.end();
    if records.iter().any(|record| {
        is_hit(record)
            && record.header.map() == CATALOGUE
            && record.kind().is_some_and(|kind| kind == crate::file::layout::Kind::Put)
    }) {
        return None;
    }
    let hit: Vec<_> = expected
        .keys()
        .filter(|(map, key)| newest(engine, *map, key).is_some_and(|record| is_hit(&record)))
        .cloned()
        .collect();
    let what = format!("{:?} at {} of {}, {} bytes", victim.kind(), from, victim.offset, end.bytes_since(start));
    let before = engine.mapping.frozen(start, end.bytes_since(start)).unwrap().to_vec();
    let how = random.below(3);
    let after: Vec<u8> = before
        .iter()
        .map(|byte| match how {
            0 => byte ^ (1 << random.below(8)),
            1 => 0,
            _ => random.below(256) as u8,
        })
        .collect();
    engine.mapping.write(start, &after).unwrap();
    Some((what, hit))
}

#[test]
fn damage_anywhere_in_the_log_costs_no_more_than_the_keys_that_it_hits() {
    let rounds = support::setting("SLOTLOG_TEST_DAMAGES", 150);
    let mut all = 0;
    for seed in 0..rounds {
        let mut random = Random(seed);
        let (_folder, path) = scratch();
        let engine = open_tiny(&path);
        let (maps, mut expected) = fill(&engine, &mut random);
        if random.below(2) == 0 {
            compact(&engine);
        }
        let Some((what, mut hit)) = damage(&engine, &expected, &mut random) else { continue };
        eprintln!("round {seed}: {what}, hits {}", hit.len());
        if random.below(3) == 0 {
            // A key that has disappeared is written again.
            hit.retain(|(map, key)| {
                let has_gone = matches!(engine.read(*map, key, |_, _| ()), Ok(None));
                if has_gone && engine.put(*map, key, b"again", None).is_ok() {
                    expected.insert((*map, key.clone()), Some(b"again".to_vec()));
                }
                !has_gone
            });
        }
        compact(&engine);
        // The last record has no successor that says where it ends.
        engine.put(DEFAULT_MAP, b"one more", b"value", None).unwrap();
        expected.insert((DEFAULT_MAP, b"one more".to_vec()), Some(b"value".to_vec()));
        compact(&engine);
        let damaged = check(&engine, &maps, &expected, &hit);
        all += damaged;
        // It is moved like any other.
        compact(&engine);
        assert_eq!(check(&engine, &maps, &expected, &hit), damaged);
        let killed = fs::read(&path).unwrap();
        let cut = copied(&path);
        let cut = open_tiny(&cut);
        assert!(matches!(cut.opened, Opened::AfterPowerCut { .. }));
        assert_eq!(check(&cut, &maps, &expected, &hit), damaged);
        drop((engine, cut));
        let engine = open_tiny(&path);
        assert_eq!((engine.opened, check(&engine, &maps, &expected, &hit)), (Opened::Clean, damaged));
        drop(engine);
        put_back(&path, &killed);
        let engine = open_tiny(&path);
        assert_eq!(check(&engine, &maps, &expected, &hit), damaged);
        for (number, (map, key)) in hit.iter().enumerate() {
            if number % 2 == 0 {
                engine.put(*map, key, b"new", None).unwrap();
                expected.insert((*map, key.clone()), Some(b"new".to_vec()));
            } else {
                engine.remove(*map, key).unwrap();
                expected.insert((*map, key.clone()), None);
            }
        }
        assert_eq!(check(&engine, &maps, &expected, &Keys::new()), 0);
        compact(&engine);
        assert_eq!(check(&engine, &maps, &expected, &Keys::new()), 0);
    }
    assert!(all > rounds / 4, "{all} keys were damaged");
}

/// Where a record is damaged, and whether its key is written again before compaction comes to it.
const DAMAGES: [(&str, u64, bool); 6] = [
    ("its value", 48, false),
    ("its key", RECORD_HEADER + 1, false),
    ("its key, which is written again", RECORD_HEADER + 1, true),
    ("its length", 8, false),
    ("its kind", 14, false),
    ("its map", 29, false),
];

#[test]
fn damage_is_passed_whenever_the_process_is_killed_meanwhile() {
    for (what, at, again) in DAMAGES {
        let (_folder, path) = scratch();
        let engine = open_tiny(&path);
        let (maps, mut expected) = fill(&engine, &mut Random(3));
        compact(&engine);
        let index = engine.index_in_force(DEFAULT_MAP).unwrap();
        let offsets = index.iter().filter_map(|slot| slot.unwrap().record);
        let victims = offsets.map(|offset| log::record(&engine.mapping, offset).unwrap());
        let victim = victims.filter(|record| record.value().len() > 20).min_by_key(|record| record.offset).unwrap();
        let key = victim.key().to_vec();
        let mut byte = engine.mapping.frozen(victim.offset + at, 1).unwrap().to_vec();
        byte[0] ^= 0x10;
        engine.mapping.write(victim.offset + at, &byte).unwrap();
        if again {
            engine.put(DEFAULT_MAP, &key, b"again", None).unwrap();
            expected.insert((DEFAULT_MAP, key.clone()), Some(b"again".to_vec()));
        }
        let hit = if again { vec![] } else { vec![(DEFAULT_MAP, key)] };
        let mut image = fs::read(&path).unwrap();
        let tape = Arc::new(Tape::default());
        engine.mapping.set_recorder(tape.clone());
        compact(&engine);
        let events = tape.0.lock().unwrap().clone();
        assert_eq!(check(&engine, &maps, &expected, &hit), hit.len() as u64, "{what}");
        drop(engine);
        let killed = path.with_extension("killed");
        for number in 0..=events.len() {
            put_back(&killed, &image);
            // For one store the file looks like a copy; then the log must be whole from the head of the superblock on.
            if seal_agrees(&image) || try_tiny(&killed).is_ok() {
                let engine = open_tiny(&killed);
                compact(&engine);
                eprintln!("{what}, killed before store {number} of {}: {:?}", events.len(), events.get(number));
                assert_eq!(check(&engine, &maps, &expected, &hit), hit.len() as u64);
            }
            if let Some(event) = events.get(number) {
                replay(&mut image, event);
            }
        }
    }
}

#[test]
fn a_resize_keeps_the_slot_of_what_damage_makes_look_like_a_tombstone() {
    let (_folder, path) = scratch();
    let engine = open_tiny(&path);
    (0..100).for_each(|number| engine.put(DEFAULT_MAP, &key(number), b"value", None).unwrap());
    let victim = newest(&engine, DEFAULT_MAP, &key(7)).unwrap().offset;
    engine.mapping.write(victim + 14, &[crate::file::layout::Kind::Remove as u8]).unwrap();
    {
        let turn = engine.turn().unwrap();
        let mut writing = turn.write();
        let seq = writing.seq().unwrap();
        writing.rebuild_at_once(DEFAULT_MAP, 200, seq, Tombstones::Dropped).unwrap();
        writing.skip_number().unwrap();
    }
    compact(&engine);
    let expected = (0..100).map(|number| ((DEFAULT_MAP, key(number)), Some(b"value".to_vec()))).collect();
    assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &vec![(DEFAULT_MAP, key(7))]), 1);
}

/// Without the entry of a map, its records would be taken for dead.
#[test]
fn a_damaged_entry_of_the_catalogue_is_not_put_into_quarantine() {
    let (_folder, path) = scratch();
    let engine = open_tiny(&path);
    let map = engine.create_named("map", 0, "types").unwrap().id;
    (0..100).for_each(|number| engine.put(map, &key(number), b"value", None).unwrap());
    let victim = newest(&engine, CATALOGUE, b"map").unwrap();
    let at = victim.offset + victim.len() - 8;
    engine.mapping.write(at, b"damage").unwrap();
    let refused = engine.compact(&mut |_| ControlFlow::Continue(()));
    let turn = engine.turn().unwrap();
    let cleaned = turn.write().clean(Portion { bytes: 1 << 20, aim: Aim::Compaction });
    assert!(matches!(cleaned, Err(Error::Corrupt { .. })), "{cleaned:?}, {refused:?}");
    drop(turn);
    assert_eq!(engine.read(map, &key(7), |value, _| value.to_vec()).unwrap().as_deref(), Some(&b"value"[..]));
}

/// The end of an extent and the beginning of the next are full of zeros, as after a write that the disk has lost.
#[test]
fn zeros_at_the_end_of_an_extent_and_at_the_beginning_of_the_next_are_no_jump() {
    let (_folder, path) = scratch();
    let engine = open_tiny(&path);
    let mut expected = Expected::new();
    for number in 0..200 {
        engine.put(DEFAULT_MAP, &key(number), &[7; 50], None).unwrap();
        expected.insert((DEFAULT_MAP, key(number)), Some(vec![7; 50]));
    }
    let (head, tail) = (engine.head().unwrap().head.at, engine.mapping.live_offset(live::TAIL).unwrap());
    let records: Vec<Record<'_>> = Scan::new(&engine.mapping, head, tail).map(Result::unwrap).collect();
    let jump = records.iter().position(|record| record.kind() == Some(crate::file::layout::Kind::Jump)).unwrap();
    let lost = [&records[jump - 3..jump], &records[jump + 1..jump + 2]].concat();
    let hit: Keys = lost.iter().map(|record| (DEFAULT_MAP, record.key().to_vec())).collect();
    let (first, next) = (lost[0].offset, lost[3].offset);
    engine.mapping.zero(first, records[jump].end().bytes_since(first)).unwrap();
    engine.mapping.zero(next, RECORD_HEADER).unwrap();
    compact(&engine);
    assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &hit), 4);
}

/// Changes a byte of the file, so that some of its bits are others.
fn flip(engine: &Engine, at: Offset, bits: u8) {
    let byte = engine.mapping.frozen(at, 1).unwrap()[0];
    engine.mapping.write(at, &[byte ^ bits]).unwrap();
}

fn fifty_keys(path: &Path) -> (Arc<Engine>, Expected) {
    let engine = open_tiny(path);
    let mut expected = Expected::new();
    for number in 0..50 {
        engine.put(DEFAULT_MAP, &key(number), &[7; 20], Some(u64::MAX / 2)).unwrap();
        expected.insert((DEFAULT_MAP, key(number)), Some(vec![7; 20]));
    }
    (engine, expected)
}

/// Compacts, also past what was the last record, whose end only the next one tells.
fn compact_all(engine: &Engine, expected: &mut Expected) {
    compact(engine);
    engine.put(DEFAULT_MAP, b"one more", b"value", None).unwrap();
    expected.insert((DEFAULT_MAP, b"one more".to_vec()), Some(b"value".to_vec()));
    compact(engine);
}

#[test]
fn a_live_record_with_the_key_of_another_is_not_taken_for_a_dead_one() {
    let (_folder, path) = scratch();
    let (engine, mut expected) = fifty_keys(&path);
    let victim = newest(&engine, DEFAULT_MAP, &key(17)).unwrap();
    flip(&engine, victim.offset + RECORD_HEADER + 8 + 5, 1);
    assert_eq!(victim.key(), key(16));
    compact_all(&engine, &mut expected);
    assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &vec![(DEFAULT_MAP, key(17))]), 1);
}

/// Its number may be lower than it was. Whoever has not been told of it must learn that.
#[test]
fn a_feed_does_not_pass_over_a_change_that_was_damaged() {
    let (_folder, path) = scratch();
    let (engine, _) = fifty_keys(&path);
    for bit in 0..6 {
        engine.put(DEFAULT_MAP, &key(100 + bit), b"hit", None).unwrap();
        let (offset, seq) = newest(&engine, DEFAULT_MAP, &key(100 + bit)).map(|hit| (hit.offset, hit.seq())).unwrap();
        (0..30).for_each(|number| engine.put(DEFAULT_MAP, &key(number), b"value", None).unwrap());
        flip(&engine, offset + 16, 1 << bit);
        for _ in 0..1000 {
            if engine.head().unwrap().behind >= seq {
                break;
            }
            engine.turn().unwrap().write().clean(Portion { bytes: 8, aim: Aim::Compaction }).unwrap();
            let history = engine.history(seq.before(), engine.visible().unwrap());
            let is_there = newest(&engine, DEFAULT_MAP, &key(100 + bit)).is_some_and(|hit| hit.offset == offset);
            assert_eq!(history.is_ok(), is_there, "bit {bit}");
        }
        assert!(engine.history(seq.before(), engine.visible().unwrap()).is_err());
    }
}

/// What has replaced a damaged record counted what that one said.
#[test]
fn the_counters_are_right_again_after_damage_that_was_written_over() {
    for at in 0..56 {
        for bits in [1, 3, 8, 0x40, 0xff] {
            let (_folder, path) = scratch();
            let (engine, mut expected) = fifty_keys(&path);
            let victim = newest(&engine, DEFAULT_MAP, &key(17)).unwrap().offset;
            flip(&engine, victim + at, bits);
            let mut hit = Keys::new();
            match engine.put(DEFAULT_MAP, &key(17), b"whole", None) {
                Ok(()) => _ = expected.insert((DEFAULT_MAP, key(17)), Some(b"whole".to_vec())),
                Err(_) => hit.push((DEFAULT_MAP, key(17))),
            }
            compact_all(&engine, &mut expected);
            assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &hit), hit.len() as u64, "byte {at}, {bits:#x}");
        }
    }
}

/// The key of its first record was damaged, so that it disappeared and got another slot.
#[test]
fn a_key_that_is_damaged_twice_is_quarantined_once() {
    for at in [RECORD_HEADER, 8, 14, 16, 45] {
        let (_folder, path) = scratch();
        let (engine, mut expected) = fifty_keys(&path);
        for at in [RECORD_HEADER + 8, at] {
            let victim = newest(&engine, DEFAULT_MAP, &key(17)).unwrap().offset;
            flip(&engine, victim + at, 0x10);
            if at == RECORD_HEADER + 8 {
                engine.put(DEFAULT_MAP, &key(17), &[8; 20], None).unwrap();
            }
            (50..90).for_each(|number| engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap());
        }
        (50..90).for_each(|number| _ = expected.insert((DEFAULT_MAP, key(number)), Some(vec![])));
        compact_all(&engine, &mut expected);
        assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &vec![(DEFAULT_MAP, key(17))]), 1);
        // It does not come back over the next value, where the order of the log counts.
        engine.put(DEFAULT_MAP, &key(17), b"new", None).unwrap();
        expected.insert((DEFAULT_MAP, key(17)), Some(b"new".to_vec()));
        compact(&engine);
        assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &Keys::new()), 0);
        assert_eq!(check(&open_tiny(&copied(&path)), &[DEFAULT_MAP], &expected, &Keys::new()), 0);
    }
}

/// A write that the disk has lost leaves what the place held before, which was whole as well.
#[test]
fn what_an_extent_held_before_is_damage_like_any_other() {
    let (_folder, path) = scratch();
    let (engine, mut expected) = fifty_keys(&path);
    let mut old = Vec::new();
    for round in 0..8_u8 {
        if round == 4 {
            old = fs::read(&path).unwrap();
        }
        for number in 0..50 {
            engine.put(DEFAULT_MAP, &key(number), &[round; 40], None).unwrap();
            expected.insert((DEFAULT_MAP, key(number)), Some(vec![round; 40]));
        }
        compact(&engine);
    }
    let (head, tail) = (engine.head().unwrap().head.at, engine.mapping.live_offset(live::TAIL).unwrap());
    let records: Vec<Record<'_>> = Scan::new(&engine.mapping, head, tail).map(Result::unwrap).collect();
    let extents = engine.extents().unwrap();
    let of_log = extents.iter().filter(|extent| extent.is_log() && !(extent.offset..extent.end()).contains(&tail));
    let (mut hit, mut lost) = (Keys::new(), 0);
    for extent in of_log {
        let before = &old[extent.offset.0 as usize..extent.end().0 as usize];
        let is_in = |record: &&Record<'_>| (extent.offset..extent.end()).contains(&record.offset);
        hit.extend(records.iter().filter(is_in).map(|record| (DEFAULT_MAP, record.key().to_vec())));
        engine.mapping.write(extent.offset, before).unwrap();
        lost += 1;
    }
    assert!(lost > 0 && !hit.is_empty());
    compact_all(&engine, &mut expected);
    check(&engine, &[DEFAULT_MAP], &expected, &hit);
}

/// Cleaning stops before a damaged record, which says a number that is higher than those of the records after it.
#[test]
fn the_number_of_damage_at_which_the_head_rests_is_not_believed() {
    let mut rested = 0;
    for bit in 0..8 {
        let (_folder, path) = scratch();
        let (engine, mut expected) = fifty_keys(&path);
        let victim = newest(&engine, DEFAULT_MAP, &key(17)).unwrap().offset;
        flip(&engine, victim + 16, 1 << bit);
        for _ in 0..1000 {
            if engine.head().unwrap().head.at == victim {
                break;
            }
            engine.turn().unwrap().write().clean(Portion { bytes: 1, aim: Aim::Compaction }).unwrap();
        }
        // It does not rest at a number that cannot be.
        rested += u32::from(engine.head().unwrap().head.at == victim);
        compact_all(&engine, &mut expected);
        assert_eq!(check(&engine, &[DEFAULT_MAP], &expected, &vec![(DEFAULT_MAP, key(17))]), 1, "bit {bit}");
    }
    assert!(rested > 0);
}
