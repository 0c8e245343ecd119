//! Every byte of a slotlog file, in one place.
//!
//! This module is the specification of the file format and the only home of its numbers. All integers are
//! little-endian. Everything with a name here is either a plain-old-data struct that is read in place through a
//! zero-copy cast (the crate `zerocopy`), with its size asserted at compile time, or the offset of an atomic word.
//! What changes while the store is shared (live area, tables, slots) is only ever touched as an atomic 64-bit word;
//! what is a struct never changes once it is reachable.
//!
//! # The file
//!
//! ```text
//! 0        superblock A   512 bytes used of 4 KiB; identity and checkpoint, with a CRC-32
//! 4 KiB    superblock B   the same; a checkpoint writes A and B in turn
//! 8 KiB    live page      atomic words of the running store: see [`live`]
//! 12 KiB   process table  128 entries of 64 bytes, one for each open store instance
//! 20 KiB   pin table      704 entries of 64 bytes, one for each reader at work
//! 64 KiB   extents        runs of 4 KiB blocks: log, index, table, or free, to the end of the file
//! ```
//!
//! A superblock fills less than one 512-byte sector, the unit that a disk writes whole or not at all, so it is never
//! torn. The live area (8 KiB to 64 KiB) is rebuilt after a power cut and never trusted then.
//!
//! # The log
//!
//! The log is a chain of extents that starts at the superblock's `log_head`. It consists of [records](RecordHeader)
//! one behind the other, each 8-byte aligned; the last one in each extent is a [jump](Kind::Jump) to the first of the
//! next. A record is laid out as
//!
//! ```text
//! header            32 bytes
//! deadline           8 bytes, only with the flag EXPIRES: milliseconds since 1970
//! key               key_len bytes, then zeros up to a multiple of 8
//! value             value_len bytes, then zeros up to a multiple of 8
//! ```
//!
//! so that values start 8-byte aligned and plain-old-data can be borrowed in place. The CRC covers all of it after
//! the CRC itself, padding included, in one contiguous pass.
//!
//! # What a walk of the log accepts
//!
//! A walk accepts a record only if its CRC holds, its `chain` is the CRC of the record before it, and its sequence
//! number does not go back and belongs to an incarnation that an [incarnation record](Kind::Incarnation) (or the
//! superblock) has declared. It accepts a commit only when it reaches the record that carries
//! [`COMMIT`](flags::COMMIT). A record of a later commit has a larger sequence number than the commit before;
//! numbers may be skipped. Kind zero is reserved, so zero-filled space never parses as a record.
//!
//! # The index
//!
//! Each map has one [region](RegionHeader): a header and then *lines* of 64 bytes, one cache line each. A line is six
//! [slots](slot) and two words with 21 further hash bits for each slot. A slot holds 24 bits of the key's hash and
//! the file offset of the newest record of that key. All that is derived from the log and can be built anew from it.
//!
//! # Tables
//!
//! The *map table* says where the region of each map is. The *space table* lists every extent in use; space that it
//! does not list is free. Both are extents of their own with a [`TableHeader`] and entries of two words; one word in
//! the live area says where each is, so that replacing a table is one store.
//!
//! # Maps
//!
//! Map 0 is the catalogue, an ordinary map from the name of a map to a [`CatalogueEntry`]. The empty name holds the
//! next map id to give out; ids are never used again. Map 1 is the default map, which has no name and no entry.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The unit of allocation, in bytes. Extents start and end at multiples of it.
pub const BLOCK: u64 = 4096;
/// The first eight bytes of a slotlog file.
pub const MAGIC: [u8; 8] = *b"slotlog\0";
/// The first eight bytes of a file whose creation has begun and not ended. Nothing in such a file is of value.
pub const CREATION_MAGIC: [u8; 8] = *b"slotlog+";
/// The version of the format that this build reads and writes.
pub const VERSION: u32 = 1;
/// Incompatible features that this build understands. A file that has another bit set is refused.
pub const KNOWN_INCOMPATIBLE: u64 = 0;

/// File offset of superblock A.
pub const SUPERBLOCK_A: u64 = 0;
/// File offset of superblock B.
pub const SUPERBLOCK_B: u64 = 4096;
/// File offset of the live page.
pub const LIVE: u64 = 8192;
/// File offset of the process table.
pub const PROCESS_TABLE: u64 = 12288;
/// Entries in the process table.
pub const PROCESSES: u64 = 128;
/// Bytes of an entry of the process table.
pub const PROCESS_LEN: u64 = 64;
/// File offset of the pin table.
pub const PIN_TABLE: u64 = 20480;
/// Entries in the pin table.
pub const PINS: u64 = 704;
/// Bytes of an entry of the pin table: a cache line, so that readers do not disturb each other.
pub const PIN_LEN: u64 = 64;
/// File offset of the first extent.
pub const EXTENTS: u64 = 65536;

const _: () = assert!(PROCESS_TABLE + PROCESSES * PROCESS_LEN == PIN_TABLE);
const _: () = assert!(PIN_TABLE + PINS * PIN_LEN == EXTENTS);

/// Bits of a sequence number that count commits; the 20 bits above them are the incarnation.
pub const COUNT_BITS: u32 = 44;
/// Mask of the counting part of a sequence number.
pub const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// The largest incarnation.
pub const MAX_INCARNATION: u64 = (1 << 20) - 1;
/// File offsets are stored in 40 bits, in units of 8 bytes: a store has at most 8 TiB.
pub const MAX_FILE_LEN: u64 = 1 << 43;
/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = u16::MAX as usize;
/// The longest value, in bytes.
pub const MAX_VALUE_LEN: u64 = u32::MAX as u64;
/// Map ids have 24 bits.
pub const MAX_MAP: u32 = (1 << 24) - 1;

/// The id of the catalogue.
pub const CATALOGUE: u32 = 0;
/// The id of the default map.
pub const DEFAULT_MAP: u32 = 1;

/// Who the store is, and what of its log was known to be durable when this was written.
///
/// A superblock is overwritten only when the other one is known to be flushed; the valid one with the higher
/// `generation` counts.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Superblock {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`]. Compared before anything else that follows is believed.
    pub version: U32,
    /// [`BLOCK`].
    pub block: U32,
    /// Features without which the file cannot be read; see [`KNOWN_INCOMPATIBLE`].
    pub incompatible: U64,
    /// Features that a reader may ignore.
    pub compatible: U64,
    /// Random identity of the store.
    pub uuid: [u8; 16],
    /// Random seed of the key hash.
    pub hash_seed: U64,
    /// Counts superblocks written.
    pub generation: U64,
    /// Offset of the first record of the log.
    pub log_head: U64,
    /// Offset of the extent that holds `log_head`.
    pub head_extent: U64,
    /// The smallest sequence number that the record at `log_head` may have; its incarnation is declared by this.
    pub head_seq: U64,
    /// The `chain` that the record at `log_head` has.
    pub head_chain: U32,
    /// The CRC of the last record before `log_end`. Only meaningful with [`CLEAN`](superblock_flags::CLEAN).
    pub end_chain: U32,
    /// Offset behind the last record of the last commit that was durable. A walk that does not get here means damage.
    pub log_end: U64,
    /// The sequence number of the next commit.
    pub next_seq: U64,
    /// The highest sequence number that compaction has left behind the head.
    pub behind_seq: U64,
    /// Length of the file in bytes.
    pub file_len: U64,
    /// The map table's word (see [`table_word`]). Only meaningful with `CLEAN`.
    pub map_table: U64,
    /// The space table's word. Only meaningful with `CLEAN`.
    pub space_table: U64,
    /// Bytes of the records between head and end. Only meaningful with `CLEAN`.
    pub log_bytes: U64,
    /// Number of the records between head and end. Only meaningful with `CLEAN`.
    pub log_records: U64,
    /// When the store was created: milliseconds since 1970.
    pub created: U64,
    /// When this superblock was written: milliseconds since 1970.
    pub written: U64,
    /// See [`superblock_flags`].
    pub flags: U32,
    /// Zeros.
    pub reserved: [u8; 328],
    /// CRC-32 of the 508 bytes before.
    pub crc: U32,
}
const _: () = assert!(size_of::<Superblock>() == 512);

/// Bits of [`Superblock::flags`].
pub mod superblock_flags {
    /// The store was closed: log, regions and tables were flushed, and nothing has changed since.
    pub const CLEAN: u32 = 1;
}

impl Superblock {
    /// The CRC-32 that belongs into `crc`.
    pub fn expected_crc(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..508])
    }

    /// The same superblock with its CRC set.
    pub fn sealed(mut self) -> Superblock {
        self.crc = self.expected_crc().into();
        self
    }

    /// Whether the store was closed and not changed since.
    pub fn is_clean(&self) -> bool {
        self.flags.get() & superblock_flags::CLEAN != 0
    }
}

/// File offsets of the words of the live page, grouped by who writes them when; a group is one cache line.
pub mod live {
    use super::LIVE;

    /// Version of the live area; another one is not trusted.
    pub const VERSION_WORD: u64 = LIVE;
    /// The value of [`VERSION_WORD`] in this build.
    pub const VERSION: u64 = u64::from_le_bytes(*b"live\x01\0\0\0");
    /// Six words that say which page cache this is: boot id (two words), device, inode, birth time, mount.
    pub const IDENTITY: u64 = LIVE + 8;
    /// Words in [`IDENTITY`].
    pub const IDENTITY_WORDS: u64 = 6;
    /// Bits that survive a kill; see the constants `STATE_*`.
    pub const STATE: u64 = LIVE + 56;
    /// In [`STATE`]: a flush has failed, so nothing since is known to be durable.
    pub const STATE_POISONED: u64 = 1;
    /// In [`STATE`]: a superblock that says CLEAN may be on its way to the disk.
    pub const STATE_CLOSING: u64 = 2;

    /// Sequence number below which space may have been reused: no reader may start below it.
    pub const HORIZON: u64 = LIVE + 64;
    /// Where the map table is; see [`table_word`](super::table_word).
    pub const MAP_TABLE: u64 = LIVE + 72;
    /// Where the space table is.
    pub const SPACE_TABLE: u64 = LIVE + 80;
    /// Offset of the superblock in force, the one that is known to be flushed.
    pub const SUPERBLOCK: u64 = LIVE + 88;
    /// Offset of the first record of the log.
    pub const LOG_HEAD: u64 = LIVE + 96;
    /// Offset of the extent that holds the first record.
    pub const HEAD_EXTENT: u64 = LIVE + 104;
    /// The `chain` of the first record.
    pub const HEAD_CHAIN: u64 = LIVE + 112;
    /// The smallest sequence number that the first record may have.
    pub const HEAD_SEQ: u64 = LIVE + 120;

    /// The writer lock word: the holder's process-table entry plus one in the high 32 bits, zero when nobody writes; how
    /// often the lock was taken in the low 32.
    pub const WRITER_LOCK: u64 = LIVE + 128;

    /// The commit point: see [`commit_word`](super::commit_word). From its store on, a commit survives a kill.
    pub const COMMIT_POINT: u64 = LIVE + 192;
    /// Offset behind the last commit whose slots are all published.
    pub const TAIL: u64 = LIVE + 200;
    /// The CRC of the last record before [`TAIL`].
    pub const CHAIN: u64 = LIVE + 208;

    /// Sequence number of the last visible commit.
    pub const VISIBLE: u64 = LIVE + 256;
    /// Counts user commits; what a waiter for changes sleeps on.
    pub const CHANGES: u64 = LIVE + 264;

    /// Two banks of {seq, bytes, records} for the whole log; the one with the larger seq counts.
    pub const LOG_TOTALS: u64 = LIVE + 320;
    /// Words of one bank of [`LOG_TOTALS`].
    pub const LOG_TOTALS_WORDS: u64 = 3;

    /// An index resize at work: map plus one in the high 32 bits, next line in the low 32; zero when there is none.
    pub const RESIZE_CURSOR: u64 = LIVE + 384;
    /// Offset of the region that a resize builds.
    pub const RESIZE_TARGET: u64 = LIVE + 392;
    /// The log's bytes when the last checkpoint was taken.
    pub const CHECKPOINT_BYTES: u64 = LIVE + 400;
    /// Counts changes of the space table, for those who keep a copy of what it says.
    pub const SPACE_CHANGES: u64 = LIVE + 408;
    /// The highest sequence number that compaction has left behind the head.
    pub const BEHIND_SEQ: u64 = LIVE + 416;
}

/// Word offsets inside an entry of the process table.
pub mod process {
    /// The process id plus one, zero while the entry is free.
    pub const PID: u64 = 0;
    /// When the store was opened: milliseconds since 1970.
    pub const SINCE: u64 = 8;
    /// How it was opened: one of the three constants below.
    pub const MODE: u64 = 16;
    /// In [`MODE`]: for reading and writing, together with others.
    pub const SHARED: u64 = 1;
    /// In [`MODE`]: for reading only.
    pub const READ_ONLY: u64 = 2;
    /// In [`MODE`]: for reading and writing, alone.
    pub const EXCLUSIVE: u64 = 3;
    /// The boot id of the system that holds the entry, first word.
    pub const BOOT: u64 = 24;
}

/// Words of a pin: the claim and, for pins that are held for long, when it was taken.
pub mod pin {
    use super::{COUNT_BITS, COUNT_MASK};

    /// Word offset of the claim: process-table entry plus one above [`COUNT_BITS`], the counting part of the pinned
    /// sequence number below, or [`COUNT_MASK`] while a thread keeps the pin and does not use it; zero while it is free.
    pub const CLAIM: u64 = 0;
    /// Word offset of the time at which a snapshot took the pin: milliseconds since 1970, zero for a single read.
    pub const SINCE: u64 = 8;

    /// The claim of `entry` at sequence number `seq`.
    #[inline]
    pub const fn claim(entry: u64, seq: u64) -> u64 {
        ((entry + 1) << COUNT_BITS) | (seq & COUNT_MASK)
    }

    /// The counting part of the sequence number in a claim.
    #[inline]
    pub const fn count(claim: u64) -> u64 {
        claim & COUNT_MASK
    }
}

/// The commit point word: the offset behind the commit in the low 40 bits, in units of 8 bytes, and the low 24 bits of
/// its sequence number above. Since it never runs ahead of the visible sequence number by more than a few, that is
/// enough to know all of it.
#[inline]
pub const fn commit_word(end: u64, seq: u64) -> u64 {
    (end / 8) | (seq << 40)
}

/// The end offset in a [`commit_word`].
#[inline]
pub const fn commit_end(word: u64) -> u64 {
    (word & ((1 << 40) - 1)) * 8
}

/// The sequence number in a [`commit_word`], given the visible one.
#[inline]
pub const fn commit_seq(word: u64, visible: u64) -> u64 {
    let ahead = (word >> 40).wrapping_sub(visible) & 0xff_ffff;
    visible + ahead
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// The key has this value from now on.
    Put = 1,
    /// The key is gone from now on: a tombstone.
    Remove = 2,
    /// All keys of the map are gone from now on. The value is the offset of the fresh region (8 bytes), of use only to
    /// whoever finishes the commit of a killed process.
    Clear = 3,
    /// The log goes on elsewhere. The value is the offset of the next extent (8 bytes). Its sequence number is that
    /// of the commit that it leads to; before an incarnation record, that of the record before it.
    Jump = 4,
    /// A new life of the store begins: its sequence number declares the incarnation.
    Incarnation = 5,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[inline]
    pub const fn from_u8(kind: u8) -> Option<Kind> {
        match kind {
            1 => Some(Kind::Put),
            2 => Some(Kind::Remove),
            3 => Some(Kind::Clear),
            4 => Some(Kind::Jump),
            5 => Some(Kind::Incarnation),
            _ => None,
        }
    }
}

/// Bits of [`RecordHeader::flags`].
pub mod flags {
    /// The last record of its commit.
    pub const COMMIT: u8 = 1;
    /// The put made a key that was not there. Counters derive from it.
    pub const NEW: u8 = 2;
    /// Compaction moved this record here.
    pub const COPY: u8 = 4;
    /// Eight bytes before the key say when the entry expires.
    pub const EXPIRES: u8 = 8;
}

/// The header of a record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RecordHeader {
    /// CRC-32 of everything in the record behind this field.
    pub crc: U32,
    /// The `crc` of the record before it in the log. Only a walk looks at it.
    pub chain: U32,
    /// Bytes of the value.
    pub value_len: U32,
    /// Bytes of the key.
    pub key_len: U16,
    /// A [`Kind`].
    pub kind: u8,
    /// See [`flags`].
    pub flags: u8,
    /// The number of the commit that wrote the record: 20 bits of incarnation, 44 bits of count.
    pub seq: U64,
    /// The record that this one replaces (its offset in units of 8 bytes, 0 if none) in the low 40 bits, the map in
    /// the 24 bits above.
    pub prev_and_map: U64,
}
const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER as usize);
const _: () = assert!(flags::EXPIRES == 8);

/// Bytes of a [`RecordHeader`].
pub const RECORD_HEADER: u64 = 32;
/// Bytes of a jump record, which every log extent keeps free at its end.
pub const JUMP_LEN: u64 = RECORD_HEADER + 8;

impl RecordHeader {
    /// Packs the fields that share a word.
    #[inline]
    pub fn pack_prev_and_map(prev: u64, map: u32) -> U64 {
        U64::new((prev / 8) | (u64::from(map) << 40))
    }

    /// Offset of the record that this one replaces; zero if none.
    #[inline]
    pub fn prev(&self) -> u64 {
        (self.prev_and_map.get() & ((1 << 40) - 1)) * 8
    }

    /// The map that the record belongs to.
    #[inline]
    pub fn map(&self) -> u32 {
        (self.prev_and_map.get() >> 40) as u32
    }

    /// Bytes of the optional fields between header and key.
    #[inline]
    pub fn optional_len(&self) -> u64 {
        // The bit has the value of the length that it stands for.
        u64::from(self.flags & flags::EXPIRES)
    }

    /// Bytes from the start of the record to its key.
    #[inline]
    pub fn key_start(&self) -> u64 {
        RECORD_HEADER + self.optional_len()
    }

    /// Bytes from the start of the record to its value: a multiple of 8.
    #[inline]
    pub fn value_start(&self) -> u64 {
        self.key_start() + align8(u64::from(self.key_len.get()))
    }

    /// Bytes of the whole record: a multiple of 8.
    #[inline]
    pub fn record_len(&self) -> u64 {
        self.value_start() + align8(u64::from(self.value_len.get()))
    }
}

/// Bytes of a record with a key and a value of these lengths and no optional fields.
#[inline]
pub const fn record_len(key_len: u64, value_len: u64) -> u64 {
    RECORD_HEADER + align8(key_len) + align8(value_len)
}

/// The next multiple of 8.
#[inline]
pub const fn align8(n: u64) -> u64 {
    (n + 7) & !7
}

/// The next multiple of [`BLOCK`].
#[inline]
pub const fn align_block(n: u64) -> u64 {
    (n + BLOCK - 1) & !(BLOCK - 1)
}

/// The header of a region: one map's index. Its lines follow.
///
/// The first six fields never change once the region is in force. The two banks of totals are words: a commit writes
/// the bank that does not count and stores its `seq` last, so that finishing a commit twice counts nothing twice.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegionHeader {
    /// [`REGION_MAGIC`].
    pub magic: [u8; 8],
    /// The map.
    pub map: U64,
    /// How many lines follow.
    pub lines: U64,
    /// Blocks of the extent.
    pub blocks: U64,
    /// The sequence number from which on this region tells the whole truth about its map: of the map's creation or of
    /// its last clear. A resize takes it over.
    pub since: U64,
    /// Offset of the region that a reader below `since` needs, 0 if there was none.
    pub previous: U64,
    /// Two banks of {seq, keys, bytes, slots, dead}.
    pub totals: [[U64; 5]; 2],
}
const _: () = assert!(size_of::<RegionHeader>() == REGION_HEADER as usize);

/// The magic of a region.
pub const REGION_MAGIC: [u8; 8] = *b"slotidx\0";
/// Bytes of a [`RegionHeader`].
pub const REGION_HEADER: u64 = 128;
/// Offset of the banks inside a region's header.
pub const REGION_TOTALS: u64 = 48;
/// Words of one bank of a region.
pub const REGION_TOTALS_WORDS: u64 = 5;
/// Bytes of a line: a cache line.
pub const LINE: u64 = 64;
/// Slots in a line.
pub const SLOTS: usize = 6;

/// How many lines a region of so many blocks has.
#[inline]
pub const fn lines_of_blocks(blocks: u64) -> u64 {
    (blocks * BLOCK - REGION_HEADER) / LINE
}

/// A slot: 24 bits of hash, the tag, above a 40-bit file offset in units of 8 bytes.
///
/// **Invariants.** A slot points at the newest committed record of its key, a put or a tombstone. It is published by
/// one release store, its further hash bits before it. It never goes back to never-used in place. It is given to
/// another key only when its tombstone is older than every pin.
pub mod slot {
    /// Never used: a probe ends here.
    pub const EMPTY: u64 = 0;
    /// Was used: a probe goes on, an insert may take it.
    pub const DEAD: u64 = 1;

    /// The slot of a key with this tag whose newest record is at `offset`.
    #[inline]
    pub const fn new(tag: u64, offset: u64) -> u64 {
        (tag << 40) | (offset / 8)
    }

    /// The tag of a slot.
    #[inline]
    pub const fn tag(slot: u64) -> u64 {
        slot >> 40
    }

    /// The file offset in a slot.
    #[inline]
    pub const fn offset(slot: u64) -> u64 {
        (slot & ((1 << 40) - 1)) * 8
    }
}

/// The 45 hash bits of a key that the index keeps.
///
/// Let h be these bits. The line of the key is `(h × lines) >> 45` (Lemire, *Fast Random Integer Generation in an
/// Interval*, 2019) and its tag the low 24 bits: any number of lines will do, line and tag use different bits, and
/// going through h in order goes through the lines in order, whatever their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash(u64);

impl KeyHash {
    /// Bits in a hash.
    pub const BITS: u32 = 45;
    /// Bits of the tag.
    pub const TAG_BITS: u32 = 24;
    /// Further bits, kept at the end of the line.
    pub const FURTHER_BITS: u32 = 21;

    /// The hash of a key: the high 45 bits of XXH3-64 with the store's seed.
    #[inline]
    pub fn of(key: &[u8], seed: u64) -> KeyHash {
        KeyHash(xxhash_rust::xxh3::xxh3_64_with_seed(key, seed) >> (64 - KeyHash::BITS))
    }

    /// The hash whose tag and further bits are known.
    #[inline]
    pub const fn from_parts(tag: u64, further: u64) -> KeyHash {
        KeyHash((further << KeyHash::TAG_BITS) | tag)
    }

    /// The 24 bits that are in the slot.
    #[inline]
    pub const fn tag(self) -> u64 {
        self.0 & ((1 << KeyHash::TAG_BITS) - 1)
    }

    /// The 21 bits at the end of the line.
    #[inline]
    pub const fn further(self) -> u64 {
        self.0 >> KeyHash::TAG_BITS
    }

    /// The line where the search for the key begins, in a region of so many lines.
    #[inline]
    pub const fn line(self, lines: u64) -> u64 {
        ((self.0 as u128 * lines as u128) >> KeyHash::BITS) as u64
    }

    /// All 45 bits.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The header of the map table and of the space table. Entries of [`TABLE_ENTRY`] bytes follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TableHeader {
    /// [`MAP_TABLE_MAGIC`] or [`SPACE_TABLE_MAGIC`].
    pub magic: [u8; 8],
    /// Room for so many entries.
    pub capacity: U64,
    /// Zeros.
    pub reserved: [u8; 48],
}
const _: () = assert!(size_of::<TableHeader>() == TABLE_HEADER as usize);

/// The magic of a map table.
pub const MAP_TABLE_MAGIC: [u8; 8] = *b"slotmap\0";
/// The magic of a space table.
pub const SPACE_TABLE_MAGIC: [u8; 8] = *b"slotspc\0";
/// Bytes of a [`TableHeader`].
pub const TABLE_HEADER: u64 = 64;
/// Bytes of an entry, two words. In the map table: the map id plus one (0: vacant), then the [`extent_word`] of its
/// region. In the space table: an [`extent_word`], then a [`state_word`] (0: vacant).
pub const TABLE_ENTRY: u64 = 16;

/// How many entries a table of so many blocks has.
#[inline]
pub const fn entries_of_blocks(blocks: u64) -> u64 {
    (blocks * BLOCK - TABLE_HEADER) / TABLE_ENTRY
}

/// The live word that says where a table is: its first block in the low 32 bits, its blocks above.
#[inline]
pub const fn table_word(offset: u64, blocks: u64) -> u64 {
    extent_word(offset, blocks)
}

/// A run of blocks in one word: the first in the low 32 bits, how many above.
#[inline]
pub const fn extent_word(offset: u64, blocks: u64) -> u64 {
    (offset / BLOCK) | (blocks << 32)
}

/// Offset in bytes of an [`extent_word`].
#[inline]
pub const fn extent_offset(word: u64) -> u64 {
    (word & 0xffff_ffff) * BLOCK
}

/// Blocks of an [`extent_word`].
#[inline]
pub const fn extent_blocks(word: u64) -> u64 {
    word >> 32
}

/// What an extent in the space table is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum ExtentKind {
    /// Records.
    Log = 1,
    /// A region.
    Index = 2,
    /// A map table or a space table.
    Table = 3,
    /// Held back, so that a full store can still remove.
    Reserve = 4,
    /// No longer used, but a reader from before its sequence number may still be looking.
    Retired = 5,
    /// A log extent made from the reserve: only what shrinks the store may be appended to it.
    ReserveLog = 6,
}

impl ExtentKind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(kind: u8) -> Option<ExtentKind> {
        match kind {
            1 => Some(ExtentKind::Log),
            2 => Some(ExtentKind::Index),
            3 => Some(ExtentKind::Table),
            4 => Some(ExtentKind::Reserve),
            5 => Some(ExtentKind::Retired),
            6 => Some(ExtentKind::ReserveLog),
            _ => None,
        }
    }
}

/// The second word of an entry of the space table: the kind in the high 8 bits, and the counting part of the sequence
/// number at which the extent got it.
#[inline]
pub const fn state_word(kind: ExtentKind, seq: u64) -> u64 {
    ((kind as u64) << 56) | (seq & COUNT_MASK)
}

/// The value of an entry of the catalogue.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CatalogueEntry {
    /// The map's id.
    pub map: U32,
    /// The version that the user gave to its types.
    pub version: U32,
    /// Fingerprint of its key and value types.
    pub fingerprint: U64,
}
const _: () = assert!(size_of::<CatalogueEntry>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_word_gives_back_what_went_in() {
        for visible in [1, 0xff_fffe, 0xff_ffff, 1 << 44, (7 << 44) | 0xff_ffff] {
            for ahead in 0..3 {
                let word = commit_word(0x7_1234_5678, visible + ahead);
                assert_eq!(commit_end(word), 0x7_1234_5678);
                assert_eq!(commit_seq(word, visible), visible + ahead);
            }
        }
    }

    #[test]
    fn a_hash_is_its_tag_and_its_further_bits() {
        let hash = KeyHash::of(b"key", 7);
        assert_eq!(KeyHash::from_parts(hash.tag(), hash.further()), hash);
        assert!(hash.tag() < 1 << 24 && hash.further() < 1 << 21);
        for lines in [1, 62, 1000, 1 << 37] {
            assert!(hash.line(lines) < lines);
        }
        assert_eq!(KeyHash::from_parts(0xff_ffff, 0x1f_ffff).line(62), 61);
    }
}
