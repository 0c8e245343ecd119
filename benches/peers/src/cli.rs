//! The command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum, value_parser};

use crate::child;
use crate::peers::{Facts, PeerName};
use crate::workloads::Workload;

/// slotlog beside other stores and maps.
///
/// Each piece of work runs in a process of its own; the peers take turns, round by round. Prints Markdown: medians of
/// the rounds, ratios, and the rows in which slotlog loses.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Which peers; all that are built in unless it says otherwise. slotlog is always among them.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<PeerName>,

    /// Which workloads; all unless it says otherwise.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<Workload>,

    /// How many keys: one number, or several (100000,1000000,10000000) for a table each.
    #[arg(long, value_delimiter = ',', default_value = "1000000", value_parser = value_parser!(u64).range(64..1 << 32))]
    pub(crate) keys: Vec<u64>,

    /// Bytes of a value: one number, or several (8,100,1024,65536) for a table each.
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = value_parser!(u32).range(8..1 << 30))]
    pub(crate) values: Vec<u32>,

    /// Gibibytes of keys and values at most: with large values, there are fewer keys.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) gibibytes: f64,

    /// Rounds, of which the median is taken. All peers do all of them: to stop where the first ones agree would favour
    /// those that agree by chance.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// Look-ups of a run, and operations of YCSB; fewer if there are fewer keys.
    #[arg(long, default_value_t = 250_000, value_parser = value_parser!(u64).range(64..))]
    pub(crate) operations: u64,

    /// For how many seconds is measured at most, and for five times as many where all keys are put one by one. What a
    /// slow peer does not do in that time is left out, and its figure is marked.
    #[arg(long, default_value_t = 0.3)]
    pub(crate) seconds: f64,

    /// A folder on the disk that is to be used; the usual one for temporary files unless it says otherwise.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,

    /// A folder for the report, its plots, and all single results.
    #[arg(long, global = true)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints the report of results that were measured before.
    Report {
        /// The file `results.json` of that time.
        results: PathBuf,
    },
    /// Does one piece of work.
    #[command(hide = true, name = child::COMMAND)]
    Child { job: String },
}

impl Arguments {
    /// In the order in which they are shown.
    pub(crate) fn peers(&self) -> Result<BTreeMap<PeerName, Facts>> {
        if self.peers.is_empty() {
            return Ok(PeerName::value_variants().iter().filter_map(|peer| Some((*peer, peer.facts()?))).collect());
        }
        let wanted = self.peers.iter().chain(&[PeerName::Slotlog]).map(|peer| {
            let name = format!("{peer:?}").to_lowercase();
            let facts = peer
                .facts()
                .with_context(|| format!("{name} is not built in: cargo run --release --features {name} -- …"))?;
            Ok((*peer, facts))
        });
        wanted.collect()
    }

    /// In the order in which they are done. Without the load there is nothing to work with.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        let is_wanted = |workload: &Workload| {
            self.workloads.is_empty() || *workload == Workload::LoadBatches || self.workloads.contains(workload)
        };
        Workload::value_variants().iter().copied().filter(is_wanted).collect()
    }
}
