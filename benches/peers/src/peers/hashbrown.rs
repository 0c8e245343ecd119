//! A map as fast as one can be had: hashbrown with a fast hash function, on boxed slices.

use anyhow::Result;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Facts, Peer, Place, View, version_of};
use crate::data::Key;

pub(crate) struct Hashbrown(HashMap<Box<[u8]>, Box<[u8]>, RandomState>);

impl Peer for Hashbrown {
    type View<'v> = &'v Hashbrown;

    fn facts() -> Facts {
        Facts::in_memory("hashbrown", version_of("hashbrown"), "boxed slices, foldhash")
    }

    fn open(_: &Place<'_>) -> Result<Hashbrown> {
        Ok(Hashbrown(HashMap::default()))
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.insert(Box::from(&key[..]), Box::from(value));
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.0.remove(&key[..]);
        Ok(())
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.0.get(&key[..]).map(|value| found(value)))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v Hashbrown) -> Result<R>) -> Result<R> {
        work(&mut &*self)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for &Hashbrown {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Peer::get(*self, key, found)
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.0.iter().for_each(|(key, value)| entry(key, value));
        Ok(())
    }
}
