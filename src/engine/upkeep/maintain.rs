//! Maintenance: pending upkeep, outside of any write.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clean::{Aim, Portion};
use super::resize::Step;
use crate::engine::Engine;
use crate::engine::state::live_area::LogTotals;
use crate::engine::state::writer::Writing;
use crate::engine::write::reclaim::LEAST_CUT;
use crate::engine::write::turn::Turn;
use crate::error::{Error, Result};
use crate::file::layout::{MapId, Offset, live};

/// Blocks that a step of [`Engine::maintain`] zeroes, and how many times the lines of a write it moves.
const LARGE_STEP: u64 = 16;

/// How long [`Engine::maintain`] keeps the writer lock.
const SLICE: Duration = Duration::from_micros(500);

impl Engine {
    /// Does pending upkeep for about `budget`, and says whether there is more. Waits at most `patience` for other
    /// writers.
    pub(crate) fn maintain(&self, budget: Duration, patience: Duration) -> Result<bool> {
        self.check_not_forked()?;
        if self.read_only {
            return Ok(false);
        }
        let start = Instant::now();
        let more = self.maintain_until(start, budget, patience);
        // What it finds is for `stats`; that it could not look is no failure of maintenance.
        _ = self.scrub(|| start.elapsed() < budget);
        more
    }

    fn maintain_until(&self, start: Instant, budget: Duration, patience: Duration) -> Result<bool> {
        self.sample_all_now_and_then()?;
        loop {
            let more = {
                let Some(turn) = self.turn_if_pending(patience)? else { return Ok(false) };
                let mut writing = turn.write();
                let slice = Instant::now();
                loop {
                    let more = writing.maintain_once();
                    self.upkeep.end_step();
                    match more? {
                        true if slice.elapsed() < SLICE => {}
                        more => break more,
                    }
                }
            };
            // Another step reclaims what it frees.
            let more = self.upkeep.take_wish() && self.checkpoint().map(|()| true)? || more;
            if start.elapsed() >= budget {
                return Ok(more || self.is_sparse()?);
            }
            if more {
                continue;
            }
            if !self.is_sparse()? {
                return Ok(false);
            }
            let left = || if start.elapsed() < budget { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            let report = self.compact(&mut |_| left())?;
            // If readers hold it up, another attempt would move the same records again.
            return Ok(!report.finished && report.held_back == 0);
        }
    }

    /// A turn at writing. For a store that was closed and not changed since, only if there is something to do: a turn
    /// would count as a change.
    fn turn_if_pending(&self, patience: Duration) -> Result<Option<Turn<&Engine>>> {
        let turn = self.turn_to_look(patience)?;
        if !self.has_numbers()? {
            return Ok(None);
        }
        if self.closed.load(Ordering::Relaxed) {
            let is_pending = {
                let writing = turn.write();
                let LogTotals { bytes: appended, live_bytes: live, .. } = self.log_totals()?;
                let live = self.upkeep.expired.alive_of(live);
                self.resize_cursor()? != 0 || writing.excess(appended, live)?.is_some()
            };
            if !is_pending && !self.is_sparse()? {
                return Ok(None);
            }
            self.clear_closed_flag()?;
        }
        Ok(Some(turn))
    }

    /// Whether most of the file, up to the end of its last extent, is free: the rest of a much larger store drifts
    /// down only as more is written.
    fn is_sparse(&self) -> Result<bool> {
        let writer = self.writer();
        let (end, used) = (writer.space.movable_end() - Offset::EXTENTS, writer.space.used_bytes());
        Ok(self.settings.auto_compact.is_some() && end > 2 * used && end - used > LEAST_CUT)
    }
}

impl<'e> Writing<'e> {
    /// One step of pending upkeep. Says whether there is more.
    fn maintain_once(&mut self) -> Result<bool> {
        if self.engine.resize_cursor()? != 0 {
            let lines = LARGE_STEP * self.engine.settings.limits.lines_a_step;
            self.step(Step { blocks: LARGE_STEP, lines })?;
            return Ok(true);
        }
        let maps: Vec<MapId> = self.engine.map_table()?.iter()?.map(|entry| entry.map).collect();
        for map in maps {
            self.shrink(map)?;
            if self.engine.resize_cursor()? != 0 {
                return Ok(true);
            }
        }
        let LogTotals { bytes: appended, live_bytes: live, .. } = self.engine.log_totals()?;
        let live = self.engine.upkeep.expired.alive_of(live);
        let dead = if self.engine.settings.evict.is_some() { self.tombstone_bytes(live)? } else { 0 };
        if self.excess(appended, live + dead)?.is_some() && !self.is_held_up(live) && !self.engine.is_poisoned() {
            let bytes = self.engine.settings.limits.most_bytes;
            match self.clean_and_reclaim(Portion { bytes, aim: Aim::Upkeep }) {
                // The next write evicts.
                Err(Error::Full { .. }) if self.engine.settings.evict.is_some() => {}
                cleaned => {
                    if cleaned?.passed > 0 {
                        return Ok(true);
                    }
                }
            }
        }
        let every = self.engine.settings.checkpoint_every;
        if appended.saturating_sub(self.engine.mapping.live(live::CHECKPOINT_BYTES)?) >= every {
            self.engine.upkeep.want_checkpoint();
        }
        self.sweep_in_turn()?;
        self.reclaim()?;
        if self.writer.waiting.checkpoint >= self.engine.settings.limits.piece {
            self.engine.upkeep.want_checkpoint();
        }
        self.truncate_if_worth_it()?;
        Ok(false)
    }
}
