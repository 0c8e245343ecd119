//! Compaction on request: the store as small as it can be, while others read and write.
//!
//! Log and indexes move down, in rounds. A round cleans the whole log once, with copies in extents of their own; then
//! each index is rebuilt to fit; then tables and the reserve go to the lowest places. Checkpoints in between let
//! emptied space take what comes next. The first copies may have gone to the end of the file: another round moves them
//! down, as long as that helps.
//!
//! It begins with sweeping: it forgets the maps that were dropped, when no reader can see them any more. So do others.
//!
//! A small store is also compacted when it is closed, if that is worthwhile ([`Engine::trim`]).
//!
//! Compaction has no state of its own. Stopped or killed, it leaves an ordinary store, and the next call continues from
//! there.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clean::{Aim, Portion};
use super::resize::{Step, Stepped};
use crate::engine::Engine;
use crate::engine::state::writer::Writing;
use crate::engine::write::slots::Tombstones;
use crate::error::{Error, Result};
use crate::file::index::{self, Index};
use crate::file::layout::{BLOCK, DEFAULT_MAP, EXTENTS, ExtentKind, JUMP_LEN, MapId, Offset, align_block, live};
use crate::telemetry::{self, Watch};

/// The most rounds; more gain next to nothing.
const ROUNDS: u32 = 4;

/// The same for a small store that is being closed, which has less room to move things about.
const ROUNDS_OF_SMALL: u32 = 8;

/// How long the writer lock is kept.
const SLICE: Duration = Duration::from_micros(500);

/// How far a resize is moved on between two looks at the clock.
const STEP: Step = Step { blocks: 16, lines: 256 };

/// What [`Store::compact`](crate::Store::compact) did.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// for _ in 0..1000 {
///     store.insert("counter", [7; 100])?;
/// }
/// let report: slotlog::CompactReport = store.compact()?;
/// assert!(report.finished);
/// assert_eq!((report.held_back, report.file_len), (0, store.stats()?.file_len));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompactReport {
    /// Bytes of records moved, counting each move.
    pub moved_bytes: u64,
    /// Damaged records that were put into quarantine: their keys are kept, and reading them is an error until they are
    /// written again. [`verify`](crate::Store::verify) lists them.
    pub damaged_records: u64,
    /// How many bytes shorter the file is. It may be zero if others were writing meanwhile.
    pub freed_bytes: u64,
    /// Length of the file, in bytes.
    pub file_len: u64,
    /// Bytes that cannot be reused yet, since a reader still sees an older state, or a
    /// [bookmark](crate::Store::set_bookmark) keeps the log: those that were freed and, if they made compaction stop,
    /// the dead bytes in the rest of the log.
    pub held_back: u64,
    /// Whether the system denies this process the call without which no space is reused: see
    /// [`reuse_refused`](crate::ProcessStats::reuse_refused). Then almost nothing is gained.
    pub reuse_refused: bool,
    /// Whether it ran to its end: it was not stopped, neither readers nor bookmarks held back the space to be gained,
    /// and the store was not too full to move what had to be moved.
    pub finished: bool,
}

/// How far a compaction has come; see [`Store::compact_with`](crate::Store::compact_with).
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::CompactProgress;
///
/// # let store = slotlog::Store::in_memory()?;
/// for number in 0..20_000u32 {
///     store.insert(number.to_le_bytes(), [7; 100])?;
/// }
/// for number in 0..10_000u32 {
///     store.remove(number.to_le_bytes())?;
/// }
/// let report = store.compact_with(|progress: CompactProgress| {
///     assert_eq!(progress.round, 1);
///     assert!(progress.done <= progress.total);
///     ControlFlow::Break(())
/// })?;
/// assert!(!report.finished, "it was stopped");
/// assert_eq!(store.len()?, 10_000);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactProgress {
    /// The round, counted from one. Most compactions take one or two.
    pub round: u32,
    /// Bytes of the log that this round has passed.
    pub done: u64,
    /// Bytes that it has to pass.
    pub total: u64,
}

/// Why a compaction runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The user wants the store as small as it can be.
    Request,
    /// The store is being closed, and may well be opened again to be added to.
    Closing,
}

/// A store with at most this many bytes in use is compacted when it is closed.
const SMALL: u64 = 8 << 20;

/// A small store is compacted when it is closed only if its file exceeds its needs by more than this many bytes, and by
/// more than an eighth of its extents.
const LEAST_TRIM: u64 = 16 << 10;

/// The shortest free run that is filled with log when `live` bytes of the log are alive.
fn least_run(live: u64) -> u64 {
    align_block((live / 64).clamp(BLOCK, 4 * BLOCK))
}

/// Why a round ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    AtTheEnd,
    Stopped,
    /// Readers hold back what would be gained.
    HeldUp,
    /// The rest of the log is kept for a bookmark.
    Kept,
    /// There is no room to move anything.
    Full,
}

impl Engine {
    /// Compacts the store on request. `on_progress` is asked now and then whether to continue.
    pub(crate) fn compact(
        &self,
        on_progress: &mut dyn FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        self.compact_for(Purpose::Request, on_progress)
    }

    fn compact_for(
        &self,
        purpose: Purpose,
        on_progress: &mut dyn FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        self.check_not_forked()?;
        let (before, watch) = (self.mapping.file_len()?, Watch::start());
        self.sweep_dropped_maps()?;
        self.sample_all()?;
        let mut report = CompactReport::default();
        let mut ended = Ended::AtTheEnd;
        let rounds = if purpose == Purpose::Closing { ROUNDS_OF_SMALL } else { ROUNDS };
        for round in 1..=rounds {
            ended = self.compact_log(round, on_progress, &mut report)?;
            if ended == Ended::Stopped {
                break;
            }
            if self.compact_indexes(round, purpose, on_progress)? == Ended::Stopped {
                ended = Ended::Stopped;
                break;
            }
            let is_dense = self.settle_all()?;
            if is_dense || ended != Ended::AtTheEnd {
                break;
            }
        }
        let kept = self.writer().waiting.pins;
        report.held_back = self.held_back(kept)?;
        if ended == Ended::Kept {
            let dead = self.log_size()?.bytes.saturating_sub(self.live_bytes()?);
            report.held_back = report.held_back.max(dead);
        }
        report.reuse_refused = self.is_refused()?;
        report.file_len = self.mapping.file_len()?;
        report.freed_bytes = before.saturating_sub(report.file_len);
        report.finished = ended == Ended::AtTheEnd;
        telemetry::on_compacted(self.mapping.path(), &report, watch);
        Ok(report)
    }

    /// Takes one turn after another until `step` returns a result.
    fn in_slices<R>(&self, mut step: impl FnMut(&mut Writing<'_>) -> Result<Option<R>>) -> Result<Option<R>> {
        let turn = self.turn()?;
        let mut writing = turn.write();
        let start = Instant::now();
        let done = loop {
            match step(&mut writing) {
                Ok(None) if start.elapsed() < SLICE => {}
                done => break done,
            }
        };
        writing.writer.run = None;
        self.upkeep.end_step();
        drop(writing);
        drop(turn);
        done
    }

    /// Cleans the log up to where it ended when this began.
    fn compact_log(
        &self,
        round: u32,
        on_progress: &mut dyn FnMut(CompactProgress) -> ControlFlow<()>,
        report: &mut CompactReport,
    ) -> Result<Ended> {
        let goal = self.end_of_log()?;
        let begun = self.head()?.bytes;
        let portion = Portion { bytes: self.settings.limits.most_bytes, aim: Aim::Compaction };
        let mut led = false;
        loop {
            let done = self.in_slices(|writing| {
                let live = self.upkeep.expired.alive_of(self.log_totals()?.live_bytes);
                // The log at the head may be in place already.
                if writing.is_held_up(live) {
                    writing.reclaim()?;
                    if writing.is_held_up(live) {
                        return Ok(Some(Ended::HeldUp));
                    }
                }
                if self.head_for_writing()?.bytes >= goal || writing.log_is_dense(live)? {
                    return Ok(Some(Ended::AtTheEnd));
                }
                let (smallest, usual) = self.settings.limits.log_extents();
                let least = (live / 8).clamp(smallest, usual);
                let most = align_block((live / 64).clamp(least, 64 << 20));
                writing.writer.run = Some((least_run(live), most));
                let cleaned = match writing.clean(portion) {
                    Err(Error::Full { .. }) => return writing.make_room_to_compact(),
                    cleaned => cleaned?,
                };
                report.moved_bytes += cleaned.moved;
                report.damaged_records += cleaned.quarantined;
                if cleaned.emptied > 0 {
                    writing.reclaim()?;
                    if writing.writer.waiting.checkpoint > self.settings.limits.piece.min(live / 4).max(live / 32) {
                        writing.checkpoint_in_turn(self.settings.lock_timeout)?;
                        writing.reclaim()?;
                    }
                }
                if cleaned.passed > 0 {
                    return Ok(None);
                }
                if cleaned.is_kept {
                    return Ok(Some(Ended::Kept));
                }
                // A log without live records needs a record that leads it elsewhere.
                let moved = live == 0 && !writing.log_is_dense(live)? && !std::mem::replace(&mut led, true);
                Ok(if moved && writing.clear_again()? { None } else { Some(Ended::AtTheEnd) })
            })?;
            if let Some(ended) = done {
                return Ok(ended);
            }
            let done = self.head()?.bytes.saturating_sub(begun);
            let progress = CompactProgress { round, done, total: goal.saturating_sub(begun) };
            let goes_on = on_progress(progress);
            // The user's code may have forked.
            self.check_not_forked()?;
            if goes_on.is_break() {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// Rebuilds each index that is too large or has a lower place.
    fn compact_indexes(
        &self,
        round: u32,
        purpose: Purpose,
        on_progress: &mut dyn FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<Ended> {
        for map in self.map_ids()? {
            // A resize that is under way comes first; then ours.
            let mut begun = false;
            loop {
                let done = self.in_slices(|writing| {
                    if self.resize_cursor()? != 0 {
                        if writing.step_resize(STEP)? == Stepped::Switched {
                            writing.skip_number()?;
                        }
                        return Ok(None);
                    }
                    if begun {
                        return Ok(Some(()));
                    }
                    begun = true;
                    let Some(index) = self.index(map)? else { return Ok(Some(())) };
                    let blocks = self.fitting_blocks(map, &index, purpose)?;
                    writing.reclaim()?;
                    if writing.is_in_place(&index, blocks) {
                        return Ok(Some(()));
                    }
                    match writing.begin_resize(map, blocks, Tombstones::Dropped) {
                        Ok(()) => Ok(None),
                        Err(Error::Full { .. }) => Ok(Some(())),
                        Err(error) => Err(error),
                    }
                })?;
                if done.is_some() {
                    break;
                }
                let goes_on = on_progress(CompactProgress { round, done: 0, total: 0 });
                self.check_not_forked()?;
                if goes_on.is_break() {
                    return Ok(Ended::Stopped);
                }
            }
        }
        Ok(Ended::AtTheEnd)
    }

    /// How many blocks the index of a map should have. When closing, it has room to grow.
    fn fitting_blocks(&self, map: MapId, index: &Index<'_>, purpose: Purpose) -> Result<u64> {
        let keys = index.totals()?.keys;
        Ok(index::blocks_for(match purpose {
            Purpose::Request => keys + keys / 16,
            Purpose::Closing if map == DEFAULT_MAP => (keys + keys / 4).max(self.settings.initial_capacity),
            Purpose::Closing => keys + keys / 4,
        }))
    }

    /// Makes the file of a store that is about to be closed, and has no other writers, shorter in bounded time: cuts
    /// off the free space at its end; and if little is in use and the file is noticeably longer than necessary,
    /// compacts it.
    pub(crate) fn trim(&self) -> Result<()> {
        let waits = self.in_slices(|writing| {
            writing.reclaim()?;
            Ok(Some(writing.writer.waiting.checkpoint > 0))
        })?;
        if waits == Some(true) {
            self.checkpoint()?;
        }
        let is_worth_it = self.in_slices(|writing| {
            writing.reclaim()?;
            writing.truncate()?;
            Ok(Some(self.settings.auto_compact.is_some() && writing.is_longer_than_it_needs_to_be()?))
        })?;
        if is_worth_it == Some(true) {
            self.compact_for(Purpose::Closing, &mut |_| ControlFlow::Continue(()))?;
        }
        Ok(())
    }

    /// Moves the rest, gives back the free space at the end of the tail and of the file, and says whether the store
    /// is dense now.
    pub(crate) fn settle_all(&self) -> Result<bool> {
        // So that emptied space is free, and replaced regions are unused.
        self.in_slices(|writing| writing.skip_number().map(Some))?;
        self.checkpoint()?;
        let is_dense = self.in_slices(|writing| {
            writing.reclaim()?;
            match writing.settle() {
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            writing.skip_number()?;
            writing.reclaim()?;
            let end = (self.mapping.live_offset(live::TAIL)? + JUMP_LEN).align(BLOCK);
            if end < writing.writer.extent.1 {
                let start = writing.writer.extent.0;
                writing.writer.space.trim(&self.mapping, start, end)?;
                writing.writer.extent.1 = end;
            }
            writing.truncate()?;
            let dense = Offset::EXTENTS + writing.writer.space.used_bytes();
            let spare = writing.writer.space.movable_end().bytes_since(dense);
            Ok(Some(spare <= writing.spare()))
        })?;
        Ok(is_dense.unwrap_or(true))
    }
}

impl<'e> Writing<'e> {
    /// When a round has no room, cleans the log block by block.
    fn make_room_to_compact(&mut self) -> Result<Option<Ended>> {
        match self.squeeze_at_last() {
            Ok(0) | Err(Error::Full { .. }) => Ok(Some(Ended::Full)),
            freed => freed.map(|_| None),
        }
    }

    /// Whether next to nothing of the log is dead, and there is no lower place for its last extent.
    fn log_is_dense(&self, live: u64) -> Result<bool> {
        let dead = self.engine.log_size()?.bytes.saturating_sub(live);
        let last = self.writer.space.extents().filter(|extent| extent.is_log()).last();
        Ok(dead <= self.engine.settings.limits.piece.min(live / 64).max(256)
            && last.is_none_or(|last| self.writer.space.lowest(last.len().max(least_run(live))).0 > last.offset))
    }

    /// Whether a compaction would make the file of a small store noticeably shorter.
    fn is_longer_than_it_needs_to_be(&self) -> Result<bool> {
        if self.writer.space.used_bytes() > SMALL {
            return Ok(false);
        }
        let live = self.engine.upkeep.expired.alive_of(self.engine.log_totals()?.live_bytes);
        let log = align_block(live + JUMP_LEN);
        let mut needed = EXTENTS + log + self.bytes_beside(log);
        for (map, index) in self.engine.maps()? {
            needed += self.engine.fitting_blocks(map, &index, Purpose::Closing)?.min(index.blocks()) * BLOCK;
        }
        Ok(self.engine.mapping.len().saturating_sub(needed) > LEAST_TRIM.max((needed - EXTENTS) / 8))
    }

    /// Whether an index that needs `blocks` blocks is as small and as low as it can be.
    fn is_in_place(&self, index: &Index<'_>, blocks: u64) -> bool {
        index.blocks() <= blocks.max(index.blocks() / 8 * 7)
            && self.writer.space.lowest(blocks * BLOCK).0 > index.offset()
    }

    /// How many free bytes the file of a dense store may have.
    fn spare(&self) -> u64 {
        self.engine.settings.limits.smallest_log.max((EXTENTS + self.writer.space.used_bytes()) / 32)
    }
}

impl Engine {
    /// [Forgets](Engine::sweep_dropped_maps) the dropped maps that this process knows of, if it knows of any.
    pub(crate) fn sweep_drops(&self) -> Result<()> {
        if self.drops.load(Ordering::Relaxed) { self.sweep_dropped_maps() } else { Ok(()) }
    }

    /// Forgets the maps that were dropped and that no reader can see any more.
    pub(crate) fn sweep_dropped_maps(&self) -> Result<()> {
        // Cleared before the look: a map that is dropped meanwhile is noted after it.
        self.drops.store(false, Ordering::Relaxed);
        if !self.map_table()?.iter()?.any(|entry| entry.dropped) {
            return Ok(());
        }
        // Readers may hold some of them.
        self.drops.store(true, Ordering::Relaxed);
        self.turn()?.write().sweep_in_turn()
    }
}

impl<'e> Writing<'e> {
    pub(crate) fn sweep_in_turn(&mut self) -> Result<()> {
        let table = self.engine.map_table()?;
        let dropped: Vec<_> = table.iter()?.filter(|entry| entry.dropped).collect();
        if dropped.is_empty() {
            return Ok(());
        }
        let unread_below = self.raise_horizon()?;
        let seq = self.seq()?;
        let mut swept = false;
        for entry in dropped {
            if self.engine.index_in_force(entry.map)?.since().count() <= unread_below {
                table.remove(entry)?;
                self.writer.space.set_kind(&self.engine.mapping, entry.region(), ExtentKind::Retired, seq)?;
                swept = true;
            }
        }
        // Readers that start from now on reach none of them.
        if swept { self.skip_number() } else { Ok(()) }
    }
}
