//! Checks of any store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

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

/// The entries of a map, with their deadlines.
pub(crate) type Entries = BTreeMap<Vec<u8>, (Vec<u8>, Option<SystemTime>)>;

/// Everything in a store: of each map the types, their version and the entries, by its name. The default map has no
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Everything(pub(crate) BTreeMap<String, (String, u32, Entries)>);

/// Everything in a store.
pub(crate) fn everything_in(store: &Store) -> Everything {
    let snapshot = store.snapshot().unwrap();
    let export = snapshot.export().unwrap();
    let maps = export.maps().iter().map(|map| (map.name.clone(), (map.types.clone(), map.version, Entries::new())));
    let mut all: BTreeMap<_, _> = maps.collect();
    all.insert(String::new(), (String::new(), 0, Entries::new()));
    for entry in export {
        let entry = entry.unwrap();
        let (_, _, entries) = all.get_mut(&*entry.map).unwrap();
        assert!(entries.insert(entry.key.to_vec(), (entry.value.to_vec(), entry.expires)).is_none());
    }
    Everything(all)
}
