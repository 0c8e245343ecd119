//! Room: for records in the log, for slots in the index, for regions in the file.

use std::sync::atomic::Ordering;

use super::Engine;
use super::commit::Writer;
use crate::error::{Error, Result};
use crate::file::index::{self, Index, Probe, Totals};
use crate::file::layout::{
    BLOCK, COUNT_MASK, ExtentKind, JUMP_LEN, Kind, MAX_KEY_LEN, align_block, extent_offset, extent_word, live,
    record_len, table_word,
};
use crate::file::log::{self, Record, Tail};
use crate::file::space::Extent;
use crate::file::table::MapTable;

/// What is held back for the log of a full store: room for at least one tombstone, whatever its key.
const LOG_RESERVE: u64 = 18;
/// What is held back for a full store to be cleared: a region.
const REGION_RESERVE: u64 = 1;
const _: () = assert!(LOG_RESERVE * BLOCK >= record_len(MAX_KEY_LEN as u64, 0) + JUMP_LEN);

/// Up to so many slots an index doubles; beyond it grows by half.
const SMALL_INDEX: u64 = 1 << 20;

impl Engine {
    /// Takes an extent, of space that old readers have left if need be.
    fn allocate(&self, writer: &mut Writer, blocks: u64, kind: ExtentKind, seq: u64) -> Result<Extent> {
        if writer.space.has_retired() {
            let unread_below = self.raise_horizon()?;
            writer.space.free_retired(&self.region, unread_below)?;
        }
        writer.space.allocate(&self.region, blocks, kind, seq)
    }

    /// Sees to it that a record of `len` bytes fits at the tail, which jumps to another extent if it does not fit
    /// into this one; says whether it did. What `shrinks` the store may use what is held back for a full one.
    #[inline]
    pub(crate) fn make_log_room(
        &self,
        writer: &mut Writer,
        tail: &mut Tail,
        len: u64,
        seq: u64,
        shrinks: bool,
    ) -> Result<bool> {
        if tail.has_room(len) && (shrinks || !writer.on_reserve) {
            return Ok(false);
        }
        self.leave_extent(writer, tail, len, seq, shrinks)
    }

    #[cold]
    fn leave_extent(&self, writer: &mut Writer, tail: &mut Tail, len: u64, seq: u64, shrinks: bool) -> Result<bool> {
        if writer.on_reserve && !shrinks {
            // There may be room again, for a new reserve; then this extent is one like any other.
            self.keep_reserve(writer, seq)?;
            writer.space.set_kind(&self.region, writer.extent.0, ExtentKind::Log, seq)?;
            writer.on_reserve = false;
            if tail.has_room(len) {
                return Ok(false);
            }
        }
        let needed = len.saturating_add(JUMP_LEN);
        let usual = writer.space.log_extent_len(needed);
        let mut taken = self.allocate(writer, usual / BLOCK, ExtentKind::Log, seq);
        if matches!(taken, Err(Error::Full { .. })) && align_block(needed) < usual {
            taken = self.allocate(writer, align_block(needed) / BLOCK, ExtentKind::Log, seq);
        }
        let of_reserve = taken.is_err();
        let extent = match taken {
            Err(full @ Error::Full { .. }) if shrinks => self.open_reserve(writer, needed, seq)?.ok_or(full)?,
            other => other?,
        };
        let jumped = (|| {
            if !of_reserve {
                // There was room, so what was held back and used up may be held back again; if not, then not.
                match self.keep_reserve(writer, seq) {
                    Ok(()) | Err(Error::Full { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            tail.jump(&self.region, seq, extent.offset, extent.end())
        })();
        if let Err(error) = jumped {
            self.return_extent(writer, &extent, seq)?;
            return Err(error);
        }
        writer.extent = (extent.offset, extent.end());
        writer.on_reserve = extent.kind == ExtentKind::ReserveLog;
        Ok(true)
    }

    /// Makes the reserve the next extent of the log, if it is there and long enough.
    fn open_reserve(&self, writer: &mut Writer, needed: u64, seq: u64) -> Result<Option<Extent>> {
        let Some(offset) = self.reserve(writer, LOG_RESERVE).filter(|_| needed <= LOG_RESERVE * BLOCK) else {
            return Ok(None);
        };
        writer.space.set_kind(&self.region, offset, ExtentKind::ReserveLog, seq)?;
        Ok(writer.space.extent(offset).copied())
    }

    /// Sets space aside that only a full store may use, if there is none.
    pub(crate) fn keep_reserve(&self, writer: &mut Writer, seq: u64) -> Result<()> {
        for blocks in [LOG_RESERVE, REGION_RESERVE] {
            if self.reserve(writer, blocks).is_none() {
                self.allocate(writer, blocks, ExtentKind::Reserve, seq)?;
            }
        }
        Ok(())
    }

    /// The extent of so many blocks that is held back, if it is there.
    fn reserve(&self, writer: &Writer, blocks: u64) -> Option<u64> {
        let mut extents = writer.space.extents();
        let held = extents.find(|extent| extent.kind == ExtentKind::Reserve && extent.blocks == blocks);
        held.map(|extent| extent.offset)
    }

    /// Gives back the extents that were taken for a commit that will not be: those younger than `visible`.
    pub(crate) fn return_uncommitted(&self, writer: &mut Writer, visible: u64) -> Result<()> {
        let tail = self.region.live(live::TAIL)?;
        let regions: Vec<u64> = self.map_table()?.iter()?.map(|entry| entry.region()).collect();
        let uncommitted = |extent: &&Extent| {
            let used = match extent.kind {
                ExtentKind::Index => regions.contains(&extent.offset),
                _ => !extent.is_log() || (extent.offset..extent.end()).contains(&tail),
            };
            extent.count > visible & COUNT_MASK && !used
        };
        let extents: Vec<Extent> = writer.space.extents().filter(uncommitted).copied().collect();
        extents.iter().try_for_each(|extent| self.return_extent(writer, extent, visible))
    }

    /// Gives back an extent that nobody has put to use.
    fn return_extent(&self, writer: &mut Writer, extent: &Extent, seq: u64) -> Result<()> {
        match extent.kind {
            ExtentKind::ReserveLog => writer.space.set_kind(&self.region, extent.offset, ExtentKind::Reserve, seq),
            _ => writer.space.free(&self.region, extent.offset),
        }
    }

    /// Makes a region of one block for a map that is being cleared, and returns its offset. Nobody sees it until the
    /// clear is committed.
    pub(crate) fn fresh_region(&self, writer: &mut Writer, map: u32, seq: u64, previous: u64) -> Result<u64> {
        let offset = match self.allocate(writer, REGION_RESERVE, ExtentKind::Index, seq) {
            Ok(extent) => extent.offset,
            Err(full @ Error::Full { .. }) => {
                let held = self.reserve(writer, REGION_RESERVE).ok_or(full)?;
                writer.space.set_kind(&self.region, held, ExtentKind::Index, seq)?;
                held
            }
            Err(error) => return Err(error),
        };
        // One before the clear, so that whatever else the commit holds counts from here.
        let totals = Totals { seq: seq - 1, ..Totals::default() };
        Index::create(&self.region, (offset, REGION_RESERVE), map, seq, previous, totals)?;
        Ok(offset)
    }

    /// Switches a map to the fresh region that the record of a clear names, unless that was done.
    pub(crate) fn switch_to_fresh(&self, writer: &mut Writer, clear: Record<'_>) -> Result<Index<'_>> {
        let fresh = clear.target().ok_or_else(|| self.region.corrupt(clear.offset, "a clear without a region"))?;
        let (map, old) = (clear.header.map(), self.index_for_writing(clear.header.map())?.offset());
        if old != fresh {
            self.map_table()?.set_region(map, extent_word(fresh, REGION_RESERVE))?;
            writer.space.set_kind(&self.region, old, ExtentKind::Retired, clear.seq())?;
        }
        Index::open(&self.region, fresh)
    }

    /// Gives the index of a map room for `new` more slots, in one go: by building it anew, or, if there is no space for
    /// that, by letting go of tombstones that no reader needs.
    ///
    /// While a transaction has records out that refer to tombstones, they have to be kept (`may_drop_tombstones`).
    pub(crate) fn make_index_room(
        &self,
        writer: &mut Writer,
        map: u32,
        new: u64,
        seq: u64,
        may_drop_tombstones: bool,
    ) -> Result<Index<'_>> {
        let old = self.index_for_writing(map)?;
        let totals = old.totals()?;
        let tombstones = totals.slots.saturating_sub(totals.keys);
        // Looking for them means a look at every record, so there must be something to gain.
        let drop_tombstones = may_drop_tombstones && tombstones > totals.slots / 4;
        let kept = if drop_tombstones { totals.keys } else { totals.slots };
        let needed = kept.saturating_add(new);
        let roomy = if needed < SMALL_INDEX { needed * 2 } else { needed.saturating_add(needed / 2) };
        match self.rebuild_index(writer, map, roomy, seq, drop_tombstones) {
            Err(full @ Error::Full { .. }) if may_drop_tombstones && tombstones > 0 => {
                // Dead slots can be given to new keys, so there is room as long as the values leave some.
                let totals = self.retire_tombstones(&old)?;
                if totals.slots.saturating_add(new) <= old.limit() { Ok(old) } else { Err(full) }
            }
            rebuilt => rebuilt,
        }
    }

    /// Builds the index of a map anew with room for `slots`, and switches to it. The old region is retired.
    pub(crate) fn rebuild_index(
        &self,
        writer: &mut Writer,
        map: u32,
        slots: u64,
        seq: u64,
        drop_tombstones: bool,
    ) -> Result<Index<'_>> {
        let old = self.index_for_writing(map)?;
        let mut totals = old.totals()?;
        let blocks = index::blocks_for(slots);
        let extent = self.allocate(writer, blocks, ExtentKind::Index, seq)?;
        let new = (extent.offset, blocks);
        let new = Index::create(&self.region, new, map, old.since(), old.previous_offset(), Totals::default())?;
        totals.slots = 0;
        for slot in old.iter() {
            let slot = slot?;
            let Some(record) = slot.record else { continue };
            if drop_tombstones && log::record(&self.region, record)?.kind() == Some(Kind::Remove) {
                continue;
            }
            match new.probe(slot.hash, |_| Ok(false))? {
                Some(Probe::Vacant(at, _)) => new.publish(at, slot.hash, record, true)?,
                _ => return Err(self.region.corrupt(old.offset(), "the index has more slots than it counts")),
            }
            totals.slots += 1;
        }
        totals.dead = 0;
        new.reset_totals(totals)?;
        self.map_table()?.set_region(map, new.extent())?;
        writer.space.set_kind(&self.region, old.offset(), ExtentKind::Retired, seq)?;
        Ok(new)
    }

    /// Marks the slots of tombstones dead that are older than every pin, in place.
    fn retire_tombstones(&self, index: &Index<'_>) -> Result<Totals> {
        let unread_below = self.raise_horizon()?;
        let mut totals = Totals { slots: 0, dead: 0, ..index.totals()? };
        for slot in index.iter() {
            let slot = slot?;
            let Some(offset) = slot.record else {
                totals.dead += 1;
                continue;
            };
            let record = log::record(&self.region, offset)?;
            if record.kind() == Some(Kind::Remove) && record.seq() & COUNT_MASK <= unread_below {
                index.retire(slot.at)?;
                totals.dead += 1;
            } else {
                totals.slots += 1;
            }
        }
        index.amend_slots(totals.slots, totals.dead)?;
        Ok(totals)
    }

    /// Lets go of the tombstones of a map if they are many and its index is nearly full. For a transaction to call
    /// before it begins, since afterwards its records refer to them.
    pub(crate) fn tidy_index(&self, writer: &mut Writer, map: u32) -> Result<()> {
        let index = self.index_for_writing(map)?;
        let totals = index.totals()?;
        let tombstones = totals.slots.saturating_sub(totals.keys);
        if totals.used() > index.limit() / 2 && tombstones > totals.slots / 2 {
            let seq = self.next_seq()?;
            match self.make_index_room(writer, map, 1, seq, true) {
                // A full store does without.
                Ok(_) | Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives a map its first region, with room for `slots`.
    pub(crate) fn create_map(&self, writer: &mut Writer, map: u32, slots: u64, seq: u64) -> Result<Index<'_>> {
        let mut extent = self.allocate(writer, index::blocks_for(slots), ExtentKind::Index, seq);
        if matches!(extent, Err(Error::Full { .. })) {
            // A full store is to be recovered in the space that it has, be it with longer searches.
            extent = self.allocate(writer, index::tight_blocks_for(slots), ExtentKind::Index, seq);
        }
        let extent = extent?;
        let new = (extent.offset, extent.blocks);
        let index = Index::create(&self.region, new, map, seq, 0, Totals { seq, ..Totals::default() })?;
        if !self.map_table()?.set_region(map, index.extent())? {
            self.grow_map_table(writer, seq)?;
            self.map_table()?.set_region(map, index.extent())?;
        }
        Ok(index)
    }

    /// Makes the first map table.
    pub(crate) fn create_map_table(&self, writer: &mut Writer, seq: u64) -> Result<()> {
        let extent = self.allocate(writer, 1, ExtentKind::Table, seq)?;
        MapTable::create(&self.region, extent.offset, 1)?;
        self.region.store_live(live::MAP_TABLE, table_word(extent.offset, 1), Ordering::Release)
    }

    fn grow_map_table(&self, writer: &mut Writer, seq: u64) -> Result<()> {
        let old_word = self.region.live(live::MAP_TABLE)?;
        let old = MapTable::open(&self.region, old_word)?;
        let blocks = crate::file::layout::extent_blocks(old_word) * 2;
        let extent = self.allocate(writer, blocks, ExtentKind::Table, seq)?;
        MapTable::create(&self.region, extent.offset, blocks)?.copy_from(&old)?;
        self.region.store_live(live::MAP_TABLE, table_word(extent.offset, blocks), Ordering::Release)?;
        writer.space.set_kind(&self.region, extent_offset(old_word), ExtentKind::Retired, seq)
    }
}
