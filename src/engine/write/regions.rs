//! Regions and tables: the extents that live words name, and what becomes of extents that no word names; and the
//! records of the catalogue, which say which map has which. Creating and dropping maps:
//! [`maps`](crate::engine::change::maps).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use zerocopy::FromBytes;

use super::reserve::Room;
use super::reserve::{REGION_RESERVE, Reserve};
use crate::engine::Engine;
use crate::engine::state::writer::Writing;
use crate::error::{Error, Result};
use crate::file::index::{self, Index, NewRegion, Totals};
use crate::file::layout::{
    BLOCK, CATALOGUE, CatalogueEntry, DEFAULT_MAP, ExtentKind, Kind, MapId, NEXT_ID, Offset, Seq, extent_blocks,
    extent_word, is_name, live, table_word,
};
use crate::file::log::{self, Record, Scan};
use crate::file::space::{Extent, Space};
use crate::file::table::MapTable;

impl Engine {
    /// Offsets of the regions and tables that live words name, the map table's and the live area's included.
    pub(crate) fn named_extents(&self) -> Result<BTreeSet<Offset>> {
        let mut named: BTreeSet<Offset> = self.map_table()?.iter()?.map(|entry| entry.region()).collect();
        for table in [live::MAP_TABLE, live::SPACE_TABLE] {
            named.insert(Offset::of_extent_word(self.mapping.live(table)?));
        }
        named.extend(self.resize_target()?);
        named.extend(self.live_extents()?);
        Ok(named)
    }

    /// Extents taken for commits after the visible one, and not in force.
    pub(crate) fn uncommitted(&self, space: &Space, visible: Seq) -> Result<Vec<Extent>> {
        let named = self.named_extents()?;
        let tail = self.mapping.live_offset(live::TAIL)?;
        let uncommitted = |extent: &&Extent| {
            let is_in_force = match extent.kind {
                ExtentKind::Log | ExtentKind::ReserveLog => extent.contains(tail),
                ExtentKind::Index | ExtentKind::Table | ExtentKind::Live => named.contains(&extent.offset),
                ExtentKind::Reserve | ExtentKind::Retired | ExtentKind::Emptied => true,
            };
            extent.count > visible.count() && !is_in_force
        };
        Ok(space.extents().filter(uncommitted).copied().collect())
    }

    /// The ids of all named maps, as the index in force has them.
    pub(crate) fn maps_of_catalogue(&self) -> Result<BTreeSet<MapId>> {
        let mut ids = BTreeSet::new();
        for slot in self.index_in_force(CATALOGUE)?.iter() {
            let Some(offset) = slot?.record else { continue };
            let record = log::record(&self.mapping, offset)?;
            let entry = entry_of(record.value()).filter(|_| record.kind() == Some(Kind::Put) && is_name(record.key()));
            ids.extend(entry.map(|(entry, _)| entry.id()));
        }
        Ok(ids)
    }

    /// Refuses a log with records of a map whose id was never given out: the next map would get them.
    pub(crate) fn check_was_made(&self, map: MapId) -> Result<()> {
        let (offset, next) = self.id_of(self.value_in_turn(CATALOGUE, NEXT_ID)?)?;
        if map < next {
            return Ok(());
        }
        Err(self
            .mapping
            .corrupt(offset, format!("the log has records of map {map}, and the next one would get {next}")))
    }

    /// The next id, from `record` if there is one, and the record's offset.
    pub(crate) fn id_of(&self, record: Option<Record<'_>>) -> Result<(Offset, MapId)> {
        let Some(record) = record else { return Ok((Offset(live::MAP_TABLE), DEFAULT_MAP.next())) };
        self.check_crc(record)?;
        Ok((record.offset, id_in(record)))
    }
}

impl<'e> Writing<'e> {
    /// Puts the [first region](Writing::first_region) of a map in force, unless that was done.
    pub(crate) fn put_in_force(&mut self, map: MapId, first: Offset) -> Result<()> {
        if self.engine.index(map)?.is_none() {
            let index = Index::open(&self.engine.mapping, first)?;
            if !self.engine.map_table()?.set_region(map, index.extent())? {
                // Room was made for it.
                return Err(self.engine.mapping.corrupt(first, "the map table has no room for this map"));
            }
        }
        Ok(())
    }

    /// The map that a record of the catalogue takes a name from, if it is not to keep it, and the one that gets it.
    fn renaming(&self, record: Record<'_>) -> Result<(Option<MapId>, Option<CatalogueEntry>)> {
        if !is_name(record.key()) {
            return Ok((None, None));
        }
        let entry = |record: Record<'_>| match record.kind() {
            Some(Kind::Put) => entry_of(record.value()).map(|(entry, _)| entry),
            _ => None,
        };
        let before = match record.header.prev_offset() {
            Offset::NONE => None,
            prev => entry(log::record(&self.engine.mapping, prev)?).map(|entry| entry.id()),
        };
        let now = entry(record);
        Ok((before.filter(|&before| now.is_none_or(|now| now.id() != before)), now))
    }

    /// Looks at the records of a commit that may be about maps, before it is finished. Puts the regions of new maps in
    /// force: if a map has outgrown its first one, the record that names another comes after those of the map's
    /// entries. Returns the maps that the commit drops.
    pub(super) fn enter_maps(&mut self, start: Offset, end: Offset) -> Result<BTreeSet<MapId>> {
        let (mut regions, mut dropped) = (BTreeMap::new(), BTreeSet::new());
        for record in Scan::new(&self.engine.mapping, start, end) {
            let record = record?;
            if record.header.map() != CATALOGUE || record.is_copy() {
                continue;
            }
            let (before, now) = self.renaming(record)?;
            dropped.extend(before);
            if let Some(now) = now {
                dropped.remove(&now.id());
                let region = Some(now.region.into()).filter(|&region| region != Offset::NONE);
                regions.extend(region.map(|region| (now.id(), region)));
            }
        }
        regions.into_iter().try_for_each(|(map, region)| self.put_in_force(map, region))?;
        Ok(dropped)
    }

    /// Applies what a record of the catalogue changes besides its key, when its commit is finished.
    pub(super) fn enter_catalogue(&mut self, record: Record<'_>) -> Result<()> {
        let (before, now) = self.renaming(record)?;
        let table = self.engine.map_table()?;
        if let Some(before) = before {
            table.set_dropped(before, true)?;
            self.engine.drops.store(true, Ordering::Relaxed);
        }
        match now {
            Some(now) => table.set_dropped(now.id(), false),
            None => Ok(()),
        }
    }
}

impl<'e> Writing<'e> {
    /// Makes a region of one block for a map that is being cleared, and returns its offset. It is not seen before the
    /// clear is committed.
    pub(crate) fn fresh_region(&mut self, map: MapId, previous: Offset) -> Result<Offset> {
        let seq = self.seq()?;
        let offset = match self.allocate(REGION_RESERVE, ExtentKind::Index) {
            Err(full @ Error::Full { .. }) => match Reserve::of(&self.writer).region {
                Some(held) => {
                    self.writer.space.set_kind(&self.engine.mapping, held.offset, ExtentKind::Index, seq)?;
                    held.offset
                }
                None if self.writer.exceeds => {
                    let excess = self.excess_for(Room::Removal, 0);
                    let allocate = |writing: &mut Self| writing.allocate(REGION_RESERVE, ExtentKind::Index);
                    self.exceeding(excess, allocate)?.offset
                }
                None => return Err(full),
            },
            taken => taken?.offset,
        };
        // The number before the clear, so that the other records of the commit are counted.
        let totals = Totals { seq: seq.before(), ..Totals::default() };
        let new = NewRegion { offset, blocks: REGION_RESERVE, map, since: seq, previous, totals };
        Index::create(&self.engine.mapping, new)?;
        Ok(offset)
    }

    /// Switches a map to the fresh region named by the record of a clear, unless that was done.
    pub(crate) fn switch_to_fresh(&mut self, clear: Record<'_>) -> Result<Index<'e>> {
        let fresh =
            clear.target().ok_or_else(|| self.engine.mapping.corrupt(clear.offset, "a clear without a region"))?;
        let (map, old) = (clear.header.map(), self.engine.index_in_force(clear.header.map())?.offset());
        if old != fresh {
            self.engine.map_table()?.set_region(map, extent_word(fresh.0, REGION_RESERVE))?;
            self.writer.space.set_kind(&self.engine.mapping, old, ExtentKind::Retired, clear.seq())?;
            self.cancel_stale_resize()?;
        }
        Index::open(&self.engine.mapping, fresh)
    }

    /// Makes the first region of a map, with room for `keys` keys, which is not seen before the commit `seq`.
    pub(crate) fn first_region(&mut self, map: MapId, keys: u64) -> Result<Offset> {
        let extent = self.allocate(index::blocks_for(keys), ExtentKind::Index)?;
        let seq = self.seq()?;
        let totals = Totals { seq: seq.before(), ..Totals::default() };
        let (offset, blocks) = (extent.offset, extent.blocks);
        let new = NewRegion { offset, blocks, map, since: seq, previous: Offset::NONE, totals };
        Index::create(&self.engine.mapping, new)?;
        Ok(offset)
    }

    /// Gives a map its first region, of `blocks` blocks.
    pub(crate) fn create_map(&mut self, map: MapId, blocks: u64, seq: Seq) -> Result<Index<'e>> {
        let extent = self.allocate(blocks, ExtentKind::Index)?;
        let (offset, blocks, totals) = (extent.offset, extent.blocks, Totals { seq, ..Totals::default() });
        let new = NewRegion { offset, blocks, map, since: seq, previous: Offset::NONE, totals };
        let index = Index::create(&self.engine.mapping, new)?;
        if !self.engine.map_table()?.set_region(map, index.extent())? {
            self.grow_map_table()?;
            self.engine.map_table()?.set_region(map, index.extent())?;
        }
        Ok(index)
    }

    /// Makes the first map table.
    pub(crate) fn create_map_table(&mut self) -> Result<()> {
        let extent = self.allocate(1, ExtentKind::Table)?;
        MapTable::create(&self.engine.mapping, extent.offset, 1)?;
        self.engine.mapping.store_live(live::MAP_TABLE, table_word(extent.offset.0, 1), Ordering::Release)
    }

    /// Makes sure that these maps, which are new, can be entered into the map table.
    pub(crate) fn make_map_room(&mut self, maps: &BTreeSet<MapId>) -> Result<()> {
        while !self.engine.map_table()?.has_room(maps)? {
            self.grow_map_table()?;
        }
        Ok(())
    }

    fn grow_map_table(&mut self) -> Result<()> {
        let blocks = extent_blocks(self.engine.mapping.live(live::MAP_TABLE)?) * 2;
        self.move_map_table(blocks)
    }

    /// Moves the map table to a new extent. The old one is retired.
    fn move_map_table(&mut self, blocks: u64) -> Result<()> {
        let old_word = self.engine.mapping.live(live::MAP_TABLE)?;
        let old = MapTable::open(&self.engine.mapping, old_word)?;
        let extent = self.allocate(blocks, ExtentKind::Table)?;
        MapTable::create(&self.engine.mapping, extent.offset, blocks)?.take_over(&old)?;
        self.engine.mapping.store_live(live::MAP_TABLE, table_word(extent.offset.0, blocks), Ordering::Release)?;
        let seq = self.seq()?;
        self.writer.space.set_kind(&self.engine.mapping, Offset::of_extent_word(old_word), ExtentKind::Retired, seq)
    }

    /// Moves the tables and the reserve to lower places, where there are any.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let word = self.engine.mapping.live(live::MAP_TABLE)?;
        let blocks = extent_blocks(word);
        if self.writer.space.lowest(blocks * BLOCK).0 < Offset::of_extent_word(word) {
            self.move_map_table(blocks)?;
        }
        let seq = self.seq()?;
        self.writer.space.settle_table(&self.engine.mapping, seq)?;
        self.settle_reserve()
    }

    /// Gives back the extents taken for a commit that will not happen: those younger than `visible` that should have a
    /// name by now and have none. The reserve serves the next commit, and retired extents, emptied ones and holes stay
    /// as they are, whichever writer noted them.
    pub(crate) fn return_uncommitted(&mut self, visible: Seq) -> Result<()> {
        let extents = self.engine.uncommitted(&self.writer.space, visible)?;
        extents.iter().try_for_each(|extent| self.return_extent(extent, visible))
    }

    /// Gives back what a dead writer had taken and not put to use. Retires what it was about to give back: a reader may
    /// still be using that.
    pub(crate) fn retire_unreferenced(&mut self) -> Result<()> {
        // Before anything is allocated: another index could come to lie where the one lay that a resize was begun with.
        self.cancel_stale_resize()?;
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?;
        self.return_uncommitted(visible)?;
        let named = self.engine.named_extents()?;
        let unused = |extent: &&Extent| {
            matches!(extent.kind, ExtentKind::Index | ExtentKind::Table | ExtentKind::Live)
                && !named.contains(&extent.offset)
        };
        let unused: Vec<Offset> = self.writer.space.extents().filter(unused).map(|extent| extent.offset).collect();
        let retire = |offset| self.writer.space.set_kind(&self.engine.mapping, offset, ExtentKind::Retired, visible);
        unused.into_iter().try_for_each(retire)
    }
}

/// The entry held by a value of the catalogue.
pub(crate) fn entry_of(value: &[u8]) -> Option<(CatalogueEntry, &[u8])> {
    CatalogueEntry::read_from_prefix(value).ok()
}

/// The id in the record that holds the next one; zero, which is none, if it is damaged.
pub(crate) fn id_in(record: Record<'_>) -> MapId {
    MapId(record.value().try_into().map_or(0, u32::from_le_bytes))
}
