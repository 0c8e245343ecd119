//! Pins: what keeps the space that a reader looks at from being reused.
//!
//! **Invariant.** The reader writes its pin at the visible sequence number N, then loads the horizon and starts only if
//! that is not above N; only then does it load where the index is. Whoever wants to reuse space raises the horizon to
//! H, then scans all pins, and reuses only what no pin below H can see. Of the two, one must see the other (the pattern
//! of Dekker's algorithm, as in hazard pointers: Michael, 2004). So between writing and loading there is a full barrier
//! on both sides.
//!
//! A full barrier in each read would cost more than the read of hot data, and keep the processor from overlapping the
//! cache misses of one read with those of the next. Where the system offers `membarrier`, it is asymmetric: a
//! reclaimer, who is rare, makes every running thread execute a barrier, and readers need none (as in `liburcu` and in
//! folly's hazard pointers). For that, each thread keeps a pin of its own between reads, which it writes with a plain
//! store. Snapshots, which wander from thread to thread, claim a pin by compare-and-swap, and so does a read inside a
//! read: one for all that look at the same commit in this process ([`sharing`](super::sharing)).
//!
//! When all pins are taken, the table goes on in an extent ([`live_tables`](crate::engine::write::tables)).
//!
//! A store that is opened for reading cannot write pins. Its snapshots take a shared lock on a byte whose place says
//! the sequence number; the reclaimer asks the kernel for such locks. Here the kernel's own lock is the barrier.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::sharing::Commits;
use crate::engine::Engine;
use crate::engine::lookup::protocol;
use crate::engine::processes::entries::{lock_error, poll};
use crate::engine::processes::gate::thread_number;
use crate::engine::write::tables::Lengthened;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{COUNT_MASK, live, pin};
use crate::file::live_table::{PIN, Parts};
use crate::file::locks::{self, Sharing};
use crate::file::region::Word;

/// How often all pins are looked through before a reader gives up, where there can be no more of them. A read inside a
/// read holds one for a short time, so after this only snapshots and threads can be what holds them.
const ATTEMPTS: u32 = 100;

/// Nobody needs longer than that to see whether a byte is locked.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// So long one who finds no free pin waits for a turn at making the table longer, before he looks again.
const PATIENCE: Duration = Duration::from_millis(10);

/// Threads are spread over so many lists of what this process looks at, so that they seldom wait for each other. A
/// commit can have a pin in each.
const SHARES: usize = 8;

/// One of so many searches for a free pin looks how many there are, so that the table goes on before it is full.
const LOOKS_AROUND: u64 = 64;

/// A pin that is held: what its sequence number sees stays as it is. It is given back when it is dropped, and in no
/// other way.
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
    pub(crate) place: u64,
    /// What its holder reads at.
    pub(crate) seq: u64,
    whose: Whose,
}

/// Who may use a pin besides its holder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Nobody: it stays with its thread.
    Thread,
    /// Whoever looks at the same commit and has the same list.
    Share(usize),
    /// It is a lock, which counts its holders.
    Lock,
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

    /// Writes down since when it is held, for those who wonder what space waits for. Of several who look at one commit,
    /// the first one to do so counts.
    pub(crate) fn date(&self, since: u64) -> Result<()> {
        let place = self.claimed.place + pin::SINCE;
        // It only informs, so it does not matter whose time it is if two are the first.
        if self.claimed.place != 0 && self.engine.pin_word(place)?.relaxed() == 0 {
            self.engine.store_pin(place, since, Ordering::Relaxed)?;
        }
        Ok(())
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
pub(crate) struct Hold<'e>(Pin<&'e Engine>);

impl<'e> Hold<'e> {
    /// Holds everything, and reads at the last visible commit.
    pub(crate) fn take(engine: &'e Engine) -> Result<Hold<'e>> {
        let pin = engine.pin()?;
        let below = engine.claim(Hold::below(&pin));
        if pin.claimed.place == 0 {
            engine.lock_snapshot(Hold::below(&pin))?;
        } else {
            engine.store_pin(pin.claimed.place, below, Ordering::SeqCst)?;
        }
        fence(Ordering::SeqCst);
        Ok(Hold(pin))
    }

    fn below(pin: &Pin<&Engine>) -> u64 {
        (pin.seq() & COUNT_MASK).saturating_sub(1)
    }

    /// The sequence number that its holder reads at.
    pub(crate) fn seq(&self) -> u64 {
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

/// The view of a thread that reads where it has read before and has nothing else under its pin: that of most reads.
/// Unlike a [`View`], it is in no other way than by the pin that the thread keeps.
pub(crate) struct KeptView<'e> {
    engine: &'e Engine,
    pin: &'e Word,
    place: u64,
    seq: u64,
    /// As with a [`View`].
    stays: PhantomData<*const ()>,
}

impl KeptView<'_> {
    /// The sequence number that it reads at.
    #[inline(always)]
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }
}

impl Drop for KeptView<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if !self.engine.is_forked() {
            let idle = self.engine.kept_pins.idle;
            self.engine.region.store_found(self.pin, self.place, idle, Ordering::Release);
        }
    }
}

/// The pins that views which may go anywhere have in common. A list is locked for a few steps, and never while
/// something else is waited for.
#[derive(Default)]
pub(crate) struct SharedPins([Share; SHARES]);

/// One of the lists, in cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share(Mutex<Commits>);

impl SharedPins {
    /// A pin that nobody uses, out of any of the lists. Only for one who holds none of them.
    fn take_idle(&self) -> Option<u64> {
        (0..SHARES).find_map(|share| self.lock(share).take_idle())
    }

    fn lock(&self, share: usize) -> MutexGuard<'_, Commits> {
        self.0[share % SHARES].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many snapshots of a read-only store hold the lock of each count.
#[derive(Default)]
pub(crate) struct SnapshotLocks(Mutex<BTreeMap<u64, u64>>);

/// A pin that this thread keeps. It does not keep the store alive.
struct Kept {
    pub(crate) store: u64,
    pub(crate) place: u64,
    pub(crate) returned: Weak<Mutex<Vec<u64>>>,
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

/// The pins that a thread keeps, by the number of the store.
#[derive(Default)]
struct KeptHere {
    pins: HashMap<u64, Kept, BuildHasherDefault<StoreHasher>>,
    /// With so many it is time to look for those whose stores are gone.
    crowded: usize,
}

impl KeptHere {
    /// Keeps a pin, and says which: the one that is there already, if there is one.
    fn keep(&mut self, pin: Kept) -> u64 {
        if self.pins.len() >= self.crowded {
            self.pins.retain(|_, kept| kept.returned.strong_count() > 0);
            // Half of them will be new by then, so that it costs each of them the same.
            self.crowded = 2 * self.pins.len() + 8;
        }
        // One that is too many is given back here.
        self.pins.entry(pin.store).or_insert(pin).place
    }
}

/// Store numbers count up. They are mixed with one multiplication, for a map that looks at the low and at the high
/// bits.
#[derive(Default)]
struct StoreHasher(u64);

impl Hasher for StoreHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

thread_local! {
    /// The store that this thread read from last, and the place of its pin there.
    static LAST: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static KEPT: RefCell<KeptHere> = RefCell::default();
}

impl Engine {
    /// A view of the last visible commit, for a read that begins and ends in this thread.
    #[inline(always)]
    pub(crate) fn view(&self) -> Result<View<'_>> {
        let claimed = self.claim_here()?;
        Ok(View { pin: Pin { engine: self, claimed }, stays: PhantomData })
    }

    /// The same where the thread has just read from this store, and does not read inside a read.
    #[inline(always)]
    pub(crate) fn kept_view(&self) -> Option<KeptView<'_>> {
        let (store, place) = LAST.try_with(Cell::get).unwrap_or_default();
        if self.is_forked() || store != self.kept_pins.store {
            return None;
        }
        let window = self.region.window();
        let [pin] = window.words(place)?;
        if pin.relaxed() != self.kept_pins.idle {
            return None;
        }
        let [visible] = window.words(live::VISIBLE)?;
        let seq = visible.load();
        // Release: a reclaimer who finds this pin knows that the reads under the one before are over.
        self.region.store_found(pin, place, self.claim(seq), Ordering::Release);
        self.barrier_behind_kept();
        let view = KeptView { engine: self, pin, place, seq, stays: PhantomData };
        // If it is not, the long way finds a newer number, or what is wrong.
        protocol::is_settled(self, seq).is_ok_and(|settled| settled).then_some(view)
    }

    fn claim_here(&self) -> Result<Claimed> {
        self.check_not_forked()?;
        let (store, place) = LAST.try_with(Cell::get).unwrap_or_default();
        if store != self.kept_pins.store {
            return self.claim_elsewhere();
        }
        if self.pin_word(place)?.relaxed() != self.kept_pins.idle {
            // A read inside a read.
            return self.claim_anywhere();
        }
        let seq = self.region.live(live::VISIBLE)?;
        // Release: as above.
        self.store_pin(place, self.claim(seq), Ordering::Release)?;
        self.barrier_behind_kept();
        match protocol::settle(self, place, seq) {
            Ok(seq) => Ok(Claimed { place, seq, whose: Whose::Thread }),
            Err(error) => {
                self.give_back(Claimed { place, seq, whose: Whose::Thread });
                Err(error)
            }
        }
    }

    /// The full barrier between writing a pin that a thread keeps and loading the horizon.
    #[inline(always)]
    fn barrier_behind_kept(&self) {
        if self.kept_pins.asymmetric {
            // What the processor reorders, the barrier of a reclaimer puts in order.
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The thread has not just read from this store: looks for the pin that it keeps here, or gets one.
    #[cold]
    fn claim_elsewhere(&self) -> Result<Claimed> {
        if self.read_only {
            return self.claim_anywhere();
        }
        let store = self.kept_pins.store;
        let found = KEPT.try_with(|kept| kept.borrow().pins.get(&store).map(|kept| kept.place));
        let place = match found {
            Ok(Some(place)) => Some(place),
            // Not under the borrow: whoever makes the table longer may read from it.
            Ok(None) => self.keep_pin()?,
            Err(_) => None,
        };
        // Without a pin of its own, or at the very end of its thread, a read claims one each time.
        match place {
            Some(place) if LAST.try_with(|last| last.set((store, place))).is_ok() => self.claim_here(),
            _ => self.claim_anywhere(),
        }
    }

    /// A pin for this thread to keep. None, if there is no free one and others have to be shared.
    fn keep_pin(&self) -> Result<Option<u64>> {
        let returned = self.kept_pins.returned.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = match returned.map_or_else(|| self.search_pin(self.kept_pins.idle), Ok) {
            Ok(place) => place,
            Err(Error::PinsExhausted { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let returned = Arc::downgrade(&self.kept_pins.returned);
        let pin = Kept { store: self.kept_pins.store, place, returned };
        Ok(KEPT.try_with(|kept| kept.borrow_mut().keep(pin)).ok())
    }

    /// Pins the last visible commit.
    pub(crate) fn pin(&self) -> Result<Pin<&Engine>> {
        Pin::take(self)
    }

    /// Claims a pin for a holder that may go anywhere: that of all who look at the last visible commit.
    fn claim_anywhere(&self) -> Result<Claimed> {
        self.check_not_forked()?;
        if self.read_only {
            return self.claim_by_lock();
        }
        let share = (thread_number() % SHARES as u64) as usize;
        let whose = Whose::Share(share);
        let mut commits = self.shared_pins.lock(share);
        let mut seq = self.region.live(live::VISIBLE)?;
        if let Some(place) = commits.join(seq) {
            return Ok(Claimed { place, seq, whose });
        }
        let own = match commits.take_idle() {
            Some(place) => {
                self.store_pin(place, self.claim(seq), Ordering::SeqCst)?;
                place
            }
            None => {
                // Not under the lock: whoever makes the table longer may pin something.
                drop(commits);
                let place = self.search_pin(self.claim(seq))?;
                commits = self.shared_pins.lock(share);
                place
            }
        };
        // Both ways, the pin was stored in the total order in which the horizon is loaded.
        match protocol::settle(self, own, seq) {
            Ok(settled) => seq = settled,
            Err(error) => {
                self.let_go(&mut commits, own);
                return Err(error);
            }
        }
        let place = commits.enter(seq, own);
        if place != own {
            self.let_go(&mut commits, own);
        }
        Ok(Claimed { place, seq, whose })
    }

    /// Nobody needs a pin of this process any more.
    fn let_go(&self, commits: &mut Commits, place: u64) {
        // A place was checked when the pin was taken, and a file only grows.
        let _ = self.store_pin(place + pin::SINCE, 0, Ordering::Relaxed);
        let claim = if commits.keep_idle(place) { self.kept_pins.idle } else { 0 };
        let _ = self.store_pin(place, claim, Ordering::Release);
    }

    /// Claims a pin in a store that is opened for reading.
    fn claim_by_lock(&self) -> Result<Claimed> {
        loop {
            let (frozen, seq) = self.reading_point()?;
            self.lock_snapshot(seq)?;
            fence(Ordering::SeqCst);
            let holds = self.is_undisturbed(frozen, seq);
            if let Ok(true) = holds {
                return Ok(Claimed { place: 0, seq, whose: Whose::Lock });
            }
            self.unlock_snapshot(seq);
            holds?;
        }
    }

    /// Gives a pin back. Only for the one who has claimed it.
    #[inline(always)]
    fn give_back(&self, claimed: Claimed) {
        match claimed.whose {
            Whose::Thread => {
                // A place was checked when the pin was taken, and a file only grows.
                let _ = self.store_pin(claimed.place, self.kept_pins.idle, Ordering::Release);
            }
            Whose::Share(share) => self.leave_share(share, claimed.seq),
            Whose::Lock => self.unlock_snapshot(claimed.seq),
        }
    }

    /// One of those who look at a commit does so no more.
    #[inline(never)]
    fn leave_share(&self, share: usize, seq: u64) {
        let mut commits = self.shared_pins.lock(share);
        if let Some(place) = commits.leave(seq) {
            self.let_go(&mut commits, place);
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

    /// Claims a free pin. If there is none, the table goes on in an extent.
    #[cold]
    fn search_pin(&self, claim: u64) -> Result<u64> {
        let start = Instant::now();
        let mut attempts = 0;
        loop {
            let parts = PIN.parts(&self.region)?;
            let entries = parts.entries();
            let first = self.kept_pins.next.load(Ordering::Relaxed) % entries;
            for number in (first..entries).chain(0..first) {
                #[cfg(test)]
                self.kept_pins.looked_at.fetch_add(1, Ordering::Relaxed);
                let Some(place) = parts.place(number) else { continue };
                if self.pin_word(place)?.load() == 0
                    && self.region.compare_exchange(place, 0, claim, Ordering::SeqCst)?
                {
                    self.kept_pins.next.store(number + 1, Ordering::Relaxed);
                    if number.is_multiple_of(LOOKS_AROUND) && self.is_crowded(&parts)? {
                        // It will be tried again when there is no free one left.
                        let _ = self.lengthen(&PIN, entries, Duration::ZERO);
                    }
                    return Ok(place);
                }
            }
            if let Some(place) = self.shared_pins.take_idle() {
                self.store_pin(place, claim, Ordering::SeqCst)?;
                return Ok(place);
            }
            attempts += 1;
            if attempts == 1 {
                // The dead hold none for long.
                self.sweep()?;
                continue;
            }
            let given_up = match self.lengthen(&PIN, entries, PATIENCE)? {
                Lengthened::Done => continue,
                Lengthened::Busy => start.elapsed() >= self.settings.lock_timeout,
                Lengthened::NotMine | Lengthened::NoRoom => attempts > ATTEMPTS,
            };
            if given_up {
                return Err(Error::PinsExhausted { path: self.region.path().to_owned(), max: entries });
            }
            std::thread::yield_now();
        }
    }

    /// Whether most pins are taken, and not by the dead.
    fn is_crowded(&self, parts: &Parts<'_>) -> Result<bool> {
        let few_are_free = || -> Result<bool> {
            let mut free = 0;
            for place in parts.places() {
                free += u64::from(self.pin_word(place)?.relaxed() == 0);
            }
            Ok(free < parts.entries() / 4)
        };
        Ok(few_are_free()? && {
            self.sweep()?;
            few_are_free()?
        })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::engine::settings::Settings;
    use crate::file::layout::DEFAULT_MAP;
    use crate::file::layout::EXTENTS;

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

    fn in_memory() -> Engine {
        Engine::in_memory(Settings { max_size: 1 << 24, ..Settings::default() }).unwrap()
    }

    /// How many pins were looked at in searches for a free one meanwhile.
    fn looked_at(engine: &Engine, work: impl FnOnce()) -> u64 {
        let looked_at = || engine.kept_pins.looked_at.load(Ordering::Relaxed);
        let before = looked_at();
        work();
        looked_at() - before
    }

    /// Pins of so many commits.
    fn hold(engine: &Engine, count: u64) -> Vec<Pin<&Engine>> {
        let hold = |number: u64| {
            engine.put(DEFAULT_MAP, b"key", &number.to_le_bytes(), None).unwrap();
            engine.pin().unwrap()
        };
        (0..count).map(hold).collect()
    }

    fn in_another_thread(work: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
    }

    #[test]
    fn who_looks_at_one_commit_shares_a_pin() {
        let engine = in_memory();
        let first = engine.pin().unwrap();
        first.date(7).unwrap();
        let looked_at = looked_at(&engine, || {
            let more: Vec<_> = (0..10_000).map(|_| engine.pin().unwrap()).collect();
            more[5000].date(9).unwrap();
            let (used, oldest) = engine.pins_in_use().unwrap();
            assert_eq!((used, oldest.unwrap().since), (1, 7), "the oldest counts");
            let newer = hold(&engine, 1);
            assert_eq!(engine.pins_in_use().unwrap().0, 2, "another commit has another");
            drop(first);
            assert_eq!(engine.pins_in_use().unwrap().1.unwrap().count, more[0].seq() & COUNT_MASK);
            assert!(newer[0].seq() > more[0].seq());
            drop((more, newer));
            assert_eq!(engine.pins_in_use().unwrap().0, 0);
            let again = engine.pin().unwrap();
            assert_eq!(engine.pins_in_use().unwrap().1.unwrap().since, 0, "the date went with the last of them");
            drop(again);
        });
        assert!(looked_at <= 2, "{looked_at} pins were looked at");
    }

    #[test]
    fn a_pin_costs_the_same_beside_six_hundred() {
        let engine = in_memory();
        let held = hold(&engine, 600);
        let by_reads = looked_at(&engine, || {
            in_another_thread(|| (0..1000).for_each(|_| drop(engine.view().unwrap())));
        });
        assert!(by_reads <= 2, "{by_reads} pins were looked at in 1,000 reads of one thread");
        let by_snapshots = looked_at(&engine, || {
            for number in 0..1000_u64 {
                engine.put(DEFAULT_MAP, b"key", &number.to_le_bytes(), None).unwrap();
                drop(engine.pin().unwrap());
            }
        });
        assert!(by_snapshots <= 2, "{by_snapshots} pins were looked at for 1,000 commits");
        assert_eq!(held.len(), 600);
    }

    #[test]
    fn a_thread_finds_its_pin_among_those_of_many_stores() {
        let engines: Vec<_> = (0..300).map(|_| in_memory()).collect();
        let read = || engines.iter().for_each(|engine| drop(engine.view().unwrap()));
        read();
        let looked_at = |engine: &Engine| engine.kept_pins.looked_at.load(Ordering::Relaxed);
        let before: u64 = engines.iter().map(looked_at).sum();
        (0..3).for_each(|_| read());
        assert_eq!(engines.iter().map(looked_at).sum::<u64>(), before, "each has its pin still");
        drop(engines);
        // What is left of stores that are gone does not pile up, nor is it looked through each time.
        for _ in 0..2000 {
            drop(in_memory().view().unwrap());
        }
        let left = KEPT.with(|kept| kept.borrow().pins.len());
        assert!(left < 700, "{left}");
    }

    #[test]
    fn everything_can_be_held_where_the_table_goes_on() {
        let engine = in_memory();
        let held = hold(&engine, 1500);
        let last = held.last().unwrap();
        assert!(last.claimed.place >= EXTENTS);
        // It shares the pin of the last commit.
        let all = Hold::take(&engine).unwrap();
        assert_eq!(all.0.claimed.place, last.claimed.place);
        engine.put(DEFAULT_MAP, b"key", b"newer", None).unwrap();
        let seq = all.seq() & COUNT_MASK;
        drop(held);
        assert_eq!(engine.lend_writing().raise_horizon().unwrap(), seq - 1);
        drop(all);
        assert!(engine.lend_writing().raise_horizon().unwrap() > seq);
    }

    #[test]
    fn the_table_grows_when_all_pins_are_taken() {
        let engine = in_memory();
        let held = hold(&engine, 2000);
        assert_eq!(engine.pins_in_use().unwrap().0, 2000);
        assert!(PIN.parts(&engine.region).unwrap().entries() > 2000);
        let lowest = held.iter().map(|pin| pin.seq() & COUNT_MASK).min();
        assert_eq!(engine.lend_writing().raise_horizon().unwrap(), lowest.unwrap());
        let mut held = held;
        // The last one is where the table went on.
        held.drain(..1999);
        assert!(held[0].claimed.place >= EXTENTS);
        engine.put(DEFAULT_MAP, b"key", b"newer", None).unwrap();
        assert_eq!(engine.lend_writing().raise_horizon().unwrap(), held[0].seq() & COUNT_MASK);
        assert!(engine.verify().unwrap().is_clean());
        // A thread that comes late may keep one there.
        let held = hold(&engine, 700);
        in_another_thread(|| {
            let view = engine.view().unwrap();
            assert!(view.pin.claimed.whose == Whose::Thread && view.pin.claimed.place >= EXTENTS);
            let seq = view.seq() & COUNT_MASK;
            assert_eq!(engine.pins_in_use().unwrap().1.map(|oldest| oldest.count <= seq), Some(true));
        });
        drop(held);
    }
}
