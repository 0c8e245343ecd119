//! The records of the log.

use super::{MapId, Seq};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// Sets the value of the key.
    Put = 1,
    /// Removes the key: a tombstone.
    Remove = 2,
    /// Removes all keys of the map. The value is the offset of the fresh region (8 bytes), used only to finish the
    /// commit of a killed process.
    Clear = 3,
    /// The log continues elsewhere. The value is the offset of the next extent (8 bytes). Its sequence number is that
    /// of the commit that it leads to; before an incarnation record, that of the record before it.
    Jump = 4,
    /// Begins a new life of the store: its sequence number declares the incarnation.
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
    /// The put added a new key. Counters derive from it.
    pub const NEW: u8 = 2;
    /// Compaction moved this record here, or cleared an empty map once more so that it had a record to move.
    pub const COPY: u8 = 4;
    /// Eight bytes before the key say when the entry expires.
    pub const EXPIRES: u8 = 8;
    /// A [`Shortcut`](super::Shortcut) stands before the key, after the deadline if there is one.
    pub const SHORTCUT: u8 = 16;
    /// On a removal: the entry had expired.
    pub const EXPIRED: u8 = 32;
    /// The record was damaged when compaction came to it. This is what was left of it: a copy, with a CRC of its own,
    /// that keeps the slot of its key and that no reader believes. See [quarantine](crate::format#quarantine).
    pub const DAMAGED: u8 = 64;
}

/// The header of a record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RecordHeader {
    /// CRC-32 of everything in the record after this field.
    pub crc: U32,
    /// The `crc` of the record before it in the log. Only a walk reads it.
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
const _: () = assert!(flags::SHORTCUT as usize == size_of::<Shortcut>());

/// A second link in a version chain: to a version far older than `prev`, so that a reader of an old commit need not
/// follow every version since.
///
/// Its target follows from the depth alone. With the depth written as a sum of numbers 2ᵏ − 1, each as large as
/// possible, of which only the smallest may occur twice, a shortcut is as long as the smallest (Myers, *An applicative
/// random-access stack*, 1983). A reader follows it only while its target is newer than the version that the reader
/// wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Shortcut {
    /// The target (its offset in units of 8 bytes) in the low 40 bits, the record's depth in the 24 bits above: how
    /// many versions lie between it and the version where counting began.
    pub target_and_depth: U64,
    /// The sequence number of the target.
    pub seq: U64,
}

impl Shortcut {
    /// The largest depth. Counting starts again after it.
    pub const MAX_DEPTH: u64 = (1 << 24) - 1;

    /// A shortcut from a record of this depth to `target`, which has this sequence number.
    #[inline]
    pub fn new(target: u64, depth: u64, seq: u64) -> Shortcut {
        Shortcut { target_and_depth: ((target / 8) | (depth << 40)).into(), seq: seq.into() }
    }

    /// Offset of the target record.
    #[inline]
    pub fn target(&self) -> u64 {
        (self.target_and_depth.get() & ((1 << 40) - 1)) * 8
    }

    /// The sequence number of the target record.
    #[inline]
    pub(crate) fn target_seq(&self) -> Seq {
        Seq::of_field(self.seq)
    }

    /// The depth of the record that contains it.
    #[inline]
    pub fn depth(&self) -> u64 {
        self.target_and_depth.get() >> 40
    }
}

/// Bytes of a [`RecordHeader`].
pub const RECORD_HEADER: u64 = 32;
/// Bytes of a jump record, which every log extent keeps free at its end.
pub const JUMP_LEN: u64 = RECORD_HEADER + 8;

impl RecordHeader {
    /// Packs the fields that share a word.
    #[inline]
    pub fn pack_prev_and_map(prev: u64, map: MapId) -> U64 {
        U64::new((prev / 8) | (u64::from(map) << 40))
    }

    /// Offset of the record that this one replaces; zero if none.
    #[inline]
    pub fn prev(&self) -> u64 {
        (self.prev_and_map.get() & ((1 << 40) - 1)) * 8
    }

    /// The map that the record belongs to.
    #[inline]
    pub fn map(&self) -> MapId {
        MapId((self.prev_and_map.get() >> 40) as u32)
    }

    /// Bytes of the optional fields between header and key.
    #[inline]
    pub fn optional_len(&self) -> u64 {
        // Each bit is worth the length that it stands for.
        u64::from(self.flags & (flags::EXPIRES | flags::SHORTCUT))
    }

    /// Bytes of the deadline: 8, or 0 if there is none.
    #[inline]
    pub fn expires_len(&self) -> u64 {
        u64::from(self.flags & flags::EXPIRES)
    }

    /// Bytes of the shortcut: 16, or 0 if there is none.
    #[inline]
    pub fn shortcut_len(&self) -> u64 {
        u64::from(self.flags & flags::SHORTCUT)
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
