//! Bad input and hard limits: what is not a store is refused by name and not touched, what is damaged is reported with
//! its place, what does not fit is refused and harms nothing.
#![cfg(unix)]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slotlog::format::{BLOCK, CREATION_MAGIC, EXTENTS, LIVE, MAGIC, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, VERSION};
use slotlog::{Access, Durability, Error, FullReason, HeldBy, Opened, RecoveryPhase, RecoveryProgress, Store};
use support::{folder, run_child, say};
use zerocopy::{FromBytes, IntoBytes};

/// A closed store with `keys` keys.
fn make(path: &Path, keys: u32) {
    let store = Store::open(path).unwrap();
    for key in 0..keys {
        store.insert(format!("key {key}"), format!("value {key}")).unwrap();
    }
    store.close().unwrap();
}

/// All that is in a store.
fn content(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let snapshot = store.snapshot().unwrap();
    let entries = snapshot.iter().map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec()));
    entries.collect()
}

#[track_caller]
fn assert_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings());
}

/// Opens a file that must be refused, and checks that not a byte of it has changed.
#[track_caller]
fn refused(path: &Path) -> Error {
    let before = fs::read(path).unwrap();
    let error = Store::open(path).expect_err("this file had to be refused");
    assert!(fs::read(path).unwrap() == before, "a refused file was changed: {error}");
    let read_only = Store::options().access(Access::ReadOnly).open(path).expect_err("and read-only too");
    assert_eq!(std::mem::discriminant(&read_only), std::mem::discriminant(&error), "{read_only} / {error}");
    error
}

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn superblock(path: &Path, at: u64) -> Superblock {
    Superblock::read_from_prefix(&fs::read(path).unwrap()[at as usize..]).unwrap().0
}

fn is_root() -> bool {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::geteuid() == 0 }
}

// Paths.

#[test]
fn a_missing_folder_is_not_found() {
    let folder = folder();
    let path = folder.path().join("no/such/store");
    assert!(matches!(Store::open(&path), Err(Error::NotFound { path: named }) if named == path));
}

#[test]
fn a_missing_file_is_created_only_if_that_is_asked_for() {
    let folder = folder();
    let path = folder.path().join("store");
    assert!(matches!(Store::options().create(false).open(&path), Err(Error::NotFound { .. })));
    assert!(matches!(Store::options().access(Access::ReadOnly).open(&path), Err(Error::NotFound { .. })));
    assert!(!path.exists(), "neither of them may create it");
    let store = Store::options().create_new(true).open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Created);
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    assert!(matches!(Store::options().create_new(true).open(&path), Err(Error::AlreadyExists { .. })));
    assert_eq!(Store::options().create(false).open(&path).unwrap().get("key").unwrap().unwrap(), b"value");
    let contradiction = Store::options().create_new(true).access(Access::ReadOnly).open(folder.path().join("other"));
    assert!(matches!(contradiction, Err(Error::InvalidOptions { .. })));
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
    let folder = folder();
    let fifo = folder.path().join("fifo");
    let name = std::ffi::CString::new(fifo.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the name is a C string that lives during the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    for path in [folder.path(), &fifo, &socket, &link, Path::new("/dev/null")] {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            // The reader of a FIFO waits for a writer, for ever.
            let path = path.to_owned();
            let (done, outcome) = std::sync::mpsc::channel();
            std::thread::spawn(move || done.send(Store::options().access(access).open(&path)));
            let outcome = outcome.recv_timeout(std::time::Duration::from_secs(10)).expect("opening it hangs");
            assert!(matches!(outcome, Err(Error::NotAFile { .. })), "{outcome:?}");
        }
    }
}

#[test]
fn a_link_to_a_store_is_as_good_as_the_store() {
    let folder = folder();
    let (path, link) = (folder.path().join("store"), folder.path().join("link"));
    make(&path, 3);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let store = Store::open(&link).unwrap();
    assert_eq!(store.len().unwrap(), 3);
    Store::open(&path).unwrap().insert("new", "value").unwrap();
    assert_eq!(store.get("new").unwrap().unwrap(), b"value", "it is one file");
}

#[test]
fn a_file_that_may_not_be_opened_is_permission_denied() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("store");
    make(&path, 3);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    // For root everything is permitted, so it is the child that gives up being root.
    assert_eq!(run_child("without rights", &path), ["denied", "3 keys", "denied"]);
}

fn without_rights(path: &Path) {
    if is_root() {
        // SAFETY: both take an integer; "nobody" has this number everywhere that matters.
        assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
    }
    let outcome = Store::open(path);
    say(if matches!(outcome, Err(Error::PermissionDenied { .. })) { "denied" } else { "opened" });
    let store = Store::options().access(Access::ReadOnly).open(path).unwrap();
    say(&format!("{} keys", store.len().unwrap()));
    let outcome = Store::open(path.with_file_name("another"));
    say(if matches!(outcome, Err(Error::PermissionDenied { .. })) || !is_root() { "denied" } else { "opened" });
}

// Files that are something else, or not yet anything.

#[test]
fn a_file_that_is_something_else_is_refused_and_not_touched() {
    let folder = folder();
    let path = folder.path().join("file");
    let mut almost = vec![0; 4096];
    almost.extend(b"something");
    let mut marked = CREATION_MAGIC.to_vec();
    marked.extend(b" is how this letter happens to begin, and it must not be lost");
    let files: [&[u8]; 10] = [
        b"x",
        b"a letter to a friend\n",
        &[0],
        &[0; 4095],
        &[0; 4097],
        &[0; 8192],
        &[0xff; 100_000],
        b"SQLite format 3\0",
        &almost,
        &marked,
    ];
    for bytes in files {
        fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
}

#[test]
fn an_empty_file_is_a_store_to_be() {
    let folder = folder();
    let path = folder.path().join("store");
    fs::write(&path, "").unwrap();
    assert!(matches!(Store::options().access(Access::ReadOnly).open(&path), Err(Error::NotAStore { .. })));
    assert!(matches!(Store::options().create_new(true).open(&path), Err(Error::AlreadyExists { .. })));
    assert!(matches!(Store::options().create(false).open(&path), Err(Error::NotAStore { .. })));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Created);
    store.insert("key", "value").unwrap();
    assert_clean(&store);
}

#[test]
fn a_creation_that_was_cut_short_is_begun_anew() {
    let folder = folder();
    let path = folder.path().join("store");
    // As long as a new file is before each step of its creation, and some lengths in between.
    for len in [0, 4096, 8192, 65536, 131_072, 200_000, 225_280] {
        for mark in [true, false] {
            if !mark && len > 4096 {
                continue;
            }
            let mut bytes = vec![0; len];
            if mark && len > 0 {
                bytes[..8].copy_from_slice(&CREATION_MAGIC);
            }
            // What was built by then is of no value, wherever it got to; the superblocks come last.
            if len > 16384 {
                bytes[LIVE as usize..12288].fill(7);
                bytes[len - 100..].fill(9);
            }
            fs::write(&path, &bytes).unwrap();
            let store = Store::open(&path).unwrap_or_else(|error| panic!("{len} bytes, mark {mark}: {error}"));
            assert_eq!(store.opened(), Opened::Created);
            store.insert("key", "value").unwrap();
            assert_clean(&store);
            store.close().unwrap();
            assert_eq!(Store::open(&path).unwrap().get("key").unwrap().unwrap(), b"value");
        }
    }
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    let folder = folder();
    let path = folder.path().join("store");
    let outcome = Store::options().max_size(90_000).open(&path);
    assert!(matches!(outcome, Err(Error::Full { why: FullReason::MaxSize(90_000), .. })), "{outcome:?}");
    assert!(!path.exists());
    assert_eq!(Store::open(&path).unwrap().opened(), Opened::Created);
}

/// One that fails takes its file away again, but never one in which somebody else has begun a store meanwhile.
#[test]
fn a_creation_that_fails_does_not_take_away_the_store_of_another() {
    let folder = folder();
    let path = folder.path().join("store");
    for _ in 0..1000 {
        let stores = std::thread::scope(|scope| {
            let failing = scope.spawn(|| {
                for _ in 0..4 {
                    assert!(Store::options().max_size(8192).open(&path).is_err() || path.exists());
                }
            });
            let store = (0..1000).find_map(|_| Store::open(&path).ok());
            failing.join().unwrap();
            store
        });
        let Some(store) = stores else { continue };
        assert!(path.exists(), "the file of an open store is gone");
        drop(store);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_newer_version_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 3);
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        patch(&path, at + 8, &(VERSION + 1).to_le_bytes());
    }
    let error = refused(&path);
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 2, .. }), "{error}");
}

/// Only its first bytes have reached the disk, where there was something else before: that is none of another version.
#[test]
fn a_superblock_cut_short_is_not_believed_in_its_version() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 3);
    let [a, b] = [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| superblock(&path, at).generation.get());
    let older = if a < b { SUPERBLOCK_A } else { SUPERBLOCK_B };
    let whole = fs::read(&path).unwrap();
    for junk in [0, 0x5a] {
        patch(&path, older, &MAGIC);
        patch(&path, older + 8, &[junk; BLOCK as usize - 8]);
        let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
        assert_eq!(content(&reader).len(), 3);
        drop(reader);
        let store = Store::open(&path).unwrap();
        assert_eq!(content(&store).len(), 3);
        assert_clean(&store);
        drop(store);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn an_unknown_incompatible_feature_is_refused_and_a_compatible_one_is_not() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 3);
    let both = |change: fn(&mut Superblock)| {
        for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
            let mut superblock = superblock(&path, at);
            change(&mut superblock);
            patch(&path, at, superblock.sealed().as_bytes());
        }
    };
    both(|superblock| superblock.compatible = (1 << 40).into());
    let store = Store::open(&path).unwrap();
    assert_eq!(store.len().unwrap(), 3);
    store.insert("more", "").unwrap();
    store.close().unwrap();
    both(|superblock| superblock.incompatible = (1 << 40).into());
    let error = refused(&path);
    assert!(matches!(error, Error::UnsupportedFeature { features, .. } if features == 1 << 40), "{error}");
}

// Damage.

#[test]
fn a_truncated_file_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 2000);
    let whole = fs::read(&path).unwrap();
    for len in [512, 4096, 8192, 65535, 65536, 70_000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }), "{len} bytes: {error}");
        if let Error::Truncated { len: found, expected, .. } = error {
            assert!(found == len as u64 && expected > found && expected <= whole.len() as u64);
        }
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(Store::open(&path).unwrap().len().unwrap(), 2000, "the whole one is still good");
}

#[test]
fn a_file_that_something_was_appended_to_opens_and_goes_on() {
    let folder = folder();
    let path = folder.path().join("store");
    for appended in [1, 7, 4095, 4096, 100_001] {
        let _ = fs::remove_file(&path);
        make(&path, 100);
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize(bytes.len() + appended, 0xa5);
        fs::write(&path, &bytes).unwrap();
        let read_only = Store::options().access(Access::ReadOnly).open(&path).unwrap();
        assert_eq!(content(&read_only).len(), 100);
        drop(read_only);
        let store = Store::open(&path).unwrap();
        assert_eq!(content(&store).len(), 100);
        for key in 0..5000 {
            store.insert(format!("more {key}"), [1; 100]).unwrap();
        }
        assert_clean(&store);
        // A copy has to be recovered through the log, which now goes on in what was appended.
        let copy = folder.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        let copy = Store::open(copy).unwrap();
        assert!(matches!(copy.opened(), Opened::AfterPowerCut { .. }));
        assert_eq!(content(&copy), content(&store));
        assert_clean(&copy);
    }
}

#[test]
fn one_superblock_that_fails_is_enough_to_open_and_both_are_not() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 100);
    let good = fs::read(&path).unwrap();
    // First in place, where the live area says which of the two is in force; then as a copy, where it is not believed.
    for (at, copied) in [(SUPERBLOCK_A, false), (SUPERBLOCK_B, false), (SUPERBLOCK_A, true), (SUPERBLOCK_B, true)] {
        if copied {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, &good).unwrap();
        patch(&path, at + 100, &[0x55]);
        let store = Store::open(&path).unwrap_or_else(|error| panic!("superblock at {at}, copied {copied}: {error}"));
        assert_eq!(content(&store).len(), 100, "superblock at {at}, copied {copied}");
        store.insert("more", "").unwrap();
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.len().unwrap(), 101);
    }
    fs::write(&path, &good).unwrap();
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        patch(&path, at + 100, &[0x55]);
    }
    let error = refused(&path);
    assert!(matches!(error, Error::Corrupt { offset: SUPERBLOCK_A, .. }), "{error}");
}

#[test]
fn a_damaged_value_is_reported_with_its_place_if_reads_are_verified() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for key in 0..10 {
        store.insert(format!("key {key}"), format!("the value of key {key}").repeat(20)).unwrap();
    }
    store.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let needle = b"the value of key 6";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap() as u64;
    patch(&path, at + 4, b"V");

    let store = Store::options().verify_reads(true).open(&path).unwrap();
    let error = store.get("key 6").unwrap_err();
    assert!(matches!(error, Error::Corrupt { offset, .. } if (EXTENTS..at).contains(&offset) && at - offset < 64));
    assert!(store.snapshot().unwrap().get("key 6").is_err());
    assert_eq!(store.snapshot().unwrap().iter().filter(Result::is_err).count(), 1, "iteration goes on behind it");
    assert_eq!(store.snapshot().unwrap().iter().filter(Result::is_ok).count(), 9);
    for key in (0..10).filter(|&key| key != 6) {
        assert!(store.get(format!("key {key}")).unwrap().is_some(), "the others are fine");
    }
    let report = store.verify().unwrap();
    assert!(report.findings().iter().any(|finding| finding.offset < at && at - finding.offset < 64), "{report:?}");
    drop(store);

    let store = Store::open(&path).unwrap();
    let value = store.get("key 6").unwrap().unwrap();
    assert_eq!(value.len(), 18 * 20, "unverified, the damage is within the value");
    assert!(!store.verify().unwrap().is_clean(), "and verify finds it all the same");
}

/// A record that nobody can make sense of costs its key, not the store: whoever overwrites it must not get stuck half
/// way between the commit point and the end of the commit.
#[test]
fn a_damaged_length_does_not_stop_later_writes() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 10);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"key 6").unwrap() as u64 - 32;
    // The length of its value: still inside the file, and more than all live bytes together.
    patch(&path, at + 8, &60_000_u32.to_le_bytes());
    let store = Store::open(&path).unwrap();
    let _ = store.insert("key 6", "new");
    let _ = store.remove("key 6");
    store.insert("another", "value").unwrap();
    assert_eq!(store.get("another").unwrap().unwrap(), b"value");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get("another").unwrap().unwrap(), b"value");
    assert!(!store.verify().unwrap().is_clean());
}

// Lengths.

#[test]
fn keys_have_at_most_65535_bytes() {
    let store = Store::in_memory().unwrap();
    let (longest, too_long) = (vec![7; 65_535], vec![7; 65_536]);
    store.insert(&longest, "value").unwrap();
    assert_eq!(store.get(&longest).unwrap().unwrap(), b"value");
    assert!(matches!(store.insert(&too_long, "value"), Err(Error::KeyTooLong { len: 65_536, max: 65_535 })));
    // What cannot be there is not there, and asking is no mistake.
    assert_eq!(store.get(&too_long).unwrap(), None);
    assert!(!store.contains_key(&too_long).unwrap());
    assert!(!store.remove(&too_long).unwrap());
    let mut transaction = store.begin().unwrap();
    assert!(matches!(transaction.insert(&too_long, ""), Err(Error::KeyTooLong { .. })));
    assert!(!transaction.remove(&too_long).unwrap());
    transaction.insert("short", "value").unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.len().unwrap(), 2);
    assert!(store.remove(&longest).unwrap());
    assert_clean(&store);
}

#[test]
fn a_value_of_100_mib_is_stored_and_read() {
    let folder = folder();
    let path = folder.path().join("store");
    let value: Vec<u8> = (0..100 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let store = Store::open(&path).unwrap();
    store.insert("before", "small").unwrap();
    store.insert("large", &value).unwrap();
    store.insert("after", "small").unwrap();
    assert!(store.get_with("large", |found| found == value).unwrap().unwrap());
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(store.get_with("large", |found| found == value).unwrap().unwrap());
    assert_eq!(store.get("after").unwrap().unwrap(), b"small");
    assert_eq!(store.stats().unwrap().maps[1].entries, 3);
}

#[test]
#[ignore = "needs 10 GiB of memory or disk"]
fn a_value_of_4_gib_less_a_byte_is_stored_and_one_byte_more_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut value = vec![0; u32::MAX as usize];
    value[5] = 5;
    *value.last_mut().unwrap() = 9;
    let store = Store::open(folder.path().join("store")).unwrap();
    store.insert("large", &value).unwrap();
    assert!(store.get_with("large", |found| found == value).unwrap().unwrap());
    value.push(1);
    assert!(matches!(store.insert("larger", &value), Err(Error::ValueTooLong { .. })));
    store.insert("after", "small").unwrap();
    assert_eq!(store.len().unwrap(), 2);
    assert_clean(&store);
}

// A full store.

/// Inserts until there is no room, neither for new keys in the index nor for records in the log. Returns how many keys
/// went in, and the first error.
fn fill_up(store: &Store, value: &[u8]) -> (u32, Error) {
    let (keys, error) =
        (0..).find_map(|key| store.insert(format!("fill {key:08}"), value).err().map(|error| (key, error))).unwrap();
    // An old key takes no room in the index.
    while store.insert("fill 00000000", value).is_ok() {}
    (keys, error)
}

/// What must hold of a store that has just refused an insert, with `keys` keys from [`fill_up`].
fn check_full(store: &Store, keys: u32, value: &[u8]) {
    assert_eq!(store.len().unwrap(), u64::from(keys));
    assert!(store.insert("one more", value).is_err(), "it stays full");
    assert_eq!(store.get("one more").unwrap(), None);
    for key in 0..keys {
        assert_eq!(store.get(format!("fill {key:08}")).unwrap().unwrap(), value, "key {key}");
    }
    assert_clean(store);
    // A transaction that runs into the wall, and is given up.
    let mut transaction = store.begin().unwrap();
    assert!(transaction.remove("fill 00000000").unwrap());
    let refused = (0..10_000).find_map(|n| transaction.insert(format!("in transaction {n}"), [0; 1000]).err());
    assert!(matches!(refused, Some(Error::Full { .. })), "{refused:?}");
    transaction.rollback();
    assert_eq!(store.len().unwrap(), u64::from(keys), "rolled back");
    assert_clean(store);
    // And one that is committed without what did not fit.
    let mut transaction = store.begin().unwrap();
    assert!(transaction.remove("fill 00000001").unwrap());
    assert!(transaction.insert("does not fit", vec![0; 1 << 20]).is_err());
    assert_eq!(transaction.get("does not fit").unwrap(), None);
    assert!(transaction.remove("fill 00000002").unwrap());
    assert_eq!(transaction.len(), u64::from(keys) - 2);
    transaction.commit().unwrap();
    assert_eq!(store.len().unwrap(), u64::from(keys) - 2);
    assert_eq!(store.get("fill 00000001").unwrap(), None);
    assert_eq!(store.get("does not fit").unwrap(), None);
    assert_clean(store);
    // Removing is always possible.
    for key in 3..keys.min(400) {
        assert!(store.remove(format!("fill {key:08}")).unwrap(), "key {key}");
    }
    assert_clean(store);
}

#[test]
fn a_store_at_max_size_is_full_and_unharmed() {
    let folder = folder();
    let max_size = 1 << 20;
    let open = |path: &Path| Store::options().max_size(max_size).open(path).unwrap();
    for (number, len) in [0, 10, 500, 3000].into_iter().enumerate() {
        let path = folder.path().join(format!("store {number}"));
        let value = vec![number as u8; len];
        let store = open(&path);
        let (keys, error) = fill_up(&store, &value);
        assert!(matches!(error, Error::Full { why: FullReason::MaxSize(max), .. } if max == max_size), "{error}");
        assert!(keys as usize * (len + 48) > 400_000, "most of the file is used: {keys} keys");
        check_full(&store, keys, &value);
        assert!(fs::metadata(&path).unwrap().len() <= max_size);

        let expected = content(&store);
        let copy = folder.path().join(format!("copy {number}"));
        fs::copy(&path, &copy).unwrap();
        store.close().unwrap();
        let store = open(&path);
        assert_eq!(store.opened(), Opened::Clean);
        assert!(content(&store) == expected, "nothing is half-written after reopening");
        assert_clean(&store);
        drop(store);
        // A full store can be recovered too, in the space that it has.
        let store = open(&copy);
        assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }));
        assert!(content(&store) == expected, "nothing is half-written in a copy");
        assert_clean(&store);
        // And all of it can be let go.
        store.clear().unwrap();
        assert!(store.is_empty().unwrap());
        assert_clean(&store);
        // With a higher limit it goes on.
        drop(store);
        let store = Store::open(&path).unwrap();
        store.insert("one more", &value).unwrap();
        assert_eq!(content(&store).len(), expected.len() + 1);
        assert_clean(&store);
    }
}

/// Keys that come and go leave a long log and few keys; recovery must not need more room than the store ever had.
#[test]
fn a_store_that_churn_has_filled_can_be_recovered_at_its_max_size() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().max_size(1 << 20).auto_compact(None).open(&path).unwrap();
    'fill: loop {
        for key in 0..10 {
            if store.insert([key], []).is_err() {
                break 'fill;
            }
        }
        for key in 0..9 {
            store.remove([key]).unwrap();
        }
    }
    let expected = content(&store);
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let store = Store::options().max_size(1 << 20).open(&copy).unwrap();
    assert_eq!(content(&store), expected);
    assert_clean(&store);
}

/// What is replaced and removed makes room for what comes, for ever.
#[test]
fn a_store_of_limited_size_takes_changes_without_end() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let folder = folder();
        let path = folder.path().join("store");
        let store = Store::options().max_size(1 << 20).durability(durability).open(&path).unwrap();
        let rounds = if durability == Durability::Buffered { 200_000u32 } else { 20_000 };
        for round in 0..rounds {
            store.insert((round % 700).to_le_bytes(), [round as u8; 300]).unwrap();
            if round % 3 == 0 {
                store.remove((round % 650).to_le_bytes()).unwrap();
            }
        }
        assert!(fs::metadata(&path).unwrap().len() <= 1 << 20);
        assert_clean(&store);
        for key in rounds - 600..rounds {
            let value = store.get((key % 700).to_le_bytes()).unwrap();
            assert!(value.is_none_or(|value| value == [key as u8; 300]));
        }
    }
}

#[test]
fn snapshots_of_a_store_that_fills_up_keep_what_they_see() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().max_size(300_000).open(&path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let (keys, _) = fill_up(&store, b"value");
    assert!(keys > 1000, "only {keys} keys");
    assert_eq!(snapshot.len(), 0);
    assert_eq!(snapshot.iter().count(), 0, "a snapshot from before sees none of it");
    let full = store.snapshot().unwrap();
    for key in 0..100 {
        assert!(store.remove(format!("fill {key:08}")).unwrap());
    }
    assert_eq!(full.iter().count(), keys as usize, "and one from between sees all of it");
    assert_clean(&store);
}

#[test]
fn a_full_disk_is_reported_and_does_no_harm() {
    if !is_root() {
        eprintln!("skipped: mounting a small file system takes root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "slotlog-test"])
        .arg(folder.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small file system could not be mounted");
        return;
    }
    let _unmount = Unmount(folder.path());
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    // Somebody else takes all the rest.
    let other = folder.path().join("other");
    let mut room = vec![0; 2 << 20];
    while fs::write(&other, &room).is_err() {
        room.truncate(room.len() - 4096);
    }
    let (keys, error) = fill_up(&store, &[1; 100]);
    assert!(matches!(error, Error::Full { why: FullReason::Disk, .. }), "{error}");
    check_full(&store, keys, &[1; 100]);
    let expected = content(&store);
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(content(&store) == expected);
    // A new store has no room at all, and leaves nothing.
    let outcome = Store::open(folder.path().join("new"));
    assert!(matches!(outcome, Err(Error::Full { why: FullReason::Disk, .. })), "{outcome:?}");
    assert!(!folder.path().join("new").exists());
    // When there is room again, the store goes on by itself.
    fs::remove_file(other).unwrap();
    store.insert("one more", [1; 100]).unwrap();
    assert_clean(&store);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_not_a_signal() {
    let folder = folder();
    for limit in [0, 1000, 90_000] {
        let said = run_child(&format!("limit {limit}"), &folder.path().join("too small"));
        assert_eq!(said, [format!("creation refused by {limit}")]);
    }
    assert_eq!(run_child("limit 600000", &folder.path().join("store")), ["full"]);
    let store = Store::open(folder.path().join("store")).unwrap();
    assert_clean(&store);
    assert!(store.len().unwrap() > 100);
}

/// A file may be longer than the limit by the time that there is one.
#[test]
fn what_has_outgrown_a_limit_on_the_size_of_files_is_still_written_to() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 5000);
    assert_eq!(run_child("limit below", &path), ["written"]);
    let store = Store::open(&path).unwrap();
    assert_clean(&store);
    assert_eq!(store.get("synced").unwrap().as_deref(), Some(&b"value"[..]));
}

fn beyond_the_limit(path: &Path) {
    let store = Store::options().durability(slotlog::Durability::Synced).open(path).unwrap();
    limit_files_to(100_000);
    store.insert("synced", "value").unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("another", "value").unwrap();
    transaction.commit().unwrap();
    let error = store.insert("long", vec![0; 1 << 20]).unwrap_err();
    assert!(matches!(error, Error::Full { why: FullReason::FileSizeLimit(100_000), .. }), "{error}");
    store.close().unwrap();
    say("written");
}

fn limit_files_to(limit: u64) {
    // On some targets a limit has 32 bits.
    let rlimit = libc::rlimit { rlim_cur: limit as _, rlim_max: limit as _ };
    // SAFETY: reads the struct, which lives on this stack frame.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &rlimit) }, 0);
}

fn within_limit(path: &Path, limit: u64) {
    limit_files_to(limit);
    match Store::open(path) {
        Err(Error::Full { why: FullReason::FileSizeLimit(found), .. }) if limit < 200_000 => {
            say(&format!("creation refused by {found}"));
        }
        outcome => {
            let store = outcome.unwrap();
            let (keys, error) = fill_up(&store, &[1; 100]);
            assert!(matches!(error, Error::Full { why: FullReason::FileSizeLimit(found), .. } if found == limit));
            check_full(&store, keys, &[1; 100]);
            store.close().unwrap();
            say("full");
        }
    }
}

// Read-only.

#[test]
fn a_read_only_store_refuses_every_change_and_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 1000);
    let (bytes, modified) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let store = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Clean);
    for change in
        [store.insert("key 1", "new"), store.clear(), store.remove("key 1").map(drop), store.begin().map(drop)]
    {
        assert!(matches!(change, Err(Error::ReadOnly { .. })), "{change:?}");
    }
    assert_eq!(content(&store).len(), 1000);
    assert_eq!(store.get("key 77").unwrap().unwrap(), b"value 77");
    assert_eq!(store.get("no such key").unwrap(), None);
    assert_eq!(store.stats().unwrap().maps[1].entries, 1000);
    assert_clean(&store);
    store.sync().unwrap();
    store.checkpoint().unwrap();
    let snapshot = store.snapshot().unwrap();
    store.close().unwrap();
    assert_eq!(snapshot.len(), 1000);
    drop(snapshot);
    assert!(fs::read(&path).unwrap() == bytes, "not a byte has changed");
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
}

/// After a power cut, which a copy of an open store stands for here, a reader may not write to the file and recovers
/// the store in its own memory, until a writer comes.
#[test]
fn a_reader_recovers_for_itself_and_follows_a_writer() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let big = vec![7; 100_000];
    for number in 0..2000u32 {
        store.insert(number.to_le_bytes(), "value").unwrap();
    }
    store.remove(7u32.to_le_bytes()).unwrap();
    store.insert("big", &big).unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let mut permissions = fs::metadata(&copy).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&copy, permissions).unwrap();
    let (bytes, modified) = (fs::read(&copy).unwrap(), fs::metadata(&copy).unwrap().modified().unwrap());

    let readers: Vec<Store> = (0..2).map(|_| Store::options().access(Access::ReadOnly).open(&copy).unwrap()).collect();
    for reader in &readers {
        assert!(matches!(reader.opened(), Opened::AfterPowerCut { records: 2002.., .. }), "{:?}", reader.opened());
        assert_eq!(reader.len().unwrap(), 2000);
        assert_eq!(reader.get("big").unwrap().unwrap(), big);
        assert_eq!(reader.get(7u32.to_le_bytes()).unwrap(), None);
        let snapshot = reader.snapshot().unwrap();
        assert_eq!(snapshot.iter().map(Result::unwrap).count(), 2000);
        assert_eq!(snapshot.get("big").unwrap().unwrap(), big);
        assert!(reader.verify().unwrap().is_clean(), "{:?}", reader.verify().unwrap().findings());
        assert!(matches!(reader.insert("key", "value"), Err(Error::ReadOnly { .. })));
        assert!(matches!(reader.begin(), Err(Error::ReadOnly { .. })));
        assert!(!reader.wait_for_change(reader.seq().unwrap(), Duration::from_millis(10)).unwrap_or(true));
        reader.stats().unwrap();
        reader.sync().unwrap();
        reader.checkpoint().unwrap();
    }
    let mut permissions = fs::metadata(&copy).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "the folder is this test's own")]
    permissions.set_readonly(false);
    fs::set_permissions(&copy, permissions).unwrap();
    assert!(fs::read(&copy).unwrap() == bytes, "not a byte was written");
    assert_eq!(fs::metadata(&copy).unwrap().modified().unwrap(), modified);

    let key = 8u32.to_le_bytes();
    let before: Vec<_> = readers.iter().map(|reader| reader.snapshot().unwrap()).collect();
    let untrusting = Store::options().access(Access::ReadOnly).untrusted(true).open(&copy).unwrap();
    let refused = Store::open(&copy).unwrap_err();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    drop(untrusting);
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let refused = Store::options().exclusive(true).access(access).open(&copy).unwrap_err();
        assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    }

    let writer = Store::open(&copy).unwrap();
    assert_eq!(writer.len().unwrap(), 2000);
    let seen = readers[0].seq().unwrap();
    assert!(!readers[0].wait_for_change(seen, Duration::from_millis(20)).unwrap());
    let told = std::thread::scope(|scope| {
        let waits = scope.spawn(|| readers[1].wait_for_change(seen, Duration::from_secs(60)).unwrap());
        writer.insert(key, "newer").unwrap();
        waits.join().unwrap()
    });
    assert!(told, "a commit of whoever has come wakes it");
    for (reader, before) in readers.iter().zip(&before) {
        assert_eq!(reader.get(key).unwrap().unwrap(), b"newer");
        assert_eq!(before.get(key).unwrap().unwrap(), b"value", "nothing has changed under it");
        assert_eq!(before.get("big").unwrap().unwrap(), big);
        assert!(matches!(reader.opened(), Opened::AfterPowerCut { .. }));
        assert_eq!((reader.handles(), reader.changes_since(0).unwrap().iter().count() > 0), (2, true));
    }
    drop(before);
    for reader in readers {
        assert_eq!(reader.handles(), 1);
        reader.close_last().unwrap();
    }
    drop(writer);
    drop(store);
}

#[test]
fn a_long_recovery_tells_how_far_it_has_come() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..10_000u32 {
        store.insert(number.to_le_bytes(), [7; 1000]).unwrap();
    }
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    drop(store);
    let told: Arc<Mutex<Vec<RecoveryProgress>>> = Arc::default();
    let tell = Arc::clone(&told);
    let options = Store::options().on_recovery(move |progress| tell.lock().unwrap().push(progress));
    let store = options.clone().open(&copy).unwrap();
    let Opened::AfterPowerCut { bytes, .. } = store.opened() else { panic!("{:?}", store.opened()) };
    let told = std::mem::take(&mut *told.lock().unwrap());
    for phase in [RecoveryPhase::Walking, RecoveryPhase::Indexing] {
        let of_phase: Vec<_> = told.iter().filter(|progress| progress.phase == phase).collect();
        assert!(of_phase.len() >= 4, "10 MB are told of every 4: {of_phase:?}");
        assert!(of_phase.is_sorted_by(|one, other| one.done < other.done));
        assert!(of_phase.iter().all(|progress| progress.done <= progress.total));
        assert_eq!((of_phase[0].done, of_phase[of_phase.len() - 1].done), (0, bytes));
    }
    assert!(told.is_sorted_by_key(|progress| progress.phase == RecoveryPhase::Indexing));
    store.close().unwrap();
    let quiet = Store::options().on_recovery(|progress| panic!("nothing is recovered: {progress:?}"));
    quiet.open(&copy).unwrap();
}

#[test]
fn blocks_are_the_unit_in_which_a_file_grows() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 10_000);
    assert_eq!(fs::metadata(&path).unwrap().len() % BLOCK, 0);
}

#[test]
#[ignore = "what other tests start in a process of its own"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match (role.as_str(), role.strip_prefix("limit ")) {
        (_, Some("below")) => beyond_the_limit(&path),
        (_, Some(limit)) => within_limit(&path, limit.parse().unwrap()),
        ("without rights", _) => without_rights(&path),
        #[cfg(target_os = "linux")]
        ("without membarrier", _) => without_membarrier(&path),
        (role, _) => panic!("nobody plays {role}"),
    }
}

/// From now on the system refuses this process the call `membarrier`, as a sandbox does. `false` if it cannot be had.
#[cfg(target_os = "linux")]
fn refuse_membarrier() -> bool {
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // The number of the call is the first word of what the filter is given.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_membarrier as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take integers, and the second a program that lives on this stack frame.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Overwrites a few keys, eight megabytes of values in all, and says how long the file is then.
#[cfg(target_os = "linux")]
fn overwrite(store: &Store) -> u64 {
    for number in 0..8000 {
        store.insert(format!("key {}", number % 10), vec![7; 1000]).unwrap();
    }
    store.stats().unwrap().file_len
}

#[cfg(target_os = "linux")]
fn without_membarrier(path: &Path) {
    let reuse_refused = |store: &Store| store.stats().unwrap().processes.iter().any(|process| process.reuse_refused);
    let store = Store::open(path).unwrap();
    let before = overwrite(&store);
    assert!(!reuse_refused(&store) && !store.compact().unwrap().reuse_refused);
    if !refuse_membarrier() {
        return say("no filter");
    }
    let after = overwrite(&store);
    assert!(after > before + 4_000_000, "{before} {after}");
    assert!(reuse_refused(&store) && store.compact().unwrap().reuse_refused);
    say(&std::process::id().to_string());
    // The one who started this maintains the store.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let after = store.stats().unwrap().file_len;
    store.close().unwrap();
    let store = Store::open(path).unwrap();
    let under_the_filter = overwrite(&store);
    assert!(under_the_filter <= after.max(before) + 1_000_000, "{after} {under_the_filter}");
    assert!(!reuse_refused(&store) && !store.compact().unwrap().reuse_refused);
    assert_clean(&store);
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_is_refused_the_barrier_is_named() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut child = support::child("without membarrier", &path);
    let mut child = child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let said = support::listen(&mut child).recv().unwrap();
    if said == "no filter" {
        eprintln!("skipped: the system does not let a process install a filter");
        return;
    }
    let store = Store::open(&path).unwrap();
    let named = |store: &Store| {
        let processes = store.stats().unwrap().processes;
        processes.iter().filter(|process| process.reuse_refused).map(|process| process.pid).collect::<Vec<_>>()
    };
    assert_eq!(named(&store), [said.parse::<u32>().unwrap()]);
    // Who may have the barrier reuses space for both.
    let before = store.stats().unwrap().file_len;
    let report = store.compact().unwrap();
    assert!(!report.reuse_refused && report.file_len < before / 4, "{before} {report:?}");
    store.close().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
