//! Verifying: everything that the invariants say, held against the file.
//!
//! As long as nobody writes, the whole file is looked at, one slice after the other, so that nobody who wants to write
//! waits for more than a slice. When somebody has written in between, what was found so far is of no use: then one
//! commit is looked at that a pin keeps, whatever is written meanwhile ([`snapshot`](super::snapshot)). The
//! [`Pace`] knows which it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::pace::{Halt, Pace, Paced};
use crate::engine::Engine;
use crate::engine::state::head::LogHead;
use crate::engine::state::superblocks::fields_are_sane;
use crate::error::{Error, Result};
use crate::file::index::{Index, Probe};
use crate::file::layout::{
    BLOCK, CATALOGUE, COUNT_BITS, CREATION_MAGIC, DEFAULT_MAP, ExtentKind, KeyHash, Kind, LINE, MAX_FILE_LEN,
    RegionHeader, SUPERBLOCK_A, SUPERBLOCK_B, Superblock, extent_offset, lines_of_blocks, live, writer_lock,
};
use crate::file::log::{self, Head, Record, Walk};
use crate::file::space::{Extent, Space};

/// So many findings are kept; of more, only the number.
const KEPT: usize = 1000;

/// What [`Store::verify`](crate::Store::verify) found.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("Ada", "36")?;
/// store.insert("Ada", "37")?;
/// let report: slotlog::VerifyReport = store.verify()?;
/// assert!(report.is_clean());
/// assert!(report.findings().is_empty());
/// assert_eq!((report.finding_count(), report.keys()), (0, 1));
/// assert!(report.records() >= 2);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    findings: Vec<Finding>,
    count: u64,
    pub(crate) records: u64,
    pub(crate) keys: u64,
    scope: VerifyScope,
}

impl VerifyReport {
    /// Whether there are no findings.
    pub fn is_clean(&self) -> bool {
        self.count == 0
    }

    /// The findings; at most the first thousand.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The number of findings.
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

    /// How much was checked, which depends on whether others were writing.
    pub fn scope(&self) -> VerifyScope {
        self.scope
    }

    pub(crate) fn add(&mut self, offset: u64, what: impl Into<String>) {
        self.count += 1;
        if self.findings.len() < KEPT {
            self.findings.push(Finding { offset, what: what.into() });
        }
    }

    /// Adds the findings of another one.
    pub(crate) fn append(&mut self, other: VerifyReport) {
        self.count += other.count;
        let room = KEPT - self.findings.len();
        self.findings.extend(other.findings.into_iter().take(room));
    }
}

/// How much of a store a [`VerifyReport`] covers.
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::VerifyScope;
///
/// # let store = slotlog::Store::in_memory()?;
/// for number in 0..20_000u32 {
///     store.insert(number.to_le_bytes(), [7; 100])?;
/// }
/// assert_eq!(store.verify()?.scope(), VerifyScope::Everything);
///
/// // Another writer is at work meanwhile.
/// let report = store.verify_with(|_| match store.insert("now", "and then") {
///     Ok(()) => ControlFlow::Continue(()),
///     Err(_) => ControlFlow::Break(()),
/// })?;
/// assert_eq!((report.scope(), report.is_clean()), (VerifyScope::Snapshot, true));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyScope {
    /// The whole file: no process wrote meanwhile.
    Everything,
    /// One commit: its log, from the first record to the last, and everything the indexes say about it, with their
    /// counters. Others wrote meanwhile, so data without versions could not be checked at any time: an index under
    /// construction and what compaction has left before the head of the log were left out; the tables of extents and
    /// maps were checked if there was a moment for that.
    Snapshot,
    /// The check was [stopped](crate::Store::verify_with) early, or reached damage that it could not get past, which is
    /// then the last finding: parts without findings may not have been checked.
    #[default]
    Part,
}

/// How far a check has come; see [`Store::verify_with`](crate::Store::verify_with).
///
/// ```
/// use std::ops::ControlFlow;
/// use slotlog::{VerifyProgress, VerifyScope};
///
/// # let store = slotlog::Store::in_memory()?;
/// for number in 0..20_000u32 {
///     store.insert(number.to_le_bytes(), [7; 100])?;
/// }
/// let report = store.verify_with(|progress: VerifyProgress| {
///     if 2 * progress.done < progress.total { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// })?;
/// assert_eq!(report.scope(), VerifyScope::Part);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of log and indexes checked so far. It starts again, once, if a process writes.
    pub done: u64,
    /// The approximate total.
    pub total: u64,
}

/// One violated invariant.
///
/// ```
/// use slotlog::{Finding, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.slotlog");
/// let store = Store::open(&path)?;
/// store.insert("hello", "world")?;
/// store.close()?;
///
/// let mut bytes = std::fs::read(&path)?;
/// let at = bytes.windows(5).position(|five| five == b"world").ok_or("not found")?;
/// bytes[at] ^= 1;
/// std::fs::write(&path, bytes)?;
///
/// let report = Store::open(&path)?.verify()?;
/// let finding: &Finding = &report.findings()[0];
/// assert!(finding.offset <= at as u64);
/// assert_eq!(finding.to_string(), format!("at offset {}: {}", finding.offset, finding.what));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
pub(super) struct Derived {
    /// Records that a slot points at.
    pub(crate) slots: u64,
    /// Those among them that hold a value.
    pub(crate) reached: u64,
    /// The bytes of these.
    pub(crate) bytes: u64,
}

/// What the log says of all maps, as far as it was walked.
#[derive(Default)]
pub(super) struct Deriving {
    maps: BTreeMap<u32, Derived>,
    /// Keys that have a value and no slot: they have to be removed before the log ends.
    lost: BTreeSet<(u32, KeyHash, KeyHash)>,
}

impl Deriving {
    /// Takes the next record of a map into account. `lead` finds the record that the index has for its key.
    pub(crate) fn add(
        &mut self,
        engine: &Engine,
        record: Record<'_>,
        report: &mut VerifyReport,
        lead: impl FnOnce(KeyHash) -> Result<Option<u64>>,
    ) -> Result<()> {
        let Some(kind @ (Kind::Put | Kind::Remove | Kind::Clear)) = record.kind() else { return Ok(()) };
        let map = record.header.map();
        let of_map = self.maps.entry(map).or_default();
        if kind == Kind::Clear {
            *of_map = Derived::default();
            self.lost.retain(|&(other, ..)| other != map);
            return Ok(());
        }
        let hash = KeyHash::of(record.key(), engine.seed);
        match lead(hash)? {
            Some(found) if found == record.offset => {
                of_map.slots += 1;
                if kind == Kind::Put {
                    of_map.reached += 1;
                    of_map.bytes += record.counted_len();
                }
            }
            Some(found) => {
                // What `prev` leads to may be gone, and a newer record of the key in its place.
                let seq = log::record(&engine.region, found)?.seq();
                if seq < record.seq() || seq == record.seq() && found == record.header.prev() {
                    report.add(record.offset, "the slot points at a record that this one replaces");
                }
            }
            None => {
                // The hash with another seed, so that two keys are not taken for one.
                let key = (map, hash, KeyHash::of(record.key(), !engine.seed));
                if kind == Kind::Put {
                    self.lost.insert(key);
                } else {
                    self.lost.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// The log ends here.
    pub(crate) fn end(self, at: u64, report: &mut VerifyReport) -> BTreeMap<u32, Derived> {
        for (map, ..) in self.lost {
            report.add(at, format!("map {map}: a key of the log has no slot"));
        }
        self.maps
    }
}

/// Whether a superblock holds, or was never written.
fn is_superblock(offset: u64, bytes: &[u8]) -> bool {
    // A new store has only one, and in the place of the other the mark of its creation.
    let rest = bytes.strip_prefix(&CREATION_MAGIC).filter(|_| offset == SUPERBLOCK_A).unwrap_or(bytes);
    rest.iter().all(|&byte| byte == 0) || Superblock::read_from_bytes(bytes).is_ok_and(|superblock| superblock.holds())
}

/// How long a check waits for a moment in which nobody writes.
const MOMENT: Duration = Duration::from_millis(20);

/// How often one who cannot keep others from writing looks for such a moment.
const LOOKS: u32 = 20;

impl Engine {
    /// Checks everything, to its end.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(&mut |_| ControlFlow::Continue(()))
    }

    /// Checks superblocks, extents, all records and all slots; or if others write meanwhile, all records and all slots
    /// of one commit. `on_progress` is asked now and then whether to go on, at moments at which everybody can write.
    pub(crate) fn verify_with(
        &self,
        on_progress: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Result<VerifyReport> {
        self.check_not_forked()?;
        let mut report = VerifyReport::default();
        let mut halted = self.verify_quiet(on_progress, &mut report);
        if matches!(halted, Err(Halt::Disturbed)) {
            report = VerifyReport::default();
            halted = self.verify_snapshot(on_progress, &mut report);
        }
        match halted {
            Ok(scope) => report.scope = scope,
            Err(Halt::Stopped) => {}
            // Damage that stops the check is what was looked for.
            Err(Halt::Failed(Error::Corrupt { offset, what, .. })) => {
                report.add(offset, what);
            }
            Err(Halt::Failed(error)) => return Err(error),
            // Not one commit could be had before the next one.
            Err(Halt::Disturbed) => return Err(self.lock_timeout(self.settings.lock_timeout)),
        }
        Ok(report)
    }

    /// Checks everything, if nobody writes meanwhile.
    fn verify_quiet(
        &self,
        on_progress: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
        report: &mut VerifyReport,
    ) -> Paced<VerifyScope> {
        // Where it cannot keep others from writing, nothing is reused at least.
        let _pin = if self.read_only { Some(self.pin()?) } else { None };
        let mut pace = Pace::quiet(self, on_progress, MOMENT)?;
        let space = if self.read_only { self.space_now()?.ok_or(Halt::Disturbed)? } else { self.known_space()? };
        match self.verify_all(&space, &mut pace, report) {
            Err(Halt::Stopped) => Err(Halt::Stopped),
            // What others change under its eyes may look like anything.
            checked => pace.look().and(checked).map(|()| VerifyScope::Everything),
        }
    }

    fn verify_all(&self, space: &Space, pace: &mut Pace<'_>, report: &mut VerifyReport) -> Paced<()> {
        self.verify_superblocks(report)?;
        let maps: BTreeMap<u32, Index<'_>> = self.maps()?.into_iter().collect();
        pace.expect(self.log_size()?.0, maps.values())?;
        let derived = self.verify_log(space, &maps, pace, report)?;
        self.verify_extents(space, &maps, report)?;
        for (map, index) in &maps {
            self.verify_index(space, *map, index, derived.get(map), pace, report)?;
            self.verify_resize(*map, index, pace, report)?;
        }
        self.verify_catalogue(&maps, report)?;
        self.verify_totals(report)?;
        Ok(())
    }

    /// What says where everything is, and has no versions: looked at while nobody writes. Says whether there was such a
    /// moment.
    pub(super) fn verify_tables(&self, report: &mut VerifyReport) -> Result<bool> {
        let look = |space: &Space| -> Result<VerifyReport> {
            let mut found = VerifyReport::default();
            let maps: BTreeMap<u32, Index<'_>> = self.maps()?.into_iter().collect();
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
            let before = self.region.live(live::WRITER_LOCK)?;
            if writer_lock::is_free(before)
                && let Some(space) = self.space_now()?
            {
                let pin = self.pin()?;
                let found = look(&space);
                drop(pin);
                fence(Ordering::Acquire);
                if self.region.live(live::WRITER_LOCK)? as u32 == before as u32 {
                    report.append(found?);
                    return Ok(true);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }

    /// What the table of extents says, for the holder of the writer lock.
    fn known_space(&self) -> Result<Space> {
        Space::load(&self.region, self.space_table_word()?)
    }

    fn verify_totals(&self, report: &mut VerifyReport) -> Result<()> {
        if self.is_live()? && self.log_totals()?[0] > self.visible()? {
            // The next commits would go to the other bank, and not count.
            report.add(live::LOG_TOTALS, "the counters of the log are from a commit that is still to come");
        }
        let (counted, live_bytes) = (self.live_bytes()?, self.sum_of_live_bytes()?);
        if counted != live_bytes {
            report.add(live::LOG_TOTALS, format!("the maps have {live_bytes} bytes, and the log counts {counted}"));
        }
        Ok(())
    }

    /// Holds the maps of the catalogue against those that there are.
    fn verify_catalogue(&self, maps: &BTreeMap<u32, Index<'_>>, report: &mut VerifyReport) -> Result<()> {
        self.verify_entries(|offset, what| report.add(offset, what))?;
        let mut named: BTreeSet<u32> = self.maps_of_catalogue()?;
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

    fn verify_superblocks(&self, report: &mut VerifyReport) -> Result<()> {
        if self.superblock()?.is_clean() || self.region.file().is_none() {
            // The other one may be torn: the power was cut while it was written. The first change writes over it; and
            // where the file was recovered into memory, nobody does.
            return Ok(());
        }
        for offset in [SUPERBLOCK_A, SUPERBLOCK_B] {
            // The next checkpoint writes over one of them: then it is looked at again.
            let mut before = None;
            for _ in 0..LOOKS {
                let bytes = self.region.copy(offset, size_of::<Superblock>() as u64)?;
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

    /// Looks at where the log begins, and says where it begins for the superblock.
    fn verify_head(
        &self,
        head: &LogHead,
        (end, visible): (u64, u64),
        space: &Space,
        report: &mut VerifyReport,
    ) -> Result<LogHead> {
        if head.head.seq > visible + 1 || head.head.seq >> COUNT_BITS != visible >> COUNT_BITS && head.head.at == end {
            report.add(live::HEAD, "the head of the log has a number that is still to come");
        }
        let superblock = self.superblock()?;
        let durable = LogHead::of_superblock(&superblock);
        if !fields_are_sane(&Superblock { next_seq: (visible + 1).into(), ..head.put_into(superblock) }) {
            report.add(live::HEAD, "a superblock with this head of the log would contradict itself");
        }
        if superblock.is_clean() && head.head != durable.head {
            // When it is opened, the log is looked for where the superblock says.
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

    /// Looks at where a walk along the log has ended, and at how much it has passed.
    fn verify_end(
        &self,
        walk: &Walk<'_>,
        (end, visible): (u64, u64),
        passed: (u64, u64),
        report: &mut VerifyReport,
    ) -> Result<()> {
        if walk.at() != end {
            report.add(walk.at(), format!("the log ends here and should end at {end}: {}", walk.stop()));
        } else if !walk.is_between_commits() {
            report.add(walk.at(), "the log ends within a commit");
        } else if walk.last_crc() != self.chain()? {
            report.add(walk.at(), "the next record would not follow the last one (chain)");
        } else if walk.last_seq() > visible || walk.last_seq() >> COUNT_BITS != visible >> COUNT_BITS {
            // Numbers may be skipped, but not those of a whole incarnation.
            let last = walk.last_seq();
            report.add(walk.at(), format!("the last commit has number {last:#x}, which does not lead to {visible:#x}"));
        } else {
            let counted = self.log_size()?;
            if counted != passed {
                let ((bytes, records), (counted_bytes, counted_records)) = (passed, counted);
                let what = format!(
                    "the log has {records} records of {bytes} bytes, and counts {counted_records} of {counted_bytes}"
                );
                report.add(live::LOG_TOTALS, what);
            }
        }
        Ok(())
    }

    /// Walks the log and finds for each record whether its slot points at it. What lies between the head of the
    /// superblock and the live one belongs to the log as well: a recovery would begin there.
    fn verify_log(
        &self,
        space: &Space,
        maps: &BTreeMap<u32, Index<'_>>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<BTreeMap<u32, Derived>> {
        let (head, end, visible) = self.log_bounds()?;
        let durable = self.verify_head(&head, (end, visible), space, report)?;
        let mut deriving = Deriving::default();
        let (mut bytes, mut records) = (0, 0);
        let mut visited = BTreeSet::new();
        let mut reached = head.head.at == end;
        let mut ordinal = 0;
        let mut walk = Walk::new(&self.region, durable.head, Some(end));
        for record in walk.by_ref() {
            pace.step(record.len())?;
            let extent_of = |at| space.extent_of(at).filter(|extent| extent.has_records());
            // A step of cleaning that was killed has cut the extent, and left the head in front of the cut.
            let ends_in = extent_of(record.end() - 1);
            match extent_of(record.offset) {
                Some(extent) if !reached || ends_in.is_some_and(|end| end.ordinal == extent.ordinal) => {
                    if extent.ordinal < ordinal {
                        report.add(extent.offset, "the extents of the log are not numbered in the order of the log");
                    }
                    ordinal = extent.ordinal;
                    visited.insert(extent.offset);
                    visited.extend(ends_in.map(|end| end.offset));
                }
                _ => {
                    report.add(record.offset, "the record lies in no extent of the log");
                    continue;
                }
            }
            if record.offset == head.head.at {
                reached = true;
                verify_first(record, &head.head, report);
            }
            if !reached {
                continue;
            }
            bytes += record.len();
            records += 1;
            let map = record.header.map();
            if let Some(index) = maps.get(&map) {
                deriving.add(self, record, report, |hash| {
                    let found = self.probe(index, map, hash, record.key())?;
                    Ok(if let Some(Probe::Found(_, newest)) = found { Some(newest) } else { None })
                })?;
            }
        }
        let derived = deriving.end(end, report);
        visited.extend(space.log_extent_of(end).map(|extent| extent.offset));
        for extent in space.extents().filter(|extent| extent.is_log() && !visited.contains(&extent.offset)) {
            report.add(extent.offset, "the log does not lead to this extent of it");
        }
        if !reached && walk.at() == end {
            report.add(head.head.at, "the log does not lead to its head");
        } else {
            self.verify_end(&walk, (end, visible), (bytes, records), report)?;
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
        // Whoever writes has given back what a dead one has left; and gives back what this says of others.
        if !self.read_only {
            for extent in self.uncommitted(space, self.visible()?)? {
                report.add(extent.offset, "an extent that a commit has taken that was never made");
            }
        }
        let mut indexes: BTreeSet<u64> = maps.values().map(Index::offset).collect();
        indexes.extend(match self.is_live()? {
            true => self.resize_target()?,
            false => {
                let [cursor, target, _] = self.superblock()?.resize.map(U64::get);
                (cursor != 0).then_some(extent_offset(target))
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
            if kind_at(extent_offset(word)) != Some(ExtentKind::Table) {
                report.add(extent_offset(word), "a table is in no extent of its kind");
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

    /// Holds what the slots and counters of a map say against what the log says.
    fn verify_index(
        &self,
        space: &Space,
        map: u32,
        index: &Index<'_>,
        derived: Option<&Derived>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<()> {
        let nothing = Derived::default();
        let derived = derived.unwrap_or(&nothing);
        let at = index.offset();
        self.verify_region(space, map, index, report)?;
        let (mut slots, mut dead) = (0, 0);
        for slot in index.iter() {
            let slot = slot?;
            pace.step(LINE)?;
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
        // Each record of the log was asked whether its slot points at it; a slot that is left over points elsewhere.
        if derived.slots != slots {
            let good = derived.slots;
            report.add(at, format!("map {map}: of {slots} slots, {good} point at the newest record of their key"));
        }
        if (totals.keys, totals.bytes) != (derived.reached, derived.bytes) {
            let what = format!(
                "map {map}: counts {} keys of {} bytes, and leads to {} of {}",
                totals.keys, totals.bytes, derived.reached, derived.bytes
            );
            report.add(at, what);
        }
        if totals.used() < slots + dead {
            report.add(at, format!("map {map}: counts fewer used slots than the {} there are", slots + dead));
        }
        if map != CATALOGUE {
            report.keys += derived.reached;
        }
        Ok(())
    }

    /// Holds what is being built against what it is built from.
    fn verify_resize(&self, map: u32, index: &Index<'_>, pace: &mut Pace<'_>, report: &mut VerifyReport) -> Paced<()> {
        if !self.is_live()? {
            return Ok(());
        }
        let Some((target, cursor)) = self.resize_to_mirror(index, map)? else { return Ok(()) };
        let at = target.offset();
        let mut used = 0;
        for slot in target.iter() {
            let slot = slot?;
            pace.step(LINE)?;
            used += 1;
            let Some(offset) = slot.record else { continue };
            let there = index.probe(slot.hash, |newest| Ok(newest == offset))?;
            if !matches!(there, Some(Probe::Found(..))) {
                report.add(at, format!("map {map}: the index that is being built leads to offset {offset}"));
            }
        }
        for slot in index.slots_of_lines(0, cursor) {
            let slot = slot?;
            pace.step(LINE)?;
            let Some(offset) = slot.record else { continue };
            let there = target.probe(slot.hash, |moved| Ok(moved == offset))?;
            let may_lack = log::record(&self.region, offset)?.kind() == Some(Kind::Remove);
            if !may_lack && !matches!(there, Some(Probe::Found(..))) {
                report.add(at, format!("map {map}: the index that is being built does not lead to offset {offset}"));
            }
        }
        if target.totals()?.used() < used {
            report.add(at, format!("map {map}: the index that is being built counts fewer slots than its {used}"));
        }
        Ok(())
    }

    /// Checks the header of a region.
    fn verify_region(&self, space: &Space, map: u32, index: &Index<'_>, report: &mut VerifyReport) -> Result<()> {
        let at = index.offset();
        let visible = self.visible()?;
        // Word by word: the counters among them change, and in a store that is opened for reading, at any time.
        let word = |field: usize| self.region.load(at + field as u64);
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

    /// What the next record of the log will say of the one before it.
    fn chain(&self) -> Result<u32> {
        if !self.is_live()? {
            return Ok(self.superblock()?.end_chain.get());
        }
        Ok(self.region.live(live::CHAIN)? as u32)
    }

    /// Where the log begins and ends, and its last sequence number.
    fn log_bounds(&self) -> Result<(LogHead, u64, u64)> {
        let head = self.head()?;
        if let Some(frozen) = self.frozen()? {
            return Ok((head, self.superblock()?.log_end.get(), frozen.visible));
        }
        Ok((head, self.region.live(live::TAIL)?, self.region.live(live::VISIBLE)?))
    }
}

/// Looks at the first record of the log.
fn verify_first(record: Record<'_>, head: &Head, report: &mut VerifyReport) {
    if record.header.chain.get() != head.chain {
        report.add(record.offset, "the first record of the log follows another one than the head says (chain)");
    }
    let is_declared = record.kind() == Some(Kind::Incarnation) || record.seq() >> COUNT_BITS == head.seq >> COUNT_BITS;
    if record.seq() < head.seq || !is_declared {
        // The next superblock will have the log begin with that number.
        report.add(record.offset, "the first record of the log has a number that the head does not lead to");
    }
}
