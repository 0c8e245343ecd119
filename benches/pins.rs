//! The cost of a look-up beside others: with one pin in use and with six hundred, in a thread that reads from one store
//! and in one that reads from three hundred in turn; and the cost of starting to hold a commit.
//!
//! Nanoseconds for each, medians of rounds in which the variants take turns.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use common::{ends, is_try, median};
use slotlog::{Snapshot, Store};

/// Pins that others hold.
const HELD: u64 = 600;
/// Stores that a thread reads from in turn.
const STORES: usize = 300;
const KEY: &str = "the key";

/// Nanoseconds per step, of `steps` steps.
fn nanoseconds(steps: usize, mut step: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..steps).for_each(&mut step);
    start.elapsed().as_nanos() as f64 / steps as f64
}

fn read(store: &Store) {
    black_box(store.get_with(black_box(KEY), ends).unwrap().unwrap());
}

fn snapshot(store: &Store) {
    black_box(store.snapshot().unwrap());
}

/// Snapshots of `count` commits.
fn hold(store: &Store, count: u64) -> Vec<Snapshot> {
    let hold = |number: u64| {
        store.insert("changes", number.to_le_bytes()).unwrap();
        store.snapshot().unwrap()
    };
    (0..count).map(hold).collect()
}

fn main() {
    let (rounds, steps) = if is_try() { (1, 2 * STORES) } else { (21, 300_000) };
    let folder = tempfile::tempdir().unwrap();
    let open = |name: String| {
        let store = Store::open(folder.path().join(name)).unwrap();
        store.insert(KEY, "a value of some length").unwrap();
        store
    };
    let (one, other) = (open("one".into()), open("other".into()));
    let many: Vec<Store> = (0..STORES).map(|number| open(number.to_string())).collect();
    let held = hold(&other, HELD);
    let (mut few, mut crowded, mut in_turn) = (Vec::new(), Vec::new(), Vec::new());
    let (mut snapshots, mut shared) = (Vec::new(), Vec::new());
    // A thread that starts when the others have their pins.
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..rounds {
                few.push(nanoseconds(steps, |_| read(&one)));
                crowded.push(nanoseconds(steps, |_| read(&other)));
                in_turn.push(nanoseconds(steps, |step| read(&many[step % STORES])));
                snapshots.push(nanoseconds(steps, |_| snapshot(&one)));
                shared.push(nanoseconds(steps, |_| snapshot(&other)));
            }
        });
    });
    assert_eq!(held.len() as u64, HELD);
    let [few, crowded, in_turn, snapshots, shared] =
        [few, crowded, in_turn, snapshots, shared].map(|times| median(&times));
    println!("look-up, nobody else there             {few:8.1}");
    println!("look-up, {HELD} pins in use              {crowded:8.1}   × {:.2}", crowded / few);
    println!("look-up, in {STORES} stores in turn        {in_turn:8.1}   × {:.2}", in_turn / few);
    println!("snapshot, nobody else there            {snapshots:8.1}");
    println!("snapshot, {HELD} pins in use             {shared:8.1}   × {:.2}", shared / snapshots);
}
