//! Snapshots: backups of the store, sent to nodes that have fallen behind further than the log reaches.
//!
//! A backup is one commit of the whole store. What counts in it is the state and how far that is, which one commit
//! says together; vote and log of the sender are in it too, and the receiver does not look at them.
//!
//! The receiver fills its second map of entries, in transactions of bounded size, so that nothing waits long. Then one
//! transaction makes that map the one that counts. A node that is killed on the way has its old state, and half a map
//! that the next installation clears first.
//!
//! The file of the last snapshot is a convenience: if it is missing, the engine has another one made. It is replaced
//! by renaming, and an opened one stays readable, so a replacement does not disturb those who send it.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::Path;
use std::sync::PoisonError;

use openraft::storage::{RaftSnapshotBuilder, Snapshot};
use openraft::{ErrorSubject, ErrorVerb, StorageError};
use slotlog::{Access, BackupOptions, Durability, Store};

use super::log::Ends;
use super::state::{APPLIED, Applied, ENTRIES, Meta, State};
use super::{Single, blocking, checked};
use crate::{NodeId, Types};

/// The last snapshot.
const FILE: &str = "snapshot.slotlog";
/// One that is being made.
const MADE: &str = "snapshot.made.slotlog";
/// One that was received, and is being installed.
const RECEIVED: &str = "snapshot.received.slotlog";

const SUBJECT: ErrorSubject<NodeId> = ErrorSubject::Snapshot(None);

/// Why a snapshot cannot be made or installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Store(#[from] slotlog::Error),
    #[error("the file of a snapshot: {0}")]
    File(#[from] io::Error),
    #[error("a snapshot of {expected} was announced, but {found} was received")]
    OtherSnapshot { expected: Meta, found: Meta },
}

impl RaftSnapshotBuilder<Types> for State {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<NodeId>> {
        let state = self.clone();
        blocking(SUBJECT, ErrorVerb::Write, move || {
            let made = state.folder.join(MADE);
            // Without rest: the node that it is for gets no entries meanwhile.
            state.store.backup_with(&made, BackupOptions::new().overwrite(true).full_speed(true))?;
            let meta = Received::open(&made)?.meta()?;
            state.replace_snapshot(&made, meta)
        })
        .await
    }
}

impl State {
    /// A file without a name, for a snapshot that is about to come in.
    pub(super) fn receive(&self) -> Result<tokio::fs::File, StorageError<NodeId>> {
        let file = tempfile::tempfile_in(&self.folder).map(tokio::fs::File::from_std);
        checked(SUBJECT, ErrorVerb::Write, file)
    }

    /// Makes what was received the state of this node.
    pub(super) fn install(&self, meta: &Meta, mut received: File) -> Result<(), Error> {
        let path = self.folder.join(RECEIVED);
        received.rewind()?;
        let mut file = File::create(&path)?;
        io::copy(&mut received, &mut file)?;
        file.sync_all()?;
        drop(file);

        let copy = Received::open(&path)?;
        let found = copy.meta()?;
        if found != *meta {
            return Err(Error::OtherSnapshot { expected: meta.clone(), found });
        }
        let before = self.applied.get(())?.unwrap_or_default().current;
        let target = 1 - before;
        self.entries[target].clear()?;
        let view = copy.store.snapshot()?;
        let mut import = self.store.import();
        // Each entry is checked against its checksum.
        for entry in view.export_map(ENTRIES[copy.applied.current])? {
            let entry = entry?;
            import.insert(ENTRIES[target], entry.key, entry.value, entry.expires)?;
        }
        import.finish()?;

        // From here on it is there, all of it at once, and flushed: the engine forgets the log before it.
        let mut transaction = self.store.begin()?;
        transaction.of(&self.applied).insert((), Applied { current: target, ..copy.applied.clone() })?;
        transaction.commit_with(Durability::Synced)?;
        self.entries[before].clear()?;
        self.wake();
        drop((view, copy));
        self.replace_snapshot(&path, found)?;
        Ok(())
    }

    /// Makes the file at `from` the last snapshot, unless there is a newer one, and returns the last one.
    fn replace_snapshot(&self, from: &Path, meta: Meta) -> Result<Snapshot<Types>, Error> {
        let mut last = self.last_snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let to = self.folder.join(FILE);
        let meta = match last.take() {
            Some(newer) if newer.last_log_id > meta.last_log_id => newer,
            _ => {
                fs::rename(from, &to)?;
                meta
            }
        };
        *last = Some(meta.clone());
        let file = tokio::fs::File::from_std(File::open(&to)?);
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }

    pub(super) fn current_snapshot(&self) -> Result<Option<Snapshot<Types>>, StorageError<NodeId>> {
        let last = self.last_snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(meta) = last.clone() else { return Ok(None) };
        let file = checked(SUBJECT, ErrorVerb::Read, File::open(self.folder.join(FILE)))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(tokio::fs::File::from_std(file)) }))
    }
}

/// The last snapshot of the folder, if it fits what the store has: after a kill or a power cut, either may be newer
/// than the other. One that does not fit is removed.
pub(super) fn find(folder: &Path, applied: &Applied, ends: Ends) -> Result<Option<Meta>, slotlog::Error> {
    let path = folder.join(FILE);
    let meta = Received::open(&path).and_then(|file| file.meta()).ok();
    let fits = |meta: &Meta| {
        let last = meta.last_log_id;
        // The log goes on from the snapshot, and the state from the log.
        ends.purged <= last && last <= applied.last && applied.last <= ends.last
    };
    let fitting = meta.filter(fits);
    if fitting.is_none() {
        let _ = fs::remove_file(&path);
    }
    Ok(fitting)
}

/// A backup of a node, opened to read its state.
struct Received {
    store: Store,
    applied: Applied,
}

impl Received {
    fn open(path: &Path) -> slotlog::Result<Received> {
        let store = Store::options().access(Access::ReadOnly).open(path)?;
        let map: Single<Applied> = store.map(APPLIED)?;
        let applied = map.get(())?.unwrap_or_default();
        Ok(Received { store, applied })
    }

    /// How the engine describes it. Each backup is a store with an identity of its own, and so has a name: two of the
    /// same state differ in their bytes, and parts of them must not be mixed.
    fn meta(&self) -> slotlog::Result<Meta> {
        Ok(Meta {
            last_log_id: self.applied.last,
            last_membership: self.applied.members.clone(),
            snapshot_id: self.store.stats()?.uuid,
        })
    }
}
