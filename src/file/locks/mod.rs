//! Locks on the file: what keeps openers apart, and proves who of them is alive.
//!
//! Each lock is on one byte, far above the data, where nothing of the file is: the kernel locks ranges whether they
//! exist or not. A lock belongs to an open file, not to a process ("open-file-description locks"), so that two openings
//! in one process are two. The kernel gives it up with its process, however that ends.
//!
//! The locks have a descriptor of their own, that is never mapped. A mapping keeps the open file that it was made from
//! alive, and a forked child inherits all mappings: the locks of a dead parent would live on in its child. This
//! descriptor is replaced in a child ([`fork`]).
//!
//! The lock of the whole file, `flock` on Linux, is another kind that does not collide with those on bytes there; where
//! the two do, one more byte stands in for it.

pub(crate) mod fork;
mod os;

use std::fs::File;
use std::io;
use std::ops::Range;

/// Where the lock table begins. A file can be 8 TiB long.
const LOCKS: u64 = 1 << 62;

/// Held while somebody opens or closes the store: exclusively by those who write, shared by those who read.
pub(crate) const OPENING: u64 = LOCKS;
/// Held while a superblock is written.
pub(crate) const CHECKPOINT: u64 = LOCKS + 1;
/// Held shared by those who have the content of the file as memory of their own: nobody may write to it meanwhile,
/// since pages that were not copied yet would change under them.
pub(crate) const PRIVATE: u64 = LOCKS + 3;
/// Held shared by those who have opened the store for reading, or are about to have a private copy of it, and
/// exclusively while the file is made shorter: they look without a pin, and may look behind its end.
pub(crate) const READERS: u64 = LOCKS + 4;
/// Stands in for the whole file.
#[cfg(not(target_os = "linux"))]
const WHOLE: u64 = LOCKS + 2;

/// The byte of an entry of the process table: held by its owner for the life of the opening.
pub(crate) const fn entry(number: u64) -> u64 {
    LOCKS + 256 + number
}

/// The byte that pins the sequence number whose counting part is `count`, held shared by the snapshots of those who
/// opened the store for reading.
pub(crate) const fn snapshot(count: u64) -> u64 {
    LOCKS + (1 << 48) + count
}

/// The byte that says where the log began from which somebody who only reads has recovered the store in memory of his
/// own. Held shared, like the next one.
pub(crate) const fn aside_from(head: u64) -> u64 {
    LOCKS + (1 << 50) + head
}

/// The byte that says up to which count he believes the log.
pub(crate) const fn aside_until(count: u64) -> u64 {
    LOCKS + (1 << 51) + count
}

/// Who else may hold a lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Others who share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// The locks of one opening.
#[derive(Debug)]
pub(crate) struct Locks {
    file: File,
    mine: os::Mine,
}

impl Locks {
    /// For the file that `open` opens; `data` is the same file, opened for being mapped. A fork does not come between
    /// the opening and what has to be known of it for a fork.
    pub(crate) fn open(data: &File, open: impl FnOnce() -> io::Result<File>) -> io::Result<Locks> {
        fork::guarded(|openings| {
            let file = open()?;
            openings.add(&file, data);
            Ok(Locks { file, mine: Default::default() })
        })
    }

    /// What tells the file that the locks are on from others.
    pub(crate) fn id(&self) -> io::Result<FileId> {
        os::id(&self.file)
    }

    /// Through the very file that is open, where there is no descriptor left for another. Not for what forks.
    pub(crate) fn of(file: File) -> Locks {
        Locks { file, mine: Default::default() }
    }

    /// The file that the locks are on.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Locks the whole file, or says that somebody else has it locked. Only for one who does not hold it yet: to change
    /// how it is held is not one step on any system, and in some it is refused.
    pub(crate) fn try_whole(&self, sharing: Sharing) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            super::witness::call(super::witness::Call::Lock)?;
            let locked = match sharing {
                Sharing::Shared => fs2::FileExt::try_lock_shared(&self.file),
                Sharing::Exclusive => fs2::FileExt::try_lock_exclusive(&self.file),
            };
            match locked {
                Ok(()) => Ok(true),
                Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
                Err(error) => Err(error),
            }
        }
        #[cfg(not(target_os = "linux"))]
        self.try_lock(WHOLE, sharing)
    }

    /// Unlocks the whole file.
    pub(crate) fn unlock_whole(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return fs2::FileExt::unlock(&self.file);
        #[cfg(not(target_os = "linux"))]
        self.unlock(WHOLE)
    }

    /// Locks a byte, or says that somebody else has it locked.
    pub(crate) fn try_lock(&self, place: u64, sharing: Sharing) -> io::Result<bool> {
        os::try_lock(&self.file, &self.mine, place, sharing)
    }

    /// Unlocks a byte.
    pub(crate) fn unlock(&self, place: u64) -> io::Result<()> {
        os::unlock(&self.file, &self.mine, place..place + 1)
    }

    /// Whether somebody else has a lock on the byte. Our own does not count.
    pub(crate) fn is_held(&self, place: u64) -> io::Result<bool> {
        // Asking does not get into the way of others who ask: that of an entry is never held shared.
        let with = if (entry(0)..snapshot(0)).contains(&place) { Sharing::Shared } else { Sharing::Exclusive };
        Ok(os::held(&self.file, &self.mine, place..place + 1, with)?.is_some())
    }

    /// The lowest of these bytes that somebody else has a lock on.
    pub(crate) fn lowest_held(&self, places: Range<u64>) -> io::Result<Option<u64>> {
        let mut lowest = None;
        let mut end = places.end;
        // The kernel names one of the locks, not the first.
        while places.start < end {
            let Some(place) = os::held(&self.file, &self.mine, places.start..end, Sharing::Exclusive)? else { break };
            end = place.max(places.start);
            lowest = Some(end);
        }
        Ok(lowest)
    }

    /// Gives up everything now. Closing the file alone would leave it held as long as a child process that was just
    /// forked has not come to its exec.
    pub(crate) fn release(&self) {
        // Should this fail, the locks go when the file is closed everywhere.
        let _ = self.unlock_whole();
        let _ = os::unlock(&self.file, &self.mine, LOCKS..aside_until(1 << 44));
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.release();
        fork::guarded(|openings| openings.remove(&self.file));
    }
}

/// What tells a file from any other that is there at the same time.
pub(crate) type FileId = (u64, u64);

/// Whether both are the same file.
pub(crate) fn is_same_file(one: &File, other: &File) -> io::Result<bool> {
    Ok(os::id(one)? == os::id(other)?)
}

/// What kind of file system the file is on, if it is one where another machine may have it open: what is shared in
/// memory here is not shared with that.
pub(crate) fn network_file_system(file: &File) -> Option<&'static str> {
    os::network_file_system(file)
}

#[cfg(test)]
mod tests;
