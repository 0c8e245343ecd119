//! Bad input and hard limits: a file that is not a store is refused with a specific error and not touched, damage is
//! reported with its place, and what does not fit is refused and harms nothing.
#![cfg(unix)]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::print_stderr)]

mod damage;
mod foreign;
mod full;
mod lengths;
#[cfg(target_os = "linux")]
mod membarrier;
mod paths;
mod read_only;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use slotlog::format::{BLOCK, CREATION_MAGIC, EXTENTS, LIVE, MAGIC, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, VERSION};
use slotlog::{Access, Durability, Error, FullReason, Opened, Store};
use support::{Player, assert_clean, content, folder, give_up_rights, is_root, overwrite, run_child, say};
use zerocopy::{FromBytes, IntoBytes};

/// A closed store with `keys` keys.
fn make(path: &Path, keys: u32) {
    let store = Store::open(path).unwrap();
    for key in 0..keys {
        store.insert(format!("key {key}"), format!("value {key}")).unwrap();
    }
    store.close().unwrap();
}

/// Opens a file that must be refused, and checks that not a byte of it has changed.
#[track_caller]
fn refused(path: &Path) -> Error {
    let before = fs::read(path).unwrap();
    let error = Store::open(path).expect_err("this file had to be refused");
    assert!(fs::read(path).unwrap() == before, "a refused file was changed: {error}");
    let read_only = Store::options().access(Access::ReadOnly).open(path).expect_err("and read-only too");
    assert_eq!(std::mem::discriminant(&read_only), std::mem::discriminant(&error), "{read_only} / {error}");
    error
}

fn superblock(path: &Path, at: u64) -> Superblock {
    Superblock::read_from_prefix(&fs::read(path).unwrap()[at as usize..]).unwrap().0
}

#[test]
#[ignore = "what other tests start in a process of its own"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match (role.as_str(), role.strip_prefix("limit ")) {
        (_, Some("below")) => full::beyond_the_limit(&path),
        (_, Some(limit)) => full::within_limit(&path, limit.parse().unwrap()),
        ("without rights", _) => paths::without_rights(&path),
        #[cfg(target_os = "linux")]
        ("without membarrier", _) => membarrier::without_membarrier(&path),
        (role, _) => panic!("nobody plays {role}"),
    }
}
