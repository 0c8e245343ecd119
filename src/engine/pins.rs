//! Pins: what keeps the space that a reader looks at from being reused.
//!
//! **Invariant.** The reader writes its pin at the visible sequence number N, then loads the horizon and starts only if
//! that is not above N; only then does it load where the index is. Whoever wants to reuse space raises the horizon to
//! H, then scans all pins, and reuses only what no pin below H can see. Of the two, one must see the other: writing the
//! pin, loading the horizon, raising it and scanning are sequentially consistent accesses, of which there is a single
//! total order (the pattern of Dekker's algorithm, as in hazard pointers: Michael, 2004).

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::Engine;
use super::lock::thread_number;
use crate::error::{Error, Result};
use crate::file::layout::{COUNT_MASK, PIN_LEN, PIN_TABLE, PINS, live, pin};

/// How often all pins are looked through before a reader gives up. Single reads hold a pin for well under a
/// microsecond, so after this only snapshots can be what holds them.
const ATTEMPTS: u32 = 100;

/// A pin that is held: its place in the table, and the sequence number that its holder reads at.
#[derive(Debug)]
pub(crate) struct Pin {
    /// Zero in a read-only store, which nobody changes and which needs no pins.
    place: u64,
    pub(crate) seq: u64,
}

thread_local! {
    /// A pin that was free when this thread last looked. One for all stores: it is only a place to begin.
    static LIKELY_FREE: Cell<u64> = const { Cell::new(u64::MAX) };
}

impl Engine {
    /// Pins the last visible commit.
    #[inline(always)]
    pub(crate) fn pin(&self) -> Result<Pin> {
        if let Some(frozen) = &self.frozen {
            return Ok(Pin { place: 0, seq: frozen.visible });
        }
        let mut seq = self.region.load(live::VISIBLE)?;
        let place = self.claim_pin(seq)?;
        loop {
            if self.region.word(live::HORIZON)?.seq_cst() <= seq {
                return Ok(Pin { place, seq });
            }
            let newer = self.region.load(live::VISIBLE)?;
            if newer <= seq {
                // The horizon is never raised beyond what is visible.
                self.region.store(place, 0, Ordering::Release)?;
                return Err(self.region.corrupt(live::HORIZON, "the horizon lies beyond the last visible commit"));
            }
            self.region.compare_exchange(place, self.claim(seq), self.claim(newer), Ordering::SeqCst)?;
            seq = newer;
        }
    }

    #[inline(always)]
    fn claim(&self, seq: u64) -> u64 {
        pin::claim(self.process, seq)
    }

    #[inline(always)]
    fn claim_pin(&self, seq: u64) -> Result<u64> {
        let claim = self.claim(seq);
        let likely = LIKELY_FREE.try_with(Cell::get).unwrap_or(0);
        if likely < PINS {
            let place = PIN_TABLE + likely * PIN_LEN + pin::CLAIM;
            if self.region.compare_exchange(place, 0, claim, Ordering::SeqCst)? {
                return Ok(place);
            }
        }
        self.search_pin(claim)
    }

    #[cold]
    fn search_pin(&self, claim: u64) -> Result<u64> {
        // Threads begin at different places, so that they settle on pins of their own.
        let first = thread_number().wrapping_mul(17) % PINS;
        for _ in 0..ATTEMPTS {
            for number in (first..PINS).chain(0..first) {
                let place = PIN_TABLE + number * PIN_LEN + pin::CLAIM;
                if self.region.load(place)? == 0 && self.region.compare_exchange(place, 0, claim, Ordering::SeqCst)? {
                    // A thread without locals, at its very end, can do without the hint.
                    let _ = LIKELY_FREE.try_with(|likely| likely.set(number));
                    return Ok(place);
                }
            }
            std::thread::yield_now();
        }
        Err(Error::PinsExhausted { path: self.region.path().to_owned(), max: PINS })
    }

    /// Writes down since when a pin is held, for those who wonder what space waits for.
    pub(crate) fn date_pin(&self, pin: &Pin, since: u64) -> Result<()> {
        if pin.place == 0 { Ok(()) } else { self.region.store(pin.place + pin::SINCE, since, Ordering::Relaxed) }
    }

    /// Gives a pin back.
    #[inline(always)]
    pub(crate) fn unpin(&self, pin: &Pin) {
        if pin.place != 0 {
            // The place was checked when the pin was taken, and a file only grows.
            let _ = self.region.store(pin.place, 0, Ordering::Release);
        }
    }

    /// Raises the horizon to the visible sequence number and says below which count nobody reads any more. Only for the
    /// holder of the writer lock.
    pub(crate) fn raise_horizon(&self) -> Result<u64> {
        let visible = self.region.load(live::VISIBLE)?;
        if self.region.load(live::HORIZON)? < visible {
            self.region.store(live::HORIZON, visible, Ordering::SeqCst)?;
        }
        let mut lowest = visible & COUNT_MASK;
        for number in 0..PINS {
            let claim = self.region.word(PIN_TABLE + number * PIN_LEN + pin::CLAIM)?.seq_cst();
            if claim != 0 {
                lowest = lowest.min(pin::count(claim));
            }
        }
        Ok(lowest)
    }

    /// Pins in use, and the lowest count among them with the time since when it is held.
    pub(crate) fn pins_in_use(&self) -> Result<(u64, Option<(u64, u64)>)> {
        let (mut used, mut oldest) = (0, None);
        for number in 0..PINS {
            let place = PIN_TABLE + number * PIN_LEN;
            let claim = self.region.load(place + pin::CLAIM)?;
            if claim != 0 {
                used += 1;
                let found = (pin::count(claim), self.region.load(place + pin::SINCE)?);
                oldest = Some(oldest.map_or(found, |oldest: (u64, u64)| oldest.min(found)));
            }
        }
        Ok((used, oldest))
    }
}
