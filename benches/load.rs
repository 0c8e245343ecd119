//! Loads many keys into a store and into two hash maps in memory, reads them back, and prints the time of each
//! operation.
//!
//! There are `SLOTLOG_BENCH_KEYS` keys of 16 bytes, five million by default, with values of 100 bytes. The work is done
//! in chunks, and the maps take turns with each chunk, so that other work of the machine affects all of them alike. All
//! values that are read are checked.
#![allow(clippy::print_stdout, missing_docs)]

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{Hashbrown, Key, Peer, Slotlog, Std, is_try, is_value, key_count, keys, median, shuffled, value};

/// Rounds, in each of which every map does one piece of the work.
const CHUNKS: usize = 20;
/// Rounds of operations that go over everything.
const PASSES: usize = 5;
/// Keys that are looked up at once.
const MANY: usize = 32;
/// Keys to a transaction.
const BATCH: usize = 10_000;

/// The times of one map for one operation: nanoseconds, for each chunk.
struct Times {
    name: &'static str,
    chunks: Vec<f64>,
}

impl Times {
    fn median(&self) -> f64 {
        median(&self.chunks)
    }

    fn mean(&self) -> f64 {
        self.chunks.iter().sum::<f64>() / self.chunks.len() as f64
    }
}

/// One operation: the times of each map.
struct Measured {
    operation: &'static str,
    times: Vec<Times>,
}

impl Measured {
    fn of(operation: &'static str) -> Measured {
        Measured { operation, times: Vec::new() }
    }

    /// Times `work`, which does `count` operations.
    fn time(&mut self, name: &'static str, count: usize, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        let each = start.elapsed().as_nanos() as f64 / count as f64;
        match self.times.iter_mut().find(|times| times.name == name) {
            Some(times) => times.chunks.push(each),
            None => self.times.push(Times { name, chunks: vec![each] }),
        }
    }

    /// Prints a line for each map: medians and means, and the multiple of the first one's time.
    fn print(&self) {
        let first = &self.times[0];
        for times in &self.times {
            println!(
                "{:<16} {:<22} {:>8.0} {:>8.0} {:>8.2} {:>8.2}",
                self.operation,
                times.name,
                times.median(),
                times.mean(),
                times.median() / first.median(),
                times.mean() / first.mean(),
            );
        }
    }
}

fn pieces(keys: &[Key]) -> std::slice::Chunks<'_, Key> {
    keys.chunks(keys.len().div_ceil(CHUNKS).max(1))
}

fn check_all<P: Peer>(peer: &P, keys: &[Key], version: u8) {
    for key in keys {
        assert_eq!(peer.get_with(key, |bytes| is_value(bytes, key, version)), Some(true), "{}", P::NAME);
    }
}

fn insert<P: Peer>(measured: &mut Measured, peer: &mut P, keys: &[Key], version: u8) {
    measured.time(P::NAME, keys.len(), || keys.iter().for_each(|key| peer.insert(key, &value(key, version))));
}

fn get<P: Peer>(measured: &mut Measured, peer: &P, keys: &[Key]) {
    measured.time(P::NAME, keys.len(), || {
        for key in keys {
            let value = peer.get(key);
            assert!(value.is_some_and(|value| is_value(&value, key, 0)), "{}", P::NAME);
        }
    });
}

fn get_in_place<P: Peer>(measured: &mut Measured, peer: &P, keys: &[Key]) {
    measured.time(P::NAME, keys.len(), || check_all(peer, keys, 0));
}

fn get_many<P: Peer>(measured: &mut Measured, peer: &P, keys: &[Key]) {
    measured.time(P::NAME, keys.len(), || {
        for keys in keys.chunks(MANY) {
            let mut expected = keys.iter();
            peer.get_many(keys, |value| {
                let right = value.zip(expected.next()).is_some_and(|(value, key)| is_value(value, key, 0));
                assert!(right, "{}", P::NAME);
            });
            assert!(expected.next().is_none());
        }
    });
}

fn miss<P: Peer>(measured: &mut Measured, peer: &P, absent: &[Key]) {
    measured.time(P::NAME, absent.len(), || {
        for key in absent {
            assert!(peer.get_with(key, |_| ()).is_none(), "{}", P::NAME);
        }
    });
}

fn iterate<P: Peer>(measured: &mut Measured, peer: &P, count: usize) {
    measured.time(P::NAME, count, || {
        let (mut sum, mut right) = (0, true);
        let found = peer.for_each(|key, value| {
            right &= value.len() == 100 && value[1..9] == key[..8] && value[91..99] == key[..8];
            sum += u64::from(key[0]);
        });
        black_box(sum);
        assert!(right && found == count, "{}", P::NAME);
    });
}

fn main() {
    let count = if is_try() { 1000 } else { key_count(5_000_000) };
    let there = keys(0, count);
    let order = shuffled(&there);
    let absent = keys(count, count);
    let (mut store, mut batched) = (Slotlog::new(), Slotlog::new());
    let (mut std_map, mut hashbrown) = (Std::new(), Hashbrown::new());

    println!("{count} keys of 16 bytes with values of 100 bytes; nanoseconds per operation: median and mean of");
    println!("{CHUNKS} chunks ({PASSES} passes when iterating), and both as multiples of what slotlog took\n");
    println!("{:<16} {:<22} {:>8} {:>8} {:>8} {:>8}", "operation", "", "median", "mean", "x median", "x mean");

    let mut measured = Measured::of("insert");
    for keys in pieces(&there) {
        insert(&mut measured, &mut store, keys, 0);
        insert(&mut measured, &mut std_map, keys, 0);
        insert(&mut measured, &mut hashbrown, keys, 0);
        measured.time("slotlog, transactions", keys.len(), || {
            keys.chunks(BATCH).for_each(|keys| batched.insert_all(keys, 0));
        });
    }
    measured.print();
    check_all(&batched, &there, 0);
    drop(batched);
    let payload = count as f64 * 116.0;
    let loaded_len = store.file_len();

    let mut measured = Measured::of("get");
    for keys in pieces(&order) {
        get(&mut measured, &store, keys);
        get(&mut measured, &std_map, keys);
        get(&mut measured, &hashbrown, keys);
    }
    measured.print();

    let snapshot = store.snapshot();
    let mut measured = Measured::of("get in place");
    for keys in pieces(&order) {
        get_in_place(&mut measured, &store, keys);
        get_in_place(&mut measured, &std_map, keys);
        get_in_place(&mut measured, &hashbrown, keys);
        measured.time("slotlog, one snapshot", keys.len(), || {
            for key in keys {
                let value = snapshot.get(key).expect("the file is sound");
                assert!(value.is_some_and(|value| is_value(value, key, 0)));
            }
        });
    }
    measured.print();
    drop(snapshot);

    let mut measured = Measured::of("get_many of 32");
    for keys in pieces(&order) {
        get_many(&mut measured, &store, keys);
        get_many(&mut measured, &std_map, keys);
        get_many(&mut measured, &hashbrown, keys);
    }
    measured.print();

    let mut measured = Measured::of("miss");
    for keys in pieces(&absent) {
        miss(&mut measured, &store, keys);
        miss(&mut measured, &std_map, keys);
        miss(&mut measured, &hashbrown, keys);
    }
    measured.print();

    let mut measured = Measured::of("iterate");
    for _ in 0..PASSES {
        iterate(&mut measured, &store, count);
        iterate(&mut measured, &std_map, count);
        iterate(&mut measured, &hashbrown, count);
    }
    measured.print();

    let mut measured = Measured::of("overwrite");
    for keys in pieces(&order) {
        insert(&mut measured, &mut store, keys, 1);
        insert(&mut measured, &mut std_map, keys, 1);
        insert(&mut measured, &mut hashbrown, keys, 1);
    }
    measured.print();
    check_all(&store, &there, 1);
    check_all(&std_map, &there, 1);
    check_all(&hashbrown, &there, 1);

    let overwritten_len = store.file_len();
    println!("\nfile of the store, bytes for each byte of keys and values:");
    println!("  loaded, each key once      {:.2}", loaded_len as f64 / payload);
    println!("  each key overwritten once  {:.2}", overwritten_len as f64 / payload);
}
