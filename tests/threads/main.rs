//! Concurrency: threads that read and write one store, transactions that change threads, processes that want the same
//! file, and processes that are killed while they write.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod end_of_thread;
mod kills;
mod openers;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod transactions;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, LocalKey};
use std::time::{Duration, Instant};

use kills::*;
use openers::*;
use slotlog::{Access, Error, Opened, Snapshot, Store, Transaction};
use support::{Content, Random, assert_clean, content_of, folder, run_child, said, say, setting};

/// A value that names its counter and shows whether it is intact.
fn value(counter: u64, len: usize) -> Vec<u8> {
    let mut value = counter.to_le_bytes().to_vec();
    value.extend(Random(counter).bytes(len));
    value.extend(sum(&value).to_le_bytes());
    value
}

/// The counter of a [`value`], which must be intact.
#[track_caller]
fn counter(value: &[u8]) -> u64 {
    let (body, end) = value.split_at(value.len() - 8);
    assert_eq!(sum(body).to_le_bytes(), end, "a torn value");
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

/// FNV-1a.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

const PAIRS: u64 = 50;
const READERS: u64 = 8;
const WRITERS: u64 = 2;

/// Writes the data that the readers of the next test check: pairs in transactions, and more and more single keys, so
/// that the file and the index have to grow all the time.
fn write(store: &Store, writer: u64, ticket: &AtomicU64, turns: u64) {
    let mut random = Random(writer);
    for turn in 0..turns {
        // Each writer owns every second pair. The counters of a pair only ever rise.
        let pair = random.below(PAIRS / WRITERS) * WRITERS + writer;
        let value = value(ticket.fetch_add(1, Ordering::Relaxed), random.below(100) as usize);
        let mut transaction = store.begin().unwrap();
        transaction.insert(format!("a/{pair}"), &value).unwrap();
        if random.one_in(8) {
            // A transaction that is given up must never be seen; a counter this high would stay.
            transaction.insert(format!("b/{pair}"), self::value(u64::MAX, 0)).unwrap();
            transaction.rollback();
        } else {
            transaction.insert(format!("b/{pair}"), &value).unwrap();
            transaction.commit().unwrap();
        }
        store.insert(format!("single/{writer}/{turn}"), self::value(turn, 40)).unwrap();
        if random.one_in(3) {
            let gone = random.below(turn + 1);
            store.remove(format!("single/{writer}/{gone}")).unwrap();
        }
        if random.one_in(500) {
            store.checkpoint().unwrap();
        }
    }
}

/// Checks the invariants of every snapshot and between snapshots, until `done`. Returns the number of snapshots.
fn read(store: &Store, reader: u64, done: &AtomicBool) -> u64 {
    let mut random = Random(100 + reader);
    let mut seen = vec![0; PAIRS as usize];
    let mut rounds = 0;
    while !done.load(Ordering::Relaxed) {
        rounds += 1;
        // Single reads: intact, and never older than this thread has seen before.
        for _ in 0..50 {
            let pair = random.below(PAIRS);
            let side = if random.one_in(2) { "a" } else { "b" };
            if let Some(found) = store.get_with(format!("{side}/{pair}"), counter).unwrap() {
                assert!(found >= seen[pair as usize], "pair {pair} went back");
                seen[pair as usize] = found;
            }
        }
        let snapshot = store.snapshot().unwrap();
        let mut first = BTreeMap::new();
        for pair in 0..PAIRS {
            let a = snapshot.get(format!("a/{pair}")).unwrap();
            assert_eq!(a, snapshot.get(format!("b/{pair}")).unwrap(), "half a transaction shows");
            if let Some(a) = a {
                assert!(counter(a) >= seen[pair as usize], "pair {pair} went back between two snapshots");
                seen[pair as usize] = counter(a);
            }
            first.insert(pair, a);
        }
        if rounds % 4 == reader % 4 {
            let mut keys = BTreeSet::new();
            for entry in &snapshot {
                let (key, value) = entry.unwrap();
                counter(value);
                assert!(keys.insert(key), "{:?} comes twice", String::from_utf8_lossy(key));
            }
            assert_eq!(keys.len() as u64, snapshot.len());
            thread::sleep(Duration::from_millis(random.below(20)));
            // The same once more, some hundred commits later.
            let again: BTreeSet<&[u8]> = snapshot.keys().map(Result::unwrap).collect();
            assert!(again == keys, "the keys of a snapshot have changed");
        }
        for (pair, before) in first {
            assert_eq!(snapshot.get(format!("a/{pair}")).unwrap(), before, "a snapshot has changed");
        }
    }
    rounds
}

#[test]
fn readers_see_whole_commits_while_writers_grow_the_store() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let (ticket, done) = (AtomicU64::new(1), AtomicBool::new(false));
    let turns = 6000;
    let before = store.stats().unwrap();
    let rounds: Vec<u64> = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (store, done) = (store.clone(), &done);
                scope.spawn(move || read(&store, reader, done))
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, ticket) = (&store, &ticket);
                scope.spawn(move || write(store, writer, ticket, turns))
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let rounds = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        written.into_iter().for_each(Result::unwrap);
        rounds
    });
    assert!(rounds.iter().all(|&rounds| rounds > 3), "all readers got to read: {rounds:?}");
    let after = store.stats().unwrap();
    assert!(after.file_len > 4 * before.file_len && after.maps[1].slots > 8 * before.maps[1].slots, "it did grow");
    assert_eq!(after.pins, 0, "all pins were given back");
    assert_clean(&store);
    assert_eq!(store.snapshot().unwrap().iter().count() as u64, store.len().unwrap());
    store.close().unwrap();
    assert_clean(&Store::open(&path).unwrap());
}

#[test]
fn single_writers_lose_no_update() {
    let store = Store::in_memory().unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..500 {
                    // Read and write under one lock.
                    let mut transaction = store.begin().unwrap();
                    let count = transaction.get("count").unwrap().map_or(0, |count| counter(&count));
                    transaction.insert("count", value(count + 1, 0)).unwrap();
                    transaction.commit().unwrap();
                    store.insert(format!("{thread}/{round}"), value(round, 0)).unwrap();
                }
            });
        }
    });
    assert_eq!(store.get_with("count", counter).unwrap(), Some(2000));
    assert_eq!(store.len().unwrap(), 2001);
    assert_clean(&store);
}

#[test]
fn clears_are_seen_whole_by_readers() {
    let store = Store::in_memory().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut empty, mut full) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let snapshot = store.snapshot().unwrap();
                        assert!(snapshot.len().is_multiple_of(20), "{} keys: half a transaction", snapshot.len());
                        let values: Vec<&[u8]> = snapshot.values().map(Result::unwrap).collect();
                        assert_eq!(values.len() as u64, snapshot.len());
                        for key in 0..20 {
                            assert_eq!(snapshot.get([key]).unwrap().is_none(), snapshot.is_empty());
                        }
                        for value in values {
                            counter(value);
                        }
                        if snapshot.is_empty() { empty += 1 } else { full += 1 }
                    }
                    (empty, full)
                })
            })
            .collect();
        for round in 0..400 {
            let mut transaction = store.begin().unwrap();
            for key in 0..20 {
                transaction.insert([key], value(round, 500)).unwrap();
            }
            transaction.commit().unwrap();
            store.clear().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let counts: Vec<(u64, u64)> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(counts.iter().all(|&(empty, full)| empty + full > 0));
    });
    assert!(store.is_empty().unwrap());
    assert_clean(&store);
    // A descheduled reader may have held many cleared indexes. Now that all readers are gone, the next clear finds
    // their space free.
    store.insert("key", "value").unwrap();
    store.clear().unwrap();
    let index = store.stats().unwrap().extents.iter().find(|extent| extent.kind == "Retired").map_or(0, |e| e.count);
    assert!(index <= 2, "{index} old indexes are kept");
}

#[test]
#[ignore = "what other tests start in a process of its own"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match &*role {
        "open at once" => open_at_once(&path),
        "try to open" => try_to_open(&path),
        _ => commit_for_ever(&path, role.strip_prefix("commit from ").unwrap().parse().unwrap()),
    }
}
