//! What this process believes to have expired: an estimate for each map, and when to look again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::file::layout::MapId;

/// How many maps that were not written to are looked at again with each sample: their estimates may be outdated.
const AGAIN: usize = 4;

/// Milliseconds between two looks at all maps.
const BETWEEN_LOOKS: u64 = 1000;

/// What this process believes to have expired.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// Records with deadlines were seen.
    seen: AtomicBool,
    /// The number of commits at which the next sample is due.
    next: AtomicU64,
    /// When all maps were looked at for the last time, in milliseconds since 1970.
    looked: AtomicU64,
    /// Estimated bytes of expired records: of each map, and their sum.
    maps: Mutex<BTreeMap<MapId, u64>>,
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

    /// Whether anything can have expired.
    #[inline]
    pub(crate) fn can_be(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether a sample is due after this many commits. If it is, the next one is due after `every` more.
    pub(crate) fn is_due(&self, commits: u64, every: u64) -> bool {
        let due = commits >= self.next.load(Ordering::Relaxed);
        if due {
            self.next.store(commits + every, Ordering::Relaxed);
        }
        due
    }

    /// Whether a look at all maps is due. If it is, it counts as done.
    pub(crate) fn is_due_everywhere(&self, now: u64) -> bool {
        let looked = self.looked.swap(now, Ordering::Relaxed);
        !(looked..looked.saturating_add(BETWEEN_LOOKS)).contains(&now)
    }

    /// How many of the `live` bytes have not expired, as far as we know.
    #[inline]
    pub(crate) fn alive_of(&self, live: u64) -> u64 {
        live.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }

    /// Sets how many bytes of a map have expired.
    pub(crate) fn set(&self, map: MapId, bytes: u64) {
        self.change(map, |_| bytes);
    }

    /// Notes that this many bytes of expired records were removed.
    pub(crate) fn removed(&self, map: MapId, bytes: u64) {
        self.change(map, |before| before.saturating_sub(bytes));
    }

    /// Some of the maps with an estimate, others each time.
    pub(crate) fn look_again(&self) -> Vec<MapId> {
        let map = MapId(self.again.load(Ordering::Relaxed));
        let maps = self.maps();
        let behind = maps.range((Bound::Excluded(map), Bound::Unbounded));
        let again: Vec<MapId> = behind.chain(maps.range(..=map)).map(|(&map, _)| map).take(AGAIN).collect();
        self.again.store(again.last().map_or(0, |map| map.0), Ordering::Relaxed);
        again
    }

    fn maps(&self) -> MutexGuard<'_, BTreeMap<MapId, u64>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, map: MapId, change: impl FnOnce(u64) -> u64) {
        let mut maps = self.maps();
        let before = maps.get(&map).copied().unwrap_or(0);
        maps.insert(map, change(before));
        maps.retain(|_, bytes| *bytes > 0);
        self.bytes.store(maps.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_expired_before_a_deadline_was_seen() {
        let expired = Expired::default();
        assert!(!expired.can_be());
        expired.note();
        expired.note();
        assert!(expired.can_be());
    }

    #[test]
    fn samples_are_taken_each_so_many_commits() {
        let expired = Expired::default();
        let due: Vec<u64> = (100..125).filter(|&commits| expired.is_due(commits, 10)).collect();
        assert_eq!(due, [100, 110, 120]);
    }

    #[test]
    fn all_maps_are_looked_at_now_and_then() {
        let expired = Expired::default();
        let now = 1_000_000;
        let due = |now| expired.is_due_everywhere(now);
        assert_eq!([due(now), due(now), due(now + BETWEEN_LOOKS - 1)], [true, false, false]);
        assert!(due(now + 2 * BETWEEN_LOOKS), "also if it was asked for in between");
        assert!(due(now), "the clock was set back");
    }

    #[test]
    fn what_is_believed_of_each_map_is_summed_up() {
        let expired = Expired::default();
        assert_eq!(expired.alive_of(1000), 1000);
        expired.set(MapId(1), 300);
        expired.set(MapId(2), 200);
        assert_eq!(expired.alive_of(1000), 500);
        expired.set(MapId(1), 100);
        expired.removed(MapId(2), 150);
        assert_eq!(expired.alive_of(1000), 850);
        expired.removed(MapId(2), 500);
        expired.removed(MapId(3), 500);
        assert_eq!(expired.alive_of(1000), 900, "no more is taken off than was believed");
        assert_eq!(expired.alive_of(50), 0, "nor is it more than there is");
        expired.set(MapId(1), u64::MAX);
        expired.set(MapId(2), u64::MAX);
        assert_eq!(expired.alive_of(u64::MAX), 0);
    }

    #[test]
    fn each_map_is_looked_at_again_in_its_turn() {
        let expired = Expired::default();
        assert_eq!(expired.look_again(), []);
        (1..=6).for_each(|map| expired.set(MapId(map), 1));
        assert_eq!(expired.look_again(), [1, 2, 3, 4].map(MapId));
        assert_eq!(expired.look_again(), [5, 6, 1, 2].map(MapId));
        // These have no estimate any more.
        [3, 4].into_iter().for_each(|map| expired.set(MapId(map), 0));
        assert_eq!(expired.look_again(), [5, 6, 1, 2].map(MapId));
        expired.removed(MapId(6), 1);
        assert_eq!(expired.look_again(), [5, 1, 2].map(MapId), "each once");
    }
}
