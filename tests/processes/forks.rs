//! Forks.

use super::*;

/// Plays `child` in a forked process. The parent keeps `child` with its captures, and gets it back.
#[cfg(unix)]
pub(super) fn fork<F: FnOnce() -> bool>(child: F) -> (libc::pid_t, F) {
    // SAFETY: the process has no other thread of importance, and the child runs `child` and ends without returning.
    match unsafe { libc::fork() } {
        0 => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
            // SAFETY: ends this process; nothing it has inherited is cleaned up.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        pid => {
            assert!(pid > 0);
            (pid, child)
        }
    }
}

#[cfg(unix)]
pub(super) fn ended_well(pid: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: waits for a child of this process; the call fills in the integer.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status == 0
}

#[cfg(unix)]
pub(super) fn fork_and_try(path: &Path) {
    let store = Store::open(path).unwrap();
    store.insert("key", "parent").unwrap();
    let snapshot = store.snapshot().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("open", "transaction").unwrap();
    let handles = (store.clone(), snapshot, transaction);
    let inherited = path.to_owned();
    let (pid, held) = fork(move || {
        fn forked<T>(outcome: slotlog::Result<T>) -> bool {
            matches!(outcome, Err(Error::Forked { .. }))
        }
        let (store, snapshot, mut transaction) = handles;
        let all = forked(store.get("key"))
            && forked(store.get_with("key", <[u8]>::len))
            && forked(store.len())
            && forked(store.insert("key", "child"))
            && forked(store.remove("key"))
            && forked(store.clear())
            && forked(store.snapshot())
            && forked(store.begin())
            && forked(store.sync())
            && forked(store.checkpoint())
            && forked(store.verify())
            && forked(store.stats())
            && forked(store.seq())
            && forked(store.changes_since(0))
            && forked(store.wait_for_change(0, Duration::ZERO))
            && forked(snapshot.get("key"))
            && snapshot.iter().next().is_some_and(forked)
            && forked(transaction.insert("more", ""))
            && forked(transaction.get("open"));
        drop((snapshot, transaction));
        let closed = forked(store.close());
        let anew = Store::options().lock_timeout(Duration::from_millis(50)).open(&inherited).unwrap();
        let reads = anew.get("key").unwrap().as_deref() == Some(b"parent");
        // The parent has an open transaction.
        let waits = matches!(anew.insert("child", "x"), Err(Error::LockTimeout { .. }));
        drop(anew);
        all && closed && reads && waits
    });
    assert!(ended_well(pid));
    // Snapshot and transaction of the parent are unharmed.
    drop(held);
    store.insert("after", "all").unwrap();
    say("tried");
    until_stopped();
    drop(store);
}

#[cfg(unix)]
#[test]
fn a_forked_child_leaves_the_store_to_its_parent() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("fork", "", &path);
    assert_eq!(player.next(), "tried");
    player.stop();
    let store = Store::open(&path).unwrap();
    assert_clean(&store);
    assert_eq!(store.get("key").unwrap().unwrap(), b"parent");
    assert_eq!((store.get("open").unwrap(), store.get("child").unwrap()), (None, None));
    assert_eq!(store.get("after").unwrap().unwrap(), b"all");
}

/// Forks; the child continues at the call, with `None`.
#[cfg(unix)]
pub(super) fn fork_here() -> Option<libc::pid_t> {
    // SAFETY: the child returns only as far as `unless_child`, which ends it, and allocates and reads memory, which the
    // C library permits.
    match unsafe { libc::fork() } {
        0 => None,
        pid => {
            assert!(pid > 0);
            Some(pid)
        }
    }
}

/// Ends the process if it is the child of a fork, successfully if what it saw was right.
#[cfg(unix)]
pub(super) fn unless_child(child: Option<bool>) {
    if let Some(good) = child {
        // SAFETY: ends this process; nothing it has inherited is cleaned up.
        unsafe { libc::_exit(i32::from(!good)) }
    }
}

/// A reader's borrowed values stay intact in a process that has a child, whatever else the child does, and whatever
/// others write.
#[cfg(unix)]
pub(super) fn fork_and_look(path: &Path) {
    let store = Store::options().tiny_steps().open(path).unwrap();
    let map = store.map::<str, [u8]>("map").unwrap();
    let churn = |turn: u8| {
        for n in 0..100_u8 {
            store.insert("key", vec![turn ^ n; 2000]).unwrap();
            map.insert("key", vec![turn ^ n; 2000]).unwrap();
        }
        store.compact().unwrap();
    };
    churn(1);
    let forked = |error: &Error| matches!(error, Error::Forked { .. });

    // Inside a look at a value in place: of the store, of a map, and inside another look.
    type Look<'l> = &'l mut dyn FnMut(&[u8]) -> bool;
    let looks: [&dyn Fn(Look<'_>) -> bool; 3] = [
        &|look| store.get_with("key", look).unwrap().unwrap(),
        &|look| map.get_with("key", look).unwrap().unwrap(),
        &|look| store.get_with("key", |_| map.get_with("key", look).unwrap().unwrap()).unwrap().unwrap(),
    ];
    for (number, look) in looks.iter().enumerate() {
        let mut child = None;
        let stays = look(&mut |bytes| {
            let before = bytes.to_vec();
            child = fork_here();
            // The child leaves at once, and its parent continues when it is done.
            thread::scope(|scope| {
                let Some(child) = child else { return true };
                assert!(ended_well(child));
                scope.spawn(|| churn(2)).join().unwrap();
                bytes == before
            })
        });
        unless_child(child.is_none().then(|| store.get("key").is_err_and(|error| forked(&error))));
        assert!(stays, "what was borrowed has changed: look {number}");
    }

    // With one of everything that keeps a commit.
    let snapshot = store.snapshot().unwrap();
    let value = map.get_ref("key").unwrap().unwrap();
    let mut entries = map.iter().unwrap();
    let drained = map.drain().unwrap();
    let changes = store.changes_since(u64::from(store.seq().unwrap()) - 1).unwrap();
    let before = (snapshot.get("key").unwrap().unwrap().to_vec(), value.to_vec());
    let mut iteration = snapshot.iter();
    let child = fork_here();
    if child.is_none() {
        let mut told = changes.iter();
        let good = iteration.next().is_some_and(|entry| entry.is_err_and(|error| forked(&error)))
            && entries.next().is_some_and(|entry| entry.is_err_and(|error| forked(&error)))
            && told.next().is_some_and(|change| change.is_err_and(|error| forked(&error)))
            // Whoever passes over errors comes to an end.
            && iteration.next().is_none()
            && entries.next().is_none()
            && told.next().is_none()
            && snapshot.of(&map).get("key").is_err_and(|error| forked(&error));
        drop((iteration, told));
        drop((snapshot, value, entries, drained, changes));
        unless_child(Some(good));
        return;
    }
    assert!(child.is_some_and(ended_well));
    assert_eq!(store.stats().unwrap().pins, 2, "that of neither commit was given back by the child");
    churn(3);
    assert_eq!((snapshot.get("key").unwrap().unwrap(), &*value), (&*before.0, &*before.1));
    let entry = ("key".to_owned(), before.1.clone());
    assert_eq!((entries.next().unwrap().unwrap(), drained.last().unwrap().unwrap()), (entry.clone(), entry));
    assert_eq!(iteration.next().unwrap().unwrap(), (&b"key"[..], &*before.0));
    drop(iteration);
    drop((snapshot, value, entries, changes));
    assert_eq!(store.stats().unwrap().pins, 0);

    // In the middle of a change: the child has no turn, and changes nothing.
    store.insert("key", "before").unwrap();
    map.insert("key", *b"before").unwrap();
    let mut child = None;
    let updated = map.update("key", |value| {
        child = fork_here();
        // The child has finished all it does before its parent continues.
        assert!(child.is_none_or(ended_well));
        value.map(|_| b"updated".to_vec())
    });
    unless_child(child.is_none().then(|| updated.as_ref().is_err_and(forked)));
    updated.unwrap();
    let mut child = None;
    let retained = map.retain(|_, _| {
        child = fork_here();
        assert!(child.is_none_or(ended_well));
        false
    });
    unless_child(child.is_none().then(|| retained.as_ref().is_err_and(forked)));
    assert_eq!(retained.unwrap(), 1);
    for n in 0..500_u16 {
        store.insert(n.to_le_bytes(), vec![7; 2000]).unwrap();
    }
    for n in 0..450_u16 {
        store.remove(n.to_le_bytes()).unwrap();
    }
    let mut child = None;
    let mut asked = false;
    let compacted = store.compact_with(|_| {
        if !std::mem::replace(&mut asked, true) {
            child = fork_here();
            assert!(child.is_none_or(ended_well));
        }
        ControlFlow::Continue(())
    });
    unless_child((asked && child.is_none()).then(|| compacted.as_ref().is_err_and(forked)));
    compacted.unwrap();
    assert!(asked, "there was something to compact");
    assert_clean(&store);
    say("looked");
    until_stopped();
}

#[cfg(unix)]
#[test]
fn a_forked_child_gives_nothing_back() {
    let folder = folder();
    let path = folder.path().join("store");
    let player = Player::start("fork and look", "", &path);
    assert_eq!(player.next(), "looked");
    let store = Store::open(&path).unwrap();
    assert_clean(&store);
    player.stop();
}

#[cfg(unix)]
pub(super) fn fork_in_memory() {
    let store = Store::in_memory().unwrap();
    store.insert("key", "parent").unwrap();
    let (pid, _) = fork(|| {
        matches!(store.insert("key", "child"), Err(Error::Forked { .. }))
            && matches!(store.get("key"), Err(Error::Forked { .. }))
    });
    assert!(ended_well(pid));
    store.insert("key", "parent").unwrap();
    say("told");
    until_stopped();
}

/// Although that process has no file whose descriptors it would have to watch.
#[cfg(unix)]
#[test]
fn a_forked_child_is_told_so_of_a_store_in_memory() {
    let folder = folder();
    let player = Player::start("fork in memory", "", &folder.path().join("none"));
    assert_eq!(player.next(), "told");
    player.stop();
}

#[cfg(unix)]
pub(super) fn fork_and_live(path: &Path) {
    let store = Store::options().exclusive(true).open(path).unwrap();
    store.insert("key", "parent").unwrap();
    let (_, _) = fork(|| {
        // Said here and not by the parent: until this process has run, it holds all inherited files.
        say(&std::process::id().to_string());
        thread::sleep(LONG);
        true
    });
    until_stopped();
    drop(store);
}

#[cfg(unix)]
#[test]
fn the_locks_of_a_dead_parent_do_not_live_on_in_its_child() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut player = Player::start("fork and live", "", &path);
    let grandchild: libc::pid_t = player.next().parse().unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })));
    player.kill_alone();
    // SAFETY: asks whether the process exists, which sleeps for a minute and is no child of ours any more.
    assert_eq!(unsafe { libc::kill(grandchild, 0) }, 0, "the child was to live on");
    let alone = Store::options().exclusive(true).open(&path);
    // SAFETY: ends that process.
    unsafe { libc::kill(grandchild, libc::SIGKILL) };
    assert_eq!(alone.unwrap().get("key").unwrap().unwrap(), b"parent");
}
