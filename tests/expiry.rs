//! Entries with a deadline: reads no longer see them from then on, and the file drops them some time later.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::thread;
use std::time::{Duration, SystemTime};

use slotlog::Expiry;
use slotlog::{Access, ChangeKind, Map, Store};
use support::{assert_clean, folder};

const HOUR: Duration = Duration::from_secs(3600);

fn in_an_hour() -> SystemTime {
    SystemTime::now() + HOUR
}

/// To the millisecond, as a deadline is stored.
fn rounded(at: SystemTime) -> SystemTime {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
}

fn cache(store: &Store) -> Map<u32, [u8]> {
    store.map("cache").unwrap()
}

#[test]
fn an_entry_is_absent_from_its_deadline_on() {
    let store = Store::in_memory().unwrap();
    let map = store.map::<str, u32>("map").unwrap();
    let soon = SystemTime::now() + Duration::from_millis(300);
    map.insert_with_expiry("soon", 1, soon).unwrap();
    map.insert_with_expiry("later", 2, in_an_hour()).unwrap();
    map.insert_with_expiry("before 1970", 3, SystemTime::UNIX_EPOCH - HOUR).unwrap();
    map.insert("never", 4).unwrap();
    store.insert_with_expiry("soon", "1", soon).unwrap();
    let before = store.snapshot().unwrap();
    if SystemTime::now() < soon - Duration::from_millis(100) {
        assert_eq!(map.get("soon").unwrap(), Some(1));
        assert_eq!(map.expiry("soon").unwrap(), Some(Expiry::At(rounded(soon))));
        assert_eq!(store.get("soon").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(store.expiry("soon").unwrap(), Some(Expiry::At(rounded(soon))));
    }
    let saw_it = before.of(&map).get("soon").unwrap();
    while SystemTime::now() < soon {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(map.get("soon").unwrap(), None);
    assert_eq!(map.get("before 1970").unwrap(), None);
    assert_eq!(store.snapshot().unwrap().of(&map).get("soon").unwrap(), None);
    assert!(!map.contains_key("soon").unwrap());
    assert_eq!(map.expiry("soon").unwrap(), None);
    assert_eq!(map.expiry("never").unwrap(), Some(Expiry::Never));
    assert_eq!(map.get_many(&["soon", "later", "never"]).unwrap(), [None, Some(2), Some(4)]);
    let mut keys: Vec<String> = map.keys().unwrap().map(Result::unwrap).collect();
    keys.sort();
    assert_eq!(keys, ["later", "never"]);
    assert_eq!(store.get("soon").unwrap(), None);
    assert_eq!(store.snapshot().unwrap().iter().count(), 0);
    let transaction_sees = {
        let mut transaction = store.begin().unwrap();
        (transaction.get("soon").unwrap(), transaction.of(&map).get("soon").unwrap())
    };
    assert_eq!(transaction_sees, (None, None));
    assert_eq!(map.len().unwrap(), 4, "they count until they are removed");

    assert!(saw_it.is_some() && before.of(&map).get("soon").unwrap() == saw_it, "a snapshot goes on seeing it");
    assert_eq!(before.of(&map).len().unwrap(), 3);
    assert_eq!(before.get("soon").unwrap(), Some(&b"1"[..]));
    assert_clean(&store);
}

#[test]
fn the_figures_of_a_map_whose_entries_have_expired() {
    let store = Store::in_memory().unwrap();
    let map = store.map::<u32, u32>("map").unwrap();
    let figures = || store.stats().unwrap().maps.into_iter().find(|map| map.name == "map").unwrap();
    for key in 0..20 {
        map.insert_with_expiry(key, 7, SystemTime::now()).unwrap();
    }
    assert_eq!((map.len().unwrap(), map.is_empty().unwrap(), map.iter().unwrap().count()), (20, false, 0));
    let all = figures();
    assert_eq!((all.entries, all.expired_bytes), (20, all.live_bytes));
    for key in 20..40 {
        map.insert_with_expiry(key, 7, in_an_hour()).unwrap();
    }
    let half = figures();
    assert_eq!((half.entries, half.live_bytes, half.expired_bytes), (40, 2 * all.live_bytes, all.live_bytes));
    map.clear().unwrap();
    assert_eq!((figures().entries, figures().expired_bytes), (0, 0));
}

/// A change of an expired entry finds none.
#[test]
fn an_expired_entry_is_as_good_as_none() {
    let store = Store::in_memory().unwrap();
    let map = store.map::<u8, u32>("map").unwrap();
    let expire = || (0..8).for_each(|key| map.insert_with_expiry(key, 7, SystemTime::now()).unwrap());
    expire();
    assert!(!map.remove(0).unwrap());
    assert_eq!(map.take(1).unwrap(), None);
    assert_eq!(map.replace(2, 1).unwrap(), None);
    assert_eq!(map.update(3, |old| Some(old.map_or(1, |old| old + 1))).unwrap(), Some(1));
    assert_eq!(map.entry(4).and_modify(|value| *value += 1).or_insert(1).unwrap(), 1);
    assert_eq!(map.compare_exchange(5, Some(&7), Some(&1)).unwrap(), Err(None));
    assert_eq!(map.compare_exchange(5, None, Some(&1)).unwrap(), Ok(()));
    assert_eq!(map.entry(6).commit().unwrap(), None);
    let mut entries: Vec<_> = map.iter().unwrap().map(Result::unwrap).collect();
    entries.sort_unstable();
    assert_eq!(entries, [(2, 1), (3, 1), (4, 1), (5, 1)]);
    assert_eq!(map.retain(|_, _| false).unwrap(), 4);
    expire();
    assert_eq!(map.pop().unwrap(), None);
    assert_eq!(map.drain().unwrap().count(), 0);
    assert_eq!(map.len().unwrap(), 0);
    assert_clean(&store);
}

#[test]
fn what_keeps_a_deadline_and_what_does_not() {
    let store = Store::in_memory().unwrap();
    let map = store.map::<str, u32>("map").unwrap();
    let at = rounded(in_an_hour());
    let with_deadline = || map.insert_with_expiry("key", 1, at).unwrap();
    let deadline = || map.expiry("key").unwrap().unwrap();
    with_deadline();
    map.update("key", |value| value.map(|value| value + 1)).unwrap();
    assert_eq!(deadline(), Expiry::At(at));
    map.entry("key").and_modify(|value| *value += 1).or_insert(0).unwrap();
    assert_eq!(deadline(), Expiry::At(at));
    map.compare_exchange("key", Some(&3), Some(&4)).unwrap().unwrap();
    assert_eq!((map.get("key").unwrap(), deadline()), (Some(4), Expiry::At(at)));
    assert!(map.set_expiry("key", at).unwrap());
    map.insert("key", 5).unwrap();
    assert_eq!(deadline(), Expiry::Never);
    with_deadline();
    map.replace("key", 6).unwrap();
    assert_eq!(deadline(), Expiry::Never);
    let mut transaction = store.begin().unwrap();
    transaction.of(&map).insert_with_expiry("key", 7, at).unwrap();
    transaction.commit().unwrap();
    assert_eq!((map.get("key").unwrap(), deadline()), (Some(7), Expiry::At(at)));
}

/// Deadlines are in the log: they survive kills, power cuts, read-only opening, and compaction.
#[test]
fn a_deadline_survives_what_its_entry_survives() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().tiny_steps().open(&path).unwrap();
    let at = rounded(in_an_hour());
    let check = |store: &Store| {
        let map = store.map::<u32, [u8]>("cache").unwrap();
        for number in 0..50 {
            let alive = number % 2 == 0;
            assert_eq!(map.get(number).unwrap().as_deref(), alive.then_some(&b"value"[..]));
            assert_eq!(map.expiry(number).unwrap(), alive.then_some(Expiry::At(at)));
        }
    };
    for number in 0..50 {
        cache(&store)
            .insert_with_expiry(number, b"value", if number % 2 == 0 { at } else { SystemTime::now() })
            .unwrap();
    }
    check(&store);
    check(&Store::options().access(Access::ReadOnly).open(&path).unwrap());
    store.compact().unwrap();
    for round in 0..2000_u32 {
        // Makes everything move, many times.
        store.insert((round % 7).to_le_bytes(), [7; 50]).unwrap();
    }
    check(&store);
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    check(&Store::open(&copy).unwrap());
    store.close().unwrap();
    check(&Store::open(&path).unwrap());
    check(&Store::options().access(Access::ReadOnly).open(&path).unwrap());
}

#[test]
fn compaction_drops_what_has_expired() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    let map = cache(&store);
    map.insert(u32::MAX, b"stays").unwrap();
    for number in 0..20_000 {
        map.insert_with_expiry(number, [7; 100], SystemTime::now()).unwrap();
    }
    let before = store.seq().unwrap();
    let report = store.compact().unwrap();
    assert!(report.finished && store.stats().unwrap().log_bytes < 100_000, "{report:?}");
    assert_eq!(map.len().unwrap(), 1);
    assert_eq!(map.get(u32::MAX).unwrap().as_deref(), Some(&b"stays"[..]));
    assert_clean(&store);
    assert!(store.seq().unwrap() > before);
}

/// Followers of the log see the removal of an expired entry like any other remove.
#[test]
fn the_removal_is_a_change() {
    let folder = folder();
    let store = Store::options().tiny_steps().open(folder.path().join("store")).unwrap();
    store.insert_with_expiry("gone", "value", SystemTime::now()).unwrap();
    store.insert("other", "value").unwrap();
    for _ in 0..10_000 {
        let seen = store.seq().unwrap();
        store.insert("other", "value").unwrap();
        if store.len().unwrap() == 1 {
            let changes = store.changes_since(seen).unwrap();
            let kinds: Vec<_> = changes.iter().map(|change| change.unwrap().kind).collect();
            let insert = ChangeKind::Insert { key: b"other", value: b"value" };
            assert_eq!(kinds, [insert, ChangeKind::Remove { key: b"gone" }]);
            return;
        }
    }
    panic!("it was never removed");
}

/// A cache whose entries all expire does not grow, whether they are overwritten or not; nor does one that also has
/// lasting entries.
#[test]
fn a_cache_does_not_grow() {
    for permanent_every in [u32::MAX, 10] {
        let folder = folder();
        let store = Store::open(folder.path().join("store")).unwrap();
        let map = cache(&store);
        let mut permanent = 0;
        for number in 0..60_000 {
            if number % permanent_every == 1 {
                map.insert(number, [7; 100]).unwrap();
                permanent += 1;
            } else {
                map.insert_with_expiry(number, [7; 100], SystemTime::now()).unwrap();
            }
        }
        let (len, file_len) = (map.len().unwrap(), store.stats().unwrap().file_len);
        let most = 4 * (permanent * 160 + (1 << 20));
        assert!(file_len < most, "{file_len} bytes of at most {most}, with {len} entries of which {permanent} stay");
        assert_eq!(map.iter().unwrap().count() as u64, permanent);
        assert_clean(&store);
    }
}

/// Without a write, [`Store::maintain`] finds out that there is something to gain.
#[test]
fn maintenance_finds_what_has_expired() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let soon = SystemTime::now() + Duration::from_millis(1500);
    cache(&store).extend([(u32::MAX, b"stays".to_vec())]).unwrap();
    let mut transaction = store.begin().unwrap();
    for number in 0..20_000 {
        transaction.of(&cache(&store)).insert_with_expiry(number, [7; 100], soon).unwrap();
    }
    transaction.commit().unwrap();
    assert_eq!(cache(&store).len().unwrap(), 20_001);
    store.close().unwrap();
    while SystemTime::now() < soon {
        thread::sleep(Duration::from_millis(50));
    }
    let store = Store::open(&path).unwrap();
    for _ in 0..1000 {
        if !store.maintain(Duration::from_millis(10)).unwrap() {
            break;
        }
    }
    let len = cache(&store).len().unwrap();
    assert!(len < 15_000, "{len} entries are left of which one has not expired");
    assert_eq!(cache(&store).iter().unwrap().count(), 1);
    assert_clean(&store);
}

/// The estimate of expired bytes in a map that was dropped, or cleared by another process, does not affect the rest.
#[test]
fn an_estimate_is_not_kept_when_the_map_is_gone() {
    for by_another in [false, true] {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().tiny_steps().open(&path).unwrap();
        let other = Store::open(&path).unwrap();
        for number in 0..200_u32 {
            store.insert(number.to_le_bytes(), [7; 500]).unwrap();
        }
        let soon = SystemTime::now() + Duration::from_millis(200);
        let map = cache(&store);
        let mut transaction = store.begin().unwrap();
        for number in 0..200 {
            transaction.of(&map).insert_with_expiry(number, [7; 500], soon).unwrap();
        }
        transaction.commit().unwrap();
        while SystemTime::now() < soon {
            thread::sleep(Duration::from_millis(10));
        }
        // Now the expired amount is known.
        map.insert(1, [1]).unwrap();
        if by_another {
            cache(&other).clear().unwrap();
        } else {
            store.drop_map("cache").unwrap();
        }
        let before = store.stats().unwrap().upkeep.moved_bytes;
        for number in 0..500_u32 {
            store.insert(number.to_be_bytes(), [7; 100]).unwrap();
        }
        let moved = store.stats().unwrap().upkeep.moved_bytes - before;
        assert!(moved < 400_000, "{moved} bytes were moved for 500 inserts");
    }
}
