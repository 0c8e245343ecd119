//! The seal: the last block of a file, which says what was committed last. See [the
//! format](crate::format#the-seal).
//!
//! Memory has none: it cannot be copied. Nor has a file after a power cut, until its log was followed to the end: the
//! file may be shorter than it was, and its last block may be the end of the log.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::writing::ZEROS;
use super::*;
use crate::file::layout::{align_block, seal};

impl Mapping {
    /// Bytes of the seal, which lies after the accessible bytes.
    #[inline]
    pub(super) fn seal_len(&self) -> u64 {
        if self.sealed.load(Ordering::Relaxed) { BLOCK } else { 0 }
    }

    /// The present length of the file, the seal included.
    pub(crate) fn file_len(&self) -> Result<u64> {
        let Some(file) = self.file() else { return Ok(self.len()) };
        os::len(file).map_err(|e| Error::io(&self.path, "read the length", e))
    }

    /// Whether the file ends with a whole block. It always does, unless another program has changed its length.
    pub(crate) fn ends_with_a_block(&self) -> Result<bool> {
        Ok(self.file_len()? == self.len() + self.seal_len())
    }

    /// Whether a seal can be at `at`, given the known length of the file.
    #[inline(always)]
    fn can_seal_at(&self, at: u64) -> bool {
        at <= self.len() && at >= EXTENTS && at.is_multiple_of(BLOCK)
    }

    /// The word `word` of the seal at `at`.
    #[inline(always)]
    fn seal_word(&self, at: u64, word: u64) -> Result<&Word> {
        if !self.can_seal_at(at) {
            self.check_seal_at(at)?;
        }
        // SAFETY: `at` is a multiple of a block and at most the length before the seal; mapping and file have a block
        // more than that (see `Mapped`, `refresh` and `allocate`), and `word` is a multiple of 8 within a block. The
        // rest as in `words`.
        Ok(unsafe { &*self.base.load(Ordering::Acquire).add((at + word) as usize).cast::<Word>() })
    }

    /// Another process may have made the file longer.
    #[cold]
    fn check_seal_at(&self, at: u64) -> Result<()> {
        self.refresh()?;
        if self.can_seal_at(at) && self.seal_len() > 0 {
            return Ok(());
        }
        Err(self.corrupt(live::SEAL_AT, format!("the seal cannot be at offset {at}")))
    }

    /// A word of the last block of the file; see [`seal`]. Zero where there is none.
    pub(crate) fn seal(&self, word: u64) -> Result<u64> {
        if self.seal_len() == 0 { Ok(0) } else { Ok(self.seal_word(self.len(), word)?.load()) }
    }

    /// A word of the seal that the live area names. Bytes after it were not in use when it was named: the file had just
    /// been extended, or was about to be shortened.
    pub(crate) fn seal_in_force(&self, word: u64) -> Result<u64> {
        if self.seal_len() == 0 { Ok(0) } else { Ok(self.seal_word(self.live(live::SEAL_AT)?, word)?.load()) }
    }

    /// Moves the seal to the end of the file, in case a process was killed before it did. The caller holds the writer
    /// lock.
    pub(crate) fn settle_seal(&self) -> Result<()> {
        self.move_seal(self.refresh()?)
    }

    /// Stores a word of the seal, at the place that the live area names. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn store_seal(&self, word: u64, value: u64) -> Result<()> {
        if self.seal_len() == 0 {
            return Ok(());
        }
        let door = self.door()?;
        let at = self.live(live::SEAL_AT)?;
        // Release: if the word reports a change, the change was stored before it.
        door.store(self.seal_word(at, word)?, at + word, value, Ordering::Release);
        Ok(())
    }

    /// Makes the seal durable.
    pub(crate) fn flush_seal(&self) -> Result<()> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        self.flush_range(file, self.live(live::SEAL_AT)?, BLOCK)
    }

    /// Treats the last block as a part of the log, until the file is [sealed up](Mapping::seal_up).
    pub(crate) fn unseal(&self) -> Result<()> {
        if let Backing::Memory { behind: Some((_, whole)) } = &self.backing {
            self.len.store(*whole, Ordering::Release);
        }
        self.sealed.store(false, Ordering::Relaxed);
        self.refresh().map(drop)
    }

    /// Gives the file an empty seal, after the extents of the log, while no other process looks. A private copy becomes
    /// as long as the file would be.
    pub(crate) fn seal_up(&self, log: &[Range<Offset>]) -> Result<()> {
        let Offset(end) = log.iter().map(|extent| extent.end).max().unwrap_or(Offset::EXTENTS);
        let len = self.refresh()?;
        let has_room = len.is_multiple_of(BLOCK) && end + BLOCK <= len;
        if matches!(&self.backing, Backing::Memory { behind: Some(_) }) && has_room {
            self.len.store(len - BLOCK, Ordering::Release);
        }
        let Backing::File(file) = &self.backing else { return Ok(()) };
        let to = if has_room { len } else { align_block(len).max(end) + BLOCK };
        if !has_room {
            os::extend(file, len, len, to).map_err(|refused| refusal(&self.path, to - len, refused))?;
            #[cfg(test)]
            self.record(|recorder| recorder.set_len(to));
        }
        self.sealed.store(true, Ordering::Relaxed);
        self.refresh()?;
        let before = self.live(live::SEAL_AT)?;
        let is_log = log.iter().any(|extent| extent.contains(&Offset(before)));
        if self.can_seal_at(before) && !is_log {
            // A copy whose front names it must not find it as it was.
            self.clear_seal(before)?;
        }
        self.find_seal()?;
        seal::WORDS.into_iter().try_for_each(|word| self.store_seal(word, 0))
    }

    /// Names the end of the file as the place of the seal, and leaves its words as they are.
    pub(crate) fn find_seal(&self) -> Result<()> {
        if self.seal_len() == 0 { Ok(()) } else { self.store_live(live::SEAL_AT, self.len(), Ordering::Release) }
    }

    fn clear_seal(&self, at: u64) -> Result<()> {
        let door = self.door()?;
        seal::WORDS.into_iter().try_for_each(|word| {
            door.store(self.seal_word(at, word)?, at + word, 0, Ordering::Release);
            Ok(())
        })
    }

    /// Moves the seal to `to`, the present or coming end of the file, unless it is there: its words are stored first,
    /// then the old ones are cleared, then the live area names the new place. The caller holds the writer lock.
    pub(super) fn move_seal(&self, to: u64) -> Result<()> {
        let from = self.live(live::SEAL_AT)?;
        if self.seal_len() == 0 || from == to {
            return Ok(());
        }
        let (door, was_there) = (self.door()?, self.can_seal_at(from));
        // To store a word of it, the system would read the block first, and all around it, page by page: whatever is
        // appended there later is then stored page by page, too. Nothing depends on it.
        let _ = self.write_through(Offset(to), &ZEROS[..BLOCK as usize]);
        for word in seal::WORDS {
            let value = if was_there { self.seal_word(from, word)?.load() } else { 0 };
            door.store(self.seal_word(to, word)?, to + word, value, Ordering::Relaxed);
        }
        // The old words are cleared first, so that never both hold: a copy whose front names the old place must not
        // find it as it was when others have committed since.
        if was_there {
            self.clear_seal(from)?;
        }
        self.store_live(live::SEAL_AT, to, Ordering::Release)?;
        Ok(())
    }
}
