//! Shared by the benches: the data, and the maps that are compared with a store.
#![allow(dead_code, reason = "each bench uses its part of it")]

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use slotlog::{Snapshot, Store};
use tempfile::TempDir;

/// A key.
pub(crate) type Key = [u8; 16];
/// A value.
pub(crate) type Value = [u8; 100];

/// The number of keys, `usual` unless the environment sets another.
pub(crate) fn key_count(usual: usize) -> usize {
    match env::var("SLOTLOG_BENCH_KEYS") {
        Ok(count) => count.parse().expect("SLOTLOG_BENCH_KEYS is a number of keys"),
        Err(_) => usual,
    }
}

/// Whether the bench is only tried out, with next to no keys, as `cargo bench -- --test` does.
pub(crate) fn is_try() -> bool {
    env::args().any(|argument| argument == "--test")
}

/// A folder for the files of a bench that is about the disk. Where temporary files are in memory, `SLOTLOG_BENCH_DIR`
/// must name another place.
pub(crate) fn folder() -> TempDir {
    let folder = match env::var_os("SLOTLOG_BENCH_DIR") {
        Some(place) => tempfile::tempdir_in(place),
        None => tempfile::tempdir(),
    };
    folder.expect("a temporary folder can be made")
}

/// The one in the middle.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Element `number` of a sequence of random 64-bit numbers (SplitMix64: Steele, Lea and Flood, 2014).
fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `count` keys from `first` on, in random order. Different numbers give different keys.
pub(crate) fn keys(first: usize, count: usize) -> Vec<Key> {
    let key = |number: usize| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&scrambled(number as u64 + 1).to_le_bytes());
        key[8..].copy_from_slice(&scrambled(!(number as u64)).to_le_bytes());
        key
    };
    (first..first + count).map(key).collect()
}

/// The same keys in another order, so that they are not read in the order in which they were written.
pub(crate) fn shuffled(keys: &[Key]) -> Vec<Key> {
    let mut keys = keys.to_vec();
    for last in (1..keys.len()).rev() {
        keys.swap(last, scrambled(last as u64) as usize % (last + 1));
    }
    keys
}

/// The value of a key: its first and last bytes identify the key and the version.
pub(crate) fn value(key: &Key, version: u8) -> Value {
    let mut value = [version; 100];
    value[1..9].copy_from_slice(&key[..8]);
    value[91..99].copy_from_slice(&key[..8]);
    value
}

/// Whether these bytes are the value of that key. Reads both ends, like a user that needs all of it.
pub(crate) fn is_value(bytes: &[u8], key: &Key, version: u8) -> bool {
    bytes.len() == 100
        && bytes[0] == version
        && bytes[99] == version
        && bytes[1..9] == key[..8]
        && bytes[91..99] == key[..8]
}

/// The work of reading a value in place: reads its first and its last byte.
pub(crate) fn ends(value: &[u8]) -> u64 {
    u64::from(value[0]) + u64::from(value[value.len() - 1])
}

/// A map to be measured.
pub(crate) trait Peer {
    /// Its name in the results.
    const NAME: &'static str;

    fn new() -> Self;
    fn insert(&mut self, key: &Key, value: &Value);
    /// The value, copied.
    fn get(&self, key: &Key) -> Option<Vec<u8>>;
    /// Returns the result of `f` on the value in place.
    fn get_with<R>(&self, key: &Key, f: impl FnOnce(&[u8]) -> R) -> Option<R>;
    /// Calls `f` with every key and value, and returns how many there are.
    fn for_each(&self, f: impl FnMut(&[u8], &[u8])) -> usize;
    /// Looks up these keys and calls `f` with each value in turn.
    fn get_many(&self, keys: &[Key], f: impl FnMut(Option<&[u8]>));
}

/// A store in its own file, in the usual folder for temporary files.
pub(crate) struct Slotlog {
    pub(crate) store: Store,
    folder: TempDir,
}

impl Slotlog {
    fn path(&self) -> PathBuf {
        self.folder.path().join("bench.slotlog")
    }

    /// Inserts the values of keys in one commit.
    pub(crate) fn insert_all(&mut self, keys: &[Key], version: u8) {
        let mut transaction = self.store.begin().expect("nobody else writes");
        for key in keys {
            transaction.insert(key, value(key, version)).expect("there is room");
        }
        transaction.commit().expect("there is room");
    }

    /// A view to read many keys through.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.snapshot().expect("pins are free")
    }

    /// Length of the file.
    pub(crate) fn file_len(&self) -> u64 {
        fs::metadata(self.path()).expect("the file is there").len()
    }
}

impl Peer for Slotlog {
    const NAME: &'static str = "slotlog";

    fn new() -> Slotlog {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::open(folder.path().join("bench.slotlog")).expect("a store can be made there");
        Slotlog { store, folder }
    }

    #[inline]
    fn insert(&mut self, key: &Key, value: &Value) {
        self.store.insert(key, value).expect("there is room");
    }

    #[inline]
    fn get(&self, key: &Key) -> Option<Vec<u8>> {
        self.store.get(key).expect("the file is sound")
    }

    #[inline]
    fn get_with<R>(&self, key: &Key, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.store.get_with(key, f).expect("the file is sound")
    }

    fn for_each(&self, mut f: impl FnMut(&[u8], &[u8])) -> usize {
        let snapshot = self.snapshot();
        let each = |entry: slotlog::Result<(&[u8], &[u8])>| {
            let (key, value) = entry.expect("the file is sound");
            f(key, value);
        };
        snapshot.iter().map(each).count()
    }

    #[inline]
    fn get_many(&self, keys: &[Key], f: impl FnMut(Option<&[u8]>)) {
        self.snapshot().get_many(keys).expect("the file is sound").into_iter().for_each(f);
    }
}

/// The map of the standard library, with its own hash function.
pub(crate) struct Std(HashMap<Vec<u8>, Vec<u8>>);

impl Peer for Std {
    const NAME: &'static str = "std HashMap";

    fn new() -> Std {
        Std(HashMap::new())
    }

    #[inline]
    fn insert(&mut self, key: &Key, value: &Value) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    #[inline]
    fn get(&self, key: &Key) -> Option<Vec<u8>> {
        self.0.get(&key[..]).cloned()
    }

    #[inline]
    fn get_with<R>(&self, key: &Key, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.get(&key[..]).map(|value| f(value))
    }

    fn for_each(&self, mut f: impl FnMut(&[u8], &[u8])) -> usize {
        self.0.iter().map(|(key, value)| f(key, value)).count()
    }

    #[inline]
    fn get_many(&self, keys: &[Key], mut f: impl FnMut(Option<&[u8]>)) {
        keys.iter().for_each(|key| f(self.0.get(&key[..]).map(Vec::as_slice)));
    }
}

/// The fastest map available: hashbrown with the fast hash function that is its default.
pub(crate) struct Hashbrown(hashbrown::HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>);

impl Peer for Hashbrown {
    const NAME: &'static str = "hashbrown";

    fn new() -> Hashbrown {
        Hashbrown(hashbrown::HashMap::default())
    }

    #[inline]
    fn insert(&mut self, key: &Key, value: &Value) {
        self.0.insert(Box::from(&key[..]), Box::from(&value[..]));
    }

    #[inline]
    fn get(&self, key: &Key) -> Option<Vec<u8>> {
        self.0.get(&key[..]).map(|value| value.to_vec())
    }

    #[inline]
    fn get_with<R>(&self, key: &Key, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.get(&key[..]).map(|value| f(value))
    }

    fn for_each(&self, mut f: impl FnMut(&[u8], &[u8])) -> usize {
        self.0.iter().map(|(key, value)| f(key, value)).count()
    }

    #[inline]
    fn get_many(&self, keys: &[Key], mut f: impl FnMut(Option<&[u8]>)) {
        keys.iter().for_each(|key| f(self.0.get(&key[..]).map(|value| &value[..])));
    }
}
