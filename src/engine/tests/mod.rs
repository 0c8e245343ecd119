//! Tests that see every store of the engine to its file, and stop the world between two of them.

mod beside;
mod damage;
mod durable;
#[cfg(feature = "tracing")]
mod events;
mod faults;
mod full_disk;
mod kills;
mod maps;
mod quarantine;
mod readers;
mod recovery;
mod space;
mod tables;
mod upkeep;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, UNIX_EPOCH};

use crate::engine::Engine;
use crate::engine::change::batch::Batch;
use crate::engine::clock::{Moment, time};
use crate::engine::processes::entries;
use crate::engine::read::pins::Pin;
use crate::engine::settings::{self, Access, Durability, Limits, Opened, Settings};
use crate::engine::state::head;
use crate::engine::upkeep::clean;
use crate::engine::upkeep::resize::{Step, Stepped};
use crate::engine::write::slots::Tombstones;
use crate::engine::write::tables::Lengthened;
use crate::error::{Error, HeldBy, Result};
use crate::file::index::Index;
use crate::file::layout::{
    BLOCK, COUNT_MASK, DEFAULT_MAP, EXTENTS, ExtentKind, Offset, PIN_TABLE, PROCESSES, live, seal,
};
use crate::file::live_table::{PIN, PROCESS};
use crate::file::log;
use crate::file::mapping::{Mapping, Protection};
use crate::file::witness::{self, Recorder};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(path: &Path) -> Engine {
    Engine::open(path, Settings::default()).unwrap()
}

fn content(engine: &Engine) -> Content {
    let mut content = Content::new();
    let (pin, extent, totals) = Pin::with_totals(engine, DEFAULT_MAP).unwrap();
    for slot in Index::of_extent(&engine.mapping, extent.unwrap()).unwrap().iter() {
        let Some(offset) = slot.unwrap().record else { continue };
        let newest = log::record(&engine.mapping, offset).unwrap();
        if let Some(record) = engine.version_at(newest, pin.seq(), Moment::NOW).unwrap() {
            content.insert(record.key().to_vec(), record.value().to_vec());
        }
    }
    assert_eq!(content.len() as u64, totals.keys, "the counter of keys");
    content
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// One change of the file.
#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Flush,
    SetLen(u64),
}

#[derive(Default)]
struct Tape(Mutex<Vec<Event>>);

impl Tape {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Recorder for Tape {
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().unwrap().push(Event::Write(offset, bytes.to_vec()));
    }
    fn store(&self, offset: u64, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
    fn flush(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().push(Event::Flush);
        Ok(())
    }
    fn set_len(&self, len: u64) {
        self.0.lock().unwrap().push(Event::SetLen(len));
    }
}

fn replay(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write(offset, bytes) => {
            image[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
        }
        Event::Flush => {}
        Event::SetLen(len) => image.resize(*len as usize, 0),
    }
}

/// Puts an image in place of the file, in the same page cache: as if a process had been killed at that moment.
fn put_back(path: &Path, image: &[u8]) {
    let mut image = image.to_vec();
    fs::write(path, &image).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let identity = Mapping::of_file(file, path.to_owned(), Protection::ReadOnly, u64::MAX).unwrap().identity();
    for (word, at) in identity.unwrap_or_default().into_iter().zip((live::IDENTITY as usize..).step_by(8)) {
        image[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    fs::write(path, &image).unwrap();
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    // Many flushes of no interest; a file system in memory makes them cheap.
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let path = folder.path().join("store");
    (folder, path)
}

/// A copy of the file in its current state, beside it.
fn copied(path: &Path) -> PathBuf {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    copy
}

fn kinds(engine: &Engine, kind: ExtentKind) -> usize {
    engine.extents().unwrap().iter().filter(|extent| extent.kind == kind).count()
}

/// Enough keys to fill the smallest index to three quarters, and a few tombstones.
fn nearly_full(engine: &Engine) {
    for number in 0..279 {
        engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
    }
    for number in 0..9 {
        engine.remove(DEFAULT_MAP, &key(number)).unwrap();
    }
}

/// Makes both tables of the live area longer by `times` extents.
fn lengthen_tables(engine: &Engine, times: u32) {
    for number in 0..times {
        for table in [&PIN, &PROCESS] {
            let done = engine.lengthen(table, table.first() << number, Duration::ZERO).unwrap();
            assert_eq!(done, Lengthened::Done);
        }
    }
}

/// Some extents of log with all kinds of records at their heads: values, replaced values, tombstones.
fn some_log(engine: &Engine) {
    for number in 0..40 {
        engine.put(DEFAULT_MAP, &key(number % 30), &[number as u8; 300], None).unwrap();
    }
    engine.put(DEFAULT_MAP, &key(50), b"alive", None).unwrap();
    engine.remove(DEFAULT_MAP, &key(3)).unwrap();
    engine.put(DEFAULT_MAP, &key(51), b"alive", None).unwrap();
    for number in 0..20 {
        engine.put(DEFAULT_MAP, &key(number % 10 + 4), &[number as u8; 500], None).unwrap();
    }
}

fn some_keys(engine: &Engine) {
    for number in 0..20 {
        engine.put(DEFAULT_MAP, &key(number), b"old", None).unwrap();
    }
    engine.remove(DEFAULT_MAP, &key(7)).unwrap();
}

fn in_memory() -> Arc<Engine> {
    Arc::new(Engine::in_memory(Settings { max_size: 1 << 30, ..Settings::default() }).unwrap())
}

fn retired(engine: &Engine) -> usize {
    kinds(engine, ExtentKind::Retired)
}

/// Inserts enough keys to make the index grow several times.
fn grow_index(engine: &Engine, numbers: std::ops::Range<u32>) {
    for number in numbers {
        engine.put(DEFAULT_MAP, &key(number), b"", None).unwrap();
    }
}
