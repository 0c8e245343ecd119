//! Persistent maps in one memory-mapped file, shared by any number of processes: an append-log with a fixed-slot hash
//! index over it.
//!
//! # Types
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Store`] | an open file, and its default map from bytes to bytes. `Send + Sync`, cheap to clone |
//! | [`Options`] | how to open one: [`Access`], [`Durability`], limits, timeouts |
//! | [`Map<K, V>`](Map) | a named, typed map of a store, with the methods of the standard `HashMap` |
//! | [`Entry`] | one key of a map, for an atomic read-modify-write |
//! | [`Transaction`], [`TransactionMap`], [`Savepoint`] | many changes, in any maps and of maps, all or nothing |
//! | [`Snapshot`], [`SnapshotMap`], [`ValueRef`] | what one commit left, read in place, while others write |
//! | [`Changes`], [`MapChanges`], [`Seq`] | what was committed since a given commit |
//! | [`Codec`], [`Pod`] | types that can be keys and values; with the feature `serde`, also `Serde` |
//! | [`Stats`], [`VerifyReport`], [`CompactReport`] | what is in the file, whether it is sound, what was reclaimed |
//! | [`BackupOptions`], [`BackupReport`] | how a backup is made while others write, and what it has |
//! | [`Error`] | what is wrong, where, and what to do |
//!
//! These modules are there to be read: [`guide`], how to use it for what you want to do; [`care`], copies and repair;
//! [`watching`], events and figures for operators; [`design`], how it works and why; and [`mod@format`], every byte of
//! the file.
//!
//! Every call blocks, for as long as the disk or another writer takes. From asynchronous code, use something like
//! `spawn_blocking`.
//!
//! # Keep things in a file
//!
//! ```
//! use slotlog::Store;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("visits.slotlog");
//! let store = Store::open(&path)?;                       // created if it is missing
//! store.insert("alice", "3 visits")?;                    // survives a kill from here on
//! store.sync()?;                                         // … and a power cut
//! assert_eq!(store.get("alice")?.as_deref(), Some(&b"3 visits"[..]));
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Use typed maps
//!
//! ```
//! # let store = slotlog::Store::in_memory()?;
//! let ages = store.map::<str, u32>("ages")?;
//! ages.insert("Ada", 36)?;
//! ages.entry("Ada").and_modify(|age| *age += 1).or_insert(0)?;  // atomic across threads and processes
//! assert_eq!(ages.get("Ada")?, Some(37));
//! # Ok::<(), slotlog::Error>(())
//! ```
//!
//! # Change several things at once
//!
//! ```
//! # let store = slotlog::Store::in_memory()?;
//! let stock = store.map::<str, u64>("stock")?;
//! let sold = store.map::<str, u64>("sold")?;
//! let mut transaction = store.begin()?;
//! transaction.of(&stock).insert("tea", 4)?;
//! transaction.of(&sold).insert("tea", 1)?;
//! transaction.commit()?;                                 // dropped without this, nothing has changed
//! assert_eq!(stock.get("tea")?, Some(4));
//! # Ok::<(), slotlog::Error>(())
//! ```
//!
//! # Read one consistent view
//!
//! ```
//! # let store = slotlog::Store::in_memory()?;
//! store.insert("bob", "1 visit")?;
//! let snapshot = store.snapshot()?;                      // costs the same whatever the size of the store
//! store.clear()?;
//! for entry in snapshot.iter() {                         // borrowed from the file, not copied
//!     let (name, visits) = entry?;
//!     assert_eq!((name, visits), (&b"bob"[..], &b"1 visit"[..]));
//! }
//! # Ok::<(), slotlog::Error>(())
//! ```
//!
//! # Follow what other processes write
//!
//! ```
//! use slotlog::ChangeKind;
//! # use std::time::Duration;
//! # let store = slotlog::Store::in_memory()?;
//! let seen = store.seq()?;
//! store.insert("alice", "4 visits")?;                    // in whatever process
//! if store.wait_for_change(seen, Duration::from_secs(1))? {
//!     for change in store.changes_since(seen)?.iter() {
//!         assert_eq!(change?.kind, ChangeKind::Insert { key: b"alice", value: b"4 visits" });
//!     }
//! }
//! # Ok::<(), slotlog::Error>(())
//! ```
//!
//! # Back up while others write
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let (store, path) = (slotlog::Store::in_memory()?, folder.path().join("app.backup"));
//! store.backup(&path)?;                                  // one commit, compacted; open it like any other store
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Let entries expire
//!
//! ```
//! # use std::time::{Duration, SystemTime};
//! # let store = slotlog::Store::in_memory()?;
//! let sessions = store.map::<str, u64>("sessions")?;
//! sessions.insert_with_expiry("alice", 7, SystemTime::now() + Duration::from_secs(3600))?;
//! assert_eq!(sessions.get("alice")?, Some(7));           // for an hour
//! # Ok::<(), slotlog::Error>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

// The errors, and the events for operators, which every floor uses; the floors from the bottom up: file, engine,
// handles; the maps on top of a store; copies of it.
mod error;
mod seq;
mod telemetry;

mod file;

mod engine;

mod background;
mod changes;
mod codec;
mod keys;
mod maintenance;
mod options;
mod snapshot;
mod source;
mod stats;
mod store;
mod transaction;

mod map;

mod copies;

pub use changes::{Change, ChangeKind, Changes, ChangesIter};
#[cfg(feature = "zerocopy")]
pub use codec::Pod;
#[cfg(feature = "serde")]
pub use codec::Serde;
pub use codec::{Arg, Codec, View};
pub use copies::{Commit, CommitIter, Export, ExportEntry, Feed, FeedChange, FeedChangeKind, Import};
pub use engine::backup::options::BackupOptions;
pub use engine::backup::report::{BackupProgress, BackupReport};
pub use engine::change::bookmarks::Bookmark;
pub use engine::repair::report::{RepairOptions, RepairProgress, RepairReport};
pub use engine::repair::run::{repair, repair_with};
pub use engine::settings::Opened;
pub use engine::settings::{Access, Durability, Policy};
pub use engine::settings::{RecoveryPhase, RecoveryProgress};
pub use engine::upkeep::compact::{CompactProgress, CompactReport};
pub use engine::verify::report::{Finding, VerifyProgress, VerifyReport, VerifyScope};
pub use error::{CodecError, CodecPart, CodecStep, Error, FullReason, HeldBy, Numbers, OpenerStep, Origin, Result};
pub use keys::Expiry;
pub use map::{
    Entry, Map, MapChange, MapChanges, MapChangesIter, MapInfo, MapIter, MapKeys, MapValues, SnapshotMap,
    SnapshotMapIter, SnapshotMapKeys, SnapshotMapRefs, SnapshotMapValues, TransactionMap, TransactionMapIter, ValueRef,
};
pub use options::Options;
pub use seq::Seq;
pub use snapshot::{Iter, Keys, Snapshot, Values};
pub use stats::census::{Census, CensusOptions, CensusProgress, ExtentCensus, LargeEntry, MapCensus};
pub use stats::distribution::{Bucket, Distribution};
pub use stats::report::{
    DamageStats, EvictionStats, ExtentStats, MapStats, PinStats, ProcessStats, ResizeStats, RestingStats, Stats,
    UpkeepStats, WaitingStats,
};
pub use store::Store;
pub use transaction::{Savepoint, Transaction};
/// The crate whose derives make a type [plain old data](Pod).
#[cfg(feature = "zerocopy")]
pub use zerocopy;

#[doc = include_str!("../docs/design.md")]
pub mod design {}

#[doc = include_str!("../docs/care.md")]
pub mod care {}

#[doc = include_str!("../docs/watching.md")]
pub mod watching {}

#[doc = include_str!("../docs/format.md")]
pub mod format {
    pub use crate::file::layout::{CREATION_MAGIC, MAGIC, MAX_KEY_LEN, MAX_VALUE_LEN, VERSION};

    // The names of the code are free to change: only slotlog's own tests see them.
    #[cfg(feature = "testing")]
    pub use crate::file::layout::*;
}

#[doc = include_str!("../docs/guide/links.txt")]
#[doc = include_str!("../docs/guide/README.md")]
pub mod guide;

/// The program in the README has to compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
