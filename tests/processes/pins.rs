//! Pins.

use super::*;

pub(super) fn hold_snapshots(path: &Path, count: usize) {
    let store = Store::open(path).unwrap();
    let snapshots: Vec<_> = (0..count).map(|_| store.snapshot().unwrap()).collect();
    say("holding");
    until_stopped();
    drop(snapshots);
}

/// Snapshots of `count` commits.
pub(super) fn snapshots_of_commits(store: &Store, count: usize) -> Vec<Snapshot> {
    let snapshot = |number: usize| {
        store.insert("number", number.to_le_bytes()).unwrap();
        store.snapshot().unwrap()
    };
    (0..count).map(snapshot).collect()
}

pub(super) fn hold_commits(path: &Path, count: usize) {
    let store = Store::open(path).unwrap();
    let snapshots = snapshots_of_commits(&store, count);
    say("holding");
    until_stopped();
    drop(snapshots);
}

#[test]
fn pins_of_the_dead_are_free_again() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let holders: Vec<_> = [900, 300].map(|count| Player::start("commits", count, &path)).into();
    holders.iter().for_each(|holder| assert_eq!(holder.next(), "holding"));
    let few = snapshots_of_commits(&store, 10);
    assert_eq!(store.stats().unwrap().pins, 1210);
    let grown = live_bytes(&store);
    assert!(grown > 0);
    store.insert("key", "newer").unwrap();
    for holder in holders {
        holder.kill();
    }
    // The pins of the dead are reused before the table grows further.
    let again = snapshots_of_commits(&store, 1000);
    assert_eq!((store.stats().unwrap().pins, live_bytes(&store)), (1010, grown));
    assert_eq!(again[999].get("key").unwrap().unwrap(), b"newer");
    assert_eq!(few[3].get("number").unwrap().unwrap(), 3_usize.to_le_bytes());
    assert_clean(&store);
    // All of them are dead: the next one begins with small tables.
    let last = Player::start("commits", 2000, &path);
    assert_eq!(last.next(), "holding");
    drop((few, again));
    drop(store);
    last.kill();
    let store = Store::open(&path).unwrap();
    assert_eq!((store.stats().unwrap().pins, live_bytes(&store)), (0, 0));
    assert_eq!(store.get("number").unwrap().unwrap(), 1999_usize.to_le_bytes());
    assert_clean(&store);
}

#[test]
fn space_does_not_wait_for_the_dead() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let retired = || store.stats().unwrap().extents.iter().find(|e| e.kind == "Retired").map_or(0, |e| e.count);
    let holder = Player::start("snapshots", 1, &path);
    assert_eq!(holder.next(), "holding");
    let mut keys = 0_u64..;
    let mut insert = |count: usize| keys.by_ref().take(count).for_each(|n| store.insert(n.to_le_bytes(), "").unwrap());
    insert(5000);
    assert!(retired() > 1);
    let oldest = store.stats().unwrap().oldest_pin.unwrap();
    assert_eq!(oldest.pid, Some(holder.child.id()), "and who it is shows");
    assert!(oldest.since.is_some() && oldest.behind >= 5000, "{oldest:?}");
    // Ours are not mistaken for a dead process's, although the kernel says that no other process holds our lock.
    let mine = store.snapshot().unwrap();
    holder.kill();
    insert(40_000);
    assert!(retired() > 1, "one of ours holds it now");
    assert_eq!(mine.iter().count(), 5001);
    drop(mine);
    insert(80_000);
    assert!(retired() <= 1);
}
