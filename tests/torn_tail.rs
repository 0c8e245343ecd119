//! What a recovery makes of the end of a log: logs written out by hand, record by record, that are torn or damaged at
//! every byte of their last two commits, or that go on with what has a CRC that holds and must not be believed all the
//! same. And what it makes of a log that is whole: the same store.
//!
//! A file that is written to a new path is a copy to the store, so it takes the road of a power cut: only superblock
//! and log count. Each time the records that recovery says to have found have to be those that the table expects, the
//! content is compared, and the store has to work afterwards, be closed and recovered again.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

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
use support::{Random, folder};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use Step::{Clear, Incarnation, Jump, Put, Remove};
use flags::{COMMIT, NEW};

/// Where the second and the third extent of a log are, if it has any. The first one is where extents begin. The third
/// is where the new store, of which all images are made, has its index: recovery has no use for that.
const SECOND: u64 = 0x40000;
const THIRD: u64 = 0x20000;

/// A value that spans sectors.
const SECTORS: &str = text(&[b's'; 600]);
/// A value that does not fit into the first extent.
const LONG: &str = text(&[b'l'; 70_000]);
/// A value of a record that begins at 65584 and leaves room for a jump in its block, and for nothing else.
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

/// One record of a commit as the store would write it. What is not said follows from the records before.
#[derive(Clone, Copy)]
enum Step {
    Put(&'static str, &'static str),
    Remove(&'static str),
    Clear,
    /// The log goes on at this offset. In front of an incarnation record it has the number of the record before.
    Jump(u64),
    Incarnation,
}

/// A record with whatever is to be in it. It gets a CRC that holds.
#[derive(Clone)]
struct Literal {
    kind: u8,
    flags: u8,
    seq: u64,
    prev: u64,
    key: &'static str,
    value: Vec<u8>,
    /// Where it is, if not behind the one before.
    at: Option<u64>,
    /// What it says of the one before, if not the truth.
    chain: Option<u32>,
    /// How long it says its value to be, if not the truth.
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

/// Where a log stands behind a commit, as far as recovery tells.
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
    /// Where its extents begin.
    extents: Vec<u64>,
    /// Where the records are, in the order of the log.
    records: Vec<Range<usize>>,
    /// Before the first commit, and behind each.
    marks: Vec<Mark>,
    /// Where the next record goes, and what it will say of the one before.
    at: u64,
    chain: u32,
    /// Of each key, the newest record, and whether it is a put.
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
        // The CRC also covers what a record only says to have, unless that is more than one would want to write.
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

    /// Says that the log is complete up to here.
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

    /// Has the superblock say that the log was durable up to `end`.
    fn checkpoint(&mut self, end: u64) {
        self.superblock.log_end = end.into();
        self.superblock = self.superblock.sealed();
        self.image[..512].copy_from_slice(self.superblock.as_bytes());
    }

    /// Where the records of a commit are; the first one has number 1.
    fn records_of(&self, commit: usize) -> &[Range<usize>] {
        &self.records[self.marks[commit - 1].records..self.marks[commit].records]
    }

    /// How many commits there are of which `bytes` has every byte as it should be, and of all before them.
    fn intact(&self, bytes: &[u8]) -> usize {
        let is_intact = |record: &Range<usize>| bytes.get(record.clone()) == Some(&self.image[record.clone()]);
        (1..self.marks.len()).take_while(|&commit| self.records_of(commit).iter().all(is_intact)).count()
    }

    /// Where the first record is that `bytes` does not have as it should be.
    fn first_damaged(&self, bytes: &[u8]) -> u64 {
        let damaged = |record: &&Range<usize>| bytes.get((*record).clone()) != Some(&self.image[(*record).clone()]);
        self.records.iter().find(damaged).unwrap().start as u64
    }

    /// Where the log and the space that it has behind its end lie from `at` on, in the order of the log.
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

/// A new store as a file, the same each time, and a folder for what is made of it.
struct Workshop {
    folder: TempDir,
    template: Vec<u8>,
}

impl Workshop {
    fn new() -> Workshop {
        let folder = folder();
        let path = folder.path().join("template");
        // So long that the logs which are made of it find their places.
        let store = Store::options().initial_capacity(10_000).open(&path).unwrap();
        let mut template = fs::read(&path).unwrap();
        drop(store);
        // The first superblock of a store is B. Here it is put in the place of the mark of the creation.
        let (mark, first) = template.split_at_mut(SUPERBLOCK_B as usize);
        mark[..512].copy_from_slice(&first[..512]);
        first[..512].fill(0);
        let mut superblock = Superblock::read_from_prefix(&template).unwrap().0;
        assert_eq!((superblock.log_head.get(), superblock.log_end.get()), (EXTENTS, EXTENTS));
        assert_eq!((superblock.head_seq.get(), superblock.head_chain.get()), (seq(1, 1), 0));
        assert!(!superblock.is_clean() && template.len() as u64 <= SECOND);
        (superblock.hash_seed, superblock.uuid) = (7.into(), [7; 16]);
        template[..512].copy_from_slice(superblock.sealed().as_bytes());
        // The file stays, so that no other one gets its inode and is taken for it.
        Workshop { folder, template }
    }

    /// Writes a new file.
    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("store");
        anew(&path, bytes);
        path
    }

    /// Opens a file with these bytes and looks at what recovery has found in it.
    fn recovers(&self, bytes: &[u8], mark: Mark, content: Content<'_>, case: &dyn fmt::Display) {
        let path = self.write(bytes);
        let store = Store::open(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
        let found = Opened::AfterPowerCut { records: mark.records as u64, bytes: mark.bytes };
        assert_eq!(store.opened(), found, "{case}");
        shows(&store, content, case);
        let incarnation = mark.seq >> COUNT_BITS;
        assert_eq!(store.stats().unwrap().incarnation, incarnation, "{case}: a life more than there were");
        assert_eq!(store.seq().unwrap() >> COUNT_BITS, incarnation + 1, "{case}");

        store.insert("one more", "insert").unwrap_or_else(|error| panic!("{case}: {error}"));
        let mut content = content.to_vec();
        content.push(("one more", "insert"));
        shows(&store, &content, case);
        // What lies behind the end must not come to life in a later recovery.
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

    /// Opens a file with these bytes, which is to be refused as damaged, and returns where.
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

fn content_of(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let snapshot = store.snapshot().unwrap();
    snapshot.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Whether a store shows exactly this, whichever way it is asked.
fn shows(store: &Store, content: Content<'_>, case: &dyn fmt::Display) {
    let expected = content.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
    let found = content_of(store);
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

/// What is done to a log at one of its bytes.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The byte and all behind it are zeros.
    Cut,
    /// The byte has another lowest bit.
    LowBit,
    /// The byte has another highest bit.
    HighBit,
    /// The byte and all behind it are junk.
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

/// A row of the table: a log, and what it says before its last two commits, before the last one and in the end.
struct Row {
    name: &'static str,
    commits: Vec<Commit>,
    says: [Content<'static>; 3],
    /// So many of the commits were durable when the superblock was written.
    durable: usize,
}

fn row(name: &'static str, says: [Content<'static>; 3], commits: Vec<Commit>) -> Row {
    Row { name, commits, says, durable: 0 }
}

fn rows_of_single_changes() -> Vec<Row> {
    vec![
        row(
            "two puts in an empty store",
            [&[], &[("a", "1")], &[("a", "1"), ("b", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", "2")])],
        ),
        row(
            "an empty value, an empty key, and neither of both",
            [&[("a", "")], &[("a", ""), ("", "value")], &[("a", ""), ("", "")]],
            vec![commit(1, 1, &[Put("a", "")]), commit(1, 2, &[Put("", "value")]), commit(1, 3, &[Put("", "")])],
        ),
        row(
            "padding",
            [&[("a", "1")], &[("a", "1"), ("123456789", "12345678")], &[("a", "1"), ("123456789", "1")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("123456789", "12345678")]),
                commit(1, 3, &[Put("123456789", "1")]),
            ],
        ),
        row(
            "overwriting",
            [&[("a", "1")], &[("a", "2")], &[("a", "3")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("a", "2")]), commit(1, 3, &[Put("a", "3")])],
        ),
        row(
            "removing",
            [&[("a", "1"), ("b", "2")], &[("b", "2")], &[]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2")]),
                commit(1, 3, &[Remove("a")]),
                commit(1, 4, &[Remove("b")]),
            ],
        ),
        row(
            "removing and putting again",
            [&[("a", "1")], &[], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Remove("a")]), commit(1, 3, &[Put("a", "2")])],
        ),
        row(
            "numbers that were skipped",
            [&[("a", "1")], &[("a", "2")], &[("a", "3")]],
            vec![
                commit(1, 7, &[Put("a", "1")]),
                commit(1, 1000, &[Put("a", "2")]),
                commit(1, 1 << 40, &[Put("a", "3")]),
            ],
        ),
        row(
            "clearing at the end",
            [&[("a", "1")], &[("a", "1"), ("b", "2")], &[]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", "2")]), commit(1, 3, &[Clear])],
        ),
        row(
            "clearing before the end",
            [&[("a", "1"), ("b", "2")], &[], &[("a", "3")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2")]),
                commit(1, 3, &[Clear]),
                commit(1, 4, &[Put("a", "3")]),
            ],
        ),
    ]
}

fn rows_of_transactions() -> Vec<Row> {
    vec![
        row(
            "transactions",
            [&[("a", "1")], &[("a", "x"), ("b", "2"), ("c", "3")], &[("a", "x"), ("c", "3"), ("d", "5")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2"), Put("c", "3"), Put("a", "x")]),
                commit(1, 4, &[Remove("b"), Put("d", "4"), Put("d", "5")]),
            ],
        ),
        row(
            "a transaction that comes to nothing",
            [&[("a", "1")], &[("a", "1")], &[("b", "2")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2"), Remove("b")]),
                commit(1, 3, &[Remove("a"), Put("b", "2")]),
            ],
        ),
    ]
}

fn rows_of_long_values() -> Vec<Row> {
    vec![
        row(
            "a value over sectors at the end",
            [&[], &[("a", "1")], &[("a", "1"), ("b", SECTORS)]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", SECTORS)])],
        ),
        row(
            "a value over sectors before the end",
            [&[("a", "1")], &[("a", SECTORS)], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("a", SECTORS)]), commit(1, 3, &[Put("a", "2")])],
        ),
        row(
            "a block with room for a jump only",
            [&[("a", "1")], &[("a", "1"), ("b", FILLER)], &[("a", "1"), ("b", FILLER), ("c", "3")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", FILLER)]), commit(1, 3, &[Put("c", "3")])],
        ),
    ]
}

fn rows_of_jumps() -> Vec<Row> {
    vec![
        row(
            "a jump at the end",
            [&[], &[("a", "1")], &[("a", "1"), ("b", LONG)]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Jump(SECOND), Put("b", LONG)])],
        ),
        row(
            "a jump before the end",
            [&[("a", "1")], &[("a", "2")], &[("a", "2"), ("b", "3")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Jump(SECOND), Put("a", "2")]),
                commit(1, 3, &[Put("b", "3")]),
            ],
        ),
        row(
            "a transaction that jumps on and back",
            [&[("a", "1")], &[("a", "2")], &[("b", "3"), ("c", "4")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("a", "2")]),
                commit(1, 3, &[Put("b", "3"), Jump(SECOND), Remove("a"), Jump(THIRD), Put("c", "4")]),
            ],
        ),
    ]
}

fn rows_of_lives() -> Vec<Row> {
    vec![
        row(
            "an incarnation at the end",
            [&[("a", "1")], &[("a", "2")], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("a", "2")]), commit(2, 3, &[Incarnation])],
        ),
        row(
            "an incarnation before the end",
            [&[("a", "1")], &[("a", "1")], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(2, 2, &[Incarnation]), commit(2, 3, &[Put("a", "2")])],
        ),
        row(
            "an incarnation behind a jump",
            [&[], &[("a", "1")], &[("a", "1")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(2, 2, &[Jump(SECOND), Incarnation])],
        ),
        row(
            "two incarnations",
            [&[("a", "1")], &[("a", "1")], &[("a", "1")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(2, 2, &[Incarnation]), commit(3, 3, &[Incarnation])],
        ),
        row(
            "an incarnation, and nothing else",
            [&[], &[], &[]],
            vec![commit(2, 1, &[Incarnation]), commit(3, 2, &[Incarnation])],
        ),
    ]
}

fn rows_with_a_checkpoint() -> Vec<Row> {
    let with = |durable, name| Row {
        durable,
        ..row(
            name,
            [&[("a", "1")], &[("a", "2"), ("b", "2")], &[("b", "2")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("a", "2"), Put("b", "2")]),
                commit(1, 3, &[Remove("a")]),
            ],
        )
    };
    let with_jump = Row {
        durable: 2,
        ..row(
            "a checkpoint behind a jump",
            [&[], &[("a", "1")], &[("a", "1"), ("b", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Jump(SECOND), Put("b", "2")])],
        )
    };
    vec![
        with(1, "a checkpoint of the first commit"),
        with(2, "a checkpoint of the last commit but one"),
        with(3, "a checkpoint of everything"),
        with_jump,
    ]
}

/// The bytes of the last two commits that are damaged: all of them, but of the inside of long values only some.
fn places(log: &Log) -> Vec<usize> {
    let last = log.marks.len() - 1;
    let mut places = Vec::new();
    for record in [last - 1, last].into_iter().flat_map(|commit| log.records_of(commit)) {
        let inside = (record.start + 64)..record.end.saturating_sub(16).max(record.start + 64);
        let step = if inside.len() > 128 { (inside.len() / 16) | 1 } else { 1 };
        places.extend(record.start..inside.start.min(record.end));
        places.extend(inside.clone().step_by(step));
        places.extend(inside.end..record.end);
    }
    // Right behind the log it may end without harm.
    places.push(log.at as usize);
    places
}

/// Damages the log of each row at each place in each way.
fn tear(rows: &[Row]) {
    let workshop = Workshop::new();
    for row in rows {
        let mut log = Log::of(&workshop.template, &row.commits);
        log.checkpoint(log.marks[row.durable].end);
        let commits = row.commits.len();
        // What it says after so many commits; of those before the last two it would only be asked by mistake.
        let says = |intact: usize| row.says[intact + 2 - commits];
        workshop.recovers(&log.image, log.marks[commits], says(commits), &row.name);
        for at in places(&log) {
            for damage in Damage::ALL {
                let bytes = damage.done_to(&log, at);
                let intact = log.intact(&bytes);
                let case = format!("{}: {damage:?} at {at}", row.name);
                if intact < row.durable {
                    assert_eq!(workshop.is_refused(&bytes, &case), log.first_damaged(&bytes), "{case}");
                } else {
                    workshop.recovers(&bytes, log.marks[intact], says(intact), &case);
                }
            }
        }
    }
}

#[test]
fn single_changes_are_there_or_not() {
    tear(&rows_of_single_changes());
}

#[test]
fn transactions_are_there_or_not() {
    tear(&rows_of_transactions());
}

#[test]
fn long_values_are_there_or_not() {
    tear(&rows_of_long_values());
}

#[test]
fn commits_that_jump_are_there_or_not() {
    tear(&rows_of_jumps());
}

#[test]
fn new_lives_have_begun_or_not() {
    tear(&rows_of_lives());
}

#[test]
fn what_was_durable_is_there_or_the_store_is_refused() {
    tear(&rows_with_a_checkpoint());
}

/// Where the log ends that the refused records go on from.
const BASE_END: u64 = 65680;
/// What it says.
const BASE: Content<'static> = &[("a", "2"), ("b", "2")];

fn base(template: &[u8]) -> Log {
    let log = Log::of(template, &[commit(1, 1, &[Put("a", "1")]), commit(1, 5, &[Put("b", "2"), Put("a", "2")])]);
    assert_eq!(log.at, BASE_END);
    log
}

/// A row of the other table: records, whose CRCs hold, behind a log that ends with number 5 of the first life.
struct Refused {
    what: &'static str,
    /// So many of them are good. The others would be, if it were not for what the row is about.
    good: usize,
    records: Vec<Literal>,
}

fn refused(what: &'static str, records: &[Literal]) -> Refused {
    Refused { what, good: 0, records: records.to_vec() }
}

fn behind_good(what: &'static str, good: usize, records: &[Literal]) -> Refused {
    Refused { what, good, records: records.to_vec() }
}

/// A put of another key.
fn put(flags: u8, incarnation: u64, count: u64) -> Literal {
    Literal::new(Kind::Put, flags | NEW, seq(incarnation, count), "never", b"seen")
}

/// A put of yet another key, which ends a commit.
fn last(incarnation: u64, count: u64) -> Literal {
    Literal { key: "nor", ..put(COMMIT, incarnation, count) }
}

fn jump(incarnation: u64, count: u64, target: u64) -> Literal {
    Literal::new(Kind::Jump, 0, seq(incarnation, count), "", &target.to_le_bytes())
}

fn life(flags: u8, incarnation: u64, count: u64) -> Literal {
    Literal::new(Kind::Incarnation, flags, seq(incarnation, count), "", &[])
}

fn refused_chains_and_numbers() -> Vec<Refused> {
    vec![
        refused("a chain that is no record's", &[put(COMMIT, 1, 6).chain(0x1234_5678), last(1, 7)]),
        refused("no chain", &[put(COMMIT, 1, 6).chain(0), last(1, 7)]),
        refused("a number that goes back", &[put(COMMIT, 1, 4), last(1, 6)]),
        refused("the number of the commit before", &[put(COMMIT, 1, 5), last(1, 6)]),
        refused("number zero", &[put(COMMIT, 0, 0), last(1, 6)]),
        refused("a life that was not declared", &[put(COMMIT, 2, 6), last(2, 7)]),
        refused("a life before the first", &[put(COMMIT, 0, 6), last(1, 7)]),
        refused("a record without the end of its commit", &[put(0, 1, 6)]),
        refused("records without the end of their commit", &[put(0, 1, 6), Literal { key: "nor", ..put(0, 1, 6) }]),
        refused("another number within a transaction", &[put(0, 1, 6), last(1, 7)]),
        refused("a smaller number within a transaction", &[put(0, 1, 7), last(1, 6)]),
        refused("another life within a transaction", &[put(0, 1, 6), last(2, 6)]),
        refused("a broken chain within a transaction", &[put(0, 1, 6), last(1, 6).chain(0)]),
        refused("kind 0", &[put(COMMIT, 1, 6).kind(0), last(1, 7)]),
        refused("kind 6", &[put(COMMIT, 1, 6).kind(6), last(1, 7)]),
        refused("kind 255", &[put(COMMIT, 1, 6).kind(255), last(1, 7)]),
        refused("an unknown kind within a transaction", &[put(0, 1, 6).kind(6), last(1, 6)]),
        refused("a value as long as can be", &[put(COMMIT, 1, 6).value_len(u32::MAX)]),
        refused("a value that ends behind the file", &[put(COMMIT, 1, 6).value_len(SECOND as u32)]),
    ]
}

/// `file_len` is the length of the file.
fn refused_jumps(file_len: u64) -> Vec<Refused> {
    let value = |jump: Literal, value: &[u8]| Literal { value: value.to_vec(), ..jump };
    let committed = |jump: Literal| Literal { flags: COMMIT, ..jump };
    let twice = [SECOND.to_le_bytes(), SECOND.to_le_bytes()].concat();
    vec![
        refused("a jump that is a commit", &[committed(jump(1, 6, SECOND)), last(1, 7).at(SECOND)]),
        refused("a jump that is the end of its commit", &[put(0, 1, 6), committed(jump(1, 6, SECOND))]),
        refused("a jump that goes on after its commit", &[committed(jump(1, 6, SECOND)), last(1, 6).at(SECOND)]),
        refused("a jump without a target", &[value(jump(1, 6, 0), &[]), last(1, 6)]),
        refused("a jump with half a target", &[value(jump(1, 6, 0), &[0, 0, 4, 0]), last(1, 6).at(SECOND)]),
        refused("a jump with two targets", &[value(jump(1, 6, 0), &twice), last(1, 6).at(SECOND)]),
        refused("a jump to 0", &[jump(1, 6, 0), last(1, 6)]),
        refused("a jump to the end of the file", &[jump(1, 6, file_len), last(1, 6)]),
        refused("a jump behind the file", &[jump(1, 6, file_len + BLOCK), last(1, 6)]),
        refused("a jump to the end of all files", &[jump(1, 6, MAX_FILE_LEN - BLOCK), last(1, 6)]),
        refused("a jump to the last block of all", &[jump(1, 6, u64::MAX - BLOCK + 1), last(1, 6)]),
        refused("a jump to itself", &[jump(1, 6, BASE_END), last(1, 6)]),
        refused("a jump right behind itself", &[jump(1, 6, BASE_END + JUMP_LEN), last(1, 6)]),
        refused("a jump to the head of the log", &[jump(1, 6, EXTENTS), last(1, 6)]),
        refused("a jump into the middle of a record", &[jump(1, 6, EXTENTS + 32), last(1, 6)]),
        refused("a jump to another record", &[jump(1, 6, BASE_END - 48), last(1, 6)]),
        refused("a jump into the middle of a block", &[jump(1, 6, SECOND + 64), last(1, 6).at(SECOND + 64)]),
        refused("a jump to an odd place", &[jump(1, 6, SECOND + 4), last(1, 6).at(SECOND + 4)]),
        refused("a jump in front of the extents", &[jump(1, 6, 0xf000), last(1, 6).at(0xf000)]),
        refused("a jump that leads to nothing", &[jump(1, 6, SECOND)]),
        refused("a jump for a new life that leads to nothing", &[jump(1, 5, SECOND)]),
        refused("a jump that leads to another commit", &[jump(1, 6, SECOND), last(1, 7).at(SECOND)]),
        refused("a jump whose number goes back", &[jump(1, 4, SECOND), last(1, 6).at(SECOND)]),
        refused("a jump of a life that was not declared", &[jump(2, 6, SECOND), last(2, 6).at(SECOND)]),
        refused("a jump of a commit that leads to a new life", &[jump(1, 6, SECOND), life(COMMIT, 2, 7).at(SECOND)]),
        refused("a broken chain behind a jump", &[jump(1, 6, SECOND), last(1, 6).at(SECOND).chain(0)]),
    ]
}

fn refused_lives() -> Vec<Refused> {
    vec![
        refused("a life that does not end its commit", &[life(0, 2, 6), last(2, 7)]),
        refused("a life that others end", &[life(0, 2, 6), last(2, 6)]),
        refused("the same life again", &[life(COMMIT, 1, 6), last(1, 7)]),
        refused("an older life", &[life(COMMIT, 0, 6), last(0, 7)]),
        refused("a new life as the end of a transaction", &[put(0, 1, 6), life(COMMIT, 1, 6)]),
        refused("a new life within a transaction", &[put(0, 1, 6), life(COMMIT, 2, 6), last(2, 7)]),
        refused("a new life with a broken chain", &[life(COMMIT, 2, 6).chain(0), last(2, 7)]),
        behind_good("the life before the last again", 2, &[life(COMMIT, 2, 6), life(COMMIT, 3, 7), life(COMMIT, 2, 8)]),
        behind_good("a stale record of an earlier life", 1, &[life(COMMIT, 2, 6), last(1, 7).chain(0x1234_5678)]),
        behind_good("a stale record whose chain fits", 1, &[life(COMMIT, 2, 6), last(1, 7)]),
        behind_good("stale records in two lives", 2, &[life(COMMIT, 2, 6), life(COMMIT, 3, 7), last(2, 8)]),
        behind_good("the number of the new life", 1, &[life(COMMIT, 2, 6), last(2, 6)]),
        behind_good("an older number in the new life", 1, &[life(COMMIT, 2, 6), last(2, 5)]),
        behind_good("a stale jump", 1, &[life(COMMIT, 2, 6), jump(1, 7, SECOND), last(1, 7).at(SECOND)]),
    ]
}

/// Writes the records of each row behind the base, and sees that none but the good ones is believed.
fn refuse(workshop: &Workshop, rows: &[Refused]) {
    for row in rows {
        let mut log = base(&workshop.template);
        for (number, literal) in row.records.iter().enumerate() {
            log.append(literal);
            if number < row.good {
                log.mark(literal.seq);
            }
        }
        workshop.recovers(&log.image, *log.marks.last().unwrap(), BASE, &row.what);
        // And if the superblock vouches for them, that is damage.
        log.checkpoint(log.at);
        workshop.is_refused(&log.image, &row.what);
    }
}

#[test]
fn chains_numbers_kinds_and_lengths_are_checked() {
    let workshop = Workshop::new();
    refuse(&workshop, &refused_chains_and_numbers());
    // The chain of another record of the same log.
    let log = base(&workshop.template);
    let chain = RecordHeader::read_from_prefix(&log.image[log.records[0].clone()]).unwrap().0.crc.get();
    refuse(&workshop, &[refused("the chain of another record", &[put(COMMIT, 1, 6).chain(chain), last(1, 7)])]);
    // The number of the first record is checked against the superblock.
    for literal in [put(COMMIT, 1, 0), put(COMMIT, 0, 1), put(COMMIT, 2, 1)] {
        let mut log = Log::new(&workshop.template);
        log.append(&literal);
        workshop.recovers(&log.image, log.marks[0], &[], &format!("a first record of number {:#x}", literal.seq));
    }
}

#[test]
fn jumps_are_checked() {
    let workshop = Workshop::new();
    refuse(&workshop, &refused_jumps(workshop.template.len() as u64));
}

#[test]
fn incarnations_are_checked() {
    refuse(&Workshop::new(), &refused_lives());
}

/// What is refused above is refused for what the rows are about: the same records without that are believed.
#[test]
fn good_records_are_believed() {
    let workshop = Workshop::new();
    let rows: [(&str, &[Literal], Content<'_>); 6] = [
        ("a put", &[put(COMMIT, 1, 6)], &[("never", "seen")]),
        ("a transaction", &[put(0, 1, 6), last(1, 6)], &[("never", "seen"), ("nor", "seen")]),
        ("a jump", &[jump(1, 6, SECOND), last(1, 6).at(SECOND)], &[("nor", "seen")]),
        ("a new life", &[life(COMMIT, 2, 6)], &[]),
        ("a jump to a new life", &[jump(1, 5, SECOND), life(COMMIT, 2, 6).at(SECOND)], &[]),
        (
            "a jump within a transaction",
            &[put(0, 1, 6), jump(1, 6, THIRD), last(1, 6).at(THIRD)],
            &[("never", "seen"), ("nor", "seen")],
        ),
    ];
    for (name, records, adds) in rows {
        let mut log = base(&workshop.template);
        for literal in records {
            log.append(literal);
        }
        log.mark(records.last().unwrap().seq);
        workshop.recovers(&log.image, log.marks[3], &[BASE, adds].concat(), &name);
        log.checkpoint(log.at);
        workshop.recovers(&log.image, log.marks[3], &[BASE, adds].concat(), &name);
    }
}

/// A superblock is written behind a commit, so a log that goes through that place without ending a commit there is not
/// the one that was flushed.
#[test]
fn the_durable_end_is_the_end_of_a_commit() {
    let workshop = Workshop::new();
    let mut log = base(&workshop.template);
    for end in (EXTENTS..BASE_END + 64).step_by(8) {
        log.checkpoint(end);
        let case = format!("durable up to {end}");
        if log.marks.iter().any(|mark| mark.end == end) {
            workshop.recovers(&log.image, log.marks[2], BASE, &case);
        } else {
            assert_eq!(workshop.is_refused(&log.image, &case), BASE_END, "{case}");
        }
    }
}

/// An extent that lies within the value of a record, with CRCs that hold all over: one of the two would be overwritten
/// when the other is appended to.
#[test]
fn an_extent_inside_of_a_record_is_refused() {
    let workshop = Workshop::new();
    let mut log = base(&workshop.template);
    let inner = SECOND + BLOCK;
    log.append(&jump(1, 6, inner));
    log.append(&put(COMMIT, 1, 6).at(inner));
    log.append(&jump(1, 7, SECOND));
    // A header and a key of one byte come before the value, which is what lies there already.
    let value = log.image[SECOND as usize + 40..(inner + BLOCK) as usize].to_vec();
    log.append(&Literal { key: "k", value, ..put(COMMIT, 1, 7).at(SECOND) });
    workshop.is_refused(&log.image, &"an extent within a record");
}

/// One operation on a store that is to be recovered.
#[derive(Clone, Debug)]
enum Operation {
    Put(u8, u32),
    Remove(u8),
    /// Puts (with the length of the value) and removals at once; committed or not.
    Transaction(Vec<(u8, Option<u32>)>, bool),
    Clear,
    Checkpoint,
    Reopen,
}

fn lengths() -> impl Strategy<Value = u32> {
    // Around a sector, and longer than the smallest extent of the log.
    prop_oneof![2 => Just(0), 20 => 0..100_u32, 3 => 480..560_u32, 2 => 1000..9000_u32, 1 => 60_000..90_000_u32]
}

fn operations() -> impl Strategy<Value = Operation> {
    let change = (any::<u8>(), prop::option::weighted(0.7, lengths()));
    prop_oneof![
        20 => (any::<u8>(), lengths()).prop_map(|(key, len)| Operation::Put(key, len)),
        10 => any::<u8>().prop_map(Operation::Remove),
        8 => (prop::collection::vec(change, 0..12), prop::bool::weighted(0.7))
            .prop_map(|(changes, committed)| Operation::Transaction(changes, committed)),
        1 => Just(Operation::Clear),
        1 => Just(Operation::Checkpoint),
        2 => Just(Operation::Reopen),
    ]
}

/// A key out of so few that they are overwritten and removed, some of them much longer than others.
fn key(number: u8) -> Vec<u8> {
    vec![b'a' + number % 26; if number.is_multiple_of(29) { 700 } else { number as usize % 4 }]
}

fn value(number: u8, len: u32) -> Vec<u8> {
    Random(number.into()).bytes(len as usize)
}

fn run(store: &Store, operation: &Operation) {
    match operation {
        Operation::Put(number, len) => store.insert(key(*number), value(*number, *len)).unwrap(),
        Operation::Remove(number) => drop(store.remove(key(*number)).unwrap()),
        Operation::Transaction(changes, committed) => {
            let mut transaction = store.begin().unwrap();
            for (number, len) in changes {
                match len {
                    Some(len) => transaction.insert(key(*number), value(*number, *len)).unwrap(),
                    None => drop(transaction.remove(key(*number)).unwrap()),
                }
            }
            if *committed { transaction.commit().unwrap() } else { transaction.rollback() }
        }
        Operation::Clear => store.clear().unwrap(),
        Operation::Checkpoint => store.checkpoint().unwrap(),
        Operation::Reopen => {}
    }
}

/// What of a store a recovery must not change.
#[derive(Debug, PartialEq)]
struct Seen {
    content: BTreeMap<Vec<u8>, Vec<u8>>,
    len: u64,
    live_bytes: u64,
    uuid: String,
    /// Number, keys and bytes of the maps.
    maps: Vec<(u32, u64, u64)>,
}

impl Seen {
    fn of(store: &Store) -> Seen {
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{:?}", report.findings());
        let stats = store.stats().unwrap();
        Seen {
            content: content_of(store),
            len: store.len().unwrap(),
            live_bytes: stats.live_bytes,
            uuid: stats.uuid,
            maps: stats.maps.iter().map(|map| (map.id, map.entries, map.live_bytes)).collect(),
        }
    }
}

/// The file of a closed store, as if it had not been closed.
fn unclosed(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let mut was_clean = false;
    for at in [SUPERBLOCK_A as usize, SUPERBLOCK_B as usize] {
        let mut superblock = Superblock::read_from_prefix(&bytes[at..]).unwrap().0;
        if superblock.magic == MAGIC {
            was_clean |= superblock.is_clean();
            superblock.flags = (superblock.flags.get() & !superblock_flags::CLEAN).into();
            bytes[at..at + 512].copy_from_slice(superblock.sealed().as_bytes());
        }
    }
    assert!(was_clean);
    bytes
}

/// Opens a file with these bytes, and sees that recovery has changed nothing of what the store was before.
fn recovered(path: &Path, bytes: &[u8], before: &Seen, (records, log_bytes, seq): (u64, u64, u64)) -> Store {
    anew(path, bytes);
    let store = as_it_is(path);
    assert_eq!(store.opened(), Opened::AfterPowerCut { records, bytes: log_bytes });
    // Not `assert_eq!`, which would print all values.
    let after = Seen::of(&store);
    let differs = before.content.iter().find(|(key, value)| after.content.get(*key) != Some(value));
    assert!(differs.is_none(), "the value of {:?} is another", differs.unwrap().0);
    assert!(after == *before, "{:?} became {:?}", before.maps, after.maps);
    // The new life is the next one, and its numbers are larger than all before.
    let now = store.seq().unwrap();
    assert_eq!(now >> COUNT_BITS, (seq >> COUNT_BITS) + 1);
    assert!(now & ((1 << COUNT_BITS) - 1) > seq & ((1 << COUNT_BITS) - 1), "{seq:#x} became {now:#x}");
    store
}

/// Opens a store whose log stays as it is when it is closed.
fn as_it_is(path: &Path) -> Store {
    Store::options().auto_compact(None).open(path).unwrap()
}

/// The log as a recovery will find it: how many records of how many bytes, and the number it ends with.
fn log_of(store: &Store) -> (u64, u64, u64) {
    let stats = store.stats().unwrap();
    (stats.log_records, stats.log_bytes, store.seq().unwrap())
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn recovery_of_a_whole_log_changes_nothing(operations in prop::collection::vec(operations(), 0..120)) {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let mut store = as_it_is(&path("store"));
        for operation in &operations {
            if matches!(operation, Operation::Reopen) {
                store.close().unwrap();
                store = as_it_is(&path("store"));
            }
            run(&store, operation);
        }
        // Something is written, so that the store is not as it was closed.
        store.insert("the last", "put").unwrap();
        // From here the log is walked.
        store.checkpoint().unwrap();
        let (before, log) = (Seen::of(&store), log_of(&store));
        // The file that was copied while the store was open.
        drop(recovered(&path("copy"), &fs::read(path("store")).unwrap(), &before, log));
        // The file of the closed store, recovered, closed, and recovered again.
        store.close().unwrap();
        let once = recovered(&path("once"), &unclosed(&path("store")), &before, log);
        let log = log_of(&once);
        once.close().unwrap();
        let twice = recovered(&path("twice"), &unclosed(&path("once")), &before, log);
        // It goes on from there.
        let seq = twice.seq().unwrap();
        twice.insert("the last", "word").unwrap();
        prop_assert!(twice.seq().unwrap() > seq);
        prop_assert_eq!(twice.changes_since(seq).unwrap().iter().count(), 1);
        prop_assert_eq!(twice.len().unwrap(), before.len);
    }
}
