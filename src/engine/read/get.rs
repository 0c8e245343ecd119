//! Reading one key, and counting them.

use std::ops::Deref;

use super::pins::{Pin, View};
use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::error::Result;
use crate::file::index::{Index, Totals};
use crate::file::layout::{KeyHash, Kind, live};
use crate::file::log::{self, Record};

impl View<'_> {
    /// The record that holds the value of a key.
    #[inline(always)]
    pub(crate) fn get(&self, map: u32, key: &[u8]) -> Result<Option<Record<'_>>> {
        let (engine, seq) = (self.engine(), self.seq());
        match engine.index_at(map, seq)? {
            Some(index) => engine.lookup(&index, map, seq, key, Moment::NOW),
            None => Ok(None),
        }
    }
}

impl Engine {
    /// What `f` makes of the value of a key, and its deadline, if it has one. `f` sees the value in place, or if the
    /// store was opened for reading, a copy.
    #[inline(always)]
    pub(crate) fn read<R>(&self, map: u32, key: &[u8], f: impl FnOnce(&[u8], Option<u64>) -> R) -> Result<Option<R>> {
        if self.read_only {
            return Ok(self.get_unpinned(map, key)?.map(|(value, expires)| f(&value, expires)));
        }
        let view = self.view()?;
        Ok(view.get(map, key)?.map(|record| f(record.value(), record.expires())))
    }

    /// How many keys a map has, those included that have expired and were not removed yet.
    pub(crate) fn len(&self, map: u32) -> Result<u64> {
        if self.read_only {
            return self.len_unpinned(map);
        }
        let (_, _, totals) = Pin::with_totals(self, map)?;
        Ok(totals.keys)
    }

    /// The index that tells the truth about a map at `seq`. The caller's pin keeps it.
    #[inline(always)]
    pub(crate) fn index_at(&self, map: u32, seq: u64) -> Result<Option<Index<'_>>> {
        match self.index(map)? {
            Some(index) if index.since() > seq => self.older_index(index, seq),
            index => Ok(index),
        }
    }

    #[cold]
    pub(crate) fn older_index<'a>(&self, newest: Index<'a>, seq: u64) -> Result<Option<Index<'a>>> {
        let mut index = Some(newest);
        while let Some(newer) = index.filter(|index| index.since() > seq) {
            index = newer.previous()?.filter(|older| older.since() < newer.since());
        }
        Ok(index)
    }

    /// Whether the record at `offset` has this key.
    #[inline(always)]
    pub(crate) fn is_key(&self, map: u32, key: &[u8], offset: u64) -> Result<bool> {
        let record = log::record(&self.region, offset)?;
        Ok(record.key() == key && record.header.map() == map)
    }

    /// The record that holds the value of a key at `seq` and at this time.
    #[inline(always)]
    pub(crate) fn lookup(
        &self,
        index: &Index<'_>,
        map: u32,
        seq: u64,
        key: &[u8],
        at: Moment,
    ) -> Result<Option<Record<'_>>> {
        let newest = index.find(
            KeyHash::of(key, self.seed),
            #[inline(always)]
            |offset| {
                // The value is wanted as soon as the key fits; where it is shows only when the header is there.
                self.region.prefetch(offset + 64);
                self.region.prefetch(offset + 128);
                let record = log::record(&self.region, offset)?;
                Ok((record.key() == key && record.header.map() == map).then_some(record))
            },
        )?;
        match newest {
            Some(newest) => self.version_at(newest, seq, at),
            None => Ok(None),
        }
    }

    /// The version of a record's key that was the newest at `seq`, if that was a value and is one at this time.
    #[inline(always)]
    pub(crate) fn version_at<'a>(&'a self, newest: Record<'a>, seq: u64, at: Moment) -> Result<Option<Record<'a>>> {
        let mut record = newest;
        if record.seq() > seq {
            match self.older_version(record, seq)? {
                Some(older) => record = older,
                None => return Ok(None),
            }
        }
        match record.kind() {
            Some(Kind::Put) if !self.settings.verify_reads || record.crc_holds() => {
                Ok(if record.is_expired(at) { None } else { Some(record) })
            }
            Some(Kind::Remove) => Ok(None),
            kind => Err(self.damaged(record, kind)),
        }
    }

    #[cold]
    fn damaged(&self, record: Record<'_>, kind: Option<Kind>) -> crate::Error {
        let what = if kind == Some(Kind::Put) {
            "the CRC of the record does not hold"
        } else {
            "expected a record with a key"
        };
        self.region.corrupt(record.offset, what)
    }
}

impl<E: Deref<Target = Engine> + Clone> Pin<E> {
    /// A pin, and the counters of a map at its commit. Besides, where the region of the map's index is, if it has one,
    /// as a word of the map table.
    pub(crate) fn with_totals(engine: E, map: u32) -> Result<(Pin<E>, Option<u64>, Totals)> {
        loop {
            let pin = Pin::take(engine.clone())?;
            let Some(index) = engine.index_at(map, pin.seq())? else { return Ok((pin, None, Totals::default())) };
            if let Some(totals) = index.totals_at(pin.seq())? {
                let extent = index.extent();
                return Ok((pin, Some(extent), totals));
            }
            // Two commits came in between: begin again with a newer view.
            if engine.visible()? == pin.seq() {
                return Err(engine.region.corrupt(live::MAP_TABLE, format!("map {map} has lost its counters")));
            }
        }
    }
}
