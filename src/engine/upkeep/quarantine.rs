//! Quarantine: how compaction gets past damage at the head of the log, and loses nothing else by it.
//!
//! A record whose CRC does not hold may be wrong in any of its fields. So what is needed of it is decided by the slots
//! that lead to it, whatever it says itself. The key of such a slot keeps it: [a copy](crate::format#quarantine) says
//! that there was a value and that it is damaged, so that reads of the key fail until it is written again, and the log
//! after the head is whole. If the key in the record is not the one of the slot, the slot's hash takes its place.
//!
//! If the length of the record is wrong, the log goes on where a whole record follows it by its chain, in the same
//! extent or at the beginning of the next. If there is none, the rest of the extent is passed: whole records in it that
//! slots lead to are moved, as any others are.
//!
//! **Invariant.** No slot leads into what the head has passed. A slot of a key that has another slot by now, since the
//! damage had made the key disappear and it was written again, becomes dead.
//!
//! An entry of the catalogue is not quarantined: without it, the records of its map would be taken for dead.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::lookup::keys::WAS_DAMAGED;
use crate::engine::state::head::LogHead;
use crate::engine::state::ledger::Defect;
use crate::engine::state::writer::{Appended, Writing};
use crate::engine::write::commit::Effect;
use crate::engine::write::slots::Place;
use crate::error::Result;
use crate::file::index::{Index, Probe, Slot, Totals};
use crate::file::layout::{
    CATALOGUE, JUMP_LEN, KeyHash, Kind, MAX_VALUE_LEN, MapId, Offset, RECORD_HEADER, RecordHeader, Seq, flags, live,
};
use crate::file::log::{self, Entry, Head, Record, Scan};
use crate::file::space::Extent;

/// A record that goes into quarantine.
pub(super) struct Quarantined<'a> {
    pub(super) place: Place<'a>,
    /// Where its slot leads.
    from: Offset,
    expires: Option<u64>,
    /// Empty if it is lost.
    key: &'a [u8],
    value: Cow<'a, [u8]>,
}

impl Quarantined<'_> {
    /// The record to append for it.
    pub(super) fn entry(&self, seq: Seq) -> Entry<'_> {
        Entry {
            flags: flags::COPY | flags::DAMAGED,
            prev: self.from,
            map: self.place.map,
            expires: self.expires.map(Into::into),
            key: self.key,
            value: &self.value,
            ..Entry::bare(Kind::Put, seq)
        }
    }
}

/// Damage at the head of the log, and what has to be kept of it.
pub(super) struct Damage<'a> {
    /// Where the log goes on, and what will have been passed then.
    pub(super) next: LogHead,
    /// The extents that are passed as a whole.
    pub(super) leaves: Vec<Offset>,
    pub(super) quarantined: Vec<Quarantined<'a>>,
    /// Whole records within it.
    pub(super) whole: Vec<(Record<'a>, Place<'a>)>,
    /// Slots of keys that have another one.
    pub(super) stale: Vec<Place<'a>>,
}

impl Damage<'_> {
    /// Whether a key with this hash is quarantined already.
    fn keeps(&self, map: MapId, hash: KeyHash) -> bool {
        self.quarantined.iter().any(|quarantined| quarantined.place.map == map && quarantined.place.hash == hash)
    }
}

/// A part of the log that damage makes unreadable.
struct Hole<'a> {
    start: Offset,
    end: Offset,
    /// The record that it is, if that is all and its length is right.
    record: Option<Record<'a>>,
    /// Only its own CRC, or its chain, is wrong: what the records around it say of it proves the rest.
    is_proven: bool,
    /// Bytes of the record that it is, if that is all.
    len: Option<u64>,
    /// Where the log goes on, and the chain there.
    next: (Offset, u32),
    leaves: Vec<Offset>,
}

impl Engine {
    /// What the record at `at` says that the CRC of the one before it is; at the tail, what the next one will say.
    fn chain_at(&self, at: Offset, tail: Offset) -> Result<Option<u32>> {
        if at == tail {
            return Ok(Some(self.mapping.live(live::CHAIN)? as u32));
        }
        let Ok(header) = self.header_at(at) else { return Ok(None) };
        Ok(Kind::from_u8(header.kind).map(|_| header.chain.get()))
    }

    fn header_at(&self, at: Offset) -> Result<&RecordHeader> {
        if at < Offset::EXTENTS || !at.is_aligned(8) {
            return Err(self.mapping.corrupt(at, "a record was expected at this offset, and none can be"));
        }
        self.mapping.header(at)
    }

    /// The first record after `at` and before `end` that is whole and follows a record with this CRC.
    fn successor(&self, at: Offset, end: Offset, crc: u32, visible: Seq) -> Option<Offset> {
        let mut next = at + RECORD_HEADER;
        while next + RECORD_HEADER <= end {
            if self.header_at(next).is_ok_and(|header| header.chain.get() == crc)
                && log::record(&self.mapping, next).is_ok_and(|record| {
                    record.kind().is_some() && record.end() <= end && record.seq() <= visible && record.crc_holds()
                })
            {
                return Some(next);
            }
            next += 8;
        }
        None
    }

    /// The slots of all maps that lead into a part of the log.
    fn slots_into(&self, start: Offset, end: Offset) -> Result<Vec<(MapId, Index<'_>, Slot)>> {
        let mut found = Vec::new();
        for (map, index) in self.maps()? {
            for slot in index.iter() {
                let slot = slot?;
                if slot.record.is_some_and(|record| (start..end).contains(&record)) {
                    found.push((map, index, slot));
                }
            }
        }
        found.sort_by_key(|(.., slot)| slot.record);
        Ok(found)
    }

    /// Whether another slot has this hash, and leads to a whole record that says so.
    fn was_written_again(&self, map: MapId, index: &Index<'_>, slot: &Slot) -> Result<bool> {
        index.has_slot(slot.hash, |at, offset| {
            let is_whole = |record: Record<'_>| {
                record.header.map() == map && record.hash(self.seed) == slot.hash && record.crc_holds()
            };
            Ok(at != slot.at && log::record(&self.mapping, offset).is_ok_and(is_whole))
        })
    }

    /// Quarantines a record of which nothing is in doubt but its value: the slot of its key leads to it.
    fn quarantine_at_once<'e>(&'e self, hole: &Hole<'e>) -> Result<Option<Quarantined<'e>>> {
        let is_put = |record: &Record<'_>| record.kind() == Some(Kind::Put) && !hole.is_proven;
        let Some(record) = hole.record.filter(is_put) else { return Ok(None) };
        let map = record.header.map();
        if map == CATALOGUE || record.key().is_empty() || record.value().is_empty() {
            return Ok(None);
        }
        let Some(index) = self.index(map)? else { return Ok(None) };
        let hash = KeyHash::of(record.key(), self.seed);
        let mut slot = None;
        index.has_slot(hash, |at, offset| {
            slot = slot.or((offset == record.offset).then_some(Probe::Found(at, offset)));
            Ok(slot.is_some())
        })?;
        Ok(slot.map(|slot| as_found(record, Place { index, map, hash, slot })))
    }

    /// Quarantines a record of which nothing is believed but the slot that leads to it.
    fn quarantine_by_slot<'e>(&'e self, hole: &Hole<'e>, place: Place<'e>, from: Offset) -> Quarantined<'e> {
        let record = hole.record.filter(|record| record.offset == from);
        match record {
            Some(record) if !record.key().is_empty() && KeyHash::of(record.key(), self.seed) == place.hash => {
                as_found(record, place)
            }
            _ => {
                let whole = hole.len.filter(|_| from == hole.start);
                let bytes = whole.and_then(|len| self.mapping.frozen(from, len).ok());
                let mut value = place.hash.bits().to_le_bytes().to_vec();
                let room = MAX_VALUE_LEN - value.len() as u64;
                value.extend_from_slice(bytes.filter(|bytes| bytes.len() as u64 <= room).unwrap_or_default());
                Quarantined { place, from, expires: None, key: &[], value: value.into() }
            }
        }
    }
}

impl Engine {
    /// Notes damage for `stats`. Two processes that find some at the same moment may count it once.
    pub(super) fn note_damage(&self, offset: impl Into<u64>, what: &'static str) -> Result<()> {
        if self.upkeep.damage.note(Defect { offset: offset.into(), what }) {
            let found = self.mapping.live(live::DAMAGE)?;
            self.mapping.store_live(live::DAMAGE, found.saturating_add(1), Ordering::Relaxed)?;
        }
        Ok(())
    }

    /// Says that records were put into quarantine. A recovery would still begin before them, and end there.
    #[cold]
    pub(super) fn report_quarantined(&self, records: &[Quarantined<'_>]) -> Result<()> {
        let before = self.mapping.live(live::QUARANTINED)?;
        let count = before.saturating_add(records.len() as u64);
        self.mapping.store_live(live::QUARANTINED, count, Ordering::Relaxed)?;
        records.iter().try_for_each(|record| self.note_damage(record.from, WAS_DAMAGED))?;
        self.upkeep.want_checkpoint();
        Ok(())
    }
}

/// A damaged record with the key of its slot.
fn as_found<'a>(record: Record<'a>, place: Place<'a>) -> Quarantined<'a> {
    let (from, expires) = (record.offset, record.expires());
    Quarantined { place, from, expires, key: record.key(), value: record.value().into() }
}

impl<'e> Writing<'e> {
    /// Looks at the damage at a head of the log.
    #[cold]
    pub(super) fn examine(&self, head: &LogHead, tail: Offset) -> Result<Damage<'e>> {
        let engine = self.engine;
        let hole = self.hole_at(&head.head, tail)?;
        let next = self.head_after(head, &hole, tail)?;
        let (quarantined, whole, stale) = (Vec::new(), Vec::new(), Vec::new());
        let mut damage = Damage { next, leaves: hole.leaves.clone(), quarantined, whole, stale };
        if let Some(quarantined) = engine.quarantine_at_once(&hole)? {
            damage.quarantined.push(quarantined);
            return Ok(damage);
        }
        for (map, index, slot) in engine.slots_into(hole.start, hole.end)? {
            let Some(from) = slot.record else { continue };
            let place = Place { index, map, hash: slot.hash, slot: Probe::Found(slot.at, from) };
            let is_whole = |record: &Record<'_>| {
                let holds = || record.crc_holds() || hole.is_proven && record.offset == hole.start;
                record.header.map() == map && record.hash(engine.seed) == slot.hash && holds()
            };
            if let Some(record) = log::record(&engine.mapping, from).ok().filter(is_whole) {
                damage.whole.push((record, place));
            } else if map == CATALOGUE {
                let what = "an entry of the catalogue is damaged, and the log cannot be compacted past it";
                return Err(engine.mapping.corrupt(from, what));
            } else if engine.was_written_again(map, &index, &slot)? || damage.keeps(map, slot.hash) {
                damage.stale.push(place);
            } else {
                damage.quarantined.push(engine.quarantine_by_slot(&hole, place, from));
            }
        }
        Ok(damage)
    }

    /// Finds where the log goes on after a damaged record.
    fn hole_at(&self, head: &Head, tail: Offset) -> Result<Hole<'e>> {
        let (engine, space) = (self.engine, &self.writer.space);
        let (mapping, &Head { at, chain, .. }) = (&engine.mapping, head);
        let extent = space.extent_of(at).filter(|extent| extent.has_records());
        let ordinal = extent.ok_or_else(|| mapping.corrupt(at, "the head of the log lies in no extent"))?.ordinal;
        // A kill may have left it cut in two.
        let parts = || space.extents().filter(move |extent| extent.has_records() && extent.ordinal == ordinal);
        let is_last = parts().any(|extent| extent.contains(tail));
        let end = if is_last { tail } else { parts().map(Extent::end).max().unwrap_or(at) };
        let leaves: Vec<Offset> = parts().filter(|extent| extent.is_log()).map(|extent| extent.offset).collect();

        if let Some(record) = log::record(mapping, at).ok().filter(|record| record.end() <= end) {
            let crcs = [record.header.crc.get(), record.expected_crc(), record.crc_after(chain)];
            let follows = |next| Ok(engine.chain_at(next, tail)?.filter(|chain| crcs.contains(chain)));
            let hole = |next: (Offset, u32), leaves| {
                let (len, is_proven) = (Some(record.len()), crcs[1..].contains(&next.1));
                Hole { start: at, end: record.end(), record: Some(record), is_proven, len, next, leaves }
            };
            if let Some(chain) = follows(record.end())? {
                return Ok(hole((record.end(), chain), Vec::new()));
            }
            if let Some(target) = record.target().filter(|&target| space.log_extent_of(target).is_some())
                && let Some(chain) = follows(target)?
            {
                return Ok(hole((target, chain), leaves));
            }
        }
        let crc = engine.header_at(at)?.crc.get();
        let one = |end: Offset, next, leaves| Hole {
            start: at,
            end,
            record: None,
            is_proven: false,
            len: Some(end.bytes_since(at)),
            next,
            leaves,
        };
        let visible = mapping.live_seq(live::VISIBLE)?;
        if let Some(next) = engine.successor(at, end, crc, visible) {
            return Ok(one(next, (next, crc), Vec::new()));
        }
        let unknown = |next, leaves| Hole { start: at, end, record: None, is_proven: false, len: None, next, leaves };
        if is_last {
            let chain = mapping.live(live::CHAIN)? as u32;
            let next = (tail, chain);
            return Ok(if chain == crc { one(tail, next, Vec::new()) } else { unknown(next, Vec::new()) });
        }
        let later = space.extents().filter(|extent| extent.has_records() && extent.ordinal > ordinal);
        let next = later.min_by_key(|extent| extent.ordinal).map(|extent| extent.offset);
        let next = next.ok_or_else(|| mapping.corrupt(at, "no extent of the log follows the one with this record"))?;
        let chain = engine.header_at(next)?.chain.get();
        let is_jump = engine.chain_at(next, tail)? == Some(crc) && at + JUMP_LEN <= end;
        Ok(if is_jump { one(at + JUMP_LEN, (next, chain), leaves) } else { unknown((next, chain), leaves) })
    }

    /// The head when a hole was passed.
    fn head_after(&self, head: &LogHead, hole: &Hole<'_>, tail: Offset) -> Result<LogHead> {
        let (next, chain) = hole.next;
        let mut after = *head;
        (after.head.at, after.head.chain) = (next, chain);
        after.behind = self.behind(head, hole, tail)?;
        let (bytes, records) = match hole.len {
            Some(len) => (head.bytes.saturating_add(len), head.records.saturating_add(1)),
            None => self.counted_before(next, tail)?.unwrap_or((head.bytes, head.records)),
        };
        (after.bytes, after.records) = (bytes.max(head.bytes.saturating_add(8)), records);
        Ok(after)
    }

    /// The highest number that a record in a hole, or before it, may have. What the record says itself is believed only
    /// if it fits.
    fn behind(&self, head: &LogHead, hole: &Hole<'_>, tail: Offset) -> Result<Seq> {
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?;
        let most = match log::record(&self.engine.mapping, hole.next.0) {
            Ok(next) if hole.next.0 != tail && next.seq() <= visible => match next.kind() {
                Some(Kind::Incarnation) => Seq::new(head.behind.incarnation(), next.seq().count().saturating_sub(1)),
                _ => next.seq(),
            },
            _ => visible,
        };
        let most = most.max(head.behind);
        let said = hole.record.map(|record| record.seq());
        Ok(said.filter(|said| (head.behind..=most).contains(said)).unwrap_or(most))
    }

    /// Bytes and number of the records before `at`, by what the log counts and what it has from there on.
    fn counted_before(&self, at: Offset, tail: Offset) -> Result<Option<(u64, u64)>> {
        let all = self.engine.log_totals()?;
        let (mut bytes, mut records) = (all.bytes, all.records);
        for record in Scan::new(&self.engine.mapping, at, tail) {
            // There is more damage.
            let Ok(record) = record else { return Ok(None) };
            (bytes, records) = (bytes.saturating_sub(record.len()), records.saturating_sub(1));
        }
        Ok(Some((bytes, records)))
    }

    /// Makes slots dead that are no longer those of their keys, and counts the keys of their maps without them, as a
    /// commit without records. Doing it twice does no harm.
    pub(super) fn retire_stale(&mut self, stale: &[Place<'e>]) -> Result<()> {
        if stale.is_empty() {
            return Ok(());
        }
        let tail = self.tail()?;
        self.commit(&tail, Effect::Unseen, |writing| {
            let mut maps: Vec<(MapId, Index<'e>)> = stale.iter().map(|place| (place.map, place.index)).collect();
            maps.sort_by_key(|(map, _)| *map);
            maps.dedup_by_key(|(map, _)| *map);
            for (map, index) in maps {
                let is_left = |at| !stale.iter().any(|place| place.map == map && place.slot.at() == at);
                let Totals { keys, bytes, .. } = writing.engine.count_keys(&index, is_left)?;
                index.set_totals(Totals { seq: tail.seq, keys, bytes, ..index.totals()? })?;
            }
            let (live, gone) = (writing.engine.sum_of_live_bytes()?, writing.engine.log_totals()?.live_bytes);
            writing.count_log(tail.seq, Appended { live, gone, ..Appended::default() })?;
            stale.iter().try_for_each(|place| writing.retire_slot(place))?;
            Ok(Appended::default())
        })
    }
}
