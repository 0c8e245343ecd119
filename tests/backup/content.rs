//! A backup has everything that its commit had, and nothing else.

use slotlog::Expiry;

use super::*;

/// Several maps with all kinds of entries, and what is dead of them.
fn fill(store: &Store) {
    for number in 0..3000u32 {
        store.insert(number.to_le_bytes(), [7; 50]).unwrap();
        store.insert(number.to_le_bytes(), vec![number as u8; number as usize % 300]).unwrap();
    }
    for number in (0..3000u32).step_by(3) {
        store.remove(number.to_le_bytes()).unwrap();
    }
    store.insert("", "the empty key").unwrap();
    store.insert("empty", "").unwrap();
    store.insert("large", vec![3; 3 << 20]).unwrap();
    store.insert_with_expiry("until 2100", "1", in_2100()).unwrap();
    store.insert_with_expiry("over", "1", SystemTime::UNIX_EPOCH).unwrap();
    let ages = store.map::<str, u32>("ages").unwrap();
    ages.insert("Ada", 36).unwrap();
    ages.insert_with_expiry("Grace", 85, in_2100()).unwrap();
    store.map_versioned::<u64, Vec<u8>>("ŝanĝoj ✓", 7).unwrap().extend((0..9000).map(|n| (n, vec![1; 9]))).unwrap();
    store.map::<str, str>("empty").unwrap();
    store.map::<str, u8>("dropped").unwrap().insert("a", 1).unwrap();
    store.drop_map("dropped").unwrap();
    store.map::<str, u8>("before").unwrap().insert("a", 1).unwrap();
    store.rename_map("before", "after").unwrap();
    let cleared = store.map::<u32, u32>("cleared").unwrap();
    cleared.extend((0..500).map(|n| (n, n))).unwrap();
    cleared.clear().unwrap();
    cleared.insert(1, 2).unwrap();
}

/// Checks that a store has what another one has.
#[track_caller]
fn assert_same(copy: &Store, store: &Store) {
    assert_clean(copy);
    assert!(content(copy) == content(store));
    assert_eq!(copy.maps().unwrap(), store.maps().unwrap());
    assert_eq!(copy.expiry("until 2100").unwrap(), Some(Expiry::At(in_2100())));
    assert_eq!(copy.expiry("empty").unwrap(), Some(Expiry::Never));
    let both = [copy, store].map(|store| {
        let ages = store.map::<str, u32>("ages").unwrap();
        let many = store.map_versioned::<u64, Vec<u8>>("ŝanĝoj ✓", 7).unwrap();
        let mut many: Vec<_> = many.iter().unwrap().map(Result::unwrap).collect();
        many.sort();
        let one = store.map::<str, u8>("after").unwrap().get("a").unwrap();
        let cleared: Vec<_> = store.map::<u32, u32>("cleared").unwrap().iter().unwrap().map(Result::unwrap).collect();
        let ages = ["Ada", "Grace"].map(|name| (ages.get(name).unwrap(), ages.expiry(name).unwrap()));
        (ages, many, one, cleared, store.map::<str, str>("empty").unwrap().len().unwrap())
    });
    assert!(both[0] == both[1]);
    assert_eq!(both[0].0, [(Some(36), Some(Expiry::Never)), (Some(85), Some(Expiry::At(in_2100())))]);
    assert_eq!((both[0].1.len(), both[0].2, both[0].3.as_slice(), both[0].4), (9000, Some(1), &[(1, 2)][..], 0));
}

#[test]
fn everything_is_in_it_and_nothing_dead() {
    let folder = folder();
    let (path, copied) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    fill(&store);
    let before = (store.seq().unwrap(), fs::metadata(&path).unwrap().len());
    let report = store.backup_with(&copied, BackupOptions::new()).unwrap();
    assert_eq!((store.seq().unwrap(), fs::metadata(&path).unwrap().len()), before, "the original stays as it is");
    assert_eq!(names(folder.path()), ["copy", "store"]);
    assert!(report.finished);
    assert_eq!((report.seq, report.maps), (before.0, 5));
    assert_eq!(report.keys, 2000 + 4 + 2 + 9000 + 1 + 1);
    assert_eq!(report.file_len, fs::metadata(&copied).unwrap().len());

    let copy = Store::open(&copied).unwrap();
    assert_eq!(copy.opened(), Opened::Clean);
    assert_same(&copy, &store);
    assert_eq!(copy.len().unwrap(), 2004, "what has expired is left out");
    let stats = copy.stats().unwrap();
    assert_eq!(stats.live_bytes, report.bytes + stats.maps[0].live_bytes);
    assert!(stats.dead_bytes < 2000, "no more than jumps: {} bytes", stats.dead_bytes);
    // It is about as small as the original can be made.
    assert!(store.compact().unwrap().finished);
    let least = fs::metadata(&path).unwrap().len();
    assert!(report.file_len <= least + least / 8, "{} bytes, and {least} are enough", report.file_len);
    // It can be written to, and a new map is a map of its own.
    copy.insert("new", "1").unwrap();
    assert!(copy.map::<str, u8>("new").unwrap().is_empty().unwrap());
    copy.map::<str, u8>("new").unwrap().insert("a", 2).unwrap();
    assert_clean(&copy);
    copy.close().unwrap();
    // What it says survives the loss of everything but its log, as after a power cut.
    let cut = folder.path().join("cut");
    fs::copy(&copied, &cut).unwrap();
    let cut = Store::options().untrusted(true).open(&cut).unwrap();
    assert_eq!(cut.len().unwrap(), 2005);
    assert_eq!(cut.map::<str, u8>("new").unwrap().get("a").unwrap(), Some(2));
    assert_clean(&cut);
}

#[test]
fn every_opener_can_make_one() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    fill(&store);
    let at = |name: &str| folder.path().join(name);
    let reader = || Store::options().access(Access::ReadOnly).open(&path).unwrap();
    reader().backup(at("by a reader beside a writer")).unwrap();
    fs::copy(&path, at("cut")).unwrap();
    store.close().unwrap();
    reader().backup(at("by a reader of a closed store")).unwrap();
    let trial = Store::options().access(Access::CopyOnWrite).open(&path).unwrap();
    trial.insert("trial", "1").unwrap();
    trial.backup(at("of a private copy")).unwrap();
    assert_same(&Store::open(at("of a private copy")).unwrap(), &trial);
    drop(trial);
    let store = Store::options().exclusive(true).open(&path).unwrap();
    store.backup(at("by an exclusive opener")).unwrap();
    let after_power_cut = Store::options().access(Access::ReadOnly).open(at("cut")).unwrap();
    assert!(matches!(after_power_cut.opened(), Opened::AfterPowerCut { .. }));
    after_power_cut.backup(at("by a reader after a power cut")).unwrap();
    let in_memory = Store::in_memory().unwrap();
    fill(&in_memory);
    in_memory.backup(at("of a store in memory")).unwrap();
    for name in names(folder.path()).iter().filter(|name| name.starts_with("by a") || name.ends_with("in memory")) {
        assert_same(&Store::open(at(name)).unwrap(), &store);
    }
    assert_eq!(names(folder.path()).len(), 8);
}

#[test]
fn an_empty_store_and_a_backup_of_a_backup() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    Store::in_memory().unwrap().backup(at("empty")).unwrap();
    let empty = Store::open(at("empty")).unwrap();
    assert!(empty.is_empty().unwrap() && empty.maps().unwrap().is_empty());
    assert_clean(&empty);
    let store = Store::open(at("store")).unwrap();
    fill(&store);
    store.backup(at("1")).unwrap();
    Store::open(at("1")).unwrap().backup(at("2")).unwrap();
    assert_same(&Store::open(at("2")).unwrap(), &store);
    let lens = ["1", "2"].map(|name| fs::metadata(at(name)).unwrap().len());
    assert!(lens[0].abs_diff(lens[1]) < lens[0] / 8, "{lens:?}");
}

#[test]
fn many_maps() {
    for keys in [0, 1] {
        let folder = folder();
        let path = folder.path().join("copy");
        let store = Store::in_memory().unwrap();
        for number in 0..700 {
            let map = store.map::<str, u32>(&number.to_string()).unwrap();
            (0..keys).for_each(|key: u32| map.insert(&*key.to_string(), number).unwrap());
        }
        let report = store.backup_with(&path, BackupOptions::new()).unwrap();
        assert_eq!((report.maps, report.keys), (700, 700 * u64::from(keys)));
        let copy = Store::open(&path).unwrap();
        assert_clean(&copy);
        assert_eq!(copy.maps().unwrap().len(), 700);
        for number in 0..700 {
            let map = copy.map::<str, u32>(&number.to_string()).unwrap();
            (0..keys).for_each(|key| assert_eq!(map.get(&*key.to_string()).unwrap(), Some(number)));
            map.insert("new", 1).unwrap();
        }
    }
}

/// The numbers of maps are never used again, since a process may still have a handle.
#[test]
fn a_new_map_in_it_gets_no_number_that_was_used() {
    let folder = folder();
    let path = folder.path().join("copy");
    let store = Store::in_memory().unwrap();
    for number in 0..40 {
        store.map::<str, u8>(&number.to_string()).unwrap().insert("key", number).unwrap();
    }
    for number in (0..40).filter(|number| number % 7 != 0) {
        store.drop_map(&number.to_string()).unwrap();
    }
    store.backup(&path).unwrap();
    let copy = Store::open(&path).unwrap();
    assert!(copy.map::<str, u8>("new").unwrap().is_empty().unwrap());
    store.map::<str, u8>("new").unwrap();
    let ids = |store: &Store| store.stats().unwrap().maps.iter().map(|map| map.id).collect::<Vec<_>>();
    assert_eq!(ids(&copy), ids(&store));
    assert_clean(&copy);
}

#[test]
fn a_damaged_record_is_not_copied() {
    let folder = folder();
    let (path, copied) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::open(&path).unwrap();
    store.insert("a key", "the value that will be damaged").unwrap();
    store.map::<str, u8>("a map that will be damaged").unwrap();
    store.close().unwrap();
    for what in ["value that will be", "map that will be"] {
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(what.len()).position(|found| found == what.as_bytes()).unwrap();
        bytes[at] ^= 1;
        let damaged = folder.path().join(format!("damaged {}", &what[..3]));
        fs::write(&damaged, bytes).unwrap();
        let store = Store::options().access(Access::ReadOnly).open(&damaged).unwrap();
        let refused = store.backup(&copied);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{what}: {refused:?}");
        assert_eq!(names(folder.path()).iter().filter(|name| name.contains("copy")).count(), 0);
    }
}

#[test]
fn progress_is_told_and_can_stop_it() {
    let folder = folder();
    let path = folder.path().join("copy");
    let store = Store::in_memory().unwrap();
    fill(&store);
    let mut told = Vec::new();
    let tell = |progress| {
        told.push(progress);
        assert!(!path.exists(), "it has no name yet");
        assert!(part_of(&path).exists());
        ControlFlow::Continue(())
    };
    let report = store.backup_with(&path, BackupOptions::new().on_progress(tell)).unwrap();
    assert!(report.finished && told.len() > 5);
    assert_eq!(told[0].done, 0);
    assert!(told.windows(2).all(|two| two[0].done <= two[1].done && two[1].done <= two[1].total));
    let last = told[told.len() - 1];
    assert_eq!((last.done, last.total), (report.bytes, report.bytes));
    fs::remove_file(&path).unwrap();
    for calls in 0..told.len() {
        let mut left = calls;
        let stopped = store.backup_with(
            &path,
            BackupOptions::new().on_progress(|_| {
                left = left.wrapping_sub(1);
                if left == usize::MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }),
        );
        let stopped = stopped.unwrap();
        assert_eq!((stopped.finished, stopped.file_len), (false, 0), "after {calls}");
        assert!(names(folder.path()).is_empty(), "after {calls}");
    }
    let panicking = BackupOptions::new()
        .on_progress(|progress| if progress.done > 0 { panic!("a test") } else { ControlFlow::Continue(()) });
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.backup_with(&path, panicking)));
    assert!(panicked.is_err() && names(folder.path()).is_empty());
}
