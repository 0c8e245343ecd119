//! A typed map in a transaction.

use std::fmt;
use std::iter::FusedIterator;
use std::time::SystemTime;

use super::catalogue::{find_or_make, types_of};
use super::handle::Map;
use super::typed::Typed;
use crate::codec::{Arg, Codec, View};
use crate::engine::change::batch::{Batch, BatchCursor};
use crate::error::Result;
use crate::keys::Expiry;
use crate::transaction::Transaction;

/// A [`Map`] within a transaction; see [`Transaction::of`](crate::Transaction::of). It sees all changes of the
/// transaction so far, to any map.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let stock = store.map::<str, u32>("stock")?;
/// let mut transaction = store.begin()?;
/// let mut of_stock: slotlog::TransactionMap<'_, str, u32> = transaction.of(&stock);
/// of_stock.insert("tea", 3)?;
/// assert_eq!(of_stock.get("tea")?, Some(3));
/// assert_eq!(stock.get("tea")?, None, "nobody else sees it yet");
/// transaction.commit()?;
/// assert_eq!(stock.get("tea")?, Some(3));
/// # Ok::<(), slotlog::Error>(())
/// ```
pub struct TransactionMap<'t, K: ?Sized, V: ?Sized> {
    batch: &'t mut Batch,
    typed: Typed<K, V>,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for TransactionMap<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionMap").field("map", &self.typed).finish_non_exhaustive()
    }
}

impl Transaction {
    /// A named map within this transaction, for one or a few calls.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let stock = store.map::<str, u32>("stock")?;
    /// let orders = store.map::<u64, String>("orders")?;
    /// stock.insert("tea", 3)?;
    ///
    /// let mut transaction = store.begin()?;
    /// let left = transaction.of(&stock).get("tea")?.unwrap_or(0);
    /// if left > 0 {
    ///     transaction.of(&stock).insert("tea", left - 1)?;
    ///     transaction.of(&orders).insert(1, "tea".to_owned())?;
    ///     transaction.commit()?;
    /// }
    /// assert_eq!((stock.get("tea")?, orders.len()?), (Some(2), 1));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn of<K: ?Sized, V: ?Sized>(&mut self, map: &Map<K, V>) -> TransactionMap<'_, K, V> {
        TransactionMap { batch: &mut self.batch, typed: map.typed.clone() }
    }

    /// The map of this name and these types within this transaction, which makes it if there is none. It is created,
    /// with its entries, when the transaction is committed; afterwards, [`Store::map`](crate::Store::map) opens it.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut setup = store.begin()?;
    /// let mut ports = setup.map::<str, u16>("ports")?;
    /// ports.insert("http", 80)?;
    /// ports.insert("https", 443)?;
    /// setup.map::<str, str>("hosts")?.insert("localhost", "127.0.0.1")?;
    /// assert!(store.maps()?.is_empty(), "nobody else sees them yet");
    /// setup.commit()?;
    /// assert_eq!(store.map::<str, u16>("ports")?.get("http")?, Some(80));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::map`](crate::Store::map) and of [`insert`](Transaction::insert).
    pub fn map<K: Codec + ?Sized, V: Codec + ?Sized>(&mut self, name: &str) -> Result<TransactionMap<'_, K, V>> {
        self.map_versioned(name, 0)
    }

    /// The same for types with a [version](crate::Store::map_versioned).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut setup = store.begin()?;
    /// setup.map_versioned::<str, u16>("ports", 2)?.insert("http", 80)?;
    /// setup.commit()?;
    /// assert!(matches!(store.map::<str, u16>("ports"), Err(slotlog::Error::TypeMismatch { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`map`](Transaction::map).
    pub fn map_versioned<K: Codec + ?Sized, V: Codec + ?Sized>(
        &mut self,
        name: &str,
        version: u32,
    ) -> Result<TransactionMap<'_, K, V>> {
        let id = find_or_make(&mut self.batch, name, version, types_of::<K, V>())?;
        let typed = Typed::new(self.batch.engine(), id, name);
        Ok(TransactionMap { batch: &mut self.batch, typed })
    }

    /// Drops a map and everything in it, whatever its types, and returns whether it existed; see
    /// [`Store::drop_map`](crate::Store::drop_map). In this transaction its handles are refused from now on.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// ports.insert("http", 80)?;
    /// let mut transaction = store.begin()?;
    /// assert!(transaction.drop_map("ports")?);
    /// assert_eq!(ports.get("http")?, Some(80));
    /// transaction.commit()?;
    /// assert!(store.maps()?.is_empty());
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Transaction::insert).
    pub fn drop_map(&mut self, name: &str) -> Result<bool> {
        Ok(!name.is_empty() && self.batch.drop_named(name)?)
    }

    /// Renames the map `from` to `to`, and returns whether it existed. A map already named `to` is dropped. See
    /// [`Store::rename_map`](crate::Store::rename_map).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u16>("ports")?.insert("http", 80)?;
    /// let mut exchange = store.begin()?;
    /// exchange.map::<str, u16>("new ports")?.insert("http", 8080)?;
    /// exchange.rename_map("new ports", "ports")?;
    /// exchange.commit()?;
    /// assert_eq!(store.map::<str, u16>("ports")?.get("http")?, Some(8080));
    /// assert_eq!(store.maps()?.len(), 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Transaction::insert); [`InvalidName`](crate::Error::InvalidName) if `to` is empty or too
    /// long.
    pub fn rename_map(&mut self, from: &str, to: &str) -> Result<bool> {
        self.batch.engine().check_name(to)?;
        Ok(!from.is_empty() && self.batch.rename_named(from, to)?)
    }

    /// The default map within this transaction, with the methods of a typed map; see
    /// [`Store::bytes`](crate::Store::bytes).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("one", "1")?;
    /// let mut transaction = store.begin()?;
    /// transaction.insert("two", "2")?;
    /// assert_eq!(transaction.bytes().iter()?.count(), 2);
    /// transaction.bytes().clear()?;
    /// transaction.commit()?;
    /// assert!(store.is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn bytes(&mut self) -> TransactionMap<'_, [u8], [u8]> {
        let typed = Typed::default_map(self.batch.engine());
        TransactionMap { batch: &mut self.batch, typed }
    }
}

impl<K: ?Sized, V: ?Sized> TransactionMap<'_, K, V> {
    /// The batch, unless the map belongs to another store.
    fn batch(&self) -> Result<&Batch> {
        self.typed.check_is_of(self.batch.engine()).map(|()| &*self.batch)
    }

    /// The same for a change, with the map.
    fn parts(&mut self) -> Result<(&mut Batch, &Typed<K, V>)> {
        self.typed.check_is_of(self.batch.engine()).map(|()| (&mut *self.batch, &self.typed))
    }

    /// The number of keys, including expired ones that were not removed yet.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// ages.insert("Ada", 36)?;
    /// let mut transaction = store.begin()?;
    /// transaction.of(&ages).insert("Grace", 85)?;
    /// assert_eq!((transaction.of(&ages).len()?, ages.len()?), (2, 1));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn len(&self) -> Result<u64> {
        self.typed.named(self.batch()?.len(self.typed.id))
    }

    /// Whether there are no keys.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// let mut transaction = store.begin()?;
    /// assert!(transaction.of(&ages).is_empty()?);
    /// transaction.of(&ages).insert("Ada", 36)?;
    /// assert!(!transaction.of(&ages).is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> TransactionMap<'_, K, V> {
    /// The value of a key.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let accounts = store.map::<str, u32>("accounts")?;
    /// accounts.insert("Ada", 100)?;
    /// let mut transaction = store.begin()?;
    /// transaction.of(&accounts).insert("Ada", 90)?;
    /// assert_eq!(transaction.of(&accounts).get("Ada")?, Some(90));
    /// assert_eq!(transaction.of(&accounts).get("Bob")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged; [`Codec`](crate::Error::Codec) if key or value do not
    /// fit their types; [`ForeignMap`](crate::Error::ForeignMap) if the map is not of the transaction's store;
    /// [`NoSuchMap`](crate::Error::NoSuchMap) if it was dropped.
    pub fn get(&self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        self.typed.named(self.typed.get(self.batch()?, key.arg()))
    }

    /// Whether a key has a value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let members = store.map::<str, ()>("members")?;
    /// let mut transaction = store.begin()?;
    /// transaction.of(&members).insert("Ada", ())?;
    /// assert!(transaction.of(&members).contains_key("Ada")?);
    /// assert!(!members.contains_key("Ada")?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn contains_key(&self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        self.typed.named(self.typed.contains_key(self.batch()?, key.arg()))
    }

    /// Applies `f` to the value of a key in place, without a copy, and returns its result.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let pages = store.map::<str, str>("pages")?;
    /// let mut transaction = store.begin()?;
    /// transaction.of(&pages).insert("index", "Hello")?;
    /// assert_eq!(transaction.of(&pages).get_with("index", str::len)?, Some(5));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    ///
    /// # Panics
    /// Only if `f` does.
    pub fn get_with<R>(&self, key: impl Arg<K::Borrowed>, f: impl FnOnce(&V::Borrowed) -> R) -> Result<Option<R>>
    where
        V: View,
    {
        let value = self.typed.read(self.batch()?, key.arg(), |value, _| self.typed.view_value(value).map(f));
        self.typed.named(value)?.transpose()
    }

    /// The values of many keys, in the order of the keys.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let stock = store.map::<str, u32>("stock")?;
    /// stock.insert("tea", 3)?;
    /// let mut order = store.begin()?;
    /// order.of(&stock).insert("cake", 1)?;
    /// assert_eq!(order.of(&stock).get_many(&["tea", "milk", "cake"])?, [Some(3), None, Some(1)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn get_many<Q: Arg<K::Borrowed>>(&self, keys: &[Q]) -> Result<Vec<Option<V::Owned>>> {
        keys.iter().map(|key| self.get(key.arg())).collect()
    }

    /// When the entry of a key expires: `None` if it has no value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// let mut login = store.begin()?;
    /// login.of(&sessions).insert("token", 7)?;
    /// assert_eq!(login.of(&sessions).expiry("token")?, Some(slotlog::Expiry::Never));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn expiry(&self, key: impl Arg<K::Borrowed>) -> Result<Option<Expiry>> {
        self.typed.named(self.typed.expiry(self.batch()?, key.arg()))
    }

    /// Changes when the entry of a key expires, and returns whether the key has a value; see [`Store::set_expiry`].
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// sessions.insert("token", 7)?;
    /// let mut logout = store.begin()?;
    /// assert!(logout.of(&sessions).set_expiry("token", std::time::SystemTime::now())?);
    /// logout.commit()?;
    /// assert_eq!(sessions.get("token")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    ///
    /// [`Store::set_expiry`]: crate::Store::set_expiry
    pub fn set_expiry(&mut self, key: impl Arg<K::Borrowed>, when: impl Into<Expiry>) -> Result<bool> {
        let (batch, typed) = self.parts()?;
        let key = typed.encode_key(key.arg())?;
        typed.named(batch.set_expiry(typed.id, key.as_ref(), when.into().to_record()))
    }

    /// Sets the value of a key.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let accounts = store.map::<str, u32>("accounts")?;
    /// let mut transaction = store.begin()?;
    /// transaction.of(&accounts).insert("Ada", 90)?;
    /// transaction.of(&accounts).insert("Bob", 110)?;
    /// transaction.commit()?;
    /// assert_eq!(accounts.get_many(&["Ada", "Bob"])?, [Some(90), Some(110)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get) and of [`Transaction::insert`](crate::Transaction::insert).
    pub fn insert(&mut self, key: impl Arg<K::Borrowed>, value: impl Arg<V::Borrowed>) -> Result<()> {
        let (batch, typed) = self.parts()?;
        typed.insert(batch, key.arg(), value.arg(), None)
    }

    /// Sets the value of a key until a deadline; see [`Map::insert_with_expiry`].
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let store = slotlog::Store::in_memory()?;
    /// let sessions = store.map::<str, u64>("sessions")?;
    /// let in_2100 = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// let mut login = store.begin()?;
    /// login.of(&sessions).insert_with_expiry("token", 7, in_2100)?;
    /// login.commit()?;
    /// assert_eq!(sessions.expiry("token")?, Some(slotlog::Expiry::At(in_2100)));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn insert_with_expiry(
        &mut self,
        key: impl Arg<K::Borrowed>,
        value: impl Arg<V::Borrowed>,
        at: SystemTime,
    ) -> Result<()> {
        let (batch, typed) = self.parts()?;
        typed.insert(batch, key.arg(), value.arg(), Some(at))
    }

    /// Removes a key and returns whether it was there.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let jobs = store.map::<u64, str>("jobs")?;
    /// jobs.insert(1, "wash")?;
    /// let mut transaction = store.begin()?;
    /// assert!(transaction.of(&jobs).remove(1)?);
    /// assert!(!transaction.of(&jobs).remove(1)?);
    /// transaction.commit()?;
    /// assert_eq!(jobs.get(1)?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn remove(&mut self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        let (batch, typed) = self.parts()?;
        typed.remove(batch, key.arg())
    }

    /// Sets the value of a key and returns its old value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ages = store.map::<str, u32>("ages")?;
    /// let mut transaction = store.begin()?;
    /// assert_eq!(transaction.of(&ages).replace("Ada", 36)?, None);
    /// assert_eq!(transaction.of(&ages).replace("Ada", 37)?, Some(36));
    /// transaction.commit()?;
    /// assert_eq!(ages.get("Ada")?, Some(37));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn replace(&mut self, key: impl Arg<K::Borrowed>, value: impl Arg<V::Borrowed>) -> Result<Option<V::Owned>> {
        let old = self.get(key.arg())?;
        self.insert(key, value)?;
        Ok(old)
    }

    /// Removes a key and returns its value.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let to_do = store.map::<u64, str>("to do")?;
    /// let done = store.map::<u64, str>("done")?;
    /// to_do.insert(1, "wash")?;
    /// let mut transaction = store.begin()?;
    /// if let Some(job) = transaction.of(&to_do).take(1)? {
    ///     transaction.of(&done).insert(1, job)?;
    /// }
    /// transaction.commit()?;
    /// assert_eq!((to_do.get(1)?, done.get(1)?), (None, Some("wash".to_owned())));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn take(&mut self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        let old = self.get(key.arg())?;
        self.remove(key)?;
        Ok(old)
    }

    /// All keys and values, in no particular order.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let prices = store.map::<str, u32>("prices")?;
    /// prices.insert("tea", 3)?;
    /// let mut transaction = store.begin()?;
    /// transaction.of(&prices).insert("cake", 4)?;
    /// let mut entries = transaction.of(&prices).iter()?.collect::<slotlog::Result<Vec<_>>>()?;
    /// entries.sort();
    /// assert_eq!(entries, [("cake".to_owned(), 4), ("tea".to_owned(), 3)]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn iter(&self) -> Result<TransactionMapIter<'_, K, V>> {
        let (batch, typed) = (self.batch()?, self.typed.clone());
        let cursor = Some(typed.named(batch.cursor(typed.id))?);
        Ok(TransactionMapIter { batch, typed, cursor })
    }

    /// Keeps only the entries for which `f` returns `true`, and returns how many it removed.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let stock = store.map::<str, u32>("stock")?;
    /// stock.extend([("tea", 3), ("cake", 0), ("milk", 0)])?;
    /// let mut transaction = store.begin()?;
    /// assert_eq!(transaction.of(&stock).retain(|_, left| *left > 0)?, 2);
    /// transaction.commit()?;
    /// assert_eq!(stock.keys()?.collect::<slotlog::Result<Vec<_>>>()?, ["tea"]);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert). Some entries may have been removed already, in this transaction.
    pub fn retain(&mut self, f: impl FnMut(&K::Owned, &V::Owned) -> bool) -> Result<u64> {
        let (batch, typed) = self.parts()?;
        typed.retain(batch, f)
    }

    /// Removes all keys, one after the other: outside of a transaction, [`Map::clear`] takes one record.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let cart = store.map::<str, u32>("cart")?;
    /// cart.extend([("tea", 3), ("cake", 1)])?;
    /// let mut order = store.begin()?;
    /// order.of(&cart).clear()?;
    /// assert_eq!(cart.len()?, 2);
    /// order.commit()?;
    /// assert!(cart.is_empty()?);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`retain`](TransactionMap::retain).
    pub fn clear(&mut self) -> Result<()> {
        let (batch, typed) = self.parts()?;
        typed.remove_if(batch, |_| Ok(true)).map(drop)
    }
}

/// An iteration over the keys and values of a [`TransactionMap`]; see [`TransactionMap::iter`].
pub struct TransactionMapIter<'t, K: ?Sized, V: ?Sized> {
    batch: &'t Batch,
    typed: Typed<K, V>,
    /// `None` at the end, in a forked child.
    cursor: Option<BatchCursor>,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for TransactionMapIter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionMapIter").field("map", &self.typed).finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for TransactionMapIter<'_, K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.batch.next(self.cursor.as_mut()?).transpose()?;
        if self.batch.engine().is_forked() {
            // A loop that passes over errors must come to an end.
            self.cursor = None;
        }
        Some(record.and_then(|record| self.typed.decode_entry(record.key(), record.value())))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> FusedIterator for TransactionMapIter<'_, K, V> {}
