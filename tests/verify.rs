//! Verifying a store in use: it does not block others, they do not block it, and its findings are true.

#![allow(missing_docs, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use slotlog::{Access, Store, VerifyScope};
use support::Random;

mod support;

/// A step of a constant writer: keys that come and go, values of all lengths, transactions, another map.
fn write(store: &Store, random: &mut Random) -> slotlog::Result<()> {
    let key = random.below(4000).to_le_bytes();
    let len = random.below(400) as usize;
    match random.below(20) {
        0..3 => drop(store.remove(key)?),
        3 => {
            let mut transaction = store.begin()?;
            for number in 0..random.below(20) {
                transaction.insert(number.to_le_bytes(), random.bytes(len))?;
                transaction.insert("hot", number.to_le_bytes())?;
            }
            transaction.commit()?;
        }
        4 => drop(store.map::<u64, u64>("numbers")?.insert(&random.below(500), &7)?),
        5 if random.one_in(100) => store.map::<u64, u64>("numbers")?.clear()?,
        _ => store.insert(key, random.bytes(len))?,
    }
    Ok(())
}

fn filled(store: &Store, random: &mut Random) {
    for _ in 0..30_000 {
        write(store, random).unwrap();
    }
}

fn open(path: &std::path::Path, access: Access) -> Store {
    Store::options().access(access).lock_timeout(Duration::from_millis(200)).open(path).unwrap()
}

/// A thread that makes one write, or a few, whenever it is told to, and reports when it is done.
fn served_by_a_writer(store: &Store, verify: impl FnOnce(&dyn Fn())) {
    let (order, orders) = mpsc::channel::<()>();
    let (tell, done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(9);
            for () in orders {
                for _ in 0..3 {
                    write(store, &mut random).unwrap();
                }
                tell.send(()).unwrap();
            }
        });
        verify(&|| {
            order.send(()).unwrap();
            done.recv_timeout(Duration::from_secs(60)).expect("a write waits for the check");
        });
        drop(order);
    });
}

#[test]
fn writes_go_on_while_a_store_is_verified() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let writer = open(&path, Access::ReadWrite);
    filled(&writer, &mut Random(1));
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let store = open(&path, access);
        let (mut calls, mut last) = (0, 0);
        served_by_a_writer(&writer, |write| {
            let report = store
                .verify_with(|progress| {
                    assert!(progress.done <= progress.total);
                    write();
                    calls += 1;
                    last = progress.done;
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(report.findings(), [], "{access:?}");
            assert_eq!(report.scope(), VerifyScope::Snapshot, "{access:?}");
            assert!(report.keys() > 2000 && report.records() > 4000);
        });
        assert!(calls >= 5 && last > 1 << 20, "{calls} calls, the last one at {last}");
    }
    // The same handle, another thread, and no other process.
    for store in [writer.clone(), Store::in_memory().unwrap()] {
        filled(&store, &mut Random(2));
        served_by_a_writer(&store, |write| {
            let report = store
                .verify_with(|_| {
                    write();
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!((report.findings(), report.scope()), (&[][..], VerifyScope::Snapshot));
        });
        let report = store.verify().unwrap();
        assert_eq!((report.findings(), report.scope()), (&[][..], VerifyScope::Everything), "nobody writes any more");
    }
}

#[test]
fn damage_is_found_while_others_write() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let writer = open(&path, Access::ReadWrite);
    filled(&writer, &mut Random(6));
    writer.insert("needle", "a value that is nowhere else").unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(28).position(|bytes| bytes == b"a value that is nowhere else").unwrap() as u64;
    support::overwrite(&path, at, b"A");
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let store = open(&path, access);
        served_by_a_writer(&writer, |write| {
            let report = store
                .verify_with(|_| {
                    write();
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(report.scope(), VerifyScope::Snapshot, "{access:?}");
            let finding = &report.findings()[0];
            assert!((at - 200..at).contains(&finding.offset) && finding.what.contains("CRC"), "{finding} and not {at}");
        });
    }
}

#[test]
fn a_transaction_that_stays_open_does_not_keep_others_from_verifying() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let writer = open(&path, Access::ReadWrite);
    filled(&writer, &mut Random(3));
    let mut transaction = writer.begin().unwrap();
    transaction.insert("open", "for long").unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let report = open(&path, access).verify().unwrap();
        assert_eq!((report.findings(), report.scope()), (&[][..], VerifyScope::Snapshot), "{access:?}");
    }
    transaction.commit().unwrap();
}

/// Compaction, resizes and clears at full speed beside one check after the other.
#[test]
fn a_store_that_never_rests_is_found_clean() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let writer = open(&path, Access::ReadWrite);
    filled(&writer, &mut Random(4));
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (writer, stop, written) = (&writer, &stop, &written);
        for seed in 0..2 {
            scope.spawn(move || {
                let mut random = Random(seed);
                while !stop.load(Ordering::Relaxed) {
                    // It may have to wait for the other writer longer than its timeout.
                    let _ = write(writer, &mut random);
                    if random.one_in(5000) {
                        let _ = writer.compact();
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut scopes = Vec::new();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..12 {
                let access = [Access::ReadOnly, Access::ReadWrite][number % 2];
                let before = written.load(Ordering::Relaxed);
                let report = open(&path, access).verify().unwrap();
                assert_eq!(report.findings(), [], "{access:?}");
                scopes.push(report.scope());
                // So that each check sees a different store.
                while written.load(Ordering::Relaxed) < before + 3000 {
                    thread::yield_now();
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
        assert!(scopes.contains(&VerifyScope::Snapshot), "{scopes:?}");
    });
    assert_eq!(writer.verify().unwrap().findings(), []);
}

#[test]
fn a_check_can_be_stopped() {
    let store = Store::in_memory().unwrap();
    filled(&store, &mut Random(5));
    let mut calls = 0;
    let report = store
        .verify_with(|_| {
            calls += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!((calls, report.scope(), report.findings()), (1, VerifyScope::Part, &[][..]));
    // Nothing is left behind: neither a lock nor a pin.
    store.insert("key", "value").unwrap();
    assert_eq!(store.stats().unwrap().pins, 0);
    // And while another thread writes.
    let report = store
        .verify_with(|progress| {
            calls += 1;
            store.insert("key", "value").unwrap();
            if calls > 5 && progress.done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((calls, report.scope()), (6, VerifyScope::Part));
    assert_eq!(store.stats().unwrap().pins, 0);
}
