//! Reading ahead: what walks along the file asks for what comes next.
//!
//! A mapping is advised to be read at random, so the system reads the page that is missing and nothing around it. A
//! read of a key wants no more; for a walk along the log that would be a wait for each page.

use std::sync::PoisonError;

use super::{Backing, Mapping, Offset, os};

/// Bytes that are asked for at once.
const PIECE: u64 = 4 << 20;
/// A walk of fewer bytes asks for nothing: mostly, what was just written.
const SHORT: u64 = 64 << 10;

/// How far a walk along the file has asked for what it will read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAhead {
    /// As long as it is in this range, enough was asked for.
    from: Offset,
    to: Offset,
}

impl ReadAhead {
    /// Of a walk that begins there.
    #[inline]
    pub(crate) fn of_walk(at: Offset) -> ReadAhead {
        ReadAhead { from: at, to: Offset(at.0.saturating_add(SHORT)) }
    }

    /// The walk is there.
    #[inline(always)]
    pub(crate) fn pass(&mut self, mapping: &Mapping, at: Offset) {
        if at < self.from || at >= self.to {
            self.ask(mapping, at);
        }
    }

    #[cold]
    fn ask(&mut self, mapping: &Mapping, at: Offset) {
        mapping.will_need(at, PIECE);
        (self.from, self.to) = (at, Offset(at.0.saturating_add(PIECE / 2)));
    }
}

/// How far an iteration has asked for the file. It reads all records, in an order of which the file knows nothing, so
/// it asks for the whole, from front to back and faster than it goes on, as long as that fits into memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeFile {
    asked: u64,
    /// Pieces to ask for next.
    pieces: u64,
}

impl WholeFile {
    /// Nothing was asked for.
    pub(crate) fn unread() -> WholeFile {
        WholeFile { asked: 0, pieces: 1 }
    }

    /// Asks for the next pieces, twice as many each time, except those that seem to be in memory.
    pub(crate) fn ask(&mut self, mapping: &Mapping) {
        if self.asked == 0 && mapping.len() > os::memory() / 2 {
            self.asked = u64::MAX;
        }
        let left = mapping.len().saturating_sub(self.asked).div_ceil(PIECE);
        for _ in 0..self.pieces.min(left) {
            if !mapping.is_in_memory(Offset(self.asked + PIECE / 2)) {
                mapping.will_need(Offset(self.asked), PIECE);
            }
            self.asked += PIECE;
        }
        self.pieces = self.pieces.saturating_mul(2);
    }
}

impl Mapping {
    /// Whether what lies there is in memory. If that cannot be told, it is.
    fn is_in_memory(&self, offset: Offset) -> bool {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.last().is_none_or(|span| span.is_in_memory(offset.0 as usize))
    }

    /// Has the system read a part of the file ahead of its use. It is only a hint, for any offset.
    #[cold]
    pub(crate) fn will_need(&self, offset: Offset, len: u64) {
        if matches!(self.backing, Backing::File(_) | Backing::ReadOnlyFile(_)) {
            let len = len.min(self.len().saturating_sub(offset.0));
            let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(span) = spans.last() {
                span.will_need(offset.0 as usize, len as usize);
            }
        }
    }
}
