//! Shared by the libraries in C: conversion of their bytes and of their errors.
#![allow(unsafe_code, reason = "what C hands over are pointers")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};

/// A path as a C string.
pub(super) fn path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A text of a library.
///
/// # Safety
///
/// It ends with a zero, and does not change during this call.
pub(super) unsafe fn text(start: *const c_char) -> String {
    // SAFETY: the caller upholds the contract of this function.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

/// Fails with the library's message unless `is_ok`.
pub(super) fn check(library: &str, is_ok: bool, words: impl FnOnce() -> String) -> Result<()> {
    ensure!(is_ok, "{library}: {}", words());
    Ok(())
}

/// Bytes of a library.
///
/// # Safety
///
/// `len` bytes are there, and do not change for `'a`.
pub(super) unsafe fn bytes<'a>(start: *const c_char, len: usize) -> &'a [u8] {
    // SAFETY: the caller upholds the contract of this function.
    unsafe { std::slice::from_raw_parts(start.cast(), len) }
}

/// A look-up in progress within a library, which calls back with the value: holds the function to call, and its result.
pub(super) struct LookUp<F, R> {
    found: Option<F>,
    result: Option<R>,
}

impl<F: FnOnce(&[u8]) -> R, R> LookUp<F, R> {
    pub(super) fn new(found: F) -> LookUp<F, R> {
        LookUp { found: Some(found), result: None }
    }

    /// The pointer to pass to the library, which comes back with the call.
    pub(super) fn opaque(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }

    /// Receives the value.
    ///
    /// # Safety
    ///
    /// `opaque` comes from a live look-up of these types that is not used otherwise meanwhile.
    pub(super) unsafe fn take(opaque: *mut c_void, value: &[u8]) {
        // SAFETY: the caller upholds the contract of this function.
        let look_up = unsafe { &mut *opaque.cast::<LookUp<F, R>>() };
        look_up.result = look_up.found.take().map(|found| found(value));
    }

    /// The result, if there was a value.
    pub(super) fn result(self) -> Option<R> {
        self.result
    }
}

/// Calls the function that a library received for every entry.
///
/// # Safety
///
/// `opaque` points to a live `F` that is not used otherwise meanwhile.
pub(super) unsafe fn entry<F: FnMut(&[u8], &[u8])>(opaque: *mut c_void, key: &[u8], value: &[u8]) {
    // SAFETY: the caller upholds the contract of this function.
    let entry = unsafe { &mut *opaque.cast::<F>() };
    entry(key, value);
}
