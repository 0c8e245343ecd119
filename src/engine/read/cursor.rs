//! Iteration over a map as one commit left it.

use std::collections::VecDeque;

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::engine::lookup::keys::prefetch_record;
use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::KeyHash;
use crate::file::log::{self, Record};

/// Up to how many records an iteration asks the memory for ahead of their use, again when half of them are left.
const AHEAD: usize = 32;

/// A place in an iteration. It borrows nothing, so that an iterator can own what it iterates over; whoever uses it
/// holds a pin, or the writer lock.
#[derive(Debug)]
pub(crate) struct Cursor {
    map: u32,
    /// Where the region of its index is, if there is one, as a word of the map table.
    extent: Option<u64>,
    /// The next line, and how many there are to come.
    line: u64,
    left: u64,
    /// Records that were asked for and not yet looked at.
    ahead: VecDeque<(u64, KeyHash)>,
}

impl Cursor {
    /// At the beginning of the index of a map.
    pub(crate) fn new(map: u32, index: Option<&Index<'_>>) -> Cursor {
        Cursor {
            map,
            extent: index.map(Index::extent),
            line: 0,
            left: index.map_or(0, Index::lines),
            ahead: VecDeque::new(),
        }
    }

    /// Somewhere in an index, which is gone around once.
    pub(crate) fn from_somewhere(map: u32, index: Option<&Index<'_>>, seed: u64) -> Cursor {
        let cursor = Cursor::new(map, index);
        // Fibonacci hashing: near seeds lead to far places.
        let line = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % cursor.left.max(1);
        Cursor { line, ..cursor }
    }

    fn look_ahead(&mut self, engine: &Engine, least: usize) -> Result<()> {
        let Some(extent) = self.extent else { return Ok(()) };
        let index = Index::of_extent(&engine.region, extent)?;
        while self.ahead.len() < least && self.left > 0 {
            let line = self.line;
            (self.line, self.left) = (if line + 1 == index.lines() { 0 } else { line + 1 }, self.left - 1);
            for slot in index.slots_of_lines(line, line + 1) {
                let slot = slot?;
                if let Some(record) = slot.record {
                    prefetch_record(engine.region.window(), record);
                    self.ahead.push_back((record, slot.hash));
                }
            }
        }
        Ok(())
    }

    /// The newest record of the next key, whatever it is.
    #[inline]
    pub(crate) fn next_newest<'e>(&mut self, engine: &'e Engine) -> Option<Result<Record<'e>>> {
        if self.ahead.len() < AHEAD / 2
            && let Err(error) = self.look_ahead(engine, AHEAD)
        {
            return Some(Err(error));
        }
        let (offset, hash) = self.ahead.pop_front()?;
        let newest = log::record(&engine.region, offset).and_then(|newest| {
            // Here nobody asks for a key, so it is the slot that says whether the record has the right one.
            if KeyHash::of(newest.key(), engine.seed) == hash && newest.header.map() == self.map {
                Ok(newest)
            } else {
                Err(engine.region.corrupt(offset, "the record has another key, or map, than its slot says"))
            }
        });
        Some(newest)
    }

    /// The record of the next key that has a value at `seq` and at this time. An error is one of that key; the
    /// iteration goes on behind it.
    #[inline]
    pub(crate) fn next<'e>(&mut self, engine: &'e Engine, seq: u64, at: Moment) -> Option<Result<Record<'e>>> {
        loop {
            match self.next_newest(engine)?.and_then(|newest| engine.version_at(newest, seq, at)) {
                Ok(None) => {}
                Ok(Some(record)) => return Some(Ok(record)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
