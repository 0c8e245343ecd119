//! Tkrzw's hash database, through the C interface of the system's library (`tkrzw_langc.h`).
#![allow(unsafe_code, reason = "the library is in C++, and its interface in C")]

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use anyhow::Result;

use super::foreign::{self, LookUp};
use super::{Access, Durability, Facts, Peer, Place, View};
use crate::data::{Batch, Key};

/// The status for a missing key.
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

/// It has no `Drop`, which could not report errors: a process that fails ends with its store open.
pub(crate) struct Tkrzw {
    database: *mut c_void,
    durability: Durability,
}

// SAFETY: all functions of the library's database objects may be called from several threads at the same time.
unsafe impl Sync for Tkrzw {}

fn check(is_ok: bool) -> Result<()> {
    // SAFETY: the message is this thread's, and stays as it is until its next call of the library.
    foreign::check("tkrzw", is_ok, || unsafe { foreign::text(tkrzw_get_last_status_message()) })
}

unsafe extern "C" fn one<F: FnOnce(&[u8]) -> R, R>(
    opaque: *mut c_void,
    _: *const c_char,
    _: i32,
    value: *const c_char,
    len: i32,
    _: *mut i32,
) -> *const c_char {
    // SAFETY: the library passes start and length of the value, if there is one, which stays as it is during this
    // call, and what `look_up` gave it: a look-up of these types. The answer is a constant of the library.
    unsafe {
        if !value.is_null() {
            LookUp::<F, R>::take(opaque, foreign::bytes(value, len as usize));
        }
        TKRZW_REC_PROC_NOOP
    }
}

unsafe extern "C" fn each<F: FnMut(&[u8], &[u8])>(
    opaque: *mut c_void,
    key: *const c_char,
    key_len: i32,
    value: *const c_char,
    value_len: i32,
    _: *mut i32,
) -> *const c_char {
    // SAFETY: the library passes starts and lengths of key and value, which stay as they are during this call, and
    // what `iterate` gave it: an `F`. It also calls before the first entry and after the last, with nothing. The answer
    // is a constant of the library.
    unsafe {
        if !key.is_null() && !value.is_null() {
            let (key, value) = (foreign::bytes(key, key_len as usize), foreign::bytes(value, value_len as usize));
            foreign::entry::<F>(opaque, key, value);
        }
        TKRZW_REC_PROC_NOOP
    }
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
        let mut look_up = LookUp::new(found);
        // SAFETY: the database is there until this is closed; key and look-up are there during the call, and the
        // callback expects a look-up of these types.
        check(unsafe {
            let opaque = look_up.opaque();
            tkrzw_dbm_process(self.database, key.as_ptr().cast(), key.len() as i32, one::<F, R>, opaque, false)
        })?;
        Ok(look_up.result())
    }

    fn iterate<F: FnMut(&[u8], &[u8])>(&self, mut entry: F) -> Result<()> {
        // SAFETY: the database is there until this is closed, `entry` during the call; the callback expects its type.
        check(unsafe { tkrzw_dbm_process_each(self.database, each::<F>, (&raw mut entry).cast(), false) })
    }
}

impl Peer for Tkrzw {
    type View<'v> = &'v Tkrzw;

    fn facts() -> Facts {
        // SAFETY: a constant of the library.
        let version = unsafe { foreign::text(TKRZW_PACKAGE_VERSION) };
        let settings = "`HashDBM`; two buckets a key";
        Facts {
            longest_value: i32::MAX as usize,
            ..Facts::on_disk("tkrzw", version, settings, "`Synchronize(hard)` after each")
        }
    }

    fn open(place: &Place<'_>) -> Result<Tkrzw> {
        let path = foreign::path(&place.folder.join("store.tkh"))?;
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

    fn close(self) -> Result<()> {
        // SAFETY: this is the only owner of the database, and gives it up here.
        check(unsafe { tkrzw_dbm_close(self.database) })
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
