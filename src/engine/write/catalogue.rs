//! The catalogue's part in a commit: what a record of it does besides. The users' part is in
//! [`maps`](crate::engine::change::maps).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use zerocopy::FromBytes;

use crate::engine::Engine;
use crate::error::Result;
use crate::file::layout::{CATALOGUE, CatalogueEntry, DEFAULT_MAP, Kind, live};
use crate::file::log::{self, Record};

/// The key under which the catalogue has the next id.
pub(crate) const NEXT_ID: &[u8] = b"";

impl Engine {
    /// Does what a record of the catalogue says besides, when its commit is finished.
    pub(crate) fn enter_catalogue(&self, record: Record<'_>) -> Result<()> {
        let entry = |record: Record<'_>| match record.kind() {
            Some(Kind::Put) => entry_of(record.value()).map(|(entry, _)| entry),
            _ => None,
        };
        let before = match record.header.prev() {
            0 => None,
            prev => entry(log::record(&self.region, prev)?).map(|entry| entry.map.get()),
        };
        let now = entry(record);
        let table = self.map_table()?;
        if let Some(before) = before.filter(|&before| now.is_none_or(|now| now.map.get() != before)) {
            table.set_dropped(before, true)?;
            self.drops.store(true, Ordering::Relaxed);
        }
        if let Some(now) = now.filter(|_| record.key() != NEXT_ID) {
            self.put_in_force(now.map.get(), now.region.get())?;
            table.set_dropped(now.map.get(), false)?;
        }
        Ok(())
    }

    /// The ids of all maps that have a name, as the index in force says it.
    pub(crate) fn maps_of_catalogue(&self) -> Result<BTreeSet<u32>> {
        let mut ids = BTreeSet::new();
        for slot in self.index_in_force(CATALOGUE)?.iter() {
            let Some(offset) = slot?.record else { continue };
            let record = log::record(&self.region, offset)?;
            let entry =
                entry_of(record.value()).filter(|_| record.kind() == Some(Kind::Put) && record.key() != NEXT_ID);
            ids.extend(entry.map(|(entry, _)| entry.map.get()));
        }
        Ok(ids)
    }

    /// Refuses a log that has records of a map whose id was never given out: the next map would get them.
    pub(crate) fn check_was_made(&self, map: u32) -> Result<()> {
        let (offset, next) = self.id_of(self.value_in_turn(CATALOGUE, NEXT_ID)?)?;
        if map < next {
            return Ok(());
        }
        Err(self.region.corrupt(offset, format!("the log has records of map {map}, and the next one would get {next}")))
    }

    /// The next id, of the record that has it if there is one, and where that is.
    pub(crate) fn id_of(&self, record: Option<Record<'_>>) -> Result<(u64, u32)> {
        let Some(record) = record else { return Ok((live::MAP_TABLE, DEFAULT_MAP + 1)) };
        self.check_crc(record)?;
        Ok((record.offset, id_in(record)))
    }

    pub(crate) fn check_crc(&self, record: Record<'_>) -> Result<()> {
        if record.crc_holds() {
            return Ok(());
        }
        Err(self.region.corrupt(record.offset, "the CRC of a record of the catalogue does not hold"))
    }
}

/// The entry that a value of the catalogue holds.
pub(crate) fn entry_of(value: &[u8]) -> Option<(CatalogueEntry, &[u8])> {
    CatalogueEntry::read_from_prefix(value).ok()
}

/// The id in the record that has the next one; zero, which is none, if it is damaged.
pub(crate) fn id_in(record: Record<'_>) -> u32 {
    record.value().try_into().map_or(0, u32::from_le_bytes)
}
