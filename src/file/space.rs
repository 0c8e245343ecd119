//! Space: which blocks of the file belong to what.
//!
//! The space table in the file lists the extents in use; what it does not list is free. Each change is the store of one
//! word, so a process that dies in the middle leaves at most an extent that nothing refers to.
//!
//! The holder of the writer lock keeps a copy of the table. A counter of changes tells when another process has changed
//! the table since. It is odd during a change, so that a reader without the lock knows whether the table stayed the
//! same meanwhile (a seqlock).
//!
//! **Invariants.** Space comes from a free run where there is one that [fits](Fit); else the file grows, with real
//! space for the new range. A retired extent becomes free only when no pin is below the sequence number at which it was
//! retired; a log extent that compaction has emptied, only when the log of the flushed superblock also begins after it.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

pub(crate) use super::extents::Extent;
use super::extents::Extents;
use super::layout::{
    BLOCK, COUNT_MASK, EXTENTS, ExtentKind, MAX_FILE_LEN, Offset, SPACE_ENTRY, SPACE_TABLE_MAGIC, Seq, TABLE_HEADER,
    TableHeader, align_block, entries_of_blocks, extent_blocks, live, seal, state_word, table_word,
};
use super::mapping::Mapping;
use super::table::Table;
use crate::error::{Error, FullReason, Result};

/// The largest extent of the log, records longer than that excepted.
const LARGEST_LOG: u64 = 64 << 20;

/// The log is this many times as long as its usual extent.
const LOG_EXTENTS: u64 = 64;

/// A point of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogPoint {
    /// The ordinal of its extent.
    pub(crate) ordinal: u64,
    /// Its offset in the file.
    pub(crate) at: Offset,
}

impl LogPoint {
    /// The part of an extent with records that lies after the point, as offsets of its start and end; `None` if there
    /// is none.
    pub(crate) fn rest_of(self, extent: &Extent) -> Option<(Offset, Offset)> {
        match extent.ordinal.cmp(&self.ordinal) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => {
                Some((extent.offset.max(self.at), extent.end())).filter(|(start, end)| start < end)
            }
            std::cmp::Ordering::Greater => Some((extent.offset, extent.end())),
        }
    }

    /// The part of a range of an extent with records that lies before the point. It may be empty.
    pub(crate) fn part_of(self, extent: &Extent, (start, end): (Offset, Offset)) -> (Offset, Offset) {
        match extent.ordinal.cmp(&self.ordinal) {
            std::cmp::Ordering::Less => (start, end),
            std::cmp::Ordering::Equal => (start, end.min(self.at)),
            std::cmp::Ordering::Greater => (start, start),
        }
    }
}

/// Where an extent is to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// In the lowest free run that is long enough, so that live data drifts down.
    Lowest,
    /// In the shortest one, so that longer ones stay whole.
    Shortest,
    /// On a grid of cells of its own length, in the next one that is free after this offset, as in a ring: what is
    /// passed at the head of the log one after the other then lies side by side.
    Cell(Offset),
}

/// An extent found by following a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogExtent {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// The sequence number of the commit that took it.
    pub(crate) seq: Seq,
}

/// Bytes that are no longer in use and not yet free, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// For a superblock whose log begins after them.
    pub(crate) checkpoint: u64,
    /// For readers that may be using them.
    pub(crate) pins: u64,
}

/// What the holder of the writer lock knows of the space table.
#[derive(Debug)]
pub(crate) struct Space {
    /// What the table lists.
    extents: Extents,
    /// Entries of the table that are vacant, the lowest last.
    vacant: Vec<u64>,
    /// How far the file is known to have real space.
    end: Offset,
    /// The counter of changes at which this was the table.
    changes: u64,
    /// An extent of the log that was being cut when a process died.
    half_cut: Option<Offset>,
    /// The largest ordinal. It belongs to the extent that the log ends in, or to one taken for a commit under way.
    last_ordinal: u64,
}

impl Space {
    /// Reads the table that `word` names.
    pub(crate) fn load(mapping: &Mapping, word: u64) -> Result<Space> {
        let table = Table::open(mapping, word, SPACE_TABLE_MAGIC)?;
        Space::of_entries(mapping, word, table.capacity(), |entry| {
            let (place, state) = table.entry(entry)?;
            Ok((place, state, table.third(entry)?))
        })
    }

    /// Reads the table that `word` names through the file and not the mapping: it may be cut off the file meanwhile.
    pub(crate) fn load_copy(mapping: &Mapping, word: u64) -> Result<Space> {
        let (offset, len) = (Offset::of_extent_word(word), extent_blocks(word).saturating_mul(BLOCK));
        let damaged = || mapping.corrupt(offset, "expected the header of a table");
        let file_end = mapping.refresh()?;
        if len == 0 || offset.0.checked_add(len).is_none_or(|end| end > file_end) {
            return Err(damaged());
        }
        let mut bytes = vec![0; len as usize];
        mapping.read(offset, &mut bytes)?;
        let word_at = |at: u64| bytes[at as usize..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let capacity = entries_of_blocks(extent_blocks(word), SPACE_ENTRY);
        if !bytes.starts_with(&SPACE_TABLE_MAGIC) || word_at(offset_of!(TableHeader, capacity) as u64) != capacity {
            return Err(damaged());
        }
        let entry = |entry| {
            let at = TABLE_HEADER + entry * SPACE_ENTRY;
            Ok((word_at(at), word_at(at + 8), word_at(at + 16)))
        };
        Space::of_entries(mapping, word, capacity, entry)
    }

    fn of_entries(
        mapping: &Mapping,
        word: u64,
        capacity: u64,
        entry_at: impl Fn(u64) -> Result<(u64, u64, u64)>,
    ) -> Result<Space> {
        let changes = mapping.live(live::SPACE_CHANGES)?;
        let mut space = Space::empty(changes);
        let mut listed = Vec::new();
        let file_end = mapping.refresh()? / BLOCK * BLOCK;
        for entry in (0..capacity).rev() {
            let (place, state, ordinal) = entry_at(entry)?;
            if state == 0 {
                space.vacant.push(entry);
                continue;
            }
            let (offset, blocks) = (Offset::of_extent_word(place), extent_blocks(place));
            let kind = ExtentKind::from_u8((state >> 56) as u8);
            let extent = kind.map(|kind| Extent { offset, blocks, kind, count: state & COUNT_MASK, ordinal, entry });
            let has_place = |e: &Extent| e.offset >= Offset::EXTENTS && e.blocks > 0 && e.end().0 <= file_end;
            let has_order = |e: &Extent| e.ordinal < u64::MAX / 2 && (e.ordinal > 0 || !e.has_records());
            let Some(extent) = extent.filter(|e| has_place(e) && has_order(e)) else {
                return Err(mapping
                    .corrupt(Offset::of_extent_word(word), format!("entry {entry} of the space table is damaged")));
            };
            space.last_ordinal = space.last_ordinal.max(ordinal);
            listed.push(extent);
        }
        let mut last = Offset::EXTENTS;
        listed.sort_unstable_by_key(|extent| (extent.offset, extent.blocks));
        for mut extent in listed {
            let before = space.extents.range(..=extent.offset).next_back().copied();
            if let Some(before) = before
                && (before.offset, before.kind) == (extent.offset, ExtentKind::Emptied)
                && extent.is_log()
                && before.end() < extent.end()
            {
                (extent.offset, extent.blocks) = (before.end(), extent.blocks - before.blocks);
                space.half_cut = Some(extent.offset);
            }
            if extent.offset < last {
                return Err(mapping.corrupt(extent.offset, "two extents of the space table overlap"));
            }
            last = extent.end();
            space.extents.insert(extent);
        }
        // Space after the last extent in use may or may not have been allocated, by a process that died.
        space.end = last;
        Ok(space)
    }

    /// For a table that was not read yet.
    pub(crate) fn unknown() -> Space {
        // No table has an odd counter.
        Space::empty(u64::MAX)
    }

    fn empty(changes: u64) -> Space {
        Space {
            extents: Extents::default(),
            vacant: Vec::new(),
            end: Offset::EXTENTS,
            changes,
            half_cut: None,
            last_ordinal: 0,
        }
    }

    /// Whether the table in the file equals this. Without the writer lock, the answer may be outdated on arrival; but
    /// it is true of everything loaded before the call.
    #[inline]
    pub(crate) fn is_current(&self, mapping: &Mapping) -> Result<bool> {
        Ok(mapping.live(live::SPACE_CHANGES)? == self.changes && self.changes.is_multiple_of(2))
    }

    /// Makes a table that lists `log`, the extents of the log in its order, and itself. The first one gets the ordinal
    /// `first`. Everything else is free.
    pub(crate) fn create(mapping: &Mapping, log: &[LogExtent], first: u64, seq: Seq) -> Result<Space> {
        let changes = mapping.live(live::SPACE_CHANGES)?;
        let mut space = Space::empty(changes);
        space.end = log.iter().map(|extent| extent.end).max().unwrap_or(Offset::EXTENTS);
        for (entry, &LogExtent { start: offset, end, seq }) in log.iter().enumerate() {
            let blocks = (end - offset) / BLOCK;
            let (kind, count, entry) = (ExtentKind::Log, seq.count(), entry as u64);
            space.last_ordinal = first + entry;
            let ordinal = space.last_ordinal;
            space.extents.insert(Extent { offset, blocks, kind, count, ordinal, entry });
        }
        let needed = log.len() as u64 * 2 + 16;
        let (place, lies_between) = space.lowest(blocks_of_table(needed) * BLOCK);
        if lies_between {
            mapping.allocate(place, place + blocks_of_table(needed) * BLOCK)?;
        }
        space.replace_table(mapping, needed, seq)?;
        Ok(space)
    }

    /// The extents that the table lists, by offset: all that are not free.
    pub(crate) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents.iter()
    }

    /// Offset after the last extent in use.
    pub(crate) fn used_end(&self) -> Offset {
        self.extents.end()
    }

    /// Offset after the last extent that can be moved. Pins and processes stay where they are while they are in use.
    pub(crate) fn movable_end(&self) -> Offset {
        match self.extents.last() {
            Some(last) if last.kind == ExtentKind::Live => {
                let movable = self.extents().filter(|extent| extent.kind != ExtentKind::Live);
                movable.map(Extent::end).max().unwrap_or(Offset::EXTENTS)
            }
            _ => self.used_end(),
        }
    }

    /// The last extent in use.
    pub(crate) fn last(&self) -> Option<Extent> {
        self.extents.last().copied()
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.extents.used()
    }

    /// The extent at `offset`.
    pub(crate) fn extent(&self, offset: Offset) -> Option<&Extent> {
        self.extents.get(offset)
    }

    /// The listed extent that `offset` lies in.
    pub(crate) fn extent_of(&self, offset: Offset) -> Option<&Extent> {
        self.extents.of(offset)
    }

    /// The extent of the log that `offset` lies in.
    pub(crate) fn log_extent_of(&self, offset: Offset) -> Option<&Extent> {
        self.extent_of(offset).filter(|extent| extent.is_log())
    }

    /// Whether anything is neither in use nor free.
    pub(crate) fn has_waiting(&self) -> bool {
        self.extents.has_waiting()
    }

    /// Bytes of the extents that the log goes through.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.extents.iter().filter(|extent| extent.is_log()).map(Extent::len).sum()
    }

    /// The length of the next extent of the log, which has to hold `needed` bytes. It grows with the log, and doubles a
    /// small one. It is never less than `smallest`, nor, unless the log is small, than `least`. A long record gets an
    /// extent of its own, so that little is left over. A somewhat shorter free run is taken before the file is
    /// extended.
    pub(crate) fn log_extent_len(&self, needed: u64, (smallest, least): (u64, u64)) -> u64 {
        let log = self.log_bytes();
        let least = log.clamp(smallest, least);
        let usual = align_block((log / LOG_EXTENTS).clamp(least, LARGEST_LOG));
        if needed > usual / 8 {
            // An extent of the least length would hold one such record and leave the rest unused.
            return if needed > least / 2 { align_block(needed) } else { least };
        }
        if self.lowest(usual).1 {
            return usual;
        }
        let longest = self.longest_run();
        // `needed` may exceed `least` and a sixteenth of the usual length.
        if longest >= needed.max(least).max(usual / 16) { longest.min(usual) } else { usual }
    }

    /// Bytes of the longest free run in the file.
    pub(crate) fn longest_run(&self) -> u64 {
        let last = self.end.bytes_since(self.extents.end());
        self.extents.free().map(|(start, end)| end - start).max().unwrap_or(0).max(last)
    }

    /// The length of an extent that fills the lowest free run of at least `least` bytes; `most` if the run is longer or
    /// there is none.
    pub(crate) fn lowest_run(&self, least: u64, most: u64) -> u64 {
        let mut runs = self.extents.free().map(|(start, end)| end - start);
        runs.find(|&run| run >= least).map_or(most, |run| run.min(most))
    }

    /// Takes an extent of `blocks` blocks.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room; then nothing has changed but perhaps the place of the table.
    pub(crate) fn allocate(
        &mut self,
        mapping: &Mapping,
        (blocks, fit): (u64, Fit),
        kind: ExtentKind,
        seq: Seq,
    ) -> Result<Extent> {
        // A table that is nearly full is replaced first: the new one needs an entry as well.
        if self.vacant.len() < 3 {
            self.enlarge_table(mapping, seq)?;
        }
        self.take(mapping, (blocks, fit), kind, seq)
    }

    fn enlarge_table(&mut self, mapping: &Mapping, seq: Seq) -> Result<()> {
        let entries = self.extents.count() * 2 + 16;
        self.replace_table(mapping, entries, seq)
    }

    fn take(&mut self, mapping: &Mapping, (blocks, fit): (u64, Fit), kind: ExtentKind, seq: Seq) -> Result<Extent> {
        let offset = self.find_or_grow(mapping, blocks, fit)?;
        let table = Table::open(mapping, mapping.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        let Some(entry) = self.vacant.pop() else {
            return Err(mapping.corrupt(live::SPACE_TABLE, "the space table has no vacant entry"));
        };
        let joins = matches!(kind, ExtentKind::Log | ExtentKind::ReserveLog);
        let ordinal = if joins { self.next_ordinal() } else { 0 };
        let extent = Extent { offset, blocks, kind, count: seq.count(), ordinal, entry };
        self.change(mapping, |_| list(&table, &extent))?;
        self.extents.insert(extent);
        Ok(extent)
    }

    /// The ordinal of an extent that joins the log.
    fn next_ordinal(&mut self) -> u64 {
        self.last_ordinal += 1;
        self.last_ordinal
    }

    /// A free run of `blocks` blocks, at the end of a longer file if there is none.
    fn find_or_grow(&mut self, mapping: &Mapping, blocks: u64, fit: Fit) -> Result<Offset> {
        let len = blocks.checked_mul(BLOCK).filter(|&len| len <= MAX_FILE_LEN);
        let Some(len) = len else {
            let why = FullReason::AddressSpace(mapping.max_len());
            return Err(Error::Full { path: mapping.path().to_owned(), needed: u64::MAX, why });
        };
        let (free, fits) = self.find(mapping, len, fit);
        // Bytes in use past the limit count against it too.
        mapping.check_limit(len, EXTENTS + self.used_bytes() + len, free + len)?;
        if !fits && self.end.bytes_since(free) < len {
            mapping.allocate(self.end.max(self.used_end()), free + len)?;
            self.end = free + len;
        }
        Ok(free)
    }

    /// Where `len` bytes are free, and whether that lies before an extent in use: after the last one, it may have to be
    /// allocated first.
    fn find(&self, mapping: &Mapping, len: u64, fit: Fit) -> (Offset, bool) {
        // In a file that is longer than the limit, or for a step that may exceed it, what is below comes first.
        let most = below_limit(mapping);
        let after = match fit {
            Fit::Lowest => return self.lowest(len),
            Fit::Shortest => return self.shortest(len, most),
            Fit::Cell(after) => after,
        };
        let next = self.cells(len).find(|&start| start > after && start + len <= most);
        let beyond = self.used_end().align_cell(len);
        match next {
            Some(next) => (next, true),
            None if beyond + len <= most => (beyond, false),
            // Any place will do rather than a longer file.
            None => self.cells(len).next().map_or_else(|| self.shortest(len, most), |lowest| (lowest, true)),
        }
    }

    /// The shortest free run of `len` bytes, one below `most` if there is one.
    fn shortest(&self, len: u64, most: Offset) -> (Offset, bool) {
        let runs = self.extents.free().filter(|&(start, end)| end - start >= len);
        let shortest = runs.min_by_key(|&(start, end)| (start + len > most, end - start));
        shortest.map_or((self.used_end(), false), |(start, _)| (start, true))
    }

    /// The free cells of a grid of this length that lie before an extent in use.
    fn cells(&self, len: u64) -> impl Iterator<Item = Offset> {
        let of_run = move |(start, end): (Offset, Offset)| {
            let first = start.align_cell(len);
            (0..end.bytes_since(first) / len).map(move |number| first + number * len)
        };
        self.extents.free().flat_map(of_run)
    }

    /// How many cells of a grid of this length are free within the limit, in the file or beyond.
    pub(crate) fn free_cells(&self, mapping: &Mapping, len: u64) -> u64 {
        let most = below_limit(mapping);
        let within = self.cells(len).filter(|&start| start + len <= most).count() as u64;
        let beyond = most.bytes_since(self.used_end().align_cell(len)) / len;
        (within + beyond).min(most.bytes_since(Offset::EXTENTS + self.used_bytes()) / len)
    }

    /// Whether an extent of `len` bytes fits within the limit.
    pub(crate) fn has_room(&self, mapping: &Mapping, len: u64) -> bool {
        let (free, _) = self.find(mapping, len, Fit::Shortest);
        mapping.check_limit(len, EXTENTS + self.used_bytes() + len, free + len).is_ok()
    }

    /// The lowest free run of `len` bytes, and whether it lies before an extent in use: after the last one, it may have
    /// to be allocated first.
    pub(crate) fn lowest(&self, len: u64) -> (Offset, bool) {
        let run = self.extents.free().find(|&(start, end)| end - start >= len);
        run.map_or((self.extents.end(), false), |(start, _)| (start, true))
    }

    /// Moves the bounds of a listed extent: one store.
    fn set_bounds(&mut self, mapping: &Mapping, offset: Offset, (start, end): (Offset, Offset)) -> Result<()> {
        let table = Table::open(mapping, mapping.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        self.change(mapping, |space| {
            if let Some(mut extent) = space.extents.remove(offset) {
                (extent.offset, extent.blocks) = (start, (end - start) / BLOCK);
                table.set_word(extent.entry, 0, extent.place())?;
                space.extents.insert(extent);
            }
            Ok(())
        })
    }

    /// Cuts the part before `at` off an extent of the log and lists it as emptied. `false` if the table has no room for
    /// that.
    ///
    /// It is listed before the extent is shortened: a process that dies in between leaves both listed, which loading
    /// the table recognises.
    pub(crate) fn cut(&mut self, mapping: &Mapping, offset: Offset, at: Offset, seq: Seq) -> Result<bool> {
        if self.vacant.len() < 3 {
            match self.enlarge_table(mapping, seq) {
                Err(Error::Full { .. }) => return Ok(false),
                enlarged => enlarged?,
            }
        }
        let table = Table::open(mapping, mapping.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        let (Some(entry), Some(&extent)) = (self.vacant.pop(), self.extents.get(offset)) else {
            return Err(mapping.corrupt(offset, "an extent of the log was expected here"));
        };
        let (kind, count, blocks) = (ExtentKind::Emptied, seq.count(), (at - offset) / BLOCK);
        let emptied = Extent { offset, blocks, kind, count, ordinal: extent.ordinal, entry };
        self.change(mapping, |_| list(&table, &emptied))?;
        self.set_bounds(mapping, offset, (at, extent.end()))?;
        self.extents.insert(emptied);
        Ok(true)
    }

    /// Completes a cut that a dead process had begun. The caller holds the writer lock.
    pub(crate) fn mend(&mut self, mapping: &Mapping) -> Result<()> {
        let Some(extent) = self.half_cut.take().and_then(|offset| self.extents.get(offset).copied()) else {
            return Ok(());
        };
        self.set_bounds(mapping, extent.offset, (extent.offset, extent.end()))
    }

    /// Lengthens an extent by free space after it, by at least `least` and at most `most` bytes, and returns its new
    /// end: the old one, if there is less within the limit and the file.
    pub(crate) fn lengthen(&mut self, mapping: &Mapping, offset: Offset, (least, most): (u64, u64)) -> Result<Offset> {
        let extent = self.extents.get(offset).copied();
        let end = extent.ok_or_else(|| mapping.corrupt(offset, "an extent of the log was expected here"))?.end();
        let behind = match end == self.extents.end() {
            true => self.end,
            false => self.extents.free().find(|&(start, _)| start == end).map_or(end, |(_, end)| end),
        };
        let longer = end + behind.bytes_since(end).min(most);
        let used = EXTENTS + self.used_bytes() + (longer - end);
        if longer - end < least || mapping.check_limit(longer - end, used, longer).is_err() {
            return Ok(end);
        }
        self.set_bounds(mapping, offset, (offset, longer))?;
        Ok(longer)
    }

    /// Frees the part of an extent after `end`.
    pub(crate) fn trim(&mut self, mapping: &Mapping, offset: Offset, end: Offset) -> Result<()> {
        self.set_bounds(mapping, offset, (offset, end))
    }

    /// Gives an extent another kind.
    pub(crate) fn set_kind(&mut self, mapping: &Mapping, offset: Offset, kind: ExtentKind, seq: Seq) -> Result<()> {
        let table = Table::open(mapping, mapping.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        self.change(mapping, |space| {
            let changed = space.extents.change(offset, |extent| {
                (extent.kind, extent.count) = (kind, seq.count());
            });
            changed.map_or(Ok(()), |extent| list(&table, &extent))
        })
    }

    /// Frees an extent that no reader can be using.
    pub(crate) fn free(&mut self, mapping: &Mapping, offset: Offset) -> Result<()> {
        let table = Table::open(mapping, mapping.live(live::SPACE_TABLE)?, SPACE_TABLE_MAGIC)?;
        self.change(mapping, |space| {
            if let Some(extent) = space.extents.remove(offset) {
                table.set_word(extent.entry, 1, 0)?;
                space.vacant.push(extent.entry);
            }
            Ok(())
        })
    }

    /// Makes one change of the table, between two steps of the counter of changes.
    fn change<R>(&mut self, mapping: &Mapping, make: impl FnOnce(&mut Space) -> Result<R>) -> Result<R> {
        // Odd already, if a process died in the middle of a change.
        let odd = mapping.live(live::SPACE_CHANGES)?.wrapping_add(1) | 1;
        mapping.store_seal(seal::SPACE, odd.wrapping_add(1))?;
        mapping.store_live(live::SPACE_CHANGES, odd, Ordering::Relaxed)?;
        fence(Ordering::Release);
        let made = make(self);
        self.changes = odd.wrapping_add(1);
        mapping.store_live(live::SPACE_CHANGES, self.changes, Ordering::Release)?;
        made
    }

    /// The bytes that wait, given that no pin is below `unread_below` and the log of the flushed superblock begins at
    /// `durable_head`; and the extents that need not wait any longer.
    pub(crate) fn waiting(&self, unread_below: u64, durable_head: LogPoint) -> (Waiting, Vec<Extent>) {
        let mut waiting = Waiting::default();
        let mut unused = Vec::new();
        for extent in self.extents.waiting() {
            match extent.kind {
                ExtentKind::Emptied if durable_head.rest_of(extent).is_some() => waiting.checkpoint += extent.len(),
                _ if extent.count <= unread_below => unused.push(*extent),
                _ => waiting.pins += extent.len(),
            }
        }
        (waiting, unused)
    }

    /// Frees the extents that need not wait any longer, given that no pin is below `unread_below` and the log of the
    /// flushed superblock begins at `durable_head`. Returns what has to wait.
    pub(crate) fn reclaim(&mut self, mapping: &Mapping, unread_below: u64, durable_head: LogPoint) -> Result<Waiting> {
        let (waiting, unused) = self.waiting(unread_below, durable_head);
        unused.into_iter().try_for_each(|extent| self.free(mapping, extent.offset))?;
        Ok(waiting)
    }

    /// Makes the file end after the last extent in use; returns how many bytes shorter it is. Nothing is read past that
    /// end.
    pub(crate) fn truncate(&mut self, mapping: &Mapping) -> Result<u64> {
        let end = self.used_end();
        // Even if the file cannot be shortened now, another process may shorten it.
        self.end = self.end.min(end);
        self.change(mapping, |_| mapping.truncate(end.0))
    }

    /// Moves the table to a lower place if there is one.
    pub(crate) fn settle_table(&mut self, mapping: &Mapping, seq: Seq) -> Result<()> {
        let entries = self.extents.count() + 16;
        let blocks = blocks_of_table(entries);
        let old = mapping.live(live::SPACE_TABLE)?;
        if blocks < extent_blocks(old) || self.lowest(blocks * BLOCK).0 < Offset::of_extent_word(old) {
            self.replace_table(mapping, entries, seq)?;
        }
        Ok(())
    }

    /// Moves the table to a new extent with room for `entries`. The old one is retired.
    fn replace_table(&mut self, mapping: &Mapping, entries: u64, seq: Seq) -> Result<()> {
        let blocks = blocks_of_table(entries);
        let offset = self.find_or_grow(mapping, blocks, Fit::Lowest)?;
        let table = Table::create(mapping, offset, blocks, SPACE_TABLE_MAGIC)?;
        let old = mapping.live(live::SPACE_TABLE)?;
        for extent in self.extents.number() {
            list(&table, extent)?;
        }
        let entry = self.extents.count();
        let (kind, count) = (ExtentKind::Table, seq.count());
        let own = Extent { offset, blocks, kind, count, ordinal: 0, entry };
        list(&table, &own)?;
        self.extents.insert(own);
        self.vacant = (entry + 1..table.capacity()).rev().collect();
        self.change(mapping, |_| {
            mapping.store_live(live::SPACE_TABLE, table_word(offset.0, blocks), Ordering::Release)
        })?;
        if old != 0 && self.extents.get(Offset::of_extent_word(old)).is_some() {
            self.set_kind(mapping, Offset::of_extent_word(old), ExtentKind::Retired, seq)?;
        }
        Ok(())
    }
}

/// The end of the longest file within the limit, before its seal.
fn below_limit(mapping: &Mapping) -> Offset {
    Offset(mapping.max_len().saturating_sub(BLOCK))
}

fn blocks_of_table(entries: u64) -> u64 {
    (TABLE_HEADER + entries * SPACE_ENTRY).div_ceil(BLOCK)
}

/// Writes the entry of an extent; it counts from the last store on.
fn list(table: &Table<'_>, extent: &Extent) -> Result<()> {
    table.set_word(extent.entry, 2, extent.ordinal)?;
    table.set(extent.entry, (extent.place(), state_word(extent.kind, extent.count)), 1)
}

/// The content of the table that `word` finds at one moment, for a caller without the writer lock. `None` if it keeps
/// changing, or a change does not end.
pub(crate) fn read(mapping: &Mapping, word: impl Fn() -> Result<u64>) -> Result<Option<Space>> {
    for attempt in 0..ATTEMPTS {
        if attempt > 10 {
            std::thread::yield_now();
        }
        let before = mapping.live(live::SPACE_CHANGES)?;
        let space = Space::load_copy(mapping, word()?);
        fence(Ordering::SeqCst);
        if before.is_multiple_of(2) && mapping.live_word(live::SPACE_CHANGES)?.relaxed() == before {
            return space.map(Some);
        }
    }
    Ok(None)
}

/// How often [`read`] tries.
const ATTEMPTS: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::super::layout::extent_word;
    use super::*;

    fn log_of(blocks: u64) -> LogExtent {
        LogExtent { start: Offset::EXTENTS, end: Offset::EXTENTS + blocks * BLOCK, seq: Seq(5) }
    }

    #[test]
    fn a_cut_that_was_begun_is_completed() {
        let mapping = Mapping::in_memory(1 << 24).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 16 * BLOCK).unwrap();
        let mut space = Space::create(&mapping, &[log_of(16)], 1, Seq(5)).unwrap();
        // A process has listed the part to cut off, and died.
        let word = mapping.live(live::SPACE_TABLE).unwrap();
        let table = Table::open(&mapping, word, SPACE_TABLE_MAGIC).unwrap();
        let entry = space.vacant.pop().unwrap();
        table.set_word(entry, 2, 1).unwrap();
        table.set(entry, (extent_word(EXTENTS, 4), state_word(ExtentKind::Emptied, 6)), 1).unwrap();
        let log = |space: &Space| space.extents().find(|extent| extent.is_log()).map(|log| (log.offset, log.end()));
        let cut = Some((Offset::EXTENTS + 4 * BLOCK, Offset::EXTENTS + 16 * BLOCK));
        let mut space = Space::load(&mapping, word).unwrap();
        assert_eq!(log(&space), cut);
        space.mend(&mapping).unwrap();
        // When that is used again, the rest must not claim it any more.
        space.free(&mapping, Offset::EXTENTS).unwrap();
        space.allocate(&mapping, (4, Fit::Lowest), ExtentKind::Table, Seq(7)).unwrap();
        assert_eq!(log(&Space::load(&mapping, word).unwrap()), cut);
    }

    /// Only there has it got real space, and settling looks for a lower place.
    #[test]
    fn the_table_lies_in_the_lowest_run_that_is_long_enough() {
        let mapping = Mapping::in_memory(1 << 24).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 16 * BLOCK).unwrap();
        let of = |first: u64, end: u64| LogExtent {
            start: Offset::EXTENTS + first * BLOCK,
            end: Offset::EXTENTS + end * BLOCK,
            seq: Seq(5),
        };
        // A run of three blocks, and then one of a single block.
        let mut space = Space::create(&mapping, &[of(3, 8), of(9, 16)], 1, Seq(5)).unwrap();
        let place = |mapping: &Mapping| Offset::of_extent_word(mapping.live(live::SPACE_TABLE).unwrap());
        assert_eq!(place(&mapping), Offset::EXTENTS);
        space.replace_table(&mapping, 20, Seq(6)).unwrap();
        assert_eq!(place(&mapping), Offset::EXTENTS + BLOCK);
    }

    #[test]
    fn what_lies_beyond_the_limit_is_not_for_growth() {
        let mapping = Mapping::in_memory(EXTENTS + 16 * BLOCK).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 12 * BLOCK).unwrap();
        let mut space = Space::create(&mapping, &[log_of(12)], 1, Seq(5)).unwrap();
        let is_full = |space: &mut Space| {
            matches!(space.allocate(&mapping, (2, Fit::Lowest), ExtentKind::Log, Seq(6)), Err(Error::Full { .. }))
        };
        while !is_full(&mut space) {}
        let mut beyond = || space.allocate(&mapping, (2, Fit::Lowest), ExtentKind::Index, Seq(7)).unwrap().offset;
        let free = mapping.exceeding(8 * BLOCK, || [beyond(), beyond()][0]);
        // A run before what is in use, and in a file that is long enough.
        space.free(&mapping, free).unwrap();
        assert!(is_full(&mut space));
        assert_eq!(
            mapping
                .exceeding(8 * BLOCK, || space.allocate(&mapping, (2, Fit::Lowest), ExtentKind::Log, Seq(8)))
                .unwrap()
                .offset,
            free
        );
    }

    #[test]
    fn in_a_file_that_is_too_long_a_free_run_below_the_limit_comes_first() {
        let mapping = Mapping::in_memory(EXTENTS + 16 * BLOCK).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 4 * BLOCK).unwrap();
        let mut space = Space::create(&mapping, &[log_of(4)], 1, Seq(5)).unwrap();
        let take = |space: &mut Space, wanted: (u64, Fit)| {
            space.allocate(&mapping, wanted, ExtentKind::Index, Seq(6)).map(|extent| extent.offset)
        };
        let all =
            mapping.exceeding(8 * BLOCK, || [6, 1, 4, 2, 1].map(|blocks| take(&mut space, (blocks, Fit::Lowest))));
        let [below, _, _, beyond, _] = all.map(Result::unwrap);
        assert!(beyond >= Offset::EXTENTS + 16 * BLOCK);
        space.free(&mapping, below).unwrap();
        space.free(&mapping, beyond).unwrap();
        // The other one is shorter.
        assert_eq!(take(&mut space, (2, Fit::Shortest)).unwrap(), below);
        space.free(&mapping, below).unwrap();
        // No cell of a grid of four blocks is free, so a run is taken that is none, rather than a longer file.
        assert_eq!(space.free_cells(&mapping, 4 * BLOCK), 0);
        let cell = mapping.exceeding(8 * BLOCK, || take(&mut space, (4, Fit::Cell(Offset::NONE))));
        assert_eq!(cell.unwrap(), below);
    }

    #[test]
    fn the_log_takes_shorter_runs_rather_than_a_longer_file() {
        let mapping = Mapping::in_memory(1 << 25).unwrap();
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 128 * BLOCK).unwrap();
        let mut space = Space::create(&mapping, &[log_of(128)], 1, Seq(5)).unwrap();
        let usual = space.log_extent_len(100, (BLOCK, 8 * BLOCK));
        assert_eq!(usual, 8 * BLOCK);
        let free = space.allocate(&mapping, (10, Fit::Lowest), ExtentKind::Table, Seq(5)).unwrap();
        space.allocate(&mapping, (1, Fit::Lowest), ExtentKind::Table, Seq(5)).unwrap();
        space.free(&mapping, free.offset).unwrap();
        assert_eq!(space.log_extent_len(100, (BLOCK, 8 * BLOCK)), 8 * BLOCK);
        assert_eq!(space.log_extent_len(100, (BLOCK, 16 * BLOCK)), 16 * BLOCK, "it is too short");
        assert_eq!(
            space.log_extent_len(50 * BLOCK, (BLOCK, 8 * BLOCK)),
            50 * BLOCK,
            "a long record has one of its own"
        );
        // With extents of usually 112 blocks, a record of 14 is not long, but longer than the run.
        mapping.allocate(Offset::EXTENTS, Offset::EXTENTS + 7400 * BLOCK).unwrap();
        space.allocate(&mapping, (7168 - 128, Fit::Lowest), ExtentKind::Log, Seq(5)).unwrap();
        assert_eq!(space.log_extent_len(9 * BLOCK, (BLOCK, 8 * BLOCK)), 10 * BLOCK);
        assert_eq!(
            space.log_extent_len(14 * BLOCK, (BLOCK, 8 * BLOCK)),
            112 * BLOCK,
            "the run is too short for the record"
        );
        assert_eq!(space.lowest_run(2 * BLOCK, 8 * BLOCK), 8 * BLOCK);
        assert_eq!(space.lowest_run(2 * BLOCK, 64 * BLOCK), 10 * BLOCK);
        assert_eq!(space.lowest_run(11 * BLOCK, 64 * BLOCK), 64 * BLOCK);
    }
}
