//! Taking entries into a store, whatever its types.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::engine::change::bounded::Bounded;
use crate::engine::clock::deadline;
use crate::error::{Error, Result};
use crate::file::layout::{DEFAULT_MAP, MapId};
use crate::map::catalogue::find_or_create;
use crate::store::Store;

/// Takes entries as bytes; see [`Store::import`].
pub struct Import {
    maps: HashMap<String, MapId>,
    to: Bounded,
    committed: u64,
}

impl Store {
    /// Begins to take entries as bytes, in transactions of bounded size: the counterpart of
    /// [`Snapshot::export`](crate::Snapshot::export), with an example. Existing entries are replaced.
    ///
    /// While a transaction is open, other writers wait. What was committed stays if the import is dropped before its
    /// [end](Import::finish), or its process is killed; [`committed`](Import::committed) tells how far it came.
    pub fn import(&self) -> Import {
        Import { maps: HashMap::new(), to: Bounded::new(Arc::clone(&self.engine())), committed: 0 }
    }
}

impl Import {
    /// Makes sure that there is a map of this name, with these [types](crate::MapInfo::types) and version.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut import = store.import();
    /// import.create_map("ages", "str -> u32", 0)?;
    /// import.insert("ages", b"Ada", &36u32.to_le_bytes(), None)?;
    /// import.finish()?;
    /// assert_eq!(store.map::<str, u32>("ages")?.get("Ada")?, Some(36));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TypeMismatch`](Error::TypeMismatch) if there is a map of this name with other types;
    /// [`InvalidName`](Error::InvalidName); those of [`Transaction::commit`](crate::Transaction::commit).
    pub fn create_map(&mut self, name: &str, types: &str, version: u32) -> Result<()> {
        self.commit()?;
        let named = find_or_create(self.to.engine(), name, version, types.to_owned())?;
        self.maps.insert(name.to_owned(), named.id);
        Ok(())
    }

    /// Takes an entry into the map of this name; an empty name is the default map. Nothing checks whether the bytes
    /// are of the map's types.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut import = store.import();
    /// import.insert("", b"key", b"value", None)?;
    /// let missing = import.insert("ages", b"Ada", &[36, 0, 0, 0], None);
    /// assert!(matches!(missing, Err(slotlog::Error::NoSuchMap { .. })));
    /// assert_eq!(import.finish()?, 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NoSuchMap`](Error::NoSuchMap); those of [`Transaction::insert`](crate::Transaction::insert) and
    /// [`Transaction::commit`](crate::Transaction::commit).
    pub fn insert(&mut self, map: &str, key: &[u8], value: &[u8], expires: Option<SystemTime>) -> Result<()> {
        let id = self.id_of(map)?;
        self.to.batch()?.put(id, key, value, expires.map(deadline))?;
        self.count(key, value)
    }

    /// Takes an entry, [as `insert` does](Import::insert), unless the map has it with the same value and deadline, and
    /// returns whether it was written. So an import that was interrupted is completed by beginning it again, without
    /// writing anything twice.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// let mut import = store.import();
    /// assert!(!import.insert_if_changed("", b"key", b"value", None)?);
    /// assert!(import.insert_if_changed("", b"key", b"other", None)?);
    /// assert_eq!(import.finish()?, 2, "of both it is certain that they are there");
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Import::insert).
    pub fn insert_if_changed(
        &mut self,
        map: &str,
        key: &[u8],
        value: &[u8],
        expires: Option<SystemTime>,
    ) -> Result<bool> {
        let (id, expires) = (self.id_of(map)?, expires.map(deadline));
        let batch = self.to.batch()?;
        let present = batch.get(id, key)?;
        let changes = present.is_none_or(|record| record.value() != value || record.expires() != expires);
        if changes {
            batch.put(id, key, value, expires)?;
        }
        self.count(key, value).map(|()| changes)
    }

    /// Takes an entry, [as `insert` does](Import::insert), unless the map has the key, and returns whether it was
    /// written.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("key", "value")?;
    /// let mut import = store.import();
    /// assert!(!import.insert_if_new("", b"key", b"other", None)?);
    /// assert!(import.insert_if_new("", b"new", b"other", None)?);
    /// import.finish()?;
    /// assert_eq!(store.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Import::insert).
    pub fn insert_if_new(&mut self, map: &str, key: &[u8], value: &[u8], expires: Option<SystemTime>) -> Result<bool> {
        let id = self.id_of(map)?;
        let batch = self.to.batch()?;
        let is_new = batch.get(id, key)?.is_none();
        if is_new {
            batch.put(id, key, value, expires.map(deadline))?;
        }
        self.count(key, value).map(|()| is_new)
    }

    /// Counts an entry, and commits if the transaction is large enough. One that was only compared counts too, since
    /// other writers wait for it.
    fn count(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.to.count((key.len() + value.len()) as u64) { self.commit() } else { Ok(()) }
    }

    fn id_of(&mut self, map: &str) -> Result<MapId> {
        if map.is_empty() {
            return Ok(DEFAULT_MAP);
        }
        if let Some(&id) = self.maps.get(map) {
            return Ok(id);
        }
        let engine = self.to.engine();
        let found = engine.find_named(map)?;
        let missing = || Error::NoSuchMap { path: engine.mapping.path().to_owned(), map: map.to_owned() };
        let id = found.ok_or_else(missing)?.id;
        self.maps.insert(map.to_owned(), id);
        Ok(id)
    }

    /// How many entries are committed.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let mut import = store.import();
    /// import.insert("", b"key", b"value", None)?;
    /// assert_eq!(import.committed(), 0);
    /// import.commit()?;
    /// assert_eq!(import.committed(), 1);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Commits what was taken so far. It goes on with a new transaction.
    ///
    /// # Errors
    /// Those of [`Transaction::commit`](crate::Transaction::commit).
    pub fn commit(&mut self) -> Result<()> {
        self.committed += self.to.commit()?;
        Ok(())
    }

    /// Commits the rest, and returns how many entries were committed.
    ///
    /// # Errors
    /// Those of [`Transaction::commit`](crate::Transaction::commit).
    pub fn finish(mut self) -> Result<u64> {
        self.commit()?;
        Ok(self.committed)
    }
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("committed", &self.committed).finish_non_exhaustive()
    }
}
