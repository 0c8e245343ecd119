//! `slotlog bench`: what operations cost on this disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use slotlog::{Durability, Store};

use super::common::columns::fitted;
use super::common::output::Answer;
use super::common::tables;
use super::failure::{Done, Failure};
use super::out::{note, print, print_json};

/// Measure what operations cost on this disk
///
/// It makes a store in the folder, writes to it, and removes it. Keys have 16 bytes, values 100. What counts for an
/// application that cannot lose anything is the first line: how long a commit takes that survives a power cut. That is
/// what the disk takes to flush; if it is less than some ten microseconds, the disk is memory, or does not really
/// flush. The others are measured while the data is in memory.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  slotlog bench
  slotlog bench /var/lib --seconds 10
  slotlog bench . --json --seconds 0.1")]
pub struct Arguments {
    /// Where the store is made
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// How long each line is measured
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Threads that commit at the same time, in the line about that
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "expected a number from 0.01 to 3600".to_owned())
}

/// A line of the result. Times are in nanoseconds.
#[derive(Serialize)]
struct Measured {
    what: String,
    per_second: f64,
    median: u64,
    p99: u64,
    max: u64,
    count: u64,
}

/// Entries for reading, and for a transaction.
const ENTRIES: u64 = 100_000;
const IN_A_TRANSACTION: u64 = 1000;

/// A folder that goes away with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn within(folder: &Path) -> Result<Scratch, Failure> {
        let path = folder.join(format!(".slotlog-bench-{}", std::process::id()));
        let failed = |error| Failure::new(format!("{}: could not be created: {error}", path.display()));
        fs::create_dir(&path).map_err(failed)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is named like what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn run(arguments: &Arguments) -> Done {
    let scratch = Scratch::within(&arguments.folder)?;
    let path = scratch.0.join("bench.slotlog");
    let store = Store::open(&path)?;
    let synced = Store::options().durability(Durability::Synced).open(&path)?;
    let span = Duration::from_secs_f64(arguments.seconds);
    let mut lines = Vec::new();
    note("measuring; this takes some seconds");

    let mut number = 0;
    lines.push(measured("a commit, synced", span, || {
        number += 1;
        synced.insert(key(number), VALUE)
    })?);
    lines.push(together(&synced, arguments.threads, span)?);
    lines.push(measured("a transaction of 1000, synced", span, || {
        let mut transaction = synced.begin()?;
        for _ in 0..IN_A_TRANSACTION {
            number += 1;
            transaction.insert(key(number % ENTRIES), VALUE)?;
        }
        transaction.commit()
    })?);
    lines.push(measured("a commit, not synced", span, || {
        number += 1;
        store.insert(key(number % ENTRIES), VALUE)
    })?);
    for number in 0..ENTRIES {
        store.insert(key(number), VALUE)?;
    }
    let mut at = 0u64;
    lines.push(measured("a read", span, || {
        // Fibonacci hashing: from one key to another that is far away.
        at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
        store.get_with(key(at % ENTRIES), |value| debug_assert_eq!(value.len(), VALUE.len())).map(drop)
    })?);
    drop(synced);
    store.close()?;
    lines.push(measured("opening and closing", span, || Store::open(&path)?.close())?);
    drop(scratch);

    if arguments.json {
        print_json(&lines)?;
    } else {
        print(&table(&lines))?;
    }
    Ok(Answer::Yes)
}

const VALUE: [u8; 100] = [b'v'; 100];

fn key(number: u64) -> String {
    format!("{number:016}")
}

/// Does something again and again for this long, and says how long it took each time.
fn measured(
    what: &str,
    span: Duration,
    mut operation: impl FnMut() -> slotlog::Result<()>,
) -> Result<Measured, Failure> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < span {
        let before = Instant::now();
        operation()?;
        times.push(before.elapsed().as_nanos() as u64);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    Ok(summary(what, times, rate))
}

/// Threads that commit at the same time share flushes.
fn together(store: &Store, threads: u64, span: Duration) -> Result<Measured, Failure> {
    let next = AtomicU64::new(1 << 40);
    let commit = || -> slotlog::Result<Vec<u64>> {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < span {
            let before = Instant::now();
            store.insert(key(next.fetch_add(1, Ordering::Relaxed)), VALUE)?;
            times.push(before.elapsed().as_nanos() as u64);
        }
        Ok(times)
    };
    let start = Instant::now();
    let times = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(commit)).collect();
        running.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let elapsed = start.elapsed();
    let mut all = Vec::new();
    for of_thread in times {
        all.extend(of_thread.map_err(|_| Failure::new("a thread has failed"))??);
    }
    let rate = all.len() as f64 / elapsed.as_secs_f64();
    Ok(summary(&format!("the same by {threads} threads"), all, rate))
}

fn summary(what: &str, mut times: Vec<u64>, per_second: f64) -> Measured {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied().unwrap_or(0);
    let (median, p99, max) = (at(0.5), at(0.99), at(1.0));
    Measured { what: what.to_owned(), per_second, median, p99, max, count: times.len() as u64 }
}

fn table(lines: &[Measured]) -> String {
    let mut table = tables::table(["what", "a second", "median", "p99", "longest"]);
    for line in lines {
        let rate = format!("{:.0}", line.per_second);
        table.add_row([line.what.clone(), rate, readable(line.median), readable(line.p99), readable(line.max)]);
    }
    fitted(table)
}

/// A time in a unit of its size.
fn readable(nanoseconds: u64) -> String {
    let nanoseconds = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        ..1e3 => (nanoseconds, "ns"),
        ..1e6 => (nanoseconds / 1e3, "µs"),
        ..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
