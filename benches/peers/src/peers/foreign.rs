//! What the libraries in C have in common: how bytes come from them, and how they say that something went wrong.
#![allow(unsafe_code, reason = "what C hands over are pointers")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};

/// A path as C takes it.
pub(super) fn path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A text of a library.
///
/// # Safety
///
/// It ends with a zero, and stays as it is during this call.
pub(super) unsafe fn text(start: *const c_char) -> String {
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

/// Fails with the library's own words, unless it says that all is well.
pub(super) fn check(library: &str, is_ok: bool, words: impl FnOnce() -> String) -> Result<()> {
    ensure!(is_ok, "{library}: {}", words());
    Ok(())
}

/// Bytes of a library.
///
/// # Safety
///
/// As many are there, and they stay as they are for `'a`.
pub(super) unsafe fn bytes<'a>(start: *const c_char, len: usize) -> &'a [u8] {
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(start.cast(), len) }
}

/// A look-up on its way through a library, which calls back with the value: what is to be done with it, and what came
/// of it.
pub(super) struct LookUp<F, R> {
    found: Option<F>,
    result: Option<R>,
}

impl<F: FnOnce(&[u8]) -> R, R> LookUp<F, R> {
    pub(super) fn new(found: F) -> LookUp<F, R> {
        LookUp { found: Some(found), result: None }
    }

    /// What is handed to the library, to be had again when it calls back.
    pub(super) fn opaque(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }

    /// Has the value.
    ///
    /// # Safety
    ///
    /// `opaque` is that of a look-up of these types, which is there and which nothing else uses meanwhile.
    pub(super) unsafe fn take(opaque: *mut c_void, value: &[u8]) {
        // SAFETY: the caller's.
        let look_up = unsafe { &mut *opaque.cast::<LookUp<F, R>>() };
        look_up.result = look_up.found.take().map(|found| found(value));
    }

    /// What came of it, if there was a value.
    pub(super) fn result(self) -> Option<R> {
        self.result
    }
}

/// Calls what was handed to a library to be called with every entry.
///
/// # Safety
///
/// `opaque` points to an `F`, which is there and which nothing else uses meanwhile.
pub(super) unsafe fn entry<F: FnMut(&[u8], &[u8])>(opaque: *mut c_void, key: &[u8], value: &[u8]) {
    // SAFETY: the caller's.
    let entry = unsafe { &mut *opaque.cast::<F>() };
    entry(key, value);
}
