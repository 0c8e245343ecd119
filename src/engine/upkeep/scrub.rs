//! Scrubbing: the log is read from time to time, slice by slice, and each record's CRC is checked.
//!
//! A disk loses bits of what nobody reads. A scrub finds that while there may still be a backup, and before a power cut
//! makes a recovery rely on it. It reads in the order of the log, dead records as well: a recovery would end at them.
//!
//! All processes share the place, two words of the live area, which nothing relies on. A slice that two of them read at
//! the same time is read twice. While a slice is read, its commit is [held](Hold), so nothing of it is used again, and
//! no writer waits. If compaction has passed the place since, the scrub goes on at the head: what was moved has been
//! checked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::clock::now;
use crate::engine::read::pins::Hold;
use crate::error::Result;
use crate::file::layout::{BLOCK, Kind, Offset, RECORD_HEADER, live};
use crate::file::log::{self, Record};
use crate::file::space::{Extent, LogPoint, Space};

/// How many bytes one slice reads, and one record.
const SLICE: u64 = 1 << 20;

/// The defect of a record.
const BAD_CRC: &str = "the CRC of the record does not hold";

/// A place as a word of the live area: the low bits of its extent's ordinal above its offset in units of 8 bytes.
fn word_of(point: LogPoint) -> u64 {
    (point.ordinal << 40) | (point.at.0 / 8)
}

impl Engine {
    /// Scrubs for as long as there is time, but at least a slice, if a scrub is due or has begun.
    pub(super) fn scrub(&self, has_time: impl Fn() -> bool) -> Result<()> {
        let Some(every) = self.settings.scrub.filter(|_| !self.read_only) else { return Ok(()) };
        loop {
            if self.mapping.live(live::SCRUB_AT)? == 0 && !self.begin_scrub(every)? {
                return Ok(());
            }
            self.scrub_slice()?;
            if !has_time() {
                return Ok(());
            }
        }
    }

    /// Begins a scrub, if one is due.
    fn begin_scrub(&self, every: Duration) -> Result<bool> {
        let (last, now) = (self.mapping.live(live::SCRUBBED)?, now());
        // A clock that was set back makes it due.
        if last <= now && u128::from(now - last) < every.as_millis() {
            return Ok(false);
        }
        let head = self.head()?;
        self.mapping.store_live(live::SCRUBBED, now, Ordering::Relaxed)?;
        let begin = LogPoint { ordinal: head.ordinal, at: head.head.at };
        self.mapping.store_live(live::SCRUB_AT, word_of(begin), Ordering::Relaxed)?;
        Ok(true)
    }

    /// Checks the next slice of the log.
    fn scrub_slice(&self) -> Result<()> {
        let _hold = Hold::take(self)?;
        let head = self.head()?;
        let tail = self.mapping.live_offset(live::TAIL)?;
        // If it changes all the time, the next attempt will do.
        let Some(space) = self.space_now()? else { return Ok(()) };
        self.mapping.refresh()?;
        let head = LogPoint { ordinal: head.ordinal, at: head.head.at };
        let mut point = place_in(&space, self.mapping.live(live::SCRUB_AT)?, head);
        let mut read = 0;
        while read < SLICE && point.at != tail {
            let Some(extent) = space.extent_of(point.at).filter(|extent| extent.ordinal == point.ordinal) else {
                break;
            };
            read += self.scrub_record(&space, extent, &mut point, tail)?;
        }
        self.upkeep.damage.scrubbed.fetch_add(read, Ordering::Relaxed);
        let next = if point.at == tail { 0 } else { word_of(point) };
        self.mapping.store_live(live::SCRUB_AT, next, Ordering::Relaxed)
    }

    /// Checks a record, goes on to the next one, and returns how much was read.
    fn scrub_record(&self, space: &Space, extent: &Extent, point: &mut LogPoint, tail: Offset) -> Result<u64> {
        let record = log::record(&self.mapping, point.at).ok();
        let record = record.filter(|record| record.kind().is_some() && record.end() <= extent.end());
        match record {
            Some(record) if record.crc_holds() => match record.target().filter(|_| record.kind() == Some(Kind::Jump)) {
                Some(target) => self.scrub_next(space, point, target, tail),
                None => point.at = record.end(),
            },
            _ => {
                self.note_damage(point.at, BAD_CRC)?;
                match record.filter(|record| self.is_followed(*record, tail)) {
                    Some(record) => point.at = record.end(),
                    None => {
                        // Where the next record begins is not known, but where the next extent does.
                        let later = space.extents().filter(|next| next.is_log() && next.ordinal > point.ordinal);
                        let next = later.min_by_key(|next| next.ordinal).map_or(tail, |next| next.offset);
                        self.scrub_next(space, point, next, tail);
                    }
                }
            }
        }
        Ok(record.map_or(BLOCK, |record| record.len()))
    }

    /// Goes on at the beginning of an extent.
    fn scrub_next(&self, space: &Space, point: &mut LogPoint, at: Offset, tail: Offset) {
        let ordinal = space.extent_of(at).map_or(point.ordinal, |extent| extent.ordinal);
        *point = if ordinal > point.ordinal { LogPoint { ordinal, at } } else { LogPoint { at: tail, ..*point } };
    }

    /// Whether the length of a damaged record is right.
    fn is_followed(&self, record: Record<'_>, tail: Offset) -> bool {
        let crcs = [record.header.crc.get(), record.expected_crc()];
        let next = log::record(&self.mapping, record.end());
        record.end() == tail || next.is_ok_and(|next| next.kind().is_some() && crcs.contains(&next.header.chain.get()))
    }
}

/// The place that a word says, or the head of the log if it lies before it or is none.
fn place_in(space: &Space, word: u64, head: LogPoint) -> LogPoint {
    let at = Offset((word & ((1 << 40) - 1)) * 8);
    match space.log_extent_of(at) {
        Some(extent)
            if extent.ordinal << 40 == word & !((1 << 40) - 1)
                && (extent.ordinal, at) >= (head.ordinal, head.at)
                && at + RECORD_HEADER <= extent.end() =>
        {
            LogPoint { ordinal: extent.ordinal, at }
        }
        _ => head,
    }
}
