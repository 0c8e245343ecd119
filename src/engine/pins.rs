//! Pins: what keeps the space that a reader looks at from being reused.
//!
//! **Invariant.** The reader writes its pin at the visible sequence number N, then loads the horizon and starts only if
//! that is not above N; only then does it load where the index is. Whoever wants to reuse space raises the horizon to
//! H, then scans all pins, and reuses only what no pin below H can see. Of the two, one must see the other (the pattern
//! of Dekker's algorithm, as in hazard pointers: Michael, 2004). So between writing and loading there is a full barrier
//! on both sides.
//!
//! A full barrier in each read would cost more than the read of hot data, and keep the processor from overlapping the
//! cache misses of one read with those of the next. Where the system offers `membarrier`, it is asymmetric: a reclaimer,
//! who is rare, makes every running thread execute a barrier, and readers need none (as in `liburcu` and in folly's
//! hazard pointers). For that, each thread keeps a pin of its own between reads, which it writes with a plain store.
//! Snapshots, which wander from thread to thread, claim a pin by compare-and-swap; so does a read inside a read.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Engine;
use super::lock::thread_number;
use crate::error::{Error, Result};
use crate::file::layout::{COUNT_MASK, PIN_LEN, PIN_TABLE, PINS, live, pin};
use crate::file::region::barrier;

/// How often all pins are looked through before a reader gives up. Single reads hold a pin for well under a
/// microsecond, so after this only snapshots can be what holds them.
const ATTEMPTS: u32 = 100;

/// How many pins threads may keep; the others are for snapshots.
const MOST_KEPT: u64 = PINS / 4;

/// A pin that is held: its place in the table, and the sequence number that its holder reads at.
#[derive(Debug)]
pub(crate) struct Pin {
    /// Zero in a read-only store, which nobody changes and which needs no pins.
    place: u64,
    pub(crate) seq: u64,
    /// It stays with its thread.
    kept: bool,
}

/// The pins of a store that threads keep between their reads.
pub(crate) struct KeptPins {
    /// A number that no other store of this process has or had.
    store: u64,
    /// What a pin says that a thread keeps and does not use: a number that no commit reaches holds nothing back.
    idle: u64,
    /// Readers need no barrier, since a reclaimer can make them execute one.
    asymmetric: bool,
    /// How many were ever kept.
    count: AtomicU64,
    /// Places of pins whose threads have ended.
    returned: Arc<Mutex<Vec<u64>>>,
}

impl KeptPins {
    /// None yet, of the entry `process` of the process table.
    pub(crate) fn new(process: u64) -> KeptPins {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        KeptPins {
            store: NEXT.fetch_add(1, Ordering::Relaxed),
            idle: pin::claim(process, COUNT_MASK),
            asymmetric: barrier::register(),
            count: AtomicU64::new(0),
            returned: Arc::default(),
        }
    }
}

/// A pin that this thread keeps. It does not keep the store alive.
struct Kept {
    store: u64,
    place: u64,
    returned: Weak<Mutex<Vec<u64>>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(returned) = self.returned.upgrade() {
            returned.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
        }
    }
}

thread_local! {
    /// The store that this thread read from last, and the place of its pin there.
    static LAST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    /// A pin that was free when this thread last looked. One for all stores: it is only a place to begin.
    static LIKELY_FREE: Cell<u64> = const { Cell::new(u64::MAX) };
}

impl Engine {
    /// Pins the last visible commit for a read that begins and ends in this thread.
    #[inline(always)]
    pub(crate) fn pin_here(&self) -> Result<Pin> {
        let (store, place) = LAST.try_with(Cell::get).unwrap_or_default();
        if store != self.kept_pins.store {
            return self.pin_elsewhere();
        }
        if self.region.live_word(place)?.relaxed() != self.kept_pins.idle {
            // A read inside a read.
            return self.pin();
        }
        let seq = self.region.live(live::VISIBLE)?;
        self.region.store_live(place, self.claim(seq), Ordering::Relaxed)?;
        if self.kept_pins.asymmetric {
            // What the processor reorders, the barrier of a reclaimer puts in order.
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        let seq = self.confirm(place, seq)?;
        Ok(Pin { place, seq, kept: true })
    }

    /// The thread has not just read from this store: looks for the pin that it keeps here, or gets one.
    #[cold]
    fn pin_elsewhere(&self) -> Result<Pin> {
        if let Some(frozen) = &self.frozen {
            return Ok(Pin { place: 0, seq: frozen.visible, kept: false });
        }
        let store = self.kept_pins.store;
        let found = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            kept.retain(|kept| kept.returned.strong_count() > 0);
            if let Some(own) = kept.iter().find(|kept| kept.store == store) {
                return Ok(Some(own.place));
            }
            let Some(place) = self.keep_pin()? else { return Ok(None) };
            kept.push(Kept { store, place, returned: Arc::downgrade(&self.kept_pins.returned) });
            Ok(Some(place))
        });
        // Without a pin of its own, or at the very end of its thread, a read claims one each time.
        match found.unwrap_or(Ok(None))? {
            Some(place) if LAST.try_with(|last| last.set((store, place))).is_ok() => self.pin_here(),
            _ => self.pin(),
        }
    }

    /// A pin for a thread to keep, unless too many are kept.
    fn keep_pin(&self) -> Result<Option<u64>> {
        let returned = self.kept_pins.returned.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if returned.is_some() {
            return Ok(returned);
        }
        if self.kept_pins.count.fetch_add(1, Ordering::Relaxed) >= MOST_KEPT {
            self.kept_pins.count.fetch_sub(1, Ordering::Relaxed);
            return Ok(None);
        }
        self.search_pin(self.kept_pins.idle).map(Some)
    }

    /// Pins the last visible commit, for a holder that may go anywhere.
    pub(crate) fn pin(&self) -> Result<Pin> {
        if let Some(frozen) = &self.frozen {
            return Ok(Pin { place: 0, seq: frozen.visible, kept: false });
        }
        let seq = self.region.live(live::VISIBLE)?;
        let place = self.claim_pin(seq)?;
        let seq = self.confirm(place, seq)?;
        Ok(Pin { place, seq, kept: false })
    }

    /// Accepts a pin at `seq`, or moves it to a newer number until no reclaimer can have missed it.
    #[inline(always)]
    fn confirm(&self, place: u64, seq: u64) -> Result<u64> {
        if self.region.live_word(live::HORIZON)?.seq_cst() <= seq {
            return Ok(seq);
        }
        self.catch_up(place, seq)
    }

    #[cold]
    fn catch_up(&self, place: u64, mut seq: u64) -> Result<u64> {
        loop {
            let newer = self.region.live(live::VISIBLE)?;
            if newer <= seq {
                // The horizon is never raised beyond what is visible.
                self.region.store_live(place, 0, Ordering::Release)?;
                return Err(self.region.corrupt(live::HORIZON, "the horizon lies beyond the last visible commit"));
            }
            seq = newer;
            self.region.store_live(place, self.claim(seq), Ordering::SeqCst)?;
            fence(Ordering::SeqCst);
            if self.region.live_word(live::HORIZON)?.seq_cst() <= seq {
                return Ok(seq);
            }
        }
    }

    #[inline(always)]
    fn claim(&self, seq: u64) -> u64 {
        self.kept_pins.idle & !COUNT_MASK | seq & COUNT_MASK
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
        if pin.place == 0 { Ok(()) } else { self.region.store_live(pin.place + pin::SINCE, since, Ordering::Relaxed) }
    }

    /// Gives a pin back.
    #[inline(always)]
    pub(crate) fn unpin(&self, pin: &Pin) {
        if pin.place != 0 {
            let free = if pin.kept { self.kept_pins.idle } else { 0 };
            // The place was checked when the pin was taken, and a file only grows.
            let _ = self.region.store_live(pin.place, free, Ordering::Release);
        }
    }

    /// Raises the horizon to the visible sequence number and says below which count nobody reads any more. Only for the
    /// holder of the writer lock.
    pub(crate) fn raise_horizon(&self) -> Result<u64> {
        let visible = self.region.live(live::VISIBLE)?;
        if self.region.live(live::HORIZON)? < visible {
            self.region.store_live(live::HORIZON, visible, Ordering::SeqCst)?;
        }
        if self.kept_pins.asymmetric && !barrier::everywhere() {
            // Without the barrier that readers rely on, every pin could be one that is not seen yet.
            return Ok(0);
        }
        fence(Ordering::SeqCst);
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
            if claim != 0 && pin::count(claim) != COUNT_MASK {
                used += 1;
                let found = (pin::count(claim), self.region.load(place + pin::SINCE)?);
                oldest = Some(oldest.map_or(found, |oldest: (u64, u64)| oldest.min(found)));
            }
        }
        Ok((used, oldest))
    }
}
