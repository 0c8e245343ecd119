//! Aside: how a store goes on in its file while a reader has recovered it in memory of its own.
//!
//! A reader may not write to the file, so after a power cut it builds the index in memory of its own. What it has not
//! written to still is the file: the log. Writers may come and go all the same.
//!
//! **Invariant.** What such a reader believes of the log stays as it is in the file until the reader is gone. Four
//! shared locks say so:
//! * that of [readers](locks::READERS): the file does not become shorter;
//! * that of a [snapshot], one commit below its own: nothing that is in use there is used again, of the log what is
//!   dead as well. Those who reuse space ask for such locks;
//! * on [where its log begins](aside_from). A recovery from the log knows nothing but the log, and takes all other
//!   space for free. It keeps what the reader looks at if the log still begins where it did then, for it has only
//!   become longer;
//! * on [up to where it believes the log](aside_until). A recovery after a kill undoes what was appended and not
//!   committed. A reader may have taken that for a commit, since in the log it looks like one.
//!
//! The reader finds out by itself that somebody has come to write: each opening for writing leaves another random
//! number in the live area. Then the store is opened once more, beside those who write, and [takes the
//! place](crate::source) of this one.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use super::live_area::SAME_FILE;
use super::processes::lock_error;
use super::settings::Settings;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{COUNT_MASK, LIVE, MAX_COUNT, MAX_FILE_LEN, live};
use crate::file::locks::{self, Locks, OPENING, Sharing, aside_from, aside_until, snapshot};
use crate::file::region::{self, Region};

/// What a reader who has recovered the store in memory of its own knows of the file.
pub(crate) struct Aside {
    /// Tells this page cache from others.
    identity: Option<[u64; 6]>,
    /// The [number](live::OPENING_ID) that was found, or with which following came to nothing.
    known: AtomicU64,
}

impl Aside {
    /// Before the reader has memory of its own, and while nobody can open the store for writing.
    pub(super) fn begin(region: &Region) -> Result<Aside> {
        Ok(Aside { identity: region.identity(), known: AtomicU64::new(region.live(live::OPENING_ID)?) })
    }

    /// The number of whoever has come to write since, and has got so far that others can use the store.
    fn newcomer(&self, region: &Region) -> Option<u64> {
        const FROM: u64 = live::VERSION_WORD;
        let mut bytes = [0; (live::OPENING_ID + 8 - FROM) as usize];
        region::read_at(region.file_behind()?, FROM, &mut bytes).ok()?;
        let word = |at: u64| {
            let at = (at - FROM) as usize;
            bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let places = (live::IDENTITY..).step_by(8);
        let is_same =
            self.identity.into_iter().flatten().take(SAME_FILE).zip(places).all(|(part, at)| word(at) == part);
        let is_current = is_same && word(live::VERSION_WORD) == live::VERSION;
        let id = word(live::OPENING_ID);
        (is_current && id != self.known.load(Ordering::Relaxed)).then_some(id)
    }
}

/// Whether all who have recovered the store in memory of their own have done so from a log that began here.
pub(super) fn all_began_at(locks: &Locks, head: u64) -> io::Result<bool> {
    let held = |from, to| locks.lowest_held(aside_from(from)..aside_from(to));
    Ok(held(0, head)?.is_none() && held(head + 1, MAX_FILE_LEN)?.is_none())
}

/// Whether none of them believes more of the log than the commit `seq`.
pub(super) fn none_is_beyond(locks: &Locks, seq: u64) -> io::Result<bool> {
    let beyond = aside_until((seq & COUNT_MASK) + 1)..aside_until(MAX_COUNT + 2);
    Ok(locks.lowest_held(beyond)?.is_none())
}

/// Whether nobody has recovered the store in memory of its own.
pub(super) fn is_nobody(locks: &Locks) -> io::Result<bool> {
    Ok(locks.lowest_held(aside_from(0)..aside_from(MAX_FILE_LEN))?.is_none())
}

impl Engine {
    /// Lets others write from here on. Only in the opening of a reader who has recovered the store in memory of its
    /// own, from a log that begins at `head`.
    pub(super) fn step_aside(mut self, aside: Aside, head: u64) -> Result<Engine> {
        let Some(locks) = &self.held else { return Ok(self) };
        let locking = |error| lock_error(&self.region, error);
        let count = self.visible()? & COUNT_MASK;
        for byte in [aside_from(head), aside_until(count), snapshot(count.saturating_sub(1))] {
            if !locks.try_lock(byte, Sharing::Shared).map_err(locking)? {
                return Err(Error::Locked { path: self.region.path().to_owned(), by: HeldBy::Unknown });
            }
        }
        // The superblocks are written to by turns. Everything else but the log has been written anew here.
        let mut superblocks = vec![0; LIVE as usize];
        self.region.read(0, &mut superblocks)?;
        self.region.write(0, &superblocks)?;
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

    /// The store as those use it who have come to write since, if somebody has.
    #[cold]
    pub(crate) fn follow(&self) -> Option<Engine> {
        let aside = self.aside.as_ref().filter(|_| !self.is_forked())?;
        let id = aside.newcomer(&self.region)?;
        // What fails now is tried again by the next read; and this one does not wait for anybody who opens or closes
        // the store.
        let settings = Settings { open_timeout: Some(Duration::ZERO), on_recovery: None, ..self.settings.clone() };
        let mut next = Engine::open(self.region.path(), settings).ok()?;
        let (before, now) = (self.region.file_behind()?, next.region.file_behind()?);
        if !locks::is_same_file(before, now).ok()? {
            return None;
        }
        if next.is_aside() {
            // Those are gone again, and have left what could not be taken over.
            aside.known.store(id, Ordering::Relaxed);
            return None;
        }
        next.origin = self.origin;
        Some(next)
    }
}
