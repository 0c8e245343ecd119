//! A whole file is repaired to the store that it is.

use std::time::{Duration, SystemTime};

use slotlog::Expiry;

use super::*;

#[test]
fn a_whole_store_comes_back_as_it_is() {
    for seed in 1..6 {
        let mut before = All::new();
        let bytes = closed_store(|store| {
            change(store, &mut Random(seed), 3000, 300);
            before = everything(store);
        });
        let (store, report) = repaired(&bytes, RepairOptions::new());
        assert_eq!(everything(&store), before);
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!(report.keys(), before.values().map(|map| map.len() as u64).sum::<u64>());
        assert_eq!((report.lost_keys(), report.doubtful_keys(), report.doubtful_records()), (0, 0, 0));
        assert_eq!(report.records(), log(&bytes).len() as u64);
        assert_eq!(report.maps(), store.maps().unwrap().len() as u64);
    }
}

#[test]
fn a_store_whose_space_was_reused_comes_back_as_it_is() {
    for seed in 1..6 {
        let folder = folder();
        let (path, repaired) = (folder.path().join("store"), folder.path().join("repaired"));
        let store = Store::options().tiny_steps().open(&path).unwrap();
        change(&store, &mut Random(seed), 5000, 60);
        let before = everything(&store);
        store.close_last().unwrap();
        let report = slotlog::repair(&path, &repaired).unwrap();
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!(everything(&Store::open(&repaired).unwrap()), before);
    }
}

#[test]
fn expiry_times_and_types_are_kept() {
    let tomorrow = SystemTime::UNIX_EPOCH + Duration::from_secs(9_000_000_000);
    let bytes = closed_store(|store| {
        store.insert_with_expiry("page", "text", tomorrow).unwrap();
        let ports = store.map_versioned::<str, u16>("ports", 3).unwrap();
        ports.insert_with_expiry("http", 80, tomorrow).unwrap();
        ports.insert("https", 443).unwrap();
    });
    let (store, report) = repaired(&bytes, RepairOptions::new());
    assert!(report.is_whole());
    assert_eq!(store.expiry("page").unwrap(), Some(Expiry::At(tomorrow)));
    let ports = store.map_versioned::<str, u16>("ports", 3).unwrap();
    assert_eq!((ports.get("http").unwrap(), ports.expiry("http").unwrap()), (Some(80), Some(Expiry::At(tomorrow))));
    assert_eq!((ports.get("https").unwrap(), ports.expiry("https").unwrap()), (Some(443), Some(Expiry::Never)));
}

#[test]
fn an_empty_store_comes_back_empty() {
    let (store, report) = repaired(&closed_store(|_| {}), RepairOptions::new());
    assert!(report.is_whole(), "{report:#?}");
    assert!(store.is_empty().unwrap());
}
