//! A lasting view of one commit.

use crate::file::layout::{MapId, Seq};
use std::sync::Arc;

use super::cursor::{Cursor, Step};
use super::pins::Pin;
use crate::engine::Engine;
use crate::engine::clock::{Moment, now};
use crate::error::Result;
use crate::file::index::{Index, Lines};
use crate::file::log::{Record, Wanted};

/// A key, its value and its deadline.
type WithDeadline<'e> = (&'e [u8], &'e [u8], Option<u64>);

/// A store as one commit left it, for as long as this lives. It keeps the file open, and may go from thread to thread.
pub(crate) struct Pinned {
    pin: Pin<Arc<Engine>>,
    /// The time at which deadlines are looked at, so that what is seen does not change.
    at: Moment,
}

impl Pinned {
    /// The commit that a pin sees.
    pub(crate) fn new(pin: Pin<Arc<Engine>>) -> Result<Pinned> {
        let since = now();
        let pinned = Pinned { pin, at: Moment::fixed(since) };
        pinned.pin.date(since)?;
        Ok(pinned)
    }

    /// The last visible commit.
    pub(crate) fn here(engine: &Arc<Engine>) -> Result<Pinned> {
        Pinned::new(Pin::take(Arc::clone(engine))?)
    }

    #[inline(always)]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.pin.engine()
    }

    /// Its sequence number.
    pub(crate) fn seq(&self) -> Seq {
        self.pin.seq()
    }

    /// The index of a map as of this commit.
    pub(crate) fn index(&self, map: MapId) -> Result<Option<Index<'_>>> {
        self.engine().check_not_forked()?;
        self.engine().index_at(map, self.seq())
    }

    /// The record that holds the value of a key.
    pub(crate) fn get(&self, lines: Lines, map: MapId, key: &[u8]) -> Result<Option<Record<'_>>> {
        self.engine().lookup(lines, Wanted { map, key, seq: self.seq() }, self.at)
    }

    /// The value of a key.
    #[inline(always)]
    pub(crate) fn value_of(&self, lines: Lines, map: MapId, key: &[u8]) -> Result<Option<&[u8]>> {
        let wanted = Wanted { map, key, seq: self.seq() };
        self.engine().value_of(lines, wanted, self.at)
    }

    /// Calls `found` with the values of many keys, in their order.
    pub(crate) fn values_of<'s, K: AsRef<[u8]>>(
        &'s self,
        lines: Option<Lines>,
        map: MapId,
        keys: &[K],
        mut found: impl FnMut(Option<&'s [u8]>) -> Result<()>,
    ) -> Result<()> {
        match lines {
            Some(lines) => self.engine().values_of(lines, (map, self.seq(), self.at), keys, found),
            None => keys.iter().try_for_each(|_| found(None)),
        }
    }

    /// The record that holds the value of a key, in an index that is looked up first.
    #[inline]
    pub(crate) fn find(&self, map: MapId, key: &[u8]) -> Result<Option<Record<'_>>> {
        match self.index(map)? {
            Some(index) => self.get(index.as_lines(), map, key),
            None => Ok(None),
        }
    }

    /// Key and value of the next entry of an iteration.
    #[inline(always)]
    pub(crate) fn next_entry(&self, cursor: &mut Cursor) -> Option<Result<(&[u8], &[u8])>> {
        let engine = self.engine();
        if !engine.is_forked() {
            match cursor.step(engine, self.seq()) {
                Step::Entry(key, value) => return Some(Ok((key, value))),
                Step::End => return None,
                Step::Unclear => {}
            }
        }
        self.next_entry_the_long_way(cursor)
    }

    /// Key, value and deadline of the next entry of an iteration.
    #[inline(always)]
    pub(crate) fn next_with_deadline(&self, cursor: &mut Cursor) -> Option<Result<WithDeadline<'_>>> {
        let engine = self.engine();
        if !engine.is_forked() {
            match cursor.step(engine, self.seq()) {
                Step::Entry(key, value) => return Some(Ok((key, value, None))),
                Step::End => return None,
                Step::Unclear => {}
            }
        }
        Some(self.next(cursor)?.map(|record| (record.key(), record.value(), record.expires())))
    }

    #[cold]
    #[inline(never)]
    fn next_entry_the_long_way(&self, cursor: &mut Cursor) -> Option<Result<(&[u8], &[u8])>> {
        Some(self.next(cursor)?.map(|record| (record.key(), record.value())))
    }

    /// The record of the next key of an iteration.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Option<Result<Record<'_>>> {
        match self.engine().check_not_forked() {
            Ok(()) => cursor.next(self.engine(), self.seq(), self.at),
            // A loop that passes over errors must come to an end.
            Err(error) => cursor.end().then_some(Err(error)),
        }
    }
}
