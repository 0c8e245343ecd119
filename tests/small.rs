//! Small stores are small: little content takes little space, and a closed store is not much longer than its content.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::fs;
use std::path::Path;

use slotlog::{Opened, Store};
use support::{Random, assert_clean, folder};

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// Counts words with the frequencies of a text, one by one.
fn count_words(store: &Store, random: &mut Random, words: u64, times: u64) {
    for number in 0..times {
        // Each of them once, the rest by Zipf's law.
        let rank = random.below(words);
        let word = if number < words { number } else { random.below(rank + 1) };
        let key = format!("{word:x}");
        let count = store.get(&key).unwrap().map_or(0, |count| u64::from_le_bytes(count.try_into().unwrap()));
        store.insert(key, (count + 1).to_le_bytes()).unwrap();
    }
}

#[test]
fn one_entry_takes_96_kib_at_most() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let open = len(&path);
    store.close().unwrap();
    let closed = len(&path);
    eprintln!("one entry: {} KiB, closed {} KiB", open >> 10, closed >> 10);
    assert!(open <= 96 << 10, "{open} bytes");
    assert!(closed <= open);
    // Nor does it grow through use.
    for number in 0..20u64 {
        let store = Store::open(&path).unwrap();
        store.insert("key", number.to_le_bytes()).unwrap();
        store.close().unwrap();
    }
    assert!(len(&path) <= 96 << 10, "{} bytes", len(&path));
}

#[test]
fn a_closed_store_of_words_takes_three_times_what_is_alive_at_most() {
    let folder = folder();
    for (seed, times) in [(1, 2_600), (2, 10_000), (3, 50_000), (4, 200_000)] {
        let path = folder.path().join(seed.to_string());
        let store = Store::open(&path).unwrap();
        count_words(&store, &mut Random(seed), 2_600, times);
        let alive = store.stats().unwrap().live_bytes;
        let open = len(&path);
        store.close().unwrap();
        eprintln!(
            "counted {times}: alive {} KiB, open {} KiB, closed {} KiB",
            alive >> 10,
            open >> 10,
            len(&path) >> 10
        );
        assert!(len(&path) <= 3 * alive, "{times}: {} bytes for {alive}", len(&path));
        let store = Store::open(&path).unwrap();
        assert_eq!(store.opened(), Opened::Clean);
        assert_eq!(store.len().unwrap(), 2_600);
        assert_clean(&store);
        // In use again, and closed again.
        count_words(&store, &mut Random(seed), 2_600, times);
        store.close().unwrap();
        assert!(len(&path) <= 3 * alive, "{times} again: {} bytes for {alive}", len(&path));
    }
}

#[test]
fn a_store_that_was_emptied_is_closed_as_a_small_one() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    count_words(&store, &mut Random(1), 2_600, 10_000);
    store.clear().unwrap();
    store.close().unwrap();
    assert!(len(&path) <= 128 << 10, "{} bytes", len(&path));
    assert!(Store::open(&path).unwrap().is_empty().unwrap());
}
