//! Reading without a pin, for a store that is opened for reading and so cannot write one.
//!
//! A read copies what it finds, word by word, and looks at the horizon afterwards. If that has not passed the sequence
//! number that it reads at, nothing that it saw was being reused meanwhile; otherwise it reads again, with a lock
//! against that. This is a seqlock with the horizon for its counter (Boehm, *Can Seqlocks Get Along With Programming
//! Language Memory Models?*, 2012). Until the check passes, values and errors are both meaningless.

use std::sync::atomic::{Ordering, fence};

use crate::engine::Engine;
use crate::engine::clock::now;
use crate::engine::lookup::keys::WAS_DAMAGED;
use crate::error::Result;
use crate::file::index::Totals;
use crate::file::layout::{KeyHash, Kind, MapId, Offset, RECORD_HEADER, RecordHeader, Seq, flags, live};
use crate::file::log;

impl Engine {
    /// Reads at the last visible commit. If the horizon has passed it meanwhile, it is read once more under a snapshot
    /// lock: beside busy writers, a long read would be overtaken each time.
    pub(crate) fn unpinned<T>(&self, read: impl Fn(Seq) -> Result<T>) -> Result<T> {
        self.check_not_forked()?;
        let point = self.reading_point()?;
        let found = read(point.seq);
        fence(Ordering::Acquire);
        if self.is_undisturbed(point)? { found } else { read(self.pin()?.seq()) }
    }

    /// A copy of the value of a key, and its deadline.
    pub(crate) fn get_unpinned(&self, map: MapId, key: &[u8]) -> Result<Option<(Vec<u8>, Option<u64>)>> {
        self.unpinned(|seq| self.copy_at(map, key, seq))
    }

    /// How many keys a map has.
    pub(crate) fn len_unpinned(&self, map: MapId) -> Result<u64> {
        loop {
            let totals = self.unpinned(|seq| match self.index_at(map, seq)? {
                Some(index) => Ok((seq, index.totals_at(seq)?)),
                None => Ok((seq, Some(Totals::default()))),
            })?;
            match totals {
                (_, Some(totals)) => return Ok(totals.keys),
                // Two commits came in between.
                (seq, None) if self.visible()? != seq => {}
                (_, None) => {
                    return Err(self.mapping.corrupt(live::MAP_TABLE, format!("map {map} has lost its counters")));
                }
            }
        }
    }

    fn copy_at(&self, map: MapId, key: &[u8], seq: Seq) -> Result<Option<(Vec<u8>, Option<u64>)>> {
        let Some(index) = self.index_at(map, seq)? else { return Ok(None) };
        let newest = index.find(KeyHash::of(key, self.seed), |offset| {
            let header = log::copy_header(&self.mapping, offset)?;
            Ok(self.has_key(offset, &header, map, key)?.then_some((offset, header)))
        })?;
        let Some((mut offset, mut header)) = newest else { return Ok(None) };
        // A chain in circles would be longer than the file.
        let mut left = self.mapping.len() / RECORD_HEADER;
        while Seq::of_field(header.seq) > seq {
            if header.prev_offset() == Offset::NONE {
                return Ok(None);
            }
            let newer = offset;
            offset = header.prev_offset();
            header = log::copy_header(&self.mapping, offset)?;
            left -= 1;
            if left == 0 || !self.has_key(offset, &header, map, key)? {
                return Err(self.mapping.corrupt(newer, "the version chain leads to another key"));
            }
        }
        let expires = match header.expires_len() {
            0 => None,
            len => self.mapping.copy(offset + RECORD_HEADER, len)?.try_into().ok().map(u64::from_le_bytes),
        };
        match Kind::from_u8(header.kind) {
            _ if header.flags & flags::DAMAGED != 0 => Err(self.mapping.corrupt(offset, WAS_DAMAGED)),
            Some(Kind::Put) if expires.is_some_and(|deadline| deadline <= now()) => Ok(None),
            Some(Kind::Put) if self.settings.verify_reads => {
                let record = self.mapping.copy(offset, header.record_len())?;
                if crc32fast::hash(&record[4..]) != header.crc.get() {
                    return Err(self.mapping.corrupt(offset, "the CRC of the record does not hold"));
                }
                let start = header.value_start() as usize;
                Ok(Some((record[start..start + header.value_len.get() as usize].to_vec(), expires)))
            }
            Some(Kind::Put) => {
                let value = self.mapping.copy(offset + header.value_start(), u64::from(header.value_len.get()))?;
                Ok(Some((value, expires)))
            }
            Some(Kind::Remove) => Ok(None),
            _ => Err(self.mapping.corrupt(offset, "expected a record with a key")),
        }
    }

    fn has_key(&self, offset: Offset, header: &RecordHeader, map: MapId, key: &[u8]) -> Result<bool> {
        if header.map() != map {
            return Ok(false);
        }
        if header.flags & flags::DAMAGED != 0 && header.key_len.get() == 0 {
            let value = self.mapping.copy(offset + header.value_start(), size_of::<u64>() as u64)?;
            let bits = value.first_chunk().map_or(0, |bits| u64::from_le_bytes(*bits));
            return Ok(KeyHash::from_bits(bits) == KeyHash::of(key, self.seed));
        }
        Ok(usize::from(header.key_len.get()) == key.len()
            && self.mapping.copy(offset + header.key_start(), key.len() as u64)? == key)
    }
}
