//! What compaction has put into quarantine is lost, unless it was written again.

use std::time::Duration;

use super::*;

/// A store of 100 keys of which some were damaged, in the value or in the key, before it was compacted.
fn quarantined(path: &Path, in_key: bool, healed: bool) {
    let store = Store::options().auto_compact(None).open(path).unwrap();
    for name in ["first", "other"] {
        store.insert(name, [name.as_bytes()[0]; 500]).unwrap();
    }
    (0..98u32).for_each(|number| store.insert(number.to_le_bytes(), [7; 100]).unwrap());
    // Something to gain.
    (0..5000u32).for_each(|number| store.insert((number % 98).to_le_bytes(), [8; 100]).unwrap());
    let bytes = fs::read(path).unwrap();
    for name in ["first", "other"] {
        let at = bytes.windows(500).position(|window| window == [name.as_bytes()[0]; 500]).unwrap();
        support::overwrite(path, if in_key { at as u64 - 6 } else { at as u64 + 100 }, b"#");
    }
    assert_eq!(store.compact().unwrap().damaged_records, 2);
    if healed {
        store.insert("first", "whole").unwrap();
        store.insert("other", "whole").unwrap();
        assert!(store.remove("other").unwrap());
    }
    store.maintain(Duration::ZERO).unwrap();
    store.close().unwrap();
}

#[test]
fn what_is_in_quarantine_is_lost_and_reported_and_what_was_written_again_is_not() {
    for in_key in [false, true] {
        for healed in [false, true] {
            for older in [false, true] {
                let folder = folder();
                let (from, to) = (folder.path().join("from"), folder.path().join("to"));
                quarantined(&from, in_key, healed);
                let options = RepairOptions::new().older_versions(older);
                let report = slotlog::repair_with(&from, &to, options).unwrap();
                let note = format!("{in_key} {healed} {older}: {report:?}");
                let (keys, lost) = if healed { (99, 0) } else { (98, 2) };
                assert_eq!((report.keys(), report.lost_keys(), report.is_whole()), (keys, lost, healed), "{note}");
                let store = Store::open(&to).unwrap();
                assert_eq!(store.len().unwrap(), keys, "{note}");
                assert_eq!(store.get("first").unwrap(), healed.then(|| b"whole".to_vec()), "{note}");
                assert!((0..98u32).all(|number| store.get(number.to_le_bytes()).unwrap() == Some(vec![8; 100])));
                assert_clean(&store);
            }
        }
    }
}

#[test]
fn what_is_in_quarantine_is_not_backed_up_as_if_it_were_whole() {
    for in_key in [false, true] {
        for healed in [false, true] {
            let folder = folder();
            let path = folder.path().join("store");
            quarantined(&path, in_key, healed);
            let store = Store::open(&path).unwrap();
            let (copied, exported) = (store.backup(folder.path().join("copy")), store.snapshot().unwrap());
            let exported = exported.export().unwrap().collect::<slotlog::Result<Vec<_>>>();
            if healed {
                assert_eq!((copied.is_ok(), exported.unwrap().len()), (true, 99), "{in_key}");
            } else {
                assert!(matches!(copied, Err(Error::Corrupt { .. })), "{in_key}: {copied:?}");
                assert!(matches!(exported, Err(Error::Corrupt { .. })), "{in_key}");
            }
        }
    }
}
