//! The parts of a check with a single subject: superblocks, extents, counters, catalogue, the ends of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::report::VerifyReport;
use crate::engine::Engine;
use crate::engine::state::head::LogHead;
use crate::engine::state::superblocks::fields_are_sane;
use crate::engine::state::words::LogSize;
use crate::engine::write::regions::id_in;
use crate::error::{Error, Result};
use crate::file::index::Index;
use crate::file::layout::{
    BLOCK, CATALOGUE, CREATION_MAGIC, DEFAULT_MAP, ExtentKind, Kind, MAX_FILE_LEN, MapId, NEXT_ID, Offset,
    RegionHeader, SUPERBLOCK_A, SUPERBLOCK_B, Seq, Superblock, is_name, lines_of_blocks, live, writer_lock,
};
use crate::file::log::{self, Head, Record, Walk};
use crate::file::space::{Extent, Space};

/// How long a check waits for a moment without writers.
pub(super) const MOMENT: Duration = Duration::from_millis(20);

/// How often a read-only process looks for such a moment.
const LOOKS: u32 = 20;

/// Where the log begins and ends.
pub(super) struct LogBounds {
    pub(super) head: LogHead,
    pub(super) end: Offset,
    /// The sequence number of its last commit.
    visible: Seq,
}

impl Engine {
    /// Checks the tables that say where everything is, and have no versions, at a moment without writers. Says whether
    /// there was such a moment.
    pub(super) fn verify_tables(&self, report: &mut VerifyReport) -> Result<bool> {
        let look = |space: &Space| -> Result<VerifyReport> {
            let mut found = VerifyReport::default();
            let maps: BTreeMap<MapId, Index<'_>> = self.maps()?.into_iter().collect();
            self.verify_extents(space, &maps, &mut found)?;
            self.verify_catalogue(&maps, &mut found)?;
            self.verify_totals(&mut found)?;
            Ok(found)
        };
        self.verify_superblocks(report)?;
        if !self.read_only {
            return match self.turn_to_look(MOMENT.min(self.settings.lock_timeout)) {
                Ok(_turn) => {
                    report.append(look(&self.known_space()?)?);
                    Ok(true)
                }
                Err(error) if self.is_turn_of_another(&error) => Ok(false),
                Err(error) => Err(error),
            };
        }
        for _ in 0..LOOKS {
            let before = self.mapping.live(live::WRITER_LOCK)?;
            if writer_lock::is_free(before)
                && let Some(space) = self.space_now()?
            {
                let pin = self.pin()?;
                let found = look(&space);
                drop(pin);
                fence(Ordering::Acquire);
                if self.mapping.live(live::WRITER_LOCK)? as u32 == before as u32 {
                    report.append(found?);
                    return Ok(true);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }

    /// The table of extents. The caller holds the writer lock.
    pub(super) fn known_space(&self) -> Result<Space> {
        Space::load(&self.mapping, self.space_table_word()?)
    }

    pub(super) fn verify_superblocks(&self, report: &mut VerifyReport) -> Result<()> {
        if self.superblock()?.is_clean() || self.mapping.file().is_none() {
            // The other one may be torn: the power was cut while it was written. The first change overwrites it; where
            // the file was recovered into memory, it stays.
            return Ok(());
        }
        for offset in [SUPERBLOCK_A, SUPERBLOCK_B] {
            // The next checkpoint overwrites one of them: then it is checked again.
            let mut before = None;
            for _ in 0..LOOKS {
                let bytes = self.mapping.copy(Offset(offset), size_of::<Superblock>() as u64)?;
                if is_superblock(offset, &bytes) {
                    break;
                }
                if before.as_ref() == Some(&bytes) {
                    report.add(offset, "the CRC of the superblock does not hold");
                    break;
                }
                before = Some(bytes);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    pub(super) fn verify_extents(
        &self,
        space: &Space,
        maps: &BTreeMap<MapId, Index<'_>>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let mut last = Offset::NONE;
        for extent in space.extents() {
            if extent.offset < last {
                report.add(extent.offset, "two extents overlap");
            }
            last = extent.end();
        }
        if last.0 > self.mapping.refresh()? {
            report.add(last, "an extent reaches beyond the end of the file");
        }
        // The turn of a writer has given back what the dead had taken; a read-only process may still find it.
        if !self.read_only {
            for extent in self.uncommitted(space, self.visible()?)? {
                report.add(extent.offset, "an extent that a commit has taken that was never made");
            }
        }
        let mut indexes: BTreeSet<Offset> = maps.values().map(Index::offset).collect();
        indexes.extend(match self.is_live()? {
            true => self.resize_target()?,
            false => {
                let [cursor, target, _] = self.superblock()?.resize.map(U64::get);
                (cursor != 0).then_some(Offset::of_extent_word(target))
            }
        });
        for extent in space.extents().filter(|e| e.kind == ExtentKind::Index && !indexes.contains(&e.offset)) {
            report.add(extent.offset, "an index that belongs to no map");
        }
        let kind_at = |offset| space.extent(offset).map(|extent| extent.kind);
        for index in maps.values() {
            if kind_at(index.offset()) != Some(ExtentKind::Index) {
                report.add(index.offset(), "the region of a map is in no extent of its kind");
            }
        }
        for word in [self.map_table_word()?, self.space_table_word()?] {
            if kind_at(Offset::of_extent_word(word)) != Some(ExtentKind::Table) {
                report.add(Offset::of_extent_word(word), "a table is in no extent of its kind");
            }
        }
        let live = self.live_extents()?;
        for &offset in live.iter().filter(|&&offset| kind_at(offset) != Some(ExtentKind::Live)) {
            report.add(offset, "a table of the live area goes on in no extent of its kind");
        }
        let unnamed = |extent: &&Extent| extent.kind == ExtentKind::Live && !live.contains(&extent.offset);
        if self.is_live()? {
            for extent in space.extents().filter(unnamed) {
                report.add(extent.offset, "a table of the live area that no word names");
            }
        }
        Ok(())
    }

    pub(super) fn verify_totals(&self, report: &mut VerifyReport) -> Result<()> {
        if self.is_live()? && self.log_totals()?.seq > self.visible()? {
            // The next commits would go to the other bank, and not count.
            report.add(live::LOG_TOTALS, "the counters of the log are from a commit that is still to come");
        }
        let (counted, live_bytes) = (self.live_bytes()?, self.sum_of_live_bytes()?);
        if counted != live_bytes {
            report.add(live::LOG_TOTALS, format!("the maps have {live_bytes} bytes, and the log counts {counted}"));
        }
        Ok(())
    }

    /// Compares the maps of the catalogue with the existing ones.
    pub(super) fn verify_catalogue(&self, maps: &BTreeMap<MapId, Index<'_>>, report: &mut VerifyReport) -> Result<()> {
        self.verify_entries(|offset, what| report.add(offset, what))?;
        let mut named: BTreeSet<MapId> = self.maps_of_catalogue()?;
        // These two need no name.
        named.extend([CATALOGUE, DEFAULT_MAP]);
        let mut listed = BTreeSet::new();
        for id in named.iter().filter(|id| !maps.contains_key(id)) {
            report.add(live::MAP_TABLE, format!("map {id} is in the catalogue and has no index"));
        }
        let table = self.map_table()?;
        for entry in table.iter()? {
            if !listed.insert(entry.map) {
                report.add(live::MAP_TABLE, format!("map {} is in the map table twice", entry.map));
            } else if !table.is_found(entry)? {
                report
                    .add(live::MAP_TABLE, format!("map {} is in the map table where it is not looked for", entry.map));
            }
            if entry.dropped == named.contains(&entry.map) {
                let what = if entry.dropped { "is dropped and in the catalogue" } else { "is not in the catalogue" };
                report.add(entry.region(), format!("map {} {what}", entry.map));
            }
        }
        Ok(())
    }

    /// Checks all entries, and calls `add` with the place and the defect of each invalid one.
    pub(crate) fn verify_entries(&self, mut add: impl FnMut(u64, String)) -> Result<()> {
        let mut ids = BTreeSet::new();
        let mut next = (live::MAP_TABLE, DEFAULT_MAP.next());
        for slot in self.index_in_force(CATALOGUE)?.iter() {
            let Some(offset) = slot?.record else { continue };
            let record = log::record(&self.mapping, offset)?;
            if record.kind() != Some(Kind::Put) {
                continue;
            }
            if record.expires().is_some() {
                add(offset.0, "an entry of the catalogue expires".to_owned());
            }
            if record.key() == NEXT_ID {
                next = (offset.0, id_in(record));
            }
            if !is_name(record.key()) {
                continue;
            }
            match self.named_by(record) {
                Ok(named) if ids.insert(named.id) => {}
                Ok(named) => add(offset.0, format!("map {} is in the catalogue twice", named.id)),
                Err(Error::Corrupt { offset, what, .. }) => add(offset, what.into()),
                Err(error) => return Err(error),
            }
        }
        let largest = self.map_table()?.iter()?.map(|entry| entry.map).max().unwrap_or(DEFAULT_MAP);
        if next.1 <= largest {
            add(next.0, format!("the next map would get the number {}, and there is one with {largest}", next.1));
        }
        Ok(())
    }

    /// Checks where the log begins, and returns where it begins for the superblock.
    pub(super) fn verify_head(&self, bounds: &LogBounds, space: &Space, report: &mut VerifyReport) -> Result<LogHead> {
        let &LogBounds { ref head, end, visible } = bounds;
        if head.head.seq > visible.next() || head.head.seq.incarnation() != visible.incarnation() && head.head.at == end
        {
            report.add(live::HEAD, "the head of the log has a number that is still to come");
        }
        let superblock = self.superblock()?;
        let durable = LogHead::of_superblock(&superblock);
        if !fields_are_sane(&Superblock { next_seq: visible.next().to_field(), ..head.put_into(superblock) }) {
            report.add(live::HEAD, "a superblock with this head of the log would contradict itself");
        }
        if superblock.is_clean() && head.head != durable.head {
            // An opening looks for the log where the superblock says.
            report.add(head.head.at, "the superblock has the log begin elsewhere, or with another record");
        }
        for LogHead { head, ordinal, .. } in [head, &durable] {
            let extent = space.extent_of(head.at).filter(|extent| extent.has_records());
            if extent.is_none_or(|extent| extent.ordinal != *ordinal) {
                report.add(head.at, "the head of the log is not in the extent with its ordinal");
            }
        }
        Ok(durable)
    }

    /// Checks where a walk along the log has ended, and how much it has passed.
    pub(super) fn verify_end(
        &self,
        walk: &Walk<'_>,
        bounds: &LogBounds,
        passed: LogSize,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let &LogBounds { end, visible, .. } = bounds;
        if walk.at() != end {
            report.add(walk.at(), format!("the log ends here and should end at {end}: {}", walk.stop()));
        } else if !walk.is_between_commits() {
            report.add(walk.at(), "the log ends within a commit");
        } else if walk.last_crc() != self.chain()? {
            report.add(walk.at(), "the next record would not follow the last one (chain)");
        } else if walk.last_seq() > visible || walk.last_seq().incarnation() != visible.incarnation() {
            // Numbers may be skipped, but not those of a whole incarnation.
            let last = walk.last_seq();
            report.add(walk.at(), format!("the last commit has number {last:#x}, which does not lead to {visible:#x}"));
        } else {
            let counted = self.log_size()?;
            if counted != passed {
                let what = format!(
                    "the log has {} records of {} bytes, and counts {} of {}",
                    passed.records, passed.bytes, counted.records, counted.bytes
                );
                report.add(live::LOG_TOTALS, what);
            }
        }
        Ok(())
    }

    /// Checks the header of a region.
    pub(super) fn verify_region(
        &self,
        space: &Space,
        map: MapId,
        index: &Index<'_>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let at = index.offset();
        let visible = self.visible()?;
        // Word by word: the counters change, and in a read-only store, at any time.
        let word = |field: usize| self.mapping.load(at.0 + field as u64);
        let (of_map, blocks) = (word(offset_of!(RegionHeader, map))?, word(offset_of!(RegionHeader, blocks))?);
        let extent = space.extent(at);
        if of_map != u64::from(map) {
            report.add(at, format!("the region of map {map} says that it is that of map {of_map}"));
        }
        if extent.is_none_or(|extent| extent.blocks != blocks)
            || lines_of_blocks(blocks.clamp(1, MAX_FILE_LEN / BLOCK)) != index.lines()
        {
            report.add(at, format!("map {map}: the region has another size than its extent"));
        }
        if index.since() > visible || index.totals()?.seq > visible {
            report.add(at, format!("map {map}: the region is from a commit that is still to come"));
        }
        Ok(())
    }

    /// The chain that the next record of the log will have.
    fn chain(&self) -> Result<u32> {
        if !self.is_live()? {
            return Ok(self.superblock()?.end_chain.get());
        }
        Ok(self.mapping.live(live::CHAIN)? as u32)
    }

    pub(super) fn log_bounds(&self) -> Result<LogBounds> {
        let head = self.head()?;
        if let Some(at_rest) = self.at_rest()? {
            return Ok(LogBounds { head, end: self.superblock()?.log_end(), visible: at_rest.visible });
        }
        Ok(LogBounds {
            head,
            end: self.mapping.live_offset(live::TAIL)?,
            visible: self.mapping.live_seq(live::VISIBLE)?,
        })
    }
}

/// Whether a superblock is valid, or was never written.
fn is_superblock(offset: u64, bytes: &[u8]) -> bool {
    // A new store has only one; in the place of the other there is the mark of its creation.
    let rest = bytes.strip_prefix(&CREATION_MAGIC).filter(|_| offset == SUPERBLOCK_A).unwrap_or(bytes);
    rest.iter().all(|&byte| byte == 0) || Superblock::read_from_bytes(bytes).is_ok_and(|superblock| superblock.holds())
}

/// Checks the first record of the log.
pub(super) fn verify_first(record: Record<'_>, head: &Head, report: &mut VerifyReport) {
    if record.header.chain.get() != head.chain {
        report.add(record.offset, "the first record of the log follows another one than the head says (chain)");
    }
    let is_declared = record.kind() == Some(Kind::Incarnation) || record.seq().incarnation() == head.seq.incarnation();
    if record.seq() < head.seq || !is_declared {
        // The next superblock will have the log begin with that number.
        report.add(record.offset, "the first record of the log has a number that the head does not lead to");
    }
}
