//! Room for records in the log, and for a store that is full. Regions and tables: [`regions`](super::regions). Slots of
//! an index: [`resize`](crate::engine::upkeep::resize). The reserve of a full store: [`reserve`](super::reserve).

use super::reserve::{Demand, REMOVAL_RESERVE, Room};
use crate::engine::settings::Durability;
use crate::engine::state::writer::Writing;
use crate::error::{Error, FullReason, Result};
use crate::file::layout::{BLOCK, EXTENTS, ExtentKind, JUMP_LEN, Offset, RECORD_HEADER, Seq, align_block, flags};
use crate::file::log::Tail;
use crate::file::mapping::FOLIO;
use crate::file::space::Extent;

/// What the tombstone of a record may have in addition to the record.
pub(crate) const SHORTCUT_LEN: u64 = flags::SHORTCUT as u64;

/// What may have to fit beside a key and its value: a deadline, what follows, and what makes records aligned.
const BESIDES: u64 = RECORD_HEADER + flags::EXPIRES as u64 + SHORTCUT_LEN + JUMP_LEN + 8;

impl<'e> Writing<'e> {
    /// Makes sure that a record of `len` bytes fits at the tail, which jumps to another extent if this one has no room;
    /// says whether it did.
    #[inline(always)]
    pub(crate) fn make_log_room(&mut self, tail: &mut Tail, len: u64, room: Room) -> Result<bool> {
        let len = if room == Room::Growth { len.saturating_add(SHORTCUT_LEN) } else { len };
        let jumped = match tail.has_room(len) && (room != Room::Growth || !self.writer.on_reserve) {
            true => false,
            false => self.leave_extent(tail, len, room)?,
        };
        if tail.at + len > self.writer.prepared {
            self.prepare_ahead(tail, len);
        }
        self.writer.longest = self.writer.longest.max(len);
        Ok(jumped)
    }

    /// Prepares the folios that a record of `len` bytes at the tail comes into: faulting in page after page as records
    /// are stored would take longer than the rest of the write. Even if another process has appended meanwhile,
    /// nothing is overwritten: it lies past the tail, and in the tail's extent.
    #[cold]
    fn prepare_ahead(&mut self, tail: &Tail, len: u64) {
        let from = tail.at.align(BLOCK).max(self.writer.prepared);
        let to = (from.max(tail.at + len) + FOLIO).align_down(FOLIO).min(tail.extent_end);
        let fresh = self.writer.fresh.clamp(from, to.max(from));
        self.engine.mapping.map_anew(from, fresh.bytes_since(from));
        self.engine.mapping.write_ahead(fresh, to.bytes_since(fresh));
        self.writer.prepared = if to < tail.extent_end { to } else { Offset::MAX };
    }

    /// Moves the tail to another extent, unless this one turns out to have room.
    #[cold]
    pub(crate) fn leave_extent(&mut self, tail: &mut Tail, len: u64, room: Room) -> Result<bool> {
        let seq = self.seq()?;
        if self.writer.on_reserve && room == Room::Growth {
            // There may be room for a new reserve now; then this extent is an ordinary one.
            self.keep_reserve(0)?;
            if self.engine.mapping.check_limit(0, 0, self.writer.extent.1).is_ok() {
                let extent = self.writer.extent.0;
                self.writer.space.set_kind(&self.engine.mapping, extent, ExtentKind::Log, seq)?;
                self.writer.on_reserve = false;
                if tail.has_room(len) {
                    return Ok(false);
                }
            }
        }
        let (needed, known_end) = (len.saturating_add(JUMP_LEN), Offset(self.engine.mapping.len()));
        if let Some(cell) = self.engine.settings.cell() {
            let (extent, within) = self.take_cell(Demand { needed, usual: cell, room })?;
            return self.enter(tail, extent, (within, known_end)).map(|()| true);
        }
        let usual = match self.writer.run {
            Some((least, most)) if needed <= most => self.writer.space.lowest_run(align_block(needed).max(least), most),
            _ => self.writer.space.log_extent_len(needed, self.engine.settings.limits.log_extents()),
        };
        let demand = Demand { needed, usual, room };
        let mut taken = self.take_log(usual, demand);
        if let Err(full @ Error::Full { .. }) = taken {
            if self.lengthen_extent(tail, demand)? {
                return Ok(false);
            }
            taken = self.take_shorter(demand, full);
        }
        let within = taken.is_ok();
        if room != Room::Growth && matches!(taken, Err(Error::Full { .. })) {
            taken = match self.open_reserve(demand)? {
                Some(reserve) => Ok(reserve),
                None if self.writer.exceeds => {
                    let excess = self.excess_for(room, needed);
                    self.exceeding(excess, |writing| writing.allocate_log(demand))
                }
                None => taken,
            };
        }
        self.enter(tail, taken?, (within, known_end)).map(|()| true)
    }

    /// Takes a cell for a store that evicts, or else a piece of the reserve, and says whether it was a cell.
    fn take_cell(&mut self, demand: Demand) -> Result<(Extent, bool)> {
        if demand.needed > demand.usual {
            let (path, needed) = (self.engine.mapping.path().to_owned(), demand.needed);
            return Err(Error::Full { path, needed, why: FullReason::Entry(demand.usual - BESIDES) });
        }
        let may_use_reserve = demand.room == Room::Cleaning || self.writer.spends_all;
        let kept = if may_use_reserve { Ok(()) } else { self.keep_reserve(0) };
        match kept.and_then(|()| self.allocate(demand.usual / BLOCK, ExtentKind::Log)) {
            Err(full @ Error::Full { .. }) if may_use_reserve => {
                let taken = match self.open_cell(demand.needed)? {
                    Some(reserve) => reserve,
                    None if self.engine.mapping.is_too_long() => self.take_piece(demand, full)?,
                    None => return Err(full),
                };
                Ok((taken, false))
            }
            taken => taken.map(|cell| (cell, true)),
        }
    }

    /// When a cell was refused with `full`: takes a shorter piece. Those that have another limit, or none, leave no
    /// cells in a file that they make longer than this one's limit, and may have used up what was held back.
    fn take_piece(&mut self, demand: Demand, full: Error) -> Result<Extent> {
        let longest = self.writer.space.longest_run().min(demand.usual);
        if longest < align_block(demand.needed) {
            return Err(full);
        }
        self.allocate(longest / BLOCK, ExtentKind::ReserveLog)
    }

    /// The log jumps to an extent that was taken, within the limit or not, from a file that was known to have real
    /// space up to `known_end`.
    fn enter(&mut self, tail: &mut Tail, extent: Extent, (within, known_end): (bool, Offset)) -> Result<()> {
        let jumped = (|| {
            if within {
                // There was room, so the reserve may be refilled; if not, the write still succeeds.
                match self.keep_reserve(0) {
                    Ok(()) | Err(Error::Full { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            tail.jump(&self.engine.mapping, extent.offset, extent.end())
        })();
        if let Err(error) = jumped {
            let seq = self.seq()?;
            self.return_extent(&extent, seq)?;
            return Err(error);
        }
        self.writer.enter(&self.engine.mapping, extent);
        self.writer.on_reserve |= !within;
        // A synced commit should flush only what it has appended.
        if self.engine.settings.durability == Durability::Buffered {
            (self.writer.prepared, self.writer.fresh) = (extent.offset, known_end);
        }
        Ok(())
    }

    /// Takes an extent of the log: of the usual length, or else the longest free run that holds what is needed.
    fn allocate_log(&mut self, demand: Demand) -> Result<Extent> {
        match self.take_log(demand.usual, demand) {
            Err(full @ Error::Full { .. }) => self.take_shorter(demand, full),
            taken => taken,
        }
    }

    /// When the usual length was refused with `full`: takes the longest free run that holds what is needed.
    fn take_shorter(&mut self, demand: Demand, full: Error) -> Result<Extent> {
        let least = align_block(demand.needed);
        if least >= demand.usual {
            return Err(full);
        }
        self.take_log(self.writer.space.longest_run().min(demand.usual).max(least), demand)
    }

    /// Takes an extent of `len` bytes for the log.
    fn take_log(&mut self, len: u64, demand: Demand) -> Result<Extent> {
        if demand.room == Room::Growth {
            self.keep_reserve(len / BLOCK)?;
        }
        self.allocate(len / BLOCK, ExtentKind::Log)
    }

    /// Makes the extent of the tail longer by the free blocks after it, up to the usual length, and says whether the
    /// demand fits now. Cleaning frees a full store block by block; with an extent for each few blocks, more and more
    /// space would be left over at their ends. The new length is recorded nowhere else: an extent of the log ends at
    /// its jump.
    fn lengthen_extent(&mut self, tail: &mut Tail, demand: Demand) -> Result<bool> {
        let missing = align_block(demand.needed.saturating_sub(tail.extent_end - tail.at));
        if missing == 0 || demand.room == Room::Growth && self.writer.on_reserve {
            return Ok(false);
        }
        let most = demand.usual.max(missing);
        if demand.room == Room::Growth {
            match self.keep_reserve(most / BLOCK) {
                Err(Error::Full { .. }) => return Ok(false),
                kept => kept?,
            }
        }
        let extent = self.writer.extent.0;
        self.writer.extent.1 = self.writer.space.lengthen(&self.engine.mapping, extent, (missing, most))?;
        tail.extent_end = self.writer.extent.1;
        Ok(demand.needed <= tail.extent_end - tail.at)
    }

    /// Takes a step that needs room, within the limit if possible. Only what makes the store smaller may exceed it.
    #[inline]
    pub(crate) fn exceeding_at_last<R>(
        &mut self,
        room: Room,
        mut step: impl FnMut(&mut Self) -> Result<R>,
    ) -> Result<R> {
        match step(self) {
            // A store that evicts need not exceed its limit.
            Err(Error::Full { .. }) if room != Room::Growth && self.engine.settings.evict.is_none() => {}
            done => return done,
        }
        self.writer.exceeds = true;
        let done = step(self);
        self.writer.exceeds = false;
        done
    }

    /// By how many bytes a full store may exceed its limit, so that it can be made smaller. When removals have used
    /// that up, the log is cleaned, and one step of cleaning needs room for what it moves.
    pub(super) fn excess_for(&self, room: Room, needed: u64) -> u64 {
        if !self.writer.exceeds {
            return 0;
        }
        let usual = self.writer.space.log_extent_len(0, self.engine.settings.limits.log_extents());
        // After cleaning the whole log, its records may be packed less densely than before.
        let less_dense = self.writer.space.used_bytes() / 8;
        let of_removals = usual + REMOVAL_RESERVE * BLOCK + less_dense;
        match room {
            Room::Growth => 0,
            Room::Removal => of_removals,
            Room::Cleaning => {
                let step = usual + self.engine.settings.limits.most_bytes + align_block(needed);
                of_removals + step + less_dense
            }
        }
    }

    /// Whether there is room for a removal, whatever its key.
    pub(crate) fn has_room_to_remove(&self) -> bool {
        let excess = self.excess_for(Room::Removal, 0);
        let (free, _) = self.writer.space.lowest(REMOVAL_RESERVE * BLOCK);
        let (used, end) =
            (EXTENTS + self.writer.space.used_bytes() + REMOVAL_RESERVE * BLOCK, free + REMOVAL_RESERVE * BLOCK);
        self.engine.mapping.exceeding(excess, || self.engine.mapping.check_limit(0, used, end)).is_ok()
    }

    /// Gives back the extents that begin at these offsets.
    pub(crate) fn return_extents(&mut self, offsets: &[Offset]) -> Result<()> {
        let seq = self.seq()?;
        for &offset in offsets {
            if let Some(&extent) = self.writer.space.extent_of(offset) {
                self.return_extent(&extent, seq)?;
            }
        }
        Ok(())
    }

    /// Gives back an extent that was not put to use.
    pub(super) fn return_extent(&mut self, extent: &Extent, seq: Seq) -> Result<()> {
        match extent.kind {
            ExtentKind::ReserveLog => {
                self.writer.space.set_kind(&self.engine.mapping, extent.offset, ExtentKind::Reserve, seq)
            }
            _ => self.writer.space.free(&self.engine.mapping, extent.offset),
        }
    }
}
