//! The log of the engine, with its vote and what it knows to be committed.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{Entry, EntryPayload, ErrorSubject, ErrorVerb, LogIdOptionExt, OptionalSend};
use serde::{Deserialize, Serialize};
use slotlog::{Durability, Map, Serde, Store};
use tokio::task;

use super::{Single, blocking, checked};
use crate::{NodeId, Types};

type LogId = openraft::LogId<NodeId>;
type Vote = openraft::Vote<NodeId>;
type Result<T> = std::result::Result<T, openraft::StorageError<NodeId>>;

/// Which part of the log is there: all entries after `purged`, up to and including `last`.
///
/// A hash index has no order, so it does not know its last key. That is written down here, in the transactions that
/// change it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ends {
    pub(super) purged: Option<LogId>,
    /// The last entry; `purged` if there is none.
    pub(super) last: Option<LogId>,
}

/// The log of a node. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    node: NodeId,
    store: Store,
    entries: Map<u64, Serde<Entry<Types>>>,
    ends: Single<Ends>,
    vote: Single<Vote>,
    committed: Single<LogId>,
}

/// What the replication to other nodes reads.
pub type LogReader = Log;

/// Entries are read together until they have this many bytes of keys and values.
const READ_LIMIT: usize = 4 << 20;
/// How many are looked up at a time.
const STRIDE: u64 = 16;

impl Log {
    pub(super) fn new(store: &Store, node: NodeId) -> slotlog::Result<Log> {
        Ok(Log {
            node,
            store: store.clone(),
            entries: store.map("log")?,
            ends: store.map("ends")?,
            vote: store.map("vote")?,
            committed: store.map("committed")?,
        })
    }

    pub(super) fn ends(&self) -> slotlog::Result<Ends> {
        Ok(self.ends.get(())?.unwrap_or_default())
    }

    /// Makes everything that was committed so far survive a power cut. Calls at the same time share one flush.
    fn flush(&self) -> slotlog::Result<()> {
        self.store.sync()
    }

    /// Reads the entries from `start` up to but without `end`, as far as they are there. It stops early once it has
    /// `limit` bytes.
    fn read(&self, start: u64, end: u64, limit: usize) -> slotlog::Result<Vec<Entry<Types>>> {
        let ends = self.ends()?;
        let (mut next, end) = (start.max(ends.purged.next_index()), end.min(ends.last.next_index()));
        let (mut found, mut bytes) = (Vec::new(), 0);
        while next < end {
            // Indices are dense, so a range is a list of keys.
            let keys: Vec<u64> = (next..end.min(next + STRIDE)).collect();
            next += keys.len() as u64;
            for entry in self.entries.get_many(&keys)?.into_iter().flatten() {
                bytes += size(&entry);
                found.push(entry);
                if bytes >= limit {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Adds entries, in one transaction. It is not flushed.
    fn add(&self, entries: &[Entry<Types>]) -> slotlog::Result<()> {
        let Some(last) = entries.last() else { return Ok(()) };
        let mut transaction = self.store.begin()?;
        for entry in entries {
            transaction.of(&self.entries).insert(entry.log_id.index, entry)?;
        }
        let ends = transaction.of(&self.ends).get(())?.unwrap_or_default();
        transaction.of(&self.ends).insert((), Ends { last: Some(last.log_id), ..ends })?;
        transaction.commit_with(Durability::Buffered)
    }

    /// Removes the entries from `first` on.
    fn remove_from(&self, first: u64) -> slotlog::Result<()> {
        let mut transaction = self.store.begin()?;
        let mut ends = transaction.of(&self.ends).get(())?.unwrap_or_default();
        for index in first..ends.last.next_index() {
            transaction.of(&self.entries).remove(index)?;
        }
        let before = first.checked_sub(1).map(|index| transaction.of(&self.entries).get(index)).transpose()?.flatten();
        ends.last = before.map(|entry| entry.log_id).or(ends.purged);
        transaction.of(&self.ends).insert((), ends)?;
        transaction.commit_with(Durability::Buffered)
    }

    /// Removes the entries up to and including `upto`, all of which the state has.
    fn remove_upto(&self, upto: LogId) -> slotlog::Result<()> {
        let mut transaction = self.store.begin()?;
        let mut ends = transaction.of(&self.ends).get(())?.unwrap_or_default();
        for index in ends.purged.next_index()..ends.last.next_index().min(upto.index + 1) {
            transaction.of(&self.entries).remove(index)?;
        }
        ends.purged = Some(upto);
        // A snapshot may reach further than the log did.
        ends.last = ends.last.max(Some(upto));
        transaction.of(&self.ends).insert((), ends)?;
        transaction.commit_with(Durability::Buffered)
    }
}

/// About how many bytes an entry has.
fn size(entry: &Entry<Types>) -> usize {
    match &entry.payload {
        EntryPayload::Normal(requests) => requests.iter().map(crate::Request::size).sum(),
        _ => 0,
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        checked(ErrorSubject::Logs, ErrorVerb::Read, self.read(start, end, usize::MAX))
    }

    /// What goes into one message to another node.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Types>>> {
        checked(ErrorSubject::Logs, ErrorVerb::Read, self.read(start, end, READ_LIMIT))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>> {
        let ends = checked(ErrorSubject::Logs, ErrorVerb::Read, self.ends())?;
        Ok(LogState { last_purged_log_id: ends.purged, last_log_id: ends.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.clone()
    }

    /// Flushed before it returns: a node that forgot its vote could vote twice.
    async fn save_vote(&mut self, vote: &Vote) -> Result<()> {
        let (map, vote) = (self.vote.clone(), *vote);
        let store = self.store.clone();
        blocking(ErrorSubject::Vote, ErrorVerb::Write, move || {
            let mut transaction = store.begin()?;
            transaction.of(&map).insert((), vote)?;
            transaction.commit_with(Durability::Synced)
        })
        .await
    }

    /// A leader that is started again has to be elected again. With the vote as it was, the engine would go on leading
    /// in the same term, and take what the state has for all that was ever committed: after a power cut it has less,
    /// and clients would read what was true earlier. A new leader first commits an entry of its own.
    async fn read_vote(&mut self) -> Result<Option<Vote>> {
        let vote = checked(ErrorSubject::Vote, ErrorVerb::Read, self.vote.get(()))?;
        Ok(vote.map(|vote| Vote { committed: vote.committed && vote.leader_id.node_id != self.node, ..vote }))
    }

    /// Not flushed: it only says how much the node may apply at its next start without asking the others.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<()> {
        let map = self.committed.clone();
        blocking(ErrorSubject::Store, ErrorVerb::Write, move || match committed {
            Some(committed) => map.insert((), committed),
            None => map.remove(()).map(drop),
        })
        .await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>> {
        checked(ErrorSubject::Store, ErrorVerb::Read, self.committed.get(()))
    }

    /// The entries can be read when this returns, and survive a power cut when `callback` is called. In between, the
    /// engine is free, and what others append or vote meanwhile shares the flush.
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let log = self.clone();
        blocking(ErrorSubject::Logs, ErrorVerb::Write, move || log.add(&entries)).await?;
        let log = self.clone();
        task::spawn_blocking(move || callback.log_io_completed(log.flush().map_err(io::Error::other)));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<()> {
        let log = self.clone();
        blocking(ErrorSubject::Logs, ErrorVerb::Delete, move || log.remove_from(from.index)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<()> {
        let log = self.clone();
        blocking(ErrorSubject::Logs, ErrorVerb::Delete, move || log.remove_upto(upto)).await
    }
}
