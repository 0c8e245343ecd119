//! The flusher: how far the log is durable, to this process, and who flushes.
//!
//! Callers of sync who come while a flush is going on wait for it and then share the next one (group commit: DeWitt et
//! al., 1984).

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::file::layout::COUNT_MASK;
use crate::file::space::{LogPoint, Space};

/// The log is written back in slices of a sixteenth of what makes a checkpoint due, and not more than this.
pub(crate) const LARGEST_SLICE: u64 = 256 << 10;

/// How often somebody who is about to flush lets others commit first, if there are such.
pub(super) const MOST_YIELDS: u32 = 4;

/// So many slices may be on their way to the disk before somebody waits for the oldest.
pub(crate) const SLICES_UNDER_WAY: usize = 16;

/// How far the log is known to be durable, to this process. What another process has flushed is flushed again, which
/// costs nothing where nothing is left to write.
pub(crate) struct Flusher {
    group: Mutex<Group>,
    /// Told when a flush has ended.
    pub(super) flushed: Condvar,
    /// What the superblock vouched for when the store was opened.
    pub(super) opened: Durable,
    /// The log's bytes at which the next slice is complete.
    pub(crate) next_slice: AtomicU64,
    pub(crate) slices: Mutex<Slices>,
    /// The space table when it was last looked at, so that it is read only if it has changed since.
    space: Mutex<Space>,
    /// Held by who writes the log once more.
    pub(crate) once_more: Mutex<()>,
}

impl Flusher {
    /// A flusher for a log that is durable up to `end`, behind the commit `seq`.
    pub(crate) fn new(end: u64, seq: u64) -> Flusher {
        // In which extent that is shows when it is asked for.
        let durable = Durable { end, seq, from: LogPoint::default() };
        let slices = Slices { end: durable, under_way: VecDeque::new(), written_back: 0 };
        Flusher {
            group: Mutex::new(Group { durable, flushing: false, waiting: 0, company: 0 }),
            flushed: Condvar::new(),
            opened: durable,
            next_slice: AtomicU64::new(0),
            slices: Mutex::new(slices),
            space: Mutex::new(Space::unknown()),
            once_more: Mutex::new(()),
        }
    }

    pub(super) fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for a few steps, and nothing else is waited for meanwhile.
    pub(super) fn known_space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a flush; nobody else is at it.
    pub(super) fn begin(&self, mut group: MutexGuard<'_, Group>) -> Flush<'_> {
        group.flushing = true;
        Flush { flusher: self }
    }

    /// Begins a flush when nobody else is at it any more.
    pub(super) fn wait_and_begin(&self) -> Flush<'_> {
        let group = self.flushed.wait_while(self.group(), |group| group.flushing);
        self.begin(group.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Those who want the log to be durable: one of them flushes, the others wait and then mostly find that it was done for
/// them.
pub(super) struct Group {
    pub(super) durable: Durable,
    /// Somebody is at it.
    pub(super) flushing: bool,
    /// So many wait for that to end.
    pub(super) waiting: u32,
    /// So many waited when a flush last ended: they are about to commit again.
    pub(super) company: u32,
}

/// A flush that is going on. When it is dropped, the next one can begin.
pub(super) struct Flush<'f> {
    pub(crate) flusher: &'f Flusher,
}

impl Flush<'_> {
    /// It has succeeded.
    pub(super) fn has_reached(&self, durable: Durable) {
        self.flusher.group().durable = durable;
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        let mut group = self.flusher.group();
        group.flushing = false;
        group.company = std::mem::take(&mut group.waiting);
        drop(group);
        self.flusher.flushed.notify_all();
    }
}

/// Ranges of the file, as offsets of their starts and ends.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// What of the log is being written back.
pub(crate) struct Slices {
    /// Where the log ended when a slice was last begun.
    pub(crate) end: Durable,
    /// Ranges of the file of each slice that is under way, the oldest first, and the log's bytes at its end.
    pub(crate) under_way: VecDeque<(Ranges, u64)>,
    /// So many of the log's bytes are known to be written back.
    pub(crate) written_back: u64,
}

/// How far the log is durable.
#[derive(Clone, Copy)]
pub(crate) struct Durable {
    /// Offset behind the last commit.
    pub(crate) end: u64,
    /// Its sequence number.
    pub(super) seq: u64,
    /// What lies behind this point may have to be flushed. It is where that commit ends, or lies before that if it
    /// could not be told in which extent that is.
    pub(super) from: LogPoint,
}

/// The point of the log at which a commit ends, if the extent that it lies in can be told: one that was in the log by
/// then and is still in it. One that has joined the log later is another extent in the same place.
pub(super) fn point_in(space: &Space, durable: &Durable) -> Option<LogPoint> {
    let extent = space.log_extent_of(durable.end)?;
    (extent.count <= durable.seq & COUNT_MASK).then_some(LogPoint { ordinal: extent.ordinal, at: durable.end })
}
