//! A typed map in a snapshot.

use std::fmt;
use std::iter;

use super::handle::Map;
use super::iter::{Entries, SnapshotMapIter, SnapshotMapKeys, SnapshotMapRefs, SnapshotMapValues};
use super::typed::Typed;
use crate::codec::{Arg, Codec, View};
use crate::engine::read::pinned::Pinned;
use crate::error::Result;
use crate::keys::Expiry;
use crate::snapshot::Snapshot;

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
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for SnapshotMap<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotMap").field("map", &self.typed).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// A named map as of this commit.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let names = store.map::<u64, str>("names")?;
    /// names.insert(7, "Ada")?;
    /// let snapshot = store.snapshot()?;
    /// names.remove(7)?;
    /// let name: Option<&str> = snapshot.of(&names).get_ref(7)?;
    /// assert_eq!(name, Some("Ada"), "borrowed from the file, for as long as the snapshot lives");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn of<K: ?Sized, V: ?Sized>(&self, map: &Map<K, V>) -> SnapshotMap<'_, K, V> {
        SnapshotMap { pinned: &self.pinned, typed: map.typed.clone() }
    }

    /// The default map as of this commit, with the methods of a typed map; see [`Store::bytes`](crate::Store::bytes).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.bytes().expiry(b"key")?, Some(slotlog::Expiry::Never));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn bytes(&self) -> SnapshotMap<'_, [u8], [u8]> {
        SnapshotMap { pinned: &self.pinned, typed: Typed::default_map(self.pinned.engine()) }
    }
}

impl<'s, K: ?Sized, V: ?Sized> SnapshotMap<'s, K, V> {
    /// The pinned commit, unless the map belongs to another store.
    fn pinned(&self) -> Result<&'s Pinned> {
        self.typed.check_is_of(self.pinned.engine()).map(|()| self.pinned)
    }

    fn entries(&self) -> Result<Entries<&'s Pinned, K, V>> {
        Entries::new(&self.typed, self.pinned()?)
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
        let mut entries = self.entries()?;
        iter::from_fn(|| entries.step(|_, _| Ok(1))).sum()
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
        Ok(self.entries()?.step(|_, _| Ok(())).transpose()?.is_none())
    }
}

impl<'s, K: Codec + ?Sized, V: Codec + ?Sized> SnapshotMap<'s, K, V> {
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
        self.typed.get(self.pinned()?, key.arg())
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
        let (pinned, key) = (self.pinned()?, self.typed.encode_key(key.arg())?);
        pinned.find(self.typed.id, key.as_ref())?.map(|record| self.typed.view_value(record.value())).transpose()
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
        self.typed.get_many(self.pinned()?, keys)
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
        self.typed.contains_key(self.pinned()?, key.arg())
    }

    /// When the entry of a key expires: `None` if it has no value.
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
    /// assert_eq!(snapshot.of(&sessions).expiry("token")?, Some(slotlog::Expiry::At(in_2100)));
    /// assert_eq!(snapshot.of(&sessions).expiry("service")?, Some(slotlog::Expiry::Never));
    /// assert_eq!(snapshot.of(&sessions).expiry("nobody")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn expiry(&self, key: impl Arg<K::Borrowed>) -> Result<Option<Expiry>> {
        self.typed.expiry(self.pinned()?, key.arg())
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
    pub fn iter(&self) -> Result<SnapshotMapIter<'s, K, V>> {
        Ok(SnapshotMapIter { entries: self.entries()? })
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
    pub fn keys(&self) -> Result<SnapshotMapKeys<'s, K, V>> {
        Ok(SnapshotMapKeys { entries: self.entries()? })
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
    pub fn values(&self) -> Result<SnapshotMapValues<'s, K, V>> {
        Ok(SnapshotMapValues { entries: self.entries()? })
    }
}

impl<'s, K: View + ?Sized, V: View + ?Sized> SnapshotMap<'s, K, V> {
    /// All keys and values in place in the file, without a copy, for as long as the snapshot lives, and when they
    /// expire. In no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let pages = store.map::<str, str>("pages")?;
    /// pages.insert("index", "Hello")?;
    /// let snapshot = store.snapshot()?;
    /// pages.clear()?;
    /// let entries = snapshot.of(&pages).iter_ref()?.collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(entries, [("index", "Hello", slotlog::Expiry::Never)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](SnapshotMap::get).
    pub fn iter_ref(&self) -> Result<SnapshotMapRefs<'s, K, V>>
    where
        K::Borrowed: 's,
        V::Borrowed: 's,
    {
        Ok(SnapshotMapRefs::new(self.entries()?))
    }
}
