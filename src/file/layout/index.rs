//! Regions, lines and slots.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::BLOCK;

/// The header of a region: one map's index. Its lines follow.
///
/// The first six fields never change once the region is in force; before that, a resize keeps its source in `previous`.
/// The two banks of totals are words: a commit writes the bank that is not current and stores its `seq` last, so that
/// finishing a commit twice counts nothing twice.
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
    /// The sequence number from which on this region is complete for its map: that of the map's creation, its last
    /// clear or its last resize.
    pub since: U64,
    /// Offset of the region that a reader below `since` needs, 0 if there was none.
    pub previous: U64,
    /// Two banks of {seq, keys, bytes, slots, dead}.
    pub totals: [[U64; REGION_TOTALS_WORDS as usize]; 2],
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

/// The number of lines in a region of this many blocks.
#[inline]
pub const fn lines_of_blocks(blocks: u64) -> u64 {
    (blocks * BLOCK - REGION_HEADER) / LINE
}

/// A slot: 24 bits of hash, the tag, above a 40-bit file offset in units of 8 bytes.
///
/// **Invariants.** A slot points at the newest committed record of its key, a put or a tombstone. One release store
/// publishes it, after its further hash bits. It never returns to never-used in place. It passes to another key only
/// once its tombstone is older than every pin.
pub mod slot {
    /// Never used: a probe ends here.
    pub const EMPTY: u64 = 0;
    /// Vacated: a probe goes on, an insert may take it.
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
/// Interval*, 2019) and its tag the low 24 bits: any number of lines works, line and tag use different bits, and
/// ascending h visits the lines in ascending order, whatever their number.
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

    /// The hash with this tag and these further bits.
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

    /// The line where the search for the key begins, in a region of this many lines.
    #[inline]
    pub const fn line(self, lines: u64) -> u64 {
        ((self.0 as u128 * lines as u128) >> KeyHash::BITS) as u64
    }

    /// A hash of the key and its map for a table in memory: spreads the same key of many maps, and makes the top bits,
    /// which a table may use, as good as any (the multiplier is that of Fibonacci hashing: Knuth, vol. 3, 6.4).
    #[inline]
    pub(crate) fn in_map(self, map: super::MapId) -> u64 {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

        let mixed = (self.0 ^ u64::from(map).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 32)
    }

    /// The hash with these bits; any further ones do not count.
    #[inline]
    pub(crate) const fn from_bits(bits: u64) -> KeyHash {
        KeyHash(bits & ((1 << KeyHash::BITS) - 1))
    }

    /// All 45 bits.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
}
