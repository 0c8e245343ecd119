//! Iteration over a map as one commit left it.

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::lookup::keys::prefetch_record;
use crate::error::Result;
use crate::file::index::{Index, Lines};
use crate::file::layout::{KeyHash, MapId, Offset, SLOTS, Seq};
use crate::file::log::{self, Record};

/// An iteration prefetches at least this many records, and this many lines. Twice as many records would get in each
/// other's way: a processor has some two dozen cache misses under way, and a record lies in up to four cache lines.
const RECORDS_AHEAD: usize = 24;
const LINES_AHEAD: u64 = 2;

/// A place in an iteration. It borrows nothing, so that an iterator can own what it iterates over; its user holds a
/// pin, or the writer lock.
#[derive(Debug)]
pub(crate) struct Cursor {
    map: MapId,
    /// Where the region of its index is, if there is one, as a word of the map table.
    extent: Option<u64>,
    /// The next line, and how many there are to come.
    line: u64,
    left: u64,
    ahead: Ahead,
}

/// Records that were prefetched and not yet looked at, in a ring.
#[derive(Debug)]
struct Ahead {
    records: Box<[(Offset, KeyHash); Ahead::ROOM]>,
    first: usize,
    len: usize,
}

impl Ahead {
    /// A power of two.
    const ROOM: usize = 32;

    fn new() -> Ahead {
        Ahead { records: Box::new([(Offset::NONE, KeyHash::from_parts(0, 0)); Ahead::ROOM]), first: 0, len: 0 }
    }

    /// There must be room.
    #[inline(always)]
    fn enqueue(&mut self, record: Offset, hash: KeyHash) {
        self.records[(self.first + self.len) % Ahead::ROOM] = (record, hash);
        self.len += 1;
    }

    #[inline(always)]
    fn first(&self) -> Option<(Offset, KeyHash)> {
        (self.len > 0).then(|| self.records[self.first % Ahead::ROOM])
    }

    #[inline(always)]
    fn take_first(&mut self) {
        (self.first, self.len) = ((self.first + 1) % Ahead::ROOM, self.len - 1);
    }
}

const _: () = assert!(RECORDS_AHEAD + SLOTS <= Ahead::ROOM && Ahead::ROOM.is_power_of_two());

/// The outcome of an iteration's short way.
pub(crate) enum Step<'e> {
    /// The next key and its value, which does not expire.
    Entry(&'e [u8], &'e [u8]),
    End,
    /// The [long way](Cursor::next) has to be taken.
    Unclear,
}

impl Cursor {
    /// A cursor at the beginning of the index of a map.
    pub(crate) fn new(map: MapId, index: Option<&Index<'_>>) -> Cursor {
        Cursor {
            map,
            extent: index.map(Index::extent),
            line: 0,
            left: index.map_or(0, Index::lines),
            ahead: Ahead::new(),
        }
    }

    /// A cursor somewhere in an index, which goes around it once.
    pub(crate) fn from_somewhere(map: MapId, index: Option<&Index<'_>>, seed: u64) -> Cursor {
        let cursor = Cursor::new(map, index);
        // Fibonacci hashing: near seeds lead to far places.
        let line = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % cursor.left.max(1);
        Cursor { line, ..cursor }
    }

    /// Ends the iteration, and says whether there was anything left.
    #[cold]
    pub(crate) fn end(&mut self) -> bool {
        let had_more = self.left > 0 || self.ahead.len > 0;
        (self.left, self.ahead.len) = (0, 0);
        had_more
    }

    /// Prefetches records. `false` if it came to a line that could not be read, which is then still to come.
    #[inline(never)]
    fn look_ahead(&mut self, engine: &Engine) -> bool {
        let Some(extent) = self.extent else { return true };
        let (window, lines) = (engine.mapping.window(), Lines::of_extent(extent));
        while self.ahead.len < RECORDS_AHEAD && self.left > 0 {
            lines.prefetch(window, self.line + LINES_AHEAD);
            let ask = |record, hash| {
                prefetch_record(window, record);
                self.ahead.enqueue(record, hash);
            };
            if lines.records_of(window, self.line, ask).is_none() {
                return false;
            }
            self.pass_line(lines);
        }
        true
    }

    fn pass_line(&mut self, lines: Lines) {
        (self.line, self.left) = (if self.line + 1 == lines.count() { 0 } else { self.line + 1 }, self.left - 1);
    }

    /// The same for a line that the last look at the file's length did not cover. An error belongs to that line.
    #[cold]
    fn look_further(&mut self, engine: &Engine) -> Result<()> {
        let Some(extent) = self.extent else { return Ok(()) };
        let line = self.line;
        self.pass_line(Lines::of_extent(extent));
        for slot in Index::of_extent(&engine.mapping, extent)?.slots_of_lines(line, line + 1) {
            let slot = slot?;
            if let Some(record) = slot.record {
                self.ahead.enqueue(record, slot.hash);
            }
        }
        Ok(())
    }

    /// The next key that has a value at `seq`, the short way.
    #[inline(always)]
    pub(crate) fn step<'e>(&mut self, engine: &'e Engine, seq: Seq) -> Step<'e> {
        if self.ahead.len < RECORDS_AHEAD && self.left > 0 && !self.look_ahead(engine) || engine.settings.verify_reads {
            return Step::Unclear;
        }
        let Some((record, hash)) = self.ahead.first() else { return Step::End };
        match log::glance_at_entry(engine.mapping.window(), record, self.map, seq) {
            // No key is given here, so the hash of the slot tells whether the record is the right one.
            Some((key, value)) if KeyHash::of(key, engine.seed) == hash => {
                self.ahead.take_first();
                Step::Entry(key, value)
            }
            _ => Step::Unclear,
        }
    }

    /// The newest record of the next key, of whatever kind.
    pub(crate) fn next_newest<'e>(&mut self, engine: &'e Engine) -> Option<Result<Record<'e>>> {
        while !self.look_ahead(engine) {
            if let Err(error) = self.look_further(engine) {
                return Some(Err(error));
            }
        }
        let (offset, hash) = self.ahead.first()?;
        self.ahead.take_first();
        let newest = log::record(&engine.mapping, offset).and_then(|newest| {
            // As above.
            if newest.hash(engine.seed) == hash && newest.header.map() == self.map {
                Ok(newest)
            } else {
                Err(engine.mapping.corrupt(offset, "the record has another key, or map, than its slot says"))
            }
        });
        Some(newest)
    }

    /// The record of the next key that has a value at `seq` and at this time. An error belongs to that key; the
    /// iteration continues after it.
    pub(crate) fn next<'e>(&mut self, engine: &'e Engine, seq: Seq, at: Moment) -> Option<Result<Record<'e>>> {
        loop {
            match self.next_newest(engine)?.and_then(|newest| engine.version_at(newest, seq, at)) {
                Ok(None) => {}
                Ok(Some(record)) => return Some(Ok(record)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
