//! Where the log begins.
//!
//! **Invariant.** The head moves on only after the records that it passes were copied or dropped, visibly; and the
//! extents that it leaves are marked as emptied before. It moves as a whole, since it is two banks of words like the
//! counters: see [`totals`].

use crate::engine::Engine;
use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::{Superblock, head, live};
use crate::file::log::Head;
use crate::file::region::Region;
use crate::file::totals;

/// How often one looks who does not hold the writer lock.
const ATTEMPTS: u32 = 1000;

/// The head of the log, and what compaction has left behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogHead {
    pub(crate) head: Head,
    /// The ordinal of the extent that it lies in.
    pub(crate) ordinal: u64,
    /// The highest sequence number among the records behind it.
    pub(crate) behind: u64,
    /// Bytes of these records, since the live area was set up.
    pub(crate) bytes: u64,
    /// How many they are.
    pub(crate) records: u64,
}

impl LogHead {
    /// What a superblock says.
    pub(crate) fn of_superblock(superblock: &Superblock) -> LogHead {
        LogHead {
            head: Head {
                at: superblock.log_head.get(),
                chain: superblock.head_chain.get(),
                seq: superblock.head_seq.get(),
            },
            ordinal: superblock.head_ordinal.get(),
            behind: superblock.behind_seq.get(),
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
            head_seq: self.head.seq.into(),
            behind_seq: self.behind.into(),
            ..superblock
        }
    }
}

fn of_words(words: [u64; live::HEAD_WORDS as usize]) -> LogHead {
    LogHead {
        head: Head { at: words[head::AT], chain: words[head::CHAIN] as u32, seq: words[head::SEQ] },
        ordinal: words[head::ORDINAL],
        behind: words[head::BEHIND],
        bytes: words[head::BYTES],
        records: words[head::RECORDS],
    }
}

/// The head of the log as the live area says it.
pub(crate) fn read(region: &Region) -> Result<LogHead> {
    for _ in 0..ATTEMPTS {
        if let Some(words) = totals::at_most(region, live::HEAD, u64::MAX)? {
            return Ok(of_words(words));
        }
    }
    Err(region.corrupt(live::HEAD, "the live area does not say where the log begins"))
}

/// Moves the head of the log. Only for the holder of the writer lock.
pub(crate) fn publish(region: &Region, to: &LogHead) -> Result<()> {
    let [number, ..] = totals::latest::<{ live::HEAD_WORDS as usize }>(region, live::HEAD)?;
    let mut words = [0; live::HEAD_WORDS as usize];
    words[head::NUMBER] = number.wrapping_add(1).max(1);
    words[head::AT] = to.head.at;
    words[head::CHAIN] = u64::from(to.head.chain);
    words[head::SEQ] = to.head.seq;
    words[head::ORDINAL] = to.ordinal;
    words[head::BEHIND] = to.behind;
    words[head::BYTES] = to.bytes;
    words[head::RECORDS] = to.records;
    totals::publish(region, live::HEAD, words)
}

impl Engine {
    /// Where the log begins now.
    pub(crate) fn head(&self) -> Result<LogHead> {
        match self.frozen()? {
            Some(_) => Ok(LogHead::of_superblock(&self.superblock()?)),
            None => read(&self.region),
        }
    }

    /// Where the log begins, for the holder of the writer lock.
    #[inline]
    pub(crate) fn head_for_writing(&self) -> Result<LogHead> {
        Ok(of_words(totals::latest(&self.region, live::HEAD)?))
    }

    /// How many bytes the head will have left behind when it comes to where the log ends now. There cannot be more of
    /// them than the file has.
    pub(crate) fn end_of_log(&self) -> Result<u64> {
        let [_, appended, ..] = self.log_totals()?;
        Ok(appended.min(self.head()?.bytes.saturating_add(self.region.len())))
    }

    /// The counters of what lies between the head of the log and its end: {bytes, records}.
    pub(crate) fn log_size(&self) -> Result<(u64, u64)> {
        if !self.is_live()? {
            let superblock = self.superblock()?;
            return Ok((superblock.log_bytes.get(), superblock.log_records.get()));
        }
        let head = self.head()?;
        let [_, bytes, records, _] = self.log_totals()?;
        Ok((bytes.saturating_sub(head.bytes), records.saturating_sub(head.records)))
    }

    /// Bytes of the records that hold a value, over all maps.
    pub(crate) fn live_bytes(&self) -> Result<u64> {
        if self.is_live()? {
            return Ok(self.log_totals()?[3]);
        }
        self.superblock()?.counted_live_bytes().map_or_else(|| self.sum_of_live_bytes(), Ok)
    }

    /// The same, as the maps say it.
    pub(crate) fn sum_of_live_bytes(&self) -> Result<u64> {
        let add = |sum: u64, (_, index): &(u32, Index<'_>)| Ok(sum.saturating_add(index.totals()?.bytes));
        self.maps()?.iter().try_fold(0, add)
    }
}
