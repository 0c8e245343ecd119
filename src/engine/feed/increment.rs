//! Increments: backups of what was committed since another one.
//!
//! An increment is a store whose default map holds the commits [as they are sent](super::wire), in pieces: the key is
//! the number of the piece, eight bytes, little-endian. Its catalogue says which commit it follows, and its
//! [origin](crate::engine::change::origin) which one it leads to. It is written like every backup.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::commits::Commits;
use super::told::{Told, Unit};
use super::wire::{apply_next, write_commit};
use crate::engine::Engine;
use crate::engine::backup::options::BackupOptions;
use crate::engine::backup::report::{BackupProgress, BackupReport};
use crate::engine::change::batch::Batch;
use crate::engine::open::place::{Place, settings_of_copy};
use crate::engine::read::pinned::Pinned;
use crate::engine::settings::{Access, Durability, Settings};
use crate::error::{Error, Result};
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, FOLLOWS, MapId, OriginEntry, Seq};

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

impl Engine {
    /// Writes an increment: all commits after `seq`, up to now.
    pub(crate) fn back_up_since(
        self: &Arc<Self>,
        seq: Seq,
        path: &Path,
        options: BackupOptions<'_>,
    ) -> Result<BackupReport> {
        let BackupOptions { existing, durability, mut on_progress, .. } = options;
        let source = self.mapping.file_behind();
        let place = Place::check(path, source, existing)?;
        let goal = self.commit_id(self.visible()?)?;
        let mut commits = Commits::after(Arc::clone(self), seq)?;
        let uuid = self.superblock()?.uuid;
        let part = place.begin(&settings_of_copy(source))?;
        let mut batch = Batch::begin(Arc::clone(part.engine()))?;
        let mut told = commits.told();
        batch.put(CATALOGUE, FOLLOWS, OriginEntry::of(uuid, told).as_bytes(), None)?;
        batch.set_origin(uuid, goal)?;
        batch.commit(Durability::Buffered)?;
        let mut pieces = Pieces { to: part.engine(), piece: Vec::with_capacity(PIECE), number: 0, failed: None };
        let mut report = BackupReport { seq: goal.seq, ..BackupReport::default() };
        let mut maps: BTreeSet<MapId> = BTreeSet::new();
        let total = self.log_size()?.bytes;
        while commits.advance(|| Arc::clone(self))? {
            let Some(unit) = commits.unit().filter(|unit| unit.last.seq <= goal.seq) else { break };
            let changes = commits.changes().inspect(|told| {
                if let Ok(Told { map, .. }) = told {
                    report.keys += 1;
                    maps.insert(*map);
                }
            });
            pieces.write_unit(unit, changes)?;
            (told, report.bytes) = (unit.last, pieces.bytes());
            let progress = BackupProgress { done: report.bytes, total: total.max(report.bytes) };
            if on_progress(progress).is_break() {
                return Ok(report);
            }
        }
        if told.seq < goal.seq || goal.seq == seq {
            // So that what follows this increment need not know which commits had nothing to tell; and so that one
            // without any is not applied to another store, or after a gap.
            pieces.write_unit(Unit { uuid, previous: told, last: goal }, std::iter::empty())?;
        }
        pieces.put_piece()?;
        (report.bytes, report.maps) = (pieces.bytes(), maps.len() as u64);
        if on_progress(BackupProgress { done: report.bytes, total: report.bytes }).is_break() {
            return Ok(report);
        }
        let file_len = part.finish(durability)?;
        Ok(BackupReport { finished: true, file_len, ..report })
    }

    /// Applies an increment. Returns the number of commits that were new to the store.
    pub(crate) fn apply_increment(self: &Arc<Self>, path: &Path) -> Result<u64> {
        let increment = Engine::open(path, Settings { access: Access::ReadOnly, ..Settings::default() })?;
        let pinned = Pinned::here(&Arc::new(increment))?;
        if pinned.find(CATALOGUE, FOLLOWS)?.is_none() {
            let what =
                "it is a whole store and no increment of a backup; open it, or put it in the place of the other one";
            return Err(Error::InvalidOptions { path: path.to_owned(), what });
        }
        let mut input = Input { from: &pinned, piece: &[], number: 0, failed: None };
        let mut applied = 0;
        loop {
            match apply_next(self, &mut input) {
                Ok(Some((_, is_new))) => applied += u64::from(is_new),
                Ok(None) => return Ok(applied),
                Err(error) => return Err(input.failed.take().unwrap_or(error)),
            }
        }
    }
}

/// The pieces of an increment that is being written.
struct Pieces<'p> {
    to: &'p Arc<Engine>,
    piece: Vec<u8>,
    /// How many were put.
    number: u64,
    failed: Option<Error>,
}

impl Pieces<'_> {
    fn write_unit<'c>(&mut self, unit: Unit, changes: impl Iterator<Item = Result<Told<'c>>>) -> Result<()> {
        let path = self.to.mapping.path().to_owned();
        let written = write_commit(&mut *self, unit, changes, |error| Error::io(&path, "write the backup", error));
        written.map_err(|error| self.failed.take().unwrap_or(error))
    }

    fn bytes(&self) -> u64 {
        self.number * PIECE as u64 + self.piece.len() as u64
    }

    fn put_piece(&mut self) -> Result<()> {
        self.to.put(DEFAULT_MAP, &self.number.to_le_bytes(), &self.piece, None)?;
        self.number += 1;
        self.piece.clear();
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.put_piece().map_err(|error| {
                self.failed = Some(error);
                io::Error::other("the piece could not be put")
            })?;
        }
        let len = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of an increment that is being read.
struct Input<'p> {
    from: &'p Pinned,
    piece: &'p [u8],
    /// The number of the next piece.
    number: u64,
    failed: Option<Error>,
}

impl<'p> Input<'p> {
    fn next_piece(&mut self) -> Result<Option<&'p [u8]>> {
        let Some(record) = self.from.find(DEFAULT_MAP, &self.number.to_le_bytes())? else { return Ok(None) };
        self.from.engine().check_crc(record)?;
        self.number += 1;
        Ok(Some(record.value()))
    }
}

impl Read for Input<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.next_piece() {
                Ok(piece) => self.piece = piece.unwrap_or_default(),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("the piece could not be read"));
                }
            }
        }
        self.piece.read(bytes)
    }
}
