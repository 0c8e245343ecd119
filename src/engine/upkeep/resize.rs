//! Resize: an index grows, shrinks, or loses its dead slots, by being built anew beside the one in force.
//!
//! A small one is built in one go. A larger one is built by the writers, each of which zeroes a block of the new region
//! or moves a few lines of the old one. The old one stays in force and up to date; a change of a slot is made in the
//! new one as well if the line of the slot was moved already ([`slots`](crate::engine::write::slots)). When all lines
//! are moved, one word of the map table switches. Since lines follow the order of hashes whatever their number, the new
//! region is filled in order.
//!
//! **The switch consumes a sequence number.** From that on the new region tells the truth; a reader from before goes on
//! with the old one, which is retired. So tombstones and dead slots can be left behind whatever readers there are.
//!
//! **It may come to nothing.** If more keys are added meanwhile than the new region has room for, as when a map was
//! emptied and is filled again, it is given up, and another one is begun when it is due. The one in force is not
//! touched by that.
//!
//! **A step that is cut short is done again**, by whoever writes next: what is there already is the same, and is
//! skipped.

use std::sync::atomic::Ordering;

use crate::engine::state::writer::Writing;
use crate::engine::write::slots::{drops_tombstones, line_of, map_of};
use crate::error::{Error, Result};
use crate::file::index::{self, Index, Placed, Probe, Totals};
use crate::file::layout::{COUNT_MASK, ExtentKind, Kind, live, resize_cursor};
use crate::file::log;

impl<'e> Writing<'e> {
    /// Marks the slots of tombstones dead that are older than every pin, in place.
    fn retire_tombstones(&mut self, index: &Index<'_>, map: u32) -> Result<Totals> {
        let unread_below = self.raise_horizon()?;
        for slot in index.iter() {
            let slot = slot?;
            let Some(offset) = slot.record else { continue };
            let record = log::record(&self.engine.region, offset)?;
            if record.kind() == Some(Kind::Remove) && record.seq() & COUNT_MASK <= unread_below {
                self.retire_slot(index, map, slot.at, slot.hash, offset)?;
            }
        }
        index.totals()
    }
}

impl<'e> Writing<'e> {
    /// Sees to it that `new` more slots of a map can be used, before a commit whose number will be `seq`. Begins to
    /// build a larger index when the one in force is three quarters full, and completes it only if that cannot wait.
    ///
    /// `kept_tombstones` says how many slots of tombstones the records of the commit refer to already.
    #[cold]
    pub(crate) fn make_index_room(&mut self, map: u32, new: u64, kept_tombstones: Option<u64>) -> Result<Index<'e>> {
        let index = self.engine.index_in_force(map)?;
        let totals = index.totals()?;
        let can_wait = totals.used().saturating_add(new) <= index.hard_limit();
        let cursor = self.engine.resize_cursor()?;
        let is_mine = cursor != 0 && map_of(cursor) == map && self.resize_is_current(&index)?;
        if is_mine && can_wait {
            return Ok(index);
        }
        let (needed, drops) = kept(&totals, new);
        let drops = drops && kept_tombstones.is_none();
        let needed = if drops { needed } else { totals.slots.saturating_add(new) };
        if is_mine {
            let target = Index::of_extent(&self.engine.region, self.engine.region.live(live::RESIZE_TARGET)?)?;
            if needed.max(totals.slots.saturating_add(new)) <= target.limit()
                && let Some(index) = self.complete_resize(map, kept_tombstones.unwrap_or(0))?
            {
                return Ok(index);
            }
        }
        if index.lines() > self.engine.settings.limits.lines_at_once && can_wait {
            if cursor != 0 {
                // Another map comes first; there is some room left.
                return Ok(index);
            }
            return match self.begin_resize(map, index::blocks_for(index::roomy(needed)), drops) {
                Ok(()) | Err(Error::Full { .. }) => Ok(index),
                Err(error) => Err(error),
            };
        }
        match self.rebuild_at_once(map, index::roomy(needed), self.seq()?, drops) {
            Err(Error::Full { .. }) if can_wait => Ok(index),
            Err(full @ Error::Full { .. }) if kept_tombstones.is_none() && totals.slots > totals.keys => {
                // Dead slots can be given to new keys, so there is room as long as the values leave some.
                let totals = self.retire_tombstones(&index, map)?;
                if totals.slots.saturating_add(new) <= index.limit() { Ok(index) } else { Err(full) }
            }
            rebuilt => rebuilt,
        }
    }

    /// Builds the index of a map anew in one go, with room for `slots`, and switches to it from the commit `seq` on.
    pub(crate) fn rebuild_at_once(
        &mut self,
        map: u32,
        slots: u64,
        seq: u64,
        drop_tombstones: bool,
    ) -> Result<Index<'e>> {
        let old = self.engine.index_in_force(map)?;
        self.engine.check_header(map, &old)?;
        let blocks = index::blocks_for(slots);
        let extent = self.allocate(blocks, ExtentKind::Index)?;
        let new = Index::create(
            &self.engine.region,
            (extent.offset, blocks),
            map,
            u64::MAX,
            old.offset(),
            Totals::default(),
        )?;
        let mut moved = Totals::default();
        for slot in old.iter() {
            let slot = slot?;
            let Some(record) = slot.record else { continue };
            if drop_tombstones && log::record(&self.engine.region, record)?.kind() == Some(Kind::Remove) {
                continue;
            }
            match new.probe(slot.hash, |_| Ok(false))? {
                Some(Probe::Vacant(at, _)) => new.publish(at, slot.hash, record, true)?,
                _ => return Err(self.engine.region.corrupt(old.offset(), "the index has more slots than it counts")),
            }
            moved.slots += 1;
        }
        self.engine.upkeep.count_lines(old.lines());
        self.engine.upkeep.count_blocks(blocks);
        self.switch(map, &old, &new, moved, seq)?;
        self.cancel_stale_resize()?;
        Ok(new)
    }

    /// Begins to build an index of `blocks` blocks for a map, of which nothing else is being built.
    pub(crate) fn begin_resize(&mut self, map: u32, blocks: u64, drop_tombstones: bool) -> Result<()> {
        let old = self.engine.index_in_force(map)?;
        self.engine.check_header(map, &old)?;
        let extent = self.allocate(blocks, ExtentKind::Index)?;
        let target = Index::begin(&self.engine.region, (extent.offset, blocks), map, old.offset())?;
        self.engine.region.store_live(live::RESIZE_TARGET, target.extent(), Ordering::Relaxed)?;
        self.engine.region.store_live(live::RESIZE_ZEROED, 1, Ordering::Relaxed)?;
        self.engine.region.store_live(live::RESIZE_CURSOR, resize_cursor(map, 0, drop_tombstones), Ordering::Release)
    }

    /// Zeroes `blocks` blocks of the region that is being built or moves `lines` lines to it, and says whether there is
    /// more to do. With the last line it switches, from the commit `seq` on; then `switched` is set.
    pub(crate) fn step_resize(&mut self, (blocks, lines): (u64, u64), switched: &mut bool) -> Result<bool> {
        let cursor = self.engine.resize_cursor()?;
        if cursor == 0 {
            return Ok(false);
        }
        let (map, line) = (map_of(cursor), line_of(cursor));
        let Some(source) = self.engine.index(map)?.filter(|index| self.resize_is_current(index).unwrap_or(false))
        else {
            return self.cancel_resize().map(|()| false);
        };
        let target = Index::of_extent(&self.engine.region, self.engine.region.live(live::RESIZE_TARGET)?)?;
        let zeroed = self.engine.region.live(live::RESIZE_ZEROED)?;
        if zeroed < target.blocks() {
            let end = (zeroed + blocks).min(target.blocks());
            (zeroed..end).try_for_each(|block| target.zero_block(block))?;
            self.engine.region.store_live(live::RESIZE_ZEROED, end, Ordering::Release)?;
            self.engine.upkeep.count_blocks(end - zeroed);
            return Ok(true);
        }
        let drops = drops_tombstones(cursor);
        let end = (line + lines).min(source.lines()).max(line);
        for slot in source.slots_of_lines(line, end) {
            let slot = slot?;
            let Some(record) = slot.record else { continue };
            if drops && log::record(&self.engine.region, record)?.kind() == Some(Kind::Remove) {
                continue;
            }
            // What the new index has of the key is the same record.
            if target.place(slot.hash, record, |offset| Ok(offset == record))? == Placed::Full {
                return self.cancel_resize().map(|()| false);
            }
        }
        if target.totals()?.used() > target.hard_limit() {
            return self.cancel_resize().map(|()| false);
        }
        self.engine.region.store_live(live::RESIZE_CURSOR, resize_cursor(map, end, drops), Ordering::Release)?;
        self.engine.upkeep.count_lines(end - line);
        if end < source.lines() {
            return Ok(true);
        }
        let moved = target.totals()?;
        self.switch(map, &source, &target, moved, self.seq()?)?;
        *switched = true;
        Ok(false)
    }

    /// Takes the resize to its end, with room for slots of tombstones that were left out and are needed all the same.
    /// `None` if it was given up.
    fn complete_resize(&mut self, map: u32, tombstones: u64) -> Result<Option<Index<'e>>> {
        let mut switched = false;
        while self.step_resize((u64::MAX >> 1, u64::MAX >> 32), &mut switched)? {}
        if !switched {
            return Ok(None);
        }
        let index = self.engine.index_in_force(map)?;
        if tombstones > 0 {
            let totals = index.totals()?;
            index.amend_slots(totals.slots.saturating_add(tombstones), totals.dead)?;
        }
        Ok(Some(index))
    }

    /// Puts a new index in force.
    fn switch(&mut self, map: u32, old: &Index<'_>, new: &Index<'_>, moved: Totals, seq: u64) -> Result<()> {
        let Totals { keys, bytes, .. } = old.totals()?;
        new.reset_totals(Totals { seq: seq - 1, keys, bytes, slots: moved.slots, dead: moved.dead })?;
        new.set_since(seq)?;
        self.engine.map_table()?.set_region(map, new.extent())?;
        if self.engine.resize_target()? == Some(new.offset()) {
            self.engine.region.store_live(live::RESIZE_CURSOR, 0, Ordering::Release)?;
        }
        self.writer.space.set_kind(&self.engine.region, old.offset(), ExtentKind::Retired, seq)
    }

    /// Begins to build a smaller index, or one without dead slots, if most of the map was removed.
    pub(crate) fn shrink_if_due(&mut self, map: u32) -> Result<bool> {
        let index = self.engine.index_in_force(map)?;
        let totals = index.totals()?;
        if index.blocks() == 1 || totals.keys >= index.limit() / 4 || totals.used() <= index.limit() / 4 {
            return Ok(false);
        }
        let blocks = index::blocks_for(index::roomy(totals.keys));
        if index.lines() <= self.engine.settings.limits.lines_at_once {
            self.rebuild_at_once(map, index::roomy(totals.keys), self.seq()?, true)?;
            return Ok(true);
        }
        self.begin_resize(map, blocks, true).map(|()| false)
    }
}

/// How many slots an index needs that takes `new` more, and whether it is built without the tombstones. Looking for
/// them means a look at every record, so there must be something to gain.
fn kept(totals: &Totals, new: u64) -> (u64, bool) {
    let tombstones = totals.slots.saturating_sub(totals.keys);
    let drops = tombstones > totals.slots / 4;
    (if drops { totals.keys } else { totals.slots }.saturating_add(new), drops)
}
