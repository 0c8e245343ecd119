//! The index: lines of six slots, open addressing from line to line.
//!
//! It knows hashes and offsets and nothing of records: whether the record that a slot points at has the key in
//! question, it asks through a closure. What a slot may and may not do stands with [`slot`](super::layout::slot).

use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::layout::{
    BLOCK, KeyHash, LINE, REGION_HEADER, REGION_MAGIC, REGION_TOTALS, RegionHeader, SLOTS, lines_of_blocks, slot,
};
use super::region::{Region, Word};
use super::totals;
use crate::error::Result;

/// Where a slot is: its line and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotAt {
    line: u64,
    place: usize,
}

/// What a writer's search for a key found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The key's slot, and the record that it points at.
    Found(SlotAt, u64),
    /// The key has no slot; this is the one to give to it, and whether it is a dead one.
    Vacant(SlotAt, bool),
}

/// The counters of a map, as its region keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Sequence number of the commit that they were counted at.
    pub(crate) seq: u64,
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

impl From<[u64; 5]> for Totals {
    fn from([seq, keys, bytes, slots, dead]: [u64; 5]) -> Totals {
        Totals { seq, keys, bytes, slots, dead }
    }
}

/// One map's index.
#[derive(Clone, Copy)]
pub(crate) struct Index<'a> {
    region: &'a Region,
    offset: u64,
    lines: u64,
    since: u64,
    previous: u64,
}

impl<'a> Index<'a> {
    /// The index whose region is at `offset`, after a look at its header.
    #[inline]
    pub(crate) fn open(region: &'a Region, offset: u64) -> Result<Index<'a>> {
        let header: &RegionHeader = region.header(offset)?;
        let lines = header.lines.get();
        if header.magic != REGION_MAGIC || lines == 0 || lines > region.len() / LINE {
            return Err(region.corrupt(offset, "expected the header of an index region"));
        }
        Ok(Index { region, offset, lines, since: header.since.get(), previous: header.previous.get() })
    }

    /// Makes an empty index for `map` in an extent that nobody uses. It tells the truth from `since` on; readers from
    /// before need the one at `previous`.
    pub(crate) fn create(
        region: &'a Region,
        (offset, blocks): (u64, u64),
        map: u32,
        since: u64,
        previous: u64,
        totals: Totals,
    ) -> Result<Index<'a>> {
        let lines = lines_of_blocks(blocks);
        region.zero(offset, blocks * BLOCK)?;
        let bank = [totals.seq, totals.keys, totals.bytes, totals.slots, totals.dead].map(Into::into);
        let header = RegionHeader {
            magic: REGION_MAGIC,
            map: u64::from(map).into(),
            lines: lines.into(),
            blocks: blocks.into(),
            since: since.into(),
            previous: previous.into(),
            totals: [bank, [0; 5].map(Into::into)],
        };
        region.write(offset, header.as_bytes())?;
        Ok(Index { region, offset, lines, since, previous })
    }

    /// Offset of the region.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Lines.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Slots that there is room for before a search becomes slow: three quarters of all.
    pub(crate) fn limit(&self) -> u64 {
        limit_of_lines(self.lines)
    }

    /// The sequence number from which on the index tells the truth.
    #[inline]
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// The index that readers below [`since`](Index::since) need, if there was one.
    pub(crate) fn previous(&self) -> Result<Option<Index<'a>>> {
        if self.previous == 0 { Ok(None) } else { Index::open(self.region, self.previous).map(Some) }
    }

    /// Offset of the previous region, or zero.
    pub(crate) fn previous_offset(&self) -> u64 {
        self.previous
    }

    /// The counters that count, for the holder of the writer lock.
    pub(crate) fn totals(&self) -> Result<Totals> {
        totals::latest(self.region, self.offset + REGION_TOTALS).map(Totals::from)
    }

    /// The counters as of `seq`; `None` if commits have overtaken the reader.
    pub(crate) fn totals_at(&self, seq: u64) -> Result<Option<Totals>> {
        Ok(totals::at_most(self.region, self.offset + REGION_TOTALS, seq)?.map(Totals::from))
    }

    /// Makes these the counters that count.
    pub(crate) fn set_totals(&self, totals: Totals) -> Result<()> {
        let Totals { seq, keys, bytes, slots, dead } = totals;
        totals::publish(self.region, self.offset + REGION_TOTALS, [seq, keys, bytes, slots, dead])
    }

    /// Makes these the counters of an index that nobody looks at yet.
    pub(crate) fn reset_totals(&self, totals: Totals) -> Result<()> {
        let Totals { seq, keys, bytes, slots, dead } = totals;
        totals::reset(self.region, self.offset + REGION_TOTALS, [seq, keys, bytes, slots, dead])
    }

    /// Corrects how many slots are in use and dead, the keys staying what they are. Cut short, it leaves too many of
    /// them counted, never too few.
    pub(crate) fn amend_slots(&self, slots: u64, dead: u64) -> Result<()> {
        totals::amend::<5>(self.region, self.offset + REGION_TOTALS, 4, dead)?;
        totals::amend::<5>(self.region, self.offset + REGION_TOTALS, 3, slots)
    }

    #[inline]
    fn line_offset(&self, line: u64) -> u64 {
        self.offset + REGION_HEADER + line * LINE
    }

    #[inline]
    fn line(&self, line: u64) -> Result<&'a [Word; 8]> {
        self.region.line(self.line_offset(line))
    }

    /// Fetches the first line of a key ahead of its use.
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        self.region.prefetch(self.line_offset(hash.line(self.lines)));
    }

    /// The offset of the newest record of a key, for a reader. `is_key` says whether the record at an offset has it.
    #[inline]
    pub(crate) fn find(&self, hash: KeyHash, mut is_key: impl FnMut(u64) -> Result<bool>) -> Result<Option<u64>> {
        let tag = hash.tag();
        let mut at = hash.line(self.lines);
        for _ in 0..self.lines {
            let line = self.line(at)?;
            for word in &line[..SLOTS] {
                let value = word.load();
                if value == slot::EMPTY {
                    return Ok(None);
                }
                if slot::tag(value) == tag && value != slot::DEAD && is_key(slot::offset(value))? {
                    return Ok(Some(slot::offset(value)));
                }
            }
            at = if at + 1 == self.lines { 0 } else { at + 1 };
        }
        Ok(None)
    }

    /// The slot of a key, or the one to give to it, for the holder of the writer lock. `None` if every slot is in use.
    #[inline]
    pub(crate) fn probe(&self, hash: KeyHash, mut is_key: impl FnMut(u64) -> Result<bool>) -> Result<Option<Probe>> {
        let tag = hash.tag();
        let mut line = hash.line(self.lines);
        let mut dead = None;
        for _ in 0..self.lines {
            for (place, word) in self.line(line)?[..SLOTS].iter().enumerate() {
                let at = SlotAt { line, place };
                match word.load() {
                    slot::EMPTY => {
                        return Ok(Some(Probe::Vacant(dead.unwrap_or(at), dead.is_some())));
                    }
                    slot::DEAD => dead = dead.or(Some(at)),
                    value if slot::tag(value) == tag && is_key(slot::offset(value))? => {
                        return Ok(Some(Probe::Found(at, slot::offset(value))));
                    }
                    _ => {}
                }
            }
            line = if line + 1 == self.lines { 0 } else { line + 1 };
        }
        Ok(dead.map(|at| Probe::Vacant(at, true)))
    }

    /// Points a slot at a record: one release store, before it the further hash bits if the slot gets a new key.
    #[inline]
    pub(crate) fn publish(&self, at: SlotAt, hash: KeyHash, record: u64, new_key: bool) -> Result<()> {
        let line = self.line_offset(at.line);
        if new_key {
            let word = line + 8 * (SLOTS + at.place / 3) as u64;
            let shift = KeyHash::FURTHER_BITS * (at.place % 3) as u32;
            let mask = ((1 << KeyHash::FURTHER_BITS) - 1) << shift;
            let others = self.region.load(word)? & !mask;
            self.region.store(word, others | (hash.further() << shift), Ordering::Relaxed)?;
        }
        self.region.store(line + 8 * at.place as u64, slot::new(hash.tag(), record), Ordering::Release)
    }

    /// Marks a slot dead: its tombstone is older than every pin.
    pub(crate) fn retire(&self, at: SlotAt) -> Result<()> {
        self.region.store(self.line_offset(at.line) + 8 * at.place as u64, slot::DEAD, Ordering::Release)
    }

    /// All slots that were ever used, in the order of their lines.
    pub(crate) fn iter(&self) -> Slots<'a> {
        Slots { index: *self, line: 0, place: 0, words: None }
    }
}

/// How many slots of a region of so many lines may be in use.
fn limit_of_lines(lines: u64) -> u64 {
    lines * SLOTS as u64 * 3 / 4
}

/// How many blocks a region needs so that `slots` of it may be in use.
pub(crate) fn blocks_for(slots: u64) -> u64 {
    let lines = (slots.saturating_mul(4)).div_ceil(SLOTS as u64 * 3).max(1);
    (lines.saturating_mul(LINE) + REGION_HEADER).div_ceil(BLOCK)
}

/// A used slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) at: SlotAt,
    /// The hash bits of its key; of no meaning if the slot is dead.
    pub(crate) hash: KeyHash,
    /// Offset of the record; `None` if the slot is dead.
    pub(crate) record: Option<u64>,
    /// How many lines behind its first line the key was found, plus one: what a search for it loads.
    pub(crate) probes: u64,
}

/// See [`Index::iter`].
pub(crate) struct Slots<'a> {
    index: Index<'a>,
    line: u64,
    place: usize,
    words: Option<&'a [Word; 8]>,
}

impl Iterator for Slots<'_> {
    type Item = Result<Slot>;

    fn next(&mut self) -> Option<Result<Slot>> {
        while self.line < self.index.lines {
            let words = match self.words {
                Some(words) => words,
                None => match self.index.line(self.line) {
                    Ok(words) => self.words.insert(words),
                    Err(error) => {
                        self.line = self.index.lines;
                        return Some(Err(error));
                    }
                },
            };
            while self.place < SLOTS {
                let place = self.place;
                let value = words[place].load();
                if value == slot::EMPTY {
                    break;
                }
                self.place += 1;
                let further = words[SLOTS + place / 3].relaxed() >> (KeyHash::FURTHER_BITS * (place % 3) as u32);
                let further = further & ((1 << KeyHash::FURTHER_BITS) - 1);
                let hash = KeyHash::from_parts(slot::tag(value), further);
                let first = hash.line(self.index.lines);
                let behind = if self.line >= first { self.line - first } else { self.line + self.index.lines - first };
                return Some(Ok(Slot {
                    at: SlotAt { line: self.line, place },
                    hash,
                    record: (value != slot::DEAD).then(|| slot::offset(value)),
                    probes: behind + 1,
                }));
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
        match index.probe(hash, |offset| Ok(offset / 8 == key)).unwrap().unwrap() {
            Probe::Found(at, _) => index.publish(at, hash, key * 8, false).unwrap(),
            Probe::Vacant(at, _) => index.publish(at, hash, key * 8, true).unwrap(),
        }
    }

    fn index(region: &Region, blocks: u64) -> Index<'_> {
        Index::create(region, (0, blocks), 1, 1, 0, Totals::default()).unwrap()
    }

    fn hash_of(key: u64) -> KeyHash {
        KeyHash::of(&key.to_le_bytes(), 0)
    }

    #[test]
    fn every_slot_can_be_used_and_found() {
        let region = Region::in_memory(2 * BLOCK, 2 * BLOCK).unwrap();
        let index = index(&region, 2);
        let all = index.lines() * SLOTS as u64;
        for key in 2..all + 2 {
            insert(&index, key, hash_of(key));
        }
        assert_eq!(index.probe(hash_of(1), |_| Ok(false)).unwrap(), None, "full");
        for key in 2..all + 2 {
            assert_eq!(index.find(hash_of(key), |offset| Ok(offset == key * 8)).unwrap(), Some(key * 8));
        }
        assert_eq!(index.find(hash_of(1), |_| Ok(false)).unwrap(), None, "a miss in a full index ends");
        let found: HashMap<u64, KeyHash> =
            index.iter().map(Result::unwrap).map(|slot| (slot.record.unwrap() / 8, slot.hash)).collect();
        assert_eq!(found.len() as u64, all);
        assert!(found.iter().all(|(&key, &hash)| hash == hash_of(key)), "all 45 bits come back");
    }

    #[test]
    fn a_dead_slot_is_passed_by_searches_and_taken_by_inserts() {
        let region = Region::in_memory(BLOCK, BLOCK).unwrap();
        let index = index(&region, 1);
        // Three keys of one line.
        let hash = |further| KeyHash::from_parts(3 + further, further);
        for key in 2..5 {
            insert(&index, key, hash(key));
        }
        let Some(Probe::Found(at, _)) = index.probe(hash(2), |offset| Ok(offset == 16)).unwrap() else {
            panic!("key 2 was inserted");
        };
        index.retire(at).unwrap();
        assert_eq!(index.find(hash(2), |_| Ok(true)).unwrap(), None);
        assert_eq!(index.find(hash(4), |offset| Ok(offset == 32)).unwrap(), Some(32), "the probe goes on");
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
