//! A replicated key-value service: three nodes that stay alike, with [`openraft`] as the engine that makes them agree
//! and slotlog as its storage. It is a model to copy from; what to copy first is [`store`].
//!
//! | module | what it is |
//! | --- | --- |
//! | [`store`] | what a node must not forget: log, vote, state, snapshots |
//! | [`network`] | how nodes talk to each other |
//! | [`node`] | a node: engine, storage, and an HTTP interface for clients |
//! | [`client`] | a client that finds the leader |
//! | [`cluster`], [`demo`], [`bench`] | nodes as processes on one machine, to try it |
//!
//! ```text
//! cargo run --release -- demo                     # three nodes here, of which the leader is killed
//!
//! replicated node --new --id 1 --listen 127.0.0.1:7001 --folder one        # and likewise 2 and 3; later without --new
//! replicated init 1=127.0.0.1:7001 2=127.0.0.1:7002 3=127.0.0.1:7003       # once
//! replicated put --at 127.0.0.1:7001,127.0.0.1:7002 greeting hello
//! curl -L 127.0.0.1:7003/kv/greeting
//! ```
//!
//! # What it promises
//!
//! * A change that was acknowledged is flushed on a majority of the nodes, and survives whatever happens to the others.
//! * Each key is a register, for all clients: a read sees every change that was acknowledged before it began.
//! * With a majority, it goes on: when the leader is gone, after an election, which takes about a second.
//! * A node that cannot store something stops, with the reason. It never goes on with less than it has promised.
//!
//! `tests/cluster` tries to refute that: under load it kills leaders, stops nodes, takes away a folder, fills a disk,
//! and cuts the power of all nodes at once; and it cuts the lines between them.
//!
//! # What it leaves out
//!
//! * Encryption and passwords: every client, and every node, is believed. Use it on a network where that is right.
//! * Doing a change exactly once when its answer was lost: the client says that it does not know. Give requests an
//!   identity, and have [`store::State`] remember the last ones of each client, or use compare-exchange.
//! * More than one group: all keys are in one log, so three nodes write as fast as one leader does.
//! * A node that lost its folder: it comes back as a new one with a new number (`replicated members`), since it has
//!   forgotten its votes. This program refuses to start it with the old number, unless told that it is new.

pub mod bench;
pub mod client;
pub mod cluster;
pub mod demo;
pub mod network;
pub mod node;
pub mod store;

use serde::{Deserialize, Serialize};

/// The number of a node. It is given once, and not again to another one.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// What the engine works with.
    pub Types:
        D = Vec<Request>,
        R = Vec<Reply>,
        SnapshotData = tokio::fs::File,
);

/// A change that a client asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The key.
    pub key: String,
    /// The version that the value has to have, 0 if there must be none.
    pub expected: Option<u64>,
    /// What to do.
    pub change: Change,
}

/// What a [`Request`] does to its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Sets the value.
    Put(Vec<u8>),
    /// Removes the key.
    Delete,
}

/// What a [`Request`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done: the version was the expected one.
    pub done: bool,
    /// The version before, 0 if there was no value.
    pub before: u64,
    /// The version afterwards, 0 if there is no value.
    pub now: u64,
}

impl Request {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let value = match &self.change {
            Change::Put(value) => value.len(),
            Change::Delete => 0,
        };
        self.key.len() + value + 32
    }
}
