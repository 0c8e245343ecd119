//! The mapping: the file as memory, and the one door through which it changes.
//!
//! Readers get three things from here: atomic words ([`Mapping::word`], [`Mapping::words`]; a [`Word`] can only be
//! loaded), bytes that no longer change ([`Mapping::frozen`]) and headers among them ([`Mapping::header`]). Every
//! access is checked against the length of the file. Only the door changes the file: the methods
//! [`write`](Mapping::write), [`store`](Mapping::store), [`append`](Mapping::append),
//! [`compare_exchange`](Mapping::compare_exchange), [`flush`](Mapping::flush) and [`allocate`](Mapping::allocate). A
//! test build can put a [recorder](super::witness) there.
//!
//! # Why the references are sound
//!
//! * The base pointer belongs to a [span] that stays mapped as long as the `Mapping` lives. A span grows in place;
//!   where the addresses after it are taken, the file is mapped anew, and the old spans stay. They grow geometrically,
//!   so they are few.
//! * The last block of a file is the [seal](crate::format#the-seal). It lies after the length that callers see, and the
//!   mapping covers it as well.
//! * The length is raised only after the file has been extended, by us or by another process, and the mapping covers
//!   it. The file is shortened, by us or by another process, only where nothing is read: the part cut off is not in
//!   use, no pin covers it, and no reader without pins has the store open. The mapping extends past its end.
//! * Nothing hands out `&mut` to the mapping, nor `&` to what may still change, except words, which are atomics.
//! * The trust boundary, stated in the crate's documentation: only slotlog changes or truncates the file while it is
//!   open. Within that, callers of [`Mapping::frozen`] ask only for bytes that were published, by a release store of
//!   the slot or the commit point through which they found them, and that are not reused while borrowed (the callers
//!   hold a pin or the writer lock).
#![allow(unsafe_code)]

pub(crate) mod barrier;
mod os;
mod seal;
mod span;
mod tags;
mod window;
mod writing;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::layout::{BLOCK, EXTENTS, MAX_FILE_LEN, Offset, Seq, live};
use super::locks::network_file_system;
use super::witness::{self, Call};
use crate::error::{Error, FullReason, Result};
pub(crate) use span::Protection;
use span::{Shown, Span};
pub(crate) use tags::{tagged, tagged_and_bare};
pub(crate) use window::Window;
pub(crate) use writing::Door;

#[cfg(not(target_has_atomic = "64"))]
compile_error!("slotlog needs native 64-bit atomics, which this target does not have");

#[cfg(not(any(unix, windows)))]
compile_error!("slotlog needs a system that maps files and locks bytes of them: Linux, macOS or Windows");

/// The least number of addresses for the mapping of a file that cannot grow in place, if a mapping may be longer than
/// its file.
const RESERVE: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// The most addresses that memory in place of a file reserves beyond its first length, if it cannot grow in place. With
/// 32 bits there are few, and they must not all go to one store. Tests have many stores at a time, some of them in an
/// emulator that keeps a note of each page.
const MOST_RESERVED: u64 = if cfg!(test) {
    1 << 30
} else if usize::BITS < 64 {
    512 << 20
} else {
    64 << 30
};

/// A word that may change at any time: an atomic that any code can load and only the door can store. It is
/// little-endian in memory.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Word(AtomicU64);

impl Word {
    /// Loads the word so that what was stored before its release store can be seen. On memory that may be mapped
    /// read-only, Rust promises relaxed loads only, so the acquire is a fence of its own.
    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        if cfg!(thread_sanitizer) {
            // ThreadSanitizer does not understand fences.
            return u64::from_le(self.0.load(Ordering::Acquire));
        }
        let value = self.relaxed();
        fence(Ordering::Acquire);
        value
    }

    /// Loads the word in no particular order to anything else.
    #[inline(always)]
    pub(crate) fn relaxed(&self) -> u64 {
        u64::from_le(self.0.load(Ordering::Relaxed))
    }

    /// Loads the word in the single total order of all sequentially consistent accesses. Only on writable memory.
    #[inline(always)]
    pub(crate) fn seq_cst(&self) -> u64 {
        u64::from_le(self.0.load(Ordering::SeqCst))
    }
}

/// Bytes that the log is written ahead by, to multiples of this: where the system keeps files in large folios, it takes
/// memory for that much at once.
pub(crate) const FOLIO: u64 = 128 << 10;

/// Half of a [`Word`]: what a sleeper can watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Low,
    High,
}

/// The shortest file: the part before the extents, and the seal.
const LEAST_FILE: u64 = EXTENTS + BLOCK;

/// How much of a file of `len` bytes lies before its seal. A file that was cut short has none.
fn before_seal(len: u64) -> u64 {
    if len < LEAST_FILE { len } else { (len / BLOCK - 1) * BLOCK }
}

/// The file, or memory in its place, as one run of bytes that can grow.
pub(crate) struct Mapping {
    base: AtomicPtr<u8>,
    len: AtomicU64,
    /// Every span made, with its length; the last one is in use, the others may still be borrowed from.
    spans: Mutex<Vec<Arc<Span>>>,
    backing: Backing,
    /// The last block is the seal. Memory has none, nor does a recovery look for one.
    sealed: AtomicBool,
    path: PathBuf,
    max_len: u64,
    /// How many bytes past `max_len` are allowed now.
    excess: AtomicU64,
    /// The same of the end of what is in use.
    excess_of_end: AtomicU64,
    /// Writes to the file show in the mapping at once, and the other way round.
    coherent: bool,
    /// A flush has failed.
    flush_failed: AtomicBool,
    #[cfg(test)]
    recorder: std::sync::OnceLock<std::sync::Arc<dyn witness::Recorder>>,
}

enum Backing {
    File(File),
    ReadOnlyFile(File),
    /// Memory of this process: anonymous, or a copy of a file, page by page as it is written to. `behind` is that file,
    /// kept open since a forked child duplicates its descriptor, and how many bytes of it were mapped.
    Memory {
        behind: Option<(File, u64)>,
    },
}

/// The initial state of a mapping.
struct Mapped {
    span: Span,
    /// Span and file have at least this many bytes, which is at least [`EXTENTS`].
    len: u64,
    /// Span and file have a block more, the seal.
    sealed: bool,
}

impl Mapping {
    /// Maps `file`. For writing, all of it gets real space, and a shorter one is extended to the length of the part
    /// before the extents and the seal.
    pub(crate) fn of_file(file: File, path: PathBuf, protection: Protection, max_len: u64) -> Result<Mapping> {
        let read_only = protection == Protection::ReadOnly;
        let mut len = file.metadata().map_err(|e| Error::io(&path, "read the length", e))?.len();
        if len < EXTENTS && !read_only {
            check_file_size(&path, max_len, LEAST_FILE)?;
            os::extend(&file, len, len, LEAST_FILE).map_err(|refused| refusal(&path, LEAST_FILE - len, refused))?;
            len = LEAST_FILE;
            #[cfg(test)]
            if let Some(recorder) = witness::recorder() {
                recorder.set_len(LEAST_FILE);
            }
        }
        if len < EXTENTS {
            return Err(Error::Truncated { path, len, expected: EXTENTS });
        }
        if !read_only {
            // A copied file may have holes wherever there are zeros. They are filled before anything there is stored,
            // or even read: in a file in memory, reading takes space. Usually one call finds that there are none; where
            // the system cannot fill them, that is all.
            let missing = os::missing_space(&file).map_err(|e| Error::io(&path, "look at the file", e))?;
            if missing > 0 {
                os::fill_holes(&file, 0, len).map_err(|refused| refusal(&path, missing, refused))?;
            }
        }
        let span = map_file(&file, len, protection);
        let span = span.map_err(|e| Error::io(&path, "map the file into memory", os::naming_limit(e)))?;
        let backing = if read_only { Backing::ReadOnlyFile(file) } else { Backing::File(file) };
        let mapped = Mapped { span, len: before_seal(len), sealed: len >= LEAST_FILE };
        Ok(Mapping::new(mapped, backing, path, max_len))
    }

    /// Anonymous memory, all zeros, as long as the part before the extents. It can grow to `max_len` if the system can
    /// promise that much.
    pub(crate) fn in_memory(max_len: u64) -> Result<Mapping> {
        let path = PathBuf::from("(in memory)");
        let span = map_memory(EXTENTS, max_len).map_err(|e| unmapped(&path, EXTENTS, 0, e))?;
        let mapped = Mapped { span, len: EXTENTS, sealed: false };
        Ok(Mapping::new(mapped, Backing::Memory { behind: None }, path, max_len))
    }

    /// Turns a file that is mapped for reading into memory of this process: changes and additions, up to `max_len`,
    /// stay private. No other process may change the file meanwhile.
    pub(crate) fn into_private(self, max_len: u64) -> Result<Mapping> {
        let Mapping { backing, path, spans, .. } = self;
        // There may not be addresses for both.
        drop(spans);
        let Backing::ReadOnlyFile(file) = backing else { return Err(Error::ReadOnly { path }) };
        let len = file.metadata().map_err(|e| Error::io(&path, "read the length", e))?.len();
        // The seal as well: see `unseal`.
        let whole = len / BLOCK * BLOCK;
        if whole < EXTENTS {
            return Err(Error::Truncated { path, len, expected: EXTENTS });
        }
        let span = map_memory(whole, max_len).and_then(|span| {
            os::put_private(&span, &file, whole)?;
            Ok(span)
        });
        let span = span.map_err(|e| Error::io(&path, "map the file into memory", os::naming_limit(e)))?;
        let mapped = Mapped { span, len: before_seal(whole), sealed: false };
        Ok(Mapping::new(mapped, Backing::Memory { behind: Some((file, whole)) }, path, max_len))
    }

    fn new(mapped: Mapped, backing: Backing, path: PathBuf, max_len: u64) -> Mapping {
        let Mapped { span, len, sealed } = mapped;
        // Not every file system that other machines share keeps file and mapping the same.
        let coherent = match &backing {
            Backing::File(file) => {
                cfg!(any(target_os = "linux", target_os = "android")) && network_file_system(file).is_none()
            }
            _ => false,
        };
        let mapping = Mapping {
            sealed: AtomicBool::new(sealed),
            base: AtomicPtr::new(span.as_mut_ptr()),
            len: AtomicU64::new(len),
            spans: Mutex::new(vec![Arc::new(span)]),
            backing,
            path,
            max_len: max_len.min(MAX_FILE_LEN),
            excess: AtomicU64::new(0),
            excess_of_end: AtomicU64::new(0),
            coherent,
            flush_failed: AtomicBool::new(false),
            #[cfg(test)]
            recorder: std::sync::OnceLock::new(),
        };
        #[cfg(test)]
        if let (Backing::File(_), Some(recorder)) = (&mapping.backing, witness::recorder()) {
            mapping.set_recorder(recorder);
        }
        mapping
    }

    /// Name of the file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn protection(&self) -> Protection {
        if self.is_read_only() { Protection::ReadOnly } else { Protection::ReadWrite }
    }

    /// Whether nothing can be changed.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.backing, Backing::ReadOnlyFile(_))
    }

    /// The file, if there is one.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.backing {
            Backing::File(file) | Backing::ReadOnlyFile(file) => Some(file),
            Backing::Memory { .. } => None,
        }
    }

    /// The mapped file, or the file behind memory of this process.
    pub(crate) fn file_behind(&self) -> Option<&File> {
        match &self.backing {
            Backing::Memory { behind } => behind.as_ref().map(|(file, _)| file),
            Backing::File(file) | Backing::ReadOnlyFile(file) => Some(file),
        }
    }

    /// Bytes that can be accessed. The seal of a file lies after them.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// The most bytes that there may ever be.
    pub(crate) fn max_len(&self) -> u64 {
        self.max_len
    }

    /// Whether the file is longer than its limit: a recovery, or others with another limit, may leave it so.
    pub(crate) fn is_too_long(&self) -> bool {
        self.len() + self.seal_len() > self.max_len
    }

    /// Takes a step during which the mapping may exceed its limit by `bytes`, and end a quarter of the limit beyond
    /// that: such a step need not find one free piece below. The caller holds the writer lock.
    pub(crate) fn exceeding<R>(&self, bytes: u64, step: impl FnOnce() -> R) -> R {
        let scattered = if bytes > 0 { self.max_len / 4 } else { 0 };
        self.exceeding_by((bytes, bytes.saturating_add(scattered)), step)
    }

    /// Takes a step that may use all of a file that is longer than its limit, and does not make it longer.
    pub(crate) fn within_file<R>(&self, step: impl FnOnce() -> R) -> R {
        let excess = (self.len() + self.seal_len()).saturating_sub(self.max_len);
        self.exceeding_by((excess, excess), step)
    }

    /// By how much what is in use may exceed the limit during a step, and by how much its end.
    fn exceeding_by<R>(&self, (used, end): (u64, u64), step: impl FnOnce() -> R) -> R {
        struct Restore<'r>([(&'r AtomicU64, u64); 2]);

        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.iter().for_each(|(excess, before)| excess.store(*before, Ordering::Relaxed));
            }
        }
        // Restored however the step ends.
        let swap = |excess: &AtomicU64, to| excess.swap(to, Ordering::Relaxed);
        let before = [swap(&self.excess, used), swap(&self.excess_of_end, end)];
        let _restore = Restore([(&self.excess, before[0]), (&self.excess_of_end, before[1])]);
        step()
    }

    /// The identity of this page cache; `None` if the system cannot tell.
    pub(crate) fn identity(&self) -> Option<[u64; 6]> {
        self.file().and_then(os::identity)
    }

    /// Marks the file for as long as its page cache lives: a disk that was pulled and plugged in again has lost the
    /// mark, and every mount namespace sees the same one.
    pub(crate) fn mark(&self) {
        if let Some(file) = self.file() {
            os::mark(file);
        }
    }

    /// Whether the file was [marked](Mapping::mark) since it came into memory.
    pub(crate) fn is_marked(&self) -> bool {
        self.file().is_some_and(os::is_marked)
    }

    /// A damage report at `offset`.
    #[cold]
    pub(crate) fn corrupt(&self, offset: impl Into<u64>, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::corrupt(&self.path, offset.into(), what)
    }

    #[cold]
    fn outside(&self, offset: u64, len: u64) -> Error {
        let file_len = self.len();
        self.corrupt(offset, format!("{len} bytes were to be read here, and the file has {file_len}"))
    }

    #[cold]
    fn misaligned(&self, offset: u64) -> Error {
        self.corrupt(offset, "a word was to be read here, and the offset is no multiple of 8")
    }

    /// The address of `len` bytes at `offset`, after checking that they exist.
    #[inline(always)]
    fn address(&self, offset: u64, len: u64) -> Result<*mut u8> {
        // Length before base: a base that is newer than the length covers it all the same.
        let valid = self.len.load(Ordering::Acquire);
        match offset.checked_add(len) {
            // SAFETY: offset + len is at most `valid`, so the result lies inside the span that `base` belongs to
            // (see the module's documentation) and inside the file.
            Some(end) if end <= valid => Ok(unsafe { self.base.load(Ordering::Acquire).add(offset as usize) }),
            _ => self.address_in_longer_file(offset, len),
        }
    }

    /// The address of bytes past the known end: another process may have extended the file.
    #[cold]
    fn address_in_longer_file(&self, offset: u64, len: u64) -> Result<*mut u8> {
        match offset.checked_add(len) {
            Some(end) if end <= MAX_FILE_LEN && end <= self.refresh()? => {
                // SAFETY: as in `address`; `refresh` has just raised the length to at least `end`.
                Ok(unsafe { self.base.load(Ordering::Acquire).add(offset as usize) })
            }
            _ => Err(self.outside(offset, len)),
        }
    }

    /// Asks for the present length of the file, and maps it anew if it has outgrown the mapping. Returns its length up
    /// to the seal.
    pub(crate) fn refresh(&self) -> Result<u64> {
        let Some(file) = self.file() else { return Ok(self.len()) };
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = os::len(file).map_err(|e| Error::io(&self.path, "read the length", e))?;
        let len = if self.seal_len() > 0 { before_seal(whole) } else { whole };
        if len != self.len() && len >= EXTENTS {
            let covered = self.cover(&mut spans, file, whole);
            covered.map_err(|e| Error::io(&self.path, "map the longer file into memory", os::naming_limit(e)))?;
            // Release: a thread that sees the new length sees a base that covers it.
            self.len.store(len, Ordering::Release);
        }
        Ok(len)
    }

    /// Makes sure that the span in use has at least `len` bytes.
    fn cover(&self, spans: &mut Vec<Arc<Span>>, file: &File, len: u64) -> io::Result<()> {
        let shown = Shown::File(file, self.protection());
        if let Some(span) = spans.last()
            && (span.len() as u64 >= len || grow(span, shown, len).is_ok())
        {
            return Ok(());
        }
        let span = map_file(file, len, self.protection())?;
        self.base.store(span.as_mut_ptr(), Ordering::Release);
        spans.push(Arc::new(span));
        Ok(())
    }

    /// The word at `offset`, a multiple of 8, before the extents. Every mapping is at least that long, so a constant
    /// offset leaves nothing to check.
    #[inline(always)]
    pub(crate) fn live_word(&self, offset: u64) -> Result<&Word> {
        if !offset.is_multiple_of(8) || offset >= EXTENTS {
            return Err(self.misaligned(offset));
        }
        // SAFETY: the span that `base` belongs to has at least `EXTENTS` bytes, which is a multiple of 8, and so
        // does the file (see `Mapped`); `offset` is a smaller multiple of 8. The rest as in `words`.
        Ok(unsafe { &*self.base.load(Ordering::Acquire).add(offset as usize).cast::<Word>() })
    }

    /// The value of a word before the extents; see [`Word::load`].
    #[inline(always)]
    pub(crate) fn live(&self, offset: u64) -> Result<u64> {
        Ok(self.live_word(offset)?.load())
    }

    /// The sequence number in a word before the extents.
    #[inline(always)]
    pub(crate) fn live_seq(&self, offset: u64) -> Result<Seq> {
        Ok(Seq(self.live(offset)?))
    }

    /// The place that a word before the extents names.
    #[inline(always)]
    pub(crate) fn live_offset(&self, offset: u64) -> Result<Offset> {
        Ok(Offset(self.live(offset)?))
    }

    /// The word at `offset`, a multiple of 8.
    #[inline(always)]
    pub(crate) fn word(&self, offset: u64) -> Result<&Word> {
        Ok(&self.words::<1>(offset)?[0])
    }

    /// The value of the word at `offset`; see [`Word::load`].
    #[inline(always)]
    pub(crate) fn load(&self, offset: u64) -> Result<u64> {
        Ok(self.word(offset)?.load())
    }

    /// The `N` words at `offset`, a multiple of 8.
    #[inline(always)]
    pub(crate) fn words<const N: usize>(&self, offset: u64) -> Result<&[Word; N]> {
        let [words] = self.rows(offset)?;
        Ok(words)
    }

    /// `M` rows of `N` words each, one after the other, at `offset`, a multiple of 8.
    #[inline(always)]
    pub(crate) fn rows<const N: usize, const M: usize>(&self, offset: u64) -> Result<&[[Word; N]; M]> {
        if !offset.is_multiple_of(8) {
            return Err(self.misaligned(offset));
        }
        let address = self.address(offset, 8 * (N * M) as u64)?;
        // SAFETY: `address` points to `N * M` words of a span, which lives as long as `self`; spans start at a
        // page and `offset` is a multiple of 8, so they are aligned. Words are only ever accessed as atomics.
        Ok(unsafe { &*address.cast::<[[Word; N]; M]>() })
    }

    /// Bytes that were published and no longer change.
    #[inline(always)]
    pub(crate) fn frozen(&self, offset: Offset, len: u64) -> Result<&[u8]> {
        let address = self.address(offset.0, len)?;
        let len = usize::try_from(len).map_err(|_| self.outside(offset.0, len))?;
        // SAFETY: `address` points to `len` bytes of a span, which lives as long as `self`. They do not change
        // while borrowed: see the module's documentation.
        Ok(unsafe { std::slice::from_raw_parts(address, len) })
    }

    /// A header among frozen bytes, read in place.
    #[inline(always)]
    pub(crate) fn header<T: FromBytes + KnownLayout + Immutable>(&self, offset: Offset) -> Result<&T> {
        let bytes = self.frozen(offset, size_of::<T>() as u64)?;
        T::ref_from_bytes(bytes).map_err(|_| self.corrupt(offset, "a header was to be read here, and is misaligned"))
    }

    /// A copy of bytes that may change meanwhile, from `offset`, a multiple of 8, on. It is made word by word, so a
    /// change shows as a mixture of old and new words; the caller has a way to detect that.
    pub(crate) fn copy(&self, offset: Offset, len: u64) -> Result<Vec<u8>> {
        // A damaged length has to fail before it allocates a lot of memory.
        self.address(offset.0, len)?;
        let mut bytes =
            Vec::with_capacity(usize::try_from(len).map_err(|_| self.outside(offset.0, len))?.next_multiple_of(8));
        let mut at = offset;
        while at < offset + len {
            bytes.extend_from_slice(&self.word(at.0)?.relaxed().to_le_bytes());
            at += 8;
        }
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    /// Reads bytes that others may be writing, from a multiple of 8 on: through the file, or word by word where there
    /// is none.
    pub(crate) fn read(&self, offset: Offset, bytes: &mut [u8]) -> Result<()> {
        match self.file() {
            Some(file) => os::read_at(file, offset.0, bytes).map_err(|e| Error::io(&self.path, "read the file", e)),
            None => {
                // Memory of this process alone, in which another thread may be writing.
                bytes.copy_from_slice(&self.copy(offset, bytes.len() as u64)?);
                fence(Ordering::Acquire);
                Ok(())
            }
        }
    }

    /// Sleeps while one half of a word before the extents has the value `seen`, until it is [woken](Mapping::wake) or
    /// `timeout` is over; it may also wake for no reason. Where the system cannot wake other processes it sleeps a
    /// little.
    pub(crate) fn sleep(&self, offset: u64, half: Half, seen: u32, timeout: Duration) -> Result<()> {
        os::wait(self.half(offset, half)?, seen, timeout);
        Ok(())
    }

    /// Wakes all threads, in all processes, that [sleep](Mapping::sleep) on this half of this word.
    pub(crate) fn wake(&self, offset: u64, half: Half) -> Result<()> {
        os::wake(self.half(offset, half)?);
        Ok(())
    }

    fn half(&self, offset: u64, half: Half) -> Result<&AtomicU32> {
        let word: *const Word = self.live_word(offset)?;
        let index = match half {
            Half::Low => 0,
            Half::High => 1,
        };
        // SAFETY: a word is eight bytes, aligned to eight, in a span that lives as long as `self`; it is
        // little-endian, so its low half comes first. It is given to the kernel only, which reads it atomically.
        Ok(unsafe { &*word.cast::<AtomicU32>().add(index) })
    }

    /// Tells the processor that the memory at `offset` is wanted soon. Harmless for any offset.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: Offset) {
        self.window().prefetch(offset);
    }
}

fn refusal(path: &Path, needed: u64, refused: os::Refused) -> Error {
    match refused {
        os::Refused::Full(why) => Error::Full { path: path.to_owned(), needed, why },
        os::Refused::Io(source) => Error::io(path, "extend the file", source),
    }
}

/// Refuses to write a file of `len` bytes without a mapping, if a limit forbids it.
pub(crate) fn check_file_size(path: &Path, max_len: u64, len: u64) -> Result<()> {
    let why = match os::file_size_limit() {
        _ if len > max_len => FullReason::MaxSize(max_len),
        Some(limit) if len > limit => FullReason::FileSizeLimit(limit),
        _ => return Ok(()),
    };
    Err(Error::Full { path: path.to_owned(), needed: len, why })
}

/// The error when there are no addresses for `needed` bytes more than the present `len`.
fn unmapped(path: &Path, needed: u64, len: u64, error: io::Error) -> Error {
    let limit = match error.kind() {
        // An error without a number comes from no limit: the addresses are taken.
        io::ErrorKind::OutOfMemory => os::address_limit().filter(|_| error.raw_os_error().is_some()),
        // This much memory cannot be locked.
        io::ErrorKind::WouldBlock => None,
        _ => return Error::io(path, "map more memory", error),
    };
    let why = limit.map_or(FullReason::AddressSpace(len), FullReason::AddressLimit);
    Error::Full { path: path.to_owned(), needed, why }
}

/// Maps a file.
fn map_file(file: &File, len: u64, protection: Protection) -> io::Result<Span> {
    let most = match cfg!(target_pointer_width = "64") {
        _ if !cfg!(target_os = "linux") => len,
        true => len.saturating_mul(4).max(RESERVE),
        // Old spans stay. Growing by half, all of them together are a few times as long as the file.
        false => len.saturating_add(len / 2),
    };
    map(Shown::File(file, protection), len, most)
}

/// Takes memory of this process. Shrinking a full store may exceed its limit `max_len` for a while, and so may a
/// recovery.
fn map_memory(len: u64, max_len: u64) -> io::Result<Span> {
    map(Shown::Memory, len, max_len.saturating_mul(2).clamp(len, len.saturating_add(MOST_RESERVED)))
}

/// Maps `len` bytes where the span can grow. If there is no such place, up to `most` bytes, as many as the system
/// gives.
fn map(shown: Shown<'_>, len: u64, most: u64) -> io::Result<Span> {
    for len in [with_room(shown, len), len] {
        if let Ok(span) = witness::call(Call::Map).and_then(|()| Span::apart(shown, len)) {
            return Ok(span);
        }
    }
    let mut room = most;
    loop {
        match witness::call(Call::Map).and_then(|()| Span::anywhere(shown, room)) {
            Err(_) if room > len => room = (room / 2).max(len),
            span => return span,
        }
    }
}

/// Reads bytes of a file that is not mapped, or not checked yet.
pub(crate) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    os::read_at(file, offset, bytes)
}

/// Makes a span longer, in place. Under a tight limit, only as long as it has to be.
fn grow(span: &Span, shown: Shown<'_>, len: u64) -> io::Result<()> {
    let grow = |len| witness::call(Call::Map).and_then(|()| span.grow(shown, len));
    grow(with_room(shown, len)).or_else(|_| grow(len))
}

/// The length to map, so that a span grows in few steps. Where a file cannot be mapped past its end, `len` itself.
fn with_room(shown: Shown<'_>, len: u64) -> u64 {
    let may_be_longer = cfg!(target_os = "linux") || matches!(shown, Shown::Memory);
    if may_be_longer { len.saturating_add(len / 4) } else { len }
}

#[cfg(test)]
mod tests;
