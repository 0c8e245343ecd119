//! Which openers go together, across processes.

use super::*;

pub(super) fn open_as(path: &Path, how: &str) -> slotlog::Result<Store> {
    match how {
        "shared" => Store::open(path),
        "exclusive" => Store::options().exclusive(true).open(path),
        "read-only" => Store::options().access(Access::ReadOnly).open(path),
        other => panic!("{other}"),
    }
}

pub(super) fn open_and_wait(path: &Path, how: &str) {
    let store = open_as(path, how).unwrap();
    say("ready");
    until_stopped();
    drop(store);
}

#[test]
fn who_goes_together_with_whom() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().insert("key", "value").unwrap();
    for first in ["shared", "exclusive", "read-only"] {
        let player = Player::start("open", first, &path);
        assert_eq!(player.next(), "ready");
        for second in ["shared", "exclusive", "read-only"] {
            let outcome = open_as(&path, second);
            if first == "exclusive" || second == "exclusive" {
                let Err(Error::Locked { by, .. }) = outcome else { panic!("{first}, then {second}: {outcome:?}") };
                let pid = player.child.id();
                let named = match (first, by) {
                    ("exclusive", HeldBy::Exclusive { pid: named, .. }) => named == pid,
                    ("shared", HeldBy::Writer { pid: named, .. }) => named == pid,
                    ("read-only", HeldBy::Readers) => true,
                    _ => false,
                };
                assert!(named, "{first}, then {second}: {by}");
            } else {
                assert_eq!(outcome.unwrap().get("key").unwrap().unwrap(), b"value", "{first}, then {second}");
            }
        }
        player.stop();
    }
}

#[test]
fn a_reader_changes_not_a_byte() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for n in 0..1000_u64 {
        store.insert(n.to_le_bytes(), value(n)).unwrap();
    }
    store.checkpoint().unwrap();
    // Root may write to it nevertheless; what counts is that no attempt is made.
    // (Wine does not change the attributes of a file that is mapped.)
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let state = || (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let before = state();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    assert_eq!(reader.opened(), Opened::Attached);
    let snapshot = reader.snapshot().unwrap();
    assert_eq!((snapshot.iter().count(), reader.len().unwrap()), (1000, 1000));
    assert_eq!(number(&reader.get(7_u64.to_le_bytes()).unwrap().unwrap()), 7);
    assert_clean(&reader);
    assert_eq!(reader.stats().unwrap().processes.len(), 1);
    assert!(!reader.wait_for_change(reader.seq().unwrap(), Duration::from_millis(10)).unwrap());
    assert!(matches!(reader.insert("key", "value"), Err(Error::ReadOnly { .. })));
    assert!(matches!(reader.begin(), Err(Error::ReadOnly { .. })));
    drop(snapshot);
    reader.close().unwrap();
    assert!(state() == before);
}

/// A reader came while the store was closed, and then it is opened for writing.
#[test]
fn a_reader_of_a_closed_store_sees_it_come_to_life() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::open(&path).unwrap().insert("key", "old").unwrap();
    // For a copy the live area is not vouched for.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&copy).unwrap();
    assert_eq!(reader.opened(), Opened::Clean);
    let snapshot = reader.snapshot().unwrap();
    let writer = Store::open(&copy).unwrap();
    assert_eq!(reader.get("key").unwrap().unwrap(), b"old");
    writer.insert("key", "new").unwrap();
    assert_eq!(reader.get("key").unwrap().unwrap(), b"new");
    for n in 0..5000_u64 {
        writer.insert(n.to_le_bytes(), "").unwrap();
    }
    let retired =
        |store: &Store| store.stats().unwrap().extents.iter().find(|e| e.kind == "Retired").map_or(0, |e| e.count);
    assert!(retired(&writer) > 1, "the snapshot of the reader holds what the index was");
    assert_eq!((snapshot.get("key").unwrap(), snapshot.iter().count()), (Some(&b"old"[..]), 1));
    assert_eq!(reader.len().unwrap(), 5001);
    drop(snapshot);
    for n in 5000..20_000_u64 {
        writer.insert(n.to_le_bytes(), "").unwrap();
    }
    assert!(retired(&writer) <= 1, "and no longer than it lives");
}
