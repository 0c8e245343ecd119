//! Verifying one commit while others write.
//!
//! The view of a commit stays intact while it is [held](crate::engine::read::pins::Hold): records do not change, space
//! in use is not reused, and a slot leads to the version of that commit, along the chain of versions if necessary, as
//! for any reader. So the log is walked from its head at that time to its tail, and each record is checked to be
//! reachable by its key. The counters have versions, too.
//!
//! **Invariant.** The head was read while the commit was the last visible one. Compaction moves the head forward only
//! after the copies it has made are visible, so all that this commit sees lies past that head.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::derived::{Derived, Deriving};
use super::pace::{Halt, Pace, Paced};
use super::report::{VerifyProgress, VerifyReport, VerifyScope};
use crate::engine::Engine;
use crate::engine::read::pins::Hold;
use crate::engine::state::head::{self, LogHead};
use crate::engine::state::live_area::LogTotals;
use crate::error::Result;
use crate::file::index::{Index, Totals};
use crate::file::layout::{CATALOGUE, KeyHash, Kind, LINE, MapId, Offset, Seq, live};
use crate::file::log::{self, Record, Walk};
use crate::file::space::Space;

/// How often to look for a commit whose counters are all still there. Beside writers that never rest, the counters of
/// some map may be gone each time.
const ATTEMPTS: u32 = 100;

/// One commit, and everything that it sees.
struct Seen<'e> {
    hold: Hold<&'e Engine>,
    head: LogHead,
    /// The end of the log, of this commit or a later one.
    tail: Offset,
    /// The counters of the log. `None` if they were gone.
    log: Option<LogTotals>,
    maps: BTreeMap<MapId, MapSeen<'e>>,
}

/// The index of a map as a commit sees it, and its counters, if they were still there.
struct MapSeen<'e> {
    map: MapId,
    index: Index<'e>,
    totals: Option<Totals>,
}

impl Engine {
    /// Checks the log and the indexes as one commit sees them, whatever others write meanwhile.
    pub(super) fn verify_snapshot(
        &self,
        on_progress: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
        report: &mut VerifyReport,
    ) -> Paced<VerifyScope> {
        let seen = self.see()?;
        let mut pace = Pace::undisturbed(self, on_progress);
        let log = seen.log.map_or(0, |log| log.bytes.saturating_sub(seen.head.bytes));
        pace.expect(log, seen.maps.values().map(|map| &map.index))?;
        let derived = self.verify_log_seen(&seen, &mut pace, report)?;
        for (map, of_map) in &seen.maps {
            self.verify_index_seen(seen.hold.seq(), of_map, derived.get(map), &mut pace, report)?;
        }
        let all: Option<u64> =
            seen.maps.values().try_fold(0u64, |sum, map| Some(sum.saturating_add(map.totals?.bytes)));
        if let (Some(bytes), Some(LogTotals { live_bytes: counted, .. })) = (all, seen.log)
            && bytes != counted
        {
            report.add(live::LOG_TOTALS, format!("the maps have {bytes} bytes, and the log counts {counted}"));
        }
        drop(seen);
        self.verify_tables(report)?;
        Ok(VerifyScope::Snapshot)
    }

    /// Finds a commit to check: the last one, once no other comes in between.
    fn see(&self) -> Paced<Seen<'_>> {
        let start = Instant::now();
        for attempt in 0u32.. {
            let hold = Hold::take(self)?;
            let head = head::read(&self.mapping)?;
            fence(Ordering::Acquire);
            if self.visible()? == hold.seq() {
                let seen = self.see_at(hold, head)?;
                let complete = seen.log.is_some() && seen.maps.values().all(|map| map.totals.is_some());
                if complete || attempt >= ATTEMPTS {
                    return Ok(seen);
                }
            } else if attempt >= ATTEMPTS {
                std::thread::sleep(Duration::from_millis(1));
            }
            if start.elapsed() >= self.settings.lock_timeout {
                break;
            }
        }
        Err(Halt::Disturbed)
    }

    fn see_at<'e>(&'e self, hold: Hold<&'e Engine>, head: LogHead) -> Result<Seen<'e>> {
        let seq = hold.seq();
        let tail = self.mapping.live_offset(live::TAIL)?;
        let log = LogTotals::at_most(&self.mapping, seq)?;
        let mut maps = BTreeMap::new();
        for entry in self.map_table()?.iter()? {
            let index = Index::of_extent(&self.mapping, entry.extent)?;
            let index = if index.since() > seq { self.older_index(index, seq)? } else { Some(index) };
            // A map created later has none.
            let Some(index) = index else { continue };
            self.check_header(entry.map, &index)?;
            let totals = index.totals_at(seq)?;
            maps.insert(entry.map, MapSeen { map: entry.map, index, totals });
        }
        // The log may have grown past the mapping.
        self.mapping.refresh()?;
        Ok(Seen { hold, head, tail, log, maps })
    }

    /// Walks the log, and checks that each record of the commit, or of an earlier one, is reachable by its key.
    fn verify_log_seen(
        &self,
        seen: &Seen<'_>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<BTreeMap<MapId, Derived>> {
        let seq = seen.hold.seq();
        let space = self.space_now()?;
        let mut deriving = Deriving::default();
        let (mut bytes, mut records, mut ordinal) = (0, 0, 0);
        let mut walk = Walk::new(&self.mapping, seen.head.head, Some(seen.tail));
        for record in walk.by_ref() {
            pace.step(record.len())?;
            report.records += 1;
            self.verify_place(space.as_ref(), record, &mut ordinal, report);
            if record.seq() > seq {
                continue;
            }
            bytes += record.len();
            records += 1;
            if let Some(of_map) = seen.maps.get(&record.header.map()) {
                deriving.add(self, record, report, |hash| self.version_seen(seen, &of_map.index, record, hash))?;
            }
        }
        let derived = deriving.end(seen.tail, report);
        if walk.at() != seen.tail {
            let (at, end, stop) = (walk.at(), seen.tail, walk.stop());
            report.add(at, format!("the log ends here and should go on to {end}: {stop}"));
        } else if !walk.is_between_commits() {
            report.add(walk.at(), "the log ends within a commit");
        } else if let Some(all) = seen.log {
            let counted_bytes = all.bytes.saturating_sub(seen.head.bytes);
            let counted_records = all.records.saturating_sub(seen.head.records);
            if (counted_bytes, counted_records) != (bytes, records) {
                let what = format!(
                    "the log has {records} records of {bytes} bytes, and counts {counted_records} of {counted_bytes}"
                );
                report.add(live::LOG_TOTALS, what);
            }
        }
        Ok(derived)
    }

    /// Checks that a record lies in an extent of the log, and that the extents are in order.
    fn verify_place(&self, space: Option<&Space>, record: Record<'_>, ordinal: &mut u64, report: &mut VerifyReport) {
        let Some(space) = space else { return };
        let ordinal_at = |at| space.extent_of(at).filter(|extent| extent.has_records()).map(|extent| extent.ordinal);
        match ordinal_at(record.offset) {
            Some(found) if ordinal_at(record.end() - 1) == Some(found) => {
                if found < *ordinal {
                    report.add(record.offset, "the extents of the log are not numbered in the order of the log");
                }
                *ordinal = found;
            }
            _ => report.add(record.offset, "the record lies in no extent of the log"),
        }
    }

    /// The version that a commit sees of the key of `record`.
    fn version_seen(
        &self,
        seen: &Seen<'_>,
        index: &Index<'_>,
        record: Record<'_>,
        hash: KeyHash,
    ) -> Result<Option<Offset>> {
        let newest = index.find(hash, |offset| {
            let found = log::record(&self.mapping, offset)?;
            Ok(self.has_key_of(record, offset)?.then_some(found))
        })?;
        let version = newest.map(|newest| self.older_version(newest, seen.hold.seq())).transpose()?.flatten();
        Ok(version.map(|version| version.offset))
    }

    /// Compares the slots of a map, and its counters, with the log.
    fn verify_index_seen(
        &self,
        seq: Seq,
        of_map: &MapSeen<'_>,
        derived: Option<&Derived>,
        pace: &mut Pace<'_>,
        report: &mut VerifyReport,
    ) -> Paced<()> {
        let nothing = Derived::default();
        let derived = derived.unwrap_or(&nothing);
        let (map, at) = (of_map.map, of_map.index.offset());
        let (mut slots, mut keys, mut bytes) = (0, 0, 0);
        for slot in of_map.index.iter() {
            let slot = slot?;
            pace.step(LINE)?;
            let Some(offset) = slot.record else { continue };
            let newest = log::record(&self.mapping, offset)?;
            let Some(version) = self.older_version(newest, seq)? else { continue };
            slots += 1;
            if version.kind() != Some(Kind::Put) {
                continue;
            }
            keys += 1;
            bytes += version.counted_len();
            // The slot of a key that has a value is not given to another key. A search compares only the tag, a rebuild
            // of the index all bits.
            if version.hash(self.seed) != slot.hash {
                report.add(at, format!("map {map}: the slot of the record at offset {offset} has another key's hash"));
            }
        }
        if (keys, bytes) != (derived.reached, derived.bytes) {
            let (found_keys, found_bytes) = (derived.reached, derived.bytes);
            let what = format!(
                "map {map}: slots lead to {keys} keys of {bytes} bytes, and the log to {found_keys} of {found_bytes}"
            );
            report.add(at, what);
        }
        // Slots of tombstones may have died since.
        if slots > derived.slots {
            let good = derived.slots;
            report.add(at, format!("map {map}: of {slots} slots, {good} lead to the newest record of their key"));
        }
        if let Some(totals) = of_map.totals.filter(|totals| (totals.keys, totals.bytes) != (keys, bytes)) {
            let what = format!(
                "map {map}: counts {} keys of {} bytes, and leads to {keys} of {bytes}",
                totals.keys, totals.bytes
            );
            report.add(at, what);
        }
        if map != CATALOGUE {
            report.keys += derived.reached;
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::engine::settings::{Limits, Settings};
    use crate::engine::upkeep::clean::{Aim, Portion};
    use crate::file::index::Probe;
    use crate::file::layout::{BLOCK, DEFAULT_MAP, ExtentKind};

    fn engine() -> Engine {
        // Nothing is cleaned except on request.
        let settings = Settings { limits: Limits::tiny(), auto_compact: None, ..Settings::default() };
        Engine::in_memory(settings).unwrap()
    }

    fn put(engine: &Engine, key: u32) {
        engine.put(DEFAULT_MAP, &key.to_le_bytes(), &[7; 100], None).unwrap();
    }

    fn findings(engine: &Engine) -> Vec<String> {
        let mut report = VerifyReport::default();
        match engine.verify_snapshot(&mut |_| ControlFlow::Continue(()), &mut report) {
            Ok(_) => report.findings().iter().map(ToString::to_string).collect(),
            Err(halt) => vec![format!("{halt:?}")],
        }
    }

    /// Moves the head forward by `bytes` bytes or a few more, in as many steps as it takes.
    fn clean(engine: &Engine, bytes: u64) {
        let turn = engine.turn().unwrap();
        let mut writing = turn.write();
        let goal = engine.head().unwrap().bytes + bytes;
        while engine.head().unwrap().bytes < goal {
            let cleaned = writing.clean(Portion { bytes, aim: Aim::Upkeep }).unwrap();
            assert!(cleaned.passed > 0, "the log is shorter");
        }
    }

    /// Frees what can be freed.
    fn reclaim(engine: &Engine) {
        engine.checkpoint().unwrap();
        let turn = engine.turn().unwrap();
        turn.write().reclaim().unwrap();
    }

    fn emptied(engine: &Engine) -> u64 {
        let extents = engine.extents().unwrap();
        extents.iter().filter(|extent| extent.kind == ExtentKind::Emptied).map(|extent| extent.len()).sum()
    }

    /// Leaves the whole log dead except its end.
    fn overwritten(engine: &Engine) {
        for number in 0..400 {
            put(engine, number % 2);
        }
    }

    #[test]
    fn what_does_not_hold_is_found() {
        let engine = engine();
        for number in 0..300 {
            put(&engine, number);
        }
        engine.remove(DEFAULT_MAP, &7u32.to_le_bytes()).unwrap();
        assert_eq!(findings(&engine), [""; 0]);
        let index = engine.index_in_force(DEFAULT_MAP).unwrap();
        let key = 9u32.to_le_bytes();
        let hash = KeyHash::of(&key, engine.seed);
        let Some(Probe::Found(at, record)) = engine.probe(&index, DEFAULT_MAP, hash, &key).unwrap() else {
            panic!("it was put");
        };
        let found = |what: &str| {
            let findings = findings(&engine);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        };

        index.retire(at).unwrap();
        found("a key of the log has no slot");
        found("leads to 298");
        index.publish(at, hash, record + BLOCK).unwrap();
        assert_ne!(findings(&engine), [""; 0], "a slot that leads elsewhere");
        let other = KeyHash::from_parts(hash.tag(), hash.further() ^ 1);
        index.give(at, other, record).unwrap();
        found("another key's hash");
        index.give(at, hash, record).unwrap();
        assert_eq!(findings(&engine), [""; 0]);

        let totals = index.totals().unwrap();
        index.reset_totals(Totals { keys: totals.keys + 1, ..totals }).unwrap();
        found("counts 300 keys");
        index.reset_totals(totals).unwrap();
        let log = engine.log_totals().unwrap();
        LogTotals { records: log.records + 1, ..log }.reset(&engine.mapping).unwrap();
        found("and counts");
        LogTotals { live_bytes: log.live_bytes + 8, ..log }.reset(&engine.mapping).unwrap();
        found("and the log counts");
        log.reset(&engine.mapping).unwrap();
        assert_eq!(findings(&engine), [""; 0]);

        // An older version of a key, which a newer one replaces.
        put(&engine, 9);
        index.publish(at, hash, record).unwrap();
        found("a record that this one replaces");
        index.publish(at, hash, engine.mapping.live_offset(live::TAIL).unwrap() - 144).unwrap();
        assert_eq!(findings(&engine), [""; 0]);
        engine.mapping.write(record + 60, b"damage").unwrap();
        found("the CRC of the record does not hold");
    }

    #[test]
    fn what_is_held_is_not_used_again_whenever_it_becomes_empty() {
        let engine = engine();
        overwritten(&engine);
        // Dead records are not needed, so a pin of this commit does not keep them.
        let pin = engine.pin().unwrap();
        clean(&engine, 20 << 10);
        assert_eq!(engine.visible().unwrap(), pin.seq(), "cleaning of what is dead takes no number");
        assert!(emptied(&engine) > 0);
        reclaim(&engine);
        assert_eq!(emptied(&engine), 0);
        drop(pin);

        let seen = engine.see().unwrap();
        clean(&engine, 8 << 10);
        assert_eq!(engine.visible().unwrap(), seen.hold.seq());
        let held = emptied(&engine);
        assert!(held > 0);
        for number in 0..100 {
            reclaim(&engine);
            assert!(emptied(&engine) >= held, "used again after {number} more commits");
            put(&engine, number);
        }
        drop(seen);
        reclaim(&engine);
        assert!(emptied(&engine) < held);
    }

    #[test]
    fn what_the_head_leaves_late_becomes_empty_late() {
        let engine = engine();
        overwritten(&engine);
        // A writer has marked the extent it was about to leave, and was killed.
        let head = engine.head().unwrap();
        let extent = engine.extents().unwrap().into_iter().find(|extent| extent.ordinal == head.ordinal).unwrap();
        let seq = engine.visible().unwrap();
        engine.lend_writing().writer.space.set_kind(&engine.mapping, extent.offset, ExtentKind::Emptied, seq).unwrap();
        put(&engine, 0);
        put(&engine, 1);
        let seen = engine.see().unwrap();
        assert_eq!(seen.head.head, head.head);
        clean(&engine, 2 * extent.len());
        assert!(engine.head().unwrap().ordinal > head.ordinal);
        reclaim(&engine);
        let still = engine.extents().unwrap().into_iter().find(|other| other.offset == extent.offset);
        let still = still.expect("it was freed under somebody who looks at it");
        assert_eq!((still.kind, still.count), (ExtentKind::Emptied, engine.visible().unwrap().count()));
        drop(seen);
        reclaim(&engine);
        assert!(engine.extents().unwrap().iter().all(|other| other.offset != extent.offset));
    }

    /// Everything goes in the smallest steps, so that some upkeep is always under way.
    #[test]
    fn a_store_that_never_rests_is_found_clean() {
        use std::sync::atomic::AtomicU32;

        const ROUNDS: u32 = 200;
        const WRITES: u32 = 300;

        let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
        let engine = Engine::in_memory(settings).unwrap();
        // The writes during one check are limited: it holds back what becomes free, and checks have to keep up.
        let (round, written) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut random = 1u64;
                let mut below = |n: u64| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (random >> 33) % n
                };
                for write in 0u32.. {
                    written.store(write, Ordering::Relaxed);
                    while write / WRITES > round.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    if round.load(Ordering::Relaxed) > ROUNDS {
                        break;
                    }
                    // The number of keys grows, and shrinks again.
                    let keys = if write / 2000 % 2 == 0 { 600 } else { 20 };
                    let key = below(keys).to_le_bytes();
                    match below(400) {
                        0 => engine.clear(DEFAULT_MAP).unwrap(),
                        1 => drop(engine.compact(&mut |_| ControlFlow::Continue(())).unwrap()),
                        2..100 => drop(engine.remove(DEFAULT_MAP, &below(600).to_le_bytes()).unwrap()),
                        _ => engine.put(DEFAULT_MAP, &key, &[7; 300][..below(300) as usize], None).unwrap(),
                    }
                }
            });
            let mut rounds = (0..ROUNDS).map(|_| {
                let findings = findings(&engine);
                let done = round.fetch_add(1, Ordering::Relaxed);
                let is_behind = || written.load(Ordering::Relaxed) < (done + 1) * WRITES && !writer.is_finished();
                while findings.is_empty() && is_behind() {
                    std::thread::yield_now();
                }
                findings
            });
            let found = rounds.find(|findings| !findings.is_empty());
            round.store(ROUNDS + 1, Ordering::Relaxed);
            assert_eq!(found, None);
        });
    }
}
