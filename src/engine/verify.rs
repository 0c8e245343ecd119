//! Verifying: everything that the invariants say, held against the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use zerocopy::FromBytes;

use super::Engine;
use super::recovery::head as recovery_head;
use crate::error::Result;
use crate::file::index::{Index, Probe};
use crate::file::layout::{
    COUNT_BITS, CREATION_MAGIC, ExtentKind, KeyHash, Kind, RegionHeader, SUPERBLOCK_A, SUPERBLOCK_B, Superblock,
    extent_offset, flags, lines_of_blocks, live, writer_lock,
};
use crate::file::log::{self, Head, Walk};
use crate::file::space::Space;

/// So many findings are kept; of more, only the number.
const KEPT: usize = 1000;

/// What [`Store::verify`](crate::Store::verify) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    findings: Vec<Finding>,
    count: u64,
    records: u64,
    keys: u64,
}

impl VerifyReport {
    /// Whether everything holds.
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }

    /// What does not hold; the first thousand of it.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many things do not hold.
    pub fn finding_count(&self) -> u64 {
        self.count
    }

    /// Records of the log that were checked.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Keys, over all maps, whose values were found.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    fn add(&mut self, offset: u64, what: impl Into<String>) {
        self.count += 1;
        if self.findings.len() < KEPT {
            self.findings.push(Finding { offset, what: what.into() });
        }
    }
}

/// One thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What was expected and what was found.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at offset {}: {}", self.offset, self.what)
    }
}

/// What the log says of a map.
#[derive(Default)]
struct Derived {
    /// Keys that have a value.
    keys: u64,
    /// Records that a slot points at.
    slots: u64,
    /// Those among them that hold a value.
    reached: u64,
    /// The bytes of these.
    bytes: u64,
}

impl Engine {
    /// Checks superblocks, extents, all records and all slots. Writers wait meanwhile; a store that is opened for reading
    /// cannot make them, and looks again if somebody has written.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        if !self.read_only {
            self.acquire_to_look()?;
            let report = self.verify_once(&self.writer().space);
            self.release();
            return report;
        }
        let start = Instant::now();
        loop {
            let before = self.region.live(live::WRITER_LOCK)?;
            let space = self.space_now()?;
            // Nothing is reused while it looks.
            let pin = self.pin()?;
            let report = space.as_ref().map(|space| self.verify_once(space));
            self.unpin(&pin);
            fence(Ordering::Acquire);
            let undisturbed = !self.is_live()?
                || writer_lock::is_free(before) && self.region.live(live::WRITER_LOCK)? as u32 == before as u32;
            match report {
                Some(report) if undisturbed => return report,
                _ if start.elapsed() >= self.settings.lock_timeout => return Err(self.lock_timeout(start.elapsed())),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn verify_once(&self, space: &Space) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        match self.verify_all(space, &mut report) {
            Ok(()) => Ok(report),
            // Damage that stops the check is what was looked for.
            Err(crate::Error::Corrupt { offset, what, .. }) => {
                report.add(offset, what);
                Ok(report)
            }
            Err(error) => Err(error),
        }
    }

    fn verify_all(&self, space: &Space, report: &mut VerifyReport) -> Result<()> {
        self.verify_superblocks(report)?;
        let maps: BTreeMap<u32, Index<'_>> = self.maps()?.into_iter().collect();
        let derived = self.verify_log(space, &maps, report)?;
        self.verify_extents(space, &maps, report)?;
        for (map, index) in &maps {
            self.verify_index(space, *map, index, derived.get(map), report)?;
        }
        Ok(())
    }

    fn verify_superblocks(&self, report: &mut VerifyReport) -> Result<()> {
        if self.superblock()?.is_clean() {
            // The other one may be torn: the power was cut while it was written. The first change writes over it.
            return Ok(());
        }
        for offset in [SUPERBLOCK_A, SUPERBLOCK_B] {
            let bytes = self.region.frozen(offset, size_of::<Superblock>() as u64)?;
            // A new store has only one, and in the place of the other the mark of its creation.
            let rest = bytes.strip_prefix(&CREATION_MAGIC).filter(|_| offset == SUPERBLOCK_A).unwrap_or(bytes);
            let never_written = rest.iter().all(|&byte| byte == 0);
            if !never_written && !Superblock::read_from_bytes(bytes).is_ok_and(|superblock| superblock.holds()) {
                report.add(offset, "the CRC of the superblock does not hold");
            }
        }
        Ok(())
    }

    /// Walks the log and finds for each record whether its slot points at it.
    fn verify_log(
        &self,
        space: &Space,
        maps: &BTreeMap<u32, Index<'_>>,
        report: &mut VerifyReport,
    ) -> Result<BTreeMap<u32, Derived>> {
        let (head, end, visible) = self.log_bounds()?;
        if head != recovery_head(&self.superblock()?) {
            // After the next close, the log would be looked for where the superblock says.
            report.add(head.at, "the superblock has the log begin elsewhere, or with another record");
        }
        let mut derived: BTreeMap<u32, Derived> = BTreeMap::new();
        let (mut bytes, mut records) = (0, 0);
        let mut visited = BTreeSet::new();
        let mut walk = Walk::new(&self.region, head, Some(end));
        for record in walk.by_ref() {
            bytes += record.len();
            records += 1;
            match space.log_extent_of(record.offset).filter(|extent| record.end() <= extent.end()) {
                Some(extent) => visited.insert(extent.offset),
                None => {
                    report.add(record.offset, "the record lies in no extent of the log");
                    continue;
                }
            };
            let map = record.header.map();
            let of_map = derived.entry(map).or_default();
            match record.kind() {
                Some(Kind::Clear) => *of_map = Derived::default(),
                Some(kind @ (Kind::Put | Kind::Remove)) => {
                    let is_new = record.header.flags & flags::NEW != 0;
                    match kind {
                        Kind::Put => of_map.keys += u64::from(is_new),
                        _ if of_map.keys == 0 => report.add(record.offset, "the removal of a key that is not there"),
                        _ => of_map.keys -= 1,
                    }
                    let Some(index) = maps.get(&map) else { continue };
                    let hash = KeyHash::of(record.key(), self.seed);
                    match self.probe(index, map, hash, record.key())? {
                        Some(Probe::Found(_, newest)) if newest == record.offset => {
                            of_map.slots += 1;
                            if kind == Kind::Put {
                                of_map.reached += 1;
                                of_map.bytes += record.len();
                            }
                        }
                        Some(Probe::Found(_, newest)) if newest == record.header.prev() => {
                            report.add(record.offset, "the slot points at the record that this one replaces");
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        visited.extend(space.log_extent_of(end).map(|extent| extent.offset));
        for extent in space.extents().filter(|extent| extent.is_log() && !visited.contains(&extent.offset)) {
            report.add(extent.offset, "the log does not lead to this extent of it");
        }
        if walk.at() != end {
            report.add(walk.at(), format!("the log ends here and should end at {end}: {}", walk.stop()));
        } else if !walk.is_between_commits() {
            report.add(walk.at(), "the log ends within a commit");
        } else if walk.last_crc() != self.chain()? {
            report.add(walk.at(), "the next record would not follow the last one (chain)");
        } else if walk.last_seq() > visible || walk.last_seq() >> COUNT_BITS != visible >> COUNT_BITS {
            // Numbers may be skipped, but not those of a whole incarnation.
            let what =
                format!("the last commit has number {:#x}, which does not lead to {visible:#x}", walk.last_seq());
            report.add(walk.at(), what);
        } else {
            let [_, counted_bytes, counted_records] = self.log_size()?;
            if (counted_bytes, counted_records) != (bytes, records) {
                let what = format!(
                    "the log has {records} records of {bytes} bytes, and counts {counted_records} of {counted_bytes}"
                );
                report.add(live::LOG_TOTALS, what);
            }
        }
        report.records = records;
        Ok(derived)
    }

    fn verify_extents(&self, space: &Space, maps: &BTreeMap<u32, Index<'_>>, report: &mut VerifyReport) -> Result<()> {
        let mut last = 0;
        for extent in space.extents() {
            if extent.offset < last {
                report.add(extent.offset, "two extents overlap");
            }
            last = extent.end();
        }
        if last > self.region.refresh()? {
            report.add(last, "an extent reaches beyond the end of the file");
        }
        let kind_at = |offset| space.extent(offset).map(|extent| extent.kind);
        for index in maps.values() {
            if kind_at(index.offset()) != Some(ExtentKind::Index) {
                report.add(index.offset(), "the region of a map is in no extent of its kind");
            }
        }
        for word in [self.map_table_word()?, self.space_table_word()?] {
            if kind_at(extent_offset(word)) != Some(ExtentKind::Table) {
                report.add(extent_offset(word), "a table is in no extent of its kind");
            }
        }
        Ok(())
    }

    /// Holds what the slots and counters of a map say against what the log says.
    fn verify_index(
        &self,
        space: &Space,
        map: u32,
        index: &Index<'_>,
        derived: Option<&Derived>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let nothing = Derived::default();
        let derived = derived.unwrap_or(&nothing);
        let at = index.offset();
        self.verify_region(space, map, index, report)?;
        let (mut slots, mut dead) = (0, 0);
        for slot in index.iter() {
            let slot = slot?;
            let Some(offset) = slot.record else {
                dead += 1;
                continue;
            };
            slots += 1;
            // A search looks at the tag only, a rebuild of the index at all the bits.
            if log::record(&self.region, offset).is_ok_and(|record| KeyHash::of(record.key(), self.seed) != slot.hash) {
                report.add(at, format!("map {map}: the slot of the record at offset {offset} has another key's hash"));
            }
        }
        let totals = index.totals()?;
        if derived.reached != derived.keys {
            let (reached, keys) = (derived.reached, derived.keys);
            report.add(at, format!("map {map}: the log has {keys} keys, and the index leads to {reached} of them"));
        }
        // Each record of the log was asked whether its slot points at it; a slot that is left over points elsewhere.
        if derived.slots != slots {
            let good = derived.slots;
            report.add(at, format!("map {map}: of {slots} slots, {good} point at the newest record of their key"));
        }
        if (totals.keys, totals.bytes) != (derived.keys, derived.bytes) {
            let what = format!(
                "map {map}: counts {} keys of {} bytes, and has {} of {}",
                totals.keys, totals.bytes, derived.keys, derived.bytes
            );
            report.add(at, what);
        }
        if totals.used() < slots + dead {
            report.add(at, format!("map {map}: counts fewer used slots than the {} there are", slots + dead));
        }
        report.keys += derived.reached;
        Ok(())
    }

    /// Checks the header of a region.
    fn verify_region(&self, space: &Space, map: u32, index: &Index<'_>, report: &mut VerifyReport) -> Result<()> {
        let at = index.offset();
        let visible = self.visible()?;
        let header: &RegionHeader = self.region.header(at)?;
        let extent = space.extent(at);
        if header.map.get() != u64::from(map) {
            report.add(at, format!("the region of map {map} says that it is that of map {}", header.map.get()));
        }
        let blocks = header.blocks.get();
        if extent.is_none_or(|extent| extent.blocks != blocks) || lines_of_blocks(blocks.max(1)) != index.lines() {
            report.add(at, format!("map {map}: the region has another size than its extent"));
        }
        if index.since() > visible || index.totals()?.seq > visible {
            report.add(at, format!("map {map}: the region is from a commit that is still to come"));
        }
        Ok(())
    }

    /// What the next record of the log will say of the one before it.
    fn chain(&self) -> Result<u32> {
        if !self.is_live()? {
            return Ok(self.superblock()?.end_chain.get());
        }
        Ok(self.region.live(live::CHAIN)? as u32)
    }

    /// Where the log begins and ends, and its last sequence number.
    fn log_bounds(&self) -> Result<(Head, u64, u64)> {
        if let Some(frozen) = self.frozen()? {
            let superblock = self.superblock()?;
            return Ok((recovery_head(&superblock), superblock.log_end.get(), frozen.visible));
        }
        let head = Head {
            at: self.region.live(live::LOG_HEAD)?,
            extent: self.region.live(live::HEAD_EXTENT)?,
            chain: self.region.live(live::HEAD_CHAIN)? as u32,
            seq: self.region.live(live::HEAD_SEQ)?,
        };
        Ok((head, self.region.live(live::TAIL)?, self.region.live(live::VISIBLE)?))
    }

    /// The counters of the whole log: {seq, bytes, records}.
    pub(crate) fn log_size(&self) -> Result<[u64; 3]> {
        if !self.is_live()? {
            let superblock = self.superblock()?;
            return Ok([superblock.next_seq.get() - 1, superblock.log_bytes.get(), superblock.log_records.get()]);
        }
        self.log_totals()
    }
}
