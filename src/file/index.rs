//! The index: lines of six slots, open addressing from line to line.
//!
//! It knows hashes and offsets, not records: a closure tells it whether the record that a slot points at has the wanted
//! key. [`slot`] states the invariants of a slot.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::layout::{
    BLOCK, KeyHash, LINE, MAX_FILE_LEN, MapId, Offset, REGION_HEADER, REGION_MAGIC, REGION_TOTALS, RegionHeader, SLOTS,
    Seq, extent_blocks, extent_offset, extent_word, lines_of_blocks, slot,
};
use super::mapping::{Door, Mapping, Window, Word, tagged, tagged_and_bare};
use super::totals::{self, Banks};
use crate::error::Result;

/// Where a slot is: its line and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotAt {
    line: u64,
    place: usize,
}

impl SlotAt {
    /// The line.
    #[inline]
    pub(crate) fn line(self) -> u64 {
        self.line
    }
}

/// What a writer's search for a key found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The key's slot, and the record that it points at.
    Found(SlotAt, Offset),
    /// The key has no slot; this is the slot to give to it, and whether that slot is dead.
    Vacant(SlotAt, bool),
}

impl Probe {
    /// The slot: the key's own, or the one to give to it.
    #[inline]
    pub(crate) fn at(self) -> SlotAt {
        match self {
            Probe::Found(at, _) | Probe::Vacant(at, _) => at,
        }
    }

    /// Whether a dead slot is used again.
    #[inline]
    pub(crate) fn is_dead(self) -> bool {
        matches!(self, Probe::Vacant(_, true))
    }
}

/// The outcome of [placing](Index::place) a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// The slot of the key points at the record.
    There,
    /// The key has no slot, and none is left.
    Full,
}

/// What a [lean search](Lines::search) found.
pub(crate) enum Searched<T> {
    /// The value that the closure stopped with.
    Found(T),
    /// The key has no slot.
    Absent,
    /// A line lies beyond the window.
    Beyond,
}

/// A slot that was found, in its line.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    words: &'a [Word; 8],
    /// Offset of the line.
    line: u64,
    place: usize,
}

impl Spot<'_> {
    /// Gives the slot to a key: stores the further bits of its hash, and points the slot at its record.
    #[inline(always)]
    pub(crate) fn give(self, door: Door<'_>, hash: KeyHash, record: Offset) {
        let place = self.place.min(SLOTS - 1);
        let (further, third) = if place < 3 { (SLOTS, place) } else { (SLOTS + 1, place - 3) };
        let shift = KeyHash::FURTHER_BITS * third as u32;
        let mask = ((1 << KeyHash::FURTHER_BITS) - 1) << shift;
        let bits = self.words[further].relaxed() & !mask | hash.further() << shift;
        door.store(&self.words[further], self.line + 8 * further as u64, bits, Ordering::Relaxed);
        self.publish(door, hash, record);
    }

    /// Points the slot of a key at its newest record: one release store.
    #[inline(always)]
    pub(crate) fn publish(self, door: Door<'_>, hash: KeyHash, record: Offset) {
        let place = self.place.min(SLOTS - 1);
        let slot = slot::new(hash.tag(), record.0);
        door.store(&self.words[place], self.line + 8 * place as u64, slot, Ordering::Release);
    }
}

/// What a writer's [lean search](Lines::seek) found.
pub(crate) enum Sought<'a, T> {
    /// A record, what the closure said of it, and its slot.
    Found(Spot<'a>, Offset, T),
    /// The key has no slot. This one was never used.
    Vacant(Spot<'a>),
    /// It has to be looked for in another way.
    Unclear,
}

/// The counters of a map, as its region keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Sequence number of the commit that they were counted at.
    pub(crate) seq: Seq,
    /// Keys that have a value.
    pub(crate) keys: u64,
    /// Bytes of the records that hold these values.
    pub(crate) bytes: u64,
    /// Slots that point at a record, of a value or a tombstone. With `dead` it says how full the index is; after a kill
    /// the two may say more than there is, never less.
    pub(crate) slots: u64,
    /// Slots that are dead.
    pub(crate) dead: u64,
}

impl Totals {
    /// Slots that a search has to pass.
    pub(crate) fn used(&self) -> u64 {
        self.slots.saturating_add(self.dead)
    }
}

/// The counters of a map, located in its region once.
#[derive(Clone, Copy)]
pub(crate) struct Counters<'a> {
    banks: Banks<'a, 5>,
    /// The totals in force at that time.
    pub(crate) totals: Totals,
}

impl Counters<'_> {
    /// Makes these the ones that count.
    #[inline(always)]
    pub(crate) fn publish(self, totals: Totals) -> Result<()> {
        let Totals { seq, keys, bytes, slots, dead } = totals;
        self.banks.publish([seq.0, keys, bytes, slots, dead])
    }
}

impl From<[u64; 5]> for Totals {
    #[inline(always)]
    fn from([seq, keys, bytes, slots, dead]: [u64; 5]) -> Totals {
        Totals { seq: Seq(seq), keys, bytes, slots, dead }
    }
}

/// The bit of a word with further hash bits that has none of them: set by readers of a store that evicts what was not
/// read. The keys that begin in a line share two of these.
const MARK: u64 = 1 << 63;
const _: () = assert!(3 * KeyHash::FURTHER_BITS == 63);

/// Offset of the field `since` in a region's header; `previous` follows it.
const SINCE: u64 = std::mem::offset_of!(RegionHeader, since) as u64;

/// The region of a new index.
#[derive(Clone, Copy)]
pub(crate) struct NewRegion {
    /// Offset of its extent, which is not in use.
    pub(crate) offset: Offset,
    /// Blocks of that extent.
    pub(crate) blocks: u64,
    /// The map whose keys it indexes.
    pub(crate) map: MapId,
    /// The sequence number from which on the index is complete.
    pub(crate) since: Seq,
    /// Offset of the region that readers of earlier commits need, or zero.
    pub(crate) previous: Offset,
    /// Its initial counters.
    pub(crate) totals: Totals,
}

/// Where an index is, and what its header says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Located {
    offset: Offset,
    lines: u64,
    since: Seq,
    previous: Offset,
}

/// One map's index.
#[derive(Clone, Copy)]
pub(crate) struct Index<'a> {
    mapping: &'a Mapping,
    offset: Offset,
    lines: u64,
    since: Seq,
    previous: Offset,
}

impl<'a> Index<'a> {
    /// An index that was located before, and is still there.
    #[inline(always)]
    pub(crate) fn again(mapping: &'a Mapping, Located { offset, lines, since, previous }: Located) -> Index<'a> {
        Index { mapping, offset, lines, since, previous }
    }

    /// Where it is, for [another time](Index::again).
    pub(crate) fn located(&self) -> Located {
        let Index { offset, lines, since, previous, .. } = *self;
        Located { offset, lines, since, previous }
    }

    /// The index whose region is in the extent that a word of the map table names. Only the header fields that a read
    /// needs are looked at; a damaged header shows in what searches find, as damaged slots do.
    #[inline(always)]
    pub(crate) fn of_extent(mapping: &'a Mapping, extent: u64) -> Result<Index<'a>> {
        let offset = Offset::of_extent_word(extent);
        let [since, previous] = mapping.words(offset.0 + SINCE)?;
        let lines = lines_of_blocks(extent_blocks(extent).max(1));
        Ok(Index { mapping, offset, lines, since: Seq(since.load()), previous: Offset(previous.load()) })
    }

    /// The index whose region is at `offset`, after a check of its header.
    pub(crate) fn open(mapping: &'a Mapping, offset: Offset) -> Result<Index<'a>> {
        // Word by word: for a reader without a pin, the region may have been reused by now.
        let word = |field: usize| mapping.load(offset.0.saturating_add(field as u64));
        let lines = word(std::mem::offset_of!(RegionHeader, lines))?;
        let magic = word(std::mem::offset_of!(RegionHeader, magic))?.to_le_bytes();
        let is_region = magic == REGION_MAGIC && offset.is_aligned(BLOCK);
        if !is_region || lines.wrapping_sub(1) >= MAX_FILE_LEN / LINE {
            return Err(mapping.corrupt(offset, "expected the header of an index region"));
        }
        let previous = Offset(word(std::mem::offset_of!(RegionHeader, previous))?);
        Ok(Index { mapping, offset, lines, since: Seq(word(SINCE as usize)?), previous })
    }

    /// Makes an empty index.
    pub(crate) fn create(mapping: &'a Mapping, new: NewRegion) -> Result<Index<'a>> {
        mapping.zero(new.offset, new.blocks * BLOCK)?;
        Index::write_header(mapping, new)
    }

    /// Begins an index that will be filled from the one at `previous`. Only its first block can be used; the others
    /// have to be [zeroed](Index::zero_blocks) first.
    pub(crate) fn begin(mapping: &'a Mapping, new: NewRegion) -> Result<Index<'a>> {
        mapping.zero(new.offset, BLOCK)?;
        Index::write_header(mapping, new)
    }

    fn write_header(mapping: &'a Mapping, new: NewRegion) -> Result<Index<'a>> {
        let NewRegion { offset, blocks, map, since, previous, totals } = new;
        let lines = lines_of_blocks(blocks);
        let bank = [totals.seq.0, totals.keys, totals.bytes, totals.slots, totals.dead].map(Into::into);
        let header = RegionHeader {
            magic: REGION_MAGIC,
            map: u64::from(map).into(),
            lines: lines.into(),
            blocks: blocks.into(),
            since: since.to_field(),
            previous: previous.into(),
            totals: [bank, [0; 5].map(Into::into)],
        };
        mapping.write(offset, header.as_bytes())?;
        Ok(Index { mapping, offset, lines, since, previous })
    }

    /// Makes blocks ready for use.
    pub(crate) fn zero_blocks(&self, blocks: Range<u64>) -> Result<()> {
        let (first, count) = (blocks.start, blocks.end.saturating_sub(blocks.start));
        self.mapping.zero(self.offset + first * BLOCK, count * BLOCK)
    }

    /// Sets the sequence number from which on this index is complete, before it is put in force.
    pub(crate) fn set_since(&self, since: Seq) -> Result<()> {
        self.mapping.store(self.offset.0 + SINCE, since.0, Ordering::Relaxed)
    }

    /// Blocks of the region.
    pub(crate) fn blocks(&self) -> u64 {
        (REGION_HEADER + self.lines * LINE).div_ceil(BLOCK)
    }

    /// Where the region is, as a word of the map table.
    pub(crate) fn extent(&self) -> u64 {
        extent_word(self.offset.0, self.blocks())
    }

    /// Offset of the region.
    pub(crate) fn offset(&self) -> Offset {
        self.offset
    }

    /// Lines.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Slots that may be in use before searches become slow: three quarters of all.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        limit_of_lines(self.lines)
    }

    /// Slots that may be in use at most: one in sixteen stays empty.
    pub(crate) fn hard_limit(&self) -> u64 {
        self.lines * SLOTS as u64 / 16 * 15
    }

    /// Where there is no room for another index: one slot in 32 stays empty, so that searches end.
    pub(crate) fn last_limit(&self) -> u64 {
        self.lines * SLOTS as u64 / 32 * 31
    }

    /// The sequence number from which on the index is complete.
    #[inline]
    pub(crate) fn since(&self) -> Seq {
        self.since
    }

    /// The index that readers below [`since`](Index::since) need, if there was one.
    pub(crate) fn previous(&self) -> Result<Option<Index<'a>>> {
        if self.previous == Offset::NONE { Ok(None) } else { Index::open(self.mapping, self.previous).map(Some) }
    }

    /// Offset of the previous region, or zero.
    pub(crate) fn previous_offset(&self) -> Offset {
        self.previous
    }

    /// The counters in force. The caller holds the writer lock.
    pub(crate) fn totals(&self) -> Result<Totals> {
        Ok(self.counters()?.totals)
    }

    /// The counters, located once, for a commit that will change them. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn counters(&self) -> Result<Counters<'a>> {
        let banks = Banks::at(self.mapping, self.offset.0 + REGION_TOTALS)?;
        let Totals { seq, keys, bytes, slots, dead } = banks.latest().into();
        // Damaged counters must not lead to an index larger than these slots can fill.
        let most = self.lines * SLOTS as u64;
        let totals = Totals { seq, bytes, keys: keys.min(most), slots: slots.min(most), dead: dead.min(most) };
        Ok(Counters { banks, totals })
    }

    /// The same where the totals in force are known.
    #[inline(always)]
    pub(crate) fn counters_of(&self, totals: Totals) -> Result<Counters<'a>> {
        Ok(Counters { banks: Banks::at(self.mapping, self.offset.0 + REGION_TOTALS)?, totals })
    }

    /// The counters as of `seq`; `None` if commits have overtaken the reader.
    pub(crate) fn totals_at(&self, seq: Seq) -> Result<Option<Totals>> {
        Ok(totals::at_most(self.mapping, self.offset.0 + REGION_TOTALS, seq.0)?.map(Totals::from))
    }

    /// Makes these the counters that count.
    pub(crate) fn set_totals(&self, totals: Totals) -> Result<()> {
        self.counters()?.publish(totals)
    }

    /// Sets the counters of an index that is not in force yet.
    pub(crate) fn reset_totals(&self, totals: Totals) -> Result<()> {
        let Totals { seq, keys, bytes, slots, dead } = totals;
        totals::reset(self.mapping, self.offset.0 + REGION_TOTALS, [seq.0, keys, bytes, slots, dead])
    }

    /// Corrects the numbers of used and dead slots; the keys stay as they are. Cut short, it leaves too many counted,
    /// never too few.
    pub(crate) fn amend_slots(&self, slots: u64, dead: u64) -> Result<()> {
        totals::amend::<5>(self.mapping, self.offset.0 + REGION_TOTALS, 4, dead)?;
        totals::amend::<5>(self.mapping, self.offset.0 + REGION_TOTALS, 3, slots)
    }

    #[inline(always)]
    fn line_offset(&self, line: u64) -> u64 {
        self.offset.0 + REGION_HEADER + line * LINE
    }

    #[inline(always)]
    fn line(&self, line: u64) -> Result<&'a [Word; 8]> {
        self.mapping.words(self.line_offset(line))
    }

    /// Fetches the first line of a key ahead of its use.
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        self.mapping.prefetch(Offset(self.line_offset(hash.line(self.lines))));
    }

    /// Whether a key with this hash, or one that shares its [mark](MARK), was marked as read since this was last asked.
    pub(crate) fn take_mark(&self, hash: KeyHash) -> Result<bool> {
        let at = self.as_lines().mark_of(hash);
        let word = self.mapping.load(at)?;
        // A reader that sets it at the same time is overlooked, or sets it again.
        Ok(word & MARK != 0 && self.mapping.compare_exchange(at, word, word & !MARK, Ordering::Relaxed)?)
    }

    /// Whether a key with this hash, or one that shares its mark, is marked as read.
    pub(crate) fn is_marked(&self, hash: KeyHash) -> Result<bool> {
        Ok(self.mapping.load(self.as_lines().mark_of(hash))? & MARK != 0)
    }

    /// The slot that points at this record, of a key with this hash.
    #[inline(always)]
    pub(crate) fn slot_of(&self, hash: KeyHash, record: Offset) -> Result<Option<Probe>> {
        match self.as_lines().seek_slot_of(self.mapping.window(), hash, record) {
            Sought::Found(spot, record, ()) => {
                let line = (spot.line - self.line_offset(0)) / LINE;
                Ok(Some(Probe::Found(SlotAt { line, place: spot.place }, record)))
            }
            Sought::Vacant(_) => Ok(None),
            Sought::Unclear => {
                let found = self.probe(hash, |offset| Ok(offset == record))?;
                Ok(found.filter(|probe| matches!(probe, Probe::Found(..))))
            }
        }
    }

    /// Its lines.
    #[inline(always)]
    pub(crate) fn as_lines(&self) -> Lines {
        Lines { block: self.offset.0 / BLOCK, count: self.lines }
    }

    /// The result of `is_key` for the newest record of a key, for a reader. `is_key` is given the offset of a record
    /// and returns something if the record has the key.
    pub(crate) fn find<T>(
        &self,
        hash: KeyHash,
        mut is_key: impl FnMut(Offset) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        self.as_lines().find(self.mapping, hash, &mut is_key)
    }

    /// The slot of a key, or the slot to give to it. `None` if all are in use. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn probe(&self, hash: KeyHash, mut is_key: impl FnMut(Offset) -> Result<bool>) -> Result<Option<Probe>> {
        let mut line = hash.line(self.lines);
        let mut dead = None;
        for _ in 0..self.lines {
            let words = self.line(line)?;
            // A slot without a key looks like one of tag zero.
            let (mut tagged, mut vacant) = tagged_and_bare(words, hash.tag());
            while tagged != 0 {
                let place = take_place(&mut tagged);
                let value = words[place].load();
                if value > slot::DEAD && is_key(Offset::of_slot(value))? {
                    return Ok(Some(Probe::Found(SlotAt { line, place }, Offset::of_slot(value))));
                }
            }
            while vacant != 0 {
                let place = take_place(&mut vacant);
                let at = SlotAt { line, place };
                match words[place].relaxed() {
                    // Slots are first used in their order.
                    slot::EMPTY => return Ok(Some(Probe::Vacant(dead.unwrap_or(at), dead.is_some()))),
                    slot::DEAD => dead = dead.or(Some(at)),
                    _ => {}
                }
            }
            line = self.next_line(line);
        }
        Ok(dead.map(|at| Probe::Vacant(at, true)))
    }

    /// Whether a slot of a key with this hash, by all its bits, and the record that it leads to, are what `look` looks
    /// for.
    pub(crate) fn has_slot(&self, hash: KeyHash, mut look: impl FnMut(SlotAt, Offset) -> bool) -> Result<bool> {
        let mut line = hash.line(self.lines);
        for _ in 0..self.lines {
            let mut used = 0;
            for slot in self.slots_of_lines(line, line + 1) {
                let Slot { at, hash: found, record, .. } = slot?;
                if found == hash && record.is_some_and(|record| look(at, record)) {
                    return Ok(true);
                }
                used += 1;
            }
            // Slots are first used in their order, so if the last one was, all were.
            if used < SLOTS {
                return Ok(false);
            }
            line = self.next_line(line);
        }
        Ok(false)
    }

    #[inline]
    fn next_line(&self, line: u64) -> u64 {
        if line + 1 == self.lines { 0 } else { line + 1 }
    }

    /// Gives a slot to a key: stores the further bits of its hash, and points the slot at its record.
    #[inline(always)]
    pub(crate) fn give(&self, at: SlotAt, hash: KeyHash, record: Offset) -> Result<()> {
        self.spot(at)?.give(self.mapping.door()?, hash, record);
        Ok(())
    }

    #[inline(always)]
    fn spot(&self, SlotAt { line, place }: SlotAt) -> Result<Spot<'a>> {
        Ok(Spot { words: self.line(line)?, line: self.line_offset(line), place })
    }

    /// Points the slot of a key at its newest record: one release store.
    #[inline(always)]
    pub(crate) fn publish(&self, at: SlotAt, hash: KeyHash, record: Offset) -> Result<()> {
        self.spot(at)?.publish(self.mapping.door()?, hash, record);
        Ok(())
    }

    /// Gives a slot to the key of a record, unless it has one already, in an index that is not in force yet. `is_key`
    /// tells whether another record has the same key.
    pub(crate) fn place(
        &self,
        hash: KeyHash,
        record: Offset,
        is_key: impl FnMut(Offset) -> Result<bool>,
    ) -> Result<Placed> {
        match self.probe(hash, is_key)? {
            Some(Probe::Found(_, found)) if found == record => Ok(Placed::There),
            Some(Probe::Found(at, _)) => self.publish(at, hash, record).map(|()| Placed::There),
            Some(Probe::Vacant(at, was_dead)) => {
                // Counted before it is there: cut short, too many are counted, never too few.
                let totals = self.totals()?;
                self.amend_slots(totals.slots + 1, totals.dead)?;
                self.give(at, hash, record)?;
                if was_dead {
                    self.amend_slots(totals.slots + 1, totals.dead.saturating_sub(1))?;
                }
                Ok(Placed::There)
            }
            None => Ok(Placed::Full),
        }
    }

    /// Marks a slot dead, and counts it so. Its tombstone is older than every pin.
    pub(crate) fn retire_counted(&self, at: SlotAt) -> Result<()> {
        self.retire(at)?;
        let totals = self.totals()?;
        self.amend_slots(totals.slots.saturating_sub(1), totals.dead + 1)
    }

    /// Marks a slot dead: its tombstone is older than every pin.
    pub(crate) fn retire(&self, at: SlotAt) -> Result<()> {
        self.mapping.store(self.line_offset(at.line) + 8 * at.place as u64, slot::DEAD, Ordering::Release)
    }

    /// All slots that were ever used, in the order of their lines.
    pub(crate) fn iter(&self) -> Slots<'a> {
        self.slots_of_lines(0, self.lines)
    }

    /// The used slots of the lines from `line` up to `end`.
    pub(crate) fn slots_of_lines(&self, line: u64, end: u64) -> Slots<'a> {
        Slots { index: *self, line, end: end.min(self.lines), place: 0, words: None }
    }
}

/// Where the lines of an index are, and how many: all that a search needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    /// The block that the region begins with: in this form, the compiler sees that a line is aligned.
    block: u64,
    count: u64,
}

impl Lines {
    /// The lines of the region in the extent that a word of the map table names.
    #[inline(always)]
    pub(crate) fn of_extent(extent: u64) -> Lines {
        let block = extent_offset(extent) / BLOCK;
        Lines { block, count: lines_of_blocks(extent_blocks(extent).max(1)) }
    }

    /// The same, if the region is complete at `seq` and its header lies in the window.
    #[inline(always)]
    pub(crate) fn in_force_at(window: Window<'_>, extent: u64, seq: Seq) -> Option<Lines> {
        let [since] = window.words(extent_offset(extent) + SINCE)?;
        (Seq(since.load()) <= seq).then(|| Lines::of_extent(extent))
    }

    #[inline(always)]
    fn first(self) -> u64 {
        self.block * BLOCK + REGION_HEADER
    }

    /// Offset of the word with the [mark](MARK) of a key: one of the two at the end of the first line.
    #[inline]
    fn mark_of(self, hash: KeyHash) -> u64 {
        self.first_of(hash) + 8 * (SLOTS as u64 + hash.further() % 2)
    }

    /// Marks a key with this hash as read, unless it is. It is only a hint: if the word changes meanwhile, that is all.
    pub(crate) fn mark(self, mapping: &Mapping, hash: KeyHash) {
        let at = self.mark_of(hash);
        let Some([word]) = mapping.window().words(at) else { return };
        let seen = word.relaxed();
        if seen & MARK == 0 {
            let _ = mapping.compare_exchange(at, seen, seen | MARK, Ordering::Relaxed);
        }
    }

    /// Offset of the line where the search for a key begins.
    #[inline(always)]
    fn first_of(self, hash: KeyHash) -> u64 {
        self.first() + hash.line(self.count) * LINE
    }

    #[inline(always)]
    fn next(self, at: u64) -> u64 {
        let next = at + LINE;
        if next == self.first() + self.count * LINE { self.first() } else { next }
    }

    /// How many there are.
    pub(crate) fn count(self) -> u64 {
        self.count
    }

    /// Asks for a line ahead of its use.
    #[inline(always)]
    pub(crate) fn prefetch(self, window: Window<'_>, line: u64) {
        window.prefetch(Offset(self.first() + line * LINE));
    }

    /// Asks for the line where the search for a key begins.
    #[inline(always)]
    pub(crate) fn prefetch_first(self, window: Window<'_>, hash: KeyHash) {
        window.prefetch(Offset(self.first_of(hash)));
    }

    /// Calls `found` with the offset of each record that a line points at, and the hash of its key. `None` if the line
    /// lies beyond the window.
    #[inline(always)]
    pub(crate) fn records_of(
        self,
        window: Window<'_>,
        line: u64,
        mut found: impl FnMut(Offset, KeyHash),
    ) -> Option<()> {
        let words = window.words::<8>(self.first() + line * LINE)?;
        for place in 0..SLOTS {
            match words[place].load() {
                // Slots are first used in their order.
                slot::EMPTY => break,
                slot::DEAD => {}
                value => found(Offset::of_slot(value), hash_of_slot(words, place, value)),
            }
        }
        Some(())
    }

    /// Passes the offsets of the records whose slots have the tag of a key to `look`, until it breaks. An offset may
    /// lie before all records.
    #[inline(always)]
    pub(crate) fn search<T>(
        self,
        window: Window<'_>,
        hash: KeyHash,
        mut look: impl FnMut(Offset) -> ControlFlow<T>,
    ) -> Searched<T> {
        let mut at = self.first_of(hash);
        let mut left = self.count;
        loop {
            let Some(line) = window.words::<8>(at) else { return Searched::Beyond };
            let mut tagged = tagged(line, hash.tag());
            while tagged != 0 {
                if let ControlFlow::Break(found) = look(Offset::of_slot(take_tagged(line, &mut tagged))) {
                    return Searched::Found(found);
                }
            }
            left -= 1;
            // Slots are first used in their order, so if the last one was, all were.
            if line[SLOTS - 1].load() == slot::EMPTY || left == 0 {
                return Searched::Absent;
            }
            at = self.next(at);
        }
    }

    /// Looks for the slot of a key, or the first one that was never used, as long as no slot is dead. Passes the
    /// offsets of the records whose slots have the tag of the key to `look`, until it breaks. An offset may lie before
    /// all records. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn seek<'a, T>(
        self,
        window: Window<'a>,
        hash: KeyHash,
        mut look: impl FnMut(Offset) -> ControlFlow<T>,
    ) -> Sought<'a, T> {
        let mut line = self.first_of(hash);
        let mut left = self.count;
        while left > 0 {
            let Some(words) = window.words::<8>(line) else { return Sought::Unclear };
            let (mut tagged, bare) = tagged_and_bare(words, hash.tag());
            while tagged != 0 {
                let place = take_place(&mut tagged);
                let record = Offset::of_slot(words[place].load());
                if let ControlFlow::Break(found) = look(record) {
                    return Sought::Found(Spot { words, line, place }, record, found);
                }
            }
            if bare != 0 {
                let place = bare.trailing_zeros() as usize % 8;
                let is_vacant = words[place].relaxed() == slot::EMPTY;
                return if is_vacant { Sought::Vacant(Spot { words, line, place }) } else { Sought::Unclear };
            }
            line = self.next(line);
            left -= 1;
        }
        Sought::Unclear
    }

    /// Looks for a slot that points at this record, of a key with this hash: no other key's slot does.
    #[inline(always)]
    pub(crate) fn seek_slot_of<'a>(self, window: Window<'a>, hash: KeyHash, record: Offset) -> Sought<'a, ()> {
        let is_it = |offset| if offset == record { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        self.seek(window, hash, is_it)
    }

    /// The record of the first slot of its first line whose tag fits a key; it is nearly always the right one. It may
    /// lie before all records.
    #[inline(always)]
    pub(crate) fn guess(self, window: Window<'_>, hash: KeyHash) -> Option<Offset> {
        let line = window.words::<8>(self.first_of(hash))?;
        let mut tagged = tagged(line, hash.tag());
        (tagged != 0).then(|| Offset::of_slot(take_tagged(line, &mut tagged)))
    }

    /// See [`Index::find`].
    pub(crate) fn find<T>(
        self,
        mapping: &Mapping,
        hash: KeyHash,
        is_key: &mut dyn FnMut(Offset) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut at = self.first_of(hash);
        for _ in 0..self.count {
            let line = mapping.words::<8>(at)?;
            let mut tagged = tagged(line, hash.tag());
            while tagged != 0 {
                let value = take_tagged(line, &mut tagged);
                // A slot without a key looks like one of tag zero.
                if value > slot::DEAD
                    && let Some(key) = is_key(Offset::of_slot(value))?
                {
                    return Ok(Some(key));
                }
            }
            if line[SLOTS - 1].load() == slot::EMPTY {
                return Ok(None);
            }
            at = self.next(at);
        }
        Ok(None)
    }
}

/// The hash of the key that has a slot with this value.
#[inline(always)]
fn hash_of_slot(words: &[Word; 8], place: usize, value: u64) -> KeyHash {
    let further = words[SLOTS + place / 3].relaxed() >> (KeyHash::FURTHER_BITS * (place % 3) as u32);
    KeyHash::from_parts(slot::tag(value), further & ((1 << KeyHash::FURTHER_BITS) - 1))
}

/// Takes the first of some places off them. There is one.
#[inline(always)]
fn take_place(places: &mut u32) -> usize {
    let place = places.trailing_zeros() as usize % 8;
    *places &= *places - 1;
    place
}

/// Takes the first of the tagged slots off `tagged`. It is loaded again, so that its offset is one that was published,
/// whatever has happened since.
#[inline(always)]
fn take_tagged(line: &[Word; 8], tagged: &mut u32) -> u64 {
    line[take_place(tagged)].load()
}

/// How many slots of a region of this many lines may be in use.
fn limit_of_lines(lines: u64) -> u64 {
    lines * SLOTS as u64 * 3 / 4
}

/// How many blocks a region needs so that `slots` of it may be in use.
pub(crate) fn blocks_for(slots: u64) -> u64 {
    let lines = (slots.saturating_mul(4)).div_ceil(SLOTS as u64 * 3).max(1);
    lines.saturating_mul(LINE).saturating_add(REGION_HEADER).div_ceil(BLOCK)
}

/// An index of up to this many slots doubles; a larger one grows by half.
const SMALL_INDEX: u64 = 1 << 20;

/// How many slots to make room for in an index that needs `slots` now.
pub(crate) fn roomy(slots: u64) -> u64 {
    if slots < SMALL_INDEX { slots * 2 } else { slots.saturating_add(slots / 2) }
}

/// The fewest blocks of a region that can have `slots` in use: one in sixteen stays empty.
pub(crate) fn tight_blocks_for(slots: u64) -> u64 {
    blocks_for(slots.saturating_mul(3 * 16) / (4 * 15) + 1)
}

/// A used slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) at: SlotAt,
    /// The hash bits of its key; of no meaning if the slot is dead.
    pub(crate) hash: KeyHash,
    /// Offset of the record; `None` if the slot is dead.
    pub(crate) record: Option<Offset>,
    /// The number of lines from the key's first line to this one: what a search for it loads.
    pub(crate) probes: u64,
}

/// See [`Index::iter`].
pub(crate) struct Slots<'a> {
    index: Index<'a>,
    line: u64,
    end: u64,
    place: usize,
    words: Option<&'a [Word; 8]>,
}

impl Slots<'_> {
    #[inline(always)]
    fn slot(&self, words: &[Word; 8], place: usize, value: u64) -> Slot {
        let hash = hash_of_slot(words, place, value);
        let first = hash.line(self.index.lines);
        let behind = if self.line >= first { self.line - first } else { self.line + self.index.lines - first };
        Slot {
            at: SlotAt { line: self.line, place },
            hash,
            record: (value != slot::DEAD).then(|| Offset::of_slot(value)),
            probes: behind + 1,
        }
    }
}

impl Iterator for Slots<'_> {
    type Item = Result<Slot>;

    #[inline(always)]
    fn next(&mut self) -> Option<Result<Slot>> {
        while self.line < self.end {
            let words = match self.words {
                Some(words) => words,
                None => match self.index.line(self.line) {
                    Ok(words) => self.words.insert(words),
                    Err(error) => {
                        self.line = self.end;
                        return Some(Err(error));
                    }
                },
            };
            let place = self.place;
            let value = if place < SLOTS { words[place].load() } else { slot::EMPTY };
            if value != slot::EMPTY {
                self.place += 1;
                return Some(Ok(self.slot(words, place, value)));
            }
            self.line += 1;
            self.place = 0;
            self.words = None;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// An index on its own: record `offset` belongs to key `offset / 8`.
    fn insert(index: &Index<'_>, key: u64, hash: KeyHash) {
        match index.probe(hash, |offset| Ok(offset == Offset(key * 8))).unwrap().unwrap() {
            Probe::Found(at, _) => index.publish(at, hash, Offset(key * 8)).unwrap(),
            Probe::Vacant(at, _) => index.give(at, hash, Offset(key * 8)).unwrap(),
        }
    }

    /// Both ways.
    fn find(index: &Index<'_>, hash: KeyHash, key: u64) -> Option<u64> {
        let found = index.find(hash, |offset| Ok((offset == Offset(key * 8)).then_some(key))).unwrap();
        let look = |offset| if offset == Offset(key * 8) { ControlFlow::Break(key) } else { ControlFlow::Continue(()) };
        let searched = match index.as_lines().search(index.mapping.window(), hash, look) {
            Searched::Found(key) => Some(key),
            Searched::Absent => None,
            Searched::Beyond => panic!("the lines lie in the window"),
        };
        assert_eq!(searched, found);
        found
    }

    fn index(mapping: &Mapping, blocks: u64) -> Index<'_> {
        let totals = Totals::default();
        Index::create(
            mapping,
            NewRegion { offset: Offset(0), blocks, map: MapId(1), since: Seq(1), previous: Offset::NONE, totals },
        )
        .unwrap()
    }

    fn hash_of(key: u64) -> KeyHash {
        KeyHash::of(&key.to_le_bytes(), 0)
    }

    #[test]
    fn every_slot_can_be_used_and_found() {
        let mapping = Mapping::in_memory(2 * BLOCK).unwrap();
        let index = index(&mapping, 2);
        let all = index.lines() * SLOTS as u64;
        for key in 2..all + 2 {
            insert(&index, key, hash_of(key));
        }
        assert_eq!(index.probe(hash_of(1), |_| Ok(false)).unwrap(), None, "full");
        for key in 2..all + 2 {
            assert_eq!(find(&index, hash_of(key), key), Some(key));
        }
        assert_eq!(find(&index, hash_of(1), 1), None, "a miss in a full index ends");
        let found: HashMap<u64, KeyHash> =
            index.iter().map(Result::unwrap).map(|slot| (slot.record.unwrap().0 / 8, slot.hash)).collect();
        assert_eq!(found.len() as u64, all);
        assert!(found.iter().all(|(&key, &hash)| hash == hash_of(key)), "all 45 bits come back");
    }

    #[test]
    fn a_lean_search_of_a_writer_gives_away_no_slot_that_was_used() {
        let mapping = Mapping::in_memory(BLOCK).unwrap();
        let index = index(&mapping, 1);
        let sought = |hash: KeyHash| index.as_lines().seek_slot_of(mapping.window(), hash, Offset(8));
        let hash = |tag| KeyHash::from_parts(tag, 0);
        assert!(matches!(sought(hash(5)), Sought::Vacant(Spot { place: 0, .. })));
        insert(&index, 2, hash(5));
        assert!(matches!(sought(hash(6)), Sought::Vacant(Spot { place: 1, .. })));
        assert!(matches!(sought(hash(5)), Sought::Vacant(Spot { place: 1, .. })), "of another key with this tag");
        // By its tag, this slot looks like an empty one.
        insert(&index, 3, hash(0));
        assert!(matches!(sought(hash(6)), Sought::Unclear));
        assert_eq!(index.slot_of(hash(5), Offset(16)).unwrap(), index.probe(hash(5), |_| Ok(true)).unwrap());
        assert_eq!(index.slot_of(hash(5), Offset(8)).unwrap(), None);
        assert_eq!(find(&index, hash(0), 3), Some(3));
        // So does a dead one.
        let Some(Probe::Found(at, _)) = index.probe(hash(5), |_| Ok(true)).unwrap() else { panic!("it was inserted") };
        index.retire(at).unwrap();
        assert!(matches!(sought(hash(6)), Sought::Unclear));
    }

    #[test]
    fn a_dead_slot_is_passed_by_searches_and_taken_by_inserts() {
        let mapping = Mapping::in_memory(BLOCK).unwrap();
        let index = index(&mapping, 1);
        // Seven keys of one line, so that the last one is in the next.
        let hash = |key| KeyHash::from_parts(3 + key, 0);
        for key in 2..9 {
            insert(&index, key, hash(key));
        }
        let Some(Probe::Found(at, _)) = index.probe(hash(2), |offset| Ok(offset == Offset(16))).unwrap() else {
            panic!("key 2 was inserted");
        };
        index.retire(at).unwrap();
        assert_eq!(find(&index, hash(2), 2), None);
        assert_eq!(find(&index, hash(4), 4), Some(4), "the search goes on in the line");
        assert_eq!(find(&index, hash(8), 8), Some(8), "and behind it");
        assert_eq!(index.probe(hash(9), |_| Ok(false)).unwrap(), Some(Probe::Vacant(at, true)));
    }

    #[test]
    fn regions_have_room_for_what_they_were_made_for() {
        for slots in [0, 1, 278, 279, 1000, 1 << 20] {
            let blocks = blocks_for(slots);
            assert!(limit_of_lines(lines_of_blocks(blocks)) >= slots);
            assert!(blocks == 1 || limit_of_lines(lines_of_blocks(blocks - 1)) < slots);
        }
    }
}
