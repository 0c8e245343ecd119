//! Verifying: the file is checked against all invariants.
//!
//! Without other writers, the whole file is checked slice by slice, so that a writer waits for one slice at most. After
//! a write in between, the findings so far are useless: then one commit is checked, which a pin keeps whatever is
//! written meanwhile ([`snapshot`](super::snapshot)). The [`Pace`] tells the two apart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::derived::{Derived, Deriving};
use super::pace::{Halt, Pace, Paced};
use super::report::{VerifyProgress, VerifyReport, VerifyScope};
use super::tables::{MOMENT, verify_first};
use crate::engine::Engine;
use crate::engine::state::words::LogSize;
use crate::error::{Error, Result};
use crate::file::index::{Index, Probe};
use crate::file::layout::{CATALOGUE, Kind, LINE, MapId};
use crate::file::log::{self, Walk};
use crate::file::space::Space;

impl Engine {
    /// Checks everything, to its end.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(&mut |_| ControlFlow::Continue(()))
    }

    /// Checks superblocks, extents, all records and all slots; or if others write meanwhile, all records and all slots
    /// of one commit. `on_progress` is asked now and then whether to continue, at moments at which other processes can
    /// write.
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
            // Damage that stops the check is a finding.
            Err(Halt::Failed(Error::Corrupt { offset, what, .. })) => {
                report.add(offset, what);
            }
            Err(Halt::Failed(error)) => return Err(error),
            // No commit stayed the last one for long enough.
            Err(Halt::Disturbed) => return Err(self.lock_timeout(self.settings.lock_timeout)),
        }
        Ok(report)
    }

    /// Checks everything, if there are no other writers meanwhile.
    fn verify_quiet(
        &self,
        on_progress: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
        report: &mut VerifyReport,
    ) -> Paced<VerifyScope> {
        // If it cannot keep others from writing, at least nothing is reused.
        let _pin = if self.read_only { Some(self.pin()?) } else { None };
        let mut pace = Pace::quiet(self, on_progress, MOMENT)?;
        let space = if self.read_only { self.space_now()?.ok_or(Halt::Disturbed)? } else { self.known_space()? };
        match self.verify_all(&space, &mut pace, report) {
            Err(Halt::Stopped) => Err(Halt::Stopped),
            // Data that others change during the check may look like anything.
            checked => pace.look().and(checked).map(|()| VerifyScope::Everything),
        }
    }

    fn verify_all(&self, space: &Space, pace: &mut Pace<'_>, report: &mut VerifyReport) -> Paced<()> {
        self.verify_superblocks(report)?;
        let maps: BTreeMap<MapId, Index<'_>> = self.maps()?.into_iter().collect();
        pace.expect(self.log_size()?.bytes, maps.values())?;
        let derived = self.verify_log(space, &maps, pace, report)?;
        self.verify_extents(space, &maps, report)?;
        for (map, index) in &maps {
            self.verify_region(space, *map, index, report)?;
            self.verify_index(*map, index, derived.get(map), pace, report)?;
            self.verify_resize(*map, index, pace, report)?;
        }
        self.verify_catalogue(&maps, report)?;
        self.verify_totals(report)?;
        Ok(())
    }

    /// Walks the log and checks for each record whether its slot points at it. The part between the superblock's head
    /// and the live one belongs to the log as well: a recovery would begin there.
    fn verify_log(
        &self,
        space: &Space,
        maps: &BTreeMap<MapId, Index<'_>>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<BTreeMap<MapId, Derived>> {
        let bounds = self.log_bounds()?;
        let (head, end) = (bounds.head, bounds.end);
        let durable = self.verify_head(&bounds, space, report)?;
        let mut deriving = Deriving::default();
        let (mut bytes, mut records) = (0, 0);
        let mut visited = BTreeSet::new();
        let mut reached = head.head.at == end;
        let mut ordinal = 0;
        let mut walk = Walk::new(&self.mapping, durable.head, Some(end));
        for record in walk.by_ref() {
            pace.step(record.len())?;
            let extent_of = |at| space.extent_of(at).filter(|extent| extent.has_records());
            // A killed step of cleaning may have cut the extent, and left the head before the cut.
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
                    let found = index.probe(hash, |offset| self.has_key_of(record, offset))?;
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
            self.verify_end(&walk, &bounds, LogSize { bytes, records }, report)?;
        }
        report.records = records;
        Ok(derived)
    }

    /// Compares the slots and counters of a map with the log.
    fn verify_index(
        &self,
        map: MapId,
        index: &Index<'_>,
        derived: Option<&Derived>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<()> {
        let nothing = Derived::default();
        let derived = derived.unwrap_or(&nothing);
        let at = index.offset();
        let (mut slots, mut dead) = (0, 0);
        for slot in index.iter() {
            let slot = slot?;
            pace.step(LINE)?;
            let Some(offset) = slot.record else {
                dead += 1;
                continue;
            };
            slots += 1;
            // A search compares only the tag, a rebuild of the index all bits.
            if log::record(&self.mapping, offset).is_ok_and(|record| record.hash(self.seed) != slot.hash) {
                report.add(at, format!("map {map}: the slot of the record at offset {offset} has another key's hash"));
            }
        }
        let totals = index.totals()?;
        // Each record was checked for a slot that points at it; any other slot points elsewhere.
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

    /// Compares an index that is being built with its source.
    fn verify_resize(
        &self,
        map: MapId,
        index: &Index<'_>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<()> {
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
            let may_lack = log::record(&self.mapping, offset)?.kind() == Some(Kind::Remove);
            if !may_lack && !matches!(there, Some(Probe::Found(..))) {
                report.add(at, format!("map {map}: the index that is being built does not lead to offset {offset}"));
            }
        }
        if target.totals()?.used() < used {
            report.add(at, format!("map {map}: the index that is being built counts fewer slots than its {used}"));
        }
        Ok(())
    }
}
