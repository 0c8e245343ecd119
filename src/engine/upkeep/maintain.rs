//! Maintenance: upkeep that is pending, outside of any write.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clean::Portion;
use crate::engine::Engine;
use crate::engine::state::writer::Writer;
use crate::engine::write::reclaim::LEAST_CUT;
use crate::engine::write::turn::Turn;
use crate::error::Result;
use crate::file::layout::{EXTENTS, live};

/// Blocks that a step of [`Engine::maintain`] zeroes, and how many times the lines of a write it moves.
const LARGE_STEP: u64 = 16;

/// How long [`Engine::maintain`] keeps the writer lock.
const SLICE: Duration = Duration::from_micros(500);

impl Engine {
    /// Does upkeep that is pending, for about as long as `budget`, and says whether there is more. Waits at most
    /// `patience` for others who write.
    pub(crate) fn maintain(&self, budget: Duration, patience: Duration) -> Result<bool> {
        self.check_not_forked()?;
        if self.read_only {
            return Ok(false);
        }
        let start = Instant::now();
        self.sample_all_now_and_then()?;
        loop {
            let more = {
                let Some(_turn) = self.turn_if_pending(patience)? else { return Ok(false) };
                let mut writer = self.writer();
                let slice = Instant::now();
                loop {
                    let more = self.maintain_once(&mut writer);
                    self.upkeep.end_write(false);
                    match more? {
                        true if slice.elapsed() < SLICE => {}
                        more => break more,
                    }
                }
            };
            // What it frees is reclaimed in another step.
            let more = self.upkeep.wants_checkpoint() && self.checkpoint().map(|()| true)? || more;
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
            // If readers hold it up, another attempt would move the same once more.
            return Ok(!report.finished && report.held_back == 0);
        }
    }

    /// A turn at writing; of a store that was closed and not changed since only if there is something to do. Else it
    /// would be a change.
    fn turn_if_pending(&self, patience: Duration) -> Result<Option<Turn<&Engine>>> {
        let turn = self.turn_to_look(patience)?;
        if !self.has_numbers()? {
            return Ok(None);
        }
        if self.clean.load(Ordering::Relaxed) {
            let is_pending = {
                let writer = self.writer();
                let [_, appended, _, live] = self.log_totals()?;
                let live = self.upkeep.expired.alive_of(live);
                self.resize_cursor()? != 0 || self.excess(&writer, appended, live)?.is_some()
            };
            if !is_pending && !self.is_sparse()? {
                return Ok(None);
            }
            self.clear_clean_flag()?;
        }
        Ok(Some(turn))
    }

    /// Whether most of the file, up to what lies last in it, is free: what is left of a store that was much larger
    /// drifts down only as more is written.
    fn is_sparse(&self) -> Result<bool> {
        let writer = self.writer();
        let (end, used) = (writer.space.movable_end() - EXTENTS, writer.space.used_bytes());
        Ok(self.settings.auto_compact.is_some() && end > 2 * used && end - used > LEAST_CUT)
    }

    /// One step of what is pending. Says whether there is more.
    fn maintain_once(&self, writer: &mut Writer) -> Result<bool> {
        if self.resize_cursor()? != 0 {
            self.step(writer, (LARGE_STEP, LARGE_STEP * self.settings.limits.lines_a_step))?;
            return Ok(true);
        }
        let maps: Vec<u32> = self.map_table()?.iter()?.map(|entry| entry.map).collect();
        for map in maps {
            self.shrink(writer, map)?;
            if self.resize_cursor()? != 0 {
                return Ok(true);
            }
        }
        let [_, appended, _, live] = self.log_totals()?;
        let live = self.upkeep.expired.alive_of(live);
        if self.excess(writer, appended, live)?.is_some() && !self.is_held_up(writer, live) && !self.is_poisoned() {
            let bytes = self.settings.limits.most_bytes;
            let cleaned = self.clean_and_reclaim(writer, Portion { bytes, leave_tail: false, tight: false })?;
            if cleaned.passed > 0 {
                return Ok(true);
            }
        }
        let every = self.settings.checkpoint_every;
        if appended.saturating_sub(self.region.live(live::CHECKPOINT_BYTES)?) >= every {
            self.upkeep.checkpoint.store(true, Ordering::Relaxed);
        }
        self.sweep_in_turn(writer)?;
        self.reclaim(writer)?;
        if writer.waiting.checkpoint >= self.settings.limits.piece {
            self.upkeep.checkpoint.store(true, Ordering::Relaxed);
        }
        self.truncate_if_worth_it(writer)?;
        Ok(false)
    }
}
