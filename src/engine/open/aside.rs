//! Aside: how a store goes on in its file while a reader has recovered it in memory of its own.
//!
//! A reader may not write to the file, so after a power cut it builds the index in memory of its own. What it has not
//! written to still is the file: the log. Writers may come and go all the same.
//!
//! **Invariant.** What such a reader believes of the log stays as it is in the file until the reader is gone. Four
//! shared locks say so:
//! * that of [readers](crate::file::locks::READERS): the file does not become shorter;
//! * that of a [snapshot] of the time before all commits: nothing that is in use is used again, nor is what has become
//!   empty and still waits. The log may begin earlier for the reader than for those who write, who know what was moved
//!   since the last superblock. Those who reuse space ask for such locks;
//! * on [where its log begins](aside_from). A recovery from the log knows nothing but the log, and takes all other
//!   space for free. It keeps what the reader looks at if the log still begins where it did then, for it has only
//!   become longer;
//! * on [up to where it believes the log](aside_until). A recovery after a kill undoes what was appended and not
//!   committed. A reader may have taken that for a commit, since in the log it looks like one.
//!
//! The reader finds out by itself that somebody has come to write: each opening for writing leaves another random
//! number in the live area. Then the store is opened once more, beside those who write, and [takes the
//! place](crate::source) of this one.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Engine;
use crate::engine::processes::entries::lock_error;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{LIVE, MAX_COUNT, MAX_FILE_LEN, Offset, Seq, live};
use crate::file::locks::{Locks, OPENING, Sharing, aside_from, aside_until, snapshot};
use crate::file::mapping::{self, Mapping};

/// What a reader that has recovered the store in memory of its own knows of the file: the [number](live::OPENING_ID)
/// that was found in it, or with which following came to nothing.
pub(crate) struct Aside(pub(super) AtomicU64);

impl Aside {
    /// Before the reader has memory of its own, and while nobody can open the store for writing.
    pub(crate) fn begin(mapping: &Mapping) -> Result<Aside> {
        Ok(Aside(AtomicU64::new(mapping.live(live::OPENING_ID)?)))
    }

    /// The number of a process that has come to write since, and has got so far that others can use the store.
    pub(super) fn newcomer(&self, file: &File) -> Option<u64> {
        let word = |at| {
            let mut bytes = [0; 8];
            mapping::read_at(file, at, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
        };
        let id = word(live::OPENING_ID).filter(|&id| id != self.0.load(Ordering::Relaxed))?;
        (word(live::VERSION_WORD)? == live::VERSION).then_some(id)
    }
}

/// Whether all who have recovered the store in memory of their own have done so from a log that began here.
pub(super) fn all_began_at(locks: &Locks, Offset(head): Offset) -> io::Result<bool> {
    let held = |from, to| locks.lowest_held(aside_from(from)..aside_from(to));
    Ok(held(0, head)?.is_none() && held(head + 1, MAX_FILE_LEN)?.is_none())
}

/// Whether none of them believes more of the log than the commit `seq`.
pub(super) fn none_is_beyond(locks: &Locks, seq: Seq) -> io::Result<bool> {
    let beyond = aside_until(seq.count() + 1)..aside_until(MAX_COUNT + 2);
    Ok(locks.lowest_held(beyond)?.is_none())
}

/// Whether nobody has recovered the store in memory of its own.
pub(super) fn is_nobody(locks: &Locks) -> io::Result<bool> {
    Ok(locks.lowest_held(aside_from(0)..aside_from(MAX_FILE_LEN))?.is_none())
}

impl Engine {
    /// Lets others write from here on. Only in the opening of a reader who has recovered the store in memory of its
    /// own, from a log that begins at `head`.
    pub(super) fn step_aside(mut self, aside: Aside, head: Offset) -> Result<Engine> {
        let Some(locks) = &self.held else { return Ok(self) };
        let locking = |error| lock_error(&self.mapping, error);
        let count = self.visible()?.count();
        for byte in [aside_from(head.0), aside_until(count), snapshot(0)] {
            if !locks.try_lock(byte, Sharing::Shared).map_err(locking)? {
                return Err(Error::Locked { path: self.mapping.path().to_owned(), by: HeldBy::Unknown });
            }
        }
        // The superblocks are written to by turns. Everything else but the log has been written anew here.
        let mut superblocks = vec![0; LIVE as usize];
        self.mapping.read(Offset(0), &mut superblocks)?;
        self.mapping.write(Offset(0), &superblocks)?;
        if !self.settings.exclusive {
            // Nobody has to be kept out any more.
            locks.unlock_whole().map_err(locking)?;
        }
        locks.unlock(OPENING).map_err(locking)?;
        self.aside = Some(aside);
        Ok(self)
    }

    /// Whether the store was recovered in memory of this process, and others may write to the file meanwhile.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.aside.is_some()
    }
}
