//! Readers that have recovered a store in their own memory, and follow a writer: whatever they hold meanwhile, and
//! wherever the file is by then.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]
#![allow(unsafe_code, reason = "forks, and a mount namespace of its own")]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use slotlog::{Error, Opened, Store};
use support::{Player, Random, folder, read_only, say, until_stopped};

/// From here on this process cannot read the boot id, as under `ProcSubset=pid`, or in a container that hides it.
/// Returns whether that was permitted.
fn hide_boot_id() -> bool {
    let (none, hidden) = (std::ptr::null(), c"/proc/sys/kernel/random");
    // SAFETY: `unshare` takes an integer.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    // SAFETY: all strings are C strings, and no data is passed.
    let done = unsafe {
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
            && libc::mount(c"none".as_ptr(), hidden.as_ptr(), c"tmpfs".as_ptr(), 0, none.cast()) == 0
    };
    done && fs::read("/proc/sys/kernel/random/boot_id").is_err()
}

#[test]
#[ignore = "only a part of other tests"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    if role == "without boot id" && !hide_boot_id() {
        return say("skipped: this needs the rights to mount");
    }
    let store = Store::open(&path).unwrap();
    store.insert("new", "1").unwrap();
    say("ready");
    until_stopped();
    store.close().unwrap();
}

/// A writer in its own process, which has written; `None` if it could not play its role.
fn start(role: &str, path: &Path) -> Option<Player> {
    let player = Player::start(role, "", path);
    let said = player.next();
    if said != "ready" {
        eprintln!("{said}");
        player.stop();
        return None;
    }
    Some(player)
}

/// A copy of a store in use: what a power cut leaves.
fn cut_store(path: &Path, keys: u64) {
    let source = path.with_extension("source");
    let store = Store::open(&source).unwrap();
    for number in 0..keys {
        store.insert(number.to_le_bytes(), [7; 100]).unwrap();
    }
    store.sync().unwrap();
    fs::copy(&source, path).unwrap();
    drop(store);
    fs::remove_file(source).unwrap();
}

/// The writer cannot read the boot id, so it leaves a random identity, which the reader takes for that of another file.
#[test]
fn a_reader_follows_a_writer_that_cannot_read_the_boot_id() {
    let folder = folder();
    let path = folder.path().join("store");
    cut_store(&path, 1000);
    let reader = read_only(&path).unwrap();
    assert!(matches!(reader.opened(), Opened::AfterPowerCut { .. }));
    let Some(writer) = start("without boot id", &path) else { return };
    let other = read_only(&path).unwrap();
    assert_eq!(other.get("new").unwrap().as_deref(), Some(&b"1"[..]), "one that is opened now");
    let during = reader.get("new").unwrap();
    writer.stop();
    let after = reader.get("new").unwrap();
    assert_eq!((during.as_deref(), after.as_deref()), (Some(&b"1"[..]), Some(&b"1"[..])), "it never follows");
}

#[test]
fn a_reader_follows_a_file_that_was_renamed() {
    let folder = folder();
    let (path, other) = (folder.path().join("store"), folder.path().join("renamed"));
    cut_store(&path, 1000);
    let reader = read_only(&path).unwrap();
    fs::rename(&path, &other).unwrap();
    let writer = start("usual", &other).unwrap();
    let found = reader.get("new").unwrap();
    writer.stop();
    assert_eq!(found.as_deref(), Some(&b"1"[..]));
}

/// A check that began before the writer came.
#[test]
fn a_check_that_a_writer_came_into_finds_no_damage() {
    let folder = folder();
    let path = folder.path().join("store");
    cut_store(&path, 20_000);
    let reader = read_only(&path).unwrap();
    let mut writer = None;
    let report = reader
        .verify_with(|_| {
            let writer = writer.get_or_insert_with(|| Store::open(&path).unwrap());
            for number in 0..200u64 {
                writer.insert(number.to_le_bytes(), [9; 1000]).unwrap();
            }
            writer.compact().unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.is_clean(), "{:?}", report.findings());
    assert_eq!(reader.get(3u64.to_le_bytes()).unwrap().unwrap()[0], 9);
}

/// Counts handles while others follow, with all kinds of views.
#[test]
fn handles_while_it_follows() {
    for round in 0..30u64 {
        let folder = folder();
        let path = folder.path().join("store");
        let source = path.with_extension("source");
        let store = Store::open(&source).unwrap();
        let map = store.map::<u64, u64>("numbers").unwrap();
        for number in 0..300u64 {
            store.insert(number.to_le_bytes(), [7; 100]).unwrap();
            map.insert(number, number).unwrap();
        }
        fs::copy(&source, &path).unwrap();
        drop((map, store));
        let reader = read_only(&path).unwrap();
        let start = std::sync::Barrier::new(9);
        let closed = std::sync::atomic::AtomicUsize::new(0);
        let failed = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let reader = reader.clone();
                let (start, closed, failed) = (&start, &closed, &failed);
                scope.spawn(move || {
                    let mut random = Random(round * 100 + thread);
                    let map = reader.map::<u64, u64>("numbers").unwrap();
                    start.wait();
                    for _ in 0..200 {
                        match random.below(8) {
                            0 => {
                                let snapshot = reader.snapshot().unwrap();
                                let of = snapshot.of(&map);
                                if let Err(error) = of.get(5) {
                                    failed.lock().unwrap().push(format!("{error}"));
                                }
                            }
                            1 => assert!(map.iter().unwrap().count() >= 300),
                            2 => assert!(reader.handles() >= 2 && reader.handles() < 100),
                            3 => {
                                let clone = reader.clone();
                                let Err(Error::StillOpen { handles, .. }) = clone.close_last() else {
                                    panic!("closed")
                                };
                                assert!(handles > 0 && handles < 100);
                            }
                            4 => drop(map.get(7u64).unwrap()),
                            5 => assert!(reader.changes_since(0).is_ok()),
                            6 => drop(reader.wait_for_change(0, Duration::from_micros(10)).unwrap()),
                            _ => drop(map.get_many(&[1u64, 2, 3]).unwrap()),
                        }
                    }
                    drop(map);
                    start.wait();
                    if reader.close_last().is_ok() {
                        closed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
            drop(reader);
            start.wait();
            let writer = Store::open(&path).unwrap();
            writer.insert("a", "b").unwrap();
            start.wait();
        });
        assert_eq!(closed.load(std::sync::atomic::Ordering::SeqCst), 1, "round {round}");
        assert!(failed.lock().unwrap().is_empty(), "{:?}", failed.lock().unwrap());
        let alone = Store::options().exclusive(true).open(&path);
        assert!(alone.is_ok(), "{:?}", alone.err());
    }
}

/// A child that was forked while another thread checked for new writers.
#[test]
fn a_forked_child_is_told_so_at_once() {
    let folder = folder();
    let path = folder.path().join("store");
    cut_store(&path, 1000);
    let reader = read_only(&path).unwrap();
    assert!(matches!(reader.opened(), Opened::AfterPowerCut { .. }));
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut statuses = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    reader.get("new").unwrap();
                }
            });
        }
        for _ in 0..50 {
            // SAFETY: the child calls into the crate, which tells it that it is a child, and then ends without
            // unwinding.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: `alarm` takes an integer.
                unsafe { libc::alarm(20) };
                let is_told = matches!(reader.get("new"), Err(Error::Forked { .. }))
                    && matches!(reader.clone().close(), Err(Error::Forked { .. }));
                // SAFETY: `_exit` takes an integer.
                unsafe { libc::_exit(i32::from(!is_told)) };
            }
            let mut status = 0;
            // SAFETY: `status` lives during the call.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            statuses.push((waited == pid, libc::WIFEXITED(status), libc::WEXITSTATUS(status)));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // Not before the threads have ended. The alarm ends a child that hangs.
    assert_eq!(statuses, vec![(true, true, 0); 50]);
}

/// A reader that sleeps until something changes, and what happens to maps meanwhile.
#[test]
fn waiting_and_maps_across_following() {
    let folder = folder();
    let (path, source) = (folder.path().join("store"), folder.path().join("source"));
    let store = Store::open(&source).unwrap();
    for name in ["stays", "dropped", "renamed"] {
        store.map::<u64, u64>(name).unwrap().insert(1, 1).unwrap();
    }
    fs::copy(&source, &path).unwrap();
    drop(store);
    let reader = read_only(&path).unwrap();
    let maps = ["stays", "dropped", "renamed"].map(|name| reader.map::<u64, u64>(name).unwrap());
    let before = reader.snapshot().unwrap();
    let seq = reader.seq().unwrap();
    assert!(!reader.wait_for_change(seq, Duration::from_millis(20)).unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let start = Instant::now();
            let mut seen = seq;
            let mut found = 0;
            while found == 0 && start.elapsed() < Duration::from_secs(10) {
                assert!(reader.wait_for_change(seen, Duration::MAX).unwrap());
                let changes = reader.changes_since(seen).unwrap();
                found += changes.iter().filter(|change| change.is_ok()).count();
                seen = changes.seq();
            }
            found
        });
        std::thread::sleep(Duration::from_millis(50));
        let writer = Store::open(&path).unwrap();
        writer.map::<u64, u64>("stays").unwrap().insert(1, 2).unwrap();
        assert!(writer.drop_map("dropped").unwrap());
        assert!(writer.rename_map("renamed", "other").unwrap());
        for number in 0..50 {
            writer.map::<u64, u64>(&format!("new {number}")).unwrap().insert(1, 9).unwrap();
        }
        writer.insert("a", "b").unwrap();
        assert!(waiter.join().unwrap() > 0, "what was committed is told");
        writer.compact().unwrap();
    });
    let new = reader.map::<u64, u64>("new 3").unwrap();
    for map in &maps {
        assert_eq!(before.of(map).get(1).unwrap(), Some(1));
    }
    assert_eq!(before.of(&new).get(1).unwrap(), None);
    assert_eq!(before.of(&new).iter().unwrap().count(), 0);
    let now = reader.snapshot().unwrap();
    let values = maps.each_ref().map(|map| (map.get(1).unwrap(), now.of(map).get(1).unwrap(), map.len().unwrap()));
    assert_eq!(values, [(Some(2), Some(2), 1), (None, None, 0), (Some(1), Some(1), 1)]);
    let foreign = read_only(&source).unwrap();
    assert!(matches!(before.of(&foreign.map::<u64, u64>("stays").unwrap()).get(1), Err(Error::ForeignMap { .. })));
    assert!(matches!(foreign.snapshot().unwrap().of(&maps[0]).get(1), Err(Error::ForeignMap { .. })));
}
