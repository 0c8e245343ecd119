//! What the log says of the maps, derived from its records one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::report::VerifyReport;
use crate::engine::Engine;
use crate::error::Result;
use crate::file::layout::{KeyHash, Kind, MapId, Offset};
use crate::file::log::{self, Record};

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
    pub(super) maps: BTreeMap<MapId, Derived>,
    /// Keys that have a value and no slot: they have to be removed before the log ends.
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
                let seq = log::record(&engine.mapping, found)?.seq();
                if seq < record.seq() || seq == record.seq() && found == record.header.prev_offset() {
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
    pub(crate) fn end(self, at: Offset, report: &mut VerifyReport) -> BTreeMap<MapId, Derived> {
        for (map, ..) in self.lost {
            report.add(at, format!("map {map}: a key of the log has no slot"));
        }
        self.maps
    }
}
