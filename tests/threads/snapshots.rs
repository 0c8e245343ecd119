//! Snapshots.

use super::*;

#[test]
fn a_snapshot_outlives_the_store() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let snapshot = store.snapshot().unwrap();
    store.insert("key", "newer").unwrap();
    store.close().unwrap();
    assert_eq!(snapshot.get("key").unwrap(), Some(&b"value"[..]));
    let alone = Store::options().exclusive(true).open(&path);
    assert!(matches!(alone, Err(Error::Locked { .. })), "it keeps the file open: {alone:?}");
    thread::spawn(move || assert_eq!(snapshot.iter().count(), 1)).join().unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Clean, "the last one to go has closed it");
    assert_eq!(store.get("key").unwrap().unwrap(), b"newer");
}

/// Snapshots of `count` commits, each of which sees its own number.
pub(super) fn snapshots_of_commits(store: &Store, count: u64) -> Vec<Snapshot> {
    let snapshot = |number: u64| {
        store.insert("number", number.to_le_bytes()).unwrap();
        store.snapshot().unwrap()
    };
    (0..count).map(snapshot).collect()
}

pub(super) fn live_bytes(store: &Store) -> u64 {
    store.stats().unwrap().extents.iter().filter(|extent| extent.kind == "Live").map(|extent| extent.bytes).sum()
}

#[test]
fn views_of_one_commit_share_a_pin() {
    const MANY: usize = 10_000;

    let store = Store::in_memory().unwrap();
    let map = store.map::<str, str>("map").unwrap();
    map.insert("key", "value").unwrap();
    let snapshots: Vec<_> = (0..MANY).map(|_| store.snapshot().unwrap()).collect();
    let values: Vec<_> = (0..MANY).map(|_| map.get_ref("key").unwrap().unwrap()).collect();
    let iterators: Vec<_> = (0..MANY).map(|_| map.iter().unwrap()).collect();
    assert_eq!(store.stats().unwrap().pins, 1);
    map.insert("key", "newer").unwrap();
    // In another thread they may have another pin, and snapshots sent there keep their own.
    let elsewhere = thread::scope(|scope| {
        let (store, map) = (&store, &map);
        scope.spawn(move || (store.snapshot().unwrap(), values, map.get_ref("key").unwrap().unwrap())).join().unwrap()
    });
    let (snapshot, values, newer) = elsewhere;
    assert!(store.stats().unwrap().pins <= 3);
    assert_eq!((&*newer, snapshot.of(&map).get("key").unwrap().as_deref()), ("newer", Some("newer")));
    assert!(values.iter().all(|value| &**value == "value"));
    assert!(snapshots.iter().all(|snapshot| snapshot.of(&map).get("key").unwrap().unwrap() == "value"));
    for mut iterator in iterators {
        assert_eq!(iterator.next().unwrap().unwrap(), ("key".to_owned(), "value".to_owned()));
    }
    drop((snapshots, snapshot, values));
    assert_eq!(store.stats().unwrap().pins, 1, "that of the newer value");
    drop(newer);
    let stats = store.stats().unwrap();
    assert_eq!((stats.pins, stats.oldest_snapshot, live_bytes(&store)), (0, None, 0));
}

#[test]
fn there_is_a_pin_for_each_of_many_commits() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    assert_eq!(live_bytes(&store), 0);
    let snapshots = snapshots_of_commits(&store, 2000);
    assert_eq!(store.stats().unwrap().pins, 2000);
    assert!(live_bytes(&store) >= (2000 - slotlog::format::PINS) * slotlog::format::PIN_LEN);
    assert_clean(&store);
    for (number, snapshot) in (0_u64..).zip(&snapshots) {
        assert_eq!(snapshot.get("number").unwrap(), Some(&number.to_le_bytes()[..]));
    }
    // Threads find theirs as well, while they all exist.
    let here = Barrier::new(100);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                assert_eq!(store.get("number").unwrap().unwrap(), 1999_u64.to_le_bytes());
                here.wait();
                assert!(store.get_with("number", |_| store.len().unwrap()).unwrap().unwrap() == 1);
            });
        }
    });
    drop(snapshots);
    assert_eq!(store.stats().unwrap().pins, 0);
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!((store.opened(), live_bytes(&store)), (Opened::Clean, 0), "what the table had grown by is given back");
    assert_clean(&store);
}

/// Threads come and go, hold many commits each, shared or not, and release them in any order, while writers reuse the
/// space.
#[test]
fn many_commits_stay_what_they_are_while_the_table_of_pins_grows() {
    const KEYS: u64 = 16;
    const HOLDERS: u64 = 6;
    const HELD: usize = 250;

    fn look(snapshot: &Snapshot) {
        let number = snapshot.get(0_u64.to_le_bytes()).unwrap().unwrap();
        for key in 1..KEYS {
            let value = snapshot.get(key.to_le_bytes()).unwrap().unwrap();
            assert!(value == number, "a snapshot has changed");
        }
    }

    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let write = |number: u64| {
        let mut transaction = store.begin().unwrap();
        for key in 0..KEYS {
            transaction.insert(key.to_le_bytes(), number.to_string().repeat(30)).unwrap();
        }
        transaction.commit().unwrap();
    };
    write(0);
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for holder in 0..HOLDERS {
            let (done, most, path) = (&done, &most, &path);
            scope.spawn(move || {
                // Each has opened the store separately, so that they act towards each other like processes.
                let store = Store::open(path).unwrap();
                let mut random = Random(holder + 1);
                let mut held = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    held.push(store.snapshot().unwrap());
                    if held.len() > HELD {
                        look(&held.swap_remove(random.below(held.len() as u64) as usize));
                    }
                    if random.below(20) == 0 {
                        thread::scope(|scope| {
                            let elsewhere = scope.spawn(|| store.snapshot().unwrap());
                            let key = 7_u64.to_le_bytes();
                            assert!(store.get(key).unwrap().is_some());
                            look(&elsewhere.join().unwrap());
                        });
                        most.fetch_max(store.stats().unwrap().pins, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_micros(random.below(300)));
                }
                held.iter().for_each(look);
            });
        }
        // On a busy machine it takes the threads a while to hold that many commits.
        for number in 1..400_000 {
            write(number);
            if number >= 4000 && most.load(Ordering::Relaxed) > slotlog::format::PINS {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = store.stats().unwrap();
    assert_eq!(stats.pins, 0);
    assert!(most.into_inner() > slotlog::format::PINS, "so many at a time that the table had to grow");
    assert!(live_bytes(&store) > 0);
    assert_clean(&store);
}

#[test]
fn when_there_is_no_room_for_more_pins_readers_are_told_and_writers_go_on() {
    const PINS: u64 = slotlog::format::PINS;

    let store = Store::options().max_size(1 << 20).in_memory().unwrap();
    assert!(!store.contains_key("key").unwrap());
    for key in 0..2 * PINS {
        store.insert(key.to_le_bytes(), "").unwrap();
    }
    for len in [16 << 10, 1000, 100] {
        while store.insert(format!("{len} {}", store.len().unwrap()), vec![1; len]).is_ok() {}
    }
    // Removals always succeed, and each is a commit.
    let mut snapshots = Vec::new();
    let mut keys = (0..2 * PINS).map(u64::to_le_bytes);
    let error = loop {
        assert!(store.remove(keys.next().unwrap()).unwrap());
        match store.snapshot() {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::PinsExhausted { max: PINS, .. }), "{error}");
    assert!(snapshots.len() as u64 > PINS - 20, "{}", snapshots.len());
    let lens: BTreeSet<u64> = snapshots.iter().map(Snapshot::len).collect();
    assert_eq!(lens.len(), snapshots.len(), "each sees its own");
    // This thread has its pin. Another one gets none to keep, and there is none to share.
    store.contains_key("key").unwrap();
    let elsewhere = thread::scope(|scope| scope.spawn(|| store.contains_key("key")).join().unwrap());
    assert!(matches!(elsewhere, Err(Error::PinsExhausted { .. })));
    assert!(store.remove(keys.next().unwrap()).unwrap());
    let transaction = store.begin().unwrap();
    assert!(!transaction.contains_key("key").unwrap(), "a transaction needs no pin");
    transaction.rollback();
    assert_clean(&store);
    snapshots.pop();
    let elsewhere = thread::scope(|scope| scope.spawn(|| store.contains_key("key")).join().unwrap());
    assert!(!elsewhere.unwrap(), "one free pin is enough");
    drop(snapshots);
    // The pin that a thread keeps is free again when the thread ends.
    for _ in 0..2 * PINS {
        thread::scope(|scope| scope.spawn(|| store.contains_key("key").unwrap()).join().unwrap());
    }
    assert_eq!(store.stats().unwrap().pins, 0);
}
