//! The history of a typed map.

use std::fmt;
use std::iter::FusedIterator;

use super::typed::Typed;
use crate::changes::{ChangeKind, Changes, ChangesIter};
use crate::codec::Codec;
use crate::error::Result;
use crate::seq::Seq;

/// The committed changes of a [`Map`](crate::Map) after a sequence number, oldest first, straight from the log. See
/// [`Map::changes_since`](crate::Map::changes_since). Held for long, it keeps space from being reused, like a
/// [`Snapshot`](crate::Snapshot).
pub struct MapChanges<K: ?Sized, V: ?Sized> {
    typed: Typed<K, V>,
    changes: Changes,
}

/// One change of a [`Map`](crate::Map), with keys of type `K` and values of type `V`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapChange<K, V> {
    /// A key was set to a value.
    Insert {
        /// The key.
        key: K,
        /// Its new value.
        value: V,
    },
    /// A key was removed, by a call or because it had expired.
    Remove {
        /// The key.
        key: K,
    },
    /// All keys were removed: the map was cleared, drained or dropped.
    Clear,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for MapChanges<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapChanges").field("map", &self.typed).field("seq", &self.seq()).finish_non_exhaustive()
    }
}

impl<K: ?Sized, V: ?Sized> MapChanges<K, V> {
    pub(super) fn new(typed: Typed<K, V>, changes: Changes) -> MapChanges<K, V> {
        MapChanges { typed, changes }
    }

    /// The sequence number up to which these are all changes: pass it to the next call of
    /// [`changes_since`](crate::Map::changes_since).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let jobs = store.map::<u64, str>("jobs")?;
    /// let mut seen = store.seq()?;
    /// jobs.insert(1, "wash")?;
    /// seen = jobs.changes_since(seen)?.seq();
    /// assert_eq!(jobs.changes_since(seen)?.iter().count(), 0);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.changes.seq()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> MapChanges<K, V> {
    /// The changes, oldest first. An item is an error if it does not decode or the file is damaged there.
    ///
    /// ```
    /// use slotlog::MapChange::{Insert, Remove};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let jobs = store.map::<u64, str>("jobs")?;
    /// let seen = store.seq()?;
    /// jobs.insert(1, "wash")?;
    /// jobs.remove(1)?;
    /// let changes = jobs.changes_since(seen)?.iter().collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(changes, [Insert { key: 1, value: "wash".to_owned() }, Remove { key: 1 }]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn iter(&self) -> MapChangesIter<'_, K, V> {
        MapChangesIter { changes: self.changes.iter(), typed: &self.typed }
    }
}

impl<'a, K: Codec + ?Sized, V: Codec + ?Sized> IntoIterator for &'a MapChanges<K, V> {
    type Item = Result<MapChange<K::Owned, V::Owned>>;
    type IntoIter = MapChangesIter<'a, K, V>;

    fn into_iter(self) -> MapChangesIter<'a, K, V> {
        self.iter()
    }
}

/// An iteration over the changes of a map; see [`MapChanges::iter`].
pub struct MapChangesIter<'a, K: ?Sized, V: ?Sized> {
    changes: ChangesIter<'a>,
    typed: &'a Typed<K, V>,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for MapChangesIter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapChangesIter").field("map", self.typed).finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for MapChangesIter<'_, K, V> {
    type Item = Result<MapChange<K::Owned, V::Owned>>;

    fn next(&mut self) -> Option<Self::Item> {
        let change = self.changes.next()?;
        Some(change.and_then(|change| match change.kind {
            ChangeKind::Insert { key, value } => {
                let (key, value) = self.typed.decode_entry(key, value)?;
                Ok(MapChange::Insert { key, value })
            }
            ChangeKind::Remove { key } => Ok(MapChange::Remove { key: self.typed.decode_key(key)? }),
            ChangeKind::Clear => Ok(MapChange::Clear),
        }))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> FusedIterator for MapChangesIter<'_, K, V> {}
