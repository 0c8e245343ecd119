//! The private map.

use super::*;

/// Does everything possible in a private copy, and checks after each step that the file is unchanged.
#[track_caller]
pub(super) fn change_everything(path: &Path, options: Options, opened: fn(Opened) -> bool) {
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
    // The optional thread may have freed all of it before.
    assert!(report.finished && report.file_len < target / 2, "{report:?}");
    assert!(content(&store) == expected);
    assert_clean(&store);
    unchanged("compaction");
    while store.maintain(Duration::from_millis(20)).unwrap() {}
    unchanged("maintenance");

    // Freed space is reused.
    for round in 0..3 {
        store.clear().unwrap();
        store.compact().unwrap();
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
    // In another page cache, for which the live area is not vouched for.
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    change_everything(&copy, Store::options().durability(Durability::Synced), |opened| opened == Opened::Clean);
    // For others the file is as good as ever.
    let store = Store::open(&path).unwrap();
    assert_eq!((store.opened(), store.len().unwrap()), (Opened::Clean, 800));
    assert_clean(&store);
}

pub(super) fn write_until_killed(path: &Path) {
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
    let writer = Player::start("write until killed", "", &path);
    assert_eq!(writer.next(), "ready");
    let refused = with(Access::CopyOnWrite).open(&path).unwrap_err();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Writer { pid, .. }, .. } if pid == writer.child.id()));
    writer.kill();
    // Only Linux can tell that the page cache is the same.
    let as_killed: fn(Opened) -> bool =
        |opened| opened == Opened::AfterKill || !cfg!(target_os = "linux") && opened != Opened::Clean;
    change_everything(&path, Store::options(), as_killed);
    change_everything(&path, Store::options().tiny_steps(), as_killed);

    // The pin of the dead process does not keep the space of the copy from being reused.
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
    let (one, two, reader) = (copy_on_write(&path), copy_on_write(&path), read_only(&path).unwrap());
    let expected = content(&reader);
    one.clear().unwrap();
    one.insert("one", "value").unwrap();
    assert!(content(&two) == expected && content(&reader) == expected);
    two.insert("two", "value").unwrap();
    two.remove("key 8").unwrap();
    assert_eq!(content(&one), BTreeMap::from([(b"one".to_vec(), b"value".to_vec())]));
    assert!(content(&reader) == expected && content(&two).len() == expected.len());
    // A later one begins with the file's content.
    assert!(content(&copy_on_write(&path)) == expected);
    drop(one);
    assert!(two.contains_key("two").unwrap());
}

/// The limit applies to the file's length, and a full copy behaves like a full file.
#[test]
fn a_private_copy_has_the_size_of_a_file() {
    let folder = folder();
    let path = folder.path().join("store");
    let max = 1 << 20;
    let store = Store::options().max_size(max).open(&path).unwrap();
    // The number of further keys until it is full.
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
        // What is possible in one is possible in the other, even in a full store that had to be recovered.
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
        // A file that is longer than the limit still opens.
        if !cut {
            let store = copy().max_size(max / 2).open(path).unwrap();
            assert_eq!(store.len().unwrap(), keys);
            assert!(matches!(store.insert("one more", [7; 1 << 16]), Err(Error::Full { .. })));
        }
        assert_unchanged(path, &before, "all of that");
    }
}

/// It needs an existing store, and never makes one.
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

/// Damage is reported as in any other mode.
#[test]
fn a_private_copy_of_a_damaged_store_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    make(&path, 1000);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() / 2).unwrap();
    assert!(matches!(with(Access::CopyOnWrite).open(&path), Err(Error::Truncated { .. })));
}
