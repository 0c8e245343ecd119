//! Resize: an index grows, shrinks, or loses its dead slots, by being built anew beside the one in force.
//!
//! A small one is built in one go. A larger one is built by the writers, each of which zeroes some blocks of the new
//! region or moves a few lines of the old one. The old one stays in force and up to date; a change of a slot is
//! repeated in the new one if the slot's line was moved already ([`slots`](crate::engine::write::slots)). When all
//! lines are moved, one word of the map table switches. Since lines follow the order of hashes whatever their number,
//! the new region is filled in order.
//!
//! **The switch consumes a sequence number.** From that number on the new region is valid; older readers continue with
//! the old one, which is retired. So tombstones and dead slots can be left behind whatever readers there are.
//!
//! **It may come to nothing.** If more keys are added meanwhile than the new region has room for, as when a map was
//! emptied and is filled again, the resize is given up, and another one is begun when it is due. The index in force is
//! not affected.
//!
//! **An interrupted step is done again** by the next writer, which skips what is there already.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::engine::settings::Policy;
use crate::engine::state::writer::Writing;
use crate::engine::write::slots::{Place, Tombstones, line_of, map_of, tombstones_of};
use crate::error::{Error, Result};
use crate::file::index::{self, Index, NewRegion, Probe, Sought, Totals};
use crate::file::layout::{BLOCK, ExtentKind, MapId, SLOTS, Seq, live, resize_cursor};
use crate::file::log;
use crate::telemetry;

/// How far a resize is moved on at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Blocks of the new region that are zeroed;
    pub(crate) blocks: u64,
    /// or if all are zeroed, lines of the old one that are moved.
    pub(crate) lines: u64,
}

/// Result of moving a resize on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// It continues.
    On,
    /// There is none, or it was given up.
    Idle,
    /// That was the last step: the new index is in force, from the commit in progress on.
    Switched,
}

impl<'e> Writing<'e> {
    /// Marks the slots of tombstones dead that are older than every pin, in place.
    fn retire_tombstones(&mut self, index: &Index<'_>, map: MapId) -> Result<Totals> {
        let unread_below = self.raise_horizon()?;
        for slot in index.iter() {
            let slot = slot?;
            let Some(offset) = slot.record else { continue };
            let Ok(record) = log::record(&self.engine.mapping, offset) else { continue };
            if record.is_sound_tombstone() && record.seq().count() <= unread_below {
                let slot = Place { index: *index, map, hash: slot.hash, slot: Probe::Found(slot.at, offset) };
                self.retire_slot(&slot)?;
            }
        }
        index.totals()
    }

    /// Makes sure that `new` more slots of a map can be used, before a commit. Begins to build a larger index when the
    /// one in force is three quarters full, and completes it only if that cannot wait.
    ///
    /// `kept_tombstones` is the number of tombstone slots that the records of the commit refer to already.
    #[cold]
    pub(crate) fn make_index_room(&mut self, map: MapId, new: u64, kept_tombstones: Option<u64>) -> Result<Index<'e>> {
        let index = self.engine.index_in_force(map)?;
        let totals = index.totals()?;
        let can_wait = totals.used().saturating_add(new) <= index.hard_limit();
        let cursor = self.engine.resize_cursor()?;
        let is_mine = cursor != 0 && map_of(cursor) == map && self.resize_is_current(&index)?;
        if is_mine && can_wait {
            return Ok(index);
        }
        let tombstones = match kept_tombstones {
            // Those of what was evicted are many, and come to an end only when they come to the head.
            None if self.engine.settings.evict.is_some() => Tombstones::Dropped,
            None => kept(&totals),
            Some(_) => Tombstones::Kept,
        };
        let slots = if tombstones == Tombstones::Dropped { totals.keys } else { totals.slots };
        let needed = slots.saturating_add(new);
        if is_mine {
            let target = Index::of_extent(&self.engine.mapping, self.engine.mapping.live(live::RESIZE_TARGET)?)?;
            if needed.max(totals.slots.saturating_add(new)) <= target.limit()
                && let Some(index) = self.complete_resize(map, kept_tombstones.unwrap_or(0))?
            {
                return Ok(index);
            }
        }
        let by_steps = index.lines() > self.engine.settings.limits.lines_at_once && can_wait;
        if by_steps && cursor != 0 {
            // Another map comes first; there is some room left.
            return Ok(index);
        }
        if self.engine.settings.evict.is_some() {
            return self.make_index_room_in_cache(map, &index, (new, needed), (tombstones, by_steps));
        }
        if by_steps {
            return match self.begin_resize(map, index::blocks_for(index::roomy(needed)), tombstones) {
                Ok(()) | Err(Error::Full { .. }) => Ok(index),
                Err(error) => Err(error),
            };
        }
        match self.rebuild_at_once(map, index::roomy(needed), self.seq()?, tombstones) {
            Err(Error::Full { .. }) if can_wait => Ok(index),
            Err(full @ Error::Full { .. }) if kept_tombstones.is_none() && totals.slots > totals.keys => {
                // New keys can take dead slots, so there is room as long as the values leave some.
                let totals = self.retire_tombstones(&index, map)?;
                if totals.slots.saturating_add(new) <= index.limit() { Ok(index) } else { Err(full) }
            }
            rebuilt => rebuilt,
        }
    }

    /// The same in a store that evicts: in a larger index as long as there is room for one, else in one of the same
    /// size without the slots of tombstones, for which a place is held back; or else in the slots that are left.
    #[cold]
    fn make_index_room_in_cache(
        &mut self,
        map: MapId,
        index: &Index<'e>,
        (new, needed): (u64, u64),
        (tombstones, by_steps): (Tombstones, bool),
    ) -> Result<Index<'e>> {
        let totals = index.totals()?;
        if let Some(grown) = self.grow_in_cache(map, index, (needed, tombstones), by_steps)? {
            return Ok(grown);
        }
        self.writer.refused = Some(map);
        let mut full = None;
        if tombstones == Tombstones::Dropped && totals.keys + new <= most_keys(index) {
            match self.rebuild(map, index, (index.limit(), tombstones), by_steps) {
                Err(error @ Error::Full { .. }) => full = Some(error),
                rebuilt => return rebuilt,
            }
        }
        if totals.used().saturating_add(new) <= index.last_limit() {
            return Ok(*index);
        }
        match self.rebuild_at_once(map, needed + needed / 16, self.seq()?, tombstones) {
            Err(error @ Error::Full { .. }) if tombstones == Tombstones::Dropped => full = full.or(Some(error)),
            rebuilt => return rebuilt,
        }
        let totals = self.retire_tombstones(index, map)?;
        match full {
            Some(full) if totals.slots.saturating_add(new) > index.limit() => Err(full),
            _ => Ok(*index),
        }
    }

    /// Makes a larger index in a store that evicts, if there is room for it and for as much again, which is held back
    /// for the next one. Returns the one in force then.
    pub(super) fn grow_in_cache(
        &mut self,
        map: MapId,
        index: &Index<'e>,
        (needed, tombstones): (u64, Tombstones),
        by_steps: bool,
    ) -> Result<Option<Index<'e>>> {
        let slots = index::roomy(needed);
        if !self.writer.space.has_room(&self.engine.mapping, index::blocks_for(slots) * BLOCK * 2) {
            return Ok(None);
        }
        self.writer.refused = None;
        let grown = match self.rebuild(map, index, (slots, tombstones), by_steps) {
            Err(Error::Full { .. }) => return Ok(None),
            grown => grown?,
        };
        match self.keep_reserve(0) {
            Ok(()) | Err(Error::Full { .. }) => Ok(Some(grown)),
            Err(error) => Err(error),
        }
    }

    /// Begins to build another index with room for `slots`, or builds it at once. Returns the one in force then.
    pub(super) fn rebuild(
        &mut self,
        map: MapId,
        index: &Index<'e>,
        (slots, tombstones): (u64, Tombstones),
        by_steps: bool,
    ) -> Result<Index<'e>> {
        match by_steps {
            true => self.begin_resize(map, index::blocks_for(slots), tombstones).map(|()| *index),
            false => self.rebuild_at_once(map, slots, self.seq()?, tombstones),
        }
    }

    /// Rebuilds the index of a map in one go, with room for `slots`, and switches to it from the commit `seq` on.
    pub(crate) fn rebuild_at_once(
        &mut self,
        map: MapId,
        slots: u64,
        seq: Seq,
        tombstones: Tombstones,
    ) -> Result<Index<'e>> {
        let old = self.engine.index_in_force(map)?;
        self.engine.check_header(map, &old)?;
        let blocks = index::blocks_for(slots);
        let extent = self.allocate_region(blocks)?;
        let (offset, previous, totals) = (extent.offset, old.offset(), Totals::default());
        let new = NewRegion { offset, blocks, map, since: Seq::MAX, previous, totals };
        let new = Index::create(&self.engine.mapping, new)?;
        if !self.move_lines(&old, &new, 0..old.lines(), tombstones)? {
            return Err(self.engine.mapping.corrupt(old.offset(), "the index has more slots than it counts"));
        }
        self.engine.upkeep.count_lines(old.lines());
        self.engine.upkeep.count_blocks(blocks);
        self.switch(map, &old, &new, seq)?;
        self.cancel_stale_resize()?;
        Ok(new)
    }

    /// Begins to build an index of `blocks` blocks for a map, while no other resize is in progress.
    pub(crate) fn begin_resize(&mut self, map: MapId, blocks: u64, tombstones: Tombstones) -> Result<()> {
        let old = self.engine.index_in_force(map)?;
        self.engine.check_header(map, &old)?;
        let extent = self.allocate_region(blocks)?;
        // It is valid from no number on yet.
        let (offset, previous, totals) = (extent.offset, old.offset(), Totals::default());
        let new = NewRegion { offset, blocks, map, since: Seq::MAX, previous, totals };
        let target = Index::begin(&self.engine.mapping, new)?;
        self.engine.mapping.store_live(live::RESIZE_TARGET, target.extent(), Ordering::Relaxed)?;
        self.engine.mapping.store_live(live::RESIZE_ZEROED, 1, Ordering::Relaxed)?;
        let cursor = resize_cursor(map, 0, tombstones == Tombstones::Dropped);
        self.engine.mapping.store_live(live::RESIZE_CURSOR, cursor, Ordering::Release)?;
        telemetry::on_resize_begun(self.engine.mapping.path(), &map, (old.lines(), target.lines()));
        Ok(())
    }

    /// Zeroes blocks of the region that is being built, or moves lines to it. After the last line it switches, from the
    /// commit in progress on.
    pub(crate) fn step_resize(&mut self, step: Step) -> Result<Stepped> {
        let cursor = self.engine.resize_cursor()?;
        if cursor == 0 {
            return Ok(Stepped::Idle);
        }
        let (map, line) = (map_of(cursor), line_of(cursor));
        let Some(source) = self.engine.index(map)?.filter(|index| self.resize_is_current(index).unwrap_or(false))
        else {
            return self.cancel_resize().map(|()| Stepped::Idle);
        };
        let target = Index::of_extent(&self.engine.mapping, self.engine.mapping.live(live::RESIZE_TARGET)?)?;
        let zeroed = self.engine.mapping.live(live::RESIZE_ZEROED)?;
        if zeroed < target.blocks() {
            let end = (zeroed + step.blocks).min(target.blocks());
            target.zero_blocks(zeroed..end)?;
            self.engine.mapping.store_live(live::RESIZE_ZEROED, end, Ordering::Release)?;
            self.engine.upkeep.count_blocks(end - zeroed);
            return Ok(Stepped::On);
        }
        let tombstones = tombstones_of(cursor);
        let end = (line + step.lines).min(source.lines()).max(line);
        if !self.move_lines(&source, &target, line..end, tombstones)? {
            return self.cancel_resize().map(|()| Stepped::Idle);
        }
        if target.totals()?.used() > target.hard_limit() {
            return self.cancel_resize().map(|()| Stepped::Idle);
        }
        let cursor = resize_cursor(map, end, tombstones == Tombstones::Dropped);
        self.engine.mapping.store_live(live::RESIZE_CURSOR, cursor, Ordering::Release)?;
        self.engine.upkeep.count_lines(end - line);
        if end < source.lines() {
            return Ok(Stepped::On);
        }
        self.switch(map, &source, &target, self.seq()?)?;
        Ok(Stepped::Switched)
    }

    /// Gives slots of the new index to the keys of some lines of the old one, except those that have one there. Says
    /// whether there were enough.
    fn move_lines(
        &mut self,
        source: &Index<'_>,
        target: &Index<'_>,
        lines: Range<u64>,
        tombstones: Tombstones,
    ) -> Result<bool> {
        let Totals { slots, dead, .. } = target.totals()?;
        // Counted first: after an interruption too many are counted, never too few.
        let most = lines.end.saturating_sub(lines.start).saturating_mul(SLOTS as u64);
        target.amend_slots(slots.saturating_add(most), dead)?;
        let (mut given, mut revived) = (0, 0);
        let marks = self.engine.settings.evict == Some(Policy::SecondChance);
        let (mapping, lines_of_target) = (&self.engine.mapping, target.as_lines());
        let (window, door) = (mapping.window(), mapping.door()?);
        for slot in source.slots_of_lines(lines.start, lines.end) {
            let slot = slot?;
            let Some(record) = slot.record else { continue };
            // A slot that leads to damage is kept: compaction will find it.
            if tombstones == Tombstones::Dropped
                && log::record(&self.engine.mapping, record).is_ok_and(|record| record.is_sound_tombstone())
            {
                continue;
            }
            // The new index has the same record for the key.
            match lines_of_target.seek_slot_of(window, slot.hash, record) {
                Sought::Found(..) => continue,
                Sought::Vacant(spot) => spot.give(door, slot.hash, record),
                Sought::Unclear => match target.probe(slot.hash, |offset| Ok(offset == record))? {
                    Some(Probe::Found(..)) => continue,
                    Some(Probe::Vacant(at, was_dead)) => {
                        target.give(at, slot.hash, record)?;
                        revived += u64::from(was_dead);
                    }
                    None => return Ok(false),
                },
            }
            given += 1;
            if marks && source.is_marked(slot.hash)? {
                lines_of_target.mark(mapping, slot.hash);
            }
        }
        target.amend_slots(slots.saturating_add(given), dead.saturating_sub(revived))?;
        Ok(true)
    }

    /// Takes the resize to its end, with room for the slots of left-out tombstones that are needed after all. `None` if
    /// it was given up.
    fn complete_resize(&mut self, map: MapId, tombstones: u64) -> Result<Option<Index<'e>>> {
        loop {
            match self.step_resize(Step { blocks: u64::MAX >> 1, lines: u64::MAX >> 32 })? {
                Stepped::On => {}
                Stepped::Idle => return Ok(None),
                Stepped::Switched => break,
            }
        }
        let index = self.engine.index_in_force(map)?;
        if tombstones > 0 {
            let totals = index.totals()?;
            index.amend_slots(totals.slots.saturating_add(tombstones), totals.dead)?;
        }
        Ok(Some(index))
    }

    /// Puts a new index in force, all of whose slots are given and counted.
    fn switch(&mut self, map: MapId, old: &Index<'_>, new: &Index<'_>, seq: Seq) -> Result<()> {
        let (Totals { keys, bytes, .. }, moved) = (old.totals()?, new.totals()?);
        new.reset_totals(Totals { seq: seq.before(), keys, bytes, slots: moved.slots, dead: moved.dead })?;
        new.set_since(seq)?;
        self.engine.map_table()?.set_region(map, new.extent())?;
        if self.engine.resize_target()? == Some(new.offset()) {
            self.engine.mapping.store_live(live::RESIZE_CURSOR, 0, Ordering::Release)?;
        }
        self.writer.space.set_kind(&self.engine.mapping, old.offset(), ExtentKind::Retired, seq)?;
        telemetry::on_index_replaced(self.engine.mapping.path(), &map, (old.lines(), new.lines()));
        Ok(())
    }

    /// Begins to build a smaller index, or one without dead slots, if most of the map was removed.
    pub(crate) fn shrink_if_due(&mut self, map: MapId) -> Result<bool> {
        let index = self.engine.index_in_force(map)?;
        let totals = index.totals()?;
        if index.blocks() == 1 || totals.keys >= index.limit() / 4 || totals.used() <= index.limit() / 4 {
            return Ok(false);
        }
        let blocks = index::blocks_for(index::roomy(totals.keys));
        if index.lines() <= self.engine.settings.limits.lines_at_once {
            self.rebuild_at_once(map, index::roomy(totals.keys), self.seq()?, Tombstones::Dropped)?;
            return Ok(true);
        }
        self.begin_resize(map, blocks, Tombstones::Dropped).map(|()| false)
    }
}

/// How many keys an index may have that is rebuilt with the same size: then there is room for as long as the rebuilding
/// takes, and for what follows.
pub(super) fn most_keys(index: &Index<'_>) -> u64 {
    index.limit() / 5 * 4
}

/// Whether an index is rebuilt without its tombstones. Finding them means reading every record, so there must be
/// something to gain.
fn kept(totals: &Totals) -> Tombstones {
    let tombstones = totals.slots.saturating_sub(totals.keys);
    if tombstones > totals.slots / 4 { Tombstones::Dropped } else { Tombstones::Kept }
}
