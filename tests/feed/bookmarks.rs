//! Bookmarks keep the log, up to their limits.

use super::*;

/// Overwrites a few keys until this many bytes were written.
fn overwrite(store: &Store, bytes: u64) {
    for number in 0..bytes / 200 {
        store.insert(format!("key {}", number % 50), [number as u8; 150]).unwrap();
    }
}

fn only(store: &Store) -> slotlog::Bookmark {
    let bookmarks = store.bookmarks().unwrap();
    assert_eq!(bookmarks.len(), 1);
    bookmarks.into_iter().next().unwrap()
}

#[test]
fn it_survives_compaction_of_ten_times_its_data() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    overwrite(&store, 1 << 20);
    let seq = store.seq().unwrap();
    store.set_bookmark("mirror", seq, 64 << 20).unwrap();
    overwrite(&store, 10 << 20);
    let report = store.compact().unwrap();
    assert!(!report.finished && report.held_back > 9 << 20, "{report:?}");
    store.close_last().unwrap();

    let store = Store::open(&path).unwrap();
    let bookmark = only(&store);
    assert_eq!((bookmark.seq, bookmark.limit, bookmark.is_broken), (seq, 64 << 20, false));
    assert!(bookmark.kept_bytes > 9 << 20 && bookmark.kept_bytes < 14 << 20, "{bookmark:?}");
    let mut feed = store.changes(bookmark.seq).unwrap();
    let mut told = 0;
    while let Some(commit) = feed.next_commit().unwrap() {
        told += commit.iter().count() as u64;
    }
    assert_eq!(told, (10 << 20) / 200);

    store.set_bookmark("mirror", feed.seq(), 64 << 20).unwrap();
    let report = store.compact().unwrap();
    assert!(report.finished && report.file_len < 1 << 20, "nothing is kept any more: {report:?}");
    assert!(!only(&store).is_broken, "what was only moved since is of no interest");
    drop(store.changes(only(&store).seq).unwrap());
    assert!(store.remove_bookmark("mirror").unwrap() && !store.remove_bookmark("mirror").unwrap());
    assert_eq!(store.bookmarks().unwrap(), []);
    assert!(store.compact().unwrap().finished);
    assert_clean(&store);
}

#[test]
fn past_its_limit_it_is_broken_and_the_store_goes_on() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    overwrite(&store, 1 << 20);
    store.set_bookmark("slow", store.seq().unwrap(), 4 << 20).unwrap();
    let mut was_whole = 0;
    for _ in 0..30 {
        overwrite(&store, 1 << 20);
        let bookmark = only(&store);
        if bookmark.is_broken {
            assert_eq!(bookmark.kept_bytes, 0);
            assert!(matches!(store.changes(bookmark.seq), Err(Error::HistoryTruncated { .. })));
        } else {
            was_whole += 1;
            drop(store.changes(bookmark.seq).unwrap());
        }
        assert!(store.stats().unwrap().file_len < 8 << 20);
    }
    assert!(only(&store).is_broken && was_whole >= 3, "{was_whole}");
    // Of several, those with room stay.
    let seq = store.seq().unwrap();
    store.set_bookmark("slow", seq, 1 << 20).unwrap();
    store.set_bookmark("patient", seq, 1 << 30).unwrap();
    overwrite(&store, 5 << 20);
    store.compact().unwrap();
    let broken: Vec<bool> = store.bookmarks().unwrap().iter().map(|bookmark| bookmark.is_broken).collect();
    assert_eq!(broken, [false, false], "what one keeps, the other has");
    store.remove_bookmark("patient").unwrap();
    store.compact().unwrap();
    assert!(only(&store).is_broken);
}

/// What compaction moves is alive, and not kept for a bookmark.
#[test]
fn what_is_only_moved_does_not_count() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    for number in 0..20_000_u32 {
        store.insert(number.to_le_bytes(), [7; 150]).unwrap();
    }
    for number in 0..10_000_u32 {
        store.insert((2 * number).to_le_bytes(), [8; 150]).unwrap();
    }
    store.set_bookmark("mirror", store.seq().unwrap(), 1 << 20).unwrap();
    store.insert("key", "value").unwrap();
    assert!(store.compact().unwrap().moved_bytes > 3 << 20);
    let mirror = only(&store);
    assert!(!mirror.is_broken && mirror.kept_bytes < 100_000, "one record was written: {mirror:?}");
    assert!(store.changes(mirror.seq).unwrap().next_commit().unwrap().is_some());
    // Nor is what is added.
    for number in 0..20_000_u32 {
        store.insert(format!("{number}"), [7; 150]).unwrap();
    }
    store.compact().unwrap();
    assert!(!only(&store).is_broken, "{:?}", only(&store));
    overwrite(&store, 2 << 20);
    store.compact().unwrap();
    assert!(only(&store).is_broken, "{:?}", only(&store));
    assert_clean(&store);
}

#[test]
fn a_store_is_never_full_because_of_it() {
    for limit in [1 << 20, u64::MAX] {
        let folder = folder();
        let store = Store::options().max_size(2 << 20).open(folder.path().join("store")).unwrap();
        overwrite(&store, 1 << 20);
        store.set_bookmark("greedy", store.seq().unwrap(), limit).unwrap();
        overwrite(&store, 20 << 20);
        assert!(only(&store).is_broken);
        assert_clean(&store);
    }
}

#[test]
fn it_stands_after_a_kill_and_in_every_process() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let seq = store.seq().unwrap();
    store.set_bookmark("mirror", seq, 1 << 20).unwrap();
    let other = Store::open(&path).unwrap();
    assert_eq!(only(&other).seq, seq);
    let reader = support::read_only(&path).unwrap();
    assert_eq!(only(&reader).seq, seq);
    // A copy, as a kill leaves it.
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(only(&Store::open(&copy).unwrap()).seq, seq);
    // A backup counts its commits anew.
    store.backup(folder.path().join("backup")).unwrap();
    assert_eq!(Store::open(folder.path().join("backup")).unwrap().bookmarks().unwrap(), []);
}

#[test]
fn a_place_that_is_none_is_refused() {
    let store = Store::in_memory().unwrap();
    store.insert("key", "value").unwrap();
    let seq = store.seq().unwrap();
    for wrong in [u64::from(seq) + 1, u64::MAX] {
        let error = store.set_bookmark("mirror", wrong, 1 << 20).unwrap_err();
        assert!(matches!(error, Error::HistoryTruncated { .. }), "{error}");
    }
    for name in ["", &"long".repeat(64)] {
        let error = store.set_bookmark(name, seq, 1 << 20).unwrap_err();
        assert!(matches!(error, Error::InvalidName { .. }), "{error}");
    }
    assert_eq!(store.bookmarks().unwrap(), []);
    store.set_bookmark("mirror", seq, 0).unwrap();
    assert_eq!(store.maps().unwrap(), [], "it is no map");
    assert_clean(&store);
}

/// Nothing shows any more that its commit was not undone, but the bookmark itself.
#[test]
fn it_stands_after_a_power_cut_and_compaction() {
    let folder = folder();
    let (path, cut) = (folder.path().join("store"), folder.path().join("cut"));
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    for _ in 0..2000 {
        // At a commit that tells nothing: that of the bookmark before.
        store.set_bookmark("mirror", store.seq().unwrap(), 1 << 20).unwrap();
    }
    let seq = only(&store).seq;
    // A copy is what a power cut leaves.
    std::fs::copy(&path, &cut).unwrap();
    let store = Store::open(&cut).unwrap();
    assert!(store.compact().unwrap().freed_bytes > 100_000);
    assert_eq!((only(&store).seq, only(&store).is_broken), (seq, false));
    assert!(store.changes(seq).unwrap().next_commit().unwrap().is_none());
    // There may have been a commit after it that was undone.
    assert!(matches!(store.changes(u64::from(seq) + 1), Err(Error::HistoryTruncated { .. })));
}
