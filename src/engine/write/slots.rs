//! Slots: what a commit, or compaction, changes in the index of a map, and in the one that is being built beside it.
//!
//! **Invariants.** The index in force is always up to date. Each key in the one beside it has the same record, and it
//! has all keys whose slots lie in lines that were moved already; see [`resize`](crate::engine::upkeep::resize). So
//! every change of a slot is made here.

use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::state::writer::Writing;
use crate::error::Result;
use crate::file::index::{Index, Placed, Probe};
use crate::file::layout::{ExtentKind, KeyHash, MapId, Offset, extent_blocks, live};
use crate::file::log::{self, Record};

/// Where a key is in the index of its map.
#[derive(Clone, Copy)]
pub(crate) struct Place<'e> {
    pub(crate) index: Index<'e>,
    pub(crate) map: MapId,
    pub(crate) hash: KeyHash,
    /// Its slot, or the slot it will get.
    pub(crate) slot: Probe,
}

/// What a resize does with the slots of tombstones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tombstones {
    Kept,
    /// They are left out.
    Dropped,
}

/// How far a resize has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResizeProgress {
    pub(crate) map: MapId,
    /// Lines of the old region, and how many of them are moved.
    pub(crate) lines: u64,
    pub(crate) moved: u64,
    /// Lines of the new region.
    pub(crate) target_lines: u64,
}

impl Engine {
    /// The word that describes the resize in progress; zero if there is none.
    #[inline]
    pub(crate) fn resize_cursor(&self) -> Result<u64> {
        self.mapping.live(live::RESIZE_CURSOR)
    }

    /// Offset of the region that is being built.
    pub(crate) fn resize_target(&self) -> Result<Option<Offset>> {
        Ok((self.resize_cursor()? != 0).then_some(Offset::of_extent_word(self.mapping.live(live::RESIZE_TARGET)?)))
    }

    /// The index that is being built beside `index`, and the line up to which the old one is moved; `None` if it is
    /// still empty.
    pub(crate) fn resize_to_mirror(&self, index: &Index<'_>, map: MapId) -> Result<Option<(Index<'_>, u64)>> {
        let cursor = self.resize_cursor()?;
        if cursor == 0 || map_of(cursor) != map {
            return Ok(None);
        }
        let target = self.mapping.live(live::RESIZE_TARGET)?;
        if self.mapping.live(live::RESIZE_ZEROED)? < extent_blocks(target) {
            return Ok(None);
        }
        let target = Index::of_extent(&self.mapping, target)?;
        // A clear may have put another one in force.
        Ok((target.previous_offset() == index.offset()).then_some((target, line_of(cursor))))
    }

    /// How far the resize in progress has come.
    pub(crate) fn resize_progress(&self) -> Result<Option<ResizeProgress>> {
        if !self.is_live()? {
            return Ok(None);
        }
        let cursor = self.resize_cursor()?;
        if cursor == 0 {
            return Ok(None);
        }
        let target_lines =
            crate::file::layout::lines_of_blocks(extent_blocks(self.mapping.live(live::RESIZE_TARGET)?).max(1));
        let map = map_of(cursor);
        let Some(index) = self.index(map)? else { return Ok(None) };
        Ok(Some(ResizeProgress { map, lines: index.lines(), moved: line_of(cursor), target_lines }))
    }
}

impl<'e> Writing<'e> {
    /// Points the slot of a key at its newest record; gives the key a slot if it has none.
    #[inline(always)]
    pub(crate) fn publish_slot(&mut self, place: &Place<'_>, record: Offset) -> Result<()> {
        match place.slot {
            Probe::Found(at, _) => place.index.publish(at, place.hash, record)?,
            Probe::Vacant(at, _) => place.index.give(at, place.hash, record)?,
        }
        self.mirror_slot(place, record)
    }

    /// Whether a slot that leads to `offset` is that of the key of this record.
    #[inline(always)]
    pub(super) fn is_succeeded_by(&self, offset: Offset, record: Record<'_>) -> Result<bool> {
        if record.is_damaged() {
            // It has the slot of the record that it stands for, whatever that one says.
            return Ok(offset == record.offset || offset == record.header.prev_offset());
        }
        self.engine.is_key(record.header.map(), record.key(), offset)
    }

    /// Repeats in the index that is being built what was done in the one in force.
    #[inline(always)]
    pub(super) fn mirror_slot(&mut self, place: &Place<'_>, record: Offset) -> Result<()> {
        if self.engine.resize_cursor()? == 0 { Ok(()) } else { self.mirror_slowly(place, record) }
    }

    #[cold]
    fn mirror_slowly(&mut self, place: &Place<'_>, record: Offset) -> Result<()> {
        let &Place { ref index, map, hash, slot } = place;
        let Some((target, cursor)) = self.engine.resize_to_mirror(index, map)? else { return Ok(()) };
        let newest = log::record(&self.engine.mapping, record)?;
        let is_key = |offset| self.is_succeeded_by(offset, newest);
        if slot.at().line() < cursor {
            // The resize may have left out a tombstone of this key, which has a value now.
            if target.place(hash, record, is_key)? == Placed::Full {
                self.give_up_resize()?;
            }
        } else if let Some(Probe::Found(there, _)) = target.probe(hash, is_key)? {
            // An interrupted step has moved it already.
            target.publish(there, hash, record)?;
        }
        Ok(())
    }

    /// Marks dead, and counts, the slot of a tombstone that no reader needs.
    pub(crate) fn retire_slot(&mut self, place: &Place<'_>) -> Result<()> {
        let &Place { ref index, map, hash, slot: Probe::Found(at, record) } = place else { return Ok(()) };
        index.retire_counted(at)?;
        if let Some((target, _)) = self.engine.resize_to_mirror(index, map)?
            && let Some(Probe::Found(there, _)) = target.probe(hash, |offset| Ok(offset == record))?
        {
            target.retire_counted(there)?;
        }
        Ok(())
    }

    /// Gives up a resize in the middle of a commit. The next holder of the writer lock gives its region back.
    #[cold]
    pub(crate) fn give_up_resize(&mut self) -> Result<()> {
        self.engine.left_something.store(true, Ordering::Relaxed);
        self.engine.mapping.store_live(live::RESIZE_CURSOR, 0, Ordering::Release)
    }
}

impl<'e> Writing<'e> {
    /// Whether the resize in progress builds from this index, in an extent taken for it.
    pub(crate) fn resize_is_current(&self, index: &Index<'_>) -> Result<bool> {
        let word = self.engine.mapping.live(live::RESIZE_TARGET)?;
        let (offset, blocks) = (Offset::of_extent_word(word), extent_blocks(word));
        let extent = self.writer.space.extent(offset).filter(|extent| extent.kind == ExtentKind::Index);
        if offset == index.offset() || extent.is_none_or(|extent| extent.blocks != blocks) {
            return Ok(false);
        }
        let target = Index::of_extent(&self.engine.mapping, word)?;
        Ok(target.previous_offset() == index.offset())
    }

    /// Gives up a resize that has not become visible.
    pub(crate) fn cancel_resize(&mut self) -> Result<()> {
        let Some(target) = self.engine.resize_target()? else { return Ok(()) };
        self.engine.mapping.store_live(live::RESIZE_CURSOR, 0, Ordering::Release)?;
        // A writer killed after the switch has put it in force.
        let in_force = self.engine.map_table()?.iter()?.any(|entry| entry.region() == target);
        let is_index = self.writer.space.extent(target).is_some_and(|extent| extent.kind == ExtentKind::Index);
        if in_force || !is_index { Ok(()) } else { self.writer.space.free(&self.engine.mapping, target) }
    }

    /// Gives up a resize of an index that is no longer in force.
    pub(crate) fn cancel_stale_resize(&mut self) -> Result<()> {
        let cursor = self.engine.resize_cursor()?;
        if cursor == 0 {
            return Ok(());
        }
        match self.engine.index(map_of(cursor))? {
            Some(index) if self.resize_is_current(&index)? => Ok(()),
            _ => self.cancel_resize(),
        }
    }
}

pub(crate) fn map_of(cursor: u64) -> MapId {
    MapId((((cursor >> 32) & 0x7fff_ffff) as u32).wrapping_sub(1))
}

pub(crate) fn line_of(cursor: u64) -> u64 {
    cursor & 0xffff_ffff
}

pub(crate) fn tombstones_of(cursor: u64) -> Tombstones {
    if cursor >> 63 != 0 { Tombstones::Dropped } else { Tombstones::Kept }
}
