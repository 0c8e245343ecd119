//! What is not believed: values that look like records, space that was freed, and what was never committed.

use slotlog::format::Shortcut;
use slotlog::zerocopy::IntoBytes;

use super::*;

/// The bytes of a record that puts a key in the default map.
fn fake(key: &[u8], value: &[u8], (seq, chain, flags): (u64, u32, u8)) -> Vec<u8> {
    let header = RecordHeader {
        crc: 0.into(),
        chain: chain.into(),
        value_len: (value.len() as u32).into(),
        key_len: (key.len() as u16).into(),
        kind: Kind::Put as u8,
        flags,
        seq: seq.into(),
        prev_and_map: RecordHeader::pack_prev_and_map(0, MapId(1)),
    };
    let mut bytes = header.as_bytes().to_vec();
    for part in [key, value] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Several records that follow each other.
fn fakes(first: u64, count: u64) -> Vec<u8> {
    let (mut bytes, mut chain) = (Vec::new(), 0x1234);
    for number in 0..count {
        let record = fake(b"never was", b"never", (first + number, chain, flags::COMMIT | flags::NEW));
        chain = u32::from_le_bytes(record[..4].try_into().unwrap());
        bytes.extend(record);
    }
    bytes
}

fn keys(store: &Store) -> Vec<String> {
    content(store).into_keys().map(|key| String::from_utf8(key).unwrap()).collect()
}

/// A store in which a value looks like records with numbers from `first` on, relative to its own.
fn with_fakes(first: i64, count: u64) -> (Vec<u8>, Logged) {
    let bytes = closed_store(|store| {
        for number in 0..50 {
            store.insert(format!("key {number:02}"), "before").unwrap();
        }
        // A closed store's log has no gaps, so this is the number of the next commit.
        let own = (1 << 44) + store.stats().unwrap().commits + 1;
        store.insert("hostile", fakes(own.wrapping_add_signed(first), count)).unwrap();
        for number in 50..100 {
            store.insert(format!("key {number:02}"), "after").unwrap();
        }
    });
    let record = log(&bytes).into_iter().find(|record| record.key == b"hostile").unwrap();
    (bytes, record)
}

#[test]
fn a_value_that_looks_like_records_is_a_value() {
    for first in [-30, -1, 0, 1, 30] {
        for count in [1, 2, 20] {
            let (bytes, record) = with_fakes(first, count);
            let (store, report) = repaired(&bytes, RepairOptions::new());
            assert!(report.is_whole(), "{report:#?}");
            assert_eq!(store.get("hostile").unwrap().as_ref(), Some(&record.value));
            assert_eq!(store.get("never was").unwrap(), None);
        }
    }
}

/// The record that contains it is damaged, in its header or in its value, and everything else that tells as well.
#[test]
fn a_damaged_value_that_looks_like_records_is_lost() {
    for first in [-30, -1, 0, 1, 2, 30] {
        for count in [1, 2, 20] {
            for (at, len) in [(0, 1), (4, 1), (8, 4), (15, 1), (24, 1), (0, 32), (0, 4), (0, 12), (-200, 232)] {
                for front in [0, 8192, 12288] {
                    let (mut bytes, record) = with_fakes(first, count);
                    bytes[..front].fill(0);
                    let at = record.at.checked_add_signed(at).unwrap();
                    for byte in &mut bytes[at..at + len] {
                        *byte ^= 0xff;
                    }
                    let (store, report) = repaired(&bytes, RepairOptions::new());
                    let what = format!("{first}, {count}, {at}, {len}, {front}: {:?}", report.findings());
                    // Without an index, four damaged records leave so much room that this looks like one of them.
                    let is_open = len == 232 && front == 12288 && report.doubtful_keys() > 0;
                    assert!(store.get("never was").unwrap().is_none() || is_open, "{what}");
                    let lost = if len == 232 { 6 } else { 1 };
                    assert!(keys(&store).len() >= 101 - lost && store.get("hostile").unwrap().is_none(), "{what}");
                    assert!(report.doubtful_records() >= 1 || count == 1, "{what}");
                }
            }
        }
    }
}

/// A value that is a whole store.
#[test]
fn a_store_inside_a_store_stays_there() {
    let inner = closed_store(|store| change(store, &mut Random(1), 1000, 100));
    let bytes = closed_store(|store| {
        for number in 0..1500 {
            store.insert(format!("outer {}", number % 100), format!("{number}")).unwrap();
        }
        store.insert("inner", &inner).unwrap();
        for number in 0..10 {
            store.insert(format!("outer {number}"), "last").unwrap();
        }
    });
    let record = log(&bytes).into_iter().find(|record| record.key == b"inner").unwrap();
    for front in [0, 8192, 65536] {
        for (at, len) in [(0, 32), (8, 4), (70_000, 1)] {
            let mut damaged = bytes.clone();
            damaged[..front].fill(0);
            damaged[record.at + at..][..len].fill(0xa5);
            let (store, report) = repaired(&damaged, RepairOptions::new());
            let mut expected: Vec<String> = (0..100).map(|number| format!("outer {number}")).collect();
            expected.sort();
            assert_eq!(keys(&store), expected, "{front}, {at}: {:?}", report.findings());
            assert_eq!(content(&store).values().filter(|value| *value == b"last").count(), 10);
            assert!(store.maps().unwrap().is_empty());
        }
    }
}

#[test]
fn what_was_freed_stays_away() {
    for seed in 1..20 {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().tiny_steps().open(&path).unwrap();
        let mut random = Random(seed);
        for number in 0..40u32 {
            store.insert(format!("gone {number}"), random.bytes(60)).unwrap();
        }
        for number in 0..40u32 {
            store.remove(format!("gone {number}")).unwrap();
        }
        for number in 0..600u32 {
            store.insert(format!("here {}", number % 50), random.bytes(80)).unwrap();
        }
        let before = content(&store);
        store.close_last().unwrap();
        let whole = fs::read(&path).unwrap();
        for front in [0, 8192, 12288] {
            let mut damaged = whole.clone();
            damaged[..front].fill(0);
            let (store, report) = repaired(&damaged, RepairOptions::new());
            assert_eq!(content(&store), before, "{seed}, {front}: {:?}", report.findings());
        }
        // With a hole in the log as well.
        let log = log(&whole);
        let victim = &log[random.below(log.len() as u64) as usize];
        for front in [0, 8192] {
            let mut damaged = whole.clone();
            damaged[..front].fill(0);
            damaged[victim.at..victim.end()].fill(0xff);
            let (store, report) = repaired(&damaged, RepairOptions::new());
            let found = content(&store);
            assert!(found.iter().all(|(key, value)| before.get(key) == Some(value)), "{:?}", report.findings());
            assert!(found.len() + 1 >= before.len(), "{:?}", report.findings());
        }
    }
}

#[test]
fn what_was_not_committed_stays_away() {
    let folder = folder();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::open(&path).unwrap();
    for number in 0..20 {
        store.insert(format!("key {number:02}"), "committed").unwrap();
    }
    let mut transaction = store.begin().unwrap();
    for number in 10..30 {
        transaction.insert(format!("key {number:02}"), "not committed").unwrap();
    }
    fs::copy(&path, &copy).unwrap();
    drop(transaction);
    let bytes = fs::read(&copy).unwrap();
    for front in [0, 8192, 65536] {
        let mut damaged = bytes.clone();
        damaged[..front].fill(0);
        let (store, report) = repaired(&damaged, RepairOptions::new());
        let found = content(&store);
        assert!(found.len() == 20 && found.values().all(|value| value == b"committed"), "{:?}", report.findings());
    }
    // And after it was rolled back, others went on over it.
    store.insert("key 00", "later").unwrap();
    fs::copy(&path, &copy).unwrap();
    let bytes = fs::read(&copy).unwrap();
    for front in [0, 8192, 65536] {
        let mut damaged = bytes.clone();
        damaged[..front].fill(0);
        let (store, report) = repaired(&damaged, RepairOptions::new());
        let found = content(&store);
        assert_eq!(found.len(), 20, "{:?}", report.findings());
        assert_eq!(found.values().filter(|value| *value == b"committed").count(), 19);
    }
    assert_eq!(size_of::<Shortcut>(), 16, "none of these records has one");
}

/// A key whose newest record is damaged does not come back as what it was before, unless that is asked for.
#[test]
fn a_lost_removal_brings_nothing_back_unless_asked() {
    let bytes = closed_store(|store| {
        for number in 0..200 {
            store.insert(format!("key {number:03}"), "value").unwrap();
        }
        for number in 0..200 {
            if number % 2 == 0 {
                store.remove(format!("key {number:03}")).unwrap();
            } else {
                store.insert(format!("key {number:03}"), "newer").unwrap();
            }
        }
    });
    let log = log(&bytes);
    let mut random = Random(7);
    for (number, record) in log.iter().enumerate().filter(|(_, record)| record.header.prev() != 0).step_by(7) {
        let key = String::from_utf8(record.key.clone()).unwrap();
        // The last two without the front: now the record itself has to tell.
        for (at, front) in [(random.below(40), 0), (0, 0), (32, 0), (0, 12288), (4 + random.below(4), 8192)] {
            let mut damaged = bytes.clone();
            damaged[..front].fill(0);
            damaged[record.at + at as usize] ^= 0x10;
            let (store, report) = repaired(&damaged, RepairOptions::new());
            let what = format!("{number} {key} {at} {front}: {:?}", report.findings());
            assert_eq!(store.get(&key).unwrap(), None, "{what}");
            assert_eq!((report.lost_keys(), report.doubtful_keys()), (1, 0), "{what}");
            assert!(report.incomplete().contains(&record.seq()) && report.incomplete_count() <= 2, "{what}");
            let (store, report) = repaired(&damaged, RepairOptions::new().older_versions(true));
            assert_eq!(store.get(&key).unwrap().as_deref(), Some(&b"value"[..]), "{what}");
            assert_eq!((report.lost_keys(), report.older_keys()), (1, 1), "{what}");
        }
    }
}

#[test]
fn a_lost_clear_or_drop_brings_nothing_back() {
    let bytes = closed_store(|store| {
        for name in ["cleared", "dropped", "kept"] {
            let map = store.map::<[u8], [u8]>(name).unwrap();
            for number in 0..100u32 {
                map.insert(&number.to_le_bytes(), name.as_bytes()).unwrap();
            }
        }
        store.map::<[u8], [u8]>("cleared").unwrap().clear().unwrap();
        assert!(store.drop_map("dropped").unwrap());
        assert!(store.rename_map("kept", "renamed").unwrap());
    });
    let log = log(&bytes);
    for record in log.iter().filter(|record| record.kind() == Kind::Clear) {
        let mut damaged = bytes.clone();
        damaged[record.at + 20] ^= 1;
        let (store, report) = repaired(&damaged, RepairOptions::new());
        let found = everything(&store);
        let kept: BTreeMap<_, _> = found.into_iter().filter(|(_, map)| !map.is_empty()).collect();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["renamed"], "{:?}", report.findings());
        assert_eq!(kept["renamed"].len(), 100);
        assert!(!report.is_whole());
    }
}

#[test]
fn a_map_whose_name_is_lost_gets_another() {
    let bytes = closed_store(|store| {
        store.map_versioned::<str, u16>("ports", 3).unwrap().insert("http", 80).unwrap();
        store.insert("key", "value").unwrap();
    });
    let log = log(&bytes);
    let named = log.iter().find(|record| record.key == b"ports").unwrap();
    let mut damaged = bytes.clone();
    damaged[named.at + 4..named.at + 20].fill(7);
    let (store, report) = repaired(&damaged, RepairOptions::new());
    let maps = store.maps().unwrap();
    assert_eq!(maps[0].name, "lost map 2", "{:?}", report.findings());
    let ports = store.map::<[u8], [u8]>("lost map 2").unwrap();
    assert_eq!(ports.get(b"http".as_slice()).unwrap(), Some(80u16.to_le_bytes().to_vec()));
}
