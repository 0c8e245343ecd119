//! The history of the default map.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use crate::Result;
use crate::engine::Engine;
use crate::engine::read::history::{Changed, History};
use crate::engine::read::pins::Hold;
use crate::file::layout::{Kind, MapId, Seq};

/// The committed changes after a sequence number, oldest first, straight from the log. See
/// [`Store::changes_since`](crate::Store::changes_since).
///
/// Keys and values are borrowed from the file, for as long as this lives. Like a [`Snapshot`](crate::Snapshot) it never
/// blocks others; held for long, it keeps space from being reused.
///
/// ```
/// use slotlog::ChangeKind::{Insert, Remove};
///
/// # let store = slotlog::Store::in_memory()?;
/// let before = store.seq()?;
/// store.insert("key", "value")?;
/// store.remove("key")?;
/// let changes = store.changes_since(before)?;
/// let kinds = changes.iter().map(|change| Ok(change?.kind)).collect::<slotlog::Result<Vec<_>>>()?;
/// assert_eq!(kinds, [Insert { key: b"key", value: b"value" }, Remove { key: b"key" }]);
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct Changes {
    /// The log tells of what its commit sees no more.
    hold: Hold<Arc<Engine>>,
    map: MapId,
    history: History,
}

/// One change.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let seen = store.seq()?;
/// let mut transaction = store.begin()?;
/// transaction.insert("wash", "1")?;
/// transaction.insert("dry", "2")?;
/// transaction.commit()?;
/// let changes = store.changes_since(seen)?;
/// let changes: Vec<slotlog::Change<'_>> = changes.iter().collect::<slotlog::Result<_>>()?;
/// assert_eq!(changes[0].seq, changes[1].seq);
/// assert_ne!(changes[0].kind, changes[1].kind);
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<'a> {
    /// The sequence number of the commit that made it. All changes of one transaction share it.
    pub seq: Seq,
    /// What was changed.
    pub kind: ChangeKind<'a>,
}

/// The kind of a change.
///
/// ```
/// use std::collections::HashMap;
/// use slotlog::ChangeKind;
///
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("old", "1")?;
/// let mut copy = HashMap::from([(b"old".to_vec(), b"1".to_vec())]);
/// let seen = store.seq()?;
/// store.clear()?;
/// store.insert("new", "2")?;
/// for change in &store.changes_since(seen)? {
///     match change?.kind {
///         ChangeKind::Insert { key, value } => drop(copy.insert(key.to_vec(), value.to_vec())),
///         ChangeKind::Remove { key } => drop(copy.remove(key)),
///         ChangeKind::Clear => copy.clear(),
///         _ => {}
///     }
/// }
/// assert_eq!(copy, HashMap::from([(b"new".to_vec(), b"2".to_vec())]));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind<'a> {
    /// A key was set to a value.
    Insert {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// A key was removed.
    Remove {
        /// The key.
        key: &'a [u8],
    },
    /// All keys were removed.
    Clear,
}

impl Changes {
    pub(crate) fn new(engine: Arc<Engine>, map: MapId, seq: Seq) -> Result<Changes> {
        let hold = Hold::take(engine)?;
        let history = hold.engine().history(seq, hold.seq())?;
        Ok(Changes { hold, map, history })
    }

    /// The changes, oldest first.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let seen = store.seq()?;
    /// store.insert("job", "wash")?;
    /// store.remove("job")?;
    /// let changes = store.changes_since(seen)?;
    /// assert_eq!(changes.iter().count(), 2);
    /// assert_eq!(changes.iter().count(), 2, "as often as you like");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn iter(&self) -> ChangesIter<'_> {
        ChangesIter { changes: self, changed: Some(self.hold.engine().changes(&self.history, self.map)) }
    }

    /// The sequence number up to which these are all changes: pass it to the next call of
    /// [`changes_since`](crate::Store::changes_since).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let seen = store.seq()?;
    /// store.insert("job", "wash")?;
    /// let changes = store.changes_since(seen)?;
    /// store.insert("job", "dry")?;
    /// let next = store.changes_since(changes.seq())?;
    /// assert_eq!((changes.iter().count(), next.iter().count()), (1, 1));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.hold.seq()
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("seq", &self.seq()).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = Result<Change<'a>>;
    type IntoIter = ChangesIter<'a>;

    fn into_iter(self) -> ChangesIter<'a> {
        self.iter()
    }
}

/// See [`Changes::iter`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let seen = store.seq()?;
/// store.insert("job", "wash")?;
/// let changes = store.changes_since(seen)?;
/// let mut changes_left: slotlog::ChangesIter<'_> = changes.iter();
/// let change = changes_left.next().transpose()?;
/// assert_eq!(change.map(|change| change.kind), Some(slotlog::ChangeKind::Insert { key: b"job", value: b"wash" }));
/// assert!(changes_left.next().is_none());
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct ChangesIter<'a> {
    changes: &'a Changes,
    /// None at the end.
    changed: Option<Changed<'a>>,
}

impl fmt::Debug for ChangesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangesIter").finish_non_exhaustive()
    }
}

impl<'a> Iterator for ChangesIter<'a> {
    type Item = Result<Change<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let changed = self.changed.as_mut()?;
        if let Err(error) = self.changes.hold.engine().check_not_forked() {
            self.changed = None;
            return Some(Err(error));
        }
        let change = changed.next().map(|record| {
            let record = record?;
            let key = record.key();
            let kind = match record.kind() {
                Some(Kind::Put) => ChangeKind::Insert { key, value: record.value() },
                Some(Kind::Remove) => ChangeKind::Remove { key },
                _ => ChangeKind::Clear,
            };
            Ok(Change { seq: record.seq(), kind })
        });
        if change.is_none() {
            self.changed = None;
        }
        change
    }
}

impl FusedIterator for ChangesIter<'_> {}
