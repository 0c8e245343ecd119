//! Kyoto Cabinet's hash database, through the C interface of the system's library (`kclangc.h`).
#![allow(unsafe_code, reason = "the library is in C++, and its interface in C")]

use std::ffi::{c_char, c_void};
use std::ptr;

use anyhow::{Result, ensure};

use super::foreign::{self, LookUp};
use super::{Access, Durability, Facts, Peer, Place, View};
use crate::data::{Batch, Key};

const READER: u32 = 1 << 0;
const WRITER: u32 = 1 << 1;
const CREATE: u32 = 1 << 2;
/// The error code for a missing key.
const NO_RECORD: i32 = 7;

/// A `KCSTR`.
#[repr(C)]
struct Bytes {
    start: *const c_char,
    len: usize,
}

/// A `KCREC`.
#[repr(C)]
struct Record {
    key: Bytes,
    value: Bytes,
}

type VisitFull =
    unsafe extern "C" fn(*const c_char, usize, *const c_char, usize, *mut usize, *mut c_void) -> *const c_char;
type VisitEmpty = unsafe extern "C" fn(*const c_char, usize, *mut usize, *mut c_void) -> *const c_char;

#[link(name = "kyotocabinet")]
unsafe extern "C" {
    static KCVERSION: *const c_char;
    static KCVISNOP: *const c_char;
    fn kcdbnew() -> *mut c_void;
    fn kcdbdel(database: *mut c_void);
    fn kcdbopen(database: *mut c_void, path: *const c_char, mode: u32) -> i32;
    fn kcdbclose(database: *mut c_void) -> i32;
    fn kcdbecode(database: *mut c_void) -> i32;
    fn kcdbemsg(database: *mut c_void) -> *const c_char;
    fn kcdbset(database: *mut c_void, key: *const c_char, len: usize, value: *const c_char, value_len: usize) -> i32;
    fn kcdbsetbulk(database: *mut c_void, records: *const Record, count: usize, atomic: i32) -> i64;
    fn kcdbremove(database: *mut c_void, key: *const c_char, len: usize) -> i32;
    fn kcdbaccept(
        database: *mut c_void,
        key: *const c_char,
        len: usize,
        full: VisitFull,
        empty: VisitEmpty,
        opaque: *mut c_void,
        writable: i32,
    ) -> i32;
    fn kcdbiterate(database: *mut c_void, full: VisitFull, opaque: *mut c_void, writable: i32) -> i32;
    fn kcdbsync(database: *mut c_void, hard: i32, process: *const c_void, opaque: *mut c_void) -> i32;
}

/// It has no `Drop`, which could not report errors: a process that fails ends with its store open.
pub(crate) struct Kyoto {
    database: *mut c_void,
    durability: Durability,
}

// SAFETY: all functions of the library's database objects may be called from several threads at the same time.
unsafe impl Sync for Kyoto {}

unsafe extern "C" fn full<F: FnOnce(&[u8]) -> R, R>(
    _: *const c_char,
    _: usize,
    value: *const c_char,
    len: usize,
    _: *mut usize,
    opaque: *mut c_void,
) -> *const c_char {
    // SAFETY: the library passes start and length of the value, which stays as it is during this call, and what
    // `look_up` gave it: a look-up of these types. The answer is a constant of the library.
    unsafe {
        LookUp::<F, R>::take(opaque, foreign::bytes(value, len));
        KCVISNOP
    }
}

unsafe extern "C" fn empty(_: *const c_char, _: usize, _: *mut usize, _: *mut c_void) -> *const c_char {
    // SAFETY: a constant of the library.
    unsafe { KCVISNOP }
}

unsafe extern "C" fn each<F: FnMut(&[u8], &[u8])>(
    key: *const c_char,
    key_len: usize,
    value: *const c_char,
    value_len: usize,
    _: *mut usize,
    opaque: *mut c_void,
) -> *const c_char {
    // SAFETY: the library passes starts and lengths of key and value, which stay as they are during this call, and
    // what `iterate` gave it: an `F`. The answer is a constant of the library.
    unsafe {
        foreign::entry::<F>(opaque, foreign::bytes(key, key_len), foreign::bytes(value, value_len));
        KCVISNOP
    }
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes { start: bytes.as_ptr().cast(), len: bytes.len() }
}

impl Kyoto {
    fn check(&self, is_ok: bool) -> Result<()> {
        // SAFETY: the database object is there until this is closed, and the message is a constant of the library.
        foreign::check("Kyoto Cabinet", is_ok, || unsafe { foreign::text(kcdbemsg(self.database)) })
    }

    fn sync_to_disk(&self) -> Result<()> {
        // SAFETY: the database object is there until this is closed; without a process there is nothing opaque.
        self.check(unsafe { kcdbsync(self.database, 1, ptr::null(), ptr::null_mut()) } != 0)
    }

    fn after_put(&self) -> Result<()> {
        if self.durability == Durability::Synced { self.sync_to_disk() } else { Ok(()) }
    }

    fn look_up<R, F: FnOnce(&[u8]) -> R>(&self, key: &Key, found: F) -> Result<Option<R>> {
        let mut look_up = LookUp::new(found);
        // SAFETY: the database object is there until this is closed; the key and the look-up are there during the call,
        // and the visitors expect a look-up of these types.
        let is_ok = unsafe {
            let opaque = look_up.opaque();
            kcdbaccept(self.database, key.as_ptr().cast(), key.len(), full::<F, R>, empty, opaque, 0)
        };
        self.check(is_ok != 0)?;
        Ok(look_up.result())
    }
}

impl Peer for Kyoto {
    type View<'v> = &'v Kyoto;

    fn facts() -> Facts {
        // SAFETY: a constant of the library.
        let version = unsafe { foreign::text(KCVERSION) };
        let settings = "hash; two buckets a key, all of it mapped, `opts=l`, `dfunit=8`";
        Facts::on_disk("Kyoto Cabinet", version, settings, "`synchronize(hard)` after each")
    }

    fn open(place: &Place<'_>) -> Result<Kyoto> {
        let map = place.data_bytes() * 2 + place.keys * 64 + (64 << 20);
        let tuning = format!("#opts=l#bnum={}#msiz={map}#dfunit=8", place.keys * 2);
        let path = foreign::path(&place.folder.join(format!("store.kch{tuning}")))?;
        let mode = if place.access == Access::Write { WRITER | CREATE } else { READER };
        // SAFETY: takes nothing.
        let database = unsafe { kcdbnew() };
        ensure!(!database.is_null(), "Kyoto Cabinet gave no database object");
        let kyoto = Kyoto { database, durability: place.durability };
        // SAFETY: the object is new, and the path ends with a zero.
        kyoto.check(unsafe { kcdbopen(database, path.as_ptr(), mode) } != 0)?;
        Ok(kyoto)
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        // SAFETY: the database object is there until this is closed, key and value during the call.
        let is_ok =
            unsafe { kcdbset(self.database, key.as_ptr().cast(), key.len(), value.as_ptr().cast(), value.len()) };
        self.check(is_ok != 0)?;
        self.after_put()
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let records: Vec<Record> =
            batch.iter().map(|(key, value)| Record { key: bytes(key), value: bytes(value) }).collect();
        // SAFETY: the database object is there until this is closed; the records, and the batch to which they point,
        // during the call.
        let stored = unsafe { kcdbsetbulk(self.database, records.as_ptr(), records.len(), 1) };
        self.check(stored == records.len() as i64)?;
        self.after_put()
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        // SAFETY: the database object is there until this is closed, the key during the call.
        let is_ok = unsafe {
            kcdbremove(self.database, key.as_ptr().cast(), key.len()) != 0 || kcdbecode(self.database) == NO_RECORD
        };
        self.check(is_ok)?;
        self.after_put()
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look_up(key, found)
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Kyoto) -> Result<R>) -> Result<R> {
        work(&mut &*self)
    }

    fn sync(&mut self) -> Result<()> {
        self.sync_to_disk()
    }

    fn close(self) -> Result<()> {
        // SAFETY: this is the only owner of the database object.
        self.check(unsafe { kcdbclose(self.database) } != 0)?;
        // SAFETY: as above, and it gives it up here.
        unsafe { kcdbdel(self.database) };
        Ok(())
    }
}

fn iterate<F: FnMut(&[u8], &[u8])>(kyoto: &Kyoto, mut entry: F) -> Result<()> {
    // SAFETY: the database object is there until it is closed, `entry` during the call; the visitor expects its type.
    kyoto.check(unsafe { kcdbiterate(kyoto.database, each::<F>, (&raw mut entry).cast(), 0) } != 0)
}

impl View for &Kyoto {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look_up(key, found)
    }

    fn for_each(&mut self, entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        iterate(self, entry)
    }
}
