//! Reading: a key's record at a sequence number.

use super::Engine;
use super::expiry::Moment;
use super::pins::Pin;
use crate::error::Result;
use crate::file::index::{Index, Totals};
use crate::file::layout::{KeyHash, Kind, live};
use crate::file::log::{self, Record};

/// A pinned view of one commit. Gives the pin back when it is dropped.
pub(crate) struct View<'e> {
    engine: &'e Engine,
    pin: Pin,
}

impl Drop for View<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.engine.unpin(&self.pin);
    }
}

impl<'e> View<'e> {
    /// The record that holds the value of a key.
    #[inline(always)]
    pub(crate) fn get(&self, map: u32, key: &[u8]) -> Result<Option<Record<'_>>> {
        match self.engine.index_at(map, self.pin.seq)? {
            Some(index) => self.engine.lookup(&index, map, self.pin.seq, key, Moment::NOW),
            None => Ok(None),
        }
    }
}

impl Engine {
    /// A view of the last visible commit.
    #[inline(always)]
    pub(crate) fn view(&self) -> Result<View<'_>> {
        Ok(View { engine: self, pin: self.pin_here()? })
    }

    /// What `f` makes of the value of a key, and its deadline, if it has one. `f` sees the value in place, or if the store was
    /// opened for reading, a copy.
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
        let (pin, _, totals) = self.pin_with_totals(map)?;
        self.unpin(&pin);
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
    fn older_index<'a>(&self, newest: Index<'a>, seq: u64) -> Result<Option<Index<'a>>> {
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

    /// The counters of a map and the pin that they belong to: together a view of one commit.
    pub(crate) fn pin_with_totals(&self, map: u32) -> Result<(Pin, Option<Index<'_>>, Totals)> {
        loop {
            let pin = self.pin()?;
            let found = (|| {
                let Some(index) = self.index_at(map, pin.seq)? else {
                    return Ok(Some((None, Totals::default())));
                };
                Ok(index.totals_at(pin.seq)?.map(|totals| (Some(index), totals)))
            })();
            match found {
                Ok(Some((index, totals))) => return Ok((pin, index, totals)),
                // Two commits came in between: begin again with a newer view.
                Ok(None) => {
                    self.unpin(&pin);
                    if self.visible()? == pin.seq {
                        return Err(self.region.corrupt(live::MAP_TABLE, format!("map {map} has lost its counters")));
                    }
                }
                Err(error) => {
                    self.unpin(&pin);
                    return Err(error);
                }
            }
        }
    }
}
