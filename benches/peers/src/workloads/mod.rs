//! The workloads: the work done with a peer, each in its own process, and the measurements.

mod files;
mod load;
mod open;
mod read;
mod write;
mod ycsb;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::data::{Batch, Contents, Model, pieces};
use crate::peers::{Access, Durability, Peer, PeerName, Place, View};

/// How many keys are put at once in batches.
pub(crate) const BATCH: usize = 1000;
/// How many keys are looked up at once in batches.
pub(crate) const MANY: usize = 64;

/// The workloads, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Loads a store that is then thrown away, key by key.
    LoadSingles,
    /// Loads the store that all other workloads use, a thousand keys at a time.
    LoadBatches,
    Open,
    Get,
    GetView,
    GetThreads2,
    GetThreads16,
    GetProcesses,
    Miss,
    GetMany,
    Iterate,
    SyncedSingles,
    SyncedBatches,
    Overwrite,
    IterateAfter,
    YcsbA,
    YcsbB,
    YcsbC,
    YcsbF,
    Remove,
    OpenAfterKill,
    OpenAfterPowerCut,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    /// Per byte of keys and values.
    Bytes,
    Mebibytes,
}

/// A row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Row {
    LoadSingles,
    LoadBatches,
    Get,
    GetView,
    GetThreads2,
    GetThreads16,
    GetProcesses,
    Miss,
    GetMany,
    Iterate,
    IterateAfter,
    Overwrite,
    Remove,
    YcsbA,
    YcsbB,
    YcsbC,
    YcsbF,
    SyncedSingle,
    SyncedBatch,
    Open,
    OpenAfterKill,
    OpenAfterPowerCut,
    FileLoaded,
    FileOverwritten,
    Memory,
}

impl Row {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Row::LoadSingles => "load, one by one",
            Row::LoadBatches => "load, 1000 at a time",
            Row::Get => "get, each by itself",
            Row::GetView => "get, in one view",
            Row::GetThreads2 => "… by 2 threads",
            Row::GetThreads16 => "… by 16 threads",
            Row::GetProcesses => "… by 2 processes",
            Row::Miss => "miss, in one view",
            Row::GetMany => "get, 64 at a time",
            Row::Iterate => "iterate",
            Row::IterateAfter => "iterate after overwriting",
            Row::Overwrite => "overwrite",
            Row::Remove => "remove",
            Row::YcsbA => "YCSB A, half updates",
            Row::YcsbB => "YCSB B, 5 % updates",
            Row::YcsbC => "YCSB C, only reads",
            Row::YcsbF => "YCSB F, half read and update",
            Row::SyncedSingle => "synced put, median",
            Row::SyncedBatch => "synced batch of 1000, median",
            Row::Open => "open",
            Row::OpenAfterKill => "open after a kill",
            Row::OpenAfterPowerCut => "open after a power cut, cold",
            Row::FileLoaded => "file after the load",
            Row::FileOverwritten => "file after overwriting",
            Row::Memory => "private memory",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Row::SyncedSingle | Row::SyncedBatch => Unit::Microseconds,
            Row::Open | Row::OpenAfterKill | Row::OpenAfterPowerCut => Unit::Milliseconds,
            Row::FileLoaded | Row::FileOverwritten => Unit::Bytes,
            Row::Memory => Unit::Mebibytes,
            _ => Unit::Nanoseconds,
        }
    }
}

/// A figure of one run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) row: Row,
    /// In the unit of the row.
    pub(crate) value: f64,
    /// Whether time ran out before the work was complete.
    pub(crate) is_partial: bool,
}

/// The result that a process reports.
pub(crate) type Outcome = Vec<Figure>;

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// To run the workload.
    Measure,
    /// To be one of two reading processes.
    Read,
    /// To write, say so, and be killed; with a sync before, or without.
    Die { is_synced: bool },
}

/// A piece of work for a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) peer: PeerName,
    pub(crate) workload: Workload,
    pub(crate) role: Role,
    /// The folder of this peer.
    pub(crate) folder: PathBuf,
    pub(crate) keys: u64,
    pub(crate) value_len: usize,
    /// Look-ups, and operations of YCSB.
    pub(crate) operations: u64,
    /// The longest time to measure.
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

impl Job {
    /// The folder of the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn model_path(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// The content of the store.
    fn model(&self) -> Result<Model> {
        Model::read(&self.model_path(), self.value_len)
    }

    fn write_model(&self, model: &Model) -> Result<()> {
        model.write(&self.model_path())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The limit for loading and overwriting, which should go through all keys if possible.
    fn long_limit(&self) -> Duration {
        self.limit() * 5
    }

    fn open<P: Peer>(&self, durability: Durability, access: Access) -> Result<P> {
        let folder = self.store();
        P::open(&Place { folder: &folder, keys: self.keys, value_len: self.value_len, durability, access })
    }

    /// The peer with all its content: from its file, or, if it has none, loaded now.
    fn open_loaded<P: Peer>(&self, model: &Model) -> Result<P> {
        if P::facts().is_lasting {
            return self.open(Durability::Buffered, Access::Write);
        }
        let mut peer = self.open::<P>(Durability::Buffered, Access::Write)?;
        for numbers in pieces(0..model.keys(), BATCH) {
            let entries = numbers.filter_map(|number| model.entry(number));
            peer.put_batch(&Batch::new(entries, self.value_len))?;
        }
        Ok(peer)
    }
}

/// Adds up the times of the parts of a measurement.
struct Meter {
    spent: Duration,
    done: u64,
    limit: Duration,
}

impl Meter {
    fn new(limit: Duration) -> Meter {
        Meter { spent: Duration::ZERO, done: 0, limit }
    }

    /// Times `work`, which does `operations` operations.
    fn time<R>(&mut self, operations: usize, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let start = Instant::now();
        let result = work()?;
        self.spent += start.elapsed();
        self.done += operations as u64;
        Ok(result)
    }

    fn is_over(&self) -> bool {
        self.spent >= self.limit
    }

    /// The mean in nanoseconds; `planned` operations were planned.
    fn figure(&self, row: Row, planned: u64) -> Figure {
        let value = self.spent.as_nanos() as f64 / self.done as f64;
        Figure { row, value, is_partial: self.done < planned }
    }
}

/// Every entry of a view.
fn contents(view: &mut impl View) -> Result<Contents> {
    let mut contents = Contents::default();
    view.for_each(|key, value| contents.entry(key, value))?;
    Ok(contents)
}

/// Checks that a peer returned the expected result.
fn check<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<()> {
    ensure!(found == expected, "{what}: found {found:?}, expected {expected:?}");
    Ok(())
}

/// Does a piece of work with a peer, in this process.
pub(crate) fn run<P: Peer>(job: &Job) -> Result<Outcome> {
    fs::create_dir_all(job.store()).with_context(|| format!("{}", job.folder.display()))?;
    let outcome = match (job.role, job.workload) {
        (Role::Read, _) => read::as_one_of_two::<P>(job)?,
        (Role::Die { is_synced }, _) => open::until_killed::<P>(job, is_synced)?,
        (_, Workload::LoadSingles) => load::singles::<P>(job)?,
        (_, Workload::LoadBatches) => load::batches::<P>(job)?,
        (_, Workload::Open) => open::closed::<P>(job)?,
        (_, Workload::Get) => read::each_by_itself::<P>(job)?,
        (_, Workload::GetView) => read::in_view::<P>(job)?,
        (_, Workload::GetThreads2) => read::by_threads::<P>(job, 2, Row::GetThreads2)?,
        (_, Workload::GetThreads16) => read::by_threads::<P>(job, 16, Row::GetThreads16)?,
        (_, Workload::GetProcesses) => read::by_processes(job)?,
        (_, Workload::Miss) => read::misses::<P>(job)?,
        (_, Workload::GetMany) => read::many::<P>(job)?,
        (_, Workload::Iterate) => read::everything::<P>(job, Row::Iterate)?,
        (_, Workload::SyncedSingles) => write::synced::<P>(job, Row::SyncedSingle, 1)?,
        (_, Workload::SyncedBatches) => write::synced::<P>(job, Row::SyncedBatch, BATCH)?,
        (_, Workload::Overwrite) => write::overwrite::<P>(job)?,
        (_, Workload::IterateAfter) => read::everything::<P>(job, Row::IterateAfter)?,
        (_, Workload::YcsbA) => ycsb::run::<P>(job, Row::YcsbA)?,
        (_, Workload::YcsbB) => ycsb::run::<P>(job, Row::YcsbB)?,
        (_, Workload::YcsbC) => ycsb::run::<P>(job, Row::YcsbC)?,
        (_, Workload::YcsbF) => ycsb::run::<P>(job, Row::YcsbF)?,
        (_, Workload::Remove) => write::remove::<P>(job)?,
        (_, Workload::OpenAfterKill) => open::after_kill::<P>(job)?,
        (_, Workload::OpenAfterPowerCut) => open::after_power_cut::<P>(job)?,
    };
    // Otherwise unwritten data would be written while the next process is measured.
    files::sync(&job.folder)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::data::Key;
    use crate::peers::{Facts, InMemory, Table};

    /// The ways in which a peer lies.
    const HONEST: u8 = 0;
    const FINDS_NOTHING: u8 = 1;
    const KEEPS_THE_FIRST: u8 = 2;
    const CUTS_OFF: u8 = 3;

    #[derive(Default)]
    struct Liar<const HOW: u8>(HashMap<Key, Vec<u8>>);

    impl<const HOW: u8> Table for Liar<HOW> {
        fn facts() -> Facts {
            Facts { is_lasting: false, ..PeerName::Slotlog.facts().unwrap() }
        }

        fn insert(&mut self, key: &Key, value: &[u8]) {
            let value = if HOW == CUTS_OFF { &value[..value.len() - 1] } else { value };
            let kept = self.0.entry(*key).or_insert_with(|| value.to_vec());
            if HOW != KEEPS_THE_FIRST {
                *kept = value.to_vec();
            }
        }

        fn get(&self, key: &Key) -> Option<&[u8]> {
            self.0.get(key).filter(|_| HOW != FINDS_NOTHING).map(Vec::as_slice)
        }

        fn remove(&mut self, key: &Key) {
            self.0.remove(key);
        }

        fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
            self.0.iter().map(|(key, value)| (&key[..], &value[..]))
        }
    }

    /// The workloads that such a peer passes.
    fn passed<const HOW: u8>() -> Vec<Workload> {
        use Workload::{Get, GetMany, GetThreads2, GetView, Iterate, LoadBatches, Overwrite, YcsbA};
        let folder = tempfile::tempdir().unwrap();
        let job = |workload| Job {
            peer: PeerName::Std,
            workload,
            role: Role::Measure,
            folder: folder.path().to_path_buf(),
            keys: 100,
            value_len: 20,
            operations: 100,
            seconds: 1.0,
            seed: 1,
        };
        let all = [LoadBatches, Get, GetView, GetThreads2, GetMany, Iterate, Overwrite, YcsbA];
        all.into_iter().filter(|workload| run::<InMemory<Liar<HOW>>>(&job(*workload)).is_ok()).collect()
    }

    #[test]
    fn a_peer_that_returns_something_else_fails() {
        use Workload::{Iterate, LoadBatches, Overwrite, YcsbA};
        assert_eq!(passed::<HONEST>().len(), 8);
        // It lists all its entries, which is what the first and the sixth workload check.
        assert_eq!(passed::<FINDS_NOTHING>(), [LoadBatches, Iterate, Overwrite]);
        let passed_stale = passed::<KEEPS_THE_FIRST>();
        assert!(!passed_stale.contains(&Overwrite) && !passed_stale.contains(&YcsbA), "{passed_stale:?}");
        assert_eq!(passed::<CUTS_OFF>(), []);
    }
}
