//! A typed map beside std's: the time of an operation on a `Map<u64, u64>`, as a multiple of that on a `HashMap<u64,
//! u64>` inside a mutex, which is how threads would share one.
//!
//! There are `SLOTLOG_BENCH_KEYS` keys, a million by default. Both are measured in turn, chunk by chunk; medians over
//! the chunks are printed.
//!
//! And the cost of many maps: creating them, a transaction over all of them, compaction and recovery. It is printed per
//! map, and as a multiple of that with the fewest maps: about 1, if it is linear.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use slotlog::{Map, Store};

/// How many chunks each operation is measured in.
const CHUNKS: usize = 21;
/// Keys that are looked up at once.
const MANY: usize = 32;

/// Numbers in a scrambled order (SplitMix64's finaliser: Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Measures both in turn on the same keys, and prints nanoseconds per key.
fn compare(name: &str, keys: &[u64], mut ours: impl FnMut(&[u64]), mut std: impl FnMut(&[u64])) {
    let chunks: Vec<&[u64]> = keys.chunks(keys.len().div_ceil(CHUNKS).max(1)).collect();
    let (mut of_ours, mut of_std) = (Vec::new(), Vec::new());
    for chunk in chunks {
        for (times, run) in [(&mut of_ours, &mut ours as &mut dyn FnMut(&[u64])), (&mut of_std, &mut std)] {
            let start = Instant::now();
            run(chunk);
            times.push(start.elapsed().as_nanos() as f64 / chunk.len() as f64);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (ours, std) = (median(of_ours), median(of_std));
    println!("{name:24} {ours:8.0} {std:12.0} {:10.2}", ours / std);
}

/// The number of maps in each row, with a million keys for the rest.
const MAPS: [u64; 3] = [5_000, 10_000, 20_000];

/// Times of one row of maps: names of the steps, and microseconds per map.
fn many_maps(maps: u64) -> [(&'static str, f64); 5] {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("maps.slotlog"), folder.path().join("copy.slotlog"));
    let time = |step: &mut dyn FnMut()| {
        let start = Instant::now();
        step();
        start.elapsed().as_secs_f64() * 1e6 / maps as f64
    };
    let store = Store::open(&path).unwrap();
    let mut made: Vec<Map<u64, u64>> = Vec::new();
    let create = time(&mut || made.extend((0..maps).map(|number| store.map(&format!("map {number}")).unwrap())));
    let transaction = |key_of: fn(u64) -> u64| {
        let mut transaction = store.begin().unwrap();
        for (map, number) in made.iter().zip(0..) {
            transaction.of(map).insert(key_of(number), number).unwrap();
        }
        transaction.commit().unwrap();
    };
    let same_key = time(&mut || transaction(|_| 7));
    let other_keys = time(&mut || transaction(|number| number));
    store.sync().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    let recover = time(&mut || {
        let recovered = Store::open(&copy).unwrap();
        assert!(matches!(recovered.opened(), slotlog::Opened::AfterPowerCut { .. }));
        assert_eq!(recovered.maps().unwrap().len() as u64, maps);
    });
    let compact = time(&mut || assert!(store.compact().is_ok()));
    [
        ("create", create),
        ("transaction, one key", same_key),
        ("transaction, other keys", other_keys),
        ("recover", recover),
        ("compact", compact),
    ]
}

/// Prints how the cost of many maps grows with their number.
fn print_many_maps(count: u64) {
    let rows = MAPS.map(|maps| (maps * count / 1_000_000).max(10));
    println!("\n{rows:?} maps; microseconds per map, and as a multiple of the first\n");
    let measured = rows.map(many_maps);
    for (step, &(name, least)) in measured[0].iter().enumerate() {
        print!("{name:24}");
        measured.iter().for_each(|row| print!(" {:8.2} ({:.2})", row[step].1, row[step].1 / least));
        println!();
    }
}

fn main() {
    let count = std::env::var("SLOTLOG_BENCH_KEYS").map_or(1_000_000, |keys| keys.parse().unwrap());
    let keys: Vec<u64> = (0..count).map(mix).collect();
    let mut shuffled = keys.clone();
    shuffled.sort_unstable();
    let absent: Vec<u64> = (count..2 * count).map(mix).collect();

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("maps.slotlog")).unwrap();
    let map: Map<u64, u64> = store.map("map").unwrap();
    let std: Mutex<HashMap<u64, u64>> = Mutex::default();

    println!("{count} keys; nanoseconds per operation, medians of {CHUNKS} chunks\n");
    println!("{:24} {:>8} {:>12} {:>10}", "operation", "slotlog", "std HashMap", "ratio");
    let each = |keys: &[u64], f: &dyn Fn(u64)| keys.iter().for_each(|&key| f(key));
    let some = |value: Option<u64>| assert!(black_box(value).is_some());
    compare(
        "insert",
        &keys,
        |keys| each(keys, &|key| map.insert(key, key).unwrap()),
        |keys| each(keys, &|key| assert!(black_box(std.lock().unwrap().insert(key, key)).is_none())),
    );
    compare(
        "get",
        &shuffled,
        |keys| each(keys, &|key| assert_eq!(black_box(map.get(key).unwrap()), Some(key))),
        |keys| each(keys, &|key| assert_eq!(black_box(std.lock().unwrap().get(&key).copied()), Some(key))),
    );
    compare(
        "get_many of 32",
        &shuffled,
        |keys| keys.chunks(MANY).for_each(|keys| assert!(map.get_many(keys).unwrap().iter().all(Option::is_some))),
        |keys| each(keys, &|key| assert_eq!(black_box(std.lock().unwrap().get(&key).copied()), Some(key))),
    );
    compare(
        "contains_key, absent",
        &absent,
        |keys| each(keys, &|key| assert!(!map.contains_key(key).unwrap())),
        |keys| each(keys, &|key| assert!(!std.lock().unwrap().contains_key(&key))),
    );
    compare(
        "entry, and_modify",
        &shuffled,
        |keys| each(keys, &|key| some(map.entry(key).and_modify(|value| *value += 1).or_insert(0).ok())),
        |keys| each(keys, &|key| *std.lock().unwrap().entry(key).or_insert(0) += 1),
    );
    compare(
        "update",
        &shuffled,
        |keys| each(keys, &|key| some(map.update(key, |value| value.map(|value| value + 1)).unwrap())),
        |keys| each(keys, &|key| *std.lock().unwrap().get_mut(&key).unwrap() += 1),
    );
    compare(
        "iterate",
        &[0; CHUNKS],
        |_| assert_eq!(map.iter().unwrap().map(|entry| entry.unwrap().1).fold(0, |n, _| n + 1), count),
        |_| assert_eq!(std.lock().unwrap().values().fold(0, |n, _| n + 1), count),
    );
    println!("\n(iterate: for all keys together)");
    drop((map, store));
    print_many_maps(count);
}
