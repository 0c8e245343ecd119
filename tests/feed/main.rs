//! The change feed of the whole store, and stores that follow it.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use slotlog::{BackupOptions, Error, Feed, FeedChangeKind, Seq, Store};
use support::{Everything, Random, assert_clean, everything_in, folder};

#[path = "../support/mod.rs"]
mod support;

mod bookmarks;
mod bytes;
mod follow;
mod hostile;
mod input;
mod kills;
mod parted;
mod told;

#[test]
#[ignore = "plays a role for another test"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    match role.as_str() {
        "leader" => kills::lead(&path, support::argument().parse().unwrap()),
        "follower" => kills::follow(&path),
        other => panic!("unknown role {other}"),
    }
}

const NAMES: [&str; 5] = ["", "one", "two", "three", "four"];

/// A random change of a store with a few maps and keys, as users make them.
fn change(store: &Store, random: &mut Random) {
    let name = NAMES[random.below(5) as usize];
    let (key, value) = (format!("key {}", random.below(40)), vec![random.next() as u8; random.below(200) as usize]);
    let until = match random.below(8) {
        // It has expired, and is removed when the log is cleaned.
        0 => Some(SystemTime::now() - Duration::from_secs(1)),
        1 => Some(SystemTime::UNIX_EPOCH + Duration::from_millis(9_000_000_000_000 + random.below(1000))),
        _ => None,
    };
    match random.below(60) {
        0 => drop(store.drop_map(name).unwrap()),
        1 if !name.is_empty() => drop(store.rename_map(name, NAMES[1 + random.below(4) as usize]).unwrap()),
        2 if name.is_empty() => store.clear().unwrap(),
        2 => store.map::<str, [u8]>(name).unwrap().clear().unwrap(),
        3..12 => {
            let one = store.map::<str, [u8]>("one").unwrap();
            let mut transaction = store.begin().unwrap();
            for number in 0..random.below(12) {
                let key = format!("key {number}");
                match random.below(3) {
                    0 => transaction.insert(&key, &value).unwrap(),
                    1 => drop(transaction.remove(&key).unwrap()),
                    _ => transaction.of(&one).insert(&key, &value).unwrap(),
                }
            }
            if random.one_in(5) { transaction.rollback() } else { transaction.commit().unwrap() }
        }
        12..20 if name.is_empty() => drop(store.remove(&key).unwrap()),
        12..20 => drop(store.map::<str, [u8]>(name).unwrap().remove(&*key).unwrap()),
        _ => match (name, until) {
            ("", None) => store.insert(&key, &value).unwrap(),
            ("", Some(until)) => store.insert_with_expiry(&key, &value, until).unwrap(),
            (_, None) => store.map::<str, [u8]>(name).unwrap().insert(&*key, &*value).unwrap(),
            (_, Some(until)) => {
                store.map::<str, [u8]>(name).unwrap().insert_with_expiry(&*key, &*value, until).unwrap();
            }
        },
    }
}

/// The same, with some upkeep now and then.
fn change_and_keep_up(store: &Store, random: &mut Random) {
    match random.below(60) {
        0 => drop(store.maintain(Duration::from_millis(2)).unwrap()),
        1 if random.one_in(4) => drop(store.compact().unwrap()),
        _ => change(store, random),
    }
}

/// The number of the commit that a store is a copy of.
fn seen_by(follower: &Store) -> Seq {
    follower.origin().unwrap().map_or(Seq::ZERO, |origin| origin.seq)
}

/// Takes over everything that is new, and returns how many commits that were.
fn catch_up(feed: &mut Feed, follower: &Store) -> slotlog::Result<u64> {
    let mut applied = 0;
    while let Some(commit) = feed.next_commit()? {
        assert!(commit.apply(follower)?, "it is new");
        assert!(!commit.apply(follower)?, "and then it is not");
        applied += 1;
    }
    Ok(applied)
}
