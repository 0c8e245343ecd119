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

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use super::batch::Batch;
use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::read::cursor::Cursor;
use crate::engine::write::regions::entry_of;
use crate::error::{Error, Numbers, Result};
use crate::file::layout::{
    CATALOGUE, CatalogueEntry, DEFAULT_MAP, MAX_KEY_LEN, MAX_MAP, MapId, NEXT_ID, Offset, Seq, is_name,
};
use crate::file::log::Record;

/// An entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) id: MapId,
    /// The version that the user gave to its types.
    pub(crate) version: u32,
    /// The names of its key and value types.
    pub(crate) types: String,
}

impl Named {
    fn fingerprint(&self) -> u64 {
        xxh3_64(self.types.as_bytes())
    }

    /// The value of its entry. `first_region` is, or was, the map's first region.
    fn to_value(&self, first_region: Offset) -> Vec<u8> {
        let entry = CatalogueEntry {
            map: self.id.0.into(),
            version: self.version.into(),
            fingerprint: self.fingerprint().into(),
            region: first_region.into(),
        };
        [entry.as_bytes(), self.types.as_bytes()].concat()
    }

    /// Whether its types equal those of `other`.
    pub(crate) fn is_like(&self, other: &Named) -> bool {
        (self.fingerprint(), self.version) == (other.fingerprint(), other.version)
    }
}

impl Batch {
    /// Enters a map, with room for `keys` keys. Neither its name nor its number may be taken.
    pub(crate) fn enter(&mut self, name: &[u8], named: &Named, keys: u64) -> Result<()> {
        let region = self.first_region(named.id, keys)?;
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
        self.put(CATALOGUE, to.as_bytes(), &named.to_value(Offset::NONE), None)
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
        if let Some(named) = self.named_in(&batch, name)? {
            return batch.commit_as_usual().map(|()| named);
        }
        let id = self.next_id(&batch)?;
        if id > MAX_MAP {
            // The id of a dropped map could be reused only if no handle to it were left, which cannot be known.
            return Err(self.numbers_exhausted(Numbers::Maps, u64::from(MAX_MAP) - u64::from(DEFAULT_MAP)));
        }
        let named = Named { id, version, types: types.to_owned() };
        batch.set_next_id(id.next())?;
        batch.enter(name.as_bytes(), &named, 0)?;
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
        let Some(named) = self.named_in(&batch, name)? else { return batch.commit_as_usual().map(|()| false) };
        batch.clear_for_good(named.id)?;
        batch.remove(CATALOGUE, name.as_bytes())?;
        batch.commit_as_usual()?;
        Ok(true)
    }

    /// Renames a map, and drops the map that had the new name. Says whether there was one to rename.
    pub(crate) fn rename_named(self: &Arc<Self>, from: &str, to: &str) -> Result<bool> {
        self.sweep_drops()?;
        let mut batch = Batch::begin(Arc::clone(self))?;
        let Some(named) = self.named_in(&batch, from)? else { return batch.commit_as_usual().map(|()| false) };
        if from == to {
            return batch.commit_as_usual().map(|()| true);
        }
        if let Some(replaced) = self.named_in(&batch, to)? {
            batch.clear_for_good(replaced.id)?;
        }
        batch.rename(from, to, &named)?;
        batch.commit_as_usual()?;
        Ok(true)
    }

    pub(crate) fn named_in(&self, batch: &Batch, name: &str) -> Result<Option<Named>> {
        let found = batch.get(CATALOGUE, name.as_bytes())?;
        found.map(|record| self.named_by(record)).transpose()
    }
}
