//! A span: a run of addresses that shows a file, or memory of this process, and can grow where it is.
//!
//! Addresses are taken only when they are needed: a limit on them (`ulimit -v`) counts reserved ones too, a process
//! that [locks](https://man7.org/linux/man-pages/man2/mlock.2.html) its future memory pays for all that is mapped with
//! real memory at once, and a thousand stores that reserve a TiB each find none. So a span is as long as it has to be,
//! and lies [apart](Span::apart): far from all others, so that the addresses after it are free when it has to grow.

use std::fs::File;
use std::io;

/// What can be done with a span of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    ReadOnly,
    ReadWrite,
}

/// What a span shows.
#[derive(Clone, Copy)]
pub(super) enum Shown<'f> {
    /// A file, as all its openers see it.
    File(&'f File, Protection),
    /// Memory of this process, zeros at first. Where the system can do so, it is committed when it is touched, not
    /// before.
    Memory,
}

pub(super) use system::Span;

fn no_addresses() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

#[cfg(unix)]
mod system {
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use super::super::os::{NO_RESERVE, page_size};
    use super::*;

    pub(in super::super) struct Span {
        base: *mut u8,
        /// A multiple of the page size.
        len: AtomicUsize,
    }

    // SAFETY: a span is a range of addresses, which any thread may use and unmap; the mapping governs the accesses.
    unsafe impl Send for Span {}
    // SAFETY: as above.
    unsafe impl Sync for Span {}

    /// The spans that lie apart, as the addresses of their starts and ends.
    static APART: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

    impl Span {
        /// Maps `len` bytes wherever the system puts them.
        pub(in super::super) fn anywhere(shown: Shown<'_>, len: u64) -> io::Result<Span> {
            let len = whole_pages(len)?;
            let base = map(std::ptr::null_mut(), len, shown, 0)?;
            Ok(Span { base, len: AtomicUsize::new(len) })
        }

        /// Maps `len` bytes in the middle of the longest run of addresses that is free, as far as this process knows.
        /// Fails where there are too few addresses for that, or the system takes no hints.
        pub(in super::super) fn apart(shown: Shown<'_>, len: u64) -> io::Result<Span> {
            let len = whole_pages(len)?;
            let mut apart = APART.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(Range { start: from, end: to }) = longest_gap(&apart).filter(|gap| gap.end - gap.start > len)
            else {
                return Err(no_addresses());
            };
            // Other memory may lie in the middle.
            for eighth in [4, 2, 6, 1, 3, 5, 7] {
                let at = (from + (to - from) / 8 * eighth) & !(HUGE_PAGE - 1);
                if let Some(base) = map_at(at as *mut u8, len, shown, 0)? {
                    apart.insert(at, at + len);
                    return Ok(Span { base, len: AtomicUsize::new(len) });
                }
            }
            Err(no_addresses())
        }

        /// Makes it `to` bytes long, in place, if the addresses after it are free. `shown` is what it was made for; it
        /// then shows that as if it had had this length from the beginning. One call at a time.
        pub(in super::super) fn grow(&self, shown: Shown<'_>, to: u64) -> io::Result<()> {
            let (from, to) = (self.len(), whole_pages(to)?);
            if to <= from {
                return Ok(());
            }
            let end = self.base.wrapping_add(from);
            map_at(end, to - from, shown, from as u64)?.ok_or_else(no_addresses)?;
            // Release: a thread that sees the length may use the addresses.
            self.len.store(to, Ordering::Release);
            let mut apart = APART.lock().unwrap_or_else(PoisonError::into_inner);
            apart.entry(self.base.addr()).and_modify(|end| *end = self.base.addr() + to);
            Ok(())
        }

        pub(in super::super) fn as_mut_ptr(&self) -> *mut u8 {
            self.base
        }

        pub(in super::super) fn len(&self) -> usize {
            self.len.load(Ordering::Acquire)
        }

        /// Writes what was changed in a range to the medium.
        pub(in super::super) fn flush_range(&self, offset: usize, len: usize) -> io::Result<()> {
            let end = offset + len;
            assert!(end <= self.len(), "the range lies in the mapping");
            let start = offset / page_size() * page_size();
            // SAFETY: the range lies in this span (asserted), and begins at a page. The call changes nothing of it.
            match unsafe { libc::msync(self.base.add(start).cast(), end - start, libc::MS_SYNC) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    impl Drop for Span {
        fn drop(&mut self) {
            let len = *self.len.get_mut();
            let mut apart = APART.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the `len` bytes from `base` on belong to this span alone, and borrowers of them keep it alive.
            unsafe { libc::munmap(self.base.cast(), len) };
            apart.remove(&self.base.addr());
        }
    }

    fn whole_pages(len: u64) -> io::Result<usize> {
        let len = usize::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(page_size()));
        len.ok_or_else(no_addresses)
    }

    /// Maps what is shown from `offset` on, at `wish` if these addresses are free.
    fn map(wish: *mut u8, len: usize, shown: Shown<'_>, offset: u64) -> io::Result<*mut u8> {
        let read = libc::PROT_READ;
        let (access, flags, descriptor, offset) = match shown {
            Shown::File(file, protection) => {
                let access = match protection {
                    Protection::ReadOnly => read,
                    Protection::ReadWrite => read | libc::PROT_WRITE,
                };
                (access, libc::MAP_SHARED, file.as_raw_fd(), offset)
            }
            Shown::Memory => (read | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE, -1, 0),
        };
        let offset = libc::off_t::try_from(offset).map_err(|_| no_addresses())?;
        // SAFETY: without `MAP_FIXED` this takes addresses that are free; nothing that is mapped changes. `file` keeps
        // its descriptor open during the call.
        let mapped = unsafe { libc::mmap(wish.cast(), len, access, flags, descriptor, offset) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped.cast()) }
    }

    /// The same at `at` and nowhere else; `None` if the system has put it elsewhere.
    fn map_at(at: *mut u8, len: usize, shown: Shown<'_>, offset: u64) -> io::Result<Option<*mut u8>> {
        let mapped = map(at, len, shown, offset)?;
        if mapped == at {
            return Ok(Some(mapped));
        }
        // SAFETY: it was mapped just now, and no reference into it exists.
        unsafe { libc::munmap(mapped.cast(), len) };
        Ok(None)
    }

    /// So that the system can use large pages.
    const HUGE_PAGE: usize = 2 << 20;

    /// Addresses that systems with 47 bits of them leave alone: stacks, libraries and allocations lie above, programs
    /// with their heaps above or below.
    const PLACES: Range<u64> = 0x1000_0000_0000..0x5000_0000_0000;

    /// The longest run of addresses between spans that lie apart. Its start is random, so that the address of the
    /// content of a file cannot be predicted.
    fn longest_gap(apart: &BTreeMap<usize, usize>) -> Option<Range<usize>> {
        static BEGIN: OnceLock<u64> = OnceLock::new();

        let shift = BEGIN.get_or_init(|| getrandom::u64().unwrap_or(0) % ((PLACES.end - PLACES.start) / 4));
        // With 32 bits there are too few.
        let (begin, end) = (usize::try_from(PLACES.start + shift).ok()?, usize::try_from(PLACES.end).ok()?);
        let ends = std::iter::once(begin).chain(apart.values().copied());
        let starts = apart.keys().copied().chain(std::iter::once(end));
        let gaps = ends.zip(starts).map(|(from, to)| from..to);
        gaps.max_by_key(|gap| gap.end.saturating_sub(gap.start))
    }
}

#[cfg(not(unix))]
mod system {
    use memmap2::{MmapOptions, MmapRaw};

    use super::*;

    pub(in super::super) struct Span(MmapRaw);

    impl Span {
        pub(in super::super) fn anywhere(shown: Shown<'_>, len: u64) -> io::Result<Span> {
            let len = usize::try_from(len).map_err(|_| no_addresses())?;
            let options = MmapOptions::new().len(len).clone();
            let mapped = match shown {
                Shown::File(file, Protection::ReadOnly) => options.map_raw_read_only(file)?,
                Shown::File(file, Protection::ReadWrite) => options.map_raw(file)?,
                Shown::Memory => options.map_anon()?.into(),
            };
            Ok(Span(mapped))
        }

        /// The system has no call for that.
        pub(in super::super) fn apart(_shown: Shown<'_>, _len: u64) -> io::Result<Span> {
            Err(no_addresses())
        }

        /// The system has no call for that.
        pub(in super::super) fn grow(&self, _shown: Shown<'_>, to: u64) -> io::Result<()> {
            if to <= self.len() as u64 { Ok(()) } else { Err(no_addresses()) }
        }

        pub(in super::super) fn as_mut_ptr(&self) -> *mut u8 {
            self.0.as_mut_ptr()
        }

        pub(in super::super) fn len(&self) -> usize {
            self.0.len()
        }

        pub(in super::super) fn flush_range(&self, offset: usize, len: usize) -> io::Result<()> {
            self.0.flush_range(offset, len)
        }
    }
}
