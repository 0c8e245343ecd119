//! Repairing damaged stores: what is whole comes back, and nothing else.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use slotlog::format::{
    BLOCK, Kind, LINE, MapId, RECORD_HEADER, REGION_HEADER, REGION_MAGIC, RecordHeader, RegionHeader, SLOTS,
    SUPERBLOCK_A, SUPERBLOCK_B, Superblock, flags, slot,
};
use slotlog::zerocopy::FromBytes;
use slotlog::{Error, RepairOptions, RepairReport, Store, Transaction};
use support::{Random, assert_clean, content, folder};

#[path = "../support/mod.rs"]
mod support;

mod believed;
mod copies;
mod damage;
mod input;
mod pieces;
mod quarantine;
mod whole;

/// A record of an undamaged log.
#[derive(Clone, Debug)]
struct Logged {
    at: usize,
    header: RecordHeader,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Logged {
    fn end(&self) -> usize {
        self.at + self.header.record_len() as usize
    }

    fn kind(&self) -> Kind {
        Kind::from_u8(self.header.kind).unwrap()
    }

    fn seq(&self) -> u64 {
        self.header.seq.get()
    }
}

/// The newer superblock of a file.
fn superblock(bytes: &[u8]) -> Superblock {
    let superblocks = [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| {
        let (superblock, _) = Superblock::read_from_prefix(&bytes[at as usize..]).unwrap();
        superblock
    });
    let valid = superblocks.into_iter().filter(Superblock::holds);
    valid.max_by_key(|superblock| superblock.generation.get()).unwrap()
}

/// All records of the log of a closed store.
fn log(bytes: &[u8]) -> Vec<Logged> {
    let superblock = superblock(bytes);
    let (mut at, end) = (superblock.log_head.get() as usize, superblock.log_end.get() as usize);
    let mut records = Vec::new();
    while at != end {
        let (header, _) = RecordHeader::read_from_prefix(&bytes[at..]).unwrap();
        let part = |start: u64, len: usize| bytes[at + start as usize..][..len].to_vec();
        let key = part(header.key_start(), header.key_len.get().into());
        let value = part(header.value_start(), header.value_len.get() as usize);
        let record = Logged { at, header, key, value };
        at = match record.kind() {
            Kind::Jump => u64::from_le_bytes(record.value.as_slice().try_into().unwrap()) as usize,
            _ => record.end(),
        };
        records.push(record);
    }
    assert!(records.len() > 1);
    records
}

/// A store with these bytes, repaired.
fn repaired(bytes: &[u8], options: RepairOptions<'_>) -> (Store, RepairReport) {
    let folder = folder();
    let (from, to) = (folder.path().join("damaged"), folder.path().join("repaired"));
    fs::write(&from, bytes).unwrap();
    let report = slotlog::repair_with(&from, &to, options).unwrap();
    assert_eq!(fs::read(&from).unwrap(), bytes, "the source stays as it is");
    assert_eq!(names(folder.path()), ["damaged", "repaired"], "and nothing else is left");
    let store = Store::open(&to).unwrap();
    assert_clean(&store);
    (store, report)
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The keys, values and deadlines of all maps, by the names of the maps.
type All = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Everything in a store. Its named maps hold bytes.
fn everything(store: &Store) -> All {
    let mut all = All::from([(String::new(), content(store))]);
    for info in store.maps().unwrap() {
        assert_eq!(info.types, "[u8] -> [u8]");
        let map = store.map_versioned::<[u8], [u8]>(&info.name, info.version).unwrap();
        all.insert(info.name, map.iter().unwrap().map(Result::unwrap).collect());
    }
    all
}

/// Makes a store of this many keys, and returns the bytes of its file.
fn closed_store(make: impl FnOnce(&Store)) -> Vec<u8> {
    let folder = folder();
    let path = folder.path().join("store");
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    make(&store);
    store.close_last().unwrap();
    fs::read(&path).unwrap()
}

/// Random changes of several maps, as users make them.
fn change(store: &Store, random: &mut Random, times: u64, keys: u64) {
    for _ in 0..times {
        let name = ["", "one", "two", "three"][random.below(4) as usize];
        let key = format!("key {}", random.below(keys));
        let len = if random.one_in(200) { 9000 } else { random.below(120) };
        let value = random.bytes(len as usize);
        let map = (!name.is_empty()).then(|| store.map::<[u8], [u8]>(name).unwrap());
        match (random.below(400), &map) {
            (0, _) if random.one_in(4) => drop(store.drop_map("three").unwrap()),
            (1, _) if random.one_in(4) => drop(store.rename_map("two", "three").unwrap()),
            (2, Some(map)) if random.one_in(4) => map.clear().unwrap(),
            (3..70, None) => drop(store.remove(&key).unwrap()),
            (3..70, Some(map)) => drop(map.remove(key.as_bytes()).unwrap()),
            (70..80, _) => {
                let mut transaction = store.begin().unwrap();
                for number in 0..random.below(30) {
                    transaction.insert(format!("key {}", number * 7), &value).unwrap();
                }
                if random.one_in(4) { drop(transaction) } else { transaction.commit().unwrap() }
            }
            (_, None) => store.insert(&key, &value).unwrap(),
            (_, Some(map)) => map.insert(key.as_bytes(), &value).unwrap(),
        }
    }
}
