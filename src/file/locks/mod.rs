//! Locks on the file: they keep openers apart, and prove which of them are alive.
//!
//! Each lock is on one byte far past the data: the kernel locks ranges whether or not they exist. A lock belongs to an
//! open file, not to a process ("open-file-description locks"), so two openings in one process are two owners. The
//! kernel releases it when the process ends, however it ends.
//!
//! The locks have their own descriptor, which is never mapped. A mapping keeps the open file that it was made from
//! alive, and a forked child inherits all mappings: the locks of a dead parent would live on in its child. This
//! descriptor is replaced in a child ([`fork`]).
//!
//! The lock of the whole file is `flock` on Linux, where it does not collide with locks on bytes. Where the two kinds
//! collide, one more byte stands in for it.

pub(crate) mod fork;
mod os;

use std::fs::File;
use std::io;
use std::ops::Range;

/// Where the lock table begins. A file can be 8 TiB long.
const LOCKS: u64 = 1 << 62;

/// Held while a process opens or closes the store: exclusively for writing, shared for reading.
pub(crate) const OPENING: u64 = LOCKS;
/// Held while a superblock is written.
pub(crate) const CHECKPOINT: u64 = LOCKS + 1;
/// Held shared by openers of a private copy. The file must not be written to meanwhile: pages that were not copied yet
/// would change under them.
pub(crate) const PRIVATE: u64 = LOCKS + 3;
/// Held shared by read-only openers and by openers about to make a private copy, exclusively while the file is
/// shortened: those openers read without a pin, and possibly past its end.
pub(crate) const READERS: u64 = LOCKS + 4;
/// Stands in for the whole file.
#[cfg(not(target_os = "linux"))]
const WHOLE: u64 = LOCKS + 2;

/// The byte of an entry of the process table: held by its owner for the life of the opening.
pub(crate) const fn entry(number: u64) -> u64 {
    LOCKS + 256 + number
}

/// The byte that pins the sequence number whose counting part is `count`, held shared by the snapshots of read-only
/// openers.
pub(crate) const fn snapshot(count: u64) -> u64 {
    LOCKS + (1 << 48) + count
}

/// The byte for the head of the log from which a read-only opener has recovered the store into its own memory. Held
/// shared, like the next one.
pub(crate) const fn aside_from(head: u64) -> u64 {
    LOCKS + (1 << 50) + head
}

/// The byte for the count of the last commit that the same opener found.
pub(crate) const fn aside_until(count: u64) -> u64 {
    LOCKS + (1 << 51) + count
}

/// Which other openers may hold a lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Those that share it.
    Shared,
    /// None.
    Exclusive,
}

/// The locks of one opening.
#[derive(Debug)]
pub(crate) struct Locks {
    file: File,
    mine: os::Mine,
}

impl Locks {
    /// Locks on the file that `open` opens; `data` is the same file, opened to be mapped. No fork happens between
    /// opening the file and registering it for forks.
    pub(crate) fn open(data: &File, open: impl FnOnce() -> io::Result<File>) -> io::Result<Locks> {
        fork::guarded(|openings| {
            let file = open()?;
            openings.add(&file, data);
            Ok(Locks { file, mine: Default::default() })
        })
    }

    /// The identity of the file that the locks are on.
    pub(crate) fn id(&self) -> io::Result<FileId> {
        os::id(&self.file)
    }

    /// Locks through the file's own descriptor, when there is none left for another. Not safe with forks.
    pub(crate) fn of(file: File) -> Locks {
        Locks { file, mine: Default::default() }
    }

    /// The file that the locks are on.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Locks the whole file; `false` if another opening has it locked. The caller does not hold it yet: no system
    /// changes the kind of a lock in one step, and some refuse to.
    pub(crate) fn try_whole(&self, sharing: Sharing) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        return os::try_whole(&self.file, sharing);
        #[cfg(not(target_os = "linux"))]
        self.try_lock(WHOLE, sharing)
    }

    /// Unlocks the whole file.
    pub(crate) fn unlock_whole(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return os::unlock_whole(&self.file);
        #[cfg(not(target_os = "linux"))]
        self.unlock(WHOLE)
    }

    /// Locks a byte; `false` if another opening has it locked.
    pub(crate) fn try_lock(&self, place: u64, sharing: Sharing) -> io::Result<bool> {
        os::try_lock(&self.file, &self.mine, place, sharing)
    }

    /// Unlocks a byte.
    pub(crate) fn unlock(&self, place: u64) -> io::Result<()> {
        os::unlock(&self.file, &self.mine, place..place + 1)
    }

    /// Whether another opening has a lock on the byte.
    pub(crate) fn is_held(&self, place: u64) -> io::Result<bool> {
        // Two probes do not hinder each other this way: the byte of an entry is never held shared.
        let with = if (entry(0)..snapshot(0)).contains(&place) { Sharing::Shared } else { Sharing::Exclusive };
        Ok(os::held(&self.file, &self.mine, place..place + 1, with)?.is_some())
    }

    /// The lowest of these bytes that another opening has locked.
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

    /// Releases all locks now. Closing the file alone would leave them held until a child process that was just forked
    /// reaches its exec.
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

/// The identity of a file among all that exist at the same time.
pub(crate) type FileId = (u64, u64);

/// Whether both are the same file.
pub(crate) fn is_same_file(one: &File, other: &File) -> io::Result<bool> {
    Ok(os::id(one)? == os::id(other)?)
}

/// The kind of file system the file is on, if other machines may have the file open there: memory shared here is not
/// shared with them.
pub(crate) fn network_file_system(file: &File) -> Option<&'static str> {
    os::network_file_system(file)
}

#[cfg(test)]
mod tests;
