//! The maps of a store: their indexes in force.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::file::index::Index;
use crate::file::layout::{DEFAULT_MAP, MapId, live};
use crate::file::table::{MapTable, To};

impl Engine {
    /// The map table.
    pub(crate) fn map_table(&self) -> Result<MapTable<'_>> {
        MapTable::open(&self.mapping, self.map_table_word()?)
    }

    /// The index of a map in force. `None` if there is no such map; one that was dropped may still have one.
    #[inline(always)]
    pub(crate) fn index(&self, map: MapId) -> Result<Option<Index<'_>>> {
        match MapTable::region_of(&self.mapping, self.map_table_word()?, map, To::Read)? {
            Some(extent) => Index::of_extent(&self.mapping, extent).map(Some),
            None => Ok(None),
        }
    }

    /// The index in force of a map that must be there. The caller holds the writer lock.
    #[inline]
    pub(crate) fn index_in_force(&self, map: MapId) -> Result<Index<'_>> {
        self.index(map)?.ok_or_else(|| self.mapping.corrupt(live::MAP_TABLE, format!("map {map} has no region")))
    }

    /// The same for a map that will be changed: it must not have been dropped.
    #[inline(always)]
    pub(crate) fn index_for_writing(&self, map: MapId) -> Result<Index<'_>> {
        match MapTable::region_of(&self.mapping, self.map_table_word()?, map, To::Write)? {
            Some(extent) => Index::of_extent(&self.mapping, extent),
            None => Err(self.no_such_map(map)),
        }
    }

    #[cold]
    pub(crate) fn no_such_map(&self, map: MapId) -> Error {
        if map <= DEFAULT_MAP {
            return self.mapping.corrupt(live::MAP_TABLE, format!("map {map} has no region"));
        }
        Error::NoSuchMap { path: self.mapping.path().to_owned(), map: format!("number {map}") }
    }

    /// All maps, with their indexes in force.
    pub(crate) fn maps(&self) -> Result<Vec<(MapId, Index<'_>)>> {
        let entries = self.map_table()?.iter()?;
        entries
            .map(|entry| {
                let index = Index::of_extent(&self.mapping, entry.extent)?;
                self.check_header(entry.map, &index).map(|()| (entry.map, index))
            })
            .collect()
    }

    /// Checks the header of a region. Reads rely on the map table; a caller that will go over all lines first makes
    /// sure that they are lines.
    pub(crate) fn check_header(&self, map: MapId, index: &Index<'_>) -> Result<()> {
        let header = Index::open(&self.mapping, index.offset())?;
        if header.extent() == index.extent() {
            return Ok(());
        }
        let what = format!("map {map}: the map table and the region differ in its size");
        Err(self.mapping.corrupt(index.offset(), what))
    }

    /// Bytes of the records that hold a value, over all maps.
    pub(crate) fn live_bytes(&self) -> Result<u64> {
        if self.is_live()? {
            return Ok(self.log_totals()?.live_bytes);
        }
        self.superblock()?.counted_live_bytes().map_or_else(|| self.sum_of_live_bytes(), Ok)
    }

    /// The same, as the sum over the maps.
    pub(crate) fn sum_of_live_bytes(&self) -> Result<u64> {
        let add = |sum: u64, (_, index): &(MapId, Index<'_>)| Ok(sum.saturating_add(index.totals()?.bytes));
        self.maps()?.iter().try_fold(0, add)
    }
}
