//! The recipe of memory mapping.

use super::*;

/// A map for reading and writing: changes go to the file, other processes see them at once, and they survive a close.
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

pub(super) fn look(path: &Path) {
    say(&format!("{} keys", read_only(path).unwrap().len().unwrap()));
}

/// A read-only map: neither a byte nor a time of the file changes, although another process writes before and after.
#[test]
fn read_only_changes_nothing_beside_a_living_writer() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store, 1000);
    store.close().unwrap();
    let writer = Player::start("read-write", "", &path);
    assert_eq!(writer.next(), "ready");
    set_mode(&path, 0o444);
    let before = state(&path);
    let reader = read_only(&path).unwrap();
    assert_eq!(reader.opened(), Opened::Clean, "nothing was changed since it was closed");
    assert_eq!(content(&reader).len(), 800);
    assert_eq!(reader.get("key 7").unwrap(), None);
    assert_eq!(reader.get("key 8").unwrap().unwrap(), b"value 8");
    assert_clean(&reader);
    assert_eq!(reader.stats().unwrap().processes.len(), 1, "the writer");
    let changes: [(&str, slotlog::Result<()>); 5] = [
        ("insert", reader.insert("key", "value")),
        ("remove", reader.remove("key 8").map(drop)),
        ("clear", reader.clear()),
        ("begin", reader.begin().map(drop)),
        ("compact", reader.compact().map(drop)),
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

/// A mode needs the file permissions for what it does, and no more.
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

pub(super) fn without_rights(path: &Path) {
    give_up_rights();
    modes_of_the_unwritable(path);
}

pub(super) fn modes_of_the_unwritable(path: &Path) {
    let outcome = Store::open(path);
    assert!(matches!(outcome, Err(Error::PermissionDenied { .. })), "{outcome:?}");
    say("not for writing");
    let store = read_only(path).unwrap();
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

/// A whole file system that is read-only. Only root can make one, in its own namespace.
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
pub(super) fn on_a_read_only_mount(path: &Path) {
    let folder = std::ffi::CString::new(path.parent().unwrap().as_os_str().as_encoded_bytes()).unwrap();
    let mount = |target: &std::ffi::CStr, flags| {
        let (source, kind, data) = (target.as_ptr(), std::ptr::null(), std::ptr::null());
        // SAFETY: the paths are C strings that live during the call.
        match unsafe { libc::mount(source, target.as_ptr(), kind, flags, data) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // This mount vanishes with the process.
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

/// Opens the store in its own mount namespace, and says in which state a reader and a writer found it.
#[cfg(target_os = "linux")]
pub(super) fn in_another_namespace(path: &Path) {
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

/// Each start of a container has its own mounts. A mark on the file lives only as long as its page cache, so it proves
/// that this page cache was there all the time.
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
        let writer = Player::start("write until killed", "", &path);
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
pub(super) fn on_a_read_only_mount(_path: &Path) {}

/// A file of a given size first: the space is real, and no index grows until that many keys are there.
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
    // No effect on an existing store.
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

/// How many read calls this process has made to the system.
pub(super) fn reads() -> u64 {
    let counters = fs::read_to_string("/proc/self/io").unwrap();
    counters.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

pub(super) fn count_reads(path: &Path) {
    let store = Store::open(path).unwrap();
    let look = || {
        for key in 0..1000 {
            store.get(format!("key {key}")).unwrap();
            store.get_with(format!("key {key}"), <[u8]>::len).unwrap();
        }
        assert_eq!((store.len().unwrap(), content(&store).len()), (800, 800));
    };
    // The cost of counting itself.
    let cost = reads().abs_diff(reads());
    let before = reads();
    look();
    assert_eq!(reads() - before, cost);
    say("no read");
}

/// Values are changed by `update`, and written and read as typed numbers, in place.
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
        // Once before, for the cost of the first opening in a process.
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

/// An anonymous map: nothing on the disk, and all applicable settings.
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

    // Overwriting makes it longer only without compaction.
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
