//! The cost of a backup: what threads that write at full speed do while a backup runs beside them, relative to what
//! they do alone, in turn, in one run. For comparison a thread that copies memory takes the place of the backup: what
//! *it* costs the writers is the machine's.
//!
//! A million keys of 16 bytes (`SLOTLOG_BENCH_KEYS`) with values of 100, overwritten at random by one thread, and by
//! three (`SLOTLOG_BENCH_WRITERS`). The files are in the usual folder for temporary files, or in `SLOTLOG_BENCH_DIR`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Key, folder, is_try, key_count, keys, median, shuffled, value};
use slotlog::{BackupOptions, Store};

/// Copies memory for as long.
fn copy_memory(time: Duration) {
    let (from, mut to) = (vec![1u8; 64 << 20], vec![0u8; 64 << 20]);
    let start = Instant::now();
    let mut at = 0;
    while start.elapsed() < time {
        to[at..at + (1 << 20)].copy_from_slice(&from[at..at + (1 << 20)]);
        at = (at + (1 << 20)) % from.len();
    }
    black_box(to);
}

/// Overwrites keys until it is told to stop.
fn write_on(store: &Store, keys: &[Key], written: &AtomicU64, stop: &AtomicBool) {
    for key in keys.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        store.insert(key, value(key, 2)).unwrap();
        written.fetch_add(1, Ordering::Relaxed);
    }
}

fn run(store: &Store, keys: &[Key], writers: usize) {
    let folder = folder();
    let path = folder.path().join("copy");
    let rounds = if is_try() { 1 } else { 9 };
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let per_second = |work: &mut dyn FnMut()| {
        let (start, before) = (Instant::now(), written.load(Ordering::Relaxed));
        work();
        let elapsed = start.elapsed();
        ((written.load(Ordering::Relaxed) - before) as f64 / elapsed.as_secs_f64(), elapsed)
    };
    let (mut alone, mut beside, mut memory, mut speed) = (vec![], vec![], vec![], vec![]);
    thread::scope(|scope| {
        for writer in 0..writers {
            let (first, rest) = keys.split_at(keys.len() * writer / writers);
            let (keys, written, stop) = ([rest, first].concat(), &written, &stop);
            scope.spawn(move || write_on(store, &keys, written, stop));
        }
        for _ in 0..rounds {
            let mut bytes = 0;
            let (with, time) = per_second(&mut || {
                let options = BackupOptions::new().overwrite(true);
                bytes = store.backup_with(&path, options).unwrap().bytes;
            });
            let (without, _) = per_second(&mut || thread::sleep(time));
            let (with_memory, _) = per_second(&mut || copy_memory(time));
            alone.push(without);
            beside.push(with / without);
            memory.push(with_memory / without);
            speed.push(bytes as f64 / f64::from(1 << 20) / time.as_secs_f64());
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{writers:>7} {:>14.0} {:>14.2} {:>14.2} {:>14.0}",
        median(&alone),
        median(&beside),
        median(&memory),
        median(&speed)
    );
}

fn main() {
    let count = key_count(1_000_000);
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    let keys = keys(0, count);
    for chunk in keys.chunks(10_000) {
        let mut transaction = store.begin().unwrap();
        chunk.iter().for_each(|key| transaction.insert(key, value(key, 1)).unwrap());
        transaction.commit().unwrap();
    }
    let keys = shuffled(&keys);
    println!("{count} keys of 16 bytes with values of 100");
    let start = Instant::now();
    let report = store.backup_with(folder.path().join("alone"), BackupOptions::new()).unwrap();
    let mib = report.bytes as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64();
    println!(
        "without writers: {:.2} s, {mib:.0} MiB/s, a file of {} bytes",
        start.elapsed().as_secs_f64(),
        report.file_len
    );
    println!(
        "{:>7} {:>14} {:>14} {:>14} {:>14}",
        "writers", "alone, 1/s", "with backup", "with memcpy", "backup, MiB/s"
    );
    match std::env::var("SLOTLOG_BENCH_WRITERS") {
        Ok(writers) => run(&store, &keys, writers.parse().expect("SLOTLOG_BENCH_WRITERS is a number of threads")),
        Err(_) => [1, 3].into_iter().for_each(|writers| run(&store, &keys, writers)),
    }
}
