//! The superblock in force: locked, replaced by the next one, and no longer clean.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::engine::Engine;
use crate::engine::clock::now;
use crate::engine::processes::entries::{lock_error, poll};
use crate::engine::state::superblocks::fields_are_sane;
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{Offset, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, live, seal};
use crate::file::locks::{CHECKPOINT, Sharing};

/// The superblock in force, while no other thread or process writes one.
pub(crate) struct SuperblockGuard<'e> {
    engine: &'e Engine,
    pub(crate) superblock: MutexGuard<'e, Superblock>,
    /// The byte for other processes is locked.
    locked: bool,
}

impl Deref for SuperblockGuard<'_> {
    type Target = Superblock;

    fn deref(&self) -> &Superblock {
        &self.superblock
    }
}

impl Drop for SuperblockGuard<'_> {
    fn drop(&mut self) {
        if let Some(locks) = self.engine.locks.as_ref().filter(|_| self.locked) {
            // Should this fail, the lock goes with the store.
            let _ = locks.unlock(CHECKPOINT);
        }
    }
}

impl Engine {
    /// The superblock that this process has made or found, and no other can have changed: during an opening.
    pub(crate) fn lock_new_superblock(&self) -> SuperblockGuard<'_> {
        let superblock = self.superblock.lock().unwrap_or_else(PoisonError::into_inner);
        SuperblockGuard { engine: self, superblock, locked: false }
    }

    /// Locks the superblock in force, waiting at most `timeout` for another thread or process.
    pub(crate) fn lock_superblock(&self, timeout: Duration) -> Result<SuperblockGuard<'_>> {
        let held = || Error::Locked { path: self.mapping.path().to_owned(), by: HeldBy::Superblock };
        let start = Instant::now();
        let mut superblock = None;
        let lock = || {
            superblock = match self.superblock.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            Ok(superblock.is_some())
        };
        poll(timeout, lock)?;
        let superblock = superblock.ok_or_else(held)?;
        let timeout = timeout.saturating_sub(start.elapsed());
        let mut guard = SuperblockGuard { engine: self, superblock, locked: false };
        let Some(locks) = self.locks.as_ref().filter(|_| self.ready.load(Ordering::Acquire)) else {
            return Ok(guard);
        };
        let lock = || locks.try_lock(CHECKPOINT, Sharing::Exclusive).map_err(|e| lock_error(&self.mapping, e));
        if !poll(timeout, lock)? {
            return Err(held());
        }
        guard.locked = true;
        *guard.superblock = self.superblock_in_force()?;
        Ok(guard)
    }

    /// Writes a superblock over the one that is not in force, and puts it in force once it is flushed.
    pub(crate) fn write_superblock(&self, current: &mut SuperblockGuard<'_>, mut next: Superblock) -> Result<()> {
        let in_force = self.mapping.live(live::SUPERBLOCK)?;
        let place = if in_force == SUPERBLOCK_A { SUPERBLOCK_B } else { SUPERBLOCK_A };
        next.generation = (current.generation.get() + 1).into();
        next.written = now().into();
        if !fields_are_sane(&next) {
            // No opening would accept it. The one in force stays.
            return Err(self.mapping.corrupt(Offset(place), "the superblock to be written contradicts itself"));
        }
        let next = next.sealed();
        self.mapping.write(Offset(place), next.as_bytes())?;
        self.mapping.flush(Offset(place), size_of::<Superblock>() as u64)?;
        self.mapping.store_live(live::SUPERBLOCK, place, Ordering::Release)?;
        // After it: nothing is reused that is still in the log of the superblock in force.
        self.mapping.store_live(live::DURABLE_HEAD, next.log_head.get(), Ordering::Release)?;
        self.mapping.store_live(live::DURABLE_ORDINAL, next.head_ordinal.get(), Ordering::Release)?;
        *current.superblock = next;
        self.closed.store(next.is_clean(), Ordering::Release);
        Ok(())
    }

    /// Takes the clean flag from the disk, before the first change.
    #[cold]
    pub(crate) fn clear_closed_flag(&self) -> Result<()> {
        let mut superblock = self.lock_superblock(self.settings.lock_timeout)?;
        if !superblock.is_clean() {
            // Another process has.
            self.closed.store(false, Ordering::Release);
            return Ok(());
        }
        // A copy with an older front must not pass as closed.
        self.mapping.store_seal(seal::CLOSED, 0)?;
        let next = Superblock { flags: 0.into(), ..*superblock };
        self.write_superblock(&mut superblock, next)
    }
}
