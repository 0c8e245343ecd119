//! The map table, the space table and the catalogue.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BLOCK, COUNT_MASK};

/// The header of the map table and of the space table. Entries of [`MAP_ENTRY`] or [`SPACE_ENTRY`] bytes follow.
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
/// Bytes of an entry of the map table, two words: the map id plus one, with [`DROPPED`] if the map was dropped, then
/// the [`extent_word`] of its region. It stands in the place that has its id, modulo the capacity, or in the next one
/// that was vacant: never used (0), or not any more (`DROPPED` alone). No search goes beyond one that was never used.
pub const MAP_ENTRY: u64 = 16;
/// Bytes of an entry of the space table, three words: an [`extent_word`], a [`state_word`] (0: vacant), and the
/// ordinal.
///
/// The extents of the log are numbered in the order in which it goes through them; what is cut off one keeps its
/// number. So what of the log lies behind a point is what has a larger ordinal, and of the same one what has a larger
/// offset. An extent that never was in the log has none, zero.
pub const SPACE_ENTRY: u64 = 24;

/// The bit of an entry of the map table that says that the map is in the catalogue no more. Readers of older commits
/// may still need its region.
pub const DROPPED: u64 = 1 << 63;

/// How many entries of so many bytes a table of so many blocks has.
#[inline]
pub const fn entries_of_blocks(blocks: u64, entry_len: u64) -> u64 {
    (blocks * BLOCK - TABLE_HEADER) / entry_len
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
    /// Held records that are behind the head of the log. It is free once the head of the superblock in force lies
    /// behind it as well, and no reader is from before its sequence number.
    ///
    /// It may have been cut off a log extent: if that is listed with the same offset, it begins where this one ends.
    Emptied = 7,
    /// Free, and without real space behind it: that has to be allocated before it is used.
    Hole = 8,
    /// Where the pin table or the process table goes on.
    Live = 9,
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
            7 => Some(ExtentKind::Emptied),
            8 => Some(ExtentKind::Hole),
            9 => Some(ExtentKind::Live),
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

/// The value of an entry of the catalogue, whose key is the name of a map. The names of its key and value types follow,
/// as text. The entry with the empty name has the smallest id that was never used, 4 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CatalogueEntry {
    /// The map's id.
    pub map: U32,
    /// The version that the user gave to its types.
    pub version: U32,
    /// Fingerprint of its key and value types: the XXH3 of their names.
    pub fingerprint: U64,
    /// Offset of its first region, of use only to whoever finishes the commit of a killed process; zero if it had one
    /// before.
    pub region: U64,
}
const _: () = assert!(size_of::<CatalogueEntry>() == 24);
