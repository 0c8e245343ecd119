//! The seal: the last block of a file, which says what was committed last. See [the
//! format](crate::file::layout#the-seal).
//!
//! A mapping that is no file has none: nobody can copy it. Nor has one whose power was cut, until its log was followed
//! to the end: the file may be shorter than it was, and what looks like the seal be the end of the log.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::*;
use crate::file::layout::{align_block, seal};

impl Mapping {
    /// Bytes of the seal, which lies behind those that can be accessed.
    #[inline]
    pub(super) fn seal_len(&self) -> u64 {
        if self.sealed.load(Ordering::Relaxed) { BLOCK } else { 0 }
    }

    /// The length of the file by now, the seal included.
    pub(crate) fn file_len(&self) -> Result<u64> {
        let Some(file) = self.file() else { return Ok(self.len()) };
        os::len(file).map_err(|e| Error::io(&self.path, "read the length", e))
    }

    /// Whether the file ends with a whole block. It always does, unless somebody else has changed its length.
    pub(crate) fn ends_with_a_block(&self) -> Result<bool> {
        Ok(self.file_len()? == self.len() + self.seal_len())
    }

    /// Whether a seal can be at `at`, in the file as long as it is known to be.
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

    /// A word of the seal that the live area names. What lies behind that, nobody had come to use when it was written:
    /// the file was just made longer, or was to become shorter.
    pub(crate) fn seal_in_force(&self, word: u64) -> Result<u64> {
        if self.seal_len() == 0 { Ok(0) } else { Ok(self.seal_word(self.live(live::SEAL_AT)?, word)?.load()) }
    }

    /// Puts the seal to the end of the file, should a process that was to do so have been killed. Only for the holder
    /// of the writer lock.
    pub(crate) fn settle_seal(&self) -> Result<()> {
        self.move_seal(self.refresh()?)
    }

    /// Stores a word of the seal, where the live area says that it is. Only for the holder of the writer lock.
    #[inline(always)]
    pub(crate) fn store_seal(&self, word: u64, value: u64) -> Result<()> {
        if self.seal_len() == 0 {
            return Ok(());
        }
        let door = self.door()?;
        let at = self.live(live::SEAL_AT)?;
        // Release, where it says that something has changed: whatever made it so was stored before.
        door.store(self.seal_word(at, word)?, at + word, value, Ordering::Release);
        Ok(())
    }

    /// Makes the seal durable.
    pub(crate) fn flush_seal(&self) -> Result<()> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        self.flush_range(file, self.live(live::SEAL_AT)?, BLOCK)
    }

    /// Takes the last block for a part of the log, until the file is [sealed up](Mapping::seal_up).
    pub(crate) fn unseal(&self) -> Result<()> {
        if let Backing::Memory { behind: Some((_, whole)) } = &self.backing {
            self.len.store(*whole, Ordering::Release);
        }
        self.sealed.store(false, Ordering::Relaxed);
        self.refresh().map(drop)
    }

    /// Gives the file a seal that says nothing, behind the extents of the log. Nobody else looks. A private copy goes
    /// on as long as the file would be.
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

    /// Says that the seal is at the end of the file, and leaves there what is.
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

    /// Puts the seal to `to`, the end of the file or what is about to be that, unless it is there: first what it says,
    /// then the old place becomes ordinary space, then the live area names the new one. Only for the holder of the
    /// writer lock.
    pub(super) fn move_seal(&self, to: u64) -> Result<()> {
        let from = self.live(live::SEAL_AT)?;
        if self.seal_len() == 0 || from == to {
            return Ok(());
        }
        let (door, was_there) = (self.door()?, self.can_seal_at(from));
        for word in seal::WORDS {
            let value = if was_there { self.seal_word(from, word)?.load() } else { 0 };
            door.store(self.seal_word(to, word)?, to + word, value, Ordering::Relaxed);
        }
        // The words of the old one first, and never both: a copy whose front names the old place must not find it as it
        // was when others have committed since.
        if was_there {
            self.clear_seal(from)?;
        }
        self.store_live(live::SEAL_AT, to, Ordering::Release)?;
        Ok(())
    }
}
