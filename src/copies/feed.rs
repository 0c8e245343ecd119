//! The change feed of the whole store.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::engine::Engine;
use crate::engine::clock::time;
use crate::engine::feed::commits::{ChangesOfCommit, Commits};
use crate::engine::feed::follow::Follower;
use crate::engine::feed::told::{Told, Unit, What};
use crate::engine::feed::wire::write_commit;
use crate::error::{Error, Result};
use crate::file::layout::Seq;
use crate::source::Source;

/// Every commit after a sequence number, of all maps, in order; see [`Store::changes`](crate::Store::changes).
///
/// The commits come straight from the log, one at a time, so it takes next to no memory. While it has commits to
/// return, it keeps space from being reused, like a [`Snapshot`](crate::Snapshot), but only for a bounded part of the
/// log at a time; while it waits, it keeps nothing.
///
/// ```
/// use slotlog::{FeedChangeKind, Store};
///
/// # let store = Store::in_memory()?;
/// let mut feed = store.changes(store.seq()?)?;
/// store.map::<str, u32>("ages")?.insert("Ada", 36)?;
/// let mut told = Vec::new();
/// while let Some(commit) = feed.next_commit()? {
///     for change in &commit {
///         let change = change?;
///         told.push((change.name.to_owned(), matches!(change.kind, FeedChangeKind::Create { .. })));
///     }
/// }
/// assert_eq!(told, [("ages".to_owned(), true), ("ages".to_owned(), false)]);
/// assert_eq!(feed.seq(), store.seq()?);
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct Feed {
    source: Source,
    commits: Commits,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("seq", &self.seq()).finish_non_exhaustive()
    }
}

impl Feed {
    pub(crate) fn after(source: Source, seq: Seq) -> Result<Feed> {
        let commits = Commits::after(Arc::clone(&source.engine()), seq)?;
        Ok(Feed { source, commits })
    }

    /// The next commit that has changed something, or `None` if there is none yet.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut feed = store.changes(store.seq()?)?;
    /// assert!(feed.next_commit()?.is_none());
    /// store.insert("key", "value")?;
    /// assert!(feed.next_commit()?.is_some_and(|commit| commit.iter().count() == 1));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`HistoryTruncated`](crate::Error::HistoryTruncated) if commits that were not returned yet are no longer in the
    /// log; [`Corrupt`](crate::Error::Corrupt); [`PinsExhausted`](crate::Error::PinsExhausted);
    /// [`Forked`](crate::Error::Forked).
    pub fn next_commit(&mut self) -> Result<Option<Commit<'_>>> {
        Ok(if self.advance()? { self.current() } else { None })
    }

    /// The next commit that has changed something, made by any process: waits up to `timeout` for one, as
    /// [`Store::wait_for_change`](crate::Store::wait_for_change) does.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut feed = store.changes(store.seq()?)?;
    /// let writer = store.clone();
    /// let writer = std::thread::spawn(move || writer.insert("key", "value"));
    /// assert!(feed.wait_for_commit(Duration::from_secs(60))?.is_some());
    /// # writer.join().unwrap()?;
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`next_commit`](Feed::next_commit).
    pub fn wait_for_commit(&mut self, timeout: Duration) -> Result<Option<Commit<'_>>> {
        let start = Instant::now();
        while !self.advance()? {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() || !self.source.wait_for_change(self.seq(), left)? {
                return Ok(None);
            }
        }
        Ok(self.current())
    }

    fn advance(&mut self) -> Result<bool> {
        let Feed { source, commits } = self;
        commits.advance(|| Arc::clone(&source.engine()))
    }

    fn current(&self) -> Option<Commit<'_>> {
        self.commits.unit().map(|unit| Commit { feed: self, unit })
    }

    /// The sequence number up to which all commits were returned: the place to go on from, in another process or later.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut feed = store.changes(store.seq()?)?;
    /// store.insert("key", "value")?;
    /// while feed.next_commit()?.is_some() {}
    /// store.insert("key", "later")?;
    /// let mut goes_on = store.changes(feed.seq())?;
    /// assert!(goes_on.next_commit()?.is_some() && goes_on.next_commit()?.is_none());
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.commits.seq()
    }
}

/// A commit with all its changes; see [`Feed::next_commit`].
///
/// Keys and values are borrowed from the file, for as long as this lives.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let mut feed = store.changes(store.seq()?)?;
/// let mut transaction = store.begin()?;
/// transaction.insert("wash", "1")?;
/// transaction.insert("dry", "2")?;
/// transaction.commit()?;
/// let commit = feed.next_commit()?.ok_or("there is one")?;
/// assert_eq!((commit.seq(), commit.iter().count()), (store.seq()?, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Commit<'f> {
    feed: &'f Feed,
    unit: Unit,
}

impl fmt::Debug for Commit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").field("seq", &self.seq()).finish_non_exhaustive()
    }
}

impl<'f> Commit<'f> {
    /// Its sequence number.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut feed = store.changes(store.seq()?)?;
    /// store.insert("key", "value")?;
    /// let seq = feed.next_commit()?.map(|commit| commit.seq());
    /// assert_eq!(seq, Some(store.seq()?));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.unit.last.seq
    }

    /// Its changes, in the order in which they were made. An item is an error if the file is damaged there.
    ///
    /// ```
    /// use slotlog::FeedChangeKind::{Insert, Remove};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut feed = store.changes(store.seq()?)?;
    /// let mut transaction = store.begin()?;
    /// transaction.insert("key", "value")?;
    /// transaction.remove("key")?;
    /// transaction.commit()?;
    /// let commit = feed.next_commit()?.ok_or("there is one")?;
    /// let kinds = commit.iter().map(|change| Ok(change?.kind)).collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(kinds, [Insert { key: b"key", value: b"value", expires: None }, Remove { key: b"key" }]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> CommitIter<'f> {
        CommitIter { changes: self.feed.commits.changes() }
    }

    /// See [`Commit::apply`].
    pub(crate) fn apply_to(&self, engine: &Arc<Engine>) -> Result<bool> {
        let Some(mut follower) = Follower::begin(engine, self.unit)? else { return Ok(false) };
        self.feed.commits.changes().try_for_each(|told| follower.change(&told?))?;
        follower.end()?;
        Ok(true)
    }

    /// Writes the commit as bytes, for [`Store::apply_from`](crate::Store::apply_from) of a store elsewhere. They end
    /// with a checksum. [The format](crate::format#commits-that-are-sent) is specified.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let store = Store::in_memory()?;
    /// let mut feed = store.changes(0)?;
    /// store.insert("key", "value")?;
    /// let mut sent = Vec::new();
    /// while let Some(commit) = feed.next_commit()? {
    ///     commit.write_to(&mut sent)?;
    /// }
    /// let replica = Store::in_memory()?;
    /// let mut received = &sent[..];
    /// while replica.apply_from(&mut received)?.is_some() {}
    /// assert_eq!(replica.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Io`](Error::Io) with what `out` reports; [`Corrupt`](Error::Corrupt) if a change is damaged: what was written
    /// then is incomplete, and will not be applied.
    pub fn write_to(&self, out: impl Write) -> Result<()> {
        let engine = self.feed.source.engine();
        let failed = |error: io::Error| Error::io(engine.mapping.path(), "send a commit of it", error);
        write_commit(out, self.unit, self.feed.commits.changes(), failed)
    }
}

impl<'c> IntoIterator for &'c Commit<'_> {
    type Item = Result<FeedChange<'c>>;
    type IntoIter = CommitIter<'c>;

    fn into_iter(self) -> CommitIter<'c> {
        self.iter()
    }
}

/// See [`Commit::iter`].
pub struct CommitIter<'c> {
    changes: ChangesOfCommit<'c>,
}

impl fmt::Debug for CommitIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitIter").finish_non_exhaustive()
    }
}

impl<'c> Iterator for CommitIter<'c> {
    type Item = Result<FeedChange<'c>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.changes.next()?.map(FeedChange::of))
    }
}

/// One change of one map; see [`Commit::iter`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let ages = store.map::<str, u32>("ages")?;
/// let mut feed = store.changes(store.seq()?)?;
/// ages.insert("Ada", 36)?;
/// let commit = feed.next_commit()?.ok_or("there is one")?;
/// let change: slotlog::FeedChange<'_> = commit.iter().next().ok_or("there is one")??;
/// assert_eq!((change.map, change.name), (2, "ages"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedChange<'c> {
    /// The number of the map, which it keeps when it is renamed, and which no other map gets. The default map has 1.
    pub map: u32,
    /// The name of the map at that time; empty for the default map.
    pub name: &'c str,
    /// What was changed.
    pub kind: FeedChangeKind<'c>,
}

/// The kind of a change; see [`FeedChange`].
///
/// ```
/// use slotlog::FeedChangeKind::{Create, Drop, Insert, Rename};
///
/// # let store = slotlog::Store::in_memory()?;
/// let mut feed = store.changes(store.seq()?)?;
/// store.map::<str, str>("draft")?.insert("title", "?")?;
/// store.rename_map("draft", "book")?;
/// store.drop_map("book")?;
/// let mut kinds = Vec::new();
/// while let Some(commit) = feed.next_commit()? {
///     for change in &commit {
///         kinds.push(match change?.kind {
///             Create { types, .. } => format!("a map of {types}"),
///             Insert { key, .. } => format!("an entry with a key of {} bytes", key.len()),
///             Rename { from } => format!("no more {from}"),
///             Drop => "gone".to_owned(),
///             other => format!("{other:?}"),
///         });
///     }
/// }
/// assert_eq!(kinds, ["a map of str -> str", "an entry with a key of 5 bytes", "no more draft", "gone"]);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedChangeKind<'c> {
    /// A key was set to a value.
    Insert {
        /// The key, as bytes.
        key: &'c [u8],
        /// Its new value, as bytes.
        value: &'c [u8],
        /// When the entry expires, if it does.
        expires: Option<SystemTime>,
    },
    /// A key was removed.
    Remove {
        /// The key.
        key: &'c [u8],
    },
    /// A key was removed because its entry had expired. It has been invisible since its deadline.
    Expire {
        /// The key.
        key: &'c [u8],
    },
    /// All keys of the map were removed.
    Clear,
    /// The map was created.
    Create {
        /// The version of its types.
        version: u32,
        /// The names of its key and value types.
        types: &'c str,
    },
    /// The map was dropped, with all its keys.
    Drop,
    /// The map was renamed. If there was a map with the new name, it was dropped before, by a change of its own.
    Rename {
        /// The name that it had.
        from: &'c str,
    },
}

impl<'c> FeedChange<'c> {
    fn of(told: Told<'c>) -> FeedChange<'c> {
        let kind = match told.what {
            What::Put { key, value, deadline } => FeedChangeKind::Insert { key, value, expires: deadline.map(time) },
            What::Remove(key) => FeedChangeKind::Remove { key },
            What::Expire(key) => FeedChangeKind::Expire { key },
            What::Clear => FeedChangeKind::Clear,
            What::Create { version, types } => FeedChangeKind::Create { version, types },
            What::Drop => FeedChangeKind::Drop,
            What::Rename(from) => FeedChangeKind::Rename { from },
        };
        FeedChange { map: told.map.0, name: told.name, kind }
    }
}
