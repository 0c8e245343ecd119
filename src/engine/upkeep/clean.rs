//! Cleaning: one step of compaction, at the head of the log.
//!
//! The log is a queue. Records at its head that the index still points at are appended again at the tail, as an
//! ordinary commit; the others are left behind (the cleaner of a log-structured file system: Rosenblum and Ousterhout,
//! 1992; in the order of a queue, as in Bitcask's and FASTER's logs). Two things follow from the order: a tombstone at
//! the head has nothing older to hide, and is dropped; and only old readers, and a recovery from an old superblock,
//! need what lies before the head.
//!
//! A damaged record at the head is [quarantined](super::quarantine).
//!
//! In a store that [evicts](super::evict), what is alive at the head is removed as well, rather than moved.
//!
//! An expired entry is removed by an ordinary remove, which shows up in the log for those that follow it.
//!
//! The order of a step, which keeps space from being reused too early:
//!
//! 1. Slots of tombstones at the head that are older than every pin become dead.
//! 2. The records that are still needed are committed once more, at the tail; if there are none and slots have become
//!    dead, a number is skipped. Readers that start from now on reach nothing that lies before the new head.
//! 3. Emptied extents are marked, with the number that is visible now.
//! 4. The head moves forward.
//!
//! A kill in between leaves the head where it was; the next step does the same again, and finds less to do.

use super::quarantine::{Quarantined, Slots};
use crate::engine::Engine;
use crate::engine::clock::{Moment, now};
use crate::engine::lookup::bookmarks::Kept;
use crate::engine::state::head::{self, LogHead};
use crate::engine::state::live_area::{Appended, LogTotals};
use crate::engine::state::writer::{Writer, Writing};
use crate::engine::write::commit::{About, Effect};
use crate::engine::write::reserve::Room;
use crate::engine::write::slots::{Place, Tombstones};
use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::{BLOCK, CATALOGUE, ExtentKind, KeyHash, Kind, MapId, Offset, Seq, flags, live};
use crate::file::log::{self, Entry, Head, Record};
use crate::file::space::{Extent, LogPoint};
use crate::telemetry;

/// Index lines are fetched for the keys of this many records at once, so that their cache misses overlap.
const AHEAD: usize = 32;

/// The log is cleaned from this share of the limit on, so that the limit holds while cleaning gets under way.
const EARLY: f64 = 0.95;

/// How much of the log to clean, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    /// Bytes of the log to pass.
    pub(crate) bytes: u64,
    pub(crate) aim: Aim,
}

/// Why the log is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The share of a write, or of maintenance.
    Upkeep,
    /// To make the log dense: copies go to an extent that has nothing else, and the extent of the tail is cleaned as
    /// well.
    Compaction,
    /// To make room in a full store: each block counts, those of the extent of the tail as well.
    Room,
    /// To make room in a store that [evicts](super::evict): what is alive is removed rather than moved.
    Eviction,
}

/// Result of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Bytes of the log that were passed.
    pub(crate) passed: u64,
    /// Bytes of these that were appended again.
    pub(crate) moved: u64,
    /// Bytes of extents that became empty.
    pub(crate) emptied: u64,
    /// The rest of the log is kept for a bookmark.
    pub(crate) is_kept: bool,
    /// Damaged records that were put into quarantine.
    pub(crate) quarantined: u64,
}

/// What becomes of a record at the head that its slot points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Moved,
    /// It is moved although the store evicts, since it was read.
    Spared,
    /// It is removed, since it has expired.
    Expired,
    /// It is removed to make room.
    Evicted,
}

impl Fate {
    /// Whether its key is removed.
    fn is_removal(self) -> bool {
        matches!(self, Fate::Expired | Fate::Evicted)
    }
}

/// A record that has to be moved, or its key removed.
struct Move<'a> {
    record: Record<'a>,
    fate: Fate,
    place: Place<'a>,
}

/// What lies between the old head and the new one.
struct Passed<'a> {
    /// The time at which expiry is judged.
    at: Moment,
    /// What others have read counts as well.
    is_shared: bool,
    to: LogHead,
    bytes: u64,
    moves: Vec<Move<'a>>,
    moved: u64,
    /// Bytes of these that are spared.
    spared: u64,
    /// Damaged records that go into quarantine.
    quarantined: Vec<Quarantined<'a>>,
    /// What the maps count may be wrong.
    miscounts: bool,
    /// The slots that lead to damage.
    slots: Slots<'a>,
    /// Slots have become dead.
    dropped: bool,
    /// Extents that are passed as a whole.
    extents: Vec<Offset>,
    /// The rest is kept for a bookmark.
    is_kept: bool,
    /// The hashes of the keys that come next.
    ahead: std::vec::IntoIter<KeyHash>,
    indexes: Indexes<'a>,
}

/// The index in force of the map that was looked up last: most often, that of the next record as well. None is replaced
/// while records are looked at.
#[derive(Default)]
struct Indexes<'a> {
    last: Option<(MapId, Option<Index<'a>>)>,
}

impl<'a> Indexes<'a> {
    #[inline(always)]
    fn of(&mut self, engine: &'a Engine, map: MapId) -> Result<Option<Index<'a>>> {
        match self.last {
            Some((last, index)) if last == map => Ok(index),
            _ => Ok(self.last.insert((map, engine.index(map)?)).1),
        }
    }
}

impl Passed<'_> {
    /// Whether nothing has to be appended.
    fn moves_nothing(&self) -> bool {
        self.moves.is_empty() && self.quarantined.is_empty()
    }
}

impl Engine {
    /// The hashes of the keys of a record and of those after it, up to one without a key, within `bytes` bytes. Fetches
    /// the lines in which the keys are looked up.
    fn hashes_ahead<'e>(
        &'e self,
        first: Record<'_>,
        (bytes, tail): (u64, Offset),
        indexes: &mut Indexes<'e>,
    ) -> Vec<KeyHash> {
        let end = first.offset + bytes;
        let mut hashes = Vec::with_capacity(AHEAD);
        let mut next = Some(first);
        while let Some(record) = next.filter(|record| matches!(record.kind(), Some(Kind::Put | Kind::Remove))) {
            let hash = record.hash(self.seed);
            if let Ok(Some(index)) = indexes.of(self, record.header.map()) {
                index.prefetch(hash);
            }
            hashes.push(hash);
            let at = record.end();
            let goes_on = at < end && at != tail && hashes.len() < AHEAD;
            // A defect is reported when the record is passed.
            next = if goes_on { log::record(&self.mapping, at).ok() } else { None };
        }
        hashes
    }

    /// The smallest number that the record at the head may have. `head` has that of the record before it.
    fn first_seq(&self, head: &Head) -> Result<Seq> {
        // A damaged record may say any number, and it may be the last one of the log and stay.
        let first = log::record(&self.mapping, head.at).ok().filter(Record::crc_holds);
        let Some(first) = first else { return Ok(head.seq) };
        if first.kind() == Some(Kind::Incarnation) {
            // Its number declares its incarnation, so the smallest is of the incarnation before it.
            return Ok(head.seq.min(first.seq()));
        }
        let next = self.mapping.live_seq(live::VISIBLE)?.next();
        Ok(first.seq().min(next))
    }

    /// The record to append for a record that is needed.
    fn entry_of<'a>(&self, a_move: &Move<'a>, seq: Seq) -> Result<Entry<'a>> {
        let Move { record, fate, .. } = *a_move;
        let (prev, map, key) = (record.offset, record.header.map(), record.key());
        let shortcut = self.shortcut_over(record)?;
        if fate.is_removal() {
            let flags = if fate == Fate::Expired { flags::EXPIRED } else { 0 };
            return Ok(Entry { flags, prev, map, shortcut, key, ..Entry::bare(Kind::Remove, seq) });
        }
        let (kind, expires) = (record.kind().unwrap_or(Kind::Put), record.expires().map(Into::into));
        let flags = flags::COPY | record.header.flags & flags::DAMAGED;
        Ok(Entry { kind, flags, seq, prev, map, expires, shortcut, key, value: record.value() })
    }

    /// The least bytes, and the least share, of an extent that are worth cutting off.
    fn least_cut(&self, aim: Aim) -> (u64, u64) {
        match aim {
            // Cells stay whole.
            _ if self.settings.evict.is_some() => (u64::MAX, 1),
            Aim::Room => (BLOCK, u64::MAX),
            Aim::Compaction => (BLOCK, 16),
            Aim::Upkeep | Aim::Eviction => (self.settings.limits.piece, 16),
        }
    }
}

impl<'e> Writing<'e> {
    /// How far the dead share of the log is beyond where cleaning begins, just below the limit: 0 there, 1 if nothing
    /// is alive; `None` below. Emptied space that needs a checkpoint before use counts as dead.
    pub(super) fn excess(&self, appended: u64, live: u64) -> Result<Option<f64>> {
        let Some(limit) = self.engine.settings.auto_compact.map(|limit| limit * EARLY) else { return Ok(None) };
        // In a small store more may wait than is alive, and hasty cleaning would not reduce that.
        let waiting = self.writer.waiting.checkpoint.min(live / 8);
        let used = appended.saturating_sub(self.engine.head_for_writing()?.bytes).saturating_add(waiting);
        let share = 1.0 - live as f64 / used.max(1) as f64;
        let is_due = used >= self.engine.settings.limits.least_log && share > limit;
        Ok(is_due.then(|| ((share - limit) / (1.0 - limit)).min(1.0)))
    }

    /// Moves the head of the log forward by about the bytes of `portion`, if the log is that long.
    pub(crate) fn clean(&mut self, portion: Portion) -> Result<Cleaned> {
        let from = self.engine.head_for_writing()?;
        let passed = self.pass(&from, portion)?;
        let quarantined = passed.quarantined.len() as u64;
        let (moved, is_kept) = (passed.moved, passed.is_kept);
        let mut cleaned = Cleaned { passed: passed.bytes, moved, emptied: 0, is_kept, quarantined };
        if cleaned.passed == 0 {
            return Ok(cleaned);
        }
        if !passed.moves_nothing() {
            let committed = self.commit_moves(&passed, portion.aim);
            if let Err(error) = committed {
                self.abandon()?;
                return Err(error);
            }
        } else if passed.dropped {
            self.skip_number()?;
        }
        if passed.miscounts {
            self.count_anew(&passed.slots.stale)?;
        }
        if quarantined > 0 {
            self.engine.report_quarantined(&passed.quarantined)?;
        }
        let mut to = passed.to;
        let (extent, ordinal) = self.extent_of_head(to.head.at)?;
        to.ordinal = ordinal;
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?;
        for &offset in &passed.extents {
            cleaned.emptied += self.writer.space.extent(offset).map_or(0, |extent| extent.len());
            self.writer.space.set_kind(&self.engine.mapping, offset, ExtentKind::Emptied, visible)?;
        }
        self.mark_again(&from, visible)?;
        let cut = to.head.at.align_down(BLOCK);
        if is_worth_cutting(&self.writer, extent, cut, self.engine.least_cut(portion.aim)) {
            cleaned.emptied += cut - extent;
            if self.writer.space.cut(&self.engine.mapping, extent, cut, visible)?
                && self.writer.extent.0 < cut
                && cut < self.writer.extent.1
            {
                self.writer.extent.0 = cut;
            }
        }
        head::publish(&self.engine.mapping, &to)?;
        self.engine.upkeep.count_moved(cleaned.moved);
        telemetry::on_cleaned(self.engine.mapping.path(), cleaned.passed, cleaned.moved);
        Ok(cleaned)
    }

    /// A writer killed between marking and moving the head has left the head in a marked extent, whose number is older
    /// than readers that have come since and find the head there. What the head leaves only now becomes empty only now.
    fn mark_again(&mut self, from: &LogHead, visible: Seq) -> Result<()> {
        let emptied = |extent: &&Extent| extent.kind == ExtentKind::Emptied;
        if self.writer.space.extent_of(from.head.at).filter(emptied).is_none() {
            return Ok(());
        }
        let left = LogPoint { ordinal: from.ordinal, at: from.head.at };
        let again = self.writer.space.extents().filter(emptied).filter(|extent| left.rest_of(extent).is_some());
        for offset in again.map(|extent| extent.offset).collect::<Vec<_>>() {
            self.writer.space.set_kind(&self.engine.mapping, offset, ExtentKind::Emptied, visible)?;
        }
        Ok(())
    }

    /// Finds which records at the head are still needed. Drops tombstones.
    fn pass(&mut self, from: &LogHead, portion: Portion) -> Result<Passed<'e>> {
        let limits = &self.engine.settings.limits;
        let tail = self.engine.mapping.live_offset(live::TAIL)?;
        let mut passed = Passed {
            at: Moment::fixed(now()),
            is_shared: portion.aim == Aim::Eviction && self.engine.marks.is_some() && self.engine.is_shared()?,
            to: *from,
            bytes: 0,
            moves: Vec::new(),
            moved: 0,
            spared: 0,
            quarantined: Vec::new(),
            miscounts: false,
            slots: Slots::default(),
            dropped: false,
            extents: Vec::new(),
            is_kept: false,
            ahead: Vec::new().into_iter(),
            indexes: Indexes::default(),
        };
        let mut records = 0;
        // A full store keeps nothing for bookmarks.
        let is_full = matches!(portion.aim, Aim::Room | Aim::Eviction);
        let mut kept = if is_full { Kept::default() } else { self.engine.kept_marks(from)? };
        let LogTotals { bytes: end, live_bytes: live, .. } = self.engine.log_totals()?;
        while passed.bytes < portion.bytes && records < limits.most_records && passed.moved < limits.most_bytes {
            let at = passed.to.head.at;
            if at == tail || portion.aim == Aim::Upkeep && self.is_in_tail(at) {
                break;
            }
            let record = self.engine.record_at_head(&passed.to.head).ok().filter(|record| record.crc_holds());
            // What is alive would be there without any bookmark. Damage is passed in spite of them: nothing tells what
            // it was.
            let dead = end.saturating_add(passed.moved).saturating_sub(passed.to.bytes).saturating_sub(live);
            if record.is_some_and(|record| record.tells() && kept.keeps(record.seq(), dead)) {
                passed.is_kept = true;
                return self.rest_at(passed, tail);
            }
            records += 1;
            let Some(record) = record else {
                if self.pass_damage(&mut passed, tail)? {
                    continue;
                }
                break;
            };
            self.look_at(&mut passed, record, (portion, tail))?;
            if record.end() == tail && passed.moves_nothing() {
                break;
            }
            self.advance(&mut passed, record)?;
        }
        self.pass_what_has_no_key(&mut passed, tail)?;
        self.rest_at(passed, tail)
    }

    /// The head comes to rest where it is.
    fn rest_at(&self, mut passed: Passed<'e>, tail: Offset) -> Result<Passed<'e>> {
        // If it is the tail, the first moved record will be there.
        let to = &mut passed.to;
        to.head.seq = if to.head.at == tail { self.seq()? } else { self.engine.first_seq(&to.head)? };
        // Numbers do not go back.
        to.behind = to.behind.min(to.head.seq);
        Ok(passed)
    }

    /// Looks at a record, and notes what has to be done about it.
    fn look_at(
        &mut self,
        passed: &mut Passed<'e>,
        record: Record<'e>,
        (portion, tail): (Portion, Offset),
    ) -> Result<()> {
        if !matches!(record.kind(), Some(Kind::Put | Kind::Remove)) {
            return Ok(());
        }
        // A log of nothing but a tombstone is led to another extent by it.
        let is_all_there_is = record.end() == tail && passed.moves_nothing();
        let keeps = portion.aim == Aim::Compaction && is_all_there_is;
        let tombstones = if keeps { Tombstones::Kept } else { Tombstones::Dropped };
        if passed.ahead.len() == 0 {
            let bytes = portion.bytes.saturating_sub(passed.bytes);
            passed.ahead = self.engine.hashes_ahead(record, (bytes, tail), &mut passed.indexes).into_iter();
        }
        self.pass_record(passed, record, (portion.aim, tombstones))
    }

    /// Passes damage at the head, with what it keeps. `false` if there would be no record then that gives the chain for
    /// the next one.
    #[cold]
    fn pass_damage(&mut self, passed: &mut Passed<'e>, tail: Offset) -> Result<bool> {
        let damage = self.examine(&passed.to, tail, &mut passed.slots)?;
        let keeps_nothing = damage.quarantined.is_empty() && damage.whole.is_empty();
        if damage.next.head.at == tail && keeps_nothing && passed.moves_nothing() {
            return Ok(false);
        }
        for &(record, place) in &damage.whole {
            passed.moved += record.len();
            passed.moves.push(Move { record, fate: Fate::Moved, place });
        }
        passed.bytes += damage.next.bytes.saturating_sub(passed.to.bytes);
        passed.to = damage.next;
        self.writer.is_uncounted = damage.is_uncounted;
        passed.quarantined.extend(damage.quarantined);
        passed.miscounts |= damage.miscounts;
        passed.extents.extend(damage.leaves);
        passed.ahead = Vec::new().into_iter();
        Ok(true)
    }

    /// Lets the head rest at a record of a map, if it can: another record's number does not tell where a commit begins.
    /// The head does not reach the tail by that: then no record would give the chain for the next one.
    ///
    /// Nor does the head rest at a record with a number that cannot be: the next superblock would have it.
    fn pass_what_has_no_key(&mut self, passed: &mut Passed<'e>, tail: Offset) -> Result<()> {
        // Jumps in a circle are more than there are blocks.
        for _ in 0..=self.engine.mapping.len() / BLOCK {
            if passed.to.head.at == tail {
                break;
            }
            let record = self.engine.record_at_head(&passed.to.head).ok();
            let has_no_key = record.is_some_and(|record| !matches!(record.kind(), Some(Kind::Put | Kind::Remove)));
            let is_sound = |record: &Record<'_>| !has_no_key || record.crc_holds();
            let Some(record) = record.filter(is_sound) else {
                if self.pass_damage(passed, tail)? {
                    continue;
                }
                break;
            };
            let may_rest = !matches!(record.kind(), Some(Kind::Jump | Kind::Incarnation));
            if may_rest || record.end() == tail && passed.moves_nothing() {
                break;
            }
            self.advance(passed, record)?;
        }
        Ok(())
    }

    /// Determines whether a whole record must be moved.
    fn pass_record(
        &mut self,
        passed: &mut Passed<'e>,
        record: Record<'e>,
        (aim, tombstones): (Aim, Tombstones),
    ) -> Result<()> {
        let map = record.header.map();
        let hash = passed.ahead.next().unwrap_or_else(|| record.hash(self.engine.seed));
        // The records of a dropped map are dead.
        let Some(index) = passed.indexes.of(self.engine, map)? else { return Ok(()) };
        // It is needed if the slot of its key points at it. No other key's slot does, so no key need be compared.
        let Some(slot) = index.slot_of(hash, record.offset)? else { return Ok(()) };
        let place = Place { index, map, hash, slot };
        let is_tombstone = record.kind() == Some(Kind::Remove);
        if is_tombstone && tombstones == Tombstones::Dropped && self.is_unread(record.seq().count())? {
            self.retire_slot(&place)?;
            passed.dropped = true;
            return Ok(());
        }
        if record.expires().is_some() {
            self.engine.upkeep.expired.note();
        }
        let fate = match record.kind() {
            Some(Kind::Put) if record.is_expired(passed.at) => Fate::Expired,
            Some(Kind::Put) if aim == Aim::Eviction && map != CATALOGUE => {
                self.fate_of_entry(passed, record, &place)?
            }
            _ => Fate::Moved,
        };
        passed.moved += if fate == Fate::Evicted { record.len() - record.value().len() as u64 } else { record.len() };
        passed.spared += if fate == Fate::Spared { record.len() } else { 0 };
        passed.moves.push(Move { record, fate, place });
        Ok(())
    }

    /// What becomes of an entry where the store evicts.
    fn fate_of_entry(&self, passed: &Passed<'_>, record: Record<'_>, place: &Place<'_>) -> Result<Fate> {
        let Place { ref index, map, hash, .. } = *place;
        let Some(marks) = &self.engine.marks else { return Ok(Fate::Evicted) };
        let was_read = marks.take(map, hash) || passed.is_shared && index.take_mark(hash)?;
        if !was_read {
            return Ok(Fate::Evicted);
        }
        // So much is spared that room is made all the same, and so small a piece that it leaves no gap.
        let is_little = passed.spared + record.len() <= (passed.bytes + record.len()) / 4 * 3;
        let is_short = self.engine.settings.cell().is_some_and(|cell| record.len() <= cell / 8);
        Ok(if is_little && is_short { Fate::Spared } else { Fate::Evicted })
    }

    /// Whether no reader is below this count. Reads the pins if that is not known and enough has happened since they
    /// were last read.
    fn is_unread(&mut self, count: u64) -> Result<bool> {
        let visible = self.engine.mapping.live_seq(live::VISIBLE)?.count();
        let (unread_below, looked) = self.writer.unread_below;
        if count > unread_below && visible >= looked.saturating_add(self.engine.settings.limits.commits_a_look) {
            self.writer.unread_below = (self.raise_horizon()?, visible);
        }
        Ok(count <= self.writer.unread_below.0)
    }

    /// Passes one record.
    fn advance(&self, passed: &mut Passed<'_>, record: Record<'_>) -> Result<()> {
        let LogHead { head, behind, bytes, records, .. } = &mut passed.to;
        head.seq = record.seq();
        // The counters may come from a damaged file.
        *bytes = bytes.saturating_add(record.len());
        *records = records.saturating_add(1);
        passed.bytes += record.len();
        head.chain = record.header.crc.get();
        head.at = record.end();
        if record.kind() == Some(Kind::Jump) {
            let target = record.target().filter(|target| target.is_aligned(BLOCK));
            head.at = target.ok_or_else(|| self.engine.mapping.corrupt(record.offset, "a jump without target"))?;
            // After a kill in a cut, the head may still lie in the part of the extent that was cut off.
            passed.extents.extend(self.writer.space.log_extent_of(record.offset).map(|extent| extent.offset));
        } else if record.tells() {
            *behind = record.seq().max(*behind);
        }
        Ok(())
    }

    /// Where the extent that contains the head begins, and its ordinal.
    fn extent_of_head(&self, at: Offset) -> Result<(Offset, u64)> {
        let extent = self.writer.space.extent_of(at).filter(|extent| extent.has_records());
        let extent = extent.ok_or_else(|| self.engine.mapping.corrupt(at, "the head of the log lies in no extent"))?;
        Ok((extent.offset, extent.ordinal))
    }

    /// Appends records again, as one commit.
    fn commit_moves(&mut self, passed: &Passed<'_>, aim: Aim) -> Result<()> {
        let Passed { moves, quarantined, .. } = passed;
        let seq = self.seq()?;
        let mut tail = self.tail()?;
        let mut appended = Appended::default();
        let mut copies = Vec::with_capacity(moves.len());
        let all = moves.len() + quarantined.len();
        for number in 0..all {
            let mut entry = match moves.get(number) {
                Some(a_move) => self.engine.entry_of(a_move, seq)?,
                None => quarantined[number - moves.len()].entry(seq),
            };
            entry.flags |= if number + 1 == all { flags::COMMIT } else { 0 };
            let jumped = if aim == Aim::Compaction && number == 0 && self.is_in_tail(entry.prev) {
                self.leave_extent(&mut tail, entry.len(), Room::Cleaning)?
            } else {
                self.make_log_room(&mut tail, entry.len(), Room::Cleaning)?
            };
            copies.push(tail.append(&self.engine.mapping, &entry)?);
            appended.add(entry.len(), jumped);
        }
        if moves.iter().any(|a_move| a_move.fate.is_removal()) {
            // Removes count, and are seen.
            self.commit_as_recorded(&tail, About::Entries)?;
            self.count_fates(moves);
            return Ok(());
        }
        self.count_fates(moves);
        self.commit(&tail, Effect::Unseen, |writing| {
            let places = moves.iter().map(|a_move| &a_move.place);
            let places = places.chain(quarantined.iter().map(|record| &record.place));
            places.zip(&copies).try_for_each(|(place, &copy)| writing.publish_slot(place, copy))?;
            writing.log_with(seq, appended)
        })
    }

    fn count_fates(&self, moves: &[Move<'_>]) {
        let upkeep = &self.engine.upkeep;
        for &Move { record, fate, .. } in moves {
            match fate {
                Fate::Expired => upkeep.expired.removed(record.header.map(), record.len()),
                Fate::Evicted => upkeep.evicted.note(record.len()),
                Fate::Spared => upkeep.evicted.note_spared(),
                Fate::Moved => {}
            }
        }
    }

    fn is_in_tail(&self, offset: Offset) -> bool {
        (self.writer.extent.0..self.writer.extent.1).contains(&offset)
    }
}

/// Whether what lies before `cut` in an extent of the log is at least `least` bytes and at least that share of it.
fn is_worth_cutting(writer: &Writer, extent: Offset, cut: Offset, (least, share): (u64, u64)) -> bool {
    let len = writer.space.extent(extent).filter(|extent| extent.is_log()).map_or(0, |extent| extent.len());
    len > 0 && cut.bytes_since(extent) >= least.max(len / share)
}
