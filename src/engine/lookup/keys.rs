//! Keys: the record of a key, for one who holds a pin or the writer lock.

use crate::engine::Engine;
use crate::engine::clock::Moment;
use crate::error::Result;
use crate::file::index::{Index, Probe};
use crate::file::layout::{KeyHash, Kind};
use crate::file::log::{self, Record};

impl Engine {
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

    /// Looks a key up for the holder of the writer lock.
    #[inline]
    pub(crate) fn probe(&self, index: &Index<'_>, map: u32, hash: KeyHash, key: &[u8]) -> Result<Option<Probe>> {
        index.probe(hash, |offset| self.is_key(map, key, offset))
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

    /// The record that holds the value of a key, for the holder of the writer lock.
    pub(crate) fn value_in_turn(&self, map: u32, key: &[u8]) -> Result<Option<Record<'_>>> {
        let index = self.index_for_writing(map)?;
        match self.probe(&index, map, KeyHash::of(key, self.seed), key)? {
            Some(Probe::Found(_, newest)) => self.version_at(log::record(&self.region, newest)?, u64::MAX, Moment::NOW),
            _ => Ok(None),
        }
    }
}
