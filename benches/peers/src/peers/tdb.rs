//! Samba's tdb, through the system's library (`tdb.h`).
#![allow(unsafe_code, reason = "the library is in C")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io;
use std::path::PathBuf;

use anyhow::Result;

use super::foreign::{self, LookUp};
use super::{Durability, Facts, Peer, Place, View};
use crate::data::{Batch, Key};
use crate::workloads::Workload;

const NO_SYNC: c_int = 64;
const INCOMPATIBLE_HASH: c_int = 2048;
const O_RDWR_CREAT: c_int = 0o102;
/// The error code for a missing key.
const NO_EXIST: c_int = 8;

/// A `TDB_DATA`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    start: *const c_char,
    len: usize,
}

type Parser = unsafe extern "C" fn(Data, Data, *mut c_void) -> c_int;
type Traverse = unsafe extern "C" fn(*mut c_void, Data, Data, *mut c_void) -> c_int;

#[link(name = "tdb")]
unsafe extern "C" {
    fn tdb_open(name: *const c_char, hash_size: c_int, flags: c_int, open: c_int, mode: c_uint) -> *mut c_void;
    fn tdb_close(context: *mut c_void) -> c_int;
    fn tdb_error(context: *mut c_void) -> c_int;
    fn tdb_errorstr(context: *mut c_void) -> *const c_char;
    fn tdb_parse_record(context: *mut c_void, key: Data, parser: Parser, opaque: *mut c_void) -> c_int;
    fn tdb_store(context: *mut c_void, key: Data, value: Data, flag: c_int) -> c_int;
    fn tdb_delete(context: *mut c_void, key: Data) -> c_int;
    fn tdb_traverse_read(context: *mut c_void, each: Traverse, opaque: *mut c_void) -> c_int;
    fn tdb_lockall_read(context: *mut c_void) -> c_int;
    fn tdb_unlockall_read(context: *mut c_void) -> c_int;
    fn tdb_transaction_start(context: *mut c_void) -> c_int;
    fn tdb_transaction_commit(context: *mut c_void) -> c_int;
}

/// It has no `Drop`, which could not report errors: a process that fails ends with its store open.
pub(crate) struct Tdb {
    context: *mut c_void,
    path: PathBuf,
    durability: Durability,
}

// SAFETY: a context belongs to one thread at a time, and no workload uses this one from several: `Facts::skips`
// excludes those that would.
unsafe impl Sync for Tdb {}

unsafe extern "C" fn one<F: FnOnce(&[u8]) -> R, R>(_: Data, value: Data, opaque: *mut c_void) -> c_int {
    // SAFETY: the library passes start and length of the value, which stays as it is during this call, and what
    // `look_up` gave it: a look-up of these types.
    unsafe { LookUp::<F, R>::take(opaque, foreign::bytes(value.start, value.len)) };
    0
}

unsafe extern "C" fn each<F: FnMut(&[u8], &[u8])>(
    _: *mut c_void,
    key: Data,
    value: Data,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the library passes starts and lengths of key and value, which stay as they are during this call, and
    // what `iterate` gave it: an `F`.
    unsafe { foreign::entry::<F>(opaque, foreign::bytes(key.start, key.len), foreign::bytes(value.start, value.len)) };
    0
}

fn data(bytes: &[u8]) -> Data {
    Data { start: bytes.as_ptr().cast(), len: bytes.len() }
}

/// For errors before there is a context to ask, and after.
fn check_system(is_ok: bool) -> Result<()> {
    foreign::check("tdb", is_ok, || io::Error::last_os_error().to_string())
}

impl Tdb {
    fn check(&self, is_ok: bool) -> Result<()> {
        // SAFETY: the context is there until this is closed, and the message is a constant of the library.
        foreign::check("tdb", is_ok, || unsafe { foreign::text(tdb_errorstr(self.context)) })
    }

    fn look_up<R, F: FnOnce(&[u8]) -> R>(&self, key: &Key, found: F) -> Result<Option<R>> {
        let mut look_up = LookUp::new(found);
        // SAFETY: the context is there until this is closed; the key and the look-up are there during the call, and the
        // parser expects a look-up of these types.
        let is_ok = unsafe {
            tdb_parse_record(self.context, data(key), one::<F, R>, look_up.opaque()) == 0
                || tdb_error(self.context) == NO_EXIST
        };
        self.check(is_ok)?;
        Ok(look_up.result())
    }

    fn store(&self, key: &Key, value: &[u8]) -> Result<()> {
        // SAFETY: the context is there until this is closed, key and value during the call.
        self.check(unsafe { tdb_store(self.context, data(key), data(value), 0) } == 0)
    }

    fn transaction(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        // SAFETY: the context is there until this is closed.
        self.check(unsafe { tdb_transaction_start(self.context) } == 0)?;
        work()?;
        // SAFETY: as above.
        self.check(unsafe { tdb_transaction_commit(self.context) } == 0)
    }

    fn iterate<F: FnMut(&[u8], &[u8])>(&self, mut entry: F) -> Result<()> {
        // SAFETY: the context is there until this is closed, `entry` during the call; the callback expects its type.
        self.check(unsafe { tdb_traverse_read(self.context, each::<F>, (&raw mut entry).cast()) } >= 0)
    }
}

impl Peer for Tdb {
    type View<'v> = &'v Tdb;

    fn facts() -> Facts {
        Facts {
            longest_value: 1 << 30,
            skips: vec![Workload::GetThreads2, Workload::GetThreads16],
            ..Facts::on_disk("tdb", "of the system", "one chain a key; reads under one lock", "a transaction")
        }
    }

    /// Opens it for writing, whatever it is for: a read-only opening gets no locks.
    fn open(place: &Place<'_>) -> Result<Tdb> {
        let path = place.folder.join("store.tdb");
        let no_sync = if place.durability == Durability::Buffered { NO_SYNC } else { 0 };
        let (name, chains) = (foreign::path(&path)?, c_int::try_from(place.keys)?);
        // SAFETY: the path ends with a zero.
        let context = unsafe { tdb_open(name.as_ptr(), chains, INCOMPATIBLE_HASH | no_sync, O_RDWR_CREAT, 0o600) };
        check_system(!context.is_null())?;
        Ok(Tdb { context, path, durability: place.durability })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        match self.durability {
            Durability::Buffered => self.store(key, value),
            Durability::Synced => self.transaction(|| self.store(key, value)),
        }
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        self.transaction(|| batch.iter().try_for_each(|(key, value)| self.store(key, value)))
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        // SAFETY: the context is there until this is closed, the key during the call.
        let is_ok = unsafe { tdb_delete(self.context, data(key)) == 0 || tdb_error(self.context) == NO_EXIST };
        self.check(is_ok)
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look_up(key, found)
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Tdb) -> Result<R>) -> Result<R> {
        // SAFETY: the context is there until this is closed.
        self.check(unsafe { tdb_lockall_read(self.context) } == 0)?;
        let result = work(&mut &*self)?;
        // SAFETY: as above.
        self.check(unsafe { tdb_unlockall_read(self.context) } == 0)?;
        Ok(result)
    }

    fn sync(&mut self) -> Result<()> {
        // It has no call for that: its mapping is the file.
        Ok(File::open(&self.path)?.sync_all()?)
    }

    fn close(self) -> Result<()> {
        // SAFETY: this is the only owner of the context, and gives it up here.
        check_system(unsafe { tdb_close(self.context) } == 0)
    }
}

impl View for &Tdb {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.look_up(key, found)
    }

    fn for_each(&mut self, entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.iterate(entry)
    }
}
