//! The storage of one node: a single slotlog store with everything that has to survive, and a file with the last
//! snapshot.
//!
//! | map | key | value | written by |
//! | --- | --- | --- | --- |
//! | `identity` | – | the number of the node | the first start |
//! | `log` | index | entry | [`Log`]: append, truncate, purge |
//! | `ends` | – | which part of the log is there | the same transactions |
//! | `vote` | – | the last vote | [`Log`] |
//! | `committed` | – | how far the log is committed | [`Log`] |
//! | `state 0`, `state 1` | key | version and value | [`State`]; one of the two counts |
//! | `applied` | – | how far the state is, members, which state counts | the same transactions |
//!
//! # Why one store
//!
//! All maps of a store share one log, so *after a power cut a store is what some commit left, and every commit before
//! it is there*. That decides what has to be flushed:
//!
//! * A **vote** and an **append** are promises to other nodes: flushed before they are confirmed.
//! * **Applying** is not. If a power cut takes the last of it, the entries are still in the log, since their append
//!   came before and their removal would have come after; the engine applies them again. State, position and members
//!   are one transaction, so nothing is applied twice or left out. For the same reason a leader that is started again
//!   must not go on as if it had applied everything: see `read_vote` in [`Log`].
//! * **Truncating** and **purging** are not either: nothing was promised that rests on them, and whatever is promised
//!   later is flushed later, with them.
//!
//! With a store for the log and another for the state, each of these would need a flush of its own in the right order.
//!
//! # Blocking
//!
//! A read from a store is a few memory accesses, and is done in place. What writes, flushes or goes through many
//! values blocks, and runs on tokio's threads for that.

mod log;
mod snapshot;
mod state;

use std::error::Error;
use std::path::{Path, PathBuf};

use openraft::{AnyError, ErrorSubject, ErrorVerb, StorageError, StorageIOError};
use slotlog::Options;
use tokio::task;

use crate::NodeId;

pub use log::{Log, LogReader};
pub use state::{State, Versioned};

/// Why the storage of a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] slotlog::Error),
    /// There is no store, and a new node was not asked for.
    #[error(
        "{0} has no store of a node; if this node is new to the cluster, say --new. If it lost its folder, it comes \
         back as a new node with a new number: it has forgotten its votes"
    )]
    Missing(PathBuf),
    /// The store belongs to another node.
    #[error("{folder} is the folder of node {found}, not of node {expected}")]
    OtherNode {
        /// The folder.
        folder: PathBuf,
        /// The node that it belongs to.
        found: NodeId,
        /// The node that was to be started.
        expected: NodeId,
    },
}

/// Opens the storage of a node in `folder`, or creates it, if the node is `new`.
///
/// # Errors
/// [`OpenError`].
pub fn open(folder: &Path, node: NodeId, new: bool, options: Options) -> Result<(Log, State), OpenError> {
    let path = folder.join("node.slotlog");
    let options = if new { options.create_new(true) } else { options.create(false) };
    // Exclusive: two processes that are the same node could vote twice.
    let store = match options.exclusive(true).open(&path) {
        Err(slotlog::Error::NotFound { .. }) => return Err(OpenError::Missing(folder.to_owned())),
        opened => opened?,
    };
    let identity = store.map::<(), NodeId>("identity")?;
    match identity.get(())? {
        Some(found) if found == node => {}
        Some(found) => return Err(OpenError::OtherNode { folder: folder.to_owned(), found, expected: node }),
        None if new => identity.insert((), node)?,
        None => return Err(OpenError::Missing(folder.to_owned())),
    }
    let log = Log::new(&store, node)?;
    let state = State::new(&store, folder, &log)?;
    Ok((log, state))
}

/// Runs what may block, and reports its failure as one of the storage: the engine stops the node then.
async fn blocking<T: Send + 'static, E: Error + Send + 'static>(
    subject: ErrorSubject<NodeId>,
    verb: ErrorVerb,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StorageError<NodeId>> {
    match task::spawn_blocking(work).await {
        Ok(outcome) => checked(subject, verb, outcome),
        Err(panic) => Err(StorageIOError::new(subject, verb, AnyError::new(&panic)).into()),
    }
}

/// The same for what was done in place.
fn checked<T, E: Error + 'static>(
    subject: ErrorSubject<NodeId>,
    verb: ErrorVerb,
    outcome: Result<T, E>,
) -> Result<T, StorageError<NodeId>> {
    outcome.map_err(|error| {
        let error = StorageIOError::new(subject, verb, AnyError::new(&error));
        // What the engine reports as the end may only be a consequence, such as a channel that was closed.
        eprintln!("storage: {error}");
        error.into()
    })
}

/// A map that has one value.
type Single<T> = slotlog::Map<(), slotlog::Serde<T>>;
