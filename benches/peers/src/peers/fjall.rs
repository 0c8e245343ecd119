//! fjall.

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable, Snapshot};

use super::{Durability, Facts, Peer, Place, View, version_of};
use crate::data::{Batch, Key};

/// Values from this length on are stored separately from their keys.
const LARGE: usize = 1024;

pub(crate) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    durability: Durability,
}

pub(crate) struct FjallView<'v> {
    snapshot: Snapshot,
    keyspace: &'v Keyspace,
}

impl Fjall {
    /// As documented: a put first, and then, if it must be durable, `persist`.
    fn persist(&self) -> Result<()> {
        if self.durability == Durability::Synced {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Peer for Fjall {
    type View<'v> = FjallView<'v>;

    fn facts() -> Facts {
        let settings = "a cache that holds everything; keys and values apart from 1 KiB on";
        Facts {
            shares: false,
            ..Facts::on_disk("fjall", version_of("fjall"), settings, "`PersistMode::SyncData` after each")
        }
    }

    fn open(place: &Place<'_>) -> Result<Fjall> {
        let cache = (place.data_bytes() * 2).max(64 << 20);
        let database = Database::builder(place.folder).cache_size(cache).open()?;
        // As advised for large values; the threshold is its default.
        let separation = (place.value_len >= LARGE).then(KvSeparationOptions::default);
        let options = || KeyspaceCreateOptions::default().with_kv_separation(separation);
        let keyspace = database.keyspace("table", options)?;
        Ok(Fjall { database, keyspace, durability: place.durability })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        self.persist()
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<()> {
        let mut writes = self.database.batch();
        for (key, value) in batch.iter() {
            writes.insert(&self.keyspace, key, value);
        }
        writes.commit()?;
        self.persist()
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        self.keyspace.remove(key)?;
        self.persist()
    }

    fn get<R>(&self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.keyspace.get(key)?.map(|value| found(&value)))
    }

    fn read<R>(&self, work: impl for<'v> FnOnce(&mut FjallView<'v>) -> Result<R>) -> Result<R> {
        work(&mut FjallView { snapshot: self.database.snapshot(), keyspace: &self.keyspace })
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn close(self) -> Result<()> {
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}

impl View for FjallView<'_> {
    fn get<R>(&mut self, key: &Key, found: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.snapshot.get(self.keyspace, key)?.map(|value| found(&value)))
    }

    fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.snapshot.iter(self.keyspace) {
            let (key, value) = found.into_inner()?;
            entry(&key, &value);
        }
        Ok(())
    }
}
