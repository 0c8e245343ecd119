//! Which openers go together, and how long an opener waits for another.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode {
    access: Access,
    exclusive: bool,
}

impl Mode {
    const ALL: [Mode; 6] = [
        Mode { access: Access::ReadWrite, exclusive: false },
        Mode { access: Access::ReadOnly, exclusive: false },
        Mode { access: Access::CopyOnWrite, exclusive: false },
        Mode { access: Access::ReadWrite, exclusive: true },
        Mode { access: Access::ReadOnly, exclusive: true },
        Mode { access: Access::CopyOnWrite, exclusive: true },
    ];

    fn name(self) -> &'static str {
        match (self.access, self.exclusive) {
            (Access::ReadWrite, false) => "read-write",
            (Access::ReadOnly, false) => "read-only",
            (Access::CopyOnWrite, false) => "copy-on-write",
            (Access::ReadWrite, true) => "read-write alone",
            (Access::ReadOnly, true) => "read-only alone",
            (Access::CopyOnWrite, true) => "copy-on-write alone",
            (other, _) => panic!("{other:?}"),
        }
    }

    pub(super) fn named(name: &str) -> Mode {
        *Mode::ALL.iter().find(|mode| mode.name() == name).unwrap_or_else(|| panic!("unknown role {name}"))
    }

    pub(super) fn open(self, path: &Path) -> slotlog::Result<Store> {
        with(self.access).exclusive(self.exclusive).open(path)
    }

    fn goes_with(self, other: Mode) -> bool {
        let pair = [self.access, other.access];
        let writes_under_a_copy = pair.contains(&Access::ReadWrite) && pair.contains(&Access::CopyOnWrite);
        !self.exclusive && !other.exclusive && !writes_under_a_copy
    }

    /// Whether `by` is the right name for this mode, in a process with this number.
    fn is_named_by(self, by: HeldBy, process: u32) -> bool {
        match (self.access, by) {
            (Access::ReadWrite, HeldBy::Exclusive { pid, .. }) => self.exclusive && pid == process,
            (Access::ReadWrite, HeldBy::Writer { pid, .. }) => !self.exclusive && pid == process,
            (Access::ReadOnly, HeldBy::Readers) => true,
            // A reader that leaves no trace cannot be told from another program.
            (Access::ReadOnly, HeldBy::Unknown) => self.exclusive,
            (Access::CopyOnWrite, HeldBy::Private) => true,
            _ => false,
        }
    }
}

/// Opens the store in all modes, beside `first` in the process with this number.
pub(super) fn try_all_beside(first: Mode, process: u32, path: &Path) {
    for second in Mode::ALL {
        let pair = format!("{}, then {}", first.name(), second.name());
        match second.open(path) {
            Ok(store) => {
                assert!(first.goes_with(second), "{pair}: they were let in both");
                assert_eq!(store.get("key").unwrap().unwrap(), b"value", "{pair}");
            }
            Err(Error::Locked { by, path: named }) => {
                assert!(!first.goes_with(second), "{pair}: {by}");
                assert!(first.is_named_by(by, process), "{pair}: {by}");
                assert_eq!(named, path);
            }
            Err(error) => panic!("{pair}: {error}"),
        }
    }
}

pub(super) fn store_with_a_key(path: &Path) {
    let store = Store::open(path).unwrap();
    store.insert("key", "value").unwrap();
    store.close().unwrap();
}

#[test]
fn who_goes_together_with_whom_in_one_process() {
    let folder = folder();
    let path = folder.path().join("store");
    store_with_a_key(&path);
    for first in Mode::ALL {
        let store = first.open(&path).unwrap();
        try_all_beside(first, std::process::id(), &path);
        assert_eq!(store.get("key").unwrap().unwrap(), b"value");
        drop(store);
    }
}

#[test]
fn who_goes_together_with_whom_in_two_processes() {
    let folder = folder();
    let path = folder.path().join("store");
    store_with_a_key(&path);
    for first in Mode::ALL {
        let other = Player::start(first.name(), "", &path);
        assert_eq!(other.next(), "ready");
        try_all_beside(first, other.child.id(), &path);
        other.stop();
    }
}

/// The error names the side in the way, and disappears when that does, however it ends.
#[test]
fn a_writer_is_kept_out_as_long_as_there_is_a_private_copy() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 100);
    let (one, other) = (copy_on_write(&path), Player::start("copy-on-write", "", &path));
    assert_eq!(other.next(), "ready");
    let refused = Store::open(&path).unwrap_err();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    assert!(refused.to_string().contains("`Access::CopyOnWrite`"), "{refused}");
    // A snapshot keeps it open like a handle.
    let snapshot = one.snapshot().unwrap();
    one.close().unwrap();
    other.kill();
    assert!(matches!(Store::open(&path), Err(Error::Locked { by: HeldBy::Private, .. })));
    assert_eq!(snapshot.len(), 80);
    drop(snapshot);
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let refused = with(Access::CopyOnWrite).open(&path).unwrap_err();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Writer { .. }, .. }), "{refused}");
    store.close().unwrap();
    assert_eq!(copy_on_write(&path).len().unwrap(), 81);
}

/// A program that reads a store for a moment does not make a writer fail.
#[test]
fn a_writer_waits_a_moment_for_a_private_copy_to_go() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 100);
    let copy = copy_on_write(&path);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            drop(copy);
        });
        Store::open(&path).unwrap();
    });
}

pub(super) fn fork_and_live(path: &Path) {
    let (copy, reader) = (copy_on_write(path), read_only(path).unwrap());
    // SAFETY: the child sleeps, and ends without returning.
    if unsafe { libc::fork() } == 0 {
        assert!(matches!(copy.get("key 8"), Err(Error::Forked { .. })));
        assert!(matches!(copy.insert("key", "value"), Err(Error::Forked { .. })));
        // Said here and not by the parent: until this process has run, it holds all inherited files.
        say(&std::process::id().to_string());
        thread::sleep(LONG);
        // SAFETY: ends this process; nothing it has inherited is cleaned up.
        unsafe { libc::_exit(0) };
    }
    until_stopped();
    drop((copy, reader));
}

/// Also if the copy was recovered: it has the file in its own memory as well.
#[test]
fn a_forked_child_does_not_keep_writers_out() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store, 100);
    let cut = folder.path().join("cut");
    fs::copy(&path, &cut).unwrap();
    store.close().unwrap();
    for path in [path, cut] {
        let mut parent = Player::start("fork and live", "", &path);
        let grandchild: libc::pid_t = parent.next().parse().unwrap();
        assert!(matches!(Store::open(&path), Err(Error::Locked { by: HeldBy::Private, .. })));
        parent.kill_alone();
        // SAFETY: asks whether the process exists, which sleeps for a minute and is no child of ours any more.
        assert_eq!(unsafe { libc::kill(grandchild, 0) }, 0, "the child was to live on");
        let opened = Store::open(&path);
        // SAFETY: ends that process.
        unsafe { libc::kill(grandchild, libc::SIGKILL) };
        assert_eq!(opened.unwrap().len().unwrap(), 80);
    }
}

/// An opening waits for another one for its timeout, and longer while the other makes progress.
#[test]
fn an_opening_waits_for_another_as_long_as_that_makes_progress() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = Store::open(&path).unwrap();
    // Progress is reported every four megabytes.
    for number in 0..20u32 {
        open.insert(number.to_le_bytes(), vec![7; 1 << 20]).unwrap();
    }
    let cut: PathBuf = folder.path().join("cut");
    fs::copy(&path, &cut).unwrap();
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let on_recovery = move |progress: slotlog::RecoveryProgress| {
        let _ = tell.send(progress);
        let _ = wait.lock().unwrap().recv();
    };
    let patience = Duration::from_millis(400);
    thread::scope(|scope| {
        let recovering = scope.spawn(|| Store::options().on_recovery(on_recovery).open(&cut).unwrap());
        let mut steps = vec![told.recv_timeout(LONG).unwrap()];
        let start = Instant::now();
        // For a recovery, only its progress is reported.
        let waiting = scope.spawn(|| Store::options().open_timeout(patience).open(&cut));
        let mut goes_on = true;
        while goes_on {
            thread::sleep(patience / 4);
            go_on.send(()).unwrap();
            match told.recv_timeout(LONG) {
                Ok(step) => steps.push(step),
                Err(_) => goes_on = false,
            }
            // Here it stops.
            goes_on &= steps.len() < 8;
        }
        assert!(start.elapsed() > patience, "it was waited for longer than that");
        let refused = waiting.join().unwrap();
        let Err(Error::Locked { by: HeldBy::Opener { pid, step }, .. }) = refused else { panic!("{refused:?}") };
        let last = steps.last().unwrap();
        let of_last = match last.phase {
            slotlog::RecoveryPhase::Walking => OpenerStep::Walking { done: last.done, total: last.total },
            _ => OpenerStep::Indexing { done: last.done, total: last.total },
        };
        assert_eq!((pid, step), (std::process::id(), of_last));
        let refused = Store::options().open_timeout(Duration::ZERO).open(&cut).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {pid}, which is recovering it")), "{refused}");
        drop(go_on);
        let store = recovering.join().unwrap();
        assert_eq!(store.len().unwrap(), 20);
        let other = Store::options().open_timeout(Duration::ZERO).open(&cut).unwrap();
        assert_eq!(other.len().unwrap(), 20);
    });
}

/// A change waits for another one for its timeout, and so does an opening without a timeout of its own.
#[test]
fn lock_timeout_is_how_long_an_opening_and_a_change_wait() {
    let folder = folder();
    let path = folder.path().join("store");
    store_with_a_key(&path);
    let options = || Store::options().lock_timeout(Duration::from_millis(10));
    // A recovery continues until this test allows it.
    let open = Store::open(&path).unwrap();
    open.insert("key", "value").unwrap();
    let cut: PathBuf = folder.path().join("cut");
    fs::copy(&path, &cut).unwrap();
    let (began, begins) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let slow = {
        let (cut, wait) = (cut.clone(), std::sync::Mutex::new(wait));
        thread::spawn(move || {
            let on_recovery = move |_| {
                let _ = began.send(());
                let _ = wait.lock().unwrap().recv();
            };
            Store::options().on_recovery(on_recovery).open(&cut).unwrap()
        })
    };
    begins.recv_timeout(LONG).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly, Access::CopyOnWrite] {
        let outcome = options().access(access).open(&cut);
        let Err(Error::Locked { by: HeldBy::Opener { pid, .. }, .. }) = outcome else {
            panic!("{access:?}: {outcome:?}")
        };
        assert_eq!(pid, std::process::id());
    }
    drop(go_on);
    slow.join().unwrap();

    let impatient = options().open(&path).unwrap();
    let transaction = open.begin().unwrap();
    let outcome = thread::scope(|scope| scope.spawn(|| impatient.insert("key", "new")).join().unwrap());
    let Err(Error::LockTimeout { waited, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(waited >= Duration::from_millis(10) && waited < Duration::from_secs(10), "not the default: {waited:?}");
    drop(transaction);
    impatient.insert("key", "new").unwrap();
    // A private copy can be blocked by its own threads only.
    drop((open, impatient));
    let copy = options().access(Access::CopyOnWrite).open(&path).unwrap();
    let transaction = copy.begin().unwrap();
    thread::scope(|scope| {
        let outcome = scope.spawn(|| copy.insert("key", "newer")).join().unwrap();
        assert!(matches!(outcome, Err(Error::LockTimeout { .. })), "{outcome:?}");
    });
    drop(transaction);
    copy.insert("key", "newer").unwrap();
}

/// While a private copy is being recovered, which may take long, others need not wait to learn that they cannot write.
/// A reader's recovery does not keep a writer out, so a writer waits for that.
#[test]
fn a_private_recovery_keeps_no_reader_waiting() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = Store::open(&path).unwrap();
    fill(&open, 100);
    let cut = folder.path().join("cut");
    fs::copy(&path, &cut).unwrap();
    for access in [Access::ReadOnly, Access::CopyOnWrite] {
        let cut_again = cut.clone();
        let looked = std::sync::atomic::AtomicBool::new(false);
        let on_recovery = move |_| {
            if looked.swap(true, std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let impatient = Store::options().open_timeout(Duration::from_millis(20));
            let refused = impatient.open(&cut_again).unwrap_err();
            let Error::Locked { by, .. } = &refused else { panic!("{refused}") };
            let is_waited_for = access == Access::ReadOnly;
            assert!(if is_waited_for { *by == HeldBy::Opening } else { *by == HeldBy::Private }, "{refused}");
            assert_eq!(copy_on_write(&cut_again).len().unwrap(), 80);
            assert_eq!(read_only(&cut_again).unwrap().len().unwrap(), 80);
        };
        let store = with(access).on_recovery(on_recovery).open(&cut).unwrap();
        assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }));
        assert_eq!(store.len().unwrap(), 80);
    }
}
