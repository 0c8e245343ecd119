//! Expiry: entries with a deadline.
//!
//! A record with the flag `EXPIRES` reads as absent from its deadline on, without any work at that time. It is removed
//! by an ordinary remove, when the log is [cleaned](super::clean). The counters know nothing of time, so expired
//! entries count as alive until then. So that cleaning begins when much has expired, writers sample the index now and
//! then and estimate how much that is (as Redis does for the keys that it expires actively).

use crate::engine::Engine;
use crate::engine::clock::{Moment, now};
use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::{Kind, MapId, live};
use crate::file::log;

/// Lines of an index that one sample looks at.
const SAMPLE: u64 = 8;

impl Engine {
    /// Takes a sample of the maps that were written to, if one is due.
    #[inline(always)]
    pub(crate) fn estimate_expired(&self, maps: &[MapId]) -> Result<()> {
        if self.upkeep.expired.can_be() { self.estimate_if_due(maps) } else { Ok(()) }
    }

    fn estimate_if_due(&self, maps: &[MapId]) -> Result<()> {
        let expired = &self.upkeep.expired;
        let visible = self.mapping.live_seq(live::VISIBLE)?.count();
        if !expired.is_due(visible, self.settings.limits.commits_a_look) {
            return Ok(());
        }
        let again = expired.look_again();
        maps.iter().chain(&again).try_for_each(|&map| self.sample_expired(map, visible))
    }

    /// Estimates how many bytes of a map have expired. `seed` says where to look.
    #[cold]
    fn sample_expired(&self, map: MapId, seed: u64) -> Result<()> {
        let Some(index) = self.index(map)? else {
            self.upkeep.expired.set(map, 0);
            return Ok(());
        };
        let expired = self.expired_bytes(&index, index.totals()?.bytes, (SAMPLE, seed))?;
        self.upkeep.expired.set(map, expired);
        Ok(())
    }

    /// Estimates how many of the `bytes` that a map counts have expired, from a sample of `lines` lines of its index
    /// chosen by `seed`. The caller holds a pin or the writer lock.
    pub(crate) fn expired_bytes(&self, index: &Index<'_>, bytes: u64, (lines, seed): (u64, u64)) -> Result<u64> {
        let lines = lines.min(index.lines());
        let at = Moment::fixed(now());
        let (mut all, mut expired) = (0u64, 0u64);
        for number in 0..lines {
            // One line of each part, at a different place each time (Fibonacci hashing).
            let part = index.lines() / lines;
            let line = number * part + seed.wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) % part;
            for slot in index.slots_of_lines(line, line + 1) {
                let Some(offset) = slot?.record else { continue };
                // Compaction will find damage.
                let Ok(record) = log::record(&self.mapping, offset) else { continue };
                if record.kind() == Some(Kind::Put) {
                    all += record.len();
                    expired += if record.is_expired(at) { record.len() } else { 0 };
                }
            }
        }
        Ok(if all == 0 { 0 } else { (u128::from(bytes) * u128::from(expired) / u128::from(all)) as u64 })
    }

    /// Takes a sample of every map, unless that was done a moment ago.
    pub(crate) fn sample_all_now_and_then(&self) -> Result<()> {
        if self.upkeep.expired.is_due_everywhere(now()) { self.sample_all() } else { Ok(()) }
    }

    /// Takes a sample of every map.
    pub(crate) fn sample_all(&self) -> Result<()> {
        let _view = self.view()?;
        let seed = self.mapping.live_seq(live::VISIBLE)?.count();
        self.map_table()?.iter()?.try_for_each(|entry| self.sample_expired(entry.map, seed))
    }
}
