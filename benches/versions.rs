//! The cost of later writes for a held snapshot: the time to read a key that was overwritten ten million times since
//! (`SLOTLOG_BENCH_VERSIONS`), beside a key that was not, and the bytes that an overwrite appends with a snapshot held
//! and without.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{is_try, median};
use slotlog::{Snapshot, Store};

const HOT: &[u8] = b"hot";
const COLD: &[u8] = b"cold";

/// Microseconds of each of many reads, in turn: the hot key, the cold one.
fn read(snapshot: &Snapshot) -> (Vec<f64>, Vec<f64>) {
    let time = |key| {
        let start = Instant::now();
        black_box(snapshot.get(key).unwrap());
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..1001).map(|_| (time(HOT), time(COLD))).unzip()
}

fn main() {
    let versions: u64 = match std::env::var("SLOTLOG_BENCH_VERSIONS") {
        Ok(count) => count.parse().expect("SLOTLOG_BENCH_VERSIONS is a number of versions"),
        Err(_) if is_try() => 10_000,
        Err(_) => 10_000_000,
    };
    println!("{:>12} {:>14} {:>14} {:>14} {:>10}", "versions", "first us", "hot us", "cold us", "hot/cold");
    let store = Store::in_memory().unwrap();
    store.insert(HOT, [1; 100]).unwrap();
    store.insert(COLD, [2; 100]).unwrap();
    let snapshot = store.snapshot().unwrap();
    let mut written = 0u64;
    let mut goal = 10_000.min(versions);
    loop {
        while written < goal {
            store.insert(HOT, [written as u8; 100]).unwrap();
            written += 1;
        }
        let first = Instant::now();
        assert_eq!(snapshot.get(HOT).unwrap(), Some(&[1; 100][..]));
        let first = first.elapsed().as_secs_f64() * 1e6;
        let (hot, cold) = read(&snapshot);
        let (hot, cold) = (median(&hot), median(&cold));
        println!("{written:>12} {first:>14.2} {hot:>14.2} {cold:>14.2} {:>10.1}", hot / cold);
        if goal == versions {
            break;
        }
        goal = (goal * 10).min(versions);
    }
}
