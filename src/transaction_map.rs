//! What a transaction sees and does of a typed map.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::arg::Arg;
use crate::codec::Codec;
use crate::engine::batch::Batch;
use crate::engine::expiry::deadline;
use crate::error::Result;
use crate::map::Map;
use crate::typed::Typed;

/// A [`Map`] within a transaction; see [`Transaction::of`](crate::Transaction::of). It sees what the transaction has done so
/// far, to whichever map.
pub struct TransactionMap<'t, K: ?Sized, V: ?Sized> {
    batch: &'t mut Batch,
    typed: Typed<K, V>,
    is_foreign: bool,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for TransactionMap<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionMap").field("map", &self.typed).finish_non_exhaustive()
    }
}

impl<'t, K: ?Sized, V: ?Sized> TransactionMap<'t, K, V> {
    pub(crate) fn new(batch: &'t mut Batch, map: &Map<K, V>) -> TransactionMap<'t, K, V> {
        let is_foreign = !Arc::ptr_eq(batch.engine(), map.engine());
        TransactionMap { batch, typed: map.typed().clone(), is_foreign }
    }

    fn check(&self) -> Result<()> {
        if self.is_foreign { Err(self.typed.foreign(self.batch.engine())) } else { Ok(()) }
    }

    /// How many keys there are, those included that have expired and were not removed yet.
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn len(&self) -> Result<u64> {
        self.check()?;
        self.typed.named(self.batch.len(self.typed.id))
    }

    /// Whether there are no keys.
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
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) if the file is damaged; [`Codec`](crate::Error::Codec) if key or value do not fit
    /// their types; [`ForeignMap`](crate::Error::ForeignMap) if the map is not of the transaction's store;
    /// [`NoSuchMap`](crate::Error::NoSuchMap) if it was dropped.
    pub fn get(&self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        self.check()?;
        let key = self.typed.encode_key(key.arg())?;
        let record = self.typed.named(self.batch.get(self.typed.id, key.as_ref()))?;
        record.map(|record| self.typed.decode_value(record.value())).transpose()
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn contains_key(&self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        self.check()?;
        let key = self.typed.encode_key(key.arg())?;
        Ok(self.typed.named(self.batch.get(self.typed.id, key.as_ref()))?.is_some())
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get) and of [`Transaction::insert`](crate::Transaction::insert).
    pub fn insert(&mut self, key: impl Arg<K::Borrowed>, value: impl Arg<V::Borrowed>) -> Result<()> {
        self.put(key.arg(), value.arg(), None)
    }

    /// Sets the value of a key for a time; see [`Map::insert_with_expiry`].
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn insert_with_expiry(
        &mut self,
        key: impl Arg<K::Borrowed>,
        value: impl Arg<V::Borrowed>,
        at: SystemTime,
    ) -> Result<()> {
        self.put(key.arg(), value.arg(), Some(deadline(at)))
    }

    fn put(&mut self, key: &K::Borrowed, value: &V::Borrowed, expires: Option<u64>) -> Result<()> {
        self.check()?;
        let (key, value) = (self.typed.encode_key(key)?, self.typed.encode_value(value)?);
        self.typed.named(self.batch.put(self.typed.id, key.as_ref(), value.as_ref(), expires))
    }

    /// Removes a key, and says whether it was there.
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn remove(&mut self, key: impl Arg<K::Borrowed>) -> Result<bool> {
        self.check()?;
        let key = self.typed.encode_key(key.arg())?;
        self.typed.named(self.batch.remove(self.typed.id, key.as_ref()))
    }

    /// Sets the value of a key, and returns the one that it had.
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn replace(&mut self, key: impl Arg<K::Borrowed>, value: impl Arg<V::Borrowed>) -> Result<Option<V::Owned>> {
        let old = self.get(key.arg())?;
        self.put(key.arg(), value.arg(), None)?;
        Ok(old)
    }

    /// Removes a key, and returns the value that it had.
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert).
    pub fn take(&mut self, key: impl Arg<K::Borrowed>) -> Result<Option<V::Owned>> {
        let old = self.get(key.arg())?;
        self.remove(key.arg())?;
        Ok(old)
    }

    /// All keys and values, in no particular order.
    ///
    /// # Errors
    /// Those of [`get`](TransactionMap::get).
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<(K::Owned, V::Owned)>>> {
        self.check()?;
        let mut cursor = self.typed.named(self.batch.cursor(self.typed.id))?;
        Ok(std::iter::from_fn(move || match self.batch.next(&mut cursor) {
            Ok(record) => record.map(|record| self.typed.decode_entry(record.key(), record.value())),
            Err(error) => Some(Err(error)),
        }))
    }

    /// Keeps only the entries for which `f` says so, and says how many it has removed.
    ///
    /// # Errors
    /// Those of [`insert`](TransactionMap::insert). Some may have been removed already, in this transaction.
    pub fn retain(&mut self, mut f: impl FnMut(&K::Owned, &V::Owned) -> bool) -> Result<u64> {
        self.remove_if(|typed, key, value| {
            let (key, value) = typed.decode_entry(key, value)?;
            Ok(!f(&key, &value))
        })
    }

    /// Removes all keys, one after the other: outside of a transaction, [`Map::clear`] is one record.
    ///
    /// # Errors
    /// Those of [`retain`](TransactionMap::retain).
    pub fn clear(&mut self) -> Result<()> {
        self.remove_if(|_, _, _| Ok(true)).map(drop)
    }

    fn remove_if(&mut self, mut f: impl FnMut(&Typed<K, V>, &[u8], &[u8]) -> Result<bool>) -> Result<u64> {
        self.check()?;
        let mut cursor = self.typed.named(self.batch.cursor(self.typed.id))?;
        let mut removed = 0;
        while let Some(record) = self.batch.next(&mut cursor)? {
            if f(&self.typed, record.key(), record.value())? {
                let key = record.key().to_vec();
                removed += u64::from(self.batch.remove(self.typed.id, &key)?);
            }
        }
        Ok(removed)
    }
}
