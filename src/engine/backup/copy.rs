//! Copying what one commit sees to another store.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{BackupOptions, Pace};
use super::report::{BackupProgress, BackupReport};
use crate::engine::change::bounded::Bounded;
use crate::engine::change::named::Named;
use crate::engine::open::place::{Place, settings_of_copy};
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::engine::settings::Settings;
use crate::error::Result;
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, MapId, NEXT_ID, Seq, is_name};

/// What the catalogue of a commit says.
#[derive(Default)]
struct Catalogue {
    maps: Vec<Listed>,
    /// The value of the entry that says which number the next map gets.
    next_id: Option<Vec<u8>>,
    /// Entries of the default map, and bytes of the records of all maps, more or less.
    keys: u64,
    bytes: u64,
}

/// A named map, with the number of its keys, more or less.
struct Listed {
    name: Vec<u8>,
    named: Named,
    keys: u64,
}

impl Pinned {
    /// Writes a store that has the content of this commit.
    pub(crate) fn back_up(&self, path: &Path, options: BackupOptions<'_>) -> Result<BackupReport> {
        self.engine().check_not_forked()?;
        let BackupOptions { existing, durability, pace, mut on_progress } = options;
        let place = Place::check(path, self.engine().mapping.file_behind(), existing)?;
        let catalogue = self.catalogue()?;
        let source = self.engine().mapping.file_behind();
        let limits = self.engine().settings.limits;
        let settings = Settings { initial_capacity: catalogue.keys, limits, ..settings_of_copy(source) };
        let part = place.begin(&settings)?;
        let report = BackupReport { seq: self.seq(), maps: catalogue.maps.len() as u64, ..BackupReport::default() };
        let (to, steps) = (Bounded::new(Arc::clone(part.engine())), Steps::begin(self, pace)?);
        let (total, on_progress) = (catalogue.bytes, &mut *on_progress);
        let mut copying = Copying { from: self, to, total, report, on_progress, steps };
        let done = copying.copy_all(&catalogue)?;
        let report = copying.report;
        // It has a handle of the store that is going to be closed.
        drop(copying);
        if done.is_break() {
            return Ok(report);
        }
        let file_len = part.finish(durability)?;
        Ok(BackupReport { finished: true, file_len, ..report })
    }

    fn catalogue(&self) -> Result<Catalogue> {
        let mut catalogue = Catalogue::default();
        (catalogue.keys, catalogue.bytes) = self.size(DEFAULT_MAP)?;
        let index = self.index(CATALOGUE)?;
        let mut cursor = Cursor::new(CATALOGUE, index.as_ref());
        while let Some(record) = self.next(&mut cursor) {
            let record = record?;
            if record.key() == NEXT_ID {
                self.engine().check_crc(record)?;
                catalogue.next_id = Some(record.value().to_vec());
                continue;
            }
            if !is_name(record.key()) {
                continue;
            }
            let named = self.engine().named_by(record)?;
            let (keys, bytes) = self.size(named.id)?;
            catalogue.maps.push(Listed { name: record.key().to_vec(), named, keys });
            catalogue.bytes = catalogue.bytes.saturating_add(bytes);
        }
        Ok(catalogue)
    }

    /// The number of keys of a map, and bytes of their records: as of this commit if that is still known, or else as of
    /// a later one.
    fn size(&self, map: MapId) -> Result<(u64, u64)> {
        let Some(index) = self.index(map)? else { return Ok((0, 0)) };
        let totals = index.totals_at(self.seq())?.map_or_else(|| index.totals(), Ok)?;
        Ok((totals.keys, totals.bytes))
    }
}

/// A copy in progress.
struct Copying<'c> {
    from: &'c Pinned,
    to: Bounded,
    /// Bytes that there are to copy, more or less.
    total: u64,
    report: BackupReport,
    on_progress: &'c mut dyn FnMut(BackupProgress) -> ControlFlow<()>,
    steps: Steps,
}

/// How long a backup rests after a step, as a multiple of the time that the step took, and at most.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_millis(200);

/// The steps of a backup, and what others did meanwhile.
struct Steps {
    pace: Pace,
    begun: Instant,
    /// The last commit of others when the step began.
    seen: Seq,
}

impl Steps {
    fn begin(from: &Pinned, pace: Pace) -> Result<Steps> {
        Ok(Steps { pace, begun: Instant::now(), seen: from.engine().visible()? })
    }

    /// Ends a step. If others have written meanwhile, leaves them time to go on.
    fn next(&mut self, from: &Pinned) -> Result<()> {
        if self.pace == Pace::Considerate && from.engine().visible()? != self.seen {
            std::thread::sleep((self.begun.elapsed() * REST).min(LONGEST_REST));
        }
        *self = Steps::begin(from, self.pace)?;
        Ok(())
    }
}

impl Copying<'_> {
    /// Copies everything, unless it is told to stop.
    fn copy_all(&mut self, catalogue: &Catalogue) -> Result<ControlFlow<()>> {
        if self.commit()?.is_break() || self.enter_all(catalogue)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let named = catalogue.maps.iter().map(|listed| listed.named.id);
        for map in std::iter::once(DEFAULT_MAP).chain(named) {
            if self.copy_map(map)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.total = self.report.bytes;
        self.commit()
    }

    /// Makes the maps, before anything is put into them.
    fn enter_all(&mut self, catalogue: &Catalogue) -> Result<ControlFlow<()>> {
        let from = self.from.engine();
        self.to.batch()?.set_origin(from.superblock()?.uuid, from.commit_id(self.from.seq())?)?;
        if let Some(next_id) = &catalogue.next_id {
            self.to.batch()?.put(CATALOGUE, NEXT_ID, next_id, None)?;
        }
        for listed in &catalogue.maps {
            self.to.batch()?.make_map(&listed.name, &listed.named, listed.keys)?;
        }
        self.commit()
    }

    fn copy_map(&mut self, map: MapId) -> Result<ControlFlow<()>> {
        let from = self.from;
        let index = from.index(map)?;
        let mut cursor = Cursor::new(map, index.as_ref());
        while let Some(record) = from.next(&mut cursor) {
            let record = record?;
            from.engine().check_crc(record)?;
            self.to.batch()?.put(map, record.key(), record.value(), record.expires())?;
            self.report.keys += 1;
            self.report.bytes += record.counted_len();
            if self.to.count(record.len()) && self.commit()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Ends the transaction, and asks whether to go on.
    fn commit(&mut self) -> Result<ControlFlow<()>> {
        self.to.commit()?;
        self.steps.next(self.from)?;
        Ok((self.on_progress)(BackupProgress { done: self.report.bytes, total: self.total }))
    }
}
