//! Everything goes out as bytes, and comes in again bit for bit.

use slotlog::Import;

use super::*;

fn copy(from: &Store, import: &mut Import) {
    let snapshot = from.snapshot().unwrap();
    let export = snapshot.export().unwrap();
    for map in export.maps() {
        import.create_map(&map.name, &map.types, map.version).unwrap();
    }
    for entry in export {
        let entry = entry.unwrap();
        import.insert(&entry.map, entry.key, entry.value, entry.expires).unwrap();
    }
}

#[test]
fn what_goes_out_comes_in() {
    for seed in 1..6 {
        let mut random = Random(seed);
        let store = Store::in_memory().unwrap();
        for _ in 0..500 {
            change(&store, &mut random);
        }
        store.insert("", "an empty key").unwrap();
        store.insert("long", random.bytes(3 << 20)).unwrap();
        store.map_versioned::<u64, str>("typed", 7).unwrap().insert(9, "nine").unwrap();
        store.map::<(u16, String), ()>("empty").unwrap();
        let other = Store::in_memory().unwrap();
        let mut import = other.import();
        copy(&store, &mut import);
        let count: usize = everything_in(&store).0.values().map(|(_, _, entries)| entries.len()).sum();
        assert_eq!(import.finish().unwrap(), count as u64);
        assert_eq!(everything_in(&other), everything_in(&store));
        assert_eq!(other.map_versioned::<u64, str>("typed", 7).unwrap().get(9).unwrap().unwrap(), "nine");
        assert_clean(&other);
    }
}

#[test]
fn an_import_that_is_dropped_keeps_what_was_committed() {
    let store = Store::in_memory().unwrap();
    let mut import = store.import();
    for number in 0..10_000u32 {
        import.insert("", &number.to_le_bytes(), b"value", None).unwrap();
    }
    let committed = import.committed();
    assert!(committed > 0 && committed < 10_000);
    drop(import);
    assert_eq!(store.len().unwrap(), committed);
    store.insert("key", "others go on").unwrap();
}

#[test]
fn what_does_not_fit_is_refused_and_the_rest_goes_on() {
    let store = Store::in_memory().unwrap();
    store.map::<str, u32>("ages").unwrap();
    let mut import = store.import();
    let error = import.create_map("ages", "str -> str", 0).unwrap_err();
    assert!(matches!(error, Error::TypeMismatch { .. }), "{error}");
    let error = import.create_map("", "str -> str", 0).unwrap_err();
    assert!(matches!(error, Error::InvalidName { .. }), "{error}");
    let error = import.insert("none", b"key", b"value", None).unwrap_err();
    assert!(matches!(error, Error::NoSuchMap { .. }), "{error}");
    let error = import.insert("", &[0; 100_000], b"value", None).unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { .. }), "{error}");
    import.insert("ages", b"Ada", &36u32.to_le_bytes(), None).unwrap();
    assert_eq!(import.finish().unwrap(), 1);
    assert_eq!(store.map::<str, u32>("ages").unwrap().get("Ada").unwrap(), Some(36));
}

/// A copied record gets a checksum of its own, so damage must not be copied.
#[test]
fn damage_does_not_go_out() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "precious").unwrap();
    store.close_last().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|eight| eight == b"precious").unwrap();
    support::overwrite(&path, at as u64, b"q");
    let store = Store::open(&path).unwrap();
    let snapshot = store.snapshot().unwrap();
    let outcome: slotlog::Result<Vec<_>> = snapshot.export().unwrap().collect();
    assert!(matches!(outcome, Err(Error::Corrupt { .. })));
    let mut feed = store.changes(0).unwrap();
    let commit = feed.next_commit().unwrap().unwrap();
    assert!(matches!(commit.iter().next(), Some(Err(Error::Corrupt { .. }))));
    assert!(matches!(commit.write_to(std::io::sink()), Err(Error::Corrupt { .. })));
    let follower = Store::in_memory().unwrap();
    assert!(matches!(commit.apply(&follower), Err(Error::Corrupt { .. })));
    assert!(follower.is_empty().unwrap());
}
