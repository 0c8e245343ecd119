//! What the entries of the log have come to: keys and values, the members of the cluster, and how far that is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{Entry, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, SnapshotMeta, StoredMembership};
use serde::{Deserialize, Serialize};
use slotlog::{Map, Store, TransactionMap};
use tokio::fs::File;
use tokio::sync::watch;

use super::snapshot;
use super::{Log, Single, blocking, checked};
use crate::{Change, NodeId, Reply, Request, Types};

type LogId = openraft::LogId<NodeId>;
pub(super) type Meta = SnapshotMeta<NodeId, openraft::BasicNode>;
type Result<T> = std::result::Result<T, openraft::StorageError<NodeId>>;

/// A value and its version.
pub type Versioned = (u64, Vec<u8>);
/// Keys, with version and value.
pub(super) type Entries = Map<str, Versioned>;

/// What is written in the same transaction as the changes that it describes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Applied {
    /// The last entry that was applied.
    pub(super) last: Option<LogId>,
    /// The last members among the applied entries.
    pub(super) members: StoredMembership<NodeId, openraft::BasicNode>,
    /// How many requests were applied, which makes the version of the next value.
    pub(super) requests: u64,
    /// Which of the two maps of entries counts. The other one is empty, or a snapshot on its way in.
    pub(super) current: usize,
}

/// The names of the maps of entries.
pub(super) const ENTRIES: [&str; 2] = ["state 0", "state 1"];
/// The name of the map that says how far they are.
pub(super) const APPLIED: &str = "applied";

/// The state of a node. Clones are the same state.
#[derive(Clone)]
pub struct State {
    pub(super) store: Store,
    pub(super) entries: [Entries; 2],
    pub(super) applied: Single<Applied>,
    pub(super) folder: PathBuf,
    /// What the file of the last snapshot holds. The holder of the lock may replace the file.
    pub(super) last_snapshot: Arc<Mutex<Option<Meta>>>,
    changed: watch::Sender<()>,
}

impl State {
    pub(super) fn new(store: &Store, folder: &Path, log: &Log) -> slotlog::Result<State> {
        let applied: Single<Applied> = store.map(APPLIED)?;
        let last_snapshot = snapshot::find(folder, &applied.get(())?.unwrap_or_default(), log.ends()?)?;
        Ok(State {
            store: store.clone(),
            entries: [store.map(ENTRIES[0])?, store.map(ENTRIES[1])?],
            applied,
            folder: folder.to_owned(),
            last_snapshot: Arc::new(Mutex::new(last_snapshot)),
            changed: watch::Sender::new(()),
        })
    }

    /// The value of a key, as far as this node has applied the log.
    ///
    /// # Errors
    /// Those of the store.
    pub fn get(&self, key: &str) -> slotlog::Result<Option<Versioned>> {
        // One commit: meanwhile a snapshot may make the other map the one that counts.
        let view = self.store.snapshot()?;
        let current = view.of(&self.applied).get(())?.unwrap_or_default().current;
        view.of(&self.entries[current]).get(key)
    }

    /// Notices from now on when something was applied.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Applies entries, and notes how far that is, in one transaction. It is not flushed: see [`super`].
    fn apply_all(&self, entries: Vec<Entry<Types>>) -> slotlog::Result<Vec<Vec<Reply>>> {
        let mut transaction = self.store.begin()?;
        let mut applied = transaction.of(&self.applied).get(())?.unwrap_or_default();
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            applied.last = Some(entry.log_id);
            let mut of_entry = Vec::new();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(members) => {
                    applied.members = StoredMembership::new(Some(entry.log_id), members);
                }
                EntryPayload::Normal(requests) => {
                    for request in requests {
                        applied.requests += 1;
                        let map = transaction.of(&self.entries[applied.current]);
                        of_entry.push(apply_one(map, request, applied.requests)?);
                    }
                }
            }
            replies.push(of_entry);
        }
        transaction.of(&self.applied).insert((), applied)?;
        transaction.commit()?;
        self.wake();
        Ok(replies)
    }

    /// Wakes those that wait for a change.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }
}

/// Makes one change. It only depends on the state, so that all nodes come to the same.
fn apply_one(mut map: TransactionMap<'_, str, Versioned>, request: Request, version: u64) -> slotlog::Result<Reply> {
    let before = map.get(&request.key)?.map_or(0, |(version, _)| version);
    if request.expected.is_some_and(|expected| expected != before) {
        return Ok(Reply { done: false, before, now: before });
    }
    let now = match request.change {
        Change::Put(value) => {
            map.insert(&request.key, (version, value))?;
            version
        }
        Change::Delete => {
            map.remove(&request.key)?;
            0
        }
    };
    Ok(Reply { done: true, before, now })
}

impl RaftStateMachine<Types> for State {
    type SnapshotBuilder = State;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership<NodeId, openraft::BasicNode>)> {
        let applied = checked(ErrorSubject::StateMachine, ErrorVerb::Read, self.applied.get(()))?.unwrap_or_default();
        Ok((applied.last, applied.members))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Reply>>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (state, entries) = (self.clone(), entries.into_iter().collect());
        blocking(ErrorSubject::StateMachine, ErrorVerb::Write, move || state.apply_all(entries)).await
    }

    /// A builder needs no view of its own: its backup is of one commit, which says itself how far it is.
    async fn get_snapshot_builder(&mut self) -> State {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<File>> {
        self.receive().map(Box::new)
    }

    async fn install_snapshot(&mut self, meta: &Meta, received: Box<File>) -> Result<()> {
        let (state, meta, received) = (self.clone(), meta.clone(), received.into_std().await);
        blocking(ErrorSubject::Snapshot(None), ErrorVerb::Write, move || state.install(&meta, received)).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>> {
        self.current_snapshot()
    }
}
