//! Maps in memory: that of the standard library, with its own hash function, and the fastest available, hashbrown with
//! a fast hash function on boxed slices.

use std::collections::HashMap;

use anyhow::Result;
use foldhash::fast::RandomState;

use super::{Facts, Peer, Place, View, version_of};
use crate::data::Key;

/// A map of bytes to bytes.
pub(crate) trait Table: Default + Sync + 'static {
    fn facts() -> Facts;

    fn insert(&mut self, key: &Key, value: &[u8]);

    fn get(&self, key: &Key) -> Option<&[u8]>;

    fn remove(&mut self, key: &Key);

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])>;
}

pub(crate) type Std = HashMap<Vec<u8>, Vec<u8>>;

impl Table for Std {
    fn facts() -> Facts {
        Facts::in_memory("std HashMap", "–", "`HashMap<Vec<u8>, Vec<u8>>`")
    }

    fn insert(&mut self, key: &Key, value: &[u8]) {
        self.insert(key.to_vec(), value.to_vec());
    }

    fn get(&self, key: &Key) -> Option<&[u8]> {
        self.get(&key[..]).map(Vec::as_slice)
    }

    fn remove(&mut self, key: &Key) {
        self.remove(&key[..]);
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.iter().map(|(key, value)| (&key[..], &value[..]))
    }
}

pub(crate) type Hashbrown = hashbrown::HashMap<Box<[u8]>, Box<[u8]>, RandomState>;

impl Table for Hashbrown {
    fn facts() -> Facts {
        Facts::in_memory("hashbrown", version_of("hashbrown"), "boxed slices, foldhash")
    }

    fn insert(&mut self, key: &Key, value: &[u8]) {
        self.insert(Box::from(&key[..]), Box::from(value));
    }

    fn get(&self, key: &Key) -> Option<&[u8]> {
        self.get(&key[..]).map(|value| &value[..])
    }

    fn remove(&mut self, key: &Key) {
        self.remove(&key[..]);
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.iter().map(|(key, value)| (&key[..], &value[..]))
    }
}

/// Such a map as a peer.
pub(crate) struct InMemory<T>(T);

impl<T: Table> Peer for InMemory<T> {
    type View<'v> = &'v InMemory<T>;

    fn facts() -> Facts {
        T::facts()
    }

    fn open(_: &Place<'_>) -> Result<InMemory<T>> {
        Ok(InMemory(T::default()))
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.insert(key, value);
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.0.remove(key);
        Ok(())
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.0.get(key).map(found))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v InMemory<T>) -> Result<R>) -> Result<R> {
        work(&mut &*self)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl<T: Table> View for &InMemory<T> {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Peer::get(*self, key, found)
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.0.iter().for_each(|(key, value)| entry(key, value));
        Ok(())
    }
}
