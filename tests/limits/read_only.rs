//! A store that is opened for reading only.

use slotlog::HeldBy;

use super::*;

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

/// After a power cut, for which a copy of an open store stands here, a reader may not write to the file and recovers
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
        assert_clean(reader);
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
