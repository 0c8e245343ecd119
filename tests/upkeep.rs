//! Upkeep as users see it: space comes back, no large piece of work is due at once, and readers are not disturbed.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use slotlog::{Access, Error, Options, Store};
use support::{Random, assert_clean, folder, setting};

/// Bytes of keys and values in the rows of a store.
const PAYLOAD: u64 = 16 + 100;

fn key(number: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn value(number: u64, version: u64) -> [u8; 100] {
    let mut value = [version as u8; 100];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn maintain(store: &Store) {
    while store.maintain(Duration::from_millis(20)).unwrap() {}
}

/// Overwrites random keys, and returns the largest file on the way.
fn overwrite(store: &Store, path: &Path, keys: u64, times: u64, random: &mut Random) -> u64 {
    let mut longest = 0;
    for write in 0..times {
        let number = random.below(keys);
        store.insert(key(number), value(number, write)).unwrap();
        if write % 1000 == 0 {
            longest = longest.max(len(path));
        }
    }
    longest
}

/// From nothing to enough keys for many resizes of the index: the share of each write is counted.
#[test]
fn no_write_does_more_than_its_share_of_a_growth() {
    let keys = setting("SLOTLOG_TEST_KEYS", 5_000_000);
    // On the disk: it takes most of a gigabyte.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..keys {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let upkeep = store.stats().unwrap().upkeep;
    eprintln!("{upkeep:?}");
    assert!(upkeep.lines > keys / 5, "the index was resized: {upkeep:?}");
    assert!(upkeep.most_lines <= 512, "{upkeep:?}");
    assert!(upkeep.most_blocks <= 20, "{upkeep:?}");
    assert_eq!(upkeep.moved_bytes, 0, "nothing is dead");
    // Five slices, the last record of each, and what the last one left to the next.
    assert!(upkeep.flushed_bytes > keys * 100, "{upkeep:?}");
    assert!(upkeep.most_flushed_bytes <= 5 * ((1 << 20) + 200) + (128 << 10), "{upkeep:?}");
    assert_eq!(store.len().unwrap(), keys);
    for number in (0..keys).step_by(997) {
        assert_eq!(store.get(key(number)).unwrap().unwrap(), value(number, 0));
    }
}

#[test]
fn no_write_cleans_more_than_its_share() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let (keys, mut random) = (20_000, Random(1));
    for number in 0..keys {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    overwrite(&store, &path, keys, 200_000, &mut random);
    let upkeep = store.stats().unwrap().upkeep;
    let record = slotlog::format::record_len(16, 100);
    assert!(upkeep.moved_bytes > 1 << 20, "{upkeep:?}");
    // A step is due every 4 KiB, and moves at most one record more.
    assert!(upkeep.most_moved_bytes <= 19 * (record + (4 << 10)), "{upkeep:?}");
    assert!(upkeep.most_flushed_bytes <= 5 * ((1 << 20) + 4000) + (128 << 10), "{upkeep:?}");
    // A large value among small ones pays for itself.
    store.insert("large", vec![7; 1 << 20]).unwrap();
    store.insert("large", vec![8; 1 << 20]).unwrap();
    assert!(store.stats().unwrap().upkeep.most_moved_bytes <= 19 << 20);
    assert_clean(&store);
}

/// One pass over the log gains all there is to gain, however small a share may be dead.
#[test]
fn no_write_cleans_the_log_more_than_once_along() {
    let folder = folder();
    let path = folder.path().join("store");
    let filled = Store::options().auto_compact(None).open(&path).unwrap();
    let keys = 300;
    for number in 0..keys {
        filled.insert(key(number), [0; 1000]).unwrap();
    }
    drop(filled);
    let store = Store::options().auto_compact(Some(0.001)).open(&path).unwrap();
    let log = store.stats().unwrap().log_bytes;
    let mut random = Random(5);
    for version in 0..12 {
        store.insert(key(random.below(keys)), [version; 1000]).unwrap();
    }
    let upkeep = store.stats().unwrap().upkeep;
    assert!(upkeep.moved_bytes > log / 2, "a log of {log} bytes, {upkeep:?}");
    assert!(upkeep.most_moved_bytes <= log + 12 * 1100, "a log of {log} bytes, {upkeep:?}");
    assert!(len(&path) < 8 * log, "a log of {log} bytes in a file of {}", len(&path));
    assert_clean(&store);
}

/// Steps are due wherever the log has grown by a certain amount, whichever process made it grow.
#[test]
fn openers_that_write_one_value_each_clean_as_well() {
    let folder = folder();
    let path = folder.path().join("store");
    // The last one to close would trim the file.
    let idle = Store::open(&path).unwrap();
    let (keys, mut random) = (200, Random(3));
    for number in 0..keys {
        idle.insert(key(number), [0; 1000]).unwrap();
    }
    for version in 0..4000 {
        let store = Store::open(&path).unwrap();
        store.insert(key(random.below(keys)), [version as u8; 1000]).unwrap();
        store.close().unwrap();
    }
    let ratio = len(&path) as f64 / (keys * 1016) as f64;
    assert!(ratio <= 5.0, "{ratio} bytes of file for each byte of keys and values");
    assert_clean(&idle);
}

/// The bench `space` has the figures for more keys; these are the limits that it must keep to.
#[test]
fn space_comes_back_by_itself_and_all_of_it_on_request() {
    // How densely a file can be packed depends a little on chance.
    let ratios = [2, 3, 4].map(|seed| compacted_after_overwriting(&mut Random(seed)));
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean <= 1.61, "{ratios:?} bytes of file for each byte of keys and values after compaction");
}

/// Bytes of the file per byte of keys and values after most were removed and the rest was compacted.
fn compacted_after_overwriting(random: &mut Random) -> f64 {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let keys = 150_000;
    for number in 0..keys {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let longest = overwrite(&store, &path, keys, 6 * keys, random);
    let ratio = longest as f64 / (keys * PAYLOAD) as f64;
    assert!(ratio <= 3.0, "{ratio} bytes of file for each byte of keys and values");
    let left = keys / 10;
    for number in left..keys {
        assert!(store.remove(key(number)).unwrap());
    }
    overwrite(&store, &path, left, left, random);
    assert!(len(&path) < longest, "the file gets shorter by itself");
    let report = store.compact().unwrap();
    assert!(report.finished && report.held_back == 0, "{report:?}");
    assert_eq!(report.file_len, len(&path));
    assert_eq!(store.len().unwrap(), left);
    assert_clean(&store);
    // A compacted store stays compact.
    let again = store.compact().unwrap();
    assert!(again.file_len <= report.file_len, "{report:?}, then {again:?}");
    report.file_len as f64 / (left * PAYLOAD) as f64
}

#[test]
fn a_tiny_store_stays_tiny() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    assert!(len(&path) < 300 << 10);
    for round in 0..100_000u64 {
        store.insert(key(round % 10), value(round, round)).unwrap();
    }
    // The permitted dead share, space that waits for a checkpoint, and remainders not worth cleaning.
    assert!(len(&path) < 2 << 20, "{}", len(&path));
    store.compact().unwrap();
    assert!(len(&path) < 300 << 10, "{}", len(&path));
    store.close().unwrap();
    assert!(len(&path) < 300 << 10);
}

#[test]
fn cleared_space_comes_back() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..50_000 {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let before = len(&path);
    let records = store.stats().unwrap().log_records;
    store.clear().unwrap();
    assert!(store.stats().unwrap().log_records <= records + 1, "one record, whatever there was");
    maintain(&store);
    assert!(len(&path) < before / 4, "{} of {before}", len(&path));
    let stats = store.stats().unwrap();
    assert!(stats.log_bytes < 1 << 20 && stats.cleaned_bytes > 6 << 20, "{stats:?}");
    assert_clean(&store);
}

/// An index with many removed keys is rebuilt in a fitting size; one of requested capacity stays.
#[test]
fn an_index_that_is_much_too_large_shrinks() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    for number in 0..100_000 {
        store.insert(key(number), []).unwrap();
    }
    let slots = |store: &Store| store.stats().unwrap().maps[1].slots;
    let before = slots(&store);
    for number in 100..100_000 {
        store.remove(key(number)).unwrap();
    }
    maintain(&store);
    assert!(slots(&store) < before / 50, "{} of {before}", slots(&store));
    assert_eq!(store.len().unwrap(), 100);
    assert_clean(&store);

    let roomy = Store::options().initial_capacity(100_000).open(folder.path().join("roomy")).unwrap();
    let before = slots(&roomy);
    roomy.insert("key", "value").unwrap();
    roomy.remove("key").unwrap();
    maintain(&roomy);
    assert_eq!(slots(&roomy), before);
}

#[test]
fn a_resize_goes_on_when_the_store_is_opened_again() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = || Store::options().tiny_steps().open(&path).unwrap();
    let store = open();
    let mut number = 0;
    while store.stats().unwrap().resize.is_none_or(|resize| resize.moved == 0) {
        store.insert(key(number), []).unwrap();
        number += 1;
    }
    let before = store.stats().unwrap().resize.unwrap();
    store.close().unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!(reader.len().unwrap(), number);
    drop(reader);
    let store = open();
    assert_eq!(store.stats().unwrap().resize, Some(before));
    maintain(&store);
    let stats = store.stats().unwrap();
    assert_eq!((stats.resize, stats.maps[1].slots / 6), (None, before.target_lines));
    assert_clean(&store);
    for number in 0..number {
        assert!(store.contains_key(key(number)).unwrap());
    }
}

/// Readers without pins may look past the new end of the file; so it is not cut while there are any.
#[test]
fn the_file_is_not_cut_under_one_who_only_reads() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..20_000 {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let before = len(&path);
    for number in 100..20_000 {
        store.remove(key(number)).unwrap();
    }
    let report = store.compact().unwrap();
    assert_eq!((report.freed_bytes, len(&path)), (0, report.file_len));
    assert!(len(&path) >= before);
    assert_eq!(reader.len().unwrap(), 100);
    assert_eq!(reader.get(key(7)).unwrap().unwrap(), value(7, 0));
    drop(reader);
    let report = store.compact().unwrap();
    assert!(report.freed_bytes > before / 2 && len(&path) == report.file_len, "{report:?}");
    assert_clean(&store);
}

#[test]
fn what_snapshots_see_is_held_back() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..30_000 {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    overwrite(&store, &path, 30_000, 200_000, &mut Random(3));
    let stats = store.stats().unwrap();
    assert!(stats.waiting.pins > 1 << 20, "{:?}", stats.waiting);
    let report = store.compact().unwrap();
    assert!(!report.finished && report.held_back > 1 << 20, "{report:?}");
    let mut seen = 0;
    for entry in &snapshot {
        let (key, found) = entry.unwrap();
        let number = u64::from_le_bytes(*key.first_chunk().unwrap());
        assert_eq!(found, value(number, 0));
        seen += 1;
    }
    assert_eq!(seen, 30_000);
    drop(snapshot);
    let report = store.compact().unwrap();
    assert!(report.finished && report.held_back == 0 && report.freed_bytes > 10 << 20, "{report:?}");
    assert_clean(&store);
}

#[test]
fn the_figures_tell_all_that_a_snapshot_holds_back() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..1000 {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    for round in 1..150 {
        for number in 0..1000 {
            store.insert(key(number), value(number, round)).unwrap();
        }
    }
    let (before, waiting) = (len(&path), store.stats().unwrap().waiting);
    let report = store.compact().unwrap();
    assert!(!report.finished, "{report:?}");
    // Space that compaction empties meanwhile waits, too.
    let of_reader = Store::options().access(slotlog::Access::ReadOnly).open(&path).unwrap().stats().unwrap().waiting;
    drop(snapshot);
    let freed = before - store.compact().unwrap().file_len;
    assert!(freed > 15 << 20, "{freed}");
    for (what, told) in [("stats", waiting.pins), ("compact", report.held_back), ("reader", of_reader.pins)] {
        assert!((freed / 8 * 7..freed / 8 * 9).contains(&told), "{what}: {told} of {freed} that were freed afterwards");
    }
    let waiting = store.stats().unwrap().waiting;
    assert_eq!(waiting.pins, 0, "{waiting:?}");
}

#[test]
fn a_compaction_that_is_stopped_loses_nothing_and_can_go_on() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    overwrite(&store, &path, 10_000, 60_000, &mut Random(4));
    let keys = store.len().unwrap();
    let (mut stops, mut asked) = (0, 0);
    let report = loop {
        let mut left = 3;
        let report = store
            .compact_with(|progress| {
                assert!(progress.done <= progress.total || progress.total == 0);
                (left, asked) = (left - 1, asked + 1);
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(store.len().unwrap(), keys);
        if report.finished {
            break report;
        }
        stops += 1;
        assert!(stops < 10_000, "it comes to an end");
    };
    eprintln!("{stops} stops");
    assert!(report.file_len < 4 << 20, "{report:?}");
    assert_clean(&store);
}

#[test]
fn what_compaction_has_moved_is_no_share_of_the_next_write() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    overwrite(&store, &path, 1_000, 20_000, &mut Random(7));
    store.compact().unwrap();
    store.insert(key(0), value(0, 1)).unwrap();
    let upkeep = store.stats().unwrap().upkeep;
    assert!(upkeep.moved_bytes > 100_000, "{upkeep:?}");
    assert_eq!(upkeep.most_moved_bytes, 0, "{upkeep:?}");
}

#[test]
fn a_thread_does_the_upkeep_for_those_who_ask_for_one() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().background_maintenance(true).open(&path).unwrap();
    for number in 0..50_000 {
        store.insert(key(number), value(number, 0)).unwrap();
    }
    let before = len(&path);
    store.clear().unwrap();
    let start = Instant::now();
    while len(&path) > before / 4 {
        assert!(start.elapsed() < Duration::from_secs(30), "{} of {before}", len(&path));
        std::thread::sleep(Duration::from_millis(5));
    }
    let clone = store.clone();
    store.close().unwrap();
    clone.insert("still", "open").unwrap();
    clone.close().unwrap();
    // The thread did not keep it open.
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), slotlog::Opened::Clean);
    assert_clean(&store);
}

/// Dropping the store while a transaction is open must not wait for a thread that waits for the transaction.
#[test]
fn the_thread_ends_although_somebody_writes() {
    let folder = folder();
    let store = Store::options().background_maintenance(true).open(folder.path().join("store")).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("key", "value").unwrap();
    // Long enough for the thread to want the lock.
    std::thread::sleep(Duration::from_millis(1100));
    let start = Instant::now();
    drop(store);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    transaction.commit().unwrap();
}

#[test]
fn what_compaction_has_left_behind_is_no_history() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let start = store.seq().unwrap();
    overwrite(&store, &path, 100, 20_000, &mut Random(5));
    assert!(matches!(store.changes_since(start), Err(Error::HistoryTruncated { .. })));
    let seen = store.seq().unwrap();
    let moved = store.stats().unwrap().upkeep.moved_bytes;
    let mut inserts = 0;
    while store.stats().unwrap().upkeep.moved_bytes == moved {
        store.insert(key(inserts % 90), "more").unwrap();
        inserts += 1;
    }
    let changes = store.changes_since(seen).unwrap();
    assert_eq!(changes.iter().count() as u64, inserts, "copies are no changes");
    // Compaction is no change either.
    let seen = store.seq().unwrap();
    store.compact().unwrap();
    assert!(!store.wait_for_change(seen, Duration::ZERO).unwrap());
}

/// Changes are borrowed from the log and stay as they are, dead records included, whatever is cleaned meanwhile
/// without a commit.
#[test]
fn what_a_history_lends_is_not_used_again() {
    let folder = folder();
    for (number, access) in [Access::ReadWrite, Access::ReadOnly].into_iter().enumerate() {
        let path = folder.path().join(number.to_string());
        let store = Store::options().auto_compact(None).open(&path).unwrap();
        let seen = store.seq().unwrap();
        for version in 0..500_u64 {
            store.insert("overwritten", [version.to_le_bytes(); 100].concat()).unwrap();
        }
        // The file does not become as short as where that lies.
        for number in 0..3000 {
            store.insert(key(number), [7; 1000]).unwrap();
        }
        let reader = Store::options().access(access).open(&path).unwrap();
        let changes = reader.changes_since(seen).unwrap();
        let lent: Vec<_> = changes.iter().map(|change| change.unwrap()).collect();
        let told = format!("{lent:?}");
        assert_eq!(lent.len(), 3500);
        for _ in 0..2 {
            store.compact().unwrap();
            for number in 0..500 {
                store.insert(key(10_000 + number), [0xee; 800]).unwrap();
            }
        }
        assert!(format!("{lent:?}") == told, "what was lent has changed: {access:?}");
        let again: Vec<_> = changes.iter().map(|change| change.unwrap()).collect();
        assert!(again == lent, "another history is told: {access:?}");
        drop(changes);
        assert_clean(&store);
    }
}

/// A copy gets a valid CRC, but says that it stands for damage.
#[test]
fn damage_is_moved_as_damage_and_holds_nobody_up() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("damaged", [5; 1000]).unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(1000).position(|window| window == [5; 1000]).unwrap();
    support::overwrite(&path, at as u64 + 500, b"damage");
    overwrite(&store, &path, 100, 20_000, &mut Random(6));
    assert!(store.compact().unwrap().finished);
    let damage = store.stats().unwrap().damage;
    assert_eq!((damage.quarantined_records, damage.found, damage.findings.len()), (1, 1, 1));
    // Reading it is an error, iterating goes on, and nothing else is lost.
    assert!(matches!(store.get("damaged"), Err(Error::Corrupt { .. })));
    let snapshot = store.snapshot().unwrap();
    let entries: Vec<bool> = snapshot.iter().map(|entry| entry.is_err()).collect();
    assert_eq!((entries.len(), entries.iter().filter(|is_error| **is_error).count()), (101, 1));
    drop(snapshot);
    assert_eq!((store.len().unwrap(), store.verify().unwrap().finding_count()), (101, 1));
    // After a power cut the log is walked as far as it is whole, which is all of it.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let copy = Store::open(&copy).unwrap();
    assert!(matches!(copy.get("damaged"), Err(Error::Corrupt { .. })));
    assert_eq!((copy.len().unwrap(), copy.verify().unwrap().finding_count()), (101, 1));
    // It cannot be read to be changed, but written to.
    assert!(store.begin().unwrap().get("damaged").is_err());
    store.insert("damaged", "whole").unwrap();
    assert!(copy.remove("damaged").unwrap());
    assert_clean(&store);
    assert_clean(&copy);
    assert_eq!(store.get("damaged").unwrap().as_deref(), Some(&b"whole"[..]));
    assert!(copy.get("damaged").unwrap().is_none());
}

/// Bits that the disk has lost are found before anybody reads them.
#[test]
fn a_scrub_finds_damage_and_fails_nothing() {
    let folder = folder();
    let path = folder.path().join("store");
    let options = || Store::options().auto_compact(None).scrub(Some(Duration::from_secs(3600)));
    let store = options().open(&path).unwrap();
    for number in 0..5000_u32 {
        store.insert(number.to_le_bytes(), [7; 1000]).unwrap();
    }
    store.insert("damaged", [5; 1000]).unwrap();
    for number in 0..5000_u32 {
        store.insert(number.to_be_bytes(), [7; 1000]).unwrap();
    }
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(1000).position(|window| window == [5; 1000]).unwrap();
    support::overwrite(&path, at as u64 + 500, b"damage");
    // Two processes share the work.
    let other = options().open(&path).unwrap();
    let log = store.stats().unwrap().log_bytes;
    let mut slices = 0;
    let scrubbed = |store: &Store| store.stats().unwrap().damage.scrubbed_bytes;
    loop {
        let before = scrubbed(&store) + scrubbed(&other);
        store.maintain(Duration::ZERO).unwrap();
        other.maintain(Duration::ZERO).unwrap();
        let now = scrubbed(&store) + scrubbed(&other);
        assert!(now - before <= 2 * ((1 << 20) + 2000), "a slice is bounded");
        if now == before {
            break;
        }
        slices += 1;
        assert!(now < 2 * log, "it comes to an end");
    }
    let all = scrubbed(&store) + scrubbed(&other);
    assert!(slices >= 4 && (log..log + (1 << 20)).contains(&all), "{slices} slices, {all} of {log} bytes");
    let findings = [store.stats().unwrap().damage, other.stats().unwrap().damage];
    let [one, two] = &findings;
    assert_eq!((one.found, two.found), (1, 1), "both say what one has found");
    assert_eq!(one.findings.len() + two.findings.len(), 1);
    let finding = one.findings.first().or(two.findings.first()).unwrap();
    assert!(finding.offset < at as u64 && finding.offset + 100 > at as u64, "{finding}");
    assert!(one.last_scrub.is_some());
    drop(other);
    // The next one is not due.
    store.maintain(Duration::from_secs(1)).unwrap();
    assert_eq!(scrubbed(&store) + findings[1].scrubbed_bytes, all);
}

/// Where a damaged record ends is not known, and the scrub goes on all the same.
#[test]
fn a_scrub_gets_past_a_damaged_length_and_beside_writers() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().scrub(Some(Duration::ZERO)).tiny_steps().open(&path).unwrap();
    let mut random = Random(8);
    for number in 0..300_u32 {
        store.insert(number.to_le_bytes(), [7; 100]).unwrap();
    }
    for round in 0..2000_u32 {
        store.insert((random.below(300) as u32).to_le_bytes(), [round as u8; 100]).unwrap();
        store.maintain(Duration::ZERO).unwrap();
    }
    let damage = store.stats().unwrap().damage;
    assert_eq!((damage.found, damage.findings.len()), (0, 0), "{:?}", damage.findings);
    assert!(damage.scrubbed_bytes > 10 * store.stats().unwrap().log_bytes, "again and again");
    drop(store);

    let path = folder.path().join("damaged");
    let store = Store::options().scrub(Some(Duration::ZERO)).auto_compact(None).open(&path).unwrap();
    store.insert("damaged", [5; 50]).unwrap();
    (0..3000_u32).for_each(|number| store.insert(number.to_le_bytes(), [8; 100]).unwrap());
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(50).position(|window| window == [5; 50]).unwrap() as u64;
    // The header and the key are 40 bytes, the length of the value stands 8 bytes behind their beginning.
    support::overwrite(&path, at - 40 + 8, &[0xff, 0xff]);
    let before = store.stats().unwrap().damage.scrubbed_bytes;
    store.maintain(Duration::ZERO).unwrap();
    let damage = store.stats().unwrap().damage;
    assert_eq!((damage.found, damage.findings[0].offset), (1, at - 40));
    assert!(damage.scrubbed_bytes - before > store.stats().unwrap().log_bytes / 2, "it has gone on");
}

#[test]
fn shares_that_make_no_sense_are_refused() {
    let folder = folder();
    for share in [0.0, 1.0, -0.5, 7.0, f64::NAN] {
        let refused = Options::default().auto_compact(Some(share)).open(folder.path().join("store"));
        assert!(matches!(refused, Err(Error::InvalidOptions { .. })), "{share}");
    }
}

/// A smaller index is being built for the rest of a map, and then much more is inserted than fits into it.
#[test]
fn an_emptied_map_is_filled_again_before_its_index_has_shrunk() {
    for at_once in [false, true] {
        let folder = folder();
        let store = Store::options().tiny_steps().open(folder.path().join("store")).unwrap();
        let key = |number: u32| format!("key {number}");
        let mut given_up = 0;
        for round in 0..30_u32 {
            let mut batch = store.begin().unwrap();
            (0..6000).for_each(|number| batch.insert(key(number), "old").unwrap());
            batch.commit().unwrap();
            let mut batch = store.begin().unwrap();
            (0..5990).for_each(|number| assert!(batch.remove(key(number)).unwrap()));
            batch.commit().unwrap();
            for _ in 0..round {
                store.insert(key(5995), "step").unwrap();
            }
            let Some(resize) = store.stats().unwrap().resize else { continue };
            given_up += u32::from(resize.target_lines * 6 < 2000);
            let new = |number: u32| key(10_000 + number);
            if at_once {
                let mut batch = store.begin().unwrap();
                (0..2000).for_each(|number| batch.insert(new(number), "new").unwrap());
                batch.commit().unwrap();
            } else {
                (0..2000).for_each(|number| store.insert(new(number), "new").unwrap());
            }
            assert_eq!(store.len().unwrap(), 2010);
            (0..2000).for_each(|number| assert!(store.contains_key(new(number)).unwrap()));
            assert_clean(&store);
            store.clear().unwrap();
        }
        assert!(given_up > 0, "a smaller index was being built");
    }
}
