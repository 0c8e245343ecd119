//! Version chains: from the newest record of a key down to the one that a reader of an older commit sees.
//!
//! Each record names the record that it replaces, its `prev`. If a key is overwritten a million times during a
//! snapshot, its reader would have to follow a million records. So records of chains that a reader may have to follow
//! also have a [`Shortcut`]: the number of steps then grows with the logarithm of the chain's length.
//!
//! **Invariant.** A shortcut is followed only while its target is newer than the reader's number. Such a target was in
//! the log when the reader came, or came later, so the reader's pin keeps it; and since a key's versions are in order,
//! the wanted one is not between.
//!
//! **Invariant.** A writer makes a shortcut from that of another record only if that record was not overwritten: if its
//! number is above [`REUSED_BELOW`](live::REUSED_BELOW). Below that there are no readers any more, and counting begins
//! anew.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Engine;
use crate::error::Result;
use crate::file::layout::{KeyHash, Offset, RECORD_HEADER, Seq, Shortcut, live};
use crate::file::log::{self, Record};

/// No reader is at an older commit.
const NOBODY: u64 = u64::MAX;

/// What the writers of this process know of readers of older commits: whether version chains are worth a shortcut. It
/// decides nothing else, so it may be out of date.
#[derive(Debug)]
pub(crate) struct OldReaders {
    /// The lowest count that a reader is at, or [`NOBODY`].
    lowest: AtomicU64,
    /// Overwrites until the next look at the pins.
    until_look: AtomicU64,
}

impl Default for OldReaders {
    fn default() -> OldReaders {
        OldReaders { lowest: AtomicU64::new(NOBODY), until_look: AtomicU64::new(0) }
    }
}

impl Engine {
    /// The shortcut of a record that is about to replace `newest`, if it gets one. The caller holds the writer lock.
    #[inline]
    pub(crate) fn shortcut_over(&self, newest: Record<'_>) -> Result<Option<Shortcut>> {
        if self.has_no_older_readers(newest.seq())? { Ok(None) } else { self.make_shortcut(newest) }
    }

    /// Whether no reader may have to pass a record with this number that is about to be replaced. The caller holds the
    /// writer lock.
    #[inline(always)]
    pub(crate) fn has_no_older_readers(&self, seq: Seq) -> Result<bool> {
        let readers = &self.old_readers;
        // No other thread changes it.
        match readers.until_look.load(Ordering::Relaxed) {
            0 => self.look_for_old_readers()?,
            left => readers.until_look.store(left - 1, Ordering::Relaxed),
        }
        Ok(seq.count() <= readers.lowest.load(Ordering::Relaxed))
    }

    #[cold]
    fn look_for_old_readers(&self) -> Result<()> {
        self.old_readers.lowest.store(self.oldest_reader()?.unwrap_or(NOBODY), Ordering::Relaxed);
        self.old_readers.until_look.store(self.settings.limits.commits_a_look, Ordering::Relaxed);
        Ok(())
    }

    #[cold]
    fn make_shortcut(&self, newest: Record<'_>) -> Result<Option<Shortcut>> {
        let before = newest.shortcut();
        let depth = before.map_or(0, |before| before.depth());
        if depth == Shortcut::MAX_DEPTH {
            return Ok(None);
        }
        let to_newest = |depth| Shortcut::new(newest.offset.0, depth, newest.seq().0);
        let Some(before) = before.filter(|_| ends_in_two(depth)) else { return Ok(Some(to_newest(depth + 1))) };
        // If the target of the way over both cannot be told, counting begins anew here.
        Ok(Some(self.over_two(newest, &before)?.unwrap_or_else(|| to_newest(1))))
    }

    /// The shortcut as long as that of `newest` and the next one together, and one more; `None` if the next one cannot
    /// be told.
    fn over_two(&self, newest: Record<'_>, first: &Shortcut) -> Result<Option<Shortcut>> {
        if first.target_seq().count() <= self.mapping.live(live::REUSED_BELOW)? {
            return Ok(None);
        }
        // In a damaged file it may be anything; then it is left alone.
        let Ok(middle) = log::record(&self.mapping, first.target_offset()) else { return Ok(None) };
        let second = middle.shortcut().filter(|second| {
            middle.seq() == first.target_seq()
                && self.is_same_key(middle, newest)
                && second.depth() == first.depth() - smallest_part(first.depth())
        });
        Ok(second.map(|second| Shortcut::new(second.target(), first.depth() + 1, second.target_seq().0)))
    }

    /// Follows the version chain down to the first record that is not newer than `seq`.
    #[cold]
    pub(crate) fn older_version<'a>(&'a self, newest: Record<'a>, seq: Seq) -> Result<Option<Record<'a>>> {
        let mut record = newest;
        // Within one commit a key may have been written many times; a chain in circles would be longer than the file.
        let mut left = self.mapping.len() / RECORD_HEADER;
        while record.seq() > seq {
            let Some(older) = self.next_version(record, seq)? else { return Ok(None) };
            left = left.saturating_sub(1);
            if older.seq() > record.seq() || !self.is_same_key(older, record) || left == 0 {
                return Err(self.mapping.corrupt(record.offset, "the version chain leads to another key"));
            }
            record = older;
        }
        Ok(Some(record))
    }

    /// Whether two records have the same key.
    #[inline]
    fn is_same_key(&self, older: Record<'_>, newer: Record<'_>) -> bool {
        older.header.map() == newer.header.map()
            && (older.key() == newer.key() || older.is_damaged() && self.may_have_had(older, newer.key()))
    }

    /// Whether a record that was damaged had this key, as far as can be told.
    #[cold]
    #[inline(never)]
    pub(crate) fn may_have_had(&self, record: Record<'_>, key: &[u8]) -> bool {
        if record.key().is_empty() {
            record.hash(self.seed) == KeyHash::of(key, self.seed)
        } else {
            record.key() == key
        }
    }

    /// One step down the version chain of a record, for a reader at `seq`, which is older.
    pub(crate) fn next_version<'a>(&'a self, record: Record<'a>, seq: Seq) -> Result<Option<Record<'a>>> {
        if let Some(shortcut) = record.shortcut().filter(|shortcut| shortcut.target_seq() > seq) {
            let target = log::record(&self.mapping, shortcut.target_offset())?;
            if target.seq() != shortcut.target_seq() {
                return Err(self.mapping.corrupt(record.offset, "the shortcut of the record leads to another version"));
            }
            return Ok(Some(target));
        }
        match record.header.prev_offset() {
            Offset::NONE => Ok(None),
            prev => log::record(&self.mapping, prev).map(Some),
        }
    }
}

/// The last two parts of a depth as a sum of numbers 2ᵏ − 1, the last one zero if it is such a number itself.
fn last_parts(depth: u64) -> (u64, u64) {
    let (mut left, mut parts) = (depth, (0, 0));
    while left > 0 {
        let part = (1 << (left + 1).ilog2()) - 1;
        parts = (part, parts.0);
        left -= part;
    }
    parts
}

/// The smallest of these parts: how far the shortcut of a record of this depth leads.
fn smallest_part(depth: u64) -> u64 {
    last_parts(depth).0
}

/// Whether that part occurs twice. Then the next version leads over both.
fn ends_in_two(depth: u64) -> bool {
    let (last, before) = last_parts(depth);
    last != 0 && last == before
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::change::batch::Batch;
    use crate::engine::settings::{Limits, Settings};
    use crate::file::index::Probe;
    use crate::file::layout::{DEFAULT_MAP, KeyHash};

    const KEY: &[u8] = b"overwritten all the time";

    /// How many records a reader at `seq` goes through to find its version of the key, and the value that it finds.
    fn find(engine: &Engine, seq: Seq) -> (u64, Vec<u8>) {
        let index = engine.index_in_force(DEFAULT_MAP).unwrap();
        let found = engine.probe(&index, DEFAULT_MAP, KeyHash::of(KEY, engine.seed), KEY).unwrap();
        let Some(Probe::Found(_, newest)) = found else { panic!("the key has no slot") };
        let mut record = log::record(&engine.mapping, newest).unwrap();
        let mut steps = 0;
        while record.seq() > seq {
            record = engine.next_version(record, seq).unwrap().unwrap();
            steps += 1;
        }
        (steps, record.value().to_vec())
    }

    #[test]
    fn a_snapshot_does_not_pay_for_what_was_written_since() {
        const VERSIONS: u32 = 100_000;
        let engine = Arc::new(Engine::in_memory(Settings::default()).unwrap());
        let put = |number: u32| engine.put(DEFAULT_MAP, KEY, &number.to_le_bytes(), None).unwrap();
        put(0);
        let mut views = Vec::new();
        for number in 1..=VERSIONS {
            if (number - 1) % (VERSIONS / 16) == 0 {
                views.push((engine.pin().unwrap(), number - 1));
            }
            put(number);
        }
        // Records written before the writers noticed the reader have no shortcuts.
        let bound = engine.settings.limits.commits_a_look + 3 * u64::from(VERSIONS.ilog2() + 1);
        for (pin, number) in &views {
            let (steps, value) = find(&engine, pin.seq());
            assert_eq!(value, number.to_le_bytes());
            assert!(steps <= bound, "{steps} steps over {} versions", VERSIONS - number);
            // The way that readers go.
            let lines = engine.lines_at(DEFAULT_MAP, pin.seq()).unwrap().unwrap();
            let wanted = log::Wanted { map: DEFAULT_MAP, key: KEY, seq: pin.seq() };
            let found = engine.value_of(lines, wanted, crate::engine::clock::Moment::NOW).unwrap().unwrap();
            assert_eq!(found, number.to_le_bytes());
        }
        assert!(engine.verify().unwrap().is_clean());
    }

    #[test]
    fn a_long_transaction_leaves_shortcuts_too() {
        let engine = Arc::new(Engine::in_memory(Settings::default()).unwrap());
        engine.put(DEFAULT_MAP, KEY, b"before", None).unwrap();
        let pin = engine.pin().unwrap();
        let mut batch = Batch::begin(Arc::clone(&engine)).unwrap();
        for number in 0..50_000u32 {
            batch.put(DEFAULT_MAP, KEY, &number.to_le_bytes(), None).unwrap();
        }
        batch.commit_as_usual().unwrap();
        let (steps, value) = find(&engine, pin.seq());
        assert_eq!(value, b"before");
        assert!(steps <= engine.settings.limits.commits_a_look + 3 * 16, "{steps} steps");
        drop(pin);
    }

    #[test]
    fn what_may_have_been_reused_is_not_looked_at() {
        let engine = Engine::in_memory(Settings::default()).unwrap();
        engine.put(DEFAULT_MAP, KEY, b"0", None).unwrap();
        let pin = engine.pin().unwrap();
        let newest = || {
            let index = engine.index_in_force(DEFAULT_MAP).unwrap();
            let found = engine.probe(&index, DEFAULT_MAP, KeyHash::of(KEY, engine.seed), KEY).unwrap();
            let Some(Probe::Found(_, newest)) = found else { panic!("the key has no slot") };
            log::record(&engine.mapping, newest).unwrap()
        };
        while newest().shortcut().is_none_or(|shortcut| !ends_in_two(shortcut.depth()) || shortcut.depth() < 6) {
            engine.put(DEFAULT_MAP, KEY, b"1", None).unwrap();
        }
        let over_two = engine.make_shortcut(newest()).unwrap().unwrap();
        assert_eq!(over_two.depth(), newest().shortcut().unwrap().depth() + 1);
        assert!(over_two.target_seq() < newest().shortcut().unwrap().target_seq());
        // As if the target had been freed: its place may now hold anything, even a record of this key.
        let visible = engine.visible().unwrap();
        engine.mapping.store_live(live::REUSED_BELOW, visible.count(), Ordering::Relaxed).unwrap();
        let anew = engine.make_shortcut(newest()).unwrap().unwrap();
        assert_eq!((anew.depth(), anew.target_offset()), (1, newest().offset));
        drop(pin);
    }

    #[test]
    fn shortcuts_do_not_lead_into_what_was_reused() {
        // Snapshots come and go at random, while all of the log is cleaned and used again many times over.
        let settings = Settings { limits: Limits::tiny(), ..Settings::default() };
        let engine = Arc::new(Engine::in_memory(settings).unwrap());
        let mut random = 7u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut views = Vec::new();
        let mut shortcuts = 0;
        for number in 0..40_000u32 {
            engine.put(DEFAULT_MAP, KEY, &number.to_le_bytes(), None).unwrap();
            engine.put(DEFAULT_MAP, &below(40).to_le_bytes(), &[7; 200], None).unwrap();
            if views.len() < 4 && below(200) == 0 {
                views.push((engine.pin().unwrap(), number));
            }
            for (pin, number) in &views {
                let (steps, value) = find(&engine, pin.seq());
                assert_eq!(value, number.to_le_bytes());
                shortcuts += u32::from(steps > 5);
            }
            if !views.is_empty() && below(300) == 0 {
                views.swap_remove(below(views.len() as u64) as usize);
            }
        }
        assert!(shortcuts > 100, "there were long chains");
        let reused_below = engine.mapping.live(live::REUSED_BELOW).unwrap();
        assert!(reused_below > (engine.visible().unwrap().count()) / 2, "the log was used again");
    }

    #[test]
    fn shortcuts_take_a_logarithmic_number_of_steps() {
        // Where the shortcut of each depth leads, by the writers' rule.
        let mut targets = vec![0u64];
        for depth in 1..100_000u64 {
            let before = depth - 1;
            let target = match before {
                0 => 0,
                _ if ends_in_two(before) => targets[targets[before as usize] as usize],
                _ => before,
            };
            assert_eq!(target, depth - smallest_part(depth), "of depth {depth}");
            targets.push(target);
        }
        for goal in (0..100_000).step_by(997) {
            let (mut at, mut steps) = (99_999u64, 0);
            while at != goal {
                at = if targets[at as usize] >= goal { targets[at as usize] } else { at - 1 };
                steps += 1;
            }
            assert!(steps <= 3 * 17, "{steps} steps to {goal}");
        }
    }
}
