//! Commits that no store has sent: whole, with a CRC that holds. What cannot be is refused, and nothing of it is done.

use slotlog::format::{COMMIT_MAGIC, SentChange, SentCommit, sent};
use zerocopy::IntoBytes;

use super::*;

const TYPES: &str = "str -> [u8]";

/// A change: its kind, the number of the map, and what follows its head.
type Change<'c> = (u16, u32, &'c str, &'c str);

/// A commit after the one with the number before, as it is sent.
fn sent(seq: u64, changes: &[Change<'_>]) -> Vec<u8> {
    let head = SentCommit {
        magic: COMMIT_MAGIC,
        uuid: [7; 16],
        previous: (seq - 1).into(),
        seq: seq.into(),
        previous_crc: 0.into(),
        crc: 0.into(),
    };
    let change = |kind: u16, map: u32, key: &str, value: &str, crc: u32| {
        let (key_len, value_len) = ((key.len() as u16).into(), (value.len() as u32).into());
        let (kind, map, version_or_crc) = (kind.into(), map.into(), crc.into());
        SentChange { kind, key_len, value_len, map, version_or_crc, deadline: 0.into() }
    };
    let mut bytes = head.as_bytes().to_vec();
    for &(kind, map, key, value) in changes {
        bytes.extend_from_slice(change(kind, map, key, value, 0).as_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(&change(sent::END, 0, "", "", 0).as_bytes()[..std::mem::offset_of!(SentChange, version_or_crc)]);
    bytes.extend_from_slice(change(sent::END, 0, "", "", hasher.finalize()).as_bytes());
    bytes
}

/// Changes that cannot be are refused, and after that the store is as it was, and goes on.
#[track_caller]
fn assert_refused(changes: &[Change<'_>]) {
    let follower = Store::in_memory().unwrap();
    let begin = [(sent::PUT, 1, "key", "value"), (sent::CREATE, 2, "two", TYPES)];
    follower.apply_from(&sent(1, &begin)[..]).unwrap();
    let before = everything_in(&follower);
    let error = follower.apply_from(&sent(2, changes)[..]).unwrap_err();
    assert!(matches!(error, Error::DamagedChanges { .. } | Error::NoSuchMap { .. }), "{changes:?}: {error}");
    assert_eq!(everything_in(&follower), before, "{changes:?}");
    assert_clean(&follower);
    follower.apply_from(&sent(2, &[(sent::CREATE, 3, "three", TYPES)])[..]).unwrap();
    assert_clean(&follower);
}

#[test]
fn a_number_that_no_map_can_have_is_refused() {
    for map in [0, 3, (1 << 24) - 1, 1 << 24, (1 << 24) + 2, 1 << 31, u32::MAX] {
        for kind in sent::PUT..=sent::PUT_UNTIL + 1 {
            if (kind, map) != (sent::CREATE, 3) {
                assert_refused(&[(kind, map, "name", "two")]);
            }
        }
    }
}

#[test]
fn a_map_is_cleared_before_its_other_changes_or_not_at_all() {
    assert_refused(&[(sent::PUT, 2, "key", "value"), (sent::CLEAR, 2, "", "")]);
    assert_refused(&[(sent::CLEAR, 2, "", ""), (sent::PUT, 2, "key", "value")]);
    assert_refused(&[(sent::DROP, 2, "two", ""), (sent::REMOVE, 2, "key", "")]);
    assert_refused(&[(sent::REMOVE, 1, "key", ""), (sent::CLEAR, 1, "", "")]);
}

/// Any changes of several maps: what is applied can be followed in turn, and comes out the same.
#[test]
fn whatever_is_applied_can_be_followed() {
    let mut applied = 0;
    for seed in 0..support::setting("SLOTLOG_FEED_SEEDS", 12) {
        let mut random = Random(seed);
        let first = Store::options().tiny_steps().in_memory().unwrap();
        first.set_bookmark("second", 0, u64::MAX).unwrap();
        let second = Store::in_memory().unwrap();
        let mut feed = first.changes(0).unwrap();
        let (mut seq, mut next) = (0, 2);
        for _ in 0..100 {
            let mut created = 0;
            let mut changes: Vec<Change<'_>> = Vec::new();
            for _ in 0..=random.below(3) {
                let [name, other] = [(); 2].map(|()| NAMES[1 + random.below(4) as usize]);
                let map = 1 + random.below(next) as u32;
                changes.push(match random.below(7) {
                    0 => {
                        created += 1;
                        (sent::CREATE, (next + created - 1) as u32, name, TYPES)
                    }
                    1 => (sent::CLEAR, map, "", ""),
                    2 => (sent::DROP, map, name, ""),
                    3 => (sent::RENAME, map, name, other),
                    4 => (sent::REMOVE, map, name, ""),
                    _ => (sent::PUT, map, name, other),
                });
            }
            let before = everything_in(&first);
            if first.apply_from(&sent(seq + 1, &changes)[..]).is_ok() {
                (seq, next) = (seq + 1, next + created);
            } else {
                assert_eq!(everything_in(&first), before, "seed {seed}: {changes:?}");
            }
            catch_up(&mut feed, &second).unwrap();
            assert_eq!(everything_in(&second), everything_in(&first), "seed {seed}: {changes:?}");
        }
        assert_clean(&first);
        applied += seq;
    }
    assert!(applied > 100, "{applied}");
}
