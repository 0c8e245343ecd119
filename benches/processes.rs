//! The cost of sharing a store between processes: inserts into a shared store beside one opened for this process alone,
//! and gets in one thread, two threads and two processes.
//!
//! `SLOTLOG_BENCH_KEYS` keys of 16 bytes, half a million by default, with values of 100 bytes. The variants take turns,
//! chunk by chunk, and the medians of the chunks are printed, with their ratios.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{Key, ends, key_count, keys, median, shuffled, value};
use slotlog::{Access, Store};

/// Keys of a chunk.
const CHUNK: usize = 10_000;
/// Names the store to a process that reads from it.
const READ: &str = "SLOTLOG_BENCH_READ";

/// Nanoseconds per key, for `keys` keys, in the median of these times.
fn per_key(times: &[Duration], keys: usize) -> f64 {
    let times: Vec<f64> = times.iter().map(|time| time.as_nanos() as f64).collect();
    median(&times) / keys as f64
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn get_all(store: &Store, keys: &[Key]) {
    let sum: u64 = keys.iter().map(|key| store.get_with(key, ends).unwrap().unwrap()).sum();
    std::hint::black_box(sum);
}

/// A process that reads a chunk each time it is told to, and reports how long that took.
struct Reader {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Reader {
    fn start(path: &Path, access: &str) -> Reader {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(READ, path).arg(access).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Reader { child, input, output: BufReader::new(output) }
    }

    fn tell(&mut self, chunk: usize) {
        writeln!(self.input, "{chunk}").unwrap();
    }

    fn hear(&mut self) -> Duration {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        Duration::from_nanos(line.trim().parse().unwrap())
    }

    fn stop(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

/// The role of a [`Reader`]'s process.
fn read(path: &Path) {
    let access = if env::args().any(|argument| argument == "read-only") { Access::ReadOnly } else { Access::ReadWrite };
    let store = Store::options().access(access).open(path).unwrap();
    let keys = shuffled(&keys(0, store.len().unwrap() as usize));
    for line in std::io::stdin().lines() {
        let chunk: usize = line.unwrap().parse().unwrap();
        let keys = keys.chunks(CHUNK).nth(chunk).unwrap();
        let time = timed(|| get_all(&store, keys));
        println!("{}", time.as_nanos());
    }
}

fn main() {
    if let Some(path) = env::var_os(READ) {
        return read(Path::new(&path));
    }
    let count = key_count(500_000).max(1);
    let all = keys(0, count);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    println!("{count} keys of 16 bytes, values of 100 bytes; ns per key, medians of chunks of {CHUNK}");
    let (shared_path, alone_path) = (path("shared"), path("exclusive"));
    let options = || Store::options().initial_capacity(count as u64);
    let shared = options().open(&shared_path).unwrap();
    let alone = options().exclusive(true).open(&alone_path).unwrap();
    let mut times = [Vec::new(), Vec::new()];
    for (number, chunk) in all.chunks(CHUNK).enumerate() {
        // Each goes first every other time.
        for turn in 0..2 {
            let which = (number + turn) % 2;
            let store = [&shared, &alone][which];
            times[which].push(timed(|| chunk.iter().for_each(|key| store.insert(key, value(key, 0)).unwrap())));
        }
    }
    let chunk_len = CHUNK.min(count);
    let [of_shared, of_alone] = times.map(|times| per_key(&times, chunk_len));
    println!("insert, shared                  {of_shared:8.1}");
    println!("insert, exclusive               {of_alone:8.1}   shared / exclusive {:.2}", of_shared / of_alone);

    let order = shuffled(&all);
    let mut readers = [Reader::start(&shared_path, ""), Reader::start(&shared_path, "")];
    let mut read_only = Reader::start(&shared_path, "read-only");
    let (mut one, mut threads, mut processes, mut copying) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, chunk) in order.chunks(CHUNK).enumerate() {
        one.push(timed(|| get_all(&shared, chunk)));

        let barrier = Barrier::new(2);
        let in_thread = || {
            barrier.wait();
            timed(|| get_all(&shared, chunk))
        };
        let (first, second) = thread::scope(|scope| {
            let other = scope.spawn(in_thread);
            (in_thread(), other.join().unwrap())
        });
        threads.push(first.max(second));

        readers.iter_mut().for_each(|reader| reader.tell(number));
        processes.push(readers.iter_mut().map(Reader::hear).max().unwrap());

        read_only.tell(number);
        copying.push(read_only.hear());
    }
    readers.into_iter().chain([read_only]).for_each(Reader::stop);
    let [one, threads, processes, copying] = [one, threads, processes, copying].map(|times| per_key(&times, chunk_len));
    println!("get in place, 1 thread          {one:8.1}");
    println!("get in place, 2 threads, each   {threads:8.1}   throughput × {:.2}", 2.0 * one / threads);
    println!("get in place, 2 processes, each {processes:8.1}   throughput × {:.2}", 2.0 * one / processes);
    println!("get, read-only, 1 process       {copying:8.1}   × {:.2} of a reader with a pin", copying / one);
}
