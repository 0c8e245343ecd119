//! Upkeep: what each write does beyond its own commit, so that no large piece of work is ever due at once.
//!
//! After its commit, with the writer lock still held, a write moves a resize on by a few lines. If the dead share of
//! the log exceeds the limit, the write that completes another 4 KiB of the log cleans a piece of it at the head. The
//! piece is a multiple of what was appended since the last one, so that cleaning keeps up with writing whatever lies at
//! the head, and longer the more is dead. When the emptied space is large compared to what is alive, upkeep asks for a
//! checkpoint, which the write takes when the lock is free again.
//!
//! Upkeep that fails does not fail the write. On a full disk it is tried again; in any other case it
//! [rests](crate::engine::state::rest) first.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::clean::{Aim, Cleaned, Portion};
use super::resize::{Step, Stepped};
use crate::engine::Engine;
use crate::engine::state::live_area::LogTotals;
use crate::engine::state::writer::Writing;
use crate::engine::write::reclaim::LEAST_CUT;
use crate::engine::write::reserve::Room;
use crate::engine::write::slots::{Tombstones, tombstones_of};
use crate::error::{Error, Result};
use crate::file::index::{self, Index};
use crate::file::layout::{BLOCK, ExtentKind, MapId, Offset, live};
use crate::file::space::{Extent, LogPoint, Waiting};
use crate::telemetry;

/// The least that is worth cleaning, in bytes.
const LEAST_PIECE: u64 = 512;

/// How much faster the log is cleaned when all of it is dead than at the limit.
const HASTE: f64 = 8.0;

/// With a thread for upkeep, writers help from this `excess` on.
const LATE: f64 = 0.3;

/// How long a write that cleans a full store waits for the holder of the superblock lock.
const PATIENCE: Duration = Duration::from_millis(100);

impl Engine {
    #[cold]
    fn rest_from_upkeep(&self, error: &Error) {
        let left = self.upkeep.rest.begin(error);
        telemetry::on_rest(self.mapping.path(), error, left);
        // The next writer finds what was begun.
        self.left_something.store(true, Ordering::Relaxed);
    }

    /// Whether a writer leaves the resize to the thread for upkeep.
    fn leaves_resize(&self, maps: &[MapId]) -> Result<bool> {
        if !self.settings.background_maintenance {
            return Ok(false);
        }
        self.upkeep.wake();
        let is_far = |index: Index<'_>| Ok(index.totals()?.used() < index.limit().midpoint(index.hard_limit()));
        for &map in maps {
            if !self.index(map)?.map_or(Ok(true), is_far)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether readers that keep `kept` emptied bytes hold cleaning up.
    fn hold_up(&self, kept: u64, live: u64) -> bool {
        kept > self.settings.limits.least_waiting.max(live / 2)
    }

    /// All bytes that wait for readers: if these hold cleaning up, the dead bytes of the log wait as well as the `kept`
    /// bytes that are emptied already.
    pub(crate) fn held_back(&self, kept: u64) -> Result<u64> {
        let live = self.live_bytes()?;
        if !self.hold_up(kept, self.upkeep.expired.alive_of(live)) {
            return Ok(kept);
        }
        Ok(kept.saturating_add(self.log_size()?.bytes.saturating_sub(live)))
    }

    /// Whether a write to a full store cleans it.
    pub(crate) fn squeezes(&self) -> bool {
        self.settings.auto_compact.is_some() && !self.upkeep.rest.goes_on()
    }

    /// Space that is no longer in use and has to wait, with the dead bytes of the log that cannot be emptied for the
    /// same reason; and how many bytes are free for the next allocation to reclaim.
    pub(crate) fn waiting(&self) -> Result<(Waiting, u64)> {
        let Some(space) = self.space_now()? else { return Ok(Default::default()) };
        let durable = match self.at_rest()? {
            Some(_) => {
                let superblock = self.superblock()?;
                LogPoint { ordinal: superblock.head_ordinal.get(), at: superblock.log_head() }
            }
            None => self.durable_head()?,
        };
        let (mut waiting, unused) = space.waiting(self.lowest_pin()?, durable);
        waiting.pins = self.held_back(waiting.pins)?;
        Ok((waiting, unused.iter().map(Extent::len).sum()))
    }
}

impl<'e> Writing<'e> {
    /// Does the share of upkeep of a write to these maps that has appended `records` records. `before` are the counters
    /// of the log before it.
    #[inline(always)]
    pub(crate) fn upkeep_after(&mut self, maps: &[MapId], before: LogTotals, records: u64) {
        match self.upkeep_of_write(maps, before, records) {
            Ok(()) | Err(Error::Full { .. }) => {}
            Err(error) => self.engine.rest_from_upkeep(&error),
        }
        self.engine.upkeep.end_write();
    }

    #[inline(always)]
    fn upkeep_of_write(&mut self, maps: &[MapId], before: LogTotals, records: u64) -> Result<()> {
        let LogTotals { bytes: appended, live_bytes: live, .. } = self.engine.log_totals()?;
        if self.engine.resize_cursor()? != 0 {
            if !self.engine.leaves_resize(maps)? {
                let limits = &self.engine.settings.limits;
                let of_all = |of_one: u64| records.saturating_mul(of_one);
                self.step(Step { blocks: of_all(limits.blocks_a_step), lines: of_all(limits.lines_a_step) })?;
            }
        } else if live < before.live_bytes {
            for &map in maps {
                self.shrink(map)?;
                if self.engine.resize_cursor()? != 0 {
                    break;
                }
            }
        }
        self.engine.estimate_expired(maps)?;
        // A step has a fixed cost, which many writes share. The log shows where one is due, so that no process owes one
        // when it ends.
        let step = self.engine.settings.limits.clean_every;
        let since = (before.bytes % step).saturating_add(appended.saturating_sub(before.bytes));
        if since < step { Ok(()) } else { self.clean_if_worth_it(appended, since - since % step, live) }
    }

    /// Cleans in proportion to the `due` bytes that were appended since the last step, if enough is dead.
    #[cold]
    fn clean_if_worth_it(&mut self, appended: u64, due: u64, live: u64) -> Result<()> {
        let live = self.engine.upkeep.expired.alive_of(live);
        let Some(cell) = self.engine.settings.cell() else {
            return match self.excess(appended, live)? {
                Some(excess) => self.clean_after(due, excess, live),
                None => Ok(()),
            };
        };
        if self.engine.mapping.is_too_long() {
            self.shorten()?;
        }
        let excess = self.excess(appended, live + self.tombstone_bytes(live)?)?;
        match excess {
            _ if self.evict_share(cell, due, excess.is_some())? => Ok(()),
            Some(excess) => self.clean_after(due, excess, live),
            None => Ok(()),
        }
    }

    /// Moves the resize in progress on.
    #[cold]
    pub(super) fn step(&mut self, mut step: Step) -> Result<()> {
        // Where tombstones are left out, each slot costs reading its record.
        if tombstones_of(self.engine.resize_cursor()?) == Tombstones::Dropped {
            step.lines = (step.lines / 4).max(1);
        }
        if self.step_resize(step)? == Stepped::Switched { self.skip_number() } else { Ok(()) }
    }

    /// Begins to build a smaller index if one is due.
    #[inline]
    pub(super) fn shrink(&mut self, map: MapId) -> Result<()> {
        match self.shrink_if_due(map) {
            Ok(true) => self.skip_number(),
            Ok(false) | Err(Error::Full { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Cleans in proportion to the `appended` bytes.
    #[cold]
    fn clean_after(&mut self, appended: u64, excess: f64, live: u64) -> Result<()> {
        if self.engine.settings.background_maintenance && excess < LATE {
            self.engine.upkeep.wake();
            return Ok(());
        }
        if self.engine.upkeep.rest.goes_on() || self.is_held_up(live) || self.engine.is_poisoned() {
            return Ok(());
        }
        let limit = self.engine.settings.auto_compact.unwrap_or(1.0);
        let pace = (1.0 + HASTE * excess) / limit;
        // Once along the log is all that there is to be gained.
        let log = self.engine.log_size()?.bytes;
        let mut wanted = ((appended as f64 * pace) as u64).max(LEAST_PIECE).min(log);
        loop {
            let bytes = wanted.min(self.engine.settings.limits.most_bytes);
            let cleaned = self.clean_and_reclaim(Portion { bytes, aim: Aim::Upkeep })?;
            wanted = wanted.saturating_sub(cleaned.passed);
            if cleaned.passed == 0 || wanted == 0 {
                self.engine.upkeep.rest.end();
                return Ok(());
            }
        }
    }

    /// Whether readers hold back so much that cleaning should wait for them: what it empties would have to wait,
    /// too.
    pub(crate) fn is_held_up(&self, live: u64) -> bool {
        self.engine.hold_up(self.writer.waiting.pins, live)
    }

    /// Cleans, and if that has emptied anything, reclaims what can be used.
    pub(crate) fn clean_and_reclaim(&mut self, portion: Portion) -> Result<Cleaned> {
        let cleaned = self.clean(portion)?;
        if cleaned.emptied > 0 {
            self.reclaim()?;
            if self.writer.waiting.checkpoint
                > self.engine.settings.limits.least_waiting.max(self.engine.live_bytes()? / 8)
            {
                self.engine.upkeep.want_checkpoint();
            }
            // The log of a store that evicts comes by there again.
            if self.engine.settings.evict.is_none() {
                self.shorten()?;
            }
        }
        Ok(cleaned)
    }

    /// Makes the file shorter if enough of it is free. If a quarter is, or it is longer than its limit, and its last
    /// extent is not part of the log, which drifts down by itself, moves that extent to a lower place; an index moves
    /// line by line, as in a resize.
    fn shorten(&mut self) -> Result<()> {
        self.truncate_if_worth_it()?;
        let (end, used) = (self.writer.space.used_end(), self.writer.space.used_bytes());
        let is_too_long = self.engine.mapping.check_limit(0, 0, end).is_err();
        let has_much_free = end - Offset::EXTENTS - used > LEAST_CUT.max((end - Offset::EXTENTS) / 4);
        if !is_too_long && !has_much_free || self.engine.resize_cursor()? != 0 {
            return Ok(());
        }
        let Some(last) = self.writer.space.last() else { return Ok(()) };
        let has_place = |blocks: u64| self.writer.space.lowest(blocks * BLOCK).0 < last.offset;
        let lowered = match last.kind {
            ExtentKind::Index => {
                let Some(entry) = self.engine.map_table()?.iter()?.find(|entry| entry.region() == last.offset) else {
                    return Ok(());
                };
                let keys = self.engine.index_in_force(entry.map)?.totals()?.keys;
                let blocks = index::blocks_for(index::roomy(keys)).min(last.blocks);
                if !has_place(blocks) {
                    return Ok(());
                }
                self.begin_resize(entry.map, blocks, Tombstones::Kept)
            }
            ExtentKind::Table | ExtentKind::Reserve if has_place(last.blocks) => self.settle(),
            _ => return Ok(()),
        };
        match lowered {
            Err(Error::Full { .. }) => Ok(()),
            lowered => lowered,
        }
    }

    /// Makes room in a full store by cleaning it, and says whether there is some. For a removal, which makes more room
    /// than it takes, the whole log is cleaned if necessary.
    #[cold]
    pub(crate) fn squeeze(&mut self, room: Room) -> bool {
        if !self.engine.squeezes() {
            return false;
        }
        match self.squeeze_once(room) {
            Ok(freed) => {
                self.engine.upkeep.rest.end();
                freed > 0
            }
            Err(Error::Full { .. }) => false,
            Err(error) => {
                self.engine.rest_from_upkeep(&error);
                false
            }
        }
    }

    /// Makes room for removals, using all that is held back for cleaning.
    pub(crate) fn squeeze_at_last(&mut self) -> Result<u64> {
        self.exceeding_at_last(Room::Cleaning, |writing| writing.squeeze_once(Room::Removal))
    }

    /// Cleans once along the log, until an extent's worth was emptied; for a removal, until that much more room is free
    /// and the reserve is complete. Returns the bytes gained.
    fn squeeze_once(&mut self, room: Room) -> Result<u64> {
        let used = self.bytes_in_use();
        if self.writer.waiting.checkpoint > 0 {
            self.checkpoint_in_turn(PATIENCE)?;
            self.reclaim()?;
        }
        let live = self.engine.log_totals()?.live_bytes;
        let goal = self.engine.end_of_log()?;
        let dead = goal.saturating_sub(self.engine.head_for_writing()?.bytes).saturating_sub(live);
        // Where next to nothing is dead there is nothing to gain.
        let least = if room == Room::Growth { live / 16 } else { 0 };
        if dead <= least {
            return Ok(used.saturating_sub(self.bytes_in_use()));
        }
        let enough = self.writer.space.log_extent_len(0, self.engine.settings.limits.log_extents());
        // Tombstones are dropped as soon as they can be.
        self.writer.unread_below = (self.raise_horizon()?, self.engine.mapping.live_seq(live::VISIBLE)?.count());
        let most = self.engine.settings.limits.most_bytes;
        let mut bytes = most;
        let mut freed = 0;
        while self.engine.head_for_writing()?.bytes < goal {
            let cleaned = match self.clean(Portion { bytes, aim: Aim::Room }) {
                // A smaller piece may fit, at last a single record.
                Err(Error::Full { .. }) if bytes > 1 => {
                    bytes = (bytes / 8).max(1);
                    continue;
                }
                cleaned => cleaned?,
            };
            if cleaned.passed == 0 {
                break;
            }
            bytes = most;
            if cleaned.emptied > 0 {
                self.checkpoint_in_turn(PATIENCE)?;
                self.reclaim()?;
            }
            freed = match room {
                Room::Growth => freed + cleaned.emptied,
                _ => used.saturating_sub(self.bytes_in_use()),
            };
            if freed >= enough && self.refill_reserve()? && (room == Room::Growth || self.has_room_to_remove()) {
                break;
            }
        }
        Ok(freed)
    }
}
