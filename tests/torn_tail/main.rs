//! What a recovery makes of the end of a log: logs written by hand, record by record, that are torn or damaged at every
//! byte of their last two commits, or that continue with records that have a valid CRC and must not be believed
//! nevertheless. And what it makes of a complete log: the same store.
//!
//! A file written to a new path is a copy to the store, so it is recovered as after a power cut: only superblock and
//! log count. Each time the records found by the recovery must be those that the table expects, the content is
//! compared, and the store must work afterwards, be closed and recovered again.
#![allow(missing_docs, clippy::unwrap_used)]

mod refused;
#[path = "../support/mod.rs"]
mod support;
mod torn;
mod whole;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use slotlog::format::{
    BLOCK, COUNT_BITS, DEFAULT_MAP, EXTENTS, JUMP_LEN, Kind, MAGIC, MAX_FILE_LEN, RecordHeader, SUPERBLOCK_A,
    SUPERBLOCK_B, Superblock, align_block, align8, flags, superblock_flags,
};
use slotlog::{Error, Opened, Store};
use support::{Random, assert_clean, folder};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use Step::{Clear, Incarnation, Jump, Put, Remove};
use flags::{COMMIT, NEW};

/// Offsets of the second and the third extent of a log, if it has any. The first one is at the start of the extents.
/// The third is where the new store, the template of all images, has its index, which recovery does not need.
const SECOND: u64 = 0x40000;
const THIRD: u64 = 0x20000;

/// A value that spans sectors.
const SECTORS: &str = text(&[b's'; 600]);
/// A value that does not fit into the first extent.
const LONG: &str = text(&[b'l'; 70_000]);
/// A value whose record begins at 65584 and leaves room for a jump in its block, and for nothing else.
const FILLER: &str = text(&[b'f'; 3968]);

const fn text<const N: usize>(bytes: &'static [u8; N]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("these are letters"),
    }
}

/// A sequence number.
const fn seq(incarnation: u64, count: u64) -> u64 {
    (incarnation << COUNT_BITS) | count
}

type Content<'a> = &'a [(&'a str, &'a str)];

/// One record of a commit as the store would write it. The remaining fields follow from the records before.
#[derive(Clone, Copy)]
enum Step {
    Put(&'static str, &'static str),
    Remove(&'static str),
    Clear,
    /// The log continues at this offset. Before an incarnation record, the jump has the number of the record before.
    Jump(u64),
    Incarnation,
}

/// A record with arbitrary fields. It gets a valid CRC.
#[derive(Clone)]
struct Literal {
    kind: u8,
    flags: u8,
    seq: u64,
    prev: u64,
    key: &'static str,
    value: Vec<u8>,
    /// Its offset, unless it follows the record before.
    at: Option<u64>,
    /// Its chain, if wrong.
    chain: Option<u32>,
    /// The length of its value that it claims, if wrong.
    value_len: Option<u32>,
}

impl Literal {
    fn new(kind: Kind, flags: u8, seq: u64, key: &'static str, value: &[u8]) -> Literal {
        let value = value.to_vec();
        Literal { kind: kind as u8, flags, seq, prev: 0, key, value, at: None, chain: None, value_len: None }
    }

    fn kind(self, kind: u8) -> Literal {
        Literal { kind, ..self }
    }

    fn at(self, at: u64) -> Literal {
        Literal { at: Some(at), ..self }
    }

    fn chain(self, chain: u32) -> Literal {
        Literal { chain: Some(chain), ..self }
    }

    fn value_len(self, len: u32) -> Literal {
        Literal { value_len: Some(len), ..self }
    }
}

/// The state of a log after a commit, as far as recovery tells.
#[derive(Clone, Copy)]
struct Mark {
    /// Records so far, and their bytes.
    records: usize,
    bytes: u64,
    seq: u64,
    end: u64,
}

/// A file that is being written by hand.
struct Log {
    image: Vec<u8>,
    superblock: Superblock,
    /// Offsets of its extents.
    extents: Vec<u64>,
    /// Byte ranges of the records, in the order of the log.
    records: Vec<Range<usize>>,
    /// Before the first commit, and after each.
    marks: Vec<Mark>,
    /// The offset of the next record, and its chain.
    at: u64,
    chain: u32,
    /// For each key, the newest record, and whether it is a put.
    newest: BTreeMap<&'static str, (u64, bool)>,
}

impl Log {
    fn new(template: &[u8]) -> Log {
        let superblock = Superblock::read_from_prefix(template).unwrap().0;
        let (at, chain) = (superblock.log_head.get(), superblock.head_chain.get());
        let mark = Mark { records: 0, bytes: 0, seq: superblock.head_seq.get() - 1, end: at };
        Log {
            image: template.to_vec(),
            superblock,
            extents: vec![at],
            records: Vec::new(),
            marks: vec![mark],
            at,
            chain,
            newest: BTreeMap::new(),
        }
    }

    fn of(template: &[u8], commits: &[Commit]) -> Log {
        let mut log = Log::new(template);
        commits.iter().for_each(|commit| log.commit(commit));
        log
    }

    /// Writes a record, and returns its offset.
    fn append(&mut self, literal: &Literal) -> u64 {
        let offset = literal.at.unwrap_or(self.at);
        let mut header = RecordHeader {
            crc: 0.into(),
            chain: literal.chain.unwrap_or(self.chain).into(),
            value_len: literal.value_len.unwrap_or(literal.value.len() as u32).into(),
            key_len: (literal.key.len() as u16).into(),
            kind: literal.kind,
            flags: literal.flags,
            seq: literal.seq.into(),
            prev_and_map: RecordHeader::pack_prev_and_map(literal.prev, DEFAULT_MAP),
        };
        let mut bytes = header.as_bytes().to_vec();
        for part in [literal.key.as_bytes(), &literal.value] {
            bytes.extend(part);
            bytes.resize(align8(bytes.len() as u64) as usize, 0);
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.image.len() < end {
            // As long as a store makes its file: an extent ends with room for a jump.
            self.image.resize(align_block(end as u64 + JUMP_LEN) as usize, 0);
        }
        // The CRC also covers bytes that a record only claims, unless they are too many to write.
        if header.record_len() < 1 << 20 {
            bytes.resize(header.record_len() as usize, 0);
        }
        self.chain = crc32fast::hash(&bytes[4..]);
        header.crc = self.chain.into();
        bytes[..4].copy_from_slice(&header.as_bytes()[..4]);
        self.image[start..end].copy_from_slice(&bytes[..end - start]);
        self.records.push(start..end);
        self.at = end as u64;
        offset
    }

    /// Marks the log as complete up to here.
    fn mark(&mut self, seq: u64) {
        let bytes = self.records.iter().map(|record| record.len() as u64).sum();
        self.marks.push(Mark { records: self.records.len(), bytes, seq, end: self.at });
    }

    fn commit(&mut self, commit: &Commit) {
        let before = self.marks.last().unwrap().seq;
        for (number, step) in commit.steps.iter().enumerate() {
            let flags = if number + 1 == commit.steps.len() { COMMIT } else { 0 };
            let literal = |kind, flags, key, value: &[u8]| Literal::new(kind, flags, commit.seq, key, value);
            match *step {
                Put(key, value) => {
                    let newest = self.newest.get(key).copied();
                    let new = if newest.is_some_and(|(_, is_put)| is_put) { 0 } else { NEW };
                    let prev = newest.map_or(0, |(record, _)| record);
                    let put = Literal { prev, ..literal(Kind::Put, flags | new, key, value.as_bytes()) };
                    let record = self.append(&put);
                    self.newest.insert(key, (record, true));
                }
                Remove(key) => {
                    let prev = self.newest[key].0;
                    let record = self.append(&Literal { prev, ..literal(Kind::Remove, flags, key, &[]) });
                    self.newest.insert(key, (record, false));
                }
                Clear => {
                    self.append(&literal(Kind::Clear, flags, "", &THIRD.to_le_bytes()));
                    self.newest.clear();
                }
                Jump(target) => {
                    let leads_to_a_life = matches!(commit.steps[number + 1], Incarnation);
                    let seq = if leads_to_a_life { before } else { commit.seq };
                    self.append(&Literal { seq, ..literal(Kind::Jump, 0, "", &target.to_le_bytes()) });
                    self.extents.push(target);
                    self.at = target;
                }
                Incarnation => {
                    self.append(&literal(Kind::Incarnation, flags, "", &[]));
                    // A recovery keeps no tombstones.
                    self.newest.retain(|_, (_, is_put)| *is_put);
                }
            }
        }
        self.mark(commit.seq);
    }

    /// Makes the superblock say that the log was durable up to `end`.
    fn checkpoint(&mut self, end: u64) {
        self.superblock.log_end = end.into();
        self.superblock = self.superblock.sealed();
        self.image[..512].copy_from_slice(self.superblock.as_bytes());
    }

    /// Byte ranges of the records of a commit; the first commit has number 1.
    fn records_of(&self, commit: usize) -> &[Range<usize>] {
        &self.records[self.marks[commit - 1].records..self.marks[commit].records]
    }

    /// The number of leading commits whose bytes are all right in `bytes`.
    fn intact(&self, bytes: &[u8]) -> usize {
        let is_intact = |record: &Range<usize>| bytes.get(record.clone()) == Some(&self.image[record.clone()]);
        (1..self.marks.len()).take_while(|&commit| self.records_of(commit).iter().all(is_intact)).count()
    }

    /// The offset of the first record that is wrong in `bytes`.
    fn first_damaged(&self, bytes: &[u8]) -> u64 {
        let damaged = |record: &&Range<usize>| bytes.get((*record).clone()) != Some(&self.image[(*record).clone()]);
        self.records.iter().find(damaged).unwrap().start as u64
    }

    /// Byte ranges of the log and the space after its end from `at` on, in the order of the log.
    fn from(&self, at: usize) -> Vec<Range<usize>> {
        let ends = [THIRD as usize, SECOND as usize, self.image.len()];
        let extents = self.extents.iter().filter_map(|&start| {
            let start = start as usize;
            Some(start..ends.into_iter().find(|&end| start < end)?)
        });
        let mut ranges: Vec<Range<usize>> = extents.skip_while(|extent| !extent.contains(&at)).collect();
        ranges[0].start = at;
        ranges
    }
}

/// A commit: its number and its records.
struct Commit {
    seq: u64,
    steps: Vec<Step>,
}

fn commit(incarnation: u64, count: u64, steps: &[Step]) -> Commit {
    Commit { seq: seq(incarnation, count), steps: steps.to_vec() }
}

/// A new store as a file, the same each time, and a folder for files made from it.
struct Workshop {
    folder: TempDir,
    template: Vec<u8>,
}

impl Workshop {
    fn new() -> Workshop {
        let folder = folder();
        let path = folder.path().join("template");
        // Large enough for the places that the logs use.
        let store = Store::options().initial_capacity(10_000).open(&path).unwrap();
        let mut template = fs::read(&path).unwrap();
        drop(store);
        // The first superblock of a store is B. Here it replaces the creation mark in A.
        let (mark, first) = template.split_at_mut(SUPERBLOCK_B as usize);
        mark[..512].copy_from_slice(&first[..512]);
        first[..512].fill(0);
        let mut superblock = Superblock::read_from_prefix(&template).unwrap().0;
        assert_eq!((superblock.log_head.get(), superblock.log_end.get()), (EXTENTS, EXTENTS));
        assert_eq!((superblock.head_seq.get(), superblock.head_chain.get()), (seq(1, 1), 0));
        assert!(!superblock.is_clean() && template.len() as u64 <= SECOND);
        (superblock.hash_seed, superblock.uuid) = (7.into(), [7; 16]);
        template[..512].copy_from_slice(superblock.sealed().as_bytes());
        // The file stays, so that no other file gets its inode and is mistaken for it.
        Workshop { folder, template }
    }

    /// Writes a new file.
    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("store");
        anew(&path, bytes);
        path
    }

    /// Opens a file with these bytes and checks what recovery has found in it.
    fn recovers(&self, bytes: &[u8], mark: Mark, content: Content<'_>, case: &dyn fmt::Display) {
        let path = self.write(bytes);
        let store = Store::open(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
        let found = Opened::AfterPowerCut { records: mark.records as u64, bytes: mark.bytes };
        assert_eq!(store.opened(), found, "{case}");
        shows(&store, content, case);
        let incarnation = mark.seq >> COUNT_BITS;
        assert_eq!(store.stats().unwrap().incarnation, incarnation, "{case}: a life more than there were");
        assert_eq!(u64::from(store.seq().unwrap()) >> COUNT_BITS, incarnation + 1, "{case}");

        store.insert("one more", "insert").unwrap_or_else(|error| panic!("{case}: {error}"));
        let mut content = content.to_vec();
        content.push(("one more", "insert"));
        shows(&store, &content, case);
        // Bytes past the end must not come to life in a later recovery.
        let stats = store.stats().unwrap();
        let again = Opened::AfterPowerCut { records: stats.log_records, bytes: stats.log_bytes };
        let copy = self.folder.path().join("copy");
        anew(&copy, &fs::read(&path).unwrap());
        let copied = Store::open(&copy).unwrap_or_else(|error| panic!("{case}, recovered once more: {error}"));
        assert_eq!(copied.opened(), again, "{case}, recovered once more");
        shows(&copied, &content, case);
        drop(copied);
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.opened(), Opened::Clean, "{case}");
        shows(&store, &content, case);
    }

    /// Opens a file with these bytes, which must be refused as damaged, and returns the offset of the damage.
    fn is_refused(&self, bytes: &[u8], case: &dyn fmt::Display) -> u64 {
        let path = self.write(bytes);
        let Err(Error::Corrupt { offset, .. }) = Store::open(&path) else { panic!("{case}: was not refused") };
        let left = fs::read(path).unwrap();
        assert!(left.len() == bytes.len() && left[EXTENTS as usize..] == bytes[EXTENTS as usize..], "{case}: changed");
        offset
    }
}

/// Puts bytes into a new file, in which no store was ever open.
fn anew(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// Checks that a store shows exactly this, by every method.
fn shows(store: &Store, content: Content<'_>, case: &dyn fmt::Display) {
    let expected = content.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
    let found = support::content(store);
    let keys =
        |content: &BTreeMap<Vec<u8>, Vec<u8>>| content.keys().cloned().map(String::from_utf8).collect::<Vec<_>>();
    // Not `assert_eq!`, which would print the long values.
    assert!(found == expected, "{case}: has the keys {:?}, expected {:?}", keys(&found), keys(&expected));
    assert_eq!(store.len().unwrap(), content.len() as u64, "{case}");
    for (key, value) in content {
        assert!(store.get(key).unwrap().as_deref() == Some(value.as_bytes()), "{case}: get of {key:?}");
    }
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{case}: {:?}", report.findings());
}

/// Damage to a log at one of its bytes.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The byte and all after it are zeros.
    Cut,
    /// The lowest bit of the byte is flipped.
    LowBit,
    /// The highest bit of the byte is flipped.
    HighBit,
    /// The byte and all after it are junk.
    Junk,
    /// The file ends before the byte.
    Truncated,
}

impl Damage {
    const ALL: [Damage; 5] = [Damage::Cut, Damage::LowBit, Damage::HighBit, Damage::Junk, Damage::Truncated];

    fn done_to(self, log: &Log, at: usize) -> Vec<u8> {
        let mut bytes = log.image.clone();
        match self {
            Damage::Cut => log.from(at).into_iter().for_each(|range| bytes[range].fill(0)),
            Damage::LowBit => bytes[at] ^= 0x01,
            Damage::HighBit => bytes[at] ^= 0x80,
            Damage::Junk => {
                let mut random = Random(at as u64);
                for range in log.from(at) {
                    let junk = random.bytes(range.len());
                    bytes[range].copy_from_slice(&junk);
                }
            }
            Damage::Truncated => bytes.truncate(at),
        }
        bytes
    }
}
