//! A commit that somebody keeps looking at.

use std::sync::Arc;

use super::expiry::Moment;
use super::pins::Pin;
use super::{Engine, now};
use crate::error::Result;
use crate::file::index::Index;
use crate::file::log::Record;

/// A store as one commit left it, for as long as this lives. It keeps the file open, and may go from thread to thread.
pub(crate) struct Pinned {
    pub(crate) engine: Arc<Engine>,
    pin: Pin,
    /// The time at which deadlines are looked at, so that what is seen does not change.
    at: Moment,
}

impl Pinned {
    /// Takes over a pin of the engine.
    pub(crate) fn new(engine: &Arc<Engine>, pin: Pin) -> Result<Pinned> {
        let since = now();
        let pinned = Pinned { engine: Arc::clone(engine), pin, at: Moment::fixed(since) };
        engine.date_pin(&pinned.pin, since)?;
        Ok(pinned)
    }

    /// The last visible commit.
    pub(crate) fn here(engine: &Arc<Engine>) -> Result<Pinned> {
        Pinned::new(engine, engine.pin()?)
    }

    /// Its sequence number.
    pub(crate) fn seq(&self) -> u64 {
        self.pin.seq
    }

    /// The time that it belongs to.
    pub(crate) fn at(&self) -> Moment {
        self.at
    }

    /// The index of a map as of this commit.
    pub(crate) fn index(&self, map: u32) -> Result<Option<Index<'_>>> {
        self.engine.check_not_forked()?;
        self.engine.index_at(map, self.pin.seq)
    }

    /// The record that holds the value of a key.
    #[inline]
    pub(crate) fn get(&self, index: &Index<'_>, map: u32, key: &[u8]) -> Result<Option<Record<'_>>> {
        self.engine.lookup(index, map, self.pin.seq, key, self.at)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // It is the parent's.
            return;
        }
        // It only informs; without it the pin looks older than it is.
        let _ = self.engine.date_pin(&self.pin, 0);
        self.engine.unpin(&self.pin);
    }
}
