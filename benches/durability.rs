//! The cost of surviving a power cut: synced commits, beside a plain file that is written and flushed, and from several
//! threads at once; and the effect of checkpoints, and of a growing index, on single buffered inserts.
//!
//! Keys of 16 bytes, values of 100. All variants take turns in short chunks, and medians are printed.
//! `SLOTLOG_BENCH_KEYS` sets the number of buffered inserts, a million by default. The files are in the usual folder
//! for temporary files, or in `SLOTLOG_BENCH_DIR`: the figures are meaningful only if that is on a disk.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::fs::File;
use std::io::{Result, Write};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{Key, folder, is_try, key_count, keys, median, value};
use slotlog::{Durability, Store};

/// Rounds, in each of which every variant does a chunk.
const ROUNDS: usize = 20;
/// Bytes of a record in the log: its header, its key, and its value up to the next multiple of eight.
const RECORD: usize = 32 + 16 + 104;
/// Buffered inserts of a chunk.
const BUFFERED_CHUNK: usize = 10_000;

/// A plain file to which records are appended.
struct Plain {
    file: File,
    at: u64,
}

impl Plain {
    fn new(path: &Path) -> Plain {
        Plain { file: File::create_new(path).unwrap(), at: 0 }
    }

    /// Its space is allocated beforehand, as ours is.
    fn allocated(path: &Path, len: u64) -> Plain {
        let plain = Plain::new(path);
        fs2::FileExt::allocate(&plain.file, len).unwrap();
        plain.file.sync_all().unwrap();
        plain
    }

    /// Its space was written once before, so that the file system has no metadata to write.
    fn written(path: &Path, len: u64) -> Plain {
        let mut plain = Plain::new(path);
        plain.file.write_all(&vec![1; len as usize]).unwrap();
        plain.file.sync_all().unwrap();
        plain
    }

    fn append(&mut self, record: &[u8]) {
        write_at(&self.file, record, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += record.len() as u64;
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> Result<()> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, at).map(|len| assert_eq!(len, bytes.len()))
}

fn synced(path: &Path, keys: usize) -> Store {
    // A growing index is not measured here.
    Store::options().durability(Durability::Synced).initial_capacity(keys as u64).open(path).unwrap()
}

/// Microseconds that each piece of work took.
fn times<T>(pieces: &[T], mut work: impl FnMut(&T)) -> impl Iterator<Item = f64> {
    pieces.iter().map(move |piece| {
        let start = Instant::now();
        work(piece);
        start.elapsed().as_nanos() as f64 / 1e3
    })
}

/// One synced commit after the other, beside a file.
fn single(folder: &Path, chunk: usize) {
    let all = keys(0, ROUNDS * chunk);
    let len = (all.len() * RECORD) as u64;
    let store = synced(&folder.join("single"), all.len());
    let mut files = [
        ("pwrite + fdatasync, file grows", Plain::new(&folder.join("plain"))),
        ("… space allocated beforehand", Plain::allocated(&folder.join("allocated"), len)),
        ("… space written beforehand", Plain::written(&folder.join("written"), len)),
    ];
    let mut of_store = Vec::new();
    let mut of_files = [const { Vec::new() }; 3];
    for keys in all.chunks(chunk) {
        of_store.extend(times(keys, |key| store.insert(key, value(key, 0)).unwrap()));
        for ((_, file), of_file) in files.iter_mut().zip(&mut of_files) {
            let record = |key: &Key| {
                let mut record = [0; RECORD];
                record[32..48].copy_from_slice(key);
                record[48..148].copy_from_slice(&value(key, 0));
                record
            };
            of_file.extend(times(keys, |key| file.append(&record(key))));
        }
    }
    println!("{ROUNDS} × {chunk} synced commits, one after the other; µs each, medians\n");
    println!("{:<34} {:>10} {:>16}", "", "µs", "slotlog / this");
    let of_store = median(&of_store);
    println!("{:<34} {of_store:>10.1}", "slotlog, Durability::Synced");
    for ((name, _), of_file) in files.iter().zip(&of_files) {
        let of_file = median(of_file);
        println!("{name:<34} {of_file:>10.1} {:>16.2}", of_store / of_file);
    }
}

/// Seconds until as many threads as there are pieces have inserted theirs.
fn together(store: &Store, pieces: std::slice::Chunks<'_, Key>) -> f64 {
    let start = Barrier::new(pieces.len() + 1);
    thread::scope(|scope| {
        let insert = |keys: &[Key]| {
            start.wait();
            keys.iter().for_each(|key| store.insert(key, value(key, 0)).unwrap());
        };
        let threads: Vec<_> = pieces.map(|keys| scope.spawn(move || insert(keys))).collect();
        // Before they begin, not after: this thread may be the last to continue.
        let begin = Instant::now();
        start.wait();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        begin.elapsed().as_secs_f64()
    })
}

/// Synced commits of several threads.
fn threads(folder: &Path, chunk: usize) {
    const THREADS: [usize; 4] = [1, 2, 4, 8];

    let all = keys(0, ROUNDS * THREADS.len() * chunk);
    let store = synced(&folder.join("threads"), all.len());
    let mut rates = THREADS.map(|_| Vec::new());
    let mut chunks = all.chunks(chunk);
    for _ in 0..ROUNDS {
        for (threads, rates) in THREADS.iter().zip(&mut rates) {
            let keys = chunks.next().unwrap();
            rates.push(chunk as f64 / together(&store, keys.chunks(chunk / threads)));
        }
    }
    println!(
        "\nsynced commits of several threads, {chunk} in a chunk; commits per second, medians of {ROUNDS} chunks\n"
    );
    println!("{:<34} {:>10} {:>16}", "threads", "commits/s", "× one thread");
    let one = median(&rates[0]);
    for (threads, rates) in THREADS.iter().zip(&rates) {
        println!("{threads:<34} {:>10.0} {:>16.2}", median(rates), median(rates) / one);
    }
}

/// Microseconds of pieces of a loop that only reads the clock, each `length` long: longer ones show the machine's
/// effect.
fn idle(pieces: usize, length: f64) -> impl Iterator<Item = f64> {
    let length = Duration::from_nanos((length * 1e3) as u64);
    (0..pieces).map(move |_| {
        let start = Instant::now();
        loop {
            let elapsed = start.elapsed();
            if elapsed >= length {
                return elapsed.as_nanos() as f64 / 1e3;
            }
        }
    })
}

/// The duration of single buffered inserts: as usual, without checkpoints, and with an index that never has to grow.
fn buffered(folder: &Path, count: usize) {
    let all = keys(0, count);
    let variants = [
        ("slotlog", Store::options()),
        ("slotlog, no checkpoints", Store::options().checkpoint_every(u64::MAX)),
        ("slotlog, room from the beginning", Store::options().initial_capacity(count as u64)),
    ];
    let mut stores = variants.map(|(name, options)| (name, options.open(folder.join(name)).unwrap(), Vec::new()));
    let mut of_idle = Vec::new();
    for keys in all.chunks(BUFFERED_CHUNK) {
        for (_, store, of_store) in &mut stores {
            of_store.extend(times(keys, |key| store.insert(key, value(key, 0)).unwrap()));
        }
        // Pieces as long as an insert, so that equally many of them are hit by other work of the machine.
        let [(_, _, of_first), ..] = &stores;
        of_idle.extend(idle(keys.len(), median(&of_first[of_first.len() - keys.len()..])));
    }
    println!("\n{count} buffered inserts, one after the other; µs each, and how many took longer than a millisecond\n");
    println!("{:<34} {:>8} {:>8} {:>8} {:>10} {:>8}", "", "p50", "p99", "p99.9", "max", "> 1 ms");
    let of_stores = stores.into_iter().map(|(name, _, times)| (name, times));
    for (name, mut times) in of_stores.chain([("only looking at the clock", of_idle)]) {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let long = times.iter().filter(|&&time| time > 1000.0).count();
        println!("{name:<34} {:>8.2} {:>8.2} {:>8.2} {:>10.1} {long:>8}", at(0.5), at(0.99), at(0.999), at(1.0));
    }
}

fn main() {
    let (chunk, of_threads, count) = if is_try() { (2, 8, 1000) } else { (50, 400, key_count(1_000_000).max(1)) };
    let folder = folder();
    single(folder.path(), chunk);
    threads(folder.path(), of_threads);
    buffered(folder.path(), count);
}
