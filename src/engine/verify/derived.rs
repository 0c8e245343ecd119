//! The contents of the maps according to the log, derived record by record.

use std::collections::{BTreeMap, BTreeSet};

use super::report::VerifyReport;
use crate::engine::Engine;
use crate::engine::lookup::keys::WAS_DAMAGED;
use crate::error::Result;
use crate::file::layout::{KeyHash, Kind, MapId, Offset};
use crate::file::log::{self, Record};

/// A map according to the log.
#[derive(Default)]
pub(super) struct Derived {
    /// Records that a slot points at.
    pub(crate) slots: u64,
    /// Those among them that hold a value.
    pub(crate) reached: u64,
    /// The bytes of these.
    pub(crate) bytes: u64,
}

/// All maps according to the log, as far as it was walked.
#[derive(Default)]
pub(super) struct Deriving {
    pub(super) maps: BTreeMap<MapId, Derived>,
    /// Keys with a value and no slot: they must be removed before the log ends.
    lost: BTreeSet<(MapId, KeyHash, KeyHash)>,
}

impl Deriving {
    /// Takes the next record of a map into account. `lead` finds the record that the index has for its key.
    pub(crate) fn add(
        &mut self,
        engine: &Engine,
        record: Record<'_>,
        report: &mut VerifyReport,
        lead: impl FnOnce(KeyHash) -> Result<Option<Offset>>,
    ) -> Result<()> {
        let Some(kind @ (Kind::Put | Kind::Remove | Kind::Clear)) = record.kind() else { return Ok(()) };
        let map = record.header.map();
        let of_map = self.maps.entry(map).or_default();
        if kind == Kind::Clear {
            *of_map = Derived::default();
            self.lost.retain(|&(other, ..)| other != map);
            return Ok(());
        }
        let hash = record.hash(engine.seed);
        match lead(hash)? {
            Some(found) if found == record.offset => {
                if record.is_damaged() {
                    report.add(record.offset, WAS_DAMAGED);
                }
                of_map.slots += 1;
                if kind == Kind::Put {
                    of_map.reached += 1;
                    of_map.bytes += record.counted_len();
                }
            }
            Some(found) => {
                // The record at `prev` may be gone, and a newer record of the key in its place.
                let seq = log::record(&engine.mapping, found)?.seq();
                if seq < record.seq() || seq == record.seq() && found == record.header.prev_offset() {
                    report.add(record.offset, "the slot points at a record that this one replaces");
                }
            }
            None => {
                // Also the hash with another seed, so that two keys are not mistaken for one.
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
    pub(crate) fn end(self, at: Offset, report: &mut VerifyReport) -> BTreeMap<MapId, Derived> {
        for (map, ..) in self.lost {
            report.add(at, format!("map {map}: a key of the log has no slot"));
        }
        self.maps
    }
}
