//! Keys: the record of a key, for a caller with a pin or the writer lock.
//!
//! Readers have two ways. The short one ([`Engine::sight_of`]) is inlined into each caller, knows only the usual record
//! and returns nothing through memory. Everything else takes the long one ([`Engine::lookup`]) from the start, which
//! finds everything and can fail.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::error::Result;
use crate::file::index::{Index, Lines, Probe, Searched};
use crate::file::layout::{KeyHash, Kind, MapId, Offset, Seq, live};
use crate::file::log::{self, Glance, Record, Wanted};
use crate::file::mapping::Window;
use crate::file::table::MapTable;

/// The defect of a record in quarantine.
pub(crate) const WAS_DAMAGED: &str = "the value of this key was damaged when compaction came to it";

/// How many keys are looked up side by side.
pub(crate) const ABREAST: usize = 32;

/// The outcome of the short way.
pub(crate) enum Sight<'e> {
    /// The value of the key, which does not expire.
    Value(&'e [u8]),
    /// The key has none.
    Nothing,
    /// The long way has to be taken.
    Unclear,
}

/// Asks for the first cache lines of a record; all of it, if it is a small one.
#[inline(always)]
pub(crate) fn prefetch_record(window: Window<'_>, record: Offset) {
    for line in 0..3 {
        window.prefetch(record + 64 * line);
    }
}

impl Engine {
    /// The index that is complete for a map at `seq`. The caller's pin keeps it.
    #[inline(always)]
    pub(crate) fn index_at(&self, map: MapId, seq: Seq) -> Result<Option<Index<'_>>> {
        match self.index(map)? {
            Some(index) if index.since() > seq => self.older_index(index, seq),
            index => Ok(index),
        }
    }

    #[cold]
    pub(crate) fn older_index<'a>(&self, newest: Index<'a>, seq: Seq) -> Result<Option<Index<'a>>> {
        let mut index = Some(newest);
        while let Some(newer) = index.filter(|index| index.since() > seq) {
            index = newer.previous()?.filter(|older| older.since() < newer.since());
        }
        Ok(index)
    }

    /// Whether the record at `offset` has this key.
    #[inline(always)]
    pub(crate) fn is_key(&self, map: MapId, key: &[u8], offset: Offset) -> Result<bool> {
        let record = log::record(&self.mapping, offset)?;
        Ok(record.header.map() == map && self.is_of_key(record, key))
    }

    /// Whether a record has this key, or may have had it before it was damaged.
    #[inline(always)]
    pub(crate) fn is_of_key(&self, record: Record<'_>, key: &[u8]) -> bool {
        if record.is_damaged() { self.may_have_had(record, key) } else { record.key() == key }
    }

    /// Whether the record at `offset` has the key of another one, each of which may have been damaged.
    #[inline(always)]
    pub(crate) fn has_key_of(&self, record: Record<'_>, offset: Offset) -> Result<bool> {
        if !record.is_damaged() || !record.key().is_empty() {
            return self.is_key(record.header.map(), record.key(), offset);
        }
        let other = log::record(&self.mapping, offset)?;
        Ok(other.header.map() == record.header.map() && other.hash(self.seed) == record.hash(self.seed))
    }

    /// Looks up the slot of a key. The caller holds the writer lock.
    #[inline(always)]
    pub(crate) fn probe(&self, index: &Index<'_>, map: MapId, hash: KeyHash, key: &[u8]) -> Result<Option<Probe>> {
        index.probe(hash, |offset| self.is_key(map, key, offset))
    }

    /// The lines of the index that is complete for a map at `seq`.
    #[inline(always)]
    pub(crate) fn lines_at(&self, map: MapId, seq: Seq) -> Result<Option<Lines>> {
        Ok(self.index_at(map, seq)?.map(|index| index.as_lines()))
    }

    /// The lines of the index in force, if it is found at once and is complete at `seq`.
    #[inline(always)]
    pub(crate) fn lines_at_a_glance(&self, window: Window<'_>, map: MapId, seq: Seq) -> Option<Lines> {
        if self.at_rest.is_some() {
            return None;
        }
        let [table] = window.words(live::MAP_TABLE)?;
        Lines::in_force_at(window, MapTable::glance(window, table.load(), map)?, seq)
    }

    /// Asks for the line of the index in force where the search for a key begins, if that is found at once. The caller
    /// holds the writer lock, or a pin.
    #[inline(always)]
    pub(crate) fn prefetch_line(&self, map: MapId, hash: KeyHash) {
        let window = self.mapping.window();
        if let Some(lines) = self.lines_at_a_glance(window, map, Seq::MAX) {
            lines.prefetch_first(window, hash);
        }
    }

    /// The same without lock and pin: nothing of the file may be looked at, which can become shorter at any time. So it
    /// is the line of the index that this process has [written to last](Engine::last_index).
    #[inline(always)]
    pub(crate) fn prefetch_line_unseen(&self, hash: KeyHash) {
        Lines::of_extent(self.last_index.load(Ordering::Relaxed)).prefetch_first(self.mapping.window(), hash);
    }

    /// Asks for the lines of some keys that are about to be changed, [`ABREAST`] at most, and then for the records that
    /// their slots lead to.
    pub(crate) fn prefetch_keys<K: AsRef<[u8]>>(&self, map: MapId, keys: impl Iterator<Item = K>) {
        let window = self.mapping.window();
        let Some(lines) = self.lines_at_a_glance(window, map, Seq::MAX) else { return };
        let (mut hashes, mut count) = ([KeyHash::from_parts(0, 0); ABREAST], 0);
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = KeyHash::of(key.as_ref(), self.seed);
            lines.prefetch_first(window, *hash);
            count += 1;
        }
        for hash in &hashes[..count] {
            if let Some(record) = lines.guess(window, *hash) {
                prefetch_record(window, record);
            }
        }
    }

    /// The value of a key, the short way.
    #[inline(always)]
    pub(crate) fn sight_of<'e>(&'e self, window: Window<'e>, lines: Lines, wanted: Wanted<'_>) -> Sight<'e> {
        let searched = lines.search(
            window,
            KeyHash::of(wanted.key, self.seed),
            #[inline(always)]
            |offset| {
                // The value is wanted as soon as the key fits; where it is shows only when the header is there.
                window.prefetch(offset + 64);
                window.prefetch(offset + 128);
                match log::glance(window, offset, wanted) {
                    Glance::Value(value) => ControlFlow::Break(Some(value)),
                    Glance::Another => ControlFlow::Continue(()),
                    Glance::Unclear => ControlFlow::Break(None),
                }
            },
        );
        match searched {
            Searched::Found(Some(value)) if self.plain_reads => Sight::Value(value),
            Searched::Found(Some(value)) if !self.settings.verify_reads => {
                self.mark(lines, wanted.map, wanted.key);
                Sight::Value(value)
            }
            Searched::Absent => Sight::Nothing,
            _ => Sight::Unclear,
        }
    }

    /// Marks a key as read, if this is a store that spares what was read.
    #[cold]
    #[inline(never)]
    fn mark(&self, lines: Lines, map: MapId, key: &[u8]) {
        if let Some(marks) = self.marks.as_ref().filter(|_| !self.read_only && self.at_rest.is_none()) {
            let hash = KeyHash::of(key, self.seed);
            marks.note(map, hash);
            lines.mark(&self.mapping, hash);
        }
    }

    /// The value of a key at this time.
    #[inline(always)]
    pub(crate) fn value_of(&self, lines: Lines, wanted: Wanted<'_>, at: Moment) -> Result<Option<&[u8]>> {
        match self.sight_of(self.mapping.window(), lines, wanted) {
            Sight::Value(value) => Ok(Some(value)),
            Sight::Nothing => Ok(None),
            Sight::Unclear => self.value_the_long_way(lines, (wanted.map, wanted.seq), wanted.key, at),
        }
    }

    /// [`Wanted`] comes field by field: as a whole, it would have to be in memory from the beginning.
    #[cold]
    #[inline(never)]
    fn value_the_long_way(
        &self,
        lines: Lines,
        (map, seq): (MapId, Seq),
        key: &[u8],
        at: Moment,
    ) -> Result<Option<&[u8]>> {
        Ok(self.lookup(lines, Wanted { map, key, seq }, at)?.map(|record| record.value()))
    }

    /// Calls `found` with the value of each of many keys at this time, in their order. The memory accesses of different
    /// keys overlap.
    pub(crate) fn values_of<'e, K: AsRef<[u8]>>(
        &'e self,
        lines: Lines,
        (map, seq, at): (MapId, Seq, Moment),
        keys: &[K],
        mut found: impl FnMut(Option<&'e [u8]>) -> Result<()>,
    ) -> Result<()> {
        for keys in keys.chunks(ABREAST) {
            let window = self.mapping.window();
            let mut hashes = [KeyHash::from_parts(0, 0); ABREAST];
            for (key, hash) in keys.iter().zip(&mut hashes) {
                *hash = KeyHash::of(key.as_ref(), self.seed);
                lines.prefetch_first(window, *hash);
            }
            let mut guesses = [Offset::NONE; ABREAST];
            for (hash, guess) in hashes[..keys.len()].iter().zip(&mut guesses) {
                *guess = lines.guess(window, *hash).unwrap_or_default();
                prefetch_record(window, *guess);
            }
            for (key, guess) in keys.iter().zip(guesses) {
                let wanted = Wanted { map, key: key.as_ref(), seq };
                match log::glance(window, guess, wanted) {
                    Glance::Value(value) if self.plain_reads => found(Some(value))?,
                    _ => found(self.value_of(lines, wanted, at)?)?,
                }
            }
        }
        Ok(())
    }

    /// The record that holds the value of a key at this time.
    pub(crate) fn lookup(&self, lines: Lines, wanted: Wanted<'_>, at: Moment) -> Result<Option<Record<'_>>> {
        let Wanted { map, key, seq } = wanted;
        let newest = lines.find(&self.mapping, KeyHash::of(key, self.seed), &mut |offset| {
            let record = log::record(&self.mapping, offset)?;
            Ok((record.header.map() == map && self.is_of_key(record, key)).then_some(record))
        })?;
        let Some(newest) = newest else { return Ok(None) };
        if !self.plain_reads {
            self.mark(lines, map, key);
        }
        self.version_at(newest, seq, at)
    }

    /// The version of a record's key that was the newest at `seq`, if that was a value and is one at this time.
    #[inline(always)]
    pub(crate) fn version_at<'a>(&'a self, newest: Record<'a>, seq: Seq, at: Moment) -> Result<Option<Record<'a>>> {
        let mut record = newest;
        if record.seq() > seq {
            match self.older_version(record, seq)? {
                Some(older) => record = older,
                None => return Ok(None),
            }
        }
        match record.kind() {
            Some(Kind::Put) if !record.is_damaged() && (!self.settings.verify_reads || record.crc_holds()) => {
                Ok(if record.is_expired(at) { None } else { Some(record) })
            }
            Some(Kind::Remove) => Ok(None),
            kind => Err(self.damaged(record, kind)),
        }
    }

    /// Refuses a record that was damaged when compaction came to it.
    pub(crate) fn check_undamaged(&self, record: Record<'_>) -> Result<()> {
        if record.is_damaged() { Err(self.damaged(record, record.kind())) } else { Ok(()) }
    }

    /// Refuses a record whose CRC does not hold. Before it is copied, above all: the copy gets a CRC of its own.
    pub(crate) fn check_crc(&self, record: Record<'_>) -> Result<()> {
        if record.crc_holds() { Ok(()) } else { Err(self.crc_error(record)) }
    }

    #[cold]
    fn crc_error(&self, record: Record<'_>) -> crate::Error {
        self.mapping.corrupt(record.offset, "the CRC of the record does not hold")
    }

    #[cold]
    fn damaged(&self, record: Record<'_>, kind: Option<Kind>) -> crate::Error {
        match kind {
            _ if record.is_damaged() => self.mapping.corrupt(record.offset, WAS_DAMAGED),
            Some(Kind::Put) => self.crc_error(record),
            _ => self.mapping.corrupt(record.offset, "expected a record with a key"),
        }
    }

    /// The record that holds the value of a key. The caller holds the writer lock.
    pub(crate) fn value_in_turn(&self, map: MapId, key: &[u8]) -> Result<Option<Record<'_>>> {
        let index = self.index_for_writing(map)?;
        match self.probe(&index, map, KeyHash::of(key, self.seed), key)? {
            Some(Probe::Found(_, newest)) => {
                self.version_at(log::record(&self.mapping, newest)?, Seq::MAX, Moment::NOW)
            }
            _ => Ok(None),
        }
    }
}
