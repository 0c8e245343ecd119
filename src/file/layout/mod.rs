//! Every byte of a slotlog file, in one place: the only home of the format's numbers.
//!
//! [`format`](crate::format), which is `docs/format.md`, is the specification: what a file is made of, what a walk of
//! the log accepts, and a table for each struct and each set of words here, which `tests/format.rs` compares with them.
//! Every named part is either a plain-old-data struct that is read in place through a zero-copy cast (the crate
//! `zerocopy`), with its size asserted at compile time, or the offset of an atomic word. What changes while the store
//! is shared (live area, tables, slots) is only ever accessed as atomic 64-bit words; a struct never changes once it is
//! reachable.

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
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.slotlog");
/// # slotlog::Store::open(&path)?.close()?;
/// assert!(std::fs::read(&path)?.starts_with(&slotlog::format::MAGIC));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const MAGIC: [u8; 8] = *b"slotlog\0";
/// The first eight bytes of a file whose creation has begun, in the place of superblock A, which is written for the
/// first time when B is known to be flushed. If B is invalid too, the creation was cut short, and nothing in the file
/// is of value.
pub const CREATION_MAGIC: [u8; 8] = *b"slotlog+";
/// The version of the format that this build reads and writes. A file has it in its bytes 8 to 11, little-endian.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.slotlog");
/// # slotlog::Store::open(&path)?.close()?;
/// assert_eq!(std::fs::read(&path)?[8..12], slotlog::format::VERSION.to_le_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
/// let store = slotlog::Store::in_memory()?;
/// let longest = vec![0; slotlog::format::MAX_KEY_LEN];
/// store.insert(&longest, "value")?;
/// assert!(store.insert(&[longest, vec![0]].concat(), "value").is_err());
/// # Ok::<(), slotlog::Error>(())
/// ```
pub const MAX_KEY_LEN: usize = u16::MAX as usize;
/// The longest value, in bytes.
///
/// ```
/// let fits = |value: &[u8]| value.len() as u64 <= slotlog::format::MAX_VALUE_LEN;
/// assert!(fits(&[0; 1000]));
/// ```
pub const MAX_VALUE_LEN: u64 = u32::MAX as u64;

/// The id of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub u32);

impl MapId {
    /// The id that is given out after this one.
    #[inline]
    pub(crate) const fn next(self) -> MapId {
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
    pub(crate) fn expected_crc(&self) -> u32 {
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
    pub(crate) fn counted_live_bytes(&self) -> Option<u64> {
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
