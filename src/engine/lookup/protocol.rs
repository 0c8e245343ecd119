//! The steps of pinning that keep space from being reused under a reader, and the step that moves the tail. They are
//! written against [`Words`], so that a model can go through all the orders in which memory accesses can take effect.
//! [`pins`](crate::engine::read::pins) tells what they are for.

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
    /// The claim of a pin at `seq`.
    fn claim(&self, seq: Seq) -> u64;
    /// The error of a horizon above the visible number.
    fn impossible(&self) -> Error;
}

/// Whether no reclaimer can have missed a pin that was written at `seq`, with a full barrier after it. Only then may
/// the reader load the place of anything.
#[inline(always)]
pub(crate) fn is_settled(words: &impl Words, seq: Seq) -> Result<bool> {
    Ok(Seq(words.load(live::HORIZON)?) <= seq)
}

/// Accepts a pin that was written at `seq`, with a full barrier after it, or moves it to a newer number until it is
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
            // The horizon is never raised above the visible number. The holder of the pin gives it back.
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

/// The first half of the end of a commit whose commit point is stored: the CRC of its last record, and the new tail.
///
/// The words are stored in order: a process that finds the new CRC finds the commit point, and with the new tail it
/// finds the CRC, whether it looks meanwhile or after the writer was killed in between. So a half-done commit is either
/// followed from the old tail, or has both.
#[inline(always)]
pub(crate) fn move_tail(words: &impl Words, tail: Offset, chain: u32) -> Result<()> {
    words.publish(live::CHAIN, u64::from(chain))?;
    words.publish(live::TAIL, tail.0)
}

/// Keeps new readers from starting below `visible`. A look at the pins after this sees all that lie below.
pub(crate) fn raise(words: &impl Words, visible: Seq) -> Result<()> {
    if Seq(words.load(live::HORIZON)?) < visible {
        words.store(live::HORIZON, visible.0)?;
    }
    words.fence();
    Ok(())
}
