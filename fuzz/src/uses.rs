//! What can be done with a store: instructions of four bytes.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use slotlog::{Access, Error, Result, Store};

use crate::image::key;

/// Whether what was used may hold entries that have expired.
#[derive(Default)]
pub struct Used {
    pub expiring: bool,
}

/// Does what an instruction says. Says whether the store is to be opened again, and how.
pub fn apply(store: &Store, used: &mut Used, [what, a, b, c]: [u8; 4]) -> Result<Option<Access>> {
    let value = |fill: u8| vec![fill; usize::from(b) << (c % 9)];
    match what % 24 {
        0 => drop(black_box(store.get(key(a))?)),
        1 | 2 => store.insert(key(a), value(3))?,
        3 => {
            for number in 0..a {
                store.insert([number, b], "filled")?;
            }
        }
        4 => drop(store.remove(key(a))?),
        5 => store.clear()?,
        6 => {
            let mut transaction = store.begin()?;
            for number in (0..b % 32).map(|number| a.wrapping_add(number)) {
                transaction.insert(key(number), "by a transaction")?;
                transaction.remove(key(number.wrapping_add(3)))?;
                black_box(transaction.get(key(number))?);
            }
            if c & 1 == 0 {
                transaction.commit()?;
            }
        }
        7 => {
            for entry in &store.snapshot()? {
                let (key, value) = entry?;
                touch(key);
                touch(value);
            }
        }
        8 => {
            let keys: Vec<Vec<u8>> = (0..60).map(key).collect();
            store.snapshot()?.get_many(&keys)?.into_iter().flatten().for_each(touch);
        }
        9 => {
            let snapshot = store.snapshot()?;
            store.insert(key(a), "after the snapshot")?;
            snapshot.get(key(a))?.into_iter().for_each(touch);
        }
        10 => {
            let map = store.map::<u8, [u8]>("map")?;
            map.update(a, |value| Some(value.into_iter().flatten().chain([b]).collect()))?;
            map.entry(b).and_modify(|value| value.push(a)).or_default()?;
            map.get_ref(a)?.iter().for_each(|value| touch(value));
            black_box((map.pop()?, map.len()?));
        }
        11 => {
            let map = store.map::<u8, [u8]>("map")?;
            for entry in map.iter()? {
                let (key, value) = entry?;
                black_box(key);
                touch(&value);
            }
            black_box((map.expiry(a)?, map.get(b)?));
        }
        12 => {
            used.expiring = true;
            let at = if c & 1 == 0 { SystemTime::UNIX_EPOCH } else { SystemTime::now() + Duration::from_secs(3600) };
            store.insert_with_expiry(key(a), value(5), at)?;
            store.map::<u8, [u8]>("map")?.insert_with_expiry(b, [a], at)?;
        }
        13 => {
            let map = store.map::<u8, [u8]>("map")?;
            let mut transaction = store.begin()?;
            transaction.of(&map).insert(a, value(6))?;
            transaction.insert(key(b), "with a map")?;
            transaction.of(&map).remove(b)?;
            transaction.commit()?;
        }
        14 => drop(black_box(store.drop_map(["map", "other", "new"][usize::from(a % 3)])?)),
        15 => drop(black_box(store.rename_map(["map", "other"][usize::from(a % 2)], "other")?)),
        16 => store.map::<u8, [u8]>(["new", "map"][usize::from(a % 2)])?.insert(b, value(7))?,
        17 => {
            let found = (store.stats()?, store.probe_lengths()?, store.len()?, store.maps()?);
            black_box((found, store.contains_key(key(a))?, store.seq()?));
        }
        18 => store.sync()?,
        19 => store.checkpoint()?,
        20 => {
            let mut left = a;
            store.compact_with(|_| {
                left = left.saturating_sub(1);
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        21 => drop(black_box(store.maintain(Duration::from_millis(1))?)),
        22 => return Ok(Some(Access::ReadWrite)),
        _ => return Ok(Some([Access::ReadOnly, Access::CopyOnWrite][usize::from(a % 2)])),
    }
    Ok(None)
}

/// Reads all of it.
pub fn touch(bytes: &[u8]) {
    black_box(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
}

/// Whether the store is called clean. Then it has to be readable, and to be as much as is counted.
pub fn verify(store: &Store, expiring: bool) -> bool {
    if !store.verify().is_ok_and(|report| report.is_clean()) {
        return false;
    }
    let snapshot = store.snapshot().unwrap();
    let mut count = 0;
    for entry in &snapshot {
        let (key, value) = entry.unwrap();
        assert!(expiring || snapshot.get(key).unwrap() == Some(value), "the value of {key:?}");
        count += 1;
    }
    assert!(count == snapshot.len() || expiring && count < snapshot.len(), "{count} keys of {}", snapshot.len());
    true
}

/// A store that was clean may refuse to do something, but not since it was damaged.
pub fn not_damaged(error: &Error) {
    assert!(!matches!(error, Error::Corrupt { .. }), "verify found nothing, and then: {error}");
}
