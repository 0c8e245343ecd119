//! The middle floor: what keeps the promises, room by room.

pub(crate) mod change;
pub(crate) mod durable;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod processes;
pub(crate) mod progress;
pub(crate) mod read;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod upkeep;
pub(crate) mod verify;
pub(crate) mod write;

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use durable::checkpoint::Flusher;
use lookup::versions::OldReaders;
use open::aside::Aside;
use open::recovery::Opened;
use processes::gate::Gate;
use read::pins::{KeptPins, SharedPins, SnapshotLocks};
use settings::Settings;
use upkeep::share::Upkeep;
use write::commit::Writer;

use crate::engine::state::live_area;
use crate::error::{Error, Result};
use crate::file::index::Index;
use crate::file::layout::{DEFAULT_MAP, Superblock, live};
use crate::file::locks::{Locks, fork};
use crate::file::region::Region;
use crate::file::space::{self, Extent, Space};
use crate::file::table::MapTable;

/// One open store: what all its handles, snapshots and transactions share.
pub(crate) struct Engine {
    /// What keeps other openers of the file apart from us; a store in memory has none, nor has one that is a private
    /// copy of a file.
    locks: Option<Arc<Locks>>,
    /// What such a copy holds for as long as it lives, so that what it shows of the file does not change. Before the
    /// region, since a fork needs its file as long as there are locks.
    held: Option<Arc<Locks>>,
    pub(crate) region: Region,
    pub(crate) settings: Settings,
    pub(crate) opened: Opened,
    /// Seed of the key hash.
    pub(crate) seed: u64,
    /// How often this process was forked from another when the store was opened.
    generation: u64,
    /// Our entry of the process table; of no meaning in a read-only store.
    process: u64,
    /// Nobody else can have the store open. Then the writer lock is ours for good.
    exclusive: bool,
    pub(crate) read_only: bool,
    /// Set if the store was opened for reading while nobody vouched for its live area.
    frozen: Option<Frozen>,
    /// Somebody does by now.
    thawed: AtomicBool,
    /// Set if it was recovered in memory of this process and others may write to the file.
    aside: Option<Aside>,
    /// The number of the opening that this is of: that of the one in whose place it is, if there is one.
    pub(crate) origin: u64,
    kept_pins: KeptPins,
    shared_pins: SharedPins,
    snapshot_locks: SnapshotLocks,
    gate: Arc<Gate>,
    /// What those who write here know of readers of older commits.
    old_readers: OldReaders,
    /// Taken for each step of a change by the holder of the gate, who hardly ever waits for it.
    writer: Mutex<Writer>,
    flusher: Flusher,
    pub(crate) upkeep: Upkeep,
    /// The superblock in force when it was last looked at. Held while the next one is written.
    superblock: Mutex<Superblock>,
    /// The superblock in force may say that the store is closed; so it must go before anything changes.
    clean: AtomicBool,
    /// We have committed something.
    changed: AtomicBool,
    /// Maps that this process has dropped, or found so when it opened the store, may still be in the map table.
    drops: AtomicBool,
    /// The holder of the writer lock could not clean up behind itself; whoever takes it next has to.
    left_something: AtomicBool,
    /// Opening has come to its end. An engine that is given up before that must not close what it never understood.
    ready: AtomicBool,
}

/// What to read of a closed store as long as nobody has opened it for writing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frozen {
    pub(crate) visible: u64,
    pub(crate) map_table: u64,
    pub(crate) space_table: u64,
    pub(crate) identity: Option<[u64; 6]>,
    /// What was in its place when the store was opened.
    pub(crate) found: [u64; 6],
}

impl Engine {
    /// The word that says where the map table is.
    #[inline(always)]
    pub(crate) fn map_table_word(&self) -> Result<u64> {
        if self.frozen.is_some()
            && let Some(frozen) = self.frozen()?
        {
            return Ok(frozen.map_table);
        }
        self.region.live(live::MAP_TABLE)
    }

    /// What to read of a closed store, if it still is one. Once somebody has opened it for writing, the live area says
    /// it, and goes on doing so.
    #[cold]
    pub(crate) fn frozen(&self) -> Result<Option<Frozen>> {
        let Some(frozen) = &self.frozen else { return Ok(None) };
        if self.thawed.load(Ordering::Acquire) {
            return Ok(None);
        }
        // Where nothing tells one page cache from another, whoever opens it changes what is in that place.
        let current = live_area::live_is_current(&self.region, frozen.identity, live_area::SAME_FILE)?
            && (frozen.identity.is_some() || live_area::live_identity(&self.region)? != frozen.found);
        if current {
            self.thawed.store(true, Ordering::Release);
            return Ok(None);
        }
        Ok(Some(*frozen))
    }

    /// Whether the live area is to be believed.
    pub(crate) fn is_live(&self) -> Result<bool> {
        Ok(self.frozen()?.is_none())
    }

    /// Refuses to work in a process that was forked from the one that opened the store.
    #[inline(always)]
    pub(crate) fn check_not_forked(&self) -> Result<()> {
        if fork::generation() == self.generation { Ok(()) } else { Err(self.forked()) }
    }

    pub(crate) fn is_forked(&self) -> bool {
        fork::generation() != self.generation
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::Forked { path: self.region.path().to_owned() }
    }

    /// The word that says where the space table is.
    pub(crate) fn space_table_word(&self) -> Result<u64> {
        match self.frozen()? {
            Some(frozen) => Ok(frozen.space_table),
            None => self.region.live(live::SPACE_TABLE),
        }
    }

    /// The map table.
    pub(crate) fn map_table(&self) -> Result<MapTable<'_>> {
        MapTable::open(&self.region, self.map_table_word()?)
    }

    /// The index of a map in force. `None` if there is no such map; one that was dropped may still have one.
    #[inline(always)]
    pub(crate) fn index(&self, map: u32) -> Result<Option<Index<'_>>> {
        match MapTable::region_of(&self.region, self.map_table_word()?, map, false)? {
            Some(extent) => Index::of_extent(&self.region, extent).map(Some),
            None => Ok(None),
        }
    }

    /// The index in force of a map that must be there, for the holder of the writer lock.
    #[inline]
    pub(crate) fn index_in_force(&self, map: u32) -> Result<Index<'_>> {
        self.index(map)?.ok_or_else(|| self.region.corrupt(live::MAP_TABLE, format!("map {map} has no region")))
    }

    /// The same of a map that is to be changed: it must not have been dropped.
    #[inline]
    pub(crate) fn index_for_writing(&self, map: u32) -> Result<Index<'_>> {
        match MapTable::region_of(&self.region, self.map_table_word()?, map, true)? {
            Some(extent) => Index::of_extent(&self.region, extent),
            None => Err(self.no_such_map(map)),
        }
    }

    #[cold]
    fn no_such_map(&self, map: u32) -> Error {
        if map <= DEFAULT_MAP {
            return self.region.corrupt(live::MAP_TABLE, format!("map {map} has no region"));
        }
        Error::NoSuchMap { path: self.region.path().to_owned(), map: format!("number {map}") }
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
                let index = Index::of_extent(&self.region, entry.extent)?;
                self.check_header(entry.map, &index).map(|()| (entry.map, index))
            })
            .collect()
    }

    /// Looks at the header of a region. Reads go by what the map table says; who is about to go over all lines makes
    /// sure first that they are some.
    pub(crate) fn check_header(&self, map: u32, index: &Index<'_>) -> Result<()> {
        let header = Index::open(&self.region, index.offset())?;
        if header.extent() == index.extent() {
            return Ok(());
        }
        let what = format!("map {map}: the map table and the region differ in its size");
        Err(self.region.corrupt(index.offset(), what))
    }

    /// The sequence number of the last visible commit.
    pub(crate) fn visible(&self) -> Result<u64> {
        match self.frozen()? {
            Some(frozen) => Ok(frozen.visible),
            None => self.region.live(live::VISIBLE),
        }
    }

    /// What the space table says now.
    pub(crate) fn space_now(&self) -> Result<Option<Space>> {
        if let Some(frozen) = self.frozen()? {
            let space = Space::load(&self.region, frozen.space_table);
            // Nobody changes the table of a closed store, and the counter of changes says nothing there.
            if !self.is_live()? {
                return space.map(Some);
            }
        }
        space::read(&self.region, || self.region.live(live::SPACE_TABLE))
    }

    /// The extents in use, by offset. None if they change faster than they can be read.
    pub(crate) fn extents(&self) -> Result<Vec<Extent>> {
        Ok(self.space_now()?.map_or(Vec::new(), |space| space.extents().copied().collect()))
    }

    /// Whether a flush has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.region.flush_failed()
            || self.is_live().unwrap_or(false)
                && self.region.live(live::STATE).is_ok_and(|state| state & live::STATE_POISONED != 0)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`. What is lost here is the clean flag: the next opening recovers.
        let _ = self.close();
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The time that is so many milliseconds after the beginning of 1970.
pub(crate) fn time(milliseconds: u64) -> SystemTime {
    // A damaged one can be later than the system has times.
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}
