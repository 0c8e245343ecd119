//! Addresses: a store takes as many as it needs, and reports when it gets no more.
#![cfg(target_os = "linux")]
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::fs;
use std::path::Path;

use slotlog::{Access, Error, FullReason, Store};
use support::{assert_clean, folder, run_child, say};

const MIB: u64 = 1 << 20;

/// A figure of this process from the system, in bytes: `VmSize` counts its addresses, `VmRSS` those in memory.
fn of_this_process(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Limits this process to `more` addresses more than it has.
fn limit_addresses(more: u64) {
    let limit = of_this_process("VmSize") + more;
    let rlimit = libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `setrlimit` reads the struct that it is given.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &rlimit) }, 0);
}

fn has_room_for(bytes: u64) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes as usize).is_ok()
}

#[test]
fn a_thousand_stores_in_memory_leave_room_for_the_program() {
    let folder = folder();
    let said = run_child("a thousand stores", folder.path());
    assert_eq!(said, ["all there", "room for more"]);
    let said = run_child("a thousand stores within a limit", folder.path());
    assert_eq!(said, ["all there", "room for more"]);
}

fn a_thousand_stores() {
    let before = of_this_process("VmSize");
    let stores: Vec<Store> = (0..1000).map(|_| Store::in_memory().unwrap()).collect();
    for (number, store) in stores.iter().enumerate() {
        store.insert("number", number.to_le_bytes()).unwrap();
    }
    let taken = of_this_process("VmSize") - before;
    assert!(taken < 512 * MIB, "{} MiB of addresses", taken / MIB);
    // Any of them can be large.
    for (number, store) in stores.iter().enumerate().step_by(499) {
        for key in 0..4u8 {
            store.insert([key], vec![key; 4 << 20]).unwrap();
        }
        assert_eq!(store.get("number").unwrap().unwrap(), number.to_le_bytes());
    }
    say("all there");
    say(if has_room_for(512 * MIB) { "room for more" } else { "no room" });
}

/// What a snapshot has borrowed keeps its address while its store grows.
#[test]
fn a_store_in_memory_grows_around_what_is_borrowed() {
    let store = Store::in_memory().unwrap();
    store.insert("first", "value").unwrap();
    let snapshot = store.snapshot().unwrap();
    let value = snapshot.get("first").unwrap().unwrap();
    let before = value.as_ptr();
    for key in 0..64u64 {
        store.insert(key.to_le_bytes(), vec![7; 1 << 20]).unwrap();
    }
    assert_eq!(value, b"value");
    assert_eq!(snapshot.get("first").unwrap().unwrap().as_ptr(), before);
}

/// Memory that is locked as soon as it is mapped takes real memory at once.
#[test]
fn a_small_store_takes_little_of_what_is_locked_in_memory() {
    let folder = folder();
    let said = run_child("locked in memory", folder.path());
    if said == ["refused"] {
        eprintln!("skipped: this process may not lock memory");
        return;
    }
    assert_eq!(said, ["little", "as much as there is"]);
}

fn locked_in_memory(path: &Path) {
    let closed = path.join("closed");
    Store::open(&closed).unwrap().insert("key", "value").unwrap();
    // SAFETY: takes an integer.
    if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
        say("refused");
        return;
    }
    let before = of_this_process("VmRSS");
    let in_memory = Store::in_memory().unwrap();
    let copy = Store::options().access(Access::CopyOnWrite).open(&closed).unwrap();
    let file = Store::open(path.join("another")).unwrap();
    for store in [&in_memory, &copy, &file] {
        store.insert("another", "value").unwrap();
    }
    let taken = of_this_process("VmRSS") - before;
    assert!(taken < 8 * MIB, "three small stores take {taken} bytes of memory");
    say("little");
    in_memory.insert("large", vec![1; 16 << 20]).unwrap();
    let taken = of_this_process("VmRSS") - before;
    assert!((16 * MIB..64 * MIB).contains(&taken), "{taken} bytes of memory for a value of 16 MiB");
    say("as much as there is");
}

/// Fills a store up, and returns how many values of 64 KiB that takes.
#[track_caller]
fn fill_up(store: &Store) -> u64 {
    for key in 0u64.. {
        match store.insert(key.to_le_bytes(), [key as u8; 64 << 10]) {
            Ok(()) => {}
            Err(error @ Error::Full { why: FullReason::AddressLimit(_), .. }) => {
                assert!(error.to_string().contains("ulimit -v"), "{error}");
                return key;
            }
            Err(error) => panic!("after {key} values: {}", error.report()),
        }
    }
    unreachable!()
}

/// A store whose process gets no more addresses is full like any other.
#[track_caller]
fn check_full(store: &Store, keys: u64) {
    assert_eq!(store.len().unwrap(), keys);
    for key in 0..keys {
        assert_eq!(store.get(key.to_le_bytes()).unwrap().unwrap(), [key as u8; 64 << 10]);
    }
    assert_clean(store);
}

#[test]
fn a_limit_on_addresses_is_a_full_store_and_names_itself() {
    let folder = folder();
    for role in ["file within a limit", "memory within a limit", "copy within a limit"] {
        let path = folder.path().join(role);
        assert_eq!(run_child(role, &path), ["full of itself", "made room"], "{role}");
    }
}

const ALLOWED: u64 = 256 * MIB;

fn within_a_limit(store: Store) -> Store {
    let keys = fill_up(&store);
    let len = store.stats().unwrap().file_len;
    // The program itself needs some meanwhile.
    assert!(len > ALLOWED * 7 / 8 - 16 * MIB, "full at {} MiB of {}", len / MIB, ALLOWED / MIB);
    check_full(&store, keys);
    say("full of itself");
    for key in 0..keys / 2 {
        assert!(store.remove(key.to_le_bytes()).unwrap());
    }
    store.compact().unwrap();
    for key in 0..keys / 4 {
        store.insert(key.to_le_bytes(), [1; 64 << 10]).unwrap();
    }
    say("made room");
    store
}

fn file_within_a_limit(path: &Path) {
    limit_addresses(ALLOWED);
    within_a_limit(Store::open(path).unwrap()).close().unwrap();
    let store = Store::open(path).unwrap();
    let keys = store.len().unwrap();
    let (mut more, mut key) = (0, 1 << 40);
    // Opened again, it takes as much as before.
    while store.insert(u64::to_le_bytes(key), [0; 64 << 10]).is_ok() {
        (more, key) = (more + 1, key + 1);
    }
    assert!(keys + more > ALLOWED / (64 << 10) * 3 / 4, "{keys} values and {more} more");
}

fn memory_within_a_limit() {
    limit_addresses(ALLOWED);
    within_a_limit(Store::in_memory().unwrap());
}

fn copy_within_a_limit(path: &Path) {
    drop(Store::open(path).unwrap());
    limit_addresses(ALLOWED);
    within_a_limit(Store::options().access(Access::CopyOnWrite).open(path).unwrap());
}

/// A file that takes nearly all addresses is opened, and the error about what does not fit gives the reason.
#[test]
fn a_file_is_opened_with_the_addresses_that_it_needs() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for key in 0..200u64 {
        store.insert(key.to_le_bytes(), vec![key as u8; 1 << 20]).unwrap();
    }
    store.close().unwrap();
    assert_eq!(run_child("reopen", &path), ["opened", "opened", "opened", "named"]);
}

fn reopen(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    for access in [Access::ReadWrite, Access::ReadOnly, Access::CopyOnWrite] {
        limit_addresses(len + 16 * MIB);
        let store = Store::options().access(access).open(path).unwrap();
        assert!(store.len().unwrap() >= 200);
        for key in 0..200u64 {
            assert_eq!(store.get(key.to_le_bytes()).unwrap().unwrap()[0], key as u8);
        }
        if access != Access::ReadOnly {
            store.insert("more", "value").unwrap();
        }
        say("opened");
    }
    limit_addresses(len / 2);
    let error = Store::open(path).unwrap_err();
    assert!(error.report().contains("ulimit -v"), "{}", error.report());
    say("named");
}

/// Plays a part in a process of its own.
#[test]
#[ignore = "what a process of its own does, started by other tests"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match role.as_str() {
        "a thousand stores" => a_thousand_stores(),
        "a thousand stores within a limit" => {
            limit_addresses(2048 * MIB);
            a_thousand_stores();
        }
        "locked in memory" => locked_in_memory(&path),
        "file within a limit" => file_within_a_limit(&path),
        "memory within a limit" => memory_within_a_limit(),
        "copy within a limit" => copy_within_a_limit(&path),
        "reopen" => reopen(&path),
        _ => panic!("{role}"),
    }
}
