//! The peers: their common interface, and the list of them.

mod candystore;
mod fjall;
mod floor;
#[cfg(any(feature = "kyoto", feature = "tkrzw", feature = "tdb"))]
mod foreign;
mod in_memory;
#[cfg(feature = "kyoto")]
mod kyoto;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod slotlog;
mod sqlite;
#[cfg(feature = "tdb")]
mod tdb;
#[cfg(feature = "tkrzw")]
mod tkrzw;

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::data::{Batch, Key};
use crate::workloads::{self, Job, Outcome, Workload};

#[cfg(test)]
pub(crate) use in_memory::{InMemory, Table};

/// What a completed put must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Whatever the peer offers without waiting for the disk; [`Facts::buffered`] describes it.
    Buffered,
    /// A power cut.
    Synced,
}

/// Why a peer is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    /// To read beside another process that reads.
    Read,
}

/// The parameters of opening a peer. Peers that can use the expected size get it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) keys: u64,
    pub(crate) value_len: usize,
    pub(crate) durability: Durability,
    pub(crate) access: Access,
}

impl Place<'_> {
    /// Bytes of all keys and values.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.keys * (size_of::<Key>() + self.value_len) as u64
    }
}

/// The facts about a peer, which are kept with the measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) version: String,
    /// How it is set up.
    pub(crate) settings: String,
    /// What a completed put survives without having waited for the disk.
    pub(crate) buffered: String,
    /// Whether that includes the death of its process. It is checked.
    pub(crate) survives_kill: bool,
    /// How a put is made to survive a power cut.
    pub(crate) synced: String,
    /// Whether it has a file.
    pub(crate) is_lasting: bool,
    /// Whether several processes can have it open.
    pub(crate) shares: bool,
    pub(crate) longest_value: usize,
    /// Workloads it cannot do.
    pub(crate) skips: Vec<Workload>,
}

impl Facts {
    /// Facts about a store whose files several processes can have open, and which a kill does not harm.
    fn on_disk(name: &str, version: impl Into<String>, settings: &str, synced: &str) -> Facts {
        Facts {
            name: name.into(),
            version: version.into(),
            settings: settings.into(),
            buffered: "a kill".into(),
            survives_kill: true,
            synced: synced.into(),
            is_lasting: true,
            shares: true,
            longest_value: u32::MAX as usize,
            skips: Vec::new(),
        }
    }

    /// Facts about a map in memory.
    fn in_memory(name: &str, version: impl Into<String>, settings: &str) -> Facts {
        use Workload::{Open, OpenAfterKill, OpenAfterPowerCut, SyncedBatches, SyncedSingles};
        Facts {
            buffered: "nothing".into(),
            survives_kill: false,
            is_lasting: false,
            shares: false,
            longest_value: usize::MAX,
            skips: vec![Open, OpenAfterKill, OpenAfterPowerCut, SyncedSingles, SyncedBatches],
            ..Facts::on_disk(name, version, settings, "–")
        }
    }

    /// Whether there is anything to measure.
    pub(crate) fn can(&self, workload: Workload, value_len: usize) -> bool {
        (self.shares || workload != Workload::GetProcesses)
            && value_len <= self.longest_value
            && !self.skips.contains(&workload)
    }
}

/// The version of a crate, as it was built. If others need older ones as well, this is the newest.
fn version_of(package: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let start = format!("name = \"{package}\"\nversion = \"");
    let version = lock.rsplit_once(&start).and_then(|(_, rest)| rest.split('"').next());
    version.unwrap_or("?").to_owned()
}

/// A map to be measured.
pub(crate) trait Peer: Sized + Sync + 'static {
    /// The view for reads: a transaction, a snapshot or a statement, or the peer itself if it has none.
    type View<'v>: View;

    fn facts() -> Facts;

    /// Opens the store in the folder, or creates it.
    fn open(place: &Place<'_>) -> Result<Self>;

    /// Sets one value, in its own commit.
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()>;

    /// Sets many values, in one commit if the peer supports that.
    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        batch.iter().try_for_each(|(key, value)| self.put(key, value))
    }

    fn delete(&mut self, key: &Key) -> Result<()>;

    /// Returns the result of `found` on the newest value of a key.
    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Does many reads through one view.
    fn read<R>(&self, work: impl for<'v> FnOnce(&mut Self::View<'v>) -> Result<R>) -> Result<R>;

    /// When this returns, all puts survive a power cut.
    fn sync(&mut self) -> Result<()>;

    fn close(self) -> Result<()>;
}

/// A view for reads.
pub(crate) trait View {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Calls `found` with the value of each key in turn.
    fn get_many(&mut self, keys: &[Key], mut found: impl FnMut(&[u8])) -> Result<()> {
        keys.iter().try_for_each(|key| self.get(key, &mut found).map(|_| ()))
    }

    /// Calls `entry` with every key and value, in the peer's order.
    fn for_each(&mut self, entry: impl FnMut(&[u8], &[u8])) -> Result<()>;
}

/// The list of the peers, in the order in which they are shown.
macro_rules! peers {
    ($($(#[$note:meta])* $name:ident: $peer:ty $(, in $feature:literal)?;)*) => {
        /// The name of a peer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
        pub(crate) enum PeerName {
            $($(#[$note])* $name,)*
        }

        impl PeerName {
            /// The facts about this peer, if it is built in.
            pub(crate) fn facts(self) -> Option<Facts> {
                match self {
                    $($(#[cfg(feature = $feature)])? PeerName::$name => Some(<$peer>::facts()),)*
                    #[allow(unreachable_patterns, reason = "with all features, all are built in")]
                    _ => None,
                }
            }

            /// Does a piece of work with this peer, in this process.
            pub(crate) fn run(self, job: &Job) -> Result<Outcome> {
                match self {
                    $($(#[cfg(feature = $feature)])? PeerName::$name => workloads::run::<$peer>(job),)*
                    #[allow(unreachable_patterns, reason = "with all features, all are built in")]
                    _ => bail!("{self:?} is not built in"),
                }
            }
        }
    };
}

peers! {
    Slotlog: slotlog::Slotlog;
    Lmdb: lmdb::Lmdb;
    Redb: redb::Redb;
    Fjall: fjall::Fjall;
    /// Needs `--features rocksdb`.
    Rocksdb: rocksdb::Rocksdb, in "rocksdb";
    Sled: sled::Sled;
    Candystore: candystore::Candystore;
    Sqlite: sqlite::Sqlite;
    /// Needs `--features kyoto`.
    Kyoto: kyoto::Kyoto, in "kyoto";
    /// Needs `--features tkrzw`.
    Tkrzw: tkrzw::Tkrzw, in "tkrzw";
    /// Needs `--features tdb`.
    Tdb: tdb::Tdb, in "tdb";
    Std: in_memory::InMemory<in_memory::Std>;
    Hashbrown: in_memory::InMemory<in_memory::Hashbrown>;
    Floor: floor::Floor;
}
