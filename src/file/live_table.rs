//! The tables of the live area: processes and pins. They begin before the extents; a full one continues in an extent.
//!
//! **Invariant.** Only the holder of the writer lock adds a part, zeroed before the word that names it is stored; and a
//! part stays until no process has the store open for writing. So the place of an entry, once found, stays valid. The
//! horizon is raised under the writer lock too, by a process that therefore finds every part that a pin can be in.

use super::layout::{
    BLOCK, EXTENTS, Offset, PIN_EXTENTS, PIN_LEN, PIN_TABLE, PINS, PROCESS_EXTENTS, PROCESS_LEN, PROCESS_TABLE,
    PROCESSES, extent_blocks, extent_offset, live,
};
use super::mapping::Mapping;
use crate::error::Result;

/// One of the tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LiveTable {
    /// Offset of the first part.
    at: u64,
    /// Entries of the first part, and bytes of an entry: their product is a multiple of a block.
    first: u64,
    len: u64,
    /// Offset of the words that name the other parts, and how many there can be.
    words: u64,
    most: u64,
}

/// The pins.
pub(crate) const PIN: LiveTable =
    LiveTable { at: PIN_TABLE, first: PINS, len: PIN_LEN, words: live::PIN_EXTENTS, most: PIN_EXTENTS };
/// The processes.
pub(crate) const PROCESS: LiveTable = LiveTable {
    at: PROCESS_TABLE,
    first: PROCESSES,
    len: PROCESS_LEN,
    words: live::PROCESS_EXTENTS,
    most: PROCESS_EXTENTS,
};

/// The most parts of a table after the first.
const MOST: usize = 12;
const _: () = assert!(PIN_EXTENTS as usize <= MOST && PROCESS_EXTENTS as usize <= MOST);
const _: () = assert!(live::PIN_EXTENTS + 8 * PIN_EXTENTS <= live::PROCESS_EXTENTS);
const _: () = assert!((PINS * PIN_LEN).is_multiple_of(BLOCK) && (PROCESSES * PROCESS_LEN).is_multiple_of(BLOCK));

impl LiveTable {
    /// The most entries that there can be.
    pub(crate) const fn limit(&self) -> u64 {
        self.first << self.most
    }

    /// How many entries there are before the extents.
    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    /// The words that name the extents in which it continues.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> + use<> {
        let words = self.words;
        (0..self.most).map(move |number| words + 8 * number)
    }

    /// Where an entry is; `None` if the table has fewer entries.
    #[inline]
    pub(crate) fn place(&self, mapping: &Mapping, number: u64) -> Result<Option<u64>> {
        if number < self.first {
            return Ok(Some(self.at + number * self.len));
        }
        Ok(self.parts(mapping)?.place(number))
    }

    /// Where all of its parts are.
    pub(crate) fn parts(&self, mapping: &Mapping) -> Result<Parts<'_>> {
        let mut parts = Parts { table: self, more: [0; MOST], count: 0 };
        for number in 0..self.most {
            let word = mapping.live(self.words + 8 * number)?;
            if word == 0 {
                break;
            }
            let (offset, blocks) = (extent_offset(word), extent_blocks(word));
            let is_there = || mapping.word(offset + blocks * BLOCK - 8).is_ok();
            if offset < EXTENTS || blocks != self.blocks(number) || !is_there() {
                return Err(mapping.corrupt(self.words + 8 * number, "expected where a table of the live area goes on"));
            }
            parts.more[number as usize] = offset;
            parts.count += 1;
        }
        Ok(parts)
    }

    /// The same for a live area that is not trusted yet: the first part alone if a word is damaged.
    pub(crate) fn likely_parts(&self, mapping: &Mapping) -> Parts<'_> {
        self.parts(mapping).unwrap_or(Parts { table: self, more: [0; MOST], count: 0 })
    }

    /// Blocks of the extent with this number.
    fn blocks(&self, number: u64) -> u64 {
        (self.first * self.len / BLOCK) << number
    }
}

/// The parts of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'t> {
    table: &'t LiveTable,
    /// Offsets of the extents in which it continues.
    more: [u64; MOST],
    count: u32,
}

impl Parts<'_> {
    /// How many entries there are.
    pub(crate) fn entries(&self) -> u64 {
        self.table.first << self.count
    }

    /// Where an entry is.
    pub(crate) fn place(&self, number: u64) -> Option<u64> {
        let LiveTable { at, first, len, .. } = *self.table;
        if number < first {
            return Some(at + number * len);
        }
        let part = (number / first).ilog2();
        (part < self.count).then(|| self.more[part as usize] + (number - (first << part)) * len)
    }

    /// The places of all entries.
    pub(crate) fn places(&self) -> impl Iterator<Item = u64> {
        let len = self.table.len;
        self.runs().flat_map(move |(at, entries)| (0..entries).map(move |n| at + n * len))
    }

    /// Takes a step at the place of each entry. Two plain loops, which an iterator over all places is not.
    #[inline(always)]
    pub(crate) fn at_each(&self, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
        for (at, entries) in self.runs() {
            for number in 0..entries {
                step(at + number * self.table.len)?;
            }
        }
        Ok(())
    }

    /// Where each part begins, and how many entries it has.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let LiveTable { at, first, .. } = *self.table;
        let more = self.more.into_iter().take(self.count as usize).enumerate();
        std::iter::once((at, first)).chain(more.map(move |(part, offset)| (offset, first << part)))
    }

    /// The extents in which it continues.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Offset> {
        self.more.into_iter().take(self.count as usize).map(Offset)
    }

    /// The blocks of the next extent that the table would continue in, and the word that would name it. `None` if there
    /// can be no more.
    pub(crate) fn next(&self) -> Option<(u64, u64)> {
        let number = u64::from(self.count);
        (number < self.table.most).then(|| (self.table.blocks(number), self.table.words + 8 * number))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::layout::extent_word;
    use super::*;

    #[test]
    fn an_entry_of_any_number_has_a_place_of_its_own() {
        let mapping = Mapping::in_memory(1 << 24).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 1000 * BLOCK).unwrap();
        for table in [&PIN, &PROCESS] {
            let mut end = EXTENTS;
            for parts in 0..4 {
                let known = table.parts(&mapping).unwrap();
                assert_eq!(known.entries(), table.first() << parts);
                let places: Vec<u64> = known.places().collect();
                let of_numbers: Vec<u64> = (0..known.entries()).filter_map(|n| known.place(n)).collect();
                assert_eq!(places, of_numbers);
                assert!((0..known.entries()).all(|n| table.place(&mapping, n).unwrap() == known.place(n)));
                assert_eq!(known.place(known.entries()), None);
                let mut apart = places.clone();
                apart.sort_unstable();
                assert!(apart.windows(2).all(|two| two[1] - two[0] >= table.len), "two entries overlap");
                let ends = known.extents().map(|at| (at, at + table.len)).collect::<Vec<_>>();
                assert_eq!(ends.len(), parts);
                let (blocks, word) = known.next().unwrap();
                assert_eq!(blocks * BLOCK, known.entries() * table.len, "it doubles");
                mapping.store_live(word, extent_word(end, blocks), Ordering::Relaxed).unwrap();
                end += blocks * BLOCK;
            }
            // An impossible word is damage.
            mapping.store_live(table.words + 8, extent_word(EXTENTS, 3), Ordering::Relaxed).unwrap();
            assert!(table.parts(&mapping).is_err());
            assert_eq!(table.likely_parts(&mapping).entries(), table.first());
        }
    }
}
