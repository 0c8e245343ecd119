//! The middle floor: what keeps the promises.
//!
//! It has fourteen rooms, on three files that all of them stand on. Each thing uses what stands below it, by imports
//! and by method calls alike: `tests/architecture.rs` holds the order of the rooms, and of the files in each of them.
//!
//! | room | what it does | its files, from the bottom to the top |
//! | --- | --- | --- |
//! | [`repair`] | saves what it can into a new store | `report` `catalogue` `target` `run` |
//! | [`salvage`] | reads what is damaged | `reader` `front` `survey` `strands` `slots` `judge` |
//! | [`feed`] | tells changes, follows them | `told` `names` `commits` `follow` `wire` `increment` |
//! | [`backup`] | copies one commit | `report` `options` `copy` |
//! | [`verify`] | checks everything | `report` `pace` `derived` `tables` `snapshot` `store` |
//! | [`open`] | opens and closes; recovers | `path` `aside` `seat` `build` `recovery` `roads` `close` `place` |
//! | [`change`] | what users change, each a turn | `straight` `one` `batch` `maps` `origin` `bookmarks` `bounded` |
//! | [`upkeep`] | resizes, cleans, compacts | `resize` `expiry` `clean` `evict` `share` `compact` `maintain` |
//! | [`read`] | pins, and what they see | `kept` `sharing` `pins` `unpinned` `get` `cursor` `pinned` `history` |
//! | [`mod@write`] | turns, commits | `slots` `reclaim` `reserve` `space` `regions` `commit` `turn` `tables` `sync` |
//! | [`durable`] | flushes; superblocks | `reach` `flusher` `slices` `once_more` `superblock` `checkpoint` |
//! | [`lookup`] | finds records; what is kept | `protocol` `pin_table` `horizon` `versions` `keys` `bookmarks` |
//! | [`processes`] | who is there, who may write | `gate` `lock_word` `entries` `notice` |
//! | [`state`] | what is known | `rest` `expired` `ledger` `superblocks` `head` `live_area` `words` `writer` `maps` |
//! | below | | [`settings`] [`clock`] [`progress`] |
//!
//! The walk of an insert, down and up again:
//!
//! 1. [`change::one`] takes a turn ([`write::turn`]), which locks the gate and the word in the file
//!    ([`processes::gate`], [`processes::lock_word`]) and finishes what a dead writer left ([`write::commit`]).
//! 2. It looks the key up ([`lookup::keys`]); a map without a free slot gets more ([`upkeep::resize`]). A put that
//!    finds everything as the one before has left it takes a [shorter way](change::straight) to the commit.
//! 3. [`write::commit`] makes room in the log ([`write::space`]), appends, stores the commit point, publishes the slot
//!    ([`write::slots`]) and shows the commit ([`processes::notice`] wakes the waiters).
//! 4. The write does its share of upkeep ([`upkeep::share`]), and gives the turn back.
//! 5. The log is flushed if the commit has to be durable, or a checkpoint is due ([`write::sync`], [`durable`]).
//!
//! A read takes a pin ([`read::pins`]), finds the index of that commit and the record in it ([`lookup::keys`],
//! [`lookup::versions`]), and gives the pin back.
//!
//! A right is a value, and is given back when that is dropped:
//!
//! * [`Engine`] is the frame: it names a part of every room, and each room adds methods to it. Any code may look at
//!   words through it, at any time.
//! * A [`View`](read::pins::View) holds a pin: it may read one commit.
//! * A [`Turn`](write::turn::Turn) holds the writer lock. It lends a [`Writing`](state::writer::Writing), whose methods
//!   may change the store. Everything that needs the lock is one of them, or takes one.

pub(crate) mod backup;
pub(crate) mod change;
pub(crate) mod clock;
pub(crate) mod durable;
pub(crate) mod feed;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod processes;
pub(crate) mod progress;
pub(crate) mod read;
pub(crate) mod repair;
pub(crate) mod salvage;
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

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use durable::flusher::Flusher;
use durable::once_more::OnceMore;
use durable::reach::Reach;
use durable::slices::Slices;
use lookup::marks::Marks;
use lookup::pin_table::{Claims, Search};
use lookup::versions::OldReaders;
use open::aside::Aside;
use processes::gate::Gate;
use read::kept::KeptPins;
use read::sharing::{SharedPins, SnapshotLocks};
use settings::{Opened, Settings};
use state::ledger::Upkeep;
use state::words::AtRest;
use state::writer::Writer;

use crate::file::layout::Superblock;
use crate::file::locks::Locks;
use crate::file::mapping::Mapping;

/// One open store: what all its handles, snapshots and transactions share.
pub(crate) struct Engine {
    /// The locks that keep other openers of the file apart from us; a store in memory has none, nor has a private copy
    /// of a file.
    locks: Option<Arc<Locks>>,
    /// The locks that a private copy holds as long as it lives, so that what it shows of the file does not change.
    /// Before the mapping, since a fork needs its file as long as there are locks.
    held: Option<Arc<Locks>>,
    pub(crate) mapping: Mapping,
    pub(crate) settings: Settings,
    pub(crate) opened: Opened,
    /// Seed of the key hash.
    pub(crate) seed: u64,
    /// The fork generation of this process when the store was opened.
    generation: u64,
    /// Our entry of the process table; of no meaning in a read-only store.
    process: u64,
    /// No other opener can have the store. Then the writer lock is ours for good.
    exclusive: bool,
    pub(crate) read_only: bool,
    /// A value that was found is returned as it is: no CRC is checked, and no key marked as read.
    plain_reads: bool,
    /// What this process has read of a store that evicts what is not read.
    marks: Option<Marks>,
    /// Set if the store was opened for reading while its live area could not be trusted.
    at_rest: Option<AtRest>,
    /// The live area can be trusted by now.
    woken: AtomicBool,
    /// Set if it was recovered in memory of this process and others may write to the file.
    aside: Option<Aside>,
    /// The number of the opening; a store opened in place of another keeps that one's number.
    pub(crate) origin: u64,
    claims: Claims,
    pin_search: Search,
    kept_pins: KeptPins,
    shared_pins: SharedPins,
    snapshot_locks: SnapshotLocks,
    gate: Arc<Gate>,
    /// What the writers of this process know of readers of older commits.
    old_readers: OldReaders,
    /// Where the index is that this process has put to last, as a word of the map table: a hint.
    last_index: AtomicU64,
    /// Taken for each step of a change by the holder of the gate, which hardly ever waits for it.
    writer: Mutex<Writer>,
    flusher: Flusher,
    slices: Slices,
    once_more: OnceMore,
    reach: Reach,
    pub(crate) upkeep: Upkeep,
    /// The superblock in force when it was last looked at. Held while the next one is written.
    superblock: Mutex<Superblock>,
    /// The superblock in force may say that the store is closed; so it must go before anything changes.
    closed: AtomicBool,
    /// We have committed something.
    changed: AtomicBool,
    /// Maps that this process has dropped, or found so when it opened the store, may still be in the map table.
    drops: AtomicBool,
    /// The last holder of the writer lock could not clean up after itself; the next one has to.
    left_something: AtomicBool,
    /// Opening has ended. An engine that is given up before that must not close what it never understood.
    ready: AtomicBool,
}
