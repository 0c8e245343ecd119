//! Bad input is refused, with an error that says what, where, and what to do; nothing is written.

use std::ops::ControlFlow;

use slotlog::{Access, Error, HeldBy};

use super::*;

/// Repairs a file of these bytes, which must be refused.
fn refused(bytes: &[u8]) -> Error {
    let folder = folder();
    let (from, to) = (folder.path().join("damaged"), folder.path().join("repaired"));
    fs::write(&from, bytes).unwrap();
    let error = slotlog::repair(&from, &to).unwrap_err();
    assert_eq!(names(folder.path()), ["damaged"]);
    assert!(error.to_string().starts_with(from.to_str().unwrap()), "{error}");
    error
}

#[test]
fn what_is_no_store_is_refused() {
    for bytes in [&b""[..], b"something else", &[0; 100_000], &Random(1).bytes(300_000), &[0xff; 70_000]] {
        let error = refused(bytes);
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
}

#[test]
fn a_long_file_of_zeros_is_no_store() {
    let folder = folder();
    let from = folder.path().join("zeros");
    fs::File::create(&from).unwrap().set_len(3 << 30).unwrap();
    let mut calls = 0;
    let options = RepairOptions::new().on_progress(|progress| {
        calls += 1;
        if progress.done < 64 << 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let stopped = slotlog::repair_with(&from, folder.path().join("to"), options);
    assert!(!stopped.unwrap().finished() && calls > 10);
    let error = slotlog::repair(&from, folder.path().join("to")).unwrap_err();
    assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    assert_eq!(names(folder.path()), ["zeros"]);
}

#[test]
fn another_version_is_refused() {
    let mut bytes = closed_store(|store| store.insert("key", "value").unwrap());
    for at in [8, 4096 + 8] {
        bytes[at] = 7;
    }
    let error = refused(&bytes);
    assert!(matches!(error, Error::UnsupportedVersion { found: 7, .. }), "{error}");
}

#[test]
fn a_file_of_another_length_is_repaired() {
    let whole = closed_store(|store| change(store, &mut Random(1), 2000, 200));
    let all = {
        let (store, report) = repaired(&whole, RepairOptions::new());
        assert!(report.is_whole());
        everything(&store)
    };
    for further in [1, 7, 4096, 100_001] {
        let mut longer = whole.clone();
        longer.resize(whole.len() + further, 0xa5);
        let (store, report) = repaired(&longer, RepairOptions::new());
        assert_eq!(everything(&store), all);
        assert!(report.finding_count() == 1 && report.commit().is_some(), "{:?}", report.findings());
    }
    for len in [65536, 70_001, whole.len() / 2, whole.len() - 1] {
        let (store, report) = repaired(&whole[..len], RepairOptions::new());
        assert!(report.finding_count() > 0 && report.bytes() == len as u64);
        drop(everything(&store));
    }
    // Nothing but a part of the front.
    for len in [1, 511, 4095, 8192, 65535] {
        let error_or_empty = {
            let folder = folder();
            let (from, to) = (folder.path().join("damaged"), folder.path().join("repaired"));
            fs::write(&from, &whole[..len]).unwrap();
            slotlog::repair(&from, &to).map(|report| report.keys())
        };
        assert!(matches!(error_or_empty, Ok(0) | Err(Error::NotAStore { .. })), "{len}: {error_or_empty:?}");
    }
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = folder();
    let (from, to) = (folder.path().join("store"), folder.path().join("repaired"));
    let store = Store::open(&from).unwrap();
    store.insert("key", "value").unwrap();
    let error = slotlog::repair(&from, &to).unwrap_err();
    let is_us = matches!(error, Error::Locked { by: HeldBy::Writer { pid, .. }, .. } if pid == std::process::id());
    assert!(is_us, "{error}");
    store.insert("key", "it goes on").unwrap();
    store.close_last().unwrap();
    // Readers do not matter.
    let reader = Store::options().access(Access::ReadOnly).open(&from).unwrap();
    assert!(slotlog::repair(&from, &to).unwrap().is_whole());
    assert_eq!(reader.get("key").unwrap().unwrap(), b"it goes on");

    // A target in use is not replaced.
    let store = Store::open(&to).unwrap();
    let error = slotlog::repair_with(&from, &to, RepairOptions::new().overwrite(true)).unwrap_err();
    assert!(matches!(&error, Error::Locked { path, .. } if *path == to), "{error}");
    drop(store);
    slotlog::repair_with(&from, &to, RepairOptions::new().overwrite(true)).unwrap();
}

#[test]
fn a_target_that_cannot_be_one_is_refused() {
    let folder = folder();
    let (from, to) = (folder.path().join("store"), folder.path().join("repaired"));
    Store::open(&from).unwrap().close_last().unwrap();
    let missing = folder.path().join("missing").join("repaired");
    let error = slotlog::repair(&from, &missing).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path } if *path == missing), "{error}");
    let error = slotlog::repair(folder.path().join("nothing"), &to).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path } if path.ends_with("nothing")), "{error}");
    let error = slotlog::repair(folder.path(), &to).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");
    let error = slotlog::repair(&from, folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");

    for options in [RepairOptions::new(), RepairOptions::new().overwrite(true)] {
        let error = slotlog::repair_with(&from, &from, options).unwrap_err();
        assert!(matches!(&error, Error::OntoItself { path } if *path == from), "{error}");
    }
    fs::write(&to, "what was there before").unwrap();
    let error = slotlog::repair(&from, &to).unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists { path } if *path == to), "{error}");
    let error = slotlog::repair_with(&from, &to, RepairOptions::new().overwrite(true)).unwrap_err();
    assert!(matches!(&error, Error::NotAStore { path, .. } if *path == to), "{error}");
    assert_eq!(fs::read(&to).unwrap(), b"what was there before");
    let mut damaged = closed_store(|store| store.insert("key", "value").unwrap());
    damaged[4096..].fill(0xa5);
    fs::write(&to, damaged).unwrap();
    assert!(slotlog::repair_with(&from, &to, RepairOptions::new().overwrite(true)).unwrap().is_whole());
    assert!(Store::open(&to).unwrap().is_empty().unwrap());
    assert_eq!(names(folder.path()), ["repaired", "store"]);
}

/// It is not taken for what a repair has left.
#[test]
fn a_source_that_is_called_like_the_unfinished_file_is_left_alone() {
    let folder = folder();
    let (from, to) = (folder.path().join("store.unfinished"), folder.path().join("store"));
    let store = Store::open(&from).unwrap();
    store.insert("key", "value").unwrap();
    store.close_last().unwrap();
    let error = slotlog::repair(&from, &to).unwrap_err();
    assert!(matches!(&error, Error::OntoItself { path } if *path == from), "{error}");
    assert_eq!(names(folder.path()), ["store.unfinished"]);
    assert!(slotlog::repair(&from, folder.path().join("other")).unwrap().is_whole());
}

#[test]
fn a_repair_that_is_stopped_leaves_nothing() {
    let whole = closed_store(|store| change(store, &mut Random(1), 30_000, 3000));
    let folder = folder();
    let (from, to) = (folder.path().join("store"), folder.path().join("repaired"));
    fs::write(&from, &whole).unwrap();
    let before = closed_store(|store| store.insert("key", "value").unwrap());
    fs::write(&to, &before).unwrap();
    let mut last = 0;
    let count = |stop_at: u64, last: &mut u64| {
        let options = RepairOptions::new().overwrite(true).on_progress(|progress| {
            assert!(progress.done >= *last && progress.total > 0);
            *last = progress.done;
            if progress.done >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        slotlog::repair_with(&from, &to, options)
    };
    for share in 0..8 {
        let stopped = count(whole.len() as u64 * share / 6, &mut 0);
        assert!(!stopped.unwrap().finished());
        assert_eq!(fs::read(&to).unwrap(), before);
        assert_eq!(names(folder.path()), ["repaired", "store"]);
    }
    assert!(count(u64::MAX, &mut last).unwrap().is_whole());
    assert!(last > whole.len() as u64);
}

/// In a hostile file, everything looks like a long record.
#[test]
fn a_file_full_of_what_looks_like_records_is_read_in_bounded_time() {
    let mut bytes = closed_store(|store| store.insert("key", "value").unwrap());
    let end = bytes.len();
    let header = RecordHeader {
        crc: 1.into(),
        chain: 1.into(),
        value_len: (3 << 20).into(),
        key_len: 1.into(),
        kind: Kind::Put as u8,
        flags: 0,
        seq: (1 << 44 | 1).into(),
        prev_and_map: 0.into(),
    };
    use slotlog::zerocopy::IntoBytes;
    while bytes.len() < end + (4 << 20) {
        bytes.extend(header.as_bytes());
    }
    let (store, report) = repaired(&bytes, RepairOptions::new());
    assert_eq!(store.len().unwrap(), 1);
    assert!(report.findings().iter().any(|finding| finding.what.contains("looks like records")));
}
