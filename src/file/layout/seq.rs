//! What sequence numbers are made of: the file has them as bare words and fields.

use zerocopy::little_endian::U64;

use super::{COUNT_BITS, COUNT_MASK, Seq, Superblock, commit_seq};

impl Seq {
    /// After all commits.
    pub(crate) const MAX: Seq = Seq(u64::MAX);

    /// The number of this incarnation and count.
    #[inline]
    pub(crate) const fn new(incarnation: u64, count: u64) -> Seq {
        Seq((incarnation << COUNT_BITS) | count)
    }

    /// The number that the [`commit_word`](super::commit_word) has, given the visible one.
    #[inline]
    pub(crate) const fn of_commit_word(word: u64, visible: Seq) -> Seq {
        Seq(commit_seq(word, visible.0))
    }

    /// The number in a field of the file.
    #[inline(always)]
    pub(crate) const fn of_field(field: U64) -> Seq {
        Seq(field.get())
    }

    /// As a field of the file.
    #[inline(always)]
    pub(crate) const fn to_field(self) -> U64 {
        U64::new(self.0)
    }

    /// The number of the next commit. In a damaged file there may be none.
    #[inline(always)]
    pub(crate) const fn next(self) -> Seq {
        Seq(self.0.wrapping_add(1))
    }

    /// The number of the commit before.
    #[inline(always)]
    pub(crate) const fn before(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }

    /// The counting part.
    #[inline(always)]
    pub(crate) const fn count(self) -> u64 {
        self.0 & COUNT_MASK
    }

    /// The bits above the counting part.
    #[inline(always)]
    pub(crate) const fn incarnation(self) -> u64 {
        self.0 >> COUNT_BITS
    }
}

impl Superblock {
    /// The smallest sequence number that the first record may have.
    pub(crate) fn head_seq(&self) -> Seq {
        Seq::of_field(self.head_seq)
    }

    /// The sequence number of the next commit.
    pub(crate) fn next_seq(&self) -> Seq {
        Seq::of_field(self.next_seq)
    }

    /// The sequence number of the last commit.
    pub(crate) fn last_seq(&self) -> Seq {
        self.next_seq().before()
    }

    /// The highest sequence number among the records before the head.
    pub(crate) fn behind_seq(&self) -> Seq {
        Seq::of_field(self.behind_seq)
    }
}
