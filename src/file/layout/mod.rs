//! Every byte of a slotlog file, in one place.
//!
//! This module is the specification of the file format and the only home of its numbers. All integers are
//! little-endian. Every named part is either a plain-old-data struct that is read in place through a zero-copy cast
//! (the crate `zerocopy`), with its size asserted at compile time, or the offset of an atomic word. What changes while
//! the store is shared (live area, tables, slots) is only ever accessed as atomic 64-bit words; a struct never changes
//! once it is reachable.
//!
//! # The file
//!
//! ```text
//! 0        superblock A   512 bytes used of 4 KiB; identity and checkpoint, with a CRC-32
//! 4 KiB    superblock B   the same; a checkpoint writes A and B in turn
//! 8 KiB    live page      atomic words of the running store: see [`live`]
//! 12 KiB   process table  128 entries of 64 bytes, one for each open store instance
//! 20 KiB   pin table      704 entries of 64 bytes, one for each thread that reads and each commit that is looked at
//! 64 KiB   extents        runs of 4 KiB blocks: log, index, table, or free
//! -4 KiB   seal           the last block of the file: see [the seal](#the-seal)
//! ```
//!
//! A superblock fills less than one 512-byte sector, the unit that a disk writes whole or not at all, so it is never
//! torn. The live area (8 KiB to 64 KiB) is never trusted after a power cut, but rebuilt.
//!
//! # The seal
//!
//! A program that copies a file reads its front first and its end last. If a commit is made in between, the copy has
//! the front from one moment and the end from another. So each commit stores its number twice: in the last block of the
//! file, and right after that in the [commit point](live::COMMIT_POINT), in front of everything that changes. Where
//! both are equal, no commit was made while the part between them was read. [The words](seal) of the seal are
//!
//! * the sequence number of the commit point;
//! * the counter of [changes of the space table](live::SPACE_CHANGES): space can be freed and reused between two
//!   commits;
//! * the generation of the superblock that says that the store is closed. It is flushed before that superblock is
//!   written, and zeroed before the clean flag is cleared, which comes before any change.
//!
//! **Invariants.** A clean flag counts only if the seal has that superblock's generation and the file the length that
//! it says. The live area of a killed process counts only if the seal at the offset in [`SEAL_AT`](live::SEAL_AT) has
//! its numbers, and no record of a later commit follows at the end of the log. In any doubt the log decides, and then
//! it has to reach the commit that [`SYNCED`](live::SYNCED) names.
//!
//! When the file grows or shrinks, the new seal is written first, then the words of the old one are cleared, then
//! `SEAL_AT` is stored: a copy whose front names one place never finds there what was true at another. What lies beyond
//! the seal in force is not in use yet, or no longer, so a process may be killed while the length changes. If it is
//! killed between two of these stores, or between storing the seal and the commit point, the words disagree, which
//! costs a walk of the log and nothing else.
//!
//! # The log
//!
//! The log is a chain of extents that starts at the superblock's `log_head`. It consists of consecutive
//! [records](RecordHeader), each 8-byte aligned; the last one in each extent is a [jump](Kind::Jump) to the first of
//! the next. A record is laid out as
//!
//! ```text
//! header            32 bytes
//! deadline           8 bytes, only with the flag EXPIRES: milliseconds since 1970
//! shortcut          16 bytes, only with the flag SHORTCUT: a far older version of the key
//! key               key_len bytes, then zeros up to a multiple of 8
//! value             value_len bytes, then zeros up to a multiple of 8
//! ```
//!
//! so that values start 8-byte aligned and plain-old-data can be borrowed in place. The CRC covers all of it after the
//! CRC itself, padding included, in one contiguous pass.
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
//! [slots](slot) and two words with 21 further hash bits for each slot. A slot holds 24 bits of the key's hash and the
//! file offset of the newest record of that key. All of it derives from the log and can be rebuilt from it.
//!
//! # Tables
//!
//! The *map table* says where the region of each map is. The *space table* lists every extent in use; space that it
//! does not list is free. Both are extents of their own with a [`TableHeader`] and entries of a few words; one word in
//! the live area gives the place of each, so that replacing a table is one store.
//!
//! The process table and the pin table lie before the extents. A full one continues in an extent of its own, of the
//! kind [`Live`](ExtentKind::Live), with as many entries as exist by then; so the n-th has 2ⁿ times as many as the
//! first part, and an entry of any number is found with a shift. [A word for each](live::PIN_EXTENTS) gives its place.
//! They are part of the live area: forgotten after a power cut, and freed when no process has the store open for
//! writing.
//!
//! # Compaction
//!
//! The log is a queue of extents. Compaction takes records from its head: records that the index still leads to are
//! appended again at the tail, as a commit with the flag [`COPY`](flags::COPY), the others are dropped. Then the
//! [head](live::HEAD) advances. The space before it is [emptied](ExtentKind::Emptied), and free once the superblock in
//! force says so too. A tombstone at the head is dropped: nothing older can exist. The head may lie within a commit
//! whose other records were dropped or copied; a walk that begins there takes the rest for all of it.
//!
//! # Quarantine
//!
//! A live record at the head whose CRC does not hold is appended again as a put with the flags
//! [`COPY`](flags::COPY) and [`DAMAGED`](flags::DAMAGED), so that the log is whole again and the key is not taken for
//! one that was never there. If the hash of its key is that in its slot, key and value are as they were found. If not,
//! the key is lost: the record has an empty key, and its value begins with the hash (8 bytes, the 45 bits of the slot),
//! followed by the bytes of the damaged record if its length was known. A key with this hash is then taken for the lost
//! one. The next put or remove of the key replaces the record like any other.
//!
//! # Resize
//!
//! A larger or smaller region is built line by line beside the one in force, which stays authoritative. **Invariants:**
//! for each key, the new region has what the old one has; and of the lines before the [cursor](live::RESIZE_CURSOR) it
//! has all keys. The switch is one word of the map table. It consumes a sequence number, from which on the new region
//! counts; readers from before it keep using the old one.
//!
//! # Locks
//!
//! An opener locks bytes far beyond the data, for its open file description, and the file as a whole. All openers of a
//! file have to agree on these, so they belong to the format. With L = 2⁶²:
//!
//! | byte | held by |
//! | --- | --- |
//! | L | a process that opens or closes the store: exclusively for writing, shared for reading |
//! | L + 1 | the writer of a superblock, exclusively; reading one takes no lock |
//! | L + 2 | stands in for the whole file where the two kinds of lock collide, which is everywhere except Linux |
//! | L + 3 | shared, by openers of a private copy: meanwhile, opening for writing fails |
//! | L + 4 | shared, by read-only openers; exclusively, by a process that shortens the file |
//! | L + 256 + n | the owner of entry n of the process table, for as long as it has the store open |
//! | L + 2⁴⁸ + c | shared, by each snapshot of a read-only opener of a commit whose sequence number counts c |
//! | L + 2⁵⁰ + o | shared, by a reader that has recovered the store into its own memory; its log began at offset o |
//! | L + 2⁵¹ + c | shared, by the same reader, with the count c of the last commit that it found |
//! | the whole file | shared, by all except those readers; exclusively, by an exclusive opener and by a recovery |
//!
//! # Maps
//!
//! Map 0 is the catalogue, an ordinary map from the name of a map to a [`CatalogueEntry`]. The empty name holds the
//! next map id to assign; ids are never reused. Map 1 is the default map, which has no name and no entry.

mod index;
mod live_area;
mod offset;
mod record;
mod seq;
mod table;
mod wire;

pub use index::*;
pub use live_area::*;
pub(crate) use offset::Offset;
pub use record::*;
pub use table::*;
pub use wire::*;

pub(crate) use crate::seq::Seq;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The unit of allocation, in bytes. Extents start and end at multiples of it.
pub const BLOCK: u64 = 4096;
/// The first eight bytes of a slotlog file.
pub const MAGIC: [u8; 8] = *b"slotlog\0";
/// The first eight bytes of a file whose creation has begun, in the place of superblock A, which is written for the
/// first time when B is known to be flushed. If B is invalid too, the creation was cut short, and nothing in the file
/// is of value.
pub const CREATION_MAGIC: [u8; 8] = *b"slotlog+";
/// The version of the format that this build reads and writes.
pub const VERSION: u32 = 2;
/// Incompatible features that this build understands. A file that has another bit set is rejected.
pub const KNOWN_INCOMPATIBLE: u64 = 0;

/// File offset of superblock A.
pub const SUPERBLOCK_A: u64 = 0;
/// File offset of superblock B.
pub const SUPERBLOCK_B: u64 = 4096;
/// File offset of the live page.
pub const LIVE: u64 = 8192;
/// File offset of the process table.
pub const PROCESS_TABLE: u64 = 12288;
/// Entries in the first part of the process table.
pub const PROCESSES: u64 = 128;
/// Bytes of an entry of the process table.
pub const PROCESS_LEN: u64 = 64;
/// File offset of the pin table.
pub const PIN_TABLE: u64 = 20480;
/// The maximum number of extents that continue the process table.
pub const PROCESS_EXTENTS: u64 = 8;
/// Entries in the first part of the pin table.
pub const PINS: u64 = 704;
/// Bytes of an entry of the pin table: a cache line, so that readers do not disturb each other.
pub const PIN_LEN: u64 = 64;
/// The maximum number of extents that continue the pin table.
pub const PIN_EXTENTS: u64 = 12;
/// File offset of the first extent.
pub const EXTENTS: u64 = 65536;

const _: () = assert!(PROCESS_TABLE + PROCESSES * PROCESS_LEN == PIN_TABLE);
const _: () = assert!(PIN_TABLE + PINS * PIN_LEN == EXTENTS);

/// Bits of a sequence number that count commits; the 20 bits above them are the incarnation.
pub const COUNT_BITS: u32 = 44;
/// Mask of the counting part of a sequence number.
pub const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Commits stop when the count reaches this. The rest is reserved for recovering the store, and for upkeep that is
/// under way.
pub const LAST_COUNT: u64 = COUNT_MASK - (1 << 25);
/// The limit of the count.
pub const MAX_COUNT: u64 = COUNT_MASK - (1 << 24);
/// The largest incarnation.
pub const MAX_INCARNATION: u64 = (1 << 20) - 1;
/// File offsets are stored in 40 bits, in units of 8 bytes: a store has at most 8 TiB.
pub const MAX_FILE_LEN: u64 = 1 << 43;
/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = u16::MAX as usize;
/// The longest value, in bytes.
pub const MAX_VALUE_LEN: u64 = u32::MAX as u64;
/// The id of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub u32);

impl MapId {
    /// The id that is given out after this one.
    #[inline]
    pub const fn next(self) -> MapId {
        MapId(self.0 + 1)
    }
}

impl From<MapId> for u32 {
    #[inline(always)]
    fn from(map: MapId) -> u32 {
        map.0
    }
}

impl From<MapId> for u64 {
    #[inline(always)]
    fn from(map: MapId) -> u64 {
        u64::from(map.0)
    }
}

impl std::fmt::Display for MapId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest map id: 24 bits.
pub const MAX_MAP: MapId = MapId((1 << 24) - 1);

/// The id of the catalogue.
pub const CATALOGUE: MapId = MapId(0);
/// The id of the default map.
pub const DEFAULT_MAP: MapId = MapId(1);

/// The identity of the store, and the part of its log that was known to be durable when this was written.
///
/// A superblock is overwritten only when the other one is known to be flushed; the valid one with the higher
/// `generation` counts.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Superblock {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`]. A file is of another version if none of its superblocks is whole and of this one: what lies beside
    /// a whole one may be half written. So a program that converts a file replaces both superblocks before anything
    /// else.
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
    /// The smallest sequence number that the record at `log_head` may have; it declares that record's incarnation.
    pub head_seq: U64,
    /// The `chain` that the record at `log_head` has.
    pub head_chain: U32,
    /// The CRC of the last record before `log_end`. Only meaningful with [`CLEAN`](superblock_flags::CLEAN).
    pub end_chain: U32,
    /// End offset of the last record of the last commit that was durable. A walk that ends before this means damage.
    pub log_end: U64,
    /// The sequence number of the next commit.
    pub next_seq: U64,
    /// The highest sequence number among the records before the head, which compaction has removed, that tell of
    /// something that a user has changed: copies do not.
    pub behind_seq: U64,
    /// The ordinal of the extent that holds `log_head`, not zero.
    pub head_ordinal: U64,
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
    pub padding: [u8; 4],
    /// Bytes of the records that hold a value, over all maps. Only meaningful with
    /// [`COUNTED`](superblock_flags::COUNTED).
    pub live_bytes: U64,
    /// The words of a resize in progress: [`RESIZE_CURSOR`](live::RESIZE_CURSOR),
    /// [`RESIZE_TARGET`](live::RESIZE_TARGET) and [`RESIZE_ZEROED`](live::RESIZE_ZEROED). Only meaningful with `CLEAN`.
    pub resize: [U64; 3],
    /// Zeros.
    pub reserved: [u8; 292],
    /// CRC-32 of the 508 bytes before.
    pub crc: U32,
}
const _: () = assert!(size_of::<Superblock>() == 512);

/// Bits of [`Superblock::flags`].
pub mod superblock_flags {
    /// The store was closed: log, regions and tables were flushed, and nothing has changed since.
    pub const CLEAN: u32 = 1;
    /// With `CLEAN`: the superblock says how many bytes hold values. Stores from before compaction existed do not have
    /// it.
    pub const COUNTED: u32 = 2;
}

impl Superblock {
    /// The CRC-32 to store in `crc`.
    pub fn expected_crc(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..508])
    }

    /// Whether this is a whole superblock of this version.
    pub fn holds(&self) -> bool {
        self.magic == MAGIC && self.version.get() == VERSION && self.crc.get() == self.expected_crc()
    }

    /// The same superblock with its CRC set.
    pub fn sealed(mut self) -> Superblock {
        self.crc = self.expected_crc().into();
        self
    }

    /// Bytes of the records that hold a value, if the superblock has them.
    pub fn counted_live_bytes(&self) -> Option<u64> {
        (self.flags.get() & superblock_flags::COUNTED != 0).then(|| self.live_bytes.get())
    }

    /// Whether the store was closed and not changed since.
    pub fn is_clean(&self) -> bool {
        self.flags.get() & superblock_flags::CLEAN != 0
    }
}

/// The next multiple of [`BLOCK`].
#[inline]
pub const fn align_block(n: u64) -> u64 {
    (n + BLOCK - 1) & !(BLOCK - 1)
}

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
