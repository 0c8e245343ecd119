//! Forged files with valid checksums: the guarantees for them without and with `Options::untrusted`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use slotlog::format::{RecordHeader, SUPERBLOCK_A, SUPERBLOCK_B, Superblock};
use slotlog::{Access, Error, HeldBy, Opened, Store};
use zerocopy::{FromBytes, IntoBytes};

mod support;

use support::{assert_clean, folder};

/// A closed store whose superblock ends the log before the record of the key "victim", which the index points at. The
/// next record that is appended overwrites it.
fn make_up(path: &Path) {
    let store = Store::open(path).unwrap();
    store.insert("first", "value").unwrap();
    store.insert("victim", "what is borrowed").unwrap();
    store.close().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let at = [SUPERBLOCK_A, SUPERBLOCK_B]
        .into_iter()
        .max_by_key(|&at| Superblock::read_from_prefix(&bytes[at as usize..]).unwrap().0.generation.get())
        .unwrap() as usize;
    let mut superblock = Superblock::read_from_prefix(&bytes[at..]).unwrap().0;
    let first = superblock.log_head.get() as usize;
    let header = RecordHeader::read_from_prefix(&bytes[first..]).unwrap().0;
    superblock.log_end = (first as u64 + header.record_len()).into();
    superblock.end_chain = header.crc;
    bytes[at..at + 512].copy_from_slice(superblock.sealed().as_bytes());
    fs::write(path, bytes).unwrap();
}

/// Only a walk along the whole log would show the lie of the superblock. This is what the trust boundary is about.
#[test]
fn a_made_up_end_of_the_log_is_believed_without_the_option() {
    let folder = folder();
    let path = folder.path().join("store");
    make_up(&path);
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let store = Store::open(&copy).unwrap();
    assert_eq!(store.opened(), Opened::Clean);
    let before = store.get("victim").unwrap();
    assert_eq!(before.as_deref(), Some(&b"what is borrowed"[..]));
    store.insert("a key", "what is written over").unwrap();
    assert_ne!(store.get("victim").ok(), Some(before), "what a reader may have borrowed has changed");
}

#[test]
fn with_the_option_the_content_comes_from_the_log_only() {
    let folder = folder();
    let path = folder.path().join("store");
    make_up(&path);
    let bytes = fs::read(&path).unwrap();
    for access in [Access::ReadOnly, Access::CopyOnWrite, Access::ReadWrite] {
        let store = Store::options().access(access).untrusted(true).open(&path).unwrap();
        assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }), "{access:?}: {:?}", store.opened());
        let snapshot = store.snapshot().unwrap();
        let borrowed = snapshot.get("victim").unwrap().unwrap();
        assert_eq!(borrowed, b"what is borrowed");
        if access != Access::ReadOnly {
            for number in 0..100 {
                store.insert(format!("key {number}"), "what is written").unwrap();
            }
        }
        assert_eq!(borrowed, b"what is borrowed", "{access:?}");
        assert_clean(&store);
        drop(snapshot);
        drop(store);
        assert_eq!(fs::read(&path).unwrap() == bytes, access != Access::ReadWrite, "{access:?}");
    }
}

#[test]
fn it_is_refused_beside_those_who_write_or_have_a_private_copy() {
    let folder = folder();
    let path = folder.path().join("store");
    let untrusted = |access| Store::options().access(access).untrusted(true).open(&path);
    let writer = Store::open(&path).unwrap();
    writer.insert("key", "value").unwrap();
    for access in [Access::ReadOnly, Access::CopyOnWrite, Access::ReadWrite] {
        let refused = untrusted(access).unwrap_err();
        assert!(matches!(refused, Error::Locked { by: HeldBy::Writer { .. }, .. }), "{access:?}: {refused}");
    }
    drop(writer);
    let reader = untrusted(Access::ReadOnly).unwrap();
    let refused = untrusted(Access::ReadWrite).unwrap_err();
    assert!(matches!(refused, Error::Locked { by: HeldBy::Private, .. }), "{refused}");
    drop(reader);
    assert_eq!(untrusted(Access::ReadWrite).unwrap().get("key").unwrap().as_deref(), Some(&b"value"[..]));
}
