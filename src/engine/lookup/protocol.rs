//! The steps of pinning on which it depends that nothing is reused under a reader, written against [`Words`], so that a
//! model can go through all the orders in which memory accesses can take effect. What they are for stands with
//! [`pins`](crate::engine::read::pins). So is the step that moves the tail.

use crate::error::{Error, Result};
use crate::file::layout::{Offset, Seq, live};

/// Words that all readers and writers share.
pub(crate) trait Words {
    fn load(&self, at: u64) -> Result<u64>;
    fn store(&self, at: u64, value: u64) -> Result<()>;
    /// A release store.
    fn publish(&self, at: u64, value: u64) -> Result<()>;
    /// A full barrier.
    fn fence(&self);
    /// What a pin at `seq` says.
    fn claim(&self, seq: Seq) -> u64;
    /// The error of a horizon that lies beyond what is visible.
    fn impossible(&self) -> Error;
}

/// Whether no reclaimer can have missed a pin that was written at `seq`, with a full barrier behind it. Only then may
/// the reader load where anything is.
#[inline(always)]
pub(crate) fn is_settled(words: &impl Words, seq: Seq) -> Result<bool> {
    Ok(Seq(words.load(live::HORIZON)?) <= seq)
}

/// Accepts a pin that was written at `seq`, with a full barrier behind it, or moves it to a newer number until it is
/// [settled](is_settled).
#[inline(always)]
pub(crate) fn settle(words: &impl Words, place: u64, seq: Seq) -> Result<Seq> {
    if is_settled(words, seq)? { Ok(seq) } else { catch_up(words, place, seq) }
}

#[cold]
fn catch_up(words: &impl Words, place: u64, mut seq: Seq) -> Result<Seq> {
    loop {
        let newer = Seq(words.load(live::VISIBLE)?);
        if newer <= seq {
            // The horizon is never raised beyond what is visible. The holder of the pin gives it back.
            return Err(words.impossible());
        }
        seq = newer;
        words.store(place, words.claim(seq))?;
        words.fence();
        if is_settled(words, seq)? {
            return Ok(seq);
        }
    }
}

/// The first half of what ends a commit whose commit point is stored: the CRC of its last record, and the new tail.
///
/// Each word after the one before: whoever finds the new CRC finds the commit point, and whoever finds the new tail
/// finds the CRC, be it that he looks meanwhile or that the writer was killed in between. So a commit that is half done
/// is either gone through from the old tail, or has both.
#[inline(always)]
pub(crate) fn move_tail(words: &impl Words, tail: Offset, chain: u32) -> Result<()> {
    words.publish(live::CHAIN, u64::from(chain))?;
    words.publish(live::TAIL, tail.0)
}

/// Keeps new readers from starting below `visible`. Whoever looks at the pins after this sees all that lie below.
pub(crate) fn raise(words: &impl Words, visible: Seq) -> Result<()> {
    if Seq(words.load(live::HORIZON)?) < visible {
        words.store(live::HORIZON, visible.0)?;
    }
    words.fence();
    Ok(())
}
