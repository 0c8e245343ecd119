//! The source of a repair: a file that is only read.
//!
//! It is not mapped: a page that a dying disk cannot read, or that another process cuts off meanwhile, would kill a
//! process that touches it. Such bytes are read as zeros, and counted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use zerocopy::FromBytes;

use crate::engine::open::path::{check_is_file, opening_error};
use crate::error::{Error, HeldBy, Result};
use crate::file::layout::{
    BLOCK, Kind, MAX_COUNT, PROCESS_LEN, PROCESS_TABLE, PROCESSES, RECORD_HEADER, RecordHeader, Seq, flags, process,
};
use crate::file::locks::{self, Locks};
use crate::file::mapping;

/// Bytes that are read at once. It fits into the cache of a processor.
pub(crate) const CHUNK: u64 = 512 << 10;

/// The file that is repaired.
pub(crate) struct Reader {
    file: File,
    path: PathBuf,
    len: u64,
    /// Blocks that could not be read.
    unreadable: RefCell<BTreeSet<u64>>,
}

impl Reader {
    /// Opens the file at `path` for reading.
    pub(crate) fn open_source(path: &Path) -> Result<Reader> {
        // Before opening it: that may block for ever if it is a FIFO.
        let metadata = fs::metadata(path).map_err(|error| opening_error(path, error))?;
        check_is_file(path, &metadata)?;
        let file = File::open(path).map_err(|error| opening_error(path, error))?;
        let len = file.metadata().map_err(|e| Error::io(path, "look at the file", e))?.len();
        Ok(Reader { file, path: path.to_owned(), len, unreadable: RefCell::default() })
    }

    pub(crate) fn source_path(&self) -> &Path {
        &self.path
    }

    /// Length of the file when it was opened.
    pub(crate) fn source_len(&self) -> u64 {
        self.len
    }

    pub(crate) fn source(&self) -> &File {
        &self.file
    }

    /// Bytes that could not be read so far.
    pub(crate) fn unreadable_bytes(&self) -> u64 {
        self.unreadable.borrow().len() as u64 * BLOCK
    }

    /// Refuses a store that a process has open for writing. The locks of others are looked at, and none is taken.
    pub(crate) fn refuse_in_use(&self) -> Result<()> {
        let path = &self.path;
        let opened = Locks::open(&self.file, || File::open(path)).map_err(|error| opening_error(path, error))?;
        let held = opened.lowest_held(locks::entry(0)..locks::entry(1 << 16));
        let Some(place) = held.map_err(|e| Error::io(path, "look at the locks", e))? else { return Ok(()) };
        let number = place - locks::entry(0);
        let word = |at| self.word(PROCESS_TABLE + number * PROCESS_LEN + at);
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(word(process::SINCE) & 0xffff_ffff_ffff);
        let pid = word(process::PID).wrapping_sub(1) as u32;
        let by = if number < PROCESSES { HeldBy::Writer { pid, since } } else { HeldBy::Unknown };
        Err(Error::Locked { path: path.clone(), by })
    }

    /// Reads bytes. Those past the end, and those that cannot be read, are zeros.
    pub(crate) fn fetch(&self, at: u64, bytes: &mut [u8]) {
        let there = self.len.saturating_sub(at).min(bytes.len() as u64) as usize;
        let (there, past) = bytes.split_at_mut(there);
        past.fill(0);
        if mapping::read_at(&self.file, at, there).is_ok() {
            return;
        }
        let mut at = at;
        let mut rest = there;
        while !rest.is_empty() {
            let in_block = (BLOCK - at % BLOCK).min(rest.len() as u64);
            let (block, after) = rest.split_at_mut(in_block as usize);
            if mapping::read_at(&self.file, at, block).is_err() {
                block.fill(0);
                self.unreadable.borrow_mut().insert(at / BLOCK);
            }
            at += in_block;
            rest = after;
        }
    }

    /// The word at an offset.
    pub(crate) fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fetch(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// What may be the header of a record.
    pub(crate) fn raw_header(&self, at: u64) -> RecordHeader {
        let mut bytes = [0; RECORD_HEADER as usize];
        self.fetch(at, &mut bytes);
        header_in(&bytes)
    }

    /// Whether there is a record at an offset whose CRC holds, and its header. No more is read than that takes.
    pub(crate) fn sound_header(&self, at: u64) -> Option<RecordHeader> {
        let header = self.raw_header(at);
        plausible(&header, at, self.len)?;
        let len = header.record_len();
        let crc = match len {
            ..=CHUNK => crc32fast::hash(&self.piece(at, len)[4..]),
            _ => Window::over(self).long_crc(at, len),
        };
        (crc == header.crc.get()).then_some(header)
    }

    /// Reads a piece of the file at once.
    pub(crate) fn piece(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.fetch(at, &mut bytes);
        bytes
    }
}

/// The header at the beginning of these bytes.
pub(crate) fn header_in(bytes: &[u8]) -> RecordHeader {
    match RecordHeader::read_from_prefix(bytes) {
        Ok((header, _)) => header,
        Err(_) => zerocopy::FromZeros::new_zeroed(),
    }
}

/// The kind of the record with this header, if it can be one of a file of `len` bytes.
#[inline]
pub(crate) fn plausible(header: &RecordHeader, at: u64, len: u64) -> Option<Kind> {
    const KNOWN: u8 =
        flags::COMMIT | flags::NEW | flags::COPY | flags::EXPIRES | flags::SHORTCUT | flags::EXPIRED | flags::DAMAGED;

    let kind = Kind::from_u8(header.kind)?;
    let (lens, is_commit) = ((header.key_len.get(), header.value_len.get()), header.flags & flags::COMMIT != 0);
    let is_formed = match kind {
        Kind::Jump => lens == (0, 8) && !is_commit,
        Kind::Clear => lens == (0, 8),
        Kind::Incarnation => lens == (0, 0) && is_commit,
        Kind::Remove => lens.1 == 0,
        Kind::Put => true,
    };
    let seq = Seq::of_field(header.seq);
    let is_sane = header.flags & !KNOWN == 0 && seq.incarnation() > 0 && seq.count() <= MAX_COUNT;
    (is_formed && is_sane && header.record_len() <= len.saturating_sub(at)).then_some(kind)
}

/// Reads a file from front to back, in chunks.
pub(crate) struct Window<'r> {
    pub(crate) reader: &'r Reader,
    start: u64,
    bytes: Vec<u8>,
    /// A number of a later incarnation than this one is none: what lies in an index often has the form of a record.
    pub(crate) incarnations: u64,
}

impl<'r> Window<'r> {
    pub(crate) fn over(reader: &'r Reader) -> Window<'r> {
        Window { reader, start: u64::MAX, bytes: vec![0; CHUNK as usize], incarnations: u64::MAX }
    }

    /// `len` bytes from `at`, of at most a chunk.
    #[inline]
    pub(crate) fn look(&mut self, at: u64, len: u64) -> &[u8] {
        if at < self.start || at - self.start + len > CHUNK {
            self.start = at;
            self.reader.fetch(at, &mut self.bytes);
        }
        let from = (at - self.start) as usize;
        &self.bytes[from..from + len as usize]
    }

    /// What was read from `at` on, without reading more.
    pub(crate) fn rest(&self, at: u64) -> &[u8] {
        self.bytes.get((at.wrapping_sub(self.start)) as usize..).unwrap_or_default()
    }
}

/// A record whose CRC holds.
#[derive(Clone, Copy)]
pub(crate) struct Sound {
    pub(crate) at: u64,
    pub(crate) header: RecordHeader,
    pub(crate) kind: Kind,
}

impl Sound {
    /// Offset after its last byte.
    pub(crate) fn behind(&self) -> u64 {
        self.at + self.header.record_len()
    }

    /// The number of its commit.
    pub(crate) fn number(&self) -> Seq {
        Seq::of_field(self.header.seq)
    }

    /// Whether it is the last record of its commit.
    pub(crate) fn ends_commit(&self) -> bool {
        self.header.flags & flags::COMMIT != 0
    }
}

/// What there is at an offset.
pub(crate) enum Looked {
    Record(Sound),
    /// Nothing that has the form of a record.
    Nothing,
    /// Something that has the form of a record of this many bytes, and whose CRC does not hold.
    Broken(u64),
}

impl Window<'_> {
    /// The record at `at`, if there is one whose CRC holds.
    #[inline]
    pub(crate) fn look_at_record(&mut self, at: u64) -> Looked {
        let len = self.reader.source_len();
        let header = header_in(self.look(at, RECORD_HEADER));
        let kind = plausible(&header, at, len).filter(|_| Seq::of_field(header.seq).incarnation() <= self.incarnations);
        let Some(kind) = kind else { return Looked::Nothing };
        let sound = Sound { at, header, kind };
        let whole = header.record_len();
        let crc = if whole <= CHUNK { crc32fast::hash(&self.look(at, whole)[4..]) } else { self.long_crc(at, whole) };
        if crc == header.crc.get() { Looked::Record(sound) } else { Looked::Broken(whole) }
    }

    /// The CRC of a record that is longer than a chunk.
    fn long_crc(&mut self, at: u64, whole: u64) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let (mut from, end) = (at + 4, at + whole);
        while from < end {
            let len = (end - from).min(CHUNK);
            hasher.update(self.look(from, len));
            from += len;
        }
        hasher.finalize()
    }
}
