//! Stores with many lives: copied while in use and opened again, killed, closed, with few changes in each life or none.
//!
//! Each of these openings begins an incarnation, so the log may consist of little else, and compaction may meet nothing
//! but that. After every opening the store holds what it held, and verifies clean.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::ops::ControlFlow;

use slotlog::{Opened, Options, Store};

mod support;

use support::{Random, assert_clean, content, folder, setting};

fn options(seed: u64) -> Options {
    let options = Store::options().auto_compact(None).initial_capacity(seed % 700);
    if seed.is_multiple_of(3) { options.tiny_steps() } else { options }
}

/// Compacts, or begins to.
fn compact(store: &Store, steps: u64) {
    let mut left = steps;
    let compacted = store.compact_with(|_| {
        left = left.saturating_sub(1);
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    compacted.unwrap();
}

#[test]
fn a_store_of_many_lives_keeps_what_it_has() {
    for seed in 0..setting("SLOTLOG_TEST_ROUNDS", 60) {
        let mut random = Random(seed);
        // Changes in a life; often none at all.
        let changes = [0, 1, 4, 30][seed as usize % 4];
        let folder = folder();
        let [mut path, mut other] = ["a", "b"].map(|name| folder.path().join(name));
        let mut store = options(seed).open(&path).unwrap();
        let mut model = BTreeMap::new();
        for life in 0..40 {
            let note = format!("seed {seed}, life {life}");
            for _ in 0..random.below(changes + 1) {
                let key = random.below(6).to_le_bytes().to_vec();
                match random.below(4) {
                    0 => assert_eq!(store.remove(&key).unwrap(), model.remove(&key).is_some(), "{note}"),
                    1 if random.one_in(4) => {
                        store.clear().unwrap();
                        model.clear();
                    }
                    _ => {
                        let len = 1 + random.below(3000) as usize;
                        let value = random.bytes(len);
                        store.insert(&key, &value).unwrap();
                        model.insert(key, value);
                    }
                }
            }
            match random.below(5) {
                0 => compact(&store, 1 + random.below(8)),
                1 => compact(&store, u64::MAX),
                2 => store.checkpoint().unwrap(),
                _ => {}
            }
            let image = fs::read(&path).unwrap();
            store.close().unwrap();
            if random.one_in(4) {
                store = options(seed).open(&path).unwrap();
                assert_eq!(store.opened(), Opened::Clean, "{note}");
            } else {
                mem::swap(&mut path, &mut other);
                fs::write(&path, image).unwrap();
                store = options(seed).open(&path).unwrap_or_else(|error| panic!("{note}: {error}"));
                assert_ne!(store.opened(), Opened::Created, "{note}");
            }
            assert_eq!(content(&store), model, "{note}");
            assert_clean(&store);
        }
    }
}
