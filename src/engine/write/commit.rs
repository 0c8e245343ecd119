//! Commits: from the writer lock to the visible sequence number.
//!
//! The order of a commit, which everything rests on:
//!
//! 1. Take the writer lock. If the commit point is ahead of the visible sequence number, a writer was killed or
//!    panicked in between: finish that commit.
//! 2. Make room in the index and in the log. Whatever can fail fails here.
//! 3. Append the records past the tail, where no reader can reach them; the last one carries `COMMIT`.
//! 4. Store the commit point: one word. From here on the commit survives a kill.
//! 5. Publish the slots, then the counters, then the CRC of the last record and the new tail.
//! 6. Store the visible sequence number. From here on the commit is seen, all of it at once.
//!
//! Steps 5 and 6 derive everything from the records, so a writer that finds them half done just does them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::reserve::Room;
use super::slots::Place;
use crate::engine::Engine;
use crate::engine::lookup::keys::ABREAST;
use crate::engine::lookup::protocol;
use crate::engine::state::live_area::{Appended, LogTotals};
use crate::engine::state::writer::Writing;
use crate::error::Result;
use crate::file::index::{Counters, Index, Probe, Totals};
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, Kind, MapId, Offset, Seq, Shortcut, commit_word, flags, live, seal};
use crate::file::log::{self, Entry, Record, Scan, Tail};
use crate::file::mapping::Mapping;

/// The index lines of so many records are still in a cache of the processor when the commit comes to them again. Those
/// of further ones are fetched ahead.
const MANY: usize = 4096;

/// How a change of one key was recorded, or would be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) prev: Offset,
    pub(crate) shortcut: Option<Shortcut>,
    pub(crate) flags: u8,
    /// The key needs a slot.
    pub(crate) new_slot: bool,
    /// Length in bytes of the record that holds the replaced value.
    pub(crate) replaced: u64,
}

/// What a record adds to the counters, and takes from them.
#[derive(Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) kind: Kind,
    /// The key had no value.
    pub(crate) is_new: bool,
    /// The key had no slot either.
    pub(crate) new_slot: bool,
    /// Length of the record in bytes, as it is counted.
    pub(crate) len: u64,
    /// Length in bytes of the record that holds the replaced value.
    pub(crate) replaced: u64,
}

impl Tally {
    /// Derived from the record's own flags and the record it replaces. `None` for a copy: the same key and value,
    /// elsewhere.
    #[inline]
    fn of(mapping: &Mapping, record: Record<'_>) -> Option<Tally> {
        if record.is_copy() {
            return None;
        }
        let (is_new, prev) = (record.header.flags & flags::NEW != 0, record.header.prev_offset());
        let replaced = if is_new || prev == Offset::NONE { None } else { log::record(mapping, prev).ok() };
        Some(Tally {
            kind: record.kind()?,
            is_new,
            new_slot: is_new && prev == Offset::NONE,
            len: record.counted_len(),
            // In a damaged file the sums may be wrong, which `verify` reports; a commit is never held up by that.
            replaced: replaced.map_or(0, |replaced| replaced.counted_len()),
        })
    }

    /// Counts it, for its map and for the log.
    #[inline(always)]
    pub(crate) fn count(self, totals: &mut Totals, appended: &mut Appended) {
        appended.gone = appended.gone.saturating_add(self.replaced);
        totals.bytes = totals.bytes.saturating_sub(self.replaced);
        if self.kind == Kind::Put {
            appended.live = appended.live.saturating_add(self.len);
            totals.bytes = totals.bytes.saturating_add(self.len);
            totals.keys = totals.keys.saturating_add(u64::from(self.is_new));
            totals.slots = totals.slots.saturating_add(u64::from(self.new_slot));
        } else {
            totals.keys = totals.keys.saturating_sub(1);
        }
    }
}

/// Whether a commit changes anything that a user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Seen,
    /// The same entries, at other places.
    Unseen,
}

/// What a commit of several records may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Maps may be made, renamed or dropped.
    Maps,
    Entries,
}

/// Why a map is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clearing {
    /// To drop its keys.
    Keys,
    /// It has no keys; the log moves to another extent.
    Log,
}

impl Engine {
    /// How to record a put of a key whose newest record is at `newest`, or of a key without a slot.
    #[inline(always)]
    pub(crate) fn put_over(&self, newest: Option<Offset>) -> Result<Change> {
        let Some(prev) = newest else {
            return Ok(Change { prev: Offset::NONE, shortcut: None, flags: flags::NEW, new_slot: true, replaced: 0 });
        };
        let newest = log::record(&self.mapping, prev)?;
        let was_removed = newest.kind() == Some(Kind::Remove);
        let (flags, replaced) = if was_removed { (flags::NEW, 0) } else { (0, newest.counted_len()) };
        Ok(Change { prev, shortcut: self.shortcut_over(newest)?, flags, new_slot: false, replaced })
    }
}

impl Writing<'_> {
    /// Steps 4 to 6 of a commit whose records end at `tail`. `publish` publishes their slots and returns the counters
    /// of the log [with them](Writing::log_with), if they change.
    #[inline(always)]
    pub(crate) fn commit(
        &mut self,
        tail: &Tail,
        effect: Effect,
        publish: impl FnOnce(&mut Self) -> Result<Option<LogTotals>>,
    ) -> Result<()> {
        self.store_commit_point(tail)?;
        let log = publish(self)?;
        self.conclude(tail, effect, log)
    }

    /// The same, derived from the records themselves.
    pub(crate) fn commit_as_recorded(&mut self, tail: &Tail, about: About) -> Result<()> {
        self.store_commit_point(tail)?;
        self.finish_about(about)
    }

    /// Points the slot of a record's key at the record, unless it points there already, and counts it.
    #[inline]
    fn publish(
        &mut self,
        index: Index<'_>,
        totals: &mut Totals,
        record: Record<'_>,
        appended: &mut Appended,
    ) -> Result<()> {
        let (map, hash) = (record.header.map(), record.hash(self.engine.seed));
        let Some(slot) = index.probe(hash, |offset| self.is_succeeded_by(offset, record))? else {
            return Err(self.engine.mapping.corrupt(index.offset(), "the index has no slot left"));
        };
        let place = Place { index, map, hash, slot };
        match slot {
            Probe::Found(_, newest) if newest == record.offset => self.mirror_slot(&place, newest)?,
            _ => self.publish_slot(&place, record.offset)?,
        }
        totals.dead = totals.dead.saturating_sub(u64::from(slot.is_dead()));
        if let Some(tally) = Tally::of(&self.engine.mapping, record) {
            tally.count(totals, appended);
        }
        Ok(())
    }

    /// The counters of the whole log with what a commit has appended; `None` if that is counted already.
    #[inline(always)]
    pub(crate) fn log_with(&self, seq: Seq, appended: Appended) -> Result<Option<LogTotals>> {
        let counted = self.engine.log_totals()?;
        Ok((counted.seq < seq).then(|| counted.plus(seq, appended)))
    }

    /// Adds to the counters of the whole log.
    pub(crate) fn count_log(&mut self, seq: Seq, appended: Appended) -> Result<()> {
        self.log_with(seq, appended)?.map_or(Ok(()), |log| log.publish(&self.engine.mapping))
    }

    /// The end of a commit: counts it in the log, says that it is a change, stores the new tail and the CRC of the
    /// record before it, and then makes the commit seen.
    #[inline(always)]
    fn conclude(&mut self, tail: &Tail, effect: Effect, log: Option<LogTotals>) -> Result<()> {
        let (engine, mapping) = (self.engine, &self.engine.mapping);
        if let Some(log) = log {
            log.publish(mapping)?;
        }
        let door = mapping.door()?;
        if effect == Effect::Seen {
            // Before the tail: if this process is killed after that, the next writer finds none of the records, and
            // cannot tell what they were. SeqCst, for the sake of waiters that go to sleep over it: see
            // [`notice`](crate::engine::processes::notice).
            door.store_live(live::CHANGED, tail.seq.0, Ordering::SeqCst);
        }
        protocol::move_tail(engine, tail.at, tail.chain)?;
        door.store_live(live::VISIBLE, tail.seq.0, Ordering::Release);
        if effect == Effect::Seen { engine.wake_watchers() } else { Ok(()) }
    }

    /// Stores the commit point, and its number in the seal right before it: a concurrent copy of the file notices that.
    #[inline(always)]
    pub(crate) fn store_commit_point(&mut self, tail: &Tail) -> Result<()> {
        self.engine.mapping.store_seal(seal::COMMIT, tail.seq.0)?;
        self.engine.mapping.store_live(live::COMMIT_POINT, commit_word(tail.at.0, tail.seq.0), Ordering::Release)
    }

    /// Consumes a sequence number without a commit: readers that start from now on are newer than all that was done so
    /// far.
    pub(crate) fn skip_number(&mut self) -> Result<()> {
        let tail = self.tail()?;
        self.store_commit_point(&tail)?;
        self.engine.mapping.store_live(live::VISIBLE, tail.seq.0, Ordering::Release)
    }

    /// Makes sure that nothing left by a writer that died or panicked before the commit point can ever pass for a
    /// commit: wipes the head of what may lie past the tail, durably, and skips a sequence number.
    #[cold]
    pub(crate) fn bury(&mut self) -> Result<()> {
        self.engine.mapping.store_live(live::WRITING_SINCE, 0, Ordering::Relaxed)?;
        self.writer.exceeds = false;
        self.tail()?.wipe(&self.engine.mapping)?;
        self.abandon()?;
        self.retire_unreferenced()
    }

    /// Completes the commit at the commit point: publishes its slots, counts it, shows it. Everything is derived from
    /// the records, and doing it twice does no harm.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.finish_about(About::Maps)
    }

    fn finish_about(&mut self, about: About) -> Result<()> {
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?;
        let commit = self.engine.mapping.live(live::COMMIT_POINT)?;
        let mut tail = self.tail()?;
        let (start, end) = (tail.at, Offset::of_commit_word(commit));
        (tail.at, tail.seq) = (end, Seq::of_commit_word(commit, visible));
        let mut maps: BTreeMap<MapId, (Index<'_>, Totals)> = BTreeMap::new();
        let mut appended = Appended::default();
        let mut effect = Effect::Unseen;
        let dropped = match about {
            About::Maps => self.enter_maps(start, end)?,
            About::Entries => BTreeSet::new(),
        };
        for (number, record) in Scan::new(&self.engine.mapping, start, end).enumerate() {
            let record = record?;
            if number >= MANY && number.is_multiple_of(ABREAST) {
                let next = Scan::new(&self.engine.mapping, record.offset, end).take(ABREAST).map_while(Result::ok);
                for next in next.filter(|next| matches!(next.kind(), Some(Kind::Put | Kind::Remove))) {
                    self.engine.prefetch_line(next.header.map(), next.hash(self.engine.seed));
                }
            }
            appended.bytes += record.len();
            appended.records += 1;
            tail.chain = record.header.crc.get();
            let map = record.header.map();
            if record.kind() != Some(Kind::Jump) && !record.is_copy() {
                effect = Effect::Seen;
            }
            match record.kind() {
                // Dead from the first: its map is dropped by the same commit.
                Some(Kind::Put | Kind::Remove) if dropped.contains(&map) => {}
                Some(Kind::Put | Kind::Remove) => {
                    if let std::collections::btree_map::Entry::Vacant(entry) = maps.entry(map) {
                        let index = self.engine.index_in_force(map)?;
                        entry.insert((index, index.totals()?));
                    }
                    if let Some((index, totals)) = maps.get_mut(&map) {
                        self.publish(*index, totals, record, &mut appended)?;
                    }
                    if map == CATALOGUE && !record.is_copy() {
                        self.enter_catalogue(record)?;
                    }
                }
                Some(Kind::Clear) => {
                    let index = self.switch_to_fresh(record)?;
                    if let Some(cleared) = index.previous()? {
                        appended.gone = appended.gone.saturating_add(cleared.totals()?.bytes);
                    }
                    maps.insert(map, (index, index.totals()?));
                }
                _ => {}
            }
        }
        for (index, mut totals) in maps.into_values() {
            // A writer killed after this step has counted it already.
            if index.totals()?.seq < tail.seq {
                totals.seq = tail.seq;
                index.set_totals(totals)?;
            }
        }
        self.writer.settle(&self.engine.mapping, end)?;
        let log = if appended.records > 0 { self.log_with(tail.seq, appended)? } else { None };
        self.conclude(&tail, effect, log)
    }

    /// Forgets what was appended past the tail without a commit, and the extents taken for it. Skips the sequence
    /// number, so that no leftover record can complete a later commit.
    pub(crate) fn abandon(&mut self) -> Result<()> {
        self.forget_uncommitted().inspect_err(|_| self.engine.left_something.store(true, Ordering::Relaxed))
    }

    fn forget_uncommitted(&mut self) -> Result<()> {
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?;
        let commit = self.engine.mapping.live(live::COMMIT_POINT)?;
        if Seq::of_commit_word(commit, visible) != visible {
            // It passed the commit point; it only has to be finished.
            return self.finish();
        }
        self.return_uncommitted(visible)?;
        self.writer.settle(&self.engine.mapping, self.engine.mapping.live_offset(live::TAIL)?)?;
        self.skip_number()
    }

    /// Steps 3 to 6 of a commit of one complete record, which carries the flag `COMMIT` already. The caller knows its
    /// place in the index, and the counters of its map before it. `replaced` is the length in bytes of the record that
    /// holds the replaced value.
    #[inline(always)]
    pub(crate) fn commit_one(
        &mut self,
        place: &Place<'_>,
        counters: Counters<'_>,
        entry: &Entry<'_>,
        replaced: u64,
    ) -> Result<()> {
        let (mut tail, len) = (self.tail()?, entry.len());
        let jumped = self.make_log_room(&mut tail, len, Room::of(entry.kind))?;
        let record = tail.append(&self.engine.mapping, entry)?;
        let is_new = entry.flags & flags::NEW != 0;
        let tally = Tally {
            kind: entry.kind,
            is_new,
            new_slot: is_new && entry.prev == Offset::NONE,
            len: entry.counted_len(),
            replaced,
        };
        let mut totals = counters.totals;
        let mut appended = Appended::default();
        appended.add(len, jumped);
        tally.count(&mut totals, &mut appended);
        totals.seq = entry.seq;
        totals.dead = totals.dead.saturating_sub(u64::from(place.slot.is_dead()));
        self.commit(
            &tail,
            Effect::Seen,
            #[inline(always)]
            |writing| {
                writing.publish_slot(place, record)?;
                counters.publish(totals)?;
                writing.log_with(entry.seq, appended)
            },
        )
    }

    /// Clears the default map once more, if it is empty, in another extent of the log. Users see no change.
    pub(crate) fn clear_again(&mut self) -> Result<bool> {
        let old = self.engine.index_in_force(DEFAULT_MAP)?;
        if old.totals()?.keys > 0 {
            return Ok(false);
        }
        if let Err(error) = self.commit_clear(DEFAULT_MAP, old.offset(), Clearing::Log) {
            self.abandon()?;
            return Err(error);
        }
        Ok(true)
    }

    pub(crate) fn commit_clear(&mut self, map: MapId, old: Offset, clearing: Clearing) -> Result<()> {
        let seq = self.seq()?;
        let fresh = self.fresh_region(map, old)?;
        let target = fresh.0.to_le_bytes();
        let flags = match clearing {
            Clearing::Keys => flags::COMMIT,
            Clearing::Log => flags::COMMIT | flags::COPY,
        };
        let entry = Entry { flags, map, value: &target, ..Entry::bare(Kind::Clear, seq) };
        let mut tail = self.tail()?;
        match clearing {
            Clearing::Keys => self.make_log_room(&mut tail, entry.len(), Room::Removal)?,
            Clearing::Log => self.leave_extent(&mut tail, entry.len(), Room::Cleaning)?,
        };
        tail.append(&self.engine.mapping, &entry)?;
        self.commit_as_recorded(&tail, About::Entries)
    }
}
