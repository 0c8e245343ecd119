//! Room for more processes and pins than the tables in front of the extents have: how these grow, and how that is given
//! back.
//!
//! A table grows by an extent under the writer lock. A reader that needs a pin takes a turn for that, unless it is
//! inside its own turn. The grown parts belong to the live area: a power cut forgets them with all the rest of it. They
//! are given back when the last process closes the store, or else when the first one opens it for writing.
//!
//! **Invariant.** A table is given back only while opening or closing the store, so that no process can join, while no
//! other writing process is alive, and while the table holds none of the process's own pins for reuse. First the
//! extents become free, then the words that name them are cleared, and nothing is allocated in between: after a kill at
//! that point, the next process finds the words and continues.

use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::turn::Turn;
use crate::engine::Engine;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::layout::{COUNT_BITS, ExtentKind, Offset, extent_word, live, pin};
use crate::file::live_table::{LiveTable, PIN, PROCESS};
use crate::file::mapping::Mapping;
use crate::file::space::{Fit, Space};

/// How long an opener waits for a turn without letting others open or close the store: longer than a single commit
/// takes, so that it is refused only beside a transaction.
const WHILE_OPENING: Duration = Duration::from_millis(20);

/// Result of trying to make a table longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengthened {
    /// It is longer.
    Done,
    /// Another process or thread holds the turn.
    Busy,
    /// The caller holds the turn, but through another opening of the file.
    NotMine,
    /// There is no room, either in the file or in the words that say where the table is.
    NoRoom,
}

impl Engine {
    /// Makes a table longer than `known` entries, waiting at most `timeout` for a turn.
    #[cold]
    pub(crate) fn lengthen(&self, table: &LiveTable, known: u64, timeout: Duration) -> Result<Lengthened> {
        let lengthened = match Turn::to_look(self, timeout) {
            Ok(turn) => turn.write().lengthen(table, known),
            Err(Error::WouldDeadlock { .. }) => self.lengthen_in_my_turn(table, known),
            Err(error) => Err(error),
        };
        match lengthened {
            Err(Error::LockTimeout { .. }) => Ok(Lengthened::Busy),
            Err(Error::Full { .. } | Error::NumbersExhausted { .. }) => Ok(Lengthened::NoRoom),
            lengthened => lengthened,
        }
    }

    /// The same where the caller holds the turn.
    fn lengthen_in_my_turn(&self, table: &LiveTable, known: u64) -> Result<Lengthened> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // In the middle of a step that allocates.
            Err(TryLockError::WouldBlock) => return Ok(Lengthened::NoRoom),
        };
        // Another opening of the file may have the turn, and only that one knows what is in use. Or it belongs to a
        // transaction that was sent to another thread and cannot end while the writer is locked here.
        if self.gate.is_mine() {
            Writing { engine: self, writer }.lengthen(table, known)
        } else {
            Ok(Lengthened::NotMine)
        }
    }

    /// Makes room in the process table for our entry, while opening the store. No other process can open or close it
    /// meanwhile, so if the turn does not come soon, the caller waits elsewhere.
    pub(crate) fn make_room_for_entry(&self) -> Result<()> {
        let mut entries = PROCESS.parts(&self.mapping)?.entries();
        while self.process >= entries {
            let (path, timeout) = (|| self.mapping.path().to_owned(), WHILE_OPENING.min(self.settings.lock_timeout));
            match self.lengthen(&PROCESS, entries, timeout)? {
                Lengthened::Done => {}
                Lengthened::Busy => return Err(self.lock_timeout(timeout)),
                Lengthened::NotMine => return Err(Error::WouldDeadlock { path: path() }),
                Lengthened::NoRoom => return Err(Error::ProcessesExhausted { path: path(), max: entries }),
            }
            entries = PROCESS.parts(&self.mapping)?.entries();
        }
        Ok(())
    }
}

impl Writing<'_> {
    fn lengthen(&mut self, table: &LiveTable, known: u64) -> Result<Lengthened> {
        let parts = table.parts(&self.engine.mapping)?;
        if parts.entries() > known {
            return Ok(Lengthened::Done);
        }
        let Some((blocks, word)) = parts.next() else { return Ok(Lengthened::NoRoom) };
        self.engine.begin_to_write()?;
        let seq = self.seq()?;
        let extent = self.writer.space.allocate(&self.engine.mapping, (blocks, Fit::Lowest), ExtentKind::Live, seq)?;
        self.engine.mapping.zero(extent.offset, extent.len())?;
        self.engine.mapping.store_live(word, extent_word(extent.offset.0, blocks), Ordering::SeqCst)?;
        Ok(Lengthened::Done)
    }

    /// Gives back the grown parts of the tables, for an opener that has found no other process.
    pub(crate) fn give_tables_back(&mut self) -> Result<()> {
        let mut space = Space::load(&self.engine.mapping, self.engine.mapping.live(live::SPACE_TABLE)?)?;
        free_tables(&self.engine.mapping, &mut space)?;
        // The next writer reads it anew, and mends what the dead have left.
        self.writer.space = Space::unknown();
        Ok(())
    }

    /// The same, unless the tables have not grown, or hold a pin that we keep.
    pub(crate) fn give_tables_of_the_dead_back(&mut self) -> Result<()> {
        if self.engine.live_extents()?.is_empty() || self.engine.process >= PROCESS.first() {
            return Ok(());
        }
        for at in PIN.parts(&self.engine.mapping)?.places().skip(PIN.first() as usize) {
            if self.engine.mapping.load(at + pin::CLAIM)? >> COUNT_BITS == self.engine.process + 1 {
                return Ok(());
            }
        }
        self.give_tables_back()
    }

    /// The same for the last process that closes the store.
    pub(crate) fn give_tables_back_at_last(&mut self) -> Result<()> {
        if self.engine.process >= PROCESS.first() {
            return Ok(());
        }
        free_tables(&self.engine.mapping, &mut self.writer.space)
    }
}

/// Frees the extents of the tables, and then clears the words that name them.
fn free_tables(mapping: &Mapping, space: &mut Space) -> Result<()> {
    let extents = space.extents().filter(|extent| extent.kind == ExtentKind::Live);
    let extents: Vec<Offset> = extents.map(|extent| extent.offset).collect();
    extents.into_iter().try_for_each(|offset| space.free(mapping, offset))?;
    for table in [&PIN, &PROCESS] {
        table.words().try_for_each(|word| mapping.store_live(word, 0, Ordering::Release))?;
    }
    Ok(())
}

/// Whether a table may have grown.
pub(crate) fn tables_have_grown(mapping: &Mapping) -> Result<bool> {
    for word in PIN.words().chain(PROCESS.words()) {
        if mapping.live(word)? != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
