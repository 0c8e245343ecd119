//! Stores that have used up the numbers of their file format: they can be read in each way, and a write gets an error
//! that says what to do.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slotlog::format::{
    COUNT_BITS, COUNT_MASK, LAST_COUNT, MAX_COUNT, MAX_INCARNATION, SUPERBLOCK_A, SUPERBLOCK_B, Superblock,
};
use slotlog::{Access, Error, Numbers, Opened, Store};
use support::{assert_clean, folder};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

/// Rewrites the superblocks of a closed store.
fn craft(path: &Path, change: impl Fn(&mut Superblock)) {
    let mut bytes = fs::read(path).unwrap();
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        let place = &mut bytes[at as usize..][..size_of::<Superblock>()];
        let mut superblock = Superblock::read_from_bytes(place).unwrap();
        if superblock.holds() {
            change(&mut superblock);
            place.copy_from_slice(superblock.sealed().as_bytes());
        }
    }
    fs::write(path, bytes).unwrap();
}

/// A closed store with a key, whose next commit has the count `count`.
fn counted(count: u64) -> (TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    craft(&path, |superblock| {
        let seq = superblock.next_seq.get();
        superblock.next_seq = (seq & !COUNT_MASK | count).into();
    });
    (folder, path)
}

#[track_caller]
fn exhausted<T: std::fmt::Debug>(done: slotlog::Result<T>, numbers: Numbers) {
    match done {
        Err(error @ Error::NumbersExhausted { what, .. }) if what == numbers => {
            assert!(
                error.to_string().ends_with("copy the contents, which can still be read, to a new store"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_readable(store: &Store, keys: u64) {
    assert_eq!(store.get("key").unwrap().unwrap(), b"value");
    assert_eq!(store.snapshot().unwrap().iter().map(Result::unwrap).count() as u64, keys);
    assert_clean(store);
}

fn every_change_is_refused(store: &Store) {
    let seq = store.seq().unwrap();
    exhausted(store.insert("another", "value"), Numbers::Commits);
    exhausted(store.remove("key"), Numbers::Commits);
    exhausted(store.clear(), Numbers::Commits);
    exhausted(store.begin().map(drop), Numbers::Commits);
    exhausted(store.map::<u32, u32>("map").map(drop), Numbers::Commits);
    exhausted(store.compact(), Numbers::Commits);
    assert!(!store.maintain(Duration::from_millis(1)).unwrap(), "there is nothing that it could do");
    assert_eq!(store.seq().unwrap(), seq, "what is refused uses no number");
}

#[test]
fn commits_end_and_reading_goes_on() {
    let (folder, path) = counted(LAST_COUNT - 20);
    let store = Store::open(&path).unwrap();
    let mut keys = 1;
    let refused = loop {
        assert!(keys < 30, "it goes on and on");
        match store.insert(format!("key {keys}"), "value") {
            Ok(()) => keys += 1,
            Err(error) => break error,
        }
    };
    exhausted::<()>(Err(refused), Numbers::Commits);
    assert!(keys > 10, "{keys} keys");
    every_change_is_refused(&store);
    assert_readable(&store, keys);
    store.sync().unwrap();
    store.checkpoint().unwrap();
    // The power is cut.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_readable(&reader, keys);
    drop(reader);
    store.close().unwrap();

    for (path, closed) in [(&path, true), (&copy, false)] {
        // Those that change nothing first.
        for access in [Access::ReadOnly, Access::CopyOnWrite, Access::ReadWrite] {
            let store = Store::options().access(access).open(path).unwrap();
            assert_eq!(store.opened() == Opened::Clean, closed, "{access:?}");
            assert_readable(&store, keys);
            if access != Access::ReadOnly {
                every_change_is_refused(&store);
            }
            store.close().unwrap();
        }
        assert_eq!(Store::open(path).unwrap().opened(), Opened::Clean, "it was closed like any other");
    }
}

#[test]
fn a_store_opens_up_to_the_last_number() {
    let (_folder, path) = counted(MAX_COUNT);
    for access in [Access::ReadOnly, Access::CopyOnWrite, Access::ReadWrite] {
        let store = Store::options().access(access).open(&path).unwrap();
        assert_readable(&store, 1);
    }
    let (_folder, path) = counted(MAX_COUNT + 1);
    assert!(matches!(Store::open(&path), Err(Error::Corrupt { .. })), "nothing comes there");
}

#[test]
fn recoveries_end_and_reading_goes_on() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().close().unwrap();
    let seq = (MAX_INCARNATION - 1) << COUNT_BITS | 1;
    craft(&path, |superblock| {
        (superblock.head_seq, superblock.next_seq) = (seq.into(), seq.into());
    });
    let cut = |path: &Path, name: &str| {
        let copy = folder.path().join(name);
        fs::copy(path, &copy).unwrap();
        copy
    };
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let last = cut(&path, "last life");
    drop(store);

    // A recovery in memory begins no life of the file, however often it is done.
    for access in [Access::ReadOnly, Access::CopyOnWrite].into_iter().cycle().take(6) {
        let store = Store::options().access(access).open(&last).unwrap();
        assert!(matches!(store.opened(), Opened::AfterPowerCut { records: 1, .. }));
        assert_readable(&store, 1);
        assert_eq!(u64::from(store.seq().unwrap()) >> COUNT_BITS, MAX_INCARNATION - 1, "{access:?}");
    }
    let store = Store::open(&last).unwrap();
    assert_eq!(u64::from(store.seq().unwrap()) >> COUNT_BITS, MAX_INCARNATION);
    store.insert("in the last life", "value").unwrap();
    let over = cut(&last, "no life left");
    // It works until the power is cut.
    store.close().unwrap();
    let store = Store::open(&last).unwrap();
    store.insert("more", "value").unwrap();
    assert_readable(&store, 3);

    let before = fs::read(&over).unwrap();
    exhausted(Store::open(&over), Numbers::Recoveries);
    for access in [Access::ReadOnly, Access::CopyOnWrite] {
        let store = Store::options().access(access).open(&over).unwrap();
        assert_readable(&store, 2);
        if access == Access::CopyOnWrite {
            store.insert("a third", "value").unwrap();
            store.compact().unwrap();
            assert_readable(&store, 3);
        }
    }
    assert!(fs::read(&over).unwrap() == before, "nothing of it was changed");
}
