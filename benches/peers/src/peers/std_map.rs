//! The map of the standard library, with its own hash function.

use std::collections::HashMap;

use anyhow::Result;

use super::{Facts, Peer, Place, View};
use crate::data::Key;

pub(crate) struct Std(HashMap<Vec<u8>, Vec<u8>>);

impl Peer for Std {
    type View<'v> = &'v Std;

    fn facts() -> Facts {
        Facts::in_memory("std HashMap", String::from("–"), "`HashMap<Vec<u8>, Vec<u8>>`")
    }

    fn open(_: &Place<'_>) -> Result<Std> {
        Ok(Std(HashMap::new()))
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.0.remove(&key[..]);
        Ok(())
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.0.get(&key[..]).map(|value| found(value)))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Std) -> Result<R>) -> Result<R> {
        work(&mut &*self)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for &Std {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Peer::get(*self, key, found)
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.0.iter().for_each(|(key, value)| entry(key, value));
        Ok(())
    }
}
