//! In how many ways a store can be opened, and what each of them promises: first the recipe of memory mapping, row by
//! row, then who goes together with whom.
//!
//! Elsewhere: paths and what is not a store (`limits`), many processes that write (`processes`), what `sync` and
//! `close` report when a flush fails (the tests in `src`, "door"), that dropping closes (`threads`).
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(unsafe_code, reason = "rights, mounts, forks and the counters of the system")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use slotlog::{Access, Durability, Error, FullReason, HeldBy, Opened, OpenerStep, Options, Pod, Store};
use support::{Random, folder, role, run_child, say};

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);

fn with(access: Access) -> Options {
    Store::options().access(access)
}

fn read_only(path: &Path) -> Store {
    with(Access::ReadOnly).open(path).unwrap()
}

fn copy_on_write(path: &Path) -> Store {
    with(Access::CopyOnWrite).open(path).unwrap()
}

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn content(store: &Store) -> Content {
    let snapshot = store.snapshot().unwrap();
    snapshot.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

#[track_caller]
fn assert_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings());
}

/// Writes keys that come and go.
fn fill(store: &Store, keys: u32) {
    for key in 0..keys {
        store.insert(format!("key {key}"), format!("value {key}")).unwrap();
        if key % 5 == 4 {
            store.remove(format!("key {}", key - 2)).unwrap();
        }
    }
}

/// A closed store.
fn make(path: &Path, keys: u32) {
    let store = Store::open(path).unwrap();
    fill(&store, keys);
    store.close().unwrap();
}

/// All that a mode could change of a file: its bytes, its length, how much space it takes, when it was changed.
#[derive(PartialEq)]
struct FileState {
    bytes: Vec<u8>,
    blocks: u64,
    modified: SystemTime,
    /// When anything of it was changed, its rights included.
    changed: (i64, i64),
}

fn state(path: &Path) -> FileState {
    let metadata = fs::metadata(path).unwrap();
    FileState {
        bytes: fs::read(path).unwrap(),
        blocks: metadata.blocks(),
        modified: metadata.modified().unwrap(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[track_caller]
fn assert_unchanged(path: &Path, before: &FileState, after: &str) {
    let now = state(path);
    let differs = now.bytes.iter().zip(&before.bytes).position(|(now, before)| now != before);
    assert_eq!(differs, None, "after {after}: the file has changed");
    assert_eq!(now.bytes.len(), before.bytes.len(), "after {after}: the length");
    assert!(now == *before, "after {after}: times or space of the file have changed");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Root may write to everything; a child that is nobody may not.
fn give_up_rights() {
    // SAFETY: takes nothing and always succeeds.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: both take an integer; "nobody" has this number everywhere that matters.
        assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
    }
}

/// A role that plays in a process of its own, until it is told to stop or killed.
struct Other {
    child: Child,
    lines: Receiver<String>,
}

impl Other {
    fn start(role: &str, path: &Path) -> Other {
        let mut child = support::child(role, path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = support::listen(&mut child);
        Other { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(LONG).expect("the other process says nothing")
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Should a test fail: nothing may be left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until_stopped() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((role, path)) = role() else { return };
    match role.as_str() {
        "look" => look(&path),
        "without rights" => without_rights(&path),
        "on a read-only mount" => on_a_read_only_mount(&path),
        "reads" => count_reads(&path),
        #[cfg(target_os = "linux")]
        "in another namespace" => in_another_namespace(&path),
        "write until killed" => write_until_killed(&path),
        "fork and live" => fork_and_live(&path),
        mode => {
            let store = Mode::named(mode).open(&path).unwrap();
            say("ready");
            until_stopped();
            drop(store);
        }
    }
}

// The recipe of memory mapping.

/// A map for reading and writing: changes go to the file, others see them at once, and they are there after a close.
#[test]
fn read_write_changes_the_file_for_everybody() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = with(Access::ReadWrite).open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Created);
    fill(&store, 100);
    assert_eq!(run_child("look", &path), ["80 keys"]);
    let before = fs::read(&path).unwrap();
    store.insert("a key for all to see", "and its value").unwrap();
    assert_eq!(run_child("look", &path), ["81 keys"]);
    store.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(bytes != before);
    assert!(bytes.windows(13).any(|window| window == b"and its value"), "the value is in the file");
    assert_eq!(run_child("look", &path), ["81 keys"]);
    // A handle that goes out of scope closes, too.
    drop({
        let store = Store::open(&path).unwrap();
        store.insert("one more", "value").unwrap();
        store
    });
    assert_eq!(run_child("look", &path), ["82 keys"]);
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Clean);
}

fn look(path: &Path) {
    say(&format!("{} keys", read_only(path).len().unwrap()));
}

/// A read-only map: neither a byte nor a time of the file changes, although another process writes before and after.
#[test]
fn read_only_changes_nothing_beside_a_living_writer() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store, 1000);
    store.close().unwrap();
    let writer = Other::start("read-write", &path);
    assert_eq!(writer.next(), "ready");
    set_mode(&path, 0o444);
    let before = state(&path);
    let reader = read_only(&path);
    assert_eq!(reader.opened(), Opened::Clean, "nothing was changed since it was closed");
    assert_eq!(content(&reader).len(), 800);
    assert_eq!(reader.get("key 7").unwrap(), None);
    assert_eq!(reader.get("key 8").unwrap().unwrap(), b"value 8");
    assert_clean(&reader);
    assert_eq!(reader.stats().unwrap().processes.len(), 1, "the writer");
    let changes: [(&str, slotlog::Result<()>); 6] = [
        ("insert", reader.insert("key", "value")),
        ("remove", reader.remove("key 8").map(drop)),
        ("clear", reader.clear()),
        ("begin", reader.begin().map(drop)),
        ("compact", reader.compact().map(drop)),
        ("release_free_space", reader.release_free_space().map(drop)),
    ];
    for (call, outcome) in changes {
        assert!(matches!(outcome, Err(Error::ReadOnly { .. })), "{call}: {outcome:?}");
    }
    assert!(!reader.maintain(Duration::from_secs(1)).unwrap(), "a reader has nothing to do");
    reader.sync().unwrap();
    reader.checkpoint().unwrap();
    assert_unchanged(&path, &before, "all that a reader can do");
    reader.close().unwrap();
    assert_unchanged(&path, &before, "a close");
    writer.stop();
}

/// The rights of the file are enough for what a mode does, and no more than that is asked for.
#[test]
fn a_file_without_write_permission_is_read_and_copied() {
    let folder = folder();
    set_mode(folder.path(), 0o755);
    let path = folder.path().join("store");
    make(&path, 1000);
    set_mode(&path, 0o444);
    let before = state(&path);
    let expected = ["not for writing", "800 read", "801 in a copy"];
    assert_eq!(run_child("without rights", &path), expected);
    assert_unchanged(&path, &before, "both");
    // And when it was not closed.
    let open = folder.path().join("open");
    let writer = Store::open(&open).unwrap();
    fill(&writer, 1000);
    let cut = folder.path().join("cut");
    fs::copy(&open, &cut).unwrap();
    set_mode(&cut, 0o444);
    let before = state(&cut);
    assert_eq!(run_child("without rights", &cut), expected);
    assert_unchanged(&cut, &before, "both, after a power cut");
}

fn without_rights(path: &Path) {
    give_up_rights();
    modes_of_the_unwritable(path);
}

fn modes_of_the_unwritable(path: &Path) {
    let outcome = Store::open(path);
    assert!(matches!(outcome, Err(Error::PermissionDenied { .. })), "{outcome:?}");
    say("not for writing");
    let store = read_only(path);
    say(&format!("{} read", store.len().unwrap()));
    store.close().unwrap();
    let store = copy_on_write(path);
    store.insert("new", "value").unwrap();
    assert_eq!(store.get("new").unwrap().unwrap(), b"value");
    store.compact().unwrap();
    assert_clean(&store);
    say(&format!("{} in a copy", store.len().unwrap()));
    store.close().unwrap();
}

/// A whole file system that nobody may write to. Only root can make one, in a namespace of its own.
#[test]
#[cfg(target_os = "linux")]
fn a_read_only_mount_is_read_and_copied() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 1000);
    let lines = run_child("on a read-only mount", &path);
    match lines.first().and_then(|line| line.strip_prefix("skipped: ")) {
        Some(reason) => println!("skipped, for a read-only mount could not be made: {reason}"),
        None => assert_eq!(lines, ["not for writing", "800 read", "801 in a copy"]),
    }
}

#[cfg(target_os = "linux")]
fn on_a_read_only_mount(path: &Path) {
    let folder = std::ffi::CString::new(path.parent().unwrap().as_os_str().as_encoded_bytes()).unwrap();
    let mount = |target: &std::ffi::CStr, flags| {
        let (source, kind, data) = (target.as_ptr(), std::ptr::null(), std::ptr::null());
        // SAFETY: the paths are C strings that live during the call.
        match unsafe { libc::mount(source, target.as_ptr(), kind, flags, data) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // What is mounted here vanishes with this process.
    // SAFETY: takes an integer.
    let alone = match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    let mounted = alone
        .and_then(|()| mount(c"/", libc::MS_REC | libc::MS_PRIVATE))
        .and_then(|()| mount(&folder, libc::MS_BIND))
        .and_then(|()| mount(&folder, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY));
    match mounted {
        Ok(()) => modes_of_the_unwritable(path),
        Err(error) => say(&format!("skipped: {error}")),
    }
}

/// Opens the store in a mount namespace of its own, and says how it was found, by a reader and by a writer.
#[cfg(target_os = "linux")]
fn in_another_namespace(path: &Path) {
    // SAFETY: takes an integer.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return say(&format!("skipped: {}", std::io::Error::last_os_error()));
    }
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let store = with(access).open(path).unwrap();
        assert_eq!(store.len().unwrap(), 800);
        say(match store.opened() {
            Opened::AfterPowerCut { .. } => "after a power cut",
            Opened::AfterKill => "after a kill",
            other => panic!("{other:?}"),
        });
    }
}

/// Each start of a container has mounts of its own. What a file is marked with is kept with its page cache and nowhere
/// else: by that, one is known that was there all the time.
#[test]
#[cfg(target_os = "linux")]
fn a_killed_store_is_opened_at_once_in_another_mount_namespace() {
    use std::os::fd::AsRawFd;

    /// From `linux/fcntl.h`.
    const F_GET_RW_HINT: libc::c_int = 1024 + 11;
    const F_SET_RW_HINT: libc::c_int = 1024 + 12;

    for marked in [true, false] {
        let folder = folder();
        let path = folder.path().join("store");
        let mut writer = Other::start("write until killed", &path);
        assert_eq!(writer.next(), "ready");
        writer.kill();
        let file = fs::File::open(&path).unwrap();
        let mut hint = 0u64;
        // SAFETY: the file is open, and the word that the call writes to lives on this stack frame.
        if unsafe { libc::fcntl(file.as_raw_fd(), F_GET_RW_HINT, &raw mut hint) } != 0 || hint == 0 {
            return println!("skipped, for the system keeps no mark with a file");
        }
        if !marked {
            // As in a page cache that has just read the file.
            let none = 0u64;
            // SAFETY: as above.
            assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), F_SET_RW_HINT, &raw const none) }, 0);
        }
        let lines = run_child("in another namespace", &path);
        match lines.first().and_then(|line| line.strip_prefix("skipped: ")) {
            Some(reason) => return println!("skipped, for there is no other namespace: {reason}"),
            None => assert_eq!(lines, [if marked { "after a kill" } else { "after a power cut" }; 2]),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn on_a_read_only_mount(_path: &Path) {}

/// A file of a given size first: the space is real, and no index grows until so many keys are there.
#[test]
fn initial_capacity_is_really_allocated() {
    const KEYS: u64 = 300_000;

    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().initial_capacity(KEYS).open(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    // Each key takes a slot of eight bytes at least.
    assert!(metadata.len() > KEYS * 8, "{} bytes", metadata.len());
    assert!(metadata.blocks() * 512 >= metadata.len(), "{} blocks for {} bytes", metadata.blocks(), metadata.len());
    let slots = |store: &Store| store.stats().unwrap().maps.iter().map(|map| map.slots).max();
    let before = slots(&store);
    let mut transaction = store.begin().unwrap();
    for key in 0..KEYS {
        transaction.insert(key.to_le_bytes(), b"").unwrap();
    }
    transaction.commit().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((slots(&store), stats.resize.is_some(), stats.upkeep.lines), (before, false, 0), "it was large enough");
    // A small one is small.
    let small = folder.path().join("small");
    drop(Store::open(&small).unwrap());
    assert!(fs::metadata(&small).unwrap().len() < 1 << 20);
    // No effect on a store that exists.
    drop(Store::options().initial_capacity(KEYS).open(&small).unwrap());
    assert!(fs::metadata(&small).unwrap().len() < 1 << 20);
}

/// Length, slices and random access need no call to read the file, and the bytes are where the file is mapped.
#[test]
fn values_are_borrowed_from_the_mapping() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 1000);
    let store = Store::open(&path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let place = snapshot.get("key 8").unwrap().unwrap().as_ptr();
    assert_eq!(snapshot.get("key 8").unwrap().unwrap().as_ptr(), place, "no copy is made");
    assert_eq!(store.get_with("key 8", |value| value.as_ptr()).unwrap(), Some(place));
    assert_eq!(&snapshot.get("key 8").unwrap().unwrap()[2..5], b"lue");
    assert_eq!((store.len().unwrap(), snapshot.len()), (800, 800));
    if cfg!(target_os = "linux") {
        assert_eq!(run_child("reads", &path), ["no read"]);
    }
}

/// How often this process has called the system to read something.
fn reads() -> u64 {
    let counters = fs::read_to_string("/proc/self/io").unwrap();
    counters.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

fn count_reads(path: &Path) {
    let store = Store::open(path).unwrap();
    let look = || {
        for key in 0..1000 {
            store.get(format!("key {key}")).unwrap();
            store.get_with(format!("key {key}"), <[u8]>::len).unwrap();
        }
        assert_eq!((store.len().unwrap(), content(&store).len()), (800, 800));
    };
    // What counting costs by itself.
    let cost = reads().abs_diff(reads());
    let before = reads();
    look();
    assert_eq!(reads() - before, cost);
    say("no read");
}

/// Values are changed by `update`, and written and seen as typed numbers, where they are.
#[test]
fn values_change_atomically_and_show_as_typed_numbers() {
    let folder = folder();
    let path = folder.path().join("store");
    for access in [Access::ReadWrite, Access::CopyOnWrite] {
        let store = with(access).open(&path).unwrap();
        let map = store.map::<str, Pod<[u64]>>("numbers").unwrap();
        let numbers: Vec<u64> = (0..100).map(|n| n * n).collect();
        // Values begin at multiples of eight whatever the length of their keys.
        for key in ["n", "numbers", "more numbers"] {
            map.insert(key, &numbers).unwrap();
            let change = |numbers: Option<Vec<u64>>| {
                let mut numbers = numbers?;
                numbers[50] = 7;
                Some(numbers)
            };
            map.update(key, change).unwrap();
            let snapshot = store.snapshot().unwrap();
            let seen: &[u64] = snapshot.of(&map).get_ref(key).unwrap().unwrap();
            assert_eq!((seen.len(), seen[50], seen[99]), (100, 7, 99 * 99), "{key}");
        }
    }
}

/// Nothing is read until it is touched: opening touches as many pages of a large store as of a small one.
#[test]
#[cfg(target_os = "linux")]
fn opening_touches_as_little_of_a_large_store_as_of_a_small_one() {
    /// Pages that this thread has touched for the first time.
    fn faults() -> libc::c_long {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the call fills in the struct, which consists of integers.
        let usage = unsafe {
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
            usage.assume_init()
        };
        usage.ru_minflt + usage.ru_majflt
    }

    let folder = folder();
    let paths = [1_000_u64, 100_000].map(|keys| {
        let path = folder.path().join(keys.to_string());
        let store = Store::open(&path).unwrap();
        let mut transaction = store.begin().unwrap();
        for key in 0..keys {
            transaction.insert(key.to_le_bytes(), [7; 100]).unwrap();
        }
        transaction.commit().unwrap();
        store.close().unwrap();
        path
    });
    let pages = fs::metadata(&paths[1]).unwrap().len() as libc::c_long / 4096;
    for access in [Access::ReadWrite, Access::ReadOnly, Access::CopyOnWrite] {
        // Once before, for what the first opening in a process costs.
        drop(with(access).open(&paths[0]).unwrap());
        let [small, large] = paths.each_ref().map(|path| {
            let before = faults();
            let store = with(access).open(path).unwrap();
            let taken = faults() - before;
            assert_eq!(store.opened(), Opened::Clean);
            taken
        });
        println!("{access:?}: {small} pages touched by opening the small store, {large} of {pages} for the large one");
        assert!(large <= small + 16 && large < pages / 20, "{access:?}: {small} and {large} of {pages} pages");
    }
}

/// An anonymous map: nothing on the disk, and all the settings that make sense for it.
#[test]
fn in_memory_knows_the_settings() {
    let store = Store::in_memory().unwrap();
    assert_eq!(store.opened(), Opened::Created);
    fill(&store, 100);
    assert_eq!(store.len().unwrap(), 80);
    assert_clean(&store);
    assert!(Store::in_memory().unwrap().is_empty().unwrap(), "another one is another one");

    let max = 1 << 20;
    let limited = Store::options().max_size(max).in_memory().unwrap();
    let full = (0..100_000).find_map(|key: u64| limited.insert(key.to_le_bytes(), [7; 100]).err()).unwrap();
    assert!(matches!(full, Error::Full { why: FullReason::MaxSize(why), .. } if why == max), "{full}");
    assert!(limited.stats().unwrap().file_len <= max);
    assert!(limited.remove(0_u64.to_le_bytes()).unwrap(), "removing goes on");
    assert_clean(&limited);
    let refused = Store::options().max_size(1 << 16).in_memory();
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");

    let slots = |store: &Store| store.stats().unwrap().maps.iter().map(|map| map.slots).max().unwrap();
    let roomy = Store::options().initial_capacity(100_000).in_memory().unwrap();
    assert!(slots(&roomy) >= 100_000 && slots(&store) < 10_000);

    // Overwriting makes it longer only if it is not compacted.
    let overwritten = |share| {
        let store = Store::options().auto_compact(share).background_maintenance(share.is_some()).in_memory().unwrap();
        for round in 0..50_000_u32 {
            store.insert((round % 100).to_le_bytes(), [7; 100]).unwrap();
        }
        assert_clean(&store);
        store.stats().unwrap().file_len
    };
    assert!(overwritten(None) > 50_000 * 100 && overwritten(Some(0.5)) < 4 << 20);

    let synced = Store::options().durability(Durability::Synced).exclusive(true).in_memory().unwrap();
    synced.insert("key", "value").unwrap();
    synced.close().unwrap();
    for senseless in [with(Access::ReadOnly), Store::options().auto_compact(Some(1.5))] {
        let outcome = senseless.in_memory();
        assert!(matches!(outcome, Err(Error::InvalidOptions { .. })), "{outcome:?}");
    }
}

// The private map.

/// Does in a private copy all that can be done in a store, and looks after each step whether the file is as it was.
#[track_caller]
fn change_everything(path: &Path, options: Options, opened: fn(Opened) -> bool) {
    let before = state(path);
    let unchanged = |after: &str| assert_unchanged(path, &before, after);
    let store = options.access(Access::CopyOnWrite).open(path).unwrap();
    assert!(opened(store.opened()), "{:?}", store.opened());
    unchanged("opening");
    let mut expected = content(&store);
    assert_clean(&store);
    let first = store.snapshot().unwrap();
    let found = expected.clone();

    let mut random = Random(7);
    for round in 0..5000 {
        let key = format!("key {}", random.below(1500)).into_bytes();
        if random.one_in(3) {
            assert_eq!(store.remove(&key).unwrap(), expected.remove(&key).is_some(), "round {round}");
        } else {
            let value = vec![round as u8; random.below(200) as usize];
            store.insert(&key, &value).unwrap();
            expected.insert(key, value);
        }
    }
    assert!(content(&store) == expected);
    unchanged("inserts and removes");

    let mut transaction = store.begin().unwrap();
    for number in 0..2000_u64 {
        transaction.insert(number.to_le_bytes(), [1; 20]).unwrap();
        expected.insert(number.to_le_bytes().to_vec(), [1; 20].to_vec());
    }
    transaction.commit_with(Durability::Synced).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("never", "committed").unwrap();
    transaction.rollback();
    assert!(content(&store) == expected);
    unchanged("transactions");

    let target = 10 * before.bytes.len() as u64;
    for number in 0.. {
        if store.stats().unwrap().file_len >= target {
            break;
        }
        let key = format!("large {number}");
        store.insert(&key, vec![2; 100_000]).unwrap();
        expected.insert(key.into_bytes(), vec![2; 100_000]);
    }
    unchanged("growth to ten times its length");
    store.sync().unwrap();
    store.checkpoint().unwrap();
    assert_clean(&store);
    assert!(content(&store) == expected);
    unchanged("a sync and a checkpoint");

    assert!(first.iter().map(Result::unwrap).map(|(k, v)| (k.to_vec(), v.to_vec())).collect::<Content>() == found);
    drop(first);
    expected.retain(|key, _| {
        let goes = key.starts_with(b"large");
        assert!(!goes || store.remove(key).unwrap());
        !goes
    });
    let report = store.compact().unwrap();
    assert!(report.finished && report.freed_bytes > 0 && report.file_len < target / 2, "{report:?}");
    assert!(content(&store) == expected);
    assert_clean(&store);
    unchanged("compaction");
    while store.maintain(Duration::from_millis(20)).unwrap() {}
    store.release_free_space().unwrap();
    unchanged("maintenance");

    // What was given back is used again.
    for round in 0..3 {
        store.clear().unwrap();
        store.release_free_space().unwrap();
        expected.clear();
        fill(&store, 3000 + round);
        expected.extend(content(&store));
    }
    let seq = store.seq().unwrap();
    store.insert("last", "value").unwrap();
    expected.insert(b"last".to_vec(), b"value".to_vec());
    assert!(store.wait_for_change(seq, Duration::ZERO).unwrap());
    assert_eq!(store.changes_since(seq).unwrap().iter().count(), 1);
    assert_clean(&store);
    assert!(content(&store) == expected);
    assert_eq!(store.stats().unwrap().processes.len(), 1, "nobody else is there");

    let clone = store.clone();
    store.close().unwrap();
    unchanged("a close that is not the last");
    assert!(content(&clone) == expected, "another handle keeps it open");
    clone.close().unwrap();
    unchanged("a close");

    let store = copy_on_write(path);
    assert!(content(&store) == found, "what was changed has vanished");
    store.insert("key", "value").unwrap();
    drop(store);
    unchanged("a drop");
}

#[test]
fn a_private_copy_of_a_closed_store_never_changes_the_file() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 1000);
    change_everything(&path, Store::options(), |opened| opened == Opened::Clean);
    change_everything(&path, Store::options().background_maintenance(true), |opened| opened == Opened::Clean);
    change_everything(&path, Store::options().tiny_steps().exclusive(true), |opened| opened == Opened::Clean);
    // Of another page cache, where nobody vouches for the live area.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    change_everything(&copy, Store::options().durability(Durability::Synced), |opened| opened == Opened::Clean);
    // The file is as good as ever for the others.
    let store = Store::open(&path).unwrap();
    assert_eq!((store.opened(), store.len().unwrap()), (Opened::Clean, 800));
    assert_clean(&store);
}

fn write_until_killed(path: &Path) {
    let store = Store::open(path).unwrap();
    fill(&store, 1000);
    // It dies with a pin, the writer lock, and half of a transaction.
    let _snapshot = store.snapshot().unwrap();
    fill(&store, 1000);
    let mut transaction = store.begin().unwrap();
    transaction.insert("half", "done").unwrap();
    say("ready");
    until_stopped();
}

#[test]
fn a_private_copy_of_a_killed_store_never_changes_the_file() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut writer = Other::start("write until killed", &path);
    assert_eq!(writer.next(), "ready");
    let refused = with(Access::CopyOnWrite).open(&path).unwrap_err();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Writer { pid, .. }, .. } if pid == writer.child.id()));
    writer.kill();
    // Only Linux can tell that the page cache is the same.
    let as_killed: fn(Opened) -> bool =
        |opened| opened == Opened::AfterKill || !cfg!(target_os = "linux") && opened != Opened::Clean;
    change_everything(&path, Store::options(), as_killed);
    change_everything(&path, Store::options().tiny_steps(), as_killed);

    // The pin of the dead does not keep the space of the copy from being used again.
    let trial = copy_on_write(&path);
    for round in 0..20_000_u32 {
        trial.insert((round % 100).to_le_bytes(), [7; 100]).unwrap();
    }
    let stats = trial.stats().unwrap();
    assert_eq!((stats.pins, stats.waiting.pins), (0, 0));
    assert!(stats.file_len < 2 << 20, "{} bytes", stats.file_len);
    drop(trial);

    let store = Store::open(&path).unwrap();
    assert!(as_killed(store.opened()), "{:?}", store.opened());
    assert_eq!((store.len().unwrap(), store.get("half").unwrap()), (800, None));
    assert_clean(&store);
}

/// A copy of an open store stands for one after a power cut.
#[test]
fn a_private_copy_after_a_power_cut_never_changes_the_file() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store, 1000);
    let cut = folder.path().join("cut");
    fs::copy(&path, &cut).unwrap();
    set_mode(&cut, 0o444);
    let after_a_cut = |opened| matches!(opened, Opened::AfterPowerCut { records: 1000.., .. });
    change_everything(&cut, Store::options(), after_a_cut);
    change_everything(&cut, Store::options().tiny_steps(), after_a_cut);
    set_mode(&cut, 0o644);
    let store = Store::open(&cut).unwrap();
    assert!(after_a_cut(store.opened()), "it still has to be recovered: {:?}", store.opened());
    assert_eq!(store.len().unwrap(), 800);
}

#[test]
fn private_copies_do_not_see_each_other() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 100);
    let (one, two, reader) = (copy_on_write(&path), copy_on_write(&path), read_only(&path));
    let expected = content(&reader);
    one.clear().unwrap();
    one.insert("one", "value").unwrap();
    assert!(content(&two) == expected && content(&reader) == expected);
    two.insert("two", "value").unwrap();
    two.remove("key 8").unwrap();
    assert_eq!(content(&one), BTreeMap::from([(b"one".to_vec(), b"value".to_vec())]));
    assert!(content(&reader) == expected && content(&two).len() == expected.len());
    // One that comes later begins with the file.
    assert!(content(&copy_on_write(&path)) == expected);
    drop(one);
    assert!(two.contains_key("two").unwrap());
}

/// The limit is that of the file's length, and what is full is full in the same way.
#[test]
fn a_private_copy_has_the_size_of_a_file() {
    let folder = folder();
    let path = folder.path().join("store");
    let max = 1 << 20;
    let store = Store::options().max_size(max).open(&path).unwrap();
    // How many more keys fit in, until it is full.
    let fill_up = |store: &Store, from: u64| {
        let (key, error) = (from..from + 10_000)
            .find_map(|key| Some((key, store.insert(key.to_le_bytes(), [7; 1000]).err()?)))
            .unwrap();
        assert!(matches!(error, Error::Full { why: FullReason::MaxSize(why), .. } if why == max), "{error}");
        key - from
    };
    let keys = fill_up(&store, 0);
    assert!(keys > 500, "{keys} keys");
    let cut = folder.path().join("cut");
    fs::copy(&path, &cut).unwrap();
    store.close().unwrap();
    for (path, cut) in [(&path, false), (&cut, true)] {
        let before = state(path);
        let copy = || with(Access::CopyOnWrite);
        // The same content, opened for writing.
        let file = folder.path().join("file");
        fs::copy(path, &file).unwrap();
        let file = Store::options().max_size(max).open(&file).unwrap();
        let store = copy().max_size(max).open(path).unwrap();
        assert_eq!(matches!(store.opened(), Opened::AfterPowerCut { .. }), cut);
        assert_eq!(store.len().unwrap(), keys);
        assert_eq!(fill_up(&store, keys), fill_up(&file, keys), "it is full when the file is");
        assert!(store.stats().unwrap().file_len <= max);
        assert_clean(&store);
        // What is possible in the one is possible in the other, in a full store that had to be recovered as well.
        for key in 0..keys / 2 {
            let removed = [&store, &file].map(|store| store.remove(key.to_le_bytes()).is_ok());
            assert_eq!(removed[0], removed[1], "key {key}");
            assert!(removed[0] || cut, "removing goes on");
        }
        let compacted = [&store, &file].map(|store| store.compact().is_ok_and(|report| report.finished));
        assert_eq!(compacted[0], compacted[1]);
        assert_eq!(fill_up(&store, keys * 2), fill_up(&file, keys * 2));
        assert!(content(&store) == content(&file));
        assert_clean(&store);
        drop(store);
        let store = copy().open(path).unwrap();
        for key in keys..10 * keys {
            store.insert(key.to_le_bytes(), [7; 1000]).unwrap();
        }
        assert!(store.stats().unwrap().file_len > 8 * max, "with a higher limit it goes on");
        assert_clean(&store);
        drop(store);
        // A file that is longer than the limit opens all the same.
        if !cut {
            let store = copy().max_size(max / 2).open(path).unwrap();
            assert_eq!(store.len().unwrap(), keys);
            assert!(matches!(store.insert("one more", [7; 1 << 16]), Err(Error::Full { .. })));
        }
        assert_unchanged(path, &before, "all of that");
    }
}

/// It needs something to begin with, and never makes it.
#[test]
fn a_private_copy_is_of_a_store_that_exists() {
    let folder = folder();
    let path = folder.path().join("store");
    let copy = || with(Access::CopyOnWrite);
    for options in [copy(), copy().create(true), copy().create(false)] {
        assert!(matches!(options.open(&path), Err(Error::NotFound { .. })));
    }
    let outcome = copy().create_new(true).open(&path);
    assert!(matches!(outcome, Err(Error::InvalidOptions { .. })), "{outcome:?}");
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    assert!(matches!(copy().open(&path), Err(Error::NotAStore { .. })), "a store to be is none yet");
    assert_eq!(fs::read(&path).unwrap(), b"");
    fs::write(&path, [7; 1 << 17]).unwrap();
    assert!(matches!(copy().open(&path), Err(Error::NotAStore { .. })));
}

/// Damage is told of as it is in any other mode.
#[test]
fn a_private_copy_of_a_damaged_store_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 1000);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() / 2).unwrap();
    assert!(matches!(with(Access::CopyOnWrite).open(&path), Err(Error::Truncated { .. })));
}

// Who goes together with whom.

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mode {
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

    fn named(name: &str) -> Mode {
        *Mode::ALL.iter().find(|mode| mode.name() == name).unwrap_or_else(|| panic!("unknown role {name}"))
    }

    fn open(self, path: &Path) -> slotlog::Result<Store> {
        with(self.access).exclusive(self.exclusive).open(path)
    }

    fn goes_with(self, other: Mode) -> bool {
        let pair = [self.access, other.access];
        let writes_under_a_copy = pair.contains(&Access::ReadWrite) && pair.contains(&Access::CopyOnWrite);
        !self.exclusive && !other.exclusive && !writes_under_a_copy
    }

    /// Whether `by` is what is to be said of this mode, in a process with this number.
    fn is_named_by(self, by: HeldBy, process: u32) -> bool {
        match (self.access, by) {
            (Access::ReadWrite, HeldBy::Exclusive { pid, .. }) => self.exclusive && pid == process,
            (Access::ReadWrite, HeldBy::Writer { pid, .. }) => !self.exclusive && pid == process,
            (Access::ReadOnly, HeldBy::Readers) => true,
            // Who reads and leaves no trace cannot be told from another program.
            (Access::ReadOnly, HeldBy::Unknown) => self.exclusive,
            (Access::CopyOnWrite, HeldBy::Private) => true,
            _ => false,
        }
    }
}

/// Opens the store in all modes, beside `first`, which a process with this number has.
fn try_all_beside(first: Mode, process: u32, path: &Path) {
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

fn store_with_a_key(path: &Path) {
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
        let other = Other::start(first.name(), &path);
        assert_eq!(other.next(), "ready");
        try_all_beside(first, other.child.id(), &path);
        other.stop();
    }
}

/// What is refused says who is in the way, and goes as soon as they do, however they end.
#[test]
fn a_writer_is_kept_out_as_long_as_there_is_a_private_copy() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 100);
    let (one, mut other) = (copy_on_write(&path), Other::start("copy-on-write", &path));
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

/// A program that looks at a store for a moment does not make a writer fail.
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

fn fork_and_live(path: &Path) {
    let (copy, reader) = (copy_on_write(path), read_only(path));
    // SAFETY: the child sleeps, and ends without going back.
    if unsafe { libc::fork() } == 0 {
        assert!(matches!(copy.get("key 8"), Err(Error::Forked { .. })));
        assert!(matches!(copy.insert("key", "value"), Err(Error::Forked { .. })));
        // Said here and not by the parent: as long as this process has not run at all, it holds everything.
        say(&std::process::id().to_string());
        thread::sleep(LONG);
        // SAFETY: ends this process, and nothing of what it has inherited is cleaned up.
        unsafe { libc::_exit(0) };
    }
    until_stopped();
    drop((copy, reader));
}

/// Of one whose copy was recovered, too: it has the file in memory of its own as well.
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
        let mut parent = Other::start("fork and live", &path);
        let grandchild: libc::pid_t = parent.next().parse().unwrap();
        assert!(matches!(Store::open(&path), Err(Error::Locked { by: HeldBy::Private, .. })));
        parent.kill();
        // SAFETY: asks whether the process is there, which sleeps for a minute and is nobody's child any more.
        assert_eq!(unsafe { libc::kill(grandchild, 0) }, 0, "the child was to live on");
        let opened = Store::open(&path);
        // SAFETY: ends that process.
        unsafe { libc::kill(grandchild, libc::SIGKILL) };
        assert_eq!(opened.unwrap().len().unwrap(), 80);
    }
}

/// An opening waits for another one as long as it is told to, and longer while that one makes progress.
#[test]
fn an_opening_waits_for_another_as_long_as_that_makes_progress() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = Store::open(&path).unwrap();
    // Progress is told each four megabytes.
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
        // Nobody says more about a recovery than how far it is.
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

/// A change waits for another one as long as it is told to, and so does an opening that is told nothing else.
#[test]
fn lock_timeout_is_how_long_an_opening_and_a_change_wait() {
    let folder = folder();
    let path = folder.path().join("store");
    store_with_a_key(&path);
    let options = || Store::options().lock_timeout(Duration::from_millis(10));
    // A recovery goes on until this test says so.
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
    // In a private copy only its own threads can be in the way.
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
            assert_eq!(read_only(&cut_again).len().unwrap(), 80);
        };
        let store = with(access).on_recovery(on_recovery).open(&cut).unwrap();
        assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }));
        assert_eq!(store.len().unwrap(), 80);
    }
}
