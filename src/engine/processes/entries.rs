//! The process table: which processes have the store open, and which of them are alive.
//!
//! An entry belongs to the holder of its byte of the lock table. The kernel releases the byte when the process ends,
//! however it ends, so a held byte is a living opener. Process ids would not do: they are used again and mean nothing
//! in another container.
//!
//! **Invariant.** An entry is claimed or cleaned only while its byte is held. Cleaning releases a lock word that names
//! the entry first, then its pins, then the entry itself; a cleaner that dies in between is followed by another. If the
//! entry says that a flush was under way, that is recorded first.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{gate, lock_word};
use crate::engine::Engine;
use crate::engine::clock::{now, time};
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{COUNT_BITS, PROCESS_TABLE, live, pin, process, writer_lock};
use crate::file::live_table::{PIN, PROCESS};
use crate::file::locks::{self, Locks, Sharing};
use crate::file::mapping::{Half, Mapping};
use crate::telemetry;

/// The entry of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Its number in the table.
    pub(crate) entry: u64,
    pub(crate) pid: u32,
    /// Milliseconds since 1970.
    pub(crate) since: u64,
    pub(crate) exclusive: bool,
    /// The system refuses it the barrier that readers rely on.
    pub(crate) is_refused: bool,
    boot: u64,
}

impl Process {
    /// The process as the holder that an error names.
    pub(crate) fn holder(&self) -> HeldBy {
        let (pid, since) = (self.pid, time(self.since));
        if self.exclusive { HeldBy::Exclusive { pid, since } } else { HeldBy::Writer { pid, since } }
    }
}

/// The content of the entry, if it has any.
pub(crate) fn read(mapping: &Mapping, entry: u64) -> Result<Option<Process>> {
    PROCESS.place(mapping, entry)?.map_or(Ok(None), |at| read_at(mapping, entry, at))
}

/// The same for the entry at this place.
fn read_at(mapping: &Mapping, entry: u64, at: u64) -> Result<Option<Process>> {
    let pid = mapping.load(at + process::PID)?;
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(Process {
        entry,
        pid: (pid - 1) as u32,
        since: mapping.load(at + process::SINCE)?,
        exclusive: mapping.load(at + process::MODE)? == process::EXCLUSIVE,
        is_refused: mapping.load(at + process::REFUSED)? != 0,
        boot: mapping.load(at + process::BOOT)?,
    }))
}

/// The living processes that have the store open for writing, except ours.
///
/// # Errors
/// [`Error::Locked`] if one of them runs under another kernel: its memory and ours are not the same.
pub(crate) fn living(mapping: &Mapping, locks: &Locks) -> Result<Vec<Process>> {
    let boot = mapping.identity().unwrap_or_default()[0];
    let mut living = Vec::new();
    // The table may not be trusted. A living process holds a lock, whatever the table says.
    let parts = PROCESS.likely_parts(mapping);
    for (entry, at) in (0..).zip(parts.places()) {
        let Ok(Some(process)) = read_at(mapping, entry, at) else { continue };
        if !locks.is_held(locks::entry(entry)).map_err(|e| lock_error(mapping, e))? {
            continue;
        }
        // Unknown does not mean another: the boot id cannot be read without a descriptor, or where `/proc/sys` is
        // hidden.
        if process.boot != boot && process.boot != 0 && boot != 0 {
            let by = HeldBy::OtherSystem { pid: process.pid };
            return Err(Error::Locked { path: mapping.path().to_owned(), by });
        }
        living.push(process);
    }
    Ok(living)
}

/// Takes the lock of a free entry. It may be the first one for which the table has no room yet.
pub(crate) fn claim(mapping: &Mapping, locks: &Locks) -> Result<u64> {
    for entry in 0..PROCESS.limit() {
        if locks.try_lock(locks::entry(entry), Sharing::Exclusive).map_err(|e| lock_error(mapping, e))? {
            return Ok(entry);
        }
    }
    Err(Error::ProcessesExhausted { path: mapping.path().to_owned(), max: PROCESS.limit() })
}

/// The error of a lock call that failed, rather than finding the lock taken.
pub(crate) fn lock_error(mapping: &Mapping, error: io::Error) -> Error {
    Error::io(mapping.path(), "lock a byte of the lock table", error)
}

/// Repeats a step until it is done or the time is over. For locks that are held for a moment.
pub(crate) fn poll(timeout: Duration, mut step: impl FnMut() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(50);
    loop {
        if step()? {
            return Ok(true);
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Whether a process was killed in the middle of a flush.
pub(crate) fn some_were_flushing(mapping: &Mapping) -> Result<bool> {
    // Where that cannot be told, some may have been.
    let Ok(parts) = PROCESS.parts(mapping) else { return Ok(true) };
    for at in parts.places() {
        if mapping.load(at + process::FLUSHING)? != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Engine {
    /// Where our entry is.
    pub(crate) fn entry(&self) -> Result<u64> {
        let at = PROCESS.place(&self.mapping, self.process)?;
        at.ok_or_else(|| self.mapping.corrupt(PROCESS_TABLE, "the table of processes has become shorter"))
    }

    /// Records whether we can have the barrier that readers rely on, to explain why nothing is reused.
    pub(crate) fn note_refusal(&self, is_refused: bool) -> Result<()> {
        let at = self.entry()? + process::REFUSED;
        if (self.mapping.load(at)? != 0) != is_refused {
            self.mapping.store(at, u64::from(is_refused), Ordering::Relaxed)?;
        }
        Ok(())
    }

    /// Whether we reuse no space, since the system refuses us the barrier that readers rely on.
    pub(crate) fn is_refused(&self) -> Result<bool> {
        Ok(self.mapping.load(self.entry()? + process::REFUSED)? != 0)
    }

    /// Cleans an entry whose byte the caller holds: ours, when we leave, or that of a dead process. A process that died
    /// before the table had room for it can have left lock and pins all the same.
    pub(crate) fn clean_entry(&self, entry: u64) -> Result<()> {
        let place = PROCESS.place(&self.mapping, entry)?;
        if let Some(at) = place {
            let unsure = self.mapping.load(at + process::FLUSHING)?;
            if unsure != 0 {
                self.note_unsure(unsure & (live::STATE_LOG_UNSURE | live::STATE_ALL_UNSURE))?;
                self.mapping.store(at + process::FLUSHING, 0, Ordering::Release)?;
            }
        }
        lock_word::disown(self, entry)?;
        for at in PIN.parts(&self.mapping)?.places() {
            let claim = self.mapping.load(at + pin::CLAIM)?;
            if claim >> COUNT_BITS == entry + 1 {
                self.mapping.store(at + pin::SINCE, 0, Ordering::Relaxed)?;
                self.mapping.store(at + pin::CLAIM, 0, Ordering::Release)?;
            }
        }
        place.map_or(Ok(()), |at| self.mapping.store(at + process::PID, 0, Ordering::Release))
    }

    /// Records that a flush may have failed unnoticed, and counts that.
    pub(crate) fn note_unsure(&self, bits: u64) -> Result<()> {
        self.mapping.update_live(live::STATE, |state| (state | bits).wrapping_add(live::STATE_UNSURE_COUNT))
    }

    /// Takes a step that flushes. If this process is killed after the step has failed and before it has said so, the
    /// process that cleans up after it knows that it may have failed.
    pub(crate) fn flushing(&self, unsure: u64, step: impl FnOnce() -> Result<()>) -> Result<()> {
        let at = self.entry()? + process::FLUSHING;
        self.mapping.store(at, unsure, Ordering::Release)?;
        let done = step();
        self.mapping.store(at, 0, Ordering::Release)?;
        done
    }

    /// Cleans an entry if its opener is dead, and says whether it did.
    pub(crate) fn clear_up_after(&self, entry: u64) -> Result<bool> {
        // The kernel calls a lock of one's own descriptor free. But we are alive.
        if entry == self.process {
            return Ok(false);
        }
        if entry >= PROCESS.limit() {
            return Err(self
                .mapping
                .corrupt(PROCESS_TABLE, "the live area names a process that the table has no entry for"));
        }
        // Memory is not shared, so any other process named there is dead.
        let Some(locks) = &self.locks else { return self.clean_entry(entry).map(|()| true) };
        let byte = locks::entry(entry);
        if !locks.try_lock(byte, Sharing::Exclusive).map_err(|e| lock_error(&self.mapping, e))? {
            return Ok(false);
        }
        let cleaned = self.clean_entry(entry);
        locks.unlock(byte).map_err(|e| lock_error(&self.mapping, e))?;
        cleaned.map(|()| true)
    }

    /// Cleans the entries of all dead processes, and returns whether another one is alive.
    pub(crate) fn sweep(&self) -> Result<bool> {
        let parts = PROCESS.parts(&self.mapping)?;
        let mut others = false;
        for (entry, at) in (0..).zip(parts.places()) {
            if entry != self.process && read_at(&self.mapping, entry, at)?.is_some() {
                others |= !self.clear_up_after(entry)?;
            }
        }
        Ok(others)
    }

    /// Whether another process seems to have the store open for writing: its entry is there.
    pub(crate) fn is_shared(&self) -> Result<bool> {
        if self.locks.is_none() || self.exclusive {
            return Ok(false);
        }
        let parts = PROCESS.parts(&self.mapping)?;
        for (entry, at) in (0..).zip(parts.places()) {
            if entry != self.process && self.mapping.load(at + process::PID)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The processes that have the store open for writing, ours included.
    pub(crate) fn processes(&self) -> Result<Vec<Process>> {
        let mut processes = match &self.locks {
            Some(locks) if self.is_live()? => living(&self.mapping, locks)?,
            _ => Vec::new(),
        };
        if !self.read_only {
            processes.extend(read(&self.mapping, self.process)?);
            processes.sort_by_key(|process| process.entry);
        }
        Ok(processes)
    }

    /// The process-table entry of the holder of the writer lock, and since when its transaction holds it (milliseconds
    /// since 1970, zero if it is no transaction).
    pub(crate) fn writing(&self) -> Result<Option<(u64, u64)>> {
        if !self.is_live()? {
            return Ok(None);
        }
        let word = self.mapping.live(live::WRITER_LOCK)?;
        // An exclusive opener holds it all the time.
        let at_rest = self.exclusive && !self.gate.is_held();
        let holder = (!writer_lock::is_free(word) && !at_rest).then(|| writer_lock::holder(word) - 1);
        Ok(holder.zip(Some(self.mapping.live(live::WRITING_SINCE)?)))
    }

    /// Whether a process waits for the writer lock, and the process-table entry of the one that has the next turn: only
    /// a process that has waited for some time has that.
    pub(crate) fn waiting_to_write(&self) -> Result<(bool, Option<u64>)> {
        if !self.is_live()? {
            return Ok((false, None));
        }
        let turn = self.mapping.live(live::NEXT_TURN)?;
        let sleeps = self.mapping.live(live::WRITER_LOCK)? & writer_lock::WAITERS != 0;
        Ok((sleeps || turn != 0, (turn >> 32).checked_sub(1)))
    }

    /// The error after too long a wait for the writer lock. The present holder need not have held it all the time; no
    /// more than this can be said.
    #[cold]
    pub(crate) fn lock_timeout(&self, waited: Duration) -> Error {
        let (pid, held) = self.holder(waited);
        Error::LockTimeout { path: self.mapping.path().to_owned(), waited, pid, held }
    }

    /// Tells of a long wait for the writer lock that still lasts.
    #[cold]
    pub(crate) fn tell_long_wait(&self, waited: Duration) {
        telemetry::on_long_wait(self.mapping.path(), waited, self.holder(waited));
    }

    /// The process that has the writer lock, and for how long: if that is not known, for as long as it was waited for.
    fn holder(&self, waited: Duration) -> (u32, Duration) {
        let word = self.mapping.live(live::WRITER_LOCK).unwrap_or(0);
        let entry = writer_lock::holder(word).wrapping_sub(1);
        let holder = read(&self.mapping, entry).ok().flatten();
        let pid = holder.map_or_else(std::process::id, |process| process.pid);
        let since = self.mapping.live(live::WRITING_SINCE).unwrap_or(0);
        let held = if since == 0 { waited } else { Duration::from_millis(now().saturating_sub(since)) };
        (pid, held)
    }
}

/// What the writer lock needs of a store.
impl lock_word::Shared for Engine {
    #[inline]
    fn load(&self, at: u64) -> Result<u64> {
        Ok(self.mapping.live_word(at)?.seq_cst())
    }

    #[inline]
    fn compare_exchange(&self, at: u64, current: u64, new: u64) -> Result<bool> {
        self.mapping.compare_exchange_live(at, current, new)
    }

    #[inline]
    fn swap(&self, at: u64, new: u64) -> Result<u64> {
        self.mapping.swap_live(at, new)
    }

    fn clear_up_after(&self, entry: u64) -> Result<bool> {
        // It is alive, but its turn would never end.
        if let Some(locks) = &self.locks
            && let Ok(file) = locks.id()
            && gate::is_own_turn(file, entry)
        {
            return Err(Error::WouldDeadlock { path: self.mapping.path().to_owned() });
        }
        Engine::clear_up_after(self, entry)
    }

    fn sleep(&self, seen: u64, timeout: Duration) -> Result<()> {
        self.mapping.sleep(live::WRITER_LOCK, Half::High, (seen >> 32) as u32, timeout)
    }

    fn wake(&self) -> Result<()> {
        self.mapping.wake(live::WRITER_LOCK, Half::High)
    }

    fn waits_long(&self, waited: Duration) {
        self.tell_long_wait(waited);
    }

    fn clock(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}
