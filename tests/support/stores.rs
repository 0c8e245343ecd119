//! Checks of any store.

use std::collections::BTreeMap;
use std::path::Path;

use slotlog::{Access, Snapshot, Store};

/// The keys and values of a store.
pub(crate) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// The whole content of a store.
pub(crate) fn content(store: &Store) -> Content {
    content_of(&store.snapshot().unwrap())
}

/// The whole content that a snapshot sees.
pub(crate) fn content_of(snapshot: &Snapshot) -> Content {
    snapshot.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Checks a whole store, and shows its findings.
#[track_caller]
pub(crate) fn assert_clean(store: &Store) {
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings());
}

pub(crate) fn read_only(path: &Path) -> slotlog::Result<Store> {
    Store::options().access(Access::ReadOnly).open(path)
}
