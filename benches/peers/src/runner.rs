//! Rounds: all peers do each piece of work in turn before the next one, so that other work of the machine affects all
//! of them alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::child;
use crate::cli::Arguments;
use crate::data::Key;
use crate::peers::{Facts, PeerName};
use crate::workloads::{Figure, Job, Role, Workload};

/// All measurements.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) processors: usize,
    /// The name and version of the system.
    pub(crate) system: String,
    pub(crate) rounds: u32,
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) peers: BTreeMap<PeerName, Facts>,
    pub(crate) sections: Vec<Section>,
}

/// The measurements with one number of keys and one length of values.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) keys: u64,
    pub(crate) value_len: usize,
    pub(crate) runs: Vec<Run>,
    pub(crate) failures: Vec<Failure>,
}

/// A figure of one peer in one round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) peer: PeerName,
    pub(crate) figure: Figure,
}

/// A piece of work that a peer could not do.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) peer: PeerName,
    pub(crate) workload: Workload,
    pub(crate) message: String,
}

fn system() -> String {
    let uname = rustix::system::uname();
    [uname.sysname(), uname.release(), uname.machine()].map(|part| part.to_string_lossy().into_owned()).join(" ")
}

pub(crate) fn run(arguments: &Arguments) -> Result<Results> {
    let peers = arguments.peers()?;
    let sizes: Vec<(u64, usize)> = arguments
        .values
        .iter()
        .flat_map(|value_len| arguments.keys.iter().map(|keys| (*keys, *value_len as usize)))
        .map(|(keys, value_len)| (fitting(keys, value_len, arguments.gibibytes), value_len))
        .collect();
    let pieces = sizes.len() * arguments.rounds as usize * arguments.workloads().len() * peers.len();
    let style = ProgressStyle::with_template("{elapsed} of about {duration} {wide_bar} {msg}")?;
    let progress = ProgressBar::new(pieces as u64).with_style(style);
    let mut sections = Vec::new();
    for (keys, value_len) in sizes {
        let mut section = Section { keys, value_len, runs: Vec::new(), failures: Vec::new() };
        section.measure(arguments, &peers, &progress)?;
        sections.push(section);
    }
    progress.finish_and_clear();
    Ok(Results {
        processors: available_parallelism()?.get(),
        system: system(),
        rounds: arguments.rounds,
        operations: arguments.operations,
        seconds: arguments.seconds,
        peers,
        sections,
    })
}

/// As many of the keys as fit into this many gibibytes.
fn fitting(keys: u64, value_len: usize, gibibytes: f64) -> u64 {
    let most = gibibytes * f64::from(1 << 30) / (size_of::<Key>() + value_len) as f64;
    keys.min(most as u64).max(64)
}

fn temporary(parent: Option<&Path>) -> Result<TempDir> {
    Ok(match parent {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    })
}

impl Section {
    fn measure(
        &mut self,
        arguments: &Arguments,
        peers: &BTreeMap<PeerName, Facts>,
        progress: &ProgressBar,
    ) -> Result<()> {
        let (keys, value_len) = (self.keys, self.value_len);
        for round in 0..arguments.rounds {
            let folder = temporary(arguments.folder.as_deref())?;
            for workload in arguments.workloads() {
                // Not always the same one first.
                let first = round as usize % peers.len();
                for (&peer, facts) in peers.iter().skip(first).chain(peers.iter().take(first)) {
                    progress.set_message(format!("{} {workload:?}", facts.name));
                    progress.inc(1);
                    if !facts.can(workload, value_len) || self.has_failed(peer) {
                        continue;
                    }
                    let job = Job {
                        peer,
                        workload,
                        role: Role::Measure,
                        folder: folder.path().join(format!("{peer:?}")),
                        keys,
                        value_len,
                        operations: arguments.operations.min(keys),
                        seconds: arguments.seconds,
                        seed: u64::from(round) + 1,
                    };
                    fs::create_dir_all(&job.folder)?;
                    self.take(round, &job);
                }
            }
        }
        Ok(())
    }

    /// Whether this peer is out: after a failure, its content is not the expected one.
    fn has_failed(&self, peer: PeerName) -> bool {
        self.failures.iter().any(|failure| failure.peer == peer)
    }

    /// Makes a process do the work, and keeps the results.
    fn take(&mut self, round: u32, job: &Job) {
        let (peer, workload) = (job.peer, job.workload);
        match child::run(job) {
            Ok(outcome) => self.runs.extend(outcome.into_iter().map(|figure| Run { round, peer, figure })),
            Err(error) => self.failures.push(Failure { peer, workload, message: format!("{error:#}") }),
        }
    }
}
