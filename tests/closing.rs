//! Closing: what keeps a file open, and how a program learns of it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::{hint, thread};

use slotlog::{Error, Opened, Store};

mod support;

/// Something that keeps a store open.
type Keeper = Box<dyn Any>;

/// Gets one from a store.
type Keep = fn(&Store) -> Keeper;

/// Everything that a program can get from a store.
fn keepers() -> [(&'static str, Keep); 6] {
    [
        ("a clone", |store| Box::new(store.clone())),
        ("a map", |store| Box::new(store.map::<str, str>("names").unwrap())),
        ("a snapshot", |store| Box::new(store.snapshot().unwrap())),
        ("a transaction", |store| Box::new(store.begin().unwrap())),
        ("changes", |store| Box::new(store.changes_since(store.seq().unwrap()).unwrap())),
        ("an iterator", |store| Box::new(store.map::<str, str>("names").unwrap().iter().unwrap())),
    ]
}

#[test]
fn whoever_closes_is_told_what_keeps_the_file_open() {
    let folder = support::folder();
    for background in [false, true] {
        for (number, (name, keep)) in keepers().into_iter().enumerate() {
            let path = folder.path().join(format!("{number} {background}"));
            let open = || Store::options().background_maintenance(background).open(&path).unwrap();
            let store = open();
            store.insert("key", "value").unwrap();
            assert_eq!(store.handles(), 1, "background: {background}");
            let keeper = keep(&store);
            assert_eq!(store.handles(), 2, "{name}, background: {background}");
            match store.close_last() {
                Err(Error::StillOpen { path: named, handles }) => assert_eq!((named, handles), (path.clone(), 1)),
                other => panic!("{name}: {other:?}"),
            }
            // It is still open indeed.
            assert_eq!(open().opened(), Opened::Attached, "{name}");
            drop(keeper);
            let store = open();
            assert_eq!(store.opened(), Opened::Clean, "{name} was the last one");
            assert_eq!(store.get("key").unwrap().unwrap(), b"value");
            store.close_last().unwrap();
            assert_eq!(open().opened(), Opened::Clean);
        }
    }
}

#[test]
fn closing_one_of_many_is_no_error() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let others = [store.clone(), store.clone()];
    store.close().unwrap();
    for (left, other) in [1, 0].into_iter().zip(others) {
        assert_eq!(other.handles(), left + 1);
        other.insert("key", "value").unwrap();
        other.close().unwrap();
    }
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Clean);
}

/// Waits until all threads are here. With two processors they continue within a few nanoseconds of each other.
fn meet(ready: &AtomicUsize, all: usize) {
    ready.fetch_add(1, Ordering::SeqCst);
    for looks in 0_u32.. {
        if ready.load(Ordering::SeqCst) >= all {
            break;
        }
        // There may be only one processor, or others want it.
        if looks % 1000 == 999 { thread::yield_now() } else { hint::spin_loop() }
    }
}

#[test]
fn of_several_who_close_the_last_handles_exactly_one_closes_the_store() {
    const ROUNDS: usize = 2_000;

    let folder = support::folder();
    let path = folder.path().join("store");
    let ready = AtomicUsize::new(0);
    let stop = |outcome: slotlog::Result<()>| match outcome {
        Ok(()) => 1,
        Err(Error::StillOpen { .. }) => 0,
        other => panic!("{other:?}"),
    };
    thread::scope(|scope| {
        let (send, stores) = mpsc::channel::<Store>();
        let (tell, told) = mpsc::channel();
        let ready = &ready;
        scope.spawn(move || {
            for (round, store) in stores.into_iter().enumerate() {
                meet(ready, 2 * round + 2);
                tell.send(stop(store.close_last())).unwrap();
            }
        });
        for round in 0..ROUNDS {
            let store = match round % 20 {
                0 => Store::options().background_maintenance(round % 40 == 0).open(&path).unwrap(),
                _ => Store::in_memory().unwrap(),
            };
            assert!(matches!(store.opened(), Opened::Created | Opened::Clean), "round {round}: {:?}", store.opened());
            send.send(store.clone()).unwrap();
            meet(ready, 2 * round + 2);
            let here = stop(store.close_last());
            assert_eq!(here + told.recv().unwrap(), 1, "round {round}");
        }
        drop(send);
    });
}

/// Closing a small store compacts it, which shortens the history that followers can read.
#[test]
fn closing_a_small_store_shortens_its_history_unless_it_is_not_to_be_compacted() {
    let folder = support::folder();
    // Few enough dead bytes not to be cleaned by writes; or more in use than closing compacts.
    for (dead_share, values, is_shortened) in [(Some(0.5), 20, true), (None, 20, false), (Some(0.5), 4_000, false)] {
        let path = folder.path().join(format!("{dead_share:?} {values}"));
        let open = || Store::options().auto_compact(dead_share).open(&path).unwrap();
        let store = open();
        let seen = store.seq().unwrap();
        // A third is dead at the end.
        for number in (0..values).chain(0..values / 2) {
            store.insert(u32::to_le_bytes(number), [7; 3_000]).unwrap();
        }
        let changes = values as usize * 3 / 2;
        assert_eq!(store.changes_since(seen).unwrap().iter().count(), changes);
        store.close_last().unwrap();
        match open().changes_since(seen) {
            Ok(found) => assert_eq!((found.iter().count(), is_shortened), (changes, false), "{values} values"),
            Err(Error::HistoryTruncated { .. }) => assert!(is_shortened, "{dead_share:?}, {values} values"),
            Err(other) => panic!("{other:?}"),
        }
    }
}
