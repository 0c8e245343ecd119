//! A census counts what is there, and nothing else.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use slotlog::format::{BLOCK, EXTENTS};
use slotlog::{CensusOptions, Distribution, MapCensus, Store};
use support::{Random, folder, read_only};

fn of<'a>(maps: &'a [MapCensus], name: &str) -> &'a MapCensus {
    maps.iter().find(|map| map.name == name).unwrap()
}

/// What a distribution of these figures is.
#[track_caller]
fn assert_is_of(found: &Distribution, mut figures: Vec<u64>) {
    figures.sort_unstable();
    let count = figures.len();
    assert_eq!((found.count, found.sum), (count as u64, figures.iter().sum::<u64>()));
    assert_eq!((found.min, found.max), (figures[0], figures[count - 1]));
    for (percent, quantile) in [(50, found.p50), (90, found.p90), (99, found.p99)] {
        let exact = figures[(count * percent).div_ceil(100) - 1];
        assert!(quantile >= exact && quantile <= exact + exact / 50, "{percent} %: {quantile}, exactly {exact}");
    }
    let in_buckets: u64 = found.buckets.iter().map(|bucket| bucket.count).sum();
    assert_eq!(in_buckets, count as u64);
    for bucket in &found.buckets {
        let inside = figures.iter().filter(|figure| (bucket.from..=bucket.to).contains(figure));
        assert_eq!((bucket.count, bucket.sum), (inside.clone().count() as u64, inside.sum::<u64>()), "{bucket:?}");
    }
}

#[test]
fn a_census_agrees_with_what_iteration_finds() {
    let store = Store::options().auto_compact(None).in_memory().unwrap();
    let mut random = Random(7);
    let mut written: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let map = store.map::<[u8], [u8]>("map").unwrap();
    let first = store.stats().unwrap().commits;
    for commit in 1..=8000 {
        let key = random.below(3000);
        if random.one_in(4) {
            map.remove(&key.to_le_bytes()[..]).unwrap();
            written.remove(&key);
        } else {
            let bits = random.below(11);
            let len = random.below(1 << bits);
            map.insert(&key.to_le_bytes()[..], &vec![7; len as usize]).unwrap();
            written.insert(key, (len, commit));
        }
        // A removal of what is not there is no commit.
        let commits = store.stats().unwrap().commits - first;
        if let Some((_, at)) = written.get_mut(&key) {
            *at = commits;
        }
    }
    let census = store.census().unwrap();
    let (of_map, commits) = (of(&census.maps, "map"), store.stats().unwrap().commits - first);
    assert_is_of(&of_map.keys, vec![8; written.len()]);
    assert_is_of(&of_map.values, written.values().map(|(len, _)| *len).collect());
    assert_is_of(&of_map.ages, written.values().map(|(_, at)| commits - at).collect());
    assert_eq!((of_map.looked_at, of_map.with_deadline, of_map.expired, of_map.damaged), (1.0, 0, 0, 0));
    let longest: Vec<u64> = of_map.largest.iter().map(|entry| entry.value_len).collect();
    let mut lengths: Vec<u64> = written.values().map(|(len, _)| *len).collect();
    lengths.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(longest, lengths[..5]);
    let key = u64::from_le_bytes(of_map.largest[0].key.as_slice().try_into().unwrap());
    assert_eq!(written[&key].0, longest[0]);
    assert_eq!(of(&census.maps, "(default)").values, Distribution::default());
}

#[test]
fn search_lengths_are_those_of_the_index() {
    let store = Store::in_memory().unwrap();
    for number in 0..20_000u32 {
        store.insert(number.to_le_bytes(), "…").unwrap();
    }
    let census = store.census().unwrap();
    assert_eq!(of(&census.maps, "(default)").search_lengths, store.probe_lengths().unwrap());
}

#[test]
fn extents_cover_the_file_and_hold_what_is_alive() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    for number in 0..30_000u32 {
        store.insert((number % 20_000).to_le_bytes(), [7; 100]).unwrap();
    }
    for closed in [false, true] {
        let (census, stats) = (store.census().unwrap(), store.stats().unwrap());
        let mut end = EXTENTS;
        for extent in &census.extents {
            assert_eq!(extent.offset, end, "{extent:?}");
            assert!(extent.live_bytes + extent.unwritten_bytes <= extent.bytes, "{extent:?}");
            end += extent.bytes;
        }
        assert!(end == stats.file_len || end + BLOCK == stats.file_len, "{end} of {}", stats.file_len);
        let log = || census.extents.iter().filter(|extent| extent.kind == "Log");
        assert_eq!(log().map(|extent| extent.live_bytes).sum::<u64>(), stats.live_bytes);
        // What is written and not alive is dead.
        let written: u64 = log().map(|extent| extent.bytes - extent.unwritten_bytes).sum();
        assert_eq!(written, stats.log_bytes, "closed: {closed}");
        let of_default = census.extents.iter().find(|extent| extent.map == Some(1)).unwrap();
        let load = of_default.live_bytes as f64 / of_default.bytes as f64;
        assert!((load - of(&census.maps, "(default)").values.count as f64 / stats.maps[1].slots as f64).abs() < 0.01);
        for kind in &stats.extents {
            let of_kind = census.extents.iter().filter(|extent| extent.kind == kind.kind);
            assert_eq!(of_kind.map(|extent| extent.bytes).sum::<u64>(), kind.bytes, "{kind:?}");
        }
        if !closed {
            store.checkpoint().unwrap();
        }
    }
}

#[test]
fn entries_with_deadlines_are_counted_and_expired_ones_too() {
    let store = Store::options().auto_compact(None).in_memory().unwrap();
    let (past, future) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(1_000_000));
    for number in 0..100u32 {
        match number % 10 {
            0..7 => store.insert_with_expiry(number.to_le_bytes(), [7; 10], past).unwrap(),
            7 => store.insert_with_expiry(number.to_le_bytes(), [7; 10], future).unwrap(),
            _ => store.insert(number.to_le_bytes(), [7; 10]).unwrap(),
        }
    }
    let census = store.census().unwrap();
    let map = of(&census.maps, "(default)");
    assert_eq!((map.values.count, map.with_deadline, map.expired), (100, 80, 70));
    assert!(map.expired_bytes > 70 * 50 && map.expired_bytes < 70 * 80, "{}", map.expired_bytes);
}

#[test]
fn a_sample_is_like_the_whole() {
    let store = Store::in_memory().unwrap();
    let large = store.map::<[u8], [u8]>("large").unwrap();
    for number in 0..50_000u32 {
        large.insert(&number.to_le_bytes()[..], &vec![7; number as usize % 100]).unwrap();
    }
    store.map::<str, u32>("small").unwrap().insert("key", 1).unwrap();
    let sample = store.census_with(CensusOptions::new().at_most(5000)).unwrap();
    assert_eq!((of(&sample.maps, "small").looked_at, of(&sample.maps, "small").values.count), (1.0, 1));
    let large = of(&sample.maps, "large");
    assert!((0.05..0.15).contains(&large.looked_at), "{}", large.looked_at);
    assert!((4000..6000).contains(&large.values.count), "{}", large.values.count);
    assert!((45..55).contains(&large.values.p50), "{}", large.values.p50);
    let log = sample.extents.iter().filter(|extent| extent.kind == "Log").map(|extent| extent.live_bytes).sum::<u64>();
    let live = store.stats().unwrap().live_bytes;
    assert!((live / 10 * 8..live / 10 * 12).contains(&log), "{log} instead of {live}");
    for at_most in [0, 1, 2] {
        let sample = store.census_with(CensusOptions::new().at_most(at_most)).unwrap();
        assert!(of(&sample.maps, "large").values.count < 20);
    }
}

#[test]
fn a_census_can_be_stopped() {
    let store = Store::in_memory().unwrap();
    for number in 0..50_000u32 {
        store.insert(number.to_le_bytes(), "…").unwrap();
    }
    let mut calls = 0;
    let options = CensusOptions::new().on_progress(|progress| {
        assert!(progress.done <= progress.total, "{progress:?}");
        calls += 1;
        ControlFlow::Break(())
    });
    let census = store.census_with(options).unwrap();
    let map = of(&census.maps, "(default)");
    assert!(map.looked_at < 0.5 && map.values.count > 10_000 && map.values.count < 25_000, "{}", map.values.count);
    assert_eq!(calls, 1, "it is not asked again");
}

#[test]
fn damaged_records_are_counted() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..1000 {
        store.insert(format!("key {number}"), format!("the value of {number}")).unwrap();
    }
    store.close().unwrap();
    let mut file = std::fs::read(&path).unwrap();
    let key = b"key 500";
    let at = file.windows(key.len()).position(|window| window == key).unwrap();
    // The kind of the record, in its header.
    file[at - 32 + 14] ^= 0x40;
    std::fs::write(&path, file).unwrap();
    let census = read_only(&path).unwrap().census().unwrap();
    let map = of(&census.maps, "(default)");
    assert_eq!((map.damaged, map.values.count), (1, 999));
}

/// A writer at work meanwhile changes nothing: a census sees one commit.
#[test]
fn a_census_beside_a_writer_sees_one_commit() {
    let store = Store::in_memory().unwrap();
    let mut batch = store.begin().unwrap();
    for number in 0..2000u32 {
        batch.insert(number.to_le_bytes(), [0; 10]).unwrap();
    }
    batch.commit().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1.. {
                let mut batch = store.begin().unwrap();
                for number in 0..2000u32 {
                    batch.insert(number.to_le_bytes(), vec![7; 10 + round % 50]).unwrap();
                }
                batch.commit().unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..50 {
            let census = store.census().unwrap();
            let values = &of(&census.maps, "(default)").values;
            assert_eq!((values.count, values.min), (2000, values.max), "all entries are of one commit");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.verify().unwrap().is_clean());
}
