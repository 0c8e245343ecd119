//! Instructions of an operation: a figure that, unlike a time, is the same in each run.
//!
//! `valgrind --tool=callgrind` counts them, on a store of [`KEYS`] keys of 16 bytes with values of 100 bytes, whose
//! hash seed is fixed. `instructions.json` has the record; a count that differs from it by more than the tolerance,
//! upwards or downwards, is a failure. Without valgrind, or with a record from another kind of machine, it says so and
//! does nothing.
//!
//! ```sh
//! cargo bench --bench instructions              # compares
//! cargo bench --bench instructions -- --renew   # writes the record anew, to be committed with what changed it
//! ```
//!
//! The system's work on behalf of an operation is not counted, nor is the time of memory accesses.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use common::{Key, ends, keys, shuffled, value};
use serde::{Deserialize, Serialize};
use slotlog::format::{SUPERBLOCK_A, SUPERBLOCK_B, Superblock};
use slotlog::{Options, Store};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

/// Keys of the store, and times that each operation is done.
const KEYS: usize = 20_000;
/// Keys that are looked up at once.
const MANY: usize = 64;
/// Keys that are set in one transaction.
const BATCH: usize = 10;

/// The argument with which this program runs the operation named after it, and counts nothing.
const RUN: &str = "--run";

/// A store that is always the same, in a file of its own.
struct Fixed {
    store: Store,
    keys: Vec<Key>,
    shuffled: Vec<Key>,
    absent: Vec<Key>,
    _folder: TempDir,
}

impl Fixed {
    /// A store without keys.
    fn empty(options: Options) -> Fixed {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fixed.slotlog");
        options.clone().open(&path).unwrap().close().unwrap();
        fix_seed(&path);
        let store = options.open(&path).unwrap();
        let keys_there = keys(0, KEYS);
        Fixed { store, shuffled: shuffled(&keys_there), absent: keys(KEYS, KEYS), keys: keys_there, _folder: folder }
    }

    /// A store with all keys.
    fn loaded(options: Options) -> Fixed {
        let fixed = Fixed::empty(options);
        fixed.insert_all(0);
        fixed
    }

    fn insert_all(&self, version: u8) {
        self.keys.iter().for_each(|key| self.store.insert(black_box(key), value(key, version)).unwrap());
    }

    fn overwrite_all(&self, version: u8) {
        self.shuffled.iter().for_each(|key| self.store.insert(black_box(key), value(key, version)).unwrap());
    }
}

/// Gives a closed store without keys the hash seed that all stores have here.
fn fix_seed(path: &Path) {
    let mut file = fs::read(path).unwrap();
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        let bytes = &mut file[at as usize..][..size_of::<Superblock>()];
        let superblock = Superblock::read_from_bytes(bytes).unwrap();
        if superblock.holds() {
            let fixed = Superblock { hash_seed: 7.into(), ..superblock }.sealed();
            bytes.copy_from_slice(fixed.as_bytes());
        }
    }
    fs::write(path, file).unwrap();
}

/// Neither resizing nor compaction adds to a write.
fn without_upkeep() -> Options {
    Store::options().initial_capacity(2 * KEYS as u64).auto_compact(None)
}

/// An operation, and how often it is done.
struct Operation {
    name: &'static str,
    times: usize,
    prepare: fn() -> Fixed,
    work: fn(&Fixed),
}

fn operations() -> Vec<Operation> {
    let loaded = || Fixed::loaded(Store::options());
    let of_all = |name, prepare, work| Operation { name, times: KEYS, prepare, work };
    vec![
        of_all("snapshot_get", loaded, |fixed| {
            let snapshot = fixed.store.snapshot().unwrap();
            fixed.shuffled.iter().for_each(|key| {
                black_box(ends(snapshot.get(black_box(key)).unwrap().unwrap()));
            });
        }),
        of_all("get", loaded, |fixed| {
            fixed.shuffled.iter().for_each(|key| drop(black_box(fixed.store.get(black_box(key)).unwrap().unwrap())));
        }),
        of_all("get_with", loaded, |fixed| {
            fixed.shuffled.iter().for_each(|key| {
                black_box(fixed.store.get_with(black_box(key), ends).unwrap().unwrap());
            });
        }),
        of_all("get_many", loaded, |fixed| {
            let snapshot = fixed.store.snapshot().unwrap();
            for keys in fixed.shuffled.chunks(MANY) {
                for value in snapshot.get_many(black_box(keys)).unwrap() {
                    black_box(ends(value.unwrap()));
                }
            }
        }),
        of_all("miss", loaded, |fixed| {
            fixed.absent.iter().for_each(|key| {
                assert!(black_box(fixed.store.get_with(black_box(key), ends).unwrap()).is_none());
            });
        }),
        of_all("insert", || Fixed::empty(without_upkeep()), |fixed| fixed.insert_all(0)),
        of_all("insert_with_growth", || Fixed::empty(Store::options()), |fixed| fixed.insert_all(0)),
        of_all("overwrite", || Fixed::loaded(without_upkeep()), |fixed| fixed.overwrite_all(1)),
        of_all("overwrite_with_compaction", in_steady_state, |fixed| fixed.overwrite_all(4)),
        Operation {
            name: "transaction_of_10",
            times: KEYS / BATCH,
            prepare: || Fixed::loaded(without_upkeep()),
            work: |fixed| {
                for keys in fixed.shuffled.chunks(BATCH) {
                    let mut transaction = fixed.store.begin().unwrap();
                    keys.iter().for_each(|key| transaction.insert(black_box(key), value(key, 1)).unwrap());
                    transaction.commit().unwrap();
                }
            },
        },
        of_all("iterate", loaded, |fixed| {
            for entry in &fixed.store.snapshot().unwrap() {
                let (key, value) = entry.unwrap();
                black_box(ends(key) + ends(value));
            }
        }),
    ]
}

/// Overwritten so often that each write moves some live records.
fn in_steady_state() -> Fixed {
    let fixed = Fixed::loaded(Store::options());
    (1..4).for_each(|version| fixed.overwrite_all(version));
    fixed
}

/// The function that valgrind counts in, once for each operation.
#[inline(never)]
fn counted(operation: &Operation, fixed: &Fixed) {
    (operation.work)(fixed);
    // So that it does not end in a tail call.
    black_box(fixed);
}

/// The part that valgrind runs.
fn run(name: &str) {
    let operation = operations().into_iter().find(|operation| operation.name == name).unwrap();
    let fixed = (operation.prepare)();
    counted(&operation, &fixed);
}

/// The record.
#[derive(Serialize, Deserialize)]
struct Record {
    /// The compiler: another one makes other instructions.
    compiler: String,
    /// The part by which a count may differ.
    tolerance: f64,
    /// Instructions of each operation.
    counts: BTreeMap<String, f64>,
}

fn path_of_record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().to_owned()
}

/// Makes valgrind count the instructions of an operation, each in its own process.
fn count(operation: &Operation) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions*::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args([RUN, operation.name])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", operation.name, String::from_utf8_lossy(&output.stderr));
    let dump = fs::read_to_string(&out).unwrap();
    let totals = dump.lines().find_map(|line| line.strip_prefix("totals:")).unwrap();
    let total: f64 = totals.trim().parse().unwrap();
    let count = total / operation.times as f64;
    assert!(count > 1.0, "{}: {total} instructions are not all", operation.name);
    // In tenths, so that the record can be read.
    (count * 10.0).round() / 10.0
}

/// Prints both counts of each operation, and says whether they agree within the tolerance.
fn compare(record: &Record, counts: &BTreeMap<String, f64>) -> bool {
    println!("{:<28} {:>10} {:>10} {:>8}", "instructions", "recorded", "now", "change");
    // An operation that is only in the record is no longer guarded.
    let mut is_same = record.counts.keys().all(|name| counts.contains_key(name));
    let names = operations().into_iter().map(|operation| operation.name);
    for name in names {
        let now = counts[name];
        let Some(&recorded) = record.counts.get(name) else {
            println!("{name:<28} {:>10} {now:>10.1}           not in the record", "");
            is_same = false;
            continue;
        };
        let change = now / recorded - 1.0;
        let verdict = match change {
            _ if change > record.tolerance => "  more than before",
            _ if change < -record.tolerance => "  fewer than before: the record no longer guards it",
            _ => "",
        };
        println!("{name:<28} {recorded:>10.1} {now:>10.1} {:>+7.1}%{verdict}", change * 100.0);
        is_same &= verdict.is_empty();
    }
    is_same
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, run, name, ..] = &arguments[..]
        && run == RUN
    {
        self::run(name);
        return ExitCode::SUCCESS;
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: the record is of Linux on x86-64");
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not here (apt install valgrind)");
        return ExitCode::SUCCESS;
    }
    let counts = operations().iter().map(|operation| (operation.name.to_owned(), count(operation))).collect();
    let path = path_of_record();
    let before = fs::read(&path).map(|record| serde_json::from_slice::<Record>(&record).unwrap());
    let is_same = before.as_ref().is_ok_and(|record| compare(record, &counts));
    if arguments.iter().any(|argument| argument == "--renew") {
        let tolerance = before.map_or(0.03, |record| record.tolerance);
        let record = Record { compiler: compiler(), tolerance, counts };
        fs::write(&path, serde_json::to_string_pretty(&record).unwrap() + "\n").unwrap();
        println!("{} is renewed", path.display());
        return ExitCode::SUCCESS;
    }
    if is_same {
        return ExitCode::SUCCESS;
    }
    if let Ok(record) = before
        && record.compiler != compiler()
    {
        println!("The record is of another compiler: {}; this is {}.", record.compiler, compiler());
    }
    println!("If that is as it should be: cargo bench --bench instructions -- --renew, and commit the record.");
    ExitCode::FAILURE
}
