//! The horizon: how far back somebody reads.
//!
//! Pins are words of the file, and are written and looked at here. How a reader comes to one is told by the
//! [`pins`](crate::engine::read::pins).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use super::protocol;
use crate::engine::Engine;
use crate::engine::processes::entries::lock_error;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::layout::{COUNT_MASK, EXTENTS, live, pin, process};
use crate::file::live_table::{PIN, PROCESS};
use crate::file::locks;
use crate::file::region::{Word, barrier};

/// The pins of a store that threads keep between their reads.
pub(crate) struct KeptPins {
    /// A number that no other store of this process has or had.
    pub(crate) store: u64,
    /// What a pin says that a thread keeps and does not use: a number that no commit reaches holds nothing back.
    pub(crate) idle: u64,
    /// Readers need no barrier, since a reclaimer can make them execute one.
    pub(crate) asymmetric: bool,
    /// Places of pins whose threads have ended.
    pub(crate) returned: Arc<Mutex<Vec<u64>>>,
    /// Where the next search for a free pin begins: the one behind that which was found last.
    pub(crate) next: AtomicU64,
    /// How many pins were looked at in searches.
    #[cfg(test)]
    pub(crate) looked_at: AtomicU64,
}

impl KeptPins {
    /// None yet, of the entry `process` of the process table.
    pub(crate) fn new(process: u64) -> KeptPins {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        KeptPins {
            store: NEXT.fetch_add(1, Ordering::Relaxed),
            idle: pin::claim(process, COUNT_MASK),
            asymmetric: barrier::register(),
            returned: Arc::default(),
            // Processes begin at different places, so that they do not look at the pins of each other.
            next: AtomicU64::new(process.wrapping_mul(67)),
            #[cfg(test)]
            looked_at: AtomicU64::new(0),
        }
    }

    /// Whether readers here rely on a reclaimer for their barrier.
    pub(crate) fn is_asymmetric(&self) -> bool {
        self.asymmetric
    }
}

/// A pin as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    /// The counting part of the sequence number that its holder reads at.
    pub(crate) count: u64,
    /// When a snapshot took it: milliseconds since 1970; zero for a single read.
    pub(crate) since: u64,
    /// Process-table entry of its holder.
    pub(crate) entry: u64,
}

impl Engine {
    /// The claim of a pin, or when it was taken.
    #[inline(always)]
    pub(crate) fn pin_word(&self, place: u64) -> Result<&Word> {
        if place < EXTENTS { self.region.live_word(place) } else { self.far_pin_word(place) }
    }

    /// The same where the table goes on.
    #[cold]
    fn far_pin_word(&self, place: u64) -> Result<&Word> {
        self.region.word(place)
    }

    #[inline(always)]
    pub(crate) fn store_pin(&self, place: u64, value: u64, order: Ordering) -> Result<()> {
        if place < EXTENTS {
            self.region.store_live(place, value, order)
        } else {
            self.store_far_pin(place, value, order)
        }
    }

    #[cold]
    fn store_far_pin(&self, place: u64, value: u64, order: Ordering) -> Result<()> {
        self.region.store(place, value, order)
    }

    #[inline(always)]
    pub(crate) fn claim(&self, seq: u64) -> u64 {
        self.kept_pins.idle & !COUNT_MASK | seq & COUNT_MASK
    }

    /// Whether the store is a closed one that nobody has opened for writing yet, and the number of its last visible
    /// commit.
    pub(crate) fn reading_point(&self) -> Result<(bool, u64)> {
        let frozen = self.frozen()?;
        let seq = frozen.map_or_else(|| self.region.live(live::VISIBLE), |frozen| Ok(frozen.visible))?;
        Ok((frozen.is_some(), seq))
    }

    /// Whether nothing that could be seen at a [reading point](Engine::reading_point) has been reused since.
    pub(crate) fn is_undisturbed(&self, frozen: bool, seq: u64) -> Result<bool> {
        // As long as nobody has opened the store for writing, there is nobody who could reuse anything.
        if frozen { Ok(!self.is_live()?) } else { Ok(!self.horizon_has_passed(seq)?) }
    }

    /// Whether the horizon has passed a sequence number, so that what a reader saw at it may have been reused.
    ///
    /// It is only ever raised to what is visible, and whoever sees it sees that too. So a reader who begins again at
    /// what is visible then comes to an end, or a file that says otherwise is damaged.
    fn horizon_has_passed(&self, seq: u64) -> Result<bool> {
        let horizon = self.region.live(live::HORIZON)?;
        if horizon > seq && horizon > self.region.live(live::VISIBLE)? {
            return Err(protocol::Words::impossible(self));
        }
        Ok(horizon > seq)
    }

    /// Whether there are readers who leave the barrier to the reclaimer.
    fn some_need_a_barrier(&self) -> Result<bool> {
        for at in PROCESS.parts(&self.region)?.places() {
            if self.region.word(at + process::PID)?.seq_cst() != 0 && self.region.load(at + process::ASYMMETRIC)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The count below which nobody reads at the moment. Others may begin to, so this only informs.
    pub(crate) fn lowest_pin(&self) -> Result<u64> {
        let visible = self.visible()? & COUNT_MASK;
        Ok(self.oldest_reader()?.map_or(visible, |count| count.min(visible)))
    }

    /// The lowest count that somebody reads at, if anybody does.
    pub(crate) fn oldest_reader(&self) -> Result<Option<u64>> {
        let pinned = self.pins_in_use()?.1.map(|held| held.count);
        let Some(locks) = &self.locks else { return Ok(pinned) };
        let held = locks.lowest_held(locks::snapshot(0)..locks::snapshot(pinned.unwrap_or(COUNT_MASK)));
        let held = held.map_err(|e| lock_error(&self.region, e))?;
        Ok(held.map_or(pinned, |place| Some(place - locks::snapshot(0))))
    }

    /// How many pins are in use, and the one with the lowest count.
    pub(crate) fn pins_in_use(&self) -> Result<(u64, Option<Held>)> {
        let (mut used, mut oldest) = (0, None);
        if !self.is_live()? {
            return Ok((used, oldest));
        }
        for place in PIN.parts(&self.region)?.places() {
            let claim = self.region.load(place + pin::CLAIM)?;
            if claim != 0 && pin::count(claim) != COUNT_MASK {
                used += 1;
                let since = self.region.load(place + pin::SINCE)?;
                let held = Held { count: pin::count(claim), since, entry: pin::owner(claim) };
                oldest = Some(oldest.map_or(held, |oldest: Held| oldest.min(held)));
            }
        }
        Ok((used, oldest))
    }
}

impl Writing<'_> {
    /// Raises the horizon to the visible sequence number and says below which count nobody reads any more.
    pub(crate) fn raise_horizon(&mut self) -> Result<u64> {
        let visible = self.engine.region.live(live::VISIBLE)?;
        protocol::raise(self.engine, visible)?;
        if self.engine.some_need_a_barrier()? {
            let is_refused = !barrier::everywhere();
            self.engine.note_refusal(is_refused)?;
            if is_refused {
                // Without the barrier that readers rely on, every pin could be one that is not seen yet.
                return Ok(0);
            }
        }
        let mut lowest = visible & COUNT_MASK;
        let mut asked = BTreeSet::new();
        for place in PIN.parts(&self.engine.region)?.places() {
            let word = self.engine.pin_word(place + pin::CLAIM)?;
            let claim = word.seq_cst();
            if claim == 0 || pin::count(claim) >= lowest {
                continue;
            }
            // Asked once for each process, when one of its pins stands in the way: the pins of the dead are cleaned.
            let owner = pin::owner(claim);
            if asked.insert(owner)
                && owner < PROCESS.limit()
                && self.engine.clean_if_dead(owner)?
                && word.seq_cst() == 0
            {
                continue;
            }
            if word.seq_cst() != 0 {
                lowest = pin::count(claim);
            }
        }
        if let Some(locks) = self.engine.locks.as_ref().filter(|_| !self.engine.exclusive) {
            let held = locks.lowest_held(locks::snapshot(0)..locks::snapshot(lowest));
            if let Some(place) = held.map_err(|e| lock_error(&self.engine.region, e))? {
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
        Ok(self.region.live_word(at)?.seq_cst())
    }

    #[inline(always)]
    fn store(&self, at: u64, value: u64) -> Result<()> {
        self.store_pin(at, value, Ordering::SeqCst)
    }

    #[inline(always)]
    fn publish(&self, at: u64, value: u64) -> Result<()> {
        self.region.store_live(at, value, Ordering::Release)
    }

    #[inline(always)]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn claim(&self, seq: u64) -> u64 {
        Engine::claim(self, seq)
    }

    #[cold]
    fn impossible(&self) -> Error {
        self.region.corrupt(live::HORIZON, "the horizon lies beyond the last visible commit")
    }
}
