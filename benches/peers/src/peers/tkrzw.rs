//! Tkrzw's hash database, through the C interface of the system's library (`tkrzw_langc.h`).
#![allow(unsafe_code, reason = "the library is in C++, and its interface in C")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use anyhow::{Result, bail};

use super::{Access, Durability, Facts, Peer, Place, View};
use crate::data::{Batch, Key};

/// The status that a key has no value.
const NOT_FOUND: i32 = 7;

/// A `TkrzwKeyValuePair`.
#[repr(C)]
struct Record {
    key: *const c_char,
    key_len: i32,
    value: *const c_char,
    value_len: i32,
}

type Process = unsafe extern "C" fn(*mut c_void, *const c_char, i32, *const c_char, i32, *mut i32) -> *const c_char;

#[link(name = "tkrzw")]
unsafe extern "C" {
    static TKRZW_PACKAGE_VERSION: *const c_char;
    static TKRZW_REC_PROC_NOOP: *const c_char;
    fn tkrzw_get_last_status_code() -> i32;
    fn tkrzw_get_last_status_message() -> *const c_char;
    fn tkrzw_dbm_open(path: *const c_char, writable: bool, params: *const c_char) -> *mut c_void;
    fn tkrzw_dbm_close(database: *mut c_void) -> bool;
    fn tkrzw_dbm_process(
        database: *mut c_void,
        key: *const c_char,
        len: i32,
        process: Process,
        opaque: *mut c_void,
        writable: bool,
    ) -> bool;
    fn tkrzw_dbm_set(
        database: *mut c_void,
        key: *const c_char,
        len: i32,
        value: *const c_char,
        value_len: i32,
        overwrite: bool,
    ) -> bool;
    fn tkrzw_dbm_set_multi(database: *mut c_void, records: *const Record, count: i32, overwrite: bool) -> bool;
    fn tkrzw_dbm_remove(database: *mut c_void, key: *const c_char, len: i32) -> bool;
    fn tkrzw_dbm_process_each(database: *mut c_void, process: Process, opaque: *mut c_void, writable: bool) -> bool;
    fn tkrzw_dbm_synchronize(
        database: *mut c_void,
        hard: bool,
        process: *const c_void,
        opaque: *mut c_void,
        params: *const c_char,
    ) -> bool;
}

pub(crate) struct Tkrzw {
    database: *mut c_void,
    durability: Durability,
}

// SAFETY: all functions of the library's database objects may be called from several threads at the same time.
unsafe impl Sync for Tkrzw {}

/// An error, if the library has reported one.
fn check(is_ok: bool) -> Result<()> {
    if is_ok {
        return Ok(());
    }
    // SAFETY: the message is this thread's, and stays as it is until its next call of the library.
    bail!("tkrzw: {}", unsafe { CStr::from_ptr(tkrzw_get_last_status_message()) }.to_string_lossy())
}

/// A look-up on its way through the library: what is to be done with the value, and what came of it.
struct LookUp<F, R> {
    found: Option<F>,
    result: Option<R>,
}

unsafe extern "C" fn one<F: FnOnce(&[u8]) -> R, R>(
    opaque: *mut c_void,
    _: *const c_char,
    _: i32,
    value: *const c_char,
    len: i32,
    _: *mut i32,
) -> *const c_char {
    if !value.is_null() {
        // SAFETY: `look_up` passes a `LookUp` of these types, which nothing else uses during its call.
        let look_up = unsafe { &mut *opaque.cast::<LookUp<F, R>>() };
        // SAFETY: the library passes start and length of the value, which stays as it is during this call.
        let value = unsafe { std::slice::from_raw_parts(value.cast(), len as usize) };
        look_up.result = look_up.found.take().map(|found| found(value));
    }
    // SAFETY: a constant of the library.
    unsafe { TKRZW_REC_PROC_NOOP }
}

unsafe extern "C" fn each<F: FnMut(&[u8], &[u8])>(
    opaque: *mut c_void,
    key: *const c_char,
    key_len: i32,
    value: *const c_char,
    value_len: i32,
    _: *mut i32,
) -> *const c_char {
    // It is also called before the first entry and after the last, without one.
    if !key.is_null() && !value.is_null() {
        // SAFETY: `iterate` passes an `F`, which nothing else uses during its call.
        let entry = unsafe { &mut *opaque.cast::<F>() };
        // SAFETY: the library passes starts and lengths of key and value, which stay as they are during this call.
        let (key, value) = unsafe {
            let key = std::slice::from_raw_parts(key.cast(), key_len as usize);
            (key, std::slice::from_raw_parts(value.cast(), value_len as usize))
        };
        entry(key, value);
    }
    // SAFETY: a constant of the library.
    unsafe { TKRZW_REC_PROC_NOOP }
}

impl Tkrzw {
    fn sync_to_disk(&self) -> Result<()> {
        // SAFETY: the database is there until this is closed; without a process there is nothing opaque.
        check(unsafe { tkrzw_dbm_synchronize(self.database, true, ptr::null(), ptr::null_mut(), c"".as_ptr()) })
    }

    fn after_put(&self) -> Result<()> {
        if self.durability == Durability::Synced { self.sync_to_disk() } else { Ok(()) }
    }

    fn look_up<R, F: FnOnce(&[u8]) -> R>(&self, key: &Key, found: F) -> Result<Option<R>> {
        let mut look_up = LookUp { found: Some(found), result: None };
        // SAFETY: the database is there until this is closed; key and look-up are there during the call, and the
        // callback expects a look-up of these types.
        check(unsafe {
            let opaque = (&raw mut look_up).cast();
            tkrzw_dbm_process(self.database, key.as_ptr().cast(), key.len() as i32, one::<F, R>, opaque, false)
        })?;
        Ok(look_up.result)
    }

    fn iterate<F: FnMut(&[u8], &[u8])>(&self, mut entry: F) -> Result<()> {
        // SAFETY: the database is there until this is closed, `entry` during the call; the callback expects its type.
        check(unsafe { tkrzw_dbm_process_each(self.database, each::<F>, (&raw mut entry).cast(), false) })
    }
}

impl Peer for Tkrzw {
    type View<'v> = &'v Tkrzw;

    fn facts() -> Facts {
        Facts {
            name: "tkrzw",
            // SAFETY: a constant of the library.
            version: unsafe { CStr::from_ptr(TKRZW_PACKAGE_VERSION) }.to_string_lossy().into_owned(),
            settings: "`HashDBM`; two buckets a key",
            buffered: "a kill",
            survives_kill: true,
            synced: "`Synchronize(hard)` after each",
            is_lasting: true,
            shares: true,
            longest_value: i32::MAX as usize,
            skips: &[],
        }
    }

    fn open(place: &Place<'_>) -> Result<Tkrzw> {
        let path = CString::new(place.folder.join("store.tkh").as_os_str().as_bytes())?;
        let params = CString::new(format!("num_buckets={}", place.keys * 2))?;
        // SAFETY: path and parameters end with a zero.
        let database = unsafe { tkrzw_dbm_open(path.as_ptr(), place.access == Access::Write, params.as_ptr()) };
        check(!database.is_null())?;
        Ok(Tkrzw { database, durability: place.durability })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let (key, key_len, value_len) = (key.as_ptr().cast(), key.len() as i32, value.len() as i32);
        // SAFETY: the database is there until this is closed, key and value during the call.
        check(unsafe { tkrzw_dbm_set(self.database, key, key_len, value.as_ptr().cast(), value_len, true) })?;
        self.after_put()
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let record = |(key, value): (&Key, &[u8])| Record {
            key: key.as_ptr().cast(),
            key_len: key.len() as i32,
            value: value.as_ptr().cast(),
            value_len: value.len() as i32,
        };
        let records: Vec<Record> = batch.iter().map(record).collect();
        // SAFETY: the database is there until this is closed; the records and the batch to which they point, during
        // the call.
        check(unsafe { tkrzw_dbm_set_multi(self.database, records.as_ptr(), records.len() as i32, true) })?;
        self.after_put()
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        // SAFETY: the database is there until this is closed, the key during the call.
        check(unsafe {
            tkrzw_dbm_remove(self.database, key.as_ptr().cast(), key.len() as i32)
                || tkrzw_get_last_status_code() == NOT_FOUND
        })?;
        self.after_put()
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look_up(key, found)
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Tkrzw) -> Result<R>) -> Result<R> {
        work(&mut &*self)
    }

    fn sync(&mut self) -> Result<()> {
        self.sync_to_disk()
    }

    fn close(mut self) -> Result<()> {
        let database = std::mem::replace(&mut self.database, ptr::null_mut());
        // SAFETY: this is the only owner of the database, and gives it up here.
        check(unsafe { tkrzw_dbm_close(database) })
    }
}

impl Drop for Tkrzw {
    fn drop(&mut self) {
        if !self.database.is_null() {
            // SAFETY: this is the only owner of the database.
            unsafe { tkrzw_dbm_close(self.database) };
        }
    }
}

impl View for &Tkrzw {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look_up(key, found)
    }

    fn for_each(&mut self, entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.iterate(entry)
    }
}
