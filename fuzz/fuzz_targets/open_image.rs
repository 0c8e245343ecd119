//! Damaged and hostile files.
//!
//! Whatever the bytes of a file, opening and using it may report damage; it may not panic, hang or read what is not
//! its own. Most bytes are not a store at all, so an input is a list of changes to a valid one, after which the CRCs
//! can be made to hold again: then it is the checks behind the CRCs that are tried.
//!
//! What `verify` calls clean has to be readable, and to stay clean whatever is done with it.
#![no_main]

mod scratch;

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::mem::offset_of;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::SystemTime;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slotlog::format::{
    BLOCK, KeyHash, Kind, LINE, REGION_HEADER, RecordHeader, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, TABLE_ENTRY,
    TABLE_HEADER, extent_offset, live,
};
use slotlog::{Access, Options, Store};
use zerocopy::{FromBytes, IntoBytes};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    base: Base,
    changes: Vec<Change<'a>>,
    /// The length of the file, if it is not that of the store.
    len: Option<u32>,
    /// Whether the CRCs of the superblocks are made to hold.
    seal_superblocks: bool,
    /// Whether those of the records are, and their chain.
    seal_records: bool,
    verify_reads: bool,
    /// What to do with the store.
    uses: Vec<Use>,
    /// Bytes that are the file itself.
    raw: &'a [u8],
}

/// In what state the store was left.
#[derive(Arbitrary, Debug)]
enum Base {
    Closed,
    /// The live area is believed.
    Killed,
    /// The log alone is believed.
    Cut,
    Raw,
}

#[derive(Arbitrary, Debug)]
struct Change<'a> {
    place: Place,
    /// Bytes from the place.
    offset: u8,
    value: Value<'a>,
}

#[derive(Arbitrary, Debug)]
enum Place {
    SuperblockA,
    SuperblockB,
    Live,
    LiveWord(u8),
    PinOrProcess(u16),
    Record(u8),
    Region,
    Line(u8),
    /// The line where the search for a key begins.
    LineOfKey(u8),
    MapTable,
    MapTableEntry(u8),
    SpaceTable,
    SpaceTableEntry(u8),
    Anywhere(u32),
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Byte(u8),
    Word(u64),
    Flip(u8),
    /// Added to the word that is there.
    Add(i8),
    /// In place of the low 40 bits of the word that is there: the offset of a record, as slots and versions have it.
    PointToRecord(u8),
    /// The offset of a record.
    OffsetOfRecord(u8),
    /// The length of the file, more or less.
    Len(i8),
    /// What another place has.
    CopyOf(Place, u8),
}

#[derive(Arbitrary, Debug)]
enum Use {
    Get(u8),
    Insert(u8, u8),
    InsertLong(u8, u16),
    Fill(u8),
    Remove(u8),
    Clear,
    Transaction(u8, u8, bool),
    Iterate,
    GetMany,
    Snapshot,
    /// Goes over a map that has a name, and changes it.
    Map(u8, u8),
    /// Drops or renames one.
    Catalogue(bool),
    Stats,
    Verify,
    Sync,
    Checkpoint,
    Reopen,
    ReadOnly,
}

/// A valid store and where its parts are.
struct Original {
    path: PathBuf,
    closed: Vec<u8>,
    killed: Vec<u8>,
    records: Vec<u64>,
    region: u64,
    lines: u64,
    seed: u64,
    map_table: u64,
    space_table: u64,
}

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| {
    let path = scratch::folder().join("image.slotlog");
    let _ = fs::remove_file(&path);
    let store = Store::open(&path).unwrap();
    store.insert("before", "the clear").unwrap();
    store.clear().unwrap();
    let map = store.map::<u8, [u8]>("map").unwrap();
    for number in 0..10 {
        map.insert(number, [number; 30]).unwrap();
    }
    for number in 0..40 {
        store.insert(key(number), [number; 50]).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    for number in 0..10 {
        store.insert(key(number), "newer").unwrap();
        store.remove(key(number + 10)).unwrap();
    }
    store.checkpoint().unwrap();
    let mut transaction = store.begin().unwrap();
    for number in 30..50 {
        transaction.insert(key(number), [1; 100]).unwrap();
    }
    transaction.remove(key(30)).unwrap();
    transaction.commit().unwrap();
    // Too long for what is left of the first extent: a jump.
    store.insert(key(50), vec![2; 60_000]).unwrap();
    store.insert(key(51), "in the second extent").unwrap();
    let killed = fs::read(&path).unwrap();
    drop(snapshot);
    store.close().unwrap();
    let closed = fs::read(&path).unwrap();

    let superblock = newest_superblock(&closed);
    let (map_table, space_table) = (superblock.map_table.get(), superblock.space_table.get());
    let map_table = extent_offset(map_table);
    let first = map_table + TABLE_HEADER;
    let entries = (0..8).map(|entry| first + entry * TABLE_ENTRY);
    let of_default = |at: &u64| word(&closed, *at) == u64::from(slotlog::format::DEFAULT_MAP) + 1;
    let region = entries.into_iter().find(of_default).map(|at| word(&closed, at + 8) * BLOCK).unwrap();
    let mut records = Vec::new();
    walk(&closed, |offset, _| records.push(offset));
    assert!(records.len() > 80, "the walk sees the log");
    Original {
        records,
        region,
        lines: word(&closed, region + 16),
        seed: superblock.hash_seed.get(),
        map_table,
        space_table: extent_offset(space_table),
        path,
        closed,
        killed,
    }
});

fn key(number: u8) -> Vec<u8> {
    // Lengths from 0 to 9 and beyond.
    match number {
        0 => Vec::new(),
        number => [&b"a longer key "[..usize::from(number % 13)], &[number]].concat(),
    }
}

/// The word at an offset, zero outside of the image.
fn word(image: &[u8], at: u64) -> u64 {
    let bytes = usize::try_from(at).ok().and_then(|at| image.get(at..)?.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Overwrites what of the range lies inside of the image.
fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    if let Some(place) = usize::try_from(at).ok().and_then(|at| image.get_mut(at..)) {
        let len = bytes.len().min(place.len());
        place[..len].copy_from_slice(&bytes[..len]);
    }
}

fn superblock(image: &[u8], at: u64) -> Option<Superblock> {
    Superblock::read_from_prefix(image.get(at as usize..)?).ok().map(|(superblock, _)| superblock)
}

fn newest_superblock(image: &[u8]) -> Superblock {
    let both = [SUPERBLOCK_A, SUPERBLOCK_B].into_iter().filter_map(|at| superblock(image, at));
    both.max_by_key(|superblock| superblock.generation.get()).expect("the image has two pages")
}

/// Goes along the log as long as it looks like one.
fn walk(image: &[u8], mut visit: impl FnMut(u64, &[u8])) {
    let mut at = newest_superblock(image).log_head.get();
    let mut left = image.len() as u64;
    while let Some((header, record)) = record_at(image, at) {
        if header.kind == 0 || header.record_len() > left {
            break;
        }
        visit(at, record);
        left -= header.record_len();
        at += header.record_len();
        if header.kind == Kind::Jump as u8 {
            at = word(record, header.value_start());
        }
    }
}

fn record_at(image: &[u8], at: u64) -> Option<(RecordHeader, &[u8])> {
    let bytes = image.get(usize::try_from(at).ok()?..)?;
    let (header, _) = RecordHeader::read_from_prefix(bytes).ok()?;
    Some((header, bytes.get(..usize::try_from(header.record_len()).ok()?)?))
}

/// Makes the CRCs and the chain of all records hold.
fn seal_records(image: &mut [u8]) {
    const CHAIN: usize = offset_of!(RecordHeader, chain);

    let mut chain = newest_superblock(image).head_chain.get();
    let mut seals = Vec::new();
    walk(image, |offset, record| {
        let mut record = record.to_vec();
        record[CHAIN..CHAIN + 4].copy_from_slice(&chain.to_le_bytes());
        let crc = crc32fast::hash(&record[4..]);
        seals.push((offset, [crc.to_le_bytes(), chain.to_le_bytes()].concat()));
        chain = crc;
    });
    for (offset, seal) in seals {
        put(image, offset, &seal);
    }
}

impl Place {
    fn offset(&self, original: &Original) -> u64 {
        let original_record = |number: u8| original.records[usize::from(number) % original.records.len()];
        match *self {
            Place::SuperblockA => SUPERBLOCK_A,
            Place::SuperblockB => SUPERBLOCK_B,
            Place::Live => live::VERSION_WORD,
            Place::LiveWord(number) => live::VERSION_WORD + 8 * u64::from(number),
            Place::PinOrProcess(number) => slotlog::format::PROCESS_TABLE + u64::from(number) * 8,
            Place::Record(number) => original_record(number),
            Place::Region => original.region,
            Place::Line(number) => original.region + REGION_HEADER + u64::from(number) * LINE,
            Place::LineOfKey(number) => {
                let line = KeyHash::of(&key(number), original.seed).line(original.lines);
                original.region + REGION_HEADER + line * LINE
            }
            Place::MapTable => original.map_table,
            Place::MapTableEntry(number) => original.map_table + TABLE_HEADER + u64::from(number) * TABLE_ENTRY,
            Place::SpaceTable => original.space_table,
            Place::SpaceTableEntry(number) => original.space_table + TABLE_HEADER + u64::from(number) * TABLE_ENTRY,
            Place::Anywhere(offset) => u64::from(offset) % original.closed.len() as u64,
        }
    }
}

impl Change<'_> {
    fn apply(&self, image: &mut [u8], original: &Original) {
        let at = self.place.offset(original) + u64::from(self.offset);
        let there = word(image, at);
        let record = |number: u8| original.records[usize::from(number) % original.records.len()];
        let new = match &self.value {
            Value::Bytes(bytes) => return put(image, at, bytes),
            Value::Byte(byte) => return put(image, at, &[*byte]),
            Value::Word(word) => *word,
            Value::Flip(bit) => there ^ (1 << (bit % 64)),
            Value::Add(more) => there.wrapping_add_signed(i64::from(*more)),
            Value::PointToRecord(number) => (there >> 40 << 40) | (record(*number) / 8),
            Value::OffsetOfRecord(number) => record(*number),
            Value::Len(more) => (image.len() as u64).wrapping_add_signed(i64::from(*more) * 8),
            Value::CopyOf(place, offset) => word(image, place.offset(original) + u64::from(*offset)),
        };
        put(image, at, &new.to_le_bytes());
    }
}

impl Input<'_> {
    fn image(&self, original: &Original) -> Vec<u8> {
        let mut image = match self.base {
            Base::Closed => original.closed.clone(),
            Base::Killed | Base::Cut => original.killed.clone(),
            Base::Raw => return self.raw.to_vec(),
        };
        if let Base::Cut = self.base {
            put(&mut image, live::VERSION_WORD, &[0; 8]);
        }
        for change in &self.changes {
            change.apply(&mut image, original);
        }
        if self.seal_records {
            seal_records(&mut image);
        }
        if self.seal_superblocks {
            for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
                if let Some(superblock) = superblock(&image, at) {
                    put(&mut image, at, superblock.sealed().as_bytes());
                }
            }
        }
        if let Some(len) = self.len {
            // Up to two blocks longer than it was.
            let most = image.len() + 2 * BLOCK as usize;
            image.resize(len as usize % most, 0);
        }
        image
    }
}

impl Use {
    /// Does it, and lets any error pass. Says whether the store is to be opened again, and how.
    fn apply(&self, store: &Store) -> slotlog::Result<Option<Access>> {
        match *self {
            Use::Get(number) => drop(black_box(store.get(key(number))?)),
            Use::Insert(number, len) => store.insert(key(number), vec![3; usize::from(len)])?,
            Use::InsertLong(number, len) => store.insert(key(number), vec![4; usize::from(len)])?,
            Use::Fill(count) => {
                for number in 0..count {
                    store.insert([number, 0], "filled")?;
                }
            }
            Use::Remove(number) => drop(store.remove(key(number))?),
            Use::Clear => store.clear()?,
            Use::Transaction(first, count, commit) => {
                let mut transaction = store.begin()?;
                for number in (0..count % 32).map(|number| first.wrapping_add(number)) {
                    transaction.insert(key(number), "by a transaction")?;
                    transaction.remove(key(number.wrapping_add(3)))?;
                    black_box(transaction.get(key(number))?);
                }
                if commit {
                    transaction.commit()?;
                }
            }
            Use::Iterate => {
                for (key, value) in store.snapshot()?.iter().flatten() {
                    touch(key);
                    touch(value);
                }
            }
            Use::GetMany => {
                let keys: Vec<Vec<u8>> = (0..60).map(key).collect();
                store.snapshot()?.get_many(&keys)?.into_iter().flatten().for_each(touch);
            }
            Use::Snapshot => {
                let snapshot = store.snapshot()?;
                store.insert(key(1), "after the snapshot")?;
                snapshot.get(key(1))?.into_iter().for_each(touch);
            }
            Use::Map(number, add) => {
                let map = store.map::<u8, [u8]>("map")?;
                for (key, value) in map.iter()?.flatten() {
                    black_box(key);
                    touch(&value);
                }
                map.update(number, |value| Some(value.into_iter().flatten().chain([add]).collect()))?;
                map.entry(add).and_modify(|value| value.push(number)).or_default()?;
                map.get_ref(number)?.iter().for_each(|value| touch(value));
                map.insert_with_expiry(number.wrapping_add(1), [add], SystemTime::UNIX_EPOCH)?;
                black_box((map.pop()?, map.len()?));
            }
            Use::Catalogue(drop) => {
                black_box(store.maps()?);
                black_box(if drop { store.drop_map("map")? } else { store.rename_map("map", "other")? });
                black_box(store.map::<u8, u64>("other")?.len()?);
            }
            Use::Stats => {
                black_box(store.stats()?);
                black_box(store.probe_lengths()?);
                black_box(store.len()?);
            }
            Use::Verify => _ = verify(store),
            Use::Sync => store.sync()?,
            Use::Checkpoint => store.checkpoint()?,
            Use::Reopen => return Ok(Some(Access::ReadWrite)),
            Use::ReadOnly => return Ok(Some(Access::ReadOnly)),
        }
        Ok(None)
    }
}

/// Reads all of it.
fn touch(bytes: &[u8]) {
    black_box(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
}

/// Whether the store is called clean. Then it has to be readable, and to be as much as is counted.
fn verify(store: &Store) -> bool {
    if !store.verify().is_ok_and(|report| report.is_clean()) {
        return false;
    }
    let snapshot = store.snapshot().unwrap();
    let mut count = 0;
    for entry in &snapshot {
        let (key, value) = entry.unwrap();
        assert_eq!(snapshot.get(key).unwrap(), Some(value));
        count += 1;
    }
    assert_eq!(count, snapshot.len());
    true
}

fuzz_target!(|input: Input<'_>| {
    let original = &*ORIGINAL;
    let image = input.image(original);
    // The same file again and again, since that is what a killed store has to be found in.
    let mut file = OpenOptions::new().write(true).open(&original.path).unwrap();
    file.write_all(&image).unwrap();
    file.set_len(image.len() as u64).unwrap();
    drop(file);

    let options =
        |access| -> Options { Store::options().access(access).verify_reads(input.verify_reads).max_size(16 << 20) };
    if let Ok(store) = options(Access::ReadOnly).open(&original.path) {
        for step in &input.uses {
            let _ = step.apply(&store);
        }
        drop(store);
        assert!(fs::read(&original.path).unwrap() == image, "an opening for reading has changed the file");
    }
    let Ok(mut store) = options(Access::ReadWrite).open(&original.path) else { return };
    let clean = verify(&store);
    for step in &input.uses {
        if let Ok(Some(access)) = step.apply(&store) {
            drop(store);
            match options(access).open(&original.path) {
                Ok(again) => store = again,
                Err(error) => return assert!(!clean, "a clean store could not be opened again: {error}"),
            }
        }
    }
    assert!(verify(&store) || !clean, "a clean store is clean no more: {:#?}", store.verify());
    if store.close().is_ok()
        && let Ok(store) = options(Access::ReadWrite).open(&original.path)
    {
        assert!(verify(&store) || !clean, "a clean store is clean no more: {:#?}", store.verify());
    }
});
