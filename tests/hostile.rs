//! Damaged and hostile files: whatever bytes a file has, the store gives an error or an answer, never a panic, a crash
//! or an endless loop, and never another key's value.
//!
//! A small store is damaged in thousands of ways, the same ones each time: flipped bits, important words overwritten
//! with important words, pieces copied from elsewhere in the file, superblocks and records with recomputed CRCs,
//! truncation. After each, everything that the interface offers is tried on it.
//!
//! `SLOTLOG_HOSTILE_ROUNDS` sets the number of ways per test, `SLOTLOG_HOSTILE_SEED` the first of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, clippy::single_range_in_vec_init)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use slotlog::format::{
    BLOCK, CATALOGUE, DROPPED, EXTENTS, ExtentKind, Kind, LIVE, MAP_ENTRY, MAP_TABLE_MAGIC, REGION_MAGIC, RecordHeader,
    SPACE_ENTRY, SPACE_TABLE_MAGIC, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, TABLE_HEADER, align8, head, live,
};
use slotlog::{Access, Error, Opened, Options, Store};
use support::{Random, assert_clean, folder, overwrite};
use zerocopy::{FromBytes, IntoBytes};

/// The values that a key ever had, oldest first.
type History = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// A file to damage, and the known facts about it.
struct Image {
    bytes: Vec<u8>,
    /// Byte ranges of the records in the log.
    records: Vec<Range<usize>>,
    /// Offsets of regions and tables.
    headers: Vec<usize>,
    /// Offsets of the slots of indexes that point at a record.
    slots: Vec<usize>,
    /// Pieces of 64 bytes that are not all zeros: where damage has an effect.
    interesting: Vec<usize>,
    history: History,
    /// The content of the store at the end.
    current: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Image {
    fn of(bytes: Vec<u8>, history: History, current: BTreeMap<Vec<u8>, Vec<u8>>) -> Image {
        let interesting =
            (0..bytes.len()).step_by(64).filter(|&at| bytes[at..at + 64].iter().any(|&byte| byte != 0)).collect();
        // The log begins where the superblock in force says, and follows its jumps.
        let superblocks =
            [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| Superblock::read_from_prefix(&bytes[at as usize..]).unwrap().0);
        let in_force = superblocks.iter().max_by_key(|superblock| superblock.generation.get()).unwrap();
        let (mut records, mut at) = (Vec::new(), in_force.log_head.get() as usize);
        while let Ok((header, _)) = RecordHeader::ref_from_prefix(&bytes[at..]) {
            if Kind::from_u8(header.kind).is_none() {
                break;
            }
            records.push(at..at + header.record_len() as usize);
            at += header.record_len() as usize;
            if header.kind == Kind::Jump as u8 {
                at = read_word(&bytes, at - 8) as usize;
            }
        }
        assert!(records.len() > 40, "only {} records", records.len());
        let leads_to_a_record = |at: &usize| {
            let record = read_word(&bytes, *at) & OFFSET;
            records.iter().any(|range| range.start as u64 / 8 == record)
        };
        let in_log = |at: &usize| records.iter().any(|range| range.contains(at));
        let slots: Vec<usize> =
            (EXTENTS as usize..bytes.len() - 7).step_by(8).filter(|at| !in_log(at)).filter(leads_to_a_record).collect();
        assert!(slots.len() >= current.len(), "only {} slots", slots.len());
        let magics = [REGION_MAGIC, MAP_TABLE_MAGIC, SPACE_TABLE_MAGIC];
        let headers: Vec<usize> = (0..bytes.len())
            .step_by(BLOCK as usize)
            .filter(|&at| magics.iter().any(|magic| bytes[at..].starts_with(magic)))
            .collect();
        assert!(headers.len() >= 4, "two regions and two tables: {headers:?}");
        Image { bytes, records, headers, slots, interesting, history, current }
    }
}

/// The bits of a slot, and of a record's last word, that hold an offset.
const OFFSET: u64 = (1 << 40) - 1;

fn read_word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Makes an empty store whose keys have the same hashes each time, so that damage can be repeated: recovery takes the
/// hash seed from the superblock.
fn create(path: &Path) {
    let template = path.with_extension("template");
    let store = Store::open(&template).unwrap();
    let mut bytes = fs::read(&template).unwrap();
    drop(store);
    fs::remove_file(template).unwrap();
    let mut superblock = Superblock::read_from_prefix(&bytes).unwrap().0;
    superblock.hash_seed = 7.into();
    superblock.uuid = [7; 16];
    bytes[..512].copy_from_slice(superblock.sealed().as_bytes());
    fs::write(path, bytes).unwrap();
    let store = Store::open(path).unwrap();
    assert!(matches!(store.opened(), Opened::AfterPowerCut { records: 0, .. }), "{:?}", store.opened());
}

/// A store with a bit of everything: keys written once and often, removed, cleared, in transactions, an empty key, an
/// empty value, and a value that fills several blocks; a named map, a renamed one, a dropped one, and entries with a
/// deadline.
fn fill(store: &Store) -> (History, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut history = History::new();
    let mut current = BTreeMap::new();
    let mut value = |key: &str, number: u32| {
        let len = if key == "key 7" { 9000 } else { 20 + number as usize % 50 };
        let mut value = format!("{key} has value {number} ").into_bytes();
        value.resize(len.max(value.len()), b'.');
        history.entry(key.as_bytes().to_vec()).or_default().push(value.clone());
        current.insert(key.as_bytes().to_vec(), value.clone());
        value
    };
    let map = store.map::<str, [u8]>("map").unwrap();
    for number in 0..9 {
        let key = format!("in the map {number}");
        map.insert(&key, value(&key, number)).unwrap();
    }
    map.insert_with_expiry("expired", b"expired", SystemTime::UNIX_EPOCH).unwrap();
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36);
    map.insert_with_expiry("expires", value("expires", 1), later).unwrap();
    store.map::<str, u32>("dropped").unwrap().insert("dropped", 1).unwrap();
    store.map::<u32, ()>("a set").unwrap().insert(1, ()).unwrap();
    store.insert("cleared", value("cleared", 0)).unwrap();
    store.clear().unwrap();
    for number in 0..24 {
        let key = format!("key {number}");
        store.insert(&key, value(&key, number)).unwrap();
    }
    store.insert("", value("", 1)).unwrap();
    let mut transaction = store.begin().unwrap();
    for number in (0..24).step_by(3) {
        let key = format!("key {number}");
        transaction.insert(&key, value(&key, 100 + number)).unwrap();
        transaction.insert(&key, value(&key, 200 + number)).unwrap();
    }
    transaction.commit().unwrap();
    // After the transaction, which would forget the map that was dropped.
    assert!(store.rename_map("a set", "another set").unwrap() && store.drop_map("dropped").unwrap());
    store.checkpoint().unwrap();
    store.insert("nothing", "").unwrap();
    current.remove(&b"cleared"[..]);
    current.retain(|key, _| !key.starts_with(b"in the map") && key != b"expires");
    current.insert(b"nothing".to_vec(), Vec::new());
    history.insert(b"nothing".to_vec(), vec![Vec::new()]);
    for number in (0..24).step_by(5) {
        let key = format!("key {number}");
        assert!(store.remove(&key).unwrap());
        current.remove(key.as_bytes());
    }
    (history, current)
}

/// The damage done to a file.
#[derive(Debug, Default)]
struct Damage {
    /// Its kind.
    what: &'static str,
    /// Its places, unless it is a truncation.
    ranges: Vec<Range<usize>>,
    /// CRCs were recomputed, so the file may be a valid store with other content.
    sealed: bool,
}

impl Damage {
    fn new(what: &'static str, at: usize, len: usize) -> Damage {
        Damage { what, ranges: vec![at..at + len], sealed: false }
    }

    fn touches(&self, range: Range<usize>) -> bool {
        self.ranges.iter().any(|damaged| damaged.start < range.end && range.start < damaged.end)
    }
}

/// A place to damage: usually one that is in use.
fn place(image: &Image, random: &mut Random) -> usize {
    match random.below(10) {
        0 => random.below(image.bytes.len() as u64 / 8) as usize * 8,
        1..3 => image.records[random.below(image.records.len() as u64) as usize].start + random.below(4) as usize * 8,
        3 => (LIVE + random.below(64) * 8) as usize,
        4..6 => image.headers[random.below(image.headers.len() as u64) as usize] + random.below(16) as usize * 8,
        _ => {
            let piece = image.interesting[random.below(image.interesting.len() as u64) as usize];
            piece + random.below(8) as usize * 8
        }
    }
}

/// A word that is likelier than others to mislead.
fn word(image: &Image, random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => 1 << random.below(64),
        4 => random.below(image.bytes.len() as u64 * 2),
        5 => (image.records[random.below(image.records.len() as u64) as usize].start / 8) as u64,
        6 => image.records[random.below(image.records.len() as u64) as usize].start as u64,
        7 => u64::MAX >> random.below(64),
        8 => random.next(),
        _ => {
            let at = place(image, random).min(image.bytes.len() - 8);
            read_word(&image.bytes, at)
        }
    }
}

/// Damages `bytes`, a copy of the image's.
fn damage(image: &Image, bytes: &mut Vec<u8>, random: &mut Random) -> Damage {
    let at = place(image, random).min(bytes.len() - 64);
    // The offset of another record, in the form of an offset field.
    let another = image.records[random.below(image.records.len() as u64) as usize].start as u64 / 8;
    match random.below(13) {
        11 => {
            // A slot that says "here is your key", but points at another's.
            let at = image.slots[random.below(image.slots.len() as u64) as usize];
            let slot = read_word(bytes, at) & !OFFSET | another;
            bytes[at..at + 8].copy_from_slice(&slot.to_le_bytes());
            Damage::new("a slot that leads elsewhere", at, 8)
        }
        0..3 => {
            let at = at + random.below(8) as usize;
            bytes[at] ^= 1 << random.below(8);
            Damage::new("a flipped bit", at, 1)
        }
        3..6 => {
            bytes[at..at + 8].copy_from_slice(&word(image, random).to_le_bytes());
            Damage::new("a word overwritten", at, 8)
        }
        6 => {
            let len = 1 + random.below(64) as usize;
            bytes[at..at + len].copy_from_slice(&random.bytes(len));
            Damage::new("bytes overwritten", at, len)
        }
        7 => {
            let from = place(image, random).min(bytes.len() - 64);
            let len = 8 << random.below(4);
            bytes.copy_within(from..from + len, at);
            Damage::new("bytes copied from elsewhere", at, len)
        }
        8 => {
            let len = if random.one_in(2) { random.below(bytes.len() as u64) } else { at as u64 };
            bytes.truncate(len as usize);
            Damage { what: "truncated", ..Damage::default() }
        }
        9 | 10 => {
            // Hostile superblocks: any field, with a valid CRC. Word 1 is the version, which has its own tests.
            let field = 16 + 8 * random.below(21) as usize;
            let value = word(image, random);
            let places = [SUPERBLOCK_A as usize, SUPERBLOCK_B as usize];
            let both = random.one_in(2);
            for at in &places[..if both { 2 } else { 1 + random.below(2) as usize }] {
                bytes[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
                let sealed = Superblock::read_from_prefix(&bytes[*at..]).unwrap().0.sealed();
                bytes[*at..at + 512].copy_from_slice(sealed.as_bytes());
            }
            Damage { what: "superblocks with a CRC that holds", ranges: vec![0..512, 4096..4608], sealed: true }
        }
        _ => {
            // A hostile record in a valid log: this record and all after it get valid CRCs.
            let victim = random.below(image.records.len() as u64) as usize;
            let header = image.records[victim].start;
            match random.below(5) {
                4 => {
                    // Too new for any reader, and the record it claims to replace is another key's.
                    bytes[header + 23] = 0x7f;
                    let prev = read_word(bytes, header + 24) & !OFFSET | another;
                    bytes[header + 24..header + 32].copy_from_slice(&prev.to_le_bytes());
                }
                0 => bytes[header + 14] = random.below(7) as u8,
                1 => bytes[header + 15] ^= 1 << random.below(8),
                2 => bytes[header + 16..header + 24].copy_from_slice(&word(image, random).to_le_bytes()),
                _ => bytes[header + 24..header + 32].copy_from_slice(&word(image, random).to_le_bytes()),
            }
            let mut chain = bytes[header + 4..header + 8].to_vec();
            for record in &image.records[victim..] {
                bytes[record.start + 4..record.start + 8].copy_from_slice(&chain);
                let crc = crc32(&bytes[record.start + 4..record.end]);
                chain = crc.to_le_bytes().to_vec();
                bytes[record.start..record.start + 4].copy_from_slice(&chain);
            }
            Damage { what: "records with a CRC that holds", ranges: vec![header..header + 32], sealed: true }
        }
    }
}

/// The CRC-32 of zip and Ethernet, bit by bit: an independent second opinion on the one in the library.
fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::OnceLock<Vec<u32>> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        (0..256).map(|byte| (0..8).fold(byte, |crc, _| step(crc))).collect()
    });
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ table[((crc ^ u32::from(byte)) & 0xff) as usize])
}

/// Whether a get of `key` may return `value`.
fn may_be_value(image: &Image, damage: &Damage, history: &History, verified: bool, key: &[u8], value: &[u8]) -> bool {
    let Some(values) = history.get(key) else { return false };
    // With a valid CRC, a removal can be turned into an empty value.
    if values.iter().any(|stored| stored == value) || (damage.sealed && value.is_empty()) {
        return true;
    }
    if verified {
        // The CRC of the record was checked.
        return false;
    }
    // Bytes of a value that the medium has changed show as changed, nothing else.
    let len_damaged = image.records.iter().any(|record| damage.touches(record.start + 8..record.start + 16));
    let damaged_bytes: usize = damage.ranges.iter().map(ExactSizeIterator::len).sum();
    len_damaged
        || values.iter().any(|stored| {
            let wrong = stored.iter().zip(value).filter(|(a, b)| a != b).count();
            stored.len() == value.len() && wrong <= damaged_bytes
        })
}

/// Reads everything there is. A failed read is an error, and a successful one returns what was once written.
fn read_all(store: &Store, image: &Image, damage: &Damage, history: &History, verified: bool) {
    let check = |how: &str, key: &[u8], value: &[u8]| {
        assert!(
            may_be_value(image, damage, history, verified, key, value),
            "{how}: {:?} => {:?}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(value),
        );
    };
    for key in history.keys() {
        if let Ok(Some(value)) = store.get(key) {
            check("get", key, &value);
        }
        let _ = store.contains_key(key);
    }
    let _ = (store.len(), store.is_empty(), store.stats(), store.probe_lengths());
    let of_map = |key: &[u8]| std::str::from_utf8(key).ok().map(str::to_owned);
    if let Ok(map) = store.map::<str, [u8]>("map") {
        for key in history.keys() {
            let Some(name) = of_map(key) else { continue };
            if let Ok(Some(value)) = map.get(&name) {
                check("get of a map", key, &value);
            }
            if let Ok(Some(value)) = map.get_ref(&name) {
                check("get_ref of a map", key, &value);
            }
            let _ = map.expiry(&name);
        }
        for entry in map.iter().into_iter().flatten().take(image.bytes.len() / 8 * 4) {
            let Ok((key, value)) = entry else { continue };
            if verified {
                check("iterate a map", key.as_bytes(), &value);
            }
        }
    }
    let _ = store.maps();
    let Ok(snapshot) = store.snapshot() else { return };
    let _ = snapshot.get_many(&history.keys().collect::<Vec<_>>());
    // An index can name one record many times, but has no more slots than the file has words.
    for entry in snapshot.iter().take(image.bytes.len() / 8 * 4) {
        let Ok((key, value)) = entry else { continue };
        // Without verification, a key with damaged bytes is another key, even an existing one.
        let key_damaged = image.records.iter().any(|record| damage.touches(record.start + 32..record.start + 48));
        if verified || (history.contains_key(key) && !key_damaged) {
            check("iterate", key, value);
        }
    }
}

/// Changes this and that. Errors are fine.
fn change(store: &Store, history: &mut History, random: &mut Random) {
    let mut keys: Vec<Vec<u8>> = history.keys().cloned().collect();
    keys.push(b"a new key".to_vec());
    for round in 0..8 {
        let key = &keys[random.below(keys.len() as u64) as usize];
        let value = format!("{} later {round}", String::from_utf8_lossy(key)).into_bytes();
        history.entry(key.clone()).or_default().push(value.clone());
        let written = store.insert(key, &value);
        if let (Ok(()), Ok(Some(found))) = (written, store.get(key)) {
            // Not always the last value written: a damaged index can lead readers to an older one.
            let values = &history[key];
            assert!(values.contains(&found), "just wrote {value:?}, and {found:?} is no value of {key:?}");
        }
        let _ = store.remove(&keys[random.below(keys.len() as u64) as usize]);
    }
    if let Ok(mut transaction) = store.begin() {
        for round in 0..8 {
            let key = &keys[random.below(keys.len() as u64) as usize];
            let value = format!("{} at once {round}", String::from_utf8_lossy(key)).into_bytes();
            history.entry(key.clone()).or_default().push(value.clone());
            let _ = transaction.insert(key, &value);
            let _ = transaction.remove(&keys[random.below(keys.len() as u64) as usize]);
            let _ = (transaction.get(key), transaction.len());
        }
        if random.one_in(3) {
            transaction.rollback();
        } else {
            let _ = transaction.commit();
        }
    }
    if let Ok(map) = store.map::<str, [u8]>("map") {
        let mut name = || format!("in the map {}", random.below(12));
        let add = |key: &str, history: &mut History| {
            let value = format!("{key} in the map, later").into_bytes();
            history.entry(key.into()).or_default().push(value.clone());
            value
        };
        let key = name();
        let value = add(&key, history);
        let _ = map.update(&key, |_| Some(value.clone()));
        let key = name();
        let value = add(&key, history);
        let _ = map.entry(&key).or_insert(value);
        let key = name();
        let value = add(&key, history);
        let _ = map.insert_with_expiry(&key, value, SystemTime::now());
        let _ = (map.pop(), map.take(name()), map.retain(|key, _| !key.ends_with('3')));
        let _ = (store.rename_map("map", "other"), store.map::<str, u8>("new").and_then(|new| new.insert("a", 1)));
        let _ = (store.rename_map("other", "map"), store.drop_map("another set"), store.maintain(Duration::ZERO));
    }
    let _ = (store.sync(), store.checkpoint());
    if random.one_in(4) {
        let _ = store.clear();
    }
}

/// Tries everything on a damaged file.
fn exercise(path: &Path, image: &Image, damage: &Damage, random: &mut Random) {
    let mut history = image.history.clone();
    let verified = random.one_in(2);
    // Damage must not make a store of a few hundred KiB fill the disk; the limit keeps this test from doing that.
    let options = Store::options().verify_reads(verified).max_size(256 << 20);
    exercise_with(&options, verified, path, image, damage, &mut history, random);
    let len = fs::metadata(path).unwrap().len();
    assert!(len < 16 << 20, "the file has grown to {} MiB", len >> 20);
}

fn exercise_with(
    options: &Options,
    verified: bool,
    path: &Path,
    image: &Image,
    damage: &Damage,
    history: &mut History,
    random: &mut Random,
) {
    if let Ok(store) = Store::options().access(Access::ReadOnly).verify_reads(verified).open(path) {
        read_all(&store, image, damage, history, verified);
        let _ = store.verify();
    }
    let Ok(store) = options.clone().open(path) else { return };
    read_all(&store, image, damage, history, verified);
    let report = store.verify();
    if !damage.sealed && store.opened() == Opened::Clean && report.is_ok_and(|report| report.is_clean()) {
        // The damage hit nothing of importance, so the content has not changed.
        let found: BTreeMap<Vec<u8>, Vec<u8>> =
            store.snapshot().unwrap().iter().map(|entry| entry.unwrap()).map(|(k, v)| (k.into(), v.into())).collect();
        // Not `assert_eq!`, which would print all of it.
        let other = image.current.keys().chain(found.keys()).find(|key| image.current.get(*key) != found.get(*key));
        assert!(other.is_none(), "verify found nothing, and the value of {other:?} is another");
        for (key, value) in &image.current {
            assert!(store.get(key).unwrap().as_ref() == Some(value), "verify found nothing, and {key:?} is missing");
        }
    }
    if !damage.sealed && matches!(store.opened(), Opened::AfterPowerCut { .. }) {
        // A recovery takes over only valid parts, and rebuilds everything else. One superblock may still be damaged.
        let report = store.verify().unwrap();
        let of_log: Vec<_> = report.findings().iter().filter(|finding| finding.offset >= LIVE).collect();
        assert!(of_log.is_empty(), "recovery has taken damage over: {of_log:?}");
    }
    change(&store, history, random);
    read_all(&store, image, damage, history, verified);
    let _ = store.verify();
    if random.one_in(2) {
        let _ = store.close();
    }
    // If that could not close it, this is an opening after a kill.
    let Ok(store) = options.clone().open(path) else { return };
    read_all(&store, image, damage, history, verified);
    let _ = store.insert("the last", "word");
    let _ = store.verify();
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Damages the image in many ways and tries everything on each. `write` stores the bytes where `exercise` finds them.
fn many_ways(test: &'static str, image: &Image, path: &Path, write: impl Fn(&[u8])) {
    let rounds = number("SLOTLOG_HOSTILE_ROUNDS", 1000);
    let first = number("SLOTLOG_HOSTILE_SEED", 1);
    let seed = Arc::new(AtomicU64::new(first));
    watch(test, Arc::clone(&seed));
    let mut kinds = BTreeSet::new();
    for round in first..first + rounds {
        seed.store(round, Ordering::Relaxed);
        let mut random = Random(round);
        let mut bytes = image.bytes.clone();
        let damage = damage(image, &mut bytes, &mut random);
        write(&bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(path, image, &damage, &mut random)));
        if let Err(panic) = outcome {
            eprintln!("{test}: SLOTLOG_HOSTILE_SEED={round} SLOTLOG_HOSTILE_ROUNDS=1: {damage:?}");
            resume_unwind(panic);
        }
        kinds.insert(damage.what);
    }
    seed.store(u64::MAX, Ordering::Relaxed);
    assert!(rounds < 1000 || kinds.len() == 8, "all kinds of damage were done: {kinds:?}");
}

/// Ends the process if a round takes so long that it must be an endless loop, which no assertion can detect.
fn watch(test: &'static str, seed: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(Duration::from_secs(30));
            match seed.load(Ordering::Relaxed) {
                u64::MAX => return,
                now if now == last => {
                    // Not `eprintln!`: the test harness would hold that back until the test ends, which it will not.
                    let _ = writeln!(std::io::stderr(), "{test}: SLOTLOG_HOSTILE_SEED={now} does not end");
                    std::process::abort();
                }
                now => last = now,
            }
        }
    });
}

/// Puts bytes into a new file: not one in which a store was open, so the live area is not believed.
fn anew(path: &Path) -> impl Fn(&[u8]) {
    move |bytes| {
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_damaged_store_that_was_closed_is_read_or_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    create(&path);
    let store = Store::open(&path).unwrap();
    let (history, current) = fill(&store);
    store.close().unwrap();
    let image = Image::of(fs::read(&path).unwrap(), history, current);
    many_ways("closed", &image, &path, anew(&path));
}

#[test]
fn a_damaged_copy_of_an_open_store_is_recovered_or_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    create(&folder.path().join("original"));
    let store = Store::open(folder.path().join("original")).unwrap();
    let (history, current) = fill(&store);
    let image = Image::of(fs::read(folder.path().join("original")).unwrap(), history, current);
    drop(store);
    many_ways("copied", &image, &path, anew(&path));
}

/// Here the live area is believed, since it is the same file that the killed process had open.
#[test]
fn a_damaged_store_whose_process_was_killed_is_taken_over_or_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    create(&path);
    let status = support::child("die", &path).status().unwrap();
    assert!(!status.success(), "the child was to die: {status}");
    let memory = Store::in_memory().unwrap();
    let (history, current) = fill(&memory);
    let image = Image::of(fs::read(&path).unwrap(), history, current);
    // Into the same file, so that the store takes it for the same.
    let write = |bytes: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        (&file).write_all(bytes).unwrap();
    };
    write(&image.bytes);
    let opened = Store::open(&path).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(opened.opened(), Opened::AfterKill, "else this tests the wrong road");
    }
    assert_eq!(opened.len().unwrap(), image.current.len() as u64);
    drop(opened);
    many_ways("killed", &image, &path, write);
}

#[test]
#[ignore = "what other tests start in a process of its own"]
fn child() {
    let Some((role, path)) = support::role() else { return };
    assert_eq!(role, "die");
    let store = Store::open(path).unwrap();
    fill(&store);
    std::process::abort();
}

/// Without damage the exercise itself must find nothing wrong, or the tests above would prove little.
#[test]
fn an_undamaged_store_passes_the_same_exercise() {
    let folder = folder();
    let path = folder.path().join("store");
    create(&path);
    let store = Store::open(&path).unwrap();
    let (history, current) = fill(&store);
    store.close().unwrap();
    let image = Image::of(fs::read(&path).unwrap(), history, current);
    for seed in 0..20 {
        anew(&path)(&image.bytes);
        exercise(&path, &image, &Damage::default(), &mut Random(seed));
    }
    anew(&path)(&image.bytes);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Clean);
    assert_eq!(store.len().unwrap(), image.current.len() as u64);
    assert_eq!(align8(live::VISIBLE), live::VISIBLE);
}

/// Offset of the first block of a table.
fn table_in(bytes: &[u8], magic: [u8; 8]) -> usize {
    let mut blocks = (EXTENTS as usize..bytes.len()).step_by(BLOCK as usize);
    blocks.find(|&at| bytes[at..].starts_with(&magic)).unwrap()
}

/// Offsets of the entries in the first block of the space table.
fn space_entries(bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let table = table_in(bytes, SPACE_TABLE_MAGIC);
    let first = table + TABLE_HEADER as usize;
    (first..table + BLOCK as usize - SPACE_ENTRY as usize).step_by(SPACE_ENTRY as usize)
}

fn is_damage<T>(result: slotlog::Result<T>, what: &str) {
    match result {
        Err(Error::Corrupt { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what}: the damage was not seen"),
    }
}

/// Readers without a pin begin again until the horizon is where they read. In a valid file it is never past the visible
/// number.
#[test]
fn a_reader_gives_up_if_the_horizon_lies_beyond_what_is_visible() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    let map = store.map::<str, str>("map").unwrap();
    map.insert("key", "value").unwrap();
    let reader = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    let of_reader = reader.map::<str, str>("map").unwrap();
    assert_eq!(reader.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    let running = Arc::new(AtomicU64::new(0));
    watch("horizon", Arc::clone(&running));
    let visible = u64::from(store.seq().unwrap());
    for horizon in [visible + 1, visible + (1 << 44), u64::MAX] {
        overwrite(&path, live::HORIZON, &horizon.to_le_bytes());
        is_damage(reader.get("key"), "get");
        is_damage(reader.contains_key("key"), "contains_key");
        is_damage(reader.len(), "len");
        is_damage(reader.snapshot(), "snapshot");
        is_damage(of_reader.get("key"), "get of a map");
        running.fetch_add(1, Ordering::Relaxed);
    }
    overwrite(&path, live::HORIZON, &visible.to_le_bytes());
    assert_eq!(reader.get("key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(reader.snapshot().unwrap().len(), 1);
    running.store(u64::MAX, Ordering::Relaxed);
}

/// A walk must accept the start that the next superblock will record for the head of the log.
#[test]
fn verify_looks_at_the_numbers_of_head_and_counters() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..10 {
        store.insert([number], "value").unwrap();
    }
    assert_clean(&store);
    let bytes = fs::read(&path).unwrap();
    let bank = [live::HEAD, live::HEAD + 8 * live::HEAD_WORDS];
    let bank = bank.into_iter().max_by_key(|&at| read_word(&bytes, at as usize)).unwrap();
    let at = bank + 8 * head::SEQ as u64;
    let seq = read_word(&bytes, at as usize);
    for damaged in [seq + 1, seq + 5, seq + (1 << 44), u64::from(store.seq().unwrap()) + 2] {
        overwrite(&path, at, &damaged.to_le_bytes());
        assert!(
            !store.verify().unwrap().is_clean(),
            "the log is said to begin with {damaged:#x}, and with {seq:#x} does"
        );
    }
    overwrite(&path, at, &seq.to_le_bytes());
    for (word, damaged) in [(head::SEQ, 1), (head::BEHIND, u64::MAX), (head::ORDINAL, 0), (head::ORDINAL, 2)] {
        let at = bank + 8 * word as u64;
        overwrite(&path, at, &u64::to_le_bytes(damaged));
        assert!(!store.verify().unwrap().is_clean(), "word {word} of the head is {damaged:#x}");
        overwrite(&path, at, &read_word(&bytes, at as usize).to_le_bytes());
    }
    assert_clean(&store);
    // The bank of the log's counters with the largest number counts: one of a future commit would continue to count.
    let at = [live::LOG_TOTALS, live::LOG_TOTALS + 8 * live::LOG_TOTALS_WORDS];
    let at = at.into_iter().max_by_key(|&at| read_word(&bytes, at as usize)).unwrap();
    overwrite(&path, at, &u64::MAX.to_le_bytes());
    assert!(!store.verify().unwrap().is_clean(), "the counters of the log have a number that is still to come");
}

/// The entries of the catalogue decide which maps there are, and which id the next one gets.
#[test]
fn verify_looks_at_the_entries_of_the_catalogue() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.map::<str, u32>("one").unwrap().insert("key", 1).unwrap();
    assert_clean(&store);
    store.close().unwrap();
    let image = fs::read(&path).unwrap();
    let of_catalogue = |at: &usize| {
        let header = RecordHeader::read_from_prefix(&image[*at..]).unwrap().0;
        header.kind == Kind::Put as u8 && header.map() == CATALOGUE
    };
    let mut records = Vec::new();
    let mut at = EXTENTS as usize;
    while Kind::from_u8(image[at + 14]).is_some() {
        records.push(at);
        at += RecordHeader::read_from_prefix(&image[at..]).unwrap().0.record_len() as usize;
    }
    assert_eq!(records.iter().copied().filter(|at| of_catalogue(at)).count(), 2, "the next number and the map");
    for record in records.iter().copied().filter(of_catalogue) {
        let mut bytes = image.clone();
        let value = record + RecordHeader::read_from_prefix(&bytes[record..]).unwrap().0.value_start() as usize;
        // The id of the map, or of the next one.
        bytes[value] = 0;
        let mut chain = bytes[record + 4..record + 8].to_vec();
        for &at in records.iter().filter(|at| **at >= record) {
            let end = at + RecordHeader::read_from_prefix(&bytes[at..]).unwrap().0.record_len() as usize;
            bytes[at + 4..at + 8].copy_from_slice(&chain);
            chain = crc32(&bytes[at + 4..end]).to_le_bytes().to_vec();
            bytes[at..at + 4].copy_from_slice(&chain);
        }
        let places = [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| at as usize);
        for at in places {
            if let Some(mut superblock) = Superblock::read_from_prefix(&bytes[at..]).ok().map(|(s, _)| s) {
                superblock.end_chain = u32::from_le_bytes(chain[..].try_into().unwrap()).into();
                bytes[at..at + 512].copy_from_slice(superblock.sealed().as_bytes());
            }
        }
        anew(&path)(&bytes);
        let report = Store::open(&path).unwrap().verify().unwrap();
        let of_it = report.findings().iter().any(|finding| finding.offset == record as u64);
        assert!(of_it, "of the record at {record}: {report:#?}");
    }
}

/// A length beyond the end of the file is found to be damage before memory is allocated for it.
#[test]
fn a_value_that_is_longer_than_the_file_takes_no_memory() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "a value that can be found").unwrap();
    store.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let value = bytes.windows(7).position(|seven| seven == b"a value").unwrap();
    let header = value - 8 - 32;
    bytes[header + 8..header + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    anew(&path)(&bytes);
    let store = Store::options().access(Access::ReadOnly).open(&path).unwrap();
    LARGEST.store(0, Ordering::Relaxed);
    is_damage(store.get("key"), "get");
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < 256 << 20, "{largest} bytes were taken at once");
}

/// The largest piece of memory that was requested.
static LARGEST: AtomicU64 = AtomicU64::new(0);

struct Watched;

// SAFETY: it passes all calls on to the system's allocator.
#[allow(unsafe_code, reason = "an allocator cannot be watched otherwise")]
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` comes from `alloc` above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// An extent of the log with an impossible ordinal: the extents after it would have none, and a sync would flush
/// nothing.
#[test]
fn an_ordinal_that_cannot_be_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let word = |at: usize| read_word(&bytes, at);
    let entry = space_entries(&bytes).find(|&at| word(at + 8) != 0 && word(at + 16) != 0).unwrap();
    for ordinal in [0, u64::MAX / 2, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[entry + 16..entry + 24].copy_from_slice(&ordinal.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let refused = Store::open(&path).and_then(|store| store.insert("other", "value"));
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{ordinal}: {refused:?}");
    }
}

/// An extent of the log may not be from a commit that was never made.
#[test]
fn verify_looks_at_the_numbers_of_extents() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    for number in 0..1000u32 {
        store.insert(number.to_le_bytes(), [7; 1000]).unwrap();
    }
    store.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let tail = read_word(&bytes, live::TAIL as usize);
    // The number of an extent of the log that the tail is not in.
    let entry = space_entries(&bytes)
        .find(|&entry| {
            let (extent, state) = (read_word(&bytes, entry), read_word(&bytes, entry + 8));
            let (start, blocks) = ((extent & 0xffff_ffff) * BLOCK, extent >> 32);
            state >> 56 == ExtentKind::Log as u64 && !(start..start + blocks * BLOCK).contains(&tail)
        })
        .unwrap();
    let state = read_word(&bytes, entry + 8);
    let close_again = || Store::open(&path).unwrap().verify().unwrap();
    assert!(close_again().is_clean());
    overwrite(&path, entry as u64 + 8, &(state | 0xff_ffff_ffff).to_le_bytes());
    let report = close_again();
    assert!(report.findings().iter().any(|finding| finding.what.contains("never made")), "{:?}", report.findings());
}

/// The map table has each map once, and marks as dropped only maps without a name.
#[test]
fn verify_looks_at_the_entries_of_the_map_table() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    store.map::<str, str>("map").unwrap();
    store.close().unwrap();
    let bytes = fs::read(&path).unwrap();
    let table = table_in(&bytes, MAP_TABLE_MAGIC);
    let entry = |number: usize| table + (TABLE_HEADER + number as u64 * MAP_ENTRY) as usize;
    let vacant = (0..).find(|&number| read_word(&bytes, entry(number)) == 0).unwrap();
    for (number, id) in [(0, 1 | DROPPED), (1, 2 | DROPPED), (2, 3 | DROPPED), (0, 1 | 1 << 40), (vacant, 1)] {
        let mut bytes = bytes.clone();
        bytes[entry(number)..][..8].copy_from_slice(&u64::to_le_bytes(id));
        if number == vacant {
            bytes.copy_within(entry(0) + 8..entry(0) + 16, entry(number) + 8);
        }
        fs::write(&path, &bytes).unwrap();
        let clean = Store::open(&path).and_then(|store| store.verify()).is_ok_and(|report| report.is_clean());
        assert!(!clean, "entry {number} is {id:#x}");
    }
}

/// An impossible visible number discredits the live area: the log decides.
#[test]
fn a_visible_number_that_cannot_be_is_not_believed() {
    let folder = folder();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    for visible in [0, u64::MAX - 1, u64::MAX] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[live::VISIBLE as usize..][..8].copy_from_slice(&visible.to_le_bytes());
        fs::write(&copy, &bytes).unwrap();
        assert_eq!(Store::open(&copy).unwrap().get("key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}
