//! A typed map in a snapshot.

use std::fmt;
use std::time::SystemTime;

use super::Map;
use super::typed::Typed;
use crate::codec::{Arg, Codec, View};
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::error::Result;
use crate::file::index::Index;
use crate::file::log::Record;
use crate::snapshot::look_up_many;

/// A [`Map`] as one commit left it; see [`Snapshot::of`](crate::Snapshot::of).
///
/// A map that was created after that commit is empty here; one that was dropped after it is still there.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let ages = store.map::<str, u32>("ages")?;
/// ages.insert("Ada", 36)?;
/// let snapshot = store.snapshot()?;
/// ages.clear()?;
/// let before: slotlog::SnapshotMap<'_, str, u32> = snapshot.of(&ages);
/// assert_eq!(before.get("Ada")?, Some(36));
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct SnapshotMap<'s, K: ?Sized, V: ?Sized> {
    pinned: &'s Pinned,
    typed: Typed<K, V>,
    is_foreign: bool,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for SnapshotMap<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotMap").field("map", &self.typed).finish_non_exhaustive()
    }
}

impl<'s, K: ?Sized, V: ?Sized> SnapshotMap<'s, K, V> {
    pub(crate) fn new(pinned: &'s Pinned, map: &Map<K, V>) -> SnapshotMap<'s, K, V> {
        let is_foreign = pinned.engine().origin != map.engine().origin;
        SnapshotMap { pinned, typed: map.typed().clone(), is_foreign }
    }

    fn index(&self) -> Result<Option<Index<'s>>> {
        if self.is_foreign {
            return Err(self.typed.foreign(self.pinned.engine()));
        }
        self.pinned.index(self.typed.id)
    }

    /// The number of keys, without those that had expired. One pass over the map.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// let snapshot = store.snapshot()?;
    /// ages.insert("Grace", 85)?;
    /// assert_eq!(snapshot.of(&ages).len()?, 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn len(&self) -> Result<u64> {
        let index = self.index()?;
        let mut cursor = Cursor::new(self.typed.id, index.as_ref());
        let mut keys = 0;
        while let Some(record) = self.pinned.next(&mut cursor) {
            record?;
            keys += 1;
        }
        Ok(keys)
    }

    /// Whether there are no keys.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// let snapshot = store.snapshot()?;
    /// ages.insert("Ada", 36)?;
    /// assert!(snapshot.of(&ages).is_empty()?);
    /// assert!(!store.snapshot()?.of(&ages).is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn is_empty(&self) -> Result<bool> {
        let index = self.index()?;
        let mut cursor = Cursor::new(self.typed.id, index.as_ref());
        let first = self.pinned.next(&mut cursor).transpose()?;
        Ok(first.is_none())
    }
}

impl<'s, K: Codec + ?Sized, V: Codec + ?Sized> SnapshotMap<'s, K, V> {
    fn record(&self, key: &K::Borrowed) -> Result<Option<Record<'s>>> {
        let Some(index) = self.index()? else { return Ok(None) };
        let key = self.typed.encode_key(key)?;
        self.pinned.get(&index, self.typed.id, key.as_ref())
    }

    /// The value of a key, decoded.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// let snapshot = store.snapshot()?;
    /// ages.insert("Ada", 37)?;
    /// assert_eq!(snapshot.of(&ages).get("Ada")?, Some(36));
    /// assert_eq!(snapshot.of(&ages).get("Bob")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged; [`Codec`](crate::Error::Codec) if key or value do not
    /// fit their types; [`ForeignMap`](crate::Error::ForeignMap) if the map is not of the snapshot's store.
    pub fn get(&self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        self.record(key.arg())?.map(|record| self.typed.decode_value(record.value())).transpose()
    }

    /// The value of a key in place in the file, without a copy, for as long as the snapshot lives.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let pages = store.map::<str, str>("pages")?;
    /// pages.insert("index", "Hello")?;
    /// let snapshot = store.snapshot()?;
    /// let page: &str = snapshot.of(&pages).get_ref("index")?.unwrap_or("not found");
    /// pages.remove("index")?;
    /// assert_eq!(page, "Hello");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn get_ref(&self, key: impl Arg<K::Borrowed>) -> Result<Option<&'s V::Borrowed>>
    where
        V: View,
    {
        self.record(key.arg())?.map(|record| self.typed.view_value(record.value())).transpose()
    }

    /// The values of many keys, in the order of the keys, with overlapping memory accesses.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.extend([("Ada", 36), ("Grace", 85)])?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.of(&ages).get_many(&["Grace", "Bob", "Ada"])?, [Some(85), None, Some(36)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn get_many<Q: Arg<K::Borrowed>>(&self, keys: &[Q]) -> Result<Vec<Option<V::Owned>>> {
        let keys = keys.iter().map(|key| self.typed.encode_key(key.arg())).collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(keys.len());
        look_up_many(self.pinned, self.typed.id, self.index()?.as_ref(), &keys, |record| {
            values.push(record.map(|record| self.typed.decode_value(record.value())).transpose()?);
            Ok(())
        })?;
        Ok(values)
    }

    /// Whether a key has a value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let members = store.map::<str, ()>("members")?;
    /// members.insert("Ada", ())?;
    /// let snapshot = store.snapshot()?;
    /// members.remove("Ada")?;
    /// assert!(snapshot.of(&members).contains_key("Ada")?);
    /// assert!(!snapshot.of(&members).contains_key("Bob")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn contains_key(&self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        Ok(self.record(key.arg())?.is_some())
    }

    /// When the entry of a key expires: `None` if it has no value, `Some(None)` if never.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// sessions.insert_with_expiry("token", 7, in_2100)?;
    /// sessions.insert("service", 8)?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.of(&sessions).expiry("token")?, Some(Some(in_2100)));
    /// assert_eq!(snapshot.of(&sessions).expiry("service")?, Some(None));
    /// assert_eq!(snapshot.of(&sessions).expiry("nobody")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn expiry(&self, key: impl Arg<K::Borrowed>) -> Result<Option<Option<SystemTime>>> {
        Ok(self.record(key.arg())?.map(|record| record.expires().map(crate::engine::clock::time)))
    }

    /// All keys and values, in no particular order. An item is an error if it does not decode or the file is damaged
    /// there.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// let snapshot = store.snapshot()?;
    /// ages.insert("Grace", 85)?;
    /// let entries = snapshot.of(&ages).iter()?.collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(entries, [("Ada".to_owned(), 36)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<(K::Owned, V::Owned)>> + use<'s, K, V>> {
        let typed = self.typed.clone();
        Ok(self.records()?.map(move |record| {
            let record = record?;
            typed.decode_entry(record.key(), record.value())
        }))
    }

    /// All keys, in no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.extend([("Ada", 36), ("Grace", 85)])?;
    /// let snapshot = store.snapshot()?;
    /// let mut names = snapshot.of(&ages).keys()?.collect::<slotlog::Result<Vec<String>>>()?;
    /// names.sort();
    /// assert_eq!(names, ["Ada", "Grace"]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn keys(&self) -> Result<impl Iterator<Item = Result<K::Owned>> + use<'s, K, V>> {
        let typed = self.typed.clone();
        Ok(self.records()?.map(move |record| typed.decode_key(record?.key())))
    }

    /// All values, in no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let prices = store.map::<str, u32>("prices")?;
    /// prices.extend([("tea", 3), ("cake", 4)])?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.of(&prices).values()?.sum::<slotlog::Result<u32>>()?, 7);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn values(&self) -> Result<impl Iterator<Item = Result<V::Owned>> + use<'s, K, V>> {
        let typed = self.typed.clone();
        Ok(self.records()?.map(move |record| typed.decode_value(record?.value())))
    }

    fn records(&self) -> Result<impl Iterator<Item = Result<Record<'s>>> + use<'s, K, V>> {
        let pinned = self.pinned;
        let mut cursor = Cursor::new(self.typed.id, self.index()?.as_ref());
        Ok(std::iter::from_fn(move || pinned.next(&mut cursor)))
    }
}
