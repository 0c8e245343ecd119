//! A commit that somebody keeps looking at.

use std::sync::Arc;

use super::cursor::{Cursor, prefetch_record};
use super::pins::Pin;
use crate::engine::Engine;
use crate::engine::clock::{Moment, now};
use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::KeyHash;
use crate::file::log::Record;

/// How many keys are looked up side by side.
const ABREAST: usize = 32;

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
    pub(crate) fn seq(&self) -> u64 {
        self.pin.seq()
    }

    /// The index of a map as of this commit.
    pub(crate) fn index(&self, map: u32) -> Result<Option<Index<'_>>> {
        self.engine().check_not_forked()?;
        self.engine().index_at(map, self.seq())
    }

    /// The record that holds the value of a key.
    #[inline]
    pub(crate) fn get(&self, index: &Index<'_>, map: u32, key: &[u8]) -> Result<Option<Record<'_>>> {
        self.engine().lookup(index, map, self.seq(), key, self.at)
    }

    /// The record that holds the value of a key, in an index that is looked up first.
    #[inline]
    pub(crate) fn find(&self, map: u32, key: &[u8]) -> Result<Option<Record<'_>>> {
        match self.index(map)? {
            Some(index) => self.get(&index, map, key),
            None => Ok(None),
        }
    }

    /// Looks up many keys, and calls `found` with the record of each, in their order.
    pub(crate) fn get_many<'p, K: AsRef<[u8]>>(
        &'p self,
        index: Option<&Index<'p>>,
        map: u32,
        keys: &[K],
        mut found: impl FnMut(Option<Record<'p>>) -> Result<()>,
    ) -> Result<()> {
        let Some(index) = index else { return keys.iter().try_for_each(|_| found(None)) };
        let engine: &Engine = self.engine();
        for keys in keys.chunks(ABREAST) {
            let hash = |key: &K| KeyHash::of(key.as_ref(), engine.seed);
            keys.iter().for_each(|key| index.prefetch(hash(key)));
            for key in keys {
                // The first slot whose tag fits is nearly always the right one.
                if let Some(record) = index.find(hash(key), |record| Ok(Some(record)))? {
                    prefetch_record(&engine.region, record);
                }
            }
            for key in keys {
                found(self.get(index, map, key.as_ref())?)?;
            }
        }
        Ok(())
    }

    /// The record of the next key of an iteration.
    #[inline]
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Option<Result<Record<'_>>> {
        match self.engine().check_not_forked() {
            Ok(()) => cursor.next(self.engine(), self.seq(), self.at),
            Err(error) => Some(Err(error)),
        }
    }
}
