//! The door: all that changes the file.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, PoisonError};

use super::*;
use crate::telemetry;

/// Zeros to write from. They never change, so the system keeps no memory for them.
pub(super) static ZEROS: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; FOLIO as usize].into_boxed_slice());

/// The way to change words of a mapping that can be written to.
#[derive(Clone, Copy)]
pub(crate) struct Door<'r> {
    mapping: &'r Mapping,
}

impl Door<'_> {
    /// Stores a word of this mapping that was found at `offset`.
    #[inline(always)]
    pub(crate) fn store(self, word: &Word, offset: u64, value: u64, order: Ordering) {
        #[cfg(test)]
        self.mapping.record(|recorder| recorder.store(offset, value));
        #[cfg(not(test))]
        let _ = (self.mapping, offset);
        word.0.store(value.to_le(), order);
    }

    /// Stores a word before the extents.
    #[inline(always)]
    pub(crate) fn store_live(self, offset: u64, value: u64, order: Ordering) {
        if let Some([word]) = self.mapping.window().words(offset) {
            self.store(word, offset, value, order);
        }
    }
}

impl Mapping {
    #[inline(always)]
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.is_read_only() { Err(self.read_only_error()) } else { Ok(()) }
    }

    /// The way to change words of this mapping that were found, if it can be written to.
    #[inline(always)]
    pub(crate) fn door(&self) -> Result<Door<'_>> {
        self.check_writable().map(|()| Door { mapping: self })
    }

    #[cold]
    fn read_only_error(&self) -> Error {
        Error::ReadOnly { path: self.path.clone() }
    }

    /// Stores bytes that no reader can reach yet.
    #[inline(always)]
    pub(crate) fn write(&self, offset: Offset, bytes: &[u8]) -> Result<()> {
        self.check_writable()?;
        let address = self.address(offset.0, bytes.len() as u64)?;
        #[cfg(test)]
        self.record(|recorder| recorder.write(offset.0, bytes));
        // SAFETY: `address` points to as many bytes of a writable span, which `bytes` does not overlap, since what is
        // borrowed from the mapping is frozen and this range is not. Only the holder of the writer lock gets here, with
        // bytes that are not published, so nothing else reads or writes them meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len()) };
        Ok(())
    }

    /// As [`write`](Mapping::write), for bytes that will be flushed at once. A store through the mapping dirties the
    /// whole folio that a page belongs to, up to 2 MiB of it; this dirties its own blocks only, where file and mapping
    /// are the same memory.
    #[inline]
    pub(crate) fn append(&self, offset: Offset, bytes: &[u8]) -> Result<()> {
        self.address(offset.0, bytes.len() as u64)?;
        match self.write_through(offset, bytes) {
            Some(written) => written.map_err(|e| Error::io(&self.path, "append to the log", e)),
            None => self.write(offset, bytes),
        }
    }

    /// Writes bytes through the file; `None` if it is not the same memory as the mapping, or too long for the process.
    #[inline]
    pub(super) fn write_through(&self, offset: Offset, bytes: &[u8]) -> Option<io::Result<()>> {
        let Backing::File(file) = &self.backing else { return None };
        // A write beyond a limit on the length of files, which a file may have outgrown, would end the process by a
        // signal.
        if !self.coherent || exceeds_limit(offset.0 + bytes.len() as u64) {
            return None;
        }
        #[cfg(test)]
        self.record(|recorder| recorder.write(offset.0, bytes));
        Some(os::write_at(file, offset.0, bytes))
    }

    /// Writes a range, from a multiple of 8 on, once more as it is, so that the next flush writes it to the disk
    /// whatever the system believes is there. After a failed flush it takes pages for written that never were.
    pub(crate) fn rewrite(&self, offset: Offset, len: u64) -> Result<()> {
        let mut at = offset;
        while at < offset + len {
            let piece = self.copy(at, (offset + len - at).min(1 << 20))?;
            self.append(at, &piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Zeroes a range that nothing reads. Zeros are written, which takes memory for a long piece at once; if the system
    /// refuses that, they are stored.
    pub(crate) fn zero(&self, offset: Offset, len: u64) -> Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..piece as usize];
            self.append(offset + done, zeros).or_else(|_| self.write(offset + done, zeros))?;
            done += piece;
        }
        Ok(())
    }

    /// Writes zeros to a part of the file that was never in memory, so that the system takes memory for all of it at
    /// once and not page by page with each store. Nothing depends on it, and it does nothing where file and mapping are
    /// not the same memory.
    pub(crate) fn write_ahead(&self, offset: Offset, len: u64) {
        if matches!(self.backing, Backing::File(_)) && self.coherent {
            // The space is there, so that storing does not fail.
            let _ = self.zero(offset, len);
        }
    }

    /// Has the system map a part of the file anew when it is stored to, a folio at once. As long as it is mapped, but
    /// was written back, the system stops each first store to a page. The content stays.
    pub(crate) fn map_anew(&self, offset: Offset, len: u64) {
        if matches!(self.backing, Backing::File(_)) && len > 0 {
            let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
            os::map_anew(spans.last(), offset.0, len);
        }
    }

    /// Stores a word before the extents.
    #[inline(always)]
    pub(crate) fn store_live(&self, offset: u64, value: u64, order: Ordering) -> Result<()> {
        self.door()?.store(self.live_word(offset)?, offset, value, order);
        Ok(())
    }

    /// Stores a word.
    #[inline(always)]
    pub(crate) fn store(&self, offset: u64, value: u64, order: Ordering) -> Result<()> {
        self.door()?.store(self.word(offset)?, offset, value, order);
        Ok(())
    }

    /// Stores a word of this mapping that was found at `offset`. Does nothing if the mapping cannot be written to.
    #[inline(always)]
    pub(crate) fn store_found(&self, word: &Word, offset: u64, value: u64, order: Ordering) {
        if !self.is_read_only() {
            Door { mapping: self }.store(word, offset, value, order);
        }
    }

    /// Replaces the word at `offset` by `new` if it is `current`; says whether it was.
    #[inline(always)]
    pub(crate) fn compare_exchange(&self, offset: u64, current: u64, new: u64, order: Ordering) -> Result<bool> {
        self.check_writable()?;
        Ok(self.exchange(self.word(offset)?, offset, (current, new), order))
    }

    /// The same for a word before the extents, in the single total order.
    #[inline(always)]
    pub(crate) fn compare_exchange_live(&self, offset: u64, current: u64, new: u64) -> Result<bool> {
        self.check_writable()?;
        Ok(self.exchange(self.live_word(offset)?, offset, (current, new), Ordering::SeqCst))
    }

    #[inline(always)]
    fn exchange(&self, word: &Word, offset: u64, (current, new): (u64, u64), order: Ordering) -> bool {
        let done = word.0.compare_exchange(current.to_le(), new.to_le(), order, Ordering::Relaxed).is_ok();
        #[cfg(test)]
        if done {
            self.record(|recorder| recorder.store(offset, new));
        }
        #[cfg(not(test))]
        let _ = offset;
        done
    }

    /// Replaces a word before the extents, in the single total order, and returns what it was.
    #[inline(always)]
    pub(crate) fn swap_live(&self, offset: u64, value: u64) -> Result<u64> {
        self.check_writable()?;
        let word = self.live_word(offset)?;
        #[cfg(test)]
        self.record(|recorder| recorder.store(offset, value));
        Ok(u64::from_le(word.0.swap(value.to_le(), Ordering::SeqCst)))
    }

    /// Replaces a word before the extents, which others change as well, by `next` of its value.
    pub(crate) fn update_live(&self, offset: u64, next: impl Fn(u64) -> u64) -> Result<()> {
        loop {
            let value = self.live(offset)?;
            if self.compare_exchange(offset, value, next(value), Ordering::SeqCst)? {
                return Ok(());
            }
        }
    }

    /// Sets and clears bits of such a word.
    pub(crate) fn change_bits(&self, offset: u64, set: u64, clear: u64) -> Result<()> {
        self.update_live(offset, |value| value & !clear | set)
    }

    /// Makes a range durable. When this returns, what was stored in it before the call survives a power cut.
    ///
    /// A flush that fails is never tried again and called durable: the system reports a failure once, and then takes
    /// the pages for written. So it is remembered, here and in the file.
    pub(crate) fn flush(&self, offset: Offset, len: u64) -> Result<()> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        // Bytes past the end of the file were given up and cut off, perhaps just now.
        let end = offset.0.saturating_add(len);
        let end = if end > self.len() { end.min(self.refresh()?) } else { end };
        let len = end.saturating_sub(offset.0);
        if len == 0 {
            return Ok(());
        }
        self.flush_range(file, offset.0, len)
    }

    /// Makes a range of the mapping durable.
    pub(super) fn flush_range(&self, file: &File, offset: u64, len: u64) -> Result<()> {
        self.noting_failure("flush", || {
            witness::call(Call::Flush)?;
            #[cfg(test)]
            if let Some(recorder) = self.recorder.get() {
                return recorder.flush(offset, len);
            }
            // The span is kept by a count of its own, so that a flush never holds up growth.
            let span = self.spans.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
            span.map_or(Ok(()), |span| span.flush_range(offset as usize, len as usize))?;
            // On Linux and Windows the call above reaches the medium. Elsewhere it may end in the drive's cache.
            if cfg!(not(any(target_os = "linux", windows))) { file.sync_data() } else { Ok(()) }
        })
    }

    /// Makes the whole file durable, its length included.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        self.flush(Offset(0), self.len())?;
        self.noting_failure("flush", || {
            #[cfg(test)]
            if self.recorder.get().is_some() {
                return Ok(());
            }
            file.sync_all()
        })
    }

    /// Makes the system write back all of the file, piece by piece, and calls `on_piece` with the bytes so far. That
    /// does not make it durable; but a flush after it has little left to do. Does nothing where the system cannot do
    /// that for a part of a file.
    pub(crate) fn write_back_all(&self, mut on_piece: impl FnMut(u64)) -> Result<()> {
        const PIECE: u64 = 16 << 20;

        if !cfg!(target_os = "linux") || self.file().is_none() {
            return Ok(());
        }
        let len = self.len();
        let pieces = (0..len).step_by(PIECE as usize);
        self.begin_writing_back(Offset(0), PIECE.min(len))?;
        for piece in pieces {
            on_piece(piece);
            let next = (piece + PIECE).min(len);
            if next < len {
                self.begin_writing_back(Offset(next), PIECE.min(len - next))?;
            }
            self.wait_for_writing_back(Offset(piece), next - piece)?;
        }
        Ok(())
    }

    /// Asks the system to begin writing a range back, and does not wait.
    pub(crate) fn begin_writing_back(&self, offset: Offset, len: u64) -> Result<()> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        self.noting_failure("write back", || {
            witness::call(Call::WriteBack)?;
            os::begin_writing_back(file, offset.0, len)
        })
    }

    /// Waits until what was [begun](Mapping::begin_writing_back) is written. That does not make it durable: it may be
    /// in the drive's cache, but a flush then has little left to do.
    pub(crate) fn wait_for_writing_back(&self, offset: Offset, len: u64) -> Result<()> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        self.noting_failure("write back", || {
            witness::call(Call::WriteBack)?;
            os::wait_for_writing_back(file, offset.0, len)
        })
    }

    /// Takes a step and remembers its failure: nothing is known to be durable from then on.
    fn noting_failure(&self, doing: &'static str, step: impl FnOnce() -> io::Result<()>) -> Result<()> {
        step().map_err(|error| {
            self.flush_failed.store(true, Ordering::Release);
            // The word is always there, and this is a mapping that can be written to.
            let _ = self.change_bits(live::STATE, live::STATE_POISONED, 0);
            telemetry::on_flush_failed(&self.path, &error);
            Error::io(&self.path, doing, error)
        })
    }

    /// Whether a flush has failed since the mapping was made.
    pub(crate) fn flush_failed(&self) -> bool {
        self.flush_failed.load(Ordering::Acquire)
    }

    /// Refuses to take `needed` more bytes, with which `used` bytes are in use and the file ends at `end`, if the limit
    /// forbids it.
    pub(crate) fn check_limit(&self, needed: u64, used: u64, end: Offset) -> Result<()> {
        // A private copy is full when its file would be.
        let seal = if matches!(self.backing, Backing::Memory { behind: None }) { 0 } else { BLOCK };
        let most = |excess: &AtomicU64| self.max_len.saturating_add(excess.load(Ordering::Relaxed));
        let is_within = |bytes: u64, excess: &AtomicU64| bytes.saturating_add(seal) <= most(excess);
        if is_within(used, &self.excess) && is_within(end.0, &self.excess_of_end) {
            return Ok(());
        }
        Err(Error::Full { path: self.path.clone(), needed, why: FullReason::MaxSize(self.max_len) })
    }

    /// Makes the file at least `to` bytes long before its seal, with real space for `from..to`, none of which is in use
    /// yet; new bytes are zeros. Borrows stay valid. On failure everything is as before. The caller holds the writer
    /// lock.
    pub(crate) fn allocate(&self, Offset(from): Offset, Offset(to): Offset) -> Result<()> {
        let old = self.refresh()?;
        let needed = to.saturating_sub(old);
        let seal = self.seal_len();
        if needed > 0 {
            self.check_limit(needed, 0, Offset(to))?;
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.backing {
            Backing::ReadOnlyFile(_) => self.check_writable()?,
            Backing::Memory { behind } => {
                if let Some(span) = spans.last().filter(|span| to > span.len() as u64) {
                    grow(span, Shown::Memory, to).map_err(|e| unmapped(&self.path, needed, span.len() as u64, e))?;
                }
                if to > old && behind.as_ref().is_some_and(|(_, whole)| old < *whole) {
                    // The former seal of the file.
                    os::discard(spans.last(), old, BLOCK.min(to - old));
                }
            }
            Backing::File(file) => {
                let end = if needed > 0 { to + seal } else { to };
                os::extend(file, from.min(old + seal), old + seal, end)
                    .map_err(|refused| refusal(&self.path, needed, refused))?;
                if let Err(error) = self.cover(&mut spans, file, end) {
                    os::set_len(file, old + seal).map_err(|e| Error::io(&self.path, "shorten the file", e))?;
                    return Err(unmapped(&self.path, needed, old, error));
                }
            }
        }
        if to > old {
            #[cfg(test)]
            self.record(|recorder| recorder.set_len(to + seal));
            // Release: a thread that sees the new length sees a base that covers it.
            self.len.store(to, Ordering::Release);
        }
        // A process may have died after it had extended the file and before this.
        self.move_seal(self.len())?;
        drop(spans);
        if to > old {
            telemetry::on_length(&self.path, old, to);
        }
        Ok(())
    }

    /// Makes the file end at `len`, plus the seal, if the system can do that to a mapped file; returns how many bytes
    /// shorter it is. The caller holds the writer lock. Nothing is read past `len`.
    pub(crate) fn truncate(&self, len: u64) -> Result<u64> {
        let old = self.refresh()?;
        if len >= old || len < EXTENTS {
            return Ok(0);
        }
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.backing {
            Backing::ReadOnlyFile(_) => self.check_writable()?,
            Backing::Memory { .. } => os::discard(spans.last(), len, old - len),
            Backing::File(file) => {
                // There may be a hole at the new place of the seal.
                match os::extend(file, len, old + BLOCK, len + BLOCK) {
                    Ok(()) => {}
                    Err(os::Refused::Full(_)) => return Ok(0),
                    Err(refused) => return Err(refusal(&self.path, BLOCK, refused)),
                }
                self.move_seal(len)?;
                if let Err(error) = os::set_len(file, len + BLOCK) {
                    self.move_seal(old)?;
                    let is_mapped = os::is_mapped_elsewhere(&error);
                    return if is_mapped { Ok(0) } else { Err(Error::io(&self.path, "shorten the file", error)) };
                }
            }
        }
        #[cfg(test)]
        self.record(|recorder| recorder.set_len(len + self.seal_len()));
        self.len.store(len, Ordering::Release);
        drop(spans);
        telemetry::on_length(&self.path, old, len);
        Ok(old - len)
    }

    /// Puts a recorder at the door.
    #[cfg(test)]
    pub(crate) fn set_recorder(&self, recorder: std::sync::Arc<dyn witness::Recorder>) {
        assert!(self.recorder.set(recorder).is_ok(), "one recorder is enough");
    }

    #[cfg(test)]
    pub(super) fn record(&self, tell: impl FnOnce(&dyn witness::Recorder)) {
        if let Some(recorder) = self.recorder.get() {
            tell(&**recorder);
        }
    }
}

fn exceeds_limit(end: u64) -> bool {
    os::file_size_limit().is_some_and(|limit| end > limit)
}
