//! CandyStore.

use anyhow::Result;
use candystore::{CandyStore, Config};

use super::{Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

pub(crate) struct Candystore {
    store: CandyStore,
    durability: Durability,
}

impl Candystore {
    fn checkpoint(&self) -> Result<()> {
        if self.durability == Durability::Synced {
            self.store.checkpoint()?;
        }
        Ok(())
    }
}

impl Peer for Candystore {
    type View<'v> = &'v CandyStore;

    fn facts() -> Facts {
        let settings = "told the number of keys";
        Facts {
            shares: false,
            longest_value: candystore::MAX_VALUE_LEN,
            ..Facts::on_disk("CandyStore", version_of("candystore"), settings, "`checkpoint` after each")
        }
    }

    fn open(place: &Place<'_>) -> Result<Candystore> {
        let config = Config { initial_capacity: place.keys as usize, ..Config::default() };
        Ok(Candystore {
            store: CandyStore::open(place.folder.join("candystore"), config)?,
            durability: place.durability,
        })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.store.set(key, value)?;
        self.checkpoint()
    }

    /// It has no transactions, but one checkpoint covers many puts.
    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        for (key, value) in batch.iter() {
            self.store.set(key, value)?;
        }
        self.checkpoint()
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.store.remove(key)?;
        self.checkpoint()
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.store.get(key)?.map(|value| found(&value)))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut &'v CandyStore) -> Result<R>) -> Result<R> {
        work(&mut &self.store)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.store.checkpoint()?)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for &CandyStore {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(CandyStore::get(self, key)?.map(|value| found(&value)))
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.iter_items() {
            let (key, value) = found?;
            entry(&key, &value);
        }
        Ok(())
    }
}
