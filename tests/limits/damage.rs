//! Damage is reported with its place, and a recovery reports its progress.

use std::sync::{Arc, Mutex};

use slotlog::{RecoveryPhase, RecoveryProgress};

use super::*;

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
        // A copy must be recovered through the log, which now continues in what was appended.
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
        overwrite(&path, at + 100, &[0x55]);
        let store = Store::open(&path).unwrap_or_else(|error| panic!("superblock at {at}, copied {copied}: {error}"));
        assert_eq!(content(&store).len(), 100, "superblock at {at}, copied {copied}");
        store.insert("more", "").unwrap();
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.len().unwrap(), 101);
    }
    fs::write(&path, &good).unwrap();
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        overwrite(&path, at + 100, &[0x55]);
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
    overwrite(&path, at + 4, b"V");

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

/// An unintelligible record costs its key, not the store: a change of that key must not get stuck half way between the
/// commit point and the end of the commit.
#[test]
fn a_damaged_length_does_not_stop_later_writes() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 10);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"key 6").unwrap() as u64 - 32;
    // The length of its value: still inside the file, and more than all live bytes together.
    overwrite(&path, at + 8, &60_000_u32.to_le_bytes());
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
