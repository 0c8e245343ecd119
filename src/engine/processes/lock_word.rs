//! The writer lock among processes: a word in the file, and whose turn it is.
//!
//! At most one thread of each process comes here at a time; the [gate](super::gate) sees to that. The lock is taken by
//! compare-and-swap, which costs a hundredth of a file lock. But the kernel does not release it when its holder dies.
//! So a *waiter* asks whether the holder is alive, and cleans up after it if not. That turns the word to "abandoned":
//! the next holder has to finish or bury what the dead one had begun.
//!
//! **Invariants.** A word that names a living holder is changed by that holder only, except for the bit that says that
//! a thread waits. The word is taken from a dead holder only by the process that holds the byte of its entry, so that
//! the entry cannot have been claimed anew. One's own entry is always alive.
//!
//! A waiter sleeps, and is woken when the lock is given back. The first to come takes it, which is cheapest; but a
//! process that has waited for a millisecond claims the next turn, and then no other takes it; of several, the first to
//! have come. If it dies or is stopped, the others give it some time while the lock is free, and continue.
//!
//! All this is written against [`Shared`], so that a model can go through all the ways in which it can happen.

use std::time::Duration;

use crate::error::Result;
use crate::file::layout::{live, writer_lock};
use crate::telemetry::LONG_WAIT;

/// After this wait, newcomers may not go first.
const PATIENCE: Duration = Duration::from_millis(1);

/// How often a waiter asks whether the holder is alive; and how long the lock may be free before the process whose turn
/// it is loses that turn.
const TICK: Duration = Duration::from_millis(20);

/// What the processes share, and what else the lock needs of its surroundings. All accesses are in one total order.
pub(crate) trait Shared {
    fn load(&self, at: u64) -> Result<u64>;
    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> Result<bool>;
    fn swap(&self, at: u64, new: u64) -> Result<u64>;
    /// If the owner of an entry is dead, [disowns](disown) and cleans it. Returns whether it was dead.
    fn clear_up_after(&self, entry: u64) -> Result<bool>;
    /// Sleeps while the lock word is `seen`, at most this long.
    fn sleep(&self, seen: u64, timeout: Duration) -> Result<()>;
    /// Wakes all that sleep on the lock word.
    fn wake(&self) -> Result<()>;
    /// Tells that the wait has become [long](LONG_WAIT), and lasts.
    fn waits_long(&self, _waited: Duration) {}
    /// A clock that only goes forwards.
    fn clock(&self) -> Duration;
}

/// How the lock passes from one holder to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// The last holder has given it back, and left nothing undone.
    Orderly,
    /// The last holder died, or could not clean up after itself.
    Abandoned,
}

/// Takes the lock for the entry `me`, waiting at most `timeout`. `None` if it did not become free in time.
#[inline(always)]
pub(crate) fn take(shared: &impl Shared, me: u64, timeout: Duration) -> Result<Option<Handover>> {
    match try_take(shared, me)? {
        Try::Taken(taken) => Ok(Some(taken)),
        _ => take_slowly(shared, me, timeout),
    }
}

/// The outcome of an attempt.
enum Try {
    Taken(Handover),
    /// The lock is held: this is its word.
    Held(u64),
    /// The lock is free, and another process has the turn: this word says which.
    NotMyTurn(u64),
    /// The word changed meanwhile.
    Changed,
}

#[inline(always)]
fn try_take(shared: &impl Shared, me: u64) -> Result<Try> {
    let word = shared.load(live::WRITER_LOCK)?;
    if !writer_lock::is_free(word) {
        return Ok(Try::Held(word));
    }
    let turn = shared.load(live::NEXT_TURN)?;
    if turn != 0 && turn >> 32 != me + 1 {
        return Ok(Try::NotMyTurn(turn));
    }
    if !shared.compare_exchange(live::WRITER_LOCK, word, writer_lock::taken(word, me))? {
        return Ok(Try::Changed);
    }
    if turn != 0 {
        // A process that had lost patience with us may have taken the turn away.
        shared.compare_exchange(live::NEXT_TURN, turn, 0)?;
    }
    let abandoned = writer_lock::holder(word) == writer_lock::ABANDONED;
    Ok(Try::Taken(if abandoned { Handover::Abandoned } else { Handover::Orderly }))
}

#[cold]
fn take_slowly(shared: &impl Shared, me: u64, timeout: Duration) -> Result<Option<Handover>> {
    for _ in 0..SPINS {
        if let Try::Taken(taken) = try_take(shared, me)? {
            return Ok(Some(taken));
        }
        std::hint::spin_loop();
    }
    let start = shared.clock();
    // How often the lock had been taken when we came: the smaller number has waited longer.
    let came = shared.load(live::WRITER_LOCK)? as u32;
    let (mut asked, mut is_told) = (None, false);
    // The turn of another that the lock is kept free for, and since when.
    let mut kept_free: Option<(u64, Duration)> = None;
    loop {
        let now = shared.clock();
        let outcome = try_take(shared, me)?;
        if !matches!(outcome, Try::NotMyTurn(_)) {
            kept_free = None;
        }
        let seen = match outcome {
            Try::Taken(taken) => return Ok(Some(taken)),
            Try::Changed => continue,
            Try::Held(word) => {
                let holder = writer_lock::holder(word);
                if holder != me + 1 && asked.is_none_or(|asked| now >= asked + TICK) {
                    asked = Some(now);
                    if shared.clear_up_after(holder - 1)? {
                        continue;
                    }
                }
                word
            }
            Try::NotMyTurn(turn) => {
                let since = match kept_free {
                    Some((kept, since)) if kept == turn => since,
                    _ => kept_free.insert((turn, now)).1,
                };
                if now >= since + TICK {
                    shared.compare_exchange(live::NEXT_TURN, turn, 0)?;
                    continue;
                }
                shared.load(live::WRITER_LOCK)?
            }
        };
        let waited = now - start;
        if waited >= timeout {
            withdraw(shared, me)?;
            return Ok(None);
        }
        if waited >= LONG_WAIT && !std::mem::replace(&mut is_told, true) {
            shared.waits_long(waited);
        }
        if waited >= PATIENCE {
            claim_turn(shared, me, came)?;
        }
        if seen & writer_lock::WAITERS == 0 {
            // If it has changed, try again: there may be no holder to wake us.
            if !shared.compare_exchange(live::WRITER_LOCK, seen, seen | writer_lock::WAITERS)? {
                continue;
            }
        }
        let nap = if waited < PATIENCE { PATIENCE } else { TICK }.min(timeout - waited);
        shared.sleep(seen | writer_lock::WAITERS, nap)?;
    }
}

/// Claims the next turn for `me`, unless a process has it that came before.
fn claim_turn(shared: &impl Shared, me: u64, came: u32) -> Result<()> {
    let turn = shared.load(live::NEXT_TURN)?;
    let came_later = (turn as u32).wrapping_sub(came) as i32 > 0;
    if turn == 0 || turn >> 32 != me + 1 && came_later {
        shared.compare_exchange(live::NEXT_TURN, turn, ((me + 1) << 32) | u64::from(came))?;
    }
    Ok(())
}

/// How often to look at the lock before it is worth while to wait in earnest.
const SPINS: u32 = if cfg!(loom) { 0 } else { 100 };

/// Gives up the turn that `me` may have claimed.
fn withdraw(shared: &impl Shared, me: u64) -> Result<()> {
    let turn = shared.load(live::NEXT_TURN)?;
    if turn >> 32 == me + 1 {
        shared.compare_exchange(live::NEXT_TURN, turn, 0)?;
    }
    Ok(())
}

/// Gives the lock back. The caller holds it.
#[inline]
pub(crate) fn give_back(shared: &impl Shared, word: u64, how: Handover) -> Result<()> {
    let holder = match how {
        Handover::Orderly => writer_lock::FREE,
        Handover::Abandoned => writer_lock::ABANDONED,
    };
    let free = writer_lock::freed(word, holder);
    if shared.swap(live::WRITER_LOCK, free)? & writer_lock::WAITERS != 0 {
        shared.wake()?;
    }
    Ok(())
}

/// Takes lock and turn from the entry of a process that is dead, or leaves. The caller holds the byte of that entry.
pub(crate) fn disown(shared: &impl Shared, entry: u64) -> Result<()> {
    loop {
        let word = shared.load(live::WRITER_LOCK)?;
        if writer_lock::holder(word) != entry + 1 {
            break;
        }
        if shared.compare_exchange(live::WRITER_LOCK, word, writer_lock::freed(word, writer_lock::ABANDONED))? {
            if word & writer_lock::WAITERS != 0 {
                shared.wake()?;
            }
            break;
        }
    }
    withdraw(shared, entry)
}
