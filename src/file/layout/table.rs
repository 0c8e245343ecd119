//! The map table, the space table and the catalogue.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BLOCK, COUNT_MASK, MapId};

/// The header of the map table and of the space table. Entries of [`MAP_ENTRY`] or [`SPACE_ENTRY`] bytes follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TableHeader {
    /// [`MAP_TABLE_MAGIC`] or [`SPACE_TABLE_MAGIC`].
    pub magic: [u8; 8],
    /// The number of entries that fit.
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
/// the [`extent_word`] of its region. It stands in the place given by its id, modulo the capacity, or in the next one
/// that was vacant: never used (0), or vacated (`DROPPED` alone). A search ends at the first one never used.
pub const MAP_ENTRY: u64 = 16;
/// Bytes of an entry of the space table, three words: an [`extent_word`], a [`state_word`] (0: vacant), and the
/// ordinal.
///
/// The extents of the log are numbered in the order of the log; a piece cut off one keeps its number. So whatever
/// follows a point in the log has a larger ordinal, or the same ordinal and a larger offset. Extents that were never
/// part of the log have the ordinal zero.
pub const SPACE_ENTRY: u64 = 24;

/// The bit of an entry of the map table that says that the map is no longer in the catalogue. Readers of older commits
/// may still need its region.
pub const DROPPED: u64 = 1 << 63;

/// How many entries of this size a table of this many blocks has.
#[inline]
pub const fn entries_of_blocks(blocks: u64, entry_len: u64) -> u64 {
    (blocks * BLOCK - TABLE_HEADER) / entry_len
}

/// The live word that gives the place of a table: its first block in the low 32 bits, the number of blocks above.
#[inline]
pub const fn table_word(offset: u64, blocks: u64) -> u64 {
    extent_word(offset, blocks)
}

/// A run of blocks in one word: the first in the low 32 bits, the number of blocks above.
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
pub(crate) const fn extent_blocks(word: u64) -> u64 {
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
    /// Reserved, so that a full store can still remove.
    Reserve = 4,
    /// No longer used, but a reader from before its sequence number may still be using it.
    Retired = 5,
    /// A log extent made from the reserve: only records that shrink the store may be appended to it.
    ReserveLog = 6,
    /// Held records that are now before the head of the log. It is free once the head of the superblock in force has
    /// passed it as well, and no reader is from before its sequence number.
    ///
    /// It may have been cut off a log extent: if that is listed with the same offset, it begins where this one ends.
    Emptied = 7,
    /// A continuation of the pin table or the process table.
    Live = 8,
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
            8 => Some(ExtentKind::Live),
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
/// as text. Other entries have keys that are no names, since names are UTF-8 and not empty: see [`NEXT_ID`],
/// [`ORIGIN`], [`FOLLOWS`] and [`BOOKMARKS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CatalogueEntry {
    /// The map's id.
    pub map: U32,
    /// The version that the user gave to its types.
    pub version: U32,
    /// Fingerprint of its key and value types: the XXH3 of their names.
    pub fingerprint: U64,
    /// Offset of its first region, used only to finish the commit of a killed process; zero if it had one before.
    pub region: U64,
}

impl CatalogueEntry {
    /// The id of the map.
    #[inline]
    pub fn id(&self) -> MapId {
        MapId(self.map.get())
    }
}
const _: () = assert!(size_of::<CatalogueEntry>() == 24);

/// The key under which the catalogue keeps the smallest id that was never used, 4 bytes.
pub const NEXT_ID: &[u8] = b"";
/// The key under which the catalogue of a copy keeps of which commit of which store it is one: an [`OriginEntry`].
pub const ORIGIN: &[u8] = b"\xfforigin";
/// The key under which the catalogue of an increment keeps which commit of which store it follows: an
/// [`OriginEntry`].
pub const FOLLOWS: &[u8] = b"\xfffollows";
/// The key under which the catalogue keeps the bookmarks: of each a [`BookmarkEntry`], followed by its name.
pub const BOOKMARKS: &[u8] = b"\xffbookmarks";

/// Whether a key of the catalogue is the name of a map.
#[inline]
pub(crate) fn is_name(key: &[u8]) -> bool {
    key.first().is_some_and(|&first| first != 0xff)
}

/// Which commit of which store a store is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct OriginEntry {
    /// The random identity of the store.
    pub uuid: [u8; 16],
    /// The number of the commit.
    pub seq: U64,
    /// The CRC of the last record up to it, which tells histories apart that have the same numbers; 0 if that is not
    /// known.
    pub crc: U32,
    /// Zero.
    pub reserved: U32,
}
const _: () = assert!(size_of::<OriginEntry>() == 32);

/// A bookmark: a commit after which the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BookmarkEntry {
    /// The number of the commit.
    pub seq: U64,
    /// How many dead bytes of the log are kept for it.
    pub limit: U64,
    /// Bytes of its name, which follows.
    pub name_len: U64,
}
const _: () = assert!(size_of::<BookmarkEntry>() == 24);
