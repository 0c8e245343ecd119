//! The pace of a check: slices, and moments between them in which other processes can write, and the caller is asked
//! whether to continue.
//!
//! **Invariant.** The caller is asked while nothing is locked, so it may write, or wait for a writer.

use std::ops::ControlFlow;
use std::time::Duration;

use super::report::VerifyProgress;
use crate::engine::Engine;
use crate::engine::write::turn::Turn;
use crate::error::{Error, Result};
use crate::file::index::Index;
use crate::file::layout::{LINE, live, writer_lock};

/// Bytes between two moments.
const SLICE: u64 = 256 << 10;

/// Why a check did not complete.
#[derive(Debug)]
pub(super) enum Halt {
    /// There was a write, which it cannot tolerate.
    Disturbed,
    /// Its caller wanted to stop.
    Stopped,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Failed(error)
    }
}

pub(super) type Paced<T> = std::result::Result<T, Halt>;

/// See the module.
pub(super) struct Pace<'a> {
    engine: &'a Engine,
    on_progress: &'a mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    progress: VerifyProgress,
    /// Bytes until the next moment.
    left: u64,
    quiet: Option<Quiet<'a>>,
}

/// Detects whether there was a write.
struct Quiet<'a> {
    /// Held during a slice, unless the store is read-only.
    turn: Option<Turn<&'a Engine>>,
    /// How often the writer lock was taken before.
    taken: u64,
    /// How long to wait for it.
    timeout: Duration,
}

impl<'a> Pace<'a> {
    /// For a check that needs the absence of writers, and waits at most `timeout` for that.
    pub(super) fn quiet(
        engine: &'a Engine,
        on_progress: &'a mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
        timeout: Duration,
    ) -> Paced<Pace<'a>> {
        let mut pace = Pace::undisturbed(engine, on_progress);
        let timeout = timeout.min(engine.settings.lock_timeout);
        let turn = if engine.read_only { None } else { Some(take_turn(engine, timeout)?) };
        let taken = times_taken(engine)?;
        // A writer that holds it now shows in the same word.
        if turn.is_none() && engine.is_live()? {
            let word = engine.mapping.live(live::WRITER_LOCK)?;
            if !writer_lock::is_free(word) || word as u32 != taken as u32 {
                return Err(Halt::Disturbed);
            }
        }
        pace.quiet = Some(Quiet { turn, taken, timeout });
        Ok(pace)
    }

    /// For a check that tolerates writers.
    pub(super) fn undisturbed(
        engine: &'a Engine,
        on_progress: &'a mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Pace<'a> {
        Pace { engine, on_progress, progress: VerifyProgress { done: 0, total: 0 }, left: SLICE, quiet: None }
    }

    /// Sets the total: `log` bytes, and the lines of the indexes.
    pub(crate) fn expect<'i>(&mut self, log: u64, indexes: impl Iterator<Item = &'i Index<'i>>) -> Result<()> {
        self.progress.total = log;
        for index in indexes {
            self.progress.total = self.progress.total.saturating_add(index.totals()?.used().saturating_mul(LINE));
        }
        Ok(())
    }

    /// Announces `bytes` more bytes to be checked.
    #[inline]
    pub(crate) fn step(&mut self, bytes: u64) -> Paced<()> {
        self.progress.done = self.progress.done.saturating_add(bytes);
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 { self.pause() } else { Ok(()) }
    }

    fn pause(&mut self) -> Paced<()> {
        self.left = SLICE;
        self.look()?;
        if let Some(quiet) = &mut self.quiet {
            quiet.turn = None;
        }
        let VerifyProgress { done, total } = self.progress;
        let goes_on = (self.on_progress)(VerifyProgress { done, total: total.max(done) });
        // The user's code may have forked.
        self.engine.check_not_forked()?;
        if goes_on.is_break() {
            return Err(Halt::Stopped);
        }
        if let Some(quiet) = &mut self.quiet
            && !self.engine.read_only
        {
            quiet.turn = Some(take_turn(self.engine, quiet.timeout)?);
            quiet.taken = quiet.taken.wrapping_add(1);
        }
        self.look()
    }

    /// Stops the check if there was a write that it cannot tolerate.
    pub(crate) fn look(&self) -> Paced<()> {
        match &self.quiet {
            Some(quiet) if times_taken(self.engine)? as u32 != quiet.taken as u32 => Err(Halt::Disturbed),
            _ => Ok(()),
        }
    }
}

/// A turn for a slice.
fn take_turn(engine: &Engine, timeout: Duration) -> Paced<Turn<&Engine>> {
    engine.turn_to_look(timeout).map_err(|error| match error {
        error if engine.is_turn_of_another(&error) => Halt::Disturbed,
        error => Halt::Failed(error),
    })
}

/// How often the writer lock was taken: by all processes, or by the threads of this one if it is alone. Zero for a
/// closed store that was not opened for writing since.
fn times_taken(engine: &Engine) -> Result<u64> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
    if engine.exclusive && !engine.read_only {
        return Ok(engine.gate.times_taken());
    }
    if engine.is_live()? { Ok(engine.mapping.live(live::WRITER_LOCK)? & 0xffff_ffff) } else { Ok(0) }
}
