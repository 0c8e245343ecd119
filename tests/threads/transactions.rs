//! Transactions and the writer lock.

use super::*;

#[test]
fn a_transaction_may_be_committed_by_another_thread() {
    let store = Store::in_memory().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("from", "here").unwrap();
    let elsewhere = store.clone();
    thread::spawn(move || {
        assert_eq!(transaction.get("from").unwrap().unwrap(), b"here");
        transaction.insert("and", "there").unwrap();
        assert!(matches!(elsewhere.insert("x", "y"), Err(Error::WouldDeadlock { .. })), "it is this thread's now");
        transaction.commit().unwrap();
        elsewhere.insert("then", "free").unwrap();
    })
    .join()
    .unwrap();
    store.insert("here", "too").unwrap();
    assert_eq!(store.len().unwrap(), 4);
    assert_clean(&store);
}

#[test]
fn the_thread_that_a_transaction_has_left_waits_like_any_other() {
    let store = Store::in_memory().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("from", "here").unwrap();
    let (started, has_started) = std::sync::mpsc::channel();
    let other = thread::spawn(move || {
        transaction.insert("and", "there").unwrap();
        started.send(()).unwrap();
        thread::sleep(Duration::from_millis(100));
        transaction.commit().unwrap();
    });
    has_started.recv().unwrap();
    store.insert("here", "too").unwrap();
    assert_eq!(store.len().unwrap(), 3, "the insert came after the commit");
    other.join().unwrap();
}

#[test]
fn a_transaction_on_its_way_to_another_thread_is_not_the_senders() {
    // On a busy machine the way may be long.
    let folder = support::folder();
    let path = folder.path().join("store");
    let has_waited = |other_handle: bool| {
        let store = Store::open(&path).unwrap();
        let writing = if other_handle { Store::open(&path).unwrap() } else { store.clone() };
        let transaction = store.begin().unwrap();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            transaction.commit().unwrap();
        });
        let outcome = writing.insert("here", "too");
        other.join().unwrap();
        assert!(matches!(outcome, Ok(()) | Err(Error::WouldDeadlock { .. })), "{outcome:?}");
        outcome.is_ok()
    };
    assert!((0..20).any(|_| has_waited(false)));
    assert!((0..20).any(|_| has_waited(true)));
}

#[test]
fn the_sender_of_a_transaction_that_was_handed_over_waits_like_any_other() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for writing in [store.clone(), Store::open(&path).unwrap()] {
        let mut transaction = store.begin().unwrap();
        transaction.insert("key", "theirs").unwrap();
        let transaction = transaction.hand_over();
        let (insert, inserted) = (writing.clone(), Arc::new(AtomicBool::new(false)));
        let seen = inserted.clone();
        let other = thread::spawn(move || {
            // The transaction stays unused for longer than the sender would wait without the handover.
            thread::sleep(Duration::from_millis(300));
            assert!(!seen.load(Ordering::SeqCst));
            transaction.commit().unwrap();
        });
        insert.insert("key", "ours").unwrap();
        inserted.store(true, Ordering::SeqCst);
        other.join().unwrap();
        assert_eq!(store.get("key").unwrap().unwrap(), b"ours");
    }
    assert_clean(&store);
}

#[test]
fn a_transaction_that_was_handed_over_is_that_of_the_thread_that_uses_it() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let open = || Store::options().lock_timeout(Duration::from_millis(50)).open(&path).unwrap();
    let (store, elsewhere) = (open(), open());
    let mut transaction = store.begin().unwrap().hand_over();
    for writing in [&store, &elsewhere] {
        let kept = writing.insert("key", "value");
        let own = std::process::id();
        assert!(matches!(kept, Err(Error::LockTimeout { pid, .. }) if pid == own), "{kept:?}");
    }
    let uses: [fn(&mut Transaction); 4] = [
        |transaction| assert_eq!(transaction.len(), 0),
        |transaction| assert_eq!(transaction.get("key").unwrap(), None),
        |transaction| assert!(!transaction.remove("key").unwrap()),
        |transaction| transaction.insert("key", "value").unwrap(),
    ];
    for go_on in uses {
        transaction = transaction.hand_over();
        go_on(&mut transaction);
        for writing in [&store, &elsewhere] {
            let refused = writing.insert("key", "value");
            assert!(matches!(refused, Err(Error::WouldDeadlock { .. })), "{refused:?}");
        }
    }
    transaction.hand_over().commit().unwrap();
    assert_eq!(elsewhere.get("key").unwrap().unwrap(), b"value");
    // A transaction that is dropped unused leaves nothing either.
    drop(elsewhere.begin().unwrap().hand_over());
    store.insert("key", "other").unwrap();
    assert_clean(&store);
}

#[test]
fn a_thread_does_not_wait_for_its_own_transaction_in_another_handle() {
    let folder = support::folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("key", "value").unwrap();
    // Neither opening nor closing has to wait for it.
    let other = Store::open(&path).unwrap();
    Store::open(&path).unwrap().close().unwrap();
    for outcome in [other.insert("key", "other"), other.begin().map(drop), other.clear()] {
        assert!(matches!(outcome, Err(Error::WouldDeadlock { .. })), "{outcome:?}");
    }
    // Another thread waits.
    let waiting = thread::spawn(move || {
        other.insert("other", "value").unwrap();
        other
    });
    transaction.commit().unwrap();
    let other = waiting.join().unwrap();
    other.insert("key", "other").unwrap();
    Store::open(&path).unwrap().insert("key", "a third").unwrap();
    assert_eq!((store.len().unwrap(), store.get("key").unwrap().unwrap()), (2, b"a third".to_vec()));
    // Nor within a closure that a write calls.
    let map = store.map::<str, u64>("numbers").unwrap();
    let updated = map.update("one", |_| {
        assert!(matches!(other.insert("key", "value"), Err(Error::WouldDeadlock { .. })));
        Some(1)
    });
    assert_eq!(updated.unwrap(), Some(1));
    assert_clean(&store);
}

#[test]
fn a_second_write_by_the_same_thread_is_refused_at_once() {
    let store = Store::in_memory().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("key", "in the transaction").unwrap();
    let start = Instant::now();
    let refused: [slotlog::Result<()>; 5] = [
        store.insert("key", "beside it"),
        store.remove("key").map(drop),
        store.clear(),
        store.begin().map(drop),
        store.verify().map(drop),
    ];
    for outcome in refused {
        assert!(matches!(outcome, Err(Error::WouldDeadlock { .. })), "{outcome:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "at once, not after the lock timeout");
    assert_eq!(store.get("key").unwrap(), None, "reading is always possible");
    store.sync().unwrap();
    store.stats().unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.get("key").unwrap().unwrap(), b"in the transaction");
    store.insert("key", "afterwards").unwrap();
    assert_clean(&store);
}

#[test]
fn another_thread_gives_up_after_the_lock_timeout() {
    let folder = folder();
    let timeout = Duration::from_millis(200);
    let store = Store::options().lock_timeout(timeout).open(folder.path().join("store")).unwrap();
    let transaction = store.begin().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let start = Instant::now();
                let outcome = store.insert("key", "value");
                let took = start.elapsed();
                let Err(Error::LockTimeout { waited, pid, held, .. }) = outcome else { panic!("{outcome:?}") };
                assert!(waited >= timeout && took >= timeout && took < 20 * timeout, "{waited:?} {took:?}");
                assert_eq!(pid, std::process::id());
                assert!(held >= timeout / 2, "{held:?}");
            });
        }
    });
    transaction.rollback();
    store.insert("key", "value").unwrap();
    // A waiting thread gets it as soon as it is free.
    let transaction = store.begin().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| store.insert("key", "later"));
        thread::sleep(timeout / 4);
        transaction.commit().unwrap();
        waiter.join().unwrap().unwrap();
    });
    assert_eq!(store.get("key").unwrap().unwrap(), b"later");
}

#[test]
fn a_panic_with_a_transaction_open_leaves_a_usable_store() {
    let store = Store::in_memory().unwrap();
    store.insert("key", "before").unwrap();
    let panicking = store.clone();
    let outcome = thread::spawn(move || {
        let mut transaction = panicking.begin().unwrap();
        transaction.insert("key", "in the transaction").unwrap();
        transaction.insert("other", vec![1; 100_000]).unwrap();
        // Not `panic!`: the hook would print it, and this panic is intended.
        std::panic::resume_unwind(Box::new("as planned"));
    })
    .join();
    assert!(outcome.is_err());
    assert_eq!(store.get("key").unwrap().unwrap(), b"before");
    store.insert("other", "after").unwrap();
    assert_eq!(store.len().unwrap(), 2);
    assert_clean(&store);
}
