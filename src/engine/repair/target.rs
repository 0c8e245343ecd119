//! The new store that a repair writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::catalogue::Entry;
use crate::engine::change::batch::Batch;
use crate::engine::open::place::{Part, Place, settings_of_copy};
use crate::engine::salvage::judge::Seen;
use crate::engine::settings::Durability;
use crate::error::Result;
use crate::file::layout::{DEFAULT_MAP, MapId};

/// Bytes, and records, of one transaction.
const TRANSACTION: (u64, u64) = (4 << 20, 4096);

/// A store that is being written.
pub(super) struct Target<'p> {
    /// The transaction that is going on. Before the store, which waits for it when it is closed.
    batch: Option<Batch>,
    part: Part<'p>,
    /// Bytes and records of the transaction.
    pending: (u64, u64),
    /// The maps of the source, with their numbers in the target.
    maps: BTreeMap<MapId, MapId>,
}

impl Target<'_> {
    pub(super) fn create<'p>(place: &'p Place, source: &File) -> Result<Target<'p>> {
        let maps = BTreeMap::from([(DEFAULT_MAP, DEFAULT_MAP)]);
        Ok(Target { batch: None, part: place.begin(&settings_of_copy(Some(source)))?, pending: (0, 0), maps })
    }

    /// Whether a map of the source is there.
    pub(super) fn has_map(&self, map: MapId) -> bool {
        self.maps.contains_key(&map)
    }

    /// How many named maps there are.
    pub(super) fn named(&self) -> u64 {
        self.maps.len() as u64 - 1
    }

    /// Makes a map. The catalogue of a damaged store may have a name twice.
    pub(super) fn add_map(&mut self, entry: &Entry) -> Result<()> {
        self.commit_batch()?;
        let engine = Arc::clone(self.part.engine());
        let mut name = entry.name.clone();
        while name.is_empty() || engine.find_named(&name)?.is_some() {
            name.push_str(&format!(" (map {})", entry.id));
        }
        let made = engine.create_named(&name, entry.version, &entry.types)?;
        self.maps.insert(entry.id, made.id);
        Ok(())
    }

    /// Puts a record of the source.
    pub(super) fn take_over(&mut self, record: &Seen<'_>) -> Result<()> {
        let Some(&map) = self.maps.get(&record.header.map()) else { return Ok(()) };
        if self.batch.is_none() {
            self.batch = Some(Batch::begin(Arc::clone(self.part.engine()))?);
        }
        if let Some(batch) = &mut self.batch {
            batch.put(map, record.its_key(), record.its_value(), record.deadline())?;
        }
        self.pending = (self.pending.0 + record.whole_len(), self.pending.1 + 1);
        if self.pending.0 >= TRANSACTION.0 || self.pending.1 >= TRANSACTION.1 { self.commit_batch() } else { Ok(()) }
    }

    fn commit_batch(&mut self) -> Result<()> {
        self.pending = (0, 0);
        self.batch.take().map_or(Ok(()), |batch| batch.commit(Durability::Buffered))
    }

    /// Makes the store durable, and gives it its name.
    pub(super) fn complete(mut self) -> Result<()> {
        self.commit_batch()?;
        self.part.finish(Durability::Synced)?;
        Ok(())
    }
}
