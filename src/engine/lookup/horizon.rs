//! The horizon: how far back reads go.

use std::collections::BTreeSet;
use std::sync::atomic::{Ordering, fence};

use super::pin_table::{self, Held};
use super::protocol;
use crate::engine::Engine;
use crate::engine::processes::entries::lock_error;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::layout::{COUNT_MASK, Seq, live, process};
use crate::file::live_table::PROCESS;
use crate::file::locks;
use crate::file::mapping::barrier;

/// The point that a reader without a pin reads at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadingPoint {
    /// The store is closed, and was not opened for writing yet.
    at_rest: bool,
    /// The number of the last visible commit.
    pub(crate) seq: Seq,
}

impl Engine {
    /// Where a reader without a pin begins.
    pub(crate) fn reading_point(&self) -> Result<ReadingPoint> {
        let at_rest = self.at_rest()?;
        let seq = at_rest.map_or_else(|| self.mapping.live_seq(live::VISIBLE), |at_rest| Ok(at_rest.visible))?;
        Ok(ReadingPoint { at_rest: at_rest.is_some(), seq })
    }

    /// Whether nothing that could be seen at this point has been reused since.
    pub(crate) fn is_undisturbed(&self, point: ReadingPoint) -> Result<bool> {
        // Until a process opens the store for writing, nothing is reused.
        if point.at_rest { Ok(!self.is_live()?) } else { Ok(!self.horizon_has_passed(point.seq)?) }
    }

    /// Whether the horizon has passed a sequence number, so that what a reader saw at it may have been reused.
    ///
    /// The horizon is only ever raised to the visible number, and a thread that sees it sees that number too. So a
    /// reader that begins again at the visible number comes to an end, unless the file is damaged.
    fn horizon_has_passed(&self, seq: Seq) -> Result<bool> {
        let horizon = self.mapping.live_seq(live::HORIZON)?;
        if horizon > seq && horizon > self.mapping.live_seq(live::VISIBLE)? {
            return Err(protocol::Words::impossible(self));
        }
        Ok(horizon > seq)
    }

    /// Whether any readers leave the barrier to the reclaimer.
    fn some_need_a_barrier(&self) -> Result<bool> {
        for at in PROCESS.parts(&self.mapping)?.places() {
            if self.mapping.word(at + process::PID)?.seq_cst() != 0 && self.mapping.load(at + process::ASYMMETRIC)? != 0
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The count below which there are no readers at the moment. One may begin, so this only informs.
    pub(crate) fn lowest_pin(&self) -> Result<u64> {
        let visible = self.visible()?.count();
        Ok(self.oldest_reader()?.map_or(visible, |count| count.min(visible)))
    }

    /// The lowest count that a reader is at, if there is a reader.
    pub(crate) fn oldest_reader(&self) -> Result<Option<u64>> {
        let pinned = self.pins_in_use()?.1.map(|held| held.count);
        let Some(locks) = &self.locks else { return Ok(pinned) };
        let held = locks.lowest_held(locks::snapshot(0)..locks::snapshot(pinned.unwrap_or(COUNT_MASK)));
        let held = held.map_err(|e| lock_error(&self.mapping, e))?;
        Ok(held.map_or(pinned, |place| Some(place - locks::snapshot(0))))
    }

    /// How many pins are in use, and the one with the lowest count.
    pub(crate) fn pins_in_use(&self) -> Result<(u64, Option<Held>)> {
        if self.is_live()? { pin_table::in_use(&self.mapping) } else { Ok((0, None)) }
    }
}

impl Writing<'_> {
    /// Raises the horizon to the visible sequence number; returns the count below which there are no readers any more.
    pub(crate) fn raise_horizon(&mut self) -> Result<u64> {
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?;
        protocol::raise(self.engine, visible)?;
        if self.engine.some_need_a_barrier()? {
            let is_refused = !barrier::everywhere();
            self.engine.note_refusal(is_refused)?;
            if is_refused {
                // Without the barrier that readers rely on, there may always be a pin that is not seen yet.
                return Ok(0);
            }
        }
        // Each process is asked about once, when one of its pins is in the way: the pins of the dead are cleaned.
        let mut asked = BTreeSet::new();
        let clean = |owner| match asked.insert(owner) && owner < PROCESS.limit() {
            true => self.engine.clear_up_after(owner).map(|_| ()),
            false => Ok(()),
        };
        let mut lowest = pin_table::lowest(&self.engine.mapping, visible, clean)?;
        if let Some(locks) = self.engine.locks.as_ref().filter(|_| !self.engine.exclusive) {
            let held = locks.lowest_held(locks::snapshot(0)..locks::snapshot(lowest));
            if let Some(place) = held.map_err(|e| lock_error(&self.engine.mapping, e))? {
                lowest = place - locks::snapshot(0);
            }
        }
        Ok(lowest)
    }
}

/// What pinning needs of a store.
impl protocol::Words for Engine {
    #[inline(always)]
    fn load(&self, at: u64) -> Result<u64> {
        Ok(self.mapping.live_word(at)?.seq_cst())
    }

    #[inline(always)]
    fn store(&self, at: u64, value: u64) -> Result<()> {
        pin_table::store(&self.mapping, at, value, Ordering::SeqCst)
    }

    #[inline(always)]
    fn publish(&self, at: u64, value: u64) -> Result<()> {
        self.mapping.store_live(at, value, Ordering::Release)
    }

    #[inline(always)]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn claim(&self, seq: Seq) -> u64 {
        self.claims.at(seq)
    }

    #[cold]
    fn impossible(&self) -> Error {
        self.mapping.corrupt(live::HORIZON, "the horizon lies beyond the last visible commit")
    }
}
