//! A full store: by its own limit, by the disk, or by the system's limit on file sizes.

use super::support::Random;
use super::*;

/// Inserts until there is no room, neither for new keys in the index nor for records in the log. Returns the number of
/// keys inserted, and the first error.
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
    // A transaction that runs out of room, and is given up.
    let mut transaction = store.begin().unwrap();
    assert!(transaction.remove("fill 00000000").unwrap());
    let refused = (0..10_000).find_map(|n| transaction.insert(format!("in transaction {n}"), [0; 1000]).err());
    assert!(matches!(refused, Some(Error::Full { .. })), "{refused:?}");
    transaction.rollback();
    assert_eq!(store.len().unwrap(), u64::from(keys), "rolled back");
    assert_clean(store);
    // And a transaction that is committed without the change that did not fit.
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
        // A full store can be recovered too, in its existing space.
        let store = open(&copy);
        assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }));
        assert!(content(&store) == expected, "nothing is half-written in a copy");
        assert_clean(&store);
        // And all of it can be cleared.
        store.clear().unwrap();
        assert!(store.is_empty().unwrap());
        assert_clean(&store);
        // With a higher limit it continues.
        drop(store);
        let store = Store::open(&path).unwrap();
        store.insert("one more", &value).unwrap();
        assert_eq!(content(&store).len(), expected.len() + 1);
        assert_clean(&store);
    }
}

/// Churn leaves a long log and few keys; recovery must not need more room than the store ever had.
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

/// Replaced and removed records make room for new ones, for ever.
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
    let Some(_unmount) = mount(folder.path(), "2m") else { return };
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    // Another file takes all the rest.
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
    // When there is room again, the store continues by itself.
    fs::remove_file(other).unwrap();
    store.insert("one more", [1; 100]).unwrap();
    assert_clean(&store);
}

/// On a disk of 6 MiB, a store of records of all sizes is emptied, and continues.
#[test]
fn a_store_on_a_full_disk_is_emptied_and_goes_on() {
    if !is_root() {
        eprintln!("skipped: mounting a small file system takes root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(_unmount) = mount(folder.path(), "6m") else { return };
    let path = folder.path().join("store");
    for seed in 0..5 {
        let store = Store::open(&path).unwrap();
        empty_what_is_full(&store, seed, |error| {
            assert!(matches!(error, Error::Full { why: FullReason::Disk, .. }), "{error}");
        });
        store.close().unwrap();
        fs::remove_file(&path).unwrap();
    }
}

/// Mounts a small file system, or prints why it cannot.
fn mount<'a>(folder: &'a Path, size: &str) -> Option<Unmount<'a>> {
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "slotlog-test"]).arg(folder);
    if mount.status().is_ok_and(|status| status.success()) {
        return Some(Unmount(folder));
    }
    eprintln!("skipped: a small file system could not be mounted");
    None
}

/// Fills the store until there is no room, and tries 60 times more; then removes seven keys in ten, compacts, removes
/// the others, clears, and fills it again.
fn empty_what_is_full(store: &Store, seed: u64, check: impl Fn(&Error)) {
    let mut random = Random(seed);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut refused = 0;
    while refused < 60 {
        let mut key = keys.len().to_le_bytes().to_vec();
        key.resize(8 + random.below(1000) as usize, 0);
        let len = 100 + random.below(8_000) / if refused == 0 { 1 } else { 10 };
        match store.insert(&key, vec![0; len as usize]) {
            Ok(()) => keys.push(key),
            Err(error) => {
                check(&error);
                refused += 1;
            }
        }
    }
    let removed = keys.iter().filter(|_| random.below(10) < 7).collect::<Vec<_>>();
    for key in &removed {
        assert!(store.remove(key).unwrap(), "seed {seed}");
    }
    assert_clean(store);
    store.compact().unwrap();
    for key in &keys {
        store.remove(key).unwrap();
    }
    store.clear().unwrap();
    for key in keys.iter().take(keys.len() / 2) {
        store.insert(key, [1; 100]).unwrap();
    }
    assert_eq!(store.len().unwrap(), keys.len() as u64 / 2);
    assert_clean(store);
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

/// A file may be longer than a limit that is set later.
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

pub(super) fn beyond_the_limit(path: &Path) {
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

pub(super) fn within_limit(path: &Path, limit: u64) {
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
            let store = Store::open(path.with_extension("emptied")).unwrap();
            empty_what_is_full(&store, limit, |error| {
                assert!(matches!(error, Error::Full { why: FullReason::FileSizeLimit(_), .. }), "{error}");
            });
            say("full");
        }
    }
}
