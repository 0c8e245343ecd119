//! Stores to be damaged, and the damage.
//!
//! Most bytes are not a store at all, so a damaged image is a valid store and a list of changes, after which the CRCs
//! can be made to hold again: then it is the checks behind the CRCs that are tried.

use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use slotlog::format::{
    BLOCK, DEFAULT_MAP, KeyHash, Kind, LINE, MAP_ENTRY, PROCESS_TABLE, REGION_HEADER, RecordHeader, SPACE_ENTRY,
    SUPERBLOCK_A, SUPERBLOCK_B, Superblock, TABLE_HEADER, extent_offset, live,
};
use slotlog::{Options, Store};
use zerocopy::{FromBytes, IntoBytes};

use crate::scratch;

/// How many different stores there are.
pub const RECIPES: usize = 4;

/// In what state a store was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    /// The live area is believed.
    Killed,
    /// The log alone is believed.
    Cut,
}

/// A valid store and where its parts are.
pub struct Original {
    closed: Vec<u8>,
    killed: Vec<u8>,
    records: Vec<u64>,
    region: u64,
    lines: u64,
    seed: u64,
    map_table: u64,
    space_table: u64,
}

/// The file that all images are put into: the same one again and again, since that is what a killed store has to be
/// found in.
pub static PATH: LazyLock<PathBuf> = LazyLock::new(|| scratch::folder().join("image.slotlog"));

/// A bit of everything; one that is as good as empty; one in the middle of a resize; one whose log has moved on.
pub static ORIGINALS: LazyLock<[Original; RECIPES]> = LazyLock::new(|| {
    let recipes: [fn(&Store); RECIPES] = [fill, |_| (), resize, clean];
    let steps: [fn(Options) -> Options; RECIPES] = [|o| o, |o| o, Options::tiny_steps, Options::tiny_steps];
    std::array::from_fn(|number| Original::make(&PATH, steps[number](Store::options()), recipes[number]))
});

fn fill(store: &Store) {
    store.insert("before", "the clear").unwrap();
    store.clear().unwrap();
    let map = store.map::<u8, [u8]>("map").unwrap();
    for number in 0..10 {
        map.insert(number, [number; 30]).unwrap();
    }
    map.insert_with_expiry(11, [1], SystemTime::UNIX_EPOCH).unwrap();
    map.insert_with_expiry(12, [2], SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36)).unwrap();
    store.map::<u8, u32>("dropped").unwrap().insert(1, 1).unwrap();
    store.drop_map("dropped").unwrap();
    for number in 0..40 {
        store.insert(key(number), [number; 50]).unwrap();
    }
    // What it pins stays, and so do the records that are replaced from here on.
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
    drop(snapshot);
}

/// In the middle of a resize: a store of tiny steps has just outgrown its index.
fn resize(store: &Store) {
    let goes_on = || word(&fs::read(&*PATH).unwrap(), live::RESIZE_CURSOR) != 0;
    for number in 0..10_000u32 {
        store.insert(number.to_be_bytes(), "").unwrap();
        if number > 200 && goes_on() {
            break;
        }
    }
    store.insert(key(3), "during the resize").unwrap();
    assert!(goes_on(), "the resize has not come to its end");
}

/// Old values go, so that the head of the log moves on, beyond what the superblock of a checkpoint says.
fn clean(store: &Store) {
    for round in 0..24u8 {
        for number in 0..20 {
            store.insert(key(number), [round; 200]).unwrap();
        }
        if round == 12 {
            store.checkpoint().unwrap();
        }
    }
    store.remove(key(4)).unwrap();
    store.compact().unwrap();
    for number in 0..20 {
        store.insert(key(number), "after compaction").unwrap();
    }
}

impl Original {
    fn make(path: &Path, options: Options, fill: impl Fn(&Store)) -> Original {
        // The hashes are the same each time, so that an input does the same each time: recovery takes the seed from the
        // superblock.
        scratch::write(path, &[]);
        Store::open(path).unwrap().close().unwrap();
        let mut empty = fs::read(path).unwrap();
        let superblock = Superblock { hash_seed: 7.into(), uuid: [7; 16], flags: 0.into(), ..newest(&empty) };
        put(&mut empty, SUPERBLOCK_A, superblock.sealed().as_bytes());
        put(&mut empty, SUPERBLOCK_B, superblock.sealed().as_bytes());
        put(&mut empty, live::VERSION_WORD, &[0; 8]);
        scratch::write(path, &empty);

        let store = options.open(path).unwrap();
        fill(&store);
        let killed = fs::read(path).unwrap();
        store.close().unwrap();
        let closed = fs::read(path).unwrap();
        let superblock = newest(&closed);
        let map_table = extent_offset(superblock.map_table.get());
        let first = map_table + TABLE_HEADER;
        let entries = (0..8).map(|entry| first + entry * MAP_ENTRY);
        let of_default = |at: &u64| word(&closed, *at) == u64::from(DEFAULT_MAP) + 1;
        let region = entries.into_iter().find(of_default).map(|at| word(&closed, at + 8) * BLOCK).unwrap();
        let mut records = Vec::new();
        walk(&closed, |offset, _| records.push(offset));
        assert!(!records.is_empty(), "the walk sees the log");
        Original {
            records,
            region,
            lines: word(&closed, region + 16),
            seed: superblock.hash_seed.get(),
            map_table,
            space_table: extent_offset(superblock.space_table.get()),
            closed,
            killed,
        }
    }

    /// The undamaged image.
    pub fn image(&self, state: State) -> Vec<u8> {
        let mut image = if state == State::Closed { self.closed.clone() } else { self.killed.clone() };
        if state == State::Cut {
            put(&mut image, live::VERSION_WORD, &[0; 8]);
        }
        image
    }

    fn record(&self, number: u8) -> u64 {
        self.records[usize::from(number) % self.records.len()]
    }

    fn place(&self, kind: u8, number: u8, offset: u8) -> u64 {
        let (number64, offset) = (u64::from(number), u64::from(offset));
        let place = match kind % 16 {
            0 => SUPERBLOCK_A,
            1 => SUPERBLOCK_B,
            2 => live::VERSION_WORD + 8 * number64,
            3 => PROCESS_TABLE + number64 * 64,
            4..=6 => self.record(number),
            7 => self.region,
            8 => self.region + REGION_HEADER + number64 * LINE,
            9..=10 => {
                // The line where the search for a key begins.
                let line = KeyHash::of(&key(number), self.seed).line(self.lines);
                self.region + REGION_HEADER + line * LINE
            }
            11 => self.map_table,
            12 => self.map_table + TABLE_HEADER + number64 * MAP_ENTRY,
            13 => self.space_table,
            14 => self.space_table + TABLE_HEADER + number64 * SPACE_ENTRY,
            _ => return (number64 << 8 | offset) * 8 % self.closed.len() as u64,
        };
        place + offset
    }

    /// Where a change goes, and what comes there: an instruction of twelve bytes.
    pub fn change(&self, image: &[u8], [place, number, offset, kind, value @ ..]: &[u8; 12]) -> (u64, Vec<u8>) {
        let at = self.place(*place, *number, *offset);
        let there = word(image, at);
        let value_word = u64::from_le_bytes(*value);
        let new = match kind % 12 {
            0 => value_word,
            1 => return (at, vec![value[0]]),
            2 => return (at, value[..4].to_vec()),
            3 => there ^ (1 << (value[0] % 64)),
            4 => there.wrapping_add_signed(i64::from(value[0] as i8)),
            // In place of the low 40 bits of the word that is there: the offset of a record, as slots and versions have
            // it.
            5 => (there >> 40 << 40) | (self.record(value[0]) / 8),
            6 => self.record(value[0]),
            // The length of the file, more or less.
            7 => (image.len() as u64).wrapping_add_signed(i64::from(value[0] as i8) * 8),
            // What another place has.
            8 => word(image, self.place(value[0], value[1], value[2])),
            9 => u64::from(value[0]) << (value[1] % 64),
            10 => return (at, vec![value[0]; usize::from(value[1])]),
            _ => u64::MAX >> (value[0] % 64),
        };
        (at, new.to_le_bytes().to_vec())
    }
}

/// The key with this number: lengths from 0 to 9 and beyond.
pub fn key(number: u8) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        number => [&b"a longer key "[..usize::from(number % 13)], &[number]].concat(),
    }
}

/// The word at an offset, zero outside of the image.
pub fn word(image: &[u8], at: u64) -> u64 {
    let bytes = usize::try_from(at).ok().and_then(|at| image.get(at..)?.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Overwrites what of the range lies inside of the image.
pub fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    if let Some(place) = usize::try_from(at).ok().and_then(|at| image.get_mut(at..)) {
        let len = bytes.len().min(place.len());
        place[..len].copy_from_slice(&bytes[..len]);
    }
}

fn superblock(image: &[u8], at: u64) -> Option<Superblock> {
    Superblock::read_from_prefix(image.get(at as usize..)?).ok().map(|(superblock, _)| superblock)
}

/// The superblock that counts.
pub fn newest(image: &[u8]) -> Superblock {
    let both = [SUPERBLOCK_A, SUPERBLOCK_B].into_iter().filter_map(|at| superblock(image, at));
    both.max_by_key(|superblock| superblock.generation.get()).expect("the image has two pages")
}

/// Goes along the log as long as it looks like one.
fn walk(image: &[u8], mut visit: impl FnMut(u64, &[u8])) {
    let mut at = newest(image).log_head.get();
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

/// Makes the CRCs and the chain of all records hold, and says what the last one's CRC is.
pub fn seal_records(image: &mut [u8]) -> u32 {
    const CHAIN: usize = offset_of!(RecordHeader, chain);

    let mut chain = newest(image).head_chain.get();
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
    chain
}

/// Makes the CRCs of both superblocks hold.
pub fn seal_superblocks(image: &mut [u8]) {
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        if let Some(superblock) = superblock(image, at) {
            put(image, at, superblock.sealed().as_bytes());
        }
    }
}

/// Bits of the second byte of an input: what is done to the image after the changes.
pub mod seal {
    pub const SUPERBLOCKS: u8 = 1;
    pub const RECORDS: u8 = 2;
    /// The length of the file is that of the third and fourth byte, in words.
    pub const LEN: u8 = 4;
    pub const VERIFY_READS: u8 = 8;
    /// Not opened for reading, not opened aside: so much faster.
    pub const NOT_READ: u8 = 16;
    pub const NOT_ASIDE: u8 = 32;
}

/// Makes the image that a head and changes describe. The head is the store (low four bits) and its state (high four
/// bits), the bits of [`seal`], and the length of the file.
pub fn damaged([base, bits, len @ ..]: [u8; 4], changes: &[u8]) -> (&'static Original, Vec<u8>) {
    let original = &ORIGINALS[usize::from(base % 16) % RECIPES];
    let state = [State::Closed, State::Killed, State::Cut][usize::from(base >> 4) % 3];
    let mut image = original.image(state);
    for change in crate::instructions(changes) {
        let (at, bytes) = original.change(&image, change);
        put(&mut image, at, &bytes);
    }
    if bits & seal::RECORDS != 0 {
        seal_records(&mut image);
    }
    if bits & seal::SUPERBLOCKS != 0 {
        seal_superblocks(&mut image);
    }
    if bits & seal::LEN != 0 {
        // Up to two blocks longer than it was.
        let most = image.len() + 2 * BLOCK as usize;
        image.resize(usize::from(u16::from_le_bytes(len)) * 8 % most, 0);
    }
    (original, image)
}
