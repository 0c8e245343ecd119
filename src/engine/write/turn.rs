//! Turns: the right to write, as a value.
//!
//! The owner of a [`Turn`] holds the writer lock, and there is no other way to hold it: the lock is taken here, among
//! the threads of this process at the [gate](crate::engine::processes::gate) and then among the processes by the
//! [word](crate::engine::processes::lock_word) in the file, and is given back when the turn is dropped. A forked
//! child's copy of a turn belongs to the parent, and gives nothing back.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::clock::now;
use crate::engine::processes::gate::Refusal;
use crate::engine::processes::lock_word::{self, Handover};
use crate::engine::state::writer::Writing;
use crate::error::{Error, Numbers, Result};
use crate::file::layout::{LAST_COUNT, Offset, Seq, live, writer_lock};
use crate::file::space::Space;

/// How long a thread waits for a transaction that it has begun itself before it gets a deadlock error.
pub(crate) const SENDING: Duration = Duration::from_millis(100);

/// A turn at writing: the writer lock, which is given back when this is dropped, and in no other way.
///
/// It borrows the engine, or shares it if a user can move it anywhere.
pub(crate) struct Turn<E: Deref<Target = Engine>> {
    engine: E,
}

impl<E: Deref<Target = Engine>> Drop for Turn<E> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // It belongs to the parent.
            return;
        }
        self.engine.release();
    }
}

impl<E: Deref<Target = Engine>> Turn<E> {
    /// Takes the writer lock and clears up anything that was left half done.
    pub(crate) fn take(engine: E) -> Result<Turn<E>> {
        let timeout = engine.settings.lock_timeout;
        let turn = Turn::to_look(engine, timeout)?;
        turn.engine.begin_to_write()?;
        Ok(turn)
    }

    /// The same to keep others from writing, without writing, waiting at most `timeout`.
    pub(super) fn to_look(engine: E, timeout: Duration) -> Result<Turn<E>> {
        let (turn, handover) = Turn::lock(engine, timeout)?;
        turn.write().prepare(handover)?;
        Ok(turn)
    }

    /// Takes the writer lock, and says how its last holder gave it up: something may be left half done.
    #[inline(always)]
    fn lock(engine: E, timeout: Duration) -> Result<(Turn<E>, Handover)> {
        engine.check_not_forked()?;
        if engine.read_only {
            return Err(Error::ReadOnly { path: engine.mapping.path().to_owned() });
        }
        let handover = match engine.take_lock(timeout) {
            Ok(handover) => handover,
            Err(error) => engine.take_lock_of_mine(error, timeout)?,
        };
        Ok((Turn { engine }, handover))
    }

    /// Lends the right to change the store.
    #[inline(always)]
    pub(crate) fn write(&self) -> Writing<'_> {
        self.engine.lend_writing()
    }
}

/// The turn of a transaction, which lasts across calls and moves between threads.
pub(crate) struct LongTurn(Turn<Arc<Engine>>);

impl LongTurn {
    /// Takes the writer lock, and stores since when, for the errors of those that wait.
    pub(crate) fn take(engine: Arc<Engine>) -> Result<LongTurn> {
        let turn = Turn::take(engine)?;
        // It is only informative.
        let _ = turn.engine.mapping.store_live(live::WRITING_SINCE, now(), Ordering::Relaxed);
        Ok(LongTurn(turn))
    }

    /// The store that may be changed.
    #[inline]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// Lends the right to change the store.
    pub(crate) fn write(&self) -> Writing<'_> {
        self.0.write()
    }

    /// From now on the calling thread acts for it.
    pub(crate) fn adopt(&self) {
        self.0.engine.gate.adopt();
    }

    /// From now on the calling thread no longer acts for it.
    pub(crate) fn hand_over(&self) {
        if !self.0.engine.is_forked() {
            self.0.engine.gate.hand_over();
        }
    }
}

impl Drop for LongTurn {
    fn drop(&mut self) {
        if !self.0.engine.is_forked() {
            // The thread that owned it may be making a table longer in this turn.
            self.adopt();
            drop(self.write());
            let _ = self.0.engine.mapping.store_live(live::WRITING_SINCE, 0, Ordering::Relaxed);
        }
    }
}

impl Engine {
    /// A turn at writing.
    pub(crate) fn turn(&self) -> Result<Turn<&Engine>> {
        Turn::take(self)
    }

    /// Takes a turn at writing for one step, which borrows the right to change the store once.
    #[inline(always)]
    pub(crate) fn in_turn<R>(&self, step: impl FnOnce(&mut Writing<'_>) -> Result<R>) -> Result<R> {
        let (_turn, handover) = Turn::lock(self, self.settings.lock_timeout)?;
        let mut writing = self.continue_writing();
        writing.prepare(handover)?;
        self.begin_to_write()?;
        step(&mut writing)
    }

    /// Whether a turn was refused because another one is held, possibly by this very thread through another handle.
    pub(crate) fn is_turn_of_another(&self, refused: &Error) -> bool {
        match refused {
            Error::LockTimeout { .. } => true,
            Error::WouldDeadlock { .. } => !self.gate.is_mine(),
            _ => false,
        }
    }

    /// A turn to keep others from writing, waiting at most `timeout`.
    pub(crate) fn turn_to_look(&self, timeout: Duration) -> Result<Turn<&Engine>> {
        Turn::to_look(self, timeout)
    }

    /// Gives the writer lock back, when its turn is dropped.
    #[inline(always)]
    fn release(&self) {
        // If the writer panics, or could not clear up, the next one does that.
        let left_something = std::thread::panicking() || self.left_something.load(Ordering::Relaxed);
        if (left_something || !self.exclusive)
            && let Ok(word) = self.mapping.live(live::WRITER_LOCK)
        {
            self.left_something.store(false, Ordering::Relaxed);
            let how = if left_something { Handover::Abandoned } else { Handover::Orderly };
            // The word was just found, so storing it succeeds.
            let _ = lock_word::give_back(self, word, how);
        }
        self.gate.release();
    }

    /// Takes the writer lock, and says whether its last holder has left something behind.
    #[inline(always)]
    fn take_lock(&self, timeout: Duration) -> Result<Handover> {
        if let Err(refusal) = self.gate.acquire(timeout, |waited| self.tell_long_wait(waited)) {
            return Err(self.refused(refusal));
        }
        // Looked at as a value and then passed on, the whole result would be copied in every write.
        match self.take_lock_word(timeout) {
            Ok(handover) => Ok(handover),
            Err(error) => {
                self.gate.release();
                Err(error)
            }
        }
    }

    /// The same when that was refused. If this thread seems to hold the lock, it may have sent its transaction to
    /// another thread; a moved value leaves no trace, so the new thread gets some time to use it.
    #[cold]
    fn take_lock_of_mine(&self, refused: Error, timeout: Duration) -> Result<Handover> {
        let start = Instant::now();
        let mut taken = Err(refused);
        while matches!(taken, Err(Error::WouldDeadlock { .. })) && start.elapsed() < SENDING.min(timeout) {
            std::thread::sleep(Duration::from_millis(1));
            taken = self.take_lock(timeout.saturating_sub(start.elapsed()));
        }
        taken
    }

    /// Takes the lock word, and says whether its last holder has left something behind.
    #[inline(always)]
    fn take_lock_word(&self, timeout: Duration) -> Result<Handover> {
        if self.exclusive {
            let word = self.mapping.live(live::WRITER_LOCK)?;
            if writer_lock::holder(word) == self.process + 1 {
                return Ok(Handover::Orderly);
            }
            self.mapping.store_live(live::WRITER_LOCK, writer_lock::taken(word, self.process), Ordering::Relaxed)?;
            let was_free = writer_lock::holder(word) == writer_lock::FREE;
            return Ok(if was_free { Handover::Orderly } else { Handover::Abandoned });
        }
        lock_word::take(self, self.process, timeout)?.ok_or_else(|| self.lock_timeout(timeout))
    }

    /// What the lock word, which is this now, will be when the turn that follows this one is ours, and all goes well
    /// until then.
    #[inline(always)]
    pub(crate) fn lock_word_in_next_turn(&self, word: u64) -> u64 {
        let free = writer_lock::freed(word, writer_lock::FREE);
        if self.exclusive { word } else { writer_lock::taken(free, self.process) }
    }

    #[cold]
    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Mine => Error::WouldDeadlock { path: self.mapping.path().to_owned() },
            Refusal::TimedOut(waited) => self.lock_timeout(waited),
        }
    }

    /// What precedes the first change of a turn.
    #[inline(always)]
    pub(super) fn begin_to_write(&self) -> Result<()> {
        if !self.has_numbers()? {
            return Err(self.numbers_exhausted(Numbers::Commits, LAST_COUNT));
        }
        if self.closed.load(Ordering::Relaxed) { self.clear_closed_flag() } else { Ok(()) }
    }
}

impl Writing<'_> {
    /// Clears up what the previous holder of the writer lock left half done, if it may have abandoned it.
    #[inline(always)]
    fn prepare(&mut self, handover: Handover) -> Result<()> {
        // As in `take_lock`: nothing is passed on as a value.
        match self.finish_half_done(handover) {
            Ok(()) => Ok(()),
            Err(error) => {
                if handover == Handover::Abandoned {
                    self.engine.left_something.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    #[inline(always)]
    fn finish_half_done(&mut self, handover: Handover) -> Result<()> {
        let (engine, mapping) = (self.engine, &self.engine.mapping);
        let abandoned = handover == Handover::Abandoned;
        if self.is_as_left(handover)? {
            return Ok(());
        }
        self.writer.left = None;
        if !self.writer.space.is_current(mapping)? {
            self.reload()?;
        }
        let front = mapping.window();
        let (visible, commit) = (Seq(front.live(live::VISIBLE)), front.live(live::COMMIT_POINT));
        let half_done = Seq::of_commit_word(commit, visible) != visible
            || Offset::of_commit_word(commit) != Offset(front.live(live::TAIL));
        if (half_done || abandoned) && engine.closed.load(Ordering::Relaxed) {
            engine.clear_closed_flag()?;
        }
        if half_done {
            self.finish()?;
        }
        if abandoned {
            self.bury()?;
        }
        Ok(())
    }

    /// Whether this is the turn after that of the put that has [left](crate::engine::state::writer::Left) its word.
    #[inline(always)]
    fn is_as_left(&self, handover: Handover) -> Result<bool> {
        let Some(left) = &self.writer.left else { return Ok(false) };
        let front = self.engine.mapping.window();
        Ok(handover == Handover::Orderly
            && front.live(live::WRITER_LOCK) == left.word
            && Seq(front.live(live::VISIBLE)).next() == left.tail.seq
            && self.writer.space.is_current(&self.engine.mapping)?)
    }

    /// Reads the extents anew: another process has changed them.
    #[cold]
    fn reload(&mut self) -> Result<()> {
        let mapping = &self.engine.mapping;
        let mut space = Space::load(mapping, mapping.live(live::SPACE_TABLE)?)?;
        space.mend(mapping)?;
        self.writer.space = space;
        self.writer.settle(mapping, mapping.live_offset(live::TAIL)?)
    }
}
