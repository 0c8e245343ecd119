//! A window: where the bytes of a mapping are at one time, for several accesses in a row.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use zerocopy::little_endian::U64;

use super::{EXTENTS, Mapping, Offset, Word};

/// Address and length of a mapping, loaded once. Each access is checked against that length, so bytes added since lie
/// outside; the caller then asks the [`Mapping`], which looks again.
///
/// It is taken for a few steps and not kept, since the file can be shortened where nothing is read.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    base: NonNull<u8>,
    /// At least [`EXTENTS`].
    len: u64,
    mapping: PhantomData<&'a Mapping>,
}

impl Mapping {
    /// The window as of now.
    #[inline(always)]
    pub(crate) fn window(&self) -> Window<'_> {
        // Length before base: a base that is newer than the length covers it all the same.
        let len = self.len.load(Ordering::Acquire);
        let base = self.base.load(Ordering::Acquire);
        // SAFETY: no span begins at address zero. Said twice, since the compiler forgets it for a `NonNull`.
        let base = unsafe {
            std::hint::assert_unchecked(!base.is_null());
            NonNull::new_unchecked(base)
        };
        // SAFETY: no mapping is ever shorter (see `Mapped`, `refresh`, `truncate` and the seal). So a word before the
        // extents needs no check.
        unsafe { std::hint::assert_unchecked(len >= EXTENTS) };
        Window { base, len, mapping: PhantomData }
    }
}

impl<'a> Window<'a> {
    /// The address of `N` words, if they lie in the window and `offset` is a multiple of 8.
    #[inline(always)]
    fn address_of_words<const N: usize>(self, offset: u64) -> Option<NonNull<u8>> {
        const { assert!(N as u64 * 8 <= EXTENTS, "no mapping is shorter than that") };
        if offset > self.len - N as u64 * 8 || !offset.is_multiple_of(8) {
            return None;
        }
        // SAFETY: the length is at least `EXTENTS` (see `Mapped`), so the difference is that; `offset + 8 * N` is
        // at most the length, so the result lies inside the span that `base` belongs to and inside the file.
        Some(unsafe { self.base.add(offset as usize) })
    }

    /// The `N` words at `offset`, a multiple of 8; see [`Mapping::words`].
    #[inline(always)]
    pub(crate) fn words<const N: usize>(self, offset: u64) -> Option<&'a [Word; N]> {
        let address = self.address_of_words::<N>(offset)?;
        // SAFETY: `address` points to `N` words of a span that lives as long as the mapping; spans start at a page
        // and `offset` is a multiple of 8, so they are aligned. Words are only ever accessed as atomics.
        Some(unsafe { address.cast::<[Word; N]>().as_ref() })
    }

    /// The value of a word before the extents, which are in every window; see [`Word::load`]. Zero for a word outside.
    #[inline(always)]
    pub(crate) fn live(self, offset: u64) -> u64 {
        self.words(offset).map_or(0, |[word]| word.load())
    }

    /// `N` words among bytes that were published and no longer change, at `offset`, a multiple of 8; see
    /// [`Mapping::frozen`].
    #[inline(always)]
    pub(crate) fn frozen_words<const N: usize>(self, offset: Offset) -> Option<&'a [U64; N]> {
        let address = self.address_of_words::<N>(offset.0)?;
        // SAFETY: `address` points to `8 * N` bytes of a span that lives as long as the mapping, any bytes are a
        // `U64`, which needs no alignment, and these do not change while borrowed: see the module's documentation.
        Some(unsafe { address.cast::<[U64; N]>().as_ref() })
    }

    /// Bytes that were published and no longer change; see [`Mapping::frozen`].
    #[inline(always)]
    pub(crate) fn frozen(self, offset: Offset, len: u64) -> Option<&'a [u8]> {
        if offset.0.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset + len` is at most the length, so these bytes lie inside the span that `base` belongs to,
        // which lives as long as the mapping, and inside the file; so `len` fits into a `usize`. They do not change
        // while borrowed: see the module's documentation.
        Some(unsafe { std::slice::from_raw_parts(self.base.add(offset.0 as usize).as_ptr(), len as usize) })
    }

    /// Tells the processor that the memory at `offset` is wanted soon. Harmless for any offset.
    #[inline(always)]
    pub(crate) fn prefetch(self, offset: Offset) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch is a hint; it accesses nothing and faults on no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().wrapping_add(offset.0 as usize).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }
}
