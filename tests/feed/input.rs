//! Changes that do not fit, and changes that were damaged on their way: an error, and nothing is applied.

use slotlog::Seq;

use super::*;

/// A leader with some history, and its commits as they are sent.
fn leader(seed: u64) -> (Store, Vec<Vec<u8>>) {
    let store = Store::options().auto_compact(None).in_memory().unwrap();
    let mut random = Random(seed);
    for _ in 0..200 {
        change(&store, &mut random);
    }
    let mut feed = store.changes(0).unwrap();
    let mut sent = Vec::new();
    while let Some(commit) = feed.next_commit().unwrap() {
        let mut bytes = Vec::new();
        commit.write_to(&mut bytes).unwrap();
        sent.push(bytes);
    }
    (store, sent)
}

fn apply(follower: &Store, bytes: &[u8]) -> slotlog::Result<Option<Seq>> {
    follower.apply_from(bytes)
}

#[test]
fn a_gap_is_refused_and_what_was_applied_is_passed() {
    let (store, sent) = leader(1);
    let follower = Store::in_memory().unwrap();
    for (number, bytes) in sent.iter().enumerate() {
        if let Some(later) = sent.get(number + 1) {
            let before = everything_in(&follower);
            let error = apply(&follower, later).unwrap_err();
            assert!(matches!(error, Error::CannotFollow { .. }), "{error}");
            assert_eq!(everything_in(&follower), before);
        }
        apply(&follower, bytes).unwrap();
        for earlier in [number / 2, number] {
            let before = everything_in(&follower);
            apply(&follower, &sent[earlier]).unwrap();
            assert_eq!(everything_in(&follower), before, "it was applied before");
        }
    }
    assert_eq!(everything_in(&follower), everything_in(&store));
}

#[test]
fn changes_of_another_store_are_refused() {
    let (_, sent) = leader(1);
    let (_, others) = leader(2);
    let follower = Store::in_memory().unwrap();
    apply(&follower, &sent[0]).unwrap();
    let error = apply(&follower, &others[1]).unwrap_err();
    assert!(matches!(&error, Error::CannotFollow { origin: Some(_), .. }), "{error}");
    // A store with content of its own is no copy.
    let own = Store::in_memory().unwrap();
    own.insert("key", "value").unwrap();
    let error = apply(&own, &sent[0]).unwrap_err();
    assert!(matches!(&error, Error::CannotFollow { origin: None, .. }), "{error}");
    assert!(error.to_string().contains("begin again with a backup"), "{error}");
    let reader_only = Store::in_memory().unwrap();
    let mut feed = own.changes(0).unwrap();
    let commit = feed.next_commit().unwrap().unwrap();
    assert!(commit.apply(&reader_only).unwrap());
    // Nor is a store a copy of itself.
    assert!(matches!(commit.apply(&own), Err(Error::CannotFollow { .. })));
}

#[test]
fn what_is_cut_off_or_damaged_is_not_applied() {
    let (_, sent) = leader(3);
    let follower = Store::in_memory().unwrap();
    let mut random = Random(3);
    for bytes in &sent {
        let before = everything_in(&follower);
        let cut = random.below(bytes.len() as u64 - 1) as usize + 1;
        let error = apply(&follower, &bytes[..cut]).unwrap_err();
        assert!(matches!(error, Error::DamagedChanges { .. }), "{error}");
        for _ in 0..10 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
            if let Ok(applied) = apply(&follower, &damaged) {
                panic!("byte {at} of {}: {applied:?}", bytes.len());
            }
            assert_eq!(everything_in(&follower), before);
        }
        apply(&follower, bytes).unwrap();
    }
    assert_eq!(apply(&follower, &[]).unwrap(), None);
    let error = apply(&follower, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n and so on").unwrap_err();
    assert!(matches!(error, Error::DamagedChanges { .. }), "{error}");
}

/// A deadline comes over as it is, the latest one as well.
#[test]
fn deadlines_are_sent_as_they_are() {
    let (store, follower) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    // Not every system has times as late as these.
    for (key, milliseconds) in [("next", u64::MAX - 1), ("last", u64::MAX)] {
        let Some(at) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)) else { continue };
        store.insert_with_expiry(key, "value", at).unwrap();
    }
    store.insert("key", "value").unwrap();
    let mut feed = store.changes(0).unwrap();
    while let Some(commit) = feed.next_commit().unwrap() {
        let mut sent = Vec::new();
        commit.write_to(&mut sent).unwrap();
        apply(&follower, &sent).unwrap();
    }
    assert_eq!(everything_in(&follower), everything_in(&store));
}

/// A length that is announced takes no memory before the bytes are there.
#[test]
fn hostile_lengths_take_no_memory() {
    let (_, sent) = leader(4);
    let mut bytes = sent[0].clone();
    // The length of the value of the first change.
    bytes[48 + 4..48 + 8].fill(0xff);
    let error = apply(&Store::in_memory().unwrap(), &bytes).unwrap_err();
    assert!(matches!(error, Error::DamagedChanges { .. }), "{error}");
}

#[test]
fn increments_that_do_not_fit_are_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = Store::open(at("store")).unwrap();
    store.insert("key", "1").unwrap();
    store.backup(at("whole")).unwrap();
    let first = store.seq().unwrap();
    store.insert("key", "2").unwrap();
    let second = store.backup_since(first, at("second")).unwrap().seq;
    store.insert("key", "3").unwrap();
    store.backup_since(second, at("third")).unwrap();

    std::fs::copy(at("whole"), at("behind")).unwrap();
    let copy = Store::open(at("whole")).unwrap();
    let error = copy.apply_increment(at("third")).unwrap_err();
    assert!(matches!(error, Error::CannotFollow { .. }), "{error}");
    let error = copy.apply_increment(at("missing")).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let error = store.apply_increment(at("second")).unwrap_err();
    assert!(matches!(error, Error::CannotFollow { .. }), "{error}");
    store.backup(at("another")).unwrap();
    let error = copy.apply_increment(at("another")).unwrap_err();
    assert!(matches!(error, Error::InvalidOptions { .. }), "{error}");
    assert_eq!(copy.get("key").unwrap().unwrap(), b"1");
    assert_eq!(copy.apply_increment(at("second")).unwrap(), 1);
    assert_eq!(copy.apply_increment(at("third")).unwrap(), 1);
    assert_eq!(copy.get("key").unwrap().unwrap(), b"3");

    // One without any commits, too, fits only where it follows.
    let last = store.seq().unwrap();
    store.backup_since(last, at("empty")).unwrap();
    assert_eq!(copy.apply_increment(at("empty")).unwrap(), 0);
    for wrong in [Store::open(at("behind")).unwrap(), Store::in_memory().unwrap()] {
        let error = wrong.apply_increment(at("empty")).unwrap_err();
        assert!(matches!(error, Error::CannotFollow { .. }), "{error}");
    }

    // A number that was never there, and one that is gone.
    for seq in [u64::from(store.seq().unwrap()) + 1, u64::MAX] {
        let error = store.backup_since(seq, at("new")).unwrap_err();
        assert!(matches!(error, Error::HistoryTruncated { .. }), "{error}");
    }
    for number in 0..20_000 {
        store.insert("key", format!("{number}")).unwrap();
    }
    store.compact().unwrap();
    let error = store.backup_since(first, at("new")).unwrap_err();
    assert!(matches!(error, Error::HistoryTruncated { .. }), "{error}");
    assert!(!at("new").exists() && !at("new.unfinished").exists());
    // Damage is found before anything of that commit is applied.
    let seq = store.seq().unwrap();
    store.insert("key", "last").unwrap();
    store.backup_since(seq, at("last")).unwrap();
    let bytes = std::fs::read(at("last")).unwrap();
    let place = bytes.windows(4).position(|four| four == b"last").unwrap();
    support::overwrite(&at("last"), place as u64, b"lost");
    let copy = Store::open(at("another")).unwrap();
    assert!(copy.apply_increment(at("last")).is_err());
}
