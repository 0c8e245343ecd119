//! The new store that a repair writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::catalogue::Entry;
use crate::engine::change::bounded::Bounded;
use crate::engine::open::place::{Part, Place, settings_of_copy};
use crate::engine::salvage::judge::Seen;
use crate::engine::settings::Durability;
use crate::error::Result;
use crate::file::layout::{DEFAULT_MAP, MapId};

/// A store that is being written.
pub(super) struct Target<'p> {
    /// Before the store, which waits for its transaction when it is closed.
    to: Bounded,
    part: Part<'p>,
    /// The maps of the source, with their numbers in the target.
    maps: BTreeMap<MapId, MapId>,
}

impl Target<'_> {
    pub(super) fn create<'p>(place: &'p Place, source: &File) -> Result<Target<'p>> {
        let maps = BTreeMap::from([(DEFAULT_MAP, DEFAULT_MAP)]);
        let part = place.begin(&settings_of_copy(Some(source)))?;
        Ok(Target { to: Bounded::new(Arc::clone(part.engine())), part, maps })
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
        self.to.commit()?;
        let engine = self.to.engine();
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
        self.to.batch()?.put(map, record.its_key(), record.its_value(), record.deadline())?;
        if self.to.count(record.whole_len()) {
            self.to.commit()?;
        }
        Ok(())
    }

    /// Makes the store durable, and gives it its name.
    pub(super) fn complete(mut self) -> Result<()> {
        self.to.commit()?;
        // It waits for the last handle of the store.
        drop(self.to);
        self.part.finish(Durability::Synced)?;
        Ok(())
    }
}
