//! The log: records one after the other, in a chain of extents.
//!
//! [`record`] reads one in place. [`Tail`] appends. Two iterators follow the log: a [`Walk`] trusts nothing and checks
//! everything that [`layout`](super::layout) says a walk accepts; a [`Scan`] reads records that are known to be
//! committed.

use std::sync::LazyLock;

use crc32fast::Hasher;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{
    CATALOGUE, JUMP_LEN, KeyHash, Kind, MAX_COUNT, MapId, Offset, RECORD_HEADER, RecordHeader, Seq, Shortcut, align8,
    flags, is_name, record_len,
};
use super::mapping::{Mapping, Window};
use crate::error::{Error, Result};

/// Records up to this length are put together in one buffer and stored at once.
const SMALL: u64 = 1024;
/// A shorter buffer does for most of them, and is cleared faster.
const USUAL: u64 = 256;

/// A record, read in place.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Its offset in the file.
    pub(crate) offset: Offset,
    /// Its header.
    pub(crate) header: &'a RecordHeader,
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The key.
    #[inline(always)]
    pub(crate) fn key(&self) -> &'a [u8] {
        let start = self.header.key_start() as usize;
        &self.bytes[start..start + usize::from(self.header.key_len.get())]
    }

    /// The value.
    #[inline(always)]
    pub(crate) fn value(&self) -> &'a [u8] {
        let start = self.header.value_start() as usize;
        &self.bytes[start..start + self.header.value_len.get() as usize]
    }

    /// When the entry expires, in milliseconds since 1970, if it does.
    #[inline(always)]
    pub(crate) fn expires(&self) -> Option<u64> {
        if self.header.expires_len() == 0 {
            return None;
        }
        let field = self.bytes.get(RECORD_HEADER as usize..)?;
        U64::read_from_prefix(field).ok().map(|(deadline, _)| deadline.get())
    }

    /// The shortcut to an older version, if there is one.
    #[inline]
    pub(crate) fn shortcut(&self) -> Option<Shortcut> {
        if self.header.shortcut_len() == 0 {
            return None;
        }
        let field = self.bytes.get((RECORD_HEADER + self.header.expires_len()) as usize..)?;
        Shortcut::read_from_prefix(field).ok().map(|(shortcut, _)| shortcut)
    }

    /// What the record is, if its kind is a known one.
    #[inline]
    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.header.kind)
    }

    /// Its sequence number.
    #[inline]
    pub(crate) fn seq(&self) -> Seq {
        Seq::of_field(self.header.seq)
    }

    /// Its length in bytes.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Its length without a shortcut, as the counters of live bytes count it: a copy need not have the original's
    /// shortcut.
    #[inline]
    pub(crate) fn counted_len(&self) -> u64 {
        self.len() - self.header.shortcut_len()
    }

    /// Offset after its last byte.
    #[inline]
    pub(crate) fn end(&self) -> Offset {
        self.offset + self.len()
    }

    /// Whether it is the last record of its commit.
    #[inline]
    pub(crate) fn is_commit(&self) -> bool {
        self.header.flags & flags::COMMIT != 0
    }

    /// Whether compaction has moved it here.
    #[inline]
    pub(crate) fn is_copy(&self) -> bool {
        self.header.flags & flags::COPY != 0
    }

    /// Whether it tells of something that a user has changed: copies, what the catalogue keeps for the store itself,
    /// and what only connects the log, do not.
    pub(crate) fn tells(&self) -> bool {
        matches!(self.kind(), Some(Kind::Put | Kind::Remove | Kind::Clear))
            && !self.is_copy()
            && (self.header.map() != CATALOGUE || is_name(self.key()))
    }

    /// Whether it removes its key, and that is no damage of a record that gave it a value.
    pub(crate) fn is_sound_tombstone(&self) -> bool {
        self.kind() == Some(Kind::Remove) && self.crc_holds()
    }

    /// Whether it stands for a record that was damaged: see [quarantine](crate::format#quarantine).
    #[inline]
    pub(crate) fn is_damaged(&self) -> bool {
        self.header.flags & flags::DAMAGED != 0
    }

    /// The hash of its key in a store with this seed. It outlives a lost key.
    #[inline]
    pub(crate) fn hash(&self, seed: u64) -> KeyHash {
        if self.is_damaged() { self.hash_of_damaged(seed) } else { KeyHash::of(self.key(), seed) }
    }

    #[cold]
    fn hash_of_damaged(&self, seed: u64) -> KeyHash {
        match self.value().first_chunk() {
            Some(bits) if self.key().is_empty() => KeyHash::from_bits(u64::from_le_bytes(*bits)),
            _ => KeyHash::of(self.key(), seed),
        }
    }

    /// The CRC that it should have if this is its chain.
    pub(crate) fn crc_after(&self, chain: u32) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&chain.to_le_bytes());
        hasher.update(&self.bytes[8..]);
        hasher.finalize()
    }

    /// The offset that the value of a jump or a clear holds.
    pub(crate) fn target(&self) -> Option<Offset> {
        self.value().try_into().ok().map(|bytes| Offset(u64::from_le_bytes(bytes)))
    }

    /// Whether the CRC holds.
    pub(crate) fn crc_holds(&self) -> bool {
        self.expected_crc() == self.header.crc.get()
    }

    /// The CRC that it should have.
    pub(crate) fn expected_crc(&self) -> u32 {
        crc_of(&self.bytes[4..])
    }
}

/// The record at `offset`. Only that it lies inside the file is checked.
#[inline(always)]
pub(crate) fn record(mapping: &Mapping, offset: Offset) -> Result<Record<'_>> {
    if offset < Offset::EXTENTS || !offset.is_aligned(8) {
        return Err(not_a_record(mapping, offset));
    }
    let header: &RecordHeader = mapping.header(offset)?;
    let bytes = mapping.frozen(offset, header.record_len())?;
    Ok(Record { offset, header, bytes })
}

/// A key that a reader at `seq` looks for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'k> {
    pub(crate) map: MapId,
    pub(crate) key: &'k [u8],
    pub(crate) seq: Seq,
}

/// What a glance at a record tells a search for a key.
pub(crate) enum Glance<'a> {
    /// The value of the key.
    Value(&'a [u8]),
    /// It is the record of another key.
    Another,
    /// Nothing: it is not the usual record, which puts a value that does not expire, is not too new, and has no
    /// shortcut; or there is no record.
    Unclear,
}

/// Mask of the header word with lengths, kind and flags, without the length of the value and the flags that readers
/// ignore.
const WHAT: u64 = !((flags::COMMIT | flags::NEW | flags::COPY) as u64) << 56 | 0xff_ffff << 32;

/// Looks at the record at `offset` the short way, which most reads take: one comparison of the header tells whether the
/// record is a usual one.
#[inline(always)]
pub(crate) fn glance<'a>(window: Window<'a>, offset: Offset, wanted: Wanted<'_>) -> Glance<'a> {
    if offset < Offset::EXTENTS {
        return Glance::Unclear;
    }
    let Some([_, what, seq, prev_and_map]) = window.frozen_words(offset) else { return Glance::Unclear };
    let key_len = wanted.key.len();
    if what.get() & WHAT != (Kind::Put as u64) << 48 | (key_len as u64) << 32 || key_len > usize::from(u16::MAX) {
        return Glance::Unclear;
    }
    let value_at = align8(key_len as u64);
    let value_len = what.get() & u64::from(u32::MAX);
    let Some(bytes) = window.frozen(offset + RECORD_HEADER, value_at + value_len) else { return Glance::Unclear };
    let Some((key, value)) = bytes.split_at_checked(value_at as usize) else { return Glance::Unclear };
    if !is_same(&key[..key_len], wanted.key) || prev_and_map.get() >> 40 != u64::from(wanted.map) {
        return Glance::Another;
    }
    if Seq(seq.get()) > wanted.seq { Glance::Unclear } else { Glance::Value(value) }
}

/// Key and value of the record at `offset`, if it is a usual one of this map and not newer than `seq`: see [`Glance`].
#[inline(always)]
pub(crate) fn glance_at_entry<'a>(
    window: Window<'a>,
    offset: Offset,
    map: MapId,
    seq: Seq,
) -> Option<(&'a [u8], &'a [u8])> {
    const KIND: u64 = WHAT & !(0xffff << 32);

    let [_, what, found_seq, prev_and_map] = window.frozen_words(offset).filter(|_| offset >= Offset::EXTENTS)?;
    let what = what.get();
    let is_usual = what & KIND == (Kind::Put as u64) << 48;
    if !is_usual || Seq(found_seq.get()) > seq || prev_and_map.get() >> 40 != u64::from(map) {
        return None;
    }
    let (key_len, value_len) = (what >> 32 & 0xffff, what & u64::from(u32::MAX));
    let bytes = window.frozen(offset + RECORD_HEADER, align8(key_len) + value_len)?;
    let (key, value) = bytes.split_at_checked(align8(key_len) as usize)?;
    Some((key.get(..key_len as usize)?, value))
}

/// The number of the record at `offset`.
#[inline(always)]
pub(crate) fn seq_of(window: Window<'_>, offset: Offset) -> Option<Seq> {
    window.frozen_words(offset).map(|[_, _, seq, _]| Seq(seq.get()))
}

/// Whether two keys of the same length are the same. Most are short, and a call of `memcmp` would take longer.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (Some(one_end), Some(other_end)) = (one.last_chunk(), other.last_chunk()) else { return one == other };
    if one.len() > 64 {
        return one == other;
    }
    let differ = |one: &[u8; 8], other: &[u8; 8]| u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other);
    let end = if one.len().is_multiple_of(8) { 0 } else { differ(one_end, other_end) };
    let words = one.as_chunks().0.iter().zip(other.as_chunks().0);
    words.fold(end, |differs, (one, other)| differs | differ(one, other)) == 0
}

/// The CRC-32 of a record after its first field. The processor's support for it is detected once.
#[inline]
fn crc_of(bytes: &[u8]) -> u32 {
    static BEGUN: LazyLock<Hasher> = LazyLock::new(Hasher::new);

    let mut hasher = BEGUN.clone();
    hasher.update(bytes);
    hasher.finalize()
}

#[cold]
fn not_a_record(mapping: &Mapping, offset: Offset) -> Error {
    mapping.corrupt(offset, "a record was expected at this offset, and none can be")
}

/// The header of what may be a record, for a reader without a pin: it may be overwritten meanwhile, which the reader
/// finds out afterwards.
pub(crate) fn copy_header(mapping: &Mapping, offset: Offset) -> Result<RecordHeader> {
    if offset < Offset::EXTENTS || !offset.is_aligned(8) {
        return Err(not_a_record(mapping, offset));
    }
    let bytes = mapping.copy(offset, RECORD_HEADER)?;
    RecordHeader::read_from_bytes(&bytes).map_err(|_| not_a_record(mapping, offset))
}

/// The place where the log continues. Only the holder of the writer lock has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Where the next record goes.
    pub(crate) at: Offset,
    /// The CRC of the record before.
    pub(crate) chain: u32,
    /// End of the extent that `at` lies in.
    pub(crate) extent_end: Offset,
    /// The number of the commit that is being appended, for the jumps between its records.
    pub(crate) seq: Seq,
    /// Appended records are flushed at once.
    pub(crate) synced: bool,
}

/// What a record says; the log adds chain and CRC.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) seq: Seq,
    pub(crate) prev: Offset,
    pub(crate) map: MapId,
    /// When the entry expires, in milliseconds since 1970; `None` for never.
    pub(crate) expires: Option<U64>,
    /// A link to an older version than `prev`.
    pub(crate) shortcut: Option<Shortcut>,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// A record that says nothing but its kind and its number.
    pub(crate) fn bare(kind: Kind, seq: Seq) -> Entry<'a> {
        let (prev, map) = (Offset::NONE, CATALOGUE);
        Entry { kind, flags: 0, seq, prev, map, expires: None, shortcut: None, key: &[], value: &[] }
    }

    /// Bytes of the record.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        record_len(self.key.len() as u64, self.value.len() as u64)
            + self.expires.map_or(0, |_| u64::from(flags::EXPIRES))
            + self.shortcut.map_or(0, |_| u64::from(flags::SHORTCUT))
    }

    /// The same without a shortcut; see [`Record::counted_len`].
    pub(crate) fn counted_len(&self) -> u64 {
        self.len() - self.shortcut.as_ref().map_or(0, |shortcut| shortcut.as_bytes().len() as u64)
    }

    /// The optional fields, before the key.
    #[inline(always)]
    fn optional(&self) -> [&[u8]; 2] {
        [self.expires.as_ref().map_or(&[], U64::as_bytes), self.shortcut.as_ref().map_or(&[], Shortcut::as_bytes)]
    }

    /// Puts a small record together, except for its CRC, in a buffer of zeros.
    #[inline(always)]
    fn put_together<'b>(&self, chain: u32, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let bytes = &mut buffer[..self.len() as usize];
        let mut key_at = RECORD_HEADER as usize;
        bytes[..key_at].copy_from_slice(self.header(chain).as_bytes());
        // Most records have none of these.
        if let Some(expires) = &self.expires {
            key_at += put_at(bytes, key_at, expires.as_bytes());
        }
        if let Some(shortcut) = &self.shortcut {
            key_at += put_at(bytes, key_at, shortcut.as_bytes());
        }
        let value_at = key_at + align8(self.key.len() as u64) as usize;
        put_at(bytes, key_at, self.key);
        put_at(bytes, value_at, self.value);
        bytes
    }

    #[inline(always)]
    fn header(&self, chain: u32) -> RecordHeader {
        RecordHeader {
            crc: 0.into(),
            chain: chain.into(),
            value_len: (self.value.len() as u32).into(),
            key_len: (self.key.len() as u16).into(),
            kind: self.kind as u8,
            flags: self.flags
                | if self.expires.is_some() { flags::EXPIRES } else { 0 }
                | if self.shortcut.is_some() { flags::SHORTCUT } else { 0 },
            seq: self.seq.to_field(),
            prev_and_map: RecordHeader::pack_prev_and_map(self.prev.0, self.map),
        }
    }
}

/// Copies a field to its place in a record, and returns its length.
#[inline(always)]
fn put_at(record: &mut [u8], at: usize, field: &[u8]) -> usize {
    record[at..at + field.len()].copy_from_slice(field);
    field.len()
}

impl Tail {
    /// Whether a record of `len` bytes fits into the extent, with the jump that may have to follow it.
    #[inline]
    pub(crate) fn has_room(&self, len: u64) -> bool {
        len + JUMP_LEN <= self.extent_end - self.at
    }

    /// Appends a record, and returns its offset. There must be room. As long as it is the last one, it can still be
    /// given the flag that makes it a commit; see [`Tail::seal`].
    #[inline(always)]
    pub(crate) fn append(&mut self, mapping: &Mapping, entry: &Entry<'_>) -> Result<Offset> {
        let len = entry.len();
        debug_assert!(len <= self.extent_end - self.at, "a record reaches beyond its extent");
        if len > SMALL {
            return self.append_large(mapping, *entry);
        }
        if len > USUAL {
            self.append_small(mapping, entry, &mut [0; SMALL as usize])
        } else {
            self.append_small(mapping, entry, &mut [0; USUAL as usize])
        }
    }

    #[inline(always)]
    fn append_small(&mut self, mapping: &Mapping, entry: &Entry<'_>, buffer: &mut [u8]) -> Result<Offset> {
        let bytes = entry.put_together(self.chain, buffer);
        let crc = crc_of(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.write(mapping, self.at, bytes)?;
        let offset = self.at;
        self.at += bytes.len() as u64;
        self.chain = crc;
        Ok(offset)
    }

    #[inline]
    fn write(&self, mapping: &Mapping, offset: Offset, bytes: &[u8]) -> Result<()> {
        if self.synced { mapping.append(offset, bytes) } else { mapping.write(offset, bytes) }
    }

    /// Appends a record in its parts. The entry comes as a value: the way of a small one need not have it in memory.
    #[cold]
    fn append_large(&mut self, mapping: &Mapping, entry: Entry<'_>) -> Result<Offset> {
        let offset = self.at;
        self.write(mapping, offset, entry.header(self.chain).as_bytes())?;
        let mut at = offset + RECORD_HEADER;
        let [expires, shortcut] = entry.optional();
        for part in [expires, shortcut, entry.key, entry.value] {
            self.write(mapping, at, part)?;
            at += part.len() as u64;
            let padding = (at.align(8) - at) as usize;
            self.write(mapping, at, &[0; 8][..padding])?;
            at += padding as u64;
        }
        self.seal(mapping, offset, 0)?;
        self.at = at;
        Ok(offset)
    }

    /// Completes the record at `offset`, the last one appended, with further flags and its CRC.
    pub(crate) fn seal(&mut self, mapping: &Mapping, offset: Offset, further: u8) -> Result<()> {
        const FLAGS: u64 = std::mem::offset_of!(RecordHeader, flags) as u64;

        if further != 0 {
            let flags = record(mapping, offset)?.header.flags | further;
            self.write(mapping, offset + FLAGS, &[flags])?;
        }
        let crc = crc_of(&record(mapping, offset)?.bytes[4..]);
        self.write(mapping, offset, &crc.to_le_bytes())?;
        self.chain = crc;
        Ok(())
    }

    /// Appends the jump to the extent from `start` to `end` and continues there. There is always room for the jump.
    pub(crate) fn jump(&mut self, mapping: &Mapping, start: Offset, end: Offset) -> Result<()> {
        let target = start.0.to_le_bytes();
        self.append(mapping, &Entry { value: &target, ..Entry::bare(Kind::Jump, self.seq) })?;
        self.at = start;
        self.extent_end = end;
        Ok(())
    }

    /// Wipes the bytes after the tail that a walk would read as a header, durably, so that it finds no commit there.
    pub(crate) fn wipe(&self, mapping: &Mapping) -> Result<()> {
        mapping.write(self.at, &[0; RECORD_HEADER as usize])?;
        mapping.flush(self.at, RECORD_HEADER)
    }
}

/// Iterates over the records from `at` to `end`, which are known to be committed, and follows the jumps.
pub(crate) struct Scan<'a> {
    mapping: &'a Mapping,
    at: Offset,
    end: Offset,
    left: u64,
}

impl<'a> Scan<'a> {
    /// The records from `at` to `end`.
    pub(crate) fn new(mapping: &'a Mapping, at: Offset, end: Offset) -> Scan<'a> {
        Scan { mapping, at, end, left: mapping.len() }
    }

    /// Whether no record is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    fn step(&mut self) -> Result<Record<'a>> {
        let record = record(self.mapping, self.at)?;
        // A chain of jumps that leads in circles is longer than the file.
        self.left = (self.left.checked_sub(record.len()))
            .ok_or_else(|| self.mapping.corrupt(self.at, "the log runs in circles"))?;
        self.at = match record.kind() {
            Some(Kind::Jump) => {
                record.target().ok_or_else(|| self.mapping.corrupt(record.offset, "a jump without target"))?
            }
            Some(_) => record.end(),
            None => return Err(self.mapping.corrupt(record.offset, "expected a record of the log")),
        };
        Ok(record)
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.end {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.at = self.end;
        }
        Some(step)
    }
}

/// Where a walk begins: the head of the log, by the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) at: Offset,
    pub(crate) chain: u32,
    /// The smallest sequence number that the first record may have.
    pub(crate) seq: Seq,
}

/// Iterates over the log from its head, as far as it holds.
pub(crate) struct Walk<'a> {
    mapping: &'a Mapping,
    at: Offset,
    chain: u32,
    /// The smallest sequence number that any record may have.
    least: Seq,
    /// Sequence number of the last complete commit.
    last: Seq,
    /// Sequence number of the commit whose records are being passed.
    open: Option<Seq>,
    left: u64,
    /// Why the walk ended.
    stop: &'static str,
    end: Option<Offset>,
}

impl<'a> Walk<'a> {
    /// A walk from `head` to where the log ends, or to `end` if that is known.
    pub(crate) fn new(mapping: &'a Mapping, head: Head, end: Option<Offset>) -> Walk<'a> {
        Walk {
            mapping,
            at: head.at,
            chain: head.chain,
            least: head.seq,
            last: head.seq.before(),
            open: None,
            left: mapping.len(),
            stop: "",
            end,
        }
    }

    /// Where the walk is: after the last record that it accepted, or at its target if it was a jump.
    pub(crate) fn at(&self) -> Offset {
        self.at
    }

    /// The CRC of the last record that was accepted.
    pub(crate) fn last_crc(&self) -> u32 {
        self.chain
    }

    /// Sequence number of the last complete commit, or one less than the head's if there was none.
    pub(crate) fn last_seq(&self) -> Seq {
        self.last
    }

    /// Whether the walk is between two commits.
    pub(crate) fn is_between_commits(&self) -> bool {
        self.open.is_none()
    }

    /// Why the record at which the walk ended does not hold.
    pub(crate) fn stop(&self) -> &'static str {
        self.stop
    }

    fn check(&self) -> std::result::Result<Record<'a>, &'static str> {
        let Ok(record) = record(self.mapping, self.at) else {
            return Err("a record that lies inside the file was expected");
        };
        let Some(kind) = record.kind() else {
            return Err("a record of a known kind was expected");
        };
        if record.len() > self.left {
            return Err("the log runs in circles");
        }
        if record.header.chain.get() != self.chain {
            return Err("the record does not follow the one before it (chain)");
        }
        if !record.crc_holds() {
            return Err("the CRC of the record does not hold");
        }
        let seq = record.seq();
        let declared = seq.incarnation() == self.last.incarnation();
        let in_order = match (self.open, kind) {
            (Some(open), kind) => seq == open && kind != Kind::Incarnation,
            (None, Kind::Incarnation) => seq > self.last && !declared && record.is_commit(),
            (None, Kind::Jump) => seq >= self.last && declared,
            (None, _) => seq > self.last && declared,
        };
        // A jump may have the number of the commit before it, but there is none before the first record. And no store
        // counts past the last number.
        if !in_order || seq < self.least || seq.count() > MAX_COUNT {
            return Err("the sequence number of the record is not the next");
        }
        if kind == Kind::Jump && (record.is_commit() || record.target().is_none()) {
            return Err("the jump has no target");
        }
        Ok(record)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.end == Some(self.at) {
            return None;
        }
        let record = match self.check() {
            Ok(record) => record,
            Err(stop) => {
                self.stop = stop;
                return None;
            }
        };
        self.left -= record.len();
        self.chain = record.header.crc.get();
        self.at = record.end();
        if record.kind() == Some(Kind::Jump) {
            self.at = record.target().unwrap_or(self.at);
        }
        // A jump with the number of the commit before it leads to an incarnation record and begins no commit.
        self.open = Some(record.seq()).filter(|&seq| seq > self.last && !record.is_commit());
        if record.is_commit() {
            self.last = record.seq();
        }
        Some(record)
    }
}
