//! A store beside two hash maps in memory, one operation at a time.
//!
//! There are `SLOTLOG_BENCH_KEYS` keys of 16 bytes, a million by default, with values of 100 bytes. Keys are read in
//! another order than they were written. See `load` for a comparison with more of them.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{Hashbrown, Key, Peer, Slotlog, Std, ends, key_count, keys, shuffled, value};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};

/// Keys that are looked up, or committed, at once.
const MANY: usize = 32;
const BATCH: usize = 1000;

struct Data {
    keys: Vec<Key>,
    shuffled: Vec<Key>,
    absent: Vec<Key>,
}

/// Goes through keys again and again, over all rounds of a measurement.
struct Cycle<'a> {
    keys: &'a [Key],
    at: usize,
}

impl<'a> Cycle<'a> {
    fn new(keys: &'a [Key]) -> Cycle<'a> {
        Cycle { keys, at: 0 }
    }

    fn next(&mut self) -> &'a Key {
        let key = &self.keys[self.at];
        self.at = if self.at + 1 == self.keys.len() { 0 } else { self.at + 1 };
        key
    }

    /// The time that `each` takes for `count` keys in turn.
    fn time(&mut self, count: u64, mut each: impl FnMut(&'a Key)) -> Duration {
        let start = Instant::now();
        (0..count).for_each(|_| each(self.next()));
        start.elapsed()
    }
}

fn loaded<P: Peer>(data: &Data) -> P {
    let mut peer = P::new();
    data.keys.iter().for_each(|key| peer.insert(key, &value(key, 0)));
    peer
}

/// Reads, and then changes, the loaded keys.
fn bench_loaded<P: Peer>(criterion: &mut Criterion, data: &Data) {
    let mut peer: P = loaded(data);

    let mut cycle = Cycle::new(&data.shuffled);
    group(criterion, "get").bench_function(P::NAME, |bencher| {
        bencher.iter_custom(|count| cycle.time(count, |key| drop(black_box(peer.get(black_box(key)).unwrap()))));
    });
    let mut cycle = Cycle::new(&data.shuffled);
    group(criterion, "get_in_place").bench_function(P::NAME, |bencher| {
        bencher.iter_custom(|count| {
            cycle.time(count, |key| {
                black_box(peer.get_with(black_box(key), ends).unwrap());
            })
        });
    });
    let mut cycle = Cycle::new(&data.absent);
    group(criterion, "miss").bench_function(P::NAME, |bencher| {
        bencher.iter_custom(|count| {
            cycle.time(count, |key| {
                let found = black_box(peer.get_with(black_box(key), ends));
                assert!(found.is_none());
            })
        });
    });

    let mut chunks = data.shuffled.chunks_exact(MANY.min(data.shuffled.len())).cycle();
    group(criterion, "get_many").bench_function(P::NAME, |bencher| {
        // Per key, like all others.
        bencher.iter_custom(|count| {
            let start = Instant::now();
            let mut done = 0;
            while done < count {
                let chunk = chunks.next().unwrap();
                peer.get_many(black_box(chunk), |value| {
                    black_box(ends(value.unwrap()));
                });
                done += chunk.len() as u64;
            }
            start.elapsed().mul_f64(count as f64 / done as f64)
        });
    });

    group(criterion, "iterate").bench_function(P::NAME, |bencher| {
        // Per entry; only whole passes count.
        bencher.iter_custom(|count| {
            let start = Instant::now();
            let mut done = 0;
            while done < count {
                done += peer.for_each(|key, value| {
                    black_box(ends(key) + ends(value));
                }) as u64;
            }
            start.elapsed().mul_f64(count as f64 / done as f64)
        });
    });

    let mut cycle = Cycle::new(&data.shuffled);
    let mut version = 0;
    group(criterion, "overwrite").bench_function(P::NAME, |bencher| {
        bencher.iter_custom(|count| {
            version += 1;
            cycle.time(count, |key| peer.insert(black_box(key), &value(key, version)))
        });
    });
}

/// Inserts keys until all are there, and then starts over with an empty map, so that growth is included.
fn bench_insert<P: Peer>(criterion: &mut Criterion, data: &Data) {
    let mut peer = P::new();
    let mut at = 0;
    group(criterion, "insert").bench_function(P::NAME, |bencher| {
        bencher.iter_custom(|mut count| {
            let mut elapsed = Duration::ZERO;
            while count > 0 {
                if at == data.keys.len() {
                    (peer, at) = (P::new(), 0);
                }
                let some = &data.keys[at..][..(data.keys.len() - at).min(count as usize)];
                let start = Instant::now();
                some.iter().for_each(|key| peer.insert(black_box(key), &value(key, 0)));
                elapsed += start.elapsed();
                at += some.len();
                count -= some.len() as u64;
            }
            elapsed
        });
    });
}

/// Inserts as above, [`BATCH`] keys to a transaction. Per key.
fn bench_batch_insert(criterion: &mut Criterion, data: &Data) {
    let mut peer = Slotlog::new();
    let mut batches = data.keys.chunks(BATCH);
    group(criterion, "batch_insert").bench_function(Slotlog::NAME, |bencher| {
        bencher.iter_custom(|count| {
            let (mut elapsed, mut done) = (Duration::ZERO, 0);
            while done < count {
                let Some(batch) = batches.next() else {
                    (peer, batches) = (Slotlog::new(), data.keys.chunks(BATCH));
                    continue;
                };
                let start = Instant::now();
                peer.insert_all(black_box(batch), 0);
                elapsed += start.elapsed();
                done += batch.len() as u64;
            }
            elapsed.mul_f64(count as f64 / done as f64)
        });
    });
}

fn bench_snapshot_get(criterion: &mut Criterion, data: &Data) {
    let peer: Slotlog = loaded(data);
    let snapshot = peer.snapshot();
    let mut cycle = Cycle::new(&data.shuffled);
    group(criterion, "snapshot_get").bench_function(Slotlog::NAME, |bencher| {
        bencher.iter_custom(|count| {
            cycle.time(count, |key| {
                black_box(ends(snapshot.get(black_box(key)).unwrap().unwrap()));
            })
        });
    });
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

fn main() {
    let count = key_count(1_000_000);
    let keys_there = keys(0, count);
    let data = Data { shuffled: shuffled(&keys_there), absent: keys(count, count), keys: keys_there };
    let mut criterion = Criterion::default().configure_from_args();

    bench_insert::<Slotlog>(&mut criterion, &data);
    bench_insert::<Std>(&mut criterion, &data);
    bench_insert::<Hashbrown>(&mut criterion, &data);
    bench_batch_insert(&mut criterion, &data);
    bench_loaded::<Slotlog>(&mut criterion, &data);
    bench_loaded::<Std>(&mut criterion, &data);
    bench_loaded::<Hashbrown>(&mut criterion, &data);
    bench_snapshot_get(&mut criterion, &data);
    criterion.final_summary();
}
