//! Aside: writers continue in the file of a store that a reader has recovered in its own memory.
//!
//! A reader may not write to the file, so after a power cut it builds the index in its own memory. The rest of its
//! mapping is still the file: the log. Writers may come and go meanwhile.
//!
//! **Invariant.** The log that such a reader relies on stays unchanged in the file until the reader is gone. Four
//! shared locks ensure this:
//! * that of [readers](crate::file::locks::READERS): the file does not become shorter;
//! * that of a [snapshot] of the time before all commits: no space in use is reused, nor any that became empty and
//!   still waits. The log may begin earlier for the reader than for writers, which know what was moved since the last
//!   superblock. A process that reuses space checks for such locks;
//! * on [where its log begins](aside_from). A recovery from the log knows only the log, and takes all other space for
//!   free. It keeps what the reader uses if the log still begins at the same place, since it has only become longer;
//! * on [how far it believes the log](aside_until). A recovery after a kill undoes what was appended and not committed,
//!   which a reader may have taken for a commit, since it looks like one in the log.
//!
//! The reader notices new writers by itself: each opening for writing stores another random number in the live area.
//! Then the reader opens the store once more, beside the writers, and that opening [replaces](crate::source) this one.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Engine;
use crate::engine::processes::entries::lock_error;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{LIVE, MAX_COUNT, MAX_FILE_LEN, Offset, Seq, live};
use crate::file::locks::{Locks, OPENING, Sharing, aside_from, aside_until, snapshot};
use crate::file::mapping::{self, Mapping};

/// What a reader that has recovered the store in its own memory knows of the file: the [number](live::OPENING_ID) that
/// it found there, or the last one that it could not follow.
pub(crate) struct Aside(pub(super) AtomicU64);

impl Aside {
    /// Called before the reader has memory of its own, and while no other process can open the store for writing.
    pub(crate) fn begin(mapping: &Mapping) -> Result<Aside> {
        Ok(Aside(AtomicU64::new(mapping.live(live::OPENING_ID)?)))
    }

    /// The number of a writer that has come since, once other processes can use the store beside it.
    pub(super) fn newcomer(&self, file: &File) -> Option<u64> {
        let word = |at| {
            let mut bytes = [0; 8];
            mapping::read_at(file, at, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
        };
        let id = word(live::OPENING_ID).filter(|&id| id != self.0.load(Ordering::Relaxed))?;
        (word(live::VERSION_WORD)? == live::VERSION).then_some(id)
    }
}

/// Whether all readers that recovered the store in their own memory did so from a log that began at `head`.
pub(super) fn all_began_at(locks: &Locks, Offset(head): Offset) -> io::Result<bool> {
    let held = |from, to| locks.lowest_held(aside_from(from)..aside_from(to));
    Ok(held(0, head)?.is_none() && held(head + 1, MAX_FILE_LEN)?.is_none())
}

/// Whether none of them believes more of the log than the commit `seq`.
pub(super) fn none_is_beyond(locks: &Locks, seq: Seq) -> io::Result<bool> {
    let beyond = aside_until(seq.count() + 1)..aside_until(MAX_COUNT + 2);
    Ok(locks.lowest_held(beyond)?.is_none())
}

/// Whether no reader has recovered the store in its own memory.
pub(super) fn is_nobody(locks: &Locks) -> io::Result<bool> {
    Ok(locks.lowest_held(aside_from(0)..aside_from(MAX_FILE_LEN))?.is_none())
}

impl Engine {
    /// Lets others write from here on. Only for an opening that has recovered the store in memory for reading, from a
    /// log that begins at `head`.
    pub(super) fn step_aside(mut self, aside: Aside, head: Offset) -> Result<Engine> {
        let Some(locks) = &self.held else { return Ok(self) };
        let locking = |error| lock_error(&self.mapping, error);
        let count = self.visible()?.count();
        for byte in [aside_from(head.0), aside_until(count), snapshot(0)] {
            if !locks.try_lock(byte, Sharing::Shared).map_err(locking)? {
                return Err(Error::Locked { path: self.mapping.path().to_owned(), by: HeldBy::Unknown });
            }
        }
        // The superblocks are overwritten in turn. All else but the log was built anew in memory.
        let mut superblocks = vec![0; LIVE as usize];
        self.mapping.read(Offset(0), &mut superblocks)?;
        self.mapping.write(Offset(0), &superblocks)?;
        if !self.settings.exclusive {
            // Other processes need not be kept out any longer.
            locks.unlock_whole().map_err(locking)?;
        }
        locks.unlock(OPENING).map_err(locking)?;
        self.aside = Some(aside);
        Ok(self)
    }

    /// Whether the store was recovered in memory of this process while others may write to the file.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.aside.is_some()
    }
}
