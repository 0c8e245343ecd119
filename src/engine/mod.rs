//! The middle floor: what keeps the promise.
//!
//! [`open`] finds out what state a file is in and [`recovery`] brings it back; [`read`] looks keys up under a pin
//! ([`pins`]); [`lock`], [`commit`], [`change`] and [`batch`] append; [`growth`] makes room; [`checkpoint`] makes things durable;
//! [`verify`] checks them.

pub(crate) mod batch;
pub(crate) mod change;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod growth;
pub(crate) mod lock;
pub(crate) mod open;
pub(crate) mod pins;
pub(crate) mod read;
pub(crate) mod recovery;
pub(crate) mod settings;
pub(crate) mod verify;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Result;
use crate::file::index::Index;
use crate::file::layout::{Superblock, live};
use crate::file::region::Region;
use crate::file::space::Extent;
use crate::file::table::MapTable;
use checkpoint::Flusher;
use commit::Writer;
use lock::Gate;
use pins::KeptPins;
use recovery::Opened;
use settings::Settings;

/// One open store: what all its handles, snapshots and transactions share.
pub(crate) struct Engine {
    pub(crate) region: Region,
    pub(crate) settings: Settings,
    pub(crate) opened: Opened,
    /// Seed of the key hash.
    pub(crate) seed: u64,
    /// Our entry of the process table.
    process: u64,
    /// Set in a read-only store: what to read, since the live area is not ours to believe.
    pub(crate) frozen: Option<Frozen>,
    kept_pins: KeptPins,
    gate: Gate,
    /// When the transaction that holds the gate began: milliseconds since 1970, zero if none does.
    writing_since: AtomicU64,
    /// Taken for each step of a change by the holder of the gate, who hardly ever waits for it.
    writer: Mutex<Writer>,
    flusher: Flusher,
    /// The superblock in force. Held while the next one is written.
    superblock: Mutex<Superblock>,
    /// The superblock in force says that the store is closed; so it must go before anything changes.
    clean: AtomicBool,
    poisoned: AtomicBool,
    /// Opening has come to its end. An engine that is given up before that must not close what it never understood.
    ready: AtomicBool,
}

/// A read-only view of a closed store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frozen {
    pub(crate) visible: u64,
    pub(crate) map_table: u64,
}

impl Engine {
    /// The word that says where the map table is.
    #[inline(always)]
    fn map_table_word(&self) -> Result<u64> {
        match &self.frozen {
            Some(frozen) => Ok(frozen.map_table),
            None => self.region.live(live::MAP_TABLE),
        }
    }

    /// The word that says where the space table is.
    fn space_table_word(&self) -> Result<u64> {
        if self.frozen.is_some() {
            Ok(self.superblock().space_table.get())
        } else {
            self.region.live(live::SPACE_TABLE)
        }
    }

    /// The map table.
    fn map_table(&self) -> Result<MapTable<'_>> {
        MapTable::open(&self.region, self.map_table_word()?)
    }

    /// The index of a map in force. `None` if there is no such map.
    #[inline(always)]
    pub(crate) fn index(&self, map: u32) -> Result<Option<Index<'_>>> {
        match MapTable::region_of(&self.region, self.map_table_word()?, map, u64::from(map))? {
            Some(extent) => Index::of_extent(&self.region, extent).map(Some),
            None => Ok(None),
        }
    }

    /// The ids of all maps, whose regions are looked at closer than a read does.
    pub(crate) fn map_ids(&self) -> Result<Vec<u32>> {
        let _view = self.view()?;
        Ok(self.maps()?.into_iter().map(|(map, _)| map).collect())
    }

    /// All maps, with their indexes in force.
    pub(crate) fn maps(&self) -> Result<Vec<(u32, Index<'_>)>> {
        let entries = self.map_table()?.iter()?;
        entries
            .map(|entry| {
                let index = Index::open(&self.region, entry.region())?;
                // Reads go by what the table says, without a look at the header.
                if index.extent() != entry.extent {
                    let what = format!("map {}: the map table and the region differ in its size", entry.map);
                    return Err(self.region.corrupt(entry.region(), what));
                }
                Ok((entry.map, index))
            })
            .collect()
    }

    /// The sequence number of the last visible commit.
    pub(crate) fn visible(&self) -> Result<u64> {
        self.frozen.map_or_else(|| self.region.live(live::VISIBLE), |frozen| Ok(frozen.visible))
    }

    /// The superblock in force.
    pub(crate) fn superblock(&self) -> Superblock {
        *self.lock_superblock()
    }

    fn lock_superblock(&self) -> MutexGuard<'_, Superblock> {
        self.superblock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The extents in use, by offset.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        // A transaction takes the writer's knowledge for each of its steps, not for its life; so this wait is short.
        self.writer().space.extents().copied().collect()
    }

    /// Whether a flush has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`. What is lost here is the clean flag: the next opening recovers.
        let _ = self.close();
        if self.ready.load(Ordering::Acquire) {
            self.region.unlock();
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
