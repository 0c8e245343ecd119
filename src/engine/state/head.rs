//! Where the log begins.
//!
//! **Invariant.** The head moves on only after the records that it passes were copied or dropped, visibly; and the
//! extents that it leaves are marked as emptied before. It moves as a whole, since it is two banks of words like the
//! counters: see [`totals`].

use crate::error::Result;
use crate::file::layout::{Offset, Seq, Superblock, head, live};
use crate::file::log::Head;
use crate::file::mapping::Mapping;
use crate::file::totals;

/// How often a caller without the writer lock looks.
const ATTEMPTS: u32 = 1000;

/// The head of the log, and what compaction has removed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogHead {
    pub(crate) head: Head,
    /// The ordinal of the extent that it lies in.
    pub(crate) ordinal: u64,
    /// The highest sequence number among the records before it that [tell](crate::file::log::Record::tells) of changes.
    pub(crate) behind: Seq,
    /// Bytes of these records, since the live area was set up.
    pub(crate) bytes: u64,
    /// The number of these records.
    pub(crate) records: u64,
}

impl LogHead {
    /// The head that a superblock names.
    pub(crate) fn of_superblock(superblock: &Superblock) -> LogHead {
        LogHead {
            head: Head { at: superblock.log_head(), chain: superblock.head_chain.get(), seq: superblock.head_seq() },
            ordinal: superblock.head_ordinal.get(),
            behind: superblock.behind_seq(),
            bytes: 0,
            records: 0,
        }
    }

    /// The same superblock, with this head.
    pub(crate) fn put_into(&self, superblock: Superblock) -> Superblock {
        Superblock {
            log_head: self.head.at.into(),
            head_ordinal: self.ordinal.into(),
            head_chain: self.head.chain.into(),
            head_seq: self.head.seq.to_field(),
            behind_seq: self.behind.to_field(),
            ..superblock
        }
    }
}

pub(super) fn of_words(words: [u64; live::HEAD_WORDS as usize]) -> LogHead {
    LogHead {
        head: Head { at: Offset(words[head::AT]), chain: words[head::CHAIN] as u32, seq: Seq(words[head::SEQ]) },
        ordinal: words[head::ORDINAL],
        behind: Seq(words[head::BEHIND]),
        bytes: words[head::BYTES],
        records: words[head::RECORDS],
    }
}

/// The head of the log, by the live area.
pub(crate) fn read(mapping: &Mapping) -> Result<LogHead> {
    for _ in 0..ATTEMPTS {
        if let Some(words) = totals::at_most(mapping, live::HEAD, u64::MAX)? {
            return Ok(of_words(words));
        }
    }
    Err(mapping.corrupt(live::HEAD, "the live area does not say where the log begins"))
}

/// Moves the head of the log. The caller holds the writer lock.
pub(crate) fn publish(mapping: &Mapping, to: &LogHead) -> Result<()> {
    let [number, ..] = totals::latest::<{ live::HEAD_WORDS as usize }>(mapping, live::HEAD)?;
    let mut words = [0; live::HEAD_WORDS as usize];
    words[head::NUMBER] = number.wrapping_add(1).max(1);
    words[head::AT] = to.head.at.0;
    words[head::CHAIN] = u64::from(to.head.chain);
    words[head::SEQ] = to.head.seq.0;
    words[head::ORDINAL] = to.ordinal;
    words[head::BEHIND] = to.behind.0;
    words[head::BYTES] = to.bytes;
    words[head::RECORDS] = to.records;
    totals::publish(mapping, live::HEAD, words)
}
