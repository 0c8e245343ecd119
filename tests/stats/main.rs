//! `slotlog-stats`, run as a user runs it.

#![cfg(feature = "cli")]
#![allow(missing_docs, clippy::unwrap_used)]

mod json;
mod live;
mod page;
#[path = "../support/mod.rs"]
mod support;
mod text;
mod troubles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use slotlog::Store;
use tempfile::TempDir;

const STATS: &str = env!("CARGO_BIN_EXE_slotlog-stats");

/// Makes the tests take turns. While one of them starts a program, that program has all open files of this process
/// until it really runs, and with them the lock of a store that another test is just closing.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A failed test must not make the others fail.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A closed store of 1000 keys, 100 of which were replaced, in one commit, and 50 removed.
fn example_store() -> (TempDir, PathBuf) {
    let folder = support::folder();
    let path = folder.path().join("example.slotlog");
    // Closing must not compact it, which would take numbers and drop dead records.
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    for number in 0..1000 {
        store.insert(format!("key {number}"), format!("the value of {number}")).unwrap();
    }
    let mut replacing = store.begin().unwrap();
    for number in 0..100 {
        replacing.insert(format!("key {number}"), "replaced").unwrap();
    }
    replacing.commit().unwrap();
    for number in 900..950 {
        assert!(store.remove(format!("key {number}")).unwrap());
    }
    store.close().unwrap();
    (folder, path)
}

/// A closed store with maps of several types, a value that is far larger than the others, and expired entries.
fn mixed_store() -> (TempDir, PathBuf) {
    let folder = support::folder();
    let path = folder.path().join("mixed & <odd>.slotlog");
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    let users = store.map::<u64, str>("users").unwrap();
    for number in 0..2000 {
        users.insert(&number, &format!("the user {number}, with a name and an address")).unwrap();
    }
    let images = store.map::<str, [u8]>("images").unwrap();
    for number in 0..200usize {
        images.insert(&format!("{number}.jpg"), &vec![7; 1000 + 10 * number]).unwrap();
    }
    images.insert("\"left\" & <forgotten>\n.tar", &vec![7; 2 << 20]).unwrap();
    let sessions = store.map::<str, u64>("sessions").unwrap();
    let (past, future) = (SystemTime::now(), SystemTime::now() + Duration::from_secs(1_000_000));
    for number in 0..40_000 {
        let at = if number % 10 < 7 { past } else { future };
        sessions.insert_with_expiry(&format!("session {number:020}"), &number, at).unwrap();
    }
    store.map::<str, u32>("Größe").unwrap().insert("Straße", 1).unwrap();
    store.map::<str, u32>("カート").unwrap().insert("りんご", 3).unwrap();
    store.map_versioned::<u32, (String, bool)>("a\nb", 3).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    (folder, path)
}

/// Runs `slotlog-stats`, which must leave the file as it was.
fn stats(path: &Path, options: &[&str]) -> Output {
    let look = || (fs::read(path).ok(), fs::metadata(path).ok().map(|metadata| metadata.modified().unwrap()));
    let before = look();
    let output = support::command(STATS).arg(path).args(options).output().unwrap();
    assert!(before == look(), "the file was changed");
    output
}

/// What it prints when all is well.
#[track_caller]
fn printed(path: &Path, options: &[&str]) -> String {
    let output = stats(path, options);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    stdout(&output)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The cells of the first line that begins with `name`, without those words.
#[track_caller]
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let found = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix("  "));
    let Some(cells) = found else { panic!("no line {name:?} in\n{text}") };
    cells.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// The text from the line that begins with `heading`.
#[track_caller]
fn after<'a>(text: &'a str, heading: &str) -> &'a str {
    let found = text.find(&format!("\n{heading}"));
    &text[found.unwrap_or_else(|| panic!("no {heading:?} in\n{text}"))..]
}

/// A number as it is shown: with its thousands apart.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// A size as it is shown.
fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    unreachable!("no test has that much")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[track_caller]
fn assert_error(output: &Output, path: &Path, what: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(stdout(output), "");
    assert!(message.starts_with(&format!("slotlog-stats: {}: ", path.display())), "{message}");
    assert!(message.contains(what), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// Flips a bit of the last byte of the only occurrence of `bytes` in the file, and returns its offset.
fn damage(path: &Path, bytes: &[u8]) -> u64 {
    let mut file = fs::read(path).unwrap();
    let places: Vec<usize> = file
        .windows(bytes.len())
        .enumerate()
        .filter_map(|(at, window)| (window == bytes).then_some(at + bytes.len() - 1))
        .collect();
    assert_eq!(places.len(), 1);
    file[places[0]] ^= 1;
    fs::write(path, file).unwrap();
    places[0] as u64
}

/// Ends without closing its store.
#[test]
#[ignore = "run by other tests, as a process of its own"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    assert_eq!(role, "leaver");
    let store = Store::open(path).unwrap();
    store.insert("one", "more").unwrap();
    std::process::exit(0);
}
