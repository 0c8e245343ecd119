//! Expiry: entries with a deadline.
//!
//! A record with the flag `EXPIRES` counts as absent from its deadline on, for whoever reads, without anybody having to
//! do anything. It goes by an ordinary remove, when the log is [cleaned](super::clean). The counters know nothing of
//! time, so what has expired and was not removed counts as alive there. So that cleaning begins when much has expired,
//! writers take a sample of the index now and then and estimate how much that is (as Redis does with the keys that it
//! expires actively).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::{Engine, now};
use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::{COUNT_MASK, Kind, live};
use crate::file::log::{self, Record};

/// The time that deadlines are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Whatever the clock says when it matters: only records with a deadline cost a look at it.
    pub(crate) const NOW: Moment = Moment(0);

    /// The same time for all that is read.
    pub(crate) fn fixed(milliseconds: u64) -> Moment {
        Moment(milliseconds)
    }

    fn milliseconds(self) -> u64 {
        if self.0 == 0 { now() } else { self.0 }
    }
}

/// A deadline as the log has it, in milliseconds since 1970, rounded down: from it on nobody sees the entry. One from
/// before that is long over.
pub(crate) fn deadline(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

impl Record<'_> {
    /// Whether its deadline is over.
    #[inline(always)]
    pub(crate) fn is_expired(&self, at: Moment) -> bool {
        self.expires().is_some_and(|deadline| deadline <= at.milliseconds())
    }

    /// Whether it holds a value at this time.
    #[inline(always)]
    pub(crate) fn has_value(&self, at: Moment) -> bool {
        self.kind() == Some(Kind::Put) && !self.is_expired(at)
    }
}

/// So many maps that were not written to are looked at again with each sample: what is believed of them may be over.
const AGAIN: usize = 4;

/// Lines of an index that one sample looks at.
const SAMPLE: u64 = 8;

/// Milliseconds between two looks at all maps.
const BETWEEN_LOOKS: u64 = 1000;

/// What this process believes to have expired.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// There are records with deadlines, as far as we have seen any.
    seen: AtomicBool,
    /// The number of commits at which the next sample is due.
    next: AtomicU64,
    /// When [`Engine::maintain`] has looked for the last time, in milliseconds since 1970.
    looked: AtomicU64,
    /// Estimated bytes of expired records: of each map, and their sum.
    maps: Mutex<BTreeMap<u32, u64>>,
    bytes: AtomicU64,
    /// The last of the maps that was looked at again.
    again: AtomicU32,
}

impl Expired {
    /// Notes that there are records with deadlines.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.seen.load(Ordering::Relaxed) {
            self.seen.store(true, Ordering::Relaxed);
        }
    }

    /// How much of so many bytes that count as alive has not expired, as far as we know.
    #[inline]
    pub(crate) fn alive_of(&self, live: u64) -> u64 {
        live.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }

    /// Expired records of so many bytes were removed.
    pub(crate) fn removed(&self, map: u32, bytes: u64) {
        let before = self.maps.lock().unwrap_or_else(PoisonError::into_inner).get(&map).copied().unwrap_or(0);
        self.set(map, before.saturating_sub(bytes));
    }

    /// Some of the maps of which something is believed, others each time, beginning behind `map`.
    fn some_maps(&self, map: u32) -> Vec<u32> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = maps.range((Bound::Excluded(map), Bound::Unbounded));
        behind.chain(maps.range(..=map)).map(|(&map, _)| map).take(AGAIN).collect()
    }

    fn set(&self, map: u32, bytes: u64) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.insert(map, bytes);
        maps.retain(|_, bytes| *bytes > 0);
        self.bytes.store(maps.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)), Ordering::Relaxed);
    }
}

impl Engine {
    /// Takes a sample of the maps that were written to, if one is due.
    #[inline]
    pub(crate) fn estimate_expired(&self, maps: &[u32]) -> Result<()> {
        if !self.upkeep.expired.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let visible = self.region.live(live::VISIBLE)? & COUNT_MASK;
        if visible < self.upkeep.expired.next.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.upkeep.expired.next.store(visible + self.settings.limits.commits_a_look, Ordering::Relaxed);
        let expired = &self.upkeep.expired;
        let again = expired.some_maps(expired.again.load(Ordering::Relaxed));
        expired.again.store(again.last().copied().unwrap_or(0), Ordering::Relaxed);
        maps.iter().chain(&again).try_for_each(|&map| self.sample_expired(map, visible))
    }

    /// Estimates how many bytes of a map have expired. `seed` says where to look.
    #[cold]
    fn sample_expired(&self, map: u32, seed: u64) -> Result<()> {
        let Some(index) = self.index(map)? else {
            self.upkeep.expired.set(map, 0);
            return Ok(());
        };
        let expired = self.expired_bytes(&index, index.totals()?.bytes, (SAMPLE, seed))?;
        self.upkeep.expired.set(map, expired);
        Ok(())
    }

    /// Estimates how many of the `bytes` that a map counts have expired, by so many lines of its index; `seed` says
    /// which. For one who holds a pin or the writer lock.
    pub(crate) fn expired_bytes(&self, index: &Index<'_>, bytes: u64, (lines, seed): (u64, u64)) -> Result<u64> {
        let lines = lines.min(index.lines());
        let at = Moment::fixed(now());
        let (mut all, mut expired) = (0u64, 0u64);
        for number in 0..lines {
            // One line of each part, at a place that is another one each time (Fibonacci hashing).
            let part = index.lines() / lines;
            let line = number * part + seed.wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) % part;
            for slot in index.slots_of_lines(line, line + 1) {
                let Some(offset) = slot?.record else { continue };
                let record = log::record(&self.region, offset)?;
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
        let now = now();
        let looked = self.upkeep.expired.looked.swap(now, Ordering::Relaxed);
        if (looked..looked.saturating_add(BETWEEN_LOOKS)).contains(&now) { Ok(()) } else { self.sample_all() }
    }

    /// Takes a sample of every map.
    pub(crate) fn sample_all(&self) -> Result<()> {
        let _view = self.view()?;
        let seed = self.region.live(live::VISIBLE)? & COUNT_MASK;
        self.map_table()?.iter()?.try_for_each(|entry| self.sample_expired(entry.map, seed))
    }
}
