//! The catalogue: which maps there are.
//!
//! It is map 0, an ordinary map from the name of a map to its id and types, and so durable, transactional and recovered
//! like any other. Only the side effects of a commit to it are special: a new name makes the map's first region known,
//! a removed name marks its map as dropped. Both are derived from the records when the commit is
//! [finished](crate::engine::state::writer::Writing::finish), and doing them twice is the same as doing them once.
//!
//! **Invariant.** A map whose id is not in the catalogue is never written to, and its records are dead. Ids are never
//! reused. A dropped map is cleared in the same commit, so readers of older commits find what they need through its
//! last region, which stays until the last of them is gone.

use std::sync::Arc;

use super::batch::Batch;
use super::named::{Made, Named};
use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::read::cursor::Cursor;
use crate::engine::write::regions::entry_of;
use crate::error::{Error, Numbers, Result};
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, MAX_KEY_LEN, MAX_MAP, MapId, NEXT_ID, Offset, Seq, is_name};
use crate::file::log::Record;

impl Batch {
    /// Makes a map, with room for `keys` keys at first. Neither its name nor its number may be taken.
    pub(crate) fn make_map(&mut self, name: &[u8], named: &Named, keys: u64) -> Result<()> {
        let region = self.first_region(named.id, keys)?;
        self.now.made.insert(named.id, Made { name: name.to_owned(), named: named.clone(), region });
        self.put(CATALOGUE, name, &named.to_value(region), None)
    }

    /// Sets the number that the next map gets.
    pub(crate) fn set_next_id(&mut self, id: MapId) -> Result<()> {
        self.put(CATALOGUE, NEXT_ID, &id.0.to_le_bytes(), None)
    }

    /// Gives a map another name, which must be free.
    pub(crate) fn rename(&mut self, from: &str, to: &str, named: &Named) -> Result<()> {
        // In this order the map is dropped for a moment, which is never visible.
        self.remove(CATALOGUE, from.as_bytes())?;
        self.put(CATALOGUE, to.as_bytes(), &named.to_value(Offset::NONE), None)?;
        if let Some(made) = self.now.made.get_mut(&named.id) {
            made.name = to.as_bytes().to_vec();
        }
        Ok(())
    }

    /// Drops a map with all its entries.
    pub(crate) fn drop_map(&mut self, name: &str, map: MapId) -> Result<()> {
        self.clear_for_good(map)?;
        self.remove(CATALOGUE, name.as_bytes())?;
        self.now.dropped.insert(map);
        Ok(())
    }

    /// The map with this name as the batch sees it, if there is one.
    pub(crate) fn find_map(&self, name: &str) -> Result<Option<Named>> {
        self.engine().named_in(self, name)
    }

    /// Makes a map of these types, unless the name is taken. Returns the map with that name.
    pub(crate) fn find_or_make_map(&mut self, name: &str, version: u32, types: &str) -> Result<Named> {
        if let Some(named) = self.find_map(name)? {
            return Ok(named);
        }
        let engine = self.engine();
        let id = engine.next_id(self)?;
        if id > MAX_MAP {
            // The id of a dropped map could be reused only if no handle to it were left, which cannot be known.
            return Err(engine.numbers_exhausted(Numbers::Maps, u64::from(MAX_MAP) - u64::from(DEFAULT_MAP)));
        }
        let named = Named { id, version, types: types.to_owned() };
        self.in_one(|batch| {
            batch.set_next_id(id.next())?;
            batch.make_map(name.as_bytes(), &named, 0)
        })?;
        Ok(named)
    }

    /// Drops the map with this name, and says whether there was one.
    pub(crate) fn drop_named(&mut self, name: &str) -> Result<bool> {
        let Some(named) = self.find_map(name)? else { return Ok(false) };
        self.in_one(|batch| batch.drop_map(name, named.id)).map(|()| true)
    }

    /// Renames a map, and drops the map that had the new name. Says whether there was one to rename.
    pub(crate) fn rename_named(&mut self, from: &str, to: &str) -> Result<bool> {
        let Some(named) = self.find_map(from)? else { return Ok(false) };
        if from != to {
            self.in_one(|batch| {
                batch.drop_named(to)?;
                batch.rename(from, to, &named)
            })?;
        }
        Ok(true)
    }
}

impl Engine {
    /// Reads a record of the catalogue. Other reads do not check the CRC; this one does, since a wrong id would do much
    /// harm.
    pub(crate) fn named_by(&self, record: Record<'_>) -> Result<Named> {
        self.check_crc(record)?;
        self.named(record.value(), record.offset)
    }

    fn named(&self, value: &[u8], offset: Offset) -> Result<Named> {
        let found = entry_of(value).and_then(|(entry, types)| {
            let types = std::str::from_utf8(types).ok()?.to_owned();
            Some(Named { id: entry.id(), version: entry.version.get(), types })
                .filter(|named| named.id > DEFAULT_MAP && named.id <= MAX_MAP)
                .filter(|named| named.fingerprint() == entry.fingerprint.get())
        });
        found.ok_or_else(|| self.mapping.corrupt(offset, "expected an entry of the catalogue"))
    }

    /// Refuses names that a map cannot have.
    pub(crate) fn check_name(&self, name: &str) -> Result<()> {
        let what = match name.len() {
            0 => "a map needs a name; use `Store::get` and `Store::insert` for the map without one",
            len if len > MAX_KEY_LEN => "a name has at most 65,535 bytes; shorten it",
            _ => return Ok(()),
        };
        Err(Error::InvalidName { path: self.mapping.path().to_owned(), name: name.to_owned(), what })
    }

    /// The map with this name.
    pub(crate) fn find_named(&self, name: &str) -> Result<Option<Named>> {
        if self.read_only {
            let found = self.get_unpinned(CATALOGUE, name.as_bytes())?;
            return found.map(|(value, _)| self.named(&value, Offset::NONE)).transpose();
        }
        let view = self.view()?;
        let found = view.get(CATALOGUE, name.as_bytes())?;
        found.map(|record| self.named_by(record)).transpose()
    }

    /// All named maps, with their names, as of one commit.
    pub(crate) fn named_maps(&self) -> Result<Vec<(String, Named)>> {
        let pin = self.pin()?;
        self.named_maps_at(pin.seq())
    }

    /// The same as of a commit that the caller has pinned.
    pub(crate) fn named_maps_at(&self, seq: Seq) -> Result<Vec<(String, Named)>> {
        let index = self.index_at(CATALOGUE, seq)?;
        let mut cursor = Cursor::new(CATALOGUE, index.as_ref());
        let mut maps = Vec::new();
        while let Some(record) = cursor.next(self, seq, Moment::NOW) {
            let record = record?;
            if is_name(record.key()) {
                let name = String::from_utf8_lossy(record.key()).into_owned();
                maps.push((name, self.named_by(record)?));
            }
        }
        Ok(maps)
    }

    /// Enters a map of these types into the catalogue, unless the name is taken by now. Returns the map with that name.
    pub(crate) fn create_named(self: &Arc<Self>, name: &str, version: u32, types: &str) -> Result<Named> {
        self.sweep_drops()?;
        let mut batch = Batch::begin(Arc::clone(self))?;
        let named = batch.find_or_make_map(name, version, types)?;
        batch.commit_as_usual()?;
        Ok(named)
    }

    /// The smallest id that was never used.
    pub(crate) fn next_id(&self, batch: &Batch) -> Result<MapId> {
        let (offset, id) = self.id_of(batch.get(CATALOGUE, NEXT_ID)?)?;
        // A slot of a damaged index may lead to an older record, or to none.
        if id <= DEFAULT_MAP || self.index(id)?.is_some() {
            return Err(self
                .mapping
                .corrupt(offset, format!("the next map would get the number {id}, which is in use")));
        }
        Ok(id)
    }

    /// Drops the map with this name, and says whether there was one.
    pub(crate) fn drop_named(self: &Arc<Self>, name: &str) -> Result<bool> {
        // A process that only creates maps may not know of the drops, so they are swept here, too.
        self.sweep_drops()?;
        let mut batch = Batch::begin(Arc::clone(self))?;
        let existed = batch.drop_named(name)?;
        batch.commit_as_usual()?;
        Ok(existed)
    }

    /// Renames a map, and drops the map that had the new name. Says whether there was one to rename.
    pub(crate) fn rename_named(self: &Arc<Self>, from: &str, to: &str) -> Result<bool> {
        self.sweep_drops()?;
        let mut batch = Batch::begin(Arc::clone(self))?;
        let existed = batch.rename_named(from, to)?;
        batch.commit_as_usual()?;
        Ok(existed)
    }

    pub(crate) fn named_in(&self, batch: &Batch, name: &str) -> Result<Option<Named>> {
        let found = batch.get(CATALOGUE, name.as_bytes())?;
        found.map(|record| self.named_by(record)).transpose()
    }
}
