//! Upkeep: what each write does beyond its own commit, so that nothing ever has to be done at once.
//!
//! Behind its commit, and with the writer lock still held, a write moves a resize on by a few lines. If more of the log
//! is dead than shall be, the write that completes another 4 KiB of the log cleans a piece of it at the head. The piece
//! is so many times as long as what was appended since the last one that cleaning keeps up with writing whatever lies
//! at the head, and longer the more is dead. When what was emptied is much compared to what is alive, it asks for a
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

/// The least that is worth cleaning, in bytes.
const LEAST_PIECE: u64 = 512;

/// The log is cleaned from this share of the limit on, so that no more is dead than may be while cleaning gets under
/// way.
const EARLY: f64 = 0.95;

/// How much faster the log is cleaned when all of it is dead than when as much is as may be.
const HASTE: f64 = 8.0;

/// With a thread that does the upkeep, writers help when this share of what may be alive is dead.
const LATE: f64 = 0.3;

/// How long a write that cleans a full store waits for one who holds the superblock.
const PATIENCE: Duration = Duration::from_millis(100);

impl Engine {
    #[cold]
    fn rest_from_upkeep(&self, error: &Error) {
        self.upkeep.rest.begin(error);
        // Whoever comes next sees what was begun.
        self.left_something.store(true, Ordering::Relaxed);
    }

    /// Whether a writer leaves the resize to the thread that does the upkeep.
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

    /// Whether readers who keep so many emptied bytes hold cleaning up.
    fn hold_up(&self, kept: u64, live: u64) -> bool {
        kept > self.settings.limits.least_waiting.max(live / 2)
    }

    /// Of what waits for readers, all of it: if they hold cleaning up, what is dead in the log waits for them as well
    /// as the `kept` bytes that are emptied already.
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

    /// What is in use no more and has to wait, what is dead in the log and cannot be emptied for the same reason
    /// included; and how many bytes wait for nothing but the next one who needs space.
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
    /// Does the share of upkeep of a write to these maps that has appended `records` records to the log, whose counters
    /// said `before` until then.
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
        // Many writes share what a step costs whatever it passes. Where one is due shows in the log, so that no process
        // owes one when it ends.
        let step = self.engine.settings.limits.clean_every;
        let since = (before.bytes % step).saturating_add(appended.saturating_sub(before.bytes));
        if since < step { Ok(()) } else { self.clean_if_worth_it(appended, since - since % step, live) }
    }

    /// Cleans as much as belongs to the `due` bytes that were appended since the last step, if enough is dead.
    #[cold]
    fn clean_if_worth_it(&mut self, appended: u64, due: u64, live: u64) -> Result<()> {
        let live = self.engine.upkeep.expired.alive_of(live);
        match self.excess(appended, live)? {
            Some(excess) => self.clean_after(due, excess, live),
            None => Ok(()),
        }
    }

    /// Moves the resize on that is going on.
    #[cold]
    pub(super) fn step(&mut self, mut step: Step) -> Result<()> {
        // Where tombstones are left out, each slot costs a look at its record.
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

    /// How far the dead share of the log is beyond where cleaning begins, just below the limit: 0 there, 1 if nothing
    /// is alive. `None` if it is not. What was emptied and cannot be used before a checkpoint counts as dead.
    pub(super) fn excess(&self, appended: u64, live: u64) -> Result<Option<f64>> {
        let Some(limit) = self.engine.settings.auto_compact.map(|limit| limit * EARLY) else { return Ok(None) };
        // Of a small store more may wait than is alive, and cleaning in haste would not make that less.
        let waiting = self.writer.waiting.checkpoint.min(live / 8);
        let used = appended.saturating_sub(self.engine.head_for_writing()?.bytes).saturating_add(waiting);
        let share = 1.0 - live as f64 / used.max(1) as f64;
        let is_due = used >= self.engine.settings.limits.least_log && share > limit;
        Ok(is_due.then(|| ((share - limit) / (1.0 - limit)).min(1.0)))
    }

    /// Cleans as much as belongs to so many bytes that were appended.
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
        let mut wanted = ((appended as f64 * pace) as u64).max(LEAST_PIECE);
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

    /// Whether so much waits for readers that it is better to wait with them: what is emptied now would have to, too.
    pub(crate) fn is_held_up(&self, live: u64) -> bool {
        self.engine.hold_up(self.writer.waiting.pins, live)
    }

    /// Cleans, and if that has emptied anything, sees what of it can be used.
    pub(crate) fn clean_and_reclaim(&mut self, portion: Portion) -> Result<Cleaned> {
        let cleaned = self.clean(portion)?;
        if cleaned.emptied > 0 {
            self.reclaim()?;
            if self.writer.waiting.checkpoint
                > self.engine.settings.limits.least_waiting.max(self.engine.live_bytes()? / 8)
            {
                self.engine.upkeep.want_checkpoint();
            }
            self.truncate_if_worth_it()?;
            self.lower_what_is_last()?;
        }
        Ok(cleaned)
    }

    /// If a quarter of the file is free, and what lies last in it is no log, which drifts down by itself, moves that to
    /// a lower place: an index as a resize does it, line by line.
    fn lower_what_is_last(&mut self) -> Result<()> {
        let (end, used) = (self.writer.space.used_end() - Offset::EXTENTS, self.writer.space.used_bytes());
        if end - used <= LEAST_CUT.max(end / 4) || self.engine.resize_cursor()? != 0 {
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
    /// than it takes, all of the log is cleaned if it must be.
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

    /// Makes room for removals, with all that cleaning may use.
    pub(crate) fn squeeze_at_last(&mut self) -> Result<u64> {
        self.exceeding_at_last(Room::Cleaning, |writing| writing.squeeze_once(Room::Removal))
    }

    /// Cleans once along the log, until as much was emptied as an extent takes; for a removal, until there is so much
    /// room more, and what has to be held back is. Says how much that is.
    fn squeeze_once(&mut self, room: Room) -> Result<u64> {
        let used = self.bytes_in_use();
        if self.writer.waiting.checkpoint > 0 {
            self.checkpoint_in_turn(PATIENCE)?;
            self.reclaim()?;
        }
        let live = self.engine.log_totals()?.live_bytes;
        let goal = self.engine.end_of_log()?;
        let dead = goal.saturating_sub(self.engine.head_for_writing()?.bytes).saturating_sub(live);
        // Where next to nothing is dead there is nothing to be had.
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
                // Less of it may fit, at last a single record.
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
