//! The modes of opening a store, and what each promises: first the recipe of memory mapping, row by row, then which
//! modes go together.
//!
//! Elsewhere: paths and files that are not a store (`limits`), many writing processes (`processes`), what `sync` and
//! `close` report when a flush fails (`src/engine/tests/faults`), that dropping closes (`threads`).
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![allow(unsafe_code, reason = "rights, mounts, forks and the counters of the system")]

mod mapping;
mod private;
#[path = "../support/mod.rs"]
mod support;
mod together;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mapping::*;
use private::*;
use slotlog::{Access, Durability, Error, FullReason, HeldBy, Opened, OpenerStep, Options, Pod, Store};
use support::{
    Content, LONG, Player, Random, assert_clean, content, folder, give_up_rights, read_only, role, run_child, say,
    until_stopped,
};
use together::*;

fn with(access: Access) -> Options {
    Store::options().access(access)
}

fn copy_on_write(path: &Path) -> Store {
    with(Access::CopyOnWrite).open(path).unwrap()
}

/// Inserts keys, and removes some.
fn fill(store: &Store, keys: u32) {
    for key in 0..keys {
        store.insert(format!("key {key}"), format!("value {key}")).unwrap();
        if key % 5 == 4 {
            store.remove(format!("key {}", key - 2)).unwrap();
        }
    }
}

/// A closed store.
fn make(path: &Path, keys: u32) {
    let store = Store::open(path).unwrap();
    fill(&store, keys);
    store.close().unwrap();
}

/// All that a mode could change of a file: its bytes, its length, its allocated space, its times.
#[derive(PartialEq)]
struct FileState {
    bytes: Vec<u8>,
    blocks: u64,
    modified: SystemTime,
    /// When anything of it was changed, its permissions included.
    changed: (i64, i64),
}

fn state(path: &Path) -> FileState {
    let metadata = fs::metadata(path).unwrap();
    FileState {
        bytes: fs::read(path).unwrap(),
        blocks: metadata.blocks(),
        modified: metadata.modified().unwrap(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[track_caller]
fn assert_unchanged(path: &Path, before: &FileState, after: &str) {
    let now = state(path);
    let differs = now.bytes.iter().zip(&before.bytes).position(|(now, before)| now != before);
    assert_eq!(differs, None, "after {after}: the file has changed");
    assert_eq!(now.bytes.len(), before.bytes.len(), "after {after}: the length");
    assert!(now == *before, "after {after}: times or space of the file have changed");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((role, path)) = role() else { return };
    match role.as_str() {
        "look" => look(&path),
        "without rights" => without_rights(&path),
        "on a read-only mount" => on_a_read_only_mount(&path),
        "reads" => count_reads(&path),
        #[cfg(target_os = "linux")]
        "in another namespace" => in_another_namespace(&path),
        "write until killed" => write_until_killed(&path),
        "fork and live" => fork_and_live(&path),
        mode => {
            let store = Mode::named(mode).open(&path).unwrap();
            say("ready");
            until_stopped();
            drop(store);
        }
    }
}
