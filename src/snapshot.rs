//! One commit's view of the store.

use std::fmt;
use std::iter::FusedIterator;
use std::path::Path;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::engine::read::pins::Pin;
use crate::file::index::{Index, Lines};
use crate::file::layout::DEFAULT_MAP;
use crate::seq::Seq;
use crate::{BackupOptions, BackupReport, Result};

/// The store as one commit left it, unaffected by later writes.
///
/// Values are borrowed straight from the file, for as long as the snapshot lives. It is `Send + Sync`, may outlive the
/// [`Store`](crate::Store) that it came from, and keeps the file open. It never blocks others; held for long, it keeps
/// space from being reused. It does not see entries that had [expired](crate::Map::insert_with_expiry) when it was
/// taken, and goes on seeing those that expire later.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("key", "before")?;
/// let snapshot = store.snapshot()?;
/// store.insert("key", "after")?;
/// assert_eq!(snapshot.get("key")?, Some(&b"before"[..]));
/// assert_eq!(snapshot.len(), 1);
/// for entry in snapshot.iter() {
///     let (key, value) = entry?;
///     assert_eq!((key, value), (&b"key"[..], &b"before"[..]));
/// }
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct Snapshot {
    pub(crate) pinned: Pinned,
    /// The region of the default map's index, if there is one, as a word of the map table.
    region: Option<u64>,
    len: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn new(engine: &Arc<Engine>) -> Result<Snapshot> {
        let (pin, region, totals) = Pin::with_totals(Arc::clone(engine), DEFAULT_MAP)?;
        Ok(Snapshot { pinned: Pinned::new(pin)?, region, len: totals.keys })
    }

    fn index(&self) -> Result<Option<Index<'_>>> {
        let engine = self.pinned.engine();
        engine.check_not_forked()?;
        self.region.map(|extent| Index::of_extent(&engine.mapping, extent)).transpose()
    }

    #[inline(always)]
    fn lines(&self) -> Result<Option<Lines>> {
        self.pinned.engine().check_not_forked()?;
        Ok(self.region.map(Lines::of_extent))
    }

    /// The sequence number of the commit that it sees: the starting point for
    /// [`Store::changes_since`](crate::Store::changes_since).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let seen = store.snapshot()?;
    /// store.insert("job", "wash")?;
    /// assert_eq!(store.changes_since(seen.seq())?.iter().count(), 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.pinned.seq()
    }

    /// The value of a key, borrowed.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("colour", "green")?;
    /// let snapshot = store.snapshot()?;
    /// store.remove("colour")?;
    /// assert_eq!(snapshot.get("colour")?, Some(&b"green"[..]));
    /// assert_eq!(snapshot.get("size")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        match self.lines()? {
            Some(lines) => self.pinned.value_of(lines, DEFAULT_MAP, key.as_ref()),
            None => Ok(None),
        }
    }

    /// Whether a key has a value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let snapshot = store.snapshot()?;
    /// store.insert("colour", "green")?;
    /// assert!(!snapshot.contains_key("colour")?);
    /// assert!(store.snapshot()?.contains_key("colour")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of many keys, in the order of the keys. The memory accesses of different keys overlap, so with cold
    /// data this is much faster than separate calls of [`get`](Snapshot::get).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("a", "1")?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.get_many(&["a", "b"])?, [Some(&b"1"[..]), None]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<&[u8]>>> {
        let mut values = Vec::with_capacity(keys.len());
        self.pinned.values_of(self.lines()?, DEFAULT_MAP, keys, |value| {
            values.push(value);
            Ok(())
        })?;
        Ok(values)
    }

    /// All keys and values, in no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// store.insert("Grace", "85")?;
    /// let snapshot = store.snapshot()?;
    /// let mut entries = snapshot.iter().collect::<slotlog::Result<Vec<_>>>()?;
    /// entries.sort();
    /// assert_eq!(entries, [(&b"Ada"[..], &b"36"[..]), (b"Grace", b"85")]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn iter(&self) -> Iter<'_> {
        match self.index() {
            Ok(index) => Iter { snapshot: self, cursor: Cursor::new(DEFAULT_MAP, index.as_ref()), error: None },
            Err(error) => Iter { snapshot: self, cursor: Cursor::new(DEFAULT_MAP, None), error: Some(error) },
        }
    }

    /// All keys, in no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// store.insert("Grace", "85")?;
    /// let snapshot = store.snapshot()?;
    /// let mut names = snapshot.keys().collect::<slotlog::Result<Vec<_>>>()?;
    /// names.sort();
    /// assert_eq!(names, [&b"Ada"[..], b"Grace"]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn keys(&self) -> Keys<'_> {
        Keys { entries: self.iter() }
    }

    /// All values, in no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("readme", "Hello")?;
    /// store.insert("licence", "MIT")?;
    /// let bytes = store.snapshot()?.values().map(|value| Ok(value?.len())).sum::<slotlog::Result<usize>>()?;
    /// assert_eq!(bytes, 8);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn values(&self) -> Values<'_> {
        Values { entries: self.iter() }
    }

    /// [Writes a copy](crate::Store::backup) of the whole store, as this snapshot sees it, to a new file.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, path) = (slotlog::Store::in_memory()?, folder.path().join("before"));
    /// store.insert("key", "before")?;
    /// let snapshot = store.snapshot()?;
    /// store.insert("key", "after")?;
    /// snapshot.backup(&path)?;
    /// assert_eq!(slotlog::Store::open(&path)?.get("key")?.as_deref(), Some(&b"before"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::backup`](crate::Store::backup).
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.backup_with(path, BackupOptions::new()).map(drop)
    }

    /// [Writes a copy](crate::Store::backup_with) of the whole store, as this snapshot sees it, with options.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, path) = (slotlog::Store::in_memory()?, folder.path().join("copy"));
    /// store.insert("key", "value")?;
    /// let snapshot = store.snapshot()?;
    /// let report = snapshot.backup_with(&path, slotlog::BackupOptions::new())?;
    /// assert_eq!((report.seq, report.keys), (snapshot.seq(), 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::backup_with`](crate::Store::backup_with).
    ///
    /// # Panics
    /// Only if the callback does. Then there is no new file.
    pub fn backup_with(&self, path: impl AsRef<Path>, options: BackupOptions<'_>) -> Result<BackupReport> {
        self.pinned.back_up(path.as_ref(), options)
    }

    /// The number of keys, including expired ones that were not removed yet.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("Ada", "36")?;
    /// let snapshot = store.snapshot()?;
    /// store.insert("Grace", "85")?;
    /// assert_eq!(snapshot.len(), 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether [`len`](Snapshot::len) is zero.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let snapshot = store.snapshot()?;
    /// store.insert("Ada", "36")?;
    /// assert!(snapshot.is_empty());
    /// assert!(!store.snapshot()?.is_empty());
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = Result<(&'a [u8], &'a [u8])>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// An iteration over all keys and values of a [`Snapshot`]; see [`Snapshot::iter`].
///
/// An item is an error if the file is damaged at that place; the iteration continues after it where it can.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.insert("Ada", "36")?;
/// let snapshot = store.snapshot()?;
/// let mut entries: slotlog::Iter<'_> = snapshot.iter();
/// assert_eq!(entries.next().transpose()?, Some((&b"Ada"[..], &b"36"[..])));
/// assert!(entries.next().is_none());
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct Iter<'a> {
    snapshot: &'a Snapshot,
    cursor: Cursor,
    error: Option<crate::Error>,
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<(&'a [u8], &'a [u8])>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        self.snapshot.pinned.next_entry(&mut self.cursor)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, usize::try_from(self.snapshot.len).ok())
    }
}

impl FusedIterator for Iter<'_> {}

/// An iteration over all keys of a [`Snapshot`]; see [`Snapshot::keys`].
#[derive(Debug)]
pub struct Keys<'a> {
    entries: Iter<'a>,
}

impl<'a> Iterator for Keys<'a> {
    type Item = Result<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.entries.next()?.map(|(key, _)| key))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl FusedIterator for Keys<'_> {}

/// An iteration over all values of a [`Snapshot`]; see [`Snapshot::values`].
#[derive(Debug)]
pub struct Values<'a> {
    entries: Iter<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.entries.next()?.map(|(_, value)| value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl FusedIterator for Values<'_> {}
