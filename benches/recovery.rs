//! The time to open a store that was not closed: after a kill, beside a store that was closed, and after a power cut,
//! beside a plain read of the same file.
//!
//! There are stores of `SLOTLOG_BENCH_KEYS` keys with values of 100 bytes, five million by default, of a fiftieth of
//! that, and of a tenth of it with values of 1 KiB. They take turns with each other and with the comparisons, round by
//! round; medians of the rounds are printed. The files are in the usual folder for temporary files, or in
//! `SLOTLOG_BENCH_DIR`: figures of reading the disk are meaningful only if that is on one.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::env;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{folder, is_try, key_count, keys, median};
use slotlog::{Opened, Store};

/// Rounds of opening after a kill.
const KILLS: usize = 15;
/// Rounds of opening after a power cut.
const CUTS: usize = 5;
/// Names the store to a process that inserts into it and is killed.
const INSERT: &str = "SLOTLOG_BENCH_INSERT";

const MIB: f64 = (1 << 20) as f64;

/// Returns the result of `work`, and its time in seconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

/// A store to be measured.
struct Subject {
    /// Its content at first.
    name: String,
    path: PathBuf,
    keys: usize,
    value_len: usize,
}

impl Subject {
    fn new(folder: &Path, keys: usize, value_len: usize) -> Subject {
        let (name, path) = (format!("{keys} × {value_len}"), folder.join(format!("{keys}-{value_len}")));
        let mut subject = Subject { name, path, keys: 0, value_len };
        subject.insert_and_kill(keys);
        subject
    }

    /// Makes a process insert `count` more keys, and kills it while it has the store open.
    fn insert_and_kill(&mut self, count: usize) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(INSERT, &self.path).args([self.keys, count, self.value_len].map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Its standard input stays open until it is dead, since the process would end when that closes.
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "inserted");
        child.kill().unwrap();
        child.wait().unwrap();
        self.keys += count;
    }
}

/// The role of a process that will be killed.
fn insert(path: &Path) {
    let numbers: Vec<usize> = env::args().skip(1).map(|number| number.parse().unwrap()).collect();
    let store = Store::open(path).unwrap();
    let mut value = vec![7; numbers[2]];
    for key in keys(numbers[0], numbers[1]) {
        value[..16].copy_from_slice(&key);
        store.insert(key, &value).unwrap();
    }
    println!("inserted");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Opens a store that is in an expected state, checks that it is complete, and returns the seconds of the opening.
fn open(path: &Path, keys: usize, is_expected: impl FnOnce(Opened) -> bool) -> f64 {
    let (store, seconds) = timed(|| Store::open(path).unwrap());
    assert!(is_expected(store.opened()), "{:?}", store.opened());
    assert_eq!(store.len().unwrap(), keys as u64);
    seconds
}

fn after_kill(subjects: &mut [&mut Subject]) {
    println!("open, ms: after a kill (median, and the longest of {KILLS}), and beside it after a close\n");
    println!("{:<18} {:>10} {:>10} {:>10} {:>10}", "keys × value", "killed", "longest", "closed", "ratio");
    let mut times = vec![(Vec::new(), Vec::new()); subjects.len()];
    for _ in 0..KILLS {
        for (subject, (killed, closed)) in subjects.iter_mut().zip(&mut times) {
            killed.push(open(&subject.path, subject.keys, |opened| opened == Opened::AfterKill) * 1e3);
            // The handle is gone, so the store was closed.
            closed.push(open(&subject.path, subject.keys, |opened| opened == Opened::Clean) * 1e3);
            // In the last round this leaves it as the other part needs it: not closed.
            subject.insert_and_kill(1);
        }
    }
    for (subject, (killed, closed)) in subjects.iter().zip(&times) {
        let longest = killed.iter().copied().fold(0.0, f64::max);
        let [killed, closed] = [killed, closed].map(|times| median(times));
        println!("{:<18} {killed:>10.3} {longest:>10.3} {closed:>10.3} {:>10.2}", subject.name, killed / closed);
    }
    let of_first = median(&times[0].0);
    for (subject, (killed, _)) in subjects.iter().zip(&times).skip(1) {
        println!("{} / {}, killed: {:.2}", subject.name, subjects[0].name, median(killed) / of_first);
    }
}

/// Whether a file is in the page cache before it is read.
#[derive(Clone, Copy, PartialEq)]
enum Cache {
    Warm,
    #[cfg(target_os = "linux")]
    Cold,
}

#[cfg(target_os = "linux")]
const CACHES: [Cache; 2] = [Cache::Warm, Cache::Cold];
#[cfg(not(target_os = "linux"))]
const CACHES: [Cache; 1] = [Cache::Warm];

/// Makes sure that nothing of a file waits to be written, and that it is in the page cache, or is not.
fn settle(path: &Path, cache: Cache) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    file.sync_all().unwrap();
    match cache {
        Cache::Warm => {
            read(path);
        }
        #[cfg(target_os = "linux")]
        Cache::Cold => forget(&file),
    }
}

/// Makes the system drop a file from the page cache.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library does not have this call")]
fn forget(file: &File) {
    use std::os::fd::AsRawFd;

    // SAFETY: the call gets no memory, and the file is open.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(error, 0);
}

/// Reads a file from its beginning to its end, and returns its length.
fn read(path: &Path) -> usize {
    let (mut file, mut buffer, mut sum) = (File::open(path).unwrap(), vec![0; 1 << 20], 0);
    loop {
        let len = file.read(black_box(&mut buffer)).unwrap();
        if len == 0 {
            return sum;
        }
        sum += len;
    }
}

/// The measurements of one store in one state of the cache.
#[derive(Clone, Default)]
struct Cut {
    log_mib: f64,
    seconds: Vec<f64>,
    /// MiB of log per second.
    recovered: Vec<f64>,
    /// MiB of the file per second.
    read: Vec<f64>,
}

impl Cut {
    fn recover(&mut self, path: &Path, keys: usize, cache: Cache) {
        settle(path, cache);
        let mut log = 0;
        let seconds = open(path, keys, |opened| match opened {
            Opened::AfterPowerCut { bytes, records } => {
                log = bytes;
                records >= keys as u64
            }
            _ => false,
        });
        self.log_mib = log as f64 / MIB;
        self.seconds.push(seconds);
        self.recovered.push(self.log_mib / seconds);
    }

    fn read(&mut self, path: &Path, cache: Cache) {
        settle(path, cache);
        let (len, seconds) = timed(|| read(path));
        self.read.push(len as f64 / MIB / seconds);
    }
}

fn after_power_cut(subjects: &[&Subject], folder: &Path) {
    println!(
        "\nopen after a power cut: MiB of log in a second, and beside it MiB of the same file in a second when it"
    );
    println!("is only read, both with the file in the page cache (warm) and not (cold)\n");
    println!(
        "{:<18} {:<6} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "keys × value", "cache", "log, MiB", "open, ms", "open", "read", "ratio"
    );
    let copy = folder.join("copy");
    let mut cuts = vec![vec![Cut::default(); CACHES.len()]; subjects.len()];
    for round in 0..CUTS {
        for (subject, cuts) in subjects.iter().zip(&mut cuts) {
            for (cache, cut) in CACHES.into_iter().zip(cuts) {
                // A copy of a store that was not closed is recovered as after a power cut.
                fs::copy(&subject.path, &copy).unwrap();
                // Each goes first every other time, since a host may cache as well.
                if round % 2 == 0 {
                    cut.read(&copy, cache);
                    cut.recover(&copy, subject.keys, cache);
                } else {
                    cut.recover(&copy, subject.keys, cache);
                    cut.read(&copy, cache);
                }
                fs::remove_file(&copy).unwrap();
            }
        }
    }
    for (subject, cuts) in subjects.iter().zip(&cuts) {
        for (cache, cut) in CACHES.into_iter().zip(cuts) {
            let cache = if cache == Cache::Warm { "warm" } else { "cold" };
            let (seconds, recovered, read) = (median(&cut.seconds), median(&cut.recovered), median(&cut.read));
            println!(
                "{:<18} {cache:<6} {:>10.1} {:>10.1} {recovered:>10.0} {read:>10.0} {:>10.2}",
                subject.name,
                cut.log_mib,
                seconds * 1e3,
                recovered / read,
            );
        }
    }
}

fn main() {
    if let Some(path) = env::var_os(INSERT) {
        return insert(Path::new(&path));
    }
    let count = if is_try() { 1000 } else { key_count(5_000_000).max(50) };
    let folder = folder();
    let mut small = Subject::new(folder.path(), count / 50, 100);
    let mut large = Subject::new(folder.path(), count, 100);
    let long = Subject::new(folder.path(), count / 10, 1024);
    after_kill(&mut [&mut small, &mut large]);
    after_power_cut(&[&small, &large, &long], folder.path());
}
