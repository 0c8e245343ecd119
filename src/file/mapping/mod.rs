//! The mapping: the file as memory, and the one door through which it changes.
//!
//! Readers get three things from here: atomic words ([`Mapping::word`], [`Mapping::words`]; a [`Word`] can only be
//! loaded), bytes that can change no more ([`Mapping::frozen`]) and headers among them ([`Mapping::header`]). Every
//! access is checked against the length of the file. Writers go through the door, the methods
//! [`write`](Mapping::write), [`store`](Mapping::store), [`append`](Mapping::append),
//! [`compare_exchange`](Mapping::compare_exchange), [`flush`](Mapping::flush) and [`allocate`](Mapping::allocate), and
//! nothing else changes the file; a test build can put a [recorder](super::witness) behind it.
//!
//! # Why the references are sound
//!
//! * The base pointer belongs to a [span] that stays mapped as long as the `Mapping` lives. It grows where it is; where
//!   the addresses behind it are taken, a file is mapped anew, and the old spans stay. Those grow geometrically, so they
//!   are few.
//! * The last block of a file is the [seal](super::layout#the-seal), and behind the length that callers see. The
//!   mapping covers it as well.
//! * The length is raised only after the file has been extended, by us or by another process, and the mapping covers
//!   it. The file is made shorter, by us or by another process, only where nobody looks: what is cut off is in no use,
//!   no pin covers it, and nobody has the store open who reads without pins. The mapping goes on behind its end.
//! * Nothing hands out `&mut` to the mapping, nor `&` to what may still change, words excepted, and those are atomics.
//! * The trust boundary, stated in the crate's documentation: nobody but slotlog changes or truncates the file while it
//!   is open. Within that, callers of [`Mapping::frozen`] ask only for bytes that were published, by a release store of
//!   the slot or the commit point through which they found them, and that are not reused while they look (they hold a
//!   pin or the writer lock).
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
pub(crate) use tags::tagged;
pub(crate) use window::Window;

#[cfg(not(target_has_atomic = "64"))]
compile_error!("slotlog needs native 64-bit atomics, which this target does not have");

#[cfg(not(any(unix, windows)))]
compile_error!("slotlog needs a system that maps files and locks bytes of them: Linux, macOS or Windows");

/// How many addresses a mapping of a file takes at least that cannot grow where it is, if it may be longer than its
/// file.
const RESERVE: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// How many addresses memory in place of a file takes at most beyond what it has to begin with, if it cannot grow where
/// it is. With 32 bits there are few, and they must not all go to one store. Tests have many stores at a time, some of
/// them in an emulator that keeps a note of each page.
const MOST_RESERVED: u64 = if cfg!(test) {
    1 << 30
} else if usize::BITS < 64 {
    512 << 20
} else {
    64 << 30
};

/// A word that may change at any time: an atomic, of which everybody can load and only the door can store. It is
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
            // It knows nothing of fences.
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

/// Half of a [`Word`]: what a sleeper can watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Low,
    High,
}

/// The shortest file: the part in front of the extents, and the seal.
const LEAST_FILE: u64 = EXTENTS + BLOCK;

/// How much of a file of so many bytes lies before its seal. One that was cut off has none.
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
    /// The last block is the seal. A mapping that is no file has none, nor is one looked for in a recovery.
    sealed: AtomicBool,
    path: PathBuf,
    max_len: u64,
    /// By how many bytes it may exceed that now.
    excess: AtomicU64,
    /// What is written to the file shows in the mapping at once, and the other way round.
    coherent: bool,
    /// A flush has failed.
    flush_failed: AtomicBool,
    #[cfg(test)]
    recorder: std::sync::OnceLock<std::sync::Arc<dyn witness::Recorder>>,
}

enum Backing {
    File(File),
    ReadOnlyFile(File),
    /// Memory of this process: anonymous, or behind a file whose pages are copied when they are written to. That file
    /// stays open, since a forked child makes a descriptor from it; so many bytes of it were put in place.
    Memory {
        behind: Option<(File, u64)>,
    },
}

/// What is there when a mapping begins.
struct Mapped {
    span: Span,
    /// So many bytes mapping and file have at least, and that is at least [`EXTENTS`].
    len: u64,
    /// Span and file have a block more, the seal.
    sealed: bool,
}

impl Mapping {
    /// Maps `file`. One that is to be written to gets real space behind all of it; a shorter one is made as long as the
    /// part in front of the extents and the seal.
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
            // A copy may have holes wherever there are zeros. Before anything is stored there, or even looked at: of a
            // file in memory, that takes space. To find out that nothing is to be done takes one look; where the system
            // has no call for the rest, that is all.
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

    /// Anonymous memory as long as the part in front of the extents, all zeros, that can grow to `max_len` if the
    /// system has that much to promise.
    pub(crate) fn in_memory(max_len: u64) -> Result<Mapping> {
        let path = PathBuf::from("(in memory)");
        let span = map_memory(EXTENTS, max_len).map_err(|e| unmapped(&path, EXTENTS, 0, e))?;
        let mapped = Mapped { span, len: EXTENTS, sealed: false };
        Ok(Mapping::new(mapped, Backing::Memory { behind: None }, path, max_len))
    }

    /// The content of a file that is mapped for reading, as memory of this process: what is changed and what is added,
    /// up to `max_len`, stays here. Nobody else may change the file meanwhile.
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
        // Of the file systems that other machines may have open, not all keep file and mapping the same.
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

    /// The file that this is, or that it was before it became memory of this process.
    pub(crate) fn file_behind(&self) -> Option<&File> {
        match &self.backing {
            Backing::Memory { behind } => behind.as_ref().map(|(file, _)| file),
            Backing::File(file) | Backing::ReadOnlyFile(file) => Some(file),
        }
    }

    /// Bytes that can be accessed. The seal of a file lies behind them.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// The most bytes that there may ever be.
    pub(crate) fn max_len(&self) -> u64 {
        self.max_len
    }

    /// Takes a step that may make it by so many bytes longer than its owner has set. Only for the holder of the writer
    /// lock.
    pub(crate) fn exceeding<R>(&self, bytes: u64, step: impl FnOnce() -> R) -> R {
        struct Restore<'r>(&'r AtomicU64, u64);

        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.store(self.1, Ordering::Relaxed);
            }
        }
        // Whatever becomes of the step.
        let _restore = Restore(&self.excess, self.excess.swap(bytes, Ordering::Relaxed));
        step()
    }

    /// What tells this page cache from another; `None` if the system cannot say.
    pub(crate) fn identity(&self) -> Option<[u64; 6]> {
        self.file().and_then(os::identity)
    }

    /// Marks the file for as long as its page cache lives: an identity that a disk has not that was pulled and plugged
    /// in again, and that is the same in each mount namespace.
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

    /// The address of bytes behind the end that we know: another process may have made the file longer.
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

    /// Looks how long the file is by now, and maps it anew if it has outgrown the mapping. Returns its length up to the
    /// seal.
    pub(crate) fn refresh(&self) -> Result<u64> {
        let Some(file) = self.file() else { return Ok(self.len()) };
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = os::len(file).map_err(|e| Error::io(&self.path, "read the length", e))?;
        let len = if self.seal_len() > 0 { before_seal(whole) } else { whole };
        if len != self.len() && len >= EXTENTS {
            let covered = self.cover(&mut spans, file, whole);
            covered.map_err(|e| Error::io(&self.path, "map the longer file into memory", os::naming_limit(e)))?;
            // Release: whoever sees the new length sees a base that covers it.
            self.len.store(len, Ordering::Release);
        }
        Ok(len)
    }

    /// Sees to it that the span in use has at least `len` bytes.
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

    /// The word at `offset`, a multiple of 8, in front of the extents. Every mapping is at least that long, so for an
    /// offset that the compiler knows nothing is left to check.
    #[inline(always)]
    pub(crate) fn live_word(&self, offset: u64) -> Result<&Word> {
        if !offset.is_multiple_of(8) || offset >= EXTENTS {
            return Err(self.misaligned(offset));
        }
        // SAFETY: the span that `base` belongs to has at least `EXTENTS` bytes, which is a multiple of 8, and so
        // does the file (see `Mapped`); `offset` is a smaller multiple of 8. The rest as in `words`.
        Ok(unsafe { &*self.base.load(Ordering::Acquire).add(offset as usize).cast::<Word>() })
    }

    /// The value of a word in front of the extents; see [`Word::load`].
    #[inline(always)]
    pub(crate) fn live(&self, offset: u64) -> Result<u64> {
        Ok(self.live_word(offset)?.load())
    }

    /// The sequence number in a word in front of the extents.
    #[inline(always)]
    pub(crate) fn live_seq(&self, offset: u64) -> Result<Seq> {
        Ok(Seq(self.live(offset)?))
    }

    /// The place that a word in front of the extents names.
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

    /// `M` rows of `N` words each, one behind the other, at `offset`, a multiple of 8.
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

    /// Bytes that were published and can change no more.
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

    /// A copy of bytes that may change while they are copied, from `offset`, a multiple of 8, on. They are taken word
    /// by word, so a change shows as a mixture of old and new words; whoever asks for this has a way to find that out.
    pub(crate) fn copy(&self, offset: Offset, len: u64) -> Result<Vec<u8>> {
        // So that a damaged length is an error before it is a lot of memory.
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

    /// Sleeps while one half of a word in front of the extents has the value `seen`, until somebody
    /// [wakes](Mapping::wake) it or `timeout` is over; sometimes for no reason. Where the system cannot wake other
    /// processes it sleeps a little.
    pub(crate) fn sleep(&self, offset: u64, half: Half, seen: u32, timeout: Duration) -> Result<()> {
        os::wait(self.half(offset, half)?, seen, timeout);
        Ok(())
    }

    /// Wakes everybody, in all processes, who [sleeps](Mapping::sleep) on this half of this word.
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

/// Refuses a file of `len` bytes that is to be written without a mapping, if a limit forbids it.
pub(crate) fn check_file_size(path: &Path, max_len: u64, len: u64) -> Result<()> {
    let why = match os::file_size_limit() {
        _ if len > max_len => FullReason::MaxSize(max_len),
        Some(limit) if len > limit => FullReason::FileSizeLimit(limit),
        _ => return Ok(()),
    };
    Err(Error::Full { path: path.to_owned(), needed: len, why })
}

/// What a store is told that gets no addresses for `needed` bytes more than the `len` that it has.
fn unmapped(path: &Path, needed: u64, len: u64, error: io::Error) -> Error {
    let limit = match error.kind() {
        // One without a number comes from no limit: the addresses are taken.
        io::ErrorKind::OutOfMemory => os::address_limit().filter(|_| error.raw_os_error().is_some()),
        // So much memory cannot be locked.
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
        // Old spans stay: so many that all of them together are a few times as long as the file.
        false => len.saturating_add(len / 2),
    };
    map(Shown::File(file, protection), len, most)
}

/// Takes memory of this process. What makes a full store smaller may exceed its limit `max_len` for a while, and so may
/// a recovery.
fn map_memory(len: u64, max_len: u64) -> io::Result<Span> {
    map(Shown::Memory, len, max_len.saturating_mul(2).clamp(len, len.saturating_add(MOST_RESERVED)))
}

/// Maps `len` bytes where it can be more later. If there is no such place, up to `most`, as much of that as the system
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

/// Reads bytes of a file of which nothing is known.
pub(crate) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    os::read_at(file, offset, bytes)
}

/// Makes a span longer, where it is. Under a tight limit, only as long as it has to be.
fn grow(span: &Span, shown: Shown<'_>, len: u64) -> io::Result<()> {
    let grow = |len| witness::call(Call::Map).and_then(|()| span.grow(shown, len));
    grow(with_room(shown, len)).or_else(|_| grow(len))
}

/// So that a span grows in few steps. Where the system does not allow it, a file is not mapped beyond its end.
fn with_room(shown: Shown<'_>, len: u64) -> u64 {
    let may_be_longer = cfg!(target_os = "linux") || matches!(shown, Shown::Memory);
    if may_be_longer { len.saturating_add(len / 4) } else { len }
}

#[cfg(test)]
mod tests;
