//! Pins: they keep the space that a reader looks at from being reused.
//!
//! **Invariant.** The reader writes its pin at the visible sequence number N, then loads the horizon and starts only if
//! that is not above N; only then does it load where the index is. A reclaimer raises the horizon to H, then scans all
//! pins, and reuses only what no pin below H can see. Of the two, one must see the other (the pattern of Dekker's
//! algorithm, as in hazard pointers: Michael, 2004). So between writing and loading there is a full barrier on both
//! sides.
//!
//! A full barrier in each read would cost more than the read of hot data, and keep the processor from overlapping the
//! cache misses of one read with those of the next. Where the system offers `membarrier`, it is asymmetric: a
//! reclaimer, which is rare, makes every running thread execute a barrier, and readers need none (as in `liburcu` and
//! in folly's hazard pointers). For that, each thread keeps a pin of its own between reads, which it writes with a
//! plain store. Snapshots, which move from thread to thread, claim a pin by compare-and-swap, and so does a read inside
//! a read; all that look at the same commit in this process share it ([`sharing`](super::sharing)).
//! [`kept`](super::kept) says which thread keeps which pin, and the [table](crate::engine::lookup::pin_table) how a
//! free one is found.
//!
//! When all pins are taken, the table continues in an extent ([`live_tables`](crate::engine::write::tables)).
//!
//! A store that is opened for reading cannot write pins. Its snapshots take a shared lock on a byte whose place says
//! the sequence number; the reclaimer asks the kernel for such locks. Here the kernel's own lock is the barrier.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence, fence};
use std::time::{Duration, Instant};

use super::kept::Here;
use super::sharing::{SharedPin, Table, Unused};
use crate::engine::Engine;
use crate::engine::lookup::pin_table::{self, Found};
use crate::engine::lookup::protocol;
use crate::engine::processes::entries::{lock_error, poll};
use crate::engine::write::tables::Lengthened;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{Seq, live, pin};
use crate::file::live_table::PIN;
use crate::file::locks::{self, Sharing};
use crate::file::mapping::Word;

/// How often a reader looks through all pins before it gives up, where there can be no more of them. A read inside a
/// read holds one for a short time, so after this only snapshots and threads can hold them all.
const ATTEMPTS: u32 = 100;

/// No process needs longer than this to see whether a byte is locked.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How long a reader without a free pin waits for a turn at lengthening the table, before it looks again.
const PATIENCE: Duration = Duration::from_millis(10);

/// One in this many searches for a free pin looks how many there are, to lengthen the table before it is full.
const LOOKS_AROUND: u64 = 64;

/// A pin that is held: what its sequence number sees stays as it is. It is given back when it is dropped, and in no
/// other way.
///
/// It borrows the engine, or shares it, so that its holder can go anywhere.
pub(crate) struct Pin<E: Deref<Target = Engine>> {
    engine: E,
    claimed: Claimed,
}

/// What a pin is in the table. Nothing outside of this file has one without its [`Pin`].
#[derive(Clone, Copy)]
struct Claimed {
    /// Zero in a read-only store, whose pins are locks.
    pub(crate) place: u64,
    /// The sequence number that its holder reads at.
    pub(crate) seq: Seq,
    whose: Whose,
}

/// Which others may use a pin besides its holder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// None: it stays with its thread.
    Thread,
    /// All that look at the same commit and have the same list.
    Share(usize),
    /// It is a lock, which counts its holders.
    Lock,
}

impl<E: Deref<Target = Engine>> Drop for Pin<E> {
    #[inline(always)]
    fn drop(&mut self) {
        let (engine, Claimed { place, seq, whose }) = (&*self.engine, self.claimed);
        // In a forked child the pin is the parent's.
        if engine.is_forked() {
            return;
        }
        match whose {
            Whose::Thread => {
                // A place was checked when the pin was taken, and a file only grows.
                let _ = pin_table::store(&engine.mapping, place, engine.claims.idle, Ordering::Release);
            }
            Whose::Share(share) => engine.shared_pins.leave(engine, share, seq),
            Whose::Lock => engine.unlock_snapshot(seq),
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
    pub(crate) fn seq(&self) -> Seq {
        self.claimed.seq
    }

    /// Records since when it is held, to explain what space waits for. Of several holders that look at one commit, the
    /// first one to do so counts.
    pub(crate) fn date(&self, since: u64) -> Result<()> {
        let place = self.claimed.place + pin::SINCE;
        // It only informs, so it does not matter whose time it is if two are the first.
        let mapping = &self.engine.mapping;
        if self.claimed.place != 0 && pin_table::word(mapping, place)?.relaxed() == 0 {
            pin_table::store(mapping, place, since, Ordering::Relaxed)?;
        }
        Ok(())
    }

    /// Pins the last visible commit, for a holder that may go anywhere.
    pub(crate) fn take(engine: E) -> Result<Pin<E>> {
        let claimed = engine.pin()?.into_claimed();
        Ok(Pin { claimed, engine })
    }

    /// What a pin is, for another pin that gives it back in its place.
    fn into_claimed(self) -> Claimed {
        ManuallyDrop::new(self).claimed
    }
}

/// A pin that keeps more than its own commit: everything that was in use when it was taken, including what is dead in
/// the log.
///
/// **Invariant.** Space that becomes empty is marked with the number that is visible then, and is reused when no pin is
/// below that. A pin at N does not keep space that becomes empty at N: no reader at N needs it. This pin stands one
/// commit below the one that it reads at, so it does. Space that was reused in spite of it was empty before, and the
/// head of the log and all tables, which its holder loads after a full barrier, say so.
pub(crate) struct Hold<E: Deref<Target = Engine>> {
    pin: Pin<E>,
    /// If it is a lock, there is another one below it.
    _below: Option<Pin<E>>,
}

impl<E: Deref<Target = Engine> + Clone> Hold<E> {
    /// Holds everything, and reads at the last visible commit.
    pub(crate) fn take(engine: E) -> Result<Hold<E>> {
        let pin = Pin::take(engine.clone())?;
        let below = Seq::new(pin.seq().incarnation(), pin.seq().count().saturating_sub(1));
        let _below = if pin.claimed.place == 0 {
            let claimed = engine.pin_by_lock(below)?.into_claimed();
            Some(Pin { claimed, engine })
        } else {
            pin_table::store(&engine.mapping, pin.claimed.place, engine.claims.at(below), Ordering::SeqCst)?;
            None
        };
        fence(Ordering::SeqCst);
        Ok(Hold { pin, _below })
    }
}

impl<E: Deref<Target = Engine>> Hold<E> {
    pub(crate) fn engine(&self) -> &E {
        self.pin.engine()
    }

    /// The sequence number that its holder reads at.
    pub(crate) fn seq(&self) -> Seq {
        self.pin.seq()
    }
}

/// A pin for a read that begins and ends in this thread: mostly the one that the thread keeps.
pub(crate) struct View<'e> {
    pin: Pin<&'e Engine>,
    /// It must not go to another thread, which keeps a pin of its own.
    stays: PhantomData<*const ()>,
}

impl<'e> View<'e> {
    #[inline(always)]
    pub(crate) fn engine(&self) -> &'e Engine {
        self.pin.engine
    }

    /// The sequence number that it reads at.
    #[inline(always)]
    pub(crate) fn seq(&self) -> Seq {
        self.pin.seq()
    }
}

/// The view of most reads: the thread has read from this store last, and nothing else is under its pin. Unlike a
/// [`View`], it always reads by the pin that the thread keeps.
pub(crate) struct KeptView<'e> {
    engine: &'e Engine,
    pin: &'e Word,
    place: u64,
    seq: Seq,
    /// As with a [`View`].
    stays: PhantomData<*const ()>,
}

impl KeptView<'_> {
    /// The sequence number that it reads at.
    #[inline(always)]
    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }
}

impl Drop for KeptView<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // In a forked child the pin is the parent's.
        if !self.engine.is_forked() {
            let idle = self.engine.claims.idle;
            self.engine.mapping.store_found(self.pin, self.place, idle, Ordering::Release);
        }
    }
}

impl Engine {
    /// A view of the last visible commit, for a read that begins and ends in this thread.
    #[inline(always)]
    pub(crate) fn view(&self) -> Result<View<'_>> {
        Ok(View { pin: self.pin_here()?, stays: PhantomData })
    }

    /// The same where the thread has just read from this store, and does not read inside a read.
    #[inline(always)]
    pub(crate) fn kept_view(&self) -> Option<KeptView<'_>> {
        let place = self.kept_pins.last()?;
        if self.is_forked() {
            return None;
        }
        let window = self.mapping.window();
        let [pin] = window.words(place)?;
        if pin.relaxed() != self.claims.idle {
            return None;
        }
        let [visible] = window.words(live::VISIBLE)?;
        let seq = Seq(visible.load());
        // Release: a reclaimer that finds this pin knows that the reads under the one before are over.
        self.mapping.store_found(pin, place, self.claims.at(seq), Ordering::Release);
        self.barrier_behind_kept();
        let view = KeptView { engine: self, pin, place, seq, stays: PhantomData };
        // If it is not settled, the long way finds a newer number, or the damage.
        protocol::is_settled(self, seq).is_ok_and(|settled| settled).then_some(view)
    }

    /// Pins the last visible commit for a holder that stays in this thread.
    fn pin_here(&self) -> Result<Pin<&Engine>> {
        self.check_not_forked()?;
        let Some(place) = self.kept_pins.last() else { return self.pin_from_elsewhere() };
        if pin_table::word(&self.mapping, place)?.relaxed() != self.claims.idle {
            // A read inside a read.
            return self.pin();
        }
        let seq = self.mapping.live_seq(live::VISIBLE)?;
        // Release: as above.
        pin_table::store(&self.mapping, place, self.claims.at(seq), Ordering::Release)?;
        let mut pin = Pin { engine: self, claimed: Claimed { place, seq, whose: Whose::Thread } };
        self.barrier_behind_kept();
        pin.claimed.seq = protocol::settle(self, place, seq)?;
        Ok(pin)
    }

    /// The full barrier between writing a pin that a thread keeps and loading the horizon.
    #[inline(always)]
    fn barrier_behind_kept(&self) {
        if self.kept_pins.is_asymmetric() {
            // The barrier of a reclaimer puts in order what the processor reorders.
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The thread has not just read from this store: looks for the pin that it keeps here, or gets one.
    #[cold]
    fn pin_from_elsewhere(&self) -> Result<Pin<&Engine>> {
        if self.read_only {
            return self.pin();
        }
        let place = match self.kept_pins.here() {
            Here::Pin(place) => Some(place),
            Here::Nothing => self.keep_pin()?,
            Here::Ending => None,
        };
        // Without a pin of its own, or at the very end of its thread, a read claims one each time.
        match place {
            Some(place) if self.kept_pins.note_last(place) => self.pin_here(),
            _ => self.pin(),
        }
    }

    /// A pin for this thread to keep. None, if there is no free one and others have to be shared.
    fn keep_pin(&self) -> Result<Option<u64>> {
        let place = match self.kept_pins.take_returned().map_or_else(|| self.search_pin(self.claims.idle), Ok) {
            Ok(place) => place,
            Err(Error::PinsExhausted { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(self.kept_pins.keep(place))
    }

    /// Pins the last visible commit, for a holder that may go anywhere.
    pub(crate) fn pin(&self) -> Result<Pin<&Engine>> {
        self.check_not_forked()?;
        if self.read_only {
            return self.pin_by_any_lock();
        }
        let SharedPin { place, seq, share } = self.shared_pins.join(self)?;
        Ok(Pin { engine: self, claimed: Claimed { place, seq, whose: Whose::Share(share) } })
    }

    /// The same in a store that is opened for reading.
    fn pin_by_any_lock(&self) -> Result<Pin<&Engine>> {
        loop {
            let point = self.reading_point()?;
            let pin = self.pin_by_lock(point.seq)?;
            fence(Ordering::SeqCst);
            if self.is_undisturbed(point)? {
                return Ok(pin);
            }
        }
    }

    /// Takes the lock that says that there is a reader at `seq`.
    fn pin_by_lock(&self, seq: Seq) -> Result<Pin<&Engine>> {
        if let Some(locks) = &self.locks {
            let place = locks::snapshot(seq.count());
            let lock = || locks.try_lock(place, Sharing::Shared).map_err(|e| lock_error(&self.mapping, e));
            self.snapshot_locks.hold(seq.count(), || {
                // None of these is taken exclusively, except for a moment where a lock can only be tested by taking it.
                if poll(self.settings.lock_timeout.max(LONGEST_LOOK), lock)? {
                    return Ok(());
                }
                Err(Error::Locked { path: self.mapping.path().to_owned(), by: HeldBy::Unknown })
            })?;
        }
        Ok(Pin { engine: self, claimed: Claimed { place: 0, seq, whose: Whose::Lock } })
    }

    #[cold]
    fn unlock_snapshot(&self, seq: Seq) {
        let Some(locks) = &self.locks else { return };
        self.snapshot_locks.leave(seq.count(), || {
            // Should this fail, space is held back until the store is closed.
            let _ = locks.unlock(locks::snapshot(seq.count()));
        });
    }

    /// Claims a free pin. If there is none, the table continues in an extent.
    #[cold]
    fn search_pin(&self, claim: u64) -> Result<u64> {
        let start = Instant::now();
        let mut attempts = 0;
        loop {
            let entries = match self.pin_search.claim(&self.mapping, claim)? {
                Found::Pin { place, number, entries } => {
                    if number.is_multiple_of(LOOKS_AROUND) && self.is_crowded()? {
                        // It will be tried again when there is no free one left.
                        let _ = self.lengthen(&PIN, entries, Duration::ZERO);
                    }
                    return Ok(place);
                }
                Found::Nothing { entries } => entries,
            };
            if let Some(place) = self.shared_pins.take_idle() {
                pin_table::store(&self.mapping, place, claim, Ordering::SeqCst)?;
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
                return Err(Error::PinsExhausted { path: self.mapping.path().to_owned(), max: entries });
            }
            std::thread::yield_now();
        }
    }

    /// Whether most pins are taken, and not by the dead.
    fn is_crowded(&self) -> Result<bool> {
        Ok(pin_table::few_are_free(&self.mapping)? && {
            self.sweep()?;
            pin_table::few_are_free(&self.mapping)?
        })
    }
}

/// What sharing pins needs of a store.
impl Table for Engine {
    fn search(&self, claim: u64) -> Result<u64> {
        self.search_pin(claim)
    }

    fn let_go(&self, place: u64, unused: Unused) {
        // A place was checked when the pin was taken, and a file only grows.
        let _ = pin_table::store(&self.mapping, place + pin::SINCE, 0, Ordering::Relaxed);
        let claim = match unused {
            Unused::Kept => self.claims.idle,
            Unused::Free => 0,
        };
        let _ = pin_table::store(&self.mapping, place, claim, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::engine::settings::Settings;
    use crate::file::layout::{DEFAULT_MAP, EXTENTS};

    fn in_memory() -> Engine {
        Engine::in_memory(Settings { max_size: 1 << 24, ..Settings::default() }).unwrap()
    }

    /// How many pins were looked at in searches for a free one meanwhile.
    fn looked_at(engine: &Engine, work: impl FnOnce()) -> u64 {
        let looked_at = || engine.pin_search.looked_at.load(Ordering::Relaxed);
        let before = looked_at();
        work();
        looked_at() - before
    }

    /// Pins of this many commits.
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
            assert_eq!(engine.pins_in_use().unwrap().1.unwrap().count, more[0].seq().count());
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
        let looked_at = |engine: &Engine| engine.pin_search.looked_at.load(Ordering::Relaxed);
        let before: u64 = engines.iter().map(looked_at).sum();
        (0..3).for_each(|_| read());
        assert_eq!(engines.iter().map(looked_at).sum::<u64>(), before, "each has its pin still");
    }

    #[test]
    fn a_thread_that_ends_leaves_its_pin_to_the_next() {
        let engine = in_memory();
        in_another_thread(|| drop(engine.view().unwrap()));
        assert_eq!(engine.pins_in_use().unwrap().0, 0);
        let looked_at = looked_at(&engine, || in_another_thread(|| drop(engine.view().unwrap())));
        assert_eq!(looked_at, 0, "none was searched for");
    }

    #[test]
    fn everything_can_be_held_where_the_table_goes_on() {
        let engine = in_memory();
        let held = hold(&engine, 1500);
        let last = held.last().unwrap();
        assert!(last.claimed.place >= EXTENTS);
        // It shares the pin of the last commit.
        let all = Hold::take(&engine).unwrap();
        assert_eq!(all.pin.claimed.place, last.claimed.place);
        engine.put(DEFAULT_MAP, b"key", b"newer", None).unwrap();
        let seq = all.seq().count();
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
        assert!(PIN.parts(&engine.mapping).unwrap().entries() > 2000);
        let lowest = held.iter().map(|pin| pin.seq().count()).min();
        assert_eq!(engine.lend_writing().raise_horizon().unwrap(), lowest.unwrap());
        let mut held = held;
        // The last one is in the extent where the table continues.
        held.drain(..1999);
        assert!(held[0].claimed.place >= EXTENTS);
        engine.put(DEFAULT_MAP, b"key", b"newer", None).unwrap();
        assert_eq!(engine.lend_writing().raise_horizon().unwrap(), held[0].seq().count());
        assert!(engine.verify().unwrap().is_clean());
        // A thread that comes late may keep one there.
        let held = hold(&engine, 700);
        in_another_thread(|| {
            let view = engine.view().unwrap();
            assert!(view.pin.claimed.whose == Whose::Thread && view.pin.claimed.place >= EXTENTS);
            let seq = view.seq().count();
            assert_eq!(engine.pins_in_use().unwrap().1.map(|oldest| oldest.count <= seq), Some(true));
        });
        drop(held);
    }
}
