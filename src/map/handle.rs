//! A named, typed map of a store.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::changes::MapChanges;
use super::iter::{Entries, MapIter, MapKeys, MapValues};
use super::typed::Typed;
use super::value_ref::ValueRef;
use crate::codec::{Arg, Codec, View};
use crate::engine::change::batch::Batch;
use crate::engine::change::one::Action;
use crate::engine::lookup::keys::ABREAST;
use crate::engine::read::pinned::Pinned;
use crate::error::Result;
use crate::file::log::Record;
use crate::keys::Expiry;
use crate::seq::Seq;
use crate::{Changes, Store};

/// A named map of a store, from keys of type `K` to values of type `V`: see [`Store::map`].
///
/// It has the methods of [`std::collections::HashMap`], by the same names and with the same meaning, as far as a map
/// allows that other threads and processes change at the same time: where the standard map lends a `&mut`, this one has
/// an atomic operation ([`update`](Map::update), [`entry`](Map::entry), [`compare_exchange`](Map::compare_exchange)),
/// and every call can fail. Each call is one commit, seen by all processes at once; to change several things together
/// see [`Transaction::of`](crate::Transaction::of), and to read one commit see [`Snapshot::of`](crate::Snapshot::of).
///
/// Keys and values are passed by value or by reference ([`Arg`]): to a map of `str` or `String` as `&str`, `String` or
/// `&String`, to one of `u64` as `u64` or `&u64`. [`Codec`] lists the possible types.
///
/// A handle is cheap to clone, `Send + Sync`, and keeps the store open. Every call may block for as long as the disk
/// takes, or until it gets the writer lock; from asynchronous code use something like `spawn_blocking`.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let ages = store.map::<str, u32>("ages")?;
/// ages.insert("Ada", 36)?;
/// ages.insert("Grace", 85)?;
/// ages.entry("Ada").and_modify(|age| *age += 1).or_insert(0)?;
/// assert_eq!(ages.get("Ada")?, Some(37));
/// assert_eq!(ages.len()?, 2);
/// for entry in ages.iter()? {
///     let (name, age) = entry?;
///     println!("{name} is {age}");
/// }
/// # Ok::<(), slotlog::Error>(())
/// ```
///
#[doc = include_str!("../../docs/hashmap.md")]
pub struct Map<K: ?Sized, V: ?Sized> {
    pub(super) store: Store,
    pub(super) typed: Typed<K, V>,
}

impl<K: ?Sized, V: ?Sized> Clone for Map<K, V> {
    fn clone(&self) -> Map<K, V> {
        Map { store: self.store.clone(), typed: self.typed.clone() }
    }
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.typed.fmt(f)
    }
}

impl<K: ?Sized, V: ?Sized> Map<K, V> {
    /// Its name.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// assert_eq!(ports.name(), "ports");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        self.typed.name()
    }

    /// The store that the map belongs to.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// drop(store);
    /// let names = ports.store().map::<u16, str>("names")?;
    /// names.insert(80, "http")?;
    /// assert_eq!(ports.store().maps()?.len(), 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The number of keys, in constant time. Entries that have [expired](Map::insert_with_expiry) count until
    /// compaction removes them, although reads no longer see them: a map whose entries have all expired is not
    /// [empty](Map::is_empty), yet iterating over it yields nothing. [`SnapshotMap::len`](crate::SnapshotMap::len)
    /// counts the entries that can be read, in one pass.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// ages.insert("Grace", 85)?;
    /// ages.insert("Ada", 37)?;
    /// assert_eq!(ages.len()?, 2);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub fn len(&self) -> Result<u64> {
        self.store.engine().len(self.typed.id)
    }

    /// Whether [`len`](Map::len) is zero. Expired entries that were not removed yet count.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// assert!(ages.is_empty()?);
    /// ages.insert("Ada", 36)?;
    /// assert!(!ages.is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// What was committed to the map after `seq`, up to now; see [`Store::changes_since`]. To sleep until there is
    /// something, call [`Store::wait_for_change`], which wakes for changes of any map.
    ///
    /// ```
    /// use slotlog::MapChange;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// let seen = store.seq()?;
    /// store.insert("Ada", "in another map")?;
    /// ages.insert("Ada", 36)?;
    /// let changes = ages.changes_since(seen)?;
    /// let changes = changes.iter().collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(changes, [MapChange::Insert { key: "Ada".to_owned(), value: 36 }]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::changes_since`].
    pub fn changes_since(&self, seq: impl Into<Seq>) -> Result<MapChanges<K, V>> {
        let changes = Changes::new(Arc::clone(&self.store.engine()), self.typed.id, seq.into())?;
        Ok(MapChanges::new(self.typed.clone(), changes))
    }

    /// Removes all keys with one record in the log, whatever their number. Existing snapshots keep them.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// let before = store.snapshot()?;
    /// ages.clear()?;
    /// assert!(ages.is_empty()?);
    /// assert_eq!(before.of(&ages).get("Ada")?, Some(36));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn clear(&self) -> Result<()> {
        self.typed.named(self.store.engine().clear(self.typed.id))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Map<K, V> {
    /// The value of a key, decoded. It reads one index line and one record: two cache misses when cold.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// assert_eq!(ages.get("Ada")?, Some(36));
    /// assert_eq!(ages.get("Bob")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::get`]; [`Codec`](crate::Error::Codec) if key or value do not fit their types.
    #[inline]
    pub fn get(&self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        self.typed.get(&self.store.source, key.arg())
    }

    /// The value of a key in place in the file, without a copy. (With [`Access::ReadOnly`](crate::Access::ReadOnly) it
    /// is copied.)
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let pages = store.map::<str, [u8]>("pages")?;
    /// pages.insert("index", [7; 1 << 20])?;
    /// let page = pages.get_ref("index")?.expect("it was just inserted");
    /// assert_eq!(page.len(), 1 << 20);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Map::get); [`PinsExhausted`](crate::Error::PinsExhausted) if values of very many commits are
    /// held at the same time.
    pub fn get_ref(&self, key: impl Arg<K::Borrowed>) -> Result<Option<ValueRef<V>>>
    where
        V: View,
    {
        let key = self.typed.encode_key(key.arg())?;
        let engine = self.store.engine();
        if engine.read_only {
            let value = engine.get_unpinned(self.typed.id, key.as_ref())?;
            return value.map(|(value, _)| ValueRef::copied(&self.typed, &value)).transpose();
        }
        ValueRef::in_place(&self.typed, Pinned::here(&engine)?, key.as_ref())
    }

    /// Applies `f` to the value of a key in place, without a copy, and returns its result. Cheaper than
    /// [`get_ref`](Map::get_ref).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let pages = store.map::<str, str>("pages")?;
    /// pages.insert("index", "Hello, world!")?;
    /// assert_eq!(pages.get_with("index", |page| page.split(' ').count())?, Some(2));
    /// assert_eq!(pages.get_with("imprint", |page| page.len())?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Map::get).
    ///
    /// # Panics
    /// Only if `f` does.
    #[inline]
    pub fn get_with<R>(&self, key: impl Arg<K::Borrowed>, f: impl FnOnce(&V::Borrowed) -> R) -> Result<Option<R>>
    where
        V: View,
    {
        if self.store.source.is_read_only() {
            return Ok(self.get_ref(key.arg())?.map(|value| f(&value)));
        }
        self.typed.read(&self.store.source, key.arg(), |value, _| self.typed.view_value(value).map(f))?.transpose()
    }

    /// The values of many keys, in the order of the keys, as of one commit. The memory accesses of different keys
    /// overlap, so with cold data this is much faster than separate calls of [`get`](Map::get).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// assert_eq!(ages.get_many(&["Ada", "Bob"])?, [Some(36), None]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Map::get).
    pub fn get_many<Q: Arg<K::Borrowed>>(&self, keys: &[Q]) -> Result<Vec<Option<V::Owned>>> {
        self.typed.get_many(&Pinned::here(&self.store.engine())?, keys)
    }

    /// Whether a key has a value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let members = store.map::<str, ()>("members")?;
    /// members.insert("Ada", ())?;
    /// assert!(members.contains_key("Ada")?);
    /// assert!(!members.contains_key("Bob")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Map::get).
    #[inline]
    pub fn contains_key(&self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        self.typed.contains_key(&self.store.source, key.arg())
    }

    /// When the entry of a key [expires](Map::insert_with_expiry): `None` if it has no value.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// sessions.insert_with_expiry("token", 7, in_2100)?;
    /// sessions.insert("service", 8)?;
    /// assert_eq!(sessions.expiry("token")?, Some(slotlog::Expiry::At(in_2100)));
    /// assert_eq!(sessions.expiry("service")?, Some(slotlog::Expiry::Never));
    /// assert_eq!(sessions.expiry("nobody")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Map::get).
    pub fn expiry(&self, key: impl Arg<K::Borrowed>) -> Result<Option<Expiry>> {
        self.typed.expiry(&self.store.source, key.arg())
    }

    /// Sets the value of a key: one append to the log. It replaces an older value and its deadline;
    /// [`replace`](Map::replace) returns the old value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// ages.insert("Ada", 37)?;
    /// assert_eq!(ages.get("Ada")?, Some(37));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::insert`]; [`Codec`](crate::Error::Codec) if key or value cannot be encoded, and
    /// [`NoSuchMap`](crate::Error::NoSuchMap) if the map was [dropped](Store::drop_map) meanwhile: nothing has changed.
    pub fn insert(&self, key: impl Arg<K::Borrowed>, value: impl Arg<V::Borrowed>) -> Result<()> {
        self.typed.insert(&self.store.source, key.arg(), value.arg(), None)
    }

    /// Sets the value of a key until a deadline: from `at` on, by the reader's clock, the entry counts as absent.
    ///
    /// Reads and iterations no longer see it then, and its space is reclaimed like that of removed entries. Until then
    /// [`len`](Map::len) counts it. [`insert`](Map::insert) and [`replace`](Map::replace) remove the deadline,
    /// [`update`](Map::update), [`entry`](Map::entry) and [`compare_exchange`](Map::compare_exchange) keep it. A
    /// [`Snapshot`](crate::Snapshot) goes on seeing what had not expired when it was taken.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// sessions.insert_with_expiry("token", 7, SystemTime::now() + Duration::from_secs(3600))?;
    /// assert_eq!(sessions.get("token")?, Some(7));
    /// sessions.insert_with_expiry("token", 7, SystemTime::now())?;
    /// assert_eq!(sessions.get("token")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn insert_with_expiry(
        &self,
        key: impl Arg<K::Borrowed>,
        value: impl Arg<V::Borrowed>,
        at: SystemTime,
    ) -> Result<()> {
        self.typed.insert(&self.store.source, key.arg(), value.arg(), Some(at))
    }

    /// Changes when the entry of a key [expires](Map::insert_with_expiry), and returns whether the key has a value; see
    /// [`Store::set_expiry`].
    ///
    /// ```
    /// use slotlog::Expiry;
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// sessions.insert("token", 7)?;
    /// let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    /// assert!(sessions.set_expiry("token", tomorrow)?);
    /// assert_ne!(sessions.expiry("token")?, Some(Expiry::Never));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn set_expiry(&self, key: impl Arg<K::Borrowed>, when: impl Into<Expiry>) -> Result<bool> {
        let (key, expires) = (self.typed.encode_key(key.arg())?, when.into().to_record());
        self.typed.named(self.store.engine().set_expiry(self.typed.id, key.as_ref(), expires))
    }

    /// Removes a key and returns whether it was there. If not, nothing is written. This works on a full store too.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// assert!(ages.remove("Ada")?);
    /// assert!(!ages.remove("Ada")?);
    /// assert_eq!(ages.get("Ada")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn remove(&self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        self.typed.remove(&self.store.source, key.arg())
    }

    /// Sets the value of a key and returns its old value, like `HashMap::insert`.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// assert_eq!(ages.replace("Ada", 36)?, None);
    /// assert_eq!(ages.replace("Ada", 37)?, Some(36));
    /// assert_eq!(ages.get("Ada")?, Some(37));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn replace(&self, key: impl Arg<K::Borrowed>, value: impl Arg<V::Borrowed>) -> Result<Option<V::Owned>> {
        let value = self.typed.encode_value(value.arg())?;
        self.modify(key.arg(), |old| Ok((Action::Put(Cow::Borrowed(value.as_ref()), None), self.decode_some(old)?)))
    }

    /// Removes a key and returns its value, like `HashMap::remove`.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// assert_eq!(ages.take("Ada")?, Some(36));
    /// assert_eq!(ages.take("Ada")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn take(&self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        self.modify(key.arg(), |old| Ok((self.change_to(None, old)?, self.decode_some(old)?)))
    }

    /// Computes a new value from the value of a key, if it has one, sets it and returns it: an atomic read-modify-write
    /// across all threads and processes. `None` removes the key. If the value stays the same, nothing is written; a
    /// deadline is kept.
    ///
    /// `f` runs once, with the writer lock held. It may read from the store; a write inside it fails with
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let visits = store.map::<str, u64>("visits")?;
    /// visits.update("home", |visits| Some(visits.unwrap_or(0) + 1))?;
    /// visits.update("home", |visits| Some(visits.unwrap_or(0) + 1))?;
    /// assert_eq!(visits.get("home")?, Some(2));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    ///
    /// # Panics
    /// Only if `f` does; then nothing has changed.
    pub fn update(
        &self,
        key: impl Arg<K::Borrowed>,
        f: impl FnOnce(Option<V::Owned>) -> Option<V::Owned>,
    ) -> Result<Option<V::Owned>> {
        self.modify(key.arg(), |old| {
            let new = f(self.decode_some(old)?);
            Ok((self.change_to(new.as_ref().map(Borrow::borrow), old)?, new))
        })
    }

    /// Sets the value of a key to `new` if it is `current`; `None` stands for an absent key. Otherwise returns the
    /// value that it has instead, as `Ok(Err(..))`. Values are equal if their bytes are.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let locks = store.map::<str, u32>("locks")?;
    /// assert_eq!(locks.compare_exchange("printer", None, Some(&7))?, Ok(()));
    /// assert_eq!(locks.compare_exchange("printer", None, Some(&8))?, Err(Some(7)), "somebody was faster");
    /// assert_eq!(locks.compare_exchange("printer", Some(&7), None)?, Ok(()));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn compare_exchange(
        &self,
        key: impl Arg<K::Borrowed>,
        current: Option<&V::Borrowed>,
        new: Option<&V::Borrowed>,
    ) -> Result<std::result::Result<(), Option<V::Owned>>> {
        let current = current.map(|value| self.typed.encode_value(value)).transpose()?;
        self.modify(key.arg(), |old| {
            if old.map(|old| old.value()) != current.as_ref().map(AsRef::as_ref) {
                return Ok((Action::Keep, Err(self.decode_some(old)?)));
            }
            Ok((self.change_to(new, old)?, Ok(())))
        })
    }

    /// Applies the action that `decide` returns for the record of a key, if the key has a value.
    fn modify<'a, R>(
        &self,
        key: &K::Borrowed,
        decide: impl FnOnce(Option<Record<'_>>) -> Result<(Action<'a>, R)>,
    ) -> Result<R> {
        self.modify_encoded(self.typed.encode_key(key)?.as_ref(), decide)
    }

    pub(super) fn modify_encoded<'a, R>(
        &self,
        key: &[u8],
        decide: impl FnOnce(Option<Record<'_>>) -> Result<(Action<'a>, R)>,
    ) -> Result<R> {
        self.typed.named(self.store.engine().modify(self.typed.id, key, decide))
    }

    /// The action that gives a key this value, or none, and keeps its deadline: no change if the value stays the same.
    pub(super) fn change_to(&self, new: Option<&V::Borrowed>, old: Option<Record<'_>>) -> Result<Action<'static>> {
        let new = new.map(|new| self.typed.encode_value(new)).transpose()?;
        Ok(match new.as_ref().map(AsRef::as_ref) {
            new if new == old.map(|old| old.value()) => Action::Keep,
            Some(new) => Action::Put(Cow::Owned(new.to_vec()), old.and_then(|old| old.expires())),
            None => Action::Remove,
        })
    }

    pub(super) fn decode_some(&self, record: Option<Record<'_>>) -> Result<Option<V::Owned>> {
        record.map(|record| self.typed.decode_value(record.value())).transpose()
    }

    /// All keys and values as of this moment, in no particular order: an iterator over a snapshot of its own, which
    /// sees no later changes. An item is an error if it does not decode or the file is damaged there; the iteration
    /// continues after it.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// let entries = ages.iter()?;
    /// ages.insert("Grace", 85)?;
    /// let entries = entries.collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(entries, [("Ada".to_owned(), 36)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::snapshot`].
    pub fn iter(&self) -> Result<MapIter<K, V>> {
        Ok(MapIter { entries: Entries::new(&self.typed, Pinned::here(&self.store.engine())?)? })
    }

    /// All keys, in no particular order; see [`iter`](Map::iter).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.extend([("Ada", 36), ("Grace", 85)])?;
    /// let mut names = ages.keys()?.collect::<slotlog::Result<Vec<String>>>()?;
    /// names.sort();
    /// assert_eq!(names, ["Ada", "Grace"]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`iter`](Map::iter).
    pub fn keys(&self) -> Result<MapKeys<K, V>> {
        Ok(MapKeys { entries: self.iter()?.entries })
    }

    /// All values, in no particular order; see [`iter`](Map::iter).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let prices = store.map::<str, u32>("prices")?;
    /// prices.extend([("tea", 3), ("cake", 4)])?;
    /// let total = prices.values()?.sum::<slotlog::Result<u32>>()?;
    /// assert_eq!(total, 7);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`iter`](Map::iter).
    pub fn values(&self) -> Result<MapValues<K, V>> {
        Ok(MapValues { entries: self.iter()?.entries })
    }

    /// Removes all keys and returns the entries: exactly those inserted before this commit, so if several threads or
    /// processes drain a map, each entry goes to exactly one. One record in the log.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let jobs = store.map::<u64, str>("jobs")?;
    /// jobs.insert(1, "wash")?;
    /// let jobs_to_do = jobs.drain()?.collect::<slotlog::Result<Vec<_>>>()?;
    /// assert_eq!(jobs_to_do, [(1, "wash".to_owned())]);
    /// assert!(jobs.is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert).
    pub fn drain(&self) -> Result<MapIter<K, V>> {
        let pin = self.typed.named(self.store.engine().drain(self.typed.id))?;
        Ok(MapIter { entries: Entries::new(&self.typed, Pinned::new(pin)?)? })
    }

    /// Removes some entry and returns it; `None` if there is none. If several threads or processes do this, each entry
    /// goes to exactly one.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let jobs = store.map::<u64, str>("jobs")?;
    /// jobs.insert(1, "wash")?;
    /// assert_eq!(jobs.pop()?, Some((1, "wash".to_owned())));
    /// assert_eq!(jobs.pop()?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert). An entry that does not decode stays.
    pub fn pop(&self) -> Result<Option<(K::Owned, V::Owned)>> {
        let take = |record: Record<'_>| self.typed.decode_entry(record.key(), record.value());
        self.typed.named(self.store.engine().pop(self.typed.id, take))
    }

    /// Keeps only the entries for which `f` returns `true`, and returns how many it removed. One commit; the writer
    /// lock is held for the whole pass.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let stock = store.map::<str, u32>("stock")?;
    /// stock.extend([("tea", 3), ("cake", 0), ("milk", 0)])?;
    /// assert_eq!(stock.retain(|_, left| *left > 0)?, 2);
    /// assert_eq!(stock.keys()?.collect::<slotlog::Result<Vec<_>>>()?, ["tea"]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert): nothing has changed.
    ///
    /// # Panics
    /// Only if `f` does; then nothing has changed.
    pub fn retain(&self, f: impl FnMut(&K::Owned, &V::Owned) -> bool) -> Result<u64> {
        let mut batch = Batch::begin(Arc::clone(&self.store.engine()))?;
        let removed = self.typed.retain(&mut batch, f)?;
        batch.commit_as_usual()?;
        Ok(removed)
    }

    /// Inserts many entries, all or none: one commit. The writer lock is held for as long as the iterator takes.
    ///
    /// It takes up to 32 entries from the iterator before it inserts the first of them, and fetches what all of them
    /// need at once: where the store is large, that is faster than inserting one after the other. After an error, those
    /// are gone from the iterator.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let squares = store.map::<u64, u64>("squares")?;
    /// squares.extend((0..100).map(|number| (number, number * number)))?;
    /// assert_eq!(squares.get(7)?, Some(49));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert): nothing has changed.
    pub fn extend<Q: Arg<K::Borrowed>, W: Arg<V::Borrowed>>(
        &self,
        entries: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<()> {
        self.insert_some(&mut entries.into_iter(), u64::MAX).map(drop)
    }

    /// Inserts many entries, in commits of `size` each, so that others can write in between. Returns how many were
    /// inserted.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let squares = store.map::<u64, u64>("squares")?;
    /// let inserted = squares.extend_in_batches((0..100).map(|number| (number, number * number)), 30)?;
    /// assert_eq!((inserted, squares.len()?), (100, 100));
    /// assert_eq!(squares.get(99)?, Some(9801));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Map::insert). The commits before the error stay.
    pub fn extend_in_batches<Q: Arg<K::Borrowed>, W: Arg<V::Borrowed>>(
        &self,
        entries: impl IntoIterator<Item = (Q, W)>,
        size: u64,
    ) -> Result<u64> {
        let mut entries = entries.into_iter();
        let mut inserted = 0;
        loop {
            let some = self.insert_some(&mut entries, size.max(1))?;
            inserted += some;
            if some < size.max(1) {
                return Ok(inserted);
            }
        }
    }

    fn insert_some<Q: Arg<K::Borrowed>, W: Arg<V::Borrowed>>(
        &self,
        entries: &mut impl Iterator<Item = (Q, W)>,
        most: u64,
    ) -> Result<u64> {
        let mut batch = Batch::begin(Arc::clone(&self.store.engine()))?;
        let (mut inserted, mut next) = (0, Vec::with_capacity(ABREAST));
        loop {
            let room = (most - inserted).min(ABREAST as u64);
            next.extend(entries.take(room as usize));
            // After its end, an iterator may begin anew.
            let is_last = (next.len() as u64) < room.max(1);
            // A key that cannot be encoded is refused below.
            let keys = next.iter().filter_map(|(key, _): &(Q, W)| self.typed.encode_key(key.arg()).ok());
            batch.engine().prefetch_keys(self.typed.id, keys);
            for (key, value) in next.drain(..) {
                self.typed.insert(&mut batch, key.arg(), value.arg(), None)?;
                inserted += 1;
            }
            if is_last {
                break;
            }
        }
        batch.commit_as_usual()?;
        Ok(inserted)
    }
}
