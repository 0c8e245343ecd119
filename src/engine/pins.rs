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
//!
//! A store that is opened for reading cannot write pins. Its snapshots take a shared lock on a byte whose place says the
//! sequence number; the reclaimer asks the kernel for such locks. Here the kernel's own lock is the barrier.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Engine;
use super::lock::thread_number;
use super::processes::{lock_error, poll};
use super::protocol;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{
    COUNT_MASK, PIN_LEN, PIN_TABLE, PINS, PROCESS_LEN, PROCESS_TABLE, PROCESSES, live, pin, process,
};
use crate::file::locks::{self, Sharing};
use crate::file::region::barrier;

/// How often all pins are looked through before a reader gives up. Single reads hold a pin for well under a
/// microsecond, so after this only snapshots can be what holds them.
const ATTEMPTS: u32 = 100;

/// Nobody needs longer than that to see whether a byte is locked.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How many pins threads may keep; the others are for snapshots.
const MOST_KEPT: u64 = PINS / 4;

/// A pin that is held: what its sequence number sees stays as it is. It is given back when it is dropped, and in no other way.
///
/// It borrows the engine, or shares it, to go wherever its holder likes.
pub(crate) struct Pin<E: Deref<Target = Engine>> {
    engine: E,
    claimed: Claimed,
}

/// What a pin is in the table. Nothing outside of this file has one without its [`Pin`].
#[derive(Clone, Copy)]
struct Claimed {
    /// Zero in a read-only store, whose pins are locks.
    place: u64,
    /// What its holder reads at.
    seq: u64,
    /// It stays with its thread.
    kept: bool,
}

impl<E: Deref<Target = Engine>> Drop for Pin<E> {
    #[inline(always)]
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if !self.engine.is_forked() {
            self.engine.give_back(self.claimed);
        }
    }
}

impl<E: Deref<Target = Engine>> Pin<E> {
    #[inline(always)]
    pub(crate) fn engine(&self) -> &E {
        &self.engine
    }

    /// The sequence number that its holder reads at.
    #[inline(always)]
    pub(crate) fn seq(&self) -> u64 {
        self.claimed.seq
    }

    /// Writes down since when it is held, for those who wonder what space waits for; zero before it is given back.
    pub(crate) fn date(&self, since: u64) -> Result<()> {
        if self.claimed.place == 0 {
            return Ok(());
        }
        self.engine.region.store_live(self.claimed.place + pin::SINCE, since, Ordering::Relaxed)
    }

    /// Pins the last visible commit, for a holder that may go anywhere.
    pub(crate) fn take(engine: E) -> Result<Pin<E>> {
        let claimed = engine.claim_anywhere()?;
        Ok(Pin { engine, claimed })
    }
}

/// A pin that keeps more than its own commit: everything that was in use when it was taken, of the log what is dead as
/// well.
///
/// **Invariant.** What becomes empty is marked with the number that is visible then, and is used again when no pin is
/// below that. A pin at N does not keep what becomes empty at N: nobody who reads at N needs that. This one stands one
/// commit below the one that it reads at, so it does. Whatever was used again in spite of it was empty before, and the
/// head of the log and all tables, which its holder loads behind a full barrier, say so.
pub(super) struct Hold<'e>(Pin<&'e Engine>);

impl<'e> Hold<'e> {
    /// Holds everything, and reads at the last visible commit.
    pub(super) fn take(engine: &'e Engine) -> Result<Hold<'e>> {
        let pin = engine.pin()?;
        let below = engine.claim(Hold::below(&pin));
        if pin.claimed.place == 0 {
            engine.lock_snapshot(Hold::below(&pin))?;
        } else {
            engine.region.store_live(pin.claimed.place, below, Ordering::SeqCst)?;
        }
        fence(Ordering::SeqCst);
        Ok(Hold(pin))
    }

    fn below(pin: &Pin<&Engine>) -> u64 {
        (pin.seq() & COUNT_MASK).saturating_sub(1)
    }

    /// The sequence number that its holder reads at.
    pub(super) fn seq(&self) -> u64 {
        self.0.seq()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let engine = *self.0.engine();
        // The pin gives its own lock back.
        if self.0.claimed.place == 0 && !engine.is_forked() {
            engine.unlock_snapshot(Hold::below(&self.0));
        }
    }
}

/// A pin for a read that begins and ends in this thread: mostly the one that the thread keeps.
pub(crate) struct View<'e> {
    pin: Pin<&'e Engine>,
    /// It must not go to another thread, where the one that is kept would be somebody else's.
    stays: PhantomData<*const ()>,
}

impl<'e> View<'e> {
    #[inline(always)]
    pub(crate) fn engine(&self) -> &'e Engine {
        self.pin.engine
    }

    /// The sequence number that it reads at.
    #[inline(always)]
    pub(crate) fn seq(&self) -> u64 {
        self.pin.seq()
    }
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

    /// Whether readers here rely on a reclaimer for their barrier.
    pub(crate) fn is_asymmetric(&self) -> bool {
        self.asymmetric
    }
}

/// How many snapshots of a read-only store hold the lock of each count.
#[derive(Default)]
pub(crate) struct SnapshotLocks(Mutex<BTreeMap<u64, u64>>);

/// A pin that this thread keeps. It does not keep the store alive.
struct Kept {
    store: u64,
    place: u64,
    returned: Weak<Mutex<Vec<u64>>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Locals of the thread that are dropped later may read, and somebody else may have this pin by then.
        let _ = LAST.try_with(|last| {
            if last.get() == (self.store, self.place) {
                last.set((0, 0));
            }
        });
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
    /// A view of the last visible commit, for a read that begins and ends in this thread.
    #[inline(always)]
    pub(crate) fn view(&self) -> Result<View<'_>> {
        let claimed = self.claim_here()?;
        Ok(View { pin: Pin { engine: self, claimed }, stays: PhantomData })
    }

    #[inline(always)]
    fn claim_here(&self) -> Result<Claimed> {
        self.check_not_forked()?;
        let (store, place) = LAST.try_with(Cell::get).unwrap_or_default();
        if store != self.kept_pins.store {
            return self.claim_elsewhere();
        }
        if self.region.live_word(place)?.relaxed() != self.kept_pins.idle {
            // A read inside a read.
            return self.claim_anywhere();
        }
        let seq = self.region.live(live::VISIBLE)?;
        // Release: a reclaimer who finds this pin knows that the reads under the one before are over.
        self.region.store_live(place, self.claim(seq), Ordering::Release)?;
        if self.kept_pins.asymmetric {
            // What the processor reorders, the barrier of a reclaimer puts in order.
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        self.settled(place, seq, true)
    }

    /// The thread has not just read from this store: looks for the pin that it keeps here, or gets one.
    #[cold]
    fn claim_elsewhere(&self) -> Result<Claimed> {
        if self.read_only {
            return self.claim_anywhere();
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
            Some(place) if LAST.try_with(|last| last.set((store, place))).is_ok() => self.claim_here(),
            _ => self.claim_anywhere(),
        }
    }

    /// A pin for a thread to keep, unless too many are kept.
    fn keep_pin(&self) -> Result<Option<u64>> {
        let returned = self.kept_pins.returned.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if returned.is_some() {
            return Ok(returned);
        }
        // Many processes may have many threads each; the rest is for all of them to share.
        if self.free_pins()? < PINS / 2 {
            return Ok(None);
        }
        if self.kept_pins.count.fetch_add(1, Ordering::Relaxed) >= MOST_KEPT {
            self.kept_pins.count.fetch_sub(1, Ordering::Relaxed);
            return Ok(None);
        }
        self.search_pin(self.kept_pins.idle).map(Some)
    }

    fn free_pins(&self) -> Result<u64> {
        let mut free = 0;
        for number in 0..PINS {
            free += u64::from(self.region.live(PIN_TABLE + number * PIN_LEN + pin::CLAIM)? == 0);
        }
        Ok(free)
    }

    /// Pins the last visible commit.
    pub(crate) fn pin(&self) -> Result<Pin<&Engine>> {
        Pin::take(self)
    }

    /// Claims a pin for a holder that may go anywhere.
    fn claim_anywhere(&self) -> Result<Claimed> {
        self.check_not_forked()?;
        if self.read_only {
            return self.claim_by_lock();
        }
        let seq = self.region.live(live::VISIBLE)?;
        let place = self.claim_pin(seq)?;
        self.settled(place, seq, false)
    }

    /// Of the pin whose place says that somebody reads at `seq`, with a full barrier after that. It may move to a newer number.
    #[inline(always)]
    fn settled(&self, place: u64, seq: u64, kept: bool) -> Result<Claimed> {
        match protocol::settle(self, place, seq) {
            Ok(seq) => Ok(Claimed { place, seq, kept }),
            Err(error) => {
                self.give_back(Claimed { place, seq, kept });
                Err(error)
            }
        }
    }

    /// Claims a pin in a store that is opened for reading.
    fn claim_by_lock(&self) -> Result<Claimed> {
        loop {
            let (frozen, seq) = self.reading_point()?;
            self.lock_snapshot(seq)?;
            fence(Ordering::SeqCst);
            let holds = self.is_undisturbed(frozen, seq);
            if let Ok(true) = holds {
                return Ok(Claimed { place: 0, seq, kept: false });
            }
            self.unlock_snapshot(seq);
            holds?;
        }
    }

    /// Gives a pin back. Only for the one who has claimed it.
    #[inline(always)]
    fn give_back(&self, claimed: Claimed) {
        // A place was checked when the pin was taken, and a file only grows.
        if claimed.kept {
            let _ = self.region.store_live(claimed.place, self.kept_pins.idle, Ordering::Release);
        } else if claimed.place == 0 {
            self.unlock_snapshot(claimed.seq);
        } else {
            let _ = self.region.store_live(claimed.place, 0, Ordering::Release);
        }
    }

    fn lock_snapshot(&self, seq: u64) -> Result<()> {
        let Some(locks) = &self.locks else { return Ok(()) };
        let mut held = self.snapshot_locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = held.entry(seq & COUNT_MASK).or_default();
        if *holders == 0 {
            let place = locks::snapshot(seq & COUNT_MASK);
            let lock = || locks.try_lock(place, Sharing::Shared).map_err(|e| lock_error(&self.region, e));
            // Nobody takes one of these exclusively, but where one has to try in order to find out whether it is held.
            if !poll(self.settings.lock_timeout.max(LONGEST_LOOK), lock)? {
                return Err(Error::Locked { path: self.region.path().to_owned(), by: HeldBy::Unknown });
            }
        }
        *holders += 1;
        Ok(())
    }

    #[cold]
    fn unlock_snapshot(&self, seq: u64) {
        let Some(locks) = &self.locks else { return };
        let mut held = self.snapshot_locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holders) = held.get_mut(&(seq & COUNT_MASK)) else { return };
        *holders -= 1;
        if *holders == 0 {
            held.remove(&(seq & COUNT_MASK));
            // Should this fail, space is held back until the store is closed.
            let _ = locks.unlock(locks::snapshot(seq & COUNT_MASK));
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
        for attempt in 0..ATTEMPTS {
            for number in (first..PINS).chain(0..first) {
                let place = PIN_TABLE + number * PIN_LEN + pin::CLAIM;
                if self.region.load(place)? == 0 && self.region.compare_exchange(place, 0, claim, Ordering::SeqCst)? {
                    // A thread without locals, at its very end, can do without the hint.
                    let _ = LIKELY_FREE.try_with(|likely| likely.set(number));
                    return Ok(place);
                }
            }
            // The dead hold none for long.
            if attempt == 0 {
                self.sweep()?;
            }
            std::thread::yield_now();
        }
        Err(Error::PinsExhausted { path: self.region.path().to_owned(), max: PINS })
    }

    /// Raises the horizon to the visible sequence number and says below which count nobody reads any more. Only for the
    /// holder of the writer lock.
    pub(crate) fn raise_horizon(&self) -> Result<u64> {
        let visible = self.region.live(live::VISIBLE)?;
        protocol::raise(self, visible)?;
        if self.some_need_a_barrier()? {
            let is_refused = !barrier::everywhere();
            self.note_refusal(is_refused)?;
            if is_refused {
                // Without the barrier that readers rely on, every pin could be one that is not seen yet.
                return Ok(0);
            }
        }
        let mut lowest = visible & COUNT_MASK;
        let mut asked = BTreeSet::new();
        for number in 0..PINS {
            let word = self.region.live_word(PIN_TABLE + number * PIN_LEN + pin::CLAIM)?;
            let claim = word.seq_cst();
            if claim == 0 || pin::count(claim) >= lowest {
                continue;
            }
            // Asked once for each process, when one of its pins stands in the way: the pins of the dead are cleaned.
            let owner = pin::owner(claim);
            if asked.insert(owner) && owner < PROCESSES && self.clean_if_dead(owner)? && word.seq_cst() == 0 {
                continue;
            }
            if word.seq_cst() != 0 {
                lowest = pin::count(claim);
            }
        }
        if let Some(locks) = self.locks.as_ref().filter(|_| !self.exclusive) {
            let held = locks.lowest_held(locks::snapshot(0)..locks::snapshot(lowest));
            if let Some(place) = held.map_err(|e| lock_error(&self.region, e))? {
                lowest = place - locks::snapshot(0);
            }
        }
        Ok(lowest)
    }

    /// Whether there are readers who leave the barrier to the reclaimer.
    fn some_need_a_barrier(&self) -> Result<bool> {
        for entry in 0..PROCESSES {
            let at = PROCESS_TABLE + entry * PROCESS_LEN;
            if self.region.live_word(at + process::PID)?.seq_cst() != 0
                && self.region.live(at + process::ASYMMETRIC)? != 0
            {
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
        for number in 0..PINS {
            let place = PIN_TABLE + number * PIN_LEN;
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

/// What pinning needs of a store.
impl protocol::Words for Engine {
    #[inline(always)]
    fn load(&self, at: u64) -> Result<u64> {
        Ok(self.region.live_word(at)?.seq_cst())
    }

    #[inline(always)]
    fn store(&self, at: u64, value: u64) -> Result<()> {
        self.region.store_live(at, value, Ordering::SeqCst)
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

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::engine::settings::Settings;

    struct AtTheEnd(Option<Box<dyn FnOnce()>>);

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            if let Some(work) = self.0.take() {
                work();
            }
        }
    }

    #[test]
    fn a_pin_that_a_thread_has_given_back_is_its_own_no_more() {
        thread_local! {
            static BEFORE: RefCell<AtTheEnd> = const { RefCell::new(AtTheEnd(None)) };
        }

        let engine = Arc::new(Engine::in_memory(Settings::default()).unwrap());
        let (tell, told) = mpsc::channel();
        let of_thread = Arc::clone(&engine);
        std::thread::spawn(move || {
            let engine = Arc::clone(&of_thread);
            // Used first, and so, where the order is that of a stack, dropped last.
            BEFORE.with(|before| {
                before.borrow_mut().0 = Some(Box::new(move || {
                    let place = engine.view().unwrap().pin.claimed.place;
                    let returned = engine.kept_pins.returned.lock().unwrap().clone();
                    tell.send((place, returned)).unwrap();
                }));
            });
            drop(of_thread.view().unwrap());
        })
        .join()
        .unwrap();
        let (place, returned) = told.recv().unwrap();
        assert!(!returned.contains(&place), "two threads may have one pin: {place} of {returned:?}");
        if cfg!(target_os = "linux") {
            assert_eq!(returned.len(), 1, "the pin was given back before that read");
        }
        assert_eq!(engine.pins_in_use().unwrap().0, 0);
    }
}
