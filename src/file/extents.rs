//! Extents: those that the space table lists, by offset, and the free runs between them.
//!
//! Taking an extent needs the lowest free run that is long enough, and the number of bytes in use. Both are kept up to
//! date with each change, so neither gets slower with more extents.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{BLOCK, ExtentKind, Offset, extent_word};

/// An extent in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset in bytes.
    pub(crate) offset: Offset,
    /// Length in blocks.
    pub(crate) blocks: u64,
    /// What it is used for.
    pub(crate) kind: ExtentKind,
    /// The counting part of the sequence number at which it got its kind.
    pub(crate) count: u64,
    /// Its place in the order of the log; a piece cut off it inherits it. Zero if it never was in the log.
    pub(crate) ordinal: u64,
    /// Its entry of the space table.
    pub(super) entry: u64,
}

impl Extent {
    /// An extent that no table lists.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn unlisted(offset: Offset, blocks: u64, kind: ExtentKind, count: u64, ordinal: u64) -> Extent {
        Extent { offset, blocks, kind, count, ordinal, entry: 0 }
    }

    /// Offset after the last byte.
    pub(crate) fn end(&self) -> Offset {
        self.offset + self.blocks * BLOCK
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.blocks * BLOCK
    }

    /// Whether it holds records of the log.
    pub(crate) fn is_log(&self) -> bool {
        matches!(self.kind, ExtentKind::Log | ExtentKind::ReserveLog)
    }

    /// Whether it holds records of the log, or did and may still be needed for a recovery.
    pub(crate) fn has_records(&self) -> bool {
        self.is_log() || self.kind == ExtentKind::Emptied
    }

    /// Whether it contains `offset`.
    pub(crate) fn contains(&self, offset: Offset) -> bool {
        (self.offset..self.end()).contains(&offset)
    }

    /// Its first word in the space table.
    pub(super) fn place(&self) -> u64 {
        extent_word(self.offset.0, self.blocks)
    }

    /// Whether it is neither in use nor free.
    fn is_waiting(&self) -> bool {
        matches!(self.kind, ExtentKind::Retired | ExtentKind::Emptied)
    }
}

/// The listed extents. They do not overlap.
#[derive(Debug, Default)]
pub(super) struct Extents {
    by_offset: BTreeMap<Offset, Extent>,
    /// The ends of the free runs before the last extent, by their starts.
    free: BTreeMap<Offset, Offset>,
    /// The extents that are neither in use nor free.
    waiting: BTreeSet<Offset>,
    /// Bytes of all extents.
    used: u64,
}

impl Extents {
    /// Lists an extent, in a place that is free.
    pub(super) fn insert(&mut self, extent: Extent) {
        let run = self.free.range(..=extent.offset).next_back().map(|(&start, &end)| (start, end));
        match run.filter(|&(_, end)| end >= extent.end()) {
            Some((start, end)) => {
                self.free.remove(&start);
                self.add_run(start, extent.offset);
                self.add_run(extent.end(), end);
            }
            // After the last extent.
            None => self.add_run(self.end_before(extent.offset), extent.offset),
        }
        self.used += extent.len();
        if extent.is_waiting() {
            self.waiting.insert(extent.offset);
        }
        self.by_offset.insert(extent.offset, extent);
    }

    /// Forgets an extent.
    pub(super) fn remove(&mut self, offset: Offset) -> Option<Extent> {
        let extent = self.by_offset.remove(&offset)?;
        self.waiting.remove(&offset);
        self.used -= extent.len();
        let before = self.end_before(offset);
        let next = self.by_offset.range(offset..).map(|(&next, _)| next).next();
        self.free.remove(&before);
        self.free.remove(&extent.end());
        if let Some(next) = next {
            self.add_run(before, next);
        }
        Some(extent)
    }

    /// Where the last extent in use before an offset ends.
    fn end_before(&self, offset: Offset) -> Offset {
        self.by_offset.range(..offset).next_back().map_or(Offset::EXTENTS, |(_, before)| before.end())
    }

    fn add_run(&mut self, start: Offset, end: Offset) {
        if start < end {
            self.free.insert(start, end);
        }
    }

    /// Changes an extent that stays where it is.
    pub(super) fn change(&mut self, offset: Offset, change: impl FnOnce(&mut Extent)) -> Option<Extent> {
        let extent = self.by_offset.get_mut(&offset)?;
        change(extent);
        if extent.is_waiting() {
            self.waiting.insert(offset);
        } else {
            self.waiting.remove(&offset);
        }
        Some(*extent)
    }

    /// Gives each extent another entry of the table, in their order.
    pub(super) fn number(&mut self) -> impl Iterator<Item = &Extent> {
        for (entry, extent) in (0..).zip(self.by_offset.values_mut()) {
            extent.entry = entry;
        }
        self.by_offset.values()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.by_offset.len() as u64
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Extent> {
        self.by_offset.values()
    }

    /// The extents that begin in a range of offsets.
    pub(super) fn range(&self, range: impl std::ops::RangeBounds<Offset>) -> impl DoubleEndedIterator<Item = &Extent> {
        self.by_offset.range(range).map(|(_, extent)| extent)
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Extent> {
        self.by_offset.get(&offset)
    }

    /// The extent that contains an offset.
    pub(super) fn of(&self, offset: Offset) -> Option<&Extent> {
        self.range(..=offset).next_back().filter(|extent| extent.contains(offset))
    }

    /// The last one in use.
    pub(super) fn last(&self) -> Option<&Extent> {
        self.iter().next_back()
    }

    /// Offset after the last extent.
    pub(super) fn end(&self) -> Offset {
        self.last().map_or(Offset::EXTENTS, Extent::end)
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The free runs before the last one in use, as offsets of their starts and ends, the lowest first.
    pub(super) fn free(&self) -> impl Iterator<Item = (Offset, Offset)> {
        self.free.iter().map(|(&start, &end)| (start, end))
    }

    /// The extents that are neither in use nor free.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Extent> {
        self.waiting.iter().filter_map(|offset| self.by_offset.get(offset))
    }

    /// Whether any extent is neither in use nor free.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [ExtentKind; 4] = [ExtentKind::Log, ExtentKind::Index, ExtentKind::Retired, ExtentKind::Emptied];

    fn extent(block: u64, blocks: u64, kind: ExtentKind) -> Extent {
        Extent { offset: Offset::EXTENTS + block * BLOCK, blocks, kind, count: 0, ordinal: 0, entry: 0 }
    }

    /// The values kept up to date equal those computed anew from the extents.
    fn check(extents: &Extents) {
        let (mut free, mut runs) = (Offset::EXTENTS, Vec::new());
        for extent in extents.iter() {
            if extent.offset > free {
                runs.push((free, extent.offset));
            }
            free = extent.end();
        }
        assert_eq!(extents.free().collect::<Vec<_>>(), runs);
        assert_eq!(extents.end(), free);
        let used = extents.iter().map(Extent::len).sum::<u64>();
        assert_eq!(extents.used(), used);
        let waiting: Vec<&Extent> = extents.iter().filter(|extent| extent.is_waiting()).collect();
        assert_eq!(extents.waiting().collect::<Vec<_>>(), waiting);
        assert_eq!(extents.has_waiting(), !waiting.is_empty());
    }

    proptest! {
        #[test]
        fn free_runs_and_sums_are_those_of_the_extents(
            steps in prop::collection::vec((0u64..60, 1u64..6, 0usize..4, 0u8..3), 1..200),
        ) {
            let mut extents = Extents::default();
            for (block, blocks, kind, what) in steps {
                let new = extent(block, blocks, KINDS[kind]);
                let is_free = extents.iter().all(|other| other.end() <= new.offset || new.end() <= other.offset);
                match what {
                    0 | 1 if is_free => extents.insert(new),
                    0 | 1 => drop(extents.change(new.offset, |extent| extent.kind = new.kind)),
                    _ => {
                        let found = extents.of(new.offset).copied();
                        prop_assert_eq!(found.and_then(|found| extents.remove(found.offset)), found);
                    }
                }
                check(&extents);
            }
        }
    }
}
