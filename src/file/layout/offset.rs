//! Offsets as a type: the file has them as bare words and fields.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use zerocopy::little_endian::U64;

use super::{EXTENTS, RecordHeader, Shortcut, Superblock, commit_end, extent_offset, slot};

/// A place in the file, in bytes from its beginning. Lengths, counts and numbers of blocks are bare numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Offset(pub(crate) u64);

impl Offset {
    /// No record and no region lies here: where the place of one is expected, it means none.
    pub(crate) const NONE: Offset = Offset(0);
    /// After the end of every file.
    pub(crate) const MAX: Offset = Offset(u64::MAX);
    /// Where the first extent begins.
    pub(crate) const EXTENTS: Offset = Offset(EXTENTS);

    /// Where the records of a commit end, by its [`commit_word`](super::commit_word).
    #[inline(always)]
    pub(crate) const fn of_commit_word(word: u64) -> Offset {
        Offset(commit_end(word))
    }

    /// Where an extent begins, by its [`extent_word`](super::extent_word).
    #[inline(always)]
    pub(crate) const fn of_extent_word(word: u64) -> Offset {
        Offset(extent_offset(word))
    }

    /// The record that a [`slot`] points at.
    #[inline(always)]
    pub(crate) const fn of_slot(slot: u64) -> Offset {
        Offset(slot::offset(slot))
    }

    /// The number of bytes from `other` to this place; zero if `other` lies after it.
    #[inline(always)]
    pub(crate) const fn bytes_since(self, other: Offset) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Whether this is a multiple of `to` bytes.
    #[inline(always)]
    pub(crate) const fn is_aligned(self, to: u64) -> bool {
        self.0.is_multiple_of(to)
    }

    /// The next multiple of `to` bytes, a power of two.
    #[inline(always)]
    pub(crate) const fn align(self, to: u64) -> Offset {
        Offset((self.0 + to - 1) & !(to - 1))
    }

    /// The next cell of a grid over the extents, whose cells have `len` bytes.
    #[inline]
    pub(crate) const fn align_cell(self, len: u64) -> Offset {
        Offset(EXTENTS + self.bytes_since(Offset::EXTENTS).div_ceil(len) * len)
    }

    /// The last multiple of `to` bytes, a power of two.
    #[inline(always)]
    pub(crate) const fn align_down(self, to: u64) -> Offset {
        Offset(self.0 & !(to - 1))
    }
}

impl RecordHeader {
    /// The record that this one replaces, or none.
    #[inline(always)]
    pub(crate) fn prev_offset(&self) -> Offset {
        Offset(self.prev())
    }
}

impl Shortcut {
    /// The target record.
    #[inline(always)]
    pub(crate) fn target_offset(&self) -> Offset {
        Offset(self.target())
    }
}

impl Superblock {
    /// The first record of the log.
    pub(crate) fn log_head(&self) -> Offset {
        self.log_head.into()
    }

    /// Where the last record of the last durable commit ends.
    pub(crate) fn log_end(&self) -> Offset {
        self.log_end.into()
    }
}

impl Add<u64> for Offset {
    type Output = Offset;

    #[inline(always)]
    fn add(self, bytes: u64) -> Offset {
        Offset(self.0 + bytes)
    }
}

impl AddAssign<u64> for Offset {
    #[inline(always)]
    fn add_assign(&mut self, bytes: u64) {
        self.0 += bytes;
    }
}

impl Sub for Offset {
    type Output = u64;

    #[inline(always)]
    fn sub(self, before: Offset) -> u64 {
        self.0 - before.0
    }
}

impl Sub<u64> for Offset {
    type Output = Offset;

    #[inline(always)]
    fn sub(self, bytes: u64) -> Offset {
        Offset(self.0 - bytes)
    }
}

impl From<Offset> for u64 {
    #[inline(always)]
    fn from(offset: Offset) -> u64 {
        offset.0
    }
}

impl From<U64> for Offset {
    #[inline(always)]
    fn from(field: U64) -> Offset {
        Offset(field.get())
    }
}

impl From<Offset> for U64 {
    #[inline(always)]
    fn from(offset: Offset) -> U64 {
        U64::new(offset.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
