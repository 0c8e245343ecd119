//! Room for records in the log, and for a store that is full. For regions and tables: [`regions`](super::regions). For
//! slots in an index: [`resize`](crate::engine::upkeep::resize). What is held back for a full store:
//! [`reserve`](super::reserve).

use super::reserve::{Demand, REMOVAL_RESERVE, Room};
use crate::engine::Engine;
use crate::engine::state::writer::Writer;
use crate::error::{Error, Result};
use crate::file::layout::{BLOCK, EXTENTS, ExtentKind, JUMP_LEN, align_block, flags};
use crate::file::log::Tail;
use crate::file::space::Extent;

/// What the tombstone of a record may have and the record has not.
const SHORTCUT_LEN: u64 = flags::SHORTCUT as u64;

impl Engine {
    /// Sees to it that a record of `len` bytes fits at the tail, which jumps to another extent if it does not fit
    /// into this one; says whether it did.
    #[inline]
    pub(crate) fn make_log_room(
        &self,
        writer: &mut Writer,
        tail: &mut Tail,
        len: u64,
        seq: u64,
        room: Room,
    ) -> Result<bool> {
        let len = if room == Room::Growth { len.saturating_add(SHORTCUT_LEN) } else { len };
        let jumped = match tail.has_room(len) && (room != Room::Growth || !writer.on_reserve) {
            true => false,
            false => self.leave_extent(writer, tail, len, seq, room)?,
        };
        writer.longest = writer.longest.max(len);
        Ok(jumped)
    }

    /// Goes on in another extent, in any case.
    #[cold]
    pub(crate) fn leave_extent(
        &self,
        writer: &mut Writer,
        tail: &mut Tail,
        len: u64,
        seq: u64,
        room: Room,
    ) -> Result<bool> {
        if writer.on_reserve && room == Room::Growth {
            // There may be room again, for a new reserve; then this extent is one like any other.
            self.keep_reserve(writer, 0, seq)?;
            if self.region.check_limit(0, 0, writer.extent.1).is_ok() {
                writer.space.set_kind(&self.region, writer.extent.0, ExtentKind::Log, seq)?;
                writer.on_reserve = false;
                if tail.has_room(len) {
                    return Ok(false);
                }
            }
        }
        let needed = len.saturating_add(JUMP_LEN);
        let usual = match writer.run {
            Some((least, most)) if needed <= most => writer.space.lowest_run(align_block(needed).max(least), most),
            _ => writer.space.log_extent_len(needed, self.settings.limits.log_extents()),
        };
        let demand = Demand { needed, usual, room, seq };
        let mut taken = self.take_log(writer, usual, demand);
        if matches!(taken, Err(Error::Full { .. })) {
            if self.lengthen_extent(writer, tail, demand)? {
                return Ok(false);
            }
            taken = self.allocate_log(writer, demand);
        }
        let within = taken.is_ok();
        if room != Room::Growth && matches!(taken, Err(Error::Full { .. })) {
            taken = match self.open_reserve(writer, demand)? {
                Some(reserve) => Ok(reserve),
                None if writer.exceeds => {
                    let excess = self.excess_for(writer, room, needed);
                    self.region.exceeding(excess, || self.allocate_log(writer, demand))
                }
                None => taken,
            };
        }
        let extent = taken?;
        let jumped = (|| {
            if within {
                // There was room, so what was held back and used up may be held back again; if not, then not.
                match self.keep_reserve(writer, 0, seq) {
                    Ok(()) | Err(Error::Full { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            tail.jump(&self.region, seq, extent.offset, extent.end())
        })();
        if let Err(error) = jumped {
            self.return_extent(writer, &extent, seq)?;
            return Err(error);
        }
        writer.enter(&self.region, extent);
        writer.on_reserve |= !within;
        Ok(true)
    }

    /// Takes an extent of the log: of the usual length, or if there is no room for that, the longest free run that
    /// holds what is needed.
    fn allocate_log(&self, writer: &mut Writer, demand: Demand) -> Result<Extent> {
        let (least, usual) = (align_block(demand.needed), demand.usual);
        match self.take_log(writer, usual, demand) {
            Err(Error::Full { .. }) if least < usual => {
                let longest = writer.space.longest_run().min(usual).max(least);
                self.take_log(writer, longest, demand)
            }
            taken => taken,
        }
    }

    /// Takes an extent of the log of so many bytes.
    fn take_log(&self, writer: &mut Writer, len: u64, demand: Demand) -> Result<Extent> {
        if demand.room == Room::Growth {
            self.keep_reserve(writer, len / BLOCK, demand.seq)?;
        }
        self.allocate(writer, len / BLOCK, ExtentKind::Log, demand.seq)
    }

    /// Makes the extent of the tail longer by the free blocks behind it, as much as is usual, and says whether what is
    /// needed has room now. In a full store, what is cleaned is free block by block; with an extent of its own for each
    /// few blocks, more and more would be left over at their ends. That the extent is longer need not be written
    /// anywhere else: where an extent of the log ends, its jump says.
    fn lengthen_extent(&self, writer: &mut Writer, tail: &mut Tail, demand: Demand) -> Result<bool> {
        let missing = align_block(demand.needed.saturating_sub(tail.extent_end - tail.at));
        if missing == 0 || demand.room == Room::Growth && writer.on_reserve {
            return Ok(false);
        }
        let most = demand.usual.max(missing);
        if demand.room == Room::Growth {
            match self.keep_reserve(writer, most / BLOCK, demand.seq) {
                Err(Error::Full { .. }) => return Ok(false),
                kept => kept?,
            }
        }
        writer.extent.1 = writer.space.lengthen(&self.region, writer.extent.0, (missing, most))?;
        tail.extent_end = writer.extent.1;
        Ok(demand.needed <= tail.extent_end - tail.at)
    }

    /// Takes a step that needs room: within the limit if it can be. Only what makes the store smaller may exceed it.
    #[inline]
    pub(crate) fn exceeding_at_last<R>(
        &self,
        writer: &mut Writer,
        room: Room,
        mut step: impl FnMut(&mut Writer) -> Result<R>,
    ) -> Result<R> {
        match step(writer) {
            Err(Error::Full { .. }) if room != Room::Growth => {}
            done => return done,
        }
        writer.exceeds = true;
        let done = step(writer);
        writer.exceeds = false;
        done
    }

    /// By how many bytes a full store may exceed its limit, so that it can be made smaller. When removals have come
    /// that far, the log is cleaned, for which there has to be room for what one step of that moves.
    pub(super) fn excess_for(&self, writer: &Writer, room: Room, needed: u64) -> u64 {
        if !writer.exceeds {
            return 0;
        }
        let usual = writer.space.log_extent_len(0, self.settings.limits.log_extents());
        // What cleaning has moved along the whole log may lie less densely than it did.
        let less_dense = writer.space.used_bytes() / 8;
        let of_removals = usual + REMOVAL_RESERVE * BLOCK + less_dense;
        match room {
            Room::Growth => 0,
            Room::Removal => of_removals,
            Room::Cleaning => {
                let step = usual + self.settings.limits.most_bytes + align_block(needed);
                of_removals + step + less_dense
            }
        }
    }

    /// Whether there is room for a removal, whatever its key.
    pub(crate) fn has_room_to_remove(&self, writer: &Writer) -> bool {
        let excess = self.excess_for(writer, Room::Removal, 0);
        let (free, _) = writer.space.lowest(REMOVAL_RESERVE * BLOCK);
        let (used, end) =
            (EXTENTS + writer.space.used_bytes() + REMOVAL_RESERVE * BLOCK, free + REMOVAL_RESERVE * BLOCK);
        self.region.exceeding(excess, || self.region.check_limit(0, used, end)).is_ok()
    }

    /// Gives back an extent that nobody has put to use.
    pub(super) fn return_extent(&self, writer: &mut Writer, extent: &Extent, seq: u64) -> Result<()> {
        match extent.kind {
            ExtentKind::ReserveLog => writer.space.set_kind(&self.region, extent.offset, ExtentKind::Reserve, seq),
            _ => writer.space.free(&self.region, extent.offset),
        }
    }
}
