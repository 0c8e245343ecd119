//! Tables: a header and entries of two words. The map table is read here; the space table belongs to
//! [`space`](super::space).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::layout::{
    BLOCK, DROPPED, MAP_ENTRY, MAP_TABLE_MAGIC, MAX_MAP, MapId, Offset, SPACE_ENTRY, TABLE_HEADER, TableHeader,
    entries_of_blocks, extent_blocks, extent_offset,
};
use super::mapping::{Mapping, Window};
use crate::error::Result;

/// One table, found and checked.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    mapping: &'a Mapping,
    offset: u64,
    capacity: u64,
    entry_len: u64,
}

fn entry_len(magic: [u8; 8]) -> u64 {
    if magic == MAP_TABLE_MAGIC { MAP_ENTRY } else { SPACE_ENTRY }
}

impl<'a> Table<'a> {
    /// The table that `word` (see [`table_word`](super::layout::table_word)) names.
    pub(crate) fn open(mapping: &'a Mapping, word: u64, magic: [u8; 8]) -> Result<Table<'a>> {
        let (offset, blocks) = (extent_offset(word), extent_blocks(word));
        // Word by word: for a caller without lock or pin, the table may have moved and this may be something else.
        let capacity = mapping.load(offset + std::mem::offset_of!(TableHeader, capacity) as u64)?;
        let entry_len = entry_len(magic);
        let is_table = mapping.load(offset)? == u64::from_le_bytes(magic) && blocks > 0;
        if !is_table || capacity != entries_of_blocks(blocks, entry_len) {
            return Err(mapping.corrupt(offset, "expected the header of a table"));
        }
        Ok(Table { mapping, offset, capacity, entry_len })
    }

    /// Makes an empty table in an unused extent.
    pub(crate) fn create(mapping: &'a Mapping, offset: Offset, blocks: u64, magic: [u8; 8]) -> Result<Table<'a>> {
        use zerocopy::IntoBytes;

        let entry_len = entry_len(magic);
        let capacity = entries_of_blocks(blocks, entry_len);
        mapping.zero(offset, blocks * BLOCK)?;
        let header = TableHeader { magic, capacity: capacity.into(), reserved: [0; 48] };
        mapping.write(offset, header.as_bytes())?;
        Ok(Table { mapping, offset: offset.0, capacity, entry_len })
    }

    /// Entries that there is room for.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The first two words of an entry.
    pub(crate) fn entry(&self, index: u64) -> Result<(u64, u64)> {
        let [first, second] = self.mapping.words(self.at(index))?;
        Ok((first.load(), second.load()))
    }

    /// The third word of an entry of the space table.
    pub(crate) fn third(&self, index: u64) -> Result<u64> {
        self.mapping.load(self.at(index) + 16)
    }

    /// Writes the first two words of an entry so that a reader sees both words or a vacant entry: `last` is the word (0
    /// or 1) that makes it count.
    pub(crate) fn set(&self, index: u64, words: (u64, u64), last: u64) -> Result<()> {
        let at = self.at(index);
        let (first, value) = if last == 1 { (words.0, words.1) } else { (words.1, words.0) };
        self.mapping.store(at + 8 * (1 - last), first, Ordering::Relaxed)?;
        self.mapping.store(at + 8 * last, value, Ordering::Release)
    }

    /// Replaces one word of an entry.
    pub(crate) fn set_word(&self, index: u64, word: u64, value: u64) -> Result<()> {
        self.mapping.store(self.at(index) + 8 * word, value, Ordering::Release)
    }

    fn at(&self, index: u64) -> u64 {
        self.offset + TABLE_HEADER + index * self.entry_len
    }
}

/// Why the region of a map is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Read,
    Write,
}

/// The map table: where the region of each map is.
#[derive(Clone, Copy)]
pub(crate) struct MapTable<'a>(Table<'a>);

impl<'a> MapTable<'a> {
    /// The map table that `word` names.
    pub(crate) fn open(mapping: &'a Mapping, word: u64) -> Result<MapTable<'a>> {
        Ok(MapTable(Table::open(mapping, word, MAP_TABLE_MAGIC)?))
    }

    /// Makes an empty map table in an unused extent.
    pub(crate) fn create(mapping: &'a Mapping, offset: Offset, blocks: u64) -> Result<MapTable<'a>> {
        Ok(MapTable(Table::create(mapping, offset, blocks, MAP_TABLE_MAGIC)?))
    }

    /// The [`extent_word`](super::layout::extent_word) of the region of `map` in the table that `word` names; for
    /// writing, only of a map that was not dropped. Looks only at the entry where most maps are, and searches on if it
    /// is another map's.
    #[inline(always)]
    pub(crate) fn region_of(mapping: &'a Mapping, word: u64, map: MapId, to: To) -> Result<Option<u64>> {
        let place = first_place(map, entries_of_blocks(extent_blocks(word).max(1), MAP_ENTRY));
        let [id, extent] = mapping.words(extent_offset(word) + TABLE_HEADER + place * MAP_ENTRY)?;
        let extent = extent.load();
        if id.load() == u64::from(map) + 1 {
            return Ok(Some(extent));
        }
        MapTable::search(mapping, word, map, to)
    }

    /// The same at a glance: `None` if the entry of the map is not where it is looked for first.
    #[inline(always)]
    pub(crate) fn glance(window: Window<'_>, word: u64, map: MapId) -> Option<u64> {
        let place = first_place(map, entries_of_blocks(extent_blocks(word).max(1), MAP_ENTRY));
        let [id, extent] = window.words(extent_offset(word) + TABLE_HEADER + place * MAP_ENTRY)?;
        let extent = extent.load();
        (id.load() == u64::from(map) + 1).then_some(extent)
    }

    #[cold]
    fn search(mapping: &'a Mapping, word: u64, map: MapId, to: To) -> Result<Option<u64>> {
        let found = MapTable::open(mapping, word)?.find(map)?;
        Ok(found.filter(|entry| !(entry.dropped && to == To::Write)).map(|entry| entry.extent))
    }

    /// The entry of a map.
    fn find(&self, map: MapId) -> Result<Option<MapEntry>> {
        for index in self.places(map) {
            match self.get(index)? {
                Some(entry) if entry.map == map => return Ok(Some(entry)),
                // No map was ever here, so none was placed further on.
                None if self.0.entry(index)?.0 == 0 => break,
                _ => {}
            }
        }
        Ok(None)
    }

    /// All places, in the order in which they are given to a map.
    fn places(&self, map: MapId) -> impl Iterator<Item = u64> + use<> {
        let (first, capacity) = (first_place(map, self.0.capacity), self.0.capacity);
        (first..capacity).chain(0..first)
    }

    fn get(&self, index: u64) -> Result<Option<MapEntry>> {
        let (id, extent) = self.0.entry(index)?;
        let Some(map) = (id & !DROPPED).checked_sub(1) else { return Ok(None) };
        if map > u64::from(MAX_MAP) {
            return Err(self.0.mapping.corrupt(self.0.at(index), "the map table has an entry of no map"));
        }
        Ok(Some(MapEntry { index, map: MapId(map as u32), extent, dropped: id & DROPPED != 0 }))
    }

    /// All maps.
    pub(crate) fn iter(&self) -> Result<impl Iterator<Item = MapEntry> + use<'a>> {
        let mut entries = Vec::new();
        for index in 0..self.0.capacity {
            entries.extend(self.get(index)?);
        }
        Ok(entries.into_iter())
    }

    /// Sets the place of the region of `map`: the one store that switches an index. `false` if the map is new and the
    /// table full.
    pub(crate) fn set_region(&self, map: MapId, extent: u64) -> Result<bool> {
        if let Some(entry) = self.find(map)? {
            return self.0.set_word(entry.index, 1, extent).map(|()| true);
        }
        match self.vacant_place(map)? {
            Some(index) => self.0.set(index, (u64::from(map) + 1, extent), 0).map(|()| true),
            None => Ok(false),
        }
    }

    /// Whether there is room for these maps, which have none yet.
    pub(crate) fn has_room(&self, maps: &BTreeSet<MapId>) -> Result<bool> {
        let Some(&first) = maps.first() else { return Ok(true) };
        // Of one, the place is usually vacant; more are rare.
        if maps.len() == 1 {
            return Ok(self.vacant_place(first)?.is_some());
        }
        let mut vacant = 0;
        for index in 0..self.0.capacity {
            vacant += usize::from(self.get(index)?.is_none());
        }
        Ok(vacant >= maps.len())
    }

    /// Whether a search for the map of an entry comes to that entry.
    pub(crate) fn is_found(&self, entry: MapEntry) -> Result<bool> {
        Ok(self.find(entry.map)?.is_some_and(|found| found.index == entry.index))
    }

    fn vacant_place(&self, map: MapId) -> Result<Option<u64>> {
        for index in self.places(map) {
            if self.0.entry(index)?.0 & !DROPPED == 0 {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Marks a map in the table as dropped, or as not dropped.
    pub(crate) fn set_dropped(&self, map: MapId, dropped: bool) -> Result<()> {
        let Some(entry) = self.find(map)?.filter(|entry| entry.dropped != dropped) else { return Ok(()) };
        self.0.set_word(entry.index, 0, (u64::from(map) + 1) | if dropped { DROPPED } else { 0 })
    }

    /// Forgets a map. Its place becomes vacant, not never used: searches for the maps after it pass it.
    pub(crate) fn remove(&self, entry: MapEntry) -> Result<()> {
        self.0.set_word(entry.index, 0, DROPPED)
    }

    /// Copies the entries of a table that is not larger into this one, which is empty.
    pub(crate) fn take_over(&self, from: &MapTable<'_>) -> Result<()> {
        for entry in from.iter()? {
            self.set_region(entry.map, entry.extent)?;
            self.set_dropped(entry.map, entry.dropped)?;
        }
        Ok(())
    }
}

/// The place in a table that a map is given if it is vacant.
#[inline(always)]
fn first_place(map: MapId, capacity: u64) -> u64 {
    let map = u64::from(map);
    if map < capacity { map } else { modulo(map, capacity) }
}

/// A function of its own, so that no read divides: the compiler would see that the remainder is right for a small id as
/// well.
#[cold]
#[inline(never)]
fn modulo(map: u64, capacity: u64) -> u64 {
    map % capacity
}

/// One entry of the map table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapEntry {
    index: u64,
    /// The map's id.
    pub(crate) map: MapId,
    /// Where its region is, as an [`extent_word`](super::layout::extent_word).
    pub(crate) extent: u64,
    /// It is no longer in the catalogue.
    pub(crate) dropped: bool,
}

impl MapEntry {
    /// Offset of its region.
    pub(crate) fn region(&self) -> Offset {
        Offset::of_extent_word(self.extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_found_behind_one_that_was_forgotten() {
        let mapping = Mapping::in_memory(1 << 20).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + BLOCK).unwrap();
        let table = MapTable::create(&mapping, Offset::EXTENTS, 1).unwrap();
        let capacity = table.0.capacity as u32;
        // All of them have the same first place.
        let maps = [5, 5 + capacity, 5 + 2 * capacity].map(MapId);
        for map in maps {
            assert!(table.set_region(map, u64::from(map)).unwrap());
        }
        let found = |map: MapId| table.find(map).unwrap().map(|entry| entry.extent);
        assert!(maps.iter().all(|&map| found(map) == Some(u64::from(map))));
        table.remove(table.find(maps[1]).unwrap().unwrap()).unwrap();
        assert_eq!(maps.map(found), [Some(5), None, Some(u64::from(maps[2]))]);
        // Its place is given to another.
        let last = MapId(5 + 3 * capacity);
        assert!(table.set_region(last, 7).unwrap());
        assert_eq!((found(last), table.find(last).unwrap().unwrap().index), (Some(7), 6));
        assert!(table.iter().unwrap().all(|entry| table.is_found(entry).unwrap()));
        assert_eq!(found(MapId(6)), None);
    }
}
