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
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::lookup::keys::WAS_DAMAGED;
use crate::engine::state::head::LogHead;
use crate::engine::state::ledger::Defect;
use crate::engine::state::live_area::Appended;
use crate::engine::state::writer::Writing;
use crate::engine::write::commit::Effect;
use crate::engine::write::slots::Place;
use crate::error::Result;
use crate::file::index::{Index, Probe, Slot, SlotAt, Totals};
use crate::file::layout::{
    CATALOGUE, JUMP_LEN, KeyHash, Kind, MapId, Offset, RECORD_HEADER, RecordHeader, Seq, flags, live,
};
use crate::file::log::{self, Entry, Head, Record};
use crate::file::space::Extent;
use crate::telemetry;

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
    /// How much was passed by then is not known.
    pub(super) is_uncounted: bool,
    /// The extents that are passed as a whole.
    pub(super) leaves: Vec<Offset>,
    pub(super) quarantined: Vec<Quarantined<'a>>,
    /// Whole records within it.
    pub(super) whole: Vec<(Record<'a>, Place<'a>)>,
    /// What the maps count may be wrong.
    pub(super) miscounts: bool,
}

/// For how many bytes of the log slots are searched at once: a search goes through all indexes.
const AT_ONCE: u64 = 1 << 20;

/// The slots that lead into a part of the log, found by one search.
#[derive(Default)]
pub(super) struct Slots<'a> {
    start: Offset,
    end: Offset,
    /// In the order of the records that they lead to.
    found: Vec<(MapId, Index<'a>, Slot)>,
    /// Those that lead to damage, of keys that have another one.
    pub(super) stale: Vec<Place<'a>>,
}

impl<'e> Slots<'e> {
    /// Those that lead to records from `start` to `end`.
    fn leading_into(
        &mut self,
        engine: &'e Engine,
        start: Offset,
        end: Offset,
    ) -> Result<Vec<(MapId, Index<'e>, Slot)>> {
        if start < self.start || end > self.end {
            (self.start, self.end) = (start, end.max(start + AT_ONCE));
            self.found.clear();
            for (map, index) in engine.maps()? {
                for slot in index.iter() {
                    let slot = slot?;
                    if slot.record.is_some_and(|record| (self.start..self.end).contains(&record)) {
                        self.found.push((map, index, slot));
                    }
                }
            }
            self.found.sort_by_key(|(.., slot)| slot.record);
        }
        let before = |end: Offset| self.found.partition_point(|(.., slot)| slot.record < Some(end));
        Ok(self.found[before(start)..before(end)].to_vec())
    }

    /// Whether the key of a slot has another one. Then that one is newer: this one led to damage when the other was
    /// given.
    fn has_another(&self, map: MapId, index: &Index<'_>, slot: &Slot) -> Result<bool> {
        let is_stale = |at| self.stale.iter().any(|place| place.map == map && place.slot.at() == at);
        index.has_slot(slot.hash, |at, _| at != slot.at && !is_stale(at))
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

impl Hole<'_> {
    /// Whether what has replaced the record, if anything has, counted its length, and that it had a value, as it was.
    fn counts_right(&self) -> bool {
        let is_put = |record: Record<'_>| record.kind() == Some(Kind::Put) && !record.value().is_empty();
        self.is_proven || self.record.is_some_and(is_put)
    }
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

    /// The record at a head of the log. Its CRC is not checked.
    pub(super) fn record_at_head(&self, head: &Head) -> Result<Record<'_>> {
        let record = log::record(&self.mapping, head.at)?;
        // It costs next to nothing, and detects a damaged length that led astray, and what the place held before.
        if record.header.chain.get() != head.chain || record.kind().is_none() || !self.is_in_order(record, head)? {
            return Err(self.mapping.corrupt(head.at, "expected the record that follows the one before it"));
        }
        Ok(record)
    }

    /// Whether a record that lies at a head of the log, or after it, may have its number.
    pub(super) fn is_in_order(&self, record: Record<'_>, head: &Head) -> Result<bool> {
        Ok((head.seq..=self.mapping.live_seq(live::VISIBLE)?).contains(&record.seq()))
    }

    fn header_at(&self, at: Offset) -> Result<&RecordHeader> {
        if at < Offset::EXTENTS || !at.is_aligned(8) {
            return Err(self.mapping.corrupt(at, "a record was expected at this offset, and none can be"));
        }
        self.mapping.header(at)
    }

    /// The first record after a head and before `end` that is whole and follows a record with this CRC.
    fn successor(&self, head: &Head, end: Offset, crc: u32) -> Option<Offset> {
        let mut next = head.at + RECORD_HEADER;
        while next + RECORD_HEADER <= end {
            if self.header_at(next).is_ok_and(|header| header.chain.get() == crc)
                && log::record(&self.mapping, next).is_ok_and(|record| {
                    let is_in_order = || self.is_in_order(record, head).unwrap_or(false);
                    record.kind().is_some() && record.end() <= end && is_in_order() && record.crc_holds()
                })
            {
                return Some(next);
            }
            next += 8;
        }
        None
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
            slot.is_some()
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
                let len = hole.len.filter(|_| from == hole.start);
                let bytes = len.and_then(|len| self.mapping.frozen(from, len).ok()).unwrap_or_default();
                // So that it counts for as much as before.
                let begin = RECORD_HEADER + 8 + record.map_or(0, |record| record.header.shortcut_len());
                let rest = bytes.get(begin as usize..).unwrap_or_default();
                let value = [&place.hash.bits().to_le_bytes(), rest].concat();
                Quarantined { place, from, expires: None, key: &[], value: value.into() }
            }
        }
    }
}

impl Engine {
    /// The keys of a map that have a value, and the bytes of their records, by the slots that `is_valid` accepts.
    fn count_keys(&self, index: &Index<'_>, is_valid: impl Fn(SlotAt) -> bool) -> Result<Totals> {
        let mut counted = Totals::default();
        for slot in index.iter() {
            let slot = slot?;
            // Damage elsewhere counts for nothing until compaction comes to it.
            let record = slot.record.filter(|_| is_valid(slot.at)).map(|offset| log::record(&self.mapping, offset));
            if let Some(Ok(record)) = record
                && record.kind() == Some(Kind::Put)
            {
                counted.keys += 1;
                counted.bytes += record.counted_len();
            }
        }
        Ok(counted)
    }

    /// Notes damage for `stats`. Two processes that find some at the same moment may count it once.
    pub(super) fn note_damage(&self, offset: impl Into<u64>, what: &'static str) -> Result<()> {
        let offset = offset.into();
        if self.upkeep.damage.note(Defect { offset, what }) {
            telemetry::on_damage(self.mapping.path(), offset, what);
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
        telemetry::on_quarantined(self.mapping.path(), records.len() as u64);
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
    pub(super) fn examine(&self, head: &LogHead, tail: Offset, slots: &mut Slots<'e>) -> Result<Damage<'e>> {
        let engine = self.engine;
        let hole = self.hole_at(&head.head, tail)?;
        let (next, is_uncounted) = self.head_after(head, &hole, tail)?;
        let (quarantined, whole, leaves) = (Vec::new(), Vec::new(), hole.leaves.clone());
        let mut damage = Damage { next, is_uncounted, leaves, quarantined, whole, miscounts: false };
        if let Some(quarantined) = engine.quarantine_at_once(&hole)? {
            damage.quarantined.push(quarantined);
            return Ok(damage);
        }
        // What has replaced the record counted what it said.
        damage.miscounts = !hole.counts_right();
        for (map, index, slot) in slots.leading_into(engine, hole.start, hole.end)? {
            let Some(from) = slot.record else { continue };
            let place = Place { index, map, hash: slot.hash, slot: Probe::Found(slot.at, from) };
            let is_whole = |record: &Record<'_>| {
                let holds = || record.crc_holds() || hole.is_proven && record.offset == hole.start;
                record.header.map() == map && record.hash(engine.seed) == slot.hash && holds()
            };
            let record = log::record(&engine.mapping, from).ok().filter(is_whole);
            // What the place held before may be whole as well.
            if let Some(record) = record.filter(|record| engine.is_in_order(*record, &head.head).unwrap_or(false)) {
                damage.whole.push((record, place));
                continue;
            }
            if map == CATALOGUE {
                let what = "an entry of the catalogue is damaged, and the log cannot be compacted past it";
                return Err(engine.mapping.corrupt(from, what));
            } else if slots.has_another(map, &index, &slot)? {
                slots.stale.push(place);
                damage.miscounts = true;
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

        let is_in_order = |record: &Record<'_>| engine.is_in_order(*record, head).unwrap_or(false);
        let record = log::record(mapping, at).ok().filter(|record| record.end() <= end);
        if let Some(record) = record.filter(|record| !record.crc_holds() || is_in_order(record)) {
            let crcs = [record.header.crc.get(), record.expected_crc(), record.crc_after(chain)];
            let follows = |next| Ok(engine.chain_at(next, tail)?.filter(|chain| crcs.contains(chain)));
            let hole = |next: (Offset, u32), leaves| {
                let (len, is_proven) = (Some(record.len()), crcs[1..].contains(&next.1));
                Hole { start: at, end: record.end(), record: Some(record), is_proven, len, next, leaves }
            };
            // An extent ends with a jump, whatever its length seems to be.
            let is_inside = record.end() < end || is_last;
            if is_inside && let Some(chain) = follows(record.end())? {
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
        if let Some(next) = engine.successor(head, end, crc) {
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

    /// The head when a hole was passed; and whether what was passed by then is not known.
    fn head_after(&self, head: &LogHead, hole: &Hole<'_>, tail: Offset) -> Result<(LogHead, bool)> {
        let (next, chain) = hole.next;
        let mut after = *head;
        (after.head.at, after.head.chain) = (next, chain);
        after.behind = self.behind(head, hole, tail)?;
        let by_length = hole.len.map(|len| (head.bytes.saturating_add(len), head.records.saturating_add(1)));
        let is_counted = by_length.is_some() && !self.writer.is_uncounted;
        let counted = if is_counted { by_length } else { self.counted_before(after.head, tail)? };
        let (bytes, records) = counted.or(by_length).unwrap_or((head.bytes, head.records));
        (after.bytes, after.records) = (bytes.max(head.bytes.saturating_add(8)), records);
        Ok((after, counted.is_none()))
    }

    /// The highest number that a record in a hole, or before it, may have, whatever it says itself.
    fn behind(&self, head: &LogHead, hole: &Hole<'_>, tail: Offset) -> Result<Seq> {
        if let Some(proven) = hole.record.filter(|_| hole.is_proven) {
            return Ok(if proven.tells() { head.behind.max(proven.seq()) } else { head.behind });
        }
        if hole.next.0 == tail {
            return self.engine.mapping.live_seq(live::VISIBLE);
        }
        // If there is more damage, what follows that will tell.
        let next = log::record(&self.engine.mapping, hole.next.0).ok().filter(|next| next.crc_holds());
        let most = next.map_or(head.behind, |next| match next.kind() {
            Some(Kind::Incarnation) => Seq::new(head.behind.incarnation(), next.seq().count().saturating_sub(1)),
            _ => next.seq(),
        });
        Ok(most.max(head.behind))
    }

    /// Bytes and number of the records before `head`, by what the log counts and what it has from there on. `None` if
    /// that cannot be told, for there is more damage of which the length is not known: then it is asked again after
    /// that.
    fn counted_before(&self, mut head: Head, tail: Offset) -> Result<Option<(u64, u64)>> {
        let all = self.engine.log_totals()?;
        let (mut bytes, mut records, mut passed) = (all.bytes, all.records, 0);
        while head.at != tail && passed <= self.engine.mapping.len() {
            let record = self.engine.record_at_head(&head).ok().filter(|record| record.crc_holds());
            let len = match record {
                Some(record) => {
                    let target = record.target().filter(|_| record.kind() == Some(Kind::Jump));
                    let at = target.unwrap_or(record.end());
                    head = Head { at, chain: record.header.crc.get(), seq: record.seq() };
                    record.len()
                }
                None => {
                    let Ok(Hole { len: Some(len), next, .. }) = self.hole_at(&head, tail) else { return Ok(None) };
                    (head.at, head.chain) = next;
                    len
                }
            };
            passed += len;
            (bytes, records) = (bytes.saturating_sub(len), records.saturating_sub(1));
        }
        Ok(Some((bytes, records)))
    }

    /// Counts the keys of all maps anew, and makes slots dead that are no longer those of their keys, as a commit
    /// without records. Doing it twice does no harm.
    #[cold]
    pub(super) fn count_anew(&mut self, stale: &[Place<'e>]) -> Result<()> {
        let left_out: BTreeSet<_> = stale.iter().map(|place| (place.map, place.slot.at())).collect();
        let tail = self.tail()?;
        self.commit(&tail, Effect::Unseen, |writing| {
            for (map, index) in writing.engine.maps()? {
                let Totals { keys, bytes, .. } =
                    writing.engine.count_keys(&index, |at| !left_out.contains(&(map, at)))?;
                index.set_totals(Totals { seq: tail.seq, keys, bytes, ..index.totals()? })?;
            }
            let (live, gone) = (writing.engine.sum_of_live_bytes()?, writing.engine.log_totals()?.live_bytes);
            // Before the slots are gone: they tell that this has to be done.
            writing.count_log(tail.seq, Appended { live, gone, ..Appended::default() })?;
            stale.iter().try_for_each(|place| writing.retire_slot(place))?;
            Ok(None)
        })
    }
}
