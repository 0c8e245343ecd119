//! Eviction: room in a store that removes entries rather than reject a change.
//!
//! The log is a queue, so the oldest entries lie at its head. [Cleaning](super::clean) passes them there: it appends a
//! tombstone for each, which is dropped when it comes to the head itself, or moves the entry if it was read (second
//! chance). So the work is in proportion to what is passed, however much the store holds.
//!
//! **What there is room in.** All extents that the log takes have the same length, the cell, and lie on a grid; the log
//! goes through free cells in the order of their addresses. So any cell that was passed can be used next; and cells
//! that were passed one after the other lie side by side, for whatever is longer. A cell is held back for the
//! tombstones of what is evicted; it is filled again before anything else gets a cell. So is the place for another
//! index of the size of the largest one, which it alternates with to shed the slots of what was evicted. An index
//! grows as long as there is room without evicting anything for it; then the keys that it has room for are the limit.
//!
//! **Why a change finds room in the end.** Each step passes more than it appends, unless keys are long and values
//! short. Even then, once along the log only tombstones are left, which are dropped. Where a piece of the log is
//! missing even for those, all maps are cleared, with a block that is held back for that. What remains is what readers
//! hold.
//!
//! Each write does a share, so that no write has to wait for much.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::clean::{Aim, Portion};
use super::resize::most_keys;
use crate::engine::state::writer::Writing;
use crate::engine::write::commit::Clearing;
use crate::engine::write::slots::Tombstones;
use crate::error::{Error, Result};
use crate::file::layout::{CATALOGUE, live};

/// So many cells are kept free, those that only wait for a checkpoint included.
const KEPT_FREE: u64 = 2;

/// How many bytes a write passes for each byte that it appends, until so much is free.
const PACE: u64 = 4;

/// Bytes of a tombstone whose key is not long.
const USUAL_TOMBSTONE: u64 = 64;

/// How long a change waits for the readers of what was evicted: longer than a single read takes, even if its thread
/// gets no processor for a while.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest sleep between two looks at readers.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// What a transaction finds: a cell for its records, and one for a larger index.
const AHEAD: Needed = Needed { bytes: 0, cells: 2 };

/// The room that a change needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    /// Bytes in one piece, for anything.
    pub(crate) bytes: u64,
    /// Cells for the log.
    pub(crate) cells: u64,
}

impl Writing<'_> {
    /// Evicts in proportion to the `due` bytes that were appended, if little room is left, and says whether it was. As
    /// long as much of the log is dead, that is what makes room, and what is alive is moved.
    pub(super) fn evict_share(&mut self, cell: u64, due: u64, much_is_dead: bool) -> Result<bool> {
        let is_crowded = self.is_crowded()?;
        if !is_crowded && !self.is_short_of_room(cell) {
            return Ok(false);
        }
        if self.engine.upkeep.rest.goes_on() || self.engine.is_poisoned() {
            return Ok(true);
        }
        let aim = if !is_crowded && much_is_dead { Aim::Upkeep } else { Aim::Eviction };
        let mut left = due.saturating_mul(PACE);
        // What readers hold does not become more useful by being more.
        while left > 0
            && self.writer.waiting.pins < KEPT_FREE * cell
            && (self.is_short_of_room(cell) || self.is_crowded()?)
        {
            let bytes = left.min(self.engine.settings.limits.most_bytes);
            let cleaned = self.clean(Portion { bytes, aim })?;
            if cleaned.passed == 0 {
                break;
            }
            left = left.saturating_sub(cleaned.passed);
            if cleaned.emptied > 0 {
                self.reclaim()?;
                if self.writer.waiting.checkpoint >= cell {
                    self.engine.upkeep.want_checkpoint();
                }
            }
        }
        Ok(true)
    }

    /// Estimates the bytes of tombstones in the log: those of what was evicted are there as long as its place in the
    /// queue, and moving what is alive does not help against them.
    pub(super) fn tombstone_bytes(&self, live: u64) -> Result<u64> {
        let (mut tombstones, mut keys) = (0u64, 0u64);
        for entry in self.engine.map_table()?.iter()? {
            let totals = self.engine.index_in_force(entry.map)?.totals()?;
            tombstones += totals.slots.saturating_sub(totals.keys);
            keys += totals.keys;
        }
        Ok(tombstones * USUAL_TOMBSTONE.min(live / keys.max(1)))
    }

    /// Whether fewer cells are free than are kept free. What waits for a checkpoint counts as free.
    fn is_short_of_room(&self, cell: u64) -> bool {
        let free = self.writer.space.free_cells(&self.engine.mapping, cell);
        free + self.writer.waiting.checkpoint / cell < KEPT_FREE
    }

    /// Whether a map has more keys than its index has room for, once the slots of tombstones are left out, and the
    /// index cannot grow.
    fn is_crowded(&self) -> Result<bool> {
        let Some(map) = self.writer.refused else { return Ok(false) };
        let Some(index) = self.engine.index(map)? else { return Ok(false) };
        Ok(index.totals()?.keys > most_keys(&index))
    }

    /// Makes room, and says whether there is some: readers may hold it.
    #[cold]
    pub(crate) fn make_room(&mut self, needed: Needed) -> Result<bool> {
        // Once more, since readers that are gone by now may have kept tombstones.
        for _ in 0..2 {
            if self.evict_for(needed)? {
                return Ok(true);
            }
            if self.writer.waiting.pins > 0 {
                return Ok(false);
            }
        }
        self.engine.upkeep.evicted.clears.fetch_add(1, Ordering::Relaxed);
        match self.within_file(Self::clear_all) {
            // Nothing at all is free, and those that made the file longer than the limit have held nothing back.
            Err(Error::Full { .. }) if self.engine.mapping.is_too_long() => {
                self.exceeding(u64::MAX, Self::clear_all)?;
            }
            cleared => cleared?,
        }
        self.evict_for(needed)
    }

    /// Evicts until there is room, and says whether there is.
    fn evict_for(&mut self, needed: Needed) -> Result<bool> {
        let cell = self.engine.settings.cell().unwrap_or_default();
        let enough = needed.bytes.max(needed.cells * cell);
        let mut goal = self.engine.end_of_log()?;
        let mut again = false;
        // Tombstones are dropped as soon as they can be.
        self.writer.unread_below = (self.raise_horizon()?, self.engine.mapping.live_seq(live::VISIBLE)?.count());
        loop {
            if self.has_room_for(needed)? {
                return Ok(true);
            }
            if self.writer.waiting.pins >= enough {
                if self.wait_for_readers(needed, enough)? {
                    return Ok(true);
                }
                if self.writer.waiting.pins >= enough {
                    return Ok(false);
                }
                // They are gone, and what they held lies in pieces: more goes.
            }
            if self.engine.head_for_writing()?.bytes >= goal && !std::mem::replace(&mut again, true) {
                // The tombstones that were appended meanwhile are dropped.
                goal = self.engine.end_of_log()?;
            }
            if self.engine.head_for_writing()?.bytes >= goal || !self.evict_somehow()? {
                return if self.writer.waiting.pins > 0 { self.wait_for_readers(needed, 1) } else { Ok(false) };
            }
        }
    }

    /// Makes room ahead of a transaction, since nothing can be evicted while it goes on: cells for its records, and in
    /// each index some slots.
    pub(crate) fn evict_ahead(&mut self) -> Result<()> {
        for entry in self.engine.map_table()?.iter()?.filter(|entry| !entry.dropped) {
            let index = self.engine.index_in_force(entry.map)?;
            if index.totals()?.used() <= index.limit().midpoint(index.hard_limit()) {
                continue;
            }
            let of_keys = (index.totals()?.keys, Tombstones::Dropped);
            if self.grow_in_cache(entry.map, &index, of_keys, false)?.is_some() {
                self.skip_number()?;
                continue;
            }
            while index.totals()?.keys > most_keys(&index) && self.evict_extent()? {}
            let place = (index.limit(), Tombstones::Dropped);
            let rebuilt = match self.rebuild(entry.map, &index, place, false) {
                // The tombstones of long keys have taken the place that was held back.
                Err(Error::Full { needed, .. }) if self.evict_for(Needed { bytes: needed, cells: 0 })? => {
                    self.rebuild(entry.map, &index, place, false)
                }
                rebuilt => rebuilt,
            };
            match rebuilt {
                Ok(_) => self.skip_number()?,
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.make_room(AHEAD).map(drop)
    }

    /// Evicts until an extent was passed, in a file that is longer than the limit beyond that if necessary. `false` if
    /// that is impossible.
    fn evict_somehow(&mut self) -> Result<bool> {
        Ok(self.evict_extent()? || self.within_file(|writing| writing.evict_extent())?)
    }

    /// Evicts until an extent was passed. `false` if that is impossible.
    fn evict_extent(&mut self) -> Result<bool> {
        let most = self.engine.settings.limits.most_bytes;
        let mut bytes = most;
        loop {
            match self.clean(Portion { bytes, aim: Aim::Eviction }) {
                // The tombstones of a smaller piece may fit, at last that of a single record.
                Err(Error::Full { .. }) if bytes > 1 => bytes = (bytes / 8).max(1),
                Err(Error::Full { .. }) => return Ok(false),
                cleaned => {
                    let cleaned = cleaned?;
                    if cleaned.passed == 0 || cleaned.emptied > 0 {
                        return Ok(cleaned.emptied > 0);
                    }
                    bytes = most;
                }
            }
        }
    }

    /// Whether there is room, after what was emptied has been made free.
    fn has_room_for(&mut self, needed: Needed) -> Result<bool> {
        self.reclaim()?;
        if self.writer.waiting.checkpoint > 0 {
            self.checkpoint_in_turn(self.engine.settings.lock_timeout)?;
            self.reclaim()?;
        }
        if self.writer.waiting.pins > 0 {
            // What has only just been replaced is still that of the last commit.
            self.skip_number()?;
            self.reclaim()?;
        }
        let is_complete = self.refill_reserve()?;
        let (mapping, cell) = (&self.engine.mapping, self.engine.settings.cell().unwrap_or(u64::MAX));
        let has_cells = self.writer.space.free_cells(mapping, cell) >= needed.cells;
        Ok(is_complete && has_cells && self.writer.space.has_room(mapping, needed.bytes))
    }

    /// Waits for a while until readers no longer hold as many bytes as `held`, and says whether there is room then. For
    /// readers that were waited for in vain, it does not wait again.
    fn wait_for_readers(&mut self, needed: Needed, held: u64) -> Result<bool> {
        let start = Instant::now();
        let mut sleep = Duration::from_micros(20);
        loop {
            if self.has_room_for(needed)? {
                return Ok(true);
            }
            if self.writer.waiting.pins < held {
                return Ok(false);
            }
            let oldest = self.raise_horizon()?;
            if self.writer.waited_for == oldest {
                return Ok(false);
            }
            if start.elapsed() > PATIENCE {
                self.writer.waited_for = oldest;
                return Ok(false);
            }
            thread::sleep(sleep);
            sleep = (sleep * 2).min(LONGEST_SLEEP);
        }
    }

    /// Takes a step that makes room. A file that is longer than the limit is used as far as it goes: all of it may be
    /// in use.
    fn within_file<R>(&mut self, step: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let mapping = &self.engine.mapping;
        mapping.within_file(|| step(self))
    }

    /// Clears all maps, the largest first, where evicting their entries one by one makes no room.
    fn clear_all(&mut self) -> Result<()> {
        self.writer.spends_all = true;
        let cleared = self.clear_each();
        self.writer.spends_all = false;
        cleared
    }

    fn clear_each(&mut self) -> Result<()> {
        let mut maps = Vec::new();
        for entry in self.engine.map_table()?.iter()?.filter(|entry| entry.map != CATALOGUE && !entry.dropped) {
            let index = self.engine.index_in_force(entry.map)?;
            let totals = index.totals()?;
            maps.extend((totals.slots > 0).then(|| (totals.bytes, entry.map, index.offset())));
        }
        maps.sort_unstable_by(|one, other| other.cmp(one));
        for (_, map, old) in maps {
            if let Err(error) = self.commit_clear(map, old, Clearing::Keys) {
                return self.abandon().and(Err(error));
            }
        }
        Ok(())
    }
}
